//! Writing recorded edges, one at a time.

use std::fs;
use std::hash::Hash;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::codec::Codec;
use super::header::{FORMAT, Header, VERSION};
use super::wire::{
    EdgeLine, EndLine, IdentityLine, Line, Map, PartyLine, PodLine, PortLine, ReasonLine, RoleLine,
    ServiceLine, Text,
};
use crate::model::edge::Edge;
use crate::model::endpoint::{Endpoint, Party, Pod, ServiceTarget};
use crate::model::identity::Identity;
use crate::model::labels::Labels;
use crate::model::object::WorkloadRef;
use crate::model::verdict::UnknownReason;

/// Why edges could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("recorded edges cannot be written: {0}")]
    Io(#[from] io::Error),
    #[error("recorded edges cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("recorded edges cannot be written to {path}: {source}", path = path.display())]
    File { path: PathBuf, source: Box<WriteError> },
    #[error("recorded edges cannot be written: there are more than {limit} {what}", limit = u32::MAX)]
    TooMany { what: &'static str },
}

/// Writes a file of recorded edges, compressed by its suffix. It appears under its name only when it is whole.
///
/// # Errors
/// If the file cannot be written; whatever was there under its name is then still there.
pub fn write<'a>(
    path: &Path,
    header: &Header,
    edges: impl IntoIterator<Item = &'a Edge>,
) -> Result<(), WriteError> {
    let named = |source: WriteError| WriteError::File { path: path.to_owned(), source: Box::new(source) };
    let partial = partial_name(path);
    let written = (|| {
        let mut writer = Writer::new(Codec::of(path).create(&partial)?, header)?;
        for edge in edges {
            writer.edge(edge)?;
        }
        let file = writer.finish()?.finish()?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        Ok(())
    })();
    written.map_err(|error| {
        // What matters is the first error; the partial file may not even be there.
        drop(fs::remove_file(&partial));
        named(error)
    })
}

/// Beside the file, so that renaming stays within one file system.
fn partial_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".partial-{}", std::process::id()));
    PathBuf::from(name)
}

/// Writes recorded edges as they come: what an edge refers to goes before it, once.
#[derive(Debug)]
pub struct Writer<W: Write> {
    target: W,
    identities: Numbers<Shared<Identity>>,
    pods: Numbers<Shared<Pod>>,
    parties: Numbers<PartyKey>,
    edges: u64,
}

/// Numbers in the order of asking.
#[derive(Debug)]
struct Numbers<K> {
    known: FxHashMap<K, u32>,
}

impl<K: Hash + Eq> Numbers<K> {
    fn next(&self, what: &'static str) -> Result<u32, WriteError> {
        u32::try_from(self.known.len()).ok().ok_or(WriteError::TooMany { what })
    }
}

/// One allocation, told apart by its address, and held so that the address stays its own.
#[derive(Debug)]
struct Shared<T>(Arc<T>);

impl<T> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
impl<T> Eq for Shared<T> {}
impl<T> Hash for Shared<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// What makes parties the same: their address and, for pods and backends, the numbers they have already.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum PartyKey {
    Pod(Option<IpAddr>, u32),
    Node(Option<IpAddr>, Arc<str>),
    Service(Option<IpAddr>, Arc<str>, Arc<str>, Vec<(u32, u16)>),
    /// With the length of the prefix where it is a range.
    External(Option<IpAddr>, Option<u8>),
    Unknown(Option<IpAddr>, UnknownReason),
}

