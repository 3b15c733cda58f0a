//! Namespaces with loopback alone, kept ready: making one costs more than the rest of what a
//! container without a network needs from the host.

use std::convert::Infallible;
use std::os::fd::OwnedFd;

use crate::endpoint::EndpointError;
use crate::isolated::isolated;
use crate::pool::{Pool, Work};

#[derive(Debug)]
struct Maker;

impl Work for Maker {
    type Item = OwnedFd;
    type Job = Infallible;

    fn make(&self) -> Option<OwnedFd> {
        isolated().ok()
    }

    fn run(&self, _: Vec<Infallible>) {}
}

/// The pool and its thread; dropping it ends both.
#[derive(Debug)]
pub struct IsolatedPool(Pool<OwnedFd, Infallible>);

impl IsolatedPool {
    /// Starts the pool, to hold `size` namespaces.
    ///
    /// # Errors
    /// The host refuses a thread.
    pub fn start(size: usize) -> std::io::Result<Self> {
        Pool::start("hull-none-pool", size, Maker).map(Self)
    }

    /// A ready namespace, or one made on the spot.
    ///
    /// # Errors
    /// As [`isolated`].
    pub fn take(&self) -> Result<OwnedFd, EndpointError> {
        self.0.take().map_or_else(isolated, Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn taken_namespaces_differ_from_each_other_and_the_hosts() {
        let pool = IsolatedPool::start(2).expect("start");
        let host = std::fs::File::open("/proc/self/ns/net").expect("open");
        let inode = |fd: std::os::fd::BorrowedFd<'_>| rustix::fs::fstat(fd).expect("stat").st_ino;
        let mut seen = vec![inode(host.as_fd())];
        let taken: Vec<_> = (0..5).map(|_| pool.take().expect("take")).collect();
        for namespace in &taken {
            let inode = inode(namespace.as_fd());
            assert!(!seen.contains(&inode));
            seen.push(inode);
        }
    }
}
