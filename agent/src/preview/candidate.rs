//! Laying a candidate over a base, as the API server would: same kind, namespace and name replaces.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::cluster::Object;
use crate::model::object::ObjectRef;
use crate::policy::Policy;

/// What a candidate does to one object of the base.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Edit {
    pub action: Action,
    pub object: ObjectRef,
}

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Adds,
    Replaces,
    Deletes,
    /// It gives recorded pods new labels or ports.
    Relabels,
    /// A namespace gets a deny-all.
    DefaultDeny,
    /// The base holds it already, alike.
    Keeps,
    /// It is to be deleted, and the base does not hold it.
    Misses,
}

impl Action {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Adds => "adds",
            Self::Replaces => "replaces",
            Self::Deletes => "deletes",
            Self::Relabels => "relabels the pods of",
            Self::DefaultDeny => "denies by default in",
            Self::Keeps => "keeps",
            Self::Misses => "cannot delete (not in the base)",
        }
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action.as_str(), self.object)
    }
}

/// The policies of a base and what a candidate makes of them.
#[derive(Debug, Default)]
pub(super) struct Policies {
    pub(super) before: Vec<Arc<Policy>>,
    pub(super) after: Vec<Arc<Policy>>,
    pub(super) edits: Vec<Edit>,
}

/// Lays the candidate's policies over the base's, or removes them from it.
pub(super) fn lay_over(before: Vec<Arc<Policy>>, candidate: &[Object], delete: bool) -> Policies {
    let mut after: BTreeMap<ObjectRef, Arc<Policy>> =
        before.iter().map(|policy| (ObjectRef::clone(policy.reference()), Arc::clone(policy))).collect();
    let mut edits = Vec::new();
    for object in candidate {
        let Object::Policy(policy) = object else { continue };
        let reference = ObjectRef::clone(policy.reference());
        let action = if delete {
            match after.remove(&reference) {
                Some(_) => Action::Deletes,
                None => Action::Misses,
            }
        } else {
            match after.insert(reference.clone(), Arc::clone(policy)) {
                None => Action::Adds,
                Some(old) if old == *policy => Action::Keeps,
                Some(_) => Action::Replaces,
            }
        };
        edits.push(Edit { action, object: reference });
    }
    Policies { before, after: after.into_values().collect(), edits }
}

/// The policies among objects; of two with one name the last one, as applying them in order leaves it.
pub(super) fn policies_of(objects: &[Object]) -> Vec<Arc<Policy>> {
    let mut by_name: BTreeMap<ObjectRef, Arc<Policy>> = BTreeMap::new();
    for object in objects {
        if let Object::Policy(policy) = object {
            by_name.insert(ObjectRef::clone(policy.reference()), Arc::clone(policy));
        }
    }
    by_name.into_values().collect()
}
