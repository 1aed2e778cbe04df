//! Which of the usual breakages a connection would be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::cause::Cause;
use crate::model::edge::Protocol;
use crate::model::endpoint::{Connection, Endpoint, Party};
use crate::model::role::Roles;

/// Where clouds serve instance metadata and credentials (AWS, GCP, Azure, OpenStack; AWS on IPv6).
const METADATA_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
const METADATA_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254));

const DNS_PORT: u16 = 53;

/// The first cause that fits, from the most telling to the most general.
pub fn classify(connection: &Connection<'_>) -> Cause {
    let Connection { initiator, responder, port, protocol } = *connection;
    if is_dns(responder, port, protocol) {
        return if is_own_node(initiator, responder) { Cause::NodeLocalDns } else { Cause::Dns };
    }
    if responder.address.is_some_and(|address| address == METADATA_V4 || address == METADATA_V6) {
        return Cause::CloudMetadata;
    }
    if is_api_server(responder) {
        return Cause::ApiServer;
    }
    if has_role(initiator, Roles::METRICS_SCRAPER) {
        return Cause::Metrics;
    }
    if has_role(initiator, Roles::INGRESS_CONTROLLER) {
        return Cause::IngressController;
    }
    match (&initiator.endpoint, &responder.endpoint) {
        (Endpoint::Unknown(_), _) | (_, Endpoint::Unknown(_)) => Cause::Unknown,
        (_, Endpoint::External | Endpoint::Range(_)) => Cause::External,
        (Endpoint::External | Endpoint::Range(_), _) => Cause::FromOutside,
        (Endpoint::Node(_), _) | (_, Endpoint::Node(_)) => Cause::Node,
        _ if initiator.namespace() == responder.namespace() => Cause::SameNamespace,
        _ => Cause::CrossNamespace,
    }
}

fn has_role(party: &Party, role: Roles) -> bool {
    party.as_pod().is_some_and(|pod| pod.identity.roles.has(role))
}

fn is_dns(responder: &Party, port: u16, protocol: Protocol) -> bool {
    if port != DNS_PORT || !matches!(protocol, Protocol::Udp | Protocol::Tcp) {
        return false;
    }
    match &responder.endpoint {
        Endpoint::Pod(_) => has_role(responder, Roles::CLUSTER_DNS),
        Endpoint::Service(service) => {
            service.backends.iter().any(|backend| has_role(&backend.party, Roles::CLUSTER_DNS))
        }
        // NodeLocal DNSCache, or DNS pods that use their node's network.
        Endpoint::Node(_) => true,
        Endpoint::External | Endpoint::Range(_) | Endpoint::Unknown(_) => false,
    }
}

fn is_own_node(initiator: &Party, responder: &Party) -> bool {
    let node = initiator.as_pod().and_then(|pod| pod.node.as_ref());
    matches!(&responder.endpoint, Endpoint::Node(name) if Some(name) == node)
}

/// The Service through which pods reach the API server, in every cluster.
fn is_api_server(responder: &Party) -> bool {
    matches!(&responder.endpoint, Endpoint::Service(service)
        if &*service.namespace == "default" && &*service.name == "kubernetes")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::audit::ledger::tests::{mk_pod, mk_pod_with_roles};
    use crate::model::endpoint::{Pod, ServiceTarget};
    use crate::model::verdict::UnknownReason;

    fn mk_service(namespace: &str, name: &str) -> Party {
        let target = ServiceTarget { namespace: namespace.into(), name: name.into(), backends: Vec::new() };
        Party { address: None, endpoint: Endpoint::Service(Arc::new(target)) }
    }

    #[test]
    fn the_most_telling_cause_wins() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let web = mk_pod("shop", "web");
        let api = mk_pod("shop", "api");
        let database = mk_pod("data", "db");
        let dns = mk_pod_with_roles("kube-system", "coredns", Roles::CLUSTER_DNS);
        let prometheus = mk_pod_with_roles("monitoring", "prometheus", Roles::METRICS_SCRAPER);
        let traefik = mk_pod_with_roles("edge", "traefik", Roles::INGRESS_CONTROLLER);
        let node = Party { address: Some(address("192.0.2.1")), endpoint: Endpoint::Node("n1".into()) };
        let on_node = Pod { node: Some("n1".into()), ..Pod::clone(web.as_pod().unwrap()) };
        let local = Party::pod(Arc::new(on_node), None);
        let outside = Party::external(address("203.0.113.10"));
        let unknown = Party::unknown(None, UnknownReason::AddressUnjoined);
        let metadata = Party::external(address("169.254.169.254"));
        let metadata_v6 = Party::external(address("fd00:ec2::254"));
        let (api_server, other) = (mk_service("default", "kubernetes"), mk_service("shop", "api"));
        for (initiator, responder, port, expected) in [
            (&web, &dns, 53, Cause::Dns),
            (&web, &dns, 9153, Cause::CrossNamespace),
            (&web, &node, 53, Cause::Dns),
            (&local, &node, 53, Cause::NodeLocalDns),
            (&local, &dns, 53, Cause::Dns),
            (&prometheus, &dns, 53, Cause::Dns),
            (&prometheus, &api, 9090, Cause::Metrics),
            (&traefik, &web, 8080, Cause::IngressController),
            (&web, &metadata, 80, Cause::CloudMetadata),
            (&web, &metadata_v6, 80, Cause::CloudMetadata),
            (&web, &api_server, 443, Cause::ApiServer),
            (&web, &other, 443, Cause::SameNamespace),
            (&web, &outside, 53, Cause::External),
            (&outside, &web, 8080, Cause::FromOutside),
            (&node, &web, 8080, Cause::Node),
            (&web, &api, 8080, Cause::SameNamespace),
            (&web, &database, 5432, Cause::CrossNamespace),
            (&web, &unknown, 5432, Cause::Unknown),
        ] {
            let connection = Connection { initiator, responder, port, protocol: Protocol::Tcp };
            assert_eq!(classify(&connection), expected, "{initiator:?} → {responder:?}:{port}");
        }
    }
}
