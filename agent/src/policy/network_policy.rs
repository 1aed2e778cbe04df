//! networking.k8s.io/v1 NetworkPolicy, read and checked as the API server does
//! (kubernetes/pkg/apis/networking/validation).

pub(super) mod ports;
mod unknown;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::model::edge::Direction;
use crate::model::intern;
use crate::model::object::ObjectRef;
use crate::model::selector::Selector;

use super::condition::Condition;
use super::fault::{Content, Fault, Faults, Field};
use super::spec::{
    Action, IpBlock, Part, Peer, Peers, Place, Policy, Reach, Rule, Scope, Section, parse_cidr,
};

/// The kind, as references show it.
pub(crate) const KIND: &str = "NetworkPolicy";

impl Policy {
    /// Reads a NetworkPolicy. Never fails: what the API server would refuse is a fault inside, and counts as
    /// a field of unknown content.
    pub fn from_network_policy(policy: &NetworkPolicy) -> Self {
        Self::from_network_policy_with(policy, Vec::new())
    }

    /// The same, with faults that the object's reader found: fields that are unknown or of a wrong type, by
    /// their path. What they name counts as unknown content.
    pub fn from_network_policy_with(policy: &NetworkPolicy, read_faults: Vec<Fault>) -> Self {
        let mut faults = Faults::default();
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            faults.add("metadata.name", "is required");
        }
        let namespace = policy.metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty());
        let namespace =
            namespace.map(intern::string).ok_or_else(|| faults.add("metadata.namespace", "is required"));
        let reference = ObjectRef {
            kind: intern::string(KIND),
            namespace: namespace.as_ref().ok().cloned(),
            name: name.into(),
        };
        // Without a spec the API server stores an empty one: it selects every pod, for ingress, without rules.
        let empty = NetworkPolicySpec::default();
        let spec = policy.spec.as_ref().unwrap_or(&empty);
        let subject = match &spec.pod_selector {
            Some(selector) => read_selector(selector, "spec.podSelector", &mut faults),
            None => Ok(Selector::everything()),
        };
        let applies = read_policy_types(spec, &mut faults);
        let [egress, ingress] = read_rules(spec, &mut faults);
        let [egress_applies, ingress_applies] = applies;
        let mut part = Part {
            place: Place::NetworkPolicy,
            scope: Scope::Namespace(namespace),
            subject: Condition::pod_labels(subject),
            egress: Section::isolating(egress_applies, egress),
            ingress: Section::isolating(ingress_applies, ingress),
        };
        for fault in &read_faults {
            part.make_unknown(&fault.field, spec);
        }
        let mut faults = faults.into_found();
        faults.extend(read_faults);
        Self::of_part(reference, faults, part)
    }
}

/// Whether the policy says anything about egress, and about ingress.
///
/// `policyTypes` absent or empty: ingress always, egress if it has at least one egress rule.
fn read_policy_types(spec: &NetworkPolicySpec, faults: &mut Faults) -> [Content<bool>; 2] {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.is_empty() {
        return [Ok(spec.egress.as_ref().is_some_and(|rules| !rules.is_empty())), Ok(true)];
    }
    let mut broken: Option<Field> = None;
    for (index, name) in types.iter().enumerate() {
        if !Direction::BOTH.iter().any(|direction| direction.as_str() == name) {
            let message = format!("\"{name}\" is none of Ingress, Egress");
            broken = Some(faults.add(format!("spec.policyTypes[{index}]"), message));
        }
    }
    if types.len() > 2 {
        let field = faults.add("spec.policyTypes", "must have at most two values");
        broken.get_or_insert(field);
    }
    Direction::BOTH.map(|direction| match &broken {
        _ if types.iter().any(|name| name == direction.as_str()) => Ok(true),
        None => Ok(false),
        Some(field) => Err(Field::clone(field)),
    })
}

