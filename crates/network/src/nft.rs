//! nf_tables spoken over nfnetlink: a writer of transactions, with the few expressions Hull uses.
//!
//! A [`Transaction`] is applied by the kernel as a whole or not at all (nft(8), and
//! linux/netfilter/nf_tables.h for the numbers). It can only name the one table it was made for,
//! so that it cannot touch anybody else's rules.

use std::net::Ipv4Addr;

use crate::netlink::{
    self, Attributes, Batch, Family, Message, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL,
    NetlinkError, Socket,
};
use crate::types::Subnet;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;

const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_DELSETELEM: u16 = 14;

const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFT_SET_MAP: u32 = 0x8;

/// Register of the verdict.
const REG_VERDICT: u32 = 0;
/// First of the registers of four bytes; a concatenation takes this and the next.
const REG_A: u32 = 8;
const REG_B: u32 = 9;

/// nft's numbers of data types; they only make listings readable.
const TYPE_IPV4_ADDR: u32 = 7;
const TYPE_INET_SERVICE: u32 = 13;
const TYPE_BITS: u32 = 6;

/// An attribute holds at most 64 KiB; an element takes at most 48 bytes.
const ELEMENTS_PER_MESSAGE: usize = 1000;

/// Where a base chain hooks in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hook {
    Prerouting = 0,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// What packets are looked up by in a map of published ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MapKey {
    /// Destination port.
    Port,
    /// Destination address and port.
    AddressPort,
}

/// An element of such a map: where a published port leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Element {
    /// Host address; only written to a map keyed by it.
    pub(crate) host_ip: Ipv4Addr,
    pub(crate) host_port: u16,
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
}

