//! The command line.

use std::fs;

use serde_json::{Value, json};

use super::Case;

#[allow(clippy::too_many_lines, reason = "a table")]
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("create.start.delete", |runtime| {
            let bundle = runtime.bundle("c", &[], "echo ran > /data/mark");
            runtime.ok(&["create", "-b", bundle.path(), "c"]);
            assert_eq!(runtime.state("c")["status"], "created");
            assert!(!bundle.root().join("data/mark").exists());
            runtime.ok(&["start", "c"]);
            runtime.wait_for("c", "stopped");
            assert!(bundle.root().join("data/mark").exists());
            runtime.ok(&["delete", "c"]);
            runtime.fails(&["state", "c"]);
        }),
        Case::new("create.twice", |runtime| {
            let bundle = runtime.sleeping(&[]);
            assert!(
                runtime
                    .fails(&["create", "-b", bundle.path(), "c"])
                    .contains("exist")
            );
            assert_eq!(runtime.state("c")["status"], "running");
        }),
        Case::new("create.pid-file", |runtime| {
            let bundle = runtime.bundle("c", &[], "sleep 1000");
            let file = runtime.dir().join("pid");
            runtime.ok(&[
                "create",
                "-b",
                bundle.path(),
                "--pid-file",
                file.to_str().expect("text"),
                "c",
            ]);
            assert_eq!(
                fs::read_to_string(file).expect("pid").trim(),
                runtime.pid("c").to_string()
            );
        }),
        Case::new("run.exit-code", |runtime| {
            let bundle = runtime.bundle("c", &[], "exit 7");
            assert_eq!(runtime.run(&["run", "-b", bundle.path(), "c"]).code, 7);
            runtime.nothing_left();
        }),
        Case::new("run.streams", |runtime| {
            let bundle = runtime.bundle("c", &[], "echo out; echo err >&2");
            let said = runtime.run(&["run", "-b", bundle.path(), "c"]);
            assert_eq!((said.out.as_str(), said.err.as_str()), ("out\n", "err\n"));
        }),
        Case::new("run.detach", |runtime| {
            let bundle = runtime.bundle("c", &[], "sleep 1000");
            runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
            assert_eq!(runtime.state("c")["status"], "running");
        }),
        Case::new("state.fields", |runtime| {
            let bundle = runtime.sleeping(&[("/annotations", json!({"org.example.key": "value"}))]);
            let state = runtime.state("c");
            assert_eq!(state["bundle"], bundle.path());
            assert_eq!(state["annotations"]["org.example.key"], "value");
            assert!(
                state["ociVersion"]
                    .as_str()
                    .is_some_and(|version| version.starts_with("1."))
            );
        }),
        Case::new("state.missing", |runtime| {
            let text = runtime.fails(&["state", "nobody"]);
            assert!(text.contains("exist"), "{text}");
        }),
        Case::new("kill.name-number", |runtime| {
            for signal in ["KILL", "SIGKILL", "9"] {
                let _bundle = runtime.sleeping(&[]);
                runtime.ok(&["kill", "c", signal]);
                runtime.wait_for("c", "stopped");
                runtime.ok(&["delete", "c"]);
            }
        }),
        Case::new("kill.stopped", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            runtime.ok(&["kill", "c", "KILL"]);
            runtime.wait_for("c", "stopped");
            runtime.fails(&["kill", "c", "TERM"]);
        }),
        Case::new("delete.running", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            runtime.fails(&["delete", "c"]);
            assert_eq!(runtime.state("c")["status"], "running");
            runtime.ok(&["delete", "--force", "c"]);
            runtime.nothing_left();
        }),
        Case::new("delete.force-missing", |runtime| {
            runtime.ok(&["delete", "--force", "nobody"]);
        }),
        Case::new("exec.command", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            assert_eq!(
                runtime.ok(&["exec", "c", "sh", "-c", "hostname; echo $GREETING"]),
                "inside\nhello\n"
            );
            assert_eq!(runtime.run(&["exec", "c", "sh", "-c", "exit 9"]).code, 9);
        }),
        Case::new("exec.cwd-env-user", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            let said = runtime.ok(&[
                "exec",
                "--cwd",
                "/data",
                "--env",
                "A=b",
                "--user",
                "33:34",
                "c",
                "sh",
                "-c",
                "pwd; echo $A; id -u; id -g",
            ]);
            assert_eq!(said, "/data\nb\n33\n34\n");
        }),
        Case::new("exec.process", |runtime| {
            let bundle = runtime.sleeping(&[]);
            let mut process = bundle.config["process"].clone();
            process["args"] = json!(["pwd"]);
            process["cwd"] = json!("/tmp");
            let file = runtime.dir().join("process.json");
            fs::write(&file, process.to_string()).expect("write");
            assert_eq!(
                runtime.ok(&["exec", "-p", file.to_str().expect("text"), "c"]),
                "/tmp\n"
            );
        }),
        Case::new("exec.missing-program", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            assert!(runtime.run(&["exec", "c", "no-such-program"]).code > 0);
        }),
        Case::new("exec.stopped", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            runtime.ok(&["kill", "c", "KILL"]);
            runtime.wait_for("c", "stopped");
            runtime.fails(&["exec", "c", "true"]);
        }),
        Case::new("list.json", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            let list: Value =
                serde_json::from_str(&runtime.ok(&["list", "-f", "json"])).expect("JSON");
            assert_eq!(
                (list[0]["id"].as_str(), list[0]["status"].as_str()),
                (Some("c"), Some("running"))
            );
        }),
        Case::new("pause.resume", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            runtime.ok(&["pause", "c"]);
            assert_eq!(runtime.state("c")["status"], "paused");
            runtime.ok(&["resume", "c"]);
            assert_eq!(runtime.state("c")["status"], "running");
        }),
        Case::new("ps.json", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            let list: Value =
                serde_json::from_str(&runtime.ok(&["ps", "-f", "json", "c"])).expect("JSON");
            assert_eq!(list[0].as_u64(), Some(runtime.pid("c")));
        }),
        Case::new("update.memory", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            runtime.ok(&["update", "--memory", "50331648", "c"]);
            assert_eq!(
                runtime.limit(&["memory.limit_in_bytes", "memory.max"]),
                "50331648"
            );
        }),
        Case::new("update.pids", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            runtime.ok(&["update", "--pids-limit", "31", "c"]);
            assert_eq!(runtime.limit(&["pids.max"]), "31");
        }),
        Case::new("update.file", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            let file = runtime.dir().join("r.json");
            fs::write(&file, json!({"pids": {"limit": 17}}).to_string()).expect("write");
            runtime.ok(&["update", "-r", file.to_str().expect("text"), "c"]);
            assert_eq!(runtime.limit(&["pids.max"]), "17");
        }),
        Case::new("events.stats", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            let stats: Value =
                serde_json::from_str(&runtime.ok(&["events", "--stats", "c"])).expect("JSON");
            assert_eq!(
                (stats["type"].as_str(), stats["id"].as_str()),
                (Some("stats"), Some("c"))
            );
            assert!(stats["data"]["pids"]["current"].as_u64() >= Some(1));
        }),
        Case::new("features", |runtime| {
            let features: Value = serde_json::from_str(&runtime.ok(&["features"])).expect("JSON");
            assert!(
                features["linux"]["namespaces"]
                    .as_array()
                    .is_some_and(|list| list.len() > 6)
            );
        }),
        Case::new("spec", |runtime| {
            let dir = runtime.dir().join("new");
            fs::create_dir(&dir).expect("folder");
            assert!(
                runtime
                    .command(&["spec"])
                    .current_dir(&dir)
                    .status()
                    .is_ok_and(|status| status.success())
            );
            let text = fs::read_to_string(dir.join("config.json")).expect("config.json");
            let config: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(config["root"]["path"], "rootfs");
        }),
        Case::new("log.json", |runtime| {
            let log = runtime.dir().join("log");
            runtime.fails(&[
                "--log",
                log.to_str().expect("text"),
                "--log-format",
                "json",
                "state",
                "nobody",
            ]);
            let text = fs::read_to_string(log).expect("log");
            let line: Value =
                serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
            assert_eq!(line["level"], "error");
            assert!(
                line["msg"]
                    .as_str()
                    .is_some_and(|text| text.contains("exist")),
                "{line}"
            );
        }),
    ]
}
