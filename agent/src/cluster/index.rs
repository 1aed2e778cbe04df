//! The index: what exists now, and who had which address when.
//!
//! It is synchronous and knows neither files nor the network nor the clock: whoever watches a source calls
//! [`Index::apply`], [`Index::delete`] and [`Index::reset`] and says when.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::{FxHashMap, FxHashSet};

use self::addresses::{AddressBook, Claim, Claimant, Owner, Rank};
use self::record::{Lineages, Record, Records};
use self::segments::Segments;
use self::state::{NamespaceState, WorkloadState, own_label};
use super::object::{Broken, Namespace, Node, Object, Workload};
use crate::model::edge::Protocol;
use crate::model::endpoint::{Endpoint, Party, Pod};
use crate::model::identity::Interner;
use crate::model::intern;
use crate::model::object::{ObjectRef, WorkloadRef};
use crate::model::time::Timestamp;
use crate::model::verdict::UnknownReason;
use crate::policy::api::{CLUSTER_POLICY_CANDIDATE, POLICY_CANDIDATE};
use crate::policy::{Candidate, Policy};
use crate::segment::api::{EDGE_EXCEPTION, SEGMENT_MAP};

mod addresses;
mod candidates;
mod findings;
mod host;
mod known;
mod pods;
mod ports;
mod record;
mod segments;
mod services;
mod state;
#[cfg(test)]
mod tests;

use self::known::Asking;
pub use findings::Finding;
pub use known::Gaps;
pub(crate) use pods::is_controllers_label;

/// A namespaced object of a known kind: its namespace and name.
type Named = (Arc<str>, Arc<str>);

/// Everything the cluster holds, by name and by address.
#[derive(Debug, Default)]
pub struct Index {
    namespaces: FxHashMap<Arc<str>, Box<NamespaceState>>,
    nodes: FxHashMap<Arc<str>, Arc<Node>>,
    /// The pods of each node.
    by_node: FxHashMap<Arc<str>, Records>,
    /// The Service behind each port that all nodes open.
    node_ports: FxHashMap<(u16, Protocol), Named>,
    /// The Services whose backends may see a node instead of the client.
    hiding: FxHashSet<Named>,
    policies: BTreeMap<ObjectRef, Arc<Policy>>,
    candidates: BTreeMap<ObjectRef, Arc<Candidate>>,
    segments: Segments,
    broken: FxHashMap<ObjectRef, Arc<Broken>>,
    addresses: AddressBook,
    identities: Interner,
    lineages: Lineages,
    /// Ranges of the cluster that the settings name.
    declared_ranges: Vec<IpNet>,
    /// Those, and the pod ranges of the nodes, merged.
    ranges: Vec<IpNet>,
    own_node: Option<Arc<str>>,
    /// The addresses of our host's network namespace.
    host: BTreeSet<IpAddr>,
    /// What the source has not read.
    gaps: Gaps,
    /// Pods that are asked for one by one.
    asking: Asking,
    policy_generation: u64,
    topology_generation: u64,
}

/// Settings.
impl Index {
    /// The ranges of the cluster besides the nodes' pod ranges, Service ranges among them: an address inside
    /// them that belongs to no object is unknown, not external.
    pub fn set_ranges(&mut self, ranges: Vec<IpNet>) {
        self.declared_ranges = ranges;
        self.merge_ranges();
    }

    /// The node we run on: node-local addresses and those of the host are its.
    pub fn set_own_node(&mut self, node: Option<Arc<str>>) {
        self.own_node = node;
        self.topology_generation += 1;
    }

    fn merge_ranges(&mut self) {
        let of_nodes = self.nodes.values().flat_map(|node| node.pod_cidrs.iter().copied());
        let all: Vec<IpNet> = self.declared_ranges.iter().copied().chain(of_nodes).collect();
        self.ranges = IpNet::aggregate(&all);
        self.topology_generation += 1;
    }
}

