//! A report for a terminal.

use anstyle::{AnsiColor, Style};

use super::build::{Failing, Finding, Report, ScenarioFindings, UnknownGroup};
use super::excepted::Excepted;
use super::words;
use crate::cli::layout::{NO_BREAK, Page, Span, span, width_of};
use crate::finding::words::{count, moment, moment_on, segments as segments_in_words, short_port};
use crate::finding::{Denial, End, MapFindings, SegmentCrossing, SegmentFindings};
use crate::model::edge::{Direction, Protocol};
use crate::model::time::Timestamp;

/// How a report is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Columns.
    pub width: usize,
    /// With dates, addresses and every reason.
    pub wide: bool,
    /// With the policies to paste.
    pub yaml: bool,
    /// With the header and the closing line.
    pub headers: bool,
}

const PLAIN: Style = Style::new();
const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const DENIED: Style = AnsiColor::Red.on_default();
const FIX: Style = AnsiColor::Green.on_default();
const UNKNOWN: Style = AnsiColor::Yellow.on_default();
const PLACE: Style = AnsiColor::Cyan.on_default();

/// Where the texts of a finding begin.
const INDENT: usize = 4;
const TEXT: usize = 13;
/// How many edges an unknown reason lists unless asked for all.
const EXAMPLES: usize = 3;

/// The report, coloured; strip it where that is not wanted.
pub fn render(report: &Report, look: Look) -> String {
    let mut page = Page::new(look.width);
    if look.headers {
        header(&mut page, report);
    }
    for scenario in &report.scenarios {
        scenario_section(&mut page, scenario, report.window.start, look);
    }
    segments_section(&mut page, &report.segments, report.window.start, look);
    excepted_section(&mut page, &report.excepted);
    unknown_section(&mut page, &report.unknown, look);
    failing_section(&mut page, &report.failing, report.window.start, look);
    let yaml = if look.yaml { report.yaml() } else { String::new() };
    if !yaml.is_empty() {
        page.blank();
        page.paragraph(0, 0, &[span(BOLD, "Policies to paste, each into its owner's repository")]);
        page.blank();
        page.verbatim(0, PLAIN, &yaml);
    }
    if look.headers {
        page.blank();
        page.paragraph(0, 6, &[span(BOLD, "Next: "), span(PLAIN, report.next.as_str())]);
    }
    page.into_text()
}

fn header(page: &mut Page, report: &Report) {
    page.paragraph(0, 0, &[span(BOLD, "What network policy would break")]);
    page.blank();
    for (name, text) in words::header(report) {
        let style = if name == "warning" { UNKNOWN } else { PLAIN };
        page.paragraph(2, TEXT, &[span(DIM, format!("{name:<11}")), span(style, text)]);
    }
}

fn scenario_section(page: &mut Page, scenario: &ScenarioFindings, day: Timestamp, look: Look) {
    page.blank();
    let name = scenario.name.to_uppercase();
    page.paragraph(0, 2, &[span(BOLD, name), span(PLAIN, "  "), span(PLAIN, words::headline(scenario))]);
    for group in &scenario.groups {
        page.blank();
        page.paragraph(0, 2, &[span(BOLD, group.title)]);
        let rows: Vec<_> =
            group.findings.iter().map(|finding| (head(finding), tail(finding, day, look))).collect();
        let column = rows.iter().map(|(head, _)| width_of(head)).max().unwrap_or_default();
        let one_line = rows.iter().all(|(_, tail)| 2 + column + 3 + width_of(tail) <= page.width());
        for (at, (finding, (mut head, tail))) in group.findings.iter().zip(rows).enumerate() {
            if at > 0 {
                page.blank();
            }
            if one_line {
                head.push(span(PLAIN, " ".repeat(column - width_of(&head) + 3)));
                head.extend(tail);
                page.paragraph(2, INDENT, &head);
            } else {
                page.paragraph(2, INDENT, &head);
                page.paragraph(INDENT, INDENT, &tail);
            }
            if look.wide {
                addresses(page, INDENT, &finding.initiator, &finding.responder);
            }
            for denial in &finding.denials {
                denial_lines(page, denial, look);
            }
        }
    }
}

/// Text that stays on one line.
fn unbroken(text: &str) -> String {
    text.replace(' ', &NO_BREAK.to_string())
}

fn head(finding: &Finding) -> Vec<Span> {
    connection(&finding.initiator, &finding.responder, finding.port, finding.protocol)
}

