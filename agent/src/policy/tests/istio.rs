//! AuthorizationPolicy and PeerAuthentication: what is said of them, line by line.

mod http;
mod mutual;
pub(super) mod world;

use serde_json::json;

use self::world::{ask, deny, mk_ap, mk_pa, mtls, plain, tcp};
use super::build::{mk_policy, mk_read};
use crate::model::facts::ConnectionFacts;
use crate::model::verdict::{Fact, Reason, UnknownReason};
use crate::policy::Force;

const WEB: &str = "cluster.local/ns/m/sa/web";

fn from(source: serde_json::Value) -> serde_json::Value {
    json!([{"from": [{"source": source}]}])
}

#[test]
fn line_1_custom_then_deny_then_allow() {
    let all = json!([{}]);
    let custom = mk_ap("m", "c", json!({"action": "CUSTOM", "provider": {"name": "p"}, "rules": all}));
    let deny_all = mk_ap("m", "d", json!({"action": "DENY", "rules": all}));
    let allow_all = mk_ap("m", "a", json!({"rules": all}));
    let nothing = mk_ap("m", "n", json!({}));
    for (says, policies, wanted) in [
        ("no policy: allowed", vec![], "Allow"),
        ("an empty spec allows nothing", vec![nothing.clone()], "Deny"),
        ("an empty rule matches all", vec![allow_all.clone()], "Allow"),
        ("allow policies add up", vec![nothing.clone(), allow_all.clone()], "Allow"),
        ("deny comes first", vec![allow_all.clone(), deny_all.clone()], "Deny"),
        ("nobody knows what the provider says", vec![custom.clone(), allow_all], "Unknown"),
        ("it cannot allow what others deny", vec![custom.clone(), deny_all], "Deny"),
        ("nor what none allows", vec![custom, nothing], "Deny"),
        ("DENY without rules denies nothing", vec![mk_ap("m", "d", json!({"action": "DENY"}))], "Allow"),
        (
            "CUSTOM without rules asks nobody",
            vec![mk_ap("m", "c", json!({"action": "CUSTOM", "provider": {"name": "p"}}))],
            "Allow",
        ),
    ] {
        ask("m/web -> m/db 80/TCP").of(&policies).given(mtls(WEB)).is(says, wanted);
    }
}

#[test]
fn line_1_audit_never_blocks_and_a_dry_run_is_not_in_force() {
    let audit = mk_ap("m", "a", json!({"action": "AUDIT", "rules": [{}]}));
    ask("m/web -> m/db 80/TCP").of(&[audit.clone()]).is("AUDIT", "Allow");
    assert_eq!(mk_read(&audit).notes()[0].field, "spec.action");
    let mut dry = mk_ap("m", "a", json!({"action": "DENY", "rules": [{}]}));
    for (value, denied) in [("true", false), ("1", false), ("false", true), ("maybe", true)] {
        dry["metadata"]["annotations"] = json!({"istio.io/dry-run": value});
        ask("m/web -> m/db 80/TCP").of(&[dry.clone()]).is(value, if denied { "Deny" } else { "Allow" });
        assert_eq!(matches!(mk_read(&dry).force(), Force::NotInForce(_)), !denied, "{value}");
    }
    assert_eq!(mk_read(&dry).notes()[0].field, "metadata.annotations.istio.io/dry-run");
}

#[test]
fn line_2_sources_need_mutual_tls() {
    for (source, not_source) in [
        (json!({"principals": [WEB]}), json!({"notPrincipals": [WEB]})),
        (json!({"principals": ["*"]}), json!({"notPrincipals": ["*"]})),
        (json!({"namespaces": ["m"]}), json!({"notNamespaces": ["m"]})),
        (json!({"serviceAccounts": ["m/web"]}), json!({"notServiceAccounts": ["m/web"]})),
        (json!({"serviceAccounts": ["web"]}), json!({"notServiceAccounts": ["web"]})),
    ] {
        let allow = |source| [mk_ap("m", "a", json!({"rules": from(source)}))];
        let ask = || ask("m/web -> m/db 80/TCP");
        ask().of(&allow(source.clone())).given(mtls(WEB)).is("shown", "Allow");
        ask().of(&allow(source.clone())).given(plain()).is("plain text has no source", "Deny");
        ask().of(&allow(not_source.clone())).given(mtls(WEB)).is("not that one", "Deny");
        ask().of(&allow(not_source.clone())).given(plain()).is("plain text is not that one", "Allow");
        ask().of(&deny(not_source)).given(plain()).is("plain text is denied so", "Deny");
        ask().of(&allow(source.clone())).is("whether it is mutual TLS decides", "Unknown");
        let reason = ask().of(&allow(source)).decision().reason;
        assert!(
            matches!(reason, Reason::Unknown(UnknownReason::FactMissing { fact: Fact::MutualTls, .. })),
            "{reason}"
        );
    }
}

