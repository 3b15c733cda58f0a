//! Garbage collection: what nothing uses goes, by age, last use and a budget of space.
//!
//! What goes is chosen and taken out of the index in one step, in which nobody can begin to use
//! an image: a create, load or pull at the same moment finds an image whole or not at all. Files
//! are deleted afterwards.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use hull_model::{Digest, Reference};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::index::Index;
use super::{ImageStore, Removed, StoreError, files};

/// What may go. Without any of the three limits: images that have no name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcPolicy {
    /// Images that no container has used for so long; with `older_than` both must hold.
    pub unused_for: Option<Duration>,
    /// Images that came so long ago.
    pub older_than: Option<Duration>,
    /// Bytes that all layers may take: beyond it those used least recently go, nameless ones first.
    pub budget: Option<u64>,
    /// What came so recently stays: somebody is about to use it.
    pub grace: Duration,
}

/// Why an image goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GcReason {
    /// It has no name.
    Unnamed,
    /// It was not used for long, or is old.
    Idle,
    /// All together take more than they may.
    Budget,
}

impl GcReason {
    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unnamed => "unnamed",
            Self::Idle => "idle",
            Self::Budget => "budget",
        }
    }
}

/// An image that went, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcImage {
    /// Its id.
    pub id: Digest,
    /// Its names, as people write them.
    pub names: Vec<String>,
    /// Why.
    pub reason: GcReason,
    /// When it was last used.
    pub last_used: SystemTime,
    /// Bytes that were free without it, those before it in the list gone.
    pub bytes: u64,
}

/// What a collection did, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Images, in the order in which they went.
    pub images: Vec<GcImage>,
    /// Layers.
    pub layers: usize,
    /// Documents that no record needed.
    pub documents: usize,
    /// Bytes freed.
    pub reclaimed_bytes: u64,
    /// Bytes that the layers that stay take.
    pub kept_bytes: u64,
}

/// An image as the choice sees it.
#[derive(Debug, Clone)]
struct Candidate {
    id: Digest,
    parent: Option<Digest>,
    layers: HashSet<Digest>,
    named: bool,
    /// It stays: in use, built in, or just come.
    fixed: bool,
    idle: Duration,
    age: Duration,
}

impl ImageStore {
    /// Collects. `in_use` says whether a container needs an image.
    ///
    /// # Errors
    /// If a file operation fails; what was removed before stays removed.
    pub fn gc(
        &self,
        policy: &GcPolicy,
        in_use: &dyn Fn(&Digest) -> bool,
    ) -> Result<GcReport, StoreError> {
        let mut report = GcReport::default();
        let removed = self.take_where(in_use, &mut |index, needed| {
            report = self.choose(index, needed, policy);
            report.images.iter().map(|image| image.id).collect()
        })?;
        let gone: HashSet<Digest> = removed
            .iter()
            .filter_map(|one| match one {
                Removed::Deleted(id) => Some(*id),
                Removed::Untagged(_) => None,
            })
            .collect();
        report.images.retain(|image| gone.contains(&image.id));
        let (trash, freed) = self.trash_unused_layers()?;
        report.layers = trash.len();
        report.reclaimed_bytes = freed;
        for path in trash {
            files::delete(&path)?;
        }
        self.catch_up_names();
        report.documents = {
            let _writing = self.lock_writing();
            self.remove_unused_blobs()?
        };
        Ok(report)
    }

    /// What [`Self::gc`] would do now.
    pub fn gc_plan(&self, policy: &GcPolicy, in_use: &dyn Fn(&Digest) -> bool) -> GcReport {
        let held = self.holds.lock();
        let needed = self.needed(&held, in_use);
        self.choose(&self.read_index(), &needed, policy)
    }

