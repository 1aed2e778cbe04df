//! `dryfence explain`: why a connection is allowed or denied, rule by rule, or many connections at once.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::ValueEnum;

use self::query::{Query, Target};
use crate::cli::fleet;
use crate::cli::scenario::DefaultDenyArgs;
use crate::cluster::Object;
use crate::cluster::index::Index;
use crate::cluster::kubernetes::ClusterArgs;
use crate::cluster::manifests;
use crate::model::dialect::Dialect;
use crate::model::edge::Protocol;
use crate::model::object::WorkloadRef;
use crate::model::scenario::Scenario;
use crate::model::time::Timestamp;
use crate::policy::Judge;

mod answer;
mod batch;
mod query;
#[cfg(test)]
mod tests;

/// Findings that are printed before "and N more".
const FINDINGS: usize = 20;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files and folders of manifests (repeatable)
    #[arg(long, value_name = "PATH", conflicts_with_all = ["kubeconfig", "context", "impersonate"])]
    manifests: Vec<PathBuf>,
    /// The cluster to take the objects from instead
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Who opens the connection: namespace/pod, namespace/Kind/workload, or an address
    #[arg(long, value_name = "ENDPOINT", required_unless_present = "queries")]
    from: Option<String>,
    /// Who answers it: namespace/pod, namespace/Kind/workload, or an address
    #[arg(long, value_name = "ENDPOINT", required_unless_present = "queries")]
    to: Option<String>,
    /// The responder's port
    #[arg(long)]
    port: Option<u16>,
    /// TCP, UDP, SCTP, ICMP or ICMPv6
    #[arg(long, default_value = "TCP")]
    protocol: Protocol,
    /// A file of queries, one JSON object a line; "-" is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to", "port"])]
    queries: Option<PathBuf>,
    /// How the CNI reads what the API leaves open: NAME[,switch=true|false…]
    #[arg(long, default_value = "standard")]
    dialect: Dialect,
    /// Which policies to judge by: enforced, default-deny, or a change set of candidates
    #[arg(long, default_value = "enforced", value_name = "NAME")]
    scenario: String,
    #[command(flatten)]
    default_deny: DefaultDenyArgs,
    /// The namespace of manifests and pods that name none
    #[arg(long, short)]
    namespace: Option<String>,
    /// How to print the answer
    #[arg(long, short)]
    output: Option<Output>,
}

