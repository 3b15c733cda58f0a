//! The real shim over its socket, with containers of busybox. Needs root.

#[path = "../../../crates/sandbox/tests/support/daemon.rs"]
mod daemon;
mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use daemon::{Daemon, demultiplex, log_records, started, stream_pair, until};
use hull_model::{ErrorKind, Resources};
use hull_proto::message::{Attach, Event};
use hull_proto::plan::{Namespace, PlanUser};
use hull_proto::{ExecLaunch, Failure, Reply, Request};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use support::{Shim, request};

const OUTPUT: Attach = Attach {
    fd: 0,
    stdin: false,
    stdout: true,
    stderr: true,
};
const TERMINAL: Attach = Attach {
    fd: 0,
    stdin: true,
    stdout: true,
    stderr: false,
};

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed()).unwrap()
}

fn is_gone(pid: u32) -> bool {
    test_kill_process(pid_of(pid)).is_err()
}

fn failure(reply: Reply) -> Failure {
    match reply {
        Reply::Failed(failure) => failure,
        other => panic!("it did not fail: {other:?}"),
    }
}

fn forget(mut daemon: Daemon, shim: Shim) {
    assert!(matches!(daemon.call(Request::Forget, &[]), Reply::Done));
    shim.ended_clean();
}

fn out(shim: &Shim) -> String {
    log_records(&shim.log())
        .into_iter()
        .map(|(_, text)| text)
        .collect()
}

/// Reads a terminal until a text is seen.
fn read_until(stream: &mut UnixStream, wanted: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(wanted) {
        let mut buffer = [0; 4096];
        let count = stream
            .read(&mut buffer)
            .unwrap_or_else(|error| panic!("{error} after {seen:?}"));
        assert!(count > 0, "the stream ended after {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    seen
}

#[test]
fn launch_echo_is_logged_attached_recorded_and_leaves_nothing() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let (ours, theirs) = stream_pair();
    let mut wish = shim.launch("echo hello; echo oops >&2; exit 3");
    wish.attach = vec![OUTPUT];
    let pid = started(daemon.call(request(wish), &[theirs.as_fd()]));
    drop(theirs);
    let status = daemon.exited();
    assert_eq!(status.code, 3);
    assert_eq!(shim.exit_record(), status);
    assert_eq!(demultiplex(ours), (b"hello\n".to_vec(), b"oops\n".to_vec()));
    assert_eq!(log_records(&shim.log()).len(), 2);
    assert!(is_gone(pid));
    forget(daemon, shim);
}

#[test]
fn payload_starts_with_clean_signals_and_descriptors() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let mut wish = shim.launch("");
    wish.plan.process.args = [
        "grep",
        "-E",
        "^Sig(Blk|Ign|Cgt)|^NSpid",
        "/proc/self/status",
    ]
    .map(String::from)
    .into();
    started(daemon.call(request(wish), &[]));
    assert_eq!(daemon.exited().code, 0);
    let text = out(&shim);
    for set in ["SigBlk", "SigIgn"] {
        assert!(
            text.contains(&format!("{set}:\t0000000000000000")),
            "{text}"
        );
    }
    assert!(text.contains("NSpid:\t1\n"), "{text}");
    forget(daemon, shim);

    let shim = Shim::start();
    let mut daemon = shim.connect();
    let mut wish = shim.launch("");
    wish.plan.process.args = ["ls", "/proc/self/fd"].map(String::from).into();
    started(daemon.call(request(wish), &[]));
    assert_eq!(daemon.exited().code, 0);
    // The fourth is of the listing itself.
    assert_eq!(out(&shim), "0\n1\n2\n3\n");
    forget(daemon, shim);
}

#[test]
fn signals_end_with_their_code() {
    for (signal, code) in [(15, 143), (9, 137)] {
        let shim = Shim::start();
        let mut daemon = shim.connect();
        let mut wish = shim.launch("trap 'exit 143' TERM; echo up; while :; do sleep 0.05; done");
        wish.open_stdin = false;
        started(daemon.call(request(wish), &[]));
        until("the trap is set", || out(&shim) == "up\n");
        assert!(matches!(
            daemon.call(Request::Signal { signal, exec: None }, &[]),
            Reply::Done
        ));
        assert_eq!(daemon.exited().code, code);
        forget(daemon, shim);
    }
}

