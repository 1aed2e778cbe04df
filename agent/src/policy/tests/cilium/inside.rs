//! Ports, and what is asked inside connections: lines 6, 7, 9 and 10.

use serde_json::{Value, json};

use super::super::build::{Family, Row};
use super::{
    WEB, allow, both, cilium, dns, http, l7_http, labels, mk_cnp, mk_spec, port, read, why_not, with,
};
use crate::model::facts::ConnectionFacts;
use crate::model::verdict::{Reason, UnknownReason};

#[test]
fn line_6_default_deny_can_be_left_off() {
    let off =
        json!({"default": false, "allow": [{"Endpoints": [labels("app=web")], "toPorts": port("80/TCP")}]});
    both("what no rule matches passes", &off, ("x/plain", "80/TCP"), "Allow");
    both("and what one does", &off, WEB, "Allow");
    let deny = json!({"default": false, "deny": [{"Endpoints": [labels("app=web")]}]});
    both("deny rules still deny", &deny, WEB, "Deny");
    both("and nothing else", &deny, ("x/plain", "80/TCP"), "Allow");
    let l7 = json!({"default": false, "allow": [{"toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}],
        "rules": {"http": [{"method": "GET"}]}}]}]});
    with("L7 rules let pass what they match", &l7, &[], WEB, "Allow", |row| {
        row.given(http("GET", "/", "h", &[]))
    });
    with("and refuse the rest", &l7, &[], WEB, "Deny", |row| row.given(http("POST", "/", "h", &[])));
    both("other ports are left alone", &l7, ("x/web", "81/TCP"), "Allow");
    for ingress in [true, false] {
        let (ask, rest) = match ingress {
            true => ("x/plain -> x/db 80/TCP", ""),
            false => ("x/db -> x/plain 80/TCP", ", Allow"),
        };
        let other = mk_cnp("q", mk_spec(&allow(json!({"Entities": ["world"]})), ingress));
        let policies = [mk_cnp("p", mk_spec(&off, ingress)), other];
        cilium("another policy may switch it on", &policies, ask).is(&format!("Deny{rest}"));
    }
    let on = mk_cnp(
        "p",
        json!({"endpointSelector": {}, "enableDefaultDeny": {"ingress": true},
        "egress": [{"toEntities": ["all"]}]}),
    );
    cilium("on without a section", std::slice::from_ref(&on), "x/web -> x/db 80/TCP").is("Deny");
    cilium("the other direction is as its section says", &[on], "x/db -> y/web 80/TCP").is("Allow, Allow");
}

#[test]
fn line_7_http_rules_match_the_whole_value() {
    let headers = [("x-token", "secret"), ("x-empty", "")];
    for (rules, method, path, wanted) in [
        (json!([{}]), "GET", "/", "Allow"),
        (json!([{"path": "/api/.*"}]), "GET", "/api/users", "Allow"),
        (json!([{"path": "/api/.*"}]), "GET", "/v1/api/users", "Deny"),
        (json!([{"path": "/api"}]), "GET", "/api/users", "Deny"),
        (json!([{"path": "/a|/b"}]), "GET", "/bc", "Deny"),
        (json!([{"method": "GET|HEAD", "path": "/"}]), "HEAD", "/", "Allow"),
        (json!([{"method": "GET", "path": "/"}]), "POST", "/", "Deny"),
        (json!([{"method": "GET"}, {"path": "/b"}]), "POST", "/b", "Allow"),
        (json!([{"host": "shop\\.example"}]), "GET", "/", "Allow"),
        (json!([{"host": "shop"}]), "GET", "/", "Deny"),
        (json!([{"headers": ["X-Token"]}]), "GET", "/", "Allow"),
        (json!([{"headers": ["X-Token: secret"]}]), "GET", "/", "Allow"),
        (json!([{"headers": ["X-Token: other"]}]), "GET", "/", "Deny"),
        (json!([{"headers": ["X-None"]}]), "GET", "/", "Deny"),
        (json!([{"headerMatches": [{"name": "X-Token", "value": "secret"}]}]), "GET", "/", "Allow"),
        (json!([{"headerMatches": [{"name": "X-Token", "value": "other"}]}]), "GET", "/", "Deny"),
        (
            json!([{"headerMatches": [{"name": "X-Token", "value": "other", "mismatch": "LOG"}]}]),
            "GET",
            "/",
            "Allow",
        ),
        (json!([{"headerMatches": [{"name": "X-Token", "secret": {"name": "s"}}]}]), "GET", "/", "Unknown"),
    ] {
        let given = || http(method, path, "shop.example", &headers);
        with("a request", &l7_http(&rules), &[], WEB, wanted, |row| row.given(given()));
    }
    with("something else than HTTP", &l7_http(&json!([{}])), &[], WEB, "Deny", |row| row.given(dns("x.io")));
    both("another port", &l7_http(&json!([{}])), ("x/web", "81/TCP"), "Deny");
    let broken = l7_http(&json!([{"path": "/("}]));
    assert_eq!(
        read(&mk_cnp("p", mk_spec(&broken, true))).faults()[0].field,
        "spec.ingress[0].toPorts[0].rules.http[0].path"
    );
    with("one that cannot be read", &broken, &[], WEB, "Unknown", |row| {
        row.given(http("GET", "/(", "h", &[]))
    });
    let huge = l7_http(&json!([{"path": "(a{999}){999}"}]));
    assert!(read(&mk_cnp("p", mk_spec(&huge, true))).faults()[0].message.contains("takes more than"));
}

