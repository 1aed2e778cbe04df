//! The headers that nearly every packet has, read at fixed places by few checks: IPv4 without options or IPv6 without
//! extension headers, whole, to one host, and UDP or a TCP packet that opens, accepts or goes on in it.
//!
//! What it says of a packet, [`super::parse`] says too. Where it says nothing, only that knows.

use super::transport::is_dhcp;
use super::{ACK, Bytes, FIN, Fragment, Link, Packet, RST, SYN, Step, TCP, UDP, be16, link};
use crate::address::Address;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
/// A TCP header without options; a UDP header, and what the shortest DNS message has.
const TRANSPORT: usize = 20;
const UDP_HEADER: u32 = 8;

const SYN_ACK: u8 = SYN | ACK;

/// Whether it is a TCP packet with such headers that neither opens, accepts nor ends a connection. False says nothing.
#[inline(always)]
pub fn is_plain_data<B: Bytes + ?Sized>(bytes: &B, link: Link) -> bool {
    let is_data = |protocol, transport: &[u8; TRANSPORT]| {
        protocol == TCP && has_length(transport) && transport[13] & (FIN | SYN | RST) == 0
    };
    match family(bytes, link) {
        Some(link::IPV4) => read_ipv4(bytes, link)
            .is_some_and(|(header, transport)| is_usual_ipv4(header) && is_data(header[9], transport)),
        Some(link::IPV6) => read_ipv6(bytes, link)
            .is_some_and(|(header, transport)| is_usual_ipv6(header) && is_data(header[6], transport)),
        _ => false,
    }
}

/// What a packet with such headers says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plain {
    /// The addresses as [`Address`] has them, in two words each: what compilers see as 16 bytes, they move one by one.
    pub source: [u64; 2],
    pub destination: [u64; 2],
    pub is_ipv4: bool,
    pub source_port: u16,
    pub destination_port: u16,
    /// TCP or UDP.
    pub protocol: u8,
    /// [`Step::Open`], [`Step::Accept`], [`Step::Continue`] or [`Step::Datagram`].
    pub step: Step,
    /// As in [`Packet`].
    pub number: u32,
    /// As in [`Packet`].
    pub length: u32,
    /// As in [`Packet`].
    pub headers: u32,
}

impl Plain {
    const NOTHING: Self = Self {
        source: [0; 2],
        destination: [0; 2],
        is_ipv4: false,
        source_port: 0,
        destination_port: 0,
        protocol: 0,
        step: Step::Datagram,
        number: 0,
        length: 0,
        headers: 0,
    };

    /// The same as [`super::parse`] says it.
    #[inline(always)]
    pub fn packet(&self) -> Packet {
        Packet {
            source: address(self.source),
            destination: address(self.destination),
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol: self.protocol,
            step: self.step,
            vlan: 0,
            number: self.number,
            length: self.length,
            headers: self.headers,
            fragment: Fragment::WHOLE,
            error: 0,
        }
    }
}

#[inline(always)]
fn address([high, low]: [u64; 2]) -> Address {
    let mut address = [0; 16];
    let (head, tail) = address.split_at_mut(8);
    head.copy_from_slice(&high.to_ne_bytes());
    tail.copy_from_slice(&low.to_ne_bytes());
    address
}

/// What is made of a packet.
pub trait Then {
    type Made;

    fn then(&self, packet: Plain) -> Self::Made;
}

/// The packet as it is.
struct Kept;

impl Then for Kept {
    type Made = Plain;

    #[inline(always)]
    fn then(&self, packet: Plain) -> Plain {
        packet
    }
}

/// Reads a packet with such headers; `None` says nothing.
#[inline(always)]
pub fn plain<B: Bytes + ?Sized>(bytes: &B, link: Link) -> Option<Plain> {
    plain_then(bytes, link, &Kept)
}

/// The same, and what `then` makes of it: compiled once for each kind of packet, with what is known of that kind.
#[inline(always)]
pub fn plain_then<B: Bytes + ?Sized, T: Then>(bytes: &B, link: Link, then: &T) -> Option<T::Made> {
    match family(bytes, link)? {
        link::IPV4 => {
            let (header, transport) = read_ipv4(bytes, link)?;
            if !is_usual_ipv4(header) {
                return None;
            }
            let network = Plain {
                source: [0, mapped_word(*at(header, 12)?)],
                destination: [0, mapped_word(*at(header, 16)?)],
                is_ipv4: true,
                protocol: header[9],
                length: length_of(u32::from(be16(header[2], header[3])), bytes, link),
                headers: IPV4 as u32,
                ..Plain::NOTHING
            };
            segment(network, transport, then)
        }
        link::IPV6 => {
            let (header, transport) = read_ipv6(bytes, link)?;
            if !is_usual_ipv6(header) {
                return None;
            }
            let word = |offset| at(header, offset).map(|word| u64::from_ne_bytes(*word));
            let network = Plain {
                source: [word(8)?, word(16)?],
                destination: [word(24)?, word(32)?],
                protocol: header[6],
                length: length_of(u32::from(be16(header[4], header[5])) + IPV6 as u32, bytes, link),
                headers: IPV6 as u32,
                ..Plain::NOTHING
            };
            segment(network, transport, then)
        }
        _ => None,
    }
}

