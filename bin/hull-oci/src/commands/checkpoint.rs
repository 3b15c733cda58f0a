//! `checkpoint`: a container becomes files, by CRIU.

use std::ffi::OsStr;
use std::fs;

use anyhow::{Context as _, Result, bail};
use hull_container::Host;

use super::delete;
use crate::cli::{Checkpoint, Delete};
use crate::criu::{self, Criu, opts};
use crate::log::Log;
use crate::spec;
use crate::state::{Record, Status, Store};

/// What the process had as standard input, output and error, for `restore`.
pub(crate) const DESCRIPTORS: &str = "descriptors.json";

pub(crate) fn checkpoint(
    args: &Checkpoint,
    store: &Store,
    program: &OsStr,
    log: &Log,
) -> Result<()> {
    let (entry, record) = store.open(&args.id)?;
    let host = Host::detect()?;
    match record.status(&entry, &host)? {
        Status::Running | Status::Paused => {}
        status => bail!(
            "Container cannot be checkpointed in {} state",
            status.name()
        ),
    }
    let folders = opts::Folders::open(&args.criu, "dump.log", true)?;
    let mut options = opts::common(&args.criu, &folders)?;
    options.number(2, i64::from(record.pid));
    options.flag(3, args.leave_running || args.pre_dump);
    options.text(13, &record.rootfs.to_string_lossy());
    if let Some(parent) = &args.parent_path {
        if parent.is_absolute() || !folders.images_path.join(parent).is_dir() {
            bail!(
                "--parent-path {}: give a folder relative to --image-path",
                parent.display()
            );
        }
        options.text(14, &parent.to_string_lossy());
    }
    options.flag(15, args.pre_dump || args.parent_path.is_some());
    if let Some(server) = &args.page_server {
        opts::page_server(&mut options, server)?;
    }
    if let Some(fd) = args.status_fd.filter(|fd| *fd >= 0) {
        options.number(49, i64::from(fd));
    }
    let group = record.open_cgroup(&host)?;
    let views = group.map(|group| group.views()).unwrap_or_default();
    let is_v2 = host.hierarchies.is_v2();
    if let Some(view) = views
        .iter()
        .find(|view| view.name == if is_v2 { "" } else { "freezer" })
    {
        options.text(44, &view.path.to_string_lossy());
    }
    describe(&mut options, &record, store, &views, is_v2)?;
    if !args.pre_dump {
        write_descriptors(&record, &folders)?;
    }
    let kind = if args.pre_dump {
        criu::PRE_DUMP
    } else {
        criu::DUMP
    };
    Criu::start(program, &[])?.call(kind, &options, &folders.log, |_| Ok(()))?;
    if args.leave_running || args.pre_dump {
        return Ok(());
    }
    let rest = Delete {
        force: true,
        id: args.id.clone(),
    };
    delete::delete(&rest, store, log)
}

/// What in the container comes from outside.
fn describe(
    options: &mut criu::Message,
    record: &Record,
    store: &Store,
    views: &[hull_sys::cgroup::View],
    is_v2: bool,
) -> Result<()> {
    let translated = spec::translate(&record.bundle, &record.id, &store.seccomp_cache())
        .context("cannot read the bundle of the container again")?;
    for (target, _) in opts::outside(&translated.plan, views, is_v2) {
        opts::mount(options, &target, &target);
    }
    let root = format!("/proc/{}/root", record.pid);
    for target in opts::masked(&translated.plan, root.as_ref()) {
        opts::mask(options, target);
    }
    for (kind, name, _) in opts::foreign(&translated.plan) {
        let path = format!("/proc/{}/ns/{kind}", record.pid);
        let found = fs::metadata(&path).with_context(|| format!("cannot look at {path}"))?;
        let number = std::os::unix::fs::MetadataExt::ino(&found);
        options.text(37, &format!("{kind}[{number}]:{name}"));
    }
    Ok(())
}

fn write_descriptors(record: &Record, folders: &opts::Folders) -> Result<()> {
    let names: Vec<String> = (0..3)
        .map(|number| {
            let path = format!("/proc/{}/fd/{number}", record.pid);
            // One that is closed is not asked for again.
            let name = fs::read_link(path).unwrap_or_default();
            name.to_string_lossy().into_owned()
        })
        .collect();
    let path = folders.images_path.join(DESCRIPTORS);
    let text = serde_json::to_vec(&names).context("cannot write the names of descriptors")?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
