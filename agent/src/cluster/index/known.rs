//! What a source has not read, or does not follow at the moment: there the index says that it does not know.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::Index;
use crate::model::endpoint::PRIVATE;
use crate::model::time::Timestamp;
use crate::model::verdict::UnknownReason;
use crate::policy::Policy;

/// Kinds whose objects have addresses: while one is not read, an address that nobody claims may be its.
const ADDRESSED: [&str; 3] = ["Pod", "Node", "Service"];

/// What is not known of the objects as a whole. By default everything is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Kinds of which no list was read.
    pub missing: BTreeSet<Arc<str>>,
    /// Those among them that are policies: each may say anything.
    pub missing_policies: BTreeSet<Arc<str>>,
    /// A first list of some kind is still to come.
    pub is_starting: bool,
    /// Since when news of kinds that have addresses are missed, because a connection broke.
    pub stale_since: Option<Timestamp>,
}

/// Pods that are asked for one by one, by their addresses. By default none is.
#[derive(Debug, Default)]
pub(super) struct Asking {
    is_on: bool,
    /// Ranges that no outsider has an address of: pods nearly always live there.
    private: Vec<IpNet>,
    /// Addresses that nobody has, and until when that holds.
    nobody: FxHashMap<IpAddr, Timestamp>,
}

impl Gaps {
    /// Sets since when news are missed of kinds that have addresses; others do not matter to who has an address.
    pub fn is_addressed(kind: &str) -> bool {
        ADDRESSED.contains(&kind)
    }
}

impl Index {
    /// What of the objects is not known is now exactly this.
    pub fn set_gaps(&mut self, gaps: Gaps) {
        if self.gaps == gaps {
            return;
        }
        if self.gaps.missing_policies != gaps.missing_policies {
            self.policy_generation += 1;
        }
        if self.gaps.missing != gaps.missing {
            self.topology_generation += 1;
        }
        self.gaps = gaps;
    }

    /// What of the objects is not known.
    pub const fn gaps(&self) -> &Gaps {
        &self.gaps
    }

    /// From now on, only some pods are known, and others are asked for when they are met: a private address that
    /// nobody has is unknown until then.
    pub fn ask_for_peers(&mut self) {
        self.asking.is_on = true;
        self.asking.private = PRIVATE.iter().filter_map(|net| net.parse().ok()).collect();
    }

    /// Whether pods are asked for when they are met.
    pub const fn asks_for_peers(&self) -> bool {
        self.asking.is_on
    }

    /// Nobody has the address: that holds from `at` until that time.
    pub fn nobody_has(&mut self, address: IpAddr, until: Timestamp, at: Timestamp) {
        // A few hundred at most: so many are asked for in the time that an answer holds.
        self.asking.nobody.retain(|_, until| *until >= at);
        self.asking.nobody.insert(address, until);
    }

    /// Whether an address may be a pod's that was not asked for yet.
    pub(super) fn is_to_be_asked(&self, address: IpAddr, at: Timestamp) -> bool {
        self.asking.is_on
            && self.asking.private.iter().any(|net| net.contains(&address))
            && self.asking.nobody.get(&address).is_none_or(|until| *until < at)
    }

    fn is_missing(&self, kind: &str) -> bool {
        self.gaps.missing.contains(kind)
    }

    /// Why an address is not known that belongs to the cluster and to no object.
    pub(super) fn unowned(&self) -> UnknownReason {
        if self.may_be_unread() { UnknownReason::NotSynced } else { UnknownReason::AddressUnjoined }
    }

    /// Whether an address that no object claims may be one's that was not read.
    pub(super) fn may_be_unread(&self) -> bool {
        ADDRESSED.iter().any(|kind| self.is_missing(kind))
    }

    /// Whether the labels of namespaces are not known.
    pub(super) fn lacks_namespaces(&self) -> bool {
        self.is_missing("Namespace")
    }

    /// Whether what a Service's address leads to is not known: its backends are in slices.
    pub(super) fn lacks_backends(&self) -> bool {
        self.is_missing("EndpointSlice")
    }

    /// Whether a port of a node may be a Service's that was not read.
    pub(super) fn lacks_services(&self) -> bool {
        self.is_missing("Service")
    }

    /// A policy for each kind that was not read: it may select any pod, and say anything.
    pub(super) fn unread_policies(&self) -> impl Iterator<Item = Arc<Policy>> {
        self.gaps.missing_policies.iter().map(|kind| Arc::new(Policy::not_synced(kind)))
    }
}
