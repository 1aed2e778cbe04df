//! Segment maps and exceptions before and with the candidate.

use super::*;
use crate::finding::SegmentPair;

fn tiers(name: &str, edge: &str, rules: &str) -> String {
    let segment = |name: &str, app: &str| {
        format!("{{name: {name}, members: [{{podSelector: {{matchLabels: {{app: {app}}}}}}}]}}")
    };
    format!(
        "---\napiVersion: dryfence.io/v1alpha1\nkind: SegmentMap\nmetadata: {{name: {name}}}\nspec: {{segments: \
         [{}, {}], rules: [{rules}], unassigned: Ignore}}\n",
        segment("edge", edge),
        segment("core", "api"),
    )
}

fn exception(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: dryfence.io/v1alpha1\nkind: EdgeException\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{to: [{{workload: {{kind: Deployment, name: api}}}}], reason: the move in June, {spec}}}\n"
    )
}

const ALLOWED: &str = "{name: requests, from: [edge], to: [core]}";

/// `from → to: initiator → responder port ×connections`, new and gone.
fn violations(preview: &Preview) -> [Vec<String>; 2] {
    let lines = |pairs: &[SegmentPair]| {
        let line = |pair: &SegmentPair| {
            let (from, to) = (pair.from.clone().unwrap(), pair.to.clone().unwrap());
            let crossings = pair.crossings.iter().map(move |crossing| {
                let end = |end: &End| end.name.clone().unwrap();
                let ends = format!("{} → {}", end(&crossing.initiator), end(&crossing.responder));
                format!("{from} → {to}: {ends} {} ×{}", crossing.port, crossing.connections)
            });
            crossings.collect::<Vec<_>>()
        };
        pairs.iter().flat_map(line).collect()
    };
    let [map] = preview.segments.as_slice() else { panic!("{:?}", preview.segments) };
    [lines(&map.new), lines(&map.gone)]
}

#[test]
fn maps_are_laid_over_and_judged_whatever_the_policies_say() {
    let none: [&str; 0] = [];
    let web = ["edge → core: web → api 8080 ×12"];
    let other = ["edge → core: other → api 8080 ×3"];
    let relabelled = mk_deployment("shop", "other", "app: web", 8080);
    let forbids = tiers("tiers", "web", "");
    for (name, base, candidate, delete, [new, gone], kept) in [
        ("as before", forbids.clone(), deny_all("data"), false, [&none[..], &none], 1),
        ("a map that is new", String::new(), forbids.clone(), false, [&web, &none], 0),
        ("a rule that is new", forbids.clone(), tiers("tiers", "web", ALLOWED), false, [&none, &web], 0),
        ("a rule that goes", tiers("tiers", "web", ALLOWED), forbids.clone(), false, [&web, &none], 0),
        ("other members", forbids.clone(), tiers("tiers", "other", ""), false, [&other, &web], 0),
        ("other labels", forbids.clone(), relabelled, false, [&other, &none], 1),
        ("a map that goes", forbids.clone(), forbids, true, [&none, &web], 0),
    ] {
        let mut world = shop();
        let settings = Settings { delete, ..Settings::default() };
        let preview = world.preview_with(&base, &candidate, &settings);
        assert_eq!(
            violations(&preview),
            [new, gone].map(|lines| lines.iter().map(ToString::to_string).collect::<Vec<_>>()),
            "{name}"
        );
        assert_eq!(preview.counts.kept_violations.findings, kept, "{name}");
        assert_eq!(preview.counts.new_violations.findings, new.len() as u64, "{name}");
        assert_eq!(changes(&preview), (vec![], vec![]), "{name}: no policy says anything");
        let expected = if new.is_empty() && gone.is_empty() { Outcome::Same } else { Outcome::Different };
        assert_eq!(preview.outcome(FailOn::Any), expected, "{name}");
        let expected = if new.is_empty() { Outcome::Same } else { Outcome::Different };
        assert_eq!(preview.outcome(FailOn::NewViolation), expected, "{name}");
        assert_eq!(preview.outcome(FailOn::NewlyDenied), Outcome::Same, "{name}");
    }
}

