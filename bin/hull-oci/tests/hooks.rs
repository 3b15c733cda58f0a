//! Hooks: where and when they run, what they read, what becomes of the container if they fail.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Bundle, Runtime};
use tempfile::TempDir;

const NAMES: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// A hook that runs a script.
fn hook(script: &str) -> Value {
    json!({
        "path": if script.starts_with("inside:") { "/bin/sh" } else { "/bin/busybox" },
        "args": ["sh", "-c", script.trim_start_matches("inside:")],
        "env": ["PATH=/bin:/usr/bin", "GREETING=hi"],
    })
}

/// A hook that leaves name, namespaces and state in `dir`; that of startContainer inside.
fn witness(name: &str, dir: &Path) -> Value {
    let (mark, dir) = match name {
        "startContainer" => ("inside:", Path::new("/tmp")),
        _ => ("", dir),
    };
    let dir = dir.display();
    hook(&format!(
        "{mark}cat > {dir}/{name}.state; echo $GREETING $(readlink /proc/self/ns/mnt) \
         $(ls -d {dir} /data 2>/dev/null) > {dir}/{name}.seen; echo {name} >> {dir}/order"
    ))
}

fn all(dir: &Path) -> Value {
    let hooks = NAMES.map(|name| (name.to_owned(), json!([witness(name, dir)])));
    Value::Object(hooks.into_iter().collect())
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn place(bundle: &Bundle, dir: &TempDir, name: &str, kind: &str) -> PathBuf {
    let dir = match name {
        "startContainer" => bundle.root().join("tmp"),
        _ => dir.path().to_owned(),
    };
    dir.join(format!("{name}.{kind}"))
}

#[test]
fn hooks_read_the_state_in_their_places() {
    for runtime in Runtime::both() {
        let dir = TempDir::new().expect("folder");
        let mut bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
        bundle.set("/hooks", all(dir.path()));
        runtime.ok(&["create", "-b", bundle.path(), "c"]);
        let host = fs::read_link("/proc/self/ns/mnt").expect("namespace");
        let host = host.to_str().expect("text").to_owned();
        let pid = runtime.state("c")["pid"].as_u64().expect("pid");
        let inside = fs::read_link(format!("/proc/{pid}/ns/mnt")).expect("namespace");
        let inside = inside.to_str().expect("text").to_owned();
        assert!(!place(&bundle, &dir, "startContainer", "state").exists());
        runtime.ok(&["start", "c"]);
        runtime.wait_for("c", "running");
        let deadline = Instant::now() + Duration::from_secs(5);
        while !place(&bundle, &dir, "startContainer", "seen").exists() {
            assert!(Instant::now() < deadline, "startContainer did not run");
            std::thread::sleep(Duration::from_millis(5));
        }
        runtime.ok(&["kill", "c", "KILL"]);
        runtime.wait_for("c", "stopped");
        assert!(!place(&bundle, &dir, "poststop", "state").exists());
        runtime.ok(&["delete", "c"]);
        for name in NAMES {
            let state: Value =
                serde_json::from_str(&read(&place(&bundle, &dir, name, "state"))).expect("json");
            assert_eq!(state["id"], "c", "{name}");
            assert_eq!(state["bundle"], bundle.path(), "{name}");
            assert_eq!(state["annotations"]["org.example.key"], "value", "{name}");
            let (status, number) = match name {
                "startContainer" => ("created", json!(1)),
                "createContainer" => ("creating", json!(1)),
                "poststart" if !runtime.is_ours() => ("created", json!(pid)),
                "poststart" => ("running", json!(pid)),
                "poststop" => ("stopped", Value::Null),
                _ => ("creating", json!(pid)),
            };
            assert_eq!(state["status"], status, "{name}");
            assert_eq!(state["pid"], number, "{name}");
            let seen = read(&place(&bundle, &dir, name, "seen"));
            let mut words = seen.split_whitespace();
            assert_eq!(words.next(), Some("hi"), "{name}");
            let namespace = match name {
                "createContainer" | "startContainer" => &inside,
                _ => &host,
            };
            assert_eq!(words.next(), Some(namespace.as_str()), "{name}");
            let root = words.any(|word| word == "/data");
            assert_eq!(root, name == "startContainer", "{name}: {seen}");
        }
        let order = read(&dir.path().join("order"));
        let order: Vec<&str> = order.lines().filter(|name| *name != "poststart").collect();
        assert_eq!(
            order,
            ["prestart", "createRuntime", "createContainer", "poststop"]
        );
    }
}

#[test]
fn create_hook_that_fails_leaves_nothing_and_poststop_runs() {
    for runtime in Runtime::both() {
        for name in ["prestart", "createRuntime", "createContainer"] {
            let dir = TempDir::new().expect("folder");
            let mut bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
            let poststop = witness("poststop", dir.path());
            let failing = hook("echo out of luck; exit 7");
            bundle.set("/hooks", json!({ name: [failing], "poststop": [poststop] }));
            let said = runtime.fails(&["create", "-b", bundle.path(), "c"]);
            if runtime.is_ours() {
                assert!(
                    said.contains(name) && said.contains("exit status 7"),
                    "{said}"
                );
                assert!(said.contains("out of luck"), "{said}");
            }
            assert!(runtime.fails(&["state", "c"]).contains("does not exist"));
            assert!(dir.path().join("poststop.state").exists(), "{name}");
            for dir in runtime.cgroup_dirs() {
                assert!(!dir.join("c").exists(), "{}", dir.display());
            }
        }
    }
}

#[test]
fn start_container_hook_that_fails_stops_the_container() {
    let runtime = Runtime::ours();
    let dir = TempDir::new().expect("folder");
    let mut bundle = Bundle::new(&runtime, "c", &["touch", "/data/ran"]);
    let poststop = witness("poststop", dir.path());
    let failing = hook("inside:echo not today; exit 7");
    bundle.set(
        "/hooks",
        json!({ "startContainer": [failing], "poststop": [poststop] }),
    );
    runtime.ok(&["create", "-b", bundle.path(), "c"]);
    let said = runtime.fails(&["start", "c"]);
    assert!(
        said.contains("startContainer hook #0") && said.contains("not today"),
        "{said}"
    );
    runtime.wait_for("c", "stopped");
    assert!(!bundle.root().join("data/ran").exists());
    runtime.ok(&["delete", "c"]);
    assert!(dir.path().join("poststop.state").exists());
    let said = runtime.fails(&["run", "-b", bundle.path(), "c"]);
    assert!(said.contains("startContainer hook #0"), "{said}");
    assert!(runtime.fails(&["state", "c"]).contains("does not exist"));
    assert!(!bundle.root().join("data/ran").exists());
}

#[test]
fn poststart_and_poststop_hooks_that_fail_are_warnings() {
    let runtime = Runtime::ours();
    let mut bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
    bundle.set(
        "/hooks",
        json!({ "poststart": [hook("exit 1")], "poststop": [hook("exit 2")] }),
    );
    runtime.ok(&["create", "-b", bundle.path(), "c"]);
    let output = runtime.run(&["start", "c"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("level=warning") && said.contains("poststart hook #0"),
        "{said}"
    );
    assert_eq!(runtime.status("c"), "running");
    let output = runtime.run(&["delete", "--force", "c"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && said.contains("poststop hook #0"),
        "{said}"
    );
}

#[test]
fn hook_beyond_its_timeout_is_killed_with_its_children() {
    let runtime = Runtime::ours();
    for name in ["createRuntime", "createContainer", "startContainer"] {
        let dir = TempDir::new().expect("folder");
        let mut bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
        let (mark, late) = match name {
            "startContainer" => ("inside:", PathBuf::from("/tmp/late")),
            _ => ("", dir.path().join("late")),
        };
        let mut slow = hook(&format!(
            "{mark}(sleep 2; touch {}) & sleep 60",
            late.display()
        ));
        slow["timeout"] = json!(1);
        bundle.set("/hooks", json!({ name: [slow] }));
        let begun = Instant::now();
        if name == "startContainer" {
            runtime.ok(&["create", "-b", bundle.path(), "c"]);
            runtime.fails(&["start", "c"]);
            runtime.ok(&["delete", "--force", "c"]);
        } else {
            runtime.fails(&["create", "-b", bundle.path(), "c"]);
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{name}");
        std::thread::sleep(Duration::from_millis(1500));
        assert!(
            !late.exists() && !bundle.root().join("tmp/late").exists(),
            "{name}"
        );
    }
}

#[test]
fn run_has_all_hooks_and_start_container_comes_before_the_program() {
    let runtime = Runtime::ours();
    let dir = TempDir::new().expect("folder");
    let mut bundle = Bundle::new(&runtime, "c", &["sh", "-c", "echo program >> /tmp/order"]);
    bundle.set("/hooks", all(dir.path()));
    runtime.ok(&["run", "-b", bundle.path(), "c"]);
    assert_eq!(
        read(&bundle.root().join("tmp/order")),
        "startContainer\nprogram\n"
    );
    assert_eq!(
        read(&dir.path().join("order")),
        "prestart\ncreateRuntime\ncreateContainer\npoststart\npoststop\n"
    );
}

#[test]
fn hooks_that_cannot_be_are_refused_by_field() {
    let runtime = Runtime::ours();
    for (hooks, wanted) in [
        (
            json!({ "poststop": [{ "path": "bin/true" }] }),
            "hooks.poststop[0].path",
        ),
        (
            json!({ "prestart": [{ "path": "/bin/true", "timeout": 0 }] }),
            "hooks.prestart[0].timeout",
        ),
        (
            json!({ "createRuntime": [{ "path": "/bin/true", "env": ["X"] }] }),
            "hooks.createRuntime[0].env[0]",
        ),
    ] {
        let mut bundle = Bundle::new(&runtime, "c", &["true"]);
        bundle.set("/hooks", hooks);
        let said = runtime.fails(&["create", "-b", bundle.path(), "c"]);
        assert!(said.contains(wanted), "{said}");
    }
}
