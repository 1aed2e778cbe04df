//! Compares what the agent shows with what was done.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use super::cluster::Cluster;
use super::plan::{FLOWS, Fate, Flow, Transport, Verdict, Verdicts};

/// The fields of a judged edge that the demo looks at.
#[derive(Debug, Clone, Deserialize)]
pub struct Edge {
    initiator: Party,
    responder: Party,
    port: u16,
    protocol: String,
    direction: String,
    pub attempts: u64,
    accepted: u64,
    refused: u64,
    packets_to_responder: u64,
    packets_to_initiator: u64,
    verdicts: std::collections::BTreeMap<String, Judgement>,
    #[serde(default)]
    segments: Vec<Crossing>,
}

/// What a segment map says.
#[derive(Debug, Clone, Deserialize)]
struct Crossing {
    map: String,
    verdict: String,
}

/// The only segment map of the demo.
const TIERS: &str = "tiers";

#[derive(Debug, Clone, Deserialize)]
struct Party {
    address: Option<IpAddr>,
    namespace: Option<String>,
    workload: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Judgement {
    verdict: String,
    egress: Decision,
    ingress: Decision,
}

#[derive(Debug, Clone, Deserialize)]
struct Decision {
    verdict: String,
}

/// The directions in which an edge is shown.
const DIRECTIONS: [&str; 2] = ["Egress", "Ingress"];

impl Edge {
    /// The segment maps that forbid it.
    fn violations(&self) -> impl Iterator<Item = &str> {
        let violations = self.segments.iter().filter(|crossing| crossing.verdict == "Violation");
        violations.map(|crossing| crossing.map.as_str())
    }
}

/// Reads edges as the agent serves them.
///
/// # Errors
/// Where a field is missing or of another type.
pub fn read(edges: &[Value]) -> serde_json::Result<Vec<Edge>> {
    edges.iter().map(Edge::deserialize).collect()
}

/// The flows that the network can carry.
pub fn flows(ipv6: bool) -> impl Iterator<Item = &'static Flow> {
    FLOWS.iter().filter(move |flow| ipv6 || !flow.ipv6)
}

/// What was said of one connection, by whoever predicts.
#[derive(Debug, Clone, Deserialize)]
pub struct Prediction {
    initiator: IpAddr,
    responder: IpAddr,
    port: u16,
    protocol: String,
    verdict: String,
}

/// What the agent's edges say under one scenario: one prediction for each side at which an edge was seen.
pub fn predictions(edges: &[Edge], scenario: &str) -> Vec<Prediction> {
    edges
        .iter()
        .filter_map(|edge| {
            Some(Prediction {
                initiator: edge.initiator.address?,
                responder: edge.responder.address?,
                port: edge.port,
                protocol: edge.protocol.clone(),
                verdict: edge.verdicts.get(scenario)?.verdict.clone(),
            })
        })
        .collect()
}

/// What was predicted for a flow.
///
/// # Errors
/// A sentence, where nothing was predicted, where it is neither `Allow` nor `Deny`, or where the two sides of the
/// connection got different answers.
pub fn predicted(cluster: &Cluster, flow: &Flow, predictions: &[Prediction]) -> Result<Verdict, String> {
    let ends = (flow.from.address(cluster, flow.ipv6), flow.to.address(cluster, flow.ipv6));
    let of_flow = predictions.iter().filter(|one| {
        one.port == flow.port
            && one.protocol == flow.transport.as_str()
            && (Some(one.initiator), Some(one.responder)) == ends
    });
    let mut verdicts: Vec<_> = of_flow.map(|one| one.verdict.as_str()).collect();
    verdicts.sort_unstable();
    verdicts.dedup();
    let known = [Verdict::Allow, Verdict::Deny];
    match verdicts[..] {
        [] => Err("nothing".to_owned()),
        [only] => known.into_iter().find(|verdict| verdict.as_str() == only).ok_or_else(|| only.to_owned()),
        _ => Err(verdicts.join(" and ")),
    }
}

/// What is not shown yet, or not with all of its counts; empty once everything is read.
pub fn missing(cluster: &Cluster, edges: &[Edge], ipv6: bool) -> Vec<String> {
    places(cluster, ipv6)
        .filter_map(|(flow, direction)| match find(cluster, edges, flow, direction) {
            None => Some(format!("{flow} is not shown at its {direction} side")),
            Some(edge) => counts(flow, edge, direction),
        })
        .collect()
}

