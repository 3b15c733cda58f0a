//! Mounts: `-v`, `--mount`, `--tmpfs` and anonymous volumes become one list, and back.
use std::collections::BTreeMap;

use hull_api_types::container::ContainerConfig;
use hull_api_types::host_config::{self as wire, HostConfig};
use hull_api_types::inspect;
use hull_model::spec::{Mount, MountSource};
use hull_model::{Error, ErrorKind, Result};

use super::limits;

/// Mounts of one container, image volumes not counted.
const MAX_MOUNTS: usize = 1024;
const PROPAGATIONS: [&str; 6] = [
    "private", "rprivate", "shared", "rshared", "slave", "rslave",
];

/// Reads all the mounts of a request.
///
/// # Errors
/// If one is malformed, two have one target, or there are too many.
pub(crate) fn of(config: &ContainerConfig, host: &HostConfig) -> Result<Vec<Mount>> {
    let mut list = Vec::new();
    for text in host.binds.iter().flatten() {
        list.push(bind(text)?);
    }
    for mount in &host.mounts {
        list.push(long(mount)?);
    }
    for (target, options) in &host.tmpfs {
        list.push(tmpfs(target, options)?);
    }
    let mut seen = BTreeMap::new();
    for mount in &list {
        if seen.insert(clean(&mount.target), ()).is_some() {
            return Err(Error::invalid(format!(
                "Duplicate mount point: {}",
                mount.target
            )));
        }
    }
    // A named mount takes the place of an anonymous one, which an old client lists as well.
    for target in config.volumes.iter().flatten().map(|(target, _)| target) {
        check_target(target, target)?;
        if seen.insert(clean(target), ()).is_none() {
            let source = MountSource::Volume {
                name: String::new(),
                anonymous: true,
                no_copy: false,
            };
            list.push(Mount {
                from_volume_flag: true,
                ..plain(source, target)
            });
        }
    }
    if list.len() > MAX_MOUNTS {
        return Err(Error::invalid(format!(
            "more than {MAX_MOUNTS} mounts in one request"
        )));
    }
    Ok(list)
}

fn plain(source: MountSource, target: &str) -> Mount {
    Mount {
        source,
        target: clean(target),
        read_only: false,
        propagation: String::new(),
        mode: String::new(),
        from_volume_flag: false,
    }
}

/// The path as the kernel would walk it: without empty, `.` and `..` parts.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn check_target(whole: &str, target: &str) -> Result<()> {
    let wrong =
        |why: &str| Error::invalid(format!("invalid volume specification: '{whole}': {why}"));
    if !target.starts_with('/') {
        return Err(wrong(&format!(
            "invalid mount path: '{target}' mount path must be absolute"
        )));
    }
    if target.contains('\0') {
        return Err(wrong("it contains a NUL byte"));
    }
    if clean(target) == "/" {
        return Err(wrong("destination can't be '/'"));
    }
    Ok(())
}

