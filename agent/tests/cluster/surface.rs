//! The API where it can be reached from outside, and commands that ask all agents of a cluster.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use axum::middleware;
use dryfence::history::file::Header;
use dryfence::model::record::{EdgeList, WindowRecord};
use dryfence::model::time::Timestamp;
use dryfence::serve::access::{self, Access, ApiServer as Reviews, Reviewer};
use dryfence::serve::api::{self, AgentStatus, Edges, Query, Recorded, Unavailable};
use dryfence::serve::listen::Bound;
use dryfence::serve::ready::Gates;
use dryfence::serve::tls;
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::{Value, json};

use super::agent::Agent;
use super::cluster::{Cluster, PodSpec, in_cluster, resource};
use super::skip;

fn rbac(kind: &str, plural: &str) -> kube::core::ApiResource {
    resource("rbac.authorization.k8s.io", "v1", kind, plural)
}

/// A ServiceAccount with these rules, in the cluster or only in its namespace.
async fn account(cluster: &Cluster, namespace: &str, name: &str, rules: Value, everywhere: bool) {
    let accounts = resource("", "v1", "ServiceAccount", "serviceaccounts");
    cluster.create(&accounts, namespace, json!({"metadata": {"name": name}})).await;
    let (kind, role, binding, of) = if everywhere {
        (
            "ClusterRole",
            rbac("ClusterRole", "clusterroles"),
            rbac("ClusterRoleBinding", "clusterrolebindings"),
            "",
        )
    } else {
        ("Role", rbac("Role", "roles"), rbac("RoleBinding", "rolebindings"), namespace)
    };
    let full = format!("{}-{name}", cluster.prefix);
    cluster.create(&role, of, json!({"metadata": {"name": full}, "rules": rules})).await;
    let subject = json!({"kind": "ServiceAccount", "name": name, "namespace": namespace});
    let bound = json!({
        "metadata": {"name": full}, "subjects": [subject],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": full},
    });
    cluster.create(&binding, of, bound).await;
}

async fn token(cluster: &Cluster, namespace: &str, name: &str, audience: Option<&str>) -> String {
    let accounts: kube::Api<ServiceAccount> = kube::Api::namespaced(cluster.admin.clone(), namespace);
    let audiences = audience.map(|audience| vec![audience.to_owned()]);
    let spec = TokenRequestSpec { audiences, expiration_seconds: Some(600), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let made = accounts.create_token_request(name, &Default::default(), &request).await.unwrap();
    made.status.unwrap().token.unwrap()
}

/// What lets somebody read the agents' answers.
fn may_read() -> Value {
    let (verb, group, resource) = access::PERMISSION;
    json!([{"apiGroups": [group], "resources": [resource], "verbs": [verb]}])
}

#[test]
fn a_token_reads_only_if_it_is_for_agents_and_its_account_may() {
    in_cluster(async |cluster| {
        let namespace = cluster.namespace("agents", &[]).await;
        account(&cluster, &namespace, "reader", may_read(), true).await;
        let nothing = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
        account(&cluster, &namespace, "stranger", nothing, true).await;
        let reviews = Reviews::new(cluster.admin.clone());
        let bound = token(&cluster, &namespace, "reader", Some(access::AUDIENCE)).await;
        assert_eq!(reviews.review(&bound).await, Access::Allowed);
        assert_eq!(reviews.review(&bound).await, Access::Allowed, "as it was remembered");
        let other = token(&cluster, &namespace, "reader", None).await;
        assert_eq!(reviews.review(&other).await, Access::Unknown, "a token for the API server itself");
        assert_eq!(reviews.review("made-up").await, Access::Unknown);
        let rightless = token(&cluster, &namespace, "stranger", Some(access::AUDIENCE)).await;
        let user = format!("system:serviceaccount:{namespace}:stranger");
        assert_eq!(reviews.review(&rightless).await, Access::Forbidden { user });
    });
}

/// An agent that recorded one connection.
struct Served {
    list: Arc<EdgeList>,
    recorded: Recorded,
}

impl Edges for Served {
    fn edges(&self, _: &Query) -> BoxFuture<'_, Result<Arc<EdgeList>, Unavailable>> {
        Box::pin(async { Ok(Arc::clone(&self.list)) })
    }

    fn recorded(&self) -> BoxFuture<'_, Result<Recorded, Unavailable>> {
        Box::pin(async { Ok(self.recorded.clone()) })
    }

    fn status(&self) -> BoxFuture<'_, Result<AgentStatus, Unavailable>> {
        let EdgeList { window, dialect, scenarios, warnings, segment_maps, exception_findings, edges } =
            &*self.list;
        let status = AgentStatus {
            window: window.clone(),
            dialect: dialect.clone(),
            scenarios: scenarios.clone(),
            policies: Vec::new(),
            segment_maps: segment_maps.clone(),
            exception_findings: exception_findings.clone(),
            warnings: warnings.clone(),
            edges: edges.len() as u64,
        };
        Box::pin(async { Ok(status) })
    }
}

