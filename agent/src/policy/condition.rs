//! Conditions on an identity: who a policy selects, and which pods are its peers. Found out once for each identity.

use std::fmt;
use std::sync::Arc;

use crate::model::facts::ClusterFacts;
use crate::model::identity::Identity;
use crate::model::labels::Labels;
use crate::model::selector::Selector;
use crate::model::verdict::Fact;

use super::fault::{Content, Field};
use super::mesh::Member;
use super::tri::Tri;

/// A condition on everything that a policy can see of a pod. `All` of nothing holds for every pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Condition {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    /// The pod is in the policy's own namespace.
    OwnNamespace,
    Namespace(Arc<str>),
    NamespaceLabels(Selector),
    PodLabels(Selector),
    /// One value, where a selector of Kubernetes could not ask for it.
    Value(Key, Test),
    InMesh(Member),
    Unknown(Field),
}

/// What conditions look at: a pod, or something else that has labels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bearer<'a> {
    pub(crate) namespace: &'a Arc<str>,
    pub(crate) namespace_labels: &'a Labels,
    pub(crate) labels: &'a Labels,
    pub(crate) service_account: &'a Arc<str>,
}

impl<'a> From<&'a Identity> for Bearer<'a> {
    fn from(identity: &'a Identity) -> Self {
        Self {
            namespace: &identity.namespace,
            namespace_labels: &identity.namespace_labels,
            labels: &identity.labels,
            service_account: &identity.service_account,
        }
    }
}

/// Where a value is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Label(Arc<str>),
    NamespaceLabel(Arc<str>),
    NamespaceName,
    ServiceAccount,
    /// A label of the pod's service account; with the field that asks, since not every source knows it.
    ServiceAccountLabel(Arc<str>, Field),
    /// What the pod's cluster is called.
    Cluster(Field),
}

/// What is asked of a value. A value that is not there fulfils none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Test {
    Exists,
    In(Vec<Arc<str>>),
    Contains(Arc<str>),
    StartsWith(Arc<str>),
    EndsWith(Arc<str>),
}

impl Test {
    pub(crate) fn holds(&self, value: Option<&str>) -> bool {
        let Some(value) = value else { return false };
        match self {
            Self::Exists => true,
            Self::In(values) => values.iter().any(|wanted| **wanted == *value),
            Self::Contains(part) => value.contains(&**part),
            Self::StartsWith(part) => value.starts_with(&**part),
            Self::EndsWith(part) => value.ends_with(&**part),
        }
    }
}

impl Condition {
    pub(crate) const fn everything() -> Self {
        Self::All(Vec::new())
    }

    /// Whether it holds whatever the identity.
    pub(crate) fn is_everything(&self) -> bool {
        match self {
            Self::All(all) => all.iter().all(Self::is_everything),
            Self::PodLabels(selector) | Self::NamespaceLabels(selector) => selector.is_everything(),
            _ => false,
        }
    }

    /// Whether the labels of namespaces could change what it says.
    pub(crate) fn asks_for_namespace_labels(&self) -> bool {
        match self {
            Self::All(terms) | Self::Any(terms) => terms.iter().any(Self::asks_for_namespace_labels),
            Self::Not(inner) => inner.asks_for_namespace_labels(),
            Self::NamespaceLabels(_) | Self::Value(Key::NamespaceLabel(_), _) => true,
            _ => false,
        }
    }

    /// Whether it asks for pods' labels alone, as a `podSelector` does.
    pub(crate) const fn is_about_pods(&self) -> bool {
        matches!(self, Self::PodLabels(_))
    }

    pub(crate) fn pod_labels(selector: Content<Selector>) -> Self {
        selector.map_or_else(Self::Unknown, Self::PodLabels)
    }

    pub(crate) fn namespace_labels(selector: Content<Selector>) -> Self {
        selector.map_or_else(Self::Unknown, Self::NamespaceLabels)
    }

    /// With the policy's own namespace put in.
    pub(crate) fn in_namespace(&self, own: Option<&Content<Arc<str>>>) -> Self {
        let each = |list: &[Self]| list.iter().map(|condition| condition.in_namespace(own)).collect();
        match self {
            Self::All(all) => Self::All(each(all)),
            Self::Any(any) => Self::Any(each(any)),
            Self::Not(inner) => Self::Not(Box::new(inner.in_namespace(own))),
            Self::OwnNamespace => match own {
                Some(Ok(namespace)) => Self::Namespace(Arc::clone(namespace)),
                Some(Err(field)) => Self::Unknown(Field::clone(field)),
                // A cluster-wide policy's own namespace is all of them.
                None => Self::everything(),
            },
            other => other.clone(),
        }
    }

