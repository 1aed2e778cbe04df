//! What a candidate would change, on recorded edges: newly denied, newly allowed, still denied, unknown.
//!
//! Pure: no I/O, no clock. Every recorded edge is judged twice by the judges of the live agent, by the policies,
//! segment maps and exceptions of the base and by those that the API server would hold after the candidate; recorded pods whose workload, pod or
//! namespace the candidate edits are judged by their new labels and ports. What was recorded keeps the identity it
//! had at the time otherwise.

mod build;
mod candidate;
mod compare;
mod confidence;
mod relabel;
mod seen;
mod segments;
#[cfg(test)]
pub(crate) mod tests;

use serde::Serialize;

pub use self::build::preview;
pub use self::candidate::{Action, Edit};
pub use self::segments::MapChange;
use crate::finding::{Denial, End};
use crate::history::file::Gap;
use crate::model::cause::Cause;
use crate::model::dialect::Dialect;
use crate::model::edge::{Direction, Protocol};
use crate::model::record::{DecisionRecord, ExceptionRecord, LossRecord};
use crate::model::scenario::Assumption;
use crate::model::time::Timestamp;
use crate::model::verdict::Verdict;

/// What the candidate is laid over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Base {
    /// The policies that the base objects hold.
    #[default]
    Enforced,
    /// No policy at all.
    Empty,
}

/// Which namespaces get a deny-all besides the candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DenyScope {
    /// Every one but `kube-system`.
    All,
    Namespaces(Vec<String>),
}

/// How to preview.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub dialect: Dialect,
    pub base: Base,
    /// The candidate's policies are removed from the base instead of laid over it.
    pub delete: bool,
    pub default_deny: Option<DenyScope>,
    /// What default-deny allows besides.
    pub assume: Vec<Assumption>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dialect: Dialect::STANDARD,
            base: Base::Enforced,
            delete: false,
            default_deny: None,
            assume: vec![Assumption::Dns],
        }
    }
}

/// What a candidate would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Preview {
    pub cluster: String,
    pub window: Window,
    pub dialect: String,
    /// What the candidate is laid over, in words.
    pub base: String,
    /// What the candidate does to the base.
    pub edits: Vec<Edit>,
    /// What was taken for granted, one sentence each.
    pub assumed: Vec<String>,
    pub warnings: Vec<String>,
    /// Workloads of the base and the candidate of which no connection was recorded: `namespace/Kind/name`.
    pub never_seen: Vec<String>,
    /// How far all this can be relied on, in one sentence.
    pub confidence: String,
    pub counts: Counts,
    pub newly_denied: Vec<Group>,
    pub newly_allowed: Vec<Group>,
    pub unknown: Vec<Group>,
    pub still_denied: Vec<Group>,
    /// What would be newly denied, were it not for an EdgeException: known, and nothing new.
    pub excepted: Vec<Group>,
    /// What segment maps say, whatever the policies: one for each map that there is before or after.
    pub segments: Vec<MapChange>,
}

/// From when to when was recorded, and what was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Window {
    pub start: Timestamp,
    pub end: Timestamp,
    pub seconds: u64,
    pub gaps: Vec<Gap>,
    pub losses: Vec<LossRecord>,
    /// Pods that could not be observed at all.
    pub unobserved: Vec<String>,
}

/// How much there is of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Amount {
    /// From one workload or place to another, on one port.
    pub findings: u64,
    /// Each counted once, wherever it was seen.
    pub connections: u64,
}

/// How much changes, and how much does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Recorded edges that were judged.
    pub edges: u64,
    pub newly_denied: Amount,
    pub newly_allowed: Amount,
    pub still_denied: Amount,
    /// Newly denied, and muted by an EdgeException; in no other number.
    pub excepted: Amount,
    /// Unknown before, after, or both.
    pub unknown: Amount,
    /// Those of them that were not unknown before, or are no longer.
    pub unknown_changed: Amount,
    /// Those of them that are unknown with the candidate.
    pub unknown_after: Amount,
    /// Allowed before and after.
    pub unchanged: Amount,
    /// What segment maps newly forbid, no longer forbid, and forbid as before.
    pub new_violations: Amount,
    pub gone_violations: Amount,
    pub kept_violations: Amount,
}

