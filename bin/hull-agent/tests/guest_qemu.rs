//! The agent as process 1 of a machine: a microvm of QEMU's by emulation, with Hull's guest kernel.

mod support;

use std::io::Read as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hull_hypervisor::Archive;
use hull_model::{ErrorKind, Resources};
use hull_proto::guest::{
    AGENT_PATH, Channel, Disk, DiskName, GuestEvent, GuestFile, GuestReply, GuestRequest,
    INITRAMFS_PATH, Interface, MOUNTS_PATH, PORT_NAME, Prepare, Route, Share, ShareKind, StreamId,
    wire,
};
use hull_proto::plan::{MountKind, MountOptions, PlanMount, RootFs};
use hull_testkit::kernel::guest_kernel;
use support::{APPLETS, BOTH, CONNECTED, Peer, plan, process, terminal};

const AGENT: &str = env!("CARGO_BIN_EXE_hull-agent");
const SECOND: u64 = 1_000_000_000;
/// How long a machine may take to end.
const END: Duration = Duration::from_secs(20);
/// Memory of the agent's own besides its program, KiB.
const OWN_MEMORY: u64 = 2048;

struct Machine {
    qemu: Child,
    dir: tempfile::TempDir,
    peer: Peer,
}

/// An initramfs with the agent, and a root for containers in it.
fn initramfs() -> Vec<u8> {
    let agent = std::fs::read(AGENT).expect("agent");
    let mut archive = Archive::new()
        .directory("dev", 0o755)
        .character_device("dev/console", 0o600, (5, 1))
        .file("init", 0o755, &agent)
        .directory("root", 0o755);
    for folder in ["bin", "dev", "proc", "tmp", "etc", "sys", "data"] {
        archive = archive.directory(&format!("root/{folder}"), 0o755);
    }
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is needed");
    archive = archive.file("root/bin/busybox", 0o755, &busybox);
    for applet in APPLETS {
        archive = archive.symlink(&format!("root/bin/{applet}"), "busybox");
    }
    archive.finish()
}

