//! The table of nf_tables that all networks of a daemon share: what is to stand in it, and how it
//! gets there.
//!
//! Rules are written once ([`crate::table`]); whatever comes and goes is elements. Each change is
//! one transaction; if the kernel refuses it because somebody has taken the table away, the whole
//! is written anew.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::admission;
use crate::core::Publisher;
use crate::elements::{Change, Entry};
use crate::fault::{Fault, Part};
use crate::netlink::{NetlinkError, Socket};
use crate::nft::{self, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6, Transaction};
use crate::ports::PortTable;
use crate::route::{Route, WayBack};
use crate::table;
use crate::table_read::{self, Rules};

/// What tells the elements of a set apart: the key, and whether it begins a range (or is one by
/// itself). Where one range begins with the end of another, the kernel wants the end first.
type Key = (Vec<u8>, bool);

/// Where the table stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Changes are gathered until [`Firewall::write`]: what an earlier daemon wrote holds so long.
    Gathering,
    /// There is no table of ours.
    Absent,
    /// The table is there, of this family.
    Written(u8),
}

#[derive(Debug)]
struct State {
    stage: Stage,
    /// What is to stand in each set.
    elements: BTreeMap<&'static str, BTreeMap<Key, Entry>>,
    /// The bridges of our networks, which may have had tables of their own.
    bridges: HashSet<String>,
    /// Published ports obey the host's rules for input, by this way.
    way_back: Option<WayBack>,
    /// The rules as the kernel told them when they had just been written.
    rules: Option<Rules>,
    socket: Option<Socket>,
}

/// The firewall table of a daemon. It belongs to the network namespace of the thread that first
/// changes it.
#[derive(Debug)]
pub struct Firewall {
    name: String,
    state: Mutex<State>,
    /// The host's ports that lead to containers.
    publisher: Mutex<Publisher>,
}

impl Firewall {
    /// The table `name`, which is written with the first change.
    pub fn new(name: &str) -> Self {
        Self::at(name, Stage::Absent)
    }

    /// The table `name`, of which nothing is written before [`Firewall::write`]: so that what an
    /// earlier daemon wrote for networks that are opened one after the other holds until all are.
    pub fn gathering(name: &str) -> Self {
        Self::at(name, Stage::Gathering)
    }

    fn at(name: &str, stage: Stage) -> Self {
        Self {
            name: name.to_owned(),
            state: Mutex::new(State {
                stage,
                elements: BTreeMap::new(),
                bridges: HashSet::new(),
                way_back: None,
                rules: None,
                socket: None,
            }),
            publisher: Mutex::new(Publisher {
                ports: PortTable::new(),
                ports6: PortTable::new(),
            }),
        }
    }

    pub(crate) fn publisher(&self) -> MutexGuard<'_, Publisher> {
        self.publisher
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Has published ports obey the host's own rules for input from the next [`Firewall::write`] on,
    /// by interfaces that are named after the daemon's default `bridge`; or has them not.
    ///
    /// # Errors
    /// The kernel refuses the interfaces, or to remove those of a former daemon.
    pub fn obey_input(&self, bridge: &str, obey: bool) -> Result<(), NetlinkError> {
        let way = WayBack::of(bridge);
        if obey {
            way.ensure()?;
            self.lock().way_back = Some(way);
            return Ok(());
        }
        self.lock().way_back = None;
        way.remove()
    }

    /// Writes the table as it is to be, in one transaction, whatever stood there.
    ///
    /// # Errors
    /// The kernel refuses; what stood there still does.
    pub fn write(&self) -> Result<(), NetlinkError> {
        self.rewrite(&mut self.lock())
    }

