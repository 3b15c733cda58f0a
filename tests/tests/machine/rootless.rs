//! `hull-oci` for users without privileges on pure cgroup v2: with and without ids to give away,
//! with and without a group that was given to them.

use hull_testkit::machine::Guest;

use crate::kit::{Scratch, furnish};

/// Who runs a script.
#[derive(Clone, Copy)]
enum Who {
    /// Has subordinate ids; lives in a control group of his own.
    Ada,
    /// Has subordinate ids and no group.
    AdaBare,
    /// Has neither.
    Bob,
}

/// Begins each script of a user.
const USER: &str = r#"set -u
. /kit.sh
export XDG_RUNTIME_DIR=/run/user/$(id -u) HOME=/home/$(id -un) B=/home/$(id -un)/b
cd "$HOME"
U=$(id -u); G=$(id -g)
# One id: the user's own, as root inside.
ONE=".linux.uidMappings = [{containerID:0,hostID:$U,size:1}] | .linux.gidMappings = [{containerID:0,hostID:$G,size:1}]"
MANY=".linux.uidMappings = [{containerID:0,hostID:$U,size:1},{containerID:1,hostID:100000,size:65536}] | .linux.gidMappings = [{containerID:0,hostID:$G,size:1},{containerID:1,hostID:100000,size:65536}]"
# What a user can have: a user namespace, a terminal group that is mapped, no limits unless asked.
rootless() {
  make "$1" "$2"' | .linux.namespaces |= (map(select(.type != "user" and .type != "network")) + [{type:"user"}]) | del(.linux.resources) |
   .mounts |= map(select(.destination != "/sys/fs/cgroup") | if .type == "sysfs" then {destination:"/sys",type:"none",source:"/sys",options:["rbind","nosuid","noexec","nodev","ro"]} else . end |
   .options |= if . then map(select(. != "gid=5")) else . end) | '"${3:-.}"
}
"#;

const SCRIPTS: [(&str, Who, &str); 13] = [
    (
        "many",
        Who::Ada,
        r#"rootless many "$MANY" '.process.args = ["sh","-c","id -u; cat /proc/self/uid_map /proc/self/gid_map; touch /tmp/x; chown 33:33 /tmp/x && stat -c %u /tmp/x; echo x >/dev/null && echo null"] | .process.capabilities |= map_values(. + ["CAP_CHOWN"])'
run many; stat -c %u "$B/many/rootfs/tmp/x""#,
    ),
    (
        "user",
        Who::Ada,
        r#"rootless user "$MANY" '.process.user = {uid:33,gid:33,additionalGids:[44]} | .process.args = ["id"]'
run user"#,
    ),
    (
        "limits",
        Who::Ada,
        r#"rootless limits "$MANY" '.process.args = ["sleep","100"] | .linux.cgroupsPath = "/ada/limits" | .linux.resources = {memory:{limit:67108864},pids:{limit:20},cpu:{quota:50000,period:100000}}'
hull-oci run -d --bundle $B/limits limits </dev/null || fail run
G=/sys/fs/cgroup/ada/limits; is $G/memory.max 67108864; is $G/pids.max 20; is $G/cpu.max "50000 100000"
test "$(hull-oci exec limits cat /proc/self/cgroup)" = 0::/ || fail exec
hull-oci pause limits; has $G/cgroup.events "frozen 1"; hull-oci resume limits
hull-oci update --memory 33554432 limits; is $G/memory.max 33554432
hull-oci ps limits | grep -c sleep; hull-oci kill limits KILL; sleep 1; hull-oci delete limits || fail delete; test ! -e $G || fail stays; echo whole"#,
    ),
    (
        "exec",
        Who::Ada,
        r#"rootless exec "$MANY" '.process.args = ["sleep","100"]'
hull-oci run -d --bundle $B/exec exec </dev/null || fail run
hull-oci exec exec sh -c 'id -u; cat /proc/self/uid_map | wc -l; ls /home 2>/dev/null; kill -0 1 && echo sees; cat /proc/self/status | grep CapEff'
hull-oci exec --user 5:6 exec id
hull-oci state exec | jq -r .status; hull-oci delete -f exec; hull-oci list -q; echo whole"#,
    ),
    (
        "one",
        Who::Bob,
        r#"rootless one "$ONE" '.process.args = ["sh","-c","id -u; cat /proc/self/uid_map /proc/self/setgroups; touch /tmp/x; mount -t tmpfs none /tmp && echo mounted"] | .process.capabilities |= map_values(. + ["CAP_SYS_ADMIN"])'
run one; stat -c %U "$B/one/rootfs/tmp/x""#,
    ),
    (
        "bare",
        Who::Bob,
        r#"rootless bare "$ONE" '.process.args = ["sleep","100"]'
hull-oci create --bundle $B/bare bare </dev/null || fail create
hull-oci start bare && hull-oci exec bare echo inside && hull-oci state bare | jq -r .status
hull-oci kill bare KILL; sleep 1; hull-oci delete bare && hull-oci list -q; echo whole"#,
    ),
    // Limits that cannot be set are no reason to run without them.
    (
        "refused",
        Who::Bob,
        r#"rootless refused "$ONE" '.process.args = ["true"] | .linux.resources = {memory:{limit:67108864}}'
run refused && fail "it ran without its limit"; hull-oci list -q; ls -A $XDG_RUNTIME_DIR/hull-oci 2>/dev/null; echo refused"#,
    ),
    // Ids that are not his.
    (
        "stolen",
        Who::Bob,
        r#"rootless stolen "$MANY" '.process.args = ["true"]'
run stolen && fail "it ran"; rootless stolen2 '.linux.uidMappings = [{containerID:0,hostID:0,size:1}] | .linux.gidMappings = [{containerID:0,hostID:0,size:1}]' '.process.args = ["true"]'
run stolen2 && fail "it ran as root"; hull-oci list -q; echo refused"#,
    ),
    (
        "ungrouped",
        Who::AdaBare,
        r#"rootless ungrouped "$MANY" '.process.args = ["sh","-c","echo ran; cat /proc/self/cgroup"]'
run ungrouped"#,
    ),
    // CVE-2023-25809: without a namespace of groups the host's files must not be written to.
    (
        "groups",
        Who::Ada,
        r#"rootless groups "$MANY" '.process.args = ["sh","-c","ls /sys/fs/cgroup >/dev/null; mkdir /sys/fs/cgroup/x; mkdir /sys/fs/cgroup/ada/x; echo 1 >/sys/fs/cgroup/ada/cgroup.freeze; true"] | .linux.namespaces |= map(select(.type != "cgroup")) | .mounts += [{destination:"/sys/fs/cgroup",type:"cgroup",source:"cgroup",options:["nosuid","noexec","nodev","relatime","ro"]}]'
run groups; test ! -e /sys/fs/cgroup/x && test ! -e /sys/fs/cgroup/ada/x && test $(cat /sys/fs/cgroup/ada/cgroup.freeze) = 0 && echo safe"#,
    ),
    (
        "spec",
        Who::Bob,
        r#"ROOTLESS=1 make spec '.process.args = ["id","-u"]' || fail spec
run spec"#,
    ),
    // Without the helpers, one id still works and more are refused by their name.
    (
        "unhelped",
        Who::Ada,
        r#"rootless unhelped "$MANY" '.process.args = ["true"]'
PATH=/payload/hull:/run/few run unhelped && fail "it ran"; rootless unhelped1 "$ONE" '.process.args = ["id","-u"]'
PATH=/payload/hull:/run/few run unhelped1"#,
    ),
    (
        "ports",
        Who::Ada,
        r#"rootless ports "$MANY" '.process.args = ["cat","/proc/sys/net/ipv4/ip_unprivileged_port_start","/proc/sys/kernel/hostname"] | .hostname = "boxed" | .linux.namespaces += [{type:"network"}] | .linux.sysctl = {"net.ipv4.ip_unprivileged_port_start":"0"}'
run ports"#,
    ),
];

