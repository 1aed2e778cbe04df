use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::codec::Codec;
use super::*;
use crate::history::fixture::mk_shop_edges;
use crate::model::cause::Cause;
use crate::model::edge::{Budget, Counters, Direction, Edge, IcmpErrors, OrientedBy, Protocol};
use crate::model::endpoint::{Backend, Endpoint, Party, Pod, ServiceTarget};
use crate::model::identity::{IdentityParts, Interner, NamedPort};
use crate::model::labels::Labels;
use crate::model::object::{ObjectRef, WorkloadRef};
use crate::model::record::{LossRecord, ScenarioRecord};
use crate::model::role::Roles;
use crate::model::time::Timestamp;
use crate::model::verdict::{Fact, UnknownReason};

/// 2026-03-02T10:00:00Z.
const START: Timestamp = Timestamp::from_nanos(1_772_445_600_000_000_000);

fn mk_time(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

fn mk_header(cluster: &str) -> Header {
    Header {
        cluster: cluster.to_owned(),
        dialect: "standard".to_owned(),
        start: START.plus(Duration::from_nanos(7)),
        end: mk_time(900),
        ..Header::default()
    }
}

fn mk_pod(interner: &mut Interner, namespace: &str, workload: &str, last: u8) -> Party {
    let labels: Labels = [("app", workload)].into_iter().collect();
    let identity = interner.intern(IdentityParts {
        namespace: namespace.into(),
        namespace_labels: [("kubernetes.io/metadata.name", namespace)].into_iter().collect(),
        labels: labels.clone(),
        service_account: "default".into(),
        named_ports: vec![NamedPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
        roles: Roles::CLUSTER_DNS.with(Roles::METRICS_SCRAPER),
    });
    let address = IpAddr::from([192, 0, 2, last]);
    let pod = Pod {
        namespace: namespace.into(),
        name: format!("{workload}-{last}").into(),
        uid: "".into(),
        identity,
        workload: WorkloadRef::new("Deployment", namespace, workload),
        owners: [
            WorkloadRef::new("ReplicaSet", namespace, &format!("{workload}-5d8f")),
            WorkloadRef::new("Deployment", namespace, workload),
        ]
        .into(),
        selector: labels,
        node: Some("node-a".into()),
        host_network: false,
        addresses: [address].into(),
        from_template: false,
    };
    Party::pod(pod.into(), Some(address))
}

fn mk_edge(initiator: &Party, responder: &Party, attempts: u64) -> Edge {
    Edge {
        initiator: initiator.clone(),
        responder: responder.clone(),
        port: 8080,
        protocol: Protocol::Tcp,
        direction: Direction::Egress,
        cause: Cause::SameNamespace,
        counters: Counters { attempts, accepted: attempts, ..Counters::default() },
        first_seen: mk_time(60),
        last_seen: mk_time(600),
        oriented_by: OrientedBy::Handshake,
        fully_visible: true,
        vlan: 0,
        estimated: false,
    }
}

fn written(header: &Header, edges: &[Edge]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), header).unwrap();
    for edge in edges {
        writer.edge(edge).unwrap();
    }
    writer.finish().unwrap()
}

fn two_edges() -> Vec<Edge> {
    let mut interner = Interner::default();
    let web = mk_pod(&mut interner, "shop", "web", 1);
    let api = mk_pod(&mut interner, "shop", "api", 2);
    let outside = Party::external("198.51.100.7".parse().unwrap());
    vec![mk_edge(&web, &api, 3), mk_edge(&api, &outside, 1)]
}

fn read_bytes(bytes: &[u8]) -> Result<Recording, ReadError> {
    read([Ok(Source::new("edges.jsonl", bytes))])
}

/// An edge with its identities spelt out: identities of different interners are equal by number only.
fn spelt(edge: &Edge) -> String {
    let mut text = format!("{edge:?}");
    while let Some(at) = text.find("id: IdentityId(") {
        let end = text[at..].find(')').unwrap();
        text.replace_range(at..=at + end, "");
    }
    text
}

fn assert_same(found: &[Edge], expected: &[Edge]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(spelt(found), spelt(expected));
    }
}

#[test]
fn the_lines_of_a_small_file() {
    insta::assert_snapshot!(String::from_utf8(written(&mk_header("prod"), &two_edges())).unwrap());
}

