//! The presets of `deploy/segments/`: each is read, is in force, and says of built edges what the field's
//! guides prescribe (agents behind a gateway, three tiers and a DMZ, many tenants).

#![expect(clippy::unwrap_used, reason = "what is read here is the test's own")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use dryfence::model::cause::Cause;
use dryfence::model::edge::{Counters, Direction, Edge, OrientedBy, Protocol};
use dryfence::model::endpoint::{Endpoint, Party, Pod};
use dryfence::model::identity::{IdentityParts, Interner};
use dryfence::model::labels::{Labels, NAMESPACE_NAME_LABEL};
use dryfence::model::object::WorkloadRef;
use dryfence::model::role::Roles;
use dryfence::model::time::Timestamp;
use dryfence::segment::api::SegmentMapObject;
use dryfence::segment::{Crossing, SegmentJudge, SegmentMap, Surroundings};

use Crossing::{Allow, Ignored, Unknown, Violation};
use Protocol::{Tcp, Udp};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/segments")
}

/// The maps of one preset by name. Fields that a SegmentMap does not have fail the test.
fn mk_maps(file: &str) -> BTreeMap<String, Arc<SegmentMap>> {
    let text = std::fs::read_to_string(folder().join(file)).unwrap();
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).unwrap();
    let read = |document: serde_json::Value| {
        let mut unknown = Vec::new();
        let object: SegmentMapObject =
            serde_ignored::deserialize(document, |path| unknown.push(path.to_string())).unwrap();
        assert!(unknown.is_empty(), "{file}: fields that do not exist: {unknown:?}");
        let map = SegmentMap::from_object(&object);
        assert!(map.findings().is_empty(), "{file}: {:?}", map.findings());
        (map.name().to_string(), Arc::new(map))
    };
    documents.into_iter().map(read).collect()
}

/// The ends that a table names.
#[derive(Default)]
struct Cast {
    interner: Interner,
    parties: BTreeMap<&'static str, Party>,
}

fn mk_labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().copied().collect()
}

impl Cast {
    fn pod_in(
        mut self,
        name: &'static str,
        (namespace, namespace_labels): (&str, &[(&str, &str)]),
        labels: &[(&str, &str)],
        address: &str,
        roles: Roles,
    ) -> Self {
        let address: IpAddr = address.parse().unwrap();
        let identity = self.interner.intern(IdentityParts {
            namespace: namespace.into(),
            namespace_labels: mk_labels(namespace_labels).with(NAMESPACE_NAME_LABEL, namespace),
            labels: mk_labels(labels),
            service_account: "default".into(),
            named_ports: Vec::new(),
            roles,
        });
        let pod = Pod {
            namespace: namespace.into(),
            name: name.into(),
            uid: name.into(),
            identity,
            workload: WorkloadRef::new("Deployment", namespace, name),
            owners: [WorkloadRef::new("Deployment", namespace, name)].into(),
            selector: mk_labels(labels),
            node: Some("n1".into()),
            host_network: false,
            addresses: [address].into(),
            from_template: false,
        };
        self.parties.insert(name, Party::pod(Arc::new(pod), Some(address)));
        self
    }

    fn pod(
        self,
        name: &'static str,
        namespace: (&str, &[(&str, &str)]),
        labels: &[(&str, &str)],
        address: &str,
    ) -> Self {
        self.pod_in(name, namespace, labels, address, Roles::NONE)
    }

    /// The ends that every cluster has: its DNS, a node, the internet, the cloud's metadata.
    fn usual(mut self) -> Self {
        let outside = |address: &str| Party::external(address.parse().unwrap());
        self.parties.insert("internet", outside("203.0.113.80"));
        self.parties.insert("metadata", outside("169.254.169.254"));
        let node = Some("192.0.2.1".parse().unwrap());
        self.parties.insert("node", Party { address: node, endpoint: Endpoint::Node("n1".into()) });
        self.pod_in(
            "coredns",
            ("kube-system", &[]),
            &[("k8s-app", "kube-dns")],
            "10.99.0.10",
            Roles::CLUSTER_DNS,
        )
        .pod("stranger", ("other", &[]), &[("app", "x")], "10.99.0.11")
    }

    fn outside(mut self, name: &'static str, address: &str) -> Self {
        self.parties.insert(name, Party::external(address.parse().unwrap()));
        self
    }

    fn edge(&self, from: &str, to: &str, port: u16, protocol: Protocol) -> Edge {
        Edge {
            initiator: self.parties[from].clone(),
            responder: self.parties[to].clone(),
            port,
            protocol,
            direction: Direction::Egress,
            cause: Cause::Unknown,
            counters: Counters::default(),
            first_seen: Timestamp::EPOCH,
            last_seen: Timestamp::EPOCH,
            oriented_by: OrientedBy::Handshake,
            fully_visible: true,
            vlan: 0,
            estimated: false,
        }
    }
}

