//! The agent's loop on a socket and not in a guest: what it does with processes and with noise.

mod support;

use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use hull_model::ErrorKind;
use hull_proto::guest::{
    Channel, GuestReply, GuestRequest, GuestStdio, INITIAL_CREDIT, MAX_CREDIT, MAX_DATA,
    MAX_SESSIONS, Prepare, StreamId, wire,
};
use hull_proto::plan::RootFs;
use support::{APPLETS, BOTH, CONNECTED, Peer, plan, process, terminal};

const AGENT: &str = env!("CARGO_BIN_EXE_hull-agent");
/// Resident memory the agent may have, bytes; the debug build is larger than what is shipped.
const MEMORY: u64 = 16 << 20;

struct World {
    root: tempfile::TempDir,
    agent: Child,
    peer: Peer,
}

/// An agent in a mount and network namespace of its own.
fn world() -> World {
    let (ours, theirs) = UnixStream::pair().expect("pair");
    let root = tempfile::tempdir().expect("root");
    for folder in ["bin", "dev", "proc", "tmp", "etc"] {
        std::fs::create_dir(root.path().join(folder)).expect("folder");
    }
    let busybox = root.path().join("bin/busybox");
    std::fs::copy("/bin/busybox", busybox).expect("busybox-static is needed");
    for applet in APPLETS {
        symlink("busybox", root.path().join("bin").join(applet)).expect("applet");
    }
    let mut command = Command::new("unshare");
    let agent = command
        .args(["--mount", "--net", "sh", "-c"])
        .arg(format!("exec {AGENT} guest 3 3<&0 0</dev/null"))
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .expect("root and unshare are needed");
    // It has the other end, too.
    drop(command);
    let mut peer = Peer::new(ours);
    peer.greet();
    World { root, agent, peer }
}

impl World {
    fn launch(&mut self, args: &[&str]) -> u32 {
        let root = RootFs::Directory {
            path: self.root.path().to_owned(),
        };
        let group = format!("/hull-agent-test-{}", self.agent.id());
        self.peer.launch(plan(root, &group, args), CONNECTED)
    }

    /// Ends the agent, and returns its code.
    fn shut_down(mut self) -> Option<i32> {
        assert!(self.peer.done(GuestRequest::Shutdown).is_empty());
        assert!(!self.peer.pump());
        self.agent.wait().expect("wait").code()
    }

    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.agent.id()));
        let status = status.expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|n| n.parse::<u64>().ok()).expect("kB") << 10
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        // It removes its groups itself unless it was killed.
        let name = format!("hull-agent-test-{}", self.agent.id());
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten() {
            let group = hierarchy.expect("hierarchy").path().join(&name);
            let _ = std::fs::remove_dir(group);
        }
        let _ = std::fs::remove_dir(std::path::Path::new("/sys/fs/cgroup").join(name));
    }
}

#[test]
fn loop_runs_processes_and_tells_of_their_ends() {
    let mut world = world();
    let conflict = |reply| assert!(matches!(reply, (ErrorKind::Conflict, _)), "{reply:?}");
    conflict(world.peer.fails(GuestRequest::Stats));
    world.launch(&["sh", "-c", "echo ready; cat; exit 3"]);
    let peer = &mut world.peer;
    peer.until("ready", |peer| peer.text(0) == "ready\n");

    // Each stream on its own, and the code.
    peer.exec(
        5,
        process(&["sh", "-c", "echo out; echo err >&2; exit 7"]),
        CONNECTED,
    );
    assert_eq!(peer.finish(5, &BOTH), (7, "out\nerr\n".to_owned()));
    // The number is free again; without streams there is nothing to end.
    peer.exec(5, process(&["true"]), GuestStdio::Null);
    assert_eq!(peer.finish(5, &[]), (0, String::new()));
    // A program that is not there; its session never was.
    let exec = |session, args: &[&str]| {
        GuestRequest::Exec(Box::new(hull_proto::guest::GuestExec {
            session,
            process: process(args),
            ..Default::default()
        }))
    };
    let (kind, text) = peer.fails(exec(5, &["no-such-program"]));
    assert_eq!(kind, ErrorKind::CommandNotFound, "{text}");
    let (kind, _) = peer.fails(exec(MAX_SESSIONS, &["true"]));
    assert_eq!(kind, ErrorKind::InvalidArgument);
    let (kind, _) = peer.fails(exec(0, &["true"]));
    assert_eq!(kind, ErrorKind::InvalidArgument);

    // A terminal: its size, before and after, and what is typed.
    peer.exec(
        6,
        terminal(&["sh", "-c", "stty size; read x; stty size; echo got $x"]),
        CONNECTED,
    );
    peer.until("size", |peer| peer.text(6).contains("20 70"));
    let (rows, cols) = (33, 99);
    peer.done(GuestRequest::Resize {
        session: 6,
        rows,
        cols,
    });
    peer.write(6, b"word\n");
    let (code, text) = peer.finish(6, &BOTH[..1]);
    assert!(
        code == 0 && text.contains("33 99") && text.contains("got word"),
        "{text}"
    );
    conflict(peer.fails(GuestRequest::Resize {
        session: 0,
        rows,
        cols,
    }));

    // Signals, lists and numbers.
    peer.exec(7, process(&["sleep", "1000"]), CONNECTED);
    let processes = peer.processes();
    let sleep = processes.list.iter().find(|p| p.command == "sleep 1000");
    assert_eq!(sleep.map(|p| (p.name.as_str(), p.uid)), Some(("sleep", 0)));
    conflict(peer.fails(exec(7, &["true"])));
    peer.done(GuestRequest::Pause);
    peer.done(GuestRequest::Resume);
    let GuestReply::Stats(stats) = peer.call(GuestRequest::Stats) else {
        panic!("no stats")
    };
    assert!(
        stats.pids_current >= 2 && stats.memory_usage > 0,
        "{stats:?}"
    );
    let (kind, _) = peer.fails(GuestRequest::Signal {
        session: 7,
        signal: 99,
    });
    assert_eq!(kind, ErrorKind::InvalidArgument);
    peer.done(GuestRequest::Signal {
        session: 7,
        signal: 15,
    });
    assert_eq!(peer.finish(7, &BOTH).0, 143);
    let (kind, _) = peer.fails(GuestRequest::Signal {
        session: 7,
        signal: 15,
    });
    assert_eq!(kind, ErrorKind::NotFound);

    // The first one's input, its end, and what it ends with.
    peer.write(0, b"line\n");
    peer.end_input(0);
    assert_eq!(peer.finish(0, &BOTH), (3, "ready\nline\n".to_owned()));
    assert_eq!(world.shut_down(), Some(0));
}

