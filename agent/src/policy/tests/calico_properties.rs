//! Random policies of Calico, tiers, sets and NetworkPolicies, against an evaluator so simple that it is right by
//! reading.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::build::{Family, World, mk_policy, mk_read};
use super::calico::mk;
use crate::model::dialect::Dialect;
use crate::model::edge::{Direction, Protocol};
use crate::model::endpoint::{Connection, Party};
use crate::model::scenario::Scenario;
use crate::model::verdict::Verdict;
use crate::policy::{Judge, Policy};

const ENDS: [&str; 7] = ["x/web", "x/db", "x/plain", "y/web", "y/db", "outside", "node-3"];
const NETS: [&str; 4] = ["0.0.0.0/0", "198.51.100.0/28", "203.0.113.0/24", "192.0.2.3/32"];
const SELECTORS: [&str; 5] = ["app == 'web'", "app != 'web'", "!has(app)", "all()", "role == 'set'"];
const NAMESPACES: [&str; 4] = ["ns == 'x'", "ns != 'x'", "all()", "global()"];

fn maybe(texts: &[&'static str]) -> impl Strategy<Value = Value> + use<> {
    let texts = texts.to_vec();
    prop_oneof![Just(Value::Null), select(texts).prop_map(Value::from)]
}

fn any_entity() -> impl Strategy<Value = Value> {
    let nets = || {
        let nets = select(NETS.to_vec()).prop_map(|net| json!([net]));
        prop_oneof![3 => Just(Value::Null), 1 => nets]
    };
    let not = prop_oneof![3 => Just(Value::Null), 1 => select(SELECTORS.to_vec()).prop_map(Value::from)];
    (maybe(&SELECTORS), maybe(&NAMESPACES), not, nets(), nets()).prop_map(|(s, n, not, nets, not_nets)| {
        json!({"selector": s, "namespaceSelector": n, "notSelector": not, "nets": nets, "notNets": not_nets})
    })
}

fn any_rule(egress: bool) -> impl Strategy<Value = Value> {
    let ports = select(vec![json!(null), json!([80]), json!(["80:81"]), json!(["82:83", 80])]);
    let own = prop_oneof![4 => Just(Value::Null), 1 => select(SELECTORS[..4].to_vec()).prop_map(Value::from)];
    let action = select(vec!["Allow", "Deny", "Pass", "Log"]);
    (action, any_entity(), own, ports, any::<bool>(), any::<bool>()).prop_map(
        move |(action, mut other, own, ports, negated, udp)| {
            let mut own = json!({"selector": own});
            let protocol = if ports.is_null() { Value::Null } else { json!(if udp { "UDP" } else { "TCP" }) };
            let destination = if egress { &mut other } else { &mut own };
            destination[if negated { "notPorts" } else { "ports" }] = ports;
            let (source, destination) = if egress { (own, other) } else { (other, own) };
            json!({"action": action, "protocol": protocol, "source": source, "destination": destination})
        },
    )
}

fn any_policy() -> impl Strategy<Value = Value> {
    let rules = |egress| prop::collection::vec(any_rule(egress), 0..4);
    let types =
        select(vec![json!(null), json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])]);
    let order = select(vec![json!(null), json!(1), json!(1), json!(2000)]);
    let tier = select(vec!["default", "one", "two"]);
    (
        any::<bool>(),
        maybe(&SELECTORS[..4]),
        maybe(&NAMESPACES[..3]),
        types,
        (order, tier),
        rules(false),
        rules(true),
    )
        .prop_map(|(global, selector, namespaces, types, (order, tier), ingress, egress)| {
            let mut spec = json!({"selector": selector, "types": types, "order": order, "tier": tier,
                "ingress": ingress, "egress": egress});
            if global {
                spec["namespaceSelector"] = namespaces;
            }
            mk(
                if global { "GlobalNetworkPolicy" } else { "NetworkPolicy" },
                if global { "p" } else { "x/p" },
                spec,
            )
        })
}