type Row = (&'static str, &'static str, u16, Protocol, Crossing);

/// Judges each row, seen from either end, and compares.
fn assert_rows(map: &Arc<SegmentMap>, cast: &Cast, rows: &[Row]) {
    let around =
        Surroundings { api_server: vec!["192.0.2.1:6443".parse().unwrap()], ..Surroundings::default() };
    let mut judge = SegmentJudge::new(map, around).unwrap();
    for (from, to, port, protocol, expected) in rows {
        let mut edge = cast.edge(from, to, *port, *protocol);
        for direction in Direction::BOTH {
            edge.direction = direction;
            let given = judge.judge(&edge);
            assert_eq!(given.verdict, *expected, "{from} → {to} on {port}/{protocol}: {given}");
        }
    }
    assert_eq!(judge.findings(), [], "{}", map.name());
}

#[test]
fn every_preset_is_read_and_in_force() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        names.extend(mk_maps(&file).into_keys());
    }
    names.sort();
    assert_eq!(
        names,
        [
            "ai-agents",
            "dev-prod",
            "dmz",
            "multi-tenant",
            "three-tier-by-cidr",
            "three-tier-by-label",
            "three-tier-by-vlan",
        ]
    );
}

const THREE_TIERS: [Row; 18] = [
    ("internet", "web", 80, Tcp, Allow),
    ("internet", "web", 443, Tcp, Allow),
    ("internet", "web", 22, Tcp, Violation),
    ("internet", "app", 8080, Tcp, Violation),
    ("internet", "data", 5432, Tcp, Violation),
    ("web", "app", 8080, Tcp, Allow),
    ("web", "app", 8081, Tcp, Violation),
    ("web", "data", 5432, Tcp, Violation),
    ("web", "data", 3306, Tcp, Violation),
    ("app", "data", 5432, Tcp, Allow),
    ("app", "data", 3306, Tcp, Allow),
    ("app", "data", 5432, Udp, Violation),
    ("app", "web", 8080, Tcp, Violation),
    ("data", "app", 8080, Tcp, Violation),
    ("data", "internet", 443, Tcp, Violation),
    ("web", "web2", 9999, Tcp, Allow),
    ("web", "coredns", 53, Udp, Allow),
    ("coredns", "internet", 53, Udp, Allow),
];

#[test]
fn three_tiers_by_address() {
    let maps = mk_maps("three-tier.yaml");
    let cast = Cast::default()
        .usual()
        .pod("web", ("shop", &[]), &[], "192.168.1.10")
        .pod("web2", ("shop", &[]), &[], "192.168.1.255")
        .pod("app", ("shop", &[]), &[], "192.168.2.10")
        .pod("data", ("shop", &[]), &[], "192.168.3.10")
        .outside("vm-web", "192.168.1.7")
        .outside("vm-data", "192.168.3.7");
    let map = &maps["three-tier-by-cidr"];
    assert_rows(map, &cast, &THREE_TIERS);
    assert_rows(
        map,
        &cast,
        &[
            // Machines outside the cluster have their tier, too.
            ("vm-web", "app", 8080, Tcp, Allow),
            ("vm-web", "data", 5432, Tcp, Violation),
            ("web", "vm-data", 5432, Tcp, Violation),
            ("app", "vm-data", 5432, Tcp, Allow),
            // No tier: the map does not say. Neither end in one: not its business. Nor are kubelet's probes.
            ("stranger", "data", 5432, Tcp, Unknown),
            ("web", "metadata", 80, Tcp, Unknown),
            ("node", "stranger", 80, Tcp, Ignored),
            ("node", "web", 80, Tcp, Ignored),
        ],
    );
}

#[test]
fn three_tiers_by_label() {
    let maps = mk_maps("three-tier.yaml");
    let cast = Cast::default()
        .usual()
        .pod("web", ("shop", &[]), &[("tier", "web")], "10.1.0.1")
        .pod("web2", ("blog", &[]), &[("tier", "web")], "10.1.0.2")
        .pod("app", ("shop", &[]), &[("tier", "app")], "10.1.0.3")
        .pod("data", ("shop", &[]), &[("tier", "data")], "2001:db8::4");
    assert_rows(&maps["three-tier-by-label"], &cast, &THREE_TIERS);
}