#[test]
fn launch_bad_command_or_user_says_what_docker_says() {
    let cases: [(&[&str], &str, ErrorKind, &str); 4] = [
        (
            &["nope"],
            "",
            ErrorKind::CommandNotFound,
            "exec: \"nope\": executable file not found in $PATH",
        ),
        (
            &["/nope"],
            "",
            ErrorKind::CommandNotFound,
            "exec: \"/nope\": ",
        ),
        (
            &["/etc/plain"],
            "",
            ErrorKind::CommandNotExecutable,
            "exec: \"/etc/plain\": permission denied",
        ),
        (
            &["true"],
            "foo",
            ErrorKind::InvalidArgument,
            "unable to find user foo: no matching entries in passwd file",
        ),
    ];
    for (args, user, kind, text) in cases {
        let shim = Shim::start();
        let mut daemon = shim.connect();
        let mut wish = shim.launch("");
        wish.plan.process.args = args.iter().map(ToString::to_string).collect();
        wish.plan.process.user = PlanUser::Name(user.into());
        let failure = failure(daemon.call(request(wish), &[]));
        assert_eq!(failure.kind, kind, "{failure:?}");
        assert!(failure.message.starts_with(text), "{failure:?}");
        assert!(!failure.message.contains("os error"), "{failure:?}");
        assert!(!shim.exit_path().exists());
        drop(daemon);
        shim.ended_clean();
    }
}

#[test]
fn terminal_echoes_resizes_and_logs() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let (mut ours, theirs) = stream_pair();
    let mut wish = shim.launch("tty; stty size; read word; echo got $word; stty size; exit 9");
    wish.plan.process.tty = true;
    wish.plan.process.console_size = Some((24, 80));
    wish.open_stdin = true;
    wish.attach = vec![TERMINAL];
    started(daemon.call(request(wish), &[theirs.as_fd()]));
    drop(theirs);
    let seen = read_until(&mut ours, "24 80\r\n");
    assert!(
        seen.contains("/dev/pts/0") || seen.contains("/dev/console"),
        "{seen}"
    );
    let resize = Request::Resize {
        exec: None,
        rows: 40,
        cols: 120,
    };
    assert!(matches!(daemon.call(resize, &[]), Reply::Done));
    ours.write_all(b"word\r").unwrap();
    let seen = read_until(&mut ours, "40 120\r\n");
    assert!(
        seen.contains("word\r\n") && seen.contains("got word\r\n"),
        "{seen:?}"
    );
    assert_eq!(daemon.exited().code, 9);
    assert_eq!(ours.read(&mut [0; 16]).unwrap(), 0);
    assert!(out(&shim).contains("got word\r\n"));
    forget(daemon, shim);
}

#[test]
fn stdin_end_is_seen_by_the_payload() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let (mut ours, theirs) = stream_pair();
    let mut wish = shim.launch("cat; echo end");
    wish.open_stdin = true;
    wish.stdin_once = true;
    wish.attach = vec![Attach {
        stdin: true,
        ..OUTPUT
    }];
    started(daemon.call(request(wish), &[theirs.as_fd()]));
    drop(theirs);
    ours.write_all(b"some input\n").unwrap();
    ours.shutdown(Shutdown::Write).unwrap();
    assert_eq!(daemon.exited().code, 0);
    assert_eq!(demultiplex(ours).0, b"some input\nend\n");
    forget(daemon, shim);
}

#[test]
fn without_open_stdin_input_is_at_its_end() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    started(daemon.call(request(shim.launch("cat; readlink /proc/self/fd/0")), &[]));
    assert_eq!(daemon.exited().code, 0);
    assert_eq!(out(&shim), "/dev/null\n");
    forget(daemon, shim);
}

