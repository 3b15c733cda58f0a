//! Opening a network: what the kernel shows and what the records say are made one.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;
use std::sync::Mutex;

use crate::addr::{self, AddressPool};
use crate::config::{LiveEndpoint, NetworkConfig, OpenError};
use crate::core::{Core, Members};
use crate::elements::Change;
use crate::endpoint::Factory;
use crate::files;
use crate::host;
use crate::netlink::NetlinkError;
use crate::nft::{self, Hook};
use crate::route::{Link, Route};
use crate::six::Six;
use crate::table::{self, Forward};
use crate::table6::{self, Forward6};
use crate::turn;
use crate::types::{MacAddress, Subnet};

/// IFNAMSIZ less the zero byte.
pub(crate) const LONGEST_LINK_NAME: usize = 15;
const LONGEST_TABLE_NAME: usize = 128;

/// What [`crate::Network`] is made of.
pub(crate) struct Parts {
    pub(crate) core: Core,
    pub(crate) six: Option<Six>,
    pub(crate) warnings: Vec<String>,
    /// Links of ours that belong to nobody.
    pub(crate) strays: Vec<String>,
}

/// What all veths of a bridge begin with: `hv` and five digits that stand for the bridge, so that
/// daemons with different bridges leave each other's links alone.
pub(crate) fn veth_prefix(config: &NetworkConfig) -> String {
    config.veth_prefix.clone().unwrap_or_else(|| {
        let mut hasher = DefaultHasher::new();
        config.bridge.hash(&mut hasher);
        format!("hv{:05x}", hasher.finish() & 0xf_ffff)
    })
}

pub(crate) fn open(config: &NetworkConfig, live: &[LiveEndpoint]) -> Result<Parts, OpenError> {
    check_names(config)?;
    let kernel = |step| {
        let bridge = config.bridge.clone();
        move |source: NetlinkError| OpenError::Kernel {
            step,
            bridge,
            source,
        }
    };
    let mut warnings = Vec::new();
    let mut route = Route::open().map_err(kernel("open a socket"))?;

    let existed = route.link(&config.bridge);
    let existed = existed.map_err(kernel("find the link"))?.is_some();
    let turn = turn::take();
    let (bridge_index, subnet) = bridge(config, live, &mut route, &mut warnings)?;
    drop(turn);
    warnings.extend(host::prepare_bridge(&config.bridge, config.v6.is_some()));
    if let Err(error) = host::enable_forwarding() {
        warnings.push(format!(
            "containers cannot reach other hosts: the host does not forward packets \
             (net.ipv4.ip_forward): {error}"
        ));
    }

    let six = match &config.v6 {
        Some(v6) => {
            let (six, told) = Six::open(config, v6, live)?;
            warnings.extend(told);
            Some(six)
        }
        None => None,
    };
    let factory = Factory::new(config, bridge_index, subnet);
    let links = links_concerned(&mut route, config, live, existed.then_some(bridge_index))
        .map_err(kernel("list the links"))?;
    let strays = adopt_links(
        &links,
        live,
        bridge_index,
        &factory.veth_prefix,
        &mut route,
        &mut warnings,
    );

    let mut members = Members {
        addresses: AddressPool::new(subnet, factory.gateway, config.range, &config.reserved)
            .map_err(OpenError::Subnet)?,
        veths: HashSet::new(),
        attached: HashMap::new(),
        unfinished: 0,
        joining: 0,
        closed: false,
    };
    let mut publisher = config.firewall.publisher();
    let mut forwards = Vec::new();
    let mut forwards6 = Vec::new();
    for endpoint in live {
        if let Err(error) = members.addresses.reserve(endpoint.address) {
            warnings.push(format!("a running container's {error}"));
        }
        members.veths.insert(endpoint.host_veth.clone());
        members
            .attached
            .insert(endpoint.address, endpoint.host_veth.clone());
        for port in &endpoint.ports {
            forwards.push(Forward {
                port: *port,
                address: endpoint.address,
            });
            if let Err(error) = publisher.ports.adopt(endpoint.address, *port) {
                warnings.push(format!("a port stays published although {error}"));
            }
        }
        for port in &endpoint.ports6 {
            forwards6.extend(endpoint.address6.map(|address| Forward6 {
                port: *port,
                address,
            }));
            if let Err(error) = publisher.ports6.adopt(endpoint.address, *port) {
                warnings.push(format!("a port stays published although {error}"));
            }
        }
    }
    drop(publisher);

    let mut elements = table::of_network(&config.bridge, subnet, config.policy);
    elements.extend(table::of_ports(&forwards));
    elements.extend(table6::of_ports(&forwards6));
    elements.extend(six.iter().flat_map(|six| six.elements(config.policy)));
    config.firewall.know_bridge(&config.bridge);
    config
        .firewall
        .change(Change::adding(elements))
        .map_err(kernel("write the firewall table"))?;

    // A hint only, so a kernel that does not list its chains is no reason to fail.
    let dropping =
        || nft::tables_dropping(&mut nft::open()?, config.firewall.name(), Hook::Forward);
    for other in dropping().unwrap_or_default() {
        warnings.push(format!(
            "the firewall table {other} drops forwarded packets: allow those from and to {} \
             there, or containers reach nothing and nobody reaches them",
            config.bridge
        ));
    }

    Ok(Parts {
        core: Core {
            factory,
            members: Mutex::new(members),
        },
        six,
        warnings,
        strays,
    })
}

