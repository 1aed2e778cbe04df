//! Roles: which pods are the cluster's DNS, scrape metrics, or bring requests in. Tables, not rules: a pod
//! that none of them names has no role.

use crate::model::labels::Labels;
use crate::model::role::Roles;

use super::object::Service;

/// Namespaces in which a Service on port 53 is the cluster's DNS: kubeadm's and OpenShift's DNS operator's.
const DNS_NAMESPACES: [&str; 2] = ["kube-system", "openshift-dns"];

/// Names that the cluster's DNS Service has in any namespace (kubeadm and the `coredns` chart, RKE2, the
/// DNS operator of OpenShift, NodeLocal DNSCache's upstream Service).
const DNS_SERVICES: [&str; 6] =
    ["kube-dns", "coredns", "rke2-coredns-rke2-coredns", "dns-default", "kube-dns-upstream", "core-dns"];

/// Values of the label `k8s-app` in `kube-system` (kubernetes/cluster/addons/dns).
const DNS_APPS: [&str; 5] = ["kube-dns", "coredns", "core-dns", "node-local-dns", "nodelocaldns"];

/// Values of `app.kubernetes.io/name`, or of `app`, and the role they mean: the names that the projects' own
/// charts and operators set.
const APPS: [(&str, Roles); 29] = [
    ("prometheus", Roles::METRICS_SCRAPER),
    ("prometheus-agent", Roles::METRICS_SCRAPER),
    ("prometheus-server", Roles::METRICS_SCRAPER),
    ("vmagent", Roles::METRICS_SCRAPER),
    ("victoria-metrics-agent", Roles::METRICS_SCRAPER),
    ("victoria-metrics-single", Roles::METRICS_SCRAPER),
    ("grafana-agent", Roles::METRICS_SCRAPER),
    ("alloy", Roles::METRICS_SCRAPER),
    ("otel-collector", Roles::METRICS_SCRAPER),
    ("opentelemetry-collector", Roles::METRICS_SCRAPER),
    ("datadog-agent", Roles::METRICS_SCRAPER),
    ("telegraf", Roles::METRICS_SCRAPER),
    ("traefik", Roles::INGRESS_CONTROLLER),
    ("ingress-nginx", Roles::INGRESS_CONTROLLER),
    ("rke2-ingress-nginx", Roles::INGRESS_CONTROLLER),
    ("nginx-ingress", Roles::INGRESS_CONTROLLER),
    ("nginx-ingress-controller", Roles::INGRESS_CONTROLLER),
    ("haproxy-ingress", Roles::INGRESS_CONTROLLER),
    ("kubernetes-ingress", Roles::INGRESS_CONTROLLER),
    ("kong", Roles::INGRESS_CONTROLLER),
    ("contour", Roles::INGRESS_CONTROLLER),
    ("envoy", Roles::INGRESS_CONTROLLER),
    ("envoy-gateway", Roles::INGRESS_CONTROLLER),
    ("envoy-ingress", Roles::INGRESS_CONTROLLER),
    ("istio-ingressgateway", Roles::INGRESS_CONTROLLER),
    ("istio-ingress", Roles::INGRESS_CONTROLLER),
    ("emissary-ingress", Roles::INGRESS_CONTROLLER),
    ("apisix", Roles::INGRESS_CONTROLLER),
    ("nginx-gateway-fabric", Roles::INGRESS_CONTROLLER),
];

/// What a pod's own labels say it is for.
pub(crate) fn of_labels(namespace: &str, labels: &Labels) -> Roles {
    let mut roles = Roles::NONE;
    for key in ["app.kubernetes.io/name", "app"] {
        let Some(app) = labels.get(key) else { continue };
        if let Some((_, role)) = APPS.iter().find(|(name, _)| *name == app) {
            roles = roles.with(*role);
        }
    }
    if namespace == "kube-system" && labels.get("k8s-app").is_some_and(|app| DNS_APPS.contains(&app)) {
        roles = roles.with(Roles::CLUSTER_DNS);
    }
    roles
}

/// Whether the pods behind a Service answer the cluster's DNS queries.
pub(super) fn is_cluster_dns(service: &Service) -> bool {
    let named = DNS_NAMESPACES.contains(&&*service.namespace) || DNS_SERVICES.contains(&&*service.name);
    named && service.selector.is_some() && service.ports.iter().any(|port| port.port == 53)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_name_scrapers_ingress_controllers_and_the_dns_of_kube_system_only() {
        for (namespace, key, value, role) in [
            ("monitoring", "app.kubernetes.io/name", "prometheus", Roles::METRICS_SCRAPER),
            ("monitoring", "app", "vmagent", Roles::METRICS_SCRAPER),
            ("edge", "app.kubernetes.io/name", "traefik", Roles::INGRESS_CONTROLLER),
            ("kube-system", "k8s-app", "kube-dns", Roles::CLUSTER_DNS),
            ("myapp", "k8s-app", "kube-dns", Roles::NONE),
            ("myapp", "app", "web", Roles::NONE),
            ("myapp", "role", "prometheus", Roles::NONE),
        ] {
            let labels: Labels = [(key, value)].into_iter().collect();
            assert_eq!(of_labels(namespace, &labels), role, "{namespace} {key}={value}");
        }
    }
}
