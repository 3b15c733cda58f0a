//! The steps of a rule of nf_tables, and the kernel's expressions that they stand for.

use std::net::IpAddr;

mod six;

pub(crate) use six::Step6;

use crate::elements::interface;
use crate::netlink::Batch;
use crate::nft::{NFPROTO_IPV4, NFTA_DATA_VALUE, NFTA_LIST_ELEM};
use crate::types::Subnet;

/// Register of the verdict.
const REG_VERDICT: u32 = 0;
/// First of the registers of four bytes; a concatenation takes this and the next.
const REG_A: u32 = 8;
const REG_B: u32 = 9;
const REG_D: u32 = 11;
/// An interface's name takes four of them: what follows one begins here.
const REG_AFTER_NAME: u32 = 12;

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFTA_CT_SREG: u16 = 4;
const NFTA_DUP_SREG_ADDR: u16 = 1;
const NFTA_DUP_SREG_DEV: u16 = 2;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFTA_FIB_DREG: u16 = 1;
const NFTA_FIB_RESULT: u16 = 2;
const NFTA_FIB_FLAGS: u16 = 3;
const NFTA_LOOKUP_SET: u16 = 1;
const NFTA_LOOKUP_SREG: u16 = 2;
const NFTA_LOOKUP_DREG: u16 = 3;
const NFTA_NAT_TYPE: u16 = 1;
const NFTA_NAT_FAMILY: u16 = 2;
const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
const NFTA_NAT_REG_PROTO_MAX: u16 = 6;
const NFTA_NAT_FLAGS: u16 = 7;

const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;

/// What a published port is looked up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Destination port.
    Port,
    /// Destination address and port.
    AddressPort,
}

