//! The namespaces of a container: new ones for the clone, given ones to join.
//!
//! One clone makes a process with its namespaces where all are new or the caller's, or where the
//! child may join the rest by itself. Else a process in between goes first:
//!
//! ```text
//! user namespace given         join it, then make the others: they belong to it
//! user namespace new, and
//!   others given               join those that are the host's, then leave the host's rights behind
//! time namespace new           its offsets are set by who made it, its children are in it
//! ```

use std::os::fd::{AsFd as _, OwnedFd};

use hull_proto::LaunchPlan;
use hull_proto::plan::Namespace;
use hull_sys::clone3::Namespaces;
use hull_sys::{Errno, ns, proc};
use rustix::fs::{Mode, OFlags};

use crate::LaunchError;
use crate::report::{self, At, Failed, Reporter, Step};
use crate::sync::{ChildSync, Stage};
use crate::timens::TimeOffsets;
use crate::userns::UserNamespace;

/// Most namespaces that are joined: one of each kind.
const MAX_JOINED: usize = 8;

/// What is made and what is joined.
#[derive(Debug)]
pub(crate) struct Spaces {
    /// Made by the clone.
    pub(crate) new: Namespaces,
    /// Given, but for those of users and, unless a process goes between, of process ids.
    join: Vec<(OwnedFd, Namespaces)>,
    /// Given, for the parent to have its child born in.
    pub(crate) pid: Option<OwnedFd>,
    /// Not the caller's.
    pub(crate) user: Option<UserNamespace>,
    /// New.
    time: Option<TimeOffsets>,
    /// A process goes between.
    pub(crate) between: bool,
}

impl Spaces {
    pub(crate) fn prepare(plan: &LaunchPlan, descriptors: &[OwnedFd]) -> Result<Self, LaunchError> {
        let wanted = &plan.namespaces;
        let take = |index: usize| {
            let given = descriptors.get(index).ok_or_else(|| {
                LaunchError::Plan(format!(
                    "the plan names descriptor {index}, which was not sent"
                ))
            })?;
            report::duplicate(given.as_fd())
        };
        let given = match wanted.user {
            Namespace::Fd(index) => Some(take(index)?),
            Namespace::New | Namespace::Host => None,
        };
        let user = UserNamespace::prepare(wanted.user, given, &plan.id_mappings)?;
        let time = match wanted.time {
            Namespace::New => Some(TimeOffsets::prepare(&plan.time_offsets)?),
            Namespace::Host | Namespace::Fd(_) if !plan.time_offsets.is_empty() => {
                let text = "offsets of clocks are set in a new time namespace alone";
                return Err(LaunchError::Plan(text.to_owned()));
            }
            Namespace::Host | Namespace::Fd(_) => None,
        };
        let mut spaces = Self {
            new: Namespaces::NONE,
            join: Vec::new(),
            pid: None,
            user,
            time,
            between: false,
        };
        for (namespace, kind) in [
            (wanted.net, Namespaces::NET),
            (wanted.ipc, Namespaces::IPC),
            (wanted.uts, Namespaces::UTS),
            (wanted.pid, Namespaces::PID),
            (wanted.mount, Namespaces::MOUNT),
        ] {
            match namespace {
                Namespace::New => spaces.new = spaces.new.with(kind),
                Namespace::Host => {}
                Namespace::Fd(index) if kind == Namespaces::PID => spaces.pid = Some(take(index)?),
                Namespace::Fd(index) => spaces.join.push((take(index)?, kind)),
            }
        }
        // A new one is made once the process is in its control group.
        for (namespace, kind) in [
            (wanted.cgroup, Namespaces::CGROUP),
            (wanted.time, Namespaces::TIME),
        ] {
            if let Namespace::Fd(index) = namespace {
                spaces.join.push((take(index)?, kind));
            }
        }
        let makes_user = spaces.user.as_ref().map(UserNamespace::is_new);
        let joins = !spaces.join.is_empty() || spaces.pid.is_some();
        spaces.between = match makes_user {
            Some(true) => joins || spaces.time.is_some(),
            Some(false) => true,
            None => spaces.time.is_some(),
        };
        if spaces.between {
            let pid = spaces.pid.take().map(|pid| (pid, Namespaces::PID));
            // The namespace of mounts last: paths mean something else from then on.
            let mounts = |(_, kind): &(OwnedFd, Namespaces)| *kind == Namespaces::MOUNT;
            spaces.join.extend(pid);
            spaces.join.sort_by_key(mounts);
        } else if spaces.user.is_some() {
            spaces.new = spaces.new.with(Namespaces::USER);
        }
        Ok(spaces)
    }

