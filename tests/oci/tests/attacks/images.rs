//! Images that bring links, files and devices where the runtime mounts, makes or writes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use hull_testkit::paths;
use hull_testkit::terminal::Terminal;
use serde_json::json;

use crate::kit::{Canary, no_crash, ours};

/// CVE-2019-19921, 2023-27561, 2023-28642, 2026-41579: the image has links where folders are due.
#[test]
fn links_of_the_image_at_proc_sys_and_dev() {
    for name in ["proc", "sys", "dev"] {
        for absolute in [true, false] {
            let runtime = ours();
            let canary = Canary::new(&runtime);
            let bundle = runtime.bundle("c", &[], "true");
            let at = bundle.root().join(name);
            fs::remove_dir(&at).expect("folder");
            let up = Path::new("../../../../../../../..")
                .join(canary.dir.strip_prefix("/").expect("absolute"));
            symlink(if absolute { &canary.dir } else { &up }, &at).expect("link");
            let said = runtime.run(&["run", "-b", bundle.path(), "c"]);
            no_crash(&said);
            canary.is_alive();
            runtime.nothing_left();
        }
    }
}

/// CVE-2019-16884: a mount over /proc or below it hides what protects.
#[test]
fn mounts_over_proc_are_refused() {
    let runtime = ours();
    let canary = Canary::new(&runtime);
    for target in [
        "/proc",
        "/proc/self/attr",
        "/proc/sys",
        "/data/../proc/sys",
        "/link/sys",
    ] {
        let mount = json!({"destination": target, "type": "bind", "source": canary.dir, "options": ["bind"]});
        let bundle = runtime.bundle(
            "c",
            &[("/mounts/-", mount)],
            "cat /proc/self/attr/file /proc/file /proc/sys/file",
        );
        symlink("/proc", bundle.root().join("link")).expect("link");
        let said = runtime.run(&["run", "-b", bundle.path(), "c"]);
        no_crash(&said);
        assert!(
            said.code > 0 && !said.out.contains("alive"),
            "{target}: {}",
            said.out
        );
        runtime.nothing_left();
    }
}

/// CVE-2025-31133, 2025-52565: the image brings its own null and console.
#[test]
fn null_and_console_of_the_image() {
    for tty in [false, true] {
        let runtime = ours();
        let canary = Canary::new(&runtime);
        let mut bundle = runtime.bundle("c", &[], "echo harm > /dev/console; head -c 1 /proc/kcore | wc -c; echo harm > /proc/kcore; true");
        bundle.set("/mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}]));
        bundle.set("/process/terminal", json!(tty));
        bundle.write();
        for name in ["null", "console", "ptmx"] {
            symlink(
                canary.dir.join("file"),
                bundle.root().join("dev").join(name),
            )
            .expect("link");
        }
        if tty {
            let root = runtime.dir().join("root");
            let terminal = Terminal::spawn(
                paths::dist().join("hull-oci"),
                [
                    "--root",
                    root.to_str().expect("text"),
                    "run",
                    "-b",
                    bundle.path(),
                    "c",
                ],
                &[],
            );
            let _ = terminal.finish();
        } else {
            no_crash(&runtime.run(&["run", "-b", bundle.path(), "c"]));
        }
        canary.is_alive();
        runtime.clear();
        runtime.nothing_left();
    }
}

/// CVE-2025-52881: an image's own files where kernel parameters and labels are written.
#[test]
fn files_below_proc_get_no_writes() {
    let runtime = ours();
    let canary = Canary::new(&runtime);
    let bundle = runtime.bundle(
        "c",
        &[
            (
                "/mounts",
                json!([{"destination": "/dev", "type": "tmpfs", "source": "t"}]),
            ),
            ("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})),
            ("/process/oomScoreAdj", json!(400)),
            ("/linux/maskedPaths", json!([])),
            ("/linux/readonlyPaths", json!([])),
        ],
        "true",
    );
    for (dir, name) in [
        ("proc/sys/net/ipv4", "ip_forward"),
        ("proc/self", "oom_score_adj"),
    ] {
        fs::create_dir_all(bundle.root().join(dir)).expect("folder");
        symlink(canary.dir.join("file"), bundle.root().join(dir).join(name)).expect("link");
    }
    no_crash(&runtime.run(&["run", "-b", bundle.path(), "c"]));
    canary.is_alive();
}
