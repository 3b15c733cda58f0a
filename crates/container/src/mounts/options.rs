//! Options of mounts: attributes, propagation, and how each kernel is told.

use std::os::fd::{AsFd, BorrowedFd};

use hull_proto::plan::{AccessTime, MountOptions};
use hull_sys::features::{Feature, Features};
use hull_sys::mount::{self, Attr, Propagation, SetAttr};

use super::fd_path::FdPath;
use crate::LaunchError;

/// All bits that say when access times are written: they change together.
const ACCESS_TIMES: u64 = 0x70;
/// What is taken off a bind that is to have what is asked for and no more.
const TAKEN_OFF: u64 = libc::MOUNT_ATTR_NOSUID
    | libc::MOUNT_ATTR_NODEV
    | libc::MOUNT_ATTR_NOEXEC
    | libc::MOUNT_ATTR_NODIRATIME
    | libc::MOUNT_ATTR_NOSYMFOLLOW;
/// Most changes of propagation of one mount.
const MAX_SPREADS: usize = 4;

/// What is set on a new mount.
pub(crate) fn attributes(options: &MountOptions) -> Attr {
    let mut attributes = Attr::from_bits_retain(u32::try_from(options.set).unwrap_or_default());
    for (set, attribute) in [
        (options.read_only, Attr::MOUNT_ATTR_RDONLY),
        (options.nosuid, Attr::MOUNT_ATTR_NOSUID),
        (options.nodev, Attr::MOUNT_ATTR_NODEV),
        (options.noexec, Attr::MOUNT_ATTR_NOEXEC),
        (
            options.access_time == AccessTime::Strict,
            Attr::MOUNT_ATTR_STRICTATIME,
        ),
        (
            options.access_time == AccessTime::Never,
            Attr::MOUNT_ATTR_NOATIME,
        ),
    ] {
        if set {
            attributes |= attribute;
        }
    }
    attributes
}

/// Changes of propagation in order, each for the mount or for all below it, too.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spreads([Option<(Propagation, bool)>; MAX_SPREADS]);

impl Spreads {
    /// Of words with commas between them.
    pub(crate) fn parse(text: &str) -> Result<Self, LaunchError> {
        let wrong = || LaunchError::Plan(format!("unknown mount propagation {text:?}"));
        let mut spreads = Self::default();
        let mut places = spreads.0.iter_mut();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            let (propagation, all) = match word {
                "private" => (Propagation::Private, false),
                "rprivate" => (Propagation::Private, true),
                "slave" => (Propagation::Slave, false),
                "rslave" => (Propagation::Slave, true),
                "shared" => (Propagation::Shared, false),
                "rshared" => (Propagation::Shared, true),
                "unbindable" => (Propagation::Unbindable, false),
                "runbindable" => (Propagation::Unbindable, true),
                _ => return Err(wrong()),
            };
            *places.next().ok_or_else(wrong)? = Some((propagation, all));
        }
        Ok(spreads)
    }

    fn of_bind(text: &str) -> Result<Self, LaunchError> {
        Self::parse(if text.is_empty() { "rprivate" } else { text })
    }

    fn is_none(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// On a detached or an attached mount; `has_below` if there may be others on it.
    fn set(&self, mount: BorrowedFd<'_>, has_below: bool) -> hull_sys::Result<()> {
        for (propagation, all) in self.0.iter().flatten() {
            let change = SetAttr {
                propagation: Some(*propagation),
                ..SetAttr::default()
            };
            mount::set_attr(mount, *all && has_below, &change)?;
        }
        Ok(())
    }

    /// On an attached mount, by mount(2).
    pub(crate) fn set_by_path(&self, path: &std::ffi::CStr) -> hull_sys::Result<()> {
        for (propagation, all) in self.0.iter().flatten() {
            let flags = propagation.bits() | if *all { libc::MS_REC } else { 0 };
            mount::mount_legacy(None, path, None, flags, None)?;
        }
        Ok(())
    }
}

