//! What happens to an edge. Counters only grow, by atomic adds: several CPUs meet on one edge.

use core::ptr::{self, NonNull};

use aya_ebpf::bindings::{__sk_buff, BPF_NOEXIST};
use dryfence_common::address::is_mapped;
use dryfence_common::counter::Counter;
use dryfence_common::edge::{BY_FIRST_PACKET, BY_HANDSHAKE, EdgeKey, EdgeValue, NewEdge, Quoting, attempt};
use dryfence_common::packet::{Packet, SCTP, Step, TCP, UDP};

use crate::bounds::{Room, count_over};
use crate::ends::Ends;
use crate::maps::{EDGES, FIRST, NEW_EDGES, add, count, now, setting};

/// Negative error numbers of `bpf_map_update_elem`.
const EEXIST: i32 = -17;
const E2BIG: i32 = -7;

/// A packet as an edge counts it.
pub(crate) struct Arrival {
    pub(crate) at: u64,
    /// Segments that a GSO packet stands for; 1 for any other.
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Arrival {
    #[inline(always)]
    pub(crate) fn new(skb: &__sk_buff, length: u32, headers: u32, stands_for: u32) -> Self {
        let packets = if skb.gso_segs > 1 { skb.gso_segs } else { 1 };
        let bytes = u64::from(length) + u64::from(packets - 1) * u64::from(headers);
        Self {
            at: now(),
            packets: u64::from(packets) * u64::from(stands_for),
            bytes: bytes * u64::from(stands_for),
        }
    }
}

/// What a packet is to its edge, which it makes if there is none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// TCP SYN, SCTP INIT: an attempt, unless it repeats the last one.
    Opening,
    /// A datagram or ICMP request from its initiator. After silence it is an attempt; where targets share the
    /// overflow edge, so is one to another target than the last.
    Request,
    /// SYN-ACK, INIT-ACK: its sender is the responder.
    Acceptance,
    /// RST+ACK with sequence 0: so is its.
    Refusal,
}

impl By {
    /// Whether the sender initiates.
    #[inline(always)]
    pub(crate) const fn initiates(self) -> bool {
        matches!(self, Self::Opening | Self::Request)
    }
}

/// Counts a packet on its edge.
#[inline(always)]
pub(crate) fn step(ends: &mut Ends, by: By, attempt: u64, arrival: &Arrival) {
    let Some((edge, attempt)) = find_or_insert(ends, by, attempt, arrival) else { return };
    match by {
        By::Opening => edge.attempt_once(attempt),
        By::Request => edge.request(attempt, arrival),
        By::Acceptance => edge.accept_once(attempt),
        By::Refusal => edge.refuse_once(attempt),
    }
    edge.count(by.initiates(), arrival);
}

/// A packet of a connection that is open. Whether its sender is the initiator; `None` where no edge is found.
#[inline(always)]
pub(crate) fn go_on(ends: &mut Ends, arrival: &Arrival) -> Option<bool> {
    let (edge, initiated) = find_open(ends)?;
    let packet = ends.packet();
    let is_abort = packet.step == Step::Abort;
    if initiated {
        if !is_abort {
            edge.go_on(ends.attempt(attempt(packet.source_port, packet.number), true));
        }
    } else if is_abort {
        let attempt = ends.attempt(attempt(packet.destination_port, packet.number), false);
        if edge.opened() == attempt {
            edge.refuse_once(attempt);
        }
    }
    edge.count(initiated, arrival);
    Some(initiated)
}

/// The edge, and whether the packet's sender is its initiator: the lower port is more likely the responder's.
#[inline(always)]
fn find_open(ends: &mut Ends) -> Option<(Edge, bool)> {
    let lower_responds = ends.packet().destination_port <= ends.packet().source_port;
    let mut was_missed = ends.was_missed();
    ends.fold();
    for _ in 0..2 {
        for initiated in [lower_responds, !lower_responds] {
            if !was_missed && let Some(edge) = Edge::find(ends.edge(initiated)) {
                return Some((edge, initiated));
            }
            was_missed = false;
        }
        if !ends.unfold() {
            break;
        }
    }
    // Of a pod whose budget was spent, the connection is most likely one that got no edge of its own.
    Edge::find(ends.overflow(lower_responds)).map(|edge| (edge, lower_responds))
}

