//! From judged edges to findings. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::excepted::{Excepted, excepted};
use super::words;
use crate::finding::words::{edge, title};
use crate::finding::{Denial, End, Link, Pair, Seen, SegmentFindings};
use crate::model::cause::Cause;
use crate::model::edge::{Direction, Protocol};
use crate::model::record::{DecisionRecord, EdgeList, LossRecord, SegmentMapRecord};
use crate::model::time::Timestamp;
use crate::model::verdict::Verdict;

/// The scenario that the others are compared with.
pub(super) const ENFORCED: &str = "enforced";

/// What a report is to be about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Only findings with an end in one of these; empty: all.
    pub namespaces: Vec<String>,
    /// One scenario; `None`: all of them, `enforced` first and each other one only beyond it.
    pub scenario: Option<String>,
    /// Whether the input said what was lost and when recording began.
    pub window_known: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { namespaces: Vec::new(), scenario: None, window_known: true }
    }
}

/// What would break, whose it is, and what would allow it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub window: Window,
    pub dialect: String,
    /// What each scenario assumes.
    pub assumed: Vec<String>,
    /// Problems of the objects that verdicts rest on.
    pub warnings: Vec<String>,
    /// How far the findings can be relied on.
    pub confidence: String,
    pub scenarios: Vec<ScenarioFindings>,
    /// What crosses declared segments, whatever the policies say.
    pub segments: SegmentFindings,
    /// What is known and muted; in no number of `scenarios` and `segments`.
    pub excepted: Excepted,
    pub unknown: Vec<UnknownGroup>,
    pub failing: Vec<Failing>,
    /// What to do next.
    pub next: String,
}

/// From when to when was recorded, and what was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Window {
    pub start: Timestamp,
    pub end: Timestamp,
    pub seconds: u64,
    /// `None`: the input does not say.
    pub losses: Option<Vec<LossRecord>>,
    pub unobserved: Vec<String>,
}

/// What one scenario would break.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScenarioFindings {
    pub name: String,
    /// Only what this scenario does not break already is listed.
    pub beyond: Option<String>,
    /// Connections that this scenario would break and `beyond` would not.
    pub connections: u64,
    /// Connections that it would break besides, and whose denials exceptions mute.
    pub excepted: u64,
    pub groups: Vec<Group>,
}

/// Findings of one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    pub cause: Cause,
    pub title: &'static str,
    pub findings: Vec<Finding>,
}

/// One connection that would break, with everything that must change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub initiator: End,
    pub responder: End,
    /// The responder's port; for ICMP, type × 256 + code.
    pub port: u16,
    pub protocol: Protocol,
    /// Counted once, wherever they were seen.
    pub connections: u64,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    /// The scenario that this one is compared with breaks it too; here is what it needs besides.
    pub broken_before: bool,
    /// At most one a direction.
    pub denials: Vec<Denial>,
}

/// Verdicts that could not be given, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnknownGroup {
    pub code: String,
    pub reason: String,
    pub scenarios: BTreeSet<String>,
    pub connections: u64,
    /// `initiator → responder port`.
    pub edges: BTreeSet<String>,
}

/// A connection that nobody accepts today.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failing {
    pub initiator: End,
    pub responder: End,
    pub port: u16,
    pub protocol: Protocol,
    pub attempts: u64,
    pub refused: u64,
    pub last_seen: Timestamp,
    /// Whether the policies in force deny it: then they are the likely reason.
    pub denied_by: Vec<String>,
}

