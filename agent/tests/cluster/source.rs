//! The source: lists, watches, and everything that goes wrong with them.

use std::time::Duration;

use dryfence::cluster::kubernetes::{ClusterArgs, ConnectError};
use serde_json::json;

use super::agent::Agent;
use super::cluster::{Cluster, PodSpec, in_cluster, pods, policies, resource};
use super::skip;
use crate::api_server::Faults;

/// Pods that are there, put in as a server would have them.
fn put_pods(cluster: &Cluster, namespace: &str, range: std::ops::Range<u32>) {
    let server = cluster.server().unwrap();
    for number in range {
        let [_, _, a, b] = number.to_be_bytes();
        server.put_raw("/pods", json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("p{number}"), "namespace": namespace, "labels": {"app": "many"}},
            "spec": {"nodeName": "n", "containers": []},
            "status": {"phase": "Running", "podIP": format!("198.19.{a}.{b}"), "podIPs": [{"ip": format!("198.19.{a}.{b}")}]},
        }));
    }
}

fn count(agent: &Agent, namespace: &str) -> usize {
    agent.index().pods().filter(|pod| &*pod.namespace == namespace).count()
}

#[test]
fn a_list_comes_in_pages_where_the_server_does_not_stream_it() {
    in_cluster(async |cluster| {
        let Some(server) = cluster.server() else { return skip("paged lists") };
        let namespace = cluster.namespace("many", &[]).await;
        put_pods(&cluster, &namespace, 0..1200);
        server.fail(Faults { no_streaming: true, ..Faults::default() });
        let mut agent = Agent::start(&cluster).await;
        agent.until_synced().await;
        assert_eq!(count(&agent, &namespace), 1200);
        assert_eq!(server.requests("list pods"), 3, "1200 in pages of 500");
        cluster.delete(&pods(), &namespace, "p7", 0).await;
        agent.until_no_pod(&namespace, "p7").await;
        assert_eq!(count(&agent, &namespace), 1199);
        assert_eq!(server.requests("list pods"), 3, "what changes is watched");
    });
}

#[test]
fn a_streamed_list_is_one_request() {
    in_cluster(async |cluster| {
        let Some(server) = cluster.server() else { return skip("counting requests") };
        let namespace = cluster.namespace("many", &[]).await;
        put_pods(&cluster, &namespace, 0..300);
        let mut agent = Agent::start(&cluster).await;
        agent.until_synced().await;
        assert_eq!(count(&agent, &namespace), 300);
        assert_eq!((server.requests("list pods"), server.requests("watch pods")), (0, 1));
        assert_eq!(agent.reading("Pod").objects, 300);
    });
}

#[test]
fn a_version_that_expired_is_listed_again_and_what_went_meanwhile_is_gone() {
    in_cluster(async |cluster| {
        let Some(server) = cluster.server() else { return skip("expiring versions") };
        let namespace = cluster.namespace("many", &[]).await;
        for gone_as_status in [false, true] {
            server.fail(Faults { gone_as_status, ..Faults::default() });
            put_pods(&cluster, &namespace, 0..20);
            let mut agent = Agent::start(&cluster).await;
            agent.until_synced().await;
            for name in ["p3", "p4"] {
                cluster.delete(&pods(), &namespace, name, 0).await;
            }
            server.compact();
            let same = |agent: &Agent| agent.reading("Pod").restarts > 0 && count(agent, &namespace) == 18;
            agent.until("listed again", same).await;
            assert!(agent.index().pod(&namespace, "p3").is_none());
        }
    });
}

