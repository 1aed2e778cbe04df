//! Ends that are not plain pods, and what decisions say.

use serde_json::{Value, json};

use super::build::{Family, mk_policy, row};
use crate::model::record::DecisionRecord;
use crate::model::verdict::{Layer, Miss, NotJudged, Reason, UnknownReason};

fn mk_db(rules: Value) -> Value {
    mk_policy("x", "p", json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": rules}))
}

#[test]
fn of_an_unknown_peer_only_what_is_certain_is_judged() {
    let web = json!({"podSelector": {"matchLabels": {"app": "web"}}});
    for (says, policies, probe, verdict) in [
        ("not isolated", vec![], "80/TCP", "Allow"),
        ("a rule without peers", vec![mk_db(json!([{"ports": [{"port": 80}]}]))], "80/TCP", "Allow"),
        ("a rule with peers may match", vec![mk_db(json!([{"from": [web]}]))], "80/TCP", "Unknown"),
        (
            "none may at this port",
            vec![mk_db(json!([{"from": [web], "ports": [{"port": 1}]}]))],
            "80/TCP",
            "Deny",
        ),
        ("no rule at all", vec![mk_db(json!([]))], "80/TCP", "Deny"),
    ] {
        row(says, &policies, &format!("unknown -> x/db {probe}")).both_ways().is(verdict);
    }
}

#[test]
fn whom_source_nat_hides_is_never_denied_by_guess() {
    let web = json!({"podSelector": {"matchLabels": {"app": "web"}}});
    for (says, policies, verdict) in [
        ("not isolated", vec![], "Allow"),
        ("a rule without peers", vec![mk_db(json!([{}]))], "Allow"),
        ("a rule with peers may match", vec![mk_db(json!([{"from": [web]}]))], "Unknown"),
        ("it may be the pod's own node, which no policy denies", vec![mk_db(json!([]))], "Unknown"),
    ] {
        row(says, &policies, "hidden -> x/db 80/TCP").both_ways().is(verdict);
    }
    let judgement = row("", &[mk_db(json!([]))], "hidden -> x/db 80/TCP").judgement(Family::V4);
    assert_eq!(judgement.ingress.reason, Reason::Unknown(UnknownReason::Snat));
}

#[test]
fn an_unknown_end_is_unknown_where_its_direction_could_be_judged() {
    row("nothing judges ingress", &[], "x/web -> unknown 80/TCP").both_ways().is("Allow");
    row("some policy judges ingress", &[mk_db(json!([{}]))], "x/web -> unknown 80/TCP")
        .both_ways()
        .is("Unknown");
    let judgement = row("", &[mk_db(json!([{}]))], "x/web -> unknown 80/TCP").judgement(Family::V4);
    assert_eq!(judgement.ingress.reason, Reason::Unknown(UnknownReason::AddressUnjoined));
}

#[test]
fn what_is_not_judged_says_why() {
    let deny = [mk_policy("x", "p", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))];
    for (ask, egress, ingress) in [
        ("outside -> x/db 80/TCP", Some(NotJudged::NotAPod), None),
        ("node-2 -> x/db 80/TCP", Some(NotJudged::NotAPod), None),
        ("x/host -> outside 80/TCP", Some(NotJudged::HostNetwork), Some(NotJudged::NotAPod)),
        ("x/db -> x/db 80/TCP", Some(NotJudged::SelfTraffic), Some(NotJudged::SelfTraffic)),
        ("x/db -> node-1 80/TCP", Some(NotJudged::ToOwnNode), Some(NotJudged::NotAPod)),
        ("node-1 -> x/db 80/TCP", Some(NotJudged::NotAPod), Some(NotJudged::FromOwnNode)),
        ("x/host -> x/db 80/TCP", Some(NotJudged::HostNetwork), Some(NotJudged::FromOwnNode)),
    ] {
        let judgement = row(ask, &deny, ask).judgement(Family::V6);
        for (decision, why) in [(&judgement.egress, egress), (&judgement.ingress, ingress)] {
            match why {
                Some(why) => assert_eq!(decision.reason, Reason::NotJudged(why), "{ask}"),
                None => assert!(matches!(decision.reason, Reason::NoRuleMatches { .. }), "{ask}"),
            }
        }
    }
}

#[test]
fn backends_that_differ_are_counted() {
    let policy = [mk_db(json!([{"ports": [{"port": 80}]}]))];
    let ask = "x/web -> service x/db:80 x/db:81 y/db:1 80/TCP";
    let decision = row("", &policy, ask).judgement(Family::V4).ingress;
    let differ = UnknownReason::BackendsDiffer { allowed: 2, denied: 1, unknown: 0 };
    assert_eq!(decision.reason, Reason::Unknown(differ));
}

