mod segments;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::cluster::Object;
use crate::cluster::manifests::{Severity, Source, load_all};
use crate::history::file::{Header, Recording};
use crate::model::edge::{Counters, Edge, OrientedBy};
use crate::model::endpoint::{Backend, Endpoint, Party, Pod, ServiceTarget};
use crate::model::identity::{IdentityParts, NamedPort};
use crate::model::labels::Labels;
use crate::model::object::WorkloadRef;
use crate::model::role::Roles;
use crate::model::verdict::UnknownReason;

/// 2026-03-02T10:00:00Z.
const START: Timestamp = Timestamp::from_nanos(1_772_445_600_000_000_000);

fn mk_time(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

/// What was recorded in a small cluster.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) recording: Recording,
    parties: BTreeMap<String, Party>,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self::default();
        world.recording.header =
            Header { cluster: "prod".to_owned(), start: START, end: mk_time(900), ..Header::default() };
        world
    }

    /// `namespace/workload`: the only pod of a Deployment, labelled `app=<workload>`, that names port 8080 http.
    pub(crate) fn pod(&mut self, name: &str) -> Party {
        self.replica(name, 0)
    }

    pub(crate) fn replica(&mut self, name: &str, replica: u8) -> Party {
        let key = format!("{name}#{replica}");
        if let Some(known) = self.parties.get(&key) {
            return known.clone();
        }
        let (namespace, workload) = name.split_once('/').unwrap();
        let labels: Labels = [("app", workload), ("pod-template-hash", "5d8f")].into_iter().collect();
        let roles = if workload == "coredns" { Roles::CLUSTER_DNS } else { Roles::NONE };
        let identity = self.recording.interner.intern(IdentityParts {
            namespace: namespace.into(),
            namespace_labels: [("kubernetes.io/metadata.name", namespace)].into_iter().collect(),
            labels,
            service_account: "default".into(),
            named_ports: vec![NamedPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
            roles,
        });
        let address = IpAddr::from([192, 0, 2, u8::try_from(self.parties.len() + 1).unwrap()]);
        let pod = Pod {
            namespace: namespace.into(),
            name: format!("{workload}-5d8f-{replica}").into(),
            uid: "".into(),
            identity,
            workload: WorkloadRef::new("Deployment", namespace, workload),
            owners: [
                WorkloadRef::new("ReplicaSet", namespace, &format!("{workload}-5d8f")),
                WorkloadRef::new("Deployment", namespace, workload),
            ]
            .into(),
            selector: [("app", workload)].into_iter().collect(),
            node: Some("node-a".into()),
            host_network: false,
            addresses: [address].into(),
            from_template: false,
        };
        let party = Party::pod(Arc::new(pod), Some(address));
        self.parties.insert(key, party.clone());
        party
    }

    /// Records connections that were accepted, as the initiator's interface saw them.
    pub(crate) fn edge(&mut self, from: &str, to: &str, port: u16, connections: u64) -> &mut Edge {
        let (initiator, responder) = (self.party(from), self.party(to));
        let cause = match (initiator.namespace(), responder.namespace()) {
            (Some(a), Some(b)) if a == b => Cause::SameNamespace,
            (Some(_), Some(_)) => Cause::CrossNamespace,
            _ => Cause::External,
        };
        self.recording.edges.push(Edge {
            initiator,
            responder,
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
        });
        self.recording.edges.last_mut().unwrap()
    }

    /// A pod, or an address outside.
    fn party(&mut self, name: &str) -> Party {
        match name.parse() {
            Ok(address) => Party::external(address),
            Err(_) => self.pod(name),
        }
    }

    pub(crate) fn preview(&mut self, base: &str, candidate: &str) -> Preview {
        self.preview_with(base, candidate, &Settings::default())
    }

    pub(crate) fn preview_with(&mut self, base: &str, candidate: &str, settings: &Settings) -> Preview {
        preview(&mut self.recording, &objects(base), &objects(candidate), settings)
    }
}

/// The objects of a manifest that has nothing wrong in it.
pub(crate) fn objects(yaml: &str) -> Vec<Object> {
    let source = Source::Text { name: "test.yaml".into(), bytes: yaml.as_bytes().to_vec() };
    let loaded = load_all([source], None);
    let errors: Vec<_> = loaded.findings.iter().filter(|found| found.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{errors:?}");
    loaded.objects
}

/// A policy for the pods `app=<app>` of a namespace, all where it is empty.
fn mk_policy(namespace: &str, name: &str, app: &str, rest: &str) -> String {
    let selector = if app.is_empty() { String::new() } else { format!("matchLabels: {{app: {app}}}") };
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{podSelector: {{{selector}}}, {rest}}}\n"
    )
}

