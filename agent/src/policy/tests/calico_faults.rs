//! What Calico would refuse: an error that names the field, and an effect that is unknown where it could matter.

use serde_json::{Value, json};

use super::build::{mk_read, row};
use super::calico::mk;

const ASK: &str = "x/web -> x/db 80/TCP";

/// The spec of a policy for the db pods of namespace x.
fn mk_spec(more: Value) -> Value {
    let mut spec = json!({"selector": "app == 'db'", "types": ["Ingress"], "ingress": [{"action": "Allow"}]});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

fn mk_rule(more: Value) -> Value {
    let mut rule = json!({"action": "Allow"});
    for (key, value) in more.as_object().unwrap() {
        rule[key] = value.clone();
    }
    mk_spec(json!({"ingress": [rule]}))
}

fn fields(policy: &Value) -> Vec<String> {
    mk_read(policy).faults().iter().map(|fault| fault.field.clone()).collect()
}

#[test]
fn a_policy_that_cannot_be_read_in_full_names_the_field() {
    for (spec, field, verdict) in [
        (mk_spec(json!({"selector": "app = 'db'"})), "spec.selector", "Unknown"),
        (mk_spec(json!({"selector": "global()"})), "spec.selector", "Unknown"),
        (mk_spec(json!({"serviceAccountSelector": "("})), "spec.serviceAccountSelector", "Unknown"),
        (mk_spec(json!({"types": ["ingress"]})), "spec.types[0]", "Unknown"),
        (mk_spec(json!({"namespaceSelector": "all()"})), "spec.namespaceSelector", "Unknown"),
        (mk_spec(json!({"doNotTrack": false})), "spec.doNotTrack", "Unknown"),
        (mk_spec(json!({"stagedAction": "Set"})), "spec.stagedAction", "Unknown"),
        (mk_spec(json!({"selectors": "all()"})), "spec.selectors", "Unknown"),
        (mk_rule(json!({"action": "allow"})), "spec.ingress[0].action", "Unknown"),
        (mk_rule(json!({"action": null})), "spec.ingress[0].action", "Unknown"),
        (mk_rule(json!({"sources": {}})), "spec.ingress[0].sources", "Unknown"),
        (mk_rule(json!({"source": {"selectr": "x"}})), "spec.ingress[0].source.selectr", "Unknown"),
        (mk_rule(json!({"source": {"selector": "app =="}})), "spec.ingress[0].source.selector", "Unknown"),
        (mk_rule(json!({"source": {"selector": "global()"}})), "spec.ingress[0].source.selector", "Unknown"),
        (mk_rule(json!({"source": {"notSelector": "%"}})), "spec.ingress[0].source.notSelector", "Unknown"),
        (
            mk_rule(json!({"source": {"namespaceSelector": "a b"}})),
            "spec.ingress[0].source.namespaceSelector",
            "Unknown",
        ),
        (
            mk_rule(json!({"source": {"serviceAccounts": {"selector": "!"}}})),
            "spec.ingress[0].source.serviceAccounts.selector",
            "Unknown",
        ),
        (mk_rule(json!({"source": {"nets": ["192.0.2.0/33"]}})), "spec.ingress[0].source.nets[0]", "Unknown"),
        (mk_rule(json!({"source": {"notNets": ["x"]}})), "spec.ingress[0].source.notNets[0]", "Unknown"),
        (mk_rule(json!({"source": {"services": {}}})), "spec.ingress[0].source.services.name", "Unknown"),
        (
            mk_rule(json!({"source": {"services": {"name": "a"}, "nets": ["198.51.100.0/24"]}})),
            "spec.ingress[0].source.services",
            "Unknown",
        ),
        (mk_rule(json!({"source": {"domains": ["a.io"]}})), "spec.ingress[0].source.domains", "Unknown"),
        (mk_rule(json!({"destination": {"ports": [80]}})), "spec.ingress[0].protocol", "Unknown"),
        (
            mk_rule(json!({"protocol": "ICMP", "destination": {"ports": [80]}})),
            "spec.ingress[0].protocol",
            "Unknown",
        ),
        (mk_rule(json!({"protocol": "TPC"})), "spec.ingress[0].protocol", "Unknown"),
        (mk_rule(json!({"protocol": 256})), "spec.ingress[0].protocol", "Unknown"),
        (mk_rule(json!({"notProtocol": 0})), "spec.ingress[0].notProtocol", "Unknown"),
        (
            mk_rule(json!({"protocol": "TCP", "destination": {"ports": ["90:80"]}})),
            "spec.ingress[0].destination.ports[0]",
            "Unknown",
        ),
        (
            mk_rule(json!({"protocol": "TCP", "destination": {"notPorts": [65536]}})),
            "spec.ingress[0].destination.notPorts[0]",
            "Unknown",
        ),
        (mk_rule(json!({"icmp": {"type": 8}})), "spec.ingress[0].icmp", "Unknown"),
        (mk_rule(json!({"ipVersion": 5})), "spec.ingress[0].ipVersion", "Unknown"),
        (mk_rule(json!({"http": {}, "action": "Deny"})), "spec.ingress[0].http", "Deny"),
        (mk_rule(json!({"http": {"paths": [{}]}})), "spec.ingress[0].http.paths[0]", "Unknown"),
    ] {
        let policy = mk("NetworkPolicy", "x/p", spec);
        assert_eq!(fields(&policy), [field], "{policy}");
        row("where it could matter", std::slice::from_ref(&policy), ASK).is(verdict);
        row("nowhere else", &[policy], "x/web -> y/db 80/TCP").is("Allow");
    }
}

#[test]
fn what_a_broken_rule_could_not_change_is_certain() {
    let rules = |first: Value, second: &str| {
        [mk("NetworkPolicy", "x/p", mk_spec(json!({"ingress": [first, {"action": second}]})))]
    };
    let broken = |action: &str| json!({"action": action, "source": {"selector": "("}});
    row("an allow before an allow", &rules(broken("Allow"), "Allow"), ASK).is("Allow");
    row("an allow before a deny", &rules(broken("Allow"), "Deny"), ASK).is("Unknown");
    row("a deny before a deny", &rules(broken("Deny"), "Deny"), ASK).is("Deny");
    row("a log", &rules(broken("Log"), "Allow"), ASK).is("Allow");
    let icmp = |icmp: Value| json!({"action": "Allow", "protocol": "ICMP", "icmp": icmp});
    for (icmp_fields, field) in [
        (json!({"type": 255}), "type"),
        (json!({"type": 1, "code": 256}), "code"),
        (json!({"code": 1}), "code"),
    ] {
        let policies = rules(icmp(icmp_fields), "Deny");
        assert_eq!(fields(&policies[0]), [format!("spec.ingress[0].icmp.{field}")]);
        row("of another protocol", &policies, ASK).is("Deny");
    }
}

#[test]
fn a_tier_that_does_not_exist_or_is_broken_leaves_open_what_its_policies_do() {
    let policy = |tier: &str| mk("NetworkPolicy", "x/p", mk_spec(json!({"tier": tier})));
    row("there is none", &[policy("none")], ASK).is("Unknown");
    row("for others there is nothing to know", &[policy("none")], "x/db -> x/web 80/TCP").is("Allow");
    let first = mk("GlobalNetworkPolicy", "q", json!({"order": 1, "ingress": [{"action": "Deny"}]}));
    row("it may be before all others", &[policy("none"), first], ASK).is("Unknown");
    for (name, spec, field) in [
        ("t", json!({"defaultAction": "Allow"}), "spec.defaultAction"),
        ("t", json!({"defaultAction": "Deny", "orders": 1}), "spec.orders"),
        ("default", json!({"order": 5}), "spec.order"),
        ("default", json!({"defaultAction": "Pass"}), "spec.defaultAction"),
        ("kube-admin", json!({"defaultAction": "Deny"}), "spec.defaultAction"),
    ] {
        let tier = mk("Tier", name, spec);
        assert_eq!(fields(&tier), [field], "{tier}");
        row("it is broken", &[tier, policy(name)], ASK).is("Unknown");
    }
    let unreadable = mk("Tier", "t", json!({"order": "first"}));
    assert_eq!(fields(&unreadable), ["spec.order"]);
    row("its order is no number", &[unreadable, policy("t")], ASK).is("Unknown");
    let good = mk("Tier", "default", json!({"order": 1_000_000, "defaultAction": "Deny"}));
    assert_eq!(fields(&good), [""; 0]);
    row("as Calico makes it", &[good, policy("default")], ASK).is("Allow");
}

#[test]
fn a_set_that_cannot_be_read_in_full_may_hold_more() {
    let policy = mk("GlobalNetworkPolicy", "p", mk_rule(json!({"source": {"selector": "role == 'a'"}})));
    let mut set = mk("GlobalNetworkSet", "g", json!({"nets": ["192.0.2.128/25", "nonsense"]}));
    set["metadata"]["labels"] = json!({"role": "a"});
    assert_eq!(fields(&set), ["spec.nets[1]"]);
    row("what it holds", &[set.clone(), policy.clone()], "192.0.2.200 -> x/db 80/TCP").is("Allow");
    row("what it may hold", &[set.clone(), policy.clone()], "outside -> x/db 80/TCP").is("Unknown");
    set["metadata"]["labels"] = json!({"role": "b"});
    row("not meant", &[set.clone(), policy.clone()], "outside -> x/db 80/TCP").is("Deny");
    set["spec"]["nets"] = "192.0.2.0/24".into();
    assert_eq!(fields(&set), ["spec.nets"]);
    row("unreadable, its labels may be any", &[set, policy], "outside -> x/db 80/TCP").is("Unknown");
}

#[test]
fn unreadable_policies_may_say_anything_and_staged_ones_say_nothing() {
    let broken = |kind: &str, name: &str| mk(kind, name, json!({"ingress": {}}));
    let policy = broken("NetworkPolicy", "x/p");
    assert_eq!(fields(&policy), ["spec.ingress"]);
    row("in its namespace", std::slice::from_ref(&policy), ASK).is("Unknown, Unknown");
    row("in no other", &[policy], "y/web -> y/db 80/TCP").is("Allow");
    row("anywhere", &[broken("GlobalNetworkPolicy", "p")], "y/web -> y/db 80/TCP").is("Unknown, Unknown");
    for (kind, name) in [
        ("StagedNetworkPolicy", "x/p"),
        ("StagedGlobalNetworkPolicy", "p"),
        ("StagedKubernetesNetworkPolicy", "x/p"),
    ] {
        let policy = broken(kind, name);
        assert_eq!(fields(&policy), ["spec.ingress"]);
        row("staged", &[policy], ASK).is("Allow");
        let wrong = mk(kind, name, json!({"stagedAction": "Sett", "selector": null}));
        assert_eq!(fields(&wrong)[0], "spec.stagedAction");
    }
    let lost = mk("NetworkPolicy", "p", json!({"types": ["Ingress"]}));
    assert_eq!(fields(&lost), ["metadata.namespace"]);
    row("without a namespace it may be in any", &[lost], "x/web -> y/db 80/TCP").is("Unknown");
    let bare = json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": {"name": "p"}});
    assert_eq!(fields(&bare), ["spec"]);
}
