//! Three-valued evaluation: what a subject's policies may decide about one connection in one direction.

mod chain;
mod levels;
mod ordered;
mod union;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::dialect::Dialect;
use crate::model::edge::{Direction, Protocol};
use crate::model::facts::ConnectionFacts;
use crate::model::identity::Identity;
use crate::model::object::ObjectRef;
use crate::model::scenario::Assumption;
use crate::model::verdict::{Decision, NotJudged, UnknownReason, Verdict};

use self::chain::Asked;
use super::cache::{Membership, TierSelection};
use super::compile::Compiled;
use super::judge::NodeRelation;
use super::mesh::Enforcer;
use super::prefix::AddressClass;
use super::spec::Action;
use super::tier::{CompiledRule, Group, TierKind};
use super::tri::Why;

/// What policies can see of the other end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PeerKind<'a> {
    Pod(&'a Identity),
    /// A node, or a pod that uses its node's network.
    Node {
        name: Option<&'a Arc<str>>,
        relation: NodeRelation,
    },
    External,
    Unknown(&'a UnknownReason),
}

/// One question, and what is needed to answer it.
#[derive(Debug)]
pub(crate) struct Evaluation<'a> {
    pub(crate) compiled: &'a Compiled,
    pub(crate) dialect: &'a Dialect,
    pub(crate) direction: Direction,
    pub(crate) subject: &'a Identity,
    pub(crate) peer: PeerKind<'a>,
    pub(crate) class: AddressClass,
    /// The peer's range, where blocks hold only a part of it.
    pub(crate) divided: Option<IpNet>,
    /// The subject's, where the peer reaches it.
    pub(crate) own_address: Option<IpAddr>,
    /// What is taken as given about mutual TLS, while both cases are tried.
    pub(crate) assumed_mutual: Option<bool>,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    /// What is known of the connection besides.
    pub(crate) given: &'a ConnectionFacts,
    /// Of the peer's identity, if it has one.
    pub(crate) membership: &'a mut Membership,
}

/// A rule that matches, or may.
#[derive(Debug, Clone)]
struct Hit {
    policy: Arc<ObjectRef>,
    rule: u32,
    name: Option<Arc<str>>,
    peer: Option<u32>,
    assumed: Option<Assumption>,
}

impl Hit {
    fn new(policy: &Arc<ObjectRef>, rule: &CompiledRule, peer: Option<u32>) -> Self {
        let CompiledRule { index, name, assumed, .. } = rule;
        Self { policy: Arc::clone(policy), rule: *index, name: name.clone(), peer, assumed: *assumed }
    }
}

/// What a tier may do.
#[derive(Debug)]
struct Outcomes {
    allow: bool,
    deny: bool,
    next: bool,
    /// Why, if there is no doubt about the verdict.
    ground: Ground,
    /// Why not, otherwise.
    doubt: Option<Doubt>,
}

#[derive(Debug)]
enum Ground {
    /// No policy of the tier decides.
    Nothing,
    Rule(Hit),
    /// A rule leaves the tier.
    Passed(Hit),
    /// A rule matches that looks into the connection at this field, and what is asked in it is not known.
    BelowL7(Hit, Arc<str>),
    /// Rules match that look into the connection, and none lets the request pass.
    NoRequest(Hit),
    /// The subject is isolated, or at the end of an ordered tier.
    NoRule,
    NotJudged(NotJudged),
}

#[derive(Debug)]
struct Doubt {
    policy: Option<Arc<ObjectRef>>,
    hit: Option<Hit>,
    why: UnknownReason,
}

/// An index as decisions hold it.
pub(crate) fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// The doubt that something in a policy causes.
fn doubt(policy: &Arc<ObjectRef>, hit: Option<Hit>, why: Why) -> Doubt {
    let why = match why {
        Why::Field(field) => field.reason(policy),
        Why::Reason(reason) => reason,
    };
    Doubt { policy: Some(Arc::clone(policy)), hit, why }
}

impl Outcomes {
    const NOTHING: Self =
        Self { allow: false, deny: false, next: false, ground: Ground::Nothing, doubt: None };

    const fn may(&mut self, action: Action) {
        match action {
            Action::Allow => self.allow = true,
            Action::Deny => self.deny = true,
            Action::Pass | Action::Log => self.next = true,
        }
    }
}

/// What the tiers of one group come to.
#[derive(Debug, Clone, Copy)]
struct Sum {
    allow: bool,
    deny: bool,
    next: bool,
}

impl Sum {
    const fn verdict(self) -> Verdict {
        match (self.allow || self.next, self.deny) {
            (true, true) => Verdict::Unknown,
            (false, true) => Verdict::Deny,
            (_, false) => Verdict::Allow,
        }
    }
}

impl<'a> Evaluation<'a> {
    /// Asks the tiers of each group in order, until one decides. Where what they may do differs, the answer is
    /// `Unknown`. All groups must allow.
    pub(crate) fn decide(&mut self, selection: &[TierSelection]) -> Decision {
        let (network, mut asked) = self.group(Group::Network, selection);
        let (mesh, of_mesh) = self.mesh_group(selection);
        asked.extend(of_mesh);
        self.decision([network, mesh], asked)
    }

    fn group<'s>(&mut self, group: Group, selection: &'s [TierSelection]) -> (Verdict, Vec<Asked<'s>>)
    where
        'a: 's,
    {
        let compiled = self.compiled;
        let mut sum = Sum { allow: false, deny: false, next: true };
        let mut asked = Vec::new();
        for (tier, selected) in compiled.tiers.iter().zip(selection).filter(|(tier, _)| tier.group == group) {
            let outcomes = match tier.kind {
                _ if selected.policies.is_empty() || !sum.next => continue,
                TierKind::Union => self.union(selected),
                TierKind::Ordered { end, ties } => self.ordered(selected, end, ties),
                TierKind::Levels => self.levels(selected),
            };
            sum.allow |= outcomes.allow;
            sum.deny |= outcomes.deny;
            sum.next = outcomes.next;
            asked.push(Asked { tier, selected, outcomes });
        }
        (sum.verdict(), asked)
    }

    /// The mesh's tiers. Whether there is mutual TLS matters only if the two cases end differently: one tier may
    /// deny the one, and the next the other.
    fn mesh_group<'s>(&mut self, selection: &'s [TierSelection]) -> (Verdict, Vec<Asked<'s>>)
    where
        'a: 's,
    {
        if !self.in_mesh() {
            return (Verdict::Allow, Vec::new());
        }
        let open = self.group(Group::Mesh, selection);
        if open.0 != Verdict::Unknown || self.mutual_tls(Enforcer::Ztunnel).is_some() {
            return open;
        }
        let cases = [false, true].map(|mutual| {
            self.assumed_mutual = Some(mutual);
            self.group(Group::Mesh, selection)
        });
        self.assumed_mutual = None;
        let [plain, mutual] = cases;
        if plain.0 == mutual.0 && plain.0 != Verdict::Unknown { plain } else { open }
    }
}
