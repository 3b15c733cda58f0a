//! nf_tables spoken over nfnetlink: a writer of transactions, with the few expressions Hull uses.
//!
//! A [`Transaction`] is applied by the kernel as a whole or not at all (nft(8), and
//! linux/netfilter/nf_tables.h for the numbers). It names the one table it was made for, so that it
//! cannot touch anybody else's rules.

use crate::elements::{Entry, Set};
use crate::netlink::{
    self, Attributes, Batch, Family, Message, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL,
    NetlinkError, Socket,
};
use crate::rule::{Step, write_step};

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;

const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_DELSETELEM: u16 = 14;

const NFPROTO_UNSPEC: u8 = 0;
pub(crate) const NFPROTO_INET: u8 = 1;
pub(crate) const NFPROTO_IPV4: u8 = 2;
pub(crate) const NFPROTO_IPV6: u8 = 10;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_DATA_LEN: u16 = 7;
const NFTA_SET_DESC: u16 = 9;
const NFTA_SET_ID: u16 = 10;
const NFTA_SET_DESC_CONCAT: u16 = 2;
const NFTA_SET_FIELD_LEN: u16 = 1;
const NFTA_SET_USERDATA: u16 = 13;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_SET_ELEM_KEY_END: u16 = 10;
pub(crate) const NFTA_LIST_ELEM: u16 = 1;
pub(crate) const NFTA_DATA_VALUE: u16 = 1;

const NF_ACCEPT: u32 = 1;
const NFT_SET_INTERVAL: u32 = 0x4;
const NFT_SET_MAP: u32 = 0x8;
const NFT_SET_CONCAT: u32 = 0x80;
const NFT_SET_ELEM_INTERVAL_END: u32 = 0x1;

/// An attribute holds at most 64 KiB; an element takes at most 120 bytes.
const ELEMENTS_PER_MESSAGE: usize = 500;

/// Where a base chain hooks in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// Changes of one table, applied at once.
#[derive(Debug)]
pub(crate) struct Transaction<'a> {
    batch: Batch,
    family: u8,
    table: &'a str,
}

pub(crate) fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

