//! Links: a container knows others by names of its own, `--link NAME:ALIAS`.
//!
//! On the default network, where no names are served, they stand in its hosts file and its
//! environment, and the others must be there: when one of them starts anew, the file is written
//! anew. On a user's network the name server tells them, to this container alone.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::{PoisonError, RwLock};

use hull_model::spec::{ContainerSpec, Link, NetworkMode, Port, Protocol};
use hull_model::{Error, Result};
use hull_network::dns::MemberLink;
use hull_state::{ContainerRecord, Join};

use crate::Engine;

/// Containers that others on the default network link to: few have any, and no start of one that
/// has none may cost more where many run.
#[derive(Debug, Default)]
pub(crate) struct Linked(RwLock<HashSet<String>>);

impl Linked {
    fn add(&self, links: &[Link]) {
        let mut ids = self.0.write().unwrap_or_else(PoisonError::into_inner);
        ids.extend(links.iter().map(|link| link.id.clone()));
    }

    fn contains(&self, id: &str) -> bool {
        let ids = self.0.read().unwrap_or_else(PoisonError::into_inner);
        ids.contains(id)
    }
}

/// What the name server tells the container alone.
pub(super) fn of_member(record: &ContainerRecord) -> Vec<MemberLink> {
    let joins = record.joins.iter().flatten();
    let links = joins.flat_map(|join| join.links.iter().map(move |link| (join, link)));
    links
        .map(|(join, link)| MemberLink {
            alias: link.alias.clone(),
            target: link.name.clone(),
            network: join.network.clone(),
        })
        .collect()
}

impl Engine {
    /// Checks the links of a new container, and finds those they name where they must exist.
    pub(crate) fn resolve_links(&self, spec: &mut ContainerSpec) -> Result<()> {
        if spec.links.is_empty() {
            return Ok(());
        }
        match &spec.network {
            NetworkMode::Bridge => {}
            NetworkMode::Network(_) => return Ok(()),
            mode => {
                let mode = crate::network_name(mode);
                return Err(Error::invalid(format!(
                    "conflicting options: links and the network mode {mode}"
                )));
            }
        }
        for link in &mut spec.links {
            let other = self.containers.find(&link.name)?;
            if !other.with(on_default) {
                return Err(Error::invalid(format!(
                    "cannot link to {}, as it does not belong to the default network",
                    link.name
                )));
            }
            link.id.clone_from(&other.id);
        }
        Ok(())
    }

    /// Those that a container on the default network links to, with their addresses there.
    fn linked_to(&self, record: &ContainerRecord) -> Vec<(Link, ContainerRecord, Ipv4Addr)> {
        let default = self.network_id("bridge");
        let find = |link: &Link| {
            let other = self.containers.find(&link.id).ok()?.record();
            let places = other.places.iter().filter(|p| p.network == default);
            let places = places.map(|place| &place.endpoint);
            let address = other.endpoint.iter().chain(places).next()?.address;
            Some((link.clone(), other, address))
        };
        record.spec.links.iter().filter_map(find).collect()
    }

    /// The lines that links add to a hosts file.
    pub(crate) fn link_hosts(&self, record: &ContainerRecord) -> String {
        if record.spec.network != NetworkMode::Bridge {
            return String::new();
        }
        let line = |(link, other, address): (Link, ContainerRecord, Ipv4Addr)| {
            let mut names = vec![link.alias, crate::containers::hostname(&other)];
            names.retain(|name| super::neighbours::is_plain(name));
            if !names.contains(&other.name) {
                names.push(other.name);
            }
            format!("{address}\t{}\n", names.join(" "))
        };
        let linked = self.linked_to(record);
        linked.into_iter().map(line).collect()
    }

    /// Adds the variables by which programs of old learn of those a container links to, where the
    /// user has none of that name.
    ///
    /// # Errors
    /// `Conflict` if one of them does not run: its address is not known.
    pub(crate) fn add_link_environment(
        &self,
        record: &ContainerRecord,
        env: &mut Vec<String>,
    ) -> Result<()> {
        for entry in self.link_environment(record)? {
            let name = entry.split('=').next();
            if !env.iter().any(|own| own.split('=').next() == name) {
                env.push(entry);
            }
        }
        Ok(())
    }

    fn link_environment(&self, record: &ContainerRecord) -> Result<Vec<String>> {
        let links = &record.spec.links;
        if links.is_empty() || record.spec.network != NetworkMode::Bridge {
            return Ok(Vec::new());
        }
        let linked = self.linked_to(record);
        let there = |link: &&Link| !linked.iter().any(|(known, ..)| known == *link);
        if let Some(missing) = links.iter().find(there) {
            return Err(Error::conflict(format!(
                "cannot link to a non running container: /{} AS /{}/{}",
                missing.name, record.name, missing.alias
            )));
        }
        let variables = linked
            .iter()
            .flat_map(|(link, other, address)| environment(&record.name, link, other, *address));
        Ok(variables.collect())
    }

    /// Takes a link away, by its own name `CONTAINER/ALIAS`: the container forgets the other's name,
    /// and learns no more of it.
    ///
    /// # Errors
    /// `NotFound` for the container, `InvalidArgument` if it has no such link.
    pub async fn remove_link(&self, name: &str) -> Result<()> {
        let wrong = || Error::invalid(format!("cannot remove, {name} is no link"));
        let bare = name.strip_prefix('/').unwrap_or(name);
        let (container, alias) = bare.rsplit_once('/').ok_or_else(wrong)?;
        let container = self.containers.find(container)?;
        let _op = container.op.lock().await;
        let mut record = container.record();
        let before = record.spec.links.len();
        record.spec.links.retain(|link| link.alias != alias);
        if record.spec.links.len() == before {
            return Err(wrong());
        }
        self.store(&record)?;
        container.set(record.clone());
        if record.state.is_running() {
            self.rewrite_files(&record);
        }
        Ok(())
    }

