//! Which rules are expected for which edges.

use std::collections::BTreeSet;

use super::build::{Cluster, in_lines, mk_edge, mk_external, mk_node, mk_service, mk_tcp, warned};
use crate::model::edge::{Counters, Direction, Edge, Protocol};
use crate::model::endpoint::Party;
use crate::model::role::Roles;
use crate::model::verdict::UnknownReason;
use crate::suggest::{Dns, Options};

/// Without default-deny: only what allows.
fn allows(cluster: &Cluster, edges: &[Edge]) -> Vec<String> {
    in_lines(&cluster.suggest_with(edges, &Options { default_deny: false, ..Options::default() }))
}

#[test]
fn a_connection_needs_egress_at_the_initiator_and_ingress_at_the_responder() {
    let mut cluster = Cluster::default();
    let web = cluster.pod("shop/Deployment/web", "app=web");
    let db = cluster.pod("data/StatefulSet/db", "app=db");
    assert_eq!(
        in_lines(&cluster.suggest(&[mk_tcp(&web, &db, 5432)])),
        [
            "data/allow-statefulset-db (app=db) ingress from shop (app=web) 5432/TCP",
            "shop/allow-deployment-web (app=web) egress to data (app=db) 5432/TCP",
            "data/default-deny (everything) denies Ingress,Egress",
            "shop/default-deny (everything) denies Ingress,Egress",
        ]
    );
}

#[test]
fn only_what_was_accepted_is_allowed() {
    let mut cluster = Cluster::default();
    let web = cluster.pod("shop/Deployment/web", "app=web");
    let db = cluster.pod("shop/StatefulSet/db", "app=db");
    let counted = |protocol, attempts, accepted, refused, fully_visible| Edge {
        counters: Counters { attempts, accepted, refused, ..Counters::default() },
        fully_visible,
        ..mk_edge(&web, &db, 80, protocol)
    };
    for (what, edge, allowed) in [
        ("accepted", counted(Protocol::Tcp, 3, 1, 0, true), true),
        ("accepted, its SYN not seen", counted(Protocol::Tcp, 0, 1, 0, false), true),
        ("unanswered", counted(Protocol::Tcp, 3, 0, 0, true), false),
        ("refused", counted(Protocol::Tcp, 3, 0, 3, true), false),
        ("refused, half visible", counted(Protocol::Tcp, 3, 0, 3, false), false),
        ("half visible, so nobody could see it accepted", counted(Protocol::Tcp, 3, 0, 0, false), true),
        ("UDP never says whether it is accepted", counted(Protocol::Udp, 1, 0, 0, true), true),
        ("SCTP accepted", counted(Protocol::Sctp, 1, 1, 0, true), true),
        ("SCTP unanswered", counted(Protocol::Sctp, 1, 0, 0, true), false),
    ] {
        assert_eq!(!cluster.suggest(&[edge]).policies.is_empty(), allowed, "{what}");
    }
    let unconfirmed = counted(Protocol::Tcp, 3, 0, 0, false);
    let suggestions = cluster.suggest(std::slice::from_ref(&unconfirmed));
    assert_eq!(
        warned(&suggestions),
        ["unconfirmed: shop/Deployment/web", "unconfirmed: shop/StatefulSet/db"]
    );
    let strict = Options { unconfirmed: false, ..Options::default() };
    assert!(cluster.suggest_with(&[unconfirmed], &strict).policies.is_empty());
}

