//! Calico's policies: what is said of them, line by line, in both directions.

use std::sync::Arc;

use serde_json::{Value, json};

use super::build::{mk_policy, mk_read, row};
use crate::model::facts::{ClusterFacts, ConnectionFacts, Request, ServiceFacts};
use crate::model::labels::Labels;
use crate::model::selector::Selector;
use crate::policy::{Force, StagedEdit, with_staged};

/// An object of projectcalico.org; one with a namespace has it before its name.
pub(super) fn mk(kind: &str, name: &str, spec: Value) -> Value {
    let metadata = match name.split_once('/') {
        Some((namespace, name)) => json!({"namespace": namespace, "name": name}),
        None => json!({"name": name}),
    };
    json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec})
}

/// A GlobalNetworkPolicy for the db pods.
fn mk_gnp(name: &str, order: Value, ingress: Value) -> Value {
    let spec = json!({"order": order, "selector": "app == 'db'", "types": ["Ingress"], "ingress": ingress});
    mk("GlobalNetworkPolicy", name, spec)
}

/// A NetworkPolicy for the db pods of namespace x.
fn mk_cnp(name: &str, ingress: Value) -> Value {
    let spec = json!({"selector": "app == 'db'", "types": ["Ingress"], "ingress": ingress});
    mk("NetworkPolicy", &format!("x/{name}"), spec)
}

fn mk_tier(name: &str, order: Value, action: Value) -> Value {
    mk("Tier", name, json!({"order": order, "defaultAction": action}))
}

fn in_tier(mut policy: Value, tier: &str) -> Value {
    policy["spec"]["tier"] = tier.into();
    policy
}

fn mk_set(name: &str, labels: Value, nets: Value) -> Value {
    let kind = if name.contains('/') { "NetworkSet" } else { "GlobalNetworkSet" };
    let mut set = mk(kind, name, json!({"nets": nets}));
    set["metadata"]["labels"] = labels;
    set
}

fn do_(action: &str) -> Value {
    json!([{"action": action}])
}

/// One rule from a source.
fn from(action: &str, source: Value) -> Value {
    json!([{"action": action, "source": source}])
}

/// The policies with the directions exchanged: sources become destinations, which keep their ports.
fn mirrored(policy: &Value) -> Value {
    let mut policy = policy.clone();
    let Some(spec) = policy["spec"].as_object_mut() else { return policy };
    let Some(rules) = spec.remove("ingress") else { return policy };
    let exchange = |rule: &Value| {
        let mut rule = rule.clone();
        let mut other = rule["source"].take();
        let own = rule["destination"].take();
        if other.is_null() {
            other = json!({});
        }
        for (key, value) in own.as_object().into_iter().flatten() {
            if key.to_lowercase().ends_with("ports") {
                other[key] = value.clone();
            } else {
                rule["source"][key] = value.clone();
            }
        }
        rule["destination"] = other;
        let rule = rule.as_object_mut().unwrap();
        rule.retain(|_, value| !value.is_null());
        Value::Object(rule.clone())
    };
    let rules = rules.as_array().unwrap().iter().map(exchange).collect();
    spec.insert("egress".to_owned(), rules);
    let types = if policy["kind"].is_null() { "policyTypes" } else { "types" };
    policy["spec"][types] = json!(["Egress"]);
    policy
}

/// The verdict of the end that the policies are for: as responder, and the other way round as initiator.
fn both(says: &'static str, policies: &[Value], ask: &str, wanted: &str) {
    both_knowing(says, policies, ask, wanted, &ClusterFacts::default());
}

fn both_knowing(says: &'static str, policies: &[Value], ask: &str, wanted: &str, facts: &ClusterFacts) {
    row(says, policies, ask).facts(facts.clone()).is(wanted);
    let (ends, probe) = ask.rsplit_once(' ').unwrap();
    let (initiator, responder) = ends.split_once(" -> ").unwrap();
    let policies: Vec<Value> = policies.iter().map(mirrored).collect();
    let ask = format!("{responder} -> {initiator} {probe}");
    row(says, &policies, &ask).facts(facts.clone()).is(&format!("{wanted}, Allow"));
}

const ASK: &str = "x/web -> x/db 80/TCP";

#[test]
fn line_1_tier_order_then_policy_order_then_name() {
    let two = |first: Value, second: Value| {
        [
            mk_tier("one", first, json!("Deny")),
            mk_tier("two", second, json!("Deny")),
            in_tier(mk_gnp("one.z", json!(5), do_("Allow")), "one"),
            in_tier(mk_gnp("two.a", json!(1), do_("Deny")), "two"),
        ]
    };
    both("the lower tier decides", &two(json!(1), json!(2)), ASK, "Allow");
    both("whatever its name", &two(json!(2.5), json!(2)), ASK, "Deny");
    both("a tier without order is last", &two(Value::Null, json!(2)), ASK, "Deny");
    both("equal tiers go by name", &two(json!(2), json!(2)), ASK, "Allow");
    let policies =
        |first: Value, second: Value| [mk_gnp("z", first, do_("Allow")), mk_gnp("a", second, do_("Deny"))];
    both("the lower policy", &policies(json!(-1), json!(0)), ASK, "Allow");
    both("a policy without order is last", &policies(Value::Null, json!(1e9)), ASK, "Deny");
    both("equal policies go by name", &policies(json!(7), json!(7)), ASK, "Deny");
    both("both without order too", &policies(Value::Null, Value::Null), ASK, "Deny");
}