/// Changes. `at` is when they became known.
impl Index {
    /// Enters an object, in place of its namesake.
    pub fn apply(&mut self, object: Object, at: Timestamp) {
        let reference = object.reference();
        if !matches!(object, Object::Broken(_)) && self.broken.contains_key(&reference) {
            self.delete_broken(&reference, at);
        }
        match object {
            Object::Namespace(namespace) => self.apply_namespace(namespace, at),
            Object::Pod(pod) => self.apply_pod(*pod, at),
            Object::Workload(workload) => self.apply_workload(*workload, at),
            Object::Service(service) => self.apply_service(*service, at),
            Object::EndpointSlice(slice) => self.apply_slice(*slice),
            Object::Node(node) => self.apply_node(*node, at),
            // Given again as it was it is no change: every reading of the manifests gives all of them.
            Object::Policy(policy) => {
                if self.policies.get(&reference) != Some(&policy) {
                    self.policies.insert(reference, policy);
                    self.policy_generation += 1;
                }
            }
            Object::SegmentMap(map) => self.segments.apply_map(map),
            Object::EdgeException(exception) => self.segments.apply_exception(exception),
            Object::Candidate(candidate) => self.apply_candidate(candidate),
            Object::Broken(broken) => self.apply_broken(*broken, at),
        }
    }

    /// Removes an object. What it owned keeps its history.
    pub fn delete(&mut self, reference: &ObjectRef, at: Timestamp) {
        self.delete_broken(reference, at);
        let namespace = reference.namespace.as_deref().unwrap_or_default();
        match &*reference.kind {
            "Namespace" => self.delete_namespace(&reference.name, at),
            "Pod" => self.delete_pod(namespace, &reference.name, at),
            "Service" => self.delete_service(namespace, &reference.name, at),
            "EndpointSlice" => self.delete_slice(namespace, &reference.name),
            "Node" => self.delete_node(&reference.name, at),
            kind if Workload::KINDS.contains(&kind) => {
                self.delete_workload(&WorkloadRef::new(kind, namespace, &reference.name), at);
            }
            SEGMENT_MAP | EDGE_EXCEPTION => self.segments.delete(reference),
            POLICY_CANDIDATE | CLUSTER_POLICY_CANDIDATE => self.delete_candidate(reference),
            _ => {
                if self.policies.remove(reference).is_some() {
                    self.policy_generation += 1;
                }
            }
        }
    }

    /// The world is now exactly these objects. The history of addresses is kept.
    pub fn reset(&mut self, objects: Vec<Object>, at: Timestamp) {
        self.swap(objects, |_| true, at);
    }

    /// The objects of one kind are now exactly these: what a new list of a watch says.
    pub fn reset_kind(&mut self, kind: &str, objects: Vec<Object>, at: Timestamp) {
        self.swap(objects, |reference| &*reference.kind == kind, at);
    }

    fn swap(&mut self, mut objects: Vec<Object>, scope: impl Fn(&ObjectRef) -> bool, at: Timestamp) {
        let new: FxHashSet<ObjectRef> = objects.iter().map(Object::reference).collect();
        let gone = self.references().into_iter().filter(|old| scope(old) && !new.contains(old));
        // First what is gone, so that an address that moves is never claimed twice; then owners before pods,
        // so that each pod is made once.
        for reference in gone.collect::<Vec<_>>() {
            self.delete(&reference, at);
        }
        objects.sort_by_key(|object| match object {
            Object::Namespace(_) => 0,
            Object::Node(_) => 1,
            Object::Workload(_) => 2,
            Object::Service(_) => 3,
            Object::Pod(_) | Object::EndpointSlice(_) | Object::Policy(_) | Object::Broken(_) => 4,
            Object::SegmentMap(_) | Object::EdgeException(_) | Object::Candidate(_) => 4,
        });
        for object in objects {
            self.apply(object, at);
        }
    }

    fn references(&self) -> Vec<ObjectRef> {
        let mut all: Vec<ObjectRef> =
            self.nodes.keys().map(|name| ObjectRef::cluster("Node", name)).collect();
        all.extend(self.policies.keys().cloned());
        all.extend(self.candidates.keys().cloned());
        all.extend(self.segments.references());
        all.extend(self.broken.keys().cloned());
        for (namespace, space) in &self.namespaces {
            if space.declared {
                all.push(ObjectRef::cluster("Namespace", namespace));
            }
            let known = space.workloads.iter().filter(|(_, state)| state.object.is_some());
            all.extend(known.map(|(w, _)| ObjectRef::namespaced(&w.kind, &w.namespace, &w.name)));
            all.extend(space.pods.iter().map(|pod| ObjectRef::namespaced("Pod", namespace, &pod.name)));
            all.extend(space.services.keys().map(|name| ObjectRef::namespaced("Service", namespace, name)));
            all.extend(
                space.slices.keys().map(|name| ObjectRef::namespaced("EndpointSlice", namespace, name)),
            );
        }
        all
    }

