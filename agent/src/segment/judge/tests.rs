use super::*;
use crate::model::edge::Direction;
use crate::model::edge::Protocol;
use crate::model::endpoint::Party;
use crate::model::role::Roles;
use crate::segment::fixtures::*;

const TIERS: &str = "\
segments:
- {name: web, members: [{podSelector: {matchLabels: {tier: web}}}]}
- {name: app, members: [{podSelector: {matchLabels: {tier: app}}}]}
- {name: data, members: [{podSelector: {matchLabels: {tier: data}}}]}
- {name: internet, members: [{entity: world}]}
rules:
- {name: web-in, from: [internet], to: [web], ports: [{port: 80}, {port: 443}]}
- {name: web-to-app, from: [web], to: [app], ports: [{port: 8080}]}
- {name: app-to-data, from: [app], to: [data], ports: [{port: 5432}], encryption: Required}
- {from: [app], to: [data], ports: [{port: 3000, endPort: 3999}]}
";

fn tier(name: &str) -> Party {
    mk_pod(name, &format!("tier={name}"))
}

/// Verdict and reason, in words.
fn told(judge: &mut SegmentJudge, edge: &Edge) -> (Crossing, String) {
    let verdict = judge.judge(edge);
    (verdict.verdict, verdict.reason.to_string())
}

#[test]
fn rules_allow_and_everything_else_between_segments_is_a_violation() {
    let mut judge = mk_judge(TIERS);
    let world = mk_outside("203.0.113.7");
    for (from, to, port, verdict, reason) in [
        (&world, &tier("web"), 443, Crossing::Allow, "rule web-in allows it"),
        (&tier("web"), &tier("app"), 8080, Crossing::Allow, "rule web-to-app allows it"),
        (&tier("app"), &tier("data"), 3500, Crossing::Allow, "rule rules[3] allows it"),
        (&tier("web"), &mk_pod("web2", "tier=web"), 1, Crossing::Allow, "both ends are in segment web"),
        (
            &tier("app"),
            &tier("data"),
            5432,
            Crossing::Unknown,
            "rule app-to-data allows it if it is encrypted, which is not observed",
        ),
        (
            &tier("web"),
            &tier("data"),
            5432,
            Crossing::Violation,
            "no rule lets web open connections to data on 5432/TCP",
        ),
        (
            &tier("web"),
            &tier("app"),
            22,
            Crossing::Violation,
            "no rule lets web open connections to app on 22/TCP (rule web-to-app allows 8080/TCP only)",
        ),
        (
            &tier("app"),
            &tier("web"),
            8080,
            Crossing::Violation,
            "no rule lets app open connections to web on 8080/TCP (rule web-to-app allows the other way only)",
        ),
        (&mk_pod("x", ""), &tier("web"), 80, Crossing::Unknown, "the initiator is in no segment"),
        (&mk_pod("x", ""), &mk_pod("y", ""), 80, Crossing::Ignored, "neither end is in a segment"),
        (&tier("web"), &tier("web"), 80, Crossing::Ignored, "a pod talking to itself is not judged"),
    ] {
        let mut edge = mk_edge(from, to, port);
        for direction in Direction::BOTH {
            edge.direction = direction;
            assert_eq!(told(&mut judge, &edge), (verdict, reason.to_owned()), "{direction}");
        }
    }
}

#[test]
fn a_verdict_reads_as_a_sentence() {
    let verdict = mk_judge(TIERS).judge(&mk_edge(&tier("web"), &tier("data"), 5432));
    assert_eq!(
        verdict.to_string(),
        "m: web → data is a violation (Warning): no rule lets web open connections to data on 5432/TCP"
    );
    assert_eq!(verdict.rule, None);
    let allowed = mk_judge(TIERS).judge(&mk_edge(&tier("web"), &tier("app"), 8080));
    assert_eq!(allowed.rule.as_deref(), Some("web-to-app"));
}

#[test]
fn protocols_of_rules_are_tcp_unless_they_say_otherwise() {
    let mut judge = mk_judge(TIERS);
    let mut edge = mk_edge(&tier("web"), &tier("app"), 8080);
    edge.protocol = Protocol::Udp;
    assert_eq!(judge.judge(&edge).verdict, Crossing::Violation);
    edge.protocol = Protocol::Icmp;
    edge.port = 2048;
    assert_eq!(
        told(&mut judge, &edge).1,
        "no rule lets web open connections to app on ICMP (rule web-to-app allows 8080/TCP only)"
    );
}

