//! The agent as a process of its own, with an API server for the source: real traffic between pods in network
//! namespaces, judged by what the server holds.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

#[expect(dead_code, reason = "shared with the tests of the source; each uses its part")]
#[path = "../testing/api_server.rs"]
mod api_server;
#[expect(dead_code, reason = "shared with other tests of capture; each uses its part")]
#[path = "bpf_veth/netns.rs"]
mod netns;
#[path = "../testing/tls.rs"]
mod tls;
#[expect(dead_code, reason = "as above")]
#[path = "bpf_veth/traffic.rs"]
mod traffic;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use api_server::ApiServer;
use netns::{Pod, in_own_namespace};
use rtnetlink::{Handle, LinkUnspec};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use traffic::{ask_udp, serve_udp};

const PORT: u16 = 5353;
const METRICS: &str = "127.0.0.1:9477";
const API: &str = "127.0.0.1:9478";

/// The agent while it runs. Killed when it is dropped.
struct Agent(Child);

impl Agent {
    fn start(kubeconfig: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dryfence"));
        command.env_clear().args(["agent", "--node-name", "n1", "--listen", METRICS]);
        command.args(["--api", &format!("https://{API}"), "--kubeconfig"]).arg(kubeconfig);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        drop(self.0.wait());
    }
}

/// Status and body of an answer.
async fn get<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, path: &str, token: &str) -> (u16, String) {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-Dryfence-Token: {token}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    // Whether the other side takes leave of TLS does not matter.
    drop(stream.read_to_end(&mut bytes).await);
    let text = String::from_utf8(bytes).unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    (status, text.split_once("\r\n\r\n").unwrap().1.to_owned())
}

async fn health(path: &str) -> Option<(u16, String)> {
    Some(get(TcpStream::connect(METRICS).await.ok()?, path, "").await)
}

async fn api(path: &str, token: &str) -> (u16, String) {
    let stream = tls::connect(TcpStream::connect(API).await.unwrap(), "127.0.0.1").await.unwrap();
    get(stream, path, token).await
}

/// Waits until something holds.
async fn until(mut condition: impl AsyncFnMut() -> bool) {
    while !condition().await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn pod(name: &str, pod: &Pod) -> Value {
    let ip = pod.v4.to_string();
    json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
    })
}

async fn loopback(host: &Handle) {
    host.link().change(LinkUnspec::new_with_index(1).up().build()).execute().await.unwrap();
}

/// A reader's token for the agents, as a command gets it.
fn reader(server: &ApiServer) -> String {
    server.put_raw(
        "rbac.authorization.k8s.io/clusterroles",
        json!({
            "metadata": {"name": "reader"},
            "rules": [{"apiGroups": ["dryfence.io"], "resources": ["flows"], "verbs": ["get"]}],
        }),
    );
    server.put_raw(
        "rbac.authorization.k8s.io/clusterrolebindings",
        json!({
            "metadata": {"name": "reader"}, "roleRef": {"kind": "ClusterRole", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}],
        }),
    );
    server.token("default", "reader", "dryfence")
}

/// The verdicts at the responder's pod, by edges of JSON.
async fn verdicts(token: &str) -> Vec<String> {
    let (status, body) = api("/api/v1/edges?direction=ingress&port=5353&scenario=enforced", token).await;
    assert_eq!(status, 200, "{body}");
    // A body in chunks: what is asked for is found in it all the same.
    body.match_indices("\"verdicts\":")
        .filter_map(|(at, _)| {
            let ingress = body.get(at..)?.split_once("\"ingress\":")?.1;
            let verdict = ingress.split_once("\"verdict\":\"")?.1;
            Some(verdict.split('"').next()?.to_owned())
        })
        .collect()
}

#[test]
fn traffic_is_judged_by_the_api_servers_objects_through_an_outage_and_read_by_whom_it_lets() {
    in_own_namespace(|host| async move {
        loopback(&host).await;
        let (client, server) = (Pod::new(&host, 10).await, Pod::new(&host, 20).await);
        let target = SocketAddr::new(server.v4, PORT);
        server.namespace.run(move || serve_udp(target)).await;
        let mut cluster = ApiServer::start();
        cluster.put_raw("/nodes", json!({"metadata": {"name": "n1"}, "status": {"addresses": []}}));
        cluster.put_raw("/pods", pod("client", &client));
        cluster.put_raw("/pods", pod("server", &server));
        let token = reader(&cluster);
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("config");
        std::fs::write(&kubeconfig, cluster.kubeconfig(api_server::ADMIN)).unwrap();

        let mut agent = Agent::start(&kubeconfig);
        until(async || health("/readyz").await.is_some_and(|(status, _)| status == 200)).await;
        let (_, metrics) = health("/metrics").await.unwrap();
        for kind in ["Pod", "Namespace", "Node", "Service", "EndpointSlice", "NetworkPolicy"] {
            assert!(
                metrics.contains(&format!("dryfence_watch_synced{{kind=\"{kind}\"}} 1")),
                "{kind}: {metrics}"
            );
        }
        assert!(metrics.contains("dryfence_watch_objects{kind=\"Pod\"} 2"), "{metrics}");

        client.namespace.run(move || ask_udp(target, 3)).await;
        until(async || verdicts(&token).await == ["Allow"]).await;
        for (token, status) in [("", 401), ("made-up", 401), (api_server::ADMIN, 401)] {
            assert_eq!(api("/api/v1/edges", token).await.0, status, "\"{token}\"");
        }
        cluster.put_raw(
            "networking.k8s.io/networkpolicies",
            json!({
                "metadata": {"name": "nobody", "namespace": "default"},
                "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]},
            }),
        );
        until(async || verdicts(&token).await == ["Deny"]).await;

        cluster.kill();
        until(async || {
            let (_, metrics) = health("/metrics").await.unwrap();
            !metrics.contains("dryfence_watch_restarts_total{kind=\"Pod\"} 0")
        })
        .await;
        assert_eq!(health("/readyz").await.unwrap().0, 200, "what was read is followed again by itself");
        client.namespace.run(move || ask_udp(target, 3)).await;
        cluster.revive();
        until(async || {
            let (status, body) =
                api("/api/v1/edges?direction=ingress&port=5353&scenario=enforced", &token).await;
            status == 200 && body.contains("\"packets_to_responder\":6")
        })
        .await;
        assert_eq!(verdicts(&token).await, ["Deny"]);
        assert_eq!(agent.0.try_wait().unwrap(), None, "it never restarted");
    });
}
