//! Recorded edges → the least NetworkPolicies that allow what was accepted. Pure: no I/O, no clock.
//!
//! **One policy a workload, both directions in it.** A reader asks "what may `web` do, and who may reach it?" and
//! finds the answer in one object of one owner; there are half as many objects to review as with one a
//! direction, and none without rules, which would only isolate. Isolation is per direction all the same:
//! `policyTypes` names only the directions that have rules, and rolling out one direction at a time is
//! [`Options::directions`]. The names do not depend on it, so a later run replaces what an earlier one made.
//!
//! **Never wider than what was seen**, but for what a selector cannot help: a rule is for a whole workload, not
//! for one pod; workloads with the same labels are one to a policy (and a warning says so); the DNS of a
//! namespace is opened once for all of its pods. Addresses are named one by one, and merged only where the
//! merged block holds nothing else.
//!
//! **Never in the way of what was accepted.** Where an accepted edge would break because no rule can allow it (its
//! other end is unknown, or a pod without labels), the workload's section and its namespace's default-deny are left
//! out in that direction, and warnings say why. The user may ask for them all the same ([`Options::deny_also`],
//! [`Options::cut_off_unknown`]). What policies leave open, as ICMP, is only a warning.

mod build;
mod evidence;
mod gather;
mod group;
mod name;
mod not_judged;
mod options;
mod plan;
mod rules;
mod selector;
mod warning;
mod yaml;

use std::sync::Arc;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::Serialize;

use crate::model::edge::Edge;
use crate::model::endpoint::Pod;
use crate::model::object::WorkloadRef;

pub use evidence::{Evidence, RuleEvidence};
pub use gather::is_accepted;
pub use options::{Dns, Options};
pub use warning::{Warning, WarningKind};

/// What a suggested policy is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "purpose", content = "workloads")]
pub enum Purpose {
    /// Allows what a workload did; several workloads where their pods' labels do not tell them apart.
    Workload(Vec<WorkloadRef>),
    /// Allows every pod of the namespace to ask the cluster's DNS.
    Dns,
    /// Denies what the other policies of the namespace do not allow.
    DefaultDeny,
}

/// One suggested policy and what its rules rest on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Suggestion {
    #[serde(flatten)]
    pub purpose: Purpose,
    pub policy: NetworkPolicy,
    /// One for each rule of the policy: those of `ingress` first, in the policy's order.
    pub rules: Vec<RuleEvidence>,
}

/// What is suggested, in the order in which to apply it.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Suggestions {
    /// The workloads' policies, then `allow-dns` of each namespace, then `default-deny` of each namespace.
    pub policies: Vec<Suggestion>,
    /// Sorted by kind and subject.
    pub warnings: Vec<Warning>,
    /// How many of the edges that were given count as accepted.
    pub accepted_edges: usize,
}

/// Suggests the least policies under which no accepted edge is denied.
///
/// `pods` are all pods of the cluster that are known, so that a selector can be checked to select exactly its
/// workload; pods that only occur in `edges` are added to them. The result does not depend on the order of
/// either.
pub fn suggest(edges: &[Edge], pods: &[Arc<Pod>], options: &Options) -> Suggestions {
    let groups = group::Groups::new(edges, pods);
    let gathered = gather::Gathered::new(edges, &groups, options);
    plan::plan(gathered, &groups, options)
}

#[cfg(test)]
mod tests;
