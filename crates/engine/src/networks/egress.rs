//! Egress policies of containers: checked when they are created, obeyed before they run, gone when
//! they end.

use std::net::IpAddr;
use std::sync::Arc;

use hull_model::egress::{EgressPolicy, InvalidEgress};
use hull_model::spec::{ContainerSpec, NetworkMode};
use hull_model::{Error, ErrorKind, Result};
use hull_network::dns::{Member, Served, Zone};
use hull_network::egress::{Egress, Gates, Guarded, Reach, Side, bridge_address};
use hull_network::{Fault, FaultyPart};
use hull_state::{ContainerRecord, Endpoint, Join, Place};

use crate::Engine;
use crate::reconcile::Found;
use crate::settings::Settings;

/// What the name server calls the default network, whose containers have no names there.
const ZONE: &str = "egress";

/// The policies, and what serves names to containers of the default network that have one.
#[derive(Debug)]
pub(crate) struct Policies {
    tables: Result<Egress, String>,
    names: tokio::sync::Mutex<Option<Served>>,
}

impl Policies {
    pub(crate) fn open(settings: &Settings, gates: &Gates) -> Self {
        let table = format!("{}-egress", settings.table());
        Self {
            tables: Egress::open(&table, gates.clone()).map_err(|error| error.to_string()),
            names: tokio::sync::Mutex::default(),
        }
    }

    /// The tables, where the kernel has such.
    pub(super) fn egress(&self) -> Option<&Egress> {
        self.tables.as_ref().ok()
    }

    /// What is wrong with the tables, if something is.
    pub(super) fn fault(&self) -> Option<Fault> {
        let egress = self.tables.as_ref().ok()?;
        let missing = egress.is_missing().unwrap_or(false);
        let text = "the table of containers' egress policies is missing";
        missing.then(|| Fault::new(FaultyPart::Rules, text))
    }

    /// Writes the tables anew if one is gone.
    pub(super) fn repair(&self) -> Result<(), String> {
        match &self.tables {
            Ok(egress) if egress.is_missing().unwrap_or(true) => {
                egress.repair().map_err(|error| error.to_string())
            }
            _ => Ok(()),
        }
    }

    fn tables(&self) -> Result<&Egress> {
        self.tables.as_ref().map_err(|why| {
            let text = format!("egress policies cannot be enforced: {why}");
            Error::new(ErrorKind::Unavailable, text)
        })
    }
}

/// A container's policy as long as its start has not succeeded.
pub(crate) struct Enforced {
    engine: Arc<Engine>,
    id: Option<String>,
}

impl Enforced {
    /// The container runs: it keeps its policy.
    pub(crate) fn keep(mut self) {
        self.id = None;
    }
}

impl Drop for Enforced {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.engine.drop_egress(&id);
        }
    }
}

