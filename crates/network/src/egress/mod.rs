//! Where containers may connect to, enforced on the host: what a container does to its own
//! interfaces, addresses and rules changes nothing.
//!
//! Two tables of one name, of the families bridge and inet, exist while a container has a policy:
//!
//! ```text
//! bridge  guard   by the interface a frame came from ──▶ chain of that interface
//! inet    egress  by the source address               ──▶ chain of that container
//! ```
//!
//! Other containers' packets pass one look-up in each. Addresses that the name server has told a
//! container of are elements with a time, in a set for each rule that allows a name.

mod gate;
mod rules;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hull_model::egress::EgressPolicy;

use crate::conntrack;
use crate::netlink::{self, Attributes, Batch, Family, NetlinkError, Socket};
use crate::nft;
use crate::types::MacAddress;

pub(crate) use gate::Gate;
pub use gate::Gates;
use gate::Kernel;
use wire::{BRIDGE, Changes, Field, INET, IPV4, IPV6, Key, Op, Step, interface, octets};

const GUARDS: &str = "guards";
const SOURCES: [(u8, &str, Key); 2] =
    [(IPV4, "sources4", Key::Ipv4), (IPV6, "sources6", Key::Ipv6)];
/// The chain of interfaces whose container may not use them yet.
const CLOSED: &str = "closed";
/// Before everything that looks at bridged frames, the host's own rules for them included.
const FIRST: i32 = -300;
/// After flows are found (-200), before destinations are rewritten (-100): what is judged is what
/// the container asked for.
const MANGLE: i32 = -150;

/// An address of a container on a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The address.
    pub address: IpAddr,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// The host's address there.
    pub gateway: IpAddr,
    /// Our name server answers at that address.
    pub named: bool,
}

/// An end of a container's on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// The host's end of the veth pair.
    pub veth: String,
    /// The container's MAC address.
    pub mac: MacAddress,
    /// The bridge's; see [`bridge_address`].
    pub bridge_mac: MacAddress,
    /// What the name server knows it by: its IPv4 address, or a number in place of one.
    pub known_by: Ipv4Addr,
    /// Its addresses; other families do not pass.
    pub reach: Vec<Reach>,
}

/// A container with a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarded {
    /// Its id.
    pub id: String,
    /// Its policy.
    pub policy: EgressPolicy,
    /// Where it is connected.
    pub sides: Vec<Side>,
}

impl Guarded {
    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let reach = self.sides.iter().flat_map(|side| &side.reach);
        reach.map(|reach| reach.address)
    }

    /// The addresses from which it asks, with what it is known by.
    fn askers(&self) -> impl Iterator<Item = (IpAddr, Ipv4Addr)> {
        self.sides.iter().flat_map(|side| {
            let own = side.reach.iter().map(|reach| reach.address);
            let all = own.chain([IpAddr::V4(side.known_by)]);
            all.map(|address| (address, side.known_by))
        })
    }

    fn guard_chain(&self, index: usize) -> String {
        format!("g{index}-{}", self.id)
    }

    fn policy_chain(&self) -> String {
        format!("c-{}", self.id)
    }
}

#[derive(Debug)]
struct Held {
    what: Guarded,
    gate: Arc<Gate>,
    /// A link that the container is about to get.
    closed: Option<String>,
}

/// The policies of a daemon's containers.
#[derive(Debug)]
pub struct Egress {
    kernel: Arc<Kernel>,
    gates: Gates,
    held: Mutex<HashMap<String, Held>>,
    /// The tables have rules of an earlier daemon for containers that are not held.
    inherited: AtomicBool,
}

impl Egress {
    /// Takes over what is there: afterwards the tables say what `live` says, all at once, and what
    /// its containers have learnt is kept.
    ///
    /// # Errors
    /// There is no netfilter socket to be had.
    pub fn open(table: &str, gates: Gates) -> Result<Self, NetlinkError> {
        Ok(Self {
            kernel: Arc::new(Kernel {
                table: table.to_owned(),
                socket: Mutex::new(nft::open()?),
            }),
            gates,
            held: Mutex::default(),
            inherited: AtomicBool::new(false),
        })
    }

    /// Leaves what an earlier daemon wrote as it is, for want of knowing what to write: the tables
    /// outlive the containers that are held.
    pub fn leave(&self) {
        self.inherited.store(true, Ordering::Relaxed);
    }

    /// Takes over what an earlier daemon left: afterwards the tables say what `live` says, with
    /// what its containers have learnt meanwhile.
    ///
    /// # Errors
    /// The kernel refuses: then the tables are as they were.
    pub fn take_over(&self, live: Vec<Guarded>) -> Result<(), NetlinkError> {
        let mut held = self.held();
        for what in live {
            let gate = self.gate(&what);
            gate.take_over()?;
            self.gates.set(what.askers(), &gate);
            let closed = None;
            held.insert(what.id.clone(), Held { what, gate, closed });
        }
        self.rewrite(&held)
    }

