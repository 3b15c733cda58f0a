//! User namespaces: a new one, which the parent gives its mappings, or a given one.
//!
//! ```text
//! who calls                      mappings                      written by
//! has CAP_SETUID and CAP_SETGID  any                           the parent
//! has not                        the own id alone              the parent, setgroups "deny"
//!                                more (/etc/subuid)            newuidmap, newgidmap
//! ```

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

use hull_proto::oci::{IdMap, IdMappings};
use hull_proto::plan::{Namespace, PlanUser};
use hull_sys::caps::{self, CapSet};
use hull_sys::clone3::Namespaces;
use hull_sys::{Errno, ids, mount, ns, proc};
use rustix::fs::{Mode, OFlags};

use crate::LaunchError;
use crate::error::prepare;
use crate::report::{At, Failed, Step};
use crate::user::Identity;

/// CAP_SETGID and CAP_SETUID.
const SET_IDS: CapSet = CapSet::from_bits(1 << 6 | 1 << 7);
/// Lines the kernel takes.
const MAX_MAPPINGS: usize = 340;

/// The user namespace of a container that does not share its maker's.
#[derive(Debug)]
pub(crate) struct UserNamespace {
    /// None makes a new one.
    given: Option<OwnedFd>,
    mappings: IdMappings,
    /// The maker may map any ids.
    can_map: bool,
    /// The maker's files in /proc are not root's: others of the same user must be able to look
    /// into the process while it is given its mappings.
    opens_up: bool,
    /// Ids to take inside; those of a given namespace are tried.
    root: (Option<u32>, Option<u32>),
}

impl UserNamespace {
    /// `None` if the container shares its maker's.
    pub(crate) fn prepare(
        wanted: Namespace,
        given: Option<OwnedFd>,
        mappings: &IdMappings,
    ) -> Result<Option<Self>, LaunchError> {
        let has_mappings = !mappings.uids.is_empty() || !mappings.gids.is_empty();
        match wanted {
            Namespace::Host if has_mappings => {
                return Err(LaunchError::Plan(
                    "ids are mapped in a user namespace alone".to_owned(),
                ));
            }
            Namespace::Host => return Ok(None),
            Namespace::New => {
                check(&mappings.uids, "user")?;
                check(&mappings.gids, "group")?;
            }
            Namespace::Fd(_) => {}
        }
        let mine = caps::get().map_err(prepare("read capabilities"))?.effective;
        let root = if given.is_some() {
            (Some(0), Some(0))
        } else {
            (first(&mappings.uids), first(&mappings.gids))
        };
        Ok(Some(Self {
            given,
            mappings: mappings.clone(),
            can_map: mine.contains(SET_IDS),
            opens_up: !rustix::process::geteuid().is_root(),
            root,
        }))
    }