pub(crate) fn kind(message: u16) -> u16 {
    NFNL_SUBSYS_NFTABLES << 8 | message
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(family: u8, table: &'a str) -> Self {
        let mut batch = Batch::new();
        batch.request(
            NFNL_MSG_BATCH_BEGIN,
            0,
            &header(NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES),
        );
        Self {
            batch,
            family,
            table,
        }
    }

    fn message(&mut self, message: u16, flags: u16) -> &mut Batch {
        self.batch
            .request(kind(message), flags, &header(self.family, 0))
    }

    /// Makes the table, or finds it.
    pub(crate) fn ensure_table(&mut self) {
        let table = self.table;
        self.message(NFT_MSG_NEWTABLE, NLM_F_CREATE)
            .text(NFTA_TABLE_NAME, table);
    }

    /// Deletes the table with all it holds.
    pub(crate) fn delete_table(&mut self) {
        let table = self.table;
        self.message(NFT_MSG_DELTABLE, 0)
            .text(NFTA_TABLE_NAME, table);
    }

    /// Whether the table is for both versions of IP.
    pub(crate) fn is_for_both(&self) -> bool {
        self.family == NFPROTO_INET
    }

    /// Deletes a table of another family, which an older version made.
    pub(crate) fn delete_table_of(&mut self, family: u8, table: &str) {
        self.batch
            .request(kind(NFT_MSG_DELTABLE), 0, &header(family, 0))
            .text(NFTA_TABLE_NAME, table);
    }

    /// What follows concerns this table.
    pub(crate) fn turn_to(&mut self, family: u8, table: &'a str) {
        self.family = family;
        self.table = table;
    }

    /// Makes a base chain whose policy is to accept.
    pub(crate) fn chain(&mut self, name: &str, kind: &str, hook: Hook, priority: i32) {
        let table = self.table;
        self.message(NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL)
            .text(NFTA_CHAIN_TABLE, table)
            .text(NFTA_CHAIN_NAME, name)
            .nest(NFTA_CHAIN_HOOK, |b| {
                b.be32(NFTA_HOOK_HOOKNUM, hook as u32)
                    .be32(NFTA_HOOK_PRIORITY, priority.cast_unsigned());
            })
            .be32(NFTA_CHAIN_POLICY, NF_ACCEPT)
            .text(NFTA_CHAIN_TYPE, kind);
    }

    /// Makes a chain that others lead to.
    pub(crate) fn plain_chain(&mut self, name: &str) {
        let table = self.table;
        self.message(NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL)
            .text(NFTA_CHAIN_TABLE, table)
            .text(NFTA_CHAIN_NAME, name);
    }

    /// Makes a set or map; `id` tells those of one transaction apart.
    pub(crate) fn set(&mut self, set: &Set, id: u32) {
        let table = self.table;
        let mut flags = 0;
        if set.interval {
            flags |= NFT_SET_INTERVAL;
            if set.key.len() > 1 {
                flags |= NFT_SET_CONCAT;
            }
        }
        if !set.data.is_empty() {
            flags |= NFT_SET_MAP;
        }
        let (key_type, key_len) = set.key_layout();
        let (data_type, data_len) = set.data_layout();
        let message = self
            .message(NFT_MSG_NEWSET, NLM_F_CREATE | NLM_F_EXCL)
            .text(NFTA_SET_TABLE, table)
            .text(NFTA_SET_NAME, set.name)
            .be32(NFTA_SET_FLAGS, flags)
            .be32(NFTA_SET_KEY_TYPE, key_type)
            .be32(NFTA_SET_KEY_LEN, key_len)
            .be32(NFTA_SET_ID, id)
            .attr(NFTA_SET_USERDATA, &set.byte_orders());
        if !set.data.is_empty() {
            message
                .be32(NFTA_SET_DATA_TYPE, data_type)
                .be32(NFTA_SET_DATA_LEN, data_len);
        }
        if set.interval && set.key.len() > 1 {
            message.nest(NFTA_SET_DESC, |b| {
                b.nest(NFTA_SET_DESC_CONCAT, |b| {
                    for kind in set.key {
                        b.nest(NFTA_LIST_ELEM, |b| {
                            b.be32(NFTA_SET_FIELD_LEN, kind.bytes());
                        });
                    }
                });
            });
        }
    }

    /// Adds elements to a set; one that is there already fails the transaction.
    pub(crate) fn add_elements(&mut self, set: &str, entries: &[&Entry]) {
        self.elements(NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL, set, entries);
    }

    /// Deletes elements; one that is not there fails the transaction.
    pub(crate) fn delete_elements(&mut self, set: &str, entries: &[&Entry]) {
        self.elements(NFT_MSG_DELSETELEM, 0, set, entries);
    }

    fn elements(&mut self, message: u16, flags: u16, set: &str, entries: &[&Entry]) {
        for part in entries.chunks(ELEMENTS_PER_MESSAGE) {
            let table = self.table;
            self.message(message, flags)
                .text(NFTA_SET_ELEM_LIST_TABLE, table)
                .text(NFTA_SET_ELEM_LIST_SET, set)
                .nest(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
                    for entry in part {
                        list.nest(NFTA_LIST_ELEM, |b| write_element(b, entry));
                    }
                });
        }
    }

    /// Appends a rule to a chain.
    pub(crate) fn rule(&mut self, chain: &str, steps: &[Step<'_>]) {
        let table = self.table;
        self.message(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND)
            .text(NFTA_RULE_TABLE, table)
            .text(NFTA_RULE_CHAIN, chain)
            .nest(NFTA_RULE_EXPRESSIONS, |list| {
                for step in steps {
                    write_step(list, *step);
                }
            });
    }

    /// Hands the transaction to the kernel.
    ///
    /// # Errors
    /// The kernel's first complaint; nothing was changed then.
    pub(crate) fn commit(mut self, socket: &mut Socket) -> Result<(), NetlinkError> {
        // Only the last request asks for an answer: a failing one answers anyway, and the kernel
        // sends all answers when the whole is over.
        let last = self.batch.acknowledge_last();
        self.batch.request(
            NFNL_MSG_BATCH_END,
            0,
            &header(NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES),
        );
        socket.execute_until(&mut self.batch, last)
    }
}

