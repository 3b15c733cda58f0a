//! Images: load, save, import, export, tag, rmi, history, and layers with everything in them.

use std::fs;
use std::path::Path;

use hull_testkit::archive::{Image, Layer};
use hull_testkit::{Daemon, Run, fixtures};
use serde_json::json;

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[test]
fn load_reads_docker_archives_from_file_and_stdin_and_compressed() {
    let daemon = Daemon::builder().bare().start();
    let dir = daemon.scratch();
    let plain = dir.join("plain.tar");
    Image::new("loaded:1")
        .busybox()
        .layer(Layer::new().file("mark", 0o644, b"here"))
        .write(&plain);
    let out = daemon.load(&plain);
    assert!(out.contains("Loaded image: loaded:1"), "{out}");
    assert_eq!(
        daemon.ok(["run", "--rm", "loaded:1", "cat", "/mark"]),
        "here"
    );
    Run::new("gzip").args(["-k", &text(&plain)]).ok();
    Run::new("zstd").args(["-q", "-k", &text(&plain)]).ok();
    for name in ["plain.tar.gz", "plain.tar.zst"] {
        if daemon.is_docker() && name.ends_with("zst") {
            continue;
        }
        daemon.ok(["rmi", "-f", "loaded:1"]);
        daemon.load(&dir.join(name));
        assert_eq!(
            daemon.ok(["run", "--rm", "loaded:1", "cat", "/mark"]),
            "here",
            "{name}"
        );
    }
    daemon.ok(["rmi", "-f", "loaded:1"]);
    let bytes = fs::read(dir.join("plain.tar.gz")).expect("read");
    let out = daemon.cli(["load"]).input(bytes).ok();
    assert!(out.contains("Loaded image: loaded:1"), "{out}");
    daemon.hull(["load", "-i", "/no/such/file"]).fails(1);
}

#[test]
fn load_reads_oci_layouts() {
    let daemon = Daemon::builder().bare().start();
    if daemon.is_docker() {
        return;
    }
    let path = daemon.scratch().join("oci.tar");
    let image = Image::new("ocitest:2")
        .busybox()
        .set("Env", json!(["PATH=/bin", "FROM=oci"]));
    fs::write(&path, image.oci_layout()).expect("write");
    let out = daemon.load(&path);
    assert!(out.contains("ocitest:2"), "{out}");
    assert_eq!(
        daemon.ok(["run", "--rm", "ocitest:2", "sh", "-c", "echo $FROM"]),
        "oci"
    );
}

#[test]
fn load_reads_what_skopeo_wrote() {
    let daemon = Daemon::builder().bare().start();
    let dir = daemon.scratch();
    let source = format!("docker-archive:{}", fixtures::busybox().display());
    let docker = dir.join("skopeo-docker.tar");
    Run::new("skopeo")
        .args([
            "--insecure-policy",
            "copy",
            &source,
            &format!("docker-archive:{}:skopeo:docker", docker.display()),
        ])
        .ok();
    daemon.load(&docker);
    assert_eq!(
        daemon.ok(["run", "--rm", "skopeo:docker", "echo", "ok"]),
        "ok"
    );
    if daemon.is_docker() {
        return;
    }
    let oci = dir.join("skopeo-oci.tar");
    Run::new("skopeo")
        .args([
            "--insecure-policy",
            "copy",
            &source,
            &format!("oci-archive:{}:skopeo:oci", oci.display()),
        ])
        .ok();
    let out = daemon.load(&oci);
    assert!(
        out.contains("skopeo:oci") || out.contains("sha256:"),
        "{out}"
    );
    let name = out
        .split("oaded image: ")
        .nth(1)
        .or_else(|| out.split("oaded image ID: ").nth(1))
        .unwrap_or("")
        .trim()
        .to_owned();
    assert_eq!(daemon.ok(["run", "--rm", &name, "echo", "ok"]), "ok");
}

