//! Judging every edge before and after, and bringing both sides of each connection together.

use std::net::IpAddr;

use super::relabel::Relabel;
use super::{Amount, Counts, Finding, Side};
use crate::audit::judges::Judges;
use crate::finding::{Denial, Link, Pair, SegmentFindings};
use crate::history::file::Recording;
use crate::model::cause::Cause;
use crate::model::edge::{Direction, Edge};
use crate::model::endpoint::{Endpoint, Party};
use crate::model::object::WorkloadRef;
use crate::model::record::{EdgeRecord, SegmentRecord};
use crate::model::verdict::Verdict;

/// The names under which records hold the two answers.
const BEFORE: &str = "before";
const AFTER: &str = "after";

/// A finding, with what it is grouped by.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) cause: Cause,
    pub(super) owner: String,
    pub(super) finding: Finding,
}

/// What all edges together gave.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) found: Vec<Found>,
    pub(super) counts: Counts,
    pub(super) segments_before: SegmentFindings,
    pub(super) segments_after: SegmentFindings,
}

/// The judges before and after, and how recorded pods change between them.
pub(super) struct Scales {
    pub(super) before: Judges,
    pub(super) after: Judges,
    pub(super) relabel: Relabel,
}

/// Judges every edge.
///
/// Edges go through in parts that no connection crosses: the records of a part take some kilobytes an edge, so
/// those of all edges at once would not fit.
pub(super) fn compare(recording: &mut Recording, scales: &mut Scales) -> Compared {
    let mut compared = Compared::default();
    let Recording { edges, interner, .. } = recording;
    compared.counts.edges = edges.len() as u64;
    let mut order: Vec<(PartKey<'_>, &Edge)> = edges.iter().map(|edge| (PartKey::of(edge), edge)).collect();
    order.sort_by(|a, b| a.0.cmp(&b.0));
    for part in order.chunk_by(|a, b| a.0 == b.0) {
        let mut records: Vec<EdgeRecord> = Vec::with_capacity(part.len());
        let mut segments_before = Vec::with_capacity(part.len());
        for (_, edge) in part {
            let before = scales.before.judge(edge);
            let changed = scales.relabel.edge(edge, interner);
            let edge = changed.as_ref().unwrap_or(edge);
            let after = scales.after.judge(edge);
            let mut record = EdgeRecord::new(edge, std::iter::empty());
            for (name, answers) in [(BEFORE, &before), (AFTER, &after)] {
                record
                    .verdicts
                    .extend(answers.judgement_records().map(|judgement| (name.to_owned(), judgement)));
            }
            record.segments = after.segment_records();
            records.push(record);
            segments_before.push(before.segment_records());
        }
        compared.part(records, segments_before, scales);
    }
    // Last, because which endpoints are in two segments is known only now; and also where nothing was recorded.
    for (judges, policies, findings) in [
        (&scales.before, BEFORE, &mut compared.segments_before),
        (&scales.after, AFTER, &mut compared.segments_after),
    ] {
        let of_parts = std::mem::take(findings);
        *findings = SegmentFindings::of(judges.segment_maps(), &[], policies);
        findings.extend(of_parts);
    }
    compared
}

impl Compared {
    /// Takes in the records of one part, which hold what segment maps say with the candidate.
    fn part(
        &mut self,
        mut records: Vec<EdgeRecord>,
        segments_before: Vec<Vec<SegmentRecord>>,
        scales: &Scales,
    ) {
        let links = Link::all(&records);
        links.iter().for_each(|link| self.link(link));
        if scales.after.has_segment_maps() {
            self.segments_after.extend(SegmentFindings::of(scales.after.segment_maps(), &links, AFTER));
        }
        if scales.before.has_segment_maps() {
            for (record, segments) in records.iter_mut().zip(segments_before) {
                record.segments = segments;
            }
            let links = Link::all(&records);
            self.segments_before.extend(SegmentFindings::of(scales.before.segment_maps(), &links, BEFORE));
        }
    }
}

/// What never crosses from one part into another: both sides of a connection have its initiator, and a Service
/// and the pods behind it are in one namespace.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PartKey<'a> {
    initiator: Initiator<'a>,
    responder_namespace: Option<&'a str>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Initiator<'a> {
    Workload(&'a WorkloadRef),
    Service(&'a str, &'a str),
    Node,
    External,
    Unknown(Option<IpAddr>),
}

impl<'a> PartKey<'a> {
    fn of(edge: &'a Edge) -> Self {
        let Party { address, endpoint } = &edge.initiator;
        let initiator = match endpoint {
            Endpoint::Pod(pod) => Initiator::Workload(&pod.workload),
            Endpoint::Service(service) => Initiator::Service(&service.namespace, &service.name),
            Endpoint::Node(_) => Initiator::Node,
            Endpoint::External | Endpoint::Range(_) => Initiator::External,
            Endpoint::Unknown(_) => Initiator::Unknown(*address),
        };
        Self { initiator, responder_namespace: edge.responder.namespace() }
    }
}

/// Every change of a verdict, and every verdict that stays.
const CHANGES: [(Verdict, Verdict); 9] = {
    use Verdict::{Allow, Deny, Unknown};
    [
        (Allow, Allow),
        (Allow, Deny),
        (Allow, Unknown),
        (Deny, Allow),
        (Deny, Deny),
        (Deny, Unknown),
        (Unknown, Allow),
        (Unknown, Deny),
        (Unknown, Unknown),
    ]
};

impl Counts {
    /// What a change counts among.
    fn of(&mut self, before: Verdict, after: Verdict, excepted: bool) -> Vec<&mut Amount> {
        use Verdict::{Allow, Deny, Unknown};
        match (before, after) {
            (Allow, Allow) => vec![&mut self.unchanged],
            (Allow, Deny) if excepted => vec![&mut self.excepted],
            (Allow, Deny) => vec![&mut self.newly_denied],
            (Deny, Allow) => vec![&mut self.newly_allowed],
            (Deny, Deny) => vec![&mut self.still_denied],
            (Unknown, Unknown) => vec![&mut self.unknown, &mut self.unknown_after],
            (_, Unknown) => vec![&mut self.unknown, &mut self.unknown_changed, &mut self.unknown_after],
            (Unknown, _) => vec![&mut self.unknown, &mut self.unknown_changed],
        }
    }
}

impl Compared {
    /// One finding for each change that pairs of the link undergo.
    fn link(&mut self, link: &Link<'_>) {
        for (before, after) in CHANGES {
            self.change(link, before, after, false);
        }
        self.change(link, Verdict::Allow, Verdict::Deny, true);
    }

    /// `excepted`: of what is newly denied, what exceptions mute, or else what they do not.
    fn change(&mut self, link: &Link<'_>, before: Verdict, after: Verdict, excepted: bool) {
        let is_new = (before, after) == (Verdict::Allow, Verdict::Deny);
        let undergoes = |pair: &Pair<'_>| {
            pair.verdict(BEFORE) == Some(before)
                && pair.verdict(AFTER) == Some(after)
                && (!is_new || pair.is_excepted(AFTER) == excepted)
        };
        let seen = link.seen(undergoes);
        // What nobody accepts cannot break. But where policies are enforced, what they deny is never
        // accepted, and a candidate that allows it must not do so unseen.
        let opened = (before, after) == (Verdict::Deny, Verdict::Allow) && seen.attempts > 0;
        if seen.connections == 0 && !opened {
            return;
        }
        for amount in self.counts.of(before, after, excepted) {
            *amount = amount.plus(Amount { findings: 1, connections: seen.connections });
        }
        if (before, after) == (Verdict::Allow, Verdict::Allow) {
            return;
        }
        let sides: Vec<Side> =
            Direction::BOTH.into_iter().filter_map(|direction| side(link, direction, undergoes)).collect();
        let muted = link.all_pairs().filter(|pair| excepted && undergoes(pair));
        let exception =
            muted.flat_map(|pair| pair.exceptions(&[AFTER])).find(|(scenario, _)| *scenario == AFTER);
        let exception = exception.map(|(_, exception)| exception);
        self.found.push(Found {
            cause: link.cause,
            owner: owner(link, &sides),
            finding: Finding {
                initiator: link.initiator.clone(),
                responder: link.responder.clone(),
                port: link.port,
                protocol: link.protocol,
                before,
                after,
                connections: seen.connections,
                attempts: seen.attempts,
                first_seen: seen.first,
                last_seen: seen.last,
                exception: exception.flatten().cloned(),
                sides,
            },
        });
    }
}

/// One direction, if there is anything to say about it.
fn side(link: &Link<'_>, direction: Direction, concerned: impl Fn(&Pair<'_>) -> bool) -> Option<Side> {
    let answers = link
        .all_pairs()
        .filter(|pair| concerned(pair))
        .filter_map(|pair| Some((pair.decision(direction, BEFORE)?, pair.decision(direction, AFTER)?)));
    // Pairs of one link may differ; the gravest is the one to show.
    let grave = |verdict| match verdict {
        Verdict::Allow => 0,
        Verdict::Unknown => 1,
        Verdict::Deny => 2,
    };
    let (before, after) =
        answers.max_by_key(|(before, after)| (grave(after.verdict), grave(before.verdict)))?;
    if (before.verdict, after.verdict) == (Verdict::Allow, Verdict::Allow) {
        return None;
    }
    let denial = (after.verdict == Verdict::Deny).then(|| Denial::new(link, direction, after));
    Some(Side { direction, before: before.clone(), after: after.clone(), denial })
}

/// Whose it is: the workload at the first side that changes, else at the first side there is.
fn owner(link: &Link<'_>, sides: &[Side]) -> String {
    let changes = sides.iter().find(|side| side.before.verdict != side.after.verdict);
    match changes.or(sides.first()).map(|side| side.direction) {
        Some(Direction::Ingress) => link.responder.to_string(),
        Some(Direction::Egress) | None => link.initiator.to_string(),
    }
}
