//! What the watches tell, gathered for a moment: the index takes it in one go, after the counters were read once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::owners::Owners;
use super::state::{WatchReading, Watches};
use crate::cluster::Object;
use crate::cluster::index::Gaps;
use crate::cluster::manifests::{Finding, Severity};
use crate::model::object::ObjectRef;
use crate::model::time::Timestamp;

/// For how long news are gathered. A reading of the counters comes before each batch, which costs a few
/// milliseconds in a busy kernel; an edge to an address that is not known yet waits much longer.
const GATHERING: Duration = Duration::from_millis(100);

/// So many findings are told in words; of the rest only how many.
const MOST_TOLD: usize = 100;

/// News of the objects.
#[derive(Debug)]
pub enum Change {
    /// The objects of a kind are now exactly these.
    Reset {
        kind: &'static str,
        objects: Vec<Object>,
        findings: Vec<Finding>,
    },
    Apply {
        object: Object,
        findings: Vec<Finding>,
    },
    Delete(ObjectRef),
    /// That a pod of another node is as it was told holds no longer.
    Forget(ObjectRef),
    /// No pod has the address: until that time it is taken to be outside.
    Nobody {
        address: IpAddr,
        until: Timestamp,
    },
}

impl Change {
    /// An object of which nothing is wrong.
    pub(super) const fn apply(object: Object) -> Self {
        Self::Apply { object, findings: Vec::new() }
    }
}

/// Changes in their order, and what is to be known besides.
#[derive(Debug)]
pub struct Batch {
    pub changes: Vec<Change>,
    /// What is not known once the changes are in the index.
    pub gaps: Gaps,
    /// What is wrong with objects and watches, one sentence each.
    pub warnings: Vec<String>,
}

/// Gathers changes into batches.
pub(super) struct Gatherer {
    pub(super) changes: mpsc::Receiver<Change>,
    pub(super) watches: Watches,
    pub(super) owners: Owners,
    pub(super) batches: mpsc::Sender<Batch>,
    pub(super) findings: Findings,
    /// The node whose pods are watched, where it is only one's.
    pub(super) only: Option<Arc<str>>,
    /// The pods of other nodes that were asked for: a new list of the watch does not have them.
    pub(super) peers: FxHashMap<ObjectRef, Object>,
}

impl Gatherer {
    pub(super) async fn run(mut self) {
        loop {
            let mut changes = Vec::new();
            tokio::select! {
                change = self.changes.recv() => match change {
                    Some(change) => changes.push(change),
                    None => return,
                },
                () = self.watches.changed() => {}
            }
            tokio::time::sleep(GATHERING).await;
            // Before the rest is taken: a kind is synced only after its list was handed on.
            let gaps = self.watches.gaps();
            while let Ok(change) = self.changes.try_recv() {
                changes.push(change);
            }
            for change in &mut changes {
                self.findings.take(change);
            }
            self.keep_peers(&mut changes);
            let changes = self.owners.resolve(changes);
            let problems = self.watches.readings().iter().filter_map(WatchReading::problem).collect();
            let batch = Batch { changes, gaps, warnings: self.findings.told(problems) };
            if self.batches.send(batch).await.is_err() {
                return;
            }
        }
    }
}

impl Gatherer {
    /// Keeps the pods of other nodes through new lists, and forgets only those.
    fn keep_peers(&mut self, changes: &mut Vec<Change>) {
        let Some(only) = &self.only else { return };
        for change in &mut *changes {
            match change {
                Change::Apply { object, .. } => {
                    if let Object::Pod(pod) = &*object {
                        if pod.node.as_ref() == Some(only) {
                            self.peers.remove(&object.reference());
                        } else {
                            self.peers.insert(object.reference(), object.clone());
                        }
                    }
                }
                Change::Reset { kind: "Pod", objects, .. } => {
                    let listed: FxHashSet<ObjectRef> = objects.iter().map(Object::reference).collect();
                    self.peers.retain(|reference, _| !listed.contains(reference));
                    objects.extend(self.peers.values().cloned());
                }
                // One that moved here meanwhile is watched.
                Change::Forget(reference) if self.peers.remove(reference).is_some() => {
                    *change = Change::Delete(reference.clone());
                }
                Change::Delete(reference) => {
                    self.peers.remove(reference);
                }
                Change::Reset { .. } | Change::Forget(_) | Change::Nobody { .. } => {}
            }
        }
        changes.retain(|change| !matches!(change, Change::Forget(_)));
    }
}

