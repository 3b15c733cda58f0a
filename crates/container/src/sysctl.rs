//! Kernel parameters that belong to the container's own namespaces.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::BorrowedFd;

use hull_proto::plan::{Namespace, Namespaces};
use hull_sys::{Errno, mount};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::LaunchError;
use crate::report::{At, Failed, Step};

/// A parameter as a path below the root of procfs and its value.
#[derive(Debug)]
pub(crate) struct Sysctl {
    path: CString,
    value: Vec<u8>,
}

/// Parameters of the IPC namespace, besides `fs.mqueue.*`.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Refuses those that would change the host.
pub(crate) fn prepare(
    sysctls: &BTreeMap<String, String>,
    namespaces: &Namespaces,
) -> Result<Vec<Sysctl>, LaunchError> {
    let own = |namespace: Namespace| namespace != Namespace::Host;
    sysctls
        .iter()
        .map(|(name, value)| {
            // Both spellings; in the one with slashes a dot is part of a name.
            let slashed = if name.contains('/') {
                name.clone()
            } else {
                name.replace('.', "/")
            };
            let dotted = slashed.replace('/', ".");
            let is_ipc = IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.");
            let allowed = (is_ipc && own(namespaces.ipc))
                || (dotted.starts_with("net.") && own(namespaces.net))
                || (dotted == "kernel.domainname" && own(namespaces.uts));
            let is_plain = slashed
                .split('/')
                .all(|part| !part.is_empty() && part != "." && part != "..");
            let path = CString::new(format!("sys/{slashed}"));
            match (allowed && is_plain, path) {
                (true, Ok(path)) => Ok(Sysctl {
                    path,
                    value: value.clone().into_bytes(),
                }),
                _ => Err(LaunchError::Plan(format!(
                    "sysctl {name:?} is not in a namespace of the container's own"
                ))),
            }
        })
        .collect()
}

/// Writes them through a procfs that nothing could be mounted over. Runs in the child.
pub(crate) fn apply(sysctls: &[Sysctl], proc: BorrowedFd<'_>) -> Result<(), Failed> {
    for (index, sysctl) in sysctls.iter().enumerate() {
        write(proc, sysctl).at_index(Step::Sysctl, index)?;
    }
    Ok(())
}

fn write(proc: BorrowedFd<'_>, sysctl: &Sysctl) -> Result<(), Errno> {
    let file = rustix::fs::openat2(
        proc,
        sysctl.path.as_c_str(),
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    )?;
    if !mount::has_magic(&file, mount::PROC_MAGIC)? {
        return Err(Errno::PERM);
    }
    rustix::io::write(&file, &sysctl.value).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, namespaces: &Namespaces) -> Result<Vec<Sysctl>, LaunchError> {
        prepare(
            &BTreeMap::from([(name.to_owned(), "1".to_owned())]),
            namespaces,
        )
    }

    #[test]
    fn prepare_host_wide_parameters_are_refused() {
        let own = Namespaces::default();
        for bad in [
            "kernel.core_pattern",
            "vm.swappiness",
            "net.../../kernel/panic",
            "net/../vm/x",
        ] {
            assert!(one(bad, &own).is_err(), "{bad}");
        }
    }

    #[test]
    fn prepare_net_needs_own_network() {
        assert!(one("net.core.somaxconn", &Namespaces::default()).is_ok());
        let host = Namespaces {
            net: Namespace::Host,
            ..Namespaces::default()
        };
        assert!(one("net.core.somaxconn", &host).is_err());
    }
}
