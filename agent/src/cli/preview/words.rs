//! The sentences of a preview. None of them says "safe".

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use crate::finding::words::{count, duration, losses, moment};
use crate::model::cause::Cause;
use crate::model::record::DecisionRecord;
use crate::model::verdict::Verdict;
use crate::preview::{Amount, Finding, Group, Preview};

/// How many workloads, edits or gaps a header names before "and N more".
const NAMED: usize = 8;

/// What changes, in one line.
pub(super) fn headline(preview: &Preview) -> String {
    let counts = &preview.counts;
    let number = |amount: Amount, what: &str| format!("{} {what}", amount.findings);
    format!(
        "{}, {}, {}, {}, {}",
        number(counts.newly_denied, "newly denied"),
        number(counts.newly_allowed, "newly allowed"),
        number(counts.unknown, "unknown"),
        number(counts.still_denied, "still denied"),
        number(counts.unchanged, "allowed as before"),
    )
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
    ];
    all.into_iter().filter(|section| !section.groups.is_empty()).collect()
}

impl Section<'_> {
    pub(super) fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.groups.iter().flat_map(Group::findings).map(|(_, _, finding)| finding)
    }

    /// `12 connections: 2 findings`
    pub(super) fn amount_in_words(&self) -> String {
        let findings = count(self.amount.findings, "finding");
        format!("{}: {findings}", count(self.amount.connections, "connection"))
    }
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
    let mut text = String::new();
    if headers {
        let mut value = serde_json::to_value(preview)?;
        if let Some(fields) = value.as_object_mut() {
            for section in ["newly_denied", "newly_allowed", "unknown", "still_denied"] {
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
