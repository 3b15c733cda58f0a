//! Mounts: mapped ids, recursive options, sources and targets that are links or files.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown, symlink};
use std::path::PathBuf;

use hull_oci_tests::Runtime;
use serde_json::{Value, json};

use super::Case;

/// Where the ids of containers with users of their own begin on the host.
const BASE: u32 = 200_000;

/// A folder of the host with a file of user 5 and group 6, or as mapped.
fn source(runtime: &Runtime) -> PathBuf {
    let dir = runtime.dir().join("source");
    fs::create_dir(&dir).expect("folder");
    fs::write(dir.join("given"), "content\n").expect("file");
    chown(dir.join("given"), Some(5), Some(6)).expect("chown");
    dir
}

fn bind(runtime: &Runtime, options: &Value) -> Value {
    json!({"destination": "/x", "type": "bind", "source": source(runtime), "options": options})
}

/// A bundle whose users are those of the host from [`BASE`] on, with its root file system theirs.
fn with_users(runtime: &Runtime, mount: Value, script: &str) -> String {
    let maps = json!([{"containerID": 0, "hostID": BASE, "size": 1000}]);
    let bundle = runtime.bundle(
        "c",
        &[
            ("/linux/namespaces/-", json!({"type": "user"})),
            ("/linux/uidMappings", maps.clone()),
            ("/linux/gidMappings", maps),
            ("/mounts/-", mount),
        ],
        script,
    );
    let owner = format!("{BASE}:{BASE}");
    for dir in [bundle.root(), bundle.dir.clone()] {
        let _ = std::process::Command::new("chown")
            .args(["-hR", &owner])
            .arg(dir)
            .status();
    }
    for dir in [runtime.dir(), &bundle.dir] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir, mode).expect("mode");
    }
    runtime.ok(&["run", "-b", bundle.path(), "c"])
}

