//! What containers are called on their networks, and the files in which they read of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hull_network::dns::Member;
use hull_state::{ContainerRecord, Join, Place};

use crate::Engine;

/// Where a name server listens whose port nobody said.
const PORT: u16 = 53;
/// As Docker's: a name without a dot is asked for as it is.
const NDOTS: &str = "ndots:0";

impl Engine {
    /// Tells the names of a running container on each network where names are served.
    pub(crate) fn announce(&self, record: &ContainerRecord) {
        let default = self.network_id("bridge");
        let leads_out = record.places.iter().any(|p| p.network == default);
        for place in &record.places {
            let join = record.joins.iter().flatten();
            let join = join.into_iter().find(|join| join.network == place.network);
            let member = Member {
                leads_out,
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
    pub(crate) fn name_server(&self, places: &[Place]) -> Option<Ipv4Addr> {
        let own = |place: &&Place| self.own_networks.get(&place.network).is_some();
        places.iter().find(own).map(|place| place.endpoint.gateway)
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

fn member(record: &ContainerRecord, join: Option<&Join>) -> Member {
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
        leads_out: false,
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
