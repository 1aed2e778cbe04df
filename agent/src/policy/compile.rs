//! From policies to layers of tiers: conditions interned, blocks numbered, policies indexed by namespace. Once a set.

mod order;
mod peers;

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::model::dialect::Dialect;
use crate::model::edge::Direction;
use crate::model::facts::ClusterFacts;
use crate::model::identity::Identity;
use crate::model::scenario::{DefaultDeny, Scenario};

use self::order::Placed;
use self::peers::Sets;
use super::condition::Condition;
use super::fault::{Content, Field};
use super::given::Given;
use super::mesh;
use super::prefix::Prefixes;
use super::spec::{Action, Part, Policy, Reach, Rule, Scope, Section, SetFamily};
use super::tier::{CompiledPeer, CompiledPolicy, CompiledRule, CompiledSection, ConditionId, Tier};

/// The policies of one scenario, compiled.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// By group, each in its order.
    pub(crate) tiers: Vec<Tier>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) prefixes: Prefixes,
    pub(crate) facts: Arc<ClusterFacts>,
    /// Whether any rule tells nodes apart.
    pub(crate) sees_nodes: bool,
    /// Whether any block may mean addresses of the cluster's pods and nodes.
    pub(crate) blocks_see_cluster: bool,
    /// Whether any rule asks for the subject's own address.
    pub(crate) sees_own_address: bool,
}

impl Compiled {
    /// Compiles the policies that exist. What a scenario adds to them depends on the namespace, and is made
    /// when a namespace is first asked for.
    pub(crate) fn new(
        policies: &[Arc<Policy>],
        facts: &Arc<ClusterFacts>,
        dialect: &Dialect,
        scenario: &Scenario,
    ) -> Self {
        let sets = Sets::new(policies, facts);
        let mut compiler = Compiler {
            prefixes: Prefixes::new(sets.nets(policies)),
            conditions: Vec::new(),
            known: FxHashMap::default(),
            known_sets: FxHashMap::default(),
            sets: &sets,
            dialect,
            sees_nodes: false,
            blocks_see_cluster: false,
            sees_own_address: false,
        };
        let default_deny = match scenario {
            Scenario::Enforced | Scenario::ChangeSet(_) => None,
            Scenario::DefaultDeny(settings) => Some(settings),
        };
        let tiers = order::tiers(policies, dialect, default_deny, |placed| compiler.policy(placed));
        let Compiler { prefixes, conditions, sees_nodes, blocks_see_cluster, sees_own_address, .. } =
            compiler;
        let facts = Arc::clone(facts);
        Self { tiers, conditions, prefixes, facts, sees_nodes, blocks_see_cluster, sees_own_address }
    }

    /// Whether any pod could be judged by a policy in this direction.
    pub(crate) fn has_policies(&self, direction: Direction) -> bool {
        self.tiers.iter().any(|tier| tier.policies.any_applies(direction))
    }

    pub(crate) fn condition(&self, id: ConditionId) -> Option<&Condition> {
        self.conditions.get(id.0 as usize)
    }
}

struct Compiler<'a> {
    prefixes: Prefixes,
    conditions: Vec<Condition>,
    known: FxHashMap<Condition, ConditionId>,
    /// What sets by labels come to, where that is certain: many rules ask for the same.
    known_sets: FxHashMap<(SetFamily, Reach, Condition), CompiledPeer>,
    sets: &'a Sets<'a>,
    dialect: &'a Dialect,
    sees_nodes: bool,
    blocks_see_cluster: bool,
    sees_own_address: bool,
}

/// The policy's own namespace; none for cluster-wide ones.
type Own<'a> = Option<&'a Content<Arc<str>>>;

