//! Decoding: a document's value into objects, with every error and every unknown field by its path.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::finding::{Finding, Place};
use super::salvage;
use crate::cluster::object::{EndpointSlice, Namespace, Node, Object, ObjectError, Pod, Service, Workload};
use crate::model::object::ObjectRef;
use crate::model::typed::{deciding, typed};
use crate::policy::api::{CLUSTER_POLICY_CANDIDATE, POLICY_CANDIDATE};
use crate::policy::{Candidate, Fault, Force, Policy, PolicyKind};
use crate::segment::api::{API_VERSION, EDGE_EXCEPTION, EdgeExceptionObject, SEGMENT_MAP, SegmentMapObject};
use crate::segment::{self, EdgeException, Effect, SegmentMap};

/// Reads a value as an object; fields that the kind does not have go to the list.
type Decode = fn(&Value, &mut Vec<String>) -> Result<Object, ObjectError>;

/// A kind that we read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// As manifests have it.
    pub(super) kind: &'static str,
    /// As references show it: with its group where another kind is called so too.
    name: &'static str,
    pub(super) namespaced: bool,
    source: Source,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    Api(&'static str, Decode),
    Policy(&'static PolicyKind),
}

impl Kind {
    fn api_versions(&self) -> &[&'static str] {
        match &self.source {
            Source::Api(version, _) => std::slice::from_ref(version),
            Source::Policy(policy) => policy.api_versions,
        }
    }

    fn is_of(&self, api_version: &str) -> bool {
        self.api_versions().iter().any(|own| group(own) == group(api_version))
    }

    fn decode(&self, value: &Value, unknown: &mut Vec<String>) -> Result<Object, ObjectError> {
        match self.source {
            Source::Api(_, decode) => decode(value, unknown),
            Source::Policy(policy) => Ok(Object::Policy(Arc::new(policy.read(value, unknown)?))),
        }
    }

    /// The kind of policy, if it is one.
    pub(super) const fn policy(&self) -> Option<&'static PolicyKind> {
        match self.source {
            Source::Policy(policy) => Some(policy),
            Source::Api(..) => None,
        }
    }
}

const fn kind(name: &'static str, api_version: &'static str, namespaced: bool, decode: Decode) -> Kind {
    Kind { kind: name, name, namespaced, source: Source::Api(api_version, decode) }
}

fn workload<T: DeserializeOwned>(value: &Value, unknown: &mut Vec<String>) -> Result<Object, ObjectError>
where
    for<'a> Workload: TryFrom<&'a T, Error = ObjectError>,
{
    Ok(Object::Workload(Box::new(Workload::try_from(&typed::<T>(value, unknown)?)?)))
}

const KINDS: [Kind; 16] = [
    kind("Namespace", "v1", false, |value, unknown| {
        Ok(Object::Namespace(Namespace::try_from(&typed::<core::Namespace>(value, unknown)?)?))
    }),
    kind("Pod", "v1", true, |value, unknown| {
        Ok(Object::Pod(Box::new(Pod::try_from(&typed::<core::Pod>(value, unknown)?)?)))
    }),
    kind("Service", "v1", true, |value, unknown| {
        Ok(Object::Service(Box::new(Service::try_from(&typed::<core::Service>(value, unknown)?)?)))
    }),
    kind("EndpointSlice", "discovery.k8s.io/v1", true, |value, unknown| {
        let slice = typed::<discovery::EndpointSlice>(value, unknown)?;
        Ok(Object::EndpointSlice(Box::new(EndpointSlice::try_from(&slice)?)))
    }),
    kind("Node", "v1", false, |value, unknown| {
        Ok(Object::Node(Box::new(Node::try_from(&typed::<core::Node>(value, unknown)?)?)))
    }),
    kind(SEGMENT_MAP, API_VERSION, false, segment_map),
    kind(EDGE_EXCEPTION, API_VERSION, true, edge_exception),
    kind(POLICY_CANDIDATE, API_VERSION, true, |value, unknown| candidate(value, false, unknown)),
    kind(CLUSTER_POLICY_CANDIDATE, API_VERSION, false, |value, unknown| candidate(value, true, unknown)),
    kind("Deployment", "apps/v1", true, workload::<Deployment>),
    kind("StatefulSet", "apps/v1", true, workload::<StatefulSet>),
    kind("DaemonSet", "apps/v1", true, workload::<DaemonSet>),
    kind("ReplicaSet", "apps/v1", true, workload::<ReplicaSet>),
    kind("ReplicationController", "v1", true, workload::<core::ReplicationController>),
    kind("Job", "batch/v1", true, workload::<Job>),
    kind("CronJob", "batch/v1", true, workload::<CronJob>),
];

