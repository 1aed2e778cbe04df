//! Random clusters and policies, against an evaluator so simple that it is right by reading.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::build::{mk_pod, mk_policy};
use crate::model::dialect::Dialect;
use crate::model::edge::{Direction, Protocol};
use crate::model::endpoint::{Connection, Endpoint, Party};
use crate::model::identity::Interner;
use crate::model::labels::Labels;
use crate::model::scenario::Scenario;
use crate::model::selector::Selector;
use crate::model::verdict::{Judgement, Verdict};
use crate::policy::{Judge, Policy};

const BLOCKS: [&str; 6] = [
    "198.51.100.0/24",
    "198.51.100.0/29",
    "203.0.113.0/24",
    "0.0.0.0/0",
    "2001:db8::/32",
    "2001:db8:100::/126",
];
const EXCEPT: [&str; 3] = ["198.51.100.2/32", "203.0.113.0/28", "2001:db8:100::2/127"];

fn any_selector() -> impl Strategy<Value = Value> {
    let expression =
        (select(vec!["a", "b", "ns"]), select(vec!["In", "NotIn", "Exists", "DoesNotExist"]), 1usize..8);
    let expression = expression.prop_map(|(key, operator, which)| {
        let all = ["1", "2", "x"];
        let values: Vec<&str> = (0..3).filter(|at| which >> at & 1 == 1).map(|at| all[at]).collect();
        let values = if operator.ends_with("In") { json!(values) } else { Value::Null };
        json!({"key": key, "operator": operator, "values": values})
    });
    let labels = prop::collection::btree_map(select(vec!["a", "b"]), select(vec!["1", "2"]), 0..2);
    (labels, prop::collection::vec(expression, 0..2))
        .prop_map(|(labels, expressions)| json!({"matchLabels": labels, "matchExpressions": expressions}))
}

fn any_peer() -> impl Strategy<Value = Value> {
    let block = (select(BLOCKS.to_vec()), subsequence(EXCEPT.to_vec(), 0..3)).prop_map(|(cidr, except)| {
        let net: IpNet = cidr.parse().unwrap();
        let inside = |text: &&str| text.parse::<IpNet>().is_ok_and(|e| net.contains(&e) && e != net);
        let except: Vec<&str> = except.into_iter().filter(inside).collect();
        json!({"ipBlock": {"cidr": cidr, "except": except}})
    });
    prop_oneof![
        any_selector().prop_map(|pods| json!({"podSelector": pods})),
        any_selector().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        (any_selector(), any_selector()).prop_map(|(n, p)| json!({"namespaceSelector": n, "podSelector": p})),
        block,
    ]
}

fn any_port() -> impl Strategy<Value = Value> {
    let protocol = prop_oneof![Just(Value::Null), Just(json!("TCP")), Just(json!("UDP"))];
    let port = prop_oneof![
        Just(json!({})),
        (80u16..83).prop_map(|port| json!({"port": port})),
        (80u16..83, 0u16..3).prop_map(|(port, more)| json!({"port": port, "endPort": port + more})),
        Just(json!({"port": "http"})),
    ];
    (protocol, port).prop_map(|(protocol, mut port)| {
        port["protocol"] = protocol;
        port
    })
}

fn any_rule(peers: &'static str) -> impl Strategy<Value = Value> {
    let (froms, ports) = (prop::collection::vec(any_peer(), 0..3), prop::collection::vec(any_port(), 0..3));
    (froms, ports).prop_map(move |(froms, ports)| json!({peers: froms, "ports": ports}))
}

fn any_policies() -> impl Strategy<Value = Vec<Value>> {
    let rules = (prop::collection::vec(any_rule("from"), 0..3), prop::collection::vec(any_rule("to"), 0..3));
    let types =
        select(vec![json!(null), json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])]);
    let policy =
        (select(vec!["x", "y"]), any_selector(), types, rules).prop_map(|(ns, subject, types, (i, e))| {
            (ns, json!({"podSelector": subject, "policyTypes": types, "ingress": i, "egress": e}))
        });
    prop::collection::vec(policy, 0..5).prop_map(|all| {
        let named = all.into_iter().enumerate();
        named.map(|(at, (ns, spec))| mk_policy(ns, &format!("p{at}"), spec)).collect()
    })
}

