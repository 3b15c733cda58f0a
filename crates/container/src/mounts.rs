//! The mounts of a plan: sources prepared by the parent, attached in order by the child.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_proto::plan::{AccessTime, MountKind, MountOptions, PlanMount};
use hull_sys::features::{Feature, Features};
use hull_sys::mount::{self, Attr, FsContext, Propagation, SetAttr};
use hull_sys::{Errno, path};

use crate::cgroup::CgroupView;
use crate::error::prepare;
use crate::report::{At, Failed, Step};
use crate::rootfs::{c_path, c_string, open_path};
use crate::target::Target;
use crate::{Host, LaunchError};

/// Files of procfs over which a mount is harmless (what lxcfs provides, as with runc).
const OVER_PROC: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Where the source comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A detached mount of the parent's.
    Detached(OwnedFd),
    /// Made by the child, in its namespaces.
    Proc,
    Sysfs,
    Mqueue,
    Cgroup2,
    /// A path of the host: cloned by the child where the parent may not.
    Path(Box<BindByPath>),
    /// Any other file system: type, then options in order.
    Fresh(CString, Vec<(CString, Option<CString>)>),
    /// v1: a tmpfs with a bind in each folder.
    CgroupV1(CgroupView),
}

/// A bind that the child makes in its own mount namespace.
#[derive(Debug)]
pub(crate) struct BindByPath {
    path: CString,
    recursive: bool,
    options: MountOptions,
    features: Features,
}

impl BindByPath {
    fn make(&self) -> hull_sys::Result<OwnedFd> {
        let opened = open_c_path(&self.path)?;
        let tree = mount::clone_tree(opened.as_fd(), c"", self.recursive)?;
        // Nothing is made of the error but its number: that of an empty text takes no memory.
        let fail = |source| LaunchError::Prepare {
            action: String::new(),
            source,
        };
        match set_bind_options(&tree, &self.options, self.recursive, self.features, fail) {
            Ok(_) => Ok(tree),
            Err(LaunchError::Prepare { source, .. }) => Err(source),
            Err(_) => Err(Errno::INVAL),
        }
    }
}

fn open_c_path(path: &std::ffi::CStr) -> hull_sys::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// A mount ready to be attached.
#[derive(Debug)]
pub(crate) struct PreparedMount {
    pub(crate) target: Target,
    pub(crate) source: Source,
    is_dir: bool,
    attributes: Attr,
    may_cover_proc: bool,
    /// Kernels before 5.12: `MS_*` for a remount and for the propagation, after attaching.
    late: Option<Late>,
}

#[derive(Debug, Clone, Copy)]
struct Late {
    remount: u64,
    propagation: u64,
}

