//! `dryfence suggest`: the least policies that allow what was recorded.

mod folder;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;

use super::fleet::Agents;
use super::recording::{self, AskArgs};
use super::scenario::DirectionArg;
use super::terminal::{Color, print};
use crate::cluster::index::Index;
use crate::history::file::{Header, Recording};
use crate::model::dialect::Dialect;
use crate::model::edge::Direction;
use crate::model::endpoint::Pod;
use crate::model::scenario::Scenario;
use crate::model::time::Timestamp;
use crate::model::verdict::Verdict;
use crate::policy::{Judge, Policy};
use crate::serve::address::Address;
use crate::suggest::{Dns, Options, Suggestions, is_accepted, suggest};

/// Suggests the least policies that allow what was recorded, and checks that they deny none of it.
///
/// Allow rules come first and default-deny last; apply them in that order. Where a default-deny would break an
/// accepted connection that no rule can allow, it is left out, and said so.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Recorded edges, may be repeated: files of dryfence's own format, also .gz and .zst; - is standard input
    #[arg(long, value_name = "FILE", num_args = 1..)]
    flows: Vec<PathBuf>,
    /// Take what this agent recorded, may be repeated: unix:/path, /path, 127.0.0.1:9478
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    agent: Vec<Address>,
    /// The cluster as it is now: files and folders of manifests, so that selectors are checked against all of its pods
    #[arg(long, value_name = "PATH")]
    manifests: Vec<PathBuf>,
    /// Only policies for this namespace, may be repeated
    #[arg(short, long, value_name = "NAMESPACE", value_delimiter = ',', conflicts_with = "all_namespaces")]
    namespace: Vec<String>,
    /// Policies for every namespace but those of --exempt; this is the default
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Namespaces that get no policies
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',', default_value = "kube-system")]
    exempt: Vec<String>,
    /// The directions to isolate, to roll out one after the other
    #[arg(long, value_name = "DIRECTION", value_delimiter = ',', default_value = "egress,ingress")]
    direction: Vec<DirectionArg>,
    /// Where DNS is allowed: once for all pods of a namespace, or for each workload that was seen to ask
    #[arg(long, value_enum, default_value_t)]
    dns: DnsArg,
    /// Suggest no default-deny
    #[arg(long)]
    no_default_deny: bool,
    /// Namespaces that get a default-deny although accepted connections would break, or nothing was seen there
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',')]
    deny_also: Vec<String>,
    /// Cut off connections with ends that nobody knows, instead of leaving their workloads open
    #[arg(long)]
    cut_off_unknown: bool,
    /// Allow only what was seen accepted: where one direction of the packets is hidden, that may break what works
    #[arg(long)]
    confirmed_only: bool,
    /// How the CNI reads what the API leaves open: NAME[,switch=true|false…] [default: that of the recording]
    #[arg(long)]
    dialect: Option<Dialect>,
    /// How to print it; json has the evidence of each rule as data
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Write files into this folder instead, named in the order in which to apply them; files that an earlier
    /// suggestion left there are replaced
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// What goes into one file of --output-dir
    #[arg(long, value_enum, default_value_t, requires = "output_dir")]
    per: Per,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum DnsArg {
    #[default]
    Namespace,
    Workload,
}

/// Which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    #[default]
    Yaml,
    Json,
}

/// What one file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Per {
    #[default]
    Policy,
    Namespace,
}

/// Suggestions and what they rest on.
#[derive(Debug, Serialize)]
struct Answer {
    #[serde(rename = "recording")]
    window: Header,
    /// What the policies are judged by.
    dialect: String,
    confidence: String,
    check: Check,
    #[serde(flatten)]
    suggestions: Suggestions,
}

/// The suggestions judged on the edges that they were made from, together with the policies of --manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
struct Check {
    accepted_edges: u64,
    denied: u64,
    /// Those of `denied` that the policies of --manifests deny already.
    denied_before: u64,
    unknown: u64,
}