fn deny_all(namespace: &str) -> String {
    mk_policy(namespace, "default-deny", "", "policyTypes: [Ingress, Egress]")
}

/// `api` of `shop` may be reached by `app=<from>` on a port.
fn allow_api(from: &str, port: &str) -> String {
    let peer = format!("{{podSelector: {{matchLabels: {{app: {from}}}}}}}");
    mk_policy(
        "shop",
        "allow-api",
        "api",
        &format!("ingress: [{{from: [{peer}], ports: [{{port: {port}}}]}}]"),
    )
}

/// A Deployment with other labels, or another http port.
fn mk_deployment(namespace: &str, name: &str, labels: &str, port: u16) -> String {
    format!(
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{selector: {{matchLabels: {{{labels}}}}}, template: {{metadata: {{labels: {{{labels}}}}}, \
         spec: {{containers: [{{name: c, image: c, ports: [{{name: http, containerPort: {port}}}]}}]}}}}}}\n"
    )
}

/// The shop: web asks api, other asks api, web asks outside.
fn shop() -> World {
    let mut world = World::new();
    world.edge("shop/web", "shop/api", 8080, 12);
    world.edge("shop/other", "shop/api", 8080, 3);
    world.edge("shop/web", "198.51.100.7", 443, 5);
    world
}

/// `initiator → responder port` of a list of groups.
fn short(groups: &[Group]) -> Vec<String> {
    let line = |finding: &Finding| {
        let end = |end: &End| end.name.clone().unwrap_or_else(|| end.to_string());
        format!("{} → {} {}", end(&finding.initiator), end(&finding.responder), finding.port)
    };
    groups.iter().flat_map(Group::findings).map(|(_, _, finding)| line(finding)).collect()
}

fn changes(preview: &Preview) -> (Vec<String>, Vec<String>) {
    (short(&preview.newly_denied), short(&preview.newly_allowed))
}

fn actions(preview: &Preview) -> Vec<String> {
    preview.edits.iter().map(ToString::to_string).collect()
}

#[test]
fn a_candidate_is_laid_over_the_base_as_the_api_server_would() {
    let base = || allow_api("web", "8080") + &deny_all("data");
    let other_namespace = allow_api("other", "8080").replace("namespace: shop", "namespace: data");
    let api = "NetworkPolicy/shop/allow-api";
    for (name, candidate, delete, denied, allowed, edit) in [
        ("the same object", allow_api("web", "8080"), false, vec![], vec![], format!("keeps {api}")),
        (
            "its namesake is replaced",
            allow_api("other", "8080"),
            false,
            vec!["web → api 8080"],
            vec!["other → api 8080"],
            format!("replaces {api}"),
        ),
        (
            "its namesake, on another port",
            allow_api("web", "9090"),
            false,
            vec!["web → api 8080"],
            vec![],
            format!("replaces {api}"),
        ),
        (
            "deleted, whatever its spec says",
            allow_api("none", "1"),
            true,
            vec![],
            vec!["other → api 8080"],
            format!("deletes {api}"),
        ),
        (
            "of the same name in another namespace",
            other_namespace.clone(),
            false,
            vec![],
            vec![],
            "adds NetworkPolicy/data/allow-api".to_owned(),
        ),
        (
            "deleting what is not there",
            other_namespace,
            true,
            vec![],
            vec![],
            "cannot delete (not in the base) NetworkPolicy/data/allow-api".to_owned(),
        ),
        (
            "added",
            mk_policy("shop", "more", "api", "ingress: [{}]"),
            false,
            vec![],
            vec!["other → api 8080"],
            "adds NetworkPolicy/shop/more".to_owned(),
        ),
        (
            "an added isolation of the other side",
            mk_policy("shop", "more", "web", "policyTypes: [Egress]"),
            false,
            vec!["web → api 8080", "web → outside (198.51.100.7) 443"],
            vec![],
            "adds NetworkPolicy/shop/more".to_owned(),
        ),
    ] {
        let settings = Settings { delete, ..Settings::default() };
        let preview = shop().preview_with(&base(), &candidate, &settings);
        let (mut found_denied, found_allowed) = changes(&preview);
        found_denied.sort();
        assert_eq!(found_denied, denied, "{name}");
        assert_eq!(found_allowed, allowed, "{name}");
        assert_eq!(actions(&preview), [edit], "{name}");
        let different = !denied.is_empty() || !allowed.is_empty();
        assert_eq!(preview.outcome(FailOn::Any) == Outcome::Different, different, "{name}");
    }
}

