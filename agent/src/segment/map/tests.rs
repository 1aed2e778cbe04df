use super::*;
use crate::segment::fixtures::*;

/// Everything found, as text.
fn found(spec: &str) -> Vec<String> {
    mk_map(spec).findings().iter().map(ToString::to_string).collect()
}

const A_AND_B: &str = "segments: [{name: a, members: [{vlan: 1}]}, {name: b, members: [{vlan: 2}]}]";

#[test]
fn everything_wrong_is_found_with_its_path_and_takes_the_map_out_of_force() {
    for (spec, expected) in [
        ("{}", "spec.segments: is empty, and there is no segmentsFrom: the map declares nothing"),
        ("segments: [{members: [{vlan: 1}]}]", "spec.segments[0].name: is required"),
        (
            "segments: [{name: 'a=*', members: [{vlan: 1}]}]",
            "spec.segments[0].name: \"a=*\" is not a label value: at most 63 of A-Z a-z 0-9 - _ . that begin and \
             end with a letter or digit",
        ),
        (
            "segments: [{name: a, members: [{vlan: 1}]}, {name: a, members: [{vlan: 2}]}]",
            "spec.segments[1].name: \"a\" is the name of spec.segments[0] already",
        ),
        (
            "segments: [{name: a}]",
            "spec.segments[0].members: is empty: nothing would ever be in this segment",
        ),
        (
            "segments: [{name: a, members: [{}]}]",
            "spec.segments[0].members[0]: is empty: give one of namespaceSelector, podSelector, ipBlock, ipRange, \
             entity, vlan, fqdn",
        ),
        (
            "segments: [{name: a, members: [{vlan: 1, entity: world}]}]",
            "spec.segments[0].members[0]: gives entity and vlan; a member is one of them, write one member for each",
        ),
        (
            "segments: [{name: a, members: [{entity: internet}]}]",
            "spec.segments[0].members[0].entity: \"internet\" is none of world, node, host, api-server, \
             cloud-metadata, cluster-dns",
        ),
        (
            "segments: [{name: a, members: [{vlan: 4095}]}]",
            "spec.segments[0].members[0].vlan: 4095 is no VLAN id: 1 to 4094, or 0 for untagged",
        ),
        (
            "segments: [{name: a, members: [{vlan: -1}]}]",
            "spec.segments[0].members[0].vlan: -1 is no VLAN id: 1 to 4094, or 0 for untagged",
        ),
        (
            "segments: [{name: a, members: [{ipBlock: {cidr: 10.0.0.0/40}}]}]",
            "spec.segments[0].members[0].ipBlock.cidr: \"10.0.0.0/40\" is not a block of addresses, as 192.0.2.0/24 \
             is",
        ),
        (
            "segments: [{name: a, members: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/9, 11.0.0.0/9]}}]}]",
            "spec.segments[0].members[0].ipBlock.except[1]: 11.0.0.0/9 is not strictly inside 10.0.0.0/8, as it has \
             to be",
        ),
        (
            "segments: [{name: a, members: [{ipRange: 10.0.0.9-10.0.0.1}]}]",
            "spec.segments[0].members[0].ipRange: \"10.0.0.9-10.0.0.1\" ends before it begins",
        ),
        (
            "segments: [{name: a, members: [{fqdn: 'api..example.com'}]}]",
            "spec.segments[0].members[0].fqdn: \"api..example.com\" is not a DNS name, as api.example.com and \
             *.example.com are",
        ),
        (
            "segments: [{name: a, members: [{podSelector: {matchExpressions: [{key: x, operator: Is}]}}]}]",
            "spec.segments[0].members[0].podSelector.matchExpressions[0].operator: \"Is\" is none of In, NotIn, \
             Exists, DoesNotExist",
        ),
        (
            "segments: [{name: a, members: [{workload: {kind: Deployment, name: x}}]}]",
            "spec.segments[0].members[0].workload: is for an EdgeException only; a segment names its pods by their \
             labels",
        ),
        (
            "segmentsFrom: {namespaceLabel: 'a b'}",
            "spec.segmentsFrom.namespaceLabel: \"a b\" is not a label key: 1 to 63 of A-Z a-z 0-9 - _ . that begin \
             and end with a letter or digit",
        ),
        ("{overlap: First}", "spec.overlap: \"First\" is none of Reject, FirstMatch"),
        ("{unassigned: Allow}", "spec.unassigned: \"Allow\" is none of Report, Ignore, Deny"),
        ("{withinSegment: deny}", "spec.withinSegment: \"deny\" is none of Allow, Deny"),
        ("{severity: High}", "spec.severity: \"High\" is none of Info, Warning, Critical"),
        (
            "{exceptionsFrom: {}}",
            "spec.exceptionsFrom.namespaceSelector: is required; {} selects every namespace",
        ),
        (
            "rules: [{from: [a], to: []}]",
            "spec.rules[0].to: is empty: name the segments; a rule never means every segment by naming none",
        ),
        ("rules: [{from: [a], to: [b, c]}]", "spec.rules[0].to[1]: \"c\" is no segment of this map: a, b"),
        ("rules: [{from: ['*'], to: [b]}]", "spec.rules[0].from[0]: \"*\" is no segment of this map: a, b"),
        (
            "rules: [{from: ['tenant=x'], to: [b]}]",
            "spec.rules[0].from[0]: \"tenant=x\" is no segment of this map: a, b",
        ),
        (
            "segmentsFrom: {namespaceLabel: tenant}\nrules: [{from: ['team=x'], to: [b]}]",
            "spec.rules[0].from[0]: \"team=x\" is no segment of this map: a, b, tenant=VALUE, tenant=*",
        ),
        (
            "rules: [{name: r, from: [a], to: [b]}, {name: r, from: [b], to: [a]}]",
            "spec.rules[1].name: \"r\" is the name of spec.rules[0] already",
        ),
        (
            "rules: [{from: [a], to: [b], encryption: Yes please}]",
            "spec.rules[0].encryption: \"Yes please\" is none of Any, Required",
        ),
        (
            "rules: [{from: [a], to: [b], ports: [{protocol: tcp, port: 1}]}]",
            "spec.rules[0].ports[0].protocol: \"tcp\" is none of TCP, UDP, SCTP, ICMP, ICMPv6",
        ),
        (
            "rules: [{from: [a], to: [b], ports: [{port: 80}, {port: 0}]}]",
            "spec.rules[0].ports[1].port: 0 is no port: 1 to 65535",
        ),
        (
            "rules: [{from: [a], to: [b], ports: [{port: 65536}]}]",
            "spec.rules[0].ports[0].port: 65536 is no port: 1 to 65535",
        ),
        (
            "rules: [{from: [a], to: [b], ports: [{port: 80, endPort: 79}]}]",
            "spec.rules[0].ports[0].endPort: 79 is below port 80",
        ),
        (
            "rules: [{from: [a], to: [b], ports: [{endPort: 79}]}]",
            "spec.rules[0].ports[0].endPort: is given without port",
        ),
        (
            "rules: [{from: [a], to: [b], ports: [{protocol: ICMP, port: 8}]}]",
            "spec.rules[0].ports[0].port: ICMP has no ports",
        ),
    ] {
        // What is not about segments stands beside two good ones.
        let own = spec == "{}" || spec.starts_with("segments: ");
        let spec = spec.strip_prefix('{').and_then(|spec| spec.strip_suffix('}')).unwrap_or(spec);
        let spec = if own { spec.to_owned() } else { format!("{A_AND_B}\n{spec}") };
        assert_eq!(found(&spec), [expected], "{spec}");
        assert!(!mk_map(&spec).in_force(), "{spec}");
    }
}

