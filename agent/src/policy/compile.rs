//! From policies to tiers: selectors interned, blocks numbered, policies indexed by namespace. Once a set.

use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use crate::model::edge::Direction;
use crate::model::identity::Identity;
use crate::model::scenario::Scenario;
use crate::model::selector::Selector;
use crate::model::verdict::Layer;

use super::fault::{Content, Field};
use super::prefix::Prefixes;
use super::spec::{IpBlock, Namespaces, Peer, Peers, Policy, Rule, Section};
use super::tier::{
    Atom, AtomId, CompiledBlock, CompiledPeer, CompiledPeers, CompiledPolicy, CompiledRule, CompiledSection,
    Tier, TierKind,
};

/// The policies of one scenario, compiled.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) tiers: Vec<Tier>,
    pub(crate) atoms: Vec<Atom>,
    pub(crate) prefixes: Prefixes,
}

impl Compiled {
    /// Compiles the policies that exist. What a scenario adds to them depends on the namespace, and is made
    /// when a namespace is first asked for.
    pub(crate) fn new(policies: &[Arc<Policy>], scenario: &Scenario) -> Self {
        let mut compiler = Compiler { prefixes: Prefixes::new(nets(policies)), ..Compiler::default() };
        let mut sorted: Vec<&Arc<Policy>> = policies.iter().collect();
        sorted.sort_by(|a, b| {
            let key = |policy: &Policy| (Arc::clone(&policy.reference.name), Arc::clone(&policy.reference));
            key(a).cmp(&key(b))
        });
        let mut index = PolicyIndex::default();
        for policy in sorted {
            index.add(&policy.namespace, Arc::new(compiler.policy(policy)));
        }
        index.default_deny = match scenario {
            Scenario::Enforced => None,
            Scenario::DefaultDeny(settings) => Some(settings.clone()),
        };
        let tier = Tier { layer: Layer::NetworkPolicy, kind: TierKind::Union, policies: index };
        Self { tiers: vec![tier], atoms: compiler.atoms, prefixes: compiler.prefixes }
    }

    /// Whether any pod could be judged by a policy in this direction.
    pub(crate) fn has_policies(&self, direction: Direction) -> bool {
        self.tiers.iter().any(|tier| tier.policies.any_applies(direction))
    }
}

/// Every block and exception of the set.
fn nets(policies: &[Arc<Policy>]) -> impl Iterator<Item = IpNet> {
    let sections =
        policies.iter().flat_map(|policy| Direction::BOTH.map(|direction| policy.section(direction)));
    let peers = sections.flat_map(|section| &section.rules).flat_map(|rule| match &rule.peers {
        Peers::Of(peers) => peers.as_slice(),
        Peers::Any | Peers::Unknown(_) => &[],
    });
    peers.flat_map(|peer| match peer {
        Peer::Block(block) => block.cidr.iter().chain(&block.except).copied().collect(),
        Peer::Pods { .. } | Peer::Unknown(_) => Vec::new(),
    })
}

#[derive(Default)]
struct Compiler {
    prefixes: Prefixes,
    atoms: Vec<Atom>,
    known: FxHashMap<Atom, AtomId>,
}

impl Compiler {
    fn policy(&mut self, policy: &Policy) -> CompiledPolicy {
        CompiledPolicy {
            reference: Arc::clone(&policy.reference),
            subject: policy.subject.clone(),
            egress: self.section(&policy.egress, &policy.namespace),
            ingress: self.section(&policy.ingress, &policy.namespace),
        }
    }

    fn section(&mut self, section: &Section, own: &Content<Arc<str>>) -> CompiledSection {
        let rules = section.rules.iter().map(|rule| self.rule(rule, own)).collect();
        CompiledSection { applies: section.applies.clone(), rules }
    }

    fn rule(&mut self, rule: &Rule, own: &Content<Arc<str>>) -> CompiledRule {
        let peers = match &rule.peers {
            Peers::Any => CompiledPeers::Any,
            Peers::Unknown(field) => CompiledPeers::Unknown(Field::clone(field)),
            Peers::Of(peers) => CompiledPeers::Of(peers.iter().map(|peer| self.peer(peer, own)).collect()),
        };
        let (ports, also) = (rule.ports.clone(), rule.also.clone());
        CompiledRule { action: rule.action, peers, ports, also, assumed: None }
    }