#[test]
fn selectors_select_exactly_the_workload() {
    /// What is expected, the pods (workload, labels, selector), and the first one's selector.
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str, &'a str)], &'a str);
    let cases: &[Case<'_>] = &[
        (
            "its own selector, where that is exact",
            &[("Deployment/web", "app=web,tier=a", "app=web")],
            "app=web",
        ),
        (
            "a label more, where its own selects others too",
            &[("Deployment/web", "app=x,tier=a", "app=x"), ("Deployment/api", "app=x,tier=b", "app=x")],
            "app=x,tier=a",
        ),
        (
            "what it lacks, where the others have all of its labels",
            &[("Deployment/web", "app=x", "app=x"), ("Deployment/canary", "app=x,track=canary", "app=x")],
            "app=x,!track",
        ),
        (
            "a Job that shares the Deployment's labels",
            &[
                ("Deployment/web", "app=x,pod-template-hash=1", "app=x"),
                ("CronJob/nightly", "app=x,job-name=n-1,controller-uid=u", "app=x"),
            ],
            "app=x,!controller-uid",
        ),
        (
            "never a hash that changes with the next rollout",
            &[
                ("Deployment/web", "app=x,pod-template-hash=1", "app=x"),
                ("Deployment/web", "app=x,pod-template-hash=2", "app=x"),
                ("Deployment/old", "app=x,v=1,pod-template-hash=3", "app=x"),
            ],
            "app=x,!v",
        ),
        (
            "a version only where nothing else tells them apart",
            &[
                ("Deployment/web", "app=x,version=1,color=red", "app=x"),
                ("Deployment/api", "app=x,version=2,color=blue", "app=x"),
            ],
            "app=x,color=red",
        ),
        (
            "a version, where it is the only difference",
            &[("Deployment/web", "app=x,version=1", "app=x"), ("Deployment/api", "app=x,version=2", "app=x")],
            "app=x,version=1",
        ),
        (
            "by other values, where its own pods differ among themselves",
            &[
                ("Deployment/web", "app=x,shard=1", "app=x"),
                ("Deployment/web", "app=x,shard=2", "app=x"),
                ("Deployment/api", "app=x,shard=3", "app=x"),
            ],
            "app=x,shard notin (3)",
        ),
        (
            "a bare pod's labels, without a release's",
            &[("Pod/web", "app=x,version=1", "app=x,version=1")],
            "app=x",
        ),
    ];
    for (what, pods, expected) in cases {
        let mut cluster = Cluster::default();
        let parties: Vec<Party> = pods
            .iter()
            .map(|(workload, labels, selector)| {
                cluster.pod_with(&format!("shop/{workload}"), labels, selector, Roles::NONE, false)
            })
            .collect();
        let edge =
            Edge { direction: Direction::Ingress, ..mk_tcp(&mk_external("203.0.113.7"), &parties[0], 80) };
        let lines = allows(&cluster, &[edge]);
        assert!(lines[0].contains(&format!("({expected}) ingress from")), "{what}: {lines:?}");
        // Pods elsewhere never count.
        let other = cluster.pod("other/Deployment/web", "app=x,tier=a,shard=1,version=1");
        let edge = mk_tcp(&mk_external("203.0.113.7"), &parties[0], 80);
        assert_eq!(allows(&cluster, &[edge]), lines, "{what}, with {other:?}");
    }
}

#[test]
fn workloads_with_the_same_labels_are_one_to_a_policy() {
    let mut cluster = Cluster::default();
    let one = cluster.pod("shop/Deployment/one", "app=x");
    let two = cluster.pod("shop/Deployment/two", "app=x");
    let db = cluster.pod("shop/StatefulSet/db", "app=db");
    let suggestions = cluster.suggest(&[mk_tcp(&one, &db, 5432), mk_tcp(&two, &db, 5433)]);
    assert_eq!(
        in_lines(&suggestions),
        [
            "shop/allow-deployment-one (app=x) egress to shop (app=db) 5432/TCP,5433/TCP",
            "shop/allow-statefulset-db (app=db) ingress from shop (app=x) 5432/TCP,5433/TCP",
            "shop/default-deny (everything) denies Ingress,Egress",
        ]
    );
    assert_eq!(warned(&suggestions), ["same-labels: shop/Deployment/one, shop/Deployment/two"]);
}

