//! What a container publishes, changed while it runs or not.
//!
//! ```text
//! worked out ──▶ table of the kernel, at once ──▶ connections cut ──▶ record written
//! ```
//!
//! A kill before the last step leaves the change in the kernel, where the next start of the daemon
//! undoes it: the record decides.

use std::os::fd::AsFd;

use hull_model::spec::{ContainerSpec, NetworkMode, PublishSpec, PublishedPort};
use hull_model::{Error, Result};
use hull_network::Firewall;
use hull_state::{ContainerRecord, Endpoint, Join};

use super::own::OwnNetwork;
use super::six;
use crate::Engine;
use crate::containers::{ports_wanted, start};
use crate::settings::Settings;

/// A change of what a container publishes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortChange {
    /// Published from now on.
    pub add: Vec<PublishSpec>,
    /// Published no more: of an unspecified address every one is meant, of port zero any.
    pub remove: Vec<PublishSpec>,
}

impl PortChange {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }
}

/// What takes a change of ports back.
pub(crate) struct Undo {
    remove: Vec<PublishedPort>,
    add: Vec<PublishSpec>,
}

impl Engine {
    /// Changes what a container publishes, in the kernel if it runs, and in `record`, which the
    /// caller writes. If he cannot, he has [`Engine::undo_ports`] take the change back.
    ///
    /// # Errors
    /// A port is taken, or not published; then nothing has changed.
    pub(crate) fn change_ports(
        &self,
        record: &mut ContainerRecord,
        change: &PortChange,
    ) -> Result<Option<Undo>> {
        if change.is_empty() {
            return Ok(None);
        }
        check_mode(&record.spec.network)?;
        let running = record.state.is_running();
        let actual: Vec<PublishedPort> = if running {
            record.published().copied().collect()
        } else {
            Vec::new()
        };
        let planned = plan(&record.spec, running.then_some(&actual), change)?;
        let mut undo = None;
        if running {
            let (place, join) = self.publishing_place(record)?;
            let before = place.ports.clone();
            let after = self.republish(record, &place, &join, &planned.pieces, &change.add)?;
            undo = Some(Undo {
                remove: difference(&after, &before),
                add: difference(&before, &after)
                    .into_iter()
                    .map(exactly)
                    .collect(),
            });
            set_ports(record, &place, after);
        }
        record.spec.published = planned.published;
        record.spec.publish_all = planned.publish_all;
        for wish in change.add.iter().filter(|wish| wish.more == 0) {
            if !record.spec.exposed_ports.contains(&wish.container) {
                record.spec.exposed_ports.push(wish.container);
            }
        }
        Ok(undo)
    }

    /// Takes back what [`Engine::change_ports`] did to the container of `record`, as it was left by
    /// it. Connections that were cut stay so.
    pub(crate) fn undo_ports(&self, record: &ContainerRecord, undo: Option<Undo>) {
        let Some(undo) = undo else { return };
        let undone = self.publishing_place(record).and_then(|(place, join)| {
            self.republish(record, &place, &join, &undo.remove, &undo.add)
        });
        if let Err(error) = undone {
            tracing::error!(error = %error.chain(), container = %record.id, "cannot take back a change of ports");
        }
    }

    fn republish(
        &self,
        record: &ContainerRecord,
        place: &Endpoint,
        join: &Join,
        remove: &[PublishedPort],
        add: &[PublishSpec],
    ) -> Result<Vec<PublishedPort>> {
        let netns = self.namespace_of(&record.id, "net")?;
        let mut add = add.to_vec();
        let act = || {
            self.on_network(join, |network, own| {
                let binding = own.map(OwnNetwork::binding);
                for wish in add.iter_mut().filter(|wish| wish.host_ip.is_unspecified()) {
                    wish.host_ip = binding.unwrap_or(wish.host_ip);
                }
                network.republish(place.address, remove, &add, Some(netns.as_fd()))
            })
        };
        tokio::task::block_in_place(act)?.map_err(start::publish_error)
    }

    /// Where a running container publishes: where it does, or where its default route leads.
    fn publishing_place(&self, record: &ContainerRecord) -> Result<(Endpoint, Join)> {
        let joins = self.joins_of(record);
        let of = |network: &str| joins.iter().find(|join| join.network == network);
        let found = match &record.endpoint {
            Some(endpoint) => of(&self.network_id("bridge")).map(|join| (endpoint, join)),
            None => {
                let publishing = record.places.iter().find(|p| !p.endpoint.ports.is_empty());
                let join = match publishing {
                    Some(place) => of(&place.network),
                    None => self.leading(&joins, record),
                };
                join.and_then(|join| {
                    let place = record.places.iter().find(|p| p.network == join.network)?;
                    Some((&place.endpoint, join))
                })
            }
        };
        let found = found.map(|(endpoint, join)| (endpoint.clone(), join.clone()));
        found.ok_or_else(|| {
            Error::invalid("none of the container's networks leads to the host's ports")
        })
    }

