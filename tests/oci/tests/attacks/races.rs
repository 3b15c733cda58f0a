//! Races: whatever leads to a target is swapped with a link outside while a container is made.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use hull_oci_tests::{Bundle, Runtime, Said, sockets};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::{Value, json};

use crate::kit::{Canary, Course, ROUNDS, Tally, ours};

/// CVE-2021-30465, 2024-45310, 2026-41579: a folder of the image is swapped with a link outside.
#[track_caller]
fn race_at(name: &str, changes: &[(&str, Value)], script: &str) -> Tally {
    let runtime = ours();
    let canary = Canary::new(&runtime);
    let bundle = runtime.bundle("c", changes, script);
    let real = bundle.root().join(name);
    fs::create_dir_all(&real).expect("folder");
    let link = link_to(&canary.dir, &bundle);
    course(&runtime, &real, &link, &canary).run(|| run(&runtime, &bundle))
}

fn course<'a>(
    runtime: &'a Runtime,
    one: &'a Path,
    other: &'a Path,
    canary: &'a Canary,
) -> Course<'a> {
    Course {
        runtime,
        one,
        other,
        canary,
        running: false,
        rounds: ROUNDS,
    }
}

/// A link in the image to what lies outside, under the name that is swapped.
fn link_to(target: &Path, bundle: &Bundle) -> PathBuf {
    let link = bundle.root().join("swap");
    symlink(target, &link).expect("link");
    link
}

fn run(runtime: &Runtime, bundle: &Bundle) -> Said {
    runtime.run(&["run", "-b", bundle.path(), "c"])
}

/// Both states were met by the runtime itself: it refused the link, and took the folder.
#[track_caller]
fn both(tally: Tally) {
    assert!(
        tally.good > 0 && tally.good < tally.rounds,
        "the runtime met one of both alone: {tally:?}"
    );
}

#[test]
fn of_a_mount_target() {
    let mount = json!({"destination": "/data/a/b", "type": "tmpfs", "source": "t"});
    race_at(
        "data/a",
        &[("/mounts/-", mount)],
        "cat /data/a/file 2>/dev/null; true",
    );
}

/// The file at the end is made by the runtime: it must not be made outside.
#[test]
fn of_the_folder_of_a_file_that_is_mounted() {
    let mount = json!({"destination": "/data/a/b/file", "type": "bind", "source": "/etc/hostname", "options": ["bind", "ro"]});
    race_at(
        "data/a",
        &[("/mounts/-", mount)],
        "cat /data/a/file 2>/dev/null; true",
    );
}

