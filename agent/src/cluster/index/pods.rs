//! Pods as the index keeps them: owner chains, identities, and the templates that stand for missing pods.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use smallvec::SmallVec;

use super::Index;
use super::addresses::{Claim, Claimant, Owner, Rank};
use super::record::{Lineage, Record, top};
use super::state::{NamespaceState, WorkloadState};
use crate::cluster::object::{Controller, Pod as PodObject, Shape, Workload};
use crate::cluster::roles;
use crate::model::endpoint::Pod;
use crate::model::identity::{Identity, IdentityParts, Interner};
use crate::model::intern;
use crate::model::labels::Labels;
use crate::model::object::WorkloadRef;
use crate::model::time::Timestamp;

/// Kinds whose pods they are even where something else made them: an operator's Deployment is still the
/// workload that dashboards and people name.
const TOPS: [&str; 5] = ["Deployment", "StatefulSet", "DaemonSet", "CronJob", "ReplicationController"];

/// Labels that controllers add to pods and that tell pods of one workload apart, or its revisions.
/// Source: Kubernetes docs, "Well-Known Labels, Annotations and Taints".
const CONTROLLER_LABELS: [&str; 8] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "job-name",
    "controller-uid",
    "rollouts-pod-template-hash",
];

impl Index {
    pub(super) fn apply_pod(&mut self, object: PodObject, at: Timestamp) {
        let space =
            self.namespaces.entry(Arc::clone(&object.namespace)).or_insert_with_key(NamespaceState::new);
        let old = space.pods.get(&object.namespace, &object.name);
        let record = Record {
            lineage: self.lineages.share(lineage(space, object.controller, &object.shape.labels)),
            identity: identify(space, &mut self.identities, &object.shape),
            name: object.name,
            uid: object.uid,
            node: object.node,
            addresses: if object.finished { SmallVec::new() } else { object.addresses.into() },
            created: object.created.unwrap_or(Timestamp::END),
            host_network: object.shape.host_network,
            finished: object.finished,
            made: Mutex::default(),
        };
        let is_known = old.is_some_and(|old| **old == record);
        space.add_ports(&record, &object.unnamed_ports);
        if !is_known {
            self.put_pod(record, at);
        }
    }

    /// Enters a pod in place of its namesake, and moves its memberships and addresses.
    fn put_pod(&mut self, record: Record, at: Timestamp) {
        let Some(space) = self.namespaces.get_mut(record.namespace()) else { return };
        let pod = Arc::new(record);
        let old = space.pods.insert(Arc::clone(&pod));
        if let Some(old) = &old {
            space.leave(old);
        }
        if !pod.finished {
            space.join(&pod);
        }
        if let Some(old) = &old
            && old.node != pod.node
        {
            self.leave_node(old);
        }
        if let Some(node) = &pod.node {
            self.by_node.entry(Arc::clone(node)).or_default().insert(Arc::clone(&pod));
        }
        let claimant = Claimant::of(&pod);
        for address in old.iter().flat_map(|old| old.addresses.iter()) {
            if !pod.addresses.contains(address) {
                self.addresses.release(*address, &claimant, at);
            }
        }
        let owner = match (&pod.node, pod.host_network) {
            (_, false) => Owner::Pod(Arc::clone(&pod)),
            (Some(node), true) => Owner::Node(Arc::clone(node)),
            (None, true) => Owner::UnnamedNode,
        };
        let rank = if pod.host_network { Rank::Node } else { Rank::Pod };
        for address in &pod.addresses {
            let claim =
                Claim { claimant: claimant.clone(), rank, since: pod.created(), owner: owner.clone() };
            self.addresses.claim(*address, claim, at);
        }
        self.topology_generation += 1;
    }

    pub(super) fn delete_pod(&mut self, namespace: &str, name: &str, at: Timestamp) {
        let Some(space) = self.namespaces.get_mut(namespace) else { return };
        let Some(old) = space.pods.remove(namespace, name) else { return };
        space.leave(&old);
        space.forget_ports(&old);
        self.leave_node(&old);
        let claimant = Claimant::of(&old);
        for address in &old.addresses {
            self.addresses.release(*address, &claimant, at);
        }
        self.topology_generation += 1;
    }

    fn leave_node(&mut self, pod: &Record) {
        if let Some(node) = &pod.node
            && let Some(on_node) = self.by_node.get_mut(node)
        {
            on_node.remove(pod.namespace(), &pod.name);
            if on_node.is_empty() {
                self.by_node.remove(node);
            }
        }
    }

