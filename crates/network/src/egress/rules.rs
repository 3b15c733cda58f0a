//! From a policy to the rules of its container's chains.
//!
//! ```text
//! guard (bridge, by interface)    another MAC or source address than its own: drop
//!                                 to a peer: what the policy says of addresses, else accept
//!                                 to anybody else: by way of the host alone
//! policy (inet, by source)        replies, questions to our name server: accept
//!                                 what the lists say; the default
//! ```
//!
//! The guard makes the source address a proof of who sent, wherever the packet comes by; whether
//! it is a reply only the second knows, to which the kernel's tracking of flows has been.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hull_model::egress::{EgressDefault, EgressPolicy, Rule, Target, Transport};

use super::wire::{Field, IPV4, IPV6, Op, Step, octets};
use super::{Reach, Side};
use crate::dns::HOST_NAMES;

const ARP: [u8; 2] = [0x08, 0x06];
const IPV4_FRAME: [u8; 2] = [0x08, 0x00];
const IPV6_FRAME: [u8; 2] = [0x86, 0xdd];
/// Where in a frame its kind is, and its addresses.
const KIND: Field = Field::Link(12, 2);
const TO: Field = Field::Link(0, 6);
const FROM: Field = Field::Link(6, 6);
const UDP: u8 = 17;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;
const NAME_SERVICE: u16 = 53;
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
const LINK_GROUPS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0);

fn is(field: Field, value: &[u8]) -> [Step; 2] {
    [Step::Load(field), Step::Compare(Op::Equal, value.to_vec())]
}

fn is_not(field: Field, value: &[u8]) -> [Step; 2] {
    [
        Step::Load(field),
        Step::Compare(Op::NotEqual, value.to_vec()),
    ]
}

fn source(family: u8) -> Field {
    if family == IPV4 {
        Field::Network(12, 4)
    } else {
        Field::Network(8, 16)
    }
}

fn destination(family: u8) -> Field {
    if family == IPV4 {
        Field::Network(16, 4)
    } else {
        Field::Network(24, 16)
    }
}

fn family_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { IPV4 } else { IPV6 }
}

/// Bits in front.
fn mask(length: usize, prefix: u8) -> Vec<u8> {
    let mut left = usize::from(prefix);
    let mut bytes = vec![0; length];
    for byte in &mut bytes {
        let bits = left.min(8);
        *byte = u8::MAX
            .checked_shl(8 - u32::try_from(bits).unwrap_or(8))
            .unwrap_or(0);
        left -= bits;
    }
    bytes
}

/// The field shares `prefix` bits with `address`.
fn shares(field: Field, address: IpAddr, prefix: u8) -> Vec<Step> {
    let value = octets(address);
    let mask = mask(value.len(), prefix);
    let first: Vec<u8> = value
        .iter()
        .zip(&mask)
        .map(|(byte, mask)| byte & mask)
        .collect();
    if usize::from(prefix) == value.len() * 8 {
        return is(field, &value).to_vec();
    }
    vec![
        Step::Load(field),
        Step::Mask(mask),
        Step::Compare(Op::Equal, first),
    ]
}

/// The packet's family as the bridge or the host sees it.
#[derive(Clone, Copy)]
enum Layer {
    Bridge,
    Host,
}

impl Layer {
    fn family(self, family: u8) -> [Step; 2] {
        match (self, family) {
            (Self::Host, family) => is(Field::Family, &[family]),
            (Self::Bridge, IPV4) => is(KIND, &IPV4_FRAME),
            (Self::Bridge, _) => is(KIND, &IPV6_FRAME),
        }
    }
}

