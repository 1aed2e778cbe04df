//! Tests of the index, each named by what Kubernetes does.

mod served_ports;
mod service_addresses;

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Index;
use crate::cluster::object::{
    Broken, EndpointSlice, Namespace, Node, Object, Pod as PodObject, Service, Workload,
};
use crate::model::edge::Protocol::{Tcp, Udp};
use crate::model::endpoint::{Endpoint, Party, Pod};
use crate::model::object::{ObjectRef, WorkloadRef};
use crate::model::role::Roles;
use crate::model::time::Timestamp;
use crate::policy::Policy;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A pod of namespace `app`, changed by `edit`.
fn mk_pod(name: &str, ips: &[&str], edit: impl FnOnce(&mut Value)) -> Object {
    let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "app", "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [
            {"name": "c", "ports": [{"name": "http", "containerPort": 8080}]},
        ]},
        "status": {"podIPs": ips},
    });
    edit(&mut pod);
    Object::Pod(Box::new(PodObject::try_from(&typed::<k8s_openapi::api::core::v1::Pod>(pod)).unwrap()))
}

fn plain(_: &mut Value) {}

fn mk_namespace(name: &str, labels: Value) -> Object {
    let value = json!({"metadata": {"name": name, "labels": labels}});
    Object::Namespace(Namespace::try_from(&typed::<k8s_openapi::api::core::v1::Namespace>(value)).unwrap())
}

fn mk_node(name: &str, value: Value) -> Object {
    let mut node = json!({"metadata": {"name": name}});
    node.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
    let metadata = node["metadata"].as_object_mut().unwrap();
    metadata.insert("name".to_owned(), name.into());
    Object::Node(Box::new(Node::try_from(&typed::<k8s_openapi::api::core::v1::Node>(node)).unwrap()))
}

fn mk_service(name: &str, spec: Value) -> Object {
    mk_service_in("app", name, spec)
}

fn mk_service_in(namespace: &str, name: &str, spec: Value) -> Object {
    let value = json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec});
    Object::Service(Box::new(
        Service::try_from(&typed::<k8s_openapi::api::core::v1::Service>(value)).unwrap(),
    ))
}

fn mk_slice(name: &str, ports: Value, endpoints: Value) -> Object {
    let value = json!({
        "metadata": {"name": name, "namespace": "app", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    });
    let slice = typed::<k8s_openapi::api::discovery::v1::EndpointSlice>(value);
    Object::EndpointSlice(Box::new(EndpointSlice::try_from(&slice).unwrap()))
}

fn mk_workload(kind: &str, name: &str, controller: Option<(&str, &str)>) -> Object {
    use k8s_openapi::api::{apps::v1 as apps, batch::v1 as batch};
    let owners = controller.map(|(kind, name)| {
        json!([{"apiVersion": "v1", "kind": kind, "name": name, "uid": "u", "controller": true}])
    });
    let template = json!({
        "metadata": {"labels": {"app": "web", "from": "template"}},
        "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 80}]}]},
    });
    let mut value = json!({
        "metadata": {"name": name, "namespace": "app", "ownerReferences": owners},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template, "serviceName": "x"},
    });
    let workload = match kind {
        "Deployment" => Workload::try_from(&typed::<apps::Deployment>(value)),
        "ReplicaSet" => Workload::try_from(&typed::<apps::ReplicaSet>(value)),
        "StatefulSet" => Workload::try_from(&typed::<apps::StatefulSet>(value)),
        "Job" => Workload::try_from(&typed::<batch::Job>(value)),
        "CronJob" => {
            value["spec"] = json!({"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template}}});
            Workload::try_from(&typed::<batch::CronJob>(value))
        }
        other => panic!("no builder for {other}"),
    };
    Object::Workload(Box::new(workload.unwrap()))
}

fn owned_by(kind: &'static str, name: &'static str) -> impl FnOnce(&mut Value) {
    move |pod| {
        pod["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": kind, "name": name, "uid": "u", "controller": true}]);
        if kind == "ReplicaSet" {
            let hash = name.rsplit('-').next().unwrap();
            pod["metadata"]["labels"]["pod-template-hash"] = hash.into();
        }
    }
}

fn mk_index(objects: impl IntoIterator<Item = Object>) -> Index {
    let mut index = Index::default();
    index.reset(objects.into_iter().chain([mk_namespace("app", json!({}))]).collect(), at(100));
    index
}

/// `Pod/app/web`, `Node/n1`, `External`, or the code of why it is unknown.
fn show(party: &Party) -> String {
    match (&party.endpoint, party.object()) {
        (Endpoint::Unknown(reason), _) => reason.code().to_owned(),
        (_, Some(object)) => object.to_string(),
        (other, None) => other.type_name().to_owned(),
    }
}