#[test]
fn a_list_that_breaks_off_or_fails_is_tried_again_and_never_taken_in_part() {
    in_cluster(async |cluster| {
        let Some(server) = cluster.server() else { return skip("broken lists") };
        let namespace = cluster.namespace("many", &[]).await;
        put_pods(&cluster, &namespace, 0..50);
        server.fail(Faults {
            broken_lists: 9,
            refuse: Some((500, 4)),
            slowness: Duration::from_millis(50),
            ..Faults::default()
        });
        let mut agent = Agent::start(&cluster).await;
        agent.until("the pods are known", |agent| count(agent, &namespace) > 0).await;
        assert_eq!(count(&agent, &namespace), 50);
        agent.until_synced().await;
        let restarts: u64 = agent.watches.readings().iter().map(|reading| reading.restarts).sum();
        assert!(restarts >= 4, "{:?}", agent.watches.readings());
        server.fail(Faults { refuse: Some((429, 3)), no_streaming: true, ..Faults::default() });
        server.compact();
        cluster.delete(&pods(), &namespace, "p1", 0).await;
        agent.until_no_pod(&namespace, "p1").await;
        assert_eq!(count(&agent, &namespace), 49);
    });
}

/// A ServiceAccount that may read these kinds, and its token.
async fn reader(cluster: &Cluster, namespace: &str, rules: serde_json::Value) -> String {
    let role = format!("{}-reader", cluster.prefix);
    let rbac = |kind: &str, plural: &str| resource("rbac.authorization.k8s.io", "v1", kind, plural);
    cluster
        .create(&rbac("ClusterRole", "clusterroles"), "", json!({"metadata": {"name": role}, "rules": rules}))
        .await;
    let binding = json!({
        "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
    });
    cluster.create(&rbac("ClusterRoleBinding", "clusterrolebindings"), "", binding).await;
    token(cluster, namespace).await
}

async fn token(cluster: &Cluster, namespace: &str) -> String {
    use k8s_openapi::api::authentication::v1::TokenRequest;
    use k8s_openapi::api::core::v1::ServiceAccount;
    let accounts: kube::Api<ServiceAccount> = kube::Api::namespaced(cluster.admin.clone(), namespace);
    let request = TokenRequest::default();
    let made = accounts.create_token_request("default", &Default::default(), &request).await.unwrap();
    made.status.unwrap().token.unwrap()
}

const CORE: [&str; 5] = ["namespaces", "nodes", "services", "pods", "endpointslices"];

#[test]
fn a_kind_that_may_not_be_read_is_named_and_the_rest_works() {
    in_cluster(async |cluster| {
        let namespace = cluster.namespace("shop", &[]).await;
        let (web, db) = (cluster.ip(10), cluster.ip(20));
        for (name, ip) in [("web", &web), ("db", &db)] {
            cluster.pod(&namespace, &PodSpec { name, addresses: &[ip], ..PodSpec::default() }).await;
        }
        let verbs = ["get", "list", "watch"];
        let groups = ["", "discovery.k8s.io", "dryfence.io"];
        let kinds = [CORE.as_slice(), &["segmentmaps", "edgeexceptions"]].concat();
        let rules = json!([{"apiGroups": groups, "resources": kinds, "verbs": verbs}]);
        let token = reader(&cluster, &namespace, rules).await;
        let mut agent = Agent::with_token(&cluster, &token).await;
        agent.until_pod(&namespace, "db", &db).await;
        let refused = |agent: &Agent| agent.reading("NetworkPolicy").error.is_some();
        agent
            .until("policies are refused", |agent| refused(agent) && !agent.index().gaps().is_starting)
            .await;
        let reading = agent.reading("NetworkPolicy");
        assert!(!reading.synced);
        let problem = reading.problem().unwrap();
        assert!(problem.contains("NetworkPolicy") && problem.contains("403"), "{problem}");
        assert!(agent.warnings.contains(&problem), "{:?}", agent.warnings);
        let interface = agent.interface(&[&db]);
        let seen = agent.seen(interface, &web, &db, 1);
        agent.observe(seen);
        assert_eq!(agent.words(1), ["Unknown(not-synced)"], "a policy may say anything");
        // Once it may, it does.
        let role = resource("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles");
        let everything = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": verbs}]);
        cluster.patch(&role, "", &format!("{}-reader", cluster.prefix), json!({"rules": everything})).await;
        agent.until_synced().await;
        assert_eq!(agent.words(1), ["Allow"]);
    });
}