fn any_policies() -> impl Strategy<Value = Vec<Value>> {
    let np = select(vec![json!({}), json!({"matchLabels": {"app": "db"}})]).prop_map(|pods| {
        let rules = json!([{"ports": [{"port": 80}]}]);
        let types = json!(["Ingress", "Egress"]);
        mk_policy(
            "x",
            "np",
            json!({"podSelector": pods, "policyTypes": types, "ingress": rules, "egress": rules}),
        )
    });
    let tier = |name: &'static str| {
        let orders = vec![json!(null), json!(1), json!(2), json!(2_000_000)];
        (select(orders), select(vec!["Deny", "Pass"])).prop_map(move |(order, action)| {
            mk("Tier", name, json!({"order": order, "defaultAction": action}))
        })
    };
    let set = (any::<bool>(), select(NETS[1..].to_vec())).prop_map(|(global, net)| {
        let (kind, name) = if global { ("GlobalNetworkSet", "g") } else { ("NetworkSet", "x/n") };
        let mut set = mk(kind, name, json!({"nets": [net]}));
        set["metadata"]["labels"] = json!({"role": "set"});
        set
    });
    let policies = prop::collection::vec(any_policy(), 0..5);
    (policies, tier("one"), tier("two"), prop::option::of(np), prop::option::of(set)).prop_map(
        |(mut policies, one, two, np, set)| {
            for (at, policy) in policies.iter_mut().enumerate() {
                policy["metadata"]["name"] = format!("p{at}").into();
            }
            policies.extend([Some(one), Some(two), np, set].into_iter().flatten());
            policies
        },
    )
}

// ---- the reference ----

/// What has labels: a pod, or a set.
struct Labelled {
    app: Option<String>,
    role: Option<String>,
    namespace: Option<String>,
}

fn of_pod(party: &Party) -> Option<Labelled> {
    let pod = party.as_pod()?;
    let label = |key: &str| pod.identity.labels.get(key).map(str::to_owned);
    Some(Labelled { app: label("app"), role: label("role"), namespace: Some(pod.namespace.to_string()) })
}

/// The few selectors that the random policies have.
fn selects(selector: &str, labelled: &Labelled) -> bool {
    let namespace = labelled.namespace.as_deref();
    match selector {
        "app == 'web'" => labelled.app.as_deref() == Some("web"),
        "app != 'web'" => labelled.app.as_deref() != Some("web"),
        "!has(app)" => labelled.app.is_none(),
        "role == 'set'" => labelled.role.as_deref() == Some("set"),
        "ns == 'x'" => namespace == Some("x"),
        // Sets of these tests are in namespaces whose labels are given.
        "ns != 'x'" => namespace != Some("x"),
        "all()" => true,
        other => panic!("{other}"),
    }
}

fn in_net(net: &str, party: &Party) -> bool {
    let (network, length) = net.split_once('/').unwrap();
    let bits =
        |text: &str| u64::from(u32::from_be_bytes(text.parse::<std::net::Ipv4Addr>().unwrap().octets()));
    let shift = 32 - length.parse::<u32>().unwrap();
    bits(network) >> shift == bits(&party.address.unwrap().to_string()) >> shift
}

struct Reference<'a> {
    policies: &'a [Value],
    subject: &'a Party,
    peer: &'a Party,
    port: u64,
    protocol: &'static str,
    egress: bool,
}

