//! The same question in other dialects: where the answer differs from that of the one that was asked for.

use std::io::{self, Write};
use std::sync::Arc;

use serde::Serialize;

use super::query::Query;
use super::{Engine, answer};
use crate::model::dialect::{Dialect, NAMES};
use crate::model::edge::Direction;
use crate::model::endpoint::Party;
use crate::model::record::DecisionRecord;
use crate::model::verdict::{Judgement, Verdict};
use crate::policy::Judge;

/// What another dialect says.
#[derive(Debug)]
pub(super) struct Difference {
    dialect: Dialect,
    /// Whether each direction differs, in the order of [`Direction::BOTH`].
    differs: [bool; 2],
    judgement: Judgement,
}

/// A difference, as JSON has it.
#[derive(Debug, Serialize)]
pub(super) struct DifferenceRecord {
    dialect: String,
    verdict: Verdict,
    egress: DecisionRecord,
    ingress: DecisionRecord,
}

impl From<&Difference> for DifferenceRecord {
    fn from(difference: &Difference) -> Self {
        let Judgement { egress, ingress } = &difference.judgement;
        Self {
            dialect: difference.dialect.to_string(),
            verdict: difference.judgement.verdict(),
            egress: DecisionRecord::from(&**egress),
            ingress: DecisionRecord::from(&**ingress),
        }
    }
}

/// The other dialects in which either direction gets another verdict.
pub(super) fn differences(engine: &mut Engine, query: &Query, pairs: &[(Party, Party)]) -> Vec<Difference> {
    let own = answer::judge(engine, query, pairs);
    let policies = engine.index.policies_of(&engine.scenario);
    let asked = engine.dialect.name();
    let others = NAMES.into_iter().filter(|name| *name != asked).filter_map(Dialect::named);
    let mut found = Vec::new();
    for dialect in others {
        let other = Judge::with_facts(&policies, &engine.facts, dialect, &engine.scenario);
        let before = std::mem::replace(&mut engine.judge, other);
        let judgement = answer::judge(engine, query, pairs);
        engine.judge = before;
        let differs =
            Direction::BOTH.map(|direction| judgement.of(direction).verdict != own.of(direction).verdict);
        if differs.contains(&true) {
            found.push(Difference { dialect, differs, judgement });
        }
    }
    found
}

/// `differs on cilium: egress Deny: no policy …`, a line for each direction that does.
pub(super) fn print(differences: &[Difference], out: &mut impl Write) -> io::Result<()> {
    for Difference { dialect, differs, judgement } in differences {
        for (direction, _) in Direction::BOTH.into_iter().zip(differs).filter(|(_, differs)| **differs) {
            let decision = Arc::clone(judgement.of(direction));
            let (verdict, reason) = (decision.verdict, &decision.reason);
            let direction = direction.as_str().to_lowercase();
            writeln!(out, "differs on {dialect}: {direction} {verdict}: {reason}")?;
        }
    }
    if differences.is_empty() {
        writeln!(out, "differs on no other dialect")?;
    }
    Ok(())
}
