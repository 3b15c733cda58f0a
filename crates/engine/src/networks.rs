//! The networks there are: the default bridge, none and host.

use hull_model::{Error, Result};
use hull_network::{LiveEndpoint, Network, NetworkConfig, NetworkInfo};
use hull_state::{ContainerRecord, Endpoint};

use crate::reconcile::Found;
use crate::settings::Settings;
use crate::{Engine, containers};

/// A network as it is listed.
#[derive(Debug, Clone)]
pub struct NetworkDescription {
    /// Its id: 64 hex digits, the same on each start.
    pub id: String,
    /// Its name.
    pub name: &'static str,
    /// Its driver.
    pub driver: &'static str,
    /// Of the bridge: subnet, gateway, options.
    pub bridge: Option<NetworkInfo>,
    /// The running containers in it.
    pub containers: Vec<ContainerRecord>,
}

/// Opens the default network with what lives on it.
pub(crate) fn open(settings: &Settings, found: &[Found]) -> Result<Network> {
    let mut config = NetworkConfig::new(&settings.bridge);
    config.table = settings.table();
    config.mtu = settings.mtu;
    config.pool_size = settings.pool_size;
    config.subnet = match &settings.subnet {
        Some(text) => Some(
            text.parse()
                .map_err(|e: hull_network::InvalidSubnet| Error::invalid(e.to_string()))?,
        ),
        None => None,
    };
    let live: Vec<LiveEndpoint> = found
        .iter()
        .filter(|f| f.live())
        .filter_map(|f| f.record().endpoint.as_ref())
        .map(|e| LiveEndpoint {
            address: e.address,
            host_veth: e.veth.clone(),
            ports: e.ports.clone(),
        })
        .collect();
    Network::open(config, &live)
        .map_err(|e| Error::internal("cannot set up the default network", e))
}

impl Engine {
    /// Gives an address and its ports back.
    pub(crate) fn free_endpoint(&self, endpoint: &Endpoint) {
        if let Err(error) = self.network.release(endpoint.address) {
            tracing::warn!(%error, address = %endpoint.address, "cannot take back published ports");
        }
    }

    /// The id of one of them by its name. Derived from what tells daemons apart, so that it is
    /// stable.
    pub fn network_id(&self, name: &str) -> String {
        id_of(&format!("{name}:{}", self.settings.bridge))
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
        [("bridge", "bridge"), ("host", "host"), ("none", "null")]
            .into_iter()
            .map(|(name, driver)| NetworkDescription {
                id: self.network_id(name),
                name,
                driver,
                bridge: (name == "bridge").then(|| self.network.info()),
                containers: running
                    .iter()
                    .filter(|r| containers::network_name(&r.spec.network) == name)
                    .cloned()
                    .collect(),
            })
            .collect()
    }

    /// One of them, by name or beginning of its id.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn network(&self, key: &str) -> Result<NetworkDescription> {
        self.networks()
            .into_iter()
            .find(|n| n.name == key || (!key.is_empty() && n.id.starts_with(key)))
            .ok_or_else(|| Error::not_found(format!("network {key} not found")))
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
