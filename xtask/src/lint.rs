//! `cargo xtask lint`: format, lints on both targets, documentation, dependencies, spelling.

use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::{build, say, tools};

/// Checks format, lints, documentation, dependencies and spelling
#[derive(Debug, Args)]
pub struct Lint {}

impl Lint {
    /// Runs every check, also after one fails, and names those that failed.
    pub fn run(&self) -> Result<()> {
        tools::ensure_for_lint()?;
        let mut failed = Vec::new();
        for (name, mut command) in checks()? {
            say!("lint: {name}");
            if let Err(error) = tools::run(&mut command, name) {
                say!("{error:#}");
                failed.push(name);
            }
        }
        if !failed.is_empty() {
            bail!("lint failed: {}", failed.join(", "));
        }
        say!("lint: everything is clean");
        Ok(())
    }
}

fn checks() -> Result<Vec<(&'static str, Command)>> {
    let cargo = |args: &[&str]| -> Result<Command> {
        let mut cargo = tools::cargo()?;
        cargo.args(args);
        Ok(cargo)
    };
    let mut doc = cargo(&["doc", "--quiet", "--no-deps", "--document-private-items"])?;
    doc.env("RUSTDOCFLAGS", "-D warnings");
    Ok(vec![
        ("format", cargo(&["fmt", "--all", "--check"])?),
        ("clippy (host)", cargo(&["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"])?),
        ("clippy (bpf)", clippy_bpf()?),
        ("documentation", doc),
        // Advisories need the network and change by the day; licences, bans and sources do not.
        ("dependencies", cargo(&["deny", "--log-level", "error", "check", "licenses", "bans", "sources"])?),
        ("spelling", typos()?),
    ])
}

fn clippy_bpf() -> Result<Command> {
    let mut cargo = Command::new("rustup");
    cargo.current_dir(tools::root()).env("PATH", tools::path()?).env_remove("RUSTC").env_remove("RUSTDOC");
    cargo.args(["run", tools::NIGHTLY, "cargo", "clippy", "--quiet", "--package", "dryfence-ebpf"]);
    cargo.args(["--target", "bpfel-unknown-none", "-Z", "build-std=core", "--release"]);
    // A folder of its own: the two compilers would throw away each other's work.
    cargo.arg("--target-dir").arg(build::target_folder().join("bpf-lint")).args(["--", "-D", "warnings"]);
    Ok(cargo)
}

fn typos() -> Result<Command> {
    let mut typos = Command::new("typos");
    typos.current_dir(tools::root()).env("PATH", tools::path()?);
    Ok(typos)
}
