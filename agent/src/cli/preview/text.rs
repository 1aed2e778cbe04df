//! A preview for a terminal.

use std::collections::BTreeSet;

use anstyle::{AnsiColor, Style};

use super::words::{self, Section, Violations, decided};
use crate::cli::layout::{NO_BREAK, Page, Span, span, width_of};
use crate::finding::words::{count, moment, moment_on, segments as segments_in_words, short_port};
use crate::finding::{Denial, End, SegmentCrossing};
use crate::model::edge::{Direction, Protocol};
use crate::model::time::Timestamp;
use crate::model::verdict::Verdict;
use crate::preview::{Finding, Preview, Side};

/// How a preview is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// Columns.
    pub(super) width: usize,
    /// With dates, addresses, every reason, and the policies to paste.
    pub(super) wide: bool,
    /// With the header.
    pub(super) headers: bool,
}

const PLAIN: Style = Style::new();
const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const DENIED: Style = AnsiColor::Red.on_default();
const ALLOWED: Style = AnsiColor::Green.on_default();
const UNKNOWN: Style = AnsiColor::Yellow.on_default();
const PLACE: Style = AnsiColor::Cyan.on_default();

/// Where the lines of a finding begin, and its texts.
const INDENT: usize = 4;
const TEXT: usize = 13;
/// How many findings of what stays as it was are shown unless asked for all.
const QUIET: usize = 5;

/// The preview, coloured; strip it where that is not wanted.
pub(super) fn render(preview: &Preview, look: Look) -> String {
    let mut page = Page::new(look.width);
    if look.headers {
        page.paragraph(0, 0, &[span(BOLD, "What the candidate would change")]);
        page.blank();
        for (name, text) in words::header(preview) {
            let style = if name == "warning" { UNKNOWN } else { PLAIN };
            page.paragraph(2, TEXT, &[span(DIM, format!("{name:<11}")), span(style, text)]);
        }
        page.blank();
        page.paragraph(0, 2, &[span(BOLD, words::headline(preview))]);
    }
    let (quiet, loud): (Vec<_>, Vec<_>) =
        words::sections(preview).into_iter().partition(|section| section.quiet);
    let day = preview.window.start;
    loud.iter().for_each(|section| section_lines(&mut page, section, day, look));
    words::violations(preview).iter().for_each(|section| violation_lines(&mut page, section, day, look));
    quiet.iter().for_each(|section| section_lines(&mut page, section, day, look));
    if look.wide {
        policies(&mut page, preview);
    }
    page.into_text()
}

fn section_lines(page: &mut Page, section: &Section<'_>, day: Timestamp, look: Look) {
    page.blank();
    let name = section.name.to_uppercase();
    page.paragraph(
        0,
        2,
        &[span(BOLD, name), span(PLAIN, "  "), span(PLAIN, words::amount_in_words(section.amount))],
    );
    let most = if section.quiet && !look.wide { QUIET } else { usize::MAX };
    let mut shown = 0;
    for group in section.groups {
        if shown >= most {
            break;
        }
        page.blank();
        page.paragraph(2, 4, &[span(BOLD, group.title)]);
        for owned in &group.owners {
            if shown < most {
                page.paragraph(2, 4, &[span(DIM, "owner "), span(DIM, owned.owner.as_str())]);
            }
            for finding in owned.findings.iter().take(most - shown) {
                finding_lines(page, finding, day, look);
                shown += 1;
            }
        }
    }
    let all = section.findings().count();
    if all > shown {
        let more = format!("and {} more, as before: -o wide shows them", all - shown);
        page.paragraph(2, INDENT, &[span(DIM, more)]);
    }
}

fn violation_lines(page: &mut Page, section: &Violations<'_>, day: Timestamp, look: Look) {
    page.blank();
    let amount = words::amount_in_words(section.amount);
    let name = section.name.to_uppercase();
    page.paragraph(0, 2, &[span(BOLD, name), span(PLAIN, "  "), span(PLAIN, amount)]);
    let show = |time| if look.wide { moment(time) } else { moment_on(time, day) };
    for (map, pairs) in &section.maps {
        for pair in *pairs {
            page.blank();
            let severity = format!("  ({})", map.severity);
            let name = format!("{}: {}", map.map, segments_in_words(pair));
            page.paragraph(2, 4, &[span(BOLD, name), span(DIM, severity)]);
            for crossing in &pair.crossings {
                let SegmentCrossing { initiator, responder, port, protocol, .. } = crossing;
                let seen = count(crossing.connections, "connection");
                let moments = [crossing.first_seen, crossing.last_seen].map(show);
                head_lines(page, head(initiator, responder, *port, *protocol), seen, moments);
                page.paragraph(
                    INDENT,
                    TEXT,
                    &[span(DENIED, format!("{:<9}", section.why)), span(PLAIN, &crossing.reason)],
                );
            }
        }
    }
}

