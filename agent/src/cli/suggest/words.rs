//! The sentences around suggestions. None of them says "safe".

use super::{Answer, Check};
use crate::finding::words::{count, duration, losses, moment};
use crate::history::file::Header;
use crate::suggest::WarningKind;

/// The lines at the head of the policies.
pub(super) fn preamble(answer: &Answer) -> Vec<String> {
    let window = &answer.window;
    let span = duration(window.end.since(window.start));
    let mut lines = Vec::new();
    if !window.cluster.is_empty() {
        lines.push(format!("cluster: {}", window.cluster));
    }
    lines.push(format!("window: {} to {} ({span})", moment(window.start), moment(window.end)));
    for gap in &window.gaps {
        lines.push(format!("gap: {} to {}: {}", moment(gap.from), moment(gap.to), gap.reason));
    }
    lines.push(format!("lost: {}", losses(Some(&window.losses))));
    if !window.unobserved.is_empty() {
        lines.push(format!("unobserved: {}", window.unobserved.join(", ")));
    }
    lines.push(format!("dialect: {}", answer.dialect));
    lines.push(format!("checked: {}", checked(&answer.check)));
    lines.push(format!("confidence: {}", answer.confidence));
    lines.extend(withheld(answer));
    lines.extend(window.warnings.iter().map(|text| format!("warning: {text}")));
    lines
}

/// What the user has to know besides the policies.
pub(super) fn notes(answer: &Answer) -> Vec<String> {
    let mut lines = Vec::new();
    if answer.suggestions.policies.is_empty() {
        lines.push("nothing that a policy could allow was recorded: there is nothing to suggest".to_owned());
    }
    lines.extend(withheld(answer));
    let cut: Vec<_> =
        answer.suggestions.warnings.iter().filter(|warning| warning.kind == WarningKind::CutOff).collect();
    lines.extend(cut.into_iter().map(|warning| format!("warning: {warning}")));
    lines.push(format!("checked: {}", checked(&answer.check)));
    lines.push(format!("confidence: {}", answer.confidence));
    lines
}

/// Where a default-deny was left out.
fn withheld(answer: &Answer) -> Vec<String> {
    let left_out = |kind| answer.suggestions.warnings.iter().filter(move |warning| warning.kind == kind);
    let line = |warning: &crate::suggest::Warning| {
        let direction = warning.direction.map_or("either direction", |d| d.as_str());
        format!(
            "NOT CLOSED: no default-deny for {} in {}, it would break what {} did; whatever no policy selects there stays \
             open",
            direction.to_lowercase(),
            warning.subject,
            if warning.items.is_empty() { "its pods".to_owned() } else { warning.items.join(", ") },
        )
    };
    left_out(WarningKind::DefaultDenyLeftOut).map(line).collect()
}

fn checked(check: &Check) -> String {
    let mut text =
        format!("of {}, these policies deny {}", count(check.accepted_edges, "accepted edge"), check.denied);
    if check.denied_before > 0 {
        text.push_str(&format!(" ({} of them denied by the policies in force already)", check.denied_before));
    }
    if check.unknown > 0 {
        text.push_str(&format!("; {} cannot be judged", check.unknown));
    }
    text
}

/// How far the policies can be relied on, in one sentence.
pub(super) fn confidence(window: &Header, check: &Check) -> String {
    if check.accepted_edges == 0 {
        return "nothing accepted was recorded, so this says nothing about the cluster".to_owned();
    }
    let mut sentence = format!(
        "what did not happen in these {} (nightly jobs, failovers, idle workloads) has no rule and will be denied",
        duration(window.end.since(window.start))
    );
    if !window.gaps.is_empty() {
        sentence.push_str("; not everything was watched all the time, so rules may be missing");
    }
    if window.losses.iter().any(|loss| loss.packets > 0 || loss.edges > 0) {
        sentence.push_str("; something was lost, so rules may be missing");
    }
    if !window.unobserved.is_empty() {
        let pods = count(window.unobserved.len() as u64, "pod");
        sentence.push_str(&format!("; {pods} could not be observed at all"));
    }
    sentence
}

/// `1 file`, `12 files`.
pub(super) fn files(number: usize) -> String {
    count(number as u64, "file")
}