#[test]
fn unassigned_and_within_segment_are_what_the_map_says() {
    let map = |more: &str| {
        format!(
            "segments:\n- {{name: web, members: [{{podSelector: {{matchLabels: {{tier: web}}}}}}]}}\n{more}\n"
        )
    };
    let (web, web2, other) = (tier("web"), mk_pod("web2", "tier=web"), mk_pod("x", ""));
    for (more, one_end, no_end, within) in [
        ("", Crossing::Unknown, Crossing::Ignored, Crossing::Allow),
        ("unassigned: Report", Crossing::Unknown, Crossing::Ignored, Crossing::Allow),
        ("unassigned: Ignore", Crossing::Ignored, Crossing::Ignored, Crossing::Allow),
        ("unassigned: Deny", Crossing::Violation, Crossing::Violation, Crossing::Allow),
        ("withinSegment: Deny", Crossing::Unknown, Crossing::Ignored, Crossing::Violation),
        (
            "withinSegment: Deny\nrules: [{from: [web], to: [web], ports: [{port: 80}]}]",
            Crossing::Unknown,
            Crossing::Ignored,
            Crossing::Allow,
        ),
    ] {
        let mut judge = mk_judge(&map(more));
        assert_eq!(judge.judge(&mk_edge(&web, &other, 80)).verdict, one_end, "{more}");
        assert_eq!(judge.judge(&mk_edge(&other, &web, 80)).verdict, one_end, "{more}");
        assert_eq!(judge.judge(&mk_edge(&other, &mk_pod("y", ""), 80)).verdict, no_end, "{more}");
        assert_eq!(judge.judge(&mk_edge(&web, &web2, 80)).verdict, within, "{more}");
    }
}

#[test]
fn a_service_is_its_backends_on_their_ports() {
    let mut judge = mk_judge(TIERS);
    let (app, app2) = ((tier("app"), 8080), (mk_pod("app2", "tier=app"), 8080));
    let (data, web) = ((tier("data"), 8080), (tier("web"), 8080));
    let unknown = (Party::unknown(None, UnknownReason::AddressUnjoined), 8080);
    for (backends, verdict, to, reason) in [
        (vec![app.clone(), app2.clone()], Crossing::Allow, Some("app"), "rule web-to-app allows it"),
        (
            vec![app.clone(), (mk_pod("app2", "tier=app"), 9090)],
            Crossing::Unknown,
            Some("app"),
            "the Service's backends differ: 1 allowed, 1 violations, 0 unknown, 0 ignored",
        ),
        (
            vec![app.clone(), data.clone()],
            Crossing::Unknown,
            None,
            "the Service's backends differ: 1 allowed, 1 violations, 0 unknown, 0 ignored",
        ),
        (vec![app.clone(), web.clone()], Crossing::Allow, Some("app"), "rule web-to-app allows it"),
        (
            vec![app, unknown],
            Crossing::Unknown,
            None,
            "the Service's backends differ: 1 allowed, 0 violations, 1 unknown, 0 ignored",
        ),
        (
            vec![data],
            Crossing::Violation,
            Some("data"),
            "no rule lets web open connections to data on 8080/TCP",
        ),
        (vec![web], Crossing::Ignored, None, "a pod talking to itself is not judged"),
        (
            vec![],
            Crossing::Unknown,
            None,
            "the responder is not known: the Service has no ready backend that is known",
        ),
    ] {
        // The Service's own port, 80, is in no rule.
        let edge = mk_edge(&tier("web"), &mk_service("shop", "s", &backends), 80);
        let given = judge.judge(&edge);
        assert_eq!((given.verdict, given.reason.to_string()), (verdict, reason.to_owned()));
        assert_eq!(given.to_segment.as_deref(), to, "{reason}");
    }
}

#[test]
fn an_unknown_end_is_unknown_with_its_reason() {
    let mut judge = mk_judge(TIERS);
    let snat = Party::unknown(Some(mk_address("10.1.0.1")), UnknownReason::Snat);
    let given = judge.judge(&mk_edge(&snat, &tier("web"), 80));
    assert_eq!(given.verdict, Crossing::Unknown);
    assert_eq!(given.reason.code(), "snat");
    assert_eq!(given.to_segment.as_deref(), Some("web"));
    assert_eq!(
        given.reason.to_string(),
        "the initiator is not known: source NAT hid who opened the connection"
    );
}

const ENTITIES: &str = "\
overlap: FirstMatch
segments:
- {name: host, members: [{entity: host}]}
- {name: node, members: [{entity: node}]}
- {name: api, members: [{entity: api-server}]}
- {name: metadata, members: [{entity: cloud-metadata}]}
- {name: dns, members: [{entity: cluster-dns}]}
- {name: world, members: [{entity: world}]}
- {name: pods, members: [{podSelector: {}}]}
";

