//! Judging a row's lines, and saying where what is given is not what is expected.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use dryfence::audit::cause::classify;
use dryfence::cluster::index::Index;
use dryfence::model::cause::Cause;
use dryfence::model::dialect::Dialect;
use dryfence::model::edge::{Counters, Direction, Edge, OrientedBy};
use dryfence::model::endpoint::{Connection, Endpoint, Party, Pod};
use dryfence::model::facts::{ConnectionFacts, Request};
use dryfence::model::object::WorkloadRef;
use dryfence::model::scenario::{DefaultDeny, Scenario};
use dryfence::model::time::Timestamp;
use dryfence::model::verdict::{Decision, Judgement};
use dryfence::policy::Judge;
use dryfence::segment::{SegmentJudge, SegmentMap, Surroundings};

use super::fixture::{Asked, Both, End, Fixture, Line, Query};

fn pods(index: &Index, end: &End) -> Vec<Arc<Pod>> {
    let pods = match end {
        End::Ip(_) => return Vec::new(),
        End::Pod(path) => {
            let (namespace, name) = path.split_once('/').unwrap();
            index.pod(namespace, name).into_iter().collect()
        }
        End::Workload(path) => {
            let [namespace, kind, name] = path.split('/').collect::<Vec<_>>().try_into().unwrap();
            index.workload_pods(&WorkloadRef::new(kind, namespace, name))
        }
    };
    assert!(!pods.is_empty(), "{end:?} is not in the manifests");
    pods
}

/// Every pair of ends that a query means. Two ends meet at addresses of one family.
fn pairs(index: &Index, query: &Query) -> Vec<(Party, Party)> {
    let (now, family) = (Timestamp::EPOCH, |pod: &Pod, like: Option<IpAddr>| {
        let same = |address: &&IpAddr| like.is_none_or(|like| like.is_ipv4() == address.is_ipv4());
        pod.addresses.iter().find(same).copied()
    });
    let (initiators, responders) = (pods(index, &query.from), pods(index, &query.to));
    match (&query.from, &query.to) {
        (End::Ip(from), End::Ip(to)) => {
            vec![(index.initiator_at(*from, now), index.party_at(*to, query.port, query.protocol, None, now))]
        }
        (End::Ip(from), _) => {
            let at = |pod| index.party_of(pod, family(pod, Some(*from)));
            responders.iter().map(|pod| (index.initiator_at(*from, now), at(pod))).collect()
        }
        (_, End::Ip(to)) => {
            let responder = index.party_at(*to, query.port, query.protocol, None, now);
            let at = |pod| index.party_of(pod, family(pod, Some(*to)));
            initiators.iter().map(|pod| (at(pod), responder.clone())).collect()
        }
        _ => {
            let pairs = initiators.iter().flat_map(|from| responders.iter().map(move |to| (from, to)));
            let both = |(from, to): (&Arc<Pod>, &Arc<Pod>)| {
                let at = family(from, None);
                (index.party_of(from, at), index.party_of(to, family(to, at)))
            };
            pairs.map(both).collect()
        }
    }
}

/// Whether a direction says what is expected: `Deny`, `Deny by shop/api`, `Allow by none`.
fn fits(decision: &Decision, expected: &str) -> bool {
    let (verdict, by) = expected.split_once(" by ").map_or((expected, None), |(v, by)| (v, Some(by)));
    let policy = decision.policy.as_ref().map_or_else(
        || "none".to_owned(),
        |policy| format!("{}/{}", policy.namespace.as_deref().unwrap_or_default(), policy.name),
    );
    decision.verdict.as_str() == verdict && by.is_none_or(|by| by == policy)
}

