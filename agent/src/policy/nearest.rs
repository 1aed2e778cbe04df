//! The nearest miss: which rule came closest to allowing what was denied, and what it lacked.

use std::sync::Arc;

use crate::model::verdict::{Miss, NearestMiss};

use super::cache::TierSelection;
use super::evaluate::{Evaluation, PeerKind, index};
use super::spec::{PortMatch, PortSpec, Ports};
use super::tier::{Atom, AtomId, CompiledBlock, CompiledPeer, CompiledPeers, CompiledPolicy, CompiledRule};
use super::tri::Tri;

/// How near a rule came, nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// The peer matches.
    Port,
    PodLabels,
    /// The pod's labels match.
    Namespace,
    IpBlock,
    NamespaceAndLabels,
    PeerAndPort,
}

/// The nearest miss among the rules of the policies that select the subject; the first of equals. None where
/// no rule speaks of such a peer at all. Texts are made only for the one that is shown.
pub(crate) fn miss(evaluation: &mut Evaluation<'_>, selection: &TierSelection) -> Option<NearestMiss> {
    let mut best: Option<(Rank, &CompiledPolicy, u32, Option<usize>)> = None;
    'search: for selected in &selection.policies {
        let policy = &*selected.policy;
        for (at, rule) in policy.section(evaluation.direction).rules.iter().enumerate() {
            // What a scenario assumes is not for anyone to mend.
            if rule.assumed.is_some() {
                continue;
            }
            let Some((rank, peer)) = rank_rule(evaluation, rule) else { continue };
            if best.as_ref().is_none_or(|(known, ..)| rank < *known) {
                best = Some((rank, policy, index(at), peer));
            }
            if rank == Rank::Port {
                break 'search;
            }
        }
    }
    let (rank, policy, rule, peer) = best?;
    let compiled = policy.section(evaluation.direction).rules.get(rule as usize)?;
    let lacks = lacks(evaluation, compiled, rank, peer)?;
    Some(NearestMiss { policy: Arc::clone(&policy.reference), rule, peer: peer.map(index), lacks })
}

/// How near a rule that does not match came, and by which of its peers.
fn rank_rule(evaluation: &mut Evaluation<'_>, rule: &CompiledRule) -> Option<(Rank, Option<usize>)> {
    let port_lacks = evaluation.ports(&rule.ports) == Tri::No;
    let CompiledPeers::Of(peers) = &rule.peers else {
        let any = matches!(rule.peers, CompiledPeers::Any);
        // A rule with ports never matches ICMP: no other port would help.
        return (any && port_lacks && evaluation.protocol.has_ports()).then_some((Rank::Port, None));
    };
    let mut best = None;
    for (at, peer) in peers.iter().enumerate() {
        let rank = match rank_peer(evaluation, peer) {
            Some(Rank::Port) if !evaluation.protocol.has_ports() => continue,
            Some(Rank::Port) => return Some((Rank::Port, Some(at))),
            Some(_) if port_lacks => Rank::PeerAndPort,
            Some(rank) => rank,
            None => continue,
        };
        if best.is_none_or(|(known, _)| rank < known) {
            best = Some((rank, Some(at)));
        }
    }
    best
}

/// What a peer lacks, `Port` if it matches; none where it speaks of another kind of peer.
fn rank_peer(evaluation: &mut Evaluation<'_>, peer: &CompiledPeer) -> Option<Rank> {
    match (peer, evaluation.peer) {
        (CompiledPeer::Pods { namespaces: Ok(namespaces), pods: Ok(pods) }, PeerKind::Pod(identity)) => {
            let in_namespace = evaluation.holds(*namespaces, identity);
            Some(match (in_namespace, evaluation.holds(*pods, identity)) {
                (true, true) => Rank::Port,
                (true, false) => Rank::PodLabels,
                (false, true) => Rank::Namespace,
                (false, false) => Rank::NamespaceAndLabels,
            })
        }
        (CompiledPeer::Block(_), kind) => {
            let by_address = matches!(kind, PeerKind::External)
                || matches!(kind, PeerKind::Pod(_) | PeerKind::Node)
                    && evaluation.dialect.ip_block_matches_pods == Some(true);
            by_address.then(|| match evaluation.peer(peer) {
                Tri::Yes => Rank::Port,
                Tri::No | Tri::Maybe(_) => Rank::IpBlock,
            })
        }
        _ => None,
    }
}

fn lacks(evaluation: &Evaluation<'_>, rule: &CompiledRule, rank: Rank, peer: Option<usize>) -> Option<Miss> {
    let peer = match &rule.peers {
        CompiledPeers::Of(peers) => peers.get(peer.unwrap_or_default()),
        CompiledPeers::Any | CompiledPeers::Unknown(_) => None,
    };
    let text = |atom: AtomId| Arc::from(atom_text(evaluation, Some(atom)));
    Some(match (rank, peer) {
        (Rank::PeerAndPort, _) => Miss::PeerAndPort,
        (Rank::Port, _) => Miss::Port {
            asked: evaluation.port,
            protocol: evaluation.protocol,
            allowed: ports_text(evaluation, &rule.ports).into(),
        },
        (Rank::PodLabels, Some(CompiledPeer::Pods { pods: Ok(Some(pods)), .. })) => {
            Miss::PodLabels { selector: text(*pods) }
        }
        (
            Rank::Namespace | Rank::NamespaceAndLabels,
            Some(CompiledPeer::Pods { namespaces: Ok(Some(namespaces)), .. }),
        ) => Miss::NamespaceLabels { selector: text(*namespaces) },
        (Rank::IpBlock, Some(CompiledPeer::Block(block))) => {
            Miss::IpBlock { block: block_text(evaluation, block).into() }
        }
        _ => return None,
    })
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