#[test]
fn line_1_the_first_rule_that_matches_decides_and_log_goes_on() {
    let rules =
        |first: &str| json!([{"action": first, "source": {"selector": "app == 'web'"}}, {"action": "Allow"}]);
    both("Deny", &[mk_cnp("a", rules("Deny"))], ASK, "Deny");
    both("Log goes on", &[mk_cnp("a", rules("Log"))], ASK, "Allow");
    both("Log alone is the end of the tier", &[mk_cnp("a", do_("Log"))], ASK, "Deny");
    let pass = [mk_cnp("a", rules("Pass")), mk_cnp("b", do_("Deny"))];
    both("Pass leaves the tier", &pass, ASK, "Allow");
    both("where it matches", &[mk_cnp("a", from("Pass", json!({"nets": ["192.0.2.9/32"]})))], ASK, "Deny");
}

#[test]
fn line_2_the_tiers_action_is_for_those_that_a_policy_of_it_selects() {
    let tier =
        |action: Value| [mk_tier("t", json!(1), action), in_tier(mk_gnp("t.p", json!(1), json!([])), "t")];
    both("it denies", &tier(json!("Deny")), ASK, "Deny");
    both("it denies unless it says otherwise", &tier(Value::Null), ASK, "Deny");
    both("it passes", &tier(json!("Pass")), ASK, "Allow");
    both("others are not selected", &tier(json!("Deny")), "x/db -> x/web 80/TCP", "Allow");
    both("a tier without policies denies nobody", &tier(json!("Deny"))[..1], ASK, "Allow");
    let mut egress = tier(json!("Deny"));
    egress[1]["spec"]["types"] = json!(["Egress"]);
    row("in the other direction", &egress, ASK).is("Allow");
    row("in its own", &egress, "x/db -> x/web 80/TCP").is("Deny, Allow");
    let staged =
        [tier(json!("Deny"))[0].clone(), in_tier(mk("StagedGlobalNetworkPolicy", "t.p", json!({})), "t")];
    both("a staged policy is none", &staged, ASK, "Allow");
}

#[test]
fn line_2_pass_goes_to_the_next_tier_then_to_profiles_which_allow() {
    let tiers = [mk_tier("one", json!(1), json!("Deny")), mk_tier("two", json!(2), json!("Deny"))];
    let passing = in_tier(mk_gnp("one.p", json!(1), do_("Pass")), "one");
    let next = |action| in_tier(mk_gnp("two.p", json!(1), do_(action)), "two");
    let [one, two] = tiers;
    both("the next tier denies", &[one.clone(), two.clone(), passing.clone(), next("Deny")], ASK, "Deny");
    both("the next tier allows", &[one.clone(), two.clone(), passing.clone(), next("Allow")], ASK, "Allow");
    both("both pass", &[one.clone(), two, passing.clone(), next("Pass")], ASK, "Allow");
    both("no other selects it", &[one, passing], ASK, "Allow");
}

#[test]
fn line_3_network_policies_are_in_tier_default_at_order_1000() {
    let np = |ports: Value| {
        let spec = json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"ports": ports}]});
        mk_policy("x", "np", spec)
    };
    let policies = |order: Value, port: u16| [mk_gnp("c", order, do_("Deny")), np(json!([{"port": port}]))];
    row("before", &policies(json!(999), 80), ASK).is("Deny");
    row("behind", &policies(json!(1001), 80), ASK).is("Allow");
    row("without order", &policies(Value::Null, 80), ASK).is("Allow");
    row("default comes before knp.default at the same order", &policies(json!(1000), 80), ASK).is("Deny");
    row("what none allows", &[mk_gnp("c", Value::Null, do_("Allow")), np(json!([{"port": 81}]))], ASK)
        .is("Allow");
    let tier = |order: f64| {
        let tier = mk_tier("t", json!(order), json!("Pass"));
        [tier, in_tier(mk_gnp("t.p", json!(1), do_("Deny")), "t"), np(json!([{"port": 80}]))]
    };
    row("a tier before default", &tier(999_999.0), ASK).is("Deny");
    row("a tier behind it", &tier(1_000_001.0), ASK).is("Allow");
}