    /// How the table differs from what it is to be, in words: nothing if it does not.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn examine(&self) -> Result<Vec<Fault>, NetlinkError> {
        let mut state = self.lock();
        let Stage::Written(family) = state.stage else {
            return Ok(Vec::new());
        };
        let fault = |text: String| Fault::new(Part::Rules, text);
        let Some(found) = table_read::rules(state.socket()?, family, &self.name)? else {
            return Ok(vec![fault(format!("table {} is missing", self.name))]);
        };
        if let Some(way) = state.way_back.clone() {
            let mut route = Route::open()?;
            for name in [&way.out, &way.back] {
                if !route.link(name)?.is_some_and(|link| link.up) {
                    return Ok(vec![fault(format!("interface {name} is missing or down"))]);
                }
            }
            let second = admission::second_table(&self.name);
            if table_read::rules(state.socket()?, NFPROTO_IPV4, &second)?.is_none() {
                return Ok(vec![fault(format!("table {second} is missing"))]);
            }
        }
        let wanted = state.rules.as_ref();
        let mut told = wanted.map_or_else(Vec::new, |wanted| found.differences(wanted));
        for set in table::sets() {
            let found = table_read::elements(state.socket()?, family, &self.name, set.name)?;
            let Some(mut found) = found else {
                told.push(format!("set {} is missing", set.name));
                continue;
            };
            let wanted = state.elements.get(set.name).into_iter();
            for entry in wanted.flat_map(BTreeMap::values) {
                if !found.remove(entry) {
                    let entry = table_read::describe(&set, entry);
                    told.push(format!("{entry} is missing in {}", set.name));
                }
            }
            for entry in found {
                let entry = table_read::describe(&set, &entry);
                told.push(format!("{entry} stands in {} and is not ours", set.name));
            }
        }
        Ok(told.into_iter().map(fault).collect())
    }

    /// What stands in the table for a network, in words: the elements that bear its bridge's name,
    /// an address of its subnet, or lead to one.
    pub fn rules_of(&self, bridge: &str, within: impl Fn(std::net::IpAddr) -> bool) -> Vec<String> {
        let state = self.lock();
        let mut told = Vec::new();
        for set in table::sets() {
            let entries = state.elements.get(set.name).into_iter();
            for entry in entries.flat_map(BTreeMap::values) {
                if table_read::concerns(&set, entry, bridge, &within) {
                    let entry = table_read::describe(&set, entry);
                    told.push(format!("{}: {entry}", set.name));
                }
            }
        }
        told
    }

    /// Whether the rules lead over the link `name`.
    pub fn has_link(&self, name: &str) -> bool {
        let state = self.lock();
        let way = state.way_back.as_ref();
        way.is_some_and(|way| way.out == name || way.back == name)
    }

    /// The number by which the kernel knows who brought a change about.
    pub(crate) fn port_id(&self) -> Result<u32, NetlinkError> {
        self.lock().socket()?.port_id()
    }

    /// Names a bridge of ours: an older version gave each a table of its own, which goes when the
    /// table is written.
    pub(crate) fn know_bridge(&self, bridge: &str) {
        self.lock().bridges.insert(bridge.to_owned());
    }

    /// Makes a change, as a whole or not at all.
    pub(crate) fn change(&self, change: Change) -> Result<(), NetlinkError> {
        let mut state = self.lock();
        let done = state.take_in(change);
        if done == Change::default() {
            return Ok(());
        }
        let outcome = match state.stage {
            Stage::Gathering => Ok(()),
            Stage::Written(family) => self
                .send(&mut state, family, &done)
                .or_else(|_| self.rewrite(&mut state)),
            Stage::Absent => self.rewrite(&mut state),
        };
        if outcome.is_err() {
            state.take_in(Change {
                remove: done.add,
                add: done.remove,
            });
        } else if state.elements.values().all(BTreeMap::is_empty) {
            return self.delete(&mut state);
        }
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What is wanted is consistent between statements; what is not in the kernel after a panic
        // is repaired by the next that fails.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, state: &mut State, family: u8, change: &Change) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::new(family, &self.name);
        for (set, entries) in by_set(&change.remove) {
            transaction.delete_elements(set, &entries);
        }
        for (set, entries) in by_set(&change.add) {
            transaction.add_elements(set, &entries);
        }
        transaction.commit(state.socket()?)
    }

    /// As [`Firewall::write`]. Kernels without IPv6 have no tables for both versions of IP.
    fn rewrite(&self, state: &mut State) -> Result<(), NetlinkError> {
        let outcome = self.rewrite_as(state, NFPROTO_INET);
        let (family, outcome) = match outcome {
            Err(error) if lacks_family(&error) => {
                (NFPROTO_IPV4, self.rewrite_as(state, NFPROTO_IPV4))
            }
            outcome => (NFPROTO_INET, outcome),
        };
        if outcome.is_ok() {
            state.stage = Stage::Written(family);
            // What is compared with later: the kernel's own words for the rules.
            let told = table_read::rules(state.socket()?, family, &self.name);
            state.rules = told.ok().flatten();
        }
        outcome
    }

    fn rewrite_as(&self, state: &mut State, family: u8) -> Result<(), NetlinkError> {
        let old = self.old_tables(state)?;
        // Made anew if somebody took it away.
        let way = state.way_back.clone();
        let way = way.map(|way| way.ensure().map(|index| (index, way)));
        let way = way.transpose()?;
        let second = admission::second_table(&self.name);
        let mut transaction = Transaction::new(family, &self.name);
        for (family, table) in &old {
            transaction.delete_table_of(*family, table);
        }
        // Made first, so that it is there to be deleted.
        transaction.ensure_table();
        transaction.delete_table();
        transaction.ensure_table();
        let back = way.as_ref().map(|(_, way)| way.back.as_str());
        table::write(&mut transaction, back);
        for (set, entries) in &state.elements {
            let entries: Vec<&Entry> = entries.values().collect();
            transaction.add_elements(set, &entries);
        }
        if let Some((out, way)) = &way {
            transaction.turn_to(NFPROTO_IPV4, &second);
            transaction.ensure_table();
            admission::write_copies(&mut transaction, NFPROTO_IPV4, *out, &way.back);
        }
        transaction.commit(state.socket()?)?;
        if let (Some((out, way)), NFPROTO_INET) = (&way, family) {
            let mut transaction = Transaction::new(NFPROTO_IPV6, &second);
            transaction.ensure_table();
            admission::write_copies(&mut transaction, NFPROTO_IPV6, *out, &way.back);
            // A kernel that cannot copy packets of IPv6 keeps its ports closed.
            transaction.commit(state.socket()?).ok();
        }
        Ok(())
    }

    /// The tables by which an older version served each network, and the second one.
    fn old_tables(&self, state: &mut State) -> Result<Vec<(u8, String)>, NetlinkError> {
        let second = admission::second_table(&self.name);
        let tables = nft::tables(state.socket()?, NFPROTO_IPV4)?;
        let ours = |table: &String| {
            *table == self.name
                || *table == second
                || table
                    .strip_prefix("hull-")
                    .is_some_and(|bridge| state.bridges.contains(bridge))
        };
        let four = tables.into_iter().filter(ours);
        let mut all: Vec<_> = four.map(|table| (NFPROTO_IPV4, table)).collect();
        // None where there is no IPv6.
        let six = nft::tables(state.socket()?, NFPROTO_IPV6).unwrap_or_default();
        let six = six.into_iter().filter(|table| *table == second);
        all.extend(six.map(|table| (NFPROTO_IPV6, table)));
        Ok(all)
    }

    fn delete(&self, state: &mut State) -> Result<(), NetlinkError> {
        let Stage::Written(family) = state.stage else {
            return Ok(());
        };
        let mut transaction = Transaction::new(family, &self.name);
        transaction.ensure_table();
        transaction.delete_table();
        let second = admission::second_table(&self.name);
        if state.way_back.is_some() {
            let families = [NFPROTO_IPV4, NFPROTO_IPV6];
            for of in families
                .into_iter()
                .take(if family == NFPROTO_INET { 2 } else { 1 })
            {
                transaction.turn_to(of, &second);
                transaction.ensure_table();
                transaction.delete_table();
            }
        }
        transaction.commit(state.socket()?)?;
        state.stage = Stage::Absent;
        Ok(())
    }
}