impl Reference<'_> {
    /// Whether a pod or a set that stands for the party fulfils a condition.
    fn any_endpoint(&self, party: &Party, holds: impl Fn(&Labelled) -> bool) -> bool {
        let sets =
            self.policies.iter().filter(|policy| policy["kind"].as_str().unwrap_or("").ends_with("Set"));
        let mut sets = sets.filter(|set| in_net(set["spec"]["nets"][0].as_str().unwrap(), party));
        let of_set = |set: &Value| Labelled {
            app: None,
            role: Some("set".to_owned()),
            namespace: set["metadata"]["namespace"].as_str().map(str::to_owned),
        };
        of_pod(party).is_some_and(|pod| holds(&pod)) || sets.any(|set| holds(&of_set(set)))
    }

    fn entity(&self, entity: &Value, policy: &Value, party: &Party) -> bool {
        let own = policy["metadata"]["namespace"].as_str();
        let [selector, namespaces, not] =
            ["selector", "namespaceSelector", "notSelector"].map(|field| entity[field].as_str());
        let stays = own.is_some() && namespaces.is_none() && (selector.is_some() || not.is_some());
        let in_namespace = |labelled: &Labelled| match namespaces {
            Some("all()") => labelled.namespace.is_some(),
            Some("global()") => labelled.namespace.is_none(),
            Some(selector) => selects(selector, labelled),
            None => !stays || labelled.namespace.as_deref() == own,
        };
        let positive = |labelled: &Labelled| {
            in_namespace(labelled) && selector.is_none_or(|selector| selects(selector, labelled))
        };
        let asked = stays || selector.is_some() || namespaces.is_some();
        (!asked || self.any_endpoint(party, positive))
            && !not.is_some_and(|not| self.any_endpoint(party, |labelled| selects(not, labelled)))
            && entity["nets"].as_array().is_none_or(|nets| in_net(nets[0].as_str().unwrap(), party))
            && !entity["notNets"].as_array().is_some_and(|nets| in_net(nets[0].as_str().unwrap(), party))
    }

    fn rule(&self, rule: &Value, policy: &Value) -> bool {
        let ends = if self.egress { [self.subject, self.peer] } else { [self.peer, self.subject] };
        // Of its own end, a rule here has a selector at most, which is about the pod.
        let own = &rule[if self.egress { "source" } else { "destination" }]["selector"];
        let other = if self.egress { (&rule["destination"], ends[1]) } else { (&rule["source"], ends[0]) };
        let pod = of_pod(self.subject).unwrap();
        let within = |port: &Value| match port.as_str().and_then(|range| range.split_once(':')) {
            Some((first, last)) => (first.parse().unwrap()..=last.parse().unwrap()).contains(&self.port),
            None => port.as_u64() == Some(self.port),
        };
        let listed = |field: &str| Some(rule["destination"][field].as_array()?.iter().any(within));
        own.as_str().is_none_or(|own| selects(own, &pod))
            && self.entity(other.0, policy, other.1)
            && rule["protocol"].as_str().is_none_or(|protocol| protocol == self.protocol)
            && listed("ports").unwrap_or(true)
            && !listed("notPorts").unwrap_or(false)
    }

    fn applies(&self, policy: &Value) -> bool {
        let spec = &policy["spec"];
        let pod = of_pod(self.subject).unwrap();
        let has = |field: &str| spec[field].as_array().is_some_and(|rules| !rules.is_empty());
        let typed = match spec["types"].as_array() {
            Some(types) => types.contains(&json!(if self.egress { "Egress" } else { "Ingress" })),
            None if self.egress => has("egress"),
            None => has("ingress") || !has("egress"),
        };
        let own = policy["metadata"]["namespace"].as_str();
        typed
            && own.is_none_or(|own| pod.namespace.as_deref() == Some(own))
            && spec["selector"].as_str().is_none_or(|selector| selects(selector, &pod))
            && spec["namespaceSelector"].as_str().is_none_or(|selector| selects(selector, &pod))
    }

    /// What the tier says: true to allow, false to deny, nothing to go on.
    fn tier(&self, name: &str, action: &str) -> Option<bool> {
        let number = |order: &Value| order.as_f64().unwrap_or(f64::INFINITY);
        let mut policies: Vec<(f64, String, &Value)> = Vec::new();
        for policy in self.policies {
            if policy["spec"]["tier"] == name && self.applies(policy) {
                let name = format!("{name}.{}", policy["metadata"]["name"].as_str().unwrap());
                policies.push((number(&policy["spec"]["order"]), name, policy));
            }
            let np = policy["kind"].is_null() && name == "default";
            let pod = self.subject.as_pod().unwrap();
            let app = policy["spec"]["podSelector"]["matchLabels"]["app"].as_str();
            if np
                && &*pod.namespace == "x"
                && app.is_none_or(|app| pod.identity.labels.get("app") == Some(app))
            {
                policies.push((1000.0, "knp".to_owned(), policy));
            }
        }
        policies.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        for (_, _, policy) in &policies {
            if policy["kind"].is_null() {
                if self.port == 80 && self.protocol == "TCP" {
                    return Some(true);
                }
                continue;
            }
            for rule in policy["spec"][if self.egress { "egress" } else { "ingress" }].as_array().unwrap() {
                match rule["action"].as_str().unwrap() {
                    "Allow" if self.rule(rule, policy) => return Some(true),
                    "Deny" if self.rule(rule, policy) => return Some(false),
                    "Pass" if self.rule(rule, policy) => return None,
                    _ => {}
                }
            }
        }
        (!policies.is_empty() && action == "Deny").then_some(false)
    }

    fn verdict(&self) -> Verdict {
        if self.subject.as_pod().is_none() || self.subject == self.peer {
            return Verdict::Allow;
        }
        let mut tiers = vec![(1_000_000.0, "default", "Deny")];
        for tier in self.policies.iter().filter(|policy| policy["kind"] == "Tier") {
            let order = tier["spec"]["order"].as_f64().unwrap_or(f64::INFINITY);
            tiers.push((
                order,
                tier["metadata"]["name"].as_str().unwrap(),
                tier["spec"]["defaultAction"].as_str().unwrap(),
            ));
        }
        tiers.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(b.1)));
        let said = tiers.iter().find_map(|(_, name, action)| self.tier(name, action));
        if said == Some(false) { Verdict::Deny } else { Verdict::Allow }
    }
}

