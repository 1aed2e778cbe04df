use k8s_openapi::api::core::v1 as core;
use serde_json::{Value, json};

use super::*;
use crate::cluster::{Object, object};
use crate::model::edge::{Counters, IfIndex, OrientedBy, Protocol, Scope};

const OWN: &str = "198.51.100.1";
const OTHER: &str = "198.51.100.2";
const OUTSIDE: &str = "203.0.113.200";
const WEB: &str = "192.0.2.10";
const DB: &str = "192.0.2.20";
const CLUSTER_IP: &str = "203.0.113.10";
const EXPOSED: u16 = 8080;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn mk_pod(name: &str, address: &str) -> Object {
    let pod = typed::<core::Pod>(json!({
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "podIPs": [{"ip": address}]},
    }));
    Object::Pod(Box::new(object::Pod::try_from(&pod).unwrap()))
}

fn mk_node(name: &str, address: &str) -> Object {
    let node = typed::<core::Node>(json!({
        "metadata": {"name": name},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }));
    Object::Node(Box::new(object::Node::try_from(&node).unwrap()))
}

/// Node n1 is ours. Service db is exposed and leads to pod db.
fn mk_index() -> Index {
    let service = typed::<core::Service>(json!({
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {
            "type": "NodePort", "clusterIP": CLUSTER_IP, "selector": {"app": "db"},
            "ports": [{"port": 80, "targetPort": EXPOSED, "nodePort": 30080}],
        },
    }));
    let service = Object::Service(Box::new(object::Service::try_from(&service).unwrap()));
    let pods = [mk_pod("web", WEB), mk_pod("db", DB)];
    let mut index = Index::default();
    index.set_own_node(Some("n1".into()));
    let nodes = [mk_node("n1", OWN), mk_node("n2", OTHER)];
    index.reset(nodes.into_iter().chain(pods).chain([service]).collect(), Timestamp::from_nanos(1));
    index
}

fn mk_part(direction: Direction, initiator: &str, responder: &str, port: u16, opener: Opener) -> Part {
    let time = Timestamp::from_nanos(5);
    let (initiator, responder) = (ip(initiator), ip(responder));
    let protocol = Protocol::Tcp;
    Part {
        seen: Observation {
            key: EdgeKey {
                interface: IfIndex(1),
                direction,
                initiator,
                responder,
                scope: Scope::Address,
                port,
                protocol,
            },
            delta: Counters { attempts: 1, ..Counters::default() },
            first_seen: time,
            last_seen: time,
            read_from: time,
            read_at: time,
            oriented_by: OrientedBy::Handshake,
            fully_visible: true,
            vlan: 0,
            estimated: false,
        },
        opener,
    }
}

fn joined(part: &Part, backends: &[SocketAddr]) -> Ends {
    let joined = join(&mk_index(), &mut Bindings::default(), part, backends, Timestamp::from_nanos(6));
    let Joined::Now(ends) = joined else { panic!("{joined:?}") };
    ends
}

fn show(party: &Party) -> String {
    match (&party.endpoint, party.object()) {
        (Endpoint::Unknown(reason), _) => reason.code().to_owned(),
        (_, Some(object)) => object.name.to_string(),
        (other, None) => other.type_name().to_owned(),
    }
}

#[test]
fn a_nodes_address_is_the_node_only_where_nobody_can_be_behind_it() {
    use Opener::{Confirmed, Hidden, Seen};
    for (from, port, opener, expected) in [
        (OWN, EXPOSED, Confirmed, "n1"),
        (OWN, EXPOSED, Seen, "snat"),
        (OWN, EXPOSED, Hidden, "snat"),
        (OWN, 9090, Confirmed, "n1"),
        (OWN, 9090, Seen, "n1"),
        // Connection tracking shows a client hidden there, whatever the objects say.
        (OWN, 9090, Hidden, "snat"),
        (OTHER, EXPOSED, Confirmed, "snat"),
        (OTHER, EXPOSED, Seen, "snat"),
        (OTHER, 9090, Confirmed, "n2"),
        (OTHER, 9090, Seen, "n2"),
        (OUTSIDE, EXPOSED, Seen, "External"),
        (WEB, EXPOSED, Seen, "web"),
        (DB, EXPOSED, Confirmed, "db"),
    ] {
        let ends = joined(&mk_part(Direction::Ingress, from, DB, port, opener), &[]);
        assert_eq!(show(&ends.initiator), expected, "{from} {port} {opener:?}");
        assert_eq!(ends.initiator.address, Some(ip(from)));
        assert_eq!(show(&ends.responder), "db");
    }
}

#[test]
fn a_service_has_the_backends_of_its_slices_and_those_that_the_node_sent_to() {
    let backends = |told: &[SocketAddr], responder: &str, port: u16| {
        let ends = joined(&mk_part(Direction::Egress, WEB, responder, port, Opener::Seen), told);
        let Endpoint::Service(target) = &ends.responder.endpoint else { return show(&ends.responder) };
        let all = target.backends.iter().map(|backend| format!("{}:{}", show(&backend.party), backend.port));
        all.collect::<Vec<_>>().join(" ")
    };
    let at = |address: &str, port| SocketAddr::new(ip(address), port);
    for (told, expected) in [
        (&[][..], "db:8080"),
        (&[at(DB, EXPOSED)], "db:8080"),
        (&[at(DB, 8081)], "db:8080 db:8081"),
        (&[at(OUTSIDE, 443), at(DB, EXPOSED)], "db:8080 External:443"),
    ] {
        assert_eq!(backends(told, CLUSTER_IP, 80), expected, "{told:?}");
    }
    assert_eq!(backends(&[at(DB, 1)], CLUSTER_IP, 81), "db:1", "a port that the Service does not have");
    assert_eq!(backends(&[at(DB, 1)], OUTSIDE, 80), "External", "not a Service");
}
