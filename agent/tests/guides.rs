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
//! - `later`: a finding that the row asks for and that nothing gives yet; it is printed.
//! - `settings`: maps of `deploy/segments/` to judge by as well, and what is known around the edges.
//!
//! Any line may have `says`, for the reader.
#![expect(clippy::unwrap_used, reason = "what is read here is the test's own")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use dryfence::audit::cause::classify;
use dryfence::cluster::index::Index;
use dryfence::cluster::manifests;
use dryfence::cluster::object::Object;
use dryfence::model::cause::Cause;
use dryfence::model::dialect::Dialect;
use dryfence::model::edge::{Counters, Direction, Edge, OrientedBy, Protocol};
use dryfence::model::endpoint::{Connection, Endpoint, Party, Pod};
use dryfence::model::object::WorkloadRef;
use dryfence::model::scenario::{DefaultDeny, Scenario};
use dryfence::model::time::Timestamp;
use dryfence::model::verdict::{Decision, Judgement};
use dryfence::policy::Judge;
use dryfence::segment::api::{SEGMENT_MAP, SegmentMapObject};
use dryfence::segment::{Crossing, SegmentJudge, SegmentMap, Surroundings};
use serde::Deserialize;
use serde_json::Value;

/// The rows of the guides that are about NetworkPolicy or segments. The others are about families that are
/// not judged yet (8 to 14), or about commands (21).
const ROWS: [u32; 13] = [1, 2, 3, 4, 5, 6, 7, 15, 16, 17, 18, 19, 20];

const EXPECTATIONS: &str = "expect.jsonl";
const CANDIDATE: &str = "candidate";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    query: Option<Value>,
    enforced: Option<Both>,
    default_deny: Option<Both>,
    candidate: Option<Both>,
    cause: Option<Cause>,
    #[serde(default)]
    crossings: BTreeMap<String, Crossing>,
    claimed: Option<String>,
    later: Option<String>,
    settings: Option<Settings>,
    #[expect(dead_code, reason = "it is for whoever reads the file")]
    says: Option<String>,
}

/// What each direction must say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Both {
    egress: String,
    ingress: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// Files of `deploy/segments/`.
    presets: Vec<String>,
    /// The tag seen at the interface of the pod with this address.
    vlans: BTreeMap<IpAddr, u16>,
    /// Where the API server listens.
    api_server: Vec<SocketAddr>,
}

/// A query, as `explain --queries` reads it. That both read alike is tested below.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    from: End,
    to: End,
    port: u16,
    #[serde(default = "tcp")]
    protocol: Protocol,
}

const fn tcp() -> Protocol {
    Protocol::Tcp
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum End {
    /// `namespace/name`
    Pod(String),
    /// `namespace/Kind/name`
    Workload(String),
    Ip(IpAddr),
}

/// One folder, read.
struct Fixture {
    name: String,
    /// The manifests of the folder itself.
    manifests: Vec<PathBuf>,
    index: Index,
    /// The same with the folder `candidate` laid over, where there is one.
    candidate: Option<Index>,
    maps: BTreeMap<String, Arc<SegmentMap>>,
    settings: Settings,
    /// Each with its number in the file, from 1.
    lines: Vec<(usize, Line)>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guides")
}

/// The manifests directly in a folder, in order of name.
fn manifests_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    files.sort();
    files
}

/// The objects of manifests in which nothing may be wrong.
fn objects(files: &[PathBuf]) -> Vec<Object> {
    let loaded = manifests::load(files, None);
    assert!(loaded.findings.is_empty(), "{:#?}", loaded.findings);
    assert!(loaded.skipped.keys().all(|kind| kind == SEGMENT_MAP), "{:?}", loaded.skipped);
    loaded.objects
}

