//! Who the peer is: lines 1 to 5, 8 to 10.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::build::{Family, mk_labels, mk_policy};
use super::{
    WEB, allow, both, cilium, labels, mk_ccnp, mk_cnp, mk_group, mk_spec, port, read, why_not, with,
};
use crate::model::facts::{ClusterFacts, NameTable, ServiceFacts};
use crate::model::selector::Selector;

#[test]
fn line_1_a_direction_denies_only_where_there_is_a_section_for_it() {
    both("an empty rule denies all", &allow(json!({})), WEB, "Deny");
    both("and lets nothing from outside in", &allow(json!({})), ("outside", "80/TCP"), "Deny");
    let both_sections = |ingress: Value, egress: Value| {
        mk_cnp("p", json!({"endpointSelector": {}, "ingress": ingress, "egress": egress}))
    };
    cilium("an empty list has no effect", &[both_sections(json!([]), json!([{}]))], "y/web -> x/db 80/TCP")
        .is("Allow");
    cilium("the other section has", &[both_sections(json!([]), json!([{}]))], "x/db -> y/web 80/TCP")
        .is("Deny, Allow");
    cilium("nor the other way round", &[both_sections(json!([{}]), json!([]))], "x/db -> y/web 80/TCP")
        .is("Allow, Allow");
    let np = |spec: Value| [mk_policy("x", "np", spec)];
    cilium(
        "the opposite of Kubernetes",
        &np(json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]})),
        "x/db -> y/web 80/TCP",
    )
    .is("Allow, Allow");
    both("a policy for other pods does nothing", &json!({"allow": [{}]}), ("x/web", "80/TCP"), "Deny");
    cilium("not selected", &[mk_cnp("p", mk_spec(&allow(json!({})), true))], "x/db -> x/web 80/TCP")
        .is("Allow");
}

#[test]
fn line_2_endpoints_and_the_namespace_that_is_implied() {
    let endpoints = |selectors: Value| allow(json!({"Endpoints": selectors}));
    both("an empty list matches nothing", &endpoints(json!([])), WEB, "Deny");
    both("not even with ports", &allow(json!({"Endpoints": [], "toPorts": port("80/TCP")})), WEB, "Deny");
    both("an empty selector is the policy's namespace", &endpoints(json!([{}])), WEB, "Allow");
    both("and no other", &endpoints(json!([{}])), ("y/web", "80/TCP"), "Deny");
    both("nor what is outside", &endpoints(json!([{}])), ("outside", "80/TCP"), "Deny");
    both("nor a node", &endpoints(json!([{}])), ("node-2", "80/TCP"), "Deny");
    both("nor a hostNetwork pod", &endpoints(json!([{}])), ("y/host", "80/TCP"), "Deny");
    for key in ["app", "k8s:app", "any:app"] {
        let web = endpoints(json!([labels(&format!("{key}=web"))]));
        both("with or without a source", &web, WEB, "Allow");
        both("of that label", &web, ("x/plain", "80/TCP"), "Deny");
        both("in this namespace", &web, ("y/web", "80/TCP"), "Deny");
    }
    for source in ["container", "unspec"] {
        let web = endpoints(json!([labels(&format!("{source}:app=web"))]));
        both("pods have no labels of other sources", &web, WEB, "Deny");
    }
    for key in
        ["k8s:io.kubernetes.pod.namespace", "io.kubernetes.pod.namespace", "any:io.kubernetes.pod.namespace"]
    {
        let named = endpoints(json!([labels(&format!("{key}=y,app=web"))]));
        both("a namespace that is named", &named, ("y/web", "80/TCP"), "Allow");
        both("replaces the implied one", &named, WEB, "Deny");
        let exists = endpoints(json!([{"matchExpressions": [{"key": key, "operator": "Exists"}]}]));
        both("any namespace", &exists, ("y/web", "80/TCP"), "Allow");
        both("is a pod's", &exists, ("outside", "80/TCP"), "Deny");
        let not =
            endpoints(json!([{"matchExpressions": [{"key": key, "operator": "NotIn", "values": ["y"]}]}]));
        both("any other namespace", &not, WEB, "Allow");
        both("but not that one", &not, ("y/web", "80/TCP"), "Deny");
    }
    let labelled = endpoints(json!([labels("k8s:io.cilium.k8s.namespace.labels.ns=y")]));
    both("a namespace by its labels", &labelled, ("y/web", "80/TCP"), "Allow");
    both("replaces the implied one too", &labelled, WEB, "Deny");
    let account = endpoints(json!([labels("io.cilium.k8s.policy.serviceaccount=default")]));
    both("a service account", &account, WEB, "Allow");
    both("of the implied namespace", &account, ("y/web", "80/TCP"), "Deny");
    let other = endpoints(json!([labels("io.cilium.k8s.policy.serviceaccount=other")]));
    both("another service account", &other, WEB, "Deny");
    let cluster = endpoints(json!([labels("io.cilium.k8s.policy.cluster=east")]));
    both("a cluster whose name is not known", &cluster, WEB, "Unknown");
    let east = || ClusterFacts { cluster_name: Some("east".into()), ..ClusterFacts::default() };
    with("this cluster", &cluster, &[], WEB, "Allow", |row| row.facts(east()));
}

