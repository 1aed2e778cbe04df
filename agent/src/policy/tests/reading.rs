//! What the API server refuses is a fault with its field's path; what it accepts is none.

use serde_json::{Value, json};

use super::build::{mk_policy, mk_read};

fn faults(spec: Value) -> Vec<String> {
    mk_read(&mk_policy("x", "p", spec)).faults().iter().map(|fault| fault.field.clone()).collect()
}

#[test]
fn each_fault_names_its_field() {
    let peer = |peer: Value| json!({"egress": [{}, {"to": [{"podSelector": {}}, peer]}]});
    let port = |port: Value| json!({"ingress": [{"ports": [{"port": 80}, port]}]});
    let expression = |operator: &str, values: Value| json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": operator, "values": values}]}});
    for (spec, field) in [
        (json!({"podSelector": {"matchLabels": {"-a": "b"}}}), "spec.podSelector.matchLabels.-a"),
        (expression("Is", json!(["b"])), "spec.podSelector.matchExpressions[0].operator"),
        (expression("In", json!([])), "spec.podSelector.matchExpressions[0].values"),
        (expression("Exists", json!(["b"])), "spec.podSelector.matchExpressions[0].values"),
        (json!({"policyTypes": ["Ingress", "Both"]}), "spec.policyTypes[1]"),
        (json!({"policyTypes": ["Ingress", "Egress", "Ingress"]}), "spec.policyTypes"),
        (peer(json!({})), "spec.egress[1].to[1]"),
        (peer(json!({"ipBlock": {"cidr": "192.0.2.0/24"}, "namespaceSelector": {}})), "spec.egress[1].to[1]"),
        (
            peer(json!({"namespaceSelector": {"matchLabels": {"a": "b c"}}})),
            "spec.egress[1].to[1].namespaceSelector.matchLabels.a",
        ),
        (
            peer(json!({"podSelector": {"matchLabels": {"a": "b c"}}})),
            "spec.egress[1].to[1].podSelector.matchLabels.a",
        ),
        (peer(json!({"ipBlock": {"cidr": ""}})), "spec.egress[1].to[1].ipBlock.cidr"),
        (peer(json!({"ipBlock": {"cidr": "192.0.2.1"}})), "spec.egress[1].to[1].ipBlock.cidr"),
        (peer(json!({"ipBlock": {"cidr": "192.0.2.0/33"}})), "spec.egress[1].to[1].ipBlock.cidr"),
        (peer(json!({"ipBlock": {"cidr": "192.0.2.0/+8"}})), "spec.egress[1].to[1].ipBlock.cidr"),
        (peer(json!({"ipBlock": {"cidr": "192.0.02.0/24"}})), "spec.egress[1].to[1].ipBlock.cidr"),
        (peer(json!({"ipBlock": {"cidr": "2001:db8::/129"}})), "spec.egress[1].to[1].ipBlock.cidr"),
        (peer(json!({"ipBlock": {"cidr": "::ffff:192.0.2.0/120"}})), "spec.egress[1].to[1].ipBlock.cidr"),
        (
            peer(json!({"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.0/25", "192.0.2.0/24"]}})),
            "spec.egress[1].to[1].ipBlock.except[1]",
        ),
        (
            peer(json!({"ipBlock": {"cidr": "192.0.2.0/24", "except": ["198.51.100.0/25"]}})),
            "spec.egress[1].to[1].ipBlock.except[0]",
        ),
        (
            peer(json!({"ipBlock": {"cidr": "192.0.2.0/24", "except": ["2001:db8::/64"]}})),
            "spec.egress[1].to[1].ipBlock.except[0]",
        ),
        (port(json!({"port": 0})), "spec.ingress[0].ports[1].port"),
        (port(json!({"port": 65536})), "spec.ingress[0].ports[1].port"),
        (port(json!({"port": "80"})), "spec.ingress[0].ports[1].port"),
        (port(json!({"port": ""})), "spec.ingress[0].ports[1].port"),
        (port(json!({"port": "a--b"})), "spec.ingress[0].ports[1].port"),
        (port(json!({"port": "-a"})), "spec.ingress[0].ports[1].port"),
        (port(json!({"port": "Http"})), "spec.ingress[0].ports[1].port"),
        (port(json!({"port": "sixteen-letters-"})), "spec.ingress[0].ports[1].port"),
        (port(json!({"protocol": "tcp"})), "spec.ingress[0].ports[1].protocol"),
        (port(json!({"protocol": "ICMP"})), "spec.ingress[0].ports[1].protocol"),
        (port(json!({"endPort": 81})), "spec.ingress[0].ports[1].endPort"),
        (port(json!({"port": "http", "endPort": 81})), "spec.ingress[0].ports[1].endPort"),
        (port(json!({"port": 80, "endPort": 79})), "spec.ingress[0].ports[1].endPort"),
        (port(json!({"port": 80, "endPort": 65536})), "spec.ingress[0].ports[1].endPort"),
    ] {
        assert_eq!(faults(spec.clone()), [field], "{spec}");
    }
}

#[test]
fn what_the_api_server_accepts_has_no_fault() {
    let peers = json!([
        {"podSelector": {}},
        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"example.com/a": ""}}},
        {"ipBlock": {"cidr": "192.0.2.1/24", "except": ["192.0.2.128/25", "192.0.2.7/32"]}},
        {"ipBlock": {"cidr": "2001:db8::/32", "except": ["2001:db8:1::/48"]}},
        {"ipBlock": {"cidr": "0.0.0.0/0"}},
    ]);
    let ports = json!([{}, {"protocol": "SCTP"}, {"port": "h2"}, {"port": 1, "endPort": 65535}]);
    let rules = json!([{}, {"from": [], "ports": []}, {"from": peers, "ports": ports}]);
    assert_eq!(
        faults(json!({"policyTypes": ["Ingress", "Ingress"], "ingress": rules})),
        Vec::<String>::new()
    );
    assert_eq!(faults(json!({})), Vec::<String>::new());
}

#[test]
fn an_object_without_name_or_namespace_says_so() {
    let policy = mk_read(&json!({"spec": {}}));
    let fields: Vec<&str> = policy.faults().iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(fields, ["metadata.name", "metadata.namespace"]);
}
