use super::*;
use crate::model::endpoint::Endpoint;
use crate::segment::fixtures::*;

fn mk_exception(spec: &str) -> Arc<EdgeException> {
    Arc::new(EdgeException::from_object(&mk_exception_object(spec)))
}

fn scenario() -> Muted {
    Muted::Scenario("enforced".into())
}

fn at(text: &str) -> Timestamp {
    read_time(Some(text), &mut Findings::default()).unwrap()
}

fn mutes(spec: &str, edge: &Edge) -> bool {
    let exception = mk_exception(spec);
    assert_eq!(exception.findings(), [], "{spec}");
    let exceptions = Exceptions::new(&[exception], &[], &NamespaceLabels::default());
    exceptions.excepting(&scenario(), edge, &Surroundings::default(), Timestamp::EPOCH).is_some()
}

#[test]
fn it_covers_what_its_ends_and_ports_name() {
    let web = mk_pod("web", "app=web");
    let elsewhere = PodOf { namespace: "ops", name: "web", labels: "app=web", ..PodOf::default() }.party();
    let world = mk_outside("203.0.113.7");
    for (from, to, spec, covered) in [
        (&web, &world, "from: [{podSelector: {matchLabels: {app: web}}}]", true),
        (&web, &world, "from: [{podSelector: {matchLabels: {app: db}}}]", false),
        (&web, &world, "from: [{workload: {kind: Deployment, name: web}}]", true),
        (&web, &world, "from: [{workload: {kind: StatefulSet, name: web}}]", false),
        (&web, &world, "from: [{workload: {kind: Deployment, namespace: ops, name: web}}]", false),
        (&web, &world, "from: [{workload: {kind: Deployment, name: web}}], to: [{entity: world}]", true),
        (&web, &world, "to: [{ipBlock: {cidr: 203.0.113.0/24}}]", true),
        (&web, &world, "to: [{ipBlock: {cidr: 198.51.100.0/24}}, {ipRange: 203.0.113.7-8}]", true),
        (&web, &world, "to: [{ipBlock: {cidr: 198.51.100.0/24}}]", false),
        (&world, &web, "to: [{podSelector: {matchLabels: {app: web}}}]", true),
        (&world, &web, "from: [{podSelector: {matchLabels: {app: web}}}]", false),
        (&web, &elsewhere, "to: [{namespaceSelector: {}}]", true),
        // A podSelector alone means the exception's own namespace.
        (&web, &elsewhere, "to: [{podSelector: {matchLabels: {app: web}}}]", false),
        (&web, &world, "to: [{entity: world}], ports: [{port: 443}]", true),
        (&web, &world, "to: [{entity: world}], ports: [{port: 80}, {protocol: UDP, port: 443}]", false),
        // An exception of namespace shop is none for edges that do not touch it.
        (&elsewhere, &world, "to: [{entity: world}]", false),
        (&world, &elsewhere, "to: [{namespaceSelector: {}}]", false),
        (&elsewhere, &web, "from: [{namespaceSelector: {}}]", true),
    ] {
        let spec = format!("{{scenario: enforced, reason: known, {spec}}}");
        assert_eq!(mutes(&spec, &mk_edge(from, to, 443)), covered, "{spec}");
    }
}

#[test]
fn it_does_not_mute_what_only_may_be_meant() {
    let web = mk_pod("web", "app=web");
    let template = PodOf { name: "t", labels: "", ..PodOf::default() }.party();
    let spec = "{scenario: enforced, reason: known, to: [{ipBlock: {cidr: 10.0.0.0/8}}]}";
    assert!(!mutes(spec, &mk_edge(&web, &template, 443)), "the address is missing");
    let unknown =
        Party { address: None, endpoint: Endpoint::Unknown(crate::model::verdict::UnknownReason::Snat) };
    let any = "{scenario: enforced, reason: known, to: [{workload: {kind: Deployment, name: web}}]}";
    assert!(!mutes(any, &mk_edge(&unknown, &web, 443)), "the initiator is not known");
    let exception = mk_exception("{scenario: enforced, reason: known, to: [{fqdn: api.example.com}]}");
    let exceptions = Exceptions::new(&[exception], &[], &NamespaceLabels::default());
    let edge = mk_edge(&web, &mk_outside("203.0.113.1"), 443);
    assert!(exceptions.excepting(&scenario(), &edge, &Surroundings::default(), Timestamp::EPOCH).is_none());
    let [note] = &exceptions.findings(Timestamp::EPOCH)[..] else { panic!("the fqdn is a note") };
    assert_eq!((&*note.finding.field, note.finding.effect), ("spec.to[0].fqdn", Effect::Note));
}

#[test]
fn it_covers_a_service_only_if_every_backend_is_meant() {
    let web = mk_pod("web", "app=web");
    let (db, other) = (mk_pod("db", "app=db"), mk_pod("x", ""));
    let spec = "{scenario: enforced, reason: known, to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 5432}]}";
    for (backends, covered) in [
        (vec![(db.clone(), 5432)], true),
        (vec![(db.clone(), 5433)], false),
        (vec![(db, 5432), (other, 5432)], false),
    ] {
        assert_eq!(mutes(spec, &mk_edge(&web, &mk_service("shop", "db", &backends), 80)), covered);
    }
}