    /// Sets a container's policy, in place of what it had. When it returns the kernel obeys it, for
    /// connections that are open as well; those that others have begun to a container that `runs`
    /// go on.
    ///
    /// # Errors
    /// The kernel refuses; then what it had holds on.
    pub fn set(&self, what: Guarded, runs: bool) -> Result<(), NetlinkError> {
        let mut held = self.held();
        let gate = self.gate(&what);
        let old = held.get(&what.id);
        if let Some(old) = old {
            gate.inherit(&old.gate);
        }
        let mut changes = Changes::new(&self.kernel.table);
        if held.is_empty() {
            begin(&mut changes);
        }
        if let Some(old) = old {
            take_out(&mut changes, old);
        }
        put_in(&mut changes, &what, &gate);
        let outcome = changes.commit(&mut self.kernel.socket());
        // Flows that its address has had before are not excepted.
        let addresses: Vec<IpAddr> = what.addresses().collect();
        let id = what.id.clone();
        let closed = None;
        let new = Held { what, gate, closed };
        match outcome {
            Ok(()) => {
                self.gates.set(new.what.askers(), &new.gate);
                held.insert(id, new);
            }
            // Somebody has flushed all tables.
            Err(error) if error.errno() == Some(libc::ENOENT) => {
                let old = held.insert(id.clone(), new);
                if let Err(error) = self.rewrite(&held) {
                    match old {
                        Some(old) => held.insert(id, old),
                        None => held.remove(&id),
                    };
                    return Err(error);
                }
                if let Some(new) = held.get(&id) {
                    self.gates.set(new.what.askers(), &new.gate);
                }
            }
            Err(error) => return Err(error),
        }
        conntrack::forget_all_of(&addresses, !runs).map(drop)
    }

    /// Lets nothing pass by a link that a container with a policy is about to get, until
    /// [`Egress::set`] says what may. The link need not exist; one that was closed before for the
    /// same container is forgotten.
    ///
    /// # Errors
    /// The container has no policy, the link is another's, or the kernel refuses.
    pub fn close(&self, id: &str, veth: &str) -> Result<(), NetlinkError> {
        let mut held = self.held();
        let one = held.get_mut(id).ok_or(NetlinkError::Refused {
            index: 0,
            errno: libc::ENOENT,
            message: format!("container {id} has no egress policy"),
        })?;
        let mut changes = Changes::new(&self.kernel.table);
        if let Some(former) = &one.closed {
            changes.delete_keys(BRIDGE, GUARDS, &[interface(former)]);
        }
        changes.lead(BRIDGE, GUARDS, &interface(veth), CLOSED);
        one.closed = Some(veth.to_owned());
        let outcome = changes.commit(&mut self.kernel.socket());
        match outcome {
            Err(error) if error.errno() == Some(libc::ENOENT) => self.rewrite(&held),
            outcome => outcome,
        }
    }

