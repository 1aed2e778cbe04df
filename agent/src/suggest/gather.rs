//! Edges → what each workload needs in each direction.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::evidence::{Tallies, Tally};
use super::group::{Group, GroupId, Groups};
use super::not_judged::is_allowed_own_node;
use super::options::{Dns, Options};
use super::warning::{WarningKind, Warnings};
use crate::model::cause::Cause;
use crate::model::edge::{Direction, Edge, Protocol};
use crate::model::endpoint::{Endpoint, Party, Pod, is_link_local_protocol};
use crate::model::outcome::Outcome;
use crate::model::role::Roles;

/// The port of DNS (RFC 1035).
const DNS_PORT: u16 = 53;

/// A peer as a NetworkPolicy can name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    /// All pods of a namespace: only for those who ask the cluster's DNS.
    Namespace(Arc<str>),
    /// The pods of a group that has a selector.
    Workload(GroupId),
    Node(IpNet),
    External(IpNet),
}

impl Peer {
    /// The block, if that is how it is named.
    pub(super) const fn block(&self) -> Option<IpNet> {
        match self {
            Self::Node(block) | Self::External(block) => Some(*block),
            Self::Namespace(_) | Self::Workload(_) => None,
        }
    }
}

/// A port as a rule names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    pub(super) port: u16,
    pub(super) protocol: Protocol,
}

/// What is needed with one peer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Need {
    pub(super) ports: BTreeSet<Port>,
    pub(super) who: Tallies,
}

/// What is needed with every peer.
pub(super) type Needs = BTreeMap<Peer, Need>;

/// Adds needs to needs.
pub(super) fn merge(into: &mut Needs, needs: Needs) {
    for (peer, need) in needs {
        let known = into.entry(peer).or_default();
        known.ports.extend(need.ports);
        known.who.merge(need.who);
    }
}

/// A workload's need that no rule can allow; without a rule it is denied once the direction is isolated.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Unnamed {
    pub(super) subject: GroupId,
    pub(super) direction: Direction,
}

/// All that the edges ask for, in scope.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) needs: BTreeMap<(GroupId, Direction), Needs>,
    /// Egress to the cluster's DNS, kept apart where it is to be allowed by namespace.
    pub(super) dns: BTreeMap<GroupId, Needs>,
    pub(super) unnamed: BTreeSet<Unnamed>,
    /// Namespaces in scope of which a pod had an accepted edge.
    pub(super) observed: BTreeSet<Arc<str>>,
    pub(super) accepted_edges: usize,
    pub(super) warnings: Warnings,
}

/// How an end can be named in a rule.
enum Named {
    As(Peer, String),
    /// Nothing judges it: no rule is needed.
    NoNeed,
    /// No rule; the warning says why. What becomes of it is open, or for the user to care about.
    Doubtful(WarningKind, String),
    /// No rule, and denied once the direction is isolated; the warning says why.
    Never(WarningKind, String),
}

/// One end seen from the other, after DNAT.
#[derive(Clone, Copy)]
struct View<'a> {
    subject: &'a Party,
    peer: &'a Party,
    /// After DNAT.
    port: u16,
    direction: Direction,
    is_dns: bool,
    edge: &'a Edge,
}

impl View<'_> {
    /// The peer's address, IPv4 as such also where it was mapped into IPv6.
    fn peer_address(&self) -> Option<IpAddr> {
        self.peer.address_towards(self.subject).map(|address| address.to_canonical())
    }
}

impl Gathered {
    pub(super) fn new(edges: &[Edge], groups: &Groups, options: &Options) -> Self {
        let mut gathered = Self::default();
        for edge in edges.iter().filter(|edge| is_accepted(edge, options)) {
            gathered.accepted_edges += 1;
            gathered.edge(edge, groups, options);
        }
        gathered
    }

    fn edge(&mut self, edge: &Edge, groups: &Groups, options: &Options) {
        let mut counted = BTreeSet::new();
        for view in views(edge) {
            let Some(pod) = view.subject.as_pod() else { continue };
            if !options.in_scope(&pod.namespace) {
                continue;
            }
            let Some((id, group)) = groups.of(pod).and_then(|id| Some((id, groups.get(id)?))) else {
                self.warnings.add(WarningKind::HostNetwork, &pod.workload, None, None);
                continue;
            };
            self.observed.insert(Arc::clone(&pod.namespace));
            if options.directions.contains(&view.direction) {
                self.view(&view, pod, (id, group), (groups, options), &mut counted);
            }
        }
    }

