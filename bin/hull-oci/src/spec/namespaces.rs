//! `linux.namespaces` of config.json, with the mappings and clocks that belong to them.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use hull_proto::LaunchPlan;
use hull_proto::oci::{Clock, IdMap, IdMappings, MountIdMap, TimeOffset};
use hull_proto::plan::{Namespace, Namespaces};
use hull_sys::clone3::Namespaces as Kinds;
use hull_sys::ns;
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Mount};

use super::absolute;

/// Fills the namespaces of the plan. Nothing is made: contradictions are refused here.
pub(crate) fn translate(
    linux: &Linux,
    plan: &mut LaunchPlan,
    fds: &mut Vec<OwnedFd>,
) -> Result<()> {
    plan.namespaces = namespaces(linux, fds)?;
    users(linux, plan)?;
    clocks(linux, plan)?;
    if plan.namespaces.mount == Namespace::Host {
        for (field, paths) in [
            ("maskedPaths", linux.masked_paths()),
            ("readonlyPaths", linux.readonly_paths()),
        ] {
            if paths.as_ref().is_some_and(|paths| !paths.is_empty()) {
                bail!(
                    "config.json: linux.{field}: paths cannot be restricted without a mount \
                     namespace of the container's own: add one to linux.namespaces"
                );
            }
        }
    }
    Ok(())
}

fn namespaces(linux: &Linux, fds: &mut Vec<OwnedFd>) -> Result<Namespaces> {
    let mut result = Namespaces {
        pid: Namespace::Host,
        ipc: Namespace::Host,
        uts: Namespace::Host,
        net: Namespace::Host,
        cgroup: Namespace::Host,
        mount: Namespace::Host,
        user: Namespace::Host,
        time: Namespace::Host,
    };
    let mut seen = Vec::new();
    for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let field = format!("linux.namespaces[{index}]");
        let kind = namespace.typ();
        if seen.contains(&kind) {
            bail!("config.json: {field}: {kind} is there twice");
        }
        seen.push(kind);
        let (slot, wanted, name) = match kind {
            LinuxNamespaceType::Pid => (&mut result.pid, Kinds::PID, "pid"),
            LinuxNamespaceType::Ipc => (&mut result.ipc, Kinds::IPC, "ipc"),
            LinuxNamespaceType::Uts => (&mut result.uts, Kinds::UTS, "uts"),
            LinuxNamespaceType::Network => (&mut result.net, Kinds::NET, "net"),
            LinuxNamespaceType::Cgroup => (&mut result.cgroup, Kinds::CGROUP, "cgroup"),
            LinuxNamespaceType::Mount => (&mut result.mount, Kinds::MOUNT, "mnt"),
            LinuxNamespaceType::User => (&mut result.user, Kinds::USER, "user"),
            LinuxNamespaceType::Time => (&mut result.time, Kinds::TIME, "time"),
        };
        let path = namespace
            .path()
            .as_ref()
            .filter(|path| !path.as_os_str().is_empty());
        *slot = match path {
            None => {
                if !Path::new("/proc/self/ns").join(name).exists() {
                    bail!("config.json: {field}: this kernel has no {kind} namespaces");
                }
                Namespace::New
            }
            Some(path) => {
                let opened = open(&field, path, kind, wanted)?;
                // It cannot be joined by who is in it already, and need not be.
                if wanted == Kinds::USER && is_own(&opened, name) {
                    Namespace::Host
                } else {
                    fds.push(opened.into());
                    Namespace::Fd(fds.len() - 1)
                }
            }
        };
    }
    Ok(result)
}

fn open(field: &str, path: &Path, kind: LinuxNamespaceType, wanted: Kinds) -> Result<File> {
    absolute(&format!("{field}.path"), path)?;
    let shown = path.display();
    let file = File::open(path)
        .with_context(|| format!("config.json: {field}.path: cannot open {shown}"))?;
    match ns::kind(&file) {
        Ok(found) if found == wanted => Ok(file),
        Ok(_) => bail!("config.json: {field}.path: {shown} is no {kind} namespace"),
        Err(_) => bail!("config.json: {field}.path: {shown} is no namespace at all"),
    }
}

fn is_own(file: &File, name: &str) -> bool {
    let own = std::fs::metadata(format!("/proc/self/ns/{name}"));
    match (file.metadata(), own) {
        (Ok(given), Ok(own)) => (given.dev(), given.ino()) == (own.dev(), own.ino()),
        _ => false,
    }
}