#[test]
fn a_service_is_allowed_as_its_backends_and_their_ports() {
    let mut cluster = Cluster::default();
    let web = cluster.pod("shop/Deployment/web", "app=web");
    let blue = cluster.pod("shop/Deployment/blue", "app=blue");
    let green = cluster.pod("shop/Deployment/green", "app=green");
    let service = mk_service("api", &[(&blue, 8080), (&green, 9090), (&mk_external("203.0.113.9"), 8080)]);
    assert_eq!(
        allows(&cluster, &[mk_tcp(&web, &service, 80)]),
        [
            "shop/allow-deployment-blue (app=blue) ingress from shop (app=web) 8080/TCP",
            "shop/allow-deployment-green (app=green) ingress from shop (app=web) 9090/TCP",
            "shop/allow-deployment-web (app=web) egress to shop (app=blue) or 203.0.113.9/32 8080/TCP",
            "shop/allow-deployment-web (app=web) egress to shop (app=green) 9090/TCP",
        ]
    );
    let headless = cluster.suggest(&[mk_tcp(&web, &mk_service("gone", &[]), 80)]);
    assert_eq!(in_lines(&headless), ["shop/default-deny (everything) denies Ingress,Egress"]);
    assert_eq!(warned(&headless), ["no-backends: shop/Deployment/web"]);
}

#[test]
fn ports_of_equal_peers_and_peers_of_equal_ports_are_merged() {
    let mut cluster = Cluster::default();
    let web = cluster.pod("shop/Deployment/web", "app=web");
    let a = cluster.pod("shop/Deployment/a", "app=a");
    let b = cluster.pod("data/Deployment/b", "app=b");
    let c = cluster.pod("data/Deployment/c", "app=c");
    let edges = [
        mk_tcp(&web, &a, 80),
        mk_edge(&web, &a, 80, Protocol::Udp),
        mk_tcp(&web, &b, 80),
        mk_edge(&web, &b, 80, Protocol::Udp),
        mk_tcp(&web, &c, 80),
    ];
    let egress: Vec<_> =
        allows(&cluster, &edges).into_iter().filter(|line| line.contains("egress")).collect();
    assert_eq!(
        egress,
        [
            "shop/allow-deployment-web (app=web) egress to data (app=b) or shop (app=a) 80/TCP,80/UDP",
            "shop/allow-deployment-web (app=web) egress to data (app=c) 80/TCP",
        ]
    );
}

#[test]
fn outside_addresses_are_merged_only_where_nothing_else_gets_in() {
    let mut cluster = Cluster::default();
    let web = cluster.pod("shop/Deployment/web", "app=web");
    for (what, addresses, folded, expected) in [
        ("one host", &["203.0.113.7"][..], None, "203.0.113.7/32"),
        ("two halves of a block", &["203.0.113.6", "203.0.113.7"], None, "203.0.113.6/31"),
        (
            "two neighbours of different blocks",
            &["203.0.113.7", "203.0.113.8"],
            None,
            "203.0.113.7/32 or 203.0.113.8/32",
        ),
        ("IPv6", &["2001:db8::7"], None, "2001:db8::7/128"),
        ("IPv4 written as IPv6", &["::ffff:203.0.113.7"], None, "203.0.113.7/32"),
        ("a zero at the end is a host, if nothing was folded", &["203.0.113.0"], None, "203.0.113.0/32"),
        ("a folded prefix", &["203.0.113.0"], Some((24, 64)), "203.0.113.0/24"),
        (
            "a folded prefix holds a host that was kept apart",
            &["203.0.113.0", "203.0.113.9"],
            Some((24, 64)),
            "203.0.113.0/24",
        ),
        ("a folded IPv6 prefix", &["2001:db8:0:1::"], Some((24, 64)), "2001:db8:0:1::/64"),
    ] {
        let edges: Vec<_> = addresses.iter().map(|a| mk_tcp(&web, &mk_external(a), 443)).collect();
        let options = Options { folded, default_deny: false, ..Options::default() };
        let suggestions = cluster.suggest_with(&edges, &options);
        let line = format!("shop/allow-deployment-web (app=web) egress to {expected} 443/TCP");
        assert_eq!(in_lines(&suggestions), [line], "{what}");
        assert_eq!(warned(&suggestions), ["external-by-address: shop/Deployment/web"], "{what}");
    }
}

