//! Findings: what is wrong with a declared object, by the path of the field.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a finding means for the object that it was found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// The object is not in force: nothing is judged or muted by it.
    NotInForce,
    /// The object is in force, but not everything in it does what it seems to.
    Note,
}

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Finding {
    /// The path from the object's root: `spec.segments[0].members[1].ipBlock.cidr`.
    pub field: String,
    /// What is wrong with it, in words.
    pub message: String,
    pub effect: Effect,
}

impl Finding {
    /// A finding that takes the object out of force.
    pub fn not_in_force(field: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { field: field.into(), message: message.to_string(), effect: Effect::NotInForce }
    }

    /// A finding that leaves the object in force.
    pub fn note(field: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { field: field.into(), message: message.to_string(), effect: Effect::Note }
    }
}

/// Collects findings while an object is read.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    pub(crate) fn wrong(&mut self, field: impl Into<String>, message: impl fmt::Display) {
        self.0.push(Finding::not_in_force(field, message));
    }

    pub(crate) fn note(&mut self, field: impl Into<String>, message: impl fmt::Display) {
        self.0.push(Finding::note(field, message));
    }

    pub(crate) fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.0.extend(findings);
    }

    pub(crate) fn into_found(self) -> Vec<Finding> {
        self.0
    }

    /// One of the `known` values of a field by its name, or the default where the field is absent.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        field: &str,
        given: Option<&str>,
        known: &[(&str, T)],
        default: T,
    ) -> T {
        let Some(given) = given else { return default };
        if let Some((_, value)) = known.iter().find(|(name, _)| *name == given) {
            return *value;
        }
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        self.wrong(field, format_args!("\"{given}\" is none of {}", names.join(", ")));
        default
    }
}
