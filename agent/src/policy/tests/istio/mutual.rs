//! PeerAuthentication.

use serde_json::{Value, json};

use super::WEB;
use super::world::{ask, mk_pa, mtls, plain};
use crate::policy::tests::build::mk_read;

fn mode(namespace: &str, name: &str, mode: &str) -> Value {
    mk_pa(namespace, name, json!({"mtls": {"mode": mode}}))
}

fn workload(name: &str, mode: &str, ports: Value) -> Value {
    mk_pa(
        "m",
        name,
        json!({"selector": {"matchLabels": {"app": "db"}}, "mtls": {"mode": mode}, "portLevelMtls": ports}),
    )
}

/// What plain text to port 80 gets, and to port 81; mutual TLS is always let in.
fn plain_gets(policies: &[Value], wanted: [&str; 2], says: &str) {
    for dialect in ["istio-sidecar", "istio-ambient"] {
        for (port, wanted) in [80, 81].into_iter().zip(wanted) {
            let ask = || ask(&format!("m/web -> m/db {port}/TCP")).dialect(dialect).of(policies);
            ask().given(plain()).is(says, wanted);
            ask().given(mtls(WEB)).is(says, "Allow");
            ask().is(says, if wanted == "Deny" { "Unknown" } else { "Allow" });
        }
    }
}

#[test]
fn line_5_strict_refuses_plain_text() {
    plain_gets(&[], ["Allow"; 2], "nothing said: permissive");
    plain_gets(&[mode("m", "p", "STRICT")], ["Deny"; 2], "strict");
    plain_gets(&[mode("m", "p", "PERMISSIVE")], ["Allow"; 2], "permissive");
    plain_gets(&[mode("m", "p", "DISABLE")], ["Allow"; 2], "disabled");
    plain_gets(&[mode("m", "p", "UNSET")], ["Allow"; 2], "unset");
    plain_gets(&[mk_pa("m", "p", json!({}))], ["Allow"; 2], "an empty spec");
    plain_gets(&[mode("i", "p", "STRICT")], ["Allow"; 2], "in another namespace");
    let strict = [mode("istio-system", "p", "STRICT")];
    ask("n/web -> m/db 80/TCP").of(&strict).is("who is not in the mesh has plain text only", "Deny");
    ask("u/db -> m/db 80/TCP").of(&strict).is("nor who has no label", "Deny");
    ask("u/db -> m/db 80/TCP").of(&strict).dialect("standard").is("which may mean nothing", "Unknown");
    ask("outside -> m/db 80/TCP").of(&strict).is("outside may be the mesh's too", "Unknown");
    ask("istio-system/gateway -> m/db 80/TCP").of(&strict).is("a gateway speaks mutual TLS", "Unknown");
    ask("outside -> istio-system/gateway 443/TCP")
        .of(&strict)
        .given(plain())
        .is("and takes what comes", "Allow");
    ask("m/web -> n/db 80/TCP").of(&strict).given(plain()).is("nobody refuses it outside the mesh", "Allow");
    ask("a/web -> a/db 80/TCP")
        .dialect("istio-ambient")
        .of(&strict)
        .given(plain())
        .is("ztunnel does", "Deny");
}

#[test]
fn line_5_workload_over_namespace_over_mesh() {
    let [mesh, namespace] = [mode("istio-system", "m", "STRICT"), mode("m", "n", "PERMISSIVE")];
    plain_gets(&[mesh.clone(), namespace.clone()], ["Allow"; 2], "namespace over mesh");
    let own = workload("w", "STRICT", json!({}));
    plain_gets(&[mesh.clone(), namespace.clone(), own.clone()], ["Deny"; 2], "workload over both");
    let other = [mesh.clone(), namespace, own];
    ask("m/db -> m/web 80/TCP").of(&other).given(plain()).is("not of this workload", "Allow");
    plain_gets(&[mesh.clone(), mode("m", "n", "UNSET")], ["Deny"; 2], "the namespace inherits");
    let unset = workload("w", "UNSET", json!({}));
    plain_gets(&[mesh.clone(), unset.clone()], ["Deny"; 2], "the workload inherits from the mesh");
    plain_gets(&[mesh, mode("m", "n", "PERMISSIVE"), unset], ["Allow"; 2], "and from the namespace first");
}

