//! Verdicts: three values, always with the reason. Logs, metrics, tables and JSON are made from these.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::edge::{Budget, Direction, Protocol};
use super::object::ObjectRef;

/// What a scenario would do with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verdict {
    Allow,
    Deny,
    /// We cannot know; the reason says why.
    Unknown,
}

impl Verdict {
    /// Both directions must allow: one denial denies whatever the other says.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Deny, _) | (_, Self::Deny) => Self::Deny,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Allow, Self::Allow) => Self::Allow,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::Deny => "Deny",
            Self::Unknown => "Unknown",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The layer of policy that decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Layer {
    /// No policy layer: nothing judges this direction.
    #[serde(rename = "none")]
    None,
    /// The admin tier of policy.networking.k8s.io: AdminNetworkPolicy, and ClusterNetworkPolicy in that tier.
    Admin,
    /// A tier of projectcalico.org.
    Calico,
    /// The rule set of cilium.io, with NetworkPolicy in it.
    Cilium,
    /// networking.k8s.io/v1 NetworkPolicy.
    NetworkPolicy,
    /// The baseline tier of policy.networking.k8s.io.
    Baseline,
    /// security.istio.io PeerAuthentication.
    PeerAuthentication,
    /// security.istio.io AuthorizationPolicy.
    AuthorizationPolicy,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Admin => "Admin",
            Self::Calico => "Calico",
            Self::Cilium => "Cilium",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Baseline => "Baseline",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
        })
    }
}

/// Something outside the policies that a verdict may depend on, and that is not always known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fact {
    /// What the initiator calls the responder's address.
    DomainName,
    /// Whether the mesh encrypts the connection and knows both ends.
    MutualTls,
    /// As whom the initiator is known to the mesh.
    Principal,
    /// The request inside the connection: HTTP, DNS.
    Request,
    /// The initiator's own port: edges are kept without it.
    InitiatorPort,
    NodeLabels,
    ServiceAccountLabels,
    /// Where the API server listens.
    ApiServer,
    /// What a Service selects.
    Service,
    /// What the cluster is called among others.
    ClusterName,
    /// The port inside a mesh's tunnel.
    InnerPort,
    /// The name that the connection's TLS asks for.
    ServerName,
    /// Whether the pod is in the mesh.
    MeshMember,
}

impl Fact {
    pub const ALL: [Self; 13] = [
        Self::DomainName,
        Self::MutualTls,
        Self::Principal,
        Self::Request,
        Self::InitiatorPort,
        Self::NodeLabels,
        Self::ServiceAccountLabels,
        Self::ApiServer,
        Self::Service,
        Self::ClusterName,
        Self::InnerPort,
        Self::ServerName,
        Self::MeshMember,
    ];

    /// As files hold it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DomainName => "domain-name",
            Self::MutualTls => "mutual-tls",
            Self::Principal => "principal",
            Self::Request => "request",
            Self::InitiatorPort => "initiator-port",
            Self::NodeLabels => "node-labels",
            Self::ServiceAccountLabels => "service-account-labels",
            Self::ApiServer => "api-server",
            Self::Service => "service",
            Self::ClusterName => "cluster-name",
            Self::InnerPort => "inner-port",
            Self::ServerName => "server-name",
            Self::MeshMember => "mesh-member",
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DomainName => "the domain name of the address",
            Self::MutualTls => "whether the connection is mutual TLS",
            Self::Principal => "the initiator's principal",
            Self::Request => "the request inside the connection",
            Self::InitiatorPort => "the initiator's own port",
            Self::NodeLabels => "the node's labels",
            Self::ServiceAccountLabels => "the labels of the service account",
            Self::ApiServer => "where the API server listens",
            Self::Service => "what the Service selects",
            Self::ClusterName => "the name of the cluster",
            Self::InnerPort => "the port inside the mesh's tunnel",
            Self::ServerName => "the name that TLS asks for",
            Self::MeshMember => "whether the pod is in the mesh",
        })
    }
}

/// Why no policy judges a direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NotJudged {
    /// The end on this side is no pod.
    NotAPod,
    /// The pod on this side uses its node's network: policies never select it.
    HostNetwork,
    /// A pod that talks to itself.
    SelfTraffic,
    /// From the pod's own node, as kubelet's probes are.
    FromOwnNode,
    /// To the pod's own node, where the dialect does not judge it.
    ToOwnNode,
    /// Multicast, broadcast, neighbour discovery, MLD, DHCP.
    LinkLocalProtocol,
    /// ICMP, where the dialect does not judge it.
    Icmp,
}

