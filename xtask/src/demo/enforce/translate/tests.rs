//! What the translator makes of policies, in a notation like nft's own.

use super::*;

/// Two pods in `shop`, one in `tools`.
const WORLD: &str = r#"
{kind: Namespace, metadata: {name: shop}}
---
{kind: Namespace, metadata: {name: tools, labels: {team: ops}}}
---
{kind: Pod, metadata: {namespace: shop, name: web, labels: {app: web}}, status: {podIPs: [{ip: 192.0.2.1}, {ip: "2001:db8::1"}]}}
---
{kind: Pod, metadata: {namespace: shop, name: db, labels: {app: db}}, status: {podIPs: [{ip: 192.0.2.2}]}}
---
{kind: Pod, metadata: {namespace: tools, name: web, labels: {app: web}}, status: {podIPs: [{ip: 192.0.2.3}]}}
"#;

fn manifests(spec: &str) -> Manifests {
    let policy = format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{namespace: shop, name: p}}, spec: {spec}}}"
    );
    let mut manifests = Manifests::default();
    manifests.add_yaml(WORLD).unwrap();
    manifests.add_yaml(&policy).unwrap();
    manifests
}

/// The rules of the two chains: `chain: match, match, verdict`.
fn rules(manifests: &Manifests) -> Vec<String> {
    let rules = ruleset(manifests, &[]).unwrap();
    let rules = rules.iter().filter_map(|command| command.pointer("/add/rule"));
    rules
        .filter(|rule| rule["chain"] != "forward")
        .map(|rule| {
            let expressions: Vec<_> = rule["expr"].as_array().unwrap().iter().map(shown).collect();
            format!("{}: {}", rule["chain"].as_str().unwrap(), expressions.join(", "))
        })
        .collect()
}

fn shown(expression: &Value) -> String {
    let Some(comparison) = expression.get("match") else {
        return expression.as_object().unwrap().keys().next().unwrap().clone();
    };
    let (left, right) = (&comparison["left"], &comparison["right"]);
    let left = match left.get("payload") {
        Some(payload) => {
            format!("{} {}", payload["protocol"].as_str().unwrap(), payload["field"].as_str().unwrap())
        }
        None => left["meta"]["key"].as_str().unwrap().to_owned(),
    };
    let right = match (right.get("set"), right.get("prefix"), right.get("range")) {
        (Some(set), _, _) => set.to_string(),
        (_, Some(prefix), _) => format!("{}/{}", prefix["addr"].as_str().unwrap(), prefix["len"]),
        (_, _, Some(range)) => range.to_string(),
        _ => right.to_string(),
    };
    format!("{left} {} {right}", comparison["op"].as_str().unwrap()).replace('"', "")
}

const DROP_WEB_OUT: [&str; 2] =
    ["egress: ip saddr == [192.0.2.1], drop", "egress: ip6 saddr == [2001:db8::1], drop"];