#[test]
fn once_expired_it_mutes_nothing_and_is_a_finding() {
    let spec =
        "{scenario: enforced, reason: known, to: [{entity: world}], expiresAt: '2026-03-01T00:00:00+01:00'}";
    let exceptions = Exceptions::new(&[mk_exception(spec)], &[], &NamespaceLabels::default());
    let edge = mk_edge(&mk_pod("web", ""), &mk_outside("203.0.113.1"), 443);
    for (now, muted) in
        [("2026-02-28T22:59:59Z", true), ("2026-02-28T23:00:00Z", false), ("2026-03-02T00:00:00Z", false)]
    {
        let found = exceptions.findings(at(now));
        let by = exceptions.excepting(&scenario(), &edge, &Surroundings::default(), at(now));
        assert_eq!(by.is_some(), muted, "{now}");
        assert_eq!(found.is_empty(), muted, "{now}");
        if let [found] = &found[..] {
            assert_eq!(found.exception.to_string(), "EdgeException/shop/e");
            assert!(
                found.finding.to_string().starts_with("spec.expiresAt: expired on 2026-02-28T23:00:00"),
                "{found:?}"
            );
        }
    }
}

#[test]
fn what_is_wrong_with_it_is_found_and_then_it_mutes_nothing() {
    let good = "to: [{entity: world}], reason: known";
    for (spec, expected) in [
        (
            format!("{good}, scenario: a, segmentMap: b"),
            "spec: gives scenario and segmentMap; an exception is from one of them",
        ),
        (good.to_owned(), "spec: gives neither scenario nor segmentMap"),
        ("scenario: enforced, to: [{entity: world}], reason: ' '".to_owned(), "spec.reason: is required"),
        (
            "scenario: enforced, reason: known".to_owned(),
            "spec: gives neither from nor to: it would mute every edge of the namespace",
        ),
        (
            "scenario: enforced, reason: known, from: []".to_owned(),
            "spec.from: is empty: it would match nothing; leave it out for any end",
        ),
        (
            "scenario: enforced, reason: known, from: [{entity: all}]".to_owned(),
            "spec.from[0].entity: \"all\" is none of world, node, host, api-server, cloud-metadata, cluster-dns",
        ),
        (
            "scenario: enforced, reason: known, from: [{workload: {name: x}}]".to_owned(),
            "spec.from[0].workload.kind: is required",
        ),
        (
            format!("{good}, scenario: enforced, ports: [{{port: 99999}}]"),
            "spec.ports[0].port: 99999 is no port: 1 to 65535",
        ),
        (
            format!("{good}, scenario: enforced, expiresAt: tomorrow"),
            "spec.expiresAt: \"tomorrow\" is not a time as RFC 3339 has it: 2026-12-31T00:00:00Z",
        ),
    ] {
        let exception = mk_exception(&format!("{{{spec}}}"));
        let texts: Vec<_> = exception.findings().iter().map(ToString::to_string).collect();
        assert_eq!(texts, [expected], "{spec}");
        let exceptions = Exceptions::new(&[exception], &[], &NamespaceLabels::default());
        let edge = mk_edge(&mk_pod("web", ""), &mk_outside("203.0.113.1"), 443);
        let by = exceptions.excepting(&scenario(), &edge, &Surroundings::default(), Timestamp::EPOCH);
        assert!(by.is_none(), "{spec}");
        assert_eq!(exceptions.findings(Timestamp::EPOCH).len(), 1, "{spec}");
    }
}

#[test]
fn a_maps_violations_are_muted_only_from_namespaces_that_it_names() {
    let exception =
        mk_exception("{segmentMap: m, reason: known, owner: team-a, ticket: T-1, to: [{entity: world}]}");
    let segments = "segments: [{name: a, members: [{podSelector: {}}]}]";
    let edge = mk_edge(&mk_pod("web", ""), &mk_outside("203.0.113.1"), 443);
    let muted = Muted::SegmentMap("m".into());
    for (map, labels, refused) in [
        ("exceptionsFrom: {namespaceSelector: {}}", Some(""), None),
        ("exceptionsFrom: {namespaceSelector: {matchLabels: {trusted: 'yes'}}}", Some("trusted=yes"), None),
        (
            "exceptionsFrom: {namespaceSelector: {matchLabels: {trusted: 'yes'}}}",
            Some("trusted=no"),
            Some(
                "SegmentMap m does not let namespace shop declare exceptions: spec.exceptionsFrom selects trusted=yes",
            ),
        ),
        (
            "exceptionsFrom: {namespaceSelector: {}}",
            None,
            Some("the labels of namespace shop are not known, and SegmentMap m asks for them"),
        ),
        (
            "severity: Info",
            Some("trusted=yes"),
            Some("SegmentMap m lets no namespace declare exceptions (spec.exceptionsFrom)"),
        ),
    ] {
        let map = mk_map(&format!("{segments}\n{map}"));
        let namespaces = labels.map(|labels| ("shop".into(), mk_labels(labels))).into_iter().collect();
        let exceptions = Exceptions::new(&[Arc::clone(&exception)], &[map], &namespaces);
        let by = exceptions.excepting(&muted, &edge, &Surroundings::default(), Timestamp::EPOCH);
        assert_eq!(by.is_some(), refused.is_none());
        let messages: Vec<_> =
            exceptions.findings(Timestamp::EPOCH).into_iter().map(|found| found.finding.message).collect();
        assert_eq!(messages, refused.into_iter().collect::<Vec<_>>());
        // Another map's violations and a scenario's denials are not its business.
        for other in [Muted::SegmentMap("n".into()), scenario()] {
            assert!(
                exceptions.excepting(&other, &edge, &Surroundings::default(), Timestamp::EPOCH).is_none()
            );
        }
    }
    let none = Exceptions::new(&[exception], &[], &NamespaceLabels::default());
    assert_eq!(none.findings(Timestamp::EPOCH)[0].finding.message, "there is no SegmentMap \"m\"");
}
