//! Which ports are known to be served.

use super::*;

#[test]
fn a_container_port_without_a_name_is_served_while_a_pod_of_its_maker_is_there() {
    let unnamed = |owner: Option<&'static str>| {
        move |pod: &mut Value| {
            pod["spec"]["containers"][0]["ports"] =
                json!([{"containerPort": 50051}, {"containerPort": 5353, "protocol": "UDP"}]);
            pod["spec"]["initContainers"] = json!([{"name": "setup", "ports": [{"containerPort": 50052}]}]);
            if let Some(owner) = owner {
                pod["metadata"]["ownerReferences"] =
                    json!([{"kind": "StatefulSet", "name": owner, "controller": true}]);
            }
        }
    };
    let mut index = mk_index([
        mk_pod("db-0", &["192.0.2.1"], unnamed(Some("db"))),
        mk_pod("db-1", &["192.0.2.2"], unnamed(Some("db"))),
        mk_pod("alone", &["192.0.2.3"], unnamed(None)),
        mk_pod("other", &["192.0.2.4"], plain),
    ]);
    let serves =
        |index: &Index, address: &str, port, protocol| index.serves(ip(address), port, protocol, at(300));
    for address in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        assert!(serves(&index, address, 50051, Tcp), "{address}");
        assert!(serves(&index, address, 5353, Udp), "{address}");
        assert!(!serves(&index, address, 5353, Tcp), "of another protocol");
        assert!(!serves(&index, address, 50052, Tcp), "an init container is gone before any connection");
        assert!(!serves(&index, address, 8080, Tcp), "another pod's");
    }
    assert!(!serves(&index, "192.0.2.4", 50051, Tcp));
    // News of a pod that change nothing of its ports keep them, and so does another pod of the same maker.
    index.apply(mk_namespace("app", json!({"team": "a"})), at(301));
    index.delete(&ObjectRef::namespaced("Pod", "app", "db-0"), at(302));
    index.apply(mk_pod("alone", &["192.0.2.3", "192.0.2.5"], unnamed(None)), at(303));
    assert!(index.serves(ip("192.0.2.2"), 50051, Tcp, at(304)));
    assert!(index.serves(ip("192.0.2.5"), 50051, Tcp, at(304)));
    index.delete(&ObjectRef::namespaced("Pod", "app", "db-1"), at(305));
    index.apply(mk_pod("db-1", &["192.0.2.2"], plain), at(306));
    assert!(!index.serves(ip("192.0.2.2"), 50051, Tcp, at(307)), "the last that had it is gone");
}
