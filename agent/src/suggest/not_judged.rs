//! What no NetworkPolicy judges, so that no rule is needed for it. The judge has the same cases
//! (`model::verdict::NotJudged`); the property tests hold both together.

use std::net::IpAddr;
use std::sync::Arc;

use crate::model::dialect::Dialect;
use crate::model::edge::{Direction, Protocol};
use crate::model::endpoint::{Endpoint, Party, Pod};

/// Multicast, broadcast, the unspecified address, neighbour discovery and MLD (ICMPv6 types 130 to 137, 143
/// and 151 to 153 by IANA's list), DHCP (ports 67 and 68, 546 and 547).
pub(super) fn is_link_local_protocol(ends: [&Party; 2], port: u16, protocol: Protocol) -> bool {
    let special = |address: IpAddr| match address.to_canonical() {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast() || address.is_unspecified(),
        IpAddr::V6(address) => address.is_multicast() || address.is_unspecified(),
    };
    let by_port = match protocol {
        Protocol::Icmpv6 => matches!(port >> 8, 130..=137 | 143 | 151..=153),
        Protocol::Udp => matches!(port, 67 | 68 | 546 | 547),
        Protocol::Tcp | Protocol::Sctp | Protocol::Icmp => false,
    };
    by_port || ends.into_iter().filter_map(|end| end.address).any(special)
}

/// A pod that talks to itself. Two replicas that one template stands for are different pods.
pub(super) fn is_self_traffic(a: &Party, b: &Party) -> bool {
    let (Some(a), Some(b)) = (a.as_pod(), b.as_pod()) else { return false };
    let same = a.namespace == b.namespace && a.name == b.name && a.uid == b.uid;
    same && !a.from_template && !b.from_template
}

/// Whether the peer is the subject's own node, and the dialect lets them talk whatever policies say.
pub(super) fn is_allowed_own_node(
    subject: &Pod,
    peer: &Party,
    direction: Direction,
    dialect: &Dialect,
) -> bool {
    let judged = match direction {
        Direction::Egress => dialect.pod_to_own_node_judged,
        Direction::Ingress => dialect.own_node_to_pod_judged,
    };
    let own = match (&subject.node, node_of(peer)) {
        (Some(own), Some(node)) => own == node,
        _ => false,
    };
    own && judged == Some(false)
}

/// The node that an endpoint is, as policies see it: hostNetwork pods are their node.
fn node_of(party: &Party) -> Option<&Arc<str>> {
    match &party.endpoint {
        Endpoint::Node(name) => Some(name),
        Endpoint::Pod(pod) if pod.host_network => pod.node.as_ref(),
        _ => None,
    }
}

/// The party's address on the wire; else the first of the pod's addresses of a family that the other end has.
pub(super) fn address(party: &Party, other: &Party) -> Option<IpAddr> {
    let of_pod = |party: &Party| party.as_pod().map(|pod| Arc::clone(&pod.addresses));
    let found = party.address.or_else(|| {
        let own = of_pod(party)?;
        let others = match other.address {
            Some(address) => Arc::from([address]),
            None => of_pod(other).unwrap_or_default(),
        };
        let shared = own.iter().find(|a| others.iter().any(|b| a.is_ipv4() == b.is_ipv4()));
        shared.or_else(|| own.first()).copied()
    });
    found.map(|address| address.to_canonical())
}
