//! The log file: records are collected and written once per reading, rotated by rename, and a
//! full disk costs lines but never the payload.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use hull_proto::message::LogFile;

use super::format::{self, Clock};
use super::lines::{Lines, Piece};

/// Records are written out when so many bytes have collected within one reading.
const BATCH: usize = 64 << 10;
/// Memory kept for the next batch.
const KEEP: usize = 4 << 10;
/// Most rotated files, whatever was configured.
const MAX_FILES: u32 = 1000;

/// What went wrong with the log, or is well again. Each is told once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Lines are being dropped, for this reason.
    Dropping(String),
    /// Lines are written again after so many were dropped.
    Recovered(u64),
}

/// Writes the log of one sandbox.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    max_size: u64,
    max_file: u32,
    file: Option<File>,
    /// Bytes of whole records in the current file.
    size: u64,
    batch: Vec<u8>,
    batch_lines: u64,
    clock: Clock,
    dropped: u64,
}

impl Log {
    /// Opens the log for appending.
    ///
    /// # Errors
    /// If the file cannot be opened or made.
    pub(crate) fn open(wish: &LogFile) -> io::Result<Self> {
        let file = create(&wish.path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: wish.path.clone(),
            max_size: wish.config.max_size,
            max_file: wish.config.max_file.clamp(1, MAX_FILES),
            file: Some(file),
            size,
            batch: Vec::new(),
            batch_lines: 0,
            clock: Clock::default(),
            dropped: 0,
        })
    }

    /// Takes bytes of a stream, cut by `lines`. Call [`Self::flush`] afterwards.
    pub(crate) fn push(
        &mut self,
        lines: &mut Lines,
        stream: &str,
        bytes: &[u8],
        now_ns: u64,
    ) -> Option<Trouble> {
        let mut trouble = None;
        lines.push(bytes, now_ns, |piece| {
            trouble = self.record(&piece, stream, now_ns).or(trouble.take());
        });
        trouble
    }

    /// Takes the end of a stream.
    pub(crate) fn finish(
        &mut self,
        lines: &mut Lines,
        stream: &str,
        now_ns: u64,
    ) -> Option<Trouble> {
        let mut trouble = None;
        lines.finish(|piece| trouble = self.record(&piece, stream, now_ns));
        trouble
    }

    fn record(&mut self, piece: &Piece<'_>, stream: &str, now_ns: u64) -> Option<Trouble> {
        let start = self.batch.len();
        let at = piece.since_ns.unwrap_or(now_ns);
        format::line(
            &mut self.batch,
            piece.text,
            piece.whole,
            stream,
            &mut self.clock,
            at,
        );
        let mut trouble = None;
        let full = self.max_size > 0 && self.size + self.batch.len() as u64 > self.max_size;
        if full && self.size + start as u64 > 0 {
            // What came before this record goes to the old file, the record to the new one.
            let record = self.batch.split_off(start);
            trouble = self.flush();
            if let Err(error) = self.rotate() {
                self.dropped += 1;
                let first = self.dropped == 1;
                return first.then(|| {
                    Trouble::Dropping(format!("cannot rotate {}: {error}", self.path.display()))
                });
            }
            self.batch = record;
        }
        self.batch_lines += 1;
        if self.batch.len() >= BATCH {
            trouble = self.flush().or(trouble);
        }
        trouble
    }

    /// Writes what has collected.
    pub(crate) fn flush(&mut self) -> Option<Trouble> {
        if self.batch.is_empty() {
            return None;
        }
        let result = self.write_batch();
        self.batch.clear();
        self.batch.shrink_to(KEEP);
        let lines = std::mem::take(&mut self.batch_lines);
        match result {
            Ok(()) if self.dropped > 0 => {
                Some(Trouble::Recovered(std::mem::take(&mut self.dropped)))
            }
            Ok(()) => None,
            Err(error) => {
                let first = self.dropped == 0;
                self.dropped += lines;
                first.then(|| {
                    Trouble::Dropping(format!("cannot write {}: {error}", self.path.display()))
                })
            }
        }
    }

    fn write_batch(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(create(&self.path)?),
        };
        if let Err(error) = file.write_all(&self.batch) {
            // Half a record must not stay before the next one.
            let _ = file.set_len(self.size);
            return Err(error);
        }
        self.size += self.batch.len() as u64;
        Ok(())
    }

    /// Moves `path` to `path.1` and so on. The new file is made first, so that a full disk leaves
    /// all as it was; a follower that still has the old file open can read it to its end.
    fn rotate(&mut self) -> io::Result<()> {
        let fresh = numbered(&self.path, "new");
        let _ = std::fs::remove_file(&fresh);
        let file = create(&fresh)?;
        for number in (1..self.max_file).rev() {
            let from = if number == 1 {
                self.path.clone()
            } else {
                numbered(&self.path, number - 1)
            };
            match std::fs::rename(from, numbered(&self.path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&fresh, &self.path)?;
        self.file = Some(file);
        self.size = 0;
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.flush();
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

fn numbered(path: &Path, number: impl std::fmt::Display) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_model::spec::LogConfig;

    fn log_at(path: &Path, max_size: u64, max_file: u32) -> Log {
        let config = LogConfig {
            max_size,
            max_file,
            ..LogConfig::default()
        };
        Log::open(&LogFile {
            path: path.to_owned(),
            config,
        })
        .unwrap()
    }

    fn texts(path: &Path) -> Vec<String> {
        let content = std::fs::read_to_string(path).unwrap_or_default();
        content
            .lines()
            .map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                value["log"].as_str().unwrap().trim_end().to_owned()
            })
            .collect()
    }

    #[test]
    fn push_many_lines_rotated_files_hold_the_newest_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = log_at(&path, 1000, 3);
        let mut lines = Lines::default();
        for number in 0..100 {
            log.push(
                &mut lines,
                "stdout",
                format!("line {number}\n").as_bytes(),
                7,
            );
            log.flush();
        }
        let mut all = texts(&numbered(&path, 2));
        all.extend(texts(&numbered(&path, 1)));
        all.extend(texts(&path));
        assert!(!numbered(&path, 3).exists() && !numbered(&path, "new").exists());
        assert_eq!(all.last().unwrap(), "line 99");
        let expected: Vec<_> = (100 - all.len()..100)
            .map(|number| format!("line {number}"))
            .collect();
        assert_eq!(all, expected);
        for file in [path.clone(), numbered(&path, 1), numbered(&path, 2)] {
            assert!(std::fs::metadata(file).unwrap().len() <= 1000);
        }
    }

    #[test]
    fn push_one_batch_over_the_limit_is_spread_over_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = log_at(&path, 1000, 50);
        let text: String = (0..100).map(|number| format!("{number}\n")).collect();
        log.push(&mut Lines::default(), "stderr", text.as_bytes(), 7);
        log.flush();
        let mut all = Vec::new();
        for number in (1..50).rev() {
            all.extend(texts(&numbered(&path, number)));
        }
        all.extend(texts(&path));
        assert_eq!(all.len(), 100);
        assert!(
            all.iter()
                .enumerate()
                .all(|(at, text)| *text == at.to_string())
        );
    }

    #[test]
    fn rotate_single_file_follower_reads_the_old_one_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = log_at(&path, 150, 1);
        let mut lines = Lines::default();
        log.push(&mut lines, "stdout", b"first\n", 7);
        log.flush();
        let follower = File::open(&path).unwrap();
        log.push(&mut lines, "stdout", b"second\n", 7);
        log.push(&mut lines, "stdout", b"third\n", 7);
        log.flush();
        let old = io::read_to_string(follower).unwrap();
        assert!(old.contains("first"));
        assert_eq!(texts(&path), ["third"]);
    }

    #[test]
    fn flush_to_full_disk_drops_with_one_warning_and_recovers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = log_at(&path, 0, 1);
        let mut lines = Lines::default();
        log.push(&mut lines, "stdout", b"before\n", 7);
        assert_eq!(log.flush(), None);
        let good = log
            .file
            .replace(OpenOptions::new().write(true).open("/dev/full").unwrap());
        log.push(&mut lines, "stdout", b"one\ntwo\n", 7);
        assert!(matches!(log.flush(), Some(Trouble::Dropping(text)) if text.contains("No space")));
        log.push(&mut lines, "stdout", b"three\n", 7);
        assert_eq!(log.flush(), None);
        log.file = good;
        log.push(&mut lines, "stdout", b"after\n", 7);
        assert_eq!(log.flush(), Some(Trouble::Recovered(3)));
        assert_eq!(texts(&path), ["before", "after"]);
    }
}
