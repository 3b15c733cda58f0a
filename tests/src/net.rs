//! What the suites of networks share: a server of one line, its clients, and a daemon whose
//! networks go at the end.

use std::io::Read;
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use hull_testkit::{Daemon, Output, wait_until};

/// Serves one line to each TCP client on port 80.
pub const SERVER: &str = "while :; do echo -n served | nc -l -p 80; done";

/// What is sent by whoever serves at this address and port; nothing if nobody does.
#[must_use]
pub fn read_from(address: &str) -> Option<String> {
    let mut stream =
        TcpStream::connect_timeout(&address.parse().ok()?, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// Whether [`SERVER`] is reached there, in the end.
#[must_use]
pub fn serves(address: &str) -> bool {
    wait_until(Duration::from_secs(10), || {
        read_from(address).as_deref() == Some("served")
    })
}

/// A daemon whose containers and networks go at the end, whatever happened.
#[derive(Debug)]
pub struct World(Daemon);

impl World {
    /// With a daemon of its own.
    #[must_use]
    pub fn new() -> Self {
        Self(Daemon::new())
    }

    /// Starts a container that stays.
    pub fn sleeper(&self, name: &str, args: &[&str]) {
        let start = ["run", "-d", "--name", name];
        let whole = start.iter().chain(args);
        self.ok(whole.chain(&["busybox", "sleep", "1000"]));
    }

    /// Starts a container that serves on port 80.
    pub fn server(&self, name: &str, args: &[&str]) {
        let start = ["run", "-d", "--name", name];
        let whole = start.iter().chain(args);
        self.ok(whole.chain(&["busybox", "sh", "-c", SERVER]));
    }

    /// Runs a script in a container.
    #[must_use]
    pub fn inside(&self, name: &str, script: &str) -> Output {
        self.hull(["exec", name, "sh", "-c", script])
    }

    /// Whether one container gets an answer from another.
    #[must_use]
    pub fn reaches(&self, from: &str, to: &str) -> bool {
        self.inside(from, &format!("ping -c 1 -W 1 {to}")).code == 0
    }

    /// A field of what inspect says of a container on a network.
    #[must_use]
    pub fn place(&self, name: &str, network: &str, field: &str) -> String {
        let template = format!("{{{{(index .NetworkSettings.Networks \"{network}\").{field}}}}}");
        self.inspect(name, &template)
    }
}

impl From<Daemon> for World {
    fn from(daemon: Daemon) -> Self {
        Self(daemon)
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for World {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.0
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.0
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let all = self.hull(["ps", "-aq"]).stdout;
        if !all.trim().is_empty() {
            self.hull(["rm", "-f"].into_iter().chain(all.split_whitespace()));
        }
        self.hull(["network", "prune", "-f"]);
    }
}
