//! Connections that leave HTTP: attach and exec turn theirs into a byte stream.
//!
//! ```text
//! client ◀─connection─▶ this relay ◀─socket pair─▶ shim
//! ```
//!
//! The shim already writes what clients read (raw bytes, or frames with 8-byte headers), so the
//! relay only copies, half-closes where the client does, and watches for the detach keys. Its
//! end of the pair reaches the shim before the client is told that it may go on: no output of a
//! process started right after is missed.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::ext::ReasonPhrase;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::body;
use crate::detach::DetachKeys;
use crate::error::{ApiError, ApiResult};

use crate::version::ApiVersion;

/// Bytes of a stream without framing: a terminal's, or any to old clients.
pub(crate) const RAW_STREAM: &str = "application/vnd.docker.raw-stream";
/// Bytes of a stream in frames that tell stdout from stderr.
pub(crate) const MULTIPLEXED_STREAM: &str = "application/vnd.docker.multiplexed-stream";

const COPY_BUFFER: usize = 32 << 10;
/// A client that runs has read the head by then.
const HEAD_SPIN: Duration = Duration::from_micros(300);
/// One that has not by then gets the rest as it is.
const HEAD_PATIENCE: Duration = Duration::from_secs(1);

/// The content type of a process's output.
pub(crate) fn content_type(tty: bool, version: ApiVersion) -> &'static str {
    if tty || version < ApiVersion::MULTIPLEXED_TYPE {
        RAW_STREAM
    } else {
        MULTIPLEXED_STREAM
    }
}

/// What a stream stays open for after its output ended.
pub(crate) type Until = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What is relayed between a client and a shim.
pub(crate) struct Relay {
    /// Our end of the shim's socket.
    pub(crate) shim: UnixStream,
    /// Sent to the client first.
    pub(crate) before: Vec<u8>,
    /// The keys that end the client's part, where it types on a terminal.
    pub(crate) detach: Option<DetachKeys>,
    /// The client takes the end of its stream as news; it is told once this came true.
    pub(crate) until: Option<Until>,
}

impl Relay {
    /// A plain one.
    pub(crate) fn new(shim: UnixStream) -> Self {
        Self {
            shim,
            before: Vec::new(),
            detach: None,
            until: None,
        }
    }
}

/// A request whose connection becomes a stream.
#[derive(Debug)]
pub(crate) struct Hijack {
    upgrade: Option<OnUpgrade>,
    body: Body,
}

impl Hijack {
    /// Takes the connection of a request. What is left in the body of one that does not ask for
    /// an upgrade is its input.
    pub(crate) fn new(upgrade: Option<OnUpgrade>, body: Body) -> Self {
        Self { upgrade, body }
    }

    /// Takes the connection of a request whose body was read already.
    pub(crate) fn without_body(upgrade: Option<OnUpgrade>) -> Self {
        Self::new(upgrade, Body::empty())
    }

