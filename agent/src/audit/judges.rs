//! Every judge there is: one for each scenario, one for each segment map in force, and the exceptions from
//! both. Live and recorded edges get their answers here, and nowhere else.

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::shared::SharedAnswers;
use crate::cluster::Object;
use crate::cluster::index::Index;
use crate::model::dialect::Dialect;
use crate::model::edge::{Direction, Edge};
use crate::model::endpoint::Pod;
use crate::model::record::{
    EdgeRecord, ExceptionFindingRecord, ExceptionRecord, JudgementRecord, SegmentMapRecord, SegmentRecord,
};
use crate::model::scenario::Scenario;
use crate::model::time::Timestamp;
use crate::model::verdict::{Judgement, Verdict};
use crate::policy::Judge;
use crate::segment::{
    Crossing, EdgeException, Effect, Exceptions, Muted, NamespaceLabels, SegmentJudge, SegmentMap,
    SegmentVerdict, Surroundings,
};

/// What one segment map says of an edge, and which exception mutes it where that is a violation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossed {
    pub verdict: SegmentVerdict,
    pub exception: Option<Arc<EdgeException>>,
}

impl Crossed {
    /// Whether the map forbids the edge, excepted or not.
    pub fn is_violation(&self) -> bool {
        self.verdict.verdict == Crossing::Violation
    }
}

/// Everything that is said of one edge.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// What was asked: change sets come and go, so each answer knows its own.
    pub scenarios: Arc<[Scenario]>,
    /// One for each scenario, in their order.
    pub judgements: Vec<Judgement>,
    /// By scenario, the exception that mutes its denial; empty where no denial is muted.
    pub(super) excepted: Vec<Option<Arc<EdgeException>>>,
    /// One for each segment map in force whose business the edge is.
    pub segments: Vec<Crossed>,
}

impl Answers {
    /// Whether both say the same by the same decisions in memory.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let one = |(one, other): (&Judgement, &Judgement)| {
            Arc::ptr_eq(&one.egress, &other.egress) && Arc::ptr_eq(&one.ingress, &other.ingress)
        };
        Arc::ptr_eq(&self.scenarios, &other.scenarios)
            && self.judgements.len() == other.judgements.len()
            && self.judgements.iter().zip(&other.judgements).all(one)
            && self.excepted == other.excepted
            && self.segments == other.segments
    }

    /// The exception that mutes the denial of the scenario at this place.
    pub fn exception(&self, scenario: usize) -> Option<&Arc<EdgeException>> {
        self.excepted.get(scenario)?.as_ref()
    }

    /// The violations, excepted ones included.
    pub fn violations(&self) -> impl Iterator<Item = &Crossed> {
        self.segments.iter().filter(|crossed| crossed.is_violation())
    }

    /// Whether both say the same in a direction, by verdict and segments; reasons may differ.
    pub fn agree(&self, other: &Self, direction: Direction) -> bool {
        let verdicts = |answers: &Self| -> Vec<Verdict> {
            answers.judgements.iter().map(|judgement| judgement.of(direction).verdict).collect()
        };
        let same = |(one, other): (&Crossed, &Crossed)| {
            let key = |crossed: &Crossed| {
                let SegmentVerdict { map, from_segment, to_segment, verdict, .. } = &crossed.verdict;
                (Arc::clone(map), from_segment.clone(), to_segment.clone(), *verdict)
            };
            key(one) == key(other)
        };
        verdicts(self) == verdicts(other)
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(same)
    }

    /// The edge and its answers as the API serves them.
    pub fn record(&self, edge: &Edge) -> EdgeRecord {
        let mut record = EdgeRecord::new(edge, std::iter::empty());
        let names = self.scenarios.iter().map(|scenario| scenario.name().to_owned());
        record.verdicts = names.zip(self.judgement_records()).collect();
        record.segments = self.segment_records();
        record
    }

    /// What each scenario says, in their order, with the exception that mutes it.
    pub fn judgement_records(&self) -> impl Iterator<Item = JudgementRecord> {
        self.judgements.iter().enumerate().map(|(at, judgement)| JudgementRecord {
            excepted: self.exception(at).is_some(),
            exception: self.exception(at).map(|exception| ExceptionRecord::from(&**exception)),
            ..JudgementRecord::from(judgement)
        })
    }

    /// What each segment map says whose business the edge is, with the exception that mutes it.
    pub fn segment_records(&self) -> Vec<SegmentRecord> {
        let segment = |crossed: &Crossed| SegmentRecord {
            excepted: crossed.exception.is_some(),
            exception: crossed.exception.as_deref().map(ExceptionRecord::from),
            ..SegmentRecord::from(&crossed.verdict)
        };
        self.segments.iter().map(segment).collect()
    }
}

/// What the judges of segments were made of; they are made anew when it changes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Made {
    generation: u64,
    api_server: Vec<SocketAddr>,
    /// Known only where there are exceptions: nobody else asks.
    namespaces: NamespaceLabels,
}

