//! The sentences of a preview. None of them says "safe".

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use crate::finding::words::{count, duration, losses, moment};
use crate::finding::{SegmentCrossing, SegmentPair};
use crate::model::cause::Cause;
use crate::model::record::{DecisionRecord, ExceptionRecord};
use crate::model::verdict::Verdict;
use crate::preview::{Amount, Finding, Group, MapChange, Preview};

/// How many workloads, edits or gaps a header names before "and N more".
const NAMED: usize = 8;

/// What changes, in one line.
pub(super) fn headline(preview: &Preview) -> String {
    let counts = &preview.counts;
    let number = |(amount, what): (Amount, &str)| format!("{} {what}", amount.findings);
    let mut numbers = vec![
        (counts.newly_denied, "newly denied"),
        (counts.newly_allowed, "newly allowed"),
        (counts.unknown, "unknown"),
        (counts.still_denied, "still denied"),
        (counts.unchanged, "allowed as before"),
    ];
    // Said only where there is something that may be excepted or violated.
    numbers.extend((counts.excepted.findings > 0).then_some((counts.excepted, "excepted")));
    if !preview.segments.is_empty() {
        numbers.push((counts.new_violations, "newly crossing segments"));
    }
    numbers.into_iter().map(number).collect::<Vec<_>>().join(", ")
}

/// What a section of segment violations holds: the map's name and severity, and what crosses.
pub(super) struct Violations<'a> {
    pub(super) name: &'static str,
    /// What stands under which they are in JSON lines.
    pub(super) change: &'static str,
    /// What precedes the reason.
    pub(super) why: &'static str,
    pub(super) amount: Amount,
    pub(super) maps: Vec<(&'a MapChange, &'a [SegmentPair])>,
}

/// What segment maps newly and no longer forbid.
pub(super) fn violations(preview: &Preview) -> Vec<Violations<'_>> {
    let counts = &preview.counts;
    let section = |name, change, why, amount, of: fn(&MapChange) -> &Vec<SegmentPair>| Violations {
        name,
        change,
        why,
        amount,
        maps: preview
            .segments
            .iter()
            .map(|map| (map, of(map).as_slice()))
            .filter(|(_, pairs)| !pairs.is_empty())
            .collect(),
    };
    let all = [
        section("new segment violations", "new-violation", "why", counts.new_violations, |map| &map.new),
        section("no longer segment violations", "gone-violation", "was", counts.gone_violations, |map| {
            &map.gone
        }),
    ];
    all.into_iter().filter(|section| !section.maps.is_empty()).collect()
}

/// What a segment map says besides what changes, in one line.
fn segment_map(map: &MapChange) -> String {
    let MapChange { map: name, in_force, kept, excepted, unknown, .. } = map;
    if !in_force {
        return format!("{name}: not in force: {}", map.reasons.join("; "));
    }
    let mut text = format!("{name}: {} as before", count(kept.findings, "violation"));
    if *excepted > 0 {
        text.push_str(&format!(", {} excepted", count(*excepted, "connection")));
    }
    for unknown in unknown {
        let connections = count(unknown.connections, "connection");
        text.push_str(&format!(", {connections} cannot be judged: {}", unknown.reason));
    }
    text
}

/// A section's heading and the findings in it.
pub(super) struct Section<'a> {
    pub(super) name: &'static str,
    /// What stands under which the section is in JSON lines.
    pub(super) change: &'static str,
    pub(super) amount: Amount,
    pub(super) groups: &'a [Group],
    /// What stays as it was, and is shown in full only where it is asked for.
    pub(super) quiet: bool,
}

/// The sections that have findings, what is newly denied first.
pub(super) fn sections(preview: &Preview) -> Vec<Section<'_>> {
    let counts = &preview.counts;
    let section = |name, change, amount, groups, quiet| Section { name, change, amount, groups, quiet };
    let all = [
        section("newly denied", "newly-denied", counts.newly_denied, &*preview.newly_denied, false),
        section("newly allowed", "newly-allowed", counts.newly_allowed, &preview.newly_allowed, false),
        section("unknown", "unknown", counts.unknown, &preview.unknown, false),
        section("still denied", "still-denied", counts.still_denied, &preview.still_denied, true),
        section("excepted", "excepted", counts.excepted, &preview.excepted, true),
    ];
    all.into_iter().filter(|section| !section.groups.is_empty()).collect()
}

impl Section<'_> {
    pub(super) fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.groups.iter().flat_map(Group::findings).map(|(_, _, finding)| finding)
    }
}

/// `12 connections: 2 findings`
pub(super) fn amount_in_words(amount: Amount) -> String {
    let findings = count(amount.findings, "finding");
    format!("{}: {findings}", count(amount.connections, "connection"))
}

/// `12 connections`, or `5 attempts, none accepted so far`; where it is unknown, with what it was and will be.
pub(super) fn seen(finding: &Finding) -> String {
    let mut text = if finding.connections == 0 {
        format!("{}, none accepted so far", count(finding.attempts, "attempt"))
    } else {
        count(finding.connections, "connection")
    };
    let word = |verdict| match verdict {
        Verdict::Allow => "allowed",
        Verdict::Deny => "denied",
        Verdict::Unknown => "unknown",
    };
    match (finding.before, finding.after) {
        (Verdict::Unknown, Verdict::Unknown) => text.push_str(", unknown before and after"),
        (before @ Verdict::Unknown, after) | (before, after @ Verdict::Unknown) => {
            text.push_str(&format!(", {} before, {} after", word(before), word(after)));
        }
        _ => {}
    }
    text
}

