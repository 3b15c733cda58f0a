//! Id-mapped mounts: the owners that a source shows at its target are others than on its disk.
//!
//! The kernel takes the mapping of a user namespace. One is made for it by a process that does
//! nothing and is gone before the container is there.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use hull_proto::oci::{IdMappings, MountIdMap};
use hull_proto::plan::{Namespace, PlanMount};
use hull_sys::clone3::{Clone3, Namespaces, clone3};
use hull_sys::features::{Feature, Features};
use hull_sys::mount::{self, SetAttr};
use hull_sys::{Errno, ns, pidfd, proc};

use crate::LaunchError;
use crate::error::prepare;
use crate::spaces::Spaces;
use crate::userns::UserNamespace;

/// User namespaces made for mounts, each mapping once.
#[derive(Debug, Default)]
pub(crate) struct IdMaps(Vec<(IdMappings, OwnedFd)>);

impl IdMaps {
    /// Maps the ids of a detached tree as the mount says.
    pub(crate) fn apply(
        &mut self,
        tree: BorrowedFd<'_>,
        mount: &PlanMount,
        idmap: &MountIdMap,
        spaces: &Spaces,
        features: Features,
    ) -> Result<(), LaunchError> {
        let target = &mount.target;
        if !features.has(Feature::MountSetattr) {
            return Err(LaunchError::Plan(format!(
                "the mount at {target}: ids of mounts can be mapped from Linux 5.12 on"
            )));
        }
        let container = spaces.user.as_ref();
        let users = match (&idmap.mappings, container.map(UserNamespace::source)) {
            (Some(mappings), _) => self.find(mappings)?,
            (None, Some(Ok(given))) => given,
            (None, Some(Err(mappings))) => self.find(mappings)?,
            (None, None) => {
                return Err(LaunchError::Plan(format!(
                    "the mount at {target} maps ids as the container does, which has no user \
                     namespace: give it mappings of its own"
                )));
            }
        };
        let change = SetAttr {
            idmap: Some(users),
            ..SetAttr::default()
        };
        match mount::set_attr(tree, idmap.recursive, &change) {
            Ok(()) => Ok(()),
            Err(Errno::INVAL) => Err(LaunchError::Plan(format!(
                "the mount at {target}: the source's file system cannot map ids, or does already"
            ))),
            Err(errno) => Err(prepare(format!("map the ids of the mount at {target}"))(
                errno,
            )),
        }
    }

    fn find(&mut self, mappings: &IdMappings) -> Result<BorrowedFd<'_>, LaunchError> {
        let known = self.0.iter().position(|(known, _)| known == mappings);
        let index = match known {
            Some(index) => index,
            None => {
                self.0.push((mappings.clone(), namespace(mappings)?));
                self.0.len() - 1
            }
        };
        self.0
            .get(index)
            .map(|(_, users)| users.as_fd())
            .ok_or_else(|| LaunchError::Plan("a mapping is lost".to_owned()))
    }
}

/// A user namespace with these mappings and nobody in it.
fn namespace(mappings: &IdMappings) -> Result<OwnedFd, LaunchError> {
    let fail = || prepare("make a user namespace for an id-mapped mount");
    let users = UserNamespace::prepare(Namespace::New, None, mappings)?
        .ok_or_else(|| LaunchError::Plan("a user namespace that is none".to_owned()))?;
    let args = Clone3 {
        namespaces: Namespaces::USER,
        cgroup: None,
        sibling: false,
    };
    let holder = clone3(&args, || {
        let _ = proc::set_parent_death_signal(libc::SIGKILL);
        loop {
            let _ = rustix::thread::nanosleep(&rustix::thread::Timespec {
                tv_sec: 60,
                tv_nsec: 0,
            });
        }
    })
    .map_err(fail())?;
    let pid = holder.pid.as_raw_nonzero().get().unsigned_abs();
    let opened = users
        .map(pid)
        .and_then(|()| ns::open(holder.pid, "user").map_err(fail()));
    let _ = pidfd::send_signal(&holder.pidfd, libc::SIGKILL);
    let _ = pidfd::wait(&holder.pidfd, true);
    opened
}