#[test]
fn what_is_written_once_is_one_allocation_when_read() {
    let mut interner = Interner::default();
    let web = mk_pod(&mut interner, "shop", "web", 1);
    let api = mk_pod(&mut interner, "shop", "api", 2);
    let other = mk_pod(&mut interner, "shop", "api", 3);
    let edges = [mk_edge(&web, &api, 1), mk_edge(&web, &other, 1), mk_edge(&api, &web, 1)];
    let bytes = written(&mk_header(""), &edges);
    let count = |kind: &str| String::from_utf8_lossy(&bytes).matches(&format!("{{\"{kind}\":")).count();
    assert_eq!((count("identity"), count("pod"), count("party"), count("edge")), (2, 3, 3, 3));
    let read = read_bytes(&bytes).unwrap();
    assert_eq!(read.interner.len(), 2);
    let pod = |edge: usize, initiator: bool| {
        let edge = &read.edges[edge];
        let party = if initiator { &edge.initiator } else { &edge.responder };
        Arc::clone(party.as_pod().unwrap())
    };
    assert!(Arc::ptr_eq(&pod(0, true), &pod(1, true)));
    assert!(Arc::ptr_eq(&pod(0, true), &pod(2, false)));
    assert_eq!(pod(0, false).identity, pod(1, false).identity, "replicas share their identity");
}

#[test]
fn the_suffix_compresses_and_the_content_tells_how_to_read() {
    let folder = tempfile::tempdir().unwrap();
    let edges: Vec<Edge> = (0..2_000).flat_map(|_| two_edges()).collect();
    let size = |name: &str| {
        let path = folder.path().join(name);
        write(&path, &mk_header("prod"), &edges).unwrap();
        let renamed = folder.path().join("renamed");
        std::fs::copy(&path, &renamed).unwrap();
        for path in [path.clone(), renamed] {
            let read = read_files(&[path]).unwrap();
            assert_eq!(read.edges.len(), 2, "{name}");
            assert_eq!(read.edges[0].counters.attempts, 6_000, "{name}: the same edge adds up");
            assert_eq!(read.header, mk_header("prod"), "{name}");
        }
        std::fs::metadata(&path).unwrap().len()
    };
    let (plain, gzip, zstd) = (size("a.jsonl"), size("a.jsonl.gz"), size("a.jsonl.zst"));
    assert!(gzip < plain / 10 && zstd < plain / 10, "{plain} {gzip} {zstd}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("partial")), "{left:?}");
}

#[test]
fn a_file_that_cannot_be_written_is_named_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none").join("a.jsonl");
    let error = write(&path, &mk_header(""), &two_edges()).unwrap_err().to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
    assert!(!path.exists());
}

/// The line and the fault of a file that is wrong.
fn fault(bytes: &[u8]) -> (usize, String) {
    let error = read_bytes(bytes).unwrap_err();
    assert_eq!(error.path, PathBuf::from("edges.jsonl"));
    (error.line, error.fault.to_string())
}

#[test]
fn icmp_errors_come_back_and_files_of_version_2_have_none() {
    let mut edges = two_edges();
    edges[0].counters.icmp_errors = IcmpErrors { too_big: 3, time_exceeded: 0, other: 1 };
    let text = String::from_utf8(written(&mk_header("prod"), &edges)).unwrap();
    let read = read_bytes(text.as_bytes()).unwrap();
    let errors: Vec<_> = read.edges.iter().map(|edge| edge.counters.icmp_errors).collect();
    assert_eq!(errors, [IcmpErrors { too_big: 3, time_exceeded: 0, other: 1 }, IcmpErrors::default()]);
    assert_eq!(text.matches("icmp_errors").count(), 1, "few edges have any");

    let old = text.replace("\"version\":3", "\"version\":2").replace(",\"icmp_errors\":[3,0,1]", "");
    let read = read_bytes(old.as_bytes()).unwrap();
    assert!(read.edges.iter().all(|edge| edge.counters.icmp_errors.is_zero()));
}