#[test]
fn line_2_who_cannot_match_is_denied_whether_or_not_it_is_encrypted() {
    let allow = [mk_ap("m", "a", json!({"rules": from(json!({"principals": [WEB]}))}))];
    ask("m/api -> m/db 80/TCP").of(&allow).is("another service account", "Deny");
    ask("n/web -> m/db 80/TCP").of(&allow).is("not in the mesh", "Deny");
    ask("outside -> m/db 80/TCP").of(&allow).is("it may be of another cluster in the mesh", "Unknown");
    ask("outside -> m/db 80/TCP").of(&allow).given(plain()).is("not by plain text", "Deny");
    let elsewhere = from(json!({"principals": ["other.domain/ns/m/sa/web"]}));
    let elsewhere = [mk_ap("m", "a", json!({"rules": elsewhere}))];
    let encrypted = ConnectionFacts { mutual_tls: Some(true), ..ConnectionFacts::NONE };
    ask("m/web -> m/db 80/TCP")
        .of(&elsewhere)
        .given(encrypted.clone())
        .is("the trust domain is not known", "Unknown");
    ask("m/api -> m/db 80/TCP").of(&elsewhere).given(encrypted).is("but the rest is", "Deny");
    for (pattern, wanted) in [
        ("cluster.local/ns/m/*", "Allow"),
        ("cluster.local/ns/x/*", "Deny"),
        ("other/ns/x/*", "Deny"),
        ("other/ns/m/*", "Unknown"),
        ("*/sa/web", "Allow"),
        ("*/sa/db", "Deny"),
        ("*", "Allow"),
    ] {
        let allow = [mk_ap("m", "a", json!({"rules": from(json!({"principals": [pattern]}))}))];
        let encrypted = ConnectionFacts { mutual_tls: Some(true), ..ConnectionFacts::NONE };
        ask("m/web -> m/db 80/TCP").of(&allow).given(encrypted).is(pattern, wanted);
    }
}

#[test]
fn line_2_both_cases_of_mutual_tls_are_tried() {
    let strict = mk_pa("m", "s", json!({"mtls": {"mode": "STRICT"}}));
    let policies = [strict.clone(), deny(json!({"principals": [WEB]}))[0].clone()];
    ask("m/web -> m/db 80/TCP").of(&policies).is("plain text is refused, and mutual TLS denied", "Deny");
    let negative = [strict, mk_ap("m", "a", json!({"rules": from(json!({"notNamespaces": ["m"]}))}))];
    ask("m/web -> m/db 80/TCP").of(&negative).is("refused, or not allowed", "Deny");
}

#[test]
fn line_4_the_root_namespace_holds_for_the_mesh() {
    let everywhere = [mk_ap("istio-system", "r", json!({}))];
    let selected = json!({"selector": {"matchLabels": {"app": "db"}}});
    for to in ["m/db", "a/db", "i/db", "istio-system/pod"] {
        ask(&format!("m/web -> {to} 80/TCP")).dialect("istio-ambient").of(&everywhere).is(to, "Deny");
    }
    ask("m/api -> m/web 80/TCP")
        .of(&[mk_ap("istio-system", "r", selected.clone())])
        .is("not selected", "Allow");
    ask("m/api -> m/db 80/TCP").of(&[mk_ap("istio-system", "r", selected.clone())]).is("selected", "Deny");
    ask("m/web -> i/db 80/TCP").of(&[mk_ap("m", "r", json!({}))]).is("others for their own", "Allow");
    ask("m/api -> m/web 80/TCP").of(&[mk_ap("m", "r", selected)]).is("not selected", "Allow");
}

#[test]
fn line_4_target_refs_are_about_no_pod() {
    for targets in [
        json!({"targetRefs": [{"kind": "Service", "group": "", "name": "db"}]}),
        json!({"targetRef": {"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": "g"}}),
    ] {
        let policy = mk_ap("m", "t", targets);
        ask("m/web -> m/db 80/TCP").of(&[policy.clone()]).is("at a waypoint", "Allow");
        let read = mk_read(&policy);
        assert!(read.notes()[0].field.starts_with("spec.targetRef") && read.faults().is_empty());
    }
    let both = json!({"selector": {}, "targetRefs": [{"kind": "Service", "group": "", "name": "db"}]});
    ask("m/web -> m/db 80/TCP").of(&[mk_ap("m", "t", both)]).is("refused", "Unknown");
}

