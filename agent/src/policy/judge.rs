//! The judge: one scenario's policies, asked about connections between endpoints.

use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::FxHashMap;
use smallvec::{SmallVec, smallvec};

use crate::model::dialect::Dialect;
use crate::model::edge::{Direction, Protocol};
use crate::model::endpoint::{Connection, Endpoint, Party, Pod, is_link_local_protocol};
use crate::model::facts::{ClusterFacts, ConnectionFacts};
use crate::model::identity::Identity;
use crate::model::object::ObjectRef;
use crate::model::scenario::Scenario;
use crate::model::verdict::{Decision, Judgement, NotJudged, Reason, UnknownReason, Verdict};

use super::cache::{Cache, Key, KeyPeer, Membership, Selected, Selection, TierSelection};
use super::compile::{Candidate, Compiled};
use super::default_deny;
use super::evaluate::{Evaluation, PeerKind};
use super::fault::Field;
use super::prefix::AddressClass;
use super::spec::Policy;
use super::tier::Tier;
use super::tri::{Tri, Why};

/// Judges connections by the policies of one scenario. Decisions are cached by the identities of both ends:
/// all endpoints that one judge sees must come from one [`Interner`](crate::model::identity::Interner).
#[derive(Debug)]
pub struct Judge {
    pub(super) compiled: Compiled,
    pub(super) dialect: Dialect,
    pub(super) scenario: Scenario,
    pub(super) cache: Cache,
    not_judged: FxHashMap<(Direction, NotJudged), Arc<Decision>>,
    /// Whether any policy could judge egress, and ingress.
    has_policies: [bool; 2],
}

/// One subject and one peer: a Service stands for several of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) subject: &'a Party,
    pub(super) peer: &'a Party,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    pub(super) direction: Direction,
    pub(super) given: &'a ConnectionFacts,
}

/// How a node stands to the subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeRelation {
    NotANode,
    Own,
    Other,
    Unknown,
}

impl Judge {
    /// Compiles the policies for one scenario. Nothing is known of the cluster but its pods.
    pub fn new(policies: &[Arc<Policy>], dialect: Dialect, scenario: &Scenario) -> Self {
        Self::with_facts(policies, &Arc::default(), dialect, scenario)
    }

    /// The same, with what is known of the cluster besides.
    pub fn with_facts(
        policies: &[Arc<Policy>],
        facts: &Arc<ClusterFacts>,
        dialect: Dialect,
        scenario: &Scenario,
    ) -> Self {
        let compiled = Compiled::new(policies, facts, &dialect, scenario);
        let cache = Cache::new(compiled.conditions.len());
        let has_policies = Direction::BOTH.map(|direction| compiled.has_policies(direction));
        let scenario = scenario.clone();
        Self { compiled, dialect, scenario, cache, not_judged: FxHashMap::default(), has_policies }
    }

