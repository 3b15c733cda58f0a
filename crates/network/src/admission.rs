//! Published ports that obey the host's own rules for input.
//!
//! ```text
//! prerouting  dstnat  by the way back alone: look up as ever
//! input       filter  (the administrator's rules)
//! input       250     of another interface, new, for a published port: mark the flow
//! input       251     with this mark: send a copy out by the way back, and drop
//! ```
//!
//! Without it a published port's destination is rewritten before the host decides whether a packet
//! is for itself, so that rules for input never see it: the firewall seems closed and is not. With
//! it only packets that those rules have let pass are rewritten, the first of each connection; the
//! kernel does the same to the rest by itself. The flow that bore the mark is never finished, so
//! that nobody else sees the mark. Copying is for tables of one version of IP: hence second tables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hull_model::spec::Protocol;

use crate::nft::{Hook, NFPROTO_IPV4, NFPROTO_IPV6, Transaction};
use crate::rule::{Step, Target};

/// After whatever an administrator may have, and before the kernel finishes the flow.
const MARKING: i32 = 250;
const SENDING: i32 = 251;
/// `HULL`.
pub(crate) const MARK: u32 = 0x4855_4c4c;
/// Neighbours that are never asked for: the way back leads nowhere else. The dummy address (RFC 7600)
/// and one of the prefix whose packets are discarded (RFC 6666).
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
pub(crate) const NEIGHBOUR6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 8);

/// The name of the second tables.
pub(crate) fn second_table(name: &str) -> String {
    format!("{name}_input")
}

/// In the table: marks the flows of packets for what is in `maps`.
pub(crate) fn write_marks<'a>(
    t: &mut Transaction<'_>,
    back: &str,
    maps: impl Iterator<Item = (u8, Target, &'a str)>,
) {
    t.chain("admission", "filter", Hook::Input, MARKING);
    for (protocol, key, map) in maps {
        let steps = [
            Step::Family(NFPROTO_IPV4),
            Step::Protocol(protocol),
            Step::InputIsNot(back),
            Step::New,
            Step::DestinationIsLocal,
            Step::IsPublished(key, map),
            Step::Mark(MARK),
        ];
        t.rule("admission", &steps);
    }
}

/// In a second table, of this family: sends back what was marked, by the interface with the number
/// `out`.
pub(crate) fn write_copies(t: &mut Transaction<'_>, family: u8, out: u32, back: &str) {
    let neighbour = match family {
        NFPROTO_IPV6 => IpAddr::V6(NEIGHBOUR6),
        _ => IpAddr::V4(NEIGHBOUR),
    };
    t.chain("admitted", "filter", Hook::Input, SENDING);
    let steps = [
        Step::InputIsNot(back),
        Step::New,
        Step::MarkIs(MARK),
        Step::SendCopy(neighbour, out),
        Step::Drop,
    ];
    t.rule("admitted", &steps);
}

/// The number of a protocol.
pub(crate) fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}
