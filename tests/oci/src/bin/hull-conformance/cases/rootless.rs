//! A user without privileges: one id of his own, no control groups.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use hull_oci_tests::{Bundle, Runtime, Said, said};
use serde_json::{Value, json};

use super::Case;

/// A user whom no host knows.
const USER: u32 = 54_321;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("rootless.run", |runtime| {
            let user = User::new(
                runtime,
                "id -u; cat /proc/self/setgroups; tr -s ' ' </proc/self/uid_map; echo x >/dev/null && touch /data/made",
                &[],
            );
            let said = user.ok(&["run", "-b", user.bundle(), "c"]);
            assert_eq!(said, format!("0\ndeny\n 0 {USER} 1\n"));
            let made = fs::metadata(user.bundle.root().join("data/made")).expect("made");
            assert_eq!(made.uid(), USER);
        }),
        Case::new("rootless.lifecycle", |runtime| {
            let user = User::new(runtime, "exec sleep 1000", &[]);
            user.ok(&["create", "-b", user.bundle(), "c"]);
            assert_eq!(user.state()["status"], "created");
            user.ok(&["start", "c"]);
            assert_eq!(user.state()["status"], "running");
            assert!(user.run(&["delete", "c"]).code > 0, "deleted while it runs");
            user.ok(&["kill", "c", "KILL"]);
            user.stopped();
            user.ok(&["delete", "c"]);
            assert!(user.run(&["state", "c"]).code > 0, "still there");
        }),
        Case::new("rootless.exec", |runtime| {
            let user = User::new(runtime, "exec sleep 1000", &[]);
            user.ok(&["run", "-d", "-b", user.bundle(), "c"]);
            let said = user.run(&[
                "exec",
                "c",
                "sh",
                "-c",
                "id -u; echo $GREETING; cat /proc/self/uid_map | tr -s ' '; exit 4",
            ]);
            user.ok(&["delete", "--force", "c"]);
            assert_eq!(said.code, 4, "{}", said.err);
            assert_eq!(said.out, format!("0\nhello\n 0 {USER} 1\n"));
        }),
        Case::new("rootless.limit-is-refused", |runtime| {
            let limit = json!({"memory": {"limit": 67_108_864}});
            let user = User::new(
                runtime,
                "true",
                &[
                    ("/linux/resources", limit),
                    ("/linux/cgroupsPath", json!("/oci-suite-of-a-user/c")),
                ],
            );
            let said = user.run(&["run", "-b", user.bundle(), "c"]);
            // No group was given to this user.
            assert!(said.code > 0, "was not refused, ended with {}", said.code);
            assert!(
                said.err.contains("cgroup") || said.err.contains("memory"),
                "{}",
                said.err
            );
        }),
        Case::new("rootless.devices-are-the-hosts", |runtime| {
            let user = User::new(
                runtime,
                "for d in null zero full random urandom tty; do [ -c /dev/$d ] || echo no $d; done; head -c 2 /dev/zero | wc -c",
                &[],
            );
            assert_eq!(user.ok(&["run", "-b", user.bundle(), "c"]), "2\n");
        }),
        Case::new("rootless.groups-of-the-host-stay", |runtime| {
            // CVE-2023-25809: the groups of the host must not be writable by way of a bound /sys.
            let user = User::new(
                runtime,
                "mkdir /sys/fs/cgroup/x 2>/dev/null && echo made; for d in /sys/fs/cgroup/*; do mkdir $d/x 2>/dev/null && echo made $d; done; true",
                &[],
            );
            assert_eq!(user.ok(&["run", "-b", user.bundle(), "c"]), "");
        }),
        Case::new("rootless.network-of-its-own", |runtime| {
            let mut user = User::new(
                runtime,
                "ls /sys/class/net; ip link | grep -c LOOPBACK",
                &[],
            );
            user.bundle
                .set("/linux/namespaces/-", json!({"type": "network"}));
            user.bundle.set("/mounts/3", json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}));
            user.bundle.write();
            let said = user.ok(&["run", "-b", user.bundle(), "c"]);
            assert!(said.starts_with("lo\n"), "said {said}");
        }),
        Case::new("rootless.ids-that-are-not-the-users", |runtime| {
            let many = json!([{"containerID": 0, "hostID": 0, "size": 10}]);
            let user = User::new(runtime, "id -u", &[("/linux/uidMappings", many)]);
            let said = user.run(&["run", "-b", user.bundle(), "c"]);
            assert!(said.code > 0, "root of the host: {}", said.out);
            assert!(said.out.is_empty(), "{}", said.out);
        }),
    ]
}

/// A user with a bundle in a folder of his own.
struct User<'a> {
    runtime: &'a Runtime,
    bundle: Bundle,
    home: PathBuf,
}

impl<'a> User<'a> {
    fn new(runtime: &'a Runtime, script: &str, changes: &[(&str, Value)]) -> Self {
        let mut bundle = Bundle::new(runtime, "c", &["sh", "-c", script]);
        let one = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
        bundle.set("/linux/uidMappings", one(USER));
        bundle.set("/linux/gidMappings", one(USER));
        bundle.set(
            "/linux/namespaces",
            json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "user"}]),
        );
        bundle.set("/linux/resources", json!({}));
        bundle.set(
            "/mounts/2/options",
            json!([
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620"
            ]),
        );
        // The network is the host's, so sysfs cannot be mounted anew.
        bundle.set(
            "/mounts/3",
            json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]}),
        );
        let linux = bundle.config["linux"].as_object_mut().expect("an object");
        linux.remove("cgroupsPath");
        for (pointer, value) in changes {
            bundle.set(pointer, value.clone());
        }
        bundle.write();
        let home = runtime.dir().join("home");
        fs::create_dir(&home).expect("folder");
        fs::set_permissions(
            &bundle.dir,
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .expect("mode");
        for dir in [&home, &bundle.dir] {
            give(dir);
        }
        let root = runtime.dir().join("root-of-user");
        fs::create_dir(&root).expect("folder");
        chown(&root, Some(USER), Some(USER)).expect("chown");
        Self {
            runtime,
            bundle,
            home,
        }
    }

    fn bundle(&self) -> &str {
        self.bundle.path()
    }

    fn run(&self, args: &[&str]) -> Said {
        said(&mut self.runtime.command_as(USER, &self.home, args))
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert_eq!(said.code, 0, "{args:?}: {}{}", said.out, said.err);
        said.out
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state", "c"])).expect("state is JSON")
    }

    fn stopped(&self) {
        let limit = std::time::Duration::from_secs(10);
        let ended = hull_testkit::wait_until(limit, || self.state()["status"] == "stopped");
        assert!(ended, "it is {}", self.state()["status"]);
    }
}

impl Drop for User<'_> {
    fn drop(&mut self) {
        let _ = self.run(&["delete", "--force", "c"]);
    }
}

fn give(dir: &Path) {
    let owner = format!("{USER}:{USER}");
    let given = Command::new("chown")
        .args(["-hR", &owner])
        .arg(dir)
        .status();
    assert!(given.is_ok_and(|status| status.success()), "chown");
}
