//! Counters of a family whose number of series is bounded, whatever the cluster does.

use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::exemplar::CounterWithExemplar;
use rustc_hash::{FxHashMap, FxHashSet};

use super::series::LabelPairs;
use crate::model::object::WorkloadRef;
use crate::model::time::Timestamp;

/// How many distinct folded series one family remembers, so as to count each of them once. Beyond it they
/// still fold, but `dryfence_series_folded_total` stays behind.
const FOLDED_REMEMBERED: usize = 10_000;

/// OpenMetrics allows an exemplar's label names and values 128 characters together; Prometheus drops longer ones.
const EXEMPLAR_CHARACTERS: usize = 128;

/// What tells one series of a family from another.
pub(super) trait Key: Clone + Eq + Hash {
    /// The workload whose budget the series spends, where it has one.
    fn subject(&self) -> Option<&WorkloadRef>;
    /// The workload at the other end, where the series names one.
    fn peer(&self) -> Option<&WorkloadRef>;
    /// The overflow series that stands for this one.
    fn folded(&self, into: Fold) -> Self;
    fn labels(&self) -> LabelPairs<'_>;
}

/// Which overflow series a series folds into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Fold {
    /// The workload's own: the subject is kept, the peer is not.
    Workload,
    /// The family's.
    Family,
}

/// How many series may exist before the rest folds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) per_workload: usize,
    pub(super) per_family: usize,
}

impl Limits {
    /// For families whose labels come from a closed list.
    pub(super) const NONE: Self = Self { per_workload: usize::MAX, per_family: usize::MAX };
}

/// One connection behind a count.
#[derive(Debug, Clone)]
pub(super) struct Example {
    pub(super) pod: Arc<str>,
    pub(super) peer: ExamplePeer,
    pub(super) count: u64,
    pub(super) at: Timestamp,
}

#[derive(Debug, Clone)]
pub(super) enum ExamplePeer {
    Name(Arc<str>),
    Address(IpAddr),
    None,
}

#[derive(Debug, Default)]
struct Slot {
    value: u64,
    /// What the last scrape showed; `None` before the first, which shows 0: a counter that starts at its
    /// first value has no `increase()`.
    shown: Option<u64>,
    /// Its workload is gone: it goes too, once a scrape has seen the last value.
    gone: bool,
    example: Option<Example>,
}

#[derive(Debug, Default)]
struct Budget {
    series: usize,
    /// Once a workload's series fold, further ones do until it is forgotten, so that none moves back and forth.
    folds: Option<Fold>,
}

/// A family of counters with bounded labels.
#[derive(Debug)]
pub(super) struct Capped<K> {
    limits: Limits,
    slots: FxHashMap<K, Slot>,
    folded: FxHashMap<K, Fold>,
    budgets: FxHashMap<WorkloadRef, Budget>,
    /// The family's own overflow series, which the limit does not count.
    overflows: FxHashSet<K>,
    folded_total: u64,
}