#[test]
fn three_tiers_by_vlan() {
    let map = &mk_maps("three-tier.yaml")["three-tier-by-vlan"];
    let cast = Cast::default()
        .usual()
        .pod("web", ("shop", &[]), &[], "10.1.0.1")
        .pod("web2", ("blog", &[]), &[], "10.1.0.2")
        .pod("app", ("shop", &[]), &[], "10.1.0.3")
        .pod("data", ("shop", &[]), &[], "10.1.0.4")
        .pod("untagged", ("shop", &[]), &[], "10.1.0.5")
        .pod("unseen", ("shop", &[]), &[], "10.1.0.6");
    let tags = [("web", 10), ("web2", 10), ("app", 20), ("data", 30), ("untagged", 0), ("coredns", 0)];
    let tag = |name: &str| tags.iter().find(|(known, _)| *known == name).map(|(_, vlan)| *vlan);
    let mut around = Surroundings::default();
    for (name, vlan) in tags {
        around.vlans.set(cast.parties[name].address.unwrap(), vlan);
    }
    let mut judge = SegmentJudge::new(map, around).unwrap();
    let more: [Row; 3] = [
        ("untagged", "data", 5432, Tcp, Violation),
        ("web", "untagged", 8080, Tcp, Violation),
        ("web", "unseen", 8080, Tcp, Unknown),
    ];
    for (from, to, port, protocol, expected) in THREE_TIERS.iter().chain(&more) {
        for (direction, subject) in [(Direction::Egress, from), (Direction::Ingress, to)] {
            // A tag is seen where a pod is: nothing is seen at the interface of the internet.
            let Some(vlan) = tag(subject) else { continue };
            let edge = Edge { direction, vlan, ..cast.edge(from, to, *port, *protocol) };
            let given = judge.judge(&edge);
            assert_eq!(given.verdict, *expected, "{from} → {to} on {port}/{protocol}, {direction}: {given}");
        }
    }
}

#[test]
fn a_dmz_between_the_internet_and_the_inside() {
    let map = &mk_maps("dmz.yaml")["dmz"];
    let cast = Cast::default()
        .usual()
        .pod("front", ("edge", &[("zone", "dmz")]), &[], "10.1.0.1")
        .pod("back", ("core", &[("zone", "internal")]), &[], "10.1.0.2")
        .pod("back2", ("core", &[("zone", "internal")]), &[], "10.1.0.3")
        .outside("dmz-first", "192.168.1.0")
        .outside("dmz-last", "192.168.1.50")
        .outside("inside", "192.168.1.51");
    assert_rows(
        map,
        &cast,
        &[
            ("internet", "front", 443, Tcp, Allow),
            ("internet", "front", 22, Tcp, Violation),
            ("internet", "back", 443, Tcp, Violation),
            ("front", "back", 8443, Tcp, Allow),
            ("front", "back", 5432, Tcp, Violation),
            ("front", "internet", 443, Tcp, Violation),
            ("back", "front", 22, Tcp, Allow),
            ("back", "internet", 443, Tcp, Allow),
            ("back", "back2", 9999, Tcp, Allow),
            // A range holds both its ends, and the next address is inside.
            ("dmz-first", "back", 8443, Tcp, Allow),
            ("dmz-last", "back", 8443, Tcp, Allow),
            ("dmz-last", "back", 22, Tcp, Violation),
            ("inside", "back", 22, Tcp, Allow),
            // Machines of the DMZ do not talk to each other.
            ("front", "dmz-first", 80, Tcp, Violation),
            ("dmz-first", "dmz-last", 80, Tcp, Violation),
            ("front", "coredns", 53, Udp, Allow),
        ],
    );
}

#[test]
fn development_and_production_never_meet() {
    let map = &mk_maps("dev-prod.yaml")["dev-prod"];
    let of = |environment: &'static str| [("environment", environment)];
    let cast = Cast::default()
        .usual()
        .pod("dev", ("shop-dev", &of("dev")), &[], "10.1.0.1")
        .pod("dev2", ("blog-dev", &of("dev")), &[], "10.1.0.2")
        .pod("staging", ("shop-staging", &of("staging")), &[], "10.1.0.3")
        .pod("prod", ("shop", &of("prod")), &[], "10.1.0.4")
        .pod("shared", ("tools", &of("shared")), &[], "10.1.0.5");
    assert_rows(
        map,
        &cast,
        &[
            ("dev", "prod", 443, Tcp, Violation),
            ("prod", "dev", 443, Tcp, Violation),
            ("staging", "prod", 5432, Tcp, Violation),
            ("dev", "staging", 80, Tcp, Violation),
            ("dev", "dev2", 5432, Tcp, Allow),
            ("shared", "prod", 9090, Tcp, Allow),
            ("shared", "prod", 22, Tcp, Violation),
            ("prod", "shared", 5000, Tcp, Allow),
            ("prod", "shared", 9090, Tcp, Violation),
            ("internet", "prod", 443, Tcp, Allow),
            ("internet", "dev", 443, Tcp, Violation),
            ("dev", "internet", 443, Tcp, Allow),
            ("dev", "coredns", 53, Udp, Allow),
            ("dev", "metadata", 80, Tcp, Unknown),
        ],
    );
}

