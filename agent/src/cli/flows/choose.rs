//! Which flows are asked for.

use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};

use super::input::Flows;
use super::{Args, selector};
use crate::model::edge::Edge;
use crate::model::endpoint::Party;
use crate::model::selector::Selector;
use crate::serve::api::{BadQuery, Query};

/// What is asked for, read once.
#[derive(Debug)]
pub(super) struct Choice {
    query: Query,
    selector: Option<Selector>,
    namespaces: Vec<String>,
    since: Option<Duration>,
    /// The arguments, as an exported file says what was left out of it.
    words: Vec<String>,
    verdicts: bool,
}

impl Choice {
    /// Reads the arguments.
    ///
    /// # Errors
    /// Which argument has a value that it cannot have.
    pub(super) fn new(args: &Args) -> anyhow::Result<Self> {
        let mut given = form_urlencoded::Serializer::new(String::new());
        let mut words = Vec::new();
        for (name, values) in [
            ("namespace", &args.namespace),
            ("workload", &args.workload),
            ("peer", &args.peer),
            ("verdict", &args.verdict),
            ("scenario", &args.scenario),
            ("violation", &args.violation),
            ("direction", &args.direction),
            ("cause", &args.cause),
            ("port", &args.port),
            ("protocol", &args.protocol),
        ] {
            for value in values {
                given.append_pair(name, value);
                words.push(format!("--{name} {value}"));
            }
        }
        // The API's filter, so that both mean the same.
        let query = Query::parse(&given.finish()).map_err(in_words)?;
        let selector = args.selector.as_deref().map(selector::parse).transpose();
        let selector = selector.map_err(|problem| anyhow!("-l {problem}"))?;
        let since = args.since.as_deref().map(duration).transpose().context("--since")?;
        words.extend(args.selector.iter().map(|text| format!("-l {text}")));
        words.extend(args.since.iter().map(|text| format!("--since {text}")));
        let verdicts = !args.verdict.is_empty() || !args.scenario.is_empty() || !args.violation.is_empty();
        Ok(Self { query, selector, namespaces: args.namespace.clone(), since, words, verdicts })
    }

    /// Whether it needs labels, which only a recording has.
    pub(super) const fn needs_labels(&self) -> bool {
        self.selector.is_some()
    }

    /// Leaves what is asked for.
    ///
    /// # Errors
    /// If verdicts are asked for that nobody gave.
    pub(super) fn apply(&self, flows: &mut Flows) -> anyhow::Result<()> {
        let Flows { list, recorded } = flows;
        ensure!(
            !self.verdicts || !list.scenarios.is_empty(),
            "--verdict, --scenario and --violation need verdicts: name the policies and segment maps with --manifests, \
             or ask an agent"
        );
        self.query.filter.check_names(list).map_err(in_words)?;
        let from = self.since.map(|since| list.window.end.minus(since));
        let keep: Vec<bool> = list
            .edges
            .iter()
            .enumerate()
            .map(|(at, edge)| {
                let labelled = match (&self.selector, recorded.as_ref().and_then(|(_, edges)| edges.get(at)))
                {
                    (Some(selector), Some(edge)) => self.has_labels(edge, selector),
                    (Some(_), None) => false,
                    (None, _) => true,
                };
                labelled && from.is_none_or(|from| edge.last_seen >= from) && self.query.filter.matches(edge)
            })
            .collect();
        let wants = |name: &str| self.query.filter.wants_scenario(name);
        list.scenarios.retain(|scenario| wants(&scenario.name));
        retain(&mut list.edges, &keep);
        for edge in &mut list.edges {
            edge.verdicts.retain(|name, _| wants(name));
        }
        if let Some((header, edges)) = recorded {
            retain(edges, &keep);
            if !self.words.is_empty() {
                header.warnings.push(format!("holds only what was asked for: {}", self.words.join(" ")));
            }
        }
        Ok(())
    }

    /// Whether an end in one of the namespaces has the labels.
    fn has_labels(&self, edge: &Edge, selector: &Selector) -> bool {
        let matches = |party: &Party| {
            party.as_pod().is_some_and(|pod| {
                selector.matches(&pod.identity.labels)
                    && (self.namespaces.is_empty()
                        || self.namespaces.iter().any(|name| **name == *pod.namespace))
            })
        };
        matches(&edge.initiator) || matches(&edge.responder)
    }
}

fn retain<T>(list: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    list.retain(|_| keep.next().copied().unwrap_or(false));
}

fn in_words(bad: BadQuery) -> anyhow::Error {
    anyhow!("--{}: {}", bad.parameter, bad.problem)
}

/// `90s`, `10m`, `2h30m`, `7d`.
fn duration(text: &str) -> anyhow::Result<Duration> {
    let wrong = || anyhow!("\"{text}\" is no duration like 90s, 10m, 2h30m or 7d");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = rest.split_at(digits);
        let seconds = match unit.chars().next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().ok().ok_or_else(wrong)?;
        let part = number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = unit.get(1..).unwrap_or_default();
    }
    ensure!(!text.is_empty(), wrong());
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_kubectl_reads_them() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("2h30m", 9000), ("7d", 604_800)] {
            assert_eq!(duration(text).unwrap(), Duration::from_secs(seconds));
        }
        for text in ["", "10", "m", "1w", "-5m", "1é", "99999999999999999999s", "18446744073709551615d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
