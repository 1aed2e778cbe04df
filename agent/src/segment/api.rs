//! The objects as the API has them (group `dryfence.io`, version `v1alpha1`), before anything is checked.
//!
//! Fields whose values are checked by us are plain strings and numbers here, so that everything wrong with an
//! object is found at once and by its path, not only the first thing that does not deserialise. Unknown
//! fields are the reader's to find: it knows the text that they stand in.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, ObjectMeta};
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
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SegmentMapSpec {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<SegmentSpec>,
    /// One segment for each value of a namespace label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segments_from: Option<SegmentsFromSpec>,
    /// `Reject` (the default) or `FirstMatch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlap: Option<String>,
    /// `Report` (the default), `Ignore` or `Deny`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unassigned: Option<String>,
    /// `Allow` (the default) or `Deny`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within_segment: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleSpec>,
    /// `Info`, `Warning` (the default) or `Critical`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// Absent: no namespace may declare exceptions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exceptions_from: Option<ExceptionsFromSpec>,
}

/// A declared segment: an endpoint is in it if any of its members matches.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SegmentSpec {
    pub name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberSpec>,
}

/// One member. Exactly one kind of field is given; the two selectors go together.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemberSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlockSpec>,
    /// `first-last`, both included: `192.168.1.0-192.168.1.50`, or `192.168.1.0-50` for the last octet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<String>,
    /// `world`, `node`, `host`, `api-server`, `cloud-metadata` or `cluster-dns`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// A VLAN id; 0 is untagged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<i64>,
    /// A DNS name, `*.` in front for every name below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fqdn: Option<String>,
    /// Only in an EdgeException: the pods of one workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadSpec>,
}

/// A block of addresses, less some blocks inside it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IpBlockSpec {
    pub cidr: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

/// A workload by kind and name; without a namespace, in the exception's own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSpec {
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
}

/// Multi-tenancy in a line: one segment for each value of a namespace label.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SegmentsFromSpec {
    pub namespace_label: String,
}

/// What may be opened from any segment of `from` to any segment of `to`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub from: Vec<String>,
    pub to: Vec<String>,
    /// Absent or empty: every port and protocol.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortSpec>,
    /// `Any` (the default) or `Required`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
}

/// A port or a range of ports, as in a NetworkPolicy, but by number only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortSpec {
    /// `TCP` (the default), `UDP`, `SCTP`, `ICMP` or `ICMPv6`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Absent: every port of the protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
    /// The last port of a range that begins at `port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_port: Option<i64>,
}

/// Which namespaces may declare exceptions from this map.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExceptionsFromSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
}

/// What is known of a map; written by one place only, never by every agent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SegmentMapStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `InForce`, and `Disjoint`: whether an endpoint was met that is in two segments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Everything found, `field: message` each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
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
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EdgeExceptionSpec {
    /// The scenario whose denials are muted; either this or `segmentMap`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scenario: Option<String>,
    /// The map whose violations are muted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment_map: Option<String>,
    /// The initiator is any of these; absent: any initiator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Vec<MemberSpec>>,
    /// The responder is any of these; absent: any responder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<MemberSpec>>,
    /// Absent or empty: every port and protocol.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortSpec>,
    /// Why it is accepted, for the reader of the report.
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// RFC 3339; from then on it mutes nothing and is a finding. Absent: it does not expire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}