/// Text that stays on one line.
fn unbroken(text: &str) -> String {
    text.replace(' ', &NO_BREAK.to_string())
}

fn finding_lines(page: &mut Page, finding: &Finding, day: Timestamp, look: Look) {
    let show = |time| if look.wide { moment(time) } else { moment_on(time, day) };
    let head = head(&finding.initiator, &finding.responder, finding.port, finding.protocol);
    head_lines(page, head, words::seen(finding), [finding.first_seen, finding.last_seen].map(show));
    if look.wide {
        let seen = format!("{} → {}", addresses(&finding.initiator), addresses(&finding.responder));
        page.paragraph(INDENT, TEXT, &[span(DIM, "seen     "), span(DIM, seen)]);
    }
    if let Some(exception) = &finding.exception {
        page.paragraph(INDENT, TEXT, &[span(DIM, "muted    "), span(PLAIN, words::exception(exception))]);
    }
    for side in &finding.sides {
        side_lines(page, side, look);
    }
}

fn head(initiator: &End, responder: &End, port: u16, protocol: Protocol) -> Vec<Span> {
    vec![
        span(PLACE, initiator.to_string()),
        span(PLAIN, " → "),
        span(PLACE, responder.to_string()),
        span(PLAIN, "  "),
        span(BOLD, unbroken(&short_port(port, protocol))),
    ]
}

/// A connection with what was seen of it: on one line, where there is room.
fn head_lines(page: &mut Page, head: Vec<Span>, seen: String, [first, last]: [String; 2]) {
    let tail: Vec<Span> = vec![span(BOLD, seen), span(DIM, format!(", first {first}, last {last}"))];
    if 2 + width_of(&head) + 3 + width_of(&tail) <= page.width() {
        let line: Vec<Span> = head.into_iter().chain([span(PLAIN, "   ")]).chain(tail).collect();
        page.paragraph(2, INDENT, &line);
    } else {
        page.paragraph(2, INDENT, &head);
        page.paragraph(INDENT, INDENT, &tail);
    }
}

fn addresses(end: &End) -> String {
    end.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

const fn style(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Allow => ALLOWED,
        Verdict::Deny => DENIED,
        Verdict::Unknown => UNKNOWN,
    }
}

fn side_lines(page: &mut Page, side: &Side, look: Look) {
    let direction = match side.direction {
        Direction::Egress => "egress   ",
        Direction::Ingress => "ingress  ",
    };
    let mut line = vec![span(PLAIN, direction)];
    if side.before.verdict == side.after.verdict && decided(&side.before) == decided(&side.after) {
        line.push(span(PLAIN, "still "));
    } else {
        line.push(span(style(side.before.verdict), decided(&side.before)));
        line.push(span(PLAIN, " → "));
    }
    line.push(span(style(side.after.verdict), decided(&side.after)));
    page.paragraph(INDENT, TEXT, &line);
    let Some(Denial { owner, nearest, fix, .. }) = &side.denial else { return };
    let mut detail = |name: &str, style, text: &str| {
        page.paragraph(INDENT + 2, TEXT, &[span(style, format!("{name:<7}")), span(style, text)]);
    };
    if let Some(nearest) = nearest {
        detail("near", DIM, nearest);
    }
    if look.wide {
        detail("why", DIM, &side.after.reason);
    }
    let owner = owner.as_deref().map_or_else(String::new, |owner| format!("in {owner}: "));
    detail("fix", ALLOWED, &format!("{owner}{}", fix.summary));
    if let Some(caution) = &fix.caution {
        detail("mind", UNKNOWN, caution);
    }
}

/// The policies that would allow what is newly denied, each once.
fn policies(page: &mut Page, preview: &Preview) {
    let mut printed = BTreeSet::new();
    let findings = preview.newly_denied.iter().flat_map(crate::preview::Group::findings);
    let denials = findings.flat_map(|(_, _, finding)| &finding.sides).filter_map(|side| side.denial.as_ref());
    let fixes: Vec<&str> = denials
        .filter_map(|denial| denial.fix.yaml.as_deref())
        .filter(|yaml| printed.insert(*yaml))
        .collect();
    if fixes.is_empty() {
        return;
    }
    page.blank();
    let title = "Policies that allow what is newly denied, each into its owner's repository";
    page.paragraph(0, 0, &[span(BOLD, title)]);
    page.blank();
    page.verbatim(0, PLAIN, &fixes.join("---\n"));
}
