//! Works out what a change of published ports means: for the record, and for what a running
//! container publishes. Pure: nothing is asked or done here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hull_model::spec::{
    ContainerSpec, Port, PublishSpec, PublishSpec6, PublishedPort, PublishedPort6,
};
use hull_model::{Error, Result};

use super::publish::PortChange;
use super::publish6::{self, is_one};
use crate::containers::ports_wanted;

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
pub(super) struct Planned {
    pub(super) four: Half<Ipv4Addr>,
    pub(super) six: Half<Ipv6Addr>,
    pub(super) publish_all: bool,
}

/// What of it concerns one version of IP.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Half<A> {
    /// What the container is to publish at each start.
    pub(super) published: Vec<PublishSpec<A>>,
    /// What it publishes and is to publish no more.
    pub(super) pieces: Vec<PublishedPort<A>>,
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
pub(super) fn plan(
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