/// The SegmentMaps of a file. All must be in force; fields that the kind does not have fail the test.
fn segment_maps(file: &Path) -> Vec<Arc<SegmentMap>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(file).unwrap()).unwrap();
    let of_kind = documents.into_iter().filter(|document| document["kind"] == SEGMENT_MAP);
    let maps = of_kind.map(|document| {
        let mut unknown = Vec::new();
        let object: SegmentMapObject =
            serde_ignored::deserialize(document, |path| unknown.push(path.to_string())).unwrap();
        assert!(unknown.is_empty(), "{}: fields that do not exist: {unknown:?}", file.display());
        let map = SegmentMap::from_object(&object);
        assert!(map.findings().is_empty(), "{}: {:?}", file.display(), map.findings());
        Arc::new(map)
    });
    maps.collect()
}

fn read_lines(folder: &Path) -> Vec<(usize, Line)> {
    let file = folder.join(EXPECTATIONS);
    let text = fs::read_to_string(&file).unwrap_or_else(|error| {
        panic!("{}: a row without expectations shows nothing: {error}", file.display())
    });
    let read = |(at, text): (usize, &str)| {
        let line =
            serde_json::from_str(text).unwrap_or_else(|e| panic!("{}:{}: {e}", file.display(), at + 1));
        (at + 1, line)
    };
    text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()).map(read).collect()
}

impl Fixture {
    fn read(folder: &Path) -> Self {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let mut lines = read_lines(folder);
        let queries = lines.iter().filter(|(_, line)| line.query.is_some()).count();
        assert!(queries > 0, "{name}: a row without expectations shows nothing");
        let mut settings = Settings::default();
        for (_, line) in &mut lines {
            settings = line.settings.take().unwrap_or(settings);
        }
        let manifests = manifests_in(folder);
        let mut index = Index::default();
        index.reset(objects(&manifests), Timestamp::EPOCH);
        assert_eq!(index.findings(), [], "{name}");
        let candidate = folder.join(CANDIDATE);
        let candidate = candidate.is_dir().then(|| {
            let mut over = Index::default();
            over.reset(objects(&manifests), Timestamp::EPOCH);
            // As the API server does: what has the same kind, namespace and name is replaced.
            for object in objects(&manifests_in(&candidate)) {
                over.apply(object, Timestamp::EPOCH);
            }
            over
        });
        for policy in index
            .policies()
            .iter()
            .chain(candidate.iter().flat_map(Index::policies).collect::<Vec<_>>().iter())
        {
            assert!(policy.faults().is_empty(), "{name}: {}: {:?}", policy.reference(), policy.faults());
        }
        let presets = settings.presets.iter();
        let presets =
            presets.map(|file| Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/segments").join(file));
        let files: Vec<PathBuf> = manifests.iter().cloned().chain(presets).collect();
        let maps = files.iter().flat_map(|file| segment_maps(file));
        let maps = maps.map(|map| (map.name().to_string(), map)).collect();
        Self { name, manifests, index, candidate, maps, settings, lines }
    }
}

fn fixtures() -> Vec<Fixture> {
    let entries = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders.iter().map(|folder| Fixture::read(folder)).collect()
}

fn pods(index: &Index, end: &End) -> Vec<Arc<Pod>> {
    let pods = match end {
        End::Ip(_) => return Vec::new(),
        End::Pod(path) => {
            let (namespace, name) = path.split_once('/').unwrap();
            index.pod(namespace, name).into_iter().collect()
        }
        End::Workload(path) => {
            let [namespace, kind, name] = path.split('/').collect::<Vec<_>>().try_into().unwrap();
            index.workload_pods(&WorkloadRef::new(kind, namespace, name))
        }
    };
    assert!(!pods.is_empty(), "{end:?} is not in the manifests");
    pods
}

/// Every pair of ends that a query means. Two ends meet at addresses of one family.
fn pairs(index: &Index, query: &Query) -> Vec<(Party, Party)> {
    let (now, family) = (Timestamp::EPOCH, |pod: &Pod, like: Option<IpAddr>| {
        let same = |address: &&IpAddr| like.is_none_or(|like| like.is_ipv4() == address.is_ipv4());
        pod.addresses.iter().find(same).copied()
    });
    let (initiators, responders) = (pods(index, &query.from), pods(index, &query.to));
    match (&query.from, &query.to) {
        (End::Ip(from), End::Ip(to)) => {
            vec![(index.initiator_at(*from, now), index.party_at(*to, query.port, query.protocol, now))]
        }
        (End::Ip(from), _) => {
            let at = |pod| index.party_of(pod, family(pod, Some(*from)));
            responders.iter().map(|pod| (index.initiator_at(*from, now), at(pod))).collect()
        }
        (_, End::Ip(to)) => {
            let responder = index.party_at(*to, query.port, query.protocol, now);
            let at = |pod| index.party_of(pod, family(pod, Some(*to)));
            initiators.iter().map(|pod| (at(pod), responder.clone())).collect()
        }
        _ => {
            let pairs = initiators.iter().flat_map(|from| responders.iter().map(move |to| (from, to)));
            let both = |(from, to): (&Arc<Pod>, &Arc<Pod>)| {
                let at = family(from, None);
                (index.party_of(from, at), index.party_of(to, family(to, at)))
            };
            pairs.map(both).collect()
        }
    }
}

/// Whether a direction says what is expected: `Deny`, `Deny by shop/api`, `Allow by none`.
fn fits(decision: &Decision, expected: &str) -> bool {
    let (verdict, by) = expected.split_once(" by ").map_or((expected, None), |(v, by)| (v, Some(by)));
    let policy = decision.policy.as_ref().map_or_else(
        || "none".to_owned(),
        |policy| format!("{}/{}", policy.namespace.as_deref().unwrap_or_default(), policy.name),
    );
    decision.verdict.as_str() == verdict && by.is_none_or(|by| by == policy)
}

/// The judges of one fixture.
struct Bench<'a> {
    fixture: &'a Fixture,
    enforced: Judge,
    default_deny: Judge,
    candidate: Option<Judge>,
    segments: BTreeMap<&'a str, SegmentJudge>,
    failures: Vec<String>,
}

