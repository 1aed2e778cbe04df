//! Right in time: who an address was when its packets passed, and by which labels and policies that is judged.
//!
//! Everything is a connection to `db`, which a policy lets only pods with `app: web` of namespaces with `tier: front`
//! reach. Each test states the verdict before and after.

use serde_json::{Value, json};

use dryfence::model::edge::IfIndex;
use dryfence::model::verdict::Verdict;

use super::agent::Agent;
use super::cluster::{Cluster, PodSpec, in_cluster, pods, policies, resource, resource_of_slices, services};

const WEB: &[(&str, &str)] = &[("app", "web")];
const OTHER: &[(&str, &str)] = &[("app", "other")];

struct Shop {
    agent: Agent,
    namespace: String,
    db: String,
    interface: IfIndex,
}

fn only_web() -> Value {
    json!({
        "podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{
            "namespaceSelector": {"matchLabels": {"tier": "front"}},
            "podSelector": {"matchLabels": {"app": "web"}},
        }]}],
    })
}

/// A namespace, its database with an interface, and the policy, all known to an agent.
async fn shop(cluster: &Cluster) -> Shop {
    let namespace = cluster.namespace("shop", &[("tier", "front")]).await;
    let (node, db) =
        (cluster.node("n1", &cluster.ip(1), Some(format!("{}/24", cluster.ip(0)))).await, cluster.ip(20));
    let spec = PodSpec {
        name: "db",
        labels: &[("app", "db")],
        addresses: &[&db],
        node: &node,
        ..PodSpec::default()
    };
    cluster.pod(&namespace, &spec).await;
    cluster.policy(&namespace, "only-web", only_web()).await;
    let mut agent = Agent::start(cluster).await;
    agent.until_synced().await;
    agent.until_pod(&namespace, "db", &db).await;
    let interface = agent.interface(&[&db, &cluster.ip6(20)]);
    Shop { agent, namespace, db, interface }
}

impl Shop {
    async fn pod(&mut self, cluster: &Cluster, name: &str, labels: &[(&str, &str)], ip: &str) {
        let spec = PodSpec { name, labels, addresses: &[ip], ..PodSpec::default() };
        cluster.pod(&self.namespace, &PodSpec { node: &format!("{}-n1", cluster.prefix), ..spec }).await;
        self.agent.until_pod(&self.namespace.clone(), name, ip).await;
    }

    /// Has a connection to the database judged, and returns the verdicts of all edges to the port.
    fn connect(&mut self, from: &str, port: u16) -> Vec<String> {
        let seen = self.agent.seen(self.interface, from, &self.db, port);
        self.agent.observe(seen);
        self.agent.words(port)
    }
}

#[test]
fn an_address_reused_within_seconds_is_whose_it_was_when_the_packets_passed() {
    in_cluster(async |cluster| {
        let mut shop = shop(&cluster).await;
        let ip = cluster.ip(10);
        shop.pod(&cluster, "a", WEB, &ip).await;
        assert_eq!(shop.connect(&ip, 1), ["Allow"]);
        let late = shop.agent.seen(shop.interface, &ip, &shop.db.clone(), 2);
        cluster.delete(&pods(), &shop.namespace, "a", 0).await;
        shop.agent.until_no_pod(&shop.namespace.clone(), "a").await;
        shop.pod(&cluster, "b", OTHER, &ip).await;
        assert_eq!(shop.connect(&ip, 3), ["Deny"]);
        // Read only now, and yet the first pod's.
        shop.agent.observe(late);
        assert_eq!(shop.agent.words(2), ["Allow"]);
        assert_eq!(shop.agent.edges(2)[0].initiator.name.as_deref(), Some("a"));
        // What was judged before keeps who it was.
        assert_eq!(shop.agent.edges(1)[0].initiator.name.as_deref(), Some("a"));
    });
}