#[test]
fn what_is_removed_and_what_is_added_are_one_finding_each() {
    // The demo's question: web→api goes, api→qdrant comes.
    let mut world = World::new();
    world.edge("shop/web", "shop/api", 8080, 12);
    world.edge("shop/api", "data/qdrant", 6333, 4);
    world.edge("shop/api", "data/qdrant", 6333, 4).direction = Direction::Ingress;
    let base = deny_all("shop")
        + &allow_api("web", "8080")
        + &mk_policy("shop", "web-out", "web", "policyTypes: [Egress], egress: [{}]");
    let candidate = allow_api("none", "8080")
        + &mk_policy("shop", "api-out", "api", "policyTypes: [Egress], egress: [{ports: [{port: 6333}]}]");
    let preview = world.preview(&base, &candidate);
    assert_eq!(changes(&preview), (vec!["web → api 8080".to_owned()], vec!["api → qdrant 6333".to_owned()]));
    let [finding] = [&preview.newly_allowed[0].owners[0].findings[0]];
    assert_eq!((finding.connections, finding.sides.len()), (4, 1), "seen at both pods, counted once");
    assert_eq!(finding.sides[0].after.policy.as_deref(), Some("NetworkPolicy/shop/api-out"));
    let [finding] = [&preview.newly_denied[0].owners[0].findings[0]];
    assert_eq!(preview.newly_denied[0].owners[0].owner, "shop/Deployment/api", "its ingress changes");
    assert_eq!(finding.sides[0].before.policy.as_deref(), Some("NetworkPolicy/shop/allow-api"));
    assert_eq!(
        finding.sides[0].denial.as_ref().unwrap().fix.summary,
        "allow ingress from namespace shop, app=web to app=api, port 8080/TCP"
    );
}

#[test]
fn both_denials_of_one_connection_are_one_finding_with_a_fix_for_each_side() {
    let mut world = World::new();
    world.edge("shop/web", "data/db", 5432, 7);
    world.edge("shop/web", "data/db", 5432, 6).direction = Direction::Ingress;
    let preview = world.preview("", &(deny_all("shop") + &deny_all("data")));
    assert_eq!(short(&preview.newly_denied), ["web → db 5432"]);
    let finding = &preview.newly_denied[0].owners[0].findings[0];
    let owners: Vec<_> =
        finding.sides.iter().map(|side| side.denial.as_ref().unwrap().owner.as_deref().unwrap()).collect();
    assert_eq!((owners, finding.connections), (vec!["shop", "data"], 7));
    assert_eq!((preview.counts.edges, preview.counts.newly_denied.findings), (2, 1));
}

#[test]
fn only_what_could_be_accepted_counts() {
    let candidate = deny_all("shop");
    for (name, protocol, counters, fully_visible, connections) in [
        ("accepted", Protocol::Tcp, (3, 2, 1), true, Some(2)),
        ("refused", Protocol::Tcp, (3, 0, 3), true, None),
        ("unanswered", Protocol::Tcp, (3, 0, 0), true, None),
        ("unanswered, half visible", Protocol::Tcp, (3, 0, 0), false, Some(3)),
        ("UDP without an answer", Protocol::Udp, (3, 0, 0), true, Some(3)),
    ] {
        let mut world = World::new();
        let edge = world.edge("shop/web", "shop/api", 8080, 0);
        let (attempts, accepted, refused) = counters;
        edge.counters = Counters { attempts, accepted, refused, ..Counters::default() };
        (edge.protocol, edge.fully_visible) = (protocol, fully_visible);
        let preview = world.preview("", &candidate);
        let found = preview.findings().map(|(_, _, finding)| finding.connections).next();
        assert_eq!(found, connections, "{name}");
        // Where policies are enforced, what they deny is never accepted: allowing it must show all the same.
        let preview =
            world.preview(&candidate, &mk_policy("shop", "default-deny", "", "ingress: [{}], egress: [{}]"));
        let found: Vec<_> = preview.findings().map(|(_, _, f)| (f.connections, f.attempts)).collect();
        assert_eq!(found, [(connections.unwrap_or_default(), attempts)], "{name}");
        assert_eq!(short(&preview.newly_allowed).len(), 1, "{name}");
    }
}

