//! What is told of containers that came to networks or left them, `hull events`.

use std::collections::BTreeMap;

use hull_state::ContainerRecord;

use crate::Engine;

impl Engine {
    /// The networks at which a container is: id, name and driver.
    fn networks_of(&self, record: &ContainerRecord) -> Vec<(String, String, &'static str)> {
        if record.places.is_empty() && record.endpoint.is_none() {
            // The modes that need no place are networks to whoever watches.
            return match crate::network_name(&record.spec.network) {
                _ if record.joins.is_some() => Vec::new(),
                "host" => vec![(self.network_id("host"), "host".to_owned(), "host")],
                "none" => vec![(self.network_id("none"), "none".to_owned(), "null")],
                _ => Vec::new(),
            };
        }
        let default = self.network_id("bridge");
        let alone = record.endpoint.iter();
        let mut found: Vec<_> = alone
            .map(|_| (default.clone(), "bridge".to_owned(), "bridge"))
            .collect();
        for place in &record.places {
            if place.network == default {
                found.push((default.clone(), "bridge".to_owned(), "bridge"));
            } else if let Some(own) = self.own_networks.get(&place.network) {
                found.push((own.record.id.clone(), own.record.name.clone(), own.driver()));
            }
        }
        found
    }

    /// Tells that a container that starts is at its networks.
    pub(crate) fn tell_arrived(&self, record: &ContainerRecord) {
        for (id, name, driver) in self.networks_of(record) {
            self.network_event("connect", &id, &name, driver, Some(&record.id));
        }
        self.settle_links(record);
        self.tell_neighbours(record, &record.places);
    }

    /// Tells that a container has another name.
    pub(crate) fn tell_renamed(&self, record: &ContainerRecord) {
        if record.state.is_running() {
            self.announce(record);
            self.settle_links(record);
            self.tell_neighbours(record, &record.places);
        }
    }

    /// Tells that a container that ended has left its networks; `record` is that of its run.
    pub(crate) fn tell_left(&self, record: &ContainerRecord) {
        for (id, name, driver) in self.networks_of(record) {
            self.network_event("disconnect", &id, &name, driver, Some(&record.id));
        }
        self.tell_neighbours(record, &record.places);
    }

    /// Tells of a change of a network.
    pub(super) fn network_event(
        &self,
        action: &'static str,
        id: &str,
        name: &str,
        driver: &str,
        container: Option<&str>,
    ) {
        let mut facts = BTreeMap::from([
            ("name".to_owned(), name.to_owned()),
            ("type".to_owned(), driver.to_owned()),
        ]);
        if let Some(container) = container {
            facts.insert("container".to_owned(), container.to_owned());
        }
        self.events.emit("network", action, id, facts);
    }
}