#[test]
fn line_6_the_inner_port_is_not_known_unless_told() {
    let ports =
        |ports: &[&str]| [mk_ap("a", "p", json!({"rules": [{"to": [{"operation": {"ports": ports}}]}]}))];
    let inner = |port| ConnectionFacts { inner_port: Some(port), ..mtls(WEB) };
    let tunnel = || ask("a/web -> a/db 15008/TCP").dialect("istio-ambient");
    tunnel().of(&ports(&["80"])).is("any port may be inside", "Unknown");
    tunnel().of(&ports(&["80"])).given(inner(80)).is("told", "Allow");
    tunnel().of(&ports(&["80"])).given(inner(81)).is("told", "Deny");
    let reason = tunnel().of(&ports(&["80"])).decision().reason;
    assert!(matches!(reason, Reason::Unknown(UnknownReason::FactMissing { fact: Fact::InnerPort, .. })));
    let strict = [mk_pa("a", "s", json!({"mtls": {"mode": "STRICT"}}))];
    tunnel().of(&strict).is("the tunnel is mutual TLS", "Allow");
    // NetworkPolicy sees the tunnel.
    let np = |port: u16| {
        mk_policy("a", "np", json!({"podSelector": {}, "ingress": [{"ports": [{"port": port}]}]}))
    };
    tunnel().of(&[np(15008)]).is("the port on the wire", "Allow");
    tunnel().of(&[np(80)]).given(inner(80)).is("not the inner one", "Deny");
    ask("m/web -> m/db 15008/TCP")
        .of(&[mk_ap("m", "p", json!({"rules": [{"to": [{"operation": {"ports": ["80"]}}]}]}))])
        .is("a sidecar has no tunnel", "Deny");
}

#[test]
fn line_7_all_layers_must_allow() {
    let np = |ingress| mk_policy("m", "np", json!({"podSelector": {}, "ingress": ingress}));
    let (open, closed) = (mk_ap("m", "a", json!({"rules": [{}]})), mk_ap("m", "a", json!({})));
    for (says, policies, wanted) in [
        ("both allow", [np(json!([{}])), open.clone()], "Allow"),
        ("the network denies", [np(json!([])), open], "Deny"),
        ("the mesh denies", [np(json!([{}])), closed], "Deny"),
    ] {
        ask("m/web -> m/db 80/TCP").of(&policies).given(mtls(WEB)).is(says, wanted);
    }
    let closed = [mk_ap("m", "a", json!({}))];
    for probe in ["53/UDP", "7/SCTP", "2048/ICMP"] {
        ask(&format!("m/web -> m/db {probe}")).of(&closed).is("the mesh knows TCP alone", "Allow");
    }
    for port in [15020, 15021, 15090] {
        ask(&format!("m/web -> m/db {port}/TCP")).of(&closed).is("the sidecar's own ports", "Allow");
    }
    ask("m/db -> m/web 80/TCP")
        .of(&[mk_ap("m", "a", json!({"selector": {"matchLabels": {"app": "db"}}}))])
        .is("nothing is judged at the initiator", "Allow");
}

#[test]
fn who_is_in_the_mesh_is_found_by_labels() {
    let closed = [mk_ap("istio-system", "r", json!({}))];
    for (to, sidecar, ambient, standard) in [
        ("m/db", "Deny", "Deny", "Deny"),
        ("i/db", "Deny", "Deny", "Deny"),
        ("i/out", "Allow", "Allow", "Allow"),
        ("i/host", "Allow", "Allow", "Allow"),
        ("rev/db", "Deny", "Deny", "Deny"),
        ("a/db", "Allow", "Deny", "Deny"),
        ("a/none", "Allow", "Allow", "Unknown"),
        ("a/sidecar", "Deny", "Deny", "Deny"),
        ("n/db", "Allow", "Allow", "Allow"),
        // Without a label there is none by default, but an installation may say otherwise.
        ("u/db", "Allow", "Allow", "Unknown"),
        ("u/in", "Deny", "Deny", "Deny"),
        ("istio-system/gateway", "Deny", "Deny", "Deny"),
        ("istio-system/waypoint", "Allow", "Allow", "Allow"),
    ] {
        for (dialect, wanted) in
            [("istio-sidecar", sidecar), ("istio-ambient", ambient), ("standard", standard)]
        {
            ask(&format!("n/web -> {to} 80/TCP"))
                .dialect(dialect)
                .of(&closed)
                .is(&format!("{to} {dialect}"), wanted);
        }
    }
    let reason = ask("n/web -> u/db 80/TCP").dialect("standard").of(&closed).decision().reason;
    assert!(matches!(reason, Reason::Unknown(UnknownReason::FactMissing { fact: Fact::MeshMember, .. })));
}

