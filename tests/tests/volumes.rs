//! Volumes: named, anonymous, bind mounts, what they copy up and how they are removed.

use std::fs;
use std::os::unix::fs::MetadataExt;

use hull_testkit::Daemon;
use hull_testkit::archive::{Image, Layer};

#[test]
fn volume_named_keeps_data_between_containers() {
    let daemon = Daemon::new();
    assert_eq!(daemon.ok(["volume", "create", "data"]), "data");
    daemon.ok([
        "run",
        "--rm",
        "-v",
        "data:/d",
        "busybox",
        "sh",
        "-c",
        "echo kept >/d/f",
    ]);
    assert_eq!(
        daemon.ok(["run", "--rm", "-v", "data:/e", "busybox", "cat", "/e/f"]),
        "kept"
    );
    // A volume not made before is made by its first use.
    daemon.ok(["run", "--rm", "-v", "fresh:/d", "busybox", "touch", "/d/x"]);
    let list = daemon.ok(["volume", "ls", "-q"]);
    assert!(
        list.lines().any(|name| name == "data") && list.lines().any(|name| name == "fresh"),
        "{list}"
    );
    let point = daemon.ok(["volume", "inspect", "--format", "{{.Mountpoint}}", "data"]);
    assert_eq!(
        fs::read_to_string(format!("{point}/f")).expect("read"),
        "kept\n"
    );
    assert_eq!(daemon.ok(["volume", "rm", "data", "fresh"]), "data\nfresh");
    daemon.hull(["volume", "inspect", "data"]).fails(1);
}

#[test]
fn volume_in_use_is_not_removed() {
    let daemon = Daemon::new();
    daemon.ok(["create", "--name", "user", "-v", "used:/d", "busybox"]);
    daemon
        .hull(["volume", "rm", "used"])
        .fails_saying(1, "in use");
    daemon.ok(["rm", "-v", "user"]);
    assert_eq!(
        daemon.ok(["volume", "ls", "-q"]),
        "used",
        "rm -v leaves named volumes"
    );
    daemon.ok(["volume", "rm", "used"]);
    daemon
        .hull(["volume", "rm", "nosuch"])
        .fails_saying(1, "no such volume");
    assert_eq!(daemon.ok(["volume", "rm", "-f", "nosuch"]), "nosuch");
}

#[test]
fn volume_anonymous_goes_with_rm_flag_and_rm_v() {
    let daemon = Daemon::new();
    daemon.ok(["run", "--rm", "-v", "/anonymous", "busybox", "true"]);
    assert_eq!(daemon.ok(["volume", "ls", "-q"]), "");
    daemon.ok([
        "run",
        "--name",
        "box",
        "-v",
        "/anonymous",
        "busybox",
        "touch",
        "/anonymous/x",
    ]);
    assert_eq!(daemon.ok(["volume", "ls", "-q"]).len(), 64);
    daemon.ok(["rm", "-v", "box"]);
    assert_eq!(daemon.ok(["volume", "ls", "-q"]), "");
}

#[test]
fn volume_empty_is_filled_from_the_image() {
    let daemon = Daemon::new();
    let path = daemon.scratch().join("filled.tar");
    Image::new("filled:1")
        .busybox()
        .layer(
            Layer::new()
                .dir("content/", 0o711)
                .file("content/a", 0o600, b"from image"),
        )
        .write(&path);
    daemon.load(&path);
    daemon.ok([
        "run",
        "--rm",
        "-v",
        "vol:/content",
        "filled:1",
        "sh",
        "-c",
        "cat /content/a; echo changed >/content/a",
    ]);
    let out = daemon.ok([
        "run",
        "--rm",
        "-v",
        "vol:/content",
        "filled:1",
        "sh",
        "-c",
        "cat /content/a; stat -c %a /content",
    ]);
    assert_eq!(out, "changed\n711");
    let out = daemon.ok([
        "run",
        "--rm",
        "--mount",
        "type=volume,source=vol2,target=/content,volume-nocopy",
        "filled:1",
        "ls",
        "/content",
    ]);
    assert_eq!(out, "");
    daemon.ok(["rmi", "filled:1"]);
}

