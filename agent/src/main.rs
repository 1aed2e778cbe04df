//! The binary: reads the command line, runs the command, exits.

use std::process::ExitCode;

use dryfence::cli::Cli;

fn main() -> ExitCode {
    match Cli::read() {
        Ok(cli) => cli.run(),
        Err(code) => code,
    }
}
