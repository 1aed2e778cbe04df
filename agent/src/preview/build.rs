//! From a recording, a base and a candidate to a preview.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::candidate::{self, Action, Edit, Judging};
use super::compare::{Compared, Found, Scales, compare};
use super::relabel::Relabel;
use super::{Base, DenyScope, Group, Owned, Preview, Settings, Window, confidence, seen, segments};
use crate::audit::judges::Judges;
use crate::cluster::Object;
use crate::finding::Denial;
use crate::finding::words::{count, title};
use crate::history::file::{Header, Recording};
use crate::model::edge::{Direction, Edge};
use crate::model::object::ObjectRef;
use crate::model::scenario::{DefaultDeny, Scenario};
use crate::model::verdict::Verdict;

/// What the candidate would change of what was recorded.
///
/// Base and candidate are objects as manifests hold them. Identities that a candidate makes are interned into the
/// recording's interner, because one judge sees both.
pub fn preview(
    recording: &mut Recording,
    base: &[Object],
    candidate: &[Object],
    settings: &Settings,
) -> Preview {
    let judging = candidate::lay_over(base, candidate, settings);
    let applied = if settings.delete { &[] } else { candidate };
    let deny = settings.default_deny.as_ref().map(|scope| default_deny(scope, settings, recording, base));
    let scenario = deny.clone().map_or(Scenario::Enforced, Scenario::DefaultDeny);
    let around = merged(base, applied);
    let judges = |scenario, judging: &[Object], around: &[Object]| {
        let (edges, now) = (&recording.edges, recording.header.end);
        let around = around.iter().filter(|object| !matches!(object, Object::Policy(_)));
        Judges::of_recording(&[scenario], settings.dialect, judging.iter().chain(around), edges, now)
    };
    let mut scales = Scales {
        before: judges(Scenario::Enforced, &judging.before, base),
        after: judges(scenario, &judging.after, &around),
        relabel: Relabel::new(base, applied),
    };
    let compared = compare(recording, &mut scales);
    let never_seen = seen::never_seen(around, &recording.edges);
    let window = window(&recording.header);
    let Compared { found, mut counts, segments_before, segments_after } = compared;
    let segments = segments::changes(&segments_before, &segments_after);
    for map in &segments {
        counts.new_violations = counts.new_violations.plus(segments::amount(&map.new));
        counts.gone_violations = counts.gone_violations.plus(segments::amount(&map.gone));
        counts.kept_violations = counts.kept_violations.plus(map.kept);
    }
    let confidence = confidence::sentence(&window, &counts, never_seen.len());
    let mut groups = Classes::default();
    for found in found {
        groups.of(&found).push(found);
    }
    let mut newly_denied = grouped(groups.newly_denied);
    let owned = newly_denied.iter_mut().flat_map(|group| &mut group.owners);
    let sides = owned.flat_map(|owned| &mut owned.findings).flat_map(|finding| &mut finding.sides);
    Denial::name_apart(sides.filter_map(|side| side.denial.as_mut()));
    Preview {
        cluster: recording.header.cluster.clone(),
        dialect: settings.dialect.to_string(),
        base: base_in_words(settings.base, &judging),
        assumed: assumed(settings, deny.as_ref()),
        warnings: warnings(recording, base, candidate, &scales.after, settings),
        edits: edits(judging, &scales.relabel, settings),
        window,
        never_seen,
        confidence,
        counts,
        newly_denied,
        newly_allowed: grouped(groups.newly_allowed),
        unknown: grouped(groups.unknown),
        still_denied: grouped(groups.still_denied),
        excepted: grouped(groups.excepted),
        segments,
    }
}

/// The base's objects with the candidate's in place of their namesakes; policies, maps and exceptions are laid over
/// by themselves.
fn merged(base: &[Object], candidate: &[Object]) -> Vec<Object> {
    let new: BTreeSet<ObjectRef> = candidate.iter().map(Object::reference).collect();
    let kept = base.iter().filter(|object| !new.contains(&object.reference()));
    kept.chain(candidate).filter(|object| !candidate::judges(object)).cloned().collect()
}

/// Findings by what happens to them.
#[derive(Default)]
struct Classes {
    newly_denied: Vec<Found>,
    newly_allowed: Vec<Found>,
    unknown: Vec<Found>,
    still_denied: Vec<Found>,
    excepted: Vec<Found>,
}

impl Classes {
    const fn of(&mut self, found: &Found) -> &mut Vec<Found> {
        match (found.finding.before, found.finding.after) {
            (Verdict::Allow, Verdict::Deny) if found.finding.exception.is_some() => &mut self.excepted,
            (Verdict::Unknown, _) | (_, Verdict::Unknown) => &mut self.unknown,
            (_, Verdict::Allow) => &mut self.newly_allowed,
            (Verdict::Deny, Verdict::Deny) => &mut self.still_denied,
            (Verdict::Allow, Verdict::Deny) => &mut self.newly_denied,
        }
    }
}

/// By cause, then by owner; within one by both ends and the port.
fn grouped(mut found: Vec<Found>) -> Vec<Group> {
    found.sort_by_cached_key(|Found { cause, owner, finding }| {
        let ends = (finding.initiator.to_string(), finding.responder.to_string());
        let change = (finding.port, finding.protocol, finding.before, finding.after);
        (*cause, owner.clone(), ends, change)
    });
    let mut groups: Vec<Group> = Vec::new();
    for Found { cause, owner, finding } in found {
        if groups.last().is_none_or(|group| group.cause != cause) {
            groups.push(Group { cause, title: title(cause), owners: Vec::new() });
        }
        let Some(group) = groups.last_mut() else { continue };
        match group.owners.last_mut().filter(|owned| owned.owner == owner) {
            Some(owned) => owned.findings.push(finding),
            None => group.owners.push(Owned { owner, findings: vec![finding] }),
        }
    }
    groups
}

