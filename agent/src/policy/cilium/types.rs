//! The types of cilium.io/v2, as their definitions have them (cilium, pkg/policy/api and the CRDs made of it). What
//! the API demands may be absent here: it is a fault, not a refusal to read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;
use serde_json::Value;

/// CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PolicyObject {
    #[serde(rename = "apiVersion")]
    pub(super) _api_version: Option<String>,
    #[serde(rename = "kind")]
    pub(super) _kind: Option<String>,
    #[serde(default)]
    pub(super) metadata: ObjectMeta,
    pub(super) spec: Option<Spec>,
    pub(super) specs: Option<Vec<Spec>>,
    pub(super) status: Option<Value>,
}

/// `spec` of CiliumCIDRGroup.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GroupSpec {
    #[serde(rename = "externalCIDRs")]
    pub(super) external_cidrs: Option<Vec<String>>,
}

/// `spec`, and each of `specs`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    pub(super) endpoint_selector: Option<LabelSelector>,
    pub(super) node_selector: Option<LabelSelector>,
    pub(super) ingress: Option<Vec<IngressRule>>,
    pub(super) ingress_deny: Option<Vec<IngressRule>>,
    pub(super) egress: Option<Vec<EgressRule>>,
    pub(super) egress_deny: Option<Vec<EgressRule>>,
    pub(super) enable_default_deny: Option<DefaultDeny>,
    #[serde(rename = "labels")]
    pub(super) _labels: Option<Value>,
    #[serde(rename = "description")]
    pub(super) _description: Option<String>,
    #[serde(rename = "log")]
    pub(super) _log: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DefaultDeny {
    pub(super) ingress: Option<bool>,
    pub(super) egress: Option<bool>,
}

/// An entry of `ingress` or `ingressDeny`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IngressRule {
    pub(super) from_endpoints: Option<Vec<LabelSelector>>,
    pub(super) from_requires: Option<Vec<LabelSelector>>,
    #[serde(rename = "fromCIDR")]
    pub(super) from_cidr: Option<Vec<String>>,
    #[serde(rename = "fromCIDRSet")]
    pub(super) from_cidr_set: Option<Vec<CidrSet>>,
    pub(super) from_entities: Option<Vec<String>>,
    pub(super) from_groups: Option<Vec<Value>>,
    pub(super) from_nodes: Option<Vec<LabelSelector>>,
    pub(super) to_ports: Option<Vec<PortRule>>,
    pub(super) icmps: Option<Vec<IcmpRule>>,
    pub(super) authentication: Option<Authentication>,
}

/// An entry of `egress` or `egressDeny`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EgressRule {
    pub(super) to_endpoints: Option<Vec<LabelSelector>>,
    pub(super) to_requires: Option<Vec<LabelSelector>>,
    #[serde(rename = "toCIDR")]
    pub(super) to_cidr: Option<Vec<String>>,
    #[serde(rename = "toCIDRSet")]
    pub(super) to_cidr_set: Option<Vec<CidrSet>>,
    pub(super) to_entities: Option<Vec<String>>,
    pub(super) to_groups: Option<Vec<Value>>,
    pub(super) to_nodes: Option<Vec<LabelSelector>>,
    pub(super) to_services: Option<Vec<ServiceRule>>,
    #[serde(rename = "toFQDNs")]
    pub(super) to_fqdns: Option<Vec<NameRule>>,
    pub(super) to_ports: Option<Vec<PortRule>>,
    pub(super) icmps: Option<Vec<IcmpRule>>,
    pub(super) authentication: Option<Authentication>,
}

/// Exactly one of the first three.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CidrSet {
    pub(super) cidr: Option<String>,
    pub(super) cidr_group_ref: Option<String>,
    pub(super) cidr_group_selector: Option<LabelSelector>,
    pub(super) except: Option<Vec<String>>,
}

/// Exactly one field.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceRule {
    pub(super) k8s_service: Option<NamedService>,
    pub(super) k8s_service_selector: Option<SelectedServices>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NamedService {
    pub(super) service_name: Option<String>,
    pub(super) namespace: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SelectedServices {
    pub(super) selector: Option<LabelSelector>,
    pub(super) namespace: Option<String>,
}

/// Exactly one field.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NameRule {
    pub(super) match_name: Option<String>,
    pub(super) match_pattern: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Authentication {
    pub(super) mode: Option<String>,
}

/// An entry of `toPorts`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PortRule {
    pub(super) ports: Option<Vec<PortEntry>>,
    pub(super) rules: Option<L7Rules>,
    pub(super) server_names: Option<Vec<String>>,
    pub(super) listener: Option<Value>,
    #[serde(rename = "terminatingTLS")]
    pub(super) _terminating_tls: Option<Value>,
    #[serde(rename = "originatingTLS")]
    pub(super) _originating_tls: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PortEntry {
    pub(super) port: Option<String>,
    pub(super) end_port: Option<i64>,
    pub(super) protocol: Option<String>,
}

/// One of them only.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct L7Rules {
    pub(super) http: Option<Vec<HttpRule>>,
    pub(super) dns: Option<Vec<NameRule>>,
    pub(super) kafka: Option<Vec<Value>>,
    pub(super) l7proto: Option<String>,
    pub(super) l7: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HttpRule {
    pub(super) path: Option<String>,
    pub(super) method: Option<String>,
    pub(super) host: Option<String>,
    pub(super) headers: Option<Vec<String>>,
    pub(super) header_matches: Option<Vec<HeaderMatch>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HeaderMatch {
    pub(super) name: Option<String>,
    pub(super) value: Option<String>,
    pub(super) mismatch: Option<String>,
    pub(super) secret: Option<Value>,
}

/// An entry of `icmps`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IcmpRule {
    pub(super) fields: Option<Vec<IcmpField>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IcmpField {
    pub(super) family: Option<String>,
    #[serde(rename = "type")]
    pub(super) kind: Option<IntOrString>,
}