impl<'a> Bench<'a> {
    fn new(fixture: &'a Fixture) -> Self {
        let judge = |index: &Index, scenario| Judge::new(&index.policies(), Dialect::STANDARD, &scenario);
        let mut around =
            Surroundings { api_server: fixture.settings.api_server.clone(), ..Surroundings::default() };
        for (address, vlan) in &fixture.settings.vlans {
            around.vlans.set(*address, *vlan);
        }
        let segment = |(name, map): (&'a String, &Arc<SegmentMap>)| {
            (name.as_str(), SegmentJudge::new(map, around.clone()).unwrap())
        };
        Self {
            fixture,
            enforced: judge(&fixture.index, Scenario::Enforced),
            default_deny: judge(&fixture.index, Scenario::DefaultDeny(DefaultDeny::default())),
            candidate: fixture.candidate.as_ref().map(|index| judge(index, Scenario::Enforced)),
            segments: fixture.maps.iter().map(segment).collect(),
            failures: Vec::new(),
        }
    }

    fn fail(&mut self, line: usize, message: &str) {
        self.failures.push(format!("{} line {line}: {message}", self.fixture.name));
    }

    /// Judges one line; the number of things compared.
    fn line(&mut self, number: usize, line: &Line) -> usize {
        let Some(query) = &line.query else { return 0 };
        let query: Query = serde_json::from_value(query.clone())
            .unwrap_or_else(|error| panic!("{} line {number}: query: {error}", self.fixture.name));
        let mut compared = 0;
        for (initiator, responder) in pairs(&self.fixture.index, &query) {
            let connection = connection(&query, &initiator, &responder);
            let enforced = self.enforced.judge(&connection);
            compared += self.both(number, "enforced", &enforced, line.enforced.as_ref());
            let judgement = self.default_deny.judge(&connection);
            compared += self.both(number, "default-deny", &judgement, line.default_deny.as_ref());
            let cause = classify(&connection);
            if let Some(expected) = line.cause {
                compared += 1;
                if cause != expected {
                    self.fail(number, &format!("the cause is {cause}, not {expected}"));
                }
            }
            if let Some(claimed) = &line.claimed {
                compared += 1;
                if *claimed == enforced.verdict().as_str() {
                    self.fail(number, &format!("the policies do give {claimed}: nothing is contradicted"));
                }
            }
            compared += self.crossings(number, line, &query, (&initiator, &responder));
        }
        compared + self.after(number, line, &query)
    }

