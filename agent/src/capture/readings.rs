//! From cumulative counters in the kernel to what was counted between two readings.

use std::io;
use std::time::Duration;

use dryfence_common::address::to_ip;
use dryfence_common::edge::{
    Account, BY_FIRST_PACKET, BY_LISTENER, BY_SERVICE, EdgeKey as KernelKey, EdgeValue, Kind, LOCAL_INITIATED,
};
use dryfence_common::packet::TCP;
use rustc_hash::{FxHashMap, FxHashSet};

use super::bounds::Bounds;
use super::clock::{Clock, KernelClock};
use super::programs::EdgeMap;
use crate::model::edge::{
    Budget, Counters, Direction, EdgeKey, IcmpErrors, IfIndex, Observation, OrientedBy, Protocol, Scope,
};
use crate::model::time::Timestamp;

/// What the last reading said, so that the next can say what came since.
pub(super) struct Readings {
    last: FxHashMap<KernelKey, Counters>,
    sides: FxHashMap<u32, Sides>,
    /// Interfaces on which not every TCP data packet is counted.
    estimated: FxHashSet<u32>,
    /// When the last reading began: nothing before is in the next.
    read_from: Timestamp,
}

/// Which ways packets were ever seen to cross an interface.
#[derive(Debug, Clone, Copy, Default)]
struct Sides {
    from_pod: bool,
    to_pod: bool,
}

/// One reading.
pub(super) struct Reading {
    pub(super) observations: Vec<Observation>,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    /// How many edges left the kernel because nothing met them for long.
    pub(super) left: u64,
    /// Those of them that may speak again without an opening.
    pub(super) silent: Vec<(KernelKey, OrientedBy)>,
    /// How many left sooner, since nobody ever accepted them and room was short.
    pub(super) evicted: u64,
    /// Why not all left that should have.
    pub(super) stayed: Option<io::Error>,
}

/// When edges leave the kernel. The ledger has them by then, and one that is met again begins anew.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaving {
    /// After how long without a packet.
    pub(super) idle: Duration,
    /// How many edges the kernel's map has room for.
    pub(super) room: u32,
}

/// Unanswered SYNs are repeated after up to 64 s (Linux: `tcp_syn_retries` 6), and the last attempt must be known
/// until then.
const UNANSWERED_IDLE: Duration = Duration::from_secs(70);
/// Longer than conntrack's timeout: a datagram after that is an attempt anyway.
const DATAGRAM_IDLE: Duration = Duration::from_secs(125);

/// How an edge leaves.
enum Leave {
    Idle,
    /// Nobody ever accepted it, and room is short.
    Unanswered,
}

/// A pass through all edges, element by element: together they are too large to be held every second.
struct Pass {
    from: Timestamp,
    /// As it was before: what comes during the pass is not quiet.
    clock: Clock,
    leaving: Leaving,
    /// What counted something, and its keys.
    observations: Vec<Observation>,
    keys: Vec<KernelKey>,
    /// How many edges are charged to whom.
    used: FxHashMap<Account, u64>,
    /// What leaves if room is short, or in any case.
    quiet: Vec<(KernelKey, EdgeValue)>,
}

impl Pass {
    fn new(from: Timestamp, clock: Clock, leaving: Leaving) -> Self {
        Self {
            from,
            clock,
            leaving,
            observations: Vec::new(),
            keys: Vec::new(),
            used: FxHashMap::default(),
            quiet: Vec::new(),
        }
    }
}

impl Readings {
    pub(super) fn new(start: Timestamp) -> Self {
        Self {
            last: FxHashMap::default(),
            sides: FxHashMap::default(),
            estimated: FxHashSet::default(),
            read_from: start,
        }
    }

    /// Reads every edge, says what each counted since the last reading, and lets idle ones go.
    pub(super) fn read(
        &mut self,
        (edges, bounds, clock): (&EdgeMap, &mut Bounds, &KernelClock),
        leaving: Leaving,
    ) -> io::Result<Reading> {
        let began = Timestamp::now();
        let mut pass = Pass::new(self.read_from, Clock::measure(clock)?, leaving);
        if let Err(error) = edges.each(|key, value| self.take(key, value, &mut pass)) {
            self.take_back(&pass);
            return Err(error);
        }
        let ended = Timestamp::now();
        let pressed = pressed(std::mem::take(&mut pass.used), bounds, leaving.room);
        let (quiet, clock) = (std::mem::take(&mut pass.quiet), pass.clock);
        let mut reading = self.end(pass, began, ended);
        reading.stayed = self.let_go(&quiet, &pressed, (edges, bounds), (leaving, clock), &mut reading).err();
        Ok(reading)
    }

