//! Selectors of endpoints: labels with a source before their key, the namespace implied where none is named.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::Reader;
use super::peers::entity;
use crate::model::selector::{Operator, Requirement, Selector, check_key, check_value};
use crate::policy::condition::{Condition, Key, Test};
use crate::policy::fault::{Content, Field};
use crate::policy::spec::Peer;

/// What a key asks for (cilium, pkg/labels and pkg/k8s/apis/cilium.io).
#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Namespace,
    NamespaceLabel(String),
    ServiceAccount,
    Cluster,
    PodLabel(String),
    /// `reserved:host`
    Reserved(String),
    /// A source that pods have no labels of.
    Foreign,
    /// Cilium keeps no such label of pods, unless it is told to.
    Dropped,
    /// Labels that stand for addresses.
    Cidr,
}

/// One requirement of a selector.
#[derive(Debug, Clone)]
struct Ask {
    subject: Subject,
    operator: Operator,
    /// The source named in front: `k8s`; empty where there is none.
    source: String,
    /// Of `matchLabels`.
    is_label: bool,
    path: String,
}

const NAMESPACE: &str = "io.kubernetes.pod.namespace";
const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";
const SERVICE_ACCOUNT: &str = "io.cilium.k8s.policy.serviceaccount";
const CLUSTER: &str = "io.cilium.k8s.policy.cluster";

/// Whether Cilium leaves a pod's label out of identities by default (Cilium docs, limiting identity-relevant labels).
fn is_dropped(key: &str) -> bool {
    const PREFIXES: [&str; 9] = [
        "io.kubernetes",
        "kubernetes.io",
        "k8s.io",
        "pod-template-generation",
        "pod-template-hash",
        "controller-revision-hash",
        "annotation",
        "controller-uid",
        "etcd_node",
    ];
    PREFIXES.iter().any(|prefix| key.starts_with(prefix)) || key.contains("beta.kubernetes.io")
}

fn subject(source: &str, key: &str) -> Subject {
    match source {
        "" | "any" | "k8s" => match key {
            NAMESPACE => Subject::Namespace,
            SERVICE_ACCOUNT => Subject::ServiceAccount,
            CLUSTER => Subject::Cluster,
            _ => match key.strip_prefix(NAMESPACE_LABELS) {
                Some(label) => Subject::NamespaceLabel(label.to_owned()),
                None if is_dropped(key) => Subject::Dropped,
                None => Subject::PodLabel(key.to_owned()),
            },
        },
        "reserved" => Subject::Reserved(key.to_owned()),
        "cidr" => Subject::Cidr,
        _ => Subject::Foreign,
    }
}

/// The source and the key of `k8s:app`.
fn split(key: &str) -> (&str, &str) {
    key.split_once(':').unwrap_or(("", key))
}

/// Those that a missing value fulfils, turned into those that it does not.
fn positive(operator: &Operator) -> (Test, bool) {
    match operator {
        Operator::In(values) => (Test::In(values.clone()), true),
        Operator::Exists => (Test::Exists, true),
        Operator::NotIn(values) => (Test::In(values.clone()), false),
        Operator::DoesNotExist => (Test::Exists, false),
    }
}

fn requirement(key: &str, operator: &Operator) -> Selector {
    Selector::from_requirements(vec![Requirement { key: key.into(), operator: operator.clone() }])
}

const fn never() -> Condition {
    Condition::Any(Vec::new())
}

impl Ask {
    /// What it asks of a pod.
    fn condition(&self) -> Condition {
        let value = |key| {
            let (test, wanted) = positive(&self.operator);
            let condition = Condition::Value(key, test);
            if wanted { condition } else { Condition::Not(Box::new(condition)) }
        };
        match &self.subject {
            Subject::Namespace => match &self.operator {
                Operator::In(values) if values.len() == 1 => {
                    values.first().map_or_else(never, |name| Condition::Namespace(Arc::clone(name)))
                }
                Operator::Exists => Condition::everything(),
                Operator::DoesNotExist => never(),
                _ => value(Key::NamespaceName),
            },
            Subject::NamespaceLabel(key) => Condition::NamespaceLabels(requirement(key, &self.operator)),
            Subject::PodLabel(key) => Condition::PodLabels(requirement(key, &self.operator)),
            Subject::ServiceAccount => value(Key::ServiceAccount),
            Subject::Cluster => value(Key::Cluster(Field::from(self.path.as_str()))),
            Subject::Reserved(_) | Subject::Foreign | Subject::Cidr => match self.operator {
                Operator::In(_) | Operator::Exists => never(),
                Operator::NotIn(_) | Operator::DoesNotExist => Condition::everything(),
            },
            Subject::Dropped => Condition::Unknown(Field::unsupported(self.path.as_str())),
        }
    }

