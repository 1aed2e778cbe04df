//! What policies may ask of the cluster beside its pods: labels of nodes and namespaces, Services, the API server.

use std::net::IpAddr;
use std::sync::Arc;

use super::Index;
use super::state::NamespaceState;
use crate::cluster::object::{Service, SliceEndpoint};
use crate::model::facts::{ClusterFacts, ServiceFacts};

impl Index {
    /// What is known of the cluster. What was not read, or not all of it, is left open.
    pub fn cluster_facts(&self) -> ClusterFacts {
        let is_broken = |kind: &str| self.broken.keys().any(|object| *object.kind == *kind);
        let open = |kinds: &[&str]| kinds.iter().any(|kind| self.is_missing(kind) || is_broken(kind));
        let node_labels = || self.nodes.values().map(|node| (Arc::clone(&node.name), node.labels.clone()));
        let namespaces =
            || self.namespaces.values().map(|space| (Arc::clone(&space.name), space.labels.clone()));
        let mut api_server: Vec<IpAddr> = self.api_server().iter().map(|address| address.ip()).collect();
        api_server.dedup();
        ClusterFacts {
            node_labels: (!open(&["Node"])).then(|| node_labels().collect()),
            namespace_labels: (!open(&["Namespace"])).then(|| namespaces().collect()),
            // Without its EndpointSlices nobody knows where it listens.
            api_server: Some(api_server).filter(|found| !found.is_empty() && !open(&["EndpointSlice"])),
            services: (!open(&["Service", "EndpointSlice"])).then(|| self.service_facts()),
            ..ClusterFacts::default()
        }
    }

    /// Every Service, in order of namespace and name.
    fn service_facts(&self) -> Vec<ServiceFacts> {
        let of_namespace = |space: &NamespaceState| -> Vec<ServiceFacts> {
            space.services.values().map(|service| facts_of(space, service)).collect()
        };
        let mut all: Vec<ServiceFacts> =
            self.namespaces.values().flat_map(|space| of_namespace(space)).collect();
        all.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        all
    }
}

/// A Service with a selector is its pods; one without is what its slices list.
fn facts_of(space: &NamespaceState, service: &Service) -> ServiceFacts {
    let mut addresses: Vec<IpAddr> = Vec::new();
    if service.selector.is_none() {
        let names = space.slices_of.get(&service.name);
        let slices =
            names.into_iter().flat_map(|names| names.iter()).filter_map(|name| space.slices.get(name));
        addresses.extend(slices.flat_map(|slice| slice.endpoints.iter().flat_map(SliceEndpoint::addresses)));
        addresses.sort();
        addresses.dedup();
    }
    ServiceFacts {
        namespace: Arc::clone(&service.namespace),
        name: Arc::clone(&service.name),
        labels: service.labels.clone(),
        selector: service.selector.clone(),
        addresses,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::cluster::index::Gaps;
    use crate::cluster::manifests::{Source, load_all};
    use crate::model::time::Timestamp;

    fn mk_index(text: &str) -> Index {
        let source = Source::Text { name: PathBuf::from("objects.yaml"), bytes: text.into() };
        let mut index = Index::default();
        index.reset(load_all([source], None).objects, Timestamp::EPOCH);
        index
    }

    const OBJECTS: &str = "
apiVersion: v1
kind: Node
metadata: {name: node-1, labels: {gpu: yes-it-has}}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: web, labels: {team: a}}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: far}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: shop, name: far-1, labels: {kubernetes.io/service-name: far}}
addressType: IPv4
endpoints: [{addresses: [203.0.113.7]}, {addresses: [203.0.113.6]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: default, name: kubernetes, labels: {kubernetes.io/service-name: kubernetes}}
addressType: IPv4
ports: [{port: 6443, protocol: TCP}, {port: 6444, protocol: TCP}]
endpoints: [{addresses: [192.0.2.10]}]
";

    #[test]
    fn labels_services_and_the_api_server_are_known() {
        let facts = mk_index(OBJECTS).cluster_facts();
        assert_eq!(facts.node_labels.unwrap()["node-1"].get("gpu"), Some("yes-it-has"));
        assert!(facts.namespace_labels.unwrap().contains_key("shop"));
        assert_eq!(facts.api_server.unwrap(), ["192.0.2.10".parse::<IpAddr>().unwrap()]);
        let services = facts.services.unwrap();
        let [far, web] = &services[..] else { panic!("{services:?}") };
        assert_eq!((&*far.name, &*web.name), ("far", "web"));
        assert_eq!(far.addresses, ["203.0.113.6", "203.0.113.7"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        assert!(far.selector.is_none() && web.selector.is_some() && web.addresses.is_empty());
        assert_eq!(web.labels.get("team"), Some("a"));
    }

    #[test]
    fn what_was_not_read_is_left_open() {
        for (kind, known) in [
            ("Node", [false, true, true, true]),
            ("Namespace", [true, false, true, true]),
            ("Service", [true, true, true, false]),
            ("EndpointSlice", [true, true, false, false]),
        ] {
            let mut index = mk_index(OBJECTS);
            index.set_gaps(Gaps { missing: [Arc::from(kind)].into(), ..Gaps::default() });
            let facts = index.cluster_facts();
            let found = [
                facts.node_labels.is_some(),
                facts.namespace_labels.is_some(),
                facts.api_server.is_some(),
                facts.services.is_some(),
            ];
            assert_eq!(found, known, "without {kind}");
        }
        let broken =
            "{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: web}, spec: {ports: 80}}";
        assert!(mk_index(broken).cluster_facts().services.is_none());
        assert!(mk_index("").cluster_facts().api_server.is_none());
    }
}
