//! Compares the networks with what the kernel has, and repairs what differs: asked by the user, or
//! after others changed something ([`super::watch`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use hull_model::{Error, Result};
use hull_network::{Fault, FaultyPart, Mended, Network, Plug};
use hull_state::{ContainerRecord, Place};

use super::own::OwnNetwork;
use crate::Engine;

/// As long a link may be missing while the end of its container is taken note of.
const DOUBT: Duration = Duration::from_millis(300);

/// What is found wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetworkFault {
    /// The network's name; empty where all are concerned.
    pub network: String,
    /// `bridge`, `address`, `setting`, `firewall`, `container` or `names`.
    pub part: &'static str,
    /// What it is, in words.
    pub text: String,
    /// It is put right.
    pub repaired: bool,
    /// Why it is not.
    pub error: String,
}

/// What was looked at, and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkReport {
    /// Names of the networks.
    pub networks: Vec<String>,
    /// What is wrong.
    pub faults: Vec<NetworkFault>,
}

/// Names and links on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inside {
    /// Names are served there.
    pub name_server: bool,
    /// The addresses of each name.
    pub names: BTreeMap<String, Vec<IpAddr>>,
    /// The host's ends of the containers' links, by container id.
    pub links: BTreeMap<String, String>,
}

/// What is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Scope {
    /// The firewall's tables.
    pub(super) rules: bool,
    /// Networks by their ids; the default one's is that of `bridge`.
    pub(super) networks: BTreeSet<String>,
}

/// One network with a bridge.
enum Target {
    Default,
    Own(Arc<OwnNetwork>),
}

impl Target {
    fn name(&self) -> &str {
        match self {
            Self::Default => "bridge",
            Self::Own(own) => &own.record.name,
        }
    }
}

impl Engine {
    /// Compares one network, or all, with what the kernel has, and with `repair` puts right what
    /// differs.
    ///
    /// # Errors
    /// There is no such network, or the kernel does not tell.
    pub async fn check_networks(
        self: &Arc<Self>,
        key: Option<&str>,
        repair: bool,
    ) -> Result<NetworkReport> {
        let networks = match key {
            Some(key) => BTreeSet::from([self.bare_network(key)?.id]),
            None => self.bridged_networks(),
        };
        let scope = Scope {
            rules: true,
            networks,
        };
        self.check_scope(&scope, repair).await
    }

    /// The ids of all networks with bridges of ours.
    pub(super) fn bridged_networks(&self) -> BTreeSet<String> {
        let own = self.own_networks.all().into_iter();
        let own = own.filter(|own| own.direct.is_none());
        let mut all: BTreeSet<String> = own.map(|own| own.record.id.clone()).collect();
        all.insert(self.network_id("bridge"));
        all
    }

    pub(super) async fn check_scope(
        self: &Arc<Self>,
        scope: &Scope,
        repair: bool,
    ) -> Result<NetworkReport> {
        let targets = self.targets(scope);
        let mut faults = self.find_faults(scope, &targets).await?;
        if faults
            .iter()
            .any(|f| f.part == FaultyPart::Endpoint.as_str())
        {
            // It may belong to a container that just ends or starts.
            tokio::time::sleep(DOUBT).await;
            let still = self.find_faults(scope, &targets).await?;
            faults.retain(|fault| still.contains(fault));
        }
        let mut report = NetworkReport {
            networks: targets.iter().map(|t| t.name().to_owned()).collect(),
            faults,
        };
        if repair && !report.faults.is_empty() {
            let errors = self.repair(&report.faults, &targets).await;
            let left = self.find_faults(scope, &targets).await?;
            for fault in &mut report.faults {
                fault.repaired = !left.contains(fault);
                if !fault.repaired {
                    let error = errors.iter().find(|(network, _)| *network == fault.network);
                    fault.error = error.map(|(_, why)| why.clone()).unwrap_or_default();
                }
            }
        }
        Ok(report)
    }

