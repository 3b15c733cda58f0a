//! The other end of the sockets that runtimes speak to: consoles and listeners of seccomp.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use hull_testkit::wait_until;

/// A runtime that has not connected by then never will.
const PATIENCE: Duration = Duration::from_secs(20);
const MAX_MESSAGE: usize = 64 << 10;

/// What came by a socket.
#[derive(Debug, Default)]
pub struct Message {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The descriptors that came along.
    pub fds: Vec<OwnedFd>,
}

/// Waits for one connection and for a descriptor that comes by it; if `json`, for a whole value of
/// JSON, too. Its end need not come: runtimes keep it open.
///
/// # Panics
/// If the socket cannot be made.
#[must_use]
pub fn listen(path: &Path, json: bool) -> JoinHandle<Option<Message>> {
    let listener = UnixListener::bind(path).expect("bind");
    listener.set_nonblocking(true).expect("non-blocking");
    std::thread::spawn(move || {
        let mut socket = None;
        wait_until(PATIENCE, || {
            socket = listener.accept().ok();
            socket.is_some()
        });
        let (socket, _) = socket?;
        socket.set_nonblocking(false).ok()?;
        socket.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut message = Message::default();
        let mut part = vec![0; MAX_MESSAGE];
        loop {
            let count = hull_sys::fdpass::receive(&socket, &mut part, &mut message.fds).ok()?;
            message.bytes.extend(part.get(..count).unwrap_or_default());
            let whole = || serde_json::from_slice::<serde_json::Value>(&message.bytes).is_ok();
            if count == 0 || !message.fds.is_empty() && (!json || whole()) {
                return Some(message);
            }
        }
    })
}
