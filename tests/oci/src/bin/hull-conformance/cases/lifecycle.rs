//! Flags of the command line, descriptors, checkpoints.

use std::fs;
use std::time::Duration;

use hull_oci_tests::{Kind, said};
use hull_testkit::wait_until;
use serde_json::{Value, json};

use super::Case;

fn status_of(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    line.split_whitespace()
        .nth(1)
        .unwrap_or_default()
        .to_owned()
}

pub(crate) fn cases() -> Vec<Case> {
    let mut all = vec![
        Case::new("kill.all", |runtime| {
            // No process namespace of its own: the first process does not take the others along.
            let mut bundle = runtime.bundle("c", &[], "sleep 1000 & exec sleep 1000");
            bundle.set("/linux/namespaces/0", json!({"type": "cgroup"}));
            bundle.write();
            runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
            let all = || {
                runtime
                    .homes("c")
                    .iter()
                    .find_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok())
            };
            wait_until(Duration::from_secs(5), || {
                all().is_some_and(|text| text.lines().count() > 1)
            });
            assert!(
                all().is_some_and(|text| text.lines().count() > 1),
                "groups: {:?}",
                all()
            );
            runtime.ok(&["kill", "--all", "c", "KILL"]);
            runtime.wait_for("c", "stopped");
            let empty = wait_until(Duration::from_secs(5), || {
                all().is_none_or(|text| text.trim().is_empty())
            });
            assert!(empty, "left: {:?}", all());
        }),
        Case::new("kill.term-by-default", |runtime| {
            let bundle = runtime.bundle(
                "c",
                &[],
                "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.1; done",
            );
            let out = runtime.dir().join("out");
            let file = fs::File::create(&out).expect("file");
            let run = runtime
                .command(&["run", "-d", "-b", bundle.path(), "c"])
                .stdout(file)
                .status();
            assert!(run.is_ok_and(|status| status.success()));
            let says = |word: &str| {
                let came = wait_until(Duration::from_secs(10), || {
                    fs::read_to_string(&out).is_ok_and(|text| text.contains(word))
                });
                assert!(came, "{word} was not said");
            };
            says("ready");
            runtime.ok(&["kill", "c"]);
            says("got");
        }),
        Case::new("kill.unknown-signal", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            runtime.fails(&["kill", "c", "SIGNOPE"]);
            assert_eq!(runtime.state("c")["status"], "running");
        }),
        Case::new("delete.created", |runtime| {
            let bundle = runtime.bundle("c", &[], "true");
            runtime.ok(&["create", "-b", bundle.path(), "c"]);
            runtime.ok(&["delete", "--force", "c"]);
            runtime.nothing_left();
        }),
        Case::new("start.twice", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            runtime.fails(&["start", "c"]);
            assert_eq!(runtime.state("c")["status"], "running");
        }),
        Case::new("start.missing", |runtime| {
            let text = runtime.fails(&["start", "nobody"]);
            assert!(text.contains("exist"), "{text}");
        }),
        Case::new("run.pid-file", |runtime| {
            let bundle = runtime.bundle("c", &[], "exec sleep 1000");
            let file = runtime.dir().join("pid");
            runtime.ok(&[
                "run",
                "-d",
                "--pid-file",
                file.to_str().expect("text"),
                "-b",
                bundle.path(),
                "c",
            ]);
            assert_eq!(
                fs::read_to_string(file).expect("pid").trim(),
                runtime.pid("c").to_string()
            );
        }),
        Case::new("run.stdin", |runtime| {
            let bundle = runtime.bundle("c", &[], "read line; echo got $line");
            let file = runtime.dir().join("in");
            fs::write(&file, "word\n").expect("file");
            let mut command = runtime.command(&["run", "-b", bundle.path(), "c"]);
            let said = said(command.stdin(fs::File::open(file).expect("file")));
            assert_eq!(said.out, "got word\n");
        }),
        Case::new("run.signal-exit-code", |runtime| {
            let bundle = runtime.bundle(
                "c",
                &[],
                "kill -9 $$; (kill -9 $$); exec /bin/sh -c 'kill -11 $$'",
            );
            let said = runtime.run(&["run", "-b", bundle.path(), "c"]);
            // The first process of a process namespace cannot kill itself by KILL.
            assert!(
                matches!(said.code, 0 | 137 | 139),
                "ended with {}",
                said.code
            );
        }),
        Case::new("run.no-new-keyring", |runtime| {
            let bundle = runtime.bundle("c", &[], "echo ran");
            assert_eq!(
                runtime.ok(&["run", "--no-new-keyring", "-b", bundle.path(), "c"]),
                "ran\n"
            );
        }),
        Case::new("run.no-pivot", |runtime| {
            let bundle = runtime.bundle("c", &[], "ls /etc/shadow 2>/dev/null; ls -d /data");
            assert_eq!(
                runtime.ok(&["run", "--no-pivot", "-b", bundle.path(), "c"]),
                "/data\n"
            );
        }),
        Case::new("run.preserve-fds", |runtime| {
            let bundle = runtime.bundle("c", &[], "cat <&3; ls /proc/self/fd | tr '\\n' ' '");
            let script = format!(
                "exec 3<<<given 4</dev/null 5</dev/null; exec \"$@\"; {}",
                bundle.path()
            );
            let args = ["run", "--preserve-fds", "2", "-b", bundle.path(), "c"];
            let said = said(&mut runtime.within(&script, &args));
            // ls itself has one open, on the folder.
            assert_eq!(said.out, "given\n0 1 2 3 4 5 ", "{}", said.err);
        }),
        Case::new("exec.preserve-fds", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            let args = [
                "exec",
                "--preserve-fds",
                "1",
                "c",
                "sh",
                "-c",
                "cat <&3; ls /proc/self/fd | tr '\\n' ' '",
            ];
            let said = said(&mut runtime.within("exec 3<<<given 4</dev/null; exec \"$@\"", &args));
            assert_eq!(said.out, "given\n0 1 2 3 4 ", "{}", said.err);
        }),
        Case::new("run.descriptors-stay-outside", |runtime| {
            let bundle = runtime.bundle("c", &[], "ls /proc/self/fd | tr '\\n' ' '");
            let args = ["run", "-b", bundle.path(), "c"];
            let said = said(&mut runtime.within("exec 7</ 9</etc/passwd; exec \"$@\"", &args));
            assert_eq!(said.out, "0 1 2 3 ", "{}", said.err);
        }),
        Case::new("exec.detach", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            let file = runtime.dir().join("pid");
            runtime.ok(&[
                "exec",
                "-d",
                "--pid-file",
                file.to_str().expect("text"),
                "c",
                "sleep",
                "999",
            ]);
            let pid = fs::read_to_string(file).expect("pid");
            let line = || fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
            let came = wait_until(Duration::from_secs(10), || line() == b"sleep\0999\0");
            assert!(came, "{:?}", String::from_utf8_lossy(&line()));
        }),
        Case::new("exec.cap", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            let said = runtime.ok(&[
                "exec",
                "--cap",
                "CAP_NET_RAW",
                "c",
                "cat",
                "/proc/self/status",
            ]);
            let sets = ["CapBnd:", "CapEff:", "CapInh:"].map(|name| status_of(&said, name));
            assert_eq!(
                sets,
                ["00000000000020e3", "00000000000020e3", "0000000000000000"]
            );
        }),
        Case::new("exec.no-new-privs", |runtime| {
            let _bundle = runtime.sleeping(&[("/process/noNewPrivileges", json!(false))]);
            let said = runtime.ok(&["exec", "--no-new-privs", "c", "cat", "/proc/self/status"]);
            assert_eq!(status_of(&said, "NoNewPrivs:"), "1");
            let said = runtime.ok(&["exec", "c", "cat", "/proc/self/status"]);
            assert_eq!(status_of(&said, "NoNewPrivs:"), "0");
        }),
        Case::new("exec.additional-gids", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            let said = runtime.ok(&[
                "exec",
                "--user",
                "33:34",
                "-g",
                "35",
                "-g",
                "36",
                "c",
                "grep",
                "Groups:",
                "/proc/self/status",
            ]);
            assert_eq!(
                said.split_whitespace().collect::<Vec<_>>(),
                ["Groups:", "35", "36"]
            );
        }),
        Case::new("exec.created", |runtime| {
            let bundle = runtime.bundle("c", &[], "exec sleep 1000");
            runtime.ok(&["create", "-b", bundle.path(), "c"]);
            assert_eq!(runtime.ok(&["exec", "c", "echo", "inside"]), "inside\n");
            assert_eq!(runtime.state("c")["status"], "created");
        }),
        Case::new("exec.stdin", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            let file = runtime.dir().join("in");
            fs::write(&file, "word\n").expect("file");
            let mut command = runtime.command(&["exec", "c", "cat"]);
            let said = said(command.stdin(fs::File::open(file).expect("file")));
            assert_eq!(said.out, "word\n");
        }),
        Case::new("exec.same-group", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            let first =
                fs::read_to_string(format!("/proc/{}/cgroup", runtime.pid("c"))).expect("groups");
            assert_eq!(
                runtime.ok(&["exec", "c", "cat", "/proc/self/cgroup"]),
                first
            );
        }),
        Case::new("exec.cgroup", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            for home in runtime.homes("c") {
                fs::create_dir(home.join("sub")).expect("a group below");
                // A new group of cpuset (v1) has none, and takes no process.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    if let Ok(list) = fs::read(home.join(file)) {
                        let _ = fs::write(home.join("sub").join(file), list);
                    }
                }
            }
            let said = runtime.ok(&["exec", "--cgroup", "sub", "c", "cat", "/proc/self/cgroup"]);
            let all = said.lines().filter(|line| line.contains("/c"));
            let below = all.clone().filter(|line| line.ends_with("/c/sub"));
            assert!(all.count() > 0, "said {said}");
            assert!(below.count() > 0, "said {said}");
            let missing = runtime.fails(&["exec", "--cgroup", "none", "c", "true"]);
            assert!(missing.contains("none"), "{missing}");
        }),
        Case::new("exec.paused", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            runtime.ok(&["pause", "c"]);
            let text = runtime.fails(&["exec", "c", "true"]);
            assert!(text.contains("paused"), "{text}");
            runtime.ok(&["resume", "c"]);
        }),
        Case::new("exec.ignore-paused", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            runtime.ok(&["pause", "c"]);
            let mut command = runtime.command(&["exec", "--ignore-paused", "c", "echo", "later"]);
            let out = runtime.dir().join("out");
            let mut child = command
                .stdout(fs::File::create(&out).expect("file"))
                .spawn()
                .expect("exec");
            std::thread::sleep(Duration::from_millis(300));
            assert_eq!(fs::read_to_string(&out).expect("out"), "");
            runtime.ok(&["resume", "c"]);
            let came = wait_until(Duration::from_secs(10), || {
                child.try_wait().is_ok_and(|status| status.is_some())
            });
            assert!(came, "it never ran");
            assert_eq!(fs::read_to_string(&out).expect("out"), "later\n");
        }),
        Case::new("pause.twice", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            runtime.ok(&["pause", "c"]);
            runtime.fails(&["pause", "c"]);
            runtime.ok(&["resume", "c"]);
            runtime.fails(&["resume", "c"]);
        }),
        Case::new("delete.paused", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            runtime.ok(&["pause", "c"]);
            runtime.ok(&["delete", "--force", "c"]);
            runtime.nothing_left();
        }),
        Case::new("list.table", |runtime| {
            let bundle = runtime.sleeping(&[]);
            let said = runtime.ok(&["list"]);
            let mut lines = said.lines();
            let head: Vec<_> = lines
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            assert_eq!(head, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
            let row: Vec<_> = lines
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .take(4)
                .collect();
            let pid = runtime.pid("c").to_string();
            assert_eq!(row, ["c", pid.as_str(), "running", bundle.path()]);
        }),
        Case::new("ps.table", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            let said = runtime.ok(&["ps", "c", "-o", "pid,comm"]);
            let words: Vec<_> = said.split_whitespace().collect();
            let pid = runtime.pid("c").to_string();
            assert_eq!(words, ["PID", "COMMAND", pid.as_str(), "sleep"]);
        }),
        Case::new("spec.rootless", |runtime| {
            let dir = runtime.dir().join("new");
            fs::create_dir(&dir).expect("folder");
            let said = said(runtime.command(&["spec", "--rootless"]).current_dir(&dir));
            assert_eq!(said.code, 0, "{}", said.err);
            let text = fs::read_to_string(dir.join("config.json")).expect("config.json");
            let config: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(config["linux"]["uidMappings"][0]["size"], 1);
            let spaces = config["linux"]["namespaces"].to_string();
            assert!(
                spaces.contains("user") && !spaces.contains("network"),
                "{spaces}"
            );
        }),
        Case::new("spec.kept", |runtime| {
            let dir = runtime.dir().join("new");
            fs::create_dir(&dir).expect("folder");
            fs::write(dir.join("config.json"), "mine").expect("file");
            let said = said(runtime.command(&["spec"]).current_dir(&dir));
            assert!(said.code > 0, "ended with {}", said.code);
            assert_eq!(
                fs::read_to_string(dir.join("config.json")).expect("file"),
                "mine"
            );
        }),
        Case::new("version", |runtime| {
            let text = runtime.ok(&["--version"]);
            assert!(
                text.contains("version ") && text.contains("spec: 1."),
                "{text}"
            );
        }),
        Case::new("log.text", |runtime| {
            let log = runtime.dir().join("log");
            runtime.fails(&["--log", log.to_str().expect("text"), "state", "nobody"]);
            let text = fs::read_to_string(log).expect("log");
            assert!(
                text.contains("level=error") && text.contains("exist"),
                "{text}"
            );
        }),
        Case::new("command.unknown", |runtime| {
            assert!(runtime.run(&["nonsense"]).code > 0);
            assert!(runtime.run(&["create", "--nonsense"]).code > 0);
        }),
        Case::new("bundle.missing", |runtime| {
            let text = runtime.fails(&["create", "-b", "/no/such/bundle", "c"]);
            assert!(
                text.contains("/no/such/bundle") || text.contains("config.json"),
                "{text}"
            );
            runtime.nothing_left();
        }),
        Case::new("events.oom", |runtime| {
            let limit = json!({"memory": {"limit": 16_777_216, "swap": 16_777_216}});
            let bundle = runtime.bundle(
                "c",
                &[("/linux/resources", limit)],
                "dd if=/dev/zero of=/dev/null bs=100M count=1; exec sleep 1000",
            );
            runtime.ok(&["create", "-b", bundle.path(), "c"]);
            let out = runtime.dir().join("events");
            let mut child = runtime
                .command(&["events", "--interval", "1s", "c"])
                .stdout(fs::File::create(&out).expect("file"))
                .spawn()
                .expect("events");
            std::thread::sleep(Duration::from_millis(700));
            let started = runtime.run(&["start", "c"]);
            let told = wait_until(Duration::from_secs(10), || {
                fs::read_to_string(&out).is_ok_and(|text| text.contains("\"oom\""))
            });
            let _ = child.kill();
            let _ = child.wait();
            assert_eq!(started.code, 0, "{}", started.err);
            assert!(told, "{}", fs::read_to_string(&out).unwrap_or_default());
        }),
    ];
    all.extend(checkpoints());
    all
}

