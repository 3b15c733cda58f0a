//! The networks there are: the default bridge, none and host.

use hull_model::{Error, ErrorKind, Result};
use hull_network::{LiveEndpoint, Network, NetworkConfig, NetworkInfo, OpenError};
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

/// Opens the default network with what lives on it. A kernel that lacks a part of it is no reason to
/// serve nothing: the inner error says why containers on the bridge cannot be started.
pub(crate) fn open(settings: &Settings, found: &[Found]) -> Result<Result<Network, String>> {
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
    match Network::open(config, &live) {
        Ok(network) => Ok(Ok(network)),
        Err(error @ OpenError::Kernel { .. }) => {
            let error = Error::internal(
                "the default network cannot be set up; are the kernel's modules bridge, veth and nf_tables loaded (modprobe)?",
                error,
            );
            Ok(Err(error.chain()))
        }
        Err(error) => Err(Error::internal("cannot set up the default network", error)),
    }
}

impl Engine {
    /// Gives an address and its ports back.
    pub(crate) fn free_endpoint(&self, endpoint: &Endpoint) {
        let Ok(network) = &self.network else { return };
        if let Err(error) = network.release(endpoint.address) {
            tracing::warn!(%error, address = %endpoint.address, "cannot take back published ports");
        }
    }

    /// The id of one of them by its name. Derived from what tells daemons apart, so that it is
    /// stable.
    pub fn network_id(&self, name: &str) -> String {
        id_of(&format!("{name}:{}", self.settings.bridge))
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
        [("bridge", "bridge"), ("host", "host"), ("none", "null")]
            .into_iter()
            .map(|(name, driver)| NetworkDescription {
                id: self.network_id(name),
                name,
                driver,
                bridge: self.network_info().filter(|_| name == "bridge"),
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
