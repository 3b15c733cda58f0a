//! `mounts` of config.json.

mod options;

use std::path::{Component, Path};

use anyhow::{Context as _, Result, bail};
use hull_proto::plan::{AccessTime, MountKind, PlanMount};
use oci_spec::runtime::Mount;

use super::namespaces;

use options::Parsed;
pub(crate) use options::{PROPAGATION, words as option_words};

/// Options of a devpts that every container gets: the plan has a kind for it.
const DEVPTS_OPTIONS: [&str; 4] = ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
/// Options of the whole hierarchy: it has those that the host gave it.
const CGROUP_OPTIONS: [&str; 7] = [
    "nsdelegate",
    "favordynmods",
    "memory_localevents",
    "memory_recursiveprot",
    "memory_hugetlb_accounting",
    "pids_localevents",
    "xattr",
];
/// File systems that are the same for all who mount them: read-only is the mount.
const SHARED_KINDS: [&str; 6] = ["proc", "sysfs", "mqueue", "devpts", "cgroup", "cgroup2"];
/// Options of a tmpfs (Linux 6.18), and those of SELinux.
const TMPFS_OPTIONS: [&str; 24] = [
    "size",
    "nr_blocks",
    "nr_inodes",
    "mode",
    "uid",
    "gid",
    "mpol",
    "huge",
    "inode32",
    "inode64",
    "noswap",
    "quota",
    "usrquota",
    "grpquota",
    "usrquota_block_hardlimit",
    "usrquota_inode_hardlimit",
    "grpquota_block_hardlimit",
    "grpquota_inode_hardlimit",
    "casefold",
    "strict_encoding",
    "context",
    "fscontext",
    "defcontext",
    "rootcontext",
];
/// There if the host has the one hierarchy of version 2.
const UNIFIED: &str = "/sys/fs/cgroup/cgroup.controllers";
/// There if the kernel has SELinux and it is in use.
const SELINUX: &str = "/sys/fs/selinux/enforce";

/// What a bind is to the host's mounts before it is made shared, as with runc: a peer of them in a
/// root that is shared itself alone.
pub(crate) fn confine_shared(mounts: &mut [PlanMount], root: &str) {
    let before = match root {
        "shared" | "rshared" => return,
        "" | "slave" | "rslave" => "rslave",
        _ => "rprivate",
    };
    for mount in mounts {
        let propagation = &mut mount.options.propagation;
        let is_bind = matches!(mount.kind, MountKind::Bind { .. });
        if is_bind && matches!(propagation.as_str(), "shared" | "rshared") {
            *propagation = format!("{before},{propagation}");
        }
    }
}

/// Translates all mounts; `label` is the SELinux context of new file systems.
pub(crate) fn translate_all(
    mounts: &[Mount],
    bundle: &Path,
    label: &str,
    warnings: &mut Vec<String>,
) -> Result<Vec<PlanMount>> {
    if !label.is_empty() && !Path::new(SELINUX).exists() {
        bail!(
            "config.json: linux.mountLabel: SELinux is not in use on this host: remove the label"
        );
    }
    if label.contains(['"', ',', '\0']) && label.contains('"') {
        bail!("config.json: linux.mountLabel: {label:?} is no SELinux context");
    }
    mounts
        .iter()
        .enumerate()
        .map(|(index, mount)| translate(mount, index, bundle, label, warnings))
        .collect()
}

fn translate(
    mount: &Mount,
    index: usize,
    bundle: &Path,
    label: &str,
    warnings: &mut Vec<String>,
) -> Result<PlanMount> {
    let field = format!("mounts[{index}]");
    let target = destination(mount, &field, warnings)?;
    let mut parsed = Parsed::new(mount.options().iter().flatten());
    parsed.options.idmap = namespaces::mount_idmap(mount, &field)?;
    if mount.typ().as_deref() == Some("bind") && parsed.bind.is_none() {
        parsed.bind = Some(false);
    }
    if is_root(&target) && !(parsed.options.remount && parsed.bind.is_none()) {
        bail!("config.json: {field}.destination: nothing can be mounted over the root");
    }
    check(&parsed, mount, &field)?;
    let kind = match parsed.bind {
        Some(recursive) => {
            parsed.options.remount = false;
            let source = mount
                .source()
                .as_ref()
                .filter(|source| !source.as_os_str().is_empty())
                .with_context(|| format!("config.json: {field}.source is missing"))?;
            MountKind::Bind {
                source: bundle.join(source),
                recursive,
            }
        }
        None => file_system(mount, &field, &mut parsed, label)?,
    };
    if Path::new(&target) == Path::new("/proc") && !shows_proc(&kind) && !parsed.options.remount {
        bail!("config.json: {field}: only a procfs or a bind of one can be mounted at /proc");
    }
    Ok(PlanMount {
        target,
        kind,
        options: parsed.options,
    })
}