#[test]
fn a_map_that_is_not_in_force_judges_nothing_and_is_told() {
    for (name, map, reason) in [
        ("overlap", tiers("tiers", "api", ""), "overlap is Reject"),
        (
            "unknown entity",
            tiers("tiers", "web", "").replace("podSelector: {matchLabels: {app: web}}", "entity: moon"),
            "moon",
        ),
        (
            "no members",
            tiers("tiers", "web", "")
                .replace("members: [{podSelector: {matchLabels: {app: web}}}]", "members: []"),
            "members",
        ),
    ] {
        let mut world = shop();
        let source = Source::Text { name: "test.yaml".into(), bytes: map.clone().into_bytes() };
        let loaded = load_all([source], None);
        let preview =
            preview(&mut world.recording, &loaded.objects, &objects(&deny_all("data")), &Settings::default());
        let [map] = preview.segments.as_slice() else { panic!("{name}: {:?}", preview.segments) };
        assert!(!map.in_force, "{name}");
        assert!(map.reasons.iter().any(|text| text.contains(reason)), "{name}: {:?}", map.reasons);
        assert_eq!(preview.counts.kept_violations.findings, 0, "{name}");
        let told = "segment map tiers is not in force, nothing is judged by it";
        assert!(preview.warnings.iter().any(|warning| warning == told), "{name}: {:?}", preview.warnings);
    }
}

#[test]
fn what_is_excepted_is_counted_and_never_new() {
    let base = allow_api("web", "8080");
    let candidate = allow_api("other", "8080");
    let muted = exception("known", "scenario: enforced");
    let names = |groups: &[Group]| short(groups);
    let preview = shop().preview(&(base.clone() + &muted), &candidate);
    assert_eq!(changes(&preview), (vec![], vec!["other → api 8080".to_owned()]));
    assert_eq!(names(&preview.excepted), ["web → api 8080"]);
    assert_eq!(preview.counts.excepted, Amount { findings: 1, connections: 12 });
    let excepted = &preview.excepted[0].owners[0].findings[0];
    assert_eq!(excepted.exception.as_ref().unwrap().exception, "EdgeException/shop/known");
    assert_eq!(preview.outcome(FailOn::NewlyDenied), Outcome::Same);
    // It mutes the scenario that it names, and ends at its time: the end of what was recorded is the now.
    let elsewhere = Settings {
        default_deny: Some(DenyScope::Namespaces(vec!["shop".to_owned()])),
        ..Settings::default()
    };
    let preview = shop().preview_with(&(base.clone() + &muted), &candidate, &elsewhere);
    assert!(names(&preview.newly_denied).contains(&"web → api 8080".to_owned()));
    for (until, denied) in [("2026-03-02T10:14:59Z", 1), ("2026-03-02T10:15:01Z", 0)] {
        let ends = exception("known", &format!("scenario: enforced, expiresAt: \"{until}\""));
        let preview = shop().preview(&(base.clone() + &ends), &candidate);
        assert_eq!(preview.counts.newly_denied.findings, denied, "{until}");
        let expired =
            preview.warnings.iter().any(|warning| warning.starts_with("EdgeException/shop/known: "));
        assert_eq!(expired, denied == 1, "{:?}", preview.warnings);
    }
    // Violations are muted likewise, where the map lets the namespace.
    let map = |rules| {
        let spec = "unassigned: Ignore, exceptionsFrom: {namespaceSelector: {}}";
        tiers("tiers", "web", rules).replace("unassigned: Ignore", spec)
    };
    let namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
    let candidate = map("") + &exception("known", "segmentMap: tiers");
    let preview = shop().preview(&(map(ALLOWED) + namespace), &candidate);
    assert_eq!(violations(&preview), [[""; 0]; 2]);
    assert_eq!(preview.segments[0].excepted, 12);
}

#[test]
fn a_map_of_vlans_knows_those_of_the_whole_recording() {
    let map = "---\napiVersion: dryfence.io/v1alpha1\nkind: SegmentMap\nmetadata: {name: tiers}\nspec: {segments: \
               [{name: edge, members: [{vlan: 10}]}, {name: core, members: [{vlan: 20}]}]}\n";
    let mut world = World::new();
    world.edge("shop/web", "shop/api", 8080, 12).vlan = 10;
    // What tells the VLAN of the API comes after the edge that asks for it.
    world.edge("shop/api", "shop/other", 9000, 1).vlan = 20;
    let preview = world.preview("", map);
    assert_eq!(violations(&preview)[0], ["edge → core: web → api 8080 ×12"]);
}