#[test]
fn all_of_it_is_found_at_once() {
    let spec = "overlap: Both
segments: [{name: a, members: [{entity: x}, {vlan: 9999}]}, {name: a}]
rules: [{from: [b], to: [a], ports: [{port: -1}]}]";
    assert_eq!(found(spec).len(), 7, "{:#?}", found(spec));
}

#[test]
fn overlaps_that_can_be_seen_take_a_rejecting_map_out_of_force_and_no_other() {
    for (one, other, common) in [
        ("ipBlock: {cidr: 10.0.0.0/8}", "ipBlock: {cidr: 10.1.0.0/16}", Some("10.1.0.0-10.1.255.255")),
        ("ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}", "ipBlock: {cidr: 10.1.0.0/16}", None),
        ("ipRange: 192.168.1.0-50", "ipBlock: {cidr: 192.168.1.32/27}", Some("192.168.1.32-192.168.1.50")),
        ("ipRange: 192.168.1.0-50", "ipRange: 192.168.1.50-60", Some("192.168.1.50")),
        ("ipRange: 192.168.1.0-50", "ipRange: 192.168.1.51-60", None),
        (
            "ipBlock: {cidr: '2001:db8::/32'}",
            "ipBlock: {cidr: '2001:db8:1::/48'}",
            Some("2001:db8:1::-2001:db8:1:ff"),
        ),
        ("ipBlock: {cidr: '::/0'}", "ipBlock: {cidr: 10.0.0.0/8}", None),
        ("vlan: 10", "vlan: 10", Some("vlan 10")),
        ("vlan: 10", "vlan: 20", None),
        ("entity: world", "entity: world", Some("world")),
        ("entity: world", "entity: node", None),
        ("entity: world", "entity: cloud-metadata", None),
        ("entity: node", "entity: host", Some("host (it is a node)")),
        ("entity: host", "entity: node", Some("host (it is a node)")),
        ("entity: cloud-metadata", "ipBlock: {cidr: 169.254.0.0/16}", Some("169.254.169.254")),
        ("entity: cloud-metadata", "ipBlock: {cidr: 'fd00::/8'}", Some("fd00:ec2::254")),
        ("entity: world", "ipBlock: {cidr: 192.168.0.0/16}", None),
        (
            "entity: world",
            "ipBlock: {cidr: 203.0.113.0/24}",
            Some("203.0.113.0-203.0.113.255 (outside the cluster: world)"),
        ),
        ("fqdn: api.example.com", "fqdn: '*.example.com'", Some("api.example.com")),
        ("fqdn: example.com", "fqdn: '*.example.com'", None),
        ("fqdn: api.example.com", "entity: world", Some("api.example.com (outside: world)")),
        (
            "podSelector: {matchLabels: {a: b}}",
            "podSelector: {matchLabels: {a: b}}",
            Some("pods (a=b) of namespaces (everything)"),
        ),
        (
            "podSelector: {matchLabels: {a: b}}",
            "podSelector: {}",
            Some("pods (a=b) of namespaces (everything)"),
        ),
        ("podSelector: {matchLabels: {a: b}}", "podSelector: {matchLabels: {a: c}}", None),
        ("podSelector: {}", "entity: cluster-dns", Some("cluster-dns (its pods)")),
    ] {
        for (one, other) in [(one, other), (other, one)] {
            let spec =
                format!("segments: [{{name: a, members: [{{{one}}}]}}, {{name: b, members: [{{{other}}}]}}]");
            let map = mk_map(&spec);
            let seen: Vec<_> = map.reasons_not_in_force().collect();
            match (common, &seen[..]) {
                (None, []) => {}
                (Some(common), [finding]) => {
                    assert_eq!(finding.field, "spec.segments[1].members[0]");
                    assert!(finding.message.starts_with(common), "{finding}");
                    assert!(finding.message.contains("is also in segment a (spec.segments[0].members[0])"));
                }
                _ => panic!("{one} and {other}: {seen:?}"),
            }
            let first = mk_map(&format!("overlap: FirstMatch\n{spec}"));
            assert!(first.in_force(), "{one} and {other} under FirstMatch: {:?}", first.findings());
            // Twice in one segment is no overlap.
            let same = mk_map(&format!("segments: [{{name: a, members: [{{{one}}}, {{{other}}}]}}]"));
            assert!(same.in_force(), "{one} and {other} in one segment: {:?}", same.findings());
        }
    }
}

