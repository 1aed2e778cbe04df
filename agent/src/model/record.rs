//! Judged edges as the API serves them, JSON lines hold them and commands read them.
//!
//! The field names are an interface: other tools read them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::cause::Cause;
use super::edge::{Counters, Direction, Edge, OrientedBy, Protocol};
use super::endpoint::{Endpoint, Party};
use super::time::Timestamp;
use super::verdict::{Answer, Decision, Judgement, Layer, Miss, Reason, TierOutcome, Verdict};

/// One end of an edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartyRecord {
    /// `Pod`, `Node`, `Service`, `External` or `Unknown`.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Where the end stands for all outside addresses that share a prefix with `address`: its length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The pod's, node's or Service's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The workload's kind: `Deployment`, `StatefulSet` …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The labels that select the workload's pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
    /// Why the type is `Unknown`: a stable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<&Party> for PartyRecord {
    fn from(party: &Party) -> Self {
        let mut record = Self {
            kind: party.endpoint.type_name().to_owned(),
            address: party.address,
            prefix: None,
            namespace: party.namespace().map(ToOwned::to_owned),
            name: party.object().map(|object| object.name.to_string()),
            workload: None,
            workload_type: None,
            node: None,
            selector: BTreeMap::new(),
            reason: None,
        };
        match &party.endpoint {
            Endpoint::Pod(pod) => {
                record.workload = Some(pod.workload.name.to_string());
                record.workload_type = Some(pod.workload.kind.to_string());
                record.node = pod.node.as_ref().map(ToString::to_string);
                record.selector =
                    pod.selector.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            }
            Endpoint::Unknown(reason) => record.reason = Some(reason.code().to_owned()),
            Endpoint::Range(length) => record.prefix = Some(*length),
            Endpoint::Node(_) | Endpoint::Service(_) | Endpoint::External => {}
        }
        record
    }
}

impl PartyRecord {
    /// The address, with the length of its prefix where it stands for a range; `None` where there is none.
    pub fn address_text(&self) -> Option<String> {
        let address = self.address?;
        Some(match self.prefix {
            Some(length) => format!("{address}/{length}"),
            None => address.to_string(),
        })
    }
}

/// One direction's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRecord {
    pub verdict: Verdict,
    pub layer: Layer,
    /// `Kind/namespace/name` of the deciding policy.
    pub policy: Option<String>,
    pub rule: Option<u32>,
    /// What the rule is called, where its index does not say enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_name: Option<String>,
    /// The deciding peer's index in the rule's `from` or `to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<u32>,
    /// In words.
    pub reason: String,
    /// Why it is `Unknown`: a stable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// The policies that isolate the pod, where none of their rules matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub isolated_by: Vec<String>,
    /// The rule that came closest to allowing what is denied, and what it lacked; left out where no rule comes
    /// close.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
    /// What each tier answered that was asked, in their order; left out where that was one at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<AnswerRecord>,
}

/// One tier's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerRecord {
    pub layer: Layer,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    pub outcome: TierOutcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_name: Option<String>,
    /// In words.
    pub reason: String,
    /// Whether the decision rests on this answer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub decides: bool,
}

impl From<&Answer> for AnswerRecord {
    fn from(answer: &Answer) -> Self {
        Self {
            layer: answer.layer,
            tier: answer.tier.as_ref().map(ToString::to_string),
            outcome: answer.outcome,
            policy: answer.policy.as_ref().map(ToString::to_string),
            rule: answer.rule,
            rule_name: answer.rule_name.as_ref().map(ToString::to_string),
            reason: answer.reason.to_string(),
            decides: answer.decides,
        }
    }
}

impl From<&Decision> for DecisionRecord {
    fn from(decision: &Decision) -> Self {
        let mut record = Self {
            verdict: decision.verdict,
            layer: decision.layer,
            policy: decision.policy.as_ref().map(ToString::to_string),
            rule: decision.rule,
            rule_name: decision.rule_name.as_ref().map(ToString::to_string),
            peer: decision.peer,
            reason: decision.reason.to_string(),
            unknown: None,
            isolated_by: Vec::new(),
            nearest: None,
            chain: decision.chain.iter().map(AnswerRecord::from).collect(),
        };
        match &decision.reason {
            Reason::Unknown(reason) => record.unknown = Some(reason.code().to_owned()),
            Reason::NoRuleMatches { isolated_by, nearest } => {
                record.isolated_by = isolated_by.iter().map(ToString::to_string).collect();
                let close = nearest.as_ref().filter(|nearest| nearest.lacks != Miss::PeerAndPort);
                record.nearest = close.map(ToString::to_string);
            }
            _ => {}
        }
        record
    }
}