    /// Whether it holds for a pod, or what stands for one.
    pub(crate) fn holds(&self, bearer: Bearer<'_>, facts: &ClusterFacts) -> Tri {
        match self {
            Self::All(all) => Tri::all(all, |condition| condition.holds(bearer, facts)),
            Self::Any(any) => Tri::any(any, |condition| condition.holds(bearer, facts)),
            Self::Not(inner) => !inner.holds(bearer, facts),
            // `in_namespace` leaves none of these.
            Self::OwnNamespace => Tri::No,
            Self::Namespace(name) => (name == bearer.namespace).into(),
            Self::NamespaceLabels(selector) => selector.matches(bearer.namespace_labels).into(),
            Self::PodLabels(selector) => selector.matches(bearer.labels).into(),
            Self::Value(key, test) => key.value(bearer, facts, |value| test.holds(value)),
            Self::InMesh(member) => member.holds(bearer),
            Self::Unknown(field) => Tri::field(field),
        }
    }
}

fn present(value: &str) -> Option<&str> {
    Some(value).filter(|value| !value.is_empty())
}

impl Key {
    fn value(&self, bearer: Bearer<'_>, facts: &ClusterFacts, test: impl Fn(Option<&str>) -> bool) -> Tri {
        let missing = |field: &Field, fact| Tri::field(&Field::lacking(Arc::clone(field.path()), fact));
        match self {
            Self::Label(key) => test(bearer.labels.get(key)).into(),
            Self::NamespaceLabel(key) => test(bearer.namespace_labels.get(key)).into(),
            // What stands for a pod may be in no namespace.
            Self::NamespaceName => test(present(bearer.namespace)).into(),
            Self::ServiceAccount => test(present(bearer.service_account)).into(),
            Self::ServiceAccountLabel(key, field) => {
                let account = (Arc::clone(bearer.namespace), Arc::clone(bearer.service_account));
                match facts.service_account_labels.as_ref().map(|known| known.get(&account)) {
                    Some(Some(labels)) => test(labels.get(key)).into(),
                    Some(None) | None => missing(field, Fact::ServiceAccountLabels),
                }
            }
            Self::Cluster(field) => match &facts.cluster_name {
                Some(name) => test(Some(name)).into(),
                None => missing(field, Fact::ClusterName),
            },
        }
    }
}

impl fmt::Display for Condition {
    /// A namespace by its name, labels as `kubectl -l` writes them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, items: &[Self], between: &str, none: &str| match items {
            [] => f.write_str(none),
            [only] => only.fmt(f),
            items => {
                for (at, item) in items.iter().enumerate() {
                    write!(f, "{}", if at == 0 { "" } else { between })?;
                    match item {
                        Self::All(_) | Self::Any(_) => write!(f, "({item})")?,
                        _ => item.fmt(f)?,
                    }
                }
                Ok(())
            }
        };
        match self {
            Self::All(all) => list(f, all, " and ", "everything"),
            Self::Any(any) => list(f, any, " or ", "nothing"),
            Self::Not(inner) => match &**inner {
                Self::All(_) | Self::Any(_) => write!(f, "not ({inner})"),
                _ => write!(f, "not {inner}"),
            },
            Self::OwnNamespace => f.write_str("its own namespace"),
            Self::Namespace(name) => f.write_str(name),
            Self::NamespaceLabels(selector) | Self::PodLabels(selector) => selector.fmt(f),
            Self::Value(key, test) => write!(f, "{key} {test}"),
            Self::InMesh(member) => member.fmt(f),
            Self::Unknown(_) => f.write_str("unreadable"),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(key) => f.write_str(key),
            Self::NamespaceLabel(key) => write!(f, "namespace's {key}"),
            Self::NamespaceName => f.write_str("namespace"),
            Self::ServiceAccount => f.write_str("service account"),
            Self::ServiceAccountLabel(key, _) => write!(f, "service account's {key}"),
            Self::Cluster(_) => f.write_str("cluster"),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => f.write_str("is set"),
            Self::In(values) => match &**values {
                [only] => write!(f, "is {only}"),
                values => write!(f, "in ({})", values.join(",")),
            },
            Self::Contains(part) => write!(f, "contains {part}"),
            Self::StartsWith(part) => write!(f, "starts with {part}"),
            Self::EndsWith(part) => write!(f, "ends with {part}"),
        }
    }
}