pub(crate) fn cases() -> Vec<Case> {
    let look = "stat -c %u:%g /x/given; touch /x/new";
    let mut all = vec![
        Case::new("mounts.idmap.mappings", move |runtime| {
            let mut mount = bind(runtime, &json!(["bind"]));
            let maps = json!([{"containerID": 0, "hostID": BASE, "size": 1000}]);
            mount["uidMappings"] = maps.clone();
            mount["gidMappings"] = maps;
            assert_eq!(with_users(runtime, mount, look), "5:6\n");
            let made = fs::metadata(runtime.dir().join("source/new")).expect("made");
            assert_eq!((made.uid(), made.gid()), (0, 0));
        }),
        Case::new("mounts.idmap.option", move |runtime| {
            let mount = bind(runtime, &json!(["bind", "idmap"]));
            assert_eq!(with_users(runtime, mount, look), "5:6\n");
        }),
        Case::new("mounts.idmap.recursive", move |runtime| {
            let mount = bind(runtime, &json!(["rbind", "ridmap"]));
            assert_eq!(with_users(runtime, mount, look), "5:6\n");
        }),
        Case::new("mounts.idmap.without-users", |runtime| {
            // The mount alone has mappings; the container's users are the host's.
            let mut mount = bind(runtime, &json!(["bind", "idmap"]));
            mount["uidMappings"] = json!([{"containerID": 0, "hostID": 0, "size": 5}, {"containerID": 5, "hostID": 77, "size": 10}]);
            mount["gidMappings"] = json!([{"containerID": 0, "hostID": 0, "size": 100}]);
            let said = runtime.script(&[("/mounts/-", mount)], "stat -c %u:%g /x/given");
            assert_eq!(said, "77:6\n");
        }),
        Case::new("mounts.bind.file", |runtime| {
            let mount = json!({"destination": "/etc/given", "type": "bind", "source": source(runtime).join("given"), "options": ["bind", "ro"]});
            let said = runtime.script(
                &[("/mounts/-", mount)],
                "cat /etc/given; (echo x >/etc/given) 2>/dev/null || echo refused",
            );
            assert_eq!(said, "content\nrefused\n");
        }),
        Case::new("mounts.bind.relative-source", |runtime| {
            let mount = json!({"destination": "/x", "type": "bind", "source": "beside", "options": ["bind"]});
            let bundle = runtime.bundle("c", &[("/mounts/-", mount)], "cat /x/file");
            fs::create_dir(bundle.dir.join("beside")).expect("folder");
            fs::write(bundle.dir.join("beside/file"), "beside\n").expect("file");
            assert_eq!(runtime.ok(&["run", "-b", bundle.path(), "c"]), "beside\n");
        }),
        Case::new("mounts.bind.type-none", |runtime| {
            let mut mount = bind(runtime, &json!(["bind"]));
            mount["type"] = json!("none");
            assert_eq!(
                runtime.script(&[("/mounts/-", mount)], "cat /x/given"),
                "content\n"
            );
        }),
        Case::new("mounts.target-is-a-link", |runtime| {
            let mount = json!({"destination": "/link/x", "type": "tmpfs", "source": "t"});
            let bundle = runtime.bundle(
                "c",
                &[("/mounts/-", mount)],
                "grep -c ' /data/x tmpfs' /proc/mounts",
            );
            symlink("/data", bundle.root().join("link")).expect("link");
            assert_eq!(runtime.ok(&["run", "-b", bundle.path(), "c"]), "1\n");
        }),
        Case::new("mounts.order", |runtime| {
            let script = "grep -c ' /x/y ' /proc/mounts; ls /x";
            let said = runtime.script(
                &[
                    (
                        "/mounts/-",
                        json!({"destination": "/x", "type": "tmpfs", "source": "a"}),
                    ),
                    (
                        "/mounts/-",
                        json!({"destination": "/x/y", "type": "tmpfs", "source": "b"}),
                    ),
                ],
                script,
            );
            assert_eq!(said, "1\ny\n");
        }),
        Case::says(
            "mounts.tmpfs.nr_inodes",
            vec![(
                "/mounts/-",
                json!({"destination": "/x", "type": "tmpfs", "source": "x", "options": ["nr_inodes=77", "uid=3", "gid=4"]}),
            )],
            "grep -c 'nr_inodes=77.*uid=3,gid=4' /proc/mounts; stat -c %u:%g /x",
            "1\n3:4",
        ),
        Case::says(
            "mounts.tmpfs.atime",
            vec![(
                "/mounts/-",
                json!({"destination": "/x", "type": "tmpfs", "source": "x", "options": ["noatime", "nodiratime"]}),
            )],
            "grep ' /x ' /proc/self/mountinfo",
            "~noatime,nodiratime",
        ),
        Case::says(
            "mounts.proc.options",
            vec![(
                "/mounts/0/options",
                json!(["nosuid", "noexec", "nodev", "hidepid=2"]),
            )],
            "grep -cE ' /proc .*hidepid=(2|invisible)' /proc/self/mountinfo",
            "1",
        ),
        Case::says(
            "mounts.devpts.gid",
            vec![(
                "/mounts/2/options",
                json!([
                    "nosuid",
                    "noexec",
                    "newinstance",
                    "ptmxmode=0666",
                    "mode=0620",
                    "gid=5"
                ]),
            )],
            "grep -c 'devpts.*gid=5,mode=620,ptmxmode=666' /proc/mounts; stat -c %a /dev/pts/ptmx",
            "1\n666",
        ),
        Case::new("mounts.propagation.of-a-bind", |runtime| {
            let mount = bind(runtime, &json!(["rbind", "rslave"]));
            let said = runtime.script(
                &[("/mounts/-", mount)],
                "grep ' /x ' /proc/self/mountinfo; echo",
            );
            assert!(!said.contains("shared:"), "said {said}");
        }),
    ];
    for (name, options, wanted) in [
        ("mounts.recursive.rro", json!(["rbind", "rro"]), "ro"),
        (
            "mounts.recursive.rnosuid",
            json!(["rbind", "rnosuid"]),
            "nosuid",
        ),
        (
            "mounts.recursive.rnodev",
            json!(["rbind", "rnodev"]),
            "nodev",
        ),
        (
            "mounts.recursive.rnoexec",
            json!(["rbind", "rnoexec"]),
            "noexec",
        ),
        (
            "mounts.recursive.rnoatime",
            json!(["rbind", "rnoatime"]),
            "noatime",
        ),
        (
            "mounts.recursive.rnosymfollow",
            json!(["rbind", "rnosymfollow"]),
            "nosymfollow",
        ),
    ] {
        all.push(Case::new(name, move |runtime| {
            // The mount below is made in a namespace of the case's own.
            let mount = bind(runtime, &options);
            let below = runtime.dir().join("source/below");
            fs::create_dir(&below).expect("folder");
            let script = "grep ' /x/below ' /proc/self/mountinfo | cut -d' ' -f6";
            let bundle = runtime.bundle("c", &[("/mounts/-", mount)], script);
            let outside = format!(
                "exec unshare -m --propagation private bash -c 'mount -t tmpfs t {} && exec \"$@\"' bash \"$@\"",
                below.display()
            );
            let args = ["run", "-b", bundle.path(), "c"];
            let said = hull_oci_tests::said(&mut runtime.within(&outside, &args));
            assert_eq!(said.code, 0, "{}", said.err);
            let has = said.out.trim().split(',').any(|option| option == wanted);
            assert!(has, "said {}", said.out);
        }));
    }
    for (name, value, wanted) in [
        ("linux.rootfsPropagation.shared", "shared", "shared:"),
        ("linux.rootfsPropagation.slave", "slave", "rw"),
        ("linux.rootfsPropagation.private", "private", "rw"),
    ] {
        all.push(Case::new(name, move |runtime| {
            let said = runtime.script(
                &[("/linux/rootfsPropagation", json!(value))],
                "grep ' / / ' /proc/self/mountinfo || grep ' / rw' /proc/self/mountinfo",
            );
            assert!(said.contains(wanted), "said {said}");
            assert!(
                value == "shared" || !said.contains("shared:"),
                "said {said}"
            );
        }));
    }
    for (name, target) in [
        ("refused.mount-over-the-root", "/"),
        ("refused.mount-in-proc", "/proc/sys"),
    ] {
        all.push(Case::new(name, move |runtime| {
            let mount = json!({"destination": target, "type": "bind", "source": source(runtime), "options": ["bind"]});
            let bundle = runtime.bundle("c", &[("/mounts/-", mount)], "true");
            let said = runtime.run(&["run", "-b", bundle.path(), "c"]);
            assert!(said.code > 0, "was not refused, ended with {}", said.code);
            runtime.nothing_left();
        }));
    }
    all
}
