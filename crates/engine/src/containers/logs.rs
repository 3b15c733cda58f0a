//! Reading a container's log: the rotated files in their order, then the current one as it grows.
//!
//! A follower keeps the file it reads open. When the name leads to another file it reads the old
//! one to its end, then goes on with the next younger, so that a rotation loses nothing.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hull_model::spec::LogDriver;
use hull_model::{Error, Result};
use rustix::fs::inotify;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use super::entry::Runs;
use crate::Engine;

/// Longest line of a log file, bytes: a written line is at most 16 KiB of payload, escaped.
const MAX_LINE: u64 = 1 << 20;
/// Most rotated files looked for.
const MAX_FILES: u32 = 1000;
/// Bytes read at once when searching from the end.
const BLOCK: u64 = 64 << 10;

/// What to read.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogOptions {
    /// Go on with what comes.
    pub follow: bool,
    /// Not what is older, ns since 1970.
    pub since_ns: Option<i64>,
    /// Not what is younger.
    pub until_ns: Option<i64>,
    /// The last so many lines.
    pub tail: Option<usize>,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// 1 for standard output, 2 for standard error.
    pub stream: u8,
    /// RFC 3339 with nanoseconds.
    pub time: String,
    /// The bytes, with the end of line if there was one.
    pub line: Vec<u8>,
}

/// A log being read.
#[derive(Debug)]
pub struct Logs {
    /// The container has a terminal: entries are to be sent without frames.
    pub tty: bool,
    /// The entries.
    pub entries: mpsc::Receiver<LogEntry>,
}

#[derive(Deserialize)]
struct Line {
    log: String,
    stream: String,
    time: String,
}

impl Engine {
    /// Reads a container's log.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` where the log driver keeps nothing or no stream is chosen.
    pub fn logs(self: &Arc<Self>, key: &str, options: LogOptions) -> Result<Logs> {
        let container = self.containers.find(key)?;
        let (driver, tty) = container.with(|r| (r.spec.log.driver, r.spec.tty));
        if driver == LogDriver::None {
            return Err(Error::new(
                hull_model::ErrorKind::NotImplemented,
                "configured logging driver does not support reading",
            ));
        }
        if !options.stdout && !options.stderr {
            return Err(Error::invalid(
                "Bad parameters: you must choose at least one stream",
            ));
        }
        let path = self.settings.log_path(&container.id);
        let (sender, entries) = mpsc::channel(256);
        let runs = container.runs.subscribe();
        tokio::spawn(async move {
            let mut reader = Reader {
                path,
                options,
                sender,
            };
            if let Err(error) = reader.run(runs).await {
                tracing::warn!(%error, path = %reader.path.display(), "cannot read a log");
            }
            // The container's record of runs must live as long as we look at it.
            drop(container);
        });
        Ok(Logs { tty, entries })
    }
}

struct Reader {
    path: PathBuf,
    options: LogOptions,
    sender: mpsc::Sender<LogEntry>,
}

/// Whether reading goes on.
enum Step {
    On,
    Stop,
}