/// One connection to `port`, as an agent of this cluster has it.
async fn recorded(cluster: &Cluster, port: u16) -> Served {
    let namespace = cluster.namespace(&format!("shop{port}"), &[]).await;
    let (web, db) = (cluster.ip(10), cluster.ip(20));
    for (name, ip) in [("web", &web), ("db", &db)] {
        cluster.pod(&namespace, &PodSpec { name, addresses: &[ip], ..PodSpec::default() }).await;
    }
    let mut agent = Agent::start(cluster).await;
    agent.until_synced().await;
    agent.until_pod(&namespace, "db", &db).await;
    let interface = agent.interface(&[&db]);
    let seen = agent.seen(interface, &web, &db, port);
    agent.observe(seen);
    cluster.delete(&super::cluster::pods(), &namespace, "web", 0).await;
    cluster.delete(&super::cluster::pods(), &namespace, "db", 0).await;
    let (start, end) = (seen.first_seen, Timestamp::now());
    let window = WindowRecord { start, end, losses: Vec::new(), unobserved: Vec::new() };
    let list = EdgeList {
        window,
        dialect: "standard".to_owned(),
        scenarios: vec![dryfence::model::record::ScenarioRecord {
            name: "enforced".to_owned(),
            description: "the policies in force".to_owned(),
        }],
        warnings: Vec::new(),
        segment_maps: Vec::new(),
        exception_findings: Vec::new(),
        edges: agent.auditor.records(),
    };
    let header = Header {
        node: Some(format!("n{port}")),
        dialect: "standard".to_owned(),
        start,
        end,
        ..Header::default()
    };
    let edges = agent.auditor.ledger().entries().map(|entry| entry.edge.clone()).collect();
    Served { list: Arc::new(list), recorded: Recorded { header, edges } }
}

/// Serves as an agent does, and makes its pod.
async fn serve(cluster: &Cluster, namespace: &str, node: &str, ip: &str, served: Served) {
    let reviewer: Arc<dyn Reviewer> = Arc::new(Reviews::new(cluster.admin.clone()));
    let router = api::router(Arc::new(served), Gates::default());
    let router = router.layer(middleware::from_fn_with_state(reviewer, access::check));
    let address: SocketAddr = format!("{ip}:0").parse().unwrap();
    let acceptor = tls::acceptor(None, vec!["localhost".to_owned()]).unwrap();
    let bound = Bound::tls(address, acceptor).await.unwrap();
    let port = bound.local_addr().unwrap().port();
    tokio::spawn(bound.serve(router, std::future::pending()));
    pod(cluster, namespace, node, ip, port).await;
}

async fn pod(cluster: &Cluster, namespace: &str, node: &str, ip: &str, port: u16) {
    let name = format!("dryfence-{node}");
    let pod = json!({
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "dryfence"}},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "agent", "image": "registry.example/none", "ports": [{"name": "api", "containerPort": port}]}],
        },
    });
    cluster.create(&super::cluster::pods(), namespace, pod).await;
    cluster.run(namespace, &name, &[ip]).await;
}