pub(crate) fn attributes(options: &MountOptions) -> Attr {
    let mut attributes = Attr::empty();
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

fn propagation(text: &str) -> Result<(Propagation, bool), LaunchError> {
    Ok(match text {
        "" | "rprivate" => (Propagation::Private, true),
        "private" => (Propagation::Private, false),
        "slave" => (Propagation::Slave, false),
        "rslave" => (Propagation::Slave, true),
        "shared" => (Propagation::Shared, false),
        "rshared" => (Propagation::Shared, true),
        other => {
            return Err(LaunchError::Plan(format!(
                "unknown mount propagation {other:?}"
            )));
        }
    })
}

impl PreparedMount {
    /// Prepares a mount of the plan. `cgroup` says how the control group is shown.
    pub(crate) fn prepare(
        mount: &PlanMount,
        host: &Host,
        cgroup_views: &[hull_sys::cgroup::View],
        descriptors: &[OwnedFd],
    ) -> Result<Self, LaunchError> {
        let target = Target::new(&mount.target)?;
        if target.is_root() {
            return Err(LaunchError::Plan("cannot mount over the root".to_owned()));
        }
        let attributes = attributes(&mount.options);
        let mut is_dir = true;
        let mut late = None;
        let source = match &mount.kind {
            MountKind::Bind { source, recursive } => {
                let fail = |errno| LaunchError::Source {
                    path: source.clone(),
                    target: target.as_str().to_owned(),
                    source: errno,
                };
                let opened = open_path(source).map_err(fail)?;
                is_dir = path::is_dir(&opened).map_err(fail)?;
                let tree = mount::clone_tree(opened.as_fd(), c"", *recursive).map_err(fail)?;
                late = set_bind_options(&tree, &mount.options, *recursive, host.features, fail)?;
                Source::Detached(tree)
            }
            MountKind::Descriptor { fd } => {
                let given = descriptors
                    .get(*fd)
                    .and_then(|given| given.try_clone().ok());
                let given = given.ok_or_else(|| {
                    LaunchError::Plan(format!("no descriptor {fd} was sent for {}", mount.target))
                })?;
                Source::Detached(given)
            }
            MountKind::Tmpfs { data } => Source::Detached(tmpfs(data, attributes)?),
            MountKind::Devpts => Source::Detached(devpts(attributes)?),
            MountKind::Proc => Source::Proc,
            MountKind::Sysfs => Source::Sysfs,
            MountKind::Mqueue => Source::Mqueue,
            MountKind::Filesystem { kind, source, data } => {
                let mut settings = vec![(c_string("source")?, Some(c_string(source.as_str())?))];
                for option in data {
                    settings.push(match option.split_once('=') {
                        Some((key, value)) => (c_string(key)?, Some(c_string(value)?)),
                        None => (c_string(option.as_str())?, None),
                    });
                }
                Source::Fresh(c_string(kind.as_str())?, settings)
            }
            MountKind::Cgroup if host.hierarchies.is_v2() => Source::Cgroup2,
            MountKind::Cgroup => Source::CgroupV1(CgroupView::prepare(
                cgroup_views,
                mount.options.read_only,
                host.features,
            )?),
        };
        let may_cover_proc = OVER_PROC.contains(&target.as_str()) || matches!(source, Source::Proc);
        Ok(Self {
            target,
            source,
            is_dir,
            attributes,
            may_cover_proc,
            late,
        })
    }

    /// A bind for a parent that may not mount: the child does it.
    pub(crate) fn bind_by_path(mount: &PlanMount, features: Features) -> Result<Self, LaunchError> {
        let target = Target::new(&mount.target)?;
        let MountKind::Bind { source, recursive } = &mount.kind else {
            return Err(LaunchError::Plan("not a bind".to_owned()));
        };
        if target.is_root() {
            return Err(LaunchError::Plan("cannot mount over the root".to_owned()));
        }
        if mount.options.idmap.is_some() {
            return Err(LaunchError::Plan(format!(
                "the mount at {}: ids of a mount can be mapped with CAP_SYS_ADMIN on the host alone",
                mount.target
            )));
        }
        let fail = |errno| LaunchError::Source {
            path: source.clone(),
            target: target.as_str().to_owned(),
            source: errno,
        };
        let is_dir = open_path(source)
            .and_then(|opened| path::is_dir(&opened))
            .map_err(fail)?;
        let made = BindByPath {
            path: c_path(source)?,
            recursive: *recursive,
            options: mount.options.clone(),
            features,
        };
        Ok(Self {
            may_cover_proc: OVER_PROC.contains(&target.as_str()),
            target,
            source: Source::Path(Box::new(made)),
            is_dir,
            attributes: attributes(&mount.options),
            late: None,
        })
    }

    /// The detached tree, if the parent has made one.
    pub(crate) fn tree(&self) -> Option<BorrowedFd<'_>> {
        match &self.source {
            Source::Detached(tree) => Some(tree.as_fd()),
            _ => None,
        }
    }

    /// A read-only bind of one file.
    pub(crate) fn file(
        source: &std::path::Path,
        target: &str,
        host: &Host,
    ) -> Result<Self, LaunchError> {
        let bind = PlanMount {
            target: target.to_owned(),
            kind: MountKind::Bind {
                source: source.to_owned(),
                recursive: false,
            },
            options: MountOptions {
                read_only: true,
                ..MountOptions::default()
            },
        };
        Self::prepare(&bind, host, &[], &[])
    }

    /// Attaches it beneath `root`. Runs in the child.
    pub(crate) fn attach(
        &self,
        index: usize,
        root: BorrowedFd<'_>,
        proc: BorrowedFd<'_>,
    ) -> Result<(), Failed> {
        let target = self.resolve(root).at_index(Step::Target, index)?;
        if !self.may_cover_proc
            && mount::has_magic(&target, mount::PROC_MAGIC).at_index(Step::Target, index)?
        {
            return Err(Errno::PERM).at_index(Step::MountOverProc, index);
        }
        let made;
        let mount = match &self.source {
            Source::Detached(mount) => mount.as_fd(),
            Source::CgroupV1(view) => view.mount.as_fd(),
            Source::Proc => proc,
            Source::Sysfs => {
                made = fresh(c"sysfs", self.attributes).at_index(Step::Mount, index)?;
                made.as_fd()
            }
            Source::Mqueue => {
                made = fresh(c"mqueue", self.attributes).at_index(Step::Mount, index)?;
                made.as_fd()
            }
            Source::Fresh(kind, settings) => {
                made = configured(kind, settings, self.attributes).at_index(Step::Mount, index)?;
                made.as_fd()
            }
            Source::Path(bind) => {
                made = bind.make().at_index(Step::MountSource, index)?;
                made.as_fd()
            }
            Source::Cgroup2 => {
                made = fresh(c"cgroup2", self.attributes).at_index(Step::Mount, index)?;
                made.as_fd()
            }
        };
        mount::attach(mount, &target).at_index(Step::Mount, index)?;
        if let Source::CgroupV1(view) = &self.source {
            view.attach().at_index(Step::Mount, index)?;
        }
        if let Some(late) = self.late {
            late.apply(mount).at_index(Step::MountOptions, index)?;
        }
        Ok(())
    }

    /// procfs and sysfs go on real folders only: a symlink in the image must not lead them, and
    /// what trusts them, elsewhere (CVE-2019-19921).
    fn resolve(&self, root: BorrowedFd<'_>) -> hull_sys::Result<OwnedFd> {
        if matches!(self.source, Source::Proc | Source::Sysfs) {
            match self.target.resolve_plain(root) {
                Err(Errno::NOENT) => {}
                result => return result,
            }
        }
        self.target.ensure(root, self.is_dir)
    }

    pub(crate) fn as_devpts(&self, plan: &PlanMount) -> Option<BorrowedFd<'_>> {
        match (&self.source, &plan.kind) {
            (Source::Detached(mount), MountKind::Devpts) => Some(mount.as_fd()),
            _ => None,
        }
    }
}

