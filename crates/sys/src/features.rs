//! What the running kernel can do, probed once and handed on as a plain value.
//!
//! A value, not a global: tests pass a set with bits taken out to walk the fallbacks that a
//! kernel 5.10 would need.

use std::os::fd::AsFd;

use rustix::mount::{FsOpenFlags, fsconfig_set_string, fsopen};

use crate::{Errno, check};

/// A kernel ability that came after 5.10, or that a sandboxed host may refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Feature {
    /// `clone3` with `CLONE_INTO_CGROUP` (5.7).
    CloneIntoCgroup = 1,
    /// `mount_setattr` (5.12).
    MountSetattr = 2,
    /// overlayfs option `lowerdir+` (6.7).
    OverlayLowerAppend = 4,
    /// `cgroup.kill` (5.14).
    CgroupKill = 8,
    /// `close_range` with `CLOSE_RANGE_CLOEXEC` (5.11).
    CloseRangeCloexec = 16,
}

const ALL: [Feature; 5] = [
    Feature::CloneIntoCgroup,
    Feature::MountSetattr,
    Feature::OverlayLowerAppend,
    Feature::CgroupKill,
    Feature::CloseRangeCloexec,
];

/// A set of [`Feature`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features(u32);

impl Feature {
    /// Asks the kernel for this one.
    #[must_use]
    pub fn is_present(self) -> bool {
        present(self)
    }
}

impl Features {
    /// Asks the kernel. A handful of system calls without side effects: about 20 µs.
    #[must_use]
    pub fn probe() -> Self {
        let mut set = Self(0);
        for feature in ALL {
            if present(feature) {
                set.0 |= feature as u32;
            }
        }
        set
    }

    /// What kernel 5.10 offers: the oldest that is supported.
    #[must_use]
    pub fn oldest() -> Self {
        Self(Feature::CloneIntoCgroup as u32)
    }

    /// The same set with one feature taken out.
    #[must_use]
    pub fn without(self, feature: Feature) -> Self {
        Self(self.0 & !(feature as u32))
    }

    /// Whether the feature may be used.
    #[must_use]
    pub fn has(self, feature: Feature) -> bool {
        self.0 & feature as u32 != 0
    }
}

/// Whether a kernel that calls itself `release` may have the feature. Only asked of what a kernel
/// without it seems to accept.
fn release_allows(feature: Feature, release: &[u8]) -> bool {
    match feature {
        Feature::OverlayLowerAppend => version(release) >= Some((6, 7)),
        _ => true,
    }
}

/// The first two numbers of a release such as `6.1.0-56-cloud-amd64` or `6.7-rc1`.
fn version(release: &[u8]) -> Option<(u32, u32)> {
    let text = std::str::from_utf8(release).ok()?;
    let (major, rest) = text.split_once('.')?;
    let end = rest
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(rest.len());
    Some((major.parse().ok()?, rest.get(..end)?.parse().ok()?))
}

/// Before 6.5 overlayfs took any option here and refused it at the mount: a kernel that takes
/// nonsense says nothing by taking `lowerdir+`.
fn lower_append_is_known(takes: impl Fn(&str) -> bool) -> bool {
    takes("lowerdir+") && !takes("hull-no-such-option")
}

fn present(feature: Feature) -> bool {
    match feature {
        // There is no call without effect that shows it; every kernel since 5.7 has it, and
        // clone3 itself falls back on EINVAL.
        Feature::CloneIntoCgroup => true,
        Feature::MountSetattr => {
            // A size of zero is EINVAL where the call exists, ENOSYS where not.
            // SAFETY: the kernel rejects the size before it reads the pointer.
            let result = check(unsafe {
                libc::syscall(
                    libc::SYS_mount_setattr,
                    -1,
                    c"".as_ptr(),
                    0,
                    std::ptr::null::<u8>(),
                    0usize,
                )
            });
            matches!(result, Err(Errno::INVAL))
        }
        Feature::OverlayLowerAppend => {
            release_allows(feature, rustix::system::uname().release().to_bytes())
                && lower_append_is_known(|key| {
                    fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
                        .and_then(|fs| fsconfig_set_string(fs.as_fd(), key, "/"))
                        .is_ok()
                })
        }
        // The file is looked for when it is needed.
        Feature::CgroupKill => true,
        Feature::CloseRangeCloexec => {
            // SAFETY: the range holds no descriptor, so none changes.
            check(unsafe {
                libc::syscall(
                    libc::SYS_close_range,
                    u32::MAX,
                    u32::MAX,
                    libc::CLOSE_RANGE_CLOEXEC,
                )
            })
            .is_ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_feature_taken_out_says_no() {
        let all = Features(u32::MAX);
        let less = all.without(Feature::MountSetattr);
        assert!(all.has(Feature::MountSetattr) && !less.has(Feature::MountSetattr));
        assert!(less.has(Feature::CgroupKill));
    }

    #[test]
    fn version_of_distribution_releases_is_their_first_two_numbers() {
        for (release, expected) in [
            ("6.1.0-56-cloud-amd64", Some((6, 1))),
            ("5.10.0-8-amd64", Some((5, 10))),
            ("6.7-rc1", Some((6, 7))),
            ("6.18.44", Some((6, 18))),
            ("7.0", Some((7, 0))),
            ("6", None),
            ("6.x", None),
            ("", None),
        ] {
            assert_eq!(version(release.as_bytes()), expected, "{release}");
        }
    }

    #[test]
    fn lower_append_before_6_7_is_not_chosen_by_release() {
        let may = |release: &str| release_allows(Feature::OverlayLowerAppend, release.as_bytes());
        for old in [
            "5.10.0",
            "5.15.0-91-generic",
            "6.1.0-56-cloud-amd64",
            "6.6.30",
            "odd",
        ] {
            assert!(!may(old), "{old}");
        }
        for new in ["6.7.0", "6.7-rc1", "6.12.9+deb13", "6.18.44", "7.0.1"] {
            assert!(may(new), "{new}");
        }
        assert!(release_allows(Feature::CgroupKill, b"5.10.0"));
    }

    #[test]
    fn lower_append_of_a_kernel_that_takes_anything_is_not_believed() {
        assert!(!lower_append_is_known(|_| true));
        assert!(!lower_append_is_known(|_| false));
        assert!(lower_append_is_known(|key| key == "lowerdir+"));
    }

    #[test]
    fn probe_this_kernel_answers_the_same_twice() {
        assert_eq!(Features::probe(), Features::probe());
    }
}
