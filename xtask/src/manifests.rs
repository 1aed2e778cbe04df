//! `cargo xtask manifests`: what is made from other files of the project and kept beside them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::json;

use crate::helm::{self, Rendered};
use crate::{build, say, tools};

const HEADER: &str = "# Made from the chart by `cargo xtask manifests`: change it there.\n";

/// Writes the kustomize folders from the charts
#[derive(Debug, Args)]
pub struct Manifests {
    /// Only say what is not up to date, and fail if anything is
    #[arg(long)]
    check: bool,
}

impl Manifests {
    /// Writes what differs.
    ///
    /// # Errors
    /// Where a chart cannot be rendered, a file cannot be written, or with `--check` anything differs.
    pub fn run(&self) -> Result<()> {
        if !self.check {
            write_crds()?;
        }
        let stale = stale(&expected()?);
        for (path, text) in &stale {
            if self.check {
                say!("{} is not up to date", path.display());
                continue;
            }
            let parent = path.parent().context("a file has a folder")?;
            fs::create_dir_all(parent).with_context(|| format!("{} cannot be made", parent.display()))?;
            match text {
                Some(text) => fs::write(path, text),
                None => fs::remove_file(path),
            }
            .with_context(|| format!("{} cannot be written", path.display()))?;
            say!("wrote {}", path.display());
        }
        if self.check && !stale.is_empty() {
            bail!("{} files are not up to date: run `cargo xtask manifests`", stale.len());
        }
        Ok(())
    }
}

/// Has the agent write the CRDs that it reads into their chart.
fn write_crds() -> Result<()> {
    let folder = tools::root().join("deploy/charts/dryfence-crds/files");
    let mut crds = Command::new(build::agent(false)?);
    crds.arg("crds").arg("--output-dir").arg(&folder);
    tools::run(&mut crds, "the CRDs cannot be written")
}

/// A folder that is made: its path below `deploy/kustomize`, its kind, and its files.
struct Folder {
    name: &'static str,
    files: BTreeMap<String, String>,
    kind: &'static str,
    about: &'static str,
}

/// Every file that is made, with what it holds.
///
/// # Errors
/// Where a chart cannot be rendered.
pub fn expected() -> Result<BTreeMap<PathBuf, String>> {
    let base = helm::render("dryfence", &json!({ "namespace": { "create": true } }))?;
    let monitoring = json!({
        "podMonitor": { "enabled": true }, "prometheusRule": { "enabled": true }, "dashboard": { "enabled": true },
    });
    let monitored = helm::render("dryfence", &json!({ "monitoring": monitoring }))?;
    let crds = helm::render("dryfence-crds", &json!({ "keep": false }))?;
    let cleanup = [("cleanup.yaml".to_owned(), without_hooks(base.template("cleanup.yaml")))];
    let folders = [
        Folder {
            name: "base",
            files: files(&base, &|name| name != "cleanup.yaml"),
            kind: "Kustomization",
            about: "The agent on every node. Set the image, and settings.yaml, in an overlay of your own.",
        },
        Folder {
            name: "monitoring",
            files: files(&monitored, &|name| {
                ["podmonitor.yaml", "prometheusrule.yaml", "dashboard.yaml"].contains(&name)
            }),
            kind: "Component",
            about: "For clusters with the Prometheus operator: name it under `components` of an overlay.",
        },
        Folder {
            name: "cleanup",
            files: cleanup.into(),
            kind: "Kustomization",
            about: "Apply it after the agent is deleted, wait for its Job, and delete it.",
        },
        Folder {
            name: "crds",
            files: files(&crds, &|_| true),
            kind: "Kustomization",
            about: "The kinds PolicyCandidate, ClusterPolicyCandidate, SegmentMap and EdgeException.",
        },
    ];
    Ok(folders.into_iter().flat_map(Folder::paths).collect())
}

/// Those of the expected files that differ, and files that are there but are not expected (`None`).
pub fn stale(expected: &BTreeMap<PathBuf, String>) -> Vec<(PathBuf, Option<String>)> {
    let differs = |(path, text): (&PathBuf, &String)| {
        let is_same = fs::read_to_string(path).is_ok_and(|found| found == *text);
        (!is_same).then(|| (path.clone(), Some(text.clone())))
    };
    let mut stale: Vec<_> = expected.iter().filter_map(differs).collect();
    let folders = ["base", "monitoring", "cleanup", "crds"].map(|name| root().join(name));
    for entry in folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
        if !expected.contains_key(&entry.path()) {
            stale.push((entry.path(), None));
        }
    }
    stale
}

fn root() -> PathBuf {
    tools::root().join("deploy/kustomize")
}

impl Folder {
    fn paths(self) -> Vec<(PathBuf, String)> {
        let folder = root().join(self.name);
        let version = if self.kind == "Component" { "v1alpha1" } else { "v1beta1" };
        let mut kustomization = format!(
            "# Made by `cargo xtask manifests`. {}\napiVersion: kustomize.config.k8s.io/{version}\nkind: {}\nresources:\n",
            self.about, self.kind
        );
        for name in self.files.keys() {
            kustomization += &format!("  - {name}\n");
        }
        let file = |(name, text)| (folder.join(name), format!("{HEADER}{text}"));
        let mut paths: Vec<_> = self.files.into_iter().map(file).collect();
        paths.push((folder.join("kustomization.yaml"), kustomization));
        paths
    }
}

/// What the templates rendered to that are asked for, by file name.
fn files(rendered: &Rendered, is_asked: &dyn Fn(&str) -> bool) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for (path, text) in &rendered.manifests {
        let path = Path::new(path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_manifest = path.extension().is_some_and(|end| end == "yaml") && !text.trim().is_empty();
        if is_manifest && is_asked(&name) {
            files.insert(name.into_owned(), tidy(text));
        }
    }
    files
}

/// Without what templates leave behind: empty lines at both ends, blanks at line ends.
fn tidy(text: &str) -> String {
    let mut tidy = String::with_capacity(text.len());
    for line in text.trim().lines() {
        tidy += line.trim_end();
        tidy.push('\n');
    }
    tidy
}

/// Without the annotations by which Helm runs a manifest when a release is uninstalled.
fn without_hooks(text: &str) -> String {
    let is_hook = |line: &&str| line.trim_start().starts_with("helm.sh/hook");
    let lines: Vec<&str> = text.trim().lines().filter(|line| !is_hook(line)).collect();
    let next_is_deeper = |at: usize| {
        let indent = |line: &str| line.len() - line.trim_start().len();
        lines.get(at + 1).is_some_and(|next| indent(next) > indent(lines[at]))
    };
    let is_empty_map = |at: usize| lines[at].trim() == "annotations:" && !next_is_deeper(at);
    let kept: Vec<&str> = (0..lines.len()).filter(|&at| !is_empty_map(at)).map(|at| lines[at]).collect();
    tidy(&kept.join("\n"))
}
