//! Tiers in which the first matching rule decides.

use std::sync::Arc;

use super::{Doubt, Evaluation, Ground, Hit, Outcomes, doubt};
use crate::model::object::ObjectRef;
use crate::model::verdict::UnknownReason;
use crate::policy::cache::{Selected, TierSelection};
use crate::policy::spec::Action;
use crate::policy::tri::{Tri, Why};

/// What one policy of an ordered tier may do. `next` here is the next policy.
pub(super) struct Turn {
    pub(super) outcomes: Outcomes,
    /// A rule of it leaves the tier, or may.
    pub(super) passes: bool,
}

impl Evaluation<'_> {
    /// The first matching rule decides, in order; a rule that only may match leaves open what comes after it.
    pub(super) fn ordered(&mut self, selection: &TierSelection, end: Action, ties: bool) -> Outcomes {
        let mut outcomes = Outcomes::NOTHING;
        let mut rest = &*selection.policies;
        while let Some(first) = rest.first() {
            let equal = |selected: &Selected| ties && selected.policy.rank == first.policy.rank;
            let (group, after) = rest.split_at(rest.iter().take_while(|s| equal(s)).count().max(1));
            rest = after;
            let turn = self.turns(group);
            outcomes.allow |= turn.outcomes.allow;
            outcomes.deny |= turn.outcomes.deny;
            outcomes.next |= turn.passes;
            if outcomes.doubt.is_none() {
                outcomes.doubt = turn.outcomes.doubt;
            }
            if !turn.outcomes.next {
                outcomes.ground = turn.outcomes.ground;
                return outcomes;
            }
        }
        outcomes.may(end);
        outcomes.next |= selection.policies.iter().all(|selected| selected.doubt.is_some());
        if end != Action::Pass {
            outcomes.ground = Ground::NoRule;
        }
        outcomes
    }

    /// What policies of equal rank may do: any of them may be the first.
    fn turns(&mut self, group: &[Selected]) -> Turn {
        if let [only] = group {
            return self.turn(only);
        }
        let mut sum = Turn { outcomes: Outcomes { next: true, ..Outcomes::NOTHING }, passes: false };
        // Those that certainly decide, and how.
        let mut deciding: Vec<(ObjectRef, [bool; 3])> = Vec::new();
        for selected in group {
            let Turn { outcomes, passes } = self.turn(selected);
            if !outcomes.next {
                let how = [outcomes.allow, outcomes.deny, passes];
                deciding.push((ObjectRef::clone(&selected.policy.reference), how));
            }
            if sum.outcomes.next && !outcomes.next {
                sum.outcomes.ground = outcomes.ground;
            }
            sum.passes |= passes;
            sum.outcomes.allow |= outcomes.allow;
            sum.outcomes.deny |= outcomes.deny;
            sum.outcomes.next &= outcomes.next;
            sum.outcomes.doubt = sum.outcomes.doubt.or(outcomes.doubt);
        }
        let first = deciding.first().map(|(_, how)| *how);
        if deciding.iter().any(|(_, how)| Some(*how) != first) && sum.outcomes.doubt.is_none() {
            let policies: Arc<[ObjectRef]> = deciding.into_iter().map(|(policy, _)| policy).collect();
            let why = UnknownReason::EqualPriority { policies };
            sum.outcomes.doubt = Some(Doubt { policy: None, hit: None, why });
        }
        sum
    }

    /// What one policy may do.
    pub(super) fn turn(&mut self, selected: &Selected) -> Turn {
        let Selected { policy, doubt: unsure } = selected;
        let reference = &policy.reference;
        let mut turn = Turn { outcomes: Outcomes::NOTHING, passes: false };
        for rule in &policy.section(self.direction).rules {
            // Most rules end at their ports, which are cheap to compare.
            if rule.action == Action::Log || self.rule_ports(rule) == Tri::No {
                continue;
            }
            let found = self.rule(rule);
            let hit = || Hit::new(reference, rule, found.peer);
            let certain = match unsure.as_ref().map_or(Tri::Yes, Tri::field).and(|| found.all()) {
                Tri::No => continue,
                Tri::Maybe(why) => {
                    turn.outcomes.doubt.get_or_insert_with(|| doubt(reference, Some(hit()), why));
                    false
                }
                Tri::Yes => true,
            };
            match rule.action {
                Action::Allow => turn.outcomes.allow = true,
                Action::Deny => turn.outcomes.deny = true,
                Action::Pass | Action::Log => turn.passes = true,
            }
            if certain {
                turn.outcomes.ground = match rule.action {
                    Action::Pass | Action::Log => Ground::Passed(hit()),
                    Action::Allow | Action::Deny => Ground::Rule(hit()),
                };
                return turn;
            }
        }
        if let Some(field) = unsure {
            let why = || doubt(reference, None, Why::Field(field.clone()));
            turn.outcomes.doubt.get_or_insert_with(why);
        }
        turn.outcomes.next = true;
        turn
    }
}
