//! The judge of one segment map. It knows no policies: what crosses a segment is told even where every
//! policy allows it.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::model::edge::Edge;
use crate::model::endpoint::is_link_local_protocol;
use crate::model::verdict::{NotJudged, UnknownReason};

use super::assign::{Assigner, Assignment, Slot};
use super::face::{End, Face, Kind, Seen};
use super::finding::Finding;
use super::map::SegmentMap;
use super::member::Doubt;
use super::surroundings::Surroundings;
use super::verdict::{Crossing, Reason, SegmentVerdict};

/// Different overlaps that are kept to be told.
const OVERLAPS: usize = 64;

/// A map that is not in force cannot judge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("segmentmap {map} is not in force: {}", .reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct NotInForce {
    pub map: Arc<str>,
    pub reasons: Vec<Finding>,
}

/// Judges edges by one map, with caches inside. Maps are judged independently: one judge for each.
#[derive(Debug)]
pub struct SegmentJudge {
    map: Arc<SegmentMap>,
    around: Surroundings,
    assigner: Assigner,
    /// Overlaps met, each with the first endpoint that showed it.
    overlaps: FxHashMap<Vec<Slot>, Finding>,
}

/// The answer for one pair of faces, before it is dressed for the reader.
#[derive(Debug, Clone)]
struct Answer {
    from: Option<Slot>,
    to: Option<Slot>,
    verdict: Crossing,
    reason: Reason,
}

impl Answer {
    const fn nowhere(verdict: Crossing, reason: Reason) -> Self {
        Self { from: None, to: None, verdict, reason }
    }

    const fn rule(&self) -> Option<&Arc<str>> {
        match &self.reason {
            Reason::Rule { rule } | Reason::EncryptionNotObserved { rule } => Some(rule),
            _ => None,
        }
    }
}

impl SegmentJudge {
    /// The judge of a map that is in force.
    pub fn new(map: &Arc<SegmentMap>, around: Surroundings) -> Result<Self, NotInForce> {
        let reasons: Vec<Finding> = map.reasons_not_in_force().cloned().collect();
        if !reasons.is_empty() {
            return Err(NotInForce { map: Arc::clone(map.name()), reasons });
        }
        let assigner = Assigner::new(map);
        Ok(Self { map: Arc::clone(map), around, assigner, overlaps: FxHashMap::default() })
    }

    pub const fn map(&self) -> &Arc<SegmentMap> {
        &self.map
    }

    /// What is known around the edges, to be kept up to date. Answers given before stay as they were.
    pub const fn surroundings_mut(&mut self) -> &mut Surroundings {
        &mut self.around
    }

    /// Endpoints met so far that are in several segments of a map that rejects overlap: one finding for each
    /// set of segments, in a stable order.
    pub fn findings(&self) -> Vec<Finding> {
        let mut found: Vec<Finding> = self.overlaps.values().cloned().collect();
        found.sort();
        found
    }

    /// What the map says of an edge. It does not matter at whose pod the edge was seen, except for which end's
    /// VLAN its tag tells.
    pub fn judge(&mut self, edge: &Edge) -> SegmentVerdict {
        if let Some(why) = not_judged(edge) {
            return self.dress(Answer::nowhere(Crossing::Ignored, Reason::NotJudged(why)));
        }
        let initiators = Face::all(End::Initiator, edge, &self.around);
        let responders = Face::all(End::Responder, edge, &self.around);
        let mut answers = Vec::with_capacity(initiators.len() * responders.len());
        for initiator in &initiators {
            for responder in &responders {
                answers.push(self.judge_pair(initiator, responder));
            }
        }
        let answer = together(answers);
        self.dress(answer)
    }

