//! Kernels for tests: the real one, built when it is missing, and a tiny file that only looks like
//! one.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::paths;

/// Where the tiny kernel is loaded and entered.
const BASE: u64 = 0x10_0000;
const HEADER: u64 = 64;
const PART: u64 = 56;

/// The guest kernel, an uncompressed `vmlinux`. It is built by `cargo xtask guest-kernel` unless
/// that was done before, which takes minutes.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn guest_kernel() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(build).clone()
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = Command::new(cargo)
        .current_dir(paths::root())
        .args(["xtask", "guest-kernel"])
        // The test's own surroundings are those of another package.
        .env_remove("CARGO_MANIFEST_DIR")
        .env("CARGO_TARGET_DIR", paths::target())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("start cargo");
    assert!(out.status.success(), "cargo xtask guest-kernel failed");
    let path = PathBuf::from(String::from_utf8_lossy(&out.stdout).trim());
    assert!(path.is_file(), "no kernel at {}", path.display());
    path
}

/// A file that passes for a kernel: an ELF header, one part that is loaded, the PVH note, and a
/// banner with a version. It boots nothing.
#[must_use]
pub fn tiny(version: &str) -> Vec<u8> {
    elf(version, Some(BASE))
}

/// The same with a note that leads elsewhere, or without one.
#[must_use]
pub fn elf(version: &str, entry: Option<u64>) -> Vec<u8> {
    let mut note = Vec::new();
    if let Some(entry) = entry {
        for word in [4_u32, 8, 18] {
            note.extend(word.to_le_bytes());
        }
        note.extend(b"Xen\0");
        note.extend(entry.to_le_bytes());
    }
    let code = format!("\u{f4}Linux version {version} (hull@hull) #1\0").into_bytes();
    let note_at = HEADER + 2 * PART;
    let code_at = note_at + note.len() as u64;

    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend(2_u16.to_le_bytes());
    file.extend(62_u16.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    for word in [BASE, HEADER, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [HEADER as u16, PART as u16, 2, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for (kind, at, length) in [
        (4_u32, note_at, note.len() as u64),
        (1, code_at, code.len() as u64),
    ] {
        file.extend(kind.to_le_bytes());
        file.extend(5_u32.to_le_bytes());
        for word in [at, BASE, BASE, length, length, 4] {
            file.extend(word.to_le_bytes());
        }
    }
    file.extend(note);
    file.extend(code);
    file
}
