//! Warnings: what a suggestion cannot say or should not be trusted in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::model::edge::Direction;

/// What a warning is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WarningKind {
    /// Left out: a default-deny, because something accepted would break under it.
    DefaultDenyLeftOut,
    /// Left out: a direction of a workload's policy, because no rule can name a peer that it would cut off.
    DirectionLeftOut,
    /// Cut off: no rule can name the peer, and a default-deny was asked for all the same.
    CutOff,
    /// The workload's pods have no label in common: no policy can select them.
    NoLabels,
    /// Several workloads whose pods' labels do not tell them apart: what one may do, the others may.
    SameLabels,
    /// The workload uses its node's network: no policy selects it.
    HostNetwork,
    /// A peer that no rule can name: its pods have no label in common, or the dialect matches no nodes by address.
    UnnamedPeer,
    /// An end could not be joined with the cluster: no rule, and so nothing allows it.
    UnknownEnd,
    /// A Service without a backend that is known: no rule.
    NoBackends,
    /// NetworkPolicy cannot name ICMP: no rule; whether it passes is up to the CNI.
    Icmp,
    /// Nodes and hostNetwork pods are named by address: whatever runs on that node's network is allowed too.
    NodeByAddress,
    /// Outside addresses are named one by one, and may change.
    ExternalByAddress,
    /// Only one direction of the packets was seen: allowed, though nobody saw it accepted.
    Unconfirmed,
}

impl WarningKind {
    const fn sentence(self) -> &'static str {
        match self {
            Self::DefaultDenyLeftOut => {
                "gets no default-deny in this direction: accepted connections would break (see the other warnings)"
            }
            Self::DirectionLeftOut => {
                "gets no policy in this direction: it would cut off accepted connections that no rule can allow (see \
                 the other warnings)"
            }
            Self::CutOff => "is cut off from what no rule can allow, because a default-deny was asked for",
            Self::NoLabels => {
                "its pods have no lasting label in common, so no policy can select them: label them"
            }
            Self::SameLabels => {
                "the labels of these workloads' pods do not tell them apart: what one was seen to do, all may do"
            }
            Self::HostNetwork => {
                "uses its node's network: no policy selects it, what it does is not restricted"
            }
            Self::UnnamedPeer => "no rule can name these peers: label their pods",
            Self::UnknownEnd => "no rule, the other end could not be joined with the cluster",
            Self::NoBackends => "no rule, the Service has no ready backend that is known",
            Self::Icmp => "no rule, NetworkPolicy cannot name ICMP: whether it passes is up to the CNI",
            Self::NodeByAddress => {
                "nodes are named by address: all that uses the node's network is allowed too, and not every CNI \
                 matches nodes by ipBlock"
            }
            Self::ExternalByAddress => "outside addresses are named one by one: they may change",
            Self::Unconfirmed => {
                "allowed although nobody saw it accepted: only one direction of the packets could be seen"
            }
        }
    }
}

/// One warning: about whom, and what in particular.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Warning {
    pub kind: WarningKind,
    /// A workload as `namespace/Kind/name`, or a namespace.
    pub subject: String,
    /// The direction that it concerns; `None` where it concerns both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// The peers and ports in question, sorted; may be empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<String>,
}

impl Warning {
    /// What is wrong, in a sentence, without the subject and the items.
    pub const fn message(&self) -> &'static str {
        self.kind.sentence()
    }
}

impl fmt::Display for Warning {
    /// `subject, egress: message`, without the items.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject)?;
        if let Some(direction) = self.direction {
            write!(f, ", {}", direction.as_str().to_lowercase())?;
        }
        write!(f, ": {}", self.message())
    }
}

/// Collects warnings, one for each kind, subject and direction.
#[derive(Debug, Default)]
pub(super) struct Warnings(BTreeMap<(WarningKind, String, Option<Direction>), BTreeSet<String>>);

impl Warnings {
    pub(super) fn add(
        &mut self,
        kind: WarningKind,
        subject: impl fmt::Display,
        direction: Option<Direction>,
        item: Option<String>,
    ) {
        self.0.entry((kind, subject.to_string(), direction)).or_default().extend(item);
    }

    pub(super) fn into_sorted(self) -> Vec<Warning> {
        let warning = |((kind, subject, direction), items): ((_, String, _), BTreeSet<String>)| Warning {
            kind,
            subject,
            direction,
            items: items.into_iter().collect(),
        };
        self.0.into_iter().map(warning).collect()
    }
}
