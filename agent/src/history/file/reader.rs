//! Reading one file, line by line.

use std::io::{self, BufRead, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::header::{FORMAT, Header, VERSION};
use super::merge::Merger;
use super::wire::{EdgeLine, FormatLine, IdentityLine, Line, Map, PartyLine, PodLine, RoleLine, ServiceLine};
use super::writer::PartyKey;
use crate::model::edge::{Counters, Edge, IcmpErrors};
use crate::model::endpoint::{Backend, Endpoint, Party, Pod, ServiceTarget};
use crate::model::identity::{Identity, IdentityParts, NamedPort};
use crate::model::labels::Labels;
use crate::model::object::WorkloadRef;
use crate::model::time::Timestamp;
use crate::model::verdict::UnknownReason;

/// The longest line that is read. A Service with 100,000 backends takes 1.5 MB.
const LONGEST_LINE: u64 = 64 << 20;

/// Why a file of recorded edges cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {at}{fault}", path = path.display(), at = if *line == 0 { String::new() } else { format!("line {line}: ") })]
pub struct ReadError {
    pub path: PathBuf,
    /// From 1; 0 where the whole file is meant.
    pub line: usize,
    pub fault: Fault,
}

/// What is wrong with a file of recorded edges.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("is no file of recorded edges: its first line is no {FORMAT} header")]
    Format,
    #[error(
        "holds version {found} of the format, and this dryfence reads versions up to {VERSION}: use a newer one"
    )]
    Newer { found: u32 },
    #[error("{field}{source}", field = if field == "." { String::new() } else { format!("{field}: ") })]
    Json { field: String, source: serde_json::Error },
    #[error("is truncated: it ends without the line that counts its edges")]
    Truncated,
    #[error("names {what} {id}, which no line before it describes")]
    Reference { what: &'static str, id: u32 },
    #[error("describes {what} {found} where {expected} was expected: lines are missing or not in order")]
    Order { what: &'static str, expected: usize, found: u32 },
    #[error("party {id}: must be one of pod, node, service, external, unknown")]
    PartyKind { id: u32 },
    #[error("party {id}: its address is not the first of a block of that prefix")]
    Prefix { id: u32 },
    #[error("party {id}: a Service is no backend of a Service")]
    NestedService { id: u32 },
    #[error("pod {id}: \"{text}\" is not Kind/name")]
    Workload { id: u32, text: String },
    #[error("party {id}: no dialect has the switch \"{switch}\"")]
    Switch { id: u32, switch: String },
    #[error("counts {said} edges where {found} came before it: lines are missing")]
    Count { said: u64, found: u64 },
    #[error("comes after the line that ends the recording")]
    AfterEnd,
    #[error("is longer than {} MiB", LONGEST_LINE >> 20)]
    TooLong,
    #[error("is of {this}, and {first} is of {other}: edges of different clusters do not merge",
        first = first.display())]
    Clusters { this: String, first: PathBuf, other: String },
}

/// The lines of one file, and where we are in it.
pub(super) struct Lines<'a, R> {
    path: &'a Path,
    source: R,
    bytes: Vec<u8>,
    number: usize,
}

impl<'a, R: BufRead> Lines<'a, R> {
    pub(super) const fn new(path: &'a Path, source: R) -> Self {
        Self { path, source, bytes: Vec::new(), number: 0 }
    }

    pub(super) fn error(&self, fault: impl Into<Fault>) -> ReadError {
        ReadError { path: self.path.to_owned(), line: self.number, fault: fault.into() }
    }

