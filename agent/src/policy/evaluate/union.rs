//! Tiers whose policies add up: NetworkPolicy, and Cilium's rule set with its deny rules.

use std::sync::Arc;

use super::{Doubt, Evaluation, Ground, Hit, Outcomes, doubt};
use crate::model::verdict::{NotJudged, UnknownReason};
use crate::policy::cache::{Selected, TierSelection};
use crate::policy::fault::Field;
use crate::policy::spec::Action;
use crate::policy::tier::CompiledPolicy;
use crate::policy::tri::{Tri, Why};

/// Which of a policy's rules for an action match, the first of each kind.
#[derive(Default)]
struct Found {
    yes: Option<Hit>,
    maybe: Option<(Hit, Why)>,
    /// It matches, and looks into the connection at this field, of which nothing is known.
    below: Option<(Hit, Arc<str>)>,
    /// It matches, and does not let the request pass.
    blocked: Option<Hit>,
}

/// What the policies of a union come to, as far as they were asked.
#[derive(Default)]
struct Tally {
    isolated: bool,
    below: Option<(Hit, Arc<str>)>,
    blocked: Option<Hit>,
    /// The first policy that may allow, that may deny, and that allows if it selects at all.
    may_allow: Option<Doubt>,
    may_deny: Option<Doubt>,
    allows: Option<Ground>,
}

impl Evaluation<'_> {
    /// Policies add up, and what a deny rule matches is denied whatever others say. Faults of different policies
    /// are independent of each other, so a policy that only may select the subject may also be the only one, or
    /// not be there at all.
    pub(super) fn union(&mut self, selection: &TierSelection) -> Outcomes {
        let mut may_be_denied = None;
        for selected in &selection.policies {
            if !selected.policy.section(self.direction).denies {
                continue;
            }
            let reference = &selected.policy.reference;
            let found = self.find(&selected.policy, Action::Deny);
            match (found.yes, found.maybe, &selected.doubt) {
                (Some(hit), _, None) => {
                    return Outcomes { deny: true, ground: Ground::Rule(hit), ..Outcomes::NOTHING };
                }
                (Some(hit), _, Some(field)) => {
                    let why = Why::Field(Field::clone(field));
                    may_be_denied.get_or_insert_with(|| doubt(reference, Some(hit), why));
                }
                (None, Some((hit, why)), _) => {
                    may_be_denied.get_or_insert_with(|| doubt(reference, Some(hit), why));
                }
                (None, None, _) => {}
            }
        }
        let mut outcomes = self.allowed(selection);
        if may_be_denied.is_some() {
            outcomes.deny = true;
            outcomes.doubt = may_be_denied.or(outcomes.doubt);
        }
        outcomes
    }

    /// What the rules that allow say.
    fn allowed(&mut self, selection: &TierSelection) -> Outcomes {
        let mut tally = Tally::default();
        for selected in &selection.policies {
            let found = self.find(&selected.policy, Action::Allow);
            let isolates = &selected.policy.section(self.direction).isolates;
            match (&selected.doubt, found) {
                (None, Found { yes: Some(hit), .. }) => {
                    return Outcomes { allow: true, ground: Ground::Rule(hit), ..Outcomes::NOTHING };
                }
                (None, found) => tally.certain(selected, found, isolates),
                (Some(field), found) => tally.unsure(selected, found, field, isolates != &Ok(false)),
            }
        }
        let Tally { isolated, below, blocked, may_allow, may_deny, allows } = tally;
        if let Some((hit, field)) = below {
            return Outcomes { allow: true, ground: Ground::BelowL7(hit, field), ..Outcomes::NOTHING };
        }
        let (allow, deny) = (may_allow.is_some(), isolated || blocked.is_some() || may_deny.is_some());
        if let Some(hit) = blocked {
            let ground = Ground::NoRequest(hit);
            return Outcomes { allow, deny, next: false, ground, doubt: may_allow };
        }
        let (ground, doubt) = match isolated {
            true => (Ground::NoRule, may_allow),
            false => (allows.unwrap_or(Ground::Nothing), may_deny),
        };
        self.icmp(Outcomes { allow, deny, next: !isolated, ground, doubt })
    }

    /// NetworkPolicy speaks of ports only: whether it denies what has none is left to the dialect.
    fn icmp(&self, outcomes: Outcomes) -> Outcomes {
        if self.protocol.has_ports() || !outcomes.deny {
            return outcomes;
        }
        match self.dialect.icmp_needs_rule {
            Some(true) => outcomes,
            Some(false) => {
                let ground = Ground::NotJudged(NotJudged::Icmp);
                Outcomes { allow: true, deny: false, ground, doubt: None, ..outcomes }
            }
            None => {
                let undefined = Doubt { policy: None, hit: None, why: UnknownReason::IcmpUndefined };
                Outcomes { allow: true, doubt: outcomes.doubt.or(Some(undefined)), ..outcomes }
            }
        }
    }

    /// The rules for an action that match: the first of each kind, up to one that matches for certain.
    fn find(&mut self, policy: &CompiledPolicy, action: Action) -> Found {
        let mut first = Found::default();
        for rule in policy.section(self.direction).rules.iter().filter(|rule| rule.action == action) {
            // Ports are cheap to compare; most rules end here.
            if self.rule_ports(rule) == Tri::No {
                continue;
            }
            let found = self.rule(rule);
            let hit = || Hit::new(&policy.reference, rule, found.peer);
            let lets = |l7: &crate::policy::spec::L7| l7.lets.holds(self.given);
            match (found.all(), &rule.l7) {
                (Tri::No, _) => {}
                (Tri::Yes, None) => return Found { yes: Some(hit()), ..first },
                (Tri::Yes, Some(l7)) => match lets(l7) {
                    Tri::Yes => return Found { yes: Some(hit()), ..first },
                    Tri::No => {
                        first.blocked.get_or_insert_with(hit);
                    }
                    // A rule's own fault is none of the request's.
                    Tri::Maybe(_) if self.given.request.is_none() => {
                        first.below.get_or_insert_with(|| (hit(), Arc::clone(&l7.field)));
                    }
                    Tri::Maybe(why) => {
                        first.maybe.get_or_insert_with(|| (hit(), why));
                        first.blocked.get_or_insert_with(hit);
                    }
                },
                (Tri::Maybe(why), _) => {
                    first.maybe.get_or_insert_with(|| (hit(), why));
                }
            }
        }
        first
    }
}

