//! Attacks on `hull-oci` from images, volumes and containers: none gets out, none crashes it. One
//! for each bug that other runtimes had, and for each class of them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hull_oci_tests::{Kind, Runtime, Said};
use hull_testkit::terminal::Terminal;
use hull_testkit::{paths, wait_until};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};

/// How long each race goes on.
const RACE: Duration = Duration::from_millis(2500);

/// A folder of the host with one file: nothing may be added, changed or mounted.
struct Canary {
    dir: PathBuf,
    before: (u32, u32, u32),
}

impl Canary {
    fn new(runtime: &Runtime) -> Self {
        let dir = runtime.dir().join("canary");
        fs::create_dir(&dir).expect("folder");
        fs::write(dir.join("file"), "alive").expect("file");
        let before = attributes(&dir);
        Self { dir, before }
    }

    #[track_caller]
    fn is_alive(&self) {
        let names: Vec<_> = fs::read_dir(&self.dir)
            .expect("canary")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert_eq!(names, ["file"], "something was made in the canary");
        let text = fs::read_to_string(self.dir.join("file")).expect("file");
        assert_eq!(text, "alive");
        assert_eq!(attributes(&self.dir), self.before);
        let table = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        assert!(!table.contains(&*self.dir.to_string_lossy()), "{table}");
    }
}

fn attributes(path: &Path) -> (u32, u32, u32) {
    let meta = fs::metadata(path).expect("canary");
    (meta.mode(), meta.uid(), meta.gid())
}

/// It ended by itself and said why: no signal, no panic.
#[track_caller]
fn no_crash(said: &Said) {
    assert!(said.code >= 0, "ended by a signal: {}", said.err);
    assert!(!said.err.contains("panicked"), "{}", said.err);
}

/// Runs the bundle again and again while a thread swaps two paths; how many runs came through.
#[track_caller]
fn race(runtime: &Runtime, bundle: &str, one: &Path, other: &Path, canary: &Canary) -> (u32, u32) {
    let stop = AtomicBool::new(false);
    let end = Instant::now() + RACE;
    let (mut good, mut rounds) = (0, 0);
    let failure = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while Instant::now() < end {
                let said = runtime.run(&["run", "-b", bundle, "c"]);
                no_crash(&said);
                assert!(
                    !said.out.contains("alive"),
                    "reached the host: {}",
                    said.out
                );
                good += u32::from(said.code == 0);
                rounds += 1;
                if said.code != 0 {
                    runtime.nothing_left();
                }
                canary.is_alive();
            }
        }));
        stop.store(true, Ordering::Relaxed);
        outcome
    });
    if let Err(panic) = failure {
        std::panic::resume_unwind(panic);
    }
    runtime.nothing_left();
    (good, rounds)
}

fn ours() -> Runtime {
    Runtime::new(Kind::Hull)
}

/// CVE-2021-30465, CVE-2024-45310, 2026-41579: each way to a target is swapped for a link outside.
fn race_at(name: &str, changes: &[(&str, Value)], script: &str) {
    let runtime = ours();
    let canary = Canary::new(&runtime);
    let bundle = runtime.bundle("c", changes, script);
    let root = bundle.root();
    let (real, link) = (root.join(name), root.join("swap"));
    fs::create_dir_all(&real).expect("folder");
    symlink(&canary.dir, &link).expect("link");
    race(&runtime, bundle.path(), &real, &link, &canary);
}

#[test]
fn race_of_a_mount_target() {
    let mount = json!({"destination": "/data/a/b", "type": "tmpfs", "source": "t"});
    race_at(
        "data/a",
        &[("/mounts/-", mount)],
        "cat /data/a/file 2>/dev/null; true",
    );
}

#[test]
fn race_of_dev() {
    let devices = json!([{"path": "/dev/own", "type": "c", "major": 1, "minor": 3}]);
    // No tmpfs: nodes are made in the image's own folder.
    let mounts = json!([{"destination": "/proc", "type": "proc", "source": "proc"}]);
    race_at(
        "dev",
        &[("/mounts", mounts), ("/linux/devices", devices)],
        "cat /dev/file 2>/dev/null; true",
    );
}

#[test]
fn race_of_dev_below_a_tmpfs() {
    race_at("dev", &[], "cat /dev/file 2>/dev/null; true");
}

