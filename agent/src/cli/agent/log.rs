//! The log, and its filter, which follows the settings file while the agent runs.

use std::io::IsTerminal as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use super::ServingArgs;
use crate::cli::settings::log_of;

/// What is logged where nothing says otherwise.
pub(super) const DEFAULT: &str = "info";
/// What the client of the API server says of every attempt; the watches say it once, by kind. A filter that names
/// these goes before it.
const QUIET: &str = "kube_client=error,kube_runtime=error";
/// How often the file is looked at. It is a few lines; a ConfigMap's is replaced by swapping links, which a watch on
/// the file itself does not see.
const POLL: Duration = Duration::from_secs(2);

/// Checks a filter, as clap wants it.
pub(super) fn filter(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    EnvFilter::try_new(text).map(|_| text.to_owned())
}

/// The filter that is meant by a text.
fn parsed(text: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    // By itself first, so that an error is about what was written.
    EnvFilter::try_new(text)?;
    EnvFilter::try_new(format!("{QUIET},{text}"))
}

type Change = Box<dyn Fn(EnvFilter) -> bool + Send>;

/// Starts the log, and follows the settings file's `log` unless a flag or variable goes before it.
///
/// # Errors
/// Where the filter is none, a log was started before, or no thread can be started.
pub(super) fn start(serving: &ServingArgs, config: Option<&Path>) -> anyhow::Result<()> {
    let filter =
        parsed(&serving.log).with_context(|| format!("--log \"{}\" is not a filter", serving.log))?;
    let text =
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // The filter goes last: it takes the format's type with it.
    let (started, change): (_, Change) = if serving.log_json {
        let subscriber = text.json().with_env_filter(filter).with_filter_reloading();
        let handle = subscriber.reload_handle();
        (subscriber.try_init(), Box::new(move |filter| handle.reload(filter).is_ok()))
    } else {
        let subscriber = text.with_env_filter(filter).with_filter_reloading();
        let handle = subscriber.reload_handle();
        (subscriber.try_init(), Box::new(move |filter| handle.reload(filter).is_ok()))
    };
    // Only one subscriber can be: a second start in one process is a fault of ours.
    started.map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))?;
    let Some(config) = config else { return Ok(()) };
    // It is the file's if it says what is in force: what was parsed does not tell where it came from.
    if log_of(config).is_ok_and(|log| log.as_deref().unwrap_or(DEFAULT) == serving.log) {
        let (config, log) = (config.to_owned(), serving.log.clone());
        let follow = move || follow(&config, log, &change);
        thread::Builder::new().name("log".to_owned()).spawn(follow).context("the log's thread")?;
    }
    Ok(())
}

/// Takes over what the file says, for as long as the process lives. What cannot be read changes nothing, and is said
/// once.
fn follow(config: &Path, mut log: String, change: &Change) {
    let mut complaint = String::new();
    loop {
        thread::sleep(POLL);
        let read = log_of(config).map(|found| found.unwrap_or_else(|| DEFAULT.to_owned()));
        let taken = read.and_then(|wanted| {
            if wanted == log {
                return Ok(());
            }
            let filter = parsed(&wanted)
                .map_err(|error| format!("{}: log: \"{wanted}\": {error}", config.display()))?;
            if change(filter) {
                // At the level that always shows: who asked for less should see that it was heard.
                tracing::error!(
                    from = log,
                    to = wanted,
                    "the log's filter was changed, as the settings file says"
                );
            }
            log = wanted;
            Ok(())
        });
        let new = taken.err().unwrap_or_default();
        if !new.is_empty() && new != complaint {
            tracing::warn!(error = new, "the log's filter stays as it is");
        }
        complaint = new;
    }
}
