//! From manifest files to metrics and the report, with segment maps and exceptions among them.

use std::fs;

use super::*;
use crate::audit::auditor::Settings;
use crate::capture::{Means, Status};
use crate::cli::report;
use crate::cluster::Object;
use crate::cluster::index::Index;
use crate::cluster::manifests;
use crate::model::dialect::Dialect;
use crate::model::edge::{Counters, Direction, EdgeKey, IfIndex, OrientedBy, Protocol, Scope};
use crate::serve::metrics::Caps;

const CLUSTER: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
- apiVersion: v1
  kind: Pod
  metadata: {name: web, namespace: shop, labels: {app: web}}
  spec: {nodeName: n1, containers: []}
  status: {phase: Running, podIP: 192.0.2.10, podIPs: [{ip: 192.0.2.10}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: db, namespace: shop, labels: {app: db}}
  spec: {nodeName: n1, containers: []}
  status: {phase: Running, podIP: 192.0.2.20, podIPs: [{ip: 192.0.2.20}]}
- apiVersion: dryfence.io/v1alpha1
  kind: SegmentMap
  metadata: {name: tiers}
  spec:
    segments:
    - {name: web, members: [{podSelector: {matchLabels: {app: web}}}]}
    - {name: data, members: [{podSelector: {matchLabels: {app: db}}}]}
- apiVersion: dryfence.io/v1alpha1
  kind: SegmentMap
  metadata: {name: dmz}
  spec: {segments: [{name: edge, members: [{entity: moon}]}]}
- apiVersion: dryfence.io/v1alpha1
  kind: EdgeException
  metadata: {name: known, namespace: shop}
  spec: {scenario: default-deny, to: [{workload: {kind: Pod, name: db}}], reason: the move in June}
";

fn at(second: u64) -> Timestamp {
    Timestamp::from_nanos(second * 1_000_000_000)
}

/// One connection from web to the database, as web's interface shows it.
fn mk_seen() -> Observation {
    Observation {
        key: EdgeKey {
            interface: IfIndex(10),
            direction: Direction::Egress,
            initiator: "192.0.2.10".parse().unwrap(),
            responder: "192.0.2.20".parse().unwrap(),
            port: 5432,
            protocol: Protocol::Tcp,
            scope: Scope::Address,
        },
        delta: Counters { attempts: 1, accepted: 1, ..Counters::default() },
        first_seen: at(9),
        last_seen: at(9),
        read_from: at(8),
        read_at: at(10),
        oriented_by: OrientedBy::Handshake,
        fully_visible: true,
        vlan: 0,
        estimated: false,
    }
}

#[test]
fn a_map_from_a_file_is_told_by_metrics_and_report_though_no_policy_denies_and_an_exception_by_its_label() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cluster.yaml"), CLUSTER).unwrap();
    let News::Whole { objects, warnings } = manifests::load(&[folder.path().to_owned()], None).into() else {
        panic!("files tell the whole")
    };
    assert!(
        warnings
            .iter()
            .any(|warning| warning.contains("SegmentMap dmz: items[4].spec.segments[0].members[0].entity"))
    );

    let metrics = Arc::new(Metrics::new(Caps::default(), Readings::default));
    let mut recorder = MetricsRecorder { metrics: Arc::clone(&metrics), known: FxHashSet::default() };
    let settings = Settings {
        node: Some("n1".into()),
        dialect: Dialect::STANDARD,
        scenarios: vec![Scenario::Enforced, Scenario::DefaultDeny(Default::default())],
        most_edges: 10,
    };
    let mut auditor = Auditor::new(settings, Index::default());
    auditor.interface(IfIndex(10), at(1), vec!["192.0.2.10".parse().unwrap()], at(1));
    auditor.reset(objects, at(2), &mut recorder);
    let policies = source::policy_counts(auditor.index());
    assert_eq!(
        policies,
        [
            ("SegmentMap".to_owned(), PolicyState::InForce, 1),
            ("SegmentMap".to_owned(), PolicyState::Refused, 1)
        ]
    );
    auditor.observe(&[mk_seen()], at(10), &mut recorder);

    metrics.encode().unwrap();
    let text = metrics.encode().unwrap();
    let one = |metric: &str, part: &str| {
        let found = text.lines().filter(|line| line.starts_with(metric) && line.contains(part)).count();
        assert_eq!(found, 1, "{metric} {part}: {text}");
    };
    one(
        "dryfence_segment_violation_connections_total{",
        r#"segment_map="tiers",from_segment="web",to_segment="data",severity="Warning",namespace="shop",workload="web""#,
    );
    one("dryfence_would_deny_connections_total{", r#"excepted="true"} 1"#);
    assert!(!text.contains(r#"scenario="enforced",direction="Egress",verdict="Deny""#));

    let list = EdgeList {
        window: WindowRecord { start: at(2), end: at(12), losses: Vec::new(), unobserved: Vec::new() },
        dialect: "standard".to_owned(),
        scenarios: Vec::new(),
        warnings,
        segment_maps: auditor.segment_maps(),
        exception_findings: auditor.exception_findings(),
        edges: auditor.records(),
    };
    let report = report::build(&list, &report::Options::default());
    assert_eq!(
        (report.findings().count(), report.segments.connections, report.excepted.connections),
        (0, 1, 1)
    );
    let in_force: Vec<_> = report.segments.maps.iter().map(|map| (map.map.as_str(), map.in_force)).collect();
    assert_eq!(in_force, [("dmz", false), ("tiers", true)]);
    let mut ledger = LedgerFigures::default();
    ledger.refresh(&auditor, &auditor.workloads());
    let told = Status::quiet(Means::Tcx);
    let figures = readings(&auditor, &ledger, Vec::new(), &told, policies.clone(), at(2), Vec::new());
    assert_eq!(figures.would_deny_edges.len(), 1, "{figures:?}");
    assert!(figures.would_deny_edges.iter().all(|(series, _)| series.excepted), "{figures:?}");

    // Figures stand until the ledger changes: here without the exception, its edge is judged again.
    let objects = manifests::load(&[folder.path().to_owned()], None).objects;
    let objects = objects.into_iter().filter(|object| !matches!(object, Object::EdgeException(_))).collect();
    let before = auditor.ledger_changes();
    ledger.refresh(&auditor, &auditor.workloads());
    assert_eq!(auditor.ledger_changes(), before);
    auditor.reset(objects, at(20), &mut recorder);
    while auditor.tick(at(20), &mut recorder) {}
    ledger.refresh(&auditor, &auditor.workloads());
    let figures = readings(&auditor, &ledger, Vec::new(), &told, policies, at(2), Vec::new());
    assert!(figures.would_deny_edges.iter().all(|(series, _)| !series.excepted), "{figures:?}");
}

const EXPOSED: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
- apiVersion: v1
  kind: Node
  metadata: {name: n1}
  status: {addresses: [{type: InternalIP, address: 198.51.100.1}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: db, namespace: shop, labels: {app: db}}
  spec: {nodeName: n1, containers: []}
  status: {phase: Running, podIP: 192.0.2.20, podIPs: [{ip: 192.0.2.20}]}
- apiVersion: v1
  kind: Service
  metadata: {name: db, namespace: shop}
  spec: {type: NodePort, selector: {app: db}, ports: [{port: 5432, nodePort: 30432}]}
";

#[test]
fn who_is_behind_a_nodes_address_is_counted_as_unknown_where_nothing_tells() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cluster.yaml"), EXPOSED).unwrap();
    let objects = manifests::load(&[folder.path().to_owned()], None).objects;
    let metrics = Arc::new(Metrics::new(Caps::default(), Readings::default));
    let mut recorder = MetricsRecorder { metrics: Arc::clone(&metrics), known: FxHashSet::default() };
    let settings = Settings {
        node: Some("n1".into()),
        dialect: Dialect::STANDARD,
        scenarios: vec![Scenario::DefaultDeny(Default::default())],
        most_edges: 10,
    };
    let mut auditor = Auditor::new(settings, Index::default());
    auditor.interface(IfIndex(11), at(1), vec!["192.0.2.20".parse().unwrap()], at(1));
    auditor.reset(objects, at(2), &mut recorder);
    auditor.translated(None, at(10));
    let mut seen = mk_seen();
    seen.key.interface = IfIndex(11);
    seen.key.direction = Direction::Ingress;
    seen.key.initiator = "198.51.100.1".parse().unwrap();
    let delta = Counters { attempts: 3, accepted: 3, ..Counters::default() };
    // And on a port that nothing exposes, the node is the node.
    let probe = Observation { key: EdgeKey { port: 8080, ..seen.key }, ..seen };
    auditor.observe(&[Observation { delta, ..seen }, probe], at(10), &mut recorder);
    metrics.encode().unwrap();
    let text = metrics.encode().unwrap();
    let unknown: Vec<&str> =
        text.lines().filter(|line| line.starts_with("dryfence_unknown_connections_total{")).collect();
    assert_eq!(unknown, [r#"dryfence_unknown_connections_total{reason="snat"} 3"#]);
}
