//! Namespaces of users, of clocks and of mounts, and id-mapped mounts, as root; what runc knows is
//! run by it, too.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::process::Command;

use serde_json::{Value, json};
use support::{Bundle, Runtime};

/// Where the container's ids lie on the host.
const BASE: u32 = 400_000;

fn own_users(bundle: &mut Bundle) {
    let map = json!([{ "containerID": 0, "hostID": BASE, "size": 65_536 }]);
    bundle
        .set("/linux/namespaces/-", json!({ "type": "user" }))
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    let given = Command::new("chown")
        .args(["-hR", &format!("{BASE}:{BASE}")])
        .arg(bundle.root())
        .status()
        .expect("chown");
    assert!(given.success());
    // runc reaches the root file system with the container's ids.
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(bundle.dir.path(), everyone).expect("mode");
}

#[test]
fn user_namespace_of_its_own() {
    for runtime in Runtime::both() {
        let script = "id -u; cat /proc/self/uid_map; echo x > /dev/null && echo null; touch /made";
        let mut bundle = Bundle::new(&runtime, "u", &["sh", "-c", script]);
        own_users(&mut bundle);
        let text = runtime.ok(&["run", "-b", bundle.path(), "u"]);
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words, ["0", "0", "400000", "65536", "null"]);
        let made = fs::metadata(bundle.root().join("made")).expect("made");
        assert_eq!((made.uid(), made.gid()), (BASE, BASE));
    }
}

#[test]
fn exec_into_a_user_namespace_and_its_users() {
    for runtime in Runtime::both() {
        let mut bundle = Bundle::new(&runtime, "u", &["sleep", "1000"]);
        own_users(&mut bundle);
        runtime.ok(&["run", "-d", "-b", bundle.path(), "u"]);
        let text = runtime.ok(&["exec", "u", "sh", "-c", "id -u; cat /proc/self/uid_map"]);
        assert!(text.starts_with("0\n") && text.contains("400000"), "{text}");
        let text = runtime.ok(&["exec", "--user", "7:8", "u", "id"]);
        assert!(text.starts_with("uid=7 gid=8"), "{text}");
        let pid = runtime.state("u")["pid"].to_string();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
        assert!(status.contains("Uid:\t400000"), "{status}");
    }
}

#[test]
fn user_namespace_by_path_is_shared() {
    let runtime = Runtime::ours();
    let mut first = Bundle::new(&runtime, "a", &["sleep", "1000"]);
    own_users(&mut first);
    runtime.ok(&["run", "-d", "-b", first.path(), "a"]);
    let pid = runtime.state("a")["pid"].to_string();
    let script = "id -u; readlink /proc/self/ns/user; readlink /proc/self/ns/net; hostname other && hostname";
    let mut second = Bundle::new(&runtime, "b", &["sh", "-c", script]);
    own_users(&mut second);
    let namespaces: Vec<Value> = ["user", "network"]
        .iter()
        .zip(["user", "net"])
        .map(|(kind, file)| json!({ "type": kind, "path": format!("/proc/{pid}/ns/{file}") }))
        .chain(["pid", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind })))
        .collect();
    second
        .set("/linux/namespaces", json!(namespaces))
        .set("/process/capabilities/bounding/-", json!("CAP_SYS_ADMIN"))
        .set("/process/capabilities/effective/-", json!("CAP_SYS_ADMIN"))
        .set("/process/capabilities/permitted/-", json!("CAP_SYS_ADMIN"));
    second
        .set("/linux/uidMappings", json!([]))
        .set("/linux/gidMappings", json!([]));
    let text = runtime.ok(&["run", "-b", second.path(), "b"]);
    let link = |name: &str| {
        let link = fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("link");
        link.to_string_lossy().into_owned()
    };
    let expected = format!("0\n{}\n{}\nother\n", link("user"), link("net"));
    assert_eq!(text, expected);
}

#[test]
fn clocks_have_their_offsets_for_exec_too() {
    let runtime = Runtime::ours();
    let mut bundle = Bundle::new(&runtime, "t", &["sleep", "1000"]);
    bundle
        .set("/linux/namespaces/-", json!({ "type": "time" }))
        .set(
            "/linux/timeOffsets",
            json!({ "boottime": { "secs": 864_000_000 }, "monotonic": { "secs": 1000, "nanosecs": 5 } }),
        );
    runtime.ok(&["run", "-d", "-b", bundle.path(), "t"]);
    let text = runtime.ok(&[
        "exec",
        "t",
        "cat",
        "/proc/self/timens_offsets",
        "/proc/uptime",
    ]);
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(
        words[..6],
        ["monotonic", "1000", "5", "boottime", "864000000", "0"]
    );
    let uptime: f64 = words[6].parse().expect("number");
    assert!(uptime > 864_000_000.0, "{uptime}");
}

