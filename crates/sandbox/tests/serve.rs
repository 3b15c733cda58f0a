//! The loop with a back end of plain processes: streams, log, exit record, connections.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/plain.rs"]
mod plain;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use daemon::{Daemon, demultiplex, log_records, started, stream_pair, until};
use hull_model::ErrorKind;
use hull_proto::message::{Attach, Event, ExecLaunch, ExitStatus, Launch, LogFile};
use hull_proto::plan::{LaunchPlan, ProcessPlan};
use hull_proto::{Reply, Request};
use hull_sandbox::{Server, Setup};
use hull_sys::signal::{SignalSet, signal_fd};

struct Shim {
    dir: tempfile::TempDir,
    thread: Option<JoinHandle<()>>,
}

impl Shim {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("shim.sock")).unwrap();
        let setup = Setup {
            listener: listener.into(),
            signals: signal_fd(SignalSet::EMPTY).unwrap(),
            dir: dir.path().to_owned(),
            report: |text| eprintln!("{text}"),
        };
        let thread = std::thread::spawn(|| {
            Server::new(plain::Plain::new(), setup)
                .unwrap()
                .run()
                .unwrap()
        });
        Self {
            dir,
            thread: Some(thread),
        }
    }

    fn connect(&self) -> Daemon {
        Daemon::connect(&self.dir.path().join("shim.sock"))
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn launch(&self, script: &str) -> Launch {
        Launch {
            plan: LaunchPlan {
                process: process(script),
                ..LaunchPlan::default()
            },
            log: Some(LogFile {
                path: self.log(),
                ..LogFile::default()
            }),
            ..Launch::default()
        }
    }

    fn exit_record(&self) -> ExitStatus {
        let bytes = std::fs::read(self.dir.path().join("exit.json")).expect("exit.json");
        serde_json::from_slice(&bytes).unwrap()
    }

    /// Waits for the end of the loop.
    fn ended(mut self) {
        let thread = self.thread.take().unwrap();
        until("the loop ends", || thread.is_finished());
        thread.join().unwrap();
    }
}

fn process(script: &str) -> ProcessPlan {
    ProcessPlan {
        args: ["sh", "-c", script].map(String::from).into(),
        ..ProcessPlan::default()
    }
}

fn launch(launch: Launch) -> Request {
    Request::Launch(Box::new(launch))
}

const OUTPUT: Attach = Attach {
    fd: 0,
    stdin: false,
    stdout: true,
    stderr: true,
};

#[test]
fn launch_echo_is_logged_attached_and_recorded() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let (ours, theirs) = stream_pair();
    let mut wish = shim.launch("echo out; echo err >&2; printf rest; exit 7");
    wish.attach = vec![OUTPUT];
    let pid = started(daemon.call(launch(wish), &[theirs.as_fd()]));
    drop(theirs);
    assert!(pid > 0);
    let status = daemon.exited();
    assert_eq!((status.code, status.oom_killed), (7, false));
    assert_eq!(shim.exit_record(), status);
    assert_eq!(
        demultiplex(ours),
        (b"out\nrest".to_vec(), b"err\n".to_vec())
    );
    let mut records = log_records(&shim.log());
    records.sort();
    let text = |stream: &str, text: &str| (stream.to_owned(), text.to_owned());
    assert_eq!(
        records,
        [
            text("stderr", "err\n"),
            text("stdout", "out\n"),
            text("stdout", "rest")
        ]
    );
    assert_eq!(daemon.status().exit, Some(status));
    assert!(matches!(daemon.call(Request::Forget, &[]), Reply::Done));
    shim.ended();
}

#[test]
fn launch_missing_command_fails_and_shim_ends() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let mut wish = shim.launch("");
    wish.plan.process.args = vec!["/no/such/program".into()];
    let Reply::Failed(failure) = daemon.call(launch(wish), &[]) else {
        panic!("it started")
    };
    assert_eq!(failure.kind, ErrorKind::CommandNotFound);
    assert!(!shim.dir.path().join("exit.json").exists());
    // Though the daemon is still connected and says nothing.
    shim.ended();
    assert!(daemon.next().is_none());
}

