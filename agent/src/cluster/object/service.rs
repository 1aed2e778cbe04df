//! Services and the EndpointSlices that hold their backends.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use smallvec::SmallVec;

use super::{ObjectError, address, name_of, namespace_of, port, protocol};
use crate::model::edge::Protocol;
use crate::model::intern;
use crate::model::labels::Labels;
use crate::model::selector::Selector;

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub labels: Labels,
    /// Which pods are behind it; `None` where others say so (EndpointSlices made by hand).
    pub selector: Option<Selector>,
    /// ClusterIPs of both families; empty for a headless Service.
    pub cluster_ips: SmallVec<[IpAddr; 1]>,
    /// `externalIPs` and the addresses of load balancers.
    pub external: Box<[IpAddr]>,
    pub ports: Box<[ServicePort]>,
    /// Pods count as backends before they are ready.
    pub publish_not_ready: bool,
    /// What is sent to a ClusterIP goes only to backends on the client's node (`internalTrafficPolicy: Local`).
    pub internal_local: bool,
    /// A node that brings in a connection from outside puts its own address in place of the client's: there are
    /// node ports, load balancers or external IPs, and `externalTrafficPolicy` is not `Local` (Kubernetes docs,
    /// "Using Source IP").
    pub hides_clients: bool,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty where a Service has only one port.
    pub name: Arc<str>,
    pub protocol: Protocol,
    pub port: u16,
    pub target: TargetPort,
    pub node_port: Option<u16>,
}

/// The port on the pods behind a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    Number(u16),
    /// A container port's name, which may be another number in every pod.
    Name(Arc<str>),
}

impl TryFrom<&core::Service> for Service {
    type Error = ObjectError;

    fn try_from(service: &core::Service) -> Result<Self, ObjectError> {
        let spec = service.spec.clone().unwrap_or_default();
        let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty());
        let ports = spec.ports.iter().flatten().enumerate();
        Ok(Self {
            namespace: namespace_of(&service.metadata)?,
            name: name_of(&service.metadata)?,
            labels: intern::labels(
                service.metadata.labels.iter().flatten().map(|(k, v)| (k.as_str(), v.as_str())),
            ),
            selector: selector
                .map(|labels| Selector::from_labels(labels.iter().map(|(k, v)| (k.as_str(), v.as_str())))),
            cluster_ips: cluster_ips(&spec)?,
            external: external(service)?,
            ports: ports.map(|(index, port)| service_port(index, port)).collect::<Result<_, _>>()?,
            publish_not_ready: spec.publish_not_ready_addresses == Some(true),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            hides_clients: hides_clients(&spec),
        })
    }
}

/// `None` is how the API spells "headless", and an ExternalName Service has no address at all.
fn cluster_ips(spec: &core::ServiceSpec) -> Result<SmallVec<[IpAddr; 1]>, ObjectError> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return Ok(SmallVec::new());
    }
    let is_address = |text: &str| !text.is_empty() && text != "None";
    let mut ips = SmallVec::new();
    for (index, text) in spec.cluster_ips.iter().flatten().enumerate().filter(|(_, text)| is_address(text)) {
        ips.push(address(text, || format!("spec.clusterIPs[{index}]"))?);
    }
    if let Some(text) = spec.cluster_ip.as_deref().filter(|text| is_address(text)) {
        let ip = address(text, || "spec.clusterIP".to_owned())?;
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    Ok(ips)
}

fn hides_clients(spec: &core::ServiceSpec) -> bool {
    let is_exposed = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"))
        || spec.external_ips.as_ref().is_some_and(|addresses| !addresses.is_empty())
        || spec.ports.iter().flatten().any(|port| port.node_port.is_some_and(|port| port != 0));
    is_exposed && spec.external_traffic_policy.as_deref() != Some("Local")
}

fn external(service: &core::Service) -> Result<Box<[IpAddr]>, ObjectError> {
    let mut addresses = Vec::new();
    let given = service.spec.as_ref().and_then(|spec| spec.external_ips.as_ref());
    for (index, text) in given.into_iter().flatten().enumerate() {
        addresses.push(address(text, || format!("spec.externalIPs[{index}]"))?);
    }
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    for (index, ingress) in ingress.into_iter().flatten().enumerate() {
        if let Some(text) = ingress.ip.as_deref().filter(|text| !text.is_empty()) {
            addresses.push(address(text, || format!("status.loadBalancer.ingress[{index}].ip"))?);
        }
    }
    addresses.sort();
    addresses.dedup();
    Ok(addresses.into())
}

