//! Who had which address when.
//!
//! Objects *claim* addresses. Of the live claims on an address one wins, and its reign is a *tenure* in the
//! address's timeline; tenures stay when their owner is gone, so that packets counted earlier are joined with
//! who they belonged to then.

use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::model::endpoint::Pod;
use crate::model::object::ObjectRef;
use crate::model::time::Timestamp;

/// What an address belongs to.
#[derive(Debug, Clone)]
pub(super) enum Owner {
    Pod(Arc<Pod>),
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
            (Self::Pod(a), Self::Pod(b)) => {
                Arc::ptr_eq(a, b)
                    || (a.identity == b.identity
                        && a.name == b.name
                        && a.namespace == b.namespace
                        && a.uid == b.uid
                        && a.node == b.node)
            }
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

#[derive(Debug, Default)]
struct Entry {
    claims: SmallVec<[Claim; 1]>,
    /// In order of time, without overlaps.
    tenures: SmallVec<[Tenure; 1]>,
}

/// The timelines of all addresses.
#[derive(Debug, Default)]
pub(super) struct AddressBook {
    entries: FxHashMap<IpAddr, Entry>,
}

impl AddressBook {
    /// Enters a claim, in place of an earlier one of the same object.
    pub(super) fn claim(&mut self, address: IpAddr, claim: Claim, at: Timestamp) {
        let entry = self.entries.entry(address).or_default();
        match entry.claims.iter_mut().find(|known| known.claimant == claim.claimant) {
            Some(known) => *known = claim,
            None => entry.claims.push(claim),
        }
        entry.settle(at);
    }

    /// Ends an object's claim.
    pub(super) fn release(&mut self, address: IpAddr, claimant: &Claimant, at: Timestamp) {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.claims.retain(|claim| claim.claimant != *claimant);
            entry.settle(at);
        }
    }

    /// Who had the address at that time.
    pub(super) fn owner_at(&self, address: IpAddr, at: Timestamp) -> Option<&Owner> {
        let tenures = &self.entries.get(&address)?.tenures;
        let holds = |t: &&Tenure| t.from <= at && (at < t.until || t.until == Timestamp::END);
        tenures.iter().rev().find(holds).map(|tenure| &tenure.owner)
    }

    /// Whether the address had two owners, or one that is contested, after `from` and not after `to`.
    pub(super) fn changed(&self, address: IpAddr, from: Timestamp, to: Timestamp) -> bool {
        let Some(entry) = self.entries.get(&address) else { return false };
        let mut within = entry.tenures.iter().filter(|tenure| tenure.from <= to && tenure.until > from);
        let first = within.next();
        let contested = first.is_some_and(|tenure| matches!(tenure.owner, Owner::Contested));
        contested || within.next().is_some()
    }

    /// Whether the address ever belonged to the cluster, as far as it is remembered.
    pub(super) fn is_known(&self, address: IpAddr) -> bool {
        self.entries.contains_key(&address)
    }

    /// All addresses that belong or belonged to the cluster, as far as it is remembered.
    pub(super) fn all(&self) -> impl Iterator<Item = &IpAddr> {
        self.entries.keys()
    }

    /// The live claims on an address.
    pub(super) fn claims(&self, address: IpAddr) -> &[Claim] {
        self.entries.get(&address).map_or(&[], |entry| &entry.claims)
    }

    /// Addresses that several objects of the same sort claim now.
    pub(super) fn contested(&self) -> impl Iterator<Item = (IpAddr, &[Claim])> {
        let several = |entry: &Entry| {
            let rank = entry.claims.iter().map(|claim| claim.rank).min();
            let mut best = entry.claims.iter().filter(|claim| Some(claim.rank) == rank);
            let first = best.next();
            first.is_some_and(|first| best.any(|claim| !claim.owner.is_same(&first.owner)))
        };
        let entries = self.entries.iter().filter(move |(_, entry)| several(entry));
        entries.map(|(address, entry)| (*address, &*entry.claims))
    }

    /// Drops tenures that ended before `time`.
    pub(super) fn forget_before(&mut self, time: Timestamp) {
        self.entries.retain(|_, entry| {
            entry.tenures.retain(|tenure| tenure.until >= time);
            !entry.claims.is_empty() || !entry.tenures.is_empty()
        });
    }
}

impl Entry {
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
