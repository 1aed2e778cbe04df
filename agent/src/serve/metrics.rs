//! Prometheus metrics: names and labels of the design, bounded by construction.
//!
//! A series is told apart by workloads, never by pods, and external peers by the word `world`, never by
//! their address. What grows beyond its bound folds:
//!
//! - a (scenario, direction, workload, peer) pair, or that of a segment map, has [`Caps::ports_per_pair`] ports
//!   of its own, further ones count under `port="many"`;
//! - a workload has [`Caps::series_per_workload`] series, further ones count under its own overflow series,
//!   whose peer, port, protocol and cause (and segments) are [`OVERFLOW`];
//! - a family has [`Caps::series_per_family`] series, further ones count under the family's overflow series,
//!   whose workload is [`OVERFLOW`] too.
//!
//! Nothing is lost by folding, only told apart less; `dryfence_series_folded_total` says how much.

mod capped;
mod process;
mod readings;
mod series;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use self::capped::{Capped, Example, ExamplePeer, Limits};
use self::readings::Admitted;
pub use self::readings::{PolicyState, Readings, Source, Watch, WouldDenyEdges};
pub use self::series::OVERFLOW;
use self::series::{Closed, Failed, Forbidden, Peer, PortLabel, Violation, WouldDeny};
use crate::model::cause::Cause;
use crate::model::edge::{Direction, IcmpErrors, Protocol};
use crate::model::endpoint::{Endpoint, Party, Pod};
use crate::model::object::WorkloadRef;
use crate::model::outcome::Outcome;
use crate::model::time::Timestamp;
use crate::model::verdict::{Decision, Reason, Verdict};

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The scenario whose denials nothing should get through.
const ENFORCED: &str = "enforced";

/// How many series an agent may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Ports that one pair counts apart.
    pub ports_per_pair: usize,
    /// Series of one workload in one family.
    pub series_per_workload: usize,
    /// Series of one family. It is per agent: a cluster has as many times that as it has nodes.
    pub series_per_family: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self { ports_per_pair: 8, series_per_workload: 50, series_per_family: 300 }
    }
}

/// What an edge counted in one interval, judged at the pod where it was seen.
#[derive(Debug, Clone, Copy)]
pub struct JudgedDelta<'a> {
    /// `Egress`: the subject is the initiator. `Ingress`: it is the responder.
    pub direction: Direction,
    /// The end at whose interface the edge was seen. Only a pod has series of its own.
    pub subject: &'a Party,
    pub peer: &'a Party,
    /// The responder's port; for ICMP, type × 256 + code.
    pub port: u16,
    pub protocol: Protocol,
    pub cause: Cause,
    pub outcome: Outcome,
    pub icmp_errors: IcmpErrors,
    /// When the last packet of the interval was seen.
    pub at: Timestamp,
    /// One answer a scenario.
    pub verdicts: &'a [ScenarioVerdict],
    /// The segment maps that forbid it.
    pub violations: &'a [SegmentViolation<'a>],
}

/// What a segment map forbids. It is no matter of a direction: of the two ends at which a connection can be
/// seen, the initiator's counts it, or the responder's where the initiator has no interface that is observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentViolation<'a> {
    pub segment_map: &'a Arc<str>,
    /// `None`: in no segment.
    pub from_segment: Option<&'a Arc<str>>,
    pub to_segment: Option<&'a Arc<str>>,
    /// `Info`, `Warning` or `Critical`.
    pub severity: &'static str,
    /// Whether an exception mutes the violation. It is counted all the same.
    pub excepted: bool,
}

impl JudgedDelta<'_> {
    /// Whether violations are counted where this was seen.
    fn counts_violations(&self) -> bool {
        match self.direction {
            Direction::Egress => true,
            Direction::Ingress => self.peer.as_pod().is_none_or(|pod| pod.host_network),
        }
    }
}

/// The answer of one scenario for the direction that is judged at the subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScenarioVerdict {
    pub scenario: &'static str,
    pub verdict: Verdict,
    /// Why the verdict is `Unknown`: [`crate::model::verdict::UnknownReason::code`].
    pub unknown: Option<&'static str>,
    /// Whether an exception mutes the denial. It is counted all the same.
    pub excepted: bool,
}

