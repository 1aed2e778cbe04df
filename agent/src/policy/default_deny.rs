//! What the scenario `default-deny` adds: a deny-all in every namespace in scope, and what it assumes allowed.

use std::sync::Arc;

use crate::model::edge::{Direction, Protocol};
use crate::model::identity::Identity;
use crate::model::object::ObjectRef;
use crate::model::role::Roles;
use crate::model::scenario::{Assumption, DefaultDeny};

use super::given::Given;
use super::spec::{Action, PortMatch, PortSpec, Ports};
use super::tier::{CompiledPeer, CompiledPeers, CompiledPolicy, CompiledRule, CompiledSection};

/// The kind and the name by which reports show the added policy.
const KIND: &str = "DefaultDeny";
pub(super) const NAME: &str = "default-deny";

/// The policy that the scenario adds for pods of this identity; none where the namespace is exempt.
///
/// It selects them in the directions that are denied and has a rule for each assumption that concerns them.
pub(crate) fn policy_for(subject: &Identity, settings: &DefaultDeny) -> Option<CompiledPolicy> {
    if settings.exempt_namespaces.contains(&subject.namespace) {
        return None;
    }
    let section = |direction| CompiledSection {
        applies: Ok(settings.directions.contains(&direction)),
        isolates: Ok(true),
        denies: false,
        rules: settings.assume.iter().filter_map(|a| rule(*a, direction, subject.roles)).collect(),
    };
    Some(CompiledPolicy {
        reference: Arc::new(ObjectRef::namespaced(KIND, &subject.namespace, NAME)),
        subject: None,
        rank: u32::MAX,
        egress: section(Direction::Egress),
        ingress: section(Direction::Ingress),
    })
}

/// The rule that an assumption gives a pod with these roles: to or from pods of a role, or, for a pod that has
/// the role itself, to or from anyone.
fn rule(assumption: Assumption, direction: Direction, subject: Roles) -> Option<CompiledRule> {
    // The role's pods answer DNS, but they ask as scrapers and ingress controllers.
    let (role, role_asks, protocols, port) = match assumption {
        Assumption::Dns => {
            let port = PortSpec::Range { first: 53, last: 53 };
            (Roles::CLUSTER_DNS, false, &[Protocol::Udp, Protocol::Tcp][..], port)
        }
        Assumption::Metrics => (Roles::METRICS_SCRAPER, true, PORT_PROTOCOLS, PortSpec::Any),
        Assumption::Ingress => (Roles::INGRESS_CONTROLLER, true, PORT_PROTOCOLS, PortSpec::Any),
    };
    let peer_has_role = (direction == Direction::Ingress) == role_asks;
    let peers = if peer_has_role {
        CompiledPeers::Of(vec![CompiledPeer::Role(role)])
    } else if subject.has(role) {
        CompiledPeers::Any
    } else {
        return None;
    };
    let ports =
        protocols.iter().map(|protocol| PortMatch { protocol: Ok(*protocol), port: Ok(port.clone()) });
    Some(CompiledRule {
        action: Action::Allow,
        peers,
        ports: Ports::Of(ports.collect()),
        not_ports: Vec::new(),
        given: Given::nothing(),
        l7: None,
        index: 0,
        name: None,
        assumed: Some(assumption),
    })
}

const PORT_PROTOCOLS: &[Protocol] = &[Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