    /// Answers the request as a stream that says this and ends.
    pub(crate) fn farewell(self, text: Vec<u8>, content_type: &'static str) -> ApiResult {
        let (ours, _) = UnixStream::pair().map_err(|error| {
            ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("cannot make a socket pair for the stream: {error}"),
            )
        })?;
        Ok(self.relay(
            Relay {
                before: text,
                ..Relay::new(ours)
            },
            content_type,
        ))
    }

    /// Answers the request and relays between its client and the shim from then on.
    pub(crate) fn relay(self, relay: Relay, content_type: &'static str) -> Response {
        let Some(upgrade) = self.upgrade else {
            return plain(self.body, relay, content_type);
        };
        tokio::spawn(async move {
            match upgrade.await {
                Ok(client) => upgraded(client, relay).await,
                Err(error) => tracing::debug!("client left before its upgrade: {error}"),
            }
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
        let reason = ReasonPhrase::from_static(b"UPGRADED");
        response.extensions_mut().insert(reason);
        response
    }
}

/// The upgrade that a request asks for.
pub(crate) fn upgrade(request: &mut Request) -> Option<OnUpgrade> {
    wants_upgrade(request.headers()).then(|| hyper::upgrade::on(request))
}

/// A frame of a multiplexed stream: 1 is stdout, 2 is stderr.
pub(crate) fn frame(stream: u8, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = vec![stream, 0, 0, 0];
    frame.extend_from_slice(&length);
    frame.extend_from_slice(data);
    frame
}

fn wants_upgrade(headers: &HeaderMap) -> bool {
    let has = |name, word: &str| {
        let values = headers.get_all(name).into_iter();
        let mut words = values
            .filter_map(|v| v.to_str().ok())
            .flat_map(|v| v.split(','));
        words.any(|w| w.trim().eq_ignore_ascii_case(word))
    };
    has(header::UPGRADE, "tcp") && has(header::CONNECTION, "upgrade")
}

/// Relays to a client that keeps speaking HTTP: its body is input, the reply's body is output.
fn plain(mut input: Body, relay: Relay, content_type: &'static str) -> Response {
    let (mut from_shim, mut to_shim) = relay.shim.into_split();
    let (sender, output) = body::stream();
    tokio::spawn(async move {
        let feed = async {
            while let Some(Ok(frame)) = input.frame().await {
                if let Ok(data) = frame.into_data()
                    && to_shim.write_all(&data).await.is_err()
                {
                    break;
                }
            }
            // Its end says that input ended.
            drop(to_shim);
            std::future::pending::<()>().await;
        };
        let drain = async {
            if !relay.before.is_empty() && !sender.send(relay.before).await {
                return;
            }
            let mut buffer = vec![0; COPY_BUFFER];
            while let Ok(count @ 1..) = from_shim.read(&mut buffer).await {
                let chunk = Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default());
                if !sender.send(chunk).await {
                    return;
                }
            }
            if let Some(until) = relay.until {
                until.await;
            }
        };
        tokio::select! {
            () = feed => {}
            () = drain => {}
            () = sender.closed() => {}
        }
    });
    body::streamed(content_type, output)
}

/// Waits for a moment until the client has read the head of our answer.
///
/// Clients that leave HTTP behind (Docker's SDK for Python does) lose what they read into their
/// HTTP library's buffer together with the head.
async fn head_taken(client: &UnixStream) {
    let begun = Instant::now();
    while hull_sys::socket::unread_by_peer(client).is_ok_and(|unread| unread > 0) {
        match begun.elapsed() {
            soon if soon < HEAD_SPIN => tokio::task::yield_now().await,
            late if late < HEAD_PATIENCE => tokio::time::sleep(Duration::from_millis(1)).await,
            _ => return,
        }
    }
}

async fn upgraded(client: Upgraded, relay: Relay) {
    match client.downcast::<TokioIo<UnixStream>>() {
        Ok(parts) => {
            let (read, write) = parts.io.into_inner().into_split();
            copy(&parts.read_buf, read, write, relay).await;
        }
        // The server accepts on unix sockets alone.
        Err(_) => tracing::error!("an upgraded connection is no unix socket"),
    }
}

/// Copies both ways until the output ends, the client is gone or types the detach keys.
async fn copy(
    early: &[u8],
    client_read: OwnedReadHalf,
    mut client_write: OwnedWriteHalf,
    relay: Relay,
) {
    let (mut from_shim, to_shim) = relay.shim.into_split();
    let input = async {
        if !feed(early, client_read, to_shim, relay.detach).await {
            // Input ended, output goes on.
            std::future::pending::<()>().await;
        }
    };
    let output = async {
        if !relay.before.is_empty() {
            head_taken(client_write.as_ref()).await;
            if client_write.write_all(&relay.before).await.is_err() {
                return;
            }
        }
        let mut first = relay.before.is_empty();
        let mut buffer = vec![0; COPY_BUFFER];
        while let Ok(count @ 1..) = from_shim.read(&mut buffer).await {
            if std::mem::take(&mut first) {
                head_taken(client_write.as_ref()).await;
            }
            let chunk = buffer.get(..count).unwrap_or_default();
            if client_write.write_all(chunk).await.is_err() {
                return;
            }
        }
        if let Some(until) = relay.until {
            until.await;
        }
    };
    tokio::select! {
        () = input => {}
        () = output => {}
    }
    // A client that has gone needs no farewell.
    let _ = client_write.shutdown().await;
}

