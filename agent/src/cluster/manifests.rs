//! Objects from manifest files: YAML, JSON, folders of them.
//!
//! One bad document never takes the others: it is a [`Finding`], and what depended on it is judged
//! `Unknown`, because the object is kept as unreadable instead of being left out.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde_json::Value;

use self::decode::Decoder;
use self::documents::Content;
use self::finding::Place;
use super::object::{Broken, Object};
use crate::model::object::ObjectRef;
use crate::policy::{Fault, Policy, PolicyKind, missing_tiers};
use crate::segment::{self, SegmentMap};

mod decode;
mod documents;
mod finding;
mod salvage;
#[cfg(test)]
mod tests;
mod watch;

pub use finding::{Finding, Severity};
pub use watch::watch;

/// What manifest files held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    pub objects: Vec<Object>,
    pub findings: Vec<Finding>,
    /// How many objects of each kind were left out because we do not judge by that kind; `Kind.group` where
    /// the kind's name is one that we know of another API group.
    pub skipped: BTreeMap<String, usize>,
}

/// Reads files, and folders with everything below them.
///
/// In folders only `.yaml`, `.yml` and `.json` count, and nothing whose name begins with a dot (the folders
/// behind a ConfigMap mount's symbolic links do). Objects without a namespace get `default_namespace`; without
/// one `default`, with a warning. It never fails: what cannot be read is a finding.
pub fn load(paths: &[PathBuf], default_namespace: Option<&str>) -> Loaded {
    load_all(paths.iter().cloned().map(Source::Path), default_namespace)
}

/// Where manifests come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file, or a folder with everything below it.
    Path(PathBuf),
    /// A text that is no file, such as standard input; findings call it by this name.
    Text { name: PathBuf, bytes: Vec<u8> },
}

/// The same as [`load`], also for texts that are no files.
pub fn load_all(sources: impl IntoIterator<Item = Source>, default_namespace: Option<&str>) -> Loaded {
    let mut loader = Loader { default_namespace, ..Loader::default() };
    for source in sources {
        match source {
            Source::Path(path) => loader.path(&path),
            Source::Text { name, bytes } => loader.text(&name, &bytes),
        }
    }
    loader.finish()
}

/// Decodes an object as an API server gives it, by the same rules as files. Items of a list do not say what they
/// are: `api_version` and `kind` do.
///
/// What the server has taken is not warned of: a newer one has fields that we do not know. Of policies and of our
/// own kinds those are findings, because they may change what the object says.
pub(in crate::cluster) fn decode_api(
    api_version: &str,
    kind: &str,
    mut value: Value,
) -> (Option<Object>, Vec<Finding>) {
    let place = Place { file: Path::new("kubernetes").into(), document: 0, line: 0 };
    if let Some(fields) = value.as_object_mut() {
        fields.insert("apiVersion".to_owned(), api_version.into());
        fields.insert("kind".to_owned(), kind.into());
        // Half of an object's size, and none of it is read.
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    }
    let mut decoder = Decoder::new(Some("default"), &place);
    decoder.object(value, None);
    let Decoder { mut objects, mut findings, .. } = decoder;
    let object = objects.pop().map(|(object, _)| object);
    let ours =
        matches!(object, Some(Object::SegmentMap(_) | Object::EdgeException(_) | Object::Candidate(_)));
    findings.retain(|finding| ours || finding.severity == Severity::Error);
    (object, findings)
}

#[derive(Default)]
struct Loader<'a> {
    default_namespace: Option<&'a str>,
    loaded: Loaded,
    /// Where each object was first given, and its place in `loaded.objects`.
    given: FxHashMap<ObjectRef, (usize, Place)>,
}