    /// The given namespace, or the mappings of the new one.
    pub(crate) fn source(&self) -> Result<BorrowedFd<'_>, &IdMappings> {
        match &self.given {
            Some(given) => Ok(given.as_fd()),
            None => Err(&self.mappings),
        }
    }

    /// Whether it is to be made.
    pub(crate) fn is_new(&self) -> bool {
        self.given.is_none()
    }

    /// Whether groups can be set inside: not with a mapping that needed no right.
    pub(crate) fn denies_groups(&self) -> bool {
        self.is_new() && !self.can_map && is_own(&self.mappings.gids, own_gid())
    }

    /// The maker's ids of what has these inside; none where they are not mapped or not known.
    pub(crate) fn outside(&self, uid: u32, gid: u32) -> (Option<u32>, Option<u32>) {
        let find = |maps: &[IdMap], id: u32| {
            maps.iter().find_map(|map| {
                let distance = id.checked_sub(map.inside)?;
                (distance < map.count).then(|| map.outside + distance)
            })
        };
        (
            find(&self.mappings.uids, uid),
            find(&self.mappings.gids, gid),
        )
    }

    /// Refuses a user who does not exist inside, before anything is made.
    pub(crate) fn check_user(&self, user: &PlanUser) -> Result<(), LaunchError> {
        let PlanUser::Ids { uid, gid, groups } = user else {
            return Ok(());
        };
        if !self.is_new() {
            return Ok(());
        }
        let (mapped_uid, mapped_gid) = self.outside(*uid, *gid);
        if mapped_uid.is_none() {
            return Err(LaunchError::Plan(format!(
                "process.user.uid {uid} is not mapped: no range of linux.uidMappings has it"
            )));
        }
        if mapped_gid.is_none() {
            return Err(LaunchError::Plan(format!(
                "process.user.gid {gid} is not mapped: no range of linux.gidMappings has it"
            )));
        }
        if self.denies_groups() && !groups.is_empty() {
            return Err(LaunchError::Plan(
                "process.user.additionalGids: groups cannot be set in a user namespace that maps \
                 the caller's own group alone"
                    .to_owned(),
            ));
        }
        if let Some(group) = groups.iter().find(|gid| self.outside(0, **gid).1.is_none()) {
            return Err(LaunchError::Plan(format!(
                "process.user.additionalGids {group} is not mapped: no range of linux.gidMappings \
                 has it"
            )));
        }
        Ok(())
    }

    /// Gives a new namespace its mappings. The parent's part of [`crate::sync::Stage::Mapped`].
    pub(crate) fn map(&self, pid: u32) -> Result<(), LaunchError> {
        let uid = rustix::process::geteuid().as_raw();
        let file = |name: &str| format!("/proc/{pid}/{name}");
        let write = |name: &str, text: &str| {
            // One write: the kernel takes the whole map at once.
            rustix::fs::open(file(name), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                .and_then(|fd| rustix::io::write(&fd, text.as_bytes()))
                .map(drop)
        };
        let (uids, gids) = (&self.mappings.uids, &self.mappings.gids);
        if self.can_map || is_own(uids, uid) {
            write("uid_map", &lines(uids))
                .map_err(prepare(format!("map user ids as {}", words(uids))))?;
        } else {
            by_helper("newuidmap", "/etc/subuid", pid, uids)?;
        }
        if self.can_map {
            write("gid_map", &lines(gids))
        } else if is_own(gids, own_gid()) {
            write("setgroups", "deny").and_then(|()| write("gid_map", &lines(gids)))
        } else {
            return by_helper("newgidmap", "/etc/subgid", pid, gids);
        }
        .map_err(prepare(format!("map group ids as {}", words(gids))))
    }

    /// Moves the caller into it. For a new one, `mapped` waits for the mappings. Runs in the child.
    pub(crate) fn enter(&self, mapped: impl FnOnce() -> Result<(), Failed>) -> Result<(), Failed> {
        match &self.given {
            Some(given) => ns::join(given, Namespaces::USER).at(Step::UserNamespace),
            None => {
                ns::unshare(Namespaces::USER).at(Step::UserNamespace)?;
                mapped()
            }
        }
    }

    /// Lets the parent, or a helper of the same user, at the process's files in /proc.
    pub(crate) fn open_up(&self, open: bool) -> Result<(), Failed> {
        if self.opens_up {
            proc::set_dumpable(open).at(Step::UserNamespace)?;
        }
        Ok(())
    }

    /// Takes the ids of root inside. Runs in the child, with all capabilities there.
    pub(crate) fn become_root(&self) -> Result<(), Failed> {
        become_root(self.root, self.denies_groups())
    }
}

/// Refuses ids that the user namespace of a process does not have, and groups where it forbids them.
pub(crate) fn check_inside(pid: u32, who: &Identity) -> Result<(), LaunchError> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
    let (Ok(uids), Ok(gids)) = (read("uid_map"), read("gid_map")) else {
        // The kernel refuses them, too, if with fewer words.
        return Ok(());
    };
    let wrong = |kind: &str, id: u32| {
        Err(LaunchError::Plan(format!(
            "{kind} {id} is not mapped in the container's user namespace"
        )))
    };
    if !maps(&uids, who.uid) {
        return wrong("user", who.uid);
    }
    if let Some(gid) = [who.gid]
        .iter()
        .chain(&who.groups)
        .find(|gid| !maps(&gids, **gid))
    {
        return wrong("group", *gid);
    }
    let denied = read("setgroups").is_ok_and(|text| text.trim() == "deny");
    if denied && !who.groups.is_empty() {
        return Err(LaunchError::Plan(
            "additional groups cannot be set: the container's user namespace forbids it".to_owned(),
        ));
    }
    Ok(())
}

