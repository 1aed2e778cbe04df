//! Tests of segment maps and exceptions beside the policies.

use super::*;
use crate::segment::{EdgeException, SegmentMap};

/// Web and data are kept apart; namespace shop may declare exceptions.
fn mk_map(edit: impl FnOnce(&mut Value)) -> Object {
    let pods = |app: &str| json!([{"podSelector": {"matchLabels": {"app": app}}}]);
    let mut map = json!({
        "apiVersion": "dryfence.io/v1alpha1", "kind": "SegmentMap", "metadata": {"name": "tiers"},
        "spec": {
            "segments": [{"name": "web", "members": pods("web")}, {"name": "data", "members": pods("db")}],
            "exceptionsFrom": {"namespaceSelector": {}},
        },
    });
    edit(&mut map["spec"]);
    Object::SegmentMap(Arc::new(SegmentMap::from_object(&serde_json::from_value(map).unwrap())))
}

/// An exception for connections to the database, until second 100.
fn mk_exception(from: &str, name: &str) -> Object {
    let object = json!({
        "apiVersion": "dryfence.io/v1alpha1", "kind": "EdgeException",
        "metadata": {"name": "legacy", "namespace": "shop"},
        "spec": {
            from: name, "to": [{"podSelector": {"matchLabels": {"app": "db"}}}], "reason": "moves in June",
            "ticket": "OPS-7", "expiresAt": "1970-01-01T00:01:40Z",
        },
    });
    Object::EdgeException(Arc::new(EdgeException::from_object(&serde_json::from_value(object).unwrap())))
}

fn mk_namespace() -> Object {
    let namespace: core::Namespace = serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap();
    Object::Namespace(object::Namespace::try_from(&namespace).unwrap())
}

/// An auditor of the cluster and these objects, that saw web open connections to the database.
fn mk_audited(objects: impl IntoIterator<Item = Object>) -> Auditor {
    let (mut auditor, mut recorded) = (mk_auditor(), Recorded::default());
    auditor.interface(VETH_WEB, at(1), vec![ip(WEB)], at(1));
    let cluster = mk_cluster().into_iter().chain([mk_namespace()]).chain(objects);
    auditor.reset(cluster.collect(), at(2), &mut recorded);
    auditor.observe(&[mk_seen(VETH_WEB, Direction::Egress, 10)], at(10), &mut recorded);
    auditor
}

fn only_record(auditor: &mut Auditor) -> EdgeRecord {
    let mut records = auditor.records();
    assert_eq!(records.len(), 1);
    records.remove(0)
}

#[test]
fn a_violation_is_told_although_the_policies_allow_it() {
    let mut auditor = mk_audited([mk_map(|_| {})]);
    let record = only_record(&mut auditor);
    assert_eq!(record.verdicts["enforced"].verdict, Verdict::Allow);
    let [crossed] = &record.segments[..] else { panic!("{:?}", record.segments) };
    assert!(crossed.is_violation() && !crossed.excepted, "{crossed:?}");
    assert_eq!((crossed.from.as_deref(), crossed.to.as_deref()), (Some("web"), Some("data")));
    assert_eq!(crossed.reason, "no rule lets web open connections to data on 5432/TCP");
    let json = serde_json::to_value(&record).unwrap();
    assert_eq!(json["segments"][0]["map"], "tiers");
    assert_eq!(serde_json::from_value::<EdgeRecord>(json).unwrap(), record);
}

#[test]
fn an_exception_mutes_a_violation_until_it_expires_and_then_is_a_finding() {
    let mut auditor = mk_audited([mk_map(|_| {}), mk_exception("segmentMap", "tiers")]);
    let record = only_record(&mut auditor);
    let crossed = &record.segments[0];
    assert!(crossed.is_violation() && crossed.excepted, "it is still a violation: {crossed:?}");
    let exception = crossed.exception.as_ref().unwrap();
    assert_eq!(exception.exception, "EdgeException/shop/legacy");
    assert_eq!((&*exception.reason, exception.ticket.as_deref()), ("moves in June", Some("OPS-7")));
    assert!(!record.verdicts["default-deny"].excepted, "it is an exception from the map only");
    assert_eq!(auditor.exception_findings(), []);
    let mut recorded = Recorded::default();
    auditor.tick(at(99), &mut recorded);
    assert!(only_record(&mut auditor).segments[0].excepted);
    auditor.tick(at(100), &mut recorded);
    let crossed = &only_record(&mut auditor).segments[0];
    assert!(!crossed.excepted && crossed.exception.is_none());
    let [finding] = &auditor.exception_findings()[..] else { panic!("one has expired") };
    assert_eq!(finding.exception, "EdgeException/shop/legacy");
    assert!(finding.finding.starts_with("spec.expiresAt: expired on 1970-01-01T00:01:40"), "{finding:?}");
    assert_eq!(recorded.0, [], "nothing is counted again");
}

