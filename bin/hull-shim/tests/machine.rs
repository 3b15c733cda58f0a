//! The real shim with a real guest: Hull's kernel and agent under QEMU. Needs root, the programs of
//! a workspace build; the kernel is built where it is missing.

#[path = "../../../crates/sandbox/tests/support/daemon.rs"]
mod daemon;
mod support;

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use daemon::{Daemon, demultiplex, log_records, started, stream_pair, until};
use hull_hypervisor::{Accelerator, initramfs, probe};
use hull_model::Resources;
use hull_proto::guest::{Disk, DiskName, MOUNTS_PATH, Prepare, Share, ShareKind};
use hull_proto::message::{Attach, Event, Launch};
use hull_proto::plan::{CgroupPlan, MountKind, MountOptions, PlanMount, RootFs};
use hull_proto::vm::{SHARES_TAG, VmDisk, VmPlan, VmShare};
use hull_proto::{Failure, Reply, Request};
use hull_testkit::kernel::guest_kernel;
use support::{Shim, cgroups, request};

const OUTPUT: Attach = Attach {
    fd: 0,
    stdin: false,
    stdout: true,
    stderr: true,
};
const DISK: u64 = 64 << 20;

struct Machine {
    shim: Shim,
    daemon: Daemon,
}

fn agent() -> Vec<u8> {
    let path = Path::new(env!("CARGO_BIN_EXE_hull-shim")).with_file_name("hull-agent");
    std::fs::read(path).expect("hull-agent is missing: build the workspace first")
}

/// A file system of the kernel's, with the content of a folder.
fn ext4(path: &Path, content: Option<&Path>) {
    std::fs::File::create(path).unwrap().set_len(DISK).unwrap();
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-t", "ext4", "-F"]);
    if let Some(content) = content {
        command.arg("-d").arg(content);
    }
    let made = command.arg(path).status().expect("mke2fs is needed");
    assert!(made.success());
}

impl Machine {
    fn new() -> Self {
        let shim = Shim::start();
        let daemon = shim.connect();
        Self { shim, daemon }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.shim.dir.path().join(name)
    }

    /// The launch of a container, in a machine.
    fn launch(&self, script: &str) -> Launch {
        let mut launch = self.shim.launch(script);
        let (image, disk) = (self.file("image"), self.file("disk"));
        ext4(&image, Some(&self.file("root/lower")));
        if !disk.exists() {
            ext4(&disk, None);
        }
        let initrd = self.file("initramfs");
        std::fs::write(&initrd, initramfs(&agent())).unwrap();
        let inside = |name: &str| PathBuf::from(MOUNTS_PATH).join(name);
        let mounted = |name: &str, read_only| Disk {
            name: DiskName::Serial(name.into()),
            target: inside(name),
            kind: "ext4".into(),
            options: Vec::new(),
            read_only,
        };
        let attached = |name: &str, read_only| VmDisk {
            path: self.file(name),
            read_only,
            serial: name.into(),
        };
        let (upper, work) = (inside("disk/upper"), inside("disk/work"));
        launch.plan.vm = Some(Box::new(VmPlan {
            hypervisor: probe().program.clone().expect("QEMU is needed"),
            kvm: probe().accelerator == Accelerator::Kvm,
            kernel: guest_kernel(),
            initrd,
            command_line: String::new(),
            processors: 1,
            memory: 256 << 20,
            disks: vec![attached("image", true), attached("disk", false)],
            netns: None,
            prepare: Prepare {
                disks: vec![mounted("image", true), mounted("disk", false)],
                folders: vec![upper.clone(), work.clone()],
                ..Prepare::default()
            },
            cgroup: CgroupPlan {
                path: self.shim.cgroup.clone(),
                ..CgroupPlan::default()
            },
            dir: self.file("cell"),
            uid: 3_000_000,
            seccomp_cache: self.file("seccomp"),
            ..VmPlan::default()
        }));
        launch.plan.rootfs = RootFs::Overlay {
            lower: vec![inside("image")],
            upper,
            work,
            volatile: false,
        };
        launch.plan.cgroup.path = "/hull/container".into();
        launch.plan.seccomp_cache = PathBuf::new();
        launch
    }

    fn start(&mut self, script: &str) -> u32 {
        let launch = self.launch(script);
        started(self.daemon.call(request(launch), &[]))
    }

    fn output(&self) -> String {
        let records = log_records(&self.shim.log());
        records.into_iter().map(|(_, text)| text).collect()
    }