/// One step of a rule.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'a> {
    /// The packet came in by this interface.
    InputIs(&'a str),
    /// The packet goes out by this interface.
    OutputIs(&'a str),
    /// The packet goes out by another interface.
    OutputIsNot(&'a str),
    /// The source lies in the subnet.
    SourceIn(Subnet),
    /// The destination lies in the subnet.
    DestinationIn(Subnet),
    /// The destination is an address of this host.
    DestinationIsLocal,
    /// The transport protocol.
    Protocol(u8),
    /// The flow is established or related to one.
    Established,
    /// The flow's destination was rewritten.
    DestinationWasRewritten,
    /// Looks the destination up in a map and rewrites it to what was found.
    RewriteDestination(MapKey, &'a str),
    /// Takes the address of the outgoing interface as source.
    Masquerade,
    /// Lets the packet pass this chain.
    Accept,
    /// Drops the packet.
    Drop,
    /// Leaves the chain.
    Return,
}

/// Changes of one table, applied at once.
#[derive(Debug)]
pub(crate) struct Transaction<'a> {
    batch: Batch,
    table: &'a str,
}

fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn kind(message: u16) -> u16 {
    NFNL_SUBSYS_NFTABLES << 8 | message
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(table: &'a str) -> Self {
        let mut batch = Batch::new();
        batch.request(
            NFNL_MSG_BATCH_BEGIN,
            0,
            &header(NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES),
        );
        Self { batch, table }
    }

    fn message(&mut self, message: u16, flags: u16) -> &mut Batch {
        self.batch
            .request(kind(message), flags, &header(NFPROTO_IPV4, 0))
    }

    /// Makes the table, or finds it.
    pub(crate) fn ensure_table(&mut self) {
        let table = self.table;
        self.message(NFT_MSG_NEWTABLE, NLM_F_CREATE).text(1, table);
    }

    /// Deletes the table with all it holds.
    pub(crate) fn delete_table(&mut self) {
        let table = self.table;
        self.message(NFT_MSG_DELTABLE, 0).text(1, table);
    }

    /// Makes a base chain whose policy is to accept.
    pub(crate) fn chain(&mut self, name: &str, kind: &str, hook: Hook, priority: i32) {
        let table = self.table;
        self.message(NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL)
            .text(1, table)
            .text(3, name)
            .nest(4, |b| {
                b.be32(1, hook as u32).be32(2, priority.cast_unsigned());
            })
            .be32(5, 1)
            .text(7, kind);
    }

    /// Makes a map from destinations on the host to destinations in containers; `id` tells the
    /// maps of one transaction apart.
    pub(crate) fn map(&mut self, name: &str, key: MapKey, id: u32) {
        let table = self.table;
        let target = TYPE_IPV4_ADDR << TYPE_BITS | TYPE_INET_SERVICE;
        let (key_type, key_len) = match key {
            MapKey::Port => (TYPE_INET_SERVICE, 2),
            MapKey::AddressPort => (target, 8),
        };
        self.message(NFT_MSG_NEWSET, NLM_F_CREATE | NLM_F_EXCL)
            .text(1, table)
            .text(2, name)
            .be32(3, NFT_SET_MAP)
            .be32(4, key_type)
            .be32(5, key_len)
            .be32(6, target)
            .be32(7, 8)
            .be32(10, id);
    }

    /// Adds elements; one that is there already fails the transaction.
    pub(crate) fn add_elements(&mut self, map: &str, key: MapKey, elements: &[Element]) {
        for part in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let table = self.table;
            self.message(NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL)
                .text(1, table)
                .text(2, map)
                .nest(3, |list| {
                    for element in part {
                        list.nest(1, |b| {
                            b.nest(1, |b| {
                                b.attr(1, &key_bytes(key, element));
                            })
                            .nest(2, |b| {
                                b.attr(1, &pair(element.address, element.port));
                            });
                        });
                    }
                });
        }
    }

    /// Deletes elements; one that is not there fails the transaction.
    pub(crate) fn delete_elements(&mut self, map: &str, key: MapKey, elements: &[Element]) {
        for part in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let table = self.table;
            self.message(NFT_MSG_DELSETELEM, 0)
                .text(1, table)
                .text(2, map)
                .nest(3, |list| {
                    for element in part {
                        list.nest(1, |b| {
                            b.nest(1, |b| {
                                b.attr(1, &key_bytes(key, element));
                            });
                        });
                    }
                });
        }
    }

    /// Appends a rule to a chain.
    pub(crate) fn rule(&mut self, chain: &str, steps: &[Step<'_>]) {
        let table = self.table;
        self.message(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND)
            .text(1, table)
            .text(2, chain)
            .nest(4, |list| {
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

/// Tables other than `own` with a chain that drops forwarded IPv4 packets unless a rule of its own
/// accepts them. Accepting them in our table does not help then.
pub(crate) fn tables_dropping_forwarded(
    socket: &mut Socket,
    own: &str,
) -> Result<Vec<String>, NetlinkError> {
    let mut batch = Batch::new();
    batch.request(
        kind(NFT_MSG_GETCHAIN),
        NLM_F_DUMP,
        &header(NFPROTO_UNSPEC, 0),
    );
    let mut tables = Vec::new();
    socket.query(&mut batch, true, |message| {
        tables.extend(read_dropping_chain(message).filter(|(_, table)| table != own));
    })?;
    tables.sort();
    tables.dedup();
    Ok(tables.into_iter().map(|(_, table)| table).collect())
}

/// The family and table of a chain, if it hooks into forwarding with the policy to drop.
fn read_dropping_chain(message: Message<'_>) -> Option<(u8, String)> {
    const NF_INET_FORWARD: u32 = 2;
    const POLICY_DROP: u32 = 0;
    let family = *message.body.first()?;
    let chain = Attributes::after(message.body, 4);
    let number = |bytes: &[u8]| Some(u32::from_be_bytes(bytes.try_into().ok()?));
    let hook = Attributes::new(chain.find(4)?).find(1).and_then(number)?;
    let policy = chain.find(5).and_then(number)?;
    let relevant = matches!(family, NFPROTO_IPV4 | NFPROTO_INET);
    if !relevant || hook != NF_INET_FORWARD || policy != POLICY_DROP {
        return None;
    }
    Some((family, netlink::text(chain.find(1)?)?.to_owned()))
}

/// A netfilter socket of the calling thread's namespace.
pub(crate) fn open() -> Result<Socket, NetlinkError> {
    Socket::open(Family::Netfilter)
}

/// Address and port as the registers hold them: four bytes each.
fn pair(address: Ipv4Addr, port: u16) -> [u8; 8] {
    let [a, b, c, d] = address.octets();
    let [high, low] = port.to_be_bytes();
    [a, b, c, d, high, low, 0, 0]
}

fn key_bytes(key: MapKey, element: &Element) -> Vec<u8> {
    match key {
        MapKey::Port => element.host_port.to_be_bytes().to_vec(),
        MapKey::AddressPort => pair(element.host_ip, element.host_port).to_vec(),
    }
}

fn expression(list: &mut Batch, name: &str, fill: impl FnOnce(&mut Batch)) {
    list.nest(1, |b| {
        b.text(1, name).nest(2, fill);
    });
}

fn meta(list: &mut Batch, key: u32) {
    expression(list, "meta", |b| {
        b.be32(1, REG_A).be32(2, key);
    });
}

fn compare(list: &mut Batch, equal: bool, value: &[u8]) {
    expression(list, "cmp", |b| {
        b.be32(1, REG_A).be32(2, u32::from(!equal)).nest(3, |b| {
            b.attr(1, value);
        });
    });
}

/// Masks the register and compares what is left.
fn mask_and_compare(list: &mut Batch, mask: [u8; 4], equal: bool, value: [u8; 4]) {
    expression(list, "bitwise", |b| {
        b.be32(1, REG_A)
            .be32(2, REG_A)
            .be32(3, 4)
            .nest(4, |b| {
                b.attr(1, &mask);
            })
            .nest(5, |b| {
                b.attr(1, &[0; 4]);
            });
    });
    compare(list, equal, &value);
}

/// Loads bytes of the IPv4 (`base` 1) or transport header (`base` 2).
fn payload(list: &mut Batch, register: u32, base: u32, offset: u32, length: u32) {
    expression(list, "payload", |b| {
        b.be32(1, register)
            .be32(2, base)
            .be32(3, offset)
            .be32(4, length);
    });
}

/// The name as the kernel compares it: zero-padded to its full size, which is 16 bytes.
fn interface(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (slot, byte) in bytes.iter_mut().take(15).zip(name.bytes()) {
        *slot = byte;
    }
    bytes
}

fn conntrack(list: &mut Batch, key: u32) {
    expression(list, "ct", |b| {
        b.be32(1, REG_A).be32(2, key);
    });
}

fn verdict(list: &mut Batch, code: i32) {
    expression(list, "immediate", |b| {
        b.be32(1, REG_VERDICT).nest(2, |b| {
            b.nest(2, |b| {
                b.be32(1, code.cast_unsigned());
            });
        });
    });
}

fn write_step(list: &mut Batch, step: Step<'_>) {
    const META_IIFNAME: u32 = 6;
    const META_OIFNAME: u32 = 7;
    const META_L4PROTO: u32 = 16;
    const NETWORK: u32 = 1;
    const TRANSPORT: u32 = 2;
    const SADDR: u32 = 12;
    const DADDR: u32 = 16;
    const DPORT: u32 = 2;
    const CT_STATE: u32 = 0;
    const CT_STATUS: u32 = 2;
    const STATE_ESTABLISHED_OR_RELATED: u32 = 2 | 4;
    const IPS_DST_NAT: u32 = 1 << 5;
    const FIB_ADDRTYPE: u32 = 3;
    const FIB_DADDR: u32 = 2;
    const RTN_LOCAL: u32 = 2;
    const NAT_DNAT: u32 = 1;
    const NF_DROP: i32 = 0;
    const NF_ACCEPT: i32 = 1;
    const NFT_RETURN: i32 = -5;

    match step {
        Step::InputIs(name) => {
            meta(list, META_IIFNAME);
            compare(list, true, &interface(name));
        }
        Step::OutputIs(name) => {
            meta(list, META_OIFNAME);
            compare(list, true, &interface(name));
        }
        Step::OutputIsNot(name) => {
            meta(list, META_OIFNAME);
            compare(list, false, &interface(name));
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
                b.be32(1, REG_A).be32(2, FIB_ADDRTYPE).be32(3, FIB_DADDR);
            });
            compare(list, true, &RTN_LOCAL.to_ne_bytes());
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
        Step::DestinationWasRewritten => {
            conntrack(list, CT_STATUS);
            mask_and_compare(list, IPS_DST_NAT.to_ne_bytes(), false, [0; 4]);
        }
        Step::RewriteDestination(key, map) => {
            match key {
                MapKey::Port => payload(list, REG_A, TRANSPORT, DPORT, 2),
                MapKey::AddressPort => {
                    payload(list, REG_A, NETWORK, DADDR, 4);
                    payload(list, REG_B, TRANSPORT, DPORT, 2);
                }
            }
            expression(list, "lookup", |b| {
                b.text(1, map).be32(2, REG_A).be32(3, REG_A);
            });
            expression(list, "nat", |b| {
                b.be32(1, NAT_DNAT)
                    .be32(2, u32::from(NFPROTO_IPV4))
                    .be32(3, REG_A)
                    .be32(5, REG_B);
            });
        }
        Step::Masquerade => expression(list, "masq", |_| {}),
        Step::Accept => verdict(list, NF_ACCEPT),
        Step::Drop => verdict(list, NF_DROP),
        Step::Return => verdict(list, NFT_RETURN),
    }
}

fn compare_subnet(list: &mut Batch, subnet: Subnet) {
    let mask = subnet.netmask().octets();
    mask_and_compare(list, mask, true, subnet.first().octets());
}
