//! ICMP errors quote the packet that they refuse: its IP header and at least 8 bytes more (RFC 792, RFC 4443).

use super::network::{Datagram, ipv4, ipv6};
use super::{Bytes, Fragment, ICMP, ICMPV6, Packet, SCTP, Step, TCP, UDP, be16};
use crate::counter::Counter;

/// Length of the ICMP header before the quoted packet.
const ICMP_HEADER: usize = 8;

/// Reads everything through the slow way: errors are rare, and the fast way twice would double the program.
struct Rare<'a, B: ?Sized>(&'a B);

impl<B: Bytes + ?Sized> Bytes for Rare<'_, B> {
    #[inline(always)]
    fn length(&self) -> usize {
        self.0.length()
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.read_rare(offset)
    }

    #[inline(always)]
    fn forget(&self, number: u64) -> Option<u64> {
        self.0.forget(number)
    }
}

/// The packet that the error in `outer` quotes.
#[inline(always)]
pub(super) fn packet<B: Bytes + ?Sized>(bytes: &B, outer: &Datagram, vlan: u16) -> Result<Packet, Counter> {
    let bytes = &Rare(bytes);
    let at = outer.payload + ICMP_HEADER;
    let inner = if outer.protocol == ICMP { ipv4(bytes, at)? } else { ipv6(bytes, at)? };
    // An error goes to the sender of what it quotes; any other speaks of a connection of somebody else.
    if inner.source != outer.destination || inner.fragment.is_later() {
        return Err(Counter::OtherIcmp);
    }
    let head: [u8; 8] = bytes.read(inner.payload).ok_or(Counter::Truncated)?;
    let (source_port, destination_port) = match inner.protocol {
        TCP | UDP | SCTP => (be16(head[0], head[1]), be16(head[2], head[3])),
        ICMP | ICMPV6 => (be16(head[0], head[1]), be16(head[0], head[1])),
        _ => return Err(Counter::OtherIcmp),
    };
    let word = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    let number = match inner.protocol {
        TCP => word,
        // An INIT has no verification tag yet (RFC 9260, 8.5.1); its initiate tag lies behind the quoted 8 bytes.
        SCTP if word == 0 => bytes.read(inner.payload + 16).map_or(0, u32::from_be_bytes),
        _ => 0,
    };
    Ok(Packet {
        source: inner.source,
        destination: inner.destination,
        source_port,
        destination_port,
        protocol: inner.protocol,
        step: Step::Unreachable,
        vlan,
        number,
        length: outer.length,
        headers: 0,
        fragment: Fragment::WHOLE,
    })
}
