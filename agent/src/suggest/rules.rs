//! Needs → the fewest rules that allow exactly them.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::evidence::Tallies;
use super::gather::{Needs, Peer, Port};

/// Peers that need the same ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) ports: BTreeSet<Port>,
    pub(super) peers: Vec<(Peer, Tallies)>,
}

/// Merges the ports of equal peers and the peers of equal ports. Blocks are merged only where the merged block
/// holds nothing else, and a block inside another gives up the ports that the other allows anyway.
pub(super) fn rules(mut needs: Needs) -> Vec<Rule> {
    give_up_covered(&mut needs);
    let mut by_ports: BTreeMap<BTreeSet<Port>, Needs> = BTreeMap::new();
    for (peer, need) in needs {
        by_ports.entry(need.ports.clone()).or_default().insert(peer, need);
    }
    let mut rules: Vec<Rule> =
        by_ports.into_iter().map(|(ports, needs)| Rule { ports, peers: merged(needs) }).collect();
    let first = |rule: &Rule| rule.peers.first().map(|(peer, _)| peer.clone());
    rules.sort_by(|a, b| (first(a), &a.ports).cmp(&(first(b), &b.ports)));
    rules
}

/// Takes from every block the ports that a block around it has too, and with them, if none is left, the block.
fn give_up_covered(needs: &mut Needs) {
    let blocks: Vec<Peer> = needs.keys().filter(|peer| peer.block().is_some()).cloned().collect();
    let mut of_block: BTreeMap<IpNet, Peer> = BTreeMap::new();
    let mut lengths = BTreeSet::new();
    // Widest first, so that what a block gives up goes to one that stays.
    let mut sorted = blocks;
    sorted.sort_by_key(|peer| (peer.block().map(|block| block.prefix_len()), peer.clone()));
    for peer in sorted {
        let Some(block) = peer.block() else { continue };
        let around: Vec<Peer> = lengths
            .iter()
            .filter(|length| **length <= block.prefix_len())
            .filter_map(|length| of_block.get(&IpNet::new(block.addr(), *length).ok()?.trunc()))
            .filter(|around| **around != peer)
            .cloned()
            .collect();
        for outer in around {
            give_up(needs, &peer, &outer);
        }
        if needs.contains_key(&peer) {
            lengths.insert(block.prefix_len());
            of_block.entry(block).or_insert(peer);
        }
    }
}

/// Takes from `inner` the ports that `outer` has.
fn give_up(needs: &mut Needs, inner: &Peer, outer: &Peer) {
    let Some(allowed) = needs.get(outer).map(|need| need.ports.clone()) else { return };
    let Some(need) = needs.get_mut(inner) else { return };
    need.ports.retain(|port| !allowed.contains(port));
    if need.ports.is_empty()
        && let Some(need) = needs.remove(inner)
        && let Some(outer) = needs.get_mut(outer)
    {
        outer.who.merge(need.who);
    }
}

/// The peers of one rule, sorted, with the blocks merged: nodes with nodes and outside addresses with their like,
/// so that a reader sees which is which.
fn merged(needs: Needs) -> Vec<(Peer, Tallies)> {
    let mut peers = Vec::new();
    let (mut nodes, mut external) = (BTreeMap::new(), BTreeMap::new());
    for (peer, need) in needs {
        match peer {
            Peer::Node(block) => {
                nodes.insert(block, need.who);
            }
            Peer::External(block) => {
                external.insert(block, need.who);
            }
            Peer::Namespace(_) | Peer::Workload(_) => peers.push((peer, need.who)),
        }
    }
    peers.extend(merged_blocks(nodes).into_iter().map(|(block, who)| (Peer::Node(block), who)));
    peers.extend(merged_blocks(external).into_iter().map(|(block, who)| (Peer::External(block), who)));
    peers
}

/// Merges blocks that together are exactly one larger block.
fn merged_blocks(blocks: BTreeMap<IpNet, Tallies>) -> BTreeMap<IpNet, Tallies> {
    let all: Vec<IpNet> = blocks.keys().copied().collect();
    let mut merged: BTreeMap<IpNet, Tallies> =
        IpNet::aggregate(&all).into_iter().map(|block| (block, Tallies::default())).collect();
    let lengths: BTreeSet<u8> = merged.keys().map(IpNet::prefix_len).collect();
    for (block, who) in blocks {
        let around = lengths
            .iter()
            .filter_map(|length| IpNet::new(block.addr(), *length).ok())
            .map(|block| block.trunc())
            .find(|block| merged.contains_key(block));
        if let Some(tallies) = around.and_then(|around| merged.get_mut(&around)) {
            tallies.merge(who);
        }
    }
    merged
}
