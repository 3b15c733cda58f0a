//! Forgets tracked flows that a change of the published ports has made wrong.
//!
//! The kernel looks at the table for the first packet of a flow only. A UDP client that goes on
//! sending would for ever reach the old container's address, which may be another's by then, or,
//! if it began before the port was published, the host itself.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::netlink::{
    self, Attributes, Batch, MAX_ACKNOWLEDGED, Message, NLM_F_ACK, NLM_F_DUMP, NetlinkError,
};
use crate::nft;

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_INET6: u8 = 10;
const UDP: u8 = 17;

pub(crate) const CTA_TUPLE_ORIG: u16 = 1;
pub(crate) const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;

pub(crate) const NFGENMSG_LEN: usize = 4;
const NESTED: u16 = 0x8000;

/// Ports of an address of the host.
pub(crate) type HostPorts = (IpAddr, RangeInclusive<u16>);

/// Which flows: all that are listed, because looking for one costs as much as looking for many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Flows {
    /// Containers that answer UDP flows.
    pub(crate) answered_by: Vec<IpAddr>,
    /// The host's own addresses with ports, to which UDP flows go that lead nowhere else.
    pub(crate) to_host: Vec<HostPorts>,
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tuple {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    destination_port: u16,
}

impl Flows {
    fn include(&self, original: Tuple, reply: Tuple) -> bool {
        let unchanged = reply.source == original.destination;
        let target = |(address, span): &HostPorts| {
            *address == original.destination && span.contains(&original.destination_port)
        };
        original.protocol == UDP
            && (self.answered_by.contains(&reply.source)
                || unchanged && self.to_host.iter().any(target))
    }
}

/// Deletes the flows, and tells how many there were.
pub(crate) fn forget(flows: &Flows) -> Result<usize, NetlinkError> {
    if *flows == Flows::default() {
        return Ok(0);
    }
    let to_host = flows.to_host.iter().map(|(address, _)| address);
    let concerned: Vec<&IpAddr> = flows.answered_by.iter().chain(to_host).collect();
    let mut found = Vec::new();
    for (family, six) in [(AF_INET, false), (AF_INET6, true)] {
        if concerned.iter().any(|address| address.is_ipv6() == six) {
            found.extend(dump(family, |message| read_flow(message, flows))?);
        }
    }
    delete(&found)
}

/// Deletes every flow that one of these began, and those that it answers if `answered` says so.
pub(crate) fn forget_all_of(addresses: &[IpAddr], answered: bool) -> Result<usize, NetlinkError> {
    let mut found = Vec::new();
    for (family, six) in [(AF_INET, false), (AF_INET6, true)] {
        if addresses.iter().any(|address| address.is_ipv6() == six) {
            found.extend(dump(family, |message| {
                read_flow_of(message, addresses, answered)
            })?);
        }
    }
    delete(&found)
}

pub(crate) fn delete(found: &[Handle]) -> Result<usize, NetlinkError> {
    let mut socket = nft::open()?;
    for part in found.chunks(MAX_ACKNOWLEDGED) {
        let mut batch = Batch::new();
        for flow in part {
            batch
                .request(
                    NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE,
                    NLM_F_ACK,
                    &[flow.family, 0, 0, 0],
                )
                .attr(CTA_TUPLE_ORIG | NESTED, &flow.tuple);
            if let Some(id) = &flow.id {
                batch.attr(CTA_ID, id);
            }
        }
        // One that ended by itself meanwhile is as good.
        for result in socket.exchange(&mut batch)? {
            match result {
                Err(error) if error.errno() != Some(libc::ENOENT) => return Err(error),
                _ => {}
            }
        }
    }
    Ok(found.len())
}

/// What tells a flow apart: its original tuple and its id, as the kernel wrote them.
pub(crate) struct Handle {
    pub(crate) family: u8,
    pub(crate) tuple: Vec<u8>,
    pub(crate) id: Option<Vec<u8>>,
}

