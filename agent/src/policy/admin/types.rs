//! The types of policy.networking.k8s.io, as their definitions have them (network-policy-api, apis/v1alpha1 and
//! apis/v1alpha2). What the API demands may be absent here: it is a fault, not a refusal to read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;

/// `spec` of ClusterNetworkPolicy.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClusterSpec {
    pub(super) tier: Option<String>,
    pub(super) priority: Option<i64>,
    pub(super) subject: Option<Subject>,
    pub(super) ingress: Option<Vec<ClusterIngressRule>>,
    pub(super) egress: Option<Vec<ClusterEgressRule>>,
}

/// `spec` of AdminNetworkPolicy.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AdminSpec {
    pub(super) priority: Option<i64>,
    pub(super) subject: Option<Subject>,
    pub(super) ingress: Option<Vec<AdminIngressRule>>,
    pub(super) egress: Option<Vec<AdminEgressRule>>,
}

/// `spec` of BaselineAdminNetworkPolicy.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BaselineSpec {
    pub(super) subject: Option<Subject>,
    pub(super) ingress: Option<Vec<AdminIngressRule>>,
    pub(super) egress: Option<Vec<AdminEgressRule>>,
}

/// Whom a policy is about: exactly one field.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Subject {
    pub(super) namespaces: Option<LabelSelector>,
    pub(super) pods: Option<NamespacedPod>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NamespacedPod {
    pub(super) namespace_selector: Option<LabelSelector>,
    pub(super) pod_selector: Option<LabelSelector>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClusterIngressRule {
    pub(super) name: Option<String>,
    pub(super) action: Option<String>,
    pub(super) from: Option<Vec<IngressPeer>>,
    pub(super) protocols: Option<Vec<ProtocolMatch>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClusterEgressRule {
    pub(super) name: Option<String>,
    pub(super) action: Option<String>,
    pub(super) to: Option<Vec<EgressPeer>>,
    pub(super) protocols: Option<Vec<ProtocolMatch>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AdminIngressRule {
    pub(super) name: Option<String>,
    pub(super) action: Option<String>,
    pub(super) from: Option<Vec<IngressPeer>>,
    pub(super) ports: Option<Vec<AdminPort>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AdminEgressRule {
    pub(super) name: Option<String>,
    pub(super) action: Option<String>,
    pub(super) to: Option<Vec<EgressPeer>>,
    pub(super) ports: Option<Vec<AdminPort>>,
}

/// Exactly one field; none means a kind of peer that is newer than this.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IngressPeer {
    pub(super) namespaces: Option<LabelSelector>,
    pub(super) pods: Option<NamespacedPod>,
}

/// The same for the other direction.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EgressPeer {
    pub(super) namespaces: Option<LabelSelector>,
    pub(super) pods: Option<NamespacedPod>,
    pub(super) nodes: Option<LabelSelector>,
    pub(super) networks: Option<Vec<String>>,
    pub(super) domain_names: Option<Vec<String>>,
}

impl From<IngressPeer> for EgressPeer {
    fn from(IngressPeer { namespaces, pods }: IngressPeer) -> Self {
        Self { namespaces, pods, ..Self::default() }
    }
}

/// One entry of v1alpha2's `protocols`: exactly one field.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProtocolMatch {
    pub(super) tcp: Option<Destination>,
    pub(super) udp: Option<Destination>,
    pub(super) sctp: Option<Destination>,
    pub(super) destination_named_port: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Destination {
    pub(super) destination_port: Option<DestinationPort>,
}

/// Exactly one field.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DestinationPort {
    pub(super) number: Option<i64>,
    pub(super) range: Option<Span>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Span {
    pub(super) start: Option<i64>,
    pub(super) end: Option<i64>,
}

/// One entry of v1alpha1's `ports`: exactly one field.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AdminPort {
    pub(super) port_number: Option<PortNumber>,
    pub(super) named_port: Option<String>,
    pub(super) port_range: Option<PortRange>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PortNumber {
    pub(super) protocol: Option<String>,
    pub(super) port: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PortRange {
    pub(super) protocol: Option<String>,
    pub(super) start: Option<i64>,
    pub(super) end: Option<i64>,
}
