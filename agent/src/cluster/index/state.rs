//! What the index keeps of each namespace.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::record::Records;
use crate::cluster::object::{EndpointSlice, Service, Workload};
use crate::model::edge::Protocol;
use crate::model::endpoint::Pod;
use crate::model::intern;
use crate::model::labels::{Labels, NAMESPACE_NAME_LABEL};
use crate::model::object::{ObjectRef, WorkloadRef};
use crate::model::selector::Selector;

/// Names in their order; mostly one.
#[derive(Debug, Default)]
pub(super) struct Names(SmallVec<[Arc<str>; 1]>);

impl Names {
    pub(super) fn insert(&mut self, name: Arc<str>) {
        if let Err(at) = self.0.binary_search(&name) {
            self.0.insert(at, name);
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|known| **known != *name);
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<str>> {
        self.0.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A namespace and everything in it.
#[derive(Debug)]
pub(super) struct NamespaceState {
    pub(super) name: Arc<str>,
    pub(super) labels: Labels,
    /// There is a Namespace object for it.
    pub(super) declared: bool,
    /// Its Namespace object could not be read, so its labels are not known.
    pub(super) broken: Option<Arc<ObjectRef>>,
    pub(super) pods: Records,
    pub(super) workloads: FxHashMap<WorkloadRef, WorkloadState>,
    /// Container ports without a name, by who made the pods that have them: pods of one template have the same. A pod
    /// that nobody made stands for itself.
    pub(super) unnamed_ports: FxHashMap<WorkloadRef, Vec<(Protocol, u16)>>,
    pub(super) services: FxHashMap<Arc<str>, Arc<Service>>,
    /// By name.
    pub(super) slices: FxHashMap<Arc<str>, Arc<EndpointSlice>>,
    /// The names of the slices of each Service; slices that could not be read among them.
    pub(super) slices_of: FxHashMap<Arc<str>, Names>,
    /// The selectors of the Services that are the cluster's DNS.
    pub(super) dns: Vec<(Arc<str>, Selector)>,
}

impl NamespaceState {
    /// A namespace of which only the name is known.
    pub(super) fn new(name: &Arc<str>) -> Box<Self> {
        Box::new(Self {
            name: Arc::clone(name),
            labels: own_label(name),
            declared: false,
            broken: None,
            pods: Records::default(),
            workloads: FxHashMap::default(),
            unnamed_ports: FxHashMap::default(),
            services: FxHashMap::default(),
            slices: FxHashMap::default(),
            slices_of: FxHashMap::default(),
            dns: Vec::new(),
        })
    }
}

/// The label that every namespace carries, whatever else is known of it.
pub(super) fn own_label(name: &str) -> Labels {
    intern::labels([(NAMESPACE_NAME_LABEL, name)])
}

/// A workload: its object if that is known, and how many live pods it has.
#[derive(Debug, Default)]
pub(super) struct WorkloadState {
    pub(super) object: Option<Arc<Workload>>,
    pub(super) template: Option<Arc<Pod>>,
    pub(super) members: usize,
}
