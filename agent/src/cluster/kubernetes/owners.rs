//! Owner chains without watching what is between a pod and its workload: a cluster has ten ReplicaSets for each
//! Deployment, and every agent would hold them all.
//!
//! | pod's controller | its own controller |
//! |---|---|
//! | ReplicaSet named after the pod's `pod-template-hash` | the index tells the Deployment by the name |
//! | Job whose name ends in a time in minutes | the CronJob before it: `getJobName` in kubernetes `pkg/controller/cronjob/utils.go` |
//! | any other ReplicaSet or Job, of a pod of our own node | asked for once |
//! | anything else | is the workload |
//!
//! Pods of other nodes are named by their own agents; here they are only peers.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, PartialObjectMeta};
use kube::{Client, Resource};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tracing::debug;

use super::batch::Change;
use super::error::describe;
use crate::cluster::Object;
use crate::cluster::object::{Controller, Pod, Workload};
use crate::model::object::{ObjectRef, WorkloadRef};

/// Minutes since 1970 at which Jobs may be due: from 2015 to 2160. A date as a number (20261128) is none of them.
const MINUTES: std::ops::Range<u64> = 24_000_000..100_000_000;

/// At most so many owners are asked for and not answered yet; further ones stay the top of their chain.
const MOST_ASKED: usize = 256;

/// An object that a pod may have as its controller: kind, namespace, name.
type Owner = WorkloadRef;

/// The owners of pods that no watch tells.
pub(super) struct Owners {
    /// The node whose pods' owners are asked for; without it, those of all pods.
    node: Option<Arc<str>>,
    /// Where to ask for one; `None` where nobody asks.
    questions: Option<mpsc::Sender<Owner>>,
    /// The live pods of each owner that needs telling, by name.
    pods_of: FxHashMap<Owner, FxHashSet<Arc<str>>>,
    /// The owner of each such pod.
    owner_of: FxHashMap<(Arc<str>, Arc<str>), Owner>,
}

impl Owners {
    pub(super) fn new(node: Option<Arc<str>>, questions: Option<mpsc::Sender<Owner>>) -> Self {
        Self { node, questions, pods_of: FxHashMap::default(), owner_of: FxHashMap::default() }
    }

    /// Adds to the changes what is known, and no longer known, of the owners of their pods. An owner comes before
    /// the pod.
    pub(super) fn resolve(&mut self, changes: Vec<Change>) -> Vec<Change> {
        let mut resolved = Vec::with_capacity(changes.len());
        for change in changes {
            let mut gone = Vec::new();
            match &change {
                Change::Apply { object: Object::Pod(pod), .. } => {
                    let needed = self.needed(pod);
                    let key = (Arc::clone(&pod.namespace), Arc::clone(&pod.name));
                    if self.owner_of.get(&key) != needed.as_ref() {
                        gone.extend(self.leave(&pod.namespace, &pod.name));
                        let told = needed.and_then(|owner| self.join(pod, owner, &FxHashSet::default()));
                        resolved.extend(told.map(Change::apply));
                    }
                }
                // An answer that came after the last pod had gone.
                Change::Apply { object: Object::Workload(workload), .. }
                    if !self.pods_of.contains_key(&owner_of(workload)) =>
                {
                    continue;
                }
                Change::Reset { kind: "Pod", objects, .. } => {
                    let before: FxHashSet<Owner> = self.pods_of.drain().map(|(owner, _)| owner).collect();
                    self.owner_of.clear();
                    for object in objects {
                        if let Object::Pod(pod) = object
                            && let Some(owner) = self.needed(pod)
                        {
                            resolved.extend(self.join(pod, owner, &before).map(Change::apply));
                        }
                    }
                    let ended = before.into_iter().filter(|owner| !self.pods_of.contains_key(owner));
                    gone.extend(ended.map(|owner| reference(&owner)));
                }
                Change::Delete(deleted) if &*deleted.kind == "Pod" => {
                    let namespace = deleted.namespace.as_deref().unwrap_or_default();
                    gone.extend(self.leave(namespace, &deleted.name));
                }
                _ => {}
            }
            resolved.push(change);
            resolved.extend(gone.into_iter().map(Change::Delete));
        }
        resolved
    }