impl fmt::Display for NotJudged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAPod => "this side is not a pod",
            Self::HostNetwork => "this pod uses its node's network, policies never select it",
            Self::SelfTraffic => "a pod talking to itself is not judged",
            Self::FromOwnNode => "traffic from the pod's own node is always allowed",
            Self::ToOwnNode => "traffic to the pod's own node is allowed in this dialect",
            Self::LinkLocalProtocol => "multicast, broadcast, neighbour discovery and DHCP are not judged",
            Self::Icmp => "ICMP is not judged in this dialect",
        })
    }
}

/// Why a verdict is `Unknown`: what we lacked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnknownReason {
    /// An address inside the cluster's ranges that belongs to no object we know.
    AddressUnjoined,
    /// The address changed its owner while the packets were counted, and the owners differ in verdict.
    AddressReused,
    /// The pod has no address, and whether an ipBlock holds it decides.
    AddressMissing,
    /// An object could not be read, and the verdict depends on it.
    ObjectInvalid { object: Arc<ObjectRef> },
    /// A policy could not be read in this place, and the verdict depends on it.
    PolicyInvalid { policy: Arc<ObjectRef>, field: Arc<str> },
    /// A policy says something in this place that is not judged, and the verdict depends on it.
    PolicyUnsupported { policy: Arc<ObjectRef>, field: Arc<str> },
    /// A policy asks in this place for what is not known, and the verdict depends on it.
    FactMissing { policy: Arc<ObjectRef>, field: Arc<str>, fact: Fact },
    /// Policies of equal priority that select the pod decide differently: the API leaves open which is first.
    EqualPriority { policies: Arc<[ObjectRef]> },
    /// The Service has no ready backend that we know.
    NoBackends,
    /// The Service's backends get different verdicts.
    BackendsDiffer { allowed: u32, denied: u32, unknown: u32 },
    /// The workload's pods get different verdicts.
    PodsDiffer { allowed: u32, denied: u32, unknown: u32 },
    /// NetworkPolicy leaves ICMP open, and the dialect does not say.
    IcmpUndefined,
    /// The pod's node is not known, and its own node would be treated otherwise than another one.
    NodeUnknown,
    /// The dialect does not say how this case is treated.
    DialectUndefined { switch: &'static str },
    /// The cluster's objects are not all read yet.
    NotSynced,
    /// Source NAT hid the initiator.
    Snat,
    /// Who opened the connection is not known.
    Unoriented,
    /// The end stands for a range of outside addresses, of which an address block holds only some.
    RangeDivided,
    /// The pod has more edges than its budget: what is beyond shares one, whose other end and port are not known.
    OverBudget(Budget),
}

impl UnknownReason {
    /// A short, stable name for metric labels and JSON.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::AddressUnjoined => "address-unjoined",
            Self::AddressReused => "address-reused",
            Self::AddressMissing => "address-missing",
            Self::ObjectInvalid { .. } => "object-invalid",
            Self::PolicyInvalid { .. } => "policy-invalid",
            Self::PolicyUnsupported { .. } => "policy-unsupported",
            Self::FactMissing { .. } => "fact-missing",
            Self::EqualPriority { .. } => "equal-priority",
            Self::NoBackends => "no-backends",
            Self::BackendsDiffer { .. } => "backends-differ",
            Self::PodsDiffer { .. } => "pods-differ",
            Self::IcmpUndefined => "icmp-undefined",
            Self::NodeUnknown => "node-unknown",
            Self::DialectUndefined { .. } => "dialect-undefined",
            Self::NotSynced => "not-synced",
            Self::Snat => "snat",
            Self::Unoriented => "unoriented",
            Self::RangeDivided => "range-divided",
            Self::OverBudget(_) => "over-budget",
        }
    }
}

