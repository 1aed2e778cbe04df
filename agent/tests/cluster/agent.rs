//! What an agent does with a cluster, without its kernel side: the source, the index, the judge and the ledger. What
//! the kernel would have counted, the test says.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dryfence::audit::auditor::{Auditor, Judged, Recorder, Settings};
use dryfence::cluster::index::Index;
use dryfence::cluster::kubernetes::{self, Batch, ClusterArgs, Followed, WatchReading, Watches};
use dryfence::model::dialect::Dialect;
use dryfence::model::edge::{
    Counters, Direction, EdgeKey, IfIndex, Observation, OrientedBy, Protocol, Scope,
};
use dryfence::model::record::EdgeRecord;
use dryfence::model::scenario::Scenario;
use dryfence::model::time::Timestamp;
use dryfence::model::verdict::Verdict;
use kube::Config;
use tokio::sync::mpsc;

use super::cluster::{Cluster, PATIENCE};

/// What was counted, by port: what counters in Prometheus are made of.
#[derive(Debug, Default)]
pub(crate) struct Counted(pub(crate) BTreeMap<u16, Vec<Verdict>>);

impl Recorder for Counted {
    fn judged(&mut self, judged: Judged<'_>) {
        let verdict = judged.answers.judgements[0].of(judged.edge.direction).verdict;
        self.0.entry(judged.edge.port).or_default().push(verdict);
    }
}

pub(crate) struct Agent {
    pub(crate) auditor: Auditor,
    pub(crate) counted: Counted,
    pub(crate) watches: Watches,
    pub(crate) warnings: Vec<String>,
    batches: mpsc::Receiver<Batch>,
    questions: Option<mpsc::Sender<Vec<IpAddr>>>,
    interfaces: u32,
}

/// What an edge's ingress is judged to be, in words: `Allow`, `Deny`, `Unknown(not-synced)`.
pub(crate) fn word(edge: &EdgeRecord) -> String {
    let judgement = &edge.verdicts["enforced"];
    let decision = match edge.direction {
        Direction::Egress => &judgement.egress,
        Direction::Ingress => &judgement.ingress,
    };
    match (&decision.verdict, &decision.unknown) {
        (Verdict::Unknown, Some(reason)) => format!("Unknown({reason})"),
        (verdict, _) => verdict.to_string(),
    }
}

impl Agent {
    /// Follows the cluster as its administrator.
    pub(crate) async fn start(cluster: &Cluster) -> Self {
        Self::with(cluster.admin_config().await, None)
    }

    /// Follows it as somebody with this token.
    pub(crate) async fn with_token(cluster: &Cluster, token: &str) -> Self {
        let args = ClusterArgs { kubeconfig: Some(cluster.kubeconfig(token)), ..ClusterArgs::default() };
        Self::with(args.kubeconfig().await.unwrap(), None)
    }

    /// Follows the pods of one node, and asks for others.
    pub(crate) async fn of_node(cluster: &Cluster, node: &str) -> Self {
        Self::with(cluster.admin_config().await, Some(node))
    }

    pub(crate) fn with(config: Config, node: Option<&str>) -> Self {
        let watches = Watches::default();
        let client = kubernetes::client(config, &watches).unwrap();
        let node: Option<Arc<str>> = node.map(Arc::from);
        let rediscover = Duration::from_millis(300);
        let settings = kubernetes::Settings { node: node.clone(), rediscover, only: node.clone() };
        let settings_of_auditor = Settings {
            node,
            dialect: Dialect::STANDARD,
            scenarios: vec![Scenario::Enforced],
            most_edges: 1000,
        };
        let mut index = Index::default();
        if settings.only.is_some() {
            index.ask_for_peers();
        }
        let mut auditor = Auditor::new(settings_of_auditor, index);
        let mut counted = Counted::default();
        let Followed { batches, questions } = kubernetes::follow(&client, &watches, settings);
        auditor.change(Vec::new(), watches.gaps(), Timestamp::now(), &mut counted);
        Self { auditor, counted, batches, questions, watches, warnings: Vec::new(), interfaces: 0 }
    }