/// A datagram of an edge that is there. Whether its sender is the initiator; `None` where it initiates a new one, or
/// belongs to what passed before the programs were there.
///
/// It is an answer only while the edge the other way is active; else its sender initiates. Equal ports on both
/// sides (gossip) never tell an answer from a request: each side's datagrams are its own edge's, and show that the
/// other one is heard.
#[inline(always)]
pub(crate) fn datagram(ends: &mut Ends, arrival: &Arrival) -> Option<bool> {
    let (edge, initiated) = find_datagrams(ends, arrival)?;
    if initiated {
        edge.request(arrival.at, arrival);
        edge.to_responder(arrival);
    } else {
        edge.accept_once(edge.opened());
        edge.to_initiator(arrival);
    }
    Some(initiated)
}

#[inline(always)]
fn find_datagrams(ends: &mut Ends, arrival: &Arrival) -> Option<(Edge, bool)> {
    let Packet { source_port, destination_port, .. } = *ends.packet();
    ends.fold();
    for _ in 0..2 {
        // The likelier first: with the lower port on the other side, its edge comes before the one the other way.
        let mut own = None;
        if destination_port < source_port {
            own = Edge::find(ends.edge(true));
            if let Some(edge) = own
                && edge.is_active(arrival.at)
            {
                return Some((edge, true));
            }
        }
        if let Some(edge) = Edge::find(ends.edge(false))
            && edge.is_active(arrival.at)
        {
            if source_port != destination_port {
                return Some((edge, false));
            }
            edge.accept_once(edge.opened());
        }
        if destination_port >= source_port {
            own = Edge::find(ends.edge(true));
        }
        if let Some(edge) = own {
            return Some((edge, true));
        }
        if !ends.unfold() {
            break;
        }
    }
    // An answer to what got no edge of its own.
    if source_port < destination_port
        && let Some(edge) = Edge::find(ends.overflow(false))
        && edge.is_active(arrival.at)
    {
        return Some((edge, false));
    }
    None
}

/// An ICMP answer, if its request was seen.
#[inline(always)]
pub(crate) fn reply(ends: &mut Ends, arrival: &Arrival) -> bool {
    let Some(edge) = find(ends, false) else { return false };
    if !edge.is_active(arrival.at) {
        return false;
    }
    edge.accept_once(edge.opened());
    edge.to_initiator(arrival);
    true
}

/// An ICMP error for a packet of an edge, whoever sent that. An unreachable refuses the last attempt, if that is what it
/// quotes. Of TCP it must be the SYN itself: a route may also vanish under an open connection.
#[inline(always)]
pub(crate) fn error(ends: &mut Ends) -> bool {
    let Packet { source, source_port, number, protocol, step, error, .. } = *ends.packet();
    let quoted = attempt(source_port, number);
    let says = Quoting::of(error, is_mapped(&source));
    ends.fold();
    for _ in 0..2 {
        if let Some(edge) = Edge::find(ends.edge(false)) {
            edge.error(says);
            return true;
        }
        if !ends.unfold() {
            break;
        }
    }
    let Some(edge) = find(ends, true) else { return false };
    edge.error(says);
    let opened = edge.opened();
    if step == Step::Unreachable && (opened == ends.attempt(quoted, true) || !matches!(protocol, TCP | SCTP))
    {
        edge.refuse_once(opened);
    }
    true
}

/// A later fragment of a datagram that was counted on the edge. False if that is gone.
#[inline(always)]
pub(crate) fn piece(ends: &mut Ends, initiated: bool, arrival: &Arrival) -> bool {
    let Some(edge) = find(ends, initiated) else { return false };
    edge.count(initiated, arrival);
    true
}

/// The edge: exact, folded, or the overflow edge.
#[inline(always)]
fn find(ends: &mut Ends, initiated: bool) -> Option<Edge> {
    ends.fold();
    if let Some(edge) = Edge::find(ends.edge(initiated)) {
        return Some(edge);
    }
    if ends.unfold()
        && let Some(edge) = Edge::find(ends.edge(initiated))
    {
        return Some(edge);
    }
    Edge::find(ends.overflow(initiated))
}

