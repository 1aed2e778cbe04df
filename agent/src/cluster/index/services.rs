//! Services: which pods are behind an address and port after translation (DNAT).

use std::net::IpAddr;
use std::sync::Arc;

use super::Index;
use super::addresses::{Claim, Claimant, Owner, Rank};
use super::state::NamespaceState;
use crate::cluster::object::{EndpointSlice, Service, ServicePort, SliceEndpoint, SlicePort, TargetPort};
use crate::cluster::roles;
use crate::model::edge::Protocol;
use crate::model::endpoint::{Backend, Endpoint, Party, Pod, ServiceTarget};
use crate::model::identity::Identity;
use crate::model::object::ObjectRef;
use crate::model::time::Timestamp;
use crate::model::verdict::UnknownReason;

impl Index {
    pub(super) fn apply_service(&mut self, object: Service, at: Timestamp) {
        let space =
            self.namespaces.entry(Arc::clone(&object.namespace)).or_insert_with_key(NamespaceState::new);
        let old = space.services.get(&object.name).cloned();
        if old.as_deref() == Some(&object) {
            return;
        }
        if let Some(old) = &old {
            let kept = |ip: &IpAddr| object.cluster_ips.contains(ip) || object.external.contains(ip);
            self.release_service(old, kept, at);
        }
        let service = Arc::new(object);
        let (namespace, name) = (&service.namespace, &service.name);
        let ranked = service.cluster_ips.iter().map(|ip| (ip, Rank::ServiceCluster));
        let ranked = ranked.chain(service.external.iter().map(|ip| (ip, Rank::ServiceExternal)));
        for (ip, rank) in ranked {
            let claim = Claim {
                claimant: Claimant::Service(Arc::clone(namespace), Arc::clone(name)),
                rank,
                since: None,
                owner: Owner::Service(Arc::clone(namespace), Arc::clone(name)),
            };
            self.addresses.claim(*ip, claim, at);
        }
        for port in &service.ports {
            if let Some(node_port) = port.node_port {
                let key = (node_port, port.protocol);
                self.node_ports.insert(key, (Arc::clone(namespace), Arc::clone(name)));
            }
        }
        if service.hides_clients {
            self.hiding.insert((Arc::clone(namespace), Arc::clone(name)));
        }
        if let Some(space) = self.namespaces.get_mut(namespace) {
            space.services.insert(Arc::clone(name), Arc::clone(&service));
        }
        self.topology_generation += 1;
        self.update_dns(namespace, at);
    }

    pub(super) fn delete_service(&mut self, namespace: &str, name: &str, at: Timestamp) {
        let Some(space) = self.namespaces.get_mut(namespace) else { return };
        let Some(old) = space.services.remove(name) else { return };
        self.release_service(&old, |_| false, at);
        self.topology_generation += 1;
        self.update_dns(namespace, at);
    }

    fn release_service(&mut self, service: &Service, kept: impl Fn(&IpAddr) -> bool, at: Timestamp) {
        let claimant = Claimant::Service(Arc::clone(&service.namespace), Arc::clone(&service.name));
        for ip in service.cluster_ips.iter().chain(&service.external).filter(|ip| !kept(ip)) {
            self.addresses.release(*ip, &claimant, at);
        }
        let is_other = |(namespace, name): &(Arc<str>, Arc<str>)| {
            *namespace != service.namespace || *name != service.name
        };
        self.node_ports.retain(|_, named| is_other(named));
        self.hiding.retain(is_other);
    }

    /// Gives the DNS role to the pods that the DNS Services of a namespace select now.
    fn update_dns(&mut self, namespace: &str, at: Timestamp) {
        let Some(space) = self.namespaces.get_mut(namespace) else { return };
        let services = space.services.values().filter(|service| roles::is_cluster_dns(service));
        let mut dns: Vec<_> = services
            .filter_map(|service| Some((Arc::clone(&service.name), service.selector.clone()?)))
            .collect();
        dns.sort_by(|a, b| a.0.cmp(&b.0));
        if dns != space.dns {
            space.dns = dns;
            self.rebuild_pods(namespace, |_| true, at);
            self.rebuild_templates(namespace);
        }
    }

    pub(super) fn apply_slice(&mut self, object: EndpointSlice) {
        let space =
            self.namespaces.entry(Arc::clone(&object.namespace)).or_insert_with_key(NamespaceState::new);
        if space.slices.get(&object.name).is_some_and(|old| **old == object) {
            return;
        }
        space.forget_slice(&object.name);
        if let Some(service) = &object.service {
            let slices = space.slices_of.entry(Arc::clone(service)).or_default();
            slices.insert(Arc::clone(&object.name));
        }
        space.slices.insert(Arc::clone(&object.name), Arc::new(object));
        self.topology_generation += 1;
    }

    pub(super) fn delete_slice(&mut self, namespace: &str, name: &str) {
        if let Some(space) = self.namespaces.get_mut(namespace) {
            space.forget_slice(name);
            self.topology_generation += 1;
        }
    }

