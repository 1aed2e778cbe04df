//! Where a report's edges come from: agents, or files that were written before.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::model::record::{EdgeList, EdgeRecord, WindowRecord};
use crate::model::time::Timestamp;
use crate::serve::address::Address;
use crate::serve::client::{Client, ClientError};

/// Why there are no edges to report on.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error("{path}: cannot be read: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: line {line}: {field}: {source}", path = path.display())]
    Line { path: PathBuf, line: usize, field: String, source: serde_json::Error },
    #[error("{path}: {field}: {source}", path = path.display())]
    List { path: PathBuf, field: String, source: serde_json::Error },
    #[error("{path}: holds no edges", path = .0.display())]
    Empty(PathBuf),
    #[error("{first} judged by dialect \"{a}\" and {second} by \"{b}\": one report cannot hold both")]
    Dialects { first: String, a: String, second: String, b: String },
    #[error("the runtime that asks agents cannot be started: {0}")]
    Runtime(io::Error),
    #[error(transparent)]
    Agent(#[from] ClientError),
}

/// Edges, and whether their source said when it recorded and what it lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Input {
    pub(in crate::cli) list: EdgeList,
    pub(in crate::cli) window_known: bool,
}

/// What these files hold, together. `-` is stdin.
pub(super) fn files(paths: &[PathBuf]) -> Result<Input, InputError> {
    let mut inputs = Vec::new();
    for path in paths {
        let text = if path.as_os_str() == "-" {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map(|_| text)
        } else {
            fs::read_to_string(path)
        };
        let text = text.map_err(|source| InputError::Read { path: path.clone(), source })?;
        inputs.push((path.display().to_string(), parse(path, &text)?));
    }
    merge(inputs)
}

/// What these agents hold, together.
pub(in crate::cli) fn agents(addresses: &[Address], timeout: Duration) -> Result<Input, InputError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(InputError::Runtime)?;
    let mut inputs = Vec::new();
    for address in addresses {
        let list = runtime.block_on(Client::new(address.clone(), timeout).edges(""))?;
        inputs.push((address.to_string(), Input { list, window_known: true }));
    }
    merge(inputs)
}

/// An [`EdgeList`], or one [`EdgeRecord`] a line.
pub(super) fn parse(path: &Path, text: &str) -> Result<Input, InputError> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).peekable();
    let Some((_, first)) = lines.peek() else { return Err(InputError::Empty(path.to_owned())) };
    if is_edge_list(first) {
        let list = strict(text).map_err(|(field, source)| InputError::List {
            path: path.to_owned(),
            field,
            source,
        })?;
        return Ok(Input { list, window_known: true });
    }
    let mut edges = Vec::new();
    for (at, line) in lines {
        let edge: EdgeRecord = strict(line).map_err(|(field, source)| InputError::Line {
            path: path.to_owned(),
            line: at + 1,
            field,
            source,
        })?;
        edges.push(edge);
    }
    Ok(Input { list: without_window(edges), window_known: false })
}

/// Whether a text that begins with this line is one [`EdgeList`]: it is spread over several lines, or it has
/// a field that no edge has.
fn is_edge_list(first: &str) -> bool {
    match serde_json::from_str::<serde_json::Value>(first) {
        Ok(value) => value.get("edges").is_some(),
        Err(error) => error.is_eof(),
    }
}

/// Parses JSON, and says where it did not fit.
fn strict<T: DeserializeOwned>(text: &str) -> Result<T, (String, serde_json::Error)> {
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| (error.path().to_string(), error.into_inner()))?;
    json.end().map_err(|error| (".".to_owned(), error))?;
    Ok(value)
}

/// Edges that came alone: their window is what they span.
fn without_window(edges: Vec<EdgeRecord>) -> EdgeList {
    let start = edges.iter().map(|edge| edge.first_seen).min().unwrap_or(Timestamp::EPOCH);
    let end = edges.iter().map(|edge| edge.last_seen).max().unwrap_or(start);
    EdgeList {
        window: WindowRecord { start, end, losses: Vec::new(), unobserved: Vec::new() },
        dialect: String::new(),
        scenarios: Vec::new(),
        warnings: Vec::new(),
        segment_maps: Vec::new(),
        exception_findings: Vec::new(),
        edges,
    }
}

/// All inputs as one. The window is the one in which every source recorded, as far as there is one.
pub(in crate::cli) fn merge(inputs: Vec<(String, Input)>) -> Result<Input, InputError> {
    let mut inputs = inputs.into_iter();
    let Some((first, mut all)) = inputs.next() else { return Err(InputError::Empty(PathBuf::new())) };
    for (second, Input { mut list, window_known }) in inputs {
        if all.list.dialect != list.dialect {
            return Err(InputError::Dialects { first, a: all.list.dialect, second, b: list.dialect });
        }
        let window = &mut all.list.window;
        window.start = window.start.max(list.window.start);
        window.end = window.end.min(list.window.end).max(window.start);
        window.losses.append(&mut list.window.losses);
        window.unobserved.append(&mut list.window.unobserved);
        for scenario in list.scenarios {
            if !all.list.scenarios.contains(&scenario) {
                all.list.scenarios.push(scenario);
            }
        }
        for warning in list.warnings {
            if !all.list.warnings.contains(&warning) {
                all.list.warnings.push(warning);
            }
        }
        for map in list.segment_maps {
            if !all.list.segment_maps.contains(&map) {
                all.list.segment_maps.push(map);
            }
        }
        for finding in list.exception_findings {
            if !all.list.exception_findings.contains(&finding) {
                all.list.exception_findings.push(finding);
            }
        }
        all.list.edges.append(&mut list.edges);
        all.window_known &= window_known;
    }
    Ok(all)
}
