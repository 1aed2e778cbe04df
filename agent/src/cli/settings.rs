//! Settings of the agent by flag, by environment variable and by file, in this order; all that is wrong said at once.
//!
//! The file is one YAML map whose keys are the flags' names without the dashes. What it holds becomes flags in front of
//! those that were given, as far as neither a flag nor a variable says the same: there is one place that checks values.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::Value;

/// The command that has a settings file.
const AGENT: &str = "agent";
/// The flag that names the file; its variable is the argument's own.
const CONFIG: &str = "config";
/// Flags that say what to do, not how.
const NO_SETTINGS: [&str; 6] = [CONFIG, "cleanup", "stay", "wait-for", "help", "version"];

/// Why there are no settings.
#[derive(Debug)]
pub enum Failed {
    /// Of clap: help that was asked for, or an error of a command without a file.
    Clap(Box<clap::Error>),
    /// Everything that is wrong, a sentence each, with where it was said.
    Problems(Vec<String>),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clap(error) => error.fmt(f),
            Self::Problems(problems) => {
                problems.iter().try_for_each(|problem| writeln!(f, "error: {problem}"))
            }
        }
    }
}

/// Reads a command line with the settings file that it or the environment names.
///
/// # Errors
/// Everything that is wrong with it, or help that was asked for.
pub fn read(command: Command, line: Vec<OsString>) -> Result<ArgMatches, Failed> {
    if line.get(1).is_none_or(|name| name != AGENT) {
        return command.try_get_matches_from(line).map_err(|error| Failed::Clap(Box::new(error)));
    }
    let mut reading = Reading { command, line, file: None, problems: Vec::new() };
    reading.take_file();
    reading.matches()
}

/// What the file says `log` is; `None` where a flag or variable goes before it, or there is no file.
pub fn log_of(config: &Path) -> Result<Option<String>, String> {
    match read_map(config)?.get("log") {
        None => Ok(None),
        Some(Value::String(filter)) => Ok(Some(filter.clone())),
        Some(other) => Err(format!("{}: log: {other} is not a filter", config.display())),
    }
}

/// A command line being read.
struct Reading {
    command: Command,
    line: Vec<OsString>,
    file: Option<File>,
    problems: Vec<String>,
}

/// A settings file, and which flags came from it.
struct File {
    path: PathBuf,
    flags: Vec<String>,
}

impl Reading {
    /// The agent's argument with this long name.
    fn argument(&self, name: &str) -> Option<&Arg> {
        let agent = self.command.find_subcommand(AGENT)?;
        agent.get_arguments().find(|arg| arg.get_long() == Some(name))
    }

    /// Puts what the file says in front of what was given.
    fn take_file(&mut self) {
        let Some(path) = self.config() else { return };
        let map = match read_map(&path) {
            Ok(map) => map,
            Err(problem) => return self.problems.push(problem),
        };
        let mut file = File { path, flags: Vec::new() };
        let mut flags = Vec::new();
        for (name, value) in &map {
            match self.flags(name, value) {
                Ok(more) if more.is_empty() => {}
                Ok(more) => {
                    file.flags.push(name.clone());
                    flags.extend(more);
                }
                Err(problem) => self.problems.push(format!("{}: {name}: {problem}", file.path.display())),
            }
        }
        self.line.splice(2..2, flags);
        self.file = Some(file);
    }

    fn config(&self) -> Option<PathBuf> {
        let mut line = self.line.iter().skip(2);
        while let Some(token) = line.next() {
            if token == "--config" {
                return line.next().map(PathBuf::from);
            }
            if let Some(path) = token.to_str().and_then(|token| token.strip_prefix("--config=")) {
                return Some(path.into());
            }
        }
        let variable = self.argument(CONFIG)?.get_env()?;
        std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// What one setting of the file is as flags; none where something goes before it.
    fn flags(&self, name: &str, value: &Value) -> Result<Vec<OsString>, String> {
        let argument = self.argument(name).filter(|_| !NO_SETTINGS.contains(&name));
        let argument = argument.ok_or_else(|| "there is no such setting".to_owned())?;
        if self.is_given(argument) {
            return Ok(Vec::new());
        }
        if matches!(argument.get_action(), ArgAction::SetTrue) {
            return match value {
                Value::Bool(true) => Ok(vec![format!("--{name}").into()]),
                Value::Bool(false) => Ok(Vec::new()),
                other => Err(format!("{other} is neither true nor false")),
            };
        }
        let values = match value {
            Value::Array(values) if matches!(argument.get_action(), ArgAction::Append) => values.as_slice(),
            Value::Array(_) => return Err("takes one value, not a list".to_owned()),
            one => std::slice::from_ref(one),
        };
        let flag = |value: &Value| match value {
            Value::String(text) => Ok(format!("--{name}={text}").into()),
            Value::Number(_) | Value::Bool(_) => Ok(format!("--{name}={value}").into()),
            other => Err(format!("{other} is neither a text nor a number")),
        };
        values.iter().map(flag).collect()
    }

    /// Whether a flag or a variable says it.
    fn is_given(&self, argument: &Arg) -> bool {
        let by_variable = argument.get_env().is_some_and(|name| std::env::var_os(name).is_some());
        by_variable || self.line.iter().skip(2).any(|token| is_flag(token, argument))
    }

    /// Parses until nothing more is found, each time without what was found wrong.
    fn matches(mut self) -> Result<ArgMatches, Failed> {
        // Each turn takes something away that is wrong.
        loop {
            let error = match self.command.clone().try_get_matches_from(&self.line) {
                Ok(matches) if self.problems.is_empty() => return Ok(matches),
                Ok(_) => return Err(Failed::Problems(self.problems)),
                Err(error) => error,
            };
            if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
                return Err(Failed::Clap(Box::new(error)));
            }
            let was_wrong = !self.problems.is_empty();
            // What is missing may be missing only because it was wrong.
            if !(was_wrong && error.kind() == ErrorKind::MissingRequiredArgument) {
                let source = self.source(&error);
                self.problems.push(format!("{source}{}", sentence(&error)));
            }
            if !self.forget(&error) {
                return Err(Failed::Problems(self.problems));
            }
        }
    }