    /// The owners that the names of these pods' owners tell.
    pub(super) fn told_of(mut self, pods: &[Object]) -> Vec<Object> {
        let told = |object: &Object| {
            let Object::Pod(pod) = object else { return None };
            let owner = self.needed(pod)?;
            self.join(pod, owner, &FxHashSet::default())
        };
        pods.iter().filter_map(told).collect()
    }

    /// The owner of a pod, if the index must be told whose it is.
    fn needed(&self, pod: &Pod) -> Option<Owner> {
        let controller = pod.controller.as_ref().filter(|_| !pod.finished)?;
        let is_ours = self.node.is_none() || self.node == pod.node;
        let needed = match &*controller.kind {
            "ReplicaSet" => is_ours && !is_named_by_hash(pod, &controller.name),
            "Job" => is_ours || cron_job(&controller.name).is_some(),
            _ => false,
        };
        needed.then(|| WorkloadRef::new(&controller.kind, &pod.namespace, &controller.name))
    }

    /// Enters a pod with its owner. Of one that is neither there nor among those `before`, the name tells whose it
    /// is, or it is asked for.
    fn join(&mut self, pod: &Pod, owner: Owner, before: &FxHashSet<Owner>) -> Option<Object> {
        let is_new = !self.pods_of.contains_key(&owner) && !before.contains(&owner);
        self.pods_of.entry(owner.clone()).or_default().insert(Arc::clone(&pod.name));
        self.owner_of.insert((Arc::clone(&pod.namespace), Arc::clone(&pod.name)), owner.clone());
        if !is_new {
            return None;
        }
        let cron_job = cron_job(&owner.name).filter(|_| &*owner.kind == "Job").map(Into::into);
        if let Some(name) = cron_job {
            return Some(told(owner, Some(Controller { kind: "CronJob".into(), name })));
        }
        // Where the queue is full, the owner stays the top of the chain.
        if let Some(questions) = &self.questions {
            questions.try_send(owner).ok();
        }
        None
    }

    /// Takes a pod out; returns the owner that it was the last pod of.
    fn leave(&mut self, namespace: &str, name: &str) -> Option<ObjectRef> {
        let owner = self.owner_of.remove(&(namespace.into(), name.into()))?;
        let pods = self.pods_of.get_mut(&owner)?;
        pods.remove(name);
        if !pods.is_empty() {
            return None;
        }
        self.pods_of.remove(&owner);
        Some(reference(&owner))
    }
}

fn owner_of(workload: &Workload) -> Owner {
    WorkloadRef::new(&workload.kind, &workload.namespace, &workload.name)
}

fn reference(owner: &Owner) -> ObjectRef {
    ObjectRef::namespaced(&owner.kind, &owner.namespace, &owner.name)
}

/// An owner of which only its own controller is known: no template, which would stand for pods that it has not.
fn told(owner: Owner, controller: Option<Controller>) -> Object {
    let WorkloadRef { kind, namespace, name } = owner;
    Object::Workload(Box::new(Workload { kind, namespace, name, controller, selector: None, template: None }))
}

fn is_named_by_hash(pod: &Pod, owner: &str) -> bool {
    let hash = pod.shape.labels.get("pod-template-hash");
    let name = hash.and_then(|hash| owner.strip_suffix(hash)?.strip_suffix('-'));
    name.is_some_and(|name| !name.is_empty())
}

/// The CronJob that made a Job of this name.
fn cron_job(job: &str) -> Option<&str> {
    let (name, minutes) = job.rsplit_once('-')?;
    let is_time = minutes.bytes().all(|b| b.is_ascii_digit())
        && minutes.parse().is_ok_and(|minutes: u64| MINUTES.contains(&minutes));
    (is_time && !name.is_empty()).then_some(name)
}

/// Answers questions about owners, one after the other, so that a node full of Jobs is no burden to the server.
pub(super) fn ask(client: Client, changes: mpsc::Sender<Change>) -> mpsc::Sender<Owner> {
    let (questions, mut asked) = mpsc::channel::<Owner>(MOST_ASKED);
    tokio::spawn(async move {
        while let Some(owner) = asked.recv().await {
            let controller = match &*owner.kind {
                "Job" => controller::<Job>(&client, &owner).await,
                _ => controller::<ReplicaSet>(&client, &owner).await,
            };
            let controller = match controller {
                Ok(controller) => controller,
                Err(error) => {
                    debug!(error = %describe(&error), kind = %owner.kind, namespace = %owner.namespace, name = %owner.name, "the owner of a pod cannot be read");
                    continue;
                }
            };
            let object = told(owner, controller);
            if changes.send(Change::Apply { object, findings: Vec::new() }).await.is_err() {
                return;
            }
        }
    });
    questions
}