#[test]
fn a_pod_that_succeeded_or_failed_has_no_address_any_more() {
    in_cluster(async |cluster| {
        let mut shop = shop(&cluster).await;
        for (last, port, phase) in [(10, 1, "Succeeded"), (11, 2, "Failed")] {
            let ip = cluster.ip(last);
            shop.pod(&cluster, &phase.to_lowercase(), WEB, &ip).await;
            assert_eq!(shop.connect(&ip, port), ["Allow"], "{phase}");
            cluster
                .patch_status(&pods(), &shop.namespace, &phase.to_lowercase(), json!({"phase": phase}))
                .await;
            let (namespace, name) = (shop.namespace.clone(), phase.to_lowercase());
            let is_over = |agent: &Agent| {
                agent.index().pod(&namespace, &name).is_some_and(|pod| pod.addresses.is_empty())
            };
            shop.agent.until("the pod is finished", is_over).await;
            assert!(shop.connect(&ip, port + 10).is_empty(), "{phase}: its next owner may come");
            shop.agent.lose_patience();
            assert_eq!(shop.agent.words(port + 10), ["Unknown(address-unjoined)"], "{phase}");
        }
    });
}

#[test]
fn a_terminating_pod_keeps_its_address_until_it_is_gone() {
    in_cluster(async |cluster| {
        let mut shop = shop(&cluster).await;
        let ip = cluster.ip(10);
        shop.pod(&cluster, "a", WEB, &ip).await;
        cluster.delete(&pods(), &shop.namespace, "a", 30).await;
        // The next pod's news come after those of the deletion.
        shop.pod(&cluster, "b", OTHER, &cluster.ip(11)).await;
        assert_eq!(shop.connect(&ip, 1), ["Allow"]);
        cluster.delete(&pods(), &shop.namespace, "a", 0).await;
        shop.agent.until_no_pod(&shop.namespace.clone(), "a").await;
        assert!(shop.connect(&ip, 2).is_empty());
        shop.agent.lose_patience();
        assert_eq!(shop.agent.words(2), ["Unknown(address-unjoined)"]);
    });
}

#[test]
fn a_pod_in_its_nodes_network_is_the_node_whatever_its_labels() {
    in_cluster(async |cluster| {
        let mut shop = shop(&cluster).await;
        let ip = cluster.ip(2);
        let node = cluster.node("n2", &ip, None).await;
        // Before the node is known, nothing has the address: it is inside the first node's range.
        let spec = PodSpec {
            name: "host",
            labels: WEB,
            addresses: &[&ip],
            node: &node,
            host_network: true,
            ..PodSpec::default()
        };
        cluster.pod(&shop.namespace, &spec).await;
        shop.agent.until_pod(&shop.namespace.clone(), "host", &ip).await;
        assert_eq!(shop.connect(&ip, 1), ["Deny"], "a node is no pod with a label");
        assert_eq!(shop.agent.edges(1)[0].initiator.kind, "Node");
    });
}

#[test]
fn both_addresses_of_a_pod_are_its() {
    in_cluster(async |cluster| {
        let mut shop = shop(&cluster).await;
        let (v4, v6) = (cluster.ip(10), cluster.ip6(10));
        let spec = PodSpec { name: "a", labels: WEB, addresses: &[&v4, &v6], ..PodSpec::default() };
        cluster.pod(&shop.namespace, &PodSpec { node: &format!("{}-n1", cluster.prefix), ..spec }).await;
        shop.agent.until_pod(&shop.namespace.clone(), "a", &v6).await;
        assert_eq!(shop.connect(&v4, 1), ["Allow"]);
        let db6 = cluster.ip6(20);
        cluster.run(&shop.namespace, "db", &[&shop.db.clone(), &db6]).await;
        shop.agent.until_pod(&shop.namespace.clone(), "db", &db6).await;
        let seen = shop.agent.seen(shop.interface, &v6, &db6, 2);
        shop.agent.observe(seen);
        assert_eq!(shop.agent.words(2), ["Allow"]);
        let stranger = shop.agent.seen(shop.interface, &cluster.ip6(99), &db6, 3);
        shop.agent.observe(stranger);
        assert_eq!(shop.agent.words(3), ["Deny"], "an address that is nobody's is outside");
    });
}

