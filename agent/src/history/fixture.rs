//! Recorded edges of a small shop, for tests.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::file::{Header, Writer};
use crate::model::cause::Cause;
use crate::model::edge::{Counters, Direction, Edge, OrientedBy, Protocol};
use crate::model::endpoint::{Party, Pod};
use crate::model::identity::{IdentityParts, Interner};
use crate::model::labels::Labels;
use crate::model::object::WorkloadRef;
use crate::model::record::LossRecord;
use crate::model::role::Roles;
use crate::model::time::Timestamp;
use crate::model::verdict::UnknownReason;

/// So many seconds after 2026-03-02T10:00:00Z.
pub(crate) fn mk_time(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(1_772_445_600_000_000_000).plus(Duration::from_secs(seconds))
}

/// A pod of a Deployment on node-a, labelled `app=<workload>` and `tier=<tier>`.
pub(crate) fn mk_pod(
    interner: &mut Interner,
    namespace: &str,
    workload: &str,
    tier: &str,
    address: &str,
) -> Party {
    let labels: Labels = [("app", workload), ("tier", tier)].into_iter().collect();
    let roles =
        if workload == "coredns" { Roles::default().with(Roles::CLUSTER_DNS) } else { Roles::default() };
    let identity = interner.intern(IdentityParts {
        namespace: namespace.into(),
        namespace_labels: [("kubernetes.io/metadata.name", namespace)].into_iter().collect(),
        labels: labels.clone(),
        service_account: "default".into(),
        named_ports: Vec::new(),
        roles,
    });
    let address: IpAddr = address.parse().unwrap();
    let pod = Pod {
        namespace: namespace.into(),
        name: format!("{workload}-0").into(),
        uid: format!("uid-of-{workload}-{address}").into(),
        identity,
        workload: WorkloadRef::new("Deployment", namespace, workload),
        owners: [WorkloadRef::new("Deployment", namespace, workload)].into(),
        selector: [("app", workload)].into_iter().collect(),
        node: Some("node-a".into()),
        host_network: false,
        addresses: [address].into(),
        from_template: false,
    };
    Party::pod(Arc::new(pod), Some(address))
}

/// An edge with `connections` accepted ones, seen from second 60 to second 600 at the initiator's pod.
pub(crate) fn mk_edge(from: &Party, to: &Party, port: u16, cause: Cause, connections: u64) -> Edge {
    Edge {
        initiator: from.clone(),
        responder: to.clone(),
        port,
        protocol: Protocol::Tcp,
        direction: Direction::Egress,
        cause,
        counters: Counters {
            attempts: connections,
            accepted: connections,
            packets_to_responder: connections * 4,
            packets_to_initiator: connections * 3,
            bytes_to_responder: connections * 400,
            bytes_to_initiator: connections * 3000,
            ..Counters::default()
        },
        first_seen: mk_time(60),
        last_seen: mk_time(600),
        oriented_by: OrientedBy::Handshake,
        fully_visible: true,
        vlan: 0,
        estimated: false,
    }
}

/// web → api → db, the api's connection also seen at the db, DNS, one to the outside, and one that was refused.
pub(crate) fn mk_shop_edges() -> Vec<Edge> {
    let mut interner = Interner::default();
    let web = mk_pod(&mut interner, "shop", "web", "edge", "192.0.2.11");
    let api = mk_pod(&mut interner, "shop", "api", "app", "192.0.2.12");
    let db = mk_pod(&mut interner, "data", "db", "data", "192.0.2.21");
    let dns = mk_pod(&mut interner, "kube-system", "coredns", "dns", "192.0.2.53");
    let outside = Party::external("198.51.100.7".parse().unwrap());
    let to_db = mk_edge(&api, &db, 5432, Cause::CrossNamespace, 80);
    let mut asks = mk_edge(&web, &dns, 53, Cause::Dns, 30);
    asks.protocol = Protocol::Udp;
    let mut refused = mk_edge(&web, &db, 5432, Cause::CrossNamespace, 0);
    refused.counters = Counters { attempts: 6, refused: 6, ..Counters::default() };
    refused.last_seen = mk_time(850);
    vec![
        mk_edge(&web, &api, 8080, Cause::SameNamespace, 240),
        Edge { direction: Direction::Ingress, ..to_db.clone() },
        to_db,
        asks,
        mk_edge(&api, &outside, 443, Cause::External, 5),
        refused,
    ]
}

/// An edge whose responder nobody knows: no rule can allow it.
pub(crate) fn mk_to_nobody() -> Edge {
    let api = mk_pod(&mut Interner::default(), "shop", "api", "app", "192.0.2.12");
    let nobody = Party::unknown(Some("192.0.2.99".parse().unwrap()), UnknownReason::AddressUnjoined);
    mk_edge(&api, &nobody, 8443, Cause::Unknown, 4)
}

/// Fifteen minutes of one node, with something lost.
pub(crate) fn mk_header() -> Header {
    let lost = LossRecord { stage: "edge-map".into(), reason: "full".into(), packets: 0, edges: 2 };
    Header {
        cluster: "prod".to_owned(),
        node: Some("node-a".to_owned()),
        dialect: "standard".to_owned(),
        start: mk_time(0),
        end: mk_time(900),
        losses: vec![lost],
        ..Header::default()
    }
}

/// A file of recorded edges, not compressed.
pub(crate) fn mk_file(header: &Header, edges: &[Edge]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), header).unwrap();
    for edge in edges {
        writer.edge(edge).unwrap();
    }
    writer.finish().unwrap()
}
