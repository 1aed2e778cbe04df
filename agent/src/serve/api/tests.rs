use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::history::file::{Source, read};
use crate::history::fixture::{mk_header, mk_shop_edges};
use crate::model::cause::Cause;
use crate::model::record::{EdgeRecord, SegmentMapRecord};
use crate::serve::address::Address;
use crate::serve::client::{Client, ClientError};
use crate::serve::fixture::{mk_edge, mk_guides_cluster, mk_pod};
use crate::serve::health;
use crate::serve::listen::Bound;
use crate::serve::metrics::{Caps, Metrics, Readings};

/// Edges that do not change; `None`: an agent that is starting.
struct Fixed(Option<Arc<EdgeList>>);

impl Edges for Fixed {
    fn edges(&self, _: &Query) -> BoxFuture<'_, Result<Arc<EdgeList>, Unavailable>> {
        Box::pin(async { self.0.clone().ok_or(Unavailable) })
    }

    fn recorded(&self) -> BoxFuture<'_, Result<Recorded, Unavailable>> {
        Box::pin(async {
            self.0.as_ref().ok_or(Unavailable)?;
            // Enough for several pieces.
            let edges = (0..1000).flat_map(|_| mk_shop_edges()).collect();
            Ok(Recorded { header: mk_header(), edges })
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<AgentStatus, Unavailable>> {
        Box::pin(async {
            let list = self.0.as_ref().ok_or(Unavailable)?;
            Ok(AgentStatus {
                window: list.window.clone(),
                dialect: list.dialect.clone(),
                scenarios: list.scenarios.clone(),
                policies: vec![PolicyCount {
                    kind: "NetworkPolicy".into(),
                    state: "in_force".into(),
                    count: 12,
                }],
                segment_maps: list.segment_maps.clone(),
                exception_findings: list.exception_findings.clone(),
                warnings: list.warnings.clone(),
                edges: list.edges.len() as u64,
            })
        })
    }
}

/// A served API on a unix socket in a folder of its own, stopped and awaited at the end of each test.
struct Served {
    address: Address,
    stop: oneshot::Sender<()>,
    done: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Served {
    async fn new(list: Option<EdgeList>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = Address::Unix(folder.path().join("agent.sock"));
        let bound = Bound::api(&address).await.unwrap();
        let gates = Gates::default();
        gates.gate("cluster").open();
        gates.gate("capture");
        let (stop, stopped) = oneshot::channel();
        let router = router(Arc::new(Fixed(list.map(Arc::new))), gates);
        let serving = bound.serve(router, async {
            stopped.await.unwrap_or_default();
        });
        let done = tokio::spawn(async { serving.await.unwrap() });
        Self { address, stop, done, _folder: folder }
    }

    fn socket(&self) -> &Path {
        match &self.address {
            Address::Unix(path) => path,
            Address::Loopback(_) => unreachable!("made as a unix socket"),
        }
    }

    fn client(&self) -> Client {
        Client::new(self.address.clone(), Duration::from_secs(10))
    }

    async fn get(&self, path: &str, accept: &str) -> (StatusCode, String, String) {
        get(UnixStream::connect(self.socket()).await.unwrap(), path, accept).await
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        self.done.await.unwrap();
        let Address::Unix(path) = &self.address else { unreachable!("made as a unix socket") };
        assert!(!path.exists(), "the socket is removed on exit");
    }
}

/// Status, content type, body.
async fn get<S>(stream: S, path: &str, accept: &str) -> (StatusCode, String, String)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get(path).header("host", "a").header("accept", accept);
    let response = sender.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await.unwrap();
    let (status, kind) = (response.status(), response.headers()["content-type"].to_str().unwrap().to_owned());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    drop(sender);
    connection.await.unwrap().unwrap();
    (status, kind, String::from_utf8(body.to_vec()).unwrap())
}

fn ports(edges: &[EdgeRecord]) -> Vec<u16> {
    let mut ports: Vec<_> = edges.iter().map(|edge| edge.port).collect();
    ports.sort_unstable();
    ports
}

#[tokio::test]
async fn without_a_filter_every_edge_comes_as_it_is() {
    let list = mk_guides_cluster();
    let served = Served::new(Some(list.clone())).await;
    assert_eq!(served.client().edges("").await.unwrap(), list);
    served.end().await;
}

#[tokio::test]
async fn edges_are_filtered_by_every_parameter() {
    let served = Served::new(Some(mk_guides_cluster())).await;
    for (query, expected) in [
        ("verdict=deny&scenario=enforced", vec![80, 5432, 5432, 6333, 6333, 9000, 9090, 9090]),
        ("verdict=Deny&scenario=default-deny&direction=egress", vec![80, 443, 5432, 6333, 8080, 9000, 9090]),
        ("verdict=Unknown", vec![8443]),
        ("namespace=tools", vec![443]),
        ("namespace=tools,monitoring", vec![443, 9090, 9090]),
        ("namespace=data-layer&workload=sts/qdrant", vec![6333, 6333]),
        ("namespace=myapp-staging&workload=qdrant", vec![]),
        ("workload=data-layer/StatefulSet/qdrant", vec![6333, 6333]),
        ("workload=deploy/qdrant", vec![]),
        ("workload=my-web-client", vec![53, 5432, 5432]),
        ("namespace=myapp-staging&peer=sts/postgresql", vec![5432, 5432, 5432]),
        ("peer=external", vec![80, 443]),
        ("peer=169.254.169.254", vec![80]),
        ("cause=dns&cause=metrics", vec![53, 9090, 9090]),
        ("port=53&protocol=udp", vec![53]),
        ("port=53&protocol=tcp", vec![]),
        ("namespace=no-such", vec![]),
    ] {
        let edges = served.client().edges(query).await.unwrap().edges;
        assert_eq!(ports(&edges), expected, "{query}");
    }
    assert_eq!(served.client().edges("limit=3").await.unwrap().edges.len(), 3);
    let list = served.client().edges("scenario=enforced").await.unwrap();
    assert_eq!(list.scenarios.len(), 1);
    assert!(list.edges.iter().all(|edge| edge.verdicts.keys().eq(["enforced"])));
    served.end().await;
}

fn mk_map(name: &str) -> SegmentMapRecord {
    SegmentMapRecord {
        name: name.to_owned(),
        severity: "Warning".to_owned(),
        in_force: name != "other",
        reasons: if name == "other" { vec!["spec.segments: is empty".to_owned()] } else { Vec::new() },
        notes: Vec::new(),
    }
}

#[tokio::test]
async fn edges_are_filtered_by_the_segment_map_that_forbids_them() {
    let mut list = mk_guides_cluster();
    let (first, second) = (list.edges.remove(0), list.edges.remove(0));
    let mut allowed = first.clone().crossing("tiers", "web", "data", "no rule");
    allowed.segments[0].verdict = "Allow".to_owned();
    let (tiers, tenants) =
        (first.crossing("tiers", "web", "data", "no rule"), second.crossing("tenants", "a", "b", "no rule"));
    list.edges = vec![allowed, tiers.clone(), tenants.clone()];
    list.segment_maps = ["tiers", "tenants", "other"].map(mk_map).into();
    let served = Served::new(Some(list)).await;
    for (query, expected) in [
        ("violation=true", vec![&tiers, &tenants]),
        ("violation=tiers", vec![&tiers]),
        ("violation=tiers,tenants", vec![&tiers, &tenants]),
        ("violation=other", vec![]),
    ] {
        let edges = served.client().edges(query).await.unwrap().edges;
        assert_eq!(edges.iter().collect::<Vec<_>>(), expected, "{query}");
    }
    served.end().await;
}

#[tokio::test]
async fn unknown_parameters_and_values_are_named() {
    let served = Served::new(Some(mk_guides_cluster())).await;
    for (query, parameter, problem) in [
        ("verdct=Deny", "verdct", "is unknown; known are namespace, workload, peer, verdict,"),
        ("verdict=denied", "verdict", "\"denied\" is none of Allow, Deny, Unknown"),
        ("scenario=staged", "scenario", "\"staged\" is none of enforced, default-deny"),
        ("violation=tier", "violation", "\"tier\" is none of true"),
        ("direction=up", "direction", "\"up\" is none of egress, ingress"),
        ("cause=weather", "cause", "unknown variant `weather`, expected one of `dns`,"),
        ("port=70000", "port", "\"70000\" is not a port, 0 to 65535"),
        ("protocol=quic", "protocol", "\"quic\" is none of TCP, UDP, SCTP, ICMP, ICMPv6"),
        ("workload=a/b/c/d", "workload", "\"a/b/c/d\" is none of name, kind/name, namespace/kind/name"),
        ("workload=deploy/", "workload", "\"deploy/\" has an empty part"),
        ("namespace=", "namespace", "is empty"),
        ("format=yaml", "format", "\"yaml\" is none of json, jsonl"),
        ("limit=-1", "limit", "\"-1\" is not a number of edges"),
        ("%FF=%00", "\u{fffd}", "is unknown;"),
    ] {
        let (status, _, body) = served.get(&format!("/api/v1/edges?{query}"), "*/*").await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
        let answer: ErrorAnswer = serde_json::from_str(&body).unwrap();
        assert_eq!(answer.parameter.as_deref(), Some(parameter));
        assert!(
            answer.error.starts_with(&format!("query parameter \"{parameter}\": {problem}")),
            "{}",
            answer.error
        );
    }
    let refused = served.client().edges("port=x").await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused { status: StatusCode::BAD_REQUEST, .. }), "{refused}");
    assert_eq!(served.get("/api/v1/edgs", "*/*").await.0, StatusCode::NOT_FOUND);
    assert_eq!(served.get("/api/v1/status?a=b", "*/*").await.0, StatusCode::BAD_REQUEST);
    served.end().await;
}

