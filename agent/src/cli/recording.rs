//! What commands judge again: recorded edges, and the cluster that manifests describe.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::cluster::Object;
use crate::cluster::manifests::{self, Loaded};
use crate::history::file::{self, ReadError, Recording, Source};
use crate::model::dialect::Dialect;
use crate::policy::Policy;
use crate::serve::address::Address;
use crate::serve::client::Client;

/// How agents are asked.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct AskArgs {
    /// How many seconds an agent may take to answer
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    request_timeout: u64,
}

impl AskArgs {
    pub(super) const fn timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout)
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
/// If a file or an agent cannot be read; then nothing of the others is used.
pub(super) fn read(flows: &[PathBuf], agents: &[Address], timeout: Duration) -> anyhow::Result<Recording> {
    let mut answers = Vec::new();
    for address in agents {
        answers.push((PathBuf::from(format!("agent {address}")), of_agent(address, timeout)?));
    }
    let files = flows.iter().map(|path| Source::open(path));
    let agents = answers.iter().map(|(name, bytes)| Ok::<_, ReadError>(Source::new(name, &**bytes)));
    Ok(file::read(files.chain(agents))?)
}

/// What an agent recorded, as the bytes of a file.
fn of_agent(address: &Address, timeout: Duration) -> anyhow::Result<bytes::Bytes> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime that asks agents cannot be started")?;
    Ok(runtime.block_on(Client::new(address.clone(), timeout).recording())?)
}

/// The cluster as it is. What is wrong in it is a warning: what depends on it is unknown.
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
