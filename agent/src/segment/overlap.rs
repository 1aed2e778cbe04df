//! Overlaps that can be seen without any endpoint: under `Reject` they take a map out of force.

use std::fmt;

use super::finding::Finding;
use super::map::Segment;
use super::member::{CLOUD_METADATA, Entity, Member, Namespaces};

/// Members beyond which pairs are no longer compared: a million comparisons, some 50 ms. What is not compared
/// is found when an endpoint is met that is in two segments.
const COMPARED: usize = 1_500;

/// One finding for each pair of segments of which members overlap visibly, at the later member.
pub(crate) fn visible(segments: &[Segment]) -> Vec<Finding> {
    let total: usize = segments.iter().map(|segment| segment.members.len()).sum();
    if total > COMPARED {
        let note = format_args!(
            "has {total} members in all; overlaps are looked for in at most {COMPARED}, so any are found only \
             when an endpoint is met that is in two segments"
        );
        return vec![Finding::note("spec.segments", note)];
    }
    let mut found = Vec::new();
    for (later, segment) in segments.iter().enumerate() {
        for (earlier, other) in segments.iter().enumerate().take(later) {
            let pairs =
                segment.members.iter().flat_map(|one| other.members.iter().map(move |two| (one, two)));
            let first = pairs.into_iter().find_map(|((at, one), (other_at, two))| {
                let common = common(one, two)?;
                let field = format!("spec.segments[{later}].members[{at}]");
                let wrong = format_args!(
                    "{common} is also in segment {} (spec.segments[{earlier}].members[{other_at}]); overlap is \
                     Reject: make them disjoint, or set overlap to FirstMatch",
                    other.name
                );
                Some(Finding::not_in_force(field, wrong))
            });
            found.extend(first);
        }
    }
    found
}

/// What two members visibly have in common, in words.
fn common(one: &Member, other: &Member) -> Option<String> {
    one_way(one, other).or_else(|| one_way(other, one))
}

fn one_way(one: &Member, other: &Member) -> Option<String> {
    let words = |what: &dyn fmt::Display| Some(what.to_string());
    match (one, other) {
        (Member::Addresses(a), Member::Addresses(b)) => a.common(b).map(|common| common.to_string()),
        (Member::Addresses(set), Member::Entity(Entity::CloudMetadata)) => {
            CLOUD_METADATA.iter().find(|address| set.contains(**address)).map(ToString::to_string)
        }
        (Member::Addresses(set), Member::Entity(Entity::World)) => {
            let public = set.without_private();
            public.intervals().first().map(|part| format!("{part} (outside the cluster: world)"))
        }
        (Member::Entity(a), Member::Entity(b)) if a == b => words(a),
        (Member::Entity(Entity::Host), Member::Entity(Entity::Node)) => {
            Some("host (it is a node)".to_owned())
        }
        (Member::Fqdn(name), Member::Entity(Entity::World)) => Some(format!("{name} (outside: world)")),
        (Member::Fqdn(a), Member::Fqdn(b)) if is_below(a, b) => words(a),
        (Member::Vlan(a), Member::Vlan(b)) if a == b => Some(format!("vlan {a}")),
        (
            Member::Pods { namespaces: Namespaces::Selected(a), pods: a_pods },
            Member::Pods { namespaces: Namespaces::Selected(b), pods: b_pods },
        ) if (b.is_everything() || a == b) && (b_pods.is_everything() || a_pods == b_pods) => {
            Some(format!("pods ({a_pods}) of namespaces ({a})"))
        }
        (
            Member::Entity(Entity::ClusterDns),
            Member::Pods { namespaces: Namespaces::Selected(any), pods },
        ) if any.is_everything() && pods.is_everything() => Some("cluster-dns (its pods)".to_owned()),
        _ => None,
    }
}

/// Whether every name that `name` stands for is one that `pattern` stands for.
fn is_below(name: &str, pattern: &str) -> bool {
    let Some(domain) = pattern.strip_prefix("*.") else { return name == pattern };
    let name = name.strip_prefix("*").unwrap_or(name);
    name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}