#[test]
fn save_then_load_gives_the_same_image() {
    let daemon = Daemon::new();
    let id = daemon.ok(["image", "inspect", "--format", "{{.Id}}", "busybox"]);
    let layers = daemon.ok([
        "image",
        "inspect",
        "--format",
        "{{json .RootFS.Layers}}",
        "busybox",
    ]);
    let path = daemon.scratch().join("saved.tar");
    daemon.ok(["tag", "busybox", "second:tag"]);
    daemon.ok(["save", "-o", &text(&path), "busybox", "second:tag"]);
    let piped = daemon.hull(["save", "busybox"]);
    assert!(piped.bytes.len() > 1_000_000);
    daemon.ok(["rmi", "-f", "busybox", "second:tag"]);
    assert_eq!(daemon.hull(["image", "inspect", "busybox"]).code, 1);
    let out = daemon.load(&path);
    assert!(
        out.contains("busybox:latest") && out.contains("second:tag"),
        "{out}"
    );
    assert_eq!(
        daemon.ok(["image", "inspect", "--format", "{{.Id}}", "second:tag"]),
        id
    );
    assert_eq!(
        daemon.ok([
            "image",
            "inspect",
            "--format",
            "{{json .RootFS.Layers}}",
            "busybox"
        ]),
        layers
    );
    assert_eq!(daemon.ok(["run", "--rm", "busybox", "echo", "ok"]), "ok");
    daemon
        .hull(["save", "-o", &text(&path), "nosuchimage"])
        .fails(1);
    // Others can read it.
    if !daemon.is_docker() {
        let listing = Run::new("skopeo")
            .args([
                "inspect",
                "--config",
                &format!("docker-archive:{}:busybox:latest", path.display()),
            ])
            .ok();
        assert!(listing.contains("rootfs"), "{listing}");
        daemon.ok(["rmi", "second:tag"]);
    }
}

#[test]
fn save_of_several_images_is_loaded_through_pipes_in_both_forms() {
    let daemon = Daemon::new();
    Image::new("second:1")
        .busybox()
        .layer(Layer::new().file("mark", 0o644, b"second"))
        .write(&daemon.scratch().join("second.tar"));
    daemon.load(&daemon.scratch().join("second.tar"));
    let ids = |daemon: &Daemon| {
        ["busybox", "second:1"].map(|name| daemon.ok(["image", "inspect", "-f", "{{.Id}}", name]))
    };
    let saved = daemon.hull(["save", "busybox", "second:1"]);
    saved.ok();
    // The same archive is an OCI layout: without what is Docker's it is nothing else.
    let dir = daemon.scratch().join("both");
    fs::create_dir(&dir).unwrap();
    let unpack = Run::new("tar").args(["xf", "-"]).dir(&dir);
    unpack.input(saved.bytes.clone()).run().ok();
    fs::remove_file(dir.join("manifest.json")).unwrap();
    fs::remove_file(dir.join("repositories")).unwrap();
    let path = daemon.scratch().join("layout.tar");
    Run::new("tar")
        .args(["cf", &text(&path), "."])
        .dir(&dir)
        .ok();
    for bytes in [saved.bytes, fs::read(&path).unwrap()] {
        let other = Daemon::builder().bare().start();
        let out = other.cli(["load"]).input(bytes).ok();
        assert!(
            out.contains("busybox:latest") && out.contains("second:1"),
            "{out}"
        );
        assert_eq!(ids(&other), ids(&daemon));
        assert_eq!(
            other.ok(["run", "--rm", "second:1", "cat", "/mark"]),
            "second"
        );
    }
}