/// The judges of one fixture.
pub(crate) struct Bench<'a> {
    fixture: &'a Fixture,
    enforced: Judge,
    default_deny: Judge,
    candidate: Option<Judge>,
    pub(crate) segments: BTreeMap<&'a str, SegmentJudge>,
    pub(crate) failures: Vec<String>,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(fixture: &'a Fixture) -> Self {
        let dialect: Dialect = fixture.settings.dialect.as_deref().unwrap_or("standard").parse().unwrap();
        let judge = |index: &Index, scenario| Judge::new(&index.policies(), dialect, &scenario);
        let mut around =
            Surroundings { api_server: fixture.settings.api_server.clone(), ..Surroundings::default() };
        for (address, vlan) in &fixture.settings.vlans {
            around.vlans.set(*address, *vlan);
        }
        let segment = |(name, map): (&'a String, &Arc<SegmentMap>)| {
            (name.as_str(), SegmentJudge::new(map, around.clone()).unwrap())
        };
        Self {
            fixture,
            enforced: judge(&fixture.index, Scenario::Enforced),
            default_deny: judge(&fixture.index, Scenario::DefaultDeny(DefaultDeny::default())),
            candidate: fixture.candidate.as_ref().map(|index| judge(index, Scenario::Enforced)),
            segments: fixture.maps.iter().map(segment).collect(),
            failures: Vec::new(),
        }
    }

    pub(crate) fn fail(&mut self, line: usize, message: &str) {
        self.failures.push(format!("{} line {line}: {message}", self.fixture.name));
    }

    /// Judges one line; the number of things compared.
    pub(crate) fn line(&mut self, number: usize, line: &Line) -> usize {
        let Some(query) = &line.query else { return 0 };
        let query: Query = serde_json::from_value(query.clone())
            .unwrap_or_else(|error| panic!("{} line {number}: query: {error}", self.fixture.name));
        let mut compared = 0;
        let given = ConnectionFacts { request: line.request.as_ref().map(request), ..ConnectionFacts::NONE };
        for (initiator, responder) in pairs(&self.fixture.index, &query) {
            let connection = connection(&query, &initiator, &responder);
            let enforced = self.enforced.judge_given(&connection, &given);
            compared += self.both(number, "enforced", &enforced, line.enforced.as_ref());
            let judgement = self.default_deny.judge_given(&connection, &given);
            compared += self.both(number, "default-deny", &judgement, line.default_deny.as_ref());
            let cause = classify(&connection);
            if let Some(expected) = line.cause {
                compared += 1;
                if cause != expected {
                    self.fail(number, &format!("the cause is {cause}, not {expected}"));
                }
            }
            if let Some(claimed) = &line.claimed {
                compared += 1;
                if *claimed == enforced.verdict().as_str() {
                    self.fail(number, &format!("the policies do give {claimed}: nothing is contradicted"));
                }
            }
            compared += self.crossings(number, line, &query, (&initiator, &responder));
        }
        compared + self.after(number, line, &query)
    }

    fn both(&mut self, line: usize, scenario: &str, given: &Judgement, expected: Option<&Both>) -> usize {
        let Some(Both { egress, ingress }) = expected else { return 0 };
        for (direction, expected) in [(Direction::Egress, egress), (Direction::Ingress, ingress)] {
            let decision = given.of(direction);
            if !fits(decision, expected) {
                let Decision { verdict, policy, reason, .. } = &**decision;
                let policy = policy.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
                let message =
                    format!("{scenario} {direction}: {verdict} by {policy}, not {expected}: {reason}");
                self.fail(line, &message);
            }
        }
        1
    }

    /// The same connection in the world as the candidate would have it.
    fn after(&mut self, line: usize, expected: &Line, query: &Query) -> usize {
        let Some(both) = &expected.candidate else { return 0 };
        let index = self.fixture.candidate.as_ref();
        let index = index.unwrap_or_else(|| panic!("{}: has no candidate folder", self.fixture.name));
        let mut compared = 0;
        for (initiator, responder) in pairs(index, query) {
            let Some(judge) = &mut self.candidate else { continue };
            let judgement = judge.judge(&connection(query, &initiator, &responder));
            compared += self.both(line, "candidate", &judgement, Some(both));
        }
        compared
    }

    /// What each map says, whichever end the edge was seen at.
    fn crossings(&mut self, line: usize, expected: &Line, query: &Query, ends: (&Party, &Party)) -> usize {
        let mut failures = Vec::new();
        for (map, expected) in &expected.crossings {
            let Some(judge) = self.segments.get_mut(map.as_str()) else {
                failures.push(format!("there is no SegmentMap {map}"));
                continue;
            };
            let mut seen = false;
            for direction in Direction::BOTH {
                // An edge is seen at a pod's interface, with that interface's tag.
                let edge = edge(query, ends, direction, &self.fixture.settings.vlans);
                if !matches!(edge.subject().endpoint, Endpoint::Pod(_)) {
                    continue;
                }
                seen = true;
                let given = judge.judge(&edge);
                if given.verdict != *expected {
                    failures.push(format!("{given}, not {expected}"));
                }
            }
            if !seen {
                failures.push("neither end is a pod: no such edge is recorded".to_owned());
            }
        }
        for failure in failures {
            self.fail(line, &failure);
        }
        expected.crossings.len()
    }
}

fn request(asked: &Asked) -> Arc<Request> {
    let Asked { dns, method, path, host, headers } = asked;
    Arc::new(match dns {
        Some(name) => Request::Dns { name: name.as_str().into() },
        None => Request::Http {
            method: method.as_str().into(),
            path: path.as_str().into(),
            host: host.as_str().into(),
            headers: headers
                .iter()
                .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
                .collect(),
        },
    })
}

const fn connection<'a>(query: &Query, initiator: &'a Party, responder: &'a Party) -> Connection<'a> {
    Connection { initiator, responder, port: query.port, protocol: query.protocol }
}

fn edge(
    query: &Query,
    (initiator, responder): (&Party, &Party),
    direction: Direction,
    vlans: &BTreeMap<IpAddr, u16>,
) -> Edge {
    let subject = if direction == Direction::Egress { initiator } else { responder };
    let vlan = subject.address.and_then(|address| vlans.get(&address)).copied().unwrap_or_default();
    Edge {
        initiator: initiator.clone(),
        responder: responder.clone(),
        port: query.port,
        protocol: query.protocol,
        direction,
        cause: Cause::Unknown,
        counters: Counters::default(),
        first_seen: Timestamp::EPOCH,
        last_seen: Timestamp::EPOCH,
        oriented_by: OrientedBy::Handshake,
        fully_visible: true,
        vlan,
        estimated: false,
    }
}
