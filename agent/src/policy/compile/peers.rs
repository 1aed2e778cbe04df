//! Peers, compiled: what they refer to looked up, their blocks numbered.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::edge::Direction;
use crate::model::facts::{ClusterFacts, ServiceFacts};
use crate::model::labels::Labels;
use crate::model::verdict::Fact;

use super::{Compiler, Own};
use crate::policy::condition::{Bearer, Condition};
use crate::policy::fault::Field;
use crate::policy::spec::{
    AddressSet, Contents, Force, IpBlock, NamePattern, NodeMatch, Peer, Peers, Policy, Reach, ServiceMatch,
    ServiceName, SetMatch, SetName,
};
use crate::policy::tier::{BlockSet, CompiledBlock, CompiledNodes, CompiledPeer, CompiledPeers};
use crate::policy::tri::Tri;

/// What peers may refer to.
pub(super) struct Sets<'a> {
    sets: Vec<&'a AddressSet>,
    facts: &'a ClusterFacts,
}

impl<'a> Sets<'a> {
    pub(super) fn new(policies: &'a [Arc<Policy>], facts: &'a ClusterFacts) -> Self {
        let in_force = policies.iter().filter(|policy| policy.force == Force::InForce);
        let set = |policy: &'a Arc<Policy>| match &policy.contents {
            Contents::Set(set) => Some(set),
            Contents::Parts(_) | Contents::Tier(_) | Contents::Staged(_) => None,
        };
        Self { sets: in_force.filter_map(set).collect(), facts }
    }

    /// Every block that a rule may mean, and every exception; and whether any rule asks for facts of the cluster.
    pub(super) fn nets(&self, policies: &[Arc<Policy>]) -> (Vec<IpNet>, bool) {
        let mut nets: Vec<IpNet> = self.sets.iter().flat_map(|set| set.nets.iter().copied()).collect();
        let parts = policies.iter().flat_map(|policy| policy.parts());
        let sections = parts.flat_map(|part| Direction::BOTH.map(|direction| part.section(direction)));
        let mut seen = Seen::default();
        for rule in sections.flat_map(|section| &section.rules) {
            if let Peers::Of(peers) = &rule.peers {
                peers.iter().for_each(|peer| seen.peer(peer, &mut nets));
            }
        }
        // Single addresses that are known otherwise, where anything asks for them.
        if seen.api_server {
            nets.extend(self.facts.api_server.iter().flatten().copied().map(IpNet::from));
        }
        if seen.services {
            let services = self.facts.services.iter().flatten().filter(|service| service.selector.is_none());
            nets.extend(services.flat_map(|service| service.addresses.iter().copied().map(IpNet::from)));
        }
        if let Some(table) = self.facts.names.as_ref().filter(|_| seen.names || self.any_names()) {
            nets.extend(table.names.keys().copied().map(IpNet::from));
        }
        (nets, seen.api_server || seen.services || seen.labels)
    }

    fn any_names(&self) -> bool {
        self.sets.iter().any(|set| !set.names.is_empty())
    }
}

/// What the peers of a set of policies ask for.
#[derive(Default)]
struct Seen {
    api_server: bool,
    services: bool,
    names: bool,
    /// Of nodes, or of the namespaces of address sets.
    labels: bool,
}

impl Seen {
    fn peer(&mut self, peer: &Peer, nets: &mut Vec<IpNet>) {
        match peer {
            Peer::All(peers) | Peer::Any(peers) => peers.iter().for_each(|peer| self.peer(peer, nets)),
            Peer::Not(peer) => self.peer(peer, nets),
            Peer::Block(block, _) => nets.extend(block.cidr.iter().chain(&block.except)),
            Peer::Sets(sets) => {
                nets.extend(&sets.except);
                self.labels |= matches!(&sets.which, SetName::Labelled { namespaces: Some(_), .. });
            }
            Peer::ApiServer(_) => self.api_server = true,
            Peer::Services(_) => self.services = true,
            Peer::Named(..) => self.names = true,
            Peer::Nodes(NodeMatch::Labelled(..)) => self.labels = true,
            Peer::Pods { .. } | Peer::Nodes(_) | Peer::Outside | Peer::Mesh(_) | Peer::Unknown(_) => {}
        }
    }
}

