//! Edges as the kernel side keys and counts them.

use crate::address::Address;

/// The pod behind the interface is the initiator; else it is the responder.
pub const LOCAL_INITIATED: u8 = 1;

/// The edge was made by a SYN, SYN-ACK, RST or their like in SCTP, or by an ICMP request.
pub const BY_HANDSHAKE: u16 = 1;
/// The edge was made by the first datagram.
pub const BY_FIRST_PACKET: u16 = 2;

/// What a policy can tell apart, at one interface. Client ports are not in it.
///
/// Aligned for the verifier, which refuses misaligned words on the stack.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EdgeKey {
    pub initiator: Address,
    pub responder: Address,
    /// The interface's index in the namespace that the programs were attached in.
    pub interface: u32,
    /// The responder's port in host byte order; for ICMP, type × 256 + code of the request.
    pub port: u16,
    /// The IP protocol number.
    pub protocol: u8,
    /// [`LOCAL_INITIATED`]; other bits are 0.
    pub flags: u8,
}

const _: () = {
    assert!(size_of::<EdgeKey>() == 40 && align_of::<EdgeKey>() == 8);
    assert!(core::mem::offset_of!(EdgeKey, responder) == 16);
    assert!(core::mem::offset_of!(EdgeKey, interface) == 32);
    assert!(core::mem::offset_of!(EdgeKey, port) == 36);
    assert!(core::mem::offset_of!(EdgeKey, protocol) == 38);
    assert!(core::mem::offset_of!(EdgeKey, flags) == 39);
};

/// What was counted on an edge. Cumulative: reading never resets it. Times are nanoseconds of the
/// programs' clock: see [`Settings::tick_nanos`](crate::settings::Settings::tick_nanos).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EdgeValue {
    /// Connections that the initiator tried to open: SYNs less the retransmits we could tell; datagrams after
    /// silence.
    pub attempts: u64,
    /// Connections that the responder accepted.
    pub accepted: u64,
    /// Connections that were refused.
    pub refused: u64,
    pub packets_to_responder: u64,
    pub packets_to_initiator: u64,
    /// L3 bytes, as they are on the wire once a GSO packet is cut.
    pub bytes_to_responder: u64,
    pub bytes_to_initiator: u64,
    pub first_seen: u64,
    /// The last packet from the initiator; 0 if there was none.
    pub last_to_responder: u64,
    /// The last packet from the responder; 0 if there was none.
    pub last_to_initiator: u64,
    /// Which attempt was the last: [`attempt`] for TCP and SCTP, the time of it for datagrams. A retransmit
    /// carries the same and is not counted again: exact for one client at a time, an upper bound otherwise.
    pub opened: u64,
    /// Which attempt was last accepted or refused, in the same terms, so that each counts once.
    pub answered: u64,
    /// The VLAN id of the packet that made the edge; 0 is untagged.
    pub vlan: u16,
    /// [`BY_HANDSHAKE`] or [`BY_FIRST_PACKET`].
    pub oriented_by: u16,
    pub padding: u32,
}

const _: () = {
    assert!(size_of::<EdgeValue>() == 104 && align_of::<EdgeValue>() == 8);
    assert!(core::mem::offset_of!(EdgeValue, first_seen) == 56);
    assert!(core::mem::offset_of!(EdgeValue, opened) == 80);
    assert!(core::mem::offset_of!(EdgeValue, vlan) == 96);
};

/// Names one attempt of a client: its port, and the number that its opening packet and every answer to it share
/// (TCP: the initial sequence number; SCTP: the initiate tag).
#[inline(always)]
pub const fn attempt(client_port: u16, number: u32) -> u64 {
    (client_port as u64) << 32 | number as u64 | 1 << 63
}

/// A hint that an edge is new. The map is the truth; a lost event only delays it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewEdge {
    pub key: EdgeKey,
    /// Nanoseconds of the programs' clock.
    pub at: u64,
}

const _: () = assert!(size_of::<NewEdge>() == 48 && align_of::<NewEdge>() == 8);
