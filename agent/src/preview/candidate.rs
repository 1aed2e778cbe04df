//! Laying a candidate over a base, as the API server would: same kind, namespace and name replaces.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::{Base, Settings};
use crate::cluster::Object;
use crate::model::object::ObjectRef;
use crate::policy::{Laid, lay};

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

/// What judges edges: policies, segment maps and exceptions, as a base has them and as a candidate leaves them.
#[derive(Debug, Default)]
pub(super) struct Judging {
    pub(super) before: Vec<Object>,
    pub(super) after: Vec<Object>,
    pub(super) edits: Vec<Edit>,
}

/// Whether it is a policy, segment map or exception.
pub(super) const fn judges(object: &Object) -> bool {
    matches!(object, Object::Policy(_) | Object::SegmentMap(_) | Object::EdgeException(_))
}

/// Lays what judges in the candidate over what judges in the base, or removes it from there.
pub(super) fn lay_over(base: &[Object], candidate: &[Object], settings: &Settings) -> Judging {
    let held = base.iter().filter(|object| match object {
        Object::Policy(_) => settings.base == Base::Enforced,
        object => judges(object),
    });
    // Of two with one name the last one, as applying them in order leaves it.
    let before: BTreeMap<ObjectRef, Object> =
        held.map(|object| (object.reference(), object.clone())).collect();
    let mut after = before.clone();
    let mut edits = Vec::new();
    for object in candidate.iter().filter(|object| judges(object)) {
        let reference = object.reference();
        let new = (!settings.delete).then(|| object.clone());
        let action = match lay(&mut after, reference.clone(), new) {
            Laid::Adds => Action::Adds,
            Laid::Replaces => Action::Replaces,
            Laid::Keeps => Action::Keeps,
            Laid::Deletes => Action::Deletes,
            Laid::Misses => Action::Misses,
        };
        edits.push(Edit { action, object: reference });
    }
    Judging { before: before.into_values().collect(), after: after.into_values().collect(), edits }
}
