//! Monitor of one sandbox: `hull-shim --dir RUN/s/ID [--standby] [--log-level LEVEL]`.
//!
//! Started by the daemon with the listening control socket as descriptor 3, or ahead of need with
//! a socket on which that comes later (see [`standby`]). It owns the sandbox's
//! streams, log and exit status and outlives the daemon. It ends by itself once the sandbox is
//! gone and its exit is recorded; signals from a terminal or a service manager do not end it.
//! If it is killed, the kernel kills the first process of the sandbox.

mod args;
mod standby;

use std::process::ExitCode;

use anyhow::Context;
use hull_proto::message::LISTEN_FD;
use hull_sandbox::{Either, Server, Setup};
use hull_sys::signal::{self, SignalSet};
use hull_sys::{inherited, proc};

use self::args::Args;

/// Signals that are left alone: those by which the kernel tells of a bug in this very program.
const OWN_FAULTS: [i32; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGABRT,
    libc::SIGSYS,
    libc::SIGTRAP,
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hull-shim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let args = Args::parse(std::env::args_os().skip(1))?;
    let given = inherited::take(LISTEN_FD)
        .with_context(|| format!("descriptor {LISTEN_FD} must be a socket of the daemon's"))?;
    inherited::close_from(LISTEN_FD as u32 + 1).context("cannot close inherited descriptors")?;
    // Fails if it leads a session already, which is as good.
    let _ = rustix::process::setsid();
    proc::set_name(c"hull-shim")?;
    proc::set_subreaper().context("cannot become the reaper of orphans")?;
    std::env::set_current_dir("/")?;
    let blocked: Vec<i32> = (1..=64)
        .filter(|number| !OWN_FAULTS.contains(number))
        .collect();
    signal::set_blocked(SignalSet::of(&blocked)).context("cannot block signals")?;
    let signals = signal::signal_fd(SignalSet::of(&[libc::SIGCHLD]))
        .context("cannot watch for the end of children")?;
    let report = if args.quiet {
        |_: &str| ()
    } else {
        |text: &str| eprintln!("hull-shim: {text}")
    };
    let mut sandbox = Either::new();
    let (listener, dir) = if args.standby {
        sandbox.ask_host();
        match standby::wait(given, &args.dir)? {
            Some(found) => found,
            None => return Ok(()),
        }
    } else {
        (given, args.dir)
    };
    let setup = Setup {
        listener,
        signals,
        dir,
        report,
    };
    Server::new(sandbox, setup)?.run()?;
    Ok(())
}