    fn targets(&self, scope: &Scope) -> Vec<Target> {
        let default = self.network_id("bridge");
        let target = |id: &String| {
            if *id == default {
                return Some(Target::Default);
            }
            self.own_networks.get(id).map(Target::Own)
        };
        scope.networks.iter().filter_map(target).collect()
    }

    fn network_of<'a>(&'a self, target: &'a Target) -> Result<&'a Network> {
        match target {
            Target::Default => self.bridge(),
            Target::Own(own) => own.network(),
        }
    }

    async fn find_faults(&self, scope: &Scope, targets: &[Target]) -> Result<Vec<NetworkFault>> {
        let mut found = Vec::new();
        let look = |found: &mut Vec<NetworkFault>| {
            if scope.rules {
                let firewall = &self.own_networks.firewall;
                let faults = firewall.examine().map_err(untold)?;
                found.extend(faults.into_iter().map(|fault| told("", fault)));
                found.extend(self.egress.fault().map(|fault| told("", fault)));
            }
            for target in targets {
                let name = target.name();
                match self.network_of(target) {
                    Ok(network) => {
                        let faults = network.examine().map_err(untold)?;
                        found.extend(faults.into_iter().map(|fault| told(name, fault)));
                    }
                    // One whose wire is not ours has no bridge to look at.
                    Err(_) if matches!(target, Target::Own(own) if own.direct.is_some()) => {}
                    Err(error) => {
                        let fault = Fault::new(FaultyPart::Link, error.chain());
                        found.push(told(name, fault));
                    }
                }
            }
            Ok::<_, Error>(())
        };
        tokio::task::block_in_place(|| look(&mut found))?;
        for target in targets {
            if let Target::Own(own) = target
                && own.network.is_ok()
                && let Some(why) = self.unanswered(own).await
            {
                let fault = Fault::new(FaultyPart::Names, why);
                found.push(told(&own.record.name, fault));
            }
        }
        // What goes for the whole host is told once.
        let mut settings = BTreeSet::new();
        found.retain(|f| f.part != "setting" || settings.insert(f.text.clone()));
        Ok(found)
    }

    /// Why containers of the network get no answers from its name server, if so: one of them is
    /// made to ask.
    async fn unanswered(&self, own: &OwnNetwork) -> Option<String> {
        if !own.serves_names() {
            return Some("nobody listens at the bridge's address for questions".to_owned());
        }
        let id = &own.record.id;
        let all = self.containers.all();
        let running = all.iter().map(|c| c.record());
        let mut inside = running
            .filter(|r| r.state.is_running() && r.places.iter().any(|place| place.network == *id));
        let record = inside.next()?;
        let place = record.places.iter().find(|place| place.network == *id)?;
        let address = place.endpoint.v6.as_ref().map(|v6| v6.gateway.into());
        let address = if super::is_number(place.endpoint.address) {
            address?
        } else {
            place.endpoint.gateway.into()
        };
        let netns = self.namespace_of(&record.id, "net").ok()?;
        let ask = move || hull_network::dns::is_served(netns.as_fd(), address);
        let answered = tokio::task::spawn_blocking(ask).await.ok()?;
        if answered {
            return None;
        }
        let mut why = format!(
            "container {} asks {address} and gets no answer",
            record.name
        );
        let strict = hull_network::tables_dropping_input().unwrap_or_default();
        if !strict.is_empty() {
            why.push_str(&format!(": {}", advice(&strict, &own.record.bridge)));
        }
        Some(why)
    }