    const fn is_about_namespace(&self) -> bool {
        matches!(self.subject, Subject::Namespace | Subject::NamespaceLabel(_))
    }

    /// What it asks of anyone, where the selector is not for pods alone.
    fn peer(&self) -> Peer {
        let (_, wanted) = positive(&self.operator);
        let peer = match &self.subject {
            // Reserved labels have no value.
            Subject::Reserved(_) if matches!(&self.operator, Operator::In(v) | Operator::NotIn(v) if !v.iter().any(|v| v.is_empty())) => {
                Peer::nobody()
            }
            Subject::Reserved(name) => {
                let unsupported = || Peer::Unknown(Field::unsupported(self.path.as_str()));
                entity(name, &self.path)
                    .filter(|_| name != "all" && name != "cluster")
                    .unwrap_or_else(unsupported)
            }
            Subject::Cidr => Peer::Unknown(Field::unsupported(self.path.as_str())),
            _ => {
                let operator = match &self.operator {
                    Operator::In(values) | Operator::NotIn(values) => Operator::In(values.clone()),
                    Operator::Exists | Operator::DoesNotExist => Operator::Exists,
                };
                let pods = Self { operator, ..self.clone() }.condition();
                Peer::Pods { namespaces: Condition::everything(), pods }
            }
        };
        if wanted { peer } else { Peer::Not(Box::new(peer)) }
    }
}