    fn both(&mut self, line: usize, scenario: &str, given: &Judgement, expected: Option<&Both>) -> usize {
        let Some(Both { egress, ingress }) = expected else { return 0 };
        for (direction, expected) in [(Direction::Egress, egress), (Direction::Ingress, ingress)] {
            let decision = given.of(direction);
            if !fits(decision, expected) {
                let Decision { verdict, policy, reason, .. } = &**decision;
                let policy = policy.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
                let message =
                    format!("{scenario} {direction}: {verdict} by {policy}, not {expected}: {reason}");
                self.fail(line, &message);
            }
        }
        1
    }

    /// The same connection in the world as the candidate would have it.
    fn after(&mut self, line: usize, expected: &Line, query: &Query) -> usize {
        let Some(both) = &expected.candidate else { return 0 };
        let index = self.fixture.candidate.as_ref();
        let index = index.unwrap_or_else(|| panic!("{}: has no candidate folder", self.fixture.name));
        let mut compared = 0;
        for (initiator, responder) in pairs(index, query) {
            let Some(judge) = &mut self.candidate else { continue };
            let judgement = judge.judge(&connection(query, &initiator, &responder));
            compared += self.both(line, CANDIDATE, &judgement, Some(both));
        }
        compared
    }

    /// What each map says, whichever end the edge was seen at.
    fn crossings(&mut self, line: usize, expected: &Line, query: &Query, ends: (&Party, &Party)) -> usize {
        let mut failures = Vec::new();
        for (map, expected) in &expected.crossings {
            let Some(judge) = self.segments.get_mut(map.as_str()) else {
                failures.push(format!("there is no SegmentMap {map}"));
                continue;
            };
            for direction in Direction::BOTH {
                // An edge is seen at a pod's interface, with that interface's tag.
                let edge = edge(query, ends, direction, &self.fixture.settings.vlans);
                if !matches!(edge.subject().endpoint, Endpoint::Pod(_)) {
                    continue;
                }
                let given = judge.judge(&edge);
                if given.verdict != *expected {
                    failures.push(format!("{given}, not {expected}"));
                }
            }
        }
        for failure in failures {
            self.fail(line, &failure);
        }
        expected.crossings.len()
    }
}

const fn connection<'a>(query: &Query, initiator: &'a Party, responder: &'a Party) -> Connection<'a> {
    Connection { initiator, responder, port: query.port, protocol: query.protocol }
}

fn edge(
    query: &Query,
    (initiator, responder): (&Party, &Party),
    direction: Direction,
    vlans: &BTreeMap<IpAddr, u16>,
) -> Edge {
    let subject = if direction == Direction::Egress { initiator } else { responder };
    let vlan = subject.address.and_then(|address| vlans.get(&address)).copied().unwrap_or_default();
    Edge {
        initiator: initiator.clone(),
        responder: responder.clone(),
        port: query.port,
        protocol: query.protocol,
        direction,
        cause: Cause::Unknown,
        counters: Counters::default(),
        first_seen: Timestamp::EPOCH,
        last_seen: Timestamp::EPOCH,
        oriented_by: OrientedBy::Handshake,
        fully_visible: true,
        vlan,
    }
}

#[test]
fn every_row_of_the_guides_gives_what_it_must() {
    let fixtures = fixtures();
    let row = |fixture: &Fixture| fixture.name.split('-').next().and_then(|row| row.parse().ok());
    let rows: Vec<u32> = fixtures.iter().filter_map(row).collect();
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
            .filter(|(_, line)| line.query.is_some() && line.enforced.is_some())
            .collect();
        let lines: Vec<String> =
            asked.iter().filter_map(|(_, line)| Some(line.query.as_ref()?.to_string())).collect();
        fs::write(queries.path(), lines.join("\n")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_dryfence"));
        command.arg("explain").arg("--queries").arg(queries.path());
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
