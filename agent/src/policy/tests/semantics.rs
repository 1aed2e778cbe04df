//! What naive evaluators get wrong about NetworkPolicy, line by line. A row gives the verdict of ingress, or
//! `egress, ingress`; every row is judged in IPv4 and IPv6, and `both_ways` rows with the directions exchanged.

use std::net::Ipv4Addr;
use std::slice::from_ref;
use std::sync::Arc;

use serde_json::{Value, json};

use super::build::{Family, World, mk_policy, mk_read, row};
use crate::model::dialect::Dialect;
use crate::model::edge::{Direction, Protocol};
use crate::model::endpoint::{Connection, Party};
use crate::model::scenario::Scenario;
use crate::model::verdict::{NotJudged, Reason, UnknownReason, Verdict};
use crate::policy::Judge;

/// A policy in x for its db pods, with these ingress rules.
fn mk_ingress(rules: Value) -> Value {
    mk_policy("x", "p", json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": rules}))
}

fn mk_egress(rules: Value) -> Value {
    let spec =
        json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Egress"], "egress": rules});
    mk_policy("x", "p", spec)
}

fn mk_from(peer: Value) -> Value {
    mk_ingress(json!([{"from": [peer]}]))
}

#[test]
fn line_1_peers_absent_or_empty_are_any_peer_and_an_empty_peer_is_invalid() {
    for from in ["x/web", "y/web", "outside", "node-2"] {
        let ask = format!("{from} -> x/db 80/TCP");
        row("from absent is any peer", &[mk_ingress(json!([{}]))], &ask).both_ways().is("Allow");
        row("from empty is any peer", &[mk_ingress(json!([{"from": []}]))], &ask).both_ways().is("Allow");
        row("a peer without fields is invalid", &[mk_from(json!({}))], &ask).both_ways().is("Unknown");
    }
}

#[test]
fn line_2_no_rule_denies_all_and_an_empty_rule_allows_all() {
    let absent = mk_policy("x", "p", json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
    let null = mk_policy("x", "p", json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": null}));
    for policy in [absent, null, mk_ingress(json!([]))] {
        row("no rule denies all", from_ref(&policy), "x/web -> x/db 80/TCP").both_ways().is("Deny");
        row("from outside too", &[policy], "outside -> x/db 80/TCP").both_ways().is("Deny");
    }
    row("one empty rule allows all", &[mk_ingress(json!([{}]))], "x/web -> x/db 80/UDP")
        .both_ways()
        .is("Allow");
}

#[test]
fn line_3_policy_types_absent_are_ingress_always_and_egress_only_with_a_rule() {
    let spec = |egress: Value| mk_policy("x", "p", json!({"podSelector": {}, "egress": egress}));
    let to_web = json!([{"to": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]);
    row("ingress always", &[spec(to_web.clone())], "y/db -> x/plain 80/TCP").is("Allow, Deny");
    row("egress with a rule", &[spec(to_web.clone())], "x/plain -> y/db 80/TCP").is("Deny, Allow");
    row("egress by its rule", &[spec(to_web)], "x/plain -> x/web 80/TCP").is("Allow, Deny");
    row("not with an empty list", &[spec(json!([]))], "x/plain -> y/db 80/TCP").is("Allow, Allow");
    row("not without a list", &[spec(Value::Null)], "x/plain -> y/db 80/TCP").is("Allow, Allow");
    let types = json!({"podSelector": {}, "policyTypes": [], "egress": [{}]});
    row("empty is absent", &[mk_policy("x", "p", types)], "x/plain -> y/db 80/TCP").is("Allow, Allow");
    let listed = json!({"podSelector": {}, "policyTypes": ["Ingress"], "egress": []});
    row("egress not listed", &[mk_policy("x", "p", listed)], "x/plain -> y/db 80/TCP").is("Allow, Allow");
    let only_egress = json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": []});
    row("ingress not listed", &[mk_policy("x", "p", only_egress)], "y/db -> x/plain 80/TCP")
        .is("Allow, Allow");
    let no_spec = json!({"metadata": {"namespace": "x", "name": "p"}});
    row("no spec selects all for ingress", &[no_spec], "y/db -> x/plain 80/TCP").is("Allow, Deny");
}

#[test]
fn line_4_isolation_is_per_direction() {
    let ingress = mk_ingress(json!([]));
    row("ingress isolated", from_ref(&ingress), "y/web -> x/db 80/TCP").both_ways().is("Allow, Deny");
    row("egress untouched", from_ref(&ingress), "x/db -> y/web 80/TCP").both_ways().is("Allow, Allow");
    row("other pods untouched", from_ref(&ingress), "y/web -> x/web 80/TCP").both_ways().is("Allow, Allow");
    row("other namespaces untouched", &[ingress], "x/web -> y/db 80/TCP").both_ways().is("Allow, Allow");
}

#[test]
fn line_5_policies_add_up() {
    let web = mk_from(json!({"podSelector": {"matchLabels": {"app": "web"}}}));
    let mut plain = mk_from(json!({"namespaceSelector": {"matchLabels": {"ns": "y"}}}));
    plain["metadata"]["name"] = "q".into();
    let both = [web, plain];
    row("the first allows", &both, "x/web -> x/db 80/TCP").both_ways().is("Allow");
    row("the second allows", &both, "y/db -> x/db 80/TCP").both_ways().is("Allow");
    row("neither allows", &both, "x/plain -> x/db 80/TCP").both_ways().is("Deny");
    row(
        "the second of several rules allows",
        &[mk_ingress(json!([{"ports": [{"port": 1}]}, {}]))],
        "x/plain -> x/db 80/TCP",
    )
    .both_ways()
    .is("Allow");
}

#[test]
fn line_6_named_ports_resolve_on_the_responder_per_protocol() {
    let named = |protocol: &str| json!([{"ports": [{"port": "http", "protocol": protocol}]}]);
    let ingress = |protocol| [mk_ingress(named(protocol))];
    row("on the subject for ingress", &ingress("TCP"), "x/web -> x/db 8080/TCP").is("Allow");
    row("another number", &ingress("TCP"), "x/web -> x/db 9090/TCP").is("Deny");
    row("per protocol", &ingress("UDP"), "x/web -> x/db 8081/UDP").is("Allow");
    row("not that of another protocol", &ingress("UDP"), "x/web -> x/db 8080/UDP").is("Deny");
    row("unresolved", &ingress("SCTP"), "x/web -> x/db 8080/SCTP").is("Deny");
    let egress = [mk_egress(named("TCP"))];
    row("on the peer for egress", &egress, "x/db -> y/db 9090/TCP").is("Allow, Allow");
    row("not on the subject for egress", &egress, "x/db -> y/db 8080/TCP").is("Deny, Allow");
    row("unresolved on a peer without that name", &egress, "x/db -> y/web 9090/TCP").is("Deny, Allow");
    row("never on an address", &egress, "x/db -> outside 8080/TCP").is("Deny, Allow");
    row("never on a node", &egress, "x/db -> node-2 8080/TCP").is("Deny, Allow");
    row("a peer that is unknown may have it", &egress, "x/db -> unknown 8080/TCP").is("Unknown, Allow");
}

#[test]
fn line_7_protocols_and_port_ranges() {
    let ports = |ports: Value| [mk_ingress(json!([{ "ports": ports }]))];
    for (says, given, allowed, denied) in [
        (
            "protocol absent is TCP",
            json!([{"port": 80}]),
            &["80/TCP"][..],
            &["80/UDP", "80/SCTP", "81/TCP"][..],
        ),
        ("port absent is every port", json!([{"protocol": "UDP"}]), &["1/UDP", "65535/UDP"], &["1/TCP"]),
        ("both absent is every TCP port", json!([{}]), &["1/TCP", "65535/TCP"], &["1/UDP"]),
        ("SCTP counts", json!([{"port": 80, "protocol": "SCTP"}]), &["80/SCTP"], &["80/TCP"]),
        (
            "endPort is inclusive",
            json!([{"port": 80, "endPort": 82}]),
            &["80/TCP", "81/TCP", "82/TCP"],
            &["79/TCP", "83/TCP", "81/UDP"],
        ),
        ("endPort may be port", json!([{"port": 80, "endPort": 80}]), &["80/TCP"], &["79/TCP", "81/TCP"]),
        ("up to the last port", json!([{"port": 1, "endPort": 65535}]), &["1/TCP", "65535/TCP"], &["1/UDP"]),
        (
            "several",
            json!([{"port": 80}, {"port": 53, "protocol": "UDP"}]),
            &["80/TCP", "53/UDP"],
            &["53/TCP"],
        ),
        ("empty is every port and protocol", json!([]), &["1/TCP", "2/UDP", "3/SCTP"], &[]),
    ] {
        for probe in allowed {
            row(says, &ports(given.clone()), &format!("x/web -> x/db {probe}")).both_ways().is("Allow");
        }
        for probe in denied {
            row(says, &ports(given.clone()), &format!("x/web -> x/db {probe}")).both_ways().is("Deny");
        }
    }
}

#[test]
fn line_8_ip_blocks_against_pods_are_a_dialect_and_except_carves_its_own_block_only() {
    let pods = [mk_from(json!({"ipBlock": {"cidr": "198.51.100.0/24"}}))];
    for (dialect, verdict) in [("standard", "Allow"), ("standard,ip_block_matches_pods=false", "Deny")] {
        row("against a pod", &pods, "x/web -> x/db 80/TCP").dialect(dialect).both_ways().is(verdict);
        let nodes = [mk_from(json!({"ipBlock": {"cidr": "192.0.2.0/24"}}))];
        row("against a node", &nodes, "node-2 -> x/db 80/TCP").dialect(dialect).both_ways().is(verdict);
        let outside = [mk_from(json!({"ipBlock": {"cidr": "203.0.113.0/24"}}))];
        row("against outside", &outside, "outside -> x/db 80/TCP").dialect(dialect).both_ways().is("Allow");
    }
    let carved = json!({"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.0/28"]}});
    row("in except", &[mk_from(carved.clone())], "outside -> x/db 80/TCP").both_ways().is("Deny");
    row("beside except", &[mk_from(carved.clone())], "203.0.113.16 -> x/db 80/TCP").both_ways().is("Allow");
    let again = mk_ingress(json!([{"from": [carved, {"ipBlock": {"cidr": "203.0.113.7/32"}}]}]));
    row("another peer allows it again", &[again], "outside -> x/db 80/TCP").both_ways().is("Allow");
    row("every address", &[mk_from(json!({"ipBlock": {"cidr": "0.0.0.0/0"}}))], "outside -> x/db 80/TCP")
        .both_ways()
        .is("Allow");
}

#[test]
fn line_8_a_dialect_that_does_not_say_leaves_pods_in_a_block_unknown() {
    let mut dialect = Dialect::STANDARD;
    dialect.ip_block_matches_pods = None;
    let world = World::new(Family::V4);
    for (block, from, verdict) in [
        ("198.51.100.0/24", "x/web", Verdict::Unknown),
        ("192.0.2.0/24", "x/web", Verdict::Deny),
        ("203.0.113.0/24", "outside", Verdict::Allow),
    ] {
        let policies = [mk_read(&mk_from(json!({"ipBlock": {"cidr": block}})))];
        let mut judge = Judge::new(&policies, dialect, &Scenario::Enforced);
        let (initiator, responder) = (world.party(from), world.party("x/db"));
        let connection =
            Connection { initiator: &initiator, responder: &responder, port: 80, protocol: Protocol::Tcp };
        let decision = judge.judge(&connection).ingress;
        assert_eq!(decision.verdict, verdict, "{from} in {block}: {}", decision.reason);
        if verdict == Verdict::Unknown {
            let switch = "ip_block_matches_pods";
            assert_eq!(decision.reason, Reason::Unknown(UnknownReason::DialectUndefined { switch }));
        }
    }
}

#[test]
fn line_9_selectors_of_one_peer_are_and_those_of_two_are_or() {
    let ns = json!({"matchLabels": {"ns": "y"}});
    let web = json!({"matchLabels": {"app": "web"}});
    let and = [mk_from(json!({"namespaceSelector": ns, "podSelector": web}))];
    let or = [mk_ingress(json!([{"from": [{"namespaceSelector": ns}, {"podSelector": web}]}]))];
    for (from, both, either) in [
        ("y/web", "Allow", "Allow"),
        ("y/db", "Deny", "Allow"),
        ("x/web", "Deny", "Allow"),
        ("x/plain", "Deny", "Deny"),
    ] {
        row("in one peer: AND", &and, &format!("{from} -> x/db 80/TCP")).both_ways().is(both);
        row("in two peers: OR", &or, &format!("{from} -> x/db 80/TCP")).both_ways().is(either);
    }
    let own = [mk_from(json!({"podSelector": {}}))];
    row("podSelector alone: the policy's namespace", &own, "x/plain -> x/db 80/TCP").both_ways().is("Allow");
    row("podSelector alone: no other", &own, "y/web -> x/db 80/TCP").both_ways().is("Deny");
    let every = [mk_from(json!({"namespaceSelector": {}}))];
    row("namespaceSelector {}: every namespace", &every, "y/db -> x/db 80/TCP").both_ways().is("Allow");
    row("namespaceSelector {}: but no address", &every, "outside -> x/db 80/TCP").both_ways().is("Deny");
    let every_web = [mk_from(json!({"namespaceSelector": {}, "podSelector": web}))];
    row("with labels in every namespace", &every_web, "y/web -> x/db 80/TCP").both_ways().is("Allow");
    row("with other labels", &every_web, "y/db -> x/db 80/TCP").both_ways().is("Deny");
}

#[test]
fn line_10_a_missing_key_matches_not_in_and_does_not_exist_only() {
    for (operator, values, verdict) in [
        ("NotIn", json!(["web"]), "Allow"),
        ("DoesNotExist", Value::Null, "Allow"),
        ("In", json!(["web"]), "Deny"),
        ("Exists", Value::Null, "Deny"),
    ] {
        let selector = json!({"matchExpressions": [{"key": "app", "operator": operator, "values": values}]});
        row(operator, &[mk_from(json!({"podSelector": selector}))], "x/plain -> x/db 80/TCP")
            .both_ways()
            .is(verdict);
        // As the subject's selector: a pod that is selected is isolated.
        let subject = mk_policy("x", "p", json!({"podSelector": selector, "policyTypes": ["Ingress"]}));
        let isolated = if verdict == "Allow" { "Deny" } else { "Allow" };
        row(operator, &[subject], "x/web -> x/plain 80/TCP").both_ways().is(isolated);
    }
}

#[test]
fn line_11_namespaces_are_selected_by_their_name_label() {
    let y = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "y"}}});
    row("its own name", &[mk_from(y.clone())], "y/db -> x/db 80/TCP").both_ways().is("Allow");
    row("another name", &[mk_from(y)], "x/web -> x/db 80/TCP").both_ways().is("Deny");
}

