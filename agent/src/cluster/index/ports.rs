//! Which ports are known to be served: those of Services and of containers.

use std::net::IpAddr;
use std::sync::Arc;

use super::Index;
use super::record::Record;
use super::state::NamespaceState;
use crate::cluster::object::{ServicePort, TargetPort};
use crate::model::edge::Protocol;
use crate::model::endpoint::{Endpoint, Pod};
use crate::model::object::WorkloadRef;
use crate::model::time::Timestamp;

/// How many container ports without a name are kept of the pods of one maker: some name a whole range one by one.
const MOST_PORTS: usize = 64;

impl Index {
    /// Whether somebody is known to serve a port of an address at that time: a Service's address (no connection
    /// comes from one), a node's on a port that a Service opens, the API server's, a pod's where a container has
    /// the port or a Service sends to it. False where that is not known: it says nothing of other ports.
    pub fn serves(&self, address: IpAddr, port: u16, protocol: Protocol, at: Timestamp) -> bool {
        match &self.party_at(address, port, protocol, None, at).endpoint {
            Endpoint::Service(_) => true,
            Endpoint::Pod(pod) => self.pod_serves(pod, address, port, protocol),
            Endpoint::Node(_) | Endpoint::External | Endpoint::Range(_) | Endpoint::Unknown(_) => {
                protocol == Protocol::Tcp && self.api_server().contains(&(address, port).into())
            }
        }
    }

    fn pod_serves(&self, pod: &Pod, address: IpAddr, port: u16, protocol: Protocol) -> bool {
        let named = |name: Option<&Arc<str>>| {
            let mut ports = pod.identity.named_ports.iter();
            ports.any(|p| p.port == port && p.protocol == protocol && name.is_none_or(|name| p.name == *name))
        };
        if named(None) {
            return true;
        }
        let Some(space) = self.namespaces.get(&pod.namespace) else { return false };
        if space.unnamed_ports.get(maker(pod)).is_some_and(|ports| ports.contains(&(protocol, port))) {
            return true;
        }
        let targets = |p: &ServicePort| {
            p.protocol == protocol
                && match &p.target {
                    TargetPort::Number(number) => *number == port,
                    TargetPort::Name(name) => named(Some(name)),
                }
        };
        let selected = space.services.values().any(|service| {
            let selects = |selector: &crate::model::selector::Selector| {
                selector.matches(&pod.identity.labels) && service.ports.iter().any(targets)
            };
            service.selector.as_ref().is_some_and(selects)
        });
        selected || space.slice_has(address, port, protocol)
    }
}

/// Who made a pod; itself, where nobody did.
fn maker(pod: &Pod) -> &WorkloadRef {
    pod.owners.first().unwrap_or(&pod.workload)
}

impl Record {
    fn maker(&self) -> WorkloadRef {
        self.lineage.owners.first().cloned().unwrap_or_else(|| self.workload())
    }
}

impl NamespaceState {
    /// Keeps the container ports without a name that a pod has.
    pub(super) fn add_ports(&mut self, pod: &Record, ports: &[(Protocol, u16)]) {
        if ports.is_empty() {
            return;
        }
        let known = self.unnamed_ports.entry(pod.maker()).or_default();
        for port in ports {
            if known.len() < MOST_PORTS && !known.contains(port) {
                known.push(*port);
            }
        }
    }

    /// A pod is gone: so are its container ports, if it was its maker's last.
    pub(super) fn forget_ports(&mut self, pod: &Record) {
        if self.unnamed_ports.is_empty() {
            return;
        }
        let maker = pod.maker();
        if self.workloads.get(&maker).is_none_or(|state| state.members == 0) {
            self.unnamed_ports.remove(&maker);
        }
    }

    /// Whether a slice sends to a port of an address: Services without a selector have nothing else.
    fn slice_has(&self, address: IpAddr, port: u16, protocol: Protocol) -> bool {
        self.slices.values().any(|slice| {
            slice.ports.iter().any(|p| p.port == Some(port) && p.protocol == protocol)
                && slice.endpoints.iter().any(|endpoint| endpoint.addresses().any(|own| own == address))
        })
    }
}
