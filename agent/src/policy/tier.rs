//! Compiled policies: tiers of ordered rules over interned selectors and numbered address blocks.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::model::edge::Direction;
use crate::model::object::ObjectRef;
use crate::model::role::Roles;
use crate::model::scenario::Assumption;
use crate::model::selector::Selector;
use crate::model::verdict::Layer;

use super::fault::{Content, Field};
use super::prefix::PrefixId;
use super::spec::{Action, Ports};

/// Policies that are asked together. Tiers are asked in order until one decides; at the end: allow.
#[derive(Debug)]
pub(crate) struct Tier {
    pub(crate) layer: Layer,
    pub(crate) kind: TierKind,
    pub(crate) policies: super::compile::PolicyIndex,
}

/// How a tier decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "ordered tiers are those of families to come"))]
pub(crate) enum TierKind {
    /// NetworkPolicy: a pod that any policy selects is isolated; what any of their rules matches is allowed,
    /// the rest denied. The next tier decides for pods that none selects.
    Union,
    /// The first matching rule decides, in the order of the policies. Where none matches, `end` does, if a
    /// policy of the tier selects the pod.
    Ordered { end: Action },
}

/// One policy, compiled.
#[derive(Debug, Clone)]
pub(crate) struct CompiledPolicy {
    pub(crate) reference: Arc<ObjectRef>,
    /// The pods it selects in its namespace.
    pub(crate) subject: Content<Selector>,
    pub(crate) egress: CompiledSection,
    pub(crate) ingress: CompiledSection,
}

impl CompiledPolicy {
    pub(crate) const fn section(&self, direction: Direction) -> &CompiledSection {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }
}

/// One direction of a compiled policy.
#[derive(Debug, Clone)]
pub(crate) struct CompiledSection {
    pub(crate) applies: Content<bool>,
    pub(crate) rules: Vec<CompiledRule>,
}

/// One rule, compiled.
#[derive(Debug, Clone)]
pub(crate) struct CompiledRule {
    pub(crate) action: Action,
    pub(crate) peers: CompiledPeers,
    pub(crate) ports: Ports,
    pub(crate) also: Option<Field>,
    /// The scenario assumed this rule; no policy has it.
    pub(crate) assumed: Option<Assumption>,
}

/// A rule's peers, compiled.
#[derive(Debug, Clone)]
pub(crate) enum CompiledPeers {
    Any,
    Of(Vec<CompiledPeer>),
    Unknown(Field),
}

/// One peer, compiled. `None` in place of an atom: everything matches.
#[derive(Debug, Clone)]
pub(crate) enum CompiledPeer {
    Pods {
        namespaces: Content<Option<AtomId>>,
        pods: Content<Option<AtomId>>,
    },
    Block(CompiledBlock),
    /// Pods that have these roles.
    Role(Roles),
    Unknown(Field),
}

/// An address block, compiled.
#[derive(Debug, Clone)]
pub(crate) struct CompiledBlock {
    pub(crate) cidr: Content<PrefixId>,
    pub(crate) except: SmallVec<[PrefixId; 2]>,
    pub(crate) broken_except: Option<Field>,
}

/// The number of an interned condition on a peer's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct AtomId(pub(crate) u32);

/// A condition on a peer's identity. Whether an identity fulfils it is found out once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Atom {
    Namespace(Arc<str>),
    NamespaceLabels(Selector),
    PodLabels(Selector),
}
