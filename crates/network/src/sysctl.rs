//! Kernel parameters of one interface, written in the namespace where it is.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;

const ROOT: &str = "/proc/sys";
const STACK_BYTES: usize = 256 << 10;
/// Stands for the interface's name.
const INTERFACE: &str = "IFNAME";

/// A parameter that could not be set, or is none of an interface.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// It is malformed.
    #[error(
        "invalid sysctl {0:?} of an interface: write it as net.ipv4.conf.IFNAME.log_martians=1"
    )]
    Invalid(String),
    /// The kernel refuses.
    #[error("cannot set sysctl {name}")]
    Refused {
        /// Its name.
        name: String,
        /// The error.
        #[source]
        source: io::Error,
    },
}

/// A parameter of an interface whose name is not known yet, with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceSysctl {
    parts: Vec<String>,
    value: String,
}

/// Reads a list such as `net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=0`.
///
/// # Errors
/// An entry is malformed, or concerns more than the interface.
pub fn interface_sysctls(list: &str) -> Result<Vec<InterfaceSysctl>, SysctlError> {
    list.split(',').map(|entry| one(entry.trim())).collect()
}

fn one(entry: &str) -> Result<InterfaceSysctl, SysctlError> {
    let invalid = || SysctlError::Invalid(entry.to_owned());
    let (name, value) = entry.split_once('=').ok_or_else(invalid)?;
    let parts: Vec<String> = name.split('.').map(str::to_owned).collect();
    let plain = |part: &String| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    let families = ["ipv4", "ipv6", "mpls"];
    let known = matches!(parts.as_slice(),
        [net, family, _, interface, _] if net == "net"
            && families.contains(&family.as_str()) && interface == INTERFACE);
    if !known || !parts.iter().all(plain) || value.contains(|c: char| c.is_control()) {
        return Err(invalid());
    }
    Ok(InterfaceSysctl {
        parts,
        value: value.to_owned(),
    })
}

/// Sets them for `interface` of the namespace `netns`.
///
/// # Errors
/// The kernel has no such parameter or refuses the value.
pub fn set_interface_sysctls(
    netns: BorrowedFd<'_>,
    interface: &str,
    list: &[InterfaceSysctl],
) -> Result<(), SysctlError> {
    if list.is_empty() {
        return Ok(());
    }
    let refused = |source| SysctlError::Refused {
        name: "of an interface: no thread in its namespace".to_owned(),
        source,
    };
    let set = || {
        hull_sys::netns::enter_network(netns).map_err(refused)?;
        for sysctl in list {
            let words = sysctl.parts.iter().map(|part| match part.as_str() {
                INTERFACE => interface,
                part => part,
            });
            let words: Vec<&str> = words.collect();
            let path = format!("{ROOT}/{}", words.join("/"));
            fs::write(path, &sysctl.value).map_err(|source| SysctlError::Refused {
                name: words.join("."),
                source,
            })?;
        }
        Ok(())
    };
    // A thread of its own: the caller must stay in the host's namespace.
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("hull-netns".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, set)
            .map_err(refused)?
            .join()
            .map_err(|_| refused(io::Error::other("it panicked")))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctls_of_an_interface_are_read_and_others_refused() {
        let list = "net.ipv4.conf.IFNAME.log_martians=1, net.ipv6.conf.IFNAME.accept_ra=0";
        assert_eq!(interface_sysctls(list).expect("a list").len(), 2);
        for wrong in [
            "",
            "net.ipv4.conf.IFNAME.log_martians",
            "net.ipv4.conf.eth0.log_martians=1",
            "net.ipv4.ip_forward=1",
            "kernel.conf.x.IFNAME.y=1",
            "net.ipv4.../IFNAME.x=1",
            "net.ipv4.conf.IFNAME.a/b=1",
            "net.core.conf.IFNAME.x=1",
        ] {
            assert!(interface_sysctls(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sysctl_is_set_in_the_namespace_alone() {
        let netns = crate::isolated().expect("a namespace");
        let netns = std::os::fd::AsFd::as_fd(&netns);
        let read = || fs::read_to_string("/proc/sys/net/ipv4/conf/lo/log_martians");
        let before = read().expect("read");
        let list = interface_sysctls("net.ipv4.conf.IFNAME.log_martians=1").expect("a list");
        set_interface_sysctls(netns, "lo", &list).expect("set");
        assert_eq!(read().expect("read"), before);
        let missing = interface_sysctls("net.ipv4.conf.IFNAME.nothing=1").expect("a list");
        let error = set_interface_sysctls(netns, "lo", &missing).expect_err("no such");
        assert_eq!(
            error.to_string(),
            "cannot set sysctl net.ipv4.conf.lo.nothing"
        );
    }
}
