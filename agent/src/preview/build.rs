//! From a recording, a base and a candidate to a preview.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::candidate::{self, Action, Edit, Policies};
use super::compare::{Compared, Found, Scales, compare};
use super::relabel::Relabel;
use super::{Base, DenyScope, Group, Owned, Preview, Settings, Window, confidence, seen};
use crate::cluster::Object;
use crate::finding::Denial;
use crate::finding::words::{count, title};
use crate::history::file::{Header, Recording};
use crate::model::edge::{Direction, Edge};
use crate::model::object::ObjectRef;
use crate::model::scenario::{DefaultDeny, Scenario};
use crate::model::verdict::Verdict;
use crate::policy::Judge;

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
    let before = match settings.base {
        Base::Enforced => candidate::policies_of(base),
        Base::Empty => Vec::new(),
    };
    let policies = candidate::lay_over(before, candidate, settings.delete);
    let applied = if settings.delete { &[] } else { candidate };
    let deny = settings.default_deny.as_ref().map(|scope| default_deny(scope, settings, recording, base));
    let scenario = deny.clone().map_or(Scenario::Enforced, Scenario::DefaultDeny);
    let mut scales = Scales {
        before: Judge::new(&policies.before, settings.dialect, &Scenario::Enforced),
        after: Judge::new(&policies.after, settings.dialect, &scenario),
        relabel: Relabel::new(base, applied),
    };
    let compared = compare(recording, &mut scales);
    let never_seen = seen::never_seen(merged(base, applied), &recording.edges);
    let window = window(&recording.header);
    let Compared { found, counts } = compared;
    let confidence = confidence::sentence(&window, &counts, never_seen.len());
    let mut groups = Classes::default();
    for found in found {
        groups.of(found.finding.before, found.finding.after).push(found);
    }
    let mut newly_denied = grouped(groups.newly_denied);
    let owned = newly_denied.iter_mut().flat_map(|group| &mut group.owners);
    let sides = owned.flat_map(|owned| &mut owned.findings).flat_map(|finding| &mut finding.sides);
    Denial::name_apart(sides.filter_map(|side| side.denial.as_mut()));
    Preview {
        cluster: recording.header.cluster.clone(),
        dialect: settings.dialect.to_string(),
        base: base_in_words(settings.base, &policies),
        assumed: assumed(settings, deny.as_ref()),
        warnings: warnings(recording, base, candidate, settings),
        edits: edits(policies, &scales.relabel, settings),
        window,
        never_seen,
        confidence,
        counts,
        newly_denied,
        newly_allowed: grouped(groups.newly_allowed),
        unknown: grouped(groups.unknown),
        still_denied: grouped(groups.still_denied),
    }
}

/// The base's objects with the candidate's in place of their namesakes.
fn merged(base: &[Object], candidate: &[Object]) -> Vec<Object> {
    let new: BTreeSet<ObjectRef> = candidate.iter().map(Object::reference).collect();
    let kept = base.iter().filter(|object| !new.contains(&object.reference()));
    kept.chain(candidate).filter(|object| !matches!(object, Object::Policy(_))).cloned().collect()
}

/// Findings by what happens to them.
#[derive(Default)]
struct Classes {
    newly_denied: Vec<Found>,
    newly_allowed: Vec<Found>,
    unknown: Vec<Found>,
    still_denied: Vec<Found>,
}

impl Classes {
    const fn of(&mut self, before: Verdict, after: Verdict) -> &mut Vec<Found> {
        match (before, after) {
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

fn base_in_words(base: Base, policies: &Policies) -> String {
    match base {
        Base::Enforced => format!("enforced, {}", policies_in_words(policies.before.len())),
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

fn edits(policies: Policies, relabel: &Relabel, settings: &Settings) -> Vec<Edit> {
    let mut edits = policies.edits;
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
    settings: &Settings,
) -> Vec<String> {
    let mut warnings = recording.header.warnings.clone();
    for object in candidate {
        let reference = object.reference();
        match object {
            Object::Policy(_) => {}
            _ if settings.delete => warnings.push(format!(
                "{reference} is no policy: deleting it is not previewed, its connections are judged as recorded"
            )),
            Object::Namespace(_) | Object::Pod(_) => {}
            Object::Workload(workload) if workload.template.is_some() => {}
            _ => warnings.push(format!(
                "{reference} is neither a policy nor something with labels: what it changes is not previewed"
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
