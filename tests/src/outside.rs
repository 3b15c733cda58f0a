//! Another host with several addresses, played by a network namespace, and a name server that is
//! asked in its place.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hull_testkit::Run;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static COUNT: AtomicU8 = AtomicU8::new(0);

/// Runs something on a thread in the network namespace behind a path.
///
/// # Panics
/// If the namespace cannot be entered, or `act` panics.
pub fn within<T: Send>(path: &str, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let inside = move || {
            let netns = File::open(path).expect("open");
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("enter");
            act()
        };
        scope.spawn(inside).join().expect("a thread")
    })
}

/// The network namespace of a process.
#[must_use]
pub fn of_process(pid: &str) -> String {
    format!("/proc/{pid}/ns/net")
}

/// Runs `ip` with arguments between spaces.
///
/// # Panics
/// If it fails.
pub fn ip(command: &str) {
    Run::new("ip").args(command.split_whitespace()).ok();
}

/// Whether somebody answers a connection to this address and port, from the calling thread's
/// namespace, and with its own source address unless one is given.
#[must_use]
pub fn connects(to: SocketAddr) -> bool {
    TcpStream::connect_timeout(&to, Duration::from_secs(1)).is_ok()
}

/// The other host; removed when dropped.
#[derive(Debug)]
pub struct Outside {
    name: String,
    /// Its addresses.
    pub addresses: [Ipv4Addr; 4],
    /// This host's address on the way there.
    pub ours: Ipv4Addr,
}

impl Outside {
    /// Makes it. It has a way to everybody by this host.
    #[must_use]
    pub fn new() -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed) % 30;
        let net = u8::try_from(std::process::id() % 50).unwrap_or(0) + 200;
        let address = |last: u8| Ipv4Addr::new(198, 19, net, count * 8 + last);
        let host = Self {
            name: format!("hte{:x}x{count}", std::process::id() & 0xf_ffff),
            addresses: [2, 3, 4, 5].map(address),
            ours: address(1),
        };
        let (name, peer) = (&host.name, format!("{}p", host.name));
        ip(&format!("netns add {name}"));
        ip(&format!(
            "link add {name} type veth peer name {peer} netns {name}"
        ));
        ip(&format!("addr add {}/29 dev {name}", host.ours));
        ip(&format!("link set {name} up"));
        for address in host.addresses {
            ip(&format!("-n {name} addr add {address}/29 dev {peer}"));
        }
        ip(&format!("-n {name} link set {peer} up"));
        ip(&format!("-n {name} link set lo up"));
        ip(&format!("-n {name} route add default via {}", host.ours));
        host
    }

    /// Runs something there.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        within(&format!("/run/netns/{}", self.name), act)
    }

    /// Answers connections to these ports at all its addresses, until the test's process ends.
    ///
    /// # Panics
    /// If a port is taken.
    pub fn serve(&self, ports: &[u16]) {
        for port in ports {
            let listener = self.within(|| TcpListener::bind(("0.0.0.0", *port)).expect("bind"));
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let mut stream = stream;
                    stream.write_all(b"served").ok();
                }
            });
        }
    }

    /// Answers datagrams to this port with what they say, until the test's process ends.
    ///
    /// # Panics
    /// If the port is taken.
    pub fn echo(&self, address: Ipv4Addr, port: u16) {
        let socket = self.within(|| UdpSocket::bind((address, port)).expect("bind"));
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let said = buffer.get(..length).unwrap_or_default();
                socket.send_to(said, from).ok();
            }
        });
    }
}

impl Default for Outside {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = Run::new("ip").args(["netns", "del", &self.name]).run();
        let _ = Run::new("ip").args(["link", "del", &self.name]).run();
    }
}

/// What names stand for, with the seconds that it may be kept.
type Names = HashMap<String, (Vec<Ipv4Addr>, u32)>;

/// A name server on the host's loopback; it ends with the test's process.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its address.
    pub address: Ipv4Addr,
    names: Arc<Mutex<Names>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    /// Begins to answer.
    ///
    /// # Panics
    /// If the address is taken.
    #[must_use]
    pub fn new() -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let address = Ipv4Addr::new(127, 78, (std::process::id() % 250) as u8, count + 1);
        let socket = UdpSocket::bind((address, 53)).expect("bind");
        let server = Self {
            address,
            names: Arc::default(),
            asked: Arc::default(),
        };
        let answering = server.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                let question = buffer.get(..length).unwrap_or_default();
                if let Some(reply) = answering.reply(question) {
                    socket.send_to(&reply, client).ok();
                }
            }
        });
        server
    }

    /// Has a name stand for addresses.
    pub fn set(&self, name: &str, addresses: &[Ipv4Addr], seconds: u32) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(name.to_owned(), (addresses.to_vec(), seconds));
    }

    /// How often it was asked for a name.
    #[must_use]
    pub fn asked(&self, name: &str) -> usize {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|other| *other == name).count()
    }

    fn reply(&self, question: &[u8]) -> Option<Vec<u8>> {
        let (name, end) = name_in(question)?;
        let lock = self.asked.lock();
        lock.unwrap_or_else(PoisonError::into_inner)
            .push(name.clone());
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.get(&name);
        let address = question.get(end..end + 2)? == [0, 1];
        let found = known.filter(|_| address);
        let (addresses, seconds) = found.cloned().unwrap_or_default();
        let code = if known.is_some() { 0 } else { 3 };
        let mut reply = question.get(..2)?.to_vec();
        reply.extend_from_slice(&[0x81, 0x80 | code, 0, 1, 0]);
        reply.push(u8::try_from(addresses.len()).ok()?);
        reply.extend_from_slice(&[0; 4]);
        reply.extend_from_slice(question.get(12..end + 4)?);
        for address in addresses {
            reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
            reply.extend_from_slice(&seconds.to_be_bytes());
            reply.extend_from_slice(&[0, 4]);
            reply.extend_from_slice(&address.octets());
        }
        Some(reply)
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self::new()
    }
}

/// The name asked for, and where it ends.
fn name_in(question: &[u8]) -> Option<(String, usize)> {
    let (mut name, mut at) = (String::new(), 12);
    loop {
        let length = usize::from(*question.get(at)?);
        if length == 0 {
            return Some((name, at + 1));
        }
        let label = question.get(at + 1..at + 1 + length)?;
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&String::from_utf8_lossy(label).to_lowercase());
        at += length + 1;
    }
}

/// Asks a name server for the addresses of a name: the code of its reply and what it found.
///
/// # Panics
/// If it does not answer.
#[must_use]
pub fn look_up(server: Ipv4Addr, name: &str) -> (u8, Vec<Ipv4Addr>) {
    let mut question = vec![7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).expect("a label"));
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
    let patience = Some(Duration::from_secs(9));
    socket.set_read_timeout(patience).expect("a limit");
    socket.send_to(&question, (server, 53)).expect("ask");
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).expect("an answer");
    let reply = &buffer[..length];
    let records = reply.get(question.len()..).unwrap_or_default();
    // Each record of an address ends in it and takes as many bytes, its name being a pointer.
    let addresses = records.chunks_exact(16).take(usize::from(reply[7]));
    let last = |record: &[u8]| <[u8; 4]>::try_from(&record[12..]).map(Ipv4Addr::from);
    let found = addresses.filter_map(|record| last(record).ok());
    (reply[3] & 0xf, found.collect())
}
