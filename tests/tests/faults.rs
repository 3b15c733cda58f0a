//! Faults: the daemon and the shims killed at any moment, and a full disk.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hull_testkit::archive::{Image, Layer};
use hull_testkit::{Daemon, Run, eventually, fixtures, wait_until};
use hull_tests::pid_of;

/// Containers that log while the daemon is killed.
const LOGGERS: usize = 20;
/// Lines each logs in a second, and for how many seconds.
const RATE: usize = 1_000;
const SECONDS: usize = 6;

#[test]
fn daemon_killed_under_twenty_loggers_loses_and_doubles_no_line() {
    let mut daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    let mount = format!("{}:/probe:ro", fixtures::probe().display());
    for number in 0..LOGGERS {
        daemon.ok([
            "run",
            "-d",
            "--name",
            &format!("log{number}"),
            "-v",
            &mount,
            "busybox",
            "/probe",
            "lines",
            &RATE.to_string(),
            &SECONDS.to_string(),
        ]);
    }
    std::thread::sleep(Duration::from_millis(1500));
    daemon.kill();
    std::thread::sleep(Duration::from_millis(500));
    daemon.start();
    for number in 0..LOGGERS {
        assert_eq!(
            daemon.inspect(&format!("log{number}"), "{{.State.Running}}"),
            "true",
            "it ran on"
        );
    }
    daemon.kill();
    // They end while no daemon is there to see it.
    std::thread::sleep(Duration::from_secs(SECONDS as u64));
    daemon.start();
    let expected: String = (0..RATE * SECONDS)
        .map(|number| format!("line {number}\n"))
        .collect();
    for number in 0..LOGGERS {
        let name = format!("log{number}");
        daemon.wait_state(&name, "exited");
        assert_eq!(daemon.inspect(&name, "{{.State.ExitCode}}"), "17", "{name}");
        let log = daemon.hull(["logs", &name]).stdout;
        assert!(
            log == expected,
            "{name}: {} lines instead of {}",
            log.lines().count(),
            RATE * SECONDS
        );
    }
}

/// The parent of a container's first process: its shim, or the init the shim started.
fn shim_of(pid: u32) -> u32 {
    let mut at = pid;
    for _ in 0..4 {
        let status = fs::read_to_string(format!("/proc/{at}/status")).expect("read status");
        let parent = status
            .lines()
            .find_map(|line| line.strip_prefix("PPid:"))
            .and_then(|text| text.trim().parse().ok())
            .expect("a parent");
        let comm = fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default();
        if comm.starts_with("hull-shim") {
            return parent;
        }
        at = parent;
    }
    panic!("no shim above process {pid}");
}

#[test]
fn shim_killed_stops_its_container_and_leaks_nothing() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    daemon.ok([
        "run",
        "-d",
        "--name",
        "orphan",
        "-p",
        "80",
        "busybox",
        "sh",
        "-c",
        "sleep 1000 & sleep 1000",
    ]);
    daemon.ok(["run", "-d", "--name", "other", "busybox", "sleep", "1000"]);
    let pid = pid_of(&daemon, "orphan");
    let shim = shim_of(pid);
    Run::new("kill").args(["-KILL", &shim.to_string()]).ok();
    let gone = wait_until(Duration::from_secs(10), || {
        !Path::new(&format!("/proc/{pid}")).exists()
    });
    assert!(gone, "the container's process lives on without its shim");
    let told = wait_until(Duration::from_secs(10), || {
        daemon.inspect("orphan", "{{.State.Running}}") == "false"
    });
    assert!(told);
    let status = daemon.inspect("orphan", "{{.State.Status}}");
    assert!(status == "dead" || status == "exited", "{status}");
    assert_ne!(daemon.inspect("orphan", "{{.State.ExitCode}}"), "0");
    assert_eq!(daemon.inspect("other", "{{.State.Running}}"), "true");
    let id = daemon.inspect("orphan", "{{.Id}}");
    let clean = wait_until(Duration::from_secs(10), || {
        !daemon
            .territory()
            .residue()
            .iter()
            .any(|line| line.contains(&id[..12]))
    });
    assert!(clean, "left: {:?}", daemon.territory().residue());
    daemon.ok(["rm", "-f", "orphan", "other"]);
}

#[test]
fn shim_killed_while_no_daemon_runs_is_found_out() {
    let mut daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    daemon.ok(["run", "-d", "--name", "orphan", "busybox", "sleep", "1000"]);
    let pid = pid_of(&daemon, "orphan");
    let shim = shim_of(pid);
    daemon.kill();
    Run::new("kill").args(["-KILL", &shim.to_string()]).ok();
    daemon.start();
    let told = wait_until(Duration::from_secs(10), || {
        daemon.inspect("orphan", "{{.State.Running}}") == "false"
    });
    assert!(told);
    assert!(wait_until(Duration::from_secs(10), || !Path::new(
        &format!("/proc/{pid}")
    )
    .exists()));
    daemon.ok(["rm", "orphan"]);
}