impl Machine {
    fn boot() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(path("initramfs"), initramfs()).expect("write");
        let disk = std::fs::File::create(path("disk")).expect("disk");
        disk.set_len(32 << 20).expect("disk");
        let made = Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-F", &path("disk")])
            .status();
        assert!(made.expect("mke2fs is needed").success());
        let listener = UnixListener::bind(path("channel")).expect("listen");
        let kernel = guest_kernel().display().to_string();
        let port = format!("virtserialport,chardev=channel,name={PORT_NAME}");
        let channel = format!("socket,id=channel,path={}", path("channel"));
        let drive = format!("id=disk,file={},format=raw,if=none", path("disk"));
        let initramfs = path("initramfs");
        std::fs::create_dir(path("share")).expect("share");
        std::fs::write(path("share/from-host"), "of the host\n").expect("share");
        let share = format!("local,id=share,path={},security_model=none", path("share"));
        let khz = hull_sys::tsc::khz().expect("a counter");
        let words =
            format!("console=ttyS0 quiet reboot=t panic=-1 tsc_early_khz={khz} tsc=reliable");
        let qemu = Command::new("qemu-system-x86_64")
            .args(["-M", "microvm,x-option-roms=off,rtc=off,acpi=off"])
            .args(["-accel", "tcg", "-cpu", "max", "-m", "256", "-smp", "1"])
            .args(["-display", "none", "-no-reboot", "-nodefaults"])
            .args([
                "-serial", "stdio", "-kernel", &kernel, "-initrd", &initramfs,
            ])
            .args(["-append", &words])
            .args(["-chardev", &channel, "-device", "virtio-serial-device"])
            .args(["-device", &port, "-drive", &drive])
            .args(["-device", "virtio-blk-device,drive=disk,serial=upper"])
            .args(["-fsdev", &share, "-device"])
            .arg("virtio-9p-device,fsdev=share,mount_tag=data")
            .args(["-netdev", "hubport,id=net,hubid=0"])
            .args([
                "-device",
                "virtio-net-device,netdev=net,mac=02:42:0a:09:08:07",
            ])
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(path("console")).expect("console"))
            .spawn()
            .expect("qemu-system-x86 is needed");
        let peer = Peer::new(listener.accept().expect("qemu connects").0);
        Self { qemu, dir, peer }
    }

    fn console(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("console")).unwrap_or_default()
    }

    /// Waits until it is off.
    fn ended(&mut self) {
        while self.peer.pump() {}
        let until = Instant::now() + END;
        while self.qemu.try_wait().expect("wait").is_none() {
            assert!(Instant::now() < until, "still on: {}", self.console());
            std::thread::sleep(Duration::from_millis(10));
        }
        let console = self.console();
        assert!(!console.contains("Kernel panic"), "{console}");
        assert!(!console.contains("panicked"), "{console}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("console of the guest:\n{}", self.console());
        }
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn mounts(path: &str) -> PathBuf {
    Path::new(MOUNTS_PATH).join(path)
}

fn prepare() -> Prepare {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock");
    Prepare {
        clock_ns: now.as_nanos() as u64,
        entropy: (0..64).collect(),
        hostname: "guest".into(),
        disks: vec![Disk {
            name: DiskName::Serial("upper".into()),
            target: mounts("disk"),
            kind: "ext4".into(),
            options: vec!["discard".into()],
            read_only: false,
        }],
        shares: vec![Share {
            tag: "data".into(),
            kind: ShareKind::NineP,
            target: mounts("data"),
            options: vec!["msize=131072".into(), "cache=none".into()],
            read_only: false,
        }],
        files: vec![GuestFile {
            path: mounts("files/hosts"),
            mode: 0o644,
            uid: 0,
            gid: 0,
            content: "10.9.8.1 neighbour\n".into(),
        }],
        folders: vec![mounts("disk/upper"), mounts("disk/work")],
        interfaces: vec![Interface {
            mac: "02:42:0A:09:08:07".into(),
            name: "eth0".into(),
            addresses: vec![
                ("10.9.8.7".parse().expect("address"), 24),
                ("fd09::7".parse().expect("address"), 64),
            ],
            mtu: Some(1400),
            routes: vec![Route {
                to: ("0.0.0.0".parse().expect("address"), 0),
                via: Some("10.9.8.1".parse().expect("address")),
                metric: None,
            }],
        }],
        sysctls: vec![
            ("vm.swappiness".into(), "5".into()),
            ("no.such".into(), "1".into()),
        ],
    }
}

fn overlay() -> RootFs {
    RootFs::Overlay {
        lower: vec![Path::new(INITRAMFS_PATH).join("root")],
        upper: mounts("disk/upper"),
        work: mounts("disk/work"),
        volatile: false,
    }
}

#[test]
fn guest_runs_a_container_with_everything_a_shim_asks_for() {
    let mut machine = Machine::boot();
    let peer = &mut machine.peer;
    // Sent ahead: the guest has everything it needs when it comes up.
    let prepared = peer.ask(GuestRequest::Prepare(Box::new(prepare())));
    let mut launch = plan(overlay(), "/hull/guest", &["sh", "-c", "echo ready; cat"]);
    launch.namespaces.net = hull_proto::plan::Namespace::Host;
    launch.cgroup.resources = Resources {
        memory: Some(64 << 20),
        pids_limit: Some(50),
        ..Resources::default()
    };
    let hosts = MountKind::Bind {
        source: mounts("files/hosts"),
        recursive: false,
    };
    let agent = MountKind::Bind {
        source: AGENT_PATH.into(),
        recursive: false,
    };
    let share = MountKind::Bind {
        source: mounts("data"),
        recursive: true,
    };
    for (target, kind) in [
        ("/sys", MountKind::Sysfs),
        ("/sys/fs/cgroup", MountKind::Cgroup),
        ("/etc/hosts", hosts),
        ("/data", share),
        ("/bin/hull-agent", agent),
    ] {
        launch.mounts.push(PlanMount {
            target: target.into(),
            kind,
            options: MountOptions::default(),
        });
    }
    launch.init = Some(PathBuf::from(AGENT_PATH));
    let launched = peer.ask(GuestRequest::Launch(Box::new(
        hull_proto::guest::GuestLaunch {
            plan: launch,
            stdio: CONNECTED,
        },
    )));
    let hello = peer.greet();
    assert!(hello.boot.started_ns > 0, "{hello:?}");
    let GuestReply::Done { warnings } = peer.answer(prepared) else {
        panic!("not prepared")
    };
    assert!(
        warnings.len() == 1 && warnings[0].contains("no.such"),
        "{warnings:?}"
    );
    let reply = peer.answer(launched);
    let GuestReply::Started { uptime_ns, .. } = reply else {
        panic!("{reply:?}")
    };
    peer.until("ready", |peer| peer.text(0) == "ready\n");
    eprintln!(
        "agent after {} ms, channel after {} ms, process after {} ms of the guest",
        hello.boot.started_ns / 1_000_000,
        hello.boot.ready_ns / 1_000_000,
        uptime_ns / 1_000_000
    );

    // What it says of itself; walls inside are those of a container.
    peer.exec(1, process(&["hull-agent", "hello"]), CONNECTED);
    let (code, text) = peer.finish(1, &BOTH);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("Hello from Hull!") && text.contains(&hello.kernel),
        "{text}"
    );
    assert!(text.contains("64 MiB"), "{text}");
    let script = "hostname; cat /etc/hosts; cat /proc/net/route; cat /proc/1/status; date +%s; \
        cat /sys/class/net/eth0/mtu; ls /hull /newroot; \
        cat /sys/devices/system/clocksource/clocksource0/current_clocksource; touch /written; cat /proc/self/cgroup";
    peer.exec(1, process(&["sh", "-c", script]), CONNECTED);
    let (_, text) = peer.finish(1, &BOTH);
    assert!(text.starts_with("inside\n10.9.8.1 neighbour\n"), "{text}");
    assert!(text.contains("eth0\t00000000\t0108090A"), "{text}");
    assert!(text.contains("Name:\tdocker-init"), "{text}");
    assert!(text.contains("\n1400\n"), "{text}");
    // Early or for good: what counts is that it is not the timer's ticks.
    assert!(text.contains("\ntsc"), "{text}");
    assert!(text.contains("0::/\n"), "{text}");
    assert!(text.contains("ls: /hull: No such file"), "{text}");

    // A file that changes is seen to change.
    let mut files = prepare().files;
    files[0].content = "10.9.8.2 other\n".into();
    peer.done(GuestRequest::Files(files));
    peer.exec(1, process(&["cat", "/etc/hosts"]), CONNECTED);
    assert_eq!(peer.finish(1, &BOTH), (0, "10.9.8.2 other\n".into()));

    // A folder of the host, both ways.
    let script = "cat /data/from-host; echo of the guest > /data/from-guest";
    peer.exec(1, process(&["sh", "-c", script]), CONNECTED);
    assert_eq!(peer.finish(1, &BOTH), (0, "of the host\n".into()));
    let written = std::fs::read_to_string(machine.dir.path().join("share/from-guest"));
    assert_eq!(written.expect("written"), "of the guest\n");

    // A terminal.
    peer.exec(
        2,
        terminal(&["sh", "-c", "stty size; read x; stty size"]),
        CONNECTED,
    );
    peer.until("size", |peer| peer.text(2).contains("20 70"));
    let resize = GuestRequest::Resize {
        session: 2,
        rows: 33,
        cols: 99,
    };
    peer.done(resize);
    peer.write(2, b"\n");
    let (code, text) = peer.finish(2, &BOTH[..1]);
    assert!(code == 0 && text.contains("33 99"), "{text}");

    // Signals, lists, counters, limits, time.
    peer.exec(3, process(&["sleep", "1000"]), CONNECTED);
    let processes = peer.processes();
    let names: Vec<&str> = processes.list.iter().map(|p| p.name.as_str()).collect();
    assert!(
        names.contains(&"sleep") && names.contains(&"cat"),
        "{names:?}"
    );
    assert!(processes.memory > 128 << 20);
    peer.done(GuestRequest::Pause);
    peer.done(GuestRequest::Resume);
    peer.done(GuestRequest::Signal {
        session: 3,
        signal: 15,
    });
    assert_eq!(peer.finish(3, &BOTH).0, 143);
    peer.done(GuestRequest::Update(Box::new(Resources {
        memory: Some(32 << 20),
        ..Resources::default()
    })));
    let GuestReply::Stats(stats) = peer.call(GuestRequest::Stats) else {
        panic!("no stats")
    };
    assert_eq!((stats.memory_limit, stats.pids_limit), (32 << 20, 50));
    assert!(
        stats.cpu_total_ns > 0 && stats.memory_usage > 0,
        "{stats:?}"
    );
    peer.done(GuestRequest::Clock(2_000_000_000 * SECOND));
    peer.exec(3, process(&["date", "+%s"]), CONNECTED);
    let (_, text) = peer.finish(3, &BOTH);
    assert!(text.starts_with("20000000"), "{text}");

    // Want of memory kills one, not the guest, and is told before the end.
    peer.exec(
        4,
        process(&["dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"]),
        CONNECTED,
    );
    assert_eq!(peer.finish(4, &BOTH).0, 137);
    assert!(
        peer.events.contains(&GuestEvent::Oom { kills: 1 }),
        "{:?}",
        peer.events
    );

    // Much data, both ways.
    let started = Instant::now();
    let data: Vec<u8> = (0..2 << 20).map(|n: u32| (n / 7) as u8).collect();
    peer.exec(5, process(&["cat"]), CONNECTED);
    peer.write(5, &data);
    peer.end_input(5);
    let stream = StreamId::new(5, Channel::Stdout);
    peer.until("all of it", |peer| peer.over.contains(&stream));
    assert!(peer.output.get(&stream) == Some(&data));
    assert_eq!(peer.finish(5, &BOTH).0, 0);
    eprintln!("2 MiB there and back in {:?}", started.elapsed());
    let started = Instant::now();
    peer.exec(6, process(&["true"]), CONNECTED);
    assert_eq!(peer.finish(6, &BOTH).0, 0);
    eprintln!("exec of true in {:?}", started.elapsed());

    // The agent itself: what it takes, seen by a container that sees it.
    peer.end_input(0);
    assert_eq!(peer.finish(0, &BOTH), (0, "ready\n".into()));
    assert!(peer.done(GuestRequest::Shutdown).is_empty());
    machine.ended();

    // What was written is on the disk, whose file system was closed.
    let disk = machine.dir.path().join("disk").display().to_string();
    let list = Command::new("debugfs")
        .args(["-R", "ls -l /upper", &disk])
        .output()
        .expect("debugfs");
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains("written"), "{list}");
    let checked = Command::new("e2fsck").args(["-n", &disk]).output();
    let checked = checked.expect("e2fsck");
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(
        checked.status.success() && !text.contains("recovering"),
        "{text}"
    );
}

