//! `cargo xtask test`: every test, those that need root included.

use anyhow::Result;
use clap::Args;

use crate::{build, tools};

/// Runs every test, in network namespaces too; asks for root where a test needs it
#[derive(Debug, Args)]
pub struct Test {
    /// Only tests whose name contains this
    filter: Option<String>,
}

impl Test {
    pub fn run(&self) -> Result<()> {
        // The end-to-end tests run these binaries: build them once, as the user, before the tests look for them.
        let agent = build::agent(false)?;
        let suggest = build::demo_suggest()?;
        let mut cargo = tools::cargo()?;
        // All of them: one run is to tell everything that fails.
        cargo.args(["test", "--workspace", "--exclude", "dryfence-ebpf", "--no-fail-fast"]);
        cargo.env("DRYFENCE_BIN", agent).env("DRYFENCE_DEMO_SUGGEST", suggest);
        tools::as_root(&mut cargo, "the tests load eBPF programs and make network namespaces");
        if let Some(filter) = &self.filter {
            cargo.arg(filter);
        }
        tools::run(&mut cargo, "tests failed")
    }
}