#[test]
fn an_address_is_unknown_while_a_kind_that_may_have_it_is_not_read() {
    in_cluster(async |cluster| {
        let namespace = cluster.namespace("shop", &[]).await;
        let db = cluster.ip(20);
        cluster.pod(&namespace, &PodSpec { name: "db", addresses: &[&db], ..PodSpec::default() }).await;
        let kinds: Vec<&str> =
            CORE.into_iter().filter(|kind| *kind != "nodes").chain(["networkpolicies"]).collect();
        let groups = ["", "discovery.k8s.io", "networking.k8s.io"];
        let token = reader(
            &cluster,
            &namespace,
            json!([{"apiGroups": groups, "resources": kinds, "verbs": ["get", "list", "watch"]}]),
        )
        .await;
        let mut agent = Agent::with_token(&cluster, &token).await;
        agent.until_pod(&namespace, "db", &db).await;
        agent
            .until("nodes are refused", |agent| {
                agent.reading("Node").error.is_some() && !agent.index().gaps().is_starting
            })
            .await;
        let interface = agent.interface(&[&db]);
        let seen = agent.seen(interface, "192.0.2.77", &db, 1);
        agent.observe(seen);
        assert!(agent.words(1).is_empty(), "a node with the address may come");
        agent.lose_patience();
        assert_eq!(agent.edges(1)[0].initiator.kind, "Unknown");
        assert_eq!(agent.edges(1)[0].initiator.reason.as_deref(), Some("not-synced"));
    });
}

#[test]
fn what_cannot_be_read_is_named_by_object_and_field_and_nothing_else_is_lost() {
    in_cluster(async |cluster| {
        let Some(server) = cluster.server() else { return skip("objects that a server refuses") };
        let namespace = cluster.namespace("shop", &[]).await;
        let (web, db, far) = (cluster.ip(10), cluster.ip(20), cluster.ip(30));
        for (name, ip) in [("web", &web), ("db", &db)] {
            cluster.pod(&namespace, &PodSpec { name, addresses: &[ip], ..PodSpec::default() }).await;
        }
        let other = cluster.namespace("other", &[]).await;
        cluster.pod(&other, &PodSpec { name: "far", addresses: &[&far], ..PodSpec::default() }).await;
        server.put_raw(
            "networking.k8s.io/networkpolicies",
            json!({
                "metadata": {"name": "odd", "namespace": namespace},
                "spec": {"podSelector": 7, "policyTypes": ["Ingress"]},
            }),
        );
        server.put_raw(
            "/pods",
            json!({
                "metadata": {"name": "odd", "namespace": namespace}, "spec": {"containers": []},
                "status": {"podIP": "not-an-address"},
            }),
        );
        server.put_raw(
            "/services",
            json!({"metadata": {"name": "odd", "namespace": namespace}, "spec": {"ports": [{"port": -3}]}}),
        );
        let mut agent = Agent::start(&cluster).await;
        agent.until_synced().await;
        for part in [
            format!("NetworkPolicy {namespace}/odd: spec.podSelector"),
            format!("Pod {namespace}/odd: status.podIP"),
            format!("Service {namespace}/odd: spec.ports[0]"),
        ] {
            assert!(
                agent.warnings.iter().any(|warning| warning.contains(&part)),
                "{part}: {:?}",
                agent.warnings
            );
        }
        for kind in ["NetworkPolicy", "Pod", "Service"] {
            assert_eq!(agent.reading(kind).unreadable, 1, "{kind}");
        }
        for (to, port, verdict) in [(&db, 1, "Unknown(policy-invalid)"), (&far, 2, "Allow")] {
            let interface = agent.interface(&[to]);
            let seen = agent.seen(interface, &web, to, port);
            agent.observe(seen);
            assert_eq!(agent.words(port), [verdict], "the other namespace's pods are none of its business");
        }
        // Set right, it counts, and is told no more.
        cluster.patch(&policies(), &namespace, "odd", json!({"spec": {"podSelector": {}}})).await;
        agent.until("the policy is read", |agent| agent.reading("NetworkPolicy").unreadable == 0).await;
        agent
            .until("it is told no more", |agent| !agent.warnings.iter().any(|w| w.contains("NetworkPolicy")))
            .await;
        assert_eq!(agent.words(1), ["Deny"]);
    });
}