impl Amount {
    fn plus(self, other: Self) -> Self {
        Self {
            findings: self.findings.saturating_add(other.findings),
            connections: self.connections.saturating_add(other.connections),
        }
    }
}

/// Findings of one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    pub cause: Cause,
    pub title: &'static str,
    pub owners: Vec<Owned>,
}

/// Findings of one owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owned {
    /// The workload whose side changes (the initiator's, where both do): `namespace/Kind/name`.
    pub owner: String,
    pub findings: Vec<Finding>,
}

/// One connection, with both of its sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub initiator: End,
    pub responder: End,
    /// The responder's port; for ICMP, type × 256 + code.
    pub port: u16,
    pub protocol: Protocol,
    pub before: Verdict,
    pub after: Verdict,
    /// Counted once, wherever they were seen.
    pub connections: u64,
    /// Attempts to open one, accepted or not. Where there is no connection, nobody accepted any so far.
    pub attempts: u64,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    /// The exception that mutes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exception: Option<ExceptionRecord>,
    /// The directions that change, are denied, or are unknown.
    pub sides: Vec<Side>,
}

/// One direction of a connection, before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Side {
    pub direction: Direction,
    pub before: DecisionRecord,
    pub after: DecisionRecord,
    /// Where it is denied with the candidate: whose it is, and what would allow it.
    pub denial: Option<Denial>,
}

/// Which differences matter to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailOn {
    NewlyDenied,
    NewlyAllowed,
    /// What a segment map newly forbids.
    NewViolation,
    /// Anything that cannot be judged with the candidate.
    Unknown,
    /// Newly denied, newly allowed, unknown where it was not or no longer where it was, or a segment map forbids
    /// other things than before.
    #[default]
    Any,
    None,
}

/// What a caller can conclude.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No difference that matters, in what was recorded.
    Same,
    Different,
    /// No difference that matters was found, but there was nothing to find one in, edges were lost, or something
    /// could not be judged.
    CannotTell,
}

impl FailOn {
    const fn asks_segments(self) -> bool {
        matches!(self, Self::NewViolation | Self::Any)
    }
}

impl Preview {
    /// Whether there is a difference that matters.
    pub fn outcome(&self, fail_on: FailOn) -> Outcome {
        let counts = &self.counts;
        let (denied, allowed) = (counts.newly_denied.findings > 0, counts.newly_allowed.findings > 0);
        let different = match fail_on {
            FailOn::None => return Outcome::Same,
            FailOn::NewlyDenied => denied,
            FailOn::NewlyAllowed => allowed,
            FailOn::NewViolation => counts.new_violations.findings > 0,
            FailOn::Unknown => counts.unknown_after.findings > 0,
            FailOn::Any => {
                let violations = [counts.new_violations, counts.gone_violations];
                denied
                    || allowed
                    || counts.unknown_changed.findings > 0
                    || violations.iter().any(|amount| amount.findings > 0)
            }
        };
        if different {
            return Outcome::Different;
        }
        let lost = self.window.losses.iter().any(|loss| loss.edges > 0);
        let unsure = counts.unknown.findings > 0
            || self.segments.iter().any(|map| fail_on.asks_segments() && !map.unknown.is_empty());
        let blind = counts.edges == 0 || lost || unsure;
        if blind && self.changes_something() { Outcome::CannotTell } else { Outcome::Same }
    }

    /// Whether the candidate is anything but what the base holds already.
    pub fn changes_something(&self) -> bool {
        self.edits.iter().any(|edit| !matches!(edit.action, Action::Keeps | Action::Misses))
    }

    /// Every finding with its cause, what is newly denied first.
    pub fn findings(&self) -> impl Iterator<Item = (Cause, &Owned, &Finding)> {
        let groups =
            [&self.newly_denied, &self.newly_allowed, &self.unknown, &self.still_denied, &self.excepted];
        groups.into_iter().flatten().flat_map(Group::findings)
    }
}

impl Group {
    /// Its findings, in the order in which they are shown.
    pub fn findings(&self) -> impl Iterator<Item = (Cause, &Owned, &Finding)> {
        let cause = self.cause;
        self.owners.iter().flat_map(move |owned| owned.findings.iter().map(move |f| (cause, owned, f)))
    }
}
