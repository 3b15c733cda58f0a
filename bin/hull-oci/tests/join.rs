//! Control groups below a container's, and those above it.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use support::{Bundle, Runtime};

/// Makes a group below the container's in each hierarchy that has one; the names of those.
fn make_below(runtime: &Runtime, id: &str, name: &str) -> Vec<PathBuf> {
    let own = runtime.cgroup_dirs().into_iter().map(|dir| dir.join(id));
    let made = own.filter(|dir| dir.is_dir()).map(|dir| dir.join(name));
    let made: Vec<PathBuf> = made.collect();
    for dir in &made {
        fs::create_dir(dir).expect("group");
        // A new cpuset of v1 takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let above = dir.parent().expect("parent").join(file);
            if above.exists() && name_is_v1(dir) {
                let text = fs::read_to_string(above).expect("read");
                fs::write(dir.join(file), text.trim()).expect("write");
            }
        }
    }
    assert!(!made.is_empty());
    made
}

fn name_is_v1(dir: &Path) -> bool {
    dir.join("tasks").exists()
}

/// Path of the process in the hierarchy of a controller.
fn path_in<'a>(groups: &'a str, controller: &str) -> Option<&'a str> {
    groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (names, path) = rest.split_once(':')?;
        names
            .split(',')
            .any(|name| name == controller)
            .then_some(path)
    })
}

#[test]
fn exec_cgroup_runs_below_the_container_as_under_runc() {
    for runtime in Runtime::both() {
        let bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
        runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
        let made = make_below(&runtime, "c", "sub");
        let own = runtime.cgroup("c");
        let groups = |args: &[&str]| {
            let all = [&["exec"], args, &["c", "cat", "/proc/self/cgroup"]].concat();
            runtime.ok(&all)
        };
        let is_v1 = made.len() > 1;
        let controllers: &[&str] = if is_v1 { &["memory", "pids"] } else { &[""] };
        let all = groups(&["--cgroup", "/sub"]);
        for name in controllers {
            assert_eq!(
                path_in(&all, name),
                Some(format!("{own}/sub").as_str()),
                "{all}"
            );
        }
        if is_v1 {
            let some = groups(&["--cgroup", "pids,devices:sub", "--cgroup", "memory:/"]);
            assert_eq!(
                path_in(&some, "pids"),
                Some(format!("{own}/sub").as_str()),
                "{some}"
            );
            assert_eq!(
                path_in(&some, "devices"),
                Some(format!("{own}/sub").as_str()),
                "{some}"
            );
            assert_eq!(path_in(&some, "memory"), Some(own.as_str()), "{some}");
        }
        for bad in [
            &["--cgroup", "missing"][..],
            &["--cgroup", "../.."],
            &["--cgroup", "nonsense:sub"],
            &["--cgroup", "sub", "--cgroup", "sub"],
            &["--cgroup", ":sub"],
        ] {
            // Debian's runc takes an empty name for that of all.
            if bad[1].starts_with(':') && !runtime.is_ours() {
                continue;
            }
            let all = [&["exec"], bad, &["c", "true"]].concat();
            let said = runtime.fails(&all);
            if runtime.is_ours() {
                assert!(said.contains("--cgroup"), "{bad:?}: {said}");
            }
        }
        if runtime.is_ours() {
            // The name begins like the container's, and is another's.
            let other = runtime.cgroup_dirs()[0].join("c2");
            fs::create_dir(&other).expect("group");
            let said = runtime.fails(&["exec", "--cgroup", "../c2", "c", "true"]);
            assert!(said.contains("leads out"), "{said}");
        }
        runtime.ok(&["delete", "--force", "c"]);
    }
}

/// Folders of a group in each hierarchy.
fn found(path: &str) -> Vec<PathBuf> {
    let mut bases = vec![PathBuf::from("/sys/fs/cgroup")];
    let entries = fs::read_dir("/sys/fs/cgroup").expect("groups");
    bases.extend(entries.flatten().map(|entry| entry.path()));
    let dirs = bases
        .iter()
        .map(|base| base.join(path.trim_start_matches('/')));
    dirs.filter(|dir| dir.is_dir()).collect()
}

/// A bundle whose group is not placed by the root, with the parent.
fn relative(runtime: &Runtime, name: &str, args: &[&str]) -> (Bundle, String) {
    let parent = format!("join-test-{}", std::process::id());
    let mut bundle = Bundle::new(runtime, name, args);
    bundle.set("/linux/cgroupsPath", json!(format!("{parent}/{name}")));
    (bundle, format!("/hull-oci/{parent}"))
}

#[test]
fn parents_made_by_default_go_with_the_last_group_and_never_fail_others() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 8;
    let runtime = Runtime::ours();
    let (bundle, parent) = relative(&runtime, "first", &["sleep", "1000"]);
    let (other, _) = relative(&runtime, "other", &["true"]);
    runtime.ok(&["run", "-d", "-b", bundle.path(), "first"]);
    runtime.ok(&["run", "-b", other.path(), "other"]);
    assert!(!found(&parent).is_empty());
    runtime.ok(&["delete", "--force", "first"]);
    assert_eq!(found(&parent), Vec::<PathBuf>::new());
    std::thread::scope(|scope| {
        for number in 0..THREADS {
            let runtime = &runtime;
            scope.spawn(move || {
                let name = format!("c{number}");
                let (bundle, _) = relative(runtime, &name, &["true"]);
                for _ in 0..ROUNDS {
                    runtime.ok(&["run", "-b", bundle.path(), &name]);
                }
            });
        }
    });
    assert_eq!(found(&parent), Vec::<PathBuf>::new());
    // One that fails on its way leaves none either.
    let (mut bundle, parent) = relative(&runtime, "failed", &["/no/such/program"]);
    runtime.fails(&["run", "-b", bundle.path(), "failed"]);
    bundle.set("/linux/resources/unified", json!({ "no.such": "1" }));
    runtime.fails(&["run", "-b", bundle.path(), "failed"]);
    assert_eq!(found(&parent), Vec::<PathBuf>::new());
    assert!(!Path::new(&parent).exists());
}