#[tokio::test]
async fn json_lines_come_when_asked_for() {
    let served = Served::new(Some(mk_guides_cluster())).await;
    for (path, accept, lines) in [
        ("/api/v1/edges?cause=metrics", "application/x-ndjson", true),
        ("/api/v1/edges?cause=metrics&format=jsonl", "*/*", true),
        ("/api/v1/edges?cause=metrics&format=json", "application/x-ndjson", false),
    ] {
        let (status, kind, body) = served.get(path, accept).await;
        assert_eq!(status, StatusCode::OK);
        if lines {
            assert_eq!(kind, "application/x-ndjson");
            let edges: Vec<EdgeRecord> =
                body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(ports(&edges), [9090, 9090]);
        } else {
            assert_eq!(kind, "application/json");
            assert_eq!(ports(&serde_json::from_str::<EdgeList>(&body).unwrap().edges), [9090, 9090]);
        }
    }
    served.end().await;
}

#[tokio::test]
async fn a_big_ledger_streams_whole() {
    let mut list = mk_guides_cluster();
    let api = mk_pod("myapp-staging", "Deployment", "myapp-api", "192.0.2.11");
    list.edges = (0..5000).map(|port| mk_edge(&api, &api, port, Cause::SameNamespace, 1)).collect();
    let served = Served::new(Some(list.clone())).await;
    assert_eq!(served.client().edges("").await.unwrap(), list);
    let (_, _, body) = served.get("/api/v1/edges?format=jsonl", "*/*").await;
    assert_eq!(body.lines().count(), 5000);
    served.end().await;
}

