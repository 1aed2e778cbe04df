//! The 288 NetworkPolicy cases of the cyclonus oracle, every cell, each direction, both readings of `ipBlock`.
//!
//! The folder is `$DRYFENCE_ORACLES`, else `shared/oracles` beside the project. Where it is missing, as on a
//! user's machine, the test says so and passes.
#![expect(clippy::unwrap_used, reason = "a test: what is not as the oracle's README says must fail")]

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use dryfence::model::dialect::Dialect;
use dryfence::model::edge::Protocol;
use dryfence::model::endpoint::{Connection, Party, Pod};
use dryfence::model::identity::{IdentityParts, Interner, NamedPort};
use dryfence::model::labels::Labels;
use dryfence::model::object::WorkloadRef;
use dryfence::model::role::Roles;
use dryfence::model::scenario::Scenario;
use dryfence::model::verdict::Verdict;
use dryfence::policy::{Judge, Policy};
use k8s_openapi::api::core::v1::{Namespace, Pod as ApiPod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::Deserialize;

/// Rows by source and columns by destination, for each `PROTOCOL/PORT`.
type Tables = BTreeMap<String, Vec<String>>;

#[derive(Deserialize)]
struct Case {
    id: String,
    cluster: String,
    policies: Vec<NetworkPolicy>,
    endpoints: Vec<String>,
    tables: Tables,
    tables_ip_block_pods_false: Option<Tables>,
}

/// A document of a cluster file: only namespaces and pods are in them.
#[derive(Deserialize)]
#[serde(tag = "kind")]
enum Document {
    Namespace(Box<Namespace>),
    Pod(Box<ApiPod>),
}

fn oracle_folder() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/oracles");
    std::env::var_os("DRYFENCE_ORACLES").map_or_else(beside, PathBuf::from).join("cyclonus")
}

fn labels(map: Option<&BTreeMap<String, String>>) -> Labels {
    map.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

fn named_ports(pod: &ApiPod) -> Vec<NamedPort> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let named = ports.filter_map(|port| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP").parse().unwrap();
        let number = u16::try_from(port.container_port).unwrap();
        port.name.as_deref().map(|name| NamedPort { name: name.into(), protocol, port: number })
    });
    named.collect()
}

fn to_pod(pod: &ApiPod, namespaces: &HashMap<String, Labels>, interner: &mut Interner) -> Pod {
    let namespace = pod.metadata.namespace.as_deref().unwrap();
    let name = pod.metadata.name.as_deref().unwrap();
    let labels = labels(pod.metadata.labels.as_ref());
    let identity = interner.intern(IdentityParts {
        namespace: namespace.into(),
        namespace_labels: namespaces[namespace].clone(),
        labels: labels.clone(),
        service_account: "default".into(),
        named_ports: named_ports(pod),
        roles: Roles::NONE,
    });
    let addresses = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    Pod {
        namespace: namespace.into(),
        name: name.into(),
        uid: "".into(),
        identity,
        workload: WorkloadRef::new("Pod", namespace, name),
        owners: Arc::from([]),
        selector: labels,
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).map(Arc::from),
        host_network: pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or_default(),
        addresses: addresses.map(|address| address.ip.parse().unwrap()).collect(),
        from_template: false,
    }
}

/// The pods of a cluster file, by `namespace/name`.
fn read_cluster(path: &Path) -> HashMap<String, Party> {
    let text = std::fs::read_to_string(path).unwrap();
    // The tag of `Document` makes the parser guess scalars' types, and `y` is a namespace here.
    let options = serde_saphyr::options! { strict_booleans: true };
    let documents: Vec<Document> = serde_saphyr::from_multiple_with_options(&text, options).unwrap();
    let mut namespaces = HashMap::new();
    let mut pods = Vec::new();
    for document in documents {
        match document {
            Document::Namespace(namespace) => {
                let labels = labels(namespace.metadata.labels.as_ref());
                namespaces.insert(namespace.metadata.name.unwrap(), labels);
            }
            Document::Pod(pod) => pods.push(pod),
        }
    }
    let mut interner = Interner::default();
    let party = |pod: &ApiPod| {
        let pod = to_pod(pod, &namespaces, &mut interner);
        let address = pod.addresses.first().copied();
        (format!("{}/{}", pod.namespace, pod.name), Party::pod(Arc::new(pod), address))
    };
    pods.iter().map(|pod| pod.as_ref()).map(party).collect()
}

