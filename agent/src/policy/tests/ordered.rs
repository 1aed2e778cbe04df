//! Tiers in which the first matching rule decides: the shape that other families compile into.

use std::sync::Arc;

use serde_json::{Value, json};

use super::build::{Family, World, mk_policy, mk_read};
use crate::model::dialect::Dialect;
use crate::model::edge::Protocol;
use crate::model::endpoint::Connection;
use crate::model::scenario::Scenario;
use crate::model::verdict::Reason;
use crate::policy::compile::Compiled;
use crate::policy::spec::Action::{self, Allow, Deny, Pass};
use crate::policy::tier::TierKind;
use crate::policy::{Judge, Policy};

/// A policy for the db pods whose rules match these ports, each with its action. A port 0 is a fault.
fn mk_rules(name: &str, rules: &[(u16, Action)]) -> Arc<Policy> {
    let ports: Vec<Value> = rules.iter().map(|(port, _)| json!({"ports": [{"port": port}]})).collect();
    let spec = json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": ports});
    let mut policy = Policy::clone(&mk_read(&mk_policy("x", name, spec)));
    for (rule, (_, action)) in policy.ingress.rules.iter_mut().zip(rules) {
        rule.action = *action;
    }
    Arc::new(policy)
}

fn decide(tiers: &[(TierKind, Vec<Arc<Policy>>)], to: &str, port: u16) -> (&'static str, Reason) {
    let mut judge = Judge::new(&[], Dialect::STANDARD, &Scenario::Enforced);
    judge.compiled.tiers.clear();
    for (kind, policies) in tiers {
        // Rules without selectors have no atoms that would have to be shared between the tiers.
        let mut tier = Compiled::new(policies, &Scenario::Enforced).tiers.remove(0);
        tier.kind = *kind;
        judge.compiled.tiers.push(tier);
    }
    let world = World::new(Family::V4);
    let (initiator, responder) = (world.party("x/web"), world.party(to));
    let connection =
        Connection { initiator: &initiator, responder: &responder, port, protocol: Protocol::Tcp };
    let decision = judge.judge(&connection).ingress;
    (decision.verdict.as_str(), decision.reason.clone())
}

#[test]
fn the_first_matching_rule_decides_and_pass_leaves_the_tier() {
    let first = || {
        (
            TierKind::Ordered { end: Pass },
            vec![
                mk_rules("a", &[(1, Deny), (1, Allow), (2, Allow), (3, Pass)]),
                mk_rules("b", &[(3, Deny), (4, Deny)]),
            ],
        )
    };
    let union = || (TierKind::Union, vec![mk_rules("np", &[(3, Allow)])]);
    for (port, verdict) in [(1, "Deny"), (2, "Allow"), (3, "Allow"), (4, "Deny"), (5, "Deny")] {
        assert_eq!(decide(&[first(), union()], "x/db", port).0, verdict, "port {port}");
    }
    assert_eq!(decide(&[first()], "x/db", 5).0, "Allow");
    assert_eq!(decide(&[first()], "x/db", 1).1, Reason::Rule);
    assert_eq!(decide(&[first()], "x/plain", 1), ("Allow", Reason::NotIsolated));
}

#[test]
fn the_end_of_a_tier_decides_only_for_pods_that_it_selects() {
    let tier = || vec![(TierKind::Ordered { end: Deny }, vec![mk_rules("a", &[(1, Allow)])])];
    assert_eq!(decide(&tier(), "x/db", 1).0, "Allow");
    assert_eq!(decide(&tier(), "x/db", 2).0, "Deny");
    assert_eq!(decide(&tier(), "x/plain", 2).0, "Allow");
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
        let found = decide(&[(TierKind::Ordered { end: Deny }, vec![mk_rules("a", rules)])], "x/db", 1);
        assert_eq!(found.0, verdict, "{rules:?}: {}", found.1);
    }
}
