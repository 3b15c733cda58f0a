//! Reads from the kernel what stands in a table of nf_tables, to compare it with what should.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::elements::{Entry, Kind, Set};
use crate::netlink::{self, Attributes, Batch, Message, NLM_F_DUMP, NetlinkError, Socket};
use crate::nft::{NFTA_DATA_VALUE, header, kind};

const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_GETRULE: u16 = 7;
const NFT_MSG_GETSETELEM: u16 = 13;
const GENMSG_LEN: usize = 4;

const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_ELEM_LIST_TABLE: u16 = 1;
const NFTA_ELEM_LIST_SET: u16 = 2;
const NFTA_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_ELEM_KEY: u16 = 1;
const NFTA_ELEM_DATA: u16 = 2;
const NFTA_ELEM_FLAGS: u16 = 3;
const NFTA_ELEM_KEY_END: u16 = 10;
const NFT_SET_ELEM_INTERVAL_END: u8 = 1;

/// Chains with where they hook in, and the rules of each as the kernel writes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    chains: BTreeMap<String, Vec<Vec<u8>>>,
    hooks: BTreeMap<String, Vec<u8>>,
}

impl Rules {
    /// How `self`, what is found, differs from what should be, in words.
    pub(crate) fn differences(&self, wanted: &Self) -> Vec<String> {
        let mut told = Vec::new();
        for (chain, rules) in &wanted.chains {
            match self.chains.get(chain) {
                None => told.push(format!("chain {chain} is missing")),
                Some(found) if found != rules => told.push(match found.len() {
                    n if n < rules.len() => {
                        format!(
                            "chain {chain} lacks {} of {} rules",
                            rules.len() - n,
                            rules.len()
                        )
                    }
                    n if n > rules.len() => {
                        format!("chain {chain} has {} rules too many", n - rules.len())
                    }
                    _ => format!("a rule of chain {chain} is another"),
                }),
                Some(_) => {}
            }
            let hook = wanted.hooks.get(chain);
            if self.chains.contains_key(chain) && self.hooks.get(chain) != hook {
                told.push(format!(
                    "chain {chain} is called elsewhere or has another policy"
                ));
            }
        }
        told
    }
}

/// Reads all rules of a table; none if there is no such table.
pub(crate) fn rules(
    socket: &mut Socket,
    family: u8,
    table: &str,
) -> Result<Option<Rules>, NetlinkError> {
    let mut rules = Rules::default();
    let mut batch = Batch::new();
    batch.request(kind(NFT_MSG_GETCHAIN), NLM_F_DUMP, &header(family, 0));
    socket.query(&mut batch, true, |message| {
        if let Some((chain, hook)) = read_chain(message, table) {
            if !hook.is_empty() {
                rules.hooks.insert(chain.clone(), hook);
            }
            rules.chains.insert(chain, Vec::new());
        }
    })?;
    if rules.chains.is_empty() {
        return Ok(None);
    }
    let mut batch = Batch::new();
    batch
        .request(kind(NFT_MSG_GETRULE), NLM_F_DUMP, &header(family, 0))
        .text(NFTA_RULE_TABLE, table);
    let outcome = socket.query(&mut batch, true, |message| {
        if let Some((chain, rule)) = read_rule(message, table) {
            rules.chains.entry(chain).or_default().push(rule);
        }
    });
    absent(outcome.map(|()| rules))
}

fn read_chain(message: Message<'_>, table: &str) -> Option<(String, Vec<u8>)> {
    let chain = Attributes::after(message.body, GENMSG_LEN);
    if netlink::text(chain.find(NFTA_CHAIN_TABLE)?)? != table {
        return None;
    }
    let name = netlink::text(chain.find(NFTA_CHAIN_NAME)?)?.to_owned();
    let mut place = Vec::new();
    if let Some(hook) = chain.find(NFTA_CHAIN_HOOK) {
        let hook = Attributes::new(hook);
        place.extend(hook.find(NFTA_HOOK_HOOKNUM).unwrap_or_default());
        place.extend(hook.find(NFTA_HOOK_PRIORITY).unwrap_or_default());
        place.extend(chain.find(NFTA_CHAIN_POLICY).unwrap_or_default());
    }
    Some((name, place))
}

fn read_rule(message: Message<'_>, table: &str) -> Option<(String, Vec<u8>)> {
    let rule = Attributes::after(message.body, GENMSG_LEN);
    if netlink::text(rule.find(NFTA_RULE_TABLE)?)? != table {
        return None;
    }
    let chain = netlink::text(rule.find(NFTA_RULE_CHAIN)?)?.to_owned();
    let expressions = rule.find(NFTA_RULE_EXPRESSIONS).unwrap_or_default();
    Some((chain, expressions.to_vec()))
}

