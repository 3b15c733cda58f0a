//! Callers without the rights of root: where their containers are recorded, and what they must ask
//! for.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use hull_container::LaunchError;
use hull_proto::LaunchPlan;
use hull_proto::plan::Namespace;
use hull_sys::Errno;
use hull_sys::cgroup::CgroupError;
use oci_spec::runtime::Spec;
use serde_json::Value;

/// Where containers are recorded unless said otherwise.
const ROOT: &str = "/run/hull-oci";
/// Its name in the folder of the user's session.
const NAME: &str = "hull-oci";
/// Only the user's, and not tidied away: XDG's mark for that is the sticky bit.
const MODE: u32 = 0o1700;

/// The folder of records: that of the session for callers who are not root, as in runc.
pub(crate) fn default_root() -> Result<PathBuf> {
    let session = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    let Some(session) = session.filter(|_| prefers_session()) else {
        return Ok(PathBuf::from(ROOT));
    };
    let root = Path::new(&session).join(NAME);
    let fail = || {
        format!(
            "cannot use {} of $XDG_RUNTIME_DIR: give --root",
            root.display()
        )
    };
    fs::create_dir_all(&root).with_context(fail)?;
    fs::set_permissions(&root, fs::Permissions::from_mode(MODE)).with_context(fail)?;
    Ok(root)
}

fn prefers_session() -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    // Root of a user namespace is a user of the host's, unless he calls himself root.
    in_user_namespace() && std::env::var_os("USER").is_none_or(|user| user != "root")
}

/// Whether root here is another user outside.
fn in_user_namespace() -> bool {
    const ALL: [&str; 3] = ["0", "0", "4294967295"];
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.split_whitespace().eq(ALL)
}

/// Refuses, before anything is made, what a user can have in a user namespace alone.
pub(crate) fn check(plan: &LaunchPlan) -> Result<()> {
    if rustix::process::geteuid().is_root() || plan.namespaces.user != Namespace::Host {
        return Ok(());
    }
    bail!(
        "config.json: linux.namespaces: users other than root need a user namespace with mappings: \
         see hull-oci spec --rootless"
    );
}

/// An error of a launch, with the name of the limit for which the caller may make no control group.
pub(crate) fn name_limit(error: LaunchError, spec: &Spec) -> anyhow::Error {
    let refused = match &error {
        LaunchError::Cgroup(error @ CgroupError::Io { .. }) => matches!(
            error.errno(),
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS)
        ),
        _ => false,
    };
    let is_user = !rustix::process::geteuid().is_root() || in_user_namespace();
    if refused
        && is_user
        && let Some(field) = first_limit(spec)
    {
        return anyhow::Error::new(CgroupError::NotAllowed)
            .context(format!("config.json: linux.resources.{field}"));
    }
    crate::spec::name_field(error)
}

/// The first limit that is set.
fn first_limit(spec: &Spec) -> Option<String> {
    let resources = spec.linux().as_ref()?.resources().as_ref()?;
    let value = serde_json::to_value(resources).ok()?;
    value
        .as_object()?
        .iter()
        .filter(|(name, _)| *name != "devices")
        .find_map(|(name, value)| match value {
            Value::Object(fields) => {
                let field = fields.iter().find(|(_, value)| !value.is_null())?.0;
                Some(format!("{name}.{field}"))
            }
            Value::Array(list) if list.is_empty() => None,
            Value::Null => None,
            _ => Some(name.clone()),
        })
}

/// Processes of a container that has no control group, by its first: those of its pid namespace
/// or, where that is the caller's, its descendants.
pub(crate) fn pids(first: u32) -> Vec<i32> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted = namespace(&first.to_string());
    let first = i32::try_from(first).unwrap_or(0);
    if wanted.is_none() || wanted == namespace("self") {
        return descendants(first);
    }
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| namespace(&pid.to_string()) == wanted)
        .collect()
}

fn descendants(first: i32) -> Vec<i32> {
    let mut found = vec![first];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        let children: Vec<i32> = tasks
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
            .flat_map(|text| {
                let numbers = text.split_whitespace().map(str::parse);
                numbers.filter_map(Result::ok).collect::<Vec<_>>()
            })
            .collect();
        found.extend(children);
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_of_a_shared_namespace_are_the_descendants() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sleep 100 & echo $!; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("sh");
        let mut line = String::new();
        let mut output = std::io::BufReader::new(child.stdout.take().expect("stdout"));
        std::io::BufRead::read_line(&mut output, &mut line).expect("line");
        let grandchild: i32 = line.trim().parse().expect("pid");
        let found = pids(child.id());
        let _ = std::process::Command::new("kill").arg(line.trim()).status();
        let _ = child.wait();
        assert_eq!(found, [i32::try_from(child.id()).expect("pid"), grandchild]);
    }
}