    /// Takes one edge of a pass through all.
    fn take(&mut self, key: &KernelKey, value: &EdgeValue, pass: &mut Pass) {
        self.sides.entry(key.interface).or_default().see(key, value);
        *pass.used.entry(account(key, value)).or_default() += 1;
        if pass.leaving.leave(key, value, pass.clock.now, true).is_some() {
            pass.quiet.push((*key, *value));
        }
        if let Some(observation) = self.observe(key, value, (pass.from, Timestamp::END), pass.clock) {
            pass.keys.push(*key);
            pass.observations.push(observation);
        }
    }

    /// A pass that could not be ended never was: the next tells what it would have told.
    fn take_back(&mut self, pass: &Pass) {
        for (key, observation) in pass.keys.iter().zip(&pass.observations) {
            if let Some(last) = self.last.get_mut(key) {
                *last = last.since(observation.delta);
            }
        }
    }

    /// The pass went through all edges.
    fn end(&mut self, pass: Pass, began: Timestamp, ended: Timestamp) -> Reading {
        let mut observations = pass.observations;
        for observation in &mut observations {
            observation.read_at = ended;
            observation.last_seen = observation.last_seen.min(ended);
            // Whether an interface shows both ways is known only now.
            observation.fully_visible = self.is_fully_visible(observation.key.interface.0);
        }
        self.read_from = began;
        Reading {
            observations,
            from: pass.from,
            to: ended,
            left: 0,
            silent: Vec::new(),
            evicted: 0,
            stayed: None,
        }
    }

    /// What an edge counted since it was last read, if anything.
    fn observe(
        &mut self,
        key: &KernelKey,
        value: &EdgeValue,
        (from, ended): (Timestamp, Timestamp),
        clock: Clock,
    ) -> Option<Observation> {
        let counters = counters_of(key, value);
        let last = self.last.insert(*key, counters).unwrap_or_default();
        let delta = counters.since(last);
        if delta.is_zero() {
            return None;
        }
        Some(Observation {
            key: model_key(key)?,
            delta,
            first_seen: clock.time(value.first_seen),
            last_seen: clock.time(last_packet(value)).min(ended),
            read_from: from,
            read_at: ended,
            oriented_by: oriented_by(value),
            fully_visible: self.is_fully_visible(key.interface),
            vlan: value.vlan,
            estimated: key.protocol == TCP && self.is_estimated(key.interface),
        })
    }

    /// From now on not every TCP data packet of the interface is counted.
    pub(super) fn estimate(&mut self, interface: u32) {
        self.estimated.insert(interface);
    }

    /// Whether not every TCP data packet of the interface is counted.
    pub(super) fn is_estimated(&self, interface: u32) -> bool {
        self.estimated.contains(&interface)
    }

    /// Whether packets of both ways were seen to cross the interface.
    pub(super) fn is_fully_visible(&self, interface: u32) -> bool {
        self.sides.get(&interface).is_some_and(|sides| sides.from_pod && sides.to_pod)
    }

