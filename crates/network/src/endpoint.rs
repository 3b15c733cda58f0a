//! An endpoint: a network namespace with `eth0` in it, ready for a container.
//!
//! The namespace has no name. Whoever holds its descriptor or runs in it keeps it alive; when the
//! last goes, the kernel removes it with the veth pair, so that nothing is left behind by a
//! daemon or a container that was killed.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use hull_sys::netns;

use crate::config::NetworkConfig;
use crate::host;
use crate::netlink::NetlinkError;
use crate::open::{LONGEST_LINK_NAME, veth_prefix};
use crate::route::{Route, Veth};
use crate::types::{MacAddress, Subnet};

/// The interface as the container sees it.
pub const INTERFACE: &str = "eth0";
/// A name may be in use by an endpoint of an earlier daemon; as many in a row never are.
const NAME_ATTEMPTS: u32 = 16;
const STACK_BYTES: usize = 256 << 10;

/// A configured network namespace. Dropping it, when no process runs in it, removes it.
#[derive(Debug)]
pub struct Endpoint {
    /// The namespace.
    pub netns: OwnedFd,
    /// Address of `eth0`.
    pub address: Ipv4Addr,
    /// Length of its prefix.
    pub prefix: u8,
    /// The bridge's address, where the default route leads.
    pub gateway: Ipv4Addr,
    /// MAC address of `eth0`, derived from the address.
    pub mac: MacAddress,
    /// The host's end of the veth pair.
    pub host_veth: String,
    /// Largest packet in bytes.
    pub mtu: u32,
}

/// Why an endpoint could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// No thread or namespace could be made.
    #[error("create a network namespace: {step}")]
    Namespace {
        /// What was tried.
        step: &'static str,
        /// The error.
        #[source]
        source: std::io::Error,
    },
    /// The kernel refused the veth pair or its configuration.
    #[error("configure the network of a container: {step}")]
    Link {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        #[source]
        source: NetlinkError,
    },
    /// The kernel allows a bridge 1,023 ports.
    #[error("the bridge has no free port left: a network holds at most 1023 containers")]
    BridgeFull,
    /// The interface on which containers sit is gone.
    #[error("the network's parent {0} is gone")]
    NoParent(String),
    /// The interface bears no further link of this kind.
    #[error(
        "the network's parent is in use: by a link that has it for itself, or by one of another kind"
    )]
    ParentTaken,
    /// The container has made an interface of that name itself.
    #[error("the container has an interface {0} already")]
    InterfaceExists(String),
    /// The interface vanished between two requests.
    #[error("the interface of a new network namespace vanished")]
    Vanished,
}

/// Makes endpoints of one bridge.
#[derive(Debug)]
pub(crate) struct Factory {
    pub(crate) bridge: String,
    /// Another after somebody deleted the bridge and it was made anew.
    pub(crate) bridge_index: AtomicU32,
    pub(crate) subnet: Subnet,
    /// The bridge's address.
    pub(crate) gateway: Ipv4Addr,
    /// Whether the gateway leads anywhere.
    pub(crate) routed: bool,
    /// Frames pass from container to container.
    pub(crate) icc: bool,
    pub(crate) mtu: u32,
    /// Addresses are put on links; without, they are mere numbers.
    pub(crate) ipv4: bool,
    pub(crate) veth_prefix: String,
    counter: AtomicU32,
}

