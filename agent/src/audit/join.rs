//! Who the two addresses of an observation were, when its packets passed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::binding::{Bindings, Claim, PodKey};
use super::translations::{Opener, Part};
use crate::cluster::index::Index;
use crate::model::edge::{Budget, Direction, EdgeKey, Observation, Scope};
use crate::model::endpoint::{Backend, Endpoint, Party, ServiceTarget};
use crate::model::time::Timestamp;
use crate::model::verdict::UnknownReason;

/// Both ends of an observation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    pub initiator: Party,
    pub responder: Party,
}

/// What joining gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joined {
    /// Both ends are known, or known to be unknowable.
    Now(Ends),
    /// The address of one end passed from one owner to another in the interval: one of the two.
    Either(Ends, Ends),
    /// An end may still become known. What it is held for meanwhile.
    Wait(Ends),
}

/// The pod at the interface, and whether its address was one that the node routes elsewhere.
struct Local {
    party: Party,
    settled: bool,
}

/// Joins a part of an observation with what the index knows at `now`; `backends` is where the node's NAT sent it.
pub fn join(
    index: &Index,
    bindings: &mut Bindings,
    part: &Part,
    backends: &[SocketAddr],
    now: Timestamp,
) -> Joined {
    let Part { seen, opener } = part;
    let key = &seen.key;
    if let Scope::OverBudget(budget) = key.scope {
        return over_budget(index, bindings, seen, budget);
    }
    let local = local_end(index, bindings, seen, now);
    let node = local.party.as_pod().and_then(|pod| pod.node.as_ref()).or(index.own_node());
    let remote_address = match key.direction {
        Direction::Egress => key.responder,
        Direction::Ingress => key.initiator,
    };
    let remote_at = |time| match (key.scope, key.direction) {
        (Scope::Range(length), _) => range(index, remote_address, length, time),
        (_, Direction::Egress) => {
            let party =
                index.party_at(remote_address, key.port, key.protocol, node.map(|name| &**name), time);
            with_backends(index, party, backends, time)
        }
        (_, Direction::Ingress) => initiator(index, key, *opener, time),
    };
    let remote_at = |time| news_may_be_missed(index, remote_at(time), seen.first_seen);
    let (remote, settled) = settle(index, remote_at(seen.last_seen), || remote_at(now));
    let ends = |remote: Party| match key.direction {
        Direction::Egress => Ends { initiator: local.party.clone(), responder: remote },
        Direction::Ingress => Ends { initiator: remote, responder: local.party.clone() },
    };
    if !(settled && local.settled) || index.gaps().is_starting {
        return Joined::Wait(ends(remote));
    }
    // The delta's packets lie after the last reading, and not before the edge's first packet.
    let from = seen.read_from.max(seen.first_seen).min(seen.last_seen);
    let changed = |address| index.owner_changed(address, from, seen.last_seen);
    if changed(remote_address) {
        let before = remote_at(from);
        if before.endpoint != remote.endpoint {
            return Joined::Either(ends(before), ends(remote));
        }
    }
    // The interface says whose packets they are, but not which labels the pod had then.
    if changed(key.local())
        && let before = index.initiator_at(key.local(), from)
        && is_same_pod(&before, &local.party)
        && before.endpoint != local.party.endpoint
    {
        let after = ends(remote);
        let before = match key.direction {
            Direction::Egress => Ends { initiator: before, ..after.clone() },
            Direction::Ingress => Ends { responder: before, ..after.clone() },
        };
        return Joined::Either(before, after);
    }
    Joined::Now(ends(remote))
}

/// Addresses that were counted together because they were outside the cluster. Where the cluster has a part of
/// them now, whose packets they were cannot be told.
fn range(index: &Index, network: IpAddr, length: u8, at: Timestamp) -> Party {
    match index.initiator_at(network, at).endpoint {
        Endpoint::External => Party::range(network, length),
        _ => unjoined(network),
    }
}

/// An edge of all that a budget had no room for: its pod is the interface's.
fn over_budget(index: &Index, bindings: &Bindings, seen: &Observation, budget: Budget) -> Joined {
    let pod = bindings.pod(seen.key.interface).and_then(|key| key.find(index));
    let (local, settled) = match &pod {
        Some(pod) => (index.party_of(pod, None), true),
        None => (Party::unknown(None, UnknownReason::AddressUnjoined), false),
    };
    let rest = Party::unknown(None, UnknownReason::OverBudget(budget));
    let ends = match seen.key.direction {
        Direction::Egress => Ends { initiator: local, responder: rest },
        Direction::Ingress => Ends { initiator: rest, responder: local },
    };
    if settled && !index.gaps().is_starting { Joined::Now(ends) } else { Joined::Wait(ends) }
}

