//! Needs → policies, in the order in which to apply them, and what had to be left out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::build::{Parts, suggestion};
use super::gather::{Gathered, Needs, Peer, Unnamed, merge};
use super::group::{GroupId, Groups};
use super::options::Options;
use super::rules::rules;
use super::warning::{WarningKind, Warnings};
use super::{Purpose, Suggestion, Suggestions, name};
use crate::model::edge::Direction;

/// A namespace and a direction of its pods.
type Side = (Arc<str>, Direction);

/// Decides what is isolated, and builds the policies.
pub(super) fn plan(mut gathered: Gathered, groups: &Groups, options: &Options) -> Suggestions {
    let mut warnings = std::mem::take(&mut gathered.warnings);
    let left_open = left_open(&gathered, groups, options, &mut warnings);
    let closed = closed(&gathered, groups, options, &left_open, &mut warnings);

    let by_namespace = place_dns(&mut gathered, groups, &closed);
    let mut policies = workload_policies(gathered.needs, groups, &left_open, &mut warnings);
    policies.extend(by_namespace.into_iter().map(|(namespace, needs)| allow_dns(&namespace, needs, groups)));
    policies.extend(default_denies(&closed, groups));
    Suggestions { policies, warnings: warnings.into_sorted(), accepted_edges: gathered.accepted_edges }
}

/// The workloads that get no policy in a direction, because it would cut off what no rule can name.
fn left_open(
    gathered: &Gathered,
    groups: &Groups,
    options: &Options,
    warnings: &mut Warnings,
) -> BTreeSet<(GroupId, Direction)> {
    let mut left_open = BTreeSet::new();
    for Unnamed { subject, direction } in &gathered.unnamed {
        let Some(group) = groups.get(*subject) else { continue };
        let kind = if options.deny_also.contains(&group.namespace) {
            WarningKind::CutOff
        } else {
            left_open.insert((*subject, *direction));
            WarningKind::DirectionLeftOut
        };
        warnings.add(kind, group.names(), Some(*direction), None);
    }
    for (id, direction) in gathered.needs.keys() {
        let Some(group) = groups.get(*id).filter(|group| group.selector.is_none()) else { continue };
        warnings.add(WarningKind::NoLabels, group.names(), None, None);
        left_open.insert((*id, *direction));
    }
    left_open
}

/// The namespaces and directions that get a default-deny.
fn closed(
    gathered: &Gathered,
    groups: &Groups,
    options: &Options,
    left_open: &BTreeSet<(GroupId, Direction)>,
    warnings: &mut Warnings,
) -> BTreeSet<Side> {
    let mut breaking: BTreeMap<Side, BTreeSet<String>> = BTreeMap::new();
    for (id, direction) in left_open {
        let Some(group) = groups.get(*id) else { continue };
        breaking.entry((Arc::clone(&group.namespace), *direction)).or_default().insert(group.names());
    }
    let observed = gathered.observed.iter().filter(|_| options.default_deny);
    let namespaces: BTreeSet<&Arc<str>> = observed.chain(&options.deny_also).collect();
    let sides = namespaces
        .into_iter()
        .flat_map(|namespace| options.directions.iter().map(|direction| (Arc::clone(namespace), *direction)));
    let mut closed = BTreeSet::new();
    for side in sides {
        match breaking.get(&side) {
            Some(subjects) if !options.deny_also.contains(&side.0) => {
                for subject in subjects {
                    let item = Some(subject.clone());
                    warnings.add(WarningKind::DefaultDenyLeftOut, &side.0, Some(side.1), item);
                }
            }
            breaking => {
                for subject in breaking.into_iter().flatten() {
                    warnings.add(WarningKind::CutOff, subject, Some(side.1), None);
                }
                closed.insert(side);
            }
        }
    }
    closed
}

/// The DNS of whole namespaces, where their egress is denied otherwise; elsewhere `allow-dns` would isolate pods
/// that nothing else isolates, so there each workload gets its own rule.
fn place_dns(gathered: &mut Gathered, groups: &Groups, closed: &BTreeSet<Side>) -> BTreeMap<Arc<str>, Needs> {
    let mut by_namespace: BTreeMap<Arc<str>, Needs> = BTreeMap::new();
    for (id, needs) in std::mem::take(&mut gathered.dns) {
        let Some(group) = groups.get(id) else { continue };
        let side = (Arc::clone(&group.namespace), Direction::Egress);
        if closed.contains(&side) {
            // The peer is the cluster's DNS for all of them: who asked is what a reader wants to know.
            let asked = needs.into_iter().map(|(peer, mut need)| {
                need.who = need.who.all_as(&group.names());
                (peer, need)
            });
            merge(by_namespace.entry(side.0).or_default(), asked.collect());
        } else {
            merge(gathered.needs.entry((id, Direction::Egress)).or_default(), needs);
        }
    }
    by_namespace
}

/// One policy for each workload that needs something, with the directions in which it does.
fn workload_policies(
    needs: BTreeMap<(GroupId, Direction), Needs>,
    groups: &Groups,
    left_open: &BTreeSet<(GroupId, Direction)>,
    warnings: &mut Warnings,
) -> Vec<Suggestion> {
    let mut sections: BTreeMap<GroupId, BTreeMap<Direction, Needs>> = BTreeMap::new();
    for ((id, direction), needs) in needs {
        if !left_open.contains(&(id, direction)) {
            sections.entry(id).or_default().insert(direction, needs);
        }
    }
    let policy = |(id, sections): (GroupId, BTreeMap<Direction, Needs>)| {
        let group = groups.get(id)?;
        let parts = Parts {
            purpose: Purpose::Workload(group.workloads.clone()),
            namespace: group.namespace.to_string(),
            name: name::of_workload(group.workloads.first()?),
            selector: group.selector.clone()?,
            sections: sections.into_iter().map(|(direction, needs)| (direction, rules(needs))).collect(),
        };
        let named = parts.sections.values().flatten().flat_map(|rule| &rule.peers);
        let peers = named.filter_map(|(peer, _)| match peer {
            Peer::Workload(id) => groups.get(*id),
            Peer::Namespace(_) | Peer::Node(_) | Peer::External(_) => None,
        });
        for several in peers.chain([group]).filter(|group| group.workloads.len() > 1) {
            warnings.add(WarningKind::SameLabels, several.names(), None, None);
        }
        Some(suggestion(parts, groups))
    };
    sections.into_iter().filter_map(policy).collect()
}

fn allow_dns(namespace: &str, needs: Needs, groups: &Groups) -> Suggestion {
    let parts = Parts {
        purpose: Purpose::Dns,
        namespace: namespace.to_owned(),
        name: "allow-dns".to_owned(),
        selector: LabelSelector::default(),
        sections: BTreeMap::from([(Direction::Egress, rules(needs))]),
    };
    suggestion(parts, groups)
}

fn default_denies(closed: &BTreeSet<Side>, groups: &Groups) -> Vec<Suggestion> {
    let mut by_namespace: BTreeMap<&Arc<str>, BTreeMap<Direction, _>> = BTreeMap::new();
    for (namespace, direction) in closed {
        by_namespace.entry(namespace).or_default().insert(*direction, Vec::new());
    }
    let policy = |(namespace, sections): (&Arc<str>, _)| {
        let parts = Parts {
            purpose: Purpose::DefaultDeny,
            namespace: namespace.to_string(),
            name: "default-deny".to_owned(),
            selector: LabelSelector::default(),
            sections,
        };
        suggestion(parts, groups)
    };
    by_namespace.into_iter().map(policy).collect()
}