fn invalid(error: InvalidEgress) -> Error {
    Error::invalid(error.to_string())
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Takes the policy from the labels of a request where nothing else says one. Those of the image are
/// not among them: what a container may do is not the image's to say.
pub(crate) fn take_labels(spec: &mut ContainerSpec) -> Result<()> {
    if spec.egress.is_none() {
        spec.egress = EgressPolicy::of_labels(&spec.labels).map_err(invalid)?;
    }
    Ok(())
}

impl Engine {
    /// A policy needs a network of the container's own, whose packets pass the host.
    pub(crate) fn check_egress(&self, spec: &ContainerSpec, joins: Option<&[Join]>) -> Result<()> {
        if spec.egress.is_none() {
            return Ok(());
        }
        match &spec.network {
            NetworkMode::Host | NetworkMode::Container(_) => {
                return Err(Error::invalid(
                    "conflicting options: an egress policy and a network that is not the container's own",
                ));
            }
            NetworkMode::None | NetworkMode::Bridge | NetworkMode::Network(_) => {}
        }
        for join in joins.into_iter().flatten() {
            let own = self.own_networks.get(&join.network);
            if let Some(own) = own.filter(|own| own.direct.is_some()) {
                return Err(past_the_host(&own.record.name));
            }
        }
        Ok(())
    }

    /// Sets the policy of a container that is about to run, or whose places have changed. Without
    /// one nothing is done.
    pub(crate) async fn enforce_egress(
        self: &Arc<Self>,
        record: &ContainerRecord,
        endpoint: Option<&Endpoint>,
        places: &[Place],
    ) -> Result<Option<Enforced>> {
        let Some(policy) = &record.spec.egress else {
            return Ok(None);
        };
        let guarded = self.guarded(record, policy, endpoint, places)?;
        let alone = self.on_default(endpoint, places);
        if alone.is_some() {
            self.serve_default_names().await?;
        }
        let egress = self.egress.tables()?;
        let runs = record.state.is_running();
        tokio::task::block_in_place(|| egress.set(guarded, runs)).map_err(|error| {
            let text = "cannot enforce the container's egress policy (the kernel needs nf_tables for the families bridge and inet)";
            Error::internal(text, error)
        })?;
        if let Some(endpoint) = alone {
            self.announce_on_default(record, endpoint);
        }
        Ok(Some(Enforced {
            engine: Arc::clone(self),
            id: Some(record.id.clone()),
        }))
    }

    /// Closes the link that a running container with a policy is about to get; otherwise does
    /// nothing.
    pub(super) fn close_egress(&self, record: &ContainerRecord, veth: &str) {
        let (Some(_), Ok(egress)) = (&record.spec.egress, &self.egress.tables) else {
            return;
        };
        if let Err(error) = egress.close(short(&record.id), veth) {
            tracing::warn!(%error, container = record.id, "its new link is open until its policy is set");
        }
    }

    /// Gives a container another policy, at once if it runs; `None` takes its policy away.
    ///
    /// # Errors
    /// Its network is not its own, or the kernel refuses; then nothing is changed.
    pub async fn update_egress(
        self: &Arc<Self>,
        key: &str,
        policy: Option<EgressPolicy>,
    ) -> Result<()> {
        let container = self.containers.find(key)?;
        let _op = container.op.lock().await;
        let mut record = container.record();
        let old = std::mem::replace(&mut record.spec.egress, policy);
        self.check_egress(&record.spec, record.joins.as_deref())?;
        let running = record.state.is_running();
        if running && record.spec.egress.is_some() {
            let (endpoint, places) = (record.endpoint.as_ref(), record.places.as_slice());
            let set = self.enforce_egress(&record, endpoint, places).await?;
            if let Some(set) = set {
                set.keep();
            }
        }
        self.store(&record)?;
        container.set(record.clone());
        if running {
            if record.spec.egress.is_none() && old.is_some() {
                self.release_egress(&ContainerRecord {
                    spec: ContainerSpec {
                        egress: old,
                        ..ContainerSpec::default()
                    },
                    ..record.clone()
                });
            }
            self.rewrite_files(&record);
        }
        let facts = crate::containers::attributes(&record);
        self.events.emit("container", "update", &record.id, facts);
        Ok(())
    }

    /// Forgets the policy of a container that ended: before its addresses become another's.
    pub(crate) fn release_egress(&self, record: &ContainerRecord) {
        if record.spec.egress.is_none() {
            return;
        }
        if let Some(endpoint) = self.on_default(record.endpoint.as_ref(), &record.places) {
            let zones = self.own_networks.names.zones();
            zones.leave(ZONE, endpoint.address);
        }
        self.drop_egress(&record.id);
    }

    fn drop_egress(&self, id: &str) {
        let Ok(egress) = &self.egress.tables else {
            return;
        };
        if let Err(error) = egress.remove(short(id)) {
            tracing::warn!(%error, container = id, "cannot remove its egress policy");
        }
    }

    /// The name server of a container that is on the default network alone and has a policy.
    pub(crate) fn egress_name_server(
        &self,
        record: &ContainerRecord,
        endpoint: Option<&Endpoint>,
        places: &[Place],
    ) -> Option<std::net::Ipv4Addr> {
        record.spec.egress.as_ref()?;
        let endpoint = self.on_default(endpoint, places)?;
        Some(endpoint.gateway)
    }

    /// The place on the default network.
    fn on_default<'a>(
        &self,
        endpoint: Option<&'a Endpoint>,
        places: &'a [Place],
    ) -> Option<&'a Endpoint> {
        let default = self.network_id("bridge");
        let place = places.iter().find(|place| place.network == default);
        place.map(|place| &place.endpoint).or(endpoint)
    }

    fn guarded(
        &self,
        record: &ContainerRecord,
        policy: &EgressPolicy,
        endpoint: Option<&Endpoint>,
        places: &[Place],
    ) -> Result<Guarded> {
        let default = self.network_id("bridge");
        let alone = endpoint.map(|endpoint| (default.as_str(), endpoint));
        let others = places.iter().map(|p| (p.network.as_str(), &p.endpoint));
        let sides = alone
            .into_iter()
            .chain(others)
            .map(|(network, endpoint)| self.side(network, endpoint))
            .collect::<Result<Vec<_>>>()?;
        Ok(Guarded {
            id: short(&record.id).to_owned(),
            policy: policy.clone(),
            sides,
        })
    }

    fn side(&self, network: &str, endpoint: &Endpoint) -> Result<Side> {
        let failed = crate::internal("cannot enforce the container's egress policy");
        let (bridge, named) = if network == self.network_id("bridge") {
            (self.bridge()?.info().bridge, true)
        } else {
            let own = self.own_networks.get(network);
            let own =
                own.ok_or_else(|| Error::not_found(format!("network {network} not found")))?;
            if own.direct.is_some() {
                return Err(past_the_host(&own.record.name));
            }
            (own.network()?.info().bridge, own.serves_names())
        };
        let bridge_mac = bridge_address(&bridge).map_err(failed)?.ok_or_else(|| {
            Error::new(
                ErrorKind::Unavailable,
                format!("cannot enforce the container's egress policy: bridge {bridge} is gone"),
            )
        })?;
        let mac = endpoint.mac.parse();
        let mac = mac.map_err(crate::internal(
            "cannot enforce the container's egress policy",
        ))?;
        let number = super::six::is_number(endpoint.address);
        let four = (!number).then_some(Reach {
            address: IpAddr::V4(endpoint.address),
            prefix: endpoint.prefix,
            gateway: IpAddr::V4(endpoint.gateway),
            named,
        });
        let six = endpoint.v6.as_ref().map(|six| Reach {
            address: IpAddr::V6(six.address),
            prefix: six.prefix,
            gateway: IpAddr::V6(six.gateway),
            // Names are served at one address.
            named: named && number,
        });
        Ok(Side {
            veth: endpoint.veth.clone(),
            known_by: endpoint.address,
            mac,
            bridge_mac,
            reach: four.into_iter().chain(six).collect(),
        })
    }

    /// Serves names on the default network, where there are none but for containers with a policy:
    /// the addresses that they are let out to are learnt from answers of ours.
    async fn serve_default_names(&self) -> Result<()> {
        let mut served = self.egress.names.lock().await;
        if served.is_some() {
            return Ok(());
        }
        let network = self.bridge()?;
        let info = network.info();
        let zone = Zone {
            name: "bridge".to_owned(),
            gateway: info.gateway,
            subnet: info.subnet,
            v6: None,
            internal: false,
        };
        let names = &self.own_networks.names;
        names.zones().set(ZONE, zone);
        let failed = "cannot serve names to a container with an egress policy";
        let server = names.serve(ZONE, info.gateway, &info.bridge).await;
        let server = server.map_err(crate::internal(failed))?;
        let told = network.set_name_server(server.port);
        told.map_err(crate::internal(failed))?;
        *served = Some(server);
        Ok(())
    }

    /// Has the default network's name server, if there is one, listen on the bridge as it is now.
    pub(super) async fn serve_default_names_again(&self) -> Result<()> {
        let served = self.egress.names.lock().await.take();
        match served {
            Some(served) => {
                drop(served);
                self.serve_default_names().await
            }
            None => Ok(()),
        }
    }

    /// Has questions of a container on the default network go to its own servers, if it has any.
    fn announce_on_default(&self, record: &ContainerRecord, endpoint: &Endpoint) {
        let member = Member {
            names: Vec::new(),
            ..super::names::member(record, None)
        };
        let zones = self.own_networks.names.zones();
        zones.join(ZONE, endpoint.address, member);
    }

    /// Has the tables say what the containers that run have as policies.
    pub(crate) async fn take_over_egress(self: &Arc<Self>, found: &[Found]) {
        let Ok(egress) = &self.egress.tables else {
            return;
        };
        let mut live = Vec::new();
        for record in found.iter().filter(|f| f.live()).map(Found::record) {
            let Some(policy) = &record.spec.egress else {
                continue;
            };
            let (endpoint, places) = (record.endpoint.as_ref(), record.places.as_slice());
            match self.guarded(record, policy, endpoint, places) {
                Ok(guarded) => live.push(guarded),
                Err(error) => {
                    tracing::error!(error = %error.chain(), container = record.id, "its egress policy cannot be enforced");
                    // Better what the last daemon wrote than nothing.
                    egress.leave();
                    return;
                }
            }
            if let Some(endpoint) = self.on_default(endpoint, places) {
                if let Err(error) = self.serve_default_names().await {
                    tracing::error!(error = %error.chain(), container = record.id, "it has no name server");
                }
                self.announce_on_default(record, endpoint);
            }
        }
        let none = live.is_empty();
        if let Err(error) = egress.take_over(live)
            && !none
        {
            tracing::error!(%error, "egress policies cannot be enforced");
        }
    }
}

fn past_the_host(network: &str) -> Error {
    Error::invalid(format!(
        "conflicting options: an egress policy and network {network}, whose packets do not pass the host"
    ))
}
