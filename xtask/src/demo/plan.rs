//! What happens in the demo, and what must be said about it: one row a flow.
//!
//! Judged as the standard dialect does, with the scenarios' defaults: `default-deny` isolates both directions in
//! every namespace but kube-system, and assumes DNS to the cluster's DNS allowed. Egress is judged at the
//! initiator's pod, ingress at the responder's; an end that is no pod allows, as nothing selects it.

use std::net::IpAddr;

use super::cluster::{Cluster, Pod};
use super::network;

/// One end of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The only pod of a workload: namespace, workload.
    Pod(&'static str, &'static str),
    Node,
    /// A host outside the cluster, by IPv4 and IPv6 address.
    Outside(IpAddr, Option<IpAddr>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    /// As the Kubernetes API and the agent spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// What becomes of each attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Answered,
    /// Nothing listens there.
    Refused,
    /// The packets vanish.
    Unanswered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Deny,
}

impl Verdict {
    /// As the agent spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::Deny => "Deny",
        }
    }
}

/// What one scenario says of both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdicts {
    pub egress: Verdict,
    pub ingress: Verdict,
}

impl Verdicts {
    /// One denial denies.
    pub const fn both(self) -> Verdict {
        match (self.egress, self.ingress) {
            (Verdict::Allow, Verdict::Allow) => Verdict::Allow,
            _ => Verdict::Deny,
        }
    }
}

/// Attempts of one end to reach the other, and the verdicts that they must get.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    pub from: End,
    pub to: End,
    pub port: u16,
    pub transport: Transport,
    pub ipv6: bool,
    pub count: u32,
    pub fate: Fate,
    pub enforced: Verdicts,
    pub default_deny: Verdicts,
}

const TRAEFIK: End = End::Pod("traefik-system", "traefik");
const WEB: End = End::Pod("myapp-staging", "my-web-client");
const API: End = End::Pod("myapp-staging", "myapp-api");
const WORKERS: End = End::Pod("myapp-staging", "myapp-workers");
const POSTGRESQL: End = End::Pod("data-layer", "postgresql");
const NATS: End = End::Pod("data-layer", "nats");
const QDRANT: End = End::Pod("data-layer", "qdrant");
const MINIO: End = End::Pod("data-layer", "minio");
const OLLAMA: End = End::Pod("ai", "ollama");
const PROMETHEUS: End = End::Pod("monitoring", "prometheus");
const DNS: End = End::Pod("kube-system", "coredns");
const STOREFRONT: End = End::Pod("legacy-shop", "storefront");
const CART: End = End::Pod("legacy-shop", "cart");
const HOST: End = End::Outside(network::OUTSIDE_HOST, Some(network::OUTSIDE_HOST_V6));
const METADATA: End = End::Outside(network::METADATA, None);
const SILENT: End = End::Outside(network::SILENT, None);

const fn verdicts(egress: Verdict, ingress: Verdict) -> Verdicts {
    Verdicts { egress, ingress }
}
/// Egress, then ingress.
const AA: Verdicts = verdicts(Verdict::Allow, Verdict::Allow);
const AD: Verdicts = verdicts(Verdict::Allow, Verdict::Deny);
const DA: Verdicts = verdicts(Verdict::Deny, Verdict::Allow);
const DD: Verdicts = verdicts(Verdict::Deny, Verdict::Deny);

const fn tcp(from: End, to: End, port: u16, count: u32, enforced: Verdicts, default_deny: Verdicts) -> Flow {
    let (transport, ipv6, fate) = (Transport::Tcp, false, Fate::Answered);
    Flow { from, to, port, transport, ipv6, count, fate, enforced, default_deny }
}
const fn udp(from: End, to: End, port: u16, count: u32, enforced: Verdicts, default_deny: Verdicts) -> Flow {
    Flow { transport: Transport::Udp, ..tcp(from, to, port, count, enforced, default_deny) }
}
impl Flow {
    const fn v6(self) -> Self {
        Self { ipv6: true, ..self }
    }
    const fn fate(self, fate: Fate) -> Self {
        Self { fate, ..self }
    }

    /// Whether the segment map of tiers forbids it: the web client is at the edge, which does not reach the data.
    pub fn violates_tiers(&self) -> bool {
        self.from == WEB && matches!(self.to, End::Pod("data-layer", _))
    }
}

