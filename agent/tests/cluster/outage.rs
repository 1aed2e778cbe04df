//! The API server gone and back, and many pods at once.

use std::time::Instant;

use serde_json::json;

use super::agent::Agent;
use super::cluster::{PodSpec, in_cluster};
use super::skip;
use crate::api_server::ApiServer;

#[test]
fn while_the_server_is_gone_only_what_appeared_meanwhile_is_unknown_and_then_everything_is_right() {
    if std::env::var_os("DRYFENCE_TEST_KUBECONFIG").is_some() {
        return skip("killing the API server");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut server = ApiServer::start();
        let pod = |name: &str, app: &str, ip: &str| {
            json!({
                "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
                "spec": {"nodeName": "n", "containers": []},
                "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
            })
        };
        server.put_raw("/pods", pod("db", "db", "198.18.0.20"));
        server.put_raw("/pods", pod("web", "web", "198.18.0.10"));
        server.put_raw(
            "networking.k8s.io/networkpolicies",
            json!({
                "metadata": {"name": "only-web", "namespace": "default"},
                "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"],
                         "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]},
            }),
        );
        let mut config = kube::Config::new(server.url().parse().unwrap());
        config.auth_info.token = Some(crate::api_server::ADMIN.into());
        let mut agent = Agent::with(config, None);
        agent.until_synced().await;
        let interface = agent.interface(&["198.18.0.20"]);
        let known = agent.seen(interface, "192.0.2.77", "198.18.0.20", 1);
        agent.observe(known);
        assert_eq!(agent.words(1), ["Deny"], "an outsider");

        server.kill();
        agent.until("the outage is known", |agent| agent.index().gaps().stale_since.is_some()).await;
        assert!(agent.reading("Pod").synced, "what was read stays");
        // Who was known before is judged as before, and so is an edge that was there before.
        let seen = agent.seen(interface, "198.18.0.10", "198.18.0.20", 2);
        agent.observe(seen);
        assert_eq!(agent.words(2), ["Allow"]);
        let again = dryfence::model::edge::Observation {
            first_seen: known.first_seen,
            ..agent.seen(interface, "192.0.2.77", "198.18.0.20", 1)
        };
        agent.observe(again);
        assert_eq!(agent.words(1), ["Deny"]);
        // What appears may be a new pod's: two of them, one waits until the server is back.
        let (early, late) = (
            agent.seen(interface, "198.18.0.11", "198.18.0.20", 3),
            agent.seen(interface, "198.18.0.11", "198.18.0.20", 4),
        );
        agent.observe(early);
        agent.lose_patience();
        assert_eq!(agent.edges(3).len(), 1);
        assert_eq!(agent.edges(3)[0].initiator.kind, "Unknown");
        agent.observe(late);
        assert!(agent.words(4).is_empty());

        server.put_raw("/pods", pod("new", "web", "198.18.0.11"));
        server.revive();
        agent.until_pod("default", "new", "198.18.0.11").await;
        agent.until("news come again", |agent| agent.index().gaps().stale_since.is_none()).await;
        assert_eq!(agent.words(4), ["Allow"], "it was the new pod's");
        let fresh = agent.seen(interface, "198.18.0.11", "198.18.0.20", 5);
        agent.observe(fresh);
        assert_eq!(agent.words(5), ["Allow"]);
        assert_eq!(agent.edges(1).len() + agent.edges(2).len() + agent.edges(3).len(), 3, "no edge is lost");
        agent
            .until("no problem is left", |agent| {
                agent.watches.readings().iter().all(|r| r.problem().is_none())
            })
            .await;
    });
}

#[test]
fn five_thousand_pods_are_all_in_the_index() {
    const PODS: u32 = 5000;
    in_cluster(async |cluster| {
        let namespace = cluster.namespace("many", &[]).await;
        let mut agent = Agent::start(&cluster).await;
        agent.until_synced().await;
        let made = Instant::now();
        let (next, cluster_ref, name) = (std::sync::atomic::AtomicU32::new(0), &*cluster, &*namespace);
        let make = async || {
            loop {
                let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if number >= PODS {
                    return;
                }
                let [_, _, a, b] = number.to_be_bytes();
                let (pod, ip) = (format!("p{number}"), format!("198.19.{a}.{b}"));
                let spec = PodSpec {
                    name: &pod,
                    labels: &[("app", "many")],
                    addresses: &[&ip],
                    ..PodSpec::default()
                };
                cluster_ref.pod(name, &spec).await;
            }
        };
        let all = async {
            futures::future::join_all((0..32).map(|_| make())).await;
            Instant::now()
        };
        let has_all = |agent: &Agent| {
            let with_address =
                agent.index().pods().filter(|pod| &*pod.namespace == name && !pod.addresses.is_empty());
            with_address.count() == PODS as usize
        };
        let known = async {
            agent.until("all pods have their addresses", has_all).await;
            Instant::now()
        };
        let (last, known) = futures::join!(all, known);
        eprintln!(
            "{PODS} pods were made in {:?}; all were in the index {:?} after the last one",
            last - made,
            known.saturating_duration_since(last)
        );
        assert_eq!(agent.reading("Pod").unreadable, 0);
    });
}
