//! A preview as a comment of a pull request: what changes first, everything else folded.

use std::fmt::{self, Write as _};

use super::words::{self, Section, Violations, decided};
use crate::cli::report::markdown::escaped;
use crate::finding::words::{count, moment, segments as segments_in_words, short_port};
use crate::finding::{Denial, SegmentCrossing};
use crate::preview::{Finding, Preview, Side};

/// The preview in Markdown (GitHub's).
///
/// # Errors
/// None in practice: a String takes every write.
pub(super) fn render(preview: &Preview, headers: bool) -> Result<String, fmt::Error> {
    let mut text = String::new();
    if headers {
        writeln!(text, "## dryfence preview: {}\n", words::headline(preview))?;
        writeln!(text, "> {}.\n", escaped(&sentence_case(&preview.confidence)))?;
    }
    let (quiet, loud): (Vec<_>, Vec<_>) =
        words::sections(preview).into_iter().partition(|section| section.quiet);
    loud.iter().try_for_each(|section| section_lines(&mut text, section))?;
    words::violations(preview).iter().try_for_each(|section| violation_lines(&mut text, section))?;
    quiet.iter().try_for_each(|section| section_lines(&mut text, section))?;
    if headers {
        text.push_str("<details><summary>What this rests on</summary>\n\n| | |\n|---|---|\n");
        for (name, value) in words::header(preview).iter().filter(|(name, _)| *name != "confidence") {
            writeln!(text, "| {name} | {} |", escaped(value))?;
        }
        text.push_str("\n</details>\n");
    }
    Ok(text)
}

fn sentence_case(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn section_lines(text: &mut String, section: &Section<'_>) -> fmt::Result {
    let heading = format!("{} ({})", sentence_case(section.name), words::amount_in_words(section.amount));
    if section.quiet {
        writeln!(text, "<details><summary>{heading}</summary>\n")?;
    } else {
        writeln!(text, "### {heading}\n")?;
    }
    for group in section.groups {
        for owned in &group.owners {
            writeln!(text, "**{}**, owner `{}`\n", group.title, owned.owner)?;
            for finding in &owned.findings {
                item(text, finding, section.quiet)?;
            }
            text.push('\n');
        }
    }
    if section.quiet {
        text.push_str("</details>\n\n");
    }
    Ok(())
}

fn violation_lines(text: &mut String, section: &Violations<'_>) -> fmt::Result {
    writeln!(text, "### {} ({})\n", sentence_case(section.name), words::amount_in_words(section.amount))?;
    for (map, pairs) in &section.maps {
        for pair in *pairs {
            let segments = escaped(&segments_in_words(pair));
            writeln!(text, "**{}: {segments}** ({})\n", escaped(&map.map), map.severity)?;
            for SegmentCrossing { initiator, responder, port, protocol, connections, reason, .. } in
                &pair.crossings
            {
                let (port, seen) = (short_port(*port, *protocol), count(*connections, "connection"));
                writeln!(
                    text,
                    "- `{initiator}` → `{responder}` **{port}**: {seen}; {}: {}",
                    section.why,
                    escaped(reason)
                )?;
            }
            text.push('\n');
        }
    }
    Ok(())
}

fn item(text: &mut String, finding: &Finding, quiet: bool) -> fmt::Result {
    let port = short_port(finding.port, finding.protocol);
    let (first, last) = (moment(finding.first_seen), moment(finding.last_seen));
    writeln!(
        text,
        "- `{}` → `{}` **{port}**: {}, first {first}, last {last}",
        finding.initiator,
        finding.responder,
        words::seen(finding)
    )?;
    if let Some(exception) = &finding.exception {
        writeln!(text, "  - muted by {}", escaped(&words::exception(exception)))?;
    }
    finding.sides.iter().try_for_each(|side| side_lines(text, side, quiet))
}

fn side_lines(text: &mut String, side: &Side, quiet: bool) -> fmt::Result {
    let direction = side.direction.as_str().to_lowercase();
    let (before, after) = (escaped(&decided(&side.before)), escaped(&decided(&side.after)));
    if before == after {
        writeln!(text, "  - {direction}: still {after}")?;
    } else {
        writeln!(text, "  - {direction}: {before} → **{after}**")?;
    }
    let Some(Denial { owner, nearest, fix, .. }) = side.denial.as_ref().filter(|_| !quiet) else {
        return Ok(());
    };
    if let Some(nearest) = nearest {
        writeln!(text, "    - nearest: {}", escaped(nearest))?;
    }
    let owner = owner.as_deref().map_or_else(String::new, |owner| format!("in **{owner}**, "));
    writeln!(text, "    - [ ] {owner}{}", escaped(&fix.summary))?;
    if let Some(caution) = &fix.caution {
        writeln!(text, "    - mind: {}", escaped(caution))?;
    }
    if let Some(policy) = &fix.yaml {
        text.push_str("      <details><summary>policy</summary>\n\n      ```yaml\n");
        for line in policy.lines() {
            writeln!(text, "      {line}")?;
        }
        text.push_str("      ```\n\n      </details>\n");
    }
    Ok(())
}
