//! Recorded pods as they would be with the candidate's workloads, pods and namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::cluster::index::is_controllers_label;
use crate::cluster::object::{Object, Shape, Workload};
use crate::cluster::roles;
use crate::model::edge::Edge;
use crate::model::endpoint::{Backend, Endpoint, Party, Pod, ServiceTarget};
use crate::model::identity::{IdentityParts, Interner};
use crate::model::labels::Labels;
use crate::model::object::{ObjectRef, WorkloadRef};
use crate::model::role::Roles;

/// A workload of the candidate.
#[derive(Debug)]
struct NewWorkload {
    shape: Shape,
    selector: Option<Labels>,
    /// The labels of the template that the base has for it.
    old_labels: Option<Labels>,
}

/// What becomes of recorded pods. Pods are known by their allocation: the edges must outlive this.
#[derive(Debug, Default)]
pub(super) struct Relabel {
    namespaces: FxHashMap<Arc<str>, Labels>,
    pods: FxHashMap<(Arc<str>, Arc<str>), Shape>,
    workloads: FxHashMap<WorkloadRef, NewWorkload>,
    /// By the recorded pod's allocation, with what holds it in place.
    done: FxHashMap<*const Pod, (Arc<Pod>, Arc<Pod>)>,
    services: FxHashMap<*const ServiceTarget, (Arc<ServiceTarget>, Arc<ServiceTarget>)>,
    touched: BTreeSet<ObjectRef>,
}

impl Relabel {
    /// From the candidate's objects; the base's templates tell which labels a template no longer has.
    pub(super) fn new(base: &[Object], candidate: &[Object]) -> Self {
        let mut old: BTreeMap<ObjectRef, &Workload> = BTreeMap::new();
        for object in base {
            if let Object::Workload(workload) = object {
                old.insert(object.reference(), workload);
            }
        }
        let mut relabel = Self::default();
        for object in candidate {
            match object {
                Object::Namespace(namespace) => {
                    relabel.namespaces.insert(Arc::clone(&namespace.name), namespace.labels.clone());
                }
                Object::Pod(pod) => {
                    let key = (Arc::clone(&pod.namespace), Arc::clone(&pod.name));
                    relabel.pods.insert(key, pod.shape.clone());
                }
                Object::Workload(workload) => {
                    let Some(shape) = &workload.template else { continue };
                    let reference = WorkloadRef {
                        kind: Arc::clone(&workload.kind),
                        namespace: Arc::clone(&workload.namespace),
                        name: Arc::clone(&workload.name),
                    };
                    let old = old.get(&object.reference()).and_then(|old| old.template.as_ref());
                    let new = NewWorkload {
                        shape: shape.clone(),
                        selector: workload.selector.clone(),
                        old_labels: old.map(|shape| shape.labels.clone()),
                    };
                    relabel.workloads.insert(reference, new);
                }
                _ => {}
            }
        }
        relabel
    }

    fn is_empty(&self) -> bool {
        self.namespaces.is_empty() && self.pods.is_empty() && self.workloads.is_empty()
    }

    /// The candidate's objects that changed a recorded pod so far.
    pub(super) const fn touched(&self) -> &BTreeSet<ObjectRef> {
        &self.touched
    }

    /// The edge with its pods as they would be; `None` where nothing of it changes.
    pub(super) fn edge(&mut self, edge: &Edge, interner: &mut Interner) -> Option<Edge> {
        if self.is_empty() {
            return None;
        }
        let initiator = self.party(&edge.initiator, interner);
        let responder = self.party(&edge.responder, interner);
        if initiator.is_none() && responder.is_none() {
            return None;
        }
        Some(Edge {
            initiator: initiator.unwrap_or_else(|| edge.initiator.clone()),
            responder: responder.unwrap_or_else(|| edge.responder.clone()),
            ..edge.clone()
        })
    }

    fn party(&mut self, party: &Party, interner: &mut Interner) -> Option<Party> {
        let endpoint = match &party.endpoint {
            Endpoint::Pod(pod) => Endpoint::Pod(self.pod(pod, interner)?),
            Endpoint::Service(service) => Endpoint::Service(self.service(service, interner)?),
            Endpoint::Node(_) | Endpoint::External | Endpoint::Range(_) | Endpoint::Unknown(_) => {
                return None;
            }
        };
        Some(Party { address: party.address, endpoint })
    }