    /// Takes news until the condition holds.
    pub(crate) async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let end = tokio::time::Instant::now() + PATIENCE;
        while !condition(self) {
            match tokio::time::timeout_at(end, self.batches.recv()).await {
                Ok(Some(batch)) => self.take(batch),
                Ok(None) => panic!("{what}: the source ended"),
                Err(_late) => panic!("{what}: not in time; {:?}", self.watches.readings()),
            }
        }
    }

    fn take(&mut self, batch: Batch) {
        let Batch { changes, gaps, warnings } = batch;
        self.warnings = warnings;
        self.auditor.change(changes, gaps, Timestamp::now(), &mut self.counted);
        while self.auditor.tick(Timestamp::now(), &mut self.counted) {}
    }

    pub(crate) async fn until_synced(&mut self) {
        self.until("everything is read", |agent| agent.index().gaps().missing.is_empty()).await;
    }

    pub(crate) async fn until_pod(&mut self, namespace: &str, name: &str, ip: &str) {
        let ip: IpAddr = ip.parse().unwrap();
        self.until(&format!("pod {name} has {ip}"), |agent| {
            agent.index().pod(namespace, name).is_some_and(|pod| pod.addresses.contains(&ip))
        })
        .await;
    }

    pub(crate) async fn until_no_pod(&mut self, namespace: &str, name: &str) {
        self.until(&format!("no pod {name}"), |agent| agent.index().pod(namespace, name).is_none()).await;
    }

    pub(crate) fn index(&self) -> &Index {
        self.auditor.index()
    }

    pub(crate) fn reading(&self, kind: &str) -> WatchReading {
        self.watches.readings().into_iter().find(|reading| reading.kind == kind).unwrap()
    }

    /// An interface that the node's routes of these addresses point at.
    pub(crate) fn interface(&mut self, addresses: &[&str]) -> IfIndex {
        self.interfaces += 1;
        let (index, now) = (IfIndex(self.interfaces), Timestamp::now());
        self.auditor.interface(
            index,
            now,
            addresses.iter().map(|address| address.parse().unwrap()).collect(),
            now,
        );
        index
    }

    /// A connection that was accepted now, as the responder's interface shows it.
    pub(crate) fn seen(&self, interface: IfIndex, from: &str, to: &str, port: u16) -> Observation {
        let now = Timestamp::now();
        let key = EdgeKey {
            interface,
            direction: Direction::Ingress,
            initiator: from.parse().unwrap(),
            responder: to.parse().unwrap(),
            port,
            protocol: Protocol::Tcp,
            scope: Scope::Address,
        };
        Observation {
            key,
            delta: Counters { attempts: 1, accepted: 1, ..Counters::default() },
            first_seen: now,
            last_seen: now,
            read_from: now,
            read_at: now,
            oriented_by: OrientedBy::Handshake,
            fully_visible: true,
            vlan: 0,
            estimated: false,
        }
    }

    /// The same, as the initiator's interface shows it.
    pub(crate) fn opened(&self, interface: IfIndex, from: &str, to: &str, port: u16) -> Observation {
        let seen = self.seen(interface, from, to, port);
        Observation { key: EdgeKey { direction: Direction::Egress, ..seen.key }, ..seen }
    }

    /// Has an observation judged as read now.
    pub(crate) fn observe(&mut self, seen: Observation) {
        self.auditor.observe(&[seen], Timestamp::now(), &mut self.counted);
    }

    /// Asks for the addresses that edges wait for.
    pub(crate) async fn ask(&self) {
        let awaited = self.auditor.awaited(Timestamp::now());
        self.questions.as_ref().unwrap().send(awaited).await.unwrap();
    }

    /// Lets as much time pass as edges wait for an end to become known. No clock is waited for.
    pub(crate) fn lose_patience(&mut self) {
        let later = Timestamp::now().plus(Duration::from_secs(31));
        while self.auditor.tick(later, &mut self.counted) {}
    }

    /// The edges to a port, in the order in which they became known.
    pub(crate) fn edges(&mut self, port: u16) -> Vec<EdgeRecord> {
        self.auditor.records().into_iter().filter(|edge| edge.port == port).collect()
    }

    /// The verdicts of the edges to a port.
    pub(crate) fn words(&mut self, port: u16) -> Vec<String> {
        self.edges(port).iter().map(word).collect()
    }
}
