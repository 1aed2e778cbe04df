//! Istio's policies against a deliberately simple evaluator of their JSON, which shares nothing with the engine.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::istio::world::{Ask, ask, http, mk_ap, mk_pa, mtls, plain, tcp};
use crate::model::facts::ConnectionFacts;

/// A connection, with everything known.
#[derive(Debug, Clone)]
struct Known {
    namespace: &'static str,
    account: &'static str,
    mutual: bool,
    port: u16,
    method: Option<&'static str>,
}

impl Known {
    fn facts(&self) -> ConnectionFacts {
        let asked = self.method.map_or_else(tcp, |method| http(method, "/", &[]));
        let shown = match self.mutual {
            true => mtls(&format!("cluster.local/ns/{}/sa/{}", self.namespace, self.account)),
            false => plain(),
        };
        ConnectionFacts { request: asked.request, ..shown }
    }

    fn ask(&self, policies: &[Value]) -> Ask {
        let Self { namespace, account, port, .. } = self;
        ask(&format!("{namespace}/{account} -> {namespace}/db {port}/TCP"))
            .dialect("istio-ambient")
            .of(policies)
    }
}

fn known() -> impl Strategy<Value = Known> {
    let method = select(vec![None, Some("GET"), Some("POST")]);
    (select(vec!["m", "a"]), select(vec!["web", "api"]), any::<bool>(), 80u16..83, method).prop_map(
        |(namespace, account, mutual, port, method)| Known { namespace, account, mutual, port, method },
    )
}

fn object(fields: Vec<(&'static str, Value)>) -> Value {
    Value::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn any_source() -> impl Strategy<Value = Value> {
    let field = prop_oneof![
        (
            select(vec!["principals", "notPrincipals"]),
            select(vec!["*", "*/sa/web", "cluster.local/ns/m/*", "cluster.local/ns/a/sa/api"])
        ),
        (select(vec!["namespaces", "notNamespaces"]), select(vec!["m", "a", "*", "x"])),
        (select(vec!["serviceAccounts", "notServiceAccounts"]), select(vec!["m/web", "a/api", "web"])),
    ];
    vec(field, 1..3).prop_map(|fields| {
        json!({"source": object(fields.into_iter().map(|(key, value)| (key, json!([value]))).collect())})
    })
}

fn any_operation() -> impl Strategy<Value = Value> {
    let field = prop_oneof![
        (select(vec!["ports", "notPorts"]), select(vec!["80", "81"])),
        (select(vec!["methods", "notMethods"]), select(vec!["GET", "P*", "*"])),
    ];
    vec(field, 1..3).prop_map(|fields| {
        json!({"operation": object(fields.into_iter().map(|(key, value)| (key, json!([value]))).collect())})
    })
}

fn any_condition() -> impl Strategy<Value = Value> {
    let key =
        select(vec![("source.namespace", "m"), ("destination.port", "80"), ("request.headers[x]", "a")]);
    (key, any::<bool>()).prop_map(
        |((key, value), not)| json!({"key": key, if not { "notValues" } else { "values" }: [value]}),
    )
}

fn any_rule() -> impl Strategy<Value = Value> {
    let from = prop::option::of(vec(any_source(), 1..3));
    let to = prop::option::of(vec(any_operation(), 1..3));
    (from, to, vec(any_condition(), 0..2)).prop_map(|(from, to, when)| {
        let mut fields = vec![("when", Value::Array(when))];
        fields.extend(from.map(|from| ("from", Value::Array(from))));
        fields.extend(to.map(|to| ("to", Value::Array(to))));
        object(fields)
    })
}

fn any_authorization() -> impl Strategy<Value = Value> {
    let place = (select(vec!["m", "a", "istio-system"]), select(vec!["p", "q"]));
    let action = select(vec!["ALLOW", "ALLOW", "DENY", "AUDIT"]);
    (place, action, prop::option::of(select(vec!["db", "web"])), vec(any_rule(), 0..3)).prop_map(
        |((namespace, name), action, app, rules)| {
            let mut spec = json!({"action": action, "rules": rules});
            if let Some(app) = app {
                spec["selector"] = json!({"matchLabels": {"app": app}});
            }
            mk_ap(namespace, name, spec)
        },
    )
}

fn any_mode() -> impl Strategy<Value = &'static str> {
    select(vec!["UNSET", "STRICT", "PERMISSIVE", "DISABLE"])
}

fn any_authentication() -> impl Strategy<Value = Value> {
    let place = (select(vec!["m", "a", "istio-system"]), select(vec!["p", "q"]), 0u8..3);
    (place, any_mode(), prop::option::of(prop::option::of(any_mode()))).prop_map(
        |((namespace, name, age), mode, workload)| {
            let mut spec = json!({"mtls": {"mode": mode}});
            if let Some(port) = workload {
                spec["selector"] = json!({"matchLabels": {"app": "db"}});
                spec["portLevelMtls"] = port.map_or_else(|| json!({}), |mode| json!({"80": {"mode": mode}}));
            }
            let mut policy = mk_pa(namespace, name, spec);
            policy["metadata"]["creationTimestamp"] = format!("202{age}-01-01T00:00:00Z").into();
            policy
        },
    )
}

/// Of equal kind, namespace and name there is one.
fn any_policies() -> impl Strategy<Value = Vec<Value>> {
    vec(prop_oneof![2 => any_authorization(), 1 => any_authentication()], 0..6).prop_map(|mut policies| {
        let id = |policy: &Value| {
            format!("{} {}", policy["kind"], policy["metadata"]["namespace"])
                + &policy["metadata"]["name"].to_string()
        };
        let mut seen = Vec::new();
        policies.retain(|policy| {
            let new = !seen.contains(&id(policy));
            seen.push(id(policy));
            new
        });
        policies
    })
}

fn like(pattern: &Value, text: &str) -> bool {
    let pattern = pattern.as_str().unwrap();
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        _ if pattern == "*" => !text.is_empty(),
        (Some(end), _) => text.ends_with(end),
        (_, Some(start)) => text.starts_with(start),
        _ => pattern == text,
    }
}

