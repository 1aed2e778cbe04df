//! The task that owns the auditor: takes readings, news of the cluster and questions, one after the other.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use rustc_hash::FxHashSet;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

use super::memory;
use super::nat::{self, Nat};
use super::source::{self, News};
use crate::audit::auditor::{Auditor, Judged, Recorder};
use crate::audit::judges::Crossed;
use crate::capture::host::Addresses;
use crate::capture::{Capture, Event};
use crate::cluster::kubernetes::{Batch, Watches};
use crate::history::file::Header;
use crate::model::edge::Observation;
use crate::model::folding::Foldings;
use crate::model::object::WorkloadRef;
use crate::model::record::{EdgeList, LossRecord, ScenarioRecord, WindowRecord};
use crate::model::scenario::Scenario;
use crate::model::time::Timestamp;
use crate::model::unoriented::Unoriented;
use crate::serve::api::{AgentStatus, Edges, PolicyCount, Query, Recorded, Unavailable};
use crate::serve::metrics::{JudgedDelta, Metrics, PolicyState, Readings, ScenarioVerdict, SegmentViolation};
use crate::serve::ready::Gate;

use super::readings::{LedgerFigures, readings};

/// How often what waits is tried again, figures are published, and old edges are forgotten.
const TICK: Duration = Duration::from_secs(1);

/// What other parts may ask.
pub(super) enum Question {
    Edges(Box<Query>, oneshot::Sender<Arc<EdgeList>>),
    Recorded(oneshot::Sender<Recorded>),
    Status(oneshot::Sender<AgentStatus>),
}

/// Asks the task on behalf of the API.
pub(super) struct Asker(pub(super) mpsc::Sender<Question>);

impl Asker {
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Result<T, Unavailable> {
        let (answer, answered) = oneshot::channel();
        self.0.send(question(answer)).await.map_err(|_closed| Unavailable)?;
        answered.await.map_err(|_closed| Unavailable)
    }
}

impl Edges for Asker {
    fn edges(&self, query: &Query) -> BoxFuture<'_, Result<Arc<EdgeList>, Unavailable>> {
        let query = Box::new(query.clone());
        Box::pin(self.ask(|answer| Question::Edges(query, answer)))
    }

    fn recorded(&self) -> BoxFuture<'_, Result<Recorded, Unavailable>> {
        Box::pin(self.ask(Question::Recorded))
    }

    fn status(&self) -> BoxFuture<'_, Result<AgentStatus, Unavailable>> {
        Box::pin(self.ask(Question::Status))
    }
}

/// What the task is fed by.
pub(super) struct Inputs {
    pub(super) news: mpsc::Receiver<News>,
    pub(super) seen: mpsc::Receiver<Event>,
    pub(super) host: watch::Receiver<Addresses>,
    pub(super) questions: mpsc::Receiver<Question>,
}

/// Owns the auditor and everything that is counted from it.
pub(super) struct AuditTask {
    pub(super) auditor: Auditor,
    pub(super) capture: Arc<Capture>,
    pub(super) nat: Nat,
    pub(super) recorder: MetricsRecorder,
    pub(super) published: Arc<ArcSwap<Readings>>,
    pub(super) figures: LedgerFigures,
    pub(super) watches: Option<Watches>,
    /// Takes addresses to ask for, where only one node's pods are watched.
    pub(super) peers: Option<mpsc::Sender<Vec<IpAddr>>>,
    pub(super) keep: Duration,
    pub(super) since: Timestamp,
    /// The cluster's name, empty where nobody gave it one.
    pub(super) cluster: String,
    pub(super) cluster_gate: Gate,
    /// What is to be known of every report, in words: that figures are estimates, for example.
    pub(super) notes: Vec<String>,
    /// Outside addresses are not counted together.
    pub(super) exact_external: bool,
    /// What capture was told last.
    pub(super) foldings: Foldings,
    /// What that rested on; `None` before the first time.
    pub(super) folded: Option<(u64, u64)>,
    pub(super) warnings: Vec<String>,
    pub(super) policies: Vec<(String, PolicyState, u64)>,
    /// What of the index figures were made of last.
    pub(super) made_of: MadeOf,
}

/// Generations of the index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct MadeOf {
    policies: u64,
    segments: u64,
    topology: u64,
}

