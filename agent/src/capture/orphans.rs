//! Connections that match no edge: reads the kernel's table of them, finds out which end opened each, and moves
//! them to the edges.

mod adopt;

use std::io;
use std::net::{IpAddr, SocketAddr};

use aya::Ebpf;
use dryfence_common::address::{from_ip, to_ip};
use dryfence_common::edge::{
    Account, BY_FIRST_PACKET, BY_HANDSHAKE, BY_LISTENER, BY_SERVICE, EdgeKey as KernelEdgeKey, EdgeValue,
    FOLDED_SHIFT, Kind, LOCAL_INITIATED,
};
use dryfence_common::orphan::{
    ASKED, EPHEMERAL_FROM, FIRST_FROM_POD, LISTENER, OPEN, OrphanInterface, OrphanKey, OrphanValue,
};
use dryfence_common::packet::{TCP, UDP};
use ipnet::IpNet;
use rustc_hash::{FxHashMap, FxHashSet};

use super::ask;
use super::bounds::Bounds;
use super::clock::Clock;
use super::error::Error;
use super::programs::{EdgeMap, Programs};
use super::sockets::Ends;
use super::table::Table;
use crate::model::edge::{Direction, IfIndex, Observation, OrientedBy, Protocol};
use crate::model::time::Timestamp;
use crate::model::unoriented::{Unoriented, UnorientedKey};

/// How many orphans one interface may have in the kernel.
pub const ORPHANS_PER_INTERFACE: u64 = 1024;

/// An orphan without packets for so long leaves the kernel; nanoseconds. Longer than connections that still do
/// something are silent; keep-alives are 2 h apart, and are told for what they are by what is remembered.
const IDLE: u64 = 600_000_000_000;

/// Connections remembered after they left the kernel's table, and edges after they left the kernel, so that none is
/// counted twice.
const MOST_REMEMBERED: usize = 16_384;

/// The kernel's maps of orphans.
pub struct OrphanMaps {
    table: Table<OrphanKey, OrphanValue>,
    interfaces: Table<u32, OrphanInterface>,
    made: Table<u32, u64>,
}

impl OrphanMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            table: Table::open(ebpf, "ORPHANS")?,
            interfaces: Table::open(ebpf, "ORPHAN_INTERFACES")?,
            made: Table::open(ebpf, "ORPHANS_MADE")?,
        })
    }

    /// Every orphan and what was counted on it so far, in no order.
    ///
    /// # Errors
    ///
    /// The kernel refuses the read.
    pub fn read(&self) -> io::Result<Vec<(OrphanKey, OrphanValue)>> {
        self.table.read()
    }

    /// Forgets an orphan, as [`Table::delete`] does.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn delete(&self, key: &OrphanKey) -> io::Result<()> {
        self.table.delete(key)
    }

    /// Tells the programs of an interface.
    ///
    /// # Errors
    ///
    /// The kernel refuses the write, for want of room or memory.
    pub fn tell(&self, interface: u32, told: &OrphanInterface) -> io::Result<()> {
        self.interfaces.set(&interface, told)
    }
}

/// When a reading was, and what else it must know.
pub(super) struct Moment<'a> {
    pub(super) from: Timestamp,
    pub(super) ended: Timestamp,
    pub(super) clock: Clock,
    pub(super) fully_visible: &'a dyn Fn(u32) -> bool,
    /// Whether not every TCP data packet of the interface is counted.
    pub(super) is_estimated: &'a dyn Fn(u32) -> bool,
    /// No further reading of the interface will come: nothing can wait for it.
    pub(super) is_last: &'a dyn Fn(u32) -> bool,
}

/// What a reading of the orphans gave.
#[derive(Debug, Default)]
pub(super) struct OrphanReading {
    /// Of those whose opener is known.
    pub(super) observations: Vec<Observation>,
    /// Of those that sockets could not orient.
    pub(super) unoriented: Vec<Unoriented>,
    /// Packets that turned out to belong to no connection.
    pub(super) strays: u64,
}