#[test]
fn line_12_host_network_pods_are_never_subjects_and_as_peers_their_node() {
    let deny = mk_policy("x", "p", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    row("never a subject", from_ref(&deny), "outside -> x/host 80/TCP").is("Allow, Allow");
    row("never a subject of egress", &[deny], "x/host -> outside 80/TCP").is("Allow, Allow");
    let labels = mk_from(json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}));
    row("no pod as a peer", &[labels], "y/host -> x/db 80/TCP").both_ways().is("Deny");
    let block = mk_from(json!({"ipBlock": {"cidr": "198.51.100.0/24"}}));
    row("an address as a peer", from_ref(&block), "y/host -> x/db 80/TCP").both_ways().is("Allow");
    row("not where blocks match no pods", &[block], "y/host -> x/db 80/TCP")
        .dialect("standard,ip_block_matches_pods=false")
        .both_ways()
        .is("Deny");
    row("on the pod's own node", &[mk_ingress(json!([]))], "x/host -> x/db 80/TCP").both_ways().is("Allow");
}

#[test]
fn line_13_the_pods_own_node_is_allowed_unless_the_dialect_judges_it() {
    let ingress = [mk_ingress(json!([]))];
    let egress = [mk_egress(json!([]))];
    row("from its own node", &ingress, "node-1 -> x/db 80/TCP").is("Allow");
    row("from another node", &ingress, "node-2 -> x/db 80/TCP").is("Deny");
    row("to its own node", &egress, "x/db -> node-1 80/TCP").is("Allow, Allow");
    row("to another node", &egress, "x/db -> node-2 80/TCP").is("Deny, Allow");
    row("from its own node, judged", &ingress, "node-1 -> x/db 80/TCP")
        .dialect("standard,own_node_to_pod_judged=true")
        .is("Deny");
    row("to its own node, judged", &egress, "x/db -> node-1 80/TCP")
        .dialect("standard,pod_to_own_node_judged=true")
        .is("Deny, Allow");
    let lost = [mk_policy("x", "p", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))];
    row("a pod whose node is not known", &lost, "node-1 -> x/lost 80/TCP").both_ways().is("Unknown");
    row(
        "and which all may reach",
        &[mk_policy("x", "p", json!({"podSelector": {}, "ingress": [{}]}))],
        "node-1 -> x/lost 80/TCP",
    )
    .both_ways()
    .is("Allow");
    let from_web = [mk_from(json!({"podSelector": {"matchLabels": {"app": "web"}}}))];
    row("an outside client that source NAT hid is not the node", &from_web, "service -> x/db 80/TCP")
        .is("Unknown");
}

