//! The packet parser, generic over where the bytes come from: a slice in tests, the socket buffer in the kernel.
//!
//! It reads what an edge needs and nothing else: addresses, ports, and which step of opening a connection the
//! packet is. It never guesses: a packet that ends too early, contradicts itself or hides its ports is an `Err`
//! with the counter that it belongs to.

mod link;
mod network;
mod plain;
mod quoted;
mod transport;

use crate::address::{Address, from_words};
use crate::counter::Counter;

pub use plain::{Plain, Then, is_plain_data, plain, plain_then};
pub use quoted::quoted;

/// TCP's number among IP protocols.
pub const TCP: u8 = 6;
/// UDP's number among IP protocols.
pub const UDP: u8 = 17;
/// SCTP's number among IP protocols.
pub const SCTP: u8 = 132;
/// ICMP's number among IP protocols.
pub const ICMP: u8 = 1;
/// ICMPv6's number among IP protocols.
pub const ICMPV6: u8 = 58;

/// Flags of TCP (RFC 9293, 3.1).
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Where the bytes of a packet come from.
pub trait Bytes {
    /// How many bytes the packet has, also those that cannot be read cheaply.
    fn length(&self) -> usize;

    /// `N` bytes at `offset`; `None` where the packet ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The same in `N` words of 4 bytes, in memory order: what compilers see as bytes, they move one by one.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;

    /// The first `N` bytes, where they can be read as they lie. `None` says nothing.
    fn head<const N: usize>(&self) -> Option<&[u8; N]>;

    /// The same as [`Bytes::read`] for headers that few packets have: may be slow, must be small.
    fn read_rare<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.read(offset)
    }

    /// [`Bytes::words`] of headers that few packets have.
    fn words_rare<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        self.words(offset)
    }

    /// The same number, but nothing is known about it any more: several ways through a loop that lead to it become
    /// one for the kernel's verifier. `None` only where that cannot be done.
    fn forget(&self, number: u64) -> Option<u64> {
        Some(number)
    }
}

impl Bytes for [u8] {
    fn length(&self) -> usize {
        self.len()
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let (words, _) = self.get(offset..)?.as_chunks();
        words.first_chunk().map(|words| words.map(u32::from_ne_bytes))
    }

    fn head<const N: usize>(&self) -> Option<&[u8; N]> {
        self.first_chunk()
    }
}

/// What a packet begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header, as on a veth.
    Ethernet,
    /// An IP header, as on a device without link layer.
    Ip,
}

/// Which step of a connection's life a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Its sender opens a connection: TCP SYN, SCTP INIT.
    Open,
    /// Its sender accepts one: SYN-ACK, INIT-ACK.
    Accept,
    /// Its sender refuses one: RST+ACK with sequence 0, which answers only a SYN (RFC 9293, 3.10.7.1).
    Refuse,
    /// It ends a connection, and refuses it if that was the last attempt: other RST+ACK, SCTP ABORT.
    Abort,
    /// A reset that acknowledges nothing: ends a connection, or answers a packet of none (RFC 9293, 3.10.7.1).
    Reset,
    /// Anything later: the packet does not say who opened the connection.
    Continue,
    /// The same, and the last of its sender: TCP FIN.
    Close,
    /// UDP: has no steps.
    Datagram,
    /// A later fragment: its ports were in the first one, and both are 0 here.
    Fragment,
    /// ICMP: its sender asks.
    Request,
    /// ICMP: its sender answers.
    Reply,
    /// ICMP unreachable: everything else in the packet is that of the *quoted* packet.
    Unreachable,
    /// Another ICMP error, which refuses nothing: time exceeded, packet too big, parameter problem, source quench,
    /// redirect. Everything else in the packet is that of the *quoted* packet.
    Error,
}

/// What an edge needs of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    pub source: Address,
    pub destination: Address,
    /// For ICMP, the request's type × 256 + code stands in both ports.
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u8,
    pub step: Step,
    /// The VLAN id of the outermost tag in the bytes; 0 is untagged. At TC the kernel has mostly moved that tag
    /// out of the bytes.
    pub vlan: u16,
    /// The number that all packets of one attempt share: TCP's initial sequence number as far as this packet can
    /// tell it, SCTP's initiate tag. 0 where there is none.
    pub number: u32,
    /// L3 bytes, without padding of the link layer.
    pub length: u32,
    /// How many of them are headers, up to and with the transport's: GSO repeats them in every segment.
    pub headers: u32,
    /// Which fragment of which datagram it is.
    pub fragment: Fragment,
    /// The type × 256 + code of the ICMP error that quotes the packet; 0 where none does.
    pub error: u16,
}