#[test]
fn exec_shares_the_container_and_reports_its_end() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    started(daemon.call(
        request(shim.launch("echo data > /tmp/file; echo up; sleep 60")),
        &[],
    ));
    until("it is up", || out(&shim) == "up\n");
    let (ours, theirs) = stream_pair();
    let exec = |exec: ExecLaunch| Request::Exec(Box::new(exec));
    let wish = ExecLaunch {
        attach: Some(OUTPUT),
        ..shim.exec("a", "cat /tmp/file; echo err >&2; exit 6")
    };
    started(daemon.call(exec(wish), &[theirs.as_fd()]));
    drop(theirs);
    assert_eq!(daemon.exec_exited("a"), 6);
    assert_eq!(demultiplex(ours), (b"data\n".to_vec(), b"err\n".to_vec()));

    let mut wish = shim.exec("b", "");
    for (args, kind, text) in [
        (
            "nope",
            ErrorKind::CommandNotFound,
            "executable file not found in $PATH",
        ),
        (
            "/etc/plain",
            ErrorKind::CommandNotExecutable,
            "permission denied",
        ),
    ] {
        wish.process.args = vec![args.into()];
        let failure = failure(daemon.call(exec(wish.clone()), &[]));
        assert_eq!(failure.kind, kind);
        assert!(failure.message.contains(text), "{failure:?}");
    }
    assert!(daemon.status().execs.is_empty());
    assert!(matches!(daemon.call(Request::KillAll, &[]), Reply::Done));
    assert_eq!(daemon.exited().code, 137);
    forget(daemon, shim);
}

#[test]
fn exec_terminal_echoes_and_resizes() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    started(daemon.call(request(shim.launch("sleep 60")), &[]));
    let (mut ours, theirs) = stream_pair();
    let mut wish = shim.exec("t", "read a; stty size; echo $a; exit 4");
    wish.attach = Some(TERMINAL);
    wish.process.tty = true;
    started(daemon.call(Request::Exec(Box::new(wish)), &[theirs.as_fd()]));
    drop(theirs);
    let resize = Request::Resize {
        exec: Some("t".into()),
        rows: 11,
        cols: 22,
    };
    assert!(matches!(daemon.call(resize, &[]), Reply::Done));
    ours.write_all(b"text\r").unwrap();
    let seen = read_until(&mut ours, "11 22\r\ntext\r\n");
    assert!(seen.starts_with("text\r\n"), "{seen:?}");
    assert_eq!(daemon.exec_exited("t"), 4);
    assert_eq!(ours.read(&mut [0; 16]).unwrap(), 0);
    daemon.call(Request::KillAll, &[]);
    daemon.exited();
    forget(daemon, shim);
}

#[test]
fn first_process_ends_while_execs_run_all_ends() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    started(daemon.call(request(shim.launch("read x")), &[]));
    // Without input `read` fails at once: the container may be gone before the exec.
    daemon.exited();
    let reply = daemon.call(Request::Exec(Box::new(shim.exec("late", "true"))), &[]);
    assert_eq!(failure(reply).kind, ErrorKind::Conflict);
    forget(daemon, shim);

    let shim = Shim::start();
    let mut daemon = shim.connect();
    started(daemon.call(request(shim.launch("sleep 60")), &[]));
    let (ours, theirs) = stream_pair();
    let wish = ExecLaunch {
        attach: Some(OUTPUT),
        ..shim.exec("e", "sleep 50")
    };
    let pid = started(daemon.call(Request::Exec(Box::new(wish)), &[theirs.as_fd()]));
    drop(theirs);
    daemon.call(
        Request::Signal {
            signal: 9,
            exec: None,
        },
        &[],
    );
    assert_eq!(daemon.exec_exited("e"), 137);
    assert_eq!(daemon.exited().code, 137);
    assert_eq!(demultiplex(ours).0, b"");
    assert!(is_gone(pid));
    forget(daemon, shim);
}

#[test]
fn many_lines_many_clients_none_is_lost_or_doubled() {
    const LINES: usize = 100_000;
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let pairs: Vec<_> = (0..10).map(|_| stream_pair()).collect();
    let mut wish = shim.launch(&format!("for i in 1 2 3 4; do seq {LINES}; done"));
    wish.attach = (0..10).map(|fd| Attach { fd, ..OUTPUT }).collect();
    wish.log.as_mut().unwrap().config.max_size = 0;
    {
        let fds: Vec<_> = pairs.iter().map(|(_, theirs)| theirs.as_fd()).collect();
        started(daemon.call(request(wish), &fds));
    }
    let mut ours: Vec<UnixStream> = pairs.into_iter().map(|(ours, _)| ours).collect();
    let stuck = ours.pop().unwrap();
    let start = Instant::now();
    let readers: Vec<_> = ours
        .into_iter()
        .map(|ours| std::thread::spawn(|| demultiplex(ours).0))
        .collect();
    assert_eq!(daemon.exited().code, 0);
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    let once: String = (1..=LINES).map(|number| format!("{number}\n")).collect();
    let expected = once.repeat(4);
    for reader in readers {
        assert!(reader.join().unwrap() == expected.as_bytes());
    }
    assert!(out(&shim) == expected);
    drop(stuck);
    forget(daemon, shim);
}

