//! Where flows come from: an agent with its own answers, or files judged by what manifests declare.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use anyhow::ensure;

use super::Args;
use crate::audit::judges::Judges;
use crate::cli::fleet::Agents;
use crate::cli::recording;
use crate::finding::words::moment;
use crate::history::file::{Header, Recording};
use crate::model::edge::{Direction, Edge, Protocol};
use crate::model::record::{EdgeList, EdgeRecord, PartyRecord, ScenarioRecord, WindowRecord};
use crate::model::scenario::Scenario;

/// Edges with their verdicts, and as they were recorded where that was asked for.
#[derive(Debug)]
pub(super) struct Flows {
    pub(super) list: EdgeList,
    /// One for each of the list's edges, in their order.
    pub(super) recorded: Option<(Header, Vec<Edge>)>,
}

/// Reads what the arguments name. `whole`: also as it was recorded.
pub(super) fn read(args: &Args, agents: &Agents, whole: bool) -> anyhow::Result<Flows> {
    let timeout = args.ask.timeout();
    if !args.flows.is_empty() {
        let recording = recording::read(&args.flows, &Agents::Named(Vec::new()), timeout)?;
        return judged(args, recording);
    }
    ensure!(
        args.manifests.is_empty(),
        "--manifests judges what --flows names; an agent's edges come with its own verdicts"
    );
    // Asked first: every edge in it is in the recording, unless it is forgotten in between.
    let list = agents.edges(timeout)?.list;
    if !whole {
        return Ok(Flows { list, recorded: None });
    }
    Ok(with_recording(list, recording::read(&[], agents, timeout)?))
}

/// Recorded edges, judged if there is something to judge them by: as an agent would have judged them.
fn judged(args: &Args, recording: Recording) -> anyhow::Result<Flows> {
    let cluster = recording::cluster(&args.manifests, "manifests")?;
    let header = recording.header;
    let mut list = EdgeList {
        segment_maps: Vec::new(),
        exception_findings: Vec::new(),
        window: WindowRecord {
            start: header.start,
            end: header.end,
            losses: header.losses.clone(),
            unobserved: header.unobserved.clone(),
        },
        dialect: header.dialect.clone(),
        scenarios: Vec::new(),
        warnings: header.warnings.clone(),
        edges: Vec::new(),
    };
    let gap = |gap: &crate::history::file::Gap| {
        format!("from {} to {}: {}", moment(gap.from), moment(gap.to), gap.reason)
    };
    list.warnings.extend(header.gaps.iter().map(gap));
    list.warnings.extend(cluster.warnings);
    let edges = recording.edges;
    if args.manifests.is_empty() {
        list.edges = edges.iter().map(|edge| EdgeRecord::new(edge, std::iter::empty())).collect();
        return Ok(Flows { list, recorded: Some((header, edges)) });
    }
    let dialect = recording::dialect(args.dialect, &recording.dialects)?;
    list.dialect = dialect.to_string();
    let scenarios = [Scenario::Enforced, args.default_deny.scenario()];
    let record = |scenario: &Scenario| ScenarioRecord {
        name: scenario.name().to_owned(),
        description: scenario.to_string(),
    };
    let mut judges = Judges::of_recording(&scenarios, dialect, &cluster.objects, &edges, header.end);
    list.warnings.extend(judges.warning().map(ToOwned::to_owned));
    list.scenarios = judges.scenarios().iter().map(record).collect();
    list.edges = edges.iter().map(|edge| judges.judge(edge).record(edge)).collect();
    // After the edges: which of them are in two segments is known only now.
    list.segment_maps = judges.segment_maps();
    list.exception_findings = judges.exception_findings();
    Ok(Flows { list, recorded: Some((header, edges)) })
}

/// What makes an edge of the list and one of the recording the same.
type Key = ([(Option<IpAddr>, String, Option<String>, Option<String>); 2], u16, Protocol, Direction);

fn key(edge: &EdgeRecord) -> Key {
    let end = |end: &PartyRecord| (end.address, end.kind.clone(), end.namespace.clone(), end.name.clone());
    ([end(&edge.initiator), end(&edge.responder)], edge.port, edge.protocol, edge.direction)
}

/// The recorded edges with the agent's answers. An edge that came after the list has none.
pub(super) fn with_recording(mut list: EdgeList, recording: Recording) -> Flows {
    let mut answers: HashMap<Key, VecDeque<EdgeRecord>> = HashMap::new();
    for edge in std::mem::take(&mut list.edges) {
        answers.entry(key(&edge)).or_default().push_back(edge);
    }
    for edge in &recording.edges {
        let mut record = EdgeRecord::new(edge, std::iter::empty());
        // A pod that was relabelled has several, in the same order in both answers.
        if let Some(given) = answers.get_mut(&key(&record)).and_then(VecDeque::pop_front) {
            (record.verdicts, record.segments) = (given.verdicts, given.segments);
        }
        list.edges.push(record);
    }
    Flows { list, recorded: Some((recording.header, recording.edges)) }
}
