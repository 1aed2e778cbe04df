//! The ledger: every edge seen, who its ends were then, and what each scenario says of it now.

use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashSet};

use super::judges::Answers;
use crate::model::edge::{Counters, Direction, Edge, Protocol};
use crate::model::endpoint::{Endpoint, Party};
use crate::model::identity::IdentityId;
use crate::model::outcome::{Outcome, Pending};
use crate::model::time::Timestamp;
use crate::model::verdict::UnknownReason;

/// Who an end was, as far as it makes another edge: a pod with other labels is another owner.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Owner<'a> {
    /// By namespace, name and uid.
    Pod([&'a str; 3], IdentityId),
    Node(&'a str),
    Service(&'a str, &'a str),
    External,
    Range(u8),
    Unknown(&'a UnknownReason),
}

impl<'a> Owner<'a> {
    fn of(party: &'a Party) -> Self {
        match &party.endpoint {
            Endpoint::Pod(pod) => Self::Pod([&pod.namespace, &pod.name, &pod.uid], pod.identity.id),
            Endpoint::Node(name) => Self::Node(name),
            Endpoint::Service(service) => Self::Service(&service.namespace, &service.name),
            Endpoint::External => Self::External,
            Endpoint::Range(length) => Self::Range(*length),
            Endpoint::Unknown(reason) => Self::Unknown(reason),
        }
    }
}

/// What makes an edge of the ledger one edge. Not the interface: a pod may get a new one.
#[derive(Debug, PartialEq, Eq, Hash)]
struct EdgeId<'a> {
    direction: Direction,
    initiator: (Option<IpAddr>, Owner<'a>),
    responder: (Option<IpAddr>, Owner<'a>),
    port: u16,
    protocol: Protocol,
}

impl<'a> EdgeId<'a> {
    fn of(edge: &'a Edge) -> Self {
        Self {
            direction: edge.direction,
            initiator: (edge.initiator.address, Owner::of(&edge.initiator)),
            responder: (edge.responder.address, Owner::of(&edge.responder)),
            port: edge.port,
            protocol: edge.protocol,
        }
    }
}

fn hash(edge: &Edge) -> u64 {
    FxBuildHasher.hash_one(EdgeId::of(edge))
}

/// An edge and what was answered of it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub edge: Edge,
    /// What scenarios and segment maps say of it.
    pub answers: Arc<Answers>,
    /// The generation of [`Judges`](super::judges::Judges) that gave them.
    pub generation: u64,
    /// Attempts whose answer may still come.
    pending: Pending,
    /// The reading that brought the last of its counts.
    reading: u64,
}

/// Every edge seen, bounded.
#[derive(Debug)]
pub struct Ledger {
    entries: Vec<Entry>,
    /// Where the entry of an edge is.
    places: HashTable<u32>,
    /// Where the entries are whose attempts wait for their answer.
    unanswered: FxHashSet<u32>,
    most: usize,
    reading: u64,
    evicted: u64,
}

/// Which part of a full ledger makes room at once: a sixteenth.
const EVICTED: usize = 16;
/// By which part the room for entries grows: doubling it would leave up to half of it empty.
const GROWTH: usize = 8;

impl Ledger {
    /// An empty ledger that holds at most `most` edges.
    pub fn new(most: usize) -> Self {
        Self {
            entries: Vec::new(),
            places: HashTable::new(),
            unanswered: FxHashSet::default(),
            most,
            reading: 0,
            evicted: 0,
        }
    }

    /// Adds what an edge counted: `edge.counters` is the delta. A new edge is judged with `judge`, and so is one
    /// whose Service got other backends. Returns its entry and what became of the connections, or nothing if
    /// the ledger is full.
    pub fn add(
        &mut self,
        edge: Edge,
        generation: u64,
        judge: impl FnOnce(&Edge) -> Arc<Answers>,
    ) -> Option<(&Entry, Outcome)> {
        let hashed = hash(&edge);
        let delta = edge.counters;
        let place = match self.find(hashed, &edge) {
            Some(place) => {
                self.entries.get_mut(place as usize)?.absorb(edge, generation, judge);
                place
            }
            None if self.entries.len() >= self.most && self.evict() == 0 => return None,
            None => {
                let answers = judge(&edge);
                let entry = Entry { edge, answers, generation, pending: Pending::default(), reading: 0 };
                self.push(hashed, entry)?
            }
        };
        let entry = self.entries.get_mut(place as usize)?;
        entry.reading = self.reading;
        let outcome = entry.advance(&delta);
        if entry.pending.is_empty() {
            self.unanswered.remove(&place);
        } else {
            self.unanswered.insert(place);
        }
        Some((&*entry, outcome))
    }

    fn find(&self, hashed: u64, edge: &Edge) -> Option<u32> {
        let id = EdgeId::of(edge);
        let is_it = |place: &u32| {
            self.entries.get(*place as usize).is_some_and(|entry| EdgeId::of(&entry.edge) == id)
        };
        self.places.find(hashed, is_it).copied()
    }

    /// Enters a new edge; `None` beyond what can be counted.
    fn push(&mut self, hashed: u64, entry: Entry) -> Option<u32> {
        let place = u32::try_from(self.entries.len()).ok()?;
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact((self.entries.len() / GROWTH).max(64));
        }
        self.entries.push(entry);
        let entries = &self.entries;
        let hash_at = |place: &u32| entries.get(*place as usize).map_or(0, |entry| hash(&entry.edge));
        self.places.insert_unique(hashed, place, hash_at);
        Some(place)
    }

    /// Lets entries go, and returns how many went.
    fn retain(&mut self, keep: impl FnMut(&Entry) -> bool) -> usize {
        let before = self.entries.len();
        self.entries.retain(keep);
        let gone = before - self.entries.len();
        if gone > 0 {
            self.places.clear();
            self.unanswered.clear();
            for (place, entry) in (0_u32..).zip(&self.entries) {
                self.places.insert_unique(hash(&entry.edge), place, |_| 0);
                if !entry.pending.is_empty() {
                    self.unanswered.insert(place);
                }
            }
        }
        gone
    }

    /// Makes room: of the edges that nobody ever accepted, which a scan leaves behind, those seen longest ago go.
    /// Returns how many.
    fn evict(&mut self) -> usize {
        let is_unaccepted = |entry: &Entry| entry.edge.counters.accepted == 0 && entry.pending.is_empty();
        let unaccepted = self.entries.iter().filter(|entry| is_unaccepted(entry));
        let mut seen: Vec<Timestamp> = unaccepted.map(|entry| entry.edge.last_seen).collect();
        // Many at once: it takes a walk through all.
        let wanted = (self.most / EVICTED).max(1).min(seen.len());
        let Some(at) = wanted.checked_sub(1) else { return 0 };
        let (_, last, _) = seen.select_nth_unstable(at);
        let last = *last;
        let mut left = wanted;
        let evicted = self.retain(|entry| {
            let goes = left > 0 && is_unaccepted(entry) && entry.edge.last_seen <= last;
            left -= usize::from(goes);
            !goes
        });
        self.evicted += evicted as u64;
        evicted
    }

    /// How many edges that nobody ever accepted had to make room for others.
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// A reading is whole: attempts that waited for an answer through all of it have none. `failed` is given
    /// each edge with such.
    pub fn end_reading(&mut self, mut failed: impl FnMut(&Entry, Outcome)) {
        let (entries, reading) = (&mut self.entries, self.reading);
        self.unanswered.retain(|place| {
            let Some(entry) = entries.get_mut(*place as usize) else { return false };
            if entry.reading != reading {
                let outcome = entry.advance(&Counters::default());
                failed(entry, outcome);
            }
            !entry.pending.is_empty()
        });
        self.reading += 1;
    }

    /// All entries, in no order that means anything.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The entries from the `from`-th on, at most `count` of them, to be judged again.
    pub fn slice_mut(&mut self, from: usize, count: usize) -> impl Iterator<Item = &mut Entry> {
        let end = from.saturating_add(count).min(self.entries.len());
        let start = from.min(end);
        self.entries.get_mut(start..end).into_iter().flatten()
    }

    /// Forgets edges last seen before `time`, and returns how many.
    pub fn forget_before(&mut self, time: Timestamp) -> usize {
        self.retain(|entry| entry.edge.last_seen >= time)
    }

    /// How many edges there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Entry {
    fn advance(&mut self, delta: &Counters) -> Outcome {
        self.pending.advance(self.edge.protocol, delta, self.edge.fully_visible)
    }

    fn absorb(&mut self, seen: Edge, generation: u64, judge: impl FnOnce(&Edge) -> Arc<Answers>) {
        let edge = &mut self.edge;
        // What goes on with connections that are open stays where they went: a Service may lead elsewhere by now.
        let opens = seen.counters.attempts > 0;
        let led_elsewhere = edge.initiator.endpoint != seen.initiator.endpoint
            || edge.responder.endpoint != seen.responder.endpoint;
        let moved = opens && led_elsewhere || edge.vlan != seen.vlan;
        edge.counters = edge.counters.plus(seen.counters);
        edge.first_seen = edge.first_seen.min(seen.first_seen);
        edge.last_seen = edge.last_seen.max(seen.last_seen);
        edge.fully_visible |= seen.fully_visible;
        edge.estimated |= seen.estimated;
        edge.vlan = seen.vlan;
        if moved || self.generation != generation {
            if opens {
                edge.cause = seen.cause;
                edge.initiator = seen.initiator;
                edge.responder = seen.responder;
            }
            self.answers = judge(&self.edge);
            self.generation = generation;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::cause::Cause;
    use crate::model::edge::OrientedBy;
    use crate::model::endpoint::{Backend, Pod, ServiceTarget};
    use crate::model::identity::{IdentityParts, Interner};
    use crate::model::labels::Labels;
    use crate::model::object::WorkloadRef;
    use crate::model::role::Roles;

    /// A pod without an address; every call gives it an identity of its own interner.
    pub(in crate::audit) fn mk_pod(namespace: &str, name: &str) -> Party {
        mk_pod_with_roles(namespace, name, Roles::NONE)
    }

    pub(in crate::audit) fn mk_pod_with_roles(namespace: &str, name: &str, roles: Roles) -> Party {
        let labels: Labels = [("app", name)].into_iter().collect();
        let parts = IdentityParts {
            namespace: namespace.into(),
            namespace_labels: Labels::default(),
            labels: labels.clone(),
            service_account: "default".into(),
            named_ports: Vec::new(),
            roles,
        };
        let pod = Pod {
            namespace: namespace.into(),
            name: name.into(),
            uid: "".into(),
            identity: Interner::default().intern(parts),
            workload: WorkloadRef::new("Deployment", namespace, name),
            owners: Arc::default(),
            selector: labels,
            node: None,
            host_network: false,
            addresses: Arc::default(),
            from_template: false,
        };
        Party::pod(Arc::new(pod), None)
    }

    pub(in crate::audit) fn mk_edge(initiator: Party, responder: Party, port: u16) -> Edge {
        Edge {
            initiator,
            responder,
            port,
            protocol: Protocol::Tcp,
            direction: Direction::Egress,
            cause: Cause::SameNamespace,
            counters: Counters { attempts: 1, accepted: 1, ..Counters::default() },
            first_seen: Timestamp::from_nanos(5),
            last_seen: Timestamp::from_nanos(9),
            oriented_by: OrientedBy::Handshake,
            fully_visible: true,
            vlan: 0,
            estimated: false,
        }
    }

    #[test]
    fn deltas_of_one_edge_add_up_and_it_is_judged_once_a_generation() {
        let mut ledger = Ledger::new(10);
        let mut judged = 0;
        for generation in [1, 1, 2, 2] {
            let edge = mk_edge(mk_pod("a", "x"), mk_pod("a", "y"), 80);
            ledger.add(edge, generation, |_| {
                judged += 1;
                Arc::default()
            });
        }
        assert_eq!(ledger.len(), 1);
        assert_eq!(ledger.entries().next().unwrap().edge.counters.attempts, 4);
        assert_eq!(judged, 2);
    }

    #[test]
    fn what_goes_on_without_a_new_connection_stays_where_it_went() {
        let mut ledger = Ledger::new(10);
        let service = |backends: &[&str]| {
            let backends = backends.iter().map(|name| Backend { party: mk_pod("a", name), port: 8080 });
            let target =
                ServiceTarget { namespace: "a".into(), name: "db".into(), backends: backends.collect() };
            Party { endpoint: Endpoint::Service(Arc::new(target)), ..mk_pod("a", "y") }
        };
        let mut judged = 0;
        for (backends, attempts) in [(&["y"][..], 1), (&["y", "z"][..], 0), (&["y", "z"][..], 1)] {
            let edge = mk_edge(mk_pod("a", "x"), service(backends), 80);
            let counters = Counters { attempts, packets_to_responder: 1, ..Counters::default() };
            ledger.add(Edge { counters, ..edge }, 1, |_| {
                judged += 1;
                Arc::default()
            });
        }
        assert_eq!(judged, 2, "at first, and when a connection was opened");
    }

    #[test]
    fn a_full_ledger_takes_no_new_edge_but_counts_the_known_ones() {
        let mut ledger = Ledger::new(1);
        let edge = |port| mk_edge(mk_pod("a", "x"), mk_pod("a", "y"), port);
        assert!(ledger.add(edge(80), 1, |_| Arc::default()).is_some());
        assert!(ledger.add(edge(81), 1, |_| Arc::default()).is_none());
        assert_eq!(
            ledger.add(edge(80), 1, |_| Arc::default()).map(|(entry, _)| entry.edge.counters.attempts),
            Some(2)
        );
    }

    #[test]
    fn in_a_full_ledger_edges_that_nobody_accepted_make_room_the_oldest_first() {
        let mut ledger = Ledger::new(3);
        let mk = |port, accepted, second| Edge {
            counters: Counters {
                attempts: accepted,
                accepted,
                packets_to_responder: 1,
                ..Counters::default()
            },
            last_seen: Timestamp::from_nanos(second),
            ..mk_edge(mk_pod("a", "x"), mk_pod("a", "y"), port)
        };
        for edge in [mk(80, 1, 1), mk(81, 0, 3), mk(82, 0, 2), mk(83, 1, 9)] {
            assert!(ledger.add(edge, 1, |_| Arc::default()).is_some());
        }
        let mut ports: Vec<u16> = ledger.entries().map(|entry| entry.edge.port).collect();
        ports.sort_unstable();
        assert_eq!((ports, ledger.evicted()), (vec![80, 81, 83], 1));
    }

    #[test]
    fn edges_are_found_again_after_others_went_and_so_is_what_waits() {
        let mut ledger = Ledger::new(100);
        let edge = |port, second, attempts| Edge {
            counters: Counters { attempts, ..Counters::default() },
            last_seen: Timestamp::from_nanos(second),
            ..mk_edge(mk_pod("a", "x"), mk_pod("a", "y"), port)
        };
        for port in 0..50 {
            ledger.add(edge(port, u64::from(port % 5), 1), 1, |_| Arc::default());
        }
        assert_eq!(ledger.forget_before(Timestamp::from_nanos(3)), 30);
        for port in (0..50).filter(|port| port % 5 >= 3) {
            let found = ledger.add(edge(port, 9, 1), 1, |_| Arc::default());
            assert_eq!(
                found.map(|(entry, _)| (entry.edge.port, entry.edge.counters.attempts)),
                Some((port, 2))
            );
        }
        assert_eq!(ledger.len(), 20);
        let mut unanswered = 0;
        for _ in 0..3 {
            ledger.end_reading(|_, outcome| unanswered += outcome.unanswered);
        }
        assert_eq!(unanswered, 20, "those read before were told as unanswered when they were read again");
    }

    #[test]
    fn an_attempt_is_unanswered_after_a_whole_reading_without_an_answer() {
        let mut ledger = Ledger::new(10);
        let attempt = Counters { attempts: 2, ..Counters::default() };
        let edge = Edge { counters: attempt, ..mk_edge(mk_pod("a", "x"), mk_pod("a", "y"), 80) };
        ledger.add(edge, 1, |_| Arc::default());
        let mut failed = Vec::new();
        for _ in 0..3 {
            ledger.end_reading(|_, outcome| failed.push(outcome.unanswered));
        }
        assert_eq!(failed, [2], "not in the reading that brought it, once in the next, and never again");
    }

    #[test]
    fn edges_idle_for_long_are_forgotten() {
        let mut ledger = Ledger::new(10);
        ledger.add(mk_edge(mk_pod("a", "x"), mk_pod("a", "y"), 80), 1, |_| Arc::default());
        assert_eq!(ledger.forget_before(Timestamp::from_nanos(9)), 0);
        assert_eq!(ledger.forget_before(Timestamp::from_nanos(10)), 1);
    }
}
