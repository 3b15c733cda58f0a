//! The usual question, for the addresses of a plain name, answered from its bytes: nothing is taken
//! apart that is put together again. Whatever is unusual is left to those who read every message.

use std::net::Ipv4Addr;

use super::answer::{CLASSIC_BYTES, LARGEST_DATAGRAM, TTL, Verdict};
use super::zones::{Known, Zones};

const HEADER: usize = 12;
/// Longest name in a message (RFC 1035), with the lengths of its labels.
const LONGEST_NAME: usize = 255;
const A: u16 = 1;
const AAAA: u16 = 28;
const IN: u16 = 1;
const OPT: u16 = 41;
/// An OPT record without options.
const OPT_BYTES: usize = 11;
const NXDOMAIN: u8 = 3;
/// Reply, and truncated, in the third byte; recursion available in the fourth.
const IS_REPLY: u8 = 0x80;
const IS_CUT: u8 = 2;
const WANTS_RECURSION: u8 = 1;
const HAS_RECURSION: u8 = 0x80;
/// Says that the name is that of the question.
const SAME_NAME: [u8; 2] = [0xc0, 12];

/// A question as it was read.
struct Question {
    /// In lower case, without its last dot.
    name: String,
    kind: u16,
    /// Where it ends in the message.
    end: usize,
    /// The longest datagram that the client takes, if it says so.
    payload: Option<u16>,
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at.checked_add(2)?)?;
    pair.try_into().ok().map(u16::from_be_bytes)
}

fn read(bytes: &[u8]) -> Option<Question> {
    let [_, _, flags, more, ..] = *bytes else {
        return None;
    };
    // A query that may want recursion and speak of DNSSEC, and no other.
    if flags & !WANTS_RECURSION != 0 || more & !0x30 != 0 {
        return None;
    }
    let counts = [4, 6, 8].map(|at| number(bytes, at));
    if counts != [Some(1), Some(0), Some(0)] {
        return None;
    }
    let additional = number(bytes, 10)?;
    let mut name = String::with_capacity(64);
    let mut at = HEADER;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = bytes
            .get(at..at.checked_add(length)?)
            .filter(|_| length < 64)?;
        let plain = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-' || *b == b'_';
        if !label.iter().all(plain) {
            return None;
        }
        at += length;
        if at - HEADER >= LONGEST_NAME {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
    }
    let kind = number(bytes, at)?;
    let class = number(bytes, at + 2)?;
    let end = at + 4;
    if name.is_empty() || class != IN || !matches!(kind, A | AAAA) {
        return None;
    }
    let payload = match (additional, bytes.get(end..)?) {
        (0, []) => None,
        (1, record) if record.len() == OPT_BYTES => {
            let plain = record.first() == Some(&0)
                && number(record, 1) == Some(OPT)
                // Version, and the length of options.
                && record.get(6) == Some(&0)
                && number(record, 9) == Some(0);
            Some(number(record, 3).filter(|_| plain)?)
        }
        _ => return None,
    };
    Some(Question {
        name,
        kind,
        end,
        payload,
    })
}

/// Decides about a question if it is a usual one.
pub(super) fn decide(
    zones: &Zones,
    network: &str,
    client: Ipv4Addr,
    bytes: &[u8],
    datagram: bool,
) -> Option<Verdict> {
    let question = read(bytes)?;
    let known = if question.kind == A {
        zones.address_of(network, client, &question.name)
    } else {
        zones.address6_of(network, client, &question.name)
    };
    let limit = if datagram {
        let offered = question.payload.unwrap_or(0);
        usize::from(offered.clamp(CLASSIC_BYTES, LARGEST_DATAGRAM))
    } else {
        usize::from(u16::MAX)
    };
    let reply = match known {
        Known::Elsewhere(servers) => return Some(Verdict::Forward(servers)),
        Known::Missing => write(bytes, &question, NXDOMAIN, limit, &[] as &[[u8; 4]]),
        Known::Addresses(addresses) => {
            let data: Vec<_> = addresses.iter().map(Ipv4Addr::octets).collect();
            write(bytes, &question, 0, limit, &data)
        }
        Known::Addresses6(addresses) => {
            let data: Vec<_> = addresses.iter().map(|a| a.octets()).collect();
            write(bytes, &question, 0, limit, &data)
        }
        Known::Name(_) => return None,
    };
    reply.map(Verdict::Reply)
}

/// The reply; where it is longer than `limit`, one without answers that has the client come by TCP.
fn write<const N: usize>(
    bytes: &[u8],
    question: &Question,
    code: u8,
    limit: usize,
    addresses: &[[u8; N]],
) -> Option<Vec<u8>> {
    let edns = question.payload.map_or(0, |_| OPT_BYTES);
    let whole = question.end + addresses.len() * (SAME_NAME.len() + 10 + N) + edns;
    let cut = whole > limit;
    let addresses = if cut { &[] } else { addresses };
    let mut reply = Vec::with_capacity(whole);
    reply.extend_from_slice(bytes.get(..2)?);
    let flags = bytes.get(2)? & WANTS_RECURSION;
    reply.push(IS_REPLY | flags | if cut { IS_CUT } else { 0 });
    reply.push(HAS_RECURSION | code);
    let count = u16::try_from(addresses.len()).ok()?;
    for number in [1, count, 0, u16::from(question.payload.is_some())] {
        reply.extend_from_slice(&number.to_be_bytes());
    }
    reply.extend_from_slice(bytes.get(HEADER..question.end)?);
    for address in addresses {
        reply.extend_from_slice(&SAME_NAME);
        reply.extend_from_slice(&question.kind.to_be_bytes());
        reply.extend_from_slice(&IN.to_be_bytes());
        reply.extend_from_slice(&TTL.to_be_bytes());
        reply.extend_from_slice(&u16::try_from(N).ok()?.to_be_bytes());
        reply.extend_from_slice(address);
    }
    if question.payload.is_some() {
        reply.push(0);
        reply.extend_from_slice(&OPT.to_be_bytes());
        reply.extend_from_slice(&LARGEST_DATAGRAM.to_be_bytes());
        reply.extend_from_slice(&[0; 6]);
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::super::seam::Names;

    /// A question with all that the quick way reads.
    const WHOLE: [u8; 36] = [
        0, 7, 1, 0x20, 0, 1, 0, 0, 0, 0, 0, 1, 3, b'w', b'E', b'b', 3, b'n', b'e', b't', 0, 0, 1,
        0, 1, 0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0,
    ];

    #[test]
    fn quick_way_and_the_other_agree_about_damaged_questions() {
        let names = Names::default();
        assert!(super::read(&WHOLE).is_some());
        let mut state = 1_u32;
        let mut random = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            usize::try_from(state >> 8).unwrap_or(0) % below.max(1)
        };
        let kinds = [0, 1, 2, 5, 12, 15, 28, 41, 63, 64, 192, 255];
        for _ in 0..20_000 {
            let mut bytes = WHOLE.to_vec();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                match random(4) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, u8::try_from(random(256)).unwrap_or(0)),
                    _ => {
                        if let Some(byte) = bytes.get_mut(at) {
                            *byte = kinds[random(kinds.len())];
                        }
                    }
                }
            }
            for datagram in [true, false] {
                let quick = names.ask(&bytes, datagram);
                assert_eq!(quick, names.ask_slowly(&bytes, datagram), "{bytes:?}");
            }
        }
    }
}
