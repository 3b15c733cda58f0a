//! `hull-oci` on pure cgroup v2, as root: every limit in the group's files, devices by eBPF, the
//! freezer, out of memory, updates; runc's files for the same bundle beside them.

use hull_testkit::machine::Guest;

use crate::kit::{Scratch, furnish};

const COMMANDS: [(&str, &str); 17] = [
    (
        "facts",
        "uname -r; cat /sys/fs/cgroup/cgroup.controllers; test ! -e /sys/fs/cgroup/memory",
    ),
    // A life: each step's traces in state, list, ps and the group.
    (
        "life",
        r#"make life '.process.args = ["sleep","100"] | .linux.cgroupsPath = "/box/life"'
hull-oci create --bundle $B/life --pid-file /run/life.pid life || fail create
G=/sys/fs/cgroup/box/life; is $G/cgroup.procs "$(cat /run/life.pid)"
test "$(hull-oci state life | jq -r .status)" = created || fail created
hull-oci start life; test "$(hull-oci state life | jq -r .status)" = running || fail running
test "$(hull-oci exec life cat /proc/self/cgroup)" = 0::/ || fail "exec is in another group"
test "$(hull-oci exec life stat -c %i /)" = "$(stat -c %i $B/life/rootfs)" || fail "exec has another root"
hull-oci ps life | grep -q sleep || fail ps
hull-oci pause life; has $G/cgroup.events "frozen 1"; test "$(hull-oci state life | jq -r .status)" = paused || fail paused
hull-oci exec life true 2>/dev/null && fail "exec in a paused container"
hull-oci resume life; has $G/cgroup.events "frozen 0"
hull-oci delete life 2>/dev/null && fail "deleted while it runs"
hull-oci kill life KILL; for i in 1 2 3 4 5 6 7 8 9; do test "$(hull-oci state life | jq -r .status)" = stopped && break; sleep 0.3; done
hull-oci delete life || fail delete
test ! -e $G || fail "the group stays"
hull-oci state life 2>/dev/null && fail "the state stays"; echo whole"#,
    ),
    (
        "limits",
        r#"make limits '.process.args = ["sleep","100"] | .linux.cgroupsPath = "/box/limits" | .linux.resources = {
 memory:{limit:67108864, swap:100663296, reservation:33554432},
 cpu:{shares:512, quota:50000, period:100000, burst:10000, cpus:"0-1", mems:"0"},
 pids:{limit:20},
 blockIO:{weight:300, throttleReadBpsDevice:[{major:254,minor:0,rate:1048576}], throttleWriteBpsDevice:[{major:254,minor:0,rate:2097152}],
  throttleReadIOPSDevice:[{major:254,minor:0,rate:100}], throttleWriteIOPSDevice:[{major:254,minor:0,rate:200}]},
 hugepageLimits:[{pageSize:"2MB",limit:4194304}],
 unified:{"memory.high":"50331648","memory.min":"1048576","pids.max":"19"}}'
hull-oci run -d --bundle $B/limits limits </dev/null || fail run
cd /sys/fs/cgroup/box/limits
is memory.max 67108864; is memory.swap.max 33554432; is memory.low 33554432; is memory.high 50331648; is memory.min 1048576
is cpu.max "50000 100000"; is cpu.max.burst 10000; is cpu.weight 20; is cpuset.cpus 0-1; is cpuset.mems 0; is pids.max 19
is io.max "254:0 rbps=1048576 wbps=2097152 riops=100 wiops=200"; grep -qx "default 300" io.bfq.weight || has io.weight 2930
is hugetlb.2MB.max 4194304
hull-oci delete -f limits; echo whole"#,
    ),
    (
        "idle",
        r#"make idle '.process.args = ["sleep","100"] | .linux.cgroupsPath = "/box/idle" | .linux.resources = {cpu:{idle:1},memory:{limit:-1},pids:{limit:-1}}'
hull-oci run -d --bundle $B/idle idle </dev/null || fail run
is /sys/fs/cgroup/box/idle/cpu.idle 1; is /sys/fs/cgroup/box/idle/memory.max max; is /sys/fs/cgroup/box/idle/pids.max max
hull-oci delete -f idle; echo whole"#,
    ),
    // The same bundle by runc: every limit it knows has the same text in its file.
    (
        "runc",
        r#"FILTER='.process.args = ["sleep","100"] | .linux.resources = {devices:[{allow:false,access:"rwm"}],
 memory:{limit:67108864, swap:100663296, reservation:33554432}, cpu:{shares:1024, quota:20000, period:50000, cpus:"1"}, pids:{limit:33},
 blockIO:{weight:500, throttleReadBpsDevice:[{major:254,minor:0,rate:4194304}]}, hugepageLimits:[{pageSize:"2MB",limit:2097152}], unified:{"memory.high":"60000000"}}'
