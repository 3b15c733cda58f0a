//! Users other than root: one id of their own, no control group, records in their session's folder.

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Bundle, Runtime};
use tempfile::TempDir;

/// A user whom no host knows.
const USER: u32 = 54_321;

/// A folder of the user's with the program, a session folder and a bundle.
struct Session {
    dir: TempDir,
}

impl Session {
    fn new() -> Self {
        let dir = TempDir::new().expect("folder");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("mode");
        fs::copy(env!("CARGO_BIN_EXE_hull-oci"), dir.path().join("hull-oci")).expect("copy");
        fs::create_dir(dir.path().join("session")).expect("folder");
        let bundle = Bundle::new(&Runtime::ours(), "template", &["true"]);
        let target = dir.path().join("bundle");
        fs::create_dir(&target).expect("folder");
        let copied = Command::new("cp")
            .args(["-a", bundle.root().to_str().expect("text")])
            .arg(&target)
            .status()
            .expect("cp");
        assert!(copied.success());
        give(&target);
        give(&dir.path().join("session"));
        Self { dir }
    }

    fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.dir.path().join("hull-oci"));
        command
            .args(args)
            .current_dir(self.bundle())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("XDG_RUNTIME_DIR", self.dir.path().join("session"))
            .stdin(Stdio::null())
            .uid(USER)
            .gid(USER);
        command
    }

    /// Runs to its end; output goes to a file, since a container that lives on keeps it open.
    fn run(&self, args: &[&str]) -> (String, bool) {
        let path = self.dir.path().join("output");
        let file = fs::File::create(&path).expect("file");
        let status = self
            .command(args)
            .stdout(file.try_clone().expect("dup"))
            .stderr(file)
            .status()
            .expect("run");
        (fs::read_to_string(path).expect("text"), status.success())
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let (text, success) = self.run(args);
        assert!(success, "{args:?}: {text}");
        text
    }

    #[track_caller]
    fn fails(&self, args: &[&str]) -> String {
        let (text, success) = self.run(args);
        assert!(!success, "{args:?} did not fail: {text}");
        text
    }

    /// `spec --rootless` with a command and a change.
    fn configure(&self, script: &str, change: impl FnOnce(&mut Value)) {
        let path = self.bundle().join("config.json");
        let _ = fs::remove_file(&path);
        self.ok(&["spec", "--rootless"]);
        let mut config: Value =
            serde_json::from_slice(&fs::read(&path).expect("config")).expect("json");
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["root"]["readonly"] = json!(false);
        change(&mut config);
        fs::write(&path, config.to_string()).expect("write");
    }

    fn recorded(&self) -> usize {
        let dir = self.dir.path().join("session/hull-oci");
        fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
            .count()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (list, _) = self.run(&["list", "-q"]);
        for id in list.lines() {
            self.run(&["delete", "--force", id]);
        }
    }
}

fn give(path: &Path) {
    let output: Output = Command::new("chown")
        .args(["-hR", &format!("{USER}:{USER}")])
        .arg(path)
        .output()
        .expect("chown");
    assert!(output.status.success());
}

#[test]
fn run_of_spec_rootless_is_root_inside_and_the_user_outside() {
    let session = Session::new();
    session.configure(
        "id; cat /proc/self/uid_map /proc/self/setgroups; touch /made; echo x > /dev/null && echo null; \
         test -e /proc/kcore && cat /proc/kcore | grep -c . ; ls /proc/acpi",
        |_| {},
    );
    let text = session.ok(&["run", "c"]);
    assert!(text.starts_with("uid=0 gid=0"), "{text}");
    let words: Vec<&str> = text.split_whitespace().collect();
    assert!(
        words.windows(4).any(|w| w == ["0", "54321", "1", "deny"]),
        "{text}"
    );
    assert!(text.contains("null"), "{text}");
    let made = fs::metadata(session.bundle().join("rootfs/made")).expect("made");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), USER);
    assert_eq!(session.recorded(), 0);
}

