//! Tests of reading segment maps and exceptions from files.

use super::{shown, yaml};
use crate::cluster::object::Object;

fn map(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: dryfence.io/v1alpha1, kind: SegmentMap, metadata: {{name: {name}}}, spec: {spec}}}\n---\n"
    )
}

fn exception(spec: &str) -> String {
    format!(
        "{{apiVersion: dryfence.io/v1alpha1, kind: EdgeException, metadata: {{name: e, namespace: x}}, \
         spec: {spec}}}\n---\n"
    )
}

const TIERS: &str = "{segments: [{name: web, members: [{podSelector: {matchLabels: {app: web}}}]}]}";
const KNOWN: &str = "{scenario: enforced, to: [{entity: world}], reason: known}";

/// Whether the only object is in force.
fn only_in_force(objects: &[Object]) -> bool {
    match objects {
        [Object::SegmentMap(map)] => map.in_force(),
        [Object::EdgeException(exception)] => exception.in_force(),
        [Object::Broken(_)] => false,
        _ => panic!("{objects:?}"),
    }
}

#[test]
fn good_maps_and_exceptions_are_in_force_without_findings() {
    for (text, reference) in
        [(map("tiers", TIERS), "SegmentMap/tiers"), (exception(KNOWN), "EdgeException/x/e")]
    {
        let loaded = yaml(&text);
        assert_eq!(shown(&loaded), (vec![reference.to_owned()], Vec::new()));
        assert!(only_in_force(&loaded.objects), "{text}");
    }
}

#[test]
fn bad_maps_and_exceptions_are_not_in_force_and_named_by_object_and_field() {
    let doubled = map("tiers", TIERS) + &map("tiers", &TIERS.replace("web", "app"));
    for (case, text, object, finding) in [
        (
            "an unknown field, which may have been meant to narrow a member",
            map("tiers", &TIERS.replace("{podSelector", "{namespaceSelektor: {}, podSelector")),
            "SegmentMap/tiers",
            "error: a.yaml:1 (document 1): SegmentMap tiers: spec.segments[0].members[0].namespaceSelektor: is not \
             a field of SegmentMap: it is not in force",
        ),
        (
            "an unknown entity",
            map("tiers", "{segments: [{name: web, members: [{entity: moon}]}]}"),
            "SegmentMap/tiers",
            "error: a.yaml:1 (document 1): SegmentMap tiers: spec.segments[0].members[0].entity:",
        ),
        (
            "empty members",
            map("tiers", "{segments: [{name: web, members: []}]}"),
            "SegmentMap/tiers",
            "error: a.yaml:1 (document 1): SegmentMap tiers: spec.segments[0].members:",
        ),
        (
            "a value of the wrong type",
            map("tiers", "{segments: web}"),
            "SegmentMap/tiers",
            "error: a.yaml:1 (document 1): SegmentMap tiers: spec.segments: invalid type: string \"web\"",
        ),
        (
            "a version that there is not",
            map("tiers", TIERS).replace("v1alpha1", "v1"),
            "SegmentMap/tiers",
            "error: a.yaml:1 (document 1): SegmentMap tiers: apiVersion: \"dryfence.io/v1\" is not",
        ),
        (
            "a document that cannot be parsed",
            "apiVersion: dryfence.io/v1alpha1\nkind: SegmentMap\nmetadata:\n  name: tiers\nspec: {\n"
                .to_owned(),
            "SegmentMap/tiers",
            "error: a.yaml:",
        ),
        (
            "two maps under one name",
            doubled,
            "SegmentMap/tiers",
            "error: a.yaml:3 (document 2): SegmentMap tiers: is given twice, differently",
        ),
        (
            "an exception from nothing",
            exception("{to: [{entity: world}], reason: known}"),
            "EdgeException/x/e",
            "error: a.yaml:1 (document 1): EdgeException x/e: spec: gives neither scenario nor segmentMap",
        ),
        (
            "an unknown field of an exception",
            exception(&KNOWN.replace("reason", "untilWhen: tomorrow, reason")),
            "EdgeException/x/e",
            "error: a.yaml:1 (document 1): EdgeException x/e: spec.untilWhen: is not a field of EdgeException",
        ),
        (
            "an exception that cannot be read",
            exception("{to: world}"),
            "broken EdgeException/x/e",
            "error: a.yaml:1 (document 1): EdgeException x/e: spec.to: invalid type: string \"world\"",
        ),
    ] {
        let loaded = yaml(&text);
        let (objects, findings) = shown(&loaded);
        assert_eq!(objects, [object], "{case}");
        assert!(findings.iter().any(|found| found.starts_with(finding)), "{case}: {findings:?}");
        assert!(!only_in_force(&loaded.objects), "{case}");
    }
}

#[test]
fn an_unknown_field_of_the_metadata_is_a_warning_only() {
    let loaded = yaml(&map("tiers", TIERS).replace("name: tiers", "name: tiers, lables: {a: b}"));
    let (_, findings) = shown(&loaded);
    let [warning] = &findings[..] else { panic!("{findings:?}") };
    assert!(
        warning.starts_with("warning: a.yaml:1 (document 1): SegmentMap tiers: metadata.lables:"),
        "{warning}"
    );
    assert!(only_in_force(&loaded.objects));
}