impl Compiler<'_> {
    fn policy(&mut self, placed: &Placed<'_>) -> CompiledPolicy {
        let Part { scope, subject, .. } = placed.part;
        let own = match scope {
            Scope::Namespace(namespace) => Some(namespace),
            Scope::Cluster => None,
        };
        let mut policy = CompiledPolicy {
            reference: Arc::clone(&placed.policy.reference),
            subject: self.condition(&mesh::in_dialect(subject, self.dialect), own),
            rank: placed.rank,
            egress: self.section(&placed.part.egress, own),
            ingress: self.section(&placed.part.ingress, own),
        };
        if let Some(field) = &placed.lost {
            lose(&mut policy.egress, field);
            lose(&mut policy.ingress, field);
        }
        policy
    }

    fn section(&mut self, section: &Section, own: Own<'_>) -> CompiledSection {
        let rules: Vec<CompiledRule> =
            section.rules.iter().enumerate().map(|(at, rule)| self.rule(at, rule, own)).collect();
        let denies = rules.iter().any(|rule| rule.action == Action::Deny);
        CompiledSection {
            applies: section.applies.clone(),
            isolates: section.isolates.clone(),
            denies,
            rules,
        }
    }

    fn rule(&mut self, at: usize, rule: &Rule, own: Own<'_>) -> CompiledRule {
        let Rule { action, peers, ports, not_ports, given, l7, index, name } = rule;
        self.sees_own_address |= mesh::sees_own_address(given);
        CompiledRule {
            action: *action,
            peers: self.peers(peers, own),
            ports: ports.clone(),
            not_ports: not_ports.clone(),
            given: given.clone(),
            l7: l7.clone(),
            index: index.unwrap_or_else(|| super::evaluate::index(at)),
            name: name.clone(),
            assumed: None,
        }
    }

    /// The number of a condition; none where it always holds.
    fn condition(&mut self, condition: &Condition, own: Own<'_>) -> Option<ConditionId> {
        if condition.is_everything() {
            return None;
        }
        let condition = condition.in_namespace(own);
        if condition.is_everything() {
            return None;
        }
        if let Some(known) = self.known.get(&condition) {
            return Some(*known);
        }
        let id = ConditionId(super::evaluate::index(self.conditions.len()));
        self.conditions.push(condition.clone());
        self.known.insert(condition, id);
        Some(id)
    }
}

/// Nobody knows where the policy's rules stand, so any of them may count or not, and the end of its tier deny.
fn lose(section: &mut CompiledSection, field: &Field) {
    for rule in &mut section.rules {
        rule.given = Given::All(vec![rule.given.clone(), Given::Unknown(Field::clone(field))]);
    }
    section.rules.push(CompiledRule {
        action: Action::Deny,
        peers: super::tier::CompiledPeers::Unknown(Field::clone(field)),
        ports: super::spec::Ports::Any,
        not_ports: Vec::new(),
        given: Given::nothing(),
        l7: None,
        index: super::evaluate::index(section.rules.len()),
        name: None,
        assumed: None,
    });
}

/// The policies of a tier, by the namespace whose pods they may select.
#[derive(Debug, Default)]
pub(crate) struct PolicyIndex {
    /// In the order in which they are asked.
    all: Vec<Arc<CompiledPolicy>>,
    by_namespace: FxHashMap<Arc<str>, Vec<usize>>,
    /// Those that are not bound to a namespace.
    cluster: Vec<usize>,
    /// Those that could be in any namespace, and the field that would say in which.
    anywhere: Vec<(usize, Field)>,
    /// What the scenario adds, and before which policy.
    pub(crate) added: Option<(DefaultDeny, usize)>,
}

/// A policy of a tier that may select a pod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub(crate) at: usize,
    pub(crate) policy: &'a Arc<CompiledPolicy>,
    /// There where it is not certain that it is in the pod's namespace.
    pub(crate) anywhere: Option<&'a Field>,
}

impl PolicyIndex {
    pub(crate) fn add(&mut self, scope: &Scope, policy: Arc<CompiledPolicy>) {
        let at = self.all.len();
        match scope {
            Scope::Cluster => self.cluster.push(at),
            Scope::Namespace(Ok(namespace)) => {
                self.by_namespace.entry(Arc::clone(namespace)).or_default().push(at);
            }
            Scope::Namespace(Err(field)) => self.anywhere.push((at, Field::clone(field))),
        }
        self.all.push(policy);
    }

    fn any_applies(&self, direction: Direction) -> bool {
        let denied =
            self.added.as_ref().is_some_and(|(settings, _)| settings.directions.contains(&direction));
        denied || self.all.iter().any(|policy| policy.section(direction).applies != Ok(false))
    }

    /// The policies that may select pods of this identity's namespace, in their order.
    pub(crate) fn of_namespace(&self, subject: &Identity) -> Vec<Candidate<'_>> {
        let own = self.by_namespace.get(&subject.namespace).into_iter().flatten().map(|at| (*at, None));
        let cluster = self.cluster.iter().map(|at| (*at, None));
        let anywhere = self.anywhere.iter().map(|(at, field)| (*at, Some(field)));
        let mut found: Vec<(usize, Option<&Field>)> = own.chain(cluster).chain(anywhere).collect();
        found.sort_by_key(|(at, _)| *at);
        let candidate = |(at, anywhere)| Some(Candidate { at, policy: self.all.get(at)?, anywhere });
        found.into_iter().filter_map(candidate).collect()
    }
}