#[test]
fn loop_slow_reader_holds_back_its_own_stream_alone() {
    let mut world = world();
    world.launch(&["sleep", "1000"]);
    let peer = &mut world.peer;
    peer.slow.insert(1);
    let flood = ["dd", "if=/dev/zero", "bs=64k", "count=64"];
    peer.exec(1, process(&flood), CONNECTED);
    let first = StreamId::new(1, Channel::Stdout);
    peer.until("all that there is credit for", |peer| {
        peer.output.get(&first).map(Vec::len) == Some(INITIAL_CREDIT as usize)
    });
    // Another one gets through, with much more than a window, both ways.
    peer.exec(2, process(&["cat"]), CONNECTED);
    let data: Vec<u8> = (0..3 << 20).map(|n: u32| (n / 7) as u8).collect();
    peer.write(2, &data);
    peer.end_input(2);
    let second = StreamId::new(2, Channel::Stdout);
    peer.until("the end", |peer| peer.over.contains(&second));
    assert!(peer.output.get(&second) == Some(&data));
    assert_eq!(peer.finish(2, &BOTH).0, 0);
    assert_eq!(
        peer.output.get(&first).map(Vec::len),
        Some(INITIAL_CREDIT as usize)
    );
    // The slow one goes on once it is read, or ends if nobody wants more.
    peer.slow.clear();
    let mut frames = Vec::new();
    wire::put_credit(&mut frames, first, 1000);
    wire::put_stop(&mut frames, first);
    peer.send(&frames);
    let (code, _) = peer.finish(1, &BOTH);
    assert_ne!(code, 0, "it was not told that its reader is gone");
    // A process that closes its input: the shim is told once, and may go on sending.
    peer.exec(
        3,
        process(&["sh", "-c", "exec 0<&-; echo closed; sleep 1000"]),
        CONNECTED,
    );
    peer.until("closed", |peer| peer.text(3) == "closed\n");
    peer.write(3, &[b'x'; 3 * INITIAL_CREDIT as usize]);
    assert!(peer.stopped.contains(&StreamId::new(3, Channel::Stdin)));
    let resident = world.resident();
    assert!(resident < MEMORY, "{resident}");
    assert_eq!(world.shut_down(), Some(0));
}

#[test]
fn loop_background_process_keeps_the_stream_and_not_the_end() {
    let mut world = world();
    world.launch(&["sleep", "1000"]);
    let peer = &mut world.peer;
    peer.exec(
        1,
        process(&["sh", "-c", "sleep 1000 & echo early"]),
        CONNECTED,
    );
    peer.until("its end", |peer| peer.ended.contains_key(&1));
    assert_eq!(peer.text(1), "early\n");
    assert!(!peer.over.contains(&StreamId::new(1, Channel::Stdout)));
    peer.done(GuestRequest::KillAll);
    assert_eq!(peer.finish(1, &BOTH), (0, "early\n".to_owned()));
    assert_eq!(peer.finish(0, &BOTH).0, 137);
    assert_eq!(world.shut_down(), Some(0));
}

