//! What takes how much disk, what is removed by hand, and limits of what a container may write.

use std::fs;
use std::path::PathBuf;

use hull_testkit::archive::{Image, Layer};
use hull_testkit::machine::Guest;
use hull_testkit::{Daemon, fixtures, paths};
use serde_json::{Value, json};

fn archive(daemon: &Daemon, tag: &str, own: usize, labels: Value) -> PathBuf {
    let path = daemon
        .scratch()
        .join(format!("{}.tar", tag.replace(':', "-")));
    let content: Vec<u8> = tag.bytes().cycle().take(own).collect();
    Image::new(tag)
        .busybox()
        .set("Labels", labels)
        .layer(Layer::new().file("own", 0o644, &content))
        .write(&path);
    path
}

fn bring(daemon: &Daemon, tag: &str, own: usize) -> String {
    daemon.load(&archive(daemon, tag, own, json!({"of": tag})));
    daemon.ok(["image", "inspect", "--format", "{{.Id}}", tag])
}

fn df(daemon: &Daemon, query: &str) -> Value {
    let answer = daemon.api("GET", &format!("/system/df{query}"), None);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn images(daemon: &Daemon, args: &[&str]) -> Vec<String> {
    let all = ["images", "--format", "{{.Repository}}:{{.Tag}}"];
    let text = daemon.ok(all.iter().chain(args));
    let mut tags: Vec<String> = text.lines().map(str::to_owned).collect();
    tags.sort();
    tags
}

#[test]
fn df_tells_shared_from_unique_and_counts_logs() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    bring(&daemon, "a:1", 3_000_000);
    bring(&daemon, "b:1", 1_000_000);
    let base: u64 = daemon
        .ok(["image", "inspect", "--format", "{{.Size}}", "busybox"])
        .parse()
        .expect("a number");
    daemon.ok(["volume", "create", "kept"]);
    daemon.hull([
        "run",
        "--name",
        "talker",
        "-v",
        "kept:/v",
        "a:1",
        "sh",
        "-c",
        "yes | head -c 200000; head -c 50000 /dev/zero >/written; head -c 7000 /dev/zero >/v/f",
    ]);
    let usage = df(&daemon, "");
    assert_eq!(usage["LayersSize"].as_u64(), Some(base + 4_000_000));
    let of = |tag: &str| {
        usage["Images"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|image| image["RepoTags"][0] == tag)
            .expect("the image")
            .clone()
    };
    assert_eq!(of("a:1")["SharedSize"].as_u64(), Some(base));
    assert_eq!(of("a:1")["Size"].as_u64(), Some(base + 3_000_000));
    assert_eq!(of("a:1")["Containers"], 1);
    assert_eq!(of("b:1")["Containers"], 0);
    assert_eq!(of("busybox:latest")["SharedSize"].as_u64(), Some(base));
    let written = usage["Containers"][0]["SizeRw"].as_u64().expect("a size");
    // The log has more than the text itself: each line is JSON.
    assert!(written > 250_000, "{written}");
    assert_eq!(usage["Volumes"][0]["UsageData"]["Size"], 7000);
    assert_eq!(usage["Volumes"][0]["UsageData"]["RefCount"], 1);
    let only = df(&daemon, "?type=volume");
    assert_eq!(only["Volumes"].as_array().map(Vec::len), Some(1));
    assert_eq!(only["Images"].as_array().map_or(0, Vec::len), 0);
    let two = df(&daemon, "?type=image&type=container");
    assert_eq!(two["Images"].as_array().map(Vec::len), Some(3));
    assert_eq!(two["Containers"].as_array().map(Vec::len), Some(1));
    assert_eq!(daemon.api("GET", "/system/df?type=x", None).status, 400);
    let text = daemon.ok(["system", "df"]);
    for line in [
        "Images          3         1",
        "Containers      1         0",
        "Build Cache     0",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let text = daemon.ok(["system", "df", "-v"]);
    for part in [
        "SHARED SIZE",
        "UNIQUE SIZE",
        "Build cache usage: 0B",
        "talker",
        "kept",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let text = daemon.ok([
        "system",
        "df",
        "-v",
        "--format",
        "{{range .Images}}{{.Repository}} {{end}}",
    ]);
    assert!(text.contains("busybox"), "{text}");
}

#[test]
fn images_as_a_tree_show_platforms_layers_and_use() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    bring(&daemon, "a:1", 1000);
    daemon.ok(["tag", "a:1", "a:2"]);
    daemon.ok(["create", "a:1"]);
    let text = daemon.ok(["image", "ls", "--tree"]);
    assert!(
        text.contains("DISK USAGE") && text.contains("CONTENT SIZE"),
        "{text}"
    );
    assert!(text.contains("linux/amd64"), "{text}");
    let used = text
        .lines()
        .find(|line| line.starts_with("a:2"))
        .expect("the image");
    assert!(used.ends_with('U'), "{text}");
    let idle = text
        .lines()
        .find(|line| line.starts_with("busybox"))
        .expect("the image");
    assert!(!idle.ends_with('U'), "{text}");
    assert!(!text.contains("layer 1"), "{text}");
    let text = daemon.ok(["images", "-a", "--tree", "a"]);
    assert!(
        text.contains("├─ layer 1") && text.contains("└─ layer 2"),
        "{text}"
    );
    daemon
        .hull(["images", "--tree", "-q"])
        .fails_saying(1, "--tree");
    let answer = daemon.api("GET", "/images/json?manifests=1&shared-size=1", None);
    let list = answer.json();
    assert_eq!(
        list[0]["Manifests"][0]["ImageData"]["Platform"]["os"],
        "linux"
    );
    assert!(list[0]["SharedSize"].as_i64().is_some_and(|size| size > 0));
}

#[test]
fn images_are_removed_by_tag_id_and_digest_as_docker_does() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    let id = bring(&daemon, "a:1", 1000);
    daemon.ok(["tag", "a:1", "a:2"]);
    daemon.ok(["tag", "a:1", "other:1"]);
    daemon
        .hull(["rmi", &id])
        .fails_saying(1, "referenced in multiple repositories");
    assert_eq!(daemon.ok(["rmi", "other:1"]), "Untagged: other:1");
    // Two tags of one repository are more than one name, too.
    daemon.hull(["rmi", &id]).fails_saying(1, "must be forced");
    let out = daemon.ok(["rmi", "-f", &id]);
    assert_eq!(out, format!("Untagged: a:1\nUntagged: a:2\nDeleted: {id}"));
    // Several at once: what cannot be removed does not keep the others.
    bring(&daemon, "b:1", 1000);
    bring(&daemon, "c:1", 1000);
    let out = daemon.hull(["rmi", "b:1", "none:1", "c:1"]);
    assert_eq!(out.code, 1);
    assert!(out.stdout.contains("Untagged: b:1") && out.stdout.contains("Untagged: c:1"));
    assert!(
        out.stderr.to_lowercase().contains("no such image"),
        "{}",
        out.stderr
    );
    // A stopped container keeps its image, a running one its name, too.
    let id = bring(&daemon, "d:1", 1000);
    daemon.ok(["create", "--name", "user", "d:1", "sleep", "100"]);
    daemon.hull(["rmi", "d:1"]).fails_saying(1, "must force");
    daemon.ok(["start", "user"]);
    daemon
        .hull(["rmi", "-f", "d:1"])
        .fails_saying(1, "cannot be forced");
    daemon.ok(["kill", "user"]);
    daemon.wait_state("user", "exited");
    assert_eq!(daemon.ok(["rmi", "-f", "d:1"]), "Untagged: d:1");
    daemon.ok(["start", "user"]);
    daemon.ok(["rm", "-f", "user"]);
    let out = daemon.ok(["image", "prune", "-f"]);
    assert!(out.contains(&id), "{out}");
}

