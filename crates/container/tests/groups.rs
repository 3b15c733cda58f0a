//! Limits, freezing, killing, counting and out-of-memory notices of the control group.

mod support;

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use hull_model::Ulimit;
use support::{Fixture, process};

#[test]
fn launch_limits_are_set_before_the_process_runs() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan(
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes \
         memory/memory.soft_limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.shares pids/pids.max; \
         cat cpuset/cpuset.cpus; nproc",
    );
    let limits = &mut plan.cgroup.resources;
    limits.memory = Some(64 << 20);
    limits.memory_reservation = Some(32 << 20);
    limits.nano_cpus = Some(1_500_000_000);
    limits.cpu_shares = Some(512);
    limits.pids_limit = Some(50);
    limits.cpuset_cpus = Some("0".to_owned());
    let (text, _) = fixture.run(&plan);
    let expected = "67108864\n134217728\n33554432\n150000\n512\n50\n0\n1\n";
    assert_eq!(text, expected);
}

#[test]
fn apply_update_moves_memory_up_and_down() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan("sleep 1000");
    plan.cgroup.resources.memory = Some(64 << 20);
    let (running, _output) = fixture.start(&plan);
    for size in [256i64 << 20, 32 << 20] {
        let limits = hull_model::Resources {
            memory: Some(size),
            ..Default::default()
        };
        running.0.cgroup.apply(&limits).expect("update");
        assert_eq!(
            running.0.cgroup.stats().expect("stats").memory_limit,
            size as u64
        );
    }
}

#[test]
fn stats_running_container_counts_tasks_and_memory() {
    let fixture = Fixture::new();
    let mut plan =
        fixture.plan("dd if=/dev/zero of=/dev/shm/x bs=1M count=8 2>/dev/null; echo; sleep 1000");
    plan.cgroup.resources.pids_limit = Some(77);
    let (running, mut output) = fixture.start(&plan);
    output.line();
    let stats = running.0.cgroup.stats().expect("stats");
    assert!(stats.memory_usage >= 8 << 20, "{stats:?}");
    assert!(
        stats.cpu_total_ns > 0 && stats.pids_current >= 1,
        "{stats:?}"
    );
    assert_eq!((stats.pids_limit, stats.memory_limit), (77, u64::MAX));
    assert!(
        running
            .0
            .cgroup
            .pids()
            .expect("pids")
            .contains(&(running.0.process.pid as i32))
    );
}

#[test]
fn freeze_counting_process_stops_and_goes_on() {
    let fixture = Fixture::new();
    let (running, _output) = fixture.start(&fixture.plan("while :; do :; done"));
    let group = &running.0.cgroup;
    let used = || group.stats().expect("stats").cpu_total_ns;
    group.freeze().expect("freeze");
    let before = used();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(used(), before);
    group.thaw().expect("thaw");
    std::thread::sleep(Duration::from_millis(50));
    assert!(used() > before);
}

#[test]
fn kill_all_frozen_tree_with_own_groups_of_processes_is_gone() {
    let fixture = Fixture::new();
    let mut plan =
        fixture.plan("for i in 1 2 3 4 5; do setsid sleep 1000 & sleep 1000 & done; echo; wait");
    // Without a pid namespace nothing but the group finds them all.
    plan.namespaces.pid = hull_proto::plan::Namespace::Host;
    plan.masked_paths.clear();
    plan.readonly_paths.clear();
    let (running, mut output) = fixture.start(&plan);
    output.line();
    running.0.cgroup.freeze().expect("freeze");
    running.0.cgroup.kill_all().expect("kill");
    assert_eq!(running.wait(), 137);
    assert!(running.0.cgroup.pids().expect("pids").is_empty());
}

#[test]
fn watch_oom_hungry_process_is_noticed_and_counted() {
    let fixture = Fixture::new();
    let mut plan = fixture
        .plan("sleep 0.1; dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null; echo $?");
    plan.cgroup.resources.memory = Some(16 << 20);
    plan.cgroup.resources.memory_swap = Some(16 << 20);
    let (running, output) = fixture.start(&plan);
    let watch = running.0.cgroup.watch_oom().expect("watch");
    let text = output.text();
    assert_eq!(text, "137\n");
    let mut poll = [rustix::event::PollFd::new(
        &watch,
        rustix::event::PollFlags::IN,
    )];
    let timeout = rustix::event::Timespec {
        tv_sec: 2,
        tv_nsec: 0,
    };
    assert_eq!(rustix::event::poll(&mut poll, Some(&timeout)), Ok(1));
    hull_sys::cgroup::drain(watch.as_fd());
    assert!(running.0.cgroup.oom_kills().expect("count") >= 1);
}

#[test]
fn exec_joins_the_group_and_its_tasks_count() {
    let fixture = Fixture::new();
    let (running, _output) = fixture.start(&fixture.plan("sleep 1000"));
    let (text, _) = running
        .exec(&fixture, &process(&["/bin/cat", "/proc/self/cgroup"]))
        .expect("exec");
    assert!(
        text.lines().any(|line| line.contains(":memory:/")),
        "{text}"
    );
    // In the namespace's root, as seen from inside it.
    assert!(
        text.lines().any(|line| line.ends_with(":memory:/")),
        "{text}"
    );
}

#[test]
fn launch_rlimits_hold_and_those_too_high_are_capped_with_a_warning() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan("ulimit -n; ulimit -c");
    let limit = |name: &str, soft, hard| Ulimit {
        name: name.to_owned(),
        soft,
        hard,
    };
    plan.process.rlimits = vec![limit("nofile", 99, 100), limit("core", 0, 0)];
    assert_eq!(fixture.run(&plan).0, "99\n0\n");
    let now = hull_sys::rlimit::get(libc::RLIMIT_NOFILE).expect("get");
    plan.process.rlimits = vec![limit("nofile", -1, -1)];
    // Privileged hosts may raise it up to the kernel's own bound, which is EPERM as well.
    let (running, output) = fixture.start(&plan);
    let first: u64 = output
        .text()
        .lines()
        .next()
        .and_then(|line| line.parse().ok())
        .expect("number");
    assert_eq!(first, now.hard);
    let warnings = &running.0.process.warnings;
    assert!(
        warnings.iter().any(|text| text.contains("nofile")),
        "{warnings:?}"
    );
}

#[test]
fn launch_lowered_oom_score_without_the_right_is_a_warning() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan("cat /proc/self/oom_score_adj");
    plan.process.oom_score_adj = Some(-900);
    let (running, output) = fixture.start(&plan);
    let allowed = output.text() == "-900\n";
    assert_eq!(
        running.0.process.warnings.is_empty(),
        allowed,
        "{:?}",
        running.0.process.warnings
    );
}

#[test]
fn remove_group_with_children_and_zombies_is_gone_in_time() {
    let fixture = Fixture::new();
    let (running, _output) = fixture.start(&fixture.plan("sleep 1000"));
    for view in running.0.cgroup.views() {
        std::fs::create_dir(view.path.join("child")).expect("mkdir");
    }
    let start = Instant::now();
    running.0.cgroup.kill_all().expect("kill");
    running.wait();
    running.0.cgroup.remove().expect("remove");
    assert!(start.elapsed() < Duration::from_secs(2));
    let features = fixture.host.features;
    let gone = fixture
        .host
        .hierarchies
        .open(&format!("/{}", fixture.id), features)
        .expect("open");
    assert!(gone.is_none());
}
