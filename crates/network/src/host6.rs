//! Switches of the kernel's IPv6, of the calling thread's namespace.

use std::io;

use crate::host::set;
use crate::netlink::NetlinkError;
use crate::route::Route;

/// Switches IPv6 on for a container's interface. Nobody else on the network may give it addresses
/// or routes: who announces himself as a router there would get all that the others send.
pub(crate) fn prepare_interface(name: &str) -> io::Result<()> {
    set(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
    set(&format!("ipv6/conf/{name}/disable_ipv6"), "0")
}

/// Has an interface take addresses and routes from routers, as the kernel does by itself elsewhere.
pub(crate) fn learn(name: &str) -> io::Result<()> {
    set(&format!("ipv6/conf/{name}/accept_ra"), "1")
}

/// Switches IPv6 on for a bridge that has it; it learns nothing from containers either.
pub(crate) fn prepare_bridge(bridge: &str) -> io::Result<()> {
    prepare_interface(bridge)
}

/// Whether the firewall sees what a bridge passes from port to port.
pub(crate) fn bridged_packets_are_filtered() -> bool {
    std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-ip6tables")
        .is_ok_and(|text| text.trim() != "0")
}

/// Lets the host forward IPv6 packets between interfaces. A router ignores what other routers
/// announce, unless told not to: interfaces with routes learnt so go on learning.
pub(crate) fn enable_forwarding(route: &mut Route) -> Result<(), Forwarding> {
    const SWITCH: &str = "ipv6/conf/all/forwarding";
    if crate::host::get(SWITCH).map_err(Forwarding::Switch)? != "0" {
        return Ok(());
    }
    let learning = route.learning_interfaces6().map_err(Forwarding::Kernel)?;
    for link in route.links().map_err(Forwarding::Kernel)? {
        let accept = format!("ipv6/conf/{}/accept_ra", link.name);
        if learning.contains(&link.index)
            && crate::host::get(&accept).map_err(Forwarding::Switch)? == "1"
        {
            set(&accept, "2").map_err(Forwarding::Switch)?;
        }
    }
    set(SWITCH, "1").map_err(Forwarding::Switch)
}

/// Why the host does not forward.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Forwarding {
    /// The switch.
    #[error("{0}")]
    Switch(io::Error),
    /// The kernel does not list links or routes.
    #[error("{0}")]
    Kernel(NetlinkError),
}
