//! What the node's NAT did: to which backends a Service's address led, and who is behind a node's address.
//!
//! Masquerading gives many clients one address of the node, and an edge has no client port: one edge at the
//! backend's interface is the sum of theirs. It is taken apart here by the connections that were told between
//! two readings. Attempts and answers go to who made them, in order; packets and bytes, which nothing tells
//! apart, in proportion.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use indexmap::IndexMap;
use rustc_hash::{FxBuildHasher, FxHashMap};
use smallvec::{SmallVec, smallvec};

use crate::model::edge::{Counters, Direction, EdgeKey, Observation, Protocol, Scope};
use crate::model::folding::Foldings;
use crate::model::record::LossRecord;
use crate::model::time::Timestamp;
use crate::model::translation::Translation;

/// A connection that was told and that no reading counted for this long was dropped before the backend's interface,
/// or went to another node. A reading follows its packets much sooner.
const UNREAD_PATIENCE: Duration = Duration::from_secs(3);
/// An attempt that nobody answered for this long has no answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// An edge not seen for this long loses what is known of its clients; so does a client, where room is needed.
const FORGET: Duration = Duration::from_secs(3600);
/// How often room is made.
const SWEEP: Duration = Duration::from_secs(60);
/// Clients behind one edge that are told apart; those beyond are hidden. A crowd outside takes no more of the
/// ledger than this, and is folded before.
const MOST_CLIENTS: usize = 1024;
/// Connections that may wait for the reading that counts them, and edges with hidden clients.
const MOST_UNREAD: usize = 131_072;
const MOST_HIDING: usize = 16_384;

/// Whether the initiator of an observation is who the packets say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Opener {
    /// Only the packets say so.
    Seen,
    /// So does connection tracking.
    Confirmed,
    /// Source NAT hid it, and who it was is not known.
    Hidden,
}

/// The part of an observation that one initiator made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub seen: Observation,
    pub opener: Opener,
}

/// Who made a part of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Client {
    /// Whose address the packets bear.
    Bearer,
    /// Source NAT's own address hides this one, or a range that stands for it.
    Behind(IpAddr, Scope),
    Hidden,
}

/// What each client made, in no order that means anything.
type Shares = IndexMap<Client, Counters, FxBuildHasher>;

/// An edge as a backend sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Hiding {
    protocol: Protocol,
    backend: SocketAddr,
    seen_as: IpAddr,
}

/// The clients behind one edge.
#[derive(Debug, Default)]
struct Clients {
    /// Told, and in no reading yet.
    unread: VecDeque<(Client, Timestamp)>,
    /// Attempts without an answer, in order.
    unanswered: VecDeque<(Client, Timestamp)>,
    /// How many connections each opened, and when the last.
    known: IndexMap<Client, (u64, Timestamp), FxBuildHasher>,
    swept: Timestamp,
    last: Timestamp,
}

/// Everything that connection tracking told and that readings still ask for.
#[derive(Debug, Default)]
pub struct Translations {
    /// Connection tracking is followed.
    followed: bool,
    /// Some connections were not told since the last reading.
    missed: bool,
    foldings: Foldings,
    hiding: FxHashMap<Hiding, Clients>,
    unread: usize,
    /// By protocol, client and what it asked for, since the last reading.
    backends: FxHashMap<(Protocol, IpAddr, SocketAddr), SmallVec<[SocketAddr; 2]>>,
    /// Edges and packets whose initiator stayed hidden because something was missed, or for want of room.
    lost: [(u64, u64); 2],
}

impl Translations {
    /// Connection tracking can be read, or no longer.
    pub const fn follow(&mut self, followed: bool) {
        self.followed = followed;
    }

    /// Addresses are kept apart so from now on.
    pub fn fold(&mut self, foldings: Foldings) {
        self.foldings = foldings;
    }

    /// Some connections opened since the last reading were not told.
    pub const fn missed(&mut self) {
        self.missed = true;
    }

    /// A connection was opened.
    pub fn opened(&mut self, told: &Translation, now: Timestamp) {
        if self.backends.len() < MOST_UNREAD {
            let backends = self.backends.entry((told.protocol, told.client, told.asked)).or_default();
            if !backends.contains(&told.backend) {
                backends.push(told.backend);
            }
        }
        let (full, client) = (self.unread >= MOST_UNREAD, self.client(told));
        let Some(clients) = self.clients(told, now) else { return };
        if full {
            self.missed = true;
            return;
        }
        clients.unread.push_back((client, now));
        self.unread += 1;
    }

    /// A connection stands that may have been opened before anything was told.
    pub fn standing(&mut self, told: &Translation, now: Timestamp) {
        let client = self.client(told);
        if let Some(clients) = self.clients(told, now) {
            clients.remember(client, 0, now);
        }
    }