/// What breaks a rule of the channel.
fn violations() -> Vec<(&'static str, Vec<u8>)> {
    let stdin = StreamId::new(1, Channel::Stdin);
    let stdout = StreamId::new(1, Channel::Stdout);
    let put = |fill: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        fill(&mut bytes);
        bytes
    };
    let mut noise = vec![0u8; 4096];
    for (at, byte) in noise.iter_mut().enumerate() {
        *byte = (at * 7 + 99) as u8;
    }
    let mut long = put(&|out| wire::put_data(out, stdin, b"x"));
    long[8..12].copy_from_slice(&(MAX_DATA as u32 + 1).to_le_bytes());
    vec![
        ("noise", noise),
        ("a frame too long", long),
        ("a message that is none", {
            put(&|out| wire::put_message(out, &"x", 1000).expect("put"))
        }),
        ("input beyond the credit", {
            put(&|out| wire::put_data(out, stdin, &vec![0; 4 * INITIAL_CREDIT as usize]))
        }),
        ("credit without end", {
            put(&|out| (0..3).for_each(|_| wire::put_credit(out, stdout, MAX_CREDIT)))
        }),
        (
            "output from the shim",
            put(&|out| wire::put_data(out, stdout, b"x")),
        ),
        (
            "credit for input",
            put(&|out| wire::put_credit(out, stdin, 1)),
        ),
    ]
}

#[test]
fn loop_peer_that_breaks_a_rule_is_left_and_everything_ends() {
    for (what, bytes) in violations() {
        let mut world = world();
        world.launch(&["sleep", "1000"]);
        world.peer.exec(1, process(&["sleep", "1000"]), CONNECTED);
        world.peer.send(&bytes);
        while world.peer.pump() {}
        let code = world.agent.wait().expect("wait").code();
        assert_eq!(code, Some(1), "{what}");
    }
}

#[test]
fn loop_frames_for_sessions_that_are_over_do_no_harm() {
    let mut world = world();
    let peer = &mut world.peer;
    let mut frames = Vec::new();
    for session in [0, 9, MAX_SESSIONS - 1] {
        wire::put_data(
            &mut frames,
            StreamId::new(session, Channel::Stdin),
            &[0; MAX_DATA],
        );
        wire::put_end(&mut frames, StreamId::new(session, Channel::Stdin));
        wire::put_credit(
            &mut frames,
            StreamId::new(session, Channel::Stdout),
            u32::MAX,
        );
        wire::put_stop(&mut frames, StreamId::new(session, Channel::Stderr));
    }
    peer.send(&frames);
    let (kind, _) = peer.fails(GuestRequest::Signal {
        session: 9,
        signal: 9,
    });
    assert_eq!(kind, ErrorKind::NotFound);
    for request in [
        GuestRequest::KillAll,
        GuestRequest::Processes,
        GuestRequest::Pause,
    ] {
        assert_eq!(peer.fails(request).0, ErrorKind::Conflict);
    }
    assert_eq!(world.shut_down(), Some(0));
}

#[test]
fn loop_prepare_once_and_launch_again_after_a_failure() {
    let mut world = world();
    world.peer.done(GuestRequest::Prepare(Box::default()));
    let again = world
        .peer
        .fails(GuestRequest::Prepare(Box::<Prepare>::default()));
    assert_eq!(again.0, ErrorKind::Conflict);
    let root = RootFs::Directory {
        path: world.root.path().to_owned(),
    };
    let group = format!("/hull-agent-test-{}", world.agent.id());
    let launch = |args: &[&str]| {
        GuestRequest::Launch(Box::new(hull_proto::guest::GuestLaunch {
            plan: plan(root.clone(), &group, args),
            stdio: CONNECTED,
        }))
    };
    assert_eq!(
        world.peer.fails(launch(&["none"])).0,
        ErrorKind::CommandNotFound
    );
    let mut network = launch(&["true"]);
    if let GuestRequest::Launch(launch) = &mut network {
        // The guest's own network, of which parameters may be set.
        launch.plan.namespaces.net = hull_proto::plan::Namespace::Host;
        let parameter = ("net.ipv4.ip_unprivileged_port_start".into(), "77".into());
        launch.plan.sysctls = [parameter].into();
        let file = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
        launch.plan.process = process(&["sh", "-c", &format!("cat {file}; sleep 1000")]);
    }
    assert!(matches!(
        world.peer.call(network),
        GuestReply::Started { .. }
    ));
    world.peer.until("the value", |peer| peer.text(0) == "77\n");
    assert_eq!(world.peer.fails(launch(&["true"])).0, ErrorKind::Conflict);
    assert_eq!(world.shut_down(), Some(0));
}

#[test]
fn loop_peer_that_is_gone_ends_everything() {
    let mut world = world();
    let pid = world.launch(&["sleep", "1000"]);
    let (ours, _theirs) = UnixStream::pair().expect("pair");
    // The channel closes with its value.
    world.peer = Peer::new(ours);
    let started = Instant::now();
    assert_eq!(world.agent.wait().expect("wait").code(), Some(1));
    assert!(started.elapsed() < Duration::from_secs(30));
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}
