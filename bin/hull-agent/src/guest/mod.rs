//! Process 1 of a guest: makes the guest ready, runs the plan it is sent and serves its processes.
//!
//! ```text
//! kernel ─▶ /init ─▶ root ─▶ channel ─▶ server ─▶ power
//!                                         │ Prepare ─▶ prepare · network
//!                                         │ Launch, Exec ─▶ hull_sandbox::Container
//! ```
//!
//! What runs in the guest is as hostile to the agent as on a host: the same crate makes it a
//! container, with the same limits. The shim is trusted to rule the guest, yet nothing it sends
//! makes the agent panic. If the channel is gone the guest goes.

mod channel;
mod filter;
mod network;
mod output;
mod power;
mod prepare;
mod processes;
mod root;
mod server;
mod session;

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;

use hull_sys::signal::{self, SignalSet};
use hull_sys::{Errno, inherited, rlimit};
use rustix::time::{ClockId, clock_gettime};

use self::server::{End, Server};
use crate::complain;

/// Signals that are left alone: by them the kernel tells of a bug in this very program.
const OWN_FAULTS: [i32; 7] = [4, 5, 6, 7, 8, 11, 31];
const SIGCHLD: i32 = 17;
/// Open files that processes may have unless a plan says otherwise, as services on hosts have it.
const OPEN_FILES: u64 = 1 << 20;

/// What failed, on what, and why.
#[derive(Debug)]
struct Trouble(String);

impl Trouble {
    /// As a closure for `map_err`.
    fn at<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> Self {
        move |error| Self(format!("cannot {what}: {error}"))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Time since the kernel began to count, ns.
fn uptime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let rest = u64::try_from(now.tv_nsec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

/// Rules the guest until it is to go; returns only if not even that can be done.
pub(crate) fn run() -> ExitCode {
    let started_ns = uptime_ns();
    if let Err(trouble) = rule(started_ns) {
        complain(&format!("hull-agent: {trouble}\n"));
    }
    let errno = power::off();
    complain(&format!("hull-agent: cannot power off: {errno}\n"));
    ExitCode::FAILURE
}

fn rule(started_ns: u64) -> Result<(), Trouble> {
    let signals = signals().map_err(Trouble::at("receive signals"))?;
    root::make()?;
    // The kernel gives its first process little; of more the plans take away again.
    let files = rlimit::Limit {
        soft: OPEN_FILES,
        hard: OPEN_FILES,
    };
    let _ = rlimit::set(rlimit::from_name("nofile").unwrap_or_default(), files);
    filter::provide(Path::new(server::SECCOMP_CACHE));
    let channel = channel::open()?;
    let mut server = Server::new(channel, signals, started_ns)?;
    let end = server.run()?;
    if let End::Lost(reason) = end {
        complain(&format!(
            "hull-agent: the channel is of no more use: {reason}\n"
        ));
        server.kill_all();
    }
    power::write_back();
    server.farewell();
    Ok(())
}

/// Serves a channel that was inherited, and nothing but it: for who has made a world of his own
/// for it, such as a test.
pub(crate) fn serve_inherited(number: i32) -> ExitCode {
    let started_ns = uptime_ns();
    let served = inherited::take(number)
        .map_err(Trouble::at(format!("use descriptor {number}")))
        .and_then(|channel| {
            rustix::io::ioctl_fionbio(&channel, true).map_err(Trouble::at("use the channel"))?;
            let signals = signals().map_err(Trouble::at("receive signals"))?;
            let mut server = Server::new(channel, signals, started_ns)?;
            let end = server.run()?;
            server.kill_all();
            server.farewell();
            match end {
                End::Asked => Ok(()),
                End::Lost(reason) => Err(Trouble(reason)),
            }
        });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            complain(&format!("hull-agent: {trouble}\n"));
            ExitCode::FAILURE
        }
    }
}

fn signals() -> Result<OwnedFd, Errno> {
    let blocked: Vec<i32> = (1..=64).filter(|n| !OWN_FAULTS.contains(n)).collect();
    signal::set_blocked(SignalSet::of(&blocked))?;
    signal::signal_fd(SignalSet::of(&[SIGCHLD]))
}