#[derive(Serialize)]
struct FirstLine<'a> {
    format: &'a str,
    version: u32,
    #[serde(flatten)]
    header: &'a Header,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// If the target takes no bytes.
    pub fn new(target: W, header: &Header) -> Result<Self, WriteError> {
        let numbers = || Numbers { known: FxHashMap::default() };
        let mut writer = Self {
            target,
            identities: Numbers { known: FxHashMap::default() },
            pods: Numbers { known: FxHashMap::default() },
            parties: numbers(),
            edges: 0,
        };
        writer.line(&FirstLine { format: FORMAT, version: VERSION, header })?;
        Ok(writer)
    }

    /// Writes one edge, and before it whatever it names that was not written yet.
    ///
    /// # Errors
    /// If the target takes no bytes.
    pub fn edge(&mut self, edge: &Edge) -> Result<(), WriteError> {
        let from = self.party(&edge.initiator)?;
        let to = self.party(&edge.responder)?;
        self.edges += 1;
        self.line(&Line::Edge(EdgeLine {
            from,
            to,
            port: edge.port,
            protocol: edge.protocol,
            direction: edge.direction,
            cause: edge.cause,
            counters: edge.counters.into(),
            first: edge.first_seen.as_nanos(),
            last: edge.last_seen.as_nanos(),
            oriented_by: edge.oriented_by,
            half_visible: !edge.fully_visible,
            vlan: edge.vlan,
            estimated: edge.estimated,
            icmp_errors: edge.counters.icmp_errors.kinds().map(|(_, errors)| errors),
        }))
    }

    /// Where the lines go, for whoever takes them away as they come.
    pub const fn target(&mut self) -> &mut W {
        &mut self.target
    }

    /// Writes the last line, without which the file counts as truncated.
    ///
    /// # Errors
    /// If the target takes no bytes.
    pub fn finish(mut self) -> Result<W, WriteError> {
        self.line(&Line::End(EndLine { edges: self.edges }))?;
        self.target.flush()?;
        Ok(self.target)
    }

    fn line(&mut self, line: &impl Serialize) -> Result<(), WriteError> {
        serde_json::to_writer(&mut self.target, line)?;
        Ok(self.target.write_all(b"\n")?)
    }

    fn party(&mut self, party: &Party) -> Result<u32, WriteError> {
        let address = party.address;
        let key = match &party.endpoint {
            Endpoint::Pod(pod) => PartyKey::Pod(address, self.pod(pod)?),
            Endpoint::Node(name) => PartyKey::Node(address, Arc::clone(name)),
            Endpoint::Service(service) => {
                let backends = self.backends(service)?;
                PartyKey::Service(
                    address,
                    Arc::clone(&service.namespace),
                    Arc::clone(&service.name),
                    backends,
                )
            }
            Endpoint::External => PartyKey::External(address, None),
            Endpoint::Range(length) => PartyKey::External(address, Some(*length)),
            Endpoint::Unknown(reason) => PartyKey::Unknown(address, reason.clone()),
        };
        if let Some(known) = self.parties.known.get(&key) {
            return Ok(*known);
        }
        let id = self.parties.next("parties")?;
        let mut line = PartyLine { id, address, ..PartyLine::default() };
        match &key {
            PartyKey::Pod(_, pod) => line.pod = Some(*pod),
            PartyKey::Node(_, name) => line.node = Some(Text::from(&**name)),
            PartyKey::Service(_, namespace, name, backends) => {
                line.service = Some(ServiceLine {
                    namespace: Text::from(&**namespace),
                    name: Text::from(&**name),
                    backends: backends.clone(),
                });
            }
            PartyKey::External(_, prefix) => (line.external, line.prefix) = (true, *prefix),
            PartyKey::Unknown(_, reason) => line.unknown = Some(ReasonLine::from(reason)),
        }
        self.line(&Line::Party(line))?;
        self.parties.known.insert(key, id);
        Ok(id)
    }

    fn backends(&mut self, service: &ServiceTarget) -> Result<Vec<(u32, u16)>, WriteError> {
        service.backends.iter().map(|backend| Ok((self.party(&backend.party)?, backend.port))).collect()
    }

    fn pod(&mut self, pod: &Arc<Pod>) -> Result<u32, WriteError> {
        let key = Shared(Arc::clone(pod));
        if let Some(known) = self.pods.known.get(&key) {
            return Ok(*known);
        }
        let identity = self.identity(&pod.identity)?;
        let id = self.pods.next("pods")?;
        self.line(&Line::Pod(PodLine {
            id,
            identity,
            name: Text::from(&*pod.name),
            uid: Text::from(&*pod.uid),
            workload: kind_and_name(&pod.workload),
            owners: pod.owners.iter().map(kind_and_name).collect(),
            selector: map(&pod.selector),
            node: pod.node.as_deref().map(Text::from),
            host_network: pod.host_network,
            addresses: pod.addresses.to_vec(),
            from_template: pod.from_template,
        }))?;
        self.pods.known.insert(key, id);
        Ok(id)
    }

    fn identity(&mut self, identity: &Arc<Identity>) -> Result<u32, WriteError> {
        let key = Shared(Arc::clone(identity));
        if let Some(known) = self.identities.known.get(&key) {
            return Ok(*known);
        }
        let id = self.identities.next("identities")?;
        let port = |port: &'_ crate::model::identity::NamedPort| PortLine {
            name: Text::from(port.name.to_string()),
            protocol: port.protocol,
            port: port.port,
        };
        self.line(&Line::Identity(IdentityLine {
            id,
            namespace: Text::from(&*identity.namespace),
            namespace_labels: map(&identity.namespace_labels),
            labels: map(&identity.labels),
            service_account: Text::from(&*identity.service_account),
            named_ports: identity.named_ports.iter().map(port).collect(),
            roles: RoleLine::of(identity.roles),
        }))?;
        self.identities.known.insert(key, id);
        Ok(id)
    }
}

fn kind_and_name(workload: &WorkloadRef) -> Text<'static> {
    Text::from(format!("{}/{}", workload.kind, workload.name))
}

fn map(labels: &Labels) -> Map<'_> {
    labels.iter().map(|(key, value)| (Text::from(key), Text::from(value))).collect()
}
