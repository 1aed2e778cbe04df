//! What is read at each scrape: sizes, states and cumulative counts that other parts keep.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use rustc_hash::{FxHashMap, FxHashSet};

use super::series::{LabelPairs, OVERFLOW, bool_label, subject_labels};
use crate::model::cause::Cause;
use crate::model::edge::Direction;
use crate::model::object::WorkloadRef;
use crate::model::record::LossRecord;
use crate::model::time::Timestamp;
use crate::model::verdict::Verdict;

/// Everything that is read at a scrape.
#[derive(Debug, Clone, Default)]
pub struct Readings {
    pub would_deny_edges: Vec<(WouldDenyEdges, u64)>,
    /// Edges in the ledger by scenario and verdict.
    pub edges: Vec<(&'static str, Verdict, u64)>,
    /// Cumulative losses of all parts.
    pub losses: Vec<LossRecord>,
    /// New edges that were told late. Nothing was lost by that.
    pub late_edges: u64,
    /// Interfaces that lead to pods, by whether they are watched.
    pub interfaces: Vec<(&'static str, u64)>,
    /// What went wrong in capture and was made up for, or lost nothing, by what it was.
    pub capture_mishaps: Vec<(&'static str, u64)>,
    /// Edges that left the kernel, by reason. They are in the ledger.
    pub edges_left: Vec<(&'static str, u64)>,
    /// Policies by kind and state.
    pub policies: Vec<(String, PolicyState, u64)>,
    /// Since when we watch; `None` before the first packet can be seen.
    pub window_start: Option<Timestamp>,
    /// How long in the window we did not watch.
    pub window_gap: Duration,
    /// Local pods that cannot be observed, by reason.
    pub pods_unobserved: Vec<(&'static str, u64)>,
    /// What is followed of the cluster, by kind.
    pub watches: Vec<Watch>,
}

/// How the watch of one kind stands; `manifests` is the kind of what files hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    pub kind: &'static str,
    /// Whether everything has been read, and is followed.
    pub synced: bool,
    /// How long ago the source answered last, where it is one that is asked.
    pub age: Option<Duration>,
    pub restarts: u64,
    pub objects: u64,
    /// Objects that could not be read as they are.
    pub unreadable: u64,
}

/// What became of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyState {
    InForce,
    Refused,
    Partial,
    Unsupported,
}

impl PolicyState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InForce => "in_force",
            Self::Refused => "refused",
            Self::Partial => "partial",
            Self::Unsupported => "unsupported",
        }
    }
}

/// A series of `dryfence_would_deny_edges`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WouldDenyEdges {
    pub scenario: &'static str,
    pub direction: Direction,
    pub subject: WorkloadRef,
    pub cause: Cause,
    pub excepted: bool,
}

/// Where [`Readings`] come from. Asked at every scrape: it must not block.
pub trait Source: Send + Sync {
    fn readings(&self) -> Readings;
}

impl<F: Fn() -> Readings + Send + Sync> Source for F {
    fn readings(&self) -> Readings {
        self()
    }
}

/// Which series of `dryfence_would_deny_edges` have a place of their own. One that has it keeps it while it
/// is there, so that series do not trade places with the overflow from scrape to scrape.
#[derive(Debug)]
pub(super) struct Admitted {
    limit: usize,
    keys: FxHashSet<WouldDenyEdges>,
}

impl Admitted {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, keys: FxHashSet::default() }
    }

    /// Rows of labels and values, the overflow's last.
    fn rows<'a>(&mut self, edges: &'a [(WouldDenyEdges, u64)]) -> Vec<(LabelPairs<'a>, u64)> {
        let present: FxHashSet<&WouldDenyEdges> = edges.iter().map(|(key, _)| key).collect();
        self.keys.retain(|key| present.contains(key));
        let mut rows = Vec::new();
        let mut overflow: FxHashMap<(&'static str, Direction, bool), u64> = FxHashMap::default();
        for (key, count) in edges {
            if self.keys.contains(key) || self.keys.len() < self.limit {
                self.keys.insert(key.clone());
                let cause = key.cause.as_str();
                rows.push((
                    labels(key.scenario, key.direction, Some(&key.subject), cause, key.excepted),
                    *count,
                ));
            } else {
                let sum = overflow.entry((key.scenario, key.direction, key.excepted)).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
        rows.extend(overflow.into_iter().map(|((scenario, direction, excepted), count)| {
            (labels(scenario, direction, None, OVERFLOW, excepted), count)
        }));
        rows
    }
}

fn labels<'a>(
    scenario: &'static str,
    direction: Direction,
    subject: Option<&'a WorkloadRef>,
    cause: &'static str,
    excepted: bool,
) -> LabelPairs<'a> {
    let mut labels = vec![("scenario", scenario.into()), ("direction", direction.as_str().into())];
    labels.extend(subject_labels(subject));
    labels.extend([("cause", cause.into()), ("excepted", bool_label(excepted).into())]);
    labels
}

