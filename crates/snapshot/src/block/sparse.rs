//! Copies of files that are mostly holes, without copying zeros.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{SeekFrom, copy_file_range, fsync, ftruncate, ioctl_ficlone, seek};
use rustix::io::Errno;

/// Copies a file to a new one, which shares its blocks where the file system can do that, and has
/// the same holes where not. With `sync` it is on the disk afterwards.
pub(crate) fn copy(from: &Path, to: &Path, sync: bool) -> io::Result<()> {
    let source = File::open(from)?;
    let target = File::create_new(to)?;
    if ioctl_ficlone(&target, &source).is_err() {
        copy_data(&source, &target)?;
    }
    if sync {
        fsync(&target)?;
    }
    Ok(())
}

fn copy_data(source: &File, target: &File) -> io::Result<()> {
    let length = source.metadata()?.len();
    ftruncate(target, length)?;
    let mut at = 0;
    while let Some((mut start, end)) = next_data(source, at, length)? {
        let (mut from, mut to) = (start, start);
        while start < end {
            let wanted = usize::try_from(end - start).unwrap_or(usize::MAX);
            let copied =
                copy_file_range(source, Some(&mut from), target, Some(&mut to), wanted)? as u64;
            if copied == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            start += copied;
        }
        at = end;
    }
    Ok(())
}

/// The next stretch that is no hole.
fn next_data(file: &File, at: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= length {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    Ok(Some((start, seek(file, SeekFrom::Hole(start))?)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    #[test]
    fn copy_keeps_data_and_holes() {
        let tmp = tempfile::tempdir().unwrap();
        let (from, to) = (tmp.path().join("from"), tmp.path().join("to"));
        let file = File::create(&from).unwrap();
        file.set_len(1 << 30).unwrap();
        file.write_all_at(b"one", 10).unwrap();
        file.write_all_at(&[7; 100_000], 5 << 20).unwrap();
        copy(&from, &to, false).unwrap();
        let copy = File::open(&to).unwrap();
        let meta = copy.metadata().unwrap();
        assert_eq!(meta.len(), 1 << 30);
        assert!(meta.blocks() * 512 < 1 << 20, "{}", meta.blocks());
        let mut bytes = vec![0; 100_002];
        copy.read_exact_at(&mut bytes, (5 << 20) - 1).unwrap();
        assert_eq!(
            (bytes[0], bytes[1], bytes[100_000], bytes[100_001]),
            (0, 7, 7, 0)
        );
        copy.read_exact_at(&mut bytes[..3], 10).unwrap();
        assert_eq!(&bytes[..3], b"one");
        assert!(super::copy(&from, &to, false).is_err());
    }
}
