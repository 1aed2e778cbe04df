//! Tiers in which the first matching rule decides: the shape that other families compile into.

use std::sync::Arc;

use serde_json::{Value, json};

use super::build::{Family, World, mk_policy, mk_read};
use crate::model::dialect::Dialect;
use crate::model::edge::Protocol;
use crate::model::endpoint::Connection;
use crate::model::scenario::Scenario;
use crate::model::verdict::{Decision, Reason};
use crate::policy::fault::Field;
use crate::policy::spec::Action::{self, Allow, Deny, Pass};
use crate::policy::spec::{Contents, Order, Place};
use crate::policy::{Judge, Policy};

/// A policy for the db pods whose rules match these ports, each with its action. A port 0 is a fault.
fn mk_rules(name: &str, place: Place, rules: &[(u16, Action)]) -> Arc<Policy> {
    let ports: Vec<Value> = rules.iter().map(|(port, _)| json!({"ports": [{"port": port}]})).collect();
    let spec = json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": ports});
    let mut policy = Policy::clone(&mk_read(&mk_policy("x", name, spec)));
    if let Contents::Parts(parts) = &mut policy.contents {
        for (rule, (_, action)) in parts[0].ingress.rules.iter_mut().zip(rules) {
            rule.action = *action;
        }
        parts[0].place = place;
    }
    Arc::new(policy)
}

fn admin(name: &str, priority: i32, rules: &[(u16, Action)]) -> Arc<Policy> {
    mk_rules(name, Place::Admin { priority }, rules)
}

/// In Calico's default tier, which denies at its end.
fn calico(name: &str, order: Order, rules: &[(u16, Action)]) -> Arc<Policy> {
    mk_rules(name, Place::Calico { tier: "default".into(), order, field: Field::from("spec.tier") }, rules)
}

fn union(name: &str, rules: &[(u16, Action)]) -> Arc<Policy> {
    mk_rules(name, Place::NetworkPolicy, rules)
}

fn decide(policies: &[Arc<Policy>], to: &str, port: u16) -> Arc<Decision> {
    let mut decisions = Vec::new();
    // The order in which policies are given means nothing.
    for policies in [policies.to_vec(), policies.iter().rev().cloned().collect()] {
        let mut judge = Judge::new(&policies, Dialect::STANDARD, &Scenario::Enforced);
        let world = World::new(Family::V4);
        let (initiator, responder) = (world.party("x/web"), world.party(to));
        let connection =
            Connection { initiator: &initiator, responder: &responder, port, protocol: Protocol::Tcp };
        decisions.push(judge.judge(&connection).ingress);
    }
    assert_eq!(decisions[0], decisions[1]);
    decisions.remove(0)
}

fn verdict(policies: &[Arc<Policy>], to: &str, port: u16) -> &'static str {
    decide(policies, to, port).verdict.as_str()
}

#[test]
fn the_first_matching_rule_decides_and_pass_leaves_the_tier() {
    let first = [
        admin("z", 1, &[(1, Deny), (1, Allow), (2, Allow), (3, Pass)]),
        admin("b", 2, &[(3, Deny), (4, Deny)]),
    ];
    let both = [&first[..], &[union("np", &[(3, Allow)])]].concat();
    for (port, wanted) in [(1, "Deny"), (2, "Allow"), (3, "Allow"), (4, "Deny"), (5, "Deny")] {
        assert_eq!(verdict(&both, "x/db", port), wanted, "port {port}");
    }
    assert_eq!(verdict(&first, "x/db", 5), "Allow");
    assert_eq!(decide(&first, "x/db", 1).reason, Reason::Rule);
    let plain = decide(&first, "x/plain", 1);
    assert_eq!((plain.verdict.as_str(), &plain.reason), ("Allow", &Reason::NotIsolated));
}

#[test]
fn the_end_of_a_tier_decides_only_for_pods_that_it_selects() {
    let tier = [calico("a", Order::LAST, &[(1, Allow)])];
    assert_eq!(verdict(&tier, "x/db", 1), "Allow");
    assert_eq!(verdict(&tier, "x/db", 2), "Deny");
    assert_eq!(verdict(&tier, "x/plain", 2), "Allow");
}