/// Attributes to change: those of the mount and those of all below it.
#[derive(Debug, Clone, Copy, Default)]
struct Change {
    set: u64,
    clear: u64,
    /// Cleared where the kernel lets it.
    taken_off: u64,
    recursive_set: u64,
    recursive_clear: u64,
}

fn with_access_times(set: u64, clear: u64) -> u64 {
    let clear = clear & !(set & !ACCESS_TIMES);
    if (set | clear) & ACCESS_TIMES != 0 {
        clear | ACCESS_TIMES
    } else {
        clear
    }
}

impl Change {
    fn of(options: &MountOptions) -> Self {
        let set = u64::from(attributes(options).bits());
        Self {
            set,
            clear: with_access_times(set, options.clear),
            taken_off: if options.exact { TAKEN_OFF & !set } else { 0 },
            ..Self::below(options)
        }
    }

    fn below(options: &MountOptions) -> Self {
        let (set, clear) = (options.recursive_set, options.recursive_clear);
        Self {
            recursive_set: set,
            recursive_clear: with_access_times(set, clear),
            ..Self::default()
        }
    }

    fn is_recursive(&self) -> bool {
        self.recursive_set | self.recursive_clear != 0
    }

    fn apply(&self, mount: BorrowedFd<'_>, all: bool) -> hull_sys::Result<()> {
        let change = |set, clear| SetAttr {
            set,
            clear,
            ..SetAttr::default()
        };
        if self.taken_off != 0 {
            let whole = change(self.set, self.clear | self.taken_off);
            match mount::set_attr(mount, all, &whole) {
                // The source's options are locked in this user namespace.
                Err(hull_sys::Errno::PERM) if self.set | self.clear == 0 => {}
                Err(hull_sys::Errno::PERM) => {
                    mount::set_attr(mount, all, &change(self.set, self.clear))?;
                }
                result => result?,
            }
        } else if self.set | self.clear != 0 {
            mount::set_attr(mount, all, &change(self.set, self.clear))?;
        }
        if self.is_recursive() {
            let below = change(self.recursive_set, self.recursive_clear);
            mount::set_attr(mount, true, &below)?;
        }
        Ok(())
    }
}

/// What is left to do once a mount is attached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Late {
    change: Change,
    spreads: Spreads,
    by_path: bool,
}

impl Late {
    /// Of a new file system.
    pub(crate) fn of_fresh(
        options: &MountOptions,
        features: Features,
    ) -> Result<Option<Self>, LaunchError> {
        let late = Self {
            change: Change::below(options),
            spreads: Spreads::parse(&options.propagation)?,
            by_path: !features.has(Feature::MountSetattr),
        };
        late.check()?;
        Ok((late.change.is_recursive() || !late.spreads.is_none()).then_some(late))
    }

    fn check(&self) -> Result<(), LaunchError> {
        if self.by_path && self.change.is_recursive() {
            let text = "recursive options of mounts (such as rro) need Linux 5.12";
            return Err(LaunchError::Plan(text.to_owned()));
        }
        Ok(())
    }

    /// Runs in the child. By mount(2) on the descriptor: `/proc` is still the host's.
    pub(crate) fn apply(&self, mount: BorrowedFd<'_>) -> hull_sys::Result<()> {
        if !self.by_path {
            self.spreads.set(mount, true)?;
            return self.change.apply(mount, false);
        }
        let path = FdPath::new(mount);
        self.spreads.set_by_path(path.as_c_str()?)?;
        let change = &self.change;
        if change.set | change.clear | change.taken_off != 0 {
            remount(mount, change.set, change.clear)?;
        }
        Ok(())
    }
}