impl State {
    fn socket(&mut self) -> Result<&mut Socket, NetlinkError> {
        match &mut self.socket {
            Some(socket) => Ok(socket),
            none => Ok(none.insert(nft::open()?)),
        }
    }

    /// Takes a change into what is wanted, and answers what is new of it.
    fn take_in(&mut self, change: Change) -> Change {
        let mut done = Change::default();
        for (set, entry) in change.remove {
            let elements = self.elements.entry(set).or_default();
            let key = (entry.key.clone(), !entry.ends_interval);
            // Another's, which has taken its place, stays.
            if elements.get(&key) == Some(&entry) {
                elements.remove(&key);
                done.remove.push((set, entry));
            }
        }
        for (set, entry) in change.add {
            let elements = self.elements.entry(set).or_default();
            let key = (entry.key.clone(), !entry.ends_interval);
            match elements.insert(key, entry.clone()) {
                Some(old) if old == entry => {}
                old => {
                    done.remove.extend(old.map(|old| (set, old)));
                    done.add.push((set, entry));
                }
            }
        }
        done
    }
}

/// The family is not there, or lacks what we need: a kernel without IPv6, or without address
/// translation for both at once (before 5.2).
fn lacks_family(error: &NetlinkError) -> bool {
    matches!(
        error.errno(),
        Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::ENOENT | libc::EINVAL)
    )
}

