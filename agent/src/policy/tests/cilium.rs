//! CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy and CiliumCIDRGroup: what is said of them, line by line.

mod force;
mod inside;
mod peers;

use std::sync::Arc;

use serde_json::{Value, json};

use super::build::{Row, mk_read, row};
use crate::model::facts::{ConnectionFacts, Request};
use crate::policy::{Force, Policy};

pub(super) fn mk_cnp(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": {"namespace": "x", "name": name}, "spec": spec})
}

pub(super) fn mk_ccnp(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": name}, "spec": spec})
}

fn mk_group(name: &str, labels: Value, cidrs: &[&str]) -> Value {
    json!({"apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup",
        "metadata": {"name": name, "labels": labels}, "spec": {"externalCIDRs": cidrs}})
}

fn labels(text: &str) -> Value {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    json!({"matchLabels": pairs.map(|(k, v)| (k.to_owned(), v.into())).collect::<serde_json::Map<_, _>>()})
}

/// A rule for either direction: `Endpoints` is `fromEndpoints` or `toEndpoints`.
fn turned(rule: &Value, ingress: bool) -> Value {
    let Some(fields) = rule.as_object() else { return rule.clone() };
    let direction = if ingress { "from" } else { "to" };
    let name = |key: &str| match key.starts_with(char::is_uppercase) {
        true => format!("{direction}{key}"),
        false => key.to_owned(),
    };
    fields.iter().map(|(key, value)| (name(key), value.clone())).collect::<serde_json::Map<_, _>>().into()
}

/// The spec for the db pods with these rules in one direction: `allow`, `deny`, `default`.
pub(super) fn mk_spec(rules: &Value, ingress: bool) -> Value {
    let mut spec = json!({"endpointSelector": {"matchLabels": {"app": "db"}}});
    let section = if ingress { "ingress" } else { "egress" };
    for (key, name) in [("allow", section.to_owned()), ("deny", format!("{section}Deny"))] {
        if let Some(rules) = rules[key].as_array() {
            spec[name] = rules.iter().map(|rule| turned(rule, ingress)).collect();
        }
    }
    if !rules["default"].is_null() {
        spec["enableDefaultDeny"] = json!({section: rules["default"]});
    }
    spec
}

fn cilium(says: &'static str, policies: &[Value], ask: &str) -> Row {
    row(says, policies, ask).dialect("cilium")
}

/// The rules judged in both directions at x/db, against a peer on a port.
fn both(says: &'static str, rules: &Value, (peer, probe): (&str, &str), wanted: &str) {
    with(says, rules, &[], (peer, probe), wanted, |row| row);
}

fn with(
    says: &'static str,
    rules: &Value,
    more: &[Value],
    (peer, probe): (&str, &str),
    wanted: &str,
    change: impl Fn(Row) -> Row,
) {
    let policies = |ingress| [&[mk_cnp("p", mk_spec(rules, ingress))], more].concat();
    change(cilium(says, &policies(true), &format!("{peer} -> x/db {probe}"))).is(wanted);
    change(cilium(says, &policies(false), &format!("x/db -> {peer} {probe}")))
        .is(&format!("{wanted}, Allow"));
}

fn allow(rule: Value) -> Value {
    json!({"allow": [rule]})
}

fn port(text: &str) -> Value {
    let (port, protocol) = text.split_once('/').unwrap();
    json!([{"ports": [{"port": port, "protocol": protocol}]}])
}

fn read(value: &Value) -> Arc<Policy> {
    mk_read(value)
}

fn why_not(policy: &Policy) -> String {
    match policy.force() {
        Force::InForce => panic!("{} is in force", policy.reference()),
        Force::NotInForce(why) => why.to_string(),
    }
}

const WEB: (&str, &str) = ("x/web", "80/TCP");

fn http(method: &str, path: &str, host: &str, headers: &[(&str, &str)]) -> ConnectionFacts {
    let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let request = Request::Http { method: method.into(), path: path.into(), host: host.into(), headers };
    ConnectionFacts { request: Some(Arc::new(request)), ..ConnectionFacts::NONE }
}

fn dns(name: &str) -> ConnectionFacts {
    let request = Request::Dns { name: name.into() };
    ConnectionFacts { request: Some(Arc::new(request)), ..ConnectionFacts::NONE }
}

fn l7_http(rules: &Value) -> Value {
    allow(json!({"toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": rules}}]}))
}
