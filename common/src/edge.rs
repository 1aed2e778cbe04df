//! Edges as the kernel side keys and counts them.

use crate::address::Address;

/// The pod behind the interface is the initiator; else it is the responder.
pub const LOCAL_INITIATED: u8 = 1;

/// Set in [`EdgeKey::flags`] where the other end stands for a range of addresses: by how many bits its prefix is
/// shorter than an address, shifted by this.
pub const FOLDED_SHIFT: u8 = 1;

/// What [`EdgeKey::flags`] hold, beside [`LOCAL_INITIATED`], in the overflow edge of an interface and [`Kind`]:
/// both addresses are zero there, and the port is the kind's number.
pub const OVERFLOW: u8 = 0x7f << FOLDED_SHIFT;

/// The edge was made by a SYN, SYN-ACK, RST or their like in SCTP, or by an ICMP request.
pub const BY_HANDSHAKE: u16 = 1;
/// The edge was made by the first datagram.
pub const BY_FIRST_PACKET: u16 = 2;
/// The agent made the edge: sockets told who opened a connection that is older than it.
pub const BY_LISTENER: u16 = 3;
/// The agent made the edge: ports of Services and containers told.
pub const BY_SERVICE: u16 = 4;

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
    /// [`LOCAL_INITIATED`], and in the other bits how the other end is folded: 0 is one address, see
    /// [`FOLDED_SHIFT`] and [`OVERFLOW`].
    pub flags: u8,
}

impl EdgeKey {
    /// By how many bits the other end's prefix is shorter than an address; 0 is one address.
    #[inline(always)]
    pub const fn folded_bits(&self) -> u8 {
        self.flags >> FOLDED_SHIFT
    }

    /// Whether the edge stands for all that an interface's budget had no room for.
    #[inline(always)]
    pub const fn is_overflow(&self) -> bool {
        self.flags & OVERFLOW == OVERFLOW
    }
}

/// What an edge is charged to. Each interface has a budget of edges for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// What the pod opens.
    Opened = 0,
    /// What the cluster opens to it.
    Cluster = 1,
    /// What is opened to it from outside.
    Outside = 2,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Opened, Self::Cluster, Self::Outside];

    /// From [`EdgeValue::kind`] or an overflow edge's port.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u16 == number)
    }
}

/// Whose budget: the key of the maps that bound the number of edges.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Account {
    pub interface: u32,
    /// A [`Kind`]'s number.
    pub kind: u32,
}

const _: () = assert!(size_of::<Account>() == 8);

/// How the addresses of a range are keyed: the value of the longest-prefix map that the agent writes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The length of the prefix that stands for an address of the range, of 128 bits (IPv4 is mapped); 128 keeps
    /// the address.
    pub length: u8,
    /// 1: outside the cluster.
    pub outside: u8,
    pub padding: u16,
}

const _: () = assert!(size_of::<Range>() == 4);

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
    /// ICMP errors that quote one of its packets, by [`Quoting`]; also those that refuse it.
    pub errors: [u64; 3],
    /// The VLAN id of the packet that made the edge; 0 is untagged.
    pub vlan: u16,
    /// [`BY_HANDSHAKE`], [`BY_FIRST_PACKET`], [`BY_LISTENER`] or [`BY_SERVICE`].
    pub oriented_by: u16,
    /// The [`Kind`] that the edge is charged to.
    pub kind: u8,
    pub padding: [u8; 3],
}

/// What an ICMP error says of the packet that it quotes: its place in [`EdgeValue::errors`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Quoting {
    /// Too big for the way on: the path's MTU is smaller.
    TooBig = 0,
    /// It was forwarded too often, or its fragments did not come in time.
    TimeExceeded = 1,
    /// Unreachable, redirect, parameter problem, source quench.
    Other = 2,
}

impl Quoting {
    /// By the error's type × 256 + code, and whether it is of ICMP for IPv4 (RFC 792) or IPv6 (RFC 4443).
    #[inline(always)]
    pub const fn of(error: u16, is_ipv4: bool) -> Self {
        match (is_ipv4, error >> 8, error & 0xff) {
            (true, 3, 4) | (false, 2, _) => Self::TooBig,
            (true, 11, _) | (false, 3, _) => Self::TimeExceeded,
            _ => Self::Other,
        }
    }
}

const _: () = {
    assert!(size_of::<EdgeValue>() == 128 && align_of::<EdgeValue>() == 8);
    assert!(core::mem::offset_of!(EdgeValue, first_seen) == 56);
    assert!(core::mem::offset_of!(EdgeValue, opened) == 80);
    assert!(core::mem::offset_of!(EdgeValue, errors) == 96);
};

/// Names one attempt of a client: its port, and the number that its opening packet and every answer to it share
/// (TCP: the initial sequence number; SCTP: the initiate tag).
#[inline(always)]
pub const fn attempt(client_port: u16, number: u32) -> u64 {
    (client_port as u64) << 32 | number as u64 | 1 << 63
}

/// The same where clients or targets at several addresses share an edge: the addresses and ports that tell them
/// apart are mixed in, so that a scan from one client port with one sequence number is not one attempt.
#[inline(always)]
pub const fn attempt_among(attempt: u64, remote: &Address, port: u16) -> u64 {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *remote;
    let high = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
    let low = u64::from_ne_bytes([i, j, k, l, m, n, o, p]);
    // Fibonacci hashing: the multiplier is 2^64 divided by the golden ratio.
    let mixed = (high.rotate_left(29) ^ low ^ (port as u64) << 17).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    attempt ^ mixed | 1 << 63
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
