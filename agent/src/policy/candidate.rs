//! Candidates: edits of the policies in force that are judged beside them, and how edits are laid over policies.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::api::{
    CLUSTER_POLICY_CANDIDATE, CandidateObject, CandidateSpec, DEFAULT_CHANGE_SET, POLICY_CANDIDATE,
};
use super::fault::Fault;
use super::kinds::PolicyKind;
use super::spec::Policy;
use crate::model::object::ObjectRef;
use crate::model::scenario::is_change_set_name;
use crate::model::typed::{TypeFault, deciding, typed};

/// A PolicyCandidate or ClusterPolicyCandidate. In force only without faults: what the API server would refuse
/// changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    reference: Arc<ObjectRef>,
    change_set: Arc<str>,
    edit: Option<Edit>,
    faults: Vec<Fault>,
}

/// What a candidate does to the policies in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Lays the policy over them; it replaces its namesake.
    Apply(Arc<Policy>),
    Delete(ObjectRef),
}

/// What laying one edit over objects did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Laid {
    Adds,
    Replaces,
    /// It is there already, alike.
    Keeps,
    Deletes,
    /// What is to be deleted is not there.
    Misses,
}

/// Lays one edit over objects as the API server would: the same kind, namespace and name replaces. `None` deletes.
pub fn lay<T: PartialEq>(over: &mut BTreeMap<ObjectRef, T>, reference: ObjectRef, object: Option<T>) -> Laid {
    let Some(object) = object else {
        return if over.remove(&reference).is_some() { Laid::Deletes } else { Laid::Misses };
    };
    match over.get_mut(&reference) {
        Some(held) if *held == object => Laid::Keeps,
        Some(held) => {
            *held = object;
            Laid::Replaces
        }
        None => {
            over.insert(reference, object);
            Laid::Adds
        }
    }
}

/// The policies as the candidates leave them, in order of kind, namespace and name. Candidates that are not in force
/// change nothing.
pub fn edited<'a>(
    policies: &[Arc<Policy>],
    candidates: impl IntoIterator<Item = &'a Arc<Candidate>>,
) -> Vec<Arc<Policy>> {
    let keyed = policies.iter().map(|policy| (ObjectRef::clone(policy.reference()), Arc::clone(policy)));
    let mut edited: BTreeMap<ObjectRef, Arc<Policy>> = keyed.collect();
    for candidate in candidates {
        match candidate.edit() {
            Some(Edit::Apply(policy)) => {
                lay(&mut edited, ObjectRef::clone(policy.reference()), Some(Arc::clone(policy)));
            }
            Some(Edit::Delete(target)) => {
                lay(&mut edited, target.clone(), None);
            }
            None => {}
        }
    }
    edited.into_values().collect()
}

impl Candidate {
    /// Reads an object of either kind. Fields that it does not have, of metadata and status, are left in `unknown`; the
    /// others are faults inside.
    ///
    /// # Errors
    /// If a field is of another type than the API's.
    pub fn read(value: &Value, is_cluster: bool, unknown: &mut Vec<String>) -> Result<Self, TypeFault> {
        let object: CandidateObject = typed(value, unknown)?;
        let kind = if is_cluster { CLUSTER_POLICY_CANDIDATE } else { POLICY_CANDIDATE };
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let namespace = object.metadata.namespace.as_deref().filter(|_| !is_cluster);
        let reference = match namespace {
            Some(namespace) => ObjectRef::namespaced(kind, namespace, name),
            None => ObjectRef::cluster(kind, name),
        };
        let mut faults = Faults(Vec::new());
        // What an embedded object has is its own kind's to know.
        let own = |field: &String| !field.starts_with("spec.object.");
        for field in deciding(unknown).into_iter().filter(own) {
            faults.add(field, format!("is not a field of {kind}"));
        }
        if name.is_empty() {
            faults.add("metadata.name", "is missing");
        }
        let change_set = object.spec.change_set.as_deref().unwrap_or(DEFAULT_CHANGE_SET);
        if !is_change_set_name(change_set) {
            faults.add(
                "spec.changeSet",
                format!("\"{change_set}\" is no name of a change set: lower case, digits and dashes, at most 63, and not that of another scenario"),
            );
        }
        let edit = read_edit(&object.spec, namespace, &mut faults);
        let Faults(faults) = faults;
        Ok(Self {
            reference: Arc::new(reference),
            change_set: change_set.into(),
            edit: edit.filter(|_| faults.is_empty()),
            faults,
        })
    }