/// Reads `source:target[:options]` or `target`.
fn bind(text: &str) -> Result<Mount> {
    let wrong = || Error::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match *parts.as_slice() {
        [target] => ("", target, ""),
        [source, target] if !source.is_empty() => (source, target, ""),
        [source, target, options] if !source.is_empty() => (source, target, options),
        _ => return Err(wrong()),
    };
    check_target(text, target)?;
    let named = !source.starts_with('/');
    if named && !source.is_empty() && hull_model::name::validate("volume", source).is_err() {
        return Err(Error::invalid(format!(
            "create {source}: {source:?} includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        )));
    }
    let mut mount = Mount {
        mode: options.to_owned(),
        from_volume_flag: true,
        ..plain(volume_or_path(source), target)
    };
    let mut kinds_seen = [false; 3];
    for option in options.split(',').filter(|_| !options.is_empty()) {
        let kind = match option {
            "ro" | "rw" => {
                mount.read_only = option == "ro";
                Some(0)
            }
            "z" | "Z" => Some(1),
            "cached" | "consistent" | "delegated" => None,
            "nocopy" if named => {
                if let MountSource::Volume { no_copy, .. } = &mut mount.source {
                    *no_copy = true;
                }
                None
            }
            option if PROPAGATIONS.contains(&option) && !named => {
                mount.propagation = option.to_owned();
                Some(2)
            }
            _ => {
                return Err(Error::invalid(format!(
                    "invalid volume specification: '{text}': invalid mode: {options}"
                )));
            }
        };
        if let Some(seen) = kind.and_then(|kind: usize| kinds_seen.get_mut(kind))
            && std::mem::replace(seen, true)
        {
            return Err(Error::invalid(format!(
                "invalid volume specification: '{text}': invalid mode: {options}"
            )));
        }
    }
    Ok(mount)
}

fn volume_or_path(source: &str) -> MountSource {
    if source.starts_with('/') {
        return MountSource::Bind {
            path: source.to_owned(),
            non_recursive: false,
        };
    }
    MountSource::Volume {
        name: source.to_owned(),
        anonymous: source.is_empty(),
        no_copy: false,
    }
}

/// Reads a `--mount`.
fn long(wire: &wire::Mount) -> Result<Mount> {
    let kind = wire.kind.as_str();
    let wrong =
        |why: &str| Error::invalid(format!("invalid mount config for type \"{kind}\": {why}"));
    if wire.target.is_empty() {
        return Err(wrong("field Target must not be empty"));
    }
    if !wire.target.starts_with('/') {
        return Err(wrong(&format!(
            "invalid mount path: '{}' mount path must be absolute",
            wire.target
        )));
    }
    check_target(&wire.target, &wire.target)?;
    if kind != "bind" && wire.bind_options.is_some() {
        return Err(wrong("field BindOptions must not be specified"));
    }
    if kind != "volume" && wire.volume_options.is_some() {
        return Err(wrong("field VolumeOptions must not be specified"));
    }
    if kind != "tmpfs" && wire.tmpfs_options.is_some() {
        return Err(wrong("field TmpfsOptions must not be specified"));
    }
    let mut propagation = String::new();
    let mut creates_source = false;
    let source = match kind {
        "bind" => {
            if wire.source.is_empty() {
                return Err(wrong("field Source must not be empty"));
            }
            if !wire.source.starts_with('/') {
                return Err(wrong(&format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    wire.source
                )));
            }
            let options = wire.bind_options.clone().unwrap_or_default();
            if !options.propagation.is_empty()
                && !PROPAGATIONS.contains(&options.propagation.as_str())
            {
                return Err(wrong(&format!(
                    "invalid propagation mode: {}",
                    options.propagation
                )));
            }
            propagation = options.propagation;
            creates_source = options.create_mountpoint;
            MountSource::Bind {
                path: wire.source.clone(),
                non_recursive: options.non_recursive,
            }
        }
        "volume" => {
            let options = wire.volume_options.clone().unwrap_or_default();
            let driver = options.driver_config.unwrap_or_default();
            if !options.subpath.is_empty()
                || !driver.options.is_empty()
                || !matches!(driver.name.as_str(), "" | "local")
            {
                return Err(Error::new(
                    ErrorKind::NotImplemented,
                    "volume-subpath, volume-opt and volume drivers other than local are not supported by this version of Hull",
                ));
            }
            MountSource::Volume {
                name: wire.source.clone(),
                anonymous: wire.source.is_empty(),
                no_copy: options.no_copy,
            }
        }
        "tmpfs" => {
            if !wire.source.is_empty() {
                return Err(wrong("field Source must not be specified"));
            }
            let options = wire.tmpfs_options.clone().unwrap_or_default();
            if options.size_bytes < 0 {
                return Err(wrong("the size may not be negative"));
            }
            MountSource::Tmpfs {
                size: Some(options.size_bytes).filter(|size| *size > 0),
                mode: Some(options.mode).filter(|mode| *mode != 0),
                options: options.options.iter().map(|pair| pair.join("=")).collect(),
            }
        }
        _ => return Err(wrong("unknown mount type: use bind, volume or tmpfs")),
    };
    Ok(Mount {
        read_only: wire.read_only,
        propagation,
        // Only such a mount has its missing source made.
        from_volume_flag: creates_source,
        ..plain(source, &wire.target)
    })
}

/// Reads a `--tmpfs`.
fn tmpfs(target: &str, text: &str) -> Result<Mount> {
    check_target(target, target)?;
    let wrong =
        |option: &str| Error::invalid(format!("invalid tmpfs option {option:?} of {target}"));
    let (mut size, mut mode, mut read_only) = (None, None, false);
    let mut options = Vec::new();
    for option in text.split(',').filter(|o| !o.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) if !value.ends_with('%') => {
                let bytes = limits::bytes(value).and_then(|n| i64::try_from(n).ok());
                size = Some(bytes.ok_or_else(|| wrong(option))?);
            }
            Some(("mode", value)) => {
                mode = Some(u32::from_str_radix(value, 8).map_err(|_| wrong(option))?);
            }
            Some(("size" | "nr_inodes" | "nr_blocks" | "uid" | "gid" | "mpol" | "huge", _)) => {
                options.push(option.to_owned());
            }
            None => match option {
                "ro" => read_only = true,
                "rw" => read_only = false,
                "exec" | "noexec" | "suid" | "nosuid" | "dev" | "nodev" | "sync" | "async"
                | "atime" | "noatime" | "diratime" | "nodiratime" | "relatime" | "norelatime"
                | "strictatime" | "nostrictatime" | "mand" | "nomand" | "dirsync" => {
                    options.push(option.to_owned())
                }
                _ => return Err(wrong(option)),
            },
            Some(_) => return Err(wrong(option)),
        }
    }
    Ok(Mount {
        read_only,
        mode: text.to_owned(),
        from_volume_flag: true,
        ..plain(
            MountSource::Tmpfs {
                size,
                mode,
                options,
            },
            target,
        )
    })
}