fn definition(version: &str) -> serde_json::Value {
    json!({
        "metadata": {"name": "segmentmaps.dryfence.io"},
        "spec": {
            "group": "dryfence.io", "scope": "Cluster",
            "names": {"plural": "segmentmaps", "singular": "segmentmap", "kind": "SegmentMap", "listKind": "SegmentMapList"},
            "versions": [{
                "name": version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

#[test]
fn a_kind_that_is_installed_later_is_found_and_one_that_goes_is_let_go() {
    in_cluster(async |cluster| {
        let Some(_) = cluster.server() else {
            return skip("installing our kinds, which the cluster may have in use");
        };
        let definitions =
            resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions");
        let mut agent = Agent::start(&cluster).await;
        agent.until_synced().await;
        assert!(agent.watches.readings().iter().all(|reading| reading.kind != "SegmentMap"));
        // Another version than ours is no silence.
        cluster.create(&definitions, "", definition("v2")).await;
        agent
            .until("named", |agent| {
                agent.warnings.iter().any(|w| w.contains("SegmentMap") && w.contains("v2"))
            })
            .await;
        cluster.delete(&definitions, "", "segmentmaps.dryfence.io", 0).await;
        cluster.create(&definitions, "", definition("v1alpha1")).await;
        let maps = resource("dryfence.io", "v1alpha1", "SegmentMap", "segmentmaps");
        let map = json!({"metadata": {"name": "tiers"}, "spec": {"segments": [
            {"name": "web", "members": [{"podSelector": {"matchLabels": {"app": "web"}}}]},
        ]}});
        cluster.create(&maps, "", map).await;
        agent.until("the map is in force", |agent| agent.index().segment_maps().len() == 1).await;
        agent.until_synced().await;
        cluster.delete(&definitions, "", "segmentmaps.dryfence.io", 0).await;
        agent.until("the map is gone", |agent| agent.index().segment_maps().is_empty()).await;
        agent
            .until("its watch is gone", |agent| {
                agent.watches.readings().iter().all(|r| r.kind != "SegmentMap")
            })
            .await;
    });
}

#[test]
fn a_token_that_is_wrong_or_expires_is_named_and_what_is_known_stays() {
    in_cluster(async |cluster| {
        let namespace = cluster.namespace("shop", &[]).await;
        let db = cluster.ip(20);
        cluster.pod(&namespace, &PodSpec { name: "db", addresses: &[&db], ..PodSpec::default() }).await;
        let mut wrong = Agent::with_token(&cluster, "wrong").await;
        wrong
            .until("refused", |agent| agent.warnings.iter().any(|w| w.contains("401") && w.contains("token")))
            .await;
        assert!(!wrong.reading("Pod").synced);
        let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]);
        let token = reader(&cluster, &namespace, rules).await;
        let mut agent = Agent::with_token(&cluster, &token).await;
        agent.until_synced().await;
        let Some(server) = cluster.server() else { return skip("a token that expires at once") };
        server.expire(&token);
        server.compact();
        agent.until("refused", |agent| agent.reading("Pod").error.is_some_and(|e| e.contains("401"))).await;
        assert!(agent.index().pod(&namespace, "db").is_some());
        assert!(agent.reading("Pod").synced, "it was read once");
        assert!(agent.index().gaps().stale_since.is_some());
    });
}

#[tokio::test]
async fn a_kubeconfig_that_is_wrong_is_told_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    let args = ClusterArgs { kubeconfig: Some(path.clone()), ..ClusterArgs::default() };
    for text in [None, Some("not: [yaml"), Some("apiVersion: v1\nkind: Config\ncurrent-context: none\n")] {
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let error = args.kubeconfig().await.unwrap_err();
        assert!(matches!(error, ConnectError::Kubeconfig { .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    let nowhere = ClusterArgs::default().config().await.unwrap_err();
    assert!(
        matches!(nowhere, ConnectError::NotInCluster(_)) && nowhere.to_string().contains("--kubeconfig"),
        "{nowhere}"
    );
}