#[test]
fn parents_of_a_committed_image_go_with_it() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    let make = |from: &str, name: &[&str]| {
        let id = daemon.ok(["run", "-d", from, "sh", "-c", "echo >>/grows"]);
        daemon.ok(["wait", &id]);
        let image = daemon.ok(["commit", &id].iter().chain(name));
        daemon.ok(["rm", &id]);
        image
    };
    let middle = make("busybox", &[]);
    let top = make(&middle, &["top:1"]);
    // What only others were built upon is not listed by itself.
    assert_eq!(images(&daemon, &[]), ["busybox:latest", "top:1"]);
    assert_eq!(images(&daemon, &["-a"]).len(), 3);
    daemon
        .hull(["rmi", &middle])
        .fails_saying(1, "dependent child");
    daemon.ok(["image", "prune", "-f"]);
    daemon.ok(["image", "inspect", &middle]);
    let out = daemon.ok(["rmi", "top:1"]);
    assert_eq!(
        out,
        format!("Untagged: top:1\nDeleted: {top}\nDeleted: {middle}")
    );
    let middle = make("busybox", &[]);
    make(&middle, &["top:1"]);
    daemon.ok(["rmi", "--no-prune", "top:1"]);
    daemon.ok(["image", "inspect", &middle]);
    assert_eq!(
        images(&daemon, &["--filter", "dangling=true"]),
        ["<none>:<none>"]
    );
    assert_eq!(
        images(&daemon, &["--filter", "dangling=false"]),
        ["busybox:latest"]
    );
}

