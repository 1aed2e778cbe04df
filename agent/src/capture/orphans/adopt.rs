//! Connections that pods' sockets show before any packet does: where data packets are not counted, the only sign of those
//! that are older than the agent.

use std::io;
use std::net::IpAddr;

use dryfence_common::address::{from_ip, to_ip};
use dryfence_common::orphan::{OrphanKey, OrphanValue};
use ipnet::IpNet;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    Asked, Known, MOST_REMEMBERED, Moment, OrphanReading, Orphans, edge_key, edge_value, make_edge,
    model_key, orient,
};
use crate::capture::Interface;
use crate::capture::bounds::Bounds;
use crate::capture::programs::EdgeMap;
use crate::capture::sockets::{Ends, Sockets};
use crate::model::unoriented::Unoriented;

/// How many are taken: what sockets show is remembered beside what packets show.
const MOST_ADOPTED: usize = MOST_REMEMBERED / 2;

impl Orphans {
    /// Takes the open connections of namespaces, read before the programs were on their interfaces: so none of them is
    /// counted by its opening too. What was opened between that and now shows by its packets. Returns how many
    /// connections were left: there are too many, or the interface is not known that they cross.
    pub(in crate::capture) fn adopt(
        &mut self,
        by_namespace: &FxHashMap<i32, Sockets>,
        interfaces: &[&Interface],
    ) -> u64 {
        let mut evidence: FxHashMap<Ends, u16> = FxHashMap::default();
        let mut keys = Vec::new();
        let mut left = 0;
        for (namespace, sockets) in by_namespace {
            let of_namespace: Vec<_> =
                interfaces.iter().filter(|interface| interface.netns_id == *namespace).copied().collect();
            for ends in sockets.connections() {
                evidence.insert(*ends, sockets.evidence(ends));
                match crossed(&of_namespace, ends.local.ip()) {
                    Some(interface) if keys.len() < MOST_ADOPTED => keys.push((key(interface, ends), *ends)),
                    _ => left += 1,
                }
            }
        }
        for (key, ends) in keys {
            let here = evidence.get(&ends).copied().unwrap_or_default();
            let answer = orient(&key, here, evidence.get(&ends.swapped()).copied());
            self.known.insert(key, Known { answer, asked: Asked::Done, sockets: here, ..Known::default() });
            self.adopted.push(key);
        }
        left
    }

    /// Tells those of which nothing was told, each as one connection.
    pub(super) fn tell_adopted(
        &mut self,
        place: &dyn Fn(IpAddr) -> (Option<IpNet>, bool),
        moment: &Moment<'_>,
        reading: &mut OrphanReading,
    ) {
        for key in &self.adopted {
            let Some(known) = self.known.get_mut(key).filter(|known| !known.counted) else { continue };
            known.counted = true;
            let Some(model) = model_key(key) else { continue };
            let seen = Unoriented {
                key: model,
                range: place(to_ip(key.remote)).0,
                connections: 1,
                packets_from_pod: 0,
                packets_to_pod: 0,
                bytes_from_pod: 0,
                bytes_to_pod: 0,
                first_seen: moment.ended,
                last_seen: moment.ended,
                read_from: moment.from,
                read_at: moment.ended,
                fully_visible: (moment.fully_visible)(key.interface),
                vlan: 0,
                estimated: (moment.is_estimated)(key.interface),
            };
            match known.answer {
                Some((direction, by)) => reading.observations.push(seen.oriented(direction, by)),
                None => reading.unoriented.push(seen),
            }
        }
    }

    /// Makes the edges of those whose opener is known, so that their packets match one.
    pub(super) fn settle_adopted(
        &mut self,
        (edges, bounds): (&EdgeMap, &mut Bounds),
        moment: &Moment<'_>,
    ) -> io::Result<()> {
        let mut result = Ok(());
        let known = &self.known;
        self.adopted.retain(|key| {
            let Some(known) = known.get(key) else { return false };
            let Some(answer) = known.answer else { return !(moment.is_last)(key.interface) };
            // One in the kernel's table is treated as the others there.
            if !known.in_kernel && !(moment.is_last)(key.interface) {
                let (range, outside) = bounds.place(to_ip(key.remote));
                let value = edge_value(key, &open_at(moment.clock.now), answer, outside);
                // Without room, its packets show it again.
                if let Err(error) = make_edge(&edge_key(key, answer.0, range), value, edges, bounds) {
                    result = Err(error);
                }
            }
            false
        });
        result
    }

    /// Forgets those of interfaces that are gone.
    pub(super) fn forget_adopted(&mut self, interfaces: &FxHashSet<u32>) {
        self.adopted.retain(|key| !interfaces.contains(&key.interface));
    }
}

/// Of a namespace's interfaces the one that an address's packets cross: the one to which it is routed, else the only
/// one, unless other addresses of the family are routed to that.
fn crossed<'a>(interfaces: &[&'a Interface], address: IpAddr) -> Option<&'a Interface> {
    let routed = interfaces.iter().find(|interface| interface.routed.contains(&address));
    let only = match interfaces {
        [only] if !only.routed.iter().any(|routed| routed.is_ipv4() == address.is_ipv4()) => Some(only),
        _ => None,
    };
    routed.or(only).copied()
}

fn key(interface: &Interface, ends: &Ends) -> OrphanKey {
    OrphanKey {
        local: from_ip(ends.local.ip()),
        remote: from_ip(ends.remote.ip()),
        interface: interface.index.0,
        local_port: ends.local.port(),
        remote_port: ends.remote.port(),
        protocol: ends.protocol,
        padding: [0; 7],
    }
}

/// As if both ends had just spoken: what is open is not idle.
fn open_at(now: u64) -> OrphanValue {
    OrphanValue {
        packets_from_pod: 1,
        packets_to_pod: 1,
        first_seen: now,
        last_seen: now,
        ..OrphanValue::default()
    }
}