#[test]
fn wrong_files_are_refused_with_the_line_and_what_is_wrong() {
    let good = String::from_utf8(written(&mk_header("prod"), &two_edges())).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    let without = |skip: usize| {
        let kept = lines.iter().enumerate().filter(|(at, _)| *at != skip);
        kept.map(|(_, line)| format!("{line}\n")).collect::<String>()
    };
    let with = |old: &str, new: &str| {
        assert!(good.contains(old), "{old}");
        good.replacen(old, new, 1)
    };
    let cut = |bytes: usize| good[..good.len() - bytes].to_owned();
    for (name, text, line, message) in [
        ("empty", String::new(), 0, "is no file of recorded edges"),
        ("a manifest", "apiVersion: v1\n".to_owned(), 1, "is no file of recorded edges"),
        ("judged edges", "{\"initiator\":{\"type\":\"Pod\"}}\n".to_owned(), 1, "is no file of recorded"),
        ("another format", with("dryfence-edges", "dryfence-else"), 1, "is no file of recorded edges"),
        ("newer", with("\"version\":3", "\"version\":4"), 1, "holds version 4 of the format"),
        ("a header field", with("\"cluster\"", "\"clutser\""), 1, "clutser: unknown field `clutser`"),
        ("a header without end", with("\"end\":\"2026", "\"endd\":\"2026"), 1, "endd: unknown field"),
        ("no last line", without(lines.len() - 1), lines.len() - 1, "is truncated"),
        ("cut in the last line", cut(5), lines.len(), "is truncated"),
        ("only a header", format!("{}\n", lines[0]), 1, "is truncated"),
        ("an edge is missing", without(lines.len() - 2), lines.len() - 1, "counts 2 edges where 1 came"),
        ("an identity is missing", without(1), 2, "names identity 0, which no line before it describes"),
        ("a pod is missing", without(2), 3, "names pod 0, which no line before it"),
        ("a party is missing", without(3), 6, "describes party 1 where 0 was expected"),
        ("more after the end", format!("{good}{}\n", lines[1]), lines.len() + 1, "comes after the line that"),
        ("no JSON", with("{\"edge\"", "{edge"), 8, "key must be a string"),
        ("an unknown line", with("{\"edge\"", "{\"egde\""), 8, "unknown variant `egde`"),
        (
            "an unknown field",
            with("\"port\":8080,\"protocol\":\"TCP\",\"dir", "\"prot\":1,\"protocol\":\"TCP\",\"dir"),
            8,
            "edge.prot: unknown field `prot`",
        ),
        (
            "a port",
            with("\"port\":8080,\"protocol\":\"TCP\",\"dir", "\"port\":70000,\"protocol\":\"TCP\",\"dir"),
            8,
            "edge.port: invalid value: integer `70000`",
        ),
        ("an address", with("\"192.0.2.1\"", "\"192.0.2\""), 3, "pod.addresses[0]: invalid IP address"),
        (
            "a workload",
            with("\"workload\":\"Deployment/web\"", "\"workload\":\"web\""),
            3,
            "pod 0: \"web\" is not",
        ),
        ("no kind", with("\"pod\":0}}", "\"external\":false}}"), 4, "party 0: must be one of pod, node"),
        ("two kinds", with("\"pod\":0}}", "\"pod\":0,\"external\":true}}"), 4, "party 0: must be one of"),
    ] {
        let (found, said) = fault(text.as_bytes());
        assert!(said.contains(message), "{name}: {said}");
        assert_eq!(found, line, "{name}: {said}");
    }
}

#[test]
fn every_file_that_was_cut_is_refused_compressed_or_not() {
    let edges: Vec<Edge> = (0..200).flat_map(|_| two_edges()).collect();
    let plain = written(&mk_header("prod"), &edges);
    for codec in [Codec::Plain, Codec::Gzip, Codec::Zstd] {
        let mut sink = codec.writer(Vec::new());
        sink.write_all(&plain).unwrap();
        let whole = sink.finish().unwrap();
        assert_eq!(read_bytes(&whole).unwrap().edges.len(), 2, "{codec:?}");
        // Without the last line's end nothing is missing yet.
        for length in (0..whole.len() - 1).step_by(1 + whole.len() / 300) {
            assert!(read_bytes(&whole[..length]).is_err(), "{codec:?}: {length} of {}", whole.len());
        }
    }
}

