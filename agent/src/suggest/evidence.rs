//! Evidence: what was recorded for a rule.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::edge::{Direction, Edge, Protocol};
use crate::model::time::Timestamp;

/// What one initiator or responder was seen to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The peer: a workload as `namespace/Kind/name`, a node or an address.
    pub who: String,
    /// Accepted connections (UDP: attempts). An edge that was seen at both of its pods counts once: the larger
    /// of the two sums. One to a Service counts for every workload behind it, since any may have taken it.
    pub connections: u64,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    /// Whether all of it rests on edges of which only one direction could be seen, so that nobody saw them
    /// accepted.
    pub unconfirmed: bool,
}

/// What one rule rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleEvidence {
    pub direction: Direction,
    /// The rule's index in the policy's `ingress` or `egress`.
    pub rule: usize,
    /// For each entry of `from` or `to`, in its order, who it stands for, sorted by name.
    pub peers: Vec<Vec<Evidence>>,
}

/// The sum of what was recorded for one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    /// Connections counted at the rule's subject, and at the other end.
    here: u64,
    there: u64,
    first_seen: Timestamp,
    last_seen: Timestamp,
    unconfirmed: bool,
}

impl Tally {
    /// What an edge says for a rule of `direction`.
    pub(super) fn of(edge: &Edge, direction: Direction) -> Self {
        let counters = &edge.counters;
        let unconfirmed = edge.protocol != Protocol::Udp && counters.accepted == 0;
        let connections = match edge.protocol {
            Protocol::Udp => counters.attempts.max(counters.accepted),
            _ if unconfirmed => counters.attempts,
            _ => counters.accepted,
        };
        let (here, there) = if edge.direction == direction { (connections, 0) } else { (0, connections) };
        Self { here, there, first_seen: edge.first_seen, last_seen: edge.last_seen, unconfirmed }
    }

    fn add(&mut self, other: Self) {
        self.here = self.here.saturating_add(other.here);
        self.there = self.there.saturating_add(other.there);
        self.first_seen = self.first_seen.min(other.first_seen);
        self.last_seen = self.last_seen.max(other.last_seen);
        self.unconfirmed &= other.unconfirmed;
    }
}

/// What was recorded, by who it was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tallies(BTreeMap<String, Tally>);

impl Tallies {
    pub(super) fn add(&mut self, who: &str, tally: Tally) {
        match self.0.get_mut(who) {
            Some(known) => known.add(tally),
            None => {
                self.0.insert(who.to_owned(), tally);
            }
        }
    }

    pub(super) fn merge(&mut self, others: Self) {
        for (who, tally) in others.0 {
            self.add(&who, tally);
        }
    }

    /// All of it as done by one.
    pub(super) fn all_as(self, who: &str) -> Self {
        let mut all = Self::default();
        for tally in self.0.into_values() {
            all.add(who, tally);
        }
        all
    }

    pub(super) fn into_evidence(self) -> Vec<Evidence> {
        let evidence = |(who, tally): (String, Tally)| Evidence {
            who,
            connections: tally.here.max(tally.there),
            first_seen: tally.first_seen,
            last_seen: tally.last_seen,
            unconfirmed: tally.unconfirmed,
        };
        self.0.into_iter().map(evidence).collect()
    }
}