#[test]
fn line_2_a_clusterwide_policy_implies_no_namespace() {
    for ingress in [true, false] {
        let policy =
            |selectors: Value| [mk_ccnp("p", mk_spec(&allow(json!({"Endpoints": selectors})), ingress))];
        let ask = |peer: &str, subject: &str| match ingress {
            true => (format!("{peer} -> {subject} 80/TCP"), ""),
            false => (format!("{subject} -> {peer} 80/TCP"), ", Allow"),
        };
        for (selectors, peer, wanted) in [
            (json!([{}]), "y/web", "Allow"),
            (json!([{}]), "x/web", "Allow"),
            (json!([{}]), "outside", "Deny"),
            (json!([{}]), "node-3", "Deny"),
            (json!([labels("app=web")]), "y/web", "Allow"),
            (json!([labels("k8s:io.kubernetes.pod.namespace=x")]), "y/web", "Deny"),
        ] {
            for subject in ["x/db", "y/db"] {
                let (ask, rest) = ask(peer, subject);
                cilium("every namespace", &policy(selectors.clone()), &ask).is(&format!("{wanted}{rest}"));
            }
        }
    }
    let all = mk_ccnp("p", json!({"endpointSelector": {}, "ingress": [{}]}));
    cilium("every pod is selected", &[all], "x/web -> y/db 80/TCP").is("Deny");
    let one = mk_ccnp(
        "p",
        json!({"endpointSelector": labels("k8s:io.kubernetes.pod.namespace=y"), "ingress": [{}]}),
    );
    cilium("by namespace", std::slice::from_ref(&one), "x/web -> y/db 80/TCP").is("Deny");
    cilium("no other", &[one], "x/web -> x/db 80/TCP").is("Allow");
    let reserved = mk_ccnp("p", json!({"endpointSelector": labels("reserved:ingress="), "ingress": [{}]}));
    cilium("what is no pod", &[reserved], "x/web -> x/db 80/TCP").is("Allow");
}

#[test]
fn line_2_a_namespaced_policy_stays_in_its_namespace() {
    let elsewhere = mk_cnp(
        "p",
        json!({"endpointSelector": labels("k8s:io.kubernetes.pod.namespace=y"), "ingress": [{}]}),
    );
    let policy = read(&elsewhere);
    assert_eq!(policy.notes()[0].field, "spec.endpointSelector.matchLabels.k8s:io.kubernetes.pod.namespace");
    cilium("not where it says", std::slice::from_ref(&elsewhere), "x/web -> y/db 80/TCP").is("Allow");
    cilium("but in its own", &[elsewhere], "x/web -> x/db 80/TCP").is("Deny");
}

