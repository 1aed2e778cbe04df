//! SegmentMaps: read once from the API's object and checked as a whole.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use crate::model::object::ObjectRef;
use crate::model::selector::{Selector, check_key, check_value};
use crate::model::time::Timestamp;

use super::api::{API_VERSION, RuleSpec, SEGMENT_MAP, SegmentMapObject, SegmentMapSpec, SegmentMapStatus};
use super::finding::{Effect, Finding, Findings};
use super::member::{Home, Member, read_member, read_selector};
use super::overlap;
use super::port::PortList;

/// What an endpoint in two segments means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// It is an error of the map: found when the map is read where that can be seen, else `Unknown` with both
    /// segments named.
    Reject,
    /// It is in the first of them: declared segments in their order, then those of `segmentsFrom`.
    FirstMatch,
}

/// What an edge means of which an end is in no segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unassigned {
    /// One end is in a segment and the other in none: `Unknown`, since the map does not say. Neither is:
    /// `Ignored`, since the edge touches no segment.
    Report,
    /// `Ignored`.
    Ignore,
    /// A violation, even where neither end is in a segment.
    Deny,
}

/// How much a violation matters to whoever is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "Info",
            Self::Warning => "Warning",
            Self::Critical => "Critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A declared segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) name: Arc<str>,
    /// With each member's index in the API's list.
    pub(crate) members: Vec<(usize, Member)>,
}

/// Which segments a rule names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Named {
    /// By index.
    pub(crate) declared: FxHashSet<usize>,
    /// Segments of `segmentsFrom`, by name: `tenant=acme`.
    pub(crate) generated: FxHashSet<Arc<str>>,
    /// Every segment of `segmentsFrom`: `tenant=*`.
    pub(crate) every_generated: bool,
}

/// What may be opened from where to where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// `rules[2]` where it has no name.
    pub(crate) name: Arc<str>,
    pub(crate) from: Named,
    pub(crate) to: Named,
    pub(crate) ports: PortList,
    pub(crate) encryption_required: bool,
}

/// A SegmentMap, read once. What is wrong with it is a finding; only a map that is in force can judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentMap {
    pub(crate) name: Arc<str>,
    reference: Arc<ObjectRef>,
    findings: Vec<Finding>,
    pub(crate) segments: Vec<Segment>,
    /// The namespace label of `segmentsFrom`.
    pub(crate) label: Option<Arc<str>>,
    pub(crate) overlap: Overlap,
    pub(crate) unassigned: Unassigned,
    pub(crate) within_allowed: bool,
    pub(crate) rules: Vec<Rule>,
    pub(crate) severity: Severity,
    /// The namespaces that may declare exceptions; `None`: none may.
    pub(crate) exceptions_from: Option<Selector>,
}

impl SegmentMap {
    /// Reads a map. Never fails: what is wrong is a finding inside, and may take the map out of force.
    pub fn from_object(object: &SegmentMapObject) -> Self {
        Self::from_object_with(object, Vec::new())
    }

