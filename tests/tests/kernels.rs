//! `hull kernel`: what may be installed, what is refused, what is the default.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hull_testkit::kernel::{elf, tiny};
use hull_testkit::{Daemon, Run};
use serde_json::Value;

fn file(daemon: &Daemon, name: &str, bytes: &[u8]) -> PathBuf {
    let path = daemon.scratch().join(name);
    fs::write(&path, bytes).expect("write a file");
    path
}

fn install(daemon: &Daemon, args: &[&str], path: &Path) -> hull_testkit::Output {
    let mut all = vec!["kernel", "install"];
    all.extend(args);
    let path = path.to_str().expect("a plain path");
    all.push(path);
    daemon.hull(&all)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != ".lock")
        .collect();
    names.sort();
    names
}

#[test]
fn kernel_from_file_folder_archive_and_stdin_is_listed_chosen_and_removed() {
    let daemon = Daemon::builder().bare().start();
    if daemon.is_docker() {
        return;
    }
    assert_eq!(daemon.ok(["kernel", "ls", "-q"]), "");

    let plain = file(&daemon, "vmlinux-plain", &tiny("6.1.1-hull"));
    assert_eq!(install(&daemon, &[], &plain).ok(), "6.1.1-hull");

    let folder = daemon.scratch().join("folder");
    fs::create_dir(&folder).expect("make a folder");
    let kernel = zstd::encode_all(&tiny("6.1.2-hull")[..], 3).expect("compress");
    fs::write(folder.join("vmlinux.zst"), kernel).expect("write");
    fs::write(folder.join("config"), "CONFIG_PVH=y\n").expect("write");
    fs::write(
        folder.join("manifest.json"),
        r#"{"source":"linux-source-6.1 6.1.2-1"}"#,
    )
    .expect("write");
    fs::write(folder.join("other"), "not ours").expect("write");
    assert_eq!(install(&daemon, &[], &folder).ok(), "6.1.2-hull");

    // A plain kernel in a folder, with a hole as linkers leave them.
    let holed = daemon.scratch().join("holed");
    fs::create_dir(&holed).expect("make a folder");
    fs::write(holed.join("vmlinux"), tiny("6.1.0-hull")).expect("write");
    File::options()
        .write(true)
        .open(holed.join("vmlinux"))
        .and_then(|file| file.write_all_at(b"end", 1 << 20))
        .expect("write");
    let args = ["--name", "holed"];
    assert_eq!(install(&daemon, &args, &holed).ok(), "holed");
    daemon.ok(["kernel", "rm", "holed"]);

    let archive = daemon.scratch().join("kernel.tar");
    Run::new("tar")
        .args(["--create", "--file"])
        .arg(&archive)
        .arg("--directory")
        .arg(&folder)
        .arg(".")
        .ok();
    assert_eq!(install(&daemon, &["--name", "mine"], &archive).ok(), "mine");
    let piped = daemon
        .cli(["kernel", "install", "-"])
        .input(tiny("6.1.3-hull"))
        .ok();
    assert_eq!(piped, "6.1.3-hull");

    let list = daemon.ok([
        "kernel",
        "ls",
        "--format",
        "{{.Name}} {{.Version}} {{.Default}}",
    ]);
    assert_eq!(
        list.lines().map(str::trim_end).collect::<Vec<_>>(),
        [
            "6.1.1-hull 6.1.1-hull *",
            "6.1.2-hull 6.1.2-hull",
            "6.1.3-hull 6.1.3-hull",
            "mine 6.1.2-hull"
        ]
    );
    let table = daemon.ok(["kernel", "ls"]);
    let head = table.lines().next().expect("a header");
    assert!(
        head.starts_with("KERNEL") && head.contains("DEFAULT"),
        "{table}"
    );
    let json = daemon.ok(["kernel", "ls", "--no-trunc", "--format", "json"]);
    let mine: Value = json
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a JSON line"))
        .find(|one| one["Name"] == "mine")
        .expect("mine");
    assert_eq!(mine["Source"], "linux-source-6.1 6.1.2-1");
    assert_eq!(mine["ConfigDigest"].as_str().map(str::len), Some(71));
    let path = mine["Path"].as_str().expect("a path");
    assert_eq!(fs::read(path).expect("the kernel"), tiny("6.1.2-hull"));

    assert_eq!(daemon.ok(["kernel", "use", "mine"]), "mine");
    let refused = daemon.hull(["kernel", "rm", "6.1.1-hull", "mine"]);
    assert_eq!((refused.code, refused.stdout.trim()), (1, "6.1.1-hull"));
    assert!(refused.stderr.contains("default"), "{}", refused.stderr);
    assert_eq!(
        daemon.api("GET", "/hull/kernels/mine", None).json()["Default"],
        true
    );
    assert_eq!(daemon.api("GET", "/hull/kernels/none", None).status, 404);
    daemon.ok([
        "kernel",
        "rm",
        "--force",
        "mine",
        "6.1.2-hull",
        "6.1.3-hull",
    ]);
    assert_eq!(daemon.ok(["kernel", "ls", "-q"]), "");
    assert!(names(&daemon.data_dir().join("kernels")).is_empty());
}

