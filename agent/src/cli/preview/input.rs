//! What is previewed: the candidate, the base, and what was recorded.

use std::env;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use super::{Args, BaseArg};
use crate::cli::fleet::Agents;
use crate::cli::recording::{self, Objects};
use crate::cluster::manifests::{self, Finding, Severity, Source};
use crate::history::file::Recording;

/// Why there is no candidate.
#[derive(Debug)]
pub(super) enum Refused {
    /// Some of it is wrong; everything that was found.
    Findings(Vec<Finding>),
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// The candidate. One error anywhere in it, and nothing is judged.
pub(super) fn candidate(args: &Args) -> Result<Objects, Refused> {
    let given = !args.files.is_empty() || args.kustomize.is_some();
    if !given && args.default_deny.is_empty() {
        return Err(anyhow::anyhow!(
            "there is nothing to preview: name a candidate with -f or -k, or --default-deny"
        )
        .into());
    }
    let mut sources = Vec::new();
    for path in &args.files {
        sources.extend(sources_of(path, args.recursive)?);
    }
    if let Some(folder) = &args.kustomize {
        sources.push(kustomized(folder, env::var_os("PATH").as_deref())?);
    }
    let mut loaded = manifests::load_all(sources, args.namespace.as_deref());
    // A candidate is what people write, and nobody writes a status.
    loaded.findings.retain(|found| {
        found.severity == Severity::Error || found.field.as_deref().is_none_or(|f| !f.starts_with("status."))
    });
    if loaded.findings.iter().any(|finding| finding.severity == Severity::Error) {
        return Err(Refused::Findings(loaded.findings));
    }
    if given && loaded.objects.is_empty() {
        return Err(anyhow::anyhow!("the candidate holds no object that is judged").into());
    }
    Ok(Objects { warnings: recording::warnings(&loaded, "candidate"), objects: loaded.objects })
}

/// What `-f` names, as kubectl takes it: of a folder the files in it, and what is below only with `-R`.
fn sources_of(path: &Path, recursive: bool) -> anyhow::Result<Vec<Source>> {
    if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes).context("-f -: standard input cannot be read")?;
        return Ok(vec![Source::Text { name: "standard input".into(), bytes }]);
    }
    ensure!(path.exists(), "-f {}: there is no such file or folder", path.display());
    if recursive || !path.is_dir() {
        return Ok(vec![Source::Path(path.to_owned())]);
    }
    let failed = || format!("-f {}: the folder cannot be listed", path.display());
    let mut files = Vec::new();
    for entry in path.read_dir().with_context(failed)? {
        let file = entry.with_context(failed)?.path();
        let suffix = file.extension().map(|suffix| suffix.to_string_lossy().to_lowercase());
        if !file.is_dir() && matches!(suffix.as_deref(), Some("yaml" | "yml" | "json")) {
            files.push(file);
        }
    }
    ensure!(
        !files.is_empty(),
        "-f {}: the folder has no .yaml, .yml or .json file; -R takes those below it too",
        path.display()
    );
    files.sort();
    Ok(files.into_iter().map(Source::Path).collect())
}

/// What kustomize makes of a folder. We have none of our own.
fn kustomized(folder: &Path, path: Option<&std::ffi::OsStr>) -> anyhow::Result<Source> {
    let found = |name: &str| {
        path.into_iter()
            .flat_map(env::split_paths)
            .map(|folder| folder.join(name))
            .find(|file| file.is_file())
    };
    let (program, subcommand) = match (found("kustomize"), found("kubectl")) {
        (Some(program), _) => (program, "build"),
        (None, Some(program)) => (program, "kustomize"),
        (None, None) => bail!(
            "-k {}: needs kustomize or kubectl, and neither is on PATH: run it elsewhere and pass its output to -f -",
            folder.display()
        ),
    };
    let done = Command::new(&program).arg(subcommand).arg(folder).output();
    let done =
        done.with_context(|| format!("-k {}: {} cannot be run", folder.display(), program.display()))?;
    ensure!(
        done.status.success(),
        "-k {}: {} failed: {}",
        folder.display(),
        program.display(),
        String::from_utf8_lossy(&done.stderr).trim()
    );
    Ok(Source::Text { name: folder.join("(kustomized)"), bytes: done.stdout })
}

/// The cluster as it is. What is wrong in it is a warning: what depends on it is unknown.
pub(super) fn base(args: &Args) -> anyhow::Result<Objects> {
    ensure!(
        args.base == BaseArg::Empty || !args.manifests.is_empty() || args.ask.fleet().is_given(),
        "--base enforced needs the policies that are in force: name them with --manifests or --kubeconfig, or say --base empty"
    );
    recording::cluster_or(&args.manifests, &args.ask, "base")
}

/// What was recorded, from files and agents together.
pub(super) fn recording(args: &Args) -> anyhow::Result<Recording> {
    let agents = Agents::besides(&args.flows, &args.agent, args.ask.fleet())?;
    recording::read(&args.flows, &agents, args.ask.timeout())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_folder_is_taken_as_kubectl_takes_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            path
        };
        let (b, a) = (file("b.yaml"), file("a.json"));
        file("below/c.yaml");
        file("readme.md");
        let expected = [Source::Path(a), Source::Path(b)];
        assert_eq!(sources_of(folder.path(), false).unwrap(), expected);
        assert_eq!(sources_of(folder.path(), true).unwrap(), [Source::Path(folder.path().to_owned())]);
        let error = sources_of(&folder.path().join("none"), false).unwrap_err().to_string();
        assert!(error.ends_with("none: there is no such file or folder"), "{error}");
        std::fs::create_dir(folder.path().join("empty")).unwrap();
        let error = sources_of(&folder.path().join("empty"), false).unwrap_err().to_string();
        assert!(error.contains("has no .yaml, .yml or .json file"), "{error}");
    }

    #[test]
    fn kustomize_is_run_where_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let target = Path::new("overlays/prod");
        let error = kustomized(target, Some(folder.path().as_os_str())).unwrap_err().to_string();
        assert!(error.starts_with("-k overlays/prod: needs kustomize or kubectl, and neither"), "{error}");
        let program = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        };
        program("kubectl", "#!/bin/sh\necho \"# $*\"\n");
        let made = kustomized(target, Some(folder.path().as_os_str())).unwrap();
        let name = PathBuf::from("overlays/prod/(kustomized)");
        assert_eq!(made, Source::Text { name, bytes: b"# kustomize overlays/prod\n".to_vec() });
        program("kustomize", "#!/bin/sh\necho no such thing >&2; exit 1\n");
        let error = kustomized(target, Some(folder.path().as_os_str())).unwrap_err().to_string();
        assert!(error.ends_with("failed: no such thing"), "{error}");
    }
}