fn by_set<'a>(elements: &'a [(&'static str, Entry)]) -> BTreeMap<&'static str, Vec<&'a Entry>> {
    let mut sets: BTreeMap<&'static str, Vec<&Entry>> = BTreeMap::new();
    for (set, entry) in elements {
        sets.entry(set).or_default().push(entry);
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elements::Part;

    fn entry(port: u16, to: u16) -> Entry {
        Entry::to(&[Part::Port(port)], &[Part::Port(to)])
    }

    #[test]
    fn change_taken_in_tells_what_the_kernel_must_hear() {
        let firewall = Firewall::gathering("t");
        let mut state = firewall.lock();
        let add = |port, to| Change::adding(vec![("m", entry(port, to))]);
        assert_eq!(state.take_in(add(1, 2)), add(1, 2));
        assert_eq!(state.take_in(add(1, 2)), Change::default());
        let replaced = state.take_in(add(1, 3));
        assert_eq!(replaced.remove, [("m", entry(1, 2))]);
        assert_eq!(replaced.add, [("m", entry(1, 3))]);
        let gone = |to| Change::removing(vec![("m", entry(1, to))]);
        assert_eq!(
            state.take_in(gone(2)),
            Change::default(),
            "another took its place"
        );
        assert_eq!(state.take_in(gone(3)), gone(3));
    }

    #[test]
    fn change_undone_leaves_what_was() {
        let firewall = Firewall::gathering("t");
        let mut state = firewall.lock();
        state.take_in(Change::adding(vec![("m", entry(1, 2))]));
        let before = state.elements.clone();
        let done = state.take_in(Change::adding(vec![("m", entry(1, 3)), ("m", entry(4, 5))]));
        state.take_in(Change {
            remove: done.add,
            add: done.remove,
        });
        assert_eq!(state.elements, before);
    }

    #[test]
    fn kernel_without_ipv6_gets_the_table_in_the_family_ip() {
        let write = || {
            hull_sys::netns::unshare_network().expect("unshare");
            let firewall = Firewall::gathering("t");
            let subnet = "10.0.0.0/24".parse().expect("a subnet");
            let policy = crate::config::Policy::default();
            let elements = table::of_network("own0", subnet, policy);
            firewall.change(Change::adding(elements)).expect("gather");
            let mut state = firewall.lock();
            firewall
                .rewrite_as(&mut state, NFPROTO_IPV4)
                .expect("write");
            let tables = |state: &mut State, family| nft::tables(state.socket().unwrap(), family);
            assert_eq!(tables(&mut state, NFPROTO_IPV4).unwrap(), ["t"]);
            // The same daemon on a kernel with IPv6.
            firewall.rewrite(&mut state).expect("write");
            assert!(tables(&mut state, NFPROTO_IPV4).unwrap().is_empty());
            assert_eq!(tables(&mut state, NFPROTO_INET).unwrap(), ["t"]);
        };
        std::thread::spawn(write).join().expect("the thread");
    }
}
