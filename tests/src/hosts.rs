//! Two hosts as network namespaces: one on which a daemon runs, and its neighbour on a wire.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};

use hull_testkit::{Daemon, Output, Run};

use crate::net::World;
use crate::outside;

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A host with a daemon, and its neighbour; gone when dropped.
#[derive(Debug)]
pub struct Hosts {
    world: Option<World>,
    /// Name of the host's namespace.
    pub host: String,
    /// Name of the neighbour's.
    pub neighbour: String,
}

/// Runs `ip` with arguments between spaces; what it prints.
///
/// # Panics
/// If it fails.
pub fn ip(command: &str) -> String {
    Run::new("ip").args(command.split(' ')).ok()
}

/// Does something in the named network namespace.
///
/// # Panics
/// If it cannot be entered, or `act` panics.
pub fn within<T: Send>(netns: &str, act: impl FnOnce() -> T + Send) -> T {
    outside::within(&format!("/run/netns/{netns}"), act)
}

impl Hosts {
    /// Makes both, with loopback and a wire `up0` between them, which is down, and no daemon yet.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[must_use]
    pub fn new() -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:x}x{number:x}", std::process::id());
        let hosts = Self {
            world: None,
            host: format!("hth{id}"),
            neighbour: format!("htn{id}"),
        };
        let (host, neighbour) = (&hosts.host, &hosts.neighbour);
        for command in [
            format!("netns add {host}"),
            format!("netns add {neighbour}"),
            format!("-n {host} link set lo up"),
            format!("-n {neighbour} link set lo up"),
            format!("-n {host} link add up0 type veth peer name up0 netns {neighbour}"),
        ] {
            ip(&command);
        }
        hosts
    }

    /// Starts the daemon on the host.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn serve(&mut self, args: &[&str]) {
        let mut builder = Daemon::builder().netns(&self.host);
        for arg in args {
            builder = builder.arg(*arg);
        }
        self.world = Some(World::from(builder.start()));
    }

    /// Runs a program on the host.
    #[must_use]
    pub fn on_host(&self, command: &str) -> Output {
        let whole = format!("netns exec {} {command}", self.host);
        Run::new("ip").args(whole.split(' ')).run()
    }
}

impl Default for Hosts {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Hosts {
    type Target = World;

    fn deref(&self) -> &World {
        self.world.as_ref().expect("a daemon that was started")
    }
}

impl DerefMut for Hosts {
    fn deref_mut(&mut self) -> &mut World {
        self.world.as_mut().expect("a daemon that was started")
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // The daemon and its containers first.
        self.world.take();
        for name in [&self.host, &self.neighbour] {
            let _ = Run::new("ip").args(["netns", "del", name]).run();
        }
    }
}
