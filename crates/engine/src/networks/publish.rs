//! What a container publishes, changed while it runs or not.
//!
//! ```text
//! worked out ──▶ table of the kernel, at once ──▶ connections cut ──▶ record written
//! ```
//!
//! A kill before the last step leaves the change in the kernel, where the next start of the daemon
//! undoes it: the record decides.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use hull_model::spec::{
    ContainerSpec, NetworkMode, Port, PublishSpec, PublishSpec6, PublishedPort, PublishedPort6,
};
use hull_model::{Error, Result};
use hull_network::{AllPublished, Firewall, PortExchange};
use hull_state::{ContainerRecord, Endpoint, Join};

use super::own::OwnNetwork;
use super::publish6::{self, is_one};
use super::six;
use crate::Engine;
use crate::containers::{ports_wanted, start};
use crate::settings::Settings;

/// A change of what a container publishes. What is meant for both versions of IP stands in both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortChange {
    /// Published from now on.
    pub add: Vec<PublishSpec>,
    /// Published no more: of an unspecified address every one is meant, of port zero any.
    pub remove: Vec<PublishSpec>,
    /// As `add`, of IPv6.
    pub add6: Vec<PublishSpec6>,
    /// As `remove`, of IPv6.
    pub remove6: Vec<PublishSpec6>,
}