#[test]
fn line_14_replies_are_not_judged_and_icmp_is_a_dialect() {
    let sealed = mk_policy(
        "x",
        "p",
        json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
        "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}]}]}),
    );
    row("what may go out gets its answer", &[sealed], "x/db -> y/web 80/TCP").is("Allow, Allow");
    let portless = [mk_from(json!({"podSelector": {}}))];
    let ported = [mk_ingress(json!([{"ports": [{"port": 80}]}]))];
    // Echo request: type 8, code 0.
    let ask = "x/web -> x/db 2048/ICMP";
    for (dialect, ported_verdict) in [
        ("standard", "Unknown"),
        ("standard,icmp_needs_rule=true", "Deny"),
        ("standard,icmp_needs_rule=false", "Allow"),
    ] {
        row("not isolated", &[], ask).dialect(dialect).is("Allow");
        row("a rule without ports matches", &portless, ask).dialect(dialect).both_ways().is("Allow");
        row("a rule with ports does not", &ported, ask).dialect(dialect).both_ways().is(ported_verdict);
    }
}

#[test]
fn line_14_link_local_protocols_are_not_judged() {
    let deny =
        [mk_read(&mk_policy("x", "p", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})))];
    let mut judge = Judge::new(&deny, Dialect::STANDARD, &Scenario::Enforced);
    let web = World::new(Family::V4).party("x/web");
    let mut ask = |to: &str, port, protocol| {
        let responder = Party::external(to.parse().unwrap());
        let connection = Connection { initiator: &web, responder: &responder, port, protocol };
        judge.judge(&connection).egress
    };
    for (to, port, protocol) in [
        ("224.0.0.251", 5353, Protocol::Udp),
        ("ff02::fb", 5353, Protocol::Udp),
        ("255.255.255.255", 9, Protocol::Udp),
        ("0.0.0.0", 80, Protocol::Tcp),
        ("::", 80, Protocol::Tcp),
        ("192.0.2.1", 67, Protocol::Udp),
        ("2001:db8::1", 547, Protocol::Udp),
        ("2001:db8::1", 135 << 8, Protocol::Icmpv6),
        ("2001:db8::1", 143 << 8, Protocol::Icmpv6),
    ] {
        let decision = ask(to, port, protocol);
        assert_eq!(
            decision.reason,
            Reason::NotJudged(NotJudged::LinkLocalProtocol),
            "{to} {port}/{protocol}"
        );
        assert_eq!(decision.verdict, Verdict::Allow);
    }
    assert_eq!(ask("192.0.2.1", 67, Protocol::Tcp).verdict, Verdict::Deny);
    assert_eq!(ask("2001:db8::1", 128 << 8, Protocol::Icmpv6).verdict, Verdict::Unknown);
}