/// Both directions under one scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgementRecord {
    pub verdict: Verdict,
    pub egress: DecisionRecord,
    pub ingress: DecisionRecord,
    /// Whether an EdgeException mutes the denial. It counts all the same, but is nothing new.
    #[serde(default, skip_serializing_if = "is_false")]
    pub excepted: bool,
    /// That exception.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exception: Option<ExceptionRecord>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if gives a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// The EdgeException that mutes a denial or a violation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExceptionRecord {
    /// `EdgeException/namespace/name`.
    pub exception: String,
    /// Why the edge is accepted as it is.
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// What one segment map says of an edge. Left out where the edge is none of the map's business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRecord {
    /// The map's name.
    pub map: String,
    /// The initiator's segment; none where it is in none, or not for sure in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The responder's segment, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// `Allow`, `Violation` or `Unknown`.
    pub verdict: String,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// `Info`, `Warning` or `Critical`: the map's.
    pub severity: String,
    /// Why, as a stable code.
    pub code: String,
    /// Why, in words.
    pub reason: String,
    /// Whether an EdgeException mutes the violation. It counts all the same, but is nothing new.
    #[serde(default, skip_serializing_if = "is_false")]
    pub excepted: bool,
    /// That exception.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exception: Option<ExceptionRecord>,
}

impl SegmentRecord {
    /// Whether the map forbids the edge, excepted or not.
    pub fn is_violation(&self) -> bool {
        self.verdict == "Violation"
    }

    /// Whether the map cannot tell.
    pub fn is_unknown(&self) -> bool {
        self.verdict == "Unknown"
    }
}

impl JudgementRecord {
    /// The answer of one direction.
    pub const fn of(&self, direction: Direction) -> &DecisionRecord {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }
}

impl From<&Judgement> for JudgementRecord {
    fn from(judgement: &Judgement) -> Self {
        Self {
            verdict: judgement.verdict(),
            egress: DecisionRecord::from(&*judgement.egress),
            ingress: DecisionRecord::from(&*judgement.ingress),
            excepted: false,
            exception: None,
        }
    }
}

/// One judged edge, as seen at one pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeRecord {
    pub initiator: PartyRecord,
    pub responder: PartyRecord,
    /// The responder's port; for ICMP, type × 256 + code.
    pub port: u16,
    pub protocol: Protocol,
    /// At whose pod it was seen: `Egress` at the initiator's, `Ingress` at the responder's.
    pub direction: Direction,
    pub cause: Cause,
    #[serde(flatten)]
    pub counters: Counters,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    pub oriented_by: OrientedBy,
    /// Whether packets of both directions were seen at the interface.
    pub fully_visible: bool,
    /// The VLAN id seen; 0 is untagged.
    #[serde(default)]
    pub vlan: u16,
    /// Packets and bytes are estimates: not every one was counted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub estimated: bool,
    /// By scenario name.
    pub verdicts: BTreeMap<String, JudgementRecord>,
    /// What segment maps say, whatever the policies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<SegmentRecord>,
}

impl EdgeRecord {
    /// The record of an edge, with the answer of each scenario by its name.
    pub fn new<'a>(edge: &Edge, judgements: impl Iterator<Item = (&'static str, &'a Judgement)>) -> Self {
        Self {
            initiator: PartyRecord::from(&edge.initiator),
            responder: PartyRecord::from(&edge.responder),
            port: edge.port,
            protocol: edge.protocol,
            direction: edge.direction,
            cause: edge.cause,
            counters: edge.counters,
            first_seen: edge.first_seen,
            last_seen: edge.last_seen,
            oriented_by: edge.oriented_by,
            fully_visible: edge.fully_visible,
            vlan: edge.vlan,
            estimated: edge.estimated,
            verdicts: judgements
                .map(|(name, given)| (name.to_owned(), JudgementRecord::from(given)))
                .collect(),
            segments: Vec::new(),
        }
    }
}

/// Something lost, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LossRecord {
    /// Where: `parse`, `edge-map`, `orphan`, `join` …
    pub stage: String,
    pub reason: String,
    pub packets: u64,
    pub edges: u64,
}

/// From when to when an agent watched, and what was lost in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowRecord {
    pub start: Timestamp,
    pub end: Timestamp,
    /// Everything lost since the start; empty means nothing was.
    pub losses: Vec<LossRecord>,
    /// Local pods whose interface could not be seen: `namespace/name`.
    pub unobserved: Vec<String>,
}

/// A scenario and what it assumes, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScenarioRecord {
    pub name: String,
    pub description: String,
}

/// A segment map, and whether edges are judged by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentMapRecord {
    pub name: String,
    /// `Info`, `Warning` or `Critical`.
    pub severity: String,
    pub in_force: bool,
    /// Why it is not in force, `field: message` each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// What in it may not do what it seems to, and endpoints that are in two of its segments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Something wrong with an EdgeException: it has expired, for example.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExceptionFindingRecord {
    /// `EdgeException/namespace/name`.
    pub exception: String,
    /// `field: message`.
    pub finding: String,
}

/// What `/api/v1/edges` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeList {
    pub window: WindowRecord,
    pub dialect: String,
    pub scenarios: Vec<ScenarioRecord>,
    /// Problems of the objects that verdicts rest on, one sentence each.
    pub warnings: Vec<String>,
    /// Every segment map, in force or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segment_maps: Vec<SegmentMapRecord>,
    /// What is wrong with exceptions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exception_findings: Vec<ExceptionFindingRecord>,
    pub edges: Vec<EdgeRecord>,
}