/// Two namespaces of pods in both families, and addresses outside.
fn parties() -> Vec<Party> {
    let mut interner = Interner::default();
    let mut parties = Vec::new();
    let pods = [
        ("x/one", "a=1", 80),
        ("x/two", "a=2,b=1", 81),
        ("x/bare", "", 82),
        ("y/one", "a=1,b=2", 81),
        ("y/two", "b=1", 80),
    ];
    for (host, (id, labels, http)) in pods.into_iter().enumerate() {
        let pod = mk_pod(&mut interner, id, labels).serves("http", http, Protocol::Tcp).done(&mut interner);
        for address in [format!("198.51.100.{host}"), format!("2001:db8:100::{host}")] {
            parties.push(Party::pod(Arc::clone(&pod), address.parse().ok()));
        }
    }
    let outside = ["203.0.113.7", "203.0.113.200", "192.0.2.1", "2001:db8:113::7"];
    parties.extend(outside.map(|address| Party::external(address.parse().unwrap())));
    parties
}

// ---- the reference: the API's types read anew for every question, in the words of its documentation ----

fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let Some(selector) = selector else { return true };
    let labels: BTreeMap<&str, &str> = labels.iter().collect();
    let by_labels =
        selector.match_labels.iter().flatten().all(|(k, v)| labels.get(k.as_str()) == Some(&v.as_str()));
    let by_expressions = selector.match_expressions.iter().flatten().all(|expression| {
        let value = labels.get(expression.key.as_str()).map(|value| (*value).to_owned());
        let listed =
            value.clone().is_some_and(|value| expression.values.iter().flatten().any(|v| *v == value));
        match expression.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            _ => value.is_none(),
        }
    });
    by_labels && by_expressions
}

fn holds(cidr: &str, address: IpAddr) -> bool {
    let (network, length) = cidr.split_once('/').unwrap();
    let bits = |address: IpAddr| -> String {
        match address {
            IpAddr::V4(a) => a.octets().iter().map(|byte| format!("{byte:08b}")).collect(),
            IpAddr::V6(a) => a.octets().iter().map(|byte| format!("{byte:08b}")).collect(),
        }
    };
    let network: IpAddr = network.parse().unwrap();
    network.is_ipv4() == address.is_ipv4()
        && bits(address).starts_with(&bits(network)[..length.parse().unwrap()])
}

fn peer_matches(peer: &NetworkPolicyPeer, namespace: &str, party: &Party, blocks_match_pods: bool) -> bool {
    if let Some(block) = &peer.ip_block {
        let address = party.address.unwrap();
        let excepted = block.except.iter().flatten().any(|except| holds(except, address));
        return (blocks_match_pods || party.as_pod().is_none()) && holds(&block.cidr, address) && !excepted;
    }
    let Some(pod) = party.as_pod() else { return false };
    let in_namespace = match &peer.namespace_selector {
        Some(selector) => selects(Some(selector), &pod.identity.namespace_labels),
        None => *pod.namespace == *namespace,
    };
    in_namespace && selects(peer.pod_selector.as_ref(), &pod.identity.labels)
}

fn port_matches(wanted: &NetworkPolicyPort, responder: &Party, port: u16, protocol: Protocol) -> bool {
    let number = match &wanted.port {
        None => true,
        Some(IntOrString::Int(first)) => {
            (*first..=wanted.end_port.unwrap_or(*first)).contains(&i32::from(port))
        }
        Some(IntOrString::String(name)) => responder.as_pod().is_some_and(|pod| {
            let ports = pod.identity.named_ports.iter();
            ports.filter(|p| *p.name == **name && p.protocol == protocol).any(|p| p.port == port)
        }),
    };
    number && wanted.protocol.as_deref().unwrap_or("TCP") == protocol.as_str()
}

