//! The verdicts that the demo plans, against the judge that the agent uses: needs neither root nor a network.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::IpAddr;

use dryfence::cluster::index::Index;
use dryfence::cluster::manifests;
use dryfence::model::dialect::Dialect;
use dryfence::model::edge::Protocol;
use dryfence::model::endpoint::{Connection, Party};
use dryfence::model::scenario::{DefaultDeny, Scenario};
use dryfence::model::time::Timestamp;
use dryfence::policy::Judge;
use xtask::demo::cluster::Cluster;
use xtask::demo::plan::{End, FLOWS, Flow, Transport, Verdicts};

fn party(index: &Index, cluster: &Cluster, flow: &Flow, end: End, at: Timestamp) -> Party {
    let address: IpAddr = end.address(cluster, flow.ipv6).unwrap();
    index.initiator_at(address, at)
}

#[test]
fn the_judge_says_what_the_plan_says() {
    let folder = Cluster::manifests();
    let cluster = Cluster::read(&folder).unwrap();
    let loaded = manifests::load(&[folder], None);
    assert!(loaded.findings.is_empty(), "{:?}", loaded.findings);
    let mut index = Index::default();
    let at = Timestamp::from_nanos(1);
    index.set_own_node(Some(cluster.node.as_str().into()));
    index.reset(loaded.objects, at);

    let scenarios = [Scenario::Enforced, Scenario::DefaultDeny(DefaultDeny::default())];
    let mut differences = Vec::new();
    for scenario in scenarios {
        let mut judge = Judge::new(&index.policies(), Dialect::STANDARD, &scenario);
        for flow in FLOWS {
            let connection = Connection {
                initiator: &party(&index, &cluster, flow, flow.from, at),
                responder: &party(&index, &cluster, flow, flow.to, at),
                port: flow.port,
                protocol: if flow.transport == Transport::Tcp { Protocol::Tcp } else { Protocol::Udp },
            };
            let judgement = judge.judge(&connection);
            let shown = [judgement.egress.verdict.as_str(), judgement.ingress.verdict.as_str()];
            let Verdicts { egress, ingress } =
                if scenario == Scenario::Enforced { flow.enforced } else { flow.default_deny };
            let planned = [egress.as_str(), ingress.as_str()];
            if shown != planned {
                differences.push(format!("{flow} under {}: {shown:?}, planned {planned:?}", scenario.name()));
            }
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
}