    fn judge_pair(&mut self, initiator: &Seen<'_>, responder: &Seen<'_>) -> Answer {
        let (initiator, responder) = match (initiator, responder) {
            (Ok(initiator), Ok(responder)) => (initiator.towards(responder), responder.towards(initiator)),
            // The other end may still be known: its segment helps whoever reads the report.
            (Err(why), other) => {
                return self.end_unknown(End::Initiator, why, other.as_ref().ok());
            }
            (Ok(other), Err(why)) => return self.end_unknown(End::Responder, why, Some(other)),
        };
        if initiator.is_same_pod(&responder) {
            return Answer::nowhere(Crossing::Ignored, Reason::NotJudged(NotJudged::SelfTraffic));
        }
        let from = self.assign(&initiator);
        let to = self.assign(&responder);
        self.answer(&initiator, &responder, &from, &to)
    }

    fn end_unknown(&mut self, end: End, why: &UnknownReason, other: Option<&Face<'_>>) -> Answer {
        let other = other.and_then(|face| self.assigner.assign(face).sure().cloned());
        let (from, to) = match end {
            End::Initiator => (None, other),
            End::Responder => (other, None),
        };
        Answer { from, to, verdict: Crossing::Unknown, reason: Reason::EndUnknown { end, why: why.clone() } }
    }

    /// Where a face is; an overlap is kept to be told.
    fn assign(&mut self, face: &Face<'_>) -> Assignment {
        let assignment = self.assigner.assign(face);
        let Assignment::Overlap(slots) = &assignment else { return assignment };
        if self.overlaps.len() < OVERLAPS && !self.overlaps.contains_key(slots) {
            let names: Vec<_> = slots.iter().map(|slot| self.map.slot_name(slot)).collect();
            let message = format!(
                "{} is in segments {}; overlap is Reject, so its edges are Unknown: make the segments disjoint, \
                 or set overlap to FirstMatch",
                describe(face),
                names.join(" and "),
            );
            let declared = slots.iter().rev().find_map(|slot| match slot {
                Slot::Declared(index) => Some(format!("spec.segments[{index}]")),
                Slot::Generated(_) => None,
            });
            let field = declared.unwrap_or_else(|| "spec.segmentsFrom".to_owned());
            self.overlaps.insert(slots.clone(), Finding::note(field, message));
        }
        assignment
    }

    /// The answer where it is the same in whichever segment each end may be; else `Unknown`.
    fn answer(
        &self,
        initiator: &Face<'_>,
        responder: &Face<'_>,
        from: &Assignment,
        to: &Assignment,
    ) -> Answer {
        let (sure_from, sure_to) = (from.sure().cloned(), to.sure().cloned());
        let ends = [(End::Initiator, from), (End::Responder, to)];
        let unknown = |reason| Answer {
            from: sure_from.clone(),
            to: sure_to.clone(),
            verdict: Crossing::Unknown,
            reason,
        };
        let overlap = ends.iter().find_map(|(end, assignment)| match assignment {
            Assignment::Overlap(slots) => {
                let segments = slots.iter().map(|slot| self.map.slot_name(slot)).collect();
                Some(Reason::Overlap { end: *end, segments })
            }
            _ => None,
        });
        if let Some(reason) = overlap {
            return unknown(reason);
        }
        let pairs = from.possible().iter().flat_map(|from| to.possible().iter().map(move |to| (from, to)));
        let mut answers = pairs.map(|(from, to)| match probe(initiator, from.as_ref()) {
            Some(answer) => answer,
            None => self.map.says(from.as_ref(), to.as_ref(), responder.port, responder.protocol),
        });
        let first = answers.next();
        let agree = |(first, _): &(Crossing, Reason)| answers.all(|(verdict, _)| verdict == *first);
        if let Some((verdict, mut reason)) = first.filter(agree) {
            if let Reason::NoRule { from: from_name, to: to_name, nearest, .. } = &mut reason
                && (sure_from.is_none() || sure_to.is_none())
            {
                (*from_name, *to_name, *nearest) = (self.any_name(from), self.any_name(to), None);
            }
            return Answer { from: sure_from, to: sure_to, verdict, reason };
        }
        let doubt = ends.iter().find_map(|(end, assignment)| match assignment {
            Assignment::OneOf(_, doubt) => Some(Reason::InDoubt { end: *end, doubt: *doubt }),
            _ => None,
        });
        unknown(
            doubt.unwrap_or(Reason::Unassigned {
                initiator: sure_from.is_none(),
                responder: sure_to.is_none(),
            }),
        )
    }