/// Everything in which the edges differ from the plan: counts, verdicts, and denials that nobody planned.
pub fn differences(cluster: &Cluster, edges: &[Edge], ipv6: bool) -> Vec<String> {
    let mut found = missing(cluster, edges, ipv6);
    for (flow, direction) in places(cluster, ipv6) {
        let Some(edge) = find(cluster, edges, flow, direction) else { continue };
        found.extend(parties(cluster, flow, edge));
        found.extend(judged(flow, edge, direction, "enforced", flow.enforced));
        found.extend(judged(flow, edge, direction, "default-deny", flow.default_deny));
        let violates = edge.violations().any(|map| map == TIERS);
        if violates != flow.violates_tiers() {
            let shown = if violates { "a violation" } else { "no violation" };
            found.push(format!("{flow} ({direction} side) is shown as {shown} of the segment map {TIERS}"));
        }
    }
    let planned =
        |edge: &&Edge| places(cluster, ipv6).any(|(flow, direction)| matches(cluster, edge, flow, direction));
    for edge in edges.iter().filter(|edge| !planned(edge)) {
        found.extend(edge.violations().map(|map| {
            let Edge { initiator, responder, port, .. } = edge;
            format!(
                "{:?} → {:?}:{port} was not planned and violates the segment map {map}",
                initiator.address, responder.address
            )
        }));
        for (scenario, judgement) in &edge.verdicts {
            if judgement.verdict != Verdict::Allow.as_str() {
                let Edge { initiator, responder, port, protocol, direction, .. } = edge;
                found.push(format!(
                    "{:?} → {:?}:{port}/{protocol} ({direction}) was not planned and is {} under {scenario}",
                    initiator.address, responder.address, judgement.verdict
                ));
            }
        }
    }
    found
}

/// Every flow with every side at which it must be shown: where that end is a pod.
fn places(cluster: &Cluster, ipv6: bool) -> impl Iterator<Item = (&'static Flow, &'static str)> {
    flows(ipv6).flat_map(move |flow| {
        let seen = [flow.from, flow.to].map(|end| end.pod(cluster).is_some());
        DIRECTIONS
            .into_iter()
            .zip(seen)
            .filter(|(_, seen)| *seen)
            .map(move |(direction, _)| (flow, direction))
    })
}

fn find<'a>(cluster: &Cluster, edges: &'a [Edge], flow: &Flow, direction: &str) -> Option<&'a Edge> {
    edges.iter().find(|edge| matches(cluster, edge, flow, direction))
}

fn matches(cluster: &Cluster, edge: &Edge, flow: &Flow, direction: &str) -> bool {
    edge.port == flow.port
        && edge.protocol == flow.transport.as_str()
        && edge.direction == direction
        && edge.initiator.address == flow.from.address(cluster, flow.ipv6)
        && edge.responder.address == flow.to.address(cluster, flow.ipv6)
}

/// How the counts differ from what was sent.
fn counts(flow: &Flow, edge: &Edge, direction: &str) -> Option<String> {
    let count = u64::from(flow.count);
    let expected = |fate| if flow.fate == fate { count } else { 0 };
    let (accepted, refused) = (expected(Fate::Answered), expected(Fate::Refused));
    let same = match flow.transport {
        Transport::Tcp => (edge.attempts, edge.accepted, edge.refused) == (count, accepted, refused),
        // A datagram opens nothing: how many make an attempt depends on the pauses between them. Packets are
        // exact, and an ICMP error is no packet of the edge.
        Transport::Udp => {
            edge.packets_to_responder == count
                && edge.packets_to_initiator == accepted
                && (1..=count).contains(&edge.attempts)
                && (edge.accepted > 0) == (accepted > 0)
                && (edge.refused > 0) == (refused > 0)
        }
    };
    (!same).then(|| {
        format!(
            "{flow} ({direction} side): sent {count}, {:?}; shown {} attempts, {} accepted, {} refused, {} packets to the \
             responder and {} back",
            flow.fate, edge.attempts, edge.accepted, edge.refused, edge.packets_to_responder, edge.packets_to_initiator
        )
    })
}

/// Ends that were joined with the wrong workload, or none.
fn parties(cluster: &Cluster, flow: &Flow, edge: &Edge) -> Option<String> {
    [(flow.from, &edge.initiator), (flow.to, &edge.responder)].into_iter().find_map(|(end, party)| {
        let pod = end.pod(cluster);
        let expected = pod.map(|pod| (pod.namespace.as_str(), pod.workload.as_str()));
        let shown = party.namespace.as_deref().zip(party.workload.as_deref());
        (expected != shown).then(|| format!("{flow}: {end} is shown as {shown:?}"))
    })
}

fn judged(flow: &Flow, edge: &Edge, direction: &str, scenario: &str, expected: Verdicts) -> Option<String> {
    let expected = [expected.both(), expected.egress, expected.ingress].map(Verdict::as_str);
    let Some(shown) = edge.verdicts.get(scenario) else {
        return Some(format!("{flow} ({direction} side) has no verdict under {scenario}"));
    };
    let shown = [&shown.verdict, &shown.egress.verdict, &shown.ingress.verdict];
    (shown != expected).then(|| {
        format!(
            "{flow} ({direction} side) under {scenario}: shown {} (egress {}, ingress {}), planned {} (egress {}, ingress {})",
            shown[0], shown[1], shown[2], expected[0], expected[1], expected[2]
        )
    })
}