#[test]
fn line_5_ports_need_a_workload() {
    let port = |mode: &str| json!({"80": {"mode": mode}});
    plain_gets(&[workload("w", "STRICT", port("PERMISSIVE"))], ["Allow", "Deny"], "open at a port");
    plain_gets(&[workload("w", "STRICT", port("DISABLE"))], ["Allow", "Deny"], "disabled at a port");
    plain_gets(&[workload("w", "PERMISSIVE", port("STRICT"))], ["Deny", "Allow"], "strict at a port");
    plain_gets(&[workload("w", "STRICT", port("UNSET"))], ["Deny"; 2], "a port inherits from its workload");
    let strict = mode("m", "n", "STRICT");
    plain_gets(
        &[strict.clone(), workload("w", "UNSET", port("PERMISSIVE"))],
        ["Allow", "Deny"],
        "and all from the namespace",
    );
    plain_gets(&[strict, workload("w", "UNSET", port("UNSET"))], ["Deny"; 2], "and further");
    let alone = mk_pa("m", "n", json!({"mtls": {"mode": "STRICT"}, "portLevelMtls": port("PERMISSIVE")}));
    assert_eq!(mk_read(&alone).faults()[0].field, "spec.portLevelMtls");
    ask("m/web -> m/db 80/TCP").of(&[alone]).given(plain()).is("refused", "Unknown");
    for (ports, field) in [
        (json!({"http": {"mode": "STRICT"}}), "spec.portLevelMtls.http"),
        (json!({"80": {"mode": "TIGHT"}}), "spec.portLevelMtls.80.mode"),
    ] {
        let policy = workload("w", "STRICT", ports);
        assert_eq!(mk_read(&policy).faults()[0].field, field);
        ask("m/web -> m/db 80/TCP").of(&[policy.clone()]).given(plain()).is(field, "Unknown");
        ask("m/web -> m/db 80/TCP").of(&[policy]).given(mtls(WEB)).is(field, "Allow");
    }
}

#[test]
fn line_5_the_oldest_wins() {
    let aged = |mut policy: Value, created: &str| {
        policy["metadata"]["creationTimestamp"] = created.into();
        policy
    };
    let (old, new) = ("2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z");
    for (first, second, wanted) in [("STRICT", "PERMISSIVE", "Deny"), ("PERMISSIVE", "STRICT", "Allow")] {
        for [a, b] in [["a", "z"], ["z", "a"]] {
            let policies = [aged(mode("m", a, first), old), aged(mode("m", b, second), new)];
            plain_gets(&policies, [wanted; 2], "of a namespace");
            let policies =
                [aged(workload(a, first, json!({})), old), aged(workload(b, second, json!({})), new)];
            plain_gets(&policies, [wanted; 2], "of a workload");
        }
    }
    // The younger one is not asked where the older leaves it open: the namespace is.
    let policies = [
        aged(workload("a", "UNSET", json!({"81": {"mode": "STRICT"}})), old),
        aged(workload("b", "STRICT", json!({})), new),
        mode("m", "n", "PERMISSIVE"),
    ];
    plain_gets(&policies, ["Allow", "Deny"], "whole objects, not fields");
    let same = [aged(mode("m", "a", "STRICT"), old), aged(mode("m", "b", "PERMISSIVE"), old)];
    plain_gets(&same, ["Deny"; 2], "of one age, by name");
}

#[test]
fn a_selector_in_the_root_namespace_does_nothing() {
    let policy = mk_pa(
        "istio-system",
        "w",
        json!({"selector": {"matchLabels": {"app": "db"}}, "mtls": {"mode": "STRICT"}}),
    );
    plain_gets(&[policy.clone()], ["Allow"; 2], "left out");
    assert_eq!(mk_read(&policy).notes()[0].field, "spec.selector");
}

#[test]
fn what_cannot_be_read_may_be_anything() {
    for (spec, field) in [
        (json!({"mtls": {"mode": "TIGHT"}}), "spec.mtls.mode"),
        (json!({"mtls": {"mod": "STRICT"}}), "spec.mtls.mod"),
        (json!({"mtls": "STRICT"}), "spec.mtls"),
        (json!({"tls": {"mode": "STRICT"}}), "spec.tls"),
    ] {
        let policy = mk_pa("m", "p", spec);
        assert_eq!(mk_read(&policy).faults()[0].field, field);
        let unread = field == "spec.tls";
        ask("m/web -> m/db 80/TCP")
            .of(&[policy.clone()])
            .given(plain())
            .is(field, if unread { "Allow" } else { "Unknown" });
        ask("m/web -> m/db 80/TCP").of(&[policy]).given(mtls(WEB)).is(field, "Allow");
    }
}
