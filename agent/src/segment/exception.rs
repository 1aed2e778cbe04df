//! EdgeExceptions: known denials and violations, muted with a reason. What is muted is still counted.
//!
//! `from` and `to` are lists of members like those of a segment, or workloads; absent, they mean any end. An
//! exception is namespaced: a podSelector without a namespaceSelector means pods of its own namespace, and
//! it mutes only edges of which one end is in that namespace. It mutes a map's violations only if the map's
//! `exceptionsFrom` selects its namespace. What may match, but is not known to, is not muted.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde::de::value::{Error as ValueError, StrDeserializer};

use crate::model::edge::Edge;
use crate::model::endpoint::Party;
use crate::model::labels::Labels;
use crate::model::object::ObjectRef;
use crate::model::time::Timestamp;

use super::api::{API_VERSION, EDGE_EXCEPTION, EdgeExceptionObject, EdgeExceptionSpec, MemberSpec};
use super::face::{End, Face, Seen};
use super::finding::{Effect, Finding, Findings};
use super::map::SegmentMap;
use super::member::{Home, Match, Member, read_member};
use super::port::PortList;
use super::surroundings::Surroundings;

/// What an exception mutes, and what an edge may be muted in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Muted {
    /// The denials of a scenario, by its name.
    Scenario(Arc<str>),
    /// The violations of a segment map, by its name.
    SegmentMap(Arc<str>),
}

/// An EdgeException, read once. What is wrong with it is a finding; then it mutes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeException {
    reference: Arc<ObjectRef>,
    namespace: Arc<str>,
    findings: Vec<Finding>,
    muted: Option<Muted>,
    /// `None`: any end.
    from: Option<Vec<Member>>,
    to: Option<Vec<Member>>,
    ports: PortList,
    reason: Arc<str>,
    ticket: Option<Arc<str>>,
    owner: Option<Arc<str>>,
    expires_at: Option<Timestamp>,
}

impl EdgeException {
    /// Reads an exception. Never fails: what is wrong is a finding inside.
    pub fn from_object(object: &EdgeExceptionObject) -> Self {
        Self::from_object_with(object, Vec::new())
    }

    /// The same, with findings of the object's reader: fields that do not exist, for example.
    pub fn from_object_with(object: &EdgeExceptionObject, read_findings: Vec<Finding>) -> Self {
        let mut findings = Findings::default();
        findings.extend(read_findings);
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        for (field, value) in [
            ("metadata.name", name),
            ("metadata.namespace", namespace),
            ("spec.reason", object.spec.reason.trim()),
        ] {
            if value.is_empty() {
                findings.wrong(field, "is required");
            }
        }
        for (field, given, wanted) in
            [("apiVersion", &object.api_version, API_VERSION), ("kind", &object.kind, EDGE_EXCEPTION)]
        {
            if given != wanted {
                findings.wrong(field, format_args!("is \"{given}\", not {wanted}"));
            }
        }
        let spec = &object.spec;
        if spec.from.is_none() && spec.to.is_none() {
            findings.wrong("spec", "gives neither from nor to: it would mute every edge of the namespace");
        }
        let text = |text: &Option<String>| text.as_deref().map(Arc::from);
        let mut exception = Self {
            reference: Arc::new(ObjectRef::namespaced(EDGE_EXCEPTION, namespace, name)),
            namespace: namespace.into(),
            findings: Vec::new(),
            muted: read_muted(spec, &mut findings),
            from: read_end(spec.from.as_deref(), "spec.from", namespace, &mut findings),
            to: read_end(spec.to.as_deref(), "spec.to", namespace, &mut findings),
            ports: PortList::read(&spec.ports, "spec.ports", &mut findings),
            reason: spec.reason.as_str().into(),
            ticket: text(&spec.ticket),
            owner: text(&spec.owner),
            expires_at: read_time(spec.expires_at.as_deref(), &mut findings),
        };
        exception.findings = findings.into_found();
        exception
    }

    pub const fn reference(&self) -> &Arc<ObjectRef> {
        &self.reference
    }

