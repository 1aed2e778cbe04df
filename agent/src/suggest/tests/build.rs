//! Builders of clusters and edges. Addresses are those of RFC 5737 and 3849.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::model::cause::Cause;
use crate::model::edge::{Counters, Direction, Edge, OrientedBy, Protocol};
use crate::model::endpoint::{Backend, Endpoint, Party, Pod, ServiceTarget};
use crate::model::identity::{IdentityParts, Interner};
use crate::model::labels::{Labels, NAMESPACE_NAME_LABEL};
use crate::model::object::WorkloadRef;
use crate::model::role::Roles;
use crate::model::selector::Selector;
use crate::model::time::Timestamp;
use crate::suggest::{Options, Suggestions, suggest};

/// 2023-11-14T22:13:20Z.
const START: u64 = 1_700_000_000_000_000_000;

#[derive(Default)]
pub(super) struct Cluster {
    pub(super) interner: Interner,
    pub(super) pods: Vec<Arc<Pod>>,
}

/// `a=1,b=2` as labels.
pub(super) fn mk_labels(text: &str) -> Labels {
    text.split(',').filter_map(|label| label.split_once('=')).collect()
}

impl Cluster {
    /// A pod of `namespace/Kind/name`, selected by its labels; its address and node come from its place.
    pub(super) fn pod(&mut self, workload: &str, labels: &str) -> Party {
        self.pod_with(workload, labels, labels, Roles::NONE, false)
    }

    pub(super) fn pod_with(
        &mut self,
        workload: &str,
        labels: &str,
        selector: &str,
        roles: Roles,
        host_network: bool,
    ) -> Party {
        let [namespace, kind, name] = workload.split('/').collect::<Vec<_>>()[..] else {
            panic!("{workload} is not namespace/Kind/name")
        };
        let at = self.pods.len();
        let identity = self.interner.intern(IdentityParts {
            namespace: namespace.into(),
            namespace_labels: [(NAMESPACE_NAME_LABEL, namespace)].into_iter().collect(),
            labels: mk_labels(labels),
            service_account: "default".into(),
            named_ports: Vec::new(),
            roles,
        });
        let node = at % 2;
        let address: IpAddr = if host_network {
            node_address(node)
        } else {
            IpAddr::from([192, 0, (2 + at / 256) as u8, (at % 256) as u8])
        };
        let pod = Arc::new(Pod {
            namespace: namespace.into(),
            name: format!("{name}-{at}").into(),
            uid: format!("uid-{at}").into(),
            identity,
            workload: WorkloadRef::new(kind, namespace, name),
            owners: Arc::from([]),
            selector: mk_labels(selector),
            node: Some(node_name(node).into()),
            host_network,
            addresses: Arc::from([address]),
            from_template: false,
        });
        self.pods.push(Arc::clone(&pod));
        Party::pod(pod, Some(address))
    }

    pub(super) fn suggest(&self, edges: &[Edge]) -> Suggestions {
        self.suggest_with(edges, &Options::default())
    }

    pub(super) fn suggest_with(&self, edges: &[Edge], options: &Options) -> Suggestions {
        suggest(edges, &self.pods, options)
    }
}

fn node_address(node: usize) -> IpAddr {
    IpAddr::from([198, 51, 100, if node == 0 { 10 } else { 11 }])
}

fn node_name(node: usize) -> &'static str {
    if node == 0 { "node-a" } else { "node-b" }
}

/// `node-a` at 198.51.100.10 for 0, `node-b` at 198.51.100.11 for 1. Pods alternate between them.
pub(super) fn mk_node(node: usize) -> Party {
    Party { address: Some(node_address(node)), endpoint: Endpoint::Node(node_name(node).into()) }
}

pub(super) fn mk_external(address: &str) -> Party {
    Party::external(address.parse().unwrap())
}

