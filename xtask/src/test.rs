//! `cargo xtask test`: every test, those that need root included.

use anyhow::{Result, ensure};
use clap::Args;

use crate::{build, tools};

/// Runs every test, in network namespaces too; asks for root where a test needs it
#[derive(Debug, Args)]
pub struct Test {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// Only the tests of the Kubernetes source, against the cluster of DRYFENCE_TEST_KUBECONFIG: they make namespaces,
    /// nodes and cluster roles whose names begin with dryfence-test, and delete them again
    #[arg(long)]
    cluster: bool,
}

impl Test {
    pub fn run(&self) -> Result<()> {
        if self.cluster {
            return self.run_in_cluster();
        }
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

    /// Needs no root: nothing is captured.
    fn run_in_cluster(&self) -> Result<()> {
        ensure!(
            std::env::var_os("DRYFENCE_TEST_KUBECONFIG").is_some(),
            "DRYFENCE_TEST_KUBECONFIG names no kubeconfig: the tests need one whose user may make namespaces, nodes, roles and pods, and write their status"
        );
        let mut cargo = tools::cargo()?;
        cargo.args(["test", "--package", "dryfence", "--test", "cluster", "--no-fail-fast"]);
        cargo.args(self.filter.as_deref()).args(["--", "--nocapture"]);
        tools::run(&mut cargo, "tests failed")
    }
}