#[test]
fn ai_agents_reach_their_tenant_and_the_gateway_only() {
    let map = &mk_maps("ai-agents.yaml")["ai-agents"];
    let cast = Cast::default()
        .usual()
        .pod("acme", ("agents-acme", &[("tenant", "acme")]), &[("app", "agent")], "10.1.0.1")
        .pod("acme-tools", ("tools-acme", &[("tenant", "acme")]), &[], "10.1.0.2")
        .pod("globex", ("agents-globex", &[("tenant", "globex")]), &[("app", "agent")], "10.1.0.3")
        .pod("gateway", ("llm-gateway", &[]), &[("app", "llm-gateway")], "10.1.0.4")
        .pod("gateway-admin", ("llm-gateway", &[]), &[("app", "admin")], "10.1.0.5")
        .pod("namesake", ("agents-acme", &[("tenant", "acme")]), &[("app", "llm-gateway")], "10.1.0.6")
        .pod("database", ("databases", &[]), &[("app", "postgresql")], "10.1.0.7")
        .pod("prometheus", ("monitoring", &[]), &[("app", "prometheus")], "10.1.0.8");
    assert_rows(
        map,
        &cast,
        &[
            ("acme", "gateway", 8080, Tcp, Allow),
            ("acme", "gateway", 22, Tcp, Violation),
            // Namespace AND pod label: another pod of that namespace is not the gateway, nor is a namesake.
            ("acme", "gateway-admin", 8080, Tcp, Unknown),
            ("globex", "namesake", 8080, Tcp, Violation),
            ("acme", "acme-tools", 9999, Tcp, Allow),
            ("acme", "globex", 8080, Tcp, Violation),
            ("acme", "database", 5432, Tcp, Violation),
            ("acme", "prometheus", 9090, Tcp, Violation),
            ("acme", "internet", 443, Tcp, Violation),
            ("acme", "metadata", 80, Tcp, Violation),
            ("acme", "node", 6443, Tcp, Violation),
            ("acme", "coredns", 53, Udp, Allow),
            ("gateway", "internet", 443, Tcp, Allow),
            ("gateway", "internet", 80, Tcp, Violation),
            ("gateway", "metadata", 443, Tcp, Violation),
            ("gateway", "acme", 8080, Tcp, Violation),
            ("prometheus", "acme", 9090, Tcp, Allow),
            ("prometheus", "globex", 9090, Tcp, Allow),
            ("prometheus", "acme", 8080, Tcp, Violation),
            ("coredns", "node", 6443, Tcp, Allow),
        ],
    );
}

#[test]
fn tenants_do_not_see_each_other() {
    let map = &mk_maps("multi-tenant.yaml")["multi-tenant"];
    let cast = Cast::default()
        .usual()
        .pod("acme", ("acme", &[("tenant", "acme")]), &[], "10.1.0.1")
        .pod("acme-db", ("acme-db", &[("tenant", "acme")]), &[], "10.1.0.2")
        .pod("globex", ("globex", &[("tenant", "globex")]), &[], "10.1.0.3")
        .pod("globex-db", ("globex-db", &[("tenant", "globex")]), &[], "10.1.0.4")
        .pod("ingress", ("ingress", &[("shared", "ingress")]), &[], "10.1.0.5")
        .pod("gateway", ("gateway", &[("shared", "gateway")]), &[], "10.1.0.6")
        .pod("prometheus", ("monitoring", &[("shared", "monitoring")]), &[], "10.1.0.7");
    assert_rows(
        map,
        &cast,
        &[
            ("acme", "acme-db", 5432, Tcp, Allow),
            ("acme", "globex-db", 5432, Tcp, Violation),
            ("globex", "acme", 8080, Tcp, Violation),
            ("acme", "gateway", 8080, Tcp, Allow),
            ("globex", "gateway", 8080, Tcp, Allow),
            ("acme", "internet", 443, Tcp, Violation),
            ("gateway", "internet", 443, Tcp, Allow),
            ("gateway", "acme", 8080, Tcp, Violation),
            ("internet", "ingress", 443, Tcp, Allow),
            ("internet", "acme", 443, Tcp, Violation),
            ("ingress", "acme", 8080, Tcp, Allow),
            ("ingress", "acme-db", 5432, Tcp, Violation),
            ("prometheus", "acme", 9090, Tcp, Allow),
            ("acme", "prometheus", 9090, Tcp, Violation),
            ("acme", "prometheus", 3000, Tcp, Violation),
            ("globex", "coredns", 53, Udp, Allow),
            ("stranger", "acme", 8080, Tcp, Unknown),
        ],
    );
}