#[test]
fn mount_of_mapped_ids() {
    let runtime = Runtime::ours();
    let script = "ls -ln /data; touch /data/new";
    let mut bundle = Bundle::new(&runtime, "i", &["sh", "-c", script]);
    own_users(&mut bundle);
    let data = bundle.dir.path().join("source");
    fs::create_dir(&data).expect("folder");
    fs::write(data.join("file"), "x").expect("file");
    chown(data.join("file"), Some(5), Some(6)).expect("chown");
    let mapped = |options: &[&str], maps: Option<Value>| {
        let mut mount = json!({ "destination": "/data", "type": "none", "source": "source", "options": options });
        if let Some(maps) = maps {
            mount["uidMappings"] = maps.clone();
            mount["gidMappings"] = maps;
        }
        mount
    };
    let list = json!([{ "containerID": 0, "hostID": BASE, "size": 1000 }]);
    bundle.set("/mounts/-", mapped(&["rbind"], Some(list)));
    let text = runtime.ok(&["run", "-b", bundle.path(), "i"]);
    assert!(text.contains(" 5        6 "), "{text}");
    let new = fs::metadata(data.join("new")).expect("made");
    assert_eq!((new.uid(), new.gid()), (0, 0));
    fs::remove_file(data.join("new")).expect("remove");
    // As the container maps them.
    let mut again = Bundle::new(&runtime, "j", &["sh", "-c", script]);
    own_users(&mut again);
    fs::rename(&data, again.dir.path().join("source")).expect("rename");
    again.set("/mounts/-", mapped(&["rbind", "ridmap"], None));
    let text = runtime.ok(&["run", "-b", again.path(), "j"]);
    assert!(text.contains(" 5        6 "), "{text}");
}

#[test]
fn without_a_mount_namespace_nothing_stays_mounted() {
    let runtime = Runtime::ours();
    let mut bundle = Bundle::new(&runtime, "m", &["sleep", "1000"]);
    let namespaces: Vec<Value> = ["pid", "ipc", "uts"]
        .map(|kind| json!({ "type": kind }))
        .to_vec();
    bundle
        .set("/linux/namespaces", json!(namespaces))
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]));
    let root = bundle.root();
    let mounted = || {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("table");
        table.contains(root.to_str().expect("text"))
    };
    runtime.ok(&["run", "-d", "-b", bundle.path(), "m"]);
    assert!(mounted());
    assert_eq!(
        runtime.ok(&["exec", "m", "ls", "/"]),
        "bin\ndata\ndev\netc\nproc\nsys\ntmp\n"
    );
    runtime.ok(&["delete", "--force", "m"]);
    assert!(!mounted());
    bundle.set("/process/args", json!(["true"]));
    runtime.ok(&["run", "-b", bundle.path(), "m"]);
    assert!(!mounted());
    bundle.set("/process/args", json!(["/no/such"]));
    runtime.fails(&["run", "-b", bundle.path(), "m"]);
    assert!(!mounted());
}

#[test]
fn contradictions_are_refused_by_their_field() {
    let runtime = Runtime::ours();
    let map = json!([{ "containerID": 0, "hostID": 1, "size": 1 }]);
    let cases: [(&str, Value, &str); 5] = [
        ("/linux/uidMappings", map, "linux.uidMappings"),
        (
            "/linux/timeOffsets",
            json!({ "monotonic": { "secs": 1 } }),
            "linux.timeOffsets",
        ),
        (
            "/linux/namespaces/-",
            json!({ "type": "user" }),
            "linux.uidMappings",
        ),
        (
            "/linux/namespaces/-",
            json!({ "type": "pid" }),
            "linux.namespaces[5]",
        ),
        (
            "/linux/namespaces/-",
            json!({ "type": "time", "path": "/proc/self/ns/uts" }),
            "linux.namespaces[5].path",
        ),
    ];
    for (pointer, value, part) in cases {
        let mut bundle = Bundle::new(&runtime, "x", &["true"]);
        bundle.set(pointer, value);
        let text = runtime.fails(&["run", "-b", bundle.path(), "x"]);
        assert!(text.contains(part), "{text}");
        assert_eq!(runtime.ok(&["list", "-q"]), "");
        assert!(runtime.cgroup_dirs().is_empty());
    }
}