#[test]
fn prune_keeps_to_its_filters() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    let old = bring(&daemon, "a:1", 1000);
    daemon.load(&archive(&daemon, "a:1", 2000, json!({"of": "second"})));
    bring(&daemon, "b:1", 1000);
    daemon.ok(["create", "--name", "user", "busybox"]);
    let prune = |args: &[&str]| daemon.ok(["image", "prune", "-f"].iter().chain(args));
    assert_eq!(
        prune(&["--filter", "label=of=none"]),
        "Total reclaimed space: 0B"
    );
    assert_eq!(
        prune(&["--filter", "label!=of"]),
        "Total reclaimed space: 0B"
    );
    assert_eq!(
        prune(&["--filter", "until=1970-01-02T00:00:00Z"]),
        "Total reclaimed space: 0B"
    );
    daemon
        .hull(["image", "prune", "-f", "--filter", "until=soon"])
        .fails(1);
    daemon
        .hull(["image", "prune", "-f", "--filter", "color=red"])
        .fails_saying(1, "invalid filter");
    let answer = daemon.api(
        "POST",
        "/images/prune?filters=%7B%22dangling%22%3A%5B%22maybe%22%5D%7D",
        None,
    );
    assert_eq!(answer.status, 400, "{}", answer.body);
    let out = prune(&["--filter", "label=of=a:1"]);
    assert!(out.contains(&format!("deleted: {old}")), "{out}");
    let events = daemon.ok([
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--filter",
        "event=prune",
        "--format",
        "{{.Type}} {{.Actor.Attributes.reclaimed}}",
    ]);
    assert!(events.lines().any(|line| line == "image 1000"), "{events}");
    let out = prune(&["-a", "--filter", "label!=of=second"]);
    assert!(out.contains("untagged: b:1"), "{out}");
    assert_eq!(images(&daemon, &[]), ["a:1", "busybox:latest"]);
    let out = daemon.ok(["system", "prune", "-af"]);
    assert!(
        out.contains("untagged: a:1") && out.contains("Deleted Containers"),
        "{out}"
    );
    assert_eq!(images(&daemon, &[]), [] as [String; 0]);
}

#[test]
fn inspect_tells_names_places_and_times() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    let before = daemon.inspect_json("busybox");
    let top = before["GraphDriver"]["Data"]["UpperDir"]
        .as_str()
        .expect("a path");
    assert!(fs::metadata(top).is_ok_and(|meta| meta.is_dir()), "{top}");
    assert_eq!(before["RootFS"]["Layers"].as_array().map(Vec::len), Some(1));
    std::thread::sleep(std::time::Duration::from_millis(5));
    daemon.ok(["tag", "busybox", "again:1"]);
    let after = daemon.inspect_json("busybox");
    let time = |one: &Value| {
        one["Metadata"]["LastTagTime"]
            .as_str()
            .unwrap_or("")
            .to_owned()
    };
    assert!(
        time(&after) > time(&before),
        "{} {}",
        time(&before),
        time(&after)
    );
    let id = daemon.ok(["create", "--name", "one", "busybox"]);
    let data = daemon.inspect_json("one")["GraphDriver"]["Data"].clone();
    assert!(
        data["UpperDir"]
            .as_str()
            .is_some_and(|dir| dir.contains(&id)),
        "{data}"
    );
}

#[test]
fn size_of_a_writable_layer_is_refused_where_it_cannot_be_kept() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    let out = daemon.hull([
        "run",
        "--rm",
        "--storage-opt",
        "size=64m",
        "busybox",
        "true",
    ]);
    // The test host's own disk has no project quotas.
    out.fails_saying(125, "ext4 made with -O quota,project");
    daemon
        .hull(["create", "--storage-opt", "size=much", "busybox"])
        .fails_saying(1, "invalid size");
    daemon
        .hull(["create", "--storage-opt", "color=red", "busybox"])
        .fails_saying(1, "unknown storage option color");
    assert_eq!(daemon.ok(["ps", "-aq"]), "");
    // The image host writes to memory, which can always be limited.
    let text = daemon.ok([
        "run",
        "--rm",
        "--storage-opt",
        "size=32m",
        "host",
        "df",
        "-k",
        "/",
    ]);
    assert!(text.contains("32768"), "{text}");
}

/// A guest on a busy host takes its time to start a daemon.
const UP: &str = "up() { for try in 1 2 3 4 5 6; do hull info >/dev/null 2>&1 && return; sleep 2; done; hull info; }";