    /// The same, with findings of the object's reader: fields that do not exist, for example. An unknown field
    /// should take the map out of force: it may have been meant to narrow a member.
    pub fn from_object_with(object: &SegmentMapObject, read_findings: Vec<Finding>) -> Self {
        let mut findings = Findings::default();
        findings.extend(read_findings);
        let name = object.metadata.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            findings.wrong("metadata.name", "is required");
        }
        for (field, given, wanted) in
            [("apiVersion", &object.api_version, API_VERSION), ("kind", &object.kind, SEGMENT_MAP)]
        {
            if given != wanted {
                findings.wrong(field, format_args!("is \"{given}\", not {wanted}"));
            }
        }
        let mut map = Self::read(name, &object.spec, &mut findings);
        map.findings = findings.into_found();
        map
    }

    /// A map of which nothing could be read: never in force.
    pub fn unreadable(name: &str, finding: Finding) -> Self {
        let mut map = Self::read(name, &SegmentMapSpec::default(), &mut Findings::default());
        map.findings = vec![Finding { effect: Effect::NotInForce, ..finding }];
        map
    }

    fn read(name: &str, spec: &SegmentMapSpec, findings: &mut Findings) -> Self {
        let label = spec.segments_from.as_ref().and_then(|from| read_label(&from.namespace_label, findings));
        let segments = read_segments(spec, findings);
        let overlap = [("Reject", Overlap::Reject), ("FirstMatch", Overlap::FirstMatch)];
        let overlap = findings.choice("spec.overlap", spec.overlap.as_deref(), &overlap, Overlap::Reject);
        let unassigned =
            [("Report", Unassigned::Report), ("Ignore", Unassigned::Ignore), ("Deny", Unassigned::Deny)];
        let severity = [Severity::Info, Severity::Warning, Severity::Critical]
            .map(|severity| (severity.as_str(), severity));
        if overlap == Overlap::Reject {
            findings.extend(overlap::visible(&segments));
        }
        Self {
            name: name.into(),
            reference: Arc::new(ObjectRef::cluster(SEGMENT_MAP, name)),
            findings: Vec::new(),
            rules: read_rules(&spec.rules, &segments, label.as_deref(), findings),
            segments,
            label,
            overlap,
            unassigned: findings.choice(
                "spec.unassigned",
                spec.unassigned.as_deref(),
                &unassigned,
                Unassigned::Report,
            ),
            within_allowed: findings.choice(
                "spec.withinSegment",
                spec.within_segment.as_deref(),
                &[("Allow", true), ("Deny", false)],
                true,
            ),
            severity: findings.choice(
                "spec.severity",
                spec.severity.as_deref(),
                &severity,
                Severity::Warning,
            ),
            exceptions_from: read_exceptions_from(spec, findings),
        }
    }

    /// The map's name, as in labels and filters.
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub const fn reference(&self) -> &Arc<ObjectRef> {
        &self.reference
    }

    /// How much its violations matter.
    pub const fn severity(&self) -> Severity {
        self.severity
    }

    /// Everything found in it, by field.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Why it is not in force; nothing where it is.
    pub fn reasons_not_in_force(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.effect == Effect::NotInForce)
    }

    /// Whether it judges edges.
    pub fn in_force(&self) -> bool {
        self.reasons_not_in_force().next().is_none()
    }

    /// Every address block that a segment's members name.
    pub fn blocks(&self) -> impl Iterator<Item = IpNet> {
        let members = self.segments.iter().flat_map(|segment| &segment.members);
        members.flat_map(|(_, member)| match member {
            Member::Addresses(set) => set.blocks().collect(),
            _ => Vec::new(),
        })
    }

    /// The names of the declared segments, in their order; those of `segmentsFrom` come as they are met.
    pub fn segment_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.segments.iter().map(|segment| &segment.name)
    }

    /// Whether a member is a VLAN: only then does anyone need to remember [`Vlans`](super::Vlans).
    pub fn names_vlans(&self) -> bool {
        let mut members = self.segments.iter().flat_map(|segment| &segment.members);
        members.any(|(_, member)| matches!(member, Member::Vlan(_)))
    }

    /// The status to write, at `now`. `met` is what judging found: endpoints in two segments. A condition
    /// that is as in `previous` keeps its time.
    pub fn status(
        &self,
        generation: Option<i64>,
        met: &[Finding],
        now: Timestamp,
        previous: Option<&SegmentMapStatus>,
    ) -> SegmentMapStatus {
        let before = previous.map_or(&[][..], |status| &status.conditions);
        let condition = |type_: &str, broken: Vec<String>, good: &str, bad: &str| {
            let status = if broken.is_empty() { "True" } else { "False" };
            let same = before.iter().find(|before| before.type_ == type_ && before.status == status);
            Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: if broken.is_empty() { good } else { bad }.to_owned(),
                message: summary(&broken),
                observed_generation: generation,
                last_transition_time: same
                    .map_or_else(|| time(now), |same| same.last_transition_time.clone()),
            }
        };
        let texts =
            |findings: &mut dyn Iterator<Item = &Finding>| findings.map(ToString::to_string).collect();
        SegmentMapStatus {
            observed_generation: generation,
            conditions: vec![
                condition("InForce", texts(&mut self.reasons_not_in_force()), "Valid", "Invalid"),
                condition("Disjoint", texts(&mut met.iter()), "NoOverlapMet", "OverlapMet"),
            ],
            findings: texts(&mut self.findings.iter().chain(met)),
        }
    }
}

/// The first few of a list, since a condition's message is for people.
fn summary(texts: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = texts.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("; ");
    match texts.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{shown}; and {more} more"),
        _ => shown,
    }
}

fn time(at: Timestamp) -> Time {
    Time(jiff::Timestamp::from_nanosecond(i128::from(at.as_nanos())).unwrap_or(jiff::Timestamp::MAX))
}

fn read_label(label: &str, findings: &mut Findings) -> Option<Arc<str>> {
    let checked = check_key(label);
    checked.map_err(|reason| findings.wrong("spec.segmentsFrom.namespaceLabel", reason)).ok()?;
    Some(label.into())
}

