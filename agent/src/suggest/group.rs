//! Groups: the workloads that policies can tell apart, each with the selector that selects exactly it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use rustc_hash::{FxHashMap, FxHashSet};

use super::selector::{self, Found};
use crate::model::edge::Edge;
use crate::model::endpoint::{Endpoint, Party, Pod};
use crate::model::labels::Labels;
use crate::model::object::WorkloadRef;

/// Kinds whose selector is not theirs to choose: the labels come from the pods, a release's among them.
const WITHOUT_SELECTOR: [&str; 3] = ["CronJob", "Job", "Pod"];

/// The place of a group among all. Sorted by namespace and first workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct GroupId(usize);

/// One workload, or several whose pods' labels do not tell them apart.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) namespace: Arc<str>,
    /// Sorted; never empty.
    pub(super) workloads: Vec<WorkloadRef>,
    /// Selects exactly the pods of these workloads; `None` where their pods have no label in common.
    pub(super) selector: Option<LabelSelector>,
}

impl Group {
    /// Its workloads, for people.
    pub(super) fn names(&self) -> String {
        self.workloads.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// All groups of the cluster.
#[derive(Debug)]
pub(super) struct Groups {
    groups: Vec<Group>,
    by_workload: FxHashMap<Arc<str>, FxHashMap<WorkloadRef, GroupId>>,
}

/// What is known of the pods of one or more workloads.
#[derive(Debug)]
struct Members {
    workloads: Vec<WorkloadRef>,
    /// Every set of labels that their pods have or had.
    labels: BTreeSet<Labels>,
    /// The labels that select them by their own account.
    base: Labels,
}

impl Groups {
    /// Groups all pods that are known: those of the cluster and those that the edges were recorded with.
    pub(super) fn new(edges: &[Edge], pods: &[Arc<Pod>]) -> Self {
        let mut by_namespace: BTreeMap<Arc<str>, BTreeMap<WorkloadRef, Members>> = BTreeMap::new();
        let mut seen = FxHashSet::default();
        let recorded = edges.iter().flat_map(|edge| [&edge.initiator, &edge.responder]).flat_map(pods_of);
        for pod in pods.iter().chain(recorded) {
            // Policies neither select hostNetwork pods nor see them as pods.
            if !pod.host_network && seen.insert(Arc::as_ptr(pod)) {
                let workloads = by_namespace.entry(Arc::clone(&pod.namespace)).or_default();
                add(workloads, pod);
            }
        }
        let mut found = Self { groups: Vec::new(), by_workload: FxHashMap::default() };
        for (namespace, workloads) in by_namespace {
            let told_apart = tell_apart(merge_equal(workloads.into_values().collect()));
            for (members, selector) in told_apart {
                let id = GroupId(found.groups.len());
                let by_workload = found.by_workload.entry(Arc::clone(&namespace)).or_default();
                by_workload.extend(members.workloads.iter().map(|workload| (workload.clone(), id)));
                let namespace = Arc::clone(&namespace);
                found.groups.push(Group { namespace, workloads: members.workloads, selector });
            }
        }
        found
    }

    /// The group of a pod; `None` for a hostNetwork pod.
    pub(super) fn of(&self, pod: &Pod) -> Option<GroupId> {
        if pod.host_network {
            return None;
        }
        self.by_workload.get(&pod.namespace)?.get(&pod.workload).copied()
    }

    pub(super) fn get(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(id.0)
    }
}

/// The pods that an end of an edge stands for.
fn pods_of(party: &Party) -> Vec<&Arc<Pod>> {
    match &party.endpoint {
        Endpoint::Pod(pod) => vec![pod],
        Endpoint::Service(service) => service.backends.iter().filter_map(|b| b.party.as_pod()).collect(),
        Endpoint::Node(_) | Endpoint::External | Endpoint::Range(_) | Endpoint::Unknown(_) => Vec::new(),
    }
}

fn add(workloads: &mut BTreeMap<WorkloadRef, Members>, pod: &Pod) {
    let labels = selector::lasting(&pod.identity.labels, &*pod.workload.kind == "Job");
    let base = if WITHOUT_SELECTOR.contains(&&*pod.workload.kind) {
        selector::of_no_release(&pod.selector)
    } else {
        pod.selector.clone()
    };
    match workloads.get_mut(&pod.workload) {
        Some(members) => {
            members.labels.insert(labels);
            members.base = both(&members.base, &base);
        }
        None => {
            let members =
                Members { workloads: vec![pod.workload.clone()], labels: BTreeSet::from([labels]), base };
            workloads.insert(pod.workload.clone(), members);
        }
    }
}

/// The labels that both sets have.
fn both(a: &Labels, b: &Labels) -> Labels {
    a.iter().filter(|(key, value)| b.get(key) == Some(value)).collect()
}

impl Members {
    fn merge(&mut self, other: Self) {
        self.workloads.extend(other.workloads);
        self.workloads.sort();
        self.labels.extend(other.labels);
        self.base = both(&self.base, &other.base);
    }
}

/// Merges the workloads whose pods have the same labels: nothing can tell them apart. Pods without a label that
/// could select them stay as they are: they get no policy anyway.
fn merge_equal(workloads: Vec<Members>) -> Vec<Members> {
    let mut by_labels: BTreeMap<BTreeSet<Labels>, Members> = BTreeMap::new();
    let mut merged = Vec::new();
    for members in workloads {
        if selector::common(&members.labels).is_empty() {
            merged.push(members);
            continue;
        }
        match by_labels.get_mut(&members.labels) {
            Some(equal) => equal.merge(members),
            None => {
                by_labels.insert(members.labels.clone(), members);
            }
        }
    }
    merged.extend(by_labels.into_values());
    merged.sort_by(|a, b| a.workloads.cmp(&b.workloads));
    merged
}

/// Searches each one's selector, and merges those that still cannot be told apart until all can.
fn tell_apart(mut all: Vec<Members>) -> Vec<(Members, Option<LabelSelector>)> {
    loop {
        let mut selectors = Vec::with_capacity(all.len());
        let mut merge = None;
        for (at, members) in all.iter().enumerate() {
            let others: Vec<_> =
                all.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, m)| &m.labels).collect();
            match selector::search(&members.labels, &members.base, &others) {
                Found::Exact(selector) => selectors.push(Some(selector)),
                Found::NoLabel => selectors.push(None),
                Found::Shared(with) => {
                    // `others` leaves out `at` itself.
                    merge = Some((at, with.into_iter().map(|o| if o >= at { o + 1 } else { o }).collect()));
                    break;
                }
            }
        }
        let Some((at, with)) = merge else { return all.into_iter().zip(selectors).collect() };
        all = merge_at(all, at, &with);
    }
}

fn merge_at(all: Vec<Members>, at: usize, with: &BTreeSet<usize>) -> Vec<Members> {
    let (mut kept, mut together) = (Vec::new(), Vec::new());
    for (place, members) in all.into_iter().enumerate() {
        if place == at || with.contains(&place) { together.push(members) } else { kept.push(members) }
    }
    let merged = together.into_iter().reduce(|mut all, next| {
        all.merge(next);
        all
    });
    kept.extend(merged);
    kept.sort_by(|a, b| a.workloads.cmp(&b.workloads));
    kept
}