fn judge(
    policies: &[Arc<Policy>],
    facts: &Arc<crate::model::facts::ClusterFacts>,
    c: &Connection<'_>,
) -> [Verdict; 2] {
    let judgement = Judge::with_facts(policies, facts, Dialect::STANDARD, &Scenario::Enforced).judge(c);
    Direction::BOTH.map(|direction| judgement.of(direction).verdict)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn verdicts_are_those_of_the_reference(
        policies in any_policies(),
        from in select(ENDS.to_vec()),
        to in select(ENDS.to_vec()),
        port in 79u16..84,
        protocol in select(vec![Protocol::Tcp, Protocol::Udp]),
        turn in 0usize..9,
    ) {
        let world = World::new(Family::V4);
        let (initiator, responder) = (world.party(from), world.party(to));
        let c = Connection { initiator: &initiator, responder: &responder, port, protocol };
        let mut read: Vec<Arc<Policy>> = policies.iter().map(mk_read).collect();
        for policy in &read {
            prop_assert_eq!(policy.faults(), &[]);
        }
        let labels = |name: &str| (name.into(), [("ns", name)].into_iter().collect());
        let facts = Arc::new(crate::model::facts::ClusterFacts {
            namespace_labels: Some(["x", "y"].map(labels).into_iter().collect()),
            ..Default::default()
        });
        let verdicts = judge(&read, &facts, &c);
        for (verdict, egress) in verdicts.into_iter().zip([true, false]) {
            let (subject, peer) = if egress { (&initiator, &responder) } else { (&responder, &initiator) };
            let protocol = protocol.as_str();
            let wanted = Reference { policies: &policies, subject, peer, port: port.into(), protocol, egress };
            prop_assert_eq!(verdict, wanted.verdict(), "{} to {}, egress: {}", from, to, egress);
        }
        let turn = turn % read.len();
        read.rotate_left(turn);
        prop_assert_eq!(verdicts, judge(&read, &facts, &c), "the order in which policies are given means nothing");
    }
}
