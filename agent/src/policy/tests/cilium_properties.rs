//! Random policies of cilium.io, against an evaluator so simple that it is right by reading.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::build::{Family, World, mk_policy, mk_read};
use super::cilium::{mk_ccnp, mk_cnp};
use crate::model::edge::{Direction, Protocol};
use crate::model::endpoint::{Connection, Party};
use crate::model::facts::ClusterFacts;
use crate::model::scenario::Scenario;
use crate::model::verdict::Verdict;
use crate::policy::{Judge, Policy};

const ENDS: [&str; 6] = ["x/web", "x/db", "y/web", "y/db", "outside", "node-3"];

fn any_selector() -> impl Strategy<Value = Value> {
    let app = prop::option::of((select(vec!["app", "k8s:app", "any:app"]), select(vec!["web", "db"])));
    let namespace = prop::option::of(select(vec!["x", "y"]));
    (app, namespace).prop_map(|(app, namespace)| {
        let mut labels = serde_json::Map::new();
        labels.extend(app.map(|(key, value)| (key.to_owned(), value.into())));
        labels.extend(namespace.map(|name| ("k8s:io.kubernetes.pod.namespace".to_owned(), name.into())));
        json!({"matchLabels": labels})
    })
}

/// One list of peers with its name behind `from` and `to`, or none.
fn any_peers() -> impl Strategy<Value = Option<(&'static str, Value)>> {
    let list = |each: BoxedStrategy<Value>| prop::collection::vec(each, 0..3).prop_map(Value::from);
    let cidr = select(vec!["0.0.0.0/0", "198.51.100.0/24", "203.0.113.0/24", "192.0.2.0/24"]);
    let set = (cidr.clone(), any::<bool>()).prop_map(|(cidr, except)| match (cidr, except) {
        ("0.0.0.0/0", true) => json!({"cidr": cidr, "except": ["203.0.113.0/29"]}),
        _ => json!({"cidr": cidr}),
    });
    let entity = select(vec!["all", "none", "world", "cluster", "remote-node", "host", "kube-apiserver"]);
    prop_oneof![
        1 => Just(None),
        4 => list(any_selector().boxed()).prop_map(|list| Some(("Endpoints", list))),
        1 => list(cidr.prop_map(Value::from).boxed()).prop_map(|list| Some(("CIDR", list))),
        2 => list(set.boxed()).prop_map(|list| Some(("CIDRSet", list))),
        3 => list(entity.prop_map(Value::from).boxed()).prop_map(|list| Some(("Entities", list))),
    ]
}

fn any_ports() -> impl Strategy<Value = Option<Value>> {
    let port = (80u16..83, 0u16..2, select(vec![None, Some("TCP"), Some("UDP"), Some("ANY")]));
    let port = port.prop_map(|(port, more, protocol)| {
        json!({"port": port.to_string(), "endPort": if more == 0 { 0 } else { port + more }, "protocol": protocol})
    });
    let every = Just(json!({"port": "0", "protocol": "TCP"}));
    let ports = prop::collection::vec(prop_oneof![6 => port, 1 => every], 1..3);
    let rules = prop::collection::vec(ports.prop_map(|ports| json!({"ports": ports})), 0..3);
    prop::option::of(rules.prop_map(Value::from))
}

fn any_rule(ingress: bool) -> impl Strategy<Value = Value> {
    (any_peers(), any_ports()).prop_map(move |(peers, ports)| {
        let mut rule = json!({});
        if let Some((name, list)) = peers {
            rule[format!("{}{name}", if ingress { "from" } else { "to" })] = list;
        }
        if let Some(ports) = ports {
            rule["toPorts"] = ports;
        }
        rule
    })
}

fn any_spec() -> impl Strategy<Value = Value> {
    let rules = |ingress| prop::collection::vec(any_rule(ingress), 0..3);
    let subject = prop::option::of(select(vec!["web", "db"])).prop_map(|app| match app {
        Some(app) => json!({"matchLabels": {"app": app}}),
        None => json!({}),
    });
    let default = prop::option::of((prop::option::of(any::<bool>()), prop::option::of(any::<bool>())));
    (subject, rules(true), rules(true), rules(false), rules(false), default).prop_map(
        |(subject, ingress, ingress_deny, egress, egress_deny, default)| {
            json!({"endpointSelector": subject, "ingress": ingress, "ingressDeny": ingress_deny, "egress": egress,
                "egressDeny": egress_deny, "enableDefaultDeny": default.map(|(i, e)| json!({"ingress": i, "egress": e}))})
        },
    )
}

