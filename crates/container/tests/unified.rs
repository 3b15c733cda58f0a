//! Containers on the v2 tree: born in their group, which they see as the root of the tree.

mod support;

use hull_sys::features::Feature;
use support::{Fixture, process};

/// A fixture that uses the v2 tree alone; none where it is not mounted.
fn fixture() -> Option<Fixture> {
    let mut fixture = Fixture::new();
    fixture.host.hierarchies = fixture.host.hierarchies.clone().v2_alone();
    fixture.host.hierarchies.is_v2().then_some(fixture)
}

#[test]
fn launch_v2_process_is_born_in_its_group_and_sees_it_as_the_root() {
    let Some(mut fixture) = fixture() else { return };
    for into_cgroup in [true, false] {
        if !into_cgroup {
            fixture.host.features = fixture.host.features.without(Feature::CloneIntoCgroup);
        }
        let script = "grep ^0: /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs | head -n 1; \
                      mkdir /sys/fs/cgroup/x; mount | grep -c 'type cgroup2 (ro'; cat /dev/kmsg";
        let (text, _) = fixture.run(&fixture.plan(script));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[..2], ["0::/", "1"], "{text}");
        assert!(text.contains("Read-only file system"), "{text}");
        assert!(lines.contains(&"1"), "{text}");
    }
}

#[test]
fn launch_v2_device_program_denies_what_no_rule_allows() {
    let Some(fixture) = fixture() else { return };
    let script = "mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg; head -c 2 /dev/zero | wc -c";
    let (text, _) = fixture.run(&fixture.plan(script));
    assert!(
        text.contains("Operation not permitted") && text.ends_with("2\n"),
        "{text}"
    );
}

#[test]
fn exec_v2_process_joins_the_group_and_dies_with_it() {
    let Some(fixture) = fixture() else { return };
    let (running, _output) = fixture.start(&fixture.plan("sleep 1000"));
    let plan = process(&["/bin/sh", "-c", "grep ^0: /proc/self/cgroup"]);
    let (text, _) = running.exec(&fixture, &plan).expect("exec");
    assert_eq!(text, "0::/\n");
    running.0.cgroup.freeze().expect("freeze");
    running.0.cgroup.kill_all().expect("kill");
    assert_eq!(running.wait(), 137);
    assert!(running.0.cgroup.stats().expect("stats").cpu_total_ns > 0);
}
