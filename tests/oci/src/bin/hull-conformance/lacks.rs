//! What Debian's runc 1.1.5 and crun 1.8.1 are known to lack, and what shows it: a part of their own
//! message, or of what a case saw instead of what it wanted.

use hull_oci_tests::{Kind, host};

/// One item that another runtime does not pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lack {
    item: &'static str,
    pub(crate) reason: &'static str,
    /// What the failure must contain.
    pub(crate) shown: &'static str,
}

const fn lack(item: &'static str, reason: &'static str, shown: &'static str) -> Lack {
    Lack {
        item,
        reason,
        shown,
    }
}

/// Why a runtime does not pass a case, where that is known.
pub(crate) fn of(kind: Kind, name: &str) -> Option<Lack> {
    let (own, here) = match (kind, host::is_pure_v2()) {
        (Kind::Hull, _) => return None,
        (Kind::Runc, false) => (RUNC, RUNC_HYBRID),
        (Kind::Runc, true) => (RUNC, RUNC_V2),
        (Kind::Crun, false) => (CRUN, CRUN_HYBRID),
        (Kind::Crun, true) => (CRUN, CRUN_V2),
    };
    own.iter()
        .chain(here)
        .find(|lack| lack.item == name)
        .copied()
}

/// Debian's runc 1.1.5 on every host.
const RUNC: &[Lack] = &[
    lack(
        "process.scheduler",
        "does not know the field",
        "left: \"0 0\"",
    ),
    lack(
        "process.scheduler.idle",
        "does not know the field",
        "left: \"0\"",
    ),
    lack(
        "process.ioPriority",
        "does not know the field",
        "left: \"none: prio 0\"",
    ),
    lack(
        "process.ioPriority.idle",
        "does not know the field",
        "left: \"none: prio 0\"",
    ),
    lack(
        "process.execCPUAffinity.final",
        "does not know the field",
        "left: \"Cpus_allowed_list:0-1\"",
    ),
    lack(
        "process.execCPUAffinity.of-the-exec",
        "does not know the field",
        "left: \"Cpus_allowed_list:0-1\"",
    ),
    lack("domainname", "does not know the field", "left: \"(none)\""),
    lack(
        "linux.namespaces.time.offsets",
        "does not know the namespace",
        "namespace {\\\"time\\\" \\\"\\\"} does not exist",
    ),
    lack(
        "linux.namespaces.time.exec",
        "does not know the namespace",
        "namespace {\\\"time\\\" \\\"\\\"} does not exist",
    ),
    lack(
        "linux.namespaces.user.path",
        "wants mappings for a namespace that has its own",
        "no uid mappings found",
    ),
    lack(
        "linux.personality",
        "does not know the field",
        "said x86_64",
    ),
    lack(
        "linux.memoryPolicy.bind",
        "does not know the field",
        " default file=",
    ),
    lack(
        "linux.memoryPolicy.flags",
        "does not know the field",
        " default file=",
    ),
    lack("linux.netDevices", "does not know the field", "no inner0"),
    lack(
        "linux.netDevices.own-name",
        "does not know the field",
        "said lo",
    ),
    lack(
        "linux.mountLabel",
        "leaves it to the kernel to refuse",
        "s0:c1,c2",
    ),
    lack(
        "linux.rootfsPropagation",
        "cannot begin from an unbindable root",
        "flags: 0x5000: invalid argument",
    ),
    lack(
        "linux.rootfsPropagation.shared",
        "leaves the root private",
        "rw,relatime - ",
    ),
    lack(
        "mounts.idmap.mappings",
        "does not know mapped mounts",
        "65534:65534",
    ),
    lack(
        "mounts.idmap.option",
        "does not know mapped mounts",
        "65534:65534",
    ),
    lack(
        "mounts.idmap.recursive",
        "does not know mapped mounts",
        "65534:65534",
    ),
    lack(
        "mounts.idmap.without-users",
        "does not know mapped mounts",
        "left: \"5:6\\n\"",
    ),
    lack(
        "linux.resources.cpu.burst",
        "does not know the field",
        "left: \"0\"",
    ),
    lack(
        "linux.resources.cpu.idle",
        "does not know the field",
        "left: \"0\"",
    ),
    lack(
        "update.cpu-idle",
        "does not know the option",
        "flag provided but not defined: -cpu-idle",
    ),
    lack(
        "update.cpu-burst",
        "does not know the option",
        "flag provided but not defined: -cpu-burst",
    ),
    lack(
        "linux.seccomp.flag.log",
        "takes no flags",
        "seccomp flags are not yet supported by runc",
    ),
    lack(
        "linux.seccomp.flag.tsync",
        "takes no flags",
        "seccomp flags are not yet supported by runc",
    ),
    lack(
        "linux.seccomp.flag.spec-allow",
        "takes no flags",
        "seccomp flags are not yet supported by runc",
    ),
    lack("hooks.poststart", "runs it at create", "left: true"),
    lack(
        "hooks.order",
        "runs poststart at create",
        "createContainer again poststart again",
    ),
    lack(
        "hooks.failed.poststart",
        "takes that for a failed create",
        "runc create failed: error running hook #0",
    ),
    lack(
        "hooks.timeout.poststart",
        "takes that for a failed create",
        "hook ran past specified timeout",
    ),
    lack(
        "hooks.failed.poststop",
        "gives up those that follow",
        "the second did not run",
    ),
    lack(
        "refused.ociVersion",
        "does not look at it",
        "was not refused",
    ),
    lack(
        "refused.memory-policy",
        "does not know the field",
        "was not refused",
    ),
];
/// What it lacks on hosts of both versions of control groups.
const RUNC_HYBRID: &[Lack] = &[
    lack(
        "linux.resources.hugepageLimits",
        "knows the hierarchies of v1 alone",
        "cannot set hugetlb limit",
    ),
    lack(
        "linux.resources.hugepageLimits.reserved",
        "knows the hierarchies of v1 alone",
        "cannot set hugetlb limit",
    ),
];
const RUNC_V2: &[Lack] = &[
    lack(
        "linux.resources.hugepageLimits.reserved",
        "limits those in use alone",
        "left: \"max\"",
    ),
    lack(
        "update.checkBeforeUpdate",
        "does not know the field",
        "was not refused, ended with 0",
    ),
];
/// Debian's crun 1.8.1 on every host.
const CRUN: &[Lack] = &[
    lack(
        "process.scheduler",
        "does not know the field",
        "left: \"0 0\"",
    ),
    lack(
        "process.scheduler.idle",
        "does not know the field",
        "left: \"0\"",
    ),
    lack(
        "process.ioPriority",
        "does not know the field",
        "left: \"none: prio 0\"",
    ),
    lack(
        "process.ioPriority.idle",
        "does not know the field",
        "left: \"none: prio 0\"",
    ),
    lack(
        "process.execCPUAffinity.final",
        "does not know the field",
        "left: \"Cpus_allowed_list:0-1\"",
    ),
    lack(
        "process.execCPUAffinity.of-the-exec",
        "does not know the field",
        "left: \"Cpus_allowed_list:0-1\"",
    ),
    lack(
        "process.selinuxLabel",
        "leaves it to the kernel to refuse",
        "write to `/proc/self/attr/keycreate`",
    ),
    lack(
        "linux.mountLabel",
        "leaves it out",
        "was not refused, ended with 0",
    ),
    lack(
        "linux.memoryPolicy.bind",
        "does not know the field",
        " default file=",
    ),
    lack(
        "linux.memoryPolicy.flags",
        "does not know the field",
        " default file=",
    ),
    lack("linux.netDevices", "does not know the field", "no inner0"),
    lack(
        "linux.netDevices.own-name",
        "does not know the field",
        "said lo",
    ),
    lack(
        "linux.intelRdt.class",
        "does not know the field",
        "left: \"\"",
    ),
    lack(
        "linux.intelRdt.class-of-others",
        "does not know the field",
        "tasks: ",
    ),
    lack(
        "linux.namespaces.time.offsets",
        "fails on the offset",
        "write to sync socket: ",
    ),
    lack(
        "linux.namespaces.time.exec",
        "fails on the offset",
        "\"create\", ",
    ),
    lack(
        "mounts.idmap.recursive",
        "does not know the option",
        "65534:65534",
    ),
    lack(
        "mounts.propagation",
        "leaves a tmpfs private",
        "/x rw,relatime - tmpfs",
    ),
    lack(
        "mounts.recursive.rnoatime",
        "cannot set it",
        "mount_setattr `/x`: Invalid argument",
    ),
    lack(
        "mounts.recursive.rnosymfollow",
        "does not know the option",
        "said rw,relatime",
    ),
    lack(
        "refused.mount-in-proc",
        "mounts there",
        "was not refused, ended with 0",
    ),
    lack(
        "refused.unified-path",
        "does not look at it",
        "was not refused, ended with 0",
    ),
    lack(
        "refused.seccomp-notify-without-listener",
        "does not look for one",
        "was not refused, ended with 0",
    ),
    lack(
        "refused.cwd-relative",
        "does not look at it",
        "was not refused",
    ),
    lack(
        "refused.namespace-twice",
        "takes one of them",
        "was not refused",
    ),
    lack(
        "refused.user-without-mappings",
        "makes some up",
        "was not refused",
    ),
    lack(
        "refused.propagation-unknown",
        "does not look at it",
        "was not refused",
    ),
    lack(
        "refused.device-type",
        "does not look at it",
        "was not refused",
    ),
    lack(
        "refused.memory-policy",
        "does not know the field",
        "was not refused",
    ),
    lack(
        "hooks.startContainer",
        "names another bundle",
        "Some(\"/\")",
    ),
    lack(
        "hooks.failed.create-runs-poststop",
        "runs none after a failed create",
        "poststop did not run",
    ),
    lack(
        "state.missing",
        "has other words",
        "No such file or directory",
    ),
    lack("log.json", "has other words", "No such file or directory"),
    lack("log.text", "has other words", "No such file or directory"),
    lack(
        "start.missing",
        "has other words",
        "No such file or directory",
    ),
    lack(
        "exec.cwd-env-user",
        "loses PATH where --env is given",
        "executable file `sh` not found in $PATH",
    ),
    lack(
        "exec.cap",
        "gives that capability alone",
        "0000000000002000",
    ),
    lack(
        "exec.additional-gids",
        "does not know the option",
        "invalid option -- 'g'",
    ),
    lack(
        "kill.unknown-signal",
        "takes it for nothing",
        "ended with 0",
    ),
    lack("list.table", "has another head", "[\"NAME\", \"PID\""),
    lack(
        "ps.table",
        "takes no options for ps",
        "requires a maximum of 1 arguments",
    ),
    lack("spec.rootless", "leaves mappings out", "left: Null"),
    lack(
        "events.stats",
        "has no such command",
        "unknown command events",
    ),
    lack("events.oom", "has no such command", ""),
    lack(
        "features",
        "has no such command",
        "unknown command features",
    ),
    lack(
        "checkpoint.without-criu",
        "is built without it",
        "unknown command checkpoint",
    ),
    lack(
        "checkpoint.missing",
        "is built without it",
        "unknown command checkpoint",
    ),
    lack(
        "checkpoint.stopped",
        "is built without it",
        "unknown command checkpoint",
    ),
    lack(
        "run.tty",
        "leaves the size to others",
        "\"24 80\" was not shown",
    ),
    lack(
        "create.console-socket-unwanted",
        "leaves the socket alone",
        "was not refused, ended with 0",
    ),
];
/// What it cannot do without control groups: it refuses those of hybrid hosts.
const CRUN_HYBRID: &[Lack] = &[
    lack(
        "linux.resources.devices.deny",
        NO_GROUPS,
        "No such device or address",
    ),
    lack("linux.resources.devices.allow", NO_GROUPS, "left: "),
    lack("linux.resources.memory.limit", NO_GROUPS, "in []"),
    lack("linux.resources.memory.reservation", NO_GROUPS, "in []"),
    lack("linux.resources.memory.swap", NO_GROUPS, "in []"),
    lack("linux.resources.memory.none", NO_GROUPS, "in []"),
    lack("linux.resources.memory.holds", NO_GROUPS, "left: 0"),
    lack("linux.resources.pids.limit", NO_GROUPS, "in []"),
    lack("linux.resources.pids.none", NO_GROUPS, "in []"),
    lack("linux.resources.pids.holds", NO_GROUPS, "said "),
    lack("linux.resources.cpu.shares", NO_GROUPS, "in []"),
    lack("linux.resources.cpu.quota", NO_GROUPS, "in []"),
    lack("linux.resources.cpu.period", NO_GROUPS, "in []"),
    lack("linux.resources.cpu.burst", NO_GROUPS, "in []"),
    lack("linux.resources.cpu.idle", NO_GROUPS, "in []"),
    lack("linux.resources.cpu.cpus", NO_GROUPS, "in []"),
    lack("linux.resources.cpu.mems", NO_GROUPS, "in []"),
    lack("linux.resources.blockIO.weight", NO_GROUPS, "in []"),
    lack(
        "linux.resources.blockIO.weightDevice",
        NO_GROUPS,
        "ended with 0",
    ),
    lack(
        "linux.resources.blockIO.throttleReadBpsDevice",
        NO_GROUPS,
        "in []",
    ),
    lack(
        "linux.resources.blockIO.throttleWriteBpsDevice",
        NO_GROUPS,
        "in []",
    ),
    lack(
        "linux.resources.blockIO.throttleReadIOPSDevice",
        NO_GROUPS,
        "in []",
    ),
    lack(
        "linux.resources.blockIO.throttleWriteIOPSDevice",
        NO_GROUPS,
        "in []",
    ),
    lack("linux.resources.hugepageLimits", NO_GROUPS, "in []"),
    lack(
        "linux.resources.hugepageLimits.reserved",
        NO_GROUPS,
        "in []",
    ),
    lack(
        "linux.resources.rdma",
        NO_GROUPS,
        "was not refused, ended with 0",
    ),
    lack(
        "linux.resources.unified",
        NO_GROUPS,
        "was not refused, ended with 0",
    ),
    lack("linux.cgroupsPath.none", NO_GROUPS, "said "),
    lack("linux.cgroupsPath.shown", NO_GROUPS, "said "),
    lack("mounts.cgroup.namespaced", NO_GROUPS, "left: "),
    lack(
        "pause.resume",
        NO_GROUPS,
        "cannot pause the container without a cgroup",
    ),
    lack(
        "pause.twice",
        NO_GROUPS,
        "cannot pause the container without a cgroup",
    ),
    lack(
        "exec.paused",
        NO_GROUPS,
        "cannot pause the container without a cgroup",
    ),
    lack("exec.cgroup", NO_GROUPS, "said "),
    lack(
        "exec.ignore-paused",
        NO_GROUPS,
        "cannot pause the container without a cgroup",
    ),
    lack(
        "delete.paused",
        NO_GROUPS,
        "cannot pause the container without a cgroup",
    ),
    lack("ps.json", NO_GROUPS, "the container is not using cgroups"),
    lack("kill.all", NO_GROUPS, "groups: None"),
    lack(
        "rootless.limit-is-refused",
        NO_GROUPS,
        "was not refused, ended with 0",
    ),
    lack("failed.cpus", NO_GROUPS, "was not refused"),
];
const CRUN_V2: &[Lack] = &[
    lack(
        "process.apparmorProfile.exec",
        "names the file alone",
        "`/proc/thread-self/attr/exec`",
    ),
    lack(
        "linux.resources.cpu.burst",
        "does not know the field",
        "left: \"0\"",
    ),
    lack(
        "linux.resources.hugepageLimits.reserved",
        "limits those in use alone",
        "left: \"max\"",
    ),
    lack(
        "linux.resources.blockIO.weightDevice",
        "leaves the group of a container it could not make",
        "cgroup /sys/fs/cgroup",
    ),
    lack(
        "linux.resources.rdma",
        "leaves it out",
        "was not refused, ended with 0",
    ),
    lack(
        "update.memory-suffix",
        "takes bytes alone",
        "invalid char in json text",
    ),
    lack(
        "update.cpu-idle",
        "does not know the option",
        "unrecognized option '--cpu-idle'",
    ),
    lack(
        "update.cpu-burst",
        "does not know the option",
        "unrecognized option '--cpu-burst'",
    ),
    lack(
        "update.stdin",
        "opens /dev/stdin by its name",
        "error opening file `/dev/stdin`",
    ),
    lack(
        "update.missing",
        "has other words",
        "No such file or directory",
    ),
];

const NO_GROUPS: &str = "runs without control groups here";