/// Writes the mounts asked for into a host configuration, each in the form it came in.
pub(crate) fn to_wire(
    mounts: &[Mount],
    host: &mut HostConfig,
    volumes: &mut BTreeMap<String, hull_api_types::Empty>,
) {
    for mount in mounts {
        let target = mount.target.clone();
        let suffix = if mount.mode.is_empty() {
            String::new()
        } else {
            format!(":{}", mount.mode)
        };
        match &mount.source {
            MountSource::Bind { path, .. } if mount.from_volume_flag => {
                host.binds
                    .get_or_insert_default()
                    .push(format!("{path}:{target}{suffix}"));
            }
            MountSource::Volume {
                name,
                anonymous: false,
                ..
            } if mount.from_volume_flag => {
                host.binds
                    .get_or_insert_default()
                    .push(format!("{name}:{target}{suffix}"));
            }
            MountSource::Volume {
                anonymous: true, ..
            } if mount.from_volume_flag => {
                volumes.insert(target, hull_api_types::Empty {});
            }
            MountSource::Tmpfs { .. } if mount.from_volume_flag => {
                host.tmpfs.insert(target, mount.mode.clone());
            }
            source => host.mounts.push(long_to_wire(mount, source)),
        }
    }
}

fn long_to_wire(mount: &Mount, source: &MountSource) -> wire::Mount {
    let base = wire::Mount {
        target: mount.target.clone(),
        read_only: mount.read_only,
        ..wire::Mount::default()
    };
    match source {
        MountSource::Bind {
            path,
            non_recursive,
        } => {
            let options = wire::BindOptions {
                propagation: mount.propagation.clone(),
                non_recursive: *non_recursive,
                ..wire::BindOptions::default()
            };
            let bind_options = (options != wire::BindOptions::default()).then_some(options);
            wire::Mount {
                kind: "bind".into(),
                source: path.clone(),
                bind_options,
                ..base
            }
        }
        MountSource::Volume { name, no_copy, .. } => {
            let options = no_copy.then(|| wire::VolumeOptions {
                no_copy: true,
                ..Default::default()
            });
            wire::Mount {
                kind: "volume".into(),
                source: name.clone(),
                volume_options: options,
                ..base
            }
        }
        MountSource::Tmpfs {
            size,
            mode,
            options,
        } => {
            let options = wire::TmpfsOptions {
                size_bytes: size.unwrap_or_default(),
                mode: mode.unwrap_or_default(),
                options: options
                    .iter()
                    .map(|o| o.splitn(2, '=').map(str::to_owned).collect())
                    .collect(),
            };
            let tmpfs_options = (options != wire::TmpfsOptions::default()).then_some(options);
            wire::Mount {
                kind: "tmpfs".into(),
                tmpfs_options,
                ..base
            }
        }
    }
}