#[test]
fn race_of_proc() {
    race_at(
        "proc",
        &[("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))],
        "cat /proc/file 2>/dev/null; true",
    );
}

#[test]
fn race_of_sys() {
    race_at("sys", &[], "cat /sys/file 2>/dev/null; true");
}

#[test]
fn race_of_masked_and_readonly_paths() {
    race_at(
        "data/a",
        &[
            ("/linux/maskedPaths", json!(["/data/a"])),
            ("/linux/readonlyPaths", json!(["/data/a"])),
        ],
        "cat /data/a/file 2>/dev/null; true",
    );
}

#[test]
fn race_of_the_working_directory() {
    race_at(
        "data/a",
        &[("/process/cwd", json!("/data/a/made/deep"))],
        "cat ../../file 2>/dev/null; true",
    );
}

/// Two containers that share a volume: one of them is the thread that swaps.
#[test]
fn race_in_a_shared_volume() {
    let runtime = ours();
    let canary = Canary::new(&runtime);
    let volume = runtime.dir().join("volume");
    fs::create_dir_all(volume.join("a")).expect("folder");
    symlink(&canary.dir, volume.join("swap")).expect("link");
    let bundle = runtime.bundle(
        "c",
        &[
            ("/mounts/-", json!({"destination": "/vol", "type": "bind", "source": volume, "options": ["rbind"]})),
            ("/mounts/-", json!({"destination": "/vol/a/b", "type": "tmpfs", "source": "t"})),
            ("/linux/maskedPaths", json!(["/vol/a/c"])),
        ],
        "cat /vol/a/file 2>/dev/null; true",
    );
    race(
        &runtime,
        bundle.path(),
        &volume.join("a"),
        &volume.join("swap"),
        &canary,
    );
}

/// The source of a mount with `src-nofollow` aside, the swapped source must be one or the other.
#[test]
fn race_of_dev_null_with_a_link() {
    let runtime = ours();
    let canary = Canary::new(&runtime);
    let bundle = runtime.bundle(
        "c",
        &[(
            "/mounts",
            json!([{"destination": "/proc", "type": "proc", "source": "proc"}]),
        )],
        "cat /proc/kcore | head -c 1 | wc -c",
    );
    let dev = bundle.root().join("dev");
    fs::write(dev.join("null"), "").expect("file");
    symlink(canary.dir.join("file"), dev.join("swap")).expect("link");
    race(
        &runtime,
        bundle.path(),
        &dev.join("null"),
        &dev.join("swap"),
        &canary,
    );
}

/// CVE-2019-19921, 2023-27561, 2023-28642, 2026-41579: the image has links where folders are due.
#[test]
fn links_of_the_image_at_proc_sys_and_dev() {
    for name in ["proc", "sys", "dev"] {
        for absolute in [true, false] {
            let runtime = ours();
            let canary = Canary::new(&runtime);
            let bundle = runtime.bundle("c", &[], "true");
            let at = bundle.root().join(name);
            fs::remove_dir(&at).expect("folder");
            let up = Path::new("../../../../../../../..")
                .join(canary.dir.strip_prefix("/").expect("absolute"));
            symlink(if absolute { &canary.dir } else { &up }, &at).expect("link");
            let said = runtime.run(&["run", "-b", bundle.path(), "c"]);
            no_crash(&said);
            canary.is_alive();
            runtime.nothing_left();
        }
    }
}

/// CVE-2019-16884: a mount over /proc or below it hides what protects.
#[test]
fn mounts_over_proc_are_refused() {
    let runtime = ours();
    let canary = Canary::new(&runtime);
    for target in [
        "/proc",
        "/proc/self/attr",
        "/proc/sys",
        "/data/../proc/sys",
        "/link/sys",
    ] {
        let mount = json!({"destination": target, "type": "bind", "source": canary.dir, "options": ["bind"]});
        let bundle = runtime.bundle(
            "c",
            &[("/mounts/-", mount)],
            "cat /proc/self/attr/file /proc/file /proc/sys/file",
        );
        symlink("/proc", bundle.root().join("link")).expect("link");
        let said = runtime.run(&["run", "-b", bundle.path(), "c"]);
        no_crash(&said);
        assert!(
            said.code > 0 && !said.out.contains("alive"),
            "{target}: {}",
            said.out
        );
        runtime.nothing_left();
    }
}

/// CVE-2024-21626: descriptors of the caller, and working directories by way of them.
#[test]
fn descriptors_of_the_caller_stay_outside() {
    let runtime = ours();
    let bundle = runtime.bundle("c", &[], "ls /proc/self/fd; sleep 1000");
    let program = paths::dist().join("hull-oci");
    let root = runtime.dir().join("root");
    let line = format!(
        "exec 7</ 8</etc/shadow 9<{0}; exec {1} --root {2} ",
        runtime.dir().display(),
        program.display(),
        root.display()
    );
    let sh = |rest: &str| {
        let out = runtime.dir().join("out");
        let file = fs::File::create(&out).expect("file");
        let status = std::process::Command::new("sh")
            .args(["-c", &format!("{line}{rest}")])
            .stdin(std::process::Stdio::null())
            .stdout(file)
            .status()
            .expect("sh");
        wait_until(Duration::from_secs(5), || {
            fs::read_to_string(&out).is_ok_and(|text| !text.is_empty()) || !status.success()
        });
        (status.success(), fs::read_to_string(out).expect("out"))
    };
    let (ran, said) = sh(&format!("run -d -b {} c", bundle.path()));
    assert!(ran);
    assert_eq!(
        said.split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"],
        "{said}"
    );
    let (_, said) = sh("exec c ls /proc/self/fd");
    assert_eq!(
        said.split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"],
        "{said}"
    );
    for number in 3..12 {
        let (ran, said) = sh(&format!(
            "exec --cwd /proc/self/fd/{number} c sh -c 'pwd; ls'"
        ));
        assert!(!ran, "{number}: {said}");
        let mut other = runtime.bundle("d", &[], "pwd; ls");
        other.set("/process/cwd", json!(format!("/proc/self/fd/{number}")));
        other.write();
        let (ran, said) = sh(&format!("run -b {} d", other.path()));
        assert!(!ran, "{number}: {said}");
    }
}

/// A container whose folders are links into procfs when somebody joins.
#[test]
fn exec_working_directory_behind_a_link_into_procfs_is_refused() {
    let runtime = ours();
    let bundle = runtime.sleeping(&[]);
    for (index, target) in [
        "/proc/self/fd/3",
        "/proc/self/fd/5",
        "/proc/1/root",
        "/proc/self/cwd",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("w{index}");
        symlink(target, bundle.root().join(&name)).expect("link");
        let said = runtime.run(&["exec", "--cwd", &format!("/{name}"), "c", "ls", "etc"]);
        no_crash(&said);
        assert!(!said.out.contains("shadow"), "{target}: {}", said.out);
    }
}

/// CVE-2019-5736: what is executed is a link to the program that executes.
#[test]
fn own_program_as_program_and_as_interpreter_stays_whole() {
    let runtime = ours();
    let program = paths::dist().join("hull-oci");
    let before = fs::read(&program).expect("program");
    let watcher = "while :; do for p in /proc/[0-9]*; do e=$(readlink $p/exe) || continue; \
                   case $e in /bin/busybox) ;; *) echo FOUND $e; (echo x > $p/exe) 2>/dev/null && echo WROTE;; esac; done; done";
    let bundle = runtime.bundle("c", &[("/process/capabilities", json!({"bounding": ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"], "effective": ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"], "permitted": ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]}))], &format!("exec 2>/dev/null; {watcher}"));
    symlink("/proc/self/exe", bundle.root().join("bin/evil")).expect("link");
    fs::write(bundle.root().join("bin/script"), "#!/proc/self/exe\n").expect("file");
    fs::set_permissions(
        bundle.root().join("bin/script"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .expect("mode");
    let out = runtime.dir().join("seen");
    let status = runtime
        .command(&["run", "-d", "-b", bundle.path(), "c"])
        .stdout(fs::File::create(&out).expect("file"))
        .status()
        .expect("run");
    assert!(status.success());
    for _ in 0..20 {
        for program in ["/proc/self/exe", "/bin/evil", "/bin/script"] {
            no_crash(&runtime.run(&["exec", "c", program, "features"]));
        }
    }
    let seen = fs::read_to_string(&out).expect("seen");
    assert!(!seen.contains("WROTE"), "{seen}");
    assert_eq!(fs::read(&program).expect("program"), before);
}

/// An exec under way shows a hostile container nothing of the host.
#[test]
fn exec_into_a_hostile_container_shows_nothing() {
    let runtime = ours();
    let caps = json!([
        "CAP_SYS_PTRACE",
        "CAP_DAC_OVERRIDE",
        "CAP_DAC_READ_SEARCH",
        "CAP_KILL"
    ]);
    let watcher = "exec 2>/dev/null; while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] && continue; \
        e=$(tr '\\0' ' ' < $p/environ) && case $e in *HOST_SECRET*) echo ENVIRON;; esac; \
        c=$(tr '\\0' ' ' < $p/cmdline) && case $c in *hull-oci*) echo CMDLINE $c;; esac; \
        for f in $p/fd/* $p/cwd $p/root; do l=$(readlink $f) || continue; \
        case $l in /|/dev/*|/proc/*|/bin*|pipe:*|socket:*|anon_inode:*) ;; *host-secret*|*/oci-*|*.json*) echo LINK $f $l;; esac; done; \
        [ -e $p/root/etc/shadow ] && echo ROOT; [ -e $p/cwd/etc/shadow ] && echo CWD; done; done";
    let bundle = runtime.bundle(
        "c",
        &[(
            "/process/capabilities",
            json!({"bounding": caps, "effective": caps, "permitted": caps}),
        )],
        watcher,
    );
    let out = runtime.dir().join("seen");
    let status = runtime
        .command(&["run", "-d", "-b", bundle.path(), "c"])
        .stdout(fs::File::create(&out).expect("file"))
        .status()
        .expect("run");
    assert!(status.success());
    let secret = runtime.dir().join("host-secret");
    fs::write(&secret, "x").expect("file");
    let end = Instant::now() + RACE * 2;
    let mut rounds = 0;
    while Instant::now() < end {
        let status = runtime
            .command(&["exec", "c", "true"])
            .env("HOST_SECRET", "x")
            .stdin(fs::File::open(&secret).expect("file"))
            .stdout(std::process::Stdio::null())
            .status()
            .expect("exec");
        assert!(status.success());
        rounds += 1;
    }
    let seen = fs::read_to_string(&out).expect("seen");
    assert!(rounds > 0, "no exec ran");
    // Standard input is handed over on purpose.
    let bad: Vec<_> = seen
        .lines()
        .filter(|line| !line.contains("host-secret"))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

/// CVE-2022-29162: `exec --cap` gives nothing that can be inherited.
#[test]
fn exec_capability_is_not_inheritable() {
    let runtime = ours();
    let _bundle = runtime.sleeping(&[]);
    let said = runtime.ok(&[
        "exec",
        "--cap",
        "CAP_NET_ADMIN",
        "c",
        "grep",
        "-E",
        "CapInh|CapAmb",
        "/proc/self/status",
    ]);
    assert_eq!(said.matches("0000000000000000").count(), 2, "{said}");
}

/// CVE-2025-31133, 2025-52565: the image brings its own null and console.
#[test]
fn image_with_its_own_null_and_console() {
    for tty in [false, true] {
        let runtime = ours();
        let canary = Canary::new(&runtime);
        let mut bundle = runtime.bundle("c", &[], "echo harm > /dev/console; head -c 1 /proc/kcore | wc -c; echo harm > /proc/kcore; true");
        bundle.set("/mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}]));
        bundle.set("/process/terminal", json!(tty));
        bundle.write();
        for name in ["null", "console", "ptmx"] {
            symlink(
                canary.dir.join("file"),
                bundle.root().join("dev").join(name),
            )
            .expect("link");
        }
        if tty {
            let root = runtime.dir().join("root");
            let terminal = Terminal::spawn(
                paths::dist().join("hull-oci"),
                [
                    "--root",
                    root.to_str().expect("text"),
                    "run",
                    "-b",
                    bundle.path(),
                    "c",
                ],
                &[],
            );
            let _ = terminal.finish();
        } else {
            no_crash(&runtime.run(&["run", "-b", bundle.path(), "c"]));
        }
        canary.is_alive();
        runtime.clear();
        runtime.nothing_left();
    }
}

/// CVE-2025-52881: an image's own files where kernel parameters and labels are written.
#[test]
fn image_files_below_proc_get_no_writes() {
    let runtime = ours();
    let canary = Canary::new(&runtime);
    let bundle = runtime.bundle(
        "c",
        &[
            (
                "/mounts",
                json!([{"destination": "/dev", "type": "tmpfs", "source": "t"}]),
            ),
            ("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})),
            ("/process/oomScoreAdj", json!(400)),
            ("/linux/maskedPaths", json!([])),
            ("/linux/readonlyPaths", json!([])),
        ],
        "true",
    );
    for (dir, name) in [
        ("proc/sys/net/ipv4", "ip_forward"),
        ("proc/self", "oom_score_adj"),
    ] {
        fs::create_dir_all(bundle.root().join(dir)).expect("folder");
        symlink(canary.dir.join("file"), bundle.root().join(dir).join(name)).expect("link");
    }
    no_crash(&runtime.run(&["run", "-b", bundle.path(), "c"]));
    canary.is_alive();
}

/// Writes to what is the host's, with all capabilities but those of administrators.
#[test]
fn files_of_the_host_kernel_refuse_writes() {
    let runtime = ours();
    let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]});
    let read_only = json!([
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger"
    ]);
    let script = "for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sysrq-trigger \
        /proc/sys/vm/drop_caches /sys/kernel/uevent_helper /sys/fs/cgroup/memory/release_agent /proc/1/oom_score_adj/x; do \
        [ -e $f ] || continue; (cat $f > /tmp/was; cat /tmp/was > $f) 2>/dev/null && echo WROTE $f; done; \
        mkdir /sys/fs/cgroup/memory/x 2>/dev/null && echo MADE; true";
    let said = runtime.script(
        &[("/mounts/-", mount), ("/linux/readonlyPaths", read_only)],
        script,
    );
    assert_eq!(said, "");
}

/// setns and unshare from an exec lead nowhere without the right to.
#[test]
fn namespaces_of_others_are_not_entered_by_exec() {
    let runtime = ours();
    let _bundle = runtime.sleeping(&[]);
    for line in [
        "nsenter -t 1 -m true",
        "unshare -m true",
        "chroot /proc/1/root true",
        "mount -t tmpfs t /tmp",
        "mknod /tmp/sda b 8 0",
    ] {
        let said = runtime.run(&["exec", "c", "sh", "-c", line]);
        no_crash(&said);
        assert!(said.code > 0, "{line} worked");
    }
    let said = runtime.ok(&["exec", "c", "sh", "-c", "ls -d /proc/[0-9]* | wc -l"]);
    assert!(said.trim().parse::<u32>().expect("number") < 8, "{said}");
}

#[test]
fn fork_bomb_of_a_bounded_size_is_held_and_deleted() {
    let runtime = ours();
    let bomb = "i=0; while [ $i -lt 400 ]; do (trap '' TERM INT HUP; exec sleep 500) 2>/dev/null & i=$((i+1)); done; exec sleep 500";
    let bundle = runtime.bundle(
        "c",
        &[("/linux/resources/pids", json!({"limit": 40}))],
        &format!("exec 2>/dev/null; {bomb}"),
    );
    runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
    std::thread::sleep(Duration::from_millis(400));
    no_crash(&runtime.run(&["exec", "c", "true"]));
    if let Ok(list) = serde_json::from_str::<Value>(&runtime.ok(&["ps", "-f", "json", "c"])) {
        assert!(list.as_array().is_some_and(|list| list.len() <= 40));
    }
    runtime.ok(&["delete", "--force", "c"]);
    runtime.nothing_left();
}

/// Names and sizes beyond all bounds (CVE-2021-43784 was an overflow of a length).
#[test]
fn sizes_beyond_bounds_are_errors() {
    let runtime = ours();
    let long = "a".repeat(70_000);
    let many: Vec<_> = (0..5000_u32)
        .map(|i| json!({"containerID": i * 2, "hostID": i * 2, "size": 1}))
        .collect();
    for (pointer, value) in [
        ("/hostname", json!(long)),
        ("/process/cwd", json!(format!("/{long}"))),
        ("/linux/cgroupsPath", json!(format!("/{long}"))),
        (
            "/mounts/-",
            json!({"destination": format!("/{long}"), "type": "tmpfs", "source": "t"}),
        ),
        (
            "/mounts/-",
            json!({"destination": "/x", "type": "tmpfs", "source": "t", "options": [format!("size={long}")]}),
        ),
        ("/linux/uidMappings", json!(many)),
        ("/linux/sysctl", json!({format!("net.{long}"): "1"})),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}]),
        ),
        ("/root/path", json!(format!("rootfs/{long}"))),
        ("/process/args", json!([format!("{long}\u{0}x")])),
    ] {
        let bundle = runtime.bundle("c", &[(pointer, value)], "true");
        let said = runtime.run(&["run", "-b", bundle.path(), "c"]);
        no_crash(&said);
        assert!(said.code > 0, "{pointer} was taken");
        runtime.nothing_left();
    }
    let bundle = runtime.bundle("c", &[], "true");
    for id in ["../c", "a/b", "", ".", "..", "-x/", &long] {
        let said = runtime.run(&["run", "-b", bundle.path(), "--", id]);
        no_crash(&said);
        assert!(said.code > 0, "{id}");
    }
    runtime.nothing_left();
}