fn verdicts(cell: char) -> Option<(Verdict, Verdict)> {
    match cell {
        '.' => Some((Verdict::Allow, Verdict::Allow)),
        'e' => Some((Verdict::Deny, Verdict::Allow)),
        'i' => Some((Verdict::Allow, Verdict::Deny)),
        'b' => Some((Verdict::Deny, Verdict::Deny)),
        '-' => None,
        other => panic!("{other} is no cell"),
    }
}

/// Compares every cell, and returns how many there were and what differs.
fn check(case: &Case, parties: &[Party], tables: &Tables, dialect: Dialect) -> (usize, Vec<String>) {
    let policies: Vec<Arc<Policy>> =
        case.policies.iter().map(|policy| Arc::new(Policy::from_network_policy(policy))).collect();
    let mut wrong: Vec<String> = policies
        .iter()
        .flat_map(|policy| policy.faults())
        .map(|fault| format!("{}: {fault}", case.id))
        .collect();
    let mut judge = Judge::new(&policies, dialect, &Scenario::Enforced);
    let mut cells = 0;
    for (probe, rows) in tables {
        let (protocol, port) = probe.split_once('/').unwrap();
        let (protocol, port): (Protocol, u16) = (protocol.parse().unwrap(), port.parse().unwrap());
        for (initiator, row) in parties.iter().zip(rows) {
            for (responder, cell) in parties.iter().zip(row.chars()) {
                let Some((egress, ingress)) = verdicts(cell) else { continue };
                cells += 1;
                let connection = Connection { initiator, responder, port, protocol };
                let judgement = judge.judge(&connection);
                if (judgement.egress.verdict, judgement.ingress.verdict) != (egress, ingress) {
                    wrong.push(format!(
                        "{} in {dialect}, expected {egress} and {ingress}:\n{}",
                        case.id,
                        judge.explain(&connection)
                    ));
                }
            }
        }
    }
    (cells, wrong)
}

#[test]
fn every_cell_of_every_cyclonus_case_agrees_in_both_dialects() {
    let folder = oracle_folder();
    let Ok(lines) = std::fs::read_to_string(folder.join("cases.jsonl")) else {
        // Written past the test harness, which hides what passing tests print.
        use std::io::Write;
        let line = format!("\noracle_cyclonus: nothing checked, {} is not there\n", folder.display());
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    };
    let blocks_match_pods = Dialect::STANDARD;
    let blocks_do_not: Dialect = "standard,ip_block_matches_pods=false".parse().unwrap();
    let mut clusters = HashMap::new();
    let (mut cases, mut cells, mut wrong) = (0, 0, Vec::new());
    let start = Instant::now();
    for line in lines.lines() {
        let case: Case = serde_json::from_str(line).unwrap();
        let cluster = clusters
            .entry(case.cluster.clone())
            .or_insert_with(|| read_cluster(&folder.join("clusters").join(format!("{}.yaml", case.cluster))));
        let party = |name: &String| match name.parse::<IpAddr>() {
            Ok(address) => Party::external(address),
            Err(_) => cluster[name].clone(),
        };
        let parties: Vec<Party> = case.endpoints.iter().map(party).collect();
        // A case without ipBlock has one table, which holds in both dialects.
        let without = case.tables_ip_block_pods_false.as_ref().unwrap_or(&case.tables);
        for (tables, dialect) in [(&case.tables, blocks_match_pods), (without, blocks_do_not)] {
            let (checked, differs) = check(&case, &parties, tables, dialect);
            cells += checked;
            wrong.extend(differs);
        }
        cases += 1;
    }
    println!("{cases} cases, {cells} cells in two dialects, {:?}", start.elapsed());
    assert_eq!(cases, 288);
    assert!(cells > 500_000, "{cells} cells");
    assert!(
        wrong.is_empty(),
        "{} differ, the first:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(3)].join("\n")
    );
}