#[test]
fn nodes_are_named_by_address_and_the_own_node_needs_no_rule() {
    let mut cluster = Cluster::default();
    let on_a = cluster.pod("shop/Deployment/web", "app=web");
    let host_on_b = cluster.pod_with("mon/DaemonSet/exporter", "app=x", "app=x", Roles::NONE, true);
    assert_eq!(host_on_b.as_pod().unwrap().node.as_deref(), Some("node-b"));
    let by_address = "shop/allow-deployment-web (app=web) egress to 198.51.100.11/32 9100/TCP";
    for (what, edge, expected) in [
        ("kubelet's probes", mk_tcp(&mk_node(0), &on_a, 9100), None),
        ("to its own node", mk_tcp(&on_a, &mk_node(0), 9100), None),
        ("to another node", mk_tcp(&on_a, &mk_node(1), 9100), Some(by_address)),
        ("to a hostNetwork pod elsewhere", mk_tcp(&on_a, &host_on_b, 9100), Some(by_address)),
    ] {
        let suggestions =
            cluster.suggest_with(&[edge], &Options { default_deny: false, ..Options::default() });
        assert_eq!(in_lines(&suggestions), Vec::from_iter(expected), "{what}");
        let warnings = warned(&suggestions);
        let by_address = warnings.contains(&"node-by-address: shop/Deployment/web".to_owned());
        assert_eq!(by_address, expected.is_some(), "{what}: {warnings:?}");
    }
    // Calico judges what a pod sends to its own node.
    let dialect = "standard,pod_to_own_node_judged=true".parse().unwrap();
    let options = Options { default_deny: false, dialect, ..Options::default() };
    let suggestions = cluster.suggest_with(&[mk_tcp(&on_a, &mk_node(0), 9100)], &options);
    let line = "shop/allow-deployment-web (app=web) egress to 198.51.100.10/32 9100/TCP";
    assert_eq!(in_lines(&suggestions), [line]);
}

#[test]
fn host_network_pods_get_no_policy_and_a_pod_needs_none_to_reach_itself() {
    let mut cluster = Cluster::default();
    let host = cluster.pod_with("mon/DaemonSet/exporter", "app=x", "app=x", Roles::NONE, true);
    let web = cluster.pod("shop/Deployment/web", "app=web");
    let again = cluster.pod("shop/Deployment/web", "app=web");
    let out = cluster.suggest(&[mk_tcp(&host, &mk_external("203.0.113.7"), 443)]);
    assert!(out.policies.is_empty());
    assert_eq!(warned(&out), ["host-network: mon/DaemonSet/exporter"]);
    assert!(allows(&cluster, &[mk_tcp(&web, &web, 80)]).is_empty());
    assert!(allows(&cluster, &[mk_tcp(&web, &mk_service("web", &[(&web, 80)]), 80)]).is_empty());
    assert_eq!(
        allows(&cluster, &[mk_tcp(&web, &again, 80)]),
        [
            "shop/allow-deployment-web (app=web) ingress from shop (app=web) 80/TCP",
            "shop/allow-deployment-web (app=web) egress to shop (app=web) 80/TCP",
        ]
    );
}

