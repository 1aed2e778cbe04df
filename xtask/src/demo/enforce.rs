//! `cargo xtask demo --enforce`: whether what is predicted is what happens once policies are enforced.
//!
//! A translator of its own ([`translate`]) makes packet filters of the policies; they are loaded on the node, every
//! connection of the demo is tried again, and what becomes of it is compared with what was predicted. The
//! translator reads the YAML itself and shares nothing with the agent, so that a mistake of one shows.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use serde::Deserialize;
use serde_json::Value;

use super::cluster::Cluster;
use super::expect::{self, Prediction};
use super::network::Network;
use super::plan::{End, Fate, Flow};
use super::pod::{Order, Outcome};
use super::process::{self, PodProcess};
use super::progress::Progress;

pub mod compare;
pub mod manifest;
pub mod nft;
pub mod translate;

use compare::{Row, Seen};
use manifest::Manifests;
use nft::Nft;
use translate::Counted;

/// Policies to enforce, and what was predicted for them.
#[derive(Debug)]
pub struct PolicySet {
    pub name: &'static str,
    /// What they are, for the reader.
    pub description: String,
    manifests: Manifests,
    predictions: Vec<Prediction>,
    /// Whether nothing that was accepted may be denied.
    keeps_accepted: bool,
}

impl PolicySet {
    /// The demo's own policies, and what the agent's edges say of them.
    ///
    /// # Errors
    /// Where the manifests or the edges cannot be read.
    fn enforced(folder: &Path, edges: &[Value]) -> Result<Self> {
        let manifests = Manifests::read(folder)?;
        let description = format!("the demo's own {} policies", manifests.policies.len());
        let predictions = judged(edges, "enforced")?;
        Ok(Self { name: "enforced", description, manifests, predictions, keeps_accepted: false })
    }

    /// Those, and default-deny in every namespace as the scenario of that name has it.
    ///
    /// # Errors
    /// Where the manifests or the edges cannot be read.
    fn default_deny(folder: &Path, edges: &[Value]) -> Result<Self> {
        let mut manifests = Manifests::read(folder)?;
        manifests.deny_by_default()?;
        let description =
            "the same, and default-deny in every namespace but kube-system, with DNS allowed".to_owned();
        let predictions = judged(edges, "default-deny")?;
        Ok(Self { name: "default-deny", description, manifests, predictions, keeps_accepted: false })
    }

    /// Nothing but what was suggested for the recorded edges, and default-deny.
    ///
    /// # Errors
    /// Where the manifests or the suggested policies cannot be read.
    fn suggested(folder: &Path, suggested: &Suggested) -> Result<Self> {
        let mut manifests = Manifests::read(folder)?;
        manifests.policies.clear();
        manifests.add_yaml(&suggested.policies).context("the suggested policies")?;
        let count = manifests.policies.len();
        manifests.deny_by_default()?;
        let description = format!("instead, {count} policies suggested from the traffic, and default-deny");
        let predictions = suggested.predictions.clone();
        Ok(Self { name: "suggested", description, manifests, predictions, keeps_accepted: true })
    }
}

fn judged(edges: &[Value], scenario: &str) -> Result<Vec<Prediction>> {
    let edges = expect::read(edges).context("an edge of the agent's cannot be read")?;
    Ok(expect::predictions(&edges, scenario))
}

/// What suggests policies for edges, as [`Enforcer::new`] is given it, answers.
#[derive(Debug, Deserialize)]
struct Suggested {
    /// A YAML stream.
    policies: String,
    predictions: Vec<Prediction>,
}

/// What enforcing needs besides the demo.
#[derive(Debug)]
pub struct Enforcer {
    nft: Nft,
    suggest: PathBuf,
}

impl Enforcer {
    /// `suggest`: the binary of `examples/demo-suggest.rs`.
    ///
    /// # Errors
    /// Where the filters' command is missing and cannot be installed.
    pub fn new(suggest: PathBuf) -> Result<Self> {
        Ok(Self { nft: Nft::find_or_install()?, suggest })
    }

    /// Tries, without effect, whether the kernel can enforce.
    ///
    /// # Errors
    /// Where it cannot.
    pub fn check(&self, network: &Network) -> Result<()> {
        self.nft.check(&network.node)
    }

    /// Every set that is enforced, given the demo's manifests and what the agent said of the recorded edges.
    ///
    /// # Errors
    /// Where the manifests or the edges cannot be read, or nothing can be suggested for them.
    pub fn sets(&self, folder: &Path, node: &str, edges: &[Value]) -> Result<Vec<PolicySet>> {
        Ok(vec![
            PolicySet::enforced(folder, edges)?,
            PolicySet::default_deny(folder, edges)?,
            PolicySet::suggested(folder, &self.suggest(folder, node, edges)?)?,
        ])
    }

