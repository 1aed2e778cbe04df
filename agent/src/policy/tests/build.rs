//! Builders for policies, pods and rows, shared by the tables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::model::edge::Protocol;
use crate::model::endpoint::{Backend, Connection, Endpoint, Party, Pod, ServiceTarget};
use crate::model::facts::{ClusterFacts, ConnectionFacts};
use crate::model::identity::{IdentityParts, Interner, NamedPort};
use crate::model::labels::{Labels, NAMESPACE_NAME_LABEL};
use crate::model::object::{ObjectRef, WorkloadRef};
use crate::model::role::Roles;
use crate::model::scenario::Scenario;
use crate::model::verdict::{Judgement, UnknownReason};
use crate::policy::{Explanation, Judge, Policy, PolicyKind};

/// The address families that every row is judged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// 198.51.100.7 becomes 2001:db8:100::7: rows are written for IPv4 and hold for IPv6.
    pub(super) fn address(self, address: Ipv4Addr) -> IpAddr {
        let [_, _, net, host] = address.octets();
        let net = u16::from_str_radix(&net.to_string(), 16).unwrap();
        match self {
            Self::V4 => address.into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, u16::from(host)).into(),
        }
    }

    fn text(self, text: &str) -> String {
        match (self, text.parse::<IpNet>()) {
            (Self::V6, Ok(IpNet::V4(net))) if net.prefix_len() == 0 => "::/0".to_owned(),
            (Self::V6, Ok(IpNet::V4(net))) => {
                format!("{}/{}", self.address(net.addr()), net.prefix_len() + 96)
            }
            _ => text.to_owned(),
        }
    }

    fn blocks(self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(values) => values.iter_mut().for_each(|value| self.blocks(value)),
            Value::Object(fields) => fields.values_mut().for_each(|value| self.blocks(value)),
            _ => {}
        }
    }
}

/// A policy as the API has it.
pub(super) fn mk_policy(namespace: &str, name: &str, spec: Value) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

/// Reads a policy of the kind that it says, or else a NetworkPolicy.
pub(super) fn mk_read(policy: &Value) -> Arc<Policy> {
    let Some(kind) = policy["kind"].as_str() else {
        return Arc::new(Policy::from_network_policy(&serde_json::from_value(policy.clone()).unwrap()));
    };
    let version = policy["apiVersion"].as_str().unwrap_or_default();
    let known = |known: &&PolicyKind| {
        known.kind == kind && (version.is_empty() || known.api_versions.contains(&version))
    };
    let kind = PolicyKind::ALL.iter().find(known).unwrap_or_else(|| panic!("no kind {kind}"));
    Arc::new(kind.read(policy, &mut Vec::new()).unwrap_or_else(|fault| {
        let name = policy["metadata"]["name"].as_str().unwrap();
        let reference = match policy["metadata"]["namespace"].as_str() {
            Some(namespace) => ObjectRef::namespaced(kind.name, namespace, name),
            None => ObjectRef::cluster(kind.name, name),
        };
        Policy::unreadable(reference, fault)
    }))
}

/// The same policy with the directions exchanged.
fn mirrored(policy: &Value) -> Value {
    let mut policy = policy.clone();
    let spec = policy["spec"].as_object_mut().unwrap();
    let exchange = |rules: Option<Value>, from: &str, to: &str| {
        let mut rules = rules?;
        for rule in rules.as_array_mut()? {
            let rule = rule.as_object_mut()?;
            if let Some(peers) = rule.remove(from) {
                rule.insert(to.to_owned(), peers);
            }
        }
        Some(rules)
    };
    let (ingress, egress) = (spec.remove("ingress"), spec.remove("egress"));
    let types = spec.remove("policyTypes");
    for (name, rules) in
        [("egress", exchange(ingress, "from", "to")), ("ingress", exchange(egress, "to", "from"))]
    {
        if let Some(rules) = rules {
            spec.insert(name.to_owned(), rules);
        }
    }
    let types = types.map_or_else(|| vec!["Ingress".into()], |types| types.as_array().unwrap().clone());
    let other = |name: &Value| if name == "Ingress" { "Egress" } else { "Ingress" };
    spec.insert("policyTypes".to_owned(), types.iter().map(other).collect());
    policy
}

pub(super) fn mk_labels(text: &str) -> Labels {
    text.split(',').filter_map(|pair| pair.split_once('=')).collect()
}

/// A pod named `namespace/name` with labels as `a=b,c=d`; its namespace has the label `ns` besides its name.
pub(super) struct PodBuilder {
    parts: IdentityParts,
    pod: Pod,
}