/// What is known of orphans, beside what the kernel counts.
#[derive(Default)]
pub(super) struct Orphans {
    interfaces: FxHashMap<u32, OrphanInterface>,
    known: FxHashMap<OrphanKey, Known>,
    /// Edges that left the kernel after long silence, and how their direction was known: their connections may speak
    /// again, without an opening.
    silent: FxHashMap<KernelEdgeKey, OrientedBy>,
    /// Sockets are read where the programs do not tell.
    asks: bool,
    /// Whose sockets are to be read.
    questions: Vec<OrphanKey>,
    /// Those that sockets showed before any packet, and that have no edge yet.
    adopted: Vec<OrphanKey>,
}

/// What is known of one connection.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// What the kernel had counted when it was last told; all 0 while it is not in the kernel's table.
    told: OrphanValue,
    /// Since when there is something to tell, if it was not told in the reading that brought it.
    waits_from: Option<Timestamp>,
    /// It was counted as a connection.
    counted: bool,
    answer: Option<Answer>,
    /// Its edge is in the kernel: further packets are counted there.
    has_edge: bool,
    in_kernel: bool,
    asked: Asked,
    /// What the answer was, in the bits in which the programs say it.
    sockets: u16,
}

/// Whether the pod's sockets were read for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Asked {
    #[default]
    No,
    Waits,
    Done,
}

/// Which end opened a connection, and how that is known.
type Answer = (Direction, OrientedBy);

impl Orphans {
    /// With `asks`, what the programs do not tell is asked of the pods' sockets.
    pub(super) fn new(asks: bool) -> Self {
        Self { asks, ..Self::default() }
    }

    /// Tells the programs of an interface that is now watched, or whose peer is now in another namespace.
    pub(super) fn watch(&mut self, programs: &Programs, interface: u32, namespace: i32) -> io::Result<()> {
        let known = self.interfaces.get(&interface);
        if known.is_some_and(|known| known.namespace == namespace) {
            return Ok(());
        }
        let (since, allowance) = match known {
            Some(known) => (known.since, known.allowance),
            None => (Clock::measure(programs.clock())?.now, ORPHANS_PER_INTERFACE),
        };
        let told = OrphanInterface { since, allowance, namespace, padding: 0 };
        programs.orphans().tell(interface, &told)?;
        self.interfaces.insert(interface, told);
        Ok(())
    }

    /// Forgets the orphans of interfaces that are gone, here and in the kernel. Call it after they were read.
    pub(super) fn forget(&mut self, interfaces: &FxHashSet<u32>, maps: &OrphanMaps) -> io::Result<()> {
        let mut result = Ok(());
        self.known.retain(|key, known| {
            let gone = interfaces.contains(&key.interface);
            if gone
                && known.in_kernel
                && let Err(error) = maps.table.delete(key)
            {
                result = Err(error);
            }
            !gone
        });
        self.silent.retain(|edge, _| !interfaces.contains(&edge.interface));
        self.forget_adopted(interfaces);
        for interface in interfaces {
            if self.interfaces.remove(interface).is_some() {
                maps.interfaces.delete(interface)?;
                maps.made.delete(interface)?;
            }
        }
        result
    }

    /// How many there are in the kernel, as far as is known.
    pub(super) fn in_kernel(&self) -> usize {
        self.known.values().filter(|known| known.in_kernel).count()
    }

    /// Remembers edges that left the kernel after long silence.
    pub(super) fn fell_silent(&mut self, edges: Vec<(KernelEdgeKey, OrientedBy)>) {
        if self.silent.len() + edges.len() > MOST_REMEMBERED {
            // Of those, a connection that speaks again is counted once more.
            self.silent.clear();
        }
        self.silent.extend(edges.into_iter().take(MOST_REMEMBERED));
    }

