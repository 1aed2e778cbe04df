//! The nearest miss: which rule came closest to allowing what was denied, and what it lacked.

use std::sync::Arc;

use crate::model::verdict::{Miss, NearestMiss};

use super::cache::TierSelection;
use super::evaluate::{Evaluation, PeerKind, index};
use super::spec::{PortMatch, PortSpec, Ports};
use super::tier::{Atom, AtomId, CompiledBlock, CompiledPeer, CompiledPeers, CompiledRule};
use super::tri::Tri;

/// How near a rule came, nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Port,
    PodLabels,
    /// The pod's labels match.
    Namespace,
    IpBlock,
    NamespaceAndLabels,
    PeerAndPort,
}

/// The nearest miss among the rules of the policies that select the subject; the first of equals. None where
/// no rule speaks of such a peer at all.
pub(crate) fn miss(evaluation: &mut Evaluation<'_>, selection: &TierSelection) -> Option<NearestMiss> {
    let mut best: Option<(Rank, NearestMiss)> = None;
    for selected in &selection.policies {
        let policy = &selected.policy;
        for (at, rule) in policy.section(evaluation.direction).rules.iter().enumerate() {
            // What a scenario assumes is not for anyone to mend.
            let Some((rank, peer, lacks)) = of_rule(evaluation, rule).filter(|_| rule.assumed.is_none())
            else {
                continue;
            };
            if best.as_ref().is_none_or(|(known, _)| rank < *known) {
                let policy = Arc::clone(&policy.reference);
                best = Some((rank, NearestMiss { policy, rule: index(at), peer, lacks }));
            }
        }
    }
    best.map(|(_, miss)| miss)
}

fn of_rule(evaluation: &mut Evaluation<'_>, rule: &CompiledRule) -> Option<(Rank, Option<u32>, Miss)> {
    let found = evaluation.rule(rule);
    let port_lacks = found.ports == Tri::No;
    if port_lacks && found.peers == Tri::Yes {
        // A rule with ports never matches ICMP: no other port would help.
        let (asked, protocol) = (evaluation.port, evaluation.protocol);
        let miss = || Miss::Port { asked, protocol, allowed: ports_text(evaluation, &rule.ports).into() };
        return protocol.has_ports().then(|| (Rank::Port, found.peer, miss()));
    }
    let CompiledPeers::Of(peers) = &rule.peers else { return None };
    let each = peers.iter().enumerate();
    let misses = each.filter_map(|(at, peer)| {
        let (rank, miss) = of_peer(evaluation, peer)?;
        Some((rank, Some(index(at)), miss))
    });
    let (rank, peer, miss) = misses.min_by_key(|(rank, ..)| *rank)?;
    if port_lacks { Some((Rank::PeerAndPort, peer, Miss::PeerAndPort)) } else { Some((rank, peer, miss)) }
}

/// What a peer that does not match lacks; none where it speaks of another kind of peer.
fn of_peer(evaluation: &mut Evaluation<'_>, peer: &CompiledPeer) -> Option<(Rank, Miss)> {
    match (peer, evaluation.peer) {
        (CompiledPeer::Pods { namespaces: Ok(namespaces), pods: Ok(pods) }, PeerKind::Pod(identity)) => {
            let in_namespace = evaluation.holds(*namespaces, identity);
            let labels_match = evaluation.holds(*pods, identity);
            let text = |atom: &Option<AtomId>| Arc::from(atom_text(evaluation, *atom));
            Some(match (in_namespace, labels_match) {
                (true, _) => (Rank::PodLabels, Miss::PodLabels { selector: text(pods) }),
                (false, true) => (Rank::Namespace, Miss::NamespaceLabels { selector: text(namespaces) }),
                (false, false) => {
                    (Rank::NamespaceAndLabels, Miss::NamespaceLabels { selector: text(namespaces) })
                }
            })
        }
        (CompiledPeer::Block(block), PeerKind::External) => {
            Some((Rank::IpBlock, Miss::IpBlock { block: block_text(evaluation, block).into() }))
        }
        (CompiledPeer::Block(block), PeerKind::Pod(_) | PeerKind::Node)
            if evaluation.dialect.ip_block_matches_pods == Some(true) =>
        {
            Some((Rank::IpBlock, Miss::IpBlock { block: block_text(evaluation, block).into() }))
        }
        _ => None,
    }
}

/// A condition in words: a namespace by its name, labels as `kubectl -l` writes them.
pub(super) fn atom_text(evaluation: &Evaluation<'_>, atom: Option<AtomId>) -> String {
    match atom.and_then(|atom| evaluation.compiled.atoms.get(atom.0 as usize)) {
        None => "everything".to_owned(),
        Some(Atom::Namespace(name)) => name.to_string(),
        Some(Atom::NamespaceLabels(selector) | Atom::PodLabels(selector)) => selector.to_string(),
    }
}

/// `192.0.2.0/24 except 192.0.2.128/25`.
pub(super) fn block_text(evaluation: &Evaluation<'_>, block: &CompiledBlock) -> String {
    let prefixes = &evaluation.compiled.prefixes;
    let net = |id| prefixes.net(id).map(ToString::to_string).unwrap_or_default();
    let mut text = block.cidr.as_ref().map_or_else(|_| "an unreadable block".to_owned(), |cidr| net(*cidr));
    let except: Vec<String> = block.except.iter().map(|id| net(*id)).collect();
    if !except.is_empty() {
        text = format!("{text} except {}", except.join(", "));
    }
    text
}

/// `80/TCP, 8000-8999/TCP, http=8080/TCP`: names with what they mean on this responder.
pub(super) fn ports_text(evaluation: &Evaluation<'_>, ports: &Ports) -> String {
    match ports {
        Ports::Any => "every port".to_owned(),
        Ports::Unknown(field) => format!("unreadable at {field}"),
        Ports::Of(ports) => {
            ports.iter().map(|port| port_text(evaluation, port)).collect::<Vec<_>>().join(", ")
        }
    }
}

fn port_text(evaluation: &Evaluation<'_>, port: &PortMatch) -> String {
    let protocol = port.protocol.as_ref().map_or("?", |protocol| protocol.as_str());
    match &port.port {
        Err(_) => format!("?/{protocol}"),
        Ok(PortSpec::Any) => format!("every {protocol} port"),
        Ok(PortSpec::Range { first, last }) if first == last => format!("{first}/{protocol}"),
        Ok(PortSpec::Range { first, last }) => format!("{first}-{last}/{protocol}"),
        Ok(PortSpec::From { first, .. }) => format!("{first}-?/{protocol}"),
        Ok(PortSpec::Named(name)) => match evaluation.responder() {
            PeerKind::Pod(pod) => match evaluation.named(pod, name).next() {
                Some(number) => format!("{name}={number}/{protocol}"),
                None => format!("{name}/{protocol} (no such container port)"),
            },
            PeerKind::Node | PeerKind::External => format!("{name}/{protocol} (only pods have named ports)"),
            PeerKind::Unknown(_) => format!("{name}/{protocol}"),
        },
    }
}