    /// The Service behind a port that every node opens for it.
    pub(super) fn node_port(&self, port: u16, protocol: Protocol) -> Option<(&Arc<Service>, &ServicePort)> {
        let (namespace, name) = self.node_ports.get(&(port, protocol))?;
        let service = self.namespaces.get(namespace)?.services.get(name)?;
        let port = service.ports.iter().find(|p| p.node_port == Some(port) && p.protocol == protocol)?;
        Some((service, port))
    }

    /// A Service as it is reached on one of its ports, or on none of them.
    ///
    /// Backends are those of the last known slices, not of the packet's time: slices keep no history. With
    /// `internalTrafficPolicy: Local` they are those on the client's node, where that is known. What pods send to
    /// an external address or a node port is under neither traffic policy: kube-proxy lets it go to any backend
    /// (kubernetes, `pkg/proxy/iptables/proxier.go`, "pod traffic for … external destinations").
    pub(super) fn service_party(
        &self,
        address: IpAddr,
        service: &Service,
        port: Option<&ServicePort>,
        client: Option<&str>,
        at: Timestamp,
    ) -> Party {
        let near = client.filter(|_| service.internal_local && service.cluster_ips.contains(&address));
        if self.lacks_backends() {
            return Party::unknown(Some(address), UnknownReason::NotSynced);
        }
        let backends = match port {
            Some(port) => self.backends(address, service, port, near, at),
            None => Ok(Vec::new()),
        };
        match backends {
            Ok(backends) => {
                let (namespace, name) = (Arc::clone(&service.namespace), Arc::clone(&service.name));
                let target = ServiceTarget { namespace, name, backends };
                Party { address: Some(address), endpoint: Endpoint::Service(Arc::new(target)) }
            }
            Err(object) => Party::unknown(Some(address), UnknownReason::ObjectInvalid { object }),
        }
    }

    /// All ready backends, of the address's family and on the node `near` if that is given; or the slice that
    /// could not be read.
    fn backends(
        &self,
        address: IpAddr,
        service: &Service,
        port: &ServicePort,
        near: Option<&str>,
        at: Timestamp,
    ) -> Result<Vec<Backend>, Arc<ObjectRef>> {
        let Some(space) = self.namespaces.get(&service.namespace) else { return Ok(Vec::new()) };
        let Some(names) = space.slices_of.get(&service.name).filter(|names| !names.is_empty()) else {
            let mut backends = self.selected_backends(address, space, service, port);
            backends.retain(|backend| near.is_none_or(|node| is_on(&backend.party, node)));
            return Ok(backends);
        };
        let mut slices = Vec::with_capacity(names.iter().len());
        for name in names.iter() {
            match space.slices.get(name) {
                Some(slice) => slices.push(slice),
                None => {
                    let slice = ObjectRef::namespaced("EndpointSlice", &service.namespace, name);
                    let known = self.broken.get(&slice).map(|broken| Arc::clone(&broken.reference));
                    return Err(known.unwrap_or_else(|| Arc::new(slice)));
                }
            }
        }
        let is_near =
            |endpoint: &SliceEndpoint| near.is_none_or(|node| endpoint.node.as_deref() == Some(node));
        let all = service.publish_not_ready;
        let ready = |endpoint: &SliceEndpoint| (all || endpoint.ready) && is_near(endpoint);
        let mut backends = self.slice_backends(address, &slices, port, ready, at);
        if backends.is_empty() {
            // kube-proxy sends to terminating backends while no other is left
            // (KEP-1669, "Proxy Terminating Endpoints").
            let last =
                |endpoint: &SliceEndpoint| endpoint.serving && endpoint.terminating && is_near(endpoint);
            backends = self.slice_backends(address, &slices, port, last, at);
        }
        Ok(backends)
    }

    fn slice_backends(
        &self,
        address: IpAddr,
        slices: &[&Arc<EndpointSlice>],
        port: &ServicePort,
        wanted: impl Fn(&SliceEndpoint) -> bool,
        at: Timestamp,
    ) -> Vec<Backend> {
        let mut backends = Vec::new();
        for slice in slices {
            let matching = slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
            for target in matching {
                let number = target_number(target, port);
                for endpoint in slice.endpoints.iter().filter(|endpoint| wanted(endpoint)) {
                    let first = endpoint.address.filter(|first| first.is_ipv4() == address.is_ipv4());
                    if let Some(first) = first {
                        let party = self.backend_party(first, slice, endpoint, at);
                        let backend = Backend { party, port: number };
                        if !backends.contains(&backend) {
                            backends.push(backend);
                        }
                    }
                }
            }
        }
        backends
    }

