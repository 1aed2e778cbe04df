//! Builders for the tests of segments.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use crate::model::cause::Cause;
use crate::model::edge::{Counters, Direction, Edge, OrientedBy, Protocol};
use crate::model::endpoint::{Backend, Endpoint, Party, Pod, ServiceTarget};
use crate::model::identity::{Identity, IdentityParts, Interner};
use crate::model::labels::{Labels, NAMESPACE_NAME_LABEL};
use crate::model::object::WorkloadRef;
use crate::model::role::Roles;
use crate::model::time::Timestamp;

use super::api::{EdgeExceptionObject, SegmentMapObject};
use super::judge::SegmentJudge;
use super::map::SegmentMap;
use super::surroundings::Surroundings;

pub(crate) fn mk_address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Labels from `key=value,key=value`.
pub(crate) fn mk_labels(text: &str) -> Labels {
    text.split(',').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap()).collect()
}

fn mk_identity(namespace: &str, namespace_labels: &str, labels: &str, roles: Roles) -> Arc<Identity> {
    static INTERNER: LazyLock<Mutex<Interner>> = LazyLock::new(Mutex::default);
    INTERNER.lock().unwrap_or_else(PoisonError::into_inner).intern(IdentityParts {
        namespace: namespace.into(),
        namespace_labels: mk_labels(namespace_labels).with(NAMESPACE_NAME_LABEL, namespace),
        labels: mk_labels(labels),
        service_account: "default".into(),
        named_ports: Vec::new(),
        roles,
    })
}

/// A pod of namespace `namespace[,label=value…]` on node `n1`, with the name of its workload.
pub(crate) struct PodOf<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) namespace_labels: &'a str,
    pub(crate) name: &'a str,
    pub(crate) labels: &'a str,
    pub(crate) address: Option<&'a str>,
    pub(crate) node: Option<&'a str>,
    pub(crate) roles: Roles,
    pub(crate) host_network: bool,
}

impl Default for PodOf<'_> {
    fn default() -> Self {
        Self {
            namespace: "shop",
            namespace_labels: "",
            name: "a",
            labels: "",
            address: None,
            node: Some("n1"),
            roles: Roles::NONE,
            host_network: false,
        }
    }
}

impl PodOf<'_> {
    pub(crate) fn party(&self) -> Party {
        let address = self.address.map(mk_address);
        let labels = mk_labels(self.labels);
        let pod = Pod {
            namespace: self.namespace.into(),
            name: self.name.into(),
            uid: self.name.into(),
            identity: mk_identity(self.namespace, self.namespace_labels, self.labels, self.roles),
            workload: WorkloadRef::new("Deployment", self.namespace, self.name),
            owners: [WorkloadRef::new("Deployment", self.namespace, self.name)].into(),
            selector: labels,
            node: self.node.map(Arc::from),
            host_network: self.host_network,
            addresses: address.iter().copied().collect(),
            from_template: false,
        };
        Party::pod(Arc::new(pod), address)
    }
}

/// A pod of namespace `shop` with labels.
pub(crate) fn mk_pod(name: &str, labels: &str) -> Party {
    PodOf { name, labels, address: Some("10.1.0.9"), ..PodOf::default() }.party()
}

pub(crate) fn mk_outside(address: &str) -> Party {
    Party::external(mk_address(address))
}

pub(crate) fn mk_node(name: &str, address: &str) -> Party {
    Party { address: Some(mk_address(address)), endpoint: Endpoint::Node(name.into()) }
}

pub(crate) fn mk_service(namespace: &str, name: &str, backends: &[(Party, u16)]) -> Party {
    let backends =
        backends.iter().map(|(party, port)| Backend { party: party.clone(), port: *port }).collect();
    let target = ServiceTarget { namespace: namespace.into(), name: name.into(), backends };
    Party { address: Some(mk_address("10.96.0.1")), endpoint: Endpoint::Service(Arc::new(target)) }
}

pub(crate) fn mk_edge(initiator: &Party, responder: &Party, port: u16) -> Edge {
    Edge {
        initiator: initiator.clone(),
        responder: responder.clone(),
        port,
        protocol: Protocol::Tcp,
        direction: Direction::Egress,
        cause: Cause::Unknown,
        counters: Counters::default(),
        first_seen: Timestamp::EPOCH,
        last_seen: Timestamp::EPOCH,
        oriented_by: OrientedBy::Handshake,
        fully_visible: true,
        vlan: 0,
        estimated: false,
    }
}

/// A map called `m` with this `spec`, as YAML.
pub(crate) fn mk_map(spec: &str) -> Arc<SegmentMap> {
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    let head = "apiVersion: dryfence.io/v1alpha1\nkind: SegmentMap\nmetadata: {name: m}\nspec:\n";
    let object: SegmentMapObject = serde_saphyr::from_str(&format!("{head}{indented}")).unwrap();
    Arc::new(SegmentMap::from_object(&object))
}

pub(crate) fn mk_judge(spec: &str) -> SegmentJudge {
    SegmentJudge::new(&mk_map(spec), Surroundings::default()).unwrap()
}

/// An exception `shop/e` with this `spec`, as YAML in one line.
pub(crate) fn mk_exception_object(spec: &str) -> EdgeExceptionObject {
    let head =
        "apiVersion: dryfence.io/v1alpha1\nkind: EdgeException\nmetadata: {namespace: shop, name: e}\n";
    serde_saphyr::from_str(&format!("{head}spec: {spec}\n")).unwrap()
}
