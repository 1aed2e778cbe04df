//! The commands, one file each.

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub mod agent;
pub mod crds;
pub mod explain;
mod fleet;
pub mod flows;
mod layout;
pub mod preview;
mod recording;
pub mod report;
pub mod scenario;
#[cfg(test)]
mod served;
pub mod settings;
pub mod status;
pub mod suggest;
mod terminal;

/// Shows what network policy would break, before it is enforced.
#[derive(Debug, Parser)]
#[command(name = "dryfence", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Agent(Box<agent::AgentArgs>),
    /// The CustomResourceDefinitions of PolicyCandidate, ClusterPolicyCandidate, SegmentMap and EdgeException
    Crds(crds::Args),
    /// Why a connection is allowed or denied, rule by rule
    #[command(visible_alias = "why")]
    Explain(Box<explain::Args>),
    /// Who opened connections to whom, and what policies say of it
    Flows(Box<flows::Args>),
    /// What a candidate would change, on what was recorded: newly denied, newly allowed, unknown
    Preview(Box<preview::Args>),
    /// What would break, which side must change, and the policy to paste
    Report(Box<report::Args>),
    /// How the agents are: ready, since when they watch, what they lost
    Status(Box<status::Args>),
    /// The least policies that allow what was recorded, in the order in which to apply them
    Suggest(Box<suggest::Args>),
}

impl Cli {
    /// Reads this process's command line, environment and settings file.
    ///
    /// # Errors
    /// The exit code, after everything that is wrong was said on standard error (help: on standard output).
    pub fn read() -> Result<Self, ExitCode> {
        let clap = |error: clap::Error| {
            // Where nobody listens, the exit code is all that can be said.
            error.print().ok();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        };
        let matches = settings::read(Self::command(), std::env::args_os().collect());
        let matches = matches.map_err(|failed| match failed {
            settings::Failed::Clap(error) => clap(*error),
            settings::Failed::Problems(_) => {
                write!(std::io::stderr(), "{failed}").ok();
                ExitCode::from(2)
            }
        })?;
        Self::from_arg_matches(&matches).map_err(clap)
    }

    /// Runs the command. An error that stops it goes to standard error, and gives exit code 2.
    pub fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Agent(args) => agent::run(*args),
            Command::Crds(args) => crds::run(&args),
            Command::Explain(args) => explain::run(&args),
            Command::Flows(args) => flows::run(&args),
            Command::Preview(args) => preview::run(&args),
            Command::Report(args) => report::run(&args),
            Command::Status(args) => status::run(&args),
            Command::Suggest(args) => suggest::run(&args),
        };
        done.unwrap_or_else(|error| {
            // Where standard error is closed, the exit code is all that can be said.
            writeln!(std::io::stderr(), "error: {}", in_full(&error)).ok();
            ExitCode::from(2)
        })
    }
}

/// The error with what caused it, each said once: some errors say their cause themselves.
fn in_full(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).reduce(with_cause).unwrap_or_default()
}

fn with_cause(text: String, cause: String) -> String {
    if text.ends_with(&cause) { text } else { format!("{text}: {cause}") }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let read = || std::fs::read("/nonexistent").context("edges.jsonl: cannot be read");
        assert_eq!(
            in_full(&read().unwrap_err()),
            "edges.jsonl: cannot be read: No such file or directory (os error 2)"
        );
        let told = report::InputError::Read {
            path: "edges.jsonl".into(),
            source: std::fs::read("/nonexistent").unwrap_err(),
        };
        assert_eq!(
            in_full(&told.into()),
            "edges.jsonl: cannot be read: No such file or directory (os error 2)"
        );
    }
}