    /// The network of IPv4 and of our own through which the default route leads.
    fn leading<'a>(&self, joins: &'a [Join], record: &ContainerRecord) -> Option<&'a Join> {
        let leads = |join: &&Join| {
            let own = self.own_networks.get(&join.network);
            let place = record.places.iter().find(|p| p.network == join.network);
            own.is_none_or(|own| own.leads_out() && own.direct.is_none())
                && place.is_some_and(|place| !six::is_number(place.endpoint.address))
        };
        let rank = |join: &&Join| (join.gw_priority, std::cmp::Reverse(join.name.clone()));
        joins.iter().filter(leads).max_by_key(rank)
    }
}

/// Has published ports obey the host's rules for input, if the settings say so.
///
/// # Errors
/// The host cannot do it: better no daemon than ports that are open behind a firewall.
pub(crate) fn obey_input(settings: &Settings, firewall: &Firewall) -> Result<()> {
    let obey = settings.published_ports_obey_input;
    match firewall.obey_input(&settings.bridge, obey) {
        Err(error) if obey => Err(Error::internal(
            "published ports cannot obey the host's rules for input",
            error,
        )),
        Err(error) => {
            tracing::warn!(%error, "cannot remove the interfaces of ports that obeyed the host's rules");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn check_mode(mode: &NetworkMode) -> Result<()> {
    let whose = match mode {
        NetworkMode::Bridge | NetworkMode::Network(_) => return Ok(()),
        NetworkMode::Host => "the host's network",
        NetworkMode::None => "no network",
        NetworkMode::Container(_) => "another container's network",
    };
    Err(Error::invalid(format!(
        "conflicting options: port publishing and a container in {whose}"
    )))
}

fn set_ports(record: &mut ContainerRecord, place: &Endpoint, ports: Vec<PublishedPort>) {
    let places = record.places.iter_mut().map(|place| &mut place.endpoint);
    let all = record.endpoint.iter_mut().chain(places);
    for endpoint in all.filter(|endpoint| endpoint.address == place.address) {
        endpoint.ports.clone_from(&ports);
    }
}

fn difference(these: &[PublishedPort], others: &[PublishedPort]) -> Vec<PublishedPort> {
    let new = these.iter().filter(|port| !others.contains(port));
    new.copied().collect()
}

/// The wish that gives exactly this.
fn exactly(port: PublishedPort) -> PublishSpec {
    PublishSpec {
        container: port.container,
        host_ip: port.host_ip,
        host_port: port.host_port,
        host_port_end: port.host_port,
        more: port.more,
    }
}

/// A change, worked out.
#[derive(Debug, PartialEq, Eq)]
struct Planned {
    /// What the container is to publish at each start.
    published: Vec<PublishSpec>,
    publish_all: bool,
    /// What it publishes and is to publish no more.
    pieces: Vec<PublishedPort>,
}

/// Works a change out; `actual` is what a running container publishes.
fn plan(
    spec: &ContainerSpec,
    actual: Option<&Vec<PublishedPort>>,
    change: &PortChange,
) -> Result<Planned> {
    let mut planned = Planned {
        published: spec.published.clone(),
        publish_all: spec.publish_all,
        pieces: Vec::new(),
    };
    if spec.publish_all && !change.remove.is_empty() {
        // Else the next start would publish it again.
        planned.published = ports_wanted(spec);
        planned.publish_all = false;
    }
    for unwanted in &change.remove {
        let hits: Vec<PublishedPort> = match actual {
            Some(actual) => actual.iter().filter_map(|p| common(p, unwanted)).collect(),
            None => {
                let wishes = planned.published.iter();
                wishes
                    .filter_map(|wish| common_to_wish(wish, unwanted))
                    .collect()
            }
        };
        if hits.is_empty() {
            return Err(Error::invalid(format!(
                "the container does not publish {}",
                shown(unwanted)
            )));
        }
        for piece in hits {
            let at = planned.published.iter().position(|wish| made(wish, &piece));
            if let Some(at) = at {
                let wish = planned.published.remove(at);
                let rest = without(&wish, &piece);
                planned.published.splice(at..at, rest);
            }
            planned.pieces.push(piece);
        }
    }
    for wish in &change.add {
        if let Some(other) = planned.published.iter().find(|other| collide(wish, other)) {
            return Err(Error::conflict(format!(
                "the container publishes {} already",
                shown(other)
            )));
        }
        planned.published.push(*wish);
    }
    Ok(planned)
}

/// The distance from the container's ports to the host's, where it is told.
fn distance(wish: &PublishSpec) -> Option<i32> {
    let told = wish.host_port != 0 && wish.host_port_end <= wish.host_port;
    told.then(|| i32::from(wish.host_port) - i32::from(wish.container.number))
}

/// What of a published port or range is meant by `unwanted`.
fn common(port: &PublishedPort, unwanted: &PublishSpec) -> Option<PublishedPort> {
    if unwanted.container.protocol != port.container.protocol
        || !(unwanted.host_ip.is_unspecified() || unwanted.host_ip == port.host_ip)
    {
        return None;
    }
    let end = |first: u16, more: u16| first.saturating_add(more);
    let first = port.container.number.max(unwanted.container.number);
    let last =
        end(port.container.number, port.more).min(end(unwanted.container.number, unwanted.more));
    let more = last.checked_sub(first)?;
    let offset = first - port.container.number;
    let piece = PublishedPort {
        container: hull_model::spec::Port {
            number: first,
            ..port.container
        },
        host_port: port.host_port.saturating_add(offset),
        more,
        ..*port
    };
    let own = i32::from(port.host_port) - i32::from(port.container.number);
    let fits = match (unwanted.host_port, distance(unwanted)) {
        (0, _) => true,
        (_, Some(wanted)) => wanted == own,
        (lowest, None) => (lowest..=unwanted.host_port_end).contains(&piece.host_port),
    };
    fits.then_some(piece)
}

/// As [`common`], of a port that has no number on the host yet where that is random.
fn common_to_wish(wish: &PublishSpec, unwanted: &PublishSpec) -> Option<PublishedPort> {
    let port = PublishedPort {
        container: wish.container,
        host_ip: wish.host_ip,
        host_port: wish.host_port,
        more: wish.more,
    };
    if distance(wish).is_some() {
        return common(&port, unwanted);
    }
    let any = PublishSpec {
        host_port: 0,
        host_port_end: 0,
        ..*unwanted
    };
    let same = unwanted.host_port == 0
        || (unwanted.host_port, unwanted.host_port_end) == (wish.host_port, wish.host_port_end);
    common(&port, &any)
        .filter(|_| same)
        .map(|piece| PublishedPort {
            // Of a choice the lowest stands for all.
            host_port: wish.host_port,
            ..piece
        })
}

/// Whether `wish` is what had `piece` published.
fn made(wish: &PublishSpec, piece: &PublishedPort) -> bool {
    let last = piece.container.number.saturating_add(piece.more);
    let inside = wish.covers(piece.container)
        && wish.covers(hull_model::spec::Port {
            number: last,
            ..piece.container
        });
    let own = i32::from(piece.host_port) - i32::from(piece.container.number);
    let host = match (wish.host_port, distance(wish)) {
        (0, _) => true,
        (_, Some(distance)) => distance == own,
        (lowest, None) => (lowest..=wish.host_port_end).contains(&piece.host_port),
    };
    inside && host && (wish.host_ip.is_unspecified() || wish.host_ip == piece.host_ip)
}

/// What is left of a wish without the container's ports of `piece`.
fn without(wish: &PublishSpec, piece: &PublishedPort) -> Vec<PublishSpec> {
    let before = piece.container.number.saturating_sub(wish.container.number);
    let until = before.saturating_add(piece.more);
    let mut rest = Vec::new();
    if let Some(more) = before.checked_sub(1) {
        rest.push(PublishSpec { more, ..*wish });
    }
    if let Some(more) = wish.more.saturating_sub(until).checked_sub(1) {
        let offset = until.saturating_add(1);
        let host = |port: u16| {
            if distance(wish).is_some() {
                port.saturating_add(offset)
            } else {
                port
            }
        };
        rest.push(PublishSpec {
            container: hull_model::spec::Port {
                number: wish.container.number.saturating_add(offset),
                ..wish.container
            },
            host_port: host(wish.host_port),
            host_port_end: host(wish.host_port_end),
            more,
            ..*wish
        });
    }
    rest
}

/// Whether both want a port of the host that only one can have.
fn collide(one: &PublishSpec, other: &PublishSpec) -> bool {
    let told = distance(one).is_some() && distance(other).is_some();
    let address = one.host_ip == other.host_ip
        || one.host_ip.is_unspecified()
        || other.host_ip.is_unspecified();
    told && address
        && one.container.protocol == other.container.protocol
        && one.host_port <= other.host_port.saturating_add(other.more)
        && other.host_port <= one.host_port.saturating_add(one.more)
}

/// A wish as its user would write it.
fn shown(wish: &PublishSpec) -> String {
    let range = |first: u16, last: u16| match first {
        _ if last > first => format!("{first}-{last}"),
        _ => first.to_string(),
    };
    let mut text = String::new();
    if !wish.host_ip.is_unspecified() {
        text.push_str(&format!("{}:", wish.host_ip));
    }
    if wish.host_port != 0 {
        let last = wish
            .host_port_end
            .max(wish.host_port.saturating_add(wish.more));
        text.push_str(&format!("{}:", range(wish.host_port, last)));
    } else if !text.is_empty() {
        text.push(':');
    }
    let number = wish.container.number;
    text.push_str(&range(number, number.saturating_add(wish.more)));
    format!("{text}/{}", wish.container.protocol.as_str())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hull_model::spec::{Port, Protocol};

    use super::*;

    fn wish(host: u16, container: u16, more: u16) -> PublishSpec {
        PublishSpec {
            container: Port {
                number: container,
                protocol: Protocol::Tcp,
            },
            host_ip: Ipv4Addr::UNSPECIFIED,
            host_port: host,
            host_port_end: host,
            more,
        }
    }

    fn actual(host: u16, container: u16, more: u16) -> PublishedPort {
        let wish = wish(host, container, more);
        PublishedPort {
            container: wish.container,
            host_ip: wish.host_ip,
            host_port: host,
            more,
        }
    }

    fn spec(published: &[PublishSpec]) -> ContainerSpec {
        ContainerSpec {
            published: published.to_vec(),
            ..ContainerSpec::default()
        }
    }

    fn removing(remove: PublishSpec) -> PortChange {
        PortChange {
            add: Vec::new(),
            remove: vec![remove],
        }
    }

    #[test]
    fn piece_of_a_range_leaves_both_sides() {
        let spec = spec(&[wish(20_000, 1_000, 99)]);
        let published = vec![actual(20_000, 1_000, 99)];
        for actual_ports in [Some(&published), None] {
            let change = removing(wish(20_010, 1_010, 4));
            let planned = plan(&spec, actual_ports, &change).unwrap();
            assert_eq!(planned.pieces, [actual(20_010, 1_010, 4)]);
            assert_eq!(
                planned.published,
                [wish(20_000, 1_000, 9), wish(20_015, 1_015, 84)]
            );
        }
    }

    #[test]
    fn port_of_any_number_is_found_by_the_containers_alone() {
        let spec = spec(&[wish(0, 80, 0), wish(8080, 80, 0), wish(8443, 443, 0)]);
        let published = vec![
            actual(49_153, 80, 0),
            actual(8080, 80, 0),
            actual(8443, 443, 0),
        ];
        let planned = plan(&spec, Some(&published), &removing(wish(0, 80, 0))).unwrap();
        assert_eq!(planned.pieces.len(), 2);
        assert_eq!(planned.published, [wish(8443, 443, 0)]);
        let planned = plan(&spec, Some(&published), &removing(wish(49_153, 80, 0))).unwrap();
        assert_eq!(planned.pieces, [actual(49_153, 80, 0)]);
        assert_eq!(planned.published, [wish(8080, 80, 0), wish(8443, 443, 0)]);
        let planned = plan(&spec, None, &removing(wish(8080, 80, 0))).unwrap();
        assert_eq!(planned.published, [wish(0, 80, 0), wish(8443, 443, 0)]);
    }

    #[test]
    fn what_is_not_published_or_published_already_is_refused() {
        let spec = spec(&[wish(8080, 80, 0)]);
        let published = vec![actual(8080, 80, 0)];
        let error = plan(&spec, Some(&published), &removing(wish(8081, 80, 0))).unwrap_err();
        assert!(error.chain().contains("8081:80/tcp"), "{}", error.chain());
        let adding = |add| PortChange {
            add: vec![add],
            remove: Vec::new(),
        };
        let error = plan(&spec, None, &adding(wish(8000, 8000, 100))).unwrap_err();
        assert!(error.chain().contains("8080:80/tcp"), "{}", error.chain());
        let mut both = adding(wish(8080, 81, 0));
        both.remove.push(wish(8080, 80, 0));
        let planned = plan(&spec, Some(&published), &both).unwrap();
        assert_eq!(planned.published, [wish(8080, 81, 0)]);
    }

    #[test]
    fn port_published_with_all_others_does_not_come_back() {
        let mut spec = spec(&[]);
        spec.publish_all = true;
        spec.exposed_ports = vec![wish(0, 80, 0).container, wish(0, 443, 0).container];
        let published = vec![actual(49_153, 80, 0), actual(49_154, 443, 0)];
        let planned = plan(&spec, Some(&published), &removing(wish(0, 80, 0))).unwrap();
        assert!(!planned.publish_all);
        assert_eq!(planned.published, [wish(0, 443, 0)]);
    }
}