/// Suggests. Blocks, and starts a runtime of its own where it asks agents: call it outside of one.
///
/// # Errors
/// If the recording, the manifests or the arguments cannot be used, or the answer cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let answer = answer(args)?;
    let mut stderr = io::stderr().lock();
    for line in words::notes(&answer) {
        writeln!(stderr, "{line}").context("standard error takes no more")?;
    }
    match (&args.output_dir, args.output) {
        (Some(folder), output) => {
            let files = folder::files(&answer, output, args.per)?;
            folder::write(folder, &files)?;
            writeln!(stderr, "{} written to {}", words::files(files.len()), folder.display())
                .context("standard error takes no more")?;
        }
        (None, output) => print(&rendered(&answer, output)?, Color::Never)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn rendered(answer: &Answer, output: Output) -> anyhow::Result<String> {
    Ok(match output {
        Output::Yaml => answer.suggestions.to_yaml(&words::preamble(answer)),
        Output::Json => serde_json::to_string_pretty(answer).context("the suggestions as JSON")? + "\n",
    })
}

fn answer(args: &Args) -> anyhow::Result<Answer> {
    let agents = Agents::besides(&args.flows, &args.agent, args.ask.fleet())?;
    let cluster = recording::cluster_or(&args.manifests, &args.ask, "manifests")?;
    let recording = recording::read(&args.flows, &agents, args.ask.timeout())?;
    let options = options(args, &recording)?;
    let in_force = recording::policies(&cluster.objects);
    let mut index = Index::default();
    index.reset(cluster.objects, Timestamp::EPOCH);
    let pods: Vec<Arc<Pod>> = index.pods().collect();
    let suggestions = suggest(&recording.edges, &pods, &options);
    let check = check(&recording, &suggestions, &in_force, &options);
    let mut window = recording.header;
    window.warnings.extend(cluster.warnings);
    if args.manifests.is_empty() && !args.ask.fleet().is_given() {
        window.warnings.push(
            "without --manifests, selectors are checked only against the pods that were recorded: they may select \
             others too"
                .to_owned(),
        );
    }
    let confidence = words::confidence(&window, &check);
    Ok(Answer { window, dialect: options.dialect.to_string(), confidence, check, suggestions })
}

fn options(args: &Args, recording: &Recording) -> anyhow::Result<Options> {
    let set =
        |names: &[String]| -> BTreeSet<Arc<str>> { names.iter().map(|name| name.as_str().into()).collect() };
    let direction = |direction: &DirectionArg| match direction {
        DirectionArg::Egress => Direction::Egress,
        DirectionArg::Ingress => Direction::Ingress,
    };
    Ok(Options {
        namespaces: (!args.namespace.is_empty()).then(|| set(&args.namespace)),
        exempt_namespaces: set(&args.exempt),
        directions: args.direction.iter().map(direction).collect(),
        dns: match args.dns {
            DnsArg::Namespace => Dns::PerNamespace,
            DnsArg::Workload => Dns::PerWorkload,
        },
        default_deny: !args.no_default_deny,
        deny_also: set(&args.deny_also),
        unconfirmed: !args.confirmed_only,
        cut_off_unknown: args.cut_off_unknown,
        // The recorder keys every outside address by itself.
        folded: None,
        dialect: recording::dialect(args.dialect, &recording.dialects)?,
    })
}

/// Judges the accepted edges by the suggested policies, applied over those in force.
fn check(
    recording: &Recording,
    suggestions: &Suggestions,
    in_force: &[Arc<Policy>],
    options: &Options,
) -> Check {
    let new: Vec<Arc<Policy>> = suggestions
        .policies
        .iter()
        .map(|suggestion| Arc::new(Policy::from_network_policy(&suggestion.policy)))
        .collect();
    let replaced: BTreeSet<_> = new.iter().map(|policy| policy.reference()).collect();
    let kept = in_force.iter().filter(|policy| !replaced.contains(policy.reference()));
    let after: Vec<Arc<Policy>> = kept.chain(&new).map(Arc::clone).collect();
    let judge = |policies: &[Arc<Policy>]| Judge::new(policies, options.dialect, &Scenario::Enforced);
    let (mut before, mut after) = (judge(in_force), judge(&after));
    let mut check = Check::default();
    for edge in recording.edges.iter().filter(|edge| is_accepted(edge, options)) {
        check.accepted_edges += 1;
        match after.judge(&edge.connection()).verdict() {
            Verdict::Allow => {}
            Verdict::Unknown => check.unknown += 1,
            Verdict::Deny => {
                check.denied += 1;
                if before.judge(&edge.connection()).verdict() == Verdict::Deny {
                    check.denied_before += 1;
                }
            }
        }
    }
    check
}
