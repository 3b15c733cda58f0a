//! `linux.cgroupsPath` of config.json in both forms: a path below the root of each hierarchy, or
//! `slice:prefix:name` of a unit that systemd makes.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use hull_container::Host;
use hull_proto::LaunchPlan;
use hull_proto::oci::SystemdUnit;
use oci_spec::runtime::Spec;

/// Where control groups go that the specification does not place.
const CGROUP_PARENT: &str = "/hull-oci";
/// Slices of units whose specification names none.
const SYSTEM_SLICE: &str = "system.slice";
const USER_SLICE: &str = "user.slice";
/// First part of the name of a unit that the specification does not name.
const UNIT_PREFIX: &str = "hull";
/// Annotations that are properties of the unit.
const PROPERTY: &str = "org.systemd.property.";
/// Longest name of a unit (`UNIT_NAME_MAX`).
const MAX_UNIT_BYTES: usize = 255;

/// Places the control group of the plan.
pub(crate) fn place(spec: &Spec, plan: &mut LaunchPlan, systemd: bool) -> Result<()> {
    let given = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.cgroups_path().as_ref())
        .map(|path| {
            path.to_str()
                .context("config.json: linux.cgroupsPath is not valid UTF-8")
        })
        .transpose()?
        .unwrap_or_default();
    if !systemd {
        plan.cgroup.path = path(given, &plan.id)?;
        return Ok(());
    }
    let user = !rustix::process::geteuid().is_root() || in_user_namespace();
    let mut unit = unit(given, &plan.id, user)?;
    for (name, value) in spec.annotations().iter().flatten() {
        if let Some(property) = name.strip_prefix(PROPERTY) {
            let plain = property.len() >= 3 && property.bytes().all(|b| b.is_ascii_alphabetic());
            if !plain {
                bail!("config.json: annotations.{name}: {property:?} is no name of a property");
            }
            unit.properties.insert(property.to_owned(), value.clone());
        }
    }
    // Below the group of the manager that makes it, which is asked for later.
    plan.cgroup.path = format!("{}/{}", slice_path(&unit.slice)?, unit.unit);
    plan.cgroup.extra.systemd = true;
    plan.cgroup.systemd = Some(unit);
    Ok(())
}

/// Removes the groups that are made for others by default, once nothing is in them any more.
pub(crate) fn remove_parents(path: &str, host: &Host) {
    let parents = Path::new(path).ancestors().skip(1);
    for parent in parents.take_while(|dir| dir.starts_with(CGROUP_PARENT)) {
        if let Some(parent) = parent.to_str() {
            host.hierarchies.remove_empty(parent);
        }
    }
}

/// Whether root here is another user outside: systemd's own manager is not for such.
fn in_user_namespace() -> bool {
    const ALL: &str = "0 0 4294967295";
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().collect::<Vec<_>>().join(" ") != ALL
}

fn path(given: &str, id: &str) -> Result<String> {
    if given.is_empty() {
        return Ok(format!("{CGROUP_PARENT}/{id}"));
    }
    if given.split('/').any(|part| part == "..") {
        bail!("config.json: linux.cgroupsPath {given:?} must not contain \"..\"");
    }
    if !given.starts_with('/') && given.split(':').count() == 3 {
        bail!(
            "config.json: linux.cgroupsPath {given:?} is systemd's notation, which needs \
             --systemd-cgroup"
        );
    }
    if given.starts_with('/') {
        Ok(given.to_owned())
    } else {
        // The specification leaves the place of a relative path to the runtime.
        Ok(format!("{CGROUP_PARENT}/{given}"))
    }
}

fn unit(given: &str, id: &str, user: bool) -> Result<SystemdUnit> {
    let default_slice = if user { USER_SLICE } else { SYSTEM_SLICE };
    let parts: Vec<&str> = given.split(':').collect();
    let (slice, prefix, name) = match parts.as_slice() {
        [""] => ("", UNIT_PREFIX, id),
        [slice, prefix, name] => (*slice, *prefix, *name),
        _ => bail!(
            "config.json: linux.cgroupsPath {given:?}: with --systemd-cgroup it has the form \
             \"slice:prefix:name\""
        ),
    };
    let slice = if slice.is_empty() {
        default_slice
    } else {
        slice
    };
    if name.is_empty() {
        bail!("config.json: linux.cgroupsPath {given:?} names no unit");
    }
    // A slice's own name is the name of its unit, as in runc.
    let unit = if name.ends_with(".slice") {
        name.to_owned()
    } else if prefix.is_empty() {
        format!("{name}.scope")
    } else {
        format!("{prefix}-{name}.scope")
    };
    for (part, text) in [("slice", slice), ("unit", unit.as_str())] {
        let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if text.len() > MAX_UNIT_BYTES || !text.chars().all(plain) {
            bail!(
                "config.json: linux.cgroupsPath {given:?}: {text:?} is no valid name of a {part}"
            );
        }
    }
    Ok(SystemdUnit {
        slice: slice.to_owned(),
        unit,
        user,
        ..SystemdUnit::default()
    })
}

/// Where a slice is: `a-b.slice` lies in `a.slice`.
fn slice_path(slice: &str) -> Result<String> {
    let invalid = || format!("config.json: linux.cgroupsPath: {slice:?} is no slice");
    let name = slice.strip_suffix(".slice").with_context(invalid)?;
    if name == "-" {
        return Ok(String::new());
    }
    let mut path = String::new();
    let mut prefix = String::new();
    for part in name.split('-') {
        if part.is_empty() {
            bail!(invalid());
        }
        prefix.push_str(part);
        path.push_str(&format!("/{prefix}.slice"));
        prefix.push('-');
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_absolute_stays_and_relative_is_below_our_own() {
        assert_eq!(path("", "c").expect("path"), "/hull-oci/c");
        assert_eq!(path("/a/b", "c").expect("path"), "/a/b");
        assert_eq!(path("a/b", "c").expect("path"), "/hull-oci/a/b");
        for bad in ["/a/../b", "..", "system.slice:docker:abc"] {
            assert!(path(bad, "c").is_err(), "{bad}");
        }
    }

    #[test]
    fn unit_parts_and_defaults() {
        let shown = |given, user| {
            let unit = unit(given, "c", user).expect("unit");
            (unit.slice, unit.unit)
        };
        let pair = |slice: &str, unit: &str| (slice.to_owned(), unit.to_owned());
        assert_eq!(shown("", false), pair("system.slice", "hull-c.scope"));
        assert_eq!(shown("", true), pair("user.slice", "hull-c.scope"));
        assert_eq!(
            shown("machine.slice:docker:abc", false),
            pair("machine.slice", "docker-abc.scope")
        );
        assert_eq!(shown("::abc", false), pair("system.slice", "abc.scope"));
        assert_eq!(shown("a.slice::b.slice", false), pair("a.slice", "b.slice"));
        for bad in ["/a/b", "a:b", "a:b:", "a:b:c:d", "a.slice:b:c/d"] {
            assert!(unit(bad, "c", false).is_err(), "{bad}");
        }
    }

    #[test]
    fn slice_path_each_dash_is_a_level() {
        assert_eq!(slice_path("system.slice").expect("path"), "/system.slice");
        assert_eq!(
            slice_path("a-b-c.slice").expect("path"),
            "/a.slice/a-b.slice/a-b-c.slice"
        );
        assert_eq!(slice_path("-.slice").expect("path"), "");
        for bad in ["system", "-a.slice", "a--b.slice", "a-.slice"] {
            assert!(slice_path(bad).is_err(), "{bad}");
        }
    }
}