    /// Remembers to whom a container that runs links.
    pub(super) fn remember_links(&self, record: &ContainerRecord) {
        if !record.spec.links.is_empty() {
            self.own_networks.linked.add(&record.spec.links);
        }
    }

    /// Tells that a container is at its networks: who links to it learns its address.
    pub(crate) fn settle_links(&self, record: &ContainerRecord) {
        if !self.own_networks.linked.contains(&record.id) {
            return;
        }
        for other in self.containers.all() {
            let links = |r: &ContainerRecord| {
                r.state.is_running() && r.spec.links.iter().any(|link| link.id == record.id)
            };
            if other.with(links) {
                self.rewrite_files(&other.record());
            }
        }
    }
}

fn on_default(record: &ContainerRecord) -> bool {
    match &record.joins {
        Some(joins) => joins.iter().any(|join| join.name == "bridge"),
        None => record.spec.network == NetworkMode::Bridge,
    }
}

/// What a join on a user's network has of the links that were given to the container as a whole.
pub(super) fn of_first(spec: &ContainerSpec, join: &mut Join) {
    for link in &spec.links {
        if !join.links.iter().any(|known| known.alias == link.alias) {
            join.links.push(link.clone());
        }
    }
}

fn environment(own: &str, link: &Link, other: &ContainerRecord, address: Ipv4Addr) -> Vec<String> {
    let prefix = link.alias.to_uppercase().replace('-', "_");
    let mut ports: Vec<Port> = other.spec.exposed().collect();
    // Of two with one number TCP comes first, as in Docker.
    ports.sort_by_key(|port| (port.number, port.protocol));
    ports.dedup();
    let at = |port: &Port| {
        let protocol = port.protocol.as_str();
        format!("{protocol}://{address}:{}", port.number)
    };
    let mut list = Vec::new();
    if let Some(port) = ports.first() {
        list.push(format!("{prefix}_PORT={}", at(port)));
    }
    for (first, last) in runs(&ports) {
        let protocol = first.protocol.as_str();
        let name = format!("{prefix}_PORT_{}_{}", first.number, protocol.to_uppercase());
        list.push(format!("{name}_START={}", at(&first)));
        list.push(format!("{name}_PORT_START={}", first.number));
        list.push(format!("{name}_END={}", at(&last)));
        list.push(format!("{name}_PORT_END={}", last.number));
    }
    for port in &ports {
        let protocol = port.protocol.as_str();
        let name = format!("{prefix}_PORT_{}_{}", port.number, protocol.to_uppercase());
        list.push(format!("{name}={}", at(port)));
        list.push(format!("{name}_ADDR={address}"));
        list.push(format!("{name}_PORT={}", port.number));
        list.push(format!("{name}_PROTO={protocol}"));
    }
    list.push(format!("{prefix}_NAME=/{own}/{}", link.alias));
    for entry in &other.spec.env {
        match entry.split_once('=') {
            Some(("HOME" | "PATH", _)) | None => {}
            Some(_) => list.push(format!("{prefix}_ENV_{entry}")),
        }
    }
    list
}

/// First and last port of each run of two or more neighbours.
fn runs(ports: &[Port]) -> Vec<(Port, Port)> {
    let mut by_protocol: BTreeMap<Protocol, Vec<Port>> = BTreeMap::new();
    for port in ports {
        by_protocol.entry(port.protocol).or_default().push(*port);
    }
    let mut found: Vec<(Port, Port)> = Vec::new();
    for ports in by_protocol.values() {
        let mut run: Option<(Port, Port)> = None;
        for port in ports {
            run = match run {
                Some((first, last)) if last.number.checked_add(1) == Some(port.number) => {
                    Some((first, *port))
                }
                ended => {
                    found.extend(ended);
                    Some((*port, *port))
                }
            };
        }
        found.extend(run);
    }
    found.retain(|(first, last)| first != last);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(number: u16) -> Port {
        Port {
            number,
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn environment_tells_of_ports_and_variables_as_docker_does() {
        let mut other = ContainerRecord::default();
        other.spec.exposed_ports = vec![tcp(6380), tcp(6379), tcp(80)];
        other.spec.env = vec!["PATH=/bin".into(), "A=b=c".into(), "BARE".into()];
        let link = Link {
            name: "db1".into(),
            alias: "my-db".into(),
            ..Link::default()
        };
        let list = environment("web", &link, &other, Ipv4Addr::new(172, 17, 0, 9));
        for expected in [
            "MY_DB_PORT=tcp://172.17.0.9:80",
            "MY_DB_PORT_80_TCP=tcp://172.17.0.9:80",
            "MY_DB_PORT_80_TCP_ADDR=172.17.0.9",
            "MY_DB_PORT_80_TCP_PORT=80",
            "MY_DB_PORT_80_TCP_PROTO=tcp",
            "MY_DB_PORT_6379_TCP_START=tcp://172.17.0.9:6379",
            "MY_DB_PORT_6379_TCP_PORT_END=6380",
            "MY_DB_NAME=/web/my-db",
            "MY_DB_ENV_A=b=c",
        ] {
            assert!(list.iter().any(|entry| entry == expected), "{expected}");
        }
        assert!(!list.iter().any(|entry| entry.contains("ENV_PATH")));
        assert_eq!(
            runs(&[tcp(1), tcp(3), tcp(4), tcp(5), tcp(9)]),
            [(tcp(3), tcp(5))]
        );
    }
}