    /// Why the containers of a new network would get no answers, if the host's firewall keeps their
    /// questions out. Where it drops what it does not know, one is asked as a container would.
    pub(super) fn questions_kept_out(&self, own: &OwnNetwork) -> Option<String> {
        let network = own.network.as_ref().ok()?;
        let strict = hull_network::tables_dropping_input().unwrap_or_default();
        if strict.is_empty() || !own.serves_names() || super::is_number(network.gateway()) {
            return None;
        }
        let ask = || {
            let netns = hull_network::isolated().ok()?;
            let plug = Plug {
                netns: netns.as_fd(),
                interface: hull_network::INTERFACE,
                address: None,
                mac: None,
            };
            let plugged = network.plug(&plug).ok()?;
            let served = hull_network::dns::is_served(netns.as_fd(), plugged.gateway.into());
            network.unplug(plugged.address).ok();
            Some(served)
        };
        let served = tokio::task::block_in_place(ask)?;
        (!served).then(|| advice(&strict, &own.record.bridge))
    }

    /// Puts right what can be; answers why something could not, with the network's name.
    async fn repair(
        self: &Arc<Self>,
        faults: &[NetworkFault],
        targets: &[Target],
    ) -> Vec<(String, String)> {
        let mut errors = Vec::new();
        if faults.iter().any(|fault| fault.network.is_empty()) {
            let firewall = &self.own_networks.firewall;
            if let Err(error) = tokio::task::block_in_place(|| firewall.write()) {
                errors.push((String::new(), chain(&error)));
            }
            if let Err(error) = tokio::task::block_in_place(|| self.egress.repair()) {
                errors.push((String::new(), error));
            }
        }
        for target in targets {
            let name = target.name();
            if !faults.iter().any(|fault| fault.network == name) {
                continue;
            }
            if let Err(error) = self.mend(target, faults).await {
                errors.push((name.to_owned(), error.chain()));
            }
        }
        errors
    }

    async fn mend(self: &Arc<Self>, target: &Target, faults: &[NetworkFault]) -> Result<()> {
        let network = self.network_of(target)?;
        let Mended {
            bridge_made,
            unplugged,
        } = tokio::task::block_in_place(|| network.mend())
            .map_err(crate::internal("cannot repair the network"))?;
        match target {
            Target::Own(own) => {
                let unheard = |f: &NetworkFault| {
                    f.network == own.record.name && f.part == FaultyPart::Names.as_str()
                };
                // Whoever listened did so on the old link.
                if bridge_made || faults.iter().any(unheard) {
                    self.own_networks.serve_again(own).await?;
                }
            }
            Target::Default => {
                if bridge_made {
                    self.serve_default_names_again().await?;
                }
            }
        }
        let id = match target {
            Target::Default => self.network_id("bridge"),
            Target::Own(own) => own.record.id.clone(),
        };
        // One that cannot be helped is no reason to leave the others without.
        let mut outcome = Ok(());
        for address in unplugged {
            let replugged = self.replug(network, &id, address).await;
            outcome = outcome.and(replugged);
        }
        outcome
    }

    /// Gives the container at this address an interface again.
    async fn replug(
        self: &Arc<Self>,
        network: &Network,
        id: &str,
        address: Ipv4Addr,
    ) -> Result<()> {
        let default = self.network_id("bridge") == id;
        let here = |r: &ContainerRecord| {
            r.places
                .iter()
                .any(|p| p.network == id && p.endpoint.address == address)
                || default && r.endpoint.as_ref().is_some_and(|e| e.address == address)
        };
        let all = self.containers.all();
        let Some(container) = all.iter().find(|c| c.with(|r| here(r))) else {
            return Ok(());
        };
        let _op = container.op.lock().await;
        let mut record = container.record();
        if !record.state.is_running() || !here(&record) {
            return Ok(());
        }
        let netns = self.namespace_of(&record.id, "net")?;
        let known = record.places.iter().find(|p| p.network == id);
        let alone = record.endpoint.as_ref().map(|endpoint| Place {
            network: id.to_owned(),
            interface: hull_network::INTERFACE.to_owned(),
            endpoint: endpoint.clone(),
        });
        let Some(mut place) = known.cloned().or(alone) else {
            return Ok(());
        };
        let plug = Plug {
            netns: netns.as_fd(),
            interface: &place.interface,
            address: None,
            mac: place.endpoint.mac.parse().ok(),
        };
        // Nothing passes by the new link until the policy says what may.
        let before = |veth: &str| self.close_egress(&record, veth);
        let replug = || network.replug_announced(address, &plug, &before);
        let plugged = tokio::task::block_in_place(replug);
        let plugged = plugged.map_err(crate::internal("cannot give the container a link"))?;
        let Some(plugged) = plugged else {
            return Ok(());
        };
        self.lift_bandwidth(&place.endpoint.veth);
        place.endpoint.veth = plugged.host_veth;
        match record.places.iter_mut().find(|p| p.network == id) {
            Some(old) => *old = place,
            None => record.endpoint = Some(place.endpoint),
        }
        container.set(record.clone());
        self.store_soon(&record)?;
        let egress = self
            .enforce_egress(&record, record.endpoint.as_ref(), &record.places)
            .await?;
        // Whatever fails from here on, the policy holds.
        if let Some(egress) = egress {
            egress.keep();
        }
        self.connect_again(&record, id, netns.as_fd())?;
        tracing::warn!(container = record.id, %address, "its link was gone: it has a new one");
        Ok(())
    }

