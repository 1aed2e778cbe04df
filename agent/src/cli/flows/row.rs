//! One line of a list of flows: a connection between workloads, or (wide) an edge as one pod saw it.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use clap::ValueEnum;

use crate::finding::words::{moment, short_port};
use crate::finding::{End, Link};
use crate::model::cause::Cause;
use crate::model::edge::{Direction, IcmpErrors, OrientedBy, Protocol};
use crate::model::outcome::Outcome;
use crate::model::record::{EdgeList, EdgeRecord, PartyRecord, SegmentRecord};
use crate::model::time::Timestamp;
use crate::model::verdict::Verdict;

/// What to sort by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum SortBy {
    #[default]
    #[value(alias = ".initiator")]
    Initiator,
    #[value(alias = ".responder")]
    Responder,
    #[value(alias = ".port")]
    Port,
    #[value(alias = ".connections")]
    Connections,
    #[value(alias = ".failed")]
    Failed,
    #[value(alias = ".bytes")]
    Bytes,
    #[value(alias = "first_seen", alias = ".first_seen")]
    FirstSeen,
    #[value(alias = "last_seen", alias = ".last_seen", alias = ".lastSeen")]
    LastSeen,
    #[value(alias = ".cause")]
    Cause,
    /// Allowed first, denied last
    #[value(alias = ".verdict")]
    Verdict,
}

/// A scenario's answer for a whole line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// The gravest; `None` where nothing was judged.
    pub(super) verdict: Option<Verdict>,
    /// Not all connections of the line have it.
    pub(super) mixed: bool,
}

impl Answer {
    fn of(verdicts: impl Iterator<Item = Option<Verdict>>) -> Self {
        let mut all: Vec<Verdict> = verdicts.flatten().collect();
        all.sort_by_key(|verdict| grave(Some(*verdict)));
        let mixed = all.first() != all.last();
        Self { verdict: all.pop(), mixed }
    }

    pub(super) fn in_words(self) -> String {
        match (self.verdict, self.mixed) {
            (None, _) => "-".to_owned(),
            (Some(verdict), false) => verdict.to_string(),
            (Some(verdict), true) => format!("some {verdict}"),
        }
    }
}

const fn grave(verdict: Option<Verdict>) -> u8 {
    match verdict {
        None => 0,
        Some(Verdict::Allow) => 1,
        Some(Verdict::Unknown) => 2,
        Some(Verdict::Deny) => 3,
    }
}

/// One line.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) initiator: String,
    pub(super) responder: String,
    pub(super) initiator_namespace: String,
    pub(super) responder_namespace: String,
    number: u16,
    protocol: Protocol,
    pub(super) connections: u64,
    pub(super) failed: u64,
    pub(super) bytes: u64,
    /// Whether they are an estimate.
    pub(super) estimated: bool,
    pub(super) icmp_errors: IcmpErrors,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) cause: Cause,
    /// Only where it is an edge of one pod.
    pub(super) direction: Option<Direction>,
    /// How it is known who opened the connections; only where it is an edge of one pod.
    pub(super) oriented_by: Option<OrientedBy>,
    /// One for each scenario of the list.
    pub(super) answers: Vec<Answer>,
    /// What segment maps say against it.
    pub(super) crossings: Crossings,
    /// Why the first scenario does not allow it.
    pub(super) reason: String,
}

/// What segment maps say against a line: violations and what cannot be told, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Crossings(BTreeSet<(Verdict, String, String)>);