/// Reads what stands in a set; none if there is no such set.
pub(crate) fn elements(
    socket: &mut Socket,
    family: u8,
    table: &str,
    set: &str,
) -> Result<Option<BTreeSet<Entry>>, NetlinkError> {
    let mut batch = Batch::new();
    batch
        .request(kind(NFT_MSG_GETSETELEM), NLM_F_DUMP, &header(family, 0))
        .text(NFTA_ELEM_LIST_TABLE, table)
        .text(NFTA_ELEM_LIST_SET, set);
    let mut found = BTreeSet::new();
    let outcome = socket.query(&mut batch, true, |message| {
        let list = Attributes::after(message.body, GENMSG_LEN);
        let elements = list.find(NFTA_ELEM_LIST_ELEMENTS).unwrap_or_default();
        let elements = Attributes::new(elements).map_while(Result::ok);
        found.extend(elements.filter_map(|(_, element)| read_element(element)));
    });
    absent(outcome.map(|()| found))
}

fn read_element(bytes: &[u8]) -> Option<Entry> {
    let element = Attributes::new(bytes);
    let value = |kind| {
        let nest = element.find(kind)?;
        Attributes::new(nest).find(NFTA_DATA_VALUE)
    };
    let flags = element.find(NFTA_ELEM_FLAGS).and_then(<[u8]>::last);
    Some(Entry {
        key: value(NFTA_ELEM_KEY)?.to_vec(),
        last: value(NFTA_ELEM_KEY_END).unwrap_or_default().to_vec(),
        ends_interval: flags.is_some_and(|f| f & NFT_SET_ELEM_INTERVAL_END != 0),
        data: value(NFTA_ELEM_DATA).unwrap_or_default().to_vec(),
    })
}

fn absent<T>(outcome: Result<T, NetlinkError>) -> Result<Option<T>, NetlinkError> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an element is about the network on `bridge` with the addresses `within`.
pub(crate) fn concerns(
    set: &Set,
    entry: &Entry,
    bridge: &str,
    within: &impl Fn(IpAddr) -> bool,
) -> bool {
    let about = |kinds, bytes| {
        parts(kinds, bytes).any(|(kind, bytes)| match kind {
            Kind::Interface => netlink::text(bytes) == Some(bridge),
            Kind::V4 => netlink::ipv4(bytes).is_some_and(|a| within(a.into())),
            Kind::V6 => <[u8; 16]>::try_from(bytes).is_ok_and(|a| within(Ipv6Addr::from(a).into())),
            Kind::Port => false,
        })
    };
    about(set.key, &entry.key) || about(set.data, &entry.data)
}

/// Each part of a key or of data with its bytes.
fn parts<'a>(kinds: &'a [Kind], mut bytes: &'a [u8]) -> impl Iterator<Item = (Kind, &'a [u8])> {
    kinds.iter().map_while(move |kind| {
        let length = kind.length();
        let (own, rest) = bytes.split_at_checked(length)?;
        bytes = rest
            .get(length.next_multiple_of(4) - length..)
            .unwrap_or_default();
        Some((*kind, own))
    })
}

/// An element in words.
pub(crate) fn describe(set: &Set, entry: &Entry) -> String {
    let mut words = join(set.key, &entry.key);
    if !entry.last.is_empty() {
        words = format!("{words} to {}", join(set.key, &entry.last));
    }
    if entry.ends_interval {
        words = format!("end of a range at {words}");
    }
    if !set.data.is_empty() {
        words = format!("{words} → {}", join(set.data, &entry.data));
    }
    words
}

fn join(kinds: &[Kind], bytes: &[u8]) -> String {
    let mut words = String::new();
    for (kind, own) in parts(kinds, bytes) {
        if !words.is_empty() {
            words.push(if kind == Kind::Port { ':' } else { ' ' });
        }
        words.push_str(&word(kind, own));
    }
    words
}

fn word(kind: Kind, bytes: &[u8]) -> String {
    let shown = match kind {
        Kind::V4 => netlink::ipv4(bytes).map(|a: Ipv4Addr| a.to_string()),
        Kind::V6 => bytes
            .try_into()
            .ok()
            .map(|octets: [u8; 16]| Ipv6Addr::from(octets).to_string()),
        Kind::Port => bytes
            .try_into()
            .ok()
            .map(|octets| u16::from_be_bytes(octets).to_string()),
        Kind::Interface => netlink::text(bytes).map(str::to_owned),
    };
    shown.unwrap_or_else(|| format!("{bytes:02x?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elements::Part;

    #[test]
    fn elements_are_told_in_words() {
        let set = Set::map("m", &[Kind::Interface, Kind::V4], &[Kind::V4, Kind::Port]);
        let address = Ipv4Addr::new(10, 0, 0, 1);
        let entry = Entry::to(
            &[Part::Interface("hull0"), Part::V4(address)],
            &[Part::V4(address), Part::Port(10053)],
        );
        assert_eq!(describe(&set, &entry), "hull0 10.0.0.1 → 10.0.0.1:10053");
        let set = Set::of("s", &[Kind::Port]);
        assert_eq!(describe(&set, &Entry::of(&[Part::Port(80)])), "80");
    }
}
