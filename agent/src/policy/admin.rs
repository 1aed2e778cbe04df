//! policy.networking.k8s.io: ClusterNetworkPolicy v1alpha2, AdminNetworkPolicy and BaselineAdminNetworkPolicy v1alpha1,
//! read and checked as their definitions say (network-policy-api, apis/v1alpha1 and apis/v1alpha2).

mod peers;
mod ports;
mod types;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::types::{AdminSpec, BaselineSpec, ClusterSpec, EgressPeer, Subject};
use super::condition::Condition;
use super::fault::{Content, Faults, Field, UnknownFields};
use super::given::Given;
use super::kinds::without_spec;
use super::network_policy::read_selector;
use super::resource::Resource;
use super::spec::{Action, Contents, Force, Part, Peers, Place, Policy, Ports, Rule, Scope, Section};
use crate::model::object::ObjectRef;
use crate::model::typed::{TypeFault, deciding, typed};

/// What is found while one object is read.
struct Reader {
    faults: Faults,
    unknown: UnknownFields,
}

/// A rule of either version and direction.
struct RawRule {
    name: Option<String>,
    action: Option<String>,
    peers: Option<Vec<EgressPeer>>,
    ports: Ports,
    /// An entry of its ports is a name.
    named_port: bool,
}

/// What differs between the kinds.
struct Limits {
    kind: &'static str,
    accept: &'static str,
    rules: usize,
    peers: usize,
}

const CLUSTER: Limits = Limits { kind: "ClusterNetworkPolicy", accept: "Accept", rules: 25, peers: 25 };
const ADMIN: Limits = Limits { kind: "AdminNetworkPolicy", accept: "Allow", rules: 100, peers: 100 };
const BASELINE: Limits =
    Limits { kind: "BaselineAdminNetworkPolicy", accept: "Allow", rules: 100, peers: 100 };

/// Reads a ClusterNetworkPolicy.
pub(super) fn read_cluster(value: &Value, unknown: &mut Vec<String>) -> Result<Policy, TypeFault> {
    let (metadata, spec, mut reader) = open::<ClusterSpec>(value, unknown, &CLUSTER)?;
    let places = reader.places(spec.tier.as_deref(), spec.priority);
    let subject = reader.subject(spec.subject.as_ref());
    let mut ingress = Vec::new();
    for (at, rule) in spec.ingress.into_iter().flatten().enumerate() {
        let (ports, named_port) =
            reader.protocols(rule.protocols.as_deref(), &format!("spec.ingress[{at}].protocols"));
        let peers = rule.from.map(|peers| peers.into_iter().map(EgressPeer::from).collect());
        ingress.push(RawRule { name: rule.name, action: rule.action, peers, ports, named_port });
    }
    let mut egress = Vec::new();
    for (at, rule) in spec.egress.into_iter().flatten().enumerate() {
        let (ports, named_port) =
            reader.protocols(rule.protocols.as_deref(), &format!("spec.egress[{at}].protocols"));
        egress.push(RawRule { name: rule.name, action: rule.action, peers: rule.to, ports, named_port });
    }
    Ok(reader.policy(&metadata, &CLUSTER, (places, subject), [egress, ingress]))
}

/// Reads an AdminNetworkPolicy.
pub(super) fn read_admin(value: &Value, unknown: &mut Vec<String>) -> Result<Policy, TypeFault> {
    let (metadata, spec, mut reader) = open::<AdminSpec>(value, unknown, &ADMIN)?;
    let places = reader.places(Some("Admin"), spec.priority);
    let subject = reader.subject(spec.subject.as_ref());
    let rules = reader.admin_rules(spec.ingress, spec.egress);
    Ok(reader.policy(&metadata, &ADMIN, (places, subject), rules))
}