/// A group given to ada as systemd gives one, a folder for each user, few programs for one test.
const PREPARE: &str = r"mkdir -p /run/user/1000 /run/user/1001 /run/few; chown ada:ada /run/user/1000; chown bob:bob /run/user/1001; chmod 700 /run/user/*
mkdir /sys/fs/cgroup/ada /sys/fs/cgroup/ada/shell /sys/fs/cgroup/others
for file in . cgroup.procs cgroup.subtree_control cgroup.threads shell shell/cgroup.procs; do chown ada /sys/fs/cgroup/ada/$file; done
for c in cpu memory pids cpuset io; do echo +$c >/sys/fs/cgroup/ada/cgroup.subtree_control; done
for program in cat jq mkdir cp ln rm mv id bash sh stat; do ln -s $(command -v $program) /run/few/$program; done
chmod -R a+rX /payload; cat /sys/fs/cgroup/ada/cgroup.subtree_control";

#[test]
fn oci_for_users_without_privileges() {
    let scratch = Scratch::new("rootless");
    let mut guest = furnish(Guest::script(&scratch.0), &[("prepare", PREPARE)]);
    for (name, who, script) in SCRIPTS {
        let (user, group) = match who {
            Who::Ada => ("ada", "ada/shell"),
            Who::AdaBare => ("ada", "others"),
            Who::Bob => ("bob", "others"),
        };
        let path = format!("/scripts/{name}.sh");
        guest = guest.text(&path, 0o755, &format!("{USER}{script}\n"));
        guest = guest.command(
            name,
            &format!(
                "echo 0 >/sys/fs/cgroup/{group}/cgroup.procs; timeout 30 runuser -u {user} -- bash {path}"
            ),
        );
    }
    guest = furnish(
        guest,
        &[(
            "end",
            "find /sys/fs/cgroup -mindepth 1 -type d; pgrep -a -u ada,bob; ls -A /run/user/*/hull-oci; echo clean",
        )],
    );
    let report = guest.run();
    report.check("prepare", 0, "memory");
    report.check("many", 0, "0\n         0       1000          1\n         1     100000      65536\n         0       1000          1\n         1     100000      65536\n33\nnull\n100032");
    report.check("user", 0, "uid=33 gid=33 groups=44");
    report.check("limits", 0, "whole");
    report.check("exec", 0, "0\n2\n");
    report.check("exec", 0, "uid=5 gid=6");
    report.check(
        "one",
        0,
        "0\n         0       1001          1\ndeny\nmounted\nbob",
    );
    report.check("bare", 0, "inside\nrunning\nwhole");
    report.check("refused", 0, "linux.resources");
    report.check("stolen", 0, "newuidmap");
    report.check("ungrouped", 0, "ran");
    report.check("groups", 0, "safe");
    report.check("spec", 0, "0");
    report.check("unhelped", 0, "newuidmap");
    report.check("ports", 0, "0\nboxed");
    report.check("end", 0, "clean");
}