    /// Somebody who knows the cluster says which end opened a connection.
    pub(super) fn settle(&mut self, key: &UnorientedKey, direction: Direction) {
        if let Some(known) = self.known.get_mut(&kernel_key(key)) {
            known.answer.get_or_insert((direction, OrientedBy::Service));
        }
    }

    /// What the pods' sockets are to tell, once.
    pub(super) fn questions(&mut self) -> Vec<ask::Question> {
        let mut questions = Vec::new();
        for key in std::mem::take(&mut self.questions) {
            match self.interfaces.get(&key.interface) {
                Some(told) if told.namespace >= 0 => questions.push((told.namespace, key)),
                _ => self.answered(&[(key, 0)]),
            }
        }
        questions
    }

    /// This is what they told.
    pub(super) fn answered(&mut self, answers: &[ask::Answer]) {
        for (key, evidence) in answers {
            if let Some(known) = self.known.get_mut(key) {
                (known.asked, known.sockets) = (Asked::Done, *evidence);
            }
        }
    }

    /// Reads every orphan, says what each counted since it was last told, and moves those whose opener is known
    /// to the edges, so that their further packets match one.
    pub(super) fn read(
        &mut self,
        (maps, edges, bounds): (&OrphanMaps, &EdgeMap, &mut Bounds),
        moment: &Moment<'_>,
    ) -> io::Result<OrphanReading> {
        let values = maps.read()?;
        let mut told = OrphanReading::default();
        self.tell_adopted(&|address| bounds.place(address), moment, &mut told);
        let mut reading = self.since_last(&values, &|address| bounds.place(address), moment);
        reading.observations.splice(0..0, told.observations);
        reading.unoriented.splice(0..0, told.unoriented);
        if let Err(error) = self.settle_adopted((edges, bounds), moment) {
            tracing::warn!(%error, "edges of open connections cannot be made: their packets will show them again");
        }
        // Those first that had an edge before this reading: what they counted after it was made is told by now.
        match self.retire(&values, maps, moment.clock.now) {
            Ok(strays) => reading.strays += strays,
            // The reading is good; the next one tries again.
            Err(error) => tracing::warn!(%error, "orphans stay in the kernel's table"),
        }
        for (key, value) in &values {
            if let Some(known) = self.known.get_mut(key)
                && let (Some(answer), true, false) = (known.answer, known.counted, known.has_edge)
                && !(moment.is_last)(key.interface)
            {
                let (range, outside) = bounds.place(to_ip(key.remote));
                let edge = edge_key(key, answer.0, range);
                // Without room, the orphan goes on counting.
                known.has_edge =
                    make_edge(&edge, edge_value(key, value, answer, outside), edges, bounds).unwrap_or(false);
                if known.has_edge {
                    self.silent.remove(&edge);
                }
            }
        }
        Ok(reading)
    }

    /// `place` says how the programs key an address, as [`Bounds::place`] does.
    fn since_last(
        &mut self,
        values: &[(OrphanKey, OrphanValue)],
        place: &dyn Fn(IpAddr) -> (Option<IpNet>, bool),
        moment: &Moment<'_>,
    ) -> OrphanReading {
        let evidence: FxHashMap<Ends, u16> =
            values.iter().map(|(key, value)| (ends(key), self.evidence(key, value))).collect();
        let mut reading = OrphanReading::default();
        for (key, value) in values {
            let (range, _) = place(to_ip(key.remote));
            if !self.known.contains_key(key)
                && let Some(answer) = self.of_silent_edge(key, range)
            {
                self.known.insert(*key, Known { answer: Some(answer), counted: true, ..Known::default() });
            }
            let here = self.evidence(key, value);
            let known = self.known.entry(*key).or_default();
            known.in_kernel = true;
            let is_last = (moment.is_last)(key.interface);
            if !known.counted && !is_connection(key, value, here) {
                if is_last {
                    reading.strays += value.packets_from_pod + value.packets_to_pod;
                }
                continue;
            }
            let found =
                known.answer.or_else(|| orient(key, here, evidence.get(&ends(key).swapped()).copied()));
            let is_sure = found.is_some_and(|(_, by)| by != OrientedBy::FirstPacket);
            if self.asks && !is_sure && !known.counted && known.asked != Asked::Done && !is_last {
                known.waits_from.get_or_insert(moment.from);
                if known.asked == Asked::No {
                    known.asked = Asked::Waits;
                    self.questions.push(*key);
                }
                continue;
            }
            known.answer = found;
            // The other end's sockets may be read a moment later, where that is a pod of this node too.
            let waits = known.answer.is_none() && known.waits_from.is_none() && !known.counted;
            if waits && !is_last {
                known.waits_from = Some(moment.from);
                continue;
            }
            let Some(seen) = since_told((key, range), value, known, moment) else { continue };
            known.counted = true;
            known.told = *value;
            known.waits_from = None;
            match known.answer {
                Some((direction, by)) => reading.observations.push(seen.oriented(direction, by)),
                None => reading.unoriented.push(seen),
            }
        }
        reading
    }