#[test]
fn line_15_services_are_judged_by_their_backends_and_backend_ports() {
    let policy = [mk_ingress(json!([{"ports": [{"port": 8080}]}]))];
    row("the port behind the Service", &policy, "x/web -> service x/db:8080 80/TCP").is("Allow");
    row("not the Service's port", &policy, "x/web -> service x/db:9999 8080/TCP").is("Deny");
    row("backends that agree", &policy, "x/web -> service x/db:8080 y/db:1 80/TCP").is("Allow");
    row("backends that differ", &policy, "x/web -> service x/db:9999 y/db:1 80/TCP").is("Unknown");
    row("no backend", &policy, "x/web -> service 80/TCP").is("Unknown");
    row("no backend, from an isolated pod", &[mk_egress(json!([]))], "x/db -> service 80/TCP")
        .is("Unknown, Unknown");
    let egress = [mk_egress(json!([{"ports": [{"port": "http"}]}]))];
    row("a named port of each backend", &egress, "x/db -> service y/db:9090 80/TCP").is("Allow, Allow");
    row("a backend outside", &egress, "x/db -> service outside:9090 80/TCP").is("Deny, Allow");
    row("a pod that reaches itself", &[mk_ingress(json!([]))], "x/db -> service x/db:80 80/TCP").is("Allow");
}