#[test]
fn rotation_keeps_every_line_in_order() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let mut wish = shim.launch("seq 20000");
    let config = &mut wish.log.as_mut().unwrap().config;
    (config.max_size, config.max_file) = (200_000, 50);
    started(daemon.call(request(wish), &[]));
    daemon.exited();
    let mut all = String::new();
    for number in (0..50).rev() {
        let path = match number {
            0 => shim.log(),
            _ => shim.dir.path().join(format!("log.{number}")),
        };
        assert!(std::fs::metadata(&path).map_or(0, |data| data.len()) <= 200_000);
        all.extend(log_records(&path).into_iter().map(|(_, text)| text));
    }
    let expected: String = (1..=20000).map(|number| format!("{number}\n")).collect();
    assert!(all == expected);
    forget(daemon, shim);
}

#[test]
fn pause_stops_and_resume_continues() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    started(daemon.call(
        request(shim.launch("while :; do echo x; sleep 0.02; done")),
        &[],
    ));
    until("it prints", || !out(&shim).is_empty());
    assert!(matches!(daemon.call(Request::Pause, &[]), Reply::Done));
    assert!(daemon.status().paused);
    let reply = daemon.call(Request::Exec(Box::new(shim.exec("p", "true"))), &[]);
    assert_eq!(failure(reply).kind, ErrorKind::Conflict);
    std::thread::sleep(Duration::from_millis(50));
    let before = out(&shim);
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(out(&shim), before);
    assert!(matches!(daemon.call(Request::Resume, &[]), Reply::Done));
    until("it prints again", || out(&shim).len() > before.len());
    daemon.call(Request::Pause, &[]);
    assert!(matches!(daemon.call(Request::KillAll, &[]), Reply::Done));
    assert_eq!(daemon.exited().code, 137);
    forget(daemon, shim);
}

#[test]
fn counters_processes_and_limits_are_answered() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let pid = started(daemon.call(request(shim.launch("sleep 60 & sleep 60")), &[]));
    until("both sleep", || match daemon.call(Request::Pids, &[]) {
        Reply::Pids(pids) => pids.contains(&pid) && pids.len() >= 2,
        other => panic!("{other:?}"),
    });
    let limits = Resources {
        memory: Some(64 << 20),
        pids_limit: Some(50),
        ..Resources::default()
    };
    let reply = daemon.call(Request::Update(Box::new(limits)), &[]);
    assert!(!matches!(reply, Reply::Failed(_)), "{reply:?}");
    let Reply::Stats(stats) = daemon.call(Request::Stats, &[]) else {
        panic!("no counters")
    };
    assert_eq!((stats.memory_limit, stats.pids_limit), (64 << 20, 50));
    assert!(
        stats.pids_current >= 2 && stats.memory_usage > 0,
        "{stats:?}"
    );
    daemon.call(Request::KillAll, &[]);
    daemon.exited();
    forget(daemon, shim);
}

#[test]
fn memory_exhausted_is_told_and_recorded() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let mut wish = shim.launch("tail /dev/zero");
    wish.plan.cgroup.resources = Resources {
        memory: Some(16 << 20),
        memory_swap: Some(16 << 20),
        ..Resources::default()
    };
    wish.plan.process.args = ["tail", "/dev/zero"].map(String::from).into();
    started(daemon.call(request(wish), &[]));
    let mut told = false;
    let status = loop {
        match daemon.event() {
            Event::Oom => told = true,
            Event::Exited(status) => break status,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((status.code, status.oom_killed, told), (137, true, true));
    forget(daemon, shim);
}

#[test]
fn daemon_away_status_is_known_to_the_next_one() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let pid = started(daemon.call(request(shim.launch("sleep 0.5; echo late; exit 11")), &[]));
    drop(daemon);
    let mut next = shim.connect();
    assert_eq!(next.status().pid, Some(pid));
    drop(next);
    until("exit.json", || shim.exit_path().exists());
    assert_eq!(shim.exit_record().code, 11);
    assert_eq!(out(&shim), "late\n");
    shim.ended_clean();
}

