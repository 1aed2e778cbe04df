mod orphans;
mod segments;

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};

use super::*;
use crate::cluster::object;
use crate::model::edge::{EdgeKey, OrientedBy, Protocol, Scope};
use crate::model::scenario::DefaultDeny;
use crate::model::verdict::Verdict;
use crate::policy::Policy;

const VETH_WEB: IfIndex = IfIndex(10);
const VETH_DB: IfIndex = IfIndex(11);
const WEB: &str = "192.0.2.10";
const DB: &str = "192.0.2.20";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_nanos(second * 1_000_000_000)
}

fn mk_pod(name: &str, address: &str, labels: Value) -> Object {
    let pod: core::Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "labels": labels},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }))
    .unwrap();
    Object::Pod(Box::new(object::Pod::try_from(&pod).unwrap()))
}

fn mk_node() -> Object {
    let node: core::Node = serde_json::from_value(json!({
        "metadata": {"name": "n1"},
        "spec": {"podCIDRs": ["192.0.2.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "198.51.100.1"}]},
    }))
    .unwrap();
    Object::Node(Box::new(object::Node::try_from(&node).unwrap()))
}

/// Lets in only what is labelled `app=web`.
fn mk_policy() -> Object {
    let policy: NetworkPolicy = serde_json::from_value(json!({
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "db"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}],
        },
    }))
    .unwrap();
    Object::Policy(Arc::new(Policy::from_network_policy(&policy)))
}

fn mk_cluster() -> Vec<Object> {
    vec![
        mk_node(),
        mk_pod("web", WEB, json!({"app": "web"})),
        mk_pod("db", DB, json!({"app": "db"})),
        mk_policy(),
    ]
}

/// What a connection to port 5432, read at second `read_at`, adds at one interface.
fn mk_seen(interface: IfIndex, direction: Direction, read_at: u64) -> Observation {
    let delta = Counters { attempts: 1, accepted: 1, packets_to_responder: 3, ..Counters::default() };
    Observation {
        key: EdgeKey {
            interface,
            direction,
            initiator: ip(WEB),
            responder: ip(DB),
            port: 5432,
            protocol: Protocol::Tcp,
            scope: Scope::Address,
        },
        delta,
        first_seen: at(read_at).minus(Duration::from_millis(500)),
        last_seen: at(read_at).minus(Duration::from_millis(500)),
        read_from: at(read_at - 1),
        read_at: at(read_at),
        oriented_by: OrientedBy::Handshake,
        fully_visible: true,
        vlan: 0,
        estimated: false,
    }
}

/// What was judged, as `scenario/direction/verdict × connections`.
#[derive(Debug, Default)]
struct Recorded(Vec<(String, u64)>);

impl Recorder for Recorded {
    fn judged(&mut self, judged: Judged<'_>) {
        for (scenario, judgement) in judged.scenarios.iter().zip(&judged.answers.judgements) {
            let direction = judged.edge.direction;
            let verdict = judgement.of(direction).verdict;
            self.0.push((format!("{}/{direction}/{verdict}", scenario.name()), judged.outcome.connections));
        }
    }
}

fn mk_auditor() -> Auditor {
    let settings = Settings {
        node: Some("n1".into()),
        dialect: Dialect::STANDARD,
        scenarios: vec![Scenario::Enforced, Scenario::DefaultDeny(DefaultDeny::default())],
        most_edges: 1000,
    };
    Auditor::new(settings, Index::default())
}

/// The verdicts of the only edge under `enforced`: egress, ingress.
fn only_verdicts(auditor: &mut Auditor) -> (Verdict, Verdict) {
    let records = auditor.records();
    let [record] = &records[..] else { panic!("{} edges", records.len()) };
    let enforced = &record.verdicts["enforced"];
    (enforced.egress.verdict, enforced.ingress.verdict)
}

