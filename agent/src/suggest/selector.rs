//! Selectors that select exactly a workload's pods.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::model::labels::Labels;
use crate::model::selector::{Operator, Requirement};

/// Labels whose values controllers make up for a pod or a revision: their values select nothing that lasts,
/// whether they are there does (Kubernetes docs, "Well-Known Labels, Annotations and Taints").
const MADE_UP: [&str; 10] = [
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/job-name",
    "controller-revision-hash",
    "controller-uid",
    "job-name",
    "pod-template-generation",
    "pod-template-hash",
    "rollouts-pod-template-hash",
];
/// As [`MADE_UP`], but one replica of a StatefulSet has it for good: still no label of the workload.
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";

/// Labels that change with every release: the last to tell workloads apart by.
const OF_A_RELEASE: [&str; 4] = ["app.kubernetes.io/version", "chart", "helm.sh/chart", "version"];

/// Where two labels tell the same apart, the one that people read first (Kubernetes docs, "Recommended
/// Labels"; `app` and `k8s-app` are their forerunners).
const TELLING: [&str; 8] = [
    "app.kubernetes.io/name",
    "app",
    "k8s-app",
    "app.kubernetes.io/component",
    "component",
    "tier",
    "app.kubernetes.io/instance",
    "role",
];

/// What a search came to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found {
    Exact(LabelSelector),
    /// These (by their place among the others) have pods that no selector tells apart from the workload's.
    Shared(Vec<usize>),
    /// The pods have no label in common that could select them.
    NoLabel,
}

/// The labels without the values that controllers make up: pods of one workload become equal by it.
pub(super) fn lasting(labels: &Labels, is_job: bool) -> Labels {
    let lasts = |key: &str| !is_made_up(key) || (is_job && key.ends_with("job-name"));
    labels.iter().map(|(key, value)| (key, if lasts(key) { value } else { "" })).collect()
}

/// The labels without those that change with every release, unless there are no others.
pub(super) fn of_no_release(labels: &Labels) -> Labels {
    let kept: Labels = labels.iter().filter(|(key, _)| !OF_A_RELEASE.contains(key)).collect();
    if kept.is_empty() { labels.clone() } else { kept }
}

fn is_made_up(key: &str) -> bool {
    key == POD_NAME || MADE_UP.contains(&key)
}

/// The labels that all of them have, but for the made-up ones.
pub(super) fn common(variants: &BTreeSet<Labels>) -> Labels {
    let mut variants = variants.iter();
    let Some(first) = variants.next() else { return Labels::default() };
    let rest: Vec<_> = variants.collect();
    let shared = |&(key, value): &(&str, &str)| {
        let given = !value.is_empty() || !is_made_up(key);
        given && rest.iter().all(|labels| labels.get(key) == Some(value))
    };
    first.iter().filter(shared).collect()
}

/// Searches a selector that matches every one of `own` and none of `others`, starting from the labels `base`
/// that select the workload's pods by its own account. At least one label is required by its value, so that
/// nothing is selected by what it lacks alone.
pub(super) fn search(own: &BTreeSet<Labels>, base: &Labels, others: &[&BTreeSet<Labels>]) -> Found {
    let common = common(own);
    if common.is_empty() {
        return Found::NoLabel;
    }
    let has_base = base.iter().any(|(key, value)| common.get(key) == Some(value));
    let starts = |&(key, value): &(&str, &str)| !has_base || base.get(key) == Some(value);
    let mut chosen: Vec<Requirement> = common.iter().filter(starts).map(equal).collect();
    let based = chosen.len();

    let all: Vec<(usize, &Labels)> =
        others.iter().enumerate().flat_map(|(at, labels)| labels.iter().map(move |l| (at, l))).collect();
    let mut wrong: Vec<(usize, &Labels)> =
        all.into_iter().filter(|(_, labels)| chosen.iter().all(|r| r.matches(labels))).collect();
    let first_wrong = wrong.clone();
    while !wrong.is_empty() {
        let Some(best) = best(own, &common, &wrong) else {
            let shared: BTreeSet<usize> = wrong.iter().map(|(at, _)| *at).collect();
            return Found::Shared(shared.into_iter().collect());
        };
        wrong.retain(|(_, labels)| best.matches(labels));
        chosen.push(best);
    }
    // What was added early may have become needless.
    for at in (based..chosen.len()).rev() {
        let without = |labels: &Labels| chosen.iter().enumerate().all(|(i, r)| i == at || r.matches(labels));
        if !first_wrong.iter().any(|(_, labels)| without(labels)) {
            chosen.remove(at);
        }
    }
    Found::Exact(label_selector(&chosen))
}