fn reference(
    policies: &[NetworkPolicy],
    c: &Connection<'_>,
    direction: Direction,
    blocks_match_pods: bool,
) -> bool {
    let (subject, peer) = match direction {
        Direction::Egress => (c.initiator, c.responder),
        Direction::Ingress => (c.responder, c.initiator),
    };
    let Some(pod) = subject.as_pod() else { return true };
    if peer.as_pod().is_some_and(|peer| peer.name == pod.name && peer.namespace == pod.namespace) {
        return true;
    }
    let mut isolated = false;
    for policy in policies {
        let spec = policy.spec.as_ref().unwrap();
        let namespace = policy.metadata.namespace.as_deref().unwrap();
        let applies = match &spec.policy_types {
            Some(types) => types.iter().any(|name| name == direction.as_str()),
            None => {
                direction == Direction::Ingress || spec.egress.as_ref().is_some_and(|rules| !rules.is_empty())
            }
        };
        if !applies
            || *pod.namespace != *namespace
            || !selects(spec.pod_selector.as_ref(), &pod.identity.labels)
        {
            continue;
        }
        isolated = true;
        let ingress = spec.ingress.iter().flatten().map(|rule| (&rule.from, &rule.ports));
        let egress = spec.egress.iter().flatten().map(|rule| (&rule.to, &rule.ports));
        let rules: Vec<_> =
            if direction == Direction::Ingress { ingress.collect() } else { egress.collect() };
        for (peers, ports) in rules {
            let peers = peers.as_deref().unwrap_or_default();
            let ports = ports.as_deref().unwrap_or_default();
            let by_peer =
                peers.is_empty() || peers.iter().any(|p| peer_matches(p, namespace, peer, blocks_match_pods));
            let by_port =
                ports.is_empty() || ports.iter().any(|p| port_matches(p, c.responder, c.port, c.protocol));
            if by_peer && by_port {
                return true;
            }
        }
    }
    !isolated
}

// ---- the properties ----

fn api(policies: &[Value]) -> Vec<NetworkPolicy> {
    policies.iter().map(|policy| serde_json::from_value(policy.clone()).unwrap()).collect()
}

fn mk_judge(policies: &[NetworkPolicy], dialect: &str) -> Judge {
    let read = |policy| Arc::new(Policy::from_network_policy(policy));
    let policies: Vec<Arc<Policy>> = policies.iter().map(read).collect();
    assert!(policies.iter().all(|policy| policy.faults().is_empty()));
    Judge::new(&policies, dialect.parse().unwrap(), &Scenario::Enforced)
}

