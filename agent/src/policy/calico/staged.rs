//! The staged kinds: what they would change. They are never in force.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::Value;

use super::types::PolicySpec;
use super::{GLOBAL_NETWORK_POLICY, Kind, NETWORK_POLICY, Reader, foreign_fields, open, reference};
use crate::model::object::ObjectRef;
use crate::model::typed::{TypeFault, deciding, typed};
use crate::policy::fault::{Fault, Faults, UnknownFields};
use crate::policy::kinds::without_spec;
use crate::policy::network_policy;
use crate::policy::spec::{Contents, Force, Policy};

/// What a staged object would do to the policies in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StagedEdit {
    /// Takes the place of its namesake, or is added where there is none.
    Replace(Arc<Policy>),
    /// Removes its namesake.
    Delete(Arc<ObjectRef>),
}

const NETWORK: Kind =
    Kind { kind: "StagedNetworkPolicy", enforced: NETWORK_POLICY, global: false, staged: true };
const GLOBAL: Kind =
    Kind { kind: "StagedGlobalNetworkPolicy", enforced: GLOBAL_NETWORK_POLICY, global: true, staged: true };
const KUBERNETES: &str = "StagedKubernetesNetworkPolicy";

/// `spec.stagedAction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StagedAction {
    Set,
    Delete,
    /// It stands for nothing yet, or for nothing any more.
    Nothing,
}

impl StagedAction {
    /// Absent is Set.
    fn read(action: Option<&str>, faults: &mut Faults) -> Self {
        match action.unwrap_or("Set") {
            "Set" | "" => Self::Set,
            "Delete" => Self::Delete,
            "Learn" | "Ignore" => Self::Nothing,
            other => {
                let message = format!("\"{other}\" is none of Set, Delete, Learn, Ignore");
                faults.add("spec.stagedAction", message);
                Self::Nothing
            }
        }
    }
}

/// Reads a StagedNetworkPolicy.
pub(in crate::policy) fn read_staged_network(
    value: &Value,
    unknown: &mut Vec<String>,
) -> Result<Policy, TypeFault> {
    read(value, unknown, NETWORK)
}

/// Reads a StagedGlobalNetworkPolicy.
pub(in crate::policy) fn read_staged_global(
    value: &Value,
    unknown: &mut Vec<String>,
) -> Result<Policy, TypeFault> {
    read(value, unknown, GLOBAL)
}

fn read(value: &Value, unknown: &mut Vec<String>, kind: Kind) -> Result<Policy, TypeFault> {
    let (metadata, spec, mut reader) = open::<PolicySpec>(value, unknown, kind.kind, kind.global, |spec| {
        foreign_fields(spec, kind).map(ToOwned::to_owned).collect()
    })?;
    let action = StagedAction::read(spec.staged_action.as_deref(), &mut reader.faults);
    let staged = reference(kind.kind, &metadata, reader.namespace.as_ref());
    let policy = match action {
        // Its spec means nothing then.
        StagedAction::Delete | StagedAction::Nothing => {
            let Reader { faults, namespace, .. } = reader;
            let reference = Arc::new(reference(kind.enforced, &metadata, namespace.as_ref()));
            return Ok(staged_object(staged, action, Arc::new(empty(reference)), faults.into_found()));
        }
        StagedAction::Set => reader.policy(&metadata, &spec, kind),
    };
    let faults = policy.faults.clone();
    Ok(staged_object(staged, action, Arc::new(policy), faults))
}