    fn view(
        &mut self,
        view: &View<'_>,
        pod: &Pod,
        (id, group): (GroupId, &Group),
        (groups, options): (&Groups, &Options),
        counted: &mut BTreeSet<(GroupId, Direction, Peer, String)>,
    ) {
        let by_namespace = view.is_dns && options.dns == Dns::PerNamespace;
        let (peer, who) = match name(view, pod, groups, options, by_namespace) {
            Named::As(peer, who) => (peer, who),
            Named::NoNeed => return,
            Named::Doubtful(kind, item) => {
                return self.warnings.add(kind, group.names(), Some(view.direction), Some(item));
            }
            Named::Never(kind, item) => {
                self.unnamed.insert(Unnamed { subject: id, direction: view.direction });
                return self.warnings.add(kind, group.names(), Some(view.direction), Some(item));
            }
        };
        self.warn_of(view, group, &peer, &who);
        let needs = if by_namespace && view.direction == Direction::Egress {
            self.dns.entry(id).or_default()
        } else {
            self.needs.entry((id, view.direction)).or_default()
        };
        let need = needs.entry(peer.clone()).or_default();
        let port = |protocol| Port { port: view.port, protocol };
        if view.is_dns {
            // A truncated answer over UDP is asked for again over TCP (RFC 7766, section 5).
            need.ports.extend([port(Protocol::Udp), port(Protocol::Tcp)]);
        } else {
            need.ports.insert(port(view.edge.protocol));
        }
        // Several pods behind one Service are one connection.
        if counted.insert((id, view.direction, peer, who.clone())) {
            need.who.add(&who, Tally::of(view.edge, view.direction));
        }
    }

    fn warn_of(&mut self, view: &View<'_>, group: &Group, peer: &Peer, who: &str) {
        let item = format!("{who} on {}/{}", view.port, view.edge.protocol);
        let mut add = |kind, item| self.warnings.add(kind, group.names(), Some(view.direction), Some(item));
        if is_unconfirmed(view.edge) {
            add(WarningKind::Unconfirmed, item.clone());
        }
        match peer {
            Peer::Node(_) => add(WarningKind::NodeByAddress, item),
            Peer::External(_) => add(WarningKind::ExternalByAddress, item),
            Peer::Namespace(_) | Peer::Workload(_) => {}
        }
    }
}

/// Whether an edge is something that policies must allow.
pub fn is_accepted(edge: &Edge, options: &Options) -> bool {
    match edge.protocol {
        Protocol::Tcp | Protocol::Sctp => {
            edge.counters.accepted > 0 || (options.unconfirmed && is_unconfirmed(edge))
        }
        // No handshake says that it was accepted: anything but a refusal counts, as it does in the metrics.
        Protocol::Udp | Protocol::Icmp | Protocol::Icmpv6 => {
            Outcome::of(edge.protocol, &edge.counters, edge.fully_visible).connections > 0
        }
    }
}

/// Whether an edge may have been accepted, although nobody could see it.
const fn is_unconfirmed(edge: &Edge) -> bool {
    let counters = &edge.counters;
    matches!(edge.protocol, Protocol::Tcp | Protocol::Sctp)
        && counters.accepted == 0
        && counters.refused == 0
        && counters.attempts > 0
        && !edge.fully_visible
}

/// Both directions of an edge, for each backend where the responder is a Service.
fn views(edge: &Edge) -> Vec<View<'_>> {
    let responders: Vec<(&Party, u16)> = match &edge.responder.endpoint {
        Endpoint::Service(service) if !service.backends.is_empty() => {
            service.backends.iter().map(|backend| (&backend.party, backend.port)).collect()
        }
        _ => vec![(&edge.responder, edge.port)],
    };
    let judged = responders.into_iter().filter(|(responder, port)| {
        !is_link_local_protocol([&edge.initiator, responder], *port, edge.protocol)
            && !edge.initiator.is_same_pod(responder)
    });
    let both = judged.flat_map(|(responder, port)| {
        let is_dns = is_dns(edge, responder, port);
        Direction::BOTH.map(|direction| {
            let (subject, peer) = match direction {
                Direction::Egress => (&edge.initiator, responder),
                Direction::Ingress => (responder, &edge.initiator),
            };
            View { subject, peer, port, direction, is_dns, edge }
        })
    });
    both.collect()
}

