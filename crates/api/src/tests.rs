//! The server on a real unix socket, with routes that need no engine.
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use hull_api_types::container::CreateRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;

use crate::body;
use crate::error::{ApiError, ApiResult};
use crate::hijack::{self, Hijack, Relay};
use crate::version::ApiVersion;

struct Server {
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    ended: Option<tokio::task::JoinHandle<()>>,
}

impl Server {
    fn start(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("hull-api-{name}-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(crate::server::serve(vec![listener], routes(), async {
            let _ = stopped.await;
        }));
        Self {
            path,
            stop: Some(stop),
            ended: Some(ended),
        }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.unwrap()
    }

    /// Sends bytes and reads until the server closes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(10), read)
            .await
            .unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn get(&self, path: &str) -> String {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").as_bytes())
            .await
    }

    async fn post(&self, path: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        self.raw(format!("{head}{body}").as_bytes()).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn routes() -> Router {
    Router::new()
        .route("/_ping", get(crate::handlers::system::ping))
        .route("/create", post(create))
        .route("/attach", post(attach))
        .route("/endless", get(endless))
        .fallback(async || ApiError::page_not_found())
        .method_not_allowed_fallback(async || ApiError::page_not_found())
}

async fn create(headers: HeaderMap, body: Body) -> ApiResult {
    let wire: CreateRequest = body::json(&headers, body).await?;
    body::reply(&wire.config.image)
}

/// Answers each byte with itself, as a shim's other end would.
async fn attach(mut request: Request) -> ApiResult {
    let version = ApiVersion::of(&request);
    let (ours, theirs) = UnixStream::pair().unwrap();
    tokio::spawn(async move {
        let (mut read, mut write) = theirs.into_split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    let hijack = Hijack::new(hijack::upgrade(&mut request), request.into_body());
    Ok(hijack.relay(Relay::new(ours), hijack::content_type(false, version)))
}

async fn endless() -> ApiResult {
    let (sender, stream) = body::stream();
    tokio::spawn(async move {
        while sender.send("more\n").await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    Ok(body::streamed("text/plain", stream))
}

const JSON: &str = "Content-Type: application/json\r\n";

#[tokio::test]
async fn ping_is_signed_with_or_without_version() {
    let server = Server::start("ping");
    for path in ["/_ping", "/v1.24/_ping", "/v1.51/_ping"] {
        let answer = server.get(path).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nOK"), "{answer}");
        for header in [
            "api-version: 1.51",
            "ostype: linux",
            "docker-experimental: false",
            "builder-version: 1",
            "server: Hull/",
        ] {
            assert!(answer.contains(header), "{header} is not in {answer}");
        }
    }
    let head = server
        .raw(b"HEAD /_ping HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        .await;
    assert!(
        head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn unknown_route_method_and_version_are_refused() {
    let server = Server::start("routes");
    let answer = server.get("/v1.41/nothing/here").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(
        answer.ends_with("{\"message\":\"page not found\"}"),
        "{answer}"
    );
    assert!(server.get("/create").await.starts_with("HTTP/1.1 404"));
    let answer = server.get("/v1.23/_ping").await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("is too old"),
        "{answer}"
    );
    let answer = server.get("/v9.1/_ping").await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("is too new"),
        "{answer}"
    );
}

#[tokio::test]
async fn malformed_bodies_are_refused_and_the_server_lives() {
    let server = Server::start("bodies");
    let good = server
        .post("/v1.50/create", JSON, r#"{"Image":"busybox"}"#)
        .await;
    assert!(
        good.starts_with("HTTP/1.1 200") && good.contains("busybox"),
        "{good}"
    );
    for (headers, body, words) in [
        (JSON, "", "EOF"),
        (JSON, "{", "EOF"),
        (JSON, r#"{"Image":"a"} x"#, "trailing"),
        (JSON, r#"{"Image":1}"#, "invalid type"),
        (JSON, r#"{"HostConfig":{"Memory":"64m"}}"#, "invalid type"),
        (JSON, "[1]", "invalid"),
        (JSON, "\u{0}\u{1}", "invalid JSON"),
        (
            "Content-Type: text/plain\r\n",
            "{}",
            "must be 'application/json'",
        ),
        ("", "{}", "must be 'application/json'"),
    ] {
        let answer = server.post("/create", headers, body).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{body:?}: {answer}");
        assert!(answer.contains(words), "{body:?}: {answer}");
    }
    let deep = "[".repeat(200_000);
    assert!(
        server
            .post("/create", JSON, &deep)
            .await
            .starts_with("HTTP/1.1 400")
    );
    let large = format!(r#"{{"Image":"{}"}}"#, "x".repeat(body::MAX_JSON));
    let answer = server.post("/create", JSON, &large).await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("too large"),
        "{answer}"
    );
    assert!(server.get("/_ping").await.ends_with("OK"));
}

#[tokio::test]
async fn garbage_and_truncated_requests_do_not_stop_the_server() {
    let server = Server::start("garbage");
    let headers = "X: y\r\n".repeat(1000);
    let long = "a".repeat(1 << 20);
    for bytes in [
        b"\0\xff\xfe".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"POST /create HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n".to_vec(),
        b"POST /create HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        format!("GET /_ping HTTP/1.1\r\n{headers}\r\n").into_bytes(),
        format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes(),
    ] {
        let answer = server.raw(&bytes).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    let mut cut = server.connect().await;
    cut.write_all(b"POST /create HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{")
        .await
        .unwrap();
    drop(cut);
    assert!(server.get("/_ping").await.ends_with("OK"));
}

#[tokio::test]
async fn upgraded_connection_is_a_stream_both_ways() {
    let server = Server::start("upgrade");
    let mut stream = server.connect().await;
    // What comes right after the head is input already.
    stream
        .write_all(b"POST /v1.51/attach HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly ")
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 UPGRADED\r\n"), "{head}");
    for header in [
        "connection: Upgrade",
        "upgrade: tcp",
        "content-type: application/vnd.docker.multiplexed-stream",
    ] {
        assert!(head.contains(header), "{header} is not in {head}");
    }
    stream.write_all(b"late").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "early late");
}

#[tokio::test]
async fn stream_without_upgrade_is_a_body() {
    let server = Server::start("plain");
    let answer = server.post("/v1.41/attach", "", "input").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains("content-type: application/vnd.docker.raw-stream"),
        "{answer}"
    );
    assert!(answer.contains("input"), "{answer}");
}

#[tokio::test]
async fn shutdown_ends_idle_connections_at_once_and_endless_streams_soon() {
    let mut server = Server::start("shutdown");
    let mut idle = server.connect().await;
    idle.write_all(b"GET /_ping HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 15];
    idle.read_exact(&mut first).await.unwrap();
    let mut endless = server.connect().await;
    endless
        .write_all(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    endless.read_exact(&mut first).await.unwrap();
    drop(server.stop.take());
    let ended = server.ended.take().unwrap();
    tokio::time::timeout(Duration::from_secs(5), ended)
        .await
        .unwrap()
        .unwrap();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(UnixStream::connect(&server.path).await.is_err());
}

/// Not a promise, but told: what a request costs beyond the engine's work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn round_trip_takes_microseconds() {
    const ROUNDS: u32 = 2000;
    let server = Server::start("speed");
    let body = include_str!("../../api-types/tests/data/create-full.json");
    let length = body.len();
    let requests = [
        (
            "GET /_ping",
            "GET /v1.50/_ping HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
        ),
        (
            "POST create",
            format!(
                "POST /v1.50/create HTTP/1.1\r\nHost: h\r\n{JSON}Content-Length: {length}\r\n\r\n{body}"
            ),
        ),
    ];
    for (name, request) in requests {
        let mut stream = server.connect().await;
        let mut answer = [0; 4096];
        let begun = std::time::Instant::now();
        for _ in 0..ROUNDS {
            stream.write_all(request.as_bytes()).await.unwrap();
            let count = stream.read(&mut answer).await.unwrap();
            assert!(answer.get(..15) == Some(b"HTTP/1.1 200 OK") && count > 15);
        }
        let each = begun.elapsed() / ROUNDS;
        eprintln!("{name}: {each:?}");
        assert!(each < Duration::from_millis(5), "{name}: {each:?}");
    }
}