    /// Takes the next line into `bytes`; whether there was one.
    fn advance(&mut self) -> Result<bool, ReadError> {
        self.bytes.clear();
        self.number += 1;
        let read = self.source.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut self.bytes);
        match read {
            // A compressed file that stops early, in whatever way its decoder says so.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.error(Fault::Truncated)),
            Err(error) => Err(self.error(error)),
            Ok(0) => Ok(false),
            Ok(_) if self.bytes.last() == Some(&b'\n') => {
                self.bytes.pop();
                Ok(true)
            }
            Ok(read) if read as u64 == LONGEST_LINE => Err(self.error(Fault::TooLong)),
            // A line without its end was cut, even where it happens to parse.
            Ok(_) => Ok(true),
        }
    }

    /// The header.
    pub(super) fn header(&mut self) -> Result<Header, ReadError> {
        if !self.advance()? {
            self.number = 0;
            return Err(self.error(Fault::Format));
        }
        let format = serde_json::from_slice::<FormatLine>(&self.bytes);
        let Ok(FormatLine { format: Some(name), version: Some(version) }) = format else {
            return Err(self.error(Fault::Format));
        };
        if name != FORMAT {
            return Err(self.error(Fault::Format));
        }
        if version > VERSION {
            return Err(self.error(Fault::Newer { found: version }));
        }
        let mut fields: serde_json::Map<String, serde_json::Value> =
            parse(&self.bytes).map_err(|fault| self.error(fault))?;
        fields.remove("format");
        fields.remove("version");
        serde_path_to_error::deserialize(serde_json::Value::Object(fields)).map_err(|error| {
            self.error(Fault::Json { field: error.path().to_string(), source: error.into_inner() })
        })
    }

    /// Everything behind the header.
    pub(super) fn body(&mut self, merger: &mut Merger) -> Result<(), ReadError> {
        let mut file =
            FileState { merger, identities: Vec::new(), pods: Vec::new(), parties: Vec::new(), edges: 0 };
        while self.advance()? {
            match file.line(&self.bytes) {
                Ok(true) => {}
                Ok(false) => {
                    return if self.advance()? { Err(self.error(Fault::AfterEnd)) } else { Ok(()) };
                }
                // The last line of a file that was cut while it was written.
                Err(Fault::Json { source, .. }) if source.is_eof() && self.is_last()? => {
                    return Err(self.error(Fault::Truncated));
                }
                Err(fault) => return Err(self.error(fault)),
            }
        }
        self.number -= 1;
        Err(self.error(Fault::Truncated))
    }

    fn is_last(&mut self) -> Result<bool, ReadError> {
        let rest = self.source.fill_buf().map(<[u8]>::is_empty);
        rest.or_else(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Ok(true),
            _ => Err(self.error(error)),
        })
    }
}

/// Parses a line, and says which field does not fit.
fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Fault> {
    // Looking for the field takes time, and almost every line fits.
    serde_json::from_slice(bytes).map_err(|first| {
        let mut json = serde_json::Deserializer::from_slice(bytes);
        match serde_path_to_error::deserialize::<_, T>(&mut json) {
            Err(error) => Fault::Json { field: error.path().to_string(), source: error.into_inner() },
            Ok(_) => Fault::Json { field: ".".to_owned(), source: first },
        }
    })
}

/// What the lines of a file described so far, by its own numbers.
struct FileState<'a> {
    merger: &'a mut Merger,
    identities: Vec<Arc<Identity>>,
    /// With the number in the merger.
    pods: Vec<(u32, Arc<Pod>)>,
    /// The numbers in the merger.
    parties: Vec<u32>,
    edges: u64,
}

/// What has the number `id`.
fn named<'a, T>(list: &'a [T], what: &'static str, id: u32) -> Result<&'a T, Fault> {
    list.get(id as usize).ok_or(Fault::Reference { what, id })
}

/// Things are described in the order of their numbers.
fn in_order<T>(list: &[T], what: &'static str, found: u32) -> Result<(), Fault> {
    let expected = list.len();
    if found as usize == expected { Ok(()) } else { Err(Fault::Order { what, expected, found }) }
}