/// All of them; labels that are asked for one by one are one selector.
fn all(conditions: Vec<Condition>) -> Condition {
    let (mut pods, mut namespaces, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for condition in conditions {
        match condition {
            Condition::PodLabels(selector) => pods.extend(selector.requirements().iter().cloned()),
            Condition::NamespaceLabels(selector) => {
                namespaces.extend(selector.requirements().iter().cloned())
            }
            other => others.push(other),
        }
    }
    if !pods.is_empty() {
        others.push(Condition::PodLabels(Selector::from_requirements(pods)));
    }
    if !namespaces.is_empty() {
        others.push(Condition::NamespaceLabels(Selector::from_requirements(namespaces)));
    }
    match others.len() {
        1 => others.pop().unwrap_or_else(Condition::everything),
        _ => Condition::All(others),
    }
}

impl Reader {
    /// Whom a policy is about. In a CiliumNetworkPolicy, pods of its own namespace, whatever the selector says of it.
    pub(super) fn endpoint_selector(&mut self, selector: &LabelSelector, path: &str) -> Condition {
        if let Some(field) = self.unknown.take(path) {
            return Condition::Unknown(field);
        }
        let asks = match self.asks(selector, path) {
            Ok(asks) => asks,
            Err(field) => return Condition::Unknown(field),
        };
        let mut conditions = Vec::new();
        for ask in &asks {
            if self.namespaced && ask.is_label && ask.subject == Subject::Namespace && ask.source == "k8s" {
                // Taken out by Cilium, and replaced by the policy's own.
                self.note(ask.path.as_str(), "does nothing: the selector is for the policy's own namespace");
                continue;
            }
            conditions.push(ask.condition());
        }
        all(conditions)
    }

    /// Whom an entry of `fromEndpoints` or `toEndpoints` means.
    pub(super) fn endpoints(&mut self, selector: &LabelSelector, path: &str) -> Peer {
        let asks = match self.asks(selector, path) {
            Ok(asks) => asks,
            Err(field) => return Peer::Unknown(field),
        };
        if asks.iter().any(|ask| matches!(ask.subject, Subject::Reserved(_) | Subject::Cidr)) {
            // No namespace is implied then.
            let peers: Vec<Peer> = asks.iter().map(Ask::peer).collect();
            return match <[Peer; 1]>::try_from(peers) {
                Ok([only]) => only,
                Err(peers) => Peer::All(peers),
            };
        }
        let (namespaces, pods): (Vec<&Ask>, Vec<&Ask>) =
            asks.iter().partition(|ask| ask.is_about_namespace());
        let namespaces = match &*namespaces {
            [] if self.namespaced => Condition::OwnNamespace,
            asks => all(asks.iter().map(|ask| ask.condition()).collect()),
        };
        Peer::Pods { namespaces, pods: all(pods.iter().map(|ask| ask.condition()).collect()) }
    }

    /// Labels of something else than pods: the source in front of a key means nothing.
    pub(super) fn node_selector(&mut self, selector: &LabelSelector, path: &str) -> Content<Selector> {
        let requirements = self.requirements(selector, path)?;
        let plain = |(key, operator, ..): (String, Operator, bool, String)| Requirement {
            key: split(&key).1.into(),
            operator,
        };
        Ok(Selector::from_requirements(requirements.into_iter().map(plain).collect()))
    }

    fn asks(&mut self, selector: &LabelSelector, path: &str) -> Content<Vec<Ask>> {
        let mut asks = Vec::new();
        for (key, operator, is_label, path) in self.requirements(selector, path)? {
            let (source, name) = split(&key);
            let subject = subject(source, name);
            if subject == Subject::Dropped {
                let message = format!(
                    "Cilium leaves the label {name} out of identities unless it is told to keep it: whether it is there \
                     is not known"
                );
                self.note(path.as_str(), message);
            }
            asks.push(Ask { subject, operator, source: source.to_owned(), is_label, path });
        }
        Ok(asks)
    }

    /// The requirements with their keys as they are given, whether they are of `matchLabels`, and where they are.
    fn requirements(
        &mut self,
        selector: &LabelSelector,
        path: &str,
    ) -> Content<Vec<(String, Operator, bool, String)>> {
        let mut found = Vec::new();
        let values = |values: &[String]| values.iter().map(|value| value.as_str().into()).collect();
        for (key, value) in selector.match_labels.iter().flatten() {
            let path = format!("{path}.matchLabels.{key}");
            self.check(key, [value], &path)?;
            found.push((key.clone(), Operator::In(vec![value.as_str().into()]), true, path));
        }
        for (at, expression) in selector.match_expressions.iter().flatten().enumerate() {
            let path = format!("{path}.matchExpressions[{at}]");
            let given = expression.values.as_deref().unwrap_or_default();
            self.check(&expression.key, given, &path)?;
            let operator = match (expression.operator.as_str(), given) {
                ("In", [_, ..]) => Operator::In(values(given)),
                ("NotIn", [_, ..]) => Operator::NotIn(values(given)),
                ("Exists", []) => Operator::Exists,
                ("DoesNotExist", []) => Operator::DoesNotExist,
                ("In" | "NotIn", []) => {
                    let message = "must have at least one value for In and NotIn";
                    return Err(self.faults.add(format!("{path}.values"), message));
                }
                ("Exists" | "DoesNotExist", _) => {
                    let message = "must have no value for Exists and DoesNotExist";
                    return Err(self.faults.add(format!("{path}.values"), message));
                }
                (other, _) => {
                    let message = format!("\"{other}\" is none of In, NotIn, Exists, DoesNotExist");
                    return Err(self.faults.add(format!("{path}.operator"), message));
                }
            };
            found.push((expression.key.clone(), operator, false, path));
        }
        Ok(found)
    }

    fn check<'a>(
        &mut self,
        key: &str,
        values: impl IntoIterator<Item = &'a String>,
        path: &str,
    ) -> Content<()> {
        let (source, name) = split(key);
        // Other sources have keys of their own: `cidr:192.0.2.0/24`.
        let checked =
            if matches!(source, "" | "any" | "k8s" | "reserved") { check_name(name) } else { Ok(()) };
        let checked = checked.and_then(|()| values.into_iter().try_for_each(|value| check_value(value)));
        checked.map_err(|message| self.faults.add(path, message))
    }
}

/// A key as Kubernetes has it; that of a namespace's label has more in front of it, and may have a slash of its own.
fn check_name(name: &str) -> Result<(), String> {
    check_key(name.strip_prefix(NAMESPACE_LABELS).unwrap_or(name))
}
