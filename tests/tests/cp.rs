//! `cp` both ways: beside Docker's own, into containers that run and that do not, and against
//! containers that fight back.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use hull_testkit::{Daemon, Output, Run, archive::Layer};
use hull_tests::docker::Dockerd;
use hull_tests::tree::{self, Tree};
use hull_tests::{IMAGE, SLEEP};

/// A client of an engine, working in a folder of its own.
struct Client<'a> {
    program: PathBuf,
    env: Vec<(String, String)>,
    dir: &'a Path,
}

impl<'a> Client<'a> {
    fn hull(daemon: &Daemon, dir: &'a Path) -> Self {
        Self {
            program: hull_testkit::paths::hull(),
            env: daemon.env().to_vec(),
            dir,
        }
    }

    fn docker(socket: &Path, dir: &'a Path) -> Self {
        let pair = |name: &str, value: String| (name.to_owned(), value);
        Self {
            program: "docker".into(),
            env: vec![
                pair("DOCKER_HOST", format!("unix://{}", socket.display())),
                pair("DOCKER_API_VERSION", "1.41".into()),
                pair("DOCKER_CONFIG", "/nonexistent".into()),
            ],
            dir,
        }
    }

    fn command(&self, line: &str) -> Run {
        let mut run = Run::new(&self.program)
            .args(line.split_whitespace())
            .dir(self.dir);
        for (name, value) in &self.env {
            run = run.env(name, value);
        }
        run
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).run()
    }
}

