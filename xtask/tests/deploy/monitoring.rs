//! Rules and dashboard: every metric they name exists, and every alert says what to do.

use std::collections::{BTreeMap, BTreeSet};

use dryfence::serve::metrics::{Caps, Metrics, Readings};
use serde_json::Value;
use xtask::tools;

use super::objects::{documents, folder};

/// What is not ours.
const OTHERS: [&str; 3] = ["up", "kube_node_info", "ALERTS"];

fn chart(name: &str) -> String {
    std::fs::read_to_string(tools::root().join("deploy/charts/dryfence/files").join(name)).unwrap()
}

/// The names under which the agent's metrics are queried.
fn series() -> BTreeSet<String> {
    let exposition = Metrics::new(Caps::default(), Readings::default).encode().unwrap();
    let types = exposition.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let names = types.flat_map(|(name, kind)| {
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        suffixes.iter().map(move |suffix| format!("{name}{suffix}"))
    });
    names.collect()
}

fn rules() -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(&chart("rules.yaml")).unwrap();
    let groups = file["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn alerts() -> BTreeMap<String, Value> {
    let alerts = rules().into_iter().filter(|rule| rule["alert"].is_string());
    alerts.map(|rule| (rule["alert"].as_str().unwrap().to_owned(), rule)).collect()
}

/// The words of an expression that name series: those with an underscore that stand for no function and no label.
fn named(expression: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    let mut depth = 0_i32;
    let mut word = String::new();
    for character in expression.chars().chain([' ']) {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if character.is_ascii_alphanumeric() || character == '_' || character == ':' {
            word.push(character);
            continue;
        }
        let is_ours =
            ["dryfence_", "process_"].iter().any(|prefix| word.starts_with(prefix)) || word.contains(':');
        if depth <= i32::from(character == '{') && (is_ours || OTHERS.contains(&word.as_str())) {
            named.insert(std::mem::take(&mut word));
        }
        word.clear();
    }
    named
}

/// Names in an expression that nothing has.
fn unknown(expression: &str) -> Vec<String> {
    let recorded: BTreeSet<String> =
        rules().iter().filter_map(|rule| rule["record"].as_str().map(str::to_owned)).collect();
    let series = series();
    let names = named(expression);
    assert!(!names.is_empty(), "no series in: {expression}");
    let is_known =
        |name: &String| series.contains(name) || recorded.contains(name) || OTHERS.contains(&name.as_str());
    names.into_iter().filter(|name| !is_known(name)).collect()
}

#[test]
fn a_name_that_nothing_has_is_found() {
    assert_eq!(unknown("rate(dryfence_would_deny_connections[5m]) > 0"), ["dryfence_would_deny_connections"]);
    assert_eq!(unknown("sum(dryfence_edges{scenario=\"a\"}) / x:y:z"), ["x:y:z"]);
    assert_eq!(unknown("increase(dryfence_lost_edges_total[1h]) unless up"), [""; 0]);
}

#[test]
fn rules_name_only_series_that_exist() {
    for rule in rules() {
        let expression = rule["expr"].as_str().unwrap();
        assert_eq!(unknown(expression), [""; 0], "{}", rule["alert"]);
    }
}

#[test]
fn the_dashboard_names_only_series_that_exist() {
    let dashboard: Value = serde_json::from_str(&chart("dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut seen = BTreeSet::new();
    for target in targets {
        let expression = target["expr"].as_str().unwrap();
        assert_eq!(unknown(expression), [""; 0], "{expression}");
        seen.append(&mut named(expression));
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if variable["type"] == "query" {
            assert_eq!(unknown(variable["query"].as_str().unwrap()), [""; 0]);
        }
    }
    // Of every metric of ours that is no process's, something is shown.
    let shown = |name: &String| seen.contains(name) || name.ends_with("_sum") || name.ends_with("_count");
    let left_out: Vec<_> =
        series().into_iter().filter(|name| name.starts_with("dryfence_") && !shown(name)).collect();
    assert_eq!(left_out, [""; 0], "metrics that the dashboard does not show");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "panels share an id");
}

/// As GitHub makes anchors of headings.
fn anchors() -> BTreeSet<String> {
    let readme = std::fs::read_to_string(tools::root().join("deploy/README.md")).unwrap();
    let headings = readme.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-")).collect()
}

#[test]
fn every_alert_says_how_bad_it_is_and_what_to_do() {
    let anchors = anchors();
    let alerts = alerts();
    assert!(alerts.len() >= 9, "{:?}", alerts.keys());
    for (name, alert) in &alerts {
        assert!(alert["labels"]["severity"].is_string(), "{name}");
        for text in ["summary", "description"] {
            assert!(
                alert["annotations"][text].as_str().is_some_and(|text| text.len() > 20),
                "{name}: {text}"
            );
        }
        let runbook = alert["annotations"]["runbook"].as_str().unwrap();
        let anchor = runbook.strip_prefix("deploy/README.md#").unwrap();
        assert_eq!(anchor, name.to_lowercase(), "{name}");
        assert!(anchors.contains(anchor), "{name}: deploy/README.md has no section {anchor}");
    }
}

#[test]
fn no_alert_is_on_default_deny() {
    for (name, alert) in alerts() {
        let expression = alert["expr"].as_str().unwrap();
        // Each use of a metric that tells scenarios apart either names another or leaves this one out.
        for (at, _) in expression.match_indices("dryfence_would_deny_") {
            let matchers =
                expression[at..].split_once('{').and_then(|(_, rest)| rest.split_once('}')).unwrap().0;
            let is_other = matchers.contains("scenario=\"enforced\"")
                || matchers.contains("scenario!~\"enforced|default-deny\"");
            assert!(is_other, "{name}: {matchers}");
        }
    }
}

#[test]
fn the_objects_hold_the_same_rules_and_dashboard() {
    let objects = folder("monitoring");
    let of = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
    let file: Value = serde_saphyr::from_str(&chart("rules.yaml")).unwrap();
    assert_eq!(of("PrometheusRule")["spec"], file);
    let held = of("ConfigMap")["data"]["dryfence.json"].as_str().unwrap();
    let dashboard: Value = serde_json::from_str(&chart("dashboard.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(held).unwrap(), dashboard);
    assert_eq!(of("PodMonitor")["spec"]["podMetricsEndpoints"][0]["honorLabels"], true);
    let service = documents(
        &std::fs::read_to_string(tools::root().join("deploy/kustomize/base/service.yaml")).unwrap(),
    );
    assert_eq!(service[0]["spec"]["clusterIP"], "None");
}