fn check_names(config: &NetworkConfig) -> Result<(), OpenError> {
    let usable = |name: &str, longest: usize| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.len() <= longest
            && name.chars().all(allowed)
    };
    let names = [
        ("bridge name", config.bridge.as_str(), LONGEST_LINK_NAME),
        ("table name", config.firewall.name(), LONGEST_TABLE_NAME),
    ];
    for (what, name, longest) in names {
        if !usable(name, longest) {
            return Err(OpenError::InvalidName {
                what,
                name: name.to_owned(),
            });
        }
    }
    Ok(())
}

/// What the user chose must lie in the subnet.
fn check_inside(
    config: &NetworkConfig,
    subnet: Subnet,
    gateway: Ipv4Addr,
) -> Result<(), OpenError> {
    addr::check_inside(subnet, gateway, config.range, &config.reserved).map_err(
        |(what, address)| OpenError::Outside {
            what,
            address,
            subnet,
        },
    )
}

/// Makes or finds the bridge, and settles on its subnet.
fn bridge(
    config: &NetworkConfig,
    live: &[LiveEndpoint],
    route: &mut Route,
    warnings: &mut Vec<String>,
) -> Result<(u32, Subnet), OpenError> {
    let name = config.bridge.as_str();
    let kernel = |step| {
        move |source: NetlinkError| OpenError::Kernel {
            step,
            bridge: name.to_owned(),
            source,
        }
    };
    let existing = route.link(name).map_err(kernel("find the link"))?;
    if let Some(link) = existing.as_ref().filter(|link| link.kind != "bridge") {
        return Err(OpenError::NotABridge {
            bridge: name.to_owned(),
            kind: link.kind.clone(),
        });
    }
    let index = existing.as_ref().map_or(0, |link| link.index);
    let addresses = route.addresses().map_err(kernel("list addresses"))?;
    let own: Vec<(Subnet, Ipv4Addr)> = addresses
        .iter()
        .filter(|(owner, ..)| index != 0 && *owner == index)
        .map(|(_, subnet, address)| (*subnet, *address))
        .collect();
    let routes = route.routes().map_err(kernel("list routes"))?;
    let mut occupied: Vec<Subnet> = addresses
        .iter()
        .map(|(owner, subnet, _)| (*owner, *subnet))
        .chain(routes)
        .filter(|(owner, _)| index == 0 || *owner != index)
        .map(|(_, subnet)| subnet)
        .collect();
    occupied.extend(name_servers(config));

    let subnet = settle(
        config,
        live,
        own.first().map(|(s, _)| *s),
        &occupied,
        warnings,
    )?;
    let gateway = config.gateway.unwrap_or(subnet.gateway());
    check_inside(config, subnet, gateway)?;
    let index = match existing {
        Some(link) => link.index,
        None => {
            let mac = MacAddress::from_ipv4(gateway);
            route
                .create_bridge(name, mac, config.mtu)
                .map_err(kernel("create the link"))?;
            let link = route.link(name).map_err(kernel("find the link"))?;
            link.map_or(0, |link| link.index)
        }
    };
    for (other, address) in own {
        if other != subnet || address != gateway {
            route
                .delete_address(index, address, other.prefix())
                .map_err(kernel("remove an old address"))?;
        }
    }
    let up = if config.ipv4 {
        route.set_address_and_up(index, gateway, subnet.prefix())
    } else {
        route.up(index)
    };
    up.map_err(kernel("set the address"))?;
    Ok((index, subnet))
}