/// Commands in a guest whose disk has project quotas, which the test host's kernel lacks.
const QUOTA: [(&str, &str); 10] = [
    (
        "disk",
        "truncate -s 512M /disk && mke2fs -q -t ext4 -O quota,project -E quotatype=prjquota /disk && mkdir /quota \
         && mount -o loop,prjquota /disk /quota && up && hull load -q -i /payload/busybox.tar",
    ),
    (
        "limit",
        "hull run --name small --storage-opt size=16M busybox sh -c \
         'df -k / | tail -1; dd if=/dev/zero of=/fill bs=1M count=64; ls -l /fill; df -k / | tail -1'; \
         hull inspect --size --format '{{json .GraphDriver.Data}} {{json .HostConfig.StorageOpt}} {{.SizeRw}}' small",
    ),
    // The others have the whole disk.
    (
        "free",
        "hull run --rm busybox dd if=/dev/zero of=/fill bs=1M count=64 && echo whole",
    ),
    (
        "again",
        "hull start -a small; hull exec small true; hull rm -f small; sleep 1; ls /quota/hull/snapshot && echo gone",
    ),
    (
        "volatile",
        "hull run --rm --storage-opt size=8M busybox sh -c 'dd if=/dev/zero of=/fill bs=1M count=20; rm /fill; dd if=/dev/zero of=/fill bs=1M count=4 && echo fits'",
    ),
    (
        "two",
        "hull run -d --name first --storage-opt size=8M busybox sh -c 'dd if=/dev/zero of=/fill bs=1M count=7; sleep 1000' \
         && hull run --rm --storage-opt size=8M busybox sh -c 'dd if=/dev/zero of=/fill bs=1M count=7 && echo own'; hull rm -f first",
    ),
    (
        "killed",
        "hull create --name second --storage-opt size=8M busybox sh -c 'dd if=/dev/zero of=/fill bs=1M count=20'; \
         kill -9 $(cat /run/hull/hull.pid); sleep 1; up; hull start -a second; hull ps -as --format '{{.Size}}' --filter name=second; hull rm -f second",
    ),
    (
        "ps",
        "hull system df --format '{{.Type}} {{.Size}}'; hull daemon stop --all; umount /quota && echo unmounted",
    ),
    (
        "xfs",
        "modprobe xfs; truncate -s 512M /xdisk && mkfs.xfs -q /xdisk && mkdir /xquota && mount -o loop,pquota /xdisk /xquota || exit 1; \
         export HULL_DATA_DIR=/xquota/hull; up; hull load -q -i /payload/busybox.tar; \
         hull run --rm --storage-opt size=16M busybox sh -c 'df -k / | tail -1; dd if=/dev/zero of=/fill bs=1M count=64 && echo unlimited'; \
         hull run --rm busybox dd if=/dev/zero of=/fill bs=1M count=64 && hull daemon stop --all; umount /xquota && echo unmounted",
    ),
    (
        "plain",
        "mount -o loop /xdisk /xquota || exit 1; export HULL_DATA_DIR=/xquota/hull; up; \
         hull run --rm --storage-opt size=16M busybox true; hull daemon stop --all; umount /xquota",
    ),
];

#[test]
fn size_of_a_writable_layer_is_kept_by_project_quotas() {
    let daemon = Daemon::builder().bare().start();
    if daemon.is_docker() {
        return;
    }
    let dir = paths::target().join(format!("machine-quota-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("make a folder for the guest");
    let mut guest = Guest::script(&dir).file(&fixtures::busybox(), "busybox.tar");
    for (name, command) in QUOTA {
        let command = format!("{UP}\nmodprobe loop; export HULL_DATA_DIR=/quota/hull\n{command}");
        guest = guest.command(name, &command);
    }
    let report = guest.run();
    let _ = fs::remove_dir_all(&dir);
    report.check("disk", 0, "");
    let limit = &report.fate("limit").output;
    // df inside shows the limit, writing stops at it, inspect says how it stands.
    assert!(limit.contains("16384"), "{}", report.all());
    assert!(
        limit.contains("quota exceeded") || limit.contains("No space left"),
        "{}",
        report.all()
    );
    assert!(limit.contains(r#""SizeLimit":"16777216""#), "{limit}");
    assert!(limit.contains(r#"{"size":"16M"}"#), "{limit}");
    report.check("free", 0, "whole");
    report.check("again", 0, "exceeded");
    report.check("volatile", 0, "fits");
    report.check("two", 0, "own");
    let killed = &report.fate("killed").output;
    assert!(
        killed.contains("xceeded") || killed.contains("No space left"),
        "{}",
        report.all()
    );
    report.check("ps", 0, "unmounted");
    report.check("xfs", 0, "unmounted");
    let xfs = &report.fate("xfs").output;
    assert!(xfs.contains("16384"), "{xfs}");
    assert!(
        xfs.contains("No space left") && !xfs.contains("unlimited"),
        "{xfs}"
    );
    report.check("plain", 0, "they are not switched on");
}
