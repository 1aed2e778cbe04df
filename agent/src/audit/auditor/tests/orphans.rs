//! Connections that are older than the agent.

use super::*;
use crate::model::verdict::Reason;

/// From the web pod's port 40000 to the database's 5432, seen at the web pod.
fn mk_unoriented(second: u64, connections: u64) -> Unoriented {
    Unoriented {
        key: UnorientedKey {
            interface: VETH_WEB,
            local: (ip(WEB), 40000).into(),
            remote: (ip(DB), 5432).into(),
            protocol: Protocol::Tcp,
        },
        range: None,
        connections,
        packets_from_pod: 3,
        packets_to_pod: 2,
        bytes_from_pod: 300,
        bytes_to_pod: 200,
        first_seen: at(second).minus(Duration::from_millis(500)),
        last_seen: at(second).minus(Duration::from_millis(500)),
        read_from: at(second - 1),
        read_at: at(second),
        fully_visible: true,
        vlan: 0,
        estimated: false,
    }
}

fn mk_service() -> Object {
    let service: core::Service = serde_json::from_value(json!({
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {
            "clusterIP": "203.0.113.5",
            "clusterIPs": ["203.0.113.5"],
            "selector": {"app": "db"},
            "ports": [{"port": 5432, "targetPort": 5432}],
        },
    }))
    .unwrap();
    Object::Service(Box::new(object::Service::try_from(&service).unwrap()))
}

fn mk_cluster_with(service: Option<Object>) -> Vec<Object> {
    mk_cluster().into_iter().chain(service).collect()
}

#[test]
fn a_services_port_tells_who_responds_and_capture_is_told() {
    let (mut auditor, mut recorded) = (mk_auditor(), Recorded::default());
    auditor.interface(VETH_WEB, at(1), vec![ip(WEB)], at(1));
    auditor.reset(mk_cluster_with(Some(mk_service())), at(2), &mut recorded);
    let told = auditor.observe_unoriented(&[mk_unoriented(10, 1)], at(10), &mut recorded);
    assert_eq!(told, [(mk_unoriented(10, 1).key, Direction::Egress)]);
    let records = auditor.records();
    let [record] = &records[..] else { panic!("{records:#?}") };
    assert_eq!(
        (record.oriented_by, record.direction, record.port),
        (OrientedBy::Service, Direction::Egress, 5432)
    );
    assert_eq!((record.counters.attempts, record.counters.accepted), (1, 1));
    assert_eq!(only_verdicts(&mut auditor), (Verdict::Allow, Verdict::Allow));
}

#[test]
fn news_of_a_service_orient_what_waits() {
    let (mut auditor, mut recorded) = (mk_auditor(), Recorded::default());
    auditor.interface(VETH_WEB, at(1), vec![ip(WEB)], at(1));
    auditor.reset(mk_cluster_with(None), at(2), &mut recorded);
    for (second, connections) in [(10, 1), (11, 0)] {
        let seen = mk_unoriented(second, connections);
        assert!(auditor.observe_unoriented(&[seen], at(second), &mut recorded).is_empty());
    }
    assert!(auditor.records().is_empty(), "it waits");
    auditor.reset(mk_cluster_with(Some(mk_service())), at(12), &mut recorded);
    let records = auditor.records();
    let [record] = &records[..] else { panic!("{records:#?}") };
    assert_eq!((record.oriented_by, record.counters.attempts), (OrientedBy::Service, 1));
    assert_eq!((record.counters.packets_to_responder, record.counters.packets_to_initiator), (6, 4));
}

#[test]
fn what_nothing_tells_is_unknown_by_every_scenario_and_counted_as_such() {
    let (mut auditor, mut recorded) = (mk_auditor(), Recorded::default());
    auditor.interface(VETH_WEB, at(1), vec![ip(WEB)], at(1));
    auditor.reset(mk_cluster_with(None), at(2), &mut recorded);
    auditor.observe_unoriented(&[mk_unoriented(10, 1)], at(10), &mut recorded);
    auditor.tick(at(39), &mut recorded);
    assert!(auditor.records().is_empty(), "news may still come");
    auditor.tick(at(40), &mut recorded);
    let records = auditor.records();
    let [record] = &records[..] else { panic!("{records:#?}") };
    assert_eq!((record.oriented_by, record.port), (OrientedBy::Unknown, 5432));
    let unoriented = Reason::Unknown(UnknownReason::Unoriented).to_string();
    for (scenario, judgement) in &record.verdicts {
        for decision in [&judgement.egress, &judgement.ingress] {
            assert_eq!((decision.verdict, &decision.reason), (Verdict::Unknown, &unoriented), "{scenario}");
        }
    }
    let expected =
        ["enforced/Egress/Unknown", "default-deny/Egress/Unknown"].map(|said| (said.to_owned(), 1));
    assert_eq!(recorded.0, expected);
}

#[test]
fn ports_that_both_ends_are_known_to_serve_tell_nothing() {
    let (mut auditor, mut recorded) = (mk_auditor(), Recorded::default());
    auditor.reset(mk_cluster_with(Some(mk_service())), at(2), &mut recorded);
    let mut seen = mk_unoriented(10, 1);
    seen.key.local = (ip("203.0.113.5"), 5432).into();
    assert!(auditor.observe_unoriented(&[seen], at(10), &mut recorded).is_empty());
}