#[test]
fn a_changed_byte_in_a_compressed_file_never_passes_unseen() {
    let plain = written(&mk_header("prod"), &two_edges());
    let expected = read_bytes(&plain).unwrap();
    for codec in [Codec::Gzip, Codec::Zstd] {
        let mut sink = codec.writer(Vec::new());
        sink.write_all(&plain).unwrap();
        let whole = sink.finish().unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            // A header's time or name may change without harm; the content may not.
            if let Ok(read) = read_bytes(&changed) {
                assert_eq!(read.header, expected.header, "{codec:?}: byte {at}");
                assert_same(&read.edges, &expected.edges);
            }
        }
    }
}

fn files(headers: &[Header]) -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let paths = headers.iter().enumerate().map(|(at, header)| {
        let path = folder.path().join(format!("{at}.jsonl"));
        write(&path, header, &two_edges()).unwrap();
        path
    });
    let paths = paths.collect();
    (folder, paths)
}

#[test]
fn several_files_are_one_recording_and_counters_add() {
    let (_folder, paths) = files(&[mk_header("prod"), mk_header("prod"), mk_header("prod")]);
    let all = read_files(&paths).unwrap();
    assert_eq!(all.edges.iter().map(|edge| edge.counters.attempts).collect::<Vec<_>>(), [9, 3]);
    assert_eq!(all.interner.len(), 2);
    assert_eq!(all.header, mk_header("prod"));
}

#[test]
fn the_same_edge_is_one_only_where_its_sum_would_say_the_same() {
    let mut interner = Interner::default();
    let web = mk_pod(&mut interner, "shop", "web", 1);
    let api = mk_pod(&mut interner, "shop", "api", 2);
    let relabelled = mk_pod(&mut interner, "shop", "web2", 1);
    let edge = mk_edge(&web, &api, 1);
    let late = Edge {
        first_seen: mk_time(1),
        last_seen: mk_time(800),
        oriented_by: OrientedBy::Service,
        ..edge.clone()
    };
    for (name, other, count) in [
        ("the same", late, 1),
        ("half visible", Edge { fully_visible: false, ..edge.clone() }, 2),
        ("at the other pod", Edge { direction: Direction::Ingress, ..edge.clone() }, 2),
        ("another VLAN", Edge { vlan: 10, ..edge.clone() }, 2),
        ("another identity", Edge { initiator: relabelled, ..edge.clone() }, 2),
    ] {
        let read = read_bytes(&written(&mk_header(""), &[edge.clone(), other])).unwrap();
        assert_eq!(read.edges.len(), count, "{name}");
        let first = &read.edges[0];
        assert_eq!(first.oriented_by, OrientedBy::Handshake, "{name}");
        let seen = (first.first_seen, first.last_seen);
        assert_eq!(seen == (mk_time(1), mk_time(800)), count == 1, "{name}");
    }
}

#[test]
fn files_of_different_clusters_do_not_merge() {
    for (a, b, message) in
        [("prod", "dev", "is of cluster \"dev\", and "), ("prod", "", "is of a cluster without a name, and ")]
    {
        let (_folder, paths) = files(&[mk_header(a), mk_header(b)]);
        let error = read_files(&paths).unwrap_err();
        assert_eq!(error.path, paths[1]);
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.to_string().contains("is of cluster \"prod\": edges of"), "{error}");
    }
}

#[test]
fn where_a_node_was_not_recorded_is_a_gap() {
    let header = |node: Option<&str>, start, end| Header {
        node: node.map(ToOwned::to_owned),
        start: mk_time(start),
        end: mk_time(end),
        ..mk_header("prod")
    };
    let gap = |from, to, node: &str| (mk_time(from), mk_time(to), format!("node {node} was not recorded"));
    for (name, headers, gaps, warned) in [
        (
            "one node, one after the other",
            vec![header(Some("a"), 0, 10), header(Some("a"), 20, 30)],
            vec![gap(10, 20, "a")],
            false,
        ),
        (
            "two nodes, one of them late",
            vec![header(Some("a"), 0, 30), header(Some("b"), 5, 30)],
            vec![gap(0, 5, "b")],
            false,
        ),
        ("one node twice", vec![header(Some("a"), 0, 30), header(Some("a"), 10, 30)], vec![], true),
        ("nodes without a name", vec![header(None, 0, 30), header(None, 0, 30)], vec![], false),
    ] {
        let (_folder, paths) = files(&headers);
        let all = read_files(&paths).unwrap().header;
        let found: Vec<_> = all.gaps.into_iter().map(|gap| (gap.from, gap.to, gap.reason)).collect();
        assert_eq!(found, gaps, "{name}");
        assert_eq!(!all.warnings.is_empty(), warned, "{name}: {:?}", all.warnings);
        assert_eq!((all.start, all.end), (mk_time(0), mk_time(30)), "{name}");
    }
}