    fn peer(&mut self, peer: &Peer, own: &Content<Arc<str>>) -> CompiledPeer {
        match peer {
            Peer::Unknown(field) => CompiledPeer::Unknown(Field::clone(field)),
            Peer::Block(block) => self.block(block),
            Peer::Pods { namespaces, pods } => {
                let namespaces = match namespaces {
                    Err(field) => Err(Field::clone(field)),
                    Ok(Namespaces::Own) => own.clone().map(|name| Some(self.atom(Atom::Namespace(name)))),
                    Ok(Namespaces::Labelled(selector)) => Ok(self.selector(selector, Atom::NamespaceLabels)),
                };
                let pods = pods.as_ref().map_err(Field::clone);
                let pods = pods.map(|selector| self.selector(selector, Atom::PodLabels));
                CompiledPeer::Pods { namespaces, pods }
            }
        }
    }

    fn block(&self, block: &IpBlock) -> CompiledPeer {
        // Every block of the set is in the table, so each has a number.
        let id = |net: &IpNet| self.prefixes.id(net);
        let cidr = match &block.cidr {
            Err(field) => Err(Field::clone(field)),
            Ok(net) => id(net).ok_or_else(|| Field::from("spec")),
        };
        let except = block.except.iter().filter_map(id).collect();
        CompiledPeer::Block(CompiledBlock { cidr, except, broken_except: block.broken_except.clone() })
    }

    fn selector(&mut self, selector: &Selector, atom: fn(Selector) -> Atom) -> Option<AtomId> {
        (!selector.is_everything()).then(|| self.atom(atom(selector.clone())))
    }

    fn atom(&mut self, atom: Atom) -> AtomId {
        if let Some(known) = self.known.get(&atom) {
            return *known;
        }
        let id = AtomId(u32::try_from(self.atoms.len()).unwrap_or(u32::MAX));
        self.atoms.push(atom.clone());
        self.known.insert(atom, id);
        id
    }
}

/// The policies of a tier, by the namespace whose pods they may select.
#[derive(Debug, Default)]
pub(crate) struct PolicyIndex {
    /// In the order of their names.
    all: Vec<Arc<CompiledPolicy>>,
    by_namespace: FxHashMap<Arc<str>, Vec<usize>>,
    /// Those that could be in any namespace, and the field that would say in which.
    anywhere: Vec<(usize, Field)>,
    pub(crate) default_deny: Option<crate::model::scenario::DefaultDeny>,
}

impl PolicyIndex {
    pub(crate) fn add(&mut self, namespace: &Content<Arc<str>>, policy: Arc<CompiledPolicy>) {
        let at = self.all.len();
        match namespace {
            Ok(namespace) => self.by_namespace.entry(Arc::clone(namespace)).or_default().push(at),
            Err(field) => self.anywhere.push((at, Field::clone(field))),
        }
        self.all.push(policy);
    }

    fn any_applies(&self, direction: Direction) -> bool {
        let denied =
            self.default_deny.as_ref().is_some_and(|settings| settings.directions.contains(&direction));
        denied || self.all.iter().any(|policy| policy.section(direction).applies != Ok(false))
    }

    /// The policies that may select pods of this identity's namespace, in the order of their names. The field
    /// is there where it is not certain that they are in that namespace.
    pub(crate) fn of_namespace(&self, subject: &Identity) -> Vec<(&Arc<CompiledPolicy>, Option<&Field>)> {
        let own = self.by_namespace.get(&subject.namespace).into_iter().flatten().map(|at| (*at, None));
        let anywhere = self.anywhere.iter().map(|(at, field)| (*at, Some(field)));
        let mut found: Vec<(usize, Option<&Field>)> = own.chain(anywhere).collect();
        found.sort_by_key(|(at, _)| *at);
        found.into_iter().filter_map(|(at, field)| Some((self.all.get(at)?, field))).collect()
    }
}
