//! The auditor: takes observations and news of the cluster in order, and keeps the judged ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::binding::Bindings;
use super::cause::classify;
use super::join::{Ends, Joined, join, unjoined_addresses};
use super::judges::{Answers, Judges};
use super::ledger::{Entry, Ledger};
use super::orient::{self, Unsettled};
use super::translations::{Part, Translations};
use super::waiting::Waiting;
use crate::cluster::Object;
use crate::cluster::folding::foldings;
use crate::cluster::index::{Gaps, Index};
use crate::cluster::kubernetes::Change;
use crate::model::dialect::Dialect;
use crate::model::edge::{Counters, Direction, Edge, IcmpErrors, IfIndex, Observation, OrientedBy};
use crate::model::endpoint::{Connection, Party, Pod};
use crate::model::folding::Foldings;
use crate::model::object::WorkloadRef;
use crate::model::outcome::Outcome;
use crate::model::record::{EdgeRecord, ExceptionFindingRecord, LossRecord, SegmentMapRecord};
use crate::model::scenario::Scenario;
use crate::model::time::Timestamp;
use crate::model::translation::Told;
use crate::model::unobserved::Unobserved;
use crate::model::unoriented::{Unoriented, UnorientedKey};
use crate::model::verdict::UnknownReason;

/// What an auditor is told at start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The node whose pods are local; without it, any pod with an interface is.
    pub node: Option<Arc<str>>,
    pub dialect: Dialect,
    pub scenarios: Vec<Scenario>,
    /// The most edges that the ledger keeps.
    pub most_edges: usize,
}

/// What one observation added to one edge, judged: what counters are made of.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    pub edge: &'a Edge,
    /// What became of connections in the interval; `edge.counters` has the sums.
    pub outcome: Outcome,
    /// ICMP errors that quoted it in the interval.
    pub icmp_errors: IcmpErrors,
    pub scenarios: &'a [Scenario],
    /// What the scenarios and the segment maps say of it.
    pub answers: &'a Answers,
}

/// Takes what was judged, as it is judged: metrics and logs.
pub trait Recorder {
    fn judged(&mut self, judged: Judged<'_>);
}

/// Losses of this part: what could not be joined or kept.
#[derive(Debug, Clone, Copy, Default)]
struct Losses {
    ledger_full: (u64, u64),
    waiting_full: (u64, u64),
    unsettled_full: (u64, u64),
}

/// How many edges of the ledger are judged again in one go: about 10 ms of work, so that reading goes on.
const REJUDGE_SLICE: usize = 10_000;

/// Joins, judges and keeps. Owned by one task; nothing in it blocks.
pub struct Auditor {
    settings: Settings,
    index: Index,
    judges: Judges,
    bindings: Bindings,
    ledger: Ledger,
    waiting: Waiting,
    unsettled: Unsettled,
    translations: Translations,
    /// Where re-judging the ledger stands, while it does.
    rejudge_from: Option<usize>,
    losses: Losses,
    ledger_changes: u64,
}

impl Auditor {
    /// An auditor that knows nothing yet: everything it sees waits until the first [`Auditor::reset`].
    pub fn new(settings: Settings, index: Index) -> Self {
        let judges = Judges::new(&settings.scenarios, settings.dialect, &index, Timestamp::EPOCH);
        Self {
            ledger: Ledger::new(settings.most_edges),
            // Waiting is short; a node does not see more unknown peers than edges.
            waiting: Waiting::new(settings.most_edges),
            unsettled: Unsettled::new(settings.most_edges),
            translations: Translations::default(),
            settings,
            index,
            judges,
            bindings: Bindings::default(),
            rejudge_from: None,
            losses: Losses::default(),
            ledger_changes: 0,
        }
    }

    /// The cluster's objects are now exactly these.
    pub fn reset(&mut self, objects: Vec<Object>, now: Timestamp, recorder: &mut dyn Recorder) {
        let before: Vec<Arc<Pod>> = self.index.pods().collect();
        self.index.reset(objects, now);
        self.forget_gone(&before);
        self.follow_news(now, recorder);
    }