for RUNTIME in hull-oci runc; do
  make $RUNTIME "$FILTER | .linux.cgroupsPath = \"/box/$RUNTIME\" | .linux.namespaces |= map(select(.type != \"cgroup\"))"
  $RUNTIME run -d --bundle $B/$RUNTIME $RUNTIME </dev/null || fail $RUNTIME
  (cd /sys/fs/cgroup/box/$RUNTIME; for file in memory.max memory.high memory.low memory.min memory.swap.max memory.oom.group cpu.max cpu.weight cpu.idle cpuset.cpus pids.max io.max io.weight io.bfq.weight hugetlb.2MB.max; do echo $file $(cat $file); done) >/run/$RUNTIME.files
  $RUNTIME delete -f $RUNTIME
done
diff /run/runc.files /run/hull-oci.files && cat /run/runc.files"#,
    ),
    // Rules of devices: an eBPF program decides; a block device made inside cannot be opened.
    (
        "devices",
        r#"make devices '.process.capabilities |= map_values(. + ["CAP_MKNOD"]) | .process.args = ["sh","-c","mknod /dev/disk b 254 0 && (head -c1 /dev/disk >/dev/null && echo OPENED; head -c 1 /dev/zero | wc -c; echo x >/dev/null && echo null; mknod /dev/wanted c 4 64; : </dev/wanted && echo wanted)"] |
 .linux.resources.devices = [{allow:false,access:"rwm"},{allow:true,type:"b",major:254,minor:0,access:"m"},{allow:true,type:"c",major:4,minor:64,access:"rm"}]'
run devices 2>&1; echo code $?"#,
    ),
    (
        "update",
        r#"make update '.process.args = ["sleep","100"] | .linux.cgroupsPath = "/box/update" | .linux.resources = {memory:{limit:67108864}}'
hull-oci run -d --bundle $B/update update </dev/null || fail run
cd /sys/fs/cgroup/box/update
hull-oci update --memory 134217728 --memory-swap 268435456 --cpu-quota 30000 --cpu-period 60000 --pids-limit 44 --cpuset-cpus 1 --cpu-share 2048 update || fail flags
is memory.max 134217728; is memory.swap.max 134217728; is cpu.max "30000 60000"; is pids.max 44; is cpuset.cpus 1
echo '{"memory":{"limit":33554432,"swap":33554432,"reservation":16777216},"pids":{"limit":-1},"cpu":{"quota":-1}}' | hull-oci update -r - update || fail file
is memory.max 33554432; is memory.swap.max 0; is memory.low 16777216; is pids.max max; has cpu.max "max "
hull-oci delete -f update; echo whole"#,
    ),
    (
        "oom",
        r#"make oom '.process.args = ["sh","-c","dd if=/dev/zero of=/dev/null bs=100M count=1"] | .linux.cgroupsPath = "/box/oom" | .linux.resources = {memory:{limit:16777216,swap:16777216}}'
hull-oci create --bundle $B/oom oom </dev/null || fail create
hull-oci events oom >/run/oom.events & E=$!; sleep 1
hull-oci start oom; for i in 1 2 3 4 5 6 7 8 9; do test "$(hull-oci state oom | jq -r .status)" = stopped && break; sleep 0.3; done
has /sys/fs/cgroup/box/oom/memory.events "oom_kill [1-9]"
sleep 0.5; kill $E 2>/dev/null; jq -c .type /run/oom.events | sort -u; hull-oci delete oom || fail delete; echo whole"#,
    ),
    (
        "events",
        r#"make events '.process.args = ["sleep","100"] | .linux.resources = {memory:{limit:67108864},pids:{limit:50}}'
hull-oci run -d --bundle $B/events events </dev/null || fail run
hull-oci events --stats events >/run/events.json || fail "events: $?"; cat /run/events.json | jq -c '[.type, .id, .data.memory.usage.limit, .data.pids.limit, (.data.memory.usage.usage > 0), (.data.cpu.usage.total > 0), .data.pids.current]'
hull-oci delete -f events"#,
    ),
    // The container's own view of its group: the namespace's root, read-only, nothing above.
    (
        "namespace",
        r#"make namespace '.process.args = ["sh","-c","cat /proc/self/cgroup; cat /sys/fs/cgroup/memory.max; ls /sys/fs/cgroup/box 2>/dev/null; mkdir /sys/fs/cgroup/x 2>&1; cat /proc/self/mountinfo | grep cgroup"] | .linux.resources.memory = {limit:67108864} |
 .mounts += [{destination:"/sys/fs/cgroup",type:"cgroup",source:"cgroup",options:["nosuid","noexec","nodev","relatime","ro"]}]'
run namespace"#,
    ),
    (
        "without",
        r#"make without '.process.args = ["cat","/proc/self/cgroup"] | .linux.cgroupsPath = "/box/deep/er/without" | .linux.namespaces |= map(select(.type != "cgroup"))'
run without"#,
    ),
    // A limit the kernel refuses fails the create, and nothing is left.
    (
        "refused",
        r#"make refused '.process.args = ["true"] | .linux.cgroupsPath = "/box/refused" | .linux.resources = {cpu:{cpus:"77"}}'
run refused 2>&1 && fail "it ran"; test ! -e /sys/fs/cgroup/box/refused || fail "the group stays"; test -z "$(hull-oci list -q)" || fail "it is listed"; echo refused"#,
    ),
    (
        "unified",
        r#"make unified '.process.args = ["true"] | .linux.cgroupsPath = "/box/unified" | .linux.resources = {unified:{"no.such":"1"}}'
run unified 2>&1 && fail "it ran"; make unified '.process.args = ["true"] | .linux.resources = {unified:{"../memory.max":"1"}}'
run unified 2>&1 && fail "it ran"; test ! -e /sys/fs/cgroup/box/unified || fail "the group stays"; echo refused"#,
    ),
    // All processes of a group die together, those of an exec and orphans too.
    (
        "all",
        r#"make all '.process.args = ["sh","-c","sleep 100 & sleep 100"] | .linux.cgroupsPath = "/box/all" | .linux.namespaces |= map(select(.type != "pid"))'
hull-oci run -d --bundle $B/all all </dev/null || fail run
hull-oci exec -d all sleep 100; sleep 0.5; test $(wc -l </sys/fs/cgroup/box/all/cgroup.procs) -ge 3 || fail "$(cat /sys/fs/cgroup/box/all/cgroup.procs)"
hull-oci kill --all all KILL; for i in 1 2 3 4 5 6 7 8 9; do has /sys/fs/cgroup/box/all/cgroup.events "populated 0" && break; sleep 0.3; done 2>/dev/null
has /sys/fs/cgroup/box/all/cgroup.events "populated 0"; hull-oci delete all || fail delete; test ! -e /sys/fs/cgroup/box/all && echo whole"#,
    ),
    (
        "apparmor",
        r#"echo 'profile box-test flags=(attach_disconnected,mediate_deleted) { file, capability, network, mount, signal, ptrace, deny /tmp/** w, }' >/run/box-test; apparmor_parser -r /run/box-test || fail parser
make apparmor '.process.args = ["sh","-c","cat /proc/self/attr/current; echo x >/tmp/x; test -e /tmp/x && echo WRITTEN"] | .process.apparmorProfile = "box-test"'
run apparmor 2>&1"#,
    ),
    // Groups below the container's: named, and found where the first process has gone to one of them
    // and the container's own, which has given its controllers away, takes none.
    (
        "below",
        r#"make below '.process.args = ["sleep","100"] | .linux.cgroupsPath = "/box/below" | .linux.namespaces |= map(select(.type != "cgroup"))'
hull-oci run -d --bundle $B/below below </dev/null || fail run
G=/sys/fs/cgroup/box/below; mkdir $G/sub
test "$(hull-oci exec below cat /proc/self/cgroup)" = 0::/box/below || fail own
test "$(hull-oci exec --cgroup /sub below cat /proc/self/cgroup)" = 0::/box/below/sub || fail named
hull-oci exec --cgroup pids:sub below true && fail "a controller of v1"
hull-oci exec --cgroup ../all below true && fail "outside"
cat $G/cgroup.procs >$G/sub/cgroup.procs; echo +pids >$G/cgroup.subtree_control || fail divide
test "$(hull-oci exec below cat /proc/self/cgroup)" = 0::/box/below/sub || fail found
hull-oci delete -f below || fail delete; test ! -e $G && echo whole"#,
    ),
    (
        "end",
        "test -z \"$(hull-oci list -q)\" || fail list; find /sys/fs/cgroup/box /sys/fs/cgroup/hull-oci -mindepth 1 -type d | grep -v /box/deep && fail groups; pgrep -a sleep && fail processes; ls -A /run/hull-oci; echo clean",
    ),
];

#[test]
fn oci_on_pure_cgroup_v2() {
    let scratch = Scratch::new("v2");
    let report = furnish(Guest::script(&scratch.0), &COMMANDS).run();
    report.check("facts", 0, "cpuset cpu io memory hugetlb pids rdma misc");
    for name in ["life", "limits", "idle", "update", "oom", "all", "below"] {
        report.check(name, 0, "whole");
    }
    report.check("runc", 0, "memory.high 59998208");
    report.check("devices", 0, "Operation not permitted\n1\nnull\nwanted");
    report.check("oom", 0, "\"oom\"");
    report.check(
        "events",
        0,
        "[\"stats\",\"events\",67108864,50,true,true,1]",
    );
    report.check("namespace", 0, "0::/\n67108864\nmkdir: ");
    report.check("without", 0, "0::/box/deep/er/without");
    report.check("refused", 0, "linux.resources.cpu.cpus");
    report.check("unified", 0, "linux.resources.unified");
    report.check("apparmor", 1, "box-test (enforce)");
    report.check("end", 0, "clean");
}