#[test]
fn dns_is_allowed_once_a_namespace_over_both_protocols() {
    let mut cluster = Cluster::default();
    let web = cluster.pod("shop/Deployment/web", "app=web");
    let bare = cluster.pod("shop/Pod/bare", "");
    let dns = cluster.pod_with(
        "kube-system/Deployment/coredns",
        "k8s-app=kube-dns",
        "k8s-app=kube-dns",
        Roles::CLUSTER_DNS,
        false,
    );
    let service = mk_service("kube-dns", &[(&dns, 5353)]);
    let edges = [mk_edge(&web, &service, 53, Protocol::Udp), mk_edge(&bare, &service, 53, Protocol::Udp)];
    let ports = "5353/TCP,5353/UDP";
    let once = format!("shop/allow-dns (everything) egress to kube-system (k8s-app=kube-dns) {ports}");
    let deny = "shop/default-deny (everything) denies Ingress,Egress".to_owned();
    assert_eq!(in_lines(&cluster.suggest(&edges)), [once.clone(), deny.clone()]);

    let both = Options { exempt_namespaces: BTreeSet::new(), ..Options::default() };
    assert_eq!(
        in_lines(&cluster.suggest_with(&edges, &both)),
        [
            format!(
                "kube-system/allow-deployment-coredns (k8s-app=kube-dns) ingress from shop (every pod) {ports}"
            ),
            once,
            "kube-system/default-deny (everything) denies Ingress,Egress".to_owned(),
            deny.clone(),
        ]
    );
    // Where egress is not denied by default, a policy for every pod would isolate them all.
    let each =
        format!("shop/allow-deployment-web (app=web) egress to kube-system (k8s-app=kube-dns) {ports}");
    assert_eq!(allows(&cluster, &edges), std::slice::from_ref(&each));
    let by_workload = Options { dns: Dns::PerWorkload, ..Options::default() };
    assert_eq!(in_lines(&cluster.suggest_with(&edges[..1], &by_workload)), [each, deny]);
    // Metrics of the DNS pods are no DNS, and NodeLocal DNSCache is a node.
    let metrics = mk_tcp(&web, &dns, 9153);
    let line = "shop/allow-deployment-web (app=web) egress to kube-system (k8s-app=kube-dns) 9153/TCP";
    assert_eq!(in_lines(&cluster.suggest(&[metrics]))[0], line);
}

#[test]
fn what_networkpolicy_does_not_judge_needs_no_rule() {
    let mut cluster = Cluster::default();
    let web = cluster.pod("shop/Deployment/web", "app=web");
    for (what, edge) in [
        ("multicast", mk_edge(&web, &mk_external("224.0.0.251"), 5353, Protocol::Udp)),
        ("IPv6 multicast", mk_edge(&web, &mk_external("ff02::fb"), 5353, Protocol::Udp)),
        ("broadcast", mk_edge(&web, &mk_external("255.255.255.255"), 9, Protocol::Udp)),
        ("DHCP", mk_edge(&web, &mk_external("203.0.113.1"), 67, Protocol::Udp)),
        ("neighbour discovery", mk_edge(&web, &mk_external("2001:db8::1"), 135 << 8, Protocol::Icmpv6)),
    ] {
        let suggestions = cluster.suggest(&[edge]);
        assert!(suggestions.policies.is_empty() && suggestions.warnings.is_empty(), "{what}");
    }
}

#[test]
fn what_cannot_be_said_is_a_warning_that_names_it() {
    let mut cluster = Cluster::default();
    let web = cluster.pod("shop/Deployment/web", "app=web");
    let address = "198.51.100.99".parse().ok();
    let unknown = Party::unknown(address, UnknownReason::AddressUnjoined);
    let echo = 8 << 8;
    for (edge, warning, item) in [
        (
            mk_tcp(&web, &unknown, 80),
            "unknown-end: shop/Deployment/web",
            "198.51.100.99 on 80/TCP: the address is inside",
        ),
        (
            mk_tcp(&unknown, &web, 80),
            "unknown-end: shop/Deployment/web",
            "198.51.100.99 on 80/TCP: the address is inside",
        ),
        (
            mk_tcp(&mk_service("lb", &[]), &web, 80),
            "unknown-end: shop/Deployment/web",
            "Service none/lb on 80/TCP",
        ),
        (
            mk_edge(&web, &mk_node(1), echo, Protocol::Icmp),
            "icmp: shop/Deployment/web",
            "Node/node-b ICMP type 8 code 0",
        ),
    ] {
        let options = Options { cut_off_unknown: true, ..Options::default() };
        let suggestions = cluster.suggest_with(&[edge], &options);
        assert_eq!(in_lines(&suggestions), ["shop/default-deny (everything) denies Ingress,Egress"]);
        assert_eq!(warned(&suggestions), [warning]);
        let items = &suggestions.warnings[0].items;
        assert!(items.len() == 1 && items[0].starts_with(item), "{items:?}");
    }
}

