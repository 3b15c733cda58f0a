//! The networks that users made: their records, their bridges and their name servers.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use hull_model::{Error, ErrorKind, Result};
use hull_network::dns::{NameServer, Served, Zone, Zone6};
use hull_network::{DirectNetwork, Firewall, Network, NetworkConfig, OpenError, Policy, Subnet};
use hull_state::NetworkRecord;

use super::live;
use crate::reconcile::Found;
use crate::settings::Settings;

/// Options of a bridge by Docker's names.
pub(super) mod option {
    pub(crate) const BRIDGE: &str = "com.docker.network.bridge.name";
    pub(crate) const ICC: &str = "com.docker.network.bridge.enable_icc";
    pub(crate) const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
    pub(crate) const BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
    pub(crate) const MTU: &str = "com.docker.network.driver.mtu";
    /// As Podman calls it.
    pub(crate) const SHORT_MTU: &str = "mtu";
}

/// Said where rules of ours are asked of a network that has none.
const NO_RULES: &str = "its packets pass no rules of Hull's";

/// A driver as it is shown.
pub(super) fn driver_name(driver: &str) -> &'static str {
    match driver {
        "macvlan" => "macvlan",
        "ipvlan" => "ipvlan",
        _ => "bridge",
    }
}

/// What the names of veths on a bridge begin with.
pub(super) fn veth_prefix(bridge: &str) -> String {
    format!("hu{}", short_hash(bridge, 7))
}

/// A network with all that serves it.
#[derive(Debug)]
pub(crate) struct OwnNetwork {
    pub(crate) record: NetworkRecord,
    /// Why there is none, where the host does not let it be.
    pub(crate) network: Result<Network, String>,
    /// In its place where the wire is not ours.
    pub(crate) direct: Option<Result<DirectNetwork, String>>,
    served: Mutex<Option<Served>>,
}

impl OwnNetwork {
    /// The network, or why there is none.
    pub(crate) fn network(&self) -> Result<&Network> {
        self.network.as_ref().map_err(|why| {
            let text = format!("network {} cannot be used: {why}", self.record.name);
            Error::new(ErrorKind::Unavailable, text)
        })
    }

