//! The types of projectcalico.org/v3 and crd.projectcalico.org/v1, as their definitions have them
//! (projectcalico/calico, api/pkg/apis/projectcalico/v3). What the API demands may be absent here, and numbers that
//! may be texts are read later: both are faults then, not a refusal to read.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// `spec` of NetworkPolicy, GlobalNetworkPolicy, and their staged kinds: each has some of these.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PolicySpec {
    pub(super) staged_action: Option<String>,
    pub(super) tier: Option<String>,
    pub(super) order: Option<f64>,
    pub(super) selector: Option<String>,
    pub(super) namespace_selector: Option<String>,
    pub(super) service_account_selector: Option<String>,
    pub(super) types: Option<Vec<String>>,
    pub(super) ingress: Option<Vec<Rule>>,
    pub(super) egress: Option<Vec<Rule>>,
    pub(super) do_not_track: Option<bool>,
    #[serde(rename = "preDNAT")]
    pub(super) pre_dnat: Option<bool>,
    pub(super) apply_on_forward: Option<bool>,
    /// They never change what is enforced.
    #[serde(rename = "performanceHints")]
    pub(super) _performance_hints: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rule {
    pub(super) action: Option<String>,
    pub(super) ip_version: Option<i64>,
    pub(super) protocol: Option<Value>,
    pub(super) not_protocol: Option<Value>,
    pub(super) icmp: Option<Icmp>,
    #[serde(rename = "notICMP")]
    pub(super) not_icmp: Option<Icmp>,
    pub(super) source: Option<Entity>,
    pub(super) destination: Option<Entity>,
    pub(super) http: Option<Http>,
    #[serde(rename = "metadata")]
    pub(super) _metadata: Option<RuleMetadata>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RuleMetadata {
    #[serde(rename = "annotations")]
    pub(super) _annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Icmp {
    #[serde(rename = "type")]
    pub(super) kind: Option<i64>,
    pub(super) code: Option<i64>,
}

/// One end of a connection.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entity {
    pub(super) nets: Option<Vec<String>>,
    pub(super) not_nets: Option<Vec<String>>,
    pub(super) selector: Option<String>,
    pub(super) not_selector: Option<String>,
    pub(super) namespace_selector: Option<String>,
    pub(super) service_accounts: Option<ServiceAccounts>,
    pub(super) services: Option<Services>,
    pub(super) ports: Option<Vec<Value>>,
    pub(super) not_ports: Option<Vec<Value>>,
    /// Calico Enterprise and Calico Cloud only.
    pub(super) domains: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ServiceAccounts {
    pub(super) names: Option<Vec<String>>,
    pub(super) selector: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Services {
    pub(super) name: Option<String>,
    pub(super) namespace: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Http {
    pub(super) methods: Option<Vec<String>>,
    pub(super) paths: Option<Vec<HttpPath>>,
}

/// Exactly one field.
#[derive(Debug, Deserialize)]
pub(super) struct HttpPath {
    pub(super) exact: Option<String>,
    pub(super) prefix: Option<String>,
}

/// `spec` of Tier.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TierSpec {
    pub(super) order: Option<f64>,
    pub(super) default_action: Option<String>,
}

/// `spec` of NetworkSet and GlobalNetworkSet.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SetSpec {
    pub(super) nets: Option<Vec<String>>,
    /// Calico Enterprise and Calico Cloud only.
    pub(super) allowed_egress_domains: Option<Vec<String>>,
}