    /// What became known of the cluster, in its order, and what then is not known.
    pub fn change(&mut self, changes: Vec<Change>, gaps: Gaps, now: Timestamp, recorder: &mut dyn Recorder) {
        for change in changes {
            let before: Vec<Arc<Pod>> = match &change {
                Change::Reset { kind: "Pod", .. } => self.index.pods().collect(),
                Change::Apply { object: Object::Pod(pod), .. } => {
                    self.index.pod(&pod.namespace, &pod.name).into_iter().collect()
                }
                Change::Delete(gone) if &*gone.kind == "Pod" => {
                    let namespace = gone.namespace.as_deref().unwrap_or_default();
                    self.index.pod(namespace, &gone.name).into_iter().collect()
                }
                _ => Vec::new(),
            };
            match change {
                Change::Reset { kind, objects, .. } => self.index.reset_kind(kind, objects, now),
                Change::Apply { object, .. } => self.index.apply(object, now),
                Change::Delete(reference) => self.index.delete(&reference, now),
                // Told only on the way here.
                Change::Forget(_) => {}
                Change::Nobody { address, until } => self.index.nobody_has(address, until, now),
            }
            self.forget_gone(&before);
        }
        self.index.set_gaps(gaps);
        self.follow_news(now, recorder);
    }

    /// Lets go of what was kept for pods that are no more.
    fn forget_gone(&mut self, before: &[Arc<Pod>]) {
        for pod in before {
            if self.index.pod(&pod.namespace, &pod.name).is_none_or(|now| now.uid != pod.uid) {
                self.bindings.pod_gone(pod);
                self.judges.forget_pod(pod);
            }
        }
    }

    fn follow_news(&mut self, now: Timestamp, recorder: &mut dyn Recorder) {
        self.advance(now);
        if self.judges.refresh(&self.index) {
            self.rejudge_from = Some(0);
        }
        self.bind_routes(now);
        self.retry(now, recorder);
    }

    /// It is now `now`: exceptions may have expired.
    fn advance(&mut self, now: Timestamp) {
        if self.judges.advance(now) {
            self.rejudge_from = Some(0);
        }
    }

    /// An interface is there; `routed` are the addresses that the node routes to it.
    pub fn interface(&mut self, index: IfIndex, since: Timestamp, routed: Vec<IpAddr>, now: Timestamp) {
        self.bindings.seen(index, since, routed);
        self.bind_routes(now);
    }

    /// An interface leads to a pod and is not watched.
    pub fn unwatched(&mut self, index: IfIndex, routed: Vec<IpAddr>, reason: Unobserved) {
        self.bindings.unwatched(index, routed, reason);
    }

    /// An interface is gone.
    pub fn interface_gone(&mut self, index: IfIndex) {
        self.bindings.gone(index);
    }

    /// Binds interfaces to pods by the node's routes, so that a pod without traffic counts as observed.
    fn bind_routes(&mut self, now: Timestamp) {
        for (index, address) in self.bindings.unbound_routes() {
            if let Some(pod) = self.index.initiator_at(address, now).as_pod() {
                // A pod that must wait is tried again with the next news.
                let _claim = self.bindings.claim(index, address, pod, now);
            }
        }
    }

    /// Takes what was counted since the last reading.
    pub fn observe(&mut self, seen: &[Observation], now: Timestamp, recorder: &mut dyn Recorder) {
        self.advance(now);
        for seen in seen {
            for part in self.translations.split(seen, now) {
                self.take(part, now, recorder);
            }
        }
    }

    fn take(&mut self, part: Part, now: Timestamp, recorder: &mut dyn Recorder) {
        let (seen, backends) = (&part.seen, self.translations.backends(&part.seen.key));
        match join(&self.index, &mut self.bindings, &part, backends, now) {
            Joined::Now(ends) => self.commit(edge_of(seen, ends), recorder),
            Joined::Either(before, after) => self.commit_either(seen, before, after, recorder),
            Joined::Wait(_) => {
                if !self.waiting.hold(part, now) {
                    lose(&mut self.losses.waiting_full, &seen.delta);
                }
            }
        }
    }