    /// Runs a script beside the first process: code and output.
    fn exec(&mut self, script: &str) -> (i32, String) {
        let (ours, theirs) = stream_pair();
        let mut exec = self.shim.exec("e", script);
        exec.attach = Some(OUTPUT);
        exec.seccomp_cache = PathBuf::new();
        started(
            self.daemon
                .call(Request::Exec(Box::new(exec)), &[theirs.as_fd()]),
        );
        drop(theirs);
        let code = self.daemon.exec_exited("e");
        let (out, err) = demultiplex(ours);
        let text = String::from_utf8_lossy(&out) + String::from_utf8_lossy(&err);
        (code, text.into_owned())
    }

    /// The exit code, and what was told of the reasons before.
    fn end(&mut self) -> (i32, Vec<String>) {
        let mut reasons = Vec::new();
        loop {
            match self.daemon.event() {
                Event::Warning(text) => reasons.push(text),
                Event::Exited(status) => return (status.code, reasons),
                _ => {}
            }
        }
    }

    fn gone(mut self) {
        until("the cell's folder is gone", || !self.file("cell").exists());
        assert!(matches!(
            self.daemon.call(Request::Forget, &[]),
            Reply::Done
        ));
        self.shim.ended_clean();
    }
}

fn failure(reply: Reply) -> Failure {
    match reply {
        Reply::Failed(failure) => failure,
        other => panic!("it did not fail: {other:?}"),
    }
}

#[test]
fn machine_runs_a_process_with_streams_exec_signals_and_a_kernel_of_its_own() {
    let mut machine = Machine::new();
    let pid = machine.start("echo hello; echo oops >&2; read line < /dev/null; trap 'exit 7' TERM; while :; do sleep 0.1; done");
    until("its output is logged", || machine.output().contains("oops"));

    // A kernel of its own, and nothing of the host's in sight.
    let host = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let (code, kernel) = machine.exec("cat /proc/sys/kernel/osrelease; cat /proc/1/comm");
    assert_eq!(code, 0, "{kernel}");
    assert_ne!(kernel.lines().next(), Some(host.trim()));
    assert!(kernel.contains("sh"), "{kernel}");
    assert_eq!(machine.exec("exit 9").0, 9);
    let mut missing = machine.shim.exec("m", "");
    missing.process.args = vec!["/nowhere".into()];
    missing.seccomp_cache = PathBuf::new();
    let missing = machine.daemon.call(Request::Exec(Box::new(missing)), &[]);
    assert_eq!(
        failure(missing).kind,
        hull_model::ErrorKind::CommandNotFound
    );

    // A terminal, whose size is set from here.
    let (mut ours, theirs) = stream_pair();
    let mut exec = machine.shim.exec("t", "tty; read go; stty size; exit 5");
    exec.process.tty = true;
    exec.process.console_size = Some((10, 20));
    exec.attach = Some(Attach {
        stdin: true,
        stderr: false,
        ..OUTPUT
    });
    exec.seccomp_cache = PathBuf::new();
    started(
        machine
            .daemon
            .call(Request::Exec(Box::new(exec)), &[theirs.as_fd()]),
    );
    drop(theirs);
    let resize = Request::Resize {
        exec: Some("t".into()),
        rows: 33,
        cols: 77,
    };
    assert!(matches!(machine.daemon.call(resize, &[]), Reply::Done));
    ours.write_all(b"go\n").unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut ours, &mut text).unwrap();
    assert!(text.contains("/dev/pts/"), "{text}");
    assert!(text.contains("33 77"), "{text}");
    assert_eq!(machine.daemon.exec_exited("t"), 5);

    // Its processes, which the host does not see.
    let Reply::Processes(processes) = machine.daemon.call(Request::Processes, &[]) else {
        panic!("no processes");
    };
    assert!(
        processes.list.iter().any(|p| p.command.contains("trap")),
        "{processes:?}"
    );
    let Reply::Pids(pids) = machine.daemon.call(Request::Pids, &[]) else {
        panic!("no ids");
    };
    assert_eq!(pids, [pid]);

    // The hypervisor is confined.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.map(|line| {
            line.split_whitespace()
                .skip(1)
                .collect::<Vec<_>>()
                .join(" ")
        })
    };
    assert_eq!(
        field("Uid:").as_deref(),
        Some("3000000 3000000 3000000 3000000")
    );
    for capabilities in ["CapEff:", "CapPrm:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(capabilities).as_deref(), Some("0000000000000000"));
    }
    assert_eq!(field("NoNewPrivs:").as_deref(), Some("1"));
    assert_eq!(field("Seccomp:").as_deref(), Some("2"));
    let inside = |path: &str| Path::new(&format!("/proc/{pid}/root{path}")).exists();
    assert!(inside("/usr") && !inside("/proc/self") && !inside("/etc/passwd") && !inside("/root"));
    let namespace = |pid: &str| {
        std::fs::metadata(format!("/proc/{pid}/ns/net"))
            .unwrap()
            .ino()
    };
    assert_ne!(namespace("self"), namespace(&pid.to_string()));
    assert!(!cgroups(&machine.shim.cgroup).is_empty());

    // Counters, limits, pausing.
    let Reply::Stats(stats) = machine.daemon.call(Request::Stats, &[]) else {
        panic!("no stats");
    };
    assert!(
        stats.cpu_total_ns > 0 && stats.memory_usage > 0,
        "{stats:?}"
    );
    let more = Resources {
        memory: Some(1 << 40),
        ..Resources::default()
    };
    let refused = machine.daemon.call(Request::Update(Box::new(more)), &[]);
    assert!(failure(refused).message.contains("stop it, update it"));
    assert!(matches!(
        machine.daemon.call(Request::Pause, &[]),
        Reply::Done
    ));
    let used = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.split(' ').collect();
        fields[13].parse::<u64>().unwrap() + fields[14].parse::<u64>().unwrap()
    };
    let before = used();
    std::thread::sleep(Duration::from_millis(300));
    assert!(used() - before <= 10, "the guest runs on");
    assert!(matches!(
        machine.daemon.call(Request::Resume, &[]),
        Reply::Done
    ));

    let term = Request::Signal {
        signal: 15,
        exec: None,
    };
    assert!(matches!(machine.daemon.call(term, &[]), Reply::Done));
    assert_eq!(machine.daemon.exited().code, 7);
    machine.gone();
}