#[test]
fn guest_with_a_shim_that_breaks_a_rule_or_goes_powers_off() {
    let mut machine = Machine::boot();
    machine.peer.greet();
    let root = RootFs::Directory {
        path: Path::new(INITRAMFS_PATH).join("root"),
    };
    // Failures leave the guest as it was.
    let mut outside = prepare();
    outside.folders.push("/etc".into());
    outside.disks.clear();
    outside.shares.clear();
    let (kind, text) = machine.peer.fails(GuestRequest::Prepare(Box::new(outside)));
    assert!(
        kind == ErrorKind::Internal && text.contains("/etc"),
        "{text}"
    );
    let mut launch = plan(root, "/hull/guest", &["sleep", "1000"]);
    launch.namespaces.pid = hull_proto::plan::Namespace::Host;
    machine.peer.launch(launch, CONNECTED);
    // The agent, seen by one who may see it.
    let look = GuestRequest::Exec(Box::new(hull_proto::guest::GuestExec {
        session: 1,
        process: process(&["cat", "/proc/1/status"]),
        stdio: CONNECTED,
        privileged: true,
        ..Default::default()
    }));
    assert!(matches!(
        machine.peer.call(look),
        GuestReply::Started { .. }
    ));
    let (_, text) = machine.peer.finish(1, &BOTH);
    let number = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|n| n.parse::<u64>().ok()).expect("kB")
    };
    eprintln!(
        "agent: {} KiB resident, {} KiB of them its own",
        number("VmRSS:"),
        number("RssAnon:")
    );
    assert!(number("RssAnon:") < OWN_MEMORY, "{text}");
    let mut noise = Vec::new();
    wire::put_data(&mut noise, StreamId::new(0, Channel::Stdout), b"x");
    machine.peer.send(&noise);
    machine.ended();
    let mut console = String::new();
    std::fs::File::open(machine.dir.path().join("console"))
        .and_then(|mut file| file.read_to_string(&mut console))
        .expect("console");
    assert!(console.contains("against the direction"), "{console}");
}
