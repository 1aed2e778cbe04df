//! Where flows come from: an agent with its own verdicts, or files judged by the policies of manifests.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::ensure;

use super::Args;
use crate::cli::recording;
use crate::cli::report;
use crate::finding::words::moment;
use crate::history::file::{Header, Recording};
use crate::model::edge::{Direction, Edge, Protocol};
use crate::model::record::{
    EdgeList, EdgeRecord, JudgementRecord, PartyRecord, ScenarioRecord, WindowRecord,
};
use crate::model::scenario::Scenario;
use crate::policy::Judge;
use crate::serve::address::Address;

/// Edges with their verdicts, and as they were recorded where that was asked for.
#[derive(Debug)]
pub(super) struct Flows {
    pub(super) list: EdgeList,
    /// One for each of the list's edges, in their order.
    pub(super) recorded: Option<(Header, Vec<Edge>)>,
}

/// Reads what the arguments name. `whole`: also as it was recorded.
pub(super) fn read(args: &Args, addresses: &[Address], whole: bool) -> anyhow::Result<Flows> {
    let timeout = Duration::from_secs(args.request_timeout);
    if !args.flows.is_empty() {
        let recording = recording::read(&args.flows, &[], timeout)?;
        return judged(args, recording);
    }
    ensure!(
        args.manifests.is_empty(),
        "--manifests judges what --flows names; an agent's edges come with its own verdicts"
    );
    // Asked first: every edge in it is in the recording, unless it is forgotten in between.
    let list = report::input::agents(addresses, timeout)?.list;
    if !whole {
        return Ok(Flows { list, recorded: None });
    }
    Ok(with_recording(list, recording::read(&[], addresses, timeout)?))
}

/// Recorded edges, judged if there is something to judge them by.
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
    let mut judges = Vec::new();
    if !args.manifests.is_empty() {
        let dialect = recording::dialect(args.dialect, &recording.dialects)?;
        list.dialect = dialect.to_string();
        let policies = recording::policies(&cluster.objects);
        for scenario in [Scenario::Enforced, args.default_deny.scenario()] {
            judges.push(Judge::new(&policies, dialect, &scenario));
            let name = scenario.name().to_owned();
            list.scenarios.push(ScenarioRecord { name, description: scenario.to_string() });
        }
    }
    for edge in &recording.edges {
        let given: Vec<_> =
            judges.iter_mut().map(|judge| (judge.scenario_name(), judge.judge(&edge.connection()))).collect();
        list.edges.push(EdgeRecord::new(edge, given.iter().map(|(name, judgement)| (*name, judgement))));
    }
    Ok(Flows { list, recorded: Some((header, recording.edges)) })
}

/// What makes an edge of the list and one of the recording the same.
type Key = ([(Option<IpAddr>, String, Option<String>, Option<String>); 2], u16, Protocol, Direction);

fn key(edge: &EdgeRecord) -> Key {
    let end = |end: &PartyRecord| (end.address, end.kind.clone(), end.namespace.clone(), end.name.clone());
    ([end(&edge.initiator), end(&edge.responder)], edge.port, edge.protocol, edge.direction)
}

/// The recorded edges with the agent's verdicts. An edge that came after the list has none.
fn with_recording(mut list: EdgeList, recording: Recording) -> Flows {
    type Verdicts = std::collections::BTreeMap<String, JudgementRecord>;
    let mut verdicts: HashMap<Key, VecDeque<Verdicts>> = HashMap::new();
    for edge in std::mem::take(&mut list.edges) {
        verdicts.entry(key(&edge)).or_default().push_back(edge.verdicts);
    }
    for edge in &recording.edges {
        let mut record = EdgeRecord::new(edge, std::iter::empty());
        // A pod that was relabelled has several, in the same order in both answers.
        let given = verdicts.get_mut(&key(&record)).and_then(VecDeque::pop_front);
        record.verdicts = given.unwrap_or_default();
        list.edges.push(record);
    }
    Flows { list, recorded: Some((recording.header, recording.edges)) }
}
