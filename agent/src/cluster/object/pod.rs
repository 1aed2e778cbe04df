//! Pods, and the shape that a pod shares with the template it is made from.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{self as core, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{ObjectError, Uid, address, labels_of, name_of, namespace_of, port, protocol};
use crate::model::edge::Protocol;
use crate::model::identity::NamedPort;
use crate::model::intern;
use crate::model::labels::Labels;
use crate::model::time::Timestamp;

/// The owner that manages an object: its `ownerReferences` entry with `controller: true`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Controller {
    pub kind: Arc<str>,
    pub name: Arc<str>,
}

impl Controller {
    /// The controller of an object. A static pod's is its Node, which is no workload: none.
    pub(crate) fn of(metadata: &ObjectMeta) -> Option<Self> {
        let owners = metadata.owner_references.iter().flatten();
        let owner = owners.into_iter().find(|owner| owner.controller == Some(true))?;
        (owner.kind != "Node")
            .then(|| Self { kind: intern::string(&owner.kind), name: intern::string(&owner.name) })
    }
}

/// What a policy can see of a pod, and of the template for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    pub labels: Labels,
    /// `default` where none is named (Kubernetes docs, "Configure Service Accounts for Pods").
    pub service_account: Arc<str>,
    /// Of containers and of sidecars (init containers with `restartPolicy: Always`).
    pub named_ports: Vec<NamedPort>,
    pub host_network: bool,
}

impl Shape {
    /// From the two halves of a pod or a template; `path` is where they stand: "" or "spec.template.".
    pub(super) fn new(
        metadata: Option<&ObjectMeta>,
        spec: Option<&PodSpec>,
        path: &str,
    ) -> Result<Self, ObjectError> {
        let labels = match metadata {
            Some(metadata) => labels_of(metadata, &format!("{path}metadata.labels"))?,
            None => Labels::default(),
        };
        let account = spec.and_then(|spec| spec.service_account_name.as_deref());
        Ok(Self {
            labels,
            service_account: intern::string(account.filter(|name| !name.is_empty()).unwrap_or("default")),
            named_ports: spec.map_or_else(|| Ok(Vec::new()), |spec| named_ports(spec, path))?,
            host_network: spec.is_some_and(|spec| spec.host_network == Some(true)),
        })
    }
}

fn named_ports(spec: &PodSpec, path: &str) -> Result<Vec<NamedPort>, ObjectError> {
    let named = |(name, protocol, port): ContainerPort<'_>| {
        name.map(|name| NamedPort { name: intern::string(name), protocol, port })
    };
    Ok(container_ports(spec, path)?.into_iter().filter_map(named).collect())
}

/// A port of a container, with its name if it has one.
type ContainerPort<'a> = (Option<&'a str>, Protocol, u16);

/// The ports of containers and sidecars.
fn container_ports<'a>(spec: &'a PodSpec, path: &str) -> Result<Vec<ContainerPort<'a>>, ObjectError> {
    let always = |container: &core::Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().enumerate().filter(|(_, c)| always(c));
    let containers = spec.containers.iter().enumerate().map(|(at, c)| ("containers", at, c));
    let all = containers.chain(sidecars.map(|(at, c)| ("initContainers", at, c)));
    let mut ports = Vec::new();
    for (list, at, container) in all {
        for (index, given) in container.ports.iter().flatten().enumerate() {
            let field = |name: &str| format!("{path}spec.{list}[{at}].ports[{index}].{name}");
            let port = port(given.container_port, || field("containerPort"))?;
            let protocol = protocol(given.protocol.as_deref(), || field("protocol"))?;
            ports.push((given.name.as_deref().filter(|name| !name.is_empty()), protocol, port));
        }
    }
    Ok(ports)
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub uid: Uid,
    pub shape: Shape,
    /// Container ports without a name, as those with one: no policy can refer to them.
    pub unnamed_ports: Vec<(Protocol, u16)>,
    pub controller: Option<Controller>,
    pub node: Option<Arc<str>>,
    /// `status.podIPs`, or `status.podIP` where that is absent.
    pub addresses: Vec<IpAddr>,
    /// Succeeded or Failed: it owns no address any more.
    pub finished: bool,
    pub created: Option<Timestamp>,
}

impl TryFrom<&core::Pod> for Pod {
    type Error = ObjectError;

    fn try_from(pod: &core::Pod) -> Result<Self, ObjectError> {
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        let created = pod.metadata.creation_timestamp.as_ref();
        Ok(Self {
            namespace: namespace_of(&pod.metadata)?,
            name: name_of(&pod.metadata)?,
            uid: Uid::from(pod.metadata.uid.as_deref().unwrap_or_default()),
            shape: Shape::new(Some(&pod.metadata), pod.spec.as_ref(), "")?,
            unnamed_ports: pod.spec.as_ref().map_or_else(|| Ok(Vec::new()), unnamed_ports)?,
            controller: Controller::of(&pod.metadata),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).map(intern::string),
            addresses: status.map_or_else(|| Ok(Vec::new()), pod_addresses)?,
            finished: matches!(phase, Some("Succeeded" | "Failed")),
            created: created.map(|time| Timestamp::from(time.0)),
        })
    }
}

fn unnamed_ports(spec: &PodSpec) -> Result<Vec<(Protocol, u16)>, ObjectError> {
    let unnamed = |(name, protocol, port): ContainerPort<'_>| name.is_none().then_some((protocol, port));
    Ok(container_ports(spec, "")?.into_iter().filter_map(unnamed).collect())
}

fn pod_addresses(status: &core::PodStatus) -> Result<Vec<IpAddr>, ObjectError> {
    let mut addresses = Vec::new();
    for (index, given) in status.pod_ips.iter().flatten().enumerate() {
        addresses.push(address(&given.ip, || format!("status.podIPs[{index}].ip"))?);
    }
    if let Some(one) = status.pod_ip.as_deref().filter(|one| !one.is_empty()) {
        let one = address(one, || "status.podIP".to_owned())?;
        if !addresses.contains(&one) {
            addresses.push(one);
        }
    }
    addresses.dedup();
    Ok(addresses)
}
