//! What is asked of HTTP, in HTTP and in other connections.

use serde_json::{Value, json};

use super::WEB;
use super::world::{ask, http, mk_ap, mtls, tcp};
use crate::model::facts::ConnectionFacts;
use crate::model::verdict::{Fact, Reason, UnknownReason};

fn op(operation: Value) -> Value {
    json!([{"to": [{"operation": operation}]}])
}

fn when(key: &str, values: &[&str], not: &[&str]) -> Value {
    json!([{"when": [{"key": key, "values": values, "notValues": not}]}])
}

fn policy(namespace: &str, action: &str, rules: &Value) -> [Value; 1] {
    [mk_ap(namespace, "p", json!({"action": action, "rules": rules}))]
}

#[test]
fn requests_are_compared() {
    let get = http("GET", "/info/a?x=/b", &["x-user: alice"]);
    for (rules, matches) in [
        (op(json!({"methods": ["GET", "HEAD"]})), true),
        (op(json!({"methods": ["POST"]})), false),
        (op(json!({"methods": ["G*"]})), true),
        (op(json!({"notMethods": ["GET"]})), false),
        (op(json!({"notMethods": ["POST"]})), true),
        (op(json!({"paths": ["/info/a"]})), true),
        (op(json!({"paths": ["/info"]})), false),
        (op(json!({"paths": ["/info*"]})), true),
        (op(json!({"paths": ["*/a"]})), true),
        (op(json!({"paths": ["*/b"]})), false),
        (op(json!({"paths": ["*"]})), true),
        (op(json!({"paths": ["/info/{*}"]})), true),
        (op(json!({"paths": ["/{*}"]})), false),
        (op(json!({"paths": ["/{*}/a"]})), true),
        (op(json!({"paths": ["/{**}"]})), true),
        (op(json!({"paths": ["/info/a/{**}"]})), false),
        (op(json!({"paths": ["/info/{**}"]})), true),
        (op(json!({"paths": ["/{**}/a"]})), true),
        (op(json!({"paths": ["/{**}/"]})), false),
        (op(json!({"notPaths": ["/info/*"]})), false),
        (op(json!({"hosts": ["db.EXAMPLE"]})), true),
        (op(json!({"hosts": ["*.example"]})), true),
        (op(json!({"hosts": ["db.*"]})), true),
        (op(json!({"hosts": ["web.example"]})), false),
        (op(json!({"notHosts": ["db.example"]})), false),
        (op(json!({"methods": ["GET"], "paths": ["/other"]})), false),
        (op(json!({"ports": ["80"], "methods": ["GET"]})), true),
        (op(json!({"ports": ["81"], "methods": ["GET"]})), false),
        (json!([{"to": [{"operation": {"ports": ["81"]}}, {"operation": {"methods": ["GET"]}}]}]), true),
        (when("request.headers[X-User]", &["alice"], &[]), true),
        (when("request.headers[x-user]", &["al*"], &[]), true),
        (when("request.headers[X-User]", &["*"], &[]), true),
        (when("request.headers[X-User]", &["bob"], &[]), false),
        (when("request.headers[X-User]", &[], &["alice"]), false),
        (when("request.headers[X-Other]", &["*"], &[]), false),
        (when("request.headers[X-Other]", &[], &["*"]), true),
    ] {
        let ask = |action| ask("m/web -> m/db 80/TCP").of(&policy("m", action, &rules));
        ask("ALLOW").given(get.clone()).is(&rules.to_string(), if matches { "Allow" } else { "Deny" });
        ask("DENY").given(get.clone()).is(&rules.to_string(), if matches { "Deny" } else { "Allow" });
    }
}

#[test]
fn the_request_is_not_known() {
    let get = policy("m", "ALLOW", &op(json!({"ports": ["80"], "methods": ["GET"]})));
    ask("m/web -> m/db 80/TCP").of(&get).is("it may be a GET", "Unknown");
    ask("m/web -> m/db 81/TCP").of(&get).is("not at this port", "Deny");
    let reason = ask("m/web -> m/db 80/TCP").of(&get).decision().reason;
    assert!(
        matches!(reason, Reason::Unknown(UnknownReason::FactMissing { fact: Fact::Request, .. })),
        "{reason}"
    );
}

#[test]
fn line_3_an_allow_rule_that_needs_http_never_matches_tcp() {
    for rules in [
        op(json!({"methods": ["GET"]})),
        op(json!({"notMethods": ["GET"]})),
        op(json!({"ports": ["80"], "notPaths": ["/x"]})),
        when("request.headers[x]", &[], &["a"]),
        json!([{"from": [{"source": {"notRequestPrincipals": ["*"]}}]}]),
        // One such entry is enough for the whole rule.
        json!([{"to": [{"operation": {"ports": ["80"]}}, {"operation": {"methods": ["GET"]}}]}]),
    ] {
        let says = rules.to_string();
        ask("m/web -> m/db 80/TCP").of(&policy("m", "ALLOW", &rules)).given(tcp()).is(&says, "Deny");
        for given in [tcp(), ConnectionFacts::NONE, http("GET", "/", &[])] {
            let ask = ask("a/web -> a/db 80/TCP").dialect("istio-ambient").of(&policy("a", "ALLOW", &rules));
            ask.given(given).is(&says, "Deny");
        }
    }
    let plain = op(json!({"ports": ["80"]}));
    ask("m/web -> m/db 80/TCP").of(&policy("m", "ALLOW", &plain)).given(tcp()).is("nothing of HTTP", "Allow");
}

