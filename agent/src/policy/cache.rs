//! What a judge remembers: decisions, which policies select an identity, which conditions it fulfils. Bounded.

use std::hash::{BuildHasher as _, Hash};
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::model::edge::{Direction, Protocol};
use crate::model::facts::ConnectionFacts;
use crate::model::object::ObjectRef;
use crate::model::role::Roles;
use crate::model::verdict::{Decision, UnknownReason};

use super::fault::Field;
use super::judge::NodeRelation;
use super::prefix::AddressClass;
use super::tier::{CompiledPolicy, ConditionId};
use super::tri::Tri;

/// Decisions kept in one generation: what a hash table of 32,768 places holds, of 24 bytes each. The decisions
/// themselves are [`Shared`].
const DECISIONS: usize = 28_672;
/// Identities times the policies that select them; an entry takes 24 bytes.
const SELECTED: usize = 1_000_000;
/// Bytes for the conditions that identities fulfil.
const MEMBERSHIP_BYTES: usize = 32 << 20;
/// Different reasons why a peer is unknown; each may name an object.
const REASONS: usize = 4_096;

/// What a decision depends on, in 20 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    subject: u32,
    /// The peer's identity, or the number of the reason why it is unknown.
    peer: u32,
    class: AddressClass,
    /// Port, protocol, direction and the peer's kind.
    rest: u32,
    /// The number of what is known besides; 0 is nothing.
    given: u32,
}

/// The peer's part of a key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum KeyPeer {
    Pod(usize),
    /// Its number, and how it stands to the subject, where policies tell nodes apart.
    Node(u32, NodeRelation),
    External,
    Unknown(u32),
}

impl Key {
    pub(crate) fn new(
        subject: usize,
        (peer, class): (KeyPeer, AddressClass),
        (port, protocol): (u16, Protocol),
        direction: Direction,
        given: u32,
    ) -> Self {
        let (kind, peer) = match peer {
            KeyPeer::Pod(identity) => (0, low(identity)),
            KeyPeer::External => (1, 0),
            KeyPeer::Unknown(reason) => (2, reason),
            KeyPeer::Node(number, relation) => (3 + relation as u32, number),
        };
        let rest = u32::from(port) | (protocol as u32) << 16 | (direction as u32) << 20 | kind << 24;
        Self { subject: low(subject), peer, class, rest, given }
    }
}

/// Identities are numbered in 32 bits.
fn low(identity: usize) -> u32 {
    u32::try_from(identity).unwrap_or(u32::MAX)
}

/// A map that forgets what was not asked for lately: when the young generation is full it becomes the old one.
#[derive(Debug)]
pub(crate) struct Generations<K, V> {
    young: FxHashMap<K, V>,
    old: FxHashMap<K, V>,
    limit: usize,
}

impl<K: Hash + Eq, V: Clone> Generations<K, V> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { young: FxHashMap::default(), old: FxHashMap::default(), limit }
    }

    pub(crate) fn get(&mut self, key: K) -> Option<V> {
        if let Some(value) = self.young.get(&key) {
            return Some(value.clone());
        }
        let value = self.old.remove(&key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.limit {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

/// Equal decisions, each once: with its texts a denial takes some 500 bytes, and most connections get one of a few.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    known: HashTable<Arc<Decision>>,
    /// At how many those that nobody holds are forgotten.
    most: usize,
}

/// Fewer are not worth a walk.
const FEW: usize = 1_024;

impl Shared {
    pub(crate) fn share(&mut self, decision: Arc<Decision>) -> Arc<Decision> {
        // Whoever else holds it got it from here.
        if Arc::strong_count(&decision) > 1 {
            return decision;
        }
        if self.known.len() >= self.most {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.most = (self.known.len() * 2).max(FEW);
        }
        let hash = |decision: &Arc<Decision>| FxBuildHasher.hash_one(decision);
        let entry = self.known.entry(hash(&decision), |known| *known == decision, hash);
        Arc::clone(entry.or_insert(decision).get())
    }
}

/// Which conditions an identity fulfils, found out one by one: two bits each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Membership {
    bits: Vec<u8>,
}

impl Membership {
    /// Whether the condition is fulfilled. `find` is asked once for each condition, and again where its answer
    /// is a doubt.
    pub(crate) fn holds(&mut self, condition: ConditionId, find: impl FnOnce() -> Tri) -> Tri {
        let at = condition.0 as usize;
        let (byte, shift) = (at / 4, at % 4 * 2);
        if self.bits.len() <= byte {
            self.bits.resize(byte + 1, 0);
        }
        let Some(bits) = self.bits.get_mut(byte) else { return find() };
        match *bits >> shift & 3 {
            1 => Tri::No,
            2 => Tri::Yes,
            _ => {
                let holds = find();
                *bits |= match holds {
                    Tri::No => 1,
                    Tri::Yes => 2,
                    Tri::Maybe(_) => 0,
                } << shift;
                holds
            }
        }
    }
}

/// A policy that selects a subject in a direction.
#[derive(Debug, Clone)]
pub(crate) struct Selected {
    pub(crate) policy: Arc<CompiledPolicy>,
    /// It is not certain that it does: the field that would say.
    pub(crate) doubt: Option<Field>,
}

/// The policies of one tier that select a subject in a direction.
#[derive(Debug, Clone)]
pub(crate) struct TierSelection {
    /// In the order in which they are asked.
    pub(crate) policies: Vec<Selected>,
    /// Those that certainly do, and isolate it.
    pub(crate) isolated_by: Arc<[ObjectRef]>,
}

/// The same for all tiers, in their order.
pub(crate) type Selection = Arc<[TierSelection]>;

#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) decisions: Generations<Key, Arc<Decision>>,
    pub(crate) shared: Shared,
    selections: FxHashMap<(u32, Direction), Selection>,
    selected: usize,
    memberships: FxHashMap<u32, Membership>,
    membership_limit: usize,
    reasons: FxHashMap<UnknownReason, u32>,
    nodes: FxHashMap<Arc<str>, u32>,
    given: FxHashMap<ConnectionFacts, u32>,
    /// What the scenario adds for a namespace and a pod's roles.
    pub(crate) added: FxHashMap<(Arc<str>, Roles), Option<Arc<CompiledPolicy>>>,
}

