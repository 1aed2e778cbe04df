//! What is remembered of a datagram's first fragment, so that the later ones, which have no ports, count for its edge.

use crate::address::Address;

/// A datagram that came in fragments, one way through one interface.
///
/// RFC 791 and RFC 8200 name a datagram by its addresses, its identification and (IPv4) its protocol. An IPv6 fragment
/// header's own "next header" may differ between fragments, so the protocol is 0 there.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    pub source: Address,
    pub destination: Address,
    pub identification: u32,
    pub interface: u32,
    pub protocol: u8,
    pub padding: [u8; 7],
}

/// The edge that the first fragment was counted on.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentValue {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub at: u64,
    /// The responder's port.
    pub port: u16,
    /// The edge's protocol.
    pub protocol: u8,
    /// 1: the datagram's sender is the edge's initiator.
    pub initiated: u8,
    pub padding: u32,
}

/// For how long fragments of one datagram are put together, in nanoseconds. Linux: `net.ipv4.ipfrag_time`, 30 s.
/// After that, the same identification is another datagram's.
pub const REASSEMBLY: u64 = 30_000_000_000;

const _: () = {
    assert!(size_of::<FragmentKey>() == 48 && align_of::<FragmentKey>() == 8);
    assert!(core::mem::offset_of!(FragmentKey, identification) == 32);
    assert!(core::mem::offset_of!(FragmentKey, protocol) == 40);
    assert!(size_of::<FragmentValue>() == 16 && align_of::<FragmentValue>() == 8);
};
