//! Which workloads were never seen, and which namespaces there are.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::cluster::Object;
use crate::cluster::index::Index;
use crate::model::edge::Edge;
use crate::model::endpoint::{Endpoint, Party, Pod};
use crate::model::object::WorkloadRef;
use crate::model::time::Timestamp;

/// Every pod that edges name, those behind Services too.
pub(super) fn pods(edges: &[Edge]) -> impl Iterator<Item = &Arc<Pod>> {
    edges.iter().flat_map(|edge| [&edge.initiator, &edge.responder]).flat_map(pods_of)
}

fn pods_of(party: &Party) -> impl Iterator<Item = &Arc<Pod>> {
    let backends = match &party.endpoint {
        Endpoint::Service(service) => service.backends.as_slice(),
        _ => &[],
    };
    party.as_pod().into_iter().chain(backends.iter().filter_map(|backend| backend.party.as_pod()))
}

/// The workloads among these objects that have no connection among the edges: as an end of one, for being behind
/// a Service says nothing about who answered.
pub(super) fn never_seen(objects: impl IntoIterator<Item = Object>, edges: &[Edge]) -> Vec<String> {
    let mut index = Index::default();
    index.reset(objects.into_iter().collect(), Timestamp::EPOCH);
    let ends = edges.iter().flat_map(|edge| [&edge.initiator, &edge.responder]);
    let seen: BTreeSet<&WorkloadRef> = ends.filter_map(Party::as_pod).map(|pod| &pod.workload).collect();
    let pods: Vec<Arc<Pod>> = index.pods().filter(|pod| !pod.host_network).collect();
    let known: BTreeSet<&WorkloadRef> = pods.iter().map(|pod| &pod.workload).collect();
    known.difference(&seen).map(ToString::to_string).collect()
}
