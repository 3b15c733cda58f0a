//! Groups in the v1 hierarchies of the host.

use super::*;
use crate::features::Features;

/// A group on a host with v1 hierarchies.
fn with_group(name: &str, test: impl FnOnce(&Hierarchies, &str, &dyn Cgroup)) {
    let Ok(hierarchies) = Hierarchies::detect() else {
        return;
    };
    if hierarchies.is_v2() {
        return;
    }
    let path = format!("/hull-v1-{name}-{}/leaf", std::process::id());
    let group = hierarchies
        .create(&path, &Resources::default(), Features::probe())
        .expect("create");
    test(&hierarchies, &path, group.as_ref());
    // What update made is the whole group's by now.
    let whole = hierarchies.open(&path, Features::probe()).expect("open");
    whole.expect("group").remove().expect("remove");
    for v1 in &hierarchies.v1 {
        let parent = v1.mount.join(path.trim_start_matches('/'));
        let _ = rustix::fs::rmdir(parent.parent().expect("parent"));
    }
    if let Some(mount) = &hierarchies.v2 {
        let parent = mount.join(path.trim_start_matches('/'));
        let _ = rustix::fs::rmdir(parent.parent().expect("parent"));
    }
}

fn sleeper(group: &dyn Cgroup) -> crate::clone3::Cloned {
    let args = crate::clone3::Clone3 {
        namespaces: crate::clone3::Namespaces::NONE,
        cgroup: None,
        sibling: false,
    };
    crate::clone3::clone3(&args, || {
        for file in group.join_files() {
            let _ = rustix::io::write(file, b"0");
        }
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    })
    .expect("clone3")
}

fn exact() -> CgroupExtra {
    CgroupExtra {
        exact: true,
        ..CgroupExtra::default()
    }
}

#[test]
fn apply_exact_values_that_bound_each_other_in_any_order() {
    with_group("order", |_, _, group| {
        let mut limits = Resources::default();
        for (memory, both, quota, burst) in [
            (64 << 20, 64 << 20, 50_000, 40_000),
            (256 << 20, 512 << 20, 90_000, 80_000),
            (16 << 20, 16 << 20, 2000, 1000),
        ] {
            limits.memory = Some(memory);
            limits.memory_swap = Some(both);
            limits.cpu_quota = Some(quota);
            let extra = CgroupExtra {
                cpu_burst: Some(burst),
                ..exact()
            };
            group.apply_with(&limits, &extra).expect("apply");
            let stats = group.stats().expect("stats");
            assert_eq!(stats.memory_limit, memory.unsigned_abs());
        }
        // No limit on memory is none on swap, which would have to be raised first.
        limits.memory = Some(-1);
        limits.memory_swap = None;
        group.apply_with(&limits, &exact()).expect("apply");
        assert_eq!(group.stats().expect("stats").memory_limit, u64::MAX);
    });
}

#[test]
fn open_for_late_limit_gets_its_directory_and_the_processes() {
    with_group("late", |hierarchies, path, group| {
        let child = sleeper(group);
        let pid = child.pid.as_raw_nonzero().get();
        while !group.pids().expect("pids").contains(&pid) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let limits = Resources {
            cpuset_cpus: Some("0".to_owned()),
            ..Resources::default()
        };
        assert!(group.apply(&limits).is_err());
        let whole = hierarchies
            .open_for(path, &limits, &exact(), Features::probe())
            .expect("open")
            .expect("group");
        whole.apply(&limits).expect("apply");
        let cpuset = whole.views().into_iter().find(|view| view.name == "cpuset");
        let inside = std::fs::read_to_string(cpuset.expect("view").path.join("cgroup.procs"));
        assert_eq!(inside.expect("processes").trim(), pid.to_string());
        whole.kill_all().expect("kill");
        crate::pidfd::wait(&child.pidfd, true).expect("wait");
    });
}

#[test]
fn apply_huge_pages_in_the_v2_tree_of_a_hybrid_host() {
    with_group("pages", |hierarchies, path, group| {
        let mut extra = exact();
        extra.hugetlb.insert("2MB".to_owned(), 4 << 20);
        let none = Resources::default();
        let Ok(whole) = hierarchies.open_for(path, &none, &extra, Features::probe()) else {
            // Nowhere on this host.
            return;
        };
        let whole = whole.expect("group");
        whole.apply_with(&none, &extra).expect("apply");
        let views = whole.views();
        let found = views.iter().find_map(|view| {
            ["hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes"]
                .iter()
                .find_map(|file| std::fs::read_to_string(view.path.join(file)).ok())
        });
        assert_eq!(found.as_deref().map(str::trim), Some("4194304"));
        assert!(views.len() > group.views().len());
    });
}

#[test]
fn remove_process_that_came_late_is_killed() {
    with_group("straggler", |hierarchies, path, group| {
        let child = sleeper(group);
        while group.pids().expect("pids").is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let start = Instant::now();
        group.remove().expect("remove");
        assert!(start.elapsed() < Duration::from_secs(2));
        let ended = crate::pidfd::wait(&child.pidfd, true).expect("wait");
        assert_eq!(ended.map(|ended| ended.exit.status()), Some(137));
        let _ = hierarchies.create(path, &Resources::default(), Features::probe());
    });
}

#[test]
fn abandon_parents_that_were_made_are_gone() {
    let Ok(hierarchies) = Hierarchies::detect() else {
        return;
    };
    let path = format!("/hull-v1-abandon-{}/a/b", std::process::id());
    let features = Features::probe();
    let group = hierarchies
        .create(&path, &Resources::default(), features)
        .expect("create");
    let views = group.views();
    group.abandon();
    for view in views {
        let top = view.path.parent().and_then(std::path::Path::parent);
        assert!(!top.expect("parents").exists(), "{}", view.path.display());
    }
}