impl Args {
    fn scenario(&self, index: &Index) -> anyhow::Result<Scenario> {
        let sets = index.change_sets();
        let set = sets.judged.iter().find(|set| set.name() == self.scenario);
        match (&*self.scenario, set) {
            ("enforced", _) => Ok(Scenario::Enforced),
            ("default-deny", _) => Ok(self.default_deny.scenario()),
            (_, Some(set)) => Ok(Scenario::ChangeSet(*set)),
            (name, None) => {
                let sets = sets.judged.iter().map(|set| set.name());
                let known: Vec<&str> = ["enforced", "default-deny"].into_iter().chain(sets).collect();
                bail!("--scenario {name}: is none of {}", known.join(", "))
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Step by step, for people
    Table,
    /// One JSON object
    Json,
    /// One JSON object a line
    Jsonl,
}

/// What queries are answered by.
struct Engine {
    index: Index,
    judge: Judge,
    scenario: Scenario,
    dialect: Dialect,
    /// The time at which addresses are asked for.
    now: Timestamp,
}

impl Engine {
    fn new(index: Index, dialect: Dialect, scenario: Scenario, now: Timestamp) -> Self {
        let judge = Judge::new(&index.policies_of(&scenario), dialect, &scenario);
        Self { index, judge, scenario, dialect, now }
    }
}

/// Answers what was asked. The exit code is 0, or 1 if a query of a batch was malformed.
///
/// # Errors
/// If the manifests, the queries or the output cannot be used at all.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let asked = if args.queries.is_none() { Some(single(args)?) } else { None };
    if args.queries.is_some() && matches!(args.output, Some(Output::Table | Output::Json)) {
        bail!("--queries answers with one JSON object a line: use -o jsonl");
    }
    let mut engine = load(args)?;
    match asked {
        Some(query) => {
            let mut out = BufWriter::new(io::stdout().lock());
            explain(&mut engine, &query, args.output.unwrap_or(Output::Table), &mut out)?;
            out.flush().context("cannot write the answer")?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            let path = args.queries.as_deref().context("--queries is missing")?;
            let input: Box<dyn BufRead> = if path.as_os_str() == "-" {
                Box::new(BufReader::new(io::stdin()))
            } else {
                let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
                Box::new(BufReader::new(file))
            };
            let mut out = BufWriter::new(io::stdout().lock());
            let malformed = match batch::answer_all(&mut engine, input, &mut out) {
                // Whoever reads the answers wants no more.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                done => done.context("cannot answer the queries")?,
            };
            Ok(if malformed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
    }
}

/// The cluster's objects, and what is wrong with them.
fn objects(args: &Args) -> anyhow::Result<(Vec<Object>, Vec<String>)> {
    if args.manifests.is_empty() {
        if !fleet::is_given(&args.cluster) {
            bail!(
                "there is nothing to explain by: name --manifests PATH, or a cluster with --kubeconfig or --context"
            );
        }
        let held = fleet::objects(&args.cluster)?;
        let warnings = held.warnings.iter().map(|warning| format!("warning: {warning}")).collect();
        return Ok((held.objects, warnings));
    }
    for path in &args.manifests {
        if !path.exists() {
            bail!("--manifests {}: there is no such file or folder", path.display());
        }
    }
    let loaded = manifests::load(&args.manifests, args.namespace.as_deref());
    let mut lines: Vec<String> =
        loaded.findings.iter().map(|finding| format!("{}: {finding}", finding.severity)).collect();
    for (kind, count) in &loaded.skipped {
        lines.push(format!("note: {count} of kind {kind} left out"));
    }
    Ok((loaded.objects, lines))
}

/// The objects as an index, with what is wrong in them on standard error.
fn load(args: &Args) -> anyhow::Result<Engine> {
    let (objects, mut lines) = objects(args)?;
    let now = Timestamp::now();
    let mut index = Index::default();
    index.reset(objects, now);
    lines.extend(index.findings().iter().map(|finding| format!("warning: {finding}")));
    print_findings(&lines).context("cannot write to standard error")?;
    let scenario = args.scenario(&index)?;
    Ok(Engine::new(index, args.dialect, scenario, now))
}

fn print_findings(lines: &[String]) -> io::Result<()> {
    let mut out = io::stderr().lock();
    for line in lines.iter().take(FINDINGS) {
        writeln!(out, "{line}")?;
    }
    if lines.len() > FINDINGS {
        writeln!(out, "… and {} more", lines.len() - FINDINGS)?;
    }
    Ok(())
}

/// The query that the options ask.
fn single(args: &Args) -> anyhow::Result<Query> {
    let default = args.namespace.as_deref().unwrap_or("default");
    let end = |name: &str, text: &Option<String>| {
        let text = text.as_deref().with_context(|| format!("--{name} is missing"))?;
        target(text, default).with_context(|| format!("--{name} {text}"))
    };
    let (from, to) = (end("from", &args.from)?, end("to", &args.to)?);
    let port = query::port(args.port, args.protocol).map_err(|error| anyhow::anyhow!("--{error}"))?;
    Ok(Query { id: serde_json::Value::Null, from, to, port, protocol: args.protocol })
}

/// An endpoint as people type it: an address, `pod`, `namespace/pod`, or `namespace/Kind/workload`.
fn target(text: &str, default_namespace: &str) -> anyhow::Result<Target> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Target::Address(address));
    }
    let parts: Vec<&str> = text.split('/').collect();
    if parts.iter().any(|part| part.is_empty()) {
        bail!("is not namespace/pod, namespace/Kind/workload or an address");
    }
    match *parts {
        [name] => Ok(Target::Pod { namespace: default_namespace.to_owned(), name: name.to_owned() }),
        [namespace, name] => Ok(Target::Pod { namespace: namespace.to_owned(), name: name.to_owned() }),
        [namespace, kind, name] => Ok(Target::Workload(WorkloadRef::new(kind, namespace, name))),
        _ => bail!("is not namespace/pod, namespace/Kind/workload or an address"),
    }
}

/// Prints the answer to one query.
fn explain(engine: &mut Engine, query: &Query, output: Output, out: &mut impl Write) -> anyhow::Result<()> {
    let pairs = query::pairs(&engine.index, query, engine.now).map_err(|error| anyhow::anyhow!(error))?;
    match output {
        Output::Table => answer::print_steps(engine, query, &pairs, out)?,
        Output::Json => {
            let answer = answer::full(engine, query, &pairs);
            serde_json::to_writer_pretty(&mut *out, &answer)?;
            writeln!(out)?;
        }
        Output::Jsonl => {
            serde_json::to_writer(&mut *out, &answer::full(engine, query, &pairs))?;
            writeln!(out)?;
        }
    }
    Ok(())
}
