//! What a container may be told by the name server: whose names it may ask for, and the addresses
//! that are let out because they were the answer.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hull_model::egress::EgressPolicy;

use super::rules::set_names;
use super::wire::{Changes, INET, elements, octets};
use crate::netlink::{NetlinkError, Socket};

/// An address stays for a while longer than its record: whoever was told of it takes a moment to
/// use it, and names that are asked for again and again need no change of the table each time.
const GRACE: Duration = Duration::from_secs(60);
/// No address stays longer than this, whatever its record says (RFC 8767 speaks of days).
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most addresses that a container has learnt, in all.
pub(super) const MOST_LEARNT: usize = 4096;

/// Where the tables are changed.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) table: String,
    pub(super) socket: Mutex<Socket>,
}

impl Kernel {
    pub(super) fn socket(&self) -> MutexGuard<'_, Socket> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why addresses could not be let out; the answer is not given then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LearnError {
    /// Too many.
    #[error("the container has learnt {MOST_LEARNT} addresses already")]
    Full,
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] NetlinkError),
}

/// The addresses of a rule's names, with the moment at which each goes.
type Learnt = HashMap<IpAddr, Instant>;

/// A container's gate.
#[derive(Debug)]
pub(crate) struct Gate {
    id: String,
    policy: EgressPolicy,
    gateways: Vec<IpAddr>,
    kernel: Arc<Kernel>,
    /// Of each rule to allow.
    learnt: Mutex<Vec<Learnt>>,
}

impl Gate {
    pub(super) fn new(
        id: &str,
        policy: &EgressPolicy,
        gateways: Vec<IpAddr>,
        kernel: Arc<Kernel>,
    ) -> Self {
        Self {
            id: id.to_owned(),
            policy: policy.clone(),
            gateways,
            kernel,
            learnt: Mutex::new(vec![Learnt::new(); policy.allow.len()]),
        }
    }

    /// Whether others may be asked for `name` (in lower case, without a dot at its end).
    pub(crate) fn resolves(&self, name: &str) -> bool {
        self.policy.resolves(name)
    }

    /// Whether the answer to a question about `name` lets its addresses out.
    pub(crate) fn learns(&self, name: &str) -> bool {
        self.policy.allow.iter().any(|rule| rule.names(name))
    }

