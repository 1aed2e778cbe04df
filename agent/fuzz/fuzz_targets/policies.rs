//! Manifests on any bytes: whatever is in them is read, compiled and judged without a panic, in every dialect, and the
//! same question gets the same answer. libFuzzer's own limits see to time and memory.
#![no_main]

use std::path::PathBuf;
use std::sync::Arc;

use dryfence::cluster::index::Index;
use dryfence::cluster::manifests::{Source, load_all};
use dryfence::model::dialect::{Dialect, NAMES};
use dryfence::model::edge::Protocol;
use dryfence::model::endpoint::Connection;
use dryfence::model::facts::{ClusterFacts, ConnectionFacts, Request};
use dryfence::model::scenario::{DefaultDeny, Scenario};
use dryfence::model::time::Timestamp;
use dryfence::policy::Judge;
use libfuzzer_sys::fuzz_target;

/// The pods that are asked about, beside those of the manifests.
const CLUSTER: &str = "
apiVersion: v1
kind: Pod
metadata: {namespace: x, name: web, labels: {app: web}}
spec: {nodeName: node-1, containers: [{name: a, image: a, ports: [{name: http, containerPort: 80}]}]}
status: {podIPs: [{ip: 198.51.100.11}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: y, name: db, labels: {app: db}}
spec: {nodeName: node-2, containers: [{name: a, image: a}]}
status: {podIPs: [{ip: 198.51.100.12}]}
---
apiVersion: v1
kind: Node
metadata: {name: node-2}
status: {addresses: [{type: InternalIP, address: 192.0.2.2}]}
";
const PAIRS: [(&str, &str); 4] = [
    ("198.51.100.11", "198.51.100.12"),
    ("198.51.100.12", "198.51.100.11"),
    ("198.51.100.11", "203.0.113.7"),
    ("192.0.2.2", "198.51.100.11"),
];

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let text = |name: &str, bytes: &[u8]| Source::Text { name: PathBuf::from(name), bytes: bytes.to_vec() };
    let loaded = load_all([text("cluster.yaml", CLUSTER.as_bytes()), text("fuzz.yaml", bytes)], Some("x"));
    for finding in &loaded.findings {
        assert!(!finding.to_string().is_empty());
    }
    let now = Timestamp::EPOCH;
    let mut index = Index::default();
    index.reset(loaded.objects, now);
    let name = NAMES[usize::from(*first) % NAMES.len()];
    let Ok(dialect) = name.parse::<Dialect>() else { return };
    let request = Request::Http { method: "GET".into(), path: "/".into(), host: "a".into(), headers: Vec::new() };
    let given = ConnectionFacts { request: Some(Arc::new(request)), ..ConnectionFacts::NONE };
    for scenario in [Scenario::Enforced, Scenario::DefaultDeny(DefaultDeny::default())] {
        let facts = Arc::new(ClusterFacts::default());
        let mut judge = Judge::with_facts(&index.policies(), &facts, dialect, &scenario);
        for (from, to) in PAIRS {
            for (port, protocol) in [(80, Protocol::Tcp), (53, Protocol::Udp), (2048, Protocol::Icmp)] {
                let (Ok(from), Ok(to)) = (from.parse(), to.parse()) else { return };
                let initiator = index.initiator_at(from, now);
                let responder = index.party_at(to, port, protocol, None, now);
                let connection = Connection { initiator: &initiator, responder: &responder, port, protocol };
                let judgement = judge.judge(&connection);
                assert_eq!(judgement, judge.judge(&connection));
                let explained = judge.explain_given(&connection, &given);
                assert!(!explained.to_string().is_empty());
            }
        }
    }
});