    fn suggest(&self, folder: &Path, node: &str, edges: &[Value]) -> Result<Suggested> {
        let input: String = edges.iter().map(|edge| format!("{edge}\n")).collect();
        let mut command = Command::new(&self.suggest);
        let output = process::feed(command.arg(folder).arg(node), &input)?;
        serde_json::from_slice(&output).context("the suggested policies cannot be read")
    }

    /// Enforces one set after the other on `stage` and prints both sides of each; returns every difference, a
    /// sentence each.
    ///
    /// # Errors
    /// Where a set cannot be enforced, or nothing can be printed.
    pub async fn run(
        &self,
        stage: &mut Stage<'_>,
        sets: &[PolicySet],
        progress: Progress,
        output: &mut impl Write,
    ) -> Result<Vec<String>> {
        let mut results = Vec::new();
        for set in sets {
            progress.step(format!("enforcing set {} and trying every connection again", set.name));
            let rows = stage.perform(&self.nft, set).await;
            results.push((set, rows.with_context(|| format!("cannot enforce {}", set.name))?));
        }
        // No bar may be in the way of what follows.
        drop(progress);
        let mut differences = Vec::new();
        for (set, rows) in &results {
            compare::print(output, set, rows)?;
            differences.extend(compare::differences(set, rows));
        }
        output.flush()?;
        Ok(differences)
    }
}

/// The demo's network and processes, ready to be tried once more.
pub struct Stage<'a> {
    pub network: &'a Network,
    pub cluster: &'a Cluster,
    pub actors: &'a mut [(End, PodProcess)],
}

impl Stage<'_> {
    /// Enforces one set, tries every connection, and takes the filters back; returns a row for each.
    ///
    /// # Errors
    /// Where the policies cannot be translated or loaded, or a process of the demo fails.
    async fn perform(&mut self, nft: &Nft, set: &PolicySet) -> Result<Vec<Row>> {
        let flows: Vec<&Flow> = expect::flows(self.network.ipv6()).collect();
        // A client cannot tell silence from a drop: the node counts what it sends on.
        let silent: Vec<_> = flows.iter().copied().filter(|flow| flow.fate == Fate::Unanswered).collect();
        let counted: Vec<_> = silent.iter().map(|flow| self.counted(flow)).collect::<Result<_>>()?;
        let ruleset = translate::ruleset(&set.manifests, &counted)?;
        nft.load(&self.network.node, &ruleset)?;
        let tried = self.try_all(&flows).await;
        let counts = nft.counts(&self.network.node, translate::SENT);
        nft.load(&self.network.node, &translate::removal())?;
        let (tried, counts) = (tried?, counts?);
        if counts.len() != silent.len() {
            bail!("nft lists {} counters instead of {}", counts.len(), silent.len());
        }
        let rows = flows.iter().zip(tried).map(|(flow, outcome)| {
            let at = silent.iter().position(|silent| std::ptr::eq(*silent, *flow));
            let sent = at.is_some_and(|at| counts[at] > 0);
            let predicted = expect::predicted(self.cluster, flow, &set.predictions);
            Row { flow: flow.to_string(), fate: flow.fate, predicted, seen: Seen::new(outcome, sent) }
        });
        Ok(rows.collect())
    }

    fn counted(&self, flow: &Flow) -> Result<Counted> {
        let address = |end: End| {
            end.address(self.cluster, flow.ipv6).with_context(|| format!("{flow}: {end} has no address"))
        };
        let protocol = flow.transport.as_str();
        Ok(Counted { from: address(flow.from)?, to: address(flow.to)?, port: flow.port, protocol })
    }

    /// Tries every connection once, all at the same time; outcomes in the order of the flows.
    async fn try_all(&mut self, flows: &[&Flow]) -> Result<Vec<Outcome>> {
        let cluster = self.cluster;
        let turns = self.actors.iter_mut().map(async |(end, actor)| {
            let own = flows.iter().enumerate().filter(|(_, flow)| flow.from == *end);
            let (places, orders): (Vec<_>, Vec<_>) =
                own.map(|(place, flow)| (place, super::order(flow, cluster))).unzip();
            let orders: Vec<_> = orders
                .into_iter()
                .map(|order| Ok(Order { count: 1, patience_ms: super::PATIENCE_MS, ..order? }))
                .collect::<Result<_>>()?;
            let outcomes = actor.obey_all(&orders).await?;
            Ok::<_, anyhow::Error>(places.into_iter().zip(outcomes).collect::<Vec<_>>())
        });
        let mut outcomes: Vec<_> = try_join_all(turns).await?.into_iter().flatten().collect();
        outcomes.sort_by_key(|(place, _)| *place);
        if outcomes.len() != flows.len() {
            bail!("{} of {} connections were tried", outcomes.len(), flows.len());
        }
        Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
    }
}