/// API groups of which some kinds also decide about connections and are not judged.
const POLICY_GROUPS: [&str; 6] = [
    "cilium.io",
    "projectcalico.org",
    "crd.projectcalico.org",
    "policy.networking.k8s.io",
    "security.istio.io",
    "extensions",
];

/// The kinds of that name, in whatever API group.
fn kinds_named(name: &str) -> impl Iterator<Item = Kind> {
    let of_policy = |policy: &'static PolicyKind| Kind {
        kind: policy.kind,
        name: policy.name,
        namespaced: policy.namespaced,
        source: Source::Policy(policy),
    };
    KINDS.into_iter().chain(PolicyKind::ALL.iter().map(of_policy)).filter(move |kind| kind.kind == name)
}

/// The kind of that name, in whatever API group.
pub(super) fn known_kind(name: &str) -> Option<Kind> {
    kinds_named(name).next()
}

/// The same, and of several the one that is in one of these versions.
pub(super) fn likely_kind(name: &str, api_versions: &[&str]) -> Option<Kind> {
    let versions = |kind: &Kind| kind.policy().map_or(&[][..], |policy| policy.api_versions);
    let named = |kind: &Kind| versions(kind).iter().any(|version| api_versions.contains(version));
    kinds_named(name).find(named).or_else(|| known_kind(name))
}

/// The group of an `apiVersion`; empty for the core group.
fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Unknown fields take a map or an exception out of force: they may have been meant to narrow a member.
fn unknown_fields(unknown: &mut Vec<String>, kind: &str) -> Vec<segment::Finding> {
    let finding = |field| segment::Finding::not_in_force(field, format_args!("is not a field of {kind}"));
    deciding(unknown).into_iter().map(finding).collect()
}

fn segment_map(value: &Value, unknown: &mut Vec<String>) -> Result<Object, ObjectError> {
    let typed = typed::<SegmentMapObject>(value, unknown)?;
    let findings = unknown_fields(unknown, SEGMENT_MAP);
    Ok(Object::SegmentMap(Arc::new(SegmentMap::from_object_with(&typed, findings))))
}

fn edge_exception(value: &Value, unknown: &mut Vec<String>) -> Result<Object, ObjectError> {
    let typed = typed::<EdgeExceptionObject>(value, unknown)?;
    let findings = unknown_fields(unknown, EDGE_EXCEPTION);
    Ok(Object::EdgeException(Arc::new(EdgeException::from_object_with(&typed, findings))))
}

fn candidate(value: &Value, is_cluster: bool, unknown: &mut Vec<String>) -> Result<Object, ObjectError> {
    Ok(Object::Candidate(Arc::new(Candidate::read(value, is_cluster, unknown)?)))
}

/// Decodes one document.
pub(super) struct Decoder<'a> {
    default_namespace: Option<&'a str>,
    place: &'a Place,
    /// Each with the path of its list item, if it is one.
    pub(super) objects: Vec<(Object, Option<String>)>,
    pub(super) findings: Vec<Finding>,
    pub(super) skipped: Vec<String>,
}

impl<'a> Decoder<'a> {
    pub(super) const fn new(default_namespace: Option<&'a str>, place: &'a Place) -> Self {
        Self { default_namespace, place, objects: Vec::new(), findings: Vec::new(), skipped: Vec::new() }
    }

