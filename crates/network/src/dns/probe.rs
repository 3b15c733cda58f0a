//! Asks a network's name server from inside a container, to see whether it is heard.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};

use super::zones::HOST_NAMES;

const STACK_BYTES: usize = 256 << 10;
const PORT: u16 = 53;
const ATTEMPTS: u32 = 3;
const PATIENCE: Duration = Duration::from_millis(400);

/// Whether whoever is asked at `address` from within the namespace `netns` answers at all. The
/// question is one that needs no other server.
pub fn is_served(netns: BorrowedFd<'_>, address: IpAddr) -> bool {
    let Some(question) = question() else {
        return false;
    };
    let ask = || {
        hull_sys::netns::enter_network(netns).ok()?;
        let any: SocketAddr = match address {
            IpAddr::V4(_) => ([0; 4], 0).into(),
            IpAddr::V6(_) => ([0; 16], 0).into(),
        };
        let socket = UdpSocket::bind(any).ok()?;
        socket.set_read_timeout(Some(PATIENCE)).ok()?;
        socket.connect((address, PORT)).ok()?;
        (0..ATTEMPTS).find_map(|_| {
            socket.send(&question).ok()?;
            socket.recv(&mut [0; 512]).ok()
        })
    };
    // A thread of its own: the caller must stay in the host's namespace.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("hull-netns".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, ask);
        let answer = thread.ok().and_then(|thread| thread.join().ok());
        answer.flatten().is_some()
    })
}

fn question() -> Option<Vec<u8>> {
    let name = HOST_NAMES.first()?;
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).ok()?, RecordType::A));
    message.to_vec().ok()
}
