//! From a question to an answer, or to the word that others must be asked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::quick;
use super::zones::{Known, Zones};

/// Containers come and go: an answer is old after so many seconds.
pub(super) const TTL: u32 = 5;
/// What a client without EDNS takes by UDP (RFC 1035).
pub(super) const CLASSIC_BYTES: u16 = 512;
/// What we take and send by UDP (RFC 6891 advises against more).
pub(super) const LARGEST_DATAGRAM: u16 = 4096;
/// The header.
const SHORTEST: usize = 12;

/// What to do about a question.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Send this.
    Reply(Vec<u8>),
    /// Ask one of these, or with none the host's servers.
    Forward(Vec<SocketAddr>),
    /// Say nothing.
    Ignore,
}

/// A question, or the answer to what is none.
pub(super) fn read(bytes: &[u8]) -> Option<Result<Message, Vec<u8>>> {
    let [high, low, flags, ..] = *bytes else {
        return None;
    };
    // Answers are not answered, lest two servers talk for ever.
    if bytes.len() < SHORTEST || flags & 0x80 != 0 {
        return None;
    }
    let id = u16::from_be_bytes([high, low]);
    match Message::from_vec(bytes) {
        Ok(message) if message.metadata.op_code != OpCode::Query => {
            Some(Err(failure(id, ResponseCode::NotImp)))
        }
        Ok(message) if message.queries.len() == 1 => Some(Ok(message)),
        _ => Some(Err(failure(id, ResponseCode::FormErr))),
    }
}

fn failure(id: u16, code: ResponseCode) -> Vec<u8> {
    let message = Message::error_msg(id, OpCode::Query, code);
    message.to_vec().unwrap_or_default()
}

/// The reply that tells of a failure.
pub(super) fn failed(question: &[u8]) -> Vec<u8> {
    match read(question) {
        Some(Ok(message)) => write(
            &reply_to(&message, ResponseCode::ServFail, Vec::new()),
            usize::from(u16::MAX),
        ),
        _ => Vec::new(),
    }
}

/// The reply that says no more than `code`.
pub(super) fn refusal(question: &Message, code: ResponseCode) -> Vec<u8> {
    write(&reply_to(question, code, Vec::new()), usize::from(u16::MAX))
}

/// Decides about the question that the container at `client` sent to `network`'s server.
pub(super) fn decide(
    zones: &Zones,
    network: &str,
    client: Ipv4Addr,
    bytes: &[u8],
    datagram: bool,
) -> Verdict {
    if !zones.serves(network, client) {
        return Verdict::Ignore;
    }
    if let Some(verdict) = quick::decide(zones, network, client, bytes, datagram) {
        return verdict;
    }
    decide_any(zones, network, client, bytes, datagram)
}

/// As [`decide`] for each kind of message, of a container of the network.
pub(super) fn decide_any(
    zones: &Zones,
    network: &str,
    client: Ipv4Addr,
    bytes: &[u8],
    datagram: bool,
) -> Verdict {
    let message = match read(bytes) {
        None => return Verdict::Ignore,
        Some(Err(reply)) => return Verdict::Reply(reply),
        Some(Ok(message)) => message,
    };
    let Some(query) = message.queries.first() else {
        return Verdict::Ignore;
    };
    let limit = usize::from(if datagram { room(&message) } else { u16::MAX });
    let reply = |code, answers| Verdict::Reply(write(&reply_to(&message, code, answers), limit));
    if message.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return reply(ResponseCode::BADVERS, Vec::new());
    }
    if query.query_class() != DNSClass::IN {
        return reply(ResponseCode::Refused, Vec::new());
    }
    match look_up(zones, network, client, query) {
        Known::Elsewhere(servers) => Verdict::Forward(servers),
        Known::Missing => reply(ResponseCode::NXDomain, Vec::new()),
        Known::Addresses(addresses) => {
            let name = query.name();
            let record = |a| Record::from_rdata(name.clone(), TTL, RData::A(A(a)));
            reply(
                ResponseCode::NoError,
                addresses.into_iter().map(record).collect(),
            )
        }
        Known::Addresses6(addresses) => {
            let name = query.name();
            let record = |a| Record::from_rdata(name.clone(), TTL, RData::AAAA(AAAA(a)));
            reply(
                ResponseCode::NoError,
                addresses.into_iter().map(record).collect(),
            )
        }
        Known::Name(text) => {
            let answer = Name::from_ascii(format!("{text}.")).ok().map(|target| {
                Record::from_rdata(query.name().clone(), TTL, RData::PTR(PTR(target)))
            });
            reply(ResponseCode::NoError, answer.into_iter().collect())
        }
    }
}

fn look_up(zones: &Zones, network: &str, client: Ipv4Addr, query: &Query) -> Known {
    let text = query.name().to_ascii().to_ascii_lowercase();
    let name = text.strip_suffix('.').unwrap_or(&text);
    match query.query_type() {
        RecordType::A | RecordType::ANY => zones.address_of(network, client, name),
        RecordType::AAAA => zones.address6_of(network, client, name),
        RecordType::PTR => match reversed(query.name()) {
            Some(IpAddr::V4(address)) => zones.name_of(network, client, address),
            Some(IpAddr::V6(address)) => zones.name6_of(network, client, address),
            None => zones.other(network, client, name),
        },
        _ => zones.other(network, client, name),
    }
}