#[test]
fn entities_are_what_the_cluster_calls_them() {
    let dns = PodOf { name: "dns", roles: Roles::CLUSTER_DNS, ..PodOf::default() }.party();
    let agent =
        PodOf { name: "agent", host_network: true, address: Some("192.0.2.1"), ..PodOf::default() }.party();
    let control = mk_node("cp", "192.0.2.9");
    let api = mk_service("default", "kubernetes", &[(control.clone(), 6443)]);
    let other = mk_service("shop", "kubernetes", &[(control.clone(), 10250)]);
    let around = || Surroundings {
        api_server: vec!["192.0.2.9:6443".parse().unwrap(), "203.0.113.9:443".parse().unwrap()],
        ..Surroundings::default()
    };
    for (responder, port, protocol, segment) in [
        (mk_node("n1", "192.0.2.1"), 10250, Protocol::Tcp, "host"),
        (mk_node("n2", "192.0.2.2"), 10250, Protocol::Tcp, "node"),
        (agent, 9100, Protocol::Tcp, "host"),
        (api, 443, Protocol::Tcp, "api"),
        (mk_service("default", "kubernetes", &[]), 443, Protocol::Tcp, "api"),
        (other, 443, Protocol::Tcp, "node"),
        (control.clone(), 6443, Protocol::Tcp, "api"),
        (control, 10250, Protocol::Tcp, "node"),
        (mk_outside("203.0.113.9"), 443, Protocol::Tcp, "api"),
        (mk_outside("203.0.113.9"), 80, Protocol::Tcp, "world"),
        (mk_outside("203.0.113.8"), 443, Protocol::Tcp, "world"),
        (mk_outside("2001:db8::8"), 443, Protocol::Tcp, "world"),
        (mk_outside("169.254.169.254"), 80, Protocol::Tcp, "metadata"),
        (mk_outside("fd00:ec2::254"), 80, Protocol::Tcp, "metadata"),
        (dns, 53, Protocol::Udp, "dns"),
        (mk_node("n1", "169.254.20.10"), 53, Protocol::Udp, "dns"),
        (mk_node("n1", "10.96.0.10"), 53, Protocol::Tcp, "dns"),
        (mk_node("n2", "192.0.2.2"), 53, Protocol::Udp, "node"),
        (mk_node("n1", "192.0.2.1"), 53, Protocol::Sctp, "host"),
        (mk_pod("x", ""), 53, Protocol::Udp, "pods"),
    ] {
        let mut judge = SegmentJudge::new(&mk_map(ENTITIES), around()).unwrap();
        let mut edge = mk_edge(&mk_pod("a", ""), &responder, port);
        edge.protocol = protocol;
        let given = judge.judge(&edge);
        assert_eq!(given.to_segment.as_deref(), Some(segment), "{responder:?} {port}/{protocol}");
        // Seen from the other end it is the same.
        edge.direction = Direction::Ingress;
        assert_eq!(judge.judge(&edge), given);
    }
}

#[test]
fn world_never_holds_the_clouds_metadata() {
    let map =
        "segments: [{name: app, members: [{podSelector: {}}]}, {name: internet, members: [{entity: world}]}]
rules: [{from: [app], to: [internet]}]
unassigned: Deny";
    let mut judge = mk_judge(map);
    let pod = mk_pod("a", "");
    assert_eq!(judge.judge(&mk_edge(&pod, &mk_outside("203.0.113.1"), 80)).verdict, Crossing::Allow);
    assert_eq!(judge.judge(&mk_edge(&pod, &mk_outside("169.254.169.254"), 80)).verdict, Crossing::Violation);
}

#[test]
fn probes_of_the_own_node_are_not_meant_unless_the_map_names_the_node() {
    let app = "segments: [{name: app, members: [{podSelector: {}}]}]\nunassigned: Deny";
    let named = "segments: [{name: app, members: [{podSelector: {}}]}, {name: n, members: [{entity: node}]}]";
    let on = |node| PodOf { node, address: Some("10.1.0.9"), ..PodOf::default() }.party();
    let node = mk_node("n1", "192.0.2.1");
    for (map, pod, verdict, code) in [
        (app, on(Some("n1")), Crossing::Ignored, "not-judged"),
        (app, on(Some("n2")), Crossing::Violation, "unassigned"),
        (app, on(None), Crossing::Unknown, "node-of-pod-unknown"),
        (named, on(Some("n1")), Crossing::Violation, "no-rule"),
    ] {
        let given = mk_judge(map).judge(&mk_edge(&node, &pod, 8080));
        assert_eq!((given.verdict, given.reason.code()), (verdict, code));
    }
}