#[test]
fn launch_twice_is_refused() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    started(daemon.call(launch(shim.launch("sleep 60")), &[]));
    let reply = daemon.call(launch(shim.launch("true")), &[]);
    assert!(matches!(reply, Reply::Failed(failure) if failure.kind == ErrorKind::Conflict));
    assert!(matches!(daemon.call(Request::KillAll, &[]), Reply::Done));
    assert_eq!(daemon.exited().code, 137);
    drop(daemon);
    shim.ended();
}

#[test]
fn connection_gone_before_launch_ends_the_shim() {
    let shim = Shim::start();
    shim.connect().status();
    shim.ended();
}

#[test]
fn daemon_away_exit_is_recorded_and_shim_ends() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    started(daemon.call(launch(shim.launch("sleep 0.2; echo late; exit 3")), &[]));
    drop(daemon);
    let path = shim.dir.path().join("exit.json");
    until("exit.json", || path.exists());
    assert_eq!(shim.exit_record().code, 3);
    assert_eq!(
        log_records(&shim.log()),
        [("stdout".to_owned(), "late\n".to_owned())]
    );
    shim.ended();
}

#[test]
fn second_daemon_sees_status_and_the_end() {
    let shim = Shim::start();
    let mut first = shim.connect();
    let pid = started(first.call(launch(shim.launch("sleep 60")), &[]));
    drop(first);
    let mut second = shim.connect();
    let status = second.status();
    assert_eq!(
        (status.pid, status.paused, status.exit),
        (Some(pid), false, None)
    );
    assert!(status.started_at_ns > 0);
    let signal = Request::Signal {
        signal: 15,
        exec: None,
    };
    assert!(matches!(second.call(signal, &[]), Reply::Done));
    assert_eq!(second.exited().code, 143);
    drop(second);
    shim.ended();
}

#[test]
fn malformed_frame_closes_that_connection_alone() {
    let shim = Shim::start();
    let mut good = shim.connect();
    let mut bad = shim.connect();
    bad.socket.write_all(&[0xff; 64]).unwrap();
    assert!(bad.next().is_none());
    assert_eq!(good.status().pid, None);
    let attach = Request::Attach(Attach { fd: 9, ..OUTPUT });
    assert!(matches!(good.call(attach, &[]), Reply::Failed(_)));
    drop(good);
    shim.ended();
}

#[test]
fn many_lines_with_stuck_reader_none_is_lost_or_doubled() {
    const LINES: usize = 100_000;
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let mut pairs: Vec<_> = (0..5).map(|_| stream_pair()).collect();
    let mut wish = shim.launch(&format!("seq {LINES}; echo done >&2"));
    wish.attach = (0..5).map(|fd| Attach { fd, ..OUTPUT }).collect();
    wish.log.as_mut().unwrap().config.max_size = 0;
    {
        let fds: Vec<_> = pairs.iter().map(|(_, theirs)| theirs.as_fd()).collect();
        started(daemon.call(launch(wish), &fds));
    }
    let (stuck, _) = pairs.swap_remove(0);
    let start = Instant::now();
    let readers: Vec<_> = pairs
        .into_iter()
        .map(|(ours, _)| std::thread::spawn(|| demultiplex(ours)))
        .collect();
    assert_eq!(daemon.exited().code, 0);
    // 589 KB fit the queue of the reader that never reads.
    assert!(start.elapsed() < Duration::from_secs(5));
    let expected: String = (1..=LINES).map(|number| format!("{number}\n")).collect();
    for reader in readers {
        let (out, err) = reader.join().unwrap();
        assert!(out == expected.as_bytes());
        assert_eq!(err, b"done\n");
    }
    let logged: String = log_records(&shim.log())
        .into_iter()
        .filter(|(stream, _)| stream == "stdout")
        .map(|(_, text)| text)
        .collect();
    assert!(logged == expected);
    drop(daemon);
    drop(stuck);
    shim.ended();
}

#[test]
fn stuck_reader_holds_the_payload_back_for_about_a_second() {
    const BYTES: usize = 16 << 20;
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let (stuck, theirs) = stream_pair();
    let mut wish = shim.launch(&format!("yes 0123456789 | head -c {BYTES}"));
    wish.attach = vec![OUTPUT];
    wish.log.as_mut().unwrap().config.max_size = 0;
    let start = Instant::now();
    started(daemon.call(launch(wish), &[theirs.as_fd()]));
    drop(theirs);
    daemon.exited();
    let took = start.elapsed();
    assert!(
        took > Duration::from_millis(800) && took < Duration::from_secs(5),
        "{took:?}"
    );
    let length: usize = log_records(&shim.log())
        .iter()
        .map(|(_, text)| text.len())
        .sum();
    assert_eq!(length, BYTES);
    drop(stuck);
    drop(daemon);
    shim.ended();
}