#[test]
fn an_exception_mutes_the_denials_of_its_scenario_only() {
    let mut auditor = mk_audited([mk_exception("scenario", "default-deny")]);
    let record = only_record(&mut auditor);
    let denied = &record.verdicts["default-deny"];
    assert_eq!((denied.verdict, denied.excepted), (Verdict::Deny, true));
    assert!(denied.exception.is_some());
    assert!(!record.verdicts["enforced"].excepted, "nothing is denied there");
    let entry = auditor.ledger().entries().next().unwrap();
    assert!(entry.answers.exception(1).is_some() && entry.answers.exception(0).is_none());
}

#[test]
fn a_map_that_lets_no_namespace_declare_exceptions_is_not_muted() {
    let closed = mk_map(|spec| drop(spec.as_object_mut().unwrap().remove("exceptionsFrom")));
    let mut auditor = mk_audited([closed, mk_exception("segmentMap", "tiers")]);
    assert!(!only_record(&mut auditor).segments[0].excepted);
    let [finding] = &auditor.exception_findings()[..] else { panic!("it is refused") };
    assert!(finding.finding.contains("lets no namespace declare exceptions"), "{finding:?}");
}

#[test]
fn a_map_that_is_not_in_force_judges_nothing_and_says_why() {
    let mut auditor = mk_audited([mk_map(|spec| spec["segments"][0]["members"] = json!([]))]);
    assert_eq!(only_record(&mut auditor).segments, []);
    let [map] = &auditor.segment_maps()[..] else { panic!("the map is listed") };
    assert!(!map.in_force);
    assert!(map.reasons[0].starts_with("spec.segments[0].members"), "{:?}", map.reasons);
}

#[test]
fn a_new_map_or_exception_judges_what_was_seen_before_it() {
    let mut auditor = mk_audited([]);
    assert_eq!(only_record(&mut auditor).segments, []);
    let mut recorded = Recorded::default();
    let cluster = || mk_cluster().into_iter().chain([mk_namespace(), mk_map(|_| {})]);
    auditor.reset(cluster().collect(), at(20), &mut recorded);
    assert!(only_record(&mut auditor).segments[0].is_violation());
    let excepted = cluster().chain([mk_exception("segmentMap", "tiers")]);
    auditor.reset(excepted.collect(), at(30), &mut recorded);
    assert!(only_record(&mut auditor).segments[0].excepted);
    auditor.reset(mk_cluster(), at(40), &mut recorded);
    assert_eq!(only_record(&mut auditor).segments, []);
    assert_eq!(recorded.0, [], "a re-judge counts no connection again");
}

#[test]
fn a_peer_whose_vlan_becomes_known_later_is_judged_again() {
    let by_vlan = mk_map(|spec| {
        spec["segments"] = json!([
            {"name": "front", "members": [{"vlan": 10}]}, {"name": "back", "members": [{"vlan": 20}]},
        ]);
    });
    let (mut auditor, mut recorded) = (mk_auditor(), Recorded::default());
    auditor.interface(VETH_WEB, at(1), vec![ip(WEB)], at(1));
    auditor.interface(VETH_DB, at(1), vec![ip(DB)], at(1));
    auditor.reset(mk_cluster().into_iter().chain([by_vlan]).collect(), at(2), &mut recorded);
    let from_web = Observation { vlan: 10, ..mk_seen(VETH_WEB, Direction::Egress, 10) };
    auditor.observe(&[from_web], at(10), &mut recorded);
    assert_eq!(only_record(&mut auditor).segments[0].code, "vlan-unknown");
    let at_db = Observation { vlan: 20, ..mk_seen(VETH_DB, Direction::Ingress, 11) };
    auditor.observe(&[at_db], at(11), &mut recorded);
    auditor.tick(at(12), &mut recorded);
    let told: Vec<_> = auditor.records().into_iter().map(|record| record.segments[0].clone()).collect();
    assert!(
        told.iter().all(|segment| segment.is_violation() && segment.to.as_deref() == Some("back")),
        "{told:?}"
    );
}

#[test]
fn a_delta_over_two_owners_in_different_segments_is_unknown() {
    // Every policy allows both owners; the map does not.
    let open = |labels: Value| {
        vec![mk_node(), mk_map(|_| {}), mk_pod("second", WEB, labels), mk_pod("db", DB, json!({"app": "db"}))]
    };
    for (later, expected) in [(json!({"app": "db"}), "Unknown"), (json!({"app": "web"}), "Violation")] {
        let (mut auditor, mut recorded) = (mk_auditor(), Recorded::default());
        auditor.interface(VETH_DB, at(1), vec![ip(DB)], at(1));
        auditor.reset(open(json!({"app": "web"})), at(2), &mut recorded);
        auditor.reset(open(later), at(20), &mut recorded);
        let seen =
            Observation { first_seen: at(15), last_seen: at(25), ..mk_seen(VETH_DB, Direction::Ingress, 30) };
        auditor.observe(&[Observation { read_from: at(14), ..seen }], at(30), &mut recorded);
        assert_eq!(only_record(&mut auditor).segments[0].verdict, expected);
    }
}