#[test]
fn a_connection_is_counted_once_a_direction_where_it_was_seen() {
    let (mut auditor, mut recorded) = (mk_auditor(), Recorded::default());
    auditor.interface(VETH_WEB, at(1), vec![ip(WEB)], at(1));
    auditor.interface(VETH_DB, at(1), vec![ip(DB)], at(1));
    auditor.reset(mk_cluster(), at(2), &mut recorded);
    assert!(auditor.unobserved().is_empty(), "both pods have an interface that the node routes to");
    let seen = [mk_seen(VETH_WEB, Direction::Egress, 10), mk_seen(VETH_DB, Direction::Ingress, 10)];
    auditor.observe(&seen, at(10), &mut recorded);
    let expected = [
        ("enforced/Egress/Allow", 1),
        ("default-deny/Egress/Deny", 1),
        ("enforced/Ingress/Allow", 1),
        ("default-deny/Ingress/Allow", 1),
    ];
    assert_eq!(recorded.0, expected.map(|(what, count)| (what.to_owned(), count)));
    assert_eq!(auditor.records().len(), 2);
}

#[test]
fn an_end_that_is_not_known_yet_waits_and_then_is_unknown() {
    let (mut auditor, mut recorded) = (mk_auditor(), Recorded::default());
    let without_web: Vec<Object> =
        mk_cluster().into_iter().filter(|o| &*o.reference().name != "web").collect();
    auditor.reset(without_web, at(2), &mut recorded);
    auditor.interface(VETH_DB, at(1), vec![ip(DB)], at(3));
    auditor.observe(&[mk_seen(VETH_DB, Direction::Ingress, 10)], at(10), &mut recorded);
    assert_eq!((auditor.waiting(), auditor.records().len()), (1, 0));
    auditor.tick(at(39), &mut recorded);
    assert_eq!(auditor.waiting(), 1, "still within 30 s");
    auditor.tick(at(40), &mut recorded);
    assert_eq!(auditor.waiting(), 0);
    assert_eq!(only_verdicts(&mut auditor).1, Verdict::Unknown);
}

#[test]
fn a_pod_that_is_announced_after_its_first_packets_still_gets_them() {
    let (mut auditor, mut recorded) = (mk_auditor(), Recorded::default());
    auditor.interface(VETH_WEB, at(5), vec![ip(WEB)], at(5));
    auditor.observe(&[mk_seen(VETH_WEB, Direction::Egress, 10)], at(10), &mut recorded);
    auditor.reset(mk_cluster(), at(12), &mut recorded);
    let records = auditor.records();
    assert_eq!(records[0].initiator.name.as_deref(), Some("web"));
    assert_eq!(records[0].responder.name.as_deref(), Some("db"));
}

#[test]
fn new_policies_judge_what_was_seen_before_them() {
    let (mut auditor, mut recorded) = (mk_auditor(), Recorded::default());
    auditor.interface(VETH_DB, at(1), vec![ip(DB)], at(1));
    auditor.reset(mk_cluster(), at(2), &mut recorded);
    auditor.observe(&[mk_seen(VETH_DB, Direction::Ingress, 10)], at(10), &mut recorded);
    assert_eq!(only_verdicts(&mut auditor), (Verdict::Allow, Verdict::Allow));
    let counted = recorded.0.len();
    let deny: NetworkPolicy = serde_json::from_value(json!({
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]},
    }))
    .unwrap();
    let mut objects = mk_cluster();
    objects.pop();
    objects.push(Object::Policy(Arc::new(Policy::from_network_policy(&deny))));
    auditor.reset(objects, at(20), &mut recorded);
    assert_eq!(only_verdicts(&mut auditor), (Verdict::Allow, Verdict::Deny));
    assert_eq!(recorded.0.len(), counted, "a re-judge counts no connection again");
}

#[test]
fn a_relabelled_pod_keeps_its_old_edges_and_starts_a_new_one() {
    let (mut auditor, mut recorded) = (mk_auditor(), Recorded::default());
    auditor.interface(VETH_DB, at(1), vec![ip(DB)], at(1));
    auditor.reset(mk_cluster(), at(2), &mut recorded);
    auditor.observe(&[mk_seen(VETH_DB, Direction::Ingress, 10)], at(10), &mut recorded);
    let relabelled = vec![
        mk_node(),
        mk_pod("web", WEB, json!({"app": "other"})),
        mk_pod("db", DB, json!({"app": "db"})),
        mk_policy(),
    ];
    auditor.reset(relabelled, at(20), &mut recorded);
    auditor.observe(&[mk_seen(VETH_DB, Direction::Ingress, 30)], at(30), &mut recorded);
    let mut verdicts: Vec<_> =
        auditor.records().iter().map(|record| record.verdicts["enforced"].ingress.verdict).collect();
    verdicts.sort();
    assert_eq!(verdicts, [Verdict::Allow, Verdict::Deny]);
}

