//! Listening: one socket for datagrams and one for streams in each network.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::answer::{self, Verdict};
use super::gate;
use super::upstream::{self, Upstream};
use super::zones::Zones;
use crate::egress::Gates;

/// The port that is tried first, so that flows the kernel still tracks lead to a daemon that was
/// restarted. Clients do not see it.
const FIRST_PORT: u16 = 10053;
/// Ports of the kernel's choice are tried as often: one free for datagrams may not be for streams.
const ATTEMPTS: usize = 8;
/// Look-ups that wait for others' servers, in all and for each container.
const MOST_FORWARDED: usize = 2048;
const MOST_FORWARDED_EACH: usize = 256;
/// Streams of one network.
const MOST_STREAMS: usize = 256;
/// Streams of one container.
const MOST_STREAMS_EACH: usize = 32;
/// Answers under way on one stream.
const MOST_PENDING: usize = 32;
/// A stream on which nothing is asked ends.
const IDLE: Duration = Duration::from_secs(10);
const LARGEST_QUESTION: usize = 4096;
/// After a failed accept or receive the host lacks something; trying at full speed would not help.
const PAUSE: Duration = Duration::from_millis(20);
const BACKLOG: u32 = 64;

/// What all networks' servers share.
#[derive(Debug)]
struct Shared {
    zones: Zones,
    upstream: Upstream,
    gates: Gates,
    forwarded: Arc<Semaphore>,
    each: Mutex<HashMap<Ipv4Addr, usize>>,
}

/// The name servers of a daemon.
#[derive(Debug, Clone)]
pub struct NameServer(Arc<Shared>);

/// A network's server; dropping it ends it.
#[derive(Debug)]
pub struct Served {
    /// Where it listens at the bridge's address.
    pub port: u16,
    tasks: [AbortHandle; 2],
}

impl Drop for Served {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A place among the forwarded look-ups.
struct Place {
    shared: Arc<Shared>,
    client: Ipv4Addr,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut each = lock(&self.shared.each);
        if let Some(count) = each.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                each.remove(&self.client);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NameServer {
    /// Servers that forward to those of `resolv_conf`.
    pub fn new(resolv_conf: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Shared {
            zones: Zones::default(),
            upstream: Upstream::new(resolv_conf.into()),
            gates: Gates::default(),
            forwarded: Arc::new(Semaphore::new(MOST_FORWARDED)),
            each: Mutex::default(),
        }))
    }

    /// The names.
    pub fn zones(&self) -> &Zones {
        &self.0.zones
    }

    /// What containers with an egress policy may be told.
    pub fn gates(&self) -> &Gates {
        &self.0.gates
    }

    /// Begins to serve `network` at its bridge's address; packets are taken from `bridge` alone.
    ///
    /// # Errors
    /// The host has no port left at that address.
    pub async fn serve(
        &self,
        network: &str,
        address: impl Into<IpAddr>,
        bridge: &str,
    ) -> io::Result<Served> {
        let (datagrams, streams) = bind(address.into()).await?;
        let port = datagrams.local_addr()?.port();
        // The answers' check of the sender remains where the kernel refuses.
        datagrams.bind_device(Some(bridge.as_bytes())).ok();
        let network: Arc<str> = network.into();
        let by_udp = tokio::spawn(serve_datagrams(
            Arc::clone(&self.0),
            Arc::clone(&network),
            Arc::new(datagrams),
        ));
        let by_tcp = tokio::spawn(serve_streams(Arc::clone(&self.0), network, streams));
        Ok(Served {
            port,
            tasks: [by_udp.abort_handle(), by_tcp.abort_handle()],
        })
    }
}

async fn bind(address: IpAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut last = None;
    for port in std::iter::once(FIRST_PORT).chain([0; ATTEMPTS]) {
        match bind_both(address, port).await {
            Ok(both) => return Ok(both),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
}

async fn bind_both(address: IpAddr, port: u16) -> io::Result<(UdpSocket, TcpListener)> {
    let datagrams = UdpSocket::bind((address, port)).await?;
    let streams = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // Connections of an earlier daemon that are not quite over hold the port otherwise.
    streams.set_reuseaddr(true)?;
    streams.bind(datagrams.local_addr()?)?;
    Ok((datagrams, streams.listen(BACKLOG)?))
}

async fn serve_datagrams(shared: Arc<Shared>, network: Arc<str>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; LARGEST_QUESTION];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let known = known_by(&shared, &network, client.ip());
        let (Some(address), Some(question)) = (known, buffer.get(..length)) else {
            continue;
        };
        match answer::decide(&shared.zones, &network, address, question, true) {
            Verdict::Ignore => {}
            // A reply for which there is no room is lost, as on a busy link; nobody waits for it.
            Verdict::Reply(reply) => {
                socket.try_send_to(&reply, client).ok();
            }
            Verdict::Forward(servers) => {
                let Some(place) = place(&shared, address) else {
                    socket.try_send_to(&answer::failed(question), client).ok();
                    continue;
                };
                let (socket, question) = (Arc::clone(&socket), question.to_vec());
                tokio::spawn(async move {
                    let reply = forward(&place, &question, &servers, true).await;
                    socket.send_to(&reply, client).await.ok();
                });
            }
        }
    }
}