pub(super) fn mk_pod(interner: &mut Interner, id: &str, labels: &str) -> PodBuilder {
    let (namespace, name) = id.split_once('/').unwrap();
    let labels = mk_labels(labels);
    let parts = IdentityParts {
        namespace: namespace.into(),
        namespace_labels: [("ns", namespace), (NAMESPACE_NAME_LABEL, namespace)].into_iter().collect(),
        labels: labels.clone(),
        service_account: "default".into(),
        named_ports: Vec::new(),
        roles: Roles::NONE,
    };
    let pod = Pod {
        namespace: namespace.into(),
        name: name.into(),
        uid: "".into(),
        identity: interner.intern(parts.clone()),
        workload: WorkloadRef::new("Pod", namespace, name),
        owners: Arc::from([]),
        selector: labels,
        node: None,
        host_network: false,
        addresses: Arc::from([]),
        from_template: false,
    };
    PodBuilder { parts, pod }
}

impl PodBuilder {
    pub(super) fn on(mut self, node: &str) -> Self {
        self.pod.node = Some(node.into());
        self
    }

    pub(super) fn host_network(mut self) -> Self {
        self.pod.host_network = true;
        self
    }

    pub(super) fn template(mut self) -> Self {
        self.pod.from_template = true;
        self
    }

    pub(super) fn role(mut self, roles: Roles) -> Self {
        self.parts.roles = roles;
        self
    }

    pub(super) fn account(mut self, name: &str) -> Self {
        self.parts.service_account = name.into();
        self
    }

    /// Its namespace has these labels too, as `a=b,c=d`.
    pub(super) fn in_namespace(mut self, labels: &str) -> Self {
        let more = mk_labels(labels);
        let all = self.parts.namespace_labels.iter().chain(more.iter());
        self.parts.namespace_labels = all.collect();
        self
    }

    pub(super) fn serves(mut self, name: &str, port: u16, protocol: Protocol) -> Self {
        self.parts.named_ports.push(NamedPort { name: name.into(), protocol, port });
        self
    }

    pub(super) fn at(mut self, addresses: &[IpAddr]) -> Self {
        self.pod.addresses = addresses.into();
        self
    }

    pub(super) fn done(mut self, interner: &mut Interner) -> Arc<Pod> {
        self.pod.identity = interner.intern(self.parts);
        Arc::new(self.pod)
    }
}

/// The pods that rows name. Those of x are on node-1, those of y on node-2.
pub(super) struct World {
    family: Family,
    pods: Vec<Arc<Pod>>,
}

impl World {
    pub(super) fn new(family: Family) -> Self {
        let mut interner = Interner::default();
        let i = &mut interner;
        let dns = Roles::CLUSTER_DNS;
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let builders = [
            mk_pod(i, "x/web", "app=web,tier=front").on("node-1"),
            mk_pod(i, "x/db", "app=db").on("node-1").serves("http", 8080, tcp).serves("http", 8081, udp),
            mk_pod(i, "x/plain", "").on("node-1"),
            mk_pod(i, "y/web", "app=web").on("node-2"),
            mk_pod(i, "y/db", "app=db").on("node-2").serves("http", 9090, tcp),
            mk_pod(i, "x/host", "app=web").on("node-1").host_network(),
            mk_pod(i, "y/host", "app=web").on("node-2").host_network(),
            mk_pod(i, "x/lost", "app=web"),
            mk_pod(i, "kube-system/dns", "k8s-app=kube-dns").on("node-2").role(dns),
            mk_pod(i, "y/prometheus", "app=prometheus").on("node-2").role(Roles::METRICS_SCRAPER),
            mk_pod(i, "y/traefik", "app=traefik").on("node-2").role(Roles::INGRESS_CONTROLLER),
            mk_pod(i, "x/replica", "app=web").template(),
            mk_pod(i, "x/pending", "app=db"),
            mk_pod(i, "x/dns", "k8s-app=kube-dns").on("node-1").role(dns),
        ];
        let mut pods = Vec::new();
        for (builder, host) in builders.into_iter().zip(11..) {
            let address = family.address(Ipv4Addr::new(198, 51, 100, host));
            let builder = if &*builder.pod.name == "pending" { builder } else { builder.at(&[address]) };
            pods.push(builder.done(&mut interner));
        }
        Self { family, pods }
    }

    pub(super) fn pod(&self, id: &str) -> Arc<Pod> {
        let found = self.pods.iter().find(|pod| format!("{}/{}", pod.namespace, pod.name) == id);
        Arc::clone(found.unwrap_or_else(|| panic!("no pod {id}")))
    }

