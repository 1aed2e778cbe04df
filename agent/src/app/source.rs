//! The source of the cluster's objects: an API server, or manifest files that are read again when they change.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::cli::agent::{Scope, SourceArgs};
use crate::cluster::Object;
use crate::cluster::index::Index;
use crate::cluster::kubernetes::{self, Batch, Followed, WatchReading, Watches};
use crate::cluster::manifests::{self, Loaded, Severity};
use crate::serve::metrics::{PolicyState, Watch};
use crate::serve::ready::{Condition, Gates};

/// The cluster as a source tells it.
pub(super) enum News {
    /// All of it, from files.
    Whole {
        objects: Vec<Object>,
        /// What is wrong with the objects, one sentence each.
        warnings: Vec<String>,
    },
    /// What became known since, from an API server.
    Changed(Batch),
}

/// News, and how the watches stand where there are any.
pub(super) struct Source {
    pub(super) news: mpsc::Receiver<News>,
    pub(super) watches: Option<Watches>,
    /// Takes addresses to ask for, where only one node's pods are watched.
    pub(super) questions: Option<mpsc::Sender<Vec<IpAddr>>>,
}

/// The API server, if it is the source.
pub(super) struct Connection {
    pub(super) client: kube::Client,
    pub(super) watches: Watches,
}

/// Makes the client of the API server, where it is the source; nothing is asked yet.
pub(super) async fn connect(args: &SourceArgs) -> Result<Option<Connection>> {
    if !args.manifests.is_empty() {
        return Ok(None);
    }
    let watches = Watches::default();
    let config = args.cluster.config().await?;
    info!(server = %config.cluster_url, "the API server is the source of the cluster's objects");
    let client = kubernetes::client(config, &watches)?;
    Ok(Some(Connection { client, watches }))
}

/// Begins to follow the source that the settings name. Of files, the first news is already in the channel.
pub(super) fn follow(args: &SourceArgs, connection: Option<Connection>, gates: &Gates) -> Result<Source> {
    let Some(connection) = connection else {
        let news = follow_files(args.manifests.clone(), args.namespace.clone())?;
        return Ok(Source { news, watches: None, questions: None });
    };
    let Connection { client, watches } = connection;
    let node: Option<Arc<str>> = args.node_name.as_deref().map(Arc::from);
    let only = node.clone().filter(|_| args.scope == Scope::Node);
    let settings = kubernetes::Settings { node, only, ..Default::default() };
    let Followed { mut batches, questions } = kubernetes::follow(&client, &watches, settings);
    let asked = watches.clone();
    gates.ask(move || asked.readings().into_iter().map(condition).collect());
    let (sender, news) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(batch) = batches.recv().await {
            if sender.send(News::Changed(batch)).await.is_err() {
                return;
            }
        }
    });
    Ok(Source { news, watches: Some(watches), questions })
}

/// A kind that was read once is ready: while news are missed, readiness would say of every agent at once what the
/// API server's own alerts say.
fn condition(reading: WatchReading) -> Condition {
    let problem = reading.problem().filter(|_| !reading.synced);
    Condition { name: format!("watch {}", reading.kind), problem }
}

/// How the watches stand, for metrics.
pub(super) fn readings(watches: Option<&Watches>, is_synced: bool) -> Vec<Watch> {
    let Some(watches) = watches else {
        let (age, restarts, objects, unreadable) = (None, 0, 0, 0);
        return vec![Watch { kind: "manifests", synced: is_synced, age, restarts, objects, unreadable }];
    };
    let watch = |reading: WatchReading| {
        let WatchReading { kind, synced, age, restarts, objects, unreadable, .. } = reading;
        Watch { kind, synced, age, restarts, objects, unreadable }
    };
    watches.readings().into_iter().map(watch).collect()
}

/// Reads the files, and goes on to do so when they change.
fn follow_files(paths: Vec<PathBuf>, namespace: Option<String>) -> Result<mpsc::Receiver<News>> {
    let (sender, receiver) = mpsc::channel(2);
    // Watched first, so that no change falls between reading and watching.
    let mut changes =
        manifests::watch(paths.clone(), namespace.clone()).context("the manifest files cannot be watched")?;
    let first = manifests::load(&paths, namespace.as_deref());
    tokio::spawn(async move {
        let mut next = Some(first);
        while let Some(loaded) = next {
            log_findings(&loaded);
            if sender.send(News::from(loaded)).await.is_err() {
                return;
            }
            next = changes.recv().await;
            if next.is_some() {
                info!("the manifest files changed");
            }
        }
    });
    Ok(receiver)
}

/// Findings of one reading are logged up to this number; the API has all of them.
const MOST_LOGGED: usize = 50;

fn log_findings(loaded: &Loaded) {
    for finding in loaded.findings.iter().take(MOST_LOGGED) {
        match finding.severity {
            Severity::Error => error!(%finding, "a manifest cannot be used as it is"),
            Severity::Warning => warn!(%finding, "a manifest may not mean what it says"),
        }
    }
    if let Some(more) = loaded.findings.len().checked_sub(MOST_LOGGED).filter(|more| *more > 0) {
        warn!(more, "more findings are not logged; /api/v1/status has all of them");
    }
    for (kind, count) in &loaded.skipped {
        info!(kind, count, "objects of a kind that nothing here judges by are skipped");
    }
}

impl From<Loaded> for News {
    fn from(loaded: Loaded) -> Self {
        let warnings = loaded.findings.iter().map(ToString::to_string).collect();
        Self::Whole { objects: loaded.objects, warnings }
    }
}

/// How many policies and segment maps are in which state, by kind.
pub(super) fn policy_counts(index: &Index) -> Vec<(String, PolicyState, u64)> {
    let mut counts: BTreeMap<(String, PolicyState), u64> = BTreeMap::new();
    let mut count = |kind: &str, is_good: bool| {
        let state = if is_good { PolicyState::InForce } else { PolicyState::Refused };
        *counts.entry((kind.to_owned(), state)).or_default() += 1;
    };
    for policy in index.policies().iter().filter(|policy| !policy.is_not_synced()) {
        // The API server would refuse it as a whole; what it says besides still counts.
        count(&policy.reference().kind, policy.faults().is_empty());
    }
    for map in index.segment_maps() {
        count(&map.reference().kind, map.in_force());
    }
    for candidate in index.candidates() {
        count(&candidate.reference().kind, candidate.edit().is_some());
    }
    let beyond = index.change_sets().beyond.len() as u64;
    if beyond > 0 {
        counts.insert(("ChangeSet".to_owned(), PolicyState::Unsupported), beyond);
    }
    counts.into_iter().map(|((kind, state), count)| (kind, state, count)).collect()
}
