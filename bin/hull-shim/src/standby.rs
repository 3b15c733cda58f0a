//! Waiting for a sandbox: a shim that was started ahead of need.
//!
//! Starting a program costs about a millisecond (its C library asks the processor for its caches,
//! which a hypervisor answers slowly), a tenth of a container's whole start. So the daemon keeps a
//! few shims that have done all they can before they know their sandbox. Descriptor 3 is then a
//! packet socket on which one packet comes: the listening control socket, with the folder's path
//! as bytes. Its end without a packet means that there is no daemon any more.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// Longest path taken.
const MAX_PATH: usize = 4096;

/// Waits for the sandbox: its listening socket and folder; none if the daemon is gone.
pub(crate) fn wait(
    control: OwnedFd,
    placeholder: &Path,
) -> anyhow::Result<Option<(OwnedFd, PathBuf)>> {
    let shown = Shown::find(placeholder);
    let (mut path, mut fds) = (vec![0; MAX_PATH], Vec::new());
    let length = hull_sys::fdpass::receive(&control, &mut path, &mut fds)
        .context("cannot receive the sandbox")?;
    if length == 0 {
        return Ok(None);
    }
    path.truncate(length);
    let Some(listener) = fds.pop() else {
        bail!("the sandbox came without its socket");
    };
    let dir = PathBuf::from(OsString::from_vec(path));
    if let Some(shown) = shown {
        shown.replace(&dir);
    }
    Ok(Some((listener, dir)))
}

/// The folder among this process's arguments, as ps(1) shows them: whoever looks for the shim of
/// a container at night finds it by its id.
struct Shown {
    memory: File,
    address: u64,
    length: usize,
}

impl Shown {
    /// Where the placeholder stands in memory, if it can be found: it is no loss if not.
    fn find(placeholder: &Path) -> Option<Self> {
        let text = placeholder.as_os_str().as_encoded_bytes();
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // Field 48 of proc(5), arg_start; the name in parentheses, field 2, may hold anything.
        let start: u64 = stat.rsplit_once(") ")?.1.split(' ').nth(45)?.parse().ok()?;
        let arguments = std::fs::read("/proc/self/cmdline").ok()?;
        let at = arguments
            .windows(text.len().max(1))
            .position(|window| window == text)?;
        let memory = OpenOptions::new().write(true).open("/proc/self/mem").ok()?;
        Some(Self {
            memory,
            address: start + at as u64,
            length: text.len(),
        })
    }

    fn replace(self, dir: &Path) {
        let text = dir.as_os_str().as_encoded_bytes();
        if text.len() == self.length {
            let _ = self.memory.write_all_at(text, self.address);
        }
    }
}
