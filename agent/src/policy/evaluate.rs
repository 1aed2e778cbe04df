//! Three-valued evaluation: what a subject's policies may decide about one connection in one direction.

use std::sync::Arc;

use ipnet::IpNet;

use crate::model::dialect::Dialect;
use crate::model::edge::{Direction, Protocol};
use crate::model::identity::Identity;
use crate::model::object::ObjectRef;
use crate::model::scenario::Assumption;
use crate::model::verdict::{Decision, Layer, NotJudged, Reason, UnknownReason, Verdict};

use super::cache::{Membership, Selected, TierSelection};
use super::compile::Compiled;
use super::fault::Field;
use super::nearest;
use super::prefix::AddressClass;
use super::spec::{Action, NOT_SYNCED};
use super::tier::{CompiledRule, TierKind};
use super::tri::{Tri, Why};

/// What policies can see of the other end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PeerKind<'a> {
    Pod(&'a Identity),
    /// A node, or a pod that uses its node's network.
    Node,
    External,
    Unknown(&'a UnknownReason),
}

/// One question, and what is needed to answer it.
#[derive(Debug)]
pub(crate) struct Evaluation<'a> {
    pub(crate) compiled: &'a Compiled,
    pub(crate) dialect: &'a Dialect,
    pub(crate) direction: Direction,
    pub(crate) subject: &'a Identity,
    pub(crate) peer: PeerKind<'a>,
    pub(crate) class: AddressClass,
    /// The peer's range, where blocks hold only a part of it.
    pub(crate) divided: Option<IpNet>,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    /// Of the peer's identity, if it has one.
    pub(crate) membership: &'a mut Membership,
}

/// The place in a policy's list of rules.
#[derive(Debug, Clone, Copy)]
struct Hit {
    rule: u32,
    peer: Option<u32>,
    assumed: Option<Assumption>,
}

/// Whether any rule of a policy matches: the first that does, or else the first that may.
enum PolicyMatch {
    Yes(Hit),
    Maybe(Hit, Why),
    No,
}

/// What a tier may do.
struct Outcomes {
    allow: bool,
    deny: bool,
    next: bool,
    /// Why, if there is no doubt about the verdict.
    ground: Ground,
    /// Why not, otherwise.
    doubt: Option<Doubt>,
}

enum Ground {
    /// No policy of the tier decides.
    Nothing,
    Rule(Arc<ObjectRef>, Hit),
    /// The subject is isolated, or at the end of an ordered tier.
    NoRule,
    NotJudged(NotJudged),
}

struct Doubt {
    policy: Option<Arc<ObjectRef>>,
    hit: Option<Hit>,
    why: UnknownReason,
}

/// An index as decisions hold it.
pub(crate) fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// The doubt that something in a policy causes.
fn doubt(policy: &Arc<ObjectRef>, hit: Option<Hit>, why: Why) -> Doubt {
    let why = match why {
        Why::Field(field) if &*field == NOT_SYNCED => UnknownReason::NotSynced,
        Why::Field(field) => UnknownReason::PolicyInvalid { policy: Arc::clone(policy), field },
        Why::Reason(reason) => reason,
    };
    Doubt { policy: Some(Arc::clone(policy)), hit, why }
}

impl Outcomes {
    const fn may(&mut self, action: Action) {
        match action {
            Action::Allow => self.allow = true,
            Action::Deny => self.deny = true,
            Action::Pass => self.next = true,
        }
    }
}

