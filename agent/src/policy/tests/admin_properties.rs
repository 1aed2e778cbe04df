//! Random policies of policy.networking.k8s.io, against an evaluator so simple that it is right by reading.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::build::{Family, World, mk_policy, mk_read};
use crate::model::dialect::Dialect;
use crate::model::edge::{Direction, Protocol};
use crate::model::endpoint::{Connection, Party};
use crate::model::scenario::Scenario;
use crate::model::verdict::Verdict;
use crate::policy::{Judge, Policy};

const ENDS: [&str; 6] = ["x/web", "x/db", "y/web", "y/db", "outside", "node-3"];

fn any_labels(key: &'static str, values: [&'static str; 2]) -> impl Strategy<Value = Value> {
    prop_oneof![Just(json!({})), select(values.to_vec()).prop_map(move |v| json!({"matchLabels": {key: v}}))]
}

fn any_pods() -> impl Strategy<Value = Value> {
    let pods = (any_labels("ns", ["x", "y"]), any_labels("app", ["web", "db"]));
    let pods = pods.prop_map(|(n, p)| json!({"pods": {"namespaceSelector": n, "podSelector": p}}));
    prop_oneof![any_labels("ns", ["x", "y"]).prop_map(|n| json!({"namespaces": n})), pods]
}

fn any_peer(egress: bool) -> impl Strategy<Value = Value> {
    let networks = select(vec!["0.0.0.0/0", "198.51.100.0/28", "203.0.113.0/24", "192.0.2.3/32"]);
    let networks = networks.prop_map(|cidr| json!({"networks": [cidr]}));
    let rare =
        if egress { prop_oneof![networks, Just(json!({"nodes": {}}))].boxed() } else { any_pods().boxed() };
    // An empty one is of a newer kind.
    prop_oneof![6 => any_pods(), 3 => rare, 1 => Just(json!({}))]
}

fn any_rule(egress: bool, accept: &'static str) -> impl Strategy<Value = Value> {
    let peers = prop::collection::vec(any_peer(egress), 1..3);
    let ports = (80u16..83, 0u16..2).prop_map(|(start, more)| match more {
        0 => json!([{"number": start}]),
        _ => json!([{"range": {"start": start, "end": start + more}}]),
    });
    let ports = prop_oneof![Just(Value::Null), ports];
    (peers, ports, select(vec![accept, "Deny", "Pass"]), any::<bool>()).prop_map(
        move |(peers, ports, action, udp)| {
            let list = if egress { "to" } else { "from" };
            if accept == "Accept" {
                let protocol = if udp { "udp" } else { "tcp" };
                let entry = |port: &Value| json!({protocol: {"destinationPort": port}});
                let protocols = ports.as_array().map(|ports| ports.iter().map(entry).collect::<Vec<_>>());
                return json!({"action": action, list: peers, "protocols": protocols});
            }
            let protocol = if udp { "UDP" } else { "TCP" };
            let entry = |port: &Value| match &port["range"] {
                Value::Null => json!({"portNumber": {"protocol": protocol, "port": port["number"]}}),
                range => {
                    json!({"portRange": {"protocol": protocol, "start": range["start"], "end": range["end"]}})
                }
            };
            let ports = ports.as_array().map(|ports| ports.iter().map(entry).collect::<Vec<_>>());
            json!({"action": action, list: peers, "ports": ports})
        },
    )
}

fn any_policy() -> impl Strategy<Value = Value> {
    let spec = |accept: &'static str| {
        let rules = |egress| prop::collection::vec(any_rule(egress, accept), 0..4);
        (any_pods(), rules(false), rules(true), 0i64..3)
    };
    let new =
        (spec("Accept"), select(vec!["Admin", "Baseline"])).prop_map(|((subject, i, e, priority), tier)| {
            json!({"kind": "ClusterNetworkPolicy", "spec":
            {"tier": tier, "priority": priority, "subject": subject, "ingress": i, "egress": e}})
        });
    let old = spec("Allow").prop_map(|(subject, i, e, priority)| {
        json!({"kind": "AdminNetworkPolicy", "spec":
            {"priority": priority, "subject": subject, "ingress": i, "egress": e}})
    });
    prop_oneof![2 => new, 1 => old]
}

