use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::model::endpoint::Pod;
use crate::model::identity::{IdentityParts, Interner};
use crate::model::labels::Labels;
use crate::model::record::LossRecord;
use crate::model::role::Roles;
use crate::model::verdict::UnknownReason;

fn mk_pod(namespace: &str, kind: &str, workload: &str) -> Party {
    let namespace: Arc<str> = namespace.into();
    let identity = Interner::default().intern(IdentityParts {
        namespace: Arc::clone(&namespace),
        namespace_labels: Labels::default(),
        labels: Labels::default(),
        service_account: "default".into(),
        named_ports: Vec::new(),
        roles: Roles::NONE,
    });
    let address: IpAddr = "192.0.2.10".parse().unwrap();
    let pod = Pod {
        workload: WorkloadRef::new(kind, &namespace, workload),
        namespace,
        name: format!("{workload}-0").into(),
        uid: "".into(),
        identity,
        owners: Arc::new([]),
        selector: Labels::default(),
        node: None,
        host_network: false,
        addresses: Arc::new([address]),
        from_template: false,
    };
    Party::pod(Arc::new(pod), Some(address))
}

fn mk_world() -> Party {
    Party::external("198.51.100.9".parse().unwrap())
}

const DENIED: [ScenarioVerdict; 1] =
    [ScenarioVerdict { scenario: "default-deny", verdict: Verdict::Deny, unknown: None, excepted: false }];

fn mk_delta<'a>(subject: &'a Party, peer: &'a Party, port: u16, connections: u64) -> JudgedDelta<'a> {
    JudgedDelta {
        direction: Direction::Egress,
        subject,
        peer,
        port,
        protocol: Protocol::Tcp,
        cause: Cause::CrossNamespace,
        outcome: Outcome { connections, accepted: connections, ..Outcome::default() },
        icmp_errors: IcmpErrors::default(),
        at: Timestamp::from_nanos(1_700_000_000_500_000_000),
        verdicts: &DENIED,
        violations: &[],
    }
}

fn mk_metrics(caps: Caps) -> Metrics {
    Metrics::new(caps, Readings::default)
}

/// The samples of one metric, without exemplars and without the metric's name.
fn scrape(metrics: &Metrics, name: &str) -> Vec<String> {
    let text = metrics.encode().unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix(name));
    lines.map(|line| line.split(" # ").next().unwrap_or_default().to_owned()).collect()
}

const WOULD_DENY: &str = "dryfence_would_deny_connections_total";

/// (whether the line has this text, its value) of every series.
fn values(metrics: &Metrics, of: &str) -> Vec<u64> {
    let value = |line: String| line.rsplit_once(' ').unwrap().1.parse().unwrap();
    scrape(metrics, WOULD_DENY).into_iter().filter(|line| line.contains(of)).map(value).collect()
}

#[test]
fn a_new_series_is_0_for_one_scrape_and_keeps_what_was_counted_meanwhile() {
    let metrics = mk_metrics(Caps::default());
    let (api, qdrant) = (mk_pod("staging", "Deployment", "api"), mk_pod("data", "StatefulSet", "qdrant"));
    metrics.record(&mk_delta(&api, &qdrant, 6333, 5));
    assert_eq!(values(&metrics, "6333"), [0]);
    metrics.record(&mk_delta(&api, &qdrant, 6333, 2));
    assert_eq!(values(&metrics, "6333"), [7]);
    assert_eq!(values(&metrics, "6333"), [7]);
    metrics.record(&mk_delta(&api, &mk_world(), 443, 1));
    assert_eq!(values(&metrics, "443"), [0]);
    assert_eq!(values(&metrics, "443"), [1]);
}

