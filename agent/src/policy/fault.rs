//! Faults: what of a policy could not be read, and where.

use std::fmt;
use std::sync::Arc;

use crate::model::object::ObjectRef;
use crate::model::verdict::{Fact, UnknownReason};

/// A place of a policy that the API server would refuse, or that its reader did not understand.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Fault {
    /// The path from the object's root: `spec.ingress[0].from[1].ipBlock.cidr`.
    pub field: String,
    /// What is wrong with it, in words.
    pub message: String,
}

/// A field whose content is unknown, or asks for what is: its path, and which of these.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Field {
    path: Arc<str>,
    lack: Lack,
}

/// What is lacking to know what a field says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lack {
    /// It could not be read.
    Content,
    /// The object was not read yet.
    Sync,
    /// We do not judge it.
    Support,
    /// It asks for something outside the policies.
    Fact(Fact),
}

impl Field {
    pub(crate) fn new(path: impl Into<Arc<str>>, lack: Lack) -> Self {
        Self { path: path.into(), lack }
    }

    /// A field that is read but not judged.
    pub(crate) fn unsupported(path: impl Into<Arc<str>>) -> Self {
        Self::new(path, Lack::Support)
    }

    /// A field that asks for a fact.
    pub(crate) fn lacking(path: impl Into<Arc<str>>, fact: Fact) -> Self {
        Self::new(path, Lack::Fact(fact))
    }

    pub(crate) const fn path(&self) -> &Arc<str> {
        &self.path
    }

    /// Why a verdict that depends on it is unknown.
    pub(crate) fn reason(&self, policy: &Arc<ObjectRef>) -> UnknownReason {
        let (policy, field) = (Arc::clone(policy), Arc::clone(&self.path));
        match self.lack {
            Lack::Content => UnknownReason::PolicyInvalid { policy, field },
            Lack::Sync => UnknownReason::NotSynced,
            Lack::Support => UnknownReason::PolicyUnsupported { policy, field },
            Lack::Fact(fact) => UnknownReason::FactMissing { policy, field, fact },
        }
    }

    /// What stands in place of what it says.
    pub(crate) fn stand_in(&self) -> String {
        match self.lack {
            Lack::Content | Lack::Sync => "unreadable".to_owned(),
            Lack::Support | Lack::Fact(_) => self.text(),
        }
    }

    /// The same in words, where the policy is plain.
    pub(crate) fn text(&self) -> String {
        match self.lack {
            Lack::Content => format!("could not be read at {}", self.path),
            Lack::Sync => "not read yet".to_owned(),
            Lack::Support => format!("{} is not judged", self.path),
            Lack::Fact(fact) => format!("not known: {fact}"),
        }
    }
}

impl From<&str> for Field {
    /// A field that could not be read.
    fn from(path: &str) -> Self {
        Self::new(path, Lack::Content)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.path)
    }
}

/// What a field says, or the path of the field if that is unknown.
pub(crate) type Content<T> = Result<T, Field>;

/// Collects faults while a policy is read, and knows the path of what is being read.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    found: Vec<Fault>,
}

impl Faults {
    pub(crate) fn add(&mut self, field: impl Into<String>, message: impl fmt::Display) -> Field {
        let fault = Fault { field: field.into(), message: message.to_string() };
        let field = Field::from(fault.field.as_str());
        self.found.push(fault);
        field
    }

    pub(crate) fn into_found(self) -> Vec<Fault> {
        self.found
    }
}

/// Fields that a kind does not have, as its reader found them. They are taken from the inside out: each belongs to
/// the smallest thing around it that can be unknown.
#[derive(Debug)]
pub(crate) struct UnknownFields {
    paths: Vec<String>,
}

impl UnknownFields {
    pub(crate) const fn new(paths: Vec<String>) -> Self {
        Self { paths }
    }

    /// All of them as faults of a kind.
    pub(crate) fn report(&self, kind: &str, faults: &mut Faults) {
        for path in &self.paths {
            let message = format!(
                "is not a field of {kind} that is known: the API server leaves it out, or refuses the object under \
                 strict field validation"
            );
            faults.add(path.as_str(), message);
        }
    }

    /// Takes those at or below a place out; the first of them.
    pub(crate) fn take(&mut self, place: &str) -> Option<Field> {
        let below = |path: &String| {
            path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let first = self.paths.iter().find(|path| below(path)).map(|path| Field::from(path.as_str()));
        self.paths.retain(|path| !below(path));
        first
    }
}

/// A step of a field's path: its name, and the index in the list that it names, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step<'a> {
    pub(crate) name: &'a str,
    pub(crate) index: Option<usize>,
}

/// The steps of `spec.ingress[0].from`. What is no index between brackets belongs to the name.
pub(crate) fn steps(path: &str) -> Vec<Step<'_>> {
    let step = |part| {
        let indexed = |part: &'_ str| {
            let (name, rest) = part.split_once('[')?;
            let index = rest.strip_suffix(']')?.parse().ok()?;
            Some((name.len(), index))
        };
        match indexed(part) {
            Some((end, index)) => Step { name: part.get(..end).unwrap_or(part), index: Some(index) },
            None => Step { name: part, index: None },
        }
    };
    path.split('.').filter(|part| !part.is_empty()).map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_names_and_indexes() {
        let expected = [
            Step { name: "spec", index: None },
            Step { name: "ingress", index: Some(12) },
            Step { name: "from", index: None },
        ];
        assert_eq!(steps("spec.ingress[12].from"), expected);
        assert_eq!(steps(""), []);
        assert_eq!(steps("labels[a/b]"), [Step { name: "labels[a/b]", index: None }]);
    }
}
