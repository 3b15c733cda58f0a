//! Hooks: their places, what they are given, what becomes of those that fail or hang.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hull_oci_tests::{Bundle, Runtime};
use serde_json::{Value, json};

use super::Case;

const ALL: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// A hook that reads the state and runs a script; one of `startContainer` finds its shell in the
/// container.
fn hook(script: &str) -> Value {
    let script = format!("cat >/dev/null; {script}");
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]})
}

fn slow(script: &str) -> Value {
    let mut value = hook(script);
    value["timeout"] = json!(1);
    value
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path.as_ref())
        .unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// The folder of the container that hooks outside see under the same name.
fn bundle(runtime: &Runtime, hooks: Value, script: &str) -> (Bundle, PathBuf) {
    let dir = runtime.dir().join("seen");
    fs::create_dir(&dir).expect("folder");
    let mount =
        json!({"destination": "/seen", "type": "bind", "source": dir, "options": ["rbind"]});
    let bundle = runtime.bundle("c", &[("/hooks", hooks), ("/mounts/-", mount)], script);
    (bundle, dir)
}

pub(crate) fn cases() -> Vec<Case> {
    let mut all = vec![
        Case::new("hooks.startContainer", |runtime| {
            let script = "cat >/seen/state; readlink /proc/self/ns/pid >/seen/space";
            let state =
                json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]});
            let (bundle, seen) = bundle(
                runtime,
                json!({"startContainer": [state]}),
                "readlink /proc/self/ns/pid >/seen/own; test -e /seen/state && echo ran before",
            );
            runtime.ok(&["create", "-b", bundle.path(), "c"]);
            assert!(!seen.join("state").exists(), "it ran at create");
            runtime.ok(&["start", "c"]);
            runtime.wait_for("c", "stopped");
            let state: Value = serde_json::from_str(&read(seen.join("state"))).expect("JSON");
            assert_eq!(
                (state["id"].as_str(), state["bundle"].as_str()),
                (Some("c"), Some(bundle.path()))
            );
            assert_eq!(read(seen.join("space")), read(seen.join("own")));
        }),
        Case::new("hooks.order", |runtime| {
            let file = runtime.dir().join("order");
            let outside = |name: &str| hook(&format!("echo {name} >>{}", file.display()));
            let mut hooks = json!({});
            for name in ALL {
                hooks[name] = match name {
                    "startContainer" => json!([hook("echo startContainer >>/seen/order")]),
                    _ => json!([outside(name), outside("again")]),
                };
            }
            let (bundle, seen) = bundle(runtime, hooks, "echo program >>/seen/order; sleep 0.3");
            runtime.ok(&["create", "-b", bundle.path(), "c"]);
            let until_create = "prestart again createRuntime again createContainer again";
            let words = |path: &Path| read(path).split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(words(&file), until_create);
            runtime.ok(&["start", "c"]);
            runtime.wait_for("c", "stopped");
            runtime.ok(&["delete", "c"]);
            assert_eq!(words(&seen.join("order")), "startContainer program");
            let whole = format!("{until_create} poststart again poststop again");
            assert_eq!(words(&file), whole);
        }),
        Case::new("hooks.namespaces", |runtime| {
            let dir = runtime.dir().display().to_string();
            let place = |name: &str| hook(&format!("readlink /proc/self/ns/mnt >{dir}/{name}"));
            let hooks = json!({"createRuntime": [place("runtime")], "createContainer": [place("container")],
                "poststart": [place("started")], "poststop": [place("stopped")]});
            let (bundle, _) = bundle(runtime, hooks, "sleep 1000");
            runtime.ok(&["create", "-b", bundle.path(), "c"]);
            let inside = fs::read_link(format!("/proc/{}/ns/mnt", runtime.pid("c"))).expect("link");
            runtime.ok(&["start", "c"]);
            runtime.ok(&["delete", "--force", "c"]);
            let seen = |name: &str| read(runtime.dir().join(name)).trim().to_owned();
            assert_eq!(seen("container"), inside.to_string_lossy());
            assert_ne!(seen("runtime"), seen("container"));
            assert_ne!(seen("started"), seen("container"));
            assert_ne!(seen("stopped"), seen("container"));
        }),
        Case::new("hooks.args-env", |runtime| {
            let file = runtime.dir().join("given");
            let script = format!("echo \"$0 $1\" >{0}; env >>{0}", file.display());
            let entry = json!({"path": "/bin/sh", "args": ["sh", "-c", script, "zero", "one"], "env": ["A=b c", "PATH=/usr/bin:/bin"]});
            let (bundle, _) = bundle(runtime, json!({"createRuntime": [entry]}), "true");
            runtime.ok(&["run", "-b", bundle.path(), "c"]);
            let text = read(&file);
            assert!(
                text.starts_with("zero one\n") && text.contains("A=b c\n"),
                "{text}"
            );
            assert!(!text.contains("HOME="), "the caller's environment: {text}");
        }),
        Case::new("hooks.failed.startContainer", |runtime| {
            let dir = runtime.dir().join("after");
            let after = hook(&format!("touch {}", dir.display()));
            let hooks = json!({"startContainer": [hook("exit 7")], "poststop": [after]});
            let (bundle, seen) = bundle(runtime, hooks, "touch /seen/ran");
            runtime.ok(&["create", "-b", bundle.path(), "c"]);
            // Whoever starts it may be told, or see that it has stopped.
            let _ = runtime.run(&["start", "c"]);
            runtime.wait_for("c", "stopped");
            assert!(!seen.join("ran").exists(), "the program ran");
            runtime.ok(&["delete", "--force", "c"]);
            assert!(dir.exists(), "poststop did not run");
        }),
        Case::new("hooks.failed.startContainer-is-told", |runtime| {
            let hooks = json!({"startContainer": [hook("exit 7")]});
            let (bundle, _) = bundle(runtime, hooks, "true");
            let said = runtime.run(&["run", "-b", bundle.path(), "c"]);
            assert!(said.code > 0, "ended with {}", said.code);
            let text = said.err.to_lowercase();
            assert!(text.contains("hook"), "{text}");
            runtime.nothing_left();
        }),
        Case::new("hooks.failed.poststart", |runtime| {
            let hooks = json!({"poststart": [hook("exit 1")]});
            let (bundle, _) = bundle(runtime, hooks, "sleep 1000");
            runtime.ok(&["create", "-b", bundle.path(), "c"]);
            runtime.ok(&["start", "c"]);
            assert_eq!(runtime.state("c")["status"], "running");
        }),
        Case::new("hooks.failed.poststop", |runtime| {
            let dir = runtime.dir().join("second");
            let hooks =
                json!({"poststop": [hook("exit 2"), hook(&format!("touch {}", dir.display()))]});
            let (bundle, _) = bundle(runtime, hooks, "true");
            runtime.ok(&["create", "-b", bundle.path(), "c"]);
            runtime.ok(&["delete", "--force", "c"]);
            runtime.nothing_left();
            // The others run all the same.
            assert!(dir.exists(), "the second did not run");
        }),
        Case::new("hooks.failed.create-runs-poststop", |runtime| {
            let file = runtime.dir().join("after");
            let hooks = json!({"createRuntime": [hook("exit 3")], "poststop": [hook(&format!("touch {}", file.display()))]});
            let (bundle, _) = bundle(runtime, hooks, "true");
            runtime.fails(&["create", "-b", bundle.path(), "c"]);
            runtime.nothing_left();
            assert!(file.exists(), "poststop did not run");
        }),
    ];
    for (kind, name) in [
        ("prestart", "hooks.timeout.prestart"),
        ("createRuntime", "hooks.timeout.createRuntime"),
        ("createContainer", "hooks.timeout.createContainer"),
        ("startContainer", "hooks.timeout.startContainer"),
    ] {
        all.push(Case::new(name, move |runtime| {
            let hooks = json!({kind: [slow("exec sleep 60")]});
            let (bundle, seen) = bundle(runtime, hooks, "touch /seen/ran");
            let begun = Instant::now();
            let said = runtime.run(&["run", "-b", bundle.path(), "c"]);
            assert!(said.code > 0, "ended with {}", said.code);
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "it was waited for"
            );
            assert!(!seen.join("ran").exists(), "the program ran");
            runtime.nothing_left();
        }));
    }
    for (kind, name) in [
        ("poststart", "hooks.timeout.poststart"),
        ("poststop", "hooks.timeout.poststop"),
    ] {
        all.push(Case::new(name, move |runtime| {
            let hooks = json!({kind: [slow("exec sleep 60")]});
            let (bundle, _) = bundle(runtime, hooks, "exec sleep 1000");
            let begun = Instant::now();
            runtime.ok(&["create", "-b", bundle.path(), "c"]);
            runtime.ok(&["start", "c"]);
            assert_eq!(runtime.state("c")["status"], "running");
            runtime.ok(&["delete", "--force", "c"]);
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "it was waited for"
            );
            runtime.nothing_left();
        }));
    }
    all
}
