//! The types of security.istio.io, as their definitions have them (istio/api security/v1beta1).

use std::collections::BTreeMap;

use serde::Deserialize;

/// `spec` of AuthorizationPolicy.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuthorizationSpec {
    pub(super) selector: Option<WorkloadSelector>,
    pub(super) target_ref: Option<TargetRef>,
    pub(super) target_refs: Option<Vec<TargetRef>>,
    pub(super) rules: Option<Vec<RuleSpec>>,
    pub(super) action: Option<String>,
    pub(super) provider: Option<Provider>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WorkloadSelector {
    pub(super) match_labels: Option<BTreeMap<String, String>>,
}

/// What the policy is attached to; any of them is no pod.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TargetRef {
    #[serde(rename = "group")]
    pub(super) _group: Option<String>,
    #[serde(rename = "kind")]
    pub(super) _kind: Option<String>,
    #[serde(rename = "name")]
    pub(super) _name: Option<String>,
    #[serde(rename = "namespace")]
    pub(super) _namespace: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Provider {
    #[serde(rename = "name")]
    pub(super) _name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RuleSpec {
    pub(super) from: Option<Vec<FromSpec>>,
    pub(super) to: Option<Vec<ToSpec>>,
    pub(super) when: Option<Vec<WhenSpec>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FromSpec {
    pub(super) source: Option<Source>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToSpec {
    pub(super) operation: Option<Operation>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Source {
    pub(super) principals: Vec<String>,
    pub(super) not_principals: Vec<String>,
    pub(super) request_principals: Vec<String>,
    pub(super) not_request_principals: Vec<String>,
    pub(super) namespaces: Vec<String>,
    pub(super) not_namespaces: Vec<String>,
    pub(super) service_accounts: Vec<String>,
    pub(super) not_service_accounts: Vec<String>,
    pub(super) ip_blocks: Vec<String>,
    pub(super) not_ip_blocks: Vec<String>,
    pub(super) remote_ip_blocks: Vec<String>,
    pub(super) not_remote_ip_blocks: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Operation {
    pub(super) hosts: Vec<String>,
    pub(super) not_hosts: Vec<String>,
    pub(super) ports: Vec<String>,
    pub(super) not_ports: Vec<String>,
    pub(super) methods: Vec<String>,
    pub(super) not_methods: Vec<String>,
    pub(super) paths: Vec<String>,
    pub(super) not_paths: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct WhenSpec {
    pub(super) key: String,
    pub(super) values: Vec<String>,
    pub(super) not_values: Vec<String>,
}

/// `spec` of PeerAuthentication.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PeerAuthenticationSpec {
    pub(super) selector: Option<WorkloadSelector>,
    pub(super) mtls: Option<MutualTls>,
    pub(super) port_level_mtls: Option<BTreeMap<String, MutualTls>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MutualTls {
    pub(super) mode: Option<String>,
}