/// Whether a map as the kernel writes it has the id inside.
fn maps(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(inside)), Some(Ok(_)), Some(Ok(count))) => id
                .checked_sub(inside)
                .is_some_and(|distance| distance < count),
            _ => false,
        }
    })
}

/// Takes ids inside, or keeps what is if a given namespace has them not.
pub(crate) fn become_root(
    (uid, gid): (Option<u32>, Option<u32>),
    denies_groups: bool,
) -> Result<(), Failed> {
    let unmapped_is_fine = |result: hull_sys::Result<()>| match result {
        Err(Errno::INVAL) => Ok(()),
        result => result,
    };
    if !denies_groups {
        match ids::set_groups(&[]) {
            // A namespace whose groups may not be set; they stay as they are.
            Ok(()) | Err(Errno::PERM) => {}
            Err(errno) => return Err(errno).at(Step::Groups),
        }
    }
    if let Some(gid) = gid {
        unmapped_is_fine(ids::set_gid(gid)).at(Step::Gid)?;
    }
    if let Some(uid) = uid {
        unmapped_is_fine(ids::set_uid(uid)).at(Step::Uid)?;
    }
    // Both are cleared by a change of ids, or may be.
    proc::set_dumpable(false).at(Step::ParentDeath)?;
    proc::set_parent_death_signal(libc::SIGKILL).at(Step::ParentDeath)
}

/// Whether mounts can be prepared by this process, or must be made by the child in a mount
/// namespace of its own.
pub(crate) fn can_mount() -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(c"/", flags, Mode::empty())
        .and_then(|root| mount::clone_tree(root.as_fd(), c"", false))
        .is_ok()
}

/// Sets the supplementary groups. Where they may not be set at all, none is what was asked for.
/// Does not allocate.
pub(crate) fn set_groups(groups: &[u32]) -> hull_sys::Result<()> {
    match ids::set_groups(groups) {
        Err(Errno::PERM) if groups.is_empty() && groups_are_denied() => Ok(()),
        result => result,
    }
}

/// Whether the own user namespace forbids setgroups: who has the right to set ids is refused for
/// no other reason.
fn groups_are_denied() -> bool {
    caps::get().is_ok_and(|sets| sets.effective.contains(SET_IDS))
}

/// The first id inside that is there: root's if it is.
fn first(maps: &[IdMap]) -> Option<u32> {
    maps.iter().map(|map| map.inside).min()
}

fn own_gid() -> u32 {
    rustix::process::getegid().as_raw()
}

fn is_own(maps: &[IdMap], id: u32) -> bool {
    matches!(maps, [map] if map.outside == id && map.count == 1)
}

fn lines(maps: &[IdMap]) -> String {
    maps.iter()
        .map(|map| format!("{} {} {}\n", map.inside, map.outside, map.count))
        .collect()
}

fn words(maps: &[IdMap]) -> String {
    let words: Vec<String> = maps
        .iter()
        .map(|map| format!("{}:{}:{}", map.inside, map.outside, map.count))
        .collect();
    words.join(" ")
}

fn check(maps: &[IdMap], kind: &str) -> Result<(), LaunchError> {
    let wrong =
        |why: &str| LaunchError::Plan(format!("mappings of {kind} ids {}: {why}", words(maps)));
    if maps.is_empty() {
        return Err(LaunchError::Plan(format!(
            "a new user namespace needs mappings of {kind} ids"
        )));
    }
    if maps.len() > MAX_MAPPINGS {
        return Err(wrong("the kernel takes 340 at most"));
    }
    for (index, map) in maps.iter().enumerate() {
        let ends = [map.inside, map.outside].map(|start| start.checked_add(map.count));
        if map.count == 0 || ends.contains(&None) {
            return Err(wrong("a range is empty or leaves the numbers of 32 bits"));
        }
        let overlap = |a: u32, b: u32, other: &IdMap| {
            let (a, b) = (u64::from(a), u64::from(b));
            a < b + u64::from(other.count) && b < a + u64::from(map.count)
        };
        let others = maps.iter().take(index);
        if others.clone().any(|other| {
            overlap(map.inside, other.inside, other) || overlap(map.outside, other.outside, other)
        }) {
            return Err(wrong("two ranges overlap"));
        }
    }
    Ok(())
}

