//! Connections of which nobody saw the opening: both ends are known, who opened them is not.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::edge::{
    Counters, Direction, EdgeKey, IcmpErrors, IfIndex, Observation, OrientedBy, Protocol, Scope,
};
use super::time::Timestamp;

/// One connection at one interface, its ends told apart by which is the pod's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnorientedKey {
    pub interface: IfIndex,
    /// The end of the pod behind the interface.
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub protocol: Protocol,
}

/// What was counted in one interval on a connection that is older than the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unoriented {
    pub key: UnorientedKey,
    /// The range that stands for the remote end in edges, if one does.
    pub range: Option<IpNet>,
    /// 1 the first time that the connection is told, then 0.
    pub connections: u64,
    pub packets_from_pod: u64,
    pub packets_to_pod: u64,
    /// L3 bytes.
    pub bytes_from_pod: u64,
    pub bytes_to_pod: u64,
    /// The first packet ever seen of it.
    pub first_seen: Timestamp,
    /// The last packet seen in this interval.
    pub last_seen: Timestamp,
    /// As in [`Observation`].
    pub read_from: Timestamp,
    pub read_at: Timestamp,
    pub fully_visible: bool,
    pub vlan: u16,
    pub estimated: bool,
}

impl Unoriented {
    /// As an observation of an edge: the pod opened the connection (`Egress`) or the other end did (`Ingress`).
    ///
    /// A connection that is open was accepted, and is one attempt, however many packets it had. UDP shows
    /// acceptance only by packets of its responder.
    pub fn oriented(&self, direction: Direction, oriented_by: OrientedBy) -> Observation {
        let UnorientedKey { interface, local, remote, protocol } = self.key;
        let far = self.range.map_or(remote.ip(), |range| range.network());
        let (initiator, responder, port) = match direction {
            Direction::Egress => (local.ip(), far, remote.port()),
            Direction::Ingress => (far, local.ip(), local.port()),
        };
        let from_pod = (self.packets_from_pod, self.bytes_from_pod);
        let to_pod = (self.packets_to_pod, self.bytes_to_pod);
        let ((packets_to_responder, bytes_to_responder), (packets_to_initiator, bytes_to_initiator)) =
            match direction {
                Direction::Egress => (from_pod, to_pod),
                Direction::Ingress => (to_pod, from_pod),
            };
        let answered = protocol != Protocol::Udp || packets_to_initiator > 0;
        Observation {
            key: EdgeKey {
                interface,
                direction,
                initiator,
                responder,
                port,
                protocol,
                scope: self.range.map_or(Scope::Address, |range| Scope::Range(range.prefix_len())),
            },
            delta: Counters {
                attempts: self.connections,
                accepted: if answered { self.connections } else { 0 },
                refused: 0,
                packets_to_responder,
                packets_to_initiator,
                bytes_to_responder,
                bytes_to_initiator,
                icmp_errors: IcmpErrors::default(),
            },
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            read_from: self.read_from,
            read_at: self.read_at,
            oriented_by,
            fully_visible: self.fully_visible,
            vlan: self.vlan,
            estimated: self.estimated,
        }
    }

    /// Adds what a later interval counted.
    pub fn absorb(&mut self, later: &Self) {
        self.connections = self.connections.saturating_add(later.connections);
        self.packets_from_pod = self.packets_from_pod.saturating_add(later.packets_from_pod);
        self.packets_to_pod = self.packets_to_pod.saturating_add(later.packets_to_pod);
        self.bytes_from_pod = self.bytes_from_pod.saturating_add(later.bytes_from_pod);
        self.bytes_to_pod = self.bytes_to_pod.saturating_add(later.bytes_to_pod);
        self.last_seen = self.last_seen.max(later.last_seen);
        self.read_at = later.read_at;
        self.fully_visible |= later.fully_visible;
        self.estimated |= later.estimated;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_unoriented(protocol: Protocol, packets_to_pod: u64) -> Unoriented {
        let at = Timestamp::from_nanos;
        Unoriented {
            key: UnorientedKey {
                interface: IfIndex(7),
                local: "192.0.2.10:40000".parse().unwrap(),
                remote: "[2001:db8::20]:443".parse().unwrap(),
                protocol,
            },
            range: None,
            connections: 1,
            packets_from_pod: 3,
            packets_to_pod,
            bytes_from_pod: 300,
            bytes_to_pod: 200 * packets_to_pod,
            first_seen: at(1),
            last_seen: at(2),
            read_from: at(0),
            read_at: at(3),
            fully_visible: true,
            vlan: 5,
            estimated: false,
        }
    }

    #[test]
    fn an_open_connection_is_one_accepted_attempt_in_either_direction() {
        let seen = mk_unoriented(Protocol::Tcp, 0);
        let out = seen.oriented(Direction::Egress, OrientedBy::Service);
        assert_eq!((out.key.initiator, out.key.port), (seen.key.local.ip(), 443));
        assert_eq!((out.delta.attempts, out.delta.accepted), (1, 1));
        assert_eq!((out.delta.packets_to_responder, out.delta.bytes_to_responder), (3, 300));
        let to = seen.oriented(Direction::Ingress, OrientedBy::Listener);
        assert_eq!((to.key.initiator, to.key.port), (seen.key.remote.ip(), 40000));
        assert_eq!((to.delta.packets_to_initiator, to.delta.bytes_to_initiator), (3, 300));
        assert_eq!(to.oriented_by, OrientedBy::Listener);
    }

    #[test]
    fn a_range_stands_for_the_remote_end_whoever_opened() {
        let range = Some("2001:db8::/64".parse().unwrap());
        let seen = Unoriented { range, ..mk_unoriented(Protocol::Tcp, 1) };
        let out = seen.oriented(Direction::Egress, OrientedBy::Service).key;
        assert_eq!((out.responder, out.scope), ("2001:db8::".parse().unwrap(), Scope::Range(64)));
        let to = seen.oriented(Direction::Ingress, OrientedBy::Service).key;
        assert_eq!((to.initiator, to.responder), (out.responder, seen.key.local.ip()));
    }

    #[test]
    fn datagrams_are_accepted_only_where_the_responder_was_heard() {
        let silent = mk_unoriented(Protocol::Udp, 0).oriented(Direction::Egress, OrientedBy::Listener);
        assert_eq!((silent.delta.attempts, silent.delta.accepted), (1, 0));
        let heard = mk_unoriented(Protocol::Udp, 2).oriented(Direction::Egress, OrientedBy::Listener);
        assert_eq!((heard.delta.attempts, heard.delta.accepted), (1, 1));
    }
}
