//! The two tables as the kernel is told of them: what nfnetlink needs for chains of single
//! containers, maps to verdicts and sets whose elements go with time.
//!
//! The numbers are those of linux/netfilter/nf_tables.h.

use std::net::IpAddr;
use std::time::Duration;

use crate::netlink::{
    Attributes, Batch, Message, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NetlinkError, Socket,
};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DEL_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const DEL_SET: u16 = 11;
const NEW_ELEMENT: u16 = 12;
const GET_ELEMENT: u16 = 13;
const DEL_ELEMENT: u16 = 14;

/// Families of tables.
pub(super) const INET: u8 = 1;
pub(super) const BRIDGE: u8 = 7;
/// Of packets.
pub(super) const IPV4: u8 = 2;
pub(super) const IPV6: u8 = 10;

const SET_MAP: u32 = 8;
const SET_TIMEOUT: u32 = 16;
const VERDICT_TYPE: u32 = 0xffff_ff00;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_TIMEOUT: u16 = 4;
const ELEMENT_EXPIRATION: u16 = 5;
const LIST_ELEMENT: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
/// An attribute holds at most 64 KiB; an element with its time takes at most 64 bytes.
const ELEMENTS_PER_MESSAGE: usize = 500;

/// What the elements of a set or map are found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Ipv4,
    Ipv6,
    Interface,
}

impl Key {
    /// The type's number, which makes listings readable, and its length.
    fn shape(self) -> (u32, u32) {
        match self {
            Self::Ipv4 => (7, 4),
            Self::Ipv6 => (8, 16),
            Self::Interface => (41, 16),
        }
    }
}

/// What is loaded from a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// Interface by which it came.
    Input,
    /// IPv4 or IPv6.
    Family,
    /// Protocol of its transport layer.
    Transport,
    /// Bytes of its Ethernet header: offset, length.
    Link(u32, u32),
    /// Bytes of its IP or ARP header.
    Network(u32, u32),
    /// Bytes of its transport header.
    Ports(u32, u32),
    /// The state of its flow.
    State,
}

/// How a value compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Equal = 0,
    NotEqual = 1,
    AtMost = 3,
    AtLeast = 5,
}

/// One step of a rule; a comparison that fails ends the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Load(Field),
    /// Keeps these bits of what was loaded.
    Mask(Vec<u8>),
    Compare(Op, Vec<u8>),
    /// What was loaded is an element of the set.
    In(String),
    /// Goes where the map says, if it says.
    Follow(String),
    Accept,
    Drop,
    /// Tells the sender that an administrator forbids it.
    Refuse,
}

/// Changes of the tables, applied at once or not at all. It names tables of one name alone.
#[derive(Debug)]
pub(super) struct Changes<'a> {
    batch: Batch,
    table: &'a str,
    sets: u32,
}

fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

impl<'a> Changes<'a> {
    pub(super) fn new(table: &'a str) -> Self {
        let mut batch = Batch::new();
        batch.request(BATCH_BEGIN, 0, &header(0, SUBSYSTEM));
        Self {
            batch,
            table,
            sets: 0,
        }
    }

    /// Begins a request about something in the table of a family.
    fn about(&mut self, family: u8, message: u16, flags: u16) -> &mut Batch {
        let kind = SUBSYSTEM << 8 | message;
        let table = self.table;
        self.batch
            .request(kind, flags, &header(family, 0))
            .text(1, table)
    }

    pub(super) fn ensure_table(&mut self, family: u8) {
        self.about(family, NEW_TABLE, NLM_F_CREATE);
    }

    pub(super) fn delete_table(&mut self, family: u8) {
        self.about(family, DEL_TABLE, 0);
    }

    /// Makes a chain that packets come to before they are routed or bridged.
    pub(super) fn base(&mut self, family: u8, name: &str, priority: i32) {
        const ACCEPT: u32 = 1;
        self.about(family, NEW_CHAIN, NLM_F_CREATE)
            .text(3, name)
            .nest(4, |hook| {
                hook.be32(1, 0).be32(2, priority.cast_unsigned());
            })
            .be32(5, ACCEPT)
            .text(7, "filter");
    }