/// Runs `newuidmap` or `newgidmap`, which may map what the administrator has given the user.
fn by_helper(program: &str, file: &str, pid: u32, maps: &[IdMap]) -> Result<(), LaunchError> {
    let mut command = Command::new(program);
    command.arg(pid.to_string()).stdin(Stdio::null());
    for map in maps {
        for number in [map.inside, map.outside, map.count] {
            command.arg(number.to_string());
        }
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(LaunchError::Plan(format!(
                "{program} is not installed: install the package uidmap, or map the own id alone \
                 and not {}",
                words(maps)
            )));
        }
        Err(error) => {
            return Err(LaunchError::Plan(format!("cannot run {program}: {error}")));
        }
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(LaunchError::Plan(format!(
        "{program} cannot map {}: {}: see {file}",
        words(maps),
        said.trim()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(inside: u32, outside: u32, count: u32) -> IdMap {
        IdMap {
            inside,
            outside,
            count,
        }
    }

    fn new(uids: &[IdMap], gids: &[IdMap]) -> Result<Option<UserNamespace>, LaunchError> {
        let mappings = IdMappings {
            uids: uids.to_vec(),
            gids: gids.to_vec(),
        };
        UserNamespace::prepare(Namespace::New, None, &mappings)
    }

    #[test]
    fn prepare_contradictions_are_refused() {
        let good = [map(0, 1000, 1)];
        for (uids, part) in [
            (vec![], "needs mappings of user ids"),
            (vec![map(0, 1000, 0)], "empty"),
            (vec![map(0, u32::MAX, 2)], "32 bits"),
            (vec![map(0, 1000, 10), map(5, 3000, 10)], "overlap"),
            (vec![map(0, 1000, 10), map(50, 1009, 10)], "overlap"),
            (vec![map(0, 0, 1); 341], "340"),
        ] {
            let error = new(&uids, &good).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
        let mappings = IdMappings {
            uids: good.to_vec(),
            gids: Vec::new(),
        };
        assert!(UserNamespace::prepare(Namespace::Host, None, &mappings).is_err());
    }

    #[test]
    fn maps_lines_of_the_kernel() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert!(maps(map, 0) && maps(map, 65_536));
        assert!(!maps(map, 65_537) && !maps("", 0) && !maps("0 0", 0));
    }

    #[test]
    fn outside_of_two_ranges_is_found_in_the_right_one() {
        let user = new(
            &[map(0, 1000, 1), map(1, 100_000, 65535)],
            &[map(0, 1000, 1)],
        )
        .expect("mappings")
        .expect("new");
        assert_eq!(user.outside(0, 0), (Some(1000), Some(1000)));
        assert_eq!(user.outside(5, 1), (Some(100_004), None));
        assert_eq!(user.outside(65536, 0).0, None);
    }

    #[test]
    fn check_user_not_mapped_names_the_field() {
        let user = new(&[map(0, 1000, 1)], &[map(0, 1000, 1)])
            .expect("mappings")
            .expect("new");
        let ids = |uid, gid| PlanUser::Ids {
            uid,
            gid,
            groups: Vec::new(),
        };
        user.check_user(&ids(0, 0)).expect("mapped");
        let error = user.check_user(&ids(1, 0)).expect_err("unmapped");
        assert!(
            error
                .to_string()
                .contains("process.user.uid 1 is not mapped")
        );
        let error = user.check_user(&ids(0, 7)).expect_err("unmapped");
        assert!(
            error
                .to_string()
                .contains("process.user.gid 7 is not mapped")
        );
    }
}
