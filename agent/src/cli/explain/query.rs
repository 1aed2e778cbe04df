//! Queries: which connections are meant by the names that people and tools use.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::cluster::index::Index;
use crate::model::edge::Protocol;
use crate::model::endpoint::{Party, Pod};
use crate::model::object::{ObjectRef, WorkloadRef};
use crate::model::time::Timestamp;
use crate::model::verdict::UnknownReason;

/// What ICMP and ICMPv6 are judged as where no type is asked for: an echo request, type × 256 + code.
const ECHO_REQUEST: u16 = 8 << 8;
const ECHO_REQUEST_V6: u16 = 128 << 8;

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    /// As given; null where none is.
    pub(super) id: Value,
    pub(super) from: Target,
    pub(super) to: Target,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
}

/// One end of a connection, as a query names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Pod {
        namespace: String,
        name: String,
    },
    /// Any owner in the chain of its pods.
    Workload(WorkloadRef),
    Address(IpAddr),
}

/// A query line that cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Malformed {
    /// The query's id, if that could be read.
    pub(super) id: Option<Value>,
    pub(super) error: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    id: Value,
    from: End,
    to: End,
    port: Option<u16>,
    protocol: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    pod: Option<String>,
    workload: Option<String>,
    ip: Option<String>,
}

impl Query {
    /// Reads one line of a batch.
    pub(super) fn read(line: &str) -> Result<Self, Malformed> {
        let line: Line = serde_json::from_str(line).map_err(|error| {
            let id = serde_json::from_str::<Value>(line).ok().and_then(|value| value.get("id").cloned());
            Malformed { id, error: error.to_string() }
        })?;
        let id = line.id.clone();
        Self::check(line).map_err(|error| Malformed { id: Some(id), error })
    }

    fn check(line: Line) -> Result<Self, String> {
        let protocol = match &line.protocol {
            None => Protocol::Tcp,
            Some(name) => name.parse().map_err(|error| format!("protocol: {error}"))?,
        };
        Ok(Self {
            id: line.id,
            from: line.from.target("from")?,
            to: line.to.target("to")?,
            port: port(line.port, protocol)?,
            protocol,
        })
    }
}

/// The port that is judged; the error begins with the field's name.
pub(super) fn port(given: Option<u16>, protocol: Protocol) -> Result<u16, String> {
    match (given, protocol) {
        (Some(0), _) if protocol.has_ports() => Err("port: must be 1 to 65535, not 0".to_owned()),
        (Some(port), _) => Ok(port),
        (None, Protocol::Icmp) => Ok(ECHO_REQUEST),
        (None, Protocol::Icmpv6) => Ok(ECHO_REQUEST_V6),
        (None, _) => Err("port: is missing".to_owned()),
    }
}

impl End {
    fn target(self, field: &str) -> Result<Target, String> {
        match (self.pod, self.workload, self.ip) {
            (Some(pod), None, None) => match parts(&pod) {
                Some([namespace, name]) => {
                    Ok(Target::Pod { namespace: namespace.to_owned(), name: name.to_owned() })
                }
                None => Err(format!("{field}.pod: \"{pod}\" is not namespace/name")),
            },
            (None, Some(workload), None) => match parts(&workload) {
                Some([namespace, kind, name]) => {
                    Ok(Target::Workload(WorkloadRef::new(kind, namespace, name)))
                }
                None => Err(format!("{field}.workload: \"{workload}\" is not namespace/Kind/name")),
            },
            (None, None, Some(ip)) => match ip.parse() {
                Ok(address) => Ok(Target::Address(address)),
                Err(_) => Err(format!("{field}.ip: \"{ip}\" is not an IP address")),
            },
            _ => Err(format!("{field}: must have one of pod, workload, ip")),
        }
    }
}

/// The parts between slashes, if there are `N` and none is empty.
fn parts<const N: usize>(text: &str) -> Option<[&str; N]> {
    let mut given = text.split('/');
    let mut parts = [""; N];
    for part in &mut parts {
        *part = given.next().filter(|given| !given.is_empty())?;
    }
    given.next().is_none().then_some(parts)
}