impl fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressUnjoined => {
                f.write_str("the address is inside the cluster's ranges, but no object we know has it")
            }
            Self::AddressReused => f.write_str("the address changed its owner while packets were counted"),
            Self::AddressMissing => f.write_str("the pod has no address, and an ipBlock decides"),
            Self::ObjectInvalid { object } => write!(f, "{object} could not be read"),
            Self::PolicyInvalid { policy, field } => write!(f, "{policy} could not be read at {field}"),
            Self::PolicyUnsupported { policy, field } => {
                write!(f, "{policy} has {field}, which is not judged")
            }
            Self::FactMissing { policy, field, fact } => {
                write!(f, "{policy} asks at {field} for what is not known: {fact}")
            }
            Self::EqualPriority { policies } => {
                f.write_str("the order of policies of equal priority is open, and they decide differently:")?;
                policies.iter().try_for_each(|policy| write!(f, " {policy}"))
            }
            Self::NoBackends => f.write_str("the Service has no ready backend that is known"),
            Self::BackendsDiffer { allowed, denied, unknown } => write!(
                f,
                "the Service's backends differ: {allowed} allowed, {denied} denied, {unknown} unknown"
            ),
            Self::PodsDiffer { allowed, denied, unknown } => {
                write!(f, "the workload's pods differ: {allowed} allowed, {denied} denied, {unknown} unknown")
            }
            Self::IcmpUndefined => f.write_str("NetworkPolicy leaves ICMP of an isolated pod open"),
            Self::NodeUnknown => f.write_str(
                "the pod's node is not known, and traffic with its own node is treated differently",
            ),
            Self::DialectUndefined { switch } => write!(f, "the dialect does not say: {switch}"),
            Self::NotSynced => f.write_str("the cluster's objects are not all read yet"),
            Self::Snat => f.write_str("source NAT hid who opened the connection"),
            Self::Unoriented => f.write_str("who opened the connection is not known"),
            Self::RangeDivided => f.write_str(
                "outside addresses were counted together, and an address block holds only some of them",
            ),
            Self::OverBudget(budget) => {
                let what = match budget {
                    Budget::Opened => "what it opened",
                    Budget::Cluster => "what the cluster opened to it",
                    Budget::Outside => "what was opened to it from outside",
                };
                write!(f, "the pod's budget for {what} was spent: the rest is counted together")
            }
        }
    }
}

/// The rule that came closest to allowing what was denied, and what it lacked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NearestMiss {
    pub policy: Arc<ObjectRef>,
    /// The rule's index in the direction's list.
    pub rule: u32,
    /// What it is called, where its index does not say enough.
    pub rule_name: Option<Arc<str>>,
    /// The index in `from` or `to` that matched, or came closest; `None` if the rule has no peer list.
    pub peer: Option<u32>,
    pub lacks: Miss,
}

/// What a rule lacked to allow a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Miss {
    /// The peer matches, the port or protocol does not.
    Port { asked: u16, protocol: Protocol, allowed: Arc<str> },
    /// The port matches and the peer's namespace does, its labels do not.
    PodLabels { selector: Arc<str> },
    /// The port matches, the peer's namespace does not.
    NamespaceLabels { selector: Arc<str> },
    /// The port matches; the address is outside the block, or in its `except`.
    IpBlock { block: Arc<str> },
    /// The port matches, the peer is another one than the rule speaks of.
    Peer { wanted: Arc<str> },
    /// Neither the peer nor the port matches.
    PeerAndPort,
}

impl fmt::Display for NearestMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.policy)?;
        write_rule(f, Some(self.rule), self.rule_name.as_deref())?;
        match &self.lacks {
            Miss::Port { asked, protocol, allowed } => {
                write!(f, " would match but for the port: {asked}/{protocol} is not in [{allowed}]")
            }
            Miss::PodLabels { selector } => {
                write!(f, " would match but for the peer's labels: they are not {selector}")
            }
            Miss::NamespaceLabels { selector } => {
                write!(f, " would match but for the peer's namespace: it is not {selector}")
            }
            Miss::IpBlock { block } => write!(f, " would match but for the address: it is not in {block}"),
            Miss::Peer { wanted } => write!(f, " would match but for the peer: it is not {wanted}"),
            Miss::PeerAndPort => f.write_str(" matches neither the peer nor the port"),
        }
    }
}

/// Why a direction got its verdict.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Allow: no policy judges it.
    NotJudged(NotJudged),
    /// Allow: no policy isolates the pod in this direction.
    NotIsolated,
    /// Allow or deny: the rule named in the decision matched.
    Rule,
    /// Allow: the rule named in the decision matched, and looks into the connection at this field: requests that it
    /// does not let pass are answered with a refusal.
    RuleBelowL7 { field: Arc<str> },
    /// Deny: rules match the connection, but look into it, and none lets this request pass.
    NoRequestMatches,
    /// The tier's end: no rule of its policies matches.
    EndOfTier,
    /// Allow: the scenario assumes it (`dns`).
    Assumed(super::scenario::Assumption),
    /// Deny: policies isolate the pod, and no rule of theirs matches.
    NoRuleMatches { isolated_by: Arc<[ObjectRef]>, nearest: Option<Box<NearestMiss>> },
    /// Unknown.
    Unknown(UnknownReason),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJudged(why) => write!(f, "{why}"),
            Self::NotIsolated => f.write_str("no policy isolates the pod in this direction"),
            Self::Rule => f.write_str("the rule matches"),
            Self::RuleBelowL7 { field } => {
                write!(f, "the rule matches at L4; requests depend on L7 ({field})")
            }
            Self::NoRequestMatches => {
                f.write_str("the rule matches at L4, but no L7 rule lets the request pass")
            }
            Self::EndOfTier => f.write_str("no rule of the tier matches"),
            Self::Assumed(assumption) => write!(f, "assumed allowed: {assumption}"),
            Self::NoRuleMatches { isolated_by, nearest } => {
                f.write_str("isolated by ")?;
                for (at, policy) in isolated_by.iter().enumerate() {
                    let comma = if at == 0 { "" } else { ", " };
                    write!(f, "{comma}{policy}")?;
                }
                f.write_str("; no rule matches")?;
                match nearest {
                    Some(nearest) => write!(f, " (nearest: {nearest})"),
                    None => Ok(()),
                }
            }
            Self::Unknown(why) => write!(f, "{why}"),
        }
    }
}