    /// Where a wrong value came from, as the beginning of a sentence; nothing for the command line itself.
    fn source(&self, error: &clap::Error) -> String {
        let Some(argument) = long(error).and_then(|name| self.argument(&name)) else { return String::new() };
        let name = argument.get_long().unwrap_or_default();
        match &self.file {
            Some(file) if file.flags.iter().any(|flag| flag == name) => {
                format!("{}: {name}: ", file.path.display())
            }
            _ if self.line.iter().skip(2).any(|token| is_flag(token, argument)) => String::new(),
            _ => argument.get_env().map_or_else(String::new, |name| format!("{}: ", name.to_string_lossy())),
        }
    }

    /// Takes away what an error is about, so that what else is wrong is found. Whether there was anything.
    fn forget(&mut self, error: &clap::Error) -> bool {
        if !matches!(
            error.kind(),
            ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::UnknownArgument
        ) {
            return false;
        }
        let Some(wrong) = context(error, ContextKind::InvalidArg) else { return false };
        let argument = long(error).and_then(|name| self.argument(&name)).cloned();
        let is_it = |token: &OsString| match &argument {
            Some(argument) => is_flag(token, argument),
            None => token.to_str().is_some_and(|token| token.split('=').next() == wrong.split('=').next()),
        };
        let at = self.line.iter().skip(2).position(is_it).map(|at| at + 2);
        // What a flag goes before is not in force, so it is not looked at either.
        let has_variable = argument.as_ref().is_some_and(|argument| argument.get_env().is_some());
        if let Some(argument) = argument.filter(|_| has_variable) {
            let id = argument.get_id().clone();
            let command = std::mem::take(&mut self.command);
            let forget = |agent: Command| agent.mut_arg(id, |arg| arg.env(None::<&'static str>));
            self.command = command.mut_subcommand(AGENT, forget);
        }
        let Some(at) = at else { return has_variable };
        let flag = self.line.remove(at);
        let has_value = flag.to_str().is_some_and(|flag| flag.contains('='));
        if !has_value && self.line.get(at).is_some_and(|next| !next.to_string_lossy().starts_with('-')) {
            self.line.remove(at);
        }
        true
    }
}

/// Whether a word of the command line is this flag, with or without its value.
fn is_flag(token: &OsStr, argument: &Arg) -> bool {
    let Some(token) = token.to_str() else { return false };
    let long = argument.get_long().is_some_and(|long| {
        let rest = token.strip_prefix("--").and_then(|token| token.strip_prefix(long));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    });
    let short = argument.get_short();
    long || short.is_some_and(|short| !token.starts_with("--") && token.starts_with(&format!("-{short}")))
}

fn context(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text),
        ContextValue::Strings(texts) => texts.first().map(String::as_str),
        _ => None,
    }
}

/// The long name of the argument that an error is about: clap shows it with its value's name.
fn long(error: &clap::Error) -> Option<String> {
    let shown = context(error, ContextKind::InvalidArg)?.strip_prefix("--")?;
    Some(shown.split([' ', '=', '[']).next().unwrap_or(shown).to_owned())
}

/// The error without its beginning and without the advice that follows.
fn sentence(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let first = text.split("\n\n").next().unwrap_or(text);
    first.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

fn read_map(path: &Path) -> Result<serde_json::Map<String, Value>, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(serde_json::Map::new());
    }
    match serde_saphyr::from_str(&text).map_err(|error| format!("{shown}: {error}"))? {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(serde_json::Map::new()),
        _ => Err(format!("{shown}: is not a map of settings")),
    }
}