    pub(super) fn document(&mut self, mut value: Value) {
        let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
        let Some(item_kind) = kind.strip_suffix("List").map(ToOwned::to_owned) else {
            return self.object(value, None);
        };
        let api_version = value.get("apiVersion").cloned();
        let Some(Value::Array(items)) = value.get_mut("items").map(Value::take) else {
            let message = "is missing, or no list";
            self.findings.push(self.place.warning(None, Some("items".to_owned()), message));
            return;
        };
        for (index, mut item) in items.into_iter().enumerate() {
            if let Value::Object(fields) = &mut item
                && !item_kind.is_empty()
            {
                // The items of a typed list do not repeat what they are.
                fields.entry("kind").or_insert_with(|| item_kind.clone().into());
                if let Some(version) = &api_version {
                    fields.entry("apiVersion").or_insert_with(|| version.clone());
                }
            }
            self.object(item, Some(format!("items[{index}]")));
        }
    }

    /// One object, and no list of them; `item` is its place in one.
    pub(super) fn object(&mut self, mut value: Value, item: Option<String>) {
        let Some(name) = value.get("kind").and_then(Value::as_str).map(ToOwned::to_owned) else {
            let message = if value.is_object() {
                "has no kind: it is not a Kubernetes object"
            } else {
                "is not a Kubernetes object"
            };
            self.findings.push(self.place.warning(None, item, message));
            self.skipped.push("(no kind)".to_owned());
            return;
        };
        let api_version = value.get("apiVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut known = kinds_named(&name).peekable();
        let namesake = known.peek().is_some();
        let Some(kind) = known.find(|kind| api_version.is_empty() || kind.is_of(&api_version)) else {
            return self.skip(&name, &api_version, namesake, &value, item);
        };
        let defaulted = kind.namespaced && self.set_namespace(&mut value);
        let reference = reference(&kind, &value);
        if defaulted && self.default_namespace.is_none() {
            let field = under(item.as_deref(), "metadata.namespace");
            let message = "is missing: \"default\" is taken";
            self.findings.push(self.place.warning(reference.as_ref(), Some(field), message));
        }
        let mut unknown = Vec::new();
        let decoded = if kind.api_versions().contains(&&*api_version) {
            kind.decode(&value, &mut unknown)
        } else {
            let message = format!("\"{api_version}\" is not {}", kind.api_versions().join(" or "));
            Err(ObjectError::new("apiVersion", message))
        };
        for field in unknown {
            let field = under(item.as_deref(), &field);
            let message = format!("is not a field of {}: ignored", kind.name);
            self.findings.push(self.place.warning(reference.as_ref(), Some(field), message));
        }
        let object = match decoded {
            Ok(object) => {
                self.remark(&object, item.as_deref());
                object
            }
            Err(error) => self.broken(&kind, reference, &value, error, item.as_deref()),
        };
        self.objects.push((object, item));
    }

    fn skip(&mut self, kind: &str, api_version: &str, namesake: bool, value: &Value, item: Option<String>) {
        let group = group(api_version);
        let key = if namesake { format!("{kind}.{group}") } else { kind.to_owned() };
        if POLICY_GROUPS.contains(&group) {
            let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            let message = format!("{key} \"{name}\" is a policy that is not judged yet: left out");
            self.findings.push(self.place.warning(None, item, message));
        }
        self.skipped.push(key);
    }

    /// Gives a namespaced object without a namespace one; returns whether it had none.
    fn set_namespace(&self, value: &mut Value) -> bool {
        let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) else { return false };
        let missing =
            metadata.get("namespace").is_none_or(|namespace| namespace.is_null() || *namespace == "");
        if missing {
            let namespace = self.default_namespace.unwrap_or("default");
            metadata.insert("namespace".to_owned(), namespace.into());
        }
        missing
    }

