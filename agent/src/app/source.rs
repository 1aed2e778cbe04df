//! The source of the cluster's objects: manifest files, read at the start and again when they change.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::cluster::Object;
use crate::cluster::manifests::{self, Loaded, Severity};
use crate::serve::metrics::PolicyState;

/// The cluster as a source tells it.
pub(super) struct News {
    pub(super) objects: Vec<Object>,
    /// What is wrong with the objects, one sentence each.
    pub(super) warnings: Vec<String>,
    /// How many policies are in which state, by kind.
    pub(super) policies: Vec<(String, PolicyState, u64)>,
}

/// Reads the files, and goes on to do so when they change. The first news is already in the channel.
pub(super) fn follow(paths: Vec<PathBuf>, namespace: Option<String>) -> Result<mpsc::Receiver<News>> {
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
        let mut counts: BTreeMap<(String, PolicyState), u64> = BTreeMap::new();
        for object in &loaded.objects {
            let (reference, good) = match object {
                // The API server would refuse it as a whole; from files, what it says besides still counts.
                Object::Policy(policy) => (policy.reference(), policy.faults().is_empty()),
                Object::SegmentMap(map) => (map.reference(), map.in_force()),
                _ => continue,
            };
            let state = if good { PolicyState::InForce } else { PolicyState::Refused };
            *counts.entry((reference.kind.to_string(), state)).or_default() += 1;
        }
        Self {
            warnings: loaded.findings.iter().map(ToString::to_string).collect(),
            policies: counts.into_iter().map(|((kind, state), count)| (kind, state, count)).collect(),
            objects: loaded.objects,
        }
    }
}