fn users(linux: &Linux, plan: &mut LaunchPlan) -> Result<()> {
    let mappings = mappings(
        linux.uid_mappings().as_deref(),
        linux.gid_mappings().as_deref(),
    );
    for (field, list) in [
        ("uidMappings", &mappings.uids),
        ("gidMappings", &mappings.gids),
    ] {
        match plan.namespaces.user {
            Namespace::Host if !list.is_empty() => bail!(
                "config.json: linux.{field}: ids are mapped in a user namespace alone: add one to \
                 linux.namespaces"
            ),
            Namespace::New if list.is_empty() => {
                bail!("config.json: linux.{field}: a new user namespace needs some")
            }
            _ => {}
        }
    }
    // A namespace that is given has its own.
    if plan.namespaces.user == Namespace::New {
        plan.id_mappings = mappings;
    }
    Ok(())
}

/// Both lists as the plan has them.
pub(crate) fn mappings(
    uids: Option<&[LinuxIdMapping]>,
    gids: Option<&[LinuxIdMapping]>,
) -> IdMappings {
    let list = |list: Option<&[LinuxIdMapping]>| {
        let map = |map: &LinuxIdMapping| IdMap {
            inside: map.container_id(),
            outside: map.host_id(),
            count: map.size(),
        };
        list.unwrap_or_default().iter().map(map).collect()
    };
    IdMappings {
        uids: list(uids),
        gids: list(gids),
    }
}

/// How a mount maps ids: by its lists, or as the container does.
pub(crate) fn mount_idmap(mount: &Mount, field: &str) -> Result<Option<MountIdMap>> {
    let mut option = None;
    for text in mount.options().iter().flatten() {
        match text.as_str() {
            "idmap" => option = Some(false),
            "ridmap" => option = Some(true),
            _ => {}
        }
    }
    let mappings = mappings(
        mount.uid_mappings().as_deref(),
        mount.gid_mappings().as_deref(),
    );
    let mappings = match (mappings.uids.is_empty(), mappings.gids.is_empty()) {
        (true, true) => None,
        (false, false) => Some(mappings),
        (true, false) => {
            bail!("config.json: {field}.uidMappings: needed together with gidMappings")
        }
        (false, true) => {
            bail!("config.json: {field}.gidMappings: needed together with uidMappings")
        }
    };
    if option.is_none() && mappings.is_none() {
        return Ok(None);
    }
    Ok(Some(MountIdMap {
        mappings,
        recursive: option.unwrap_or(false),
    }))
}