fn connection(initiator: &End, responder: &End, port: u16, protocol: Protocol) -> Vec<Span> {
    vec![
        span(PLACE, initiator.to_string()),
        span(PLAIN, " → "),
        span(PLACE, responder.to_string()),
        span(PLAIN, "  "),
        span(BOLD, unbroken(&short_port(port, protocol))),
    ]
}

fn tail(finding: &Finding, day: Timestamp, look: Look) -> Vec<Span> {
    let show = |time| if look.wide { moment(time) } else { moment_on(time, day) };
    let mut tail = vec![
        span(BOLD, count(finding.connections, "connection")),
        span(DIM, format!(", first {}, last {}", show(finding.first_seen), show(finding.last_seen))),
    ];
    if finding.broken_before {
        tail.push(span(DIM, ", broken already, needs this too"));
    }
    tail
}

fn addresses(page: &mut Page, indent: usize, initiator: &End, responder: &End) {
    let list = |end: &End| end.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let text = format!("{} → {}", list(initiator), list(responder));
    page.paragraph(indent, indent + TEXT - INDENT, &[span(DIM, "seen     "), span(DIM, text)]);
}

fn denial_lines(page: &mut Page, denial: &Denial, look: Look) {
    let direction = match denial.direction {
        Direction::Egress => "egress   ",
        Direction::Ingress => "ingress  ",
    };
    let owner = denial.owner.as_deref().unwrap_or("nobody's namespace");
    let mut line = vec![
        span(PLAIN, direction),
        span(DENIED, "denied"),
        span(PLAIN, " in "),
        span(BOLD, owner),
        span(PLAIN, " by "),
    ];
    let by = if denial.policies.is_empty() { denial.reason.clone() } else { policy_names(denial) };
    line.push(span(PLAIN, by));
    page.paragraph(INDENT, TEXT, &line);
    let mut detail = |name: &str, style, text: &str| {
        page.paragraph(INDENT + 2, TEXT, &[span(style, format!("{name:<7}")), span(style, text)]);
    };
    if let Some(nearest) = &denial.nearest {
        detail("near", DIM, nearest);
    } else if look.wide && !denial.policies.is_empty() {
        detail("why", DIM, &denial.reason);
    }
    detail("fix", FIX, &denial.fix.summary);
    if let Some(caution) = &denial.fix.caution {
        detail("mind", UNKNOWN, caution);
    }
}

/// The policies by name: kind and namespace once, where all are of the namespace that was just named.
fn policy_names(denial: &Denial) -> String {
    let parts = |policy: &str| -> Option<(String, String)> {
        let (kind, rest) = policy.split_once('/')?;
        let (namespace, name) = rest.split_once('/')?;
        (denial.owner.as_deref() == Some(namespace)).then(|| (kind.to_owned(), name.to_owned()))
    };
    let mut text = String::new();
    let mut before = None;
    for policy in &denial.policies {
        let comma = if text.is_empty() { "" } else { ", " };
        let (kind, shown) = match parts(policy) {
            // The scenario's own policy, which nobody wrote: its name would say the same twice.
            Some((kind, name)) if kind == "DefaultDeny" => (Some(kind), format!("{name} itself")),
            Some((kind, name)) if before.as_ref() == Some(&kind) => (Some(kind), name),
            Some((kind, name)) => (Some(kind.clone()), format!("{kind} {name}")),
            None => (None, policy.clone()),
        };
        text = format!("{text}{comma}{shown}");
        before = kind;
    }
    text
}

fn segments_section(page: &mut Page, segments: &SegmentFindings, day: Timestamp, look: Look) {
    if segments.maps.is_empty() {
        return;
    }
    page.blank();
    let headline = words::segments_headline(segments);
    page.paragraph(0, 2, &[span(BOLD, "SEGMENT VIOLATIONS"), span(PLAIN, "  "), span(PLAIN, headline)]);
    for map in &segments.maps {
        map_lines(page, map, day, look);
    }
}

fn map_lines(page: &mut Page, map: &MapFindings, day: Timestamp, look: Look) {
    page.blank();
    let name = span(BOLD, map.map.as_str());
    if map.in_force {
        let severity = span(DIM, format!("  ({})", map.severity));
        let what = words::map_quiet(map).map(|what| span(PLAIN, format!("  {what}")));
        page.paragraph(0, 2, &[name, severity].into_iter().chain(what).collect::<Vec<_>>());
    } else {
        page.paragraph(0, 2, &[name, span(UNKNOWN, "  not in force: nothing was judged by it")]);
    }
    for reason in &map.reasons {
        page.paragraph(2, INDENT, &[span(UNKNOWN, reason.as_str())]);
    }
    for note in &map.notes {
        page.paragraph(2, INDENT, &[span(DIM, "note: "), span(PLAIN, note.as_str())]);
    }
    for pair in &map.pairs {
        let connections = format!("  {}", count(pair.connections, "connection"));
        page.paragraph(2, INDENT, &[span(BOLD, segments_in_words(pair)), span(PLAIN, connections)]);
        for crossing in &pair.crossings {
            crossing_lines(page, crossing, day, look);
        }
    }
    for unknown in words::map_unknown(map) {
        page.paragraph(2, INDENT, &[span(UNKNOWN, "unknown"), span(PLAIN, format!("  {unknown}"))]);
    }
}

