//! What commands judge again: recorded edges, and the cluster that manifests describe.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::fleet::{Agents, FleetArgs};
use crate::cluster::Object;
use crate::cluster::manifests::{self, Loaded};
use crate::history::file::{self, ReadError, Recording, Source};
use crate::model::dialect::Dialect;
use crate::policy::Policy;

/// How agents are asked.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct AskArgs {
    /// How many seconds an agent may take to answer
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    request_timeout: u64,
    #[command(flatten)]
    fleet: FleetArgs,
}

impl AskArgs {
    pub(super) const fn timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout)
    }

    /// The cluster whose agents are asked, if one is named.
    pub(super) const fn fleet(&self) -> &FleetArgs {
        &self.fleet
    }
}

/// Objects, and what their reader has to say about them.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) objects: Vec<Object>,
    pub(super) warnings: Vec<String>,
}

/// What was recorded, from files and agents together.
///
/// # Errors
/// If a file or a named agent cannot be read; then nothing of the others is used. Of a cluster's agents those that
/// answer are used, and the recording says who did not.
pub(super) fn read(flows: &[PathBuf], agents: &Agents, timeout: Duration) -> anyhow::Result<Recording> {
    ensure!(
        !flows.is_empty() || agents.are_any(),
        "there is nothing recorded to read: name files with --flows, agents with --agent, or a cluster with --kubeconfig or --context"
    );
    let answers = agents.recordings(timeout)?;
    let files = flows.iter().map(|path| Source::open(path));
    let agents = answers.files.iter().map(|(name, bytes)| Ok::<_, ReadError>(Source::new(name, &**bytes)));
    let mut recording = file::read(files.chain(agents))?;
    answers.tell(&mut recording);
    Ok(recording)
}

/// The cluster as it is, by manifests, or where there are none by the API server that is named. What is wrong in it is
/// a warning: what depends on it is unknown.
///
/// # Errors
/// If a path does not exist, or the kubeconfig cannot be used.
pub(super) fn cluster_or(paths: &[PathBuf], ask: &AskArgs, called: &str) -> anyhow::Result<Objects> {
    if paths.is_empty() && ask.fleet.is_given() { ask.fleet.objects() } else { cluster(paths, called) }
}

/// The cluster as manifests describe it. What is wrong in it is a warning: what depends on it is unknown.
///
/// # Errors
/// If a path does not exist.
pub(super) fn cluster(paths: &[PathBuf], called: &str) -> anyhow::Result<Objects> {
    for path in paths {
        ensure!(path.exists(), "--manifests {}: there is no such file or folder", path.display());
    }
    let loaded = manifests::load(paths, None);
    Ok(Objects { warnings: warnings(&loaded, called), objects: loaded.objects })
}

/// The policies among these objects.
pub(super) fn policies(objects: &[Object]) -> Vec<Arc<Policy>> {
    let policy = |object: &Object| match object {
        Object::Policy(policy) => Some(Arc::clone(policy)),
        _ => None,
    };
    objects.iter().filter_map(policy).collect()
}

/// What was found wrong in manifests, and what was left out of them.
pub(super) fn warnings(loaded: &Loaded, called: &str) -> Vec<String> {
    let mut warnings: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
    for (kind, count) in &loaded.skipped {
        warnings.push(format!("{count} of kind {kind} in the {called} left out"));
    }
    warnings
}

/// The dialect to judge by: the one that was asked for, else that of the recording.
///
/// # Errors
/// If the recordings name several, or one that does not exist.
pub(super) fn dialect(asked: Option<Dialect>, recorded: &BTreeSet<String>) -> anyhow::Result<Dialect> {
    let mut names = recorded.iter();
    match (asked, names.next(), names.next()) {
        (Some(dialect), ..) => Ok(dialect),
        (None, None, _) => Ok(Dialect::default()),
        (None, Some(name), None) => name.parse().context("the recording's dialect; name one with --dialect"),
        (None, Some(_), Some(_)) => {
            let names: Vec<&str> = recorded.iter().map(String::as_str).collect();
            anyhow::bail!(
                "the recordings are of different dialects ({}): name one with --dialect",
                names.join("; ")
            )
        }
    }
}