#[test]
fn relabelled_workloads_pods_and_namespaces_are_judged_by_what_they_would_be() {
    let from_team = "ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}}]}]";
    let by_team = mk_policy("shop", "by-team", "api", from_team);
    let namespace = |labels: &str| {
        format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: front, labels: {{{labels}}}}}\n")
    };
    let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: web-5d8f-0, namespace: shop, labels: {app: shiny}}\n\
               spec: {containers: [{name: c, image: c}]}\n";
    let bare = |name: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: web}}}}\n\
               spec: {{containers: [{{name: c, image: c, ports: [{{name: http, containerPort: 8080}}]}}]}}\n"
        )
    };
    for (name, base, candidate, denied, allowed) in [
        (
            "a workload's new labels, as the initiator",
            allow_api("web", "8080"),
            mk_deployment("shop", "web", "app: frontend", 8080),
            vec!["web → api 8080"],
            vec![],
        ),
        (
            "a workload's new labels, as the responder",
            allow_api("web", "8080"),
            mk_deployment("shop", "api", "app: backend", 8080),
            vec![],
            vec!["front-web → api 8080", "other → api 8080"],
        ),
        (
            "the same labels",
            allow_api("web", "8080"),
            mk_deployment("shop", "web", "app: web", 8080),
            vec![],
            vec![],
        ),
        (
            "a workload of the same name in another namespace",
            allow_api("web", "8080"),
            mk_deployment("front", "web", "app: frontend", 8080),
            vec![],
            vec![],
        ),
        (
            "a named port that moves",
            allow_api("web", "http"),
            mk_deployment("shop", "api", "app: api", 9090),
            vec!["web → api 8080"],
            vec![],
        ),
        ("one pod", allow_api("web", "8080"), pod.to_owned(), vec!["web → api 8080"], vec![]),
        ("a pod that stays what it is", allow_api("web", "8080"), bare("web-5d8f-0"), vec![], vec![]),
        (
            "a namespace that gets the label",
            by_team.clone(),
            namespace("team: a"),
            vec![],
            vec!["front-web → api 8080"],
        ),
        ("a namespace that has another one", by_team, namespace("team: b"), vec![], vec![]),
    ] {
        let mut world = shop();
        world.edge("front/front-web", "shop/api", 8080, 1);
        let preview = world.preview(&base, &candidate);
        let (denied_found, mut allowed_found) = changes(&preview);
        allowed_found.sort();
        assert_eq!(
            (denied_found, allowed_found),
            (
                denied.into_iter().map(ToOwned::to_owned).collect::<Vec<_>>(),
                allowed.into_iter().map(ToOwned::to_owned).collect::<Vec<_>>(),
            ),
            "{name}"
        );
    }
}

#[test]
fn a_fix_selects_relabelled_pods_by_their_new_labels() {
    let mut world = shop();
    let candidate = mk_deployment("shop", "web", "app: frontend", 8080);
    let preview = world.preview(&allow_api("web", "8080"), &candidate);
    assert_eq!(actions(&preview), ["relabels the pods of Deployment/shop/web"]);
    let fix = &preview.newly_denied[0].owners[0].findings[0].sides[0].denial.as_ref().unwrap().fix;
    assert_eq!(fix.summary, "allow ingress from namespace shop, app=frontend to app=api, port 8080/TCP");
}

#[test]
fn labels_that_neither_template_gives_stay_and_those_the_old_one_gave_go() {
    let with = |label: &str| {
        mk_policy(
            "shop",
            "allow-api",
            "api",
            &format!("ingress: [{{from: [{{podSelector: {{matchLabels: {{{label}}}}}}}]}}]"),
        )
    };
    let old = mk_deployment("shop", "web", "app: web", 8080);
    let new = mk_deployment("shop", "web", "tier: front", 8080);
    for (name, base, label, allowed) in [
        ("the new label", old.clone(), "tier: front", true),
        ("the old template's label", old.clone(), "app: web", false),
        ("a label that a controller gave", old, "pod-template-hash: 5d8f", true),
        ("without the old template, a label of unknown origin", String::new(), "app: web", false),
        ("without it, a controller's label", String::new(), "pod-template-hash: 5d8f", true),
    ] {
        let mut world = World::new();
        world.edge("shop/web", "shop/api", 8080, 1);
        let preview = world.preview(&base, &(with(label) + &new));
        assert_eq!(preview.newly_denied.is_empty(), allowed, "{name}");
    }
}