impl ScenarioVerdict {
    /// The answer as a decision gives it, without an exception.
    pub fn of(scenario: &'static str, decision: &Decision) -> Self {
        let unknown = match &decision.reason {
            Reason::Unknown(reason) => Some(reason.code()),
            _ => None,
        };
        Self { scenario, verdict: decision.verdict, unknown, excepted: false }
    }
}

/// Who forbids.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Forbids {
    Scenario(&'static str),
    SegmentMap(Arc<str>),
}

/// A (scenario or segment map, direction, workload, peer) pair.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Pair {
    by: Forbids,
    direction: Direction,
    subject: WorkloadRef,
    peer: Peer,
}

#[derive(Debug)]
struct Families {
    caps: Caps,
    would_deny: Capped<WouldDeny>,
    violations: Capped<Violation>,
    ports: FxHashMap<Pair, SmallVec<[(u16, Protocol); 8]>>,
    failed: Capped<Failed>,
    judged: Capped<Closed>,
    unknown: Capped<Closed>,
    mismatch: Capped<Closed>,
    lost_packets: Capped<Closed>,
    lost_edges: Capped<Closed>,
    icmp_errors: Capped<Closed>,
    would_deny_edges: Admitted,
}

/// All metrics of one agent.
pub struct Metrics {
    shared: Arc<Shared>,
    registry: Registry,
}

