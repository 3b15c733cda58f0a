//! checkpoint and restore, against a stand-in that speaks CRIU's protocol: this very program, which
//! serves when it is called as CRIU is (`swrk FD`: for the test harness the name of a test).

#[path = "support/fake_criu.rs"]
mod fake_criu;
mod support;
#[allow(dead_code)]
#[path = "../src/criu/wire.rs"]
mod wire;

use std::fs;

use serde_json::json;
use support::{Bundle, Runtime};

fn fake() -> String {
    let path = std::env::current_exe().expect("path");
    path.to_str().expect("text").to_owned()
}

#[test]
fn swrk_is_criu() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("swrk") {
        fake_criu::serve(&arguments.next().expect("a descriptor"));
    }
}

#[test]
fn checkpoint_then_restore_is_the_same_program_with_limits_and_hooks() {
    let runtime = Runtime::ours();
    let criu = fake();
    let mut bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
    let image = bundle.dir.path().join("image");
    let image_path = image.to_str().expect("text");
    let seen = bundle.dir.path().join("seen");
    bundle.set(
        "/hooks",
        json!({ "createRuntime": [{
            "path": "/bin/sh", "args": ["sh", "-c", format!("cat >> {}", seen.display())],
        }] }),
    );
    bundle.set(
        "/mounts/-",
        json!({ "destination": "/data", "source": "/tmp", "options": ["bind"] }),
    );
    bundle.set("/linux/resources/pids", json!({ "limit": 33 }));
    runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
    let first = runtime.state("c")["pid"].clone();
    runtime.ok(&[
        "--criu",
        &criu,
        "checkpoint",
        "--image-path",
        image_path,
        "--leave-running",
        "--tcp-established",
        "--page-server",
        "127.0.0.1:99",
        "c",
    ]);
    assert_eq!(runtime.status("c"), "running");
    let request = fs::read_to_string(image.join("request.json")).expect("request");
    for wanted in [
        format!("\"2={first}\""),
        "\"3=1\"".to_owned(),
        "\"5=1\"".to_owned(),
        "127.0.0.1".to_owned(),
        "23=../data../data".to_owned(),
    ] {
        assert!(request.contains(&wanted), "{wanted}: {request}");
    }
    runtime.ok(&[
        "--criu",
        &criu,
        "checkpoint",
        "--image-path",
        image_path,
        "c",
    ]);
    assert!(runtime.fails(&["state", "c"]).contains("does not exist"));
    assert!(image.join("descriptors.json").exists());

    let pid_file = bundle.dir.path().join("pid");
    runtime.ok(&[
        "--criu",
        &criu,
        "restore",
        "-d",
        "-b",
        bundle.path(),
        "--image-path",
        image_path,
        "--pid-file",
        pid_file.to_str().expect("text"),
        "c",
    ]);
    assert_eq!(runtime.status("c"), "running");
    let pid = runtime.state("c")["pid"].to_string();
    assert_eq!(fs::read_to_string(&pid_file).expect("pid file"), pid);
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("command line");
    assert_eq!(line, "sleep\x001000\x00");
    assert_eq!(
        runtime.ok(&["ps", "--format", "json", "c"]).trim(),
        format!("[{pid}]")
    );
    let states = fs::read_to_string(&seen).expect("hook");
    assert!(states.contains(&format!("\"pid\":{pid}")), "{states}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    // Of this runtime: another test may be restoring right now.
    let command = runtime.command(&[]);
    let root = command.get_args().nth(1).and_then(|root| root.to_str());
    let own = format!("{}/c/criu-root", root.expect("text"));
    assert!(!mounts.contains(&own), "{mounts}");
    runtime.ok(&["kill", "c", "KILL"]);
    runtime.wait_for("c", "stopped");
    runtime.ok(&["delete", "c"]);
}

#[test]
fn failures_of_criu_are_told_with_its_log_and_leave_things_as_they_were() {
    let runtime = Runtime::ours();
    let criu = fake();
    let bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
    let image = bundle.dir.path().join("image");
    let image = image.to_str().expect("text");
    runtime.ok(&["create", "-b", bundle.path(), "c"]);
    let said = runtime.fails(&["--criu", &criu, "checkpoint", "--image-path", image, "c"]);
    assert!(
        said.contains("cannot be checkpointed in created state"),
        "{said}"
    );
    runtime.ok(&["start", "c"]);
    let said = runtime.fails(&[
        "--criu",
        &criu,
        "checkpoint",
        "--image-path",
        image,
        "--file-locks",
        "c",
    ]);
    assert!(
        said.contains("no locks here") && said.contains("dump.log"),
        "{said}"
    );
    assert_eq!(runtime.status("c"), "running");
    let said = runtime.fails(&[
        "--criu",
        "/nonexistent",
        "checkpoint",
        "--image-path",
        image,
        "c",
    ]);
    assert!(said.contains("install criu"), "{said}");
    let said = runtime.fails(&[
        "--criu",
        &criu,
        "restore",
        "-d",
        "-b",
        bundle.path(),
        "--image-path",
        image,
        "d",
    ]);
    assert!(!said.is_empty());
    assert!(runtime.fails(&["state", "d"]).contains("does not exist"));
    for dir in runtime.cgroup_dirs() {
        assert!(!dir.join("d").exists());
    }
}
