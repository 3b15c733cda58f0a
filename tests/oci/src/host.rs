//! What this machine has: cases ask for the right answer in each place.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Whether there is one hierarchy of control groups, with all controllers.
#[must_use]
pub fn is_pure_v2() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| Path::new("/sys/fs/cgroup/cgroup.controllers").exists())
}

/// Whether a controller of control groups is there, in whichever hierarchy.
#[must_use]
pub fn has_controller(name: &str) -> bool {
    let unified = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(|root| {
        let file = Path::new(root).join("cgroup.controllers");
        fs::read_to_string(file).unwrap_or_default()
    });
    let v1 = fs::read_to_string("/proc/mounts").unwrap_or_default();
    unified
        .iter()
        .any(|list| list.split_whitespace().any(|one| one == name))
        || v1.lines().any(|line| {
            let mut words = line.split(' ').skip(2);
            words.next() == Some("cgroup")
                && words
                    .next()
                    .is_some_and(|options| options.split(',').any(|one| one == name))
        })
}

/// Whether AppArmor is on.
#[must_use]
pub fn has_apparmor() -> bool {
    let text = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    text.is_ok_and(|text| text.starts_with('Y'))
}

/// Whether SELinux is on.
#[must_use]
pub fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// The numbers of a disk that can be throttled, as `8:0`.
#[must_use]
pub fn disk() -> Option<(u64, u64)> {
    disks().find_map(|path| path.join("device").exists().then(|| numbers(&path))?)
}

/// The numbers of a disk that root may read here.
#[must_use]
pub fn readable_disk() -> Option<(u64, u64)> {
    disks().find_map(|path| {
        let name = Path::new("/dev").join(path.file_name()?);
        fs::File::open(name).ok()?;
        numbers(&path)
    })
}

fn disks() -> impl Iterator<Item = PathBuf> {
    let mut all: Vec<_> = fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    all.sort();
    all.into_iter()
}

fn numbers(path: &Path) -> Option<(u64, u64)> {
    let text = fs::read_to_string(path.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
