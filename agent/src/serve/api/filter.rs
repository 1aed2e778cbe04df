//! What `/api/v1/edges` may be asked for.

use std::str::FromStr;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};

use crate::model::cause::Cause;
use crate::model::edge::{Direction, Protocol};
use crate::model::record::{EdgeList, EdgeRecord, PartyRecord};
use crate::model::verdict::Verdict;

/// The query parameters that exist.
const PARAMETERS: &str = "namespace, workload, peer, verdict, scenario, violation, direction, cause, port, protocol, format, limit";

/// A query parameter that is unknown or has a value that it cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("query parameter \"{parameter}\": {problem}")]
pub struct BadQuery {
    pub parameter: String,
    pub problem: String,
}

impl BadQuery {
    pub(super) fn unknown(parameter: &str, known: &str) -> Self {
        Self { parameter: parameter.to_owned(), problem: format!("is unknown; known are {known}") }
    }
}

/// How the edges are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One [`EdgeList`].
    Json,
    /// One edge a line.
    JsonLines,
}

/// A whole query.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    pub filter: Filter,
    /// `None`: as the `Accept` header says.
    pub format: Option<Format>,
    /// At most so many edges.
    pub limit: Option<usize>,
}

/// Which edges are asked for. Values of one parameter are alternatives; parameters narrow each other.
///
/// `namespace` and `workload` are about one end of the connection, whichever it is, and `peer` is about the
/// other one. `verdict` is the one of both directions together, under the scenarios that are asked for.
/// `violation` is a segment map that forbids the edge, by its name, or `true` for any map.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    namespaces: Vec<String>,
    workloads: Vec<WorkloadName>,
    peers: Vec<PeerName>,
    verdicts: Vec<Verdict>,
    scenarios: Vec<String>,
    /// Names of segment maps, or `true` for any.
    violations: Vec<String>,
    directions: Vec<Direction>,
    causes: Vec<Cause>,
    ports: Vec<u16>,
    protocols: Vec<Protocol>,
}

/// A workload as people name it: `web`, `deploy/web`, `shop/Deployment/web`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WorkloadName {
    namespace: Option<String>,
    kind: Option<String>,
    name: String,
}

/// The other end: a workload, everything of a type (`External`), or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PeerName {
    Type(&'static str),
    Address(std::net::IpAddr),
    Workload(WorkloadName),
}

impl Query {
    /// Reads a URL's query. Several values of one parameter may be given by repeating it or with commas.
    ///
    /// # Errors
    /// [`BadQuery`] names the parameter that is unknown, empty, or has an impossible value.
    pub fn parse(raw: &str) -> Result<Self, BadQuery> {
        let mut query = Self::default();
        for (parameter, value) in form_urlencoded::parse(raw.as_bytes()) {
            for item in value.split(',') {
                let problem =
                    if item.is_empty() { Err("is empty".to_owned()) } else { query.set(&parameter, item) };
                problem.map_err(|problem| BadQuery { parameter: parameter.clone().into_owned(), problem })?;
            }
        }
        Ok(query)
    }

    fn set(&mut self, parameter: &str, value: &str) -> Result<(), String> {
        let filter = &mut self.filter;
        match parameter {
            "namespace" => filter.namespaces.push(value.to_owned()),
            "workload" => filter.workloads.push(value.parse()?),
            "peer" => filter.peers.push(value.parse()?),
            "verdict" => filter.verdicts.push(one_of(value, VERDICTS, "Allow, Deny, Unknown")?),
            "scenario" => filter.scenarios.push(value.to_owned()),
            "violation" => filter.violations.push(value.to_owned()),
            "direction" => filter.directions.push(one_of(value, DIRECTIONS, "egress, ingress")?),
            "cause" => filter.causes.push(cause(value)?),
            "port" => {
                let port = value.parse().map_err(|_not_u16| format!("\"{value}\" is not a port, 0 to 65535"));
                filter.ports.push(port?);
            }
            "protocol" => {
                filter.protocols.push(value.parse().map_err(|error| format!("{error}"))?);
            }
            "format" => {
                let known =
                    [("json", Format::Json), ("jsonl", Format::JsonLines), ("ndjson", Format::JsonLines)];
                self.format = Some(one_of(value, known, "json, jsonl")?);
            }
            "limit" => {
                self.limit = Some(
                    value.parse().map_err(|_not_usize| format!("\"{value}\" is not a number of edges"))?,
                );
            }
            _ => return Err(format!("is unknown; known are {PARAMETERS}")),
        }
        Ok(())
    }
}

const VERDICTS: [(&str, Verdict); 3] =
    [("allow", Verdict::Allow), ("deny", Verdict::Deny), ("unknown", Verdict::Unknown)];
const DIRECTIONS: [(&str, Direction); 2] = [("egress", Direction::Egress), ("ingress", Direction::Ingress)];

fn one_of<T: Copy, const N: usize>(value: &str, known: [(&str, T); N], names: &str) -> Result<T, String> {
    let found = known.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(value));
    found.map(|(_, item)| item).ok_or_else(|| format!("\"{value}\" is none of {names}"))
}

fn cause(value: &str) -> Result<Cause, String> {
    let name: StrDeserializer<'_, ValueError> = value.into_deserializer();
    // serde's text lists the causes that there are.
    Cause::deserialize(name).map_err(|error| error.to_string())
}

