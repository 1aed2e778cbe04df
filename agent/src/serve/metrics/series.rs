//! What the series are told apart by, and how their labels read.

use std::borrow::Cow;
use std::sync::Arc;

use super::capped::{Fold, Key};
use crate::model::cause::Cause;
use crate::model::edge::{Direction, Protocol};
use crate::model::endpoint::{Endpoint, Party};
use crate::model::object::WorkloadRef;
use crate::model::verdict::Verdict;

/// The label value of everything that an overflow series no longer tells apart.
pub const OVERFLOW: &str = "__overflow__";

/// Labels in the order in which they are written.
pub(super) type LabelPairs<'a> = Vec<(&'static str, Cow<'a, str>)>;

/// The other end, as bounded labels: workloads, never pods; places, never addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Peer {
    Workload(WorkloadRef),
    /// A Service that could not be taken to its pods.
    Service(WorkloadRef),
    /// Any node: their names would grow with the cluster.
    Node,
    /// Any address outside the cluster.
    World,
    Unknown,
    Overflow,
}

impl From<&Party> for Peer {
    fn from(party: &Party) -> Self {
        match &party.endpoint {
            Endpoint::Pod(pod) => Self::Workload(pod.workload.clone()),
            Endpoint::Service(service) => {
                Self::Service(WorkloadRef::new("Service", &service.namespace, &service.name))
            }
            Endpoint::Node(_) => Self::Node,
            Endpoint::External | Endpoint::Range(_) => Self::World,
            Endpoint::Unknown(_) => Self::Unknown,
        }
    }
}

impl Peer {
    /// The workload or Service that it names.
    const fn workload(&self) -> Option<&WorkloadRef> {
        match self {
            Self::Workload(workload) | Self::Service(workload) => Some(workload),
            Self::Node | Self::World | Self::Unknown | Self::Overflow => None,
        }
    }

    /// `peer_namespace`, `peer_workload`, `peer_type`.
    fn labels(&self) -> [&str; 3] {
        match self {
            Self::Workload(workload) | Self::Service(workload) => {
                [&workload.namespace, &workload.name, &workload.kind]
            }
            Self::Node => ["", "node", "Node"],
            Self::World => ["", "world", "External"],
            Self::Unknown => ["", "unknown", "Unknown"],
            Self::Overflow => [OVERFLOW; 3],
        }
    }
}

/// The responder's port as a bounded label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum PortLabel {
    Is(u16),
    /// One of the ports beyond those that a pair may have on its own.
    Many,
    Overflow,
}

/// Which connections of whose a series counts: what families of forbidden connections share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Forbidden {
    /// `None` in the family's overflow series.
    pub(super) subject: Option<WorkloadRef>,
    pub(super) peer: Peer,
    pub(super) port: PortLabel,
    pub(super) protocol: Option<Protocol>,
    pub(super) cause: Option<Cause>,
    pub(super) excepted: bool,
}

impl Forbidden {
    fn folded(&self, into: Fold) -> Self {
        Self {
            subject: self.subject.clone().filter(|_| into == Fold::Workload),
            peer: Peer::Overflow,
            port: PortLabel::Overflow,
            protocol: None,
            cause: None,
            excepted: self.excepted,
        }
    }

    /// The labels from `namespace` on.
    fn labels(&self) -> impl Iterator<Item = (&'static str, Cow<'_, str>)> {
        let [peer_namespace, peer_workload, peer_type] = self.peer.labels();
        let rest = [
            ("peer_namespace", peer_namespace.into()),
            ("peer_workload", peer_workload.into()),
            ("peer_type", peer_type.into()),
            ("port", port_label(self.port, self.protocol)),
            ("protocol", self.protocol.map_or(OVERFLOW, Protocol::as_str).into()),
            ("cause", self.cause.map_or(OVERFLOW, Cause::as_str).into()),
            ("excepted", bool_label(self.excepted).into()),
        ];
        subject_labels(self.subject.as_ref()).into_iter().chain(rest)
    }
}

/// A series of `dryfence_would_deny_connections_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct WouldDeny {
    pub(super) scenario: &'static str,
    pub(super) direction: Direction,
    pub(super) forbidden: Forbidden,
}

impl Key for WouldDeny {
    fn subject(&self) -> Option<&WorkloadRef> {
        self.forbidden.subject.as_ref()
    }

    fn peer(&self) -> Option<&WorkloadRef> {
        self.forbidden.peer.workload()
    }

    fn folded(&self, into: Fold) -> Self {
        Self { forbidden: self.forbidden.folded(into), ..*self }
    }