#[test]
fn the_chain_tells_every_tier_that_was_asked_and_marks_the_one_that_decides() {
    let policies = [
        admin("z", 1, &[(1, Deny), (3, Pass)]),
        union("np", &[(3, Allow)]),
        mk_rules("base", Place::Baseline { priority: 0 }, &[(1, Deny)]),
    ];
    let told = |port| {
        let chain = decide(&policies, "x/db", port);
        chain.chain.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        told(3),
        ["Admin: Pass by NetworkPolicy/x/z rule 1", "*NetworkPolicy: Allow by NetworkPolicy/x/np rule 0"]
    );
    let denied = [
        "Admin: Pass, no rule of the tier matches",
        "*NetworkPolicy: Deny, isolated by NetworkPolicy/x/np; no rule matches",
    ];
    assert_eq!(told(4), denied);
    // One answer is the decision itself.
    assert!(told(1).is_empty());
}

#[test]
fn the_order_of_equal_priorities_is_open() {
    let tie = [admin("a", 1, &[(1, Allow), (2, Deny), (3, Allow)]), admin("b", 1, &[(1, Deny), (2, Deny)])];
    assert_eq!(verdict(&tie, "x/db", 1), "Unknown");
    assert!(decide(&tie, "x/db", 1).reason.to_string().contains("NetworkPolicy/x/a NetworkPolicy/x/b"));
    assert_eq!(verdict(&tie, "x/db", 2), "Deny");
    assert_eq!(verdict(&tie, "x/db", 3), "Allow");
    assert_eq!(verdict(&tie, "x/db", 4), "Allow");
    let before = [&tie[..], &[admin("c", 0, &[(1, Deny)])]].concat();
    assert_eq!(verdict(&before, "x/db", 1), "Deny");
    let pass = [admin("a", 1, &[(1, Pass)]), admin("b", 1, &[(1, Deny)])];
    assert_eq!(verdict(&pass, "x/db", 1), "Unknown");
    let denied_anyway = [&pass[..], &[union("np", &[])]].concat();
    assert_eq!(verdict(&denied_anyway, "x/db", 1), "Deny");
}

#[test]
fn network_policy_sits_in_calicos_default_tier_at_order_1000() {
    for (order, wanted) in
        [(Order::new(999.5), "Deny"), (Order::new(1000.5), "Allow"), (Order::LAST, "Allow")]
    {
        let policies = [union("np", &[(1, Allow)]), calico("c", order, &[(1, Deny)])];
        assert_eq!(verdict(&policies, "x/db", 1), wanted, "{order:?}");
        assert_eq!(verdict(&policies, "x/db", 2), "Deny");
    }
}

#[test]
fn orders_compare_as_numbers_do() {
    let sorted = [-1e9, -1.5, -1.0, 0.0, 1e-9, 1.0, 1000.0, f64::MAX].map(Order::new);
    assert!(sorted.is_sorted() && sorted.iter().all(|order| *order < Order::LAST));
    assert_eq!(Order::new(-0.0), Order::new(0.0));
}

#[test]
fn a_tier_that_does_not_exist_leaves_open_what_its_policies_do() {
    let place = Place::Calico { tier: "lost".into(), order: Order::LAST, field: Field::from("spec.tier") };
    let lost = mk_rules("p", place, &[(1, Allow)]);
    let decision = decide(std::slice::from_ref(&lost), "x/db", 1);
    assert_eq!(decision.verdict.as_str(), "Unknown");
    assert!(decision.reason.to_string().contains("spec.tier"), "{}", decision.reason);
    assert_eq!(verdict(&[lost], "x/plain", 1), "Allow");
}

#[test]
fn a_rule_that_may_match_matters_only_if_what_follows_differs() {
    for (rules, verdict) in [
        (&[(0, Deny), (1, Allow)][..], "Unknown"),
        (&[(0, Allow), (1, Allow)], "Allow"),
        (&[(1, Allow), (0, Deny)], "Allow"),
        (&[(0, Deny)], "Deny"),
        (&[(0, Pass), (1, Deny)], "Unknown"),
    ] {
        let found = decide(&[calico("a", Order::LAST, rules)], "x/db", 1);
        assert_eq!(found.verdict.as_str(), verdict, "{rules:?}: {}", found.reason);
    }
}
