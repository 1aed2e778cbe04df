//! Which agents a command asks: those that are named, or all of a cluster.

use std::ffi::OsStr;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::recording::Objects;
use super::report::{DEFAULT_AGENT, input};
use crate::cluster::kubernetes::{self, ClusterArgs, ConnectError, Watches, client};
use crate::history::file::{self, Gap, ReadError, Recording, Source};
use crate::model::record::EdgeList;
use crate::serve::address::Address;
use crate::serve::client::{Client, RECORDED};
use crate::serve::fleet::{Answers, Fleet, Where};

/// The cluster whose agents are asked.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub(super) struct FleetArgs {
    #[command(flatten)]
    pub(super) cluster: ClusterArgs,
    /// Namespace of the agents
    #[arg(long, env = "DRYFENCE_AGENT_NAMESPACE", value_name = "NAMESPACE", default_value = "dryfence")]
    agent_namespace: String,
    /// Labels of the agents' pods
    #[arg(long, value_name = "SELECTOR", default_value = "app.kubernetes.io/name=dryfence")]
    agent_selector: String,
    /// ServiceAccount whose tokens the agents let read
    #[arg(long, value_name = "NAME", default_value = "dryfence-reader")]
    agent_reader: String,
}

impl FleetArgs {
    /// Whether a cluster is to be asked: one is named, or kubectl runs this.
    pub(super) fn is_given(&self) -> bool {
        is_given(&self.cluster)
    }

    /// What the API server holds.
    ///
    /// # Errors
    /// If the kubeconfig cannot be used.
    pub(super) fn objects(&self) -> anyhow::Result<Objects> {
        objects(&self.cluster)
    }

    fn at(&self) -> Where {
        Where {
            namespace: self.agent_namespace.clone(),
            selector: self.agent_selector.clone(),
            reader: self.agent_reader.clone(),
        }
    }
}

/// Whether a cluster is to be asked: one is named, or kubectl runs this.
pub(super) fn is_given(cluster: &ClusterArgs) -> bool {
    cluster.is_given() || std::env::args_os().next().is_some_and(|name| is_plugin(&name))
}

/// What the API server of a kubeconfig holds.
///
/// # Errors
/// If the kubeconfig cannot be used.
pub(super) fn objects(cluster: &ClusterArgs) -> anyhow::Result<Objects> {
    let held = runtime()?.block_on(async {
        let config = cluster.kubeconfig().await?;
        Ok::<_, ConnectError>(kubernetes::read(&client(config, &Watches::default())?).await)
    })?;
    Ok(Objects { objects: held.objects, warnings: held.warnings })
}

/// Whether this is the name of a plugin of kubectl: `kubectl-dryfence`.
fn is_plugin(name: &OsStr) -> bool {
    Path::new(name).file_name().is_some_and(|name| name.to_string_lossy().starts_with("kubectl-"))
}

/// The agents to ask.
#[derive(Debug, Clone)]
pub(super) enum Agents {
    Named(Vec<Address>),
    Cluster(FleetArgs),
}

impl Agents {
    /// Those that are named; else those of the cluster, if one is; else, where `default` says so, this node's.
    ///
    /// # Errors
    /// If both are named.
    pub(super) fn new(named: &[Address], fleet: &FleetArgs, default: bool) -> anyhow::Result<Self> {
        ensure!(
            named.is_empty() || !fleet.cluster.is_given(),
            "--agent names agents, and --kubeconfig, --context or --as a cluster whose agents are all asked: name one of both"
        );
        if named.is_empty() && fleet.is_given() {
            return Ok(Self::Cluster(fleet.clone()));
        }
        if named.is_empty() && default {
            return Ok(Self::Named(vec![DEFAULT_AGENT.parse().context("the default agent address")?]));
        }
        Ok(Self::Named(named.to_vec()))
    }

    /// Those that are named besides files; those of the cluster, if one is named, or where there are no files and
    /// kubectl runs this.
    ///
    /// # Errors
    /// If both are named.
    pub(super) fn besides(flows: &[PathBuf], named: &[Address], fleet: &FleetArgs) -> anyhow::Result<Self> {
        if !flows.is_empty() && !fleet.cluster.is_given() {
            return Ok(Self::Named(named.to_vec()));
        }
        Self::new(named, fleet, false)
    }

    /// Whether anybody is to be asked.
    pub(super) fn are_any(&self) -> bool {
        match self {
            Self::Named(addresses) => !addresses.is_empty(),
            Self::Cluster(_) => true,
        }
    }

    /// The judged edges of all of them. Of a cluster, what could not be had is among the warnings.
    pub(super) fn edges(&self, timeout: Duration) -> anyhow::Result<input::Input> {
        let fleet = match self {
            Self::Named(addresses) => return Ok(input::agents(addresses, timeout)?),
            Self::Cluster(fleet) => fleet,
        };
        let answers = ask(fleet, "/api/v1/edges", timeout)?.and_then(|bytes| parse::<EdgeList>(&bytes));
        ensure!(!answers.answered.is_empty(), "{}: {}", answers.summary(), answers.gaps().join("; "));
        let heard = heard(&answers);
        let lists = answers.answered.into_iter();
        let inputs =
            lists.map(|(node, list)| (format!("node {node}"), input::Input { list, window_known: true }));
        let mut all = input::merge(inputs.collect())?;
        all.list.warnings.splice(0..0, heard);
        Ok(all)
    }

