//! Starts a daemon in the background where none listens.
//!
//! A lock in the run directory makes twenty command lines start one daemon: the first to hold it
//! starts it and waits for the socket, the others find the socket there once they get the lock.
//! The daemon is started through [`launch`], which leaves the session of the terminal before it
//! becomes the daemon.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use hull_client::Client;
use rustix::fs::{FlockOperation, flock};

use crate::context::{Context, nobody_listens};
use crate::error::CliError;
use crate::output;

/// The hidden first argument of the process that becomes the daemon.
pub(crate) const LAUNCH: &str = "__launch-daemon";
/// Longest wait for the lock, and for the socket.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two looks at the socket.
const PAUSE: Duration = Duration::from_millis(2);
/// Bytes of the log shown when the daemon does not come up.
const LOG_TAIL: u64 = 4096;
/// This program.
const SELF: &str = "/proc/self/exe";

/// Becomes the daemon in a session of its own.
pub(crate) fn launch() -> ExitCode {
    // Fails only where this process leads a group already, and then it has left the terminal's.
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
    let program = std::fs::read_link(SELF).unwrap_or_else(|_| PathBuf::from(SELF));
    let error = Command::new(program).arg0("hull").arg("daemon").exec();
    output::error_line(&format!("cannot execute the daemon: {error}"));
    ExitCode::FAILURE
}

/// Starts the daemon, or waits for the one that somebody else starts, until `client` connects.
pub(crate) async fn start(context: &Context, client: &Client) -> Result<(), CliError> {
    if !rustix::process::geteuid().is_root() {
        return Err(CliError::new(format!(
            "no hull daemon listens on unix://{} and only root can start one for now: run the command as root (rootless containers are not built yet)",
            context.socket.display()
        )));
    }
    let fail = |what: &str, error: std::io::Error| {
        CliError::new(format!(
            "cannot start the hull daemon: {what} {}: {error}",
            context.run_dir.display()
        ))
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&context.run_dir)
        .map_err(|error| fail("create", error))?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(context.run_dir.join("start.lock"))
        .map_err(|error| fail("open start.lock in", error))?;
    lock_exclusively(&lock).await?;
    // Whoever held the lock before may have started it.
    match client.connect().await {
        Ok(()) => return Ok(()),
        Err(error) if nobody_listens(&error) => {}
        Err(error) => return Err(error.into()),
    }
    let log_path = context.run_dir.join("daemon.log");
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(&log_path)
        .map_err(|error| fail("open daemon.log in", error))?;
    let log_start = log.metadata().map_or(0, |metadata| metadata.len());
    let errors = log
        .try_clone()
        .map_err(|error| fail("open daemon.log in", error))?;
    let mut child = Command::new(SELF)
        .arg0("hull")
        .arg(LAUNCH)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|error| CliError::new(format!("cannot start the hull daemon: {error}")))?;
    wait_for_socket(client, &mut child, &log_path, log_start).await
}

async fn lock_exclusively(lock: &File) -> Result<(), CliError> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR)
                if Instant::now() < deadline =>
            {
                tokio::time::sleep(PAUSE).await
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(CliError::new(format!(
                    "another command has been starting the hull daemon for {} s without success",
                    TIMEOUT.as_secs()
                )));
            }
            Err(error) => {
                return Err(CliError::new(format!(
                    "cannot lock the start of the hull daemon: {error}"
                )));
            }
        }
    }
}

async fn wait_for_socket(
    client: &Client,
    child: &mut Child,
    log: &Path,
    log_start: u64,
) -> Result<(), CliError> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match client.connect().await {
            Ok(()) => return Ok(()),
            Err(error) if nobody_listens(&error) => {}
            Err(error) => return Err(error.into()),
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(failure(&format!("it ended with {status}"), log, log_start));
        }
        if Instant::now() >= deadline {
            return Err(failure(
                &format!("it does not listen after {} s", TIMEOUT.as_secs()),
                log,
                log_start,
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The error with the end of what the daemon logged since it was started.
fn failure(what: &str, log: &Path, log_start: u64) -> CliError {
    let tail = tail(log, log_start).unwrap_or_default();
    let tail = tail.trim_end();
    let said = if tail.is_empty() {
        String::new()
    } else {
        format!("; it says:\n{tail}")
    };
    CliError::new(format!(
        "the hull daemon did not start: {what}{said}\n(log: {})",
        log.display()
    ))
}

fn tail(log: &Path, from: u64) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(LOG_TAIL))))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
