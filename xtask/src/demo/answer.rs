//! How the demo ends: what was recorded and the policies suggested for it, in a folder, and what a real
//! `dryfence preview` says of applying them together with default-deny.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::agent::{Agent, dryfence};
use super::process::Process;

/// Names in the folder.
const RECORDED: &str = "edges.jsonl.zst";
const POLICIES: &str = "policies";
/// What `dryfence preview` ends with where something is newly denied, and where it cannot tell.
const DIFFERENT: i32 = 1;
const CANNOT_TELL: i32 = 3;

/// Where the demo leaves what its reader goes on with.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// # Errors
    /// Where it cannot be made.
    pub fn create(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path).with_context(|| format!("cannot make folder {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where the recorded edges are.
    pub fn recorded(&self) -> PathBuf {
        self.path.join(RECORDED)
    }

    /// Where the suggested policies are.
    pub fn policies(&self) -> PathBuf {
        self.path.join(POLICIES)
    }

    /// Writes what the agent recorded.
    ///
    /// # Errors
    /// Where the agent does not say it, or it cannot be written.
    pub async fn record(&self, agent: &Agent) -> Result<()> {
        agent.export(&self.recorded()).await
    }

    /// Writes the policies suggested for what was recorded, and previews them with default-deny everywhere.
    ///
    /// # Errors
    /// Where `binary` fails at either.
    pub async fn answer(&self, binary: &Path, manifests: &Path) -> Result<Answer> {
        let mut suggest = dryfence(binary);
        suggest.arg("suggest").arg("--flows").arg(self.recorded()).arg("--manifests").arg(manifests);
        suggest.arg("--output-dir").arg(self.policies());
        let done = Process::run("dryfence suggest", suggest.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let done = done.await?;
        if !done.status.success() {
            bail!("dryfence suggest {}", ending(&done));
        }
        let mut preview = dryfence(binary);
        preview.arg("preview").arg("-f").arg(self.policies()).arg("--manifests").arg(manifests);
        preview.args(["--default-deny", "all", "--fail-on", "newly-denied", "-o", "json"]);
        preview.arg("--flows").arg(self.recorded()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let done = Process::run("dryfence preview", &mut preview).await?;
        self.give_back()?;
        if !matches!(done.status.code(), Some(0 | DIFFERENT | CANNOT_TELL)) {
            bail!("dryfence preview {}", ending(&done));
        }
        let preview = serde_json::from_slice(&done.stdout).context("the preview cannot be read")?;
        Ok(Answer { preview, told: done.status.code() != Some(CANNOT_TELL) })
    }

    /// What root made is the user's who asked for it by sudo: they are to change and to remove it.
    fn give_back(&self) -> Result<()> {
        let id = |name| std::env::var(name).ok().and_then(|id| id.parse::<u32>().ok());
        let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) else { return Ok(()) };
        let files = fs::read_dir(self.policies())
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>())
            .with_context(|| format!("cannot list {}", self.policies().display()))?;
        for path in [self.path.clone(), self.recorded(), self.policies()].into_iter().chain(files) {
            lchown(&path, Some(user), Some(group))
                .with_context(|| format!("cannot give {} to user {user}", path.display()))?;
        }
        Ok(())
    }
}

fn ending(done: &Output) -> String {
    format!("({}): {}", done.status, String::from_utf8_lossy(&done.stderr).trim())
}

/// What `dryfence preview` says of the suggested policies.
#[derive(Debug)]
pub struct Answer {
    preview: Preview,
    /// Whether it could tell.
    told: bool,
}

/// The fields of a preview that the demo looks at.
#[derive(Debug, Deserialize)]
struct Preview {
    edits: Vec<Edit>,
    counts: Counts,
    newly_denied: Vec<Group>,
    newly_allowed: Vec<Group>,
}

#[derive(Debug, Deserialize)]
struct Edit {
    action: String,
}

#[derive(Debug, Deserialize)]
struct Counts {
    edges: u64,
    newly_denied: Amount,
    newly_allowed: Amount,
}

#[derive(Debug, Deserialize)]
struct Amount {
    findings: u64,
}

#[derive(Debug, Deserialize)]
struct Group {
    owners: Vec<Owned>,
}

#[derive(Debug, Deserialize)]
struct Owned {
    findings: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
struct Finding {
    initiator: End,
    responder: End,
    port: u16,
    protocol: String,
}

#[derive(Debug, Deserialize)]
struct End {
    namespace: Option<String>,
    name: Option<String>,
    #[serde(default)]
    addresses: Vec<String>,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => write!(f, "{namespace}/{name}"),
            (_, name) => f.write_str(name.as_ref().or(self.addresses.first()).map_or("unknown", |name| name)),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {}  {} {}", self.initiator, self.responder, self.protocol, self.port)
    }
}

impl Answer {
    /// How many policies there are to apply.
    fn policies(&self) -> usize {
        let applied = |edit: &&Edit| matches!(edit.action.as_str(), "adds" | "replaces" | "keeps");
        self.preview.edits.iter().filter(applied).count()
    }

    /// What is wrong with it, a sentence each: suggested policies deny nothing that works.
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = findings(&self.preview.newly_denied)
            .map(|finding| format!("the suggested policies newly deny {finding}"))
            .collect();
        if self.policies() == 0 {
            problems.push("no policy was suggested".to_owned());
        }
        if problems.is_empty() && !self.told {
            problems.push("the preview cannot tell what the suggested policies deny".to_owned());
        }
        problems
    }

    /// Prints what applying the policies changes.
    ///
    /// # Errors
    /// Where nothing can be printed.
    pub fn print(&self, output: &mut impl Write) -> io::Result<()> {
        let Counts { edges, newly_denied, newly_allowed } = &self.preview.counts;
        let bold = anstyle::Style::new().bold();
        let policies = self.policies();
        writeln!(
            output,
            "\n{bold}SUGGESTED{bold:#}  the least policies that allow what was accepted, and what applying them with \
             default-deny\n           would change of all {edges} recorded edges\n\n  \
             {bold}apply these {policies} policies: {} newly denied{bold:#}",
            newly_denied.findings
        )?;
        for finding in findings(&self.preview.newly_denied) {
            writeln!(output, "    {finding}")?;
        }
        if !self.told {
            writeln!(output, "  which cannot be relied on: something was lost, or could not be judged")?;
        }
        if newly_allowed.findings > 0 {
            writeln!(
                output,
                "  {} newly allowed, seen although a policy in force forbids it: take out what is to stay forbidden",
                newly_allowed.findings
            )?;
            for finding in findings(&self.preview.newly_allowed) {
                writeln!(output, "    {finding}")?;
            }
        }
        Ok(())
    }
}