impl<K: Key> Capped<K> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            slots: FxHashMap::default(),
            folded: FxHashMap::default(),
            budgets: FxHashMap::default(),
            overflows: FxHashSet::default(),
            folded_total: 0,
        }
    }

    /// Whether the series is known, on its own or folded.
    pub(super) fn knows(&self, key: &K) -> bool {
        self.slots.contains_key(key) || self.folded.contains_key(key)
    }

    /// Adds `count` to the series, or to the overflow series that stands for it.
    pub(super) fn add(&mut self, key: K, count: u64, example: Option<Example>) {
        let slot = self.slot(key);
        slot.value = slot.value.saturating_add(count);
        slot.example = example;
    }

    /// Raises the series to a cumulative value that is counted elsewhere; it never falls.
    pub(super) fn raise(&mut self, key: K, value: u64) {
        let slot = self.slot(key);
        slot.value = slot.value.max(value);
    }

    /// How many distinct series were folded since the start.
    pub(super) const fn folded_total(&self) -> u64 {
        self.folded_total
    }

    fn slot(&mut self, key: K) -> &mut Slot {
        // Asked twice, because the borrow checker cannot give back a reference and go on where there is none.
        let place = if self.slots.contains_key(&key) { key } else { self.place(key) };
        let slot = self.slots.entry(place).or_default();
        slot.gone = false;
        slot
    }

    /// The series that counts for `key`: itself, or an overflow series.
    fn place(&mut self, key: K) -> K {
        if let Some(fold) = self.folded.get(&key) {
            return key.folded(*fold);
        }
        let Some(fold) = self.fold(&key) else {
            if let Some(workload) = key.subject() {
                self.budgets.entry(workload.clone()).or_default().series += 1;
            }
            return key;
        };
        let target = key.folded(fold);
        if self.folded.len() < FOLDED_REMEMBERED {
            self.folded_total = self.folded_total.saturating_add(1);
            self.folded.insert(key, fold);
        }
        if fold == Fold::Family {
            self.overflows.insert(target.clone());
        }
        target
    }

    fn fold(&mut self, key: &K) -> Option<Fold> {
        let full = self.slots.len().saturating_sub(self.overflows.len()) >= self.limits.per_family;
        let Some(workload) = key.subject() else { return full.then_some(Fold::Family) };
        let own = self.budgets.get(workload);
        if let Some(fold) = own.and_then(|budget| budget.folds) {
            let has_room = !full || self.slots.contains_key(&key.folded(fold));
            return Some(if has_room { fold } else { Fold::Family });
        }
        let spent = own.is_some_and(|budget| budget.series >= self.limits.per_workload);
        let fold = match (full, spent) {
            (true, _) => Fold::Family,
            (false, true) => Fold::Workload,
            (false, false) => return None,
        };
        self.budgets.entry(workload.clone()).or_default().folds = Some(fold);
        Some(fold)
    }

    /// Lets the series of a workload that is gone disappear: at once if the last scrape showed their values,
    /// else after the scrape that does. Overflow series stay, what was folded into them too.
    pub(super) fn forget(&mut self, workload: &WorkloadRef) {
        let concerns = |key: &K| key.subject() == Some(workload) || key.peer() == Some(workload);
        for (_, slot) in self.slots.iter_mut().filter(|(key, _)| concerns(key)) {
            slot.gone = true;
        }
        self.folded.retain(|key, _| !concerns(key));
        self.budgets.remove(workload);
        self.drop_gone();
    }

    fn drop_gone(&mut self) {
        let budgets = &mut self.budgets;
        self.slots.retain(|key, slot| {
            let stays = !slot.gone || slot.shown != Some(slot.value);
            if !stays && let Some(budget) = key.subject().and_then(|workload| budgets.get_mut(workload)) {
                budget.series = budget.series.saturating_sub(1);
            }
            stays
        });
    }

    /// Writes all series in the order of their labels. A new one is written as 0.
    pub(super) fn encode(&mut self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let mut rows: Vec<_> = self.slots.iter_mut().map(|(key, slot)| (key.labels(), slot)).collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        for (labels, slot) in rows {
            let value = if slot.shown.is_none() { 0 } else { slot.value };
            // An exemplar is shown once: it belongs to the scrape in which its connections were counted.
            let example = if slot.shown.is_none() { None } else { slot.example.take() };
            slot.shown = Some(value);
            encode_counter(&mut encoder, &labels, value, example)?;
        }
        self.drop_gone();
        Ok(())
    }
}

/// Writes one counter series.
fn encode_counter(
    encoder: &mut MetricEncoder<'_>,
    labels: &LabelPairs<'_>,
    value: u64,
    example: Option<Example>,
) -> fmt::Result {
    // `prometheus_client` builds an exemplar only through its own counter, so the series is replayed into one.
    let counter: CounterWithExemplar<Vec<(&str, String)>> = CounterWithExemplar::default();
    let example = example.filter(|example| example.count > 0 && example.count <= value);
    let last = example.as_ref().map_or(0, |example| example.count);
    counter.inc_by(value - last, None, None);
    if let Some(example) = example {
        let at = UNIX_EPOCH.checked_add(Duration::from_nanos(example.at.as_nanos()));
        counter.inc_by(last, example_labels(&example), at.or_else(|| Some(SystemTime::now())));
    }
    counter.encode(encoder.encode_family(labels)?)
}

/// The exemplar's labels, or `None` where they are longer than OpenMetrics allows.
fn example_labels(example: &Example) -> Option<Vec<(&'static str, String)>> {
    let mut labels = vec![("pod", example.pod.to_string())];
    match &example.peer {
        ExamplePeer::Name(name) => labels.push(("peer", name.to_string())),
        ExamplePeer::Address(address) => labels.push(("peer", address.to_string())),
        ExamplePeer::None => {}
    }
    let characters: usize =
        labels.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum();
    (characters <= EXEMPLAR_CHARACTERS).then_some(labels)
}
