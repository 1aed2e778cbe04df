//! What happens to an edge. Counters only grow, by atomic adds: several CPUs meet on one edge.

use aya_ebpf::bindings::BPF_NOEXIST;
use dryfence_common::counter::Counter;
use dryfence_common::edge::{BY_FIRST_PACKET, BY_HANDSHAKE, EdgeKey, EdgeValue, NewEdge, attempt};
use dryfence_common::packet::{Packet, SCTP, Step, TCP, UDP};

use crate::maps::{EDGES, NEW_EDGES, add, count, setting};

/// Negative error numbers of `bpf_map_update_elem`.
const EEXIST: i32 = -17;
const E2BIG: i32 = -7;

/// A packet as an edge counts it.
pub(crate) struct Arrival {
    pub(crate) at: u64,
    /// Segments that a GSO packet stands for; 1 for any other.
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) vlan: u16,
}

/// TCP SYN, SCTP INIT: an attempt, unless it repeats the last one.
#[inline(always)]
pub(crate) fn open(key: &EdgeKey, arrival: &Arrival, attempt: u64) {
    let first = EdgeValue { attempts: 1, opened: attempt, oriented_by: BY_HANDSHAKE, ..sent(arrival) };
    if let Some(edge) = find_or_insert(key, &first, arrival) {
        edge.attempt_once(attempt);
        edge.to_responder(arrival);
    }
}

/// SYN-ACK, INIT-ACK: makes the edge where the opening was not seen, since its sender is the responder.
#[inline(always)]
pub(crate) fn accept(key: &EdgeKey, arrival: &Arrival, attempt: u64) {
    let first = EdgeValue { accepted: 1, answered: attempt, oriented_by: BY_HANDSHAKE, ..answered(arrival) };
    if let Some(edge) = find_or_insert(key, &first, arrival) {
        edge.accept_once(attempt);
        edge.to_initiator(arrival);
    }
}

/// RST+ACK with sequence 0: makes the edge just so.
#[inline(always)]
pub(crate) fn refuse(key: &EdgeKey, arrival: &Arrival, attempt: u64) {
    let first = EdgeValue { refused: 1, answered: attempt, oriented_by: BY_HANDSHAKE, ..answered(arrival) };
    if let Some(edge) = find_or_insert(key, &first, arrival) {
        edge.refuse_once(attempt);
        edge.to_initiator(arrival);
    }
}

/// A later packet, if its sender is the initiator of a known edge.
#[inline(always)]
pub(crate) fn from_initiator(key: &EdgeKey, arrival: &Arrival, packet: &Packet) -> bool {
    let Some(edge) = Edge::find(key) else { return false };
    // Where answers never cross this interface (`bpf_redirect_peer` passes it by), the initiator's first packet
    // after its SYN proves that there was one. Where they do, the SYN-ACK was counted.
    if packet.step == Step::Continue && !edge.was_heard() {
        let attempt = attempt(packet.source_port, packet.number);
        if edge.opened() == attempt {
            edge.accept_once(attempt);
        }
    }
    edge.to_responder(arrival);
    true
}

/// A later packet, if its sender is the responder of a known edge.
#[inline(always)]
pub(crate) fn from_responder(key: &EdgeKey, arrival: &Arrival, packet: &Packet) -> bool {
    let Some(edge) = Edge::find(key) else { return false };
    if packet.step == Step::Abort {
        let attempt = attempt(packet.destination_port, packet.number);
        if edge.opened() == attempt {
            edge.refuse_once(attempt);
        }
    }
    edge.to_initiator(arrival);
    true
}

/// A datagram or ICMP request from its initiator. After silence it is an attempt.
#[inline(always)]
pub(crate) fn request(key: &EdgeKey, arrival: &Arrival) {
    let oriented_by = if key.protocol == UDP { BY_FIRST_PACKET } else { BY_HANDSHAKE };
    let first = EdgeValue { attempts: 1, opened: arrival.at, oriented_by, ..sent(arrival) };
    if let Some(edge) = find_or_insert(key, &first, arrival) {
        if !edge.is_active(arrival.at) {
            edge.attempt_once(arrival.at);
        }
        edge.to_responder(arrival);
    }
}

