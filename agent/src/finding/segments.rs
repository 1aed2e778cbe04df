//! What segment maps say of what was seen. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::end::End;
use super::link::{Link, Pair};
use crate::model::edge::Protocol;
use crate::model::record::SegmentMapRecord;
use crate::model::time::Timestamp;
use crate::model::verdict::Verdict;

/// What crosses declared segments, whatever the policies say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
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
    /// What the policies in force (of a preview: those with the candidate) say of it; `None`: they were not asked.
    pub enforced: Option<Verdict>,
}

/// Connections of which a map cannot tell, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MapUnknown {
    pub code: String,
    pub reason: String,
    pub connections: u64,
}

impl SegmentFindings {
    /// What the maps say of these links; beside it, what the scenario `policies` says.
    pub(crate) fn of(
        maps: impl IntoIterator<Item = SegmentMapRecord>,
        links: &[Link<'_>],
        policies: &str,
    ) -> Self {
        let forbidden = |link: &Link<'_>| {
            let seen = link.seen(|pair| {
                pair.segment_maps()
                    .any(|map| pair.crossing(map).is_some_and(|told| told.is_violation() && !told.excepted))
            });
            seen.connections
        };
        Self {
            connections: links.iter().map(forbidden).fold(0, u64::saturating_add),
            maps: maps.into_iter().map(|map| of_map(map, links, policies)).collect(),
        }
    }

    /// Takes in what the same maps, in the same order, say of other links.
    pub(crate) fn extend(&mut self, other: Self) {
        self.connections = self.connections.saturating_add(other.connections);
        if self.maps.is_empty() {
            self.maps = other.maps;
            return;
        }
        for (map, other) in self.maps.iter_mut().zip(other.maps) {
            map.extend(other);
        }
    }

    /// Every crossing, with the map and the segments.
    pub(crate) fn crossings(&self) -> impl Iterator<Item = (&MapFindings, &SegmentPair, &SegmentCrossing)> {
        self.maps.iter().flat_map(|map| {
            let pairs = map.pairs.iter();
            pairs.flat_map(move |pair| pair.crossings.iter().map(move |crossing| (map, pair, crossing)))
        })
    }
}

impl MapFindings {
    fn extend(&mut self, other: Self) {
        self.connections = self.connections.saturating_add(other.connections);
        self.excepted = self.excepted.saturating_add(other.excepted);
        for pair in other.pairs {
            match self.pairs.iter_mut().find(|known| (&known.from, &known.to) == (&pair.from, &pair.to)) {
                Some(known) => {
                    known.connections = known.connections.saturating_add(pair.connections);
                    known.crossings.extend(pair.crossings);
                }
                None => self.pairs.push(pair),
            }
        }
        for unknown in other.unknown {
            let same =
                |known: &&mut MapUnknown| (&known.code, &known.reason) == (&unknown.code, &unknown.reason);
            match self.unknown.iter_mut().find(same) {
                Some(known) => known.connections = known.connections.saturating_add(unknown.connections),
                None => self.unknown.push(unknown),
            }
        }
    }
}

fn of_map(map: SegmentMapRecord, links: &[Link<'_>], policies: &str) -> MapFindings {
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
            if let Some(crossing) = crossing(link, &map.name, (&from, &to), policies) {
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
    (from, to): (&Option<String>, &Option<String>),
    policies: &str,
) -> Option<SegmentCrossing> {
    let concerned = |pair: &Pair<'_>| {
        pair.crossing(map)
            .is_some_and(|told| told.is_violation() && !told.excepted && told.from == *from && told.to == *to)
    };
    let seen = link.seen(concerned);
    let pair = link.all_pairs().find(|pair| concerned(pair))?;
    let told = pair.crossing(map).filter(|_| seen.connections > 0)?;
    // The gravest: what is denied somewhere is not allowed.
    let verdicts = link.all_pairs().filter(|pair| concerned(pair)).filter_map(|pair| pair.verdict(policies));
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