/// The deny-all of the namespaces in scope. The scenario names those that are not: all others that are known.
fn default_deny(
    scope: &DenyScope,
    settings: &Settings,
    recording: &Recording,
    base: &[Object],
) -> DefaultDeny {
    let mut deny = DefaultDeny { assume: settings.assume.clone(), ..DefaultDeny::default() };
    if let DenyScope::Namespaces(wanted) = scope {
        let others = namespaces(&recording.edges, base).into_iter();
        deny.exempt_namespaces = others.filter(|name| !wanted.iter().any(|w| **w == **name)).collect();
    }
    deny
}

fn namespaces(edges: &[Edge], objects: &[Object]) -> BTreeSet<Arc<str>> {
    let recorded = seen::pods(edges).map(|pod| Arc::clone(&pod.namespace));
    let known = objects.iter().filter_map(|object| match object {
        Object::Namespace(namespace) => Some(Arc::clone(&namespace.name)),
        object => object.reference().namespace,
    });
    recorded.chain(known).collect()
}

fn window(header: &Header) -> Window {
    Window {
        start: header.start,
        end: header.end,
        seconds: header.end.since(header.start).as_secs(),
        gaps: header.gaps.clone(),
        losses: header.losses.clone(),
        unobserved: header.unobserved.clone(),
    }
}

fn base_in_words(base: Base, judging: &Judging) -> String {
    let policies = judging.before.iter().filter(|object| matches!(object, Object::Policy(_)));
    match base {
        Base::Enforced => format!("enforced, {}", policies_in_words(policies.count())),
        Base::Empty => "empty, no policies".to_owned(),
    }
}

fn policies_in_words(number: usize) -> String {
    if number == 1 { "1 policy".to_owned() } else { format!("{number} policies") }
}

fn assumed(settings: &Settings, deny: Option<&DefaultDeny>) -> Vec<String> {
    let mut assumed = vec![
        "every recorded pod is what it was when it was recorded, but for what the candidate relabels"
            .to_owned(),
    ];
    if let (Some(scope), Some(deny)) = (&settings.default_deny, deny) {
        let namespaces = match scope {
            DenyScope::All => {
                let exempt: Vec<&str> = deny.exempt_namespaces.iter().map(|name| &**name).collect();
                format!("every namespace but {}", exempt.join(", "))
            }
            DenyScope::Namespaces(names) => names.join(", "),
        };
        let allowed: Vec<&str> = deny.assume.iter().map(|assumption| assumption.as_str()).collect();
        let allowed = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
        let directions = Direction::BOTH.map(|direction| direction.as_str().to_lowercase()).join(" and ");
        assumed
            .push(format!("default-deny for {directions} in {namespaces}, which allows besides: {allowed}"));
    }
    assumed
}

fn edits(judging: Judging, relabel: &Relabel, settings: &Settings) -> Vec<Edit> {
    let mut edits = judging.edits;
    let touched = relabel.touched().iter().cloned();
    edits.extend(touched.map(|object| Edit { action: Action::Relabels, object }));
    match &settings.default_deny {
        Some(DenyScope::All) => {
            let object = ObjectRef::cluster("Namespace", "*");
            edits.push(Edit { action: Action::DefaultDeny, object });
        }
        Some(DenyScope::Namespaces(names)) => {
            edits.extend(names.iter().map(|name| Edit {
                action: Action::DefaultDeny,
                object: ObjectRef::cluster("Namespace", name),
            }))
        }
        None => {}
    }
    edits.sort();
    edits
}

/// What the reader should know before the findings.
fn warnings(
    recording: &Recording,
    base: &[Object],
    candidate: &[Object],
    after: &Judges,
    settings: &Settings,
) -> Vec<String> {
    let mut warnings = recording.header.warnings.clone();
    let refused = after.segment_maps().into_iter().filter(|map| !map.in_force);
    warnings.extend(
        refused.map(|map| format!("segment map {} is not in force, nothing is judged by it", map.name)),
    );
    let wrong = after.exception_findings().into_iter();
    warnings.extend(wrong.map(|found| format!("{}: {}", found.exception, found.finding)));
    for object in candidate {
        let reference = object.reference();
        match object {
            object if candidate::judges(object) => {}
            _ if settings.delete => warnings.push(format!(
                "{reference} judges nothing: deleting it is not previewed, its connections are judged as recorded"
            )),
            Object::Namespace(_) | Object::Pod(_) => {}
            Object::Workload(workload) if workload.template.is_some() => {}
            _ => warnings.push(format!(
                "{reference} neither judges nor has labels that policies see: what it changes is not previewed"
            )),
        }
    }
    if let Some(DenyScope::Namespaces(names)) = &settings.default_deny {
        let known = namespaces(&recording.edges, base);
        let unknown = names.iter().filter(|name| !known.iter().any(|known| **known == ***name));
        warnings.extend(unknown.map(|name| format!("namespace {name} has nothing recorded and no manifest")));
    }
    let broken = base.iter().filter(|object| match object {
        Object::Broken(_) => true,
        Object::Policy(policy) => settings.base == Base::Enforced && !policy.faults().is_empty(),
        _ => false,
    });
    let broken = broken.count();
    if broken > 0 {
        warnings.push(format!(
            "{} of the base could not be read in full: what depends on that is unknown",
            count(broken as u64, "object")
        ));
    }
    warnings
}