#[test]
fn line_3_a_deny_rule_loses_its_http_part_on_tcp() {
    let by_web = |more: Value| {
        let mut source = json!({"principals": [WEB]});
        source.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        source
    };
    let (web, other) = (mtls(WEB), mtls("cluster.local/ns/m/sa/api"));
    let with = |facts: &ConnectionFacts| ConnectionFacts { request: tcp().request, ..facts.clone() };
    for (rules, sidecar, ztunnel) in [
        // A sidecar denies all TCP then; a ztunnel ignores the rule.
        (op(json!({"methods": ["GET"]})), "Deny", "Allow"),
        (when("request.headers[x]", &["a"], &[]), "Deny", "Allow"),
        (json!([{"from": [{"source": {"requestPrincipals": ["a"]}}]}]), "Deny", "Allow"),
        // What else the same part asks for stays, at both.
        (op(json!({"ports": ["80"], "methods": ["GET"]})), "Deny", "Deny"),
        (op(json!({"ports": ["81"], "methods": ["GET"]})), "Allow", "Allow"),
        (json!([{"from": [{"source": by_web(json!({"requestPrincipals": ["a"]}))}]}]), "Deny", "Deny"),
        (
            json!([{"from": [{"source": {"principals": [WEB]}}], "to": [{"operation": {"methods": ["GET"]}}]}]),
            "Deny",
            "Allow",
        ),
        (
            json!([{"to": [{"operation": {"methods": ["GET"]}}, {"operation": {"ports": ["80"]}}]}]),
            "Deny",
            "Deny",
        ),
    ] {
        let says = rules.to_string();
        ask("m/web -> m/db 80/TCP").of(&policy("m", "DENY", &rules)).given(with(&web)).is(&says, sidecar);
        let ambient = ask("a/web -> a/db 80/TCP").dialect("istio-ambient").of(&policy("a", "DENY", &rules));
        ambient.given(with(&web)).is(&says, ztunnel);
    }
    let rules = json!([{"from": [{"source": by_web(json!({"requestPrincipals": ["a"]}))}]}]);
    ask("m/api -> m/db 80/TCP")
        .of(&policy("m", "DENY", &rules))
        .given(with(&other))
        .is("not this one", "Allow");
    let methods = policy("m", "DENY", &op(json!({"methods": ["GET"]})));
    ask("m/web -> m/db 80/TCP").of(&methods).is("it may be no HTTP, or a GET", "Unknown");
    ask("m/web -> m/db 80/TCP").of(&methods).given(http("POST", "/", &[])).is("HTTP, and no GET", "Allow");
}

#[test]
fn tokens_are_not_judged() {
    for rules in [
        json!([{"from": [{"source": {"requestPrincipals": ["a"]}}]}]),
        when("request.auth.principal", &["a"], &[]),
        when("request.auth.claims[iss]", &["a"], &[]),
    ] {
        let ask = ask("m/web -> m/db 80/TCP").of(&policy("m", "ALLOW", &rules)).given(http("GET", "/", &[]));
        let reason = ask.decision().reason;
        assert!(
            matches!(reason, Reason::Unknown(UnknownReason::PolicyUnsupported { .. })),
            "{rules}: {reason}"
        );
    }
}

#[test]
fn remote_addresses_are_those_of_the_connection_unless_forwarded() {
    let block = |rules: Value| policy("m", "ALLOW", &rules);
    let inside = json!([{"from": [{"source": {"remoteIpBlocks": ["203.0.113.0/24"]}}]}]);
    let outside = when("remote.ip", &["192.0.2.0/24"], &[]);
    let ask = || ask("outside -> m/db 80/TCP");
    for given in [tcp(), http("GET", "/", &[])] {
        ask().of(&block(inside.clone())).given(given.clone()).is("it is the connection's", "Allow");
        ask().of(&block(outside.clone())).given(given).is("which is elsewhere", "Deny");
    }
    let forwarded = http("GET", "/", &["x-forwarded-for: 192.0.2.1"]);
    ask().of(&block(inside.clone())).given(forwarded.clone()).is("forwarded", "Unknown");
    ask().of(&block(outside)).given(forwarded).is("forwarded", "Unknown");
    ask().of(&block(inside)).is("it may be", "Unknown");
}
