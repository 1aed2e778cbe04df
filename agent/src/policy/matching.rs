//! Whether rules, peers and ports match: three-valued comparisons of one question with compiled rules.

use std::sync::Arc;

use ipnet::IpNet;

use crate::model::edge::Direction;
use crate::model::identity::Identity;
use crate::model::verdict::{Fact, UnknownReason};

use super::evaluate::{Evaluation, PeerKind, index};
use super::fault::Field;
use super::judge::NodeRelation;
use super::prefix::{AddressClass, PrefixId};
use super::spec::{PortMatch, PortSpec, Ports, Reach};
use super::tier::{
    BlockSet, CompiledBlock, CompiledNodes, CompiledPeer, CompiledPeers, CompiledRule, ConditionId,
};
use super::tri::Tri;

/// Whether a rule matches, part by part.
#[derive(Debug, Clone)]
pub(crate) struct RuleMatch {
    pub(crate) peers: Tri,
    /// The index of the peer that matches, or else may match.
    pub(crate) peer: Option<u32>,
    pub(crate) ports: Tri,
    pub(crate) given: Tri,
}

impl RuleMatch {
    pub(crate) fn all(&self) -> Tri {
        self.peers.clone().and(|| self.ports.clone()).and(|| self.given.clone())
    }
}

impl Evaluation<'_> {
    /// Whether one rule matches, part by part.
    pub(crate) fn rule(&mut self, rule: &CompiledRule) -> RuleMatch {
        let (peers, peer) = self.peers(&rule.peers);
        let given = rule.given.holds_with(self.given, &|wanted| self.mesh(wanted));
        RuleMatch { peers, peer, ports: self.rule_ports(rule), given }
    }

    /// Whether a rule is about this port and protocol.
    pub(crate) fn rule_ports(&self, rule: &CompiledRule) -> Tri {
        self.ports(&rule.ports).and(|| match &*rule.not_ports {
            [] => Tri::Yes,
            not => !Tri::any(not, |port| self.port(port)),
        })
    }

    fn peers(&mut self, peers: &CompiledPeers) -> (Tri, Option<u32>) {
        let peers = match peers {
            CompiledPeers::Any => return (Tri::Yes, None),
            CompiledPeers::Unknown(field) => return (Tri::field(field), None),
            CompiledPeers::Of(peers) => peers,
        };
        let mut first = (Tri::No, None);
        for (at, peer) in peers.iter().enumerate() {
            match self.peer(peer) {
                Tri::Yes => return (Tri::Yes, Some(index(at))),
                maybe @ Tri::Maybe(_) if first.0 == Tri::No => first = (maybe, Some(index(at))),
                Tri::Maybe(_) | Tri::No => {}
            }
        }
        first
    }

    /// Whether one entry of `from` or `to` matches the peer.
    pub(crate) fn peer(&mut self, peer: &CompiledPeer) -> Tri {
        match peer {
            CompiledPeer::All(peers) => return Tri::all(peers, |peer| self.peer(peer)),
            CompiledPeer::Any(peers) => return Tri::any(peers, |peer| self.peer(peer)),
            CompiledPeer::Not(peer) => return !self.peer(peer),
            // It may be known of a peer that is not.
            CompiledPeer::Mesh(wanted) => return self.mesh(wanted),
            _ => {}
        }
        if let PeerKind::Unknown(why) = self.peer {
            return Tri::reason(why);
        }
        match peer {
            // Above.
            CompiledPeer::All(_) | CompiledPeer::Any(_) | CompiledPeer::Not(_) | CompiledPeer::Mesh(_) => {
                Tri::No
            }
            CompiledPeer::Unknown(field) => Tri::field(field),
            CompiledPeer::Block(block, reach) => self.reaches(*reach, |this| this.address(block)),
            CompiledPeer::Blocks(set, reach) => self.reaches(*reach, |this| this.address_set(set)),
            CompiledPeer::Named(_, set, open) => match self.peer {
                PeerKind::External => self.address_set(set).or(|| open.as_ref().map_or(Tri::No, Tri::field)),
                _ => Tri::No,
            },
            CompiledPeer::Outside => matches!(self.peer, PeerKind::External).into(),
            CompiledPeer::Nodes(nodes) => self.nodes(nodes),
            CompiledPeer::Role(roles) => match self.peer {
                PeerKind::Pod(identity) => identity.roles.has(*roles).into(),
                _ => Tri::No,
            },
            CompiledPeer::Pods { namespaces, pods } => match self.peer {
                PeerKind::Pod(identity) => {
                    let in_namespace = self.holds(*namespaces, identity);
                    in_namespace.and(|| self.holds(*pods, identity))
                }
                _ => Tri::No,
            },
        }
    }

    fn nodes(&self, nodes: &CompiledNodes) -> Tri {
        let PeerKind::Node { name, relation } = self.peer else { return Tri::No };
        let own = match relation {
            NodeRelation::Own => Tri::Yes,
            NodeRelation::Other => Tri::No,
            NodeRelation::NotANode | NodeRelation::Unknown => Tri::reason(&UnknownReason::NodeUnknown),
        };
        match nodes {
            CompiledNodes::Every => Tri::Yes,
            CompiledNodes::Own => own,
            CompiledNodes::Other => !own,
            CompiledNodes::Labelled(selector, field) => {
                let known = self.compiled.facts.node_labels.as_ref();
                match name.and_then(|name| known?.get(name)) {
                    Some(labels) => selector.matches(labels).into(),
                    None if selector.is_everything() => Tri::Yes,
                    None => Tri::field(&Field::lacking(Arc::clone(field.path()), Fact::NodeLabels)),
                }
            }
        }
    }

    /// Whether the peer's identity fulfils a condition.
    pub(crate) fn holds(&mut self, condition: Option<ConditionId>, identity: &Identity) -> Tri {
        let Some(id) = condition else { return Tri::Yes };
        let compiled = self.compiled;
        let Some(condition) = compiled.condition(id) else { return Tri::No };
        self.membership.holds(id, || condition.holds(identity.into(), &compiled.facts))
    }

    /// What `holds` says, where blocks mean the peer's address at all.
    fn reaches(&self, reach: Reach, holds: impl FnOnce(&Self) -> Tri) -> Tri {
        let nodes = ("ip_block_matches_nodes", self.dialect.ip_block_matches_nodes());
        let (switch, matches) = match (reach, self.peer) {
            (Reach::Everyone, _) | (_, PeerKind::External | PeerKind::Unknown(_)) => return holds(self),
            (Reach::Dialect, PeerKind::Pod(_)) => {
                ("ip_block_matches_pods", self.dialect.ip_block_matches_pods)
            }
            (Reach::NotPods, PeerKind::Pod(_)) => return Tri::No,
            (Reach::Dialect | Reach::NotPods, PeerKind::Node { .. }) => nodes,
        };
        match matches {
            Some(true) => holds(self),
            Some(false) => Tri::No,
            None => holds(self).and(|| Tri::reason(&UnknownReason::DialectUndefined { switch })),
        }
    }

    /// Whether the peer's address is in a set of blocks.
    fn address_set(&self, set: &BlockSet) -> Tri {
        let broken = || set.broken.as_ref().map_or(Tri::No, Tri::field);
        if self.class == AddressClass::MISSING {
            let empty = set.nets.is_empty();
            return if empty { broken() } else { Tri::reason(&UnknownReason::AddressMissing) };
        }
        let inside = match &self.divided {
            None => set.classes.holds(self.class).into(),
            Some(range) => {
                let holds = |nets: &[IpNet]| Tri::any(nets, |net| divided(range, net));
                holds(&set.nets).and(|| !holds(&set.except))
            }
        };
        inside.or(broken)
    }

    fn address(&self, block: &CompiledBlock) -> Tri {
        if self.class == AddressClass::MISSING {
            return Tri::reason(&UnknownReason::AddressMissing);
        }
        let mut outside_excepts = Tri::Yes;
        for except in &block.except {
            match self.inside(*except) {
                Tri::Yes => return Tri::No,
                Tri::Maybe(why) => outside_excepts = Tri::Maybe(why),
                Tri::No => {}
            }
        }
        let inside = match &block.cidr {
            Ok(cidr) => self.inside(*cidr),
            Err(field) => Tri::field(field),
        };
        inside.and(|| outside_excepts).and(|| block.broken_except.as_ref().map_or(Tri::Yes, Tri::field))
    }

    /// Whether a block holds the peer's address, or all of its range.
    fn inside(&self, block: PrefixId) -> Tri {
        let prefixes = &self.compiled.prefixes;
        let (Some(range), Some(net)) = (&self.divided, prefixes.net(block)) else {
            return prefixes.holds(block, self.class).into();
        };
        divided(range, net)
    }

    /// Whether a rule's ports match. ICMP has its type and code in place of a port.
    pub(crate) fn ports(&self, ports: &Ports) -> Tri {
        let ports = match ports {
            Ports::Any => return Tri::Yes,
            Ports::Unknown(field) => return Tri::field(field),
            Ports::Of(ports) => ports,
        };
        let mut first = Tri::No;
        for port in ports {
            match self.port(port) {
                Tri::Yes => return Tri::Yes,
                maybe @ Tri::Maybe(_) if first == Tri::No => first = maybe,
                Tri::Maybe(_) | Tri::No => {}
            }
        }
        first
    }

    fn port(&self, port: &PortMatch) -> Tri {
        let protocol = Tri::of(&port.protocol, |protocol| *protocol == self.protocol);
        protocol.and(|| match &port.port {
            Err(field) => Tri::field(field),
            Ok(PortSpec::Any) => Tri::Yes,
            Ok(PortSpec::Range { first, last }) => (*first..=*last).contains(&self.port).into(),
            Ok(PortSpec::From { first, end }) => match self.port.cmp(first) {
                std::cmp::Ordering::Less => Tri::No,
                std::cmp::Ordering::Equal => Tri::Yes,
                std::cmp::Ordering::Greater => Tri::field(end),
            },
            Ok(PortSpec::Named(name)) => match self.responder() {
                PeerKind::Pod(identity) => self.named(identity, name).any(|port| port == self.port).into(),
                PeerKind::Unknown(why) => Tri::reason(why),
                PeerKind::Node { .. } | PeerKind::External => Tri::No,
            },
        })
    }

    /// The end whose container ports resolve names.
    pub(crate) const fn responder(&self) -> PeerKind<'_> {
        match self.direction {
            Direction::Egress => self.peer,
            Direction::Ingress => PeerKind::Pod(self.subject),
        }
    }

    /// The ports that a pod has under this name, for the protocol that is asked for.
    pub(crate) fn named(&self, pod: &Identity, name: &str) -> impl Iterator<Item = u16> {
        let wanted = pod.named_ports.iter().filter(move |p| *p.name == *name && p.protocol == self.protocol);
        wanted.map(|named| named.port)
    }
}

/// Whether a block holds a whole range of addresses.
fn divided(range: &IpNet, net: &IpNet) -> Tri {
    match (net.contains(range), range.contains(net)) {
        (true, _) => Tri::Yes,
        (false, true) => Tri::reason(&UnknownReason::RangeDivided),
        (false, false) => Tri::No,
    }
}
