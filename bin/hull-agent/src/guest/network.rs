//! The guest's network interfaces.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use hull_proto::guest::{Interface, MAX_ITEMS, Route};
use hull_sys::Errno;
use hull_sys::netlink::{
    CREATE, IFLA_IFNAME, IFLA_MTU, NEW_ADDRESS, NEW_LINK, NEW_ROUTE, Request, Socket,
};

use super::Trouble;

const INTERFACES: &str = "/sys/class/net";
const LOOPBACK: &str = "lo";
const IFF_UP: u32 = 1;
/// Longest name of an interface.
const MAX_NAME: usize = 15;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
/// The address can be used at once: the host has seen to it that nobody else has it.
const IFA_F_NODAD: u8 = 2;

const RTA_DESTINATION: u16 = 1;
const RTA_INTERFACE: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const TABLE_MAIN: u8 = 254;
const PROTOCOL_BOOT: u8 = 3;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const TYPE_UNICAST: u8 = 1;

/// Brings up the loopback and what is given.
pub(super) fn configure(interfaces: &[Interface]) -> Result<(), Trouble> {
    let mut socket = Socket::open().map_err(Trouble::at("speak with the kernel of interfaces"))?;
    let loopback = socket
        .index(LOOPBACK)
        .map_err(Trouble::at("find the loopback"))?;
    up(&mut socket, loopback, LOOPBACK)?;
    // All are there before the first route, which may lead through any of them.
    let mut indices = Vec::new();
    for interface in interfaces {
        indices.push(set_up(&mut socket, interface)?);
    }
    for (interface, index) in interfaces.iter().zip(indices) {
        for route in &interface.routes {
            add_route(&mut socket, index, route)?;
        }
    }
    Ok(())
}

fn set_up(socket: &mut Socket, interface: &Interface) -> Result<u32, Trouble> {
    let count = interface.addresses.len().max(interface.routes.len());
    if count > MAX_ITEMS {
        return Err(Trouble(format!("{count} addresses or routes at once")));
    }
    let found = if interface.mac.is_empty() {
        interface.name.clone()
    } else {
        find(&interface.mac, Path::new(INTERFACES))?
    };
    let index = socket
        .index(&found)
        .map_err(Trouble::at(format!("find the interface {found:?}")))?;
    let name = &interface.name;
    if !name.is_empty() && *name != found {
        if name.len() > MAX_NAME || name.contains('\0') {
            return Err(Trouble(format!("{name:?} is no name of an interface")));
        }
        let what = format!("name the interface {found} {name}");
        let text = [name.as_bytes(), b"\0"].concat();
        ask(socket, link(index, 0), &[(IFLA_IFNAME, &text)], &what)?;
    }
    if let Some(mtu) = interface.mtu {
        let what = format!("set the largest packet of {found} to {mtu}");
        let value = mtu.to_ne_bytes();
        ask(socket, link(index, 0), &[(IFLA_MTU, &value)], &what)?;
    }
    up(socket, index, &found)?;
    for (address, prefix) in &interface.addresses {
        add_address(socket, index, *address, *prefix)?;
    }
    Ok(index)
}

fn up(socket: &mut Socket, index: u32, name: &str) -> Result<(), Trouble> {
    let what = format!("bring up {name}");
    ask(socket, link(index, IFF_UP), &[], &what)
}

/// The interface with a hardware address.
fn find(mac: &str, interfaces: &Path) -> Result<String, Trouble> {
    fs::read_dir(interfaces)
        .map_err(Trouble::at("list the interfaces"))?
        .flatten()
        .find(|entry| {
            let found = fs::read_to_string(entry.path().join("address"));
            found.is_ok_and(|found| found.trim_end().eq_ignore_ascii_case(mac))
        })
        .and_then(|entry| entry.file_name().into_string().ok())
        .ok_or_else(|| Trouble(format!("the guest has no interface {mac}")))
}

/// `ifinfomsg`: flags that are given are set.
fn link(index: u32, flags: u32) -> Request {
    let mut body = [0; 16];
    let fields = [0, index, flags, flags];
    for (field, value) in body.chunks_exact_mut(4).zip(fields) {
        field.copy_from_slice(&value.to_ne_bytes());
    }
    Request::new(NEW_LINK, 0, &body)
}

