//! What came of the runs: read from what the guests wrote, checked, and shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::Result;

/// What some test must have proved on every kernel of this release or newer: tests say `proved: …` when they did.
const PROOFS: [(&str, (u32, u32)); 5] = [
    ("clsact", (5, 10)),
    ("TCX", (6, 6)),
    ("VLAN device", (5, 10)),
    ("SCTP association", (5, 10)),
    ("IPVS", (5, 10)),
];

/// One kernel's run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) name: &'static str,
    pub(super) release: String,
    pub(super) outcome: Result<Outcome>,
}

/// What the tests in a guest said.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    /// Also those that said that they cannot run there.
    pub(super) succeeded: usize,
    pub(super) failed: Vec<String>,
    /// Test targets that ended otherwise than by saying which of their tests failed.
    pub(super) broken: Vec<String>,
    /// Tests that said why they cannot run there.
    pub(super) skipped: BTreeMap<String, String>,
    pub(super) proved: BTreeSet<String>,
    /// By program and variant.
    pub(super) verified: BTreeMap<String, u64>,
    /// Seconds from boot to the end of the last test.
    pub(super) seconds: f64,
    /// What the failed tests said.
    pub(super) said: String,
}

impl Outcome {
    /// Tests that proved something.
    fn passed(&self) -> usize {
        self.succeeded.saturating_sub(self.skipped.len())
    }

    fn failed(&self) -> usize {
        self.failed.len() + self.broken.len()
    }

    pub(super) fn in_short(&self) -> String {
        let mut text = format!(
            "{} passed, {} failed, {} cannot run there, in {:.0} s",
            self.passed(),
            self.failed(),
            self.skipped.len(),
            self.seconds
        );
        if !self.said.is_empty() {
            text.push('\n');
            text.push_str(&self.said);
        }
        text
    }
}

/// Reads what a guest's init and the tests wrote.
pub(super) fn read(text: &str) -> Outcome {
    let mut outcome = Outcome::default();
    let mut test = "";
    let mut failed_before = 0;
    for line in text.lines() {
        if let Some(target) = line.strip_prefix("== begin ") {
            failed_before = outcome.failed.len();
            test = target.split(' ').next().unwrap_or_default();
        } else if let Some(end) = line.strip_prefix("== end ") {
            test = "";
            let mut words = end.split(' ');
            let (target, code) = (words.next().unwrap_or_default(), words.next());
            if code != Some("0") && outcome.failed.len() == failed_before {
                outcome.broken.push(format!("{target} (exit code {})", code.unwrap_or("unknown")));
            }
            outcome.seconds = words.next().and_then(|word| word.parse().ok()).unwrap_or(outcome.seconds);
        } else if let Some(block) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            test = block;
        } else if let Some(rest) = line.strip_prefix("test ") {
            match rest.rsplit_once(" ... ") {
                Some((_, "ok")) => outcome.succeeded += 1,
                Some((name, "FAILED")) => outcome.failed.push(name.to_owned()),
                _ => {}
            }
        } else if let Some(reason) = line.strip_prefix("SKIPPED: ") {
            outcome.skipped.insert(test.to_owned(), reason.to_owned());
        } else if let Some(proof) = line.strip_prefix("proved: ") {
            outcome.proved.insert(proof.to_owned());
        } else if let Some((program, number)) =
            line.strip_prefix("verified ").and_then(|rest| rest.rsplit_once(": "))
        {
            if let Ok(number) = number.parse() {
                outcome.verified.insert(program.to_owned(), number);
            }
        } else if outcome.failed.iter().any(|failed| failed == test) && !line.is_empty() {
            outcome.said.push_str(line);
            outcome.said.push('\n');
        }
    }
    outcome
}

/// Everything that is not as it must be, a sentence each.
pub(super) fn failures(runs: &[Run], must_prove: impl Fn(&str) -> bool) -> Vec<String> {
    let mut failures = Vec::new();
    for run in runs {
        let release = &run.release;
        let outcome = match &run.outcome {
            Ok(outcome) => outcome,
            Err(_) => {
                failures.push(format!("the guest with Linux {release} did not get to its end"));
                continue;
            }
        };
        for name in outcome.failed.iter().chain(&outcome.broken) {
            failures.push(format!("{name} failed on Linux {release}"));
        }
        if outcome.succeeded == 0 && outcome.failed.is_empty() {
            failures.push(format!("no test ran on Linux {release}"));
        }
        for (proof, _) in PROOFS.iter().filter(|(_, since)| version(release) >= *since) {
            if must_prove(proof) && !outcome.proved.contains(*proof) {
                failures.push(format!("no test proved \"{proof}\" on Linux {release}"));
            }
        }
    }
    failures
}

