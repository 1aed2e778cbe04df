//! References to objects of the Kubernetes API.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::intern;

/// Which object: kind, namespace (none for cluster-wide kinds) and name. Shown as `Kind/namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    pub kind: Arc<str>,
    pub namespace: Option<Arc<str>>,
    pub name: Arc<str>,
}

impl ObjectRef {
    /// A reference to an object of a namespaced kind.
    pub fn namespaced(kind: &str, namespace: &str, name: &str) -> Self {
        Self { kind: intern::string(kind), namespace: Some(intern::string(namespace)), name: name.into() }
    }

    /// A reference to an object of a cluster-wide kind.
    pub fn cluster(kind: &str, name: &str) -> Self {
        Self { kind: intern::string(kind), namespace: None, name: name.into() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

impl Serialize for ObjectRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The top owner of a pod: a Deployment, StatefulSet, DaemonSet, Job, CronJob …, or the bare Pod itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct WorkloadRef {
    pub kind: Arc<str>,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl WorkloadRef {
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self { kind: intern::string(kind), namespace: intern::string(namespace), name: name.into() }
    }
}

impl fmt::Display for WorkloadRef {
    /// `namespace/Kind/name`, as a query names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.kind, self.name)
    }
}
