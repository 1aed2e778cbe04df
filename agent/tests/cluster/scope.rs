//! `--scope node`: an agent that watches only its node's pods, and asks for others.

use serde_json::json;

use super::agent::Agent;
use super::cluster::{PodSpec, in_cluster, pods};

#[test]
fn pods_of_other_nodes_are_asked_for_when_they_are_met() {
    in_cluster(async |cluster| {
        let namespace = cluster.namespace("shop", &[]).await;
        let cidr = format!("{}/24", cluster.ip(0));
        let here = cluster.node("here", &cluster.ip(1), Some(cidr)).await;
        let there = cluster.node("there", &cluster.ip(2), None).await;
        let (db, web, other) = (cluster.ip(20), cluster.ip(10), cluster.ip(11));
        for (name, label, ip, node) in
            [("db", "db", &db, &here), ("web", "web", &web, &there), ("other", "other", &other, &there)]
        {
            let labels = [("app", label)];
            cluster
                .pod(
                    &namespace,
                    &PodSpec { name, labels: &labels, addresses: &[ip], node, ..PodSpec::default() },
                )
                .await;
        }
        let only_web = json!({
            "podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}],
        });
        cluster.policy(&namespace, "only-web", only_web).await;
        let mut agent = Agent::of_node(&cluster, &here).await;
        agent.until_synced().await;
        agent.until_pod(&namespace, "db", &db).await;
        assert_eq!(agent.reading("Pod").objects, 1, "its node's alone");
        let interface = agent.interface(&[&db]);
        // Two pods, nobody inside the cluster, and a private address outside of it.
        let nobody = cluster.ip(77);
        let asked = [(&*web, 1, "Allow"), (&other, 2, "Deny"), ("10.255.255.254", 3, "Deny")];
        for (from, port, _) in asked {
            let seen = agent.seen(interface, from, &db, port);
            agent.observe(seen);
            assert!(agent.words(port).is_empty(), "{from} waits");
        }
        let seen = agent.seen(interface, &nobody, &db, 4);
        agent.observe(seen);
        agent.ask().await;
        agent.until("all are known", |agent| agent.auditor.waiting() == 1).await;
        for (from, port, verdict) in asked {
            assert_eq!(agent.words(port), [verdict], "{from}");
        }
        assert_eq!(agent.edges(3)[0].initiator.kind, "External");
        agent.lose_patience();
        assert_eq!(agent.words(4), ["Unknown(address-unjoined)"], "inside the cluster, and nobody's");
        // The watch of the own node's pods goes on, and a new list does not take the others away.
        cluster.delete(&pods(), &namespace, "db", 0).await;
        agent.until_no_pod(&namespace, "db").await;
        if let Some(server) = cluster.server() {
            assert!(server.requests("list pods") <= 4, "one for each address");
            server.compact();
            agent
                .until("listed again", |agent| {
                    agent.reading("Pod").restarts > 0 && agent.reading("Pod").error.is_none()
                })
                .await;
        }
        assert!(agent.index().pod(&namespace, "web").is_some());
    });
}