impl Factory {
    pub(crate) fn new(config: &NetworkConfig, bridge_index: u32, subnet: Subnet) -> Self {
        // Starts anywhere, so that names of an earlier daemon's endpoints are seldom met.
        let start = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |now| now.subsec_nanos().rotate_left(8));
        Self {
            bridge: config.bridge.clone(),
            bridge_index: AtomicU32::new(bridge_index),
            subnet,
            gateway: config.gateway.unwrap_or(subnet.gateway()),
            routed: !config.policy.internal,
            icc: config.policy.icc,
            mtu: config.mtu,
            ipv4: config.ipv4,
            veth_prefix: veth_prefix(config),
            counter: AtomicU32::new(start),
        }
    }

    /// A name for the host's end that this factory has not given before.
    pub(crate) fn next_name(&self) -> String {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let digits = LONGEST_LINK_NAME.saturating_sub(self.veth_prefix.len());
        let cut = number & (u32::MAX >> (32 - 4 * digits.clamp(1, 8)));
        format!("{}{cut:0digits$x}", self.veth_prefix)
    }

    /// Makes an endpoint with `address`, about a millisecond of work. `on_name` hears the name of
    /// the host's end before the kernel does.
    pub(crate) fn create(
        &self,
        address: Ipv4Addr,
        on_name: impl Fn(&str) + Sync,
    ) -> Result<Endpoint, EndpointError> {
        let namespace_error = |step| move |source| EndpointError::Namespace { step, source };
        // A thread of its own: the caller must stay in the host's namespace whatever fails.
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("hull-netns".to_owned())
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, || self.create_here(address, &on_name))
                .map_err(namespace_error("start a thread"))?
                .join()
                .map_err(|_| {
                    namespace_error("run a thread")(std::io::Error::other("it panicked"))
                })?
        })
    }

    /// As [`Factory::create`]; leaves the calling thread in the new namespace.
    fn create_here(
        &self,
        address: Ipv4Addr,
        on_name: &dyn Fn(&str),
    ) -> Result<Endpoint, EndpointError> {
        let link_error = |step| move |source| EndpointError::Link { step, source };
        let namespace_error = |step| move |source| EndpointError::Namespace { step, source };

        let mut host = Route::open().map_err(link_error("open a socket"))?;
        netns::unshare_network().map_err(namespace_error("unshare"))?;
        let netns = netns::current_network().map_err(namespace_error("open it"))?;
        let mut inside = Route::open().map_err(link_error("open a socket inside"))?;
        host::prepare_container_namespace();

        let mac = MacAddress::from_ipv4(address);
        let host_veth = self.plug_in(&mut host, netns.as_fd(), INTERFACE, mac, on_name)?;
        let link = inside
            .link(INTERFACE)
            .map_err(link_error("find the interface"))?
            .ok_or(EndpointError::Vanished)?;
        let gateway = self.routed.then_some(self.gateway);
        inside
            .configure_inside(link.index, Some(address), self.subnet, gateway)
            .map_err(link_error("set address and route"))?;
        for name in [host_veth.as_str(), self.bridge.as_str()] {
            host.settle(name).map_err(link_error("wait for the link"))?;
        }
        Ok(Endpoint {
            netns,
            address,
            prefix: self.subnet.prefix(),
            gateway: self.gateway,
            mac,
            host_veth,
            mtu: self.mtu,
        })
    }

    /// Makes a veth pair whose other end is born in `netns` as `interface`, and answers the name
    /// of the host's end.
    pub(crate) fn plug_in(
        &self,
        host: &mut Route,
        netns: BorrowedFd<'_>,
        interface: &str,
        mac: MacAddress,
        on_name: &dyn Fn(&str),
    ) -> Result<String, EndpointError> {
        let link_error = |step| move |source| EndpointError::Link { step, source };
        let mut attempt = 0;
        let name = loop {
            let name = self.next_name();
            on_name(&name);
            let veth = Veth {
                host_name: &name,
                master: self.bridge_index.load(Ordering::Relaxed),
                mtu: self.mtu,
                peer_name: interface,
                peer_mac: mac,
                peer_namespace: netns,
            };
            attempt += 1;
            match host.create_veth(&veth) {
                Ok(()) => break name,
                Err(error) if error.errno() == Some(libc::EEXIST) && attempt < NAME_ATTEMPTS => {}
                Err(error) if error.errno() == Some(libc::EXFULL) => {
                    return Err(EndpointError::BridgeFull);
                }
                Err(error) => return Err(link_error("create a veth pair")(error)),
            }
        };
        if !self.icc {
            let isolated = host.set_isolated(&name);
            isolated.map_err(link_error("keep the containers apart"))?;
        }
        Ok(name)
    }
}