    /// Lets the addresses of `name` out, each for so many seconds at least. When it returns the
    /// kernel knows of them.
    pub(crate) fn learn(&self, name: &str, found: &[(IpAddr, u32)]) -> Result<(), LearnError> {
        let now = Instant::now();
        let mut all = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        for learnt in &mut *all {
            learnt.retain(|_, end| *end > now);
        }
        let mut room = MOST_LEARNT.saturating_sub(all.iter().map(Learnt::len).sum());
        let mut changes = Vec::new();
        for (index, rule) in self.policy.allow.iter().enumerate() {
            let Some(learnt) = all.get(index).filter(|_| rule.names(name)) else {
                continue;
            };
            for (address, seconds) in found.iter().filter(|(a, _)| self.may_learn(*a)) {
                let least = Duration::from_secs(u64::from(*seconds)).min(LONGEST);
                let known = learnt.get(address).copied();
                if known.is_some_and(|end| end >= now + least) {
                    continue;
                }
                if known.is_none() {
                    room = room.checked_sub(1).ok_or(LearnError::Full)?;
                }
                changes.push((index, *address, least + GRACE, known.is_some()));
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        let commit = |renew: bool| {
            let mut transaction = Changes::new(&self.kernel.table);
            for (index, address, time, known) in &changes {
                let [four, six] = set_names(&self.id, *index);
                let set = if address.is_ipv4() { four } else { six };
                // Older kernels leave the time of one that is there already as it is.
                if renew && *known {
                    transaction.delete_keys(INET, &set, &[octets(*address)]);
                }
                transaction.add(&set, &[(*address, *time)]);
            }
            transaction.commit(&mut self.kernel.socket())
        };
        // One that was to be renewed may have gone a moment ago.
        commit(true).or_else(|error| match error.errno() {
            Some(libc::ENOENT) => commit(false),
            _ => Err(error),
        })?;
        for (index, address, time, _) in changes {
            if let Some(learnt) = all.get_mut(index) {
                learnt.insert(address, now + time);
            }
        }
        Ok(())
    }

    /// Names of others stand for hosts elsewhere: one that stands for this host's own services, or
    /// for what is near it and has no name, was made up to get there.
    fn may_learn(&self, address: IpAddr) -> bool {
        let near = match address {
            IpAddr::V4(a) => {
                a.is_unspecified()
                    || a.is_loopback()
                    || a.is_link_local()
                    || a.is_multicast()
                    || a.is_broadcast()
            }
            IpAddr::V6(a) => {
                a.is_unspecified()
                    || a.is_loopback()
                    || a.is_unicast_link_local()
                    || a.is_multicast()
                    || a.to_ipv4_mapped().is_some()
            }
        };
        !near && !self.gateways.contains(&address)
    }

    /// The sets with what is in them, as far as there is time left.
    pub(super) fn learnt(&self) -> Vec<(String, Vec<(IpAddr, Duration)>)> {
        let now = Instant::now();
        let all = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sets = Vec::new();
        for (index, learnt) in all.iter().enumerate() {
            let left = |(address, end): (&IpAddr, &Instant)| {
                let left = end.saturating_duration_since(now);
                (!left.is_zero()).then_some((*address, left))
            };
            let (four, six): (Vec<_>, Vec<_>) = learnt
                .iter()
                .filter_map(left)
                .partition(|(a, _)| a.is_ipv4());
            sets.extend(set_names(&self.id, index).into_iter().zip([four, six]));
        }
        sets
    }

    /// Takes over what an earlier daemon has taught the kernel.
    pub(super) fn take_over(&self) -> Result<(), NetlinkError> {
        let mut socket = self.kernel.socket();
        let mut all = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let rules = self.policy.allow.iter().zip(&mut *all).enumerate();
        for (index, (_, learnt)) in rules.filter(|(_, (rule, _))| rule.name().is_some()) {
            for set in set_names(&self.id, index) {
                let found = elements(&mut socket, &self.kernel.table, &set)?;
                learnt.extend(
                    found
                        .into_iter()
                        .map(|(a, left)| (a, now + left.min(LONGEST))),
                );
            }
        }
        Ok(())
    }

    /// Keeps what another gate of the container has learnt for the same rules.
    pub(super) fn inherit(&self, other: &Self) {
        let old = other.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        for (rule, learnt) in self.policy.allow.iter().zip(&mut *all) {
            let same = other.policy.allow.iter().position(|known| known == rule);
            if let Some(known) = same.and_then(|index| old.get(index)) {
                learnt.clone_from(known);
            }
        }
    }
}

/// The gates of all containers that have one, by the addresses they ask from.
#[derive(Debug, Clone, Default)]
pub struct Gates(Arc<RwLock<HashMap<IpAddr, Asker>>>);

#[derive(Debug)]
struct Asker {
    gate: Arc<Gate>,
    known_by: Ipv4Addr,
}

impl Gates {
    /// The gate of whoever has this address.
    pub(crate) fn of(&self, client: IpAddr) -> Option<Arc<Gate>> {
        let gates = self.0.read().unwrap_or_else(PoisonError::into_inner);
        gates.get(&client).map(|asker| Arc::clone(&asker.gate))
    }

    /// What the container with this address is known by, if it has a gate.
    pub(crate) fn known_by(&self, client: IpAddr) -> Option<Ipv4Addr> {
        let gates = self.0.read().unwrap_or_else(PoisonError::into_inner);
        gates.get(&client).map(|asker| asker.known_by)
    }

    pub(super) fn set(
        &self,
        addresses: impl Iterator<Item = (IpAddr, Ipv4Addr)>,
        gate: &Arc<Gate>,
    ) {
        let mut gates = self.0.write().unwrap_or_else(PoisonError::into_inner);
        gates.retain(|_, other| other.gate.id != gate.id);
        gates.extend(addresses.map(|(address, known_by)| {
            let gate = Arc::clone(gate);
            (address, Asker { gate, known_by })
        }));
    }

    pub(super) fn remove(&self, id: &str) {
        let mut gates = self.0.write().unwrap_or_else(PoisonError::into_inner);
        gates.retain(|_, asker| asker.gate.id != id);
    }
}