    /// Takes what was counted on connections that sockets could not orient. The ports of Services and containers
    /// may tell who opened one; what nobody tells in time is an edge of unknown ends. Returns what was told, so
    /// that capture knows it too.
    pub fn observe_unoriented(
        &mut self,
        seen: &[Unoriented],
        now: Timestamp,
        recorder: &mut dyn Recorder,
    ) -> Vec<(UnorientedKey, Direction)> {
        let mut told = Vec::new();
        for seen in seen {
            match orient::by_ports(&self.index, seen) {
                Some(direction) => {
                    told.push((seen.key, direction));
                    let held = self.unsettled.release(&seen.key).into_iter().chain([*seen]);
                    let held: Vec<_> =
                        held.map(|seen| seen.oriented(direction, OrientedBy::Service)).collect();
                    self.observe(&held, now, recorder);
                }
                None => {
                    if !self.unsettled.hold(*seen, now) {
                        let guessed = seen.oriented(Direction::Egress, OrientedBy::Unknown);
                        lose(&mut self.losses.unsettled_full, &guessed.delta);
                    }
                }
            }
        }
        told
    }

    /// Tries again to orient what waits; what waited long enough is of unknown ends.
    fn settle(&mut self, now: Timestamp, recorder: &mut dyn Recorder) {
        for (seen, since) in self.unsettled.take() {
            match orient::by_ports(&self.index, &seen) {
                Some(direction) => {
                    self.observe(&[seen.oriented(direction, OrientedBy::Service)], now, recorder);
                }
                None if Waiting::is_over(since, now) => {
                    let (seen, ends) = orient::unknown(&seen);
                    self.commit(edge_of(&seen, ends), recorder);
                }
                None => self.unsettled.put_back(seen, since),
            }
        }
    }

    /// What connection tracking told: comes before the reading that counts it. `None` while it cannot be read.
    pub fn translated(&mut self, told: Option<&Told>, now: Timestamp) {
        self.translations.follow(told.is_some());
        let Some(told) = told else { return };
        told.opened.iter().for_each(|translation| self.translations.opened(translation, now));
        told.standing.iter().for_each(|translation| self.translations.standing(translation, now));
        if told.missed {
            self.translations.missed();
        }
    }

    /// The addresses of the host's network namespace are now exactly these.
    pub fn host_addresses(&mut self, addresses: &BTreeSet<IpAddr>, now: Timestamp) {
        self.index.set_host_addresses(addresses, now);
    }

    /// A reading is whole: attempts that nobody answered in it are counted as such.
    pub fn end_reading(&mut self, now: Timestamp, recorder: &mut dyn Recorder) {
        self.translations.end_reading(now);
        self.ledger.end_reading(|Entry { edge, answers, .. }, outcome| {
            let scenarios = &answers.scenarios;
            let icmp_errors = IcmpErrors::default();
            recorder.judged(Judged { edge, outcome, icmp_errors, scenarios, answers });
        });
    }

    /// Goes on with what takes time: joins what waits, and judges a slice of the ledger again. Returns
    /// whether more re-judging is left.
    pub fn tick(&mut self, now: Timestamp, recorder: &mut dyn Recorder) -> bool {
        self.retry(now, recorder);
        self.advance(now);
        self.rejudge_slice()
    }

    fn retry(&mut self, now: Timestamp, recorder: &mut dyn Recorder) {
        self.settle(now, recorder);
        for (part, since) in self.waiting.take() {
            let seen = &part.seen;
            match join(&self.index, &mut self.bindings, &part, &[], now) {
                Joined::Now(ends) => self.commit(edge_of(seen, ends), recorder),
                Joined::Either(before, after) => self.commit_either(seen, before, after, recorder),
                Joined::Wait(ends) if Waiting::is_over(since, now) => {
                    self.commit(edge_of(seen, ends), recorder);
                }
                Joined::Wait(_) => self.waiting.put_back(part, since),
            }
        }
    }

    /// The address had two owners in the interval. It is the later one's if that makes no difference.
    fn commit_either(&mut self, seen: &Observation, before: Ends, after: Ends, recorder: &mut dyn Recorder) {
        let (before, edge) = (edge_of(seen, before), edge_of(seen, after.clone()));
        let agree = self.judges.judge(&before).agree(&self.judges.judge(&edge), edge.direction);
        let edge = if agree { edge } else { edge_of(seen, reused(seen, after)) };
        self.commit(edge, recorder);
    }

