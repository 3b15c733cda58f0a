//! `export`: a directory tree becomes a tar. The tree is read by descriptors and no link in it is
//! followed.

use std::io::Write;
use std::os::fd::BorrowedFd;

use crate::copy::{CopyError, Pack, pack_content};

/// Writes everything below `root` to `out`, names sorted, hard links kept. Sockets are left out.
///
/// # Errors
/// See [`CopyError`].
pub fn export_tree(root: BorrowedFd<'_>, out: &mut dyn Write) -> Result<(), CopyError> {
    let how = Pack {
        called: b"",
        hidden: &|_, _| false,
    };
    pack_content(root, how, out).map(drop)
}
