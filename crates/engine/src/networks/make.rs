//! Making and removing networks.
//!
//! ```text
//! make     record written ──▶ bridge, table, name server ──▶ reply
//! remove   nobody joins any more ──▶ table, bridge gone ──▶ record deleted ──▶ reply
//! ```
//!
//! A kill in between leaves the record, and the next start makes what it asks for.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use hull_model::{Error, ErrorKind, Result};
use hull_network::{Network, OpenError, Subnet};
use hull_state::NetworkRecord;

use super::direct;
use super::own::{self, option};
use super::six;
use crate::clock::now_ns;
use crate::containers::created_before;
use crate::{Engine, Filters, random};

/// Attempts at a subnet that another daemon takes at the same moment.
const ATTEMPTS: usize = 8;
/// More are no network's, and each costs a record.
const MOST_NETWORKS: usize = 4096;
/// A label of a DNS name is no longer, and containers are called `NAME.NETWORK`.
const LONGEST_NAME: usize = 63;
/// Names that mean something else where a network is named.
const ALWAYS_THERE: [&str; 4] = ["bridge", "host", "none", "default"];

/// What a user asks for.
#[derive(Debug, Clone, Default)]
pub struct NewNetwork {
    /// Name.
    pub name: String,
    /// Driver; empty means bridge.
    pub driver: String,
    /// Subnet as `ADDRESS/PREFIX`; empty takes a free one.
    pub subnet: String,
    /// The bridge's address; empty is the first.
    pub gateway: String,
    /// Who manages addresses; empty means Hull, `null` nobody.
    pub ipam: String,
    /// Where addresses come from that nobody asks for.
    pub ip_range: String,
    /// Addresses that no container is given.
    pub aux_addresses: BTreeMap<String, String>,
    /// It has an IPv6 half, or has none; `None` leaves it to the settings.
    pub ipv6: Option<bool>,
    /// What its IPv6 half is to be.
    pub v6: super::NewRange6,
    /// It has no IPv4 half.
    pub without_ipv4: bool,
    /// Nothing but the host and each other can be reached.
    pub internal: bool,
    /// Shown by inspect.
    pub attachable: bool,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A network that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub id: String,
    /// What was asked for and is not done.
    pub warning: String,
}

fn address(what: &str, text: &str) -> Result<Ipv4Addr> {
    let parsed = text.parse();
    parsed.map_err(|_| Error::invalid(format!("invalid {what} {text:?}: use an IPv4 address")))
}

fn refused(error: OpenError) -> Error {
    match error {
        OpenError::Overlap { .. } | OpenError::Overlap6 { .. } => {
            let text = "invalid pool request: Pool overlaps with other one on this address space";
            Error::with_source(ErrorKind::Forbidden, text, error)
        }
        OpenError::Subnet(_) => Error::with_source(
            ErrorKind::Unavailable,
            "could not find an available, non-overlapping IPv4 address pool",
            error,
        ),
        OpenError::Subnet6(_) => Error::with_source(
            ErrorKind::Unavailable,
            "could not find an available, non-overlapping IPv6 address pool",
            error,
        ),
        OpenError::InvalidName { .. }
        | OpenError::Outside6 { .. }
        | OpenError::Outside { .. }
        | OpenError::NotABridge { .. } => Error::invalid(own::chain(&error)),
        OpenError::Kernel { .. } | OpenError::Thread(_) => {
            Error::internal("cannot set up the network", error)
        }
    }
}