#[test]
fn missing_files_are_named() {
    let error = read_files(&[PathBuf::from("/no/such/edges.jsonl")]).unwrap_err().to_string();
    assert!(error.starts_with("/no/such/edges.jsonl: cannot be read: No such file"), "{error}");
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z0-9./-]{1,12}", 1 => ".{0,6}"]
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from(bits))),
    ]
}

fn any_protocol() -> impl Strategy<Value = Protocol> {
    use Protocol::{Icmp, Icmpv6, Sctp, Tcp, Udp};
    prop_oneof![Just(Tcp), Just(Udp), Just(Sctp), Just(Icmp), Just(Icmpv6)]
}

fn any_labels() -> impl Strategy<Value = Labels> {
    btree_map(any_text(), any_text(), 0..4).prop_map(|map| map.into_iter().collect())
}

fn any_identity() -> impl Strategy<Value = IdentityParts> {
    let port = (any_text(), any_protocol(), any::<u16>()).prop_map(|(name, protocol, port)| NamedPort {
        name: name.into(),
        protocol,
        port,
    });
    (any_text(), any_labels(), any_labels(), any_text(), vec(port, 0..3), 0..8_u8).prop_map(
        |(namespace, namespace_labels, labels, account, named_ports, roles)| {
            let all = [Roles::CLUSTER_DNS, Roles::METRICS_SCRAPER, Roles::INGRESS_CONTROLLER];
            let held = all.into_iter().enumerate().filter(|(at, _)| roles & (1 << at) != 0);
            IdentityParts {
                namespace: namespace.into(),
                namespace_labels,
                labels,
                service_account: account.into(),
                named_ports,
                roles: held.fold(Roles::NONE, |roles, (_, role)| roles.with(role)),
            }
        },
    )
}

/// A pod without its identity, which an interner makes.
type PodParts =
    (IdentityParts, String, String, Vec<(String, String)>, Labels, Option<String>, Vec<IpAddr>, bool);

fn any_pod() -> impl Strategy<Value = PodParts> {
    let kind = "[A-Z][A-Za-z]{0,8}";
    (
        any_identity(),
        any_text(),
        any_text(),
        vec((kind, "[a-z][a-z0-9./-]{0,8}"), 0..3),
        any_labels(),
        proptest::option::of(any_text()),
        vec(any_address(), 0..3),
        any::<bool>(),
    )
}

fn pod(interner: &mut Interner, parts: PodParts) -> Pod {
    let (identity, name, uid, owners, selector, node, addresses, flag) = parts;
    let identity = interner.intern(identity);
    let namespace = Arc::clone(&identity.namespace);
    let owners: Vec<_> = owners.iter().map(|(kind, name)| WorkloadRef::new(kind, &namespace, name)).collect();
    Pod {
        workload: owners.last().cloned().unwrap_or_else(|| WorkloadRef::new("Pod", &namespace, "bare")),
        owners: owners.into(),
        name: name.into(),
        uid: uid.into(),
        namespace,
        identity,
        selector,
        node: node.map(Into::into),
        host_network: flag,
        addresses: addresses.into(),
        from_template: !flag,
    }
}

