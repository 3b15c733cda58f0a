//! linux.intelRdt: a class of service of resctrl, which shares out the processor's cache and its
//! bandwidth to memory.
//!
//! ```text
//! /sys/fs/resctrl/CLOS/schemata, tasks
//! /sys/fs/resctrl/CLOS/mon_groups/ID/tasks      with monitoring
//! ```

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use hull_proto::oci::IntelRdt;
use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};

/// The class of the whole machine.
const ROOT_CLASS: &str = "/";

/// What a container has of it, to be removed with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    /// Folder of the class.
    class: PathBuf,
    /// Made for this container alone.
    own: bool,
    /// Folder of the monitoring group.
    monitor: Option<PathBuf>,
}

/// Translates and checks what can be checked without the hardware.
#[allow(deprecated)] // bundles still ask for monitoring in the old way
pub(crate) fn translate(rdt: &LinuxIntelRdt) -> Result<IntelRdt> {
    let class = rdt.clos_id().clone().unwrap_or_default();
    let plain = class == ROOT_CLASS
        || !(class.contains(['/', '\n', '\0']) || matches!(class.as_str(), "." | ".."));
    if !plain {
        bail!("config.json: linux.intelRdt.closID {class:?} is no name of a folder");
    }
    let plan = IntelRdt {
        clos_id: class,
        schemata: rdt.schemata().clone().unwrap_or_default(),
        l3_cache_schema: rdt.l3_cache_schema().clone().unwrap_or_default(),
        mem_bw_schema: rdt.mem_bw_schema().clone().unwrap_or_default(),
        monitoring: [rdt.enable_monitoring(), rdt.enable_cmt(), rdt.enable_mbm()]
            .into_iter()
            .any(|wish| *wish == Some(true)),
    };
    if plan.schemata.iter().any(|line| line.contains('\n')) {
        bail!("config.json: linux.intelRdt.schemata: a line holds a line break");
    }
    for (name, lines) in [
        ("l3CacheSchema", &plan.l3_cache_schema),
        ("memBwSchema", &plan.mem_bw_schema),
    ] {
        if lines.contains('\0') {
            bail!("config.json: linux.intelRdt.{name} holds a zero byte");
        }
    }
    Ok(plan)
}

/// Where resctrl is mounted.
pub(crate) fn find() -> Result<PathBuf> {
    let table =
        fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    mount_point(&table).context(
        "linux.intelRdt: resctrl is not mounted: where the processor has it, \
         mount -t resctrl resctrl /sys/fs/resctrl",
    )
}

fn mount_point(table: &str) -> Option<PathBuf> {
    table.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        kind.starts_with("resctrl ")
            .then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// Puts a process into its class, which is made if need be.
pub(crate) fn apply(root: &Path, plan: &IntelRdt, id: &str, pid: u32) -> Result<Group> {
    let class = match plan.clos_id.as_str() {
        "" => root.join(id),
        ROOT_CLASS => root.to_owned(),
        name => root.join(name),
    };
    let mut group = Group {
        own: plan.clos_id.is_empty(),
        class,
        monitor: None,
    };
    let done = fill(plan, id, pid, &mut group);
    if done.is_err() {
        group.remove();
    }
    done.map(|()| group)
}

fn fill(plan: &IntelRdt, id: &str, pid: u32, group: &mut Group) -> Result<()> {
    let class = group.class.clone();
    let lines = lines(plan);
    let is_new = match fs::create_dir(&class) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
        Err(error) => {
            return Err(error).with_context(|| {
                format!(
                    "linux.intelRdt: cannot make the class of service {}",
                    class.display()
                )
            });
        }
    };
    if is_new && !group.own && lines.is_empty() {
        let _ = fs::remove_dir(&class);
        bail!(
            "linux.intelRdt.closID: there is no class of service {}, and no schema to make one by",
            class.display()
        );
    }
    if !lines.is_empty() {
        let file = class.join("schemata");
        if !is_new && !group.own && plan.schemata.is_empty() {
            compare(&file, &lines)?;
        } else {
            let text = lines.join("\n") + "\n";
            fs::write(&file, text).with_context(|| {
                let why = fs::read_to_string("/sys/fs/resctrl/info/last_cmd_status");
                let why = why.unwrap_or_default();
                format!(
                    "linux.intelRdt: cannot write {}: {}",
                    file.display(),
                    why.trim()
                )
            })?;
        }
    }
    join(&class, pid)?;
    if plan.monitoring {
        let monitor = class.join("mon_groups").join(id);
        fs::create_dir(&monitor).with_context(|| {
            format!(
                "linux.intelRdt.enableMonitoring: cannot make {}",
                monitor.display()
            )
        })?;
        group.monitor = Some(monitor.clone());
        join(&monitor, pid)?;
    }
    Ok(())
}

