//! What of the process and of its kernel's settings later versions of the specification brought.

use std::fs;
use std::path::Path;

use hull_oci_tests::{Runtime, host};
use serde_json::{Value, json};

use super::Case;

const ALLOWED: &str = "grep Cpus_allowed_list /proc/self/status | tr -d '[:space:]'";

pub(crate) fn cases() -> Vec<Case> {
    let mut all = vec![
        Case::says(
            "process.capabilities.inheritable",
            vec![(
                "/process/capabilities/inheritable",
                json!(["CAP_KILL", "CAP_CHOWN"]),
            )],
            "grep CapInh /proc/self/status",
            "CapInh:\t0000000000000021",
        ),
        Case::says(
            "process.capabilities.permitted-of-a-user",
            vec![("/process/user", json!({"uid": 33, "gid": 33}))],
            "grep -E 'CapPrm|CapEff' /proc/self/status",
            "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000",
        ),
        Case::says(
            "process.scheduler.idle",
            vec![("/process/scheduler", json!({"policy": "SCHED_IDLE"}))],
            "cut -d' ' -f41 /proc/self/stat",
            "5",
        ),
        Case::says(
            "process.ioPriority.idle",
            vec![(
                "/process/ioPriority",
                json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0}),
            )],
            "ionice -p $$",
            "idle",
        ),
        Case::new("process.execCPUAffinity.final", |runtime| {
            let affinity = json!({"initial": "0", "final": "0"});
            let _bundle = runtime.sleeping(&[("/process/execCPUAffinity", affinity)]);
            let said = runtime.ok(&["exec", "c", "sh", "-c", ALLOWED]);
            assert_eq!(said, "Cpus_allowed_list:0");
            let first = fs::read_to_string(format!("/proc/{}/status", runtime.pid("c")));
            let own = fs::read_to_string("/proc/self/status").expect("status");
            assert_eq!(allowed(&first.expect("status")), allowed(&own));
        }),
        Case::new("process.execCPUAffinity.of-the-exec", |runtime| {
            let bundle = runtime.sleeping(&[]);
            let mut process = bundle.config["process"].clone();
            process["execCPUAffinity"] = json!({"final": "0"});
            process["args"] = json!(["sh", "-c", ALLOWED]);
            let file = runtime.dir().join("process.json");
            fs::write(&file, process.to_string()).expect("write");
            let said = runtime.ok(&["exec", "-p", text(&file), "c"]);
            assert_eq!(said, "Cpus_allowed_list:0");
        }),
        Case::new("process.apparmorProfile", apparmor),
        Case::new("process.apparmorProfile.exec", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            let said = runtime.run(&["exec", "--apparmor", "oci-suite-none", "c", "true"]);
            // No such profile, or no AppArmor at all.
            assert!(
                said.code > 0 && said.err.to_lowercase().contains("apparmor"),
                "ended with {}: {}",
                said.code,
                said.err
            );
        }),
        Case::new("process.selinuxLabel", |runtime| {
            labelled(runtime, "/process/selinuxLabel");
        }),
        Case::new("linux.mountLabel", |runtime| {
            labelled(runtime, "/linux/mountLabel");
        }),
        Case::new("linux.memoryPolicy.bind", |runtime| {
            let policy = json!({"mode": "MPOL_BIND", "nodes": "0"});
            let said = runtime.script(
                &[("/linux/memoryPolicy", policy)],
                "head -n 1 /proc/self/numa_maps 2>/dev/null || echo none",
            );
            let wanted = if Path::new("/proc/self/numa_maps").exists() {
                " bind:0 "
            } else {
                "none"
            };
            assert!(said.contains(wanted), "said {said}");
        }),
        Case::new("linux.memoryPolicy.flags", |runtime| {
            let policy =
                json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
            let said = runtime.script(
                &[("/linux/memoryPolicy", policy)],
                "head -n 1 /proc/self/numa_maps 2>/dev/null || echo none",
            );
            let wanted = if Path::new("/proc/self/numa_maps").exists() {
                " interleave=static:0 "
            } else {
                "none"
            };
            assert!(said.contains(wanted), "said {said}");
        }),
        Case::new("linux.netDevices", |runtime| {
            let said = with_interface(
                runtime,
                &json!({"hullcs0": {"name": "inner0"}}),
                "ip addr; ls /sys/class/net",
            );
            for wanted in ["inner0", ",UP", "10.9.8.7/24", "fd00::5/64"] {
                assert!(said.contains(wanted), "no {wanted}: said {said}");
            }
        }),
        Case::new("linux.netDevices.own-name", |runtime| {
            let said = with_interface(runtime, &json!({"hullcs0": {}}), "ls /sys/class/net");
            assert!(said.contains("hullcs0"), "said {said}");
        }),
        Case::new("linux.intelRdt.class", |runtime| {
            let dir = resctrl(runtime);
            let rdt = json!({"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20"});
            let said = with_resctrl(runtime, &dir, rdt);
            assert_eq!(said.code, 0, "{}", said.err);
            let read = |name: &str| fs::read_to_string(dir.join("c").join(name)).expect(name);
            assert_eq!(read("schemata").trim(), "L3:0=f\nMB:0=20");
            // Those it forks are in the class, too.
            assert!(
                read("tasks").trim().parse::<u32>().is_ok(),
                "tasks: {}",
                read("tasks")
            );
        }),
        Case::new("linux.intelRdt.class-of-others", |runtime| {
            let dir = resctrl(runtime);
            let said = with_resctrl(runtime, &dir, json!({"closID": "gold"}));
            assert_eq!(said.code, 0, "{}", said.err);
            let tasks = fs::read_to_string(dir.join("gold/tasks")).expect("tasks");
            assert!(tasks.trim().parse::<u32>().is_ok(), "tasks: {tasks}");
            let kept = fs::read_to_string(dir.join("gold/schemata")).expect("schemata");
            assert_eq!(kept.trim(), "L3:0=3");
        }),
    ];
    all.extend(namespaces());
    all
}