/// What a rule says of protocol and ports: each of the answers is a way to match.
fn transports(rule: &Rule) -> Vec<Vec<Step>> {
    let numbers: Vec<u8> = match (rule.transport, rule.ports) {
        (Some(transport), _) => vec![transport.number()],
        (None, Some(_)) => vec![Transport::Tcp.number(), Transport::Udp.number()],
        (None, None) => return vec![Vec::new()],
    };
    let ports = rule.ports.map(|(low, high)| {
        let (low, high) = (low.to_be_bytes().to_vec(), high.to_be_bytes().to_vec());
        let load = Step::Load(Field::Ports(2, 2));
        if low == high {
            vec![load, Step::Compare(Op::Equal, low)]
        } else {
            let (least, most) = (Op::AtLeast, Op::AtMost);
            vec![load, Step::Compare(least, low), Step::Compare(most, high)]
        }
    });
    let ports = ports.unwrap_or_default();
    let of = |number| [is(Field::Transport, &[number]).to_vec(), ports.clone()].concat();
    numbers.into_iter().map(of).collect()
}

/// The sets of addresses learnt for a rule of a list.
pub(super) fn set_names(id: &str, index: usize) -> [String; 2] {
    [format!("n{index}v4-{id}"), format!("n{index}v6-{id}")]
}

/// What a list's rules are to match of a packet of `family`, one by one.
fn matches(rule: &Rule, family: u8, layer: Layer) -> Vec<Vec<Step>> {
    let about = match rule.target {
        Target::Any => Vec::new(),
        Target::Addresses(address, _) if family_of(address) != family => return Vec::new(),
        Target::Addresses(_, 0) => Vec::new(),
        Target::Addresses(address, prefix) => shares(destination(family), address, prefix),
        Target::Name(_) | Target::Below(_) => return Vec::new(),
    };
    let start = [layer.family(family).to_vec(), about].concat();
    let ends = transports(rule);
    ends.into_iter()
        .map(|end| [start.clone(), end].concat())
        .collect()
}

fn ending(mut steps: Vec<Step>, end: Step) -> Vec<Step> {
    steps.push(end);
    steps
}

/// The rules of the bridge's chain for one interface.
pub(super) fn guard(policy: &EgressPolicy, side: &Side) -> Vec<Vec<Step>> {
    let mut rules = vec![ending(is_not(FROM, &side.mac.0).to_vec(), Step::Drop)];
    for reach in &side.reach {
        if reach.address.is_ipv4() {
            guard_arp(reach.address, &mut rules);
        } else {
            guard_neighbours(reach, &mut rules);
        }
        let family = family_of(reach.address);
        let kind = Layer::Bridge.family(family);
        let foreign = is_not(source(family), &octets(reach.address));
        rules.push(ending([kind.clone(), foreign].concat(), Step::Drop));
        // To peers there is no other place to say it.
        let peer = to_peer(reach);
        let mut list = |list: &[Rule], end: &Step| {
            for rule in list {
                for steps in matches(rule, family, Layer::Bridge) {
                    rules.push(ending([steps, peer.clone()].concat(), end.clone()));
                }
            }
        };
        if policy.default == EgressDefault::Allow {
            list(&policy.allow, &Step::Accept);
        }
        list(&policy.deny, &Step::Drop);
        let peers = [kind.to_vec(), peer].concat();
        rules.push(ending(peers, Step::Accept));
        // Its own network may have another way out: a router that is on the bridge.
        let by_host = is(TO, &side.bridge_mac.0);
        rules.push(ending([kind.clone(), by_host].concat(), Step::Accept));
        if policy.default == EgressDefault::Allow {
            let group: IpAddr = if family == IPV4 {
                Ipv4Addr::new(224, 0, 0, 0).into()
            } else {
                Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into()
            };
            let bits = if family == IPV4 { 3 } else { 8 };
            let groups = shares(destination(family), group, bits);
            rules.push(ending([kind.to_vec(), groups].concat(), Step::Accept));
        }
    }
    rules.push(vec![Step::Drop]);
    rules
}

/// Questions and answers about neighbours, from its own address or none.
fn guard_arp(address: IpAddr, rules: &mut Vec<Vec<Step>>) {
    const SENDER: Field = Field::Network(14, 4);
    for sender in [octets(address), vec![0; 4]] {
        let steps = [is(KIND, &ARP), is(SENDER, &sender)].concat();
        rules.push(ending(steps, Step::Accept));
    }
}

