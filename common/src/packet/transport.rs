//! Transport headers: ports, and which step of a connection the packet is.

use super::{ACK, Bytes, FIN, RST, SYN, Step, be16};
use crate::counter::Counter;

/// SCTP chunk types (RFC 9260, 3.2).
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;

/// What the transport header says.
pub(super) struct Segment {
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) step: Step,
    pub(super) number: u32,
    /// Length of the transport header in bytes.
    pub(super) header: u32,
}

#[inline(always)]
pub(super) fn tcp<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Result<Segment, Counter> {
    let header: [u8; 20] = bytes.read(at).ok_or(Counter::Truncated)?;
    let length = u32::from(header[12] >> 4) * 4;
    if length < 20 {
        return Err(Counter::Malformed);
    }
    let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let acknowledged = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
    // What answers a SYN acknowledges its sequence number plus one, and what follows a SYN starts there.
    let (step, number) = match header[13] & (FIN | SYN | RST | ACK) {
        SYN => (Step::Open, sequence),
        flags if flags & (RST | ACK) == RST | ACK => {
            let step = if sequence == 0 { Step::Refuse } else { Step::Abort };
            (step, acknowledged.wrapping_sub(1))
        }
        flags if flags & (SYN | RST | ACK) == SYN | ACK => (Step::Accept, acknowledged.wrapping_sub(1)),
        flags if flags & RST != 0 => (Step::Reset, sequence.wrapping_sub(1)),
        flags if flags & FIN != 0 => (Step::Close, sequence.wrapping_sub(1)),
        _ => (Step::Continue, sequence.wrapping_sub(1)),
    };
    Ok(Segment {
        source_port: be16(header[0], header[1]),
        destination_port: be16(header[2], header[3]),
        step,
        number,
        header: length,
    })
}

#[inline(always)]
pub(super) fn udp<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Result<Segment, Counter> {
    let header: [u8; 8] = bytes.read(at).ok_or(Counter::Truncated)?;
    let source_port = be16(header[0], header[1]);
    let destination_port = be16(header[2], header[3]);
    if is_dhcp(source_port, destination_port) {
        return Err(Counter::Dhcp);
    }
    Ok(Segment { source_port, destination_port, step: Step::Datagram, number: 0, header: 8 })
}

/// Both ports: a client on an ephemeral port that happens to ask port 67 is no DHCP client.
#[inline(always)]
pub(super) const fn is_dhcp(source: u16, destination: u16) -> bool {
    matches!((source, destination), (67 | 68, 67 | 68) | (546 | 547, 546 | 547))
}

#[inline(always)]
pub(super) fn sctp<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Result<Segment, Counter> {
    let header: [u8; 16] = bytes.read(at).ok_or(Counter::Truncated)?;
    let tag = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    // The answer to an INIT carries the INIT's initiate tag as its verification tag (RFC 9260, 8.5.1).
    let (step, number) = match header[12] {
        INIT => {
            let initiate: [u8; 4] = bytes.read_rare(at + 16).ok_or(Counter::Truncated)?;
            (Step::Open, u32::from_be_bytes(initiate))
        }
        INIT_ACK => (Step::Accept, tag),
        ABORT => (Step::Abort, tag),
        _ => (Step::Continue, 0),
    };
    Ok(Segment {
        source_port: be16(header[0], header[1]),
        destination_port: be16(header[2], header[3]),
        step,
        number,
        header: 12,
    })
}

#[inline(always)]
pub(super) fn icmp<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Result<Segment, Counter> {
    let [kind, code, ..]: [u8; 8] = bytes.read(at).ok_or(Counter::Truncated)?;
    match (kind, code) {
        (8, _) => Ok(echo(Step::Request, 8, code)),
        (0, _) => Ok(echo(Step::Reply, 8, code)),
        (3, 0..=3 | 5..=15) => Ok(echo(Step::Unreachable, kind, code)),
        // "Fragmentation needed" refuses nothing; source quench, redirect, time exceeded, parameter problem.
        (3, 4) | (4 | 5 | 11 | 12, _) => Ok(echo(Step::Error, kind, code)),
        _ => Err(Counter::OtherIcmp),
    }
}

#[inline(always)]
pub(super) fn icmpv6<B: Bytes + ?Sized>(bytes: &B, at: usize) -> Result<Segment, Counter> {
    let [kind, code, ..]: [u8; 8] = bytes.read(at).ok_or(Counter::Truncated)?;
    match kind {
        128 => Ok(echo(Step::Request, 128, code)),
        129 => Ok(echo(Step::Reply, 128, code)),
        1 => Ok(echo(Step::Unreachable, kind, code)),
        // Packet too big, time exceeded, parameter problem.
        2..=4 => Ok(echo(Step::Error, kind, code)),
        133..=137 => Err(Counter::NeighbourDiscovery),
        130..=132 | 143 => Err(Counter::ListenerDiscovery),
        _ => Err(Counter::OtherIcmp),
    }
}

/// An ICMP message by the type and code of its request, which stand for the port.
#[inline(always)]
pub(super) const fn echo(step: Step, kind: u8, code: u8) -> Segment {
    let port = be16(kind, code);
    Segment { source_port: port, destination_port: port, step, number: 0, header: 8 }
}