impl Loader<'_> {
    fn path(&mut self, path: &Path) {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                for file in files_below(path, &mut self.loaded.findings) {
                    self.file(&file);
                }
            }
            Ok(_) => self.file(path),
            Err(error) => self.unreadable_file(path, &error),
        }
    }

    fn file(&mut self, path: &Path) {
        match fs::read(path) {
            Ok(bytes) => self.text(path, &bytes),
            // It was removed after the folder was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.unreadable_file(path, &error),
        }
    }

    /// Nothing of the file is known; a policy may be in it.
    fn unreadable_file(&mut self, path: &Path, error: &io::Error) {
        let place = Place { file: path.into(), document: 0, line: 0 };
        self.loaded.findings.push(place.error(None, None, format!("cannot be read: {error}")));
        if error.kind() != io::ErrorKind::NotFound {
            let policy = salvage::unreadable_policy(
                &PolicyKind::NETWORK_POLICY,
                None,
                &place,
                "the file cannot be read",
            );
            self.add(Object::Policy(Arc::new(policy)), &place, None);
        }
    }

    fn text(&mut self, path: &Path, bytes: &[u8]) {
        let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let text = String::from_utf8_lossy(bytes);
        for (index, document) in documents::read(&text, is_json).into_iter().enumerate() {
            let place = Place { file: path.into(), document: index + 1, line: document.line };
            match document.content {
                Content::Value(value) => {
                    let mut decoder = Decoder::new(self.default_namespace, &place);
                    decoder.document(value);
                    let Decoder { objects, findings, skipped, .. } = decoder;
                    self.loaded.findings.extend(findings);
                    for kind in skipped {
                        *self.loaded.skipped.entry(kind).or_default() += 1;
                    }
                    for (object, field) in objects {
                        self.add(object, &place, field);
                    }
                }
                Content::Broken { line, message, text } => {
                    let at = Place { line, ..place.clone() };
                    self.loaded.findings.push(at.error(None, None, format!("cannot be parsed: {message}")));
                    for object in salvage::from_text(text, &place, self.default_namespace) {
                        self.add(object, &place, None);
                    }
                }
            }
        }
    }

    /// Keeps an object. Two that differ under one name leave open which one counts: neither does.
    fn add(&mut self, object: Object, place: &Place, field: Option<String>) {
        let reference = object.reference();
        let objects = &mut self.loaded.objects;
        let Some((index, first)) = self.given.get(&reference) else {
            self.given.insert(reference, (objects.len(), place.clone()));
            objects.push(object);
            return;
        };
        let Some(known) = objects.get_mut(*index) else { return };
        let at = format!("{}:{}", first.file.display(), first.line);
        if *known == object {
            let message = format!("is given twice, alike: first at {at}");
            self.loaded.findings.push(place.warning(Some(&reference), field, message));
            return;
        }
        let message = format!("is given twice, differently: first at {at}; neither is taken");
        self.loaded.findings.push(place.error(Some(&reference), field, message));
        *known = match object {
            Object::Policy(_) => {
                let message = "the policy is given twice, differently".to_owned();
                let fault = Fault { field: "metadata.name".to_owned(), message };
                Object::Policy(Arc::new(Policy::unreadable(reference, fault)))
            }
            Object::SegmentMap(_) => {
                let finding =
                    segment::Finding::not_in_force("metadata.name", "the map is given twice, differently");
                Object::SegmentMap(Arc::new(SegmentMap::unreadable(&reference.name, finding)))
            }
            other => {
                let mut addresses = addresses_of(known);
                addresses.extend(addresses_of(&other));
                addresses.sort();
                addresses.dedup();
                let service = [&*known, &other].into_iter().find_map(service_of);
                Object::Broken(Box::new(Broken { reference: Arc::new(reference), addresses, service }))
            }
        };
    }

    fn finish(mut self) -> Loaded {
        let policies = self.loaded.objects.iter().filter_map(|object| match object {
            Object::Policy(policy) => Some(policy),
            _ => None,
        });
        for (reference, Fault { field, message }) in missing_tiers(policies) {
            if let Some((_, place)) = self.given.get(&*reference) {
                self.loaded.findings.push(place.error(Some(&reference), Some(field), message));
            }
        }
        self.loaded.findings.sort();
        self.loaded
    }
}

/// The addresses that an object claims for itself.
fn addresses_of(object: &Object) -> Vec<std::net::IpAddr> {
    match object {
        Object::Pod(pod) if !pod.shape.host_network => pod.addresses.clone(),
        Object::Service(service) => [&*service.cluster_ips, &*service.external].concat(),
        Object::Node(node) => node.addresses.clone(),
        Object::Broken(broken) => broken.addresses.clone(),
        _ => Vec::new(),
    }
}

fn service_of(object: &Object) -> Option<Arc<str>> {
    match object {
        Object::EndpointSlice(slice) => slice.service.clone(),
        Object::Broken(broken) => broken.service.clone(),
        _ => None,
    }
}

/// The manifest files below a folder, in order of name. Links are followed, to a bounded depth.
fn files_below(folder: &Path, findings: &mut Vec<Finding>) -> Vec<PathBuf> {
    // A link to a parent makes a circle, which the system ends only after 40 links.
    const DEPTH: usize = 16;
    let mut files = Vec::new();
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let listed = fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = match listed {
            Ok(entries) => entries,
            Err(error) => {
                let place = Place { file: folder.as_path().into(), document: 0, line: 0 };
                findings.push(place.error(None, None, format!("cannot be listed: {error}")));
                continue;
            }
        };
        for path in entries.into_iter().map(|entry| entry.path()) {
            let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
            if hidden {
                continue;
            }
            if path.is_dir() {
                if depth < DEPTH {
                    folders.push((path, depth + 1));
                }
            } else if is_manifest(&path) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    matches!(extension.as_deref(), Some("yaml" | "yml" | "json"))
}
