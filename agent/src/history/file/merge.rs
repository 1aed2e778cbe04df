//! Reading several files as one recording.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::codec::Codec;
use super::header::{Gap, Header};
use super::reader::{Fault, Lines, ReadError};
use super::writer::PartyKey;
use crate::model::edge::{Direction, Edge, Protocol};
use crate::model::endpoint::{Party, Pod};
use crate::model::identity::{IdentityId, Interner};
use crate::model::time::Timestamp;

/// Recorded edges, each once, with everything that they were read with.
#[derive(Debug, Default)]
pub struct Recording {
    /// Of all files together. Its window is from the first start to the last end; where a node was not recorded
    /// in between is a gap. Its dialect is empty where the files differ in it.
    pub header: Header,
    /// In the order in which they first came.
    pub edges: Vec<Edge>,
    /// The identities of the edges' pods: whoever judges the edges by changed labels interns them here.
    pub interner: Interner,
    /// The dialects that the files name.
    pub dialects: BTreeSet<String>,
}

/// Where a recording comes from: a name for messages, and its bytes.
pub struct Source<'a> {
    pub name: PathBuf,
    pub bytes: Box<dyn Read + 'a>,
}

impl<'a> Source<'a> {
    pub fn new(name: impl Into<PathBuf>, bytes: impl Read + 'a) -> Self {
        Self { name: name.into(), bytes: Box::new(bytes) }
    }

    /// A file; `-` is standard input.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        if path.as_os_str() == "-" {
            return Ok(Self::new("standard input", io::stdin()));
        }
        let file = File::open(path).map_err(|error| ReadError {
            path: path.to_owned(),
            line: 0,
            fault: error.into(),
        })?;
        Ok(Self::new(path, file))
    }
}

/// Reads all sources as one recording: the same edge in several of them is one edge, with the sum of the counters.
///
/// # Errors
/// The first thing that is wrong with any of them; then nothing of them is used.
pub fn read<'a>(
    sources: impl IntoIterator<Item = Result<Source<'a>, ReadError>>,
) -> Result<Recording, ReadError> {
    let mut merger = Merger::default();
    for source in sources {
        let Source { name, bytes } = source?;
        merger.source(&name, bytes)?;
    }
    Ok(merger.finish())
}

/// Reads files as one recording; see [`read`].
///
/// # Errors
/// The first thing that is wrong with any of the files; then nothing of them is used.
pub fn read_files(paths: &[PathBuf]) -> Result<Recording, ReadError> {
    read(paths.iter().map(|path| Source::open(path)))
}

/// What makes recorded edges the same: the numbers of the parties, and whatever a sum of counters must not mix.
type EdgeKey = (u32, u32, u16, Protocol, Direction, bool, u16);

/// What makes pods likely to be the same.
type PodKey = (Arc<str>, Arc<str>, IdentityId);

/// Everything read so far, over all files.
#[derive(Default)]
pub(super) struct Merger {
    pub(super) interner: Interner,
    pub(super) parties: Vec<Party>,
    strings: FxHashSet<Arc<str>>,
    pods: FxHashMap<PodKey, Vec<(u32, Arc<Pod>)>>,
    pod_count: u32,
    party_numbers: FxHashMap<PartyKey, u32>,
    edge_places: FxHashMap<EdgeKey, usize>,
    edges: Vec<Edge>,
    headers: Vec<(PathBuf, Header)>,
}

impl Merger {
    fn source(&mut self, path: &Path, source: impl Read) -> Result<(), ReadError> {
        let failed = |error: io::Error| ReadError { path: path.to_owned(), line: 0, fault: error.into() };
        let mut lines = Lines::new(path, Codec::reader(source).map_err(failed)?);
        let header = lines.header()?;
        if let Some((first, other)) =
            self.headers.first().filter(|(_, other)| other.cluster != header.cluster)
        {
            let named = |header: &Header| match header.cluster.as_str() {
                "" => "a cluster without a name".to_owned(),
                name => format!("cluster \"{name}\""),
            };
            let fault = Fault::Clusters { this: named(&header), first: first.clone(), other: named(other) };
            return Err(lines.error(fault));
        }
        lines.body(self)?;
        self.headers.push((path.to_owned(), header));
        Ok(())
    }