#[test]
fn machine_keeps_what_was_written_and_carries_bulk_both_ways() {
    let mut machine = Machine::new();
    // Input of some size comes back as it was; and the disk has it after the end.
    let mut launch = machine.launch("cat > /kept; cat /kept; seq 300000 | wc -c; exit 0");
    launch.open_stdin = true;
    launch.stdin_once = true;
    let (mut ours, theirs) = stream_pair();
    launch.attach = vec![Attach {
        stdin: true,
        ..OUTPUT
    }];
    started(machine.daemon.call(request(launch), &[theirs.as_fd()]));
    drop(theirs);
    let text: String = (0..40_000).map(|n| format!("line {n}\n")).collect();
    let writer = {
        let mut input = ours.try_clone().unwrap();
        let text = text.clone();
        std::thread::spawn(move || {
            input.write_all(text.as_bytes()).unwrap();
            input.shutdown(std::net::Shutdown::Write).unwrap();
        })
    };
    ours.flush().unwrap();
    let (out, err) = demultiplex(ours);
    writer.join().unwrap();
    let out = String::from_utf8(out).unwrap();
    assert!(err.is_empty());
    assert_eq!(out.len(), text.len() + "1988895\n".len());
    assert!(out.starts_with(&text) && out.ends_with("\n1988895\n"));
    assert_eq!(machine.daemon.exited().code, 0);
    let disk = machine.file("disk").display().to_string();
    let kept = Command::new("debugfs")
        .args(["-R", "cat /upper/kept", &disk])
        .output()
        .expect("debugfs is needed");
    assert_eq!(kept.stdout, text.as_bytes());
    machine.gone();
}

#[test]
fn machine_whose_hypervisor_is_killed_ends_with_a_reason() {
    let mut machine = Machine::new();
    let pid = machine.start("echo up; sleep 1000");
    until("it runs", || machine.output().contains("up"));
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let (code, reasons) = machine.end();
    assert_eq!(code, 137);
    assert!(
        reasons.iter().any(|text| text.contains("killed")),
        "{reasons:?}"
    );
    machine.gone();
}

