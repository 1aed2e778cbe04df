//! Policies: API types in, compiled tiers, verdicts out. Pure: no I/O, no clock, no Kubernetes client.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::NetworkPolicy;

use crate::model::object::ObjectRef;

/// Something in a policy that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub field: String,
    pub message: String,
}

/// One policy.
#[derive(Debug)]
pub struct Policy {
    reference: Arc<ObjectRef>,
    faults: Vec<Fault>,
}

impl Policy {
    pub fn from_network_policy_with(policy: &NetworkPolicy, faults: Vec<Fault>) -> Self {
        let namespace = policy.metadata.namespace.as_deref().unwrap_or("default");
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        Self { reference: Arc::new(ObjectRef::namespaced("NetworkPolicy", namespace, name)), faults }
    }

    pub fn unreadable(reference: ObjectRef, fault: Fault) -> Self {
        Self { reference: Arc::new(reference), faults: vec![fault] }
    }

    pub fn reference(&self) -> &Arc<ObjectRef> {
        &self.reference
    }

    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}