#[test]
fn import_makes_an_image_and_export_writes_a_container() {
    let daemon = Daemon::new();
    daemon.ok([
        "run",
        "--name",
        "changed",
        "busybox",
        "sh",
        "-c",
        "echo data >/new; rm /etc/group; ln -s /new /link",
    ]);
    let path = daemon.scratch().join("root.tar");
    daemon.ok(["export", "-o", &text(&path), "changed"]);
    let list = Run::new("tar").args(["tf", &text(&path)]).ok();
    assert!(
        list.lines().any(|line| line == "new") && list.lines().any(|line| line == "link"),
        "{list}"
    );
    assert!(!list.lines().any(|line| line == "etc/group"), "{list}");
    let out = daemon.ok([
        "import",
        "--change",
        "CMD [\"cat\",\"/new\"]",
        "--change",
        "ENV A=b",
        "--change",
        "WORKDIR /tmp",
        "-m",
        "mine",
        &text(&path),
        "imported:1",
    ]);
    assert!(out.starts_with("sha256:"), "{out}");
    assert_eq!(daemon.ok(["run", "--rm", "imported:1"]), "data");
    assert_eq!(
        daemon.ok(["run", "--rm", "imported:1", "sh", "-c", "echo $A; pwd"]),
        "b\n/tmp"
    );
    let bytes = fs::read(&path).expect("read");
    daemon.cli(["import", "-", "imported:2"]).input(bytes).ok();
    assert_eq!(
        daemon.ok(["run", "--rm", "imported:2", "/bin/cat", "/new"]),
        "data"
    );
    daemon.ok(["rmi", "imported:1", "imported:2"]);
    daemon
        .hull([
            "import",
            "--change",
            "NONSENSE x",
            &text(&path),
            "imported:3",
        ])
        .fails(1);
}

