//! Units against a systemd that the test plays: once behind Debian's own message bus, which checks
//! every message, once on a socket of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::*;

const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path=SOCKET</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
    <allow user="*"/>
  </policy>
</busconfig>"#;

/// A message bus.
struct Daemon {
    child: Child,
    dir: tempfile::TempDir,
}

impl Daemon {
    /// None where the program is not installed.
    fn start() -> Option<Self> {
        let dir = tempfile::tempdir().expect("folder");
        let config = dir.path().join("bus.conf");
        let socket = dir.path().join("bus");
        let text = CONFIG.replace("SOCKET", &socket.to_string_lossy());
        std::fs::write(&config, text).expect("config");
        let child = Command::new("dbus-daemon")
            .arg("--nofork")
            .arg("--print-address=1")
            .arg(format!("--config-file={}", config.display()))
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.ok()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("output"))
            .read_line(&mut line)
            .expect("address");
        Some(Self { child, dir })
    }

    fn address(&self) -> Address {
        let path = self.dir.path().display();
        Address {
            bus: format!("unix:path={path}/none;unix:path={path}/bus"),
            private: format!("{path}/private"),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the fake was asked.
type Calls = Arc<Mutex<Vec<Message>>>;

/// Plays systemd: moves processes into the folder of their unit as systemd does.
struct Fake {
    bus: Bus,
    calls: Calls,
    /// Where units are made: the hierarchy that systemd uses on this host.
    tree: PathBuf,
    failed: Vec<String>,
}

impl Fake {
    fn serve(mut self) {
        while let Ok(message) = self.bus.receive() {
            // Signals of the bus about names.
            if message.kind != 1 {
                continue;
            }
            self.calls.lock().expect("lock").push(message.clone());
            let answer = self.answer(&message);
            let mut reply = Message {
                kind: 2,
                reply_to: message.serial,
                destination: message.sender.clone(),
                ..Message::default()
            };
            let mut job = None;
            match answer {
                Ok(Answer::Job(unit, result)) => {
                    let path = format!("/org/freedesktop/systemd1/job/{}", message.serial);
                    reply.body = vec![Value::Path(path.clone())];
                    job = Some((path, unit, result));
                }
                Ok(Answer::Values(values)) => reply.body = values,
                Err(name) => {
                    reply.kind = 3;
                    reply.error = name.to_owned();
                    reply.body = vec![Value::text("no")];
                }
            }
            let _ = self.bus.send(reply);
            if let Some((path, unit, result)) = job {
                let signal = Message {
                    kind: 4,
                    path: PATH.to_owned(),
                    interface: MANAGER.to_owned(),
                    member: "JobRemoved".to_owned(),
                    ..Message::default()
                };
                let body = vec![
                    Value::U32(7),
                    Value::Path(path),
                    Value::Text(unit),
                    Value::text(result),
                ];
                let _ = self.bus.send(signal.with(body));
            }
        }
    }

    fn answer(&mut self, call: &Message) -> Result<Answer, &'static str> {
        let text = |index: usize| call.body.get(index).and_then(Value::as_text).unwrap_or("");
        match call.member.as_str() {
            "Get" => {
                let value = match text(1) {
                    "Version" => Value::text("252.39-1~deb12u1"),
                    _ => Value::text("/"),
                };
                Ok(Answer::Values(vec![Value::Variant(value.into())]))
            }
            "StartTransientUnit" => {
                let unit = text(0).to_owned();
                if unit.contains("taken") && !self.failed.is_empty() {
                    self.failed.clear();
                    return Err(EXISTS);
                }
                if unit.contains("broken") {
                    return Ok(Answer::Job(unit, "failed"));
                }
                let dir = self.tree.join(&unit);
                std::fs::create_dir_all(&dir).expect("folder of the unit");
                for pid in pids(call) {
                    std::fs::write(dir.join("cgroup.procs"), pid.to_string()).expect("move");
                }
                Ok(Answer::Job(unit, "done"))
            }
            "StopUnit" => {
                let unit = text(0).to_owned();
                if unit.contains("gone") {
                    return Err(MISSING);
                }
                Ok(Answer::Job(unit, "done"))
            }
            _ => Ok(Answer::Values(Vec::new())),
        }
    }
}

enum Answer {
    Job(String, &'static str),
    Values(Vec<Value>),
}

fn properties(call: &Message) -> Vec<(String, Value)> {
    let lists = call.body.iter().filter_map(|value| match value {
        Value::Array(element, list) if element == "(sv)" => Some(list),
        _ => None,
    });
    lists
        .flatten()
        .filter_map(|entry| match entry {
            Value::Struct(both) => match both.as_slice() {
                [Value::Text(name), Value::Variant(value)] => {
                    Some((name.clone(), value.as_ref().clone()))
                }
                _ => None,
            },
            _ => None,
        })
        .collect()
}

fn pids(call: &Message) -> Vec<u32> {
    let found = properties(call)
        .into_iter()
        .find(|(name, _)| name == "PIDs");
    let Some((_, Value::Array(_, pids))) = found else {
        return Vec::new();
    };
    pids.iter()
        .filter_map(|pid| match pid {
            Value::U32(pid) => Some(*pid),
            _ => None,
        })
        .collect()
}

/// The tree in which systemd would make units here, and a slice in it of this test alone.
struct Tree {
    dir: PathBuf,
}

impl Tree {
    fn new(name: &str) -> Self {
        let v1 = Path::new("/sys/fs/cgroup/systemd");
        let root = if v1.is_dir() {
            v1
        } else {
            Path::new("/sys/fs/cgroup")
        };
        let dir = root.join(format!("hull-fake-{name}-{}", std::process::id()));
        std::fs::create_dir(&dir).expect("slice");
        Self { dir }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir(entry.path());
        }
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// systemd behind the message bus.
fn behind_bus(daemon: &Daemon, tree: &Tree, failed: &[&str]) -> Calls {
    let mut bus = Bus::connect(&daemon.address().bus).expect("connect");
    let dbus = "org.freedesktop.DBus";
    let own = Message::call(dbus, "/org/freedesktop/DBus", dbus, "RequestName")
        .with(vec![Value::text(NAME), Value::U32(0)]);
    bus.call(own).expect("own the name");
    serve(bus, tree, failed)
}

fn serve(bus: Bus, tree: &Tree, failed: &[&str]) -> Calls {
    let calls = Calls::default();
    let fake = Fake {
        bus,
        calls: Arc::clone(&calls),
        tree: tree.dir.clone(),
        failed: failed.iter().map(|&name| name.to_owned()).collect(),
    };
    std::thread::spawn(move || fake.serve());
    calls
}

fn members(calls: &Calls) -> Vec<String> {
    let calls = calls.lock().expect("lock");
    calls.iter().map(|call| call.member.clone()).collect()
}

fn unit(name: &str) -> SystemdUnit {
    SystemdUnit {
        slice: "machine.slice".to_owned(),
        unit: name.to_owned(),
        properties: [("TimeoutStopSec".to_owned(), "9".to_owned())].into(),
        ..SystemdUnit::default()
    }
}

#[test]
fn start_at_scope_holds_a_process_and_its_group_is_known() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let tree = Tree::new("start");
    let calls = behind_bus(&daemon, &tree, &[]);
    let host = Host::detect().expect("host");
    let mut plan = CgroupPlan::default();
    plan.resources.memory = Some(64 << 20);
    let unit = unit("hull-c.scope");
    let started =
        start_at(&daemon.address(), &unit, "c", &mut plan, &host).expect("start the unit");
    assert!(plan.path.ends_with("/hull-c.scope"), "{}", plan.path);
    let inside = std::fs::read_to_string(tree.dir.join("hull-c.scope/cgroup.procs"));
    let inside = inside.expect("processes");
    assert_eq!(inside.lines().count(), 1);
    let call = {
        let calls = calls.lock().expect("lock");
        calls
            .iter()
            .find(|call| call.member == "StartTransientUnit")
            .expect("call")
            .clone()
    };
    assert_eq!(value::signature_of(&call.body), "ssa(sv)a(sa(sv))");
    let sent = properties(&call);
    let find = |name: &str| sent.iter().find(|(known, _)| known == name).map(|(_, v)| v);
    let memory = if host.hierarchies.is_v2() {
        "MemoryMax"
    } else {
        "MemoryLimit"
    };
    assert_eq!(find(memory), Some(&Value::U64(64 << 20)));
    assert_eq!(find("Slice"), Some(&Value::text("machine.slice")));
    assert_eq!(find("Delegate"), Some(&Value::Bool(true)));
    assert_eq!(find("TimeoutStopUSec"), Some(&Value::U64(9_000_000)));
    started.undo();
    assert!(members(&calls).contains(&"StopUnit".to_owned()));
    let inside = std::fs::read_to_string(tree.dir.join("hull-c.scope/cgroup.procs"));
    assert_eq!(inside.expect("processes"), "");
}

#[test]
fn start_name_of_a_failed_unit_is_taken_again() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let tree = Tree::new("taken");
    let calls = behind_bus(&daemon, &tree, &["taken"]);
    let host = Host::detect().expect("host");
    let unit = unit("taken.scope");
    let mut plan = CgroupPlan::default();
    let started = start_at(&daemon.address(), &unit, "c", &mut plan, &host).expect("start");
    started.undo();
    let members = members(&calls);
    let reset = members.iter().position(|name| name == "ResetFailedUnit");
    let starts = members.iter().filter(|name| *name == "StartTransientUnit");
    assert!(reset.is_some() && starts.count() == 2, "{members:?}");
}

#[test]
fn start_failed_job_is_an_error_and_no_process_is_left() {
    let Some(daemon) = Daemon::start() else {
        return;
    };
    let tree = Tree::new("broken");
    let _calls = behind_bus(&daemon, &tree, &[]);
    let host = Host::detect().expect("host");
    let mut plan = CgroupPlan::default();
    let error = start_at(
        &daemon.address(),
        &unit("broken.scope"),
        "c",
        &mut plan,
        &host,
    )
    .expect_err("failed job");
    let text = format!("{error:#}");
    assert!(text.contains("cannot start broken.scope: failed"), "{text}");
}

#[test]
fn stop_and_update_through_systemds_own_socket() {
    let dir = tempfile::tempdir().expect("folder");
    let tree = Tree::new("peer");
    let private = dir.path().join("private");
    let listener = UnixListener::bind(&private).expect("listen");
    let calls = Calls::default();
    let seen = Arc::clone(&calls);
    let units = tree.dir.clone();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        greet(&mut stream);
        let fake = Fake {
            bus: Bus::over(stream),
            calls: seen,
            tree: units,
            failed: Vec::new(),
        };
        fake.serve();
    });
    let address = Address {
        bus: format!("unix:path={}/none", dir.path().display()),
        private: private.display().to_string(),
    };
    let mut systemd = Systemd::connect(&address).expect("connect");
    assert_eq!(systemd.version().expect("version"), 252);
    systemd.stop("x.scope").expect("stop");
    systemd.stop("gone.scope").expect("gone is stopped");
    let manager = Manager {
        version: 252,
        is_v2: true,
    };
    let mut plan = CgroupPlan::default();
    plan.resources.pids_limit = Some(7);
    let limits = Properties::of_update(&plan, manager);
    systemd.set_properties("x.scope", limits).expect("update");
    let calls = calls.lock().expect("lock");
    let last = calls.last().expect("call");
    assert_eq!(last.member, "SetUnitProperties");
    assert_eq!(value::signature_of(&last.body), "sba(sv)");
    assert_eq!(properties(last), [("TasksMax".to_owned(), Value::U64(7))]);
    assert!(last.destination.is_empty());
}

/// The server's half of authenticating.
fn greet(stream: &mut UnixStream) {
    let mut seen = Vec::new();
    let mut answered = 0;
    while !seen.ends_with(b"BEGIN\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("read");
        seen.extend_from_slice(&byte);
        let lines = seen.windows(2).filter(|two| two == b"\r\n").count();
        if lines > answered {
            answered = lines;
            let answer: &[u8] = match lines {
                1 => b"DATA\r\n",
                2 => b"OK 0123456789abcdef\r\n",
                _ => b"",
            };
            stream.write_all(answer).expect("write");
        }
    }
}

#[test]
fn connect_nobody_there_says_what_to_do() {
    let address = Address {
        bus: "unix:path=/does/not/exist".to_owned(),
        private: "/does/not/exist".to_owned(),
    };
    let text = format!("{:#}", Systemd::connect(&address).expect_err("nobody"));
    assert!(
        text.contains("--systemd-cgroup") && text.contains("/does/not/exist"),
        "{text}"
    );
}
