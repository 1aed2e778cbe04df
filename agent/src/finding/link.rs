//! Edges of one connection brought together: seen at the initiator's pod, at the responder's, or at both.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::end::{End, EndKey};
use crate::model::cause::Cause;
use crate::model::edge::{Counters, Direction, Protocol};
use crate::model::outcome::Outcome;
use crate::model::record::{DecisionRecord, EdgeRecord};
use crate::model::time::Timestamp;
use crate::model::verdict::Verdict;

/// What makes connections the same for their owners.
type Key = (EndKey, EndKey, u16, Protocol);
/// Initiator's and responder's.
type Addresses = (Option<IpAddr>, Option<IpAddr>);

/// All edges from one workload (or place) to another on one port.
#[derive(Debug)]
pub(crate) struct Link<'a> {
    pub(crate) initiator: End,
    pub(crate) responder: End,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) cause: Cause,
    pub(crate) pairs: Vec<Pair<'a>>,
    /// The same connections as their initiators saw them before a Service's address was translated.
    pub(crate) via_service: Vec<Pair<'a>>,
}

/// The records of one address pair.
#[derive(Debug, Default)]
pub(crate) struct Pair<'a> {
    at_initiator: Vec<&'a EdgeRecord>,
    at_responder: Vec<&'a EdgeRecord>,
}

/// What was counted, each connection once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) connections: u64,
    pub(crate) attempts: u64,
    pub(crate) refused: u64,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
}

impl Seen {
    pub(crate) const NOTHING: Self =
        Self { connections: 0, attempts: 0, refused: 0, first: Timestamp::END, last: Timestamp::EPOCH };

    /// Different connections together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            connections: self.connections.saturating_add(other.connections),
            attempts: self.attempts.saturating_add(other.attempts),
            refused: self.refused.saturating_add(other.refused),
            ..self.spanning(other)
        }
    }

    /// The same connections seen at two places: one side counts, the one that saw more.
    pub(crate) fn or(self, other: Self) -> Self {
        let amount = |seen: Self| (seen.connections, seen.attempts);
        let more = if amount(other) > amount(self) { other } else { self };
        Self {
            connections: more.connections,
            attempts: more.attempts,
            refused: more.refused,
            ..self.spanning(other)
        }
    }

    fn spanning(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last), ..self }
    }
}

impl<'a> Pair<'a> {
    fn of(&self, direction: Direction) -> &[&'a EdgeRecord] {
        match direction {
            Direction::Egress => &self.at_initiator,
            Direction::Ingress => &self.at_responder,
        }
    }

    /// The records of both sides.
    pub(crate) fn records(&self) -> impl Iterator<Item = &'a EdgeRecord> {
        self.at_initiator.iter().chain(&self.at_responder).copied()
    }

    /// The answer of one direction: the one given where the direction is judged, else the other side's.
    pub(crate) fn decision(&self, direction: Direction, scenario: &str) -> Option<&'a DecisionRecord> {
        let local = self.of(direction);
        let records = if local.is_empty() { self.of(direction.other()) } else { local };
        let answers =
            records.iter().filter_map(|edge| edge.verdicts.get(scenario)).map(|both| both.of(direction));
        // Records of one pair may differ, over time or by interface; the gravest is the one to report.
        answers.max_by_key(|answer| match answer.verdict {
            Verdict::Allow => 0,
            Verdict::Unknown => 1,
            Verdict::Deny => 2,
        })
    }

    /// Whether a scenario denies the connection in this direction.
    pub(crate) fn denied(&self, direction: Direction, scenario: &str) -> Option<&'a DecisionRecord> {
        self.decision(direction, scenario).filter(|answer| answer.verdict == Verdict::Deny)
    }

    /// Both directions together; `None` where the scenario did not judge it.
    pub(crate) fn verdict(&self, scenario: &str) -> Option<Verdict> {
        let answer = |direction| self.decision(direction, scenario).map(|answer| answer.verdict);
        Some(answer(Direction::Egress)?.and(answer(Direction::Ingress)?))
    }

    /// What was counted: at the initiator's side, or at the responder's where that one saw nothing.
    pub(crate) fn seen(&self) -> Seen {
        let [egress, ingress] = Direction::BOTH.map(|direction| {
            self.of(direction).iter().map(|edge| seen(edge)).fold(Seen::NOTHING, Seen::plus)
        });
        if egress.connections == 0 { egress.or(ingress) } else { egress.spanning(ingress) }
    }
}

fn seen(edge: &EdgeRecord) -> Seen {
    let Counters { attempts, .. } = edge.counters;
    let outcome = Outcome::of(edge.protocol, &edge.counters, edge.fully_visible);
    Seen {
        connections: outcome.connections,
        attempts,
        refused: outcome.refused,
        first: edge.first_seen,
        last: edge.last_seen,
    }
}

