//! Lines as they are written: references by number, nothing that is at its default.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::cause::Cause;
use crate::model::dialect::SWITCHES;
use crate::model::edge::{Budget, Counters, Direction, IcmpErrors, OrientedBy, Protocol};
use crate::model::object::ObjectRef;
use crate::model::role::Roles;
use crate::model::verdict::{Fact, UnknownReason};

/// Any line but the first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Line<'a> {
    #[serde(borrow)]
    Identity(IdentityLine<'a>),
    #[serde(borrow)]
    Pod(PodLine<'a>),
    #[serde(borrow)]
    Party(PartyLine<'a>),
    Edge(EdgeLine),
    End(EndLine),
}

/// A text that is borrowed from the line where it has no escapes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

pub(super) type Map<'a> = BTreeMap<Text<'a>, Text<'a>>;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IdentityLine<'a> {
    pub(super) id: u32,
    #[serde(borrow)]
    pub(super) namespace: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) namespace_labels: Map<'a>,
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: Map<'a>,
    #[serde(borrow)]
    pub(super) service_account: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub(super) named_ports: Vec<PortLine<'a>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) roles: Vec<RoleLine>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PortLine<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RoleLine {
    ClusterDns,
    MetricsScraper,
    IngressController,
}

impl RoleLine {
    const ALL: [(Self, Roles); 3] = [
        (Self::ClusterDns, Roles::CLUSTER_DNS),
        (Self::MetricsScraper, Roles::METRICS_SCRAPER),
        (Self::IngressController, Roles::INGRESS_CONTROLLER),
    ];

    pub(super) fn of(roles: Roles) -> Vec<Self> {
        Self::ALL.into_iter().filter(|(_, role)| roles.has(*role)).map(|(line, _)| line).collect()
    }

    pub(super) fn roles(lines: &[Self]) -> Roles {
        let held = Self::ALL.into_iter().filter(|(line, _)| lines.contains(line));
        held.fold(Roles::NONE, |roles, (_, role)| roles.with(role))
    }
}

/// Its namespace is its identity's; its owners, `Kind/name`, are in the same namespace, as the API demands.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PodLine<'a> {
    pub(super) id: u32,
    pub(super) identity: u32,
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(borrow, default = "empty", skip_serializing_if = "is_empty")]
    pub(super) uid: Text<'a>,
    #[serde(borrow)]
    pub(super) workload: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub(super) owners: Vec<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) selector: Map<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) host_network: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) addresses: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) from_template: bool,
}

const fn empty() -> Text<'static> {
    Text(Cow::Borrowed(""))
}

fn is_empty(text: &Text<'_>) -> bool {
    text.0.is_empty()
}

/// Exactly one of `pod`, `node`, `service`, `external`, `unknown` is there.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PartyLine<'a> {
    pub(super) id: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<u32>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<ServiceLine<'a>>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) external: bool,
    /// With `external`: the length of the prefix of `address` that all its addresses share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) prefix: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unknown: Option<ReasonLine>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServiceLine<'a> {
    #[serde(borrow)]
    pub(super) namespace: Text<'a>,
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    /// The backends: the number of the party, and the port.
    pub(super) backends: Vec<(u32, u16)>,
}

/// Why an end is unknown. The variants are those of [`UnknownReason`], under its codes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ReasonLine {
    AddressUnjoined,
    AddressReused,
    AddressMissing,
    ObjectInvalid(ObjectLine),
    PolicyInvalid { policy: ObjectLine, field: String },
    PolicyUnsupported { policy: ObjectLine, field: String },
    FactMissing { policy: ObjectLine, field: String, fact: String },
    EqualPriority { policies: Vec<ObjectLine> },
    NoBackends,
    BackendsDiffer { allowed: u32, denied: u32, unknown: u32 },
    PodsDiffer { allowed: u32, denied: u32, unknown: u32 },
    IcmpUndefined,
    NodeUnknown,
    DialectUndefined { switch: String },
    NotSynced,
    Snat,
    Unoriented,
    RangeDivided,
    OverBudget { budget: String },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ObjectLine {
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    name: String,
}

impl From<&ObjectRef> for ObjectLine {
    fn from(object: &ObjectRef) -> Self {
        Self {
            kind: object.kind.to_string(),
            namespace: object.namespace.as_ref().map(ToString::to_string),
            name: object.name.to_string(),
        }
    }
}

impl From<ObjectLine> for ObjectRef {
    fn from(line: ObjectLine) -> Self {
        Self { kind: line.kind.into(), namespace: line.namespace.map(Into::into), name: line.name.into() }
    }
}

impl From<ObjectLine> for Arc<ObjectRef> {
    fn from(line: ObjectLine) -> Self {
        Self::new(line.into())
    }
}

