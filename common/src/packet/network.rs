//! IPv4 and IPv6 headers, with options and extension headers.

use super::{Bytes, Fragment, be16};
use crate::address::{Words, mapped_words};
use crate::counter::Counter;

/// Extension headers that may follow each other. RFC 8200 lists 7 in its recommended order, one of them twice.
const MOST_EXTENSIONS: usize = 8;

/// How far behind the packet's beginning a transport header may lie: the verifier lets programs look at the first
/// 64 KiB.
const FARTHEST: usize = 0x7fff;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// What the network header says.
pub(super) struct Datagram {
    pub(super) source: Words,
    pub(super) destination: Words,
    pub(super) protocol: u8,
    /// Where the transport header begins; meaningless in a later fragment.
    pub(super) payload: usize,
    /// L3 bytes.
    pub(super) length: u32,
    pub(super) to_group: bool,
    pub(super) fragment: Fragment,
}

#[inline(always)]
pub(super) fn ipv4<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Result<Datagram, Counter> {
    let header: [u32; 5] = bytes.words(at).ok_or(Counter::Truncated)?;
    let [first, second, third, source, destination] = header;
    let ([first, second, third], group) =
        ([first, second, third].map(u32::from_be), u32::from_be(destination));
    let header_length = (first >> 24 & 0xf) as usize * 4;
    let total = first & 0xffff;
    if first >> 28 != 4 || header_length < 20 || (total != 0 && (total as usize) < header_length) {
        return Err(Counter::Malformed);
    }
    Ok(Datagram {
        source: mapped_words(source),
        destination: mapped_words(destination),
        protocol: (third >> 16) as u8,
        payload: at + header_length,
        length: length_of(total, bytes.length(), at),
        // 224.0.0.0/4 and the limited broadcast; a subnet's broadcast shows in the Ethernet destination.
        to_group: group >> 28 == 0xe || group == u32::MAX,
        // The offset, and the flag "more fragments".
        fragment: fragment(second & 0x1fff != 0, second & 0x2000 != 0, second >> 16),
    })
}

#[inline(always)]
pub(super) fn ipv6<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Result<Datagram, Counter> {
    let header: [u32; 10] = bytes.words(at).ok_or(Counter::Truncated)?;
    let [first, second, a, b, c, d, e, f, g, h] = header;
    if u32::from_be(first) >> 28 != 6 {
        return Err(Counter::Malformed);
    }
    let second = u32::from_be(second);
    let (payload_length, next) = (second >> 16, (second >> 8) as u8);
    // 0 is a jumbogram, or GSO beyond 64 KiB.
    let total = if payload_length == 0 { 0 } else { payload_length + 40 };
    let mut datagram = Datagram {
        source: [a, b, c, d],
        destination: [e, f, g, h],
        protocol: next,
        payload: at + 40,
        length: length_of(total, bytes.length(), at),
        to_group: u32::from_be(e) >> 24 == 0xff,
        fragment: Fragment::WHOLE,
    };
    if is_extension(next) && !datagram.to_group {
        extensions(bytes, &mut datagram)?;
    }
    Ok(datagram)
}

/// Follows extension headers to the transport header or to a fragment header that says there is none.
#[inline(always)]
fn extensions<B: Bytes + ?Sized>(bytes: &B, datagram: &mut Datagram) -> Result<(), Counter> {
    for _ in 0..MOST_EXTENSIONS {
        if !is_extension(datagram.protocol) {
            break;
        }
        let header: [u8; 4] = bytes.read_rare(datagram.payload).ok_or(Counter::Truncated)?;
        let length = match datagram.protocol {
            FRAGMENT => {
                let identification = bytes.read_rare(datagram.payload + 4).ok_or(Counter::Truncated)?;
                let pieces = be16(header[2], header[3]);
                let identification = u32::from_be_bytes(identification);
                datagram.fragment = fragment(pieces & 0xfff8 != 0, pieces & 1 != 0, identification);
                if datagram.fragment.is_later() {
                    datagram.protocol = header[0];
                    datagram.payload += 8;
                    return Ok(());
                }
                8
            }
            // In units of 4 bytes, less 2 (RFC 4302, 2.2).
            AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
            // In units of 8 bytes, less 1 (RFC 8200, 4.3).
            _ => (usize::from(header[1]) + 1) * 8,
        };
        let payload = datagram.payload + length;
        if payload > FARTHEST {
            return Err(Counter::ChainTooLong);
        }
        let both = bytes.forget(payload as u64 | u64::from(header[0]) << 16).ok_or(Counter::Truncated)?;
        // The mask tells the verifier again how far the payload can be.
        datagram.payload = both as usize & FARTHEST;
        datagram.protocol = (both >> 16) as u8;
    }
    if is_extension(datagram.protocol) {
        return Err(Counter::ChainTooLong);
    }
    datagram.protocol = bytes.forget(u64::from(datagram.protocol)).ok_or(Counter::Truncated)? as u8;
    Ok(())
}

#[inline(always)]
const fn fragment(is_later: bool, has_more: bool, identification: u32) -> Fragment {
    match (is_later, has_more) {
        (true, _) => Fragment::later(identification),
        (false, true) => Fragment::first(identification),
        // Also an "atomic" fragment of IPv6 (RFC 6946): a header, and nothing to put together.
        (false, false) => Fragment::WHOLE,
    }
}

#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION)
}

/// The length that the header claims, as far as the packet can have it: the link layer pads, captures cut, and
/// 0 stands for more than 16 bits can say.
#[inline(always)]
fn length_of(claimed: u32, packet: usize, at: usize) -> u32 {
    let available = packet.saturating_sub(at) as u32;
    if claimed == 0 || claimed > available { available } else { claimed }
}