impl FileState<'_> {
    /// Takes a line; false if it was the last one.
    fn line(&mut self, bytes: &[u8]) -> Result<bool, Fault> {
        match parse(bytes)? {
            Line::Edge(edge) => self.edge(&edge)?,
            Line::Party(party) => self.party(party)?,
            Line::Pod(pod) => self.pod(pod)?,
            Line::Identity(identity) => self.identity(identity)?,
            Line::End(end) if end.edges == self.edges => return Ok(false),
            Line::End(end) => return Err(Fault::Count { said: end.edges, found: self.edges }),
        }
        Ok(true)
    }

    fn identity(&mut self, line: IdentityLine<'_>) -> Result<(), Fault> {
        in_order(&self.identities, "identity", line.id)?;
        let namespace_labels = self.labels(&line.namespace_labels);
        let labels = self.labels(&line.labels);
        let merger = &mut *self.merger;
        let named_ports = line.named_ports.iter().map(|port| NamedPort {
            name: merger.share(&port.name.0),
            protocol: port.protocol,
            port: port.port,
        });
        let parts = IdentityParts {
            named_ports: named_ports.collect(),
            namespace: merger.share(&line.namespace.0),
            namespace_labels,
            labels,
            service_account: merger.share(&line.service_account.0),
            roles: RoleLine::roles(&line.roles),
        };
        self.identities.push(merger.interner.intern(parts));
        Ok(())
    }

    fn labels(&mut self, map: &Map<'_>) -> Labels {
        map.iter().map(|(key, value)| (self.merger.share(&key.0), self.merger.share(&value.0))).collect()
    }

    fn pod(&mut self, line: PodLine<'_>) -> Result<(), Fault> {
        in_order(&self.pods, "pod", line.id)?;
        let identity = Arc::clone(named(&self.identities, "identity", line.identity)?);
        let namespace = Arc::clone(&identity.namespace);
        let mut workload = |text: &str| {
            let (kind, name) = text
                .split_once('/')
                .filter(|(kind, name)| !kind.is_empty() && !name.is_empty())
                .ok_or_else(|| Fault::Workload { id: line.id, text: text.to_owned() })?;
            let (kind, name) = (self.merger.share(kind), self.merger.share(name));
            Ok::<_, Fault>(WorkloadRef { kind, namespace: Arc::clone(&namespace), name })
        };
        let owners = line.owners.iter().map(|owner| workload(&owner.0)).collect::<Result<Vec<_>, _>>()?;
        let workload = workload(&line.workload.0)?;
        let pod = Pod {
            selector: self.labels(&line.selector),
            name: self.merger.share(&line.name.0),
            uid: self.merger.share(&line.uid.0),
            node: line.node.map(|node| self.merger.share(&node.0)),
            namespace,
            identity,
            workload,
            owners: owners.into(),
            host_network: line.host_network,
            addresses: line.addresses.into(),
            from_template: line.from_template,
        };
        self.pods.push(self.merger.pod(pod));
        Ok(())
    }

    fn party(&mut self, line: PartyLine<'_>) -> Result<(), Fault> {
        in_order(&self.parties, "party", line.id)?;
        let (id, address, prefix) = (line.id, line.address, line.prefix);
        let (endpoint, key) = match line {
            PartyLine {
                pod: Some(pod), node: None, service: None, external: false, unknown: None, ..
            } => {
                let (number, pod) = named(&self.pods, "pod", pod)?;
                (Endpoint::Pod(Arc::clone(pod)), PartyKey::Pod(address, *number))
            }
            PartyLine {
                pod: None, node: Some(node), service: None, external: false, unknown: None, ..
            } => {
                let name = self.merger.share(&node.0);
                (Endpoint::Node(Arc::clone(&name)), PartyKey::Node(address, name))
            }
            PartyLine {
                pod: None, node: None, service: Some(line), external: false, unknown: None, ..
            } => self.service(id, address, &line)?,
            PartyLine { pod: None, node: None, service: None, external: true, unknown: None, .. } => {
                let network = |length| ipnet::IpNet::new(address?, length).ok().map(|net| net.network());
                if prefix.is_some_and(|length| network(length).is_none_or(|first| Some(first) != address)) {
                    return Err(Fault::Prefix { id });
                }
                (prefix.map_or(Endpoint::External, Endpoint::Range), PartyKey::External(address, prefix))
            }
            PartyLine {
                pod: None, node: None, service: None, external: false, unknown: Some(line), ..
            } => {
                let reason = UnknownReason::try_from(line).map_err(|switch| Fault::Switch { id, switch })?;
                (Endpoint::Unknown(reason.clone()), PartyKey::Unknown(address, reason))
            }
            _ => return Err(Fault::PartyKind { id }),
        };
        let number = self.merger.party(key, Party { address, endpoint });
        self.parties.push(number);
        Ok(())
    }

    fn service(
        &mut self,
        id: u32,
        address: Option<std::net::IpAddr>,
        line: &ServiceLine<'_>,
    ) -> Result<(Endpoint, PartyKey), Fault> {
        let mut backends = Vec::with_capacity(line.backends.len());
        let mut numbers = Vec::with_capacity(line.backends.len());
        for (party, port) in &line.backends {
            let number = *named(&self.parties, "party", *party)?;
            let party = named(&self.merger.parties, "party", number)?;
            if matches!(party.endpoint, Endpoint::Service(_)) {
                return Err(Fault::NestedService { id });
            }
            backends.push(Backend { party: party.clone(), port: *port });
            numbers.push((number, *port));
        }
        let (namespace, name) = (self.merger.share(&line.namespace.0), self.merger.share(&line.name.0));
        let key = PartyKey::Service(address, Arc::clone(&namespace), Arc::clone(&name), numbers);
        Ok((Endpoint::Service(Arc::new(ServiceTarget { namespace, name, backends })), key))
    }

    fn edge(&mut self, line: &EdgeLine) -> Result<(), Fault> {
        let from = *named(&self.parties, "party", line.from)?;
        let to = *named(&self.parties, "party", line.to)?;
        self.edges += 1;
        let initiator = named(&self.merger.parties, "party", from)?.clone();
        let responder = named(&self.merger.parties, "party", to)?.clone();
        let [too_big, time_exceeded, other] = line.icmp_errors;
        let icmp_errors = IcmpErrors { too_big, time_exceeded, other };
        let edge = Edge {
            initiator,
            responder,
            port: line.port,
            protocol: line.protocol,
            direction: line.direction,
            cause: line.cause,
            counters: Counters { icmp_errors, ..line.counters.into() },
            first_seen: Timestamp::from_nanos(line.first),
            last_seen: Timestamp::from_nanos(line.last),
            oriented_by: line.oriented_by,
            fully_visible: !line.half_visible,
            vlan: line.vlan,
            estimated: line.estimated,
        };
        self.merger.edge((from, to), edge);
        Ok(())
    }
}