impl Tally {
    /// A policy that certainly selects the subject, of which no rule matches for certain.
    fn certain(&mut self, selected: &Selected, found: Found, isolates: &Result<bool, Field>) {
        let reference = &selected.policy.reference;
        match isolates {
            Ok(isolates) => self.isolated |= isolates,
            Err(field) => {
                let why = || doubt(reference, None, Why::Field(Field::clone(field)));
                self.may_deny.get_or_insert_with(why);
            }
        }
        if let Some((hit, why)) = found.maybe {
            self.may_allow.get_or_insert_with(|| doubt(reference, Some(hit), why));
        }
        self.below = self.below.take().or(found.below);
        self.blocked = self.blocked.take().or(found.blocked);
    }

    /// A policy that may select the subject.
    fn unsure(&mut self, selected: &Selected, found: Found, field: &Field, may_isolate: bool) {
        let reference = &selected.policy.reference;
        let why = || Why::Field(Field::clone(field));
        let Found { yes, maybe, below, blocked } = found;
        let certain = yes.or(below.map(|(hit, _)| hit));
        let may_deny = blocked.is_some() || (may_isolate && certain.is_none());
        if may_deny {
            self.may_deny.get_or_insert_with(|| doubt(reference, None, why()));
        }
        if let Some(hit) = certain {
            self.allows.get_or_insert_with(|| Ground::Rule(hit.clone()));
            self.may_allow.get_or_insert_with(|| doubt(reference, Some(hit), why()));
        } else if let Some((hit, _)) = maybe {
            self.may_allow.get_or_insert_with(|| doubt(reference, Some(hit), why()));
        }
    }
}
