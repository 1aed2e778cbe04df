//! Manifests of every family that somebody, or something, has bitten into: whatever they say, they are read, compiled
//! and judged without a panic, and the answer does not depend on the order or on what was asked before.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use super::build::{Family, World, mk_read};
use crate::model::dialect::{Dialect, NAMES};
use crate::model::edge::Protocol;
use crate::model::endpoint::Connection;
use crate::model::facts::ConnectionFacts;
use crate::model::scenario::{DefaultDeny, Scenario};
use crate::policy::{Judge, Policy, PolicyKind};

/// Every policy of the guides, and of the kinds that are in none of them an empty one.
fn seeds() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guides");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().join("policies.yaml"));
    let mut seeds: Vec<Value> = Vec::new();
    for file in files.filter(|file| file.exists()) {
        let text = std::fs::read_to_string(file).unwrap();
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        let is_kind = |kind: &PolicyKind, value: &Value| {
            value["kind"] == kind.kind
                && kind.api_versions.iter().any(|version| value["apiVersion"] == *version)
        };
        let known = |value: &Value| PolicyKind::ALL.iter().any(|kind| is_kind(kind, value));
        seeds.extend(documents.into_iter().filter(known));
    }
    for kind in PolicyKind::ALL {
        let mut empty = json!({"apiVersion": kind.api_versions[0], "kind": kind.kind,
            "metadata": {"name": "empty", "annotations": {"a": "b"}}, "spec": {"a": [{}]}, "status": {"a": [{}]}});
        if kind.namespaced {
            empty["metadata"]["namespace"] = json!("x");
        }
        seeds.push(empty);
    }
    // The world of the tables is in x and y.
    for seed in &mut seeds {
        if seed["metadata"]["namespace"].is_string() {
            seed["metadata"]["namespace"] = json!("x");
        }
    }
    seeds
}

static SEEDS: LazyLock<Vec<Value>> = LazyLock::new(seeds);

/// What may be in place of anything.
fn hostile(at: Index, other: &Value) -> Value {
    let deep = (0..200).fold(json!("end"), |inner, _| json!([inner]));
    let values = [
        Value::Null,
        json!(true),
        json!(-1),
        json!(65536),
        json!(1e300),
        json!(""),
        json!("*"),
        json!("/"),
        json!("0.0.0.0/33"),
        json!("::ffff:10.0.0.0/96"),
        json!("(((("),
        json!("((a{99}){99}){99}"),
        json!("k8s:"),
        json!("**.*"),
        json!("\u{0}\u{10ffff}é"),
        json!("x".repeat(10_000)),
        json!([]),
        json!({}),
        json!([null, {}, [], ""]),
        json!({"": "", "matchLabels": {"a": "b"}, "port": "http", "cidr": "192.0.2.0/24"}),
        deep,
        other.clone(),
    ];
    values[at.index(values.len())].clone()
}

/// Every place of a value, as JSON pointers; not what says which kind it is.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    if !matches!(at, "/kind" | "/apiVersion") {
        found.push(at.to_owned());
    }
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| places(item, &format!("{at}/{index}"), found));
        }
        Value::Object(fields) => fields.iter().for_each(|(key, item)| {
            places(item, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found);
        }),
        _ => {}
    }
}

#[derive(Debug, Clone)]
struct Bite {
    place: Index,
    how: Index,
    what: Index,
    from: Index,
}

fn any_bites() -> impl Strategy<Value = Vec<Bite>> {
    let bite = (any::<Index>(), any::<Index>(), any::<Index>(), any::<Index>());
    prop::collection::vec(bite.prop_map(|(place, how, what, from)| Bite { place, how, what, from }), 0..4)
}

fn bitten(seed: &Value, bites: &[Bite]) -> Value {
    let mut value = seed.clone();
    for Bite { place, how, what, from } in bites {
        let mut found = Vec::new();
        places(&value, "", &mut found);
        found.retain(|place| !place.is_empty());
        // Others took all that there was.
        if found.is_empty() {
            break;
        }
        let other = value.pointer(from.get::<String>(&found)).cloned().unwrap_or_default();
        let place = place.get(&found);
        let (parent, key) = place.rsplit_once('/').unwrap();
        let key = key.replace("~1", "/").replace("~0", "~");
        match (how.index(4), value.pointer_mut(parent)) {
            (0, Some(Value::Object(fields))) => {
                fields.remove(&key);
            }
            (1, Some(Value::Object(fields))) => {
                let item = fields.remove(&key).unwrap_or_default();
                fields.insert(format!("{key}s"), item);
            }
            _ => {
                if let Some(target) = value.pointer_mut(place) {
                    *target = hostile(*what, &other);
                }
            }
        }
    }
    if !value["metadata"]["name"].is_string() {
        value["metadata"] = json!({"name": "p", "namespace": "x"});
    }
    value
}

/// What every connection gets, asked once, and then again by a judge that has seen the policies the other way round.
fn judge(policies: &[Arc<Policy>], dialect: Dialect, scenario: &Scenario) {
    let world = World::new(Family::V4);
    let mut judge = Judge::new(policies, dialect, scenario);
    let reversed: Vec<Arc<Policy>> = policies.iter().rev().cloned().collect();
    let mut other = Judge::new(&reversed, dialect, scenario);
    for (from, to) in
        [("x/web", "x/db"), ("x/db", "y/db"), ("x/db", "outside"), ("node-2", "x/db"), ("x/web", "unknown")]
    {
        let (initiator, responder) = (world.party(from), world.party(to));
        for (port, protocol) in [(80, Protocol::Tcp), (53, Protocol::Udp), (2048, Protocol::Icmp)] {
            let c = Connection { initiator: &initiator, responder: &responder, port, protocol };
            let first = judge.judge(&c);
            assert_eq!(first, judge.judge(&c), "asked again");
            let verdicts = |j: &crate::model::verdict::Judgement| (j.egress.verdict, j.ingress.verdict);
            assert_eq!(verdicts(&first), verdicts(&other.judge(&c)), "in another order");
            let explained = judge.explain_given(&c, &ConnectionFacts::NONE);
            assert!(!explained.to_string().is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_manifests_say_they_are_judged(
        picked in prop::collection::vec((any::<Index>(), any_bites()), 1..4),
        dialect in any::<Index>(),
    ) {
        let mut policies = Vec::new();
        for (at, (seed, bites)) in picked.iter().enumerate() {
            let mut value = bitten(seed.get(&SEEDS), bites);
            if let Some(name) = value["metadata"].get_mut("name") {
                *name = json!(format!("p{at}"));
            }
            policies.push(mk_read(&value));
        }
        let dialect: Dialect = dialect.get(&NAMES).parse().unwrap();
        judge(&policies, dialect, &Scenario::Enforced);
        judge(&policies, dialect, &Scenario::DefaultDeny(DefaultDeny::default()));
    }
}