#[test]
fn line_3_cluster_network_policies_are_in_tiers_of_their_own() {
    let cluster = |tier: &str, action: &str| {
        json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "cnp"},
            "spec": {"tier": tier, "priority": 1, "subject": {"namespaces": {}},
                "ingress": [{"action": action, "from": [{"namespaces": {}}]}]}})
    };
    let user = |order: f64| {
        [mk_tier("t", json!(order), json!("Pass")), in_tier(mk_gnp("t.p", json!(1), do_("Deny")), "t")]
    };
    let with = |order, tier, action| [&user(order)[..], &[cluster(tier, action)]].concat();
    row("a tier below 1000 comes first", &with(999.0, "Admin", "Accept"), ASK).is("Deny");
    row("one above comes after", &with(1001.0, "Admin", "Accept"), ASK).is("Allow");
    row("before the baseline", &with(9_999_999.0, "Baseline", "Accept"), ASK).is("Deny");
    row("behind the baseline", &with(10_000_001.0, "Baseline", "Accept"), ASK).is("Allow");
}

#[test]
fn line_4_types_absent() {
    let policy = |spec: Value| [mk("NetworkPolicy", "x/p", spec)];
    let allow = do_("Allow");
    for types in [Value::Null, json!([])] {
        let spec = |more: Value| {
            let mut spec = more;
            spec["types"] = types.clone();
            policy(spec)
        };
        // Whom it selects and has no rule for is denied.
        row("neither section: ingress", &spec(json!({})), "x/web -> x/db 80/TCP").is("Allow, Deny");
        row("only ingress", &spec(json!({"ingress": allow})), "x/web -> y/db 80/TCP").is("Allow, Allow");
        row("empty ingress", &spec(json!({"ingress": [], "egress": []})), ASK).is("Allow, Deny");
        row("only egress", &spec(json!({"egress": do_("Deny")})), ASK).is("Deny, Allow");
        row("both", &spec(json!({"ingress": do_("Deny"), "egress": do_("Deny")})), ASK).is("Deny, Deny");
    }
    row("listed without rules", &policy(json!({"types": ["Egress"], "ingress": allow})), ASK)
        .is("Deny, Allow");
}

#[test]
fn line_5_selectors_of_pods() {
    for (selector, web, plain) in [
        ("app == 'web'", true, false),
        ("app != \"web\"", false, true),
        ("app in {'web', 'db'}", true, false),
        ("app not in {'web'}", false, true),
        ("has(app)", true, false),
        ("!has(app)", false, true),
        ("app contains 'e'", true, false),
        ("app starts with 'w'", true, false),
        ("app ends with 'eb'", true, false),
        ("all()", true, true),
        ("", true, true),
        ("app == 'web' && tier == 'front'", true, false),
        ("app == 'db' || tier == 'front'", true, false),
        ("!(app == 'db' || tier == 'front')", false, true),
        ("projectcalico.org/namespace == 'x'", true, true),
        ("projectcalico.org/namespace == 'y'", false, false),
        ("projectcalico.org/orchestrator == 'k8s'", true, true),
        ("projectcalico.org/orchestrator != 'k8s'", false, false),
        ("projectcalico.org/serviceaccount == 'default'", true, true),
        ("pcns.ns == 'x'", true, true),
        ("pcns.projectcalico.org/name in {'y'}", false, false),
        ("pcsa.projectcalico.org/name == 'default'", true, true),
    ] {
        let verdict = |denied| if denied { "Deny" } else { "Allow" };
        let spec = json!({"selector": selector, "types": ["Ingress"], "ingress": []});
        let subject = [mk("NetworkPolicy", "x/p", spec)];
        row("as a subject", &subject, "y/web -> x/web 80/TCP").is(verdict(web));
        row("as a subject", &subject, "y/web -> x/plain 80/TCP").is(verdict(plain));
        let rules = json!([{"action": "Deny", "source": {"selector": selector}}, {"action": "Allow"}]);
        // An empty selector of a rule asks nothing.
        both("as a peer", &[mk_cnp("p", rules.clone())], ASK, verdict(web));
        both("as a peer", &[mk_cnp("p", rules)], "x/plain -> x/db 80/TCP", verdict(plain));
    }
}

#[test]
fn line_5_labels_of_service_accounts() {
    let policy = [mk_cnp("p", from("Allow", json!({"selector": "pcsa.team == 'a'"})))];
    both("are not known", &policy, ASK, "Unknown");
    let known = |team: &str| {
        let labels: Labels = [("team", team)].into_iter().collect();
        let accounts = [(("x".into(), "default".into()), labels)].into_iter().collect();
        ClusterFacts { service_account_labels: Some(accounts), ..ClusterFacts::default() }
    };
    both_knowing("match", &policy, ASK, "Allow", &known("a"));
    both_knowing("differ", &policy, ASK, "Deny", &known("b"));
    both("nobody outside has one", &policy, "outside -> x/db 80/TCP", "Deny");
    let subject = json!({"serviceAccountSelector": "team == 'a'", "types": ["Ingress"], "ingress": []});
    let subject = [mk("NetworkPolicy", "x/p", subject)];
    both_knowing("of subjects", &subject, ASK, "Deny", &known("a"));
    both_knowing("of other subjects", &subject, ASK, "Allow", &known("b"));
    both("of subjects that are not known", &subject, ASK, "Unknown");
    let named = json!({"serviceAccountSelector": "projectcalico.org/name == 'default'", "ingress": []});
    both("by name", &[mk("NetworkPolicy", "x/p", named)], ASK, "Deny");
}

