//! The YAML as people read and apply it.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::build::{Cluster, mk_edge, mk_external, mk_node, mk_service, mk_tcp};
use crate::model::cause::Cause;
use crate::model::edge::{Counters, Direction, Edge, Protocol};
use crate::model::role::Roles;
use crate::suggest::{Options, Suggestions};

/// What a YAML reader that is not ours makes of it.
fn read(yaml: &str) -> Vec<NetworkPolicy> {
    serde_saphyr::from_multiple(yaml).unwrap()
}

fn policies(suggestions: &Suggestions) -> Vec<NetworkPolicy> {
    suggestions.policies.iter().map(|suggestion| suggestion.policy.clone()).collect()
}

fn shop() -> (Cluster, Vec<Edge>) {
    let mut cluster = Cluster::default();
    let web = cluster.pod("shop/Deployment/web", "app=web");
    let api = cluster.pod("shop/Deployment/api", "app=api");
    let canary =
        cluster.pod_with("shop/Deployment/canary", "app=api,track=canary", "app=api", Roles::NONE, false);
    let db = cluster.pod("data/StatefulSet/db", "app.kubernetes.io/name=postgres,on=true");
    let dns = cluster.pod_with(
        "kube-system/Deployment/coredns",
        "k8s-app=kube-dns",
        "k8s-app=kube-dns",
        Roles::CLUSTER_DNS,
        false,
    );
    let service = mk_service("api", &[(&api, 8080), (&canary, 8080)]);
    let counted = |accepted, edge| Edge {
        counters: Counters { attempts: accepted + 1, accepted, ..Counters::default() },
        ..edge
    };
    let seen_at_responder = Edge { direction: Direction::Ingress, ..counted(7, mk_tcp(&web, &api, 8080)) };
    let api_server = Edge { cause: Cause::ApiServer, ..mk_tcp(&api, &mk_external("203.0.113.1"), 6443) };
    let edges = vec![
        counted(41, mk_tcp(&web, &service, 80)),
        seen_at_responder,
        counted(3, mk_tcp(&api, &db, 5432)),
        mk_edge(&web, &dns, 53, Protocol::Udp),
        mk_edge(&api, &dns, 53, Protocol::Tcp),
        api_server,
        mk_tcp(&mk_external("203.0.113.4"), &web, 443),
        mk_tcp(&mk_external("203.0.113.5"), &web, 443),
        mk_tcp(&mk_external("2001:db8::5"), &web, 443),
        mk_tcp(&db, &mk_node(0), 9100),
        mk_edge(&api, &db, 8 << 8, Protocol::Icmp),
    ];
    (cluster, edges)
}

#[test]
fn a_shop_reads_well() {
    let (cluster, edges) = shop();
    let suggestions = cluster.suggest(&edges);
    let preamble =
        ["Watched from 2023-11-14T22:13:20Z to 2023-11-15T22:13:20Z; nothing was lost.".to_owned()];
    let yaml = suggestions.to_yaml(&preamble);
    insta::assert_snapshot!(yaml);
    assert_eq!(read(&yaml), policies(&suggestions));
    let each: Vec<_> =
        suggestions.policies.iter().flat_map(|suggestion| read(&suggestion.to_yaml())).collect();
    assert_eq!(each, policies(&suggestions));
}

#[test]
fn a_cluster_with_its_dns_in_scope_and_pods_without_labels_says_what_is_left_out() {
    let (mut cluster, mut edges) = shop();
    let bare = cluster.pod("data/Pod/debug", "");
    edges.push(mk_tcp(&bare, &edges[2].responder.clone(), 5432));
    let options = Options { exempt_namespaces: BTreeSet::new(), ..Options::default() };
    let suggestions = cluster.suggest_with(&edges, &options);
    let yaml = suggestions.to_yaml(&[]);
    insta::assert_snapshot!(yaml);
    assert_eq!(read(&yaml), policies(&suggestions));
}

#[test]
fn many_peers_are_counted_after_the_first_dozen() {
    let mut cluster = Cluster::default();
    let web = cluster.pod("shop/Deployment/web", "app=web");
    let edges: Vec<_> =
        (0..16).map(|host| mk_tcp(&mk_external(&format!("203.0.113.{host}")), &web, 443)).collect();
    let suggestions = cluster.suggest(&edges);
    insta::assert_snapshot!(suggestions.to_yaml(&[]));
}

#[test]
fn nothing_accepted_is_said_in_a_sentence() {
    let suggestions = Cluster::default().suggest(&[]);
    let expected =
        "# 0 NetworkPolicies suggested by dryfence: the least that allow 0 recorded and accepted edges.\n";
    assert_eq!(suggestions.to_yaml(&[]), expected);
}

#[test]
fn text_from_outside_stays_a_comment_or_a_string() {
    for value in [
        "true", "No", "null", "1", "1e3", "0x1f", "", "-a", "a: b", "a #b", "\"", "\\", "nan", "a\nb",
        "\u{2028}", "ü",
    ] {
        let mut cluster = Cluster::default();
        let web = cluster.pod(&format!("shop/Deployment/web{value}"), &format!("app={value},tier=web"));
        let edges = [mk_tcp(&mk_external("203.0.113.7"), &web, 443)];
        let suggestions = cluster.suggest(&edges);
        let preamble = [format!("kind: Pod{value}")];
        assert_eq!(read(&suggestions.to_yaml(&preamble)), policies(&suggestions), "{value:?}");
    }
}

#[test]
fn json_has_the_evidence_by_rule_and_peer() {
    let (cluster, edges) = shop();
    let json = serde_json::to_value(cluster.suggest(&edges)).unwrap();
    let web = json["policies"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["policy"]["metadata"]["name"] == "allow-deployment-api");
    insta::assert_json_snapshot!(web.unwrap());
}
