//! `commit` and `diff` beside Docker's own, and what a committed image is afterwards; `import` of an
//! address.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use hull_testkit::{Daemon, Output, Run, archive::Layer};
use hull_tests::docker::Dockerd;
use hull_tests::tree::{self, Stack, Tree};
use hull_tests::{IMAGE, SLEEP};

/// Changes of every kind, with times that are the same in each run.
const CHANGES: &str = "set -e; echo new >/new; echo changed >>/etc/passwd; rm /etc/group; \
    mkdir -p /d/e; rm -r /var/www; chmod 700 /home; rm -rf /root; mkdir /root; echo r >/root/f; \
    ln -s x /lnk; mkfifo /tmp/p; rm -rf /var/spool; echo file >/var/spool; ln /new /new2; \
    mknod /null c 1 3; chown 7:8 /new; chmod 4755 /root/f; rm -rf /usr/sbin; ln -s bin /usr/sbin; \
    touch -d '2020-01-02 03:04:05' /new /etc/passwd /root/f /tmp/p /var/spool /null; \
    touch -h -d '2020-01-02 03:04:05' /lnk /usr/sbin || true";

type Engine<'a> = &'a dyn Fn(&[&str]) -> Output;

/// Runs the changes in `cc` and lists them.
fn changed(engine: Engine<'_>) -> Vec<String> {
    let run = [
        "run",
        "--name",
        "cc",
        "--network",
        "none",
        "-e",
        "A=1",
        "-l",
        "x=y",
        "--expose",
        "80",
        "-v",
        "/anon",
        IMAGE,
        "sh",
        "-c",
        CHANGES,
    ];
    engine(&run).ok();
    let mut lines: Vec<String> = engine(&["diff", "cc"])
        .ok()
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

/// Commits `cc` with changes of the configuration; returns it with author and comment, and the
/// column of commands.
fn committed(engine: Engine<'_>) -> (serde_json::Value, String) {
    let commit = [
        "commit",
        "-a",
        "me",
        "-m",
        "msg",
        "-c",
        "ENV B=2 A=3",
        "-c",
        "CMD [\"x\"]",
        "-c",
        "EXPOSE 99",
        "-c",
        "LABEL q=r",
        "-c",
        "WORKDIR w",
        "cc",
        "made:1",
    ];
    let id = engine(&commit).ok();
    assert!(id.starts_with("sha256:"), "{id}");
    let format = "{{json .Config}}";
    let text = engine(&["inspect", "--format", format, "made:1"]).ok();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    // What is empty is left out by the one and written by the other.
    config.as_object_mut().unwrap().retain(|_, value| {
        let empty = ["null", "\"\"", "false", "[]", "{}"];
        !empty.contains(&value.to_string().as_str())
    });
    if let Some(env) = config["Env"].as_array_mut() {
        env.sort_by_key(ToString::to_string);
    }
    let about = "{{.Author}} {{.Comment}} {{len .RootFS.Layers}}";
    config["about"] = engine(&["inspect", "--format", about, "made:1"])
        .ok()
        .into();
    let history = engine(&[
        "history",
        "--no-trunc",
        "--format",
        "{{.CreatedBy}}|{{.Comment}}",
        "made:1",
    ]);
    (config, history.ok())
}

#[test]
fn diff_and_commit_do_what_docker_does() {
    let dockerd = Dockerd::start();
    let busybox = hull_testkit::fixtures::busybox();
    dockerd
        .run(&["load", "-qi", &busybox.to_string_lossy()])
        .ok();
    let docker = |args: &[&str]| dockerd.run(args);
    let daemon = Daemon::new();
    let hull = |args: &[&str]| daemon.hull(args);

    assert_eq!(changed(&hull), changed(&docker));
    assert_eq!(committed(&hull), committed(&docker));
    // The trees that the images give are the same, what is hidden included.
    let theirs = Stack::new(&dockerd.layers("made:1"));
    let ours = Stack::new(&tree::hull_layers(&daemon, "made:1"));
    let differ = tree::differences(&steady(theirs.tree()), &steady(ours.tree()));
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    drop((theirs, ours));

    // What Hull saves of it Docker unpacks to the same tree, and the reverse.
    let archive = daemon.scratch().join("made.tar");
    let file = archive.to_string_lossy().into_owned();
    let before = steady(Stack::new(&tree::hull_layers(&daemon, "made:1")).tree());
    daemon.ok(["save", "-o", &file, "made:1"]);
    let id = daemon.ok(["images", "-q", "--no-trunc", "made:1"]);
    dockerd.run(&["rmi", "made:1"]).ok();
    dockerd.run(&["load", "-qi", &file]).ok();
    assert_eq!(
        dockerd.run(&["images", "-q", "--no-trunc", "made:1"]).ok(),
        id
    );
    let loaded = steady(Stack::new(&dockerd.layers("made:1")).tree());
    let differ = tree::differences(&before, &loaded);
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    // And so does a daemon that has not committed it.
    let other = Daemon::builder().bare().start();
    other.load(&archive);
    assert_eq!(other.ok(["images", "-q", "--no-trunc", "made:1"]), id);
    let loaded = steady(Stack::new(&tree::hull_layers(&other, "made:1")).tree());
    let differ = tree::differences(&before, &loaded);
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// Folders have the time of the run.
fn steady(mut tree: Tree) -> Tree {
    for node in tree.values_mut().filter(|node| node.kind == "dir") {
        node.mtime = (0, 0);
    }
    // Docker makes it for every container, and it is no change.
    tree.remove("\".dockerenv\"");
    tree
}

#[test]
fn diff_of_a_container_that_changed_nothing_is_empty() {
    let daemon = Daemon::new();
    daemon.ok(["create", "--name", "new", IMAGE, "true"]);
    assert_eq!(daemon.ok(["diff", "new"]), "");
    daemon.ok(["run", "-d", "--name", "cc", IMAGE].iter().chain(&SLEEP));
    assert_eq!(daemon.ok(["diff", "cc"]), "");
    daemon.ok(["exec", "cc", "sh", "-c", "echo x >/home/x; rm /home/x"]);
    assert_eq!(daemon.ok(["container", "diff", "cc"]), "");
    daemon.ok(["exec", "cc", "touch", "/home/x"]);
    assert_eq!(daemon.ok(["diff", "cc"]), "C /home\nA /home/x");
    daemon
        .hull(["diff", "nope"])
        .fails_saying(1, "No such container: nope");
}

#[test]
fn commit_of_what_runs_freezes_it_meanwhile_and_the_image_runs() {
    let daemon = Daemon::new();
    daemon.ok(["run", "-d", "--name", "cc", IMAGE].iter().chain(&SLEEP));
    daemon.ok(["exec", "cc", "sh", "-c", "echo one >/one; rm /etc/group"]);
    let id = daemon.ok(["commit", "cc", "made"]);
    assert_eq!(daemon.inspect("cc", "{{.State.Status}}"), "running");
    let events = [
        "events",
        "--since",
        "1m",
        "--until",
        "0s",
        "--format",
        "{{.Action}}",
    ];
    let seen = daemon.ok(events);
    let order: Vec<&str> = seen
        .lines()
        .filter(|action| ["pause", "unpause", "commit"].contains(action))
        .collect();
    assert_eq!(order, ["pause", "unpause", "commit"], "{seen}");
    // Asked not to, or frozen already, it stays as it is.
    daemon.ok(["exec", "cc", "sh", "-c", "echo two >/two"]);
    daemon.ok(["commit", "--pause=false", "cc", "made:2"]);
    daemon.ok(["pause", "cc"]);
    daemon.ok(["container", "commit", "cc", "made:3"]);
    assert_eq!(daemon.inspect("cc", "{{.State.Status}}"), "paused");
    daemon.ok(["unpause", "cc"]);
    let seen = daemon.ok(events);
    assert_eq!(seen.lines().filter(|a| *a == "pause").count(), 2, "{seen}");

    let list = "cat /one /two 2>/dev/null; ls /etc/group 2>/dev/null || true";
    let run = |image: &str| daemon.ok(["run", "--rm", image, "sh", "-c", list]);
    assert_eq!(run("made"), "one");
    assert_eq!(run("made:2"), "one\ntwo");
    assert_eq!(run(&id), "one");
    // Upon an image that was committed another can be.
    daemon.ok(["run", "--name", "dd", "made:2", "rm", "/one"]);
    daemon.ok(["commit", "dd", "made:4"]);
    assert_eq!(run("made:4"), "two");
    assert_eq!(daemon.inspect("made:4", "{{len .RootFS.Layers}}"), "3");
    let history = daemon.ok(["history", "-q", "--no-trunc", "made:4"]);
    let ids = ["made:4", "made:2", IMAGE].map(|name| daemon.inspect(name, "{{.Id}}"));
    assert_eq!(history.lines().collect::<Vec<_>>(), ids);
    assert_eq!(
        daemon.inspect("made:4", "{{.Parent}}"),
        daemon.inspect("made:2", "{{.Id}}")
    );
}

#[test]
fn commit_keeps_attributes_links_holes_and_long_names() {
    let daemon = Daemon::new();
    let host = daemon.scratch().join("src");
    fs::create_dir(&host).unwrap();
    let long = "n".repeat(200);
    fs::write(host.join(&long), "long").unwrap();
    fs::write(host.join("cap"), "x").unwrap();
    fs::hard_link(host.join("cap"), host.join("cap2")).unwrap();
    let hole = fs::File::create(host.join("hole")).unwrap();
    hole.set_len(64 << 20).unwrap();
    let set = |name: &str, value: &[u8]| {
        let path = host.join("cap");
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&path, name, value, flags).unwrap();
    };
    set("user.colour", b"blue\0");
    // cap_net_bind_service, permitted and effective, version 2 of the attribute.
    let mut capability = [0u8; 20];
    capability[..4].copy_from_slice(&0x0200_0001u32.to_le_bytes());
    capability[4..8].copy_from_slice(&(1u32 << 10).to_le_bytes());
    set("security.capability", &capability);
    daemon.ok(["create", "--name", "cc", IMAGE, "true"]);
    let source = host.to_string_lossy().into_owned();
    daemon.ok(["cp", &source, "cc:/src"]);
    daemon.ok(["commit", "cc", "made"]);
    let stack = Stack::new(&tree::hull_layers(&daemon, "made"));
    let inside = tree::read(&stack.path().join("src"));
    let differ = tree::differences(&tree::read(&host), &inside);
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    let layers = tree::hull_layers(&daemon, "made");
    use std::os::unix::fs::MetadataExt;
    let stored = fs::metadata(layers[0].join("src/hole")).unwrap();
    assert_eq!(stored.len(), 64 << 20);
    assert!(
        stored.blocks() * 512 < 1 << 20,
        "a hole takes {} blocks",
        stored.blocks()
    );
    // The tar that the layer stands for is the one whose digest it has.
    daemon.hull(["save", "made", "-o", "/dev/null"]).ok();
}

#[test]
fn commit_of_what_changed_nothing_adds_no_layer() {
    let daemon = Daemon::new();
    daemon.ok(["create", "--name", "cc", IMAGE, "true"]);
    daemon.ok(["commit", "cc", "same"]);
    let layers = |name: &str| daemon.inspect(name, "{{json .RootFS.Layers}}");
    assert_eq!(layers("same"), layers(IMAGE));
    daemon.ok(["commit", "-c", "ENTRYPOINT [\"/bin/echo\"]", "cc", "echo"]);
    assert_eq!(daemon.inspect("echo", "{{len .Config.Cmd}}"), "0");
    assert_eq!(daemon.ok(["run", "--rm", "echo", "said"]), "said");
}

#[test]
fn commit_refuses_what_it_cannot_do() {
    let daemon = Daemon::new();
    daemon.ok(["create", "--name", "cc", IMAGE, "true"]);
    daemon.ok(["create", "--name", "hh", "host", "true"]);
    let images = daemon.ok(["images", "-aq"]);
    for (args, says) in [
        (&["commit", "nope"][..], "No such container: nope"),
        (&["commit", "cc", "Bad/Name"], "must be lowercase"),
        (
            &["commit", "-c", "RUN x", "cc"],
            "is not a valid change command",
        ),
        (&["commit", "-c", "ENV", "cc"], "ENV"),
        (&["commit", "hh"], "cannot be committed"),
        (&["commit"], "requires at least 1"),
    ] {
        daemon.hull(args).fails_saying(1, says);
    }
    assert_eq!(daemon.ok(["images", "-aq"]), images);
}

#[test]
fn commit_and_cp_by_dockers_client_work() {
    let daemon = Daemon::new();
    let docker = |args: &[&str]| {
        Run::new("docker")
            .env(
                "DOCKER_HOST",
                format!("unix://{}", daemon.socket().display()),
            )
            .env("DOCKER_CONFIG", "/nonexistent")
            .args(args)
    };
    daemon.ok(["run", "-d", "--name", "cc", IMAGE].iter().chain(&SLEEP));
    let tar = Layer::new().file("f", 0o644, b"by docker").finish();
    docker(&["cp", "-", "cc:/home"]).input(tar).ok();
    assert_eq!(docker(&["diff", "cc"]).ok(), "C /home\nA /home/f");
    let commit = [
        "commit", "-m", "m", "-a", "a", "-c", "USER 7", "cc", "made:1",
    ];
    let id = docker(&commit).ok();
    assert_eq!(
        daemon.inspect("made:1", "{{.Id}} {{.Config.User}} {{.Author}}"),
        format!("{id} 7 a")
    );
    let out = docker(&[
        "run",
        "--rm",
        "--network",
        "none",
        "made:1",
        "cat",
        "/home/f",
    ]);
    assert_eq!(out.ok(), "by docker");
}

/// Serves one file over HTTP to whoever asks, for as long as the test runs; returns the port.
fn serve(name: &'static str, content: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = listener.local_addr().expect("address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(&stream);
            let mut line = String::new();
            if reader.read_line(&mut line).is_err() {
                continue;
            }
            let found = line.split(' ').nth(1) == Some(name);
            while matches!(reader.read_line(&mut line), Ok(n) if n > 2) {}
            let (status, body) = match found {
                true => ("200 OK", &content[..]),
                false => ("404 Not Found", &b"no"[..]),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let mut stream = &stream;
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(body);
        }
    });
    port
}

#[test]
fn import_takes_an_address_a_platform_and_changes() {
    let daemon = Daemon::builder().bare().start();
    let tar = Layer::new().file("f", 0o644, b"from the web").finish();
    let port = serve("/root.tar", tar);
    let url = |name: &str| format!("http://127.0.0.1:{port}/{name}");
    let options = ["import", "-c", "CMD [\"x\"]", "--platform", "linux/arm64"];
    daemon.ok(options.iter().chain(&[&url("root.tar")[..], "web:1"]));
    let format = "{{.Architecture}} {{json .Config.Cmd}} {{.Comment}}";
    let said = format!("arm64 [\"x\"] Imported from {}", url("root.tar"));
    assert_eq!(daemon.inspect("web:1", format), said);
    let answer = daemon.hull(["import", &url("nothing.tar")]);
    answer.fails_saying(1, "not");
    assert_eq!(daemon.ok(["images", "-q"]).lines().count(), 1);
}
