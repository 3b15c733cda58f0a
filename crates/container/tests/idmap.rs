//! Id-mapped mounts, with and without a user namespace of the container's own.

mod support;

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::PathBuf;

use hull_proto::oci::{IdMap, IdMappings, MountIdMap};
use hull_proto::plan::{MountKind, Namespace, PlanMount, RootFs};
use support::{Fixture, bind};

fn mappings(inside: u32, outside: u32, count: u32) -> IdMappings {
    let map = IdMap {
        inside,
        outside,
        count,
    };
    IdMappings {
        uids: vec![map],
        gids: vec![map],
    }
}

/// A folder with a file of user 5 and one of root.
fn source(fixture: &Fixture) -> PathBuf {
    let dir = fixture.dir.join("data");
    std::fs::create_dir(&dir).expect("mkdir");
    for (name, owner) in [("five", 5), ("root", 0)] {
        std::fs::write(dir.join(name), name).expect("write");
        chown(dir.join(name), Some(owner), Some(owner)).expect("chown");
    }
    dir
}

fn mapped(source: &std::path::Path, mappings: Option<IdMappings>, recursive: bool) -> PlanMount {
    let mut mount = bind(source, "/data");
    mount.options.idmap = Some(MountIdMap {
        mappings,
        recursive,
    });
    mount
}

#[test]
fn own_mappings_shift_owners_and_new_files_are_shifted_back() {
    let fixture = Fixture::new();
    let dir = source(&fixture);
    let mut plan = fixture.plan("stat -c '%u %g' /data/five; touch /data/new; chmod 777 /data");
    plan.mounts
        .push(mapped(&dir, Some(mappings(5, 1005, 1)), false));
    let (text, _) = fixture.run(&plan);
    // Root has no id on that mount and can make nothing there.
    assert!(text.starts_with("1005 1005\n"), "{text}");
    assert!(!dir.join("new").exists(), "{text}");

    let mut plan = fixture.plan("stat -c '%u %g' /data/root /data/five; touch /data/new");
    plan.mounts
        .push(mapped(&dir, Some(mappings(0, 0, 1000)), false));
    assert_eq!(fixture.run(&plan).0, "0 0\n5 5\n");
    assert!(dir.join("new").exists());
}

#[test]
fn mappings_of_the_container_show_files_of_the_host_as_its_own() {
    let fixture = Fixture::new();
    let dir = source(&fixture);
    let mut plan =
        fixture.plan("stat -c '%u %g' /data/root /data/five; touch /data/new && echo ok");
    plan.rootfs = RootFs::Directory {
        path: fixture.lower(),
    };
    plan.namespaces.user = Namespace::New;
    plan.id_mappings = mappings(0, 300_000, 65_536);
    // Its root file system is the host's: nothing can be made in it, all targets are there.
    for target in ["proc", "dev", "sys", "data"] {
        std::fs::create_dir_all(fixture.lower().join(target)).expect("mkdir");
    }
    plan.mounts.push(mapped(&dir, None, true));
    let (text, _) = fixture.run(&plan);
    assert_eq!(text, "0 0\n5 5\nok\n");
    let new = std::fs::metadata(dir.join("new")).expect("made");
    assert_eq!((new.uid(), new.gid()), (0, 0));
}

#[test]
fn idmap_of_what_cannot_be_mapped_is_refused() {
    let fixture = Fixture::new();
    let dir = source(&fixture);
    let mut plan = fixture.plan("true");
    plan.mounts.push(mapped(&dir, None, false));
    let error = fixture.try_run(&plan).expect_err("refused").to_string();
    assert!(error.contains("no user namespace"), "{error}");

    let mut plan = fixture.plan("true");
    let mut mount = mapped(&dir, Some(mappings(0, 1, 1)), false);
    mount.kind = MountKind::Tmpfs {
        data: String::new(),
    };
    plan.mounts.push(mount);
    let error = fixture.try_run(&plan).expect_err("refused").to_string();
    assert!(error.contains("bind mounts alone"), "{error}");

    let mut plan = fixture.plan("true");
    let mount = mapped("/proc".as_ref(), Some(mappings(0, 1, 1)), false);
    plan.mounts.push(mount);
    let error = fixture.try_run(&plan).expect_err("refused").to_string();
    assert!(
        error.contains("/data") && error.contains("cannot map ids"),
        "{error}"
    );
}