fn any_policies() -> impl Strategy<Value = Vec<Value>> {
    let isolates = any_labels("app", ["web", "db"]).prop_map(|pods| {
        let rules = json!([{"ports": [{"port": 80}]}]);
        let spec = json!({"podSelector": pods, "policyTypes": ["Ingress", "Egress"], "ingress": rules, "egress": rules});
        mk_policy("x", "np", spec)
    });
    (prop::collection::vec(any_policy(), 0..6), prop::option::of(isolates)).prop_map(|(mut policies, np)| {
        for (at, policy) in policies.iter_mut().enumerate() {
            policy["metadata"] = json!({"name": format!("p{at}")});
        }
        policies.extend(np);
        policies
    })
}

// ---- the reference ----

fn labels_match(selector: &Value, get: impl Fn(&str) -> Option<String>) -> bool {
    let wanted = selector["matchLabels"].as_object();
    wanted.into_iter().flatten().all(|(key, value)| get(key).as_deref() == value.as_str())
}

fn pod_matches(peer: &Value, party: &Party) -> bool {
    let Some(pod) = party.as_pod() else { return false };
    let in_namespace = |selector: &Value| {
        labels_match(selector, |key| pod.identity.namespace_labels.get(key).map(str::to_owned))
    };
    if peer["namespaces"].is_object() {
        return in_namespace(&peer["namespaces"]);
    }
    let pods = &peer["pods"];
    pods.is_object()
        && in_namespace(&pods["namespaceSelector"])
        && labels_match(&pods["podSelector"], |key| pod.identity.labels.get(key).map(str::to_owned))
}

fn peer_matches(peer: &Value, party: &Party) -> bool {
    let in_network = |cidr: &Value| {
        let (network, length) = cidr.as_str().unwrap().split_once('/').unwrap();
        let bits =
            |text: &str| u64::from(u32::from_be_bytes(text.parse::<std::net::Ipv4Addr>().unwrap().octets()));
        let shift = 32 - length.parse::<u32>().unwrap();
        bits(network) >> shift == bits(&party.address.unwrap().to_string()) >> shift
    };
    pod_matches(peer, party)
        || peer["nodes"].is_object() && party.as_node().is_some()
        || peer["networks"].as_array().is_some_and(|networks| networks.iter().any(in_network))
}

fn port_matches(rule: &Value, port: u64, protocol: &str) -> bool {
    let matches = |range: &Value, number: &Value| match number.as_u64() {
        Some(number) => number == port,
        None => (range["start"].as_u64().unwrap()..=range["end"].as_u64().unwrap()).contains(&port),
    };
    match (rule["protocols"].as_array(), rule["ports"].as_array()) {
        (None, None) => true,
        (Some(protocols), _) => protocols.iter().any(|entry| {
            let entry = &entry[protocol.to_lowercase()]["destinationPort"];
            entry.is_object() && matches(&entry["range"], &entry["number"])
        }),
        (_, Some(ports)) => ports.iter().any(|entry| {
            let (number, range) = (&entry["portNumber"], &entry["portRange"]);
            let own = number["protocol"].as_str().or(range["protocol"].as_str());
            own == Some(protocol) && matches(range, &number["port"])
        }),
    }
}

/// What one policy says: an action, or nothing.
fn policy_says(
    policy: &Value,
    subject: &Party,
    peer: &Party,
    port: u64,
    protocol: &str,
    egress: bool,
) -> Option<String> {
    if !pod_matches(&policy["spec"]["subject"], subject) {
        return None;
    }
    let (rules, peers) = if egress { ("egress", "to") } else { ("ingress", "from") };
    for rule in policy["spec"][rules].as_array().unwrap() {
        let action = rule["action"].as_str().unwrap().replace("Accept", "Allow");
        let peers = rule[peers].as_array().unwrap();
        if peers.iter().any(|peer| peer.as_object().unwrap().is_empty()) {
            if action == "Allow" {
                continue;
            }
            return Some("Deny".to_owned());
        }
        if peers.iter().any(|wanted| peer_matches(wanted, peer)) && port_matches(rule, port, protocol) {
            return Some(action);
        }
    }
    None
}

