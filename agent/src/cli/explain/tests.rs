//! Tests of `explain`: what queries mean, and what is printed.

use std::fs;

use super::query::{self, Malformed, Query, Target};
use super::{Engine, Output, batch, explain, target};
use crate::cluster::index::Index;
use crate::cluster::manifests::load;
use crate::model::dialect::Dialect;
use crate::model::edge::Protocol;
use crate::model::object::WorkloadRef;
use crate::model::scenario::{DefaultDeny, Scenario};
use crate::model::time::Timestamp;

/// A shop: two web pods of one Deployment, one of them labelled otherwise; a dual-stack database; a Service.
const SHOP: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: data, labels: {tier: data}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: []}}
---
apiVersion: v1
kind: Pod
metadata:
  name: web-1
  namespace: shop
  labels: {app: web, pod-template-hash: 5d8f, role: writer}
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-5d8f, uid: u, controller: true}]
status: {podIPs: [{ip: 192.0.2.11}, {ip: '2001:db8::11'}]}
---
apiVersion: v1
kind: Pod
metadata:
  name: web-2
  namespace: shop
  labels: {app: web, pod-template-hash: 5d8f}
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-5d8f, uid: u, controller: true}]
status: {podIPs: [{ip: 192.0.2.12}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: data, labels: {app: db}}
spec: {containers: [{name: c, ports: [{name: sql, containerPort: 5432}]}]}
status: {podIPs: [{ip: '2001:db8::21'}, {ip: 192.0.2.21}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: data}
spec: {clusterIP: 203.0.113.5, selector: {app: db}, ports: [{port: 15432, targetPort: sql}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: idle, namespace: data}
spec:
  selector: {matchLabels: {app: idle}}
  serviceName: idle
  template: {metadata: {labels: {app: idle}}, spec: {containers: []}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db-from-writers, namespace: data}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}
      podSelector: {matchLabels: {role: writer}}
    ports: [{port: sql}]
---
{apiVersion: v1, kind: Pod, metadata: {name: bad, namespace: shop}, spec: {containers: 7}}
";

fn mk_engine(scenario: Scenario) -> Engine {
    mk_engine_of(SHOP, scenario)
}

fn mk_engine_of(manifests: &str, scenario: Scenario) -> Engine {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("shop.yaml"), manifests).unwrap();
    let loaded = load(&[folder.path().to_owned()], None);
    let mut index = Index::default();
    let now = Timestamp::from_nanos(1_000);
    index.reset(loaded.objects, now);
    Engine::new(index, Dialect::STANDARD, scenario, now)
}

fn answers(queries: &str) -> (String, u64) {
    let mut out = Vec::new();
    let malformed =
        batch::answer_all(&mut mk_engine(Scenario::Enforced), queries.as_bytes(), &mut out).unwrap();
    (String::from_utf8(out).unwrap(), malformed)
}

fn printed(from: &str, to: &str, port: u16, output: Output) -> String {
    let query = Query {
        id: serde_json::Value::Null,
        from: target(from, "default").unwrap(),
        to: target(to, "default").unwrap(),
        port,
        protocol: Protocol::Tcp,
    };
    let mut out = Vec::new();
    explain(&mut mk_engine(Scenario::Enforced), &query, (output, false), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_batch_answers_in_the_order_asked() {
    let (answers, malformed) = answers(
        r#"{"id":"pod","from":{"pod":"shop/web-1"},"to":{"pod":"data/db"},"port":5432,"protocol":"TCP"}
{"id":"denied","from":{"pod":"shop/web-2"},"to":{"pod":"data/db"},"port":5432}
{"id":"service","from":{"pod":"shop/web-1"},"to":{"ip":"203.0.113.5"},"port":15432}
{"id":"differ","from":{"workload":"shop/Deployment/web"},"to":{"pod":"data/db"},"port":5432}

{"id":"owner","from":{"workload":"shop/ReplicaSet/web-5d8f"},"to":{"workload":"data/StatefulSet/idle"},"port":80}
{"id":"outside","from":{"ip":"198.51.100.9"},"to":{"pod":"data/db"},"port":5432,"protocol":"udp"}
{"id":"itself","from":{"pod":"data/db"},"to":{"pod":"data/db"},"port":1}
{"id":7,"from":{"pod":"shop/bad"},"to":{"pod":"data/db"},"port":5432}
"#,
    );
    assert_eq!(malformed, 0);
    insta::assert_snapshot!("batch", answers);
}

#[test]
fn a_malformed_query_is_answered_with_what_is_wrong() {
    let (answers, malformed) = answers(
        r#"{"id":"ok","from":{"pod":"shop/web-1"},"to":{"ip":"198.51.100.9"},"port":443}
{"id":"port","from":{"pod":"shop/web-1"},"to":{"pod":"data/db"}}
{"id":"zero","from":{"pod":"shop/web-1"},"to":{"pod":"data/db"},"port":0}
{"id":"big","from":{"pod":"shop/web-1"},"to":{"pod":"data/db"},"port":65536}
{"id":"typo","from":{"pod":"shop/web-1"},"to":{"pod":"data/db"},"prot":"UDP","port":53}
{"id":"protocol","from":{"pod":"shop/web-1"},"to":{"pod":"data/db"},"protocol":"QUIC","port":53}
{"id":"two","from":{"pod":"shop/web-1","ip":"192.0.2.1"},"to":{"pod":"data/db"},"port":53}
{"id":"none","from":{},"to":{"pod":"data/db"},"port":53}
{"id":"name","from":{"pod":"web-1"},"to":{"pod":"data/db"},"port":53}
{"id":"kind","from":{"workload":"shop/web"},"to":{"pod":"data/db"},"port":53}
{"id":"ip","from":{"ip":"10.0.0"},"to":{"pod":"data/db"},"port":53}
{"id":"gone","from":{"pod":"shop/nobody"},"to":{"pod":"data/db"},"port":53}
{"id":"empty","from":{"workload":"shop/Job/none"},"to":{"pod":"data/db"},"port":53}
not json
"#,
    );
    assert_eq!(malformed, 13);
    insta::assert_snapshot!("malformed", answers);
}

#[test]
fn a_line_too_long_or_not_text_takes_no_other_with_it() {
    let good = r#"{"id":"ok","from":{"pod":"shop/web-1"},"to":{"ip":"198.51.100.9"},"port":443}"#;
    let mut input = vec![b' '; 3 << 20];
    input.extend_from_slice(b"\n\xff\xfe\n");
    input.extend_from_slice(good.as_bytes());
    let mut out = Vec::new();
    let malformed = batch::answer_all(&mut mk_engine(Scenario::Enforced), &*input, &mut out).unwrap();
    let lines: Vec<&str> = std::str::from_utf8(&out).unwrap().lines().collect();
    assert_eq!((malformed, lines.len()), (2, 3));
    assert!(lines[0].starts_with(r#"{"id":null,"line":1,"error":"the line is longer"#), "{lines:?}");
    assert!(lines[1].starts_with(r#"{"id":null,"line":2,"error":"invalid utf-8"#), "{lines:?}");
    assert!(lines[2].starts_with(r#"{"id":"ok","verdict":"Allow""#), "{lines:?}");
}

#[test]
fn steps_are_printed_rule_by_rule() {
    insta::assert_snapshot!("allowed", printed("shop/web-1", "data/db", 5432, Output::Table));
    insta::assert_snapshot!("denied", printed("shop/web-2", "192.0.2.21", 5432, Output::Table));
    insta::assert_snapshot!("workload", printed("shop/Deployment/web", "data/db", 5432, Output::Table));
    insta::assert_snapshot!("json", printed("shop/web-2", "203.0.113.5", 15432, Output::Json));
}

#[test]
fn two_pods_meet_at_addresses_of_one_family() {
    let engine = mk_engine(Scenario::Enforced);
    let pairs = |from: &str, to: &str| -> Vec<String> {
        let (from, to) = (target(from, "default").unwrap(), target(to, "default").unwrap());
        let query = Query { id: serde_json::Value::Null, from, to, port: 80, protocol: Protocol::Tcp };
        let pairs = query::pairs(&engine.index, &query, engine.now).unwrap();
        let show = |address: Option<std::net::IpAddr>| address.map_or("-".to_owned(), |a| a.to_string());
        pairs.iter().map(|(from, to)| format!("{} > {}", show(from.address), show(to.address))).collect()
    };
    for (from, to, expected) in [
        ("shop/web-1", "data/db", vec!["192.0.2.11 > 192.0.2.21"]),
        ("data/db", "shop/web-1", vec!["2001:db8::21 > 2001:db8::11"]),
        ("data/db", "shop/web-2", vec!["192.0.2.21 > 192.0.2.12"]),
        ("shop/web-1", "2001:db8:9::1", vec!["2001:db8::11 > 2001:db8:9::1"]),
        ("198.51.100.1", "data/db", vec!["198.51.100.1 > 192.0.2.21"]),
        ("shop/web-1", "data/StatefulSet/idle", vec!["192.0.2.11 > -"]),
        (
            "shop/Deployment/web",
            "shop/Deployment/web",
            vec!["192.0.2.11 > 192.0.2.12", "192.0.2.12 > 192.0.2.11"],
        ),
        ("shop/web-1", "shop/web-1", vec!["192.0.2.11 > 192.0.2.11"]),
    ] {
        assert_eq!(pairs(from, to), expected, "{from} to {to}");
    }
}

#[test]
fn default_deny_denies_what_enforced_allows() {
    let query = r#"{"id":1,"from":{"pod":"shop/web-1"},"to":{"ip":"198.51.100.9"},"port":443}"#;
    for (scenario, verdict) in
        [(Scenario::Enforced, "Allow"), (Scenario::DefaultDeny(DefaultDeny::default()), "Deny")]
    {
        let mut out = Vec::new();
        batch::answer_all(&mut mk_engine(scenario), query.as_bytes(), &mut out).unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(answer["verdict"], verdict);
    }
}

#[test]
fn icmp_without_a_type_is_an_echo_request_and_ids_are_kept_as_given() {
    let line = r#"{"id":{"n":1},"from":{"ip":"192.0.2.1"},"to":{"workload":"a/Job/b"},"protocol":"icmpv6"}"#;
    let query = Query::read(line).unwrap();
    assert_eq!((query.port, query.protocol), (128 << 8, Protocol::Icmpv6));
    assert_eq!(query.id, serde_json::json!({"n": 1}));
    assert_eq!(query.to, Target::Workload(WorkloadRef::new("Job", "a", "b")));
    let Malformed { id, error } = Query::read(r#"{"id":"x","from":3}"#).unwrap_err();
    assert_eq!(id, Some("x".into()));
    assert!(error.starts_with("invalid type: integer `3`"), "{error}");
}

#[test]
fn endpoints_are_typed_as_people_do() {
    for (text, expected) in [
        ("web", Target::Pod { namespace: "ns".to_owned(), name: "web".to_owned() }),
        ("shop/web", Target::Pod { namespace: "shop".to_owned(), name: "web".to_owned() }),
        ("shop/Deployment/web", Target::Workload(WorkloadRef::new("Deployment", "shop", "web"))),
        ("2001:db8::1", Target::Address("2001:db8::1".parse().unwrap())),
    ] {
        assert_eq!(target(text, "ns").unwrap(), expected);
    }
    for text in ["", "a//b", "a/b/c/d", "/web"] {
        assert!(target(text, "ns").is_err(), "{text}");
    }
}

/// A block for everyone: whether it means pods is the dialect's.
const ANYWHERE: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}, status: {podIPs: [{ip: 192.0.2.11}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop}, status: {podIPs: [{ip: 192.0.2.12}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: anywhere, namespace: shop}
spec: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}
";

#[test]
fn other_dialects_are_compared_when_that_is_asked() {
    let ask = |to: &str, output| {
        let query = Query {
            id: serde_json::Value::Null,
            from: target("shop/web", "default").unwrap(),
            to: target(to, "default").unwrap(),
            port: 80,
            protocol: Protocol::Tcp,
        };
        let mut out = Vec::new();
        let mut engine = mk_engine_of(ANYWHERE, Scenario::Enforced);
        explain(&mut engine, &query, (output, true), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let text = ask("shop/db", Output::Table);
    let differs: Vec<&str> = text.lines().filter(|line| line.starts_with("differs")).collect();
    assert_eq!(differs.len(), 1, "{text}");
    assert!(
        differs[0].starts_with("differs on cilium: egress Deny: isolated by NetworkPolicy/shop/anywhere")
    );
    assert!(ask("203.0.113.7", Output::Table).ends_with("differs on no other dialect\n"));
    let answer: serde_json::Value = serde_json::from_str(&ask("shop/db", Output::Json)).unwrap();
    assert_eq!(answer["egress"]["verdict"], "Allow");
    assert_eq!(answer["differs"].as_array().unwrap().len(), 1);
    assert_eq!(answer["differs"][0]["dialect"], "cilium");
    assert_eq!(answer["differs"][0]["egress"]["verdict"], "Deny");
}