/// Judges edges by every scenario and every segment map in force.
pub struct Judges {
    dialect: Dialect,
    /// Those that are always judged by; change sets come besides.
    given: Vec<Scenario>,
    scenarios: Arc<[Scenario]>,
    muted: Vec<Muted>,
    warning: Option<String>,
    policy: Vec<Judge>,
    policy_generation: u64,
    maps: Vec<Arc<SegmentMap>>,
    segment: Vec<(SegmentJudge, Muted)>,
    exceptions: Exceptions,
    /// Those whose time may still come, by the time.
    expiries: Vec<Timestamp>,
    declared: Vec<Arc<EdgeException>>,
    around: Surroundings,
    remembers_vlans: bool,
    /// A VLAN became known, or unsure, since the generation began.
    vlan_news: bool,
    shared: SharedAnswers,
    made: Made,
    now: Timestamp,
    generation: u64,
}

impl Judges {
    /// The judges of what the index holds at `now`.
    pub fn new(scenarios: &[Scenario], dialect: Dialect, index: &Index, now: Timestamp) -> Self {
        let mut judges = Self {
            dialect,
            given: scenarios.to_vec(),
            scenarios: Arc::default(),
            muted: Vec::new(),
            warning: None,
            policy: Vec::new(),
            policy_generation: 0,
            maps: Vec::new(),
            segment: Vec::new(),
            exceptions: Exceptions::default(),
            expiries: Vec::new(),
            declared: Vec::new(),
            around: Surroundings::default(),
            remembers_vlans: false,
            vlan_news: false,
            shared: SharedAnswers::default(),
            made: Made::default(),
            now,
            generation: 0,
        };
        judges.compile_policies(index);
        judges.compile_segments(index, Made::of(index));
        judges
    }

