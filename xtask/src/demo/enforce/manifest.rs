//! Manifests as the translator reads them: pods with labels and addresses, namespaces, NetworkPolicies.
//!
//! Nothing here comes from the engine, on purpose: a mistake that both made would be seen by nobody. What is not
//! known here, a named port for one, is an error and never a guess.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

type Labels = BTreeMap<String, String>;

/// Where default-deny denies nothing: the cluster's DNS lives there.
const EXEMPT: &str = "kube-system";

/// Everything that the translation rests on.
#[derive(Debug, Clone, Default)]
pub struct Manifests {
    pods: Vec<Pod>,
    /// Labels by name.
    namespaces: BTreeMap<String, Labels>,
    pub policies: Vec<Policy>,
}

#[derive(Debug, Clone)]
struct Pod {
    namespace: String,
    labels: Labels,
    addresses: Vec<IpAddr>,
}

/// A NetworkPolicy. A field that is not here is an error.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    pub metadata: Metadata,
    pub spec: Spec,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Metadata {
    pub namespace: String,
    pub name: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    pub pod_selector: Selector,
    policy_types: Option<Vec<Direction>>,
    #[serde(default)]
    pub ingress: Vec<IngressRule>,
    #[serde(default)]
    pub egress: Vec<EgressRule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Direction {
    Egress,
    Ingress,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngressRule {
    #[serde(default)]
    pub from: Vec<Peer>,
    #[serde(default)]
    pub ports: Vec<Port>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressRule {
    #[serde(default)]
    pub to: Vec<Peer>,
    #[serde(default)]
    pub ports: Vec<Port>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Peer {
    pub pod_selector: Option<Selector>,
    pub namespace_selector: Option<Selector>,
    pub ip_block: Option<IpBlock>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpBlock {
    pub cidr: String,
    #[serde(default)]
    pub except: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    pub protocol: Option<String>,
    pub port: Option<u16>,
    pub end_port: Option<u16>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    #[serde(default)]
    match_labels: Labels,
    #[serde(default)]
    match_expressions: Vec<Expression>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expression {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Manifests {
    /// Reads all manifests of a folder.
    ///
    /// # Errors
    /// Where a file cannot be read, or holds a policy or pod that is not understood in full.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut manifests = Self::default();
        let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let file = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
            let text =
                fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            manifests.add_yaml(&text).with_context(|| format!("{}", file.display()))?;
        }
        Ok(manifests)
    }

    /// Adds what a YAML stream holds.
    ///
    /// # Errors
    /// Where it is no YAML, or a policy or pod of it is not understood in full.
    pub fn add_yaml(&mut self, text: &str) -> Result<()> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
        documents.into_iter().try_for_each(|document| self.add(document))
    }

    fn add(&mut self, document: Value) -> Result<()> {
        let text = |pointer| document.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let labels = |document: &Value| match document.pointer("/metadata/labels") {
            Some(labels) => Labels::deserialize(labels).context("labels"),
            None => Ok(Labels::new()),
        };
        match text("/kind").as_str() {
            "Pod" => {
                if document.pointer("/spec/hostNetwork").is_some() {
                    bail!("pod {namespace}/{name}: hostNetwork is not translated");
                }
                let entries = document.pointer("/status/podIPs").and_then(Value::as_array);
                let addresses = entries.into_iter().flatten().filter_map(|entry| entry["ip"].as_str());
                let addresses = addresses.map(str::parse).collect::<Result<_, _>>();
                let addresses = addresses.with_context(|| format!("pod {namespace}/{name}: podIPs"))?;
                self.pods.push(Pod { namespace, labels: labels(&document)?, addresses });
            }
            "Namespace" => {
                let mut labels = labels(&document)?;
                labels.insert("kubernetes.io/metadata.name".to_owned(), name.clone());
                self.namespaces.insert(name, labels);
            }
            "NetworkPolicy" => {
                let policy = Policy::deserialize(document);
                let policy = policy.with_context(|| format!("networkpolicy {namespace}/{name}"))?;
                self.policies.push(policy);
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds what `default-deny` stands for: a deny-all in every namespace but kube-system's, and DNS to the
    /// cluster's DNS allowed besides.
    ///
    /// # Errors
    /// Never in practice: where the policies made here are not understood.
    pub fn deny_by_default(&mut self) -> Result<()> {
        let namespaces: Vec<_> = self.namespaces.keys().filter(|name| *name != EXEMPT).cloned().collect();
        for namespace in namespaces {
            let policy = |name: &str, spec: Value| {
                let metadata = json!({"namespace": namespace, "name": name});
                json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec})
            };
            let deny = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
            let dns = json!({
                "podSelector": {},
                "policyTypes": ["Egress"],
                "egress": [{
                    "to": [{
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": EXEMPT}},
                        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
                    }],
                    "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
                }],
            });
            self.add(policy("default-deny", deny))?;
            self.add(policy("assumed-dns", dns))?;
        }
        Ok(())
    }

    /// The addresses of the pods that a policy selects.
    pub fn subjects(&self, policy: &Policy) -> Vec<IpAddr> {
        let namespace = &policy.metadata.namespace;
        self.addresses(|pod| pod.namespace == *namespace && policy.spec.pod_selector.matches(&pod.labels))
    }

    /// The addresses of the pods that a peer of a policy in `namespace` selects.
    pub fn peers(&self, namespace: &str, peer: &Peer) -> Vec<IpAddr> {
        let none = Labels::new();
        self.addresses(|pod| {
            let place = match &peer.namespace_selector {
                Some(selector) => selector.matches(self.namespaces.get(&pod.namespace).unwrap_or(&none)),
                None => pod.namespace == namespace,
            };
            place && peer.pod_selector.as_ref().is_none_or(|selector| selector.matches(&pod.labels))
        })
    }

    fn addresses(&self, wanted: impl Fn(&Pod) -> bool) -> Vec<IpAddr> {
        self.pods.iter().filter(|pod| wanted(pod)).flat_map(|pod| pod.addresses.iter().copied()).collect()
    }
}

impl Spec {
    /// Whether the policy isolates its pods in this direction. Without `policyTypes`: ingress always, egress if
    /// it has a rule.
    pub fn isolates(&self, direction: Direction) -> bool {
        match &self.policy_types {
            Some(types) => types.contains(&direction),
            None => direction == Direction::Ingress || !self.egress.is_empty(),
        }
    }
}

impl Selector {
    fn matches(&self, labels: &Labels) -> bool {
        let equal = self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value));
        equal
            && self.match_expressions.iter().all(|expression| {
                let value = labels.get(&expression.key);
                let listed = value.is_some_and(|value| expression.values.contains(value));
                match expression.operator {
                    Operator::In => listed,
                    Operator::NotIn => !listed,
                    Operator::Exists => value.is_some(),
                    Operator::DoesNotExist => value.is_none(),
                }
            })
    }
}