    /// Where a launch stops for these.
    pub(crate) fn stages(&self) -> impl Iterator<Item = Stage> {
        let mapped = self.user.as_ref().is_some_and(UserNamespace::is_new);
        let mapped = mapped.then_some(Stage::Mapped);
        mapped
            .into_iter()
            .chain(self.between.then_some(Stage::Born))
    }

    /// The way of the process in between, up to its clone. Does not allocate.
    ///
    /// The score is written where the parent has no stage to do it.
    pub(crate) fn walk(
        &self,
        sync: &ChildSync,
        oom_score: Option<&str>,
        report: &Reporter,
    ) -> Result<(), Failed> {
        proc::set_parent_death_signal(libc::SIGKILL).at(Step::ParentDeath)?;
        let mut joined = [false; MAX_JOINED];
        if let Some(user) = &self.user {
            // With the rights of the host, as far as they go; what belongs to the user namespace
            // can be joined from there.
            for ((namespace, kind), joined) in self.join.iter().zip(&mut joined) {
                // Paths of the host are needed until the end.
                *joined = *kind != Namespaces::MOUNT
                    && !self.is_last(*kind)
                    && ns::join(namespace, *kind).is_ok();
            }
            user.open_up(true)?;
            if let Some(score) = oom_score.filter(|_| !user.is_new()) {
                set_oom_score(score, report)?;
            }
            user.enter(|| sync.wait(Stage::Mapped))?;
        }
        if let Some(time) = &self.time {
            time.unshare().at(Step::TimeNamespace)?;
        }
        if let Some(user) = &self.user {
            user.open_up(false)?;
        }
        for (index, ((namespace, kind), joined)) in self.join.iter().zip(joined).enumerate() {
            if !joined && !self.is_last(*kind) {
                ns::join(namespace, *kind).at_index(Step::JoinNamespace, index)?;
            }
        }
        Ok(())
    }

    /// What is left to do in the process itself. Does not allocate.
    pub(crate) fn arrive(&self, sync: Option<&ChildSync>) -> Result<(), Failed> {
        if let Some(user) = &self.user {
            if let (false, Some(sync)) = (self.between, sync) {
                user.open_up(true)?;
                sync.wait(Stage::Mapped)?;
                user.open_up(false)?;
            }
            user.become_root()?;
        }
        for (index, (namespace, kind)) in self.join.iter().enumerate() {
            if !self.between || self.is_last(*kind) {
                ns::join(namespace, *kind).at_index(Step::JoinNamespace, index)?;
            }
        }
        Ok(())
    }

    /// A given control group namespace is joined by the process itself once it is in its group: out
    /// of the namespace nobody gets into a group that is not below its root, where the tree is
    /// mounted with nsdelegate. From a new user namespace it could not be joined any more.
    fn is_last(&self, kind: Namespaces) -> bool {
        kind == Namespaces::CGROUP && !self.user.as_ref().is_some_and(UserNamespace::is_new)
    }
}

/// Sets the own score, which children inherit, by the caller's procfs.
pub(crate) fn set_oom_score(score: &str, report: &Reporter) -> Result<(), Failed> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let written = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty())
        .and_then(|file| rustix::io::write(&file, score.as_bytes()));
    match written {
        Ok(_) => Ok(()),
        // The host forbids lowering it: it stays as it is.
        Err(errno @ (Errno::ACCESS | Errno::PERM)) => {
            report.warn(Step::OomScore, 0, errno);
            Ok(())
        }
        Err(errno) => Err(errno).at(Step::OomScore),
    }
}
