//! Taps: the way from a network namespace that the daemon made, as for any container, into a guest.
//!
//! ```text
//! host's bridge ── veth ── eth0 ─┐
//!                                ├─ a bridge in the namespace ── tap ═ descriptor ═ hypervisor
//! ```
//!
//! The interface hands its address on Ethernet and its addresses on IP over to the guest and
//! becomes a wire. So whatever publishes, isolates or counts at the host's end does not know the
//! difference; and nothing of the host answers in the guest's place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_proto::Failure;
use hull_proto::guest::{Interface, MAX_ITEMS, Route};
use hull_sys::netlink::{
    CREATE, DUMP, GET_ADDRESS, IFLA_IFNAME, IFLA_MTU, NEW_LINK, Request, Socket, attributes,
};
use hull_sys::{Errno, netns, tun};

use super::boot::failed;

const GET_LINK: u16 = 18;
const DELETE_ADDRESS: u16 = 21;
const GET_ROUTE: u16 = 26;
const IFLA_ADDRESS: u16 = 1;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BR_AGEING_TIME: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DESTINATION: u16 = 1;
const RTA_INTERFACE: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const IFF_UP: u32 = 1;
/// Type of hardware of an interface with frames as on a wire.
const ETHERNET: u16 = 1;
/// What holds on the link alone the guest makes for itself.
const SCOPE_LINK: u8 = 253;
const TABLE_MAIN: u8 = 254;
const PROTOCOL_KERNEL: u8 = 2;
const UNICAST: u8 = 1;
const CLONED: u32 = 0x200;
/// An interface of this size needs no word about it.
const USUAL_MTU: u32 = 1500;
/// Locally administered, and no card's.
const OWN_PREFIX: [u8; 2] = [0x0A, 0x68];

/// A tap, and what the guest makes of its interface.
#[derive(Debug)]
pub(super) struct Tap {
    pub(super) fd: OwnedFd,
    pub(super) interface: Interface,
}

/// Turns every interface of a namespace into a wire to a tap.
pub(super) fn make(netns: BorrowedFd<'_>) -> Result<Vec<Tap>, Failure> {
    let netns = netns
        .try_clone_to_owned()
        .map_err(|error| failed(format!("cannot keep the network namespace: {error}")))?;
    // A thread of its own, which ends in the namespace that it entered.
    let work = move || -> Result<Vec<Tap>, Failure> {
        netns::enter_network(netns.as_fd())
            .map_err(|error| failed(format!("cannot enter the network namespace: {error}")))?;
        let led = |errno| {
            failed(format!(
                "cannot lead the network into the virtual machine: {errno}"
            ))
        };
        let mut socket = Socket::open().map_err(led)?;
        let found = links(&mut socket).map_err(led)?;
        let routes = routes(&mut socket).map_err(led)?;
        let mut taps = Vec::new();
        for (number, (index, mut interface)) in found.into_iter().enumerate() {
            let own = routes.iter().filter(|(through, _)| *through == index);
            interface.routes = own
                .map(|(_, route)| route.clone())
                .take(MAX_ITEMS)
                .collect();
            let fd = wire(&mut socket, number, index, &mut interface).map_err(led)?;
            taps.push(Tap { fd, interface });
        }
        Ok(taps)
    };
    let thread = std::thread::Builder::new().name("taps".into()).spawn(work);
    let thread = thread.map_err(|error| failed(format!("cannot start a thread: {error}")))?;
    thread
        .join()
        .unwrap_or_else(|_| Err(failed("the thread that makes taps ended early")))
}

/// The interfaces that are up, by their numbers, without addresses and routes.
fn links(socket: &mut Socket) -> Result<Vec<(u32, Interface)>, Errno> {
    const FIXED: usize = 16;
    let answers = socket.ask(Request::new(GET_LINK, DUMP, &[0; FIXED]))?;
    let mut found = Vec::new();
    for (_, body) in answers {
        let Some((head, rest)) = body.split_first_chunk::<FIXED>() else {
            continue;
        };
        let kind = u16::from_ne_bytes([head[2], head[3]]);
        let [index, flags] = [word(head, 4), word(head, 8)];
        if kind != ETHERNET || flags & IFF_UP == 0 {
            continue;
        }
        let list = attributes(rest);
        let of = |wanted| list.iter().find(|(kind, _)| *kind == wanted).map(|a| a.1);
        let mac: Vec<String> = of(IFLA_ADDRESS)
            .unwrap_or_default()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let name = String::from_utf8_lossy(of(IFLA_IFNAME).unwrap_or_default());
        let mtu = of(IFLA_MTU).map(|bytes| word(bytes, 0));
        let interface = Interface {
            mac: mac.join(":"),
            name: name.trim_end_matches('\0').to_owned(),
            mtu: mtu.filter(|mtu| *mtu != USUAL_MTU),
            ..Interface::default()
        };
        found.push((index, interface));
    }
    found.sort_by_key(|(index, _)| *index);
    Ok(found)
}