fn any_policies() -> impl Strategy<Value = Vec<Value>> {
    let policy = (any_spec(), any::<bool>());
    let np = prop::option::of(prop::option::of(80u16..83));
    (prop::collection::vec(policy, 0..4), np).prop_map(|(policies, np)| {
        let mut all = Vec::new();
        for (at, (spec, clusterwide)) in policies.into_iter().enumerate() {
            let name = format!("p{at}");
            all.push(if clusterwide { mk_ccnp(&name, spec) } else { mk_cnp(&name, spec) });
        }
        all.extend(np.map(|port| {
            let rules = port.map_or_else(|| json!([]), |port| json!([{"ports": [{"port": port}]}]));
            let types = json!(["Ingress", "Egress"]);
            mk_policy(
                "x",
                "np",
                json!({"podSelector": {}, "policyTypes": types, "ingress": rules, "egress": rules}),
            )
        }));
        all
    })
}

// ---- the reference ----

/// Whether a selector means a pod; `own` is the namespace that is implied.
fn selects(selector: &Value, party: &Party, own: Option<&str>) -> bool {
    let Some(pod) = party.as_pod() else { return false };
    let labels = selector["matchLabels"].as_object();
    let mut namespace = own;
    for (key, value) in labels.into_iter().flatten() {
        let value = value.as_str().unwrap();
        match key.rsplit_once(':').map_or(key.as_str(), |(_, key)| key) {
            "io.kubernetes.pod.namespace" => namespace = Some(value),
            key if pod.identity.labels.get(key) != Some(value) => return false,
            _ => {}
        }
    }
    namespace.is_none_or(|namespace| *pod.namespace == *namespace)
}

fn contains(cidr: &Value, party: &Party) -> bool {
    let (network, length) = cidr.as_str().unwrap().split_once('/').unwrap();
    let bits =
        |text: &str| u64::from(u32::from_be_bytes(text.parse::<std::net::Ipv4Addr>().unwrap().octets()));
    let shift = 32 - length.parse::<u32>().unwrap();
    bits(network) >> shift == bits(&party.address.unwrap().to_string()) >> shift
}

/// Whether one entry of one list of peers means the peer.
fn means(list: &str, entry: &Value, peer: &Party, own: Option<&str>) -> bool {
    let (is_pod, is_node) = (peer.as_pod().is_some(), peer.as_node().is_some());
    let is_outside = !is_pod && !is_node;
    match list {
        "Endpoints" => selects(entry, peer, own),
        "CIDR" => is_outside && contains(entry, peer),
        "CIDRSet" => {
            let excepts = entry["except"].as_array();
            is_outside
                && contains(&entry["cidr"], peer)
                && !excepts.into_iter().flatten().any(|e| contains(e, peer))
        }
        _ => match entry.as_str().unwrap() {
            "all" => true,
            "world" => is_outside,
            "cluster" => !is_outside,
            // The only node that is asked about is another one than the subject's.
            "remote-node" => is_node,
            _ => false,
        },
    }
}

fn rule_matches(rule: &Value, peer: &Party, c: &Connection<'_>, own: Option<&str>) -> bool {
    let mut lists = 0;
    for (name, entries) in rule.as_object().unwrap().iter().filter(|(name, _)| *name != "toPorts") {
        lists += 1;
        let name = name.trim_start_matches("from").trim_start_matches("to");
        if !entries.as_array().unwrap().iter().any(|entry| means(name, entry, peer, own)) {
            return false;
        }
    }
    let to_ports = rule["toPorts"].as_array().filter(|list| !list.is_empty());
    let Some(to_ports) = to_ports else { return lists > 0 };
    to_ports.iter().flat_map(|entry| entry["ports"].as_array().unwrap()).any(|entry| {
        let first: u64 = entry["port"].as_str().unwrap().parse().unwrap();
        let last = entry["endPort"].as_u64().filter(|end| *end != 0).unwrap_or(first);
        let protocol = entry["protocol"].as_str().filter(|name| *name != "ANY");
        let in_range = first == 0 || (first..=last).contains(&c.port.into());
        in_range && protocol.is_none_or(|name| name == c.protocol.as_str())
    })
}

