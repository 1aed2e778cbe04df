//! Members: what puts an endpoint into a segment, or under an exception.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::model::edge::Protocol;
use crate::model::endpoint::Pod;
use crate::model::object::WorkloadRef;
use crate::model::role::Roles;
use crate::model::selector::Selector;

use super::address::{AddressSet, parse_block, parse_range};
use super::api::{MemberSpec, WorkloadSpec};
use super::face::{End, Face, Kind};
use super::finding::Findings;

/// What a cluster calls by a word. No endpoint is two of these, except that `host` is also `node`: the more
/// special word wins, so `world` never lets anyone reach the cloud's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entity {
    /// Every address outside the cluster, but not `cloud-metadata` and not an outside `api-server`.
    World,
    /// Every node of the cluster, but not where it is `api-server` or `cluster-dns`.
    Node,
    /// The node on which the other end of the edge runs.
    Host,
    /// Service default/kubernetes, what listens behind it, and connections from those addresses.
    ApiServer,
    /// 169.254.169.254 and fd00:ec2::254.
    CloudMetadata,
    /// The pods that answer the cluster's DNS queries, and port 53 of a cache on the pod's own node or on a
    /// link-local address (NodeLocal DNSCache listens on 169.254.20.10).
    ClusterDns,
}

impl Entity {
    pub const ALL: [Self; 6] =
        [Self::World, Self::Node, Self::Host, Self::ApiServer, Self::CloudMetadata, Self::ClusterDns];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::World => "world",
            Self::Node => "node",
            Self::Host => "host",
            Self::ApiServer => "api-server",
            Self::CloudMetadata => "cloud-metadata",
            Self::ClusterDns => "cluster-dns",
        }
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The cloud's metadata addresses (AWS, Google Cloud and Azure share the first; AWS has the second).
pub(crate) const CLOUD_METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Why a member may match or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// The end has no address, and an ipBlock or ipRange decides.
    NoAddress,
    /// Which node the other end runs on is not known, and whether this is it decides.
    NodeOfPod,
    /// The VLAN of the pod's interface was not seen, and it decides.
    Vlan,
    /// Outside addresses were counted together, and an ipBlock or ipRange holds only some of them.
    Range,
    /// An fqdn may stand for the address: names are not resolved yet.
    Name,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAddress => "it has no address, and an ipBlock or ipRange decides",
            Self::NodeOfPod => "whether it is the node of the other end is not known",
            Self::Vlan => "no edge was seen at its own interface, and its VLAN decides",
            Self::Range => {
                "outside addresses were counted together, and an ipBlock or ipRange holds only some"
            }
            Self::Name => "a declared fqdn may stand for its address, and names are not resolved yet",
        })
    }
}

/// Yes, no, or either of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Match {
    Yes,
    No,
    Maybe(Doubt),
}

impl From<bool> for Match {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// Which namespaces a pod may be in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Namespaces {
    /// A selector of namespaces; `everything` where none is given in a cluster-wide object.
    Selected(Selector),
    /// The namespace of the object that names the pods.
    Own(Arc<str>),
}

/// What puts an endpoint into a segment, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Member {
    Pods { namespaces: Namespaces, pods: Selector },
    Addresses(AddressSet),
    Entity(Entity),
    Vlan(u16),
    Fqdn(Arc<str>),
    Workload(WorkloadRef),
}

impl Member {
    /// Whether a face is this member.
    pub(crate) fn matches(&self, face: &Face<'_>) -> Match {
        match self {
            Self::Pods { namespaces, pods } => {
                face.pod().is_some_and(|pod| selects(namespaces, pods, pod)).into()
            }
            Self::Addresses(_) if face.addresses.is_empty() => Match::Maybe(Doubt::NoAddress),
            Self::Addresses(set) => face.addresses.iter().any(|address| set.contains(*address)).into(),
            Self::Entity(entity) => is_entity(*entity, face),
            Self::Vlan(wanted) => match (face.kind, face.vlan) {
                (Kind::Pod(_), None) => Match::Maybe(Doubt::Vlan),
                (Kind::Pod(_), Some(vlan)) => (vlan == *wanted).into(),
                _ => Match::No,
            },
            // What an outside address is called is not recorded yet.
            Self::Fqdn(_) if matches!(face.kind, Kind::External) && !is_metadata(face) => {
                Match::Maybe(Doubt::Name)
            }
            Self::Fqdn(_) => Match::No,
            Self::Workload(workload) => face
                .pod()
                .is_some_and(|pod| pod.workload == *workload || pod.owners.contains(workload))
                .into(),
        }
    }
}

