//! Copies between the user's streams and a container's until the output ends or the user detaches.

use bytes::Bytes;
use hull_client::{Client, ClientError, Demux, HijackReader, Hijacked, StreamKind};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::error::CliError;
use crate::output;

use super::detach::{DEFAULT_KEYS, DetachKeys, Typed, parse};
use super::signals::{Signals, WindowChanges};
use super::{input, terminal};

/// How to copy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Copying {
    /// The container has a terminal: one raw stream, and input typed in raw mode.
    pub(crate) tty: bool,
    /// Send standard input.
    pub(crate) stdin: bool,
    /// Show standard output.
    pub(crate) stdout: bool,
    /// Show standard error.
    pub(crate) stderr: bool,
    /// The user's detach keys.
    pub(crate) detach_keys: Option<String>,
}

/// Why copying ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The container's output ended.
    Output,
    /// The user typed the detach keys.
    Detached,
    /// A signal ended the command line.
    Signal(i32),
}

/// What the terminal's size is told to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Resized<'a> {
    /// A container.
    Container(&'a str),
    /// A command in a container.
    Exec(&'a str),
}

/// Copies. In the meantime `side` runs: signals passed on, window sizes told.
pub(crate) async fn copy(
    connection: Hijacked,
    copying: &Copying,
    side: impl Future<Output = ()>,
) -> Result<Ended, CliError> {
    let raw = if copying.tty && copying.stdin {
        terminal::RawMode::enter()?
    } else {
        None
    };
    let (reader, writer) = connection.split();
    let received = copying.stdin.then(input::read);
    // In raw mode the keyboard makes no signals; those from elsewhere must not leave it raw.
    let mut ending = raw.is_some().then(Signals::ending);
    let side = async {
        side.await;
        std::future::pending::<()>().await;
    };
    let input = async {
        match received {
            Some(received) => send(received, writer, copying).await,
            None => {
                // Holds the writing half open: its end would say that there is no more input.
                let _writer = writer;
                std::future::pending().await
            }
        }
    };
    let ended = tokio::select! {
        biased;
        result = receive(reader, copying) => result.map(|()| Ended::Output),
        result = input => result.map(|()| Ended::Detached),
        (number, _) = async { match &mut ending { Some(signals) => signals.next().await, None => std::future::pending().await } } => Ok(Ended::Signal(number)),
        () = side => Ok(Ended::Output),
    };
    drop(raw);
    ended
}

/// Sends input until its end, then closes that direction and waits; returns only when detached.
async fn send(
    mut input: mpsc::Receiver<Bytes>,
    mut writer: tokio::net::unix::OwnedWriteHalf,
    copying: &Copying,
) -> Result<(), CliError> {
    let keys = match &copying.detach_keys {
        Some(keys) if !keys.is_empty() => parse(keys).unwrap_or_else(|_| DEFAULT_KEYS.to_vec()),
        _ => DEFAULT_KEYS.to_vec(),
    };
    let mut keys = copying.tty.then(|| DetachKeys::new(keys));
    while let Some(piece) = input.recv().await {
        let (bytes, detach) = match &mut keys {
            None => (piece, false),
            Some(keys) => match keys.feed(&piece) {
                Typed::Forward(bytes) => (bytes.into(), false),
                Typed::Detach(bytes) => (bytes.into(), true),
            },
        };
        // A container that no longer reads is no failure: its output tells how it ends.
        if writer.write_all(&bytes).await.is_err() {
            break;
        }
        if detach {
            return Ok(());
        }
    }
    let _ = writer.shutdown().await;
    std::future::pending().await
}

/// Shows output until its end.
async fn receive(mut reader: HijackReader, copying: &Copying) -> Result<(), CliError> {
    if copying.tty {
        while let Some(bytes) = reader.next().await? {
            if copying.stdout {
                output::bytes(&bytes)?;
            }
        }
        return Ok(());
    }
    let mut demux = Demux::new();
    while let Some(bytes) = reader.next().await? {
        demux.push(&bytes);
        show_frames(&mut demux, copying.stdout, copying.stderr)?;
    }
    Ok(())
}

/// Shows the frames that are complete.
pub(crate) fn show_frames(demux: &mut Demux, stdout: bool, stderr: bool) -> Result<(), CliError> {
    while let Some((kind, data)) = demux.next_frame()? {
        match kind {
            StreamKind::Stdin | StreamKind::Stdout if stdout => output::bytes(&data)?,
            StreamKind::Stderr if stderr => output::error_bytes(&data)?,
            StreamKind::SystemError => {
                return Err(CliError::new(format!(
                    "error from daemon in stream: {}",
                    String::from_utf8_lossy(&data)
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Passes signals on to a container for ever.
pub(crate) async fn pass_signals(client: &Client, container: &str, mut signals: Signals) {
    loop {
        let (_, name) = signals.next().await;
        match client.container_kill(container, Some(name)).await {
            Ok(()) => {}
            // It may not have been started yet, or be gone already: either way nothing to report.
            Err(error) if error.status().is_some() => {}
            Err(_) => return,
        }
    }
}

/// Tells the window's size now and at each change, for ever.
pub(crate) async fn tell_size(client: &Client, target: Resized<'_>) {
    let mut changes = WindowChanges::new();
    loop {
        let _ = tell_size_once(client, target).await;
        changes.next().await;
    }
}

async fn tell_size_once(client: &Client, target: Resized<'_>) -> Result<(), ClientError> {
    let Some((height, width)) = terminal::size() else {
        return Ok(());
    };
    match target {
        Resized::Container(id) => client.container_resize(id, height, width).await,
        Resized::Exec(id) => client.exec_resize(id, height, width).await,
    }
}