/// The edge, if it exists, and the attempt as that edge tells it from others. If not, it is made, and there is
/// nothing left to add. Beyond the budget it is the overflow edge.
#[inline(always)]
fn find_or_insert(ends: &mut Ends, by: By, attempt: u64, arrival: &Arrival) -> Option<(Edge, u64)> {
    let initiated = by.initiates();
    ends.fold();
    let mut edge = if ends.was_missed() { None } else { Edge::find(ends.edge(initiated)) };
    if edge.is_none() && ends.unfold() {
        edge = Edge::find(ends.edge(initiated));
        if edge.is_none() {
            ends.fold();
        }
    }
    if edge.is_some() {
        return edge.map(|edge| (edge, ends.attempt(attempt, initiated)));
    }
    let room = Room::of(ends.account(initiated));
    if room.is_left {
        ends.edge(initiated);
    } else {
        edge = Edge::find(ends.overflow(initiated));
    }
    let attempt = ends.attempt(attempt, initiated);
    if !room.is_left && initiated && edge.is_none_or(|edge| edge.opened() != attempt) {
        count_over(ends.kind(initiated));
    }
    if edge.is_none() {
        match insert(ends, by, attempt, arrival) {
            Inserted::Made if room.is_left => room.charge(),
            Inserted::Raced => edge = Edge::find(ends.named()),
            Inserted::Made | Inserted::Lost => {}
        }
    }
    edge.map(|edge| (edge, attempt))
}

/// What became of an insert.
#[derive(PartialEq, Eq)]
enum Inserted {
    Made,
    /// Another CPU was faster.
    Raced,
    Lost,
}

/// Makes the edge named last.
#[inline(always)]
fn insert(ends: &Ends, by: By, attempt: u64, arrival: &Arrival) -> Inserted {
    let key = ends.named();
    let Some(first) = first(ends, by, attempt, arrival) else {
        lost(Counter::EdgeInsertFailed, Counter::EdgeInsertFailedOpening, arrival);
        return Inserted::Lost;
    };
    match EDGES.insert(key, first, u64::from(BPF_NOEXIST)) {
        Ok(()) => {
            hint(key, arrival.at);
            Inserted::Made
        }
        Err(EEXIST) => Inserted::Raced,
        Err(E2BIG) => {
            lost(Counter::EdgeMapFull, Counter::EdgeMapFullOpening, arrival);
            Inserted::Lost
        }
        Err(_) => {
            lost(Counter::EdgeInsertFailed, Counter::EdgeInsertFailedOpening, arrival);
            Inserted::Lost
        }
    }
}