impl Engine {
    /// Makes a network.
    ///
    /// # Errors
    /// `Conflict` for a name that is taken, `Forbidden` for a subnet that is, `InvalidArgument` for
    /// what is malformed.
    pub async fn create_network(&self, wanted: NewNetwork) -> Result<Created> {
        check(&wanted)?;
        let _turn = self.own_networks.turn.lock().await;
        let all = self.own_networks.all();
        if all.iter().any(|own| own.record.name == wanted.name) {
            return Err(Error::conflict(format!(
                "network with name {} already exists",
                wanted.name
            )));
        }
        if all.len() >= MOST_NETWORKS {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("there are {MOST_NETWORKS} networks, and no more are possible: prune some"),
            ));
        }
        let id = random::id();
        if direct::asked(&wanted) {
            return self.create_direct(wanted, &id, &all).await;
        }
        let mut warning = warning(&wanted.options);
        let mut record = self.record_of(wanted, &id)?;
        let taken: Vec<Subnet> = all
            .iter()
            .filter_map(|own| own.record.subnet.parse().ok())
            .collect();
        if record.subnet_chosen {
            check_free(&record.subnet, &taken)?;
        }
        let mut attempt = 1;
        let network = loop {
            if let Some(v6) = &mut record.v6 {
                tokio::task::block_in_place(|| six::settle(v6, &all)).map_err(refused)?;
            }
            if record.without_ipv4 {
                let numbers = six::numbers(&taken).map(|subnet| subnet.to_string());
                record.subnet = numbers.unwrap_or_default();
            } else if !record.subnet_chosen {
                let subnet = hull_network::free_subnet(&taken).map_err(refused)?;
                record.subnet = subnet.to_string();
            }
            let firewall = &self.own_networks.firewall;
            let mut config = own::config(&self.settings, firewall, &record)?;
            config.fresh = true;
            tokio::task::block_in_place(|| self.state.put_network(&record)).map_err(
                crate::internal("cannot record the network; is the disk full?"),
            )?;
            match tokio::task::block_in_place(|| Network::open(config, &[])) {
                Ok(network) => break network,
                Err(error) => {
                    let again = match error {
                        OpenError::Overlap { .. } => !record.subnet_chosen,
                        OpenError::Overlap6 { .. } => {
                            record.v6.as_ref().is_some_and(|v6| !v6.chosen)
                        }
                        _ => false,
                    };
                    self.state
                        .delete_network(&id)
                        .map_err(crate::internal("cannot delete the network's record"))?;
                    if !again || attempt == ATTEMPTS {
                        // What was made before the failure is in nobody's way but the next try's.
                        hull_network::sweep_bridges(&record.bridge, |name| name != record.bridge)
                            .ok();
                        return Err(refused(error));
                    }
                    attempt += 1;
                }
            }
        };
        let name = record.name.clone();
        let own = self.own_networks.add(record, Ok(network)).await;
        if let Some(why) = self.questions_kept_out(&own) {
            let separator = if warning.is_empty() { "" } else { "; " };
            warning.push_str(&format!("{separator}{why}"));
        }
        self.network_event("create", &id, &name, "bridge", None);
        Ok(Created { id, warning })
    }

    pub(super) fn record_of(&self, wanted: NewNetwork, id: &str) -> Result<NetworkRecord> {
        let bridge = match wanted.options.get(option::BRIDGE) {
            Some(bridge) if !bridge.is_empty() => {
                let exists = hull_network::interface_exists(bridge);
                if exists.map_err(crate::internal("cannot list the host's interfaces"))? {
                    // It may be another's, and would go with the network.
                    return Err(Error::conflict(format!(
                        "interface {bridge} exists on the host: choose another name"
                    )));
                }
                bridge.clone()
            }
            _ => own::bridge_name(&self.settings, id),
        };
        let v6 = six::range(&wanted, self.settings.ipv6_networks)?;
        let aux = wanted.aux_addresses.into_iter();
        let aux = aux.map(|(name, text)| Ok((name, address("auxiliary address", &text)?)));
        Ok(NetworkRecord {
            id: id.to_owned(),
            name: wanted.name,
            created_at_ns: now_ns(),
            bridge,
            subnet_chosen: !wanted.subnet.is_empty(),
            subnet: wanted.subnet,
            gateway: match wanted.gateway.as_str() {
                "" => None,
                // As it is shown by some, with its prefix.
                text => Some(address("gateway", text.split('/').next().unwrap_or(text))?),
            },
            ip_range: wanted.ip_range,
            aux_addresses: aux.collect::<Result<_>>()?,
            v6,
            without_ipv4: wanted.without_ipv4,
            internal: wanted.internal,
            attachable: wanted.attachable,
            options: wanted.options,
            labels: wanted.labels,
            driver: wanted.driver,
            ipam: wanted.ipam,
            made_link: false,
        })
    }

    /// Removes a network; answers its name.
    ///
    /// # Errors
    /// `Forbidden` while a container is in it, and for those that are always there.
    pub async fn remove_network(&self, key: &str) -> Result<String> {
        let found = self.network(key)?;
        let Some(record) = found.own else {
            return Err(Error::new(
                ErrorKind::Forbidden,
                format!(
                    "{} is a pre-defined network and cannot be removed",
                    found.name
                ),
            ));
        };
        let _turn = self.own_networks.turn.lock().await;
        let own = self.own_networks.get(&record.id);
        let own = own.ok_or_else(|| Error::not_found(format!("network {key} not found")))?;
        {
            let users = match &own.network {
                _ if own.direct.is_some() => self.destroy_direct(&own)?,
                Ok(network) => tokio::task::block_in_place(|| network.destroy())
                    .map_err(crate::internal("cannot remove the network"))?,
                Err(_) => 0,
            };
            if users > 0 {
                let users = found.containers.iter().map(|c| {
                    let id = c.id.get(..12).unwrap_or(&c.id);
                    format!("name:{:?} id:{id:?}", c.name)
                });
                return Err(Error::new(
                    ErrorKind::Forbidden,
                    format!(
                        "error while removing network: network {} has active endpoints ({})",
                        record.name,
                        users.collect::<Vec<_>>().join(", ")
                    ),
                ));
            }
        }
        if own.network.is_err() && own.direct.is_none() {
            // It could not be opened: what an earlier daemon made of it is still there. A bridge
            // that the user named may have become another's.
            let remains = || {
                hull_network::remove_table(&record.bridge)?;
                if !record.options.contains_key(option::BRIDGE) {
                    hull_network::sweep_bridges(&record.bridge, |name| name != record.bridge)?;
                }
                Ok::<_, hull_network::NetlinkError>(())
            };
            tokio::task::block_in_place(remains)
                .map_err(crate::internal("cannot remove what is left of the network"))?;
        }
        own.silence();
        tokio::task::block_in_place(|| self.state.delete_network(&record.id))
            .map_err(crate::internal("cannot delete the network's record"))?;
        self.own_networks.drop_network(&record.id);
        self.network_event("destroy", &record.id, &record.name, own.driver(), None);
        Ok(record.name)
    }

    /// Removes the networks that no container names, running or not; answers their names.
    ///
    /// # Errors
    /// For an unknown filter. What cannot be removed is left.
    pub async fn prune_networks(&self, filters: &Filters) -> Result<Vec<String>> {
        filters.allow_only(&["label", "label!", "until"])?;
        let mut removed = Vec::new();
        for own in self.own_networks.all() {
            let record = &own.record;
            let named = self.containers.all().iter().any(|c| {
                c.with(|r| {
                    r.joins
                        .iter()
                        .flatten()
                        .any(|join| join.network == record.id)
                })
            });
            if named
                || !filters.match_labels(&record.labels)
                || !created_before(filters, record.created_at_ns)?
            {
                continue;
            }
            match self.remove_network(&record.id).await {
                Ok(name) => removed.push(name),
                Err(error) => {
                    tracing::warn!(error = %error.chain(), network = record.name, "cannot prune");
                }
            }
        }
        Ok(removed)
    }
}