fn reference(policies: &[Value], c: &Connection<'_>, egress: bool) -> Verdict {
    let (subject, peer) = if egress { (c.initiator, c.responder) } else { (c.responder, c.initiator) };
    let Some(pod) = subject.as_pod().filter(|_| subject != peer) else { return Verdict::Allow };
    let section = if egress { "egress" } else { "ingress" };
    let (mut isolated, mut allowed) = (false, false);
    for policy in policies {
        let spec = &policy["spec"];
        let own = policy["metadata"]["namespace"].as_str();
        if policy["kind"].is_null() {
            // The NetworkPolicy: for every pod of x.
            if &*pod.namespace == "x" {
                isolated = true;
                let port = &spec[section][0]["ports"][0]["port"];
                allowed |= c.protocol == Protocol::Tcp && *port == json!(c.port);
            }
            continue;
        }
        let lists = ["ingress", "ingressDeny", "egress", "egressDeny"];
        if lists.iter().all(|list| spec[list].as_array().unwrap().is_empty()) {
            continue;
        }
        if !selects(&spec["endpointSelector"], subject, own) {
            continue;
        }
        let (rules, denies) = (&spec[section], &spec[format!("{section}Deny")]);
        let (rules, denies) = (rules.as_array().unwrap(), denies.as_array().unwrap());
        if denies.iter().any(|rule| rule_matches(rule, peer, c, own)) {
            return Verdict::Deny;
        }
        let default = spec["enableDefaultDeny"][section].as_bool();
        isolated |= default.unwrap_or(!rules.is_empty() || !denies.is_empty());
        allowed |= rules.iter().any(|rule| rule_matches(rule, peer, c, own));
    }
    if isolated && !allowed { Verdict::Deny } else { Verdict::Allow }
}

fn judge(policies: &[Arc<Policy>], c: &Connection<'_>) -> [Verdict; 2] {
    let facts = Arc::new(ClusterFacts { api_server: Some(Vec::new()), ..ClusterFacts::default() });
    let dialect = "cilium".parse().unwrap();
    let judgement = Judge::with_facts(policies, &facts, dialect, &Scenario::Enforced).judge(c);
    Direction::BOTH.map(|direction| judgement.of(direction).verdict)
}

fn read(policies: &[Value]) -> Vec<Arc<Policy>> {
    policies.iter().map(mk_read).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn verdicts_are_those_of_the_reference(
        policies in any_policies(),
        (from, to) in (select(ENDS.to_vec()), select(ENDS.to_vec())),
        port in 79u16..84,
        protocol in select(vec![Protocol::Tcp, Protocol::Udp]),
        turn in 0usize..6,
    ) {
        let world = World::new(Family::V4);
        let (initiator, responder) = (world.party(from), world.party(to));
        let c = Connection { initiator: &initiator, responder: &responder, port, protocol };
        let mut read = read(&policies);
        let verdicts = judge(&read, &c);
        for (verdict, egress) in verdicts.into_iter().zip([true, false]) {
            prop_assert_eq!(verdict, reference(&policies, &c, egress), "{} to {}, egress: {}", from, to, egress);
        }
        if !read.is_empty() {
            let turn = turn % read.len();
            read.rotate_left(turn);
        }
        prop_assert_eq!(verdicts, judge(&read, &c), "the order in which policies are given means nothing");
    }

    #[test]
    fn one_more_rule_moves_verdicts_one_way_only(
        policies in any_policies(),
        (from, to) in (select(ENDS.to_vec()), select(ENDS.to_vec())),
        port in 79u16..84,
        (ingress, egress) in (any_rule(true), any_rule(false)),
    ) {
        let world = World::new(Family::V4);
        let (initiator, responder) = (world.party(from), world.party(to));
        let c = Connection { initiator: &initiator, responder: &responder, port, protocol: Protocol::Tcp };
        let before = judge(&read(&policies), &c);
        let Some(at) = policies.iter().position(|policy| !policy["kind"].is_null()) else { return Ok(()) };
        let with = |suffix: &str| {
            let mut policies = policies.clone();
            for (name, rule) in [("ingress", &ingress), ("egress", &egress)] {
                let section = format!("{name}{suffix}");
                policies[at]["spec"][section].as_array_mut().unwrap().push(rule.clone());
            }
            policies
        };
        let denying = judge(&read(&with("Deny")), &c);
        for (before, after) in before.into_iter().zip(denying) {
            prop_assert!(before == Verdict::Allow || after == Verdict::Deny, "a deny rule allows nothing");
        }
        let spec = &policies[at]["spec"];
        for (at, name) in ["egress", "ingress"].into_iter().enumerate() {
            let listed = |suffix: &str| !spec[format!("{name}{suffix}")].as_array().unwrap().is_empty();
            // In force already, and denying by default or not as it did.
            let lists = ["ingress", "ingressDeny", "egress", "egressDeny"];
            let in_force = lists.iter().any(|list| !spec[list].as_array().unwrap().is_empty());
            let unchanged = spec["enableDefaultDeny"][name].is_boolean() || listed("") || listed("Deny");
            if in_force && unchanged {
                let after = judge(&read(&with("")), &c)[at];
                prop_assert!(before[at] == Verdict::Deny || after == Verdict::Allow, "an allow rule denies nothing");
            }
        }
    }
}