async fn controller<K>(client: &Client, owner: &Owner) -> Result<Option<Controller>, kube::Error>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), &owner.namespace);
    let object: PartialObjectMeta<K> = api.get_metadata(&owner.name).await?;
    Ok(Controller::of(&object.metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::object::Shape;

    fn pod(name: &str, owner: (&str, &str), labels: &[(&str, &str)]) -> Change {
        let pod = Pod {
            namespace: "shop".into(),
            name: name.into(),
            uid: name.into(),
            shape: Shape {
                labels: labels.iter().copied().collect(),
                service_account: "default".into(),
                named_ports: Vec::new(),
                host_network: false,
            },
            controller: Some(Controller { kind: owner.0.into(), name: owner.1.into() }),
            node: Some("n1".into()),
            addresses: Vec::new(),
            unnamed_ports: Vec::new(),
            finished: false,
            created: None,
        };
        Change::Apply { object: Object::Pod(Box::new(pod)), findings: Vec::new() }
    }

    fn gone(name: &str) -> Change {
        Change::Delete(ObjectRef::namespaced("Pod", "shop", name))
    }

    /// What is applied and deleted besides pods, in words.
    fn told(changes: Vec<Change>) -> Vec<String> {
        let word = |change: Change| match change {
            Change::Apply { object: Object::Workload(workload), .. } => {
                let controller = workload.controller.map(|c| format!("{}/{}", c.kind, c.name));
                Some(format!("{}/{} of {}", workload.kind, workload.name, controller.unwrap_or_default()))
            }
            Change::Delete(reference) if &*reference.kind != "Pod" => Some(format!("no {reference}")),
            _ => None,
        };
        changes.into_iter().filter_map(word).collect()
    }

    #[test]
    fn a_job_named_by_the_time_is_its_cron_jobs_until_its_last_pod_is_gone() {
        let mut owners = Owners::new(None, None);
        let run = ("Job", "report-29123456");
        assert_eq!(told(owners.resolve(vec![pod("a", run, &[])])), ["Job/report-29123456 of CronJob/report"]);
        assert!(told(owners.resolve(vec![pod("b", run, &[]), pod("a", run, &[])])).is_empty());
        assert!(told(owners.resolve(vec![gone("a")])).is_empty());
        assert_eq!(told(owners.resolve(vec![gone("b")])), ["no Job/shop/report-29123456"]);
        assert!(owners.pods_of.is_empty() && owners.owner_of.is_empty());
    }

    #[test]
    fn what_a_name_does_not_tell_is_asked_for_once_and_only_for_the_own_node() {
        let (questions, mut asked) = mpsc::channel(8);
        let mut owners = Owners::new(Some("n1".into()), Some(questions.clone()));
        let hash = [("pod-template-hash", "5d8f")];
        owners.resolve(vec![
            pod("a", ("ReplicaSet", "web-5d8f"), &hash),
            pod("b", ("ReplicaSet", "web-77aa"), &hash),
            pod("c", ("ReplicaSet", "web-77aa"), &hash),
            pod("d", ("Job", "migrate-20261128"), &[]),
            pod("e", ("StatefulSet", "db"), &[]),
        ]);
        let mut names = Vec::new();
        while let Ok(owner) = asked.try_recv() {
            names.push(owner.name.to_string());
        }
        assert_eq!(names, ["web-77aa", "migrate-20261128"]);
        let mut owners = Owners::new(Some("n2".into()), Some(questions));
        owners.resolve(vec![pod("d", ("Job", "migrate-20261128"), &[])]);
        assert!(asked.try_recv().is_err());
        assert_eq!(
            told(owners.resolve(vec![pod("f", ("Job", "report-29123456"), &[])])).len(),
            1,
            "needs no asking"
        );
    }
}
