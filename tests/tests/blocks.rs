//! Block images of guests go with the images that they are made of, and no sooner.

use std::fs;
use std::path::PathBuf;

use hull_testkit::archive::{Image, Layer, digest};
use hull_testkit::{Daemon, DaemonBuilder};

/// As the engine names them: a mark of the format, then the layers' digests, the lowest first.
fn block_image(daemon: &Daemon, image: &str) -> PathBuf {
    let format = "{{range .RootFS.Layers}}{{.}}\n{{end}}";
    let layers = daemon.ok(["image", "inspect", "--format", format, image]);
    let mut bytes = b"hull block image 1".to_vec();
    for layer in layers
        .lines()
        .filter_map(|line| line.strip_prefix("sha256:"))
    {
        let pairs = layer.as_bytes().chunks(2);
        let digits = pairs.map(|pair| std::str::from_utf8(pair).expect("hex digits"));
        bytes.extend(digits.map(|two| u8::from_str_radix(two, 16).expect("hex digits")));
    }
    let folder = daemon.data_dir().join("snapshot/.images");
    fs::create_dir_all(&folder).expect("make the folder");
    folder.join(format!("{}.erofs", digest(&bytes)))
}

/// Nothing is spared for having just come, nothing goes in the background.
fn eager(builder: DaemonBuilder) -> Daemon {
    builder
        .env("HULL_GC_GRACE", "0")
        .env("HULL_GC_INTERVAL", "0")
        .start()
}

#[test]
fn block_image_goes_with_its_image_and_by_collection() {
    let daemon = eager(Daemon::builder());
    if daemon.is_docker() {
        return;
    }
    let archive = daemon.scratch().join("own.tar");
    Image::new("own:latest")
        .busybox()
        .layer(Layer::new().file("own", 0o644, b"own"))
        .write(&archive);
    daemon.load(&archive);
    let (busybox, own) = (block_image(&daemon, "busybox"), block_image(&daemon, "own"));
    assert_ne!(busybox, own);
    let orphan = busybox.with_file_name(format!("{}.erofs", "0".repeat(64)));
    for path in [&busybox, &own, &orphan] {
        fs::write(path, vec![1; 1000]).expect("write a block image");
    }

    let report = daemon.ok(["system", "gc", "--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["SpaceReclaimed"], 1000);
    assert!(!orphan.exists() && busybox.exists() && own.exists());

    // A second name keeps it, the last one takes it along.
    daemon.ok(["tag", "own", "other"]);
    daemon.ok(["rmi", "own"]);
    assert!(own.exists());
    daemon.ok(["rmi", "other"]);
    assert!(!own.exists() && busybox.exists());

    daemon.ok(["create", "--name", "user", "busybox", "true"]);
    daemon.ok(["image", "prune", "--all", "--force"]);
    assert!(busybox.exists());
    daemon.ok(["rm", "user"]);
    daemon.ok(["image", "prune", "--all", "--force"]);
    assert!(!busybox.exists());
}