/// Reads a StagedKubernetesNetworkPolicy.
pub(in crate::policy) fn read_staged_kubernetes(
    value: &Value,
    unknown: &mut Vec<String>,
) -> Result<Policy, TypeFault> {
    let mut faults = Faults::default();
    let mut value = value.clone();
    let action = value.get_mut("spec").and_then(Value::as_object_mut);
    let action = action.and_then(|spec| spec.remove("stagedAction"));
    let action = match action.as_ref().map(|action| (action, action.as_str())) {
        Some((action, None)) => {
            let message = format!("{action} is none of Set, Delete, Learn, Ignore");
            return Err(TypeFault { field: "spec.stagedAction".to_owned(), message });
        }
        Some((_, text)) => StagedAction::read(text, &mut faults),
        None => StagedAction::Set,
    };
    if let Some(object) = value.as_object_mut() {
        // The rest is a NetworkPolicy, which has no status.
        object.remove("status");
        object.insert("apiVersion".to_owned(), "networking.k8s.io/v1".into());
        object.insert("kind".to_owned(), network_policy::KIND.into());
    }
    let object = typed::<NetworkPolicy>(&value, unknown)?;
    let paths = without_spec(object.spec.is_none(), KUBERNETES, deciding(unknown))?;
    UnknownFields::new(paths.clone()).report(KUBERNETES, &mut faults);
    let fault = |field| Fault { field, message: format!("is not a field of {KUBERNETES}") };
    let read = paths.into_iter().map(fault).collect();
    let policy = Policy::from_network_policy_with(&object, read);
    let staged = ObjectRef { kind: KUBERNETES.into(), ..ObjectRef::clone(&policy.reference) };
    let faults = match action {
        StagedAction::Set => faults.into_found().into_iter().chain(policy.faults.clone()).collect(),
        StagedAction::Delete | StagedAction::Nothing => faults.into_found(),
    };
    Ok(staged_object(staged, action, Arc::new(policy), faults))
}

fn empty(reference: Arc<ObjectRef>) -> Policy {
    let contents = Contents::Parts(Vec::new());
    Policy { reference, faults: Vec::new(), notes: Vec::new(), force: Force::InForce, contents }
}

fn staged_object(staged: ObjectRef, action: StagedAction, policy: Arc<Policy>, faults: Vec<Fault>) -> Policy {
    let namesake = Arc::clone(&policy.reference);
    let (why, edit) = match action {
        StagedAction::Set => {
            (format!("staged: it would replace {namesake}"), Some(StagedEdit::Replace(policy)))
        }
        StagedAction::Delete => {
            (format!("staged: it would remove {namesake}"), Some(StagedEdit::Delete(namesake)))
        }
        StagedAction::Nothing => ("staged, and its stagedAction changes nothing".to_owned(), None),
    };
    Policy {
        reference: Arc::new(staged),
        faults,
        notes: Vec::new(),
        force: Force::NotInForce(why.into()),
        contents: Contents::Staged(edit),
    }
}

impl Policy {
    /// What it would change, if it is a staged object that would change something.
    pub const fn staged_edit(&self) -> Option<&StagedEdit> {
        match &self.contents {
            Contents::Staged(edit) => edit.as_ref(),
            Contents::Parts(_) | Contents::Set(_) | Contents::Tier(_) => None,
        }
    }
}

/// Kind, namespace and name of a policy, whether or not its name has the default tier's prefix, as in
/// crd.projectcalico.org.
fn key(reference: &ObjectRef) -> (&str, Option<&str>, &str) {
    let name = match &*reference.kind {
        network_policy::KIND => &reference.name,
        _ => reference.name.strip_prefix("default.").unwrap_or(&reference.name),
    };
    (&reference.kind, reference.namespace.as_deref(), name)
}

/// The policies as they would be if everything that is staged took effect. Of objects that are staged for one
/// namesake, the last decides.
pub fn with_staged(policies: &[Arc<Policy>]) -> Vec<Arc<Policy>> {
    let mut result = policies.to_vec();
    for edit in policies.iter().filter_map(|policy| policy.staged_edit()) {
        let (namesake, new) = match edit {
            StagedEdit::Replace(policy) => (&policy.reference, Some(policy)),
            StagedEdit::Delete(reference) => (reference, None),
        };
        result.retain(|policy| key(&policy.reference) != key(namesake));
        result.extend(new.cloned());
    }
    result
}