/// What somebody has routed, by interface; what the kernel did follows from the addresses.
fn routes(socket: &mut Socket) -> Result<Vec<(u32, Route)>, Errno> {
    const FIXED: usize = 12;
    let answers = socket.ask(Request::new(GET_ROUTE, DUMP, &[0; FIXED]))?;
    let mut found = Vec::new();
    for (_, body) in answers {
        let Some((head, rest)) = body.split_first_chunk::<FIXED>() else {
            continue;
        };
        let [family, length, _, _, table, protocol, _, kind, ..] = *head;
        let ours = table == TABLE_MAIN && kind == UNICAST && protocol != PROTOCOL_KERNEL;
        if !ours || word(head, 8) & CLONED != 0 {
            continue;
        }
        let list = attributes(rest);
        let of = |wanted| list.iter().find(|(kind, _)| *kind == wanted).map(|a| a.1);
        let any = if family == 2 {
            IpAddr::from(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::from(Ipv6Addr::UNSPECIFIED)
        };
        let to = of(RTA_DESTINATION).map_or(Some(any), address);
        let (Some(to), Some(through)) = (to, of(RTA_INTERFACE)) else {
            continue;
        };
        let route = Route {
            to: (to, length),
            via: of(RTA_GATEWAY).and_then(address),
            metric: of(RTA_PRIORITY).map(|bytes| word(bytes, 0)),
        };
        found.push((word(through, 0), route));
    }
    Ok(found)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).into());
    }
    let sixteen = <[u8; 16]>::try_from(bytes).ok()?;
    Some(Ipv6Addr::from(sixteen).into())
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// Takes an interface's addresses, which are noted, and makes it a wire to a tap.
fn wire(
    socket: &mut Socket,
    number: usize,
    outer: u32,
    interface: &mut Interface,
) -> Result<OwnedFd, Errno> {
    let (bridge, tap) = (format!("vmbr{number}"), format!("vmtap{number}"));
    for (address, prefix, scope) in addresses(socket, outer)? {
        let family = if address.is_ipv4() { 2 } else { 10 };
        let body = [&[family, prefix, 0, 0][..], &outer.to_ne_bytes()].concat();
        let request = Request::new(DELETE_ADDRESS, 0, &body)
            .attribute(IFA_LOCAL, &octets(address))?
            .attribute(IFA_ADDRESS, &octets(address))?;
        match socket.ask(request) {
            // Those of one network go with the first of them.
            Ok(_) | Err(Errno::ADDRNOTAVAIL) => {}
            Err(errno) => return Err(errno),
        }
        if scope != SCOPE_LINK {
            interface.addresses.push((address, prefix));
        }
    }
    let mut own = [0u8; 6];
    rustix::rand::getrandom(&mut own[..], rustix::rand::GetRandomFlags::empty())?;
    own[..2].copy_from_slice(&OWN_PREFIX);
    socket.ask(link(outer, 0).attribute(IFLA_ADDRESS, &own)?)?;
    let name = |text: &str| [text.as_bytes(), b"\0"].concat();
    // It learns no addresses: with two ends every frame goes to the other.
    let ageing = nested(IFLA_BR_AGEING_TIME, &0_u32.to_ne_bytes());
    let kind = [
        nested(IFLA_INFO_KIND, b"bridge"),
        nested(IFLA_INFO_DATA, &ageing),
    ]
    .concat();
    let request = Request::new(NEW_LINK, CREATE, &[0; 16])
        .attribute(IFLA_IFNAME, &name(&bridge))?
        .attribute(IFLA_LINKINFO, &kind)?;
    socket.ask(request)?;
    // It is a wire, and has no address of its own.
    let quiet = format!("/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6");
    let _ = std::fs::write(quiet, "1");
    let descriptor = tun::open_tap(&tap)?;
    let quiet = format!("/proc/sys/net/ipv6/conf/{tap}/disable_ipv6");
    let _ = std::fs::write(quiet, "1");
    let (bridge, inner) = (socket.index(&bridge)?, socket.index(&tap)?);
    let master = bridge.to_ne_bytes();
    let mut enslave = link(inner, IFF_UP).attribute(IFLA_MASTER, &master)?;
    if let Some(mtu) = interface.mtu {
        enslave = enslave.attribute(IFLA_MTU, &mtu.to_ne_bytes())?;
    }
    socket.ask(enslave)?;
    socket.ask(link(outer, IFF_UP).attribute(IFLA_MASTER, &master)?)?;
    socket.ask(link(bridge, IFF_UP))?;
    Ok(descriptor)
}