/// The same by IPv6, from its own address, that of the link or none.
fn guard_neighbours(reach: &Reach, rules: &mut Vec<Vec<Step>>) {
    let sources = [
        shares(source(IPV6), reach.address, 128),
        shares(source(IPV6), LINK_LOCAL.into(), 10),
        shares(source(IPV6), Ipv6Addr::UNSPECIFIED.into(), 128),
    ];
    for from in &sources {
        for steps in neighbours(reach, Layer::Bridge) {
            rules.push(ending([steps, from.clone()].concat(), Step::Accept));
        }
    }
}

/// Questions and answers about neighbours and routers, and reports of groups, that do not leave the
/// link.
fn neighbours(reach: &Reach, layer: Layer) -> Vec<Vec<Step>> {
    const SOLICITATION: u8 = 135;
    const ADVERTISEMENT: u8 = 136;
    const ROUTERS: u8 = 133;
    const REPORT: u8 = 143;
    let targets = [
        shares(destination(IPV6), reach.address, reach.prefix),
        shares(destination(IPV6), LINK_LOCAL.into(), 10),
        shares(destination(IPV6), LINK_GROUPS.into(), 16),
    ];
    let kinds = [ROUTERS, SOLICITATION, ADVERTISEMENT, REPORT];
    let all = kinds.into_iter().flat_map(|kind| {
        targets.iter().map(move |to| {
            let start = [layer.family(IPV6), is(Field::Transport, &[ICMPV6])].concat();
            let kind = is(Field::Ports(0, 1), &[kind]).to_vec();
            [start, kind, to.clone()].concat()
        })
    });
    all.collect()
}

/// To somebody in its own network, who is not the host.
fn to_peer(reach: &Reach) -> Vec<Step> {
    let field = destination(family_of(reach.address));
    let mut steps = shares(field, reach.address, reach.prefix);
    steps.extend(is_not(field, &octets(reach.gateway)));
    steps
}