    /// The name of the scenario that is judged.
    pub const fn scenario_name(&self) -> &'static str {
        self.scenario.name()
    }

    /// Every address block that a policy of the scenario names.
    pub fn blocks(&self) -> &[IpNet] {
        self.compiled.prefixes.nets()
    }

    /// What the scenario would do with a connection, in both directions.
    pub fn judge(&mut self, connection: &Connection<'_>) -> Judgement {
        self.judge_given(connection, &ConnectionFacts::NONE)
    }

    /// The same, with what is known of the connection besides.
    pub fn judge_given(&mut self, connection: &Connection<'_>, given: &ConnectionFacts) -> Judgement {
        let [egress, ingress] = Direction::BOTH.map(|direction| {
            let decision = self.judge_direction(connection, given, direction);
            self.cache.shared.share(decision)
        });
        Judgement { egress, ingress }
    }

    fn judge_direction(
        &mut self,
        connection: &Connection<'_>,
        given: &ConnectionFacts,
        direction: Direction,
    ) -> Arc<Decision> {
        match &connection.responder.endpoint {
            Endpoint::Service(service) if service.backends.is_empty() => {
                self.without_backends(connection.initiator, direction)
            }
            Endpoint::Service(_) => {
                let cases = cases(connection, given, direction);
                let decisions = cases.into_iter().map(|case| self.judge_case(&case)).collect();
                one_of(decisions, direction)
            }
            _ => {
                self.judge_case(&case(connection, connection.responder, connection.port, (given, direction)))
            }
        }
    }

    /// A Service that leads nowhere: only what no backend could change is certain.
    fn without_backends(&mut self, initiator: &Party, direction: Direction) -> Arc<Decision> {
        if direction == Direction::Egress {
            match &initiator.endpoint {
                Endpoint::Pod(pod) if pod.host_network => {
                    return self.not_judged(direction, NotJudged::HostNetwork);
                }
                Endpoint::Pod(pod) => {
                    let selection = self.selection(&pod.identity, direction);
                    if selection.iter().all(|tier| tier.policies.is_empty()) {
                        return not_isolated(direction);
                    }
                }
                Endpoint::Node(_) | Endpoint::External | Endpoint::Range(_) | Endpoint::Service(_) => {
                    return self.not_judged(direction, NotJudged::NotAPod);
                }
                Endpoint::Unknown(_) => {}
            }
        }
        unknown(direction, UnknownReason::NoBackends)
    }

    pub(super) fn judge_case(&mut self, case: &Case<'_>) -> Arc<Decision> {
        if is_link_local_protocol([case.subject, case.peer], case.port, case.protocol) {
            return self.not_judged(case.direction, NotJudged::LinkLocalProtocol);
        }
        let pod = match &case.subject.endpoint {
            Endpoint::Pod(pod) if pod.host_network => {
                return self.not_judged(case.direction, NotJudged::HostNetwork);
            }
            Endpoint::Pod(pod) => pod,
            Endpoint::Unknown(reason) => {
                let judged = match reason {
                    // It may as well be judged in the other direction.
                    UnknownReason::Unoriented => self.has_policies.contains(&true),
                    _ => self.has_policies[case.direction as usize],
                };
                return if judged {
                    unknown(case.direction, reason.clone())
                } else {
                    not_isolated(case.direction)
                };
            }
            Endpoint::Node(_) | Endpoint::Service(_) | Endpoint::External | Endpoint::Range(_) => {
                return self.not_judged(case.direction, NotJudged::NotAPod);
            }
        };
        if let Endpoint::Unknown(reason @ UnknownReason::OverBudget(_)) = &case.peer.endpoint {
            return self.over_budget(pod, reason, case.direction);
        }
        if case.subject.is_same_pod(case.peer) {
            return self.not_judged(case.direction, NotJudged::SelfTraffic);
        }
        let relation = node_relation(pod, case.peer);
        let (switch, judged, why) = match case.direction {
            Direction::Egress => {
                ("pod_to_own_node_judged", self.dialect.pod_to_own_node_judged, NotJudged::ToOwnNode)
            }
            Direction::Ingress => {
                ("own_node_to_pod_judged", self.dialect.own_node_to_pod_judged, NotJudged::FromOwnNode)
            }
        };
        let doubt = match (relation, judged) {
            (NodeRelation::NotANode | NodeRelation::Other, _) | (_, Some(true)) => {
                let decision = self.judge_pod(pod, case);
                // Behind source NAT may be the pod's own node, or the pod itself: nobody denies those.
                let hidden = matches!(case.peer.endpoint, Endpoint::Unknown(UnknownReason::Snat));
                return if hidden && decision.verdict == Verdict::Deny {
                    unknown(case.direction, UnknownReason::Snat)
                } else {
                    decision
                };
            }
            (NodeRelation::Own, Some(false)) => return self.not_judged(case.direction, why),
            (NodeRelation::Own, None) => UnknownReason::DialectUndefined { switch },
            (NodeRelation::Unknown, _) => UnknownReason::NodeUnknown,
        };
        // If it is not judged it is allowed: the doubt matters only where judging would not allow it.
        let decision = self.judge_pod(pod, case);
        if decision.verdict == Verdict::Allow { decision } else { unknown(case.direction, doubt) }
    }

    /// Neither peer nor port are known: only what they could not change is certain.
    fn over_budget(&mut self, pod: &Pod, reason: &UnknownReason, direction: Direction) -> Arc<Decision> {
        let selection = self.selection(&pod.identity, direction);
        if selection.iter().all(|tier| tier.policies.is_empty()) {
            return not_isolated(direction);
        }
        unknown(direction, reason.clone())
    }

    /// Judges a pod by its policies.
    fn judge_pod(&mut self, pod: &Pod, case: &Case<'_>) -> Arc<Decision> {
        let (peer, class) = self.view(pod, case);
        let key_peer = match peer {
            PeerKind::Pod(identity) => KeyPeer::Pod(identity.id.index()),
            PeerKind::Node { name, relation } => KeyPeer::Node(self.cache.node(name), relation),
            PeerKind::External => KeyPeer::External,
            PeerKind::Unknown(reason) => KeyPeer::Unknown(self.cache.reason(reason)),
        };
        let subject = &pod.identity;
        let given = self.cache.given(case.given);
        let given = given.filter(|_| class != AddressClass::DIVIDED && !self.compiled.sees_own_address);
        let Some(given) = given else {
            // Rare: blocks that came after the addresses were counted together, a request of its own, or a rule
            // that asks for the pod's own address.
            let selection = self.selection(subject, case.direction);
            return Arc::new(self.evaluation(subject, peer, class, case, |e| e.decide(&selection)));
        };
        let ports = (case.port, case.protocol);
        let key = Key::new(subject.id.index(), (key_peer, class), ports, case.direction, given);
        if let Some(decision) = self.cache.decisions.get(key) {
            return decision;
        }
        let selection = self.selection(subject, case.direction);
        let decision = Arc::new(self.evaluation(subject, peer, class, case, |e| e.decide(&selection)));
        let decision = self.cache.shared.share(decision);
        self.cache.decisions.insert(key, Arc::clone(&decision));
        decision
    }

    /// What policies can see of the case's peer.
    pub(super) fn view<'a>(&self, subject: &Pod, case: &Case<'a>) -> (PeerKind<'a>, AddressClass) {
        let node = |name: Option<&'a Arc<str>>| match self.compiled.sees_nodes {
            true => PeerKind::Node { name, relation: node_relation(subject, case.peer) },
            false => PeerKind::Node { name: None, relation: NodeRelation::Unknown },
        };
        let peer = match &case.peer.endpoint {
            Endpoint::Pod(pod) if pod.host_network => node(pod.node.as_ref()),
            Endpoint::Pod(pod) => PeerKind::Pod(&pod.identity),
            Endpoint::Node(name) => node(Some(name)),
            Endpoint::External | Endpoint::Range(_) => PeerKind::External,
            // A Service opens no connection: its address as a source is that of source NAT.
            Endpoint::Service(_) => PeerKind::Unknown(&UnknownReason::Snat),
            Endpoint::Unknown(reason) => PeerKind::Unknown(reason),
        };
        let ignored = match peer {
            PeerKind::Pod(_) | PeerKind::Node { .. } => !self.compiled.blocks_see_cluster,
            PeerKind::External => false,
            PeerKind::Unknown(_) => true,
        };
        let prefixes = &self.compiled.prefixes;
        let class = match (case.peer.as_range(), case.peer.address_towards(case.subject)) {
            _ if ignored || prefixes.is_empty() => AddressClass::IGNORED,
            (Some(range), _) => prefixes.class_of(&range).unwrap_or(AddressClass::DIVIDED),
            (None, Some(address)) => prefixes.class(address),
            (None, None) => AddressClass::MISSING,
        };
        (peer, class)
    }

    /// Runs `ask` on the question, with what is known of the peer's identity.
    pub(super) fn evaluation<T>(
        &mut self,
        subject: &Identity,
        peer: PeerKind<'_>,
        class: AddressClass,
        case: &Case<'_>,
        ask: impl FnOnce(&mut Evaluation<'_>) -> T,
    ) -> T {
        let mut none = Membership::default();
        let membership = match peer {
            PeerKind::Pod(identity) => self.cache.membership(identity.id.index()),
            PeerKind::Node { .. } | PeerKind::External | PeerKind::Unknown(_) => &mut none,
        };
        ask(&mut Evaluation {
            compiled: &self.compiled,
            dialect: &self.dialect,
            direction: case.direction,
            subject,
            peer,
            class,
            divided: case.peer.as_range().filter(|_| class == AddressClass::DIVIDED),
            own_address: case.subject.address_towards(case.peer),
            assumed_mutual: None,
            port: case.port,
            protocol: case.protocol,
            given: case.given,
            membership,
        })
    }

    /// The policies that select an identity in a direction.
    pub(super) fn selection(&mut self, subject: &Identity, direction: Direction) -> Selection {
        if let Some(known) = self.cache.selection(subject.id.index(), direction) {
            return known;
        }
        let (cache, compiled) = (&mut self.cache, &self.compiled);
        let selection: Selection =
            compiled.tiers.iter().map(|tier| select(tier, compiled, cache, subject, direction)).collect();
        self.cache.remember_selection(subject.id.index(), direction, &selection);
        selection
    }

    fn not_judged(&mut self, direction: Direction, why: NotJudged) -> Arc<Decision> {
        let new = || Arc::new(Decision::without_tier(direction, Verdict::Allow, Reason::NotJudged(why)));
        Arc::clone(self.not_judged.entry((direction, why)).or_insert_with(new))
    }
}

