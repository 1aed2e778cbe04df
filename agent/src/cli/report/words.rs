//! The sentences of a report. None of them says "safe".

use std::collections::BTreeMap;

use super::build::{Report, ScenarioFindings, UnknownGroup, Window};
use super::excepted::Excepted;
use crate::finding::words::{count, duration, losses, moment};
use crate::finding::{MapFindings, SegmentCrossing, SegmentFindings};
use crate::model::verdict::Verdict;

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
pub(super) fn next(
    scenarios: &[ScenarioFindings],
    segments: &SegmentFindings,
    unknown: &[UnknownGroup],
) -> String {
    let policies = next_for_policies(scenarios, unknown);
    let crossings: usize =
        segments.maps.iter().flat_map(|map| &map.pairs).map(|pair| pair.crossings.len()).sum();
    if crossings == 0 {
        return policies;
    }
    let violations = count(crossings as u64, "segment violation");
    format!(
        "{policies} Decide on {violations}: forbid it by a policy, allow it in the map, or declare an EdgeException."
    )
}

fn next_for_policies(scenarios: &[ScenarioFindings], unknown: &[UnknownGroup]) -> String {
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
    let excepted = scenarios.iter().any(|scenario| scenario.excepted > 0);
    let but = if excepted { " but what is excepted" } else { "" };
    format!(
        "nothing that was seen would break{but}: keep recording until the rarest job has run, then read this \
         report again."
    )
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
    let excepted = match scenario.excepted {
        0 => String::new(),
        excepted => format!("; {excepted} more excepted"),
    };
    let more =
        if more.is_empty() { String::new() } else { format!("; {} of those above need more", more.len()) };
    format!("{what}{excepted}{more}")
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

/// What the heading of the segments says.
pub(super) fn segments_headline(segments: &SegmentFindings) -> String {
    let crossings: usize =
        segments.maps.iter().flat_map(|map| &map.pairs).map(|pair| pair.crossings.len()).sum();
    if crossings == 0 {
        let excepted = segments.maps.iter().any(|map| map.excepted > 0);
        let what = "nothing that was seen crosses a declared segment";
        return if excepted { format!("{what}, but what is excepted") } else { what.to_owned() };
    }
    let findings = count(crossings as u64, "finding");
    format!("{} cross what a segment map keeps apart: {findings}", count(segments.connections, "connection"))
}

/// What is said of a map in force that nothing new crosses.
pub(super) const fn map_quiet(map: &MapFindings) -> Option<&'static str> {
    match (map.in_force && map.pairs.is_empty(), map.excepted) {
        (false, _) => None,
        (true, 0) => Some("nothing that was seen crosses it"),
        (true, _) => Some("nothing that was seen crosses it, but what is excepted"),
    }
}

/// What the policies in force make of a violation.
pub(super) const fn beside_policy(crossing: &SegmentCrossing) -> &'static str {
    match crossing.enforced {
        Some(Verdict::Allow) => "the policies in force allow it",
        Some(Verdict::Deny) => "the policies in force deny it too",
        Some(Verdict::Unknown) => "what the policies in force say is not known",
        None => "the policies in force were not asked",
    }
}

/// What a map cannot tell, one line a reason.
pub(super) fn map_unknown(map: &MapFindings) -> impl Iterator<Item = String> {
    map.unknown.iter().map(|unknown| {
        format!("{} cannot be judged: {}", count(unknown.connections, "connection"), unknown.reason)
    })
}

/// What is excepted, in one line; nothing where nothing is.
pub(super) fn excepted(excepted: &Excepted) -> Option<String> {
    if excepted.connections == 0 {
        return None;
    }
    let are = if excepted.connections == 1 { "is" } else { "are" };
    let by = excepted.by.iter().map(|by| {
        let from = by.from.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let mut text =
            format!("{} by {} from {from}: {}", by.connections, by.exception.exception, by.exception.reason);
        if let Some(ticket) = &by.exception.ticket {
            text.push_str(&format!(" ({ticket})"));
        }
        if let Some(end) = by.exception.expires_at {
            text.push_str(&format!(", until {}", moment(end)));
        }
        text
    });
    let by = by.collect::<Vec<_>>().join("; ");
    Some(format!("{} {are} excepted: {by}", count(excepted.connections, "connection")))
}