impl AuditTask {
    /// Runs until capture ends its events: after its last reading.
    pub(super) async fn run(mut self, mut inputs: Inputs) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut take = tokio::time::interval(nat::TAKE);
        take.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Before the objects, so that no ClusterIP is ever taken for a Service's that the host has itself.
        self.auditor.host_addresses(&inputs.host.borrow_and_update(), Timestamp::now());
        loop {
            tokio::select! {
                event = inputs.seen.recv() => match event {
                    Some(event) => self.event(event),
                    None => break,
                },
                Some(news) = inputs.news.recv() => {
                    // What was counted until now belongs to the owners and policies of until now.
                    self.read_now(&mut inputs.seen).await;
                    self.news(news).await;
                    self.settle(&mut inputs.seen).await;
                }
                Some(question) = inputs.questions.recv() => {
                    self.read_now(&mut inputs.seen).await;
                    self.answer(question);
                }
                Ok(()) = inputs.host.changed() => {
                    self.read_now(&mut inputs.seen).await;
                    let addresses = inputs.host.borrow_and_update();
                    self.auditor.host_addresses(&addresses, Timestamp::now());
                }
                _ = take.tick() => self.take_translations(Timestamp::now()),
                _ = tick.tick() => {
                    self.tick().await;
                    self.settle_all(&mut inputs.seen).await;
                }
            }
        }
        self.publish();
        debug!(edges = self.auditor.ledger().len(), "the last reading is judged");
    }

    /// Has the counters read, and takes everything up to and with that reading.
    async fn read_now(&mut self, seen: &mut mpsc::Receiver<Event>) {
        let capture = Arc::clone(&self.capture);
        self.while_taking(seen, capture.read()).await;
        while let Ok(event) = seen.try_recv() {
            self.event(event);
        }
    }

    /// Tells capture which addresses to count together, if that changed.
    async fn fold(&mut self, seen: &mut mpsc::Receiver<Event>) {
        let generation = Some(self.auditor.foldings_generation());
        if self.exact_external || self.folded == generation {
            return;
        }
        self.folded = generation;
        let foldings = self.auditor.foldings();
        if foldings == self.foldings {
            return;
        }
        let capture = Arc::clone(&self.capture);
        self.while_taking(seen, capture.fold(foldings.clone())).await;
        self.auditor.fold(foldings.clone());
        self.foldings = foldings;
    }

    /// Waits for capture while taking what it tells: it does nothing else while nobody does.
    async fn while_taking(&mut self, seen: &mut mpsc::Receiver<Event>, done: impl Future<Output = ()>) {
        let mut done = pin!(done);
        loop {
            tokio::select! {
                biased;
                Some(event) = seen.recv() => self.event(event),
                () = &mut done => return,
            }
        }
    }

    fn event(&mut self, event: Event) {
        let now = Timestamp::now();
        match event {
            Event::Interface(interface) => {
                self.auditor.interface(interface.index, interface.since, interface.routed, now);
            }
            Event::Unwatched { index, routed, reason } => self.auditor.unwatched(index, routed, reason),
            Event::InterfaceGone { index, .. } => self.auditor.interface_gone(index),
            Event::Read { observations, unoriented, .. } => self.observe(&observations, &unoriented, now),
        }
    }

    fn observe(&mut self, observations: &[Observation], unoriented: &[Unoriented], now: Timestamp) {
        // Every connection counted in this reading has been told by now.
        self.take_translations(now);
        let told = self.auditor.observe_unoriented(unoriented, now, &mut self.recorder);
        if !told.is_empty() {
            self.capture.settle(told);
        }
        self.auditor.observe(observations, now, &mut self.recorder);
        self.auditor.end_reading(now, &mut self.recorder);
    }

    fn take_translations(&mut self, now: Timestamp) {
        let told = self.nat.take();
        self.auditor.translated(told.as_ref(), now);
    }

    async fn news(&mut self, news: News) {
        let now = Timestamp::now();
        let warnings = match news {
            News::Whole { objects, warnings } => {
                self.auditor.reset(objects, now, &mut self.recorder);
                warnings
            }
            News::Changed(Batch { changes, gaps, warnings }) => {
                self.auditor.change(changes, gaps, now, &mut self.recorder);
                warnings
            }
        };
        self.warnings = warnings;
        let is_whole = self.auditor.index().gaps().missing.is_empty();
        if is_whole {
            self.warnings.extend(self.unknown_node());
        }
        self.warnings.extend(self.killed_before());
        self.warnings.extend(self.notes.iter().cloned());
        self.rejudge().await;
        if is_whole && !self.cluster_gate.is_open() {
            memory::give_back();
            self.cluster_gate.open();
            info!(
                pods = self.auditor.index().pod_count(),
                policies = self.auditor.index().policies().len(),
                warnings = self.warnings.len(),
                "the cluster's objects are read"
            );
        }
    }

    /// Brings up to date what policies and segment maps decide of, right after they changed.
    async fn settle(&mut self, seen: &mut mpsc::Receiver<Event>) {
        let index = self.auditor.index();
        let now = MadeOf {
            policies: index.policy_generation(),
            segments: index.segment_generation(),
            ..self.made_of
        };
        // From files everything comes at once: then there is nothing to save by waiting for the tick.
        if now != self.made_of || self.watches.is_none() {
            self.made_of = now;
            self.policies = source::policy_counts(index);
            self.make(seen).await;
            self.publish();
        }
    }

    /// Brings up to date what is made of all objects, if any changed. That takes a look at each of them, which the
    /// news of a large cluster come too often for.
    async fn settle_all(&mut self, seen: &mut mpsc::Receiver<Event>) {
        let topology = self.auditor.index().topology_generation();
        if self.made_of.topology != topology {
            self.make(seen).await;
        }
    }

    async fn make(&mut self, seen: &mut mpsc::Receiver<Event>) {
        // Before, an address that is nobody's may be one's that was not read.
        if self.cluster_gate.is_open() {
            self.made_of.topology = self.auditor.index().topology_generation();
            self.recorder.forget_all_but(&self.auditor.workloads());
            self.fold(seen).await;
        }
    }

    /// A misspelt node has no pods, so none would ever be reported as unobserved.
    fn unknown_node(&self) -> Option<String> {
        let node = self.auditor.settings().node.as_ref()?;
        (!self.auditor.index().knows_node(node)).then(|| {
            let warning = format!(
                "this node is \"{node}\" (--node-name), but no Node and no pod has that name: whether all its pods are observed cannot be told"
            );
            warn!(%node, "no Node and no pod has this node's name");
            warning
        })
    }

    /// Whoever reads the window should know why it begins where it does.
    fn killed_before(&self) -> Option<String> {
        let left = self.capture.status().swept;
        (left > 0).then(|| {
            format!(
                "an agent before this one did not exit cleanly (it left {left} filters, which were removed): nothing is known of the time before {}",
                self.since
            )
        })
    }

    /// Judges the whole ledger again, in slices: capture goes on meanwhile, its events wait in their channel.
    async fn rejudge(&mut self) {
        // News come ten times a second in a large cluster, and most have nothing judged again.
        let (start, before) = (Instant::now(), self.auditor.ledger_changes());
        let mut slices = 1;
        while self.auditor.tick(Timestamp::now(), &mut self.recorder) {
            slices += 1;
            tokio::task::yield_now().await;
        }
        if self.auditor.ledger_changes() != before {
            self.recorder.metrics.rejudged(start.elapsed());
        }
        debug!(slices, took = ?start.elapsed(), "the ledger is judged again");
    }

    async fn tick(&mut self) {
        let now = Timestamp::now();
        while self.auditor.tick(now, &mut self.recorder) {
            tokio::task::yield_now().await;
        }
        if let Some(peers) = &self.peers {
            // Where the queue is full, the next tick asks again.
            peers.try_send(self.auditor.awaited(now)).ok();
        }
        let forgotten = self.auditor.forget_before(now.minus(self.keep));
        if forgotten > 0 {
            debug!(forgotten, "edges not seen for long are forgotten");
        }
        self.publish();
    }

    fn publish(&mut self) {
        self.figures.refresh(&self.auditor, &self.recorder.known);
        let (losses, policies) = (self.losses(), self.policies.clone());
        let capture = self.capture.status();
        let watches = source::readings(self.watches.as_ref(), self.cluster_gate.is_open());
        let since = self.since;
        let readings = readings(&self.auditor, &self.figures, losses, &capture, policies, since, watches);
        self.published.store(Arc::new(readings));
    }

    fn losses(&self) -> Vec<LossRecord> {
        let mut losses = self.capture.losses();
        losses.extend(self.auditor.losses());
        losses
    }

    fn answer(&mut self, question: Question) {
        // A client that went away meanwhile needs no answer.
        match question {
            Question::Edges(query, answer) => drop(answer.send(Arc::new(self.edge_list(&query)))),
            Question::Recorded(answer) => drop(answer.send(self.recorded())),
            Question::Status(answer) => drop(answer.send(self.status())),
        }
    }

    /// What the head of every report says besides losses.
    fn warnings(&self) -> Vec<String> {
        let late = self.capture.status().late;
        let late = (late > 0).then(|| {
            format!("{late} new edges were told late, because the ring was full: nothing was lost by that")
        });
        let change_sets = self.auditor.warning().map(ToOwned::to_owned);
        self.warnings.iter().cloned().chain(self.nat.warning()).chain(late).chain(change_sets).collect()
    }

    fn window(&self) -> WindowRecord {
        let name = |pod: Arc<crate::model::endpoint::Pod>| format!("{}/{}", pod.namespace, pod.name);
        let mut losses = self.losses();
        losses.retain(|loss| loss.packets > 0 || loss.edges > 0);
        WindowRecord {
            start: self.since,
            end: Timestamp::now(),
            losses,
            unobserved: self.auditor.unobserved().into_iter().map(name).collect(),
        }
    }

    fn scenarios(&self) -> Vec<ScenarioRecord> {
        let record = |scenario: &Scenario| ScenarioRecord {
            name: scenario.name().to_owned(),
            description: scenario.to_string(),
        };
        self.auditor.scenarios().iter().map(record).collect()
    }

    fn edge_list(&mut self, query: &Query) -> EdgeList {
        let most = query.limit.unwrap_or(usize::MAX);
        EdgeList {
            window: self.window(),
            dialect: self.auditor.settings().dialect.to_string(),
            scenarios: self.scenarios(),
            warnings: self.warnings(),
            segment_maps: self.auditor.segment_maps(),
            exception_findings: self.auditor.exception_findings(),
            edges: self.auditor.records_where(|edge| query.filter.matches(edge)).take(most).collect(),
        }
    }

    /// The ledger as it is now. Edges share their pods and identities with it, so this is quick.
    fn recorded(&self) -> Recorded {
        let WindowRecord { start, end, losses, unobserved } = self.window();
        let settings = self.auditor.settings();
        let header = Header {
            cluster: self.cluster.clone(),
            node: settings.node.as_deref().map(ToOwned::to_owned),
            dialect: settings.dialect.to_string(),
            start,
            end,
            gaps: Vec::new(),
            losses,
            unobserved,
            scenarios: self.scenarios(),
            warnings: self.warnings(),
        };
        let edges = self.auditor.ledger().entries().map(|entry| entry.edge.clone()).collect();
        Recorded { header, edges }
    }

    fn status(&self) -> AgentStatus {
        let count = |(kind, state, count): &(String, PolicyState, u64)| PolicyCount {
            kind: kind.clone(),
            state: state.as_str().to_owned(),
            count: *count,
        };
        AgentStatus {
            window: self.window(),
            dialect: self.auditor.settings().dialect.to_string(),
            scenarios: self.scenarios(),
            policies: self.policies.iter().map(count).collect(),
            segment_maps: self.auditor.segment_maps(),
            exception_findings: self.auditor.exception_findings(),
            warnings: self.warnings(),
            edges: self.auditor.ledger().len() as u64,
        }
    }
}