/// The lines to write: the two schemas, and what replaces lines of the same kind.
fn lines(plan: &IntelRdt) -> Vec<String> {
    let given = [&plan.l3_cache_schema, &plan.mem_bw_schema];
    let given = given.into_iter().flat_map(|text| text.lines());
    given
        .chain(plan.schemata.iter().map(String::as_str))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A class that others made is used only as it is.
fn compare(file: &Path, wanted: &[String]) -> Result<()> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("linux.intelRdt: cannot read {}", file.display()))?;
    let plain = |line: &str| line.split_whitespace().collect::<String>();
    let has: Vec<String> = text.lines().map(plain).collect();
    match wanted.iter().find(|line| !has.contains(&plain(line))) {
        Some(line) => bail!(
            "linux.intelRdt: {} does not have the line {line:?}: the class is another's",
            file.display()
        ),
        None => Ok(()),
    }
}

fn join(group: &Path, pid: u32) -> Result<()> {
    let tasks = group.join("tasks");
    fs::write(&tasks, pid.to_string())
        .with_context(|| format!("linux.intelRdt: cannot write {}", tasks.display()))
}

impl Group {
    /// Removes what was made for the container.
    pub(crate) fn remove(&self) {
        // Whoever has removed it before has done the same; its tasks go to the root class.
        if let Some(monitor) = &self.monitor {
            let _ = fs::remove_dir(monitor);
        }
        if self.own {
            let _ = fs::remove_dir(&self.class);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<IntelRdt> {
        translate(&serde_json::from_str(text).expect("json"))
    }

    #[test]
    fn mount_point_is_found_by_its_type() {
        let table = "1 2 0:1 / /sys rw - sysfs sysfs rw\n3 2 0:2 / /r rw - resctrl resctrl rw\n";
        assert_eq!(mount_point(table), Some(PathBuf::from("/r")));
        assert_eq!(mount_point("1 2 0:1 / / rw - ext4 /dev/x rw\n"), None);
    }

    #[test]
    fn apply_own_class_gets_schemas_process_and_monitor_and_goes() {
        let root = tempfile::tempdir().expect("dir");
        fs::create_dir_all(root.path().join("c1/mon_groups")).expect("as the kernel makes it");
        let plan = plan(
            r#"{"l3CacheSchema":"L3:0=f","memBwSchema":"MB:0=20","schemata":["L2:0=3"],
               "enableMonitoring":true}"#,
        )
        .expect("plan");
        let group = apply(root.path(), &plan, "c1", 42).expect("applied");
        let read = |name: &str| fs::read_to_string(root.path().join(name)).expect(name);
        assert_eq!(read("c1/schemata"), "L3:0=f\nMB:0=20\nL2:0=3\n");
        assert_eq!(read("c1/tasks"), "42");
        assert_eq!(read("c1/mon_groups/c1/tasks"), "42");
        assert!(group.own && group.monitor.is_some());
    }

    #[test]
    fn apply_class_of_others_must_be_there_and_the_same() {
        let root = tempfile::tempdir().expect("dir");
        let missing = plan(r#"{"closID":"gold"}"#).expect("plan");
        assert!(apply(root.path(), &missing, "c", 1).is_err());
        assert!(!root.path().join("gold").exists());
        fs::create_dir(root.path().join("gold")).expect("class");
        fs::write(root.path().join("gold/schemata"), "    L3:0=f\n").expect("schemata");
        let same = plan(r#"{"closID":"gold","l3CacheSchema":"L3:0=f"}"#).expect("plan");
        let group = apply(root.path(), &same, "c", 1).expect("joined");
        group.remove();
        assert!(root.path().join("gold").exists());
        let other = plan(r#"{"closID":"gold","l3CacheSchema":"L3:0=1"}"#).expect("plan");
        assert!(apply(root.path(), &other, "c", 1).is_err());
    }

    #[test]
    fn translate_class_that_leads_elsewhere_is_refused() {
        for bad in [r#"{"closID":".."}"#, r#"{"closID":"a/b"}"#] {
            assert!(plan(bad).is_err(), "{bad}");
        }
        assert!(plan(r#"{"closID":"/"}"#).is_ok());
    }
}
