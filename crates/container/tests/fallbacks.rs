//! The ways of older kernels lead to the same container.

mod support;

use hull_proto::plan::{MountKind, MountOptions, PlanMount, RootFs};
use hull_sys::features::{Feature, Features};
use support::{Fixture, bind, process};

const SCRIPT: &str = "ls /proc/1/fd > /dev/shm/fds; wc -l < /dev/shm/fds; touch /data/x; touch /data/sub/y && echo sub; \
                      echo 1 > /proc/sys/kernel/domainname; touch /sys/x; touch /made; \
                      cat /proc/interrupts | wc -c; id -u; mkdir /sys/fs/cgroup/memory/x";

fn outcome(features: Features) -> String {
    let mut fixture = Fixture::new();
    fixture.host.features = features;
    let data = fixture.dir.join("data");
    std::fs::create_dir_all(data.join("sub")).expect("mkdir");
    let mut plan = fixture.plan(SCRIPT);
    plan.readonly_rootfs = true;
    let mut mount = bind(&data, "/data");
    mount.options = MountOptions {
        read_only: true,
        nosuid: true,
        ..MountOptions::default()
    };
    plan.mounts.push(mount);
    plan.mounts.push(PlanMount {
        target: "/data/sub".to_owned(),
        kind: MountKind::Tmpfs {
            data: "size=64k".to_owned(),
        },
        options: MountOptions::default(),
    });
    let (text, code) = fixture.run(&plan);
    assert_eq!(code, 1, "{text}");
    let host = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(
        !host.contains(&fixture.id),
        "nothing is left in the host's table"
    );
    text
}

#[test]
fn launch_with_each_feature_missing_gives_the_same_container() {
    let expected = outcome(Features::probe());
    assert_eq!(
        expected.matches("Read-only file system").count(),
        5,
        "{expected}"
    );
    for feature in [
        Feature::CloneIntoCgroup,
        Feature::MountSetattr,
        Feature::OverlayLowerAppend,
        Feature::CgroupKill,
        Feature::CloseRangeCloexec,
    ] {
        assert_eq!(
            outcome(Features::probe().without(feature)),
            expected,
            "{feature:?}"
        );
    }
    assert_eq!(outcome(Features::oldest()), expected);
}

#[test]
fn exec_on_the_oldest_kernel_leaks_nothing() {
    let mut fixture = Fixture::new();
    fixture.host.features = Features::oldest();
    let (running, _output) = fixture.start(&fixture.plan("sleep 1000"));
    let (text, _) = running
        .exec(&fixture, &process(&["/bin/ls", "/proc/self/fd"]))
        .expect("exec");
    assert_eq!(
        text.split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"],
        "{text}"
    );
}

fn with_layers(features: Features, count: usize) -> (String, i32) {
    let mut fixture = Fixture::new();
    fixture.host.features = features;
    let mut plan = fixture.plan("ls /layers | wc -l; cat /etc/top; id -u");
    let mut lower = Vec::new();
    for number in (0..count).rev() {
        let layer = fixture.dir.join(format!("l/{number:03}"));
        std::fs::create_dir_all(layer.join("layers")).expect("mkdir");
        std::fs::write(layer.join("layers").join(number.to_string()), "").expect("write");
        std::fs::create_dir_all(layer.join("etc")).expect("mkdir");
        std::fs::write(layer.join("etc/top"), format!("{number}\n")).expect("write");
        lower.push(layer);
    }
    lower.push(fixture.lower());
    plan.rootfs = RootFs::Overlay {
        lower,
        upper: fixture.dir.join("upper"),
        work: fixture.dir.join("work"),
        volatile: false,
    };
    plan.process.user = hull_proto::plan::PlanUser::Name("web".to_owned());
    fixture.run(&plan)
}

#[test]
fn launch_hundred_and_fifty_layers_show_the_topmost_file() {
    assert_eq!(
        with_layers(Features::probe(), 150),
        ("150\n149\n33\n".to_owned(), 0)
    );
}

#[test]
fn launch_hundred_layers_fit_one_page_of_options() {
    assert_eq!(
        with_layers(Features::oldest(), 100),
        ("100\n99\n33\n".to_owned(), 0)
    );
}

/// What mountinfo says of the mounts below /x and of the root, without their ids.
const SHOW: &str = "while read a b c d at rest; do case $at in /|/x*) echo $at ${rest%% - *};; \
                    esac; done < /proc/self/mountinfo";

fn options_of(features: Features) -> String {
    let mut fixture = Fixture::new();
    fixture.host.features = features;
    let data = fixture.dir.join("data");
    std::fs::create_dir_all(&data).expect("mkdir");
    let mut plan = fixture.plan(SHOW);
    plan.rootfs_propagation = "rshared".to_owned();
    let options = MountOptions {
        nodev: true,
        set: libc::MOUNT_ATTR_NODIRATIME,
        access_time: hull_proto::plan::AccessTime::Never,
        ..MountOptions::default()
    };
    let mut mount = bind(&data, "/x/bind");
    mount.options = MountOptions {
        propagation: "unbindable".to_owned(),
        ..options.clone()
    };
    plan.mounts.push(mount);
    plan.mounts.push(PlanMount {
        target: "/x/new".to_owned(),
        kind: MountKind::Filesystem {
            kind: "tmpfs".to_owned(),
            source: "t".to_owned(),
            data: vec!["size=64k".to_owned(), "sync".to_owned()],
        },
        options: MountOptions {
            read_only: true,
            propagation: "shared".to_owned(),
            ..options
        },
    });
    plan.mounts.push(PlanMount {
        target: "/x/new/below".to_owned(),
        kind: MountKind::Tmpfs {
            data: "size=64k".to_owned(),
        },
        options: MountOptions::default(),
    });
    let (text, code) = fixture.run(&plan);
    assert_eq!(code, 0, "{text}");
    // The order of the table and the numbers of peer groups differ.
    let mut lines: Vec<_> = text
        .lines()
        .map(|line| line.split(':').next().unwrap_or_default())
        .collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[test]
fn launch_options_and_propagation_without_mount_setattr_are_the_same() {
    let expected = options_of(Features::probe());
    for part in [
        "/ rw,relatime shared",
        "/x/bind rw,nodev,noatime,nodiratime shared",
        "/x/new ro,nodev,noatime,nodiratime shared",
        "/x/new/below rw,relatime shared",
    ] {
        assert!(expected.contains(part), "{part}: {expected}");
    }
    assert_eq!(options_of(Features::oldest()), expected);
}