/// The length that a header claims, as far as the packet can have it.
#[inline(always)]
fn length_of<B: Bytes + ?Sized>(claimed: u32, bytes: &B, link: Link) -> u32 {
    let before = if matches!(link, Link::Ethernet) { ETHERNET } else { 0 };
    let available = bytes.length().saturating_sub(before) as u32;
    if claimed > available { available } else { claimed }
}

#[inline(always)]
fn at<const N: usize>(header: &[u8], offset: usize) -> Option<&[u8; N]> {
    header.get(offset..)?.first_chunk()
}

/// The second word of a mapped IPv4 address.
#[inline(always)]
const fn mapped_word(octets: [u8; 4]) -> u64 {
    let address = u32::from_ne_bytes(octets) as u64;
    if cfg!(target_endian = "little") { address << 32 | 0xffff_0000 } else { address | 0xffff << 32 }
}

/// The ethertype; `None` where an Ethernet destination is a group, or nothing is there.
#[inline(always)]
fn family<B: Bytes + ?Sized>(bytes: &B, link: Link) -> Option<u16> {
    match link {
        Link::Ethernet => {
            let header: &[u8; ETHERNET] = bytes.head()?;
            (header[0] & 1 == 0).then_some(be16(header[12], header[13]))
        }
        Link::Ip => match bytes.head::<1>()?[0] >> 4 {
            4 => Some(link::IPV4),
            6 => Some(link::IPV6),
            _ => None,
        },
    }
}

/// The network header and the beginning of what follows.
#[inline(always)]
fn read_ipv4<B: Bytes + ?Sized>(bytes: &B, link: Link) -> Option<(&[u8; IPV4], &[u8; TRANSPORT])> {
    let head: &[u8; IPV4 + TRANSPORT] = match link {
        Link::Ethernet => bytes.head::<{ ETHERNET + IPV4 + TRANSPORT }>()?.last_chunk()?,
        Link::Ip => bytes.head()?,
    };
    Some((head.first_chunk()?, head.last_chunk()?))
}

#[inline(always)]
fn read_ipv6<B: Bytes + ?Sized>(bytes: &B, link: Link) -> Option<(&[u8; IPV6], &[u8; TRANSPORT])> {
    let head: &[u8; IPV6 + TRANSPORT] = match link {
        Link::Ethernet => bytes.head::<{ ETHERNET + IPV6 + TRANSPORT }>()?.last_chunk()?,
        Link::Ip => bytes.head()?,
    };
    Some((head.first_chunk()?, head.last_chunk()?))
}

/// Without options, whole, of a length that can be, and to one host.
#[inline(always)]
const fn is_usual_ipv4(header: &[u8; IPV4]) -> bool {
    let is_whole = be16(header[6], header[7]) & 0x3fff == 0;
    // From 224.0.0.0 on: groups, what is reserved, and the limited broadcast.
    header[0] == 0x45 && is_whole && be16(header[2], header[3]) >= IPV4 as u16 && header[16] < 0xe0
}

/// Of a length that is said, and to one host.
#[inline(always)]
const fn is_usual_ipv6(header: &[u8; IPV6]) -> bool {
    header[0] >> 4 == 6 && be16(header[4], header[5]) != 0 && header[24] != 0xff
}

/// Whether a TCP header is as long as it must be.
#[inline(always)]
const fn has_length(transport: &[u8; TRANSPORT]) -> bool {
    transport[12] >= 5 << 4
}

/// Adds what the transport header says.
#[inline(always)]
fn segment<T: Then>(network: Plain, transport: &[u8; TRANSPORT], then: &T) -> Option<T::Made> {
    let number = |offset| at(transport, offset).map(|number| u32::from_be_bytes(*number));
    let ports = number(0)?;
    let (source_port, destination_port) = ((ports >> 16) as u16, ports as u16);
    let packet = Plain { source_port, destination_port, ..network };
    if network.protocol == TCP {
        if !has_length(transport) {
            return None;
        }
        let headers = network.headers + u32::from(transport[12] >> 4) * 4;
        let packet = Plain { protocol: TCP, headers, ..packet };
        return match transport[13] & (FIN | SYN | RST | ACK) {
            0 | ACK => {
                let number = number(4)?.wrapping_sub(1);
                Some(then.then(Plain { step: Step::Continue, number, ..packet }))
            }
            SYN => Some(then.then(Plain { step: Step::Open, number: number(4)?, ..packet })),
            SYN_ACK => {
                let number = number(8)?.wrapping_sub(1);
                Some(then.then(Plain { step: Step::Accept, number, ..packet }))
            }
            _ => None,
        };
    }
    if network.protocol != UDP || is_dhcp(source_port, destination_port) {
        return None;
    }
    let headers = network.headers + UDP_HEADER;
    Some(then.then(Plain { protocol: UDP, step: Step::Datagram, headers, ..packet }))
}