    /// Where an end may be, in words: `openai or internet`.
    fn any_name(&self, assignment: &Assignment) -> Arc<str> {
        let name = |slot: &Option<Slot>| match slot {
            Some(slot) => self.map.slot_name(slot),
            None => "no segment".into(),
        };
        let names: Vec<_> = assignment.possible().iter().map(name).collect();
        names.join(" or ").into()
    }

    /// The answer with names in place of numbers.
    fn dress(&self, answer: Answer) -> SegmentVerdict {
        let name = |slot: &Option<Slot>| slot.as_ref().map(|slot| self.map.slot_name(slot));
        SegmentVerdict {
            map: Arc::clone(self.map.name()),
            from_segment: name(&answer.from),
            to_segment: name(&answer.to),
            verdict: answer.verdict,
            rule: answer.rule().cloned(),
            severity: self.map.severity(),
            reason: answer.reason,
        }
    }
}

/// What is not judged whatever the map says.
fn not_judged(edge: &Edge) -> Option<NotJudged> {
    is_link_local_protocol([&edge.initiator, &edge.responder], edge.port, edge.protocol)
        .then_some(NotJudged::LinkLocalProtocol)
}

/// Kubelet's probes come from the pod's own node. A map that puts that node into no segment does not mean
/// them, even if it denies what is in no segment.
fn probe(initiator: &Face<'_>, from: Option<&Slot>) -> Option<(Crossing, Reason)> {
    if from.is_some() || !matches!(initiator.kind, Kind::Node(_)) {
        return None;
    }
    match initiator.own_node {
        Some(true) => Some((Crossing::Ignored, Reason::NotJudged(NotJudged::FromOwnNode))),
        Some(false) => None,
        None => {
            let reason = Reason::InDoubt { end: End::Initiator, doubt: Doubt::NodeOfPod };
            Some((Crossing::Unknown, reason))
        }
    }
}

/// One answer of the answers of a Service's backends: theirs, if they agree. A backend that is the initiator
/// itself says nothing where there are others.
fn together(answers: Vec<Answer>) -> Answer {
    let judged = |answer: &Answer| !matches!(answer.reason, Reason::NotJudged(_));
    let any_judged = answers.iter().any(judged);
    let heard: Vec<Answer> = answers.into_iter().filter(|answer| !any_judged || judged(answer)).collect();
    let count = |wanted: Crossing| {
        let count = heard.iter().filter(|answer| answer.verdict == wanted).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    let differ = Reason::BackendsDiffer {
        allowed: count(Crossing::Allow),
        violations: count(Crossing::Violation),
        unknown: count(Crossing::Unknown),
        ignored: count(Crossing::Ignored),
    };
    let mut heard = heard.into_iter();
    let Some(mut first) = heard.next() else {
        let reason = Reason::EndUnknown { end: End::Responder, why: UnknownReason::NoBackends };
        return Answer::nowhere(Crossing::Unknown, reason);
    };
    let mut agree = true;
    for answer in heard {
        agree &= answer.verdict == first.verdict;
        // A segment is told where it is the same for every backend.
        first.from = first.from.filter(|from| Some(from) == answer.from.as_ref());
        first.to = first.to.filter(|to| Some(to) == answer.to.as_ref());
    }
    if agree { first } else { Answer { verdict: Crossing::Unknown, reason: differ, ..first } }
}

/// An endpoint, for a finding.
fn describe(face: &Face<'_>) -> String {
    let address = face.addresses.first().map(ToString::to_string);
    match face.kind {
        Kind::Pod(pod) => format!("Pod/{}/{}", pod.namespace, pod.name),
        Kind::Node(Some(name)) => format!("Node/{name}"),
        Kind::ApiServer => "Service/default/kubernetes".to_owned(),
        Kind::Node(None) => format!("a node ({})", address.unwrap_or_default()),
        Kind::External => format!("the address {}", address.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests;
