//! Bandwidth of containers: options of a network, or of a container's place on it, that become
//! token buckets on the host.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};

use hull_model::{Error, ErrorKind, Result};
use hull_network::bandwidth::{self, Bandwidth, OPTIONS};
use hull_state::{Join, NetworkRecord};

use crate::Engine;
use crate::reconcile::Found;

/// An Ethernet header, with a tag.
const HEADER: u64 = 18;

/// The veths whose containers have a device of their own to send through.
#[derive(Debug, Default)]
pub(crate) struct Limited(Mutex<HashSet<String>>);

impl Limited {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mentions(options: &BTreeMap<String, String>) -> bool {
    OPTIONS.iter().any(|option| options.contains_key(*option))
}

/// Checks what the options of a new network say.
pub(super) fn check_network(record: &NetworkRecord, mtu: u32) -> Result<()> {
    let limits = Bandwidth::of(&BTreeMap::new(), &record.options);
    check(limits.map_err(|e| Error::invalid(e.to_string()))?, mtu)
}

/// A packet larger than the burst would never be sent.
fn check(limits: Bandwidth, mtu: u32) -> Result<()> {
    let least = u64::from(mtu) + HEADER;
    let bursts = [limits.ingress, limits.egress].into_iter().flatten();
    match bursts
        .map(|limit| u64::from(limit.burst))
        .find(|b| *b < least)
    {
        Some(burst) => Err(Error::invalid(format!(
            "a burst of {burst} bytes lets no packet of the network's size pass: at least {least} are needed"
        ))),
        None => Ok(()),
    }
}

impl Engine {
    /// What the options of a place and of its network say.
    fn bandwidth_of(&self, join: &Join) -> Result<Bandwidth> {
        let own = self.own_networks.get(&join.network);
        let none = BTreeMap::new();
        let network = own.as_ref().map_or(&none, |own| &own.record.options);
        if !mentions(&join.options) && !mentions(network) {
            return Ok(Bandwidth::default());
        }
        if own.as_ref().is_some_and(|own| own.direct.is_some()) {
            return Err(Error::invalid(format!(
                "network {} has no bandwidth options: its packets do not pass the host",
                join.name
            )));
        }
        let limits = Bandwidth::of(&join.options, network);
        limits.map_err(|e| Error::invalid(e.to_string()))
    }

    /// Checks what the options of a place say.
    pub(super) fn check_bandwidth(&self, join: &Join) -> Result<()> {
        let limits = self.bandwidth_of(join)?;
        if limits.is_unlimited() {
            return Ok(());
        }
        let mtu = match self.own_networks.get(&join.network) {
            Some(own) => own.network()?.info().mtu,
            None => self.bridge()?.info().mtu,
        };
        check(limits, mtu)
    }

    /// Limits a place that was just made.
    pub(super) fn limit_bandwidth(&self, join: &Join, veth: &str) -> Result<()> {
        let limits = self.bandwidth_of(join)?;
        if limits.is_unlimited() {
            return Ok(());
        }
        if limits.egress.is_some() {
            self.limited.lock().insert(veth.to_owned());
        }
        limits.set(veth).map_err(|error| {
            let text = "cannot limit the container's bandwidth (the kernel needs sch_tbf, and for what it sends sch_ingress, cls_u32, act_mirred and ifb)";
            Error::with_source(ErrorKind::Unavailable, text, error)
        })
    }

    /// Forgets the limits of a place that is given up.
    pub(super) fn lift_bandwidth(&self, veth: &str) {
        if !self.limited.lock().remove(veth) {
            return;
        }
        let veth = veth.to_owned();
        // The kernel takes its time to delete a link, and nobody waits for this one. What stays is
        // found by the next start.
        std::thread::spawn(move || bandwidth::lift(&veth));
    }

    /// Takes over the limits of containers that run; those of others go.
    pub(crate) fn take_over_bandwidth(&self, found: &[Found]) {
        let live = found.iter().filter(|f| f.live()).map(Found::record);
        let live: HashSet<&str> = live
            .flat_map(|record| &record.places)
            .map(|place| place.endpoint.veth.as_str())
            .collect();
        let own = self.own_networks.all();
        let networks = own.iter().filter_map(|own| own.network.as_ref().ok());
        let networks: Vec<_> = networks.chain(self.network.as_ref().ok()).collect();
        let ours = |veth: &str| networks.iter().any(|network| network.names(veth));
        match bandwidth::sweep(ours, |veth| live.contains(veth)) {
            Ok(kept) => self.limited.lock().extend(kept),
            Err(error) => tracing::warn!(%error, "cannot look for limits of ended containers"),
        }
    }
}