impl Evaluation<'_> {
    /// Asks the tiers in order. Where what they may do differs, the answer is `Unknown`.
    pub(crate) fn decide(&mut self, selection: &[TierSelection]) -> Decision {
        let compiled = self.compiled;
        let (mut allow, mut deny) = (false, false);
        let mut asked = Vec::new();
        let mut next = true;
        for (tier, selected) in compiled.tiers.iter().zip(selection) {
            let outcomes = match tier.kind {
                _ if selected.policies.is_empty() || !next => continue,
                TierKind::Union => self.union(selected),
                TierKind::Ordered { end } => self.ordered(selected, end),
            };
            allow |= outcomes.allow;
            deny |= outcomes.deny;
            next = outcomes.next;
            asked.push((tier.layer, selected, outcomes));
        }
        let verdict = match (allow || next, deny) {
            (true, true) => Verdict::Unknown,
            (false, true) => Verdict::Deny,
            (_, false) => Verdict::Allow,
        };
        self.decision(verdict, asked)
    }

    fn decision(&mut self, verdict: Verdict, asked: Vec<(Layer, &TierSelection, Outcomes)>) -> Decision {
        let mut decision = Decision {
            direction: self.direction,
            verdict,
            layer: Layer::None,
            policy: None,
            rule: None,
            peer: None,
            reason: Reason::NotIsolated,
        };
        for (layer, selected, outcomes) in asked {
            decision.layer = layer;
            let (policy, hit, reason) = match (verdict, outcomes.doubt, outcomes.ground) {
                (Verdict::Unknown, None, _) | (Verdict::Allow | Verdict::Deny, _, Ground::Nothing) => {
                    continue;
                }
                (Verdict::Unknown, Some(doubt), _) => (doubt.policy, doubt.hit, Reason::Unknown(doubt.why)),
                (_, _, Ground::NotJudged(why)) => (None, None, Reason::NotJudged(why)),
                // The rules that a scenario assumes are in no policy that anyone could look up.
                (_, _, Ground::Rule(policy, Hit { assumed: Some(assumption), .. })) => {
                    (Some(policy), None, Reason::Assumed(assumption))
                }
                (_, _, Ground::Rule(policy, hit)) => (Some(policy), Some(hit), Reason::Rule),
                (_, _, Ground::NoRule) => {
                    let first = selected.policies.iter().find(|selected| selected.doubt.is_none());
                    let nearest = nearest::miss(self, selected).map(Box::new);
                    let isolated_by = Arc::clone(&selected.isolated_by);
                    let reason = Reason::NoRuleMatches { isolated_by, nearest };
                    (first.map(|selected| Arc::clone(&selected.policy.reference)), None, reason)
                }
            };
            decision.policy = policy;
            decision.rule = hit.map(|hit| hit.rule);
            decision.peer = hit.and_then(|hit| hit.peer);
            decision.reason = reason;
            return decision;
        }
        decision.layer = Layer::None;
        decision
    }

    /// NetworkPolicy: policies add up. Faults of different policies are independent of each other, so a
    /// policy that only may select the subject may also be the only one, or not be there at all.
    fn union(&mut self, selection: &TierSelection) -> Outcomes {
        let mut isolated = false;
        // The first policy that may allow, that may deny by isolating, and that allows if it selects at all.
        let (mut may_allow, mut may_deny, mut allows) = (None, None, None);
        for Selected { policy, doubt: unsure } in &selection.policies {
            let reference = &policy.reference;
            match (self.policy(&policy.section(self.direction).rules), unsure) {
                (PolicyMatch::Yes(hit), None) => {
                    let ground = Ground::Rule(Arc::clone(reference), hit);
                    return Outcomes { allow: true, deny: false, next: false, ground, doubt: None };
                }
                (PolicyMatch::Maybe(hit, why), None) => {
                    isolated = true;
                    may_allow.get_or_insert_with(|| doubt(reference, Some(hit), why));
                }
                (PolicyMatch::No, None) => isolated = true,
                (found, Some(field)) => {
                    let unsure = || Why::Field(Field::clone(field));
                    match found {
                        PolicyMatch::Yes(hit) => {
                            may_allow.get_or_insert_with(|| doubt(reference, Some(hit), unsure()));
                            allows.get_or_insert_with(|| Ground::Rule(Arc::clone(reference), hit));
                        }
                        PolicyMatch::Maybe(hit, _) => {
                            may_allow.get_or_insert_with(|| doubt(reference, Some(hit), unsure()));
                            may_deny.get_or_insert_with(|| doubt(reference, None, unsure()));
                        }
                        PolicyMatch::No => {
                            may_deny.get_or_insert_with(|| doubt(reference, None, unsure()));
                        }
                    }
                }
            }
        }
        let (allow, deny) = (may_allow.is_some(), isolated || may_deny.is_some());
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

    /// The first matching rule decides, in order; a rule that only may match leaves open what comes after it.
    fn ordered(&mut self, selection: &TierSelection, end: Action) -> Outcomes {
        let mut outcomes =
            Outcomes { allow: false, deny: false, next: false, ground: Ground::Nothing, doubt: None };
        let mut selected_for_sure = false;
        for Selected { policy, doubt: unsure } in &selection.policies {
            let reference = &policy.reference;
            for (at, rule) in policy.section(self.direction).rules.iter().enumerate() {
                let found = self.rule(rule);
                let hit = Hit { rule: index(at), peer: found.peer, assumed: rule.assumed };
                match unsure.as_ref().map_or(Tri::Yes, Tri::field).and(|| found.all()) {
                    Tri::No => {}
                    Tri::Maybe(why) => {
                        outcomes.may(rule.action);
                        outcomes.doubt.get_or_insert_with(|| doubt(reference, Some(hit), why));
                    }
                    Tri::Yes => {
                        outcomes.may(rule.action);
                        if rule.action != Action::Pass {
                            outcomes.ground = Ground::Rule(Arc::clone(reference), hit);
                        }
                        return outcomes;
                    }
                }
            }
            match unsure {
                None => selected_for_sure = true,
                Some(field) => {
                    let why = || doubt(reference, None, Why::Field(Field::clone(field)));
                    outcomes.doubt.get_or_insert_with(why);
                }
            }
        }
        outcomes.may(end);
        outcomes.next |= !selected_for_sure;
        if end != Action::Pass {
            outcomes.ground = Ground::NoRule;
        }
        outcomes
    }

    fn policy(&mut self, rules: &[CompiledRule]) -> PolicyMatch {
        let mut first = PolicyMatch::No;
        for (at, rule) in rules.iter().enumerate() {
            // Ports are cheap to compare; most rules end here.
            if self.ports(&rule.ports) == Tri::No {
                continue;
            }
            let found = self.rule(rule);
            let hit = Hit { rule: index(at), peer: found.peer, assumed: rule.assumed };
            match found.all() {
                Tri::Yes => return PolicyMatch::Yes(hit),
                Tri::Maybe(why) if matches!(first, PolicyMatch::No) => first = PolicyMatch::Maybe(hit, why),
                Tri::Maybe(_) | Tri::No => {}
            }
        }
        first
    }
}