/// One step of a rule.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'a> {
    /// The packet is of this family.
    Family(u8),
    /// The packet came in by an interface in the set.
    InputIn(&'a str),
    /// The packet came in by this interface.
    InputIs(&'a str),
    /// The packet came in by another interface.
    InputIsNot(&'a str),
    /// The packet goes out by an interface in the set.
    OutputIn(&'a str),
    /// The packet goes out by this interface.
    OutputIs(&'a str),
    /// The interfaces by which it came in and goes out are together in the set.
    InputOutputIn(&'a str),
    /// The IPv4 source lies in the subnet.
    SourceIn(Subnet),
    /// The IPv4 source lies in the set.
    SourceInSet(&'a str),
    /// The IPv4 destination lies in the subnet.
    DestinationIn(Subnet),
    /// The destination is an address of this host.
    DestinationIsLocal,
    /// The destination port.
    DestinationPort(u16),
    /// The transport protocol.
    Protocol(u8),
    /// The flow is established or related to one.
    Established,
    /// The flow begins with this packet.
    New,
    /// The flow bears this mark.
    MarkIs(u32),
    /// Gives the flow a mark.
    Mark(u32),
    /// The destination is in a map of published ports.
    IsPublished(Target, &'a str),
    /// Sends a copy of the packet to the address by the interface of this number.
    SendCopy(IpAddr, u32),
    /// The flow's destination was rewritten.
    DestinationWasRewritten,
    /// The flow's destination was not rewritten.
    DestinationWasKept,
    /// Looks the destination up in a map and rewrites it to what was found.
    RewriteDestination(Target, &'a str),
    /// As [`Step::RewriteDestination`] of a range: the maps have what shifts the port.
    ShiftDestination(Target, &'a str, &'a str),
    /// As [`Step::RewriteDestination`], by the interface of input and the destination address.
    RewriteByInterface(&'a str),
    /// Looks at addresses of IPv6.
    V6(Step6<'a>),
    /// Takes the address of the outgoing interface as source.
    Masquerade,
    /// Lets the packet pass this chain.
    Accept,
    /// Drops the packet.
    Drop,
    /// Leaves the chain.
    Return,
    /// Goes on in another chain, and comes back when it ends.
    Jump(&'a str),
    /// Goes on in another chain for good.
    Goto(&'a str),
}

fn expression(list: &mut Batch, name: &str, fill: impl FnOnce(&mut Batch)) {
    list.nest(NFTA_LIST_ELEM, |b| {
        b.text(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, fill);
    });
}

fn meta(list: &mut Batch, key: u32) {
    meta_to(list, REG_A, key);
}

fn meta_to(list: &mut Batch, register: u32, key: u32) {
    expression(list, "meta", |b| {
        b.be32(NFTA_META_DREG, register).be32(NFTA_META_KEY, key);
    });
}

/// What is in the registers is in the set.
fn is_in(list: &mut Batch, set: &str) {
    expression(list, "lookup", |b| {
        b.text(NFTA_LOOKUP_SET, set).be32(NFTA_LOOKUP_SREG, REG_A);
    });
}

/// Replaces what is in the registers by what the map has for it.
fn look_up(list: &mut Batch, map: &str) {
    look_up_at(list, map, REG_A);
}

/// As [`look_up`], in the registers from `first` on.
fn look_up_at(list: &mut Batch, map: &str, first: u32) {
    expression(list, "lookup", |b| {
        b.text(NFTA_LOOKUP_SET, map)
            .be32(NFTA_LOOKUP_SREG, first)
            .be32(NFTA_LOOKUP_DREG, first);
    });
}

fn compare(list: &mut Batch, equal: bool, value: &[u8]) {
    expression(list, "cmp", |b| {
        b.be32(NFTA_CMP_SREG, REG_A)
            .be32(NFTA_CMP_OP, if equal { NFT_CMP_EQ } else { NFT_CMP_NEQ })
            .nest(NFTA_CMP_DATA, |b| {
                b.attr(NFTA_DATA_VALUE, value);
            });
    });
}

/// Masks the register and compares what is left.
fn mask_and_compare(list: &mut Batch, mask: [u8; 4], equal: bool, value: [u8; 4]) {
    expression(list, "bitwise", |b| {
        b.be32(NFTA_BITWISE_SREG, REG_A)
            .be32(NFTA_BITWISE_DREG, REG_A)
            .be32(NFTA_BITWISE_LEN, 4)
            .nest(NFTA_BITWISE_MASK, |b| {
                b.attr(NFTA_DATA_VALUE, &mask);
            })
            .nest(NFTA_BITWISE_XOR, |b| {
                b.attr(NFTA_DATA_VALUE, &[0; 4]);
            });
    });
    compare(list, equal, &value);
}

/// Loads bytes of the IPv4 (`base` 1) or transport header (`base` 2).
fn payload(list: &mut Batch, register: u32, base: u32, offset: u32, length: u32) {
    expression(list, "payload", |b| {
        b.be32(NFTA_PAYLOAD_DREG, register)
            .be32(NFTA_PAYLOAD_BASE, base)
            .be32(NFTA_PAYLOAD_OFFSET, offset)
            .be32(NFTA_PAYLOAD_LEN, length);
    });
}

fn conntrack(list: &mut Batch, key: u32) {
    expression(list, "ct", |b| {
        b.be32(NFTA_CT_DREG, REG_A).be32(NFTA_CT_KEY, key);
    });
}

/// Loads a value.
fn immediate(list: &mut Batch, register: u32, value: &[u8]) {
    expression(list, "immediate", |b| {
        b.be32(NFTA_IMMEDIATE_DREG, register)
            .nest(NFTA_IMMEDIATE_DATA, |b| {
                b.attr(NFTA_DATA_VALUE, value);
            });
    });
}

/// Rewrites the destination to the address and port in the registers.
fn destination_nat(list: &mut Batch) {
    const NAT_DNAT: u32 = 1;
    expression(list, "nat", |b| {
        b.be32(NFTA_NAT_TYPE, NAT_DNAT)
            .be32(NFTA_NAT_FAMILY, u32::from(NFPROTO_IPV4))
            .be32(NFTA_NAT_REG_ADDR_MIN, REG_A)
            .be32(NFTA_NAT_REG_PROTO_MIN, REG_B);
    });
}

/// Rewrites the destination to the address in the first register, and shifts the port by the numbers
/// in the second and fourth.
fn shifting_nat(list: &mut Batch) {
    const NAT_DNAT: u32 = 1;
    const NF_NAT_RANGE_PROTO_OFFSET: u32 = 1 << 5;
    expression(list, "nat", |b| {
        b.be32(NFTA_NAT_TYPE, NAT_DNAT)
            .be32(NFTA_NAT_FAMILY, u32::from(NFPROTO_IPV4))
            .be32(NFTA_NAT_REG_ADDR_MIN, REG_A)
            .be32(NFTA_NAT_REG_PROTO_MIN, REG_B)
            .be32(NFTA_NAT_REG_PROTO_MAX, REG_D)
            .be32(NFTA_NAT_FLAGS, NF_NAT_RANGE_PROTO_OFFSET);
    });
}

/// Loads what a published port is looked up by.
fn load(list: &mut Batch, target: Target) {
    load_to(list, target, REG_A);
}

/// As [`load`], into the registers from `first` on.
fn load_to(list: &mut Batch, target: Target, first: u32) {
    const NETWORK: u32 = 1;
    const TRANSPORT: u32 = 2;
    const DADDR: u32 = 16;
    const DPORT: u32 = 2;
    match target {
        Target::Port => payload(list, first, TRANSPORT, DPORT, 2),
        Target::AddressPort => {
            payload(list, first, NETWORK, DADDR, 4);
            payload(list, first + 1, TRANSPORT, DPORT, 2);
        }
    }
}

fn verdict(list: &mut Batch, code: i32) {
    verdict_to(list, code, None);
}

fn verdict_to(list: &mut Batch, code: i32, chain: Option<&str>) {
    expression(list, "immediate", |b| {
        b.be32(NFTA_IMMEDIATE_DREG, REG_VERDICT)
            .nest(NFTA_IMMEDIATE_DATA, |b| {
                b.nest(NFTA_DATA_VERDICT, |b| {
                    b.be32(NFTA_VERDICT_CODE, code.cast_unsigned());
                    if let Some(chain) = chain {
                        b.text(NFTA_VERDICT_CHAIN, chain);
                    }
                });
            });
    });
}

/// Writes a step as one or more expressions.
pub(crate) fn write_step(list: &mut Batch, step: Step<'_>) {
    const META_IIFNAME: u32 = 6;
    const META_OIFNAME: u32 = 7;
    const META_NFPROTO: u32 = 15;
    const META_L4PROTO: u32 = 16;
    const NETWORK: u32 = 1;
    const TRANSPORT: u32 = 2;
    const SADDR: u32 = 12;
    const DADDR: u32 = 16;
    const DPORT: u32 = 2;
    const CT_STATE: u32 = 0;
    const CT_STATUS: u32 = 2;
    const CT_MARK: u32 = 3;
    const STATE_NEW: u32 = 8;
    const STATE_ESTABLISHED_OR_RELATED: u32 = 2 | 4;
    const IPS_DST_NAT: u32 = 1 << 5;
    const FIB_ADDRTYPE: u32 = 3;
    const FIB_DADDR: u32 = 2;
    const RTN_LOCAL: u32 = 2;
    const NF_DROP: i32 = 0;
    const NF_ACCEPT: i32 = 1;
    const NFT_JUMP: i32 = -3;
    const NFT_GOTO: i32 = -4;
    const NFT_RETURN: i32 = -5;

    match step {
        Step::Family(family) => {
            meta(list, META_NFPROTO);
            compare(list, true, &[family]);
        }
        Step::InputIn(set) => {
            meta(list, META_IIFNAME);
            is_in(list, set);
        }
        Step::InputIs(name) => {
            meta(list, META_IIFNAME);
            compare(list, true, &interface(name));
        }
        Step::InputIsNot(name) => {
            meta(list, META_IIFNAME);
            compare(list, false, &interface(name));
        }
        Step::OutputIn(set) => {
            meta(list, META_OIFNAME);
            is_in(list, set);
        }
        Step::OutputIs(name) => {
            meta(list, META_OIFNAME);
            compare(list, true, &interface(name));
        }
        Step::InputOutputIn(set) => {
            meta(list, META_IIFNAME);
            meta_to(list, REG_AFTER_NAME, META_OIFNAME);
            is_in(list, set);
        }
        Step::SourceInSet(set) => {
            payload(list, REG_A, NETWORK, SADDR, 4);
            is_in(list, set);
        }
        Step::SourceIn(subnet) => {
            payload(list, REG_A, NETWORK, SADDR, 4);
            compare_subnet(list, subnet);
        }
        Step::DestinationIn(subnet) => {
            payload(list, REG_A, NETWORK, DADDR, 4);
            compare_subnet(list, subnet);
        }
        Step::DestinationIsLocal => {
            expression(list, "fib", |b| {
                b.be32(NFTA_FIB_DREG, REG_A)
                    .be32(NFTA_FIB_RESULT, FIB_ADDRTYPE)
                    .be32(NFTA_FIB_FLAGS, FIB_DADDR);
            });
            compare(list, true, &RTN_LOCAL.to_ne_bytes());
        }
        Step::DestinationPort(port) => {
            payload(list, REG_A, TRANSPORT, DPORT, 2);
            compare(list, true, &port.to_be_bytes());
        }
        Step::Protocol(number) => {
            meta(list, META_L4PROTO);
            compare(list, true, &[number]);
        }
        Step::Established => {
            conntrack(list, CT_STATE);
            let mask = STATE_ESTABLISHED_OR_RELATED.to_ne_bytes();
            mask_and_compare(list, mask, false, [0; 4]);
        }
        Step::New => {
            conntrack(list, CT_STATE);
            mask_and_compare(list, STATE_NEW.to_ne_bytes(), false, [0; 4]);
        }
        Step::MarkIs(mark) => {
            conntrack(list, CT_MARK);
            compare(list, true, &mark.to_ne_bytes());
        }
        Step::Mark(mark) => {
            immediate(list, REG_A, &mark.to_ne_bytes());
            expression(list, "ct", |b| {
                b.be32(NFTA_CT_KEY, CT_MARK).be32(NFTA_CT_SREG, REG_A);
            });
        }
        Step::IsPublished(key, map) => {
            load(list, key);
            look_up(list, map);
        }
        Step::SendCopy(address, interface) => {
            let device = match address {
                IpAddr::V4(four) => {
                    immediate(list, REG_A, &four.octets());
                    REG_B
                }
                IpAddr::V6(six) => {
                    immediate(list, REG_A, &six.octets());
                    REG_AFTER_NAME
                }
            };
            immediate(list, device, &interface.to_ne_bytes());
            expression(list, "dup", |b| {
                b.be32(NFTA_DUP_SREG_ADDR, REG_A)
                    .be32(NFTA_DUP_SREG_DEV, device);
            });
        }
        Step::DestinationWasRewritten => {
            conntrack(list, CT_STATUS);
            mask_and_compare(list, IPS_DST_NAT.to_ne_bytes(), false, [0; 4]);
        }
        Step::DestinationWasKept => {
            conntrack(list, CT_STATUS);
            mask_and_compare(list, IPS_DST_NAT.to_ne_bytes(), true, [0; 4]);
        }
        Step::RewriteDestination(key, map) => {
            load(list, key);
            look_up(list, map);
            destination_nat(list);
        }
        Step::ShiftDestination(key, starts, ends) => {
            load(list, key);
            look_up(list, starts);
            load_to(list, key, REG_D);
            look_up_at(list, ends, REG_D);
            shifting_nat(list);
        }
        Step::RewriteByInterface(map) => {
            meta(list, META_IIFNAME);
            payload(list, REG_AFTER_NAME, NETWORK, DADDR, 4);
            look_up(list, map);
            destination_nat(list);
        }
        Step::V6(step) => six::write(list, step),
        Step::Masquerade => expression(list, "masq", |_| {}),
        Step::Accept => verdict(list, NF_ACCEPT),
        Step::Drop => verdict(list, NF_DROP),
        Step::Return => verdict(list, NFT_RETURN),
        Step::Jump(chain) => verdict_to(list, NFT_JUMP, Some(chain)),
        Step::Goto(chain) => verdict_to(list, NFT_GOTO, Some(chain)),
    }
}

fn compare_subnet(list: &mut Batch, subnet: Subnet) {
    let mask = subnet.netmask().octets();
    mask_and_compare(list, mask, true, subnet.first().octets());
}