    /// Makes the pods of a namespace anew after something they rest on changed: the namespace's labels, the
    /// DNS Services, or an owner. `which` says whose pods.
    pub(super) fn rebuild_pods(&mut self, namespace: &str, which: impl Fn(&Record) -> bool, at: Timestamp) {
        let Some(space) = self.namespaces.get(namespace) else { return };
        let mut changed = SmallVec::<[Record; 1]>::new();
        for old in space.pods.iter().filter(|record| which(record)) {
            let new = Record {
                lineage: self.lineages.share(lineage(
                    space,
                    old.lineage.controller.clone(),
                    &old.identity.labels,
                )),
                identity: identify(space, &mut self.identities, &shape(old)),
                name: Arc::clone(&old.name),
                uid: old.uid.clone(),
                node: old.node.clone(),
                addresses: old.addresses.clone(),
                created: old.created,
                host_network: old.host_network,
                finished: old.finished,
                made: Mutex::default(),
            };
            if new != **old {
                changed.push(new);
            }
        }
        for record in changed {
            self.put_pod(record, at);
        }
    }

    pub(super) fn apply_workload(&mut self, object: Workload, at: Timestamp) {
        let space =
            self.namespaces.entry(Arc::clone(&object.namespace)).or_insert_with_key(NamespaceState::new);
        let namespace = Arc::clone(&space.name);
        let reference = WorkloadRef {
            kind: Arc::clone(&object.kind),
            namespace: Arc::clone(&namespace),
            name: Arc::clone(&object.name),
        };
        let state = space.workloads.entry(reference.clone()).or_default();
        if state.object.as_deref() == Some(&object) {
            return;
        }
        let moved = state
            .object
            .as_ref()
            .is_none_or(|old| old.controller != object.controller || old.selector != object.selector);
        state.object = Some(Arc::new(object));
        let template = template(space, &mut self.identities, &reference);
        if let Some(state) = space.workloads.get_mut(&reference) {
            state.template = template;
        }
        self.topology_generation += 1;
        if moved {
            self.rebuild_below(&reference, at);
        }
    }

    pub(super) fn delete_workload(&mut self, reference: &WorkloadRef, at: Timestamp) {
        let Some(space) = self.namespaces.get_mut(&reference.namespace) else { return };
        let Some(state) = space.workloads.get_mut(reference) else { return };
        state.object = None;
        state.template = None;
        if state.members == 0 {
            space.workloads.remove(reference);
        }
        self.topology_generation += 1;
        self.rebuild_below(reference, at);
    }

    /// Resolves the pods again whose chain may go through this workload.
    fn rebuild_below(&mut self, reference: &WorkloadRef, at: Timestamp) {
        // Pods of a Job that is not known find their CronJob by name only while that CronJob is known.
        let cron_job = &*reference.kind == "CronJob";
        let below = |pod: &Record| {
            let owners = &pod.lineage.owners;
            let runs = |owner: &WorkloadRef| &*owner.kind == "Job" && is_run_of(owner, &reference.name);
            owners.contains(reference) || (cron_job && owners.iter().any(runs))
        };
        let no_pods = !cron_job
            && self
                .namespaces
                .get(&reference.namespace)
                .is_none_or(|space| space.workloads.get(reference).is_none_or(|state| state.members == 0));
        if !no_pods {
            self.rebuild_pods(&reference.namespace, below, at);
        }
    }

    /// Makes the templates of a namespace anew after its labels or its DNS Services changed.
    pub(super) fn rebuild_templates(&mut self, namespace: &str) {
        let Some(space) = self.namespaces.get_mut(namespace) else { return };
        let references: Vec<WorkloadRef> = space.workloads.keys().cloned().collect();
        for reference in references {
            let template = template(space, &mut self.identities, &reference);
            if let Some(state) = space.workloads.get_mut(&reference) {
                state.template = template;
            }
        }
    }
}

impl NamespaceState {
    /// Counts a live pod with each of its owners.
    fn join(&mut self, pod: &Record) {
        for owner in pod.lineage.owners.iter() {
            match self.workloads.get_mut(owner) {
                Some(state) => state.members += 1,
                None => {
                    let state = WorkloadState { members: 1, ..WorkloadState::default() };
                    self.workloads.insert(owner.clone(), state);
                }
            }
        }
    }

    fn leave(&mut self, pod: &Record) {
        for owner in pod.lineage.owners.iter().filter(|_| !pod.finished) {
            if let Some(state) = self.workloads.get_mut(owner) {
                state.members = state.members.saturating_sub(1);
                if state.members == 0 && state.object.is_none() {
                    self.workloads.remove(owner);
                }
            }
        }
    }
}

/// What a pod has from its owners, as far as they are known.
fn lineage(space: &NamespaceState, controller: Option<Controller>, labels: &Labels) -> Lineage {
    let owners = resolve(space, controller.as_ref(), Some(labels));
    Lineage {
        namespace: Arc::clone(&space.name),
        selector: selector(space, &owners, labels),
        owners: owners.into(),
        controller,
    }
}

