//! Rules → objects of the API.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::evidence::RuleEvidence;
use super::gather::{Peer, Port};
use super::group::Groups;
use super::rules::Rule;
use super::{Purpose, Suggestion};
use crate::model::edge::Direction;
use crate::model::labels::NAMESPACE_NAME_LABEL;

/// What a policy consists of, before it is an object of the API.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) purpose: Purpose,
    pub(super) namespace: String,
    pub(super) name: String,
    /// Empty selects every pod of the namespace: for `allow-dns` and `default-deny` only.
    pub(super) selector: LabelSelector,
    /// The directions that the policy isolates, with what it allows.
    pub(super) sections: BTreeMap<Direction, Vec<Rule>>,
}

/// The policy, with `policyTypes` always written out: left out, they would depend on the rules.
pub(super) fn suggestion(parts: Parts, groups: &Groups) -> Suggestion {
    let Parts { purpose, namespace, name, selector, mut sections } = parts;
    // The order in which the API's documentation writes them.
    let order = [Direction::Ingress, Direction::Egress];
    let types = order.into_iter().filter(|direction| sections.contains_key(direction));
    let types: Vec<String> = types.map(|direction| direction.as_str().to_owned()).collect();
    let mut evidence = Vec::new();
    let mut section = |direction| {
        let rules = sections.remove(&direction).unwrap_or_default();
        let built = rules.into_iter().enumerate().map(|(at, rule)| {
            let (ports, peers, proof) = parts_of(rule, groups);
            evidence.push(RuleEvidence { direction, rule: at, peers: proof });
            (ports, peers)
        });
        built.collect::<Vec<_>>()
    };
    let ingress = section(Direction::Ingress);
    let egress = section(Direction::Egress);
    let ingress: Vec<_> = ingress
        .into_iter()
        .map(|(ports, from)| NetworkPolicyIngressRule { from: Some(from), ports: Some(ports) })
        .collect();
    let egress: Vec<_> = egress
        .into_iter()
        .map(|(ports, to)| NetworkPolicyEgressRule { to: Some(to), ports: Some(ports) })
        .collect();
    let spec = NetworkPolicySpec {
        egress: (!egress.is_empty()).then_some(egress),
        ingress: (!ingress.is_empty()).then_some(ingress),
        pod_selector: Some(selector),
        policy_types: Some(types),
    };
    let metadata = ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() };
    Suggestion { purpose, policy: NetworkPolicy { metadata, spec: Some(spec) }, rules: evidence }
}

type Built = (Vec<NetworkPolicyPort>, Vec<NetworkPolicyPeer>, Vec<Vec<super::Evidence>>);

fn parts_of(rule: Rule, groups: &Groups) -> Built {
    let ports = rule.ports.into_iter().map(port).collect();
    let (peers, evidence) = rule
        .peers
        .into_iter()
        .filter_map(|(peer, who)| Some((api_peer(&peer, groups)?, who.into_evidence())))
        .unzip();
    (ports, peers, evidence)
}

fn port(port: Port) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(i32::from(port.port))),
        protocol: Some(port.protocol.as_str().to_owned()),
        end_port: None,
    }
}

/// The peer; `None` for a group without a selector, which `gather` never makes a peer.
fn api_peer(peer: &Peer, groups: &Groups) -> Option<NetworkPolicyPeer> {
    let pods = |namespace: &str, pods: Option<LabelSelector>| NetworkPolicyPeer {
        namespace_selector: Some(namespace_selector(namespace)),
        pod_selector: pods,
        ip_block: None,
    };
    match peer {
        Peer::Namespace(namespace) => Some(pods(namespace, None)),
        Peer::Workload(id) => {
            let group = groups.get(*id)?;
            Some(pods(&group.namespace, Some(group.selector.clone()?)))
        }
        Peer::Node(block) | Peer::External(block) => Some(NetworkPolicyPeer {
            ip_block: Some(IPBlock { cidr: block.to_string(), except: None }),
            ..NetworkPolicyPeer::default()
        }),
    }
}

/// A namespace by the label that the API server gives to every one.
fn namespace_selector(namespace: &str) -> LabelSelector {
    let labels = BTreeMap::from([(NAMESPACE_NAME_LABEL.to_owned(), namespace.to_owned())]);
    LabelSelector { match_labels: Some(labels), match_expressions: None }
}