fn who(index: &Index, address: &str, time: u64) -> String {
    show(&index.party_at(ip(address), 80, Tcp, None, at(time)))
}

/// The backends of a Service address, `Pod/app/a:8080`, or what else the address is.
fn backends(index: &Index, address: &str, port: u16) -> String {
    show_backends(&index.party_at(ip(address), port, Tcp, None, at(1000)))
}

fn show_backends(party: &Party) -> String {
    let Endpoint::Service(service) = &party.endpoint else { return show(party) };
    let backends =
        service.backends.iter().map(|backend| format!("{}:{}", show(&backend.party), backend.port));
    backends.collect::<Vec<_>>().join(" ")
}

fn chain(pod: &Pod) -> String {
    pod.owners.iter().map(|owner| format!("{}/{}", owner.kind, owner.name)).collect::<Vec<_>>().join(" < ")
}

#[test]
fn an_address_belongs_to_whoever_had_it_at_the_time() {
    let mut index = mk_index([mk_pod("a", &["192.0.2.1"], plain)]);
    let a = ObjectRef::namespaced("Pod", "app", "a");
    index.delete(&a, at(200));
    let late = |pod: &mut Value| pod["metadata"]["creationTimestamp"] = "1970-01-01T00:05:00Z".into();
    index.apply(mk_pod("b", &["192.0.2.1"], late), at(310));
    for (time, owner) in [
        (50, "Pod/app/a"),
        (199, "Pod/app/a"),
        (200, "address-unjoined"),
        (299, "address-unjoined"),
        (300, "Pod/app/b"),
        (400, "Pod/app/b"),
    ] {
        assert_eq!(who(&index, "192.0.2.1", time), owner, "at {time}");
    }
    assert!(index.owner_changed(ip("192.0.2.1"), at(150), at(350)));
    assert!(!index.owner_changed(ip("192.0.2.1"), at(310), at(400)));
    assert!(!index.owner_changed(ip("192.0.2.1"), at(210), at(400)), "nobody's, then b's: one owner");
    index.forget_before(at(250));
    assert_eq!(who(&index, "192.0.2.1", 150), "address-unjoined");
}

#[test]
fn a_new_label_is_a_new_identity_and_its_time_is_kept() {
    let mut index = mk_index([mk_pod("a", &["192.0.2.1"], plain)]);
    let before = index.pod("app", "a").unwrap().identity.id;
    index.apply(mk_pod("a", &["192.0.2.1"], |pod| pod["metadata"]["labels"]["app"] = "db".into()), at(200));
    let after = index.pod("app", "a").unwrap().identity.id;
    assert_ne!(before, after);
    let identity_at =
        |time| index.party_at(ip("192.0.2.1"), 80, Tcp, None, at(time)).as_pod().unwrap().identity.id;
    assert_eq!([identity_at(150), identity_at(250)], [before, after]);
    assert!(index.owner_changed(ip("192.0.2.1"), at(150), at(250)));
    assert!(!index.owner_changed(ip("192.0.2.1"), at(201), at(250)));
}

#[test]
fn a_finished_pod_owns_no_address_and_a_terminating_one_keeps_its() {
    let mut index = mk_index([mk_pod("a", &["192.0.2.1"], plain), mk_pod("b", &["192.0.2.2"], plain)]);
    let deleted = |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = "1970-01-01T00:03:00Z".into();
    index.apply(mk_pod("b", &["192.0.2.2"], deleted), at(200));
    for phase in ["Succeeded", "Failed"] {
        index.apply(mk_pod("a", &["192.0.2.1"], plain), at(200));
        index.apply(mk_pod("a", &["192.0.2.1"], |pod| pod["status"]["phase"] = phase.into()), at(300));
        assert_eq!(who(&index, "192.0.2.1", 250), "Pod/app/a", "{phase}, before");
        assert_eq!(who(&index, "192.0.2.1", 350), "address-unjoined", "{phase}, after");
        assert_eq!(who(&index, "192.0.2.2", 350), "Pod/app/b");
    }
    assert_eq!(index.pods().count(), 1);
    assert!(index.pod("app", "a").unwrap().addresses.is_empty());
}