/// A datagram from the initiator of an edge that is active.
#[inline(always)]
pub(crate) fn still_requesting(key: &EdgeKey, arrival: &Arrival) -> bool {
    let Some(edge) = Edge::find(key) else { return false };
    if !edge.is_active(arrival.at) {
        return false;
    }
    edge.to_responder(arrival);
    true
}

/// An answer, if the edge it would belong to is active: each attempt is accepted once.
#[inline(always)]
pub(crate) fn reply(key: &EdgeKey, arrival: &Arrival) -> bool {
    let Some(edge) = Edge::find(key) else { return false };
    if !edge.is_active(arrival.at) {
        return false;
    }
    edge.accept_once(edge.opened());
    edge.to_initiator(arrival);
    true
}

/// Equal ports: the datagram is counted on its sender's edge, and shows that the other one is heard.
#[inline(always)]
pub(crate) fn answered_by_gossip(key: &EdgeKey, arrival: &Arrival) {
    if let Some(edge) = Edge::find(key)
        && edge.is_active(arrival.at)
    {
        edge.accept_once(edge.opened());
    }
}

/// An ICMP unreachable for a packet of the edge: refuses the last attempt, if that is what it quotes. Of TCP it
/// must be the SYN itself: a route may also vanish under an open connection.
#[inline(always)]
pub(crate) fn unreachable(key: &EdgeKey, quoted: u64) -> bool {
    let Some(edge) = Edge::find(key) else { return false };
    let opened = edge.opened();
    if opened == quoted || !matches!(key.protocol, TCP | SCTP) {
        edge.refuse_once(opened);
    }
    true
}

/// A later fragment of a datagram that was counted on the edge. False if that is gone.
#[inline(always)]
pub(crate) fn piece(key: &EdgeKey, arrival: &Arrival, from_initiator: bool) -> bool {
    let Some(edge) = Edge::find(key) else { return false };
    if from_initiator {
        edge.to_responder(arrival);
    } else {
        edge.to_initiator(arrival);
    }
    true
}

/// Whether there is such an edge.
#[inline(always)]
pub(crate) fn is_known(key: &EdgeKey) -> bool {
    Edge::find(key).is_some()
}

/// The edge, if it exists. If not, it is made with `first`, and there is nothing left to add.
#[inline(always)]
fn find_or_insert(key: &EdgeKey, first: &EdgeValue, arrival: &Arrival) -> Option<Edge> {
    if let Some(edge) = Edge::find(key) {
        return Some(edge);
    }
    match EDGES.insert(key, first, u64::from(BPF_NOEXIST)) {
        Ok(()) => {
            hint(key, arrival.at);
            None
        }
        // Another CPU was faster.
        Err(EEXIST) => {
            let edge = Edge::find(key);
            if edge.is_none() {
                lost(Counter::EdgeInsertFailed, Counter::EdgeInsertFailedOpening, arrival);
            }
            edge
        }
        Err(E2BIG) => {
            lost(Counter::EdgeMapFull, Counter::EdgeMapFullOpening, arrival);
            None
        }
        Err(_) => {
            lost(Counter::EdgeInsertFailed, Counter::EdgeInsertFailedOpening, arrival);
            None
        }
    }
}

#[inline(always)]
fn lost(packets: Counter, openings: Counter, arrival: &Arrival) {
    count(packets, arrival.packets);
    count(openings, 1);
}

/// Tells the agent of a new edge. Without the flag, the kernel wakes the reader only if it had read all before.
#[inline(always)]
fn hint(key: &EdgeKey, at: u64) {
    match NEW_EDGES.reserve::<NewEdge>(0) {
        Some(mut event) => {
            event.write(NewEdge { key: *key, at });
            event.submit(0);
        }
        None => count(Counter::Late, 1),
    }
}

/// A new edge's value after a packet from its initiator.
#[inline(always)]
fn sent(arrival: &Arrival) -> EdgeValue {
    EdgeValue {
        packets_to_responder: arrival.packets,
        bytes_to_responder: arrival.bytes,
        first_seen: arrival.at,
        last_to_responder: arrival.at,
        vlan: arrival.vlan,
        ..EdgeValue::default()
    }
}

