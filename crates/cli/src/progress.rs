//! Progress of long work: the bytes sent and the messages that come back, bars on a terminal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hull_api_types::progress::JsonMessage;
use hull_client::{ByteStream, ClientError};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::CliError;
use crate::output;

/// Time between two drawings of the upload's bar.
const PERIOD: Duration = Duration::from_millis(100);
/// Most bars at once; further steps show no bar.
const MAX_BARS: usize = 64;

/// Where messages are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Standard output.
    Stdout,
    /// Standard error, where standard output belongs to something else.
    Stderr,
    /// Errors only.
    Nowhere,
}

/// Sends an archive and shows the messages that come back. `quiet` shows no bars.
pub(crate) async fn transfer(
    request: impl Future<Output = Result<ByteStream, ClientError>>,
    sent: &Arc<AtomicU64>,
    total: Option<u64>,
    quiet: bool,
) -> Result<(), CliError> {
    let Some(bars) = terminal_bars(quiet) else {
        return Messages::new(None, Target::Stdout)
            .show(request.await?)
            .await;
    };
    let upload = bars.add(upload_bar(total));
    let work = async {
        Messages::new(Some(bars.clone()), Target::Stdout)
            .show(request.await?)
            .await
    };
    let drawing = async {
        let mut ticks = tokio::time::interval(PERIOD);
        loop {
            ticks.tick().await;
            let sent = sent.load(Ordering::Relaxed);
            upload.set_position(sent);
            if total.is_some_and(|total| sent >= total) {
                upload.set_message("Unpacking");
            }
        }
    };
    let result = tokio::select! {
        biased;
        result = work => result,
        () = drawing => Ok(()),
    };
    upload.finish_and_clear();
    result
}

/// Bars, if standard output is a terminal to draw them on.
fn terminal_bars(quiet: bool) -> Option<MultiProgress> {
    let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
    (!quiet && !bars.is_hidden()).then_some(bars)
}

fn upload_bar(total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{msg:>10} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec}",
        None => "{msg:>10} {spinner} {bytes} {bytes_per_sec}",
    };
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.with_message("Sending")
}

/// Shows a stream of messages that nothing is sent with.
pub(crate) async fn messages(
    stream: ByteStream,
    target: Target,
    quiet: bool,
) -> Result<(), CliError> {
    let bars = match target {
        Target::Stdout => terminal_bars(quiet),
        Target::Stderr | Target::Nowhere => None,
    };
    Messages::new(bars, target).show(stream).await
}

/// The messages of one piece of work.
struct Messages {
    bars: Option<MultiProgress>,
    target: Target,
    by_id: BTreeMap<String, ProgressBar>,
}

impl Messages {
    fn new(bars: Option<MultiProgress>, target: Target) -> Self {
        Self {
            bars,
            target,
            by_id: BTreeMap::new(),
        }
    }

    async fn show(mut self, mut stream: ByteStream) -> Result<(), CliError> {
        let result = async {
            while let Some(message) = stream.next_json::<JsonMessage>().await? {
                self.message(&message)?;
            }
            Ok(())
        }
        .await;
        for bar in self.by_id.values() {
            bar.finish_and_clear();
        }
        result
    }

    fn message(&mut self, message: &JsonMessage) -> Result<(), CliError> {
        let error = message
            .error_detail
            .as_ref()
            .map(|detail| detail.message.as_str())
            .filter(|text| !text.is_empty());
        if let Some(text) = error.or(Some(message.error.as_str()).filter(|text| !text.is_empty())) {
            return Err(CliError::new(text));
        }
        if !message.stream.is_empty() {
            return self.print(&message.stream);
        }
        match &message.progress_detail {
            Some(detail) if detail.total > 0 || detail.current > 0 => {
                self.step(&message.id, &message.status, detail.current, detail.total);
                Ok(())
            }
            _ if message.status.is_empty() => Ok(()),
            _ if message.id.is_empty() => self.print(&format!("{}\n", message.status)),
            // Of the whole: it stays.
            None => self.print(&format!("{}: {}\n", message.id, message.status)),
            Some(_) => self.state(&message.id, &message.status),
        }
    }

    /// Moves the bar of a step; without a terminal steps are not shown.
    fn step(&mut self, id: &str, status: &str, current: i64, total: i64) {
        let Some(bar) = self.line(id) else { return };
        let template = if total > 0 {
            "{msg} [{bar:40}] {bytes}/{total_bytes}"
        } else {
            "{msg} {bytes}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_length(u64::try_from(total).unwrap_or(0));
        bar.set_position(u64::try_from(current).unwrap_or(0));
        bar.set_message(format!("{id}: {status}"));
    }

    /// Shows what has become of something: in its place on a terminal, else as a line more.
    fn state(&mut self, id: &str, status: &str) -> Result<(), CliError> {
        let text = format!("{id}: {status}");
        match self.line(id) {
            Some(bar) => {
                if let Ok(style) = ProgressStyle::with_template("{msg}") {
                    bar.set_style(style);
                }
                bar.set_message(text);
                Ok(())
            }
            // Nothing has a place, or this came too late for one.
            None => self.print(&(text + "\n")),
        }
    }

    /// The place of something on the terminal.
    fn line(&mut self, id: &str) -> Option<&ProgressBar> {
        let bars = self.bars.as_ref()?;
        if !self.by_id.contains_key(id) {
            if self.by_id.len() >= MAX_BARS {
                return None;
            }
            let bar = bars.add(ProgressBar::new(0));
            self.by_id.insert(id.to_owned(), bar);
        }
        self.by_id.get(id)
    }

    fn print(&self, text: &str) -> Result<(), CliError> {
        match (&self.bars, self.target) {
            (_, Target::Nowhere) => Ok(()),
            (Some(bars), _) => bars.suspend(|| output::print(text)),
            (None, Target::Stdout) => output::print(text),
            (None, Target::Stderr) => output::error_bytes(text.as_bytes()),
        }
    }
}
