//! Candidates as the API has them (group `dryfence.io`, version `v1alpha1`), before anything is checked.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::segment::api::validations;

/// The kind that proposes a namespaced policy.
pub const POLICY_CANDIDATE: &str = "PolicyCandidate";
/// The kind that proposes a cluster-wide policy.
pub const CLUSTER_POLICY_CANDIDATE: &str = "ClusterPolicyCandidate";
/// The change set of a candidate that names none.
pub const DEFAULT_CHANGE_SET: &str = "staged";

/// `kind: PolicyCandidate` (namespaced) and `kind: ClusterPolicyCandidate`: one edit of the policies in force.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CandidateObject {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub spec: CandidateSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<CandidateStatus>,
}

/// What a candidate would do to the policies in force. Nothing of it is enforced: every agent judges by it, beside
/// what is in force, and tells what would be denied and allowed newly.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = validations(&[
    (
        "!has(self.changeSet) || !(self.changeSet in ['enforced', 'default-deny'])",
        "changeSet: enforced and default-deny are scenarios of their own",
    ),
    (
        "(has(self.action) && self.action == 'Delete') != has(self.object)",
        "object: is given with action Apply, and with it only",
    ),
    (
        "(has(self.action) && self.action == 'Delete') == has(self.target)",
        "target: is given with action Delete, and with it only",
    ),
    (
        "!has(self.object) || ['networking.k8s.io/', 'policy.networking.k8s.io/', 'cilium.io/', 'projectcalico.org/', \
         'crd.projectcalico.org/', 'security.istio.io/'].exists(group, self.object.apiVersion.startsWith(group))",
        "object.apiVersion: is of no API group that has policies",
    ),
])))]
pub struct CandidateSpec {
    /// The scenario that this edit is part of. All candidates of one change set are judged together, under its name
    /// in reports and metrics. "staged" if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub change_set: Option<String>,
    /// Apply (the default): the object is laid over the policies in force, where it replaces its namesake. Delete: the
    /// target is taken away.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Apply", "Delete"]))]
    pub action: Option<String>,
    /// With Apply: a policy of any family that dryfence judges, as one would apply it. Its namespace is this
    /// candidate's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "embedded")]
    pub object: Option<Value>,
    /// With Delete: the policy that is taken away, in this candidate's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetSpec>,
}

/// Which policy is taken away.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["apiVersion", "kind", "name"]))]
pub struct TargetSpec {
    /// Its API group and version, as networking.k8s.io/v1.
    #[schemars(length(min = 1, max = 317))]
    pub api_version: String,
    /// Its kind, as NetworkPolicy.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What is known of a candidate; written by one place only, never by every agent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CandidateStatus {
    /// The generation of the spec that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted: it can be judged by. Evaluated: agents have judged by it. Complete: all of them have, and for the
    /// whole window.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::segment::api::conditions")]
    pub conditions: Vec<Condition>,
    /// From when to when connections were watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowStatus>,
    /// Edges that the change set denies and the policies in force allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub newly_denied: Option<i64>,
    /// Edges that the change set allows and the policies in force deny.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub newly_allowed: Option<i64>,
    /// Edges of which that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub unknown: Option<i64>,
    /// When an edge was last seen that it denies newly.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub last_seen: Option<String>,
}

/// From when to when connections were watched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WindowStatus {
    /// Its first moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub start: Option<String>,
    /// Its last moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub end: Option<String>,
}

/// Any object of the API.
fn embedded(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "x-kubernetes-embedded-resource": true,
        "x-kubernetes-preserve-unknown-fields": true,
    })
}
