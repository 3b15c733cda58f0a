//! linux.netDevices: interfaces of the host that move into the container's network namespace,
//! with their addresses. When that namespace ends, the kernel gives physical ones back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use hull_sys::netlink::{
    CREATE, DUMP, GET_ADDRESS, IFLA_IFNAME, IFLA_NET_NS_FD, NEW_ADDRESS, NEW_LINK, Request, Socket,
    attributes,
};
use hull_sys::netns;
use oci_spec::runtime::LinuxNetDevice;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Longest name of an interface.
const MAX_NAME: usize = 15;
const IFF_UP: u32 = 1;
/// `ifaddrmsg`: family, length of the prefix, flags, scope, index.
const ADDRESS_HEADER: usize = 8;
const SCOPE_UNIVERSE: u8 = 0;
const IFA_F_PERMANENT: u8 = 0x80;
/// IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST.
const KEPT: [u16; 3] = [1, 2, 4];

/// Checks the names; the map of the plan.
pub(crate) fn translate(
    devices: &HashMap<String, LinuxNetDevice>,
    own_network: bool,
) -> Result<BTreeMap<String, String>> {
    if !devices.is_empty() && !own_network {
        bail!("config.json: linux.netDevices needs a network namespace in linux.namespaces");
    }
    let mut plan = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for (name, device) in devices {
        let inside = device.name().clone().unwrap_or_default();
        let shown = if inside.is_empty() { name } else { &inside };
        for name in [name, shown] {
            check_name(name)?;
        }
        if !taken.insert(shown.clone()) {
            bail!("config.json: linux.netDevices: two interfaces would be named {shown:?}");
        }
        plan.insert(name.clone(), inside);
    }
    Ok(plan)
}

fn check_name(name: &str) -> Result<()> {
    let bad = |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace() || c == '\0';
    if name.is_empty() || name.len() > MAX_NAME || matches!(name, "." | "..") || name.contains(bad)
    {
        bail!("config.json: linux.netDevices: {name:?} is no name of an interface");
    }
    Ok(())
}

/// An address: the fixed part of its message without the interface, and the attributes.
#[derive(Debug, PartialEq)]
struct Address {
    header: [u8; 4],
    attributes: Vec<(u16, Vec<u8>)>,
}

/// Moves all into the network namespace of a process.
pub(crate) fn move_all(devices: &BTreeMap<String, String>, pid: u32) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let path = format!("/proc/{pid}/ns/net");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::open(path, flags, Mode::empty())
        .context("cannot open the network namespace of the container")?;
    let mut here = Socket::open().context("cannot open a netlink socket")?;
    let mut there = socket_in(&namespace)?;
    for (name, inside) in devices {
        let inside = if inside.is_empty() { name } else { inside };
        move_one(&mut here, &mut there, &namespace, name, inside)
            .with_context(|| format!("linux.netDevices: cannot move the interface {name}"))?;
    }
    Ok(())
}

fn move_one(
    here: &mut Socket,
    there: &mut Socket,
    namespace: &OwnedFd,
    name: &str,
    inside: &str,
) -> Result<()> {
    let index = match here.index(name) {
        Err(Errno::NODEV) => bail!("there is none on the host"),
        result => result.context("cannot look it up")?,
    };
    if there.index(inside).is_ok() {
        bail!("the container has an interface {inside} already: give it another name");
    }
    let addresses = addresses(here, index)?;
    let fd = namespace.as_raw_fd().to_ne_bytes();
    let mut text = inside.as_bytes().to_vec();
    text.push(0);
    let request = Request::new(NEW_LINK, 0, &link(index, 0))
        .attribute(IFLA_NET_NS_FD, &fd)?
        .attribute(IFLA_IFNAME, &text)?;
    here.ask(request)
        .context("the kernel refuses to change its namespace")?;
    let index = there.index(inside).context("it did not arrive")?;
    for address in addresses {
        let mut header = address.header.to_vec();
        header.extend(index.to_ne_bytes());
        let mut request = Request::new(NEW_ADDRESS, CREATE, &header);
        for (kind, value) in &address.attributes {
            request = request.attribute(*kind, value)?;
        }
        match there.ask(request) {
            Err(Errno::EXIST) => {}
            result => drop(result.context("cannot give it its address again")?),
        }
    }
    there
        .ask(Request::new(NEW_LINK, 0, &link(index, IFF_UP)))
        .context("cannot bring it up")?;
    Ok(())
}

