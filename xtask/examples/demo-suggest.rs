//! What `cargo xtask demo --enforce` asks of the library: the policies that `dryfence::suggest` makes of the demo's
//! edges, and what `dryfence::policy` says of those edges under them and default-deny.
//!
//! An example, because only tests and examples of xtask may use the agent's crate: xtask itself installs what
//! building that crate needs. Edges come on standard input as `/api/v1/edges` serves them, one a line.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use dryfence::cluster::index::Index;
use dryfence::cluster::manifests;
use dryfence::model::dialect::Dialect;
use dryfence::model::edge::Edge;
use dryfence::model::record::{EdgeRecord, PartyRecord};
use dryfence::model::scenario::{DefaultDeny, Scenario};
use dryfence::model::time::Timestamp;
use dryfence::policy::{Judge, Policy};
use dryfence::suggest::{Options, suggest};
use serde_json::json;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let folder = arguments.next().map(PathBuf::from).context("no folder of manifests given")?;
    let node = arguments.next().and_then(|name| name.into_string().ok()).context("no node given")?;

    let loaded = manifests::load(&[folder], None);
    if let Some(finding) = loaded.findings.first() {
        bail!("the demo's manifests are not clean: {finding}");
    }
    let mut index = Index::default();
    index.set_own_node(Some(node.as_str().into()));
    index.reset(loaded.objects, Timestamp::from_nanos(1));

    let mut edges = Vec::new();
    for line in io::stdin().lock().lines() {
        let record: EdgeRecord = serde_json::from_str(&line.context("cannot read edges")?)?;
        edges.push(edge(&index, &record)?);
    }
    let pods: Vec<_> = index.pods().collect();
    let suggestions = suggest(&edges, &pods, &Options::default());

    let policies: Vec<_> = suggestions
        .policies
        .iter()
        .map(|suggestion| Policy::from_network_policy(&suggestion.policy).into())
        .collect();
    let scenario = Scenario::DefaultDeny(DefaultDeny::default());
    let mut judge = Judge::new(&policies, Dialect::STANDARD, &scenario);
    let predictions: Vec<_> = edges
        .iter()
        .map(|edge| {
            json!({
                "initiator": edge.initiator.address,
                "responder": edge.responder.address,
                "port": edge.port,
                "protocol": edge.protocol.as_str(),
                "verdict": judge.judge(&edge.connection()).verdict().as_str(),
            })
        })
        .collect();
    let answer = json!({"policies": suggestions.to_yaml(&[]), "predictions": predictions});
    writeln!(io::stdout().lock(), "{answer}").context("cannot write the answer")
}

/// The edge that a record was made of; its ends are looked up again, as the agent did.
fn edge(index: &Index, record: &EdgeRecord) -> Result<Edge> {
    let address = |party: &PartyRecord| party.address.context("an end of an edge has no address");
    let initiator = index.initiator_at(address(&record.initiator)?, record.last_seen);
    let responder =
        index.party_at(address(&record.responder)?, record.port, record.protocol, None, record.last_seen);
    for (found, recorded) in [(&initiator, &record.initiator), (&responder, &record.responder)] {
        if PartyRecord::from(found) != *recorded {
            bail!("{found:?} was recorded as {recorded:?}");
        }
    }
    Ok(Edge {
        initiator,
        responder,
        port: record.port,
        protocol: record.protocol,
        direction: record.direction,
        cause: record.cause,
        counters: record.counters,
        first_seen: record.first_seen,
        last_seen: record.last_seen,
        oriented_by: record.oriented_by,
        fully_visible: record.fully_visible,
        vlan: record.vlan,
        estimated: record.estimated,
    })
}
