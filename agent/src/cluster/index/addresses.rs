//! Who had which address when.
//!
//! Objects *claim* addresses. Of the live claims on an address one wins, and its reign is a *tenure* in the
//! address's timeline; tenures stay when their owner is gone, so that packets counted earlier are joined with
//! who they belonged to then.

use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::record::Record;
use crate::model::object::ObjectRef;
use crate::model::time::Timestamp;

/// What an address belongs to.
#[derive(Debug, Clone)]
pub(super) enum Owner {
    Pod(Arc<Record>),
    /// A node, by name.
    Node(Arc<str>),
    /// A Service, by namespace and name.
    Service(Arc<str>, Arc<str>),
    /// An object that could not be read.
    Broken(Arc<ObjectRef>),
    /// The host's that we run on.
    Host,
    /// A node's, of which we do not know the name: a hostNetwork pod that names none holds it.
    UnnamedNode,
    /// Several live objects claim it and nothing tells which is right.
    Contested,
}

impl Owner {
    /// Whether verdicts cannot tell the two apart.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pod(a), Self::Pod(b)) => Arc::ptr_eq(a, b) || a.is_same_to_verdicts(b),
            (Self::Node(a), Self::Node(b)) => a == b,
            (Self::Service(a, b), Self::Service(c, d)) => a == c && b == d,
            (Self::Broken(a), Self::Broken(b)) => a == b,
            (Self::Host, Self::Host)
            | (Self::UnnamedNode, Self::UnnamedNode)
            | (Self::Contested, Self::Contested) => true,
            _ => false,
        }
    }
}

/// Which claim is believed where objects of different sorts claim one address; the first wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// An address of the host's network namespace: what the kernel itself says.
    Host,
    /// The address of a node, or of a hostNetwork pod on it: the host takes the packet before any Service
    /// translation of an equal ClusterIP (NodeLocal DNSCache).
    Node,
    Pod,
    /// The first address of a node's pod range: a guess.
    Gateway,
    ServiceExternal,
    ServiceCluster,
}

/// The object that claims an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Claimant {
    Host,
    Pod(Arc<str>, Arc<str>),
    Node(Arc<str>),
    Service(Arc<str>, Arc<str>),
    Broken(Arc<ObjectRef>),
}

impl Claimant {
    pub(super) fn of(pod: &Record) -> Self {
        Self::Pod(Arc::clone(pod.namespace()), Arc::clone(&pod.name))
    }

    fn is(&self, pod: &Record) -> bool {
        matches!(self, Self::Pod(namespace, name) if namespace == pod.namespace() && *name == pod.name)
    }
}

/// A live claim on an address.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) claimant: Claimant,
    pub(super) rank: Rank,
    /// When its object was made, if that is known.
    pub(super) since: Option<Timestamp>,
    pub(super) owner: Owner,
}

/// From when until when an address belonged to one owner.
#[derive(Debug, Clone)]
struct Tenure {
    from: Timestamp,
    until: Timestamp,
    owner: Owner,
}

/// An address with all that is known of it.
#[derive(Debug)]
struct Entry {
    address: IpAddr,
    claims: SmallVec<[Claim; 1]>,
    /// In order of time, without overlaps.
    tenures: SmallVec<[Tenure; 1]>,
}

/// An address in 24 bytes, where one pod claims it and nobody had it before.
#[derive(Debug)]
enum Slot {
    /// The pod has had its n-th address since that time.
    Pod(Arc<Record>, u8, Timestamp),
    Entry(Box<Entry>),
}

impl Slot {
    fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Pod(pod, at, _) => pod.addresses.get(usize::from(*at)).copied(),
            Self::Entry(entry) => Some(entry.address),
        }
    }

    /// As an entry, to be changed.
    fn open(self) -> Option<Box<Entry>> {
        let (pod, at, from) = match self {
            Self::Entry(entry) => return Some(entry),
            Self::Pod(pod, at, from) => (pod, at, from),
        };
        let claim = Claim {
            claimant: Claimant::of(&pod),
            rank: Rank::Pod,
            since: pod.created(),
            owner: Owner::Pod(Arc::clone(&pod)),
        };
        let address = pod.addresses.get(usize::from(at)).copied()?;
        let tenure = Tenure { from, until: Timestamp::END, owner: Owner::Pod(pod) };
        Some(Box::new(Entry {
            address,
            claims: SmallVec::from_elem(claim, 1),
            tenures: SmallVec::from_elem(tenure, 1),
        }))
    }

    /// Small again, where that loses nothing.
    fn close(entry: Box<Entry>) -> Self {
        match entry.as_pod() {
            Some((pod, at, from)) => Self::Pod(Arc::clone(pod), at, from),
            None => Self::Entry(entry),
        }
    }
}