    /// Who opened it, as the programs would key the address if packets bore it.
    fn client(&self, told: &Translation) -> Client {
        match self.foldings.place(told.client).0 {
            Some(range) => Client::Behind(range.network(), Scope::Range(range.prefix_len())),
            None => Client::Behind(told.client, Scope::Address),
        }
    }

    /// The clients of the edge that hides this one, if it is hidden and there is room.
    fn clients(&mut self, told: &Translation, now: Timestamp) -> Option<&mut Clients> {
        if !told.hides_client() {
            return None;
        }
        let key = Hiding { protocol: told.protocol, backend: told.backend, seen_as: told.seen_as };
        if self.hiding.len() >= MOST_HIDING && !self.hiding.contains_key(&key) {
            self.missed = true;
            return None;
        }
        let clients = self.hiding.entry(key).or_default();
        clients.last = clients.last.max(now);
        Some(clients)
    }

    /// Where the node sent what the client asked for since the last reading.
    pub fn backends(&self, key: &EdgeKey) -> &[SocketAddr] {
        let asked = SocketAddr::new(key.responder, key.port);
        self.backends.get(&(key.protocol, key.initiator, asked)).map_or(&[], |backends| backends)
    }

    /// Takes an observation apart by who made it. The parts add up to it; of datagrams, each flow told is an
    /// attempt, since the kernel side counts only the first of an edge.
    pub fn split(&mut self, seen: &Observation, now: Timestamp) -> SmallVec<[Part; 1]> {
        let whole = |opener| smallvec![Part { seen: *seen, opener }];
        if seen.key.direction == Direction::Egress || !self.followed {
            return whole(Opener::Seen);
        }
        let key = Hiding {
            protocol: seen.key.protocol,
            backend: SocketAddr::new(seen.key.responder, seen.key.port),
            seen_as: seen.key.initiator,
        };
        let Some(clients) = self.hiding.get_mut(&key) else {
            return whole(if self.missed { Opener::Seen } else { Opener::Confirmed });
        };
        clients.last = clients.last.max(now);
        let unread = clients.unread.len();
        let rest = if self.missed { Client::Hidden } else { Client::Bearer };
        let shares = match seen.key.protocol {
            Protocol::Tcp | Protocol::Sctp => clients.connections(seen, rest, now),
            Protocol::Udp | Protocol::Icmp | Protocol::Icmpv6 => clients.flows(seen, rest, now),
        };
        self.unread -= unread - clients.unread.len();
        let (missed, lost) = (self.missed, &mut self.lost);
        let part = |(client, delta): (Client, Counters)| {
            if client == Client::Hidden {
                let (edges, packets) = &mut lost[usize::from(!missed)];
                *edges += 1;
                *packets += delta.packets();
            }
            part(seen, client, delta)
        };
        shares.into_iter().filter(|(_, delta)| !delta.is_zero()).map(part).collect()
    }

    /// A reading is whole: what it asked for is not asked again.
    pub fn end_reading(&mut self, now: Timestamp) {
        self.missed = false;
        self.backends.clear();
        let (told_after, opened_after) = (now.minus(UNREAD_PATIENCE), now.minus(ANSWER_PATIENCE));
        let mut unread = 0;
        self.hiding.retain(|_, clients| {
            clients.unread.retain(|(_, told)| *told >= told_after);
            clients.unanswered.retain(|(_, opened)| *opened >= opened_after);
            unread += clients.unread.len();
            now.since(clients.last) < FORGET
        });
        self.unread = unread;
    }

    /// What could not be told apart.
    pub fn losses(&self) -> [LossRecord; 2] {
        let [missed, full] = self.lost;
        [("overrun", missed), ("full", full)].map(|(reason, (edges, packets))| LossRecord {
            stage: "conntrack".to_owned(),
            reason: reason.to_owned(),
            packets,
            edges,
        })
    }
}

fn part(whole: &Observation, client: Client, delta: Counters) -> Part {
    let mut seen = Observation { delta, ..*whole };
    let opener = match client {
        Client::Bearer => Opener::Confirmed,
        Client::Hidden => Opener::Hidden,
        Client::Behind(address, scope) => {
            (seen.key.initiator, seen.key.scope) = (address, scope);
            // The edge's first packet may have been another client's.
            seen.first_seen = seen.first_seen.max(seen.read_from).min(seen.last_seen);
            Opener::Confirmed
        }
    };
    Part { seen, opener }
}

