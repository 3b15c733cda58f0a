//! Repairs the networks by itself after others changed them: rules flushed, links deleted.
//!
//! The kernel tells ([`hull_network::Watch`]); nothing is polled, and what Hull does itself wakes
//! nobody. Links of containers that end are told too: only what is still missing a moment later is
//! looked at.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hull_network::{Firewall, Network, Notice, Watch};

use super::check::{NetworkReport, Scope};
use crate::Engine;

/// Changes that come together are answered once; and the end of a container is on record by then.
const SETTLE: Duration = Duration::from_millis(300);
/// What cannot be repaired, or is spoilt again and again, is tried ever less often.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// As long without trouble, and the next is answered at once.
const CALM: Duration = Duration::from_secs(120);

/// Subscribes and watches for as long as the engine lives.
pub(crate) fn start(engine: &Arc<Engine>, firewall: &Firewall) {
    match Watch::start(firewall, engine.egress.egress()) {
        Ok(watch) => {
            tokio::spawn(run(watch, Arc::downgrade(engine)));
        }
        Err(error) => tracing::warn!(
            %error,
            "networks are not repaired by themselves: use hull network check --repair"
        ),
    }
}

async fn run(mut watch: Watch, engine: Weak<Engine>) {
    let mut pause = FIRST_PAUSE;
    let mut last = tokio::time::Instant::now();
    loop {
        let Ok(mut notices) = watch.next().await else {
            return;
        };
        let concerns = |notices: &[Notice]| {
            let engine = engine.upgrade();
            engine.is_none_or(|engine| notices.iter().any(|n| engine.is_concerned(n)))
        };
        if !concerns(&notices) {
            continue;
        }
        let settled = tokio::time::Instant::now() + SETTLE;
        while let Ok(more) = tokio::time::timeout_at(settled, watch.next()).await {
            let Ok(more) = more else { return };
            notices.extend(more);
        }
        let Some(engine) = engine.upgrade() else {
            return;
        };
        let scope = engine.scope_of(&notices);
        if scope == Scope::default() {
            continue;
        }
        if last.elapsed() > CALM {
            pause = FIRST_PAUSE;
        }
        last = tokio::time::Instant::now();
        match engine.check_scope(&scope, true).await {
            Ok(report) if report.faults.is_empty() => continue,
            Ok(report) => tell(&report),
            Err(error) => {
                tracing::error!(error = %error.chain(), "cannot compare the networks with the kernel");
            }
        }
        drop(engine);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn tell(report: &NetworkReport) {
    for fault in &report.faults {
        let (network, part, text) = (&fault.network, fault.part, &fault.text);
        if fault.repaired {
            tracing::warn!(network, part, "{text}: repaired");
        } else {
            let error = &fault.error;
            tracing::error!(network, part, error, "{text}: cannot be repaired");
        }
    }
}

impl Engine {
    fn each_network(&self, mut act: impl FnMut(&str, &Network)) {
        if let Ok(network) = &self.network {
            act(&self.network_id("bridge"), network);
        }
        for own in self.own_networks.all() {
            if let Ok(network) = &own.network {
                act(&own.record.id, network);
            }
        }
    }

    fn is_concerned(&self, notice: &Notice) -> bool {
        let mut concerned = matches!(notice, Notice::Table | Notice::Much);
        concerned |= self.leads_over(notice);
        self.each_network(|_, network| concerned |= touches(notice, network));
        concerned
    }

    /// Whether the firewall's rules lead over the link that went.
    fn leads_over(&self, notice: &Notice) -> bool {
        matches!(notice, Notice::Link(name) if self.own_networks.firewall.has_link(name))
    }

    /// What is to be looked at after these; what no longer concerns anybody is left out.
    fn scope_of(&self, notices: &[Notice]) -> Scope {
        if notices.contains(&Notice::Much) {
            return Scope {
                rules: true,
                networks: self.bridged_networks(),
            };
        }
        let distinct: HashSet<&Notice> = notices.iter().collect();
        let mut scope = Scope {
            rules: distinct
                .iter()
                .any(|notice| **notice == Notice::Table || self.leads_over(notice)),
            ..Scope::default()
        };
        self.each_network(|id, network| {
            if distinct.iter().any(|notice| touches(notice, network)) {
                scope.networks.insert(id.to_owned());
            }
        });
        scope
    }
}

fn touches(notice: &Notice, network: &Network) -> bool {
    match notice {
        Notice::Link(name) => network.has_link(name),
        Notice::Address(index) => network.has_index(*index),
        Notice::Table | Notice::Much => false,
    }
}