impl Late {
    /// mount(2) on the descriptor: `/proc` is still the host's.
    fn apply(self, mount: BorrowedFd<'_>) -> hull_sys::Result<()> {
        let path = FdPath::new(mount);
        if self.propagation != 0 {
            mount::mount_legacy(None, path.as_c_str()?, None, self.propagation, None)?;
        }
        if self.remount != 0 {
            mount::mount_legacy(None, path.as_c_str()?, None, self.remount, None)?;
        }
        Ok(())
    }
}

/// Makes an attached mount read-only, by whichever call the kernel has. Runs in the child.
pub(crate) fn set_read_only(mount: BorrowedFd<'_>, features: Features) -> hull_sys::Result<()> {
    if features.has(Feature::MountSetattr) {
        let change = SetAttr {
            set: libc::MOUNT_ATTR_RDONLY,
            ..SetAttr::default()
        };
        return mount::set_attr(mount, false, &change);
    }
    // A remount sets all options anew: keep those that are.
    let now = rustix::fs::fstatvfs(mount)?.f_flag.bits()
        & (libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC);
    let path = FdPath::new(mount);
    let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | now;
    mount::mount_legacy(None, path.as_c_str()?, None, flags, None)
}

/// `/proc/self/fd/N` on the stack.
pub(crate) struct FdPath([u8; 32]);

impl FdPath {
    pub(crate) fn new(fd: BorrowedFd<'_>) -> Self {
        use std::os::fd::AsRawFd as _;
        const PREFIX: &[u8] = b"/proc/self/fd/";
        let mut text = [0u8; 32];
        let mut digits = [0u8; 10];
        let mut number = fd.as_raw_fd().unsigned_abs();
        let mut count = 0;
        for digit in &mut digits {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
            count += 1;
            if number == 0 {
                break;
            }
        }
        let all = PREFIX.iter().chain(digits.iter().take(count).rev());
        for (to, from) in text.iter_mut().zip(all) {
            *to = *from;
        }
        Self(text)
    }

    pub(crate) fn as_c_str(&self) -> hull_sys::Result<&std::ffi::CStr> {
        std::ffi::CStr::from_bytes_until_nul(&self.0).map_err(|_| Errno::INVAL)
    }
}

/// A new mount of a kernel file system. Runs in the child.
pub(crate) fn fresh(kind: &std::ffi::CStr, attributes: Attr) -> hull_sys::Result<OwnedFd> {
    let fs = FsContext::open(kind)?;
    fs.string(c"source", kind)?;
    fs.mount(attributes)
}

/// A new mount with options. Runs in the child.
fn configured(
    kind: &std::ffi::CStr,
    settings: &[(CString, Option<CString>)],
    attributes: Attr,
) -> hull_sys::Result<OwnedFd> {
    let fs = FsContext::open(kind)?;
    for (key, value) in settings {
        match value {
            Some(value) => fs.string(key, value)?,
            None => fs.flag(key)?,
        }
    }
    fs.mount(attributes)
}

fn set_bind_options(
    tree: &OwnedFd,
    options: &MountOptions,
    recursive: bool,
    features: Features,
    fail: impl Fn(Errno) -> LaunchError,
) -> Result<Option<Late>, LaunchError> {
    let (propagation, spreads) = propagation(&options.propagation)?;
    let attributes = u64::from(attributes(options).bits());
    if !features.has(Feature::MountSetattr) {
        let mut flags = propagation.bits();
        if spreads && recursive {
            flags |= libc::MS_REC;
        }
        let remount = match mount::legacy_flags(attributes) {
            0 => 0,
            flags => flags | libc::MS_REMOUNT | libc::MS_BIND,
        };
        return Ok(Some(Late {
            remount,
            propagation: flags,
        }));
    }
    let spread = SetAttr {
        propagation: Some(propagation),
        ..SetAttr::default()
    };
    mount::set_attr(tree, spreads && recursive, &spread).map_err(&fail)?;
    if attributes != 0 {
        let change = SetAttr {
            set: attributes,
            ..SetAttr::default()
        };
        let all = recursive && options.recursive_read_only;
        mount::set_attr(tree, all, &change).map_err(&fail)?;
    }
    Ok(None)
}

