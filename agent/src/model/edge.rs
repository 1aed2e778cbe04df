//! Edges: who opened connections to whom, as a policy can tell them apart.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::cause::Cause;
use super::endpoint::{Connection, Party};
use super::time::Timestamp;

/// A transport protocol that policies know, and ICMP, which most of them do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(rename = "UDP")]
    Udp,
    #[serde(rename = "SCTP")]
    Sctp,
    #[serde(rename = "ICMP")]
    Icmp,
    #[serde(rename = "ICMPv6")]
    Icmpv6,
}

impl Protocol {
    /// From an IP protocol number (IANA), if it is one that we judge.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Icmp),
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            58 => Some(Self::Icmpv6),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }

    /// The IP protocol number (IANA).
    pub const fn number(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmpv6 => 58,
            Self::Sctp => 132,
        }
    }

    /// Whether the protocol has ports that a NetworkPolicy can name.
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp | Self::Sctp)
    }

    /// As the Kubernetes API spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Icmp => "ICMP",
            Self::Icmpv6 => "ICMPv6",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A protocol name that is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is none of TCP, UDP, SCTP, ICMP, ICMPv6")]
pub struct UnknownProtocol(pub String);

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    /// Accepts the API's spelling in any case, as people type it.
    fn from_str(name: &str) -> Result<Self, UnknownProtocol> {
        [Self::Tcp, Self::Udp, Self::Sctp, Self::Icmp, Self::Icmpv6]
            .into_iter()
            .find(|protocol| protocol.as_str().eq_ignore_ascii_case(name))
            .ok_or_else(|| UnknownProtocol(name.to_owned()))
    }
}

/// Where a connection is judged: `Egress` at the initiator's pod, `Ingress` at the responder's pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Direction {
    Egress,
    Ingress,
}

impl Direction {
    /// Both, egress first.
    pub const BOTH: [Self; 2] = [Self::Egress, Self::Ingress];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Egress => "Egress",
            Self::Ingress => "Ingress",
        }
    }

    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::Egress => Self::Ingress,
            Self::Ingress => Self::Egress,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The number of a network interface in the host's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct IfIndex(pub u32);

/// How we know who opened the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrientedBy {
    /// A SYN, SYN-ACK, or ICMP request was seen.
    Handshake,
    /// UDP: the sender of the first packet.
    FirstPacket,
    /// The sockets of the pods' network namespaces: somebody listens at the responder's port, or the initiator has
    /// the connection open on a client's port that nobody listens on.
    Listener,
    /// The port is a Service's or a container's.
    Service,
    /// Nothing tells: the ends may be the other way round, and every verdict is `Unknown`.
    Unknown,
}

impl OrientedBy {
    /// As in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::FirstPacket => "first-packet",
            Self::Listener => "listener",
            Self::Service => "service",
            Self::Unknown => "unknown",
        }
    }
}

/// What the end of an edge that is not the pod behind the interface stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// One address.
    Address,
    /// All addresses that share a prefix of this length with it; the bits behind are 0.
    Range(u8),
    /// All that a pod's budget had no room for: neither end has an address, and the port is 0.
    OverBudget(Budget),
}

/// How many edges a pod may have: what a budget is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Budget {
    /// What the pod opens.
    Opened,
    /// What the cluster opens to it.
    Cluster,
    /// What is opened to it from outside.
    Outside,
}

impl Budget {
    pub const ALL: [Self; 3] = [Self::Opened, Self::Cluster, Self::Outside];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Cluster => "cluster",
            Self::Outside => "outside",
        }
    }
}

/// An edge as the kernel keys it: what a policy can tell apart, at one interface. Client ports are not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeKey {
    /// The host side of the pod's interface at which the edge was seen.
    pub interface: IfIndex,
    /// Whether the pod behind that interface is the initiator (`Egress`) or the responder (`Ingress`).
    pub direction: Direction,
    pub initiator: IpAddr,
    pub responder: IpAddr,
    /// The responder's port; for ICMP, type × 256 + code.
    pub port: u16,
    pub protocol: Protocol,
    pub scope: Scope,
}

impl EdgeKey {
    /// The address of the pod behind the interface.
    pub const fn local(&self) -> IpAddr {
        match self.direction {
            Direction::Egress => self.initiator,
            Direction::Ingress => self.responder,
        }
    }
}

/// What was counted on an edge. Cumulative in the kernel; a delta in an [`Observation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Connections that the initiator tried to open (TCP: SYNs less the retransmits we could tell).
    pub attempts: u64,
    /// Connections that the responder accepted (TCP: SYN-ACKs or other proof; UDP, ICMP: answers).
    pub accepted: u64,
    /// Connections that were refused (TCP RST, ICMP unreachable).
    pub refused: u64,
    /// Packets from the initiator, `max(1, gso_segs)` each.
    pub packets_to_responder: u64,
    /// Packets from the responder.
    pub packets_to_initiator: u64,
    /// L3 bytes from the initiator.
    pub bytes_to_responder: u64,
    /// L3 bytes from the responder.
    pub bytes_to_initiator: u64,
    /// ICMP errors that quoted one of its packets.
    #[serde(default, skip_serializing_if = "IcmpErrors::is_zero")]
    pub icmp_errors: IcmpErrors,
}