/// Where CRIU is not, and what it cannot do anything with.
fn checkpoints() -> Vec<Case> {
    vec![
        Case::new("checkpoint.without-criu", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            let images = runtime.dir().join("images");
            let args = [
                "checkpoint",
                "--image-path",
                images.to_str().expect("text"),
                "c",
            ];
            // The program is named in full: there is no PATH to find it by.
            let outside = "p=$(command -v \"$1\"); shift; PATH=/nonexistent; exec \"$p\" \"$@\"";
            let mut command = match runtime.kind {
                Kind::Crun => runtime.command(&args),
                Kind::Hull | Kind::Runc => runtime.within(outside, &args),
            };
            let said = said(&mut command);
            assert!(said.code > 0, "was not refused, ended with {}", said.code);
            assert!(said.err.to_lowercase().contains("criu"), "{}", said.err);
            assert_eq!(runtime.state("c")["status"], "running");
        }),
        Case::new("checkpoint.missing", |runtime| {
            let text = runtime.fails(&["checkpoint", "nobody"]);
            assert!(text.contains("exist"), "{text}");
        }),
        Case::new("checkpoint.stopped", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            runtime.ok(&["kill", "c", "KILL"]);
            runtime.wait_for("c", "stopped");
            let images = runtime.dir().join("images");
            let said = runtime.run(&[
                "checkpoint",
                "--image-path",
                images.to_str().expect("text"),
                "c",
            ]);
            assert!(said.code > 0, "was not refused, ended with {}", said.code);
            assert!(
                said.err.contains("stopped") || said.err.contains("running"),
                "{}",
                said.err
            );
        }),
        Case::new("restore.without-files", |runtime| {
            let bundle = runtime.bundle("c", &[], "true");
            let images = runtime.dir().join("none");
            let said = runtime.run(&[
                "restore",
                "--image-path",
                images.to_str().expect("text"),
                "-b",
                bundle.path(),
                "c",
            ]);
            assert!(said.code > 0, "was not refused, ended with {}", said.code);
            runtime.nothing_left();
        }),
        Case::new("restore.over-another", |runtime| {
            let bundle = runtime.sleeping(&[]);
            let images = runtime.dir().join("images");
            fs::create_dir(&images).expect("folder");
            runtime.fails(&[
                "restore",
                "--image-path",
                images.to_str().expect("text"),
                "-b",
                bundle.path(),
                "c",
            ]);
            assert_eq!(runtime.state("c")["status"], "running");
        }),
    ]
}
