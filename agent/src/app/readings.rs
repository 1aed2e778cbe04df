//! Figures that are read at a scrape, computed from the auditor once a tick.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::audit::auditor::Auditor;
use crate::capture::Status;
use crate::model::object::WorkloadRef;
use crate::model::outcome::Outcome;
use crate::model::record::LossRecord;
use crate::model::time::Timestamp;
use crate::model::verdict::Verdict;
use crate::serve::metrics::{PolicyState, Readings, Watch, WouldDenyEdges};

/// Figures over the whole ledger, and at which of its changes they were computed.
#[derive(Debug, Default)]
pub(super) struct LedgerFigures {
    at: Option<u64>,
    edges: Vec<(&'static str, Verdict, u64)>,
    would_deny: Vec<(WouldDenyEdges, u64)>,
}

impl LedgerFigures {
    /// Computes them again, if the ledger changed since. Of workloads that are not `present` the ledger still has edges,
    /// but they have no series.
    pub(super) fn refresh(&mut self, auditor: &Auditor, present: &FxHashSet<WorkloadRef>) {
        let now = Some(auditor.ledger_changes());
        if self.at != now {
            *self = Self { at: now, ..Self::of(auditor, present) };
        }
    }

    fn of(auditor: &Auditor, present: &FxHashSet<WorkloadRef>) -> Self {
        let mut edges: FxHashMap<(&'static str, Verdict), u64> = FxHashMap::default();
        let mut would_deny: FxHashMap<WouldDenyEdges, u64> = FxHashMap::default();
        for scenario in auditor.scenarios() {
            for verdict in [Verdict::Allow, Verdict::Deny, Verdict::Unknown] {
                edges.insert((scenario.name(), verdict), 0);
            }
        }
        for entry in auditor.ledger().entries() {
            let edge = &entry.edge;
            let connects = Outcome::of(edge.protocol, &edge.counters, edge.fully_visible).connections > 0;
            let scenarios = entry.answers.scenarios.iter().zip(&entry.answers.judgements);
            for (at, (scenario, judgement)) in scenarios.enumerate() {
                let verdict = judgement.of(edge.direction).verdict;
                *edges.entry((scenario.name(), verdict)).or_default() += 1;
                if verdict == Verdict::Deny
                    && connects
                    && let Some(subject) = edge.subject().as_pod()
                    && present.contains(&subject.workload)
                {
                    let series = WouldDenyEdges {
                        scenario: scenario.name(),
                        direction: edge.direction,
                        subject: subject.workload.clone(),
                        cause: edge.cause,
                        excepted: entry.answers.exception(at).is_some(),
                    };
                    *would_deny.entry(series).or_default() += 1;
                }
            }
        }
        Self {
            at: None,
            edges: sorted(edges, |key| *key)
                .into_iter()
                .map(|((name, verdict), count)| (name, verdict, count))
                .collect(),
            would_deny: sorted(would_deny, |series| {
                (series.scenario, series.direction, series.subject.clone(), series.cause, series.excepted)
            }),
        }
    }
}

/// The figures as they are now.
pub(super) fn readings(
    auditor: &Auditor,
    ledger: &LedgerFigures,
    losses: Vec<LossRecord>,
    capture: &Status,
    policies: Vec<(String, PolicyState, u64)>,
    since: Timestamp,
    watches: Vec<Watch>,
) -> Readings {
    Readings {
        would_deny_edges: ledger.would_deny.clone(),
        edges: ledger.edges.clone(),
        losses,
        late_edges: capture.late,
        interfaces: vec![("watched", capture.watched as u64), ("failed", capture.failed.len() as u64)],
        capture_mishaps: vec![
            ("interface-vanished", capture.vanished),
            ("reattached", capture.reattached),
            ("news-missed", capture.overruns),
            ("news-unreadable", capture.unreadable),
            ("listing-failed", capture.failed_listings),
            ("reading-failed", capture.failed_readings),
            ("sockets-unread", capture.unread_sockets),
            ("sockets-untold", capture.untold_sockets),
        ],
        edges_left: vec![("idle", capture.left), ("unanswered", capture.evicted)],
        policies,
        window_start: Some(since),
        window_gap: capture.gap,
        pods_unobserved: auditor
            .unobserved_by_reason()
            .into_iter()
            .map(|(reason, pods)| (reason.as_str(), pods))
            .collect(),
        watches,
    }
}

/// In an order that does not change from scrape to scrape.
fn sorted<K, S: Ord>(counts: FxHashMap<K, u64>, by: impl Fn(&K) -> S) -> Vec<(K, u64)> {
    let mut rows: Vec<(K, u64)> = counts.into_iter().collect();
    rows.sort_by_cached_key(|(key, _)| by(key));
    rows
}
