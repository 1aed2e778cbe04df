//! The nearest miss: which rule came closest to allowing what was denied, and what it lacked.

use std::sync::Arc;

use crate::model::verdict::{Miss, NearestMiss};

use super::cache::TierSelection;
use super::evaluate::{Evaluation, PeerKind, index};
use super::spec::{Action, PortMatch, PortSpec, Ports, Reach};
use super::tier::{
    BlockSet, CompiledBlock, CompiledNodes, CompiledPeer, CompiledPeers, CompiledPolicy, CompiledRule,
    ConditionId,
};
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
    /// Something else about the peer.
    Peer,
    PeerAndPort,
}

/// The nearest miss among the rules of the policies that select the subject; the first of equals. None where
/// no rule speaks of such a peer at all. Texts are made only for the one that is shown.
pub(crate) fn miss(evaluation: &mut Evaluation<'_>, selection: &TierSelection) -> Option<NearestMiss> {
    let mut best: Option<(Rank, &CompiledPolicy, &CompiledRule, Option<usize>)> = None;
    'search: for selected in &selection.policies {
        let policy = &*selected.policy;
        for rule in &policy.section(evaluation.direction).rules {
            // What a scenario assumes is not for anyone to mend.
            if rule.assumed.is_some() || rule.action != Action::Allow {
                continue;
            }
            let Some((rank, peer)) = rank_rule(evaluation, rule) else { continue };
            if best.as_ref().is_none_or(|(known, ..)| rank < *known) {
                best = Some((rank, policy, rule, peer));
            }
            if rank == Rank::Port {
                break 'search;
            }
        }
    }
    let (rank, policy, rule, peer) = best?;
    let lacks = lacks(evaluation, rule, rank, peer)?;
    Some(NearestMiss {
        policy: Arc::clone(&policy.reference),
        rule: rule.index,
        rule_name: rule.name.clone(),
        peer: peer.map(index),
        lacks,
    })
}

