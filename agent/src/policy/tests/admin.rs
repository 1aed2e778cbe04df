//! ClusterNetworkPolicy, AdminNetworkPolicy and BaselineAdminNetworkPolicy: what is said of them, line by line.

use std::sync::Arc;

use serde_json::{Value, json};

use super::build::{Family, mk_policy, mk_read, row};
use crate::model::facts::{ClusterFacts, NameTable};
use crate::model::labels::Labels;

/// A ClusterNetworkPolicy for the db pods of namespace x.
fn mk_cnp(name: &str, tier: &str, priority: i64, ingress: Value) -> Value {
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"tier": tier, "priority": priority, "subject": db(), "ingress": ingress}})
}

fn mk_egress(action: &str, to: Value, more: Value) -> Value {
    let mut rule = json!({"action": action, "to": [to]});
    merge(&mut rule, more);
    let mut policy = mk_cnp("e", "Admin", 1, json!([]));
    policy["spec"]["egress"] = json!([rule]);
    policy
}

fn mk_anp(name: &str, priority: i64, ingress: Value) -> Value {
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy",
        "metadata": {"name": name}, "spec": {"priority": priority, "subject": db(), "ingress": ingress}})
}

fn mk_banp(ingress: Value) -> Value {
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "BaselineAdminNetworkPolicy",
        "metadata": {"name": "default"}, "spec": {"subject": db(), "ingress": ingress}})
}

fn merge(value: &mut Value, more: Value) {
    for (key, more) in more.as_object().unwrap() {
        value[key] = more.clone();
    }
}

fn db() -> Value {
    pods("x", "db")
}

fn pods(namespace: &str, app: &str) -> Value {
    json!({"pods": {"namespaceSelector": {"matchLabels": {"ns": namespace}},
        "podSelector": {"matchLabels": {"app": app}}}})
}

fn everyone() -> Value {
    json!({"namespaces": {}})
}

fn rule(action: &str, from: Value) -> Value {
    json!([{"action": action, "from": [from]}])
}

