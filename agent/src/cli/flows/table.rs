//! Flows as columns.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr;

use super::row::{Row, brief};
use crate::cli::report::markdown::escaped;
use crate::finding::words::{count, duration, losses, moment};
use crate::model::edge::IcmpErrors;
use crate::model::record::EdgeList;
use crate::model::time::Timestamp;
use crate::model::verdict::Verdict;

/// Between columns, as kubectl has it, and where there is little room.
const GAP: usize = 3;
const SMALL_GAP: usize = 2;
/// The least columns that an end's name is shortened to.
const SHORTEST: usize = 12;

/// The first columns: initiator and responder.
const ENDS: usize = 2;
/// The least columns that the title of a scenario is shortened to, where its verdicts need no more.
const TITLE: usize = 8;

/// A cell and the verdict that colours it.
type Cell = (String, Option<Verdict>);

/// Which columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// Columns of the terminal; `None`: nothing is shortened, as in a file or `-o wide`.
    pub(super) width: Option<usize>,
    pub(super) wide: bool,
    pub(super) headers: bool,
}

/// What the columns are called, and in which order they are given up where there is no room: highest first, 0 never.
fn columns(list: &EdgeList, wide: bool) -> Vec<(String, u8)> {
    let mut columns = vec![("INITIATOR", 0), ("RESPONDER", 0), ("PORT", 0), ("CONN", 0), ("FAILED", 1)];
    if wide {
        columns.extend([
            ("DIRECTION", 0),
            ("KNOWN-BY", 0),
            ("BYTES", 0),
            ("ICMP-ERRORS", 0),
            ("FIRST", 0),
            ("LAST", 0),
        ]);
    } else {
        columns.push(("LAST", 2));
    }
    columns.push(("CAUSE", 3));
    let mut columns: Vec<(String, u8)> =
        columns.into_iter().map(|(name, order)| (name.to_owned(), order)).collect();
    columns.extend(list.scenarios.iter().map(|scenario| (scenario.name.to_uppercase(), 0)));
    if !list.segment_maps.is_empty() {
        columns.push(("VIOLATES".to_owned(), 0));
    }
    if wide && !list.scenarios.is_empty() {
        columns.push(("REASON".to_owned(), 0));
    }
    columns
}

fn cells(row: &Row, list: &EdgeList, wide: bool) -> Vec<Cell> {
    let mut cells = vec![
        row.initiator.clone(),
        row.responder.clone(),
        row.port(),
        row.connections.to_string(),
        row.failed.to_string(),
    ];
    if wide {
        let direction = row.direction.map_or("", |direction| direction.as_str());
        let known_by = row.oriented_by.map_or("", |by| by.as_str());
        let bytes = if row.estimated { format!("~{}", row.bytes) } else { row.bytes.to_string() };
        cells.extend([
            direction.to_owned(),
            known_by.to_owned(),
            bytes,
            errors(row.icmp_errors),
            row.first_moment(),
            moment(row.last),
        ]);
    } else {
        cells.push(age(row.last, list.window.end));
    }
    cells.push(row.cause.to_string());
    let mut cells: Vec<Cell> = cells.into_iter().map(|text| (text, None)).collect();
    cells.extend(row.answers.iter().map(|answer| (answer.in_words(), answer.verdict)));
    if !list.segment_maps.is_empty() {
        cells.push((row.crossings.in_words(wide), row.crossings.verdict()));
    }
    if wide && !list.scenarios.is_empty() {
        cells.push((row.reason.clone(), None));
    }
    cells
}

/// `3 too-big, 1 time-exceeded`.
fn errors(errors: IcmpErrors) -> String {
    let told = errors.kinds().into_iter().filter(|(_, number)| *number > 0);
    let told: Vec<String> = told.map(|(kind, number)| format!("{number} {kind}")).collect();
    if told.is_empty() { "-".to_owned() } else { told.join(", ") }
}

/// How long before the window's end: `5m`, `2h30m`.
fn age(time: Timestamp, end: Timestamp) -> String {
    let seconds = Duration::from_secs(end.since(time).as_secs());
    format!("{} ago", duration(seconds).replace(' ', ""))
}

/// A table that may grow, line by line: whatever changed is printed again below, as `kubectl get -w` does.
#[derive(Debug)]
pub(super) struct Table {
    look: Look,
    widths: Vec<usize>,
    gap: usize,
    /// The ends' names without what is the same for most: their kinds.
    brief: bool,
    shown: HashMap<String, Vec<Cell>>,
}

impl Table {
    pub(super) fn new(look: Look) -> Self {
        Self { look, widths: Vec::new(), gap: GAP, brief: false, shown: HashMap::new() }
    }