    /// All that sockets told of a connection so far, the programs and us.
    fn evidence(&self, key: &OrphanKey, value: &OrphanValue) -> u16 {
        value.evidence | self.known.get(key).map_or(0, |known| known.sockets)
    }

    /// The direction of the edge that the connection was counted on before it fell silent, if it is the only one.
    fn of_silent_edge(&self, key: &OrphanKey, range: Option<IpNet>) -> Option<Answer> {
        let mut found = Direction::BOTH.into_iter().filter_map(|direction| {
            let by = |range| self.silent.get(&edge_key(key, direction, range));
            let by = by(None).or_else(|| by(range))?;
            Some((direction, *by))
        });
        found.next().filter(|_| found.next().is_none())
    }

    /// Takes out of the kernel what it has an edge for, and what was silent for long. Returns the packets of those
    /// that were no connections.
    fn retire(
        &mut self,
        values: &[(OrphanKey, OrphanValue)],
        maps: &OrphanMaps,
        now: u64,
    ) -> io::Result<u64> {
        let mut strays = 0;
        let mut freed: FxHashMap<u32, u64> = FxHashMap::default();
        for (key, value) in values {
            let Some(known) = self.known.get_mut(key) else { continue };
            let idle = now.saturating_sub(value.last_seen) > IDLE;
            if !(known.has_edge || idle) {
                continue;
            }
            let is_stray = idle && !known.counted;
            // Edges are matched first: once nothing came after the edge was made, nothing can come any more.
            if !is_stray && maps.table.get(key)?.is_some_and(|now| now != known.told) {
                continue;
            }
            maps.table.delete(key)?;
            if is_stray {
                strays += value.packets_from_pod + value.packets_to_pod;
            }
            *freed.entry(key.interface).or_default() += 1;
            *known = Known { told: OrphanValue::default(), in_kernel: false, has_edge: false, ..*known };
        }
        for (interface, freed) in freed {
            if let Some(told) = self.interfaces.get_mut(&interface) {
                told.allowance += freed;
                maps.tell(interface, told)?;
            }
        }
        if self.known.len() > MOST_REMEMBERED {
            self.known.retain(|_, known| known.in_kernel);
        }
        Ok(strays)
    }
}

/// The two ends of an orphan, at its interface.
pub(super) fn ends(key: &OrphanKey) -> Ends {
    Ends {
        local: SocketAddr::new(to_ip(key.local), key.local_port),
        remote: SocketAddr::new(to_ip(key.remote), key.remote_port),
        protocol: key.protocol,
    }
}