/// Whether selectors select a pod.
pub(crate) fn selects(namespaces: &Namespaces, pods: &Selector, pod: &Pod) -> bool {
    let identity = &pod.identity;
    let namespace = match namespaces {
        Namespaces::Selected(selector) => selector.matches(&identity.namespace_labels),
        Namespaces::Own(name) => *name == pod.namespace,
    };
    namespace && pods.matches(&identity.labels)
}

fn is_metadata(face: &Face<'_>) -> bool {
    face.addresses.iter().any(|address| CLOUD_METADATA.contains(&address.to_canonical()))
}

/// Whether a node's port 53 is a cache of the cluster's DNS for the other end.
fn is_node_dns(face: &Face<'_>) -> Match {
    let asked = face.end == End::Responder
        && face.port == 53
        && matches!(face.protocol, Protocol::Udp | Protocol::Tcp);
    if !asked || face.api_server {
        return Match::No;
    }
    let link_local = |address: &IpAddr| match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    if face.addresses.iter().any(link_local) {
        return Match::Yes;
    }
    face.own_node.map_or(Match::Maybe(Doubt::NodeOfPod), Match::from)
}

fn is_entity(entity: Entity, face: &Face<'_>) -> Match {
    let metadata = is_metadata(face);
    let plain_node = || match is_node_dns(face) {
        Match::Yes => Match::No,
        Match::No => (!face.api_server && !metadata).into(),
        maybe @ Match::Maybe(_) => maybe,
    };
    match (entity, face.kind) {
        (Entity::ApiServer, _) => face.api_server.into(),
        (Entity::CloudMetadata, _) => (metadata && !face.api_server).into(),
        (Entity::World, Kind::External) => (!metadata && !face.api_server).into(),
        (Entity::Node, Kind::Node(_)) => plain_node(),
        (Entity::Host, Kind::Node(_)) => match (plain_node(), face.own_node) {
            (Match::No, _) | (_, Some(false)) => Match::No,
            (_, None) => Match::Maybe(Doubt::NodeOfPod),
            (found, Some(true)) => found,
        },
        (Entity::ClusterDns, Kind::Pod(pod)) => {
            (pod.identity.roles.has(Roles::CLUSTER_DNS) && !face.api_server).into()
        }
        (Entity::ClusterDns, Kind::Node(_)) => is_node_dns(face),
        _ => Match::No,
    }
}

/// Whose members are read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Home<'a> {
    /// A SegmentMap: without a namespaceSelector, pods of every namespace.
    Cluster,
    /// An EdgeException: without a namespaceSelector, pods of its own namespace.
    Namespace(&'a str),
}

