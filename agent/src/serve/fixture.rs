//! Judged edges of the cluster that the mission's guides describe, for tests.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::model::cause::Cause;
use crate::model::edge::{Counters, Direction, OrientedBy, Protocol};
use crate::model::record::{
    DecisionRecord, EdgeList, EdgeRecord, JudgementRecord, LossRecord, PartyRecord, ScenarioRecord,
    SegmentRecord, WindowRecord,
};
use crate::model::scenario::{DefaultDeny, Scenario};
use crate::model::time::Timestamp;
use crate::model::verdict::{Layer, Verdict};

/// 2026-03-02T10:00:00Z.
pub(crate) const START: Timestamp = Timestamp::from_nanos(1_772_445_600_000_000_000);

/// So many seconds after the start.
pub(crate) fn mk_time(seconds: u64) -> Timestamp {
    START.plus(std::time::Duration::from_secs(seconds))
}

/// A pod of a workload, labelled `app=<workload>`.
pub(crate) fn mk_pod(namespace: &str, kind: &str, workload: &str, address: &str) -> PartyRecord {
    PartyRecord {
        kind: "Pod".to_owned(),
        address: Some(address.parse().unwrap()),
        prefix: None,
        namespace: Some(namespace.to_owned()),
        name: Some(format!("{workload}-0")),
        workload: Some(workload.to_owned()),
        workload_type: Some(kind.to_owned()),
        node: Some("node-a".to_owned()),
        selector: BTreeMap::from([("app".to_owned(), workload.to_owned())]),
        reason: None,
    }
}

/// An end that is no pod: `External`, `Node`, `Service`, `Unknown`.
pub(crate) fn mk_other(kind: &str, address: &str) -> PartyRecord {
    let address: IpAddr = address.parse().unwrap();
    let reason = (kind == "Unknown").then(|| "address-unjoined".to_owned());
    PartyRecord {
        kind: kind.to_owned(),
        address: Some(address),
        prefix: None,
        namespace: None,
        name: None,
        workload: None,
        workload_type: None,
        node: None,
        selector: BTreeMap::new(),
        reason,
    }
}

/// A direction that is denied because these policies isolate the pod.
pub(crate) fn mk_deny(isolated_by: &[&str], nearest: Option<&str>) -> DecisionRecord {
    let told = nearest.map_or_else(String::new, |nearest| format!(" (nearest: {nearest})"));
    DecisionRecord {
        verdict: Verdict::Deny,
        layer: Layer::NetworkPolicy,
        policy: isolated_by.first().map(|policy| (*policy).to_owned()),
        reason: format!("isolated by {}; no rule matches{told}", isolated_by.join(", ")),
        isolated_by: isolated_by.iter().map(|policy| (*policy).to_owned()).collect(),
        nearest: nearest.map(ToOwned::to_owned),
        ..mk_allow()
    }
}

/// A direction that nothing isolates.
pub(crate) fn mk_allow() -> DecisionRecord {
    DecisionRecord {
        verdict: Verdict::Allow,
        layer: Layer::None,
        policy: None,
        rule: None,
        rule_name: None,
        peer: None,
        reason: "no policy isolates the pod in this direction".to_owned(),
        unknown: None,
        isolated_by: Vec::new(),
        nearest: None,
        chain: Vec::new(),
    }
}

/// A direction that cannot be judged.
pub(crate) fn mk_unknown(code: &str, reason: &str) -> DecisionRecord {
    DecisionRecord {
        verdict: Verdict::Unknown,
        reason: reason.to_owned(),
        unknown: Some(code.to_owned()),
        ..mk_allow()
    }
}

/// Both directions together.
pub(crate) fn mk_judgement(egress: DecisionRecord, ingress: DecisionRecord) -> JudgementRecord {
    let verdict = egress.verdict.and(ingress.verdict);
    JudgementRecord { verdict, egress, ingress, excepted: false, exception: None }
}