impl Crossings {
    fn of<'a>(told: impl Iterator<Item = &'a SegmentRecord>) -> Self {
        let name = |segment: &Option<String>| segment.as_deref().unwrap_or("(no segment)").to_owned();
        let line = |told: &SegmentRecord| {
            let way = format!("{} → {}", name(&told.from), name(&told.to));
            match (told.is_violation(), told.excepted) {
                (true, false) => Some((Verdict::Deny, told.map.clone(), way)),
                // Known: told, but no more than that.
                (true, true) => Some((Verdict::Allow, format!("{} (excepted)", told.map), way)),
                (false, _) if told.is_unknown() => {
                    Some((Verdict::Unknown, format!("{} (unknown)", told.map), way))
                }
                (false, _) => None,
            }
        };
        Self(told.filter_map(line).collect())
    }

    /// The maps' names; `wide`: also between which segments.
    pub(super) fn in_words(&self, wide: bool) -> String {
        let word = |(_, map, way): &(Verdict, String, String)| {
            if wide { format!("{map}: {way}") } else { map.clone() }
        };
        let words: BTreeSet<String> = self.0.iter().map(word).collect();
        if words.is_empty() { "-".to_owned() } else { words.into_iter().collect::<Vec<_>>().join(", ") }
    }

    /// What colours it; nothing where all of it is excepted.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        let verdicts = self.0.iter().map(|(verdict, ..)| *verdict).filter(|one| *one != Verdict::Allow);
        verdicts.max_by_key(|verdict| grave(Some(*verdict)))
    }
}

impl Row {
    /// Connections between workloads, wherever they were seen, each counted once.
    pub(super) fn of_workloads(list: &EdgeList) -> Vec<Self> {
        let row = |link: &Link<'_>| {
            let seen = link.seen(|_| true);
            let answer = |scenario: &crate::model::record::ScenarioRecord| {
                Answer::of(link.all_pairs().map(|pair| pair.verdict(&scenario.name)))
            };
            let bytes = link.all_pairs().map(|pair| {
                // The side that saw more: the other one saw the same bytes.
                let side = |direction| {
                    let records = pair.records().filter(|edge| edge.direction == direction);
                    records.fold(0, |sum: u64, edge| sum.saturating_add(edge.counters.bytes()))
                };
                side(Direction::Egress).max(side(Direction::Ingress))
            });
            Self {
                initiator: end(&link.initiator),
                responder: end(&link.responder),
                initiator_namespace: place(&link.initiator),
                responder_namespace: place(&link.responder),
                number: link.port,
                protocol: link.protocol,
                connections: seen.connections,
                failed: seen.attempts.saturating_sub(seen.connections),
                bytes: bytes.fold(0, u64::saturating_add),
                estimated: link.all_pairs().flat_map(|pair| pair.records()).any(|edge| edge.estimated),
                // Both sides may have seen the same; each edge's are in the JSON.
                icmp_errors: link
                    .all_pairs()
                    .flat_map(|pair| pair.records())
                    .fold(IcmpErrors::default(), |sum, edge| sum.plus(edge.counters.icmp_errors)),
                first: seen.first,
                last: seen.last,
                cause: link.cause,
                direction: None,
                oriented_by: None,
                answers: list.scenarios.iter().map(answer).collect(),
                crossings: Crossings::of(
                    link.all_pairs()
                        .flat_map(|pair| pair.segment_maps().filter_map(|map| pair.crossing(map))),
                ),
                reason: String::new(),
            }
        };
        Link::all(&list.edges).iter().map(row).collect()
    }

    /// One edge as one pod saw it.
    pub(super) fn of_edge(edge: &EdgeRecord, list: &EdgeList) -> Self {
        let outcome = Outcome::of(edge.protocol, &edge.counters, edge.fully_visible);
        let given = |scenario: &crate::model::record::ScenarioRecord| edge.verdicts.get(&scenario.name);
        let answer = |scenario| Answer::of(std::iter::once(given(scenario).map(|both| both.verdict)));
        let reason = list.scenarios.first().and_then(given).and_then(|both| {
            let answers = [&both.egress, &both.ingress];
            let told = answers.into_iter().find(|answer| answer.verdict == both.verdict)?;
            (both.verdict != Verdict::Allow).then(|| told.reason.clone())
        });
        Self {
            initiator: party(&edge.initiator),
            responder: party(&edge.responder),
            initiator_namespace: edge.initiator.namespace.clone().unwrap_or_default(),
            responder_namespace: edge.responder.namespace.clone().unwrap_or_default(),
            number: edge.port,
            protocol: edge.protocol,
            connections: outcome.connections,
            failed: edge.counters.attempts.saturating_sub(outcome.connections),
            bytes: edge.counters.bytes(),
            estimated: edge.estimated,
            icmp_errors: edge.counters.icmp_errors,
            first: edge.first_seen,
            last: edge.last_seen,
            cause: edge.cause,
            direction: Some(edge.direction),
            oriented_by: Some(edge.oriented_by),
            answers: list.scenarios.iter().map(answer).collect(),
            crossings: Crossings::of(edge.segments.iter()),
            reason: reason.unwrap_or_default(),
        }
    }

    /// `8080/TCP`, as kubectl writes ports.
    pub(super) fn port(&self) -> String {
        if self.protocol.has_ports() {
            format!("{}/{}", self.number, self.protocol)
        } else {
            short_port(self.number, self.protocol)
        }
    }

    /// What makes a line the same when it is seen again.
    pub(super) fn key(&self) -> String {
        let Self { initiator, responder, direction, .. } = self;
        format!("{initiator} {responder} {} {direction:?}", self.port())
    }

    /// By the first scenario, then the next ones.
    fn gravity(&self) -> Vec<u8> {
        self.answers.iter().map(|answer| grave(answer.verdict)).collect()
    }

    /// Ascending, as kubectl sorts; lines that are alike in `by` stand by their ends and port.
    pub(super) fn compare(&self, other: &Self, by: SortBy) -> Ordering {
        let asked = match by {
            SortBy::Initiator => Ordering::Equal,
            SortBy::Responder => self.responder.cmp(&other.responder),
            SortBy::Port => (self.number, self.protocol).cmp(&(other.number, other.protocol)),
            SortBy::Connections => self.connections.cmp(&other.connections),
            SortBy::Failed => self.failed.cmp(&other.failed),
            SortBy::Bytes => self.bytes.cmp(&other.bytes),
            SortBy::FirstSeen => self.first.cmp(&other.first),
            SortBy::LastSeen => self.last.cmp(&other.last),
            SortBy::Cause => self.cause.cmp(&other.cause),
            SortBy::Verdict => self.gravity().cmp(&other.gravity()),
        };
        fn ends(row: &Row) -> (&str, &str, u16, Protocol, Option<Direction>) {
            (&row.initiator, &row.responder, row.number, row.protocol, row.direction)
        }
        asked.then_with(|| ends(self).cmp(&ends(other)))
    }

    pub(super) fn first_moment(&self) -> String {
        moment(self.first)
    }
}