pub(crate) fn dump(
    family: u8,
    choose: impl Fn(Message<'_>) -> Option<Handle>,
) -> Result<Vec<Handle>, NetlinkError> {
    let mut batch = Batch::new();
    batch.request(
        NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET,
        NLM_F_DUMP,
        &[family, 0, 0, 0],
    );
    let mut found = Vec::new();
    nft::open()?.query(&mut batch, true, |message| found.extend(choose(message)))?;
    Ok(found)
}

fn read_flow(message: Message<'_>, flows: &Flows) -> Option<Handle> {
    let attributes = Attributes::after(message.body, NFGENMSG_LEN);
    let original = attributes.find(CTA_TUPLE_ORIG)?;
    let reply = read_tuple(attributes.find(CTA_TUPLE_REPLY)?)?;
    if !flows.include(read_tuple(original)?, reply) {
        return None;
    }
    let id = attributes.find(CTA_ID).map(<[u8]>::to_vec);
    Some(Handle {
        family: *message.body.first()?,
        tuple: original.to_vec(),
        id,
    })
}

fn read_flow_of(message: Message<'_>, addresses: &[IpAddr], answered: bool) -> Option<Handle> {
    let attributes = Attributes::after(message.body, NFGENMSG_LEN);
    let original = attributes.find(CTA_TUPLE_ORIG)?;
    let source = |tuple: &[u8]| -> Option<IpAddr> {
        let ip = Attributes::new(Attributes::new(tuple).find(CTA_TUPLE_IP)?);
        address(&ip, CTA_IP_V4_SRC, CTA_IP_V6_SRC)
    };
    let is_one = |end: Option<IpAddr>| end.is_some_and(|end| addresses.contains(&end));
    let answers = || attributes.find(CTA_TUPLE_REPLY).and_then(source);
    if !(is_one(source(original)) || answered && is_one(answers())) {
        return None;
    }
    let id = attributes.find(CTA_ID).map(<[u8]>::to_vec);
    Some(Handle {
        family: *message.body.first()?,
        tuple: original.to_vec(),
        id,
    })
}

/// The address that one of these attributes has.
fn address(ip: &Attributes<'_>, four: u16, six: u16) -> Option<IpAddr> {
    if let Some(four) = ip.find(four) {
        return netlink::ipv4(four).map(IpAddr::V4);
    }
    let six: [u8; 16] = ip.find(six)?.try_into().ok()?;
    Some(IpAddr::from(six))
}

fn read_tuple(bytes: &[u8]) -> Option<Tuple> {
    let tuple = Attributes::new(bytes);
    let ip = Attributes::new(tuple.find(CTA_TUPLE_IP)?);
    let protocol = Attributes::new(tuple.find(CTA_TUPLE_PROTO)?);
    let port = protocol
        .find(CTA_PROTO_DST_PORT)
        .and_then(|value| Some(u16::from_be_bytes(value.try_into().ok()?)));
    Some(Tuple {
        source: address(&ip, CTA_IP_V4_SRC, CTA_IP_V6_SRC)?,
        destination: address(&ip, CTA_IP_V4_DST, CTA_IP_V6_DST)?,
        protocol: *protocol.find(CTA_PROTO_NUM)?.first()?,
        // Protocols without ports have none.
        destination_port: port.unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_to_the_host_exclude_forwarded_and_foreign_ones() {
        let of = |text: &str| text.parse::<IpAddr>().expect("an address");
        let (host, client) = (of("198.51.100.1"), of("198.51.100.2"));
        let tuple = |source, destination, protocol, destination_port| Tuple {
            source,
            destination,
            protocol,
            destination_port,
        };
        let flows = Flows {
            answered_by: Vec::new(),
            to_host: vec![(host, 50..=53)],
        };
        let to_host = tuple(client, host, UDP, 53);
        assert!(flows.include(to_host, tuple(host, client, UDP, 4000)));
        let rewritten = tuple(of("172.17.0.2"), client, UDP, 4000);
        assert!(!flows.include(to_host, rewritten));
        assert!(!flows.include(tuple(client, host, 6, 53), tuple(host, client, 6, 4000)));
        let elsewhere = of("9.9.9.9");
        let outgoing = tuple(host, elsewhere, UDP, 53);
        assert!(!flows.include(outgoing, tuple(elsewhere, host, UDP, 4000)));
    }
}
