//! Connections, requests and replies.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Command;
use std::sync::Mutex;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::body::{ByteStream, ChannelBody};
use crate::hijack::Hijacked;
use crate::{API_VERSION, ClientError};

/// Largest reply that is read as a whole.
const MAX_REPLY: usize = 256 * 1024 * 1024;

/// What a request carries.
#[derive(Debug)]
pub enum RequestBody {
    /// Nothing.
    Empty,
    /// Nothing, with credentials for a registry (`X-Registry-Auth`).
    Authorized(String),
    /// JSON.
    Json(Bytes),
    /// JSON, with credentials for a registry.
    AuthorizedJson(String, Bytes),
    /// A stream of bytes.
    Stream(ChannelBody),
}

impl RequestBody {
    /// A value as JSON.
    pub fn json<T: Serialize>(value: &T) -> Self {
        // The wire types are plain data, whose serialisation cannot fail.
        Self::Json(serde_json::to_vec(value).unwrap_or_default().into())
    }
}

/// The body hyper sends.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Full(Full<Bytes>),
    Stream(ChannelBody),
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match self.get_mut() {
            Self::Full(full) => Pin::new(full)
                .poll_frame(context)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            Self::Stream(stream) => Pin::new(stream).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(full) => full.is_end_stream(),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(full) => full.size_hint(),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// How an engine is reached.
#[derive(Debug)]
enum Place {
    /// By its socket.
    Socket(PathBuf),
    /// By a program that passes its standard streams on to the engine: each connection starts one.
    Program(Vec<String>),
}

/// A client of one engine.
#[derive(Debug)]
pub struct Client {
    place: Place,
    idle: Mutex<Vec<SendRequest<Outgoing>>>,
}

impl Client {
    /// A client of the engine that listens on `socket`; connects at the first request.
    pub fn unix(socket: impl Into<PathBuf>) -> Self {
        Self {
            place: Place::Socket(socket.into()),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// A client of the engine that this program and its arguments lead to, by its standard
    /// streams: `ssh HOST hull system dial-stdio`.
    pub fn program(words: Vec<String>) -> Self {
        Self {
            place: Place::Program(words),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Connects now, so that a missing daemon shows before anything is sent; the connection is kept.
    pub async fn connect(&self) -> Result<(), ClientError> {
        let sender = self.open().await?;
        self.keep(sender);
        Ok(())
    }

    /// Opens `count` connections more, for requests that will run side by side, while the engine
    /// still works at another. One that cannot be opened shows at the request that needs it.
    pub async fn open_ahead(&self, count: usize) {
        for _ in 0..count {
            if let Ok(sender) = self.open().await {
                self.keep(sender);
            }
        }
    }

    async fn open(&self) -> Result<SendRequest<Outgoing>, ClientError> {
        let stream = match &self.place {
            Place::Socket(path) => {
                UnixStream::connect(path)
                    .await
                    .map_err(|source| ClientError::Connect {
                        path: path.clone(),
                        source,
                    })?
            }
            Place::Program(words) => dial(words).map_err(|source| ClientError::Program {
                program: words.join(" "),
                source,
            })?,
        };
        let (sender, connection) =
            handshake(TokioIo::new(stream))
                .await
                .map_err(|source| ClientError::Transport {
                    request: "handshake".to_owned(),
                    source,
                })?;
        // The task ends with the connection; its error reaches the request that was in flight.
        tokio::spawn(async move {
            let _ = connection.with_upgrades().await;
        });
        Ok(sender)
    }

    async fn sender(&self) -> Result<SendRequest<Outgoing>, ClientError> {
        let idle = self.idle.lock().ok().and_then(|mut idle| idle.pop());
        if let Some(mut sender) = idle
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        self.open().await
    }

    fn keep(&self, sender: SendRequest<Outgoing>) {
        if let Ok(mut idle) = self.idle.lock()
            && !sender.is_closed()
        {
            idle.push(sender);
        }
    }

    /// Sends a request and gives the reply's head; an error status becomes [`ClientError::Api`].
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: RequestBody,
        upgrade: bool,
    ) -> Result<(Response<Incoming>, SendRequest<Outgoing>, String), ClientError> {
        let described = format!("{method} {path}");
        let mut sender = self.sender().await?;
        let mut builder = Request::builder()
            .method(method)
            .uri(format!("/{API_VERSION}{path}"))
            .header(HOST, "hull");
        if upgrade {
            builder = builder.header(CONNECTION, "Upgrade").header(UPGRADE, "tcp");
        }
        let outgoing = match body {
            RequestBody::Empty => Outgoing::Full(Full::default()),
            RequestBody::Authorized(credentials) => {
                builder = builder.header("X-Registry-Auth", credentials);
                Outgoing::Full(Full::default())
            }
            RequestBody::Json(json) => {
                builder = builder.header(CONTENT_TYPE, "application/json");
                Outgoing::Full(Full::new(json))
            }
            RequestBody::AuthorizedJson(credentials, json) => {
                builder = builder
                    .header("X-Registry-Auth", credentials)
                    .header(CONTENT_TYPE, "application/json");
                Outgoing::Full(Full::new(json))
            }
            RequestBody::Stream(stream) => {
                builder = builder.header(CONTENT_TYPE, "application/x-tar");
                Outgoing::Stream(stream)
            }
        };
        let request = builder
            .body(outgoing)
            .map_err(|source| ClientError::Request {
                request: described.clone(),
                source,
            })?;
        let response =
            sender
                .send_request(request)
                .await
                .map_err(|source| ClientError::Transport {
                    request: described.clone(),
                    source,
                })?;
        if response.status().is_client_error() || response.status().is_server_error() {
            let status = response.status();
            let bytes = collect(response.into_body(), &described).await?;
            self.keep(sender);
            return Err(api_error(status, &bytes));
        }
        Ok((response, sender, described))
    }

    /// Sends a request and reads the whole reply.
    pub async fn bytes(
        &self,
        method: Method,
        path: &str,
        body: RequestBody,
    ) -> Result<Bytes, ClientError> {
        let (response, sender, described) = self.exchange(method, path, body, false).await?;
        let bytes = collect(response.into_body(), &described).await?;
        self.keep(sender);
        Ok(bytes)
    }

    /// Sends a request and decodes the reply.
    pub async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: RequestBody,
    ) -> Result<T, ClientError> {
        let described = format!("{method} {path}");
        let bytes = self.bytes(method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(|source| ClientError::Decode {
            request: described,
            source,
        })
    }

    /// Gets and decodes.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(Method::GET, path, RequestBody::Empty).await
    }

    /// Posts and ignores what the reply carries.
    pub async fn post_unit(&self, path: &str, body: RequestBody) -> Result<(), ClientError> {
        self.bytes(Method::POST, path, body).await.map(drop)
    }

    /// Sends a request whose reply is read as it comes.
    pub async fn stream(
        &self,
        method: Method,
        path: &str,
        body: RequestBody,
    ) -> Result<ByteStream, ClientError> {
        let (response, _sender, described) = self.exchange(method, path, body, false).await?;
        Ok(ByteStream::new(response.into_body(), described))
    }

    /// Asks for a reply's headers alone.
    pub(crate) async fn headers(&self, path: &str) -> Result<HeaderMap, ClientError> {
        let (response, sender, _) = self
            .exchange(Method::HEAD, path, RequestBody::Empty, false)
            .await?;
        self.keep(sender);
        Ok(response.headers().clone())
    }

    /// Gets what is read as it comes, with the reply's headers.
    pub(crate) async fn stream_with_headers(
        &self,
        path: &str,
    ) -> Result<(HeaderMap, ByteStream), ClientError> {
        let (response, _sender, described) = self
            .exchange(Method::GET, path, RequestBody::Empty, false)
            .await?;
        let headers = response.headers().clone();
        Ok((headers, ByteStream::new(response.into_body(), described)))
    }

    /// Sends a request that takes the connection over.
    pub async fn hijack(&self, path: &str, body: RequestBody) -> Result<Hijacked, ClientError> {
        let (response, _sender, described) = self.exchange(Method::POST, path, body, true).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(ClientError::NotUpgraded {
                request: described,
                status: response.status().as_u16(),
            });
        }
        let upgraded =
            hyper::upgrade::on(response)
                .await
                .map_err(|source| ClientError::Transport {
                    request: described.clone(),
                    source,
                })?;
        let parts = upgraded
            .downcast::<TokioIo<UnixStream>>()
            .map_err(|_| ClientError::Stream("the connection handed over is not a unix socket"))?;
        Ok(Hijacked::new(parts.io.into_inner(), parts.read_buf))
    }
}

/// Starts a program whose standard streams are the connection. It ends with the connection.
fn dial(words: &[String]) -> std::io::Result<UnixStream> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let [program, arguments @ ..] = words else {
        return Err(std::io::Error::other("no program is named"));
    };
    let input = OwnedFd::from(theirs.try_clone()?);
    Command::new(program)
        .args(arguments)
        .stdin(input)
        .stdout(OwnedFd::from(theirs))
        .spawn()?;
    ours.set_nonblocking(true)?;
    UnixStream::from_std(ours)
}

async fn collect(body: Incoming, request: &str) -> Result<Bytes, ClientError> {
    match Limited::new(body, MAX_REPLY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(source) => Err(ClientError::Transport {
                request: request.to_owned(),
                source: *source,
            }),
            Err(_) => Err(ClientError::TooLarge {
                request: request.to_owned(),
                limit: MAX_REPLY,
            }),
        },
    }
}

/// The engine's `{"message": …}`, or what it sent instead.
fn api_error(status: StatusCode, bytes: &[u8]) -> ClientError {
    let message = match serde_json::from_slice::<hull_api_types::error::ErrorResponse>(bytes) {
        Ok(reply) if !reply.message.is_empty() => reply.message,
        _ if bytes.is_empty() => format!("request returned {status}"),
        _ => String::from_utf8_lossy(bytes).trim().to_owned(),
    };
    ClientError::Api {
        status: status.as_u16(),
        message,
    }
}