struct Shared {
    families: Mutex<Families>,
    source: Box<dyn Source>,
    rejudge: Histogram,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Metrics whose gauges are read from `source` at each scrape.
    pub fn new(caps: Caps, source: impl Source + 'static) -> Self {
        let shared = Arc::new(Shared {
            families: Mutex::new(Families::new(caps)),
            source: Box::new(source),
            // 1 ms to 33 s: a re-judge runs in slices over up to some hundred thousand edges.
            rejudge: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
        });
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(&shared)));
        Self { shared, registry }
    }

    /// Counts what an edge did in one interval.
    pub fn record(&self, delta: &JudgedDelta<'_>) {
        self.shared.families().record(delta);
    }

    /// Counts many under one lock.
    pub fn record_all<'a>(&self, deltas: impl IntoIterator<Item = JudgedDelta<'a>>) {
        let mut families = self.shared.families();
        for delta in deltas {
            families.record(&delta);
        }
    }

    /// Lets the series of a workload disappear that no longer exists. What no scrape has seen yet is shown once.
    pub fn forget_workload(&self, workload: &WorkloadRef) {
        self.shared.families().forget(workload);
    }

    /// Observes how long it took to judge the whole ledger again.
    pub fn rejudged(&self, took: Duration) {
        self.shared.rejudge.observe(took.as_secs_f64());
    }

    /// The exposition in OpenMetrics text. Counts as a scrape: what was new is no longer new after it.
    ///
    /// # Errors
    /// Only if a value cannot be formatted.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(16 * 1024);
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Families {
    fn new(caps: Caps) -> Self {
        let per_family = caps.series_per_family;
        let closed = || Capped::new(Limits::NONE);
        Self {
            caps,
            would_deny: Capped::new(Limits { per_workload: caps.series_per_workload, per_family }),
            violations: Capped::new(Limits { per_workload: caps.series_per_workload, per_family }),
            ports: FxHashMap::default(),
            failed: Capped::new(Limits { per_workload: usize::MAX, per_family }),
            judged: closed(),
            unknown: closed(),
            mismatch: closed(),
            lost_packets: closed(),
            lost_edges: closed(),
            icmp_errors: closed(),
            would_deny_edges: Admitted::new(per_family),
        }
    }

    fn record(&mut self, delta: &JudgedDelta<'_>) {
        self.record_failed(delta);
        for (kind, errors) in delta.icmp_errors.kinds() {
            if errors > 0 {
                let series = Closed::IcmpErrors { direction: delta.direction, kind };
                self.icmp_errors.add(series, errors, None);
            }
        }
        let connections = delta.outcome.connections;
        if connections == 0 {
            return;
        }
        for answer in delta.verdicts {
            let ScenarioVerdict { scenario, verdict, .. } = *answer;
            let judged = Closed::Judged { scenario, direction: delta.direction, verdict };
            self.judged.add(judged, connections, None);
            if verdict == Verdict::Deny {
                self.record_denied(delta, answer);
            }
        }
        if delta.counts_violations() {
            for violation in delta.violations {
                self.record_violation(delta, violation);
            }
        }
        // Once an edge, not once a scenario: the label is the reason alone.
        if let Some(reason) = delta.verdicts.iter().find_map(|answer| answer.unknown) {
            self.unknown.add(Closed::Unknown { reason }, connections, None);
        }
    }

    fn record_denied(&mut self, delta: &JudgedDelta<'_>, answer: &ScenarioVerdict) {
        if answer.scenario == ENFORCED && delta.outcome.accepted > 0 {
            let kind = "denied-but-accepted";
            self.mismatch.add(Closed::Mismatch { kind }, delta.outcome.accepted, None);
        }
        let Some(subject) = delta.subject.as_pod() else { return };
        let mut key = WouldDeny {
            scenario: answer.scenario,
            direction: delta.direction,
            forbidden: forbidden(delta, subject, answer.excepted),
        };
        if !self.would_deny.knows(&key) {
            let (by, peer) = (Forbids::Scenario(answer.scenario), key.forbidden.peer.clone());
            key.forbidden.port = self.bounded_port(delta, by, &subject.workload, peer);
        }
        self.would_deny.add(key, delta.outcome.connections, Some(example(delta, subject)));
    }

    fn record_violation(&mut self, delta: &JudgedDelta<'_>, violation: &SegmentViolation<'_>) {
        let Some(subject) = delta.subject.as_pod() else { return };
        let segment = |segment: Option<&Arc<str>>| segment.map_or_else(|| "".into(), Arc::clone);
        let mut key = Violation {
            segment_map: Arc::clone(violation.segment_map),
            segments: Some((segment(violation.from_segment), segment(violation.to_segment))),
            severity: violation.severity,
            forbidden: forbidden(delta, subject, violation.excepted),
        };
        if !self.violations.knows(&key) {
            let by = Forbids::SegmentMap(Arc::clone(violation.segment_map));
            let peer = key.forbidden.peer.clone();
            key.forbidden.port = self.bounded_port(delta, by, &subject.workload, peer);
        }
        self.violations.add(key, delta.outcome.connections, Some(example(delta, subject)));
    }

    /// The port of a new series: its own, or `many` where the pair has spent its ports.
    fn bounded_port(
        &mut self,
        delta: &JudgedDelta<'_>,
        by: Forbids,
        subject: &WorkloadRef,
        peer: Peer,
    ) -> PortLabel {
        let pair = Pair { by, direction: delta.direction, subject: subject.clone(), peer };
        let ports = self.ports.entry(pair).or_default();
        let port = (delta.port, delta.protocol);
        if ports.contains(&port) {
            return PortLabel::Is(delta.port);
        }
        if ports.len() < self.caps.ports_per_pair {
            ports.push(port);
            return PortLabel::Is(delta.port);
        }
        PortLabel::Many
    }

    fn record_failed(&mut self, delta: &JudgedDelta<'_>) {
        let Some(subject) = delta.subject.as_pod() else { return };
        for (outcome, count) in [("refused", delta.outcome.refused), ("unanswered", delta.outcome.unanswered)]
        {
            if count > 0 {
                let subject = Some(subject.workload.clone());
                self.failed.add(Failed { direction: delta.direction, subject, outcome }, count, None);
            }
        }
    }

    fn forget(&mut self, workload: &WorkloadRef) {
        self.would_deny.forget(workload);
        self.violations.forget(workload);
        self.failed.forget(workload);
        self.ports.retain(|pair, _| {
            let is_peer =
                matches!(&pair.peer, Peer::Workload(peer) | Peer::Service(peer) if peer == workload);
            pair.subject != *workload && !is_peer
        });
    }

    /// Takes over cumulative losses, which their own parts count.
    fn take_losses(&mut self, readings: &Readings) {
        for loss in &readings.losses {
            let key = Closed::Lost { stage: loss.stage.clone(), reason: loss.reason.clone() };
            self.lost_packets.raise(key.clone(), loss.packets);
            self.lost_edges.raise(key, loss.edges);
        }
    }

    fn encode_counters(&mut self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.would_deny.encode(counter(
            encoder,
            "dryfence_would_deny_connections",
            "Connections that a scenario would deny in the direction judged here: accepted ones; UDP: any",
        )?)?;
        self.violations.encode(counter(
            encoder,
            "dryfence_segment_violation_connections",
            "Connections that a segment map forbids, whatever the policies say: accepted ones; UDP: any",
        )?)?;
        self.judged.encode(counter(
            encoder,
            "dryfence_judged_connections",
            "Connections judged in the direction judged here, by verdict: accepted ones; UDP: any",
        )?)?;
        self.failed.encode(counter(
            encoder,
            "dryfence_failed_connections",
            "Connections that were refused or that nobody answered; no scenario counts them",
        )?)?;
        self.icmp_errors.encode(counter(
            encoder,
            "dryfence_icmp_errors",
            "ICMP errors that quoted a packet of an edge; nobody judges them",
        )?)?;
        self.unknown.encode(counter(
            encoder,
            "dryfence_unknown_connections",
            "Connections whose verdict is Unknown in some scenario, by what was missing",
        )?)?;
        self.mismatch.encode(counter(
            encoder,
            "dryfence_enforcement_mismatch_connections",
            "Connections that were accepted although the policies in force deny them",
        )?)?;
        self.lost_packets.encode(counter(
            encoder,
            "dryfence_lost_packets",
            "Packets that were not judged",
        )?)?;
        self.lost_edges.encode(counter(encoder, "dryfence_lost_edges", "Edges that were not recorded")?)
    }

    /// How many series were folded, by the metric they belong to.
    fn encode_folded(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(
            "dryfence_series_folded",
            "Series that count under an overflow series because a bound was reached",
            None,
            MetricType::Counter,
        )?;
        for (name, folded) in [
            ("dryfence_failed_connections_total", self.failed.folded_total()),
            ("dryfence_segment_violation_connections_total", self.violations.folded_total()),
            ("dryfence_would_deny_connections_total", self.would_deny.folded_total()),
        ] {
            metric.encode_family(&[("metric", name)])?.encode_counter::<NoLabelSet, _, u64>(&folded, None)?;
        }
        Ok(())
    }
}