#[test]
fn line_16_a_node_address_is_no_dns_pod() {
    let dns = json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}});
    let policy = [mk_egress(json!([{"to": [dns], "ports": [{"port": 53, "protocol": "UDP"}]}]))];
    row("the DNS pod", &policy, "x/db -> kube-system/dns 53/UDP").is("Allow, Allow");
    row("NodeLocal DNSCache", &policy, "x/db -> node-2 53/UDP").is("Deny, Allow");
    row("an address that a pod no longer owns", &policy, "x/db -> 198.51.100.19 53/UDP").is("Deny, Allow");
}

#[test]
fn line_17_dual_stack_pods_and_pods_that_talk_to_themselves() {
    row("a pod with itself", &[mk_ingress(json!([]))], "x/db -> x/db 80/TCP").both_ways().is("Allow");
    let sealed = mk_policy("x", "p", json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
    row("two replicas of one template", &[sealed], "x/replica -> x/replica 80/TCP").both_ways().is("Deny");

    let mut interner = crate::model::identity::Interner::default();
    let i = &mut interner;
    let both = Family::BOTH.map(|family| family.address(Ipv4Addr::new(198, 51, 100, 1)));
    let client = super::build::mk_pod(i, "x/client", "app=client").at(&both).done(i);
    let server = super::build::mk_pod(i, "x/server", "app=db").at(&both).done(i);
    let only_v4 = [mk_read(&mk_from(json!({"ipBlock": {"cidr": "198.51.100.0/24"}})))];
    let mut judge = Judge::new(&only_v4, Dialect::STANDARD, &Scenario::Enforced);
    for (address, verdict) in [(both[0], Verdict::Allow), (both[1], Verdict::Deny)] {
        for (from, to) in [(Some(address), Some(address)), (None, Some(address))] {
            let initiator = Party::pod(Arc::clone(&client), from);
            let responder = Party::pod(Arc::clone(&server), to);
            let connection = Connection {
                initiator: &initiator,
                responder: &responder,
                port: 80,
                protocol: Protocol::Tcp,
            };
            let judgement = judge.judge(&connection);
            assert_eq!(judgement.of(Direction::Ingress).verdict, verdict, "{address}, given as {from:?}");
        }
    }
}

#[test]
fn line_18_what_the_api_server_refuses_is_named_and_never_decides_by_itself() {
    for (says, peer) in [
        ("a selector", json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}})),
        ("a CIDR", json!({"ipBlock": {"cidr": "198.51.100.0/33"}})),
    ] {
        row(says, &[mk_from(peer)], "x/web -> x/db 80/TCP").both_ways().is("Unknown");
    }
    let range = mk_ingress(json!([{"ports": [{"port": 80, "endPort": 70}]}]));
    row("a port range", &[range], "x/web -> x/db 81/TCP").both_ways().is("Unknown");
}