    fn service(
        &mut self,
        service: &Arc<ServiceTarget>,
        interner: &mut Interner,
    ) -> Option<Arc<ServiceTarget>> {
        let key = Arc::as_ptr(service);
        if let Some((_, new)) = self.services.get(&key) {
            return (!Arc::ptr_eq(new, service)).then(|| Arc::clone(new));
        }
        let parties: Vec<Option<Party>> =
            service.backends.iter().map(|backend| self.party(&backend.party, interner)).collect();
        let new = if parties.iter().all(Option::is_none) {
            Arc::clone(service)
        } else {
            let backends = service.backends.iter().zip(parties).map(|(old, new)| Backend {
                party: new.unwrap_or_else(|| old.party.clone()),
                port: old.port,
            });
            Arc::new(ServiceTarget { backends: backends.collect(), ..ServiceTarget::clone(service) })
        };
        self.services.insert(key, (Arc::clone(service), Arc::clone(&new)));
        (!Arc::ptr_eq(&new, service)).then_some(new)
    }

    fn pod(&mut self, pod: &Arc<Pod>, interner: &mut Interner) -> Option<Arc<Pod>> {
        let key = Arc::as_ptr(pod);
        if let Some((_, new)) = self.done.get(&key) {
            return (!Arc::ptr_eq(new, pod)).then(|| Arc::clone(new));
        }
        let new = self.changed(pod, interner).map_or_else(|| Arc::clone(pod), Arc::new);
        self.done.insert(key, (Arc::clone(pod), Arc::clone(&new)));
        (!Arc::ptr_eq(&new, pod)).then_some(new)
    }

    /// The pod as it would be, if that is different.
    fn changed(&mut self, pod: &Pod, interner: &mut Interner) -> Option<Pod> {
        let mut new = pod.clone();
        let mut parts = IdentityParts {
            namespace: Arc::clone(&pod.identity.namespace),
            namespace_labels: pod.identity.namespace_labels.clone(),
            labels: pod.identity.labels.clone(),
            service_account: Arc::clone(&pod.identity.service_account),
            named_ports: pod.identity.named_ports.to_vec(),
            roles: pod.identity.roles,
        };
        let mut by = Vec::new();
        if let Some(labels) = self.namespaces.get(&pod.namespace) {
            parts.namespace_labels = labels.clone();
            by.push(ObjectRef::cluster("Namespace", &pod.namespace));
        }
        let own = self.pods.get(&(Arc::clone(&pod.namespace), Arc::clone(&pod.name)));
        // The top owner makes the others anew.
        let owner = std::iter::once(&pod.workload)
            .chain(pod.owners.iter().rev())
            .find_map(|owner| self.workloads.get(owner).map(|workload| (owner, workload)));
        if let Some(shape) = own {
            take(shape, shape.labels.clone(), &mut parts, &mut new);
            by.push(ObjectRef::namespaced("Pod", &pod.namespace, &pod.name));
        } else if let Some((owner, workload)) = owner {
            let labels = labels_of(&parts.labels, workload);
            take(&workload.shape, labels, &mut parts, &mut new);
            if let Some(selector) = workload.selector.as_ref().filter(|_| *owner == pod.workload) {
                new.selector = selector.clone();
            }
            by.push(ObjectRef::namespaced(&owner.kind, &owner.namespace, &owner.name));
        }
        if by.is_empty() {
            return None;
        }
        new.identity = interner.intern(parts);
        (new != *pod).then(|| {
            self.touched.extend(by);
            new
        })
    }
}

/// The labels of a recorded pod after its template changed: what neither template has was given by others, and
/// stays; without the old template only what controllers give is known to be others'.
fn labels_of(recorded: &Labels, workload: &NewWorkload) -> Labels {
    let stays = |key: &str| match &workload.old_labels {
        Some(old) => old.get(key).is_none(),
        None => is_controllers_label(key),
    };
    let kept = recorded.iter().filter(|(key, _)| stays(key));
    kept.chain(workload.shape.labels.iter()).collect()
}

fn take(shape: &Shape, labels: Labels, parts: &mut IdentityParts, pod: &mut Pod) {
    // A role that the labels do not give came from elsewhere (a Service), and stays.
    let by_labels = |labels: &Labels| roles::of_labels(&parts.namespace, labels);
    let (old, new) = (by_labels(&parts.labels), by_labels(&labels));
    let all = [Roles::CLUSTER_DNS, Roles::METRICS_SCRAPER, Roles::INGRESS_CONTROLLER];
    let others = all.into_iter().filter(|role| parts.roles.has(*role) && !old.has(*role));
    parts.roles = others.fold(new, Roles::with);
    if labels != parts.labels {
        pod.selector = labels.iter().filter(|(key, _)| !is_controllers_label(key)).collect();
    }
    parts.labels = labels;
    parts.service_account = Arc::clone(&shape.service_account);
    parts.named_ports.clone_from(&shape.named_ports);
    pod.host_network = shape.host_network;
}
