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

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_proto::Failure;
use hull_proto::vm::VmNic;
use hull_sys::netlink::{
    CREATE, DUMP, GET_ADDRESS, IFLA_IFNAME, IFLA_MTU, NEW_LINK, Request, Socket,
};
use hull_sys::{Errno, netns, tun};

use super::boot::failed;

const DELETE_ADDRESS: u16 = 21;
const IFLA_ADDRESS: u16 = 1;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFF_UP: u32 = 1;
/// Locally administered, and no card's.
const OWN_PREFIX: [u8; 2] = [0x0A, 0x68];

/// Makes the taps of a machine in the order of its interfaces.
pub(super) fn make(netns: BorrowedFd<'_>, nics: &[VmNic]) -> Result<Vec<OwnedFd>, Failure> {
    let netns = netns
        .try_clone_to_owned()
        .map_err(|error| failed(format!("cannot keep the network namespace: {error}")))?;
    let nics = nics.to_vec();
    // A thread of its own, which ends in the namespace that it entered.
    let work = move || -> Result<Vec<OwnedFd>, Failure> {
        netns::enter_network(netns.as_fd())
            .map_err(|error| failed(format!("cannot enter the network namespace: {error}")))?;
        nics.iter()
            .enumerate()
            .map(|(index, nic)| {
                wire(index, nic).map_err(|errno| {
                    failed(format!(
                        "cannot lead the interface {} into the virtual machine: {errno}",
                        nic.interface
                    ))
                })
            })
            .collect()
    };
    let thread = std::thread::Builder::new().name("taps".into()).spawn(work);
    let thread = thread.map_err(|error| failed(format!("cannot start a thread: {error}")))?;
    thread
        .join()
        .unwrap_or_else(|_| Err(failed("the thread that makes taps ended early")))
}

fn wire(number: usize, nic: &VmNic) -> Result<OwnedFd, Errno> {
    let (bridge, tap) = (format!("vmbr{number}"), format!("vmtap{number}"));
    let mut socket = Socket::open()?;
    let outer = socket.index(&nic.interface)?;
    for (family, prefix, address) in addresses(&mut socket, outer)? {
        let body = [&[family, prefix, 0, 0][..], &outer.to_ne_bytes()].concat();
        let request = Request::new(DELETE_ADDRESS, 0, &body)
            .attribute(IFA_LOCAL, &address)?
            .attribute(IFA_ADDRESS, &address)?;
        match socket.ask(request) {
            // Those of one network go with the first of them.
            Ok(_) | Err(Errno::ADDRNOTAVAIL) => {}
            Err(errno) => return Err(errno),
        }
    }
    let mut own = [0u8; 6];
    rustix::rand::getrandom(&mut own[..], rustix::rand::GetRandomFlags::empty())?;
    own[..2].copy_from_slice(&OWN_PREFIX);
    socket.ask(link(outer, 0).attribute(IFLA_ADDRESS, &own)?)?;
    let name = |text: &str| [text.as_bytes(), b"\0"].concat();
    let kind = nested(IFLA_INFO_KIND, b"bridge");
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
    if let Some(mtu) = nic.mtu {
        enslave = enslave.attribute(IFLA_MTU, &mtu.to_ne_bytes())?;
    }
    socket.ask(enslave)?;
    socket.ask(link(outer, IFF_UP).attribute(IFLA_MASTER, &master)?)?;
    socket.ask(link(bridge, IFF_UP))?;
    Ok(descriptor)
}

/// Family, length of the prefix and address of each address of an interface.
fn addresses(socket: &mut Socket, index: u32) -> Result<Vec<(u8, u8, Vec<u8>)>, Errno> {
    const FIXED: usize = 8;
    let answers = socket.ask(Request::new(GET_ADDRESS, DUMP, &[0; FIXED]))?;
    let mut found = Vec::new();
    for (_, body) in answers {
        let Some((head, rest)) = body.split_first_chunk::<FIXED>() else {
            continue;
        };
        let [family, prefix, _, _, a, b, c, d] = *head;
        if u32::from_ne_bytes([a, b, c, d]) != index {
            continue;
        }
        let attributes = hull_sys::netlink::attributes(rest);
        let of = |wanted| attributes.iter().find(|(kind, _)| *kind == wanted);
        if let Some((_, address)) = of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS)) {
            found.push((family, prefix, address.to_vec()));
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
            netns::current_network().unwrap()
        })
        .join()
        .unwrap()
    }

    #[test]
    fn make_turns_an_interface_into_a_wire() {
        let netns = world();
        let nic = VmNic {
            interface: "eth0".into(),
            mac: "02:42:0a:09:08:07".into(),
            mtu: Some(1400),
        };
        let taps = make(netns.as_fd(), &[nic]).unwrap();
        assert_eq!(taps.len(), 1);
        std::thread::spawn(move || {
            netns::enter_network(&netns).unwrap();
            let mut socket = Socket::open().unwrap();
            let outer = socket.index("eth0").unwrap();
            assert!(socket.index("vmbr0").is_ok() && socket.index("vmtap0").is_ok());
            let left = addresses(&mut socket, outer).unwrap();
            assert!(left.iter().all(|(family, ..)| *family != 2), "{left:?}");
        })
        .join()
        .unwrap();
        let missing = VmNic::default();
        assert!(make(world().as_fd(), &[missing]).is_err());
    }
}