/// The files that are copied.
fn make_sources(dir: &Path) {
    let src = dir.join("src");
    fs::create_dir_all(src.join("sub/deep")).unwrap();
    fs::create_dir_all(dir.join("out")).unwrap();
    fs::write(src.join("f"), "hi\n").unwrap();
    fs::write(src.join("sub/deep/g"), vec![7; 300_000]).unwrap();
    std::os::unix::fs::chown(src.join("f"), Some(1000), Some(1001)).unwrap();
    fs::set_permissions(src.join("f"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(src.join("sub/deep/g"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::hard_link(src.join("f"), src.join("hard")).unwrap();
    for (target, name) in [("f", "l"), ("nowhere", "dangling"), ("sub", "dl")] {
        symlink(target, src.join(name)).unwrap();
    }
    let touched = Command::new("touch")
        .args(["-h", "-d", "2020-01-02 03:04:05.678"])
        .args(["f", "sub/deep/g", "l", "dl", "dangling"].map(|name| src.join(name)))
        .status();
    assert!(touched.unwrap().success());
}

/// Copies in order, each with whether it succeeds.
const COPIES: [(&str, bool); 54] = [
    ("src/f cc:/tmp/f", true),
    ("-a src/f cc:/tmp/fa", true),
    ("src cc:/tmp/", true),
    ("src/. cc:/tmp/content", true),
    ("src/dl cc:/tmp/", true),
    ("src/dl/ cc:/tmp/dlx", true),
    ("src/dl/. cc:/tmp/dlc", true),
    ("-L src/l cc:/tmp/lf", true),
    ("src/dl/ cc:/tmp", false),
    ("src cc:/tmp/new/", true),
    ("src/sub cc:/tmp/named", true),
    ("src/l cc:/tmp/", true),
    ("-L src/l cc:/tmp/src/sub", true),
    ("-L src/dl cc:/tmp/newL", true),
    ("src/f cc:/tmp/src/dl", true),
    ("src/f cc:/tmp/src/dangling", true),
    ("src/f cc:tmp/rel", true),
    ("./src/f cc:/tmp/../tmp/dots", true),
    ("src/f cc:/tmp/src/f", true),
    ("cc:/tmp/src out", true),
    ("cc:/tmp/src/. out/content", true),
    ("cc:/tmp/src out/new", true),
    ("cc:/tmp/src/f out/f", true),
    ("cc:/tmp/src/l out", true),
    ("-L cc:/tmp/src/l out/lf", true),
    ("-L cc:/tmp/src/dl out/dlL", true),
    ("cc:/tmp/src/dl/ out/dls", true),
    ("cc:/tmp/src/dl/. out/dlc", true),
    ("-L cc:/tmp/src/l out/sub2", true),
    ("cc:/tmp/src/f out/src/l", true),
    ("cc:/tmp/src/f out/src/dangling", true),
    ("cc:/tmp/src/sub out/subnew/", true),
    ("-L cc:/tmp/src/dl/. out/dlLc", true),
    ("-L cc:/tmp/src/dl out", true),
    ("cc:/tmp/src/dl out", false),
    ("cc:etc/passwd out", true),
    ("src cc:/tmp/f", false),
    ("src/f cc:/nodir/x", false),
    ("src/f cc:/tmp/newdir/", false),
    ("src/nof cc:/tmp", false),
    ("cc:/nof .", false),
    ("cc:/etc ./nodir/x", false),
    ("src/f/ cc:/tmp", false),
    ("cc:/etc/passwd/ .", false),
    ("nope:/x .", false),
    ("src/f nope:/x", false),
    ("cc:/tmp/src src/f", false),
    ("src/sub cc:/tmp/content/f", false),
    ("a b", false),
    ("cc:/x cc:/y", false),
    ("src/sub cc:/etc/passwd", false),
    ("cc:/etc/passwd src/newd/", false),
    ("src/f cc:/tmp/src/f/", false),
    ("cc: out", false),
];

/// Runs all copies and returns what the container's /tmp and the local folder then hold.
fn copied(client: &Client<'_>) -> (Tree, Tree) {
    make_sources(client.dir);
    client.run("create --name cc busybox true").ok();
    for (copy, succeeds) in COPIES {
        let out = client.run(&format!("cp {copy}"));
        assert_eq!(out.code == 0, succeeds, "{}: {}", out.command, out.stderr);
    }
    // A tar from standard input: a folder is not replaced by a file, nor the reverse.
    for (layer, says) in [
        (
            Layer::new().dir("f/", 0o755),
            "cannot overwrite non-directory",
        ),
        (
            Layer::new().file("src", 0o644, b"x"),
            "cannot overwrite directory",
        ),
    ] {
        let out = client.command("cp - cc:/tmp").input(layer.finish()).run();
        out.fails_saying(1, says);
    }
    let out = client.command("cp - cc:/tmp/f").run();
    out.fails_saying(1, "must be a directory");
    let input = Layer::new().file("a/b/piped", 0o600, b"piped\n").finish();
    client.command("cp - cc:/tmp").input(input).run().ok();
    let tar = client.run("cp cc:/tmp -");
    tar.ok();
    let inside = client.dir.join("inside");
    fs::create_dir(&inside).unwrap();
    let unpacked = Run::new("tar")
        .args(["xpf", "-", "--numeric-owner", "--same-owner", "-C"])
        .arg(&inside)
        .input(tar.bytes)
        .run();
    unpacked.ok();
    (
        comparable(tree::read(&inside)),
        comparable(tree::read(&client.dir.join("out"))),
    )
}

/// Folders have the time of the copy, and Docker's archives whole seconds.
fn comparable(mut tree: Tree) -> Tree {
    for node in tree.values_mut() {
        node.mtime = match node.kind {
            "dir" => (0, 0),
            _ => (node.mtime.0, 0),
        };
    }
    tree
}

#[test]
fn cp_by_hull_and_by_dockers_client_does_what_docker_does() {
    let dockerd = Dockerd::start();
    let busybox = hull_testkit::fixtures::busybox();
    dockerd
        .run(&["load", "-qi", &busybox.to_string_lossy()])
        .ok();
    let base = tempfile::tempdir().unwrap();
    let dir = |name: &str| {
        let dir = base.path().join(name);
        fs::create_dir(&dir).unwrap();
        dir
    };
    let theirs_dir = dir("docker");
    let socket = dockerd.dir().join("sock");
    let theirs = copied(&Client::docker(&socket, &theirs_dir));
    let heads = |socket: &Path| PATHS.map(|path| stat_of(socket, path));
    let their_heads = heads(&socket);
    drop(dockerd);

    for (name, by_docker) in [("hull", false), ("docker-on-hull", true)] {
        let daemon = Daemon::new();
        let dir = dir(name);
        let client = if by_docker {
            Client::docker(&daemon.socket(), &dir)
        } else {
            Client::hull(&daemon, &dir)
        };
        let ours = copied(&client);
        for (theirs, ours) in [(&theirs.0, &ours.0), (&theirs.1, &ours.1)] {
            let differ = tree::differences(theirs, ours);
            assert!(differ.is_empty(), "{name}:\n{}", differ.join("\n"));
        }
        assert_eq!(heads(&daemon.socket()), their_heads);
    }
}

/// Paths that are looked at.
const PATHS: [&str; 10] = [
    "/tmp/src/dl",
    "/tmp/src/dl/",
    "/tmp/src/dl/.",
    "/tmp/src/l",
    "/tmp/src/sub/deep/g",
    "/",
    "/tmp",
    "/nof",
    "tmp/../etc/passwd",
    "/tmp/new/dangling",
];

/// Status and description of a path by the API, without the time.
fn stat_of(socket: &Path, path: &str) -> (u16, String) {
    let url = format!("/v1.41/containers/cc/archive?path={path}");
    let answer = hull_testkit::http::request(socket, "HEAD", &url, None);
    let header = answer.head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.to_lowercase() == "x-docker-container-path-stat").then(|| value.trim().to_owned())
    });
    let text = header.map_or_else(String::new, |value| decoded(&value));
    let Ok(mut json) = serde_json::from_str::<serde_json::Value>(&text) else {
        return (answer.status, text);
    };
    let object = json.as_object_mut().unwrap();
    assert!(object.remove("mtime").is_some());
    if url.ends_with('/') || object["mode"].as_u64() >= Some(1 << 31) {
        // A folder's size is its file system's business.
        object.remove("size");
    }
    (answer.status, json.to_string())
}

/// Base64 of text.
fn decoded(text: &str) -> String {
    let out = Run::new("base64").arg("-d").input(text).run();
    out.ok()
}

#[test]
fn cp_of_a_root_has_dockers_names_and_leaves_the_kernels_files_out() {
    let daemon = Daemon::new();
    daemon.ok(["run", "-d", "--name", "cc", IMAGE].iter().chain(&SLEEP));
    let out = daemon.hull(["cp", "cc:/", "-"]);
    out.ok();
    let listed = Run::new("tar").args(["tPf", "-"]).input(out.bytes).run();
    let names: Vec<&str> = listed.stdout.lines().collect();
    assert_eq!(names.first(), Some(&"/"));
    for present in ["/proc/", "/sys/", "/dev/", "/etc/passwd", "/bin/sh"] {
        assert!(names.contains(&present), "{present} is not in {names:?}");
    }
    for folder in ["/proc/", "/sys/", "/dev/"] {
        let inside = names
            .iter()
            .find(|n| n.len() > folder.len() && n.starts_with(folder));
        assert_eq!(inside, None);
    }
    daemon
        .hull(["cp", "cc:/proc/version", "-"])
        .fails_saying(1, "Could not find the file /proc/version in container cc");
    let file = daemon.scratch().join("core_pattern");
    fs::write(&file, "|/bin/x").unwrap();
    let file = file.to_string_lossy().into_owned();
    for place in ["cc:/proc/sys/kernel/", "cc:/sys/fs", "cc:/proc/1/"] {
        assert_ne!(daemon.hull(["cp", &file, place]).code, 0, "{place}");
    }
}

#[test]
fn cp_sees_the_mounts_of_a_container_that_runs() {
    let daemon = Daemon::new();
    let host = daemon.scratch();
    fs::create_dir(host.join("bind")).unwrap();
    fs::write(host.join("bind/b"), "bound").unwrap();
    fs::write(host.join("f"), "copied").unwrap();
    let bind = format!("{}:/bind:ro", host.join("bind").display());
    let run = ["run", "-d", "--name", "cc", "-v", "vol:/vol", "-v", &bind];
    let run = run.iter().chain(&["--tmpfs", "/t", IMAGE]).chain(&SLEEP);
    daemon.ok(run);
    let file = host.join("f").to_string_lossy().into_owned();
    for place in ["/vol/f", "/t/f", "/root/f"] {
        daemon.ok(["cp", &file, &format!("cc:{place}")]);
        assert_eq!(daemon.ok(["exec", "cc", "cat", place]), "copied");
        let out = host.join("back").to_string_lossy().into_owned();
        daemon.ok(["cp", &format!("cc:{place}"), &out]);
        assert_eq!(fs::read_to_string(&out).unwrap(), "copied");
    }
    let out = host.join("b").to_string_lossy().into_owned();
    daemon.ok(["cp", "cc:/bind/b", &out]);
    assert_eq!(fs::read_to_string(&out).unwrap(), "bound");
    daemon
        .hull(["cp", &file, "cc:/bind/"])
        .fails_saying(1, "mounted volume is marked read-only");
    assert!(!host.join("bind/f").exists());
    // A link of the container's into what cannot be written does not help.
    daemon.ok(["exec", "cc", "ln", "-s", "/bind", "/root/way"]);
    assert_ne!(daemon.hull(["cp", &file, "cc:/root/way/"]).code, 0);
    assert!(!host.join("bind/f").exists());
    // Frozen, it can be copied from all the same.
    daemon.ok(["pause", "cc"]);
    daemon.ok(["cp", "cc:/vol/f", &out]);
    daemon.ok(["unpause", "cc"]);
}

#[test]
fn cp_sees_the_volumes_of_a_container_that_never_ran_and_it_starts_with_them() {
    let daemon = Daemon::new();
    let host = daemon.scratch();
    fs::create_dir(host.join("bind")).unwrap();
    fs::write(host.join("f"), "copied").unwrap();
    let file = host.join("f").to_string_lossy().into_owned();
    let bind = format!("{}:/inner/bind", host.join("bind").display());
    let sealed = format!("{}:/sealed:ro", host.join("bind").display());
    let create = [
        "create", "--name", "cc", "-v", "vol:/vol", "-v", &bind, "-v", &sealed,
    ];
    let cat = ["sh", "-c", "cat /vol/f /inner/bind/f /root/f"];
    daemon.ok(create.iter().chain(&[IMAGE]).chain(&cat));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for place in ["cc:/vol/", "cc:/inner/bind", "cc:/root/f"] {
        daemon.ok(["cp", &file, place]);
    }
    daemon
        .hull(["cp", &file, "cc:/sealed"])
        .fails_saying(1, "mounted volume is marked read-only");
    assert_eq!(fs::read_to_string(host.join("bind/f")).unwrap(), "copied");
    let volume = daemon.ok(["volume", "inspect", "-f", "{{.Mountpoint}}", "vol"]);
    assert_eq!(
        fs::read_to_string(Path::new(&volume).join("f")).unwrap(),
        "copied"
    );
    let out = host.join("out").to_string_lossy().into_owned();
    daemon.ok(["cp", "cc:/sealed/f", &out]);
    assert_eq!(fs::read_to_string(&out).unwrap(), "copied");
    // Nothing stays mounted, and nothing was in the host's table.
    let ours = |table: &str| -> Vec<String> {
        let base = daemon.data_dir().to_string_lossy().into_owned();
        let lines = table.lines().filter(|line| line.contains(&base));
        lines.map(str::to_owned).collect()
    };
    let after = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert_eq!(ours(&mounts), ours(&after));
    assert_eq!(daemon.ok(["start", "-a", "cc"]), "copiedcopiedcopied");
    // And once more after it has ended.
    daemon.ok(["cp", &file, "cc:/root/again"]);
    daemon.ok(["cp", "cc:/root/again", &out]);
    assert_eq!(daemon.ok(["start", "-a", "cc"]), "copiedcopiedcopied");
}

#[test]
fn cp_into_what_is_read_only_is_refused_as_docker_does() {
    let daemon = Daemon::new();
    let host = daemon.scratch();
    fs::write(host.join("f"), "x").unwrap();
    let file = host.join("f").to_string_lossy().into_owned();
    let create = [
        "create",
        "--name",
        "cc",
        "--read-only",
        "-v",
        "vol:/vol",
        IMAGE,
    ];
    daemon.ok(create.iter().chain(&SLEEP));
    for running in [false, true] {
        if running {
            daemon.ok(["start", "cc"]);
        }
        daemon
            .hull(["cp", &file, "cc:/root/"])
            .fails_saying(1, "container rootfs is marked read-only");
        daemon.ok(["cp", &file, "cc:/vol/"]);
        daemon.ok(["cp", "cc:/vol/f", &file]);
        // The API says it with a status of its own.
        let url = "/v1.41/containers/cc/archive?path=/root";
        let body = Layer::new().file("f", 0o644, b"x").finish();
        let answer = put(&daemon, url, &body);
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    }
    let body = Layer::new().file("f", 0o644, b"x").finish();
    for (path, status, says) in [
        ("/etc/passwd", 400, "extraction point is not a directory"),
        (
            "/nodir",
            404,
            "Could not find the file /nodir in container cc",
        ),
        ("", 400, "bad parameter"),
    ] {
        let url = format!("/v1.41/containers/cc/archive?path={path}");
        let answer = put(&daemon, &url, &body);
        assert!(answer.contains(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains(says), "{answer}");
    }
    let answer = put(
        &daemon,
        "/v1.41/containers/cc/archive?path=/vol",
        b"no tar at all",
    );
    assert!(answer.contains("HTTP/1.1 400"), "{answer}");
}

fn put(daemon: &Daemon, url: &str, body: &[u8]) -> String {
    let out = Run::new("curl")
        .args([
            "-s",
            "-i",
            "-X",
            "PUT",
            "--data-binary",
            "@-",
            "--unix-socket",
        ])
        .arg(daemon.socket())
        .arg(format!("http://d{url}"))
        .input(body)
        .run();
    out.stdout
}

#[test]
fn cp_gives_files_to_the_containers_user_where_the_api_is_asked_to() {
    let daemon = Daemon::new();
    let host = daemon.scratch();
    fs::write(host.join("f"), "x").unwrap();
    let file = host.join("f").to_string_lossy().into_owned();
    daemon.ok(["create", "--name", "cc", "-u", "7:8", IMAGE, "true"]);
    daemon.ok(["cp", "-a", &file, "cc:/tmp/a"]);
    daemon.ok(["cp", &file, "cc:/tmp/plain"]);
    let out = host.join("out").to_string_lossy().into_owned();
    for (name, owner) in [("a", (7, 8)), ("plain", (0, 0))] {
        daemon.ok(["cp", "-a", &format!("cc:/tmp/{name}"), &out]);
        let meta = fs::metadata(&out).unwrap();
        assert_eq!((meta.uid(), meta.gid()), owner, "{name}");
    }
    // Without -a, files are those of who copies.
    daemon.ok(["cp", "cc:/tmp/a", &out]);
    assert_eq!(fs::metadata(&out).unwrap().uid(), 0);
}

#[test]
fn cp_from_an_image_without_any_program_works() {
    let daemon = Daemon::builder().bare().start();
    daemon.ok(["create", "--name", "cc", "hull/hello"]);
    let out = daemon.scratch().join("hello");
    daemon.ok(["cp", "cc:/hello", &out.to_string_lossy()]);
    assert!(fs::metadata(&out).unwrap().len() > 1000);
}

#[test]
fn cp_opens_no_pipe_and_no_device_of_a_container() {
    let daemon = Daemon::new();
    let make =
        "mkdir /x; mkfifo /x/pipe; mknod /x/null c 1 3; mknod /x/watchdog c 10 130; echo f >/x/z";
    daemon.ok(["run", "--name", "cc", IMAGE, "sh", "-c", make]);
    let out = daemon.scratch().join("x");
    daemon.ok(["cp", "cc:/x", &out.to_string_lossy()]);
    let kinds = tree::read(&out);
    let kind = |name: &str| kinds.get(name).map(|node| node.kind);
    assert_eq!(kind("\"pipe\""), Some("pipe"));
    assert_eq!(kind("\"null\""), Some("char"));
    assert_eq!(kind("\"z\""), Some("file"));
}

#[test]
fn cp_beside_a_container_that_swaps_links_never_reaches_the_host() {
    let daemon = Daemon::new();
    let host = daemon.scratch();
    let outside = host.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("f"), "secret of the host").unwrap();
    fs::create_dir_all(host.join("in/d/e")).unwrap();
    fs::write(host.join("in/d/f"), "from the user").unwrap();
    fs::write(host.join("in/d/e/f"), "from the user").unwrap();
    let before = tree::read(&outside);
    // The same path exists inside, so that a link that stays inside leads somewhere.
    let target = outside.to_string_lossy().into_owned();
    let up = format!("../../../../../../../../..{target}");
    let swap = format!(
        "mkdir -p /w/d {target}; echo inside >{target}/f; while :; do \
         rm -rf /w/d; ln -s {target} /w/d; rm -rf /w/d; ln -s {up} /w/d; rm -rf /w/d; \
         ln -s /proc/1/root{target} /w/d; rm -rf /w/d; mkdir /w/d; ln -s {target}/f /w/d/f; \
         ln -s {up} /w/d/e; done"
    );
    daemon.ok(["run", "-d", "--name", "cc", IMAGE, "sh", "-c", &swap]);
    let source = host.join("in/d").to_string_lossy().into_owned();
    let content = format!("{source}/.");
    for round in 0..60 {
        // They fail as often as not; what counts is where they lead.
        daemon.hull(["cp", &content, "cc:/w/d"]);
        daemon.hull(["cp", &source, "cc:/w"]);
        let out = host.join(format!("out{round}"));
        let text = out.to_string_lossy().into_owned();
        daemon.hull(["cp", ["cc:/w/d/f", "cc:/w/d/.", "cc:/w"][round % 3], &text]);
        assert_no_secret(&out);
        // A place of its own: a destination that is a link is followed, as in Docker, and the copy
        // before may have left one that leads to what has the container's name on the host.
        let out = host.join(format!("followed{round}"));
        daemon.hull(["cp", "-L", "cc:/w/d/f", &out.to_string_lossy()]);
        assert_no_secret(&out);
    }
    let differ = tree::differences(&before, &tree::read(&outside));
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// No file below holds the host's secret. Links are not followed: they are the container's texts.
fn assert_no_secret(path: &Path) {
    let Ok(meta) = path.symlink_metadata() else {
        return;
    };
    if meta.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            assert_no_secret(&entry.unwrap().path());
        }
    } else if meta.is_file() {
        let text = fs::read_to_string(path).unwrap();
        assert!(!text.contains("secret"), "{} came out", path.display());
    }
}

#[test]
fn cp_from_a_container_whose_links_lead_out_writes_nothing_elsewhere() {
    let daemon = Daemon::new();
    let host = daemon.scratch();
    let outside = host.join("outside");
    fs::create_dir(&outside).unwrap();
    let target = outside.to_string_lossy().into_owned();
    let make = format!("mkdir -p /x /y/way; ln -s {target} /x/way; echo evil >/y/way/f");
    daemon.ok(["run", "--name", "cc", IMAGE, "sh", "-c", &make]);
    let out = host.join("out").to_string_lossy().into_owned();
    daemon.ok(["cp", "cc:/x", &out]);
    // The link is a link; a second copy does not go through it.
    daemon
        .hull(["cp", "cc:/y/.", &out])
        .fails_saying(1, "cannot overwrite non-directory");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}
