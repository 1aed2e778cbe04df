//! projectcalico.org: NetworkPolicy, GlobalNetworkPolicy, Tier, NetworkSet, GlobalNetworkSet and the staged kinds, in
//! the groups projectcalico.org/v3 and crd.projectcalico.org/v1, read as Calico's docs and its own conversion to
//! what Felix gets say (projectcalico/calico, libcalico-go/lib/backend/syncersv1/updateprocessors).
//!
//! Host endpoints are not read: policies for hosts are out of the audit, and selectors never match a node.

mod entity;
mod objects;
mod ports;
mod rule;
mod selector;
mod staged;
mod tokens;
mod types;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::rule::ReadRule;
use self::selector::{Expression, Of, View};
use self::types::PolicySpec;
use super::condition::Condition;
use super::fault::{Content, Fault, Faults, Field, UnknownFields};
use super::kinds::without_spec;
use super::resource::Resource;
use super::spec::{Action, Contents, Force, Order, Part, Place, Policy, Rule, Scope, Section};
use crate::model::edge::Direction;
use crate::model::object::ObjectRef;
use crate::model::typed::{TypeFault, deciding, typed};

pub use self::objects::missing_tiers;
pub(super) use self::objects::{read_global_set, read_set, read_tier, unreadable_set, unreadable_tier};
pub use self::staged::{StagedEdit, with_staged};
pub(super) use self::staged::{read_staged_global, read_staged_kubernetes, read_staged_network};

/// NetworkPolicy as references show it: another kind is called so too.
pub(super) const NETWORK_POLICY: &str = "NetworkPolicy.projectcalico.org";
const GLOBAL_NETWORK_POLICY: &str = "GlobalNetworkPolicy";
/// The tier of policies that name none, and the prefix that their names have in crd.projectcalico.org.
pub(super) const DEFAULT_TIER: &str = "default";

/// What is found while one object is read.
struct Reader {
    faults: Faults,
    unknown: UnknownFields,
    /// Those of the object; none where it is cluster-wide.
    namespace: Option<Content<Arc<str>>>,
}

/// A kind that holds rules.
#[derive(Debug, Clone, Copy)]
struct Kind {
    /// As manifests have it.
    kind: &'static str,
    /// The kind that is in force, as references show it.
    enforced: &'static str,
    global: bool,
    staged: bool,
}

const NETWORK: Kind = Kind { kind: "NetworkPolicy", enforced: NETWORK_POLICY, global: false, staged: false };
const GLOBAL: Kind =
    Kind { kind: GLOBAL_NETWORK_POLICY, enforced: GLOBAL_NETWORK_POLICY, global: true, staged: false };

/// Reads a NetworkPolicy of Calico.
pub(super) fn read_network(value: &Value, unknown: &mut Vec<String>) -> Result<Policy, TypeFault> {
    read_policy(value, unknown, NETWORK)
}

/// Reads a GlobalNetworkPolicy.
pub(super) fn read_global(value: &Value, unknown: &mut Vec<String>) -> Result<Policy, TypeFault> {
    read_policy(value, unknown, GLOBAL)
}

/// What a policy may be of which nothing could be read: it may be in any tier, and say anything.
pub(super) fn unreadable(scope: Scope, field: &Field) -> Contents {
    // No tier is called so, so nobody knows where it stands.
    let place = Place::Calico { tier: "".into(), order: Order::LAST, field: Field::clone(field) };
    Contents::Parts(vec![Part::unknown(place, scope, field, &[Action::Allow, Action::Deny, Action::Pass])])
}

fn read_policy(value: &Value, unknown: &mut Vec<String>, kind: Kind) -> Result<Policy, TypeFault> {
    let (metadata, spec, reader) = open::<PolicySpec>(value, unknown, kind.kind, kind.global, |spec| {
        foreign_fields(spec, kind).map(ToOwned::to_owned).collect()
    })?;
    Ok(reader.policy(&metadata, &spec, kind))
}

/// The fields that only kinds of the other scope have, or staged ones.
fn foreign_fields(spec: &PolicySpec, kind: Kind) -> impl Iterator<Item = &'static str> {
    let fields = [
        ("spec.stagedAction", spec.staged_action.is_some() && !kind.staged),
        ("spec.doNotTrack", spec.do_not_track.is_some() && !kind.global),
        ("spec.preDNAT", spec.pre_dnat.is_some() && !kind.global),
        ("spec.applyOnForward", spec.apply_on_forward.is_some() && !kind.global),
        ("spec.namespaceSelector", spec.namespace_selector.is_some() && !kind.global),
    ];
    fields.into_iter().filter_map(|(field, foreign)| foreign.then_some(field))
}