/// Which end opened a connection, as far as sockets tell: `here` is the evidence at the pod's own end, `elsewhere` is the evidence at the other end, where that
/// is a pod of this node too.
///
/// - Who listens on the connection's own port is the responder, unless both do.
/// - Where the pod has the connection open, on a client's port that nobody listens on, to a server's port: it is
///   the initiator. A server may have closed its listener while its connections live on, but then its port is no
///   client's. With client's ports at both ends, nothing tells.
/// - UDP: a socket that is connected to the other end is a client's, one that is not is a server's if its port is
///   one. With no socket at all, the sender of the first packet initiates.
fn orient(key: &OrphanKey, here: u16, elsewhere: Option<u16>) -> Option<Answer> {
    let has = |evidence: u16, bit: u16| evidence & bit != 0;
    let there = elsewhere.unwrap_or(0);
    let from_pod = |yes: bool| if yes { Direction::Egress } else { Direction::Ingress };
    let (local_serves, remote_serves) = (key.local_port < EPHEMERAL_FROM, key.remote_port < EPHEMERAL_FROM);
    if key.protocol == UDP {
        let by_socket = |client: bool, server: bool| match (client, server) {
            (true, false) => Some((from_pod(true), OrientedBy::Listener)),
            (false, true) => Some((from_pod(false), OrientedBy::Listener)),
            _ => None,
        };
        let client = has(here, OPEN) || (has(there, LISTENER) && remote_serves);
        let server = has(there, OPEN) || (has(here, LISTENER) && local_serves);
        let nobody = has(here, ASKED) && !has(here, OPEN | LISTENER);
        return by_socket(client, server)
            .or_else(|| nobody.then(|| (from_pod(has(here, FIRST_FROM_POD)), OrientedBy::FirstPacket)));
    }
    match (has(here, LISTENER), has(there, LISTENER)) {
        (true, false) => return Some((Direction::Ingress, OrientedBy::Listener)),
        (false, true) => return Some((Direction::Egress, OrientedBy::Listener)),
        (true, true) => return None,
        (false, false) => {}
    }
    let client_here = has(here, OPEN) && !local_serves && remote_serves;
    let client_there = has(there, OPEN) && !remote_serves && local_serves;
    match (client_here, client_there) {
        (true, _) => Some((Direction::Egress, OrientedBy::Listener)),
        (false, true) => Some((Direction::Ingress, OrientedBy::Listener)),
        (false, false) => None,
    }
}

/// Whether the packets are a connection's: not those of somebody who knocks on ports without opening one. Of TCP,
/// the pod has a socket of it, or both ends spoke (a proxy in the pod has the socket under other ports).
const fn is_connection(key: &OrphanKey, value: &OrphanValue, evidence: u16) -> bool {
    let asked_in_vain = evidence & (ASKED | OPEN) == ASKED;
    key.protocol == UDP || !asked_in_vain || (value.packets_from_pod > 0 && value.packets_to_pod > 0)
}

/// What came since the connection was last told; nothing where nothing came.
fn since_told(
    (key, range): (&OrphanKey, Option<IpNet>),
    value: &OrphanValue,
    known: &Known,
    moment: &Moment<'_>,
) -> Option<Unoriented> {
    let told = &known.told;
    let seen = Unoriented {
        key: model_key(key)?,
        range,
        connections: u64::from(!known.counted),
        packets_from_pod: value.packets_from_pod.saturating_sub(told.packets_from_pod),
        packets_to_pod: value.packets_to_pod.saturating_sub(told.packets_to_pod),
        bytes_from_pod: value.bytes_from_pod.saturating_sub(told.bytes_from_pod),
        bytes_to_pod: value.bytes_to_pod.saturating_sub(told.bytes_to_pod),
        first_seen: moment.clock.time(value.first_seen),
        last_seen: moment.clock.time(value.last_seen).min(moment.ended),
        read_from: known.waits_from.unwrap_or(moment.from),
        read_at: moment.ended,
        fully_visible: (moment.fully_visible)(key.interface),
        vlan: value.vlan,
        estimated: key.protocol == TCP && (moment.is_estimated)(key.interface),
    };
    (seen.packets_from_pod > 0 || seen.packets_to_pod > 0).then_some(seen)
}