/// ICMP errors that quoted a packet of an edge, by what they say. Nobody judges them: they say why an edge that is
/// allowed may not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct IcmpErrors {
    /// The packet was too big for the way on, and must not be cut.
    pub too_big: u64,
    /// It was forwarded too often, or its fragments did not come in time.
    pub time_exceeded: u64,
    /// Unreachable (also where that refuses a connection), redirect, parameter problem, source quench.
    pub other: u64,
}

impl IcmpErrors {
    /// Whether there was none.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Each kind by its name, and how many.
    pub const fn kinds(&self) -> [(&'static str, u64); 3] {
        [("too-big", self.too_big), ("time-exceeded", self.time_exceeded), ("other", self.other)]
    }

    /// The sum, stopping at the largest number.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    fn each(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            too_big: with(self.too_big, other.too_big),
            time_exceeded: with(self.time_exceeded, other.time_exceeded),
            other: with(self.other, other.other),
        }
    }
}

impl Counters {
    fn each(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            attempts: with(self.attempts, other.attempts),
            accepted: with(self.accepted, other.accepted),
            refused: with(self.refused, other.refused),
            packets_to_responder: with(self.packets_to_responder, other.packets_to_responder),
            packets_to_initiator: with(self.packets_to_initiator, other.packets_to_initiator),
            bytes_to_responder: with(self.bytes_to_responder, other.bytes_to_responder),
            bytes_to_initiator: with(self.bytes_to_initiator, other.bytes_to_initiator),
            icmp_errors: self.icmp_errors.each(other.icmp_errors, with),
        }
    }

    /// The sum, stopping at the largest number.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    /// What came since `earlier`: the difference of two cumulative readings.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        self.each(earlier, u64::saturating_sub)
    }

    /// Whether nothing was counted.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Packets in both directions.
    pub const fn packets(&self) -> u64 {
        self.packets_to_responder.saturating_add(self.packets_to_initiator)
    }

    /// L3 bytes in both directions.
    pub const fn bytes(&self) -> u64 {
        self.bytes_to_responder.saturating_add(self.bytes_to_initiator)
    }
}

/// What capture hands to audit: what an edge counted in one interval between two readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    pub key: EdgeKey,
    pub delta: Counters,
    /// The first packet ever seen on the edge.
    pub first_seen: Timestamp,
    /// The last packet seen in this interval.
    pub last_seen: Timestamp,
    /// When the previous reading ended: the delta lies after it and not after `read_at`.
    pub read_from: Timestamp,
    pub read_at: Timestamp,
    pub oriented_by: OrientedBy,
    /// Whether packets of both directions have ever been seen at the interface. If not, an edge without an
    /// answer says nothing about whether it was accepted.
    pub fully_visible: bool,
    /// The VLAN id seen; 0 is untagged.
    pub vlan: u16,
    /// Packets and bytes are estimates: not every one was counted.
    pub estimated: bool,
}

/// One edge with its ends as they were at the time. A live edge and a recorded edge are this one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    pub initiator: Party,
    pub responder: Party,
    /// The responder's port; for ICMP, type × 256 + code.
    pub port: u16,
    pub protocol: Protocol,
    /// At whose pod it was seen.
    pub direction: Direction,
    pub cause: Cause,
    pub counters: Counters,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    pub oriented_by: OrientedBy,
    /// Whether packets of both directions were seen at the interface.
    pub fully_visible: bool,
    /// The VLAN id seen; 0 is untagged.
    pub vlan: u16,
    /// Packets and bytes are estimates: not every one was counted.
    pub estimated: bool,
}

impl Edge {
    /// The question that a judge answers.
    pub const fn connection(&self) -> Connection<'_> {
        Connection {
            initiator: &self.initiator,
            responder: &self.responder,
            port: self.port,
            protocol: self.protocol,
        }
    }

    /// The end whose pod saw it: the subject of its direction.
    pub const fn subject(&self) -> &Party {
        match self.direction {
            Direction::Egress => &self.initiator,
            Direction::Ingress => &self.responder,
        }
    }

    /// The other end.
    pub const fn peer(&self) -> &Party {
        match self.direction {
            Direction::Egress => &self.responder,
            Direction::Ingress => &self.initiator,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_spelled_as_the_api_does_and_read_in_any_case() {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp, Protocol::Icmpv6] {
            assert_eq!(protocol.as_str().to_lowercase().parse::<Protocol>(), Ok(protocol));
            assert_eq!(serde_json::to_value(protocol).unwrap(), protocol.as_str());
        }
        assert_eq!("QUIC".parse::<Protocol>(), Err(UnknownProtocol("QUIC".to_owned())));
    }

    #[test]
    fn how_a_direction_is_known_is_spelled_as_in_json() {
        use OrientedBy::{FirstPacket, Handshake, Listener, Service, Unknown};
        for by in [Handshake, FirstPacket, Listener, Service, Unknown] {
            assert_eq!(serde_json::to_value(by).unwrap(), by.as_str());
        }
    }

    #[test]
    fn counters_neither_wrap_nor_go_below_zero() {
        let some = Counters { attempts: 3, ..Counters::default() };
        let more = Counters { attempts: u64::MAX, ..Counters::default() };
        assert_eq!(some.plus(more).attempts, u64::MAX);
        assert!(some.since(more).is_zero());
        assert_eq!(more.since(some).attempts, u64::MAX - 3);
    }
}