/// Whether values and their opposites hold, each by `test`. What is absent asks nothing.
fn holds(entry: &Value, [any, none]: [&str; 2], test: impl Fn(&Value) -> bool) -> bool {
    let any = entry[any].as_array().is_none_or(|values| values.iter().any(&test));
    any && entry[none].as_array().is_none_or(|values| !values.iter().any(&test))
}

fn source_matches(source: &Value, own: &str, c: &Known) -> bool {
    let principal = format!("cluster.local/ns/{}/sa/{}", c.namespace, c.account);
    let account = |wanted: &Value| {
        let wanted = wanted.as_str().unwrap();
        let wanted = if wanted.contains('/') { wanted.to_owned() } else { format!("{own}/{wanted}") };
        c.mutual && wanted == format!("{}/{}", c.namespace, c.account)
    };
    holds(source, ["principals", "notPrincipals"], |p| c.mutual && like(p, &principal))
        && holds(source, ["namespaces", "notNamespaces"], |n| c.mutual && like(n, c.namespace))
        && holds(source, ["serviceAccounts", "notServiceAccounts"], account)
}

fn rule_matches(rule: &Value, own: &str, allows: bool, c: &Known) -> bool {
    let list = |name: &str| rule[name].as_array().cloned();
    let (ztunnel, http) = (c.namespace == "a", c.method.is_some() && c.namespace == "m");
    let of_http = |op: &Value| !op["methods"].is_null() || !op["notMethods"].is_null();
    let header = |when: &Value| when["key"] == "request.headers[x]";
    let asks_http = list("to").iter().flatten().any(|to| of_http(&to["operation"]))
        || list("when").iter().flatten().any(header);
    if allows && asks_http && !http {
        return false;
    }
    let port = |wanted: &Value| *wanted == c.port.to_string();
    let operation = |to: &Value| {
        let op = &to["operation"];
        let ports = holds(op, ["ports", "notPorts"], port);
        let has_ports = !op["ports"].is_null() || !op["notPorts"].is_null();
        match (of_http(op), http) {
            (false, _) => ports,
            (true, true) => ports && holds(op, ["methods", "notMethods"], |m| like(m, c.method.unwrap())),
            (true, false) => ports && (has_ports || !ztunnel),
        }
    };
    let condition = |when: &Value| match when["key"].as_str().unwrap() {
        "source.namespace" => holds(when, ["values", "notValues"], |n| c.mutual && like(n, c.namespace)),
        "destination.port" => holds(when, ["values", "notValues"], port),
        // No request here has the header.
        _ if http => holds(when, ["values", "notValues"], |_| false),
        _ => !ztunnel,
    };
    list("from").is_none_or(|from| from.iter().any(|from| source_matches(&from["source"], own, c)))
        && list("to").is_none_or(|to| to.iter().any(operation))
        && list("when").is_none_or(|when| when.iter().all(condition))
}

