//! The objects as the API has them (group `dryfence.io`, version `v1alpha1`), before anything is checked.
//!
//! Fields whose values are checked by us are plain strings and numbers here, so that everything wrong with an
//! object is found at once and by its path, not only the first thing that does not deserialise. Unknown
//! fields are the reader's to find: it knows the text that they stand in.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, ObjectMeta};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The group and version of our kinds.
pub const API_VERSION: &str = "dryfence.io/v1alpha1";
/// The kind that declares segments.
pub const SEGMENT_MAP: &str = "SegmentMap";
/// The kind that mutes a known denial or violation.
pub const EDGE_EXCEPTION: &str = "EdgeException";

/// `kind: SegmentMap`, cluster-wide: which segment may open connections to which.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SegmentMapObject {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub spec: SegmentMapSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<SegmentMapStatus>,
}

/// What a SegmentMap declares.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = validations(&[
    (
        "(has(self.segments) && self.segments.size() > 0) || has(self.segmentsFrom)",
        "segments: at least one, or segmentsFrom",
    ),
    (
        "!has(self.segments) || self.segments.all(segment, !has(segment.members) || segment.members.all(member, !has(member.workload)))",
        "segments.members.workload: is for exceptions",
    ),
])))]
pub struct SegmentMapSpec {
    /// The declared segments, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub segments: Vec<SegmentSpec>,
    /// One segment for each value of a namespace label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segments_from: Option<SegmentsFromSpec>,
    /// `Reject` (the default) or `FirstMatch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Reject", "FirstMatch"]))]
    pub overlap: Option<String>,
    /// `Report` (the default), `Ignore` or `Deny`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Report", "Ignore", "Deny"]))]
    pub unassigned: Option<String>,
    /// `Allow` (the default) or `Deny`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Allow", "Deny"]))]
    pub within_segment: Option<String>,
    /// What may be opened between segments; all else is a violation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub rules: Vec<RuleSpec>,
    /// `Info`, `Warning` (the default) or `Critical`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Info", "Warning", "Critical"]))]
    pub severity: Option<String>,
    /// Absent: no namespace may declare exceptions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exceptions_from: Option<ExceptionsFromSpec>,
}

/// A declared segment: an endpoint is in it if any of its members matches.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct SegmentSpec {
    /// Its name, by which rules and reports call it.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// What is in it: an endpoint that any of these matches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub members: Vec<MemberSpec>,
}

/// One member. Exactly one kind of field is given; the two selectors go together.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = validations(&[
    (
        "(has(self.namespaceSelector) || has(self.podSelector) ? 1 : 0) + (has(self.ipBlock) ? 1 : 0) + (has(self.ipRange) ? 1 : 0) + (has(self.entity) ? 1 : 0) + (has(self.vlan) ? 1 : 0) + (has(self.fqdn) ? 1 : 0) + (has(self.workload) ? 1 : 0) == 1",
        "a member is exactly one of: selectors, ipBlock, ipRange, entity, vlan, fqdn, workload",
    ),
])))]
pub struct MemberSpec {
    /// Pods of the namespaces with these labels; with podSelector, those of their pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "label_selector")]
    pub namespace_selector: Option<LabelSelector>,
    /// Pods with these labels, of every namespace unless namespaceSelector is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "label_selector")]
    pub pod_selector: Option<LabelSelector>,
    /// Addresses of a block, less some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlockSpec>,
    /// `first-last`, both included: `192.168.1.0-192.168.1.50`, or `192.168.1.0-50` for the last octet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 91), regex(pattern = r"^[0-9a-fA-F:.]+-[0-9a-fA-F:.]+$"))]
    pub ip_range: Option<String>,
    /// `world`, `node`, `host`, `api-server`, `cloud-metadata` or `cluster-dns`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["world", "node", "host", "api-server", "cloud-metadata", "cluster-dns"]))]
    pub entity: Option<String>,
    /// A VLAN id; 0 is untagged.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4094))]
    pub vlan: Option<i64>,
    /// A DNS name, `*.` in front for every name below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub fqdn: Option<String>,
    /// Only in an EdgeException: the pods of one workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadSpec>,
}

/// A block of addresses, less some blocks inside it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["cidr"]))]
pub struct IpBlockSpec {
    /// The block, as 10.0.0.0/8 or 2001:db8::/32.
    #[schemars(length(min = 1, max = 49), regex(pattern = r"^[0-9a-fA-F:.]+/[0-9]{1,3}$"))]
    pub cidr: String,
    /// Blocks inside it that are not meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 49), regex(pattern = r"^[0-9a-fA-F:.]+/[0-9]{1,3}$")))]
    pub except: Vec<String>,
}

