//! Properties of random maps over random edges.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::model::edge::{Direction, Edge};
use crate::model::endpoint::{Endpoint, Party};
use crate::model::verdict::UnknownReason;

use super::api::{
    API_VERSION, IpBlockSpec, MemberSpec, PortSpec, RuleSpec, SEGMENT_MAP, SegmentMapObject, SegmentSpec,
};
use super::fixtures::*;
use super::judge::SegmentJudge;
use super::map::SegmentMap;
use super::surroundings::Surroundings;
use super::verdict::{Crossing, Reason, SegmentVerdict};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Members that meet each other and the ends below often.
fn any_member() -> impl Strategy<Value = MemberSpec> {
    let selector = |label: &str| {
        let member = format!("podSelector: {{matchLabels: {{{label}: '1'}}}}");
        serde_saphyr::from_str::<MemberSpec>(&member).unwrap()
    };
    let block = |cidr: &str, except: &[&str]| MemberSpec {
        ip_block: Some(IpBlockSpec {
            cidr: cidr.to_owned(),
            except: except.iter().map(|&text| text.to_owned()).collect(),
        }),
        ..MemberSpec::default()
    };
    let entity = |name: &str| MemberSpec { entity: Some(name.to_owned()), ..MemberSpec::default() };
    let range = |range: &str| MemberSpec { ip_range: Some(range.to_owned()), ..MemberSpec::default() };
    let name = MemberSpec { fqdn: Some("api.example.com".to_owned()), ..MemberSpec::default() };
    prop::sample::select(vec![
        selector("x"),
        selector("y"),
        selector("z"),
        block("10.0.0.0/8", &["10.2.0.0/16"]),
        block("10.2.0.0/16", &[]),
        range("10.2.0.0-9"),
        range("203.0.113.0-203.0.113.9"),
        entity("world"),
        entity("node"),
        entity("host"),
        entity("cloud-metadata"),
        name,
    ])
}

fn any_rule() -> impl Strategy<Value = RuleSpec> {
    let names = || prop::collection::btree_set(prop::sample::select(&NAMES[..]), 1..3);
    let ports = prop::collection::vec(prop::sample::select(vec![80i64, 443]), 0..2);
    (names(), names(), ports, any::<bool>()).prop_map(|(from, to, ports, encrypted)| RuleSpec {
        name: None,
        from: from.into_iter().map(ToOwned::to_owned).collect(),
        to: to.into_iter().map(ToOwned::to_owned).collect(),
        ports: ports.into_iter().map(|port| PortSpec { port: Some(port), ..PortSpec::default() }).collect(),
        encryption: encrypted.then(|| "Required".to_owned()),
    })
}

fn any_map() -> impl Strategy<Value = SegmentMapObject> {
    let segments = prop::collection::vec(prop::collection::vec(any_member(), 1..3), 4);
    let choice = |choices: &'static [&'static str]| {
        prop::sample::select(choices).prop_map(|name| Some(name.to_owned()))
    };
    let settings = (
        choice(&["Reject", "FirstMatch"]),
        choice(&["Report", "Ignore", "Deny"]),
        choice(&["Allow", "Deny"]),
    );
    (segments, prop::collection::vec(any_rule(), 0..5), settings).prop_map(|(segments, rules, settings)| {
        let mut object = SegmentMapObject {
            api_version: API_VERSION.to_owned(),
            kind: SEGMENT_MAP.to_owned(),
            ..SegmentMapObject::default()
        };
        object.metadata.name = Some("m".to_owned());
        let named = NAMES.iter().zip(segments);
        object.spec.segments =
            named.map(|(name, members)| SegmentSpec { name: (*name).to_owned(), members }).collect();
        object.spec.rules = rules;
        (object.spec.overlap, object.spec.unassigned, object.spec.within_segment) = settings;
        object
    })
}