#[test]
fn addresses_and_ports() {
    let allow = |rules| [mk_ap("m", "a", json!({"rules": rules}))];
    let op = |operation| json!([{"to": [{"operation": operation}]}]);
    for (rules, asked, wanted) in [
        (op(json!({"ports": ["80", "81"]})), "m/web -> m/db 81/TCP", "Allow"),
        (op(json!({"ports": ["80"]})), "m/web -> m/db 82/TCP", "Deny"),
        (op(json!({"notPorts": ["80"]})), "m/web -> m/db 80/TCP", "Deny"),
        (op(json!({"notPorts": ["80"]})), "m/web -> m/db 81/TCP", "Allow"),
        (from(json!({"ipBlocks": ["203.0.113.0/24"]})), "outside -> m/db 80/TCP", "Allow"),
        (from(json!({"ipBlocks": ["203.0.113.0/24"]})), "m/web -> m/db 80/TCP", "Deny"),
        (from(json!({"ipBlocks": ["198.51.100.0/24"]})), "m/web -> m/db 80/TCP", "Allow"),
        (from(json!({"notIpBlocks": ["203.0.113.0/24"]})), "outside -> m/db 80/TCP", "Deny"),
        (from(json!({"ipBlocks": ["203.0.113.7"]})), "outside -> m/db 80/TCP", "Allow"),
        (
            from(json!({"ipBlocks": ["203.0.113.0/24"], "notIpBlocks": ["203.0.113.7"]})),
            "outside -> m/db 80/TCP",
            "Deny",
        ),
        (
            json!([{"from": [{"source": {"ipBlocks": ["192.0.2.0/24"]}}, {"source": {"ipBlocks": ["203.0.113.0/24"]}}]}]),
            "outside -> m/db 80/TCP",
            "Allow",
        ),
        (
            json!([{"when": [{"key": "source.ip", "values": ["203.0.113.0/24"]}]}]),
            "outside -> m/db 80/TCP",
            "Allow",
        ),
        (
            json!([{"when": [{"key": "source.ip", "notValues": ["203.0.113.0/24"]}]}]),
            "outside -> m/db 80/TCP",
            "Deny",
        ),
        (
            json!([{"when": [{"key": "destination.port", "values": ["80"]}]}]),
            "outside -> m/db 80/TCP",
            "Allow",
        ),
        (
            json!([{"when": [{"key": "destination.port", "notValues": ["80"]}]}]),
            "outside -> m/db 80/TCP",
            "Deny",
        ),
        (
            json!([{"when": [{"key": "destination.ip", "values": ["198.51.100.0/24"]}]}]),
            "outside -> m/db 80/TCP",
            "Allow",
        ),
        (
            json!([{"when": [{"key": "destination.ip", "notValues": ["198.51.100.0/24"]}]}]),
            "outside -> m/db 80/TCP",
            "Deny",
        ),
        (
            json!([{"when": [{"key": "destination.port", "values": ["80"]}, {"key": "source.ip", "values": ["192.0.2.0/24"]}]}]),
            "outside -> m/db 80/TCP",
            "Deny",
        ),
    ] {
        ask(asked).of(&allow(rules.clone())).is(&rules.to_string(), wanted);
    }
}

#[test]
fn conditions_on_the_source_and_on_tls() {
    let when = |key: &str, field: &str, value: &str| {
        [mk_ap("m", "a", json!({"rules": [{"when": [{"key": key, field: [value]}]}]}))]
    };
    let named = ConnectionFacts { server_name: Some("a.example".into()), ..mtls(WEB) };
    for (key, value, matches) in [
        ("source.namespace", "m", true),
        ("source.namespace", "x", false),
        ("source.principal", WEB, true),
        ("source.principal", "cluster.local/ns/m/sa/db", false),
        ("source.serviceAccount", "m/web", true),
        ("connection.sni", "a.example", true),
        ("connection.sni", "*.example", true),
        ("connection.sni", "b.example", false),
    ] {
        let ask = || ask("m/web -> m/db 80/TCP").given(named.clone());
        ask().of(&when(key, "values", value)).is(value, if matches { "Allow" } else { "Deny" });
        ask().of(&when(key, "notValues", value)).is(value, if matches { "Deny" } else { "Allow" });
    }
    ask("m/web -> m/db 80/TCP").of(&when("connection.sni", "values", "a")).is("not known", "Unknown");
    let envoy = when("experimental.envoy.filters.a.b[c]", "values", "x");
    let reason = ask("m/web -> m/db 80/TCP").of(&envoy).given(tcp()).decision().reason;
    assert_eq!(
        reason.to_string(),
        "AuthorizationPolicy/m/a has spec.rules[0].when[0].values, which is not judged"
    );
}

