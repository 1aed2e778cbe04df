//! ICMP errors quote the packet that they speak of: its IP header and at least 8 bytes more (RFC 792, RFC 4443).

use super::network::{ipv4, ipv6};
use super::{Bytes, Fragment, ICMP, ICMPV6, Packet, SCTP, TCP, UDP, be16};
use crate::address::from_words;
use crate::counter::Counter;

/// Length of the ICMP header before the quoted packet.
pub(super) const ICMP_HEADER: usize = 8;

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
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        self.0.words_rare(offset)
    }

    #[inline(always)]
    fn head<const N: usize>(&self) -> Option<&[u8; N]> {
        self.0.head()
    }

    #[inline(always)]
    fn forget(&self, number: u64) -> Option<u64> {
        self.0.forget(number)
    }
}

/// The packet that an ICMP error quotes, of which [`super::read`] said the rest.
///
/// # Errors
///
/// The counter that the error belongs to where its quoted packet is broken or names no edge.
#[inline(always)]
pub fn quoted<B: Bytes + ?Sized>(bytes: &B, error: &Packet) -> Result<Packet, Counter> {
    let bytes = &Rare(bytes);
    // The mask tells the verifier how far it can be.
    let at = error.number as usize & 0xffff;
    let inner = if error.protocol == ICMP { ipv4(bytes, at)? } else { ipv6(bytes, at)? };
    // An error goes to the sender of what it quotes; any other speaks of a connection of somebody else.
    let source = from_words(inner.source);
    if source != error.destination || inner.fragment.is_later() {
        return Err(Counter::ErrorOfNoEdge);
    }
    let head: [u8; 8] = bytes.read(inner.payload).ok_or(Counter::Truncated)?;
    let (source_port, destination_port) = match inner.protocol {
        TCP | UDP | SCTP => (be16(head[0], head[1]), be16(head[2], head[3])),
        ICMP | ICMPV6 => (be16(head[0], head[1]), be16(head[0], head[1])),
        _ => return Err(Counter::ErrorOfNoEdge),
    };
    let word = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    let number = match inner.protocol {
        TCP => word,
        // An INIT has no verification tag yet (RFC 9260, 8.5.1); its initiate tag lies behind the quoted 8 bytes.
        SCTP if word == 0 => bytes.read(inner.payload + 16).map_or(0, u32::from_be_bytes),
        _ => 0,
    };
    Ok(Packet {
        source,
        destination: from_words(inner.destination),
        source_port,
        destination_port,
        protocol: inner.protocol,
        number,
        headers: 0,
        fragment: Fragment::WHOLE,
        ..*error
    })
}