#[test]
fn line_6_a_selector_stays_in_the_namespace_unless_one_is_given() {
    let allow = |source: Value| [mk_cnp("p", from("Allow", source))];
    let global = |source: Value| [mk_gnp("p", Value::Null, from("Allow", source))];
    let web = || json!({"selector": "app == 'web'"});
    let elsewhere = "y/web -> x/db 80/TCP";
    both("its own", &allow(web()), ASK, "Allow");
    both("another", &allow(web()), elsewhere, "Deny");
    both("of any for a GlobalNetworkPolicy", &global(web()), elsewhere, "Allow");
    let named = |namespaces: &str| json!({"selector": "app == 'web'", "namespaceSelector": namespaces});
    both("a given one", &allow(named("ns == 'y'")), elsewhere, "Allow");
    both("only that", &allow(named("ns == 'y'")), ASK, "Deny");
    both("by name", &allow(named("projectcalico.org/name == 'y'")), elsewhere, "Allow");
    both("all of them", &allow(named("all()")), elsewhere, "Allow");
    both("none of them", &allow(named("global()")), ASK, "Deny");
    both("alone", &allow(json!({"namespaceSelector": "ns == 'y'"})), "y/db -> x/db 80/TCP", "Allow");
    both(
        "nothing outside is in one",
        &allow(json!({"namespaceSelector": "all()"})),
        "outside -> x/db 80/TCP",
        "Deny",
    );
    let subjects = |namespaces: &str| {
        [mk("GlobalNetworkPolicy", "p", json!({"namespaceSelector": namespaces, "ingress": []}))]
    };
    both("subjects of a GlobalNetworkPolicy", &subjects("ns == 'x'"), ASK, "Deny");
    both("elsewhere", &subjects("ns == 'y'"), ASK, "Allow");
    both("everywhere", &subjects("all()"), ASK, "Deny");
}

#[test]
fn line_6_nets_match_whoever_has_the_address() {
    let allow = |source: Value| [mk_cnp("p", from("Allow", source))];
    let net = |cidr: &str| allow(json!({"nets": [cidr]}));
    for dialect in ["standard", "calico", "cilium"] {
        row("a pod", &net("198.51.100.0/24"), "y/web -> x/db 80/TCP").dialect(dialect).is("Allow");
        row("another pod", &net("198.51.100.0/30"), "y/web -> x/db 80/TCP").dialect(dialect).is("Deny");
    }
    both("outside", &net("203.0.113.0/24"), "outside -> x/db 80/TCP", "Allow");
    both("a node", &net("192.0.2.0/24"), "node-2 -> x/db 80/TCP", "Allow");
    let without = |nets: Value| allow(json!({"notNets": nets}));
    both("not these", &without(json!(["203.0.113.0/24"])), "outside -> x/db 80/TCP", "Deny");
    both("but others", &without(json!(["203.0.113.0/25", "192.0.2.0/24"])), ASK, "Allow");
    let carved = allow(json!({"nets": ["0.0.0.0/0"], "notNets": ["203.0.113.0/29"]}));
    both("all but some", &carved, "outside -> x/db 80/TCP", "Deny");
    both("all but others", &carved, "203.0.113.9 -> x/db 80/TCP", "Allow");
    both("none at all asks nothing", &allow(json!({"nets": []})), "outside -> x/db 80/TCP", "Allow");
    both(
        "and a selector",
        &allow(json!({"nets": ["203.0.113.0/24"], "selector": "all()"})),
        "outside -> x/db 80/TCP",
        "Deny",
    );
}

#[test]
fn line_6_not_selector_matches_what_is_outside_and_a_negated_selector_does_not() {
    let global = |source: Value| [mk_gnp("p", Value::Null, from("Allow", source))];
    let (not, negated) = (json!({"notSelector": "has(app)"}), json!({"selector": "!has(app)"}));
    for (ask, of_not, of_negated) in [
        ("outside -> x/db 80/TCP", "Allow", "Deny"),
        ("node-2 -> x/db 80/TCP", "Allow", "Deny"),
        ("x/plain -> x/db 80/TCP", "Allow", "Allow"),
        ("y/web -> x/db 80/TCP", "Deny", "Deny"),
    ] {
        both("notSelector", &global(not.clone()), ask, of_not);
        both("a negated selector", &global(negated.clone()), ask, of_negated);
    }
    // A namespaced policy's rule stays in its namespace for it.
    let own = [mk_cnp("p", from("Allow", not))];
    both("in its namespace", &own, "x/plain -> x/db 80/TCP", "Allow");
    both("not outside", &own, "outside -> x/db 80/TCP", "Deny");
    let two = global(json!({"selector": "has(app)", "notSelector": "app == 'web'"}));
    both("both", &two, "y/db -> x/db 80/TCP", "Allow");
    both("both, taken out", &two, ASK, "Deny");
}