#[test]
fn pods_behind_a_service_are_relabelled_too() {
    let mut world = World::new();
    let backend = Backend { party: world.pod("shop/api"), port: 8080 };
    let target = ServiceTarget { namespace: "shop".into(), name: "api".into(), backends: vec![backend] };
    let service = Party {
        address: Some(IpAddr::from([203, 0, 113, 1])),
        endpoint: Endpoint::Service(Arc::new(target)),
    };
    let edge = world.edge("shop/web", "shop/api", 80, 2);
    edge.responder = service;
    let preview = world.preview(
        &deny_all("none"),
        &(mk_deployment("shop", "api", "app: new", 8080) + &mk_policy("shop", "new", "new", "ingress: []")),
    );
    assert_eq!(short(&preview.newly_denied), ["web → api 80"]);
    assert_eq!(preview.never_seen, ["shop/Deployment/api"], "who answered behind the Service is not known");
}

#[test]
fn default_deny_is_for_the_namespaces_named_and_says_what_it_assumes() {
    let deny = |scope| Settings { default_deny: Some(scope), ..Settings::default() };
    let names = |names: &[&str]| DenyScope::Namespaces(names.iter().map(|name| (*name).to_owned()).collect());
    let mut world = shop();
    world.edge("data/db", "data/db2", 5432, 1);
    world.edge("kube-system/a", "kube-system/b", 80, 1);
    let dns = world.edge("shop/web", "kube-system/coredns", 53, 9);
    dns.protocol = Protocol::Udp;
    for (name, settings, denied) in [
        ("one", deny(names(&["data"])), vec!["db → db2 5432"]),
        (
            "all but kube-system, and DNS",
            deny(DenyScope::All),
            vec!["db → db2 5432", "other → api 8080", "web → api 8080", "web → outside (198.51.100.7) 443"],
        ),
        ("one that nobody knows", deny(names(&["nowhere"])), vec![]),
        ("kube-system if it is named", deny(names(&["kube-system"])), vec!["a → b 80"]),
        (
            "nothing assumed",
            Settings { assume: Vec::new(), ..deny(names(&["shop"])) },
            vec![
                "other → api 8080",
                "web → api 8080",
                "web → coredns 53",
                "web → outside (198.51.100.7) 443",
            ],
        ),
    ] {
        let preview = world.preview_with("", "", &settings);
        let mut found = short(&preview.newly_denied);
        found.sort();
        assert_eq!(found, denied, "{name}");
        assert!(
            preview.assumed.iter().any(|text| text.starts_with("default-deny for egress and ingress in")),
            "{name}"
        );
    }
    let preview = world.preview_with("", "", &deny(names(&["nowhere"])));
    assert_eq!(preview.warnings, ["namespace nowhere has nothing recorded and no manifest"]);
}

#[test]
fn what_cannot_be_judged_is_unknown_with_what_it_was_before() {
    let mut world = shop();
    let edge = world.edge("shop/web", "shop/api", 9999, 4);
    edge.responder = Party::unknown(Some(IpAddr::from([192, 0, 2, 99])), UnknownReason::AddressUnjoined);
    edge.cause = Cause::Unknown;
    let ask = mk_policy(
        "shop",
        "web",
        "web",
        "policyTypes: [Egress], egress: [{to: [{podSelector: {}}, {ipBlock: {cidr: 198.51.100.0/24}}]}]",
    );
    let preview = world.preview("", &ask);
    let [(_, _, finding)] = preview.findings().collect::<Vec<_>>()[..] else { panic!("{preview:?}") };
    assert_eq!((finding.before, finding.after), (Verdict::Allow, Verdict::Unknown));
    assert_eq!(preview.counts.unknown_changed.connections, 4);
    assert!(
        preview.confidence.ends_with("4 connections cannot be judged with the candidate"),
        "{}",
        preview.confidence
    );
    for (fail_on, outcome) in [
        (FailOn::Any, Outcome::Different),
        (FailOn::Unknown, Outcome::Different),
        (FailOn::NewlyDenied, Outcome::CannotTell),
        (FailOn::NewlyAllowed, Outcome::CannotTell),
        (FailOn::None, Outcome::Same),
    ] {
        assert_eq!(preview.outcome(fail_on), outcome, "{fail_on:?}");
    }
    // Already unknown, and the candidate leaves that open.
    let preview = world.preview(&ask, &(ask.clone() + &deny_all("elsewhere")));
    assert_eq!(preview.outcome(FailOn::Any), Outcome::CannotTell);
    assert_eq!(world.preview(&ask, &ask).outcome(FailOn::Any), Outcome::Same, "nothing changes at all");
}

