//! `dryfence preview`: what a candidate would change, on recorded edges.

mod input;
mod markdown;
#[cfg(test)]
mod tests;
mod text;
mod words;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;

use self::input::Refused;
use super::recording::{self, AskArgs};
use super::terminal::{PrintArgs, print, width};
use crate::model::dialect::Dialect;
use crate::model::scenario::Assumption;
use crate::preview::{Base, DenyScope, FailOn, Outcome, Preview, Settings, preview};
use crate::serve::address::Address;

/// The exit codes besides 0: as `kubectl diff`, and one for what it has no need of.
const DIFFERENT: u8 = 1;
const ERROR: u8 = 2;
const CANNOT_TELL: u8 = 3;

/// Shows what a candidate would change, on recorded connections: newly denied, newly allowed, unknown.
///
/// Exit codes: 0 no difference in what was recorded; 1 differences, as --fail-on names them; 2 an error, and
/// nothing was judged; 3 cannot tell: no difference was found, but nothing was recorded, edges were lost, or
/// something could not be judged.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The candidate: a file, a folder of files, or - for standard input, may be repeated. Policies, and
    /// workloads, pods and namespaces with new labels or ports
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    /// The candidate: a folder with a kustomization. Needs kustomize or kubectl
    #[arg(short = 'k', long, value_name = "DIR")]
    kustomize: Option<PathBuf>,
    /// Take everything below the folders that -f names
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Recorded edges, may be repeated: files of dryfence's own format, also .gz and .zst; - is standard input
    #[arg(long, value_name = "FILE", num_args = 1..)]
    flows: Vec<PathBuf>,
    /// Take what this agent recorded, may be repeated: unix:/path, /path, 127.0.0.1:9478
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    agent: Vec<Address>,
    /// The cluster as it is now: files and folders of manifests, may be repeated
    #[arg(long, value_name = "PATH")]
    manifests: Vec<PathBuf>,
    /// What the candidate is laid over: the policies of --manifests, or none
    #[arg(long, value_enum, default_value_t)]
    base: BaseArg,
    /// Remove the candidate's policies from the base instead
    #[arg(long)]
    delete: bool,
    /// Besides, deny by default in these namespaces; all: in every one but kube-system
    #[arg(long, value_name = "NS…|all", value_delimiter = ',', num_args = 1..)]
    default_deny: Vec<String>,
    /// What --default-deny is assumed to allow besides: dns, metrics, ingress, or none
    #[arg(long, value_name = "WHAT", value_delimiter = ',', default_value = "dns")]
    assume: Vec<String>,
    /// How the CNI reads what the API leaves open: NAME[,switch=true|false…] [default: that of the recording]
    #[arg(long)]
    dialect: Option<Dialect>,
    /// Which differences give exit code 1
    #[arg(long, value_enum, default_value_t)]
    fail_on: FailOnArg,
    /// The namespace of candidates that name none
    #[arg(short, long)]
    namespace: Option<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    print: PrintArgs,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum BaseArg {
    #[default]
    Enforced,
    Empty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum FailOnArg {
    NewlyDenied,
    NewlyAllowed,
    NewViolation,
    Unknown,
    #[default]
    Any,
    None,
}

/// Which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    #[default]
    Table,
    /// With dates, addresses, every reason, and the policies to paste
    Wide,
    Json,
    /// The header, then one finding a line
    Jsonl,
    /// For a pull request
    Markdown,
    /// The workloads whose connections change
    Name,
}

impl From<FailOnArg> for FailOn {
    fn from(given: FailOnArg) -> Self {
        match given {
            FailOnArg::NewlyDenied => Self::NewlyDenied,
            FailOnArg::NewlyAllowed => Self::NewlyAllowed,
            FailOnArg::NewViolation => Self::NewViolation,
            FailOnArg::Unknown => Self::Unknown,
            FailOnArg::Any => Self::Any,
            FailOnArg::None => Self::None,
        }
    }
}

/// Previews. Blocks, and starts a runtime of its own where it asks agents: call it outside of one.
///
/// # Errors
/// If the recording, the base or the arguments cannot be used, or the answer cannot be written. A candidate with
/// errors is listed on standard error and gives exit code 2.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let candidate = match input::candidate(args) {
        Ok(candidate) => candidate,
        Err(Refused::Findings(findings)) => {
            let mut stderr = io::stderr().lock();
            for finding in &findings {
                writeln!(stderr, "{}: {finding}", finding.severity)?;
            }
            writeln!(stderr, "error: the candidate has errors: nothing was judged")?;
            return Ok(ExitCode::from(ERROR));
        }
        Err(Refused::Other(error)) => return Err(error),
    };
    let base = input::base(args)?;
    let mut recording = input::recording(args)?;
    let settings = settings(args, &recording.dialects)?;
    let mut preview = preview(&mut recording, &base.objects, &candidate.objects, &settings);
    preview.warnings.extend(base.warnings.into_iter().chain(candidate.warnings));
    print(&rendered(&preview, args, width())?, args.print.color)?;
    Ok(match preview.outcome(args.fail_on.into()) {
        Outcome::Same => ExitCode::SUCCESS,
        Outcome::Different => ExitCode::from(DIFFERENT),
        Outcome::CannotTell => ExitCode::from(CANNOT_TELL),
    })
}

fn settings(args: &Args, recorded: &std::collections::BTreeSet<String>) -> anyhow::Result<Settings> {
    let dialect = recording::dialect(args.dialect, recorded)?;
    let assume = match &*args.assume {
        [none] if none == "none" => Vec::new(),
        names => names
            .iter()
            .map(|name| name.parse::<Assumption>())
            .collect::<Result<_, _>>()
            .context("--assume")?,
    };
    let default_deny = match &*args.default_deny {
        [] => None,
        names if names.iter().any(|name| name == "all") => {
            anyhow::ensure!(names.len() == 1, "--default-deny: all does not go with names of namespaces");
            Some(DenyScope::All)
        }
        names => Some(DenyScope::Namespaces(names.to_vec())),
    };
    let base = match args.base {
        BaseArg::Enforced => Base::Enforced,
        BaseArg::Empty => Base::Empty,
    };
    Ok(Settings { dialect, base, delete: args.delete, default_deny, assume })
}

fn rendered(preview: &Preview, args: &Args, width: usize) -> anyhow::Result<String> {
    let headers = !args.print.no_headers;
    Ok(match args.output {
        Output::Table => text::render(preview, text::Look { width, wide: false, headers }),
        Output::Wide => text::render(preview, text::Look { width, wide: true, headers }),
        Output::Markdown => markdown::render(preview, headers).context("the preview as Markdown")?,
        Output::Json => serde_json::to_string_pretty(preview).context("the preview as JSON")? + "\n",
        Output::Jsonl => words::json_lines(preview, headers).context("the preview as JSON lines")?,
        Output::Name => words::names(preview),
    })
}
