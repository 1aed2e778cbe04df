//! What could not be read counts as unknown content: the verdict is `Unknown` exactly where that could change it.

use std::slice::from_ref;
use std::sync::Arc;

use serde_json::{Value, json};

use super::build::{Family, World, mk_policy, mk_read, row};
use crate::model::dialect::Dialect;
use crate::model::edge::Protocol;
use crate::model::endpoint::Connection;
use crate::model::object::ObjectRef;
use crate::model::scenario::Scenario;
use crate::model::verdict::{Judgement, Reason, UnknownReason};
use crate::policy::{Fault, Judge, Policy};

fn mk_db(rules: Value) -> Value {
    mk_policy("x", "p", json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": rules}))
}

fn broken_selector() -> Value {
    json!({"matchExpressions": [{"key": "app", "operator": "Is"}]})
}

#[test]
fn a_broken_peer_leaves_open_only_what_its_intact_parts_do_not_exclude() {
    let y = json!({"matchLabels": {"ns": "y"}});
    let pods = json!({"namespaceSelector": y, "podSelector": broken_selector()});
    let namespaces =
        json!({"namespaceSelector": broken_selector(), "podSelector": {"matchLabels": {"app": "web"}}});
    let cidr = json!({"ipBlock": {"cidr": "nonsense"}});
    let except = json!({"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.64/26", "nonsense"]}});
    let outside_except = json!({"ipBlock": {"cidr": "203.0.113.0/24", "except": ["198.51.100.0/25"]}});
    let both = json!({"ipBlock": {"cidr": "203.0.113.0/24"}, "podSelector": {}});
    for (says, peer, from, verdict) in [
        ("labels unknown, namespace matches", &pods, "y/web", "Unknown"),
        ("labels unknown, namespace differs", &pods, "x/web", "Deny"),
        ("labels unknown, not a pod", &pods, "outside", "Deny"),
        ("namespace unknown, labels match", &namespaces, "y/web", "Unknown"),
        ("namespace unknown, labels differ", &namespaces, "y/db", "Deny"),
        ("block unknown", &cidr, "outside", "Unknown"),
        ("block unknown, a pod's address", &cidr, "x/web", "Unknown"),
        ("exception unknown, inside the block", &except, "outside", "Unknown"),
        ("exception unknown, in an intact one", &except, "203.0.113.65", "Deny"),
        ("exception unknown, outside the block", &except, "192.0.2.9", "Deny"),
        ("exception not inside the block", &outside_except, "outside", "Unknown"),
        ("block and selector", &both, "x/web", "Unknown"),
    ] {
        row(says, &[mk_db(json!([{"from": [peer]}]))], &format!("{from} -> x/db 80/TCP"))
            .both_ways()
            .is(verdict);
    }
    let no_pods = "standard,ip_block_matches_pods=false";
    row("block unknown, and none matches pods", &[mk_db(json!([{"from": [cidr]}]))], "x/web -> x/db 80/TCP")
        .dialect(no_pods)
        .both_ways()
        .is("Deny");
}

#[test]
fn a_broken_port_leaves_open_only_what_its_intact_parts_do_not_exclude() {
    for (says, port, probe, verdict) in [
        ("number unknown", json!({"port": 0}), "80/TCP", "Unknown"),
        ("number unknown, protocol differs", json!({"port": 70000}), "80/UDP", "Deny"),
        ("name unknown", json!({"port": "Not_A_Name"}), "80/TCP", "Unknown"),
        ("protocol unknown", json!({"port": 80, "protocol": "QUIC"}), "80/UDP", "Unknown"),
        ("protocol unknown, port differs", json!({"port": 80, "protocol": "tcp"}), "81/TCP", "Deny"),
        ("end unknown, below", json!({"port": 80, "endPort": 70}), "79/TCP", "Deny"),
        ("end unknown, at the first port", json!({"port": 80, "endPort": 70}), "80/TCP", "Allow"),
        ("end unknown, above", json!({"port": 80, "endPort": 70000}), "81/TCP", "Unknown"),
        ("end without a port", json!({"endPort": 70}), "81/TCP", "Unknown"),
        ("end of a name", json!({"port": "http", "endPort": 70}), "8080/TCP", "Unknown"),
    ] {
        row(says, &[mk_db(json!([{"ports": [port]}]))], &format!("x/web -> x/db {probe}"))
            .both_ways()
            .is(verdict);
    }
}

