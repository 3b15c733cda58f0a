//! The networks there are: the default bridge, none and host, and those that users made.

pub(crate) mod bandwidth;
mod check;
mod direct;
pub(crate) mod egress;
mod join;
mod links;
mod make;
pub(crate) mod names;
mod neighbours;
mod own;
mod port_plan;
mod publish;
pub(crate) mod publish6;
pub(crate) mod six;
mod told;
mod usual6;
pub(crate) mod watch;

use std::sync::Arc;

use hull_model::{Error, ErrorKind, Result};
pub use hull_network::NetworkInfo;
use hull_network::{Firewall, LiveEndpoint, Network, NetworkConfig, OpenError};
use hull_state::{ContainerRecord, Endpoint, NetworkRecord};

use crate::reconcile::Found;
use crate::settings::Settings;
use crate::{Engine, containers};

pub use check::{NetworkFault, NetworkReport};
pub use make::{Created, NewNetwork};
pub(crate) use own::{Networks, Opened};
pub use publish::PortChange;
pub(crate) use publish::obey_input;
pub use six::{NewRange6, gateway6, is_number};
pub use usual6::Ipv6Networks;

/// A network as it is listed.
#[derive(Debug, Clone)]
pub struct NetworkDescription {
    /// Its id: 64 hex digits, the same on each start.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: &'static str,
    /// Of the bridge: subnet, gateway, options.
    pub bridge: Option<NetworkInfo>,
    /// What its user asked for, if one made it.
    pub own: Option<NetworkRecord>,
    /// The running containers in it.
    pub containers: Vec<ContainerRecord>,
}

/// Opens the default network with what lives on it. A kernel that lacks a part of it is no reason to
/// serve nothing: the inner error says why containers on the bridge cannot be started.
pub(crate) fn open(
    settings: &Settings,
    firewall: &Arc<Firewall>,
    found: &[Found],
) -> Result<Result<Network, String>> {
    let mut config = NetworkConfig::new(&settings.bridge);
    config.firewall = Arc::clone(firewall);
    config.mtu = settings.mtu;
    config.pool_size = settings.pool_size;
    config.subnet = match &settings.subnet {
        Some(text) => Some(
            text.parse()
                .map_err(|e: hull_network::InvalidSubnet| Error::invalid(e.to_string()))?,
        ),
        None => None,
    };
    let live = live(found, &default_id(settings, "bridge"), true);
    match Network::open(config, &live) {
        Ok(network) => Ok(Ok(network)),
        Err(error @ OpenError::Kernel { .. }) => Ok(Err(impossible(error))),
        Err(error) => Err(Error::internal("cannot set up the default network", error)),
    }
}

/// What is said where the kernel lacks something.
fn impossible(error: impl std::error::Error + Send + Sync + 'static) -> String {
    let text = "the default network cannot be set up; are the kernel's modules bridge, veth and nf_tables loaded (modprobe)?";
    Error::internal(text, error).chain()
}

/// Writes the firewall's table for all networks at once. Where that cannot be, no container may
/// join any: nothing would keep them apart.
pub(crate) fn write_firewall(
    firewall: &Firewall,
    default: &mut Result<Network, String>,
    own: &mut [Opened],
) {
    let Err(error) = firewall.write() else { return };
    let why = impossible(error);
    for (_, network) in own {
        *network = Err(why.clone());
    }
    if default.is_ok() {
        *default = Err(why);
    }
}

/// The places on a network that are in use: those of the default one stand apart in the records of
/// containers that have no other.
fn live(found: &[Found], network: &str, default: bool) -> Vec<LiveEndpoint> {
    let of_one = |record: &ContainerRecord| -> Vec<LiveEndpoint> {
        let places = record.places.iter().filter(|p| p.network == network);
        let alone = record.endpoint.iter().filter(|_| default);
        alone
            .chain(places.map(|place| &place.endpoint))
            .map(|e| LiveEndpoint {
                address: e.address,
                address6: e.v6.as_ref().map(|v6| v6.address),
                host_veth: e.veth.clone(),
                ports: e.ports.clone(),
                ports6: e.v6.iter().flat_map(|v6| v6.ports.clone()).collect(),
            })
            .collect()
    };
    let running = found.iter().filter(|f| f.live());
    running.flat_map(|f| of_one(f.record())).collect()
}

/// The id of a network that is always there. Derived from what tells daemons apart, so that it is
/// stable.
fn default_id(settings: &Settings, name: &str) -> String {
    id_of(&format!("{name}:{}", settings.bridge))
}

impl Engine {
    /// Gives an address on the default network and its ports back.
    pub(crate) fn free_endpoint(&self, endpoint: &Endpoint) {
        let Ok(network) = &self.network else { return };
        give_back(network, endpoint);
    }

    /// The id of one of those that are always there, by its name.
    pub fn network_id(&self, name: &str) -> String {
        default_id(&self.settings, name)
    }