    /// What a readable object says that is worth a remark.
    fn remark(&mut self, object: &Object, item: Option<&str>) {
        match object {
            Object::Pod(pod) if pod.addresses.is_empty() && !pod.finished => {
                let field = under(item, "status.podIPs");
                let message = "has no address: where an ipBlock decides, the verdict is unknown";
                self.findings.push(self.place.warning(Some(&object.reference()), Some(field), message));
            }
            Object::Policy(policy) => {
                for fault in policy.faults() {
                    let field = under(item, &fault.field);
                    let reference = Some(&**policy.reference());
                    self.findings.push(self.place.error(reference, Some(field), fault.message.clone()));
                }
                for note in policy.notes() {
                    let field = under(item, &note.field);
                    let reference = Some(&**policy.reference());
                    self.findings.push(self.place.warning(reference, Some(field), note.message.clone()));
                }
                if let Force::NotInForce(why) = policy.force() {
                    let message = format!("is not in force: {why}");
                    let reference = Some(&**policy.reference());
                    self.findings.push(self.place.warning(reference, item.map(ToOwned::to_owned), message));
                }
            }
            Object::SegmentMap(map) => self.remark_all(map.reference(), map.findings(), item),
            Object::EdgeException(exception) => {
                self.remark_all(exception.reference(), exception.findings(), item);
            }
            Object::Candidate(candidate) => {
                for fault in candidate.faults() {
                    let field = under(item, &fault.field);
                    let message = format!("{}: it is not in force", fault.message);
                    self.findings.push(self.place.error(Some(candidate.reference()), Some(field), message));
                }
            }
            _ => {}
        }
    }

    /// The findings of a segment map or an exception: an error where it is not in force for it.
    fn remark_all(&mut self, reference: &ObjectRef, findings: &[segment::Finding], item: Option<&str>) {
        for finding in findings {
            let field = Some(under(item, &finding.field));
            let message = match finding.effect {
                Effect::NotInForce => format!("{}: it is not in force", finding.message),
                Effect::Note => finding.message.clone(),
            };
            self.findings.push(match finding.effect {
                Effect::NotInForce => self.place.error(Some(reference), field, message),
                Effect::Note => self.place.warning(Some(reference), field, message),
            });
        }
    }

    /// Keeps an object that could not be read as one, so that what depends on it is unknown.
    fn broken(
        &mut self,
        kind: &Kind,
        reference: Option<ObjectRef>,
        value: &Value,
        error: ObjectError,
        item: Option<&str>,
    ) -> Object {
        let field = under(item, &error.field);
        let field = (!field.is_empty()).then_some(field);
        self.findings.push(self.place.error(reference.as_ref(), field, error.message.clone()));
        if kind.name == SEGMENT_MAP {
            let finding = segment::Finding::not_in_force(error.field, error.message);
            return salvage::unreadable_map(
                reference.as_ref().map(|known| &*known.name),
                self.place,
                finding,
            );
        }
        let Some(policy_kind) = kind.policy() else {
            return salvage::from_value(reference, kind.name, value, self.place);
        };
        let policy = match reference {
            Some(reference) => {
                Policy::unreadable(reference, Fault { field: error.field, message: error.message })
            }
            None => {
                let namespace = value.pointer("/metadata/namespace").and_then(Value::as_str);
                salvage::unreadable_policy(policy_kind, namespace, self.place, &error.message)
            }
        };
        Object::Policy(Arc::new(policy))
    }
}

/// A path below a list item.
fn under(item: Option<&str>, field: &str) -> String {
    match (item, field) {
        (Some(item), "") => item.to_owned(),
        (Some(item), field) => format!("{item}.{field}"),
        (None, field) => field.to_owned(),
    }
}

/// Which object a value is, if its name can be read.
fn reference(kind: &Kind, value: &Value) -> Option<ObjectRef> {
    let name = value.pointer("/metadata/name")?.as_str().filter(|name| !name.is_empty())?;
    let namespace = value.pointer("/metadata/namespace").and_then(Value::as_str);
    Some(match namespace.filter(|_| kind.namespaced) {
        Some(namespace) => ObjectRef::namespaced(kind.name, namespace, name),
        None if kind.namespaced => return None,
        None => ObjectRef::cluster(kind.name, name),
    })
}