/// Writes a mount as it is.
pub(crate) fn point(point: &hull_state::MountPoint) -> inspect::MountPoint {
    let is_volume = point.kind == "volume";
    inspect::MountPoint {
        kind: point.kind.clone(),
        name: point.name.clone(),
        source: point.source.clone(),
        destination: point.target.clone(),
        driver: if is_volume {
            "local".into()
        } else {
            String::new()
        },
        mode: point.mode.clone(),
        rw: point.rw,
        propagation: match point.kind.as_str() {
            "bind" if point.propagation.is_empty() => "rprivate".into(),
            _ => point.propagation.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Mount> {
        bind(text)
    }

    #[test]
    fn volume_flag_tells_paths_from_names() {
        let mount = one("/src:/dst:ro,z,rslave").unwrap();
        assert_eq!(
            mount.source,
            MountSource::Bind {
                path: "/src".into(),
                non_recursive: false
            }
        );
        assert!(mount.read_only && mount.from_volume_flag);
        assert_eq!(
            (mount.propagation.as_str(), mount.target.as_str()),
            ("rslave", "/dst")
        );
        let mount = one("data:/var//lib/:nocopy").unwrap();
        assert_eq!(mount.target, "/var/lib");
        assert_eq!(one("/src:/a/../b").unwrap().target, "/b");
        let want = MountSource::Volume {
            name: "data".into(),
            anonymous: false,
            no_copy: true,
        };
        assert_eq!(mount.source, want);
    }

    #[test]
    fn malformed_volume_flags_are_refused() {
        for bad in [
            "",
            ":",
            "/a:",
            "/a:b",
            "/a:/",
            "/a:/b:ro:x",
            "/a:/b:ro,rw",
            "/a:/b:odd",
            "rel/x:/b",
            "/a:/b/..",
            "vol:/b:rshared",
            ":/b",
            "/a:/b:nocopy",
            "/a:/b:ro,",
        ] {
            assert!(one(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn tmpfs_options_are_read() {
        let mount = tmpfs("/t", "size=64m,mode=1770,noexec,uid=5").unwrap();
        let want = MountSource::Tmpfs {
            size: Some(64 << 20),
            mode: Some(0o1770),
            options: vec!["noexec".into(), "uid=5".into()],
        };
        assert_eq!(mount.source, want);
        for bad in ["size=x", "mode=9", "lowerdir=/etc", "bind"] {
            assert!(tmpfs("/t", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn two_mounts_on_one_target_are_refused() {
        let host = HostConfig {
            binds: Some(vec!["/a:/x".into()]),
            tmpfs: BTreeMap::from([("/x/".to_owned(), String::new())]),
            ..HostConfig::default()
        };
        let error = of(&ContainerConfig::default(), &host).unwrap_err();
        assert!(
            error.to_string().contains("Duplicate mount point"),
            "{error}"
        );
    }

    #[test]
    fn mounts_round_trip() {
        let json = serde_json::json!({
            "Binds": ["/a:/b:ro", "vol:/c"],
            "Tmpfs": {"/t": "size=1m"},
            "Mounts": [{"Type": "bind", "Source": "/s", "Target": "/d", "ReadOnly": true},
                       {"Type": "volume", "Source": "w", "Target": "/w"},
                       {"Type": "tmpfs", "Target": "/m", "TmpfsOptions": {"SizeBytes": 5, "Mode": 511}}]
        });
        let host: HostConfig = serde_json::from_value(json).unwrap();
        let mut back = HostConfig::default();
        to_wire(
            &of(&ContainerConfig::default(), &host).unwrap(),
            &mut back,
            &mut BTreeMap::new(),
        );
        assert_eq!(
            (back.binds, back.tmpfs, back.mounts),
            (host.binds, host.tmpfs, host.mounts)
        );
    }

    #[test]
    fn malformed_long_mounts_are_refused_in_dockers_words() {
        let refuse = |json: serde_json::Value, words: &str| {
            let wire: wire::Mount = serde_json::from_value(json).unwrap();
            let error = long(&wire).expect_err(words).to_string();
            assert!(error.contains(words), "{error} lacks {words}");
        };
        refuse(
            serde_json::json!({"Type": "bind", "Target": "/a"}),
            "Source must not be empty",
        );
        refuse(
            serde_json::json!({"Type": "bind", "Source": "a", "Target": "/a"}),
            "must be absolute",
        );
        refuse(
            serde_json::json!({"Type": "volume", "Source": "a"}),
            "Target must not be empty",
        );
        refuse(
            serde_json::json!({"Type": "npipe", "Source": "a", "Target": "/a"}),
            "mount type",
        );
        refuse(
            serde_json::json!({"Type": "tmpfs", "Source": "a", "Target": "/a"}),
            "Source must not",
        );
    }
}