    /// The lines that are new or say something else than before. Time going by is no change.
    pub(super) fn update(&mut self, rows: &[Row], list: &EdgeList) -> String {
        let Look { width, wide, headers } = self.look;
        let columns = columns(list, wide);
        let first = self.widths.is_empty();
        let mut fresh = Vec::new();
        for row in rows {
            let cells = cells(row, list, wide);
            let mut lasting = cells.clone();
            if !wide && let Some(last) = lasting.get_mut(5) {
                last.0 = row.last.to_string();
            }
            let key = row.key();
            if self.shown.get(&key) != Some(&lasting) {
                self.shown.insert(key, lasting);
                fresh.push(cells);
            }
        }
        if fresh.is_empty() {
            return String::new();
        }
        if self.brief {
            fresh.iter_mut().for_each(|cells| shorten_ends(cells));
        }
        self.grow(&columns, headers, &fresh);
        if first && let Some(width) = width {
            self.fit(&columns, &fresh, width);
            if self.brief {
                fresh.iter_mut().for_each(|cells| shorten_ends(cells));
            }
        }
        let mut text = String::new();
        if first && headers {
            let titles: Vec<Cell> = columns.iter().map(|(name, _)| (name.clone(), None)).collect();
            self.line(&mut text, &titles);
        }
        for cells in &fresh {
            self.line(&mut text, cells);
        }
        text
    }

    /// Makes room for these rows; where the terminal bounds it, only as far as it has room.
    fn grow(&mut self, columns: &[(String, u8)], headers: bool, rows: &[Vec<Cell>]) {
        let first = self.widths.is_empty();
        self.widths.resize(columns.len(), 0);
        for (at, (title, _)) in columns.iter().enumerate() {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|(text, _)| text.width());
            let title = if headers && first { title.width() } else { 0 };
            let wanted = cells.fold(title, usize::max);
            let room = self.look.width.filter(|_| !first).map(|room| room.saturating_sub(self.total()));
            let Some(width) = self.widths.get_mut(at).filter(|width| first || **width > 0) else { continue };
            let more = wanted.saturating_sub(*width);
            *width += room.map_or(more, |room| more.min(room));
        }
    }

    /// Gives up the cause, takes brief names, gives up more columns, then shortens the scenarios' titles and the
    /// ends, until a line fits.
    fn fit(&mut self, columns: &[(String, u8)], rows: &[Vec<Cell>], room: usize) {
        let mut order: Vec<(u8, usize)> = columns
            .iter()
            .enumerate()
            .map(|(at, (_, order))| (*order, at))
            .filter(|(order, _)| *order > 0)
            .collect();
        order.sort_by(|a, b| b.cmp(a));
        let mut given_up = order.into_iter().map(|(_, at)| at);
        self.give_up(given_up.next(), room);
        if self.total() > room {
            self.gap = SMALL_GAP;
        }
        if self.total() > room && has_brief_names(rows) {
            self.brief = true;
            for (at, width) in self.widths.iter_mut().take(ENDS).enumerate() {
                let names = rows.iter().filter_map(|row| row.get(at)).map(|(name, _)| brief(name).width());
                let title = columns.get(at).map_or(0, |(name, _)| name.width());
                *width = names.chain([title]).fold(0, usize::max);
            }
        }
        for at in given_up {
            self.give_up(Some(at), room);
        }
        let past_ends = columns.iter().enumerate().skip(ENDS).filter(|(_, (_, order))| *order == 0);
        for (at, _) in past_ends {
            let over = self.total().saturating_sub(room);
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|(text, _)| text.width());
            let least = cells.fold(TITLE, usize::max);
            if let Some(width) = self.widths.get_mut(at).filter(|width| **width > least) {
                *width = width.saturating_sub(over).max(least);
            }
        }
        while self.total() > room {
            let ends = self.widths.get_mut(..ENDS).unwrap_or_default();
            let Some(longest) = ends.iter_mut().max().filter(|width| **width > SHORTEST) else { return };
            *longest -= 1;
        }
    }

    fn give_up(&mut self, column: Option<usize>, room: usize) {
        let too_wide = self.total() > room;
        if let Some(width) = column.and_then(|at| self.widths.get_mut(at)).filter(|_| too_wide) {
            *width = 0;
        }
    }

    fn total(&self) -> usize {
        let shown = self.widths.iter().filter(|width| **width > 0);
        shown.fold(0, |sum, width| sum + width + self.gap).saturating_sub(self.gap)
    }

    fn line(&self, text: &mut String, cells: &[Cell]) {
        let start = text.len();
        for ((cell, verdict), width) in cells.iter().zip(&self.widths).filter(|(_, width)| **width > 0) {
            let room = if self.look.width.is_some() { *width } else { usize::MAX };
            let shown = if self.brief { shortened_name(cell, room) } else { shortened(cell, room) };
            let pad = (width + self.gap).saturating_sub(shown.width());
            let style = style(*verdict);
            text.push_str(&format!("{style}{shown}{style:#}{:pad$}", ""));
        }
        text.truncate(text.trim_end().len().max(start));
        text.push('\n');
    }
}