impl From<&UnknownReason> for ReasonLine {
    fn from(reason: &UnknownReason) -> Self {
        match reason {
            UnknownReason::AddressUnjoined => Self::AddressUnjoined,
            UnknownReason::AddressReused => Self::AddressReused,
            UnknownReason::AddressMissing => Self::AddressMissing,
            UnknownReason::ObjectInvalid { object } => Self::ObjectInvalid((&**object).into()),
            UnknownReason::PolicyInvalid { policy, field } => {
                Self::PolicyInvalid { policy: (&**policy).into(), field: field.to_string() }
            }
            UnknownReason::PolicyUnsupported { policy, field } => {
                Self::PolicyUnsupported { policy: (&**policy).into(), field: field.to_string() }
            }
            UnknownReason::FactMissing { policy, field, fact } => Self::FactMissing {
                policy: (&**policy).into(),
                field: field.to_string(),
                fact: fact.as_str().to_owned(),
            },
            UnknownReason::EqualPriority { policies } => {
                Self::EqualPriority { policies: policies.iter().map(Into::into).collect() }
            }
            UnknownReason::NoBackends => Self::NoBackends,
            UnknownReason::BackendsDiffer { allowed, denied, unknown } => {
                Self::BackendsDiffer { allowed: *allowed, denied: *denied, unknown: *unknown }
            }
            UnknownReason::PodsDiffer { allowed, denied, unknown } => {
                Self::PodsDiffer { allowed: *allowed, denied: *denied, unknown: *unknown }
            }
            UnknownReason::IcmpUndefined => Self::IcmpUndefined,
            UnknownReason::NodeUnknown => Self::NodeUnknown,
            UnknownReason::DialectUndefined { switch } => {
                Self::DialectUndefined { switch: (*switch).to_owned() }
            }
            UnknownReason::NotSynced => Self::NotSynced,
            UnknownReason::Snat => Self::Snat,
            UnknownReason::Unoriented => Self::Unoriented,
            UnknownReason::RangeDivided => Self::RangeDivided,
            UnknownReason::OverBudget(budget) => Self::OverBudget { budget: budget.as_str().to_owned() },
        }
    }
}

impl TryFrom<ReasonLine> for UnknownReason {
    /// The dialect's switch, the fact, or the budget, that does not exist.
    type Error = String;

    fn try_from(line: ReasonLine) -> Result<Self, String> {
        Ok(match line {
            ReasonLine::AddressUnjoined => Self::AddressUnjoined,
            ReasonLine::AddressReused => Self::AddressReused,
            ReasonLine::AddressMissing => Self::AddressMissing,
            ReasonLine::ObjectInvalid(object) => Self::ObjectInvalid { object: object.into() },
            ReasonLine::PolicyInvalid { policy, field } => {
                Self::PolicyInvalid { policy: policy.into(), field: field.into() }
            }
            ReasonLine::PolicyUnsupported { policy, field } => {
                Self::PolicyUnsupported { policy: policy.into(), field: field.into() }
            }
            ReasonLine::FactMissing { policy, field, fact } => {
                let known = Fact::ALL.into_iter().find(|known| known.as_str() == fact);
                Self::FactMissing { policy: policy.into(), field: field.into(), fact: known.ok_or(fact)? }
            }
            ReasonLine::EqualPriority { policies } => {
                Self::EqualPriority { policies: policies.into_iter().map(Into::into).collect() }
            }
            ReasonLine::NoBackends => Self::NoBackends,
            ReasonLine::BackendsDiffer { allowed, denied, unknown } => {
                Self::BackendsDiffer { allowed, denied, unknown }
            }
            ReasonLine::PodsDiffer { allowed, denied, unknown } => {
                Self::PodsDiffer { allowed, denied, unknown }
            }
            ReasonLine::IcmpUndefined => Self::IcmpUndefined,
            ReasonLine::NodeUnknown => Self::NodeUnknown,
            ReasonLine::DialectUndefined { switch } => {
                let known = SWITCHES.iter().copied().find(|known| *known == switch);
                Self::DialectUndefined { switch: known.ok_or(switch)? }
            }
            ReasonLine::NotSynced => Self::NotSynced,
            ReasonLine::Snat => Self::Snat,
            ReasonLine::Unoriented => Self::Unoriented,
            ReasonLine::RangeDivided => Self::RangeDivided,
            ReasonLine::OverBudget { budget } => {
                let known = Budget::ALL.into_iter().find(|known| known.as_str() == budget);
                Self::OverBudget(known.ok_or(budget)?)
            }
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EdgeLine {
    /// The initiator's party, and the responder's.
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    pub(super) direction: Direction,
    pub(super) cause: Cause,
    pub(super) counters: CountersLine,
    pub(super) first: u64,
    pub(super) last: u64,
    #[serde(default = "handshake", skip_serializing_if = "is_handshake")]
    pub(super) oriented_by: OrientedBy,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) half_visible: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) vlan: u16,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) estimated: bool,
    /// In the order of [`IcmpErrors`]' fields; from version 3 on.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) icmp_errors: [u64; 3],
}

const fn handshake() -> OrientedBy {
    OrientedBy::Handshake
}

fn is_handshake(oriented_by: &OrientedBy) -> bool {
    *oriented_by == OrientedBy::Handshake
}

/// In the order of [`Counters`]' fields, without ICMP errors, which few edges have.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct CountersLine([u64; 7]);

impl From<Counters> for CountersLine {
    fn from(counters: Counters) -> Self {
        Self([
            counters.attempts,
            counters.accepted,
            counters.refused,
            counters.packets_to_responder,
            counters.packets_to_initiator,
            counters.bytes_to_responder,
            counters.bytes_to_initiator,
        ])
    }
}

impl From<CountersLine> for Counters {
    fn from(CountersLine(line): CountersLine) -> Self {
        let [
            attempts,
            accepted,
            refused,
            packets_to_responder,
            packets_to_initiator,
            bytes_to_responder,
            bytes_to_initiator,
        ] = line;
        Self {
            attempts,
            accepted,
            refused,
            packets_to_responder,
            packets_to_initiator,
            bytes_to_responder,
            bytes_to_initiator,
            icmp_errors: IcmpErrors::default(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndLine {
    pub(super) edges: u64,
}

/// As much of the first line as tells whether the rest can be read.
#[derive(Debug, Deserialize)]
pub(super) struct FormatLine {
    #[serde(default)]
    pub(super) format: Option<String>,
    #[serde(default)]
    pub(super) version: Option<u32>,
}