#[test]
fn tag_and_rmi_untag_before_they_delete() {
    let daemon = Daemon::new();
    daemon.ok(["tag", "busybox", "example.org/group/name:v1"]);
    let out = daemon.ok(["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert!(out.contains("example.org/group/name:v1"), "{out}");
    let out = daemon.ok(["rmi", "example.org/group/name:v1"]);
    assert_eq!(out, "Untagged: example.org/group/name:v1");
    daemon.hull(["tag", "nosuchimage", "a:b"]).fails(1);
    daemon.hull(["tag", "busybox", "Bad/Name"]).fails(1);
    daemon
        .hull(["rmi", "nosuchimage"])
        .fails_saying(1, "no such image");
    let path = daemon.scratch().join("own.tar");
    Image::new("owned:1")
        .busybox()
        .layer(Layer::new().file("own", 0o644, b"x"))
        .write(&path);
    daemon.load(&path);
    daemon.ok(["create", "--name", "user", "owned:1"]);
    daemon.hull(["rmi", "owned:1"]).fails_saying(1, "conflict");
    daemon.ok(["rm", "user"]);
    let out = daemon.ok(["rmi", "owned:1"]);
    assert!(
        out.contains("Untagged: owned:1") && out.contains("Deleted: sha256:"),
        "{out}"
    );
    daemon
        .hull(["run", "--rm", "--pull", "never", "owned:1", "true"])
        .fails(125);
}

#[test]
fn images_lists_filters_and_formats() {
    let daemon = Daemon::new();
    daemon.ok(["tag", "busybox", "alpha:1"]);
    let table = daemon.ok(["images"]);
    assert!(
        table
            .lines()
            .next()
            .is_some_and(|line| line.starts_with("REPOSITORY") && line.contains("IMAGE ID")),
        "{table}"
    );
    assert_eq!(
        daemon.ok(["images", "--format", "{{.Repository}}", "alpha"]),
        "alpha"
    );
    assert_eq!(
        daemon.ok([
            "images",
            "--format",
            "{{.Tag}}",
            "--filter",
            "reference=alp*"
        ]),
        "1"
    );
    let quiet = daemon.ok(["images", "-q", "alpha"]);
    assert_eq!(quiet.len(), 12);
    let full = daemon.ok(["images", "-q", "--no-trunc", "alpha"]);
    assert_eq!(
        full,
        daemon.ok(["image", "inspect", "--format", "{{.Id}}", "alpha:1"])
    );
    assert_eq!(
        daemon.ok([
            "image",
            "inspect",
            "--format",
            "{{.Architecture}}/{{.Os}}",
            &quiet
        ]),
        "amd64/linux"
    );
    daemon.ok(["rmi", "alpha:1"]);
}

#[test]
fn history_shows_layers() {
    let daemon = Daemon::new();
    let out = daemon.ok(["history", "busybox"]);
    assert!(out.starts_with("IMAGE") && out.contains("testkit"), "{out}");
    assert_eq!(
        daemon.ok(["history", "--format", "{{.CreatedBy}}", "busybox"]),
        "testkit"
    );
    daemon.hull(["history", "nosuchimage"]).fails(1);
}

#[test]
fn layers_whiteouts_opaque_dirs_and_links_come_out_right() {
    let daemon = Daemon::new();
    let path = daemon.scratch().join("layers.tar");
    Image::new("layers:1")
        .busybox()
        .layer(
            Layer::new()
                .dir("d/", 0o755)
                .file("d/gone", 0o644, b"1")
                .file("d/stays", 0o644, b"2")
                .dir("o/", 0o755)
                .file("o/hidden", 0o644, b"3")
                .file("f", 0o644, b"old")
                .file("first", 0o755, b"same")
                .hardlink("second", "first")
                .symlink("relative", "d/stays"),
        )
        .layer(
            Layer::new()
                .file("d/.wh.gone", 0o644, b"")
                .dir("o/", 0o700)
                .file("o/.wh..wh..opq", 0o644, b"")
                .file("o/new", 0o644, b"4")
                .file("f", 0o600, b"new"),
        )
        .write(&path);
    daemon.load(&path);
    let script = "ls /d /o; cat /f /relative; stat -c '%a %h' /first /f; stat -c %a /o; [ /first -ef /second ] && echo linked; ls -a / | grep -c wh";
    let out = daemon.hull(["run", "--rm", "layers:1", "sh", "-c", script]);
    assert_eq!(
        out.stdout,
        "/d:\nstays\n\n/o:\nnew\nnew2755 2\n600 1\n700\nlinked\n0\n"
    );
    daemon.ok(["rmi", "layers:1"]);
}

#[test]
fn layers_special_files_owners_times_and_capabilities_survive() {
    let daemon = Daemon::new();
    let dir = daemon.scratch().join("root");
    fs::create_dir_all(dir.join("bin")).expect("make");
    fs::copy("/bin/busybox", dir.join("bin/busybox")).expect("copy");
    let script = "cd \"$1\" && mknod null c 1 3 && mkfifo pipe && echo x >owned && chown 1234:5678 owned && chmod 4755 owned \
                  && touch -d 2001-02-03T04:05:06Z owned && truncate -s 10M sparse && printf end >>sparse \
                  && cp /bin/busybox capable && setcap cap_net_raw+ep capable 2>/dev/null; \
                  mkdir -p $(printf 'long%.0s' $(seq 1 40))/deep && echo found >$(printf 'long%.0s' $(seq 1 40))/deep/file; echo u >\"$(printf '\\303\\274')\"";
    Run::new("bash").args(["-c", script, "-", &text(&dir)]).ok();
    let tar = daemon.scratch().join("special.tar");
    Run::new("tar")
        .args([
            "--create",
            "--sparse",
            "--format=pax",
            "--numeric-owner",
            "--xattrs",
            "--xattrs-include=*",
            "-f",
            &text(&tar),
            "-C",
            &text(&dir),
            ".",
        ])
        .ok();
    daemon.ok(["import", &text(&tar), "special:1"]);
    let script = "stat -c '%F %t:%T' /null /pipe; stat -c '%u:%g %a %Y' /owned; stat -c %s /sparse; tail -c 3 /sparse; echo; cat /long*/deep/file; cat /\u{fc}";
    let out = daemon.ok([
        "run",
        "--rm",
        "special:1",
        "/bin/busybox",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(
        out,
        "character special file 1:3\nfifo 0:0\n1234:5678 4755 981173106\n10485763\nend\nfound\nu"
    );
    daemon.ok(["rmi", "special:1"]);
}

#[test]
fn image_of_130_layers_runs() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        // Docker's limit is 127.
        return;
    }
    let path = daemon.scratch().join("many.tar");
    let mut image = Image::new("many:130").busybox();
    for number in 0..129 {
        image = image.layer(
            Layer::new()
                .file(&format!("layer{number}"), 0o644, b"x")
                .file("top", 0o644, number.to_string().as_bytes()),
        );
    }
    image.write(&path);
    daemon.load(&path);
    let out = daemon.ok([
        "run",
        "--rm",
        "many:130",
        "sh",
        "-c",
        "ls / | grep -c layer; cat /top",
    ]);
    assert_eq!(out, "129\n128");
}

#[test]
fn layers_are_shared_between_images() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    let size = |daemon: &Daemon| {
        let out = Run::new("du")
            .args(["-s", "--block-size=1", &text(daemon.data_dir())])
            .ok();
        out.split('\t')
            .next()
            .and_then(|number| number.parse::<u64>().ok())
            .expect("a size")
    };
    let before = size(&daemon);
    for number in 0..5 {
        let path = daemon.scratch().join("x.tar");
        Image::new(&format!("shared:{number}"))
            .busybox()
            .layer(Layer::new().file("n", 0o644, number.to_string().as_bytes()))
            .write(&path);
        daemon.load(&path);
    }
    let grown = size(&daemon) - before;
    assert!(
        grown < 1_500_000,
        "five images on the same base take {grown} bytes more"
    );
    daemon.ok(["rmi", "busybox"]);
    assert_eq!(daemon.ok(["run", "--rm", "shared:3", "cat", "/n"]), "3");
}

#[test]
fn image_config_user_workdir_entrypoint_volumes_are_used() {
    let daemon = Daemon::new();
    let path = daemon.scratch().join("config.tar");
    Image::new("config:1")
        .busybox()
        .set("User", json!("hull"))
        .set("WorkingDir", json!("/work"))
        .set("Entrypoint", json!(["sh", "-c", "id -un; pwd; echo $0 $@"]))
        .set("Cmd", json!(["from", "image"]))
        .set("Volumes", json!({"/vol": {}}))
        .set("ExposedPorts", json!({"80/tcp": {}}))
        .set("Labels", json!({"l": "v"}))
        .write(&path);
    daemon.load(&path);
    assert_eq!(
        daemon.ok(["run", "--rm", "config:1"]),
        "hull\n/work\nfrom image"
    );
    assert_eq!(
        daemon.ok(["run", "--rm", "-u", "0", "config:1", "mine"]),
        "root\n/work\nmine"
    );
    daemon.ok(["create", "--name", "box", "config:1"]);
    assert_eq!(
        daemon.inspect("box", "{{len .Mounts}} {{(index .Mounts 0).Destination}}"),
        "1 /vol"
    );
    assert_eq!(daemon.inspect("box", "{{index .Config.Labels \"l\"}}"), "v");
    daemon.ok(["rm", "-v", "box"]);
    daemon.ok(["rmi", "config:1"]);
}

#[test]
fn hello_image_prints_what_it_sees() {
    let daemon = Daemon::builder().bare().start();
    if daemon.is_docker() {
        return;
    }
    let out = daemon
        .ok(["run", "--rm", "-m", "64m", "hull/hello"])
        .to_lowercase();
    for word in [
        "isolation",
        "container",
        "kernel",
        "process id",
        "64",
        "capabilities",
        "address",
        "microseconds",
    ] {
        assert!(
            out.contains(word) || (word == "microseconds" && out.contains("µs")),
            "{word} in\n{out}"
        );
    }
}

#[test]
fn host_image_is_the_hosts_root_with_writes_in_memory() {
    let daemon = Daemon::builder().bare().start();
    if daemon.is_docker() {
        return;
    }
    let mark = format!("/hull-host-test-{}", std::process::id());
    let script = format!("head -1 /etc/os-release; touch {mark} && ls {mark}");
    let out = daemon.ok(["run", "--rm", "host", "bash", "-c", &script]);
    let release = fs::read_to_string("/etc/os-release").expect("read");
    assert!(
        out.starts_with(release.lines().next().expect("a line")),
        "{out}"
    );
    assert!(out.ends_with(&mark));
    assert!(!Path::new(&mark).exists(), "a write reached the host");
}