fn select(
    tier: &Tier,
    compiled: &Compiled,
    cache: &mut Cache,
    subject: &Identity,
    direction: Direction,
) -> TierSelection {
    let mut policies = Vec::new();
    let mut added = tier.policies.added.as_ref().and_then(|(settings, before)| {
        let key = (Arc::clone(&subject.namespace), subject.roles);
        let new = || default_deny::policy_for(subject, settings).map(Arc::new);
        let added = cache.added.entry(key).or_insert_with(new).clone()?;
        let applies = added.section(direction).applies == Ok(true);
        applies.then(|| (Selected { policy: added, doubt: None }, *before))
    });
    let membership = cache.membership(subject.id.index());
    for Candidate { at, policy, anywhere } in tier.policies.of_namespace(subject) {
        if let Some((added, _)) = added.take_if(|(_, before)| *before <= at) {
            policies.push(added);
        }
        let selects = anywhere.map_or(Tri::Yes, Tri::field);
        let selects = selects.and(|| Tri::of(&policy.section(direction).applies, |applies| *applies));
        let selects = selects.and(|| match policy.subject.map(|id| (id, compiled.condition(id))) {
            None => Tri::Yes,
            Some((_, None)) => Tri::No,
            Some((id, Some(condition))) => {
                membership.holds(id, || condition.holds(subject.into(), &compiled.facts))
            }
        });
        let doubt: Option<Field> = match selects {
            Tri::No => continue,
            Tri::Maybe(Why::Field(field)) => Some(field),
            Tri::Yes | Tri::Maybe(Why::Reason(_)) => None,
        };
        policies.push(Selected { policy: Arc::clone(policy), doubt });
    }
    policies.extend(added.map(|(added, _)| added));
    let isolates = |selected: &&Selected| {
        selected.doubt.is_none() && selected.policy.section(direction).isolates == Ok(true)
    };
    let isolated_by = policies.iter().filter(isolates).map(|s| ObjectRef::clone(&s.policy.reference));
    let mut isolated_by: Vec<ObjectRef> = isolated_by.collect();
    // Parts of one policy stand beside each other.
    isolated_by.dedup();
    TierSelection { policies, isolated_by: isolated_by.into() }
}