#[test]
fn line_6_protocols_and_ports_and_their_negations() {
    let rule = |more: Value| [mk_cnp("p", json!([more]))];
    let tcp = |ports: Value| rule(json!({"action": "Allow", "protocol": "TCP", "destination": ports}));
    for (policies, allowed, denied) in [
        (rule(json!({"action": "Allow"})), &["80/TCP", "2048/ICMP"][..], &[][..]),
        (rule(json!({"action": "Allow", "protocol": "TCP"})), &["1/TCP"], &["1/UDP", "2048/ICMP"]),
        (rule(json!({"action": "Allow", "protocol": 17})), &["1/UDP"], &["1/TCP"]),
        (rule(json!({"action": "Allow", "protocol": "sctp"})), &["1/SCTP"], &["1/TCP"]),
        (rule(json!({"action": "Allow", "protocol": "UDPLite"})), &[], &["1/UDP", "1/TCP"]),
        (rule(json!({"action": "Allow", "protocol": 47})), &[], &["1/UDP", "1/TCP"]),
        (rule(json!({"action": "Allow", "notProtocol": "TCP"})), &["1/UDP", "2048/ICMP"], &["1/TCP"]),
        (rule(json!({"action": "Allow", "notProtocol": 47})), &["1/UDP", "1/TCP"], &[]),
        (
            tcp(json!({"ports": [80, "90:92", "443"]})),
            &["80/TCP", "90/TCP", "92/TCP", "443/TCP"],
            &["81/TCP", "93/TCP", "80/UDP"],
        ),
        (tcp(json!({"notPorts": [80, "90:92"]})), &["81/TCP", "93/TCP"], &["80/TCP", "91/TCP", "81/UDP"]),
        (tcp(json!({"ports": ["80:90"], "notPorts": [85]})), &["80/TCP"], &["85/TCP", "91/TCP"]),
    ] {
        for (probes, verdict) in [(allowed, "Allow"), (denied, "Deny")] {
            for probe in probes {
                both("ports", &policies, &format!("x/web -> x/db {probe}"), verdict);
            }
        }
    }
    let named = tcp(json!({"ports": ["http"]}));
    row("a name", &named, "x/web -> x/db 8080/TCP").is("Allow");
    row("of its protocol", &named, "x/web -> x/db 8081/TCP").is("Deny");
    let mut egress = mirrored(&named[0]);
    egress["spec"]["selector"] = "all()".into();
    row("of the responder", &[egress.clone()], "x/web -> y/db 9090/TCP").is("Allow, Allow");
    row("of no other", &[egress], "x/web -> y/db 8080/TCP").is("Deny, Allow");
    let not_named = tcp(json!({"notPorts": ["http"]}));
    row("not a name", &not_named, "x/web -> x/db 8080/TCP").is("Deny");
    let source = rule(json!({"action": "Allow", "protocol": "TCP", "source": {"ports": [1234]}}));
    row("the initiator's port is not known", &source, ASK).is("Unknown");
    row("where it could matter", &source, "x/web -> x/db 80/UDP").is("Deny");
}

#[test]
fn line_6_ip_version() {
    let rule = |version: u8| [mk_cnp("p", json!([{"action": "Allow", "ipVersion": version}]))];
    let [four, six] = super::build::Family::BOTH.map(|family| {
        let verdict = |version| row("of a family", &rule(version), ASK).judgement(family).ingress.verdict;
        [4, 6].map(verdict).map(|verdict| verdict.as_str())
    });
    assert_eq!(four, ["Allow", "Deny"]);
    assert_eq!(six, ["Deny", "Allow"]);
}

#[test]
fn line_7_service_accounts_by_name_and_by_selector() {
    let allow = |accounts: Value| [mk_cnp("p", from("Allow", json!({"serviceAccounts": accounts})))];
    both("a name", &allow(json!({"names": ["other", "default"]})), ASK, "Allow");
    both("another name", &allow(json!({"names": ["other"]})), ASK, "Deny");
    both("in its namespace", &allow(json!({"names": ["default"]})), "y/web -> x/db 80/TCP", "Deny");
    both("not outside", &allow(json!({"names": ["default"]})), "outside -> x/db 80/TCP", "Deny");
    both("labels", &allow(json!({"selector": "has(team)"})), ASK, "Unknown");
    both("both, of another name", &allow(json!({"names": ["other"], "selector": "has(team)"})), ASK, "Deny");
    both("neither asks nothing", &allow(json!({})), "outside -> x/db 80/TCP", "Allow");
    let elsewhere = json!({"serviceAccounts": {"names": ["default"]}, "namespaceSelector": "ns == 'y'"});
    both("of another namespace", &[mk_cnp("p", from("Allow", elsewhere))], "y/web -> x/db 80/TCP", "Allow");
}