fn any_reason() -> impl Strategy<Value = UnknownReason> {
    let object = || any_text().prop_map(|name| Arc::new(ObjectRef::namespaced("Pod", "a", &name)));
    prop_oneof![
        Just(UnknownReason::AddressUnjoined),
        Just(UnknownReason::AddressReused),
        Just(UnknownReason::AddressMissing),
        object().prop_map(|object| UnknownReason::ObjectInvalid { object }),
        (object(), any_text())
            .prop_map(|(policy, field)| UnknownReason::PolicyInvalid { policy, field: field.into() }),
        (object(), any_text())
            .prop_map(|(policy, field)| UnknownReason::PolicyUnsupported { policy, field: field.into() }),
        (object(), proptest::sample::select(Fact::ALL.to_vec()))
            .prop_map(|(policy, fact)| { UnknownReason::FactMissing { policy, field: "spec".into(), fact } }),
        object()
            .prop_map(|policy| UnknownReason::EqualPriority { policies: [ObjectRef::clone(&policy)].into() }),
        Just(UnknownReason::NoBackends),
        any::<u32>().prop_map(|n| UnknownReason::BackendsDiffer { allowed: n, denied: 1, unknown: 2 }),
        any::<u32>().prop_map(|n| UnknownReason::PodsDiffer { allowed: 1, denied: n, unknown: 2 }),
        Just(UnknownReason::IcmpUndefined),
        Just(UnknownReason::NodeUnknown),
        Just(UnknownReason::DialectUndefined { switch: "icmp_needs_rule" }),
        Just(UnknownReason::NotSynced),
        Just(UnknownReason::Snat),
        Just(UnknownReason::Unoriented),
        Just(UnknownReason::RangeDivided),
        Just(UnknownReason::OverBudget(Budget::Cluster)),
    ]
}

#[derive(Debug, Clone)]
enum PartyParts {
    Pod(usize),
    Node(String),
    Service(String, String, Vec<(usize, u16)>),
    External,
    Range(u8),
    Unknown(UnknownReason),
}

fn any_party() -> impl Strategy<Value = (Option<IpAddr>, PartyParts)> {
    let kind = prop_oneof![
        4 => any::<usize>().prop_map(PartyParts::Pod),
        1 => any_text().prop_map(PartyParts::Node),
        2 => (any_text(), any_text(), vec((any::<usize>(), any::<u16>()), 0..3))
            .prop_map(|(namespace, name, backends)| PartyParts::Service(namespace, name, backends)),
        1 => Just(PartyParts::External),
        1 => (0_u8..=32).prop_map(PartyParts::Range),
        1 => any_reason().prop_map(PartyParts::Unknown),
    ];
    (proptest::option::of(any_address()), kind)
}

fn party(pods: &[Arc<Pod>], (address, parts): (Option<IpAddr>, PartyParts)) -> Party {
    let nth = |at: usize| Arc::clone(&pods[at % pods.len()]);
    let endpoint = match parts {
        PartyParts::Pod(at) => Endpoint::Pod(nth(at)),
        PartyParts::Node(name) => Endpoint::Node(name.into()),
        PartyParts::Service(namespace, name, backends) => {
            let backends = backends.into_iter();
            let backends = backends.map(|(at, port)| Backend { party: Party::pod(nth(at), None), port });
            Endpoint::Service(Arc::new(ServiceTarget {
                namespace: namespace.into(),
                name: name.into(),
                backends: backends.collect(),
            }))
        }
        PartyParts::External => Endpoint::External,
        PartyParts::Range(length) => {
            let net = ipnet::IpNet::new(address.unwrap_or(IpAddr::from([203, 0, 113, 1])), length).unwrap();
            return Party::range(net.network(), length);
        }
        PartyParts::Unknown(reason) => Endpoint::Unknown(reason),
    };
    Party { address, endpoint }
}