/// `None` for a protocol that the programs do not record.
fn model_key(key: &OrphanKey) -> Option<UnorientedKey> {
    let Ends { local, remote, protocol } = ends(key);
    let protocol = Protocol::from_number(protocol)?;
    Some(UnorientedKey { interface: IfIndex(key.interface), local, remote, protocol })
}

fn kernel_key(key: &UnorientedKey) -> OrphanKey {
    OrphanKey {
        local: from_ip(key.local.ip()),
        remote: from_ip(key.remote.ip()),
        interface: key.interface.0,
        local_port: key.local.port(),
        remote_port: key.remote.port(),
        protocol: key.protocol.number(),
        padding: [0; 7],
    }
}

/// The edge of an orphan that was opened in this direction, as the programs look it up.
fn edge_key(key: &OrphanKey, direction: Direction, range: Option<IpNet>) -> KernelEdgeKey {
    let remote = range.map_or(key.remote, |range| from_ip(range.network()));
    let folded = range.map_or(0, |range| (range.max_prefix_len() - range.prefix_len()) << FOLDED_SHIFT);
    let (initiator, responder, port, local_initiated) = match direction {
        Direction::Egress => (key.local, remote, key.remote_port, LOCAL_INITIATED),
        Direction::Ingress => (remote, key.local, key.local_port, 0),
    };
    let flags = folded | local_initiated;
    KernelEdgeKey { initiator, responder, interface: key.interface, port, protocol: key.protocol, flags }
}

/// Makes an edge, charged as if the programs had. One that is there already is as good; false where its interface has
/// no room for another.
fn make_edge(
    edge: &KernelEdgeKey,
    value: EdgeValue,
    edges: &EdgeMap,
    bounds: &mut Bounds,
) -> io::Result<bool> {
    let account = Account { interface: edge.interface, kind: u32::from(value.kind) };
    if !bounds.has_room(&account)? {
        return Ok(edges.get(edge)?.is_some());
    }
    if edges.insert(edge, &value)? {
        bounds.charge(account)?;
    }
    Ok(true)
}

/// What the edge of an orphan begins with: nothing is counted, since the orphan's own counts are told as such. Its
/// times say which ends spoke, so that datagrams are answers.
const fn edge_value(
    key: &OrphanKey,
    value: &OrphanValue,
    (direction, by): Answer,
    outside: bool,
) -> EdgeValue {
    let (to_responder, to_initiator) = match direction {
        Direction::Egress => (value.packets_from_pod, value.packets_to_pod),
        Direction::Ingress => (value.packets_to_pod, value.packets_from_pod),
    };
    EdgeValue {
        attempts: 0,
        accepted: 0,
        refused: 0,
        packets_to_responder: 0,
        packets_to_initiator: 0,
        bytes_to_responder: 0,
        bytes_to_initiator: 0,
        first_seen: value.first_seen,
        last_to_responder: if to_responder > 0 { value.last_seen } else { 0 },
        last_to_initiator: if to_initiator > 0 { value.last_seen } else { 0 },
        // Of datagrams, the time of the attempt: this one, so that its answers are not counted again.
        opened: if key.protocol == UDP { value.first_seen } else { 0 },
        answered: if key.protocol == UDP && to_initiator > 0 { value.first_seen } else { 0 },
        errors: [0; 3],
        vlan: value.vlan,
        oriented_by: match by {
            OrientedBy::Handshake => BY_HANDSHAKE,
            OrientedBy::FirstPacket => BY_FIRST_PACKET,
            OrientedBy::Service => BY_SERVICE,
            _ => BY_LISTENER,
        },
        kind: match (direction, outside) {
            (Direction::Egress, _) => Kind::Opened,
            (Direction::Ingress, false) => Kind::Cluster,
            (Direction::Ingress, true) => Kind::Outside,
        } as u8,
        padding: [0; 3],
    }
}

#[cfg(test)]
mod tests;