/// Which subnet it is: running containers decide, then the configuration, then what is there.
fn settle(
    config: &NetworkConfig,
    live: &[LiveEndpoint],
    existing: Option<Subnet>,
    occupied: &[Subnet],
    warnings: &mut Vec<String>,
) -> Result<Subnet, OpenError> {
    if let (Some(existing), false) = (existing, live.is_empty()) {
        if config.subnet.is_some_and(|wanted| wanted != existing) {
            warnings.push(format!(
                "the network keeps {existing} while containers run in it"
            ));
        }
        return Ok(existing);
    }
    if let Some(wanted) = config.subnet {
        return match addr::first_overlap(wanted, occupied) {
            Some(other) => Err(OpenError::Overlap {
                subnet: wanted,
                other,
            }),
            None => Ok(wanted),
        };
    }
    if let Some(existing) = existing {
        return Ok(existing);
    }
    // The bridge was deleted under running containers: where they are is where it was.
    if let Some(endpoint) = live.first()
        && let Some(subnet) = addr::candidate_with(endpoint.address)
    {
        return Ok(subnet);
    }
    addr::choose_subnet(occupied).map_err(OpenError::Subnet)
}

fn name_servers(config: &NetworkConfig) -> Vec<Subnet> {
    let content = fs::read_to_string(&config.resolv_conf).unwrap_or_default();
    files::name_servers(&content)
        .filter_map(|server| server.parse::<Ipv4Addr>().ok())
        .filter_map(|server| Subnet::new(server, 32).ok())
        .collect()
}

/// The links that may be of this network. Where hundreds of networks are, not all are listed for
/// each: those on its bridge are enough, and the containers' own wherever they are.
fn links_concerned(
    route: &mut Route,
    config: &NetworkConfig,
    live: &[LiveEndpoint],
    existing: Option<u32>,
) -> Result<Vec<Link>, NetlinkError> {
    let Some(bridge) = existing else {
        return if config.fresh {
            Ok(Vec::new())
        } else {
            route.links()
        };
    };
    let mut links = route.ports(bridge)?;
    let found: HashSet<String> = links.iter().map(|link| link.name.clone()).collect();
    for endpoint in live.iter().filter(|e| !found.contains(&e.host_veth)) {
        links.extend(route.link(&endpoint.host_veth)?);
    }
    Ok(links)
}

/// Puts links of running containers back on the bridge if it was made anew, and answers the links
/// of ours that belong to none.
fn adopt_links(
    links: &[Link],
    live: &[LiveEndpoint],
    bridge: u32,
    prefix: &str,
    route: &mut Route,
    warnings: &mut Vec<String>,
) -> Vec<String> {
    let owned: HashSet<&str> = live.iter().map(|e| e.host_veth.as_str()).collect();
    let ours = links.iter().filter(|link| {
        let on_ours = link.master == bridge || link.master == 0;
        link.name.starts_with(prefix) && on_ours
    });
    let strays = ours.filter(|link| !owned.contains(link.name.as_str()));
    let kept = links
        .iter()
        .filter(|link| owned.contains(link.name.as_str()));
    let homeless: Vec<u32> = kept
        .filter(|link| link.master != bridge)
        .map(|link| link.index)
        .collect();
    if let Err(error) = route.set_master(&homeless, bridge) {
        warnings.push(format!("running containers lost the network: {error}"));
    }
    strays.map(|link| link.name.clone()).collect()
}