fn for_each_connection(parties: &[Party], mut ask: impl FnMut(&Connection<'_>)) {
    for initiator in parties {
        for responder in parties {
            for (port, protocol) in [(80, Protocol::Tcp), (81, Protocol::Tcp), (82, Protocol::Udp)] {
                ask(&Connection { initiator, responder, port, protocol });
            }
        }
    }
}

fn all(judge: &mut Judge, parties: &[Party]) -> Vec<Judgement> {
    let mut judgements = Vec::new();
    for_each_connection(parties, |connection| judgements.push(judge.judge(connection)));
    judgements
}

/// The places of a policy that can be broken, as JSON pointers.
fn places(policies: &[Value]) -> Vec<String> {
    let mut places = Vec::new();
    for (at, policy) in policies.iter().enumerate() {
        places.push(format!("/{at}/spec/podSelector"));
        for (section, peers) in [("ingress", "from"), ("egress", "to")] {
            for (rule, content) in policy["spec"][section].as_array().unwrap().iter().enumerate() {
                let path = format!("/{at}/spec/{section}/{rule}");
                for (peer, content) in content[peers].as_array().unwrap().iter().enumerate() {
                    let fields = content.as_object().unwrap().keys();
                    places.extend(fields.map(|field| format!("{path}/{peers}/{peer}/{field}")));
                }
                let ports = content["ports"].as_array().unwrap().len();
                places.extend((0..ports).map(|port| format!("{path}/ports/{port}")));
            }
        }
    }
    places
}

/// The policies with this place broken; matching all of IPv4, all of IPv6; and matching nothing.
fn variants(policies: &[Value], place: &str) -> [Vec<Value>; 4] {
    let contents = match place.rsplit('/').next().unwrap() {
        "podSelector" | "namespaceSelector" => [
            json!({"matchLabels": {"-": ""}}),
            json!({}),
            json!({}),
            json!({"matchLabels": {"none": "none"}}),
        ],
        "ipBlock" => ["nonsense", "0.0.0.0/0", "::/0", "192.0.2.254/32"].map(|cidr| json!({"cidr": cidr})),
        _ => [json!({"port": 0}), json!({}), json!({}), json!({"port": 1})],
    };
    contents.map(|mut content| {
        let mut all = Value::Array(policies.to_vec());
        let broken = all.pointer_mut(place).unwrap();
        if let Some(protocol) = broken.get("protocol") {
            content["protocol"] = protocol.clone();
        }
        *broken = content;
        all.as_array().unwrap().clone()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn the_judge_agrees_with_the_reference(policies in any_policies()) {
        let (policies, parties) = (api(&policies), parties());
        for (dialect, blocks_match_pods) in [("standard", true), ("standard,ip_block_matches_pods=false", false)] {
            let mut judge = mk_judge(&policies, dialect);
            for_each_connection(&parties, |connection| {
                let judgement = judge.judge(connection);
                for direction in Direction::BOTH {
                    let allowed = reference(&policies, connection, direction, blocks_match_pods);
                    let expected = if allowed { Verdict::Allow } else { Verdict::Deny };
                    assert_eq!(judgement.of(direction).verdict, expected, "{}", judge.explain(connection));
                }
            });
        }
    }

    #[test]
    fn a_fault_makes_unknown_exactly_what_its_content_could_change(
        policies in any_policies(), which in any::<prop::sample::Index>(),
    ) {
        let places = places(&policies);
        prop_assume!(!places.is_empty());
        let place = which.get(&places);
        let [broken, v4, v6, nothing] = variants(&policies, place);
        let read = |policy: &NetworkPolicy| Arc::new(Policy::from_network_policy(policy));
        let broken: Vec<Arc<Policy>> = api(&broken).iter().map(read).collect();
        prop_assert_eq!(broken.iter().map(|policy| policy.faults().len()).sum::<usize>(), 1);
        let mut judge = Judge::new(&broken, Dialect::STANDARD, &Scenario::Enforced);
        let [v4, v6, nothing] = [v4, v6, nothing].map(|policies| api(&policies));
        for_each_connection(&parties(), |connection| {
            let judgement = judge.judge(connection);
            for direction in Direction::BOTH {
                let peer = if direction == Direction::Egress { connection.responder } else { connection.initiator };
                let everything = if peer.address.unwrap().is_ipv4() { &v4 } else { &v6 };
                let with = reference(everything, connection, direction, true);
                let expected = match (with, reference(&nothing, connection, direction, true)) {
                    (true, true) => Verdict::Allow,
                    (false, false) => Verdict::Deny,
                    _ => Verdict::Unknown,
                };
                let found = judgement.of(direction).verdict;
                assert_eq!(found, expected, "{place} {direction}\n{}", judge.explain(connection));
            }
        });
    }

    #[test]
    fn the_order_of_policies_does_not_matter(policies in any_policies().prop_shuffle(), also in any::<prop::sample::Index>()) {
        let parties = parties();
        let mut turned = policies.clone();
        if !turned.is_empty() {
            turned.rotate_left(also.index(policies.len()));
            turned.reverse();
        }
        let (mut one, mut other) = (mk_judge(&api(&policies), "standard"), mk_judge(&api(&turned), "standard"));
        prop_assert_eq!(all(&mut one, &parties), all(&mut other, &parties));
    }

    #[test]
    fn the_order_of_rules_and_peers_changes_no_verdict(policies in any_policies()) {
        let parties = parties();
        let mut turned = policies.clone();
        for policy in &mut turned {
            for (section, peers) in [("ingress", "from"), ("egress", "to")] {
                let rules = policy["spec"][section].as_array_mut().unwrap();
                rules.reverse();
                rules.iter_mut().for_each(|rule| rule[peers].as_array_mut().unwrap().reverse());
            }
        }
        let verdicts = |policies: &[Value]| -> Vec<[Verdict; 2]> {
            let judgements = all(&mut mk_judge(&api(policies), "standard"), &parties);
            judgements.iter().map(|j| [j.egress.verdict, j.ingress.verdict]).collect()
        };
        prop_assert_eq!(verdicts(&policies), verdicts(&turned));
    }

    #[test]
    fn one_more_policy_denies_nothing_to_pods_that_are_isolated(policies in any_policies(), more in any_policies()) {
        let parties = parties();
        let isolate = |ns| mk_policy(ns, "isolate", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
        let mut policies = policies;
        policies.extend([isolate("x"), isolate("y")]);
        let before = all(&mut mk_judge(&api(&policies), "standard"), &parties);
        let renamed = more.into_iter().map(|mut policy| {
            policy["metadata"]["name"] = format!("more-{}", policy["metadata"]["name"]).into();
            policy
        });
        policies.extend(renamed);
        let after = all(&mut mk_judge(&api(&policies), "standard"), &parties);
        for (before, after) in before.iter().zip(&after) {
            for direction in Direction::BOTH {
                if before.of(direction).verdict == Verdict::Allow {
                    prop_assert_eq!(after.of(direction).verdict, Verdict::Allow);
                }
            }
        }
    }

    #[test]
    fn a_cached_answer_is_the_uncached_one(policies in any_policies()) {
        let (policies, parties) = (api(&policies), parties());
        let mut judge = mk_judge(&policies, "standard");
        let first = all(&mut judge, &parties);
        prop_assert_eq!(&first, &all(&mut judge, &parties));
        let mut fresh = Vec::new();
        // A judge for each initiator and each responder would take minutes; one for each row is enough to see
        // a key that lacks the peer, the address, the port, the protocol or the direction.
        for initiator in &parties {
            let mut one = mk_judge(&policies, "standard");
            for responder in parties.iter().rev() {
                for (port, protocol) in [(82, Protocol::Udp), (81, Protocol::Tcp), (80, Protocol::Tcp)] {
                    fresh.push(one.judge(&Connection { initiator, responder, port, protocol }));
                }
            }
        }
        let row = parties.len() * 3;
        for (first, fresh) in first.chunks(row).zip(fresh.chunks(row)) {
            prop_assert!(first.iter().eq(fresh.iter().rev()));
        }
    }

    #[test]
    fn selectors_agree_with_the_reference(selector in any_selector(), which in 0usize..16) {
        let all = [("a", "1"), ("a", "2"), ("b", "1"), ("ns", "x")];
        let labels: Labels = (0..4).filter(|at| which >> at & 1 == 1).map(|at| all[at]).collect();
        let selector: LabelSelector = serde_json::from_value(selector).unwrap();
        prop_assert_eq!(Selector::try_from(&selector).unwrap().matches(&labels), selects(Some(&selector), &labels));
    }
}

#[test]
fn what_is_remembered_stays_bounded() {
    let policy: Vec<Value> =
        vec![mk_policy("x", "p", json!({"podSelector": {}, "ingress": [{"ports": [{"port": 1}]}]}))];
    let mut judge = mk_judge(&api(&policy), "standard");
    let parties = parties();
    let outside = Party { address: None, endpoint: Endpoint::External };
    for port in 0..=u16::MAX {
        for protocol in [Protocol::Tcp, Protocol::Sctp] {
            judge.judge(&Connection { initiator: &outside, responder: &parties[0], port, protocol });
        }
    }
    assert!(judge.cache.decisions.len() <= 65_536, "{}", judge.cache.decisions.len());
}
