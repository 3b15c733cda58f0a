//! `hull-oci --systemd-cgroup` under a real systemd: scopes, their limits as properties and as
//! files, what a reload leaves of them, annotations, updates, ends; runc's beside them.

use hull_testkit::machine::Guest;

use crate::kit::{Scratch, furnish};

const COMMANDS: [(&str, &str); 10] = [
    (
        "life",
        r#"make one '.process.args = ["sleep","100"] | .linux.cgroupsPath = "machine-deep.slice:hull:one" | .annotations = {"org.systemd.property.TimeoutStopSec":"7","org.systemd.property.CollectMode":"'"'inactive-or-failed'"'"}'
hull-oci --systemd-cgroup create --bundle $B/one --pid-file /run/one.pid one </dev/null || fail create
G=/sys/fs/cgroup/machine.slice/machine-deep.slice/hull-one.scope; is $G/cgroup.procs "$(cat /run/one.pid)"
test "$(systemctl is-active hull-one.scope)" = active || fail active
systemctl show hull-one.scope -p Slice -p Delegate -p TimeoutStopUSec -p CollectMode -p Description
hull-oci start one; test "$(hull-oci state one | jq -r .status)" = running || fail running
test "$(hull-oci exec one cat /proc/self/cgroup)" = 0::/ || fail "exec is in another group"
hull-oci pause one; has $G/cgroup.events "frozen 1"; hull-oci resume one
hull-oci kill one KILL; for i in 1 2 3 4 5 6 7 8 9; do test "$(hull-oci state one | jq -r .status)" = stopped && break; sleep 0.3; done
hull-oci delete one || fail delete
test ! -e $G || fail "the group stays"
test "$(systemctl is-active hull-one.scope)" = inactive || fail "the unit stays"; echo whole"#,
    ),
    (
        "limits",
        r#"make limits '.process.args = ["sleep","100"] | .linux.cgroupsPath = "system.slice:hull:limits" | .linux.resources = {
 devices:[{allow:false,access:"rwm"},{allow:true,type:"c",major:10,minor:229,access:"rw"}],
 memory:{limit:67108864, swap:100663296, reservation:33554432},
 cpu:{shares:512, quota:50000, period:100000, cpus:"0-1"},
 pids:{limit:20}, unified:{"memory.high":"50331648"}}'
hull-oci --systemd-cgroup run -d --bundle $B/limits limits </dev/null || fail run
cd /sys/fs/cgroup/system.slice/hull-limits.scope
check() { is memory.max 67108864; is memory.swap.max 33554432; is memory.low 33554432; is memory.high 50331648; is cpu.max "50000 100000"; is cpu.weight 20; is cpuset.cpus 0-1; is pids.max 20; }
check; systemctl daemon-reload; check
systemctl show hull-limits.scope -p MemoryMax -p MemoryHigh -p MemorySwapMax -p CPUWeight -p TasksMax -p DevicePolicy -p DeviceAllow
hull-oci exec limits head -c 3 /dev/zero | od -c | grep -q '\\0' || fail "/dev/zero"
hull-oci exec limits sh -c 'mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg' && fail "kmsg can be read"
hull-oci update --memory 128M --memory-swap 256M --pids-limit 33 --cpu-share 1024 limits || fail update
now() { is memory.max 134217728; is memory.swap.max 134217728; is pids.max 33; is cpu.weight 39; }
now; systemctl daemon-reload; now
hull-oci delete -f limits || fail delete
systemctl is-active hull-limits.scope; echo whole"#,
    ),
    // Two units of one name, then the name again.
    (
        "name",
        r#"make name '.process.args = ["sleep","100"] | .linux.cgroupsPath = ":hull:name"'
hull-oci --systemd-cgroup run -d --bundle $B/name name </dev/null || fail run
hull-oci --systemd-cgroup run -d --bundle $B/name other </dev/null 2>/run/said && fail "a unit twice"
grep -q hull-name.scope /run/said || fail "says: $(cat /run/said)"
hull-oci list -q; hull-oci delete -f name; hull-oci --systemd-cgroup run -d --bundle $B/name name </dev/null || fail again
hull-oci delete -f name; echo whole"#,
    ),
    // A program that is not there, and a limit that is refused: nothing stays.
    (
        "failed",
        r#"make failed '.process.args = ["/no/such"] | .linux.cgroupsPath = ":hull:failed"'
hull-oci --systemd-cgroup run --bundle $B/failed failed </dev/null 2>/dev/null && fail run
systemctl is-active hull-failed.scope; ls -d /sys/fs/cgroup/system.slice/hull-failed.scope 2>/dev/null && fail "the group stays"
make refused '.linux.cgroupsPath = ":hull:refused" | .linux.resources.cpu = {cpus:"77"}'
hull-oci --systemd-cgroup run --bundle $B/refused refused </dev/null 2>/run/said && fail run
cat /run/said; systemctl is-active hull-refused.scope; test -z "$(hull-oci list -q)" || fail list; echo whole"#,
    ),
    // A foreground run leaves no unit; the exit status comes through.
    (
        "run",
        r#"make run '.process.args = ["sh","-c","cat /proc/self/cgroup; exit 5"] | .linux.cgroupsPath = ":hull:run" | .linux.namespaces |= map(select(.type != "cgroup"))'
hull-oci --systemd-cgroup run --bundle $B/run run </dev/null; echo "status $?"; systemctl is-active hull-run.scope"#,
    ),
    // A create that is killed leaves a scope that ends by itself.
    (
        "killed",
        r#"make killed '.process.args = ["sleep","100"] | .linux.cgroupsPath = ":hull:killed"'
for pause in 0.02 0.05 0.1 0.15 0.2 0.3; do
 hull-oci --systemd-cgroup create --bundle $B/killed killed </dev/null 2>/dev/null & sleep $pause; kill -9 $! 2>/dev/null; wait $!
 hull-oci delete --force killed || fail "delete after $pause"
 for i in 1 2 3 4 5 6 7 8 9 10; do test "$(systemctl is-active hull-killed.scope)" = active || break; sleep 0.3; done
 test "$i" = 10 && fail "the scope stays after $pause: $(cat /sys/fs/cgroup/system.slice/hull-killed.scope/cgroup.procs)"
done; echo whole"#,
    ),
    // What runc tells systemd for the same bundle.
    (
        "runc",
        r#"make same '.process.args = ["sleep","100"] | .linux.cgroupsPath = "system.slice:hull:same" | .linux.resources.memory = {limit:67108864,swap:100663296} | .linux.resources.cpu = {shares:512,quota:25000,period:50000} | .linux.resources.pids = {limit:9}'
for RUNTIME in hull-oci runc; do
 $RUNTIME --systemd-cgroup run -d --bundle $B/same same </dev/null >/dev/null 2>&1 || fail "$RUNTIME run"
 systemctl show hull-same.scope -p MemoryMax -p MemorySwapMax -p CPUWeight -p CPUQuotaPerSecUSec -p CPUQuotaPeriodUSec -p TasksMax -p DevicePolicy -p DeviceAllow -p Delegate -p Slice -p MemoryAccounting | sort >/run/$RUNTIME.shown
 $RUNTIME delete -f same; done
diff /run/runc.shown /run/hull-oci.shown && echo same"#,
    ),
    // restore puts what CRIU makes into a scope; a stand-in makes it, or fails.
    (
        "restore",
        r#"make back '.process.args = ["sleep","1000"] | .linux.cgroupsPath = ":hull:back" | .linux.resources.pids = {limit:33}'
mkdir /run/image; echo '["","",""]' >/run/image/descriptors.json
cat >/run/criu <<'END'
#!/usr/bin/perl
open(my $socket, "+<&=", $ARGV[1]) or die; sysread($socket, my $request, 65536);
my $pid = fork(); if (!$pid) { close $socket; exec "/bin/busybox", "sleep", "1000" }
my ($rest, $number) = ($pid, ""); while ($rest > 127) { $number .= chr(128 | $rest & 127); $rest >>= 7 } $number .= chr($rest);
syswrite($socket, "\x08\x02\x10\x01\x22" . chr(1 + length $number) . "\x08" . $number);
END
chmod +x /run/criu; G=/sys/fs/cgroup/system.slice/hull-back.scope
hull-oci --criu /run/criu --systemd-cgroup restore -d --image-path /run/image --bundle $B/back back </dev/null >/dev/null 2>/run/said || fail "restore: $(cat /run/said)"
test "$(systemctl is-active hull-back.scope)" = active || fail active
is $G/cgroup.procs "$(hull-oci state back | jq .pid)"; is $G/pids.max 33
hull-oci delete -f back || fail delete; test "$(systemctl is-active hull-back.scope)" = inactive || fail "the unit stays"
hull-oci --criu /bin/false --systemd-cgroup restore -d --image-path /run/image --bundle $B/back back </dev/null >/dev/null 2>&1 && fail "false restores"
test "$(systemctl is-active hull-back.scope)" = inactive || fail "the unit of what failed stays"
test -z "$(hull-oci list -q)" || fail list; test ! -e $G && echo whole"#,
    ),
    // A user's own systemd, with the part of the tree that is given to it.
    (
        "user",
        r#"loginctl enable-linger ada; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do test -S /run/user/1000/bus && break; sleep 1; done
chmod -R a+rX /payload; cat >/run/user.sh <<'END'
. /kit.sh
export XDG_RUNTIME_DIR=/run/user/1000 HOME=/home/ada B=/home/ada/b ROOTLESS=1; cd
make user '.process.args = ["sleep","100"] | .linux.cgroupsPath = "user.slice:hull:user" | .linux.resources = {memory:{limit:67108864},pids:{limit:20}}' || fail make
hull-oci --systemd-cgroup run -d --bundle $B/user user </dev/null || fail run
cat /proc/$(hull-oci state user | jq .pid)/cgroup
G=/sys/fs/cgroup$(cut -d: -f3 /proc/$(hull-oci state user | jq .pid)/cgroup); is $G/memory.max 67108864; is $G/pids.max 20
systemctl --user show hull-user.scope -p MemoryMax -p ActiveState
hull-oci update --pids-limit 30 user || fail update; is $G/pids.max 30
hull-oci delete -f user || fail delete; test ! -e $G || fail "the group stays"; systemctl --user is-active hull-user.scope; echo whole
END
runuser -u ada -- bash /run/user.sh"#,
    ),
    // Without dbus, through systemd's own socket.
    (
        "private",
        r#"make private '.process.args = ["true"] | .linux.cgroupsPath = ":hull:private"'
DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere hull-oci --systemd-cgroup run --bundle $B/private private </dev/null && echo whole"#,
    ),
];

#[test]
fn scopes_of_a_real_systemd() {
    let scratch = Scratch::new("scopes");
    let report = furnish(Guest::systemd(&scratch.0), &COMMANDS).run();
    for name in [
        "life", "limits", "name", "failed", "killed", "private", "user", "restore",
    ] {
        report.check(name, 0, "whole");
    }
    report.check("life", 0, "Slice=machine-deep.slice");
    report.check("life", 0, "Delegate=yes");
    report.check("life", 0, "TimeoutStopUSec=7s");
    report.check("limits", 0, "MemoryMax=67108864");
    report.check("limits", 0, "DevicePolicy=strict");
    report.check("failed", 0, "linux.resources.cpu.cpus");
    report.check("user", 0, "/user@1000.service/user.slice/hull-user.scope");
    report.check("run", 3, "0::/system.slice/hull-run.scope");
    report.check("run", 3, "status 5");
    report.check("runc", 0, "same");
}