    /// Forgets who had which address before `time`, and identities that are no longer in use.
    pub fn forget_before(&mut self, time: Timestamp) {
        self.addresses.forget_before(time);
        self.lineages.forget_unused();
        self.identities.forget_unused();
        intern::forget_unused();
    }

    fn space(&mut self, namespace: &Arc<str>) -> &mut NamespaceState {
        self.namespaces.entry(Arc::clone(namespace)).or_insert_with_key(NamespaceState::new)
    }

    fn apply_namespace(&mut self, namespace: Namespace, at: Timestamp) {
        let space = self.space(&namespace.name);
        let relabelled = space.labels != namespace.labels;
        if space.declared && !relabelled {
            return;
        }
        space.declared = true;
        space.labels = namespace.labels;
        self.topology_generation += 1;
        if relabelled {
            self.rebuild_pods(&namespace.name, |_| true, at);
            self.rebuild_templates(&namespace.name);
        }
    }

    fn delete_namespace(&mut self, name: &str, at: Timestamp) {
        let Some(space) = self.namespaces.get_mut(name) else { return };
        space.declared = false;
        space.labels = own_label(name);
        self.topology_generation += 1;
        if space.pods.is_empty() && space.workloads.is_empty() && space.services.is_empty() {
            self.namespaces.remove(name);
        } else {
            self.rebuild_pods(name, |_| true, at);
            self.rebuild_templates(name);
        }
    }

    fn apply_node(&mut self, node: Node, at: Timestamp) {
        let name = Arc::clone(&node.name);
        let old = self.nodes.get(&name).cloned();
        if old.as_deref() == Some(&node) {
            return;
        }
        let node = Arc::new(node);
        let claims: Vec<(IpAddr, Rank)> = claims_of(&node);
        let claimant = Claimant::Node(Arc::clone(&name));
        for (address, _) in old.iter().flat_map(|old| claims_of(old)) {
            if !claims.iter().any(|(kept, _)| *kept == address) {
                self.addresses.release(address, &claimant, at);
            }
        }
        for (address, rank) in claims {
            let owner = Owner::Node(Arc::clone(&name));
            self.addresses.claim(address, Claim { claimant: claimant.clone(), rank, since: None, owner }, at);
        }
        let moved = old.is_none_or(|old| old.pod_cidrs != node.pod_cidrs);
        self.nodes.insert(name, node);
        self.topology_generation += 1;
        if moved {
            self.merge_ranges();
        }
    }

    fn delete_node(&mut self, name: &str, at: Timestamp) {
        let Some((name, node)) = self.nodes.remove_entry(name) else { return };
        let claimant = Claimant::Node(name);
        for (address, _) in claims_of(&node) {
            self.addresses.release(address, &claimant, at);
        }
        self.merge_ranges();
    }

    fn apply_broken(&mut self, broken: Broken, at: Timestamp) {
        let reference = Arc::clone(&broken.reference);
        if self.broken.get(&*reference).is_some_and(|old| **old == broken) {
            return;
        }
        self.delete(&reference, at);
        let claimant = Claimant::Broken(Arc::clone(&reference));
        let rank = match &*reference.kind {
            "Node" => Rank::Node,
            "Service" => Rank::ServiceCluster,
            _ => Rank::Pod,
        };
        for address in &broken.addresses {
            let owner = Owner::Broken(Arc::clone(&reference));
            let claim = Claim { claimant: claimant.clone(), rank, since: None, owner };
            self.addresses.claim(*address, claim, at);
        }
        match (&*reference.kind, &reference.namespace) {
            ("Namespace", _) => {
                self.space(&reference.name).broken = Some(Arc::clone(&reference));
            }
            ("EndpointSlice", Some(namespace)) => {
                if let Some(service) = &broken.service {
                    let slices = self.space(namespace).slices_of.entry(Arc::clone(service)).or_default();
                    slices.insert(Arc::clone(&reference.name));
                }
            }
            _ => {}
        }
        self.broken.insert(ObjectRef::clone(&reference), Arc::new(broken));
        self.topology_generation += 1;
    }

    fn delete_broken(&mut self, reference: &ObjectRef, at: Timestamp) {
        let Some(broken) = self.broken.remove(reference) else { return };
        let claimant = Claimant::Broken(Arc::clone(&broken.reference));
        for address in &broken.addresses {
            self.addresses.release(*address, &claimant, at);
        }
        let namespace = reference.namespace.as_ref().unwrap_or(&reference.name);
        if let Some(space) = self.namespaces.get_mut(namespace) {
            match (&*reference.kind, &broken.service) {
                ("Namespace", _) => space.broken = None,
                ("EndpointSlice", Some(service)) => space.forget_slice_of(service, &reference.name),
                _ => {}
            }
        }
        self.topology_generation += 1;
    }
}