/// A generator of pseudo-random numbers that a failure can be repeated with.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What must agree after a start: records, processes, cgroups and run folders.
fn check_consistent(daemon: &Daemon, round: u32) {
    let list = daemon.ok(["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.State}}"]);
    let mut running = BTreeSet::new();
    let mut all = BTreeSet::new();
    for line in list.lines() {
        let (id, state) = line.split_once(' ').expect("id and state");
        all.insert(id.to_owned());
        let pid = daemon.hull([
            "inspect",
            "--format",
            "{{.State.Pid}} {{.State.Status}}",
            id,
        ]);
        // It may have vanished since, by --rm.
        if pid.code != 0 {
            continue;
        }
        let text = pid.ok();
        let (pid, now) = text.split_once(' ').expect("pid and state");
        if state == "running" && now == "running" {
            assert!(
                Path::new(&format!("/proc/{pid}")).exists(),
                "round {round}: {id} is said to run as {pid}"
            );
            running.insert(id.to_owned());
        }
    }
    let territory = daemon.territory();
    let mut left = Vec::new();
    let agrees = wait_until(Duration::from_secs(10), || {
        left = territory
            .residue()
            .into_iter()
            .filter(|line| {
                line.starts_with("cgroup") || line.starts_with("file") || line.starts_with("mount")
            })
            .filter(|line| {
                !running
                    .iter()
                    .any(|id| line.contains(id.get(..12).unwrap_or(id)))
            })
            .collect();
        left.is_empty()
    });
    assert!(
        agrees,
        "round {round}: nobody's: {left:?}\nrunning: {running:?}"
    );
    let containers = daemon.data_dir().join("container");
    let stray = wait_until(Duration::from_secs(10), || {
        let folders = fs::read_dir(&containers)
            .map(|list| list.filter_map(Result::ok).collect::<Vec<_>>())
            .unwrap_or_default();
        folders
            .iter()
            .all(|entry| all.contains(&entry.file_name().to_string_lossy().into_owned()))
    });
    assert!(
        stray,
        "round {round}: a container's folder without a record in {}",
        containers.display()
    );
}

#[test]
fn daemon_killed_at_fifty_random_moments_leaves_old_state_or_new() {
    let mut daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    let mut random = Random(0x5eed_2026);
    let archive = daemon.scratch().join("load.tar");
    Image::new("loaded:1")
        .busybox()
        .layer(Layer::new().file("x", 0o644, &vec![b'x'; 3_000_000]))
        .write(&archive);
    let archive = archive.to_string_lossy().into_owned();
    for round in 0..50 {
        let stop = AtomicBool::new(false);
        let pause = Duration::from_millis(5 + random.below(150));
        std::thread::scope(|scope| {
            let daemon_ref = &daemon;
            let (stop, archive) = (&stop, &archive);
            for worker in 0..3 {
                scope.spawn(move || {
                    let name = format!("w{worker}r{round}");
                    while !stop.load(Ordering::Relaxed) {
                        // All of these may fail: the daemon dies under them.
                        daemon_ref.hull([
                            "create", "--name", &name, "-v", "/anon", "-p", "80", "busybox",
                            "sleep", "1000",
                        ]);
                        daemon_ref.hull(["start", &name]);
                        if worker == 0 {
                            daemon_ref.hull(["load", "-i", archive]);
                            daemon_ref.hull(["rmi", "-f", "loaded:1"]);
                        } else {
                            daemon_ref.hull(["run", "--rm", "busybox", "true"]);
                        }
                        daemon_ref.hull(["rm", "-f", "-v", &name]);
                    }
                });
            }
            std::thread::sleep(pause);
            let pid = daemon_ref.pid().to_string();
            let _ = Run::new("kill").args(["-KILL", &pid]).run();
            stop.store(true, Ordering::Relaxed);
        });
        daemon.kill();
        daemon.start();
        check_consistent(&daemon, round);
    }
    let ids = daemon.ok(["ps", "-aq"]);
    if !ids.is_empty() {
        daemon.ok(["rm", "-f", "-v"].into_iter().chain(ids.lines()));
    }
    assert_eq!(
        daemon.ok(["run", "--rm", "busybox", "echo", "fine"]),
        "fine"
    );
    daemon.load(Path::new(&archive));
    assert_eq!(
        daemon.ok(["run", "--rm", "loaded:1", "echo", "fine"]),
        "fine"
    );
    daemon.ok(["rmi", "-f", "loaded:1"]);
}