fn mk_np(ingress: Value) -> Value {
    mk_policy("x", "np", json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": ingress}))
}

const ASK: &str = "x/web -> x/db 80/TCP";

#[test]
fn line_1_admin_comes_before_network_policy_and_baseline_after() {
    let admin = |action| mk_cnp("a", "Admin", 10, rule(action, everyone()));
    let baseline = |action| mk_cnp("b", "Baseline", 10, rule(action, everyone()));
    row("admin denies what NetworkPolicy allows", &[admin("Deny"), mk_np(json!([{}]))], ASK).is("Deny");
    row("admin allows what NetworkPolicy denies", &[admin("Accept"), mk_np(json!([]))], ASK).is("Allow");
    row("NetworkPolicy allows what the baseline denies", &[baseline("Deny"), mk_np(json!([{}]))], ASK)
        .is("Allow");
    row("NetworkPolicy denies what the baseline allows", &[baseline("Accept"), mk_np(json!([]))], ASK)
        .is("Deny");
    row("the baseline decides where nothing isolates", &[baseline("Deny")], ASK).is("Deny");
    row("admin before baseline", &[admin("Accept"), baseline("Deny")], ASK).is("Allow");
    let old = [mk_anp("a", 10, rule("Allow", everyone())), mk_banp(rule("Deny", everyone()))];
    row("the same with v1alpha1", &old, ASK).is("Allow");
    row("the old baseline alone", &old[1..], ASK).is("Deny");
    row(
        "old and new stand in one tier",
        &[old[0].clone(), mk_cnp("n", "Admin", 9, rule("Deny", everyone()))],
        ASK,
    )
    .is("Deny");
}

#[test]
fn line_1_the_lower_priority_number_and_the_first_rule_decide() {
    let two = |first, second| {
        [mk_cnp("z", "Admin", 1, rule(first, everyone())), mk_cnp("a", "Admin", 2, rule(second, everyone()))]
    };
    row("lower first", &two("Deny", "Accept"), ASK).is("Deny");
    row("whatever the names", &two("Accept", "Deny"), ASK).is("Allow");
    let both =
        json!([{"action": "Accept", "from": [pods("x", "web")]}, {"action": "Deny", "from": [everyone()]}]);
    let policy = [mk_cnp("a", "Admin", 1, both)];
    row("the first rule that matches", &policy, ASK).is("Allow");
    row("else the next", &policy, "y/web -> x/db 80/TCP").is("Deny");
    row("else nothing", &policy, "outside -> x/db 80/TCP").is("Allow");
}

#[test]
fn line_1_equal_priorities_are_ambiguous_where_the_outcomes_differ() {
    let two = |first, second| {
        [mk_cnp("a", "Admin", 1, rule(first, everyone())), mk_cnp("b", "Admin", 1, rule(second, everyone()))]
    };
    row("they differ", &two("Accept", "Deny"), ASK).is("Unknown");
    row("they agree", &two("Deny", "Deny"), ASK).is("Deny");
    row(
        "only one matches",
        &[two("Accept", "Deny")[0].clone(), mk_cnp("b", "Admin", 1, rule("Deny", pods("y", "web")))],
        ASK,
    )
    .is("Allow");
    let [accept, deny] = two("Accept", "Deny");
    let mut elsewhere = deny;
    elsewhere["spec"]["subject"] = pods("y", "db");
    row("subjects do not overlap", &[accept, elsewhere], ASK).is("Allow");
}

#[test]
fn line_2_no_rule_has_no_effect_and_nothing_is_isolated() {
    row("no rules", &[mk_cnp("a", "Admin", 1, json!([]))], ASK).is("Allow");
    let accept_one = [mk_cnp("a", "Baseline", 1, rule("Accept", pods("y", "web")))];
    row("accepting some denies nobody", &accept_one, ASK).is("Allow");
    row(
        "a NetworkPolicy is asked all the same",
        &[mk_cnp("a", "Admin", 1, json!([])), mk_np(json!([]))],
        ASK,
    )
    .is("Deny");
}

#[test]
fn line_3_pass_leaves_the_whole_tier() {
    let pass = mk_cnp("a", "Admin", 1, rule("Pass", pods("x", "web")));
    let deny = mk_cnp("b", "Admin", 2, rule("Deny", everyone()));
    let baseline = mk_cnp("c", "Baseline", 1, rule("Deny", everyone()));
    let policies = [pass.clone(), deny.clone()];
    row("later policies of the tier are not asked", &policies, ASK).is("Allow");
    row("others are", &policies, "y/web -> x/db 80/TCP").is("Deny");
    row("NetworkPolicy decides", &[pass.clone(), deny.clone(), mk_np(json!([]))], ASK).is("Deny");
    row("and hides the baseline", &[pass.clone(), baseline.clone(), mk_np(json!([{}]))], ASK).is("Allow");
    row("the baseline where none isolates", &[pass.clone(), baseline.clone()], ASK).is("Deny");
    // A policy for egress isolates no ingress: the baseline is asked per direction.
    let egress = mk_policy("x", "np", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}));
    row("per direction", &[baseline.clone(), egress], ASK).is("Deny");
    let passing = mk_cnp("d", "Baseline", 0, rule("Pass", everyone()));
    row("Pass in the baseline ends in allow", &[passing, baseline], ASK).is("Allow");
}

#[test]
fn line_4_the_action_is_called_accept_or_allow_by_version() {
    row("Accept in v1alpha2", &[mk_cnp("a", "Admin", 1, rule("Accept", everyone())), mk_np(json!([]))], ASK)
        .is("Allow");
    row("Allow in v1alpha1", &[mk_anp("a", 1, rule("Allow", everyone())), mk_np(json!([]))], ASK).is("Allow");
    for policy in [
        mk_cnp("a", "Admin", 1, rule("Allow", everyone())),
        mk_anp("a", 1, rule("Accept", everyone())),
        mk_anp("a", 1, json!([{"from": [everyone()]}])),
    ] {
        assert_eq!(mk_read(&policy).faults()[0].field, "spec.ingress[0].action");
        row("another action may be any", &[policy.clone(), mk_np(json!([{}]))], ASK).is("Unknown");
        row("where it matches", &[policy, mk_np(json!([{}]))], "outside -> x/db 80/TCP").is("Allow");
    }
}