/// A remount sets all options anew: those that are and are not cleared are kept.
fn remount(mount: BorrowedFd<'_>, set: u64, clear: u64) -> hull_sys::Result<()> {
    let kept = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let now = rustix::fs::fstatvfs(mount)?.f_flag.bits() & kept;
    let path = FdPath::new(mount);
    let flags = (now & !mount::legacy_flags(clear)) | mount::legacy_flags(set);
    let flags = flags | libc::MS_REMOUNT | libc::MS_BIND;
    mount::mount_legacy(None, path.as_c_str()?, None, flags, None)
}

/// Gives the copy of a tree its options; what cannot be done yet is returned.
pub(crate) fn set_on_bind(
    tree: impl AsFd,
    options: &MountOptions,
    recursive: bool,
    features: Features,
    fail: impl Fn(hull_sys::Errno) -> LaunchError,
) -> Result<Option<Late>, LaunchError> {
    let late = Late {
        change: Change::of(options),
        spreads: Spreads::of_bind(&options.propagation)?,
        by_path: !features.has(Feature::MountSetattr),
    };
    late.check()?;
    if late.by_path {
        return Ok(Some(late));
    }
    let tree = tree.as_fd();
    late.spreads.set(tree, recursive).map_err(&fail)?;
    let all = recursive && options.recursive_read_only;
    late.change.apply(tree, all).map_err(&fail)?;
    Ok(None)
}

/// Makes an attached mount read-only, by whichever call the kernel has. Runs in the child.
pub(crate) fn set_read_only(mount: BorrowedFd<'_>, features: Features) -> hull_sys::Result<()> {
    if !features.has(Feature::MountSetattr) {
        return remount(mount, libc::MOUNT_ATTR_RDONLY, 0);
    }
    let change = SetAttr {
        set: libc::MOUNT_ATTR_RDONLY,
        ..SetAttr::default()
    };
    mount::set_attr(mount, false, &change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_words_become_changes_in_order_and_others_are_refused() {
        let spreads = Spreads::parse("rslave,shared").expect("words");
        assert_eq!(
            spreads.0,
            [
                Some((Propagation::Slave, true)),
                Some((Propagation::Shared, false)),
                None,
                None
            ]
        );
        assert!(Spreads::parse("").expect("none").is_none());
        for bad in ["sahred", "shared,", "private,private,private,private,slave"] {
            assert_eq!(Spreads::parse(bad).is_err(), bad != "shared,", "{bad}");
        }
    }

    #[test]
    fn of_options_access_times_are_cleared_as_a_whole() {
        let options = MountOptions {
            access_time: AccessTime::Never,
            clear: libc::MOUNT_ATTR_NOSUID,
            recursive_clear: libc::MOUNT_ATTR_NOATIME,
            ..MountOptions::default()
        };
        let change = Change::of(&options);
        assert_eq!(change.set, libc::MOUNT_ATTR_NOATIME);
        assert_eq!(change.clear, libc::MOUNT_ATTR_NOSUID | ACCESS_TIMES);
        assert_eq!(change.recursive_clear, ACCESS_TIMES);
        assert_eq!(Change::of(&MountOptions::default()).clear, 0);
    }

    #[test]
    fn of_exact_options_take_off_what_is_not_asked_for() {
        let options = MountOptions {
            nosuid: true,
            exact: true,
            ..MountOptions::default()
        };
        let change = Change::of(&options);
        assert_eq!(change.taken_off & libc::MOUNT_ATTR_NOSUID, 0);
        assert_ne!(change.taken_off & libc::MOUNT_ATTR_NODEV, 0);
        assert_eq!(change.taken_off & libc::MOUNT_ATTR_RDONLY, 0);
    }

    #[test]
    fn of_fresh_recursive_options_need_mount_setattr() {
        let options = MountOptions {
            recursive_set: libc::MOUNT_ATTR_RDONLY,
            ..MountOptions::default()
        };
        let error = Late::of_fresh(&options, Features::oldest()).expect_err("refused");
        assert!(error.to_string().contains("5.12"), "{error}");
        let none = Late::of_fresh(&MountOptions::default(), Features::oldest());
        assert!(none.expect("plain").is_none());
    }
}