    /// The default network.
    pub(crate) fn bridge(&self) -> Result<&Network> {
        self.network
            .as_ref()
            .map_err(|why| Error::new(ErrorKind::Unavailable, why.clone()))
    }

    pub(crate) fn network_info(&self) -> Option<NetworkInfo> {
        self.network.as_ref().ok().map(Network::info)
    }

    /// What the default network cannot do on this host.
    pub(crate) fn network_warnings(&self) -> Vec<String> {
        match &self.network {
            Ok(network) => network.info().warnings,
            Err(why) => vec![why.clone()],
        }
    }

    /// All networks.
    pub fn networks(&self) -> Vec<NetworkDescription> {
        let running: Vec<ContainerRecord> = self
            .containers
            .all()
            .iter()
            .map(|c| c.record())
            .filter(|r| r.state.is_running())
            .collect();
        self.described(&running)
    }

    /// All networks, with those of `running` that are in them.
    fn described(&self, running: &[ContainerRecord]) -> Vec<NetworkDescription> {
        let inside = |id: &str, mode: &str| {
            let all = running.iter().filter(|r| is_in(r, id, mode));
            all.cloned().collect::<Vec<_>>()
        };
        let mut list: Vec<_> = ALWAYS
            .map(|(name, driver)| self.always(name, driver))
            .into();
        let own = self.own_networks.all();
        list.extend(own.iter().map(|own| description(own)));
        for network in &mut list {
            let mode = match network.own {
                Some(_) => "",
                None => &network.name,
            };
            network.containers = inside(&network.id, mode);
        }
        list
    }

    /// One that is always there, without the containers in it.
    fn always(&self, name: &str, driver: &'static str) -> NetworkDescription {
        NetworkDescription {
            id: self.network_id(name),
            name: name.to_owned(),
            driver,
            bridge: self.network_info().filter(|_| name == "bridge"),
            own: None,
            containers: Vec::new(),
        }
    }

    /// One of them, by name, id or beginning of its id, in this order.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidArgument` if several ids begin so.
    pub fn network(&self, key: &str) -> Result<NetworkDescription> {
        let mut found = self.bare_network(key)?;
        let mode = match found.own {
            Some(_) => "",
            None => &found.name,
        };
        let here = |r: &ContainerRecord| r.state.is_running() && is_in(r, &found.id, mode);
        let all = self.containers.all();
        let inside = all.iter().filter(|c| c.with(|r| here(r)));
        found.containers = inside.map(|c| c.record()).collect();
        Ok(found)
    }

    /// As [`Engine::network`], without the containers in it. It costs the same however many networks
    /// and containers there are.
    pub(crate) fn bare_network(&self, key: &str) -> Result<NetworkDescription> {
        let is = |(name, _): &&(&str, _)| *name == key || self.network_id(name) == key;
        if let Some((name, driver)) = ALWAYS.iter().find(is) {
            return Ok(self.always(name, driver));
        }
        if let Some(own) = self.own_networks.named(key) {
            return Ok(description(&own));
        }
        let begins = |(name, _): &&(&str, _)| self.network_id(name).starts_with(key);
        let always = ALWAYS.iter().filter(|_| !key.is_empty()).filter(begins);
        let mut found: Vec<_> = always
            .map(|(name, driver)| self.always(name, driver))
            .collect();
        let own = self.own_networks.beginning(key);
        found.extend(own.iter().map(|own| description(own)));
        match found.len() {
            0 => Err(Error::not_found(format!("network {key} not found"))),
            1 => Ok(found.swap_remove(0)),
            _ => Err(Error::invalid(format!(
                "network {key} is ambiguous ({} matches found on ID prefix)",
                found.len()
            ))),
        }
    }
}

/// Those that are always there, with their drivers.
const ALWAYS: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];

/// A user's network without the containers in it.
fn description(own: &own::OwnNetwork) -> NetworkDescription {
    NetworkDescription {
        id: own.record.id.clone(),
        name: own.record.name.clone(),
        driver: own.driver(),
        bridge: own.network.as_ref().ok().map(Network::info),
        own: Some(own.record.clone()),
        containers: Vec::new(),
    }
}

/// Whether a container is in a network: by a place of its own, or by its mode alone.
fn is_in(record: &ContainerRecord, id: &str, mode: &str) -> bool {
    record.joins.is_none() && containers::network_name(&record.spec.network) == mode
        || record.places.iter().any(|place| place.network == id)
}

/// Gives an address and its ports back, unless they have become another's.
fn give_back(network: &Network, endpoint: &Endpoint) {
    if !network.holds(endpoint.address, &endpoint.veth) {
        return;
    }
    if let Err(error) = network.release(endpoint.address) {
        tracing::warn!(%error, address = %endpoint.address, "cannot take back published ports");
    }
}

/// 64 hex digits that depend on the text alone (FNV-1a, four times): an id, not a secret.
fn id_of(text: &str) -> String {
    let word = |seed: u64| {
        text.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
        })
    };
    (1..=4).map(|seed| format!("{:016x}", word(seed))).collect()
}