#[test]
fn what_istio_refuses_is_named_and_unknown() {
    for (rules, field) in [
        (json!([{"from": []}]), "spec.rules[0].from"),
        (json!([{"to": []}]), "spec.rules[0].to"),
        (json!([{"from": [{}]}]), "spec.rules[0].from[0].source"),
        (json!([{"from": [{"source": {}}]}]), "spec.rules[0].from[0].source"),
        (json!([{"to": [{"operation": {}}]}]), "spec.rules[0].to[0].operation"),
        (json!([{"to": [{"operation": {"ports": ["http"]}}]}]), "spec.rules[0].to[0].operation.ports[0]"),
        (json!([{"to": [{"operation": {"ports": ["70000"]}}]}]), "spec.rules[0].to[0].operation.ports[0]"),
        (json!([{"to": [{"operation": {"port": ["80"]}}]}]), "spec.rules[0].to[0].operation.port"),
        (from(json!({"ipBlocks": ["nonsense"]})), "spec.rules[0].from[0].source.ipBlocks[0]"),
        (from(json!({"principals": [""]})), "spec.rules[0].from[0].source.principals[0]"),
        (from(json!({"serviceAccounts": ["m/*"]})), "spec.rules[0].from[0].source.serviceAccounts[0]"),
        (from(json!({"principal": ["a"]})), "spec.rules[0].from[0].source.principal"),
        (json!([{"when": [{"key": "source.nonsense", "values": ["a"]}]}]), "spec.rules[0].when[0].key"),
        (json!([{"when": [{"key": "source.ip"}]}]), "spec.rules[0].when[0]"),
        (json!([{"form": []}]), "spec.rules[0].form"),
    ] {
        for action in ["ALLOW", "DENY"] {
            let policy = mk_ap("m", "a", json!({"action": action, "rules": rules}));
            assert_eq!(mk_read(&policy).faults()[0].field, field, "{rules}");
            for dialect in ["istio-sidecar", "istio-ambient"] {
                ask("m/web -> m/db 80/TCP")
                    .dialect(dialect)
                    .of(&[policy.clone()])
                    .given(mtls(WEB))
                    .is(field, "Unknown");
            }
        }
    }
    for (spec, field) in [
        (json!({"action": "REFUSE", "rules": [{}]}), "spec.action"),
        (json!({"action": "CUSTOM", "rules": [{}]}), "spec.provider"),
        (json!({"action": "DENY", "provider": {"name": "p"}, "rules": [{}]}), "spec.provider"),
        (json!({"selector": {"matchLabel": {}}}), "spec.selector.matchLabel"),
        (json!({"rulez": []}), "spec.rulez"),
        (json!({"rules": "all"}), "spec.rules"),
        (json!({"action": 7}), "spec.action"),
    ] {
        let policy = mk_ap("m", "a", spec);
        assert_eq!(mk_read(&policy).faults()[0].field, field);
        ask("m/web -> m/db 80/TCP").of(&[policy.clone()]).is(field, "Unknown");
        ask("m/web -> i/db 80/TCP").of(&[policy.clone()]).is("nothing elsewhere", "Allow");
        ask("m/web -> m/db 80/UDP").of(&[policy]).is("nothing but TCP", "Allow");
    }
}

#[test]
fn the_chain_names_policy_and_rule() {
    let policies = [
        mk_pa("m", "strict", json!({"mtls": {"mode": "STRICT"}})),
        mk_ap("m", "only-web", json!({"rules": from(json!({"principals": [WEB]}))})),
    ];
    let decision =
        ask("m/api -> m/db 80/TCP").of(&policies).given(mtls("cluster.local/ns/m/sa/api")).decision();
    let chain: Vec<String> = decision.chain.iter().map(ToString::to_string).collect();
    assert_eq!(
        chain,
        [
            "PeerAuthentication: Pass by PeerAuthentication/m/strict rule mtls",
            "*AuthorizationPolicy tier ALLOW: Deny, isolated by AuthorizationPolicy/m/only-web; no rule matches",
        ]
    );
}