    /// What a backend's address is. The address decides; the slice's own word is taken where no object that
    /// we know has the address yet.
    fn backend_party(
        &self,
        address: IpAddr,
        slice: &EndpointSlice,
        endpoint: &SliceEndpoint,
        at: Timestamp,
    ) -> Party {
        let party = self.initiator_at(address, at);
        if !matches!(
            party.endpoint,
            Endpoint::External | Endpoint::Unknown(UnknownReason::AddressUnjoined | UnknownReason::NotSynced)
        ) {
            return party;
        }
        let Some((namespace, name)) = endpoint.pod(&slice.namespace) else { return party };
        match self.pod(namespace, name) {
            Some(pod) => self.backend_pod(&pod, Some(address)),
            None => Party::unknown(Some(address), UnknownReason::AddressUnjoined),
        }
    }

    /// A pod as a backend: its node where it uses the node's network.
    fn backend_pod(&self, pod: &Arc<Pod>, address: Option<IpAddr>) -> Party {
        match (&pod.node, pod.host_network) {
            (_, false) => self.party_of(pod, address),
            (Some(node), true) => Party { address, endpoint: Endpoint::Node(Arc::clone(node)) },
            (None, true) => Party::unknown(address, UnknownReason::AddressUnjoined),
        }
    }

    /// The backends of a Service that has no slices: the pods its selector matches.
    fn selected_backends(
        &self,
        address: IpAddr,
        space: &NamespaceState,
        service: &Service,
        port: &ServicePort,
    ) -> Vec<Backend> {
        let Some(selector) = &service.selector else { return Vec::new() };
        let live = space.pods.live().filter(|pod| selector.matches(&pod.identity.labels));
        let stand_ins = space.workloads.iter().filter_map(|(reference, state)| {
            state.stand_in().filter(|template| template.workload == *reference)
        });
        let stand_ins = stand_ins.filter(|pod| selector.matches(&pod.identity.labels)).cloned();
        let mut pods: Vec<Arc<Pod>> = live.map(|record| record.pod()).chain(stand_ins).collect();
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        let mut backends = Vec::new();
        for pod in &pods {
            let family = pod.addresses.iter().copied().find(|own| own.is_ipv4() == address.is_ipv4());
            if family.is_none() && !pod.addresses.is_empty() {
                continue;
            }
            if let Some(port) = selected_number(&pod.identity, port) {
                backends.push(Backend { party: self.backend_pod(pod, family), port });
            }
        }
        backends
    }
}

/// The port on a pod that the selector matches, if the pod has one of that name.
fn selected_number(identity: &Identity, port: &ServicePort) -> Option<u16> {
    match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => {
            let mut ports = identity.named_ports.iter();
            ports.find(|p| p.name == *name && p.protocol == port.protocol).map(|p| p.port)
        }
    }
}

/// The port on the backends of a slice; a slice that names none leaves it to the Service.
fn target_number(target: &SlicePort, port: &ServicePort) -> u16 {
    target.port.unwrap_or(match port.target {
        TargetPort::Number(number) => number,
        TargetPort::Name(_) => port.port,
    })
}

fn is_on(party: &Party, node: &str) -> bool {
    match &party.endpoint {
        Endpoint::Pod(pod) => pod.node.as_deref() == Some(node),
        Endpoint::Node(name) => &**name == node,
        _ => false,
    }
}

/// Where the clients of Services are hidden.
impl Index {
    /// Whether a node's address as an initiator may stand for a client outside: a node port, a load balancer or
    /// an external IP leads to this address and port, ready or not.
    pub fn may_hide_initiator(&self, address: IpAddr, number: u16, protocol: Protocol) -> bool {
        self.hiding.iter().any(|(namespace, name)| {
            let Some(space) = self.namespaces.get(namespace) else { return false };
            let Some(service) = space.services.get(name) else { return false };
            let ports = service.ports.iter().filter(|port| port.protocol == protocol);
            ports.into_iter().any(|port| space.leads_to(service, port, address, number))
        })
    }
}

impl NamespaceState {
    /// Whether a Service's port leads to an address and port. A slice that could not be read is passed over.
    fn leads_to(&self, service: &Service, port: &ServicePort, address: IpAddr, number: u16) -> bool {
        let Some(names) = self.slices_of.get(&service.name).filter(|names| !names.is_empty()) else {
            let Some(selector) = &service.selector else { return false };
            let mut there = self.pods.live().filter(|pod| pod.addresses.contains(&address));
            return there.any(|pod| {
                selector.matches(&pod.identity.labels) && selected_number(&pod.identity, port) == Some(number)
            });
        };
        names.iter().filter_map(|name| self.slices.get(name)).any(|slice| {
            let mut targets =
                slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
            targets.any(|target| target_number(target, port) == number)
                && slice.endpoints.iter().any(|endpoint| endpoint.addresses().any(|own| own == address))
        })
    }

    /// Forgets a slice that was read.
    pub(super) fn forget_slice(&mut self, name: &str) {
        let old = self.slices.remove(name);
        if let Some(service) = old.as_ref().and_then(|slice| slice.service.as_ref()) {
            self.forget_slice_of(service, name);
        }
    }

    pub(super) fn forget_slice_of(&mut self, service: &Arc<str>, name: &str) {
        if let Some(slices) = self.slices_of.get_mut(service) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices_of.remove(service);
            }
        }
    }
}
