//! Our own objects: of each API object only what judging needs, checked once when it is made.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::model::edge::Protocol;
use crate::model::intern;
use crate::model::labels::{Labels, NAMESPACE_NAME_LABEL};
use crate::model::object::ObjectRef;
use crate::model::selector::{check_key, check_value};
use crate::model::typed::TypeFault;
use crate::policy::{Candidate, Fault, Policy};
use crate::segment::{EdgeException, SegmentMap};

mod node;
mod pod;
mod service;
mod uid;
mod workload;

pub use node::Node;
pub use pod::{Controller, Pod, Shape};
pub use service::{EndpointSlice, Service, ServicePort, SliceEndpoint, SlicePort, TargetPort};
pub use uid::Uid;
pub use workload::Workload;

/// One object as the index keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    Namespace(Namespace),
    Pod(Box<Pod>),
    Workload(Box<Workload>),
    Service(Box<Service>),
    EndpointSlice(Box<EndpointSlice>),
    Node(Box<Node>),
    Policy(Arc<Policy>),
    SegmentMap(Arc<SegmentMap>),
    EdgeException(Arc<EdgeException>),
    Candidate(Arc<Candidate>),
    Broken(Box<Broken>),
}

impl Object {
    /// Kind, namespace and name.
    pub fn reference(&self) -> ObjectRef {
        let namespaced = |kind: &str, namespace: &Arc<str>, name: &Arc<str>| ObjectRef {
            kind: intern::string(kind),
            namespace: Some(Arc::clone(namespace)),
            name: Arc::clone(name),
        };
        match self {
            Self::Namespace(namespace) => ObjectRef::cluster("Namespace", &namespace.name),
            Self::Pod(pod) => namespaced("Pod", &pod.namespace, &pod.name),
            Self::Workload(workload) => namespaced(&workload.kind, &workload.namespace, &workload.name),
            Self::Service(service) => namespaced("Service", &service.namespace, &service.name),
            Self::EndpointSlice(slice) => namespaced("EndpointSlice", &slice.namespace, &slice.name),
            Self::Node(node) => ObjectRef::cluster("Node", &node.name),
            Self::Policy(policy) => ObjectRef::clone(policy.reference()),
            Self::SegmentMap(map) => ObjectRef::clone(map.reference()),
            Self::EdgeException(exception) => ObjectRef::clone(exception.reference()),
            Self::Candidate(candidate) => ObjectRef::clone(candidate.reference()),
            Self::Broken(broken) => ObjectRef::clone(&broken.reference),
        }
    }
}

/// A namespace and its labels, the API server's own among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    pub name: Arc<str>,
    pub labels: Labels,
}

/// An object that exists but could not be read. What depends on it is `Unknown`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub reference: Arc<ObjectRef>,
    /// Addresses that it claims and that could still be read.
    pub addresses: Vec<IpAddr>,
    /// Of an EndpointSlice: the Service whose backends it holds, by name.
    pub service: Option<Arc<str>>,
}

/// Why an API object cannot be used: the field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct ObjectError {
    /// `spec.containers[0].ports[1].containerPort`
    pub field: String,
    pub message: String,
}

impl ObjectError {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl From<TypeFault> for ObjectError {
    fn from(fault: TypeFault) -> Self {
        Self::new(fault.field, fault.message)
    }
}

impl From<Fault> for ObjectError {
    fn from(fault: Fault) -> Self {
        Self::new(fault.field, fault.message)
    }
}

impl TryFrom<&k8s_openapi::api::core::v1::Namespace> for Namespace {
    type Error = ObjectError;

    /// Adds `kubernetes.io/metadata.name`, which the API server sets on every namespace
    /// (Kubernetes docs, "Namespaces: automatic labelling") and which files may lack.
    fn try_from(namespace: &k8s_openapi::api::core::v1::Namespace) -> Result<Self, ObjectError> {
        let name = name_of(&namespace.metadata)?;
        let labels = labels_of(&namespace.metadata, "metadata.labels")?.with(NAMESPACE_NAME_LABEL, &name);
        Ok(Self { name, labels })
    }
}

fn name_of(metadata: &ObjectMeta) -> Result<Arc<str>, ObjectError> {
    match metadata.name.as_deref() {
        None | Some("") => Err(ObjectError::new("metadata.name", "is missing")),
        Some(name) => Ok(intern::string(name)),
    }
}

fn namespace_of(metadata: &ObjectMeta) -> Result<Arc<str>, ObjectError> {
    match metadata.namespace.as_deref() {
        None | Some("") => Err(ObjectError::new("metadata.namespace", "is missing")),
        Some(namespace) => Ok(intern::string(namespace)),
    }
}

fn labels_of(metadata: &ObjectMeta, field: &str) -> Result<Labels, ObjectError> {
    let labels = metadata.labels.iter().flatten();
    for (key, value) in labels.clone() {
        check_key(key)
            .and_then(|()| check_value(value))
            .map_err(|reason| ObjectError::new(format!("{field}.{key}"), reason))?;
    }
    Ok(intern::labels(labels.map(|(key, value)| (key.as_str(), value.as_str()))))
}

fn address(text: &str, field: impl FnOnce() -> String) -> Result<IpAddr, ObjectError> {
    let parsed = text.parse().ok();
    parsed.ok_or_else(|| ObjectError::new(field(), format!("\"{text}\" is not an IP address")))
}

fn port(number: i32, field: impl FnOnce() -> String) -> Result<u16, ObjectError> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(ObjectError::new(field(), format!("{number} is not a port: 1 to 65535"))),
    }
}

/// Protocol absent means TCP, in Services, EndpointSlices and containers alike.
fn protocol(name: Option<&str>, field: impl FnOnce() -> String) -> Result<Protocol, ObjectError> {
    match name {
        None | Some("TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => {
            Err(ObjectError::new(field(), format!("protocol \"{other}\" is none of TCP, UDP, SCTP")))
        }
    }
}
