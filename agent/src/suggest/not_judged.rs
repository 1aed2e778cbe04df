//! What no NetworkPolicy judges, so that no rule is needed for it. The judge has the same cases
//! (`model::verdict::NotJudged`); the property tests hold both together.

use crate::model::dialect::Dialect;
use crate::model::edge::Direction;
use crate::model::endpoint::{Party, Pod};

/// Whether the peer is the subject's own node, and the dialect lets them talk whatever policies say.
pub(super) fn is_allowed_own_node(
    subject: &Pod,
    peer: &Party,
    direction: Direction,
    dialect: &Dialect,
) -> bool {
    let judged = match direction {
        Direction::Egress => dialect.pod_to_own_node_judged,
        Direction::Ingress => dialect.own_node_to_pod_judged,
    };
    let own = match (&subject.node, peer.as_node().flatten()) {
        (Some(own), Some(node)) => own == node,
        _ => false,
    };
    own && judged == Some(false)
}