impl Reader {
    async fn run(&mut self, mut runs: watch::Receiver<Runs>) -> std::io::Result<()> {
        // Watched before the first read, so that nothing written in between is missed.
        let mut watch = if self.options.follow {
            Some(Watch::new(&self.path)?)
        } else {
            None
        };
        let (mut number, offset) = self.first()?;
        let mut current: Option<(BufReader<File>, u64)> = None;
        let mut partial = Vec::new();
        loop {
            if current.is_none() {
                current = match open(&rotated(&self.path, number)) {
                    Ok(mut file) => {
                        let inode = file.metadata()?.ino();
                        if partial.is_empty() && offset.0 == number {
                            file.seek(SeekFrom::Start(offset.1))?;
                        }
                        Some((BufReader::with_capacity(BLOCK as usize, file), inode))
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                    Err(error) => return Err(error),
                };
            }
            // Read before the file is found at its end, so that a last line is not missed.
            let running = runs.borrow_and_update().running;
            if let Some((reader, inode)) = &mut current {
                if let Step::Stop = self.drain(reader, &mut partial).await? {
                    return Ok(());
                }
                match place(&self.path, *inode) {
                    Some(0) => {}
                    Some(older) => {
                        // Renamed: what was added between our read and the renaming is there now.
                        if let Step::Stop = self.drain(reader, &mut partial).await? {
                            return Ok(());
                        }
                        number = older - 1;
                        current = None;
                        partial.clear();
                        continue;
                    }
                    None => {
                        // Deleted by the rotation of more files than we could follow.
                        number = oldest(&self.path);
                        current = None;
                        partial.clear();
                        continue;
                    }
                }
            }
            let Some(watch) = &mut watch else {
                return Ok(());
            };
            if !running {
                return Ok(());
            }
            tokio::select! {
                changed = watch.changed() => changed?,
                ended = runs.changed() => if ended.is_err() { return Ok(()) },
                () = self.sender.closed() => return Ok(()),
                () = until(self.options.until_ns) => return Ok(()),
            }
        }
    }

    /// Sends the whole lines up to the end of the file; an unfinished one is kept in `partial`.
    async fn drain(
        &self,
        reader: &mut BufReader<File>,
        partial: &mut Vec<u8>,
    ) -> std::io::Result<Step> {
        loop {
            let room = MAX_LINE.saturating_sub(partial.len() as u64);
            let read = reader.by_ref().take(room).read_until(b'\n', partial)?;
            if partial.last() != Some(&b'\n') {
                if read > 0 && partial.len() as u64 >= MAX_LINE {
                    // No line of ours is that long: the file was tampered with.
                    partial.clear();
                    continue;
                }
                return Ok(Step::On);
            }
            let entry = serde_json::from_slice::<Line>(partial);
            partial.clear();
            // A line cut by a power failure is skipped.
            let Ok(entry) = entry else { continue };
            match self.wanted(&entry) {
                Wanted::Yes => {}
                Wanted::No => continue,
                Wanted::NoMore => return Ok(Step::Stop),
            }
            let stream = if entry.stream == "stderr" { 2 } else { 1 };
            let entry = LogEntry {
                stream,
                time: entry.time,
                line: entry.log.into_bytes(),
            };
            if self.sender.send(entry).await.is_err() {
                return Ok(Step::Stop);
            }
        }
    }

    fn wanted(&self, line: &Line) -> Wanted {
        let stream = if line.stream == "stderr" {
            self.options.stderr
        } else {
            self.options.stdout
        };
        if self.options.since_ns.is_some() || self.options.until_ns.is_some() {
            let time = OffsetDateTime::parse(&line.time, &Rfc3339)
                .map(|t| t.unix_timestamp_nanos())
                .unwrap_or(0);
            if self.options.since_ns.is_some_and(|s| time < i128::from(s)) {
                return Wanted::No;
            }
            if self.options.until_ns.is_some_and(|u| time > i128::from(u)) {
                return Wanted::NoMore;
            }
        }
        if stream { Wanted::Yes } else { Wanted::No }
    }

    /// Where to begin: the number of the file and the offset in it.
    fn first(&self) -> std::io::Result<(u32, (u32, u64))> {
        let oldest = oldest(&self.path);
        let Some(mut wanted) = self.options.tail else {
            return Ok((oldest, (oldest, 0)));
        };
        for number in 0..=oldest {
            let mut file = match open(&rotated(&self.path, number)) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            match tail_offset(&mut file, wanted)? {
                Tail::At(offset) => return Ok((number, (number, offset))),
                Tail::Fewer(lines) => wanted -= lines,
            }
        }
        Ok((oldest, (oldest, 0)))
    }
}

enum Wanted {
    Yes,
    No,
    NoMore,
}

async fn until(ns: Option<i64>) {
    match ns {
        Some(ns) => {
            let left = ns.saturating_sub(crate::clock::now_ns() as i64).max(0) as u64;
            tokio::time::sleep(std::time::Duration::from_nanos(left)).await;
        }
        None => std::future::pending().await,
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    File::open(path)
}

/// The file with that number; 0 is the current one.
fn rotated(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn oldest(path: &Path) -> u32 {
    (1..MAX_FILES)
        .take_while(|n| rotated(path, *n).exists())
        .last()
        .unwrap_or(0)
}

/// The number under which the file with this inode is found.
fn place(path: &Path, inode: u64) -> Option<u32> {
    (0..MAX_FILES).find_map(|number| match std::fs::metadata(rotated(path, number)) {
        Ok(metadata) if metadata.ino() == inode => Some(Some(number)),
        Ok(_) => None,
        // The current file may be missing for a moment, within a rotation.
        Err(_) if number == 0 => None,
        Err(_) => Some(None),
    })?
}

enum Tail {
    At(u64),
    Fewer(usize),
}

/// Searches backwards for the start of the last `wanted` lines.
fn tail_offset(file: &mut File, wanted: usize) -> std::io::Result<Tail> {
    let end = file.seek(SeekFrom::End(0))?;
    if wanted == 0 {
        return Ok(Tail::At(end));
    }
    let mut block = vec![0; BLOCK as usize];
    let (mut position, mut lines) = (end, 0);
    while position > 0 {
        let length = position.min(BLOCK);
        position -= length;
        file.seek(SeekFrom::Start(position))?;
        let Some(part) = block.get_mut(..length as usize) else {
            break;
        };
        file.read_exact(part)?;
        for (i, byte) in part.iter().enumerate().rev() {
            if *byte != b'\n' {
                continue;
            }
            // The newline before the wanted first line is one more than there are lines after it.
            if lines == wanted {
                return Ok(Tail::At(position + i as u64 + 1));
            }
            lines += 1;
        }
    }
    if lines == wanted {
        Ok(Tail::At(0))
    } else {
        Ok(Tail::Fewer(lines))
    }
}

/// Wakes when something in the log's folder changes.
struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    fn new(path: &Path) -> std::io::Result<Self> {
        let dir = path.parent().unwrap_or(Path::new("/"));
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let events = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO;
        std::fs::create_dir_all(dir)?;
        inotify::add_watch(&fd, dir, events)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types whose descriptor may change; an OwnedFd keeps its own"
        )]
        let watched = AsyncFd::new(fd)?;
        Ok(Self(watched))
    }

