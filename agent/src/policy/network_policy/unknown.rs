//! Faults that the object's reader found: the field at a path says something, but not what.

use k8s_openapi::api::networking::v1::{NetworkPolicyPort, NetworkPolicySpec};

use crate::model::edge::Direction;
use crate::policy::condition::Condition;
use crate::policy::fault::{Field, Step, steps};
use crate::policy::given::Given;
use crate::policy::spec::{Part, Peer, Peers, PortMatch, Ports, Rule, Scope};

impl Part {
    /// Makes what `path` names unknown. An unknown field beside known ones may be a known one misspelt: those
    /// of its siblings that are absent become unknown. What never decides (`metadata`, `status`) is left alone.
    pub(super) fn make_unknown(&mut self, path: &str, spec: &NetworkPolicySpec) {
        let field = Field::from(path);
        let path = steps(path);
        match path.as_slice() {
            [] | [Step { name: "spec", .. }] => self.make_all_unknown(&field),
            [Step { name: "metadata", .. }, Step { name: "namespace", .. }, ..] => {
                self.scope = Scope::Namespace(Err(field));
            }
            [Step { name: "spec", .. }, step, rest @ ..] => self.make_spec_unknown(*step, rest, &field, spec),
            _ => {}
        }
    }

    fn make_all_unknown(&mut self, field: &Field) {
        self.subject = Condition::Unknown(Field::clone(field));
        for direction in Direction::BOTH {
            self.make_section_unknown(direction, field, true);
        }
    }

    /// Anything may be in the section; if `applies`, it may also be that there should be none, or one.
    fn make_section_unknown(&mut self, direction: Direction, field: &Field, applies: bool) {
        let section = self.section_mut(direction);
        section.rules.push(Rule::unknown(field));
        if applies {
            section.applies = Err(Field::clone(field));
        }
    }

    fn make_spec_unknown(
        &mut self,
        step: Step<'_>,
        rest: &[Step<'_>],
        field: &Field,
        spec: &NetworkPolicySpec,
    ) {
        let no_types = spec.policy_types.as_ref().is_none_or(Vec::is_empty);
        match step.name {
            "podSelector" => self.subject = Condition::Unknown(Field::clone(field)),
            "policyTypes" => {
                for direction in Direction::BOTH {
                    let listed = spec.policy_types.iter().flatten().any(|name| name == direction.as_str());
                    if !listed {
                        self.section_mut(direction).applies = Err(Field::clone(field));
                    }
                }
            }
            "ingress" => self.make_rules_unknown(Direction::Ingress, step.index, rest, field, spec),
            "egress" => {
                // Without policyTypes, egress counts only if there is a rule: whether there is one is unknown
                // only while none could be read.
                if no_types && self.egress.applies == Ok(false) {
                    self.egress.applies =
                        if step.index.is_some() { Ok(true) } else { Err(Field::clone(field)) };
                }
                self.make_rules_unknown(Direction::Egress, step.index, rest, field, spec);
            }
            _ => {
                if spec.pod_selector.is_none() {
                    self.subject = Condition::Unknown(Field::clone(field));
                }
                if spec.ingress.is_none() {
                    self.make_section_unknown(Direction::Ingress, field, no_types);
                }
                if spec.egress.is_none() {
                    self.make_section_unknown(Direction::Egress, field, no_types);
                }
                if no_types {
                    // It may be `policyTypes` itself, misspelt: then either direction may be listed or not.
                    for direction in Direction::BOTH {
                        self.section_mut(direction).applies = Err(Field::clone(field));
                    }
                }
            }
        }
    }

    fn make_rules_unknown(
        &mut self,
        direction: Direction,
        index: Option<usize>,
        rest: &[Step<'_>],
        field: &Field,
        spec: &NetworkPolicySpec,
    ) {
        let rules = &mut self.section_mut(direction).rules;
        match index.and_then(|index| Some((index, rules.get_mut(index)?))) {
            None => rules.push(Rule::unknown(field)),
            Some((index, rule)) => {
                make_rule_unknown(rule, direction, rest, field, &ports_of(spec, direction, index))
            }
        }
    }
}

fn ports_of(spec: &NetworkPolicySpec, direction: Direction, rule: usize) -> Vec<NetworkPolicyPort> {
    let ports = match direction {
        Direction::Egress => spec.egress.as_ref().and_then(|rules| rules.get(rule)?.ports.clone()),
        Direction::Ingress => spec.ingress.as_ref().and_then(|rules| rules.get(rule)?.ports.clone()),
    };
    ports.unwrap_or_default()
}

fn make_rule_unknown(
    rule: &mut Rule,
    direction: Direction,
    rest: &[Step<'_>],
    field: &Field,
    given: &[NetworkPolicyPort],
) {
    let peers_name = match direction {
        Direction::Egress => "to",
        Direction::Ingress => "from",
    };
    match rest {
        [] => *rule = Rule::unknown(field),
        [step, rest @ ..] if step.name == peers_name => {
            make_peer_unknown(&mut rule.peers, step.index, rest, field)
        }
        [step, rest @ ..] if step.name == "ports" => {
            let protocol_given =
                step.index.and_then(|at| given.get(at)).is_some_and(|port| port.protocol.is_some());
            make_port_unknown(&mut rule.ports, step.index, rest, field, protocol_given);
        }
        _ => {
            let mut stands_alone = true;
            if rule.peers == Peers::Any {
                rule.peers = Peers::Unknown(Field::clone(field));
                stands_alone = false;
            }
            if rule.ports == Ports::Any {
                rule.ports = Ports::Unknown(Field::clone(field));
                stands_alone = false;
            }
            if stands_alone {
                rule.given = Given::Unknown(Field::clone(field));
            }
        }
    }
}

fn make_peer_unknown(peers: &mut Peers, index: Option<usize>, rest: &[Step<'_>], field: &Field) {
    let unknown = Peer::Unknown(Field::clone(field));
    match (peers, index) {
        (Peers::Of(list), Some(at)) => match (list.get_mut(at), rest) {
            (Some(Peer::Pods { pods, .. }), [Step { name: "podSelector", .. }, ..]) => {
                *pods = Condition::Unknown(Field::clone(field));
            }
            (Some(Peer::Pods { namespaces, .. }), [Step { name: "namespaceSelector", .. }, ..]) => {
                *namespaces = Condition::Unknown(Field::clone(field));
            }
            (Some(Peer::Block(block, _)), [Step { name: "ipBlock", .. }, Step { name: "except", .. }]) => {
                block.broken_except = Some(Field::clone(field));
            }
            (Some(peer), _) => *peer = unknown,
            (None, _) => list.push(unknown),
        },
        (peers, _) => *peers = Peers::Unknown(Field::clone(field)),
    }
}

fn make_port_unknown(
    ports: &mut Ports,
    index: Option<usize>,
    rest: &[Step<'_>],
    field: &Field,
    protocol_given: bool,
) {
    let all = || PortMatch { protocol: Err(Field::clone(field)), port: Err(Field::clone(field)) };
    match (ports, index) {
        (Ports::Of(list), Some(at)) => match list.get_mut(at) {
            None => list.push(all()),
            Some(port) => match rest {
                [Step { name: "protocol", .. }] => port.protocol = Err(Field::clone(field)),
                [Step { name: "port" | "endPort", .. }] => port.port = Err(Field::clone(field)),
                [] => *port = all(),
                _ if protocol_given => port.port = Err(Field::clone(field)),
                _ => *port = all(),
            },
        },
        (ports, _) => *ports = Ports::Unknown(Field::clone(field)),
    }
}
