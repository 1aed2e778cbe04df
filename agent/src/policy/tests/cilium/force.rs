//! What is in force, what is not, and how it is told: lines 10 to 12.

use serde_json::{Value, json};

use super::super::build::Family;
use super::{WEB, allow, both, cilium, labels, mk_ccnp, mk_cnp, mk_group, mk_spec, port, read, why_not};

#[test]
fn line_10_requires_is_not_judged_and_host_policies_select_no_pod() {
    let rules = allow(json!({"Endpoints": [labels("app=web")], "Requires": [labels("tier=front")]}));
    both("it depends on the version", &rules, WEB, "Unknown");
    both("it only narrows", &rules, ("x/plain", "80/TCP"), "Deny");
    let host = mk_ccnp("p", json!({"nodeSelector": {}, "ingress": [{}]}));
    assert_eq!(read(&host).notes()[0].field, "spec.nodeSelector");
    cilium("no pod", &[host], "x/web -> x/db 80/TCP").is("Allow");
    let namespaced = mk_cnp("p", json!({"nodeSelector": {}, "ingress": [{}]}));
    assert!(why_not(&read(&namespaced)).contains("is for CiliumClusterwideNetworkPolicy only"));
    let both_selectors = mk_ccnp("p", json!({"nodeSelector": {}, "endpointSelector": {}, "ingress": [{}]}));
    assert!(why_not(&read(&both_selectors)).contains("must not have both"));
    let neither = mk_ccnp("p", json!({"ingress": [{}]}));
    assert!(why_not(&read(&neither)).contains("must have an endpointSelector"));
    both("addresses of a cloud are not judged", &allow(json!({"Groups": [{"aws": {}}]})), WEB, "Unknown");
}

#[test]
fn line_11_pruned_and_refused_are_told_apart() {
    let mut mutual = mk_cnp("p", mk_spec(&allow(json!({"Endpoints": [{}]})), true));
    mutual["spec"]["mutualAuth"] = json!(true);
    let policy = read(&mutual);
    assert!(policy.faults().is_empty(), "{:?}", policy.faults());
    assert_eq!(policy.notes()[0].field, "spec.mutualAuth");
    assert!(policy.notes()[0].message.contains("leaves it out"), "{}", policy.notes()[0].message);
    assert!(policy.notes()[0].message.contains("mutual TLS is not enforced"));
    cilium("pruned: as if it were not there", &[mutual], "x/web -> x/db 80/TCP").is("Allow");

    for (field, rule) in [
        (
            "spec.ingress[0].fromCIDRSet[0].except[0]",
            json!({"CIDRSet": [{"cidr": "10.0.0.0/8", "except": [{"cidr": "10.96.0.0/12"}]}]}),
        ),
        (
            "spec.ingress[0].toPorts[0].rules.http[0].headers[0]",
            json!({"toPorts": [{"rules": {"http": [{"headers": [{"name": "X"}]}]}}]}),
        ),
        ("spec.ingress[0].fromEndpoints", json!({"Endpoints": {}})),
    ] {
        let refused = mk_cnp("p", mk_spec(&allow(rule), true));
        let policy = read(&refused);
        assert_eq!(policy.faults()[0].field, field);
        assert!(policy.faults()[0].message.ends_with("the API server refuses the whole object"));
        cilium(
            "refused: what was meant is not known",
            std::slice::from_ref(&refused),
            "x/web -> x/db 80/TCP",
        )
        .is("Unknown, Unknown");
        cilium("elsewhere it is nothing", &[refused], "y/web -> y/db 80/TCP").is("Allow");
    }
    for (field, wanted, policy) in [
        ("spec.ingres", "Unknown", json!({"endpointSelector": {}, "ingres": [], "ingress": [{}]})),
        (
            "spec.ingress[0].fromEndpoint",
            "Unknown",
            json!({"endpointSelector": {}, "ingress": [{"fromEndpoint": [{}]}]}),
        ),
        (
            "spec.ingress[0].toPorts[0].ports[0].prot",
            "Unknown",
            json!({"endpointSelector": {}, "ingress": [{"toPorts": [{"ports": [{"port": "81", "prot": "TCP"}]}]}]}),
        ),
        (
            "spec.ingress[0].fromEndpoints[0].labels",
            "Unknown",
            json!({"endpointSelector": {}, "ingress": [{"fromEndpoints": [{"labels": {}}]}]}),
        ),
        (
            "spec.endpointSelector.labels",
            "Unknown",
            json!({"endpointSelector": {"labels": {}}, "ingress": [{}]}),
        ),
    ] {
        let policy = mk_cnp("p", policy);
        let fault = &read(&policy).faults()[0].clone();
        assert_eq!(fault.field, field);
        assert!(fault.message.contains("leaves it out, or refuses the object"), "{fault}");
        cilium("unknown, where it may decide", &[policy], "x/web -> x/db 80/TCP").is(wanted);
    }
    let misspelt = mk_cnp("p", json!({}));
    let mut misspelt = misspelt;
    misspelt["sepc"] = misspelt["spec"].take();
    misspelt.as_object_mut().unwrap().remove("spec");
    assert_eq!(read(&misspelt).faults()[0].field, "sepc");
}

