//! A report for an issue or a merge request.

use std::fmt::{self, Write as _};

use super::build::{Finding, Report, ScenarioFindings};
use super::excepted::Excepted;
use super::words;
use crate::finding::words::{
    count, edge as edge_in_words, moment, segments as segments_in_words, short_port,
};
use crate::finding::{Denial, SegmentFindings};

/// The report in Markdown (GitHub's), with the policies to paste where `yaml` is set.
///
/// # Errors
/// None in practice: a String takes every write.
pub fn render(report: &Report, yaml: bool, headers: bool) -> Result<String, fmt::Error> {
    let mut text = String::new();
    if headers {
        text.push_str("# What network policy would break\n\n| | |\n|---|---|\n");
        for (name, value) in words::header(report) {
            writeln!(text, "| {name} | {} |", escaped(&value))?;
        }
    }
    for scenario in &report.scenarios {
        section(&mut text, scenario, yaml)?;
    }
    segments_section(&mut text, &report.segments)?;
    excepted_section(&mut text, &report.excepted)?;
    if !report.unknown.is_empty() {
        text.push_str("\n## Unknown\n\n");
    }
    for group in &report.unknown {
        let (connections, reason) = (count(group.connections, "connection"), escaped(&group.reason));
        writeln!(text, "- **{}**, {connections}: {reason}", group.code)?;
        for edge in &group.edges {
            writeln!(text, "  - `{edge}`")?;
        }
    }
    if !report.failing.is_empty() {
        text.push_str("\n## Already failing\n\n");
    }
    for link in &report.failing {
        let edge = edge_in_words(&link.initiator, &link.responder, link.port, link.protocol);
        write!(text, "- `{edge}`: {}, {} refused", count(link.attempts, "attempt"), link.refused)?;
        if !link.denied_by.is_empty() {
            write!(text, ", likely blocked by `{}`", link.denied_by.join("`, `"))?;
        }
        text.push('\n');
    }
    if headers {
        writeln!(text, "\n**Next:** {}", report.next)?;
    }
    Ok(text)
}

fn segments_section(text: &mut String, segments: &SegmentFindings) -> fmt::Result {
    if segments.maps.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n## Segment violations: {}", words::segments_headline(segments))?;
    for map in &segments.maps {
        let state = if map.in_force { map.severity.as_str() } else { "not in force" };
        writeln!(text, "\n### {} ({state})\n", escaped(&map.map))?;
        if let Some(what) = words::map_quiet(map) {
            writeln!(text, "- {what}")?;
        }
        for reason in map.reasons.iter().chain(&map.notes) {
            writeln!(text, "- {}", escaped(reason))?;
        }
        for pair in &map.pairs {
            let connections = count(pair.connections, "connection");
            writeln!(text, "- **{}**: {connections}", escaped(&segments_in_words(pair)))?;
            for crossing in &pair.crossings {
                let (initiator, responder) = (&crossing.initiator, &crossing.responder);
                let port = short_port(crossing.port, crossing.protocol);
                let connections = count(crossing.connections, "connection");
                let (first, last) = (moment(crossing.first_seen), moment(crossing.last_seen));
                writeln!(
                    text,
                    "  - [ ] `{initiator}` → `{responder}` **{port}**: {connections}, first {first}, last {last}"
                )?;
                let (why, policy) = (escaped(&crossing.reason), words::beside_policy(crossing));
                writeln!(text, "    - {why}; {policy}")?;
            }
        }
        for unknown in words::map_unknown(map) {
            writeln!(text, "- unknown: {}", escaped(&unknown))?;
        }
    }
    Ok(())
}

fn excepted_section(text: &mut String, excepted: &Excepted) -> fmt::Result {
    let line = words::excepted(excepted);
    if line.is_none() && excepted.findings.is_empty() {
        return Ok(());
    }
    text.push_str("\n## Exceptions\n\n");
    if let Some(line) = line {
        writeln!(text, "- {}", escaped(&line))?;
    }
    for found in &excepted.findings {
        writeln!(text, "- **{}**: {}", found.exception, escaped(&found.finding))?;
    }
    Ok(())
}

fn section(text: &mut String, scenario: &ScenarioFindings, yaml: bool) -> fmt::Result {
    writeln!(text, "\n## {}: {}", scenario.name, words::headline(scenario))?;
    for group in &scenario.groups {
        writeln!(text, "\n### {}\n", group.title)?;
        for finding in &group.findings {
            item(text, finding, yaml)?;
        }
    }
    Ok(())
}

fn item(text: &mut String, finding: &Finding, yaml: bool) -> fmt::Result {
    let (initiator, responder) = (&finding.initiator, &finding.responder);
    let port = short_port(finding.port, finding.protocol);
    let connections = count(finding.connections, "connection");
    let (first, last) = (moment(finding.first_seen), moment(finding.last_seen));
    let before = if finding.broken_before { ", broken already, needs this too" } else { "" };
    writeln!(
        text,
        "- `{initiator}` → `{responder}` **{port}**: {connections}, first {first}, last {last}{before}"
    )?;
    for denial in &finding.denials {
        denial_lines(text, denial, yaml)?;
    }
    Ok(())
}

fn denial_lines(text: &mut String, denial: &Denial, yaml: bool) -> fmt::Result {
    let owner = denial.owner.as_deref().unwrap_or("nobody's namespace");
    let direction = denial.direction.as_str().to_lowercase();
    let by = if denial.policies.is_empty() {
        escaped(&denial.reason)
    } else {
        format!("`{}`", denial.policies.join("`, `"))
    };
    writeln!(text, "  - [ ] {direction} denied in **{owner}** by {by}")?;
    if let Some(nearest) = &denial.nearest {
        writeln!(text, "    - nearest: {}", escaped(nearest))?;
    }
    writeln!(text, "    - fix: {}", escaped(&denial.fix.summary))?;
    if let Some(caution) = &denial.fix.caution {
        writeln!(text, "    - mind: {}", escaped(caution))?;
    }
    if let Some(policy) = denial.fix.yaml.as_ref().filter(|_| yaml) {
        text.push_str("\n      ```yaml\n");
        for line in policy.lines() {
            writeln!(text, "      {line}")?;
        }
        text.push_str("      ```\n\n");
    }
    Ok(())
}

/// Without what Markdown would read as its own.
pub(in crate::cli) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if "\\`*_[]<>|".contains(c) {
            escaped.push('\\');
        }
        escaped.push(if c == '\n' { ' ' } else { c });
    }
    escaped
}
