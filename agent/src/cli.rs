//! The commands, one file each.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod agent;
pub mod explain;
pub mod flows;
mod layout;
pub mod preview;
mod recording;
pub mod report;
pub mod scenario;
#[cfg(test)]
mod served;
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
    /// Why a connection is allowed or denied, rule by rule
    #[command(visible_alias = "why")]
    Explain(explain::Args),
    /// Who opened connections to whom, and what policies say of it
    Flows(Box<flows::Args>),
    /// What a candidate would change, on what was recorded: newly denied, newly allowed, unknown
    Preview(Box<preview::Args>),
    /// What would break, which side must change, and the policy to paste
    Report(report::Args),
    /// The least policies that allow what was recorded, in the order in which to apply them
    Suggest(Box<suggest::Args>),
}

impl Cli {
    /// Runs the command. An error that stops it goes to standard error, and gives exit code 2.
    pub fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Agent(args) => agent::run(*args),
            Command::Explain(args) => explain::run(&args),
            Command::Flows(args) => flows::run(&args),
            Command::Preview(args) => preview::run(&args),
            Command::Report(args) => report::run(&args),
            Command::Suggest(args) => suggest::run(&args),
        };
        done.unwrap_or_else(|error| {
            // Where standard error is closed, the exit code is all that can be said.
            writeln!(std::io::stderr(), "error: {error:#}").ok();
            ExitCode::from(2)
        })
    }
}
