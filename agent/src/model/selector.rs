//! Label selectors as the Kubernetes API has them, checked once and then matched without parsing.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::intern;
use super::labels::Labels;

/// A conjunction of requirements on labels. Without any requirement it matches every label set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// One requirement on one label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// The label's key.
    pub key: Arc<str>,
    /// What is required of its value.
    pub operator: Operator,
}

/// What a requirement asks of a label. A missing key satisfies `NotIn` and `DoesNotExist` and nothing else
/// (Kubernetes API: `LabelSelectorRequirement`; apimachinery `labels.Requirement.Matches`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Operator {
    In(Vec<Arc<str>>),
    NotIn(Vec<Arc<str>>),
    Exists,
    DoesNotExist,
}

/// Why the API server would refuse a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("matchLabels.{key}: {reason}")]
    MatchLabels { key: String, reason: String },
    #[error("matchExpressions[{index}].key: {reason}")]
    Key { index: usize, reason: String },
    #[error("matchExpressions[{index}].operator: \"{operator}\" is none of In, NotIn, Exists, DoesNotExist")]
    Operator { index: usize, operator: String },
    #[error("matchExpressions[{index}].values: {reason}")]
    Values { index: usize, reason: String },
}

impl Selector {
    /// The selector that matches every label set.
    pub const fn everything() -> Self {
        Self { requirements: Vec::new() }
    }

    /// From requirements that are known to be valid.
    pub fn from_requirements(requirements: Vec<Requirement>) -> Self {
        Self { requirements }
    }

    /// A selector that asks for exactly these labels, as Services and `matchLabels` do.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let requirements = labels
            .into_iter()
            .map(|(key, value)| Requirement {
                key: intern::string(key),
                operator: Operator::In(vec![intern::string(value)]),
            })
            .collect();
        Self { requirements }
    }

    /// Whether every requirement holds for `labels`.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether it matches every label set.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The requirements, all of which must hold.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl Requirement {
    /// Whether the requirement holds for `labels`.
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.iter().any(|v| **v == *value)),
            Operator::NotIn(values) => !value.is_some_and(|value| values.iter().any(|v| **v == *value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl TryFrom<&LabelSelector> for Selector {
    type Error = SelectorError;

    /// Checks what the API server checks (apimachinery `ValidateLabelSelector`).
    fn try_from(selector: &LabelSelector) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            check_label(key, value)
                .map_err(|reason| SelectorError::MatchLabels { key: key.clone(), reason })?;
            let operator = Operator::In(vec![intern::string(value)]);
            requirements.push(Requirement { key: intern::string(key), operator });
        }
        for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
            check_key(&expression.key).map_err(|reason| SelectorError::Key { index, reason })?;
            let given = expression.values.as_deref().unwrap_or_default();
            let operator = match expression.operator.as_str() {
                "In" => Operator::In(values(given, index, true)?),
                "NotIn" => Operator::NotIn(values(given, index, true)?),
                "Exists" => values(given, index, false).map(|_| Operator::Exists)?,
                "DoesNotExist" => values(given, index, false).map(|_| Operator::DoesNotExist)?,
                other => return Err(SelectorError::Operator { index, operator: other.to_owned() }),
            };
            requirements.push(Requirement { key: intern::string(&expression.key), operator });
        }
        // Most have one: room for four would be three quarters empty.
        requirements.shrink_to_fit();
        Ok(Self { requirements })
    }
}

/// The values of an expression; they must be there for `In` and `NotIn`, and must not be for the others.
fn values(given: &[String], index: usize, wanted: bool) -> Result<Vec<Arc<str>>, SelectorError> {
    let fault = |reason: String| SelectorError::Values { index, reason };
    if wanted && given.is_empty() {
        return Err(fault("must have at least one value for In and NotIn".to_owned()));
    }
    if !wanted && !given.is_empty() {
        return Err(fault("must have no value for Exists and DoesNotExist".to_owned()));
    }
    for value in given {
        check_value(value).map_err(fault)?;
    }
    Ok(given.iter().map(|value| intern::string(value)).collect())
}

fn check_label(key: &str, value: &str) -> Result<(), String> {
    check_key(key)?;
    check_value(value)
}

