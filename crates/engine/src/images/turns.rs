//! Turns: who brings a layer in while others that need it, too, wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use hull_model::Digest;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// The layers that are being brought in.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<BTreeMap<Digest, Arc<AsyncMutex<()>>>>);

/// Lasts until the layers are in or given up.
#[derive(Debug)]
pub(crate) struct Turn {
    _guards: Vec<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits until nobody else brings one of these layers in.
    pub(crate) async fn take(&self, layers: &[Digest]) -> Turn {
        let mut wanted = layers.to_vec();
        // One order for all: two that need the same ones never wait for each other.
        wanted.sort_unstable();
        wanted.dedup();
        let mut guards = Vec::with_capacity(wanted.len());
        for layer in wanted {
            let lock = Arc::clone(self.known().entry(layer).or_default());
            guards.push(lock.lock_owned().await);
        }
        // Those that nobody holds or waits for are forgotten.
        self.known().retain(|_, lock| Arc::strong_count(lock) > 1);
        Turn { _guards: guards }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, Arc<AsyncMutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(numbers: &[u8]) -> Vec<Digest> {
        numbers
            .iter()
            .map(|n| Digest::from_bytes([*n; 32]))
            .collect()
    }

    #[tokio::test]
    async fn take_shared_layer_waits_and_others_do_not() {
        let turns = Arc::new(Turns::default());
        let first = turns.take(&layers(&[1, 2])).await;
        drop(turns.take(&layers(&[3, 3])).await);
        let waiting = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { drop(turns.take(&layers(&[4, 2])).await) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.expect("taken");
        drop(turns.take(&layers(&[9])).await);
        assert!(turns.known().len() <= 1);
    }
}
