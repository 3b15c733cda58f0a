//! The process id file: its lock, not its being there, says that a daemon runs.
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};

/// Time between two tries for the lock.
const PAUSE: Duration = Duration::from_millis(10);
/// Bytes of another's file that are looked at.
const MAX_PID: u64 = 32;

/// The locked file; removed when dropped. After kill -9 the lock is gone and the file stays.
#[derive(Debug)]
pub(crate) struct PidFile {
    file: File,
    path: PathBuf,
}

impl PidFile {
    /// Locks the file and writes our id into it. One who is just stopping gets so long to end.
    ///
    /// # Errors
    /// If another daemon holds the lock, or the file cannot be written.
    pub(crate) fn take(path: &Path, patience: Duration) -> anyhow::Result<Self> {
        let begun = Instant::now();
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .open(path)
                .with_context(|| format!("cannot open {}", path.display()))?;
            if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
                if error != rustix::io::Errno::WOULDBLOCK {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
                if begun.elapsed() < patience {
                    std::thread::sleep(PAUSE);
                    continue;
                }
                let mut text = String::new();
                let _ = (&mut file).take(MAX_PID).read_to_string(&mut text);
                bail!(
                    "another hull daemon (pid {}) runs: it holds {}. Stop it with `hull daemon stop`, or give this one folders of its own",
                    text.trim(),
                    path.display()
                );
            }
            let this = Self {
                file,
                path: path.to_owned(),
            };
            // Its owner may have removed it between our opening and our locking; dropping ours
            // then removes nothing.
            if !this.is_current() {
                continue;
            }
            this.write()
                .with_context(|| format!("cannot write {}", path.display()))?;
            return Ok(this);
        }
    }

    fn is_current(&self) -> bool {
        let inode = |m: std::fs::Metadata| (m.dev(), m.ino());
        let there = std::fs::metadata(&self.path).map(inode);
        matches!((there, self.file.metadata().map(inode)), (Ok(a), Ok(b)) if a == b)
    }

    fn write(&self) -> std::io::Result<()> {
        let mut file = &self.file;
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // While the lock is held, so that it cannot be another's.
        if self.is_current() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_daemon_is_refused_until_the_first_has_gone() {
        let dir = std::env::temp_dir().join(format!("hull-pidfile-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("hull.pid");
        std::fs::write(&path, "99999999 left by a kill\n").unwrap();
        let first = PidFile::take(&path, Duration::ZERO).unwrap();
        let pid = std::process::id().to_string();
        assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), pid);
        let refused = PidFile::take(&path, Duration::ZERO)
            .unwrap_err()
            .to_string();
        assert!(refused.contains(&pid), "{refused}");
        drop(first);
        assert!(!path.exists());
        drop(PidFile::take(&path, Duration::ZERO).unwrap());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
