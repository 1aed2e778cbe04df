//! What segment maps say of what was seen, and what is excepted from them and from scenarios. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::build::ENFORCED;
use crate::finding::{End, Link};
use crate::model::edge::Protocol;
use crate::model::record::{EdgeList, ExceptionFindingRecord, ExceptionRecord, SegmentMapRecord};
use crate::model::time::Timestamp;
use crate::model::verdict::Verdict;

/// What crosses declared segments, whatever the policies say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SegmentFindings {
    /// Connections that some map forbids and no exception mutes, each counted once.
    pub connections: u64,
    /// In order of name.
    pub maps: Vec<MapFindings>,
}

/// What one map says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MapFindings {
    pub map: String,
    pub severity: String,
    pub in_force: bool,
    /// Why it is not in force.
    pub reasons: Vec<String>,
    /// What in it may not do what it seems to.
    pub notes: Vec<String>,
    /// Connections that it forbids and no exception mutes.
    pub connections: u64,
    /// Connections that it forbids and an exception mutes.
    pub excepted: u64,
    pub pairs: Vec<SegmentPair>,
    pub unknown: Vec<MapUnknown>,
}

/// Everything that crosses from one segment into another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SegmentPair {
    /// `None`: from what is in no segment.
    pub from: Option<String>,
    pub to: Option<String>,
    pub connections: u64,
    pub crossings: Vec<SegmentCrossing>,
}

/// One connection that a map forbids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SegmentCrossing {
    pub initiator: End,
    pub responder: End,
    /// The responder's port; for ICMP, type × 256 + code.
    pub port: u16,
    pub protocol: Protocol,
    pub connections: u64,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    /// The rule that decided, where one did.
    pub rule: Option<String>,
    pub reason: String,
    /// What the policies in force say of it; `None`: they were not asked.
    pub enforced: Option<Verdict>,
}

/// Connections of which a map cannot tell, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MapUnknown {
    pub code: String,
    pub reason: String,
    pub connections: u64,
}

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

/// What the maps of `list` say of these links.
pub(super) fn segments(list: &EdgeList, links: &[Link<'_>]) -> SegmentFindings {
    let forbidden = |link: &Link<'_>| {
        let seen = link.seen(|pair| {
            pair.segment_maps()
                .any(|map| pair.crossing(map).is_some_and(|told| told.is_violation() && !told.excepted))
        });
        seen.connections
    };
    SegmentFindings {
        connections: links.iter().map(forbidden).fold(0, u64::saturating_add),
        maps: maps(list).into_values().map(|map| of_map(map, links)).collect(),
    }
}

/// The maps by name: those that are listed, as every agent knows them, and those that only edges name.
fn maps(list: &EdgeList) -> BTreeMap<&str, SegmentMapRecord> {
    let mut maps: BTreeMap<&str, SegmentMapRecord> = BTreeMap::new();
    for listed in &list.segment_maps {
        let map = maps.entry(&listed.name).or_insert_with(|| listed.clone());
        map.in_force &= listed.in_force;
        for (known, more) in [(&mut map.reasons, &listed.reasons), (&mut map.notes, &listed.notes)] {
            let new: Vec<String> = more.iter().filter(|text| !known.contains(text)).cloned().collect();
            known.extend(new);
        }
    }
    for told in list.edges.iter().flat_map(|edge| &edge.segments) {
        maps.entry(&told.map).or_insert_with(|| SegmentMapRecord {
            name: told.map.clone(),
            severity: told.severity.clone(),
            in_force: true,
            reasons: Vec::new(),
            notes: Vec::new(),
        });
    }
    maps
}

fn of_map(map: SegmentMapRecord, links: &[Link<'_>]) -> MapFindings {
    let mut pairs: BTreeMap<(Option<String>, Option<String>), Vec<SegmentCrossing>> = BTreeMap::new();
    let mut unknown: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut muted: u64 = 0;
    for link in links {
        let excepted = link
            .seen(|pair| pair.crossing(&map.name).is_some_and(|told| told.is_violation() && told.excepted));
        muted = muted.saturating_add(excepted.connections);
        // A link's address pairs may be in different segments.
        let told: BTreeSet<_> = link
            .all_pairs()
            .filter_map(|pair| pair.crossing(&map.name))
            .filter(|told| told.is_violation() && !told.excepted)
            .map(|told| (told.from.clone(), told.to.clone()))
            .collect();
        for (from, to) in told {
            if let Some(crossing) = crossing(link, &map.name, &from, &to) {
                pairs.entry((from, to)).or_default().push(crossing);
            }
        }
        let doubts: BTreeSet<_> = link
            .all_pairs()
            .filter_map(|pair| pair.crossing(&map.name).filter(|told| told.is_unknown()))
            .map(|told| (told.code.clone(), told.reason.clone()))
            .collect();
        for (code, reason) in doubts {
            let seen = link.seen(|pair| {
                pair.crossing(&map.name)
                    .is_some_and(|told| told.is_unknown() && told.code == code && told.reason == reason)
            });
            let sum = unknown.entry((code, reason)).or_default();
            *sum = sum.saturating_add(seen.connections);
        }
    }
    let sum = |crossings: &[SegmentCrossing]| {
        crossings.iter().map(|crossing| crossing.connections).fold(0, u64::saturating_add)
    };
    let pairs: Vec<SegmentPair> = pairs
        .into_iter()
        .map(|((from, to), crossings)| SegmentPair { from, to, connections: sum(&crossings), crossings })
        .collect();
    let unknown = unknown.into_iter().filter(|(_, connections)| *connections > 0);
    MapFindings {
        map: map.name,
        severity: map.severity,
        in_force: map.in_force,
        reasons: map.reasons,
        notes: map.notes,
        connections: pairs.iter().map(|pair| pair.connections).fold(0, u64::saturating_add),
        excepted: muted,
        pairs,
        unknown: unknown
            .map(|((code, reason), connections)| MapUnknown { code, reason, connections })
            .collect(),
    }
}

/// What a link shows that the map forbids between these segments; nothing where nobody accepted it.
fn crossing(
    link: &Link<'_>,
    map: &str,
    from: &Option<String>,
    to: &Option<String>,
) -> Option<SegmentCrossing> {
    let concerned = |pair: &crate::finding::Pair<'_>| {
        pair.crossing(map)
            .is_some_and(|told| told.is_violation() && !told.excepted && told.from == *from && told.to == *to)
    };
    let seen = link.seen(concerned);
    let pair = link.all_pairs().find(|pair| concerned(pair))?;
    let told = pair.crossing(map).filter(|_| seen.connections > 0)?;
    // The gravest: what is denied somewhere is not allowed.
    let verdicts = link.all_pairs().filter(|pair| concerned(pair)).filter_map(|pair| pair.verdict(ENFORCED));
    Some(SegmentCrossing {
        initiator: link.initiator.clone(),
        responder: link.responder.clone(),
        port: link.port,
        protocol: link.protocol,
        connections: seen.connections,
        first_seen: seen.first,
        last_seen: seen.last,
        rule: told.rule.clone(),
        reason: told.reason.clone(),
        enforced: verdicts.reduce(Verdict::and),
    })
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
