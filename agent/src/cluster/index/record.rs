//! Pods as they are kept: small, and made into what others see of a pod when somebody asks for it.
//!
//! A node talks to some hundred pods of a cluster's hundred thousand. What pods of one workload have in common is kept
//! once ([`Lineage`], [`Identity`], the strings); the rest is a [`Record`].

use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use crate::cluster::object::{Controller, Uid};
use crate::model::endpoint::Pod;
use crate::model::identity::Identity;
use crate::model::intern;
use crate::model::labels::Labels;
use crate::model::object::WorkloadRef;
use crate::model::time::Timestamp;

/// What pods of one workload, in one revision of it, have in common besides what policies see.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Lineage {
    pub(super) namespace: Arc<str>,
    pub(super) controller: Option<Controller>,
    /// From the nearest to the top.
    pub(super) owners: Arc<[WorkloadRef]>,
    /// The labels that select the workload's pods.
    pub(super) selector: Labels,
}

/// Lineages that pods have, each once.
#[derive(Debug, Default)]
pub(super) struct Lineages(HashTable<Arc<Lineage>>);

impl Lineages {
    pub(super) fn share(&mut self, lineage: Lineage) -> Arc<Lineage> {
        let hash = |lineage: &Lineage| FxBuildHasher.hash_one(lineage);
        let hashed = hash(&lineage);
        let entry = self.0.entry(hashed, |known| **known == lineage, |known| hash(known));
        Arc::clone(entry.or_insert_with(|| Arc::new(lineage)).get())
    }

    pub(super) fn forget_unused(&mut self) {
        self.0.retain(|lineage| Arc::strong_count(lineage) > 1);
    }
}

/// A pod as it was from one change to the next.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) lineage: Arc<Lineage>,
    pub(super) identity: Arc<Identity>,
    pub(super) name: Arc<str>,
    pub(super) uid: Uid,
    pub(super) node: Option<Arc<str>>,
    /// Empty once it has finished.
    pub(super) addresses: SmallVec<[IpAddr; 1]>,
    /// [`Timestamp::END`] where it is not known.
    pub(super) created: Timestamp,
    pub(super) host_network: bool,
    pub(super) finished: bool,
    /// What was made of it, for as long as somebody holds that: all see the same.
    pub(super) made: Mutex<Weak<Pod>>,
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        self.is_same_to_verdicts(other)
            && (Arc::ptr_eq(&self.lineage, &other.lineage) || self.lineage == other.lineage)
            && self.addresses == other.addresses
            && self.created == other.created
            && self.host_network == other.host_network
            && self.finished == other.finished
    }
}

impl Record {
    /// Whether verdicts cannot tell the two apart as owners of an address.
    pub(super) fn is_same_to_verdicts(&self, other: &Self) -> bool {
        self.identity == other.identity
            && self.name == other.name
            && self.lineage.namespace == other.lineage.namespace
            && self.uid == other.uid
            && self.node == other.node
    }

    /// When it was made, if that is known.
    pub(super) fn created(&self) -> Option<Timestamp> {
        (self.created != Timestamp::END).then_some(self.created)
    }

    pub(super) fn namespace(&self) -> &Arc<str> {
        &self.lineage.namespace
    }

    /// The top owner; the pod itself where it has none.
    pub(super) fn workload(&self) -> WorkloadRef {
        top(&self.lineage.owners, &self.lineage.namespace, &self.name)
    }

    /// The pod as others see it.
    pub(super) fn pod(&self) -> Arc<Pod> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pod) = made.upgrade() {
            return pod;
        }
        let pod = Arc::new(Pod {
            namespace: Arc::clone(&self.lineage.namespace),
            name: Arc::clone(&self.name),
            uid: match &self.uid {
                Uid::Text(text) => Arc::clone(text),
                uid @ Uid::Uuid(_) => uid.to_string().into(),
            },
            identity: Arc::clone(&self.identity),
            workload: self.workload(),
            owners: Arc::clone(&self.lineage.owners),
            selector: self.lineage.selector.clone(),
            node: self.node.clone(),
            host_network: self.host_network,
            addresses: self.addresses.as_slice().into(),
            from_template: false,
        });
        *made = Arc::downgrade(&pod);
        pod
    }
}

pub(super) fn top(owners: &[WorkloadRef], namespace: &Arc<str>, name: &Arc<str>) -> WorkloadRef {
    owners.last().cloned().unwrap_or_else(|| WorkloadRef {
        kind: intern::string("Pod"),
        namespace: Arc::clone(namespace),
        name: Arc::clone(name),
    })
}

/// Pods by namespace and name.
#[derive(Debug, Default)]
pub(super) struct Records(HashTable<Arc<Record>>);

impl Records {
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Record>> {
        self.0.find(hash(namespace, name), |known| is_named(known, namespace, name))
    }

    /// Enters a pod in place of its namesake, which is returned.
    pub(super) fn insert(&mut self, record: Arc<Record>) -> Option<Arc<Record>> {
        let (namespace, name) = (record.namespace(), &record.name);
        let hashed = hash(namespace, name);
        if let Some(known) = self.0.find_mut(hashed, |known| is_named(known, namespace, name)) {
            return Some(std::mem::replace(known, record));
        }
        self.0.insert_unique(hashed, record, |known| hash(known.namespace(), &known.name));
        None
    }

    pub(super) fn remove(&mut self, namespace: &str, name: &str) -> Option<Arc<Record>> {
        let found = self.0.find_entry(hash(namespace, name), |known| is_named(known, namespace, name));
        let (record, _) = found.ok()?.remove();
        if self.0.len() < self.0.capacity() / 4 {
            self.0.shrink_to_fit(|known| hash(known.namespace(), &known.name));
        }
        Some(record)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.0.iter()
    }

    pub(super) fn live(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.0.iter().filter(|record| !record.finished)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn is_named(record: &Record, namespace: &str, name: &str) -> bool {
    *record.name == *name && **record.namespace() == *namespace
}

fn hash(namespace: &str, name: &str) -> u64 {
    FxBuildHasher.hash_one((namespace, name))
}
