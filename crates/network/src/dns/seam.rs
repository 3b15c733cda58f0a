//! What the fuzzers call: questions and foreign replies as the servers treat them, without a socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::answer::{self, Verdict};
use super::upstream;
use super::zones::{Member, MemberLink, Zone, Zone6, Zones};
use crate::types::Subnet;
use crate::types6::Subnet6;

const NETWORK: &str = "n";
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// What was made of a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Made {
    /// A reply.
    Reply(Vec<u8>),
    /// It goes to others.
    Forwarded,
    /// Nothing.
    Nothing,
}

impl From<Verdict> for Made {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Reply(reply) => Self::Reply(reply),
            Verdict::Forward(_) => Self::Forwarded,
            Verdict::Ignore => Self::Nothing,
        }
    }
}

/// A few names on one network.
#[derive(Debug)]
pub struct Names(Zones);

impl Default for Names {
    fn default() -> Self {
        let zones = Zones::default();
        let first = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0);
        let nth = |last: u16| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last);
        let (Ok(subnet), Ok(subnet6)) = (Subnet::new(CLIENT, 24), Subnet6::new(first, 64)) else {
            return Self(zones);
        };
        let zone = Zone {
            name: "net".to_owned(),
            gateway: Ipv4Addr::new(10, 0, 0, 1),
            subnet,
            v6: Some(Zone6 {
                gateway: nth(1),
                subnet: subnet6,
            }),
            internal: false,
        };
        zones.set(NETWORK, zone);
        let link = MemberLink {
            alias: "store".to_owned(),
            target: "web".to_owned(),
            network: NETWORK.to_owned(),
        };
        let client = Member {
            container: "1".to_owned(),
            names: vec!["client".to_owned()],
            links: vec![link],
            hosts: vec![("printer".to_owned(), IpAddr::from([192, 0, 2, 5]))],
            ..Member::default()
        };
        zones.join(NETWORK, CLIENT, client);
        let web = Member {
            container: "2".to_owned(),
            names: vec!["web".to_owned()],
            v6: Some(nth(3)),
            ..Member::default()
        };
        zones.join(NETWORK, Ipv4Addr::new(10, 0, 0, 3), web);
        Self(zones)
    }
}

impl Names {
    /// What a server makes of a question.
    pub fn ask(&self, question: &[u8], datagram: bool) -> Made {
        answer::decide(&self.0, NETWORK, CLIENT, question, datagram).into()
    }

    /// The same by the way that takes each message apart.
    pub fn ask_slowly(&self, question: &[u8], datagram: bool) -> Made {
        answer::decide_any(&self.0, NETWORK, CLIENT, question, datagram).into()
    }
}

/// What a client is sent of a foreign reply; `None` if it is no answer to the question.
pub fn passed_on(question: &[u8], reply: &[u8]) -> Option<Vec<u8>> {
    upstream::answers(question, reply).then(|| answer::fit(question, reply.to_vec()))
}