impl PortChange {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is exchanged at one place of a container.
#[derive(Debug, Default)]
struct Exchange {
    remove: Vec<PublishedPort>,
    add: Vec<PublishSpec>,
    remove6: Vec<PublishedPort6>,
    add6: Vec<PublishSpec6>,
}

/// What takes a change of ports back: the last first.
#[derive(Debug, Default)]
pub(crate) struct Undo(Vec<(Endpoint, Join, Exchange)>);

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
    ) -> Result<Undo> {
        let mut undo = Undo::default();
        if change.is_empty() {
            return Ok(undo);
        }
        check_mode(&record.spec.network)?;
        let actual = record.state.is_running().then(|| {
            let four: Vec<PublishedPort> = record.published().copied().collect();
            let six: Vec<PublishedPort6> = record.published6().copied().collect();
            (four, six)
        });
        let planned = plan(&record.spec, actual.as_ref(), change)?;
        if actual.is_some() {
            for (place, join, exchange) in self.exchanges(record, change, &planned)? {
                match self.exchange(record, &place, &join, &exchange) {
                    Ok(after) => {
                        undo.0
                            .push((place.clone(), join, exchange_back(&place, &after)));
                        set_ports(record, &place, after);
                    }
                    Err(error) => {
                        self.undo_ports(record, undo);
                        return Err(error);
                    }
                }
            }
        }
        record.spec.published = planned.four.published;
        record.spec.published6 = planned.six.published;
        record.spec.publish_all = planned.publish_all;
        let four = change.add.iter().map(|wish| (wish.container, wish.more));
        let six = change.add6.iter().map(|wish| (wish.container, wish.more));
        for (port, more) in four.chain(six) {
            if more == 0 && !record.spec.exposed_ports.contains(&port) {
                record.spec.exposed_ports.push(port);
            }
        }
        Ok(undo)
    }

    /// Takes back what [`Engine::change_ports`] did. Connections that were cut stay so.
    pub(crate) fn undo_ports(&self, record: &ContainerRecord, undo: Undo) {
        for (place, join, exchange) in undo.0.into_iter().rev() {
            if let Err(error) = self.exchange(record, &place, &join, &exchange) {
                tracing::error!(error = %error.chain(), container = %record.id, "cannot take back a change of ports");
            }
        }
    }

    /// What is to be exchanged where.
    fn exchanges(
        &self,
        record: &ContainerRecord,
        change: &PortChange,
        planned: &Planned,
    ) -> Result<Vec<(Endpoint, Join, Exchange)>> {
        let mut list: Vec<(Endpoint, Join, Exchange)> = Vec::new();
        let no_place =
            || Error::invalid("none of the container's networks leads to the host's ports");
        if !(planned.four.pieces.is_empty() && change.add.is_empty()) {
            match self.publishing_place(record, false) {
                Some((place, join)) => {
                    let exchange = Exchange {
                        remove: planned.four.pieces.clone(),
                        add: change.add.clone(),
                        ..Exchange::default()
                    };
                    list.push((place, join, exchange));
                }
                // Those of both versions are had by the other.
                None if change
                    .add
                    .iter()
                    .all(|four| change.add6.iter().any(|six| is_one(four, six))) => {}
                None => return Err(no_place()),
            }
        }
        let alone = |six: &PublishSpec6| !change.add.iter().any(|four| is_one(four, six));
        if !(planned.six.pieces.is_empty() && change.add6.is_empty()) {
            match self.publishing_place(record, true) {
                Some((place, join)) => {
                    let (remove6, add6) = (planned.six.pieces.clone(), change.add6.clone());
                    match list.iter_mut().find(|(_, known, _)| *known == join) {
                        Some((.., exchange)) => {
                            exchange.remove6 = remove6;
                            exchange.add6 = add6;
                        }
                        None => {
                            let exchange = Exchange {
                                remove6,
                                add6,
                                ..Exchange::default()
                            };
                            list.push((place, join, exchange));
                        }
                    }
                }
                None if change.add6.iter().any(alone) => {
                    return Err(Error::invalid(
                        "the container has no IPv6 address, and nothing translates between both: put it on a network with --ipv6",
                    ));
                }
                None => {}
            }
        }
        if list.is_empty() {
            Err(no_place())
        } else {
            Ok(list)
        }
    }

    fn exchange(
        &self,
        record: &ContainerRecord,
        place: &Endpoint,
        join: &Join,
        exchange: &Exchange,
    ) -> Result<AllPublished> {
        let netns = self.namespace_of(&record.id, "net")?;
        let (mut add, mut add6) = (exchange.add.clone(), exchange.add6.clone());
        let act = || {
            self.on_network(join, |network, own| {
                let binding = own.map_or(Ipv4Addr::UNSPECIFIED, OwnNetwork::binding);
                if !binding.is_unspecified() {
                    // Whoever says where IPv4 ports are bound wants no more than that.
                    add6.retain(|wish| !wish.host_ip.is_unspecified());
                }
                for wish in add.iter_mut().filter(|wish| wish.host_ip.is_unspecified()) {
                    wish.host_ip = binding;
                }
                let exchange = PortExchange {
                    remove: &exchange.remove,
                    add: &add,
                    remove6: &exchange.remove6,
                    add6: &add6,
                };
                network.republish(place.address, exchange, Some(netns.as_fd()))
            })
        };
        tokio::task::block_in_place(act)?.map_err(start::publish_error)
    }

    /// Where a running container publishes on addresses of IPv4 or IPv6: where it does, or where its
    /// default route leads.
    fn publishing_place(&self, record: &ContainerRecord, ipv6: bool) -> Option<(Endpoint, Join)> {
        let publishes = |endpoint: &Endpoint| match &endpoint.v6 {
            Some(v6) if ipv6 => !v6.ports.is_empty(),
            _ => !ipv6 && !endpoint.ports.is_empty(),
        };
        let has_address = |endpoint: &Endpoint| match ipv6 {
            true => endpoint.v6.is_some(),
            false => !six::is_number(endpoint.address),
        };
        let joins = self.joins_of(record);
        let bridge = self.network_id("bridge");
        let place_of = |join: &Join| -> Option<&Endpoint> {
            if join.network == bridge && record.endpoint.is_some() {
                return record.endpoint.as_ref();
            }
            let place = record.places.iter().find(|p| p.network == join.network);
            place.map(|place| &place.endpoint)
        };
        let all = joins
            .iter()
            .filter_map(|join| Some((join, place_of(join)?)));
        let all: Vec<_> = all.collect();
        let leads = |(join, endpoint): &&(&Join, &Endpoint)| {
            let own = self.own_networks.get(&join.network);
            own.is_none_or(|own| own.leads_out() && own.direct.is_none()) && has_address(endpoint)
        };
        let rank = |(join, _): &&(&Join, &Endpoint)| {
            (join.gw_priority, std::cmp::Reverse(join.name.clone()))
        };
        let found = all
            .iter()
            .find(|(_, endpoint)| publishes(endpoint))
            .or_else(|| all.iter().filter(leads).max_by_key(rank));
        found.map(|(join, endpoint)| ((*endpoint).clone(), (*join).clone()))
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

fn set_ports(record: &mut ContainerRecord, place: &Endpoint, (four, six): AllPublished) {
    let places = record.places.iter_mut().map(|place| &mut place.endpoint);
    let mut all = record.endpoint.iter_mut().chain(places);
    if let Some(endpoint) = all.find(|endpoint| endpoint.address == place.address) {
        endpoint.ports = four;
        if let Some(v6) = &mut endpoint.v6 {
            v6.ports = six;
        }
    }
}

/// What undoes an exchange after which a place publishes `after`.
fn exchange_back(place: &Endpoint, (four, six): &AllPublished) -> Exchange {
    let before6: &[PublishedPort6] = place.v6.as_ref().map_or(&[], |v6| &v6.ports);
    Exchange {
        remove: difference(four, &place.ports),
        add: exactly(&difference(&place.ports, four)),
        remove6: difference(six, before6),
        add6: exactly(&difference(before6, six)),
    }
}

fn difference<A: Copy + PartialEq>(
    these: &[PublishedPort<A>],
    others: &[PublishedPort<A>],
) -> Vec<PublishedPort<A>> {
    let new = these.iter().filter(|port| !others.contains(port));
    new.copied().collect()
}

/// The wishes that give exactly these.
fn exactly<A: Copy>(ports: &[PublishedPort<A>]) -> Vec<PublishSpec<A>> {
    let wish = |port: &PublishedPort<A>| PublishSpec {
        container: port.container,
        host_ip: port.host_ip,
        host_port: port.host_port,
        host_port_end: port.host_port,
        more: port.more,
    };
    ports.iter().map(wish).collect()
}

/// An address of the host.
trait Address: Copy + PartialEq + fmt::Display + Into<IpAddr> {
    fn is_any(self) -> bool {
        self.into().is_unspecified()
    }
}

impl Address for Ipv4Addr {}
impl Address for Ipv6Addr {}

/// A change, worked out.
#[derive(Debug, PartialEq, Eq)]
struct Planned {
    four: Half<Ipv4Addr>,
    six: Half<Ipv6Addr>,
    publish_all: bool,
}

/// What of it concerns one version of IP.
#[derive(Debug, PartialEq, Eq)]
struct Half<A> {
    /// What the container is to publish at each start.
    published: Vec<PublishSpec<A>>,
    /// What it publishes and is to publish no more.
    pieces: Vec<PublishedPort<A>>,
    /// What it does not publish, though it was to do so no more.
    missed: Vec<PublishSpec<A>>,
}

impl<A: Copy> Half<A> {
    /// Takes a piece out of one of the wishes.
    fn take_out(&mut self, wish: Option<usize>, piece: &PublishedPort<A>) {
        if let Some(at) = wish.filter(|at| *at < self.published.len()) {
            let wish = self.published.remove(at);
            self.published.splice(at..at, without(&wish, piece));
        }
    }
}

/// Works a change out; `actual` is what a running container publishes.
fn plan(
    spec: &ContainerSpec,
    actual: Option<&(Vec<PublishedPort>, Vec<PublishedPort6>)>,
    change: &PortChange,
) -> Result<Planned> {
    let (mut published, mut published6) = (spec.published.clone(), spec.published6.clone());
    let mut publish_all = spec.publish_all;
    if publish_all && !(change.remove.is_empty() && change.remove6.is_empty()) {
        // Else the next start would publish it again.
        (published, published6) = (ports_wanted(spec), publish6::wanted(spec));
        publish_all = false;
    }
    let four = actual.map(|(four, _)| four.as_slice());
    let six = actual.map(|(_, six)| six.as_slice());
    let planned = Planned {
        four: half(published, four, &change.remove, &change.add)?,
        six: half(published6, six, &change.remove6, &change.add6)?,
        publish_all,
    };
    // What is meant for both versions may be published on one of them.
    let hit6 = |four: &PublishSpec| {
        let mut halves = change.remove6.iter().filter(|six| is_one(four, six));
        halves.any(|six| !planned.six.missed.contains(six))
    };
    let hit = |six: &PublishSpec6| {
        let mut halves = change.remove.iter().filter(|four| is_one(four, six));
        halves.any(|four| !planned.four.missed.contains(four))
    };
    let missed = planned
        .four
        .missed
        .iter()
        .find(|four| !hit6(four))
        .map(shown);
    let missed6 = planned.six.missed.iter().find(|six| !hit(six)).map(shown);
    match missed.or(missed6) {
        Some(shown) => Err(Error::invalid(format!(
            "the container does not publish {shown}"
        ))),
        None => Ok(planned),
    }
}

fn half<A: Address>(
    published: Vec<PublishSpec<A>>,
    actual: Option<&[PublishedPort<A>]>,
    remove: &[PublishSpec<A>],
    add: &[PublishSpec<A>],
) -> Result<Half<A>> {
    let mut half = Half {
        published,
        pieces: Vec::new(),
        missed: Vec::new(),
    };
    for unwanted in remove {
        let wishes = half.published.iter();
        let meant: Vec<_> = wishes
            .filter_map(|wish| Some((*wish, common_to_wish(wish, unwanted)?)))
            .collect();
        let hits: Vec<PublishedPort<A>> = match actual {
            Some(actual) => actual.iter().filter_map(|p| common(p, unwanted)).collect(),
            None => meant.iter().map(|(_, piece)| *piece).collect(),
        };
        if hits.is_empty() && meant.is_empty() {
            half.missed.push(*unwanted);
        }
        for piece in &hits {
            let all = &half.published;
            let told = |wish: &PublishSpec<A>| made(wish, piece) && distance(wish).is_some();
            let at = all.iter().position(told);
            let at = at.or_else(|| all.iter().position(|wish| made(wish, piece)));
            half.take_out(at, piece);
        }
        // A wish that could not be had, as one of IPv6 where there is none, goes too.
        for (wish, piece) in meant {
            let at = half.published.iter().position(|known| *known == wish);
            half.take_out(at, &piece);
        }
        half.pieces.extend(hits);
    }
    for wish in add {
        if let Some(other) = half.published.iter().find(|other| collide(wish, other)) {
            return Err(Error::conflict(format!(
                "the container publishes {} already",
                shown(other)
            )));
        }
        half.published.push(*wish);
    }
    Ok(half)
}

/// The distance from the container's ports to the host's, where it is told.
fn distance<A>(wish: &PublishSpec<A>) -> Option<i32> {
    let told = wish.host_port != 0 && wish.host_port_end <= wish.host_port;
    told.then(|| i32::from(wish.host_port) - i32::from(wish.container.number))
}

/// What of a published port or range is meant by `unwanted`.
fn common<A: Address>(
    port: &PublishedPort<A>,
    unwanted: &PublishSpec<A>,
) -> Option<PublishedPort<A>> {
    if unwanted.container.protocol != port.container.protocol
        || !(unwanted.host_ip.is_any() || unwanted.host_ip == port.host_ip)
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
        container: Port {
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
fn common_to_wish<A: Address>(
    wish: &PublishSpec<A>,
    unwanted: &PublishSpec<A>,
) -> Option<PublishedPort<A>> {
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
fn made<A: Address>(wish: &PublishSpec<A>, piece: &PublishedPort<A>) -> bool {
    let last = piece.container.number.saturating_add(piece.more);
    let inside = wish.covers(piece.container)
        && wish.covers(Port {
            number: last,
            ..piece.container
        });
    let own = i32::from(piece.host_port) - i32::from(piece.container.number);
    let host = match (wish.host_port, distance(wish)) {
        (0, _) => true,
        (_, Some(distance)) => distance == own,
        (lowest, None) => (lowest..=wish.host_port_end).contains(&piece.host_port),
    };
    inside && host && (wish.host_ip.is_any() || wish.host_ip == piece.host_ip)
}

/// What is left of a wish without the container's ports of `piece`.
fn without<A: Copy>(wish: &PublishSpec<A>, piece: &PublishedPort<A>) -> Vec<PublishSpec<A>> {
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
            container: Port {
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
fn collide<A: Address>(one: &PublishSpec<A>, other: &PublishSpec<A>) -> bool {
    let told = distance(one).is_some() && distance(other).is_some();
    let address = one.host_ip == other.host_ip || one.host_ip.is_any() || other.host_ip.is_any();
    told && address
        && one.container.protocol == other.container.protocol
        && one.host_port <= other.host_port.saturating_add(other.more)
        && other.host_port <= one.host_port.saturating_add(one.more)
}

/// A wish as its user would write it.
fn shown<A: Address>(wish: &PublishSpec<A>) -> String {
    let range = |first: u16, last: u16| match first {
        _ if last > first => format!("{first}-{last}"),
        _ => first.to_string(),
    };
    let mut text = String::new();
    if !wish.host_ip.is_any() {
        match wish.host_ip.into() {
            IpAddr::V4(four) => text.push_str(&format!("{four}:")),
            IpAddr::V6(six) => text.push_str(&format!("[{six}]:")),
        }
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
            remove: vec![remove],
            ..PortChange::default()
        }
    }

    /// The change of IPv4 alone.
    fn plan(
        spec: &ContainerSpec,
        actual: Option<&Vec<PublishedPort>>,
        change: &PortChange,
    ) -> Result<Half<Ipv4Addr>> {
        let actual = actual.map(|four| (four.clone(), Vec::new()));
        super::plan(spec, actual.as_ref(), change).map(|planned| planned.four)
    }

    fn six(wish: PublishSpec) -> PublishSpec6 {
        PublishSpec6 {
            container: wish.container,
            host_ip: Ipv6Addr::UNSPECIFIED,
            host_port: wish.host_port,
            host_port_end: wish.host_port_end,
            more: wish.more,
        }
    }

    #[test]
    fn wish_of_both_versions_goes_as_one_and_is_missed_where_neither_has_it() {
        let mut spec = spec(&[wish(8080, 80, 0), wish(0, 80, 0)]);
        spec.published6 = vec![six(wish(8080, 80, 0))];
        let published = (vec![actual(8080, 80, 0), actual(49_153, 80, 0)], Vec::new());
        let mut change = removing(wish(8080, 80, 0));
        change.remove6 = vec![six(wish(8080, 80, 0))];
        let planned = super::plan(&spec, Some(&published), &change).unwrap();
        assert_eq!(planned.four.published, [wish(0, 80, 0)]);
        assert_eq!(planned.six.published, []);
        assert_eq!(planned.four.pieces, [actual(8080, 80, 0)]);
        change.remove6 = vec![six(wish(8081, 80, 0))];
        assert!(super::plan(&spec, Some(&published), &change).is_err());
        let mut change = removing(wish(8081, 80, 0));
        change.remove6 = vec![six(wish(8081, 80, 0))];
        assert!(super::plan(&spec, Some(&published), &change).is_err());
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
            ..PortChange::default()
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
        let published = (published, Vec::new());
        let mut change = removing(wish(0, 80, 0));
        change.remove6 = vec![six(wish(0, 80, 0))];
        let planned = super::plan(&spec, Some(&published), &change).unwrap();
        assert!(!planned.publish_all);
        assert_eq!(planned.four.published, [wish(0, 443, 0)]);
        assert_eq!(planned.six.published, [six(wish(0, 443, 0))]);
    }
}