impl Filter {
    /// Refuses scenarios and segment maps that nobody judged by.
    ///
    /// # Errors
    /// [`BadQuery`] lists those that exist.
    pub fn check_names(&self, list: &EdgeList) -> Result<(), BadQuery> {
        let scenarios: Vec<_> = list.scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
        let named = list.segment_maps.iter().map(|map| map.name.as_str());
        let maps = std::iter::once("true").chain(named).collect();
        for (parameter, asked, known) in
            [("scenario", &self.scenarios, scenarios), ("violation", &self.violations, maps)]
        {
            if let Some(name) = asked.iter().find(|name| !known.contains(&name.as_str())) {
                let problem = format!("\"{name}\" is none of {}", known.join(", "));
                return Err(BadQuery { parameter: parameter.to_owned(), problem });
            }
        }
        Ok(())
    }

    /// Whether the answers of this scenario are asked for.
    pub fn wants_scenario(&self, name: &str) -> bool {
        self.scenarios.is_empty() || self.scenarios.iter().any(|wanted| wanted == name)
    }

    /// Whether the edge is asked for.
    pub fn matches(&self, edge: &EdgeRecord) -> bool {
        among(&self.directions, &edge.direction)
            && among(&self.causes, &edge.cause)
            && among(&self.ports, &edge.port)
            && among(&self.protocols, &edge.protocol)
            && self.matches_verdict(edge)
            && self.matches_violation(edge)
            && (self.matches_ends(&edge.initiator, &edge.responder)
                || self.matches_ends(&edge.responder, &edge.initiator))
    }

    fn matches_verdict(&self, edge: &EdgeRecord) -> bool {
        let mut answers = edge.verdicts.iter().filter(|(scenario, _)| self.wants_scenario(scenario));
        if self.verdicts.is_empty() && self.scenarios.is_empty() {
            return true;
        }
        answers.any(|(_, answer)| among(&self.verdicts, &answer.verdict))
    }

    /// `true` is a violation of any segment map, excepted ones too.
    fn matches_violation(&self, edge: &EdgeRecord) -> bool {
        let asked = |map: &String| self.violations.iter().any(|wanted| wanted == "true" || wanted == map);
        self.violations.is_empty()
            || edge.segments.iter().any(|segment| segment.is_violation() && asked(&segment.map))
    }

    fn matches_ends(&self, end: &PartyRecord, other: &PartyRecord) -> bool {
        let namespace = end.namespace.as_ref();
        (self.namespaces.is_empty() || namespace.is_some_and(|namespace| self.namespaces.contains(namespace)))
            && (self.workloads.is_empty() || self.workloads.iter().any(|workload| workload.matches(end)))
            && (self.peers.is_empty() || self.peers.iter().any(|peer| peer.matches(other)))
    }
}

/// Whether nothing is asked for, or this is.
fn among<T: PartialEq>(wanted: &[T], item: &T) -> bool {
    wanted.is_empty() || wanted.contains(item)
}

impl FromStr for WorkloadName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (namespace, kind, name) = match *parts.as_slice() {
            [name] => (None, None, name),
            [kind, name] => (None, Some(kind), name),
            [namespace, kind, name] => (Some(namespace), Some(kind), name),
            _ => return Err(format!("\"{text}\" is none of name, kind/name, namespace/kind/name")),
        };
        if parts.contains(&"") {
            return Err(format!("\"{text}\" has an empty part"));
        }
        Ok(Self {
            namespace: namespace.map(ToOwned::to_owned),
            kind: kind.map(|kind| full_kind(kind).to_owned()),
            name: name.to_owned(),
        })
    }
}

/// The kind behind kubectl's short names and plurals; other names stand for themselves.
fn full_kind(kind: &str) -> &str {
    match kind.to_ascii_lowercase().as_str() {
        "deploy" | "deployment" | "deployments" => "Deployment",
        "sts" | "statefulset" | "statefulsets" => "StatefulSet",
        "ds" | "daemonset" | "daemonsets" => "DaemonSet",
        "rs" | "replicaset" | "replicasets" => "ReplicaSet",
        "cj" | "cronjob" | "cronjobs" => "CronJob",
        "job" | "jobs" => "Job",
        "po" | "pod" | "pods" => "Pod",
        "svc" | "service" | "services" => "Service",
        "no" | "node" | "nodes" => "Node",
        _ => kind,
    }
}

impl WorkloadName {
    /// Whether the end is of this workload, or is this very object.
    fn matches(&self, end: &PartyRecord) -> bool {
        let is = |kind: Option<&str>, name: Option<&str>| {
            name == Some(self.name.as_str())
                && self
                    .kind
                    .as_ref()
                    .is_none_or(|wanted| kind.is_some_and(|kind| kind.eq_ignore_ascii_case(wanted)))
        };
        let namespace = self.namespace.as_ref().is_none_or(|wanted| end.namespace.as_ref() == Some(wanted));
        namespace
            && (is(end.workload_type.as_deref(), end.workload.as_deref())
                || is(Some(&end.kind), end.name.as_deref()))
    }
}

impl FromStr for PeerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let types =
            [("external", "External"), ("world", "External"), ("node", "Node"), ("unknown", "Unknown")];
        if let Some((_, kind)) = types.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
            return Ok(Self::Type(kind));
        }
        Ok(text.parse().map_or(Self::Workload(text.parse()?), Self::Address))
    }
}

impl PeerName {
    fn matches(&self, end: &PartyRecord) -> bool {
        match self {
            Self::Type(kind) => end.kind == *kind,
            Self::Address(address) => end.address == Some(*address),
            Self::Workload(workload) => workload.matches(end),
        }
    }
}
