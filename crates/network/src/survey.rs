//! What the host has: which subnets it uses, and bridges that bear our name.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::addr;
use crate::config::{NetworkConfig, OpenError};
use crate::files;
use crate::netlink::NetlinkError;
use crate::nft::{self, Hook, NFPROTO_IPV4, Transaction};
use crate::route::Route;
use crate::types::Subnet;

/// Every subnet that the host uses: by address, by route, and by a name server in it.
fn occupied(resolv_conf: &Path) -> Result<Vec<Subnet>, NetlinkError> {
    let mut route = Route::open()?;
    let addresses = route.addresses()?.into_iter().map(|(_, subnet, _)| subnet);
    let mut all: Vec<Subnet> = addresses.collect();
    all.extend(route.routes()?.into_iter().map(|(_, subnet)| subnet));
    let content = fs::read_to_string(resolv_conf).unwrap_or_default();
    let servers = files::name_servers(&content).filter_map(|s| s.parse::<Ipv4Addr>().ok());
    all.extend(servers.filter_map(|server| Subnet::new(server, 32).ok()));
    Ok(all)
}

/// A subnet that neither the host uses nor `taken` lists.
///
/// # Errors
/// There is none, or the kernel does not tell.
pub fn free_subnet(taken: &[Subnet]) -> Result<Subnet, OpenError> {
    let mut all = survey()?;
    all.extend(taken);
    addr::choose_further(&all).map_err(OpenError::Subnet)
}

/// What shares an address with `subnet`: something of the host's or in `taken`.
///
/// # Errors
/// The kernel does not tell.
pub fn overlap(subnet: Subnet, taken: &[Subnet]) -> Result<Option<Subnet>, OpenError> {
    let mut all = survey()?;
    all.extend(taken);
    Ok(addr::first_overlap(subnet, &all))
}

fn survey() -> Result<Vec<Subnet>, OpenError> {
    occupied(Path::new("/etc/resolv.conf")).map_err(|source| OpenError::Kernel {
        step: "list the host's subnets for the sake",
        bridge: "to be made".to_owned(),
        source,
    })
}

/// Deletes bridges whose name begins with `prefix`, with their tables, unless `known` has them;
/// answers their names.
///
/// # Errors
/// The kernel does not list its links, or refuses to delete one.
pub fn sweep_bridges(
    prefix: &str,
    known: impl Fn(&str) -> bool,
) -> Result<Vec<String>, NetlinkError> {
    let mut route = Route::open()?;
    let mut swept = Vec::new();
    for link in route.links()? {
        if link.kind == "bridge" && link.name.starts_with(prefix) && !known(&link.name) {
            route.delete_link(&link.name)?;
            remove_table(&link.name)?;
            swept.push(link.name);
        }
    }
    Ok(swept)
}

/// Deletes the table that an older version made for the network on `bridge`; that there is none is
/// no error.
///
/// # Errors
/// The kernel refuses.
pub fn remove_table(bridge: &str) -> Result<(), NetlinkError> {
    let config = NetworkConfig::new(bridge);
    let mut transaction = Transaction::new(NFPROTO_IPV4, config.firewall.name());
    // Made first, so that it is there to be deleted.
    transaction.ensure_table();
    transaction.delete_table();
    transaction.commit(&mut nft::open()?)
}

/// Whether the host has an interface of that name.
///
/// # Errors
/// The kernel does not tell.
pub fn interface_exists(name: &str) -> Result<bool, NetlinkError> {
    Ok(Route::open()?.link(name)?.is_some())
}

/// Tables of the host with a chain that drops what comes in for the host itself unless a rule of
/// its own accepts it: questions of containers for the network's name server among it.
///
/// # Errors
/// The kernel does not tell.
pub fn tables_dropping_input() -> Result<Vec<String>, NetlinkError> {
    nft::tables_dropping(&mut nft::open()?, "", Hook::Input)
}