fn crossing_lines(page: &mut Page, crossing: &SegmentCrossing, day: Timestamp, look: Look) {
    let show = |time| if look.wide { moment(time) } else { moment_on(time, day) };
    let SegmentCrossing { initiator, responder, port, protocol, .. } = crossing;
    let mut line = connection(initiator, responder, *port, *protocol);
    line.extend([
        span(PLAIN, "   "),
        span(BOLD, unbroken(&count(crossing.connections, "connection"))),
        span(DIM, format!(", first {}, last {}", show(crossing.first_seen), show(crossing.last_seen))),
    ]);
    page.paragraph(INDENT, INDENT + 2, &line);
    if look.wide {
        addresses(page, INDENT + 2, initiator, responder);
    }
    let mut detail = |name: &str, style, text: &str| {
        page.paragraph(INDENT + 2, TEXT + 2, &[span(style, format!("{name:<9}")), span(style, text)]);
    };
    detail("why", DENIED, &crossing.reason);
    detail("policy", DIM, words::beside_policy(crossing));
}

fn excepted_section(page: &mut Page, excepted: &Excepted) {
    let line = words::excepted(excepted);
    if line.is_none() && excepted.findings.is_empty() {
        return;
    }
    page.blank();
    page.paragraph(0, 2, &[span(BOLD, "EXCEPTIONS"), span(PLAIN, "  known, counted, in no number above")]);
    if let Some(line) = line {
        page.paragraph(2, INDENT, &[span(PLAIN, line)]);
    }
    for found in &excepted.findings {
        let line = [span(UNKNOWN, found.exception.as_str()), span(PLAIN, format!("  {}", found.finding))];
        page.paragraph(2, INDENT, &line);
    }
}

fn unknown_section(page: &mut Page, unknown: &[UnknownGroup], look: Look) {
    if unknown.is_empty() {
        return;
    }
    page.blank();
    page.paragraph(0, 2, &[span(BOLD, "UNKNOWN"), span(PLAIN, "  cannot be judged, by reason")]);
    for group in unknown {
        let line = [
            span(UNKNOWN, group.code.as_str()),
            span(PLAIN, format!("  {}: {}", count(group.connections, "connection"), group.reason)),
        ];
        page.paragraph(2, INDENT, &line);
        let shown = if look.wide { group.edges.len() } else { EXAMPLES };
        for edge in group.edges.iter().take(shown) {
            page.paragraph(INDENT, INDENT + 2, &[span(DIM, edge.as_str())]);
        }
        if let Some(more) = group.edges.len().checked_sub(shown).filter(|more| *more > 0) {
            page.paragraph(INDENT, INDENT, &[span(DIM, format!("and {more} more"))]);
        }
    }
}

fn failing_section(page: &mut Page, failing: &[Failing], day: Timestamp, look: Look) {
    if failing.is_empty() {
        return;
    }
    page.blank();
    let what = "  attempts that nobody accepted; they are in no number above";
    page.paragraph(0, 2, &[span(BOLD, "ALREADY FAILING"), span(PLAIN, what)]);
    for link in failing {
        let last = if look.wide { moment(link.last_seen) } else { moment_on(link.last_seen, day) };
        let mut line = vec![
            span(PLACE, link.initiator.to_string()),
            span(PLAIN, " → "),
            span(PLACE, link.responder.to_string()),
            span(PLAIN, "  "),
            span(BOLD, unbroken(&short_port(link.port, link.protocol))),
            span(PLAIN, format!("   {}", count(link.attempts, "attempt"))),
        ];
        let refused = if link.refused > 0 { format!(", {} refused", link.refused) } else { String::new() };
        line.push(span(DIM, format!("{refused}, last {last}")));
        page.paragraph(2, INDENT, &line);
        if !link.denied_by.is_empty() {
            let text = format!("likely blocked by {}", link.denied_by.join(", "));
            page.paragraph(INDENT, INDENT + 2, &[span(DENIED, text)]);
        }
    }
}
