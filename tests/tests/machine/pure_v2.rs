//! `hull-oci` on pure cgroup v2, as root.

use hull_testkit::machine::Guest;

use crate::kit::{Scratch, furnish};

const COMMANDS: [(&str, &str); 2] = [
    (
        "facts",
        "uname -r; cat /sys/fs/cgroup/cgroup.controllers /sys/fs/cgroup/cgroup.subtree_control; cat /sys/kernel/security/lsm; ls -l /dev/vda; cat /proc/uptime; runc --version; crun --version; cat /sys/block/vda/queue/scheduler; ls /sys/fs/cgroup/first; free -m; id ada",
    ),
    ("true", "make true '.process.args = [\"true\"]' && run true"),
];

#[test]
fn oci_on_pure_cgroup_v2() {
    let scratch = Scratch::new("v2");
    let report = furnish(Guest::script(&scratch.0), &COMMANDS).run();
    println!("{}", report.all());
    report.check("facts", 0, "memory");
    report.check("true", 0, "");
}
