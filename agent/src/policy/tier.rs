//! Compiled policies: layers of tiers of ordered rules over interned conditions and numbered address blocks.

use std::sync::Arc;

use ipnet::IpNet;
use smallvec::SmallVec;

use crate::model::edge::Direction;
use crate::model::object::ObjectRef;
use crate::model::role::Roles;
use crate::model::scenario::Assumption;
use crate::model::selector::Selector;
use crate::model::verdict::Layer;

use super::fault::{Content, Field};
use super::given::Given;
use super::mesh::MeshMatch;
use super::prefix::{ClassSet, PrefixId};
use super::spec::{Action, L7, NamePattern, PortMatch, Ports, Reach};

/// Policies that are asked together. The tiers of a layer are asked in order until one decides; at the end: allow.
#[derive(Debug)]
pub(crate) struct Tier {
    pub(crate) layer: Layer,
    /// All layers must allow: those of the network, then those of the mesh.
    pub(crate) group: Group,
    /// Where tiers have names.
    pub(crate) name: Option<Arc<str>>,
    pub(crate) kind: TierKind,
    pub(crate) policies: super::compile::PolicyIndex,
}

/// Tiers of which one decides; every group must allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    Network,
    Mesh,
}

/// How a tier decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TierKind {
    /// What any deny rule matches is denied. A pod that any policy isolates is denied what none of the rules allows.
    /// The next tier decides for pods that none isolates.
    Union,
    /// The first matching rule decides, in the order of the policies. Where none matches, `end` does, if a
    /// policy of the tier selects the pod. With `ties`, the order of policies of equal rank is open.
    Ordered { end: Action, ties: bool },
    /// Of the policies of one rank that select the pod, the first alone is asked; where none of its rules matches,
    /// the next rank is.
    Levels,
}

/// One policy with one subject, compiled.
#[derive(Debug, Clone)]
pub(crate) struct CompiledPolicy {
    pub(crate) reference: Arc<ObjectRef>,
    /// The pods it selects in its scope.
    pub(crate) subject: Option<ConditionId>,
    /// Its place among the others of an ordered tier; equal where their order is open.
    pub(crate) rank: u32,
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
    pub(crate) isolates: Content<bool>,
    /// Whether any rule denies.
    pub(crate) denies: bool,
    pub(crate) rules: Vec<CompiledRule>,
}

/// One rule, compiled.
#[derive(Debug, Clone)]
pub(crate) struct CompiledRule {
    pub(crate) action: Action,
    pub(crate) peers: CompiledPeers,
    pub(crate) ports: Ports,
    pub(crate) not_ports: Vec<PortMatch>,
    pub(crate) given: Given,
    pub(crate) l7: Option<L7>,
    /// In the API's list.
    pub(crate) index: u32,
    pub(crate) name: Option<Arc<str>>,
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

/// One peer, compiled. `None` in place of a condition: everything matches.
#[derive(Debug, Clone)]
pub(crate) enum CompiledPeer {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Pods {
        namespaces: Option<ConditionId>,
        pods: Option<ConditionId>,
    },
    /// Pods that have these roles.
    Role(Roles),
    Nodes(CompiledNodes),
    Outside,
    Block(CompiledBlock, Reach),
    Blocks(Arc<BlockSet>, Reach),
    /// What is called so: the known addresses, and whether an unknown one may be.
    Named(NamePattern, Arc<BlockSet>, Option<Field>),
    Mesh(MeshMatch),
    Unknown(Field),
}

/// Which nodes, compiled.
#[derive(Debug, Clone)]
pub(crate) enum CompiledNodes {
    Every,
    Own,
    Other,
    Labelled(Selector, Field),
}

/// An address block, compiled.
#[derive(Debug, Clone)]
pub(crate) struct CompiledBlock {
    pub(crate) cidr: Content<PrefixId>,
    pub(crate) except: SmallVec<[PrefixId; 2]>,
    pub(crate) broken_except: Option<Field>,
}

/// Many blocks at once: what the rules call them, and which addresses are in them.
#[derive(Debug, Default)]
pub(crate) struct BlockSet {
    pub(crate) text: String,
    pub(crate) nets: Vec<IpNet>,
    pub(crate) except: Vec<IpNet>,
    /// The classes of the addresses inside.
    pub(crate) classes: ClassSet,
    /// It may hold more than that.
    pub(crate) broken: Option<Field>,
}

/// The number of an interned condition on an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ConditionId(pub(crate) u32);
