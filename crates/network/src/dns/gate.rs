//! Questions of containers with an egress policy: whom they may not reach they need not find, and
//! whom they are told of is let out before they hear of it.

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RData;

use super::answer;
use super::upstream::Upstream;
use std::net::SocketAddr;

use crate::egress::Gate;

/// Asks others in the container's place, if its policy lets them be reached.
pub(super) async fn forward(
    gate: Arc<Gate>,
    question: &[u8],
    upstream: &Upstream,
    servers: &[SocketAddr],
    datagram: bool,
) -> Vec<u8> {
    let Some(Ok(message)) = answer::read(question) else {
        return answer::failed(question);
    };
    let Some(name) = asked(&message) else {
        return answer::failed(question);
    };
    if !gate.resolves(&name) {
        return answer::refusal(&message, ResponseCode::NXDomain);
    }
    let Some(reply) = upstream.ask(question, servers, datagram).await else {
        return answer::failed(question);
    };
    if gate.learns(&name) {
        let Some(found) = addresses(&reply) else {
            return answer::failed(question);
        };
        // The kernel answers in microseconds, but it may have others to serve first.
        let learnt = tokio::task::spawn_blocking(move || gate.learn(&name, &found)).await;
        if !matches!(learnt, Ok(Ok(()))) {
            return answer::failed(question);
        }
    }
    if datagram {
        answer::fit(question, reply)
    } else {
        reply
    }
}

/// The name asked for, in lower case and without its last dot.
fn asked(message: &Message) -> Option<String> {
    let name = message.queries.first()?.name().to_ascii();
    let name = name.to_ascii_lowercase();
    Some(name.strip_suffix('.').unwrap_or(&name).to_owned())
}

/// The addresses in a reply, with the seconds for which each may be kept.
fn addresses(reply: &[u8]) -> Option<Vec<(IpAddr, u32)>> {
    let message = Message::from_vec(reply).ok()?;
    let address = |data: &RData| match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(a) => Some(IpAddr::V6(a.0)),
        _ => None,
    };
    let records = message.answers.iter();
    Some(
        records
            .filter_map(|record| Some((address(&record.data)?, record.ttl)))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{OpCode, Query};
    use hickory_proto::rr::rdata::{A, AAAA, CNAME};
    use hickory_proto::rr::{Name, Record, RecordType};

    #[test]
    fn addresses_behind_other_names_are_found_with_their_time() {
        let name = |text: &str| Name::from_ascii(text).expect("a name");
        let mut message = Message::response(7, OpCode::Query);
        message.add_query(Query::query(name("Www.Example."), RecordType::A));
        let alias = RData::CNAME(CNAME(name("cdn.example.")));
        message.insert_answers(vec![
            Record::from_rdata(name("www.example."), 9, alias),
            Record::from_rdata(name("cdn.example."), 30, RData::A(A::new(192, 0, 2, 1))),
            Record::from_rdata(
                name("cdn.example."),
                40,
                RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
            ),
        ]);
        let bytes = message.to_vec().expect("bytes");
        let found = addresses(&bytes).expect("a reply");
        let expected: [(IpAddr, u32); 2] = [
            ([192, 0, 2, 1].into(), 30),
            ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(), 40),
        ];
        assert_eq!(found, expected);
        assert_eq!(asked(&message).as_deref(), Some("www.example"));
        assert_eq!(addresses(&bytes[..20]), None);
    }
}