fn any_edges() -> impl Strategy<Value = Vec<Edge>> {
    let causes = [
        Cause::Dns,
        Cause::Metrics,
        Cause::IngressController,
        Cause::ApiServer,
        Cause::NodeLocalDns,
        Cause::CloudMetadata,
        Cause::External,
        Cause::FromOutside,
        Cause::Node,
        Cause::CrossNamespace,
        Cause::SameNamespace,
        Cause::Unknown,
    ];
    let oriented = [
        OrientedBy::Handshake,
        OrientedBy::FirstPacket,
        OrientedBy::Listener,
        OrientedBy::Service,
        OrientedBy::Unknown,
    ];
    let edge = (
        (any::<usize>(), any::<usize>(), any::<u16>(), any_protocol(), any::<bool>(), any::<bool>()),
        any::<[u64; 7]>(),
        (any::<u64>(), any::<u64>(), proptest::sample::select(causes.to_vec())),
        (proptest::sample::select(oriented.to_vec()), 0..4096_u16),
    );
    (vec(any_pod(), 1..5), vec(any_party(), 1..6), vec(edge, 0..12)).prop_map(|(pods, parties, edges)| {
        let mut interner = Interner::default();
        let pods: Vec<_> = pods.into_iter().map(|parts| Arc::new(pod(&mut interner, parts))).collect();
        let parties: Vec<_> = parties.into_iter().map(|parts| party(&pods, parts)).collect();
        let edges =
            edges.into_iter().enumerate().map(|(at, (ends, n, (first, last, cause), (oriented_by, _)))| {
                let (from, to, port, protocol, egress, fully_visible) = ends;
                Edge {
                    initiator: parties[from % parties.len()].clone(),
                    responder: parties[to % parties.len()].clone(),
                    port,
                    protocol,
                    direction: if egress { Direction::Egress } else { Direction::Ingress },
                    cause,
                    counters: Counters {
                        attempts: n[0],
                        accepted: n[1],
                        refused: n[2],
                        packets_to_responder: n[3],
                        packets_to_initiator: n[4],
                        bytes_to_responder: n[5],
                        bytes_to_initiator: n[6],
                        icmp_errors: IcmpErrors {
                            too_big: n[0] % 3,
                            time_exceeded: n[1] % 2,
                            other: n[2] % 2,
                        },
                    },
                    first_seen: Timestamp::from_nanos(first),
                    last_seen: Timestamp::from_nanos(last),
                    oriented_by,
                    fully_visible,
                    // Keeps every edge apart from the others, so that none is merged.
                    vlan: u16::try_from(at).unwrap(),
                    estimated: false,
                }
            });
        edges.collect()
    })
}

fn any_header() -> impl Strategy<Value = Header> {
    let time = || (0..u64::MAX).prop_map(Timestamp::from_nanos);
    let gap = (time(), time(), any_text()).prop_map(|(from, to, reason)| Gap { from, to, reason });
    let loss = (any_text(), any_text(), any::<u64>(), any::<u64>())
        .prop_map(|(stage, reason, packets, edges)| LossRecord { stage, reason, packets, edges });
    let scenario =
        (any_text(), any_text()).prop_map(|(name, description)| ScenarioRecord { name, description });
    (
        (any_text(), proptest::option::of(any_text()), any_text(), time(), time()),
        (vec(gap, 0..3), vec(loss, 0..3), vec(any_text(), 0..3), vec(scenario, 0..3), vec(any_text(), 0..3)),
    )
        .prop_map(
            |((cluster, node, dialect, start, end), (gaps, losses, unobserved, scenarios, warnings))| {
                Header { cluster, node, dialect, start, end, gaps, losses, unobserved, scenarios, warnings }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_is_what_was_written(header in any_header(), edges in any_edges()) {
        let bytes = written(&header, &edges);
        let read = read_bytes(&bytes).unwrap();
        prop_assert_eq!(&read.header, &header);
        assert_same(&read.edges, &edges);
        // And again: nothing is lost on the way that did not show.
        prop_assert_eq!(written(&read.header, &read.edges), bytes);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(edges in any_edges(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = written(&mk_header("prod"), &edges);
        let length = bytes.len();
        let at = at.index(length);
        bytes[at] = byte;
        drop(read_bytes(&bytes));
        bytes.truncate(at);
        // The end of the last line is the one byte that says nothing.
        prop_assert_eq!(read_bytes(&bytes).is_ok(), at == length - 1);
    }
}

#[test]
fn a_compressed_file_is_truncated_wherever_it_stops() {
    let plain = written(&mk_header("prod"), &mk_shop_edges());
    for codec in [Codec::Gzip, Codec::Zstd] {
        let mut sink = codec.writer(Vec::new());
        sink.write_all(&plain).unwrap();
        let whole = sink.finish().unwrap();
        assert!(read_bytes(&whole).is_ok());
        // Past the bytes by which it is recognised, and before the checksums, without which all edges are there.
        for cut in 6..whole.len() - 12 {
            let error = read_bytes(&whole[..cut]).unwrap_err().to_string();
            assert!(error.contains("is truncated"), "{codec:?} cut at {cut} of {}: {error}", whole.len());
        }
    }
}