#[test]
fn external_peers_and_nodes_are_never_told_apart_by_address_or_name() {
    let metrics = mk_metrics(Caps::default());
    let api = mk_pod("staging", "Deployment", "api");
    for last in 1..=50 {
        metrics.record(&mk_delta(&api, &Party::external(IpAddr::from([198, 51, 100, last])), 443, 1));
        let node = Endpoint::Node(format!("node-{last}").into());
        metrics.record(&mk_delta(&api, &Party { address: None, endpoint: node }, 10250, 1));
    }
    metrics.encode().unwrap();
    assert_eq!(values(&metrics, r#"peer_namespace="",peer_workload="world",peer_type="External""#), [50]);
    assert_eq!(values(&metrics, r#"peer_namespace="",peer_workload="node",peer_type="Node""#), [50]);
    assert_eq!(scrape(&metrics, WOULD_DENY).len(), 2);
}

#[test]
fn above_eight_ports_a_pair_the_port_is_many_for_good() {
    let metrics = mk_metrics(Caps::default());
    let (api, qdrant) = (mk_pod("staging", "Deployment", "api"), mk_pod("data", "StatefulSet", "qdrant"));
    for _ in 0..2 {
        for port in 1000..1020 {
            metrics.record(&mk_delta(&api, &qdrant, port, 1));
        }
        metrics.encode().unwrap();
    }
    assert_eq!(values(&metrics, r#"port="many""#), [24]);
    for port in 1000..1008 {
        assert_eq!(values(&metrics, &format!(r#"port="{port}""#)), [2], "the first eight go on");
    }
    // The other direction of sight is a pair of its own.
    metrics.record(&JudgedDelta { direction: Direction::Ingress, ..mk_delta(&api, &qdrant, 1019, 1) });
    assert_eq!(values(&metrics, r#"port="1019""#), [0]);
}

#[test]
fn beyond_a_workloads_cap_its_own_overflow_series_counts_and_stays() {
    let metrics = mk_metrics(Caps { series_per_workload: 2, ..Caps::default() });
    let (api, web) = (mk_pod("staging", "Deployment", "api"), mk_pod("staging", "Deployment", "web"));
    let peers: Vec<_> = (0..5).map(|at| mk_pod("data", "Deployment", &format!("peer-{at}"))).collect();
    for _ in 0..2 {
        for peer in &peers {
            metrics.record(&mk_delta(&api, peer, 80, 1));
        }
        metrics.encode().unwrap();
    }
    metrics.record(&mk_delta(&web, &peers[4], 80, 1));
    let overflow = r#"workload="api",workload_type="Deployment",peer_namespace="__overflow__""#;
    assert_eq!(values(&metrics, overflow), [6]);
    assert_eq!(
        values(&metrics, r#"namespace="staging",workload="web""#),
        [1],
        "other workloads have their own"
    );
    assert_eq!(
        scrape(&metrics, "dryfence_series_folded_total"),
        [
            r#"{metric="dryfence_failed_connections_total"} 0"#,
            r#"{metric="dryfence_segment_violation_connections_total"} 0"#,
            r#"{metric="dryfence_would_deny_connections_total"} 3"#
        ]
    );
    // Sticky: even where a peer's series made room, what was folded stays folded.
    metrics.forget_workload(&WorkloadRef::new("Deployment", "data", "peer-0"));
    metrics.record(&mk_delta(&api, &peers[4], 80, 1));
    assert_eq!(values(&metrics, overflow), [7]);
    assert_eq!(values(&metrics, "peer-0"), [] as [u64; 0]);
}

#[test]
fn beyond_the_cap_of_a_family_one_overflow_series_counts_and_outlives_workloads() {
    let metrics = mk_metrics(Caps { series_per_family: 10, ..Caps::default() });
    let peer = mk_world();
    let subjects: Vec<_> = (0..40).map(|at| mk_pod("many", "Deployment", &format!("w{at}"))).collect();
    for _ in 0..3 {
        for subject in &subjects {
            metrics.record(&mk_delta(subject, &peer, 443, 1));
        }
        metrics.encode().unwrap();
    }
    let overflow = r#"namespace="__overflow__",workload="__overflow__""#;
    assert_eq!(values(&metrics, overflow), [90]);
    assert_eq!(scrape(&metrics, WOULD_DENY).len(), 11);
    assert_eq!(values(&metrics, "").iter().sum::<u64>(), 120, "nothing is lost by folding");

    for subject in &subjects {
        metrics.forget_workload(&subject.as_pod().unwrap().workload);
    }
    assert_eq!(values(&metrics, ""), [90], "only the overflow stays");
    metrics.record(&mk_delta(&subjects[39], &peer, 443, 1));
    assert_eq!(values(&metrics, r#"workload="w39""#), [0], "there is room again");
}

#[test]
fn a_workload_that_is_gone_disappears_but_not_before_its_last_value_was_seen() {
    let metrics = mk_metrics(Caps::default());
    let (job, db) = (mk_pod("batch", "CronJob", "nightly"), mk_pod("data", "StatefulSet", "db"));
    let gone = WorkloadRef::new("CronJob", "batch", "nightly");
    metrics.record(&mk_delta(&job, &db, 5432, 3));
    metrics.forget_workload(&gone);
    assert_eq!(values(&metrics, "nightly"), [0]);
    assert_eq!(values(&metrics, "nightly"), [3]);
    assert_eq!(values(&metrics, "nightly"), [] as [u64; 0]);

    metrics.record(&mk_delta(&db, &job, 80, 1));
    metrics.encode().unwrap();
    metrics.encode().unwrap();
    metrics.forget_workload(&gone);
    assert_eq!(
        values(&metrics, "nightly"),
        [] as [u64; 0],
        "as a peer it goes too, at once where all was seen"
    );
}

#[test]
fn icmp_errors_are_counted_by_kind_also_where_nothing_was_opened() {
    let (web, db) = (mk_pod("staging", "Deployment", "web"), mk_pod("data", "StatefulSet", "db"));
    let metrics = mk_metrics(Caps::default());
    let icmp_errors = IcmpErrors { too_big: 2, time_exceeded: 0, other: 5 };
    metrics.encode().unwrap();
    for _ in 0..2 {
        metrics.record(&JudgedDelta { icmp_errors, ..mk_delta(&web, &db, 5432, 0) });
        metrics.encode().unwrap();
    }
    assert_eq!(
        scrape(&metrics, "dryfence_icmp_errors_total"),
        [r#"{direction="Egress",kind="other"} 10"#, r#"{direction="Egress",kind="too-big"} 4"#]
    );
}

#[test]
fn only_accepted_connections_are_denied_ones_and_failed_ones_are_counted_apart() {
    let metrics = mk_metrics(Caps::default());
    let (web, db) = (mk_pod("staging", "Deployment", "web"), mk_pod("data", "StatefulSet", "db"));
    let outcome = Outcome { connections: 0, accepted: 0, refused: 2, unanswered: 3 };
    metrics.record(&JudgedDelta { outcome, ..mk_delta(&web, &db, 5432, 0) });
    metrics.encode().unwrap();
    assert_eq!(scrape(&metrics, WOULD_DENY), [] as [&str; 0]);
    assert_eq!(
        scrape(&metrics, "dryfence_failed_connections_total"),
        [
            r#"{direction="Egress",namespace="staging",workload="web",workload_type="Deployment",outcome="refused"} 2"#,
            r#"{direction="Egress",namespace="staging",workload="web",workload_type="Deployment",outcome="unanswered"} 3"#,
        ]
    );
}

#[test]
fn an_unknown_verdict_is_counted_once_an_edge_and_a_denied_one_that_was_accepted_is_a_mismatch() {
    let metrics = mk_metrics(Caps::default());
    let (web, db) = (mk_pod("staging", "Deployment", "web"), mk_pod("data", "StatefulSet", "db"));
    let unknown = Some(UnknownReason::AddressUnjoined.code());
    let answer = |scenario, verdict, unknown| ScenarioVerdict { scenario, verdict, unknown, excepted: false };
    let verdicts =
        [answer("enforced", Verdict::Unknown, unknown), answer("default-deny", Verdict::Unknown, unknown)];
    metrics.record(&JudgedDelta { verdicts: &verdicts, ..mk_delta(&web, &db, 5432, 4) });
    let verdicts = [answer("enforced", Verdict::Deny, None), answer("default-deny", Verdict::Deny, None)];
    metrics.record(&JudgedDelta { verdicts: &verdicts, ..mk_delta(&web, &db, 5432, 3) });
    metrics.encode().unwrap();
    assert_eq!(scrape(&metrics, "dryfence_unknown_connections_total"), [r#"{reason="address-unjoined"} 4"#]);
    assert_eq!(
        scrape(&metrics, "dryfence_enforcement_mismatch_connections_total"),
        [r#"{kind="denied-but-accepted"} 3"#]
    );
}

const VIOLATIONS: &str = "dryfence_segment_violation_connections_total";

#[test]
fn a_violation_is_counted_once_though_both_ends_see_it_and_whatever_the_policies_say() {
    let metrics = mk_metrics(Caps::default());
    let (web, db) = (mk_pod("staging", "Deployment", "web"), mk_pod("data", "StatefulSet", "db"));
    let (world, map, from, to) = (mk_world(), "tiers".into(), "web".into(), "data".into());
    let violation = SegmentViolation {
        segment_map: &map,
        from_segment: Some(&from),
        to_segment: Some(&to),
        severity: "Warning",
        excepted: false,
    };
    let (known, outside) = (
        [SegmentViolation { excepted: true, ..violation }],
        [SegmentViolation { from_segment: None, ..violation }],
    );
    let ingress =
        |subject, peer| JudgedDelta { direction: Direction::Ingress, ..mk_delta(subject, peer, 5432, 3) };
    let record = || {
        metrics.record_all([
            JudgedDelta { violations: &[violation], verdicts: &[], ..mk_delta(&web, &db, 5432, 3) },
            JudgedDelta { violations: &[violation], verdicts: &[], ..ingress(&db, &web) },
            JudgedDelta { violations: &known, verdicts: &[], ..mk_delta(&web, &db, 5432, 2) },
            // What comes from outside is seen at the responder only.
            JudgedDelta { violations: &outside, verdicts: &[], ..ingress(&db, &world) },
        ]);
    };
    record();
    metrics.encode().unwrap();
    let edge = r#"peer_namespace="data",peer_workload="db",peer_type="StatefulSet",port="5432",protocol="TCP",cause="cross-namespace""#;
    let web = r#"severity="Warning",namespace="staging",workload="web",workload_type="Deployment""#;
    assert_eq!(
        scrape(&metrics, VIOLATIONS),
        [
            r#"{segment_map="tiers",from_segment="",to_segment="data",severity="Warning",namespace="data",workload="db",workload_type="StatefulSet",peer_namespace="",peer_workload="world",peer_type="External",port="5432",protocol="TCP",cause="cross-namespace",excepted="false"} 3"#.to_owned(),
            format!(r#"{{segment_map="tiers",from_segment="web",to_segment="data",{web},{edge},excepted="false"}} 3"#),
            format!(r#"{{segment_map="tiers",from_segment="web",to_segment="data",{web},{edge},excepted="true"}} 2"#),
        ]
    );
    assert_eq!(scrape(&metrics, WOULD_DENY), [] as [&str; 0]);
}

#[test]
fn violations_are_bounded_like_denials() {
    let metrics = mk_metrics(Caps { ports_per_pair: 3, series_per_workload: 5, series_per_family: 300 });
    let (web, db) = (mk_pod("staging", "Deployment", "web"), mk_pod("data", "StatefulSet", "db"));
    let map = "tenants".into();
    for tenant in 0..20 {
        let to: Arc<str> = format!("tenant={tenant}").into();
        let violation = SegmentViolation {
            segment_map: &map,
            from_segment: None,
            to_segment: Some(&to),
            severity: "Critical",
            excepted: false,
        };
        for port in 0..20 {
            metrics.record(&JudgedDelta { violations: &[violation], ..mk_delta(&web, &db, port, 1) });
        }
    }
    metrics.encode().unwrap();
    let lines = scrape(&metrics, VIOLATIONS);
    assert_eq!(lines.len(), 6, "five of its own and the overflow: {lines:?}");
    assert!(
        lines.iter().any(|line| line.contains(r#"from_segment="__overflow__",to_segment="__overflow__""#))
    );
    let sum: u64 = lines.iter().map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum();
    assert_eq!(sum, 400, "nothing is lost by folding");
}

#[test]
fn losses_appear_at_0_first_and_never_fall() {
    let count = Arc::new(Mutex::new(7));
    let read = Arc::clone(&count);
    let metrics = Metrics::new(Caps::default(), move || Readings {
        losses: vec![LossRecord {
            stage: "edge-map".to_owned(),
            reason: "full".to_owned(),
            packets: *read.lock().unwrap(),
            edges: 1,
        }],
        ..Readings::default()
    });
    let packets = || scrape(&metrics, "dryfence_lost_packets_total");
    assert_eq!(packets(), [r#"{stage="edge-map",reason="full"} 0"#]);
    assert_eq!(packets(), [r#"{stage="edge-map",reason="full"} 7"#]);
    *count.lock().unwrap() = 5;
    assert_eq!(packets(), [r#"{stage="edge-map",reason="full"} 7"#]);
}

#[test]
fn the_gauge_of_edges_is_bounded_and_its_series_keep_their_places() {
    let edges = |from: usize| -> Vec<_> {
        (from..from + 4)
            .map(|at| {
                let key = WouldDenyEdges {
                    scenario: "enforced",
                    direction: Direction::Ingress,
                    subject: WorkloadRef::new("Deployment", "n", &format!("w{at}")),
                    cause: Cause::Metrics,
                    excepted: false,
                };
                (key, 10 + at as u64)
            })
            .collect()
    };
    let shown = Arc::new(Mutex::new(edges(0)));
    let read = Arc::clone(&shown);
    let metrics = Metrics::new(Caps { series_per_family: 2, ..Caps::default() }, move || Readings {
        would_deny_edges: read.lock().unwrap().clone(),
        ..Readings::default()
    });
    let short = || -> Vec<String> {
        let lines = scrape(&metrics, "dryfence_would_deny_edges{");
        lines.iter().map(|line| line.split("workload=").nth(1).unwrap().replace(",cause", " ")).collect()
    };
    let overflow = r#""__overflow__",workload_type="__overflow__" ="__overflow__",excepted="false"} "#;
    let own = |at| format!(r#""w{at}",workload_type="Deployment" ="metrics",excepted="false"}} {}"#, 10 + at);
    assert_eq!(short(), [format!("{overflow}25"), own(0), own(1)]);
    shown.lock().unwrap().reverse();
    assert_eq!(short(), [format!("{overflow}25"), own(0), own(1)]);
    *shown.lock().unwrap() = edges(1);
    assert_eq!(short(), [format!("{overflow}27"), own(1), own(2)]);
}

#[test]
fn exemplars_carry_pod_and_peer_and_are_shown_once() {
    let metrics = mk_metrics(Caps::default());
    let (api, qdrant) = (mk_pod("staging", "Deployment", "api"), mk_pod("data", "StatefulSet", "qdrant"));
    metrics.encode().unwrap();
    metrics.record(&mk_delta(&api, &qdrant, 6333, 5));
    let text = || metrics.encode().unwrap();
    assert!(!text().contains(" # {"), "a new series shows 0, which has no example");
    assert!(text().contains(r#"} 5 # {pod="api-0",peer="qdrant-0"} 5.0 1700000000.5"#), "{}", text());
    assert!(!text().contains(" # {"));
    let long = mk_pod("staging", "Deployment", &"x".repeat(120));
    metrics.record(&mk_delta(&long, &mk_world(), 1, 1));
    text();
    assert!(!text().contains(" # {"), "OpenMetrics allows 128 characters");
}

/// What an agent on a node of the guides' cluster has to say.
fn mk_readings() -> Readings {
    let edges = |scenario, workload, cause| WouldDenyEdges {
        scenario,
        direction: Direction::Egress,
        subject: WorkloadRef::new("Deployment", "myapp-staging", workload),
        cause,
        excepted: false,
    };
    Readings {
        would_deny_edges: vec![
            (edges("enforced", "myapp-workers", Cause::CloudMetadata), 1),
            (edges("enforced", "myapp-api", Cause::CrossNamespace), 2),
        ],
        edges: vec![("enforced", Verdict::Allow, 14), ("enforced", Verdict::Deny, 4)],
        losses: vec![LossRecord { stage: "parse".into(), reason: "truncated".into(), packets: 2, edges: 0 }],
        late_edges: 1,
        interfaces: vec![("watched", 12), ("failed", 1)],
        capture_mishaps: vec![("reattached", 2), ("news-missed", 0)],
        edges_left: vec![("idle", 40), ("unanswered", 2)],
        policies: vec![("NetworkPolicy".into(), PolicyState::InForce, 12)],
        window_start: Some(Timestamp::from_nanos(1_700_000_000_000_000_000)),
        window_gap: Duration::from_millis(1500),
        pods_unobserved: vec![("no-interface", 1)],
        watches: vec![Watch {
            kind: "Pod",
            synced: true,
            age: Some(Duration::from_millis(2500)),
            restarts: 3,
            objects: 5000,
            unreadable: 1,
        }],
    }
}

#[test]
fn the_exposition_is_what_the_design_says() {
    let metrics = Metrics::new(Caps::default(), mk_readings);
    let api = mk_pod("myapp-staging", "Deployment", "myapp-api");
    let workers = mk_pod("myapp-staging", "Deployment", "myapp-workers");
    let qdrant = mk_pod("data-layer", "StatefulSet", "qdrant");
    let metadata = Party::external("169.254.169.254".parse().unwrap());
    let both = [
        ScenarioVerdict { scenario: "enforced", verdict: Verdict::Deny, unknown: None, excepted: false },
        ScenarioVerdict { scenario: "default-deny", verdict: Verdict::Deny, unknown: None, excepted: false },
    ];
    let record = || {
        metrics.record_all([
            JudgedDelta { verdicts: &both, ..mk_delta(&api, &qdrant, 6333, 12) },
            JudgedDelta {
                cause: Cause::CloudMetadata,
                verdicts: &both,
                ..mk_delta(&workers, &metadata, 80, 3)
            },
            JudgedDelta { protocol: Protocol::Icmp, port: 8 << 8, ..mk_delta(&workers, &qdrant, 0, 1) },
        ]);
    };
    metrics.rejudged(Duration::from_millis(3));
    record();
    metrics.encode().unwrap();
    record();
    let text = metrics.encode().unwrap();
    let (ours, process) = text.split_once("# HELP process_").unwrap();
    insta::assert_snapshot!(ours);
    assert!(process.ends_with("# EOF\n"));
}
