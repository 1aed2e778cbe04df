//! Whether rules, peers and ports match: three-valued comparisons of one question with compiled rules.

use crate::model::edge::Direction;
use crate::model::identity::Identity;
use crate::model::verdict::UnknownReason;

use super::evaluate::{Evaluation, PeerKind, index};
use super::prefix::{AddressClass, PrefixId};
use super::spec::{PortMatch, PortSpec, Ports};
use super::tier::{Atom, AtomId, CompiledBlock, CompiledPeer, CompiledPeers, CompiledRule};
use super::tri::Tri;

/// Whether a rule matches, part by part.
#[derive(Debug, Clone)]
pub(crate) struct RuleMatch {
    pub(crate) peers: Tri,
    /// The index of the peer that matches, or else may match.
    pub(crate) peer: Option<u32>,
    pub(crate) ports: Tri,
    pub(crate) also: Tri,
}

impl RuleMatch {
    pub(crate) fn all(&self) -> Tri {
        self.peers.clone().and(|| self.ports.clone()).and(|| self.also.clone())
    }
}

impl Evaluation<'_> {
    /// Whether one rule matches, part by part.
    pub(crate) fn rule(&mut self, rule: &CompiledRule) -> RuleMatch {
        let (peers, peer) = self.peers(&rule.peers);
        let also = rule.also.as_ref().map_or(Tri::Yes, Tri::field);
        RuleMatch { peers, peer, ports: self.ports(&rule.ports), also }
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
        if let PeerKind::Unknown(why) = self.peer {
            return Tri::reason(why);
        }
        match peer {
            CompiledPeer::Unknown(field) => Tri::field(field),
            CompiledPeer::Block(block) => self.block(block),
            CompiledPeer::Role(roles) => match self.peer {
                PeerKind::Pod(identity) => identity.roles.has(*roles).into(),
                _ => Tri::No,
            },
            CompiledPeer::Pods { namespaces, pods } => match self.peer {
                PeerKind::Pod(identity) => {
                    let in_namespace = Tri::of(namespaces, |atom| self.holds(*atom, identity));
                    in_namespace.and(|| Tri::of(pods, |atom| self.holds(*atom, identity)))
                }
                _ => Tri::No,
            },
        }
    }

    /// Whether the peer's identity fulfils a condition.
    pub(crate) fn holds(&mut self, atom: Option<AtomId>, identity: &Identity) -> bool {
        let Some(id) = atom else { return true };
        let Some(atom) = self.compiled.atoms.get(id.0 as usize) else { return false };
        self.membership.holds(id, || match atom {
            Atom::Namespace(name) => *name == identity.namespace,
            Atom::NamespaceLabels(selector) => selector.matches(&identity.namespace_labels),
            Atom::PodLabels(selector) => selector.matches(&identity.labels),
        })
    }

    fn block(&self, block: &CompiledBlock) -> Tri {
        match self.peer {
            PeerKind::Pod(_) | PeerKind::Node => match self.dialect.ip_block_matches_pods {
                Some(true) => self.address(block),
                Some(false) => Tri::No,
                None => {
                    let switch = "ip_block_matches_pods";
                    self.address(block).and(|| Tri::reason(&UnknownReason::DialectUndefined { switch }))
                }
            },
            PeerKind::External | PeerKind::Unknown(_) => self.address(block),
        }
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
        match (net.contains(range), range.contains(net)) {
            (true, _) => Tri::Yes,
            (false, true) => Tri::reason(&UnknownReason::RangeDivided),
            (false, false) => Tri::No,
        }
    }

    /// Whether a rule's ports match. What has no ports matches only a rule without them.
    pub(crate) fn ports(&self, ports: &Ports) -> Tri {
        let ports = match ports {
            Ports::Any => return Tri::Yes,
            Ports::Unknown(field) => return Tri::field(field),
            Ports::Of(_) if !self.protocol.has_ports() => return Tri::No,
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
                PeerKind::Node | PeerKind::External => Tri::No,
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
