//! The server: accepts connections of unix sockets and speaks HTTP/1.1 on each.
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request, Response, header};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, watch};

use crate::version;

/// Connections served at once; more wait in the socket's backlog.
const MAX_CONNECTIONS: usize = 4096;
/// Bytes of a request's head, and of one read of a body.
const MAX_HEAD: usize = 256 << 10;
/// Header lines of a request.
const MAX_HEADERS: usize = 100;
/// A connection that has not sent its next request's head by then is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// Requests that run when the server stops get so long to end.
const DRAIN: Duration = Duration::from_secs(2);
/// Wait after a failed accept (out of descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long after the last request memory is given back: what one large request took is not kept
/// for the next, while many small ones find what they freed.
const IDLE: Duration = Duration::from_secs(1);

/// What `Server` says of us.
pub(crate) const SERVER: &str = concat!("Hull/", env!("CARGO_PKG_VERSION"), " (linux)");

/// Serves on every listener until `shutdown` ends, then lets running requests end for a moment.
pub(crate) async fn serve(
    listeners: Vec<UnixListener>,
    router: Router,
    shutdown: impl Future<Output = ()>,
) {
    let service = Api(TowerToHyperService::new(router));
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let ended = Arc::new(Notify::new());
    let idle = tokio::spawn(give_back_when_idle(Arc::clone(&ended)));
    // Each acceptor and each connection holds a receiver: when all are gone, all have ended.
    let (stop, stopped) = watch::channel(false);
    for listener in listeners {
        let (service, permits, stopped) = (service.clone(), permits.clone(), stopped.clone());
        let ended = Arc::clone(&ended);
        tokio::spawn(async move {
            let mut stopping = stopped.clone();
            tokio::select! {
                () = accept(listener, service, permits, stopped, ended) => {}
                _ = stopping.changed() => {}
            }
        });
    }
    drop(stopped);
    shutdown.await;
    stop.send_replace(true);
    // Streams that never end (events, logs) are cut off.
    let _ = tokio::time::timeout(DRAIN, stop.closed()).await;
    idle.abort();
}

/// Gives free memory back to the kernel whenever connections have ended and none did for a while.
async fn give_back_when_idle(ended: Arc<Notify>) {
    loop {
        ended.notified().await;
        while tokio::time::timeout(IDLE, ended.notified()).await.is_ok() {}
        // It takes the allocator's locks for about a millisecond: on a thread where that stops
        // nobody.
        let _ = tokio::task::spawn_blocking(hull_sys::memory::trim).await;
    }
}

async fn accept(
    listener: UnixListener,
    service: Api,
    permits: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
    ended: Arc<Notify>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD);
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (http, service, stopped) = (http.clone(), service.clone(), stopped.clone());
                let ended = Arc::clone(&ended);
                tokio::spawn(async move {
                    connection(&http, stream, service, stopped).await;
                    drop(permit);
                    ended.notify_one();
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    http: &http1::Builder,
    stream: UnixStream,
    service: Api,
    mut stopped: watch::Receiver<bool>,
) {
    let served = http
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        _ = stopped.changed() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("connection ended: {error}");
    }
}

/// What stands before the router: takes the version off the path and signs every reply.
#[derive(Debug, Clone)]
struct Api(TowerToHyperService<Router>);

impl Service<Request<Incoming>> for Api {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let version = match version::split(request.uri()) {
            Ok((version, None)) => version,
            Ok((version, Some(rest))) => {
                *request.uri_mut() = rest;
                version
            }
            Err(error) => {
                let mut response = error.into_response();
                sign(&mut response);
                return Box::pin(std::future::ready(Ok(response)));
            }
        };
        request.extensions_mut().insert(version);
        let answer = self.0.call(request);
        Box::pin(async {
            let mut response = answer.await?;
            sign(&mut response);
            Ok(response)
        })
    }
}

fn sign(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::SERVER, SERVER),
        (
            HeaderName::from_static("api-version"),
            hull_api_types::API_VERSION,
        ),
        (HeaderName::from_static("docker-experimental"), "false"),
        (HeaderName::from_static("ostype"), "linux"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