fn clocks(linux: &Linux, plan: &mut LaunchPlan) -> Result<()> {
    const NANOSECONDS: u32 = 1_000_000_000;
    let Some(offsets) = linux.time_offsets().as_ref().filter(|map| !map.is_empty()) else {
        return Ok(());
    };
    if plan.namespaces.time != Namespace::New {
        bail!(
            "config.json: linux.timeOffsets: clocks are set in a new time namespace alone: add one \
             without path to linux.namespaces"
        );
    }
    let mut names: Vec<&String> = offsets.keys().collect();
    names.sort();
    for name in names {
        let field = format!("linux.timeOffsets.{name}");
        let clock = match name.as_str() {
            "monotonic" => Clock::Monotonic,
            "boottime" => Clock::Boottime,
            _ => bail!("config.json: {field}: the clocks are monotonic and boottime"),
        };
        let Some(offset) = offsets.get(name) else {
            continue;
        };
        let nanoseconds = offset.nanosecs().unwrap_or(0);
        if nanoseconds >= NANOSECONDS {
            bail!("config.json: {field}.nanosecs {nanoseconds}: below {NANOSECONDS}");
        }
        plan.time_offsets.push(TimeOffset {
            clock,
            seconds: offset.secs().unwrap_or(0),
            nanoseconds,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(json: &str) -> Result<(LaunchPlan, usize)> {
        let linux: Linux = serde_json::from_str(json).expect("json");
        let (mut plan, mut fds) = (LaunchPlan::default(), Vec::new());
        translate(&linux, &mut plan, &mut fds)?;
        Ok((plan, fds.len()))
    }

    #[test]
    fn translate_new_given_and_shared() {
        let (plan, fds) = translated(
            r#"{"namespaces":[{"type":"mount"},{"type":"network","path":"/proc/self/ns/net"},
               {"type":"user"},{"type":"time"}],
               "uidMappings":[{"containerID":0,"hostID":1000,"size":1}],
               "gidMappings":[{"containerID":0,"hostID":100,"size":10}],
               "timeOffsets":{"monotonic":{"secs":-5},"boottime":{"nanosecs":7}}}"#,
        )
        .expect("translated");
        assert_eq!(fds, 1);
        assert_eq!(plan.namespaces.net, Namespace::Fd(0));
        assert_eq!(plan.namespaces.mount, Namespace::New);
        assert_eq!(plan.namespaces.pid, Namespace::Host);
        assert_eq!(plan.id_mappings.gids.len(), 1);
        let clocks: Vec<_> = plan
            .time_offsets
            .iter()
            .map(|offset| (offset.clock, offset.seconds, offset.nanoseconds))
            .collect();
        assert_eq!(clocks, [(Clock::Boottime, 0, 7), (Clock::Monotonic, -5, 0)]);
    }

    #[test]
    fn translate_own_user_namespace_by_path_is_shared() {
        let json =
            r#"{"namespaces":[{"type":"mount"},{"type":"user","path":"/proc/self/ns/user"}]}"#;
        let (plan, fds) = translated(json).expect("translated");
        assert_eq!((plan.namespaces.user, fds), (Namespace::Host, 0));
    }

    #[test]
    fn mount_idmap_option_and_lists() {
        let map = |json: &str| {
            let mount: Mount = serde_json::from_str(json).expect("json");
            mount_idmap(&mount, "mounts[0]")
        };
        let list = r#"[{"containerID":0,"hostID":5,"size":1}]"#;
        let none = map(r#"{"destination":"/x","options":["bind"]}"#).expect("none");
        assert_eq!(none, None);
        let container = map(r#"{"destination":"/x","options":["ridmap"]}"#).expect("some");
        let expected = MountIdMap {
            mappings: None,
            recursive: true,
        };
        assert_eq!(container, Some(expected));
        let own = format!(r#"{{"destination":"/x","uidMappings":{list},"gidMappings":{list}}}"#);
        let own = map(&own).expect("some").expect("some");
        assert!(!own.recursive && own.mappings.is_some_and(|maps| maps.uids.len() == 1));
        let half = format!(r#"{{"destination":"/x","uidMappings":{list}}}"#);
        let error = map(&half).expect_err("half").to_string();
        assert!(error.contains("mounts[0].gidMappings"), "{error}");
    }

    #[test]
    fn translate_contradictions_name_their_field() {
        for (json, part) in [
            (
                r#"{"namespaces":[{"type":"pid"},{"type":"pid"}]}"#,
                "linux.namespaces[1]: pid is there twice",
            ),
            (
                r#"{"namespaces":[{"type":"network","path":"/proc/self/ns/uts"}]}"#,
                "linux.namespaces[0].path: /proc/self/ns/uts is no net namespace",
            ),
            (
                r#"{"namespaces":[{"type":"network","path":"/etc/passwd"}]}"#,
                "is no namespace at all",
            ),
            (
                r#"{"namespaces":[{"type":"network","path":"relative"}]}"#,
                "not an absolute path",
            ),
            (
                r#"{"namespaces":[{"type":"network","path":"/no/such"}]}"#,
                "linux.namespaces[0].path: cannot open /no/such",
            ),
            (
                r#"{"namespaces":[{"type":"user"}],"uidMappings":[{"containerID":0,"hostID":1,"size":1}]}"#,
                "linux.gidMappings: a new user namespace needs some",
            ),
            (
                r#"{"namespaces":[],"uidMappings":[{"containerID":0,"hostID":1,"size":1}]}"#,
                "linux.uidMappings: ids are mapped in a user namespace alone",
            ),
            (
                r#"{"namespaces":[],"timeOffsets":{"monotonic":{"secs":1}}}"#,
                "linux.timeOffsets: clocks are set in a new time namespace alone",
            ),
            (
                r#"{"namespaces":[{"type":"time"}],"timeOffsets":{"realtime":{"secs":1}}}"#,
                "linux.timeOffsets.realtime: the clocks are",
            ),
            (
                r#"{"namespaces":[{"type":"time"}],"timeOffsets":{"boottime":{"nanosecs":1000000000}}}"#,
                "linux.timeOffsets.boottime.nanosecs 1000000000",
            ),
            (
                r#"{"namespaces":[],"maskedPaths":["/proc/kcore"]}"#,
                "linux.maskedPaths: paths cannot be restricted",
            ),
        ] {
            let error = translated(json).expect_err(json).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