#[test]
fn nothing_recorded_and_edges_lost_cannot_be_told() {
    let candidate = deny_all("elsewhere");
    let preview = World::new().preview("", &candidate);
    assert_eq!(preview.outcome(FailOn::Any), Outcome::CannotTell);
    assert_eq!(preview.confidence, "nothing was recorded, so this says nothing about the candidate");
    let lost = |packets, edges| {
        let mut world = shop();
        let (stage, reason) = ("edge-map".to_owned(), "full".to_owned());
        world.recording.header.losses.push(LossRecord { stage, reason, packets, edges });
        world.preview("", &candidate).outcome(FailOn::Any)
    };
    assert_eq!([lost(0, 0), lost(5, 0), lost(5, 1)], [Outcome::Same, Outcome::Same, Outcome::CannotTell]);
}

#[test]
fn gaps_of_several_nodes_count_once() {
    let mut world = shop();
    let gap = |from, to| Gap { from: mk_time(from), to: mk_time(to), reason: "restart".to_owned() };
    world.recording.header.gaps = vec![gap(100, 160), gap(130, 190), gap(0, 30)];
    let preview = world.preview("", "");
    assert_eq!(preview.window.unwatched(), Duration::from_secs(120));
    assert!(
        preview.confidence.contains("; for 2m of them not everything was watched"),
        "{}",
        preview.confidence
    );
}

#[test]
fn workloads_of_the_manifests_without_a_connection_are_named() {
    let base =
        mk_deployment("shop", "web", "app: web", 80) + &mk_deployment("shop", "nightly", "app: nightly", 80);
    let preview = shop().preview(&base, &mk_deployment("shop", "fresh", "app: fresh", 80));
    assert_eq!(preview.never_seen, ["shop/Deployment/fresh", "shop/Deployment/nightly"]);
    assert!(preview.confidence.ends_with("2 workloads were never seen"), "{}", preview.confidence);
}

#[test]
fn an_empty_base_has_no_policies_whatever_the_manifests_hold() {
    let settings = Settings { base: Base::Empty, ..Settings::default() };
    let preview = shop().preview_with(&deny_all("shop"), &allow_api("web", "8080"), &settings);
    assert_eq!(changes(&preview), (vec!["other → api 8080".to_owned()], vec![]));
    assert_eq!(preview.base, "empty, no policies");
}

#[test]
fn the_deciding_policy_of_each_side_is_there_before_and_after() {
    let preview = shop().preview(&allow_api("web", "8080"), &allow_api("other", "8080"));
    let side = |groups: &[Group]| groups[0].owners[0].findings[0].sides[0].clone();
    let denied = side(&preview.newly_denied);
    assert_eq!(
        (denied.before.policy.as_deref(), denied.before.rule),
        (Some("NetworkPolicy/shop/allow-api"), Some(0))
    );
    assert_eq!(denied.after.isolated_by, ["NetworkPolicy/shop/allow-api"]);
    let nearest = denied.denial.unwrap().nearest.unwrap();
    assert!(nearest.contains("would match but for the peer's labels: they are not app=other"), "{nearest}");
    assert!(side(&preview.newly_allowed).denial.is_none());
}

/// Some of these policies make a base or a candidate; the number picks a variant of each.
fn any_policies() -> impl Strategy<Value = String> {
    proptest::collection::vec(0..6_u8, 5).prop_map(|picks| {
        let apps = ["web", "api", "other", ""];
        let policies = picks.iter().enumerate().map(|(at, pick)| {
            let peer = format!("{{podSelector: {{matchLabels: {{app: {}}}}}}}", ["web", "api", "other"][at % 3]);
            let name = format!("p{at}");
            match pick {
                0 | 1 => String::new(),
                2 => mk_policy("shop", &name, apps[at % 4], "policyTypes: [Ingress, Egress]"),
                3 => mk_policy("shop", &name, apps[at % 4], &format!("ingress: [{{from: [{peer}]}}]")),
                4 => mk_policy("shop", &name, apps[at % 4],
                    &format!("policyTypes: [Egress], egress: [{{to: [{peer}], ports: [{{port: 8080}}]}}]")),
                _ => mk_policy("shop", &name, apps[at % 4],
                    "egress: [{to: [{ipBlock: {cidr: 198.51.100.0/25}}]}], ingress: [{ports: [{port: http}]}]"),
            }
        });
        policies.collect()
    })
}