#[test]
fn line_2_reserved_labels_are_entities() {
    let endpoints = |selectors: Value| allow(json!({"Endpoints": selectors}));
    let world = endpoints(json!([labels("reserved:world=")]));
    both("outside", &world, ("outside", "80/TCP"), "Allow");
    both("no pod", &world, WEB, "Deny");
    let nodes = endpoints(json!([labels("reserved:remote-node=")]));
    both("another node", &nodes, ("node-2", "80/TCP"), "Allow");
    both("not outside", &nodes, ("outside", "80/TCP"), "Deny");
    let not =
        endpoints(json!([{"matchExpressions": [{"key": "reserved:world", "operator": "DoesNotExist"}]}]));
    both("whatever is not outside", &not, ("y/web", "80/TCP"), "Allow");
    both("nodes too", &not, ("node-2", "80/TCP"), "Allow");
    both("but outside", &not, ("outside", "80/TCP"), "Deny");
    let and = endpoints(json!([{"matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "reserved:world", "operator": "DoesNotExist"}]}]));
    both("no namespace is implied", &and, ("y/web", "80/TCP"), "Allow");
    both("the label is asked for", &and, ("y/db", "80/TCP"), "Deny");
    both(
        "with a value there is none",
        &endpoints(json!([labels("reserved:world=x")])),
        ("outside", "80/TCP"),
        "Deny",
    );
    both("one that we do not know", &endpoints(json!([labels("reserved:moon=")])), WEB, "Unknown");
}

#[test]
fn line_2_labels_that_cilium_leaves_out_are_unknown() {
    let rules = allow(json!({"Endpoints": [labels("pod-template-hash=abc")]}));
    assert!(read(&mk_cnp("p", mk_spec(&rules, true))).notes()[0].message.contains("leaves the label"));
    both("it may be told to keep them", &rules, WEB, "Unknown");
    both("in this namespace", &rules, ("y/web", "80/TCP"), "Deny");
}

#[test]
fn line_3_fields_of_a_rule_and_rules_or() {
    let one = allow(json!({"Endpoints": [labels("app=web")], "toPorts": port("80/TCP")}));
    both("both", &one, WEB, "Allow");
    both("another port", &one, ("x/web", "81/TCP"), "Deny");
    both("another protocol", &one, ("x/web", "80/UDP"), "Deny");
    both("another peer", &one, ("x/plain", "80/TCP"), "Deny");
    let two = json!({"allow": [{"Endpoints": [labels("app=web")]}, {"toPorts": port("81/TCP")}]});
    both("the first rule", &two, WEB, "Allow");
    both("the second", &two, ("x/plain", "81/TCP"), "Allow");
    both("from anywhere", &two, ("outside", "81/TCP"), "Allow");
    both("neither", &two, ("x/plain", "80/TCP"), "Deny");
    let combined = json!({"Endpoints": [{}], "CIDR": ["203.0.113.0/24"]});
    let policy = read(&mk_cnp("p", mk_spec(&allow(combined), true)));
    assert_eq!(
        why_not(&policy),
        "Cilium refuses it: spec.ingress[0]: must not combine fromEndpoints and fromCIDR"
    );
}

#[test]
fn line_3_deny_beats_every_allow_and_switches_the_direction() {
    let rules = json!({"allow": [{"Endpoints": [{}]}], "deny": [{"Endpoints": [labels("app=web")]}]});
    both("denied", &rules, WEB, "Deny");
    both("others are not", &rules, ("x/plain", "80/TCP"), "Allow");
    let alone = json!({"deny": [{"Endpoints": [labels("app=web")]}]});
    both("a deny rule alone denies the rest too", &alone, ("x/plain", "80/TCP"), "Deny");
    for ingress in [true, false] {
        let (section, ask, rest) = match ingress {
            true => ("ingress", "x/web -> x/db 80/TCP", ""),
            false => ("egress", "x/db -> x/web 80/TCP", ", Allow"),
        };
        let types = if ingress { "Ingress" } else { "Egress" };
        let np = mk_policy("x", "np", json!({"podSelector": {}, "policyTypes": [types], section: [{}]}));
        let deny = mk_cnp("p", mk_spec(&alone, ingress));
        cilium("NetworkPolicy's allow rules too", &[np.clone(), deny], ask).is(&format!("Deny{rest}"));
        let other = mk_cnp("p", mk_spec(&json!({"deny": [{"Entities": ["world"]}]}), ingress));
        cilium("they are one rule set", &[np, other.clone()], ask).is(&format!("Allow{rest}"));
        cilium("without it nothing allows", &[other], ask).is(&format!("Deny{rest}"));
    }
    let text = cilium("", &[mk_cnp("p", mk_spec(&rules, true))], "x/web -> x/db 80/TCP");
    let decision = text.judgement(Family::V4).ingress;
    assert_eq!(decision.rule_name.as_deref(), Some("ingressDeny[0]"));
}

#[test]
fn line_4_cidr_rules_mean_neither_pods_nor_nodes() {
    for key in ["CIDR", "CIDRSet"] {
        let everything = match key {
            "CIDR" => json!(["0.0.0.0/0"]),
            _ => json!([{"cidr": "0.0.0.0/0"}]),
        };
        let rules = allow(json!({key: everything}));
        both("outside", &rules, ("outside", "80/TCP"), "Allow");
        both("no pod", &rules, WEB, "Deny");
        both("no other node", &rules, ("node-2", "80/TCP"), "Deny");
        both("no hostNetwork pod", &rules, ("y/host", "80/TCP"), "Deny");
        with("unless it is told to", &rules, &[], ("node-2", "80/TCP"), "Allow", |row| {
            row.dialect("cilium,ip_block_matches_nodes=true")
        });
    }
    let except = allow(json!({"CIDRSet": [{"cidr": "203.0.113.0/24", "except": ["203.0.113.0/28"]}]}));
    both("an exception", &except, ("outside", "80/TCP"), "Deny");
    both("beside it", &except, ("203.0.113.99", "80/TCP"), "Allow");
    both("outside of the block", &except, ("192.0.2.99", "80/TCP"), "Deny");
    let address = allow(json!({"CIDR": ["203.0.113.7"]}));
    let row = cilium("", &[mk_cnp("p", mk_spec(&address, true))], "outside -> x/db 80/TCP");
    assert_eq!(row.judgement(Family::V4).ingress.verdict.as_str(), "Allow", "a single address");
    let wrong = allow(json!({"CIDRSet": [{"cidr": "203.0.113.0/24", "except": ["192.0.2.0/28"]}]}));
    assert!(
        why_not(&read(&mk_cnp("p", mk_spec(&wrong, true))))
            .contains("192.0.2.0/28 is not inside 203.0.113.0/24")
    );
}

#[test]
fn line_4_groups_of_addresses_by_name_and_by_labels() {
    let group = mk_group("office", json!({"site": "here"}), &["203.0.113.0/24", "192.0.2.0/24"]);
    let other = mk_group("other", json!({"site": "there"}), &["198.18.0.0/15"]);
    let groups = [group.clone(), other];
    let named = |name: &str| allow(json!({"CIDRSet": [{"cidrGroupRef": name}]}));
    let labelled =
        |site: &str| allow(json!({"CIDRSet": [{"cidrGroupSelector": {"matchLabels": {"site": site}}}]}));
    let outside = ("outside", "80/TCP");
    for (says, rules, peer, wanted) in [
        ("in the group", named("office"), outside, "Allow"),
        ("its other block", named("office"), ("192.0.2.77", "80/TCP"), "Allow"),
        ("no pod", named("office"), WEB, "Deny"),
        ("no node", named("office"), ("node-2", "80/TCP"), "Deny"),
        ("in another group", named("other"), outside, "Deny"),
        ("in none that is there", named("nowhere"), outside, "Unknown"),
        ("a pod is in none", named("nowhere"), WEB, "Deny"),
        ("by labels", labelled("here"), outside, "Allow"),
        ("by other labels", labelled("there"), outside, "Deny"),
        ("labels that no group has", labelled("nowhere"), outside, "Deny"),
    ] {
        with(says, &rules, &groups, peer, wanted, |row| row);
    }
    let except = allow(json!({"CIDRSet": [{"cidrGroupRef": "office", "except": ["203.0.113.0/28"]}]}));
    with("an exception", &except, &groups, outside, "Deny", |row| row);
    let mut old = group.clone();
    old["apiVersion"] = json!("cilium.io/v2alpha1");
    with("the old version", &named("office"), &[old], outside, "Allow", |row| row);
    let mut broken = group;
    broken["spec"]["externalCIDRs"] = json!(["192.0.2.0/24", "nonsense"]);
    assert_eq!(read(&broken).faults()[0].field, "spec.externalCIDRs[1]");
    with(
        "one that cannot be read",
        &named("office"),
        std::slice::from_ref(&broken),
        outside,
        "Unknown",
        |row| row,
    );
    with(
        "may hold more",
        &named("office"),
        std::slice::from_ref(&broken),
        ("192.0.2.77", "80/TCP"),
        "Allow",
        |row| row,
    );
    broken["spec"]["externalCIDRs"] = json!("192.0.2.0/24");
    for rules in [named("office"), labelled("here")] {
        with(
            "refused: it may be any group",
            &rules,
            std::slice::from_ref(&broken),
            outside,
            "Unknown",
            |row| row,
        );
    }
}

#[test]
fn line_5_entities() {
    let entity = |name: &str| allow(json!({"Entities": [name]}));
    let peers = [("x/web", 0), ("y/web", 1), ("node-2", 2), ("y/host", 3), ("outside", 4)];
    for (name, wanted) in [
        ("all", ["Allow"; 5]),
        ("none", ["Deny"; 5]),
        ("world", ["Deny", "Deny", "Deny", "Deny", "Allow"]),
        ("cluster", ["Allow", "Allow", "Allow", "Allow", "Unknown"]),
        ("remote-node", ["Deny", "Deny", "Allow", "Allow", "Deny"]),
        ("host", ["Deny"; 5]),
        ("health", ["Deny"; 5]),
        ("ingress", ["Deny"; 5]),
        ("init", ["Deny"; 5]),
        ("unmanaged", ["Deny"; 5]),
    ] {
        for (peer, at) in peers {
            both("an entity", &entity(name), (peer, "80/TCP"), wanted[at]);
        }
    }
    for name in ["cluster", "health", "ingress", "world"] {
        both("an address that no object has", &entity(name), ("unknown", "80/TCP"), "Unknown");
    }
    both("all is whoever it is", &entity("all"), ("unknown", "80/TCP"), "Allow");
    both("none is nobody", &entity("none"), ("unknown", "80/TCP"), "Deny");
    let to_host = [mk_cnp("p", mk_spec(&entity("host"), false))];
    cilium("egress to its own node", &to_host, "x/db -> node-1 80/TCP").is("Allow, Allow");
    let to_others = [mk_cnp("p", mk_spec(&entity("remote-node"), false))];
    cilium("is not to another one", &to_others, "x/db -> node-1 80/TCP").is("Deny, Allow");
    let world =
        |name: &str| cilium("", &[mk_cnp("p", mk_spec(&entity(name), true))], "outside -> x/db 80/TCP");
    for (name, [v4, v6]) in [("world-ipv4", ["Allow", "Deny"]), ("world-ipv6", ["Deny", "Allow"])] {
        assert_eq!(world(name).judgement(Family::V4).ingress.verdict.as_str(), v4, "{name}");
        assert_eq!(world(name).judgement(Family::V6).ingress.verdict.as_str(), v6, "{name}");
    }
    let wrong = mk_cnp("p", mk_spec(&entity("moon"), true));
    assert_eq!(read(&wrong).faults()[0].field, "spec.ingress[0].fromEntities[0]");
    both("one that is none", &entity("moon"), WEB, "Unknown");
}

#[test]
fn line_5_the_api_server_is_where_it_listens() {
    let rules = allow(json!({"Entities": ["kube-apiserver"]}));
    let address = |family: Family| family.address("203.0.113.7".parse().unwrap());
    let known = || ClusterFacts {
        api_server: Some([Family::V4, Family::V6].map(address).into()),
        ..ClusterFacts::default()
    };
    let outside = ("outside", "443/TCP");
    with("it is there", &rules, &[], outside, "Allow", |row| row.facts(known()));
    with("elsewhere it is not", &rules, &[], ("203.0.113.8", "443/TCP"), "Deny", |row| row.facts(known()));
    both("nobody knows where", &rules, outside, "Unknown");
    both("on a node, perhaps", &rules, ("node-2", "443/TCP"), "Unknown");
    both("no pod", &rules, WEB, "Deny");
    let cluster = allow(json!({"Entities": ["cluster"]}));
    with("it is of the cluster", &cluster, &[], outside, "Allow", |row| row.facts(known()));
    with("others outside are not", &cluster, &[], ("203.0.113.8", "443/TCP"), "Deny", |row| {
        row.facts(known())
    });
}

#[test]
fn line_8_names_are_the_addresses_that_dns_gave() {
    let address = |family: Family| family.address("203.0.113.7".parse().unwrap());
    let table = |complete| {
        let names =
            [Family::V4, Family::V6].map(|family| (address(family), vec![Arc::from("api.example.com")]));
        ClusterFacts {
            names: Some(NameTable { names: names.into_iter().collect(), complete }),
            ..ClusterFacts::default()
        }
    };
    let policy = |name: Value| {
        [mk_cnp(
            "p",
            json!({"endpointSelector": {}, "egress": [{"toFQDNs": [name], "toPorts": port("443/TCP")}]}),
        )]
    };
    for (name, ask, wanted) in [
        (json!({"matchName": "api.example.com"}), "x/db -> outside 443/TCP", "Allow"),
        (json!({"matchName": "API.example.com."}), "x/db -> outside 443/TCP", "Allow"),
        (json!({"matchName": "www.example.com"}), "x/db -> outside 443/TCP", "Deny"),
        (json!({"matchPattern": "*.example.com"}), "x/db -> outside 443/TCP", "Allow"),
        (json!({"matchPattern": "*.com"}), "x/db -> outside 443/TCP", "Deny"),
        (json!({"matchPattern": "*"}), "x/db -> outside 443/TCP", "Allow"),
        (json!({"matchName": "api.example.com"}), "x/db -> outside 80/TCP", "Deny"),
        (json!({"matchName": "api.example.com"}), "x/db -> 203.0.113.8 443/TCP", "Deny"),
        (json!({"matchName": "api.example.com"}), "x/db -> y/web 443/TCP", "Deny"),
    ] {
        cilium("a name", &policy(name), ask).facts(table(true)).is(&format!("{wanted}, Allow"));
    }
    let api = policy(json!({"matchName": "api.example.com"}));
    cilium("nobody knows its names", &api, "x/db -> outside 443/TCP").is("Unknown, Allow");
    cilium("not all names are known", &api, "x/db -> 203.0.113.8 443/TCP")
        .facts(table(false))
        .is("Unknown, Allow");
    assert_eq!(read(&api[0]).notes()[0].field, "spec.egress[0].toFQDNs[0]");
    let mut learns = api[0].clone();
    let entry =
        json!({"ports": [{"port": "53", "protocol": "UDP"}], "rules": {"dns": [{"matchPattern": "*"}]}});
    learns["spec"]["egress"].as_array_mut().unwrap().push(json!({"toEntities": ["all"], "toPorts": [entry]}));
    assert!(read(&learns).notes().is_empty());
}

#[test]
fn line_9_services_are_what_is_behind_them() {
    let service =
        |name: &str, selector: Option<&[(&str, &str)]>, addresses: Vec<std::net::IpAddr>| ServiceFacts {
            namespace: "y".into(),
            name: name.into(),
            labels: mk_labels("team=a"),
            selector: selector.map(|labels| Selector::from_labels(labels.iter().copied())),
            addresses,
        };
    let address = |family: Family| family.address("203.0.113.7".parse().unwrap());
    let known = || ClusterFacts {
        services: Some(vec![
            service("db", Some(&[("app", "db")]), vec![]),
            service("far", None, [Family::V4, Family::V6].map(address).into()),
        ]),
        ..ClusterFacts::default()
    };
    let to = |service: Value, ports: Value| {
        [mk_cnp(
            "p",
            json!({"endpointSelector": {}, "egress": [{"toServices": [service], "toPorts": ports}]}),
        )]
    };
    let named = |name: &str| json!({"k8sService": {"serviceName": name, "namespace": "y"}});
    for (service, ports, ask, wanted) in [
        (named("db"), Value::Null, "x/db -> y/db 9090/TCP", "Allow"),
        (named("db"), Value::Null, "x/db -> y/web 9090/TCP", "Deny"),
        (named("db"), port("9090/TCP"), "x/db -> service y/db:9090 80/TCP", "Allow"),
        (named("db"), port("80/TCP"), "x/db -> service y/db:9090 80/TCP", "Deny"),
        (named("far"), Value::Null, "x/db -> outside 443/TCP", "Allow"),
        (named("far"), Value::Null, "x/db -> 203.0.113.8 443/TCP", "Deny"),
        (named("none"), Value::Null, "x/db -> y/db 80/TCP", "Unknown"),
        (
            json!({"k8sServiceSelector": {"selector": {"matchLabels": {"team": "a"}}}}),
            Value::Null,
            "x/db -> y/db 80/TCP",
            "Allow",
        ),
        (
            json!({"k8sServiceSelector": {"selector": {"matchLabels": {"team": "b"}}}}),
            Value::Null,
            "x/db -> y/db 80/TCP",
            "Deny",
        ),
        (
            json!({"k8sServiceSelector": {"selector": {}, "namespace": "x"}}),
            Value::Null,
            "x/db -> y/db 80/TCP",
            "Deny",
        ),
    ] {
        cilium("a Service", &to(service, ports), ask).facts(known()).is(&format!("{wanted}, Allow"));
    }
    cilium("no Service is known", &to(named("db"), Value::Null), "x/db -> y/db 80/TCP").is("Unknown, Allow");
}

#[test]
fn line_10_nodes_are_meant_by_labels() {
    let gpu = allow(json!({"Nodes": [labels("k8s:gpu=yes")]}));
    let known = || ClusterFacts {
        node_labels: Some(
            [("node-2".into(), mk_labels("gpu=yes")), ("node-3".into(), mk_labels(""))].into_iter().collect(),
        ),
        ..ClusterFacts::default()
    };
    with("its labels", &gpu, &[], ("node-2", "80/TCP"), "Allow", |row| row.facts(known()));
    with("a hostNetwork pod is its node", &gpu, &[], ("y/host", "80/TCP"), "Allow", |row| row.facts(known()));
    with("other labels", &gpu, &[], ("node-3", "80/TCP"), "Deny", |row| row.facts(known()));
    with("no pod", &gpu, &[], WEB, "Deny", |row| row.facts(known()));
    both("labels are not known", &gpu, ("node-2", "80/TCP"), "Unknown");
}
