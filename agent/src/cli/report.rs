//! `dryfence report`: what would break, which side must change, and the policy to paste.

mod build;
mod excepted;
pub(in crate::cli) mod input;
pub(in crate::cli) mod markdown;
#[cfg(test)]
mod tests;
mod text;
mod words;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;

pub use self::build::{
    Failing, Finding, Group, Options, Report, ScenarioFindings, UnknownGroup, Window, build,
};
pub use self::excepted::{Excepted, ExceptedBy};
pub use self::input::InputError;
pub use self::markdown::render as markdown;
pub use self::text::{Look, render as text};
use super::fleet::Agents;
use super::recording::AskArgs;
use super::terminal::{PrintArgs, print, width};
use crate::serve::address::Address;

/// Where an agent answers unless it is told otherwise.
pub const DEFAULT_AGENT: &str = "unix:/run/dryfence/agent.sock";

/// Show what network policy would break, by cause and workload, and what would allow it
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The agent to ask, may be repeated: unix:/path, /path, 127.0.0.1:9478 [default: unix:/run/dryfence/agent.sock]
    #[arg(long, value_name = "ADDR", env = "DRYFENCE_AGENT", value_delimiter = ',')]
    agent: Vec<Address>,
    /// Read judged edges from this file instead, may be repeated: JSON lines, or one list; - is stdin
    #[arg(long, value_name = "FILE")]
    edges: Vec<PathBuf>,
    /// Only what has an end in this namespace, may be repeated
    #[arg(short, long, value_name = "NAMESPACE", value_delimiter = ',', conflicts_with = "all_namespaces")]
    namespace: Vec<String>,
    /// Every namespace; this is the default
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// The scenario to report on; all: each, and default-deny only beyond enforced
    #[arg(long, value_enum, default_value_t)]
    scenario: ScenarioArg,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Print the policies to paste, also where the output is not wide
    #[arg(long)]
    yaml: bool,
    #[command(flatten)]
    print: PrintArgs,
    #[command(flatten)]
    ask: AskArgs,
}

/// Which scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum ScenarioArg {
    Enforced,
    DefaultDeny,
    #[default]
    All,
}

/// Which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    #[default]
    Table,
    Wide,
    Json,
    Markdown,
}

/// Prints the report. Blocks, and starts a runtime of its own where it asks agents: call it outside of one.
///
/// # Errors
/// If the edges cannot be had, or the report cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let input = if args.edges.is_empty() {
        Agents::new(&args.agent, args.ask.fleet(), true)?.edges(args.ask.timeout())?
    } else {
        input::files(&args.edges)?
    };
    let options = Options {
        namespaces: args.namespace.clone(),
        scenario: match args.scenario {
            ScenarioArg::All => None,
            ScenarioArg::Enforced => Some("enforced".to_owned()),
            ScenarioArg::DefaultDeny => Some("default-deny".to_owned()),
        },
        window_known: input.window_known,
    };
    let report = build(&input.list, &options);
    print(&rendered(&report, args, width())?, args.print.color)?;
    Ok(ExitCode::SUCCESS)
}

fn rendered(report: &Report, args: &Args, width: usize) -> anyhow::Result<String> {
    let headers = !args.print.no_headers;
    let look = |wide| Look { width, wide, yaml: args.yaml || wide, headers };
    Ok(match args.output {
        Output::Table => text(report, look(false)),
        Output::Wide => text(report, look(true)),
        Output::Markdown => markdown(report, args.yaml, headers)?,
        Output::Json => serde_json::to_string_pretty(report).context("the report as JSON")? + "\n",
    })
}
