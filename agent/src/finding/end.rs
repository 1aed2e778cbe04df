//! One end of a finding: a workload, or a place.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use crate::model::cause::Cause;
use crate::model::record::PartyRecord;

/// What tells ends apart in a report.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EndKey {
    Workload {
        namespace: String,
        kind: String,
        name: String,
    },
    /// Namespace and name.
    Service(String, String),
    Node,
    /// By cause, so that the metadata address does not stand beside the internet.
    External(Cause),
    Unknown(Option<IpAddr>),
}

impl EndKey {
    pub(crate) fn new(party: &PartyRecord, cause: Cause) -> Self {
        let namespace = party.namespace.clone().unwrap_or_default();
        match (party.kind.as_str(), &party.workload, &party.name) {
            ("Pod", Some(workload), _) => Self::Workload {
                namespace,
                kind: party.workload_type.clone().unwrap_or_default(),
                name: workload.clone(),
            },
            ("Pod", None, Some(name)) => {
                Self::Workload { namespace, kind: "Pod".to_owned(), name: name.clone() }
            }
            ("Service", _, Some(name)) => Self::Service(namespace, name.clone()),
            ("Node", ..) => Self::Node,
            ("External", ..) => Self::External(cause),
            _ => Self::Unknown(party.address),
        }
    }
}

/// One end, as findings show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct End {
    /// `Pod`, `Node`, `Service`, `External` or `Unknown`.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The workload's, Service's or (where there is only one) node's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_type: Option<String>,
    /// The labels that select the workload's pods.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
    /// Every address that was seen.
    pub addresses: BTreeSet<IpAddr>,
}

impl End {
    pub(crate) fn new(party: &PartyRecord, addresses: BTreeSet<IpAddr>) -> Self {
        let is_pod = party.kind == "Pod";
        let name =
            if is_pod { party.workload.clone().or_else(|| party.name.clone()) } else { party.name.clone() };
        let name = name.filter(|_| party.kind != "Node" || addresses.len() < 2);
        Self {
            kind: party.kind.clone(),
            namespace: party.namespace.clone(),
            name,
            workload_type: party.workload_type.clone(),
            selector: party.selector.clone(),
            addresses,
        }
    }

    fn at(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.addresses.first(), self.addresses.len()) {
            (Some(address), 1) => write!(f, " ({address})"),
            (Some(_), count) => write!(f, " ({count} addresses)"),
            (None, _) => Ok(()),
        }
    }
}

impl fmt::Display for End {
    /// `namespace/Kind/name` for workloads and Services; places in words, with their address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.workload_type.as_deref().unwrap_or(&self.kind);
        match (self.kind.as_str(), &self.namespace, &self.name) {
            ("Pod" | "Service", Some(namespace), Some(name)) => write!(f, "{namespace}/{kind}/{name}"),
            ("Node", _, Some(name)) => write!(f, "Node/{name}"),
            ("Node", ..) => f.write_str("nodes").and_then(|()| self.at(f)),
            ("External", ..) => f.write_str("outside").and_then(|()| self.at(f)),
            _ => f.write_str("unknown").and_then(|()| self.at(f)),
        }
    }
}
