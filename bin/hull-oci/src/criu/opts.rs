//! Options of CRIU that checkpoint and restore share.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use hull_proto::LaunchPlan;
use hull_proto::plan::{MountKind, Namespace};
use hull_sys::cgroup::View;
use rustix::fs::{Mode, OFlags};

use super::Message;
use crate::cli::CriuOptions;

/// Names by which images refer to namespaces that were not the container's own.
pub(crate) const NETWORK: &str = "extRootNetNS";
pub(crate) const PROCESSES: &str = "extRootPidNS";
/// `CLONE_NEWNET`.
const NEW_NETWORK: i64 = 0x4000_0000;
const LOG_LEVEL: i64 = 4;
/// Modes of the management of control groups, `criu_cg_mode`.
const MODES: [(&str, i64); 5] = [
    ("ignore", 0),
    ("soft", 3),
    ("full", 4),
    ("strict", 5),
    ("default", 6),
];
const MASK: &str = "/dev/null";

/// Folders that CRIU reads and writes.
pub(crate) struct Folders {
    images: OwnedFd,
    work: OwnedFd,
    /// Its log.
    pub(crate) log: PathBuf,
    pub(crate) images_path: PathBuf,
}

impl Folders {
    /// `make` where files are to be written.
    pub(crate) fn open(options: &CriuOptions, log: &str, make: bool) -> Result<Self> {
        let images = options
            .image_path
            .clone()
            .unwrap_or_else(|| PathBuf::from("checkpoint"));
        let work = options.work_path.clone().unwrap_or_else(|| images.clone());
        if make {
            fs::create_dir_all(&images)
                .with_context(|| format!("--image-path: cannot make {}", images.display()))?;
        }
        fs::create_dir_all(&work)
            .with_context(|| format!("--work-path: cannot make {}", work.display()))?;
        let open = |path: &Path, flag: &str| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty())
                .with_context(|| format!("{flag}: cannot open {}", path.display()))
        };
        Ok(Self {
            images: open(&images, "--image-path")?,
            work: open(&work, "--work-path")?,
            log: work.join(log),
            images_path: images,
        })
    }
}

/// What is the same for both ways.
pub(crate) fn common(options: &CriuOptions, folders: &Folders) -> Result<Message> {
    let mut opts = Message::default();
    opts.number(1, i64::from(folders.images.as_raw_fd()));
    opts.flag(4, options.ext_unix_sk);
    opts.flag(5, options.tcp_established);
    opts.flag(7, options.shell_job);
    opts.flag(8, options.file_locks);
    opts.number(9, LOG_LEVEL);
    let log = folders.log.file_name().unwrap_or_default();
    opts.text(10, &log.to_string_lossy());
    opts.flag(12, true);
    opts.flag(16, options.auto_dedup);
    opts.number(17, i64::from(folders.work.as_raw_fd()));
    opts.flag(24, true);
    let wanted = options.manage_cgroups_mode.as_deref().unwrap_or("soft");
    let Some((_, mode)) = MODES.iter().find(|(name, _)| *name == wanted) else {
        bail!(
            "--manage-cgroups-mode {wanted:?} is unknown: soft, full, strict and ignore are known"
        );
    };
    opts.number(34, *mode);
    match options.empty_ns.as_deref() {
        None => {}
        Some("network") => opts.number(38, NEW_NETWORK),
        Some(other) => bail!("--empty-ns {other:?} is unknown: network is known"),
    }
    opts.flag(48, options.lazy_pages);
    opts.flag(50, true);
    Ok(opts)
}

/// Mounts that come from outside the container: their place in it, and what is to be there.
pub(crate) fn outside(plan: &LaunchPlan, views: &[View], is_v2: bool) -> Vec<(String, String)> {
    let mut list = Vec::new();
    for mount in &plan.mounts {
        let target = mount.target.trim_end_matches('/').to_owned();
        match &mount.kind {
            MountKind::Bind { source, .. } => {
                list.push((target, source.to_string_lossy().into_owned()));
            }
            MountKind::Cgroup if !is_v2 => list.extend(views.iter().map(|view| {
                (
                    format!("{target}/{}", view.name),
                    view.path.to_string_lossy().into_owned(),
                )
            })),
            _ => {}
        }
    }
    list
}

/// Files that are hidden: folders are covered by file systems that CRIU makes anew.
pub(crate) fn masked<'a>(plan: &'a LaunchPlan, root: &'a Path) -> impl Iterator<Item = &'a str> {
    let is_file = |path: &&String| {
        let inside = root.join(path.trim_start_matches('/'));
        fs::symlink_metadata(inside).is_ok_and(|found| !found.is_dir())
    };
    plan.masked_paths.iter().filter(is_file).map(String::as_str)
}

/// Adds a mount from outside; `with` is what CRIU puts there, or its name in the images.
pub(crate) fn mount(opts: &mut Message, target: &str, with: &str) {
    let mut map = Message::default();
    map.text(1, target);
    map.text(2, with);
    opts.nested(23, &map);
}

pub(crate) fn mask(opts: &mut Message, target: &str) {
    mount(opts, target, MASK);
}

/// A descriptor of CRIU's that takes the place of what the images call `key`.
pub(crate) fn inherit(opts: &mut Message, key: &str, fd: i32) {
    let mut map = Message::default();
    map.text(1, key);
    map.number(2, i64::from(fd));
    opts.nested(27, &map);
}

/// `ADDRESS:PORT`.
pub(crate) fn page_server(opts: &mut Message, text: &str) -> Result<()> {
    let parts = text.rsplit_once(':');
    let parsed = parts.and_then(|(address, port)| Some((address, port.parse::<u16>().ok()?)));
    let Some((address, port)) = parsed.filter(|(address, _)| !address.is_empty()) else {
        bail!("--page-server {text:?} is not ADDRESS:PORT");
    };
    let mut server = Message::default();
    server.text(1, address);
    server.number(2, i64::from(port));
    opts.nested(11, &server);
    Ok(())
}

/// Namespaces that are not the container's own, with their names in images.
pub(crate) fn foreign(plan: &LaunchPlan) -> Vec<(&'static str, &'static str, Namespace)> {
    [
        ("net", NETWORK, plan.namespaces.net),
        ("pid", PROCESSES, plan.namespaces.pid),
    ]
    .into_iter()
    .filter(|(_, _, namespace)| matches!(namespace, Namespace::Fd(_)))
    .collect()
}