/// The addresses of an interface, each with the length of its prefix and its scope.
fn addresses(socket: &mut Socket, index: u32) -> Result<Vec<(IpAddr, u8, u8)>, Errno> {
    const FIXED: usize = 8;
    let answers = socket.ask(Request::new(GET_ADDRESS, DUMP, &[0; FIXED]))?;
    let mut found = Vec::new();
    for (_, body) in answers {
        let Some((head, rest)) = body.split_first_chunk::<FIXED>() else {
            continue;
        };
        let [_, prefix, _, scope, ..] = *head;
        if word(head, 4) != index {
            continue;
        }
        let list = attributes(rest);
        let of = |wanted| list.iter().find(|(kind, _)| *kind == wanted).map(|a| a.1);
        if let Some(address) = of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS)).and_then(address) {
            found.push((address, prefix, scope));
        }
    }
    Ok(found)
}

/// `ifinfomsg`: flags that are given are set.
fn link(index: u32, flags: u32) -> Request {
    let mut body = [0; 16];
    for (field, value) in body.chunks_exact_mut(4).zip([0, index, flags, flags]) {
        field.copy_from_slice(&value.to_ne_bytes());
    }
    Request::new(NEW_LINK, 0, &body)
}

/// An attribute within another.
fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW_ADDRESS: u16 = 20;
    const NEW_ROUTE: u16 = 24;

    fn link_down(index: u32) -> Request {
        let mut body = [0; 16];
        for (field, value) in body.chunks_exact_mut(4).zip([0, index, 0, IFF_UP]) {
            field.copy_from_slice(&value.to_ne_bytes());
        }
        Request::new(NEW_LINK, 0, &body)
    }

    /// A namespace with an interface as the daemon makes it.
    fn world() -> OwnedFd {
        std::thread::spawn(|| {
            netns::unshare_network().unwrap();
            let mut socket = Socket::open().unwrap();
            let info = nested(IFLA_INFO_KIND, b"veth");
            let request = Request::new(NEW_LINK, CREATE, &[0; 16])
                .attribute(IFLA_IFNAME, b"eth0\0")
                .and_then(|request| request.attribute(IFLA_LINKINFO, &info))
                .unwrap();
            socket.ask(request).unwrap();
            let index = socket.index("eth0").unwrap();
            let body = [&[2, 24, 0, 0][..], &index.to_ne_bytes()].concat();
            let address = Request::new(NEW_ADDRESS, CREATE, &body)
                .attribute(IFA_LOCAL, &[10, 9, 8, 7])
                .unwrap();
            socket.ask(address).unwrap();
            socket.ask(link(index, IFF_UP)).unwrap();
            let peer = socket.index("veth0").unwrap();
            socket.ask(link(peer, IFF_UP)).unwrap();
            let body = [2, 0, 0, 0, TABLE_MAIN, 3, 0, UNICAST, 0, 0, 0, 0];
            let route = Request::new(NEW_ROUTE, CREATE, &body)
                .attribute(RTA_GATEWAY, &[10, 9, 8, 1])
                .and_then(|request| request.attribute(RTA_INTERFACE, &index.to_ne_bytes()))
                .unwrap();
            socket.ask(route).unwrap();
            // Its other end is the daemon's, elsewhere.
            socket.ask(link_down(peer)).unwrap();
            netns::current_network().unwrap()
        })
        .join()
        .unwrap()
    }

    #[test]
    fn make_turns_an_interface_into_a_wire() {
        let netns = world();
        let taps = make(netns.as_fd()).unwrap();
        let [tap] = taps.as_slice() else {
            panic!("{taps:?}");
        };
        let interface = &tap.interface;
        assert_eq!(interface.name, "eth0");
        assert_eq!(interface.mac.len(), 17);
        assert_eq!(interface.addresses, [("10.9.8.7".parse().unwrap(), 24)]);
        let [route] = interface.routes.as_slice() else {
            panic!("{interface:?}");
        };
        assert_eq!(route.to, ("0.0.0.0".parse().unwrap(), 0));
        assert_eq!(route.via, Some("10.9.8.1".parse().unwrap()));
        std::thread::spawn(move || {
            netns::enter_network(&netns).unwrap();
            let mut socket = Socket::open().unwrap();
            let outer = socket.index("eth0").unwrap();
            assert!(socket.index("vmbr0").is_ok() && socket.index("vmtap0").is_ok());
            let left = addresses(&mut socket, outer).unwrap();
            assert!(
                left.iter().all(|(address, ..)| address.is_ipv6()),
                "{left:?}"
            );
        })
        .join()
        .unwrap();
    }

    #[test]
    fn make_in_an_empty_namespace_is_nothing() {
        let empty = std::thread::spawn(|| {
            netns::unshare_network().unwrap();
            netns::current_network().unwrap()
        });
        assert!(make(empty.join().unwrap().as_fd()).unwrap().is_empty());
    }
}