/// A Service in the namespace of its first backend.
pub(super) fn mk_service(name: &str, backends: &[(&Party, u16)]) -> Party {
    let namespace = backends.first().and_then(|(party, _)| party.namespace()).unwrap_or("none");
    let target = ServiceTarget {
        namespace: namespace.into(),
        name: name.into(),
        backends: backends.iter().map(|(p, port)| Backend { party: Party::clone(p), port: *port }).collect(),
    };
    Party { address: "203.0.113.250".parse().ok(), endpoint: Endpoint::Service(Arc::new(target)) }
}

/// One accepted connection, seen at the initiator's pod.
pub(super) fn mk_edge(initiator: &Party, responder: &Party, port: u16, protocol: Protocol) -> Edge {
    let accepted = if protocol == Protocol::Udp { 0 } else { 1 };
    Edge {
        initiator: initiator.clone(),
        responder: responder.clone(),
        port,
        protocol,
        direction: Direction::Egress,
        cause: Cause::SameNamespace,
        counters: Counters { attempts: 1, accepted, ..Counters::default() },
        first_seen: Timestamp::from_nanos(START),
        last_seen: Timestamp::from_nanos(START + 60_000_000_000),
        oriented_by: OrientedBy::Handshake,
        fully_visible: true,
        vlan: 0,
        estimated: false,
    }
}

pub(super) fn mk_tcp(initiator: &Party, responder: &Party, port: u16) -> Edge {
    mk_edge(initiator, responder, port, Protocol::Tcp)
}

/// Every rule in a line: `shop/allow-deployment-web (app=web) egress to data (app=db) 5432/TCP`; a policy
/// without rules in one of its own.
pub(super) fn in_lines(suggestions: &Suggestions) -> Vec<String> {
    let mut lines = Vec::new();
    for suggestion in &suggestions.policies {
        let metadata = &suggestion.policy.metadata;
        let spec = suggestion.policy.spec.as_ref().unwrap();
        let policy = format!(
            "{}/{} ({})",
            metadata.namespace.as_ref().unwrap(),
            metadata.name.as_ref().unwrap(),
            shown(spec.pod_selector.as_ref().unwrap()),
        );
        let before = lines.len();
        for rule in spec.ingress.iter().flatten() {
            let peers = peers(rule.from.as_ref().unwrap());
            lines.push(format!("{policy} ingress from {peers} {}", ports(rule.ports.as_ref().unwrap())));
        }
        for rule in spec.egress.iter().flatten() {
            let peers = peers(rule.to.as_ref().unwrap());
            lines.push(format!("{policy} egress to {peers} {}", ports(rule.ports.as_ref().unwrap())));
        }
        if lines.len() == before {
            lines.push(format!("{policy} denies {}", spec.policy_types.as_ref().unwrap().join(",")));
        }
    }
    lines
}

fn shown(selector: &LabelSelector) -> String {
    Selector::try_from(selector).unwrap().to_string()
}

fn peers(peers: &[NetworkPolicyPeer]) -> String {
    let mut text = String::new();
    for (at, peer) in peers.iter().enumerate() {
        text.push_str(if at == 0 { "" } else { " or " });
        if let Some(block) = &peer.ip_block {
            text.push_str(&block.cidr);
            continue;
        }
        let namespaces = peer.namespace_selector.as_ref().unwrap().match_labels.as_ref().unwrap();
        let pods = peer.pod_selector.as_ref().map_or_else(|| "every pod".to_owned(), shown);
        write!(text, "{} ({pods})", namespaces[NAMESPACE_NAME_LABEL]).unwrap();
    }
    text
}

fn ports(ports: &[NetworkPolicyPort]) -> String {
    let port = |port: &NetworkPolicyPort| {
        let Some(IntOrString::Int(number)) = port.port else { panic!("{port:?} is not a number") };
        format!("{number}/{}", port.protocol.as_ref().unwrap())
    };
    ports.iter().map(port).collect::<Vec<_>>().join(",")
}

/// The warnings as `code: subject`.
pub(super) fn warned(suggestions: &Suggestions) -> Vec<String> {
    let code = |kind| serde_json::to_value(kind).unwrap().as_str().unwrap().to_owned();
    suggestions.warnings.iter().map(|w| format!("{}: {}", code(w.kind), w.subject)).collect()
}
