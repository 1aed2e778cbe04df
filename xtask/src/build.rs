//! `cargo xtask build`: the agent with its eBPF programs inside.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{say, tools};

/// Builds the agent, and first installs what that needs
#[derive(Debug, Args)]
pub struct Build {
    /// Optimised, as it is deployed
    #[arg(long)]
    release: bool,
    /// Linked statically, for this machine's processor: runs on any Linux, and in an image that holds nothing else
    #[arg(long = "static")]
    is_static: bool,
    /// Also put the binary into this folder
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

impl Build {
    /// Builds, and says where the binary is.
    ///
    /// # Errors
    /// Where a tool cannot be installed or the build fails.
    pub fn run(&self) -> Result<()> {
        let binary = if self.is_static { static_agent(self.release)? } else { agent(self.release)? };
        say!("built {}", binary.display());
        if let Some(folder) = &self.output {
            let target = folder.join("dryfence");
            std::fs::create_dir_all(folder)
                .and_then(|()| std::fs::copy(&binary, &target))
                .with_context(|| format!("{} cannot be written", target.display()))?;
        }
        Ok(())
    }
}

/// Builds the agent and returns where its binary is. Cargo's own output goes to stderr.
///
/// # Errors
/// Where a tool cannot be installed, cargo cannot be run or the build fails.
pub fn agent(release: bool) -> Result<PathBuf> {
    tools::ensure_for_build()?;
    let mut arguments = vec!["--package", "dryfence", "--bin", "dryfence"];
    arguments.extend(release.then_some("--release"));
    executable("dryfence", &arguments)
}

/// Builds the agent with musl in place of the system's C library. Needs `musl-gcc` for what is written in C.
fn static_agent(release: bool) -> Result<PathBuf> {
    tools::ensure_for_build()?;
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    tools::ensure_target(&target)?;
    let mut arguments = vec!["--package", "dryfence", "--bin", "dryfence", "--target", &target];
    arguments.extend(release.then_some("--release"));
    executable("dryfence", &arguments)
}

/// Builds what `cargo xtask demo --enforce` asks for suggested policies, and returns where its binary is.
///
/// # Errors
/// Where a tool cannot be installed, cargo cannot be run or the build fails.
pub fn demo_suggest() -> Result<PathBuf> {
    tools::ensure_for_build()?;
    executable("demo-suggest", &["--package", "xtask", "--example", "demo-suggest"])
}

/// Builds the agent's test targets whose names match a pattern of cargo's, and returns their names and binaries.
///
/// # Errors
/// Where a tool cannot be installed, cargo cannot be run, the build fails, or no name matches.
pub fn tests(patterns: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    tools::ensure_for_build()?;
    let what = format!("the tests {}", patterns.join(", "));
    let mut arguments = vec!["test", "--no-run", "--package", "dryfence"];
    arguments.extend(patterns.iter().flat_map(|pattern| ["--test", pattern]));
    let messages = messages(&what, &arguments)?;
    let tests = messages.iter().filter(|message| message["target"]["kind"][0] == "test");
    let binary = |message: &serde_json::Value| {
        let name = message["target"]["name"].as_str()?.to_owned();
        Some((name, PathBuf::from(message["executable"].as_str()?)))
    };
    Ok(tests.filter_map(binary).collect())
}

fn executable(name: &str, arguments: &[&str]) -> Result<PathBuf> {
    let messages = messages(name, &[&["build"], arguments].concat())?;
    messages
        .iter()
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo built {name} but names no executable"))
}

/// Has cargo build something, and returns what it says about every target.
fn messages(what: &str, arguments: &[&str]) -> Result<Vec<serde_json::Value>> {
    let mut cargo = tools::cargo()?;
    cargo.args(arguments).arg("--message-format=json-render-diagnostics");
    let output = cargo.stderr(Stdio::inherit()).output().context("cargo cannot be run")?;
    if !output.status.success() {
        bail!("building {what} failed");
    }
    let messages = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    Ok(messages.filter_map(Result::ok).collect())
}

/// Where cargo puts what it builds.
pub fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| tools::root().join("target"), PathBuf::from)
}