    fn choose(&self, index: &Index, needed: &HashSet<Digest>, policy: &GcPolicy) -> GcReport {
        let now = SystemTime::now();
        let since = |time: SystemTime| now.duration_since(time).unwrap_or_default();
        let candidates: Vec<Candidate> = index
            .images
            .values()
            .map(|image| {
                let (last_use, arrived) = self.uses.of(&image.id);
                let recent = arrived.is_some_and(|ago| ago < policy.grace);
                let names = index.by_image.get(&image.id);
                Candidate {
                    id: image.id,
                    parent: image.parent,
                    layers: image.layers().iter().copied().collect(),
                    named: names.is_some_and(|names| names.iter().any(|n| !n.contains('@'))),
                    fixed: image.source_stamp.is_some() || recent || needed.contains(&image.id),
                    idle: since(last_use),
                    age: since(came(&image.stored)),
                }
            })
            .collect();
        // Layers that nobody needs go in any case; those of a pull under way stay in any case.
        let orphans = |id: &&Digest| !index.layer_users.contains_key(*id);
        let bytes: HashMap<Digest, u64> = index
            .layers
            .iter()
            .filter(|(id, _)| !orphans(id))
            .map(|(id, meta)| (*id, meta.tree_bytes))
            .collect();
        let orphaned: Vec<&Digest> = index.layers.keys().filter(orphans).collect();
        let orphaned_bytes: u64 = orphaned
            .iter()
            .filter_map(|id| index.layers.get(*id))
            .map(|meta| meta.tree_bytes)
            .sum();
        let choice = Choice::make(&candidates, &bytes, policy);
        let images = choice.chosen.iter().filter_map(|(number, reason, freed)| {
            let id = candidates.get(*number)?.id;
            let names = index.by_image.get(&id).into_iter().flatten();
            Some(GcImage {
                id,
                names: names
                    .filter_map(|name| name.parse::<Reference>().ok())
                    .map(|name| name.familiar())
                    .collect(),
                reason: *reason,
                last_used: self.uses.of(&id).0,
                bytes: *freed,
            })
        });
        GcReport {
            images: images.collect(),
            layers: choice.layers + orphaned.len(),
            documents: 0,
            reclaimed_bytes: choice.freed + orphaned_bytes,
            kept_bytes: choice.kept,
        }
    }
}

/// When an image came, by its record.
fn came(stored: &str) -> SystemTime {
    OffsetDateTime::parse(stored, &Rfc3339).map_or(SystemTime::UNIX_EPOCH, SystemTime::from)
}

/// The choice while it is made.
struct Choice<'a> {
    candidates: &'a [Candidate],
    bytes: &'a HashMap<Digest, u64>,
    /// How many images that stay have a layer.
    owners: HashMap<Digest, usize>,
    /// How many images that stay were built upon one.
    children: HashMap<Digest, usize>,
    /// Layers of images that stay in any case.
    fixed_layers: HashSet<Digest>,
    gone: Vec<bool>,
    chosen: Vec<(usize, GcReason, u64)>,
    layers: usize,
    freed: u64,
    kept: u64,
}

impl<'a> Choice<'a> {
    fn make(
        candidates: &'a [Candidate],
        bytes: &'a HashMap<Digest, u64>,
        policy: &GcPolicy,
    ) -> Self {
        let mut owners: HashMap<Digest, usize> = HashMap::new();
        for layer in candidates.iter().flat_map(|one| &one.layers) {
            *owners.entry(*layer).or_default() += 1;
        }
        let mut children: HashMap<Digest, usize> = HashMap::new();
        for parent in candidates.iter().filter_map(|one| one.parent) {
            *children.entry(parent).or_default() += 1;
        }
        let fixed = candidates.iter().filter(|one| one.fixed);
        let mut choice = Self {
            candidates,
            bytes,
            owners,
            children,
            fixed_layers: fixed.flat_map(|one| &one.layers).copied().collect(),
            gone: vec![false; candidates.len()],
            chosen: Vec::new(),
            layers: 0,
            freed: 0,
            kept: bytes.values().sum(),
        };
        choice.by_rules(policy);
        if let Some(budget) = policy.budget {
            choice.by_budget(budget);
        }
        choice
    }

