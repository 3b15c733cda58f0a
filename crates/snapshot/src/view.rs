//! Merged trees as detached mounts, which never appear in the host's mount table.
//!
//! ```text
//! kernel 6.7 and later   fsopen, one lowerdir+ per layer, fsmount
//! before                 a thread with a mount namespace of its own: mount(2), open_tree(CLONE)
//! ```

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hull_sys::clone3::Namespaces;
use hull_sys::features::Feature;
use hull_sys::mount::{
    Attr, FsContext, Propagation, clone_tree, mount_legacy, set_root_propagation,
};
use hull_sys::{Errno, ns};

use crate::SnapshotError;

/// mount(2) takes one page of options.
pub(crate) const MAX_OPTIONS: usize = 4095;

/// A view is read, not run from.
const VIEW_FLAGS: Attr = Attr::MOUNT_ATTR_RDONLY
    .union(Attr::MOUNT_ATTR_NOSUID)
    .union(Attr::MOUNT_ATTR_NODEV)
    .union(Attr::MOUNT_ATTR_NOEXEC);

/// A read-only overlay of trees, the uppermost first; at least two.
pub(crate) fn merged(trees: &[PathBuf]) -> Result<OwnedFd, SnapshotError> {
    let fail = |source: Errno, note| SnapshotError::Mount {
        layers: trees.len(),
        note,
        source: source.into(),
    };
    if !Feature::OverlayLowerAppend.is_present() {
        return by_option_string(trees).map_err(|source| fail(source, None));
    }
    match by_lowerdir_plus(trees) {
        // A kernel that only seemed to know the option says so here.
        Err((Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP, note)) => {
            by_option_string(trees).map_err(|source| fail(source, note))
        }
        made => made.map_err(|(source, note)| fail(source, note)),
    }
}

fn by_lowerdir_plus(trees: &[PathBuf]) -> Result<OwnedFd, (Errno, Option<String>)> {
    let context = FsContext::open(c"overlay").map_err(|e| (e, None))?;
    let fail = |e| (e, context.log());
    for tree in trees {
        context
            .string(c"lowerdir+", &c_string(tree)?)
            .map_err(fail)?;
    }
    context.mount(VIEW_FLAGS).map_err(fail)
}

/// For kernels without `lowerdir+`. The thread and its namespace are gone afterwards.
fn by_option_string(trees: &[PathBuf]) -> Result<OwnedFd, Errno> {
    let (base, options) = option_string(trees)?;
    let mount = move || -> Result<OwnedFd, Errno> {
        ns::unshare(Namespaces::MOUNT)?;
        set_root_propagation(Propagation::Private)?;
        // The thread's own directory: a mount namespace of one's own comes with one.
        rustix::process::chdir(&base)?;
        // Any directory serves as the place: nobody else sees this namespace.
        mount_legacy(
            Some(c"overlay"),
            c"/proc",
            Some(c"overlay"),
            hull_sys::mount::legacy_flags(u64::from(VIEW_FLAGS.bits())),
            Some(&options),
        )?;
        clone_tree(rustix::fs::CWD.as_fd(), c"/proc", false)
    };
    let thread = std::thread::Builder::new()
        .name("overlay-view".into())
        .spawn(mount)
        .map_err(|_| Errno::AGAIN)?;
    thread.join().unwrap_or(Err(Errno::IO))
}

/// The folder that all trees lie in, and the options with their names relative to it: mount(2)
/// takes one page of options.
pub(crate) fn option_string(trees: &[PathBuf]) -> Result<(PathBuf, CString), Errno> {
    let mut base = trees.first().and_then(|tree| tree.parent());
    while let Some(dir) = base
        && !trees
            .iter()
            .all(|tree| tree != dir && tree.starts_with(dir))
    {
        base = dir.parent();
    }
    let base = base.ok_or(Errno::INVAL)?;
    let mut options = b"lowerdir=".to_vec();
    for (number, tree) in trees.iter().enumerate() {
        if number > 0 {
            options.push(b':');
        }
        let name = tree.strip_prefix(base).unwrap_or(tree);
        for &byte in name.as_os_str().as_bytes() {
            if matches!(byte, b':' | b'\\' | b',') {
                options.push(b'\\');
            }
            options.push(byte);
        }
    }
    // The kernel would cut it off in the middle of a name.
    if options.len() > MAX_OPTIONS {
        return Err(Errno::TOOBIG);
    }
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    Ok((base.to_owned(), options))
}

pub(crate) fn c_string(path: &Path) -> Result<CString, (Errno, Option<String>)> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| {
        let note = io::Error::from(io::ErrorKind::InvalidFilename).to_string();
        (Errno::INVAL, Some(note))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn option_string_of_trees_is_relative_to_their_folder() {
        let trees = ["/v/l/a:b", "/v/l/c,d", "/v/m/e\\f"].map(PathBuf::from);
        let (base, options) = option_string(&trees).unwrap();
        assert_eq!(base, Path::new("/v"));
        assert_eq!(
            options.to_bytes(),
            br"lowerdir=l/a\:b:l/c\,d:m/e\\f".as_slice()
        );
    }

    #[test]
    fn option_string_longer_than_a_page_is_refused() {
        let trees = vec![PathBuf::from("/v").join("x".repeat(200)); 30];
        assert_eq!(option_string(&trees), Err(Errno::TOOBIG));
    }

    #[test]
    fn view_by_either_way_shows_the_merged_tree() {
        let tmp = tempfile::tempdir().unwrap();
        let trees: Vec<PathBuf> = ["a:b", "c,d"].iter().map(|n| tmp.path().join(n)).collect();
        for (number, tree) in trees.iter().enumerate() {
            fs::create_dir(tree).unwrap();
            fs::write(tree.join("who"), number.to_string()).unwrap();
            fs::write(tree.join(format!("only-{number}")), "x").unwrap();
        }
        for view in [
            by_lowerdir_plus(&trees).unwrap(),
            by_option_string(&trees).unwrap(),
        ] {
            let base = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&view));
            let read = |name: &str| fs::read_to_string(format!("{base}/{name}")).unwrap();
            assert_eq!(read("who"), "0");
            assert_eq!(read("only-1"), "x");
            assert!(fs::write(format!("{base}/new"), "x").is_err());
        }
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(tmp.path().to_str().unwrap()));
    }
}
