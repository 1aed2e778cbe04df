//! Endpoints: what an address was at a time.

use std::net::IpAddr;
use std::sync::Arc;

use super::identity::Identity;
use super::labels::Labels;
use super::object::{ObjectRef, WorkloadRef};
use super::verdict::UnknownReason;

/// What judging and reporting need of a pod, at one time of its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    /// Empty where a manifest has none.
    pub uid: Arc<str>,
    pub identity: Arc<Identity>,
    /// The top owner; the pod itself where it has none.
    pub workload: WorkloadRef,
    /// Every owner from the nearest to the top: `[ReplicaSet/web-5d8f, Deployment/web]`. Empty for a bare pod.
    pub owners: Arc<[WorkloadRef]>,
    /// The labels that select the workload's pods: its `spec.selector.matchLabels`, else the pod's own labels
    /// without those that controllers add (`pod-template-hash` and the like).
    pub selector: Labels,
    /// The node it runs on, if that is known.
    pub node: Option<Arc<str>>,
    /// It shares its node's addresses: policies neither select it nor see it as a pod.
    pub host_network: bool,
    /// `status.podIPs`; empty while it has none.
    pub addresses: Arc<[IpAddr]>,
    /// It is a workload's template that stands for the pods it does not have yet.
    pub from_template: bool,
}

/// A Service as it was reached on one port: the pods behind it after DNAT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceTarget {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    /// All ready backends for the port that was asked for; empty where there is none or none is known.
    pub backends: Vec<Backend>,
}

/// One ready backend of a Service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// `Pod`, `Node` or `External`, never again a `Service`.
    pub party: Party,
    /// The port behind the Service (`targetPort`).
    pub port: u16,
}

/// What an address was at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Pod(Arc<Pod>),
    /// A node, by name: its own addresses, its bridge gateways, and hostNetwork pods on it.
    Node(Arc<str>),
    Service(Arc<ServiceTarget>),
    /// Outside the cluster.
    External,
    /// Inside the cluster's ranges, or not joinable; judged `Unknown`.
    Unknown(UnknownReason),
}

impl Endpoint {
    /// `Pod`, `Node`, `Service`, `External` or `Unknown`, as in JSON and metric labels.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Pod(_) => "Pod",
            Self::Node(_) => "Node",
            Self::Service(_) => "Service",
            Self::External => "External",
            Self::Unknown(_) => "Unknown",
        }
    }
}

/// One end of a connection: an address, where one is known, and what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// The address on the wire; `None` for a pod that has none yet.
    pub address: Option<IpAddr>,
    pub endpoint: Endpoint,
}

impl Party {
    /// A pod seen at `address`.
    pub const fn pod(pod: Arc<Pod>, address: Option<IpAddr>) -> Self {
        Self { address, endpoint: Endpoint::Pod(pod) }
    }

    /// An address outside the cluster.
    pub const fn external(address: IpAddr) -> Self {
        Self { address: Some(address), endpoint: Endpoint::External }
    }

    /// An end that could not be joined with the cluster.
    pub const fn unknown(address: Option<IpAddr>, reason: UnknownReason) -> Self {
        Self { address, endpoint: Endpoint::Unknown(reason) }
    }

    /// The pod, if it is one.
    pub const fn as_pod(&self) -> Option<&Arc<Pod>> {
        match &self.endpoint {
            Endpoint::Pod(pod) => Some(pod),
            _ => None,
        }
    }

    /// The Kubernetes namespace, if the endpoint lives in one.
    pub fn namespace(&self) -> Option<&str> {
        match &self.endpoint {
            Endpoint::Pod(pod) => Some(&pod.namespace),
            Endpoint::Service(service) => Some(&service.namespace),
            _ => None,
        }
    }

    /// The object that the endpoint is, if it is one.
    pub fn object(&self) -> Option<ObjectRef> {
        match &self.endpoint {
            Endpoint::Pod(pod) => Some(ObjectRef::namespaced("Pod", &pod.namespace, &pod.name)),
            Endpoint::Node(name) => Some(ObjectRef::cluster("Node", name)),
            Endpoint::Service(service) => {
                Some(ObjectRef::namespaced("Service", &service.namespace, &service.name))
            }
            Endpoint::External | Endpoint::Unknown(_) => None,
        }
    }
}

/// Who is judged with whom, on which port: the question that every verdict answers.
#[derive(Debug, Clone, Copy)]
pub struct Connection<'a> {
    pub initiator: &'a Party,
    pub responder: &'a Party,
    /// The responder's port; for ICMP, type × 256 + code.
    pub port: u16,
    pub protocol: super::edge::Protocol,
}