fn shorten_ends(cells: &mut [Cell]) {
    for (name, _) in cells.iter_mut().take(ENDS) {
        *name = brief(name);
    }
}

/// Whether brief names still tell all ends apart.
fn has_brief_names(rows: &[Vec<Cell>]) -> bool {
    let names: BTreeSet<&str> =
        rows.iter().flat_map(|row| row.iter().take(ENDS)).map(|(name, _)| name.as_str()).collect();
    let briefs: BTreeSet<String> = names.iter().map(|name| brief(name)).collect();
    names.len() == briefs.len()
}

fn style(verdict: Option<Verdict>) -> Style {
    match verdict {
        None => Style::new(),
        Some(Verdict::Allow) => AnsiColor::Green.on_default(),
        Some(Verdict::Deny) => AnsiColor::Red.on_default(),
        Some(Verdict::Unknown) => AnsiColor::Yellow.on_default(),
    }
}

/// `data-…/postgresql` of `data-layer/postgresql`: where something must go, the namespace goes first.
fn shortened_name(text: &str, room: usize) -> String {
    let whole = || shortened(text, room);
    let Some((namespace, name)) = text.split_once('/').filter(|_| text.width() > room) else {
        return whole();
    };
    // One letter and the dots of the namespace, the slash, the name.
    let Some(kept) = room.checked_sub(name.width() + 2).filter(|kept| *kept > 0) else { return whole() };
    let start: String = namespace.chars().take(kept).collect();
    format!("{start}…/{name}")
}

/// Without its middle, where it is too long: the namespace and the end of the name tell most.
fn shortened(text: &str, room: usize) -> String {
    if text.width() <= room {
        return text.to_owned();
    }
    let keep = room.saturating_sub(1);
    let (head, tail) = (keep / 2, keep - keep / 2);
    let mut shown: String = text.chars().take(head).collect();
    shown.push('…');
    shown.extend(text.chars().skip(text.chars().count().saturating_sub(tail)));
    shown
}

/// The whole list at once.
pub(super) fn render(rows: &[Row], list: &EdgeList, look: Look) -> String {
    Table::new(look).update(rows, list)
}

/// A table in Markdown (GitHub's).
pub(super) fn markdown(rows: &[Row], list: &EdgeList, headers: bool) -> String {
    let mut text = String::new();
    let columns = columns(list, false);
    if headers {
        text.push_str("# Recorded connections\n\n");
        for note in notes(list, true) {
            text.push_str(&format!("- {}\n", escaped(&note)));
        }
        let titles: Vec<String> = columns.iter().map(|(name, _)| name.to_lowercase()).collect();
        text.push_str(&format!("\n| {} |\n|{}\n", titles.join(" | "), "---|".repeat(titles.len())));
    }
    for row in rows {
        let cells: Vec<String> = cells(row, list, false).iter().map(|(text, _)| escaped(text)).collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}

/// What the reader of a list has to know besides; `all`: also that nothing was lost.
pub(super) fn notes(list: &EdgeList, all: bool) -> Vec<String> {
    let window = &list.window;
    let mut notes = Vec::new();
    if all {
        let span = duration(window.end.since(window.start));
        notes.push(format!("window: {} to {} ({span})", moment(window.start), moment(window.end)));
    }
    if all || window.losses.iter().any(|loss| loss.packets > 0 || loss.edges > 0) {
        notes.push(format!("lost: {}", losses(Some(&window.losses))));
    }
    if !window.unobserved.is_empty() {
        let pods = count(window.unobserved.len() as u64, "pod");
        notes.push(format!("{pods} could not be observed: {}", window.unobserved.join(", ")));
    }
    notes.extend(list.warnings.iter().map(|warning| format!("warning: {warning}")));
    let refused = list.segment_maps.iter().filter(|map| !map.in_force);
    notes.extend(
        refused.map(|map| {
            format!("warning: segment map {} is not in force, nothing was judged by it", map.name)
        }),
    );
    // What is written in an exception is a warning already; that it has expired is not.
    let told = |finding: &str| list.warnings.iter().any(|warning| warning.contains(finding));
    let wrong = list.exception_findings.iter().filter(|found| !told(&found.finding));
    notes.extend(wrong.map(|found| format!("warning: {}: {}", found.exception, found.finding)));
    notes
}
