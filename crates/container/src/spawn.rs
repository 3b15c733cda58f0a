//! The clone: into the control group, into namespaces of process ids, by a process in between.

use std::os::fd::{AsFd as _, OwnedFd};

use hull_sys::cgroup::{Cgroup, Entry};
use hull_sys::clone3::{Clone3, Cloned, Namespaces, clone3};
use hull_sys::{Errno, ns, pidfd};

use crate::LaunchError;
use crate::error::prepare;
use crate::report::{At, Failed, Reporter, Step};
use crate::sync::ChildSync;

/// Clones into the group: by the clone itself or with the files the child writes to.
pub(crate) fn spawn(
    cgroup: &dyn Cgroup,
    namespaces: Namespaces,
    pid_namespace: Option<&OwnedFd>,
    child: impl Fn(&[OwnedFd]) -> i32,
) -> Result<Cloned, LaunchError> {
    // It may be born in another container's pid namespace: closed to others from birth on.
    let _closed = NotDumpable::set()?;
    let _restore = pid_namespace.map(ChildPidNamespace::enter).transpose()?;
    clone_into(cgroup, namespaces, false, &child)
        .map_err(prepare("clone a process with its namespaces"))
}

/// As [`spawn_between`], for a container whose processes may look into others: the process that
/// counts is born where it belongs, and `walk` has let go of all that is not its business.
pub(crate) fn spawn_unseen(
    sync: &ChildSync,
    reporter: &Reporter,
    walk: impl Fn() -> Result<(), Failed>,
    child: impl Fn() -> i32,
) -> Result<Cloned, LaunchError> {
    let _closed = NotDumpable::set()?;
    let plain = |sibling| Clone3 {
        namespaces: Namespaces::NONE,
        cgroup: None,
        sibling,
    };
    let go = || -> Result<(), Failed> {
        walk()?;
        let born = clone3(&plain(true), &child).at(Step::Clone)?;
        let pid = born.pid.as_raw_nonzero().get().unsigned_abs();
        sync.born(pid, born.pidfd.as_fd()).inspect_err(|_| {
            let _ = pidfd::send_signal(&born.pidfd, libc::SIGKILL);
        })
    };
    clone3(&plain(false), || match go() {
        Ok(()) => 0,
        Err(failed) => reporter.fail(failed),
    })
    .map_err(prepare("clone a process"))
}

/// Clones a process that goes between: it walks into namespaces, clones the one that counts as a
/// sibling of its own, tells the parent of it (`Stage::Born`) and ends.
pub(crate) fn spawn_between(
    cgroup: &dyn Cgroup,
    namespaces: Namespaces,
    sync: &ChildSync,
    reporter: &Reporter,
    walk: impl Fn() -> Result<(), Failed>,
    child: impl Fn(&[OwnedFd]) -> i32,
) -> Result<Cloned, LaunchError> {
    let _closed = NotDumpable::set()?;
    let between = Clone3 {
        namespaces: Namespaces::NONE,
        cgroup: None,
        sibling: false,
    };
    let go = || -> Result<(), Failed> {
        walk()?;
        let born = clone_into(cgroup, namespaces, true, &child).at(Step::Clone)?;
        let pid = born.pid.as_raw_nonzero().get().unsigned_abs();
        sync.born(pid, born.pidfd.as_fd()).inspect_err(|_| {
            let _ = pidfd::send_signal(&born.pidfd, libc::SIGKILL);
        })
    };
    clone3(&between, || match go() {
        Ok(()) => 0,
        Err(failed) => reporter.fail(failed),
    })
    .map_err(prepare("clone a process"))
}

fn clone_into(
    cgroup: &dyn Cgroup,
    namespaces: Namespaces,
    sibling: bool,
    child: &impl Fn(&[OwnedFd]) -> i32,
) -> hull_sys::Result<Cloned> {
    let plain = Clone3 {
        namespaces,
        cgroup: None,
        sibling,
    };
    match cgroup.entry() {
        Entry::Clone(dir) => {
            match clone3(
                &Clone3 {
                    cgroup: Some(dir),
                    ..plain
                },
                || child(&[]),
            ) {
                // A kernel or a sandbox without it: the child moves itself.
                Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::ACCESS) => {
                    clone3(&plain, || child(cgroup.join_files()))
                }
                result => result,
            }
        }
        Entry::Write(files) => clone3(&plain, || child(files)),
    }
}

/// While it lives, children of this thread are born in another pid namespace: one clone is
/// enough where joining in the child would take two.
struct ChildPidNamespace(OwnedFd);

impl ChildPidNamespace {
    fn enter(namespace: &OwnedFd) -> Result<Self, LaunchError> {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        let mode = rustix::fs::Mode::empty();
        let own = rustix::fs::open(c"/proc/thread-self/ns/pid", flags, mode)
            .map_err(prepare("open the own pid namespace"))?;
        ns::join(namespace, Namespaces::PID).map_err(prepare("join a pid namespace"))?;
        Ok(Self(own))
    }
}

impl Drop for ChildPidNamespace {
    fn drop(&mut self) {
        // It was this thread's a moment ago and cannot be refused.
        let _ = ns::join(&self.0, Namespaces::PID);
    }
}

/// While it lives, this process and its copies cannot be looked into.
struct NotDumpable(bool);

impl NotDumpable {
    fn set() -> Result<Self, LaunchError> {
        use rustix::process::{DumpableBehavior, dumpable_behavior};
        let was = matches!(dumpable_behavior(), Ok(DumpableBehavior::Dumpable));
        hull_sys::proc::set_dumpable(false).map_err(prepare("close the process to others"))?;
        Ok(Self(was))
    }
}

impl Drop for NotDumpable {
    fn drop(&mut self) {
        if self.0 {
            let _ = hull_sys::proc::set_dumpable(true);
        }
    }
}
