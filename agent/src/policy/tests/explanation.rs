//! Explanations say what the judge did, in the same words each time.

use serde_json::json;

use super::build::{Family, mk_policy, row};
use crate::model::scenario::{DefaultDeny, Scenario};
use crate::policy::Outcome;

#[test]
fn each_step_is_shown() {
    let deny =
        mk_policy("x", "default-deny", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    let web = json!({"podSelector": {"matchLabels": {"app": "web"}}});
    let plain = json!({"namespaceSelector": {"matchLabels": {"ns": "y"}}, "podSelector": {"matchLabels": {"app": "web"}}});
    let block = json!({"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.0/28"]}});
    let rules = json!([{"from": [web], "ports": [{"port": "http"}]}, {"from": [plain, block]}]);
    let allow =
        mk_policy("x", "allow-web", json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": rules}));
    let other = mk_policy("x", "other", json!({"podSelector": {"matchLabels": {"app": "web"}}}));
    let row = row("", &[deny, allow, other], "x/web -> x/db 5432/TCP");
    let text = row.explanation(Family::V4).to_string();
    insta::assert_snapshot!(text);
}

#[test]
fn a_service_is_explained_by_its_backends() {
    let allow = mk_policy("x", "allow", json!({"podSelector": {}, "ingress": [{"ports": [{"port": 8080}]}]}));
    let row = row("", &[allow], "outside -> service x/db:8080 x/web:9090 80/TCP");
    let explanation = row.explanation(Family::V6);
    assert_eq!(explanation.directions.len(), 4);
    assert_eq!(explanation.directions[2].selected_by[0].rules[0].outcome, Outcome::Matches);
    assert_eq!(explanation.directions[3].selected_by[0].rules[0].outcome, Outcome::Differs);
    insta::assert_snapshot!(explanation.to_string());
}

#[test]
fn what_a_scenario_assumes_is_shown_as_assumed() {
    let scenario = Scenario::DefaultDeny(DefaultDeny::default());
    let row = row("", &[], "x/web -> kube-system/dns 53/UDP").scenario(scenario);
    insta::assert_snapshot!(row.explanation(Family::V4).to_string());
}

#[test]
fn a_broken_field_is_named() {
    let rules = json!([{"from": [{"ipBlock": {"cidr": "nonsense"}}]}]);
    let broken = mk_policy("x", "broken", json!({"podSelector": {}, "ingress": rules}));
    let row = row("", &[broken], "outside -> x/db 80/TCP");
    insta::assert_snapshot!(row.explanation(Family::V4).to_string());
}
