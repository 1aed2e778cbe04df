//! What the index keeps of each namespace.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::cluster::object::{Controller, EndpointSlice, Service, Workload};
use crate::model::edge::Protocol;
use crate::model::endpoint::Pod;
use crate::model::labels::{Labels, NAMESPACE_NAME_LABEL};
use crate::model::object::{ObjectRef, WorkloadRef};
use crate::model::selector::Selector;
use crate::model::time::Timestamp;

/// A namespace and everything in it.
#[derive(Debug)]
pub(super) struct NamespaceState {
    pub(super) name: Arc<str>,
    pub(super) labels: Labels,
    /// There is a Namespace object for it.
    pub(super) declared: bool,
    /// Its Namespace object could not be read, so its labels are not known.
    pub(super) broken: Option<Arc<ObjectRef>>,
    pub(super) pods: FxHashMap<Arc<str>, PodState>,
    pub(super) workloads: FxHashMap<WorkloadRef, WorkloadState>,
    /// Container ports without a name, by who made the pods that have them: pods of one template have the same. A pod
    /// that nobody made stands for itself.
    pub(super) unnamed_ports: FxHashMap<WorkloadRef, Vec<(Protocol, u16)>>,
    pub(super) services: FxHashMap<Arc<str>, Arc<Service>>,
    /// By name.
    pub(super) slices: FxHashMap<Arc<str>, Arc<EndpointSlice>>,
    /// The names of the slices of each Service; slices that could not be read among them.
    pub(super) slices_of: FxHashMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// The selectors of the Services that are the cluster's DNS.
    pub(super) dns: Vec<(Arc<str>, Selector)>,
}

impl NamespaceState {
    /// A namespace of which only the name is known.
    pub(super) fn new(name: &Arc<str>) -> Self {
        Self {
            name: Arc::clone(name),
            labels: own_label(name),
            declared: false,
            broken: None,
            pods: FxHashMap::default(),
            workloads: FxHashMap::default(),
            unnamed_ports: FxHashMap::default(),
            services: FxHashMap::default(),
            slices: FxHashMap::default(),
            slices_of: FxHashMap::default(),
            dns: Vec::new(),
        }
    }
}

/// The label that every namespace carries, whatever else is known of it.
pub(super) fn own_label(name: &str) -> Labels {
    [(NAMESPACE_NAME_LABEL, name)].into_iter().collect()
}

/// A pod, and what of its object is needed to make it anew.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PodState {
    pub(super) pod: Arc<Pod>,
    pub(super) controller: Option<Controller>,
    pub(super) finished: bool,
    pub(super) created: Option<Timestamp>,
}

/// A workload: its object if that is known, and its live pods by name.
#[derive(Debug, Default)]
pub(super) struct WorkloadState {
    pub(super) object: Option<Arc<Workload>>,
    pub(super) template: Option<Arc<Pod>>,
    pub(super) members: BTreeSet<Arc<str>>,
}

/// Strings that many objects have in common, kept once.
#[derive(Debug, Default)]
pub(super) struct Strings(FxHashSet<Arc<str>>);

impl Strings {
    /// The shared copy of an equal string.
    pub(super) fn share(&mut self, text: Arc<str>) -> Arc<str> {
        if let Some(known) = self.0.get(&text) {
            return Arc::clone(known);
        }
        self.0.insert(Arc::clone(&text));
        text
    }

    /// Forgets strings that nobody else holds.
    pub(super) fn forget_unused(&mut self) {
        self.0.retain(|text| Arc::strong_count(text) > 1);
    }
}
