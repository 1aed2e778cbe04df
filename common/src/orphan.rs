//! Orphans: connections that match no edge, because they are older than the programs or their first packet looks
//! like an answer. They keep both ports until somebody can tell which end opened them.

use crate::address::Address;

/// Ports from here on are taken for clients' (Linux: `net.ipv4.ip_local_port_range` begins at 32768).
pub const EPHEMERAL_FROM: u16 = 32_768;

/// The pod's network namespace was asked for its sockets; without it, the other sockets' bits say nothing.
pub const ASKED: u16 = 1;
/// Somebody listens at the local port: TCP in state LISTEN, UDP bound and not connected.
pub const LISTENER: u16 = 2;
/// A socket of this very connection is there: TCP in any state but LISTEN, UDP connected to the remote end.
pub const OPEN: u16 = 4;
/// The first packet seen came from the pod.
pub const FIRST_FROM_POD: u16 = 8;

/// A connection at one interface, its ends told apart by which is the pod's.
///
/// Aligned for the verifier, as [`crate::edge::EdgeKey`] is.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OrphanKey {
    /// The address of the pod behind the interface.
    pub local: Address,
    pub remote: Address,
    pub interface: u32,
    /// Host byte order.
    pub local_port: u16,
    pub remote_port: u16,
    /// The IP protocol number.
    pub protocol: u8,
    pub padding: [u8; 7],
}

/// What was counted on an orphan. Cumulative. Times are nanoseconds of `CLOCK_MONOTONIC`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OrphanValue {
    pub packets_from_pod: u64,
    pub packets_to_pod: u64,
    /// L3 bytes, as they are on the wire once a GSO packet is cut.
    pub bytes_from_pod: u64,
    pub bytes_to_pod: u64,
    pub first_seen: u64,
    pub last_seen: u64,
    /// The VLAN id of the first packet; 0 is untagged.
    pub vlan: u16,
    /// [`ASKED`], [`LISTENER`], [`OPEN`], [`FIRST_FROM_POD`], as it was at the first packet.
    pub evidence: u16,
    pub padding: u32,
}

/// What the agent tells the programs of an interface.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrphanInterface {
    /// When it was first watched, in nanoseconds of `CLOCK_MONOTONIC`.
    pub since: u64,
    /// How many orphans it may have made so far: its budget, and those that the agent deleted since.
    pub allowance: u64,
    /// The id that the programs' namespace has for the pod's (`IFLA_LINK_NETNSID`); [`NO_NAMESPACE`] if unknown.
    pub namespace: i32,
    pub padding: u32,
}

/// The pod's namespace has no id here: nobody can be asked. (-1 would mean the programs' own.)
pub const NO_NAMESPACE: i32 = -2;

/// What holds for an interface of which the agent told nothing.
pub const UNTOLD: OrphanInterface =
    OrphanInterface { since: 0, allowance: 1024, namespace: NO_NAMESPACE, padding: 0 };

const _: () = {
    assert!(size_of::<OrphanKey>() == 48 && align_of::<OrphanKey>() == 8);
    assert!(core::mem::offset_of!(OrphanKey, remote) == 16);
    assert!(core::mem::offset_of!(OrphanKey, interface) == 32);
    assert!(core::mem::offset_of!(OrphanKey, local_port) == 36);
    assert!(core::mem::offset_of!(OrphanKey, protocol) == 40);
    assert!(size_of::<OrphanValue>() == 56 && align_of::<OrphanValue>() == 8);
    assert!(core::mem::offset_of!(OrphanValue, vlan) == 48);
    assert!(size_of::<OrphanInterface>() == 24 && align_of::<OrphanInterface>() == 8);
};