impl Cache {
    pub(crate) fn new(conditions: usize) -> Self {
        // Besides its bits a membership takes some 48 bytes in the map.
        let membership_limit = MEMBERSHIP_BYTES / (48 + conditions / 4);
        Self {
            decisions: Generations::new(DECISIONS),
            shared: Shared::default(),
            selections: FxHashMap::default(),
            selected: 0,
            memberships: FxHashMap::default(),
            membership_limit: membership_limit.max(64),
            reasons: FxHashMap::default(),
            nodes: FxHashMap::default(),
            given: FxHashMap::default(),
            added: FxHashMap::default(),
        }
    }

    pub(crate) fn selection(&self, identity: usize, direction: Direction) -> Option<Selection> {
        self.selections.get(&(low(identity), direction)).cloned()
    }

    pub(crate) fn remember_selection(
        &mut self,
        identity: usize,
        direction: Direction,
        selection: &Selection,
    ) {
        let size = 4 + selection.iter().map(|tier| tier.policies.len()).sum::<usize>();
        if self.selected + size > SELECTED {
            self.selections.clear();
            self.selected = 0;
        }
        self.selected += size;
        self.selections.insert((low(identity), direction), Arc::clone(selection));
    }

    /// What an identity fulfils, as far as that is known.
    pub(crate) fn membership(&mut self, identity: usize) -> &mut Membership {
        let identity = low(identity);
        if self.memberships.len() >= self.membership_limit && !self.memberships.contains_key(&identity) {
            self.memberships.clear();
        }
        self.memberships.entry(identity).or_default()
    }

    /// A number for the reason, so that decisions about unknown peers can be kept too.
    pub(crate) fn reason(&mut self, reason: &UnknownReason) -> u32 {
        if let Some(number) = self.reasons.get(reason) {
            return *number;
        }
        if self.reasons.len() >= REASONS {
            // The numbers begin anew, so decisions that were kept under the old ones must go.
            self.reasons.clear();
            self.decisions = Generations::new(DECISIONS);
        }
        let number = low(self.reasons.len());
        self.reasons.insert(reason.clone(), number);
        number
    }

    /// A number for a node; 0 where its name is not known.
    pub(crate) fn node(&mut self, name: Option<&Arc<str>>) -> u32 {
        let Some(name) = name else { return 0 };
        if let Some(number) = self.nodes.get(name) {
            return *number;
        }
        let number = low(self.nodes.len() + 1);
        self.nodes.insert(Arc::clone(name), number);
        number
    }

    /// A number for what is known of a connection; none where it is too much to keep decisions for.
    pub(crate) fn given(&mut self, facts: &ConnectionFacts) -> Option<u32> {
        if *facts == ConnectionFacts::NONE {
            return Some(0);
        }
        if facts.request.is_some() {
            return None;
        }
        if let Some(number) = self.given.get(facts) {
            return Some(*number);
        }
        if self.given.len() >= REASONS {
            return None;
        }
        let number = low(self.given.len() + 1);
        self.given.insert(facts.clone(), number);
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::verdict::{Layer, Reason, Verdict};

    #[test]
    fn what_was_asked_for_lately_survives_and_the_size_stays_bounded() {
        let mut map = Generations::new(10);
        map.insert(0, "kept");
        for other in 1..1_000 {
            map.insert(other, "other");
            assert_eq!(map.get(0), Some("kept"), "after {other}");
            assert!(map.len() <= 20);
        }
        assert_eq!(map.get(1), None);
    }

    #[test]
    fn equal_decisions_are_one_while_somebody_holds_it() {
        let mk = |rule| {
            let (direction, verdict) = (Direction::Egress, Verdict::Allow);
            let (layer, reason) = (Layer::NetworkPolicy, Reason::Rule);
            Arc::new(Decision {
                layer,
                rule: Some(rule),
                ..Decision::without_tier(direction, verdict, reason)
            })
        };
        let mut shared = Shared::default();
        let one = shared.share(mk(1));
        assert!(Arc::ptr_eq(&one, &shared.share(mk(1))));
        for rule in 2..10_000 {
            shared.share(mk(rule));
            assert!(shared.known.len() <= FEW);
        }
        assert!(Arc::ptr_eq(&one, &shared.share(mk(1))));
    }

    #[test]
    fn a_condition_is_asked_once_and_a_doubt_each_time() {
        let mut membership = Membership::default();
        for (condition, holds) in [(0, Tri::Yes), (7, Tri::No), (3, Tri::Yes)] {
            assert_eq!(membership.holds(ConditionId(condition), || holds.clone()), holds);
            assert_eq!(membership.holds(ConditionId(condition), || panic!("asked again")), holds);
        }
        let doubt = |field: &str| Tri::field(&Field::from(field));
        assert_eq!(membership.holds(ConditionId(9), || doubt("a")), doubt("a"));
        assert_eq!(membership.holds(ConditionId(9), || doubt("b")), doubt("b"));
    }
}