/// How near a rule that does not match came, and by which of its peers.
fn rank_rule(evaluation: &mut Evaluation<'_>, rule: &CompiledRule) -> Option<(Rank, Option<usize>)> {
    let port_lacks = evaluation.rule_ports(rule) == Tri::No;
    let CompiledPeers::Of(peers) = &rule.peers else {
        let any = matches!(rule.peers, CompiledPeers::Any);
        // A rule with ports never matches ICMP: no other port would help.
        return (any && port_lacks && evaluation.protocol.has_ports()).then_some((Rank::Port, None));
    };
    let mut best = None;
    for (at, peer) in peers.iter().enumerate() {
        let rank = match rank_peer(evaluation, peer) {
            Some(Rank::Port) if !evaluation.protocol.has_ports() => continue,
            // It lacks what else the rule asks for, which is no port.
            Some(Rank::Port) if !port_lacks => continue,
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
        (CompiledPeer::Pods { namespaces, pods }, PeerKind::Pod(identity)) => {
            let in_namespace = evaluation.holds(*namespaces, identity);
            match (in_namespace, evaluation.holds(*pods, identity)) {
                (Tri::Yes, Tri::Yes) => Some(Rank::Port),
                (Tri::Yes, Tri::No) => Some(Rank::PodLabels),
                (Tri::No, Tri::Yes) => Some(Rank::Namespace),
                (Tri::No, Tri::No) => Some(Rank::NamespaceAndLabels),
                // What is unknown is not missed.
                (Tri::Maybe(_), _) | (_, Tri::Maybe(_)) => None,
            }
        }
        (CompiledPeer::Block(_, reach), kind) => {
            let in_cluster = matches!(kind, PeerKind::Pod(_) | PeerKind::Node { .. });
            let by_address = matches!(kind, PeerKind::External)
                || in_cluster && *reach == Reach::Everyone
                || in_cluster
                    && *reach == Reach::Dialect
                    && evaluation.dialect.ip_block_matches_pods == Some(true);
            by_address.then(|| match evaluation.peer(peer) {
                Tri::Yes => Rank::Port,
                Tri::No | Tri::Maybe(_) => Rank::IpBlock,
            })
        }
        (
            CompiledPeer::All(_)
            | CompiledPeer::Any(_)
            | CompiledPeer::Not(_)
            | CompiledPeer::Blocks(..)
            | CompiledPeer::Named(..)
            | CompiledPeer::Nodes(_)
            | CompiledPeer::Mesh(_)
            | CompiledPeer::Outside,
            _,
        ) => match evaluation.peer(peer) {
            Tri::Yes => Some(Rank::Port),
            Tri::No => Some(Rank::Peer),
            Tri::Maybe(_) => None,
        },
        _ => None,
    }
}

fn lacks(evaluation: &Evaluation<'_>, rule: &CompiledRule, rank: Rank, peer: Option<usize>) -> Option<Miss> {
    let peer = match &rule.peers {
        CompiledPeers::Of(peers) => peers.get(peer.unwrap_or_default()),
        CompiledPeers::Any | CompiledPeers::Unknown(_) => None,
    };
    let text = |id: ConditionId| Arc::from(condition_text(evaluation, Some(id)));
    Some(match (rank, peer) {
        (Rank::PeerAndPort, _) => Miss::PeerAndPort,
        (Rank::Port, _) => Miss::Port {
            asked: evaluation.port,
            protocol: evaluation.protocol,
            allowed: rule_ports_text(evaluation, rule).into(),
        },
        (Rank::PodLabels, Some(CompiledPeer::Pods { pods: Some(pods), .. })) => {
            Miss::PodLabels { selector: text(*pods) }
        }
        (
            Rank::Namespace | Rank::NamespaceAndLabels,
            Some(CompiledPeer::Pods { namespaces: Some(namespaces), .. }),
        ) => Miss::NamespaceLabels { selector: text(*namespaces) },
        (Rank::IpBlock, Some(CompiledPeer::Block(block, _))) => {
            Miss::IpBlock { block: block_text(evaluation, block).into() }
        }
        (Rank::Peer, Some(peer)) => Miss::Peer { wanted: peer_text(evaluation, peer).into() },
        _ => return None,
    })
}

/// A condition in words: a namespace by its name, labels as `kubectl -l` writes them.
pub(super) fn condition_text(evaluation: &Evaluation<'_>, id: Option<ConditionId>) -> String {
    match id.and_then(|id| evaluation.compiled.condition(id)) {
        None => "everything".to_owned(),
        Some(condition) => condition.to_string(),
    }
}

/// A peer in words.
pub(super) fn peer_text(evaluation: &Evaluation<'_>, peer: &CompiledPeer) -> String {
    let list = |peers: &[CompiledPeer], between: &str| {
        let each: Vec<String> = peers.iter().map(|peer| peer_text(evaluation, peer)).collect();
        each.join(between)
    };
    match peer {
        CompiledPeer::All(peers) if peers.is_empty() => "anyone".to_owned(),
        CompiledPeer::Any(peers) if peers.is_empty() => "nobody".to_owned(),
        CompiledPeer::All(peers) => list(peers, " and "),
        CompiledPeer::Any(peers) => list(peers, " or "),
        CompiledPeer::Not(peer) => format!("not ({})", peer_text(evaluation, peer)),
        CompiledPeer::Pods { namespaces, pods } => {
            let text = |id: &Option<ConditionId>| condition_text(evaluation, *id);
            format!("namespace {}, pods {}", text(namespaces), text(pods))
        }
        CompiledPeer::Role(roles) => format!("pods that are {roles}"),
        CompiledPeer::Nodes(CompiledNodes::Every) => "nodes".to_owned(),
        CompiledPeer::Nodes(CompiledNodes::Own) => "the pod's own node".to_owned(),
        CompiledPeer::Nodes(CompiledNodes::Other) => "other nodes".to_owned(),
        CompiledPeer::Nodes(CompiledNodes::Labelled(selector, _)) => format!("nodes {selector}"),
        CompiledPeer::Outside => "outside the cluster".to_owned(),
        CompiledPeer::Block(block, _) => block_text(evaluation, block),
        CompiledPeer::Blocks(set, _) => set_text(set),
        CompiledPeer::Named(pattern, ..) => pattern.to_string(),
        CompiledPeer::Mesh(wanted) => wanted.to_string(),
        CompiledPeer::Unknown(field) => field.stand_in(),
    }
}

/// `the set blocked (192.0.2.0/24, 198.51.100.0/24 and 12 more)`.
fn set_text(set: &BlockSet) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = set.nets.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = match set.nets.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let except = match &*set.except {
        [] => String::new(),
        [only] => format!(" except {only}"),
        many => format!(" except {} blocks", many.len()),
    };
    if shown.is_empty() {
        set.text.clone()
    } else {
        format!("{} ({}{more}{except})", set.text, shown.join(", "))
    }
}

/// A rule's ports in words, and those that it leaves out.
pub(super) fn rule_ports_text(evaluation: &Evaluation<'_>, rule: &CompiledRule) -> String {
    let ports = ports_text(evaluation, &rule.ports);
    if rule.not_ports.is_empty() {
        return ports;
    }
    let not: Vec<String> = rule.not_ports.iter().map(|port| port_text(evaluation, port)).collect();
    format!("{ports} but not {}", not.join(", "))
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
    let has_ports = port.protocol.as_ref().is_ok_and(|protocol| protocol.has_ports());
    match &port.port {
        Ok(PortSpec::Any) if !has_ports && port.protocol.is_ok() => format!("every {protocol}"),
        // Its type and code are where others have their port.
        Ok(PortSpec::Range { first, last }) if !has_ports && port.protocol.is_ok() => {
            let code = if first == last { format!(" code {}", first & 0xff) } else { String::new() };
            format!("{protocol} type {}{code}", first >> 8)
        }
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
            PeerKind::Node { .. } | PeerKind::External => {
                format!("{name}/{protocol} (only pods have named ports)")
            }
            PeerKind::Unknown(_) => format!("{name}/{protocol}"),
        },
    }
}
