//! Label sets: small, immutable, shared.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// The label with which the API server marks every namespace with its own name.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Label(Arc<str>, Arc<str>);

impl Label {
    pub(super) const fn new(key: Arc<str>, value: Arc<str>) -> Self {
        Self(key, value)
    }

    pub(super) fn as_pair(&self) -> (&str, &str) {
        (&self.0, &self.1)
    }
}

/// A set of labels, sorted by key, cheap to clone and to compare.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Labels(Arc<[Label]>);

impl Labels {
    /// Of labels that are sorted by key, without any key twice.
    pub(super) const fn from_sorted(labels: Arc<[Label]>) -> Self {
        Self(labels)
    }

    /// Whether both are one copy in memory.
    pub fn is_one_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The value of the label `key`, if it is set (it may be empty).
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|label| (*label.0).cmp(key)).ok()?;
        self.0.get(at).map(|label| &*label.1)
    }

    /// All labels, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(Label::as_pair)
    }

    /// Whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// This set with `key` set to `value`.
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Self {
        let others = self.iter().filter(|(k, _)| *k != key);
        others.chain([(key, value)]).collect()
    }
}

impl<K: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(K, V)> for Labels {
    /// The last value wins where a key is given twice.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> Self {
        let mut labels: Vec<Label> =
            labels.into_iter().map(|(key, value)| Label(key.into(), value.into())).collect();
        labels.reverse();
        labels.sort_by(|a, b| a.0.cmp(&b.0));
        labels.dedup_by(|later, first| later.0 == first.0);
        Self(labels.into())
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, value)) in self.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_found_whatever_their_order_and_the_last_value_wins() {
        let labels: Labels =
            [("tier", "db"), ("app", "a"), ("app", "b"), ("empty", "")].into_iter().collect();
        assert_eq!(labels.get("app"), Some("b"));
        assert_eq!(labels.get("empty"), Some(""));
        assert_eq!(labels.get("none"), None);
        assert_eq!(labels.to_string(), "app=b,empty=,tier=db");
        assert_eq!(labels.with("app", "c").get("app"), Some("c"));
    }
}
