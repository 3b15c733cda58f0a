//! The steps that look at addresses of IPv6.

use std::net::Ipv6Addr;

use super::{
    NFTA_NAT_FAMILY, NFTA_NAT_FLAGS, NFTA_NAT_REG_ADDR_MIN, NFTA_NAT_REG_PROTO_MAX,
    NFTA_NAT_REG_PROTO_MIN, NFTA_NAT_TYPE, REG_A, REG_AFTER_NAME, Target, compare, expression,
    is_in, look_up, look_up_at, meta, payload,
};
use crate::netlink::Batch;

/// What comes after an address of IPv6 in the first four registers.
const REG_PORT: u32 = REG_A + 4;
const REG_PORT_END: u32 = REG_A + 5;

/// A step that is about packets of IPv6 alone.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step6<'a> {
    /// The source is this.
    SourceIs(Ipv6Addr),
    /// The source lies in the set.
    SourceInSet(&'a str),
    /// Looks the destination up in a map and rewrites it to what was found.
    RewriteDestination(Target, &'a str),
    /// As [`Step6::RewriteDestination`] of a range: the maps have what shifts the port.
    ShiftDestination(Target, &'a str, &'a str),
    /// The destination is in a map of published ports.
    IsPublished(Target, &'a str),
    /// As [`Step6::RewriteDestination`], by the interface of input and the destination address.
    RewriteByInterface(&'a str),
}

/// Writes a step as expressions.
pub(super) fn write(list: &mut Batch, step: Step6<'_>) {
    const META_IIFNAME: u32 = 6;
    match step {
        Step6::SourceIs(address) => {
            source(list);
            compare(list, true, &address.octets());
        }
        Step6::SourceInSet(set) => {
            source(list);
            is_in(list, set);
        }
        Step6::RewriteDestination(target, map) => {
            load(list, target);
            look_up(list, map);
            nat(list, false);
        }
        Step6::IsPublished(target, map) => {
            load(list, target);
            look_up(list, map);
        }
        Step6::ShiftDestination(target, starts, ends) => {
            load(list, target);
            look_up(list, starts);
            load_to(list, target, REG_PORT_END);
            look_up_at(list, ends, REG_PORT_END);
            nat(list, true);
        }
        Step6::RewriteByInterface(map) => {
            meta(list, META_IIFNAME);
            destination(list, REG_AFTER_NAME);
            look_up(list, map);
            nat(list, false);
        }
    }
}

const NETWORK: u32 = 1;

fn source(list: &mut Batch) {
    const SADDR: u32 = 8;
    payload(list, REG_A, NETWORK, SADDR, 16);
}

fn destination(list: &mut Batch, register: u32) {
    const DADDR: u32 = 24;
    payload(list, register, NETWORK, DADDR, 16);
}

/// Loads what a published port is looked up by.
fn load(list: &mut Batch, target: Target) {
    load_to(list, target, REG_A);
}

/// As [`load`], into the registers from `first` on.
fn load_to(list: &mut Batch, target: Target, first: u32) {
    const TRANSPORT: u32 = 2;
    const DPORT: u32 = 2;
    match target {
        Target::Port => payload(list, first, TRANSPORT, DPORT, 2),
        Target::AddressPort => {
            destination(list, first);
            payload(list, first + 4, TRANSPORT, DPORT, 2);
        }
    }
}

/// Rewrites the destination to the address and port in the registers; or shifts the port by the two
/// numbers that are there in its place.
fn nat(list: &mut Batch, shifting: bool) {
    const NAT_DNAT: u32 = 1;
    const NFPROTO_IPV6: u32 = 10;
    const NF_NAT_RANGE_PROTO_OFFSET: u32 = 1 << 5;
    expression(list, "nat", |b| {
        b.be32(NFTA_NAT_TYPE, NAT_DNAT)
            .be32(NFTA_NAT_FAMILY, NFPROTO_IPV6)
            .be32(NFTA_NAT_REG_ADDR_MIN, REG_A)
            .be32(NFTA_NAT_REG_PROTO_MIN, REG_PORT);
        if shifting {
            b.be32(NFTA_NAT_REG_PROTO_MAX, REG_PORT_END)
                .be32(NFTA_NAT_FLAGS, NF_NAT_RANGE_PROTO_OFFSET);
        }
    });
}
