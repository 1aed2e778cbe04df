//! What the field's public guides prescribe, row by row: `tests/guides/<row>-<name>/` holds manifests that
//! follow a guide, and in `expect.jsonl` what dryfence must say to them.
//!
//! A line of `expect.jsonl` is one JSON object:
//! - `query`: a connection as `dryfence explain --queries` reads it; the other fields say what it must give:
//!   - `enforced`, `default_deny`: `egress` and `ingress`, each `Allow`, `Deny` or `Unknown`, and where it is
//!     telling by which policy: `Deny by shop/api`, `Allow by none`;
//!   - `candidate`: the same under `enforced`, once the manifests of the folder `candidate` are laid over;
//!   - `cause`: which of the usual breakages it would be;
//!   - `crossings`: for each SegmentMap that is asked, by name, `Allow`, `Violation`, `Unknown` or `Ignored`;
//!   - `claimed`: what the guide's own text says, where its manifests contradict it.
//!   - `request`: what is asked inside the connection, where the answer depends on it.
//! - `finding`: what a finding in the row's manifests must say; there may be no others.
//! - `later`: a finding that the row asks for and that nothing gives yet; it is printed.
//! - `settings`: the dialect, maps of `deploy/segments/` to judge by as well, and what is known around the edges.
//!
//! Any line may have `says`, for the reader.
#![expect(clippy::unwrap_used, reason = "what is read here is the test's own")]

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use fixture::{Fixture, Line};
use judging::Bench;
use serde_json::Value;

#[path = "guides/fixture.rs"]
mod fixture;
#[path = "guides/judging.rs"]
mod judging;

/// The rows of the guides that are about policies or segments. The other is about commands (21).
const ROWS: [u32; 20] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guides")
}

fn fixtures() -> Vec<Fixture> {
    let entries = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders.iter().map(|folder| Fixture::read(folder)).collect()
}

#[test]
fn every_row_of_the_guides_gives_what_it_must() {
    let fixtures = fixtures();
    let row = |fixture: &Fixture| fixture.name.split_once('-').unwrap().0.parse().unwrap();
    let rows: Vec<u32> = fixtures.iter().map(row).collect();
    assert_eq!(rows, ROWS, "each row has its folder");
    // Beside the print macros, which the test runner swallows where a test passes.
    let mut out = io::stderr().lock();
    let mut failures = Vec::new();
    for fixture in &fixtures {
        let mut bench = Bench::new(fixture);
        for (number, line) in &fixture.lines {
            let compared = bench.line(*number, line);
            if line.query.is_some() && compared == 0 {
                bench.fail(*number, "expects nothing");
            }
            if let Some(claimed) = &line.claimed {
                let name = &fixture.name;
                writeln!(out, "{name} line {number}: the guide says {claimed}; its policies do not").unwrap();
            }
            if let Some(later) = &line.later {
                writeln!(out, "{} line {number}: later: {later}", fixture.name).unwrap();
            }
        }
        for judge in bench.segments.values() {
            assert_eq!(judge.findings(), [], "{}: {}", fixture.name, judge.map().name());
        }
        failures.append(&mut bench.failures);
    }
    assert!(failures.is_empty(), "{} wrong:\n{}", failures.len(), failures.join("\n"));
}

/// The queries are read by the command, too, and it answers what the library does.
#[test]
fn explain_answers_the_same() {
    let queries = tempfile::NamedTempFile::new().unwrap();
    for fixture in fixtures() {
        let asked: Vec<&(usize, Line)> = fixture
            .lines
            .iter()
            // The command is told of no requests.
            .filter(|(_, line)| line.query.is_some() && line.enforced.is_some() && line.request.is_none())
            .collect();
        let lines: Vec<String> =
            asked.iter().filter_map(|(_, line)| Some(line.query.as_ref()?.to_string())).collect();
        fs::write(queries.path(), lines.join("\n")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_dryfence"));
        command.arg("explain").arg("--queries").arg(queries.path());
        if let Some(dialect) = &fixture.settings.dialect {
            command.arg("--dialect").arg(dialect);
        }
        for file in &fixture.manifests {
            command.arg("--manifests").arg(file);
        }
        let output = command.output().unwrap();
        let wrong = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {wrong}", fixture.name);
        let answers = String::from_utf8(output.stdout).unwrap();
        assert_eq!(answers.lines().count(), asked.len(), "{}", fixture.name);
        for ((number, line), answer) in asked.into_iter().zip(answers.lines()) {
            let answer: Value = serde_json::from_str(answer).unwrap();
            let expected = line.enforced.as_ref().unwrap();
            for (direction, expected) in [("egress", &expected.egress), ("ingress", &expected.ingress)] {
                let expected = expected.split_once(" by ").map_or(expected.as_str(), |(verdict, _)| verdict);
                let given = &answer[direction]["verdict"];
                assert_eq!(given, expected, "{} line {number}: {direction}", fixture.name);
            }
        }
    }
}