/// What a target is among the objects.
enum Found {
    Pods(Vec<Arc<Pod>>),
    Address(IpAddr),
    /// It exists, but could not be read.
    Broken(Arc<ObjectRef>),
}

fn find(index: &Index, target: &Target, field: &str) -> Result<Found, String> {
    let pods = match target {
        Target::Address(address) => return Ok(Found::Address(*address)),
        Target::Pod { namespace, name } => index.pod(namespace, name).into_iter().collect(),
        Target::Workload(workload) => index.workload_pods(workload),
    };
    if !pods.is_empty() {
        return Ok(Found::Pods(pods));
    }
    let (reference, lacks) = match target {
        Target::Workload(WorkloadRef { kind, namespace, name }) => {
            let lacks = "is not among the objects, or has neither pods nor a template";
            (ObjectRef::namespaced(kind, namespace, name), lacks)
        }
        Target::Pod { namespace, name } => {
            (ObjectRef::namespaced("Pod", namespace, name), "is not among the objects")
        }
        Target::Address(address) => return Ok(Found::Address(*address)),
    };
    match index.broken(&reference) {
        Some(broken) => Ok(Found::Broken(Arc::clone(&broken.reference))),
        None => Err(format!("{field}: {reference} {lacks}")),
    }
}

/// The pairs of initiator and responder that a query means: one, or each pod of a workload with each.
///
/// Two pods meet at addresses of one family, the initiator's first choice. A pod is not paired with itself
/// while its workload has others: talking to itself is never judged, and says nothing about the workload.
pub(super) fn pairs(index: &Index, query: &Query, now: Timestamp) -> Result<Vec<(Party, Party)>, String> {
    let from = find(index, &query.from, "from")?;
    let to = find(index, &query.to, "to")?;
    let mut pairs = Vec::new();
    match (&from, &to) {
        (Found::Pods(initiators), Found::Pods(responders)) => {
            for initiator in initiators {
                for responder in responders {
                    if Arc::ptr_eq(initiator, responder) && initiators.len() > 1 {
                        continue;
                    }
                    let at = meeting(&responder.addresses, &initiator.addresses);
                    let from = meeting(&initiator.addresses, at.as_slice());
                    pairs.push((index.party_of(initiator, from), index.party_of(responder, at)));
                }
            }
        }
        (Found::Pods(initiators), other) => {
            for pod in initiators {
                let responder = responder(index, other, query, pod.node.as_deref(), now);
                let from = meeting(&pod.addresses, responder.address.as_slice());
                pairs.push((index.party_of(pod, from), responder));
            }
        }
        (other, Found::Pods(responders)) => {
            let initiator = initiator(index, other, now);
            for pod in responders {
                let at = meeting(&pod.addresses, initiator.address.as_slice());
                pairs.push((initiator.clone(), index.party_of(pod, at)));
            }
        }
        (from, to) => pairs.push((initiator(index, from, now), responder(index, to, query, None, now))),
    }
    Ok(pairs)
}

/// An initiator that is no pod by name.
fn initiator(index: &Index, found: &Found, now: Timestamp) -> Party {
    match found {
        Found::Address(address) => index.initiator_at(*address, now),
        Found::Broken(object) => broken(object),
        Found::Pods(_) => Party::unknown(None, UnknownReason::AddressUnjoined),
    }
}

/// A responder that is no pod by name, for an initiator on the node `client`.
fn responder(index: &Index, found: &Found, query: &Query, client: Option<&str>, now: Timestamp) -> Party {
    match found {
        Found::Address(address) => index.party_at(*address, query.port, query.protocol, client, now),
        other => initiator(index, other, now),
    }
}

fn broken(object: &Arc<ObjectRef>) -> Party {
    Party::unknown(None, UnknownReason::ObjectInvalid { object: Arc::clone(object) })
}

/// The address at which a pod meets the other end, which has `others`: one of the first family they share.
fn meeting(own: &[IpAddr], others: &[IpAddr]) -> Option<IpAddr> {
    let shared = others.iter().find_map(|other| own.iter().find(|own| own.is_ipv4() == other.is_ipv4()));
    shared.or(own.first()).copied()
}