    fn labels(&self) -> LabelPairs<'_> {
        let mut labels =
            vec![("scenario", self.scenario.into()), ("direction", self.direction.as_str().into())];
        labels.extend(self.forbidden.labels());
        labels
    }
}

/// A series of `dryfence_segment_violation_connections_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Violation {
    pub(super) segment_map: Arc<str>,
    /// From and to, empty for no segment; `None` in an overflow series.
    pub(super) segments: Option<(Arc<str>, Arc<str>)>,
    pub(super) severity: &'static str,
    pub(super) forbidden: Forbidden,
}

impl Key for Violation {
    fn subject(&self) -> Option<&WorkloadRef> {
        self.forbidden.subject.as_ref()
    }

    fn peer(&self) -> Option<&WorkloadRef> {
        self.forbidden.peer.workload()
    }

    fn folded(&self, into: Fold) -> Self {
        Self {
            segment_map: Arc::clone(&self.segment_map),
            segments: None,
            severity: self.severity,
            forbidden: self.forbidden.folded(into),
        }
    }

    fn labels(&self) -> LabelPairs<'_> {
        let (from, to) = self.segments.as_ref().map_or((OVERFLOW, OVERFLOW), |(from, to)| (from, to));
        let mut labels = vec![
            ("segment_map", (&*self.segment_map).into()),
            ("from_segment", from.into()),
            ("to_segment", to.into()),
            ("severity", self.severity.into()),
        ];
        labels.extend(self.forbidden.labels());
        labels
    }
}

/// `namespace`, `workload`, `workload_type`, as kube-state-metrics names them.
pub(super) fn subject_labels(subject: Option<&WorkloadRef>) -> [(&'static str, Cow<'_, str>); 3] {
    let [namespace, name, kind] =
        subject.map_or([OVERFLOW; 3], |workload| [&*workload.namespace, &*workload.name, &*workload.kind]);
    [("namespace", namespace.into()), ("workload", name.into()), ("workload_type", kind.into())]
}

/// ICMP has no ports: its type and code stand there as `type/code`.
fn port_label(port: PortLabel, protocol: Option<Protocol>) -> Cow<'static, str> {
    match port {
        PortLabel::Is(port) if protocol.is_some_and(|protocol| !protocol.has_ports()) => {
            format!("{}/{}", port >> 8, port & 0xff).into()
        }
        PortLabel::Is(port) => port.to_string().into(),
        PortLabel::Many => "many".into(),
        PortLabel::Overflow => OVERFLOW.into(),
    }
}

pub(super) const fn bool_label(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

/// A series of `dryfence_failed_connections_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Failed {
    pub(super) direction: Direction,
    pub(super) subject: Option<WorkloadRef>,
    pub(super) outcome: &'static str,
}

impl Key for Failed {
    fn subject(&self) -> Option<&WorkloadRef> {
        self.subject.as_ref()
    }

    fn peer(&self) -> Option<&WorkloadRef> {
        None
    }

    fn folded(&self, _into: Fold) -> Self {
        Self { subject: None, ..self.clone() }
    }

    fn labels(&self) -> LabelPairs<'_> {
        let [namespace, workload, workload_type] = subject_labels(self.subject.as_ref());
        vec![
            ("direction", self.direction.as_str().into()),
            namespace,
            workload,
            workload_type,
            ("outcome", self.outcome.into()),
        ]
    }
}

/// A series whose labels come from closed lists, and so needs no bound.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Closed {
    Judged { scenario: &'static str, direction: Direction, verdict: Verdict },
    Unknown { reason: &'static str },
    Mismatch { kind: &'static str },
    Lost { stage: String, reason: String },
    IcmpErrors { direction: Direction, kind: &'static str },
}

impl Key for Closed {
    fn subject(&self) -> Option<&WorkloadRef> {
        None
    }

    fn peer(&self) -> Option<&WorkloadRef> {
        None
    }

    fn folded(&self, _into: Fold) -> Self {
        self.clone()
    }

    fn labels(&self) -> LabelPairs<'_> {
        match self {
            Self::Judged { scenario, direction, verdict } => vec![
                ("scenario", (*scenario).into()),
                ("direction", direction.as_str().into()),
                ("verdict", verdict.as_str().into()),
            ],
            Self::Unknown { reason } => vec![("reason", (*reason).into())],
            Self::Mismatch { kind } => vec![("kind", (*kind).into())],
            Self::IcmpErrors { direction, kind } => {
                vec![("direction", direction.as_str().into()), ("kind", (*kind).into())]
            }
            Self::Lost { stage, reason } => vec![("stage", stage.into()), ("reason", reason.into())],
        }
    }
}