fn namespaces() -> Vec<Case> {
    let mut all = vec![
        Case::new("linux.namespaces.host", |runtime| {
            // Only a mount namespace of its own: all others are the caller's.
            let script = "for n in net ipc uts pid cgroup user; do readlink /proc/self/ns/$n; done";
            let mut bundle = runtime.bundle("c", &[], script);
            bundle.set(
                "/linux/namespaces",
                json!([{"type": "mount"}, {"type": "pid"}]),
            );
            let config = bundle.config.as_object_mut().expect("an object");
            config.remove("hostname");
            bundle.write();
            let said = runtime.ok(&["run", "-b", bundle.path(), "c"]);
            for name in ["net", "ipc", "uts"] {
                let own = fs::read_link(format!("/proc/self/ns/{name}")).expect("link");
                assert!(said.contains(&*own.to_string_lossy()), "{name}: {said}");
            }
        }),
        Case::new("linux.namespaces.user.path", |runtime| {
            let maps = json!([{"containerID": 0, "hostID": 0, "size": 10}]);
            let _first = runtime.sleeping(&[
                ("/linux/namespaces/-", json!({"type": "user"})),
                ("/linux/uidMappings", maps.clone()),
                ("/linux/gidMappings", maps),
                ("/mounts/2/options", json!(["newinstance"])),
            ]);
            let path = format!("/proc/{}/ns/user", runtime.pid("c"));
            let second = runtime.bundle(
                "d",
                &[
                    ("/linux/namespaces/-", json!({"type": "user", "path": path})),
                    ("/mounts/2/options", json!(["newinstance"])),
                ],
                "readlink /proc/self/ns/user",
            );
            let said = runtime.ok(&["run", "-b", second.path(), "d"]);
            let wanted = fs::read_link(&path).expect("link");
            assert_eq!(said.trim(), wanted.to_string_lossy());
        }),
        Case::new("linux.namespaces.cgroup.path", |runtime| {
            let _first = runtime.sleeping(&[("/linux/namespaces/-", json!({"type": "cgroup"}))]);
            let path = format!("/proc/{}/ns/cgroup", runtime.pid("c"));
            let second = runtime.bundle(
                "d",
                &[(
                    "/linux/namespaces/-",
                    json!({"type": "cgroup", "path": path}),
                )],
                "readlink /proc/self/ns/cgroup",
            );
            let said = runtime.ok(&["run", "-b", second.path(), "d"]);
            let wanted = fs::read_link(&path).expect("link");
            assert_eq!(said.trim(), wanted.to_string_lossy());
        }),
    ];
    all.push(Case::new("linux.namespaces.time.exec", |runtime| {
        let _bundle = runtime.sleeping(&[
            ("/linux/namespaces/-", json!({"type": "time"})),
            (
                "/linux/timeOffsets",
                json!({"boottime": {"secs": 864_000_000, "nanosecs": 0}, "monotonic": {"secs": 1000, "nanosecs": 5}}),
            ),
        ]);
        let said = runtime.ok(&["exec", "c", "cat", "/proc/self/timens_offsets"]);
        let words: Vec<_> = said.split_whitespace().collect();
        assert_eq!(words, ["monotonic", "1000", "5", "boottime", "864000000", "0"]);
    }));
    all
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn allowed(status: &str) -> &str {
    let mut lines = status.lines();
    lines
        .find(|line| line.starts_with("Cpus_allowed_list"))
        .expect("a list of processors")
}

/// A profile that exists is set; without AppArmor the wish is refused by its name.
fn apparmor(runtime: &Runtime) {
    let profile = "oci-suite";
    let script = "cat /proc/self/attr/current";
    let bundle = runtime.bundle("c", &[("/process/apparmorProfile", json!(profile))], script);
    if host::has_apparmor() {
        let file = runtime.dir().join("profile");
        let rules = format!(
            "profile {profile} flags=(attach_disconnected,mediate_deleted) \
             {{ file, capability, network, mount, signal, ptrace, pivot_root, userns, }}\n"
        );
        let old = rules.replace("userns, ", "");
        let loaded = [rules, old].iter().any(|rules| {
            fs::write(&file, rules).expect("profile");
            std::process::Command::new("apparmor_parser")
                .arg("-r")
                .arg(&file)
                .output()
                .is_ok_and(|output| output.status.success())
        });
        assert!(loaded, "the profile is not taken");
        let said = runtime.ok(&["run", "-b", bundle.path(), "c"]);
        assert_eq!(said.trim(), format!("{profile} (enforce)"));
    } else {
        let said = runtime.run(&["run", "-b", bundle.path(), "c"]);
        assert!(said.code > 0, "was not refused, said {}", said.out);
        assert!(said.err.to_lowercase().contains("apparmor"), "{}", said.err);
        runtime.nothing_left();
    }
}

/// A label of SELinux where that is not in use is refused.
fn labelled(runtime: &Runtime, pointer: &str) {
    if host::has_selinux() {
        return;
    }
    let label = json!("system_u:system_r:container_t:s0:c1,c2");
    let bundle = runtime.bundle("c", &[(pointer, label)], "true");
    let said = runtime.run(&["run", "-b", bundle.path(), "c"]);
    assert!(said.code > 0, "was not refused, ended with {}", said.code);
    assert!(said.err.to_lowercase().contains("selinux"), "{}", said.err);
    runtime.nothing_left();
}

/// Runs a script in a container that is given interfaces of a network namespace of the case's own.
#[track_caller]
fn with_interface(runtime: &Runtime, devices: &Value, script: &str) -> String {
    const OUTSIDE: &str = "exec unshare -n bash -c 'ip link add hullcs0 type veth peer name hullcs1 \
        && ip addr add 10.9.8.7/24 dev hullcs0 && ip addr add fd00::5/64 dev hullcs0 && exec \"$@\"' bash \"$@\"";
    let bundle = runtime.bundle("c", &[("/linux/netDevices", devices.clone())], script);
    let args = ["run", "-b", bundle.path(), "c"];
    let said = hull_oci_tests::said(&mut runtime.within(OUTSIDE, &args));
    assert_eq!(said.code, 0, "{}", said.err);
    said.out
}

/// A folder made as the kernel makes resctrl's, with a class of somebody's and room for that of `c`.
fn resctrl(runtime: &Runtime) -> std::path::PathBuf {
    let dir = runtime.dir().join("resctrl");
    for (name, text) in [
        ("schemata", "L3:0=ffff\nMB:0=100\n"),
        ("tasks", ""),
        ("info/L3/cbm_mask", "ffff\n"),
        ("info/L3/min_cbm_bits", "1\n"),
        ("info/L3/num_closids", "16\n"),
        ("info/MB/bandwidth_gran", "10\n"),
        ("info/MB/delay_linear", "1\n"),
        ("info/MB/min_bandwidth", "10\n"),
        ("info/MB/num_closids", "8\n"),
        ("info/last_cmd_status", "ok\n"),
        ("gold/schemata", "L3:0=3\n"),
        ("gold/tasks", ""),
        ("c/schemata", ""),
        ("c/tasks", ""),
    ] {
        let file = dir.join(name);
        fs::create_dir_all(file.parent().expect("a folder")).expect("folder");
        fs::write(file, text).expect("file");
    }
    dir
}

/// Creates a container where the table of mounts and the processor say that there is resctrl.
fn with_resctrl(runtime: &Runtime, dir: &Path, rdt: Value) -> hull_oci_tests::Said {
    let outside = format!(
        "cd {0}; cp /proc/self/mountinfo table; echo '999 1 0:99 / {1} rw,relatime - resctrl resctrl rw' >>table; \
         sed 's/^flags.*/& cat_l3 rdt_a mba cqm cqm_llc/' /proc/cpuinfo >cpuinfo; \
         exec unshare -m --propagation private bash -c 'mount --bind cpuinfo /proc/cpuinfo && \
         mount --bind table /proc/$$/mountinfo && exec \"$@\"' bash \"$@\"",
        runtime.dir().display(),
        dir.display()
    );
    let bundle = runtime.bundle("c", &[("/linux/intelRdt", rdt)], "exec sleep 1000");
    let args = ["create", "-b", bundle.path(), "c"];
    hull_oci_tests::said(&mut runtime.within(&outside, &args))
}
