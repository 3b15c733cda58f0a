//! Which control group a process joins that is run in a container.

use std::fs;

use anyhow::{Context as _, Result, bail};
use hull_container::Host;
use hull_sys::cgroup::{Below, Cgroup};

use crate::state::Record;

/// The container's group, or those below it that `--cgroup` names.
pub(crate) fn group(record: &Record, host: &Host, below: &[String]) -> Result<Box<dyn Cgroup>> {
    let below = parse(below)?;
    if !below.is_empty() {
        if record.cgroup.is_empty() {
            bail!("--cgroup: the container has no control group");
        }
        let hierarchies = record.hierarchies(host);
        return hierarchies
            .open_below(&record.cgroup, &below, host.features)
            .context("--cgroup");
    }
    let group = record
        .open_cgroup(host)?
        .context("the container's control group is gone")?;
    if host.hierarchies.is_v2() && is_divided(group.as_ref()) {
        return Ok(of_first_process(record, host).unwrap_or(group));
    }
    Ok(group)
}

/// The forms of runc: one path for all hierarchies, or one for each controller.
fn parse(given: &[String]) -> Result<Vec<Below>> {
    let mut all: Vec<Below> = Vec::new();
    for text in given {
        let Some((controllers, path)) = text.split_once(':') else {
            if given.len() > 1 {
                bail!("--cgroup {text:?}: of several, each needs its CONTROLLER:");
            }
            all.push(Below {
                controller: String::new(),
                path: text.clone(),
            });
            continue;
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                bail!("--cgroup {text:?}: the name of the controller is missing before ':'");
            }
            if all.iter().any(|known| known.controller == controller) {
                bail!("--cgroup {text:?}: controller {controller} is there twice");
            }
            all.push(Below {
                controller: controller.to_owned(),
                path: path.to_owned(),
            });
        }
    }
    Ok(all)
}

/// Whether the group has given its controllers to groups below it: then it takes no process.
fn is_divided(group: &dyn Cgroup) -> bool {
    group.views().iter().any(|view| {
        let given = fs::read_to_string(view.path.join("cgroup.subtree_control"));
        given.is_ok_and(|text| !text.trim().is_empty())
    })
}

/// Where the first process has moved to, as systemd does in a container.
fn of_first_process(record: &Record, host: &Host) -> Option<Box<dyn Cgroup>> {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", record.pid)).ok()?;
    // Only now is it sure that the id was not given to another process meanwhile.
    record.process()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let hierarchies = host.hierarchies.clone().from_mount_points();
    hierarchies.open(path, host.features).ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(given: &[&str]) -> Result<Vec<(String, String)>> {
        let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
        let all = parse(&given)?;
        Ok(all.into_iter().map(|b| (b.controller, b.path)).collect())
    }

    #[test]
    fn parse_forms_of_runc() {
        let pair = |controller: &str, path: &str| (controller.to_owned(), path.to_owned());
        assert_eq!(parsed(&[]).expect("none"), []);
        assert_eq!(parsed(&["/a"]).expect("path"), [pair("", "/a")]);
        assert_eq!(
            parsed(&["cpu,cpuacct:a", "memory:b"]).expect("controllers"),
            [pair("cpu", "a"), pair("cpuacct", "a"), pair("memory", "b")]
        );
        for bad in [&["a", "b"][..], &[":a"], &["cpu,:a"], &["cpu:a", "cpu:b"]] {
            let text = parsed(bad).expect_err("bad").to_string();
            assert!(text.starts_with("--cgroup"), "{text}");
        }
    }
}
