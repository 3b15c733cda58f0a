//! The guest made ready: clock, randomness, disks, shares, files, network, parameters.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Component, Path, PathBuf};

use hull_proto::guest::{
    Disk, DiskName, GuestFile, MAX_ITEMS, MOUNTS_PATH, Prepare, Share, ShareKind,
};
use hull_sys::mount::{self, Attr, FsContext};
use hull_sys::{Errno, random};
use rustix::fs::{CWD, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::time::{ClockId, Timespec, clock_settime};

use super::{Trouble, network};

const DISKS: &str = "/sys/block";
const PARAMETERS: &str = "/proc/sys";
/// Options of 9p by which it works over virtio and as Linux wants it.
const NINE_P: [&str; 2] = ["trans=virtio", "version=9p2000.L"];
const SECOND: u64 = 1_000_000_000;

/// Does all of it; what is not worth failing for is told.
pub(super) fn run(plan: &Prepare) -> Result<Vec<String>, Trouble> {
    check_counts(plan)?;
    let mut warnings = Vec::new();
    if plan.clock_ns > 0 {
        set_clock(plan.clock_ns)?;
    }
    let seeds = plan.entropy.chunks(random::MAX_SEED);
    for seed in seeds.take(MAX_ITEMS) {
        if let Err(errno) = random::add_entropy(seed) {
            warnings.push(format!(
                "the guest's random numbers are not seeded: {errno}"
            ));
            break;
        }
    }
    if !plan.hostname.is_empty() {
        rustix::system::sethostname(plan.hostname.as_bytes())
            .map_err(Trouble::at("name the guest"))?;
    }
    for disk in &plan.disks {
        mount_disk(disk)?;
    }
    for share in &plan.shares {
        mount_share(share)?;
    }
    write_files(&plan.files)?;
    for folder in &plan.folders {
        make_folder(&checked(folder)?)?;
    }
    network::configure(&plan.interfaces)?;
    for (name, value) in &plan.sysctls {
        if let Err(error) = set_parameter(name, value) {
            warnings.push(format!("kernel parameter {name} of the guest: {error}"));
        }
    }
    Ok(warnings)
}

fn check_counts(plan: &Prepare) -> Result<(), Trouble> {
    let lengths = [
        plan.disks.len(),
        plan.shares.len(),
        plan.files.len(),
        plan.folders.len(),
        plan.interfaces.len(),
        plan.sysctls.len(),
    ];
    match lengths.iter().max() {
        Some(most) if *most > MAX_ITEMS => Err(Trouble(format!(
            "{most} items to prepare: there may be {MAX_ITEMS}"
        ))),
        _ => Ok(()),
    }
}

/// Sets the clock, ns since 1970.
pub(super) fn set_clock(ns: u64) -> Result<(), Trouble> {
    let time = Timespec {
        tv_sec: i64::try_from(ns / SECOND).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(ns % SECOND).unwrap_or_default(),
    };
    clock_settime(ClockId::Realtime, time).map_err(Trouble::at("set the clock"))
}

/// A path below the folder of mounts, or none.
fn checked(path: &Path) -> Result<PathBuf, Trouble> {
    let plain = path
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !plain || !path.starts_with(MOUNTS_PATH) {
        let text = format!("{} is not below {MOUNTS_PATH}", path.display());
        return Err(Trouble(text));
    }
    Ok(path.to_owned())
}

fn make_folder(path: &Path) -> Result<(), Trouble> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(Trouble::at(format!("make the folder {}", path.display())))
}

fn mount_disk(disk: &Disk) -> Result<(), Trouble> {
    let device = find_disk(&disk.name, Path::new(DISKS))?;
    let what = format!(
        "mount the disk {} ({}) on {}",
        device.display(),
        disk.kind,
        disk.target.display()
    );
    let options: Vec<&str> = disk.options.iter().map(String::as_str).collect();
    attach(
        &disk.kind,
        device.as_os_str().as_encoded_bytes(),
        &options,
        disk.read_only,
        &disk.target,
        &what,
    )
}