fn any_world() -> impl Strategy<Value = Vec<(usize, usize, u16, u64, bool, bool)>> {
    let edge = (0..5_usize, 0..6_usize, 0..2_u16, 1..20_u64, any::<bool>(), any::<bool>());
    proptest::collection::vec(edge, 0..20)
}

fn world_of(edges: &[(usize, usize, u16, u64, bool, bool)]) -> World {
    let ends = ["shop/web", "shop/api", "shop/other", "data/web", "198.51.100.7", "198.51.100.200"];
    let mut world = World::new();
    for (from, to, port, count, ingress, unknown) in edges {
        if from == to || (*from > 3 && *to > 3) {
            continue;
        }
        let edge = world.edge(ends[*from], ends[*to], 8080 + port, *count);
        if *ingress {
            edge.direction = Direction::Ingress;
        }
        if *unknown && *to > 4 {
            edge.responder = Party::unknown(edge.responder.address, UnknownReason::AddressUnjoined);
        }
    }
    world
}

/// What a finding says when before and after change places.
fn mirrored(finding: &Finding) -> (String, String, u16, Verdict, Verdict, u64) {
    let (from, to) = (finding.initiator.to_string(), finding.responder.to_string());
    (from, to, finding.port, finding.after, finding.before, finding.connections)
}

fn plain(finding: &Finding) -> (String, String, u16, Verdict, Verdict, u64) {
    let (from, to) = (finding.initiator.to_string(), finding.responder.to_string());
    (from, to, finding.port, finding.before, finding.after, finding.connections)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_unchanged_base_changes_nothing(edges in any_world(), base in any_policies()) {
        let preview = world_of(&edges).preview(&base, &base);
        prop_assert_eq!(changes(&preview), (vec![], vec![]));
        prop_assert_eq!(preview.counts.unknown_changed, Amount::default());
        prop_assert!(!preview.changes_something());
        prop_assert_eq!(preview.outcome(FailOn::Any), Outcome::Same);
    }

    #[test]
    fn from_a_to_b_mirrors_from_b_to_a(edges in any_world(), a in any_policies(), b in any_policies()) {
        // Applying never removes: what one side lacks is there as a policy that selects nobody.
        let all = |policies: &str| {
            let missing = (0..5).map(|at| format!("p{at}")).filter(|name| !policies.contains(&format!("name: {name},")));
            missing.fold(policies.to_owned(), |all, name| all + &mk_policy("shop", &name, "nobody", "ingress: [{}]"))
        };
        let both = |from: &str, to: &str| world_of(&edges).preview(&all(from), &all(to));
        let (there, back) = (both(&a, &b), both(&b, &a));
        let mut forth: Vec<_> = there.findings().map(|(_, _, finding)| plain(finding)).collect();
        let mut mirror: Vec<_> = back.findings().map(|(_, _, finding)| mirrored(finding)).collect();
        forth.sort();
        mirror.sort();
        prop_assert_eq!(forth, mirror);
        prop_assert_eq!(there.counts.newly_denied, back.counts.newly_allowed);
        prop_assert_eq!(there.counts.unchanged, back.counts.unchanged);
    }

    #[test]
    fn every_edge_is_in_one_class(edges in any_world(), a in any_policies(), b in any_policies()) {
        let mut world = world_of(&edges);
        let preview = world.preview(&a, &b);
        let classes = [preview.counts.newly_denied, preview.counts.newly_allowed, preview.counts.still_denied,
            preview.counts.unknown, preview.counts.unchanged];
        let sum: u64 = classes.iter().map(|amount| amount.connections).sum();
        // From a policy-free world to itself everything is allowed as before, or unknown: the same connections.
        let plain = world.preview("", "");
        prop_assert_eq!(sum, plain.counts.unchanged.connections + plain.counts.unknown.connections);
        let listed: u64 = preview.findings().map(|(_, _, finding)| finding.connections).sum();
        prop_assert_eq!(sum - preview.counts.unchanged.connections, listed);
    }
}