/// Answers.
impl Index {
    /// What an address was when it was reached on a port at that time: the responder's side of a connection.
    /// A Service's address, and a node's on a port that a Service opens, is the Service with its backends.
    /// `client` is the initiator's node, if that is known.
    pub fn party_at(
        &self,
        address: IpAddr,
        port: u16,
        protocol: Protocol,
        client: Option<&str>,
        at: Timestamp,
    ) -> Party {
        match self.addresses.owner_at(address, at) {
            Some(Owner::Service(namespace, name)) => {
                let service = self.namespaces.get(&namespace).and_then(|space| space.services.get(&name));
                let Some(service) = service else {
                    return Party::unknown(Some(address), UnknownReason::AddressUnjoined);
                };
                let port = service.ports.iter().find(|p| p.port == port && p.protocol == protocol);
                self.service_party(address, service, port, client, at)
            }
            Some(Owner::Node(_) | Owner::UnnamedNode | Owner::Host) => {
                let external = self.external_service(address, port, protocol);
                match external.or_else(|| self.node_port(port, protocol)) {
                    Some((service, port)) => self.service_party(address, service, Some(port), client, at),
                    None if self.lacks_services() => Party::unknown(Some(address), UnknownReason::NotSynced),
                    None => self.initiator_at(address, at),
                }
            }
            _ => self.initiator_at(address, at),
        }
    }

    /// What an address was that a packet came from: the initiator's side of a connection, where ports are the
    /// client's and no Service address can be.
    pub fn initiator_at(&self, address: IpAddr, at: Timestamp) -> Party {
        let unknown = |reason| Party::unknown(Some(address), reason);
        match self.addresses.owner_at(address, at) {
            Some(Owner::Pod(pod)) => self.party_of(&pod.pod(), Some(address)),
            Some(Owner::Node(node)) => Party { address: Some(address), endpoint: Endpoint::Node(node) },
            Some(Owner::Host) => self.host_party(address),
            Some(Owner::Broken(object)) => unknown(UnknownReason::ObjectInvalid { object }),
            Some(Owner::Contested) => unknown(UnknownReason::AddressReused),
            Some(Owner::Service(..) | Owner::UnnamedNode) => unknown(UnknownReason::AddressUnjoined),
            None if host::is_node_local(address) => self.host_party(address),
            None if self.is_inside(address) => unknown(self.unowned()),
            None if self.may_be_unread() => unknown(UnknownReason::NotSynced),
            None if self.is_to_be_asked(address, at) => unknown(UnknownReason::NotSynced),
            None => Party::external(address),
        }
    }

    /// A pod as a party, reached at one of its addresses; unknown where its namespace could not be read, or was not.
    pub fn party_of(&self, pod: &Arc<Pod>, address: Option<IpAddr>) -> Party {
        let broken = self.namespaces.get(&pod.namespace).and_then(|space| space.broken.as_ref());
        match broken {
            None if self.lacks_namespaces() => Party::unknown(address, UnknownReason::NotSynced),
            None => Party::pod(Arc::clone(pod), address),
            Some(object) => {
                Party::unknown(address, UnknownReason::ObjectInvalid { object: Arc::clone(object) })
            }
        }
    }

    /// Whether an address is the cluster's: in one of its ranges, on one of its links, or once an object's that we
    /// remember.
    fn is_inside(&self, address: IpAddr) -> bool {
        let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        is_link_local
            || self.addresses.is_known(address)
            || self.ranges.iter().any(|range| range.contains(&address))
    }

    /// The cluster's ranges, and every address of an object that is in none of them.
    pub fn networks(&self) -> Vec<IpNet> {
        let outlying = self.addresses.all().filter(|a| !self.ranges.iter().any(|range| range.contains(a)));
        self.ranges.iter().copied().chain(outlying.map(IpNet::from)).collect()
    }

    /// The Service that has a node's address as an external IP or a load balancer's, on one of its ports.
    fn external_service(
        &self,
        address: IpAddr,
        port: u16,
        protocol: Protocol,
    ) -> Option<(&Arc<super::object::Service>, &super::object::ServicePort)> {
        let claims = self.addresses.claims(address).iter();
        claims.filter(|claim| claim.rank == Rank::ServiceExternal).find_map(|claim| {
            let Owner::Service(namespace, name) = &claim.owner else { return None };
            let service = self.namespaces.get(namespace)?.services.get(name)?;
            let port = service.ports.iter().find(|p| p.port == port && p.protocol == protocol)?;
            Some((service, port))
        })
    }