    /// What it mutes; `None` where that could not be read.
    pub const fn muted(&self) -> Option<&Muted> {
        self.muted.as_ref()
    }

    /// Why the edges are accepted as they are.
    pub const fn reason(&self) -> &Arc<str> {
        &self.reason
    }

    pub const fn ticket(&self) -> Option<&Arc<str>> {
        self.ticket.as_ref()
    }

    pub const fn owner(&self) -> Option<&Arc<str>> {
        self.owner.as_ref()
    }

    /// From when on it mutes nothing; `None`: it does not expire.
    pub const fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// Everything found in it, by field, without what depends on the time or on other objects.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether it can mute anything at all.
    pub fn in_force(&self) -> bool {
        self.muted.is_some() && self.findings.iter().all(|finding| finding.effect != Effect::NotInForce)
    }

    /// Whether an end is a VLAN: only then does anyone need to remember [`Vlans`](super::Vlans).
    pub fn names_vlans(&self) -> bool {
        let mut members = [&self.from, &self.to].into_iter().flatten().flatten();
        members.any(|member| matches!(member, Member::Vlan(_)))
    }

    /// Whether it has expired at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// Whether it is about this edge, whatever the time.
    fn covers(&self, edge: &Edge, initiators: &[Seen<'_>], responders: &[Seen<'_>]) -> bool {
        let home = |party: &Party| party.namespace() == Some(&*self.namespace);
        if !home(&edge.initiator) && !home(&edge.responder) {
            return false;
        }
        // Every backend of a Service must be meant, else others would be muted with it.
        let mut pairs = initiators.iter().flat_map(|one| responders.iter().map(move |other| (one, other)));
        pairs.all(|pair| match pair {
            (Ok(initiator), Ok(responder)) => {
                let (initiator, responder) = (initiator.towards(responder), responder.towards(initiator));
                self.ports.has(responder.port, responder.protocol)
                    && is_any(self.from.as_deref(), &initiator)
                    && is_any(self.to.as_deref(), &responder)
            }
            _ => false,
        })
    }
}

/// Whether a face is one of the members for sure; `None` is any.
fn is_any(members: Option<&[Member]>, face: &Face<'_>) -> bool {
    members.is_none_or(|members| members.iter().any(|member| member.matches(face) == Match::Yes))
}

fn read_muted(spec: &EdgeExceptionSpec, findings: &mut Findings) -> Option<Muted> {
    let scenario = spec.scenario.as_deref().filter(|name| !name.is_empty());
    let map = spec.segment_map.as_deref().filter(|name| !name.is_empty());
    match (scenario, map) {
        (Some(name), None) => Some(Muted::Scenario(name.into())),
        (None, Some(name)) => Some(Muted::SegmentMap(name.into())),
        (Some(_), Some(_)) => {
            findings.wrong("spec", "gives scenario and segmentMap; an exception is from one of them");
            None
        }
        (None, None) => {
            findings.wrong("spec", "gives neither scenario nor segmentMap");
            None
        }
    }
}

fn read_end(
    members: Option<&[MemberSpec]>,
    field: &str,
    namespace: &str,
    findings: &mut Findings,
) -> Option<Vec<Member>> {
    let members = members?;
    if members.is_empty() {
        findings.wrong(field, "is empty: it would match nothing; leave it out for any end");
    }
    let read =
        |(index, spec)| read_member(spec, &format!("{field}[{index}]"), Home::Namespace(namespace), findings);
    Some(members.iter().enumerate().filter_map(read).collect())
}

fn read_time(text: Option<&str>, findings: &mut Findings) -> Option<Timestamp> {
    let text = text?;
    let read = Timestamp::deserialize(StrDeserializer::<ValueError>::new(text));
    if read.is_err() {
        let wrong = format_args!("\"{text}\" is not a time as RFC 3339 has it: 2026-12-31T00:00:00Z");
        findings.wrong("spec.expiresAt", wrong);
    }
    read.ok()
}

/// The labels of namespaces, by name: who declares exceptions is decided by them.
pub type NamespaceLabels = FxHashMap<Arc<str>, Labels>;