/// The rules for egress, and those for ingress.
fn read_rules(spec: &NetworkPolicySpec, faults: &mut Faults) -> [Vec<Rule>; 2] {
    let mut egress = Vec::new();
    for (index, rule) in spec.egress.iter().flatten().enumerate() {
        let path = format!("spec.egress[{index}]");
        egress.push(read_rule(rule.to.as_deref(), rule.ports.as_deref(), &path, "to", faults));
    }
    let mut ingress = Vec::new();
    for (index, rule) in spec.ingress.iter().flatten().enumerate() {
        let path = format!("spec.ingress[{index}]");
        ingress.push(read_rule(rule.from.as_deref(), rule.ports.as_deref(), &path, "from", faults));
    }
    [egress, ingress]
}

fn read_rule(
    peers: Option<&[NetworkPolicyPeer]>,
    ports: Option<&[NetworkPolicyPort]>,
    path: &str,
    peers_name: &str,
    faults: &mut Faults,
) -> Rule {
    let ports = ports::read(ports.unwrap_or_default(), path, faults);
    let peers = match peers.unwrap_or_default() {
        [] => Peers::Any,
        peers => {
            let each = peers.iter().enumerate();
            Peers::Of(
                each.map(|(at, p)| read_peer(p, &format!("{path}.{peers_name}[{at}]"), faults)).collect(),
            )
        }
    };
    Rule { peers, ports, ..Rule::any(Action::Allow) }
}

fn read_peer(peer: &NetworkPolicyPeer, path: &str, faults: &mut Faults) -> Peer {
    match (&peer.ip_block, &peer.namespace_selector, &peer.pod_selector) {
        (None, None, None) => {
            Peer::Unknown(faults.add(path, "must have podSelector, namespaceSelector or ipBlock"))
        }
        (Some(block), None, None) => {
            Peer::Block(read_block(block, &format!("{path}.ipBlock"), faults), Reach::Dialect)
        }
        (Some(_), _, _) => Peer::Unknown(
            faults.add(path, "must not have ipBlock together with podSelector or namespaceSelector"),
        ),
        (None, namespaces, pods) => {
            let namespaces = match namespaces {
                None => Condition::OwnNamespace,
                Some(selector) => {
                    let path = format!("{path}.namespaceSelector");
                    Condition::namespace_labels(read_selector(selector, &path, faults))
                }
            };
            let pods = match pods {
                None => Condition::everything(),
                Some(selector) => {
                    Condition::pod_labels(read_selector(selector, &format!("{path}.podSelector"), faults))
                }
            };
            Peer::Pods { namespaces, pods }
        }
    }
}

/// The selector's fault names the field inside it: `….matchExpressions[0].values`.
pub(super) fn read_selector(selector: &LabelSelector, path: &str, faults: &mut Faults) -> Content<Selector> {
    Selector::try_from(selector).map_err(|error| {
        let text = error.to_string();
        match text.split_once(": ") {
            Some((field, message)) => faults.add(format!("{path}.{field}"), message),
            None => faults.add(path, text),
        }
    })
}

fn read_block(block: &IPBlock, path: &str, faults: &mut Faults) -> IpBlock {
    let cidr = parse_cidr(&block.cidr).map_err(|message| faults.add(format!("{path}.cidr"), message));
    let mut except = Vec::new();
    let mut broken_except = None;
    for (index, text) in block.except.iter().flatten().enumerate() {
        match parse_cidr(text).and_then(|net| check_inside(net, cidr.as_ref().ok())) {
            Ok(net) => except.push(net),
            Err(message) => broken_except = Some(faults.add(format!("{path}.except[{index}]"), message)),
        }
    }
    IpBlock { cidr, except, broken_except }
}

/// An exception must be a strict subset of its block (`ValidateIPBlock`).
fn check_inside(except: IpNet, block: Option<&IpNet>) -> Result<IpNet, String> {
    match block {
        Some(block) if *block == except || !block.contains(&except) => {
            Err(format!("{except} must be inside {block} and smaller than it"))
        }
        _ => Ok(except),
    }
}