#[test]
fn what_is_intact_still_counts() {
    let broken = json!({"from": [{"podSelector": broken_selector()}], "ports": [{"port": 80}]});
    let policy = [mk_db(json!([broken, {"from": [{"podSelector": {}}], "ports": [{"port": 443}]}]))];
    row("the intact rule allows", &policy, "x/web -> x/db 443/TCP").both_ways().is("Allow");
    row("the broken one may", &policy, "x/web -> x/db 80/TCP").both_ways().is("Unknown");
    row("its intact ports exclude", &policy, "x/web -> x/db 81/TCP").both_ways().is("Deny");
    row("another namespace's pods", &policy, "x/web -> y/db 80/TCP").both_ways().is("Allow");
    row("pods that it does not select", &policy, "x/web -> x/plain 80/TCP").both_ways().is("Allow");
    let mut allow = mk_db(json!([{"from": [{"podSelector": {}}]}]));
    allow["metadata"]["name"] = "q".into();
    let both = [policy[0].clone(), allow];
    row("another policy allows", &both, "x/web -> x/db 80/TCP").both_ways().is("Allow");
}

#[test]
fn a_broken_subject_selector_may_select_any_pod_of_its_namespace() {
    let may = |rules: Value| mk_policy("x", "p", json!({"podSelector": broken_selector(), "ingress": rules}));
    row("it may isolate", &[may(json!([]))], "x/web -> x/db 80/TCP").both_ways().is("Unknown");
    row("allowed whether it selects or not", &[may(json!([{}]))], "x/web -> x/db 80/TCP")
        .both_ways()
        .is("Allow");
    row("not in another namespace", &[may(json!([]))], "x/web -> y/db 80/TCP").both_ways().is("Allow");
    let deny = mk_policy("x", "deny", json!({"podSelector": {}}));
    let both = |rules: Value| [deny.clone(), may(rules)];
    row("denied already, and it adds nothing", &both(json!([])), "x/web -> x/db 80/TCP")
        .both_ways()
        .is("Deny");
    row("denied already, and it may allow", &both(json!([{}])), "x/web -> x/db 80/TCP")
        .both_ways()
        .is("Unknown");
}

#[test]
fn a_broken_policy_type_leaves_open_the_directions_that_are_not_listed() {
    let types = |types: Value| [mk_policy("x", "p", json!({"podSelector": {}, "policyTypes": types}))];
    row("listed", &types(json!(["Ingress", "egress"])), "y/web -> x/db 80/TCP").is("Allow, Deny");
    row("perhaps meant", &types(json!(["Ingress", "egress"])), "x/db -> y/web 80/TCP").is("Unknown, Allow");
}

fn judge(policies: &[Arc<Policy>], from: &str, to: &str, port: u16) -> Judgement {
    let world = World::new(Family::V6);
    let (initiator, responder) = (world.party(from), world.party(to));
    let connection =
        Connection { initiator: &initiator, responder: &responder, port, protocol: Protocol::Tcp };
    Judge::new(policies, Dialect::STANDARD, &Scenario::Enforced).judge(&connection)
}

fn verdicts(policies: &[Arc<Policy>], from: &str, to: &str, port: u16) -> [&'static str; 2] {
    let judgement = judge(policies, from, to, port);
    [judgement.egress.verdict.as_str(), judgement.ingress.verdict.as_str()]
}

#[test]
fn an_unreadable_policy_may_select_any_pod_of_its_namespace_or_of_all() {
    let fault = || Fault { field: "spec".to_owned(), message: "is a list".to_owned() };
    let in_x = [Arc::new(Policy::unreadable(ObjectRef::namespaced("NetworkPolicy", "x", "p"), fault()))];
    assert_eq!(verdicts(&in_x, "x/web", "x/db", 80), ["Unknown", "Unknown"]);
    assert_eq!(verdicts(&in_x, "y/web", "x/db", 80), ["Allow", "Unknown"]);
    assert_eq!(verdicts(&in_x, "y/web", "y/db", 80), ["Allow", "Allow"]);
    let anywhere = Arc::new(Policy::unreadable(ObjectRef::cluster("NetworkPolicy", "p"), fault()));
    assert_eq!(verdicts(from_ref(&anywhere), "y/web", "x/db", 80), ["Unknown", "Unknown"]);
    let reason = &judge(from_ref(&anywhere), "y/web", "x/db", 80).ingress.reason;
    assert_eq!(reason.to_string(), "NetworkPolicy/p could not be read at spec");
    let deny = mk_read(&mk_db(json!([])));
    assert_eq!(verdicts(&[deny, Arc::clone(&anywhere)], "y/web", "x/db", 80), ["Unknown", "Unknown"]);
    let open = mk_read(&mk_db(json!([{}])));
    assert_eq!(verdicts(&[open, anywhere], "y/web", "x/db", 80), ["Unknown", "Allow"]);
}