impl<'a> Link<'a> {
    /// Every connection of `edges`, brought together.
    pub(crate) fn all(edges: &'a [EdgeRecord]) -> Vec<Self> {
        let mut links: BTreeMap<Key, BTreeMap<Addresses, Pair<'a>>> = BTreeMap::new();
        for edge in edges {
            let key = (
                EndKey::new(&edge.initiator, edge.cause),
                EndKey::new(&edge.responder, edge.cause),
                edge.port,
                edge.protocol,
            );
            let pairs = links.entry(key).or_default();
            let pair = pairs.entry((edge.initiator.address, edge.responder.address)).or_default();
            match edge.direction {
                Direction::Egress => pair.at_initiator.push(edge),
                Direction::Ingress => pair.at_responder.push(edge),
            }
        }
        let links = links.into_iter().map(|(key, pairs)| (key, pairs.into_values().collect())).collect();
        adopt_services(links)
            .into_iter()
            .filter_map(|((_, _, port, protocol), (pairs, via_service))| {
                Self::new(port, protocol, pairs, via_service)
            })
            .collect()
    }

    fn new(port: u16, protocol: Protocol, pairs: Vec<Pair<'a>>, via_service: Vec<Pair<'a>>) -> Option<Self> {
        let records: Vec<&EdgeRecord> = pairs.iter().flat_map(Pair::records).collect();
        let first = *records.first()?;
        let addresses = |of: fn(&EdgeRecord) -> Option<IpAddr>| -> BTreeSet<IpAddr> {
            records.iter().filter_map(|edge| of(edge)).collect()
        };
        Some(Self {
            initiator: End::new(&first.initiator, addresses(|edge| edge.initiator.address)),
            responder: End::new(&first.responder, addresses(|edge| edge.responder.address)),
            port,
            protocol,
            cause: first.cause,
            pairs,
            via_service,
        })
    }

    /// What was counted on the pairs that `wanted` picks.
    pub(crate) fn seen(&self, wanted: impl Fn(&Pair<'a>) -> bool) -> Seen {
        let sum = |pairs: &[Pair<'a>]| {
            pairs.iter().filter(|pair| wanted(pair)).map(Pair::seen).fold(Seen::NOTHING, Seen::plus)
        };
        sum(&self.via_service).or(sum(&self.pairs))
    }

    /// All pairs, also those by a Service's address.
    pub(crate) fn all_pairs(&self) -> impl Iterator<Item = &Pair<'a>> {
        self.via_service.iter().chain(&self.pairs)
    }

    /// Whether either end is in one of these namespaces; with none, every link is.
    pub(crate) fn is_in(&self, namespaces: &[String]) -> bool {
        let holds =
            |end: &End| end.namespace.as_ref().is_some_and(|namespace| namespaces.contains(namespace));
        namespaces.is_empty() || holds(&self.initiator) || holds(&self.responder)
    }
}

type Pairs<'a> = Vec<Pair<'a>>;

/// Joins what an initiator opened to a Service's address with what that Service's pods saw of it.
///
/// The initiator's interface shows the Service's address, the responder's the pod's, after translation. They
/// are the same connections where exactly one workload of the Service's namespace saw this initiator come in,
/// on the same port or under the Service's name, and nothing of it was seen going out to the pod itself.
fn adopt_services(links: Vec<(Key, Pairs<'_>)>) -> Vec<(Key, (Pairs<'_>, Pairs<'_>))> {
    let (services, others): (Vec<_>, Vec<_>) =
        links.into_iter().partition(|((_, responder, ..), _)| matches!(responder, EndKey::Service(..)));
    let mut joined: Vec<(Key, (Pairs<'_>, Pairs<'_>))> =
        others.into_iter().map(|(key, pairs)| (key, (pairs, Vec::new()))).collect();
    for (key, pairs) in services {
        let (initiator, responder, port, protocol) = &key;
        let mut behind = joined.iter_mut().filter(|((from, to, at, by), (pairs, _))| {
            let same = match (to, responder) {
                (EndKey::Workload { namespace, name, .. }, EndKey::Service(of, service)) => {
                    namespace == of && (at == port || name == service)
                }
                _ => false,
            };
            same && from == initiator
                && by == protocol
                && pairs.iter().all(|pair| pair.at_initiator.is_empty())
        });
        match (behind.next(), behind.next()) {
            (Some((_, (_, via_service))), None) => via_service.extend(pairs),
            _ => joined.push((key, (pairs, Vec::new()))),
        }
    }
    joined
}