fn tmpfs(data: &str, mut attributes: Attr) -> Result<OwnedFd, LaunchError> {
    let fail = || prepare("make a tmpfs");
    let fs = FsContext::open(c"tmpfs").map_err(fail())?;
    fs.string(c"source", c"tmpfs").map_err(fail())?;
    for option in data.split(',').filter(|option| !option.is_empty()) {
        let per_mount = match option {
            "ro" => Some((Attr::MOUNT_ATTR_RDONLY, true)),
            "rw" => Some((Attr::MOUNT_ATTR_RDONLY, false)),
            "nosuid" => Some((Attr::MOUNT_ATTR_NOSUID, true)),
            "suid" => Some((Attr::MOUNT_ATTR_NOSUID, false)),
            "nodev" => Some((Attr::MOUNT_ATTR_NODEV, true)),
            "dev" => Some((Attr::MOUNT_ATTR_NODEV, false)),
            "noexec" => Some((Attr::MOUNT_ATTR_NOEXEC, true)),
            "exec" => Some((Attr::MOUNT_ATTR_NOEXEC, false)),
            _ => None,
        };
        if let Some((attribute, set)) = per_mount {
            attributes.set(attribute, set);
            continue;
        }
        let wrong = |_| LaunchError::Plan(format!("invalid tmpfs option {option:?}"));
        match option.split_once('=') {
            Some((key, value)) => {
                fs.string(&c_string(key)?, &c_string(value)?)
                    .map_err(wrong)?;
            }
            None => fs.flag(&c_string(option)?).map_err(wrong)?,
        }
    }
    fs.mount(attributes).map_err(fail())
}

fn devpts(attributes: Attr) -> Result<OwnedFd, LaunchError> {
    let fail = || prepare("make a devpts");
    let fs = FsContext::open(c"devpts").map_err(fail())?;
    fs.string(c"source", c"devpts").map_err(fail())?;
    fs.flag(c"newinstance").map_err(fail())?;
    for (key, value) in [(c"ptmxmode", c"0666"), (c"mode", c"0620"), (c"gid", c"5")] {
        fs.string(key, value).map_err(fail())?;
    }
    fs.mount(attributes).map_err(fail())
}

/// The file that the container will see at `wanted`, if a bind of the plan puts it there:
/// its source and the rest of the path below it.
pub(crate) fn bind_over<'a>(
    mounts: &'a [PlanMount],
    wanted: &str,
) -> Option<(&'a std::path::Path, CString)> {
    mounts.iter().rev().find_map(|mount| {
        let MountKind::Bind { source, .. } = &mount.kind else {
            return None;
        };
        let rest = std::path::Path::new(wanted)
            .strip_prefix(&mount.target)
            .ok()?;
        Some((source.as_path(), c_path(rest).ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn fd_path_is_the_decimal_number() {
        let file = std::fs::File::open("/dev/null").expect("open");
        let high = rustix::io::fcntl_dupfd_cloexec(&file, 120).expect("dup");
        let path = FdPath::new(high.as_fd());
        let expected = format!("/proc/self/fd/{}", high.as_raw_fd());
        assert_eq!(
            path.as_c_str().expect("text").to_str(),
            Ok(expected.as_str())
        );
    }

    #[test]
    fn tmpfs_bad_option_names_it() {
        let error = tmpfs("size=64k,bogus=1", Attr::empty()).expect_err("refused");
        assert!(error.to_string().contains("bogus=1"), "{error}");
        tmpfs("rw,noexec,size=64k,mode=1777", Attr::empty()).expect("accepted");
    }

    #[test]
    fn bind_over_last_bind_wins() {
        let bind = |source: &str, target: &str| PlanMount {
            target: target.into(),
            kind: MountKind::Bind {
                source: source.into(),
                recursive: false,
            },
            options: MountOptions::default(),
        };
        let mounts = [bind("/x/etc", "/etc"), bind("/y/passwd", "/etc/passwd")];
        let found = bind_over(&mounts, "/etc/passwd").expect("found");
        assert_eq!(
            (found.0, found.1.as_c_str()),
            (std::path::Path::new("/y/passwd"), c"")
        );
        let found = bind_over(&mounts, "/etc/group").expect("found");
        assert_eq!(
            (found.0, found.1.as_c_str()),
            (std::path::Path::new("/x/etc"), c"group")
        );
    }
}