#[test]
fn the_reason_names_policy_and_field() {
    let policy = mk_read(&mk_db(json!([{}, {"from": [{"ipBlock": {"cidr": "x"}}]}])));
    assert_eq!(policy.faults()[0].field, "spec.ingress[1].from[0].ipBlock.cidr");
    let policy = mk_read(&mk_db(json!([{"ports": [{"port": 1}]}, {"from": [{"ipBlock": {"cidr": "x"}}]}])));
    let decision = judge(&[policy], "outside", "x/db", 80).ingress;
    let place = (decision.policy.as_ref().unwrap().to_string(), decision.rule, decision.peer);
    assert_eq!(place, ("NetworkPolicy/x/p".to_owned(), Some(1), Some(0)));
    let Reason::Unknown(UnknownReason::PolicyInvalid { field, .. }) = &decision.reason else {
        panic!("{}", decision.reason)
    };
    assert_eq!(&**field, "spec.ingress[1].from[0].ipBlock.cidr");
}

#[test]
fn fields_that_the_reader_did_not_understand_are_unknown_content() {
    let web = json!({"podSelector": {"matchLabels": {"app": "web"}}});
    let rules = json!([{"from": [web], "ports": [{"port": 80, "protocol": "TCP"}]}]);
    let db =
        json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"], "ingress": rules});
    let no_from =
        json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"ports": [{"port": 80}]}]});
    for (says, spec, path, from, port, ingress) in [
        ("a peer's field", &db, "spec.ingress[0].from[0].podSelektor", "y/db", 80, "Unknown"),
        ("a peer's field, port excluded", &db, "spec.ingress[0].from[0].podSelektor", "y/db", 81, "Deny"),
        ("a peer's labels", &db, "spec.ingress[0].from[0].podSelector.matchLabel", "x/plain", 80, "Unknown"),
        (
            "a peer's labels, another namespace",
            &db,
            "spec.ingress[0].from[0].podSelector.x",
            "y/db",
            80,
            "Deny",
        ),
        ("a misspelt from", &no_from, "spec.ingress[0].form", "y/db", 80, "Unknown"),
        ("a misspelt from, port excluded", &no_from, "spec.ingress[0].form", "y/db", 81, "Deny"),
        ("more in a whole rule", &db, "spec.ingress[0].x", "x/web", 80, "Unknown"),
        ("more in a whole rule, peer excluded", &db, "spec.ingress[0].x", "y/db", 80, "Deny"),
        ("a port's field", &db, "spec.ingress[0].ports[0].endport", "x/web", 81, "Unknown"),
        ("a port's field, peer excluded", &db, "spec.ingress[0].ports[0].endport", "y/db", 81, "Deny"),
        ("a list of ports", &db, "spec.ingress[0].ports", "x/web", 81, "Unknown"),
        ("a list of peers", &db, "spec.ingress[0].from", "y/db", 80, "Unknown"),
        ("a whole rule", &db, "spec.ingress[0]", "y/db", 81, "Unknown"),
        ("one more rule", &db, "spec.ingress[1]", "y/db", 81, "Unknown"),
        ("the list of rules", &db, "spec.ingress", "y/db", 81, "Unknown"),
        ("the subject", &db, "spec.podSelector.matchLabel", "y/db", 81, "Unknown"),
        ("the whole spec", &db, "spec", "y/db", 81, "Unknown"),
        ("what never decides", &db, "metadata.labels.x", "y/db", 81, "Deny"),
        ("nor does the status", &db, "status", "x/web", 80, "Allow"),
    ] {
        let np = serde_json::from_value(mk_policy("x", "p", spec.clone())).unwrap();
        let fault = Fault { field: path.to_owned(), message: "unknown field".to_owned() };
        let policy = Arc::new(Policy::from_network_policy_with(&np, vec![fault.clone()]));
        assert_eq!(policy.faults(), [fault]);
        assert_eq!(verdicts(&[policy], from, "x/db", port)[1], ingress, "{says}: {path}");
    }
}

#[test]
fn a_misspelt_section_leaves_its_direction_open() {
    let np =
        serde_json::from_value(mk_policy("x", "p", json!({"podSelector": {}, "ingress": [{}]}))).unwrap();
    let fault = Fault { field: "spec.egres".to_owned(), message: "unknown field".to_owned() };
    let policy = [Arc::new(Policy::from_network_policy_with(&np, vec![fault]))];
    assert_eq!(verdicts(&policy, "x/db", "y/web", 80), ["Unknown", "Allow"]);
    assert_eq!(verdicts(&policy, "y/web", "x/db", 80), ["Allow", "Allow"]);
}

#[test]
fn a_pod_without_address_against_a_block() {
    let block = [mk_db(json!([{"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"port": 80}]}]))];
    // The peer of the db pod has no address; the names are chosen so that it is not the db pod itself.
    let web = mk_policy(
        "x",
        "p",
        json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": block[0]["spec"]["ingress"]}),
    );
    row("its address may be in it", from_ref(&web), "x/pending -> x/web 80/TCP").both_ways().is("Unknown");
    row("not at this port", from_ref(&web), "x/pending -> x/web 81/TCP").both_ways().is("Deny");
    row("nor where blocks match no pods", &[web], "x/pending -> x/web 80/TCP")
        .dialect("standard,ip_block_matches_pods=false")
        .both_ways()
        .is("Deny");
}