#[tokio::test]
async fn what_was_recorded_comes_as_a_file_of_recorded_edges() {
    let served = Served::new(Some(mk_guides_cluster())).await;
    let bytes = served.client().recording().await.unwrap();
    assert!(bytes.len() > 128 * 1024, "several pieces: {}", bytes.len());
    let recording = read([Ok(Source::new("agent", &*bytes))]).unwrap();
    assert_eq!(recording.header, mk_header());
    let shop = mk_shop_edges();
    assert_eq!(recording.edges.len(), shop.len(), "the same edge again is the same edge");
    for (found, sent) in recording.edges.iter().zip(&shop) {
        assert_eq!(found.counters.attempts, sent.counters.attempts * 1000);
        assert_eq!((&found.first_seen, &found.last_seen), (&sent.first_seen, &sent.last_seen));
    }
    let cut = read([Ok(Source::new("agent", &bytes[..bytes.len() - 20]))]).unwrap_err().to_string();
    assert!(cut.contains("truncated"), "{cut}");
    assert_eq!(served.get("/api/v1/recorded?limit=1", "*/*").await.0, StatusCode::BAD_REQUEST);
    served.end().await;

    let starting = Served::new(None).await;
    let refused = starting.client().recording().await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused { status: StatusCode::SERVICE_UNAVAILABLE, .. }));
    starting.end().await;
}

