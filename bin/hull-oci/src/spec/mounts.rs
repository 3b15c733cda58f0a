//! `mounts` of config.json.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use hull_proto::plan::{AccessTime, MountKind, MountOptions, PlanMount};
use oci_spec::runtime::Mount;

use super::{absolute, namespaces};

/// Options of a devpts that every container gets: the plan has a kind for it.
const DEVPTS_OPTIONS: [&str; 4] = ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];

/// Options that say what is the default anyway.
const NO_CHANGE: [&str; 7] = [
    "defaults",
    "async",
    "diratime",
    "symfollow",
    "loud",
    "nomand",
    "rrw",
];

/// Translates one mount.
pub(crate) fn translate(mount: &Mount, index: usize, bundle: &Path) -> Result<PlanMount> {
    let field = format!("mounts[{index}]");
    let target = absolute(&format!("{field}.destination"), mount.destination())?;

    let mut options = MountOptions {
        idmap: namespaces::mount_idmap(mount, &field)?,
        ..MountOptions::default()
    };
    let mut bind = None;
    let mut data = Vec::new();
    for option in mount.options().iter().flatten() {
        match option.as_str() {
            "ro" => options.read_only = true,
            "rro" => {
                options.read_only = true;
                options.recursive_read_only = true;
            }
            "rw" => options.read_only = false,
            "nosuid" => options.nosuid = true,
            "suid" => options.nosuid = false,
            "nodev" => options.nodev = true,
            "dev" => options.nodev = false,
            "noexec" => options.noexec = true,
            "exec" => options.noexec = false,
            "strictatime" => options.access_time = AccessTime::Strict,
            "noatime" => options.access_time = AccessTime::Never,
            "relatime" | "norelatime" | "nostrictatime" | "atime" => {
                options.access_time = AccessTime::Relative;
            }
            "idmap" | "ridmap" => {}
            "bind" => bind = Some(false),
            "rbind" => bind = Some(true),
            "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" => {
                options.propagation = option.clone();
            }
            other if NO_CHANGE.contains(&other) => {}
            other => data.push(other),
        }
    }

    let kind = mount.typ().as_deref().unwrap_or("none");
    let kind = match (bind, kind) {
        (Some(recursive), _) => {
            let source = mount
                .source()
                .as_ref()
                .with_context(|| format!("config.json: {field}.source is missing"))?;
            MountKind::Bind {
                source: bundle.join(source),
                recursive,
            }
        }
        (None, "bind") => {
            let source = mount
                .source()
                .as_ref()
                .with_context(|| format!("config.json: {field}.source is missing"))?;
            MountKind::Bind {
                source: bundle.join(source),
                recursive: false,
            }
        }
        (None, "proc") => MountKind::Proc,
        (None, "sysfs") => MountKind::Sysfs,
        (None, "mqueue") => MountKind::Mqueue,
        (None, "cgroup" | "cgroup2") => MountKind::Cgroup,
        (None, "devpts") => {
            let is_usual = DEVPTS_OPTIONS.iter().all(|option| data.contains(option));
            let (ours, other): (Vec<&str>, _) =
                data.iter().partition(|option| is_devpts_option(option));
            data = other;
            if is_usual && ours.len() == DEVPTS_OPTIONS.len() {
                MountKind::Devpts
            } else {
                MountKind::Filesystem {
                    kind: "devpts".to_owned(),
                    source: "devpts".to_owned(),
                    data: ours.into_iter().map(str::to_owned).collect(),
                }
            }
        }
        (None, "tmpfs") => {
            let (ours, other): (Vec<&str>, _) =
                data.iter().partition(|option| is_tmpfs_option(option));
            data = other;
            MountKind::Tmpfs {
                data: ours.join(","),
            }
        }
        (None, other) => bail!("config.json: {field}.type {other:?} is not supported"),
    };
    if !options.propagation.is_empty() && !matches!(kind, MountKind::Bind { .. }) {
        let default = matches!(options.propagation.as_str(), "private" | "rprivate");
        if !default {
            bail!(
                "config.json: {field}.options: {:?} is supported for bind mounts alone",
                options.propagation
            );
        }
        options.propagation.clear();
    }
    if options.access_time != AccessTime::Relative && matches!(kind, MountKind::Bind { .. }) {
        bail!("config.json: {field}.options: access times are those of the source in a bind mount");
    }
    if options.idmap.is_some() && !matches!(kind, MountKind::Bind { .. }) {
        bail!("config.json: {field}: ids are mapped in bind mounts alone");
    }
    if let Some(option) = data.first() {
        bail!("config.json: {field}.options: {option:?} is not supported");
    }
    Ok(PlanMount {
        target,
        kind,
        options,
    })
}

fn is_devpts_option(option: &str) -> bool {
    let name = option.split('=').next().unwrap_or_default();
    matches!(
        name,
        "newinstance" | "ptmxmode" | "mode" | "uid" | "gid" | "max"
    )
}

fn is_tmpfs_option(option: &str) -> bool {
    let name = option.split('=').next().unwrap_or_default();
    matches!(
        name,
        "size"
            | "mode"
            | "uid"
            | "gid"
            | "nr_inodes"
            | "nr_blocks"
            | "huge"
            | "mpol"
            | "inode32"
            | "inode64"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(json: &str) -> Result<PlanMount> {
        let mount: Mount = serde_json::from_str(json).expect("json");
        translate(&mount, 3, Path::new("/bundle"))
    }

    #[test]
    fn translate_bind_relative_source_lies_in_the_bundle() {
        let got =
            mount(r#"{"destination":"/x","source":"data","options":["rbind","ro","rslave"]}"#)
                .expect("mount");
        let kind = MountKind::Bind {
            source: "/bundle/data".into(),
            recursive: true,
        };
        assert_eq!(got.kind, kind);
        assert!(got.options.read_only);
        assert_eq!(got.options.propagation, "rslave");
    }

    #[test]
    fn translate_tmpfs_keeps_its_data() {
        let got = mount(r#"{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","mode=755","size=65536k"]}"#)
            .expect("mount");
        assert_eq!(
            got.kind,
            MountKind::Tmpfs {
                data: "mode=755,size=65536k".to_owned()
            }
        );
    }

    #[test]
    fn translate_unknown_things_name_their_field() {
        for (json, part) in [
            (
                r#"{"destination":"x","type":"proc"}"#,
                "mounts[3].destination: x is not an absolute path",
            ),
            (
                r#"{"destination":"/x","type":"nfs"}"#,
                "mounts[3].type \"nfs\" is not supported",
            ),
            (
                r#"{"destination":"/x","type":"proc","options":["hidepid=2"]}"#,
                "mounts[3].options: \"hidepid=2\"",
            ),
            (
                r#"{"destination":"/x","type":"tmpfs","options":["tmpcopyup"]}"#,
                "mounts[3].options: \"tmpcopyup\"",
            ),
            (
                r#"{"destination":"/x","type":"tmpfs","options":["rshared"]}"#,
                "for bind mounts alone",
            ),
            (
                r#"{"destination":"/x","options":["bind"]}"#,
                "mounts[3].source is missing",
            ),
        ] {
            let error = mount(json).expect_err(json).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