/// What is wrong with the objects that there are.
#[derive(Debug, Default)]
pub(super) struct Findings {
    by_object: BTreeMap<ObjectRef, Vec<Finding>>,
}

impl Findings {
    /// Takes a change's findings out of it, and logs those that are new.
    fn take(&mut self, change: &mut Change) {
        match change {
            Change::Reset { kind, findings, .. } => {
                let mut before: Vec<Finding> = Vec::new();
                self.by_object.retain(|object, known| {
                    let kept = *object.kind != **kind;
                    if !kept {
                        before.append(known);
                    }
                    kept
                });
                for finding in std::mem::take(findings) {
                    if !before.contains(&finding) {
                        log(&finding);
                    }
                    if let Some(object) = finding.object.clone() {
                        self.by_object.entry(object).or_default().push(finding);
                    }
                }
            }
            Change::Apply { object, findings } => {
                let reference = object.reference();
                let before = self.by_object.remove(&reference).unwrap_or_default();
                let findings = std::mem::take(findings);
                findings.iter().filter(|finding| !before.contains(finding)).for_each(log);
                if !findings.is_empty() {
                    self.by_object.insert(reference, findings);
                }
            }
            Change::Delete(reference) => {
                self.by_object.remove(reference);
            }
            Change::Forget(_) | Change::Nobody { .. } => {}
        }
    }

    fn told(&self, mut warnings: Vec<String>) -> Vec<String> {
        let all = || self.by_object.values().flatten();
        warnings.extend(all().take(MOST_TOLD).map(ToString::to_string));
        let rest = all().count().saturating_sub(MOST_TOLD);
        if rest > 0 {
            warnings.push(format!("{rest} more findings in objects of the cluster"));
        }
        warnings
    }
}

fn log(finding: &Finding) {
    match finding.severity {
        Severity::Error => error!(%finding, "an object cannot be used as it is"),
        Severity::Warning => warn!(%finding, "an object may not mean what it says"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::manifests::decode_api;

    fn pod(name: &str, node: &str) -> Object {
        let pod = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"nodeName": node, "containers": []}});
        decode_api("v1", "Pod", pod).0.unwrap()
    }

    fn names(objects: &[Object]) -> Vec<String> {
        let mut names: Vec<String> =
            objects.iter().map(|object| object.reference().name.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn pods_of_other_nodes_outlive_new_lists_and_only_they_are_forgotten() {
        let (_sender, changes) = mpsc::channel(1);
        let (batches, _receiver) = mpsc::channel(1);
        let mut gatherer = Gatherer {
            changes,
            watches: Watches::default(),
            owners: Owners::new(None, None),
            batches,
            findings: Findings::default(),
            only: Some("here".into()),
            peers: FxHashMap::default(),
        };
        let mut told = vec![Change::apply(pod("a", "there")), Change::apply(pod("b", "there"))];
        gatherer.keep_peers(&mut told);
        let mut list =
            vec![Change::Reset { kind: "Pod", objects: vec![pod("own", "here")], findings: Vec::new() }];
        gatherer.keep_peers(&mut list);
        assert!(matches!(&list[..], [Change::Reset { objects, .. }] if names(objects) == ["a", "b", "own"]));
        // One of them is made again on this node: its answer of before is not what is to be forgotten.
        gatherer.keep_peers(&mut vec![Change::apply(pod("b", "here"))]);
        let forget = |name: &str| Change::Forget(ObjectRef::namespaced("Pod", "shop", name));
        let mut over = vec![forget("a"), forget("b"), forget("own")];
        gatherer.keep_peers(&mut over);
        assert!(matches!(&over[..], [Change::Delete(gone)] if &*gone.name == "a"), "{over:?}");
        assert!(gatherer.peers.is_empty());
    }
}