#[test]
fn line_5_a_peer_of_an_unknown_kind_fails_closed() {
    let newer = json!({"serviceAccounts": {}});
    let both = |action: &str| json!([{"action": action, "from": [newer.clone(), pods("x", "web")]}]);
    let policy = |action| mk_cnp("a", "Admin", 1, both(action));
    assert_eq!(mk_read(&policy("Accept")).faults()[0].field, "spec.ingress[0].from[0].serviceAccounts");
    row("an accepting rule matches nothing", &[policy("Accept"), mk_np(json!([]))], ASK).is("Deny");
    row(
        "a denying rule everything",
        &[policy("Deny")],
        "y/plain -> x/db 80/TCP".replace("plain", "web").as_str(),
    )
    .is("Deny");
    // network-policy-api, ClusterNetworkPolicyIngressPeer: Pass rules too are read as "Deny all".
    row("a passing rule denies all", &[policy("Pass")], "outside -> x/db 80/UDP").is("Deny");
    let empty = mk_cnp("a", "Admin", 1, rule("Accept", json!({})));
    assert_eq!(mk_read(&empty).faults()[0].field, "spec.ingress[0].from[0]");
    row("no field at all is the same", &[empty, mk_np(json!([]))], ASK).is("Deny");
    // Only egress has networks.
    let networks = mk_cnp("a", "Admin", 1, rule("Deny", json!({"networks": ["203.0.113.0/24"]})));
    row("networks in ingress", &[networks], ASK).is("Deny");
}

#[test]
fn line_6_networks_match_whoever_has_the_address() {
    let deny = |to: Value| [mk_egress("Deny", to, json!({}))];
    let all = deny(json!({"networks": ["0.0.0.0/0"]}));
    for to in ["outside", "y/web", "x/web", "node-2", "y/host"] {
        row("pods too", &all, &format!("x/db -> {to} 80/TCP")).is("Deny, Allow");
        row("in every dialect", &all, &format!("x/db -> {to} 80/TCP")).dialect("cilium").is("Deny, Allow");
    }
    let some = deny(json!({"networks": ["192.0.2.0/30", "203.0.113.0/24"]}));
    row("one of several", &some, "x/db -> outside 80/TCP").is("Deny, Allow");
    row("outside of them", &some, "x/db -> y/web 80/TCP").is("Allow, Allow");
    row("ICMP too", &some, "x/db -> outside 2048/ICMP").is("Deny, Allow");
    let broken = deny(json!({"networks": ["nonsense"]}));
    assert_eq!(mk_read(&broken[0]).faults()[0].field, "spec.egress[0].to[0].networks[0]");
    row("one that cannot be read", &broken, "x/db -> outside 80/TCP").is("Unknown, Allow");
}

#[test]
fn line_6_host_network_pods_are_neither_subject_nor_peer() {
    let everybody = mk_cnp("a", "Admin", 1, rule("Deny", everyone()));
    let mut all = everybody.clone();
    all["spec"]["subject"] = everyone();
    row("not a subject", &[all.clone()], "y/web -> x/host 80/TCP").is("Allow");
    row("not a peer", &[all], "y/host -> x/db 80/TCP").is("Allow");
    row("every namespace is no node", &[everybody], "node-2 -> x/db 80/TCP").is("Allow");
}

#[test]
fn line_6_nodes_are_meant_by_labels() {
    let deny = |labels: Value| [mk_egress("Deny", json!({"nodes": {"matchLabels": labels}}), json!({}))];
    let gpu = deny(json!({"gpu": "yes"}));
    let labels = |text: &str| text.split(',').filter_map(|pair| pair.split_once('=')).collect::<Labels>();
    let known = || ClusterFacts {
        node_labels: Some(
            [("node-1".into(), labels("")), ("node-2".into(), labels("gpu=yes"))].into_iter().collect(),
        ),
        ..ClusterFacts::default()
    };
    row("labels match", &gpu, "x/db -> node-2 80/TCP").facts(known()).is("Deny, Allow");
    row("a hostNetwork pod is its node", &gpu, "x/db -> y/host 80/TCP").facts(known()).is("Deny, Allow");
    row("a pod is no node", &gpu, "x/db -> y/web 80/TCP").facts(known()).is("Allow, Allow");
    row("labels are not known", &gpu, "x/db -> node-2 80/TCP").is("Unknown, Allow");
    row("labels differ", &gpu, "x/db -> node-3 80/TCP").facts(known()).is("Unknown, Allow");
    let every = deny(json!({}));
    row("every node", &every, "x/db -> node-2 80/TCP").is("Deny, Allow");
    // The pod's own node is not judged in the standard dialect.
    row("its own node", &every, "x/db -> node-1 80/TCP").is("Allow, Allow");
    row("its own node, judged", &every, "x/db -> node-1 80/TCP")
        .dialect("standard,pod_to_own_node_judged=true")
        .is("Deny, Allow");
}