/// A small file system of its own, unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn new(mebibytes: u32) -> Self {
        let dir = PathBuf::from(format!("/tmp/hts-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("make");
        let options = format!("size={mebibytes}m");
        Run::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "hull-test"])
            .arg(&dir)
            .ok();
        Self(dir)
    }

    fn free(&self) -> u64 {
        let out = Run::new("df")
            .args(["--output=avail", "-B1"])
            .arg(&self.0)
            .ok();
        out.lines()
            .last()
            .and_then(|line| line.trim().parse().ok())
            .expect("a number")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Run::new("umount").arg("-l").arg(&self.0).run();
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn data_folder_full_is_told_and_leaves_nothing_half_made() {
    let small = Small::new(48);
    let daemon = Daemon::builder().data(small.0.join("data")).start();
    if daemon.is_docker() {
        return;
    }
    let free = small.free();
    let archive = daemon.scratch().join("big.tar");
    let mut noise = vec![0_u8; 60 << 20];
    let mut random = Random(7);
    for chunk in noise.chunks_mut(8) {
        let number = random.below(u64::MAX).to_le_bytes();
        chunk.copy_from_slice(number.get(..chunk.len()).unwrap_or_default());
    }
    Image::new("big:1")
        .busybox()
        .layer(Layer::new().file("noise", 0o644, &noise))
        .write(&archive);
    let out = daemon.hull(["load", "-i", &archive.to_string_lossy()]);
    out.fails_saying(1, "no space left");
    assert_eq!(daemon.ok(["images", "-q", "big"]), "");
    let recovered = wait_until(Duration::from_secs(10), || small.free() + (2 << 20) > free);
    assert!(recovered, "{} bytes were free, now {}", free, small.free());
    // A container that fills the disk fails by itself, and the daemon goes on.
    let out = daemon.hull([
        "run",
        "--name",
        "filler",
        "busybox",
        "dd",
        "if=/dev/zero",
        "of=/fill",
        "bs=1M",
        "count=100",
    ]);
    assert_eq!(out.code, 1, "{}", out.stderr);
    assert!(out.stderr.contains("No space left"), "{}", out.stderr);
    let out = daemon.hull(["run", "--rm", "busybox", "true"]);
    assert!(
        out.code == 0 || out.stderr.to_lowercase().contains("no space"),
        "{}",
        out.stderr
    );
    daemon.ok(["rm", "-f", "filler"]);
    assert_eq!(
        daemon.ok(["run", "--rm", "busybox", "echo", "fine"]),
        "fine"
    );
    drop(daemon);
    drop(small);
}

#[test]
fn client_killed_in_the_middle_of_load_leaves_nothing() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    let archive = daemon.scratch().join("load.tar");
    Image::new("cut:1")
        .busybox()
        .layer(Layer::new().file("x", 0o644, &vec![b'x'; 50_000_000]))
        .write(&archive);
    for wait in [5, 20, 60] {
        let load = daemon
            .cli(["load", "-i", &archive.to_string_lossy()])
            .spawn();
        std::thread::sleep(Duration::from_millis(wait));
        drop(load);
    }
    daemon.load(&archive);
    assert_eq!(
        daemon.ok(["run", "--rm", "cut:1", "wc", "-c", "/x"]),
        "50000000 /x"
    );
}

/// Processes that wait to be the shim of a container of this daemon.
fn waiting_shims(daemon: &Daemon) -> Vec<u32> {
    let place = daemon
        .run_dir()
        .join("s/------------")
        .display()
        .to_string();
    processes_with(&place)
}

/// Processes with this word on their command line.
fn processes_with(word: &str) -> Vec<u32> {
    fs::read_dir("/proc")
        .expect("read /proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0)
                .any(|argument| argument == word.as_bytes())
        })
        .collect()
}

#[test]
fn waiting_shims_bear_the_id_once_used_are_not_missed_when_killed_and_end_with_the_daemon() {
    let mut daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    let ready = |daemon: &Daemon| eventually("a shim waits", || !waiting_shims(daemon).is_empty());
    ready(&daemon);
    let id = daemon.ok(["run", "-d", "busybox", "sleep", "1000"]);
    let id = id.trim().get(..12).expect("an id");
    let served = daemon.run_dir().join("s").join(id).display().to_string();
    assert_eq!(processes_with(&served).len(), 1, "the shim of {id}");

    ready(&daemon);
    for pid in waiting_shims(&daemon) {
        let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
        assert!(killed.expect("run kill").success());
    }
    daemon.ok(["run", "--rm", "busybox", "true"]);

    ready(&daemon);
    daemon.kill();
    eventually("waiting shims end with the daemon", || {
        waiting_shims(&daemon).is_empty()
    });
    assert_eq!(processes_with(&served).len(), 1, "the shim of {id}");
}
