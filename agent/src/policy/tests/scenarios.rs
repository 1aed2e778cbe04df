//! The scenario `default-deny`: a deny-all in every namespace in scope, and what it assumes allowed.

use serde_json::json;

use super::build::{Family, mk_policy, row};
use crate::model::edge::Direction;
use crate::model::scenario::{Assumption, DefaultDeny, Scenario};
use crate::model::verdict::{Layer, Reason};

fn mk_scenario(assume: &[Assumption]) -> Scenario {
    Scenario::DefaultDeny(DefaultDeny { assume: assume.to_vec(), ..DefaultDeny::default() })
}

#[test]
fn every_namespace_in_scope_is_denied_and_what_is_assumed_allowed() {
    use Assumption::{Dns, Ingress, Metrics};
    for (assume, ask, wanted) in [
        (&[][..], "x/web -> x/db 80/TCP", "Deny, Deny"),
        (&[], "x/web -> kube-system/dns 53/UDP", "Deny, Allow"),
        (&[], "kube-system/dns -> x/web 80/TCP", "Allow, Deny"),
        (&[], "x/web -> outside 443/TCP", "Deny, Allow"),
        (&[], "x/host -> x/web 80/TCP", "Allow, Allow"),
        (&[Dns], "x/web -> kube-system/dns 53/UDP", "Allow, Allow"),
        (&[Dns], "x/web -> kube-system/dns 53/TCP", "Allow, Allow"),
        (&[Dns], "x/web -> kube-system/dns 53/SCTP", "Deny, Allow"),
        (&[Dns], "x/web -> kube-system/dns 9153/TCP", "Deny, Allow"),
        (&[Dns], "x/web -> x/dns 53/UDP", "Allow, Allow"),
        (&[Dns], "outside -> x/dns 53/UDP", "Allow, Allow"),
        (&[Dns], "x/web -> node-2 53/UDP", "Deny, Allow"),
        (&[Dns], "x/web -> y/db 53/UDP", "Deny, Deny"),
        (&[Dns], "x/dns -> outside 53/UDP", "Deny, Allow"),
        (&[Dns], "x/web -> unknown 53/UDP", "Unknown, Unknown"),
        (&[Dns], "y/prometheus -> x/db 9090/TCP", "Deny, Deny"),
        (&[Metrics], "y/prometheus -> x/db 9090/TCP", "Allow, Allow"),
        (&[Metrics], "x/db -> y/prometheus 9090/TCP", "Deny, Deny"),
        (&[Metrics], "y/traefik -> x/web 8080/TCP", "Deny, Deny"),
        (&[Ingress, Dns], "y/traefik -> x/web 8080/TCP", "Allow, Allow"),
        (&[Ingress, Dns], "outside -> y/traefik 443/TCP", "Allow, Deny"),
    ] {
        row("default-deny", &[], ask).scenario(mk_scenario(assume)).is(wanted);
    }
}

#[test]
fn policies_that_exist_still_allow() {
    let allow =
        mk_policy("x", "allow-web", json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}));
    row("by a policy", &[allow], "x/web -> x/db 80/TCP").scenario(mk_scenario(&[])).is("Deny, Allow");
}

#[test]
fn only_the_directions_asked_for_are_denied() {
    let settings = DefaultDeny { directions: vec![Direction::Ingress], ..DefaultDeny::default() };
    let ingress = Scenario::DefaultDeny(settings);
    row("ingress", &[], "x/web -> y/db 80/TCP").scenario(ingress).is("Allow, Deny");
    let exempt = DefaultDeny { exempt_namespaces: vec!["y".into()], ..DefaultDeny::default() };
    row("exempt", &[], "x/web -> y/db 80/TCP").scenario(Scenario::DefaultDeny(exempt)).is("Deny, Allow");
}

#[test]
fn decisions_name_the_added_policy_or_the_assumption() {
    let allow = mk_policy("x", "web", json!({"podSelector": {}, "policyTypes": ["Egress"]}));
    let denied = row("", &[allow], "x/web -> outside 80/TCP").scenario(mk_scenario(&[Assumption::Dns]));
    let denied = denied.judgement(Family::V4).egress;
    assert_eq!(
        denied.reason.to_string(),
        "isolated by NetworkPolicy/x/web, DefaultDeny/x/default-deny; no rule matches"
    );
    let assumed = row("", &[], "x/web -> kube-system/dns 53/UDP").scenario(mk_scenario(&[Assumption::Dns]));
    let assumed = assumed.judgement(Family::V4).egress;
    assert_eq!(assumed.reason, Reason::Assumed(Assumption::Dns));
    assert_eq!(assumed.policy.as_ref().unwrap().to_string(), "DefaultDeny/x/default-deny");
    assert_eq!((assumed.rule, assumed.layer), (None, Layer::NetworkPolicy));
}