/// Kinds in kubectl's short form, which `--workload` takes too.
fn short_kind(kind: &str) -> String {
    match kind {
        "Deployment" => "deploy",
        "StatefulSet" => "sts",
        "DaemonSet" => "ds",
        "ReplicaSet" => "rs",
        "CronJob" => "cj",
        "Service" => "svc",
        other => return other.to_lowercase(),
    }
    .to_owned()
}

/// `shop/deploy/web`; places in words.
fn end(end: &End) -> String {
    let kind = end.workload_type.as_deref().unwrap_or(&end.kind);
    match (end.kind.as_str(), &end.namespace, &end.name) {
        ("Pod" | "Service", Some(namespace), Some(name)) => {
            format!("{namespace}/{}/{name}", short_kind(kind))
        }
        _ => end.to_string(),
    }
}

/// A name in less room, for narrow terminals: `shop/web`, `198.51.100.7`.
pub(super) fn brief(name: &str) -> String {
    let parts: Vec<&str> = name.split('/').collect();
    if let [namespace, _, name] = parts.as_slice() {
        return format!("{namespace}/{name}");
    }
    let address = name.strip_prefix("outside (").and_then(|rest| rest.strip_suffix(')'));
    let address = address.filter(|text| text.parse::<std::net::IpAddr>().is_ok());
    address.unwrap_or(name).to_owned()
}

/// Where a map puts it.
fn place(end: &End) -> String {
    end.namespace.clone().unwrap_or_default()
}

/// `shop/pod/web-0 (192.0.2.11)`.
fn party(party: &PartyRecord) -> String {
    let address = party.address_text().map(|address| format!(" ({address})")).unwrap_or_default();
    let kind = party.kind.to_lowercase();
    match (&party.namespace, &party.name, party.kind.as_str()) {
        (Some(namespace), Some(name), kind) => format!("{namespace}/{}/{name}{address}", short_kind(kind)),
        (None, Some(name), _) => format!("{kind}/{name}{address}"),
        (_, None, "External") => format!("outside{address}"),
        _ => format!("{kind}{address}"),
    }
}