#[test]
fn the_address_of_a_host_network_pod_is_its_nodes() {
    let host = |pod: &mut Value| pod["spec"]["hostNetwork"] = true.into();
    let nameless = |pod: &mut Value| {
        pod["spec"]["hostNetwork"] = true.into();
        pod["spec"].as_object_mut().unwrap().remove("nodeName");
    };
    let addresses = json!({"status": {"addresses": [{"type": "InternalIP", "address": "198.51.100.1"}]}});
    let index = mk_index([
        mk_node("n1", addresses),
        mk_pod("proxy", &["198.51.100.1"], host),
        mk_pod("lost", &["198.51.100.9"], nameless),
    ]);
    assert_eq!(who(&index, "198.51.100.1", 200), "Node/n1");
    assert_eq!(who(&index, "198.51.100.9", 200), "address-unjoined");
    assert!(index.pod("app", "proxy").unwrap().host_network);
    assert_eq!(index.findings(), [], "a node and its own pod do not contradict each other");
    let alone = mk_index([mk_pod("proxy", &["198.51.100.1"], host)]);
    assert_eq!(who(&alone, "198.51.100.1", 200), "Node/n1", "also without the Node object");
}

#[test]
fn a_dual_stack_pod_owns_both_addresses() {
    let mut index = mk_index([mk_pod("a", &["192.0.2.1", "2001:db8::1"], plain)]);
    let status = |pod: &mut Value| pod["status"] = json!({"podIP": "192.0.2.7"});
    index.apply(mk_pod("b", &[], status), at(100));
    for address in ["192.0.2.1", "2001:db8::1"] {
        assert_eq!(who(&index, address, 200), "Pod/app/a");
    }
    assert_eq!(who(&index, "192.0.2.7", 200), "Pod/app/b", "podIP without podIPs");
    index.apply(mk_pod("a", &["192.0.2.1"], plain), at(300));
    assert_eq!(who(&index, "2001:db8::1", 400), "address-unjoined");
    assert_eq!(who(&index, "192.0.2.1", 400), "Pod/app/a");
}

#[test]
fn of_two_pods_with_one_address_the_newer_wins_or_nobody_knows() {
    let created =
        |time: &'static str| move |pod: &mut Value| pod["metadata"]["creationTimestamp"] = time.into();
    let mut index = mk_index([mk_pod("old", &["192.0.2.1"], created("1970-01-01T00:01:00Z"))]);
    index.apply(mk_pod("new", &["192.0.2.1"], created("1970-01-01T00:05:00Z")), at(310));
    for (time, owner) in [(200, "Pod/app/old"), (305, "address-reused"), (310, "Pod/app/new")] {
        assert_eq!(who(&index, "192.0.2.1", time), owner, "at {time}");
    }
    let findings = index.findings();
    assert_eq!(
        findings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["Pod/app/new: has the address 192.0.2.1, which Pod/app/old has as well"]
    );
    let mut unknown = mk_index([mk_pod("a", &["192.0.2.1"], plain), mk_pod("b", &["192.0.2.1"], plain)]);
    assert_eq!(who(&unknown, "192.0.2.1", 200), "address-reused");
    assert!(unknown.owner_changed(ip("192.0.2.1"), at(150), at(160)));
    unknown.delete(&ObjectRef::namespaced("Pod", "app", "a"), at(300));
    assert_eq!(who(&unknown, "192.0.2.1", 350), "Pod/app/b");
}

#[test]
fn owners_are_followed_to_the_top_or_guessed_from_their_names() {
    let web = "ReplicaSet/web-5d8f < Deployment/web";
    for (case, objects, pod, owners, workload) in [
        ("bare", vec![], mk_pod("p", &[], plain), "", "app/Pod/p"),
        (
            "known ReplicaSet",
            vec![mk_workload("ReplicaSet", "web-5d8f", Some(("Deployment", "web")))],
            mk_pod("p", &[], owned_by("ReplicaSet", "web-5d8f")),
            web,
            "app/Deployment/web",
        ),
        (
            "unknown ReplicaSet",
            vec![],
            mk_pod("p", &[], owned_by("ReplicaSet", "web-5d8f")),
            web,
            "app/Deployment/web",
        ),
        (
            "ReplicaSet without owner",
            vec![mk_workload("ReplicaSet", "web-5d8f", None)],
            mk_pod("p", &[], owned_by("ReplicaSet", "web-5d8f")),
            "ReplicaSet/web-5d8f",
            "app/ReplicaSet/web-5d8f",
        ),
        (
            "Job of a known CronJob",
            vec![mk_workload("CronJob", "backup", None)],
            mk_pod("p", &[], owned_by("Job", "backup-29391820")),
            "Job/backup-29391820 < CronJob/backup",
            "app/CronJob/backup",
        ),
        (
            "Job of an unknown CronJob",
            vec![],
            mk_pod("p", &[], owned_by("Job", "backup-29391820")),
            "Job/backup-29391820",
            "app/Job/backup-29391820",
        ),
        (
            "Job named like a CronJob, not by a number",
            vec![mk_workload("CronJob", "backup", None)],
            mk_pod("p", &[], owned_by("Job", "backup-now")),
            "Job/backup-now",
            "app/Job/backup-now",
        ),
        (
            "a Deployment that an operator made",
            vec![mk_workload("Deployment", "web", Some(("WebSite", "site")))],
            mk_pod("p", &[], owned_by("ReplicaSet", "web-5d8f")),
            web,
            "app/Deployment/web",
        ),
        (
            "a ReplicaSet of a Rollout",
            vec![mk_workload("ReplicaSet", "web-5d8f", Some(("Rollout", "web")))],
            mk_pod("p", &[], owned_by("ReplicaSet", "web-5d8f")),
            "ReplicaSet/web-5d8f < Rollout/web",
            "app/Rollout/web",
        ),
        ("a static pod", vec![], mk_pod("p", &[], owned_by("Node", "n1")), "", "app/Pod/p"),
    ] {
        let objects: Vec<Object> = objects.into_iter().chain([mk_namespace("app", json!({}))]).collect();
        // Owners before pods, and pods before owners: the answer must be the same.
        for pod_first in [false, true] {
            let mut index = Index::default();
            let all = if pod_first {
                [vec![pod.clone()], objects.clone()].concat()
            } else {
                [objects.clone(), vec![pod.clone()]].concat()
            };
            for object in all {
                index.apply(object, at(1));
            }
            let found = index.pod("app", "p").unwrap();
            assert_eq!(chain(&found), owners, "{case}, pod first: {pod_first}");
            assert_eq!(found.workload.to_string(), workload, "{case}, pod first: {pod_first}");
            for owner in found.owners.iter() {
                assert_eq!(index.workload_pods(owner), [Arc::clone(&found)], "{case}: by {owner}");
            }
            assert_eq!(index.workload_pods(&found.workload).len(), 1, "{case}");
        }
    }
}

