//! `hull daemon`: settings, log, lock, engine, sockets, and the end by signal.
use std::ffi::OsString;
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use hull_engine::{Engine, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::flags::{self, Asked};
use crate::listen::{self, Sockets};
use crate::pidfile::PidFile;

/// Threads that serve; what blocks has its own.
const MAX_WORKERS: usize = 4;
/// Longest wait for the end of a daemon that has stopped listening.
const STOPPING: Duration = Duration::from_secs(5);

/// Runs the daemon with what follows `hull daemon` on the command line.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let begun = Instant::now();
    match run(args, begun) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hull daemon: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Vec<OsString>, begun: Instant) -> anyhow::Result<ExitCode> {
    // First of all: nothing may have opened a descriptor of theirs.
    let activated = listen::activated()?;
    let settings = match flags::settings(args)? {
        Asked::Serve(settings) => *settings,
        Asked::Print(error) => {
            error.print().context("cannot print")?;
            return Ok(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1)));
        }
    };
    if !rustix::process::geteuid().is_root() {
        anyhow::bail!("the daemon needs root for now (rootless comes later): run it with sudo");
    }
    let filter = EnvFilter::try_new(&settings.log_level)
        .with_context(|| format!("cannot read log level {:?}", settings.log_level))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let workers = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_WORKERS);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(settings, activated, begun))?;
    // What still waits for clients or containers does not hold up the end.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

async fn serve(
    settings: Settings,
    activated: Option<Sockets>,
    begun: Instant,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch SIGINT")?;
    // Neither a terminal that closes nor a client that goes ends the daemon.
    let mut hangup = signal(SignalKind::hangup()).context("cannot watch SIGHUP")?;
    if let Some(dir) = settings.pid_file.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    // One who still listens will not end by itself; one who does not is about to.
    let handed_over = activated.is_some();
    let patience = if !handed_over && listen::is_live(&settings.socket) {
        Duration::ZERO
    } else {
        STOPPING
    };
    let pid_file = PidFile::take(&settings.pid_file, patience)?;
    let engine = Engine::open(settings.clone())
        .await
        .map_err(|error| anyhow::anyhow!(error.chain()))?;
    let sockets = match activated {
        Some(sockets) => sockets,
        None => listen::bind(&settings.socket, &settings.group)?,
    };
    let mut listeners = Vec::new();
    for listener in &sockets.listeners {
        let listener = listener.try_clone().context("cannot copy a socket")?;
        listeners.push(tokio::net::UnixListener::from_std(listener).context("cannot listen")?);
    }
    tracing::info!(socket = %settings.socket.display(), ready_in = ?begun.elapsed(), "hull daemon serves");
    notify("READY=1");
    let stop = async {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {}
            }
        }
        tracing::info!("hull daemon stops; containers run on");
        notify("STOPPING=1");
        engine.begin_stop();
        // Nobody new is to come; who is being served gets a moment.
        drop(sockets);
    };
    hull_api::serve(listeners, engine.clone(), stop).await;
    engine.finish();
    drop(pid_file);
    Ok(())
}

/// Tells systemd how things are (sd_notify(3)), where it asked.
fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let sent = UnixDatagram::unbound().and_then(|socket| {
        match path.to_str().and_then(|p| p.strip_prefix('@')) {
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                socket.send_to_addr(state.as_bytes(), &address)
            }
            None => socket.send_to(state.as_bytes(), &path),
        }
    });
    if let Err(error) = sent {
        tracing::warn!("cannot notify systemd: {error}");
    }
}