    fn by_rules(&mut self, policy: &GcPolicy) {
        let limits = [policy.unused_for, policy.older_than];
        let plain = policy.budget.is_none() && limits.iter().all(Option::is_none);
        let wanted = |one: &Candidate| {
            if limits.iter().all(Option::is_none) {
                return plain && !one.named;
            }
            policy.unused_for.is_none_or(|limit| one.idle >= limit)
                && policy.older_than.is_none_or(|limit| one.age >= limit)
        };
        // An image goes after those built upon it, so this is done until nothing moves.
        loop {
            let next: Vec<usize> = (0..self.candidates.len())
                .filter(|n| self.may_go(*n) && self.candidates.get(*n).is_some_and(wanted))
                .collect();
            if next.is_empty() {
                return;
            }
            for number in next {
                let named = self.candidates.get(number).is_some_and(|one| one.named);
                let reason = if named {
                    GcReason::Idle
                } else {
                    GcReason::Unnamed
                };
                self.go(number, reason);
            }
        }
    }

    fn by_budget(&mut self, budget: u64) {
        while self.kept > budget {
            let next = (0..self.candidates.len())
                .filter(|n| self.may_go(*n) && self.frees(*n))
                .filter_map(|n| self.candidates.get(n).map(|one| (n, one)))
                // What frees something by itself comes before what does so only with others.
                .max_by_key(|(n, one)| (self.freed_by(*n) > 0, !one.named, one.idle));
            let Some((number, _)) = next else { return };
            self.go(number, GcReason::Budget);
        }
    }

    fn may_go(&self, number: usize) -> bool {
        self.gone.get(number) == Some(&false)
            && self
                .candidates
                .get(number)
                .is_some_and(|one| !one.fixed && !self.children.contains_key(&one.id))
    }

    /// Whether its going frees something, now or once others have gone: where images that stay
    /// have all its layers it may as well stay.
    fn frees(&self, number: usize) -> bool {
        self.candidates.get(number).is_some_and(|one| {
            let mut layers = one.layers.iter();
            layers.any(|layer| {
                self.bytes.get(layer).is_some_and(|bytes| *bytes > 0)
                    && !self.fixed_layers.contains(layer)
            })
        })
    }

    /// Bytes that only this one of those that are left needs.
    fn freed_by(&self, number: usize) -> u64 {
        let layers = self.candidates.get(number).into_iter();
        layers
            .flat_map(|one| &one.layers)
            .filter(|layer| self.owners.get(*layer) == Some(&1))
            .filter_map(|layer| self.bytes.get(layer))
            .sum()
    }