/// The timelines of all addresses.
#[derive(Debug, Default)]
pub(super) struct AddressBook {
    slots: HashTable<Slot>,
    /// Never small, to be compared with.
    #[cfg(test)]
    is_wide: bool,
}

fn hash(address: Option<IpAddr>) -> u64 {
    FxBuildHasher.hash_one(address)
}

impl AddressBook {
    fn find(&self, address: IpAddr) -> Option<&Slot> {
        self.slots.find(hash(Some(address)), |slot| slot.address() == Some(address))
    }

    /// Takes the entry of an address out, to be put back.
    fn take(&mut self, address: IpAddr) -> Option<Box<Entry>> {
        let found = self.slots.find_entry(hash(Some(address)), |slot| slot.address() == Some(address));
        found.ok()?.remove().0.open()
    }

    fn put(&mut self, entry: Box<Entry>) {
        #[cfg(test)]
        if self.is_wide {
            let hashed = hash(Some(entry.address));
            self.slots.insert_unique(hashed, Slot::Entry(entry), |slot| hash(slot.address()));
            return;
        }
        let hashed = hash(Some(entry.address));
        self.slots.insert_unique(hashed, Slot::close(entry), |slot| hash(slot.address()));
    }

    /// Enters a claim, in place of an earlier one of the same object.
    pub(super) fn claim(&mut self, address: IpAddr, claim: Claim, at: Timestamp) {
        let new = || Box::new(Entry { address, claims: SmallVec::new(), tenures: SmallVec::new() });
        let mut entry = self.take(address).unwrap_or_else(new);
        match entry.claims.iter_mut().find(|known| known.claimant == claim.claimant) {
            Some(known) => *known = claim,
            None => entry.claims.push(claim),
        }
        entry.settle(at);
        self.put(entry);
    }

    /// Ends an object's claim.
    pub(super) fn release(&mut self, address: IpAddr, claimant: &Claimant, at: Timestamp) {
        if let Some(mut entry) = self.take(address) {
            entry.claims.retain(|claim| claim.claimant != *claimant);
            entry.settle(at);
            self.put(entry);
        }
    }

    /// Who had the address at that time.
    pub(super) fn owner_at(&self, address: IpAddr, at: Timestamp) -> Option<Owner> {
        match self.find(address)? {
            Slot::Pod(pod, _, from) => (*from <= at).then(|| Owner::Pod(Arc::clone(pod))),
            Slot::Entry(entry) => {
                let holds = |t: &&Tenure| t.from <= at && (at < t.until || t.until == Timestamp::END);
                entry.tenures.iter().rev().find(holds).map(|tenure| tenure.owner.clone())
            }
        }
    }

    /// Whether the address had two owners, or one that is contested, after `from` and not after `to`.
    pub(super) fn changed(&self, address: IpAddr, from: Timestamp, to: Timestamp) -> bool {
        let Some(Slot::Entry(entry)) = self.find(address) else { return false };
        let mut within = entry.tenures.iter().filter(|tenure| tenure.from <= to && tenure.until > from);
        let first = within.next();
        let contested = first.is_some_and(|tenure| matches!(tenure.owner, Owner::Contested));
        contested || within.next().is_some()
    }

    /// Whether the address ever belonged to the cluster, as far as it is remembered.
    pub(super) fn is_known(&self, address: IpAddr) -> bool {
        self.find(address).is_some()
    }

    /// All addresses that belong or belonged to the cluster, as far as it is remembered.
    pub(super) fn all(&self) -> impl Iterator<Item = IpAddr> {
        self.slots.iter().filter_map(Slot::address)
    }

    /// The live claims on an address that are not a pod's alone.
    pub(super) fn claims(&self, address: IpAddr) -> &[Claim] {
        match self.find(address) {
            Some(Slot::Entry(entry)) => &entry.claims,
            Some(Slot::Pod(..)) | None => &[],
        }
    }

    /// Addresses that several objects of the same sort claim now.
    pub(super) fn contested(&self) -> impl Iterator<Item = (IpAddr, &[Claim])> {
        let several = |entry: &&Entry| {
            let rank = entry.claims.iter().map(|claim| claim.rank).min();
            let mut best = entry.claims.iter().filter(|claim| Some(claim.rank) == rank);
            let first = best.next();
            first.is_some_and(|first| best.any(|claim| !claim.owner.is_same(&first.owner)))
        };
        let entries = self.slots.iter().filter_map(|slot| match slot {
            Slot::Entry(entry) => Some(&**entry),
            Slot::Pod(..) => None,
        });
        entries.filter(several).map(|entry| (entry.address, &*entry.claims))
    }

