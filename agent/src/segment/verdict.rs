//! What a segment map says of an edge, and why.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::edge::Protocol;
use crate::model::verdict::{NotJudged, UnknownReason};

use super::face::End;
use super::map::Severity;
use super::member::Doubt;

/// A segment map's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Crossing {
    /// The map allows it.
    Allow,
    /// The map forbids it.
    Violation,
    /// We cannot know, or the map does not say; the reason says which.
    Unknown,
    /// It is none of the map's business.
    Ignored,
}

impl Crossing {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::Violation => "Violation",
            Self::Unknown => "Unknown",
            Self::Ignored => "Ignored",
        }
    }
}

impl fmt::Display for Crossing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What one map says of one edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentVerdict {
    /// The map's name.
    pub map: Arc<str>,
    /// The initiator's segment; `None` where it is in none, or not for sure in one.
    pub from_segment: Option<Arc<str>>,
    /// The responder's segment, likewise.
    pub to_segment: Option<Arc<str>>,
    pub verdict: Crossing,
    /// The rule that decided, by its name (`rules[2]` where it has none).
    pub rule: Option<Arc<str>>,
    pub severity: Severity,
    pub reason: Reason,
}

/// A rule that nearly allows a violation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Nearest {
    /// It names both segments, but not the port.
    Port { rule: Arc<str>, ports: Arc<str> },
    /// It allows the opposite way.
    OtherWay { rule: Arc<str> },
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { rule, ports } => write!(f, "rule {rule} allows {ports} only"),
            Self::OtherWay { rule } => write!(f, "rule {rule} allows the other way only"),
        }
    }
}

/// Why an edge got its answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Allow: the rule named in the verdict.
    Rule { rule: Arc<str> },
    /// Allow: both ends are in one segment.
    WithinSegment { segment: Arc<str> },
    /// Violation: no rule allows it.
    NoRule { from: Arc<str>, to: Arc<str>, port: u16, protocol: Protocol, nearest: Option<Nearest> },
    /// Violation: both ends are in one segment, the map denies that, and no rule allows it.
    WithinSegmentDenied { segment: Arc<str> },
    /// Violation (`unassigned: Deny`), Unknown (`Report`) or Ignored (`Ignore`): these ends are in no segment.
    Unassigned { initiator: bool, responder: bool },
    /// Ignored: nobody judges this.
    NotJudged(NotJudged),
    /// Unknown: the rule asks for encryption, which is not observed.
    EncryptionNotObserved { rule: Arc<str> },
    /// Unknown: an end is in several segments, and the map rejects overlap.
    Overlap { end: End, segments: Arc<[Arc<str>]> },
    /// Unknown: which segment an end is in decides, and it is not known.
    InDoubt { end: End, doubt: Doubt },
    /// Unknown: it is not known what an end is.
    EndUnknown { end: End, why: UnknownReason },
    /// Unknown: a Service's backends get different answers.
    BackendsDiffer { allowed: u32, violations: u32, unknown: u32, ignored: u32 },
}

impl Reason {
    /// A short, stable name for metric labels and JSON.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Rule { .. } => "rule",
            Self::WithinSegment { .. } => "within-segment",
            Self::NoRule { .. } => "no-rule",
            Self::WithinSegmentDenied { .. } => "within-segment-denied",
            Self::Unassigned { .. } => "unassigned",
            Self::NotJudged(_) => "not-judged",
            Self::EncryptionNotObserved { .. } => "encryption-not-observed",
            Self::Overlap { .. } => "segments-overlap",
            Self::InDoubt { doubt, .. } => match doubt {
                Doubt::NoAddress => "address-missing",
                Doubt::NodeOfPod => "node-of-pod-unknown",
                Doubt::Vlan => "vlan-unknown",
                Doubt::Range => "range-divided",
                Doubt::Name => "name-unresolved",
            },
            Self::EndUnknown { why, .. } => why.code(),
            Self::BackendsDiffer { .. } => "backends-differ",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule { rule } => write!(f, "rule {rule} allows it"),
            Self::WithinSegment { segment } => write!(f, "both ends are in segment {segment}"),
            Self::NoRule { from, to, port, protocol, nearest } => {
                write!(f, "no rule lets {from} open connections to {to} on ")?;
                // An ICMP type and code is not a port.
                if protocol.has_ports() {
                    write!(f, "{port}/{protocol}")?
                } else {
                    write!(f, "{protocol}")?
                }
                match nearest {
                    Some(nearest) => write!(f, " ({nearest})"),
                    None => Ok(()),
                }
            }
            Self::WithinSegmentDenied { segment } => {
                write!(f, "both ends are in segment {segment}, withinSegment is Deny, and no rule allows it")
            }
            Self::Unassigned { initiator, responder } => match (initiator, responder) {
                (true, false) => f.write_str("the initiator is in no segment"),
                (false, true) => f.write_str("the responder is in no segment"),
                _ => f.write_str("neither end is in a segment"),
            },
            Self::NotJudged(why) => write!(f, "{why}"),
            Self::EncryptionNotObserved { rule } => {
                write!(f, "rule {rule} allows it if it is encrypted, which is not observed")
            }
            Self::Overlap { end, segments } => {
                let segments = segments.iter().map(|name| &**name).collect::<Vec<_>>().join(" and ");
                write!(f, "the {} is in segments {segments}, and overlap is Reject", end.as_str())
            }
            Self::InDoubt { end, doubt } => {
                write!(f, "the segment of the {} is not known: {doubt}", end.as_str())
            }
            Self::EndUnknown { end, why } => write!(f, "the {} is not known: {why}", end.as_str()),
            Self::BackendsDiffer { allowed, violations, unknown, ignored } => write!(
                f,
                "the Service's backends differ: {allowed} allowed, {violations} violations, {unknown} unknown, \
                 {ignored} ignored"
            ),
        }
    }
}

impl fmt::Display for SegmentVerdict {
    /// `tiers: web → data is a violation (Warning): no rule lets web …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |segment: &Option<Arc<str>>| segment.as_deref().unwrap_or("(no segment)").to_owned();
        let (from, to) = (end(&self.from_segment), end(&self.to_segment));
        write!(f, "{}: {from} → {to} is ", self.map)?;
        match self.verdict {
            Crossing::Allow => f.write_str("allowed")?,
            Crossing::Violation => write!(f, "a violation ({})", self.severity)?,
            Crossing::Unknown => f.write_str("unknown")?,
            Crossing::Ignored => f.write_str("ignored")?,
        }
        write!(f, ": {}", self.reason)
    }
}
