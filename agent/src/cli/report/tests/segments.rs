//! Tests of what segment maps and exceptions add to a report.

use super::*;
use crate::model::record::{ExceptionFindingRecord, ExceptionRecord, SegmentMapRecord};

const NO_RULE: &str =
    "no rule lets web open connections to data on 5432/TCP (rule web-to-app allows 8080/TCP only)";

fn web() -> PartyRecord {
    mk_pod("myapp-staging", "Deployment", "my-web-client", "192.0.2.12")
}

fn postgresql() -> PartyRecord {
    mk_pod("data-layer", "StatefulSet", "postgresql", "192.0.2.22")
}

fn mk_exception(name: &str) -> ExceptionRecord {
    ExceptionRecord {
        exception: format!("EdgeException/myapp-staging/{name}"),
        reason: format!("{name} stays until the move in June"),
        ticket: Some("OPS-7".to_owned()),
        owner: Some("team-shop".to_owned()),
        expires_at: Some(mk_time(86_400)),
    }
}

/// Three connections from web to the database, which every policy allows and the map forbids.
fn mk_violation() -> EdgeRecord {
    mk_edge(&web(), &postgresql(), 5432, Cause::CrossNamespace, 3).crossing("tiers", "web", "data", NO_RULE)
}

/// The edge with its violation excepted.
fn muted(mut edge: EdgeRecord) -> EdgeRecord {
    for segment in &mut edge.segments {
        (segment.excepted, segment.exception) = (true, Some(mk_exception("old-client")));
    }
    edge
}

/// The edge with its denial in a scenario excepted.
fn excused(mut edge: EdgeRecord, scenario: &str) -> EdgeRecord {
    let judgement = edge.verdicts.get_mut(scenario).unwrap();
    (judgement.excepted, judgement.exception) = (true, Some(mk_exception("metadata")));
    edge
}

fn mk_map(name: &str, reasons: &[&str]) -> SegmentMapRecord {
    SegmentMapRecord {
        name: name.to_owned(),
        severity: "Warning".to_owned(),
        in_force: reasons.is_empty(),
        reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
        notes: Vec::new(),
    }
}

/// A violation that policies allow and one that they deny, excepted ones, an edge that the map cannot tell of, a
/// map that nothing crosses, one that is not in force, and an exception that has expired.
fn mk_segmented() -> EdgeList {
    let (world, workers) = (
        mk_other("External", "198.51.100.7"),
        mk_pod("myapp-staging", "Deployment", "myapp-workers", "192.0.2.13"),
    );
    let denied = mk_denied(mk_edge(&api(), &qdrant(), 6333, Cause::CrossNamespace, 12), false, true)
        .crossing("tiers", "app", "data", "no rule lets app open connections to data on 6333/TCP");
    let known = muted(
        mk_edge(&workers, &postgresql(), 5432, Cause::CrossNamespace, 4)
            .crossing("tiers", "web", "data", NO_RULE),
    );
    let metadata = mk_other("External", "169.254.169.254");
    let metadata = mk_denied(mk_edge(&workers, &metadata, 80, Cause::CloudMetadata, 2), true, false);
    let mut doubtful = mk_edge(&web(), &world, 443, Cause::External, 5).crossing("tiers", "web", "x", "");
    let told = &mut doubtful.segments[0];
    (told.verdict, told.to, told.code) = ("Unknown".to_owned(), None, "unassigned".to_owned());
    told.reason = "the responder is in no segment".to_owned();
    let violation = mk_violation();
    let mut list = mk_list([
        violation.at_responder(),
        violation,
        denied,
        known,
        excused(metadata, "enforced"),
        doubtful,
    ]);
    list.segment_maps = vec![
        mk_map("dmz", &["spec.segments[1].members: is empty: nothing could be in the segment"]),
        mk_map("environments", &[]),
        mk_map("tiers", &[]),
    ];
    list.exception_findings = vec![ExceptionFindingRecord {
        exception: "EdgeException/myapp-staging/last-year".to_owned(),
        finding:
            "spec.expiresAt: expired on 2026-01-01T00:00:00Z: what it muted is shown as new again; renew it \
                  with a reason, or delete it"
                .to_owned(),
    }];
    list
}

#[test]
fn segments_and_exceptions_at_100_columns() {
    insta::assert_snapshot!(plain(&build(&mk_segmented(), &Options::default()), 100, false));
}

#[test]
fn segments_and_exceptions_wide() {
    insta::assert_snapshot!(plain(&build(&mk_segmented(), &Options::default()), 160, true));
}

#[test]
fn segments_and_exceptions_in_markdown() {
    let report = build(&mk_segmented(), &Options::default());
    insta::assert_snapshot!(markdown(&report, false, true).unwrap());
}

#[test]
fn segments_and_exceptions_in_json() {
    let report = build(&mk_segmented(), &Options::default());
    let json = serde_json::to_value(&report).unwrap();
    let both = serde_json::json!({"segments": json["segments"], "excepted": json["excepted"]});
    insta::assert_snapshot!(serde_json::to_string_pretty(&both).unwrap());
}

#[test]
fn a_violation_is_reported_although_every_policy_allows_it_and_counted_once() {
    let report = report_of([mk_violation(), mk_violation().at_responder()]);
    assert_eq!(report.findings().count(), 0);
    let [map] = &report.segments.maps[..] else { panic!("the map is known from the edges") };
    assert_eq!((report.segments.connections, map.connections), (3, 3));
    let crossing = &map.pairs[0].crossings[0];
    assert_eq!(crossing.enforced, Some(crate::model::verdict::Verdict::Allow));
    assert!(plain(&report, 100, false).contains("Decide on 1 segment violation:"));
}

#[test]
fn what_is_excepted_is_counted_but_never_shown_as_new() {
    for (case, edge, connections) in [
        ("from a map", muted(mk_violation()), 3),
        (
            "from a scenario",
            excused(
                mk_denied(mk_edge(&web(), &qdrant(), 6333, Cause::CrossNamespace, 7), true, true),
                "enforced",
            ),
            7,
        ),
    ] {
        let report = report_of([edge.at_responder(), edge]);
        assert_eq!(report.findings().count(), 0, "{case}");
        assert_eq!(report.segments.connections, 0, "{case}");
        assert_eq!(report.excepted.connections, connections, "{case}");
        let shown = plain(&report, 400, false);
        assert!(
            shown.contains(&format!(
                "{connections} connections are excepted: {connections} by EdgeException/"
            )),
            "{shown}"
        );
    }
}

#[test]
fn one_that_is_not_excepted_among_excepted_ones_is_new() {
    let other = mk_pod("myapp-staging", "Deployment", "my-web-client", "192.0.2.112");
    let fresh = mk_edge(&other, &postgresql(), 5432, Cause::CrossNamespace, 2)
        .crossing("tiers", "web", "data", NO_RULE);
    let report = report_of([muted(mk_violation()), fresh]);
    assert_eq!((report.segments.connections, report.excepted.connections), (2, 3));
}

#[test]
fn a_failed_attempt_is_no_violation() {
    let mut edge = mk_violation();
    edge.counters = Counters { attempts: 3, refused: 3, ..Counters::default() };
    let report = report_of([edge]);
    assert_eq!((report.segments.connections, report.segments.maps[0].pairs.len()), (0, 0));
}

#[test]
fn without_maps_and_exceptions_there_are_no_such_sections() {
    let shown = plain(&build(&mk_guides_cluster(), &Options::default()), 100, true);
    assert!(!shown.contains("SEGMENT") && !shown.contains("EXCEPT"));
}