#[test]
fn slow_reader_with_progress_gets_every_byte() {
    const BYTES: usize = 8 << 20;
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let (mut slow, theirs) = stream_pair();
    let mut wish = shim.launch(&format!("yes 0123456789 | head -c {BYTES}"));
    wish.attach = vec![OUTPUT];
    started(daemon.call(launch(wish), &[theirs.as_fd()]));
    drop(theirs);
    let (mut total, mut buffer) = (0, vec![0; 128 << 10]);
    loop {
        let count = slow.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        total += count;
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(total > BYTES);
    drop(daemon);
    shim.ended();
}

#[test]
fn reader_that_comes_back_late_gets_the_rest_after_the_exit() {
    const BYTES: usize = 900_000;
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let (late, theirs) = stream_pair();
    let mut wish = shim.launch(&format!("yes 0123456789 | head -c {BYTES}"));
    wish.attach = vec![OUTPUT];
    started(daemon.call(launch(wish), &[theirs.as_fd()]));
    drop(theirs);
    daemon.exited();
    assert!(matches!(daemon.call(Request::Forget, &[]), Reply::Done));
    drop(daemon);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(demultiplex(late).0.len(), BYTES);
    shim.ended();
}

#[test]
fn stdin_half_close_ends_input_when_it_is_for_once() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let (mut ours, theirs) = stream_pair();
    let mut wish = shim.launch("wc -c");
    wish.open_stdin = true;
    wish.stdin_once = true;
    wish.attach = vec![Attach {
        stdin: true,
        ..OUTPUT
    }];
    started(daemon.call(launch(wish), &[theirs.as_fd()]));
    drop(theirs);
    let data = vec![b'x'; 1 << 20];
    ours.write_all(&data).unwrap();
    ours.shutdown(Shutdown::Write).unwrap();
    assert_eq!(daemon.exited().code, 0);
    assert_eq!(demultiplex(ours).0, format!("{}\n", data.len()).as_bytes());
    drop(daemon);
    shim.ended();
}

#[test]
fn stdin_writer_that_left_at_once_is_still_read() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let (mut ours, theirs) = stream_pair();
    ours.write_all(&vec![b'x'; 100_000]).unwrap();
    drop(ours);
    let mut wish = shim.launch("sleep 0.2; wc -c");
    wish.open_stdin = true;
    wish.stdin_once = true;
    wish.attach = vec![Attach {
        stdin: true,
        ..OUTPUT
    }];
    started(daemon.call(launch(wish), &[theirs.as_fd()]));
    assert_eq!(daemon.exited().code, 0);
    assert_eq!(log_records(&shim.log())[0].1, "100000\n");
    drop(daemon);
    shim.ended();
}

#[test]
fn stdin_stays_open_over_clients_unless_it_is_for_once() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let mut wish = shim.launch("read a; read b; echo $a $b");
    wish.open_stdin = true;
    started(daemon.call(launch(wish), &[]));
    for word in ["one\n", "two\n"] {
        let mut client = daemon.attach(true);
        client.write_all(word.as_bytes()).unwrap();
    }
    daemon.exited();
    assert_eq!(log_records(&shim.log())[0].1, "one two\n");
    drop(daemon);
    shim.ended();
}

#[test]
fn attach_later_sees_output_from_then_on() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    started(daemon.call(launch(shim.launch("echo early; sleep 0.3; echo late")), &[]));
    until("the early line", || !log_records(&shim.log()).is_empty());
    let clients: Vec<UnixStream> = (0..20).map(|_| daemon.attach(false)).collect();
    for client in clients {
        assert_eq!(demultiplex(client).0, b"late\n");
    }
    assert_eq!(daemon.exited().code, 0);
    drop(daemon);
    shim.ended();
}