#[test]
fn line_12_what_cilium_did_not_accept_is_not_in_force() {
    let empty = mk_cnp(
        "audit-deny",
        json!({"endpointSelector": {}, "enableDefaultDeny": {"ingress": true, "egress": true}}),
    );
    assert!(why_not(&read(&empty)).contains("has no rule"));
    cilium("it fails open", std::slice::from_ref(&empty), "x/web -> x/db 80/TCP").is("Allow");
    let denies = || mk_cnp("p", mk_spec(&allow(json!({})), true));
    let condition = |status: &str| {
        let mut policy = denies();
        policy["status"] =
            json!({"conditions": [{"type": "Valid", "status": status, "message": "no such thing"}]});
        policy
    };
    assert_eq!(
        why_not(&read(&condition("False"))),
        "its status says that Cilium did not accept it: no such thing"
    );
    cilium("not accepted", &[condition("False")], "x/web -> x/db 80/TCP").is("Allow");
    cilium("accepted", &[condition("True")], "x/web -> x/db 80/TCP").is("Deny");
    cilium("not said", &[condition("Unknown")], "x/web -> x/db 80/TCP").is("Deny");
    let mut by_node = denies();
    by_node["status"] = json!({"nodes": {"a": {"ok": true}, "b": {"error": "no such thing"}}});
    assert!(why_not(&read(&by_node)).contains("no such thing"));
    let mut disputed = empty;
    disputed["status"] = condition("True")["status"].clone();
    assert_eq!(read(&disputed).faults()[0].field, "spec");
    cilium("accepted against what we think", &[disputed], "x/web -> x/db 80/TCP").is("Unknown, Unknown");
}

#[test]
fn line_12_annotations_that_do_nothing_are_noted() {
    for annotation in
        ["io.cilium.policy.audit-mode", "io.cilium.proxy-visibility", "policy.cilium.io/proxy-visibility"]
    {
        let mut policy = mk_cnp("p", mk_spec(&allow(json!({})), true));
        policy["metadata"]["annotations"] = json!({annotation: "enabled"});
        assert_eq!(read(&policy).notes()[0].field, format!("metadata.annotations[{annotation}]"));
        cilium("the policy denies all the same", &[policy], "x/web -> x/db 80/TCP").is("Deny");
    }
}

#[test]
fn specs_are_policies_of_their_own() {
    let mut policy = mk_cnp("p", mk_spec(&allow(json!({"Endpoints": [labels("app=web")]})), true));
    policy["specs"] = json!([
        mk_spec(&allow(json!({"Endpoints": [labels("app=db")]})), false),
        mk_spec(&allow(json!({"Entities": ["world"]})), true)
    ]);
    let policies = [policy.clone()];
    cilium("spec", &policies, "x/web -> x/db 80/TCP").is("Allow");
    cilium("the second of specs", &policies, "outside -> x/db 80/TCP").is("Allow");
    cilium("none", &policies, "x/plain -> x/db 80/TCP").is("Deny");
    cilium("the first of specs", &policies, "x/db -> x/pending 80/TCP").is("Allow, Deny");
    cilium("it isolates", &policies, "x/db -> x/web 80/TCP").is("Deny, Allow");
    let decision = cilium("", &policies, "outside -> x/db 80/TCP").judgement(Family::V4).ingress;
    assert_eq!(decision.rule_name.as_deref(), Some("specs[1].ingress[0]"));
    policy.as_object_mut().unwrap().remove("spec");
    cilium("without a spec", &[policy], "x/web -> x/db 80/TCP").is("Deny");
    let mut nothing = mk_cnp("p", Value::Null);
    nothing.as_object_mut().unwrap().remove("spec");
    assert!(why_not(&read(&nothing)).contains("spec: is missing"));
}

#[test]
fn the_answer_names_the_rule_and_what_it_lacks() {
    let rules = json!({"allow": [{"Endpoints": [labels("k8s:app=web,k8s:io.kubernetes.pod.namespace=y")],
        "toPorts": port("80/TCP")}, {"Entities": ["cluster"], "toPorts": port("81/TCP")},
        {"toPorts": port("82/TCP"), "CIDRSet": [{"cidrGroupRef": "office"}]}],
        "deny": [{"Entities": ["remote-node"]}]});
    let policies = [mk_cnp("p", mk_spec(&rules, true)), mk_group("office", json!({}), &["203.0.113.0/24"])];
    let text = cilium("", &policies, "x/web -> x/db 80/TCP").explanation(Family::V4).to_string();
    insta::assert_snapshot!(text);
}