/// Reads an object as its type, and begins to collect its faults.
fn open<S: DeserializeOwned>(
    value: &Value,
    unknown: &mut Vec<String>,
    kind: &'static str,
    global: bool,
    foreign: impl FnOnce(&S) -> Vec<String>,
) -> Result<(ObjectMeta, S, Reader), TypeFault> {
    let object = typed::<Resource<S>>(value, unknown)?;
    let mut paths = without_spec(object.spec.is_none(), kind, deciding(unknown))?;
    let missing = || TypeFault { field: "spec".to_owned(), message: "is required".to_owned() };
    let spec = object.spec.ok_or_else(missing)?;
    paths.extend(foreign(&spec));
    let mut faults = Faults::default();
    let unknown = UnknownFields::new(paths);
    unknown.report(kind, &mut faults);
    let metadata = object.metadata;
    if metadata.name.as_deref().unwrap_or_default().is_empty() {
        faults.add("metadata.name", "is required");
    }
    let namespace = (!global).then(|| {
        let namespace = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty());
        namespace.map(Arc::from).ok_or_else(|| faults.add("metadata.namespace", "is required"))
    });
    Ok((metadata, spec, Reader { faults, unknown, namespace }))
}

/// The reference to an object by its metadata.
fn reference(kind: &str, metadata: &ObjectMeta, namespace: Option<&Content<Arc<str>>>) -> ObjectRef {
    let name = metadata.name.as_deref().unwrap_or_default();
    match namespace {
        Some(Ok(namespace)) => ObjectRef::namespaced(kind, namespace, name),
        Some(Err(_)) | None => ObjectRef::cluster(kind, name),
    }
}

impl Reader {
    fn policy(mut self, metadata: &ObjectMeta, spec: &PolicySpec, kind: Kind) -> Policy {
        let tier = spec.tier.as_deref().filter(|tier| !tier.is_empty()).unwrap_or(DEFAULT_TIER);
        let place = Place::Calico {
            tier: tier.into(),
            order: spec.order.map_or(Order::LAST, Order::new),
            field: Field::from("spec.tier"),
        };
        let scope = self.namespace.clone().map_or(Scope::Cluster, Scope::Namespace);
        let subject = self.subject(spec);
        let [egress, ingress] = self.types(spec);
        let rules = Direction::BOTH.map(|direction| self.rules(spec, direction));
        let mut parts = parts((place, scope, subject), [egress, ingress], rules);
        // What is left of unknown fields may have meant anything.
        if let Some(field) = self.unknown.take("spec").or_else(|| self.unknown.take("")) {
            parts.iter_mut().for_each(|part| part.doubt(&field));
        }
        let (force, notes) = force(spec);
        Policy {
            reference: Arc::new(reference(kind.enforced, metadata, self.namespace.as_ref())),
            faults: self.faults.into_found(),
            notes,
            force,
            contents: Contents::Parts(parts),
        }
    }

    /// Whom the policy is about, in its scope.
    fn subject(&mut self, spec: &PolicySpec) -> Condition {
        let mut all = Vec::new();
        for (text, field, view) in [
            (&spec.selector, "spec.selector", View::Endpoint),
            (&spec.namespace_selector, "spec.namespaceSelector", View::Namespace),
            (&spec.service_account_selector, "spec.serviceAccountSelector", View::ServiceAccount),
        ] {
            let unknown = self.unknown.take(field);
            match (text.as_deref(), unknown) {
                (_, Some(field)) => all.push(Condition::Unknown(field)),
                (Some(text), None) => all.push(match self.selector(text, field, view, false) {
                    Ok(selector) => selector.condition(view, Of::Pod, field),
                    Err(field) => Condition::Unknown(field),
                }),
                (None, None) => {}
            }
        }
        Condition::All(all)
    }

    fn selector(&mut self, text: &str, path: &str, view: View, peer: bool) -> Content<Expression> {
        match selector::parse(text) {
            Ok(selector) if selector.names_global() && !(peer && view == View::Namespace) => {
                let message = "has global(), which only a rule's namespaceSelector may have";
                Err(self.faults.add(path, message))
            }
            Ok(selector) => Ok(selector),
            Err(message) => Err(self.faults.add(path, format!("\"{text}\" is no selector: it {message}"))),
        }
    }

