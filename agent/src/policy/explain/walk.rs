//! Walks the same rules as the judge, with the same comparisons, and notes each.

use std::fmt::Write;
use std::sync::Arc;

use crate::model::edge::Direction;
use crate::model::endpoint::{Connection, Endpoint, Party, Pod};
use crate::model::facts::ConnectionFacts;
use crate::model::object::ObjectRef;
use crate::model::verdict::{Decision, Reason, write_rule};
use crate::policy::cache::Selected;
use crate::policy::evaluate::{Evaluation, PeerKind};
use crate::policy::given::Given;
use crate::policy::judge::{Case, Judge, cases};
use crate::policy::nearest::{peer_text, rule_ports_text};
use crate::policy::spec::{Action, Reach};
use crate::policy::tier::{CompiledPeer, CompiledPeers, CompiledPolicy, CompiledRule};
use crate::policy::tri::{Tri, Why};

use super::{DirectionSteps, Explanation, Outcome, PartSteps, PolicySteps, RuleStep};

impl Judge {
    /// The judgement of [`judge`](Self::judge), and how it came about.
    pub fn explain(&mut self, connection: &Connection<'_>) -> Explanation {
        self.explain_given(connection, &ConnectionFacts::NONE)
    }

    /// The same, with what is known of the connection besides.
    pub fn explain_given(&mut self, connection: &Connection<'_>, given: &ConnectionFacts) -> Explanation {
        let judgement = self.judge_given(connection, given);
        let mut directions = Vec::new();
        for direction in Direction::BOTH {
            for case in cases(connection, given, direction) {
                directions.push(self.steps(&case));
            }
        }
        Explanation {
            initiator: party_text(connection.initiator, connection.responder),
            responder: party_text(connection.responder, connection.initiator),
            port: connection.port,
            protocol: connection.protocol,
            scenario: self.scenario.to_string(),
            dialect: self.dialect.to_string(),
            judgement,
            directions,
        }
    }

    fn steps(&mut self, case: &Case<'_>) -> DirectionSteps {
        let decision = self.judge_case(case);
        let mut steps = DirectionSteps {
            direction: case.direction,
            subject: party_text(case.subject, case.peer),
            peer: party_text(case.peer, case.subject),
            port: case.port,
            decision,
            selected_by: Vec::new(),
            passed_over: Vec::new(),
        };
        if let Some(pod) = case.subject.as_pod().filter(|_| is_judged(&steps.decision)) {
            let (peer, class) = self.view(pod, case);
            let selection = self.selection(&pod.identity, case.direction);
            let selected: Vec<&Selected> = selection.iter().flat_map(|tier| &tier.policies).collect();
            steps.passed_over = self.passed_over(pod, case.direction, &selected);
            steps.selected_by = self.evaluation(&pod.identity, peer, class, case, |evaluation| {
                selected.iter().map(|selected| policy_steps(evaluation, selected)).collect()
            });
        }
        steps
    }

    fn passed_over(
        &self,
        pod: &Pod,
        direction: Direction,
        selected: &[&Selected],
    ) -> Vec<(Arc<ObjectRef>, String)> {
        let all = self.compiled.tiers.iter().flat_map(|tier| tier.policies.of_namespace(&pod.identity));
        // A policy of several parts selects by one of them.
        let others = all.filter(|c| !selected.iter().any(|s| s.policy.reference == c.policy.reference));
        let others =
            others.map(|c| (Arc::clone(&c.policy.reference), self.why_not(c.policy, pod, direction)));
        others.collect()
    }

    /// Why a policy does not select a pod.
    fn why_not(&self, policy: &CompiledPolicy, pod: &Pod, direction: Direction) -> String {
        let compiled = &self.compiled;
        let subject = policy.subject.and_then(|id| compiled.condition(id));
        match subject {
            Some(subject) if subject.holds((&*pod.identity).into(), &compiled.facts) == Tri::No => {
                let field = match &*policy.reference.kind {
                    "NetworkPolicy" if subject.is_about_pods() => "podSelector",
                    _ => "subject",
                };
                format!("{field} is {subject}")
            }
            _ => format!("says nothing about {}", direction.as_str().to_lowercase()),
        }
    }
}

/// Whether policies were asked at all.
const fn is_judged(decision: &Decision) -> bool {
    !matches!(&decision.reason, Reason::NotJudged(why) if !matches!(why, crate::model::verdict::NotJudged::Icmp))
}

fn party_text(party: &Party, other: &Party) -> String {
    let address = party.address_towards(other).map(|address| address.to_string());
    match (&party.endpoint, party.object()) {
        (Endpoint::Pod(pod), Some(object)) => {
            let note = if pod.from_template { " (from its template)" } else { "" };
            let note = if pod.host_network { " (uses its node's network)" } else { note };
            format!("{object} {}{note}", address.as_deref().unwrap_or("without address"))
        }
        (_, Some(object)) => {
            let address = address.map(|address| format!(" {address}")).unwrap_or_default();
            format!("{object}{address}")
        }
        (Endpoint::Unknown(why), None) => {
            format!("{}: {why}", address.as_deref().unwrap_or("an unknown end"))
        }
        (_, None) => format!("{} outside the cluster", address.as_deref().unwrap_or("an address")),
    }
}