    pub const fn reference(&self) -> &Arc<ObjectRef> {
        &self.reference
    }

    /// The scenario that it is part of.
    pub const fn change_set(&self) -> &Arc<str> {
        &self.change_set
    }

    /// What it does; `None` where it is not in force.
    pub const fn edit(&self) -> Option<&Edit> {
        self.edit.as_ref()
    }

    /// Why it is not in force, by field.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(Fault { field: field.into(), message: message.into() });
    }
}

fn read_edit(spec: &CandidateSpec, namespace: Option<&str>, faults: &mut Faults) -> Option<Edit> {
    match spec.action.as_deref().unwrap_or("Apply") {
        "Apply" => {
            if spec.target.is_some() {
                faults.add("spec.target", "is given with action Delete only");
            }
            let Some(object) = &spec.object else {
                faults.add("spec.object", "is missing: action Apply lays it over the policies in force");
                return None;
            };
            read_object(object, namespace, faults).map(|policy| Edit::Apply(Arc::new(policy)))
        }
        "Delete" => {
            if spec.object.is_some() {
                faults.add("spec.object", "is given with action Apply only");
            }
            let Some(target) = &spec.target else {
                faults.add("spec.target", "is missing: action Delete takes it away");
                return None;
            };
            let kind = policy_kind(&target.api_version, &target.kind, namespace, "spec.target", faults)?;
            if target.name.is_empty() {
                faults.add("spec.target.name", "is missing");
                return None;
            }
            Some(Edit::Delete(match namespace {
                Some(namespace) => ObjectRef::namespaced(kind.name, namespace, &target.name),
                None => ObjectRef::cluster(kind.name, &target.name),
            }))
        }
        other => {
            faults.add("spec.action", format!("\"{other}\" is none of Apply, Delete"));
            None
        }
    }
}

/// The kind of policy, if it is one that a candidate of this scope may be about.
fn policy_kind(
    api_version: &str,
    kind: &str,
    namespace: Option<&str>,
    field: &str,
    faults: &mut Faults,
) -> Option<&'static PolicyKind> {
    let of_kind = |known: &&PolicyKind| known.kind == kind && known.api_versions.contains(&api_version);
    let Some(known) = PolicyKind::ALL.iter().find(of_kind) else {
        faults.add(format!("{field}.kind"), format!("{api_version} {kind} is no policy that is judged"));
        return None;
    };
    match (namespace, known.namespaced) {
        (Some(_), true) | (None, false) => Some(known),
        (Some(_), false) => {
            let message = format!("{kind} is cluster-wide: a {CLUSTER_POLICY_CANDIDATE} proposes it");
            faults.add(format!("{field}.kind"), message);
            None
        }
        (None, true) => {
            let message = format!("{kind} is namespaced: a {POLICY_CANDIDATE} of its namespace proposes it");
            faults.add(format!("{field}.kind"), message);
            None
        }
    }
}

fn read_object(object: &Value, namespace: Option<&str>, faults: &mut Faults) -> Option<Policy> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let kind = policy_kind(text("/apiVersion"), text("/kind"), namespace, "spec.object", faults)?;
    let given = text("/metadata/namespace");
    let is_own = given.is_empty() || namespace == Some(given);
    if !is_own {
        let wanted = namespace.map_or_else(
            || "absent: the policy is cluster-wide".to_owned(),
            |own| format!("absent or {own}: a candidate proposes for its own namespace"),
        );
        faults.add("spec.object.metadata.namespace", format!("is \"{given}\", and must be {wanted}"));
    }
    if text("/metadata/name").is_empty() {
        faults.add("spec.object.metadata.name", "is missing");
    }
    let mut object = object.clone();
    if let (Some(own), Some(metadata)) =
        (namespace, object.get_mut("metadata").and_then(Value::as_object_mut))
    {
        metadata.insert("namespace".to_owned(), own.into());
    }
    let mut unknown = Vec::new();
    match kind.read(&object, &mut unknown) {
        Ok(policy) => {
            for fault in policy.faults() {
                faults.add(format!("spec.object.{}", fault.field), fault.message.clone());
            }
            Some(policy)
        }
        Err(fault) => {
            let field = format!("spec.object.{}", fault.field);
            faults.add(field.trim_end_matches('.'), fault.message);
            None
        }
    }
}

#[cfg(test)]
mod tests;