#[test]
fn life_of_a_container_without_a_control_group() {
    let session = Session::new();
    session.configure("sleep 1000 & sleep 1000", |_| {});
    session.ok(&["create", "c"]);
    session.ok(&["start", "c"]);
    let text = session.ok(&[
        "exec",
        "c",
        "sh",
        "-c",
        "id -u; readlink /proc/self/ns/user; readlink /proc/1/ns/user",
    ]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.first(), Some(&"0"), "{text}");
    assert_eq!(lines.get(1), lines.get(2), "{text}");
    for (args, part) in [
        (&["--user", "5"][..], "user 5 is not mapped"),
        (&["--user", "0:5"], "group 5 is not mapped"),
        (&["-g", "0"], "additional groups cannot be set"),
    ] {
        let all = [&["exec"], args, &["c", "id"]].concat();
        let text = session.fails(&all);
        assert!(text.contains(part), "{text}");
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let pids: Vec<i32> =
            serde_json::from_str(&session.ok(&["ps", "-f", "json", "c"])).expect("json");
        if pids.len() == 2 {
            break;
        }
        assert!(Instant::now() < deadline, "{pids:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    for (args, what) in [
        (&["pause", "c"][..], "cannot freeze"),
        (
            &["update", "--memory", "10000000", "c"],
            "cannot set limits",
        ),
        (&["events", "--stats", "c"], "nothing is counted"),
        (&["events", "c"], "nothing is counted"),
        (&["exec", "--cgroup", "/", "c", "true"], "no control group"),
    ] {
        let text = session.fails(args);
        assert!(text.contains(what), "{text}");
        if args[0] != "exec" {
            assert!(text.contains("may not make control groups"), "{text}");
        }
    }
    let text = session.fails(&["resume", "c"]);
    assert!(text.contains("container not paused"), "{text}");
    session.ok(&["kill", "--all", "c", "KILL"]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !session.ok(&["state", "c"]).contains("stopped") {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    session.ok(&["delete", "c"]);
    session.ok(&["create", "d"]);
    session.ok(&["delete", "--force", "d"]);
    assert_eq!(session.recorded(), 0);
}

/// As the containers of a pod: the second is in the first one's namespaces.
#[test]
fn namespaces_of_another_container_of_the_user_are_joined() {
    let session = Session::new();
    session.configure("sleep 1000", |_| {});
    session.ok(&["run", "-d", "a"]);
    let state: Value = serde_json::from_str(&session.ok(&["state", "a"])).expect("json");
    let pid = state["pid"].to_string();
    let script = "kill -0 1 && cat /proc/1/cmdline | grep -c sleep; ls /proc/self/fd | grep -c .; \
                  cat /proc/self/uid_map | grep -c 54321; touch /made && echo made";
    session.configure(script, |config| {
        let linux = config["linux"].as_object_mut().expect("linux");
        linux.remove("uidMappings");
        linux.remove("gidMappings");
        let given = ["user", "pid", "ipc", "uts"];
        let mut list: Vec<Value> = given
            .iter()
            .map(|kind| json!({ "type": kind, "path": format!("/proc/{pid}/ns/{kind}") }))
            .collect();
        list.push(json!({ "type": "mount" }));
        list.push(json!({ "type": "cgroup" }));
        linux["namespaces"] = json!(list);
        config.as_object_mut().expect("config").remove("hostname");
    });
    // Standard streams, and the folder that ls reads.
    assert_eq!(session.ok(&["run", "b"]), "1\n4\n1\nmade\n");
    session.ok(&["delete", "--force", "a"]);
    assert_eq!(session.recorded(), 0);
}

#[test]
fn limits_that_cannot_be_set_are_named_and_leave_nothing() {
    let session = Session::new();
    session.configure("true", |config| {
        config["linux"]["resources"] = json!({ "memory": { "limit": 10_000_000 } });
    });
    let text = session.fails(&["run", "c"]);
    assert!(text.contains("linux.resources.memory.limit"), "{text}");
    assert_eq!(session.recorded(), 0);
    session.configure("true", |_| {});
    let text = session.fails(&["--rootless", "false", "run", "c"]);
    assert!(text.contains("control group"), "{text}");
    assert_eq!(session.recorded(), 0);
}

#[test]
fn what_needs_root_is_refused_by_its_field() {
    let session = Session::new();
    session.configure("true", |config| {
        let linux = config["linux"].as_object_mut().expect("linux");
        linux.remove("uidMappings");
        linux.remove("gidMappings");
        let list = linux["namespaces"].as_array_mut().expect("namespaces");
        list.retain(|namespace| namespace["type"] != "user");
    });
    let text = session.fails(&["run", "c"]);
    assert!(
        text.contains("linux.namespaces") && text.contains("--rootless"),
        "{text}"
    );

    session.configure("true", |config| {
        config["process"]["user"] = json!({ "uid": 5, "gid": 0 });
    });
    let text = session.fails(&["run", "c"]);
    assert!(text.contains("process.user.uid 5 is not mapped"), "{text}");

    session.configure("true", |config| {
        config["process"]["user"]["additionalGids"] = json!([7]);
    });
    let text = session.fails(&["run", "c"]);
    assert!(text.contains("additionalGids"), "{text}");

    // Ids of others: newuidmap knows nothing of this user, or is not there.
    session.configure("true", |config| {
        config["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
    });
    let text = session.fails(&["run", "c"]);
    assert!(text.contains("newuidmap"), "{text}");
    assert_eq!(session.recorded(), 0);
}

/// CVE-2023-25809: the host's control groups below a /sys that is bound read-only stay writable,
/// unless they are hidden or read-only, too.
#[test]
fn control_groups_of_the_host_cannot_be_written() {
    let session = Session::new();
    let script = "for dir in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $dir/hull-attack && echo OUT; done 2>/dev/null; \
                  grep -E ' /sys[ /]' /proc/self/mountinfo | while read id parent number root point options rest; do \
                  case $options in ro*) ;; *) echo OUT $point;; esac; done; echo done";
    session.configure(script, |_| {});
    let text = session.ok(&["run", "c"]);
    assert_eq!(text.lines().last(), Some("done"), "{text}");
    assert!(!text.contains("OUT"), "{text}");
    // Without a mount of its own there, and with the option that does not reach below.
    session.configure(script, |config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        for mount in mounts {
            if mount["destination"] == "/sys" {
                mount["options"] = json!(["rbind", "nosuid", "noexec", "nodev", "ro"]);
            }
        }
    });
    let text = session.ok(&["run", "c"]);
    assert!(!text.contains("OUT"), "{text}");
}

#[test]
fn spec_of_runc_for_users_runs() {
    let session = Session::new();
    let path = session.bundle().join("config.json");
    let made = Command::new("runc")
        .args(["spec", "--rootless"])
        .current_dir(session.bundle())
        .uid(USER)
        .gid(USER)
        .env("XDG_RUNTIME_DIR", session.dir.path().join("session"))
        .output()
        .expect("install runc");
    assert!(made.status.success(), "{made:?}");
    let mut config: Value =
        serde_json::from_slice(&fs::read(&path).expect("config")).expect("json");
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sh", "-c", "id -u; hostname"]);
    fs::write(&path, config.to_string()).expect("write");
    chown(&path, Some(USER), Some(USER)).expect("chown");
    let text = session.ok(&["run", "c"]);
    assert!(text.ends_with("0\nrunc\n"), "{text}");
}

#[test]
fn user_hooks_of_every_kind_run_and_that_of_the_start_can_stop_it() {
    let session = Session::new();
    let log = session.bundle().join("hooks.log");
    let hook = |name: &str| {
        let file = match name {
            "startContainer" => "/tmp/hooks.log".to_owned(),
            _ => log.display().to_string(),
        };
        let script = format!("echo {name} $(id -u) >> {file}");
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] }])
    };
    let kinds = [
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    ];
    let all: serde_json::Map<_, _> = kinds
        .iter()
        .map(|name| ((*name).to_owned(), hook(name)))
        .collect();
    session.configure("cat /tmp/hooks.log", |config| {
        config["hooks"] = Value::Object(all);
    });
    assert_eq!(session.ok(&["run", "c"]), "startContainer 0\n");
    let text = fs::read_to_string(&log).expect("log");
    assert_eq!(
        text,
        format!("createRuntime {USER}\ncreateContainer 0\npoststart {USER}\npoststop {USER}\n")
    );
    session.configure("echo ran", |config| {
        config["hooks"] = json!({ "startContainer": [
            { "path": "/bin/sh", "args": ["sh", "-c", "exit 9"], "env": ["PATH=/bin"] }
        ] });
    });
    session.ok(&["create", "d"]);
    let said = session.fails(&["start", "d"]);
    assert!(
        said.contains("startContainer hook #0") && said.contains("exit status 9"),
        "{said}"
    );
    session.ok(&["delete", "--force", "d"]);
}