#[test]
fn a_delta_over_two_owners_that_differ_is_unknown_and_over_two_that_agree_is_not() {
    for (later, expected) in
        [(json!({"app": "other"}), Verdict::Unknown), (json!({"app": "web"}), Verdict::Allow)]
    {
        let (mut auditor, mut recorded) = (mk_auditor(), Recorded::default());
        auditor.interface(VETH_DB, at(1), vec![ip(DB)], at(1));
        auditor.reset(mk_cluster(), at(2), &mut recorded);
        let reused = vec![
            mk_node(),
            mk_pod("second", WEB, later),
            mk_pod("db", DB, json!({"app": "db"})),
            mk_policy(),
        ];
        auditor.reset(reused, at(20), &mut recorded);
        let seen =
            Observation { first_seen: at(15), last_seen: at(25), ..mk_seen(VETH_DB, Direction::Ingress, 30) };
        let seen = Observation { read_from: at(14), ..seen };
        auditor.observe(&[seen], at(30), &mut recorded);
        assert_eq!(only_verdicts(&mut auditor).1, expected);
    }
}

#[test]
fn an_address_that_the_node_routes_elsewhere_is_nobodys() {
    let (mut auditor, mut recorded) = (mk_auditor(), Recorded::default());
    auditor.reset(mk_cluster(), at(2), &mut recorded);
    auditor.interface(VETH_DB, at(1), vec![ip(DB)], at(3));
    // The database's pod sends with web's address.
    auditor.observe(&[mk_seen(VETH_DB, Direction::Egress, 10)], at(10), &mut recorded);
    let records = auditor.records();
    assert_eq!(records[0].initiator.kind, "Unknown");
}

#[test]
fn a_pod_without_an_interface_is_unobserved_and_not_idle() {
    let (mut auditor, mut recorded) = (mk_auditor(), Recorded::default());
    auditor.reset(mk_cluster(), at(2), &mut recorded);
    auditor.interface(VETH_WEB, at(3), vec![ip(WEB)], at(3));
    let names: Vec<_> = auditor.unobserved().iter().map(|pod| pod.name.to_string()).collect();
    assert_eq!(names, ["db"]);
    auditor.interface_gone(VETH_WEB);
    assert_eq!(auditor.unobserved().len(), 2);

    auditor.unwatched(VETH_WEB, vec![ip(WEB)], Unobserved::AttachFailed);
    let expected = |of_web, of_both| {
        Unobserved::ALL.map(|reason| match reason {
            Unobserved::AttachFailed => (reason, of_web),
            Unobserved::NoInterface => (reason, of_both - of_web),
            _ => (reason, 0),
        })
    };
    assert_eq!(auditor.unobserved_by_reason(), expected(1, 2));
    auditor.interface(VETH_WEB, at(4), vec![ip(WEB)], at(4));
    assert_eq!(auditor.unobserved_by_reason(), expected(0, 1));
}

#[test]
fn what_does_not_fit_is_counted() {
    let mut auditor = mk_auditor();
    auditor.settings.most_edges = 0;
    let mut auditor = Auditor::new(auditor.settings.clone(), Index::default());
    let mut recorded = Recorded::default();
    auditor.reset(mk_cluster(), at(2), &mut recorded);
    auditor.interface(VETH_DB, at(1), vec![ip(DB)], at(3));
    auditor.observe(&[mk_seen(VETH_DB, Direction::Ingress, 10)], at(10), &mut recorded);
    let full = auditor.losses().into_iter().find(|loss| loss.stage == "ledger").unwrap();
    assert_eq!((full.edges, full.packets), (1, 3));
}