    /// The shared copy of an equal text.
    pub(super) fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.strings.get(text) {
            return Arc::clone(known);
        }
        let shared = Arc::from(text);
        self.strings.insert(Arc::clone(&shared));
        shared
    }

    /// The pod's number, and the first of all that are equal to it.
    pub(super) fn pod(&mut self, pod: Pod) -> (u32, Arc<Pod>) {
        let key = (Arc::clone(&pod.namespace), Arc::clone(&pod.name), pod.identity.id);
        let alike = self.pods.entry(key).or_default();
        if let Some((number, known)) = alike.iter().find(|(_, known)| **known == pod) {
            return (*number, Arc::clone(known));
        }
        let new = (self.pod_count, Arc::new(pod));
        self.pod_count += 1;
        alike.push((new.0, Arc::clone(&new.1)));
        new
    }

    pub(super) fn party(&mut self, key: PartyKey, party: Party) -> u32 {
        let parties = &mut self.parties;
        *self.party_numbers.entry(key).or_insert_with(|| {
            parties.push(party);
            u32::try_from(parties.len() - 1).unwrap_or(u32::MAX)
        })
    }

    pub(super) fn edge(&mut self, (from, to): (u32, u32), edge: Edge) {
        let key = (from, to, edge.port, edge.protocol, edge.direction, edge.fully_visible, edge.vlan);
        let place = *self.edge_places.entry(key).or_insert(self.edges.len());
        match self.edges.get_mut(place) {
            None => self.edges.push(edge),
            Some(known) => {
                known.counters = known.counters.plus(edge.counters);
                known.first_seen = known.first_seen.min(edge.first_seen);
                known.last_seen = known.last_seen.max(edge.last_seen);
                // The surest way of knowing comes first in order.
                known.oriented_by = known.oriented_by.min(edge.oriented_by);
                known.estimated |= edge.estimated;
            }
        }
    }

    fn finish(self) -> Recording {
        let dialects: BTreeSet<String> = self
            .headers
            .iter()
            .map(|(_, header)| header.dialect.clone())
            .filter(|dialect| !dialect.is_empty())
            .collect();
        Recording { header: together(&self.headers), edges: self.edges, interner: self.interner, dialects }
    }
}

/// One header for all files.
fn together(headers: &[(PathBuf, Header)]) -> Header {
    let [(_, first), rest @ ..] = headers else { return Header::default() };
    if rest.is_empty() {
        return first.clone();
    }
    let each = || headers.iter().map(|(_, header)| header);
    let same = |of: fn(&Header) -> &str| each().all(|header| of(header) == of(first));
    let start = each().map(|header| header.start).min().unwrap_or_default();
    let end = each().map(|header| header.end).max().unwrap_or_default();
    let mut gaps: Vec<Gap> = each().flat_map(|header| header.gaps.iter().cloned()).collect();
    let mut warnings: Vec<String> = each().flat_map(|header| header.warnings.iter().cloned()).collect();
    let mut by_node: BTreeMap<Option<&str>, Vec<&(PathBuf, Header)>> = BTreeMap::new();
    for file in headers {
        by_node.entry(file.1.node.as_deref()).or_default().push(file);
    }
    for (node, files) in by_node {
        holes(node, files, (start, end), &mut gaps, &mut warnings);
    }
    gaps.sort();
    gaps.dedup();
    let mut unobserved: Vec<String> = each().flat_map(|header| header.unobserved.iter().cloned()).collect();
    unobserved.sort();
    unobserved.dedup();
    let mut scenarios = Vec::new();
    for scenario in each().flat_map(|header| &header.scenarios) {
        if !scenarios.contains(scenario) {
            scenarios.push(scenario.clone());
        }
    }
    warnings.sort();
    warnings.dedup();
    Header {
        cluster: first.cluster.clone(),
        node: first.node.clone().filter(|_| same(|header| header.node.as_deref().unwrap_or_default())),
        dialect: if same(|header| &header.dialect) { first.dialect.clone() } else { String::new() },
        start,
        end,
        gaps,
        losses: each().flat_map(|header| header.losses.iter().cloned()).collect(),
        unobserved,
        scenarios,
        warnings,
    }
}

/// When nobody recorded a node within the whole window, and which of its files overlap.
fn holes(
    node: Option<&str>,
    mut files: Vec<&(PathBuf, Header)>,
    (start, end): (Timestamp, Timestamp),
    gaps: &mut Vec<Gap>,
    warnings: &mut Vec<String>,
) {
    let reason = || match node {
        Some(node) => format!("node {node} was not recorded"),
        None => "nothing was recorded".to_owned(),
    };
    files.sort_by_key(|(_, header)| (header.start, header.end));
    let mut covered = start;
    let mut last: Option<&Path> = None;
    for (path, header) in files {
        if header.start > covered {
            gaps.push(Gap { from: covered, to: header.start, reason: reason() });
        }
        // Without a node's name they may be of different nodes.
        if let Some(last) = last.filter(|_| node.is_some() && header.start < covered) {
            warnings.push(format!(
                "{} and {} recorded the same node at the same time: what both counted is counted twice",
                last.display(),
                path.display()
            ));
        }
        if header.end > covered {
            covered = header.end;
        }
        last = Some(path);
    }
    if covered < end {
        gaps.push(Gap { from: covered, to: end, reason: reason() });
    }
}