/// The descriptor is fetched from a process in a user namespace, by a user without privileges.
#[test]
fn seccomp_notify_reaches_the_listener_of_a_user() {
    let session = Session::new();
    let socket = session.bundle().join("listener");
    let listen = || {
        let _ = fs::remove_file(&socket);
        let listener = std::os::unix::net::UnixListener::bind(&socket).expect("bind");
        chown(&socket, Some(USER), Some(USER)).expect("chown");
        std::thread::spawn(move || {
            let (connection, _) = listener.accept().expect("accept");
            let (mut bytes, mut fds) = (Vec::new(), Vec::new());
            let mut part = vec![0u8; 64 << 10];
            loop {
                let count = hull_sys::fdpass::receive(&connection, &mut part, &mut fds);
                match count.expect("receive") {
                    0 => break,
                    count => bytes.extend_from_slice(&part[..count]),
                }
            }
            let state: Value = serde_json::from_slice(&bytes).expect("json");
            let wait = &mut [rustix::event::PollFd::new(
                &fds[0],
                rustix::event::PollFlags::IN,
            )];
            let limit = rustix::event::Timespec {
                tv_sec: 20,
                tv_nsec: 0,
            };
            let seen = rustix::event::poll(wait, Some(&limit)).expect("poll") == 1;
            // With the descriptor goes whoever could answer: the call is not implemented.
            (state, seen)
        })
    };
    for no_new_privileges in [true, false] {
        session.configure("mkdir /tmp/x; sleep 1000", |config| {
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "listenerPath": socket,
                "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }],
            });
        });
        let heard = listen();
        session.ok(&["create", "c"]);
        let state: Value = serde_json::from_str(&session.ok(&["state", "c"])).expect("json");
        session.ok(&["start", "c"]);
        let (told, seen) = heard.join().expect("listener");
        assert!(seen);
        assert_eq!(told["pid"], state["pid"]);
        let heard = listen();
        let text = session.fails(&["exec", "c", "mkdir", "/tmp/y"]);
        assert!(text.contains("not implemented"), "{text}");
        let (told, seen) = heard.join().expect("listener");
        assert!(seen);
        assert_ne!(told["pid"], state["pid"]);
        session.ok(&["delete", "--force", "c"]);
    }
    assert_eq!(session.recorded(), 0);
}
