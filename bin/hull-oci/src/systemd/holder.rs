//! The process that holds a scope until the container's own is in it.

use anyhow::{Context as _, Result};
use hull_sys::clone3::{Clone3, Cloned, Namespaces, clone3};
use hull_sys::{Errno, pidfd};
use rustix::event::{PollFd, PollFlags, poll};

const SIGKILL: i32 = 9;

/// It ends when this is dropped, or when the caller ends.
#[derive(Debug)]
pub(crate) struct Holder(Cloned);

impl Holder {
    pub(crate) fn start() -> Result<Self> {
        let fail = "cannot make the process that holds the scope";
        // Unlike a signal on the parent's death it cannot come before somebody waits for it.
        let caller = pidfd::open(rustix::process::getpid()).context(fail)?;
        let args = Clone3 {
            namespaces: Namespaces::NONE,
            cgroup: None,
            sibling: false,
        };
        let child = clone3(&args, || {
            while poll(&mut [PollFd::new(&caller, PollFlags::IN)], None) == Err(Errno::INTR) {}
            0
        })
        .context(fail)?;
        Ok(Self(child))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The group it was put in: of the v2 tree, or of systemd's own hierarchy.
    pub(crate) fn group(&self) -> Result<String> {
        let file = format!("/proc/{}/cgroup", self.pid());
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        path(&text).with_context(|| format!("{file} names no group of systemd"))
    }
}

fn path(text: &str) -> Option<String> {
    let find = |controller: &str| {
        text.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (name, path) = rest.split_once(':')?;
            (name == controller && path.len() > 1).then(|| path.to_owned())
        })
    };
    find("name=systemd").or_else(|| find(""))
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = pidfd::send_signal(&self.0.pidfd, SIGKILL);
        let _ = pidfd::wait(&self.0.pidfd, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_systemds_own_hierarchy_comes_first() {
        let unified = "0::/system.slice/x.scope\n";
        assert_eq!(path(unified).as_deref(), Some("/system.slice/x.scope"));
        let v1 = "4:memory:/\n1:name=systemd:/a.slice/x.scope\n0::/\n";
        assert_eq!(path(v1).as_deref(), Some("/a.slice/x.scope"));
        assert_eq!(path("4:memory:/x\n0::/\n"), None);
    }

    #[test]
    fn holder_lives_until_it_is_dropped() {
        let holder = Holder::start().expect("holder");
        let file = format!("/proc/{}", holder.pid());
        assert!(std::path::Path::new(&file).exists());
        drop(holder);
        assert!(!std::path::Path::new(&file).exists());
    }
}