#[test]
fn an_allow_names_the_first_matching_policy_rule_and_peer() {
    let web = json!({"podSelector": {"matchLabels": {"app": "web"}}});
    let plain = json!({"podSelector": {"matchLabels": {"app": "none"}}});
    let mut b = mk_db(json!([{"ports": [{"port": 1}]}, {"from": [plain, web]}, {}]));
    let mut a = mk_db(json!([{"ports": [{"port": 1}]}]));
    a["metadata"]["name"] = "a".into();
    b["metadata"]["name"] = "b".into();
    let mut c = b.clone();
    c["metadata"]["name"] = "c".into();
    for policies in [[a.clone(), b.clone(), c.clone()], [c, b, a]] {
        let decision = row("", &policies, "x/web -> x/db 80/TCP").judgement(Family::V4).ingress;
        let place = (decision.policy.as_ref().unwrap().to_string(), decision.rule, decision.peer);
        assert_eq!(place, ("NetworkPolicy/x/b".to_owned(), Some(1), Some(1)));
        assert_eq!((decision.layer, &decision.reason), (Layer::NetworkPolicy, &Reason::Rule));
    }
}

#[test]
fn a_denial_names_who_isolates_and_the_nearest_miss() {
    let y = json!({"matchLabels": {"ns": "y"}});
    let x = json!({"matchLabels": {"ns": "x"}});
    let db = json!({"matchLabels": {"app": "db"}});
    let pod_labels = json!({"from": [{"namespaceSelector": x, "podSelector": db}]});
    let namespace =
        json!({"from": [{"namespaceSelector": y, "podSelector": {"matchLabels": {"app": "web"}}}]});
    let port =
        json!({"from": [{"podSelector": {}}], "ports": [{"port": 443}, {"port": "http"}, {"port": "no"}]});
    let neither = json!({"from": [{"podSelector": db}], "ports": [{"port": 443}]});
    let block = json!({"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.64/26"]}}]});
    for (rules, from, text) in [
        (
            json!([namespace, pod_labels, port, neither]),
            "x/web",
            "NetworkPolicy/x/p rule 2 would match but for the port: 80/TCP is not in \
             [443/TCP, http=8080/TCP, no/TCP (no such container port)]",
        ),
        (
            json!([namespace, pod_labels, neither]),
            "x/web",
            "NetworkPolicy/x/p rule 1 would match but for the peer's labels: they are not app=db",
        ),
        (
            json!([block, namespace, neither]),
            "x/web",
            "NetworkPolicy/x/p rule 1 would match but for the peer's namespace: it is not ns=y",
        ),
        (
            json!([{"from": [{"podSelector": {}}]}]),
            "y/web",
            "NetworkPolicy/x/p rule 0 would match but for the peer's namespace: it is not x",
        ),
        (
            json!([namespace, block, neither]),
            "outside",
            "NetworkPolicy/x/p rule 1 would match but for the address: it is not in \
             192.0.2.0/24 except 192.0.2.64/26",
        ),
        (json!([neither]), "x/web", "NetworkPolicy/x/p rule 0 matches neither the peer nor the port"),
        (json!([namespace]), "outside", ""),
        (json!([]), "x/web", ""),
    ] {
        let decision =
            row("", &[mk_db(rules.clone())], &format!("{from} -> x/db 80/TCP")).judgement(Family::V4);
        let Reason::NoRuleMatches { isolated_by, nearest } = &decision.ingress.reason else {
            panic!("{rules} {from}: {}", decision.ingress.reason)
        };
        assert_eq!(isolated_by.len(), 1);
        assert_eq!(nearest.as_ref().map(ToString::to_string).unwrap_or_default(), text, "{rules}");
    }
}

#[test]
fn a_record_reads_well() {
    let mut deny = mk_policy("x", "default-deny", json!({"podSelector": {}}));
    let allow = mk_db(
        json!([{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 443}]}]),
    );
    deny["metadata"]["name"] = "default-deny".into();
    let judgement = row("", &[allow, deny], "x/web -> x/db 80/TCP").judgement(Family::V4);
    let record = DecisionRecord::from(&*judgement.ingress);
    assert_eq!(
        record.reason,
        "isolated by NetworkPolicy/x/default-deny, NetworkPolicy/x/p; no rule matches (nearest: \
         NetworkPolicy/x/p rule 0 would match but for the port: 80/TCP is not in [443/TCP])"
    );
    assert_eq!(record.isolated_by, ["NetworkPolicy/x/default-deny", "NetworkPolicy/x/p"]);
    assert_eq!(record.policy.as_deref(), Some("NetworkPolicy/x/default-deny"));
    let Reason::NoRuleMatches { nearest: Some(nearest), .. } = &judgement.ingress.reason else { panic!() };
    assert!(matches!(nearest.lacks, Miss::Port { asked: 80, .. }));
}

#[test]
fn a_judge_may_move_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<crate::policy::Judge>();
}
