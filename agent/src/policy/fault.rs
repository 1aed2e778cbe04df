//! Faults: what of a policy could not be read, and where.

use std::fmt;
use std::sync::Arc;

/// A place of a policy that the API server would refuse, or that its reader did not understand.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Fault {
    /// The path from the object's root: `spec.ingress[0].from[1].ipBlock.cidr`.
    pub field: String,
    /// What is wrong with it, in words.
    pub message: String,
}

/// The path of a field whose content is unknown.
pub(crate) type Field = Arc<str>;

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
