//! A bare HTTP client over a unix socket, for requests no sane client would send.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// An answer: status and body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code, 0 if the server closed the connection without an answer.
    pub status: u16,
    /// Headers as they came.
    pub head: String,
    /// The body, de-chunked.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.body))
    }
}

/// Sends a request with an optional JSON body and reads the whole answer.
///
/// # Panics
/// If the socket cannot be reached.
#[must_use]
pub fn request(socket: &Path, method: &str, path: &str, body: Option<&str>) -> Answer {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: hull\r\nConnection: close\r\n");
    if let Some(body) = body {
        text.push_str(&format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
    } else {
        text.push_str("\r\n");
    }
    exchange(connect(socket), text.as_bytes(), false)
}

/// Sends bytes as they are, closes the writing side, and reads what comes.
///
/// # Panics
/// If the socket cannot be reached.
#[must_use]
pub fn raw(socket: &Path, bytes: &[u8]) -> Answer {
    exchange(connect(socket), bytes, true)
}

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).expect("connect to the daemon");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("set a timeout");
    stream
}

fn exchange(mut stream: UnixStream, bytes: &[u8], hang_up: bool) -> Answer {
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(bytes);
    if hang_up {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let mut buffer = [0_u8; 16 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => answer.extend_from_slice(buffer.get(..count).unwrap_or_default()),
        }
    }
    parse(&answer)
}

fn parse(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|number| number.parse().ok())
        .unwrap_or(0);
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked {
        unchunk(body)
    } else {
        body.to_owned()
    };
    Answer {
        status,
        head: head.to_owned(),
        body,
    }
}

fn unchunk(mut text: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(chunk) = rest.get(..size) else { break };
        if size == 0 {
            break;
        }
        body.push_str(chunk);
        text = rest.get(size + 2..).unwrap_or("");
    }
    body
}
