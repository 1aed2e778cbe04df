//! Segments: declared groups of endpoints, and which of them may open connections to which. Independent of
//! policies: a violation is told even where every policy allows it. Pure: no I/O, no clock.
//!
//! A [`SegmentMap`] is read once from the API's object ([`api::SegmentMapObject`]); everything wrong with it
//! is a [`Finding`] with the path of its field. A map that is in force has a [`SegmentJudge`], which gives
//! each edge a [`SegmentVerdict`]. An [`EdgeException`] mutes a known denial or violation.
//!
//! What a map means where `dryfence.io/v1alpha1` leaves room:
//!
//! - **Members.** `podSelector` alone means pods of every namespace: a map is cluster-wide. `ipBlock` and
//!   `ipRange` match any address, a pod's too. Entities are disjoint, except that `host` (the node of the
//!   other end) is also `node`. A `vlan` matches pods, by the tag seen at their own interface. An `fqdn`
//!   matches nothing yet, and makes unknown what depends on it.
//! - **segmentsFrom.** The segment of a pod in a namespace labelled `tenant: acme` is called `tenant=acme`.
//!   Rules name one as `tenant=acme` and all of them as `tenant=*`. They come after the declared segments.
//! - **Rules** only allow; their order does not matter. `from` and `to` name segments and are never empty.
//!   Ports are the responder's behind a Service.
//! - **withinSegment: Deny** can be opened again by a rule from a segment to itself.
//! - **What is not judged.** A pod with itself; multicast, broadcast, DHCP; and from a pod's own node
//!   (kubelet's probes) unless the map puts that node into a segment.

pub mod api;

mod address;
mod assign;
mod exception;
mod face;
mod finding;
mod judge;
mod map;
mod member;
mod overlap;
mod port;
mod record;
mod rules;
mod surroundings;
mod verdict;

pub use exception::{EdgeException, ExceptionFinding, Exceptions, Muted, NamespaceLabels};
pub use face::End;
pub use finding::{Effect, Finding};
pub use judge::{NotInForce, SegmentJudge};
pub use map::{Overlap, SegmentMap, Severity, Unassigned};
pub use member::{Doubt, Entity};
pub use surroundings::{Surroundings, Vlans};
pub use verdict::{Crossing, Nearest, Reason, SegmentVerdict};

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod properties;