/// One direction's answer, with what decided it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Decision {
    pub direction: Direction,
    pub verdict: Verdict,
    pub layer: Layer,
    /// The policy that decided: the one whose rule matched, or the first (by name) that isolates.
    pub policy: Option<Arc<ObjectRef>>,
    /// The deciding rule's index in the direction's list.
    pub rule: Option<u32>,
    /// What the rule is called, where its index does not say enough: its name, or the list that it is in.
    pub rule_name: Option<Arc<str>>,
    /// The deciding peer's index in that rule's `from` or `to`; `None` where the rule names no peer.
    pub peer: Option<u32>,
    pub reason: Reason,
    /// What each tier answered that was asked, in their order; empty where that was one at most.
    pub chain: Box<[Answer]>,
}

impl Decision {
    /// A decision that no tier made.
    pub fn without_tier(direction: Direction, verdict: Verdict, reason: Reason) -> Self {
        Self {
            direction,
            verdict,
            layer: Layer::None,
            policy: None,
            rule: None,
            rule_name: None,
            peer: None,
            reason,
            chain: Box::default(),
        }
    }
}

/// What a tier says about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TierOutcome {
    Allow,
    Deny,
    /// The next tier decides.
    Pass,
    Unknown,
}

impl TierOutcome {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::Deny => "Deny",
            Self::Pass => "Pass",
            Self::Unknown => "Unknown",
        }
    }
}

/// One tier's answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Answer {
    pub layer: Layer,
    /// The tier's own name, where tiers have names.
    pub tier: Option<Arc<str>>,
    pub outcome: TierOutcome,
    /// The policy and the rule that made the outcome, as in a [`Decision`].
    pub policy: Option<Arc<ObjectRef>>,
    pub rule: Option<u32>,
    pub rule_name: Option<Arc<str>>,
    pub reason: Reason,
    /// Whether the decision rests on this answer.
    pub decides: bool,
}

impl fmt::Display for Answer {
    /// `Admin: Pass by AdminNetworkPolicy/p rule 2`; with a `*` in front where it decides.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.decides {
            f.write_str("*")?;
        }
        write!(f, "{}", self.layer)?;
        if let Some(tier) = &self.tier {
            write!(f, " tier {tier}")?;
        }
        write!(f, ": {}", self.outcome.as_str())?;
        match (&self.reason, &self.policy) {
            (Reason::Rule | Reason::RuleBelowL7 { .. } | Reason::NoRequestMatches, Some(policy)) => {
                write!(f, " by {policy}")?;
                write_rule(f, self.rule, self.rule_name.as_deref())?;
                if self.reason == Reason::Rule { Ok(()) } else { write!(f, ": {}", self.reason) }
            }
            (reason, _) => write!(f, ", {reason}"),
        }
    }
}

/// ` rule 2 "allow-dns"`, ` rule ingressDeny[0]`, or nothing where no rule decided.
pub(crate) fn write_rule(f: &mut impl fmt::Write, rule: Option<u32>, name: Option<&str>) -> fmt::Result {
    match (rule, name) {
        (_, Some(name)) => write!(f, " rule {name}"),
        (Some(rule), None) => write!(f, " rule {rule}"),
        (None, None) => Ok(()),
    }
}

/// Both directions of one connection under one scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub egress: Arc<Decision>,
    pub ingress: Arc<Decision>,
}

impl Judgement {
    /// Allowed only where both directions allow.
    pub fn verdict(&self) -> Verdict {
        self.egress.verdict.and(self.ingress.verdict)
    }

    /// The answer of one direction.
    pub const fn of(&self, direction: Direction) -> &Arc<Decision> {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Allow, Deny, Unknown};

    #[test]
    fn one_denial_denies_and_only_two_allows_allow() {
        for (a, b, both) in [
            (Allow, Allow, Allow),
            (Allow, Unknown, Unknown),
            (Unknown, Deny, Deny),
            (Deny, Allow, Deny),
            (Unknown, Unknown, Unknown),
        ] {
            assert_eq!(a.and(b), both);
            assert_eq!(b.and(a), both);
        }
    }
}