/// What a tier may say: of policies of equal priority, any may be the first. Empty is nothing.
fn tier_says(policies: &[&Value], says: impl Fn(&Value) -> Option<String>) -> Vec<String> {
    let of_priority = |priority: i64| -> Vec<String> {
        let equal = policies.iter().filter(|policy| policy["spec"]["priority"] == priority);
        equal.filter_map(|policy| says(policy)).collect()
    };
    (0..3).map(of_priority).find(|actions| !actions.is_empty()).unwrap_or_default()
}

/// The verdict, or `Unknown` where an open order decides.
fn reference(policies: &[Value], c: &Connection<'_>, egress: bool) -> Verdict {
    let (subject, peer) = if egress { (c.initiator, c.responder) } else { (c.responder, c.initiator) };
    let Some(pod) = subject.as_pod().filter(|_| subject != peer) else { return Verdict::Allow };
    let tier = |wanted: &str| {
        let is_in = |policy: &&Value| match policy["kind"].as_str() {
            Some("AdminNetworkPolicy") => wanted == "Admin",
            _ => policy["spec"]["tier"] == wanted,
        };
        let policies: Vec<&Value> = policies.iter().filter(is_in).collect();
        tier_says(&policies, |policy| {
            policy_says(policy, subject, peer, c.port.into(), c.protocol.as_str(), egress)
        })
    };
    let isolates = policies.iter().filter(|policy| policy["kind"].is_null()).any(|np| {
        let labels = |key: &str| pod.identity.labels.get(key).map(str::to_owned);
        &*pod.namespace == "x" && labels_match(&np["spec"]["podSelector"], labels)
    });
    let np_allows = c.port == 80 && c.protocol == Protocol::Tcp;
    let baseline = || {
        let actions = tier("Baseline");
        let denies = |action: &String| action == "Deny";
        if actions.is_empty() { vec![true] } else { actions.iter().map(|action| !denies(action)).collect() }
    };
    let below = || if isolates { vec![np_allows] } else { baseline() };
    let admin = tier("Admin");
    let mut allowed: Vec<bool> =
        admin.iter().filter(|action| *action != "Pass").map(|a| a == "Allow").collect();
    if admin.is_empty() || admin.iter().any(|action| action == "Pass") {
        allowed.extend(below());
    }
    match (allowed.contains(&true), allowed.contains(&false)) {
        (true, true) => Verdict::Unknown,
        (_, true) => Verdict::Deny,
        _ => Verdict::Allow,
    }
}

fn judge(policies: &[Arc<Policy>], c: &Connection<'_>) -> [Verdict; 2] {
    let judgement = Judge::new(policies, Dialect::STANDARD, &Scenario::Enforced).judge(c);
    Direction::BOTH.map(|direction| judgement.of(direction).verdict)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn verdicts_are_those_of_the_reference(
        policies in any_policies(),
        from in select(ENDS.to_vec()),
        to in select(ENDS.to_vec()),
        port in 79u16..84,
        protocol in select(vec![Protocol::Tcp, Protocol::Udp]),
        turn in 0usize..6,
    ) {
        let world = World::new(Family::V4);
        let (initiator, responder) = (world.party(from), world.party(to));
        let c = Connection { initiator: &initiator, responder: &responder, port, protocol };
        let mut read: Vec<Arc<Policy>> = policies.iter().map(mk_read).collect();
        let verdicts = judge(&read, &c);
        for (verdict, egress) in verdicts.into_iter().zip([true, false]) {
            let wanted = reference(&policies, &c, egress);
            prop_assert_eq!(verdict, wanted, "{} to {}, egress: {}", from, to, egress);
        }
        if !read.is_empty() {
            let turn = turn % read.len();
            read.rotate_left(turn);
        }
        prop_assert_eq!(verdicts, judge(&read, &c), "the order in which policies are given means nothing");
    }
}