#[test]
fn a_name_is_a_note_and_leaves_the_map_in_force() {
    let map = mk_map("segments: [{name: a, members: [{fqdn: api.example.com}]}]");
    let [note] = map.findings() else { panic!("{:?}", map.findings()) };
    assert_eq!((note.effect, &*note.field), (Effect::Note, "spec.segments[0].members[0].fqdn"));
    assert!(note.message.starts_with("matches nothing yet"), "{note}");
    assert!(map.in_force());
}

#[test]
fn vlans_are_remembered_only_for_a_map_that_names_one() {
    assert!(mk_map(A_AND_B).names_vlans());
    assert!(!mk_map("segments: [{name: a, members: [{entity: world}]}]").names_vlans());
}

#[test]
fn another_kind_a_missing_name_and_what_the_reader_found_count() {
    let object = SegmentMapObject { spec: SegmentMapSpec::default(), ..SegmentMapObject::default() };
    let read = Finding::not_in_force("spec.segmens", "is no field of SegmentMap");
    let map = SegmentMap::from_object_with(&object, vec![read]);
    let fields: Vec<_> = map.findings().iter().map(|finding| &*finding.field).collect();
    assert_eq!(fields, ["spec.segmens", "metadata.name", "apiVersion", "kind", "spec.segments"]);
    let unreadable = SegmentMap::unreadable("m", Finding::note("spec.rules[0]", "is not a map"));
    assert!(!unreadable.in_force());
    assert_eq!(unreadable.findings().len(), 1);
}

