//! What was lost, what came late, and how the attachments are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dryfence_common::counter::{Counter, Meaning};

use super::attach::Means;
use super::programs::KernelCounters;
use crate::model::record::LossRecord;

/// How capture is doing, beside losses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// How programs are attached on this kernel.
    pub means: Means,
    /// Interfaces that are watched now.
    pub watched: usize,
    /// Interfaces that are a pod's but cannot be watched, by name, and why.
    pub failed: BTreeMap<String, String>,
    /// Interfaces that were gone before the programs could be attached.
    pub vanished: u64,
    /// Readings that the kernel refused; the next one makes up for it.
    pub failed_readings: u64,
    /// How often the kernel had more to tell about interfaces than we took, and all were listed again.
    pub overruns: u64,
    /// How often news of interfaces could not be read, and all were listed again.
    pub unreadable: u64,
    /// How often they could not be listed, and that was tried again.
    pub failed_listings: u64,
    /// Connections in the kernel that match no edge.
    pub orphans: usize,
    /// How often the sockets of a pod could not be read, though that was asked for.
    pub unread_sockets: u64,
    /// Connections older than the agent that its sockets showed and that were not told: too many, or at no
    /// interface that we could name.
    pub untold_sockets: u64,
    /// How often others had taken the programs off an interface, and they were attached again.
    pub reattached: u64,
    /// For how long, at most, interfaces were not watched because of that; summed.
    pub gap: Duration,
    /// Filters that an agent before had left, and that were removed at start.
    pub swept: usize,
    /// New edges that were found by the timer instead of the ring buffer. Late, not lost.
    pub late: u64,
    /// Edges that left the kernel after long silence. They stay in the ledger.
    pub left: u64,
    /// Edges that left sooner: nobody had ever accepted them, and room was short.
    pub evicted: u64,
    /// Packets that nobody judges, by kind.
    pub not_judged: BTreeMap<&'static str, u64>,
}

/// What the task counts, shared with [`super::Capture`].
#[derive(Debug, Clone)]
pub(super) struct Counts {
    pub(super) means: Means,
    pub(super) watched: usize,
    pub(super) failed: BTreeMap<String, String>,
    pub(super) vanished: u64,
    pub(super) failed_readings: u64,
    pub(super) overruns: u64,
    pub(super) unreadable: u64,
    pub(super) failed_listings: u64,
    /// Packets that matched no edge and belonged to no connection.
    pub(super) strays: u64,
    pub(super) orphans: usize,
    pub(super) unread_sockets: u64,
    pub(super) untold_sockets: u64,
    pub(super) reattached: u64,
    pub(super) gap: Duration,
    pub(super) swept: usize,
    pub(super) left: u64,
    pub(super) evicted: u64,
}

impl Counts {
    const fn new(means: Means) -> Self {
        Self {
            means,
            watched: 0,
            failed: BTreeMap::new(),
            vanished: 0,
            failed_readings: 0,
            overruns: 0,
            unreadable: 0,
            failed_listings: 0,
            strays: 0,
            orphans: 0,
            unread_sockets: 0,
            untold_sockets: 0,
            reattached: 0,
            gap: Duration::ZERO,
            swept: 0,
            left: 0,
            evicted: 0,
        }
    }
}

pub(super) struct Losses {
    kernel: Arc<KernelCounters>,
    counts: Mutex<Counts>,
}

impl std::fmt::Debug for Losses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Losses").field(&self.counts()).finish()
    }
}

impl Losses {
    pub(super) fn new(kernel: Arc<KernelCounters>, means: Means) -> Self {
        Self { kernel, counts: Mutex::new(Counts::new(means)) }
    }

    pub(super) fn counts(&self) -> MutexGuard<'_, Counts> {
        // Numbers stay right if somebody panicked while holding them.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn records(&self) -> Vec<LossRecord> {
        let mut records = records(&self.kernel.all());
        let strays = self.counts().strays;
        if strays > 0 {
            let (stage, reason) = ("orphan".to_owned(), "no-connection".to_owned());
            records.push(LossRecord { stage, reason, packets: strays, edges: 0 });
        }
        records
    }

    pub(super) fn status(&self) -> Status {
        Status::of(self.counts().clone(), &self.kernel.all())
    }
}

impl Status {
    /// Of capture by these means that has seen nothing yet.
    #[cfg(test)]
    pub(crate) fn quiet(means: Means) -> Self {
        Self::of(Counts::new(means), &[])
    }

    fn of(counts: Counts, kernel: &[(Counter, u64)]) -> Self {
        let of = |meaning| kernel.iter().filter(move |(counter, _)| counter.meaning() == meaning);
        Self {
            means: counts.means,
            watched: counts.watched,
            failed: counts.failed,
            vanished: counts.vanished,
            failed_readings: counts.failed_readings,
            overruns: counts.overruns,
            unreadable: counts.unreadable,
            failed_listings: counts.failed_listings,
            orphans: counts.orphans,
            unread_sockets: counts.unread_sockets,
            untold_sockets: counts.untold_sockets,
            reattached: counts.reattached,
            gap: counts.gap,
            swept: counts.swept,
            left: counts.left,
            evicted: counts.evicted,
            late: of(Meaning::Late).map(|(_, number)| number).sum(),
            not_judged: of(Meaning::NotJudged).map(|(counter, number)| (counter.reason(), *number)).collect(),
        }
    }
}

fn records(counted: &[(Counter, u64)]) -> Vec<LossRecord> {
    let mut records: BTreeMap<(&str, &str), LossRecord> = BTreeMap::new();
    for (counter, number) in counted {
        let (stage, reason) = (counter.stage(), counter.reason());
        let (packets, edges) = match counter.meaning() {
            Meaning::LostPackets => (*number, 0),
            Meaning::LostEdges => (0, *number),
            Meaning::Late | Meaning::NotJudged => continue,
        };
        let record = records.entry((stage, reason)).or_insert_with(|| LossRecord {
            stage: stage.to_owned(),
            reason: reason.to_owned(),
            packets: 0,
            edges: 0,
        });
        record.packets += packets;
        record.edges += edges;
    }
    records.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_and_edges_of_one_reason_are_one_record_and_lateness_is_none() {
        let counted = [
            (Counter::Truncated, 2),
            (Counter::EdgeMapFull, 5),
            (Counter::EdgeMapFullOpening, 3),
            (Counter::Late, 9),
            (Counter::Dhcp, 4),
        ];
        let mk = |stage: &str, reason: &str, packets, edges| LossRecord {
            stage: stage.to_owned(),
            reason: reason.to_owned(),
            packets,
            edges,
        };
        assert_eq!(records(&counted), [mk("edge-map", "full", 5, 3), mk("parse", "truncated", 2, 0)]);
    }
}