#[test]
fn line_6_no_named_ports_with_peers_that_have_none() {
    let named = json!({"protocols": [{"destinationNamedPort": "http"}]});
    for peer in
        [json!({"networks": ["203.0.113.0/24"]}), json!({"nodes": {}}), json!({"domainNames": ["a.io"]})]
    {
        let policy = mk_egress("Accept", peer, named.clone());
        assert_eq!(mk_read(&policy).faults()[0].field, "spec.egress[0].to");
    }
    let policy = [mk_egress("Deny", everyone(), named)];
    row("on the peer", &policy, "x/db -> y/db 9090/TCP").is("Deny, Allow");
    row("of its protocol", &policy, "x/db -> y/db 9090/UDP").is("Allow, Allow");
    row("of another number", &policy, "x/db -> y/db 8080/TCP").is("Allow, Allow");
}

#[test]
fn line_7_domain_names_match_below_and_are_for_accepting_egress_only() {
    let address = |family: Family| family.address("203.0.113.7".parse().unwrap());
    let table = |name: &str| {
        let names = [Family::V4, Family::V6].map(|family| (address(family), vec![Arc::from(name)]));
        ClusterFacts {
            names: Some(NameTable { names: names.into_iter().collect(), complete: true }),
            ..ClusterFacts::default()
        }
    };
    let np = mk_policy("x", "np", json!({"podSelector": {}, "policyTypes": ["Egress"]}));
    let policies = |name: &str| [mk_egress("Accept", json!({"domainNames": [name]}), json!({})), np.clone()];
    let ask = "x/db -> outside 443/TCP";
    for (pattern, called, wanted) in [
        ("*.x.io", "a.x.io", "Allow, Allow"),
        ("*.x.io", "a.b.x.io", "Allow, Allow"),
        ("*.x.io", "x.io", "Deny, Allow"),
        ("*.x.io", "ax.io", "Deny, Allow"),
        ("x.io", "x.io", "Allow, Allow"),
        ("X.io.", "x.io", "Allow, Allow"),
        ("x.io", "a.x.io", "Deny, Allow"),
    ] {
        row(pattern, &policies(pattern), ask).facts(table(called)).is(wanted);
    }
    row("nobody knows what it is called", &policies("x.io"), ask).is("Unknown, Allow");
    row("pods are not called so", &policies("x.io"), "x/db -> y/web 443/TCP").is("Deny, Allow");
    let deny = mk_egress("Deny", json!({"domainNames": ["x.io"]}), json!({}));
    assert_eq!(mk_read(&deny).faults()[0].field, "spec.egress[0].to[0].domainNames");
    row("not for denying", &[deny], ask).is("Unknown, Allow");
    for wrong in ["io", "*.*.io", "a..io", "-a.io", "https://a.io"] {
        let policy = mk_egress("Accept", json!({"domainNames": [wrong]}), json!({}));
        assert_eq!(mk_read(&policy).faults()[0].field, "spec.egress[0].to[0].domainNames[0]", "{wrong}");
    }
}

#[test]
fn ports_of_both_versions() {
    let new = |protocols: Value| {
        vec![mk_cnp(
            "a",
            "Admin",
            1,
            json!([{"action": "Deny", "from": [everyone()], "protocols": protocols}]),
        )]
    };
    let old = |ports: Value| {
        vec![mk_anp("a", 1, json!([{"action": "Deny", "from": [everyone()], "ports": ports}]))]
    };
    let tcp = |port: Value| json!([{"tcp": {"destinationPort": port}}]);
    for (policies, denied, allowed) in [
        (new(tcp(json!({"number": 80}))), &["80/TCP"][..], &["81/TCP", "80/UDP", "2048/ICMP"][..]),
        (
            new(tcp(json!({"range": {"start": 80, "end": 82}}))),
            &["80/TCP", "82/TCP"],
            &["79/TCP", "83/TCP", "81/SCTP"],
        ),
        (new(json!([{"udp": {}}])), &["1/UDP", "65535/UDP"], &["1/TCP"]),
        (
            new(json!([{"sctp": {"destinationPort": {"number": 7}}}, {"udp": {}}])),
            &["7/SCTP", "9/UDP"],
            &["8/SCTP"],
        ),
        (
            new(json!([{"destinationNamedPort": "http"}])),
            &["8080/TCP", "8081/UDP"],
            &["8081/TCP", "8080/UDP"],
        ),
        (new(Value::Null), &["1/TCP", "2/UDP", "3/SCTP", "2048/ICMP"], &[]),
        (old(Value::Null), &["1/TCP", "2/UDP", "3/SCTP", "2048/ICMP"], &[]),
        (old(json!([])), &["1/TCP", "2048/ICMP"], &[]),
        (old(json!([{"portNumber": {"protocol": "UDP", "port": 53}}])), &["53/UDP"], &["53/TCP", "54/UDP"]),
        (old(json!([{"portRange": {"start": 80, "end": 82}}])), &["80/TCP", "82/TCP"], &["83/TCP", "80/UDP"]),
        (old(json!([{"namedPort": "http"}])), &["8080/TCP", "8081/UDP"], &["80/TCP"]),
    ] {
        assert!(mk_read(&policies[0]).faults().is_empty(), "{:?}", mk_read(&policies[0]).faults());
        for (ports, wanted) in [(denied, "Deny"), (allowed, "Allow")] {
            for port in ports {
                row("ports", &policies, &format!("x/web -> x/db {port}")).is(wanted);
            }
        }
    }
}

