//! Causes: the usual breakages, by the names under which people look for them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of connection this is, of those that policies commonly break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Port 53 to the cluster's DNS.
    Dns,
    /// Port 53 to an address of the pod's own node: NodeLocal DNSCache, which a rule for the DNS pods does not allow.
    NodeLocalDns,
    /// A metrics scraper asks a pod.
    Metrics,
    /// An ingress controller passes a request on.
    IngressController,
    /// To the Kubernetes API server.
    ApiServer,
    /// To the cloud's metadata address, 169.254.169.254 or fd00:ec2::254.
    CloudMetadata,
    /// To an address outside the cluster.
    External,
    /// From an address outside the cluster.
    FromOutside,
    /// From or to a node.
    Node,
    /// Between pods of different namespaces.
    CrossNamespace,
    /// Between pods of one namespace.
    SameNamespace,
    /// One end could not be joined.
    Unknown,
}

impl Cause {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::NodeLocalDns => "node-local-dns",
            Self::Metrics => "metrics",
            Self::IngressController => "ingress-controller",
            Self::ApiServer => "api-server",
            Self::CloudMetadata => "cloud-metadata",
            Self::External => "external",
            Self::FromOutside => "from-outside",
            Self::Node => "node",
            Self::CrossNamespace => "cross-namespace",
            Self::SameNamespace => "same-namespace",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