/// Runs the program under a name, as a plugin of kubectl is run.
fn run(program: &Path, kubeconfig: Option<&Path>, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(args).env_remove("DRYFENCE_AGENT").env("HOME", "/nonexistent");
    match kubeconfig {
        Some(path) => command.env("KUBECONFIG", path),
        None => command.env_remove("KUBECONFIG"),
    };
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn commands_ask_every_agent_merge_and_name_who_does_not_answer() {
    in_cluster(async |cluster| {
        if cluster.server().is_none() {
            return skip("agents that the API server reaches");
        }
        let namespace = cluster.namespace("agents", &[]).await;
        account(&cluster, &namespace, "dryfence-reader", may_read(), true).await;
        let person = json!([
            {"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": ["dryfence-reader"], "verbs": ["create"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
            {"apiGroups": [""], "resources": ["pods/proxy"], "verbs": ["get"]},
            {"apiGroups": ["apps"], "resources": ["daemonsets"], "verbs": ["get", "list"]},
        ]);
        account(&cluster, &namespace, "person", person, false).await;
        for (node, ip, port) in
            [("n1", "127.0.0.2", 1001), ("n2", "127.0.0.3", 1002), ("n3", "127.0.0.4", 1003)]
        {
            let served = recorded(&cluster, port).await;
            serve(&cluster, &namespace, node, ip, served).await;
        }
        // One that nobody serves at, and a node without a pod.
        pod(&cluster, &namespace, "n4", "127.0.0.5", 9).await;
        let sets = resource("apps", "v1", "DaemonSet", "daemonsets");
        let labels = json!({"app.kubernetes.io/name": "dryfence"});
        cluster
            .create(
                &sets,
                &namespace,
                json!({"metadata": {"name": "dryfence", "labels": labels}, "spec": {}}),
            )
            .await;
        cluster.patch_status(&sets, &namespace, "dryfence", json!({"desiredNumberScheduled": 5})).await;

        let kubeconfig = cluster.kubeconfig(&token(&cluster, &namespace, "person", None).await);
        let program = Path::new(env!("CARGO_BIN_EXE_dryfence"));
        let folder = tempfile::tempdir().unwrap();
        let plugin = folder.path().join("kubectl-dryfence");
        symlink(program, &plugin).unwrap();
        let path = kubeconfig.to_str().unwrap().to_owned();
        let done = tokio::task::spawn_blocking(move || {
            let named = ["--agent-namespace", &namespace, "--kubeconfig", &path];
            let flows = run(program, None, &[&["flows", "-o", "json"], &named[..]].concat());
            let table =
                run(&plugin, Some(Path::new(&path)), &["flows", "-A", "--agent-namespace", &namespace]);
            let status = run(program, None, &[&["status"], &named[..]].concat());
            let report = run(program, None, &[&["report", "-o", "json"], &named[..]].concat());
            let suggest = run(program, None, &[&["suggest", "-o", "json"], &named[..]].concat());
            [flows, table, status, report, suggest]
        });
        let [flows, table, status, report, suggest] = done.await.unwrap();

        assert!(flows.status.success(), "{}", text(&flows.stderr));
        let list: Value = serde_json::from_slice(&flows.stdout).unwrap();
        let ports: Vec<u64> =
            list["edges"].as_array().unwrap().iter().map(|edge| edge["port"].as_u64().unwrap()).collect();
        assert_eq!(ports.len(), 3, "{list}");
        assert!([1001, 1002, 1003].iter().all(|port| ports.contains(port)), "{ports:?}");
        let warnings = list["warnings"].to_string();
        for part in ["3 of 5 nodes answered", "node n4 did not answer", "1 node more"] {
            assert!(warnings.contains(part), "{part}: {warnings}");
            assert!(
                text(&report.stdout).contains(part),
                "{part}: {}{}",
                text(&report.stdout),
                text(&report.stderr)
            );
            assert!(
                text(&suggest.stdout).contains(part),
                "{part}: {}{}",
                text(&suggest.stdout),
                text(&suggest.stderr)
            );
        }
        assert!(table.status.success(), "{}", text(&table.stderr));
        assert!(text(&table.stdout).contains("1003"), "{}", text(&table.stdout));
        assert!(text(&table.stderr).contains("3 of 5 nodes answered"), "{}", text(&table.stderr));
        assert_eq!(status.status.code(), Some(1), "not every agent answers");
        assert_eq!(text(&status.stdout).lines().count(), 4, "{}", text(&status.stdout));
        assert!(text(&status.stderr).contains("node n4 did not answer"), "{}", text(&status.stderr));
    });
}

#[test]
fn who_may_not_read_is_told_what_is_missing() {
    in_cluster(async |cluster| {
        if cluster.server().is_none() {
            return skip("agents that the API server reaches");
        }
        let namespace = cluster.namespace("agents", &[]).await;
        // The reader's own token is what lacks the right here: the agent says so.
        let nothing = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
        account(&cluster, &namespace, "dryfence-reader", nothing, true).await;
        let served = recorded(&cluster, 1001).await;
        serve(&cluster, &namespace, "n1", "127.0.0.2", served).await;
        let pods = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]);
        account(&cluster, &namespace, "person", pods, false).await;
        let (person, admin) = (
            cluster.kubeconfig(&token(&cluster, &namespace, "person", None).await),
            cluster.kubeconfig(crate::api_server::ADMIN),
        );
        let program = Path::new(env!("CARGO_BIN_EXE_dryfence"));
        let done = tokio::task::spawn_blocking(move || {
            let as_who = |path: &Path| {
                let args = ["flows", "--agent-namespace", &namespace, "--kubeconfig", path.to_str().unwrap()];
                text(&run(program, None, &args).stderr)
            };
            let elsewhere =
                ["flows", "--agent-namespace", "default", "--kubeconfig", admin.to_str().unwrap()];
            (as_who(&person), as_who(&admin), text(&run(program, None, &elsewhere).stderr))
        });
        let (person, admin, elsewhere) = done.await.unwrap();
        assert!(person.contains("serviceaccounts/token") && person.contains("403"), "{person}");
        assert!(
            admin.contains("0 of 1 node answered") && admin.contains("may not get flows of dryfence.io"),
            "{admin}"
        );
        assert!(elsewhere.contains("there is no agent"), "{elsewhere}");
    });
}
