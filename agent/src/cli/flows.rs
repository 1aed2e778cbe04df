//! `dryfence flows`: who opened connections to whom, and what policies say of it.

mod choose;
mod input;
mod mermaid;
mod row;
mod selector;
mod table;
#[cfg(test)]
mod tests;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::ValueEnum;

use self::choose::Choice;
use self::input::Flows;
use self::row::{Row, SortBy};
use self::table::{Look, Table};
use super::fleet::Agents;
use super::recording::AskArgs;
use super::scenario::DefaultDenyArgs;
use super::terminal::{PrintArgs, columns, print, print_some};
use crate::finding::words::count;
use crate::history::file;
use crate::model::dialect::Dialect;
use crate::model::record::EdgeRecord;
use crate::serve::address::Address;

/// Lists who opened connections to whom: by workload, or with -o wide, json and jsonl edge by edge.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The agent to ask, may be repeated: unix:/path, /path, 127.0.0.1:9478 [default: unix:/run/dryfence/agent.sock]
    #[arg(long, value_name = "ADDR", env = "DRYFENCE_AGENT", value_delimiter = ',')]
    agent: Vec<Address>,
    /// Read recorded edges from these files instead, also .gz and .zst; several merge; - is standard input
    #[arg(long, value_name = "FILE", num_args = 1..)]
    flows: Vec<PathBuf>,
    /// Judge what --flows names by the policies, segment maps and exceptions in these files and folders, may be
    /// repeated
    #[arg(long, value_name = "PATH")]
    manifests: Vec<PathBuf>,
    /// How the CNI reads what the API leaves open: NAME[,switch=true|false…] [default: that of the recording]
    #[arg(long)]
    dialect: Option<Dialect>,
    #[command(flatten)]
    default_deny: DefaultDenyArgs,
    /// Only what has an end in this namespace, may be repeated
    #[arg(short, long, value_name = "NAMESPACE", value_delimiter = ',', conflicts_with = "all_namespaces")]
    namespace: Vec<String>,
    /// Every namespace; this is the default
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only what has an end whose pod's labels match: app=web,tier!=db,env in (a,b)
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Only this workload's: web, deploy/web, shop/deploy/web
    #[arg(long, value_name = "WORKLOAD", value_delimiter = ',')]
    workload: Vec<String>,
    /// Only with this other end: a workload, an address, external, node, unknown
    #[arg(long, value_name = "PEER", value_delimiter = ',')]
    peer: Vec<String>,
    /// Only with this verdict: allow, deny, unknown
    #[arg(long, value_delimiter = ',')]
    verdict: Vec<String>,
    /// Only the verdicts of this scenario: enforced, default-deny
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<String>,
    /// Only what this segment map forbids; true: what any of them forbids
    #[arg(long, value_name = "MAP", value_delimiter = ',')]
    violation: Vec<String>,
    /// Only what was seen at the initiator's pod (egress) or at the responder's (ingress)
    #[arg(long, value_delimiter = ',')]
    direction: Vec<String>,
    /// Only of this cause: dns, metrics, external, cross-namespace, …
    #[arg(long, value_delimiter = ',')]
    cause: Vec<String>,
    /// Only to this port
    #[arg(long, value_delimiter = ',')]
    port: Vec<String>,
    /// Only of this protocol: tcp, udp, sctp, icmp, icmpv6
    #[arg(long, value_delimiter = ',')]
    protocol: Vec<String>,
    /// Only what was seen in so long before the end of the window: 90s, 10m, 2h30m, 7d
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// What to sort by, ascending
    #[arg(long, value_enum, default_value_t, value_name = "FIELD")]
    sort_by: SortBy,
    /// Go on, and print what is new or changed. Only from an agent
    #[arg(short, long, conflicts_with = "export")]
    watch: bool,
    /// How many seconds to wait between two looks with --watch
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    watch_interval: u64,
    /// Write what is asked for to this file of recorded edges instead, .gz and .zst compressed
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    print: PrintArgs,
    #[command(flatten)]
    ask: AskArgs,
}

/// Which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    #[default]
    Table,
    /// Edge by edge, with pods, addresses, dates and the reason
    Wide,
    Json,
    /// One edge a line
    Jsonl,
    Markdown,
    /// A map of who talks to whom, coloured by the first scenario
    Mermaid,
}