fn read_exceptions_from(spec: &SegmentMapSpec, findings: &mut Findings) -> Option<Selector> {
    let from = spec.exceptions_from.as_ref()?;
    let field = "spec.exceptionsFrom.namespaceSelector";
    let Some(selector) = &from.namespace_selector else {
        findings.wrong(field, "is required; {} selects every namespace");
        return None;
    };
    read_selector(selector, field, findings)
}

fn read_segments(spec: &SegmentMapSpec, findings: &mut Findings) -> Vec<Segment> {
    if spec.segments.is_empty() && spec.segments_from.is_none() {
        findings.wrong("spec.segments", "is empty, and there is no segmentsFrom: the map declares nothing");
    }
    let mut first_at: FxHashMap<&str, usize> = FxHashMap::default();
    let mut segments = Vec::new();
    for (index, segment) in spec.segments.iter().enumerate() {
        let field = format!("spec.segments[{index}]");
        if segment.name.is_empty() {
            findings.wrong(format!("{field}.name"), "is required");
        } else if let Err(reason) = check_value(&segment.name) {
            findings.wrong(format!("{field}.name"), reason);
        } else if let Some(first) = first_at.get(&*segment.name) {
            let wrong = format_args!("\"{}\" is the name of spec.segments[{first}] already", segment.name);
            findings.wrong(format!("{field}.name"), wrong);
        } else {
            first_at.insert(&segment.name, index);
        }
        if segment.members.is_empty() {
            findings.wrong(format!("{field}.members"), "is empty: nothing would ever be in this segment");
        }
        let members = segment.members.iter().enumerate().filter_map(|(at, member)| {
            let field = format!("{field}.members[{at}]");
            read_member(member, &field, Home::Cluster, findings).map(|member| (at, member))
        });
        segments.push(Segment { members: members.collect(), name: segment.name.as_str().into() });
    }
    segments
}

fn read_rules(
    specs: &[RuleSpec],
    segments: &[Segment],
    label: Option<&str>,
    findings: &mut Findings,
) -> Vec<Rule> {
    let mut first_at: FxHashMap<&str, usize> = FxHashMap::default();
    let mut rules = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let field = format!("spec.rules[{index}]");
        let name = spec.name.as_deref().filter(|name| !name.is_empty());
        if let Some(first) = name.and_then(|name| first_at.insert(name, index)) {
            let name = name.unwrap_or_default();
            let wrong = format_args!("\"{name}\" is the name of spec.rules[{first}] already");
            findings.wrong(format!("{field}.name"), wrong);
        }
        rules.push(Rule {
            name: name.map_or_else(|| format!("rules[{index}]").into(), Arc::from),
            from: read_named(&spec.from, segments, label, &format!("{field}.from"), findings),
            to: read_named(&spec.to, segments, label, &format!("{field}.to"), findings),
            ports: PortList::read(&spec.ports, &format!("{field}.ports"), findings),
            encryption_required: findings.choice(
                &format!("{field}.encryption"),
                spec.encryption.as_deref(),
                &[("Any", false), ("Required", true)],
                false,
            ),
        });
    }
    rules
}

/// Reads a rule's `from` or `to`. A declared segment goes by its name, one of `segmentsFrom` by
/// `label=value`, and all of those by `label=*`.
fn read_named(
    names: &[String],
    segments: &[Segment],
    label: Option<&str>,
    field: &str,
    findings: &mut Findings,
) -> Named {
    let mut named = Named::default();
    if names.is_empty() {
        findings.wrong(field, "is empty: name the segments; a rule never means every segment by naming none");
    }
    for (index, name) in names.iter().enumerate() {
        let generated = name.split_once('=').filter(|(key, _)| Some(*key) == label);
        let declared = segments.iter().position(|segment| *segment.name == **name);
        match (declared, generated) {
            (Some(declared), _) => {
                named.declared.insert(declared);
            }
            (None, Some((_, "*"))) => named.every_generated = true,
            (None, Some((_, value))) if !value.is_empty() && check_value(value).is_ok() => {
                named.generated.insert(name.as_str().into());
            }
            (None, _) => findings.wrong(format!("{field}[{index}]"), unknown_name(name, segments, label)),
        }
    }
    named
}

fn unknown_name(name: &str, segments: &[Segment], label: Option<&str>) -> String {
    let mut known: Vec<String> = segments.iter().map(|segment| segment.name.to_string()).collect();
    known.extend(label.map(|label| format!("{label}=VALUE")));
    known.extend(label.map(|label| format!("{label}=*")));
    format!("\"{name}\" is no segment of this map: {}", known.join(", "))
}

#[cfg(test)]
mod tests;
