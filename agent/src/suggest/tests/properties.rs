//! Random clusters and edges; the suggestions are judged by the judge that the live agent uses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use super::build::{Cluster, mk_edge, mk_external, mk_node, mk_service};
use crate::model::dialect::Dialect;
use crate::model::edge::{Counters, Direction, Edge, Protocol};
use crate::model::endpoint::{Connection, Endpoint, Party, Pod};
use crate::model::labels::Labels;
use crate::model::role::Roles;
use crate::model::scenario::Scenario;
use crate::model::selector::Selector;
use crate::model::verdict::{UnknownReason, Verdict};
use crate::policy::{Judge, Policy};
use crate::suggest::gather::is_accepted;
use crate::suggest::{Options, Purpose, Suggestions};

const PORTS: [u16; 4] = [53, 80, 443, 5432];

#[derive(Debug, Clone)]
struct Workload {
    namespace: &'static str,
    kind: &'static str,
    labels: Vec<&'static str>,
    /// What each pod has besides; empty for nothing.
    pods: Vec<&'static str>,
    host_network: bool,
}

#[derive(Debug, Clone)]
struct Seen {
    initiator: Index,
    responder: Index,
    by_service: bool,
    port: u16,
    protocol: Protocol,
    direction: Direction,
    accepted: u64,
    fully_visible: bool,
}

/// `varied`: pods of one workload may differ in labels that are not made up by a controller.
fn any_workload(varied: bool) -> impl Strategy<Value = Workload> {
    let more = if varied {
        vec!["", "pod-template-hash=1", "pod-template-hash=2", "rev=1", "rev=2", "app=a"]
    } else {
        vec!["pod-template-hash=1", "pod-template-hash=2"]
    };
    (
        select(vec!["shop", "data", "kube-system"]),
        select(vec!["Deployment", "CronJob", "Pod"]),
        subsequence(vec!["app=a", "app=b", "tier=x", "track=canary", "version=1"], 0..4),
        prop::collection::vec(select(more), 1..3),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(namespace, kind, labels, pods, host_network)| Workload {
            namespace,
            kind,
            labels,
            pods,
            host_network,
        })
}

fn any_seen() -> impl Strategy<Value = Seen> {
    let ends = (any::<Index>(), any::<Index>(), prop::bool::weighted(0.2));
    let what =
        (select(PORTS.to_vec()), select(vec![Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Icmp]));
    let how = (select(Direction::BOTH.to_vec()), 0u64..3, prop::bool::weighted(0.8));
    (ends, what, how).prop_map(|((initiator, responder, by_service), (port, protocol), how)| {
        let (direction, accepted, fully_visible) = how;
        Seen { initiator, responder, by_service, port, protocol, direction, accepted, fully_visible }
    })
}

struct World {
    cluster: Cluster,
    /// Every end that could open or accept a connection.
    parties: Vec<Party>,
    edges: Vec<Edge>,
}

fn build(workloads: &[Workload], seen: &[Seen]) -> World {
    let mut cluster = Cluster::default();
    let dns = "kube-system/Deployment/coredns";
    let mut parties: Vec<Party> = (0..2)
        .map(|_| cluster.pod_with(dns, "k8s-app=dns", "k8s-app=dns", Roles::CLUSTER_DNS, false))
        .collect();
    for (at, workload) in workloads.iter().enumerate() {
        let own = workload.labels.join(",");
        for more in &workload.pods {
            let id = format!("{}/{}/w{at}", workload.namespace, workload.kind);
            // A later label of the same key wins: pods may differ from what selects them.
            let labels = format!("{own},{more}");
            parties.push(cluster.pod_with(&id, &labels, &own, Roles::NONE, workload.host_network));
        }
    }
    parties.extend([mk_node(0), mk_node(1)]);
    let outside = ["203.0.113.4", "203.0.113.5", "203.0.113.6", "203.0.113.9", "2001:db8::7"];
    parties.extend(outside.map(mk_external));
    parties.push(Party::unknown("203.0.113.77".parse().ok(), UnknownReason::AddressUnjoined));
    let edges = seen.iter().map(|seen| edge(seen, &parties)).collect();
    World { cluster, parties, edges }
}

fn edge(seen: &Seen, parties: &[Party]) -> Edge {
    let mut responder = seen.responder.get(parties).clone();
    if let Some(pod) = responder.as_pod().filter(|_| seen.by_service) {
        let behind =
            parties.iter().filter(|p| p.as_pod().is_some_and(|other| other.workload == pod.workload));
        // The ports behind a Service are others than its own, but for DNS.
        let port = if seen.port == 53 { 53 } else { seen.port + 1 };
        let backends: Vec<_> = behind.map(|party| (party, port)).collect();
        responder = mk_service("svc", &backends);
    }
    let port = if seen.protocol == Protocol::Icmp { 8 << 8 } else { seen.port };
    Edge {
        direction: seen.direction,
        counters: Counters { attempts: 2, accepted: seen.accepted, ..Counters::default() },
        fully_visible: seen.fully_visible,
        ..mk_edge(seen.initiator.get(parties), &responder, port, seen.protocol)
    }
}

