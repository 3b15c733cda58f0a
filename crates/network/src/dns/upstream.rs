//! Asking other name servers: one after the other, those that did not answer of late last.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::files;

const PORT: u16 = 53;
/// How long a server may take, in the first round and in the second; a client gives up after five
/// seconds.
const PATIENCE: [Duration; 2] = [Duration::from_millis(1200), Duration::from_millis(2500)];
/// How long a server that did not answer is asked last.
const PENALTY: Duration = Duration::from_secs(20);
/// The host's configuration is read at most this often.
const FRESH: Duration = Duration::from_secs(1);
const LARGEST_DATAGRAM: usize = 16 << 10;
/// More servers than this in a list are not asked, as with the resolver itself.
const MOST_SERVERS: usize = 6;
/// Codes that another server may better: SERVFAIL, NOTIMP, REFUSED.
const POOR: [u8; 3] = [2, 4, 5];

/// The host's servers, and who did not answer.
#[derive(Debug)]
pub(super) struct Upstream {
    resolv_conf: PathBuf,
    host: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
    silent: Mutex<HashMap<SocketAddr, Instant>>,
}

impl Upstream {
    pub(super) fn new(resolv_conf: PathBuf) -> Self {
        Self {
            resolv_conf,
            host: Mutex::default(),
            silent: Mutex::default(),
        }
    }

    /// Asks until somebody answers; `None` if nobody did. The reply bears the question's number.
    pub(super) async fn ask(
        &self,
        question: &[u8],
        servers: &[SocketAddr],
        datagram: bool,
    ) -> Option<Vec<u8>> {
        let mut servers = if servers.is_empty() {
            self.of_host()
        } else {
            servers.to_vec()
        };
        servers.truncate(MOST_SERVERS);
        let mut poor = None;
        for patience in PATIENCE {
            let now = Instant::now();
            let silent = lock(&self.silent).clone();
            // Stable: among equals the configuration's order holds.
            servers.sort_by_key(|server| silent.get(server).is_some_and(|until| *until > now));
            for server in &servers {
                let asked = async {
                    if datagram {
                        by_udp(question, *server).await
                    } else {
                        by_tcp(question, *server).await
                    }
                };
                match timeout(patience, asked).await {
                    Ok(Ok(mut reply)) => {
                        lock(&self.silent).remove(server);
                        if let (Some(ours), Some(theirs)) = (reply.get_mut(..2), question.get(..2))
                        {
                            ours.copy_from_slice(theirs);
                        }
                        let code = reply.get(3).map_or(0, |flags| flags & 0xf);
                        if !POOR.contains(&code) {
                            return Some(reply);
                        }
                        poor = Some(reply);
                    }
                    Ok(Err(_)) | Err(_) => {
                        lock(&self.silent).insert(*server, now + PENALTY);
                    }
                }
            }
            if poor.is_some() {
                break;
            }
        }
        poor
    }

    fn of_host(&self) -> Vec<SocketAddr> {
        let mut cached = lock(&self.host);
        if let Some((read_at, servers)) = &*cached
            && read_at.elapsed() < FRESH
        {
            return servers.clone();
        }
        let content = fs::read_to_string(&self.resolv_conf).unwrap_or_default();
        let mut servers: Vec<SocketAddr> = files::name_servers(&content)
            .filter_map(|server| server.parse::<IpAddr>().ok())
            .map(|address| SocketAddr::new(address, PORT))
            .collect();
        if servers.is_empty() {
            let fallback = files::FALLBACK_NAME_SERVERS.iter();
            let fallback = fallback.filter_map(|server| server.parse::<IpAddr>().ok());
            servers.extend(fallback.map(|address| SocketAddr::new(address, PORT)));
        }
        *cached = Some((Instant::now(), servers.clone()));
        servers
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The question under another number, so that nobody who knows ours can answer in the server's
/// place.
fn renumbered(question: &[u8]) -> io::Result<Vec<u8>> {
    let mut number = [0; 2];
    rustix::rand::getrandom(&mut number, rustix::rand::GetRandomFlags::empty())?;
    let mut bytes = question.to_vec();
    if let Some(slot) = bytes.get_mut(..2) {
        slot.copy_from_slice(&number);
    }
    Ok(bytes)
}

/// Whether a datagram answers the question: number, kind and, letter case aside, the name asked.
pub(super) fn answers(question: &[u8], reply: &[u8]) -> bool {
    let Some(end) = end_of_question(question) else {
        return false;
    };
    let same_number = reply.get(..2) == question.get(..2);
    let is_reply = reply.get(2).is_some_and(|flags| flags & 0x80 != 0);
    let same_question = match (question.get(12..end), reply.get(12..end)) {
        (Some(ours), Some(theirs)) => ours.eq_ignore_ascii_case(theirs),
        // A server that could not read the question may leave it out.
        _ => reply.len() == 12,
    };
    same_number && is_reply && same_question
}

/// Where the first question ends.
fn end_of_question(message: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        match *message.get(at)? {
            0 => return Some(at + 5),
            length @ 1..=63 => at += usize::from(length) + 1,
            _ => return None,
        }
    }
}

async fn by_udp(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let question = renumbered(question)?;
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    // A port for each question, which the kernel chooses: the other half of what a forger guesses.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&question).await?;
    loop {
        // Many may wait at once: who has no answer yet needs no room for it.
        socket.readable().await?;
        let mut buffer = vec![0; LARGEST_DATAGRAM];
        let length = match socket.try_recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let reply = buffer.get(..length).unwrap_or_default();
        if answers(&question, reply) {
            return Ok(reply.to_vec());
        }
    }
}

async fn by_tcp(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let question = renumbered(question)?;
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&framed(&question)?).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await?;
    if answers(&question, &reply) {
        Ok(reply)
    } else {
        Err(io::Error::other("the answer is to another question"))
    }
}

/// A message as it goes by TCP: behind its length.
pub(super) fn framed(message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a.` of type A.
    const QUESTION: [u8; 19] = [1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];

    #[test]
    fn reply_to_another_question_or_number_is_no_answer() {
        let mut reply = QUESTION;
        assert!(!answers(&QUESTION, &reply));
        reply[2] |= 0x80;
        assert!(answers(&QUESTION, &reply));
        reply[13] = b'A';
        assert!(answers(&QUESTION, &reply));
        reply[13] = b'b';
        assert!(!answers(&QUESTION, &reply));
        reply[13] = b'a';
        reply[0] = 9;
        assert!(!answers(&QUESTION, &reply));
        assert!(!answers(&QUESTION, &reply[..5]));
        assert!(!answers(&QUESTION[..12], &reply));
    }

    #[tokio::test]
    async fn silent_server_is_passed_over_and_asked_last_thereafter() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        let good = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        let servers = [
            silent.local_addr().expect("an address"),
            good.local_addr().expect("an address"),
        ];
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, client)) = good.recv_from(&mut buffer).await {
                buffer[2] |= 0x80;
                good.send_to(&buffer[..length], client).await.ok();
            }
        });
        let upstream = Upstream::new(PathBuf::new());
        let reply = upstream.ask(&QUESTION, &servers, true).await;
        assert_eq!(reply.expect("a reply")[..2], QUESTION[..2]);
        assert!(lock(&upstream.silent).contains_key(&servers[0]));
        let mut buffer = [0; 512];
        assert!(silent.try_recv(&mut buffer).is_ok());
        assert!(upstream.ask(&QUESTION, &servers, true).await.is_some());
        assert!(silent.try_recv(&mut buffer).is_err(), "it was asked again");
    }
}
