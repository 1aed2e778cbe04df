//! What the host's own addresses and traffic policies make of Services.

use super::*;

#[test]
fn every_address_of_the_host_is_its_nodes_even_a_cluster_ip() {
    let dns = json!({"clusterIP": "203.0.113.10", "selector": {"app": "web"}, "ports": [{"port": 53}, {"port": 80}]});
    let exposed = json!({
        "type": "LoadBalancer", "clusterIP": "203.0.113.11", "externalIPs": ["198.51.100.60"],
        "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080, "nodePort": 30080}],
    });
    let mut index = mk_index([
        mk_service("dns", dns),
        mk_service("exposed", exposed),
        mk_pod("a", &["192.0.2.1"], plain),
        mk_node("n1", json!({"status": {"addresses": [{"type": "InternalIP", "address": "198.51.100.1"}]}})),
        mk_node("n2", json!({})),
    ]);
    assert_eq!(backends(&index, "203.0.113.10", 53), "Pod/app/a:53");
    let host = ["203.0.113.10", "169.254.20.10", "198.51.100.1", "192.0.2.254", "198.51.100.60"].map(ip);
    index.set_own_node(Some("n1".into()));
    index.set_host_addresses(&host.into_iter().collect(), at(200));
    for (address, port, expected) in [
        ("203.0.113.10", 53, "Node/n1"),
        ("169.254.20.10", 53, "Node/n1"),
        ("192.0.2.254", 80, "Node/n1"),
        ("192.0.2.254", 30080, "Pod/app/a:8080"),
        ("198.51.100.1", 30080, "Pod/app/a:8080"),
        ("198.51.100.60", 80, "Pod/app/a:8080"),
        ("203.0.113.11", 80, "Pod/app/a:8080"),
    ] {
        assert_eq!(backends(&index, address, port), expected, "{address}:{port}");
    }
    for address in host {
        assert!(index.is_own_node(&index.initiator_at(address, at(300))), "{address}");
    }
    index.set_host_addresses(&host[1..].iter().copied().collect(), at(2000));
    let party = |time| show(&index.party_at(ip("203.0.113.10"), 53, Tcp, None, at(time)));
    assert_eq!([party(150), party(1000), party(3000)], ["Service/app/dns", "Node/n1", "Service/app/dns"]);
    index.set_own_node(None);
    assert_eq!(who(&index, "198.51.100.1", 3000), "Node/n1", "the Node object that has the address names it");
    assert_eq!(who(&index, "192.0.2.254", 3000), "address-unjoined", "of which node is not known");
}

#[test]
fn internal_traffic_policy_local_leads_to_the_backends_of_the_clients_node() {
    let on = |node: &'static str| move |pod: &mut Value| pod["spec"]["nodeName"] = node.into();
    let pods = || [mk_pod("a", &["192.0.2.1"], on("n1")), mk_pod("b", &["192.0.2.2"], on("n2"))];
    let end = |address: &str, node: &str| json!({"addresses": [address], "nodeName": node});
    let slice =
        mk_slice("web-x", json!([{"port": 80}]), json!([end("192.0.2.1", "n1"), end("192.0.2.2", "n2")]));
    let mut spec = json!({
        "clusterIP": "203.0.113.1", "externalIPs": ["198.51.100.50"], "internalTrafficPolicy": "Local",
        "externalTrafficPolicy": "Local", "selector": {"app": "web"}, "ports": [{"port": 80}],
    });
    for slices in [vec![], vec![slice]] {
        let index = mk_index(pods().into_iter().chain(slices).chain([mk_service("web", spec.clone())]));
        for (address, client, expected) in [
            ("203.0.113.1", Some("n1"), "Pod/app/a:80"),
            ("203.0.113.1", Some("n2"), "Pod/app/b:80"),
            ("203.0.113.1", Some("n3"), ""),
            ("203.0.113.1", None, "Pod/app/a:80 Pod/app/b:80"),
            ("198.51.100.50", Some("n1"), "Pod/app/a:80 Pod/app/b:80"),
        ] {
            let party = index.party_at(ip(address), 80, Tcp, client, at(1000));
            assert_eq!(show_backends(&party), expected, "{address} from {client:?}");
        }
    }
    spec["internalTrafficPolicy"] = "Cluster".into();
    let index = mk_index(pods().into_iter().chain([mk_service("web", spec)]));
    let party = index.party_at(ip("203.0.113.1"), 80, Tcp, Some("n1"), at(1000));
    assert_eq!(show_backends(&party), "Pod/app/a:80 Pod/app/b:80");
}

#[test]
fn a_node_may_stand_for_a_client_only_where_something_exposed_leads_to() {
    let ports = json!([{"name": "web", "port": 80, "targetPort": "http", "nodePort": 30080}, {"port": 9000, "name": "m"}]);
    for (case, spec, expected) in [
        ("ClusterIP", json!({}), false),
        ("NodePort", json!({"type": "NodePort"}), true),
        ("LoadBalancer", json!({"type": "LoadBalancer"}), true),
        ("external IP", json!({"externalIPs": ["198.51.100.50"]}), true),
        ("client kept", json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}), false),
    ] {
        let mut full = json!({"clusterIP": "203.0.113.1", "selector": {"app": "web"}, "ports": ports});
        if case == "ClusterIP" {
            full["ports"][0].as_object_mut().unwrap().remove("nodePort");
        }
        full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let pod = || mk_pod("a", &["192.0.2.1"], plain);
        let slice =
            mk_slice("web-x", json!([{"name": "web", "port": 8080}]), json!([{"addresses": ["192.0.2.1"]}]));
        for slices in [vec![], vec![slice]] {
            let objects = [mk_service("web", full.clone()), pod()];
            let mut index = mk_index(objects.into_iter().chain(slices));
            let hides = |index: &Index, address, port, protocol| {
                index.may_hide_initiator(ip(address), port, protocol)
            };
            assert_eq!(hides(&index, "192.0.2.1", 8080, Tcp), expected, "{case}");
            assert!(!hides(&index, "192.0.2.1", 8080, Udp), "{case}");
            assert!(!hides(&index, "192.0.2.1", 8081, Tcp), "{case}: another port");
            assert!(!hides(&index, "192.0.2.2", 8080, Tcp), "{case}: another pod");
            index.delete(&ObjectRef::namespaced("Service", "app", "web"), at(200));
            assert!(!hides(&index, "192.0.2.1", 8080, Tcp), "{case}: the Service is gone");
        }
    }
}