/// What would break by these edges.
pub fn build(list: &EdgeList, options: &Options) -> Report {
    let links: Vec<Link<'_>> =
        Link::all(&list.edges).into_iter().filter(|link| link.is_in(&options.namespaces)).collect();
    let mut scenarios = scenarios(list, options, &links);
    let groups = scenarios.iter_mut().flat_map(|scenario| &mut scenario.groups);
    let findings = groups.flat_map(|group| &mut group.findings);
    Denial::name_apart(findings.flat_map(|finding| &mut finding.denials));
    let segments = SegmentFindings::of(maps(list).into_values(), &links, ENFORCED);
    let names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
    let excepted = excepted(list, &links, &names);
    let unknown = unknown(&links, &names);
    let window = Window {
        start: list.window.start,
        end: list.window.end,
        seconds: list.window.end.since(list.window.start).as_secs(),
        losses: options.window_known.then(|| list.window.losses.clone()),
        unobserved: list.window.unobserved.clone(),
    };
    let confidence = words::confidence(&window, &unknown);
    let next = words::next(&scenarios, &segments, &unknown);
    Report {
        window,
        dialect: list.dialect.clone(),
        assumed: list
            .scenarios
            .iter()
            .filter(|scenario| scenario.description != scenario.name && !scenario.description.is_empty())
            .filter(|scenario| options.scenario.as_ref().is_none_or(|wanted| *wanted == scenario.name))
            .map(|scenario| scenario.description.clone())
            .collect(),
        warnings: list.warnings.clone(),
        confidence,
        scenarios,
        segments,
        excepted,
        unknown,
        failing: failing(&links),
        next,
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

fn scenarios(list: &EdgeList, options: &Options, links: &[Link<'_>]) -> Vec<ScenarioFindings> {
    let known: BTreeSet<&str> =
        list.edges.iter().flat_map(|edge| edge.verdicts.keys().map(String::as_str)).collect();
    let listed = list.scenarios.iter().map(|scenario| scenario.name.as_str());
    let mut names: Vec<&str> = listed.clone().collect();
    names.extend(known.into_iter().filter(|name| !listed.clone().any(|listed| listed == *name)));
    // Stable: the others keep their order.
    names.sort_by_key(|name| *name != ENFORCED);
    if let Some(wanted) = &options.scenario {
        return vec![scenario_findings(wanted, None, links)];
    }
    let has_enforced = names.first() == Some(&ENFORCED);
    names
        .into_iter()
        .map(|name| {
            let beyond = (has_enforced && name != ENFORCED).then_some(ENFORCED);
            scenario_findings(name, beyond, links)
        })
        .collect()
}

fn scenario_findings(name: &str, beyond: Option<&str>, links: &[Link<'_>]) -> ScenarioFindings {
    let mut groups: BTreeMap<Cause, Vec<Finding>> = BTreeMap::new();
    for link in links {
        if let Some(finding) = finding(link, name, beyond) {
            groups.entry(link.cause).or_default().push(finding);
        }
    }
    let groups: Vec<Group> =
        groups.into_iter().map(|(cause, findings)| Group { cause, title: title(cause), findings }).collect();
    let connections = groups
        .iter()
        .flat_map(|group| &group.findings)
        .filter(|finding| !finding.broken_before)
        .fold(0, |sum: u64, finding| sum.saturating_add(finding.connections));
    let excepted = links.iter().map(|link| link.seen(|pair| pair.is_excepted(name)).connections);
    ScenarioFindings {
        name: name.to_owned(),
        beyond: beyond.map(ToOwned::to_owned),
        connections,
        excepted: excepted.fold(0, u64::saturating_add),
        groups,
    }
}

/// The directions of a pair that the scenario denies and `beyond` does not, unless an exception mutes that.
fn newly_denied<'a>(
    pair: &Pair<'a>,
    direction: Direction,
    scenario: &str,
    beyond: Option<&str>,
) -> Option<&'a DecisionRecord> {
    let before = beyond.is_some_and(|beyond| pair.denied(direction, beyond).is_some());
    pair.denied(direction, scenario).filter(|_| !before && !pair.is_excepted(scenario))
}

fn finding(link: &Link<'_>, scenario: &str, beyond: Option<&str>) -> Option<Finding> {
    let concerned = |pair: &Pair<'_>| {
        Direction::BOTH.into_iter().any(|direction| newly_denied(pair, direction, scenario, beyond).is_some())
    };
    let before = |pair: &Pair<'_>| beyond.is_some_and(|beyond| pair.verdict(beyond) == Some(Verdict::Deny));
    let fresh = link.seen(|pair| concerned(pair) && !before(pair));
    let broken_before = fresh.connections == 0;
    let seen = if broken_before { link.seen(concerned) } else { fresh };
    if seen.connections == 0 {
        return None;
    }
    let mut denials = Vec::new();
    for direction in Direction::BOTH {
        let answer = link.all_pairs().find_map(|pair| newly_denied(pair, direction, scenario, beyond));
        denials.extend(answer.map(|answer| Denial::new(link, direction, answer)));
    }
    Some(Finding {
        initiator: link.initiator.clone(),
        responder: link.responder.clone(),
        port: link.port,
        protocol: link.protocol,
        connections: seen.connections,
        first_seen: seen.first,
        last_seen: seen.last,
        broken_before,
        denials,
    })
}

fn unknown(links: &[Link<'_>], scenarios: &[&str]) -> Vec<UnknownGroup> {
    let mut groups: BTreeMap<(String, String), UnknownGroup> = BTreeMap::new();
    for link in links {
        // A connection counts once under a reason, however many scenarios and directions give it.
        let mut counted = BTreeSet::new();
        for pair in link.all_pairs() {
            for scenario in
                scenarios.iter().filter(|scenario| pair.verdict(scenario) == Some(Verdict::Unknown))
            {
                let answers =
                    Direction::BOTH.into_iter().filter_map(|direction| pair.decision(direction, scenario));
                for answer in answers.filter(|answer| answer.verdict == Verdict::Unknown) {
                    let code = answer.unknown.clone().unwrap_or_else(|| "unknown".to_owned());
                    let group = groups.entry((code.clone(), answer.reason.clone())).or_insert_with(|| {
                        let reason = answer.reason.clone();
                        UnknownGroup { code: code.clone(), reason, ..UnknownGroup::EMPTY }
                    });
                    group.scenarios.insert((*scenario).to_owned());
                    group.edges.insert(edge(&link.initiator, &link.responder, link.port, link.protocol));
                    if counted.insert((code, answer.reason.clone(), std::ptr::from_ref(pair))) {
                        group.connections = group.connections.saturating_add(pair.seen().connections);
                    }
                }
            }
        }
    }
    groups.into_values().collect()
}

impl UnknownGroup {
    const EMPTY: Self = Self {
        code: String::new(),
        reason: String::new(),
        scenarios: BTreeSet::new(),
        connections: 0,
        edges: BTreeSet::new(),
    };
}

fn failing(links: &[Link<'_>]) -> Vec<Failing> {
    let failing = links.iter().filter_map(|link| {
        let Seen { connections, attempts, refused, last, .. } = link.seen(|_| true);
        if connections > 0 || attempts == 0 {
            return None;
        }
        let policies: BTreeSet<String> = link
            .all_pairs()
            .flat_map(|pair| Direction::BOTH.map(|direction| pair.denied(direction, ENFORCED)))
            .flatten()
            .flat_map(|answer| answer.isolated_by.iter().chain(&answer.policy).cloned())
            .collect();
        Some(Failing {
            initiator: link.initiator.clone(),
            responder: link.responder.clone(),
            port: link.port,
            protocol: link.protocol,
            attempts,
            refused,
            last_seen: last,
            denied_by: policies.into_iter().collect(),
        })
    });
    failing.collect()
}

impl Report {
    /// Every finding, in the order in which they are shown.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.scenarios.iter().flat_map(ScenarioFindings::findings)
    }

    /// Every policy to paste, each once.
    pub fn yaml(&self) -> String {
        let mut seen = BTreeSet::new();
        let fixes = self
            .findings()
            .flat_map(|finding| &finding.denials)
            .filter_map(|denial| denial.fix.yaml.as_deref());
        fixes.filter(|yaml| seen.insert(*yaml)).collect::<Vec<_>>().join("---\n")
    }
}

impl ScenarioFindings {
    /// Its findings, in the order in which they are shown.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.groups.iter().flat_map(|group| &group.findings)
    }
}

impl Window {
    /// How long was recorded.
    pub const fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}