/// What the container that asks is known by.
fn known_by(shared: &Shared, network: &str, client: IpAddr) -> Option<Ipv4Addr> {
    match client {
        IpAddr::V4(address) => Some(address),
        // With a policy also before its names are told.
        IpAddr::V6(address) => {
            let guarded = shared.gates.known_by(client);
            guarded.or_else(|| shared.zones.known_by(network, address))
        }
    }
}

fn place(shared: &Arc<Shared>, client: Ipv4Addr) -> Option<Place> {
    let permit = Arc::clone(&shared.forwarded).try_acquire_owned().ok()?;
    let mut each = lock(&shared.each);
    let count = each.entry(client).or_default();
    if *count >= MOST_FORWARDED_EACH {
        return None;
    }
    *count += 1;
    drop(each);
    Some(Place {
        shared: Arc::clone(shared),
        client,
        _permit: permit,
    })
}

async fn forward(
    place: &Place,
    question: &[u8],
    servers: &[SocketAddr],
    datagram: bool,
) -> Vec<u8> {
    let upstream = &place.shared.upstream;
    if let Some(gate) = place.shared.gates.of(place.client.into()) {
        return gate::forward(gate, question, upstream, servers, datagram).await;
    }
    match upstream.ask(question, servers, datagram).await {
        Some(reply) if datagram => answer::fit(question, reply),
        Some(reply) => reply,
        None => answer::failed(question),
    }
}

/// A stream among those of its container.
struct Open {
    each: Arc<Mutex<HashMap<Ipv4Addr, usize>>>,
    address: Ipv4Addr,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut each = lock(&self.each);
        if let Some(count) = each.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                each.remove(&self.address);
            }
        }
    }
}

async fn serve_streams(shared: Arc<Shared>, network: Arc<str>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(MOST_STREAMS));
    let each: Arc<Mutex<HashMap<Ipv4Addr, usize>>> = Arc::default();
    loop {
        let Ok((stream, client)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Some(address) = known_by(&shared, &network, client.ip()) else {
            continue;
        };
        // Beyond the bound, and for strangers, the connection just ends.
        if !shared.zones.serves(&network, address) {
            continue;
        }
        let Ok(permit) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        // Nobody takes all streams from the others.
        if *lock(&each).entry(address).or_default() >= MOST_STREAMS_EACH {
            continue;
        }
        *lock(&each).entry(address).or_default() += 1;
        let open = Open {
            each: Arc::clone(&each),
            address,
        };
        let (shared, network) = (Arc::clone(&shared), Arc::clone(&network));
        tokio::spawn(async move {
            let _permit = (permit, open);
            // The client's end of the connection is the client's affair.
            serve_stream(&shared, &network, address, stream).await.ok();
        });
    }
}

async fn serve_stream(
    shared: &Arc<Shared>,
    network: &Arc<str>,
    client: Ipv4Addr,
    stream: TcpStream,
) -> io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let (replies, mut ready) = mpsc::channel::<Vec<u8>>(MOST_PENDING);
    let writing = tokio::spawn(async move {
        while let Some(reply) = ready.recv().await {
            let bytes = upstream::framed(&reply)?;
            timeout(IDLE, writer.write_all(&bytes)).await??;
        }
        io::Result::Ok(())
    });
    let asked = async {
        loop {
            // Waits for room first: whoever does not read answers may not ask on.
            let Ok(room) = replies.clone().reserve_owned().await else {
                return Ok(());
            };
            let length = timeout(IDLE, reader.read_u16()).await??;
            let mut question = vec![0; usize::from(length).min(LARGEST_QUESTION)];
            if usize::from(length) > LARGEST_QUESTION {
                return Ok(());
            }
            timeout(IDLE, reader.read_exact(&mut question)).await??;
            match answer::decide(&shared.zones, network, client, &question, false) {
                Verdict::Ignore => return io::Result::Ok(()),
                Verdict::Reply(reply) => {
                    room.send(reply);
                }
                Verdict::Forward(servers) => match place(shared, client) {
                    None => {
                        room.send(answer::failed(&question));
                    }
                    Some(place) => {
                        tokio::spawn(async move {
                            room.send(forward(&place, &question, &servers, false).await);
                        });
                    }
                },
            }
        }
    };
    let outcome = asked.await;
    drop(replies);
    writing.await.map_err(io::Error::other)??;
    outcome
}