/// Who opened what the pod behind the interface was asked for. A node's address may be there in place of a
/// client's; then it is not the node that is judged.
fn initiator(index: &Index, key: &EdgeKey, opener: Opener, time: Timestamp) -> Party {
    let party = index.initiator_at(key.initiator, time);
    if !matches!(party.endpoint, Endpoint::Node(_)) {
        return party;
    }
    let hidden = match opener {
        Opener::Hidden => true,
        // What another node translated, our own connection tracking does not know.
        Opener::Confirmed if index.is_own_node(&party) => false,
        Opener::Confirmed | Opener::Seen => index.may_hide_initiator(key.responder, key.port, key.protocol),
    };
    if hidden { Party::unknown(Some(key.initiator), UnknownReason::Snat) } else { party }
}

/// A Service with the backends besides that the node sent connections to: its slices may be behind.
fn with_backends(index: &Index, party: Party, told: &[SocketAddr], time: Timestamp) -> Party {
    let Endpoint::Service(target) = &party.endpoint else { return party };
    let is_known = |told: &SocketAddr| {
        let mut known = target.backends.iter();
        known.any(|backend| backend.port == told.port() && backend.party.address == Some(told.ip()))
    };
    let unknown: Vec<Backend> = told
        .iter()
        .filter(|told| !is_known(told))
        .map(|told| Backend { party: index.initiator_at(told.ip(), time), port: told.port() })
        .collect();
    if unknown.is_empty() {
        return party;
    }
    let mut target = ServiceTarget::clone(target);
    target.backends.extend(unknown);
    Party { endpoint: Endpoint::Service(Arc::new(target)), ..party }
}

fn is_same_pod(a: &Party, b: &Party) -> bool {
    matches!((a.as_pod(), b.as_pod()), (Some(a), Some(b)) if PodKey::of(a) == PodKey::of(b))
}

/// What an address was at the time of its packets; what it is now, if that was not known yet: the first
/// packets of a pod precede its `status.podIP`.
fn settle(index: &Index, then: Party, now: impl FnOnce() -> Party) -> (Party, bool) {
    if !awaits(index, &then) {
        return (then, true);
    }
    let now = now();
    let settled = !awaits(index, &now);
    (now, settled)
}

fn is_unjoined(party: &Party) -> bool {
    matches!(&party.endpoint, Endpoint::Unknown(reason) if may_become_known(reason))
}

/// The same; of a Service where pods are asked for, also where one of its backends is not known.
fn awaits(index: &Index, party: &Party) -> bool {
    let backend = |target: &ServiceTarget| target.backends.iter().any(|backend| is_unjoined(&backend.party));
    match &party.endpoint {
        Endpoint::Service(target) => index.asks_for_peers() && backend(target),
        _ => is_unjoined(party),
    }
}

/// The addresses of an edge's other end that belong to nobody who is known: its own, or those of backends.
pub fn unjoined_addresses(index: &Index, key: &EdgeKey, now: Timestamp) -> Vec<IpAddr> {
    if key.scope != Scope::Address {
        return Vec::new();
    }
    let party = match key.direction {
        Direction::Egress => index.party_at(key.responder, key.port, key.protocol, None, now),
        Direction::Ingress => index.initiator_at(key.initiator, now),
    };
    match &party.endpoint {
        Endpoint::Service(target) => {
            let backends = target.backends.iter().map(|backend| &backend.party);
            backends.filter(|party| is_unjoined(party)).filter_map(|party| party.address).collect()
        }
        _ if is_unjoined(&party) => party.address.into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Whether news of the cluster's objects may end it.
const fn may_become_known(reason: &UnknownReason) -> bool {
    matches!(reason, UnknownReason::AddressUnjoined | UnknownReason::NotSynced)
}

/// While news of the cluster's objects are missed, an address that nobody has may be a new pod's. One that was
/// reached before, by the edge's first packet, is not.
fn news_may_be_missed(index: &Index, party: Party, first_seen: Timestamp) -> Party {
    let missed = index.gaps().stale_since.is_some_and(|since| first_seen >= since);
    if missed && party.endpoint == Endpoint::External {
        return Party { endpoint: Endpoint::Unknown(UnknownReason::NotSynced), ..party };
    }
    party
}

fn local_end(index: &Index, bindings: &mut Bindings, seen: &Observation, now: Timestamp) -> Local {
    let address = seen.key.local();
    // Late news: at the time of the packets the old owner may still be recorded; now the new one is.
    for time in [seen.last_seen, now] {
        let party = index.initiator_at(address, time);
        match &party.endpoint {
            Endpoint::Pod(pod) => match bindings.claim(seen.key.interface, address, pod, now) {
                Claim::Owner => return Local { party, settled: true },
                Claim::Wait => {}
                Claim::Foreign => return Local { party: unjoined(address), settled: true },
            },
            Endpoint::Unknown(reason) if !may_become_known(reason) => {
                return Local { party, settled: true };
            }
            _ => {}
        }
    }
    Local { party: unjoined(address), settled: false }
}

const fn unjoined(address: IpAddr) -> Party {
    Party::unknown(Some(address), UnknownReason::AddressUnjoined)
}

#[cfg(test)]
mod tests;
