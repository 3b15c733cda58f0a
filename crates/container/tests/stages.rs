//! A launch that stops on the way for its caller.

mod support;

use std::cell::RefCell;
use std::os::fd::AsFd as _;

use hull_container::{BeforePivot, LaunchError, Options, Stdio, launch};
use hull_proto::plan::RootFs;
use support::{Fixture, Running};

#[test]
fn before_pivot_mounts_are_seen_at_the_bundle_path() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan("exit 7");
    plan.rootfs = RootFs::Directory {
        path: fixture.lower(),
    };
    let seen = RefCell::new(Vec::new());
    let look = |pid: u32| {
        let inside = format!("/proc/{pid}/root{}", fixture.lower().display());
        for path in ["proc/self", "dev/null", "bin/sh"] {
            seen.borrow_mut()
                .push(std::fs::symlink_metadata(format!("{inside}/{path}")).is_ok());
        }
        // The root is the host's.
        seen.borrow_mut()
            .push(std::fs::metadata(format!("/proc/{pid}/root/usr")).is_ok());
        Ok(())
    };
    let options = Options {
        before_pivot: Some(BeforePivot(&look)),
        ..Options::default()
    };
    let null = std::fs::File::open("/dev/null").expect("null");
    let stdio = Stdio {
        stdin: null.as_fd(),
        stdout: null.as_fd(),
        stderr: null.as_fd(),
    };
    let launched = launch(&fixture.host, &plan, &[], &stdio, &options).expect("launch");
    assert_eq!(Running(launched).wait(), 7);
    assert_eq!(*seen.borrow(), [true; 4]);
}

#[test]
fn before_pivot_error_leaves_nothing() {
    let fixture = Fixture::new();
    let plan = fixture.plan("exit 7");
    let pid = RefCell::new(0);
    let refuse = |process: u32| {
        *pid.borrow_mut() = process;
        Err(LaunchError::Stopped("no, thanks".to_owned()))
    };
    let options = Options {
        before_pivot: Some(BeforePivot(&refuse)),
        ..Options::default()
    };
    let null = std::fs::File::open("/dev/null").expect("null");
    let stdio = Stdio {
        stdin: null.as_fd(),
        stdout: null.as_fd(),
        stderr: null.as_fd(),
    };
    let error = launch(&fixture.host, &plan, &[], &stdio, &options).expect_err("refused");
    assert_eq!(error.to_string(), "no, thanks");
    assert!(std::fs::metadata(format!("/proc/{}", pid.borrow())).is_err());
    let group = format!("/sys/fs/cgroup/pids/{}", fixture.id);
    assert!(std::fs::metadata(group).is_err());
}