#[test]
fn scope_is_by_namespace_and_direction() {
    let mut cluster = Cluster::default();
    let web = cluster.pod("shop/Deployment/web", "app=web");
    let db = cluster.pod("data/StatefulSet/db", "app=db");
    let edges = [mk_tcp(&web, &db, 5432)];
    let only = |names: &[&str]| Some(names.iter().map(|&name| name.into()).collect());
    let ingress = "data/allow-statefulset-db (app=db) ingress from shop (app=web) 5432/TCP";
    let egress = "shop/allow-deployment-web (app=web) egress to data (app=db) 5432/TCP";
    for (what, options, expected) in [
        (
            "one namespace",
            Options { namespaces: only(&["data"]), ..Options::default() },
            &[ingress, "data/default-deny (everything) denies Ingress,Egress"][..],
        ),
        (
            "exempt beats named",
            Options {
                namespaces: only(&["data"]),
                exempt_namespaces: BTreeSet::from(["data".into()]),
                ..Options::default()
            },
            &[],
        ),
        (
            "one direction",
            Options {
                directions: BTreeSet::from([Direction::Ingress]),
                namespaces: only(&["data"]),
                ..Options::default()
            },
            &[ingress, "data/default-deny (everything) denies Ingress"],
        ),
        ("no default-deny", Options { default_deny: false, ..Options::default() }, &[ingress, egress]),
        (
            "a default-deny where nothing was observed, on request",
            Options {
                namespaces: only(&["shop"]),
                deny_also: BTreeSet::from(["idle".into()]),
                ..Options::default()
            },
            &[
                egress,
                "idle/default-deny (everything) denies Ingress,Egress",
                "shop/default-deny (everything) denies Ingress,Egress",
            ],
        ),
    ] {
        assert_eq!(in_lines(&cluster.suggest_with(&edges, &options)), expected, "{what}");
    }
}

#[test]
fn a_block_inside_another_names_only_the_ports_that_the_other_does_not() {
    let mut cluster = Cluster::default();
    let web = cluster.pod("shop/Deployment/web", "app=web");
    let (folded, host) = (mk_external("203.0.113.0"), mk_external("203.0.113.9"));
    let options = Options { folded: Some((24, 64)), default_deny: false, ..Options::default() };
    let prefix = [mk_tcp(&web, &folded, 80), mk_tcp(&web, &folded, 443)];
    let both = "shop/allow-deployment-web (app=web) egress to 203.0.113.0/24 80/TCP,443/TCP";
    let rest = "shop/allow-deployment-web (app=web) egress to 203.0.113.9/32 8080/TCP";
    for (what, ports, expected) in [
        ("all of its ports", &[80][..], &[both][..]),
        ("some of its ports", &[80, 8080], &[both, rest]),
        ("none of its ports", &[8080], &[both, rest]),
    ] {
        let edges: Vec<_> =
            prefix.iter().cloned().chain(ports.iter().map(|port| mk_tcp(&web, &host, *port))).collect();
        assert_eq!(in_lines(&cluster.suggest_with(&edges, &options)), expected, "{what}");
    }
}