/// Whether it asks the cluster's DNS pods. By role, because their port behind the Service may be another.
fn is_dns(edge: &Edge, responder: &Party, port: u16) -> bool {
    let pods = responder.as_pod().filter(|pod| !pod.host_network);
    pods.is_some_and(|pod| pod.identity.roles.has(Roles::CLUSTER_DNS))
        && matches!(edge.protocol, Protocol::Udp | Protocol::Tcp)
        && (edge.port == DNS_PORT || port == DNS_PORT)
}

/// How the view's peer can be named in a rule of the subject.
fn name(view: &View<'_>, subject: &Pod, groups: &Groups, options: &Options, by_namespace: bool) -> Named {
    let edge = view.edge;
    let on_port = |who: String| format!("{who} on {}/{}", view.port, edge.protocol);
    if is_allowed_own_node(subject, view.peer, view.direction, &options.dialect) {
        return Named::NoNeed;
    }
    if !edge.protocol.has_ports() {
        if options.dialect.icmp_needs_rule == Some(false) {
            return Named::NoNeed;
        }
        let kind = format!("type {} code {}", edge.port >> 8, edge.port & 0xff);
        return Named::Doubtful(WarningKind::Icmp, format!("{} {} {kind}", in_words(view), edge.protocol));
    }
    match &view.peer.endpoint {
        Endpoint::Pod(pod) if pod.host_network => {
            let node = pod.node.as_deref().unwrap_or("of unknown name");
            name_node(view, &format!("{} (host network of node {node})", pod.workload), options)
        }
        Endpoint::Node(node) => name_node(view, &format!("node {node}"), options),
        Endpoint::Pod(pod) if by_namespace && view.direction == Direction::Ingress => {
            Named::As(Peer::Namespace(Arc::clone(&pod.namespace)), pod.workload.to_string())
        }
        Endpoint::Pod(pod) => {
            let who = pod.workload.to_string();
            match groups.of(pod).and_then(|id| Some((id, groups.get(id)?.selector.as_ref()?))) {
                Some((id, _)) => Named::As(Peer::Workload(id), who),
                None => Named::Never(
                    WarningKind::UnnamedPeer,
                    format!("{}: its pods have no label in common", on_port(who)),
                ),
            }
        }
        Endpoint::External | Endpoint::Range(_) => match view.peer_address() {
            Some(address) => {
                let block = view.peer.as_range().unwrap_or_else(|| options.external_block(address));
                let shown = if block.prefix_len() == block.max_prefix_len() {
                    address.to_string()
                } else {
                    block.to_string()
                };
                let known = matches!(edge.cause, Cause::ApiServer | Cause::CloudMetadata);
                let who = if known { format!("{shown} ({})", edge.cause) } else { shown };
                Named::As(Peer::External(block), who)
            }
            None => unknown_end(options, on_port("an outside end without address".to_owned())),
        },
        Endpoint::Service(service) => {
            let who = format!("Service {}/{}", service.namespace, service.name);
            match view.direction {
                Direction::Egress => Named::Doubtful(WarningKind::NoBackends, on_port(who)),
                // A Service opens no connection: its address as an initiator is that of source NAT.
                Direction::Ingress => unknown_end(options, on_port(who)),
            }
        }
        Endpoint::Unknown(why) => unknown_end(options, format!("{}: {why}", on_port(in_words(view)))),
    }
}

/// An end that nobody knows: whatever is isolated denies it, for no rule says otherwise.
fn unknown_end(options: &Options, item: String) -> Named {
    let kind = WarningKind::UnknownEnd;
    if options.cut_off_unknown { Named::Doubtful(kind, item) } else { Named::Never(kind, item) }
}

fn name_node(view: &View<'_>, who: &str, options: &Options) -> Named {
    let on_port = format!("{who} on {}/{}", view.port, view.edge.protocol);
    match view.peer_address() {
        None => unknown_end(options, format!("{on_port}: its address is not known")),
        Some(_) if options.dialect.ip_block_matches_pods == Some(false) => Named::Never(
            WarningKind::UnnamedPeer,
            format!("{on_port}: ipBlock does not match nodes in dialect {}", options.dialect),
        ),
        Some(address) => Named::As(Peer::Node(IpNet::from(address)), format!("{who} at {address}")),
    }
}

/// The peer where it may have no name.
fn in_words(view: &View<'_>) -> String {
    let object = view.peer.as_pod().map(|pod| pod.workload.to_string());
    let object = object.or_else(|| view.peer.object().map(|object| object.to_string()));
    object.unwrap_or_else(|| match view.peer.address {
        Some(address) => address.to_string(),
        None => "an end without address".to_owned(),
    })
}