fn any_world(varied: bool) -> impl Strategy<Value = World> {
    let workloads = prop::collection::vec(any_workload(varied), 1..7);
    (workloads, prop::collection::vec(any_seen(), 0..16))
        .prop_map(|(workloads, seen)| build(&workloads, &seen))
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for pod in &self.cluster.pods {
            writeln!(f, "{}/{} [{}] on {:?}", pod.workload, pod.name, pod.identity.labels, pod.node)?;
        }
        for edge in &self.edges {
            let name =
                |party: &Party| party.object().map_or(format!("{:?}", party.address), |o| o.to_string());
            let (port, protocol, accepted) = (edge.port, edge.protocol, edge.counters.accepted);
            writeln!(
                f,
                "{} -> {} {port}/{protocol} accepted {accepted}",
                name(&edge.initiator),
                name(&edge.responder)
            )?;
        }
        Ok(())
    }
}

fn policies(suggestions: &Suggestions) -> Vec<NetworkPolicy> {
    suggestions.policies.iter().map(|suggestion| suggestion.policy.clone()).collect()
}

fn judge(policies: &[NetworkPolicy]) -> Judge {
    let policies: Vec<_> = policies.iter().map(|p| Arc::new(Policy::from_network_policy(p))).collect();
    Judge::new(&policies, Dialect::STANDARD, &Scenario::Enforced)
}

fn accepted<'a>(world: &'a World, options: &Options) -> Vec<&'a Edge> {
    world.edges.iter().filter(|edge| is_accepted(edge, options)).collect()
}

fn is_certain(edge: &Edge) -> bool {
    let known = |party: &Party| !matches!(party.endpoint, Endpoint::Unknown(_));
    edge.protocol.has_ports() && known(&edge.initiator) && known(&edge.responder)
}

fn options() -> Vec<Options> {
    let all = Options { exempt_namespaces: BTreeSet::new(), ..Options::default() };
    vec![
        Options::default(),
        all.clone(),
        Options { dns: crate::suggest::Dns::PerWorkload, ..all.clone() },
        Options { default_deny: false, ..all.clone() },
        Options { unconfirmed: false, ..all.clone() },
        Options { cut_off_unknown: true, ..all.clone() },
        // 203.0.113.4 then stands for .4 to .7.
        Options { folded: Some((30, 64)), ..all.clone() },
        Options { namespaces: Some(BTreeSet::from(["shop".into()])), ..all },
    ]
}

type Parts<'a> = (&'a mut Vec<NetworkPolicyPeer>, &'a mut Vec<NetworkPolicyPort>);

/// Every rule of a policy, in the order of its evidence.
fn rules(policy: &mut NetworkPolicy) -> Vec<Parts<'_>> {
    let spec = policy.spec.as_mut().unwrap();
    let ingress = spec.ingress.iter_mut().flatten();
    let ingress = ingress.map(|rule| (rule.from.as_mut().unwrap(), rule.ports.as_mut().unwrap()));
    let egress = spec.egress.iter_mut().flatten();
    let egress = egress.map(|rule| (rule.to.as_mut().unwrap(), rule.ports.as_mut().unwrap()));
    ingress.chain(egress).collect()
}

/// The suggestions, each without one peer or one port of one rule, with what was taken away.
fn lessened(suggestions: &Suggestions) -> Vec<(String, Vec<NetworkPolicy>)> {
    let full = policies(suggestions);
    let mut all = Vec::new();
    for at in 0..full.len() {
        let counts: Vec<_> = rules(&mut full[at].clone()).iter().map(|(p, q)| (p.len(), q.len())).collect();
        for (rule, (peers, ports)) in counts.into_iter().enumerate() {
            let name = full[at].metadata.name.clone().unwrap();
            for peer in 0..peers {
                let mut less = full.clone();
                // An empty list of peers would match every peer: a block that no one has matches nobody.
                rules(&mut less[at])[rule].0[peer] = nobody();
                all.push((format!("{name} rule {rule} peer {peer}"), less));
            }
            for port in 0..ports {
                let mut less = full.clone();
                let taken = rules(&mut less[at])[rule].1[port].clone();
                // Of DNS, TCP is allowed though only UDP was seen, and the other way round.
                if taken.port == Some(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(53)) {
                    continue;
                }
                rules(&mut less[at])[rule].1[port].port =
                    Some(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(65535));
                all.push((format!("{name} rule {rule} port {taken:?}"), less));
            }
        }
    }
    all
}