/// A label's key: an optional DNS subdomain and "/", then a name of at most 63 characters
/// (apimachinery `IsQualifiedName`).
pub fn check_key(key: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if let Some(prefix) = prefix {
        let labels_ok = prefix.split('.').all(|part| {
            let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            !part.is_empty() && part.chars().all(inner) && !part.starts_with('-') && !part.ends_with('-')
        });
        if prefix.len() > 253 || !labels_ok {
            return Err(format!("\"{prefix}\" is not a DNS subdomain"));
        }
    }
    if name.is_empty() || !is_name(name) {
        return Err(format!(
            "\"{key}\" is not a label key: 1 to 63 of A-Z a-z 0-9 - _ . that begin and end with a letter or digit"
        ));
    }
    Ok(())
}

/// A label's value: empty, or like the name in a key (apimachinery `IsValidLabelValue`).
pub fn check_value(value: &str) -> Result<(), String> {
    if value.is_empty() || is_name(value) {
        return Ok(());
    }
    Err(format!(
        "\"{value}\" is not a label value: at most 63 of A-Z a-z 0-9 - _ . that begin and end with a letter or digit"
    ))
}

fn is_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() <= 63 && bytes.iter().copied().all(inner) && ends(bytes.first()) && ends(bytes.last())
}

impl fmt::Display for Selector {
    /// As `kubectl -l` writes it; `everything` where nothing is required.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            return f.write_str("everything");
        }
        for (at, requirement) in self.requirements.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            let key = &requirement.key;
            match &requirement.operator {
                Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", values.join(","))?,
                Operator::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                Operator::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                Operator::Exists => write!(f, "{key}")?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    fn mk_expression(key: &str, operator: &str, values: &[&str]) -> LabelSelector {
        let values = (!values.is_empty()).then(|| values.iter().map(|&v| v.to_owned()).collect());
        let requirement =
            LabelSelectorRequirement { key: key.to_owned(), operator: operator.to_owned(), values };
        LabelSelector { match_expressions: Some(vec![requirement]), ..LabelSelector::default() }
    }

    #[test]
    fn a_missing_key_matches_not_in_and_does_not_exist_only() {
        let labels: Labels = [("app", "web")].into_iter().collect();
        for (operator, values, missing, present) in [
            ("In", &["web"][..], false, true),
            ("NotIn", &["web"][..], true, false),
            ("NotIn", &["db"][..], true, true),
            ("Exists", &[][..], false, true),
            ("DoesNotExist", &[][..], true, false),
        ] {
            let on_missing = Selector::try_from(&mk_expression("none", operator, values)).unwrap();
            let on_present = Selector::try_from(&mk_expression("app", operator, values)).unwrap();
            assert_eq!(on_missing.matches(&labels), missing, "{operator} {values:?} on a missing key");
            assert_eq!(on_present.matches(&labels), present, "{operator} {values:?} on app=web");
        }
    }

    #[test]
    fn what_the_api_server_refuses_is_an_error_that_names_the_field() {
        for (selector, message) in [
            (mk_expression("app", "In", &[]), "matchExpressions[0].values: must have at least one value"),
            (mk_expression("app", "Exists", &["x"]), "matchExpressions[0].values: must have no value"),
            (mk_expression("app", "Equals", &["x"]), "matchExpressions[0].operator: \"Equals\" is none of"),
            (mk_expression("-app", "Exists", &[]), "matchExpressions[0].key: \"-app\" is not a label key"),
            (
                mk_expression("A_B.c/d", "Exists", &[]),
                "matchExpressions[0].key: \"A_B.c\" is not a DNS subdomain",
            ),
            (
                mk_expression("app", "In", &["a b"]),
                "matchExpressions[0].values: \"a b\" is not a label value",
            ),
        ] {
            let error = Selector::try_from(&selector).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn is_shown_as_kubectl_writes_it() {
        let selector = Selector::from_requirements(vec![
            Requirement { key: "app".into(), operator: Operator::In(vec!["web".into()]) },
            Requirement { key: "tier".into(), operator: Operator::NotIn(vec!["db".into(), "ai".into()]) },
            Requirement { key: "old".into(), operator: Operator::DoesNotExist },
        ]);
        assert_eq!(selector.to_string(), "app=web,tier notin (db,ai),!old");
        assert_eq!(Selector::everything().to_string(), "everything");
    }
}
