//! Another kernel and pure cgroup v2: the same program in a machine with Debian 12's own kernel.

use hull_testkit::{Daemon, machine};

#[test]
fn debian_kernel_with_cgroup_v2_runs_containers() {
    let daemon = Daemon::builder().bare().start();
    if daemon.is_docker() {
        return;
    }
    let limits = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.weight; cat /proc/self/cgroup";
    let serve = "while :; do echo -n served | nc -l -p 80; done";
    let commands = [
        (
            "controllers",
            "cat /sys/fs/cgroup/cgroup.controllers".to_owned(),
        ),
        ("hello", "hull run --rm hull/hello".to_owned()),
        ("load", "hull load -q -i /busybox.tar".to_owned()),
        ("true", "hull run --rm busybox true".to_owned()),
        ("three", "hull run --rm busybox sh -c 'exit 3'".to_owned()),
        (
            "limits",
            format!(
                "hull run --rm -m 64m --cpus 0.5 --pids-limit 20 --cpu-shares 512 busybox sh -c '{limits}'"
            ),
        ),
        (
            "hog",
            "hull run --name hog -m 16m busybox dd if=/dev/zero of=/dev/null bs=200M count=1"
                .to_owned(),
        ),
        (
            "oom",
            "hull inspect --format '{{.State.OOMKilled}} {{.State.ExitCode}}' hog".to_owned(),
        ),
        (
            "start",
            format!(
                "hull run -d --name box -p 8080:80 -v data:/data --tmpfs /t busybox sh -c '{serve}'"
            ),
        ),
        (
            "pause",
            "hull pause box && hull ps --format '{{.Status}}' && hull unpause box".to_owned(),
        ),
        (
            "port",
            "sleep 1; nc -w 5 127.0.0.1 8080 </dev/null".to_owned(),
        ),
        ("exec", "hull exec box cat /proc/self/cgroup".to_owned()),
        (
            "stats",
            "hull stats --no-stream --format '{{.Name}} {{.PIDs}}' box".to_owned(),
        ),
        (
            "device",
            "hull run --rm busybox sh -c 'mknod /dev/x c 10 229 && cat </dev/x'".to_owned(),
        ),
        (
            "null",
            "hull run --rm busybox sh -c 'echo x >/dev/null && echo fine'".to_owned(),
        ),
        (
            "given",
            "hull run --rm --device /dev/ttyS0:/dev/x:r busybox sh -c ': </dev/x && echo opened'"
                .to_owned(),
        ),
        (
            "readonly",
            "hull run --rm --read-only busybox touch /x".to_owned(),
        ),
        (
            "privileged",
            "hull run --rm --privileged busybox mount -t tmpfs none /tmp".to_owned(),
        ),
        ("stop", "hull stop -t 1 box && hull rm box hog".to_owned()),
        ("end", "hull daemon stop --all".to_owned()),
        (
            "cgroups",
            "ls -d /sys/fs/cgroup/hull/*/ 2>/dev/null | wc -l".to_owned(),
        ),
        ("mounts", "grep -c /var/lib/hull /proc/mounts".to_owned()),
    ];
    let listed: Vec<(&str, &str)> = commands
        .iter()
        .map(|(name, command)| (*name, command.as_str()))
        .collect();
    let (fates, console) = machine::run(&daemon.scratch(), &listed);
    let check = |name: &str, code: i32, part: &str| {
        let fate = fates
            .get(name)
            .unwrap_or_else(|| panic!("{name} never ended:\n{console}"));
        assert!(
            fate.code == code && fate.output.contains(part),
            "{name}: wanted {code} and {part:?}, got {fate:?}\n{console}"
        );
    };
    check("controllers", 0, "memory");
    check("hello", 0, "Linux 6.1");
    check("load", 0, "");
    check("true", 0, "");
    check("three", 3, "");
    check("limits", 0, "67108864\n50000 100000\n20\n20\n0::/");
    check("hog", 137, "");
    check("oom", 0, "true 137");
    check("start", 0, "");
    check("pause", 0, "(Paused)");
    check("port", 0, "served");
    check("exec", 0, "0::/");
    check("stats", 0, "box ");
    check("device", 1, "not permitted");
    check("null", 0, "fine");
    check("given", 0, "opened");
    check("readonly", 1, "Read-only file system");
    check("privileged", 0, "");
    check("stop", 0, "hog");
    check("end", 0, "");
    check("cgroups", 0, "0");
    check("mounts", 1, "0");
}