#[tokio::test]
async fn status_says_what_is_ready_and_a_starting_agent_says_so() {
    let mut list = mk_guides_cluster();
    list.segment_maps = ["tiers", "other"].map(mk_map).into();
    let served = Served::new(Some(list.clone())).await;
    let status = served.client().status().await.unwrap();
    assert_eq!(status.agent.segment_maps, list.segment_maps);
    assert_eq!(status.ready, [("capture".to_owned(), false), ("cluster".to_owned(), true)].into());
    assert_eq!((status.agent.edges, status.agent.policies.len()), (14, 1));
    served.end().await;

    let starting = Served::new(None).await;
    let refused = starting.client().edges("").await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused { status: StatusCode::SERVICE_UNAVAILABLE, .. }));
    assert!(refused.to_string().ends_with("the agent is starting or stopping"), "{refused}");
    starting.end().await;
}

#[tokio::test]
async fn the_api_answers_on_a_loopback_address_too() {
    let bound = Bound::api(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = Address::Loopback(bound.local_addr().unwrap());
    let list = mk_guides_cluster();
    let router = router(Arc::new(Fixed(Some(Arc::new(list.clone())))), Gates::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let done = tokio::spawn(bound.serve(router, async {
        stopped.await.unwrap_or_default();
    }));
    let client = Client::new(address.clone(), Duration::from_secs(10));
    assert_eq!(client.edges("").await.unwrap(), list);
    stop.send(()).unwrap();
    done.await.unwrap().unwrap();
    let gone = client.edges("").await.unwrap_err();
    assert!(matches!(gone, ClientError::Connect { .. }), "{gone}");
    assert!(gone.to_string().starts_with(&format!("agent {address}: cannot connect")), "{gone}");
}

#[tokio::test]
async fn an_agent_that_does_not_answer_is_not_waited_for() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Loopback(silent.local_addr().unwrap());
    let late = Client::new(address, Duration::from_millis(200)).edges("").await.unwrap_err();
    assert!(matches!(late, ClientError::Late { .. }), "{late}");
}

#[tokio::test]
async fn health_names_what_is_not_ready() {
    let bound = Bound::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = bound.local_addr().unwrap();
    let gates = Gates::default();
    let (capture, cluster) = (gates.gate("capture"), gates.gate("cluster"));
    let metrics = Arc::new(Metrics::new(Caps::default(), Readings::default));
    let serving = tokio::spawn(bound.serve(health::router(metrics, gates), std::future::pending()));
    let ask = async |path| {
        let (status, kind, body) = get(TcpStream::connect(address).await.unwrap(), path, "*/*").await;
        (status.as_u16(), kind, body)
    };
    assert_eq!(ask("/livez").await.0, 200);
    let (status, _, body) = ask("/readyz").await;
    assert_eq!((status, body.as_str()), (503, "capture is not ready\ncluster is not ready\n"));
    capture.open();
    assert_eq!(ask("/readyz").await.2, "cluster is not ready\n");
    cluster.open();
    let (status, _, body) = ask("/readyz").await;
    assert_eq!((status, body.as_str()), (200, "ok\n"));
    let (status, kind, body) = ask("/metrics").await;
    assert_eq!(status, 200);
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(body.contains("dryfence_build_info{version=") && body.ends_with("# EOF\n"));
    serving.abort();
}