    /// `x/web`, `node-1`, `outside` (203.0.113.7), another address outside, `unknown`, `hidden` (by source
    /// NAT), or `service x/db:8080 y/db:9090`.
    pub(super) fn party(&self, text: &str) -> Party {
        if let Some(backends) = text.strip_prefix("service") {
            let backend = |text: &str| {
                let (end, port) = text.rsplit_once(':').unwrap();
                Backend { party: self.party(end), port: port.parse().unwrap() }
            };
            let backends = backends.split_whitespace().map(backend).collect();
            let service = ServiceTarget { namespace: "x".into(), name: "svc".into(), backends };
            let address = Some(self.family.address(Ipv4Addr::new(192, 0, 2, 200)));
            return Party { address, endpoint: Endpoint::Service(Arc::new(service)) };
        }
        if let Some(number) = text.strip_prefix("node-") {
            let address = self.family.address(Ipv4Addr::new(192, 0, 2, number.parse().unwrap()));
            return Party { address: Some(address), endpoint: Endpoint::Node(text.into()) };
        }
        match text {
            "outside" => Party::external(self.family.address(Ipv4Addr::new(203, 0, 113, 7))),
            "unknown" => {
                let address = self.family.address(Ipv4Addr::new(198, 51, 100, 99));
                Party::unknown(Some(address), UnknownReason::AddressUnjoined)
            }
            "hidden" => {
                let address = self.family.address(Ipv4Addr::new(192, 0, 2, 1));
                Party::unknown(Some(address), UnknownReason::Snat)
            }
            _ => match text.parse() {
                Ok(address) => Party::external(self.family.address(address)),
                Err(_) => {
                    let pod = self.pod(text);
                    let address = pod.addresses.first().copied();
                    Party::pod(pod, address)
                }
            },
        }
    }
}

/// A row of a table: policies, a connection, and the verdicts it must get.
#[derive(Debug, Clone)]
pub(super) struct Row {
    says: &'static str,
    policies: Vec<Value>,
    from: String,
    to: String,
    probe: String,
    dialect: String,
    scenario: Scenario,
    mirror: bool,
    facts: Arc<ClusterFacts>,
    given: ConnectionFacts,
}

/// `policies` and then `from -> to port/protocol`.
pub(super) fn row(says: &'static str, policies: &[Value], ask: &str) -> Row {
    let (from, rest) = ask.split_once(" -> ").unwrap();
    let (to, probe) = rest.rsplit_once(' ').unwrap();
    Row {
        says,
        policies: policies.to_vec(),
        from: from.to_owned(),
        to: to.to_owned(),
        probe: probe.to_owned(),
        dialect: "standard".to_owned(),
        scenario: Scenario::Enforced,
        mirror: false,
        facts: Arc::default(),
        given: ConnectionFacts::NONE,
    }
}

impl Row {
    pub(super) fn dialect(mut self, dialect: &str) -> Self {
        self.dialect = dialect.to_owned();
        self
    }

    pub(super) fn scenario(mut self, scenario: Scenario) -> Self {
        self.scenario = scenario;
        self
    }

    pub(super) fn facts(mut self, facts: ClusterFacts) -> Self {
        self.facts = Arc::new(facts);
        self
    }

    pub(super) fn given(mut self, given: ConnectionFacts) -> Self {
        self.given = given;
        self
    }

    /// Also judged with the directions exchanged.
    pub(super) fn both_ways(mut self) -> Self {
        self.mirror = true;
        self
    }

    fn ask<T>(&self, family: Family, ask: impl FnOnce(&mut Judge, &Connection<'_>) -> T) -> T {
        let read = |policy: &Value| {
            let mut policy = policy.clone();
            family.blocks(&mut policy);
            mk_read(&policy)
        };
        let policies: Vec<Arc<Policy>> = self.policies.iter().map(read).collect();
        let world = World::new(family);
        let (initiator, responder) = (world.party(&self.from), world.party(&self.to));
        let (port, protocol) = self.probe.split_once('/').unwrap();
        let protocol = match (protocol.parse().unwrap(), family) {
            (Protocol::Icmp, Family::V6) => Protocol::Icmpv6,
            (protocol, _) => protocol,
        };
        let port = port.parse().unwrap();
        let connection = Connection { initiator: &initiator, responder: &responder, port, protocol };
        let dialect = self.dialect.parse().unwrap();
        let mut judge = Judge::with_facts(&policies, &self.facts, dialect, &self.scenario);
        ask(&mut judge, &connection)
    }

    pub(super) fn judgement(&self, family: Family) -> Judgement {
        self.ask(family, |judge, connection| judge.judge_given(connection, &self.given))
    }

    pub(super) fn explanation(&self, family: Family) -> Explanation {
        self.ask(family, |judge, connection| judge.explain_given(connection, &self.given))
    }

    fn must(&self, [egress, ingress]: [&str; 2]) {
        for family in Family::BOTH {
            let judgement = self.judgement(family);
            let found = [judgement.egress.verdict.as_str(), judgement.ingress.verdict.as_str()];
            assert_eq!(
                found,
                [egress, ingress],
                "{} (egress, ingress; {family:?})\n{}",
                self.says,
                self.explanation(family)
            );
        }
    }

    /// Judges the row in both families, and the other way round if it is for that.
    /// `wanted` is the verdict of ingress, where egress is allowed, or `egress, ingress`: `Deny, Allow`.
    pub(super) fn is(self, wanted: &str) {
        let (egress, ingress) = match wanted.split_once(", ") {
            Some(both) => both,
            None => ("Allow", wanted),
        };
        self.must([egress, ingress]);
        if self.mirror {
            let policies = self.policies.iter().map(mirrored).collect();
            let (from, to) = (self.to.clone(), self.from.clone());
            Self { policies, from, to, ..self }.must([ingress, egress]);
        }
    }
}