/// The names of all tables of a family.
pub(crate) fn tables(socket: &mut Socket, family: u8) -> Result<Vec<String>, NetlinkError> {
    let mut batch = Batch::new();
    batch.request(kind(NFT_MSG_GETTABLE), NLM_F_DUMP, &header(family, 0));
    let mut tables = Vec::new();
    socket.query(&mut batch, true, |message| {
        let attributes = Attributes::after(message.body, 4);
        let name = attributes.find(NFTA_TABLE_NAME).and_then(netlink::text);
        tables.extend(name.map(str::to_owned));
    })?;
    Ok(tables)
}

/// Tables other than `own` with a chain that drops the IPv4 packets at `hook` unless a rule of its
/// own accepts them. Accepting them in our table does not help then.
pub(crate) fn tables_dropping(
    socket: &mut Socket,
    own: &str,
    hook: Hook,
) -> Result<Vec<String>, NetlinkError> {
    let mut batch = Batch::new();
    batch.request(
        kind(NFT_MSG_GETCHAIN),
        NLM_F_DUMP,
        &header(NFPROTO_UNSPEC, 0),
    );
    let mut tables = Vec::new();
    socket.query(&mut batch, true, |message| {
        tables.extend(read_dropping_chain(message, hook).filter(|(_, table)| table != own));
    })?;
    tables.sort();
    tables.dedup();
    Ok(tables.into_iter().map(|(_, table)| table).collect())
}

/// The family and table of a chain, if it hooks in there with the policy to drop.
fn read_dropping_chain(message: Message<'_>, wanted: Hook) -> Option<(u8, String)> {
    const POLICY_DROP: u32 = 0;
    let family = *message.body.first()?;
    let chain = Attributes::after(message.body, 4);
    let number = |bytes: &[u8]| Some(u32::from_be_bytes(bytes.try_into().ok()?));
    let hook = Attributes::new(chain.find(NFTA_CHAIN_HOOK)?)
        .find(NFTA_HOOK_HOOKNUM)
        .and_then(number)?;
    let policy = chain.find(NFTA_CHAIN_POLICY).and_then(number)?;
    let relevant = matches!(family, NFPROTO_IPV4 | NFPROTO_INET);
    if !relevant || hook != wanted as u32 || policy != POLICY_DROP {
        return None;
    }
    Some((
        family,
        netlink::text(chain.find(NFTA_CHAIN_TABLE)?)?.to_owned(),
    ))
}

/// A netfilter socket of the calling thread's namespace.
pub(crate) fn open() -> Result<Socket, NetlinkError> {
    Socket::open(Family::Netfilter)
}

fn write_element(b: &mut Batch, entry: &Entry) {
    if entry.ends_interval {
        b.be32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
    }
    b.nest(NFTA_SET_ELEM_KEY, |b| {
        b.attr(NFTA_DATA_VALUE, &entry.key);
    });
    if !entry.last.is_empty() {
        b.nest(NFTA_SET_ELEM_KEY_END, |b| {
            b.attr(NFTA_DATA_VALUE, &entry.last);
        });
    }
    if !entry.data.is_empty() {
        b.nest(NFTA_SET_ELEM_DATA, |b| {
            b.attr(NFTA_DATA_VALUE, &entry.data);
        });
    }
}
