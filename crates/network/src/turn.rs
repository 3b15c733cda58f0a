//! One daemon at a time chooses its subnet.
//!
//! Two that look for a free one at the same moment would find the same. The lock is the name of an
//! abstract unix socket: it belongs to the network namespace, as subnets do, and the kernel frees
//! it when its owner dies.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

const NAME: &[u8] = b"hull/network/subnet";
/// Choosing takes about a millisecond. Any user of the host can take the name, and must not be able
/// to hold up a daemon by it for long.
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(2);

/// Waits for its turn, which lasts until the answer is dropped. `None` if it did not come.
pub(crate) fn take() -> Option<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).ok()?;
    let name = SocketAddrUnix::new_abstract_name(NAME).ok()?;
    let end = Instant::now() + PATIENCE;
    loop {
        match rustix::net::bind(&socket, &name) {
            Ok(()) => return Some(socket),
            Err(Errno::ADDRINUSE) if Instant::now() < end => std::thread::sleep(PAUSE),
            Err(_) => return None,
        }
    }
}