/// Turns what is judged into metrics.
pub(super) struct MetricsRecorder {
    pub(super) metrics: Arc<Metrics>,
    /// Workloads that may have series.
    pub(super) known: FxHashSet<WorkloadRef>,
}

impl MetricsRecorder {
    /// Lets the series of workloads go that are not in `present`.
    fn forget_all_but(&mut self, present: &FxHashSet<WorkloadRef>) {
        for gone in self.known.difference(present) {
            self.metrics.forget_workload(gone);
        }
        self.known.clone_from(present);
    }
}

impl Recorder for MetricsRecorder {
    fn judged(&mut self, judged: Judged<'_>) {
        let Judged { edge, outcome, icmp_errors, scenarios, answers } = judged;
        let verdicts: smallvec::SmallVec<[ScenarioVerdict; 4]> = scenarios
            .iter()
            .zip(&answers.judgements)
            .enumerate()
            .map(|(at, (scenario, judgement))| ScenarioVerdict {
                excepted: answers.exception(at).is_some(),
                ..ScenarioVerdict::of(scenario.name(), judgement.of(edge.direction))
            })
            .collect();
        let violations: smallvec::SmallVec<[SegmentViolation<'_>; 2]> = answers
            .violations()
            .map(|Crossed { verdict, exception }| SegmentViolation {
                segment_map: &verdict.map,
                from_segment: verdict.from_segment.as_ref(),
                to_segment: verdict.to_segment.as_ref(),
                severity: verdict.severity.as_str(),
                excepted: exception.is_some(),
            })
            .collect();
        self.metrics.record(&JudgedDelta {
            direction: edge.direction,
            subject: edge.subject(),
            peer: edge.peer(),
            port: edge.port,
            protocol: edge.protocol,
            cause: edge.cause,
            outcome,
            icmp_errors,
            at: edge.last_seen,
            verdicts: &verdicts,
            violations: &violations,
        });
    }
}

#[cfg(test)]
mod tests;
