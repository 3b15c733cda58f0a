//! Tars: read with every byte accounted for, and unpacked into a folder that nothing leaves.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use hull_image::limits::Limits;
use hull_image::split::SplitReader;
use hull_image::tar::{Tap, TarReader};
use hull_image::unpack::{Expectation, unpack_layer};

/// Most bytes of one input's tar: a longer one tells nothing more.
const MAX_BYTES: u64 = 1 << 20;
/// Size of a block.
const BLOCK: usize = 512;
/// How gzip begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Most entries unpacked.
const MAX_ENTRIES: u64 = 200;

/// Puts together again what a reader took apart.
#[derive(Default)]
struct Whole(Vec<u8>);

impl Tap for Whole {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// The same with the checksum of each header right: without, nearly every change would be refused
/// for that alone.
fn sealed(data: &[u8]) -> Vec<u8> {
    let mut tar = data.to_vec();
    let mut at = 0;
    while let Some(block) = tar.get_mut(at..at + BLOCK) {
        if let Some(field) = block.get_mut(148..156) {
            field.fill(b' ');
        }
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        if let Some(field) = block.get_mut(148..156) {
            field.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let size = block.get(124..136).unwrap_or_default();
        let size: String = size.iter().map(|&byte| char::from(byte)).collect();
        let size = usize::from_str_radix(size.trim_matches(['\0', ' ']), 8).unwrap_or(0);
        at += BLOCK + size.min(data.len()).next_multiple_of(BLOCK);
    }
    tar
}

/// A tar that is read: headers and payloads together are its bytes, and sparse files keep what
/// they promise.
pub(crate) fn tar(data: &[u8]) {
    read(data);
    read(&sealed(data));
}

fn read(data: &[u8]) {
    let mut reader = TarReader::new(data, Whole::default());
    loop {
        let entry = match reader.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => {
                let (_, whole) = reader.into_parts();
                assert!(whole.0 == data, "headers and payloads are not the tar");
                return;
            }
            Err(_) => break,
        };
        assert!(entry.mode & !0o7777 == 0);
        if let Some(map) = &entry.sparse {
            let mut end = 0;
            let mut sum = 0;
            for (at, len) in &map.fragments {
                assert!(*at >= end && *len > 0, "{map:?}");
                (end, sum) = (at + len, sum + len);
            }
            assert!(end <= map.real_size && sum == entry.size, "{map:?}");
        }
        let mut room = entry.size;
        while let Ok(chunk) = reader.payload() {
            let chunk = chunk.to_vec();
            if chunk.is_empty() {
                break;
            }
            room = room.checked_sub(chunk.len() as u64).expect("payload");
            reader.consume(chunk.len());
            let _ = reader.tap_mut().raw(&chunk);
        }
    }
    let done = usize::try_from(reader.offset()).expect("an offset");
    let (_, whole) = reader.into_parts();
    assert!(done <= data.len());
    assert!(data.starts_with(&whole.0), "what was read is not the tar");
}

/// A layer that is unpacked: it stays in its folder, and gives back the bytes it came from.
pub(crate) fn unpack(data: &[u8]) {
    unpack_once(data);
    if !data.starts_with(&GZIP) {
        unpack_once(&sealed(data));
    }
}

fn unpack_once(data: &[u8]) {
    // In memory where that is possible.
    let place = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a folder for layers");
    let outside = place.path().join("outside");
    fs::create_dir(&outside).expect("a folder outside");
    fs::write(outside.join("secret"), "mine").expect("a file outside");
    let layer = place.path().join("layer");
    fs::create_dir(&layer).expect("a folder for the layer");
    unpack_in(data, &layer);
    let names = |dir: &Path| -> Vec<_> {
        let entries = fs::read_dir(dir).expect("list");
        let mut names: Vec<_> = entries.map(|e| e.expect("entry").file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(place.path()), ["layer", "outside"]);
    assert_eq!(names(&outside), ["secret"]);
    let secret = fs::read(outside.join("secret")).expect("read");
    assert_eq!(secret, b"mine");
    for name in names(&layer) {
        let known = ["fs", "split.zst", "odd"];
        assert!(known.iter().any(|known| *known == name), "{name:?}");
    }
    place.close().expect("remove the layer");
}

fn unpack_in(data: &[u8], layer: &Path) {
    let limits = Limits {
        max_layer_bytes: MAX_BYTES,
        max_layer_entries: MAX_ENTRIES,
        ..Limits::default()
    };
    let dir = File::open(layer).expect("open the folder");
    let mut input = data;
    let expect = Expectation::default();
    let Ok(unpacked) = unpack_layer(&mut input, dir.as_fd(), expect, &limits, &|_| {}) else {
        return;
    };
    assert!(unpacked.entries <= MAX_ENTRIES);
    let moved = unpacked.moved.iter().copied().collect();
    let mut whole = Vec::new();
    SplitReader::open(dir.as_fd(), moved)
        .and_then(|mut reader| reader.read_to_end(&mut whole))
        .expect("the layer gives its tar back");
    assert_eq!(hull_image::hash::digest_of(&whole), unpacked.diff_id);
    assert_eq!(whole.len() as u64, unpacked.tar_bytes);
}