/// Writes all gauges of `readings`.
pub(super) fn encode(
    readings: &Readings,
    admitted: &mut Admitted,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    gauge(
        encoder,
        "dryfence_would_deny_edges",
        "Edges in the ledger that a scenario would deny in the direction judged here",
        admitted.rows(&readings.would_deny_edges),
    )?;
    let edges = readings.edges.iter().map(|(scenario, verdict, count)| {
        (vec![("scenario", (*scenario).into()), ("verdict", verdict.as_str().into())], *count)
    });
    gauge(encoder, "dryfence_edges", "Edges in the ledger by their verdict", edges.collect())?;
    let policies = readings
        .policies
        .iter()
        .map(|(kind, state, count)| (vec![("kind", kind.into()), ("state", state.as_str().into())], *count));
    gauge(encoder, "dryfence_policies", "Policies by kind and by what became of them", policies.collect())?;
    let start = readings.window_start.map(|start| (Vec::new(), start.as_secs_f64()));
    gauge(
        encoder,
        "dryfence_window_start_timestamp_seconds",
        "Since when connections are recorded, in seconds since the Unix epoch",
        start.into_iter().collect(),
    )?;
    let unobserved = readings.pods_unobserved.iter();
    gauge(
        encoder,
        "dryfence_pods_unobserved",
        "Pods of this node whose connections cannot be seen",
        unobserved.map(|(reason, count)| (vec![("reason", (*reason).into())], *count)).collect(),
    )?;
    let mut late = encoder.encode_descriptor(
        "dryfence_late_edges",
        "New edges that the timer found because the ring was full: late, not lost",
        None,
        MetricType::Counter,
    )?;
    late.encode_counter::<NoLabelSet, _, u64>(&readings.late_edges, None)?;
    let interfaces = readings.interfaces.iter();
    gauge(
        encoder,
        "dryfence_interfaces",
        "Interfaces that lead to pods: watched now, or the programs cannot be attached",
        interfaces.map(|(state, count)| (vec![("state", (*state).into())], *count)).collect(),
    )?;
    let mut mishaps = encoder.encode_descriptor(
        "dryfence_capture_mishaps",
        "What went wrong while watching interfaces and reading counters, by what it was; losses are told apart",
        None,
        MetricType::Counter,
    )?;
    for (event, count) in &readings.capture_mishaps {
        mishaps.encode_family(&[("event", *event)])?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
    }
    let mut left = encoder.encode_descriptor(
        "dryfence_kernel_edges_left",
        "Edges that left the kernel after silence: idle, or never answered while room was short",
        None,
        MetricType::Counter,
    )?;
    for (reason, edges) in &readings.edges_left {
        left.encode_family(&[("reason", *reason)])?.encode_counter::<NoLabelSet, _, u64>(edges, None)?;
    }
    watches(&readings.watches, encoder)
}

fn watches(watches: &[Watch], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let rows = |value: fn(&Watch) -> u64| {
        watches.iter().map(|watch| (vec![("kind", watch.kind.into())], value(watch))).collect()
    };
    gauge(
        encoder,
        "dryfence_watch_synced",
        "Whether everything of a kind has been read and is followed",
        rows(|watch| u64::from(watch.synced)),
    )?;
    gauge(
        encoder,
        "dryfence_watch_objects",
        "Objects that there are of a kind",
        rows(|watch| watch.objects),
    )?;
    gauge(
        encoder,
        "dryfence_watch_unreadable_objects",
        "Objects of a kind that could not be read as they are",
        rows(|watch| watch.unreadable),
    )?;
    let age = |watch: &Watch| Some((vec![("kind", watch.kind.into())], watch.age?.as_secs_f64()));
    gauge(
        encoder,
        "dryfence_watch_age_seconds",
        "How long ago the API server answered last, or told news of a kind",
        watches.iter().filter_map(age).collect(),
    )?;
    let mut restarts = encoder.encode_descriptor(
        "dryfence_watch_restarts",
        "How often a watch failed and was begun again",
        None,
        MetricType::Counter,
    )?;
    for watch in watches {
        restarts
            .encode_family(&[("kind", watch.kind)])?
            .encode_counter::<NoLabelSet, _, u64>(&watch.restarts, None)?;
    }
    Ok(())
}

/// Writes one gauge family, in the order of its labels.
pub(super) fn gauge<V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &'static str,
    help: &'static str,
    mut rows: Vec<(LabelPairs<'_>, V)>,
) -> fmt::Result {
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in rows {
        if labels.is_empty() {
            metric.encode_gauge(&value)?;
        } else {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
    }
    Ok(())
}
