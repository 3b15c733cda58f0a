//! Whether a file is a kernel that a hypervisor can enter: a whole ELF file for x86-64 with the note
//! that names its PVH entry.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::KernelError;

const MAGIC: [u8; 4] = [0x7f, b'E', b'L', b'F'];
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const EXECUTABLE: u16 = 2;
const X86_64: u16 = 62;
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// More parts than any kernel has.
const MAX_PARTS: u16 = 64;
const LOAD: u32 = 1;
const NOTE: u32 = 4;
/// The notes of a kernel take a few hundred bytes.
const MAX_NOTES: u64 = 1 << 20;
/// Owner and kind of the note with the physical address of the 32-bit entry.
const OWNER: &[u8] = b"Xen\0";
const PHYS32_ENTRY: u32 = 18;
/// Stands before the version in a kernel's banner.
const BANNER: &[u8] = b"Linux version ";
const MAX_VERSION: usize = 64;
const CHUNK: usize = 1 << 20;

/// One program header.
#[derive(Debug, Clone, Copy)]
struct Part {
    kind: u32,
    offset: u64,
    physical: u64,
    in_file: u64,
    in_memory: u64,
}

/// Checks a kernel's file of `length` bytes.
///
/// # Errors
/// [`KernelError::Unfit`] with the reason.
pub fn check(file: &File, length: u64) -> Result<(), KernelError> {
    let unfit = |why: &str| Err(KernelError::Unfit(why.to_owned()));
    let header: [u8; HEADER] = match bytes(file, 0, length) {
        Ok(header) => header,
        Err(_) => return unfit("it is no ELF file"),
    };
    if header[..4] != MAGIC {
        return unfit("it is no ELF file (what is wanted is vmlinux, not the compressed bzImage)");
    }
    if header[4] != CLASS_64 || header[5] != LITTLE_ENDIAN || u16_at(&header, 18) != X86_64 {
        return unfit("it is not for x86-64");
    }
    if u16_at(&header, 16) != EXECUTABLE {
        return unfit("it is no executable ELF file");
    }
    let parts = parts(file, &header, length)?;
    let entry = parts
        .iter()
        .filter(|part| part.kind == NOTE)
        .find_map(|part| entry_of(file, *part));
    let Some(entry) = entry else {
        return unfit("it has no PVH note: configure it with CONFIG_PVH=y");
    };
    let loaded = |part: &&Part| {
        part.kind == LOAD
            && entry >= part.physical
            && entry - part.physical < part.in_file.min(part.in_memory)
    };
    if parts.iter().find(loaded).is_none() {
        return unfit("its PVH note leads out of what is loaded");
    }
    Ok(())
}

fn parts(file: &File, header: &[u8; HEADER], length: u64) -> Result<Vec<Part>, KernelError> {
    let unfit = |why: &str| KernelError::Unfit(why.to_owned());
    let at = u64_at(header, 32);
    let (size, count) = (u16_at(header, 54), u16_at(header, 56));
    if usize::from(size) != PROGRAM_HEADER || count == 0 || count > MAX_PARTS {
        return Err(unfit("its table of parts is damaged"));
    }
    let mut parts = Vec::with_capacity(usize::from(count));
    for number in 0..u64::from(count) {
        let raw: [u8; PROGRAM_HEADER] = at
            .checked_add(number * PROGRAM_HEADER as u64)
            .ok_or(())
            .and_then(|at| bytes(file, at, length))
            .map_err(|()| unfit("it is cut off in its table of parts"))?;
        let part = Part {
            kind: u32_at(&raw, 0),
            offset: u64_at(&raw, 8),
            physical: u64_at(&raw, 24),
            in_file: u64_at(&raw, 32),
            in_memory: u64_at(&raw, 40),
        };
        let whole = part
            .offset
            .checked_add(part.in_file)
            .is_some_and(|end| end <= length);
        if (part.kind == LOAD || part.kind == NOTE) && !whole {
            return Err(unfit("it is cut off"));
        }
        parts.push(part);
    }
    Ok(parts)
}

/// The entry that a part with notes names.
fn entry_of(file: &File, part: Part) -> Option<u64> {
    if part.in_file > MAX_NOTES {
        return None;
    }
    let mut notes = vec![0; usize::try_from(part.in_file).ok()?];
    file.read_exact_at(&mut notes, part.offset).ok()?;
    let mut rest = &notes[..];
    loop {
        let word = |at: usize| {
            let bytes = rest.get(at..at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let (owner, value) = (word(0)? as usize, word(4)? as usize);
        let kind = word(8)?;
        let value_at = 12_usize.checked_add(owner.checked_next_multiple_of(4)?)?;
        let end = value_at.checked_add(value)?;
        if kind == PHYS32_ENTRY && rest.get(12..12_usize.checked_add(owner)?)? == OWNER {
            let bytes = rest.get(value_at..end)?;
            return match bytes.len() {
                4 => Some(u64::from(u32::from_le_bytes(bytes.try_into().ok()?))),
                8 => Some(u64::from_le_bytes(bytes.try_into().ok()?)),
                _ => None,
            };
        }
        rest = rest.get(end.checked_next_multiple_of(4)?..)?;
    }
}

/// The version in the kernel's banner.
pub(crate) fn version_of(file: &File) -> Option<String> {
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    loop {
        let count = file.read_at(&mut buffer, at).ok()?;
        let chunk = buffer.get(..count)?;
        if chunk.len() <= BANNER.len() + MAX_VERSION {
            return find_version(chunk);
        }
        if let Some(version) = find_version(chunk) {
            return Some(version);
        }
        // The banner may lie across two chunks.
        at += (count - BANNER.len() - MAX_VERSION) as u64;
    }
}

fn find_version(chunk: &[u8]) -> Option<String> {
    let found = chunk.windows(BANNER.len()).enumerate();
    found
        .filter(|(_, window)| *window == BANNER)
        .find_map(|(at, _)| {
            let rest = chunk.get(at + BANNER.len()..)?;
            let end = rest.iter().take(MAX_VERSION).position(|&b| b == b' ')?;
            let version = std::str::from_utf8(rest.get(..end)?).ok()?;
            let digit = version.starts_with(|c: char| c.is_ascii_digit());
            let plain = version.chars().all(|c| c.is_ascii_graphic());
            (digit && plain).then(|| version.to_owned())
        })
}

fn bytes<const N: usize>(file: &File, at: u64, length: u64) -> Result<[u8; N], ()> {
    let mut bytes = [0; N];
    if at.checked_add(N as u64).is_none_or(|end| end > length) {
        return Err(());
    }
    file.read_exact_at(&mut bytes, at).map_err(|_| ())?;
    Ok(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

/// The offsets are constants within arrays of a known length.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..at + N)
        .and_then(|part| part.try_into().ok())
        .unwrap_or([0; N])
}
