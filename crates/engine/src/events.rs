//! What happened, for `hull events`: the last few are kept, the next ones are sent to whoever
//! listens.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use tokio::sync::{broadcast, mpsc};

use crate::clock::now_ns;
use crate::filters::Filters;

/// Events kept for `--since`.
const KEPT: usize = 512;
/// Events that a slow listener may lag behind before it loses some.
const QUEUE: usize = 1024;

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// `container`, `image`, `volume`, `network` or `daemon`.
    pub kind: &'static str,
    /// `create`, `start`, `die`, …
    pub action: String,
    /// Id or name of the object.
    pub id: String,
    /// Further facts: name, image, exitCode, labels.
    pub attributes: BTreeMap<String, String>,
    /// When, ns since 1970.
    pub time_ns: u64,
}

/// The bus.
#[derive(Debug)]
pub struct Events {
    kept: Mutex<VecDeque<Event>>,
    sender: broadcast::Sender<Event>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            sender: broadcast::channel(QUEUE).0,
        }
    }
}

impl Events {
    /// Announces an event.
    pub fn emit(
        &self,
        kind: &'static str,
        action: impl Into<String>,
        id: &str,
        attributes: BTreeMap<String, String>,
    ) {
        let event = Event {
            kind,
            action: action.into(),
            id: id.to_owned(),
            attributes,
            time_ns: now_ns(),
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(event.clone());
        // Sent under the lock, so that a new listener gets each event exactly once.
        let _ = self.sender.send(event);
    }

    /// Listens: kept events from `since_ns` on, then new ones up to `until_ns`.
    pub fn listen(
        &self,
        since_ns: Option<i64>,
        until_ns: Option<i64>,
        filters: Filters,
    ) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(64);
        let (past, mut live) = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let wanted = |e: &&Event| since_ns.is_some_and(|s| e.time_ns as i64 >= s);
            (
                kept.iter().filter(wanted).cloned().collect::<Vec<_>>(),
                self.sender.subscribe(),
            )
        };
        tokio::spawn(async move {
            let late = |e: &Event| until_ns.is_some_and(|u| e.time_ns as i64 > u);
            for event in past {
                if !late(&event) && wanted(&event, &filters) && sender.send(event).await.is_err() {
                    return;
                }
            }
            let end = until_ns.map(|u| u.saturating_sub(now_ns() as i64).max(0) as u64);
            let deadline = async {
                match end {
                    Some(ns) => tokio::time::sleep(std::time::Duration::from_nanos(ns)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::pin!(deadline);
            loop {
                let event = tokio::select! {
                    event = live.recv() => event,
                    () = &mut deadline => return,
                    () = sender.closed() => return,
                };
                match event {
                    Ok(event) if wanted(&event, &filters) => {
                        if sender.send(event).await.is_err() {
                            return;
                        }
                    }
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        });
        receiver
    }
}

impl crate::Engine {
    /// Listens to events: kept ones from `since_ns` on, then new ones up to `until_ns`.
    ///
    /// # Errors
    /// For an unknown filter.
    pub fn listen(
        &self,
        since_ns: Option<i64>,
        until_ns: Option<i64>,
        filters: Filters,
    ) -> hull_model::Result<mpsc::Receiver<Event>> {
        const KNOWN: [&str; 11] = [
            "config",
            "container",
            "daemon",
            "event",
            "image",
            "label",
            "network",
            "scope",
            "type",
            "volume",
            "label!",
        ];
        filters.allow_only(&KNOWN)?;
        Ok(self.events.listen(since_ns, until_ns, filters))
    }
}

fn wanted(event: &Event, filters: &Filters) -> bool {
    let named = |v: &str| {
        event.id == v
            || (v.len() >= 4 && event.id.starts_with(v))
            || event.attributes.get("name").is_some_and(|n| n == v)
    };
    let base = event.action.split(':').next().unwrap_or_default();
    filters.matches("type", |v| v == event.kind)
        && filters.matches("event", |v| v == base || v == event.action)
        && filters.matches("container", |v| event.kind == "container" && named(v))
        && filters.matches("volume", |v| event.kind == "volume" && named(v))
        && filters.matches("network", |v| event.kind == "network" && named(v))
        && filters.matches("image", |v| {
            (event.kind == "image" && named(v))
                || event.attributes.get("image").is_some_and(|i| i == v)
        })
        && filters.match_labels(&event.attributes)
}