    /// Its driver, as it is shown.
    pub(super) fn driver(&self) -> &'static str {
        driver_name(&self.record.driver)
    }

    /// The network whose wire is not ours, if it is one.
    pub(super) fn direct(&self) -> Result<Option<&DirectNetwork>> {
        match &self.direct {
            None => Ok(None),
            Some(Ok(direct)) => Ok(Some(direct)),
            Some(Err(why)) => Err(Error::new(
                ErrorKind::Unavailable,
                format!("network {} cannot be used: {why}", self.record.name),
            )),
        }
    }

    /// Whether a default route may lead there.
    pub(super) fn leads_out(&self) -> bool {
        !self.record.internal && (self.direct.is_none() || !self.record.subnet.is_empty())
    }

    /// The address on the host that published ports are bound to where none is said.
    pub(super) fn binding(&self) -> Ipv4Addr {
        let text = self.record.options.get(option::BINDING);
        text.and_then(|text| text.parse().ok())
            .unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    /// Whether names are served there.
    pub(super) fn serves_names(&self) -> bool {
        let served = self.served.lock();
        served.unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Ends its name server.
    pub(super) fn silence(&self) {
        let served = self.served.lock();
        served.unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// A network as it was opened, not yet served.
pub(crate) type Opened = (NetworkRecord, Result<Network, String>);

/// All of them.
#[derive(Debug)]
pub(crate) struct Networks {
    map: RwLock<BTreeMap<String, Arc<OwnNetwork>>>,
    /// The ids by name.
    ids: RwLock<HashMap<String, String>>,
    /// Held by whoever makes or removes one: names and subnets are chosen one at a time.
    pub(super) turn: tokio::sync::Mutex<()>,
    pub(crate) names: NameServer,
    /// The table that all networks share.
    pub(crate) firewall: Arc<Firewall>,
    /// Containers on the default network that others link to.
    pub(super) linked: super::links::Linked,
    /// Held by whoever writes hosts files of containers that learn names from them alone.
    pub(super) retold: Mutex<()>,
}

impl Networks {
    /// Opens all that are on record; one that fails keeps the reason. Bridges of ours that are on no
    /// record go.
    pub(crate) fn open(
        settings: &Settings,
        firewall: &Arc<Firewall>,
        records: Vec<NetworkRecord>,
        found: &[Found],
    ) -> Vec<Opened> {
        let known: Vec<String> = records.iter().map(|record| record.bridge.clone()).collect();
        let prefix = bridge_prefix(settings);
        match hull_network::sweep_bridges(&prefix, |name| known.iter().any(|k| k == name)) {
            Ok(swept) => swept
                .iter()
                .for_each(|name| tracing::warn!(name, "a bridge without a record is removed")),
            Err(error) => tracing::warn!(%error, "cannot look for bridges without a record"),
        }
        let open = |record: &NetworkRecord| {
            if super::direct::applies(record) {
                return Err(NO_RULES.to_owned());
            }
            let live = live(found, &record.id, false);
            match config(settings, firewall, record) {
                Ok(config) => Network::open(config, &live).map_err(|e| chain(&e)),
                Err(error) => Err(error.chain()),
            }
        };
        records
            .into_iter()
            .map(|record| {
                let network = open(&record);
                (record, network)
            })
            .collect()
    }

    /// Takes all in that were opened; one that could not be is logged.
    pub(crate) async fn serving(firewall: Arc<Firewall>, opened: Vec<Opened>) -> Self {
        let networks = Self {
            map: RwLock::default(),
            ids: RwLock::default(),
            turn: tokio::sync::Mutex::default(),
            names: NameServer::new("/etc/resolv.conf"),
            firewall,
            linked: super::links::Linked::default(),
            retold: Mutex::default(),
        };
        for (record, network) in opened {
            if super::direct::applies(&record) {
                let opened = super::direct::open(&record).map_err(|e| e.chain());
                networks.add_direct(record, opened);
                continue;
            }
            networks.add(record, network).await;
        }
        networks
    }

    /// Takes a network in and serves its names.
    pub(super) async fn add(
        &self,
        record: NetworkRecord,
        network: Result<Network, String>,
    ) -> Arc<OwnNetwork> {
        let mut served = None;
        match &network {
            Ok(network) => {
                for warning in network.info().warnings {
                    tracing::warn!(network = record.name, "{warning}");
                }
                match self.serve(&record, network).await {
                    Ok(server) => served = Some(server),
                    Err(error) => {
                        tracing::warn!(network = record.name, error, "names are not served");
                    }
                }
            }
            Err(why) => tracing::warn!(network = record.name, why, "a network cannot be used"),
        }
        self.take_in(OwnNetwork {
            record,
            network,
            direct: None,
            served: Mutex::new(served),
        })
    }

    /// Takes in a network whose wire is not ours.
    pub(super) fn add_direct(&self, record: NetworkRecord, network: Result<DirectNetwork, String>) {
        if let Err(why) = &network {
            tracing::warn!(network = record.name, why, "a network cannot be used");
        }
        // For those who are on a bridge as well, whose name server they ask.
        if let Ok(direct) = &network
            && let Some(subnet) = direct.config().subnet
        {
            let zone = Zone {
                name: record.name.to_ascii_lowercase(),
                gateway: record.gateway.unwrap_or(subnet.gateway()),
                subnet,
                v6: direct.config().v6.as_ref().map(|v6| Zone6 {
                    gateway: v6.gateway,
                    subnet: v6.subnet,
                }),
                internal: record.internal,
            };
            self.names.zones().set(&record.id, zone);
        }
        self.take_in(OwnNetwork {
            record,
            network: Err(NO_RULES.to_owned()),
            direct: Some(network),
            served: Mutex::default(),
        });
    }

    fn take_in(&self, own: OwnNetwork) -> Arc<OwnNetwork> {
        let own = Arc::new(own);
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        map.insert(own.record.id.clone(), Arc::clone(&own));
        let mut ids = self.ids.write().unwrap_or_else(PoisonError::into_inner);
        ids.insert(own.record.name.clone(), own.record.id.clone());
        own
    }

    async fn serve(&self, record: &NetworkRecord, network: &Network) -> Result<Served, String> {
        let info = network.info();
        let info6 = network.info6();
        let zone = Zone {
            name: record.name.to_ascii_lowercase(),
            gateway: info.gateway,
            subnet: info.subnet,
            v6: info6.map(|v6| Zone6 {
                gateway: v6.gateway,
                subnet: v6.subnet,
            }),
            internal: record.internal,
        };
        self.names.zones().set(&record.id, zone);
        let address = match info6 {
            Some(v6) if record.without_ipv4 => IpAddr::from(v6.gateway),
            _ => IpAddr::from(info.gateway),
        };
        let served = self.names.serve(&record.id, address, &info.bridge);
        let served = served.await.map_err(|e| e.to_string())?;
        network
            .set_name_server(served.port)
            .map_err(|e| e.to_string())?;
        Ok(served)
    }

    /// Has a network's names served on its bridge as it is now.
    pub(super) async fn serve_again(&self, own: &OwnNetwork) -> Result<()> {
        let network = own.network()?;
        own.silence();
        let served = self.serve(&own.record, network).await;
        let served = served.map_err(|why| {
            let text = format!("names are not served on network {}: {why}", own.record.name);
            Error::new(ErrorKind::Unavailable, text)
        })?;
        let mut slot = own.served.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(served);
        Ok(())
    }

    /// Takes a network out.
    pub(super) fn drop_network(&self, id: &str) {
        self.names.zones().remove(id);
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        map.remove(id);
        let mut ids = self.ids.write().unwrap_or_else(PoisonError::into_inner);
        ids.retain(|_, known| known != id);
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<OwnNetwork>> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        map.values().cloned().collect()
    }

    /// One of them, by name or id.
    pub(super) fn named(&self, key: &str) -> Option<Arc<OwnNetwork>> {
        let names = self.ids.read().unwrap_or_else(PoisonError::into_inner);
        let id = names.get(key).cloned();
        drop(names);
        self.get(id.as_deref().unwrap_or(key))
    }

    /// Those whose ids begin so.
    pub(super) fn beginning(&self, key: &str) -> Vec<Arc<OwnNetwork>> {
        if key.is_empty() {
            return Vec::new();
        }
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let from = map.range::<str, _>((Bound::Included(key), Bound::Unbounded));
        let all = from.take_while(|(id, _)| id.starts_with(key));
        all.map(|(_, own)| Arc::clone(own)).collect()
    }

    /// One of them, by id.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<OwnNetwork>> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        map.get(id).cloned()
    }
}

/// Characters of interfaces' names, five bits each.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// So many characters that depend on the text alone. Other daemons' links must not be taken for
/// ours, so that texts which differ in the last letter must differ everywhere (FNV-1a, and the last
/// steps of MurmurHash3).
fn short_hash(text: &str, length: usize) -> String {
    let mut hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^= hash >> 33;
    (0..length)
        .map(|index| {
            let digit = hash.rotate_right(5 * u32::try_from(index).unwrap_or(0)) & 31;
            let digit = ALPHABET.get(usize::try_from(digit).unwrap_or(0));
            char::from(digit.copied().unwrap_or(b'0'))
        })
        .collect()
}

/// What the names of bridges begin with whose names Hull chose.
fn bridge_prefix(settings: &Settings) -> String {
    format!("hb{}", short_hash(&settings.bridge, 6))
}

/// The bridge's name for a network whose user named none.
pub(super) fn bridge_name(settings: &Settings, id: &str) -> String {
    format!("{}{}", bridge_prefix(settings), short_hash(id, 7))
}

/// What a record asks for.
///
/// # Errors
/// An option or a part of it is malformed.
pub(super) fn config(
    settings: &Settings,
    firewall: &Arc<Firewall>,
    record: &NetworkRecord,
) -> Result<NetworkConfig> {
    let subnet = |text: &str| -> Result<Option<Subnet>> {
        if text.is_empty() {
            return Ok(None);
        }
        let parsed = text.parse::<Subnet>();
        parsed.map(Some).map_err(|e| Error::invalid(e.to_string()))
    };
    let flag = |name: &str, default: bool| -> Result<bool> {
        match record.options.get(name).map(String::as_str) {
            None | Some("") => Ok(default),
            Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(true),
            Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(false),
            Some(other) => Err(Error::invalid(format!(
                "invalid value {other:?} of option {name}: use true or false"
            ))),
        }
    };
    let mut config = NetworkConfig::new(&record.bridge);
    config.firewall = Arc::clone(firewall);
    config.mtu = settings.mtu;
    let mtu = [option::MTU, option::SHORT_MTU].map(|name| record.options.get(name));
    if let Some(text) = mtu.into_iter().flatten().next() {
        // The least that IPv4 allows, and the most the kernel's bridges do.
        let mtu = text.parse().ok().filter(|mtu| (68..=65535).contains(mtu));
        config.mtu = mtu.ok_or_else(|| {
            Error::invalid(format!(
                "invalid MTU {text:?}: use a number from 68 to 65535"
            ))
        })?;
    }
    if let Some(text) = record.options.get(option::BINDING)
        && text.parse::<Ipv4Addr>().is_err()
    {
        return Err(Error::invalid(format!(
            "invalid value {text:?} of option {}: use an IPv4 address",
            option::BINDING
        )));
    }
    super::bandwidth::check_network(record, config.mtu)?;
    config.pool_size = 0;
    config.subnet = subnet(&record.subnet)?;
    config.gateway = record.gateway;
    config.v6 = super::six::config(record)?;
    config.ipv4 = !record.without_ipv4;
    config.range = subnet(&record.ip_range)?;
    config.reserved = record.aux_addresses.values().copied().collect();
    // Longer than that of the default network: there may be hundreds, and a link of one must not
    // be taken for another's.
    config.veth_prefix = Some(veth_prefix(&record.bridge));
    config.policy = Policy {
        internal: record.internal,
        icc: flag(option::ICC, true)?,
        masquerade: flag(option::MASQUERADE, true)?,
    };
    Ok(config)
}

/// An error with its causes.
pub(super) fn chain(error: &OpenError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_like_names_differ() {
        let mut all: Vec<String> = (0..2000)
            .map(|n| short_hash(&format!("ht-4cbx{n}"), 6))
            .collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 2000);
    }

    #[test]
    fn options_malformed_are_refused() {
        let none = crate::Overrides::default;
        let settings = Settings::resolve(none(), none(), none(), "/".into());
        let firewall = Arc::new(Firewall::new("hull"));
        let config =
            |settings: &Settings, record: &NetworkRecord| config(settings, &firewall, record);
        let record = |name: &str, value: &str| NetworkRecord {
            bridge: "hbx".into(),
            options: [(name.to_owned(), value.to_owned())].into(),
            ..NetworkRecord::default()
        };
        for (name, value) in [
            (option::MTU, "67"),
            (option::SHORT_MTU, "x"),
            (option::ICC, "maybe"),
            (option::BINDING, "::1"),
        ] {
            assert!(config(&settings, &record(name, value)).is_err(), "{name}");
        }
        let made = config(&settings, &record(option::SHORT_MTU, "9000")).unwrap();
        assert_eq!((made.mtu, made.pool_size), (9000, 0));
        assert!(
            !config(&settings, &record(option::ICC, "0"))
                .unwrap()
                .policy
                .icc
        );
    }
}
