//! Label and field selectors, as far as tests use them.

use serde_json::Value;

/// What a request selects. Empty selects everything.
#[derive(Debug, Clone, Default)]
pub(super) struct Selectors {
    pub(super) namespace: Option<String>,
    pub(super) labels: String,
    pub(super) fields: String,
}

impl Selectors {
    pub(super) fn select(&self, object: &Value) -> bool {
        let in_namespace =
            self.namespace.as_deref().is_none_or(|namespace| object["metadata"]["namespace"] == namespace);
        in_namespace
            && terms(&self.labels).all(|term| matches(term, |key| object["metadata"]["labels"][key].as_str()))
            && terms(&self.fields).all(|term| matches(term, |path| field(object, path)))
    }
}

fn terms(selector: &str) -> impl Iterator<Item = &str> {
    selector.split(',').filter(|term| !term.is_empty())
}

fn matches<'a>(term: &str, value: impl Fn(&str) -> Option<&'a str>) -> bool {
    if let Some((key, expected)) = term.split_once("!=") {
        return value(key).unwrap_or_default() != expected;
    }
    match term.split_once('=') {
        Some((key, expected)) => value(key).unwrap_or_default() == expected.trim_start_matches('='),
        None => value(term).is_some(),
    }
}

fn field<'a>(object: &'a Value, path: &str) -> Option<&'a str> {
    object.pointer(&format!("/{}", path.replace('.', "/")))?.as_str()
}