#[test]
fn line_7_what_is_asked_is_not_known_at_l4() {
    for ingress in [true, false] {
        let ask = if ingress { "x/web -> x/db 80/TCP" } else { "x/db -> x/web 80/TCP" };
        let policy = mk_cnp("p", mk_spec(&l7_http(&json!([{"method": "GET"}])), ingress));
        let row = cilium("", &[policy], ask);
        let judgement = row.judgement(Family::V4);
        let decision = if ingress { judgement.ingress } else { judgement.egress };
        assert_eq!(decision.verdict.as_str(), "Allow");
        let section = if ingress { "ingress" } else { "egress" };
        let field = format!("spec.{section}[0].toPorts[0].rules.http");
        assert_eq!(decision.reason, Reason::RuleBelowL7 { field: field.into() });
    }
}

#[test]
fn line_7_a_sibling_without_l7_voids_it_and_one_type_merges() {
    let get = json!({"toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{"method": "GET"}]}}]});
    let put = json!({"toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{"method": "PUT"}]}}]});
    let plain = json!({"toPorts": port("80/TCP")});
    let given = |method: &'static str| move |row: Row| row.given(http(method, "/", "h", &[]));
    let merged = json!({"allow": [get, put]});
    with("one", &merged, &[], WEB, "Allow", given("GET"));
    with("the other", &merged, &[], WEB, "Allow", given("PUT"));
    with("neither", &merged, &[], WEB, "Deny", given("POST"));
    with("without L7", &json!({"allow": [get, plain]}), &[], WEB, "Allow", given("POST"));
    let other_peer = json!({"Endpoints": [labels("app=none")], "toPorts": port("80/TCP")});
    with(
        "for other peers it does not",
        &json!({"allow": [get, other_peer]}),
        &[],
        WEB,
        "Deny",
        given("POST"),
    );
    for (says, rules) in [
        ("must not mix http and dns", json!({"http": [{}], "dns": [{"matchName": "x.io"}]})),
        ("must not mix http and kafka", json!({"http": [{}], "kafka": [{}]})),
        ("needs l7proto", json!({"l7": [{}]})),
    ] {
        let entry = json!({"ports": [{"port": "80", "protocol": "TCP"}], "rules": rules});
        let policy = mk_cnp("p", mk_spec(&allow(json!({"toPorts": [entry]})), false));
        assert!(why_not(&read(&policy)).contains(says), "{}", why_not(&read(&policy)));
    }
    for (says, port) in [
        ("must be TCP beside L7 rules, not UDP", json!({"port": "80", "protocol": "UDP"})),
        ("must be TCP beside L7 rules, not ANY", json!({"port": "80"})),
        ("must not be 0 beside L7 rules", json!({"port": "0", "protocol": "TCP"})),
    ] {
        let entry = json!({"ports": [port], "rules": {"http": [{}]}});
        let policy = mk_cnp("p", mk_spec(&allow(json!({"toPorts": [entry]})), true));
        assert!(why_not(&read(&policy)).contains(says), "{}", why_not(&read(&policy)));
    }
}

#[test]
fn line_7_dns_patterns_do_not_cross_a_dot() {
    let rules = |pattern: &str| {
        let rule = match pattern.contains('*') {
            true => json!({"matchPattern": pattern}),
            false => json!({"matchName": pattern}),
        };
        json!([{"toEntities": ["all"], "toPorts": [{"ports": [{"port": "53", "protocol": "ANY"}],
            "rules": {"dns": [rule]}}]}])
    };
    for (pattern, name, wanted) in [
        ("*.svc.cluster.local", "db.svc.cluster.local", "Allow"),
        ("*.svc.cluster.local", "postgresql.data-layer.svc.cluster.local", "Deny"),
        ("*.*.svc.cluster.local", "postgresql.data-layer.svc.cluster.local", "Allow"),
        ("**.svc.cluster.local", "postgresql.data-layer.svc.cluster.local", "Allow"),
        ("**.svc.cluster.local", "svc.cluster.local", "Deny"),
        ("*", "whatever.at.all.example", "Allow"),
        ("api*.example.com", "api-2.example.com", "Allow"),
        ("api*.example.com", "api.v2.example.com", "Deny"),
        ("*.example.com", "example.com", "Deny"),
        ("API.example.com.", "api.EXAMPLE.com", "Allow"),
        ("api.example.com", "other.example.com", "Deny"),
    ] {
        let policy = mk_cnp("p", json!({"endpointSelector": {}, "egress": rules(pattern)}));
        for protocol in ["UDP", "TCP"] {
            cilium(
                "a name",
                std::slice::from_ref(&policy),
                &format!("x/db -> kube-system/dns 53/{protocol}"),
            )
            .given(dns(name))
            .is(&format!("{wanted}, Allow"));
        }
    }
    let entry =
        json!({"ports": [{"port": "53", "protocol": "UDP"}], "rules": {"dns": [{"matchPattern": "*"}]}});
    let ingress = mk_cnp("p", mk_spec(&allow(json!({"toPorts": [entry]})), true));
    assert!(why_not(&read(&ingress)).contains("is for egress only"));
}

#[test]
fn line_9_ports_ranges_names_and_protocols() {
    let entry = |entry: Value| allow(json!({"toPorts": [{"ports": [entry]}]}));
    for (rules, allowed, denied) in [
        (entry(json!({"port": "80", "protocol": "TCP"})), &["80/TCP"][..], &["81/TCP", "80/UDP"][..]),
        (entry(json!({"port": "80"})), &["80/TCP", "80/UDP", "80/SCTP"], &["81/TCP", "2048/ICMP"]),
        (entry(json!({"port": "80", "protocol": "ANY"})), &["80/SCTP"], &["81/SCTP"]),
        (
            entry(json!({"port": "80", "endPort": 82, "protocol": "TCP"})),
            &["80/TCP", "82/TCP"],
            &["79/TCP", "83/TCP"],
        ),
        (entry(json!({"port": "80", "endPort": 0, "protocol": "TCP"})), &["80/TCP"], &["81/TCP"]),
        (entry(json!({"port": "0", "protocol": "UDP"})), &["1/UDP", "65535/UDP"], &["1/TCP"]),
        (entry(json!({"port": "0"})), &["1/UDP", "65535/TCP"], &["2048/ICMP"]),
    ] {
        for (ports, wanted) in [(allowed, "Allow"), (denied, "Deny")] {
            for port in ports {
                both("a port", &rules, ("x/web", port), wanted);
            }
        }
    }
    // The responder's own: x/db has http at 8080/TCP.
    let named = entry(json!({"port": "http", "protocol": "TCP"}));
    let policy = |ingress| [mk_cnp("p", mk_spec(&named, ingress))];
    cilium("a name", &policy(true), "x/web -> x/db 8080/TCP").is("Allow");
    cilium("is that of the responder", &policy(true), "x/web -> x/db 9090/TCP").is("Deny");
    cilium("in the other direction too", &policy(false), "x/db -> y/db 9090/TCP").is("Allow, Allow");
    for (field, ports) in [
        ("port", json!({"port": "65536"})),
        ("port", json!({"protocol": "TCP"})),
        ("port", json!({"port": "no such--name"})),
        ("protocol", json!({"port": "80", "protocol": "tcp"})),
        ("endPort", json!({"port": "80", "endPort": 79})),
        ("endPort", json!({"port": "http", "endPort": 90})),
    ] {
        let policy = mk_cnp("p", mk_spec(&entry(ports.clone()), true));
        let faults = read(&policy);
        let field = format!("spec.ingress[0].toPorts[0].ports[0].{field}");
        assert_eq!(
            faults.faults().first().map(|fault| fault.field.as_str()),
            Some(field.as_str()),
            "{ports}"
        );
        let probe = if ports["port"] == "80" && !ports["endPort"].is_null() { "81/TCP" } else { "80/TCP" };
        cilium("it may be any", &[policy], &format!("x/web -> x/db {probe}")).is("Unknown");
    }
}

#[test]
fn line_9_icmp_has_its_own_rules() {
    let icmp = |kind: Value, v6: Value| {
        allow(
            json!({"icmps": [{"fields": [{"family": "IPv4", "type": kind}, {"family": "IPv6", "type": v6}]}]}),
        )
    };
    for rules in
        [icmp(json!(8), json!(8)), icmp(json!("EchoRequest"), json!("8")), icmp(json!("Echo"), json!(8))]
    {
        both("its type", &rules, ("x/web", "2048/ICMP"), "Allow");
        both("any code of it", &rules, ("x/web", "2051/ICMP"), "Allow");
        both("no other type", &rules, ("x/web", "768/ICMP"), "Deny");
        both("no port", &rules, WEB, "Deny");
    }
    let both_families = allow(json!({"icmps": [{"fields": [{"type": 8}]}]}));
    let row = cilium("", &[mk_cnp("p", mk_spec(&both_families, true))], "x/web -> x/db 2048/ICMP");
    assert_eq!(row.judgement(Family::V4).ingress.verdict.as_str(), "Allow", "IPv4 where none is named");
    assert_eq!(row.judgement(Family::V6).ingress.verdict.as_str(), "Deny");
    both(
        "a rule with ports lets no ICMP pass",
        &allow(json!({"toPorts": port("80/TCP")})),
        ("x/web", "2048/ICMP"),
        "Deny",
    );
    both("one without does", &allow(json!({"Endpoints": [{}]})), ("x/web", "2048/ICMP"), "Allow");
    let mixed = allow(json!({"toPorts": port("80/TCP"), "icmps": [{"fields": [{"type": 8}]}]}));
    assert!(why_not(&read(&mk_cnp("p", mk_spec(&mixed, true)))).contains("both toPorts and icmps"));
    let wrong = mk_cnp("p", mk_spec(&icmp(json!("Ping"), json!(8)), true));
    assert_eq!(read(&wrong).faults()[0].field, "spec.ingress[0].icmps[0].fields[0].type");
}

#[test]
fn line_10_authentication_is_a_fact_of_the_connection() {
    let rules = |mode: &str| allow(json!({"Endpoints": [{}], "authentication": {"mode": mode}}));
    let given = |mutual| {
        move |row: Row| row.given(ConnectionFacts { mutual_tls: Some(mutual), ..ConnectionFacts::NONE })
    };
    both("nobody knows", &rules("required"), WEB, "Unknown");
    both("nor does it matter", &rules("required"), ("y/web", "80/TCP"), "Deny");
    with("both have shown who they are", &rules("required"), &[], WEB, "Allow", given(true));
    with("they have not", &rules("required"), &[], WEB, "Deny", given(false));
    both("it is not asked for", &rules("disabled"), WEB, "Allow");
    with("it always fails", &rules("test-always-fail"), &[], WEB, "Deny", given(true));
    both("a mode that is none", &rules("strict"), WEB, "Unknown");
    let judgement = cilium("", &[mk_cnp("p", mk_spec(&rules("required"), true))], "x/web -> x/db 80/TCP");
    let decision = judgement.judgement(Family::V4).ingress;
    assert!(
        matches!(decision.reason, Reason::Unknown(UnknownReason::FactMissing { .. })),
        "{}",
        decision.reason
    );
}
