//! A small HTTP server of the tests: a forward proxy that wants credentials, or one canned answer.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Longest head of a request.
const MAX_HEAD: usize = 64 << 10;

/// What it does.
#[derive(Debug, Clone)]
enum Part {
    /// Tunnels CONNECT to this address, for whoever has these credentials in base64.
    Proxy { target: String, credentials: String },
    /// Answers requests whose line begins so.
    Answer { begin: String, answer: String },
}

/// The server; its threads end with the process.
#[derive(Debug)]
pub struct Forward {
    /// `127.0.0.1:PORT`.
    pub host: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Forward {
    /// A proxy by which every name leads to `target`, for `name:password`.
    ///
    /// # Panics
    /// If it cannot listen.
    #[must_use]
    pub fn to(target: &str, credentials: &str) -> Self {
        let credentials = hull_testkit::Run::new("base64")
            .input(credentials.as_bytes().to_vec())
            .ok()
            .trim()
            .to_owned();
        Self::start(Part::Proxy {
            target: target.to_owned(),
            credentials,
        })
    }

    /// A server that gives `body` to requests whose line begins with `begin`, and 404 to others.
    ///
    /// # Panics
    /// If it cannot listen.
    #[must_use]
    pub fn answering(begin: &str, content_type: &str, body: &str) -> Self {
        Self::start(Part::Answer {
            begin: begin.to_owned(),
            answer: format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        })
    }

    fn start(part: Part) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let host = listener.local_addr().expect("address").to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (part, log) = (part.clone(), Arc::clone(&log));
                std::thread::spawn(move || {
                    let _ = serve(client, &part, &log);
                });
            }
        });
        Self { host, requests }
    }

    /// Lines of the requests seen.
    ///
    /// # Panics
    /// If a connection's thread has.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("requests").clone()
    }
}

fn serve(mut client: TcpStream, part: &Part, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0u8; 1];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte)? == 0 || head.len() > MAX_HEAD {
            return Ok(());
        }
        // A greeting in TLS: whoever greets is to come again without.
        if head.is_empty() && !byte[0].is_ascii_uppercase() {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let line = text.lines().next().unwrap_or_default().to_owned();
    log.lock().expect("log").push(line.clone());
    match part {
        Part::Answer { begin, answer } => {
            let none = "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            let answer = if line.starts_with(begin) {
                answer
            } else {
                none
            };
            client.write_all(answer.as_bytes())?;
            client.shutdown(Shutdown::Both)
        }
        Part::Proxy {
            target,
            credentials,
        } => {
            let proven = text.lines().any(|line| {
                let (name, value) = line.split_once(':').unwrap_or_default();
                name.eq_ignore_ascii_case("proxy-authorization")
                    && value.trim() == format!("Basic {credentials}")
            });
            if !proven {
                log.lock().expect("log").push("no credentials".to_owned());
                return client.write_all(
                    b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
                );
            }
            if !line.starts_with("CONNECT ") {
                return client.write_all(
                    b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                );
            }
            let server = TcpStream::connect(target)?;
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
            tunnel(client, server)
        }
    }
}

fn tunnel(client: TcpStream, server: TcpStream) -> std::io::Result<()> {
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    let upward = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut from, mut to) = (server, client);
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
    let _ = upward.join();
    Ok(())
}