    /// Drops tenures that ended before `time`.
    pub(super) fn forget_before(&mut self, time: Timestamp) {
        self.slots.retain(|slot| {
            let Slot::Entry(entry) = slot else { return true };
            entry.tenures.retain(|tenure| tenure.until >= time);
            #[cfg(test)]
            if self.is_wide {
                return !entry.claims.is_empty() || !entry.tenures.is_empty();
            }
            if let Some((pod, at, from)) = entry.as_pod() {
                *slot = Slot::Pod(Arc::clone(pod), at, from);
                return true;
            }
            !entry.claims.is_empty() || !entry.tenures.is_empty()
        });
    }
}

impl Entry {
    /// The pod that alone claims the address and has it since that time, and which of the pod's addresses it is; `None`
    /// where there is anything more to know.
    fn as_pod(&self) -> Option<(&Arc<Record>, u8, Timestamp)> {
        let ([claim], [tenure]) = (&*self.claims, &*self.tenures) else { return None };
        let (Owner::Pod(claimed), Owner::Pod(pod)) = (&claim.owner, &tenure.owner) else { return None };
        let is_plain = Arc::ptr_eq(claimed, pod)
            && claim.rank == Rank::Pod
            && claim.since == pod.created()
            && claim.claimant.is(pod)
            && tenure.until == Timestamp::END;
        let at = pod.addresses.iter().position(|own| *own == self.address)?;
        Some((pod, u8::try_from(at).ok()?, tenure.from)).filter(|_| is_plain)
    }

    /// The best claim's owner and when that claim began; `Contested` where the best cannot be told.
    fn winner(&self) -> Option<(Owner, Option<Timestamp>)> {
        let rank = self.claims.iter().map(|claim| claim.rank).min()?;
        let mut best = self.claims.iter().filter(|claim| claim.rank == rank);
        let mut winner = best.next().map(|claim| (claim.owner.clone(), claim.since))?;
        for claim in best.filter(|claim| !claim.owner.is_same(&winner.0)).collect::<Vec<_>>() {
            winner = match (winner.1, claim.since) {
                (Some(a), Some(b)) if a > b => winner,
                (Some(a), Some(b)) if a < b => (claim.owner.clone(), claim.since),
                (a, b) => (Owner::Contested, a.max(b)),
            };
        }
        Some(winner)
    }

    /// Brings the timeline up to date after the claims changed.
    fn settle(&mut self, at: Timestamp) {
        let winner = self.winner();
        let Some((owner, since)) = winner else {
            self.close(at);
            return;
        };
        let current = self.tenures.last_mut().filter(|tenure| tenure.until == Timestamp::END);
        let Some(current) = current else {
            self.open(owner, since.unwrap_or(Timestamp::EPOCH));
            return;
        };
        if current.owner.is_same(&owner) {
            current.owner = owner;
            return;
        }
        // The displaced owner still claims the address: since when it is wrong, we cannot know. What lies
        // between the newer object's creation and now may be either's.
        let displaced = self.claims.iter().any(|claim| claim.owner.is_same(&current.owner));
        let doubt = since.unwrap_or(at).max(current.from).min(at);
        if displaced && doubt < at && !matches!(owner, Owner::Contested) {
            self.close(doubt);
            self.open(Owner::Contested, doubt);
        }
        if matches!(owner, Owner::Contested) {
            self.close(doubt);
            self.open(owner, doubt);
        } else {
            self.close(at);
            self.open(owner, since.unwrap_or(at));
        }
    }

    /// Ends the current tenure; one that would be empty never was.
    fn close(&mut self, at: Timestamp) {
        let Some(current) = self.tenures.last_mut().filter(|tenure| tenure.until == Timestamp::END) else {
            return;
        };
        if current.from < at {
            current.until = at;
        } else {
            self.tenures.pop();
        }
    }

    /// Begins a tenure at `since`, but not before the last one ended.
    fn open(&mut self, owner: Owner, since: Timestamp) {
        let free = self.tenures.last().map_or(Timestamp::EPOCH, |tenure| tenure.until);
        self.tenures.push(Tenure { from: since.max(free), until: Timestamp::END, owner });
    }
}

#[cfg(test)]
mod tests;
