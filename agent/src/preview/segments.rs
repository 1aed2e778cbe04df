//! What segment maps say before and with the candidate, and the difference.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Amount;
use crate::finding::{MapFindings, MapUnknown, SegmentCrossing, SegmentFindings, SegmentPair};
use crate::model::edge::Protocol;

/// What one segment map says before and with the candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MapChange {
    pub map: String,
    pub severity: String,
    /// Whether it is, with the candidate.
    pub in_force: bool,
    /// Why it is not in force.
    pub reasons: Vec<String>,
    /// What in it may not do what it seems to.
    pub notes: Vec<String>,
    /// What it forbids with the candidate and did not before, or not of as many connections.
    pub new: Vec<SegmentPair>,
    /// What it forbade before and no longer does.
    pub gone: Vec<SegmentPair>,
    /// What it forbids as before.
    pub kept: Amount,
    /// Connections that it forbids with the candidate and an exception mutes.
    pub excepted: u64,
    pub unknown: Vec<MapUnknown>,
}

/// What makes a crossing the same before and after: map, segments, ends, port.
type Key<'a> = (&'a str, Option<&'a str>, Option<&'a str>, String, String, u16, Protocol);

fn key<'a>(map: &'a str, pair: &'a SegmentPair, crossing: &SegmentCrossing) -> Key<'a> {
    let SegmentCrossing { initiator, responder, port, protocol, .. } = crossing;
    let (from, to) = (pair.from.as_deref(), pair.to.as_deref());
    (map, from, to, initiator.to_string(), responder.to_string(), *port, *protocol)
}

/// How many connections cross.
fn sizes(findings: &SegmentFindings) -> BTreeMap<Key<'_>, u64> {
    let crossings = findings.crossings();
    crossings.map(|(map, pair, crossing)| (key(&map.map, pair, crossing), crossing.connections)).collect()
}

/// The map's crossings that are wanted, by their key and size.
fn only(map: &MapFindings, wanted: impl Fn(&Key<'_>, u64) -> bool) -> Vec<SegmentPair> {
    let picked = |pair: &SegmentPair| {
        let crossings = pair.crossings.iter();
        let crossings: Vec<SegmentCrossing> = crossings
            .filter(|crossing| wanted(&key(&map.map, pair, crossing), crossing.connections))
            .cloned()
            .collect();
        let connections = crossings.iter().fold(0, |sum: u64, one| sum.saturating_add(one.connections));
        (!crossings.is_empty()).then(|| SegmentPair { connections, crossings, ..pair.clone() })
    };
    map.pairs.iter().filter_map(picked).collect()
}

/// What changes, map by map in the order of their names.
pub(super) fn changes(before: &SegmentFindings, after: &SegmentFindings) -> Vec<MapChange> {
    let (was, is) = (sizes(before), sizes(after));
    let gone = |name: &str| {
        let map = before.maps.iter().find(|map| map.map == name);
        map.map_or_else(Vec::new, |map| only(map, |key, _| !is.contains_key(key)))
    };
    let grew = |key: &Key<'_>, connections| was.get(key).is_none_or(|before| *before < connections);
    let mut changes: Vec<MapChange> = after
        .maps
        .iter()
        .map(|map| {
            let kept = only(map, |key, connections| !grew(key, connections));
            MapChange {
                map: map.map.clone(),
                severity: map.severity.clone(),
                in_force: map.in_force,
                reasons: map.reasons.clone(),
                notes: map.notes.clone(),
                new: only(map, grew),
                gone: gone(&map.map),
                kept: amount(&kept),
                excepted: map.excepted,
                unknown: map.unknown.clone(),
            }
        })
        .collect();
    let removed = before.maps.iter().filter(|map| after.maps.iter().all(|other| other.map != map.map));
    changes.extend(removed.map(|map| MapChange {
        map: map.map.clone(),
        severity: map.severity.clone(),
        in_force: false,
        reasons: vec!["the candidate removes it".to_owned()],
        notes: Vec::new(),
        new: Vec::new(),
        gone: gone(&map.map),
        kept: Amount::default(),
        excepted: 0,
        unknown: Vec::new(),
    }));
    changes.sort_by(|a, b| a.map.cmp(&b.map));
    changes
}

/// How much crosses.
pub(super) fn amount(pairs: &[SegmentPair]) -> Amount {
    let size =
        |pair: &SegmentPair| Amount { findings: pair.crossings.len() as u64, connections: pair.connections };
    pairs.iter().map(size).fold(Amount::default(), Amount::plus)
}
