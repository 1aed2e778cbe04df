//! Suggestions as files, named in the order in which to apply them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, ensure};

use super::words::preamble;
use super::{Answer, Output, Per};
use crate::suggest::Suggestion;

/// What the first line of every file that we write says, and of no other.
const MARK: &str = "# Suggested by dryfence";
/// What the files rest on; not a name that kubectl takes.
const READ_FIRST: &str = "00-read-first.txt";

/// The files: their names and texts, in order.
pub(super) fn files(answer: &Answer, output: Output, per: Per) -> anyhow::Result<Vec<(String, String)>> {
    ensure!(output == Output::Yaml, "--output-dir writes YAML: leave out -o json");
    let policies = &answer.suggestions.policies;
    let mut groups: Vec<(String, Vec<&Suggestion>)> = Vec::new();
    match per {
        Per::Policy => {
            groups.extend(policies.iter().map(|suggestion| (stem(suggestion), vec![suggestion])));
        }
        Per::Namespace => {
            let mut by_namespace: BTreeMap<&str, Vec<&Suggestion>> = BTreeMap::new();
            for suggestion in policies {
                by_namespace.entry(namespace(suggestion)).or_default().push(suggestion);
            }
            groups.extend(by_namespace.into_iter().map(|(name, policies)| (name.to_owned(), policies)));
        }
    }
    let all = groups.len();
    let digits = all.to_string().len().max(2);
    let head: String = answer.suggestions.head(&preamble(answer));
    let mut files = vec![(READ_FIRST.to_owned(), head)];
    for (at, (stem, policies)) in groups.into_iter().enumerate() {
        let number = at + 1;
        let mut text = format!(
            "{MARK}: file {number} of {all}; apply them in the order of their names, see {READ_FIRST}.\n# {}\n",
            answer.confidence
        );
        text.extend(policies.into_iter().map(Suggestion::to_yaml));
        files.push((format!("{number:0digits$}-{stem}.yaml"), text));
    }
    Ok(files)
}

fn namespace(suggestion: &Suggestion) -> &str {
    suggestion.policy.metadata.namespace.as_deref().unwrap_or_default()
}

fn stem(suggestion: &Suggestion) -> String {
    let name = suggestion.policy.metadata.name.as_deref().unwrap_or_default();
    format!("{}-{name}", namespace(suggestion))
}

/// Writes the files, and removes those that an earlier suggestion left and this one has not.
///
/// # Errors
/// If the folder holds manifests of somebody else, which applying the folder would apply too; or on I/O.
pub(super) fn write(folder: &Path, files: &[(String, String)]) -> anyhow::Result<()> {
    let failed = || format!("--output-dir {}", folder.display());
    fs::create_dir_all(folder).with_context(failed)?;
    let mut stale = Vec::new();
    for entry in fs::read_dir(folder).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        let suffix = path.extension().map(|suffix| suffix.to_string_lossy().to_lowercase());
        if !matches!(suffix.as_deref(), Some("yaml" | "yml" | "json")) {
            continue;
        }
        ensure!(
            is_ours(&path).with_context(|| path.display().to_string())?,
            "--output-dir {}: {} is not of an earlier suggestion, and would be applied with them: choose an empty folder",
            folder.display(),
            path.display()
        );
        if files.iter().all(|(name, _)| folder.join(name) != path) {
            stale.push(path);
        }
    }
    for (name, text) in files {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    for path in stale {
        fs::remove_file(&path).with_context(|| format!("{}: cannot be removed", path.display()))?;
    }
    Ok(())
}

fn is_ours(path: &Path) -> io::Result<bool> {
    Ok(fs::read(path)?.starts_with(MARK.as_bytes()))
}
