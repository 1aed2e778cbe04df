//! What does not fit together among the objects, computed when it is asked for.

use std::fmt;
use std::sync::Arc;

use super::Index;
use super::addresses::Owner;
use crate::model::object::ObjectRef;

/// Something about the objects that makes verdicts doubtful, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub object: ObjectRef,
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.message)
    }
}

impl Index {
    /// Everything that does not fit together now, in order of object.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (name, space) in &self.namespaces {
            let inhabited = !space.pods.is_empty() || space.workloads.values().any(|w| w.object.is_some());
            if !space.declared && space.broken.is_none() && inhabited {
                findings.push(Finding {
                    object: ObjectRef::cluster("Namespace", name),
                    message:
                        "has pods or workloads but is not among the objects: only its name label is known"
                            .to_owned(),
                });
            }
            let without = space
                .services
                .values()
                .filter(|service| service.selector.is_some() && !space.slices_of.contains_key(&service.name));
            findings.extend(without.map(|service| {
                Finding {
                    object: ObjectRef::namespaced("Service", name, &service.name),
                    message:
                        "has no EndpointSlice: the pods that its selector matches are taken as its backends"
                            .to_owned(),
                }
            }));
        }
        findings.extend(self.double_claims());
        findings.sort();
        findings
    }

    fn double_claims(&self) -> impl Iterator<Item = Finding> {
        self.addresses.contested().filter_map(|(address, claims)| {
            let mut objects: Vec<ObjectRef> = claims
                .iter()
                .filter_map(|claim| match &claim.owner {
                    Owner::Pod(pod) => Some(ObjectRef::namespaced("Pod", pod.namespace(), &pod.name)),
                    Owner::Node(node) => Some(ObjectRef::cluster("Node", node)),
                    Owner::Service(namespace, name) => {
                        Some(ObjectRef::namespaced("Service", namespace, name))
                    }
                    Owner::Broken(object) => Some(ObjectRef::clone(object)),
                    Owner::UnnamedNode | Owner::Host | Owner::Contested => None,
                })
                .collect();
            objects.sort();
            let names: Arc<[String]> = objects.iter().skip(1).map(ToString::to_string).collect();
            let object = objects.into_iter().next()?;
            let message = format!("has the address {address}, which {} has as well", names.join(", "));
            Some(Finding { object, message })
        })
    }
}