/// Every owner from the nearest to the top.
fn resolve(
    space: &NamespaceState,
    controller: Option<&Controller>,
    labels: Option<&Labels>,
) -> Vec<WorkloadRef> {
    let mut owners: Vec<WorkloadRef> = Vec::new();
    let mut next = controller.cloned();
    while let Some(controller) = next {
        let named =
            WorkloadRef { kind: controller.kind, namespace: Arc::clone(&space.name), name: controller.name };
        // A circle of owners is no chain; the API server does not forbid it.
        if owners.contains(&named) {
            break;
        }
        let known = space.workloads.get_key_value(&named);
        let owner = known.map_or(named, |(shared, _)| shared.clone());
        let object = known.and_then(|(_, state)| state.object.as_deref());
        next = match object {
            _ if TOPS.contains(&&*owner.kind) => None,
            Some(object) => object.controller.clone(),
            None => guess_controller(space, &owner, labels),
        };
        owners.push(owner);
    }
    owners
}

/// The controller of an owner that we do not know, from how controllers name what they make: a ReplicaSet is
/// named after its Deployment and the template's hash, a Job after its CronJob and the time (as a number).
/// Sources: `pkg/controller/deployment/sync.go` `getNewReplicaSet`, `pkg/controller/cronjob/utils.go`
/// `getJobName`.
fn guess_controller(
    space: &NamespaceState,
    owner: &WorkloadRef,
    labels: Option<&Labels>,
) -> Option<Controller> {
    match &*owner.kind {
        "ReplicaSet" => {
            let hash = labels?.get("pod-template-hash")?;
            let name = owner.name.strip_suffix(hash)?.strip_suffix('-')?;
            (!name.is_empty())
                .then(|| Controller { kind: intern::string("Deployment"), name: intern::string(name) })
        }
        "Job" => {
            let (name, _) = owner.name.rsplit_once('-')?;
            let reference = WorkloadRef::new("CronJob", &space.name, name);
            let (known, state) = space.workloads.get_key_value(&reference)?;
            let run = state.object.is_some() && is_run_of(owner, name);
            run.then(|| Controller { kind: Arc::clone(&known.kind), name: Arc::clone(&known.name) })
        }
        _ => None,
    }
}

/// Whether a Job's name is the CronJob's, and a number.
fn is_run_of(job: &WorkloadRef, cron_job: &str) -> bool {
    let number = job.name.strip_prefix(cron_job).and_then(|rest| rest.strip_prefix('-'));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// The labels that select the workload's pods.
fn selector(space: &NamespaceState, owners: &[WorkloadRef], labels: &Labels) -> Labels {
    let object = owners.last().and_then(|top| space.workloads.get(top)?.object.as_ref());
    if let Some(selector) = object.and_then(|object| object.selector.as_ref()) {
        return selector.clone();
    }
    if !labels.iter().any(|(key, _)| is_controllers_label(key)) {
        return labels.clone();
    }
    intern::labels(labels.iter().filter(|(key, _)| !is_controllers_label(key)))
}

/// Whether controllers add this label to pods, to tell pods of one workload apart.
pub(crate) fn is_controllers_label(key: &str) -> bool {
    CONTROLLER_LABELS.contains(&key) || key.starts_with("batch.kubernetes.io/")
}

fn identify(space: &NamespaceState, identities: &mut Interner, shape: &Shape) -> Arc<Identity> {
    let mut roles = roles::of_labels(&space.name, &shape.labels);
    if space.dns.iter().any(|(_, selector)| selector.matches(&shape.labels)) {
        roles = roles.with(crate::model::role::Roles::CLUSTER_DNS);
    }
    identities.intern(IdentityParts {
        namespace: Arc::clone(&space.name),
        namespace_labels: space.labels.clone(),
        labels: shape.labels.clone(),
        service_account: Arc::clone(&shape.service_account),
        named_ports: shape.named_ports.clone(),
        roles,
    })
}

/// The shape that a pod was made from.
fn shape(pod: &Record) -> Shape {
    Shape {
        labels: pod.identity.labels.clone(),
        service_account: Arc::clone(&pod.identity.service_account),
        named_ports: pod.identity.named_ports.to_vec(),
        host_network: pod.host_network,
    }
}

/// The pod that stands for those a workload does not have yet.
fn template(space: &NamespaceState, identities: &mut Interner, reference: &WorkloadRef) -> Option<Arc<Pod>> {
    let object = space.workloads.get(reference)?.object.as_ref()?;
    let shape = object.template.as_ref()?;
    let controller = Controller { kind: Arc::clone(&reference.kind), name: Arc::clone(&reference.name) };
    let owners = resolve(space, Some(&controller), Some(&shape.labels));
    let identity = identify(space, identities, shape);
    let no_address: [IpAddr; 0] = [];
    Some(Arc::new(Pod {
        namespace: Arc::clone(&space.name),
        name: Arc::clone(&reference.name),
        uid: "".into(),
        workload: top(&owners, &space.name, &reference.name),
        selector: selector(space, &owners, &identity.labels),
        identity,
        owners: owners.into(),
        node: None,
        host_network: shape.host_network,
        addresses: no_address.into(),
        from_template: true,
    }))
}

impl WorkloadState {
    /// The template's pod, while no live pod makes it needless.
    pub(super) fn stand_in(&self) -> Option<&Arc<Pod>> {
        self.template.as_ref().filter(|_| self.members == 0)
    }
}