impl Clients {
    /// Adds to what a client opened; one for whom there is no room is hidden.
    fn remember(&mut self, client: Client, connections: u64, now: Timestamp) -> Client {
        let has_room = |known: &IndexMap<_, _, _>| known.len() < MOST_CLIENTS || known.contains_key(&client);
        if !has_room(&self.known) && now.since(self.swept) >= SWEEP {
            self.known.retain(|_, (_, last)| now.since(*last) < FORGET);
            self.swept = now;
        }
        let client = if has_room(&self.known) { client } else { Client::Hidden };
        let (known, last) = self.known.entry(client).or_default();
        *known = known.saturating_add(connections).max(1);
        *last = now;
        client
    }

    /// Shares of protocols with a handshake: an attempt is a connection told, an answer goes to the attempt that
    /// has waited longest.
    fn connections(&mut self, seen: &Observation, rest: Client, now: Timestamp) -> Shares {
        let Counters { attempts, accepted, refused, .. } = seen.delta;
        let mut shares: Shares = IndexMap::default();
        for _ in 0..attempts {
            let client = self.unread.pop_front().map_or(rest, |(client, _)| client);
            let client = self.remember(client, 1, now);
            shares.entry(client).or_default().attempts += 1;
            if seen.fully_visible {
                self.unanswered.push_back((client, now));
            }
        }
        for (mut unclaimed, of) in [(accepted, ACCEPTED), (refused, REFUSED)] {
            while unclaimed > 0
                && let Some((client, _)) = self.unanswered.pop_front()
            {
                *of(shares.entry(client).or_default()) += 1;
                unclaimed -= 1;
            }
            // Opened before this was followed, or seen only by its answers.
            let weights = self.weights(&shares, rest);
            distribute(unclaimed, of, &weights, &mut shares);
        }
        let weights = self.weights(&shares, rest);
        distribute_packets(&seen.delta, &weights, &mut shares);
        shares
    }

    /// Shares of datagrams: everything in proportion to the flows told, and each of those is an attempt.
    fn flows(&mut self, seen: &Observation, rest: Client, now: Timestamp) -> Shares {
        let mut shares: Shares = IndexMap::default();
        while let Some((client, _)) = self.unread.pop_front() {
            let client = self.remember(client, 1, now);
            shares.entry(client).or_default().attempts += 1;
        }
        let told = !shares.is_empty();
        let weights = self.weights(&shares, rest);
        let Counters { attempts, accepted, refused, .. } = seen.delta;
        if !told {
            distribute(attempts, ATTEMPTS, &weights, &mut shares);
        }
        distribute(accepted, ACCEPTED, &weights, &mut shares);
        distribute(refused, REFUSED, &weights, &mut shares);
        distribute_packets(&seen.delta, &weights, &mut shares);
        shares
    }

    /// By what is shared: connections of this interval, else all that are known, else everything is the rest's.
    fn weights(&self, shares: &Shares, rest: Client) -> Vec<(Client, u64)> {
        let weight = |c: &Counters| c.attempts + c.accepted + c.refused;
        let of_interval = shares.iter().map(|(client, counters)| (*client, weight(counters)));
        let mut weights: Vec<_> = of_interval.filter(|(_, weight)| *weight > 0).collect();
        if weights.is_empty() {
            weights = self.known.iter().map(|(client, (weight, _))| (*client, *weight)).collect();
        }
        if weights.is_empty() {
            weights.push((rest, 1));
        }
        weights
    }
}

/// One of the counters.
type Field = fn(&mut Counters) -> &mut u64;

const ATTEMPTS: Field = |c| &mut c.attempts;
const ACCEPTED: Field = |c| &mut c.accepted;
const REFUSED: Field = |c| &mut c.refused;
const PACKETS_AND_BYTES: [Field; 4] = [
    |c| &mut c.packets_to_responder,
    |c| &mut c.packets_to_initiator,
    |c| &mut c.bytes_to_responder,
    |c| &mut c.bytes_to_initiator,
];

fn distribute_packets(whole: &Counters, weights: &[(Client, u64)], shares: &mut Shares) {
    let mut whole = *whole;
    for field in PACKETS_AND_BYTES {
        distribute(*field(&mut whole), field, weights, shares);
    }
}

/// Adds `total` to a counter of the clients, in parts proportional to their weights.
fn distribute(total: u64, field: Field, weights: &[(Client, u64)], shares: &mut Shares) {
    if total == 0 {
        return;
    }
    let sum: u128 = weights.iter().map(|(_, weight)| u128::from(*weight)).sum();
    let (mut seen, mut given) = (0_u128, 0_u64);
    for (client, weight) in weights {
        seen += u128::from(*weight);
        let until = u64::try_from(u128::from(total) * seen / sum.max(1)).unwrap_or(total);
        *field(shares.entry(*client).or_default()) += until - given;
        given = until;
    }
}

#[cfg(test)]
mod tests;