/// Reads a BaselineAdminNetworkPolicy. There is one, called `default`.
pub(super) fn read_baseline(value: &Value, unknown: &mut Vec<String>) -> Result<Policy, TypeFault> {
    let (metadata, spec, mut reader) = open::<BaselineSpec>(value, unknown, &BASELINE)?;
    let name = metadata.name.as_deref().unwrap_or_default();
    let places = match name {
        "default" => Ok(vec![Place::Baseline { priority: 0 }]),
        _ => Err((
            vec![Place::Baseline { priority: 0 }],
            reader.faults.add("metadata.name", "must be default"),
        )),
    };
    let subject = reader.subject(spec.subject.as_ref());
    let rules = reader.admin_rules(spec.ingress, spec.egress);
    Ok(reader.policy(&metadata, &BASELINE, (places, subject), rules))
}

/// Where a policy's parts stand; with the field, where that is not certain.
type Places = Result<Vec<Place>, (Vec<Place>, Field)>;

fn open<S: DeserializeOwned>(
    value: &Value,
    unknown: &mut Vec<String>,
    limits: &Limits,
) -> Result<(ObjectMeta, S, Reader), TypeFault> {
    let object = typed::<Resource<S>>(value, unknown)?;
    let paths = without_spec(object.spec.is_none(), limits.kind, deciding(unknown))?;
    let missing = || TypeFault { field: "spec".to_owned(), message: "is required".to_owned() };
    let spec = object.spec.ok_or_else(missing)?;
    let mut faults = Faults::default();
    let unknown = UnknownFields::new(paths);
    unknown.report(limits.kind, &mut faults);
    Ok((object.metadata, spec, Reader { faults, unknown }))
}

impl Reader {
    fn places(&mut self, tier: Option<&str>, priority: Option<i64>) -> Places {
        let number =
            priority.and_then(|number| i32::try_from(number).ok()).filter(|n| (0..=1000).contains(n));
        let broken = number.is_none().then(|| {
            let message = match priority {
                Some(number) => format!("{number} is not a priority: 0 to 1000"),
                None => "is required: 0 to 1000".to_owned(),
            };
            self.faults.add("spec.priority", message)
        });
        // Where it is not known, it may as well be the first.
        let priority = number.unwrap_or(0);
        let (admin, baseline) = (Place::Admin { priority }, Place::Baseline { priority });
        let (places, wrong) = match tier {
            Some("Admin") => (vec![admin], None),
            Some("Baseline") => (vec![baseline], None),
            other => {
                let message = match other {
                    Some(name) => format!("\"{name}\" is none of Admin, Baseline"),
                    None => "is required: Admin or Baseline".to_owned(),
                };
                (vec![admin, baseline], Some(self.faults.add("spec.tier", message)))
            }
        };
        match wrong.or(broken) {
            Some(field) => Err((places, field)),
            None => Ok(places),
        }
    }

    fn subject(&mut self, subject: Option<&Subject>) -> Condition {
        const PATH: &str = "spec.subject";
        let unknown = self.unknown.take(PATH);
        let condition = match subject.map(|subject| (&subject.namespaces, &subject.pods)) {
            Some((Some(namespaces), None)) => Condition::namespace_labels(read_selector(
                namespaces,
                &format!("{PATH}.namespaces"),
                &mut self.faults,
            )),
            Some((None, Some(pods))) => {
                let (namespaces, pods) = self.namespaced_pod(pods, &format!("{PATH}.pods"));
                Condition::All(vec![namespaces, pods])
            }
            Some((Some(_), Some(_))) => {
                Condition::Unknown(self.faults.add(PATH, "must have one of namespaces and pods"))
            }
            Some((None, None)) | None => {
                Condition::Unknown(self.faults.add(PATH, "must have namespaces or pods"))
            }
        };
        match unknown {
            Some(field) => Condition::Unknown(field),
            None => condition,
        }
    }