#[test]
fn multicast_broadcast_and_dhcp_are_not_judged() {
    let mut judge = mk_judge("segments: [{name: app, members: [{podSelector: {}}]}]\nunassigned: Deny");
    for (address, port) in [("224.0.0.251", 5353), ("ff02::1", 1), ("255.255.255.255", 9), ("192.0.2.1", 67)]
    {
        let mut edge = mk_edge(&mk_pod("a", ""), &mk_outside(address), port);
        edge.protocol = Protocol::Udp;
        assert_eq!(judge.judge(&edge).verdict, Crossing::Ignored, "{address}");
    }
}

#[test]
fn an_endpoint_in_two_segments_is_unknown_under_reject_and_in_the_first_under_first_match() {
    let map = |overlap: &str| {
        format!(
            "overlap: {overlap}
segments:
- {{name: a, members: [{{podSelector: {{matchLabels: {{x: '1'}}}}}}]}}
- {{name: b, members: [{{podSelector: {{matchLabels: {{y: '1'}}}}}}]}}
- {{name: c, members: [{{podSelector: {{matchLabels: {{z: '1'}}}}}}]}}
rules: [{{from: [a], to: [c]}}]"
        )
    };
    let edge = mk_edge(&mk_pod("p", "x=1,y=1"), &mk_pod("q", "z=1"), 80);
    let mut first = mk_judge(&map("FirstMatch"));
    assert_eq!(first.judge(&edge).verdict, Crossing::Allow);
    assert_eq!(first.findings(), []);
    let mut reject = mk_judge(&map("Reject"));
    let given = reject.judge(&edge);
    assert_eq!(given.verdict, Crossing::Unknown);
    assert_eq!(given.reason.to_string(), "the initiator is in segments a and b, and overlap is Reject");
    assert_eq!((given.from_segment, given.to_segment.as_deref()), (None, Some("c")));
    reject.judge(&edge);
    let [found] = &reject.findings()[..] else { panic!("one finding for one pair of segments") };
    assert_eq!(found.field, "spec.segments[1]");
    assert!(found.message.starts_with("Pod/shop/p is in segments a and b; overlap is Reject"), "{found}");
}

#[test]
fn a_pod_without_an_address_is_unknown_only_where_an_address_decides() {
    let map = "segments:
- {name: web, members: [{ipBlock: {cidr: 10.1.0.0/16}}]}
- {name: db, members: [{podSelector: {matchLabels: {app: db}}}]}";
    let homeless = |name, labels| PodOf { name, labels, ..PodOf::default() }.party();
    let mut judge = mk_judge(map);
    let given = judge.judge(&mk_edge(&homeless("a", ""), &homeless("b", "app=db"), 80));
    assert_eq!((given.verdict, given.reason.code()), (Crossing::Unknown, "address-missing"));
    // Certain by its labels, whatever its address: segments have nothing in common under Reject.
    assert_eq!(given.to_segment.as_deref(), Some("db"));
    let none = judge.judge(&mk_edge(&homeless("c", "app=db"), &homeless("b", "app=db"), 80));
    assert_eq!(none.verdict, Crossing::Allow);
}

#[test]
fn a_name_makes_unknown_only_what_depends_on_it() {
    let map = |to: &str| {
        format!(
            "overlap: FirstMatch
segments:
- {{name: app, members: [{{podSelector: {{}}}}]}}
- {{name: openai, members: [{{fqdn: api.openai.com}}]}}
- {{name: internet, members: [{{entity: world}}]}}
rules: [{{from: [app], to: {to}, ports: [{{port: 443}}]}}]"
        )
    };
    let edge = |port| mk_edge(&mk_pod("a", ""), &mk_outside("203.0.113.1"), port);
    for (to, port, verdict) in [
        ("[openai]", 443, Crossing::Unknown),
        ("[openai, internet]", 443, Crossing::Allow),
        ("[openai]", 80, Crossing::Violation),
    ] {
        let given = mk_judge(&map(to)).judge(&edge(port));
        assert_eq!(given.verdict, verdict, "{to} {port}: {}", given.reason);
        assert_eq!(given.to_segment, None);
    }
    let given = mk_judge(&map("[openai]")).judge(&edge(443));
    assert_eq!(given.reason.code(), "name-unresolved");
    let given = mk_judge(&map("[openai]")).judge(&edge(80));
    assert_eq!(given.reason.to_string(), "no rule lets app open connections to openai or internet on 80/TCP");
}