/// A new edge's value after a packet from its responder.
#[inline(always)]
fn answered(arrival: &Arrival) -> EdgeValue {
    EdgeValue {
        packets_to_initiator: arrival.packets,
        bytes_to_initiator: arrival.bytes,
        first_seen: arrival.at,
        last_to_initiator: arrival.at,
        vlan: arrival.vlan,
        ..EdgeValue::default()
    }
}

/// A value of the map, shared with every CPU.
struct Edge(*mut EdgeValue);

impl Edge {
    #[inline(always)]
    fn find(key: &EdgeKey) -> Option<Self> {
        EDGES.get_ptr_mut(key).map(Self)
    }

    #[inline(always)]
    fn opened(&self) -> u64 {
        // SAFETY: the map's value is valid while the program runs; aligned 64-bit loads do not tear.
        unsafe { (&raw const (*self.0).opened).read_volatile() }
    }

    /// Whether the responder was ever heard here.
    #[inline(always)]
    fn was_heard(&self) -> bool {
        // SAFETY: as in `opened`.
        unsafe { (&raw const (*self.0).packets_to_initiator).read_volatile() != 0 }
    }

    /// Whether a datagram now still belongs to what was said before, as conntrack sees it.
    #[inline(always)]
    fn is_active(&self, at: u64) -> bool {
        // SAFETY: as in `opened`.
        let (to_responder, to_initiator) = unsafe {
            (
                (&raw const (*self.0).last_to_responder).read_volatile(),
                (&raw const (*self.0).last_to_initiator).read_volatile(),
            )
        };
        let timeout = if to_responder != 0 && to_initiator != 0 {
            setting!(datagram_stream_timeout)
        } else {
            setting!(datagram_timeout)
        };
        let last = if to_responder > to_initiator { to_responder } else { to_initiator };
        // Another CPU may have read its clock later and stored first.
        at <= last || at - last <= timeout
    }

    #[inline(always)]
    fn attempt_once(&self, attempt: u64) {
        let value = self.0;
        if self.opened() != attempt {
            // SAFETY: as in `opened`.
            unsafe {
                (&raw mut (*value).opened).write_volatile(attempt);
                add(&raw mut (*value).attempts, 1);
            }
        }
    }

    #[inline(always)]
    fn accept_once(&self, attempt: u64) {
        if self.answer(attempt) {
            // SAFETY: as in `opened`.
            unsafe { add(&raw mut (*self.0).accepted, 1) };
        }
    }

    #[inline(always)]
    fn refuse_once(&self, attempt: u64) {
        if self.answer(attempt) {
            // SAFETY: as in `opened`.
            unsafe { add(&raw mut (*self.0).refused, 1) };
        }
    }

    /// Notes that an attempt was answered; false if it was already.
    #[inline(always)]
    fn answer(&self, attempt: u64) -> bool {
        // SAFETY: as in `opened`.
        unsafe {
            let answered = &raw mut (*self.0).answered;
            let is_new = answered.read_volatile() != attempt;
            if is_new {
                answered.write_volatile(attempt);
            }
            is_new
        }
    }

    #[inline(always)]
    fn to_responder(&self, arrival: &Arrival) {
        let value = self.0;
        // SAFETY: as in `opened`. The time is a plain store: the last of two CPUs wins, both are right.
        unsafe {
            add(&raw mut (*value).packets_to_responder, arrival.packets);
            add(&raw mut (*value).bytes_to_responder, arrival.bytes);
            (&raw mut (*value).last_to_responder).write_volatile(arrival.at);
        }
    }

    #[inline(always)]
    fn to_initiator(&self, arrival: &Arrival) {
        let value = self.0;
        // SAFETY: as in `to_responder`.
        unsafe {
            add(&raw mut (*value).packets_to_initiator, arrival.packets);
            add(&raw mut (*value).bytes_to_initiator, arrival.bytes);
            (&raw mut (*value).last_to_initiator).write_volatile(arrival.at);
        }
    }
}