#[test]
fn shim_terminated_goes_on_and_killed_takes_the_payload_along() {
    // The kernel forgets the death signal at a change of user: it must be set after that.
    for user in ["", "me"] {
        let shim = Shim::start();
        let mut daemon = shim.connect();
        let mut wish = shim.launch("echo up; sleep 60");
        wish.plan.process.user = PlanUser::Name(user.into());
        let pid = started(daemon.call(request(wish), &[]));
        until("it is up", || out(&shim) == "up\n");
        for signal in [
            Signal::TERM,
            Signal::INT,
            Signal::HUP,
            Signal::PIPE,
            Signal::TSTP,
        ] {
            kill_process(shim.pid, signal).unwrap();
        }
        assert_eq!(daemon.status().pid, Some(pid));
        kill_process(shim.pid, Signal::KILL).unwrap();
        until("the payload is gone", || is_gone(pid));
        assert!(!shim.exit_path().exists());
    }
}

#[test]
fn many_execs_at_once_each_have_their_own_output() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    started(daemon.call(request(shim.launch("sleep 60")), &[]));
    let mut streams = Vec::new();
    for number in 0..30 {
        let (ours, theirs) = stream_pair();
        let wish = ExecLaunch {
            attach: Some(OUTPUT),
            ..shim.exec(
                &number.to_string(),
                &format!("echo {number}; exit {number}"),
            )
        };
        started(daemon.call(Request::Exec(Box::new(wish)), &[theirs.as_fd()]));
        streams.push(ours);
    }
    let mut codes: Vec<Option<i32>> = vec![None; 30];
    while codes.contains(&None) {
        if let Event::ExecExited { id, code } = daemon.event() {
            codes[id.parse::<usize>().unwrap()] = Some(code);
        }
    }
    for (number, stream) in streams.into_iter().enumerate() {
        assert_eq!(codes[number], Some(number as i32));
        assert_eq!(demultiplex(stream).0, format!("{number}\n").as_bytes());
    }
    daemon.call(Request::KillAll, &[]);
    daemon.exited();
    forget(daemon, shim);
}

#[test]
fn host_pid_namespace_what_outlives_the_first_process_is_killed_and_reaped() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let mut wish = shim.launch("(sleep 300 & echo up; exec sleep 301) & sleep 0.5; exit 2");
    wish.plan.namespaces.pid = Namespace::Host;
    started(daemon.call(request(wish), &[]));
    until("it is up", || out(&shim) == "up\n");
    let Reply::Pids(pids) = daemon.call(Request::Pids, &[]) else {
        panic!("no ids")
    };
    assert!(pids.len() >= 3, "{pids:?}");
    let start = Instant::now();
    assert_eq!(daemon.exited().code, 2);
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(pids.into_iter().all(is_gone));
    forget(daemon, shim);
}

#[test]
fn idle_shim_holds_few_descriptors_and_little_memory() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    started(daemon.call(request(shim.launch("echo up; sleep 60")), &[]));
    until("it is up", || out(&shim) == "up\n");
    for _ in 0..20 {
        let client = daemon.attach(false);
        let exec = Request::Exec(Box::new(shim.exec("e", "true")));
        started(daemon.call(exec, &[]));
        assert_eq!(daemon.exec_exited("e"), 0);
        drop(client);
    }
    let raw = shim.pid.as_raw_nonzero();
    let count = || {
        std::fs::read_dir(format!("/proc/{raw}/fd"))
            .unwrap()
            .count()
    };
    let first = count();
    for _ in 0..20 {
        drop(daemon.attach(true));
    }
    until("the sockets of clients are closed", || {
        daemon.status();
        count() <= first
    });
    // What the requests needed is given back a second later.
    std::thread::sleep(Duration::from_millis(1500));
    let rollup = std::fs::read_to_string(format!("/proc/{raw}/smaps_rollup")).unwrap();
    let pss: usize = rollup
        .lines()
        .find_map(|line| {
            line.strip_prefix("Pss:")?
                .trim()
                .strip_suffix("kB")?
                .trim()
                .parse()
                .ok()
        })
        .unwrap();
    assert!(pss < 1024, "PSS of the shim is {pss} KiB");
    daemon.call(Request::KillAll, &[]);
    daemon.exited();
    forget(daemon, shim);
}