#[test]
fn rules_are_what_the_policy_says() {
    let web = "podSelector: {matchLabels: {app: web}}";
    let cases: &[(&str, String, Vec<&str>)] = &[
        (
            "no types and no egress rule isolate ingress alone; no rule denies all",
            "{podSelector: {}}".to_owned(),
            vec!["ingress: ip daddr == [192.0.2.1,192.0.2.2], drop", "ingress: ip6 daddr == [2001:db8::1], drop"],
        ),
        (
            "a selector of pods alone means the policy's namespace; a family that a side lacks has no rule",
            format!("{{{web}, policyTypes: [Egress], egress: [{{to: [{{podSelector: {{matchLabels: {{app: db}}}}}}], ports: [{{port: 5432}}]}}]}}"),
            vec!["egress: ip saddr == [192.0.2.1], ip daddr == [192.0.2.2], tcp dport == 5432, return"],
        ),
        (
            "both selectors in one peer are AND; TCP is the protocol where none is named",
            "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: ops}}, podSelector: {matchLabels: {app: web}}}], ports: [{port: 80, endPort: 90}]}]}".to_owned(),
            vec![
                "ingress: ip daddr == [192.0.2.2], ip saddr == [192.0.2.3], tcp dport == [80,90], return",
                "ingress: ip daddr == [192.0.2.2], drop",
            ],
        ),
        (
            "namespaces carry their name as a label",
            format!("{{{web}, policyTypes: [Egress], egress: [{{to: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: tools}}}}}}], ports: [{{protocol: UDP}}]}}]}}"),
            vec!["egress: ip saddr == [192.0.2.1], ip daddr == [192.0.2.3], l4proto == udp, return"],
        ),
        (
            "a block less its exceptions, in its own family",
            format!("{{{web}, policyTypes: [Egress], egress: [{{to: [{{ipBlock: {{cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}}}]}}]}}"),
            vec!["egress: ip saddr == [192.0.2.1], ip daddr == 0.0.0.0/0, ip daddr != 10.0.0.0/8, return"],
        ),
        (
            "an empty rule allows all",
            format!("{{{web}, policyTypes: [Egress], egress: [{{}}]}}"),
            vec!["egress: ip saddr == [192.0.2.1], return", "egress: ip6 saddr == [2001:db8::1], return"],
        ),
        (
            "a missing key matches NotIn and DoesNotExist, a peer that selects nothing allows nothing",
            format!("{{{web}, policyTypes: [Egress], egress: [{{to: [
                {{podSelector: {{matchExpressions: [{{key: app, operator: In, values: [cache]}}]}}}},
                {{podSelector: {{matchExpressions: [{{key: tier, operator: NotIn, values: [x]}}, {{key: app, operator: NotIn, values: [web]}}]}}}},
                {{podSelector: {{matchExpressions: [{{key: tier, operator: DoesNotExist}}, {{key: app, operator: Exists}}]}}}}]}}]}}"),
            vec![
                "egress: ip saddr == [192.0.2.1], ip daddr == [192.0.2.2], return",
                "egress: ip saddr == [192.0.2.1], ip daddr == [192.0.2.1,192.0.2.2], return",
                "egress: ip6 saddr == [2001:db8::1], ip6 daddr == [2001:db8::1], return",
            ],
        ),
    ];
    for (name, spec, expected) in cases {
        let mut expected: Vec<_> = expected.iter().map(|rule| (*rule).to_owned()).collect();
        if spec.contains("policyTypes") {
            expected.extend(DROP_WEB_OUT.map(ToOwned::to_owned));
        }
        let mut found = rules(&manifests(spec));
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn default_deny_isolates_all_but_kube_system_and_leaves_dns() {
    let mut manifests = Manifests::default();
    manifests.add_yaml(WORLD).unwrap();
    let dns = "{kind: Pod, metadata: {namespace: kube-system, name: dns, labels: {k8s-app: kube-dns}}, status: {podIPs: [{ip: 192.0.2.53}]}}";
    manifests.add_yaml(&format!("{{kind: Namespace, metadata: {{name: kube-system}}}}\n---\n{dns}")).unwrap();
    manifests.deny_by_default().unwrap();
    assert_eq!(
        rules(&manifests),
        [
            "egress: ip saddr == [192.0.2.1,192.0.2.2], ip daddr == [192.0.2.53], udp dport == 53, return",
            "egress: ip saddr == [192.0.2.1,192.0.2.2], ip daddr == [192.0.2.53], tcp dport == 53, return",
            "egress: ip saddr == [192.0.2.3], ip daddr == [192.0.2.53], udp dport == 53, return",
            "egress: ip saddr == [192.0.2.3], ip daddr == [192.0.2.53], tcp dport == 53, return",
            "egress: ip saddr == [192.0.2.1,192.0.2.2,192.0.2.3], drop",
            "egress: ip6 saddr == [2001:db8::1], drop",
            "ingress: ip daddr == [192.0.2.1,192.0.2.2,192.0.2.3], drop",
            "ingress: ip6 daddr == [2001:db8::1], drop",
        ]
    );
}

#[test]
fn what_is_not_understood_is_an_error() {
    let policy = |spec: &str| {
        let policy = format!(
            "{{apiVersion: v1, kind: NetworkPolicy, metadata: {{namespace: shop, name: p}}, spec: {spec}}}"
        );
        let mut manifests = Manifests::default();
        manifests.add_yaml(WORLD)?;
        manifests.add_yaml(&policy)?;
        ruleset(&manifests, &[]).map(drop)
    };
    assert!(policy("{podSelector: {}}").is_ok());
    for spec in [
        "{podSelector: {}, ingress: [{ports: [{port: http}]}]}",
        "{podSelector: {}, ingress: [{ports: [{port: 1, protocol: SCTP}]}]}",
        "{podSelector: {}, ingress: [{ports: [{endPort: 5}]}]}",
        "{podSelector: {}, ingress: [{from: [{}]}]}",
        "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0}}]}]}",
        "{podSelector: {}, ingress: [{from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}]}",
        "{podSelector: {}, ingress: [{to: []}]}",
        "{podSelector: {matchExpressions: [{key: a, operator: Is}]}}",
        "{podSelector: {}, types: []}",
    ] {
        let error = policy(spec).expect_err(spec);
        assert!(format!("{error:#}").contains("networkpolicy shop/p: "), "{spec}: {error:#}");
    }
    let host = "{kind: Pod, metadata: {namespace: shop, name: a}, spec: {hostNetwork: true}}";
    assert!(Manifests::default().add_yaml(host).is_err());
}