fn reference(policies: &[Value], c: &Known) -> &'static str {
    let of_kind = |kind: &str, level: &dyn Fn(&Value, &str) -> bool| -> Vec<Value> {
        let mut found: Vec<Value> = policies
            .iter()
            .filter(|p| {
                let namespace = p["metadata"]["namespace"].as_str().unwrap();
                p["kind"] == kind && [c.namespace, "istio-system"].contains(&namespace) && level(p, namespace)
            })
            .cloned()
            .collect();
        found.sort_by_key(|p| {
            (p["metadata"]["creationTimestamp"].to_string(), p["metadata"]["name"].to_string())
        });
        found
    };
    let root = |namespace: &str| namespace == "istio-system";
    let has_selector = |p: &Value| !p["spec"]["selector"].is_null();
    let oldest =
        |level: &dyn Fn(&Value, &str) -> bool| of_kind("PeerAuthentication", level).into_iter().next();
    let set = |mode: &Value| Some(mode.as_str()?.to_owned()).filter(|mode| mode != "UNSET");
    let own = |p: &Option<Value>| p.as_ref().and_then(|p| set(&p["spec"]["mtls"]["mode"]));
    let workload = oldest(&|p, namespace| has_selector(p) && !root(namespace));
    let namespace = oldest(&|p, namespace| !has_selector(p) && !root(namespace));
    let mesh = oldest(&|p, namespace| !has_selector(p) && root(namespace));
    let port = workload
        .as_ref()
        .filter(|_| c.port == 80)
        .and_then(|p| set(&p["spec"]["portLevelMtls"]["80"]["mode"]));
    let mode = port.or_else(|| own(&workload)).or_else(|| own(&namespace)).or_else(|| own(&mesh));
    if mode.as_deref() == Some("STRICT") && !c.mutual {
        return "Deny";
    }
    let selecting = |action: &str| {
        of_kind("AuthorizationPolicy", &|p, _| {
            p["spec"]["action"] == action
                && (!has_selector(p) || p["spec"]["selector"]["matchLabels"]["app"] == "db")
        })
    };
    let matches = |policy: &Value, allows| {
        let own = policy["metadata"]["namespace"].as_str().unwrap();
        policy["spec"]["rules"].as_array().unwrap().iter().any(|rule| rule_matches(rule, own, allows, c))
    };
    let allowing = selecting("ALLOW");
    if selecting("DENY").iter().any(|policy| matches(policy, false)) {
        "Deny"
    } else if allowing.is_empty() || allowing.iter().any(|policy| matches(policy, true)) {
        "Allow"
    } else {
        "Deny"
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn verdicts_are_those_of_the_reference(mut policies in any_policies(), c in known(), turn in 0usize..6) {
        let verdict = c.ask(&policies).given(c.facts()).verdict();
        prop_assert_eq!(verdict, reference(&policies, &c));
        // What is not known leaves open only what it could change.
        let open = [
            ConnectionFacts::NONE,
            ConnectionFacts { request: None, ..c.facts() },
            ConnectionFacts { mutual_tls: None, principal: None, ..c.facts() },
        ];
        for facts in open {
            let open = c.ask(&policies).given(facts.clone()).verdict();
            prop_assert!(open == "Unknown" || open == verdict, "{} with {:?}, {}", open, facts, verdict);
        }
        if !policies.is_empty() {
            let turn = turn % policies.len();
            policies.rotate_left(turn);
        }
        let turned = c.ask(&policies).given(c.facts()).verdict();
        prop_assert_eq!(turned, verdict, "the order in which policies are given means nothing");
    }

    #[test]
    fn denying_never_allows_more(mut policies in any_policies(), more in any_authorization(), c in known()) {
        let before = c.ask(&policies).given(c.facts()).verdict();
        let mut more = more;
        more["spec"]["action"] = "DENY".into();
        more["metadata"]["name"] = "more".into();
        policies.push(more);
        let after = c.ask(&policies).given(c.facts()).verdict();
        prop_assert!(before == "Allow" || after == "Deny", "{before}, then {after}");
    }
}