/// A workload by kind and name; without a namespace, in the exception's own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["kind", "name"]))]
pub struct WorkloadSpec {
    /// Deployment, StatefulSet, DaemonSet, CronJob, Job or Pod.
    pub kind: String,
    /// Its namespace; the exception's own if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// Multi-tenancy in a line: one segment for each value of a namespace label.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["namespaceLabel"]))]
pub struct SegmentsFromSpec {
    /// The label, as dryfence.io/tenant. Namespaces without it are in no segment.
    #[schemars(length(min = 1, max = 317))]
    pub namespace_label: String,
}

/// What may be opened from any segment of `from` to any segment of `to`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["from", "to"]))]
pub struct RuleSpec {
    /// Its name, for reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Names of segments: any of them may be the initiator's.
    #[schemars(length(min = 1, max = 256), inner(length(min = 1, max = 253)))]
    pub from: Vec<String>,
    /// Names of segments: any of them may be the responder's.
    #[schemars(length(min = 1, max = 256), inner(length(min = 1, max = 253)))]
    pub to: Vec<String>,
    /// Absent or empty: every port and protocol.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub ports: Vec<PortSpec>,
    /// `Any` (the default) or `Required`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Any", "Required"]))]
    pub encryption: Option<String>,
}

/// A port or a range of ports, as in a NetworkPolicy, but by number only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = validations(&[
    (
        "!has(self.endPort) || has(self.port)",
        "endPort: is given without port",
    ),
    (
        "!has(self.endPort) || !has(self.port) || self.endPort >= self.port",
        "endPort: is below port",
    ),
    (
        "!has(self.port) || !has(self.protocol) || !self.protocol.startsWith('ICMP')",
        "port: ICMP has no ports",
    ),
])))]
pub struct PortSpec {
    /// `TCP` (the default), `UDP`, `SCTP`, `ICMP` or `ICMPv6`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["TCP", "UDP", "SCTP", "ICMP", "ICMPv6"]))]
    pub protocol: Option<String>,
    /// Absent: every port of the protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i64>,
    /// The last port of a range that begins at `port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub end_port: Option<i64>,
}

/// Which namespaces may declare exceptions from this map.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExceptionsFromSpec {
    /// Labels of the namespaces that may declare exceptions.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "label_selector")]
    pub namespace_selector: Option<LabelSelector>,
}

/// What is known of a map; written by one place only, never by every agent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SegmentMapStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The generation of the spec that this is about.
    pub observed_generation: Option<i64>,
    /// `InForce`, and `Disjoint`: whether an endpoint was met that is in two segments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Everything found, `field: message` each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub findings: Vec<String>,
}

/// `kind: EdgeException`, namespaced: a known denial or violation, muted with a reason.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EdgeExceptionObject {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub spec: EdgeExceptionSpec,
}

/// What an EdgeException mutes, and why.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["reason"]))]
#[schemars(extend("x-kubernetes-validations" = validations(&[
    (
        "has(self.scenario) != has(self.segmentMap)",
        "exactly one of scenario and segmentMap is given",
    ),
    (
        "has(self.from) || has(self.to)",
        "from or to is given: else every edge of the namespace would be muted",
    ),
])))]
pub struct EdgeExceptionSpec {
    /// The scenario whose denials are muted; either this or `segmentMap`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub scenario: Option<String>,
    /// The map whose violations are muted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub segment_map: Option<String>,
    /// The initiator is any of these; absent: any initiator.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub from: Option<Vec<MemberSpec>>,
    /// The responder is any of these; absent: any responder.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub to: Option<Vec<MemberSpec>>,
    /// Absent or empty: every port and protocol.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub ports: Vec<PortSpec>,
    /// Why it is accepted, for the reader of the report.
    #[schemars(length(min = 1, max = 4096))]
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// Where it was decided.
    #[schemars(length(min = 1, max = 1024))]
    pub ticket: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// Whom to ask about it.
    #[schemars(length(min = 1, max = 1024))]
    pub owner: Option<String>,
    /// RFC 3339; from then on it mutes nothing and is a finding. Absent: it does not expire.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub expires_at: Option<String>,
}

/// A label selector, as everywhere in the API.
fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "description": "Labels that it must have, with these values.",
                "type": "object",
                "maxProperties": 64,
                "additionalProperties": { "type": "string", "maxLength": 63 },
            },
            "matchExpressions": {
                "description": "Requirements that it must meet, all of them.",
                "type": "array",
                "maxItems": 64,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": { "description": "The label's key.", "type": "string", "maxLength": 317 },
                        "operator": {
                            "description": "How its value stands to the values.",
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "description": "With In and NotIn: the values.",
                            "type": "array",
                            "maxItems": 64,
                            "x-kubernetes-list-type": "atomic",
                            "items": { "type": "string", "maxLength": 63 },
                        },
                    },
                },
            },
        },
    })
}

/// Conditions, as everywhere in the API.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": { "description": "What it is about.", "type": "string", "maxLength": 316 },
                "status": {
                    "description": "Whether it holds.",
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                },
                "observedGeneration": {
                    "description": "The generation of the spec that it is about.",
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                },
                "lastTransitionTime": {
                    "description": "When the status changed last.",
                    "type": "string",
                    "format": "date-time",
                },
                "reason": { "description": "Why, in a word.", "type": "string", "maxLength": 1024 },
                "message": { "description": "Why, in a sentence.", "type": "string", "maxLength": 32768 },
            },
        },
    })
}

/// Rules in CEL, each with what is said where it does not hold.
pub(crate) fn validations(rules: &[(&str, &str)]) -> serde_json::Value {
    let rule = |(rule, message): &(&str, &str)| serde_json::json!({ "rule": rule, "message": message });
    rules.iter().map(rule).collect()
}