/// An edge with `connections` accepted ones, seen from second 60 to second 600, allowed in both scenarios.
pub(crate) fn mk_edge(
    initiator: &PartyRecord,
    responder: &PartyRecord,
    port: u16,
    cause: Cause,
    connections: u64,
) -> EdgeRecord {
    EdgeRecord {
        initiator: initiator.clone(),
        responder: responder.clone(),
        port,
        protocol: Protocol::Tcp,
        direction: Direction::Egress,
        cause,
        counters: Counters { attempts: connections, accepted: connections, ..Counters::default() },
        first_seen: mk_time(60),
        last_seen: mk_time(600),
        oriented_by: OrientedBy::Handshake,
        fully_visible: true,
        vlan: 0,
        estimated: false,
        verdicts: ["enforced", "default-deny"]
            .map(|scenario| (scenario.to_owned(), mk_judgement(mk_allow(), mk_allow())))
            .into(),
        segments: Vec::new(),
    }
}

impl EdgeRecord {
    /// With this answer in a scenario.
    pub(crate) fn judged(mut self, scenario: &str, egress: DecisionRecord, ingress: DecisionRecord) -> Self {
        self.verdicts.insert(scenario.to_owned(), mk_judgement(egress, ingress));
        self
    }

    /// With a violation of a segment map, from segment to segment.
    pub(crate) fn crossing(mut self, map: &str, from: &str, to: &str, reason: &str) -> Self {
        self.segments.push(SegmentRecord {
            map: map.to_owned(),
            from: Some(from.to_owned()),
            to: Some(to.to_owned()),
            verdict: "Violation".to_owned(),
            rule: None,
            severity: "Warning".to_owned(),
            code: "no-rule".to_owned(),
            reason: reason.to_owned(),
            excepted: false,
            exception: None,
        });
        self
    }

    /// The same edge as the responder's pod sees it.
    pub(crate) fn at_responder(&self) -> Self {
        Self { direction: Direction::Ingress, ..self.clone() }
    }
}

const STAGING: &str = "NetworkPolicy/myapp-staging/default-deny";
const DATA: &str = "NetworkPolicy/data-layer/default-deny";