/// The two numbers that a release begins with.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// One table of kernels, one of what the verifier walked through.
pub(super) fn tables(runs: &[Run]) -> String {
    let mut rows =
        vec![["kernel", "release", "passed", "failed", "cannot run", "seconds", "proved"].map(str::to_owned)];
    for run in runs {
        let row = match &run.outcome {
            Ok(outcome) => [
                run.name.to_owned(),
                run.release.clone(),
                outcome.passed().to_string(),
                outcome.failed().to_string(),
                outcome.skipped.len().to_string(),
                format!("{:.0}", outcome.seconds),
                outcome.proved.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
            ],
            Err(_) => {
                [run.name, &run.release, "-", "-", "-", "-", "did not get to its end"].map(str::to_owned)
            }
        };
        rows.push(row);
    }
    let mut text = aligned(&rows.iter().map(|row| row.to_vec()).collect::<Vec<_>>());
    for run in runs {
        for (test, reason) in run.outcome.iter().flat_map(|outcome| &outcome.skipped) {
            writeln!(text, "cannot run on {}: {test}: {reason}", run.release).unwrap_or_default();
        }
    }
    text.push_str("\ninstructions that the verifier walks through\n");
    text.push_str(&verified(runs));
    let outcomes: Vec<_> = runs.iter().flat_map(|run| &run.outcome).collect();
    let sum = |of: fn(&Outcome) -> usize| outcomes.iter().map(|outcome| of(outcome)).sum::<usize>();
    let lost = runs.len() - outcomes.len();
    let (passed, failed) = (sum(Outcome::passed), sum(Outcome::failed) + lost);
    writeln!(text, "\n{passed} passed, {failed} failed, {} skipped", sum(|outcome| outcome.skipped.len()))
        .unwrap_or_default();
    text
}

fn verified(runs: &[Run]) -> String {
    let outcomes: Vec<_> = runs.iter().filter_map(|run| Some((run, run.outcome.as_ref().ok()?))).collect();
    let programs: BTreeSet<_> = outcomes.iter().flat_map(|(_, outcome)| outcome.verified.keys()).collect();
    let mut rows = vec![vec!["program".to_owned()]];
    rows[0].extend(outcomes.iter().map(|(run, _)| run.release.clone()));
    for program in programs {
        let number = |outcome: &Outcome| outcome.verified.get(program).map_or("-".to_owned(), u64::to_string);
        let mut row = vec![program.clone()];
        row.extend(outcomes.iter().map(|(_, outcome)| number(outcome)));
        rows.push(row);
    }
    aligned(&rows)
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
== begin bpf_veth 4.20

running 3 tests
test attaches ... ok
test netkit ... ok
test hammer ... FAILED

successes:

---- attaches stdout ----
proved: clsact
proved: VLAN device
proved: SCTP association
proved: IPVS
verified from_pod as usual: 1234

---- netkit stdout ----
SKIPPED: this kernel has no netkit

failures:

---- hammer stdout ----
left: 1

test result: FAILED. 2 passed; 1 failed; 0 ignored
== end bpf_veth 101 9.75
== done
";

    fn mk_run(release: &str, text: &str) -> Run {
        Run { name: "5.10", release: release.to_owned(), outcome: Ok(read(text)) }
    }

    #[test]
    fn what_a_guest_wrote_is_read() {
        let outcome = read(TEXT);
        assert_eq!((outcome.succeeded, outcome.seconds), (2, 9.75));
        assert_eq!(outcome.failed, ["hammer"]);
        assert!(outcome.broken.is_empty(), "its failed test is named already");
        assert_eq!(outcome.skipped["netkit"], "this kernel has no netkit");
        assert!(outcome.proved.contains("clsact"));
        assert_eq!(outcome.verified["from_pod as usual"], 1234);
        assert!(outcome.said.starts_with("left: 1\n"));
    }

    #[test]
    fn what_must_be_proved_depends_on_the_release() {
        let good = TEXT
            .replace("test hammer ... FAILED", "test hammer ... ok")
            .replace("bpf_veth 101", "bpf_veth 0");
        assert!(failures(&[mk_run("5.10.0-32-cloud-amd64", &good)], |_| true).is_empty());
        let newer = [mk_run("6.12.1+deb13-cloud-amd64", &good)];
        assert_eq!(failures(&newer, |_| true), ["no test proved \"TCX\" on Linux 6.12.1+deb13-cloud-amd64"]);
        assert!(failures(&newer, |proof| proof == "clsact").is_empty());
    }

    #[test]
    fn failed_tests_crashed_targets_and_lost_guests_fail() {
        assert_eq!(failures(&[mk_run("5.10.0", TEXT)], |_| true), ["hammer failed on Linux 5.10.0"]);
        let crashed = "== begin bpf_veth 1.0\ntest a ... ok\n== end bpf_veth 139 2.0\n";
        assert_eq!(
            failures(&[mk_run("5.10.0", crashed)], |_| false),
            ["bpf_veth (exit code 139) failed on Linux 5.10.0"]
        );
        assert_eq!(failures(&[mk_run("5.10.0", "")], |_| false), ["no test ran on Linux 5.10.0"]);
        let lost = Run { name: "6.1", release: "6.1.0".to_owned(), outcome: Err(anyhow::anyhow!("gone")) };
        assert_eq!(failures(&[lost], |_| false), ["the guest with Linux 6.1.0 did not get to its end"]);
    }
}