    /// Forgets a container; that it has no policy is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove(&self, id: &str) -> Result<(), NetlinkError> {
        let mut held = self.held();
        let Some(old) = held.remove(id) else {
            return Ok(());
        };
        self.gates.remove(id);
        let mut changes = Changes::new(&self.kernel.table);
        if held.is_empty() && !self.inherited.load(Ordering::Relaxed) {
            for family in [BRIDGE, INET] {
                changes.delete_table(family);
            }
        } else {
            take_out(&mut changes, &old);
        }
        let outcome = changes.commit(&mut self.kernel.socket());
        match outcome {
            Err(error) if error.errno() == Some(libc::ENOENT) => self.rewrite(&held),
            outcome => outcome,
        }
    }

    /// Writes the tables anew, as after somebody has flushed them.
    ///
    /// # Errors
    /// The kernel refuses: then the tables are as they were.
    pub fn repair(&self) -> Result<(), NetlinkError> {
        self.rewrite(&self.held())
    }

    /// The tables' name.
    pub(crate) fn table(&self) -> &str {
        &self.kernel.table
    }

    /// The number by which the kernel knows who brought a change about.
    pub(crate) fn port_id(&self) -> Result<u32, NetlinkError> {
        self.kernel.socket().port_id()
    }

    /// Whether a table is gone that containers' policies need.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn is_missing(&self) -> Result<bool, NetlinkError> {
        let held = self.held();
        if held.is_empty() {
            return Ok(false);
        }
        for family in [BRIDGE, INET] {
            let tables = nft::tables(&mut self.kernel.socket(), family)?;
            if !tables.contains(&self.kernel.table) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How many containers have a policy.
    pub fn guarded(&self) -> usize {
        self.held().len()
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate(&self, what: &Guarded) -> Arc<Gate> {
        let reach = what.sides.iter().flat_map(|side| &side.reach);
        let gateways = reach.map(|reach| reach.gateway).collect();
        let kernel = Arc::clone(&self.kernel);
        Arc::new(Gate::new(&what.id, &what.policy, gateways, kernel))
    }

    fn rewrite(&self, held: &HashMap<String, Held>) -> Result<(), NetlinkError> {
        let mut changes = Changes::new(&self.kernel.table);
        for family in [BRIDGE, INET] {
            // Made first, so that it is there to be deleted.
            changes.ensure_table(family);
            changes.delete_table(family);
        }
        if !held.is_empty() {
            begin(&mut changes);
            for one in held.values() {
                put_in(&mut changes, &one.what, &one.gate);
                if let Some(veth) = &one.closed {
                    changes.lead(BRIDGE, GUARDS, &interface(veth), CLOSED);
                }
            }
        }
        changes.commit(&mut self.kernel.socket())
    }
}

/// What is there for all.
fn begin(changes: &mut Changes<'_>) {
    changes.ensure_table(BRIDGE);
    changes.map(BRIDGE, GUARDS, Key::Interface);
    changes.chain(BRIDGE, CLOSED);
    changes.rule(BRIDGE, CLOSED, &[Step::Drop]);
    changes.base(BRIDGE, "guard", FIRST);
    let by_input = [Step::Load(Field::Input), Step::Follow(GUARDS.to_owned())];
    changes.rule(BRIDGE, "guard", &by_input);
    changes.ensure_table(INET);
    changes.base(INET, "egress", MANGLE);
    for (family, map, key) in SOURCES {
        changes.map(INET, map, key);
        let source = match key {
            Key::Ipv6 => Field::Network(8, 16),
            Key::Ipv4 | Key::Interface => Field::Network(12, 4),
        };
        let steps = [
            Step::Load(Field::Family),
            Step::Compare(Op::Equal, vec![family]),
            Step::Load(source),
            Step::Follow(map.to_owned()),
        ];
        changes.rule(INET, "egress", &steps);
    }
}

fn sources(address: IpAddr) -> &'static str {
    let [(_, four, _), (_, six, _)] = SOURCES;
    if address.is_ipv4() { four } else { six }
}

fn put_in(changes: &mut Changes<'_>, what: &Guarded, gate: &Gate) {
    for (index, rule) in what.policy.allow.iter().enumerate() {
        if rule.name().is_some() {
            let sets = rules::set_names(&what.id, index);
            for (set, key) in sets.iter().zip([Key::Ipv4, Key::Ipv6]) {
                changes.set(INET, set, key);
            }
        }
    }
    for (set, addresses) in gate.learnt() {
        changes.add(&set, &addresses);
    }
    let chain = what.policy_chain();
    changes.chain(INET, &chain);
    for rule in rules::policy(&what.id, &what.policy, &what.sides) {
        changes.rule(INET, &chain, &rule);
    }
    for address in what.addresses() {
        changes.lead(INET, sources(address), &octets(address), &chain);
    }
    for (index, side) in what.sides.iter().enumerate() {
        let chain = what.guard_chain(index);
        changes.chain(BRIDGE, &chain);
        for rule in rules::guard(&what.policy, side) {
            changes.rule(BRIDGE, &chain, &rule);
        }
        changes.lead(BRIDGE, GUARDS, &interface(&side.veth), &chain);
    }
}

fn take_out(changes: &mut Changes<'_>, held: &Held) {
    let what = &held.what;
    if let Some(veth) = &held.closed {
        changes.delete_keys(BRIDGE, GUARDS, &[interface(veth)]);
    }
    for (index, side) in what.sides.iter().enumerate() {
        changes.delete_keys(BRIDGE, GUARDS, &[interface(&side.veth)]);
        changes.delete_chain(BRIDGE, &what.guard_chain(index));
    }
    for address in what.addresses() {
        changes.delete_keys(INET, sources(address), &[octets(address)]);
    }
    changes.delete_chain(INET, &what.policy_chain());
    for (index, rule) in what.policy.allow.iter().enumerate() {
        if rule.name().is_some() {
            for set in rules::set_names(&what.id, index) {
                changes.delete_set(INET, &set);
            }
        }
    }
}

/// The MAC address of a bridge; `None` if there is no interface of that name.
///
/// # Errors
/// The kernel does not tell.
pub fn bridge_address(bridge: &str) -> Result<Option<MacAddress>, NetlinkError> {
    const GET_LINK: u16 = 18;
    const HEADER: usize = 16;
    const ADDRESS: u16 = 1;
    const NAME: u16 = 3;
    let mut batch = Batch::new();
    batch.request(GET_LINK, 0, &[0; HEADER]).text(NAME, bridge);
    let mut found = None;
    let mut socket = Socket::open(Family::Route)?;
    let outcome = socket.query(&mut batch, false, |message: netlink::Message<'_>| {
        let bytes = Attributes::after(message.body, HEADER).find(ADDRESS);
        found = bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(MacAddress);
    });
    match outcome {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
        outcome => outcome.map(|()| found),
    }
}