/// Everything an agent saw of the guides' cluster in fifteen minutes: what is allowed, what the policies in
/// force deny, what only default-deny would, what cannot be told and what fails already.
pub(crate) fn mk_guides_cluster() -> EdgeList {
    let api = mk_pod("myapp-staging", "Deployment", "myapp-api", "192.0.2.11");
    let web = mk_pod("myapp-staging", "Deployment", "my-web-client", "192.0.2.12");
    let workers = mk_pod("myapp-staging", "Deployment", "myapp-workers", "192.0.2.13");
    let qdrant = mk_pod("data-layer", "StatefulSet", "qdrant", "192.0.2.21");
    let postgresql = mk_pod("data-layer", "StatefulSet", "postgresql", "192.0.2.22");
    let minio = mk_pod("data-layer", "StatefulSet", "minio", "192.0.2.23");
    let prometheus = mk_pod("monitoring", "StatefulSet", "prometheus", "192.0.2.31");
    let traefik = mk_pod("traefik-system", "DaemonSet", "traefik", "192.0.2.41");
    let notebook = mk_pod("tools", "Pod", "notebook", "192.0.2.51");
    let dns = mk_pod("kube-system", "Deployment", "coredns", "192.0.2.53");
    let metadata = mk_other("External", "169.254.169.254");
    let outside = mk_other("External", "198.51.100.7");
    let nobody = mk_other("Unknown", "192.0.2.99");

    let api_rules = [STAGING, "NetworkPolicy/myapp-staging/allow-api"];
    let qdrant_rules = [DATA, "NetworkPolicy/data-layer/allow-qdrant"];
    let nearest_egress = "NetworkPolicy/myapp-staging/allow-api rule 0 would match but for the port: 6333/TCP is not in [5432/TCP]";
    let nearest_ingress = "NetworkPolicy/data-layer/allow-qdrant rule 0 would match but for the peer's labels: they are not app=myapp-workers";
    let both = |edge: EdgeRecord, egress: &DecisionRecord, ingress: &DecisionRecord| {
        edge.judged("enforced", egress.clone(), ingress.clone()).judged(
            "default-deny",
            egress.clone(),
            ingress.clone(),
        )
    };
    let to_qdrant = both(
        mk_edge(&api, &qdrant, 6333, Cause::CrossNamespace, 12),
        &mk_deny(&api_rules, Some(nearest_egress)),
        &mk_deny(&qdrant_rules, Some(nearest_ingress)),
    );
    let to_postgresql = both(
        mk_edge(&web, &postgresql, 5432, Cause::CrossNamespace, 3),
        &mk_deny(&[STAGING], None),
        &mk_deny(&[DATA, "NetworkPolicy/data-layer/allow-postgresql"], None),
    );
    let scrape = mk_edge(&prometheus, &api, 9090, Cause::Metrics, 60)
        .judged("enforced", mk_allow(), mk_deny(&api_rules, None))
        .judged(
            "default-deny",
            mk_deny(&["DefaultDeny/monitoring/default-deny"], None),
            mk_deny(&api_rules, None),
        );
    let to_metadata = both(
        mk_edge(&workers, &metadata, 80, Cause::CloudMetadata, 2),
        &mk_deny(&[STAGING], None),
        &mk_allow(),
    );
    let from_notebook = mk_edge(&notebook, &outside, 443, Cause::External, 5).judged(
        "default-deny",
        mk_deny(&["DefaultDeny/tools/default-deny"], None),
        mk_allow(),
    );
    let from_traefik = mk_edge(&traefik, &api, 8080, Cause::IngressController, 240).judged(
        "default-deny",
        mk_deny(&["DefaultDeny/traefik-system/default-deny"], None),
        mk_allow(),
    );
    let unjoined = "the address is inside the cluster's ranges, but no object we know has it";
    let to_nobody = both(
        mk_edge(&api, &nobody, 8443, Cause::Unknown, 4),
        &mk_unknown("address-unjoined", unjoined),
        &mk_unknown("address-unjoined", unjoined),
    );
    let mut to_minio =
        both(mk_edge(&workers, &minio, 9000, Cause::CrossNamespace, 0), &mk_allow(), &mk_deny(&[DATA], None));
    to_minio.counters = Counters { attempts: 6, refused: 1, ..Counters::default() };
    let mut dns_query = mk_edge(&web, &dns, 53, Cause::Dns, 30);
    dns_query.protocol = Protocol::Udp;

    let mut edges = Vec::new();
    for seen_twice in [to_qdrant, to_postgresql, scrape, from_traefik] {
        edges.push(seen_twice.at_responder());
        edges.push(seen_twice);
    }
    edges.extend([to_metadata, from_notebook, to_nobody, to_minio, dns_query]);
    edges.push(mk_edge(&api, &postgresql, 5432, Cause::CrossNamespace, 80));
    EdgeList {
        window: WindowRecord {
            start: START,
            end: mk_time(900),
            losses: vec![LossRecord {
                stage: "edge-map".into(),
                reason: "full".into(),
                packets: 0,
                edges: 2,
            }],
            unobserved: vec!["tools/vpn".to_owned()],
        },
        dialect: "standard".to_owned(),
        scenarios: [Scenario::Enforced, Scenario::DefaultDeny(DefaultDeny::default())]
            .map(|scenario| ScenarioRecord {
                name: scenario.name().to_owned(),
                description: scenario.to_string(),
            })
            .into(),
        warnings: vec!["pod tools/idle has no address".to_owned()],
        segment_maps: Vec::new(),
        exception_findings: Vec::new(),
        edges,
    }
}