fn ask(
    socket: &mut Socket,
    mut request: Request,
    attributes: &[(u16, &[u8])],
    what: &str,
) -> Result<(), Trouble> {
    for (kind, value) in attributes {
        request = request.attribute(*kind, value).map_err(Trouble::at(what))?;
    }
    match socket.ask(request) {
        // As it is to be.
        Ok(_) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(Trouble::at(what)(errno)),
    }
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

/// Bits of an address.
fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn add_address(
    socket: &mut Socket,
    index: u32,
    address: IpAddr,
    prefix: u8,
) -> Result<(), Trouble> {
    let what = format!("give the interface the address {address}/{prefix}");
    if prefix > width(address) {
        return Err(Trouble(format!("cannot {what}: the prefix is too long")));
    }
    let flags = match address {
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => IFA_F_NODAD,
    };
    let mut header = vec![family(address), prefix, flags, SCOPE_UNIVERSE];
    header.extend(index.to_ne_bytes());
    let value = bytes(address);
    let mut attributes = vec![(IFA_ADDRESS, value.as_slice()), (IFA_LOCAL, &value)];
    let broadcast = broadcast(address, prefix);
    if let Some(broadcast) = &broadcast {
        attributes.push((IFA_BROADCAST, broadcast));
    }
    let request = Request::new(NEW_ADDRESS, CREATE, &header);
    ask(socket, request, &attributes, &what)
}

/// The address of all in an IPv4 network, where there is one.
fn broadcast(address: IpAddr, prefix: u8) -> Option<[u8; 4]> {
    let IpAddr::V4(address) = address else {
        return None;
    };
    let hosts = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    (prefix < 31).then(|| (u32::from(address) | hosts).to_be_bytes())
}

fn add_route(socket: &mut Socket, index: u32, route: &Route) -> Result<(), Trouble> {
    let (to, prefix) = route.to;
    let via = route.via.map(|via| format!(" by {via}"));
    let what = format!("add the route to {to}/{prefix}{}", via.unwrap_or_default());
    let mixed = route.via.is_some_and(|via| family(via) != family(to));
    if prefix > width(to) || mixed {
        return Err(Trouble(format!("cannot {what}: it makes no sense")));
    }
    let scope = match route.via {
        None if to.is_ipv4() => SCOPE_LINK,
        _ => SCOPE_UNIVERSE,
    };
    let body = [
        family(to),
        prefix,
        0,
        0,
        TABLE_MAIN,
        PROTOCOL_BOOT,
        scope,
        TYPE_UNICAST,
        0,
        0,
        0,
        0,
    ];
    let (to, index) = (bytes(to), index.to_ne_bytes());
    let via = route.via.map(bytes);
    let metric = route.metric.map(u32::to_ne_bytes);
    let mut attributes = vec![(RTA_INTERFACE, index.as_slice())];
    if prefix > 0 {
        attributes.push((RTA_DESTINATION, &to));
    }
    if let Some(via) = &via {
        attributes.push((RTA_GATEWAY, via));
    }
    if let Some(metric) = &metric {
        attributes.push((RTA_PRIORITY, metric));
    }
    let request = Request::new(NEW_ROUTE, CREATE, &body);
    ask(socket, request, &attributes, &what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcast_is_the_last_address_of_the_network() {
        let of = |text: &str, prefix| broadcast(text.parse().expect("address"), prefix);
        assert_eq!(of("10.1.2.3", 24), Some([10, 1, 2, 255]));
        assert_eq!(of("10.1.2.3", 0), Some([255; 4]));
        assert_eq!(of("10.1.2.3", 31), None);
        assert_eq!(of("10.1.2.3", 32), None);
        assert_eq!(of("fd00::1", 64), None);
    }

    #[test]
    fn configure_names_addresses_and_routes_are_set() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        // A thread of its own: what it unshares is gone with it.
        let done = std::thread::spawn(|| {
            hull_sys::netns::unshare_network().expect("a network of its own");
            let route = |to: &str, prefix, via: Option<&str>| Route {
                to: (to.parse().expect("address"), prefix),
                via: via.map(|via| via.parse().expect("address")),
                metric: None,
            };
            let interface = Interface {
                name: "lo".into(),
                addresses: vec![
                    ("10.9.8.7".parse().expect("address"), 24),
                    ("fd09::7".parse().expect("address"), 64),
                ],
                mtu: Some(1400),
                routes: vec![
                    route("0.0.0.0", 0, Some("10.9.8.1")),
                    route("10.7.0.0", 16, None),
                    route("fd77::", 64, None),
                ],
                ..Interface::default()
            };
            configure(std::slice::from_ref(&interface)).expect("configured");
            // Once more is no error.
            configure(std::slice::from_ref(&interface)).expect("configured again");
            let routes = fs::read_to_string("/proc/thread-self/net/route").expect("routes");
            assert!(routes.contains("lo\t00000000\t0108090A"), "{routes}");
            assert!(routes.contains("lo\t0000070A\t00000000"), "{routes}");
            let addresses = fs::read_to_string("/proc/thread-self/net/if_inet6").expect("v6");
            assert!(
                addresses.contains("fd090000000000000000000000000007"),
                "{addresses}"
            );
            for wrong in [
                Interface {
                    name: "none0".into(),
                    ..Interface::default()
                },
                Interface {
                    mac: "02:00:00:00:00:99".into(),
                    ..Interface::default()
                },
                Interface {
                    name: "lo".into(),
                    routes: vec![route("10.0.0.0", 8, Some("fd00::1"))],
                    ..Interface::default()
                },
                Interface {
                    name: "lo".into(),
                    addresses: vec![("10.0.0.1".parse().expect("address"), 33)],
                    ..Interface::default()
                },
            ] {
                assert!(
                    configure(std::slice::from_ref(&wrong)).is_err(),
                    "{wrong:?}"
                );
            }
        });
        done.join().expect("the thread");
    }
}