#[test]
fn the_selector_is_the_workloads_or_the_labels_that_no_controller_added() {
    let labelled = |pod: &mut Value| {
        owned_by("ReplicaSet", "web-5d8f")(pod);
        pod["metadata"]["labels"]["tier"] = "front".into();
        pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] = "j".into();
        pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] = "0".into();
    };
    let mut index = mk_index([mk_pod("p", &[], labelled)]);
    assert_eq!(index.pod("app", "p").unwrap().selector.to_string(), "app=web,tier=front");
    index.apply(mk_workload("Deployment", "web", None), at(200));
    assert_eq!(index.pod("app", "p").unwrap().selector.to_string(), "app=web");
    index.delete(&ObjectRef::namespaced("Deployment", "app", "web"), at(300));
    assert_eq!(index.pod("app", "p").unwrap().selector.to_string(), "app=web,tier=front");
}

#[test]
fn a_template_stands_for_pods_that_are_not_there() {
    let deployment = WorkloadRef::new("Deployment", "app", "web");
    let mut index = mk_index([
        mk_workload("Deployment", "web", None),
        mk_workload("ReplicaSet", "web-5d8f", Some(("Deployment", "web"))),
        mk_workload("CronJob", "backup", None),
    ]);
    let stand_ins: Vec<String> = index.pods().map(|pod| pod.workload.to_string()).collect();
    assert_eq!(stand_ins.len(), 2, "one for each top workload: {stand_ins:?}");
    let [template] = &*index.workload_pods(&deployment) else { panic!("one template") };
    assert!(template.from_template && template.addresses.is_empty());
    assert_eq!(template.identity.labels.get("from"), Some("template"));
    assert_eq!(template.identity.named_ports[0].port, 80);
    assert!(index.pod("app", "web").is_none(), "it is no pod by name");
    let replica_set = WorkloadRef::new("ReplicaSet", "app", "web-5d8f");
    assert_eq!(chain(&index.workload_pods(&replica_set)[0]), "ReplicaSet/web-5d8f < Deployment/web");

    index.apply(mk_pod("p", &["192.0.2.1"], owned_by("ReplicaSet", "web-5d8f")), at(200));
    let live = index.workload_pods(&deployment);
    assert_eq!(live.iter().map(|pod| &*pod.name).collect::<Vec<_>>(), ["p"]);

    let finished = |pod: &mut Value| {
        owned_by("ReplicaSet", "web-5d8f")(pod);
        pod["status"]["phase"] = "Succeeded".into();
    };
    index.apply(mk_pod("p", &["192.0.2.1"], finished), at(300));
    assert!(index.workload_pods(&deployment)[0].from_template, "a finished pod is not a live one");
}

