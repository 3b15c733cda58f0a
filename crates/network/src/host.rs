//! Switches of the kernel's network stack under /proc/sys/net, of the calling thread's namespace.

use std::fs;
use std::io;

use rustix::fs::{Mode, OFlags};

const ROOT: &str = "/proc/sys/net";

/// Reads a switch.
pub(crate) fn get(path: &str) -> io::Result<String> {
    Ok(fs::read_to_string(format!("{ROOT}/{path}"))?
        .trim()
        .to_owned())
}

/// Writes a switch unless it has the value already.
pub(crate) fn set(path: &str, value: &str) -> io::Result<()> {
    if get(path)? == value {
        return Ok(());
    }
    fs::write(format!("{ROOT}/{path}"), value)
}

/// Lets the host forward packets between interfaces.
pub(crate) fn enable_forwarding() -> io::Result<()> {
    set("ipv4/ip_forward", "1")
}

/// Sets up a bridge: replies to 127.0.0.1 may come back through it, and IPv6 is off unless wanted,
/// because its multicast would be copied to each port at each start. Answers what could not be set.
pub(crate) fn prepare_bridge(bridge: &str, with_ipv6: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Err(error) = set(&format!("ipv4/conf/{bridge}/route_localnet"), "1") {
        warnings.push(format!(
            "published ports are not reachable by 127.0.0.1: route_localnet: {error}"
        ));
    }
    if with_ipv6 {
        return warnings;
    }
    match set(&format!("ipv6/conf/{bridge}/disable_ipv6"), "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warnings.push(format!("IPv6 stays on for {bridge}: {error}"));
        }
        _ => {}
    }
    warnings
}

/// Sets up a container's new namespace: as Docker does, any user may bind low ports and send echo
/// requests. A read-only /proc/sys leaves the kernel's defaults, no reason to fail a start.
pub(crate) fn prepare_container_namespace() {
    const SWITCHES: [(&str, &[u8]); 3] = [
        ("ip_unprivileged_port_start", b"0"),
        ("ping_group_range", b"0 2147483647"),
        // Who announces himself as a router on a bridge would get what its other containers send:
        // the kernel takes addresses and routes from anybody, be IPv6 wanted or not.
        ("../ipv6/conf/default/accept_ra", b"0"),
    ];
    // The directory is opened once: the kernel keeps the names of all namespaces in one chain, so
    // that each step of a path costs more the more containers there are.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = rustix::fs::open(format!("{ROOT}/ipv4"), flags, Mode::empty()) else {
        return;
    };
    for (name, value) in SWITCHES {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        if let Ok(file) = rustix::fs::openat(&directory, name, flags, Mode::empty()) {
            rustix::io::write(file, value).ok();
        }
    }
}