/// `ifinfomsg`: flags that are given are set.
fn link(index: u32, flags: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    let fields = [0, index, flags, flags];
    for (field, value) in bytes.chunks_exact_mut(4).zip(fields) {
        field.copy_from_slice(&value.to_ne_bytes());
    }
    bytes
}

/// Addresses that a user or a program gave, of all the network's.
fn addresses(socket: &mut Socket, index: u32) -> Result<Vec<Address>> {
    let request = Request::new(GET_ADDRESS, DUMP, &[0; ADDRESS_HEADER]);
    let answers = socket.ask(request).context("cannot list its addresses")?;
    let of = answers.iter().filter(|(kind, _)| *kind == NEW_ADDRESS);
    Ok(of.filter_map(|(_, body)| address(body, index)).collect())
}

fn address(body: &[u8], wanted: u32) -> Option<Address> {
    let (header, rest) = body.split_first_chunk::<ADDRESS_HEADER>()?;
    let [family, prefix, flags, scope, index @ ..] = *header;
    let ours = u32::from_ne_bytes(index) == wanted;
    if !ours || scope != SCOPE_UNIVERSE || flags & IFA_F_PERMANENT == 0 {
        return None;
    }
    Some(Address {
        header: [family, prefix, flags, scope],
        attributes: attributes(rest)
            .into_iter()
            .filter(|(kind, _)| KEPT.contains(kind))
            .map(|(kind, value)| (kind, value.to_vec()))
            .collect(),
    })
}

/// A socket of another namespace: a socket stays where it was opened.
fn socket_in(namespace: &OwnedFd) -> Result<Socket> {
    let fail = || "cannot enter the network namespace of the container";
    let own = netns::current_network().with_context(fail)?;
    netns::enter_network(namespace).with_context(fail)?;
    let socket = Socket::open();
    netns::enter_network(&own).context("cannot return to the own network namespace")?;
    socket.context("cannot open a netlink socket")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(text: &str) -> Result<BTreeMap<String, String>> {
        translate(&serde_json::from_str(text).expect("json"), true)
    }

    #[test]
    fn translate_names_are_checked() {
        let plan = devices(r#"{"eth0":{"name":"c0"},"eth1":{}}"#).expect("good");
        assert_eq!(plan["eth0"], "c0");
        assert_eq!(plan["eth1"], "");
        for bad in [
            r#"{"a/b":{}}"#,
            r#"{"a":{"name":"0123456789abcdef"}}"#,
            r#"{"a":{"name":"x"},"b":{"name":"x"}}"#,
            r#"{"a":{"name":"b"},"b":{}}"#,
        ] {
            assert!(devices(bad).is_err(), "{bad}");
        }
        let one = serde_json::from_str(r#"{"a":{}}"#).expect("json");
        assert!(translate(&one, false).is_err());
    }

    #[test]
    fn address_only_permanent_ones_of_the_interface_are_kept() {
        let mut body = vec![2, 24, IFA_F_PERMANENT, SCOPE_UNIVERSE];
        body.extend(5u32.to_ne_bytes());
        body.extend([8, 0, 2, 0, 10, 0, 0, 1]);
        body.extend([8, 0, 6, 0, 1, 1, 1, 1]);
        let found = address(&body, 5).expect("address");
        assert_eq!(found.attributes, [(2, vec![10, 0, 0, 1])]);
        assert_eq!(address(&body, 6), None);
        body[2] = 0;
        assert_eq!(address(&body, 5), None);
    }
}
