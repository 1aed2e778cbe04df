//! Answers: the judgements of the pairs that a query means, made one.

use std::io::{self, Write};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::Engine;
use super::compare::DifferenceRecord;
use super::query::Query;
use crate::model::edge::{Direction, Protocol};
use crate::model::endpoint::{Connection, Party};
use crate::model::record::{DecisionRecord, PartyRecord};
use crate::model::verdict::{Decision, Judgement, Reason, UnknownReason, Verdict};

/// Pairs whose steps are printed before "and N more".
const EXPLAINED: usize = 4;

/// An answer line of a batch.
#[derive(Debug, Serialize)]
pub(super) struct Answer<'a> {
    id: &'a Value,
    verdict: Verdict,
    egress: DecisionRecord,
    ingress: DecisionRecord,
}

/// The answer to one query, with what it was about.
#[derive(Debug, Serialize)]
pub(super) struct FullAnswer {
    /// The first pair's ends, if the query means several.
    from: Option<PartyRecord>,
    to: Option<PartyRecord>,
    pairs: usize,
    port: u16,
    protocol: Protocol,
    scenario: String,
    dialect: String,
    verdict: Verdict,
    egress: DecisionRecord,
    ingress: DecisionRecord,
    /// What other dialects say, where they were compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    differs: Option<Vec<DifferenceRecord>>,
}

fn connection<'a>(query: &Query, (initiator, responder): &'a (Party, Party)) -> Connection<'a> {
    Connection { initiator, responder, port: query.port, protocol: query.protocol }
}

/// Both directions' answers over all pairs.
pub(super) fn judge(engine: &mut Engine, query: &Query, pairs: &[(Party, Party)]) -> Judgement {
    let mut egress = Tally::default();
    let mut ingress = Tally::default();
    for pair in pairs {
        let judgement = engine.judge.judge(&connection(query, pair));
        egress.add(&judgement.egress);
        ingress.add(&judgement.ingress);
    }
    Judgement { egress: egress.decision(Direction::Egress), ingress: ingress.decision(Direction::Ingress) }
}

/// The decisions of one direction.
#[derive(Debug, Default)]
struct Tally {
    first: Option<Arc<Decision>>,
    allowed: u32,
    denied: u32,
    unknown: u32,
}

impl Tally {
    fn add(&mut self, decision: &Arc<Decision>) {
        match decision.verdict {
            Verdict::Allow => self.allowed += 1,
            Verdict::Deny => self.denied += 1,
            Verdict::Unknown => self.unknown += 1,
        }
        self.first.get_or_insert_with(|| Arc::clone(decision));
    }

    /// The one answer, or that there are several.
    fn decision(self, direction: Direction) -> Arc<Decision> {
        let Self { first, allowed, denied, unknown } = self;
        let verdicts = [allowed, denied, unknown].into_iter().filter(|count| *count > 0).count();
        match first {
            Some(first) if verdicts == 1 => first,
            _ => Arc::new(Decision::without_tier(
                direction,
                Verdict::Unknown,
                Reason::Unknown(UnknownReason::PodsDiffer { allowed, denied, unknown }),
            )),
        }
    }
}

/// The answer line to a query.
pub(super) fn short<'a>(engine: &mut Engine, query: &'a Query, pairs: &[(Party, Party)]) -> Answer<'a> {
    let judgement = judge(engine, query, pairs);
    Answer {
        id: &query.id,
        verdict: judgement.verdict(),
        egress: DecisionRecord::from(&*judgement.egress),
        ingress: DecisionRecord::from(&*judgement.ingress),
    }
}

/// The answer with the records of both ends.
pub(super) fn full(
    engine: &mut Engine,
    query: &Query,
    pairs: &[(Party, Party)],
    differs: Option<Vec<DifferenceRecord>>,
) -> FullAnswer {
    let judgement = judge(engine, query, pairs);
    FullAnswer {
        from: pairs.first().map(|(from, _)| PartyRecord::from(from)),
        to: pairs.first().map(|(_, to)| PartyRecord::from(to)),
        pairs: pairs.len(),
        port: query.port,
        protocol: query.protocol,
        scenario: engine.scenario.to_string(),
        dialect: engine.dialect.to_string(),
        verdict: judgement.verdict(),
        egress: DecisionRecord::from(&*judgement.egress),
        ingress: DecisionRecord::from(&*judgement.ingress),
        differs,
    }
}

/// Prints how the pairs were judged, step by step: of those that are judged alike, the first.
pub(super) fn print_steps(
    engine: &mut Engine,
    query: &Query,
    pairs: &[(Party, Party)],
    out: &mut impl Write,
) -> io::Result<()> {
    let mut kinds: Vec<(Judgement, &(Party, Party), usize)> = Vec::new();
    for pair in pairs {
        let judgement = engine.judge.judge(&connection(query, pair));
        match kinds.iter_mut().find(|(known, ..)| *known == judgement) {
            Some((.., count)) => *count += 1,
            None => kinds.push((judgement, pair, 1)),
        }
    }
    for (at, (_, pair, count)) in kinds.iter().enumerate().take(EXPLAINED) {
        if at > 0 {
            writeln!(out)?;
        }
        if pairs.len() > 1 {
            writeln!(out, "{count} of {} pairs of pods are judged like this one:", pairs.len())?;
        }
        write!(out, "{}", engine.judge.explain(&connection(query, pair)))?;
    }
    if kinds.len() > EXPLAINED {
        writeln!(out, "\n… and {} more that are judged otherwise", kinds.len() - EXPLAINED)?;
    }
    if kinds.len() > 1 {
        let all = judge(engine, query, pairs);
        writeln!(out, "\nALL PAIRS  {}", all.verdict())?;
        for decision in [&all.egress, &all.ingress] {
            writeln!(out, "  {:<8} {}: {}", decision.direction, decision.verdict, decision.reason)?;
        }
    }
    Ok(())
}