fn nobody() -> NetworkPolicyPeer {
    let cidr = "192.0.2.255/32".to_owned();
    NetworkPolicyPeer {
        ip_block: Some(k8s_openapi::api::networking::v1::IPBlock { cidr, except: None }),
        ..NetworkPolicyPeer::default()
    }
}

/// The labels without the hash that a controller adds: in clusters that are not varied, two workloads differ
/// for a policy exactly if these differ.
fn lasting(pod: &Pod) -> Labels {
    pod.identity.labels.iter().filter(|(key, _)| *key != "pod-template-hash").collect()
}

/// What a policy can tell of a connection between pods: both workloads' labels and the port.
type Told = ((Arc<str>, Labels), (Arc<str>, Labels), u16, Protocol);

fn told(initiator: &Pod, responder: &Pod, port: u16, protocol: Protocol) -> Told {
    let of = |pod: &Pod| (Arc::clone(&pod.namespace), lasting(pod));
    (of(initiator), of(responder), port, protocol)
}

/// What was seen between pods, after DNAT.
fn evidence(edges: &[&Edge]) -> BTreeSet<Told> {
    let mut seen = BTreeSet::new();
    for edge in edges {
        let Some(initiator) = edge.initiator.as_pod() else { continue };
        match &edge.responder.endpoint {
            Endpoint::Pod(responder) => {
                seen.insert(told(initiator, responder, edge.port, edge.protocol));
            }
            Endpoint::Service(service) => {
                for backend in &service.backends {
                    let pod = backend.party.as_pod().unwrap();
                    seen.insert(told(initiator, pod, backend.port, edge.protocol));
                }
            }
            _ => {}
        }
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn no_accepted_edge_is_denied_and_every_one_that_can_be_named_is_allowed(world in any_world(true)) {
        for options in options() {
            let suggestions = world.cluster.suggest_with(&world.edges, &options);
            let mut judge = judge(&policies(&suggestions));
            for edge in accepted(&world, &options) {
                let judgement = judge.judge(&edge.connection());
                if !options.cut_off_unknown {
                    prop_assert_ne!(judgement.verdict(), Verdict::Deny, "{:?}\n{:?}", edge, judgement);
                }
                if is_certain(edge) {
                    prop_assert_eq!(judgement.verdict(), Verdict::Allow, "{:?}\n{:?}", edge, judgement);
                }
            }
        }
    }

    #[test]
    fn without_any_peer_or_port_of_any_rule_an_accepted_edge_is_no_longer_allowed(world in any_world(true)) {
        for options in options() {
            let suggestions = world.cluster.suggest_with(&world.edges, &options);
            let edges: Vec<_> = accepted(&world, &options).into_iter().filter(|edge| is_certain(edge)).collect();
            for (what, less) in lessened(&suggestions) {
                let mut judge = judge(&less);
                let broken = edges.iter().any(|edge| judge.judge(&edge.connection()).verdict() != Verdict::Allow);
                prop_assert!(broken, "{} is not needed:\n{}", what, suggestions.to_yaml(&[]));
            }
        }
    }

    #[test]
    fn nothing_between_pods_is_allowed_that_was_not_seen_at_their_workloads(world in any_world(false)) {
        for options in options() {
            let suggestions = world.cluster.suggest_with(&world.edges, &options);
            let seen = evidence(&accepted(&world, &options));
            let denied: BTreeMap<&str, &Vec<String>> = suggestions.policies.iter()
                .filter(|s| s.purpose == Purpose::DefaultDeny)
                .map(|s| (s.policy.metadata.namespace.as_deref().unwrap(), s.policy.spec.as_ref().unwrap().policy_types.as_ref().unwrap()))
                .collect();
            let is_closed = |pod: &Pod, direction: Direction| {
                denied.get(&*pod.namespace).is_some_and(|types| types.iter().any(|t| t == direction.as_str()))
            };
            let mut judge = judge(&policies(&suggestions));
            let pods: Vec<_> = world.parties.iter().filter_map(|p| Some((p, p.as_pod().filter(|p| !p.host_network)?))).collect();
            for ((initiator, from), (responder, to)) in pods.iter().flat_map(|a| pods.iter().map(move |b| (a, b))) {
                for (port, protocol) in PORTS.iter().flat_map(|p| [*p, p + 1]).flat_map(|p| [(p, Protocol::Tcp), (p, Protocol::Udp)]) {
                    let is_dns = to.identity.roles.has(Roles::CLUSTER_DNS) && port == 53;
                    if from.name == to.name || is_dns || seen.contains(&told(from, to, port, protocol)) {
                        continue;
                    }
                    let judgement = judge.judge(&Connection { initiator, responder, port, protocol });
                    for (direction, subject) in [(Direction::Egress, from), (Direction::Ingress, to)] {
                        if is_closed(subject, direction) {
                            prop_assert_eq!(judgement.of(direction).verdict, Verdict::Deny, "{} -> {} {}/{}\n{}", from.name, to.name, port, protocol, suggestions.to_yaml(&[]));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_outside_is_allowed_that_was_not_seen(world in any_world(true)) {
        let options = Options { exempt_namespaces: BTreeSet::new(), ..Options::default() };
        let suggestions = world.cluster.suggest_with(&world.edges, &options);
        let mut judge = judge(&policies(&suggestions));
        let closed: BTreeSet<(&str, &str)> = suggestions.policies.iter()
            .filter(|s| s.purpose == Purpose::DefaultDeny)
            .flat_map(|s| s.policy.spec.as_ref().unwrap().policy_types.iter().flatten().map(|t| (s.policy.metadata.namespace.as_deref().unwrap(), t.as_str())))
            .collect();
        let seen: BTreeSet<_> = accepted(&world, &options).iter()
            .flat_map(|edge| [edge.initiator.address, edge.responder.address]).flatten().collect();
        for host in 0..=15 {
            let outside = mk_external(&format!("203.0.113.{host}"));
            if seen.contains(&outside.address.unwrap()) {
                continue;
            }
            for party in &world.parties {
                let Some(pod) = party.as_pod().filter(|pod| !pod.host_network) else { continue };
                for port in PORTS {
                    let out = judge.judge(&Connection { initiator: party, responder: &outside, port, protocol: Protocol::Tcp });
                    if closed.contains(&(&*pod.namespace, "Egress")) {
                        prop_assert_eq!(out.egress.verdict, Verdict::Deny);
                    }
                    let into = judge.judge(&Connection { initiator: &outside, responder: party, port, protocol: Protocol::Tcp });
                    if closed.contains(&(&*pod.namespace, "Ingress")) {
                        prop_assert_eq!(into.ingress.verdict, Verdict::Deny);
                    }
                }
            }
        }
    }

    #[test]
    fn the_order_of_edges_and_pods_changes_no_byte(world in any_world(true), seed in any::<u64>()) {
        let first = world.cluster.suggest(&world.edges).to_yaml(&[]);
        let World { mut cluster, mut edges, .. } = world;
        // A shuffle by sorting on a hash of the place.
        let mut at = 0_u64;
        let mut key = |_: &_| { at += 1; at.wrapping_mul(seed | 1).rotate_left(29) };
        edges.sort_by_cached_key(&mut key);
        let mut at = 0_u64;
        cluster.pods.sort_by_cached_key(|_| { at += 1; at.wrapping_mul(seed | 1).rotate_left(17) });
        prop_assert_eq!(first, cluster.suggest(&edges).to_yaml(&[]));
    }

    #[test]
    fn policies_are_valid_have_names_of_their_own_and_select_exactly_their_workload(world in any_world(true)) {
        for options in options() {
            let suggestions = world.cluster.suggest_with(&world.edges, &options);
            let mut names = BTreeSet::new();
            for suggestion in &suggestions.policies {
                let policy = Policy::from_network_policy(&suggestion.policy);
                prop_assert!(policy.faults().is_empty(), "{:?}", policy.faults());
                let mut policy = suggestion.policy.clone();
                let peers: Vec<_> = rules(&mut policy).iter().map(|(peers, _)| peers.len()).collect();
                let proved: Vec<_> = suggestion.rules.iter().map(|rule| rule.peers.len()).collect();
                prop_assert_eq!(peers, proved);
                let evidence = suggestion.rules.iter().flat_map(|rule| &rule.peers);
                prop_assert!(evidence.into_iter().all(|who| who.iter().any(|one| one.connections > 0)));
                let metadata = &suggestion.policy.metadata;
                prop_assert!(names.insert((metadata.namespace.clone(), metadata.name.clone())));
                let Purpose::Workload(workloads) = &suggestion.purpose else { continue };
                let spec = suggestion.policy.spec.as_ref().unwrap();
                prop_assert!(spec.ingress.is_some() || spec.egress.is_some());
                let selector = Selector::try_from(spec.pod_selector.as_ref().unwrap()).unwrap();
                prop_assert!(!selector.is_everything());
                let namespace = metadata.namespace.as_deref().unwrap();
                for pod in world.cluster.pods.iter().filter(|pod| &*pod.namespace == namespace && !pod.host_network) {
                    let selected = selector.matches(&pod.identity.labels);
                    prop_assert_eq!(selected, workloads.contains(&pod.workload), "{}", pod.name);
                }
            }
            let yaml = suggestions.to_yaml(&[]);
            let read: Vec<NetworkPolicy> = serde_saphyr::from_multiple(&yaml).unwrap();
            prop_assert_eq!(read, policies(&suggestions));
        }
    }
}