fn any_party() -> impl Strategy<Value = Party> {
    let pod = |name: &'static str, labels: &'static str, address: Option<&'static str>| {
        PodOf { name, labels, address, ..PodOf::default() }.party()
    };
    let backend = pod("p1", "x=1", Some("10.1.0.1"));
    let second = pod("p2", "y=1", Some("10.2.0.1"));
    prop::sample::select(vec![
        backend.clone(),
        second.clone(),
        pod("p3", "x=1,y=1", Some("10.3.0.1")),
        pod("p4", "z=1", Some("2001:db8::1")),
        pod("p5", "", None),
        mk_node("n1", "10.2.0.5"),
        mk_node("n2", "192.0.2.2"),
        mk_outside("203.0.113.5"),
        mk_outside("198.51.100.5"),
        mk_outside("169.254.169.254"),
        mk_service("shop", "s", &[(backend, 80), (second, 443)]),
        Party::unknown(None, UnknownReason::AddressUnjoined),
    ])
}

fn any_edges() -> impl Strategy<Value = Vec<Edge>> {
    let edge = (any_party(), any_party(), prop::sample::select(vec![80u16, 443, 22]));
    prop::collection::vec(edge.prop_map(|(from, to, port)| mk_edge(&from, &to, port)), 1..12)
}

/// What a map says of edges; nothing if it is not in force.
fn judged(object: &SegmentMapObject, edges: &[Edge]) -> Option<Vec<SegmentVerdict>> {
    let map = std::sync::Arc::new(SegmentMap::from_object(object));
    let mut judge = SegmentJudge::new(&map, Surroundings::default()).ok()?;
    Some(edges.iter().map(|edge| judge.judge(edge)).collect())
}

/// The segments that each edge's ends are in if there were no other: the naive answer.
fn alone(object: &SegmentMapObject, edges: &[Edge]) -> Vec<[Vec<&'static str>; 2]> {
    let mut found = vec![[Vec::new(), Vec::new()]; edges.len()];
    for (index, name) in NAMES.into_iter().enumerate() {
        let mut one = object.clone();
        one.spec.rules.clear();
        one.spec.segments = vec![object.spec.segments[index].clone()];
        for (at, given) in judged(&one, edges).into_iter().flatten().enumerate() {
            found[at][0].extend(given.from_segment.map(|_| name));
            found[at][1].extend(given.to_segment.map(|_| name));
        }
    }
    found
}

/// Whether nobody judges it, whatever its ends are.
fn not_judged(given: &SegmentVerdict) -> bool {
    matches!(given.reason, Reason::NotJudged(_))
}