    fn go(&mut self, number: usize, reason: GcReason) {
        let Some(one) = self.candidates.get(number) else {
            return;
        };
        let mut freed = 0;
        for layer in &one.layers {
            let owners = self.owners.entry(*layer).or_default();
            *owners = owners.saturating_sub(1);
            if *owners == 0
                && let Some(bytes) = self.bytes.get(layer)
            {
                freed += bytes;
                self.layers += 1;
            }
        }
        if let Some(gone) = self.gone.get_mut(number) {
            *gone = true;
        }
        if let Some(parent) = one.parent
            && let Some(count) = self.children.get_mut(&parent)
        {
            *count -= 1;
            if *count == 0 {
                self.children.remove(&parent);
            }
        }
        self.freed += freed;
        self.kept = self.kept.saturating_sub(freed);
        self.chosen.push((number, reason, freed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn digest(number: u8) -> Digest {
        Digest::from_bytes([number; 32])
    }

    /// An image with layers by number, used so many hours ago.
    fn image(number: u8, layers: &[u8], idle: u32) -> Candidate {
        Candidate {
            id: digest(number),
            parent: None,
            layers: layers.iter().map(|n| digest(*n)).collect(),
            named: true,
            fixed: false,
            idle: HOUR * idle,
            age: HOUR * 100,
        }
    }

    /// The layers 1 to 9 take so many bytes each.
    fn choose(candidates: &[Candidate], policy: &GcPolicy) -> (Vec<usize>, u64, u64) {
        let bytes = (1..=9).map(|n| (digest(n), u64::from(n))).collect();
        let choice = Choice::make(candidates, &bytes, policy);
        let numbers = choice.chosen.iter().map(|(number, ..)| *number).collect();
        (numbers, choice.freed, choice.kept)
    }

    #[test]
    fn choice_without_limits_takes_the_nameless_only() {
        let mut all = vec![
            image(101, &[1], 5),
            image(102, &[2], 5),
            image(103, &[3], 5),
        ];
        all[1].named = false;
        all[2].named = false;
        all[2].fixed = true;
        assert_eq!(choose(&all, &GcPolicy::default()), (vec![1], 2, 43));
    }

    #[test]
    fn choice_by_last_use_and_age_wants_both() {
        let mut all = vec![
            image(101, &[1], 5),
            image(102, &[2], 1),
            image(103, &[3], 9),
        ];
        all[2].age = HOUR;
        let unused = GcPolicy {
            unused_for: Some(HOUR * 2),
            ..GcPolicy::default()
        };
        assert_eq!(choose(&all, &unused).0, [0, 2]);
        let both = GcPolicy {
            older_than: Some(HOUR * 2),
            ..unused
        };
        assert_eq!(choose(&all, &both).0, [0]);
    }

    #[test]
    fn choice_by_budget_takes_the_least_recently_used_until_it_fits() {
        let all = vec![
            image(101, &[9], 1),
            image(102, &[8, 1], 7),
            image(103, &[7, 1], 5),
        ];
        let budget = |bytes| GcPolicy {
            budget: Some(bytes),
            ..GcPolicy::default()
        };
        assert_eq!(choose(&all, &budget(45)).0, [] as [usize; 0]);
        // The layer that the next one has, too, is not freed with the first.
        assert_eq!(choose(&all, &budget(44)), (vec![1], 8, 37));
        assert_eq!(choose(&all, &budget(36)), (vec![1, 2], 16, 29));
        assert_eq!(choose(&all, &budget(0)).0, [1, 2, 0]);
    }

    #[test]
    fn choice_by_budget_spares_what_frees_nothing() {
        let mut all = vec![image(101, &[5], 1), image(102, &[5], 7)];
        all[0].fixed = true;
        let policy = GcPolicy {
            budget: Some(0),
            ..GcPolicy::default()
        };
        assert_eq!(choose(&all, &policy).0, [] as [usize; 0]);
    }

    #[test]
    fn choice_by_budget_takes_what_frees_something_by_itself_first() {
        let all = vec![image(101, &[9], 8), image(102, &[9, 5], 1)];
        let policy = |bytes| GcPolicy {
            budget: Some(bytes),
            ..GcPolicy::default()
        };
        assert_eq!(choose(&all, &policy(44)), (vec![1], 5, 40));
        assert_eq!(choose(&all, &policy(0)), (vec![1, 0], 14, 31));
    }

    #[test]
    fn choice_takes_children_before_their_parents() {
        let mut all = vec![
            image(101, &[1], 9),
            image(102, &[1, 2], 8),
            image(103, &[3], 1),
        ];
        all[1].parent = Some(digest(101));
        all[2].parent = Some(digest(101));
        let mut policy = GcPolicy {
            unused_for: Some(HOUR * 2),
            ..GcPolicy::default()
        };
        assert_eq!(choose(&all, &policy).0, [1]);
        policy.unused_for = Some(HOUR);
        assert_eq!(choose(&all, &policy).0, [1, 2, 0]);
    }
}
