//! What is left out rather than let it break what was accepted.

use std::collections::BTreeSet;

use super::build::{Cluster, in_lines, mk_node, mk_tcp, warned};
use crate::model::endpoint::Party;
use crate::model::verdict::UnknownReason;
use crate::suggest::Options;

#[test]
fn a_workload_without_labels_gets_no_policy_and_keeps_its_namespace_open() {
    let mut cluster = Cluster::default();
    let bare = cluster.pod("shop/Pod/bare", "");
    let db = cluster.pod("data/StatefulSet/db", "app=db");
    let web = cluster.pod("shop/Deployment/web", "app=web");
    let edges = [mk_tcp(&bare, &db, 5432), mk_tcp(&web, &db, 5432)];
    let suggestions = cluster.suggest(&edges);
    assert_eq!(
        in_lines(&suggestions),
        [
            "shop/allow-deployment-web (app=web) egress to data (app=db) 5432/TCP",
            "data/default-deny (everything) denies Egress",
            "shop/default-deny (everything) denies Ingress",
        ]
    );
    assert_eq!(
        warned(&suggestions),
        [
            "default-deny-left-out: data",
            "default-deny-left-out: shop",
            "direction-left-out: data/StatefulSet/db",
            "no-labels: shop/Pod/bare",
            "unnamed-peer: data/StatefulSet/db",
        ]
    );
    let items = &suggestions.warnings[4].items;
    assert_eq!(*items, ["shop/Pod/bare on 5432/TCP: its pods have no label in common"]);
}

#[test]
fn made_up_labels_are_no_labels() {
    let mut cluster = Cluster::default();
    for labels in [
        "pod-template-hash=1",
        "controller-uid=u,job-name=n-1",
        "statefulset.kubernetes.io/pod-name=x-0,apps.kubernetes.io/pod-index=0",
    ] {
        let bare = cluster.pod("shop/CronJob/bare", labels);
        let db = cluster.pod("shop/StatefulSet/db", "app=db");
        let lines = in_lines(&cluster.suggest(&[mk_tcp(&bare, &db, 5432)]));
        assert_eq!(lines, Vec::<String>::new(), "{labels}");
    }
}

#[test]
fn a_default_deny_that_is_asked_for_comes_all_the_same_and_says_what_it_cuts_off() {
    let mut cluster = Cluster::default();
    let bare = cluster.pod("shop/Pod/bare", "");
    let db = cluster.pod("shop/StatefulSet/db", "app=db");
    let web = cluster.pod("shop/Deployment/web", "app=web");
    let options = Options { deny_also: BTreeSet::from(["shop".into()]), ..Options::default() };
    let suggestions = cluster.suggest_with(&[mk_tcp(&bare, &db, 5432), mk_tcp(&web, &db, 5432)], &options);
    assert_eq!(
        in_lines(&suggestions),
        [
            "shop/allow-deployment-web (app=web) egress to shop (app=db) 5432/TCP",
            "shop/allow-statefulset-db (app=db) ingress from shop (app=web) 5432/TCP",
            "shop/default-deny (everything) denies Ingress,Egress",
        ]
    );
    assert_eq!(
        warned(&suggestions),
        [
            "cut-off: shop/Pod/bare",
            "cut-off: shop/StatefulSet/db",
            "no-labels: shop/Pod/bare",
            "unnamed-peer: shop/StatefulSet/db",
        ]
    );
}

#[test]
fn no_policy_without_rules_but_default_deny() {
    let mut cluster = Cluster::default();
    let web = cluster.pod("shop/Deployment/web", "app=web");
    let idle = cluster.pod("shop/Deployment/idle", "app=idle");
    let db = cluster.pod("shop/StatefulSet/db", "app=db");
    let suggestions = cluster.suggest(&[mk_tcp(&web, &db, 5432)]);
    assert!(idle.as_pod().is_some());
    let without: Vec<_> =
        in_lines(&suggestions).into_iter().filter(|line| line.contains(" denies ")).collect();
    assert_eq!(without, ["shop/default-deny (everything) denies Ingress,Egress"]);
}

#[test]
fn an_unknown_end_leaves_open_what_would_cut_it_off_unless_asked() {
    let mut cluster = Cluster::default();
    let web = cluster.pod("shop/Deployment/web", "app=web");
    let db = cluster.pod("shop/StatefulSet/db", "app=db");
    let unknown = Party::unknown("198.51.100.99".parse().ok(), UnknownReason::AddressUnjoined);
    let edges = [mk_tcp(&web, &db, 5432), mk_tcp(&web, &unknown, 80)];
    let ingress = "shop/allow-statefulset-db (app=db) ingress from shop (app=web) 5432/TCP";
    let egress = "shop/allow-deployment-web (app=web) egress to shop (app=db) 5432/TCP";
    let suggestions = cluster.suggest(&edges);
    assert_eq!(in_lines(&suggestions), [ingress, "shop/default-deny (everything) denies Ingress"]);
    let expected = [
        "default-deny-left-out: shop",
        "direction-left-out: shop/Deployment/web",
        "unknown-end: shop/Deployment/web",
    ];
    assert_eq!(warned(&suggestions), expected);

    let options = Options { cut_off_unknown: true, ..Options::default() };
    let suggestions = cluster.suggest_with(&edges, &options);
    let all = [egress, ingress, "shop/default-deny (everything) denies Ingress,Egress"];
    assert_eq!(in_lines(&suggestions), all);
    assert_eq!(warned(&suggestions), ["unknown-end: shop/Deployment/web"]);
}

#[test]
fn nodes_cannot_be_named_where_ip_block_does_not_match_them() {
    let mut cluster = Cluster::default();
    let web = cluster.pod("shop/Deployment/web", "app=web");
    let dialect = "standard,ip_block_matches_pods=false".parse().unwrap();
    let suggestions =
        cluster.suggest_with(&[mk_tcp(&web, &mk_node(1), 9100)], &Options { dialect, ..Options::default() });
    assert_eq!(in_lines(&suggestions), ["shop/default-deny (everything) denies Ingress"]);
    let expected = [
        "default-deny-left-out: shop",
        "direction-left-out: shop/Deployment/web",
        "unnamed-peer: shop/Deployment/web",
    ];
    assert_eq!(warned(&suggestions), expected);
}
