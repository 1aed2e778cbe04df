//! Endpoints: what an address was at a time.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::edge::Protocol;
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
    /// All addresses outside the cluster that share a prefix of this length with the party's address.
    Range(u8),
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
            Self::External | Self::Range(_) => "External",
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

    /// All addresses outside the cluster that share the first `length` bits with `network`.
    pub const fn range(network: IpAddr, length: u8) -> Self {
        Self { address: Some(network), endpoint: Endpoint::Range(length) }
    }

    /// The range that it stands for, if it is more than one address.
    pub fn as_range(&self) -> Option<IpNet> {
        match (&self.endpoint, self.address) {
            (Endpoint::Range(length), Some(network)) => IpNet::new(network, *length).ok(),
            _ => None,
        }
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

    /// The node that policies see: hostNetwork pods are their node. `Some(None)` if such a pod's node is unknown.
    pub fn as_node(&self) -> Option<Option<&Arc<str>>> {
        match &self.endpoint {
            Endpoint::Node(name) => Some(Some(name)),
            Endpoint::Pod(pod) if pod.host_network => Some(pod.node.as_ref()),
            _ => None,
        }
    }

    /// Whether both are one pod. Two replicas that one template stands for are different pods.
    pub fn is_same_pod(&self, other: &Self) -> bool {
        let (Some(a), Some(b)) = (self.as_pod(), other.as_pod()) else { return false };
        let same = a.namespace == b.namespace && a.name == b.name && a.uid == b.uid;
        same && !a.from_template && !b.from_template
    }

    /// The address on the wire; else the first of the pod's addresses of a family that the other end has.
    pub fn address_towards(&self, other: &Self) -> Option<IpAddr> {
        let of_pod = |party: &Self| party.as_pod().map(|pod| Arc::clone(&pod.addresses));
        self.address.or_else(|| {
            let own = of_pod(self)?;
            let others = match other.address {
                Some(address) => Arc::from([address]),
                None => of_pod(other).unwrap_or_default(),
            };
            let shared = own.iter().find(|a| others.iter().any(|b| a.is_ipv4() == b.is_ipv4()));
            shared.or_else(|| own.first()).copied()
        })
    }

    /// Whether the address is multicast, broadcast or unspecified: no policy judges such packets.
    fn is_for_many(&self) -> bool {
        self.address.is_some_and(|address| match address.to_canonical() {
            IpAddr::V4(address) => {
                address.is_multicast() || address.is_broadcast() || address.is_unspecified()
            }
            IpAddr::V6(address) => address.is_multicast() || address.is_unspecified(),
        })
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
            Endpoint::External | Endpoint::Range(_) | Endpoint::Unknown(_) => None,
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
    pub protocol: Protocol,
}

/// Blocks that are never an address outside the cluster's own networks: private, shared, link-local, loopback and
/// reserved ones (RFC 1918, 6598, 3927, 6890, 4193, 4291).
pub(crate) const PRIVATE: [&str; 11] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "224.0.0.0/3",
    "fc00::/7",
    "fe80::/10",
    "::/127",
];

/// Multicast, broadcast, the unspecified address, neighbour discovery and MLD (ICMPv6 types 130 to 137, 143
/// and 151 to 153 by IANA's list), DHCP (ports 67 and 68, 546 and 547): nothing judges them.
pub fn is_link_local_protocol(ends: [&Party; 2], port: u16, protocol: Protocol) -> bool {
    let by_port = match protocol {
        Protocol::Icmpv6 => matches!(port >> 8, 130..=137 | 143 | 151..=153),
        Protocol::Udp => matches!(port, 67 | 68 | 546 | 547),
        Protocol::Tcp | Protocol::Sctp | Protocol::Icmp => false,
    };
    by_port || ends.into_iter().any(Party::is_for_many)
}