#[test]
fn bind_mount_shares_files_both_ways_and_ro_refuses() {
    let daemon = Daemon::new();
    let dir = daemon.scratch().join("shared");
    fs::create_dir(&dir).expect("make");
    fs::write(dir.join("in"), "from host").expect("write");
    let at = dir.display();
    let out = daemon.ok([
        "run",
        "--rm",
        "-v",
        &format!("{at}:/m"),
        "busybox",
        "sh",
        "-c",
        "cat /m/in; echo back >/m/out",
    ]);
    assert_eq!(out, "from host");
    assert_eq!(fs::read_to_string(dir.join("out")).expect("read"), "back\n");
    assert_eq!(fs::metadata(dir.join("out")).expect("stat").uid(), 0);
    daemon
        .hull([
            "run",
            "--rm",
            "-v",
            &format!("{at}:/m:ro"),
            "busybox",
            "touch",
            "/m/x",
        ])
        .fails_saying(1, "read-only");
    daemon
        .hull([
            "run",
            "--rm",
            "--mount",
            &format!("type=bind,src={at},dst=/m,readonly"),
            "busybox",
            "touch",
            "/m/x",
        ])
        .fails_saying(1, "read-only");
    // A file as a mount, over a file that is there and one that is not.
    let file = dir.join("in");
    let out = daemon.ok([
        "run",
        "--rm",
        "-v",
        &format!("{}:/etc/passwd", file.display()),
        "-v",
        &format!("{}:/new/place", file.display()),
        "busybox",
        "cat",
        "/etc/passwd",
        "/new/place",
    ]);
    assert_eq!(out, "from hostfrom host");
}

#[test]
fn bind_mount_of_missing_source_is_made_for_v_and_refused_for_mount() {
    let daemon = Daemon::new();
    let missing = daemon.scratch().join("not/there");
    daemon.ok([
        "run",
        "--rm",
        "-v",
        &format!("{}:/m", missing.display()),
        "busybox",
        "true",
    ]);
    assert!(missing.is_dir());
    let missing = daemon.scratch().join("nor/this");
    daemon
        .hull([
            "run",
            "--rm",
            "--mount",
            &format!("type=bind,source={},target=/m", missing.display()),
            "busybox",
            "true",
        ])
        .fails_saying(125, "does not exist");
    assert!(!missing.exists());
}

#[test]
fn bind_mount_relative_or_malformed_is_refused() {
    let daemon = Daemon::new();
    for value in [
        "data:relative",
        "/a:/b:nonsense",
        "/a:/b:ro:x",
        ":/x",
        "data:/",
    ] {
        let out = daemon.hull(["run", "--rm", "-v", value, "busybox", "true"]);
        assert_eq!(out.code, 125, "-v {value}: {}", out.stderr);
    }
    for value in [
        "type=bind,target=/x",
        "type=nonsense,target=/x",
        "type=volume,source=x",
        "source",
    ] {
        let out = daemon.hull(["run", "--rm", "--mount", value, "busybox", "true"]);
        assert_eq!(out.code, 125, "--mount {value}: {}", out.stderr);
    }
    daemon
        .hull([
            "run",
            "--rm",
            "-v",
            "/tmp:/x",
            "--mount",
            "type=tmpfs,target=/x",
            "busybox",
            "true",
        ])
        .fails_saying(125, "duplicate");
}

#[test]
fn mounts_are_told_by_inspect() {
    let daemon = Daemon::new();
    let dir = daemon.scratch();
    daemon.ok([
        "create",
        "--name",
        "box",
        "-v",
        "named:/n",
        "-v",
        &format!("{}:/b:ro", dir.display()),
        "busybox",
    ]);
    let mounts: serde_json::Value =
        serde_json::from_str(&daemon.inspect("box", "{{json .Mounts}}")).expect("JSON");
    let of = |target: &str| {
        mounts
            .as_array()
            .and_then(|list| list.iter().find(|mount| mount["Destination"] == target))
            .cloned()
            .expect("a mount")
    };
    assert_eq!(of("/n")["Type"], "volume");
    assert_eq!(of("/n")["Name"], "named");
    assert_eq!(of("/n")["RW"], true);
    assert_eq!(of("/b")["Type"], "bind");
    assert_eq!(of("/b")["RW"], false);
    daemon.ok(["rm", "box"]);
}

#[test]
fn volume_prune_removes_what_nobody_uses() {
    let daemon = Daemon::new();
    daemon.ok(["create", "--name", "box", "-v", "/anonymous", "busybox"]);
    daemon.ok(["create", "--name", "gone", "-v", "/anonymous", "busybox"]);
    daemon.ok(["rm", "gone"]);
    assert_eq!(daemon.ok(["volume", "ls", "-q"]).lines().count(), 2);
    daemon.ok(["volume", "prune", "-f"]);
    assert_eq!(daemon.ok(["volume", "ls", "-q"]).lines().count(), 1);
    daemon.ok(["rm", "-v", "box"]);
}

#[test]
fn volume_labels_and_filters() {
    let daemon = Daemon::new();
    daemon.ok(["volume", "create", "--label", "a=b", "labelled"]);
    daemon.ok(["volume", "create", "plain"]);
    assert_eq!(
        daemon.ok(["volume", "ls", "-q", "--filter", "label=a=b"]),
        "labelled"
    );
    assert_eq!(
        daemon.ok([
            "volume",
            "ls",
            "--format",
            "{{.Name}} {{.Driver}}",
            "--filter",
            "name=plain"
        ]),
        "plain local"
    );
    daemon.hull(["volume", "create", "bad/name"]).fails(1);
    daemon.ok(["volume", "rm", "labelled", "plain"]);
}
