//! Values as API types, with every error and every unknown field by its path.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Why a value is not of an API type: the field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct TypeFault {
    /// `spec.containers[0].ports[1].containerPort`; empty for the whole.
    pub field: String,
    pub message: String,
}

/// Reads a value as an API type, and collects the paths of fields that the type does not have.
///
/// # Errors
/// If a field is of another type than the API's, or a required one is missing.
pub fn typed<T: DeserializeOwned>(value: &Value, unknown: &mut Vec<String>) -> Result<T, TypeFault> {
    let mut found = None;
    tracked(value, unknown, &mut |deserializer| {
        found = Some(erased_serde::deserialize::<T>(deserializer)?);
        Ok(())
    })?;
    found.ok_or_else(|| TypeFault { field: String::new(), message: "is empty".to_owned() })
}

/// Lets `read` deserialise a value, following the path that it is at.
///
/// Not generic: the trees of API types are large, and each would be compiled once more for every deserialiser
/// that it is read through (this file alone took minutes).
fn tracked(
    value: &Value,
    unknown: &mut Vec<String>,
    read: &mut dyn FnMut(&mut dyn erased_serde::Deserializer<'_>) -> Result<(), erased_serde::Error>,
) -> Result<(), TypeFault> {
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(value, &mut track);
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(path_text(&path));
    let deserializer = serde_ignored::Deserializer::new(deserializer, &mut note);
    let read = read(&mut <dyn erased_serde::Deserializer<'_>>::erase(deserializer));
    read.map_err(|error| {
        let field = track.path().to_string();
        let field = if field == "." { String::new() } else { field };
        TypeFault { field, message: error.to_string() }
    })
}

/// `spec.ingress[0].from`, as everywhere else.
fn path_text(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", path_text(parent)),
        Path::Map { parent, key } => match path_text(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            path_text(parent)
        }
    }
}

/// Takes the unknown fields out that may change what the object means; those of its metadata and status stay.
pub fn deciding(unknown: &mut Vec<String>) -> Vec<String> {
    let decides = |field: &str| !field.starts_with("metadata.") && !field.starts_with("status");
    let (deciding, rest) = std::mem::take(unknown).into_iter().partition(|field| decides(field));
    *unknown = rest;
    deciding
}