/// The path inside. One that is relative begins at the root: so it has been in older versions of
/// the specification.
fn destination(mount: &Mount, field: &str, warnings: &mut Vec<String>) -> Result<String> {
    let given = mount.destination();
    let Some(text) = given.to_str().filter(|text| !text.is_empty()) else {
        bail!("config.json: {field}.destination is missing");
    };
    if text.contains('\0') {
        bail!("config.json: {field}.destination: {text:?} holds a zero byte");
    }
    if given.is_absolute() {
        return Ok(text.to_owned());
    }
    warnings.push(format!(
        "config.json: {field}.destination: {text} is not an absolute path: taken as /{text}"
    ));
    Ok(format!("/{text}"))
}

fn is_root(target: &str) -> bool {
    let mut depth = 0usize;
    for part in Path::new(target).components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    depth == 0
}

fn shows_proc(kind: &MountKind) -> bool {
    match kind {
        MountKind::Proc | MountKind::Bind { .. } => true,
        MountKind::Filesystem { kind, .. } => kind == "proc",
        _ => false,
    }
}

/// Contradictions.
fn check(parsed: &Parsed, mount: &Mount, field: &str) -> Result<()> {
    let options = &parsed.options;
    let is_bind = parsed.bind.is_some();
    let of_binds = [
        ("src-nofollow", options.source_nofollow),
        ("copy-symlink", options.copy_symlink),
    ];
    if let Some((word, _)) = of_binds.iter().find(|(_, set)| *set && !is_bind) {
        bail!("config.json: {field}.options: {word:?} is for bind mounts alone");
    }
    if options.idmap.is_some() && !is_bind {
        bail!("config.json: {field}: ids are mapped in bind mounts alone");
    }
    if options.copy_up && (is_bind || mount.typ().as_deref() != Some("tmpfs")) {
        bail!("config.json: {field}.options: \"tmpcopyup\" is for type tmpfs alone");
    }
    if let Some(option) = parsed.data.first().filter(|_| is_bind) {
        bail!(
            "config.json: {field}.options: {option:?} is not known, and a bind mount takes no \
             options of a file system: remove it"
        );
    }
    Ok(())
}

/// A new file system, or other options for one.
fn file_system(mount: &Mount, field: &str, parsed: &mut Parsed, label: &str) -> Result<MountKind> {
    let kind = mount.typ().as_deref().unwrap_or_default();
    if matches!(kind, "" | "none") && !parsed.options.remount {
        bail!("config.json: {field}.type is missing");
    }
    let mut data = std::mem::take(&mut parsed.data);
    let is_shared = SHARED_KINDS.contains(&kind);
    let options = &mut parsed.options;
    if options.read_only {
        // There is nothing below yet.
        options.recursive_set &= !libc::MOUNT_ATTR_RDONLY;
    }
    let has_only_safe = options.set == 0 && options.access_time == AccessTime::Relative;
    let is_usual = !options.remount && parsed.superblock.is_empty();
    let source = mount.source().as_deref().and_then(Path::to_str);
    let source = source.filter(|source| !source.is_empty()).unwrap_or(kind);
    match kind {
        "proc" if is_usual && data.is_empty() && !options.read_only && has_only_safe => {
            return Ok(MountKind::Proc);
        }
        "proc" => {
            // As with every procfs here: nothing in it is ever executed.
            options.nosuid = true;
            options.nodev = true;
            options.noexec = true;
        }
        "sysfs" if is_usual && data.is_empty() => return Ok(MountKind::Sysfs),
        "mqueue" if is_usual && data.is_empty() => return Ok(MountKind::Mqueue),
        "cgroup" | "cgroup2" if is_usual => {
            data.retain(|option| !CGROUP_OPTIONS.contains(&option.as_str()));
            if kind == "cgroup" || Path::new(UNIFIED).exists() {
                if let Some(option) = data.first() {
                    bail!(
                        "config.json: {field}.options: {option:?} is not known: control groups \
                         are shown as the host has them"
                    );
                }
                return Ok(MountKind::Cgroup);
            }
        }
        "devpts" if is_usual && label.is_empty() && is_usual_devpts(&data) => {
            return Ok(MountKind::Devpts);
        }
        "tmpfs" => {
            if let Some(option) = data.iter().find(|option| !is_tmpfs_option(option)) {
                bail!("config.json: {field}.options: {option:?} is no option of a tmpfs");
            }
            let has_mode = data.iter().any(|option| option.contains("mode="));
            options.copy_mode = !options.remount && !has_mode;
            let is_plain = is_usual && label.is_empty() && source == "tmpfs";
            if is_plain && !data.iter().any(|option| option.contains(',')) {
                return Ok(MountKind::Tmpfs {
                    data: data.join(","),
                });
            }
        }
        _ => {}
    }
    if !label.is_empty() && (!is_shared || kind == "devpts") && !options.remount {
        data.push(format!("context=\"{label}\""));
    }
    data.extend(parsed.superblock.iter().map(|word| (*word).to_owned()));
    if options.read_only && !is_shared && (kind != "tmpfs" || options.remount) {
        data.push("ro".to_owned());
    }
    Ok(MountKind::Filesystem {
        kind: kind.to_owned(),
        source: source.to_owned(),
        data,
    })
}

