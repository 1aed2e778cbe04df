//! Who opened a connection that is older than the agent, where no socket told: the ports of Services and
//! containers, else nobody.

use rustc_hash::FxHashMap;

use super::join::Ends;
use crate::cluster::index::Index;
use crate::model::edge::{Direction, Observation, OrientedBy};
use crate::model::endpoint::Party;
use crate::model::time::Timestamp;
use crate::model::unoriented::{Unoriented, UnorientedKey};
use crate::model::verdict::UnknownReason;

/// The end of which the port is known to be served is the responder, unless both are.
pub(super) fn by_ports(index: &Index, seen: &Unoriented) -> Option<Direction> {
    let UnorientedKey { local, remote, protocol, .. } = seen.key;
    let serves = |end: std::net::SocketAddr| index.serves(end.ip(), end.port(), protocol, seen.last_seen);
    match (serves(local), serves(remote)) {
        (true, false) => Some(Direction::Ingress),
        (false, true) => Some(Direction::Egress),
        _ => None,
    }
}

/// An edge of unknown ends: every verdict on it is `Unknown`. So that it is listed at all, the end with the lower
/// port stands as the responder; that is no claim, and the ends' names are left out for it.
pub(super) fn unknown(seen: &Unoriented) -> (Observation, Ends) {
    let UnorientedKey { local, remote, .. } = seen.key;
    let direction = if remote.port() <= local.port() { Direction::Egress } else { Direction::Ingress };
    let seen = seen.oriented(direction, OrientedBy::Unknown);
    let unknown = |address| Party::unknown(Some(address), UnknownReason::Unoriented);
    let ends = Ends { initiator: unknown(seen.key.initiator), responder: unknown(seen.key.responder) };
    (seen, ends)
}

/// Connections that wait for news of the cluster, bounded in time (as those that wait for their ends) and number.
#[derive(Debug)]
pub(super) struct Unsettled {
    by_key: FxHashMap<UnorientedKey, (Unoriented, Timestamp)>,
    most: usize,
}

impl Unsettled {
    /// Holds at most `most` connections.
    pub(super) fn new(most: usize) -> Self {
        Self { by_key: FxHashMap::default(), most }
    }

    /// Holds what was counted, since `now`. More of the same adds up and does not prolong the wait. False if there
    /// is no room.
    pub(super) fn hold(&mut self, seen: Unoriented, now: Timestamp) -> bool {
        if let Some((held, _)) = self.by_key.get_mut(&seen.key) {
            held.absorb(&seen);
            return true;
        }
        if self.by_key.len() >= self.most {
            return false;
        }
        self.by_key.insert(seen.key, (seen, now));
        true
    }

    /// Lets one go that waited.
    pub(super) fn release(&mut self, key: &UnorientedKey) -> Option<Unoriented> {
        self.by_key.remove(key).map(|(held, _)| held)
    }

    /// Takes all out, each with when its wait began.
    pub(super) fn take(&mut self) -> Vec<(Unoriented, Timestamp)> {
        self.by_key.drain().map(|(_, held)| held).collect()
    }

    /// Puts one back that still has to wait.
    pub(super) fn put_back(&mut self, seen: Unoriented, since: Timestamp) {
        self.by_key.insert(seen.key, (seen, since));
    }
}