/// A new edge's value, after its first packet. Not on the stack, which has no room for it.
#[inline(always)]
fn first<'a>(ends: &Ends, by: By, attempt: u64, arrival: &Arrival) -> Option<&'a EdgeValue> {
    let first = FIRST.get_ptr_mut(0)?;
    // SAFETY: the memory is this CPU's, and no program of ours interrupts another on one CPU.
    let first = unsafe { &mut *first };
    *first = EdgeValue::default();
    first.first_seen = arrival.at;
    first.vlan = ends.packet().vlan;
    let initiated = by.initiates();
    first.kind = ends.kind(initiated) as u8;
    first.oriented_by = if ends.named().protocol == UDP { BY_FIRST_PACKET } else { BY_HANDSHAKE };
    if initiated {
        first.attempts = 1;
        first.opened = attempt;
        first.packets_to_responder = arrival.packets;
        first.bytes_to_responder = arrival.bytes;
        first.last_to_responder = arrival.at;
    } else {
        match by {
            By::Refusal => first.refused = 1,
            _ => first.accepted = 1,
        }
        first.answered = attempt;
        first.packets_to_initiator = arrival.packets;
        first.bytes_to_initiator = arrival.bytes;
        first.last_to_initiator = arrival.at;
    }
    Some(first)
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

/// A value of the map, shared with every CPU. Never null, so that `None` is null and nothing beside it: older verifiers
/// refuse to read what a compiler put aside of a value that is none.
#[derive(Clone, Copy)]
pub(crate) struct Edge(NonNull<EdgeValue>);

impl Edge {
    #[inline(always)]
    pub(crate) fn find(key: &EdgeKey) -> Option<Self> {
        NonNull::new(EDGES.get_ptr_mut(key).unwrap_or(ptr::null_mut())).map(Self)
    }

    #[inline(always)]
    pub(crate) fn opened(self) -> u64 {
        // SAFETY: the map's value is valid while the program runs; aligned 64-bit loads do not tear.
        unsafe { (&raw const (*self.0.as_ptr()).opened).read_volatile() }
    }

    /// Whether the responder was ever heard here.
    #[inline(always)]
    fn was_heard(self) -> bool {
        // SAFETY: as in `opened`.
        unsafe { (&raw const (*self.0.as_ptr()).packets_to_initiator).read_volatile() != 0 }
    }

    /// Whether a datagram now still belongs to what was said before, as conntrack sees it.
    #[inline(always)]
    pub(crate) fn is_active(self, at: u64) -> bool {
        // SAFETY: as in `opened`.
        let (to_responder, to_initiator) = unsafe {
            (
                (&raw const (*self.0.as_ptr()).last_to_responder).read_volatile(),
                (&raw const (*self.0.as_ptr()).last_to_initiator).read_volatile(),
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

    /// A packet of an open connection from its initiator. Where answers never cross this interface
    /// (`bpf_redirect_peer` passes it by), the first after the SYN proves that there was one. Where they do, the SYN-ACK
    /// was counted.
    #[inline(always)]
    pub(crate) fn go_on(self, attempt: u64) {
        if !self.was_heard() && self.opened() == attempt {
            self.accept_once(attempt);
        }
    }

    /// A datagram from the initiator. A time as `attempt` is one only after silence; anything else says which
    /// target of an overflow edge it goes to.
    #[inline(always)]
    fn request(self, attempt: u64, arrival: &Arrival) {
        if attempt != arrival.at || !self.is_active(arrival.at) {
            self.attempt_once(attempt);
        }
    }

    #[inline(always)]
    pub(crate) fn attempt_once(self, attempt: u64) {
        let value = self.0.as_ptr();
        if self.opened() != attempt {
            // SAFETY: as in `opened`.
            unsafe {
                (&raw mut (*value).opened).write_volatile(attempt);
                add(&raw mut (*value).attempts, 1);
            }
        }
    }

    #[inline(always)]
    pub(crate) fn accept_once(self, attempt: u64) {
        if self.answer(attempt) {
            // SAFETY: as in `opened`.
            unsafe { add(&raw mut (*self.0.as_ptr()).accepted, 1) };
        }
    }

    #[inline(always)]
    fn refuse_once(self, attempt: u64) {
        if self.answer(attempt) {
            // SAFETY: as in `opened`.
            unsafe { add(&raw mut (*self.0.as_ptr()).refused, 1) };
        }
    }

    #[inline(always)]
    fn error(self, says: Quoting) {
        // SAFETY: as in `opened`.
        unsafe {
            let errors = &raw mut (*self.0.as_ptr()).errors;
            // Each by a number that is fixed: the verifier knows where it adds.
            match says {
                Quoting::TooBig => add(&raw mut (*errors)[0], 1),
                Quoting::TimeExceeded => add(&raw mut (*errors)[1], 1),
                Quoting::Other => add(&raw mut (*errors)[2], 1),
            }
        }
    }

    /// Notes that an attempt was answered; false if it was already.
    #[inline(always)]
    fn answer(self, attempt: u64) -> bool {
        // SAFETY: as in `opened`.
        unsafe {
            let answered = &raw mut (*self.0.as_ptr()).answered;
            let is_new = answered.read_volatile() != attempt;
            if is_new {
                answered.write_volatile(attempt);
            }
            is_new
        }
    }

    #[inline(always)]
    pub(crate) fn count(self, initiated: bool, arrival: &Arrival) {
        if initiated {
            self.to_responder(arrival);
        } else {
            self.to_initiator(arrival);
        }
    }

    #[inline(always)]
    fn to_responder(self, arrival: &Arrival) {
        let value = self.0.as_ptr();
        // SAFETY: as in `opened`. The time is a plain store: the last of two CPUs wins, both are right.
        unsafe {
            add(&raw mut (*value).packets_to_responder, arrival.packets);
            add(&raw mut (*value).bytes_to_responder, arrival.bytes);
            (&raw mut (*value).last_to_responder).write_volatile(arrival.at);
        }
    }

    #[inline(always)]
    fn to_initiator(self, arrival: &Arrival) {
        let value = self.0.as_ptr();
        // SAFETY: as in `to_responder`.
        unsafe {
            add(&raw mut (*value).packets_to_initiator, arrival.packets);
            add(&raw mut (*value).bytes_to_initiator, arrival.bytes);
            (&raw mut (*value).last_to_initiator).write_volatile(arrival.at);
        }
    }
}