#[test]
fn line_7_services_are_their_endpoints() {
    let service = |name: &str, selector: Option<&str>| ServiceFacts {
        namespace: "x".into(),
        name: name.into(),
        labels: Labels::default(),
        selector: selector.map(|app| Selector::from_labels([("app", app)])),
        addresses: if selector.is_some() { Vec::new() } else { vec!["203.0.113.7".parse().unwrap()] },
    };
    let services = vec![service("web", Some("web")), service("out", None)];
    let facts = ClusterFacts { services: Some(services), ..ClusterFacts::default() };
    let allow = |service: Value| [mk_cnp("p", from("Allow", json!({"services": service})))];
    let web = allow(json!({"name": "web", "namespace": "x"}));
    row("a source", &web, ASK).facts(facts.clone()).is("Allow");
    row("another", &web, "x/plain -> x/db 80/TCP").facts(facts.clone()).is("Deny");
    row("the policy's namespace", &allow(json!({"name": "web"})), ASK).facts(facts.clone()).is("Allow");
    row("not known", &web, ASK).is("Unknown");
    row("missing", &allow(json!({"name": "none"})), ASK).facts(facts.clone()).is("Unknown");
    // As a destination it is for the Service's ports alone, and those are not known.
    let egress = [mirrored(&web[0])];
    row("a destination", &egress, "x/db -> x/web 80/TCP").facts(facts.clone()).is("Unknown, Allow");
    row("another destination", &egress, "x/db -> x/plain 80/TCP").facts(facts).is("Deny, Allow");
}

#[test]
fn line_7_icmp_by_type_and_code() {
    let rule = |icmp: Value| {
        let v4 = json!({"action": "Allow", "protocol": "ICMP", "icmp": icmp});
        let v6 = json!({"action": "Allow", "protocol": "ICMPv6", "icmp": icmp});
        [mk_cnp("p", json!([v4, v6]))]
    };
    for (policies, allowed, denied) in [
        (rule(json!({"type": 8})), &["2048/ICMP", "2303/ICMP"][..], &["2304/ICMP", "2048/TCP"][..]),
        (rule(json!({"type": 8, "code": 1})), &["2049/ICMP"], &["2048/ICMP", "2050/ICMP"]),
        (rule(json!({})), &["0/ICMP", "2048/ICMP"], &["2048/UDP"]),
        (
            [mk_cnp(
                "p",
                json!([
                    {"action": "Allow", "protocol": 1, "notICMP": {"type": 8}},
                    {"action": "Allow", "protocol": "ICMPv6", "notICMP": {"type": 8}}
                ]),
            )],
            &["2304/ICMP"],
            &["2048/ICMP", "2304/TCP"],
        ),
    ] {
        for (probes, verdict) in [(allowed, "Allow"), (denied, "Deny")] {
            for probe in probes {
                both("ICMP", &policies, &format!("x/web -> x/db {probe}"), verdict);
            }
        }
    }
}

#[test]
fn line_7_http_depends_on_the_request() {
    let http = json!({"methods": ["GET", "HEAD"], "paths": [{"exact": "/a"}, {"prefix": "/b/"}]});
    let policy = [mk_cnp("p", json!([{"action": "Allow", "http": http}]))];
    let ask = |method: &str, path: &str| {
        let request =
            Request::Http { method: method.into(), path: path.into(), host: "h".into(), headers: Vec::new() };
        let given = ConnectionFacts { request: Some(Arc::new(request)), ..ConnectionFacts::NONE };
        row("a request", &policy, ASK).given(given)
    };
    ask("GET", "/a").is("Allow");
    ask("HEAD", "/b/c").is("Allow");
    ask("POST", "/a").is("Deny");
    ask("GET", "/ab").is("Deny");
    row("is not known", &policy, ASK).is("Unknown");
    row(
        "of UDP",
        &[mk_cnp("p", json!([{"action": "Allow", "protocol": "TCP", "http": http}]))],
        "x/web -> x/db 80/UDP",
    )
    .is("Deny");
}

#[test]
fn a_rule_that_names_its_own_end_is_for_those_subjects_only() {
    let rules = |destination: &str| json!([{"action": "Deny", "destination": {"selector": destination}}, {"action": "Allow"}]);
    let policy = |destination| {
        let spec = json!({"types": ["Ingress"], "ingress": rules(destination)});
        [mk("NetworkPolicy", "x/p", spec)]
    };
    both("it is one", &policy("app == 'db'"), ASK, "Deny");
    both("it is none", &policy("app == 'web'"), ASK, "Allow");
    let only = json!([{"action": "Allow", "destination": {"selector": "app == 'web'"}}]);
    let spec = json!({"types": ["Ingress"], "ingress": only});
    both("the end of the tier is for all", &[mk("NetworkPolicy", "x/p", spec)], ASK, "Deny");
    let nets = json!([{"action": "Allow", "destination": {"nets": ["198.51.100.0/24"]}}]);
    row("its own address is not judged", &[mk_cnp("p", nets)], ASK).is("Unknown");
    let other = json!({"types": ["Ingress"], "ingress": [{"action": "Deny",
        "destination": {"notSelector": "app == 'web'"}}, {"action": "Allow"}]});
    both("negated", &[mk("NetworkPolicy", "x/p", other)], ASK, "Deny");
}

