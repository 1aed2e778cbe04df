//! What is excepted from scenarios and segment maps. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::finding::Link;
use crate::model::record::{EdgeList, ExceptionFindingRecord, ExceptionRecord};

/// What exceptions mute, and what is wrong with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Excepted {
    /// Each counted once.
    pub connections: u64,
    pub by: Vec<ExceptedBy>,
    /// Those that have expired among them.
    pub findings: Vec<ExceptionFindingRecord>,
}

/// What one exception mutes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExceptedBy {
    #[serde(flatten)]
    pub exception: ExceptionRecord,
    /// The scenarios and segment maps that it is an exception from.
    pub from: BTreeSet<String>,
    pub connections: u64,
}

/// What exceptions mute in these scenarios and in every map.
pub(super) fn excepted(list: &EdgeList, links: &[Link<'_>], scenarios: &[&str]) -> Excepted {
    let mut by: BTreeMap<&ExceptionRecord, ExceptedBy> = BTreeMap::new();
    let mut connections: u64 = 0;
    for link in links {
        let any = link.seen(|pair| pair.exceptions(scenarios).next().is_some());
        connections = connections.saturating_add(any.connections);
        let named: BTreeSet<_> = link.all_pairs().flat_map(|pair| pair.exceptions(scenarios)).collect();
        let mut counted = BTreeSet::new();
        for (from, exception) in named {
            let Some(exception) = exception else { continue };
            let seen =
                link.seen(|pair| pair.exceptions(scenarios).any(|(_, other)| other == Some(exception)));
            if seen.connections == 0 {
                continue;
            }
            let entry = by.entry(exception).or_insert_with(|| ExceptedBy {
                exception: exception.clone(),
                from: BTreeSet::new(),
                connections: 0,
            });
            entry.from.insert(from.to_owned());
            if counted.insert(exception) {
                entry.connections = entry.connections.saturating_add(seen.connections);
            }
        }
    }
    Excepted { connections, by: by.into_values().collect(), findings: list.exception_findings.clone() }
}