fn findings(groups: &[Group]) -> impl Iterator<Item = &Finding> {
    groups.iter().flat_map(|group| &group.owners).flat_map(|owned| &owned.findings)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(denied: bool, told: bool) -> Answer {
        let web = json!({"type": "Pod", "namespace": "shop", "name": "web", "addresses": ["192.0.2.1"]});
        let outside = json!({"type": "External", "addresses": ["198.51.100.7"]});
        let finding = json!({"initiator": web, "responder": outside, "port": 443, "protocol": "TCP"});
        let group = json!([{"owners": [{"findings": [finding]}]}]);
        let preview = json!({
            "edits": [{"action": "adds"}, {"action": "replaces"}, {"action": "default-deny"}],
            "counts": {
                "edges": 3,
                "newly_denied": {"findings": u8::from(denied)},
                "newly_allowed": {"findings": 1},
            },
            "newly_denied": if denied { group.clone() } else { json!([]) },
            "newly_allowed": group,
        });
        Answer { preview: serde_json::from_value(preview).unwrap(), told }
    }

    fn printed(answer: &Answer) -> String {
        let mut bytes = Vec::new();
        answer.print(&mut bytes).unwrap();
        anstream::adapter::strip_bytes(&bytes).into_vec().try_into().unwrap()
    }

    #[test]
    fn what_is_newly_denied_is_counted_named_and_a_problem() {
        let fine = answer(false, true);
        assert_eq!(fine.problems(), <[String; 0]>::default());
        assert!(printed(&fine).contains("\n  apply these 2 policies: 0 newly denied\n  1 newly allowed"));
        let denied = answer(true, true);
        assert_eq!(denied.problems(), ["the suggested policies newly deny shop/web → 198.51.100.7  TCP 443"]);
        let shown = printed(&denied);
        let expected = "\n  apply these 2 policies: 1 newly denied\n    shop/web → 198.51.100.7  TCP 443\n";
        assert!(shown.contains(expected), "{shown}");
    }

    #[test]
    fn what_cannot_be_told_is_no_success() {
        let unsure = answer(false, false);
        assert_eq!(unsure.problems(), ["the preview cannot tell what the suggested policies deny"]);
        assert!(printed(&unsure).contains("cannot be relied on"));
    }
}