fn mount_share(share: &Share) -> Result<(), Trouble> {
    let mut options: Vec<&str> = share.options.iter().map(String::as_str).collect();
    let kind = match share.kind {
        ShareKind::VirtioFs => "virtiofs",
        ShareKind::NineP => {
            let has = |key: &str| options.iter().any(|option| option.starts_with(key));
            let missing: Vec<&str> = NINE_P
                .into_iter()
                .filter(|option| !has(option.split('=').next().unwrap_or_default()))
                .collect();
            options.extend(missing);
            "9p"
        }
    };
    let what = format!(
        "mount the share {} on {}",
        share.tag,
        share.target.display()
    );
    attach(
        kind,
        share.tag.as_bytes(),
        &options,
        share.read_only,
        &share.target,
        &what,
    )
}

fn attach(
    kind: &str,
    source: &[u8],
    options: &[&str],
    read_only: bool,
    target: &Path,
    what: &str,
) -> Result<(), Trouble> {
    let text = |bytes: &[u8]| CString::new(bytes).map_err(Trouble::at(what));
    let target = checked(target)?;
    make_folder(&target)?;
    let fs = FsContext::open(&text(kind.as_bytes())?).map_err(Trouble::at(what))?;
    // The kernel's own words say more than a number.
    let said = |errno| {
        let log = fs.log().map(|log| format!(" ({log})"));
        Trouble(format!("cannot {what}: {errno}{}", log.unwrap_or_default()))
    };
    fs.string(c"source", &text(source)?).map_err(said)?;
    for option in options {
        match option.split_once('=') {
            Some((key, value)) => fs.string(&text(key.as_bytes())?, &text(value.as_bytes())?),
            None => fs.flag(&text(option.as_bytes())?),
        }
        .map_err(said)?;
    }
    let mut attributes = Attr::empty();
    if read_only {
        fs.flag(c"ro").map_err(said)?;
        attributes |= Attr::MOUNT_ATTR_RDONLY;
    }
    let mounted = fs.mount(attributes).map_err(said)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place: OwnedFd =
        rustix::fs::open(&target, flags, Mode::empty()).map_err(Trouble::at(what))?;
    mount::attach(mounted.as_fd(), place.as_fd()).map_err(Trouble::at(what))
}

/// The device of a disk.
fn find_disk(name: &DiskName, disks: &Path) -> Result<PathBuf, Trouble> {
    let name = match name {
        DiskName::Device(name) => {
            if name.is_empty() || name.contains('/') || name.starts_with('.') {
                return Err(Trouble(format!("{name:?} is no name of a disk")));
            }
            name.clone()
        }
        DiskName::Serial(serial) => fs::read_dir(disks)
            .map_err(Trouble::at("list the disks"))?
            .flatten()
            .find(|entry| {
                let found = fs::read_to_string(entry.path().join("serial"));
                found.is_ok_and(|found| found.trim_end() == serial)
            })
            .and_then(|entry| entry.file_name().into_string().ok())
            .ok_or_else(|| Trouble(format!("the guest has no disk with serial {serial:?}")))?,
    };
    Ok(Path::new("/dev").join(name))
}

/// Writes files, in place where they are there.
pub(super) fn write_files(files: &[GuestFile]) -> Result<(), Trouble> {
    if files.len() > MAX_ITEMS {
        return Err(Trouble(format!("{} files at once", files.len())));
    }
    for file in files {
        write_file(&checked(&file.path)?, file)?;
    }
    Ok(())
}

/// A container may have folders here to write to: what it makes a link of is not followed.
fn write_file(path: &Path, file: &GuestFile) -> Result<(), Trouble> {
    let what = format!("write {}", path.display());
    let mode = Mode::from_raw_mode(file.mode & 0o7777);
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = || rustix::fs::openat2(CWD, path, flags, mode, ResolveFlags::NO_SYMLINKS);
    let opened = match (open(), path.parent()) {
        (Err(Errno::NOENT), Some(folder)) => {
            make_folder(folder)?;
            open()
        }
        (result, _) => result,
    };
    let opened = fs::File::from(opened.map_err(Trouble::at(&what))?);
    let is_file = opened.metadata().is_ok_and(|meta| meta.is_file());
    if !is_file {
        return Err(Trouble(format!("cannot {what}: it is no regular file")));
    }
    opened.set_len(0).map_err(Trouble::at(&what))?;
    std::io::Write::write_all(&mut &opened, file.content.as_bytes()).map_err(Trouble::at(&what))?;
    let (uid, gid) = (Uid::from_raw(file.uid), Gid::from_raw(file.gid));
    rustix::fs::fchown(&opened, Some(uid), Some(gid)).map_err(Trouble::at(&what))?;
    rustix::fs::fchmod(&opened, mode).map_err(Trouble::at(&what))
}