    /// Whether an address had two owners, or one owner two identities, after `from` and not after `to`; true
    /// also while several objects claim it.
    pub fn owner_changed(&self, address: IpAddr, from: Timestamp, to: Timestamp) -> bool {
        self.addresses.changed(address, from, to)
    }

    /// A pod by name, finished ones included.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        Some(self.namespaces.get(namespace)?.pods.get(namespace, name)?.pod())
    }

    /// An object that exists but could not be read.
    pub fn broken(&self, reference: &ObjectRef) -> Option<&Arc<Broken>> {
        self.broken.get(reference)
    }

    /// The live pods of a workload, which may be any owner in their chain, in order of name; its template's
    /// pod where it has none. A bare pod is its own workload.
    pub fn workload_pods(&self, workload: &WorkloadRef) -> Vec<Arc<Pod>> {
        let Some(space) = self.namespaces.get(&workload.namespace) else { return Vec::new() };
        if &*workload.kind == "Pod" {
            let pod = space.pods.get(&workload.namespace, &workload.name);
            return pod.map(|record| record.pod()).into_iter().collect();
        }
        let Some(state) = space.workloads.get(workload) else { return Vec::new() };
        if let Some(template) = state.stand_in() {
            return vec![Arc::clone(template)];
        }
        let members = space.pods.live().filter(|record| record.lineage.owners.contains(workload));
        let mut members: Vec<_> = members.map(|record| record.pod()).collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        members
    }

    /// Whether there is a node of this name, or a pod on one.
    pub fn knows_node(&self, name: &str) -> bool {
        self.nodes.contains_key(name) || self.by_node.contains_key(name)
    }

    /// The live pods of a node.
    pub fn pods_on(&self, node: &str) -> Vec<Arc<Pod>> {
        let pods = self.by_node.get(node).into_iter().flat_map(Records::live);
        pods.map(|record| record.pod()).collect()
    }

    /// All live pods, and a template's pod for each workload that has none.
    pub fn pods(&self) -> impl Iterator<Item = Arc<Pod>> {
        self.live().map(|pod| match pod {
            Live::Pod(record) => record.pod(),
            Live::StandIn(template) => Arc::clone(template),
        })
    }

    /// How many pods [`Index::pods`] gives.
    pub fn pod_count(&self) -> usize {
        self.live().count()
    }

    /// The workloads that have pods, or a template in place of them.
    pub fn workloads(&self) -> FxHashSet<WorkloadRef> {
        let workload = |pod| match pod {
            Live::Pod(record) => record.workload(),
            Live::StandIn(template) => template.workload.clone(),
        };
        self.live().map(workload).collect()
    }

    fn live(&self) -> impl Iterator<Item = Live<'_>> {
        self.namespaces.values().flat_map(|space| {
            let stand_ins = space.workloads.iter().filter_map(|(reference, state): (_, &WorkloadState)| {
                state.stand_in().filter(|template| template.workload == *reference)
            });
            space.pods.live().map(|record| Live::Pod(record)).chain(stand_ins.map(Live::StandIn))
        })
    }

    /// All policies, in order of kind, namespace and name; then one for each kind of which no list was read.
    pub fn policies(&self) -> Vec<Arc<Policy>> {
        self.policies.values().cloned().chain(self.unread_policies()).collect()
    }

    /// The number of changes of policies so far.
    pub const fn policy_generation(&self) -> u64 {
        self.policy_generation
    }

    /// The number of changes of anything else so far.
    pub const fn topology_generation(&self) -> u64 {
        self.topology_generation
    }
}

/// A live pod, or what stands for those that a workload does not have.
enum Live<'a> {
    Pod(&'a Record),
    StandIn(&'a Arc<Pod>),
}

/// The addresses of a node: those it names, and its gateways.
fn claims_of(node: &Node) -> Vec<(IpAddr, Rank)> {
    let mut claims: Vec<(IpAddr, Rank)> =
        node.addresses.iter().map(|address| (*address, Rank::Node)).collect();
    for gateway in node.gateways() {
        if !node.addresses.contains(&gateway) {
            claims.push((gateway, Rank::Gateway));
        }
    }
    claims
}
