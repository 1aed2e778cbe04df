//! From cumulative counters in the kernel to what was counted between two readings.

use std::io;

use dryfence_common::address::to_ip;
use dryfence_common::edge::{BY_FIRST_PACKET, EdgeKey as KernelKey, EdgeValue, LOCAL_INITIATED};
use rustc_hash::{FxHashMap, FxHashSet};

use super::clock::{Clock, KernelClock};
use super::programs::EdgeMap;
use crate::model::edge::{Counters, Direction, EdgeKey, IfIndex, Observation, OrientedBy, Protocol};
use crate::model::time::Timestamp;

/// What the last reading said, so that the next can say what came since.
pub(super) struct Readings {
    last: FxHashMap<KernelKey, Counters>,
    sides: FxHashMap<u32, Sides>,
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
}

impl Readings {
    pub(super) fn new(start: Timestamp) -> Self {
        Self { last: FxHashMap::default(), sides: FxHashMap::default(), read_from: start }
    }

    /// Reads every edge, and says what each counted since the last reading.
    pub(super) fn read(&mut self, edges: &EdgeMap, clock: &KernelClock) -> io::Result<Reading> {
        let began = Timestamp::now();
        let values = edges.read()?;
        let ended = Timestamp::now();
        let clock = Clock::measure(clock)?;
        Ok(self.since_last(&values, began, ended, clock))
    }

    fn since_last(
        &mut self,
        values: &[(KernelKey, EdgeValue)],
        began: Timestamp,
        ended: Timestamp,
        clock: Clock,
    ) -> Reading {
        // Whether an interface shows both ways must be known before any of its edges is reported.
        for (key, value) in values {
            self.sides.entry(key.interface).or_default().see(key, value);
        }
        let from = self.read_from;
        let mut observations = Vec::new();
        for (key, value) in values {
            let counters = counters_of(key, value);
            let last = self.last.insert(*key, counters).unwrap_or_default();
            let delta = counters.since(last);
            let Some(model_key) = model_key(key) else { continue };
            if delta.is_zero() {
                continue;
            }
            let sides = self.sides.get(&key.interface).copied().unwrap_or_default();
            observations.push(Observation {
                key: model_key,
                delta,
                first_seen: clock.time(value.first_seen),
                last_seen: clock.time(value.last_to_responder.max(value.last_to_initiator)).min(ended),
                read_from: from,
                read_at: ended,
                oriented_by: oriented_by(value),
                fully_visible: sides.from_pod && sides.to_pod,
                vlan: value.vlan,
            });
        }
        self.read_from = began;
        Reading { observations, from, to: ended }
    }

    /// Forgets the edges of interfaces that are gone, here and in the kernel: no packet can come to them any
    /// more, so nothing is lost. Call it after they were read.
    pub(super) fn forget(&mut self, interfaces: &FxHashSet<u32>, edges: &EdgeMap) -> io::Result<()> {
        let of_gone = |key: &KernelKey| interfaces.contains(&key.interface);
        let result = self.last.keys().filter(|key| of_gone(key)).try_for_each(|key| edges.delete(key));
        self.last.retain(|key, _| !of_gone(key));
        self.sides.retain(|interface, _| !interfaces.contains(interface));
        result
    }
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
    let by_handshake = matches!(Protocol::from_number(key.protocol), Some(Protocol::Tcp | Protocol::Sctp));
    let (attempts, accepted) = if by_handshake {
        (value.attempts.max(answered), value.accepted)
    } else {
        (value.attempts, value.accepted.min(value.attempts))
    };
    Counters {
        attempts,
        accepted,
        refused: value.refused,
        packets_to_responder: value.packets_to_responder,
        packets_to_initiator: value.packets_to_initiator,
        bytes_to_responder: value.bytes_to_responder,
        bytes_to_initiator: value.bytes_to_initiator,
    }
}

/// `None` for a protocol that the programs do not record.
fn model_key(key: &KernelKey) -> Option<EdgeKey> {
    Some(EdgeKey {
        interface: IfIndex(key.interface),
        direction: if key.flags & LOCAL_INITIATED != 0 { Direction::Egress } else { Direction::Ingress },
        initiator: to_ip(key.initiator),
        responder: to_ip(key.responder),
        port: key.port,
        protocol: Protocol::from_number(key.protocol)?,
    })
}

const fn oriented_by(value: &EdgeValue) -> OrientedBy {
    match value.oriented_by {
        BY_FIRST_PACKET => OrientedBy::FirstPacket,
        _ => OrientedBy::Handshake,
    }
}

#[cfg(test)]
mod tests;