    /// Whether the policy says anything about egress, and about ingress. `types` absent or empty: egress if it has
    /// rules for it; ingress if it has rules for it, or has none at all.
    fn types(&mut self, spec: &PolicySpec) -> [Content<bool>; 2] {
        let has = |rules: &Option<Vec<types::Rule>>| rules.as_ref().is_some_and(|rules| !rules.is_empty());
        let types = spec.types.as_deref().unwrap_or_default();
        if types.is_empty() {
            let (egress, ingress) = (has(&spec.egress), has(&spec.ingress));
            return [Ok(egress), Ok(ingress || !egress)];
        }
        let mut broken = None;
        for (at, name) in types.iter().enumerate() {
            if !Direction::BOTH.iter().any(|direction| direction.as_str() == name) {
                let message = format!("\"{name}\" is none of Ingress, Egress");
                broken = Some(self.faults.add(format!("spec.types[{at}]"), message));
            }
        }
        Direction::BOTH.map(|direction| match &broken {
            _ if types.iter().any(|name| name == direction.as_str()) => Ok(true),
            None => Ok(false),
            Some(field) => Err(Field::clone(field)),
        })
    }

    fn rules(&mut self, spec: &PolicySpec, direction: Direction) -> Vec<ReadRule> {
        let (rules, path) = match direction {
            Direction::Egress => (&spec.egress, "spec.egress"),
            Direction::Ingress => (&spec.ingress, "spec.ingress"),
        };
        let each = rules.iter().flatten().enumerate();
        each.map(|(at, rule)| self.rule(rule, direction, &format!("{path}[{at}]"), at)).collect()
    }
}

/// The parts of a policy: one, and another for each run of rules that are only for some of its subjects, and for
/// the rules behind it. Parts of one policy are asked in their order.
fn parts(
    (place, scope, subject): (Place, Scope, Condition),
    [egress, ingress]: [Content<bool>; 2],
    [egress_rules, ingress_rules]: [Vec<ReadRule>; 2],
) -> Vec<Part> {
    let (egress_runs, ingress_runs) = (runs(egress_rules), runs(ingress_rules));
    let mut parts = Vec::new();
    let part = |narrowed: Option<Condition>, egress, ingress| {
        let subject = match narrowed {
            None => subject.clone(),
            Some(condition) => Condition::All(vec![subject.clone(), condition]),
        };
        Part { place: place.clone(), scope: scope.clone(), subject, egress, ingress }
    };
    let first = |runs: &mut std::iter::Peekable<std::vec::IntoIter<Run>>| {
        runs.next_if(|run| run.narrowed.is_none()).map_or_else(Vec::new, |run| run.rules)
    };
    let (mut egress_runs, mut ingress_runs) =
        (egress_runs.into_iter().peekable(), ingress_runs.into_iter().peekable());
    // It is there even without rules: the end of its tier is for whom it selects.
    let own = Section::isolating(egress.clone(), first(&mut egress_runs));
    parts.push(part(None, own, Section::isolating(ingress.clone(), first(&mut ingress_runs))));
    let more =
        |applies: &Content<bool>, rules| Section { applies: applies.clone(), isolates: Ok(false), rules };
    for Run { narrowed, rules } in egress_runs {
        parts.push(part(narrowed, more(&egress, rules), Section::absent()));
    }
    for Run { narrowed, rules } in ingress_runs {
        parts.push(part(narrowed, Section::absent(), more(&ingress, rules)));
    }
    parts
}

/// Rules behind each other that are for the same subjects.
struct Run {
    narrowed: Option<Condition>,
    rules: Vec<Rule>,
}

fn runs(rules: Vec<ReadRule>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for ReadRule { narrowed, rules } in rules {
        match runs.last_mut() {
            Some(last) if last.narrowed == narrowed => last.rules.extend(rules),
            _ => runs.push(Run { narrowed, rules }),
        }
    }
    runs
}

/// What is for hosts alone is not in force for pods.
fn force(spec: &PolicySpec) -> (Force, Vec<Fault>) {
    for (set, field) in [(spec.do_not_track, "doNotTrack"), (spec.pre_dnat, "preDNAT")] {
        if set == Some(true) {
            let why = format!("with {field} it is for host endpoints, which are not audited");
            return (Force::NotInForce(why.into()), Vec::new());
        }
    }
    let mut notes = Vec::new();
    if spec.apply_on_forward == Some(true) {
        let message = "is for host endpoints, which are not audited: judged as it is for pods".to_owned();
        notes.push(Fault { field: "spec.applyOnForward".to_owned(), message });
    }
    (Force::InForce, notes)
}
