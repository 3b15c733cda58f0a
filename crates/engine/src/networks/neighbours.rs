//! Names on wires that are not ours: no name server of Hull's can be asked there, for the host is
//! not on the wire. Containers that are on no other network have each other in their hosts files,
//! which are written anew when one comes or goes.

use std::sync::PoisonError;

use hull_state::{ContainerRecord, Join, Place};

use crate::Engine;

impl Engine {
    fn is_direct(&self, place: &Place) -> bool {
        let own = self.own_networks.get(&place.network);
        own.is_some_and(|own| own.direct.is_some())
    }

    /// Whether a container with these places has nobody to ask for names.
    fn reads_hosts_alone(&self, places: &[Place]) -> bool {
        self.name_server(places).is_none() && places.iter().any(|place| self.is_direct(place))
    }

    /// The lines that the others on its wires add to a container's hosts file.
    pub(crate) fn neighbours(&self, record: &ContainerRecord, places: &[Place]) -> String {
        if places.is_empty() || !self.reads_hosts_alone(places) {
            return String::new();
        }
        let links: Vec<&Join> = record.joins.iter().flatten().collect();
        let mut text = String::new();
        for other in self.containers.all() {
            let other = other.record();
            if other.id == record.id || !other.state.is_running() {
                continue;
            }
            for place in &other.places {
                let address = place.endpoint.address;
                let met = places.iter().any(|own| own.network == place.network);
                if !met || address.is_unspecified() || !self.is_direct(place) {
                    continue;
                }
                let mut names = names_on(&other, place);
                let linked = links.iter().flat_map(|join| &join.links);
                names.extend(
                    linked
                        .filter(|link| link.name == other.name || link.name == other.id)
                        .map(|link| link.alias.clone()),
                );
                text.push_str(&format!("{address}\t{}\n", names.join(" ")));
                if let Some(v6) = &place.endpoint.v6 {
                    text.push_str(&format!("{}\t{}\n", v6.address, names.join(" ")));
                }
            }
        }
        text
    }

    /// Has the others on the wires of a container that came or went know it.
    pub(super) fn tell_neighbours(&self, record: &ContainerRecord, places: &[Place]) {
        let wires: Vec<&Place> = places
            .iter()
            .filter(|place| self.is_direct(place))
            .collect();
        if wires.is_empty() {
            return;
        }
        // One writes at a time, and what he writes he has read meanwhile.
        let turn = self.own_networks.retold.lock();
        let _turn = turn.unwrap_or_else(PoisonError::into_inner);
        for other in self.containers.all() {
            let other = other.record();
            let met = |place: &Place| wires.iter().any(|wire| wire.network == place.network);
            if other.id != record.id
                && other.state.is_running()
                && other.places.iter().any(met)
                && self.reads_hosts_alone(&other.places)
            {
                self.rewrite_files(&other);
            }
        }
    }
}

/// What a container is called at a place.
fn names_on(record: &ContainerRecord, place: &Place) -> Vec<String> {
    let joins = record.joins.iter().flatten();
    let mut names = vec![record.name.clone()];
    for join in joins.filter(|join| join.network == place.network) {
        names.extend(join.aliases.iter().cloned());
        names.push(format!("{}.{}", record.name, join.name));
    }
    names.extend(record.id.get(..12).map(str::to_owned));
    names.retain(|name| is_plain(name));
    names
}

/// Whether a name can stand in a hosts file: an alias may be any text, and must not bring lines of
/// its own.
pub(super) fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_is_called_by_name_alias_network_and_id() {
        let place = Place {
            network: "n".into(),
            interface: "eth0".into(),
            endpoint: hull_state::Endpoint {
                address: [10, 0, 0, 2].into(),
                prefix: 24,
                gateway: [10, 0, 0, 1].into(),
                mac: String::new(),
                veth: String::new(),
                ports: Vec::new(),
                v6: None,
            },
        };
        let join = |network: &str, alias: &str| Join {
            network: network.into(),
            name: "lan".into(),
            aliases: vec![alias.into()],
            ..Join::default()
        };
        let record = ContainerRecord {
            id: "b".repeat(64),
            name: "web".into(),
            joins: Some(vec![
                join("n", "www"),
                join("n", "x\n192.0.2.1 bank"),
                join("other", "hidden"),
            ]),
            ..ContainerRecord::default()
        };
        let mut names = names_on(&record, &place);
        names.dedup();
        assert_eq!(names, ["web", "www", "web.lan", &"b".repeat(12)]);
    }
}
