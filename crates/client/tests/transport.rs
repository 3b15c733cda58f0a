//! The client against a server that answers from a script.

use std::path::PathBuf;

use hull_client::{Client, ClientError, ContainerListOptions, Demux, StreamKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// A socket of its own for each test; removed with the folder.
fn socket(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("hull-client-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("make a folder for the socket");
    folder.join("s")
}

fn tidy(socket: &std::path::Path) {
    if let Some(folder) = socket.parent() {
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// Reads one request's head and gives its first line.
async fn head(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0u8; 1];
    while !text.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            break;
        }
        text.push(byte[0]);
    }
    String::from_utf8_lossy(&text)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test(flavor = "current_thread")]
async fn requests_in_turn_share_one_connection() {
    let path = socket("reuse");
    let listener = UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut lines = Vec::new();
        for _ in 0..2 {
            lines.push(head(&mut stream).await);
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
                .await
                .unwrap();
        }
        lines
    });
    let client = Client::unix(&path);
    let options = ContainerListOptions {
        all: true,
        ..ContainerListOptions::default()
    };
    assert!(client.container_list(&options).await.unwrap().is_empty());
    assert!(client.container_list(&options).await.unwrap().is_empty());
    assert_eq!(
        server.await.unwrap(),
        vec!["GET /v1.47/containers/json?all=1 HTTP/1.1"; 2]
    );
    tidy(&path);
}

#[tokio::test(flavor = "current_thread")]
async fn error_status_gives_the_engines_message() {
    let path = socket("error");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        let body = br#"{"message":"No such container: x"}"#;
        let reply = format!(
            "HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(&[reply.as_bytes(), body].concat())
            .await
            .unwrap();
    });
    let error = Client::unix(&path)
        .container_inspect("x")
        .await
        .unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(error.to_string(), "No such container: x");
    tidy(&path);
}

#[tokio::test(flavor = "current_thread")]
async fn broken_reply_is_an_error_not_a_hang() {
    let path = socket("broken");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"Id\"")
            .await
            .unwrap();
    });
    let error = Client::unix(&path)
        .container_inspect("x")
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Transport { .. }), "{error:?}");
    tidy(&path);
}

#[tokio::test(flavor = "current_thread")]
async fn missing_socket_is_a_connect_error() {
    let error = Client::unix("/nonexistent/hull.sock")
        .ping()
        .await
        .unwrap_err();
    assert!(error.is_connect());
}

#[tokio::test(flavor = "current_thread")]
async fn hijacked_connection_carries_bytes_both_ways() {
    let path = socket("hijack");
    let listener = UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        // What follows the head in the same packet must not be lost.
        let reply = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n\x01\0\0\0\0\0\0\x02hi";
        stream.write_all(reply).await.unwrap();
        let mut input = Vec::new();
        stream.read_to_end(&mut input).await.unwrap();
        stream.write_all(b"\x02\0\0\0\0\0\0\x03end").await.unwrap();
        input
    });
    let options = hull_client::AttachOptions {
        stdin: true,
        stdout: true,
        stderr: true,
        ..Default::default()
    };
    let (mut reader, mut writer) = Client::unix(&path)
        .container_attach("x", &options)
        .await
        .unwrap()
        .split();
    writer.write_all(b"typed").await.unwrap();
    writer.shutdown().await.unwrap();
    let mut demux = Demux::new();
    let mut got = Vec::new();
    while let Some(bytes) = reader.next().await.unwrap() {
        demux.push(&bytes);
        while let Some((kind, data)) = demux.next_frame().unwrap() {
            got.push((kind, data.to_vec()));
        }
    }
    assert_eq!(
        got,
        vec![
            (StreamKind::Stdout, b"hi".to_vec()),
            (StreamKind::Stderr, b"end".to_vec())
        ]
    );
    assert_eq!(server.await.unwrap(), b"typed");
    tidy(&path);
}

#[tokio::test(flavor = "current_thread")]
async fn streamed_lines_arrive_one_by_one() {
    let path = socket("lines");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await
            .unwrap();
        for piece in ["{\"a\":", "1}\n\n{\"a\":2}", "\n"] {
            let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
            stream.write_all(chunk.as_bytes()).await.unwrap();
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    });
    let mut stream = Client::unix(&path)
        .events(None, None, &Default::default())
        .await
        .unwrap();
    let mut got = Vec::new();
    while let Some(value) = stream.next_json::<serde_json::Value>().await.unwrap() {
        got.push(value["a"].as_i64().unwrap());
    }
    assert_eq!(got, vec![1, 2]);
    tidy(&path);
}