    /// The judges of what these objects declare, for edges that were recorded: as an agent judged that had seen
    /// all of `edges` and is asked at `now`, the end of their window.
    pub fn of_recording<'a>(
        scenarios: &[Scenario],
        dialect: Dialect,
        objects: impl IntoIterator<Item = &'a Object>,
        edges: &[Edge],
        now: Timestamp,
    ) -> Self {
        // Edges hold what pods are. The index is asked for what judges, and what exceptions and maps look up.
        let judges = |object: &&Object| {
            matches!(
                object,
                Object::Policy(_)
                    | Object::SegmentMap(_)
                    | Object::EdgeException(_)
                    | Object::Candidate(_)
                    | Object::Namespace(_)
                    | Object::EndpointSlice(_)
                    | Object::Broken(_)
            )
        };
        let mut index = Index::default();
        index.reset(objects.into_iter().filter(judges).cloned().collect(), Timestamp::EPOCH);
        let mut judges = Self::new(scenarios, dialect, &index, now);
        if judges.remembers_vlans {
            edges.iter().for_each(|edge| judges.observe(edge));
            judges.advance(now);
        }
        judges
    }

    /// Whether anything but policies is asked.
    pub const fn has_segment_maps(&self) -> bool {
        !self.maps.is_empty()
    }

    /// Takes over what the index holds now. Returns whether answers given before may differ from those given
    /// from now on.
    pub fn refresh(&mut self, index: &Index) -> bool {
        let policies = index.policy_generation() != self.policy_generation;
        if policies {
            self.compile_policies(index);
        }
        let made = Made::of(index);
        let segments = made != self.made;
        if segments {
            self.compile_segments(index, made);
        }
        self.changed(policies || segments)
    }

    /// It is now `now`. Returns whether answers given before may differ from those given from now on: an
    /// exception expired, or a VLAN became known.
    pub fn advance(&mut self, now: Timestamp) -> bool {
        self.now = self.now.max(now);
        let before = self.expiries.len();
        self.expiries.retain(|expiry| *expiry > self.now);
        let news = std::mem::take(&mut self.vlan_news) || self.expiries.len() != before;
        self.changed(news)
    }

    const fn changed(&mut self, changed: bool) -> bool {
        if changed {
            self.generation += 1;
        }
        changed
    }

    /// What is judged by now: the scenarios that were given, then the change sets by name.
    pub const fn scenarios(&self) -> &Arc<[Scenario]> {
        &self.scenarios
    }

    /// Which change sets are not judged by, in a sentence.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Answers of one generation were all given by the same policies, maps and exceptions.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    fn compile_policies(&mut self, index: &Index) {
        self.policy_generation = index.policy_generation();
        let change_sets = index.change_sets();
        self.warning = change_sets.warning();
        let change_sets = change_sets.judged.into_iter().map(Scenario::ChangeSet);
        let scenarios: Vec<Scenario> = self.given.iter().cloned().chain(change_sets).collect();
        if *scenarios != *self.scenarios {
            self.muted = scenarios.iter().map(|scenario| Muted::Scenario(scenario.name().into())).collect();
            self.scenarios = scenarios.into();
        }
        let compile = |scenario| Judge::new(&index.policies_of(scenario), self.dialect, scenario);
        self.policy = self.scenarios.iter().map(compile).collect();
    }

    fn compile_segments(&mut self, index: &Index, made: Made) {
        self.maps = index.segment_maps();
        self.declared = index.edge_exceptions();
        self.remembers_vlans = self.maps.iter().any(|map| map.in_force() && map.names_vlans())
            || self.declared.iter().any(|exception| exception.names_vlans());
        self.around.api_server.clone_from(&made.api_server);
        let judge = |map: &Arc<SegmentMap>| {
            let muted = Muted::SegmentMap(Arc::clone(map.name()));
            // One that is not in force is told by `segment_maps`.
            SegmentJudge::new(map, self.around.clone()).ok().map(|judge| (judge, muted))
        };
        self.segment = self.maps.iter().filter_map(judge).collect();
        self.exceptions = Exceptions::new(&self.declared, &self.maps, &made.namespaces);
        let expiries = self.declared.iter().filter_map(|exception| exception.expires_at());
        self.expiries = expiries.filter(|expiry| *expiry > self.now).collect();
        self.made = made;
    }

    /// Remembers in which VLAN the edge's subject is, where a map or an exception asks for it.
    pub fn observe(&mut self, edge: &Edge) {
        let Some(address) = edge.subject().address.filter(|_| self.remembers_vlans) else { return };
        let before = self.around.vlans.get(address);
        self.around.vlans.observe(edge);
        for (judge, _) in self.segment.iter_mut().filter(|(judge, _)| judge.map().names_vlans()) {
            judge.surroundings_mut().vlans.observe(edge);
        }
        self.vlan_news |= before != self.around.vlans.get(address);
    }

    /// The addresses of a pod that is gone may get other owners, in other VLANs.
    pub fn forget_pod(&mut self, pod: &Pod) {
        for address in pod.addresses.iter() {
            self.around.vlans.forget(*address);
            for (judge, _) in &mut self.segment {
                judge.surroundings_mut().vlans.forget(*address);
            }
        }
    }

    /// Everything that is said of an edge at the time last given to [`Judges::advance`].
    pub fn judge(&mut self, edge: &Edge) -> Arc<Answers> {
        let connection = edge.connection();
        let judgements: Vec<Judgement> =
            self.policy.iter_mut().map(|judge| judge.judge(&connection)).collect();
        let excepting =
            |muted: &Muted| self.exceptions.excepting(muted, edge, &self.around, self.now).map(Arc::clone);
        let mut excepted: Vec<_> = self
            .muted
            .iter()
            .zip(&judgements)
            .map(|(muted, judgement)| match judgement.verdict() {
                Verdict::Deny => excepting(muted),
                Verdict::Allow | Verdict::Unknown => None,
            })
            .collect();
        if excepted.iter().all(Option::is_none) {
            excepted = Vec::new();
        }
        let answers = self.segment.iter_mut().map(|(judge, muted)| (judge.judge(edge), muted));
        let segments = answers.filter(|(verdict, _)| verdict.verdict != Crossing::Ignored);
        let segments = segments.map(|(verdict, muted)| {
            let exception = if verdict.verdict == Crossing::Violation { excepting(muted) } else { None };
            Crossed { verdict, exception }
        });
        let scenarios = Arc::clone(&self.scenarios);
        let answers = Answers { scenarios, segments: segments.collect(), judgements, excepted };
        self.shared.share(answers)
    }

    /// Every segment map, in force or not, with what is wrong with it: what is written in it, and endpoints
    /// met that are in two of its segments.
    pub fn segment_maps(&self) -> Vec<SegmentMapRecord> {
        let record = |map: &Arc<SegmentMap>| {
            let judge = self.segment.iter().find(|(judge, _)| judge.map().name() == map.name());
            let notes = map.findings().iter().filter(|finding| finding.effect == Effect::Note);
            let met = judge.map(|(judge, _)| judge.findings()).unwrap_or_default();
            SegmentMapRecord {
                name: map.name().to_string(),
                severity: map.severity().to_string(),
                in_force: judge.is_some(),
                reasons: map.reasons_not_in_force().map(ToString::to_string).collect(),
                notes: notes.chain(&met).map(ToString::to_string).collect(),
            }
        };
        self.maps.iter().map(record).collect()
    }

    /// Every address block that a policy or a segment map in force names.
    pub fn blocks(&self) -> impl Iterator<Item = IpNet> {
        let policies = self.policy.iter().flat_map(|judge| judge.blocks().iter().copied());
        policies.chain(self.segment.iter().flat_map(|(judge, _)| judge.map().blocks()))
    }

    /// What is wrong with exceptions at the time last given: what is written in them, maps that do not let
    /// them, and those that have expired.
    pub fn exception_findings(&self) -> Vec<ExceptionFindingRecord> {
        let record = |found: crate::segment::ExceptionFinding| ExceptionFindingRecord {
            exception: found.exception.to_string(),
            finding: found.finding.to_string(),
        };
        self.exceptions.findings(self.now).into_iter().map(record).collect()
    }
}

impl Made {
    fn of(index: &Index) -> Self {
        let asked = !index.edge_exceptions().is_empty();
        Self {
            generation: index.segment_generation(),
            api_server: index.api_server(),
            namespaces: if asked { index.namespace_labels() } else { NamespaceLabels::default() },
        }
    }
}
