//! Signals of the command line: passed on to a container, the window's changes, the end.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Signals that are passed on, by number and name.
const FORWARDED: [(i32, &str); 14] = [
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (10, "USR1"),
    (12, "USR2"),
    (14, "ALRM"),
    (15, "TERM"),
    (18, "CONT"),
    (20, "TSTP"),
    (21, "TTIN"),
    (22, "TTOU"),
    (26, "VTALRM"),
    (29, "IO"),
    (30, "PWR"),
];
/// Signals that end the command line.
const ENDING: [(i32, &str); 4] = [(1, "HUP"), (2, "INT"), (3, "QUIT"), (15, "TERM")];
/// Signals that may wait.
const QUEUE: usize = 16;

/// Names of signals as they arrive.
#[derive(Debug)]
pub(crate) struct Signals(mpsc::Receiver<(i32, &'static str)>);

impl Signals {
    /// Takes over all signals that a container may get instead.
    pub(crate) fn forwarded() -> Self {
        Self::of(&FORWARDED)
    }

    /// Takes over the signals that would end the command line, so that it can tidy up.
    pub(crate) fn ending() -> Self {
        Self::of(&ENDING)
    }

    fn of(list: &'static [(i32, &'static str)]) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        for (number, name) in list.iter().copied() {
            // A signal that cannot be taken over keeps its default effect.
            let Ok(mut stream) = signal(SignalKind::from_raw(number)) else {
                continue;
            };
            let sender = sender.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    if sender.send((number, name)).await.is_err() {
                        return;
                    }
                }
            });
        }
        Self(receiver)
    }

    /// The next signal's number and name; never comes where none was taken over.
    pub(crate) async fn next(&mut self) -> (i32, &'static str) {
        match self.0.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}

/// Tells when the window's size changed.
#[derive(Debug)]
pub(crate) struct WindowChanges(Option<tokio::signal::unix::Signal>);

impl WindowChanges {
    /// Starts to look.
    pub(crate) fn new() -> Self {
        Self(signal(SignalKind::window_change()).ok())
    }

    /// Waits for the next change.
    pub(crate) async fn next(&mut self) {
        match &mut self.0 {
            Some(stream) => {
                if stream.recv().await.is_none() {
                    self.0 = None;
                }
            }
            None => std::future::pending().await,
        }
    }
}