#[test]
fn machine_shares_folders_and_files_both_ways_and_nothing_else() {
    let mut machine = Machine::new();
    let folder = machine.file("shared");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("from-host"), "host\n").unwrap();
    std::fs::write(machine.file("single"), "single\n").unwrap();
    std::fs::write(machine.file("secret"), "secret\n").unwrap();
    std::os::unix::fs::symlink("../../secret", folder.join("link")).unwrap();
    let script = "cat /data/from-host /single; echo guest > /data/from-guest; \
                  cat /data/link /data/../secret 2>&1; echo no > /single; echo ready; \
                  while ! [ -e /data/more ]; do sleep 0.1; done; cat /data/more; exit 4";
    let mut launch = machine.launch(script);
    let vm = launch.plan.vm.as_mut().unwrap();
    vm.file_server = hull_hypervisor::qemu::find_file_server().expect("virtiofsd is needed");
    let share = |name: &str, source: PathBuf, read_only| VmShare {
        source,
        name: name.into(),
        read_only,
        recursive: true,
    };
    vm.shares = vec![
        share("0", folder.clone(), false),
        share("1", machine.file("single"), true),
    ];
    let host = PathBuf::from(MOUNTS_PATH).join("host");
    vm.prepare.shares = vec![Share {
        tag: SHARES_TAG.into(),
        kind: ShareKind::VirtioFs,
        target: host.clone(),
        options: Vec::new(),
        read_only: false,
    }];
    for (target, name) in [("/data", "0"), ("/single", "1")] {
        launch.plan.mounts.push(PlanMount {
            target: target.into(),
            kind: MountKind::Bind {
                source: host.join(name),
                recursive: true,
            },
            options: MountOptions::default(),
        });
    }
    started(machine.daemon.call(request(launch), &[]));
    until("the guest has looked", || {
        machine.output().contains("ready")
    });
    let seen = machine.output();
    assert!(seen.starts_with("host\nsingle\n"), "{seen}");
    assert!(!seen.contains("secret\n"), "{seen}");
    assert_eq!(
        std::fs::read_to_string(folder.join("from-guest")).unwrap(),
        "guest\n"
    );
    assert_eq!(
        std::fs::read_to_string(machine.file("single")).unwrap(),
        "single\n"
    );
    std::fs::write(folder.join("more"), "later\n").unwrap();
    assert_eq!(machine.daemon.exited().code, 4);
    assert!(machine.output().ends_with("later\n"));
    until("the server's folder is gone", || {
        !machine.file("shares").exists()
    });
    machine.gone();
}

#[test]
fn machine_whose_file_server_dies_ends_with_a_reason() {
    let mut machine = Machine::new();
    let folder = machine.file("shared");
    std::fs::create_dir(&folder).unwrap();
    let mut launch = machine.launch("echo up; sleep 1000");
    let vm = launch.plan.vm.as_mut().unwrap();
    vm.file_server = hull_hypervisor::qemu::find_file_server().expect("virtiofsd is needed");
    vm.shares = vec![VmShare {
        source: folder,
        name: "0".into(),
        ..VmShare::default()
    }];
    let hypervisor = started(machine.daemon.call(request(launch), &[]));
    let group = cgroups(&machine.shim.cgroup).remove(0);
    let all = std::fs::read_to_string(group.join("cgroup.procs")).unwrap();
    let server = all.lines().filter_map(|pid| pid.parse::<u32>().ok());
    let servers: Vec<u32> = server.filter(|pid| *pid != hypervisor).collect();
    assert!(!servers.is_empty(), "{all}");
    for pid in servers {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    let (code, reasons) = machine.end();
    assert_eq!(code, 137);
    assert!(
        reasons.iter().any(|text| text.contains("volumes")),
        "{reasons:?}"
    );
    machine.gone();
}

#[test]
fn machine_of_a_killed_shim_dies_with_it() {
    let mut machine = Machine::new();
    let pid = machine.start("echo up; sleep 1000");
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(machine.shim.pid, rustix::process::Signal::KILL).unwrap();
    until("the hypervisor is gone", || {
        rustix::process::test_kill_process(pid).is_err()
    });
}

#[test]
fn machine_that_cannot_boot_says_why_and_leaves_nothing() {
    let mut machine = Machine::new();
    let mut launch = machine.launch("true");
    let vm = launch.plan.vm.as_mut().unwrap();
    vm.kernel = machine.file("initramfs");
    let failed = failure(machine.daemon.call(request(launch), &[]));
    assert!(
        failed.message.contains("virtual machine"),
        "{}",
        failed.message
    );
    assert!(!machine.file("cell").exists());
    drop(machine.daemon);
    machine.shim.ended_clean();
}