#[test]
fn line_8_policies_for_hosts_are_out_of_the_audit_and_reported() {
    for field in ["doNotTrack", "preDNAT"] {
        let mut policy = mk_gnp("h", Value::Null, do_("Deny"));
        policy["spec"][field] = true.into();
        policy["spec"]["applyOnForward"] = true.into();
        let Force::NotInForce(why) = mk_read(&policy).force().clone() else { panic!("{field} is in force") };
        assert_eq!(&*why, format!("with {field} it is for host endpoints, which are not audited"));
        both("not in force", &[policy], ASK, "Allow");
    }
    let mut forward = mk_gnp("h", Value::Null, do_("Deny"));
    forward["spec"]["applyOnForward"] = true.into();
    assert_eq!(mk_read(&forward).notes()[0].field, "spec.applyOnForward");
    both("it is for pods too", &[forward.clone()], ASK, "Deny");
    forward["spec"]["applyOnForward"] = false.into();
    forward["spec"]["performanceHints"] = json!(["AssumeNeededOnEveryNode"]);
    assert_eq!((mk_read(&forward).notes(), mk_read(&forward).faults()), (&[][..], &[][..]));
}

#[test]
fn line_8_sets_hold_addresses_by_label() {
    let allow = |source: Value| mk_cnp("p", from("Allow", source));
    let global = mk_set("g", json!({"role": "partner"}), json!(["203.0.113.0/24", "192.0.2.128/25"]));
    let own = mk_set("x/n", json!({"role": "partner"}), json!(["203.0.113.0/24"]));
    let other = mk_set("y/n", json!({"role": "partner"}), json!(["203.0.113.0/24"]));
    let (out, selector) = ("outside -> x/db 80/TCP", "role == 'partner'");
    let partner = |namespaces: Value| allow(json!({"selector": selector, "namespaceSelector": namespaces}));
    let with = |set: &Value, policy: Value| [set.clone(), policy];
    both("of its namespace", &with(&own, partner(Value::Null)), out, "Allow");
    both("of another", &with(&other, partner(Value::Null)), out, "Deny");
    both("of none", &with(&global, partner(Value::Null)), out, "Deny");
    both("of none, with global()", &with(&global, partner(json!("global()"))), out, "Allow");
    both("of one, with global()", &with(&own, partner(json!("global()"))), out, "Deny");
    both("of any, with all()", &with(&other, partner(json!("all()"))), out, "Allow");
    both("of none, with all()", &with(&global, partner(json!("all()"))), out, "Deny");
    let everywhere = mk_gnp("p", Value::Null, from("Allow", json!({"selector": selector})));
    for set in [&global, &own, &other] {
        both("of any for a GlobalNetworkPolicy", &with(set, everywhere.clone()), out, "Allow");
    }
    let wrong = mk_gnp("p", Value::Null, from("Allow", json!({"selector": "role == 'none'"})));
    both("of other labels", &with(&global, wrong), out, "Deny");
    let not = mk_gnp("p", Value::Null, from("Allow", json!({"notSelector": selector})));
    both("taken out", &with(&global, not.clone()), out, "Deny");
    both("others are not", &with(&global, not), "198.51.100.200 -> x/db 80/TCP", "Allow");
    let pods = mk_set("g", json!({"role": "partner"}), json!(["198.51.100.0/24"]));
    both("the addresses of pods too", &with(&pods, everywhere), "y/web -> x/db 80/TCP", "Allow");
    let kinds = |selector: &str| mk_gnp("p", Value::Null, from("Allow", json!({"selector": selector})));
    both("a set is no pod", &with(&global, kinds("has(projectcalico.org/namespace)")), out, "Deny");
    both("a set has a namespace", &with(&own, kinds("has(projectcalico.org/namespace)")), out, "Allow");
    both(
        "a set has no orchestrator",
        &with(&own, kinds("!has(projectcalico.org/orchestrator)")),
        out,
        "Allow",
    );
    // Labels of its namespace are inherited.
    let inherited = with(&own, kinds("pcns.team == 'a'"));
    both("labels of a namespace that are not known", &inherited, out, "Unknown");
    let namespaces = [("x".into(), [("team", "a")].into_iter().collect::<Labels>())];
    let facts =
        ClusterFacts { namespace_labels: Some(namespaces.into_iter().collect()), ..ClusterFacts::default() };
    both_knowing("labels of its namespace", &inherited, out, "Allow", &facts);
}

#[test]
fn line_8_domains_of_sets_are_names_that_pods_use() {
    let mut set = mk_set("g", json!({"role": "partner"}), json!(["192.0.2.128/25"]));
    set["spec"]["allowedEgressDomains"] = json!(["*.example.com"]);
    let policy = mirrored(&mk_gnp("p", Value::Null, from("Allow", json!({"selector": "role == 'partner'"}))));
    let ask = "x/db -> outside 443/TCP";
    row("nobody knows what it is called", &[set.clone(), policy.clone()], ask).is("Unknown, Allow");
    row("its addresses", &[set.clone(), policy.clone()], "x/db -> 192.0.2.200 443/TCP").is("Allow, Allow");
    row("pods are not called so", &[set.clone(), policy.clone()], "x/db -> y/web 443/TCP").is("Deny, Allow");
    set["spec"]["allowedEgressDomains"] = json!(["a.*.example.com"]);
    row("a pattern that is not judged", &[set, policy], ask).is("Unknown, Allow");
    let domains = mirrored(&mk_cnp("p", from("Allow", json!({"domains": ["example.com"]}))));
    row("of a rule", std::slice::from_ref(&domains), ask).is("Unknown, Allow");
    row("no pod", &[domains], "x/db -> y/web 443/TCP").is("Deny, Allow");
}