/// `EdgeException/shop/known: the move in June (SHOP-7)`
pub(super) fn exception(exception: &ExceptionRecord) -> String {
    let ticket = exception.ticket.as_ref().map(|ticket| format!(" ({ticket})"));
    format!("{}: {}{}", exception.exception, exception.reason, ticket.unwrap_or_default())
}

/// What decided: `allowed by NetworkPolicy/shop/allow-api rule 0`.
pub(super) fn decided(answer: &DecisionRecord) -> String {
    let verdict = match answer.verdict {
        Verdict::Allow => "allowed",
        Verdict::Deny => "denied",
        Verdict::Unknown => return format!("unknown: {}", answer.reason),
    };
    match (&answer.policy, answer.rule) {
        _ if !answer.isolated_by.is_empty() => format!("{verdict} by {}", answer.isolated_by.join(", ")),
        (Some(policy), Some(rule)) => format!("{verdict} by {policy} rule {rule}"),
        (Some(policy), None) => format!("{verdict} by {policy}"),
        (None, _) => format!("{verdict}: {}", answer.reason),
    }
}

fn some_of(items: &[String]) -> String {
    let mut text = items.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if let Some(more) = items.len().checked_sub(NAMED).filter(|more| *more > 0) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// The rows of the header: a name and its text.
pub(super) fn header(preview: &Preview) -> Vec<(&'static str, String)> {
    let window = &preview.window;
    let span = duration(Duration::from_secs(window.seconds));
    let mut rows = Vec::new();
    if !preview.cluster.is_empty() {
        rows.push(("cluster", preview.cluster.clone()));
    }
    rows.push(("window", format!("{} to {} ({span})", moment(window.start), moment(window.end))));
    let gaps: Vec<String> = window
        .gaps
        .iter()
        .map(|gap| format!("{} to {} ({})", moment(gap.from), moment(gap.to), gap.reason))
        .collect();
    rows.push(("gaps", if gaps.is_empty() { "none".to_owned() } else { some_of(&gaps) }));
    rows.push(("lost", losses(Some(&window.losses))));
    if !window.unobserved.is_empty() {
        rows.push(("unobserved", some_of(&window.unobserved)));
    }
    rows.push(("base", preview.base.clone()));
    let edits: Vec<String> = preview.edits.iter().map(ToString::to_string).collect();
    rows.push(("candidate", if edits.is_empty() { "changes nothing".to_owned() } else { some_of(&edits) }));
    rows.push(("dialect", preview.dialect.clone()));
    rows.extend(preview.segments.iter().map(|map| ("segments", segment_map(map))));
    rows.extend(preview.assumed.iter().map(|text| ("assumed", text.clone())));
    if !preview.never_seen.is_empty() {
        let never = count(preview.never_seen.len() as u64, "workload");
        rows.push(("never seen", format!("{never}: {}", some_of(&preview.never_seen))));
    }
    rows.extend(preview.warnings.iter().map(|text| ("warning", text.clone())));
    rows.push(("confidence", preview.confidence.clone()));
    rows
}

/// The header as one line, then one finding a line.
pub(super) fn json_lines(preview: &Preview, headers: bool) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Line<'a> {
        change: &'a str,
        cause: Cause,
        owner: &'a str,
        #[serde(flatten)]
        finding: &'a Finding,
    }
    #[derive(Serialize)]
    struct Violation<'a> {
        change: &'a str,
        map: &'a str,
        severity: &'a str,
        from: Option<&'a str>,
        to: Option<&'a str>,
        #[serde(flatten)]
        crossing: &'a SegmentCrossing,
    }
    let mut text = String::new();
    if headers {
        let mut value = serde_json::to_value(preview)?;
        if let Some(fields) = value.as_object_mut() {
            for section in
                ["newly_denied", "newly_allowed", "unknown", "still_denied", "excepted", "segments"]
            {
                fields.remove(section);
            }
        }
        text.push_str(&serde_json::json!({ "header": value }).to_string());
        text.push('\n');
    }
    for section in sections(preview) {
        for (cause, owned, finding) in section.groups.iter().flat_map(Group::findings) {
            let line = Line { change: section.change, cause, owner: &owned.owner, finding };
            text.push_str(&serde_json::to_string(&line)?);
            text.push('\n');
        }
    }
    for section in violations(preview) {
        let pairs = section.maps.iter().flat_map(|(map, pairs)| pairs.iter().map(move |pair| (map, pair)));
        for (map, pair) in pairs {
            for crossing in &pair.crossings {
                let (change, from, to) = (section.change, pair.from.as_deref(), pair.to.as_deref());
                let line = Violation { change, map: &map.map, severity: &map.severity, from, to, crossing };
                text.push_str(&serde_json::to_string(&line)?);
                text.push('\n');
            }
        }
    }
    Ok(text)
}

/// The owners whose connections change, one a line.
pub(super) fn names(preview: &Preview) -> String {
    let groups = [&preview.newly_denied, &preview.newly_allowed].into_iter().flatten();
    let changed = preview.unknown.iter().flat_map(|group| &group.owners);
    let changed =
        changed.filter(|owned| owned.findings.iter().any(|finding| finding.before != finding.after));
    let owners: BTreeSet<&str> =
        groups.flat_map(|group| &group.owners).chain(changed).map(|owned| &*owned.owner).collect();
    owners.into_iter().map(|owner| format!("{owner}\n")).collect()
}
