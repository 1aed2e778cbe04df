//! What was predicted beside what happened.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::PolicySet;
use crate::demo::plan::{Fate, Verdict};
use crate::demo::pod::Outcome;

/// What became of one connection under enforcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Connected,
    /// It reached the other end, where nothing listens.
    Refused,
    /// The node sent it on, to where nobody answers.
    SentOn,
    Dropped,
    /// Neither: the client failed in another way.
    Failed(String),
}

impl Seen {
    /// `sent_on`: the node counted a packet of it after the filters.
    pub fn new(outcome: Outcome, sent_on: bool) -> Self {
        match outcome {
            Outcome { answered: 1, refused: 0, unanswered: 0, error: None } => Self::Connected,
            Outcome { answered: 0, refused: 1, unanswered: 0, error: None } => Self::Refused,
            Outcome { answered: 0, refused: 0, unanswered: 1, error: None } if sent_on => Self::SentOn,
            Outcome { answered: 0, refused: 0, unanswered: 1, error: None } => Self::Dropped,
            Outcome { error: Some(error), .. } => Self::Failed(error),
            other => Self::Failed(format!("{other:?}")),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Connected => "connects",
            Self::Refused => "reaches, refused",
            Self::SentOn => "reaches, silent",
            Self::Dropped => "dropped",
            Self::Failed(error) => error,
        }
    }
}

/// One connection: predicted, and enforced.
#[derive(Debug)]
pub struct Row {
    pub flow: String,
    /// What becomes of it where nothing is enforced.
    pub fate: Fate,
    /// In words where it is neither allowed nor denied.
    pub predicted: Result<Verdict, String>,
    pub seen: Seen,
}

impl Row {
    /// Whether what happened is what was predicted.
    pub fn agrees(&self) -> bool {
        let free = match self.fate {
            Fate::Answered => Seen::Connected,
            Fate::Refused => Seen::Refused,
            Fate::Unanswered => Seen::SentOn,
        };
        match self.predicted {
            Ok(Verdict::Allow) => self.seen == free,
            Ok(Verdict::Deny) => self.seen == Seen::Dropped,
            Err(_) => false,
        }
    }

    /// Whether it works where nothing is enforced, and is predicted not to.
    fn is_lost(&self) -> bool {
        self.fate == Fate::Answered && self.predicted == Ok(Verdict::Deny)
    }

    fn predicted(&self) -> &str {
        match &self.predicted {
            Ok(verdict) => verdict.as_str(),
            Err(words) => words,
        }
    }

    /// The row as a sentence, for an error.
    fn difference(&self) -> String {
        format!("{}: predicted {}, enforced: {}", self.flow, self.predicted(), self.seen.as_str())
    }
}

/// Prints both sets side by side.
///
/// # Errors
/// Where `output` cannot be written.
pub fn print(output: &mut impl Write, set: &PolicySet, rows: &[Row]) -> io::Result<()> {
    let bold = Style::new().bold();
    writeln!(output, "\n{bold}{}{bold:#}: {}\n", set.name, set.description)?;
    let width = rows.iter().map(|row| row.seen.as_str().chars().count()).max().unwrap_or_default().max(8);
    writeln!(output, "  predicted  {:width$}  connection", "enforced")?;
    for row in rows {
        let colour = match (row.agrees(), &row.predicted) {
            (false, _) => AnsiColor::Red.on_default().bold(),
            (true, Ok(Verdict::Allow)) => AnsiColor::Green.on_default(),
            (true, _) => AnsiColor::Yellow.on_default(),
        };
        let mark = if row.agrees() { ' ' } else { '!' };
        let (predicted, seen) = (row.predicted(), row.seen.as_str());
        writeln!(output, "{mark} {colour}{predicted:9}  {seen:width$}{colour:#}  {}", row.flow)?;
    }
    let count = |verdict| rows.iter().filter(|row| row.predicted == Ok(verdict)).count();
    let (allowed, denied) = (count(Verdict::Allow), count(Verdict::Deny));
    match rows.iter().filter(|row| !row.agrees()).count() {
        0 => {
            writeln!(output, "\n  as predicted: {allowed} allowed and pass, {denied} denied and are dropped")
        }
        differ => writeln!(output, "\n  {differ} of {} differ from what was predicted", rows.len()),
    }
}

/// What differs, a sentence each, and what the set must not deny but does.
pub fn differences(set: &PolicySet, rows: &[Row]) -> Vec<String> {
    let differing = rows.iter().filter(|row| !row.agrees()).map(Row::difference);
    let lost = rows.iter().filter(|row| set.keeps_accepted && row.is_lost());
    let lost = lost.map(|row| format!("{}: was accepted, and is denied under what was suggested", row.flow));
    differing.chain(lost).map(|text| format!("{}: {text}", set.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(fate: Fate, predicted: Result<Verdict, String>, seen: Seen) -> Row {
        Row { flow: "a → b:80/TCP".to_owned(), fate, predicted, seen }
    }

    #[test]
    fn only_what_was_predicted_agrees() {
        let (allow, deny) = (Ok(Verdict::Allow), Ok(Verdict::Deny));
        let fates = [
            (Fate::Answered, Seen::Connected),
            (Fate::Refused, Seen::Refused),
            (Fate::Unanswered, Seen::SentOn),
        ];
        let failed = Seen::Failed("network unreachable".to_owned());
        for (fate, free) in fates.clone() {
            for seen in fates.iter().map(|(_, seen)| seen.clone()).chain([Seen::Dropped, failed.clone()]) {
                let agrees = |predicted| row(fate, predicted, seen.clone()).agrees();
                assert_eq!(agrees(allow.clone()), seen == free, "{fate:?} {seen:?}");
                assert_eq!(agrees(deny.clone()), seen == Seen::Dropped, "{fate:?} {seen:?}");
                assert!(!agrees(Err("Unknown".to_owned())), "{fate:?} {seen:?}");
            }
        }
    }

    #[test]
    fn silence_is_a_drop_unless_the_node_sent_it_on() {
        let silence = Outcome { unanswered: 1, ..Outcome::default() };
        assert_eq!(Seen::new(silence.clone(), false), Seen::Dropped);
        assert_eq!(Seen::new(silence, true), Seen::SentOn);
        let nothing = Seen::new(Outcome::default(), true);
        assert!(matches!(nothing, Seen::Failed(_)), "{nothing:?}");
    }
}
