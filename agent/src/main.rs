//! The binary: reads the command line, runs the command, exits.

use std::process::ExitCode;

use clap::Parser;

use dryfence::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