#[test]
fn a_job_that_was_gone_before_it_was_read_is_still_who_it_was() {
    in_cluster(async |cluster| {
        let mut shop = shop(&cluster).await;
        let ip = cluster.ip(10);
        let node = format!("{}-n1", cluster.prefix);
        let spec = PodSpec {
            name: "run",
            labels: WEB,
            node: &node,
            owner: Some(("Job", "report-29123456")),
            ..PodSpec::default()
        };
        cluster.pod(&shop.namespace, &spec).await;
        // Its first packet precedes its address; everything about it comes in one moment.
        let first = shop.agent.seen(shop.interface, &ip, &shop.db.clone(), 1);
        cluster.run(&shop.namespace, "run", &[&ip]).await;
        shop.agent.until_pod(&shop.namespace.clone(), "run", &ip).await;
        let last = shop.agent.seen(shop.interface, &ip, &shop.db.clone(), 2);
        cluster.patch_status(&pods(), &shop.namespace, "run", json!({"phase": "Succeeded"})).await;
        cluster.delete(&pods(), &shop.namespace, "run", 0).await;
        shop.agent.until_no_pod(&shop.namespace.clone(), "run").await;
        for (seen, port) in [(first, 1), (last, 2)] {
            shop.agent.observe(seen);
            assert_eq!(shop.agent.words(port), ["Allow"], "{port}");
            let edge = &shop.agent.edges(port)[0];
            assert_eq!(edge.initiator.workload.as_deref(), Some("report"));
            assert_eq!(edge.initiator.workload_type.as_deref(), Some("CronJob"));
        }
    });
}

#[test]
fn labels_changed_on_a_running_pod_count_from_then_on() {
    in_cluster(async |cluster| {
        let mut shop = shop(&cluster).await;
        let ip = cluster.ip(10);
        shop.pod(&cluster, "a", WEB, &ip).await;
        assert_eq!(shop.connect(&ip, 1), ["Allow"]);
        cluster.patch(&pods(), &shop.namespace, "a", json!({"metadata": {"labels": {"app": "other"}}})).await;
        let namespace = shop.namespace.clone();
        let is_changed = |agent: &Agent| {
            agent
                .index()
                .pod(&namespace, "a")
                .is_some_and(|pod| pod.identity.labels.get("app") == Some("other"))
        };
        shop.agent.until("the label is changed", is_changed).await;
        assert_eq!(shop.connect(&ip, 2), ["Deny"]);
        assert_eq!(shop.agent.words(1), ["Allow"], "what was recorded keeps the labels of then");
    });
}

#[test]
fn a_namespace_that_is_relabelled_changes_what_its_pods_may_from_then_on() {
    in_cluster(async |cluster| {
        let mut shop = shop(&cluster).await;
        let ip = cluster.ip(10);
        shop.pod(&cluster, "a", WEB, &ip).await;
        assert_eq!(shop.connect(&ip, 1), ["Allow"]);
        let namespaces = resource("", "v1", "Namespace", "namespaces");
        let namespace = shop.namespace.clone();
        cluster.patch(&namespaces, "", &namespace, json!({"metadata": {"labels": {"tier": "back"}}})).await;
        let is_changed = |agent: &Agent| {
            let pod = agent.index().pod(&namespace, "a");
            pod.is_some_and(|pod| pod.identity.namespace_labels.get("tier") == Some("back"))
        };
        shop.agent.until("the namespace is relabelled", is_changed).await;
        assert_eq!(shop.connect(&ip, 2), ["Deny"]);
        assert_eq!(shop.agent.words(1), ["Allow"]);
    });
}

