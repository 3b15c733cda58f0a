//! Garbage collection: when somebody asks for it, and by the daemon's policy in the background.
//!
//! It never meets the path of a start: images are taken out of the index in one short step, their
//! files are deleted afterwards on a thread that blocks nobody.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use hull_image::store::{GcPolicy, GcReport};
use hull_model::{Digest, Result};

use super::{blocking, name_fact};
use crate::Engine;

/// Time between two collections where none is set.
const INTERVAL: Duration = Duration::from_secs(3600);
/// Time between two looks whether something came, where space has a budget.
const GLANCE: Duration = Duration::from_secs(1);
/// How long an image that just came is let alone where nothing is set: a `run` that pulled it is
/// about to use it.
const GRACE: Duration = Duration::from_secs(10);

/// When garbage is collected in the background, and what counts as such.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcSettings {
    /// Time between two collections; zero for none.
    pub interval: Option<Duration>,
    /// Images that no container has used for so long.
    pub unused_for: Option<Duration>,
    /// Images that came so long ago.
    pub older_than: Option<Duration>,
    /// Bytes that all layers may take.
    pub keep_size: Option<u64>,
    /// What came so recently stays.
    pub grace: Option<Duration>,
}

/// What somebody wants collected; what the policy says where no limit is named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcRequest {
    /// Images that no container has used for so long.
    pub unused_for: Option<Duration>,
    /// Images that came so long ago.
    pub older_than: Option<Duration>,
    /// Bytes that all layers may take.
    pub keep_size: Option<u64>,
    /// Only tell what would go.
    pub dry_run: bool,
}

impl GcSettings {
    fn policy(&self) -> GcPolicy {
        GcPolicy {
            unused_for: self.unused_for,
            older_than: self.older_than,
            budget: self.keep_size,
            grace: self.grace(),
        }
    }

    fn grace(&self) -> Duration {
        self.grace.unwrap_or(GRACE)
    }

    fn is_set(&self) -> bool {
        self.unused_for.is_some() || self.older_than.is_some() || self.keep_size.is_some()
    }

    /// What goes without being asked: nothing but debris, unless a limit is set.
    fn background(&self) -> GcPolicy {
        let mut policy = self.policy();
        if !self.is_set() {
            policy.budget = Some(u64::MAX);
        }
        policy
    }
}

impl GcRequest {
    fn policy(&self, settings: &GcSettings) -> GcPolicy {
        let asked = GcPolicy {
            unused_for: self.unused_for,
            older_than: self.older_than,
            budget: self.keep_size,
            grace: settings.grace(),
        };
        let plain = GcPolicy {
            grace: settings.grace(),
            ..GcPolicy::default()
        };
        if asked == plain {
            settings.policy()
        } else {
            asked
        }
    }
}

/// Answers whether a container needs an image. The containers are looked through at the first
/// question, which comes when nobody can begin to use one.
pub(crate) struct Needs<'a> {
    engine: &'a Engine,
    used: OnceCell<HashMap<Digest, usize>>,
}

impl<'a> Needs<'a> {
    pub(crate) fn of(engine: &'a Engine) -> Self {
        Self {
            engine,
            used: OnceCell::new(),
        }
    }

    pub(crate) fn has(&self, id: &Digest) -> bool {
        self.used
            .get_or_init(|| self.engine.image_use())
            .contains_key(id)
    }
}

impl Engine {
    /// Collects garbage, or tells what would go.
    ///
    /// # Errors
    /// If files cannot be deleted.
    pub async fn gc(self: &Arc<Self>, request: GcRequest) -> Result<GcReport> {
        let policy = request.policy(&self.settings.gc);
        if request.dry_run {
            let engine = Arc::clone(self);
            return blocking(move || {
                let needs = Needs::of(&engine);
                Ok(engine.images.store.gc_plan(&policy, &|id| needs.has(id)))
            })
            .await;
        }
        self.collect(policy).await
    }

    async fn collect(self: &Arc<Self>, policy: GcPolicy) -> Result<GcReport> {
        let engine = Arc::clone(self);
        let mut report = blocking(move || {
            let needs = Needs::of(&engine);
            Ok(engine.images.store.gc(&policy, &|id| needs.has(id))?)
        })
        .await?;
        report.reclaimed_bytes += self.sweep_unneeded().await?;
        for image in &report.images {
            for name in &image.names {
                self.events.emit("image", "untag", name, name_fact(name));
            }
            let id = image.id.to_string();
            self.events.emit("image", "delete", &id, name_fact(&id));
        }
        Ok(report)
    }

    /// Tells that things of a kind were pruned, as Docker does.
    pub(crate) fn tell_pruned(&self, kind: &'static str, reclaimed: u64) {
        let facts = [("reclaimed".to_owned(), reclaimed.to_string())].into();
        self.events.emit(kind, "prune", "", facts);
    }

    async fn collect_by_policy(self: &Arc<Self>) {
        self.images.store.write_uses();
        match self.collect(self.settings.gc.background()).await {
            Ok(report) if report.reclaimed_bytes > 0 || !report.images.is_empty() => {
                tracing::info!(
                    images = report.images.len(),
                    layers = report.layers,
                    bytes = report.reclaimed_bytes,
                    "garbage collected"
                );
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = %error.chain(), "cannot collect all garbage: the next collection tries again");
            }
        }
    }

    /// Begins to collect by the policy, until the daemon stops. Not where the records of some
    /// containers cannot be read: nobody knows which images they need.
    pub(crate) fn start_gc(self: &Arc<Self>, all_known: bool) {
        for warning in self.images.store.warnings() {
            tracing::warn!("{warning}");
        }
        let interval = self.settings.gc.interval.unwrap_or(INTERVAL);
        if !interval.is_zero() && all_known {
            let settings = &self.settings.gc;
            // A budget is looked at when something came, too, and not only once in a while.
            let glance = settings.keep_size.map(|_| settings.grace().max(GLANCE));
            tokio::spawn(background(Arc::downgrade(self), interval, glance));
        }
    }
}

async fn background(engine: Weak<Engine>, interval: Duration, glance: Option<Duration>) {
    let mut last = Instant::now();
    let mut seen = 0;
    loop {
        let left = interval.saturating_sub(last.elapsed());
        tokio::time::sleep(glance.map_or(left, |glance| glance.min(left))).await;
        let Some(engine) = engine.upgrade().filter(|engine| !engine.stopping()) else {
            return;
        };
        let arrivals = engine.images.store.arrivals();
        if last.elapsed() >= interval || glance.is_some() && arrivals != seen {
            seen = arrivals;
            engine.collect_by_policy().await;
            last = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn request_without_limits_takes_the_daemons() {
        let settings = GcSettings {
            unused_for: Some(DAY),
            ..GcSettings::default()
        };
        let plain = GcRequest::default();
        assert_eq!(plain.policy(&settings).unused_for, Some(DAY));
        let asked = GcRequest {
            keep_size: Some(5),
            ..plain
        };
        let policy = asked.policy(&settings);
        assert_eq!((policy.unused_for, policy.budget), (None, Some(5)));
        assert_eq!(policy.grace, GRACE);
    }

    #[test]
    fn background_without_limits_takes_no_image() {
        assert_eq!(GcSettings::default().background().budget, Some(u64::MAX));
        let settings = GcSettings {
            older_than: Some(DAY),
            ..GcSettings::default()
        };
        assert_eq!(settings.background().budget, None);
    }
}