impl Packet {
    /// Whether it is an ICMP error.
    #[inline(always)]
    pub const fn is_error(&self) -> bool {
        matches!(self.step, Step::Unreachable | Step::Error)
    }
}

/// Which part of a datagram a packet is: all of it, or the first or a later one of several fragments of the datagram
/// with this identification. One word, since the kernel's verifier wants words aligned on the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment(u64);

impl Fragment {
    /// The packet is the whole datagram.
    pub const WHOLE: Self = Self(0);
    const FIRST: u64 = 1 << 32;
    const LATER: u64 = 2 << 32;

    #[inline(always)]
    pub const fn first(identification: u32) -> Self {
        Self(Self::FIRST | identification as u64)
    }

    #[inline(always)]
    pub const fn later(identification: u32) -> Self {
        Self(Self::LATER | identification as u64)
    }

    #[inline(always)]
    pub const fn is_first(self) -> bool {
        self.0 & Self::FIRST != 0
    }

    #[inline(always)]
    pub const fn is_later(self) -> bool {
        self.0 & Self::LATER != 0
    }

    /// Which datagram it is a part of; 0 for a whole one.
    #[inline(always)]
    pub const fn identification(self) -> u32 {
        self.0 as u32
    }
}

/// Reads a packet.
///
/// # Errors
///
/// The counter that the packet belongs to where it makes no edge: it is broken, or nobody judges its kind.
#[inline(always)]
pub fn parse<B: Bytes + ?Sized>(bytes: &B, link: Link) -> Result<Packet, Counter> {
    let packet = read(bytes, link)?;
    if packet.is_error() { quoted(bytes, &packet) } else { Ok(packet) }
}

/// The first of two steps, for the programs, whose verifier would not follow both at once: of an ICMP error it says who
/// sent it to whom, and in [`Packet::number`] where the packet begins that it quotes. [`quoted()`] reads that.
///
/// # Errors
///
/// As [`parse`].
#[inline(always)]
pub fn read<B: Bytes + ?Sized>(bytes: &B, link: Link) -> Result<Packet, Counter> {
    let frame = match link {
        Link::Ethernet => link::ethernet(bytes)?,
        Link::Ip => link::bare(bytes)?,
    };
    let datagram = match frame.ethertype {
        link::IPV4 => network::ipv4(bytes, frame.payload)?,
        link::IPV6 => network::ipv6(bytes, frame.payload)?,
        _ => return Err(Counter::NotIp),
    };
    if frame.to_group || datagram.to_group {
        return Err(Counter::Group);
    }
    if datagram.fragment.is_later() {
        return Ok(Packet {
            source: from_words(datagram.source),
            destination: from_words(datagram.destination),
            source_port: 0,
            destination_port: 0,
            protocol: datagram.protocol,
            step: Step::Fragment,
            vlan: frame.vlan,
            number: 0,
            length: datagram.length,
            headers: (datagram.payload - frame.payload) as u32,
            fragment: datagram.fragment,
            error: 0,
        });
    }
    let segment = match datagram.protocol {
        TCP => transport::tcp(bytes, datagram.payload)?,
        UDP => transport::udp(bytes, datagram.payload)?,
        SCTP => transport::sctp(bytes, datagram.payload)?,
        ICMP => transport::icmp(bytes, datagram.payload)?,
        ICMPV6 => transport::icmpv6(bytes, datagram.payload)?,
        _ => return Err(Counter::OtherProtocol),
    };
    let is_error = matches!(segment.step, Step::Unreachable | Step::Error);
    let number = if is_error { (datagram.payload + quoted::ICMP_HEADER) as u32 } else { segment.number };
    Ok(Packet {
        source: from_words(datagram.source),
        destination: from_words(datagram.destination),
        source_port: segment.source_port,
        destination_port: segment.destination_port,
        protocol: datagram.protocol,
        step: segment.step,
        vlan: frame.vlan,
        number,
        length: datagram.length,
        headers: (datagram.payload - frame.payload) as u32 + segment.header,
        fragment: datagram.fragment,
        error: if is_error { segment.source_port } else { 0 },
    })
}

#[inline(always)]
const fn be16(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests;