#[test]
fn a_policy_that_changes_under_traffic_judges_the_recorded_edges_again_and_no_counter() {
    in_cluster(async |cluster| {
        let mut shop = shop(&cluster).await;
        let ip = cluster.ip(10);
        shop.pod(&cluster, "a", OTHER, &ip).await;
        assert_eq!(shop.connect(&ip, 1), ["Deny"]);
        cluster.patch(&policies(), &shop.namespace, "only-web", json!({"spec": {"ingress": [{}]}})).await;
        let before = shop.agent.index().policy_generation();
        shop.agent.until("the policy changed", |agent| agent.index().policy_generation() > before).await;
        assert_eq!(shop.connect(&ip, 2), ["Allow"]);
        assert_eq!(shop.agent.words(1), ["Allow"], "the identity of then, the policies of now");
        cluster.delete(&policies(), &shop.namespace, "only-web", 0).await;
        let before = shop.agent.index().policy_generation();
        shop.agent.until("the policy is gone", |agent| agent.index().policy_generation() > before).await;
        assert_eq!(shop.connect(&ip, 3), ["Allow"]);
        assert_eq!(
            shop.agent.counted.0[&1],
            [Verdict::Deny],
            "counters keep what was true when they counted"
        );
    });
}

#[test]
fn a_service_is_judged_by_the_backends_that_it_has() {
    in_cluster(async |cluster| {
        let mut shop = shop(&cluster).await;
        let (namespace, service) = (shop.namespace.clone(), cluster.ip(200));
        let (client, good, bad) = (cluster.ip(10), cluster.ip(11), cluster.ip(12));
        shop.pod(&cluster, "client", OTHER, &client).await;
        shop.pod(&cluster, "good", &[("app", "good")], &good).await;
        shop.pod(&cluster, "bad", &[("app", "bad")], &bad).await;
        cluster
            .policy(
                &namespace,
                "egress",
                json!({
                    "podSelector": {"matchLabels": {"app": "other"}}, "policyTypes": ["Egress"],
                    "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "good"}}}]}],
                }),
            )
            .await;
        // An address of our own: which ones a ClusterIP may have is the server's to say.
        let ports = json!([{"name": "db", "port": 5432, "protocol": "TCP"}]);
        cluster
            .create(
                &services(),
                &namespace,
                json!({"metadata": {"name": "svc"}, "spec": {"ports": ports, "externalIPs": [service]}}),
            )
            .await;
        let slice = |addresses: &[&str]| {
            let endpoints: Vec<Value> = addresses
                .iter()
                .map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}}))
                .collect();
            json!({
                "metadata": {"name": "svc-1", "labels": {"kubernetes.io/service-name": "svc"}},
                "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
            })
        };
        cluster.create(&resource_of_slices(), &namespace, slice(&[&good])).await;
        let interface = shop.agent.interface(&[&client]);
        let leads_to = |count: usize, first: String| {
            let service = service.clone();
            move |agent: &Agent| {
                use dryfence::model::edge::Protocol;
                use dryfence::model::endpoint::Endpoint;
                let now = dryfence::model::time::Timestamp::now();
                let party = agent.index().party_at(service.parse().unwrap(), 5432, Protocol::Tcp, None, now);
                let Endpoint::Service(target) = &party.endpoint else { return false };
                let has_first =
                    target.backends.iter().any(|backend| backend.party.address == first.parse().ok());
                target.backends.len() == count && has_first
            }
        };
        for (backends, verdict) in [
            (vec![&*good], "Allow"),
            (vec![&*bad], "Deny"),
            (vec![&*bad, &*good], "Unknown(backends-differ)"),
        ] {
            cluster
                .patch(
                    &resource_of_slices(),
                    &namespace,
                    "svc-1",
                    json!({"endpoints": slice(&backends)["endpoints"]}),
                )
                .await;
            shop.agent.until("the slice is known", leads_to(backends.len(), backends[0].to_owned())).await;
            let seen = shop.agent.opened(interface, &client, &service, 5432);
            shop.agent.observe(seen);
            assert_eq!(shop.agent.words(5432).last().map(String::as_str), Some(verdict), "{backends:?}");
        }
    });
}