#[test]
fn the_status_says_why_and_keeps_the_time_of_what_did_not_change() {
    let at = Timestamp::from_nanos;
    let good = mk_map(A_AND_B);
    let first = good.status(Some(1), &[], at(0), None);
    let states = |status: &SegmentMapStatus| -> Vec<String> {
        status
            .conditions
            .iter()
            .map(|c| format!("{}={} {} {}", c.type_, c.status, c.reason, c.message))
            .collect()
    };
    assert_eq!(states(&first), ["InForce=True Valid ", "Disjoint=True NoOverlapMet "]);
    let bad = mk_map("segments: [{name: a, members: []}]");
    let met = [Finding::note("spec.segments[1]", "Pod/shop/p is in segments a and b")];
    let second = bad.status(Some(2), &met, at(1_000_000_000), Some(&first));
    assert_eq!(
        states(&second),
        [
            "InForce=False Invalid spec.segments[0].members: is empty: nothing would ever be in this segment",
            "Disjoint=False OverlapMet spec.segments[1]: Pod/shop/p is in segments a and b",
        ]
    );
    assert_eq!(second.findings.len(), 2);
    let third = bad.status(Some(3), &[], at(2_000_000_000), Some(&second));
    let times = |status: &SegmentMapStatus| -> Vec<i64> {
        status.conditions.iter().map(|c| c.last_transition_time.0.as_second()).collect()
    };
    assert_eq!(times(&second), [1, 1]);
    assert_eq!(times(&third), [1, 2]);
    let json = serde_json::to_string(&third).unwrap();
    assert_eq!(serde_json::from_str::<SegmentMapStatus>(&json).unwrap(), third);
}

#[test]
fn an_object_is_written_as_it_was_read() {
    let object: SegmentMapObject = serde_saphyr::from_str(
        "{apiVersion: dryfence.io/v1alpha1, kind: SegmentMap, metadata: {name: m}, spec: {segments: [{name: a, \
         members: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {ipRange: 192.0.2.0-9}, {entity: world}, \
         {vlan: 0}, {fqdn: a.b}, {namespaceSelector: {}, podSelector: {}}]}], segmentsFrom: {namespaceLabel: t}, \
         overlap: FirstMatch, unassigned: Deny, withinSegment: Deny, severity: Info, exceptionsFrom: \
         {namespaceSelector: {}}, rules: [{name: r, from: [a], to: [a], encryption: Any, ports: [{protocol: TCP, \
         port: 1, endPort: 2}]}]}}",
    )
    .unwrap();
    let json = serde_json::to_value(&object).unwrap();
    assert_eq!(json["spec"]["segmentsFrom"]["namespaceLabel"], "t");
    assert_eq!(json["spec"]["rules"][0]["ports"][0]["endPort"], 2);
    assert_eq!(serde_json::from_value::<SegmentMapObject>(json).unwrap(), object);
}