#[test]
fn exec_has_its_own_streams_and_end() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    started(daemon.call(launch(shim.launch("sleep 60")), &[]));
    let (mut ours, theirs) = stream_pair();
    let exec = |id: &str, script: &str, attach| {
        let (id, process) = (id.to_owned(), process(script));
        Request::Exec(Box::new(ExecLaunch {
            id,
            process,
            attach,
            ..ExecLaunch::default()
        }))
    };
    let attach = Attach {
        stdin: true,
        ..OUTPUT
    };
    let pid = started(daemon.call(
        exec("a", "read x; echo got $x; exit 5", Some(attach)),
        &[theirs.as_fd()],
    ));
    drop(theirs);
    assert_eq!(daemon.status().execs, [("a".to_owned(), pid)]);
    let reply = daemon.call(exec("a", "true", None), &[]);
    assert!(matches!(reply, Reply::Failed(failure) if failure.kind == ErrorKind::Conflict));
    ours.write_all(b"word\n").unwrap();
    assert_eq!(daemon.exec_exited("a"), 5);
    assert_eq!(demultiplex(ours).0, b"got word\n");
    started(daemon.call(exec("b", "sleep 60", None), &[]));
    let signal = Request::Signal {
        signal: 9,
        exec: Some("b".into()),
    };
    assert!(matches!(daemon.call(signal, &[]), Reply::Done));
    assert_eq!(daemon.exec_exited("b"), 137);
    assert!(log_records(&shim.log()).is_empty());
    daemon.call(Request::KillAll, &[]);
    daemon.exited();
    drop(daemon);
    shim.ended();
}

#[test]
fn background_process_with_the_stream_does_not_delay_the_exit_for_long() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let start = Instant::now();
    started(daemon.call(launch(shim.launch("sleep 5 & echo begun")), &[]));
    assert_eq!(daemon.exited().code, 0);
    assert!(start.elapsed() < Duration::from_secs(3));
    assert_eq!(
        log_records(&shim.log()),
        [("stdout".to_owned(), "begun\n".to_owned())]
    );
    drop(daemon);
    shim.ended();
}

#[test]
fn log_disk_full_payload_goes_on_and_user_is_told_once() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let mut wish = shim.launch("seq 1000; sleep 0.1; seq 1000; exit 4");
    wish.log = Some(LogFile {
        path: "/dev/full".into(),
        ..LogFile::default()
    });
    started(daemon.call(launch(wish), &[]));
    let mut warnings = 0;
    let status = loop {
        match daemon.event() {
            Event::Warning(_) => warnings += 1,
            Event::Exited(status) => break status,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((status.code, warnings), (4, 1));
    drop(daemon);
    shim.ended();
}

#[test]
fn pause_and_resume_change_the_status() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    started(daemon.call(launch(shim.launch("sleep 60")), &[]));
    assert!(matches!(
        daemon.call(Request::Update(Box::default()), &[]),
        Reply::Done
    ));
    assert!(matches!(daemon.event(), Event::Warning(text) if text == "limits have no effect"));
    assert!(matches!(daemon.call(Request::Pause, &[]), Reply::Done));
    assert!(daemon.status().paused);
    assert!(matches!(daemon.call(Request::Pause, &[]), Reply::Failed(_)));
    assert!(matches!(daemon.call(Request::KillAll, &[]), Reply::Done));
    // The kill thawed: whoever does it as well, or signals what has ended, is not refused.
    assert!(matches!(daemon.call(Request::Resume, &[]), Reply::Done));
    assert_eq!(daemon.exited().code, 137);
    for request in [
        Request::Resume,
        Request::KillAll,
        Request::Signal {
            signal: 9,
            exec: None,
        },
    ] {
        assert!(matches!(daemon.call(request, &[]), Reply::Done));
    }
    let reply = daemon.call(Request::Stats, &[]);
    assert!(matches!(reply, Reply::Failed(failure) if failure.kind == ErrorKind::Conflict));
    drop(daemon);
    shim.ended();
}

#[test]
fn fds_sent_with_requests_that_need_none_are_closed() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let (mut ours, theirs) = stream_pair();
    daemon.call(Request::Status, &[theirs.as_fd()]);
    drop(theirs);
    assert_eq!(ours.read(&mut [0; 1]).unwrap(), 0);
    let _: OwnedFd = ours.into();
    drop(daemon);
    shim.ended();
}
