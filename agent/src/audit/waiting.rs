//! Observations whose ends are not known yet: they wait, bounded in time and number.

use rustc_hash::FxHashMap;

use super::binding::JOIN_PATIENCE;
use super::translations::{Opener, Part};
use crate::model::edge::EdgeKey;
use crate::model::time::Timestamp;

/// Observations that wait for an end to become known, one per edge and what is known of its initiator.
#[derive(Debug)]
pub struct Waiting {
    by_key: FxHashMap<(EdgeKey, Opener), (Part, Timestamp)>,
    most: usize,
}

impl Waiting {
    /// Holds at most `most` edges.
    pub fn new(most: usize) -> Self {
        Self { by_key: FxHashMap::default(), most }
    }

    /// Holds an observation, since `now`. Further ones of the same edge add up and do not prolong the wait.
    /// False if there is no room.
    pub fn hold(&mut self, part: Part, now: Timestamp) -> bool {
        let Part { seen, opener } = part;
        if let Some((Part { seen: held, .. }, _)) = self.by_key.get_mut(&(seen.key, opener)) {
            held.delta = held.delta.plus(seen.delta);
            held.last_seen = held.last_seen.max(seen.last_seen);
            held.read_at = seen.read_at;
            held.fully_visible |= seen.fully_visible;
            held.estimated |= seen.estimated;
            return true;
        }
        if self.by_key.len() >= self.most {
            return false;
        }
        self.put_back(part, now);
        true
    }

    /// Takes all out, each with when its wait began.
    pub fn take(&mut self) -> Vec<(Part, Timestamp)> {
        self.by_key.drain().map(|(_, held)| held).collect()
    }

    /// Puts one back that still has to wait.
    pub fn put_back(&mut self, part: Part, since: Timestamp) {
        self.by_key.insert((part.seen.key, part.opener), (part, since));
    }

    /// Whether a wait that began at `since` is over.
    pub fn is_over(since: Timestamp, now: Timestamp) -> bool {
        now.since(since) >= JOIN_PATIENCE
    }

    /// The edges that wait.
    pub fn keys(&self) -> impl Iterator<Item = &EdgeKey> {
        self.by_key.keys().map(|(key, _)| key)
    }

    /// How many edges wait.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}