    /// Adds what an edge counted, in `edge.counters`, to the ledger.
    fn commit(&mut self, edge: Edge, recorder: &mut dyn Recorder) {
        self.ledger_changes += 1;
        let (judges, delta) = (&mut self.judges, edge.counters);
        judges.observe(&edge);
        let entry = self.ledger.add(edge, judges.generation(), |edge| judges.judge(edge));
        let Some((Entry { edge, answers, .. }, outcome)) = entry else {
            lose(&mut self.losses.ledger_full, &delta);
            return;
        };
        let (icmp_errors, scenarios) = (delta.icmp_errors, &answers.scenarios);
        recorder.judged(Judged { edge, outcome, icmp_errors, scenarios, answers });
    }

    fn rejudge_slice(&mut self) -> bool {
        let Some(from) = self.rejudge_from else { return false };
        self.ledger_changes += 1;
        for entry in self.ledger.slice_mut(from, REJUDGE_SLICE) {
            if entry.generation != self.judges.generation() {
                entry.answers = self.judges.judge(&entry.edge);
                entry.generation = self.judges.generation();
            }
        }
        let next = from + REJUDGE_SLICE;
        self.rejudge_from = (next < self.ledger.len()).then_some(next);
        self.rejudge_from.is_some()
    }

    /// Forgets edges last seen before `time`, and what the index kept for them.
    pub fn forget_before(&mut self, time: Timestamp) -> usize {
        self.index.forget_before(time);
        let forgotten = self.ledger.forget_before(time);
        if forgotten > 0 {
            self.ledger_changes += 1;
            // The order of entries changed under the slices.
            self.rejudge_from = self.rejudge_from.map(|_| 0);
        }
        forgotten
    }

    /// Every edge of the ledger, as the API serves it.
    pub fn records(&mut self) -> Vec<EdgeRecord> {
        self.records_where(|_| true).collect()
    }

    /// Those of them that are wanted: others are not held, however many there are. Edges that a re-judge has not
    /// reached yet are judged now: an answer never mixes generations.
    pub fn records_where(
        &mut self,
        wanted: impl Fn(&EdgeRecord) -> bool,
    ) -> impl Iterator<Item = EdgeRecord> {
        while self.rejudge_slice() {}
        self.ledger.entries().map(|entry| entry.answers.record(&entry.edge)).filter(wanted)
    }

    /// What is not judged by although it should be, in a sentence.
    pub fn warning(&self) -> Option<&str> {
        self.judges.warning()
    }

    /// What is judged by now: the scenarios of the settings, and the change sets that there are.
    pub fn scenarios(&self) -> &[Scenario] {
        self.judges.scenarios()
    }

    /// Every segment map, in force or not, and what is wrong with it.
    pub fn segment_maps(&self) -> Vec<SegmentMapRecord> {
        self.judges.segment_maps()
    }

    /// What is wrong with exceptions, expired ones among it.
    pub fn exception_findings(&self) -> Vec<ExceptionFindingRecord> {
        self.judges.exception_findings()
    }

    /// What [`Auditor::foldings`] rest on: as long as it stays, so do they.
    pub const fn foldings_generation(&self) -> (u64, u64) {
        (self.index.topology_generation(), self.judges.generation())
    }

    /// How addresses are to be kept apart: what is outside the cluster, and which blocks anything is judged by.
    pub fn foldings(&self) -> Foldings {
        foldings(self.index.networks(), self.judges.blocks())
    }

    /// Addresses are kept apart so from now on, also those of clients that no packet bears.
    pub fn fold(&mut self, foldings: Foldings) {
        self.translations.fold(foldings);
    }

    /// The number of changes of the ledger so far, of its edges or their answers: figures over all of it hold
    /// until the next one.
    pub const fn ledger_changes(&self) -> u64 {
        self.ledger_changes
    }

