//! Segment maps and exceptions, and what judging by them has to know besides: where the API server listens, and
//! the labels of namespaces.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Index;
use crate::cluster::object::SliceEndpoint;
use crate::model::edge::Protocol;
use crate::model::object::ObjectRef;
use crate::segment::{EdgeException, NamespaceLabels, SegmentMap};

/// The maps and exceptions that there are, in force or not.
#[derive(Debug, Default)]
pub(super) struct Segments {
    maps: BTreeMap<ObjectRef, Arc<SegmentMap>>,
    exceptions: BTreeMap<ObjectRef, Arc<EdgeException>>,
    generation: u64,
}

impl Segments {
    pub(super) fn apply_map(&mut self, map: Arc<SegmentMap>) {
        if self.maps.get(&**map.reference()) != Some(&map) {
            self.maps.insert(ObjectRef::clone(map.reference()), map);
            self.generation += 1;
        }
    }

    pub(super) fn apply_exception(&mut self, exception: Arc<EdgeException>) {
        if self.exceptions.get(&**exception.reference()) != Some(&exception) {
            self.exceptions.insert(ObjectRef::clone(exception.reference()), exception);
            self.generation += 1;
        }
    }

    pub(super) fn delete(&mut self, reference: &ObjectRef) {
        let map = self.maps.remove(reference).is_some();
        let exception = self.exceptions.remove(reference).is_some();
        if map || exception {
            self.generation += 1;
        }
    }

    pub(super) fn references(&self) -> impl Iterator<Item = ObjectRef> {
        self.maps.keys().chain(self.exceptions.keys()).cloned()
    }
}

impl Index {
    /// All segment maps, in force or not, in order of name.
    pub fn segment_maps(&self) -> Vec<Arc<SegmentMap>> {
        self.segments.maps.values().cloned().collect()
    }

    /// All exceptions, in force or not, in order of namespace and name.
    pub fn edge_exceptions(&self) -> Vec<Arc<EdgeException>> {
        self.segments.exceptions.values().cloned().collect()
    }

    /// The number of changes of segment maps and exceptions so far. One that is given again as it was is no
    /// change.
    pub const fn segment_generation(&self) -> u64 {
        self.segments.generation
    }

    /// Where the API server listens: the addresses and ports behind Service default/kubernetes, by its
    /// EndpointSlices. Sorted; empty where there are none.
    pub fn api_server(&self) -> Vec<SocketAddr> {
        let Some(space) = self.namespaces.get("default") else { return Vec::new() };
        let slices = space.slices.values().filter(|slice| slice.service.as_deref() == Some("kubernetes"));
        let mut all: Vec<SocketAddr> = slices
            .flat_map(|slice| {
                let ports = slice.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
                let ports = ports.filter_map(|port| port.port);
                ports.flat_map(|port| {
                    let addresses = slice.endpoints.iter().flat_map(SliceEndpoint::addresses);
                    addresses.map(move |address| SocketAddr::new(address, port))
                })
            })
            .collect();
        all.sort();
        all.dedup();
        all
    }

    /// The labels of the namespaces whose objects are known and could be read, by name.
    pub fn namespace_labels(&self) -> NamespaceLabels {
        let known = self.namespaces.values().filter(|space| space.declared && space.broken.is_none());
        known.map(|space| (Arc::clone(&space.name), space.labels.clone())).collect()
    }
}