/// Lists flows. Blocks, and starts a runtime of its own where it asks agents: call it outside of one.
///
/// # Errors
/// If the edges cannot be had, or the list cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let choice = Choice::new(args)?;
    if args.watch {
        return watch(args, &choice);
    }
    let flows = chosen(args, &choice)?;
    if let Some(path) = &args.export {
        let said = export(&flows, path)?;
        writeln!(io::stderr(), "{said}").context("standard error takes no more")?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&rendered(&flows, args, columns())?, args.print.color)?;
    if matches!(args.output, Output::Table | Output::Wide) {
        say_notes(&flows)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is asked for, of what there is.
fn chosen(args: &Args, choice: &Choice) -> anyhow::Result<Flows> {
    let agents = Agents::new(&args.agent, args.ask.fleet(), true)?;
    let mut flows = input::read(args, &agents, choice.needs_labels() || args.export.is_some())?;
    choice.apply(&mut flows)?;
    Ok(flows)
}

/// Beside the table, as kubectl does: a table is for pipes.
fn say_notes(flows: &Flows) -> anyhow::Result<()> {
    let mut stderr = io::stderr().lock();
    if flows.list.edges.is_empty() {
        writeln!(stderr, "No recorded connections found.").context("standard error takes no more")?;
    }
    for note in table::notes(&flows.list, false) {
        writeln!(stderr, "{note}").context("standard error takes no more")?;
    }
    Ok(())
}

fn export(flows: &Flows, path: &std::path::Path) -> anyhow::Result<String> {
    let Some((header, edges)) = &flows.recorded else {
        anyhow::bail!("--export {}: there is no recording", path.display());
    };
    file::write(path, header, edges)?;
    Ok(format!("{} written to {}", count(edges.len() as u64, "edge"), path.display()))
}

fn look(args: &Args, width: Option<usize>) -> Look {
    let wide = args.output == Output::Wide;
    Look { width: width.filter(|_| !wide), wide, headers: !args.print.no_headers }
}

fn rows(flows: &Flows, args: &Args) -> Vec<Row> {
    let list = &flows.list;
    let mut rows = match args.output {
        Output::Wide => list.edges.iter().map(|edge| Row::of_edge(edge, list)).collect(),
        _ => Row::of_workloads(list),
    };
    rows.sort_by(|a, b| a.compare(b, args.sort_by));
    rows
}

/// The edges in the order that is asked for.
fn sorted<'a>(flows: &'a Flows, args: &Args) -> Vec<&'a EdgeRecord> {
    let list = &flows.list;
    let mut edges: Vec<(Row, &EdgeRecord)> =
        list.edges.iter().map(|edge| (Row::of_edge(edge, list), edge)).collect();
    edges.sort_by(|(a, _), (b, _)| a.compare(b, args.sort_by));
    edges.into_iter().map(|(_, edge)| edge).collect()
}

fn rendered(flows: &Flows, args: &Args, width: Option<usize>) -> anyhow::Result<String> {
    let list = &flows.list;
    Ok(match args.output {
        Output::Table | Output::Wide => table::render(&rows(flows, args), list, look(args, width)),
        Output::Markdown => table::markdown(&rows(flows, args), list, !args.print.no_headers),
        Output::Mermaid => mermaid::render(&rows(flows, args), list).context("the map")?,
        Output::Json => {
            let mut list = list.clone();
            list.edges = sorted(flows, args).into_iter().cloned().collect();
            serde_json::to_string_pretty(&list).context("the flows as JSON")? + "\n"
        }
        Output::Jsonl => json_lines(sorted(flows, args))?,
    })
}

fn json_lines<'a>(edges: impl IntoIterator<Item = &'a EdgeRecord>) -> anyhow::Result<String> {
    let mut text = String::new();
    for edge in edges {
        text.push_str(&serde_json::to_string(edge).context("a flow as JSON")?);
        text.push('\n');
    }
    Ok(text)
}

/// What was printed before, so that only what changed is printed again.
struct Watched {
    table: Table,
    lines: std::collections::HashSet<String>,
}

impl Watched {
    fn new(look: Look) -> Self {
        Self { table: Table::new(look), lines: std::collections::HashSet::new() }
    }

    fn update(&mut self, flows: &Flows, args: &Args) -> anyhow::Result<String> {
        if args.output != Output::Jsonl {
            return Ok(self.table.update(&rows(flows, args), &flows.list));
        }
        let text = json_lines(sorted(flows, args))?;
        let now: std::collections::HashSet<String> = text.lines().map(ToOwned::to_owned).collect();
        let fresh: String =
            text.lines().filter(|line| !self.lines.contains(*line)).map(|line| format!("{line}\n")).collect();
        self.lines = now;
        Ok(fresh)
    }
}

/// Looks again and again, until nobody reads any more.
fn watch(args: &Args, choice: &Choice) -> anyhow::Result<ExitCode> {
    ensure!(args.flows.is_empty(), "--watch needs an agent: files do not change");
    ensure!(
        matches!(args.output, Output::Table | Output::Wide | Output::Jsonl),
        "--watch goes with -o table, wide and jsonl"
    );
    let mut watched = Watched::new(look(args, columns()));
    let mut notes = Vec::new();
    let mut first = true;
    loop {
        let flows = chosen(args, choice)?;
        if std::mem::take(&mut first) && flows.list.edges.is_empty() {
            writeln!(io::stderr(), "Nothing of that is recorded yet; waiting for it.")
                .context("standard error takes no more")?;
        }
        if !print_some(&watched.update(&flows, args)?, args.print.color)? {
            return Ok(ExitCode::SUCCESS);
        }
        let now = table::notes(&flows.list, false);
        for note in now.iter().filter(|note| !notes.contains(*note)) {
            writeln!(io::stderr(), "{note}").context("standard error takes no more")?;
        }
        notes = now;
        std::thread::sleep(Duration::from_secs(args.watch_interval));
    }
}