/// The address that a name below in-addr.arpa or ip6.arpa stands for.
fn reversed(name: &Name) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    let whole = match net.addr() {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    (net.prefix_len() == whole).then(|| net.addr())
}

/// How many bytes the client takes by UDP.
fn room(message: &Message) -> u16 {
    let offered = message.edns.as_ref().map_or(0, Edns::max_payload);
    offered.clamp(CLASSIC_BYTES, LARGEST_DATAGRAM)
}

fn reply_to(question: &Message, code: ResponseCode, answers: Vec<Record>) -> Message {
    let mut reply = Message::response(question.metadata.id, OpCode::Query);
    reply.metadata.message_type = MessageType::Response;
    reply.metadata.recursion_desired = question.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply.add_queries(question.queries.iter().cloned());
    reply.insert_answers(answers);
    if question.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(LARGEST_DATAGRAM);
        edns.set_rcode_high(code.high());
        reply.set_edns(edns);
    }
    reply
}

/// The message in bytes; what does not fit is left out, and the client told to come by TCP.
fn write(reply: &Message, limit: usize) -> Vec<u8> {
    let bytes = reply.to_vec().unwrap_or_default();
    if bytes.len() <= limit {
        return bytes;
    }
    let mut short = reply.clone();
    short.answers.clear();
    short.metadata.truncation = true;
    short.to_vec().unwrap_or_default()
}

/// Cuts a foreign reply that does not fit, so that the client comes by TCP.
pub(super) fn fit(question: &[u8], reply: Vec<u8>) -> Vec<u8> {
    let Some(Ok(message)) = read(question) else {
        return reply;
    };
    if reply.len() <= usize::from(room(&message)) {
        return reply;
    }
    let mut short = reply_to(&message, ResponseCode::NoError, Vec::new());
    short.metadata.truncation = true;
    short.to_vec().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::zones::{Member, Zone};
    use super::*;
    use crate::types::Subnet;

    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn zones(count: u8) -> Zones {
        let zones = Zones::default();
        let zone = Zone {
            name: "net".to_owned(),
            gateway: Ipv4Addr::new(10, 0, 0, 1),
            subnet: Subnet::new(CLIENT, 24).expect("a subnet"),
            v6: None,
            internal: true,
        };
        zones.set("n", zone);
        for number in 0..count {
            let member = Member {
                container: number.to_string(),
                names: vec!["many".to_owned()],
                ..Member::default()
            };
            zones.join("n", Ipv4Addr::new(10, 0, 0, 2 + number), member);
        }
        zones
    }

    fn question(name: &str, kind: RecordType, edns: Option<u16>) -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.id = 77;
        message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
        if let Some(size) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            message.set_edns(edns);
        }
        message.to_vec().expect("bytes")
    }

    fn ask(zones: &Zones, bytes: &[u8], datagram: bool) -> Message {
        match decide(zones, "n", CLIENT, bytes, datagram) {
            Verdict::Reply(reply) => Message::from_vec(&reply).expect("a message"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn large_answer_fits_with_edns_or_tcp_and_is_cut_without() {
        let zones = zones(60);
        let classic = question("many.", RecordType::A, None);
        let cut = ask(&zones, &classic, true);
        assert!(cut.metadata.truncation && cut.answers.is_empty());
        assert_eq!(ask(&zones, &classic, false).answers.len(), 60);
        let edns = ask(&zones, &question("MANY.", RecordType::A, Some(4096)), true);
        assert!(edns.edns.is_some() && !edns.metadata.truncation);
        assert_eq!((edns.metadata.id, edns.answers.len()), (77, 60));
    }

    #[test]
    fn known_name_without_records_of_a_type_is_no_missing_one() {
        let zones = zones(1);
        let none = ask(&zones, &question("many.", RecordType::AAAA, None), true);
        assert_eq!(none.metadata.response_code, ResponseCode::NoError);
        assert!(none.answers.is_empty());
        let missing = ask(&zones, &question("few.", RecordType::A, None), true);
        assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    }

    #[test]
    fn reverse_question_is_answered_by_name_and_network() {
        let zones = zones(1);
        let bytes = question("2.0.0.10.in-addr.arpa.", RecordType::PTR, None);
        let reply = ask(&zones, &bytes, true);
        assert_eq!(reply.answers[0].data.to_string(), "many.net.");
    }

    #[test]
    fn malformed_and_foreign_messages_get_an_error_or_nothing() {
        let zones = zones(1);
        let decide = |bytes: &[u8], client| decide(&zones, "n", client, bytes, true);
        let good = question("many.", RecordType::A, None);
        assert!(matches!(decide(&good[..5], CLIENT), Verdict::Ignore));
        let mut response = good.clone();
        response[2] |= 0x80;
        assert!(matches!(decide(&response, CLIENT), Verdict::Ignore));
        let stranger = Ipv4Addr::new(10, 9, 9, 9);
        assert!(matches!(decide(&good, stranger), Verdict::Ignore));
        let reply = ask(&zones, &good[..good.len() - 3], true);
        assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
        // A name that points at itself.
        let mut looped = good.clone();
        looped[12] = 0xc0;
        looped[13] = 12;
        let reply = ask(&zones, &looped, true);
        assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
        for length in 0..good.len() {
            for byte in 0..=255 {
                let mut bytes = good.clone();
                bytes[length] = byte;
                let _ = decide(&bytes, CLIENT);
            }
        }
    }
}