/// The series' part that is the edge's own, by its own port.
fn forbidden(delta: &JudgedDelta<'_>, subject: &Pod, excepted: bool) -> Forbidden {
    Forbidden {
        subject: Some(subject.workload.clone()),
        peer: Peer::from(delta.peer),
        port: PortLabel::Is(delta.port),
        protocol: Some(delta.protocol),
        cause: Some(delta.cause),
        excepted,
    }
}

/// One connection behind what a delta counts.
fn example(delta: &JudgedDelta<'_>, subject: &Pod) -> Example {
    let peer = match (&delta.peer.endpoint, delta.peer.address) {
        (Endpoint::Pod(pod), _) => ExamplePeer::Name(Arc::clone(&pod.name)),
        (Endpoint::Node(name), _) => ExamplePeer::Name(Arc::clone(name)),
        (_, Some(address)) => ExamplePeer::Address(address),
        (_, None) => ExamplePeer::None,
    };
    Example { pod: Arc::clone(&subject.name), peer, count: delta.outcome.connections, at: delta.at }
}

/// Starts a counter family; the encoder adds `_total`.
fn counter<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'static str,
    help: &'static str,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Counter)
}

impl Collector for Shared {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Asked before the lock is taken: the source may itself be busy recording.
        let readings = self.source.readings();
        let encoder = &mut encoder;
        encoder
            .encode_descriptor("dryfence_build", "What this agent is", None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        let mut families = self.families();
        families.take_losses(&readings);
        families.encode_counters(encoder)?;
        families.encode_folded(encoder)?;
        readings::encode(&readings, &mut families.would_deny_edges, encoder)?;
        drop(families);
        encoder
            .encode_descriptor(
                "dryfence_window_gap_seconds",
                "How long within the window nothing was recorded, in seconds",
                None,
                MetricType::Counter,
            )?
            .encode_counter::<NoLabelSet, _, f64>(&readings.window_gap.as_secs_f64(), None)?;
        let rejudge = encoder.encode_descriptor(
            "dryfence_rejudge_duration_seconds",
            "How long it took to judge the whole ledger again, in seconds",
            None,
            MetricType::Histogram,
        )?;
        self.rejudge.encode(rejudge)?;
        process::encode(encoder)
    }
}

impl Shared {
    fn families(&self) -> MutexGuard<'_, Families> {
        // Counts are whole after every single step, so what a panicking holder left behind is usable.
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