fn check(wanted: &NewNetwork) -> Result<()> {
    let starts = |c: char| c.is_ascii_alphanumeric();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let name = &wanted.name;
    if !name.starts_with(starts) || !name.chars().all(allowed) || name.len() > LONGEST_NAME {
        return Err(Error::invalid(format!(
            "invalid network name {name:?}: use letters, digits and _.- after a letter or digit, at most {LONGEST_NAME}"
        )));
    }
    if ALWAYS_THERE.contains(&wanted.name.as_str()) {
        return Err(Error::new(
            ErrorKind::Forbidden,
            format!(
                "operation is not permitted on predefined {} network ",
                wanted.name
            ),
        ));
    }
    match wanted.driver.as_str() {
        "" | "bridge" | "default" | "macvlan" | "ipvlan" => Ok(()),
        driver @ ("host" | "null") => Err(Error::new(
            ErrorKind::Forbidden,
            format!("only one instance of \"{driver}\" network is allowed"),
        )),
        driver => Err(Error::new(
            ErrorKind::NotImplemented,
            format!("network driver {driver:?} is not built yet: use bridge, macvlan or ipvlan"),
        )),
    }?;
    if wanted.subnet.is_empty() && !(wanted.gateway.is_empty() && wanted.ip_range.is_empty()) {
        return Err(Error::invalid(
            "a gateway or range needs the subnet in which it lies",
        ));
    }
    Ok(())
}

fn check_free(subnet: &str, taken: &[Subnet]) -> Result<()> {
    let subnet: Subnet = subnet
        .parse()
        .map_err(|e: hull_network::InvalidSubnet| Error::invalid(e.to_string()))?;
    match hull_network::overlap(subnet, taken).map_err(refused)? {
        Some(other) => Err(refused(OpenError::Overlap { subnet, other })),
        None => Ok(()),
    }
}

fn warning(options: &BTreeMap<String, String>) -> String {
    const KNOWN: [&str; 6] = [
        option::BRIDGE,
        option::ICC,
        option::MASQUERADE,
        option::BINDING,
        option::MTU,
        option::SHORT_MTU,
    ];
    let unknown = options
        .keys()
        .filter(|name| !KNOWN.contains(&name.as_str()));
    let unknown: Vec<&str> = unknown.map(String::as_str).collect();
    if unknown.is_empty() {
        return String::new();
    }
    format!("options without effect: {}", unknown.join(", "))
}