fn first_match(mut object: SegmentMapObject) -> SegmentMapObject {
    object.spec.overlap = Some("FirstMatch".to_owned());
    object
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_order_of_segments_matters_only_where_they_overlap(
        object in any_map(), edges in any_edges(), order in Just((0..NAMES.len()).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        // A Service's backends may be in different segments, each in one.
        let mut edges = edges;
        let service = |party: &Party| matches!(party.endpoint, Endpoint::Service(_));
        edges.retain(|edge| !service(&edge.initiator) && !service(&edge.responder));
        let object = first_match(object);
        let mut shuffled = object.clone();
        shuffled.spec.segments = order.iter().map(|at| object.spec.segments[*at].clone()).collect();
        let mut reject = object.clone();
        reject.spec.overlap = Some("Reject".to_owned());
        let alone = alone(&object, &edges);
        let (one, other) = (judged(&object, &edges), judged(&shuffled, &edges));
        let (Some(one), Some(other)) = (one, other) else { return Err(TestCaseError::fail("not in force")) };
        for (at, (one, other)) in one.iter().zip(&other).enumerate() {
            // A member that may match (a name, an address that is missing) overlaps, too, if it does.
            let sure = |v: &SegmentVerdict| v.from_segment.is_some() && v.to_segment.is_some();
            let disjoint = alone[at].iter().all(|segments| segments.len() == 1);
            if disjoint && sure(one) && sure(other) {
                prop_assert_eq!(one, other);
                prop_assert_eq!(one.from_segment.as_deref(), Some(alone[at][0][0]));
                prop_assert_eq!(one.to_segment.as_deref(), Some(alone[at][1][0]));
            }
            // Where FirstMatch has a choice it takes the first.
            if let (Some(from), Some(first)) = (one.from_segment.as_deref(), alone[at][0].first()) {
                prop_assert_eq!(from, *first);
            }
        }
        for (at, rejecting) in judged(&reject, &edges).into_iter().flatten().enumerate() {
            let overlap = alone[at].iter().any(|segments| segments.len() > 1);
            prop_assert!(!overlap || rejecting.verdict == Crossing::Unknown || not_judged(&rejecting), "{}", rejecting);
        }
    }

    #[test]
    fn a_new_rule_never_adds_a_violation_and_a_dropped_one_never_removes_any(
        object in any_map(), rule in any_rule(), edges in any_edges(),
    ) {
        let object = first_match(object);
        let mut wider = object.clone();
        wider.spec.rules.push(rule);
        let (narrow, wide) = (judged(&object, &edges), judged(&wider, &edges));
        let (Some(narrow), Some(wide)) = (narrow, wide) else { return Err(TestCaseError::fail("not in force")) };
        for (narrow, wide) in narrow.into_iter().zip(wide) {
            let was = narrow.verdict == Crossing::Violation;
            prop_assert!(was || wide.verdict != Crossing::Violation, "{} became {}", narrow, wide);
            // What was allowed stays so, except that a Service's backends may now differ less or more.
            let service = matches!(wide.reason, Reason::BackendsDiffer { .. });
            prop_assert!(service || narrow.verdict != Crossing::Allow || wide.verdict == Crossing::Allow);
        }
    }

    #[test]
    fn renaming_segments_changes_only_their_names(object in any_map(), edges in any_edges()) {
        let names: BTreeMap<&str, &str> = NAMES.into_iter().zip(["zeta", "d", "b", "alpha"]).collect();
        let mut renamed = object.clone();
        for segment in &mut renamed.spec.segments {
            segment.name = names[&*segment.name].to_owned();
        }
        for name in renamed.spec.rules.iter_mut().flat_map(|rule| rule.from.iter_mut().chain(&mut rule.to)) {
            *name = names[&**name].to_owned();
        }
        let (before, after) = (judged(&object, &edges), judged(&renamed, &edges));
        prop_assert_eq!(before.is_some(), after.is_some());
        for (before, after) in before.into_iter().flatten().zip(after.into_iter().flatten()) {
            let renamed = |name: Option<std::sync::Arc<str>>| name.map(|name| names[&*name]);
            prop_assert_eq!(renamed(before.from_segment).map(Into::into), after.from_segment);
            prop_assert_eq!(renamed(before.to_segment).map(Into::into), after.to_segment);
            prop_assert_eq!((before.verdict, before.rule), (after.verdict, after.rule));
            prop_assert_eq!(before.reason.code(), after.reason.code());
        }
    }

    #[test]
    fn where_an_edge_was_seen_and_what_was_judged_before_do_not_matter(object in any_map(), edges in any_edges()) {
        let object = first_match(object);
        let mut other_way: Vec<Edge> = edges.clone();
        other_way.reverse();
        for edge in &mut other_way {
            edge.direction = Direction::Ingress;
        }
        let (one, other) = (judged(&object, &edges), judged(&object, &other_way));
        let (Some(one), Some(mut other)) = (one, other) else { return Err(TestCaseError::fail("not in force")) };
        other.reverse();
        prop_assert_eq!(one, other);
    }

    #[test]
    fn allowed_edges_rest_on_a_rule_or_a_segment_and_violations_name_what_they_cross(
        object in any_map(), edges in any_edges(),
    ) {
        for given in judged(&object, &edges).into_iter().flatten() {
            match given.verdict {
                Crossing::Allow => prop_assert!(
                    given.rule.is_some() || matches!(given.reason, Reason::WithinSegment { .. }),
                    "{}", given
                ),
                Crossing::Violation => {
                    let crosses = matches!(
                        given.reason,
                        Reason::NoRule { .. } | Reason::WithinSegmentDenied { .. } | Reason::Unassigned { .. }
                    );
                    prop_assert!(crosses, "{}", given);
                }
                Crossing::Unknown | Crossing::Ignored => {}
            }
        }
    }
}