/// Copies input until it ends (false) or the detach keys are typed (true).
async fn feed(
    early: &[u8],
    mut client: impl AsyncRead + Unpin,
    mut shim: impl AsyncWrite + Unpin,
    mut detach: Option<DetachKeys>,
) -> bool {
    let mut buffer = vec![0; COPY_BUFFER];
    let mut passed = Vec::new();
    let mut early = Some(early);
    loop {
        let chunk = match early.take() {
            Some(early) if !early.is_empty() => early,
            _ => match client.read(&mut buffer).await {
                Ok(count @ 1..) => buffer.get(..count).unwrap_or_default(),
                _ => break,
            },
        };
        let (chunk, detached) = match detach.as_mut() {
            None => (chunk, false),
            Some(keys) => {
                passed.clear();
                let detached = keys.pass(chunk, &mut passed);
                (passed.as_slice(), detached)
            }
        };
        if shim.write_all(chunk).await.is_err() {
            break;
        }
        if detached {
            return true;
        }
    }
    // The shim reads this as the end of standard input.
    let _ = shim.shutdown().await;
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn copied(detach: Option<DetachKeys>) -> (UnixStream, UnixStream) {
        let (client, server) = UnixStream::pair().unwrap();
        let (ours, shim) = UnixStream::pair().unwrap();
        tokio::spawn(async move {
            let (read, write) = server.into_split();
            copy(
                b"early ",
                read,
                write,
                Relay {
                    detach,
                    ..Relay::new(ours)
                },
            )
            .await;
        });
        (client, shim)
    }

    #[tokio::test]
    async fn input_that_ends_leaves_output_going_on() {
        let (mut client, mut shim) = copied(None).await;
        client.write_all(b"input").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = String::new();
        shim.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "early input");
        shim.write_all(b"output").await.unwrap();
        drop(shim);
        got.clear();
        client.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "output");
    }

    #[tokio::test]
    async fn detach_keys_close_the_client_after_what_was_typed() {
        let (mut client, mut shim) = copied(Some(DetachKeys::parse("").unwrap())).await;
        client.write_all(b"ls\x10\x11").await.unwrap();
        let mut got = String::new();
        client.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "");
        shim.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "early ls");
    }

    #[tokio::test]
    async fn stream_ends_only_after_what_it_waits_for() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let (ours, shim) = UnixStream::pair().unwrap();
        let (ended, wait) = tokio::sync::oneshot::channel::<()>();
        let until: Until = Box::pin(async {
            let _ = wait.await;
        });
        tokio::spawn(async move {
            let (read, write) = server.into_split();
            copy(
                b"",
                read,
                write,
                Relay {
                    until: Some(until),
                    ..Relay::new(ours)
                },
            )
            .await;
        });
        drop(shim);
        let mut byte = [0];
        let early =
            tokio::time::timeout(std::time::Duration::from_millis(50), client.read(&mut byte));
        assert!(early.await.is_err());
        ended.send(()).unwrap();
        assert_eq!(client.read(&mut byte).await.unwrap(), 0);
    }

    #[test]
    fn content_type_follows_terminal_and_version() {
        let old = crate::version::split(&"/v1.41/info".parse().unwrap())
            .unwrap()
            .0;
        assert_eq!(content_type(true, ApiVersion::NEWEST), RAW_STREAM);
        assert_eq!(content_type(false, ApiVersion::NEWEST), MULTIPLEXED_STREAM);
        assert_eq!(content_type(false, old), RAW_STREAM);
    }
}
