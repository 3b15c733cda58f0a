//! What containers are called on their networks, and the files in which they read of it.

use std::net::{IpAddr, SocketAddr};

use hull_network::dns::{HOST_NAMES, Member};
use hull_network::files;
use hull_state::{ContainerRecord, Join, Place};

use crate::Engine;

/// Where a name server listens whose port nobody said.
const PORT: u16 = 53;
/// As Docker's: a name without a dot is asked for as it is.
const NDOTS: &str = "ndots:0";

impl Engine {
    /// Tells the names of a running container on each network where names are served.
    pub(crate) fn announce(&self, record: &ContainerRecord) {
        self.remember_links(record);
        let default = self.network_id("bridge");
        let leads_out = record.places.iter().any(|p| p.network == default);
        for place in &record.places {
            let own = self.own_networks.get(&place.network);
            if let Some(Some(Ok(direct))) = own.as_ref().map(|own| own.direct.as_ref()) {
                direct.adopt(&place.endpoint.veth, place.endpoint.address);
                if let Some(v6) = &place.endpoint.v6 {
                    direct.adopt6(&place.endpoint.veth, v6.address);
                }
            }
            let join = record.joins.iter().flatten();
            let join = join.into_iter().find(|join| join.network == place.network);
            let gateway = self.host_gateway(Some(super::six::gateway(&place.endpoint)));
            let hosts = files::extra_hosts(&record.spec.extra_hosts, gateway);
            let mut hosts = hosts.unwrap_or_default();
            if let Some(address) = self.settings.host_gateway_ip {
                let said = |name: &&str| !hosts.iter().any(|(known, _)| known == name);
                let names: Vec<&str> = HOST_NAMES.into_iter().filter(said).collect();
                hosts.extend(
                    names
                        .iter()
                        .map(|name| ((*name).to_owned(), address.into())),
                );
            }
            let member = Member {
                leads_out,
                v6: place.endpoint.v6.as_ref().map(|v6| v6.address),
                hosts,
                ..member(record, join)
            };
            let zones = self.own_networks.names.zones();
            zones.join(&place.network, place.endpoint.address, member);
        }
    }

    /// Takes the names at a place back.
    pub(super) fn withdraw(&self, place: &Place) {
        let zones = self.own_networks.names.zones();
        zones.leave(&place.network, place.endpoint.address);
    }

    /// The name server that a container with these places asks.
    pub(crate) fn name_server(&self, places: &[Place]) -> Option<IpAddr> {
        let own = |place: &&Place| {
            let own = self.own_networks.get(&place.network);
            own.is_some_and(|own| own.direct.is_none())
        };
        let place = places.iter().find(own);
        place.map(|place| super::six::gateway(&place.endpoint))
    }

    /// What `host-gateway` stands for: what the settings say, else the network's own way to the
    /// host, else that of the default network.
    pub(crate) fn host_gateway(&self, network: Option<IpAddr>) -> Option<IpAddr> {
        let default = || self.bridge().ok().map(|bridge| bridge.gateway().into());
        let said = self.settings.host_gateway_ip.map(IpAddr::from);
        said.or(network).or_else(default)
    }

    /// Writes the files of a running container anew, in place: it has them mounted.
    pub(super) fn rewrite_files(&self, record: &ContainerRecord) {
        let dir = self.settings.sandbox_dir(&record.id);
        if let Err(error) = self.write_files(record, &record.places, record.endpoint.as_ref(), &dir)
        {
            tracing::warn!(error = %error.chain(), container = record.id, "cannot rewrite its hosts");
        }
    }
}

pub(super) fn member(record: &ContainerRecord, join: Option<&Join>) -> Member {
    let mut names = vec![record.name.clone()];
    names.extend(join.iter().flat_map(|join| &join.aliases).cloned());
    names.extend(record.id.get(..12).map(str::to_owned));
    names.push(record.id.clone());
    if !record.spec.hostname.is_empty() {
        names.push(record.spec.hostname.clone());
    }
    let servers = record.spec.dns.iter().filter_map(|s| s.parse().ok());
    Member {
        container: record.id.clone(),
        names,
        servers: servers
            .map(|server: IpAddr| SocketAddr::new(server, PORT))
            .collect(),
        links: super::links::of_member(record),
        ..Member::default()
    }
}

/// The options line of a resolv.conf that leads to a name server of ours.
pub(crate) fn with_ndots(content: &str) -> String {
    let mut lines: Vec<String> = content.lines().map(str::to_owned).collect();
    match lines.iter_mut().find(|line| line.starts_with("options ")) {
        Some(line) if line.contains("ndots:") => {}
        Some(line) => *line = format!("{line} {NDOTS}"),
        None => lines.push(format!("options {NDOTS}")),
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ndots_is_added_unless_said() {
        assert_eq!(
            with_ndots("nameserver 1.1.1.1\n"),
            "nameserver 1.1.1.1\noptions ndots:0\n"
        );
        assert_eq!(with_ndots("options edns0\n"), "options edns0 ndots:0\n");
        assert_eq!(with_ndots("options ndots:3\n"), "options ndots:3\n");
    }

    #[test]
    fn container_is_called_by_name_alias_and_id() {
        let record = ContainerRecord {
            id: "a".repeat(64),
            name: "web".into(),
            ..ContainerRecord::default()
        };
        let join = Join {
            aliases: vec!["www".into()],
            ..Join::default()
        };
        let names = member(&record, Some(&join)).names;
        assert_eq!(names, ["web", "www", &"a".repeat(12), &"a".repeat(64)]);
    }
}