    /// Takes idle edges out of the kernel. What came to one between its reading and that is in the reading too.
    fn let_go(
        &mut self,
        quiet: &[(KernelKey, EdgeValue)],
        pressed: &FxHashSet<Account>,
        (edges, bounds): (&EdgeMap, &mut Bounds),
        (leaving, clock): (Leaving, Clock),
        reading: &mut Reading,
    ) -> io::Result<()> {
        let mut freed: FxHashMap<Account, u64> = FxHashMap::default();
        let mut result = Ok(());
        for (key, value) in quiet {
            let account = account(key, value);
            let is_pressed = pressed.contains(&account);
            let Some(leave) = leaving.leave(key, value, clock.now, is_pressed) else { continue };
            match edges.take(key) {
                Ok(Some(value)) => {
                    if let Some(late) = self.observe(key, &value, (reading.from, reading.to), clock) {
                        reading.add(late);
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
            self.last.remove(key);
            match leave {
                Leave::Idle => {
                    reading.left += 1;
                    if has_handshake(key.protocol) && !key.is_overflow() {
                        reading.silent.push((*key, oriented_by(value)));
                    }
                }
                Leave::Unanswered => reading.evicted += 1,
            }
            if !key.is_overflow() {
                *freed.entry(account).or_default() += 1;
            }
        }
        for (account, edges) in freed {
            result = result.and(bounds.free(account, edges));
        }
        result
    }

    /// Forgets the edges of interfaces that are gone, here and in the kernel: no packet can come to them any
    /// more, so nothing is lost. Call it after they were read.
    pub(super) fn forget(&mut self, interfaces: &FxHashSet<u32>, edges: &EdgeMap) -> io::Result<()> {
        let of_gone = |key: &KernelKey| interfaces.contains(&key.interface);
        let result = self.last.keys().filter(|key| of_gone(key)).try_for_each(|key| edges.delete(key));
        self.last.retain(|key, _| !of_gone(key));
        self.sides.retain(|interface, _| !interfaces.contains(interface));
        self.estimated.retain(|interface| !interfaces.contains(interface));
        result
    }
}

impl Reading {
    /// Adds what an edge counted after it was read. It stays one observation: the end of a reading is what tells
    /// an attempt that nobody answers.
    fn add(&mut self, late: Observation) {
        match self.observations.iter_mut().find(|known| known.key == late.key) {
            Some(known) => {
                known.delta = known.delta.plus(late.delta);
                known.last_seen = late.last_seen;
            }
            None => self.observations.push(late),
        }
    }
}

impl Leaving {
    /// Whether an edge leaves at `now`, in nanoseconds of the kernel's clock.
    fn leave(self, key: &KernelKey, value: &EdgeValue, now: u64, is_pressed: bool) -> Option<Leave> {
        let quiet = Duration::from_nanos(now.saturating_sub(last_packet(value)));
        if quiet >= self.idle {
            return Some(Leave::Idle);
        }
        let unanswered = if has_handshake(key.protocol) { UNANSWERED_IDLE } else { DATAGRAM_IDLE };
        let leaves = is_pressed && value.accepted == 0 && quiet >= unanswered && !key.is_overflow();
        leaves.then_some(Leave::Unanswered)
    }
}

/// Whose budget is more than half spent, or everybody's if the map is more than half full.
fn pressed(used: FxHashMap<Account, u64>, bounds: &Bounds, room: u32) -> FxHashSet<Account> {
    let is_full = used.values().sum::<u64>() * 2 > u64::from(room);
    let short =
        |(account, used): (Account, u64)| (is_full || used * 2 > bounds.budget(&account)).then_some(account);
    used.into_iter().filter_map(short).collect()
}

fn account(key: &KernelKey, value: &EdgeValue) -> Account {
    Account { interface: key.interface, kind: u32::from(value.kind) }
}

fn last_packet(value: &EdgeValue) -> u64 {
    value.last_to_responder.max(value.last_to_initiator)
}

fn has_handshake(protocol: u8) -> bool {
    matches!(Protocol::from_number(protocol), Some(Protocol::Tcp | Protocol::Sctp))
}

impl Sides {
    const fn see(&mut self, key: &KernelKey, value: &EdgeValue) {
        let local_initiated = key.flags & LOCAL_INITIATED != 0;
        let (from_pod, to_pod) = if local_initiated {
            (value.packets_to_responder, value.packets_to_initiator)
        } else {
            (value.packets_to_initiator, value.packets_to_responder)
        };
        self.from_pod |= from_pod != 0;
        self.to_pod |= to_pod != 0;
    }
}

/// What was counted so far, put right where the kernel side cannot know: on a half-visible interface a
/// connection shows only by its answer, and two CPUs may both see the first answer of a datagram edge.
fn counters_of(key: &KernelKey, value: &EdgeValue) -> Counters {
    let answered = value.accepted.saturating_add(value.refused);
    let (attempts, accepted) = if has_handshake(key.protocol) {
        (value.attempts.max(answered), value.accepted)
    } else {
        (value.attempts, value.accepted.min(value.attempts))
    };
    let [too_big, time_exceeded, other] = value.errors;
    Counters {
        attempts,
        accepted,
        refused: value.refused,
        packets_to_responder: value.packets_to_responder,
        packets_to_initiator: value.packets_to_initiator,
        bytes_to_responder: value.bytes_to_responder,
        bytes_to_initiator: value.bytes_to_initiator,
        icmp_errors: IcmpErrors { too_big, time_exceeded, other },
    }
}

/// `None` for a protocol that the programs do not record.
fn model_key(key: &KernelKey) -> Option<EdgeKey> {
    let local_initiated = key.flags & LOCAL_INITIATED != 0;
    let (initiator, responder) = (to_ip(key.initiator), to_ip(key.responder));
    let scope = match key.folded_bits() {
        0 => Scope::Address,
        _ if key.is_overflow() => Scope::OverBudget(budget(Kind::from_number(key.port)?)),
        bits => {
            let length: u8 =
                if (if local_initiated { responder } else { initiator }).is_ipv4() { 32 } else { 128 };
            Scope::Range(length.saturating_sub(bits))
        }
    };
    Some(EdgeKey {
        interface: IfIndex(key.interface),
        direction: if local_initiated { Direction::Egress } else { Direction::Ingress },
        initiator,
        responder,
        port: if key.is_overflow() { 0 } else { key.port },
        protocol: Protocol::from_number(key.protocol)?,
        scope,
    })
}

const fn budget(kind: Kind) -> Budget {
    match kind {
        Kind::Opened => Budget::Opened,
        Kind::Cluster => Budget::Cluster,
        Kind::Outside => Budget::Outside,
    }
}

const fn oriented_by(value: &EdgeValue) -> OrientedBy {
    match value.oriented_by {
        BY_FIRST_PACKET => OrientedBy::FirstPacket,
        BY_LISTENER => OrientedBy::Listener,
        BY_SERVICE => OrientedBy::Service,
        _ => OrientedBy::Handshake,
    }
}

#[cfg(test)]
mod tests;