#[test]
fn kernel_that_cannot_be_booted_is_refused_and_leaves_nothing() {
    let daemon = Daemon::builder().bare().start();
    if daemon.is_docker() {
        return;
    }
    let good = tiny("6.1.0");
    let cut = &good[..good.len() - 1];
    let zeros = format!("sha256:{}", "0".repeat(64));
    for (name, bytes, args, why) in [
        ("text", b"#!/bin/sh\necho\n".as_slice(), &[][..], "archive"),
        ("pe", b"MZ compressed kernel", &[], "archive"),
        ("no-note", &elf("6.1.0", None), &[], "no PVH note"),
        ("astray", &elf("6.1.0", Some(8)), &[], "leads out"),
        ("cut", cut, &[], "cut off"),
        ("digest", &good, &["--digest", &zeros], &zeros),
        ("name", &good, &["--name", "../x"], "invalid kernel name"),
    ] {
        let refused = install(&daemon, args, &file(&daemon, name, bytes));
        assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{name}");
        assert!(refused.stderr.contains(why), "{name}: {}", refused.stderr);
    }
    let empty = daemon.scratch().join("empty-folder");
    fs::create_dir(&empty).expect("make a folder");
    assert_eq!(install(&daemon, &[], &empty).code, 1);
    assert_eq!(daemon.hull(["kernel", "use", "6.1.0"]).code, 1);
    assert!(names(&daemon.data_dir().join("kernels")).is_empty());

    let path = file(&daemon, "good", &good);
    install(&daemon, &[], &path).ok();
    let mut other = good.clone();
    other.push(0);
    let other = file(&daemon, "other", &other);
    let refused = install(&daemon, &[], &other);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    install(&daemon, &["--force"], &other).ok();
    assert_eq!(daemon.ok(["kernel", "ls", "-q"]), "6.1.0");
}

#[test]
fn kernel_on_a_full_disk_leaves_nothing_half_made() {
    let daemon = Daemon::builder().bare().small(48).start();
    if daemon.is_docker() {
        return;
    }
    let kernels = daemon.data_seen().join("kernels");
    let mut large = tiny("6.1.0");
    large.resize(64 << 20, 1);
    let refused = install(&daemon, &[], &file(&daemon, "large", &large));
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("No space left"),
        "{}",
        refused.stderr
    );
    assert!(names(&kernels).is_empty());
    let path = file(&daemon, "small", &tiny("6.1.0"));
    install(&daemon, &[], &path).ok();
    assert_eq!(names(&kernels), [".default", "6.1.0"]);
}

#[test]
fn kernel_whose_installation_ends_with_the_daemon_is_never_seen() {
    let mut daemon = Daemon::builder().bare().start();
    if daemon.is_docker() {
        return;
    }
    let kernels = daemon.data_dir().join("kernels");
    let path = file(&daemon, "kernel", &tiny("6.1.0"));
    install(&daemon, &[], &path).ok();
    fs::create_dir(kernels.join(".new-x")).expect("make a leftover");
    fs::write(kernels.join(".new-x/vmlinux"), "half").expect("write a leftover");
    daemon.kill();
    daemon.start();
    assert_eq!(daemon.ok(["kernel", "ls", "-q"]), "6.1.0");
    install(&daemon, &["--name", "second"], &path).ok();
    assert_eq!(names(&kernels), [".default", "6.1.0", "second"]);
}