impl Compiler<'_> {
    pub(super) fn peers(&mut self, peers: &Peers, own: Own<'_>) -> CompiledPeers {
        match peers {
            Peers::Any => CompiledPeers::Any,
            Peers::Unknown(field) => CompiledPeers::Unknown(Field::clone(field)),
            Peers::Of(peers) => CompiledPeers::Of(peers.iter().map(|peer| self.peer(peer, own)).collect()),
        }
    }

    fn peer(&mut self, peer: &Peer, own: Own<'_>) -> CompiledPeer {
        match peer {
            Peer::All(peers) => CompiledPeer::All(peers.iter().map(|peer| self.peer(peer, own)).collect()),
            Peer::Any(peers) => CompiledPeer::Any(peers.iter().map(|peer| self.peer(peer, own)).collect()),
            Peer::Not(peer) => CompiledPeer::Not(Box::new(self.peer(peer, own))),
            Peer::Unknown(field) => CompiledPeer::Unknown(Field::clone(field)),
            Peer::Pods { namespaces, pods } => CompiledPeer::Pods {
                namespaces: self.condition(namespaces, own),
                pods: self.condition(pods, own),
            },
            Peer::Nodes(nodes) => {
                self.sees_nodes = true;
                CompiledPeer::Nodes(match nodes {
                    NodeMatch::Every => CompiledNodes::Every,
                    NodeMatch::Own => CompiledNodes::Own,
                    NodeMatch::Other => CompiledNodes::Other,
                    NodeMatch::Labelled(labels, field) => {
                        CompiledNodes::Labelled(labels.clone(), Field::clone(field))
                    }
                })
            }
            Peer::Outside => CompiledPeer::Outside,
            Peer::Mesh(wanted) => CompiledPeer::Mesh(wanted.clone()),
            Peer::Block(block, reach) => self.block(block, *reach),
            Peer::Sets(sets) => self.sets(sets, own),
            Peer::ApiServer(field) => self.api_server(field),
            Peer::Services(services) => self.services(services, own),
            Peer::Named(pattern, field) => self.named(pattern, field),
        }
    }

    fn block(&mut self, block: &IpBlock, reach: Reach) -> CompiledPeer {
        self.note_reach(reach);
        // Every block of the set is in the table, so each has a number.
        let id = |net: &IpNet| self.prefixes.id(net);
        let cidr = match &block.cidr {
            Err(field) => Err(Field::clone(field)),
            Ok(net) => id(net).ok_or_else(|| Field::from("spec")),
        };
        let except = block.except.iter().filter_map(id).collect();
        let broken_except = block.broken_except.clone();
        CompiledPeer::Block(CompiledBlock { cidr, except, broken_except }, reach)
    }

    fn note_reach(&mut self, reach: Reach) {
        let (pods, nodes) = (self.dialect.ip_block_matches_pods, self.dialect.ip_block_matches_nodes());
        self.blocks_see_cluster |= match reach {
            Reach::Dialect => pods != Some(false) || nodes != Some(false),
            Reach::Everyone => true,
            Reach::NotPods => nodes != Some(false),
        };
    }

    fn block_set(
        &mut self,
        (text, reach): (String, Reach),
        nets: Vec<IpNet>,
        except: Vec<IpNet>,
        broken: Option<Field>,
    ) -> CompiledPeer {
        self.note_reach(reach);
        let classes = self.prefixes.classes(&nets, &except);
        CompiledPeer::Blocks(Arc::new(BlockSet { text, nets, except, classes, broken }), reach)
    }

    fn sets(&mut self, wanted: &SetMatch, own: Own<'_>) -> CompiledPeer {
        let key = match &wanted.which {
            SetName::Labelled { sets, namespaces: None } if wanted.except.is_empty() => {
                (wanted.family, wanted.reach, sets.in_namespace(own))
            }
            _ => return self.find_sets(wanted, own).0,
        };
        if let Some(known) = self.known_sets.get(&key) {
            return known.clone();
        }
        let (peer, certain) = self.find_sets(wanted, own);
        if certain {
            self.known_sets.insert(key, peer.clone());
        }
        peer
    }

    /// The sets that are meant, and whether no field of the rule is named for it.
    fn find_sets(&mut self, wanted: &SetMatch, own: Own<'_>) -> (CompiledPeer, bool) {
        let mut broken = None;
        let (mut nets, mut names) = (Vec::new(), Vec::new());
        let mut found = false;
        for set in self.sets.sets.iter().filter(|set| set.family == wanted.family) {
            match self.means(set, wanted, own) {
                Tri::No => continue,
                Tri::Yes => {}
                Tri::Maybe(_) => {
                    broken = set.broken.clone().or_else(|| Some(Field::clone(&wanted.field)));
                    continue;
                }
            }
            found = true;
            broken = set.broken.clone().or(broken);
            nets.extend(&set.nets);
            names.extend(set.names.iter().cloned());
        }
        if let (SetName::Labelled { .. }, false, None) = (&wanted.which, found, &broken) {
            return (CompiledPeer::Any(Vec::new()), true);
        }
        let certain = broken.is_none() && names.is_empty();
        let text = match &wanted.which {
            SetName::Named(name) if !found => {
                // What it would hold is not known.
                broken = Some(Field::clone(&wanted.field));
                format!("the set {name}, which is missing")
            }
            SetName::Named(name) => format!("the set {name}"),
            SetName::Labelled { sets, .. } => format!("sets with {sets}"),
        };
        let blocks = self.block_set((text, wanted.reach), nets, wanted.except.clone(), broken);
        if names.is_empty() {
            return (blocks, certain);
        }
        let named = names.iter().map(|name| self.named(name, &wanted.field));
        (CompiledPeer::Any([blocks].into_iter().chain(named.collect::<Vec<_>>()).collect()), false)
    }

    /// Whether a set is one of those that are meant.
    fn means(&self, set: &AddressSet, wanted: &SetMatch, own: Own<'_>) -> Tri {
        if let (Some(field), "") = (&set.broken, &*set.name) {
            // Nothing of it could be read: it may be any.
            return Tri::field(field);
        }
        let (sets, namespaces) = match &wanted.which {
            SetName::Named(name) => return (*name == set.name).into(),
            SetName::Labelled { sets, namespaces } => (sets, namespaces),
        };
        // Nothing of it could be read, its labels neither.
        if let (true, Some(broken)) = (set.name.is_empty(), &set.broken) {
            return Tri::field(broken);
        }
        let no_labels = Labels::default();
        let nowhere: Arc<str> = "".into();
        let facts = self.sets.facts;
        let bearer = |namespace_labels| Bearer {
            namespace: set.namespace.as_ref().unwrap_or(&nowhere),
            namespace_labels,
            labels: &set.labels,
            service_account: &nowhere,
        };
        let in_namespace = match (namespaces, &set.namespace) {
            (None, _) => Tri::Yes,
            (Some(condition), None) => condition.is_everything().into(),
            (Some(condition), Some(namespace)) => {
                let condition = condition.in_namespace(own);
                let labels = facts.namespace_labels.as_ref().map(|known| known.get(namespace));
                match (labels, &condition) {
                    (_, Condition::Namespace(name)) => (name == namespace).into(),
                    (_, condition) if condition.is_everything() => Tri::Yes,
                    (Some(labels), condition) => condition.holds(bearer(labels.unwrap_or(&no_labels)), facts),
                    (None, _) => Tri::field(&wanted.field),
                }
            }
        };
        in_namespace.and(|| {
            let sets = sets.in_namespace(own);
            let labels = facts.namespace_labels.as_ref().zip(set.namespace.as_ref());
            match labels.map(|(known, namespace)| known.get(namespace)) {
                Some(labels) => sets.holds(bearer(labels.unwrap_or(&no_labels)), facts),
                None if set.namespace.is_some() && sets.asks_for_namespace_labels() => {
                    Tri::field(&wanted.field)
                }
                None => sets.holds(bearer(&no_labels), facts),
            }
        })
    }

    fn api_server(&mut self, field: &Field) -> CompiledPeer {
        match &self.sets.facts.api_server {
            Some(addresses) => {
                let nets = addresses.iter().copied().map(IpNet::from).collect();
                let text = "the API server".to_owned();
                self.block_set((text, Reach::Everyone), nets, Vec::new(), None)
            }
            // It listens on a node or outside.
            None => CompiledPeer::All(vec![
                CompiledPeer::Not(Box::new(CompiledPeer::Pods { namespaces: None, pods: None })),
                CompiledPeer::Unknown(Field::lacking(Arc::clone(field.path()), Fact::ApiServer)),
            ]),
        }
    }

    fn services(&mut self, wanted: &ServiceMatch, own: Own<'_>) -> CompiledPeer {
        let Some(services) = &self.sets.facts.services else {
            return CompiledPeer::Unknown(Field::lacking(Arc::clone(wanted.field.path()), Fact::Service));
        };
        let meant = |service: &&ServiceFacts| {
            let named = match &wanted.which {
                ServiceName::Named(name) => *name == service.name,
                ServiceName::Labelled(selector) => selector.matches(&service.labels),
            };
            named && wanted.namespace.as_ref().is_none_or(|namespace| *namespace == service.namespace)
        };
        let mut peers = Vec::new();
        for service in services.iter().filter(meant) {
            peers.push(match &service.selector {
                Some(selector) => {
                    let namespaces = Condition::Namespace(Arc::clone(&service.namespace));
                    let pods = Condition::PodLabels(selector.clone());
                    let namespaces = self.condition(&namespaces, own);
                    CompiledPeer::Pods { namespaces, pods: self.condition(&pods, own) }
                }
                None => {
                    let nets = service.addresses.iter().copied().map(IpNet::from).collect();
                    let text = format!("the addresses of Service {}/{}", service.namespace, service.name);
                    self.block_set((text, wanted.reach), nets, Vec::new(), None)
                }
            });
        }
        match (&wanted.which, &*peers) {
            (ServiceName::Named(_), []) => CompiledPeer::Unknown(Field::clone(&wanted.field)),
            _ => CompiledPeer::Any(peers),
        }
    }

    fn named(&self, pattern: &NamePattern, field: &Field) -> CompiledPeer {
        let table = self.sets.facts.names.as_ref();
        let called = |(address, names): (&IpAddr, &Vec<Arc<str>>)| {
            names.iter().any(|name| pattern.matches(name)).then(|| IpNet::from(*address))
        };
        let nets: Vec<IpNet> = table.into_iter().flat_map(|table| &table.names).filter_map(called).collect();
        let complete = table.is_some_and(|table| table.complete);
        let open = (!complete).then(|| Field::lacking(Arc::clone(field.path()), Fact::DomainName));
        let classes = self.prefixes.classes(&nets, &[]);
        let set = BlockSet { nets, classes, ..BlockSet::default() };
        CompiledPeer::Named(pattern.clone(), Arc::new(set), open)
    }
}
