//! How each watch stands: what readiness, metrics, and the index are told of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::kinds::Kind;
use crate::cluster::index::Gaps;
use crate::model::time::Timestamp;

/// The state of every watch. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Watches(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    by_kind: Mutex<BTreeMap<&'static str, State>>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    kind: Kind,
    /// A list was whole once, and is followed since.
    synced: bool,
    /// Why the last request failed; `None` while the watch goes on.
    error: Option<String>,
    /// Since when it failed.
    broken_since: Option<Timestamp>,
    answered: Option<Instant>,
    restarts: u64,
    objects: u64,
    unreadable: u64,
}

/// One watch, for readiness and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchReading {
    pub kind: &'static str,
    pub synced: bool,
    /// Why the last request failed, while it does.
    pub error: Option<String>,
    /// How long ago the server answered last; `None` if it never did.
    pub age: Option<Duration>,
    /// How often the watch had to be begun again after an error.
    pub restarts: u64,
    pub objects: u64,
    /// Objects that could not be read as they are.
    pub unreadable: u64,
}

impl Watches {
    /// Adds a kind, not synced yet.
    pub(super) fn add(&self, kind: Kind) {
        let state = State {
            kind,
            synced: false,
            error: None,
            broken_since: None,
            answered: None,
            restarts: 0,
            objects: 0,
            unreadable: 0,
        };
        self.lock().insert(kind.name, state);
        self.0.changed.notify_one();
    }

    /// Adds a kind unless it is there.
    pub(super) fn expect(&self, kind: Kind) {
        let is_there = self.lock().contains_key(kind.name);
        if !is_there {
            self.add(kind);
        }
    }

    /// Forgets a kind that the server has no more.
    pub(super) fn remove(&self, kind: &Kind) {
        self.lock().remove(kind.name);
        self.0.changed.notify_one();
    }

    /// A list of the kind is whole, and handed on.
    pub(super) fn synced(&self, kind: &Kind) {
        self.update(kind, |state| {
            let news = !state.synced || state.error.is_some();
            (state.synced, state.error, state.broken_since) = (true, None, None);
            state.answered = Some(Instant::now());
            news
        });
    }

    /// The server answered a request, or sent an event.
    pub(super) fn answered(&self, kind: &str) {
        let mut by_kind = self.lock();
        let Some(state) = by_kind.get_mut(kind) else { return };
        state.answered = Some(Instant::now());
        // Before there was a whole list, it is the list that ends the error.
        if state.synced && state.error.take().is_some() {
            state.broken_since = None;
            drop(by_kind);
            self.0.changed.notify_one();
        }
    }

    /// A request failed. The first time, and when another error follows, it is news.
    pub(super) fn failed(&self, kind: &Kind, error: String) -> bool {
        let mut fresh = false;
        self.update(kind, |state| {
            state.restarts += 1;
            fresh = state.error.as_ref() != Some(&error);
            state.broken_since.get_or_insert_with(Timestamp::now);
            state.error = Some(error);
            fresh
        });
        fresh
    }

    /// How many objects of the kind there are, and how many of them could not be read.
    pub(super) fn count(&self, kind: &str, objects: u64, unreadable: u64) {
        if let Some(state) = self.lock().get_mut(kind) {
            (state.objects, state.unreadable) = (objects, unreadable);
        }
    }

    fn update(&self, kind: &Kind, change: impl FnOnce(&mut State) -> bool) {
        let news = self.lock().get_mut(kind.name).is_some_and(change);
        if news {
            self.0.changed.notify_one();
        }
    }