    pub(super) fn chain(&mut self, family: u8, name: &str) {
        self.about(family, NEW_CHAIN, NLM_F_CREATE).text(3, name);
    }

    /// Deletes a chain with its rules.
    pub(super) fn delete_chain(&mut self, family: u8, name: &str) {
        self.about(family, DEL_CHAIN, 0).text(3, name);
    }

    pub(super) fn rule(&mut self, family: u8, chain: &str, steps: &[Step]) {
        self.about(family, NEW_RULE, NLM_F_CREATE | NLM_F_APPEND)
            .text(2, chain)
            .nest(4, |list| {
                for step in steps {
                    write(list, step);
                }
            });
    }

    fn new_set(&mut self, family: u8, name: &str, flags: u32, key: Key) -> &mut Batch {
        self.sets += 1;
        let id = self.sets;
        let (kind, length) = key.shape();
        self.about(family, NEW_SET, NLM_F_CREATE)
            .text(2, name)
            .be32(3, flags)
            .be32(4, kind)
            .be32(5, length)
            .be32(10, id)
    }

    /// Makes a map from keys to chains.
    pub(super) fn map(&mut self, family: u8, name: &str, key: Key) {
        self.new_set(family, name, SET_MAP, key)
            .be32(6, VERDICT_TYPE);
    }

    /// Makes a set of addresses, each of which goes when its time is over.
    pub(super) fn set(&mut self, family: u8, name: &str, key: Key) {
        self.new_set(family, name, SET_TIMEOUT, key);
    }

    pub(super) fn delete_set(&mut self, family: u8, name: &str) {
        self.about(family, DEL_SET, 0).text(2, name);
    }

    /// Has a map lead from a key to a chain.
    pub(super) fn lead(&mut self, family: u8, map: &str, key: &[u8], chain: &str) {
        const GOTO: i32 = -4;
        self.about(family, NEW_ELEMENT, NLM_F_CREATE)
            .text(2, map)
            .nest(3, |list| {
                list.nest(LIST_ELEMENT, |b| {
                    b.nest(ELEMENT_KEY, |b| {
                        b.attr(DATA_VALUE, key);
                    })
                    .nest(ELEMENT_DATA, |b| {
                        b.nest(DATA_VERDICT, |b| {
                            b.be32(1, GOTO.cast_unsigned()).text(2, chain);
                        });
                    });
                });
            });
    }

    /// Takes keys out of a map or set; one that is not there fails the whole.
    pub(super) fn delete_keys(&mut self, family: u8, set: &str, keys: &[Vec<u8>]) {
        for part in keys.chunks(ELEMENTS_PER_MESSAGE) {
            self.about(family, DEL_ELEMENT, 0)
                .text(2, set)
                .nest(3, |list| {
                    for key in part {
                        list.nest(LIST_ELEMENT, |b| {
                            b.nest(ELEMENT_KEY, |b| {
                                b.attr(DATA_VALUE, key);
                            });
                        });
                    }
                });
        }
    }

    /// Puts addresses into a set for a time.
    pub(super) fn add(&mut self, set: &str, addresses: &[(IpAddr, Duration)]) {
        for part in addresses.chunks(ELEMENTS_PER_MESSAGE) {
            self.about(INET, NEW_ELEMENT, NLM_F_CREATE)
                .text(2, set)
                .nest(3, |list| {
                    for (address, time) in part {
                        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                        list.nest(LIST_ELEMENT, |b| {
                            b.nest(ELEMENT_KEY, |b| {
                                b.attr(DATA_VALUE, &octets(*address));
                            })
                            .attr(ELEMENT_TIMEOUT, &time.max(1).to_be_bytes());
                        });
                    }
                });
        }
    }

    /// Hands the changes to the kernel.
    pub(super) fn commit(mut self, socket: &mut Socket) -> Result<(), NetlinkError> {
        // The last request alone asks for an answer; one that fails answers anyway.
        let last = self.batch.acknowledge_last();
        self.batch.request(BATCH_END, 0, &header(0, SUBSYSTEM));
        socket.execute_until(&mut self.batch, last)
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    }
}

