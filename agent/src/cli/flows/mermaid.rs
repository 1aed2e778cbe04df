//! A map of who talks to whom, as Mermaid draws it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use super::row::Row;
use super::table::notes;
use crate::finding::words::count;
use crate::model::record::EdgeList;
use crate::model::verdict::Verdict;

/// The most arrows. Mermaid itself refuses more than 500, and nobody reads a map of more than these.
const MOST_ARROWS: usize = 80;
/// The most ports that an arrow names.
const MOST_PORTS: usize = 3;

/// Everything from one end to another.
#[derive(Debug, Default)]
struct Arrow {
    ports: BTreeSet<String>,
    connections: u64,
    /// The gravest of the scenario that colours the map.
    verdict: Option<Verdict>,
}

/// The map, coloured by the first scenario. Denied arrows come first, then unknown, then the busiest.
///
/// # Errors
/// None in practice: a String takes every write.
pub(super) fn render(rows: &[Row], list: &EdgeList) -> Result<String, fmt::Error> {
    let mut places: BTreeMap<&str, &str> = BTreeMap::new();
    let mut arrows: BTreeMap<(&str, &str), Arrow> = BTreeMap::new();
    for row in rows {
        places.insert(&row.initiator, &row.initiator_namespace);
        places.insert(&row.responder, &row.responder_namespace);
        let arrow = arrows.entry((&row.initiator, &row.responder)).or_default();
        arrow.ports.insert(row.port());
        arrow.connections = arrow.connections.saturating_add(row.connections);
        let verdict = row.answers.first().and_then(|answer| answer.verdict);
        arrow.verdict = [arrow.verdict, verdict].into_iter().max_by_key(|verdict| rank(*verdict)).flatten();
    }
    let all = arrows.len();
    let mut arrows: Vec<_> = arrows.into_iter().collect();
    arrows.sort_by_key(|((from, to), arrow)| {
        (std::cmp::Reverse((rank(arrow.verdict), arrow.connections)), *from, *to)
    });
    arrows.truncate(MOST_ARROWS);
    let left = all - arrows.len();
    arrows.sort_by_key(|(ends, _)| *ends);

    let mut text = String::from("flowchart LR\n");
    for note in notes(list, true) {
        writeln!(text, "  %% {}", note.replace(['\n', '{', '}'], " "))?;
    }
    let scenario = list.scenarios.first().map(|scenario| scenario.name.as_str());
    match scenario {
        Some(name) => writeln!(text, "  %% coloured by {name}: green allowed, red denied, yellow unknown")?,
        None => writeln!(text, "  %% not coloured: nothing was judged")?,
    }
    let numbers = nodes(&mut text, &arrows, &places)?;
    if left > 0 {
        let note = format!("{left} more of {} left out", count(all as u64, "arrow"));
        writeln!(text, "  %% {note}\n  note[/\"{note}: narrow the map with -n, --workload or --verdict\"/]")?;
    }
    for ((from, to), arrow) in &arrows {
        let (Some(from), Some(to)) = (numbers.get(from), numbers.get(to)) else { continue };
        // Nobody accepted anything on a dotted one.
        let line = if arrow.connections == 0 { "-.->" } else { "-->" };
        writeln!(text, "  n{from} {line}|\"{}\"| n{to}", quoted(&ports(&arrow.ports)))?;
    }
    for (verdict, colour) in
        [(Verdict::Allow, "#2da44e"), (Verdict::Deny, "#cf222e"), (Verdict::Unknown, "#bf8700")]
    {
        let places = arrows.iter().enumerate().filter(|(_, (_, arrow))| arrow.verdict == Some(verdict));
        let places: Vec<String> = places.map(|(at, _)| at.to_string()).collect();
        if !places.is_empty() {
            writeln!(text, "  linkStyle {} stroke:{colour},stroke-width:2px", places.join(","))?;
        }
    }
    Ok(text)
}

/// Writes the ends, by namespace, and gives their numbers.
fn nodes<'a>(
    text: &mut String,
    arrows: &[((&'a str, &'a str), Arrow)],
    places: &BTreeMap<&'a str, &'a str>,
) -> Result<BTreeMap<&'a str, usize>, fmt::Error> {
    let shown: BTreeSet<&str> = arrows.iter().flat_map(|((from, to), _)| [*from, *to]).collect();
    let mut numbers = BTreeMap::new();
    let mut by_place: BTreeMap<&str, Vec<&'a str>> = BTreeMap::new();
    for name in shown {
        numbers.insert(name, numbers.len());
        by_place.entry(places.get(name).copied().unwrap_or_default()).or_default().push(name);
    }
    for (at, (place, names)) in by_place.into_iter().enumerate() {
        let inside = !place.is_empty();
        if inside {
            writeln!(text, "  subgraph s{at}[\"{}\"]", quoted(place))?;
        }
        for name in names {
            let number = numbers.get(name).copied().unwrap_or_default();
            let label = name.strip_prefix(place).and_then(|rest| rest.strip_prefix('/')).filter(|_| inside);
            let label = quoted(label.unwrap_or(name));
            if inside {
                writeln!(text, "    n{number}[\"{label}\"]")?;
            } else {
                writeln!(text, "  n{number}([\"{label}\"])")?;
            }
        }
        if inside {
            writeln!(text, "  end")?;
        }
    }
    Ok(numbers)
}

fn ports(ports: &BTreeSet<String>) -> String {
    let mut shown: Vec<&str> = ports.iter().map(String::as_str).take(MOST_PORTS).collect();
    let more = format!("+{}", ports.len().saturating_sub(MOST_PORTS));
    if ports.len() > MOST_PORTS {
        shown.push(&more);
    }
    shown.join(", ")
}

const fn rank(verdict: Option<Verdict>) -> u8 {
    match verdict {
        None => 0,
        Some(Verdict::Allow) => 1,
        Some(Verdict::Unknown) => 2,
        Some(Verdict::Deny) => 3,
    }
}

/// Without what would end a quoted label.
fn quoted(text: &str) -> String {
    text.replace('"', "#quot;").replace('<', "#lt;").replace('>', "#gt;")
}
