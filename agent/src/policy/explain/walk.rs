//! Walks the same rules as the judge, with the same comparisons, and notes each.

use std::sync::Arc;

use crate::model::edge::Direction;
use crate::model::endpoint::{Connection, Endpoint, Party, Pod};
use crate::model::object::ObjectRef;
use crate::model::verdict::{Decision, Reason};
use crate::policy::cache::Selected;
use crate::policy::evaluate::{Evaluation, PeerKind, index};
use crate::policy::judge::{Case, Judge, cases};
use crate::policy::nearest::{atom_text, block_text, ports_text};
use crate::policy::tier::{CompiledPeer, CompiledPeers, CompiledPolicy, CompiledRule};
use crate::policy::tri::{Tri, Why};

use super::{DirectionSteps, Explanation, Outcome, PartSteps, PolicySteps, RuleStep};

impl Judge {
    /// The judgement of [`judge`](Self::judge), and how it came about.
    pub fn explain(&mut self, connection: &Connection<'_>) -> Explanation {
        let judgement = self.judge(connection);
        let mut directions = Vec::new();
        for direction in Direction::BOTH {
            for case in cases(connection, direction) {
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
            let (peer, class) = self.view(case);
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
        let others = all.filter(|(policy, _)| !selected.iter().any(|s| Arc::ptr_eq(&s.policy, policy)));
        others.map(|(policy, _)| (Arc::clone(&policy.reference), why_not(policy, pod, direction))).collect()
    }
}

/// Whether policies were asked at all.
const fn is_judged(decision: &Decision) -> bool {
    !matches!(&decision.reason, Reason::NotJudged(why) if !matches!(why, crate::model::verdict::NotJudged::Icmp))
}

/// Why a policy does not select a pod of its namespace.
fn why_not(policy: &CompiledPolicy, pod: &Pod, direction: Direction) -> String {
    match &policy.subject {
        Ok(selector) if !selector.matches(&pod.identity.labels) => format!("podSelector is {selector}"),
        _ => format!("says nothing about {}", direction.as_str().to_lowercase()),
    }
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
    let rules = policy.section(evaluation.direction).rules.iter().enumerate();
    PolicySteps {
        policy: Arc::clone(&policy.reference),
        unsure: selected.doubt.as_ref().map(ToString::to_string),
        rules: rules.map(|(at, rule)| rule_step(evaluation, rule, index(at))).collect(),
    }
}

fn rule_step(evaluation: &mut Evaluation<'_>, rule: &CompiledRule, at: u32) -> RuleStep {
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
                let text = peer_text(evaluation, peer, &outcome);
                parts.push(part(format!("{name}[{at}]"), &outcome, text));
            }
        }
    }
    let mut ports = ports_text(evaluation, &rule.ports);
    if found.ports == Tri::No && !evaluation.protocol.has_ports() {
        ports.push_str(" (a rule with ports does not speak of ICMP)");
    }
    parts.push(part("ports".to_owned(), &found.ports, ports));
    if rule.also.is_some() {
        parts.push(part("also".to_owned(), &found.also, "a field that is not understood".to_owned()));
    }
    if let Some(assumption) = rule.assumed {
        parts.push(part("assumed".to_owned(), &Tri::Yes, format!("allowed by the scenario: {assumption}")));
    }
    RuleStep { rule: rule.assumed.is_none().then_some(at), outcome: outcome(&found.all()), parts }
}

fn part(part: String, found: &Tri, mut text: String) -> PartSteps {
    if let Tri::Maybe(why) = found {
        text.push_str(&match why {
            Why::Field(field) => format!(" (could not be read at {field})"),
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
fn peer_text(evaluation: &mut Evaluation<'_>, peer: &CompiledPeer, found: &Tri) -> String {
    match peer {
        CompiledPeer::Unknown(_) => "unreadable".to_owned(),
        CompiledPeer::Role(roles) => format!("pods that are {roles}"),
        CompiledPeer::Block(block) => {
            let text = block_text(evaluation, block);
            let in_cluster = matches!(evaluation.peer, PeerKind::Pod(_) | PeerKind::Node);
            let never = in_cluster && evaluation.dialect.ip_block_matches_pods == Some(false);
            if never { format!("{text} (blocks do not match pods in this dialect)") } else { text }
        }
        CompiledPeer::Pods { namespaces, pods } => {
            let text = |content: &_| match content {
                Ok(atom) => atom_text(evaluation, *atom),
                Err(_) => "unreadable".to_owned(),
            };
            let mut text = format!("namespace {}, pods {}", text(namespaces), text(pods));
            if *found == Tri::No {
                let differs = match (evaluation.peer, namespaces, pods) {
                    (PeerKind::Pod(identity), Ok(namespace), Ok(pods)) => {
                        match (evaluation.holds(*namespace, identity), evaluation.holds(*pods, identity)) {
                            (true, _) => "the labels differ",
                            (false, true) => "the namespace differs",
                            (false, false) => "namespace and labels differ",
                        }
                    }
                    (PeerKind::Pod(_), ..) => "what can be read of it differs",
                    _ => "the peer is not a pod",
                };
                text = format!("{text} ({differs})");
            }
            text
        }
    }
}