/// A finding about one exception.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExceptionFinding {
    pub exception: Arc<ObjectRef>,
    pub finding: Finding,
}

/// All exceptions, arranged by what they mute. Made anew when an exception, a map or a namespace changes.
#[derive(Debug, Clone, Default)]
pub struct Exceptions {
    /// In force and permitted, in the order of their references.
    by_muted: FxHashMap<Muted, Vec<Arc<EdgeException>>>,
    findings: Vec<ExceptionFinding>,
}

impl Exceptions {
    /// Arranges exceptions. Those for a map that does not exist, or that does not let their namespace declare
    /// any, mute nothing and are findings.
    pub fn new(
        exceptions: &[Arc<EdgeException>],
        maps: &[Arc<SegmentMap>],
        namespaces: &NamespaceLabels,
    ) -> Self {
        let mut sorted = exceptions.to_vec();
        sorted.sort_by(|a, b| a.reference.cmp(&b.reference));
        let mut arranged = Self::default();
        for exception in sorted {
            let mut found = exception.findings.clone();
            let refused = refusal(&exception, maps, namespaces);
            if let (true, None, Some(muted)) = (exception.in_force(), &refused, &exception.muted) {
                arranged.by_muted.entry(muted.clone()).or_default().push(Arc::clone(&exception));
            }
            found.extend(refused);
            let of = |finding| ExceptionFinding { exception: Arc::clone(&exception.reference), finding };
            arranged.findings.extend(found.into_iter().map(of));
        }
        arranged
    }

    /// The exception that mutes this edge at `now`: the first, by namespace and name, that covers it and has
    /// not expired. The edge is still counted.
    pub fn excepting(
        &self,
        muted: &Muted,
        edge: &Edge,
        around: &Surroundings,
        now: Timestamp,
    ) -> Option<&Arc<EdgeException>> {
        let exceptions = self.by_muted.get(muted)?;
        let initiators = Face::all(End::Initiator, edge, around);
        let responders = Face::all(End::Responder, edge, around);
        exceptions
            .iter()
            .find(|exception| !exception.is_expired(now) && exception.covers(edge, &initiators, &responders))
    }

    /// Everything wrong with the exceptions at `now`, those that have expired by then among it.
    pub fn findings(&self, now: Timestamp) -> Vec<ExceptionFinding> {
        let expired = self.by_muted.values().flatten().filter(|exception| exception.is_expired(now));
        let expired = expired.map(|exception| ExceptionFinding {
            exception: Arc::clone(&exception.reference),
            finding: Finding::not_in_force(
                "spec.expiresAt",
                format_args!(
                    "expired on {}: what it muted is shown as new again; renew it with a reason, or delete it",
                    exception.expires_at.unwrap_or_default()
                ),
            ),
        });
        let mut all: Vec<_> = self.findings.iter().cloned().chain(expired).collect();
        all.sort();
        all
    }
}

/// Why a map does not let an exception mute its violations.
fn refusal(
    exception: &EdgeException,
    maps: &[Arc<SegmentMap>],
    namespaces: &NamespaceLabels,
) -> Option<Finding> {
    let Some(Muted::SegmentMap(name)) = &exception.muted else { return None };
    let refused = |message: String| Some(Finding::not_in_force("spec.segmentMap", message));
    let Some(map) = maps.iter().find(|map| map.name() == name) else {
        return refused(format!("there is no SegmentMap \"{name}\""));
    };
    let Some(selector) = &map.exceptions_from else {
        return refused(format!(
            "SegmentMap {name} lets no namespace declare exceptions (spec.exceptionsFrom)"
        ));
    };
    let namespace = &exception.namespace;
    match namespaces.get(namespace) {
        Some(labels) if selector.matches(labels) => None,
        Some(_) => refused(format!(
            "SegmentMap {name} does not let namespace {namespace} declare exceptions: spec.exceptionsFrom selects \
             {selector}"
        )),
        None => refused(format!(
            "the labels of namespace {namespace} are not known, and SegmentMap {name} asks for them"
        )),
    }
}

#[cfg(test)]
mod tests;