fn service_port(index: usize, given: &core::ServicePort) -> Result<ServicePort, ObjectError> {
    let field = |name: &str| format!("spec.ports[{index}].{name}");
    let number = port(given.port, || field("port"))?;
    let target = match &given.target_port {
        // Absent, or 0 as old clients send it, means the Service's own port (API reference, ServicePort).
        None | Some(IntOrString::Int(0)) => TargetPort::Number(number),
        Some(IntOrString::Int(target)) => TargetPort::Number(port(*target, || field("targetPort"))?),
        Some(IntOrString::String(name)) => TargetPort::Name(intern::string(name)),
    };
    let node_port = given.node_port.filter(|port| *port != 0);
    Ok(ServicePort {
        name: intern::string(given.name.as_deref().unwrap_or_default()),
        protocol: protocol(given.protocol.as_deref(), || field("protocol"))?,
        port: number,
        target,
        node_port: node_port.map(|number| port(number, || field("nodePort"))).transpose()?,
    })
}

/// A part of a Service's backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    /// The Service, by the label `kubernetes.io/service-name`.
    pub service: Option<Arc<str>>,
    pub ports: Box<[SlicePort]>,
    pub endpoints: Box<[SliceEndpoint]>,
}

impl EndpointSlice {
    /// The label that names the Service (API reference, EndpointSlice).
    pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";
}

/// A port on the backends of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// The Service port's name.
    pub name: Arc<str>,
    pub protocol: Protocol,
    /// `None`: every port.
    pub port: Option<u16>,
}

/// One backend of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Clients use the first of its addresses, which are alike (API reference, Endpoint.addresses). `None` where there
    /// is none at all.
    pub address: Option<IpAddr>,
    /// Absent counts as ready (API reference, EndpointConditions).
    pub ready: bool,
    /// Absent counts as `ready`.
    pub serving: bool,
    pub terminating: bool,
    /// The name of the pod, if the slice says so.
    pod: Option<Arc<str>>,
    /// The node it is on, if the slice says so.
    pub node: Option<Arc<str>>,
    /// What hardly any endpoint has.
    rare: Option<Box<Rare>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rare {
    /// The addresses after the first.
    more: Vec<IpAddr>,
    /// The pod's namespace, where it is not the slice's.
    namespace: Option<Arc<str>>,
}

impl SliceEndpoint {
    /// All its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.address.into_iter().chain(self.rare.iter().flat_map(|rare| rare.more.iter().copied()))
    }

    /// The pod that it is in a slice of this namespace, by namespace and name, if the slice says so.
    pub fn pod<'a>(&'a self, namespace: &'a str) -> Option<(&'a str, &'a str)> {
        let other = self.rare.as_ref().and_then(|rare| rare.namespace.as_deref());
        Some((other.unwrap_or(namespace), self.pod.as_deref()?))
    }
}

impl TryFrom<&discovery::EndpointSlice> for EndpointSlice {
    type Error = ObjectError;

    fn try_from(slice: &discovery::EndpointSlice) -> Result<Self, ObjectError> {
        let namespace = namespace_of(&slice.metadata)?;
        let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(Self::SERVICE_LABEL));
        let is_name = slice.address_type == "FQDN";
        let mut ports = Vec::new();
        for (index, given) in slice.ports.iter().flatten().enumerate() {
            let field = |name: &str| format!("ports[{index}].{name}");
            ports.push(SlicePort {
                name: intern::string(given.name.as_deref().unwrap_or_default()),
                protocol: protocol(given.protocol.as_deref(), || field("protocol"))?,
                port: given.port.map(|number| port(number, || field("port"))).transpose()?,
            });
        }
        // Backends that are names have no address to join; kube-proxy ignores them as well.
        let endpoints = slice.endpoints.iter().flatten().enumerate().filter(|_| !is_name);
        Ok(Self {
            name: name_of(&slice.metadata)?,
            service: service.map(|name| intern::string(name)),
            ports: ports.into(),
            endpoints: endpoints
                .map(|(index, endpoint)| slice_endpoint(index, endpoint, &namespace))
                .collect::<Result<_, _>>()?,
            namespace,
        })
    }
}

fn slice_endpoint(
    index: usize,
    given: &discovery::Endpoint,
    namespace: &Arc<str>,
) -> Result<SliceEndpoint, ObjectError> {
    let conditions = given.conditions.clone().unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let target = given.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
    let mut addresses = Vec::new();
    for (at, text) in given.addresses.iter().enumerate() {
        addresses.push(address(text, || format!("endpoints[{index}].addresses[{at}]"))?);
    }
    let mut addresses = addresses.into_iter();
    let first = addresses.next();
    let other = target.and_then(|target| target.namespace.as_deref()).filter(|other| *other != &**namespace);
    let rare = Rare { more: addresses.collect(), namespace: other.map(intern::string) };
    let is_plain = rare.more.is_empty() && rare.namespace.is_none();
    Ok(SliceEndpoint {
        address: first,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        node: given.node_name.as_deref().map(intern::string),
        pod: target.and_then(|target| target.name.as_deref()).map(intern::string),
        rare: (!is_plain).then(|| Box::new(rare)),
    })
}