/// An interface's name as the kernel compares it.
pub(super) fn interface(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// What is in a set of addresses, with the time that is left; nothing if there is no such set.
pub(super) fn elements(
    socket: &mut Socket,
    table: &str,
    set: &str,
) -> Result<Vec<(IpAddr, Duration)>, NetlinkError> {
    let mut batch = Batch::new();
    batch
        .request(SUBSYSTEM << 8 | GET_ELEMENT, NLM_F_DUMP, &header(INET, 0))
        .text(1, table)
        .text(2, set);
    let mut found = Vec::new();
    let outcome = socket.query(&mut batch, true, |message| read(message, &mut found));
    match outcome {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
        outcome => outcome.map(|()| found),
    }
}

fn read(message: Message<'_>, found: &mut Vec<(IpAddr, Duration)>) {
    let Some(list) = Attributes::after(message.body, 4).find(3) else {
        return;
    };
    for (_, element) in Attributes::new(list).map_while(Result::ok) {
        let element = Attributes::new(element);
        let key = element
            .find(ELEMENT_KEY)
            .and_then(|key| Attributes::new(key).find(DATA_VALUE));
        let time = element.find(ELEMENT_EXPIRATION);
        let time = time.and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
        let address = key.and_then(|bytes| match bytes.len() {
            4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
            16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
            _ => None,
        });
        if let (Some(address), Some(time)) = (address, time) {
            found.push((address, Duration::from_millis(time)));
        }
    }
}

fn expression(list: &mut Batch, name: &str, fill: impl FnOnce(&mut Batch)) {
    list.nest(LIST_ELEMENT, |b| {
        b.text(1, name).nest(2, fill);
    });
}

/// The register that everything passes through.
const REGISTER: u32 = 1;

fn write(list: &mut Batch, step: &Step) {
    match step {
        Step::Load(field) => load(list, *field),
        Step::Mask(mask) => expression(list, "bitwise", |b| {
            let length = u32::try_from(mask.len()).unwrap_or_default();
            b.be32(1, REGISTER).be32(2, REGISTER).be32(3, length);
            b.nest(4, |b| {
                b.attr(DATA_VALUE, mask);
            })
            .nest(5, |b| {
                b.attr(DATA_VALUE, &vec![0; mask.len()]);
            });
        }),
        Step::Compare(op, value) => expression(list, "cmp", |b| {
            b.be32(1, REGISTER).be32(2, *op as u32).nest(3, |b| {
                b.attr(DATA_VALUE, value);
            });
        }),
        Step::In(set) => expression(list, "lookup", |b| {
            b.text(1, set).be32(2, REGISTER);
        }),
        Step::Follow(map) => expression(list, "lookup", |b| {
            b.text(1, map).be32(2, REGISTER).be32(3, 0);
        }),
        Step::Accept => verdict(list, 1),
        Step::Drop => verdict(list, 0),
        Step::Refuse => expression(list, "reject", |b| {
            const EITHER_FAMILY: u32 = 2;
            const FORBIDDEN: u8 = 3;
            b.be32(1, EITHER_FAMILY).attr(2, &[FORBIDDEN]);
        }),
    }
}

fn load(list: &mut Batch, field: Field) {
    let meta = |key: u32| {
        move |b: &mut Batch| {
            b.be32(1, REGISTER).be32(2, key);
        }
    };
    let payload = |base: u32, offset: u32, length: u32| {
        move |b: &mut Batch| {
            b.be32(1, REGISTER)
                .be32(2, base)
                .be32(3, offset)
                .be32(4, length);
        }
    };
    match field {
        Field::Input => expression(list, "meta", meta(6)),
        Field::Family => expression(list, "meta", meta(15)),
        Field::Transport => expression(list, "meta", meta(16)),
        Field::Link(offset, length) => expression(list, "payload", payload(0, offset, length)),
        Field::Network(offset, length) => expression(list, "payload", payload(1, offset, length)),
        Field::Ports(offset, length) => expression(list, "payload", payload(2, offset, length)),
        Field::State => expression(list, "ct", |b| {
            b.be32(1, REGISTER).be32(2, 0);
        }),
    }
}

fn verdict(list: &mut Batch, code: u32) {
    expression(list, "immediate", |b| {
        b.be32(1, 0).nest(2, |b| {
            b.nest(DATA_VERDICT, |b| {
                b.be32(1, code);
            });
        });
    });
}