    /// The names and links on a network.
    pub fn network_inside(&self, network: &super::NetworkDescription) -> Inside {
        let own = self.own_networks.get(&network.id);
        let mut inside = Inside {
            name_server: own.is_some_and(|own| own.serves_names()),
            ..Inside::default()
        };
        for record in &network.containers {
            let place = record.places.iter().find(|p| p.network == network.id);
            let endpoint = place.map(|place| &place.endpoint);
            let Some(endpoint) = endpoint.or(record.endpoint.as_ref()) else {
                continue;
            };
            inside
                .links
                .insert(record.id.clone(), endpoint.veth.clone());
            if !inside.name_server {
                continue;
            }
            let mut addresses: Vec<IpAddr> = Vec::new();
            if !super::is_number(endpoint.address) {
                addresses.push(endpoint.address.into());
            }
            addresses.extend(endpoint.v6.as_ref().map(|v6| IpAddr::from(v6.address)));
            let join = record.joins.iter().flatten();
            let join = join.into_iter().find(|join| join.network == network.id);
            for name in super::names::member(record, join).names {
                let all: &mut Vec<IpAddr> = inside.names.entry(name).or_default();
                all.extend(&addresses);
            }
        }
        inside
    }

    /// What stands in the firewall for a network, in words.
    ///
    /// # Errors
    /// There is no such network.
    pub fn network_rules(&self, key: &str) -> Result<Vec<String>> {
        let id = self.bare_network(key)?.id;
        let scope = Scope {
            rules: false,
            networks: BTreeSet::from([id]),
        };
        let targets = self.targets(&scope);
        let network = targets.first().and_then(|t| self.network_of(t).ok());
        let Some(network) = network else {
            return Ok(Vec::new());
        };
        let info = network.info();
        let six = network.info6();
        let within = |address: IpAddr| match address {
            IpAddr::V4(address) => info.subnet.contains(address),
            IpAddr::V6(address) => six.is_some_and(|v6| v6.subnet.contains(address)),
        };
        Ok(self.own_networks.firewall.rules_of(&info.bridge, within))
    }
}

/// What to do where the host's firewall keeps containers' questions out: to accept them in a table
/// of ours would not help, and others' are not ours to change.
fn advice(strict: &[String], bridge: &str) -> String {
    format!(
        "firewall table {} of the host drops what it does not know: let UDP and TCP to port 10053 in from {bridge} there, or names are not answered",
        strict.join(", ")
    )
}

fn told(network: &str, fault: Fault) -> NetworkFault {
    NetworkFault {
        network: network.to_owned(),
        part: fault.part.as_str(),
        text: fault.text,
        repaired: false,
        error: String::new(),
    }
}

fn untold(error: hull_network::NetlinkError) -> Error {
    Error::internal("the kernel does not tell what it has", error)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
