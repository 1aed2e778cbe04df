//! The project's own commands: `cargo xtask …`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::bench::Bench;
use xtask::build::Build;
use xtask::demo;
use xtask::fuzz::Fuzz;
use xtask::kernels::Kernels;
use xtask::lint::Lint;
use xtask::manifests::Manifests;
use xtask::test::Test;

/// The project's own commands
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Build(Build),
    /// Shows on real traffic which connections policies would break
    ///
    /// Makes a small cluster of network namespaces, lets real processes in them open connections, and has a
    /// real agent record and judge them. Leaves nothing behind. Needs root: asks sudo when it is not.
    Demo(demo::Arguments),
    Test(Test),
    Bench(Bench),
    Fuzz(Fuzz),
    Kernels(Kernels),
    Lint(Lint),
    Manifests(Manifests),
    /// What runs inside each of the demo's pods
    #[command(hide = true)]
    DemoPod(demo::pod::Arguments),
    /// Runs a command inside a network namespace of the demo
    #[command(hide = true)]
    DemoEnter(demo::enter::Arguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => xtask::fail(&error),
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Build(build) => build.run().map(|()| ExitCode::SUCCESS),
        Command::Test(test) => test.run().map(|()| ExitCode::SUCCESS),
        Command::Bench(bench) => bench.run().map(|()| ExitCode::SUCCESS),
        Command::Fuzz(fuzz) => fuzz.run().map(|()| ExitCode::SUCCESS),
        Command::Kernels(kernels) => kernels.run().map(|()| ExitCode::SUCCESS),
        Command::Lint(lint) => lint.run().map(|()| ExitCode::SUCCESS),
        Command::Manifests(manifests) => manifests.run().map(|()| ExitCode::SUCCESS),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::DemoPod(arguments) => demo::pod::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::DemoEnter(arguments) => demo::enter::run(&arguments).map(|()| ExitCode::SUCCESS),
    }
}