#[test]
fn a_relabelled_namespace_gives_its_pods_new_identities() {
    let mut index = mk_index([mk_pod("a", &["192.0.2.1"], plain), mk_workload("Deployment", "idle", None)]);
    let before = index.pod("app", "a").unwrap();
    assert_eq!(before.identity.namespace_labels.to_string(), "kubernetes.io/metadata.name=app");
    index.apply(mk_namespace("app", json!({"team": "x"})), at(200));
    let after = index.pod("app", "a").unwrap();
    assert_ne!(before.identity.id, after.identity.id);
    assert_eq!(after.identity.namespace_labels.get("team"), Some("x"));
    let idle = index.workload_pods(&WorkloadRef::new("Deployment", "app", "idle"));
    assert_eq!(idle[0].identity.namespace_labels.get("team"), Some("x"), "templates too");
    assert!(index.owner_changed(ip("192.0.2.1"), at(150), at(250)));
}

#[test]
fn a_namespace_that_is_not_among_the_objects_has_its_name_label_and_a_finding() {
    let mut index = Index::default();
    index.reset(vec![mk_pod("a", &["192.0.2.1"], plain)], at(1));
    let labels = &index.pod("app", "a").unwrap().identity.namespace_labels;
    assert_eq!(labels.get("kubernetes.io/metadata.name"), Some("app"));
    assert!(index.findings()[0].to_string().starts_with("Namespace/app: has pods or workloads but"));
}

#[test]
fn a_service_leads_to_the_ready_backends_of_its_slices() {
    let port = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
    let spec = json!({"clusterIP": "203.0.113.1", "clusterIPs": ["203.0.113.1"], "selector": {"app": "web"}, "ports": port});
    let pods = [mk_pod("a", &["192.0.2.1"], plain), mk_pod("b", &["192.0.2.2"], plain)];
    let ports = json!([{"name": "http", "port": 8080, "protocol": "TCP"}]);
    let end = |address: &str, conditions: Value| json!({"addresses": [address], "conditions": conditions});
    let ready = json!({"ready": true});
    let not_ready = json!({"ready": false});
    let leaving = json!({"ready": false, "serving": true, "terminating": true});
    for (case, publish, endpoints, expected) in [
        (
            "ready ones only",
            false,
            json!([end("192.0.2.1", ready.clone()), end("192.0.2.2", not_ready.clone())]),
            "Pod/app/a:8080",
        ),
        ("absent counts as ready", false, json!([end("192.0.2.2", json!({}))]), "Pod/app/b:8080"),
        (
            "terminating ones while no other is left",
            false,
            json!([end("192.0.2.1", leaving.clone()), end("192.0.2.2", not_ready.clone())]),
            "Pod/app/a:8080",
        ),
        (
            "terminating ones are passed over",
            false,
            json!([end("192.0.2.1", leaving), end("192.0.2.2", ready.clone())]),
            "Pod/app/b:8080",
        ),
        ("none ready", false, json!([end("192.0.2.1", not_ready.clone())]), ""),
        ("publishNotReadyAddresses", true, json!([end("192.0.2.1", not_ready)]), "Pod/app/a:8080"),
        ("outside the cluster", false, json!([end("198.51.100.77", ready)]), "External:8080"),
    ] {
        let mut spec = spec.clone();
        spec["publishNotReadyAddresses"] = publish.into();
        let objects = [mk_service("web", spec), mk_slice("web-x", ports.clone(), endpoints)];
        let index = mk_index(objects.into_iter().chain(pods.clone()));
        assert_eq!(backends(&index, "203.0.113.1", 80), expected, "{case}");
        assert_eq!(backends(&index, "203.0.113.1", 81), "", "{case}: another port leads nowhere");
        assert_eq!(index.findings(), [], "{case}");
    }
}

#[test]
fn a_service_without_slices_leads_to_the_pods_it_selects() {
    let ports = json!([{"port": 80, "targetPort": "http"}]);
    let spec = json!({"clusterIP": "203.0.113.1", "selector": {"app": "web"}, "ports": ports});
    let other = |pod: &mut Value| pod["spec"]["containers"][0]["ports"][0]["containerPort"] = 9090.into();
    let db = |pod: &mut Value| pod["metadata"]["labels"]["app"] = "db".into();
    let index = mk_index([
        mk_service("web", spec),
        mk_pod("a", &["192.0.2.1", "2001:db8::1"], plain),
        mk_pod("b", &["192.0.2.2"], other),
        mk_pod("c", &["192.0.2.3"], db),
        mk_pod("six", &["2001:db8::6"], plain),
    ]);
    assert_eq!(backends(&index, "203.0.113.1", 80), "Pod/app/a:8080 Pod/app/b:9090");
    let finding = index.findings().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(finding.len(), 1);
    assert!(finding[0].starts_with("Service/app/web: has no EndpointSlice"), "{finding:?}");
}