/// The rules of the host's chain for a container.
pub(super) fn policy(id: &str, policy: &EgressPolicy, sides: &[Side]) -> Vec<Vec<Step>> {
    const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
    let mut rules = vec![vec![
        Step::Load(Field::State),
        Step::Mask(ESTABLISHED_OR_RELATED.to_ne_bytes().to_vec()),
        Step::Compare(Op::NotEqual, vec![0; 4]),
        Step::Accept,
    ]];
    let reach = || sides.iter().flat_map(|side| &side.reach);
    // The kernel does not count them among flows.
    for reach in reach().filter(|reach| reach.address.is_ipv6()) {
        let all = neighbours(reach, Layer::Host).into_iter();
        rules.extend(all.map(|steps| ending(steps, Step::Accept)));
    }
    let to = |address: IpAddr| {
        let family = family_of(address);
        let to = is(destination(family), &octets(address));
        [Layer::Host.family(family), to].concat()
    };
    for reach in reach().filter(|reach| reach.named) {
        for protocol in [UDP, TCP] {
            let service = [
                is(Field::Transport, &[protocol]),
                is(Field::Ports(2, 2), &NAME_SERVICE.to_be_bytes()),
            ];
            let steps = [to(reach.gateway), service.concat()].concat();
            rules.push(ending(steps, Step::Accept));
        }
    }
    let denied = |rules: &mut Vec<Vec<Step>>| {
        for rule in &policy.deny {
            for family in [IPV4, IPV6] {
                let all = matches(rule, family, Layer::Host).into_iter();
                rules.extend(all.map(|steps| ending(steps, Step::Refuse)));
            }
        }
    };
    if policy.default == EgressDefault::Deny {
        denied(&mut rules);
    }
    for (index, rule) in policy.allow.iter().enumerate() {
        for (family, set) in [IPV4, IPV6].into_iter().zip(set_names(id, index)) {
            let mut all = matches(rule, family, Layer::Host);
            if rule.name().is_some() {
                let mut learnt = Layer::Host.family(family).to_vec();
                learnt.extend([Step::Load(destination(family)), Step::In(set)]);
                let ends = transports(rule).into_iter();
                all.extend(ends.map(|end| [learnt.clone(), end].concat()));
            }
            rules.extend(all.into_iter().map(|steps| ending(steps, Step::Accept)));
        }
        // The host's names are no others' to say: they stand for the gateway for good.
        if HOST_NAMES.iter().any(|name| rule.names(name)) {
            for reach in reach() {
                for end in transports(rule) {
                    let steps = [to(reach.gateway), end].concat();
                    rules.push(ending(steps, Step::Accept));
                }
            }
        }
    }
    match policy.default {
        EgressDefault::Allow => denied(&mut rules),
        EgressDefault::Deny => {
            // Where the host looks at bridged packets too (br_netfilter).
            for reach in reach() {
                let kind = Layer::Host.family(family_of(reach.address)).to_vec();
                let steps = [kind, to_peer(reach)].concat();
                rules.push(ending(steps, Step::Accept));
            }
            rules.push(vec![Step::Refuse]);
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse().expect("a rule")
    }

    #[test]
    fn mask_has_so_many_bits() {
        assert_eq!(mask(4, 0), [0, 0, 0, 0]);
        assert_eq!(mask(4, 12), [255, 240, 0, 0]);
        assert_eq!(mask(4, 32), [255; 4]);
        assert_eq!(mask(16, 65)[7..10], [255, 128, 0]);
    }

    #[test]
    fn ports_without_protocol_mean_two_and_addresses_one_family() {
        assert_eq!(transports(&rule("1.2.3.4:80")).len(), 2);
        assert_eq!(transports(&rule("1.2.3.4:80/udp")).len(), 1);
        assert_eq!(transports(&rule("1.2.3.4")), [Vec::new()]);
        assert!(matches(&rule("1.2.3.4"), IPV6, Layer::Host).is_empty());
        assert_eq!(matches(&rule("*:80/tcp"), IPV6, Layer::Host).len(), 1);
        assert!(matches(&rule("name.example"), IPV4, Layer::Host).is_empty());
    }

    #[test]
    fn every_chain_ends_in_the_default() {
        let side = Side {
            veth: "v".into(),
            mac: crate::MacAddress([2, 0, 0, 0, 0, 1]),
            bridge_mac: crate::MacAddress([2, 0, 0, 0, 0, 2]),
            known_by: Ipv4Addr::new(10, 0, 0, 2),
            reach: vec![Reach {
                address: Ipv4Addr::new(10, 0, 0, 2).into(),
                prefix: 24,
                gateway: Ipv4Addr::new(10, 0, 0, 1).into(),
                named: true,
            }],
        };
        let own = |text: &str| vec![text.to_owned()];
        let deny = EgressPolicy::new("deny", &own("a.example"), &[]);
        let deny = deny.expect("a policy").expect("a restriction");
        assert_eq!(guard(&deny, &side).last(), Some(&vec![Step::Drop]));
        let rules = policy("1", &deny, std::slice::from_ref(&side));
        assert_eq!(rules.last(), Some(&vec![Step::Refuse]));
        let learnt = |set: &str| {
            let step = Step::In(set.to_owned());
            rules.iter().filter(|rule| rule.contains(&step)).count()
        };
        assert_eq!((learnt("n0v4-1"), learnt("n0v6-1")), (1, 1));
        let allow = EgressPolicy::new("allow", &[], &own("10.9.0.0/16"));
        let allow = allow.expect("a policy").expect("a restriction");
        let rules = policy("1", &allow, &[side]);
        assert_eq!(
            rules.last().and_then(|rule| rule.last()),
            Some(&Step::Refuse)
        );
        assert!(rules.last().is_some_and(|rule| rule.len() > 1));
    }
}
