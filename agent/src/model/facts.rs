//! Facts: what policies may ask beside the ends of a connection and its port. What is not known is `None`, and a
//! verdict that depends on it is `Unknown`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::labels::Labels;
use super::selector::Selector;

/// Labels of objects, by namespace and name.
pub type LabelsByName = FxHashMap<(Arc<str>, Arc<str>), Labels>;

/// What is known of the cluster besides its pods.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterFacts {
    /// The labels of every node, by its name.
    pub node_labels: Option<FxHashMap<Arc<str>, Labels>>,
    /// The labels of every namespace, its name among them.
    pub namespace_labels: Option<FxHashMap<Arc<str>, Labels>>,
    /// The labels of every service account.
    pub service_account_labels: Option<LabelsByName>,
    /// Where the API server listens.
    pub api_server: Option<Vec<IpAddr>>,
    pub services: Option<Vec<ServiceFacts>>,
    /// What pods call addresses outside the cluster.
    pub names: Option<NameTable>,
    /// What the cluster is called among others.
    pub cluster_name: Option<Arc<str>>,
}

/// What a Service stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFacts {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub labels: Labels,
    /// The pods behind it; none where its addresses are listed by hand.
    pub selector: Option<Selector>,
    /// The addresses behind it, of a Service without a selector.
    pub addresses: Vec<IpAddr>,
}

/// Domain names by address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameTable {
    pub names: BTreeMap<IpAddr, Vec<Arc<str>>>,
    /// Whether an address that is not in the table has no name that a policy could mean.
    pub complete: bool,
}

/// What is known of one connection beside its ends and its port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ConnectionFacts {
    /// Whether it is encrypted, and both ends have shown who they are.
    pub mutual_tls: Option<bool>,
    /// As whom the initiator has shown itself: `cluster.local/ns/shop/sa/web`.
    pub principal: Option<Arc<str>>,
    /// What is asked in it.
    pub request: Option<Arc<Request>>,
    /// The responder's port inside a mesh's tunnel, where the connection goes to the tunnel's own.
    pub inner_port: Option<u16>,
    /// The name that its TLS asks for (SNI).
    pub server_name: Option<Arc<str>>,
}

impl ConnectionFacts {
    /// Nothing is known.
    pub const NONE: Self =
        Self { mutual_tls: None, principal: None, request: None, inner_port: None, server_name: None };
}

/// What is asked in a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Request {
    Http {
        method: Arc<str>,
        path: Arc<str>,
        host: Arc<str>,
        /// Names in lower case.
        headers: Vec<(Arc<str>, Arc<str>)>,
    },
    /// The name that is asked for, without the final dot.
    Dns { name: Arc<str> },
    /// Neither of these.
    Other,
}