    /// The ledger, for figures that are computed when they are asked for.
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What the cluster is known to hold.
    pub const fn index(&self) -> &Index {
        &self.index
    }

    /// The addresses that edges wait for: those of their other ends, and of the backends behind a Service.
    pub fn awaited(&self, now: Timestamp) -> Vec<IpAddr> {
        let mut awaited: BTreeSet<IpAddr> = BTreeSet::new();
        for key in self.waiting.keys() {
            awaited.extend(unjoined_addresses(&self.index, key, now));
        }
        awaited.into_iter().collect()
    }

    /// How many edges wait for an end to become known.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Pods of this node that have no interface that we see: what they do is not observed.
    pub fn unobserved(&self) -> Vec<Arc<Pod>> {
        let Some(node) = &self.settings.node else { return Vec::new() };
        let unseen = |pod: &Arc<Pod>| {
            !pod.host_network
                && !pod.from_template
                && !pod.addresses.is_empty()
                && !self.bindings.is_observed(pod)
        };
        self.index.pods_on(node).into_iter().filter(unseen).collect()
    }

    /// How many pods of this node are not observed, for each reason there is.
    pub fn unobserved_by_reason(&self) -> Vec<(Unobserved, u64)> {
        let mut counts: BTreeMap<Unobserved, u64> = Unobserved::ALL.map(|reason| (reason, 0)).into();
        let node = self.settings.node.as_deref();
        let in_host_network = node.map_or_else(Vec::new, |node| self.index.pods_on(node));
        let in_host_network = in_host_network.iter().filter(|pod| pod.host_network && !pod.from_template);
        counts.insert(Unobserved::HostNetwork, in_host_network.count() as u64);
        for pod in self.unobserved() {
            *counts.entry(self.bindings.why_unobserved(&pod)).or_default() += 1;
        }
        counts.into_iter().collect()
    }

    /// The workloads that have pods now, so that metrics of others can go.
    pub fn workloads(&self) -> FxHashSet<WorkloadRef> {
        self.index.workloads()
    }

    /// What this part lost.
    pub fn losses(&self) -> Vec<LossRecord> {
        let loss = |stage: &str, reason: &str, (edges, packets): (u64, u64)| LossRecord {
            stage: stage.to_owned(),
            reason: reason.to_owned(),
            packets,
            edges,
        };
        let mut losses = vec![
            loss("join", "waiting-full", self.losses.waiting_full),
            loss("orphan", "waiting-full", self.losses.unsettled_full),
            loss("ledger", "full", self.losses.ledger_full),
            loss("ledger", "unaccepted-evicted", (self.ledger.evicted(), 0)),
        ];
        losses.extend(self.translations.losses());
        losses
    }
}

const fn connection<'a>(ends: &'a Ends, seen: &Observation) -> Connection<'a> {
    Connection {
        initiator: &ends.initiator,
        responder: &ends.responder,
        port: seen.key.port,
        protocol: seen.key.protocol,
    }
}

/// The ends with the one that changed owner made unknown.
fn reused(seen: &Observation, ends: Ends) -> Ends {
    let unknown = |party: &Party| Party::unknown(party.address, UnknownReason::AddressReused);
    match seen.key.direction {
        Direction::Egress => Ends { responder: unknown(&ends.responder), ..ends },
        Direction::Ingress => Ends { initiator: unknown(&ends.initiator), ..ends },
    }
}

/// An observation with its ends: an edge whose counters are the delta.
fn edge_of(seen: &Observation, ends: Ends) -> Edge {
    let cause = classify(&connection(&ends, seen));
    Edge {
        initiator: ends.initiator,
        responder: ends.responder,
        port: seen.key.port,
        protocol: seen.key.protocol,
        direction: seen.key.direction,
        cause,
        counters: seen.delta,
        first_seen: seen.first_seen,
        last_seen: seen.last_seen,
        oriented_by: seen.oriented_by,
        fully_visible: seen.fully_visible,
        vlan: seen.vlan,
        estimated: seen.estimated,
    }
}

fn lose((edges, packets): &mut (u64, u64), delta: &Counters) {
    *edges += 1;
    *packets += delta.packets();
}

#[cfg(test)]
mod tests;