#[test]
fn line_9_staged_kinds_are_not_in_force_and_say_what_they_would_change() {
    let deny = json!({"selector": "app == 'db'", "types": ["Ingress"], "ingress": do_("Deny")});
    let set = |kind: &str, name: &str, spec: &Value| mk(kind, name, spec.clone());
    let kubernetes = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
    let allowed = mk_cnp("p", do_("Allow"));
    for (staged, namesake) in [
        (set("StagedNetworkPolicy", "x/p", &deny), "NetworkPolicy.projectcalico.org/x/p"),
        (set("StagedGlobalNetworkPolicy", "p", &deny), "GlobalNetworkPolicy/p"),
        (set("StagedKubernetesNetworkPolicy", "x/p", &kubernetes), "NetworkPolicy/x/p"),
    ] {
        let read = mk_read(&staged);
        assert_eq!(read.faults(), []);
        assert_eq!(*read.force(), Force::NotInForce(format!("staged: it would replace {namesake}").into()));
        let Some(StagedEdit::Replace(new)) = read.staged_edit() else { panic!("{staged} replaces nothing") };
        assert_eq!(new.reference().to_string(), namesake);
        row("not in force", std::slice::from_ref(&staged), ASK).is("Allow");
        for (action, why) in [
            ("Delete", format!("staged: it would remove {namesake}")),
            ("Learn", "staged, and its stagedAction changes nothing".to_owned()),
            ("Ignore", "staged, and its stagedAction changes nothing".to_owned()),
        ] {
            let mut staged = staged.clone();
            staged["spec"]["stagedAction"] = action.into();
            let read = mk_read(&staged);
            assert_eq!(*read.force(), Force::NotInForce(why.into()), "{action}");
            assert_eq!(matches!(read.staged_edit(), Some(StagedEdit::Delete(_))), action == "Delete");
        }
    }
    row("what is in force stays so", &[allowed, set("StagedNetworkPolicy", "x/p", &deny)], ASK).is("Allow");
}

#[test]
fn line_9_staged_replaces_its_namesake_and_delete_removes_it() {
    let told = |policies: &[Value]| {
        let read: Vec<_> = policies.iter().map(mk_read).collect();
        let in_force = with_staged(&read);
        let in_force = in_force.iter().filter(|policy| *policy.force() == Force::InForce);
        let each = in_force.map(|policy| {
            let action = policy.parts()[0].ingress.rules[0].action;
            format!("{} {}; ", policy.reference(), action.as_str())
        });
        each.collect::<String>()
    };
    let old = mk_cnp("p", do_("Allow"));
    let other = mk_cnp("q", do_("Allow"));
    let mut staged = mk_cnp("p", do_("Deny"));
    staged["kind"] = "StagedNetworkPolicy".into();
    let calico = "NetworkPolicy.projectcalico.org";
    assert_eq!(
        told(&[old.clone(), other.clone(), staged.clone()]),
        format!("{calico}/x/q Allow; {calico}/x/p Deny; ")
    );
    assert_eq!(told(&[other.clone(), staged.clone()]), format!("{calico}/x/q Allow; {calico}/x/p Deny; "));
    // In crd.projectcalico.org, names have their tier's prefix.
    staged["metadata"]["name"] = "default.p".into();
    staged["apiVersion"] = "crd.projectcalico.org/v1".into();
    let expected = format!("{calico}/x/q Allow; {calico}/x/default.p Deny; ");
    assert_eq!(told(&[old.clone(), other.clone(), staged.clone()]), expected);
    staged["spec"]["stagedAction"] = "Delete".into();
    assert_eq!(told(&[old.clone(), other.clone(), staged.clone()]), format!("{calico}/x/q Allow; "));
    staged["spec"]["stagedAction"] = "Ignore".into();
    assert_eq!(told(&[old, other, staged]), format!("{calico}/x/p Allow; {calico}/x/q Allow; "));
}

#[test]
fn both_groups_are_read_alike() {
    let mut policies = [mk_gnp("z", json!(1), do_("Allow")), mk_gnp("a", json!(1), do_("Deny"))];
    policies[0]["apiVersion"] = "crd.projectcalico.org/v1".into();
    policies[0]["metadata"]["name"] = "default.z".into();
    both("by name without the prefix", &policies, ASK, "Deny");
    policies[1]["metadata"]["name"] = "zz".into();
    both("either way", &policies, ASK, "Allow");
}