fn set_parameter(name: &str, value: &str) -> Result<(), String> {
    let path = name.replace('.', "/");
    let plain = path
        .split('/')
        .all(|part| !part.is_empty() && part != "." && part != "..");
    if !plain {
        return Err("it is no name of one".into());
    }
    fs::write(Path::new(PARAMETERS).join(path), value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checked_paths_are_below_the_folder_of_mounts() {
        for good in ["/hull/mnt", "/hull/mnt/a/b"] {
            assert!(checked(Path::new(good)).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "/hull",
            "/hull/mntx",
            "hull/mnt/a",
            "/hull/mnt/../etc",
            "/etc",
        ] {
            assert!(checked(Path::new(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn find_disk_by_serial_and_by_name() {
        let disks = tempfile::tempdir().expect("folder");
        for (name, serial) in [("vda", "layer-1\n"), ("vdb", "upper\n")] {
            fs::create_dir(disks.path().join(name)).expect("disk");
            fs::write(disks.path().join(name).join("serial"), serial).expect("serial");
        }
        let find = |name| find_disk(&name, disks.path());
        let device = find(DiskName::Serial("upper".into())).expect("found");
        assert_eq!(device, Path::new("/dev/vdb"));
        assert!(find(DiskName::Serial("none".into())).is_err());
        assert!(find(DiskName::Device("vdz".into())).is_ok());
        for bad in ["", "../sda", ".", "a/b"] {
            assert!(find(DiskName::Device(bad.into())).is_err(), "{bad}");
        }
    }

    #[test]
    fn write_file_in_place_and_never_through_a_link() {
        let folder = tempfile::tempdir().expect("folder");
        let own = fs::metadata(folder.path()).expect("own");
        let file = |content: &str| GuestFile {
            path: PathBuf::new(),
            mode: 0o640,
            uid: std::os::unix::fs::MetadataExt::uid(&own),
            gid: std::os::unix::fs::MetadataExt::gid(&own),
            content: content.into(),
        };
        let path = folder.path().join("a/b/hosts");
        write_file(&path, &file("a longer text")).expect("written");
        let before = fs::metadata(&path).expect("file");
        write_file(&path, &file("short")).expect("written again");
        assert_eq!(fs::read_to_string(&path).expect("read"), "short");
        let after = fs::metadata(&path).expect("file");
        let inode = std::os::unix::fs::MetadataExt::ino;
        assert_eq!(inode(&before), inode(&after));
        let mode = std::os::unix::fs::PermissionsExt::mode(&after.permissions());
        assert_eq!(mode & 0o7777, 0o640);
        let link = std::os::unix::fs::symlink;
        link(folder.path().join("a"), folder.path().join("link")).expect("link");
        link("hosts".into(), folder.path().join("a/b/other")).expect("link");
        for bad in ["link/b/hosts", "link/new", "a/b/other", "a/b"] {
            let path = folder.path().join(bad);
            assert!(write_file(&path, &file("x")).is_err(), "{bad}");
        }
        assert_eq!(fs::read_to_string(&path).expect("read"), "short");
    }

    #[test]
    fn run_too_many_items_is_refused_before_anything_is_done() {
        let plan = Prepare {
            folders: vec![PathBuf::from("/hull/mnt/x"); MAX_ITEMS + 1],
            ..Prepare::default()
        };
        assert!(run(&plan).is_err());
    }

    #[test]
    fn set_parameter_outside_is_refused() {
        for bad in ["", "a..b", "..", "../x", "kernel/../../x"] {
            assert!(set_parameter(bad, "1").is_err(), "{bad}");
        }
    }
}