    /// The policy, with what is left of unknown fields.
    fn policy(
        mut self,
        metadata: &ObjectMeta,
        limits: &Limits,
        (places, subject): (Places, Condition),
        [egress, ingress]: [Vec<RawRule>; 2],
    ) -> Policy {
        let name = metadata.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            self.faults.add("metadata.name", "is required");
        }
        let egress = self.section(egress, limits, ("spec.egress", "to"));
        let ingress = self.section(ingress, limits, ("spec.ingress", "from"));
        let (places, mut doubt) = match places {
            Ok(places) => (places, None),
            Err((places, field)) => (places, Some(field)),
        };
        doubt = doubt.or_else(|| self.unknown.take("spec")).or_else(|| self.unknown.take(""));
        let part = |place| {
            let (subject, egress, ingress) = (subject.clone(), egress.clone(), ingress.clone());
            let mut part = Part { place, scope: Scope::Cluster, subject, egress, ingress };
            if let Some(field) = &doubt {
                part.doubt(field);
            }
            part
        };
        Policy {
            reference: Arc::new(ObjectRef::cluster(limits.kind, name)),
            contents: Contents::Parts(places.into_iter().map(part).collect()),
            faults: self.faults.into_found(),
            notes: Vec::new(),
            force: Force::InForce,
        }
    }

    /// No rule has no effect: nothing is isolated.
    fn section(&mut self, rules: Vec<RawRule>, limits: &Limits, (path, peers): (&str, &str)) -> Section {
        let applies = if rules.len() > limits.rules {
            Err(self.faults.add(path, format!("has {} rules: at most {}", rules.len(), limits.rules)))
        } else {
            Ok(!rules.is_empty())
        };
        let rules = rules.into_iter().enumerate();
        let rules =
            rules.flat_map(|(at, rule)| self.rule(rule, limits, (&format!("{path}[{at}]"), peers), at));
        Section { rules: rules.collect(), applies, isolates: Ok(false) }
    }

    /// The rule; where its action is not known, one for each.
    fn rule(
        &mut self,
        raw: RawRule,
        limits: &Limits,
        (path, peers_name): (&str, &str),
        at: usize,
    ) -> Vec<Rule> {
        let RawRule { name, action, peers, ports, named_port } = raw;
        let action = self.action(action.as_deref(), limits, path);
        let list = format!("{path}.{peers_name}");
        let (peers, closed) = self.peers(peers, limits, (&list, action.as_ref().ok().copied()), named_port);
        let given = self.unknown.take(path).map_or_else(Given::nothing, Given::Unknown);
        let index = super::evaluate::index(at);
        let name = name.filter(|name| !name.is_empty());
        let rule = Rule {
            peers,
            ports,
            given,
            index: Some(index),
            name: name.map(|name| format!("{index} ({name})").into()),
            ..Rule::any(Action::Allow)
        };
        match action {
            // A peer of a kind that we do not know fails closed: such a rule denies all.
            Ok(Action::Deny | Action::Pass) if closed => {
                vec![Rule { action: Action::Deny, peers: Peers::Any, ports: Ports::Any, ..rule }]
            }
            Ok(action) => vec![Rule { action, ..rule }],
            Err(field) => {
                let given = Given::All(vec![rule.given.clone(), Given::Unknown(field)]);
                let each = [Action::Allow, Action::Deny, Action::Pass];
                each.map(|action| Rule { action, given: given.clone(), ..rule.clone() }).into()
            }
        }
    }

    fn action(&mut self, action: Option<&str>, limits: &Limits, path: &str) -> Content<Action> {
        match action {
            Some("Deny") => Ok(Action::Deny),
            // Nothing is behind the baseline.
            Some("Pass") if limits.kind != BASELINE.kind => Ok(Action::Pass),
            Some(name) if name == limits.accept => Ok(Action::Allow),
            other => {
                let found =
                    other.map_or_else(|| "is missing".to_owned(), |name| format!("\"{name}\" is none"));
                let pass = if limits.kind == BASELINE.kind { "" } else { ", Pass" };
                let message = format!("{found} of {}, Deny{pass}", limits.accept);
                Err(self.faults.add(format!("{path}.action"), message))
            }
        }
    }
}