    /// Waits until what [`Watches::gaps`] says may be something else. For one task only.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// What the index is to be told.
    pub fn gaps(&self) -> Gaps {
        let by_kind = self.lock();
        let missing = || by_kind.values().filter(|state| !state.synced);
        let names = |states: &mut dyn Iterator<Item = &State>| -> BTreeSet<Arc<str>> {
            states.map(|state| Arc::from(state.kind.name)).collect()
        };
        let stale = by_kind.values().filter(|state| state.synced && Gaps::is_addressed(state.kind.name));
        Gaps {
            missing: names(&mut missing()),
            missing_policies: names(&mut missing().filter(|state| state.kind.decides)),
            is_starting: missing().any(|state| state.error.is_none()),
            stale_since: stale.filter_map(|state| state.broken_since).min(),
        }
    }

    /// Every watch, in order of kind.
    pub fn readings(&self) -> Vec<WatchReading> {
        let by_kind = self.lock();
        let reading = |state: &State| WatchReading {
            kind: state.kind.name,
            synced: state.synced,
            error: state.error.clone(),
            age: state.answered.map(|at| at.elapsed()),
            restarts: state.restarts,
            objects: state.objects,
            unreadable: state.unreadable,
        };
        by_kind.values().map(reading).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, State>> {
        // Every change is whole or did not happen.
        self.0.by_kind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WatchReading {
    /// What is wrong with it, in a sentence; `None` where nothing is.
    pub fn problem(&self) -> Option<String> {
        match (self.synced, &self.error) {
            (true, None) => None,
            (true, Some(error)) => Some(format!("news of kind {} are missed: {error}", self.kind)),
            (false, None) => Some(format!("kind {} is not read yet", self.kind)),
            (false, Some(error)) => {
                Some(format!("kind {} cannot be read, what depends on it is unknown: {error}", self.kind))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::kinds::WATCHED;
    use super::*;

    fn kind(name: &str) -> Kind {
        *WATCHED.iter().find(|kind| kind.name == name).unwrap()
    }

    fn names(kinds: &[&str]) -> BTreeSet<Arc<str>> {
        kinds.iter().map(|kind| Arc::from(*kind)).collect()
    }

    #[test]
    fn a_kind_is_missing_until_its_list_is_whole_and_starting_until_it_failed() {
        let watches = Watches::default();
        let (pods, policies) = (kind("Pod"), kind("NetworkPolicy"));
        [pods, policies].into_iter().for_each(|kind| watches.add(kind));
        let gaps = watches.gaps();
        assert_eq!(gaps.missing, names(&["NetworkPolicy", "Pod"]));
        assert_eq!(gaps.missing_policies, names(&["NetworkPolicy"]));
        assert!(gaps.is_starting);
        watches.synced(&pods);
        assert!(watches.failed(&policies, "forbidden".to_owned()));
        assert!(!watches.failed(&policies, "forbidden".to_owned()), "said once");
        let gaps = watches.gaps();
        assert!(!gaps.is_starting, "what was refused is not waited for");
        assert_eq!(gaps.missing, names(&["NetworkPolicy"]));
        // An answer is no list.
        watches.answered("NetworkPolicy");
        assert_eq!(watches.gaps(), gaps);
        watches.synced(&policies);
        assert_eq!(watches.gaps(), Gaps::default());
    }

    #[test]
    fn news_are_missed_from_the_first_error_to_the_next_answer() {
        let watches = Watches::default();
        let (pods, policies) = (kind("Pod"), kind("NetworkPolicy"));
        for kind in [pods, policies] {
            watches.add(kind);
            watches.synced(&kind);
            watches.failed(&kind, "connection refused".to_owned());
        }
        let since = watches.gaps().stale_since;
        assert!(since.is_some());
        watches.failed(&pods, "no route to host".to_owned());
        assert_eq!(watches.gaps().stale_since, since);
        let problems: Vec<String> = watches.readings().iter().filter_map(WatchReading::problem).collect();
        assert_eq!(
            problems,
            [
                "news of kind NetworkPolicy are missed: connection refused",
                "news of kind Pod are missed: no route to host"
            ]
        );
        watches.answered("Pod");
        assert_eq!(watches.gaps().stale_since, None, "policies have no addresses");
        assert!(watches.gaps().missing.is_empty());
    }
}