/// Everything that happens. Counts differ from flow to flow, so that none can be taken for another.
pub const FLOWS: &[Flow] = &[
    // The way in. Traefik's namespace has no policy; the application admits it by name.
    tcp(HOST, TRAEFIK, 8443, 25, AA, AD),
    tcp(TRAEFIK, API, 8080, 40, AA, DA),
    tcp(TRAEFIK, WEB, 8080, 31, AA, DA),
    // The application, as its policies have it.
    tcp(WEB, API, 8080, 23, AA, AA),
    tcp(WEB, API, 8080, 9, AA, AA).v6(),
    tcp(WEB, NATS, 4222, 5, AA, AA),
    tcp(API, POSTGRESQL, 5432, 37, AA, AA),
    tcp(API, NATS, 4222, 11, AA, AA),
    tcp(WORKERS, POSTGRESQL, 5432, 13, AA, AA),
    tcp(WORKERS, NATS, 4222, 17, AA, AA),
    tcp(WORKERS, NATS, 4222, 6, AA, AA).v6(),
    tcp(WORKERS, QDRANT, 6333, 8, AA, AA),
    tcp(WORKERS, MINIO, 9000, 10, AA, AA),
    tcp(WORKERS, HOST, 443, 19, AA, AA),
    tcp(WORKERS, HOST, 443, 4, AA, AA).v6(),
    // The workers' side has a rule for it; ollama's namespace has no policy yet.
    tcp(WORKERS, OLLAMA, 11434, 18, AA, AD),
    // DNS of all of staging, over both transports and families.
    udp(WEB, DNS, 53, 14, AA, AA),
    udp(API, DNS, 53, 12, AA, AA),
    udp(WORKERS, DNS, 53, 16, AA, AA),
    udp(WORKERS, DNS, 53, 7, AA, AA).v6(),
    tcp(WORKERS, DNS, 53, 3, AA, AA),
    // The cluster's DNS asks on; kube-system is exempt from default-deny.
    udp(DNS, HOST, 53, 20, AA, AA),
    // A probe from the pod's own node is always allowed.
    tcp(End::Node, API, 8080, 21, AA, AA),
    // What the policies in force forbid.
    tcp(API, QDRANT, 6333, 22, DD, DD),
    tcp(WEB, POSTGRESQL, 5432, 24, DD, DD),
    tcp(PROMETHEUS, API, 9090, 15, AD, DD),
    tcp(WORKERS, METADATA, 80, 26, DA, DA),
    // What works today, and default-deny would break.
    tcp(PROMETHEUS, DNS, 9153, 27, AA, DA),
    tcp(STOREFRONT, CART, 8080, 28, AA, DD),
    tcp(STOREFRONT, CART, 8080, 29, AA, DD).v6(),
    tcp(STOREFRONT, OLLAMA, 11434, 30, AA, DD),
    // Assumed allowed, since nothing runs without it.
    udp(STOREFRONT, DNS, 53, 32, AA, AA),
    // Nothing listens, or nobody answers: attempts all the same.
    tcp(STOREFRONT, CART, 8444, 33, AA, DD).fate(Fate::Refused),
    tcp(STOREFRONT, CART, 8444, 34, AA, DD).fate(Fate::Refused).v6(),
    udp(STOREFRONT, CART, 9999, 2, AA, DD).fate(Fate::Refused),
    tcp(STOREFRONT, SILENT, 443, 1, AA, DA).fate(Fate::Unanswered),
];

impl End {
    /// Its address of one family in this cluster.
    pub fn address(self, cluster: &Cluster, ipv6: bool) -> Option<IpAddr> {
        match self {
            Self::Pod(..) => self.pod(cluster)?.address(ipv6),
            Self::Node => cluster.node_address(ipv6),
            Self::Outside(v4, v6) => {
                if ipv6 {
                    v6
                } else {
                    Some(v4)
                }
            }
        }
    }

    /// The pod, if it is one.
    pub fn pod(self, cluster: &Cluster) -> Option<&Pod> {
        match self {
            Self::Pod(namespace, workload) => cluster.pod(namespace, workload),
            Self::Node | Self::Outside(..) => None,
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pod(namespace, workload) => write!(f, "{namespace}/{workload}"),
            Self::Node => f.write_str("node"),
            Self::Outside(address, _) => write!(f, "{address}"),
        }
    }
}

impl std::fmt::Display for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let family = if self.ipv6 { " over IPv6" } else { "" };
        write!(f, "{} → {}:{}/{}{family}", self.from, self.to, self.port, self.transport.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_flow_fits_the_manifests() {
        let cluster = Cluster::read(&Cluster::manifests()).unwrap();
        for flow in FLOWS {
            for end in [flow.from, flow.to] {
                assert!(end.address(&cluster, flow.ipv6).is_some(), "{flow}: {end} has no address");
            }
            let Some(pod) = flow.to.pod(&cluster) else { continue };
            let listens = pod.ports.contains(&(flow.transport.as_str().to_owned(), flow.port));
            assert_eq!(listens, flow.fate == Fate::Answered, "{flow}");
        }
    }

    #[test]
    fn counts_and_edges_are_all_different() {
        let cluster = Cluster::read(&Cluster::manifests()).unwrap();
        let counts: BTreeSet<_> = FLOWS.iter().map(|flow| flow.count).collect();
        assert_eq!(counts.len(), FLOWS.len());
        let edges: BTreeSet<_> = FLOWS
            .iter()
            .map(|flow| {
                let address = |end: End| end.address(&cluster, flow.ipv6);
                (address(flow.from), address(flow.to), flow.port, flow.transport.as_str())
            })
            .collect();
        assert_eq!(edges.len(), FLOWS.len());
    }

    #[test]
    fn default_deny_never_allows_what_is_denied_today() {
        for flow in FLOWS {
            for (today, then) in [
                (flow.enforced.egress, flow.default_deny.egress),
                (flow.enforced.ingress, flow.default_deny.ingress),
            ] {
                assert!(today == Verdict::Allow || then == Verdict::Deny, "{flow}");
            }
        }
    }
}