/// Several may be in one text.
fn is_tmpfs_option(text: &str) -> bool {
    let first = text.split(['=', ',']).next().unwrap_or_default();
    TMPFS_OPTIONS.contains(&first)
}

fn is_usual_devpts(data: &[String]) -> bool {
    let has = |wanted: &&str| data.iter().any(|option| option == wanted);
    data.len() == DEVPTS_OPTIONS.len() && DEVPTS_OPTIONS.iter().all(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(json: &str) -> Result<PlanMount> {
        let mount: Mount = serde_json::from_str(json).expect("json");
        translate(&mount, 3, Path::new("/bundle"), "", &mut Vec::new())
    }

    fn kind(json: &str) -> MountKind {
        mount(json).expect(json).kind
    }

    fn other(kind: &str, source: &str, data: &[&str]) -> MountKind {
        MountKind::Filesystem {
            kind: kind.to_owned(),
            source: source.to_owned(),
            data: data.iter().map(|option| (*option).to_owned()).collect(),
        }
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
    fn translate_relative_destination_begins_at_the_root_with_a_warning() {
        let given = r#"{"destination":"x/y","type":"tmpfs"}"#;
        let given: Mount = serde_json::from_str(given).expect("json");
        let mut warnings = Vec::new();
        let got = translate(&given, 0, Path::new("/b"), "", &mut warnings).expect("mount");
        assert_eq!(got.target, "/x/y");
        assert!(warnings.concat().contains("mounts[0].destination"));
    }

    #[test]
    fn translate_usual_mounts_have_their_own_kinds() {
        let tmpfs = r#"{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","mode=755","size=65536k"]}"#;
        let data = "mode=755,size=65536k".to_owned();
        assert_eq!(kind(tmpfs), MountKind::Tmpfs { data });
        let devpts = r#"{"destination":"/dev/pts","type":"devpts","options":["newinstance","ptmxmode=0666","mode=0620","gid=5","nosuid"]}"#;
        assert_eq!(kind(devpts), MountKind::Devpts);
        let proc = r#"{"destination":"/proc","type":"proc","options":["nosuid","noexec"]}"#;
        assert_eq!(kind(proc), MountKind::Proc);
        let cgroup = r#"{"destination":"/g","type":"cgroup","options":["ro","nsdelegate"]}"#;
        assert_eq!(kind(cgroup), MountKind::Cgroup);
    }

    #[test]
    fn translate_other_options_go_to_the_file_system() {
        let proc = r#"{"destination":"/proc","type":"proc","options":["hidepid=2","ro"]}"#;
        assert_eq!(kind(proc), other("proc", "proc", &["hidepid=2"]));
        let tmpfs = r#"{"destination":"/x","type":"tmpfs","source":"shm","options":["sync","ro","mpol=bind:0,1"]}"#;
        let expected = other("tmpfs", "shm", &["mpol=bind:0,1", "sync"]);
        assert_eq!(kind(tmpfs), expected);
        let ext =
            r#"{"destination":"/x","type":"ext4","source":"/dev/x","options":["ro","noload"]}"#;
        assert_eq!(kind(ext), other("ext4", "/dev/x", &["noload", "ro"]));
        let devpts = r#"{"destination":"/x","type":"devpts","options":["newinstance","max=3"]}"#;
        assert_eq!(
            kind(devpts),
            other("devpts", "devpts", &["newinstance", "max=3"])
        );
    }

    #[test]
    fn confine_shared_binds_are_peers_of_the_host_in_a_shared_root_alone() {
        for (root, words, expected) in [
            ("shared", "rshared", "rshared"),
            ("", "rshared", "rslave,rshared"),
            ("rslave", "shared", "rslave,shared"),
            ("private", "shared", "rprivate,shared"),
            ("", "rslave", "rslave"),
        ] {
            let json =
                format!(r#"{{"destination":"/x","source":"/y","options":["rbind","{words}"]}}"#);
            let mut mounts = [mount(&json).expect("mount")];
            confine_shared(&mut mounts, root);
            assert_eq!(mounts[0].options.propagation, expected, "{root} {words}");
        }
    }

    #[test]
    fn translate_tmpfs_without_mode_takes_that_of_its_folder() {
        let without = mount(r#"{"destination":"/x","type":"tmpfs"}"#).expect("mount");
        let with = mount(r#"{"destination":"/x","type":"tmpfs","options":["mode=700"]}"#);
        assert!(without.options.copy_mode && !with.expect("mount").options.copy_mode);
    }

    #[test]
    fn translate_remount_of_the_root_is_the_only_thing_there() {
        let again = r#"{"destination":"/","options":["remount","ro"]}"#;
        let again = mount(again).expect("mount");
        assert!(again.options.remount && again.options.read_only);
        for target in ["/", "/..", "/x/.."] {
            let json = format!(r#"{{"destination":"{target}","type":"tmpfs"}}"#);
            let error = mount(&json).expect_err("refused").to_string();
            assert!(error.contains("over the root"), "{error}");
        }
    }

    #[test]
    fn translate_label_needs_selinux_and_goes_to_new_file_systems() {
        let tmpfs: Mount =
            serde_json::from_str(r#"{"destination":"/x","type":"tmpfs"}"#).expect("json");
        let label = "system_u:object_r:x_t:s0:c1,c2";
        let got = translate(&tmpfs, 0, Path::new("/b"), label, &mut Vec::new()).expect("mount");
        let context = format!("context=\"{label}\"");
        assert_eq!(got.kind, other("tmpfs", "tmpfs", &[&context]));
        if !Path::new(SELINUX).exists() {
            let error = translate_all(&[tmpfs], Path::new("/b"), label, &mut Vec::new());
            let error = error.expect_err("refused").to_string();
            assert!(error.contains("linux.mountLabel"), "{error}");
        }
    }

    #[test]
    fn translate_contradictions_name_their_field() {
        for (json, part) in [
            (r#"{"destination":""}"#, "mounts[3].destination is missing"),
            (r#"{"destination":"/x"}"#, "mounts[3].type is missing"),
            (
                r#"{"destination":"/x","options":["bind"]}"#,
                "mounts[3].source is missing",
            ),
            (
                r#"{"destination":"/x","source":"/y","options":["bind","size=1"]}"#,
                "mounts[3].options: \"size=1\"",
            ),
            (
                r#"{"destination":"/x","source":"/y","options":["bind","tmpcopyup"]}"#,
                "\"tmpcopyup\" is for type tmpfs alone",
            ),
            (
                r#"{"destination":"/x","type":"tmpfs","options":["copy-symlink"]}"#,
                "\"copy-symlink\" is for bind mounts alone",
            ),
            (
                r#"{"destination":"/x","type":"tmpfs","options":["size=1m","copyup"]}"#,
                "mounts[3].options: \"copyup\"",
            ),
            (
                r#"{"destination":"/x","type":"cgroup","options":["cpu"]}"#,
                "mounts[3].options: \"cpu\"",
            ),
            (
                r#"{"destination":"/proc/","type":"tmpfs"}"#,
                "mounts[3]: only a procfs",
            ),
        ] {
            let error = mount(json).expect_err(json).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