    async fn changed(&mut self) -> std::io::Result<()> {
        let mut ready = self.0.readable_mut().await?;
        let mut buffer = [0; 4096];
        while matches!(rustix::io::read(ready.get_inner(), &mut buffer), Ok(1..)) {}
        ready.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn tail_offset_counts_lines_from_the_end() {
        let path = std::env::temp_dir().join(format!("hull-tail-{}", std::process::id()));
        let mut file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        file.write_all(b"one\ntwo\nthree\n").unwrap();
        let at = |file: &mut File, n| match tail_offset(file, n).unwrap() {
            Tail::At(offset) => Ok(offset),
            Tail::Fewer(lines) => Err(lines),
        };
        assert_eq!(at(&mut file, 0), Ok(14));
        assert_eq!(at(&mut file, 1), Ok(8));
        assert_eq!(at(&mut file, 3), Ok(0));
        assert_eq!(at(&mut file, 5), Err(3));
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn follower_across_rotations_loses_and_doubles_nothing() {
        let dir = std::env::temp_dir().join(format!("hull-logs-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("x-json.log");
        let (sender, mut entries) = mpsc::channel(8);
        let runs = watch::Sender::new(Runs {
            running: true,
            ..Runs::default()
        });
        let options = LogOptions {
            follow: true,
            stdout: true,
            ..LogOptions::default()
        };
        let mut reader = Reader {
            path: path.clone(),
            options,
            sender,
        };
        let receiver = runs.subscribe();
        let task = tokio::spawn(async move { reader.run(receiver).await });
        let writer = std::thread::spawn(move || {
            for n in 0..3000 {
                if n % 500 == 499 {
                    for k in (0..3).rev() {
                        let _ = std::fs::rename(rotated(&path, k), rotated(&path, k + 1));
                    }
                }
                let mut file = File::options()
                    .create(true)
                    .append(true)
                    .open(&path)
                    .unwrap();
                writeln!(
                    file,
                    r#"{{"log":"{n}\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}}"#
                )
                .unwrap();
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
        });
        for n in 0..3000 {
            assert_eq!(
                entries.recv().await.unwrap().line,
                format!("{n}\n").into_bytes()
            );
        }
        writer.join().unwrap();
        runs.send_modify(|r| r.running = false);
        task.await.unwrap().unwrap();
        assert!(entries.recv().await.is_none());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