fn policy_steps(evaluation: &mut Evaluation<'_>, selected: &Selected) -> PolicySteps {
    let policy = &selected.policy;
    let rules = &policy.section(evaluation.direction).rules;
    let only_allows = rules.iter().all(|rule| rule.action == Action::Allow);
    PolicySteps {
        policy: Arc::clone(&policy.reference),
        unsure: selected.doubt.as_ref().map(ToString::to_string),
        rules: rules.iter().map(|rule| rule_step(evaluation, rule, only_allows)).collect(),
    }
}

fn rule_step(evaluation: &mut Evaluation<'_>, rule: &CompiledRule, only_allows: bool) -> RuleStep {
    let found = evaluation.rule(rule);
    let name = match evaluation.direction {
        Direction::Egress => "to",
        Direction::Ingress => "from",
    };
    let mut parts = Vec::new();
    match &rule.peers {
        CompiledPeers::Any => parts.push(part(name.to_owned(), &found.peers, "any peer".to_owned())),
        CompiledPeers::Unknown(_) => parts.push(part(name.to_owned(), &found.peers, "unreadable".to_owned())),
        CompiledPeers::Of(peers) => {
            for (at, peer) in peers.iter().enumerate() {
                let outcome = evaluation.peer(peer);
                let text = peer_step_text(evaluation, peer, &outcome);
                parts.push(part(format!("{name}[{at}]"), &outcome, text));
            }
        }
    }
    let mut ports = rule_ports_text(evaluation, rule);
    if found.ports == Tri::No && !evaluation.protocol.has_ports() {
        ports.push_str(" (a rule with ports does not speak of ICMP)");
    }
    parts.push(part("ports".to_owned(), &found.ports, ports));
    if rule.given != Given::nothing() {
        parts.push(part("also".to_owned(), &found.given, "what else the rule asks for".to_owned()));
    }
    if let Some(l7) = &rule.l7 {
        let lets = l7.lets.holds(evaluation.given);
        parts.push(part("l7".to_owned(), &lets, format!("requests by {}", l7.field)));
    }
    if let Some(assumption) = rule.assumed {
        parts.push(part("assumed".to_owned(), &Tri::Yes, format!("allowed by the scenario: {assumption}")));
    }
    let index = rule.assumed.is_none().then_some(rule.index);
    let mut name = String::new();
    let named = match index {
        Some(_) => write_rule(&mut name, index, rule.name.as_deref()),
        None => name.write_str(" assumed"),
    };
    // Writing to a text does not fail.
    named.unwrap_or_default();
    let action = if only_allows { "" } else { rule.action.as_str() };
    let name = format!("{} {action}", name.trim()).trim_end().to_owned();
    RuleStep { rule: index, name, outcome: outcome(&found.all()), parts }
}

fn part(part: String, found: &Tri, mut text: String) -> PartSteps {
    if let Tri::Maybe(why) = found {
        text.push_str(&match why {
            Why::Field(field) => format!(" ({})", field.text()),
            Why::Reason(reason) => format!(" ({reason})"),
        });
    }
    PartSteps { part, outcome: outcome(found), text }
}

const fn outcome(found: &Tri) -> Outcome {
    match found {
        Tri::Yes => Outcome::Matches,
        Tri::No => Outcome::Differs,
        Tri::Maybe(_) => Outcome::Unknown,
    }
}

/// What a peer of a rule asks for; where it does not match, what differs.
fn peer_step_text(evaluation: &mut Evaluation<'_>, peer: &CompiledPeer, found: &Tri) -> String {
    let text = peer_text(evaluation, peer);
    match peer {
        CompiledPeer::Block(_, reach) | CompiledPeer::Blocks(_, reach) => {
            let never = match (reach, evaluation.peer) {
                (Reach::Dialect, PeerKind::Pod(_)) => evaluation.dialect.ip_block_matches_pods == Some(false),
                (Reach::Dialect | Reach::NotPods, PeerKind::Node { .. }) => {
                    evaluation.dialect.ip_block_matches_nodes() == Some(false)
                }
                (Reach::NotPods, PeerKind::Pod(_)) => true,
                _ => false,
            };
            if never { format!("{text} (blocks do not match pods in this dialect)") } else { text }
        }
        CompiledPeer::Pods { namespaces, pods } if *found == Tri::No => {
            let differs = match evaluation.peer {
                PeerKind::Pod(identity) => {
                    match (evaluation.holds(*namespaces, identity), evaluation.holds(*pods, identity)) {
                        (Tri::Maybe(_), _) | (_, Tri::Maybe(_)) => "what can be read of it differs",
                        (Tri::Yes, _) => "the labels differ",
                        (Tri::No, Tri::Yes) => "the namespace differs",
                        (Tri::No, Tri::No) => "namespace and labels differ",
                    }
                }
                _ => "the peer is not a pod",
            };
            format!("{text} ({differs})")
        }
        _ => text,
    }
}
