//! The decision, and the answers of all tiers that were asked.

use std::sync::Arc;

use super::{Evaluation, Ground, Hit, Outcomes};
use crate::model::object::ObjectRef;
use crate::model::verdict::{Answer, Decision, NearestMiss, Reason, TierOutcome, Verdict};
use crate::policy::cache::TierSelection;
use crate::policy::nearest;
use crate::policy::tier::{Group, Tier};

/// A tier that was asked, and what it may do.
pub(super) struct Asked<'a> {
    pub(super) tier: &'a Tier,
    pub(super) selected: &'a TierSelection,
    pub(super) outcomes: Outcomes,
}

/// What a tier's answer rests on.
struct Grounds {
    policy: Option<Arc<ObjectRef>>,
    hit: Option<Hit>,
    reason: Reason,
}

impl Grounds {
    fn of_rule(hit: &Hit, reason: Reason) -> Self {
        let policy = Some(Arc::clone(&hit.policy));
        match hit.assumed {
            // The rules that a scenario assumes are in no policy that anyone could look up.
            Some(assumption) => Self { policy, hit: None, reason: Reason::Assumed(assumption) },
            None => Self { policy, hit: Some(hit.clone()), reason },
        }
    }
}

impl Asked<'_> {
    const fn outcome(&self) -> TierOutcome {
        match (self.outcomes.allow, self.outcomes.deny, self.outcomes.next) {
            (true, false, false) => TierOutcome::Allow,
            (false, true, false) => TierOutcome::Deny,
            (false, false, _) => TierOutcome::Pass,
            _ => TierOutcome::Unknown,
        }
    }

    /// Whether a verdict can rest on it.
    const fn decides(&self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Unknown => self.outcomes.doubt.is_some(),
            Verdict::Allow | Verdict::Deny => {
                !matches!(self.outcomes.ground, Ground::Nothing | Ground::Passed(_))
            }
        }
    }

    fn grounds(&self, unknown: bool, nearest: impl FnOnce() -> Option<NearestMiss>) -> Grounds {
        let plain = |reason| Grounds { policy: None, hit: None, reason };
        match (&self.outcomes.doubt, &self.outcomes.ground) {
            (Some(doubt), _) if unknown => Grounds {
                policy: doubt.policy.clone(),
                hit: doubt.hit.clone(),
                reason: Reason::Unknown(doubt.why.clone()),
            },
            (_, Ground::Rule(hit) | Ground::Passed(hit)) => Grounds::of_rule(hit, Reason::Rule),
            (_, Ground::BelowL7(hit, field)) => {
                Grounds::of_rule(hit, Reason::RuleBelowL7 { field: Arc::clone(field) })
            }
            (_, Ground::NoRequest(hit)) => Grounds::of_rule(hit, Reason::NoRequestMatches),
            (_, Ground::NotJudged(why)) => plain(Reason::NotJudged(*why)),
            (_, Ground::NoRule) => {
                let first = self.selected.policies.iter().find(|selected| selected.doubt.is_none());
                let isolated_by = Arc::clone(&self.selected.isolated_by);
                let reason = Reason::NoRuleMatches { isolated_by, nearest: nearest().map(Box::new) };
                let policy = first.map(|selected| Arc::clone(&selected.policy.reference));
                Grounds { policy, hit: None, reason }
            }
            (_, Ground::Nothing) => match self.tier.kind {
                crate::policy::tier::TierKind::Union => plain(Reason::NotIsolated),
                _ => plain(Reason::EndOfTier),
            },
        }
    }
}

impl Evaluation<'_> {
    /// The decision of all groups: the first that denies, else the first that cannot tell, else the first that has
    /// something to say.
    pub(super) fn decision(&mut self, verdicts: [Verdict; 2], asked: Vec<Asked<'_>>) -> Decision {
        let [network, mesh] = verdicts;
        let verdict = network.and(mesh);
        let of_group = |group| if group == Group::Network { network } else { mesh };
        let deciding = asked.iter().position(|asked| {
            let own = of_group(asked.tier.group);
            own == verdict && asked.decides(verdict)
        });
        let mut decision = Decision::without_tier(self.direction, verdict, Reason::NotIsolated);
        if let Some(asked) = deciding.and_then(|at| asked.get(at)) {
            let unknown = verdict == Verdict::Unknown;
            let Grounds { policy, hit, reason } =
                asked.grounds(unknown, || nearest::miss(self, asked.selected));
            decision.layer = asked.tier.layer;
            decision.policy = policy;
            decision.rule = hit.as_ref().map(|hit| hit.rule);
            decision.peer = hit.as_ref().and_then(|hit| hit.peer);
            decision.rule_name = hit.and_then(|hit| hit.name);
            decision.reason = reason;
        }
        if asked.len() > 1 {
            let answers = asked.iter().enumerate();
            decision.chain = answers.map(|(at, asked)| answer(asked, deciding == Some(at))).collect();
        }
        decision
    }
}

/// One tier's answer, as reports show it. Nearest misses are told of the decision only.
fn answer(asked: &Asked<'_>, decides: bool) -> Answer {
    let outcome = asked.outcome();
    let Grounds { policy, hit, reason } = asked.grounds(outcome == TierOutcome::Unknown, || None);
    Answer {
        layer: asked.tier.layer,
        tier: asked.tier.name.clone(),
        outcome,
        policy,
        rule: hit.as_ref().map(|hit| hit.rule),
        rule_name: hit.and_then(|hit| hit.name),
        reason,
        decides,
    }
}
