//! The networks there are: the default bridge, none and host, and those that users made.

pub(crate) mod bandwidth;
pub(crate) mod egress;
mod direct;
mod check;
mod join;
mod links;
mod make;
pub(crate) mod names;
mod own;
pub(crate) mod publish6;
mod publish;
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

pub use publish::PortChange;
pub(crate) use publish::obey_input;
pub use check::{NetworkFault, NetworkReport};
pub use make::{Created, NewNetwork};
pub use six::{NewRange6, gateway6, is_number};
pub use usual6::Ipv6Networks;
pub(crate) use own::{Networks, Opened};

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
        let inside = |id: &str, name: &str| {
            let mode = |r: &ContainerRecord| {
                r.joins.is_none() && containers::network_name(&r.spec.network) == name
            };
            let place = |r: &ContainerRecord| r.places.iter().any(|p| p.network == id);
            let all = running.iter().filter(|r| mode(r) || place(r));
            all.cloned().collect::<Vec<_>>()
        };
        let always = [("bridge", "bridge"), ("host", "host"), ("none", "null")];
        let mut list: Vec<_> = always
            .into_iter()
            .map(|(name, driver)| NetworkDescription {
                id: self.network_id(name),
                name: name.to_owned(),
                driver,
                bridge: self.network_info().filter(|_| name == "bridge"),
                own: None,
                containers: inside(&self.network_id(name), name),
            })
            .collect();
        for own in self.own_networks.all() {
            let id = own.record.id.clone();
            list.push(NetworkDescription {
                name: own.record.name.clone(),
                driver: own.driver(),
                bridge: own.network.as_ref().ok().map(Network::info),
                own: Some(own.record.clone()),
                containers: inside(&id, ""),
                id,
            });
        }
        list
    }

    /// One of them, by name, id or beginning of its id, in this order.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidArgument` if several ids begin so.
    pub fn network(&self, key: &str) -> Result<NetworkDescription> {
        pick(self.networks(), key)
    }

    /// As [`Engine::network`], without the containers in it: a start must not cost more where many
    /// others run.
    pub(crate) fn bare_network(&self, key: &str) -> Result<NetworkDescription> {
        pick(self.described(&[]), key)
    }
}

/// The network called `key`: by name, id, or the unambiguous beginning of an id.
fn pick(mut all: Vec<NetworkDescription>, key: &str) -> Result<NetworkDescription> {
    let exact = all.iter().position(|n| n.name == key || n.id == key);
    if let Some(index) = exact {
        return Ok(all.swap_remove(index));
    }
    all.retain(|n| !key.is_empty() && n.id.starts_with(key));
    match all.len() {
        0 => Err(Error::not_found(format!("network {key} not found"))),
        1 => Ok(all.swap_remove(0)),
        _ => Err(Error::invalid(format!(
            "network {key} is ambiguous ({} matches found on ID prefix)",
            all.len()
        ))),
    }
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
