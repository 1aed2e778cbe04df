//! An agent without its servers: capture, connection tracking, the host's addresses and the auditor, asked by the
//! test.

use std::fs;

use dryfence::audit::auditor::{Auditor, Judged, Recorder, Settings};
use dryfence::capture::conntrack::Conntrack;
use dryfence::capture::host::{self, Addresses};
use dryfence::capture::{self, Capture, Event};
use dryfence::cluster::index::Index;
use dryfence::cluster::manifests;
use dryfence::model::dialect::Dialect;
use dryfence::model::edge::Direction;
use dryfence::model::record::{EdgeRecord, PartyRecord};
use dryfence::model::scenario::Scenario;
use dryfence::model::time::Timestamp;
use tokio::sync::{mpsc, watch};

/// The interface of a pod of this number is left alone: it is a host outside.
pub(crate) const OUTSIDE: u8 = 99;
/// Likewise, another node.
pub(crate) const OTHER_NODE: u8 = 98;

pub(crate) struct Watch {
    pub(crate) auditor: Auditor,
    pub(crate) conntrack: Option<Conntrack>,
    capture: Capture,
    events: mpsc::Receiver<Event>,
    host: watch::Receiver<Addresses>,
}

impl Watch {
    /// Watches a cluster that these manifests describe, as its node n1.
    pub(crate) async fn start(manifests: &str, dialect: &str) -> Self {
        let settings = capture::Settings {
            exclude: vec![
                format!("vpod{OUTSIDE}").parse().unwrap(),
                format!("vpod{OTHER_NODE}").parse().unwrap(),
            ],
            read_interval: std::time::Duration::from_secs(3600),
            ..capture::Settings::default()
        };
        let dialect: Dialect = dialect.parse().unwrap();
        let scenarios = vec![Scenario::Enforced];
        let auditing = Settings { node: Some("n1".into()), dialect, scenarios, most_edges: 1000 };
        let mut index = Index::default();
        index.set_own_node(Some("n1".into()));
        let conntrack = Some(Conntrack::open().unwrap());
        let host = host::follow().await.unwrap();
        let (capture, events) = Capture::start(settings).await.unwrap();
        let mut watch = Self { auditor: Auditor::new(auditing, index), conntrack, capture, events, host };
        watch.take_addresses();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cluster.yaml"), manifests).unwrap();
        let loaded = manifests::load(&[folder.path().to_owned()], None);
        assert!(
            loaded.findings.iter().all(|f| f.severity != manifests::Severity::Error),
            "{:?}",
            loaded.findings
        );
        watch.auditor.reset(loaded.objects, Timestamp::now(), &mut Nothing);
        watch
    }

    fn take_addresses(&mut self) {
        self.auditor.host_addresses(&self.host.borrow_and_update(), Timestamp::now());
    }

    /// Waits until the host's addresses changed, and takes them after what was counted until then.
    pub(crate) async fn addresses_changed(&mut self) {
        self.host.changed().await.unwrap();
        self.read().await;
        self.take_addresses();
    }

    /// Reads the counters, and judges.
    pub(crate) async fn read(&mut self) {
        self.capture.read().await;
        while let Ok(event) = self.events.try_recv() {
            let now = Timestamp::now();
            match event {
                Event::Interface(interface) => {
                    self.auditor.interface(interface.index, interface.since, interface.routed, now);
                }
                // The way to the host outside: what crosses it is not a pod's.
                Event::Unwatched { .. } => {}
                Event::InterfaceGone { index, .. } => self.auditor.interface_gone(index),
                Event::Read { observations, .. } => {
                    let told = self.conntrack.as_mut().map(Conntrack::take);
                    self.auditor.translated(told.as_ref(), now);
                    self.auditor.observe(&observations, now, &mut Nothing);
                    self.auditor.end_reading(now, &mut Nothing);
                }
            }
        }
        assert_eq!(self.capture.losses(), []);
    }

    /// The edges in a direction, sorted: `initiator → responder port/protocol attempts/accepted egress ingress`,
    /// a verdict that is unknown with its reason.
    pub(crate) fn edges(&mut self, direction: Direction) -> Vec<String> {
        let records = self.auditor.records();
        let mut lines: Vec<String> =
            records.iter().filter(|record| record.direction == direction).map(line).collect();
        lines.sort();
        lines
    }
}

fn line(record: &EdgeRecord) -> String {
    let EdgeRecord { initiator, responder, port, protocol, counters, verdicts, .. } = record;
    let verdict = |direction| {
        let decision = verdicts["enforced"].of(direction);
        decision.unknown.clone().unwrap_or_else(|| decision.verdict.to_string())
    };
    format!(
        "{} → {} {port}/{protocol} {}/{} {} {}",
        name(initiator),
        name(responder),
        counters.attempts,
        counters.accepted,
        verdict(Direction::Egress),
        verdict(Direction::Ingress)
    )
}

fn name(party: &PartyRecord) -> String {
    let address = || party.address.unwrap().to_string();
    match (&*party.kind, &party.name, &party.reason) {
        ("Pod", Some(name), _) => name.clone(),
        (kind, Some(name), _) => format!("{kind}/{name}"),
        (_, _, Some(reason)) => reason.clone(),
        _ => address(),
    }
}

struct Nothing;

impl Recorder for Nothing {
    fn judged(&mut self, _: Judged<'_>) {}
}