fn equal((key, value): (&str, &str)) -> Requirement {
    Requirement { key: key.into(), operator: Operator::In(vec![value.into()]) }
}

/// The requirement that all of `own` fulfil and that leaves out the most of `wrong`: labels by value first,
/// then by presence, then by other values than theirs; a release's labels last.
fn best(own: &BTreeSet<Labels>, common: &Labels, wrong: &[(usize, &Labels)]) -> Option<Requirement> {
    let keys: BTreeSet<&str> = own
        .iter()
        .chain(wrong.iter().map(|(_, labels)| *labels))
        .flat_map(|l| l.iter().map(|(k, _)| k))
        .collect();
    let ranked = keys.into_iter().filter_map(|key| {
        let requirement = requirement(key, own, common, wrong)?;
        let excluded = wrong.iter().filter(|(_, labels)| !requirement.matches(labels)).count();
        let telling = TELLING.iter().position(|known| *known == key).unwrap_or(TELLING.len());
        (excluded > 0).then(|| ((rank(&requirement), Reverse(excluded), telling, key), requirement))
    });
    ranked.min_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, requirement)| requirement)
}

fn rank(requirement: &Requirement) -> u8 {
    match requirement.operator {
        Operator::In(_) if OF_A_RELEASE.contains(&&*requirement.key) => 4,
        Operator::In(_) => 0,
        Operator::DoesNotExist => 1,
        Operator::Exists => 2,
        Operator::NotIn(_) => 3,
    }
}

/// What can be required of a key so that all of `own` still fulfil it.
fn requirement(
    key: &str,
    own: &BTreeSet<Labels>,
    common: &Labels,
    wrong: &[(usize, &Labels)],
) -> Option<Requirement> {
    if let Some(value) = common.get(key) {
        return Some(equal((key, value)));
    }
    let having = own.iter().filter(|labels| labels.get(key).is_some()).count();
    let operator = if having == 0 {
        Operator::DoesNotExist
    } else if having == own.len() && wrong.iter().any(|(_, labels)| labels.get(key).is_none()) {
        Operator::Exists
    } else if is_made_up(key) {
        return None;
    } else {
        let values: BTreeSet<&str> = wrong.iter().filter_map(|(_, labels)| labels.get(key)).collect();
        let strange =
            values.into_iter().filter(|value| own.iter().all(|labels| labels.get(key) != Some(value)));
        let strange: Vec<Arc<str>> = strange.map(Arc::from).collect();
        if strange.is_empty() {
            return None;
        }
        Operator::NotIn(strange)
    };
    Some(Requirement { key: key.into(), operator })
}

/// The API's form: one value as `matchLabels`, the rest as `matchExpressions`, sorted by key.
fn label_selector(requirements: &[Requirement]) -> LabelSelector {
    let mut labels = BTreeMap::new();
    let mut expressions = Vec::new();
    for Requirement { key, operator } in requirements {
        let (operator, values) = match operator {
            Operator::In(values) => {
                labels.extend(values.iter().map(|value| (key.to_string(), value.to_string())));
                continue;
            }
            Operator::NotIn(values) => ("NotIn", Some(values.iter().map(ToString::to_string).collect())),
            Operator::Exists => ("Exists", None),
            Operator::DoesNotExist => ("DoesNotExist", None),
        };
        expressions.push(LabelSelectorRequirement {
            key: key.to_string(),
            operator: operator.to_owned(),
            values,
        });
    }
    expressions.sort_by(|a, b| (&a.key, &a.operator).cmp(&(&b.key, &b.operator)));
    LabelSelector {
        match_labels: (!labels.is_empty()).then_some(labels),
        match_expressions: (!expressions.is_empty()).then_some(expressions),
    }
}

#[cfg(test)]
mod tests;