fn case<'a>(
    connection: &Connection<'a>,
    responder: &'a Party,
    port: u16,
    (given, direction): (&'a ConnectionFacts, Direction),
) -> Case<'a> {
    let (subject, peer) = match direction {
        Direction::Egress => (connection.initiator, responder),
        Direction::Ingress => (responder, connection.initiator),
    };
    Case { subject, peer, port, protocol: connection.protocol, direction, given }
}

/// What a connection comes down to after DNAT: one case, or one for each backend of a Service.
pub(super) fn cases<'a>(
    connection: &Connection<'a>,
    given: &'a ConnectionFacts,
    direction: Direction,
) -> SmallVec<[Case<'a>; 1]> {
    let about = (given, direction);
    match &connection.responder.endpoint {
        Endpoint::Service(service) => {
            service.backends.iter().map(|b| case(connection, &b.party, b.port, about)).collect()
        }
        _ => smallvec![case(connection, connection.responder, connection.port, about)],
    }
}

/// The decision that all backends share, or that they differ.
fn one_of(decisions: Vec<Arc<Decision>>, direction: Direction) -> Arc<Decision> {
    let count = |verdict| {
        let same = decisions.iter().filter(|decision| decision.verdict == verdict).count();
        u32::try_from(same).unwrap_or(u32::MAX)
    };
    let [allowed, denied, unknown_] = [Verdict::Allow, Verdict::Deny, Verdict::Unknown].map(count);
    let differ = [allowed, denied, unknown_].iter().filter(|count| **count > 0).count() > 1;
    match decisions.into_iter().next() {
        Some(first) if !differ => first,
        _ => unknown(direction, UnknownReason::BackendsDiffer { allowed, denied, unknown: unknown_ }),
    }
}

fn unknown(direction: Direction, reason: UnknownReason) -> Arc<Decision> {
    Arc::new(Decision::without_tier(direction, Verdict::Unknown, Reason::Unknown(reason)))
}

fn not_isolated(direction: Direction) -> Arc<Decision> {
    Arc::new(Decision::without_tier(direction, Verdict::Allow, Reason::NotIsolated))
}

fn node_relation(subject: &Pod, peer: &Party) -> NodeRelation {
    let Some(node) = peer.as_node() else { return NodeRelation::NotANode };
    match (&subject.node, node) {
        (Some(own), Some(node)) if own == node => NodeRelation::Own,
        (Some(_), Some(_)) => NodeRelation::Other,
        _ => NodeRelation::Unknown,
    }
}