/// Reads a member; what is wrong with it is found at `field`.
pub(crate) fn read_member(
    spec: &MemberSpec,
    field: &str,
    home: Home<'_>,
    findings: &mut Findings,
) -> Option<Member> {
    let given = [
        ("namespaceSelector, podSelector", spec.namespace_selector.is_some() || spec.pod_selector.is_some()),
        ("ipBlock", spec.ip_block.is_some()),
        ("ipRange", spec.ip_range.is_some()),
        ("entity", spec.entity.is_some()),
        ("vlan", spec.vlan.is_some()),
        ("fqdn", spec.fqdn.is_some()),
        ("workload", spec.workload.is_some()),
    ];
    let given: Vec<_> = given.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
    if given.is_empty() {
        let known = "namespaceSelector, podSelector, ipBlock, ipRange, entity, vlan, fqdn";
        findings.wrong(field, format_args!("is empty: give one of {known}"));
        return None;
    }
    if given.len() > 1 {
        let given = given.join(" and ");
        findings
            .wrong(field, format_args!("gives {given}; a member is one of them, write one member for each"));
        return None;
    }
    let field = |name: &str| format!("{field}.{name}");
    if let Some(block) = &spec.ip_block {
        let set = parse_block(&block.cidr, &block.except).map_err(|wrong| {
            for (name, message) in wrong {
                findings.wrong(field(&format!("ipBlock.{name}")), message);
            }
        });
        return set.ok().map(Member::Addresses);
    }
    if let Some(range) = &spec.ip_range {
        let set = parse_range(range).map_err(|message| findings.wrong(field("ipRange"), message));
        return set.ok().map(Member::Addresses);
    }
    if let Some(entity) = &spec.entity {
        return read_entity(entity, &field("entity"), findings);
    }
    if let Some(vlan) = spec.vlan {
        return read_vlan(vlan, &field("vlan"), findings);
    }
    if let Some(name) = &spec.fqdn {
        return read_fqdn(name, &field("fqdn"), findings);
    }
    if let Some(workload) = &spec.workload {
        return read_workload(workload, &field("workload"), home, findings);
    }
    let namespaces = match (&spec.namespace_selector, home) {
        (None, Home::Cluster) => Some(Namespaces::Selected(Selector::everything())),
        (None, Home::Namespace(name)) => Some(Namespaces::Own(name.into())),
        (Some(selector), _) => {
            read_selector(selector, &field("namespaceSelector"), findings).map(Namespaces::Selected)
        }
    };
    let pods = match &spec.pod_selector {
        None => Some(Selector::everything()),
        Some(selector) => read_selector(selector, &field("podSelector"), findings),
    };
    Some(Member::Pods { namespaces: namespaces?, pods: pods? })
}

/// Reads a selector; what the API server would refuse of it is found below `field`.
pub(crate) fn read_selector(
    selector: &LabelSelector,
    field: &str,
    findings: &mut Findings,
) -> Option<Selector> {
    Selector::try_from(selector)
        .map_err(|error| match error.to_string().split_once(": ") {
            Some((below, message)) => findings.wrong(format!("{field}.{below}"), message),
            None => findings.wrong(field, error),
        })
        .ok()
}

fn read_entity(name: &str, field: &str, findings: &mut Findings) -> Option<Member> {
    let known = Entity::ALL.into_iter().find(|entity| entity.as_str() == name);
    if known.is_none() {
        let names = Entity::ALL.map(Entity::as_str).join(", ");
        findings.wrong(field, format_args!("\"{name}\" is none of {names}"));
    }
    known.map(Member::Entity)
}

fn read_vlan(vlan: i64, field: &str, findings: &mut Findings) -> Option<Member> {
    // IEEE 802.1Q: 12 bits, of which 0 means untagged and 4095 is reserved.
    let id = u16::try_from(vlan).ok().filter(|id| *id <= 4094);
    if id.is_none() {
        findings.wrong(field, format_args!("{vlan} is no VLAN id: 1 to 4094, or 0 for untagged"));
    }
    id.map(Member::Vlan)
}

fn read_fqdn(name: &str, field: &str, findings: &mut Findings) -> Option<Member> {
    let lower = name.trim_end_matches('.').to_ascii_lowercase();
    let below = lower.strip_prefix("*.").unwrap_or(&lower);
    let part_ok = |part: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        !part.is_empty() && part.len() <= 63 && part.bytes().all(inner) && !part.starts_with('-')
    };
    if below.len() > 253 || !below.split('.').all(part_ok) {
        findings.wrong(
            field,
            format_args!("\"{name}\" is not a DNS name, as api.example.com and *.example.com are"),
        );
        return None;
    }
    let effect = "matches nothing yet: names of outside addresses are not recorded, so a verdict that depends on \
                  it is Unknown; an ipBlock works today";
    findings.note(field, effect);
    Some(Member::Fqdn(lower.into()))
}

fn read_workload(
    spec: &WorkloadSpec,
    field: &str,
    home: Home<'_>,
    findings: &mut Findings,
) -> Option<Member> {
    let Home::Namespace(own) = home else {
        findings.wrong(field, "is for an EdgeException only; a segment names its pods by their labels");
        return None;
    };
    let mut complete = true;
    for (name, value) in [("kind", &spec.kind), ("name", &spec.name)] {
        if value.is_empty() {
            findings.wrong(format!("{field}.{name}"), "is required");
            complete = false;
        }
    }
    let namespace = spec.namespace.as_deref().unwrap_or(own);
    complete.then(|| Member::Workload(WorkloadRef::new(&spec.kind, namespace, &spec.name)))
}