#[test]
fn node_ports_external_ips_and_load_balancers_are_service_addresses() {
    let ports = json!([{"port": 80, "targetPort": 8080, "nodePort": 30080}]);
    let spec = json!({
        "type": "LoadBalancer", "clusterIP": "203.0.113.1", "externalIPs": ["198.51.100.50"],
        "selector": {"app": "web"}, "ports": ports,
    });
    let mut index = mk_index([
        mk_service("web", spec.clone()),
        mk_pod("a", &["192.0.2.1"], plain),
        mk_node("n1", json!({"status": {"addresses": [{"type": "InternalIP", "address": "198.51.100.1"}]}})),
    ]);
    for (address, port, expected) in [
        ("198.51.100.1", 30080, "Pod/app/a:8080"),
        ("198.51.100.1", 80, "Node/n1"),
        ("198.51.100.50", 80, "Pod/app/a:8080"),
        ("203.0.113.1", 30080, ""),
    ] {
        assert_eq!(backends(&index, address, port), expected, "{address}:{port}");
    }
    assert_eq!(show(&index.initiator_at(ip("198.51.100.1"), at(1000))), "Node/n1", "as an initiator");
    let mut on_node = spec;
    on_node["externalIPs"] = json!(["198.51.100.1"]);
    index.apply(mk_service("web", on_node), at(200));
    assert_eq!(backends(&index, "198.51.100.1", 80), "Pod/app/a:8080", "a node's address as external IP");
    assert_eq!(backends(&index, "198.51.100.1", 22), "Node/n1");
    assert_eq!(backends(&index, "198.51.100.50", 80), "address-unjoined", "no longer the Service's");
    index.delete(&ObjectRef::namespaced("Service", "app", "web"), at(300));
    assert_eq!(backends(&index, "198.51.100.1", 30080), "Node/n1");
}

