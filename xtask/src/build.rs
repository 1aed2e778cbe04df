//! Builds the agent.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The folder of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Builds the agent and returns where its binary is. Cargo's own output goes to stderr.
///
/// # Errors
/// Where cargo cannot be run or the build fails.
pub fn agent() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--package", "dryfence", "--bin", "dryfence"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(workspace())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("building the agent failed");
    }
    let messages = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<serde_json::Value>();
    messages
        .filter_map(Result::ok)
        .filter(|message| message["target"]["name"] == "dryfence")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo built the agent but names no executable")
}