/// What is below the target is copied into the new file system: nothing of outside may be.
#[test]
fn of_tmpcopyup() {
    let mount =
        json!({"destination": "/data/a", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"]});
    race_at(
        "data/a",
        &[("/mounts/-", mount)],
        "cat /data/a/file 2>/dev/null; true",
    );
}

#[test]
fn of_dev() {
    let devices = json!([{"path": "/dev/own", "type": "c", "major": 1, "minor": 3}]);
    // No tmpfs: nodes are made in the image's own folder.
    let mounts = json!([{"destination": "/proc", "type": "proc", "source": "proc"}]);
    race_at(
        "dev",
        &[("/mounts", mounts), ("/linux/devices", devices)],
        "cat /dev/file 2>/dev/null; true",
    );
}

#[test]
fn of_dev_below_a_tmpfs() {
    both(race_at("dev", &[], "cat /dev/file 2>/dev/null; true"));
}

#[test]
fn of_proc() {
    both(race_at(
        "proc",
        &[("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))],
        "cat /proc/file 2>/dev/null; true",
    ));
}

#[test]
fn of_sys() {
    both(race_at("sys", &[], "cat /sys/file 2>/dev/null; true"));
}

#[test]
fn of_masked_and_readonly_paths() {
    race_at(
        "data/a",
        &[
            ("/linux/maskedPaths", json!(["/data/a"])),
            ("/linux/readonlyPaths", json!(["/data/a"])),
        ],
        "cat /data/a/file 2>/dev/null; true",
    );
}

#[test]
fn of_the_working_directory() {
    race_at(
        "data/a",
        &[("/process/cwd", json!("/data/a/made/deep"))],
        "cat ../../file 2>/dev/null; true",
    );
}

/// Two containers that share a volume: one of them is the thread that swaps.
#[test]
fn in_a_shared_volume() {
    let runtime = ours();
    let canary = Canary::new(&runtime);
    let volume = runtime.dir().join("volume");
    fs::create_dir_all(volume.join("a")).expect("folder");
    symlink(&canary.dir, volume.join("swap")).expect("link");
    let bundle = runtime.bundle(
        "c",
        &[
            ("/mounts/-", json!({"destination": "/vol", "type": "bind", "source": volume, "options": ["rbind"]})),
            ("/mounts/-", json!({"destination": "/vol/a/b", "type": "tmpfs", "source": "t"})),
            ("/linux/maskedPaths", json!(["/vol/a/c"])),
        ],
        "cat /vol/a/file 2>/dev/null; true",
    );
    let (real, link) = (volume.join("a"), volume.join("swap"));
    course(&runtime, &real, &link, &canary).run(|| run(&runtime, &bundle));
}

/// CVE-2025-31133: what files are hidden behind is the host's own null, whatever the image's is.
#[test]
fn of_dev_null() {
    let runtime = ours();
    let canary = Canary::new(&runtime);
    let bundle = runtime.bundle(
        "c",
        &[
            (
                "/mounts",
                json!([{"destination": "/proc", "type": "proc", "source": "proc"}]),
            ),
            (
                "/linux/maskedPaths",
                json!(["/proc/kcore", "/proc/version"]),
            ),
        ],
        "cat /proc/version; cat /proc/kcore | head -c 1; echo harm >/proc/version; true",
    );
    let dev = bundle.root().join("dev");
    // The image's own is the right device, or else it would be refused before.
    let (kind, mode) = (FileType::CharacterDevice, Mode::from_raw_mode(0o666));
    mknodat(CWD, dev.join("null"), kind, mode, makedev(1, 3)).expect("node");
    symlink(canary.dir.join("file"), dev.join("swap")).expect("link");
    let (real, link) = (dev.join("null"), dev.join("swap"));
    let tally = course(&runtime, &real, &link, &canary).run(|| {
        let said = run(&runtime, &bundle);
        assert_eq!(said.out, "", "what is hidden was read");
        said
    });
    both(tally);
}

/// CVE-2025-52565: the terminal that becomes /dev/console, and the file below it.
#[test]
fn of_the_console() {
    let runtime = ours();
    let canary = Canary::new(&runtime);
    let bundle = runtime.bundle(
        "c",
        &[
            ("/process/terminal", json!(true)),
            ("/mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666", "mode=0620"]}])),
        ],
        "echo harm >/dev/console; cat /dev/console/file",
    );
    let dev = bundle.root().join("dev");
    fs::write(dev.join("console"), "").expect("file");
    symlink(canary.dir.join("file"), dev.join("swap")).expect("link");
    let (real, link) = (dev.join("console"), dev.join("swap"));
    let socket = runtime.dir().join("console.sock");
    course(&runtime, &real, &link, &canary).run(|| {
        let _ = fs::remove_file(&socket);
        let heard = sockets::listen(&socket, false);
        let path = socket.to_str().expect("text");
        let said = runtime.run(&["create", "-b", bundle.path(), "--console-socket", path, "c"]);
        if said.code == 0 {
            drop(heard.join());
            let _ = runtime.run(&["start", "c"]);
        } else {
            // Whoever waits at the socket need not wait longer.
            drop(std::os::unix::net::UnixStream::connect(&socket));
            drop(heard.join());
        }
        let _ = runtime.run(&["delete", "--force", "c"]);
        said
    });
}

/// The folder of devices' terminals is swapped.
#[test]
fn of_the_folder_of_terminals() {
    let mounts = json!([{"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666", "mode=0620"]}]);
    race_at(
        "dev/pts",
        &[("/mounts", mounts)],
        "cat /dev/pts/file 2>/dev/null; true",
    );
}

/// CVE-2024-21626: the folder of an exec is swapped with a link to the descriptors of whoever joins.
#[test]
fn of_the_folder_of_an_exec() {
    for target in [
        "canary",
        "/proc/self/fd/3",
        "/proc/self/fd/7",
        "/proc/1/root",
    ] {
        let runtime = ours();
        let canary = Canary::new(&runtime);
        let bundle = runtime.sleeping(&[]);
        let real = bundle.root().join("data/a");
        fs::create_dir(&real).expect("folder");
        let link = bundle.root().join("swap");
        let mut args = vec!["exec", "--cwd", "/data/a", "c", "sh", "-c"];
        args.push("cat file ../file 2>/dev/null; ls -d etc/shadow ../etc/shadow 2>/dev/null; true");
        let outside = match target {
            "canary" => canary.dir.as_path(),
            other => Path::new(other),
        };
        symlink(outside, &link).expect("link");
        let race = Course {
            running: true,
            rounds: ROUNDS / 2,
            ..course(&runtime, &real, &link, &canary)
        };
        race.run(|| {
            let said = runtime.run(&args);
            assert!(!said.out.contains("shadow"), "{target}: {}", said.out);
            said
        });
    }
}