#[test]
fn a_headless_service_has_no_address_and_a_node_wins_over_a_cluster_ip() {
    let index = mk_index([
        mk_service("headless", json!({"clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}})),
        mk_service("dns", json!({"clusterIP": "203.0.113.10", "ports": [{"port": 80}]})),
        mk_node("n1", json!({"status": {"addresses": [{"type": "InternalIP", "address": "203.0.113.10"}]}})),
    ]);
    assert_eq!(backends(&index, "203.0.113.10", 80), "Node/n1");
}

#[test]
fn nodes_own_their_gateways_and_tunnels_and_node_local_addresses() {
    let node = json!({
        "metadata": {"annotations": {
            "projectcalico.org/IPv4Address": "198.51.100.2/24",
            "projectcalico.org/IPv4VXLANTunnelAddr": "192.0.2.64",
            "network.cilium.io/ipv4-cilium-host": "192.0.2.65",
        }},
        "spec": {"podCIDR": "192.0.2.0/25", "podCIDRs": ["192.0.2.0/25", "2001:db8:1::/64"]},
        "status": {"addresses": [{"type": "ExternalIP", "address": "198.51.100.3"}, {"type": "Hostname", "address": "n1"}]},
    });
    let mut index = mk_index([mk_node("n1", node)]);
    for (address, owner) in [
        ("192.0.2.1", "Node/n1"),
        ("2001:db8:1::1", "Node/n1"),
        ("198.51.100.2", "Node/n1"),
        ("198.51.100.3", "Node/n1"),
        ("192.0.2.64", "Node/n1"),
        ("192.0.2.65", "Node/n1"),
        ("169.254.20.10", "Node/n1"),
        ("192.0.2.77", "address-unjoined"),
        ("2001:db8:1::77", "address-unjoined"),
        ("203.0.113.200", "External"),
        ("127.0.0.1", "External"),
        ("169.254.169.254", "External"),
        ("fe80::7", "address-unjoined"),
    ] {
        assert_eq!(who(&index, address, 200), owner, "{address}");
    }
    index.set_ranges(vec!["203.0.113.0/24".parse().unwrap()]);
    assert_eq!(who(&index, "203.0.113.200", 200), "address-unjoined", "inside a declared range");
    index.apply(mk_pod("a", &["192.0.2.1"], plain), at(200));
    assert_eq!(who(&index, "192.0.2.1", 300), "Pod/app/a", "a pod is believed over the gateway's guess");
    index.apply(mk_node("n2", json!({})), at(300));
    assert_eq!(who(&index, "169.254.20.10", 400), "address-unjoined", "of which node is not known");
    index.set_own_node(Some("n2".into()));
    assert_eq!(who(&index, "169.254.20.10", 400), "Node/n2");
}

#[test]
fn what_could_not_be_read_is_unknown_by_name_and_by_address() {
    let mk_broken = |kind: &str, name: &str, addresses: &[&str], service: Option<&str>| {
        let reference = match kind {
            "Namespace" | "Node" => ObjectRef::cluster(kind, name),
            _ => ObjectRef::namespaced(kind, "app", name),
        };
        Object::Broken(Box::new(Broken {
            reference: Arc::new(reference),
            addresses: addresses.iter().map(|text| ip(text)).collect(),
            service: service.map(Into::into),
        }))
    };
    let spec = json!({"clusterIP": "203.0.113.1", "selector": {"app": "web"}, "ports": [{"port": 80}]});
    let mut index = mk_index([
        mk_pod("a", &["192.0.2.1"], plain),
        mk_service("web", spec),
        mk_broken("Pod", "b", &["192.0.2.2"], None),
        mk_broken("EndpointSlice", "web-x", &[], Some("web")),
    ]);
    assert_eq!(who(&index, "192.0.2.2", 200), "object-invalid");
    assert!(index.broken(&ObjectRef::namespaced("Pod", "app", "b")).is_some());
    assert_eq!(who(&index, "203.0.113.1", 200), "object-invalid", "its slice could not be read");
    index.apply(mk_broken("Namespace", "app", &[], None), at(200));
    assert_eq!(who(&index, "192.0.2.1", 300), "object-invalid", "the labels of its namespace are not known");
    index.apply(mk_namespace("app", json!({})), at(300));
    index.apply(mk_pod("b", &["192.0.2.2"], plain), at(300));
    index.delete(&ObjectRef::namespaced("EndpointSlice", "app", "web-x"), at(300));
    assert_eq!(who(&index, "192.0.2.1", 400), "Pod/app/a");
    assert_eq!(who(&index, "192.0.2.2", 400), "Pod/app/b");
    assert_eq!(backends(&index, "203.0.113.1", 80), "Pod/app/a:80 Pod/app/b:80");
    index.apply(mk_broken("Pod", "a", &["192.0.2.1"], None), at(500));
    assert_eq!(
        [who(&index, "192.0.2.1", 450), who(&index, "192.0.2.1", 550)],
        ["Pod/app/a", "object-invalid"]
    );
    assert!(index.pod("app", "a").is_none());
}

#[test]
fn pods_behind_the_dns_service_are_the_clusters_dns() {
    let dns = json!({"clusterIP": "203.0.113.10", "selector": {"app": "web"}, "ports": [{"port": 53, "protocol": "UDP"}]});
    let mut index = mk_index([mk_pod("a", &["192.0.2.1"], plain)]);
    assert_eq!(index.pod("app", "a").unwrap().identity.roles, Roles::NONE);
    index.apply(mk_service("resolver", dns.clone()), at(200));
    assert_eq!(index.pod("app", "a").unwrap().identity.roles, Roles::NONE, "any other Service on port 53");
    let mut coredns = dns;
    coredns["clusterIP"] = "203.0.113.11".into();
    index.apply(mk_service("coredns", coredns), at(200));
    assert_eq!(index.pod("app", "a").unwrap().identity.roles, Roles::CLUSTER_DNS);
    let party = index.party_at(ip("203.0.113.11"), 53, Udp, None, at(300));
    let Endpoint::Service(service) = &party.endpoint else { panic!("{party:?}") };
    assert_eq!(service.backends[0].party.as_pod().unwrap().identity.roles, Roles::CLUSTER_DNS);
    index.delete(&ObjectRef::namespaced("Service", "app", "coredns"), at(400));
    assert_eq!(index.pod("app", "a").unwrap().identity.roles, Roles::NONE);
    let scraper = |pod: &mut Value| pod["metadata"]["labels"]["app.kubernetes.io/name"] = "prometheus".into();
    index.apply(mk_pod("p", &[], scraper), at(400));
    assert_eq!(index.pod("app", "p").unwrap().identity.roles, Roles::METRICS_SCRAPER);
}

#[test]
fn identities_hold_account_and_named_ports_of_containers_and_sidecars() {
    let edit = |pod: &mut Value| {
        pod["spec"]["serviceAccountName"] = "robot".into();
        pod["spec"]["initContainers"] = json!([
            {"name": "mesh", "restartPolicy": "Always", "ports": [{"name": "admin", "containerPort": 15000}]},
            {"name": "setup", "ports": [{"name": "gone", "containerPort": 1}]},
        ]);
    };
    let index = mk_index([mk_pod("a", &[], edit), mk_pod("b", &[], plain)]);
    let identity = Arc::clone(&index.pod("app", "a").unwrap().identity);
    assert_eq!(&*identity.service_account, "robot");
    let ports: Vec<String> = identity.named_ports.iter().map(|p| format!("{}={}", p.name, p.port)).collect();
    assert_eq!(ports, ["admin=15000", "http=8080"]);
    assert_eq!(&*index.pod("app", "b").unwrap().identity.service_account, "default");
}

#[test]
fn a_reset_swaps_the_world_and_keeps_the_history() {
    let mut index = mk_index([
        mk_pod("a", &["192.0.2.1"], plain),
        mk_pod("gone", &["192.0.2.2"], plain),
        mk_workload("Deployment", "web", None),
    ]);
    let policy = |name: &str| {
        let np = k8s_openapi::api::networking::v1::NetworkPolicy {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some("app".to_owned()),
                ..Default::default()
            },
            spec: None,
        };
        Object::Policy(Arc::new(Policy::from_network_policy_with(&np, Vec::new())))
    };
    index.reset(
        vec![mk_namespace("app", json!({})), mk_pod("b", &["192.0.2.1"], plain), policy("p")],
        at(200),
    );
    assert_eq!([who(&index, "192.0.2.1", 150), who(&index, "192.0.2.1", 250)], ["Pod/app/a", "Pod/app/b"]);
    assert_eq!(who(&index, "192.0.2.2", 150), "Pod/app/gone");
    assert_eq!(index.pods().count(), 1);
    assert_eq!(index.findings(), [], "the address moved, nobody claims it twice");
    let (policies, topology) = (index.policy_generation(), index.topology_generation());
    index.reset_kind("NetworkPolicy", vec![policy("q")], at(300));
    let names: Vec<String> = index.policies().iter().map(|p| p.reference().to_string()).collect();
    assert_eq!(names, ["NetworkPolicy/app/q"]);
    assert!(index.policy_generation() > policies);
    let policies = index.policy_generation();
    index.reset_kind("NetworkPolicy", vec![policy("q")], at(310));
    assert_eq!(index.policy_generation(), policies, "the same again is no change");
    assert_eq!(index.topology_generation(), topology, "only policies changed");
    index.apply(mk_pod("b", &["192.0.2.1"], plain), at(400));
    assert_eq!(index.topology_generation(), topology, "the same again is no change");
    assert_eq!(index.pods_on("n1").len(), 1);
    index.delete(&ObjectRef::namespaced("Pod", "app", "b"), at(500));
    assert!(index.pods_on("n1").is_empty());
}

#[test]
fn maps_and_exceptions_have_a_generation_of_their_own() {
    let map = |to: &str| {
        let object = typed(json!({
            "apiVersion": "dryfence.io/v1alpha1", "kind": "SegmentMap", "metadata": {"name": "tiers"},
            "spec": {"segments": [{"name": "outside", "members": [{"entity": to}]}]},
        }));
        Object::SegmentMap(Arc::new(crate::segment::SegmentMap::from_object(&object)))
    };
    let exception = || {
        let object = typed(json!({
            "apiVersion": "dryfence.io/v1alpha1", "kind": "EdgeException",
            "metadata": {"name": "e", "namespace": "app"},
            "spec": {"segmentMap": "tiers", "to": [{"entity": "world"}], "reason": "known"},
        }));
        Object::EdgeException(Arc::new(crate::segment::EdgeException::from_object(&object)))
    };
    let mut index = mk_index([map("world"), exception()]);
    assert_eq!((index.segment_maps().len(), index.edge_exceptions().len()), (1, 1));
    let (first, policies) = (index.segment_generation(), index.policy_generation());
    index.reset(vec![map("world"), exception()], at(200));
    assert_eq!(index.segment_generation(), first, "the same again is no change");
    index.apply(map("node"), at(300));
    assert_eq!(index.segment_generation(), first + 1);
    index.reset(vec![map("node")], at(400));
    assert_eq!((index.segment_generation(), index.edge_exceptions().len()), (first + 2, 0));
    index.delete(&ObjectRef::cluster("SegmentMap", "tiers"), at(500));
    assert_eq!((index.segment_generation(), index.segment_maps().len()), (first + 3, 0));
    assert_eq!(index.policy_generation(), policies, "policies are not concerned");
}

#[test]
fn the_api_server_listens_behind_service_default_kubernetes() {
    let slice = |namespace: &str, service: &str| {
        let slice = typed::<k8s_openapi::api::discovery::v1::EndpointSlice>(json!({
            "metadata": {"name": service, "namespace": namespace, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "ports": [{"name": "https", "port": 6443}],
            "endpoints": [{"addresses": ["198.51.100.2"]}, {"addresses": ["198.51.100.1"]}],
        }));
        Object::EndpointSlice(Box::new(EndpointSlice::try_from(&slice).unwrap()))
    };
    assert!(mk_index([slice("default", "web"), slice("app", "kubernetes")]).api_server().is_empty());
    let index = mk_index([slice("default", "kubernetes")]);
    let listens: Vec<String> = index.api_server().iter().map(ToString::to_string).collect();
    assert_eq!(listens, ["198.51.100.1:6443", "198.51.100.2:6443"]);
    let labels = index.namespace_labels();
    assert!(labels.contains_key("app") && !labels.contains_key("default"), "only declared ones are known");
}