#[test]
fn what_the_api_server_refuses_is_unknown_where_it_matters() {
    let deny = || rule("Deny", pods("x", "web"));
    let with = |change: &dyn Fn(&mut Value)| {
        let mut policy = mk_cnp("a", "Admin", 1, deny());
        change(&mut policy["spec"]);
        policy
    };
    let cases: [(&str, Value); 14] = [
        ("spec.priority", with(&|s| s["priority"] = json!(1001))),
        ("spec.priority", with(&|s| s["priority"] = Value::Null)),
        ("spec.tier", with(&|s| s["tier"] = json!("NetworkPolicy"))),
        ("spec.subject", with(&|s| s["subject"] = json!({}))),
        ("spec.subject", with(&|s| s["subject"]["namespaces"] = json!({}))),
        ("spec.subject.pods.podSelector", with(&|s| s["subject"]["pods"]["podSelector"] = Value::Null)),
        (
            "spec.subject.pods.podSelector.matchExpressions[0].operator",
            with(&|s| {
                s["subject"]["pods"]["podSelector"] =
                    json!({"matchExpressions": [{"key": "a", "operator": "Is"}]})
            }),
        ),
        ("spec.ingress[0].from", with(&|s| s["ingress"][0]["from"] = json!([]))),
        ("spec.ingress[0].protocols", with(&|s| s["ingress"][0]["protocols"] = json!([]))),
        ("spec.ingress[0].protocols[0]", with(&|s| s["ingress"][0]["protocols"] = json!([{}]))),
        (
            "spec.ingress[0].protocols[0].tcp.destinationPort.number",
            with(&|s| s["ingress"][0]["protocols"] = json!([{"tcp": {"destinationPort": {"number": 0}}}])),
        ),
        (
            "spec.ingress[0].protocols[0].tcp.destinationPort.range",
            with(&|s| {
                s["ingress"][0]["protocols"] =
                    json!([{"tcp": {"destinationPort": {"range": {"start": 9, "end": 9}}}}])
            }),
        ),
        ("spec.ingress[0].form", with(&|s| s["ingress"][0]["form"] = json!([]))),
        ("spec.egres", with(&|s| s["egres"] = json!([]))),
    ];
    for (field, policy) in cases {
        let read = mk_read(&policy);
        assert!(read.faults().iter().any(|fault| fault.field == field), "{field}: {:?}", read.faults());
        row(field, std::slice::from_ref(&policy), ASK).is("Unknown");
        // It has no deciding say over pods of other peers, or none of others' subjects, as far as that is known.
        let elsewhere = [policy, mk_cnp("0", "Admin", 0, rule("Deny", everyone()))];
        if field != "spec.priority" && field != "spec.tier" {
            row(field, &elsewhere, ASK).is("Deny");
        }
    }
    let wrong_type = with(&|s| s["priority"] = json!("high"));
    let read = mk_read(&wrong_type);
    assert_eq!(read.faults()[0].field, "spec.priority");
    row("refused as a whole: it may do anything", &[wrong_type], ASK).is("Unknown, Unknown");
}

#[test]
fn the_chain_names_the_rule_by_its_name() {
    let named = json!([{"name": "let-web", "action": "Pass", "from": [pods("x", "web")]}]);
    let policies = [mk_cnp("a", "Admin", 1, named), mk_np(json!([{"ports": [{"port": 81}]}]))];
    let text = row("", &policies, ASK).explanation(Family::V4).to_string();
    insta::assert_snapshot!(text);
}
