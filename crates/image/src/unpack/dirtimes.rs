//! Times of directories, set when nothing changes in them any more. Their number and their names
//! are the archive's choice, so beyond a bound they wait in a file.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};

use crate::tar::Mtime;

/// Bytes that are kept in memory.
const MEMORY_BYTES: usize = 1 << 20;
/// Name of the file for the moment between its making and its unlinking.
const FILE: &str = "times";

/// Directories and their times, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct DirTimes {
    memory: Vec<u8>,
    file: Option<File>,
}

impl DirTimes {
    /// Notes the time of a directory. `layer` is where a file may be made.
    pub(super) fn note(&mut self, layer: impl AsFd, path: &[u8], time: Mtime) -> io::Result<()> {
        let length = u16::try_from(path.len()).map_err(io::Error::other)?;
        self.memory.extend_from_slice(&length.to_le_bytes());
        self.memory.extend_from_slice(&time.secs.to_le_bytes());
        self.memory.extend_from_slice(&time.nanos.to_le_bytes());
        self.memory.extend_from_slice(path);
        if self.memory.len() < MEMORY_BYTES {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(nameless(layer)?),
        };
        file.write_all(&self.memory)?;
        self.memory.clear();
        Ok(())
    }

    /// Gives all back and forgets them.
    pub(super) fn drain<E: From<io::Error>>(
        &mut self,
        mut with: impl FnMut(&[u8], Mtime) -> Result<(), E>,
    ) -> Result<(), E> {
        let memory = std::mem::take(&mut self.memory);
        if let Some(mut file) = self.file.take() {
            file.rewind()?;
            each(BufReader::new(file), &mut with)?;
        }
        each(&memory[..], &mut with)
    }
}

fn each<E: From<io::Error>>(
    mut input: impl Read,
    with: &mut impl FnMut(&[u8], Mtime) -> Result<(), E>,
) -> Result<(), E> {
    let mut path = Vec::new();
    loop {
        let mut length = [0; 2];
        if input.read(&mut length[..1])? == 0 {
            return Ok(());
        }
        input.read_exact(&mut length[1..])?;
        let (mut secs, mut nanos) = ([0; 8], [0; 4]);
        input.read_exact(&mut secs)?;
        input.read_exact(&mut nanos)?;
        path.resize(usize::from(u16::from_le_bytes(length)), 0);
        input.read_exact(&mut path)?;
        let time = Mtime {
            secs: i64::from_le_bytes(secs),
            nanos: u32::from_le_bytes(nanos),
        };
        with(&path, time)?;
    }
}

/// A file that goes with its descriptor.
fn nameless(layer: impl AsFd) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let fd = openat(&layer, FILE, flags, Mode::from_raw_mode(0o600))?;
    unlinkat(&layer, FILE, AtFlags::empty())?;
    Ok(File::from(fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_beyond_the_memory_come_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let layer = File::open(dir.path()).unwrap();
        let mut times = DirTimes::default();
        let path = |n: u32| format!("{n}/{}", "d".repeat(4_000)).into_bytes();
        let time = |n: u32| Mtime {
            secs: -i64::from(n),
            nanos: n,
        };
        for n in 0..1_000 {
            times.note(&layer, &path(n), time(n)).unwrap();
        }
        assert!(times.memory.len() < MEMORY_BYTES);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut next = 0;
        times
            .drain(|found, at| {
                assert_eq!((found, at), (&path(next)[..], time(next)));
                next += 1;
                io::Result::Ok(())
            })
            .unwrap();
        assert_eq!(next, 1_000);
    }
}
