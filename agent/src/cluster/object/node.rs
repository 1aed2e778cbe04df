//! Nodes and the addresses that are theirs.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;

use super::{ObjectError, name_of};
use crate::model::intern;
use crate::model::labels::Labels;

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: Arc<str>,
    pub labels: Labels,
    /// From `status.addresses` and from the tunnel addresses that CNIs write in annotations.
    pub addresses: Vec<IpAddr>,
    /// The ranges its pods get their addresses from.
    pub pod_cidrs: Vec<IpNet>,
}

/// Annotations in which CNIs keep further addresses of a node, as an address or a CIDR.
///
/// Sources: calico, `libcalico-go/lib/backend/k8s/conversion/constants.go` and
/// `.../resources/node.go`; cilium, `pkg/annotation/k8s.go` (and the older `io.cilium.network.` spelling);
/// flannel, `pkg/subnet/kube/annotations.go`.
const ADDRESS_ANNOTATIONS: [&str; 15] = [
    "projectcalico.org/IPv4Address",
    "projectcalico.org/IPv6Address",
    "projectcalico.org/IPv4IPIPTunnelAddr",
    "projectcalico.org/IPv4VXLANTunnelAddr",
    "projectcalico.org/IPv6VXLANTunnelAddr",
    "projectcalico.org/IPv4WireguardInterfaceAddr",
    "projectcalico.org/IPv6WireguardInterfaceAddr",
    "network.cilium.io/ipv4-cilium-host",
    "network.cilium.io/ipv6-cilium-host",
    "network.cilium.io/ipv4-health-ip",
    "network.cilium.io/ipv6-health-ip",
    "io.cilium.network.ipv4-cilium-host",
    "io.cilium.network.ipv6-cilium-host",
    "flannel.alpha.coreos.com/public-ip",
    "flannel.alpha.coreos.com/public-ipv6",
];

impl Node {
    /// The first host address of each pod range: on bridge CNIs the gateway of the pods, an address of the
    /// node. Some CNIs give it to a pod; a pod that claims it is therefore believed.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        self.pod_cidrs.iter().filter_map(|cidr| match cidr {
            IpNet::V4(cidr) => cidr.hosts().next().map(IpAddr::V4),
            // The all-zero host of an IPv6 subnet is the routers' anycast address (RFC 4291, 2.6.1).
            IpNet::V6(cidr) => cidr.hosts().nth(1).map(IpAddr::V6),
        })
    }
}

impl TryFrom<&core::Node> for Node {
    type Error = ObjectError;

    fn try_from(node: &core::Node) -> Result<Self, ObjectError> {
        let status = node.status.as_ref().and_then(|status| status.addresses.as_ref());
        // `Hostname` entries may hold a name or an address.
        let mut addresses: Vec<IpAddr> =
            status.into_iter().flatten().filter_map(|given| given.address.parse().ok()).collect();
        for name in ADDRESS_ANNOTATIONS {
            let annotations = node.metadata.annotations.as_ref();
            let Some(text) = annotations.and_then(|annotations| annotations.get(name)) else { continue };
            let plain = text.split('/').next().unwrap_or_default();
            addresses.push(super::address(plain, || format!("metadata.annotations.{name}"))?);
        }
        addresses.sort();
        addresses.dedup();
        let labels =
            intern::labels(node.metadata.labels.iter().flatten().map(|(k, v)| (k.as_str(), v.as_str())));
        Ok(Self { name: name_of(&node.metadata)?, labels, addresses, pod_cidrs: pod_cidrs(node)? })
    }
}

fn pod_cidrs(node: &core::Node) -> Result<Vec<IpNet>, ObjectError> {
    let Some(spec) = &node.spec else { return Ok(Vec::new()) };
    let listed = spec.pod_cidrs.iter().flatten().enumerate();
    let listed = listed.map(|(index, text)| (format!("spec.podCIDRs[{index}]"), text));
    let single = spec.pod_cidr.iter().filter(|text| !text.is_empty());
    let mut cidrs = Vec::new();
    for (field, text) in listed.chain(single.map(|text| ("spec.podCIDR".to_owned(), text))) {
        let cidr: Option<IpNet> = text.parse().ok();
        let cidr = cidr.ok_or_else(|| ObjectError::new(field, format!("\"{text}\" is not a CIDR")))?;
        if !cidrs.contains(&cidr) {
            cidrs.push(cidr);
        }
    }
    Ok(cidrs)
}