#[test]
fn a_vlan_is_the_tag_at_the_pods_own_interface() {
    let map = "segments:
- {name: web, members: [{vlan: 10}]}
- {name: app, members: [{vlan: 20}]}
- {name: untagged, members: [{vlan: 0}]}
rules: [{name: r, from: [web], to: [app], ports: [{port: 8080}]}]";
    let at = |name, address| PodOf { name, address: Some(address), ..PodOf::default() }.party();
    let (web, app) = (at("web", "10.1.0.1"), at("app", "10.1.0.2"));
    let edge = |direction, vlan, port| Edge { direction, vlan, ..mk_edge(&web, &app, port) };
    // Only one end is known: the other may be in any VLAN.
    let mut judge = mk_judge(map);
    let one = judge.judge(&edge(Direction::Egress, 10, 22));
    assert_eq!((one.verdict, one.reason.code()), (Crossing::Unknown, "vlan-unknown"));
    assert_eq!((one.from_segment.as_deref(), one.to_segment), (Some("web"), None));
    // Once both were seen, both directions say the same.
    for seen in [edge(Direction::Egress, 10, 22), edge(Direction::Ingress, 20, 22)] {
        judge.surroundings_mut().vlans.observe(&seen);
    }
    for (port, verdict) in [(8080, Crossing::Allow), (22, Crossing::Violation)] {
        for seen in [edge(Direction::Egress, 10, port), edge(Direction::Ingress, 20, port)] {
            assert_eq!(judge.judge(&seen).verdict, verdict, "{}", seen.direction);
        }
    }
    // Untagged is a VLAN like any other; an address outside is in none.
    let outside = Edge { vlan: 0, ..mk_edge(&web, &mk_outside("203.0.113.1"), 80) };
    let given = judge.judge(&outside);
    assert_eq!((given.from_segment.as_deref(), given.reason.code()), (Some("untagged"), "unassigned"));
    // Two tags for one address: none of them is sure.
    judge.surroundings_mut().vlans.set(mk_address("10.1.0.2"), 30);
    assert_eq!(judge.judge(&edge(Direction::Egress, 10, 22)).reason.code(), "vlan-unknown");
}

#[test]
fn segments_from_makes_one_segment_for_each_value_of_a_namespace_label() {
    let map = "segmentsFrom: {namespaceLabel: tenant}
segments: [{name: gateway, members: [{namespaceSelector: {matchLabels: {role: gateway}}}]}]
rules:
- {name: all, from: ['tenant=*'], to: [gateway], ports: [{port: 8080}]}
- {name: acme, from: ['tenant=acme'], to: ['tenant=globex'], ports: [{port: 9000}]}";
    let of = |namespace, name, namespace_labels| {
        PodOf { namespace, name, namespace_labels, address: Some("10.1.0.1"), ..PodOf::default() }.party()
    };
    let acme = of("acme-a", "x", "tenant=acme");
    let acme2 = of("acme-b", "y", "tenant=acme");
    let globex = of("globex-a", "x", "tenant=globex");
    let gateway = of("gw", "g", "role=gateway");
    let nobody = of("none", "n", "tenant=");
    let mut judge = mk_judge(map);
    for (from, to, port, verdict, segments) in [
        (&acme, &acme2, 5432, Crossing::Allow, (Some("tenant=acme"), Some("tenant=acme"))),
        (&acme, &gateway, 8080, Crossing::Allow, (Some("tenant=acme"), Some("gateway"))),
        (&globex, &gateway, 8080, Crossing::Allow, (Some("tenant=globex"), Some("gateway"))),
        (&gateway, &acme, 8080, Crossing::Violation, (Some("gateway"), Some("tenant=acme"))),
        (&acme, &globex, 9000, Crossing::Allow, (Some("tenant=acme"), Some("tenant=globex"))),
        (&globex, &acme, 9000, Crossing::Violation, (Some("tenant=globex"), Some("tenant=acme"))),
        (&nobody, &acme, 9000, Crossing::Unknown, (None, Some("tenant=acme"))),
    ] {
        let given = judge.judge(&mk_edge(from, to, port));
        assert_eq!(given.verdict, verdict, "{given}");
        assert_eq!((given.from_segment.as_deref(), given.to_segment.as_deref()), segments);
    }
}

#[test]
fn a_map_that_is_not_in_force_does_not_judge() {
    let map = mk_map("segments: [{name: a, members: []}]");
    let refused = SegmentJudge::new(&map, Surroundings::default()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "segmentmap m is not in force: spec.segments[0].members: is empty: nothing would ever be in this segment"
    );
}
