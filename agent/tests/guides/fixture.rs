//! A row's folder: what is read from it, and what may not be wrong in it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dryfence::cluster::index::Index;
use dryfence::cluster::manifests;
use dryfence::cluster::object::Object;
use dryfence::model::cause::Cause;
use dryfence::model::edge::Protocol;
use dryfence::model::time::Timestamp;
use dryfence::segment::api::{SEGMENT_MAP, SegmentMapObject};
use dryfence::segment::{Crossing, SegmentMap};
use serde::Deserialize;
use serde_json::Value;

const EXPECTATIONS: &str = "expect.jsonl";
const CANDIDATE: &str = "candidate";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    pub(crate) query: Option<Value>,
    pub(crate) enforced: Option<Both>,
    pub(crate) default_deny: Option<Both>,
    pub(crate) candidate: Option<Both>,
    pub(crate) cause: Option<Cause>,
    #[serde(default)]
    pub(crate) crossings: BTreeMap<String, Crossing>,
    pub(crate) claimed: Option<String>,
    /// What is asked inside the connection, where that is known.
    pub(crate) request: Option<Asked>,
    /// What a finding in the manifests must say.
    pub(crate) finding: Option<String>,
    pub(crate) later: Option<String>,
    pub(crate) settings: Option<Settings>,
    #[expect(dead_code, reason = "it is for whoever reads the file")]
    pub(crate) says: Option<String>,
}

/// A request: of DNS where it has a name, else of HTTP.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Asked {
    pub(crate) dns: Option<String>,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) headers: BTreeMap<String, String>,
}

/// What each direction must say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Both {
    pub(crate) egress: String,
    pub(crate) ingress: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Files of `deploy/segments/`.
    pub(crate) presets: Vec<String>,
    /// As `explain --dialect` reads it.
    pub(crate) dialect: Option<String>,
    /// The tag seen at the interface of the pod with this address.
    pub(crate) vlans: BTreeMap<IpAddr, u16>,
    /// Where the API server listens.
    pub(crate) api_server: Vec<SocketAddr>,
}

/// A query, as `explain --queries` reads it. That both read alike is tested below.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Query {
    pub(crate) from: End,
    pub(crate) to: End,
    pub(crate) port: u16,
    #[serde(default = "tcp")]
    pub(crate) protocol: Protocol,
}

const fn tcp() -> Protocol {
    Protocol::Tcp
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum End {
    /// `namespace/name`
    Pod(String),
    /// `namespace/Kind/name`
    Workload(String),
    Ip(IpAddr),
}

/// One folder, read.
pub(crate) struct Fixture {
    pub(crate) name: String,
    /// The manifests of the folder itself.
    pub(crate) manifests: Vec<PathBuf>,
    pub(crate) index: Index,
    /// The same with the folder `candidate` laid over, where there is one.
    pub(crate) candidate: Option<Index>,
    pub(crate) maps: BTreeMap<String, Arc<SegmentMap>>,
    pub(crate) settings: Settings,
    /// Each with its number in the file, from 1.
    pub(crate) lines: Vec<(usize, Line)>,
}

/// The manifests directly in a folder, in order of name.
fn manifests_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    files.sort();
    files
}

/// The objects of manifests, in which nothing may be wrong but what is expected to be.
fn objects(files: &[PathBuf], expected: &[&str]) -> Vec<Object> {
    let loaded = manifests::load(files, None);
    let texts: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
    let is_expected = |text: &&String| expected.iter().any(|expected| text.contains(expected));
    let unexpected: Vec<&String> = texts.iter().filter(|text| !is_expected(text)).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    for expected in expected {
        assert!(texts.iter().any(|text| text.contains(expected)), "\"{expected}\" is not in {texts:#?}");
    }
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
    pub(crate) fn read(folder: &Path) -> Self {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let mut lines = read_lines(folder);
        let queries = lines.iter().filter(|(_, line)| line.query.is_some()).count();
        assert!(queries > 0, "{name}: a row without expectations shows nothing");
        let mut settings = Settings::default();
        for (_, line) in &mut lines {
            settings = line.settings.take().unwrap_or(settings);
        }
        let manifests = manifests_in(folder);
        let findings: Vec<&str> = lines.iter().filter_map(|(_, line)| line.finding.as_deref()).collect();
        let mut index = Index::default();
        index.reset(objects(&manifests, &findings), Timestamp::EPOCH);
        assert_eq!(index.findings(), [], "{name}");
        let candidate = folder.join(CANDIDATE);
        let candidate = candidate.is_dir().then(|| {
            let mut over = Index::default();
            over.reset(objects(&manifests, &findings), Timestamp::EPOCH);
            // As the API server does: what has the same kind, namespace and name is replaced.
            for object in objects(&manifests_in(&candidate), &[]) {
                over.apply(object, Timestamp::EPOCH);
            }
            over
        });
        let presets = settings.presets.iter();
        let presets =
            presets.map(|file| Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/segments").join(file));
        let files: Vec<PathBuf> = manifests.iter().cloned().chain(presets).collect();
        let maps = files.iter().flat_map(|file| segment_maps(file));
        let maps = maps.map(|map| (map.name().to_string(), map)).collect();
        Self { name, manifests, index, candidate, maps, settings, lines }
    }
}
