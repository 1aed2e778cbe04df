//! The sentences of a report. None of them says "safe".

use std::collections::BTreeMap;

use super::build::{Report, ScenarioFindings, UnknownGroup, Window};
use crate::finding::words::{count, duration, losses, moment};

/// How far the findings can be relied on, in one sentence.
pub(super) fn confidence(window: &Window, unknown: &[UnknownGroup]) -> String {
    let mut sentence = format!(
        "what did not happen in these {} (nightly jobs, failovers, idle workloads) is not in this report",
        duration(window.duration())
    );
    match &window.losses {
        None => sentence.push_str("; whether anything was lost is not known, so findings may be missing"),
        Some(losses) if losses.iter().any(|loss| loss.packets > 0 || loss.edges > 0) => {
            sentence.push_str("; something was lost, so findings may be missing");
        }
        Some(_) => {}
    }
    if !window.unobserved.is_empty() {
        let pods = count(window.unobserved.len() as u64, "pod");
        sentence.push_str(&format!("; {pods} could not be observed at all"));
    }
    let unjudged = unknown.iter().fold(0, |sum: u64, group| sum.saturating_add(group.connections));
    if unjudged > 0 {
        sentence.push_str(&format!("; {} could not be judged", count(unjudged, "connection")));
    }
    sentence
}

/// What to do next, in one line.
pub(super) fn next(scenarios: &[ScenarioFindings], unknown: &[UnknownGroup]) -> String {
    let mut owners: BTreeMap<&str, u64> = BTreeMap::new();
    for finding in scenarios.iter().flat_map(ScenarioFindings::findings) {
        for denial in &finding.denials {
            *owners.entry(denial.owner.as_deref().unwrap_or("nobody's namespace")).or_default() += 1;
        }
    }
    let rules: u64 = owners.values().sum();
    if rules > 0 {
        let owners: Vec<_> = owners.iter().map(|(owner, rules)| format!("{owner} {rules}")).collect();
        return format!(
            "decide on {} ({}) and allow before you deny; `dryfence report -o wide` prints them as YAML. \
             The first rule for a pod's direction isolates it: apply all rules of a workload together, for egress \
             with one for DNS.",
            count(rules, "rule"),
            owners.join(", ")
        );
    }
    if !unknown.is_empty() {
        return "nothing that could be judged would break: settle the unknown verdicts above, then read this \
                report again."
            .to_owned();
    }
    "nothing that was seen would break: keep recording until the rarest job has run, then read this report again."
        .to_owned()
}

/// What a scenario's heading says.
pub(super) fn headline(scenario: &ScenarioFindings) -> String {
    let (fresh, more): (Vec<_>, Vec<_>) = scenario.findings().partition(|finding| !finding.broken_before);
    let what = match &scenario.beyond {
        _ if fresh.is_empty() && scenario.beyond.is_none() => "breaks nothing that was seen".to_owned(),
        Some(beyond) if fresh.is_empty() => format!("breaks nothing that was seen beyond {beyond}"),
        beyond => {
            let beyond = beyond.as_ref().map_or_else(String::new, |beyond| format!(" beyond {beyond}"));
            let edges = count(fresh.len() as u64, "finding");
            format!("breaks {}{beyond}: {edges}", count(scenario.connections, "connection"))
        }
    };
    if more.is_empty() { what } else { format!("{what}; {} of those above need more", more.len()) }
}

/// The rows of the header: a name and its text.
pub(super) fn header(report: &Report) -> Vec<(&'static str, String)> {
    let window = &report.window;
    let span = duration(window.duration());
    let mut rows = vec![
        ("window", format!("{} to {} ({span})", moment(window.start), moment(window.end))),
        ("lost", losses(window.losses.as_deref())),
    ];
    if !window.unobserved.is_empty() {
        rows.push(("unobserved", window.unobserved.join(", ")));
    }
    let dialect = if report.dialect.is_empty() { "not said by this input" } else { &report.dialect };
    rows.push(("dialect", dialect.to_owned()));
    if report.assumed.is_empty() {
        rows.push(("assumed", "not said by this input".to_owned()));
    }
    rows.extend(report.assumed.iter().map(|text| ("assumed", text.clone())));
    rows.extend(report.warnings.iter().map(|text| ("warning", text.clone())));
    rows.push(("confidence", report.confidence.clone()));
    rows
}
