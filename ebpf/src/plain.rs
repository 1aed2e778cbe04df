//! The short way of nearly all packets: usual headers, and an edge that is there under its own addresses. Everything
//! else takes the long way, in functions of their own, and begins with what was found out here.

use aya_ebpf::bindings::__sk_buff;
use dryfence_common::address::block_of_words;
use dryfence_common::edge::{EdgeKey, LOCAL_INITIATED, attempt};
use dryfence_common::packet::{Plain, Step};

use crate::edges::{Arrival, Edge};
use crate::ends::may_fold;
use crate::record::Side;

/// What came of the short way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Short {
    Counted,
    /// The likelier of the two edges that a packet may belong to is not there.
    Missed,
    /// The edge must be looked for otherwise.
    Unknown,
}

/// Counts a packet on its edge, if that is there.
#[inline(always)]
pub(crate) fn count(skb: &__sk_buff, packet: &Plain, side: Side, stands_for: u32) -> Short {
    let remote = if side == Side::FromPod { packet.destination } else { packet.source };
    if may_fold(block_of_words(remote, packet.is_ipv4)) {
        return Short::Unknown;
    }
    let initiated = match packet.step {
        Step::Open => true,
        Step::Accept => false,
        Step::Datagram if packet.destination_port == packet.source_port => return Short::Unknown,
        // The lower port is more likely the responder's.
        _ => packet.destination_port <= packet.source_port,
    };
    let ([a, b], [c, d], port, client_port) = if initiated {
        (packet.source, packet.destination, packet.destination_port, packet.source_port)
    } else {
        (packet.destination, packet.source, packet.source_port, packet.destination_port)
    };
    let flags = if initiated == (side == Side::FromPod) { LOCAL_INITIATED } else { 0 };
    let rest = u64::from(skb.ifindex)
        | u64::from(port) << 32
        | u64::from(packet.protocol) << 48
        | u64::from(flags) << 56;
    let key = [a, b, c, d, rest];
    // SAFETY: a key is plain numbers and has no padding; these words are those of one.
    let key = unsafe { &*(&raw const key).cast::<EdgeKey>() };
    let Some(edge) = Edge::find(key) else { return Short::Missed };
    let arrival = &Arrival::new(skb, packet.length, packet.headers, stands_for);
    let attempt = attempt(client_port, packet.number);
    match packet.step {
        Step::Open => edge.attempt_once(attempt),
        Step::Accept => edge.accept_once(attempt),
        Step::Datagram => {
            if !edge.is_active(arrival.at) {
                return Short::Unknown;
            }
            if !initiated {
                edge.accept_once(edge.opened());
            }
        }
        _ => {
            if initiated {
                edge.go_on(attempt);
            }
        }
    }
    edge.count(initiated, arrival);
    Short::Counted
}