    /// What all of them recorded, as files with their names; and what could not be had.
    pub(super) fn recordings(&self, timeout: Duration) -> anyhow::Result<Recorded> {
        let mut recorded = Recorded::default();
        match self {
            Self::Named(addresses) => {
                for address in addresses {
                    let name = PathBuf::from(format!("agent {address}"));
                    recorded.files.push((name, of_agent(address, timeout)?));
                }
            }
            Self::Cluster(fleet) => {
                let answers = ask(fleet, RECORDED, timeout)?;
                let answers = answers.and_then(|bytes| readable(&bytes).map(|()| bytes));
                ensure!(!answers.answered.is_empty(), "{}: {}", answers.summary(), answers.gaps().join("; "));
                recorded.heard = heard(&answers);
                recorded.gaps = answers.gaps();
                let files = answers.answered.into_iter();
                recorded.files = files.map(|(node, bytes)| (format!("node {node}").into(), bytes)).collect();
            }
        }
        Ok(recorded)
    }
}

/// Recordings of several agents.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    pub(super) files: Vec<(PathBuf, Bytes)>,
    /// How many answered, and who did not; empty where agents were named.
    heard: Vec<String>,
    gaps: Vec<String>,
}

impl Recorded {
    /// Says in a recording what is not in it.
    pub(super) fn tell(&self, recording: &mut Recording) {
        let header = &mut recording.header;
        let (from, to) = (header.start, header.end);
        header.gaps.extend(self.gaps.iter().map(|reason| Gap { from, to, reason: reason.clone() }));
        header.warnings.splice(0..0, self.heard.iter().cloned());
    }
}

/// What to say of the answers: how many there were, and who is missing.
fn heard<T>(answers: &Answers<T>) -> Vec<String> {
    std::iter::once(answers.summary()).chain(answers.gaps()).collect()
}

/// What an agent recorded, as the bytes of a file.
fn of_agent(address: &Address, timeout: Duration) -> anyhow::Result<Bytes> {
    Ok(runtime()?.block_on(Client::new(address.clone(), timeout).recording())?)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("the runtime that asks agents cannot be started")
}

/// Asks all agents of a cluster.
pub(super) fn ask(fleet: &FleetArgs, path: &str, timeout: Duration) -> anyhow::Result<Answers<Bytes>> {
    runtime()?.block_on(async {
        let config = fleet.cluster.kubeconfig().await?;
        let client = client(config, &Watches::default())?;
        let agents = Fleet::find(client, &fleet.at(), timeout).await?;
        let progress = io::stderr().is_terminal();
        let answers = agents.ask(path, |done, all| say_progress(progress, done, all)).await;
        say_progress(progress, 0, 0);
        Ok(answers)
    })
}

/// Says how far it is, in one line that is written over; `0 of 0` takes it away.
fn say_progress(progress: bool, done: usize, all: usize) {
    if !progress {
        return;
    }
    let text = if all == 0 { String::new() } else { format!("{done} of {all} agents asked") };
    // Where standard error is closed, nobody misses it.
    write!(io::stderr(), "\r{text}\x1b[K").ok();
}

/// Parses an agent's answer, and says where it is not what was asked for.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut json);
    parsed.map_err(|error| format!("the answer is not what was asked for: {error}"))
}

/// Whether bytes are a recording as a whole: one that is not must not take the others with it.
fn readable(bytes: &[u8]) -> Result<(), String> {
    let one = [Ok::<_, ReadError>(Source::new("the recording", bytes))];
    file::read(one).map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        fleet: FleetArgs,
    }

    #[test]
    fn agents_are_named_or_a_clusters_or_this_nodes() {
        let fleet = |args: &[&str]| Command::parse_from(["dryfence"].iter().chain(args)).fleet;
        let named = ["127.0.0.1:9478".parse().unwrap()];
        assert!(matches!(Agents::new(&named, &fleet(&[]), true).unwrap(), Agents::Named(a) if a == named));
        assert!(matches!(Agents::new(&[], &fleet(&[]), true).unwrap(), Agents::Named(a) if a.len() == 1));
        assert!(matches!(Agents::new(&[], &fleet(&[]), false).unwrap(), Agents::Named(a) if a.is_empty()));
        let cluster = fleet(&["--context", "prod"]);
        assert!(matches!(Agents::new(&[], &cluster, true).unwrap(), Agents::Cluster(_)));
        let error = Agents::new(&named, &cluster, true).unwrap_err().to_string();
        assert!(error.contains("name one of both"), "{error}");
    }

    #[test]
    fn kubectl_runs_it_by_its_name() {
        assert!(is_plugin(OsStr::new("/usr/local/bin/kubectl-dryfence")));
        assert!(!is_plugin(OsStr::new("/usr/local/bin/dryfence")));
    }
}
