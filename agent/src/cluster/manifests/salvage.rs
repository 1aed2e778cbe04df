//! What can still be told of an object that could not be read, so that what depends on it is `Unknown`.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use super::decode::{known_kind, likely_kind};
use super::finding::Place;
use crate::cluster::object::{Broken, EndpointSlice, Object};
use crate::model::object::ObjectRef;
use crate::policy::{Fault, Policy, PolicyKind};
use crate::segment::api::SEGMENT_MAP;
use crate::segment::{self, SegmentMap};

/// The name of an object that has none that could be read.
fn placeholder(place: &Place) -> String {
    let file = place.file.file_name().unwrap_or(place.file.as_os_str()).to_string_lossy();
    if place.document == 0 { file.into_owned() } else { format!("document {} of {file}", place.document) }
}

/// A policy of which nothing is known but, perhaps, its namespace.
pub(super) fn unreadable_policy(
    kind: &PolicyKind,
    namespace: Option<&str>,
    place: &Place,
    message: &str,
) -> Policy {
    let reference = ObjectRef {
        kind: kind.name.into(),
        namespace: namespace.map(Into::into),
        name: placeholder(place).into(),
    };
    Policy::unreadable(reference, Fault { field: "spec".to_owned(), message: message.to_owned() })
}

/// A segment map of which nothing is known but, perhaps, its name: it is not in force, and says so.
pub(super) fn unreadable_map(name: Option<&str>, place: &Place, finding: segment::Finding) -> Object {
    let name = name.map_or_else(|| placeholder(place), ToOwned::to_owned);
    Object::SegmentMap(Arc::new(SegmentMap::unreadable(&name, finding)))
}

/// An object of a kind that we know, of which the raw value is known and no more.
pub(super) fn from_value(reference: Option<ObjectRef>, kind: &str, value: &Value, place: &Place) -> Object {
    let reference = reference.unwrap_or_else(|| ObjectRef {
        kind: kind.into(),
        namespace: text_at(value, "/metadata/namespace").map(Into::into),
        name: placeholder(place).into(),
    });
    let label = format!("/metadata/labels/{}", EndpointSlice::SERVICE_LABEL.replace('/', "~1"));
    Object::Broken(Box::new(Broken {
        addresses: addresses(kind, value),
        service: text_at(value, &label).filter(|_| kind == "EndpointSlice").map(Into::into),
        reference: Arc::new(reference),
    }))
}

fn text_at<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer)?.as_str()
}

/// The addresses that a raw object claims, as far as they can be read.
fn addresses(kind: &str, value: &Value) -> Vec<IpAddr> {
    let list = |pointer: &str| value.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    let single = |pointer: &str| value.pointer(pointer).into_iter();
    let own_network = value.pointer("/spec/hostNetwork").and_then(Value::as_bool) != Some(true);
    let given: Vec<&Value> = match kind {
        "Pod" if own_network => {
            let ips = list("/status/podIPs").filter_map(|entry| entry.get("ip"));
            ips.chain(single("/status/podIP")).collect()
        }
        "Node" => list("/status/addresses").filter_map(|entry| entry.get("address")).collect(),
        "Service" => {
            let balancers = list("/status/loadBalancer/ingress").filter_map(|entry| entry.get("ip"));
            let ips = list("/spec/clusterIPs").chain(single("/spec/clusterIP"));
            ips.chain(list("/spec/externalIPs")).chain(balancers).collect()
        }
        _ => Vec::new(),
    };
    let mut addresses: Vec<IpAddr> =
        given.into_iter().filter_map(|text| text.as_str()?.parse().ok()).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

/// The objects that a text which cannot be parsed seems to hold.
pub(super) fn from_text(text: &str, place: &Place, default_namespace: Option<&str>) -> Vec<Object> {
    let mut kinds: Vec<&str> = values_of(text, "kind").filter(|kind| known_kind(kind).is_some()).collect();
    let single = kinds.len() == 1;
    kinds.sort_unstable();
    kinds.dedup();
    let mut namespaces: Vec<&str> = values_of(text, "namespace").collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    let namespace = match (metadata_value(text, "namespace"), &*namespaces) {
        (Some(namespace), _) if single => Some(namespace),
        (None, [namespace]) => Some(*namespace),
        _ => None,
    };
    let name = metadata_value(text, "name").filter(|_| single);
    let api_versions: Vec<&str> = values_of(text, "apiVersion").collect();
    let objects = kinds.into_iter().map(|kind| {
        if let Some(policy_kind) = likely_kind(kind, &api_versions).and_then(|kind| kind.policy()) {
            let message = "the document cannot be parsed";
            let fault = || Fault { field: "spec".to_owned(), message: message.to_owned() };
            let policy = match (namespace, name) {
                (_, Some(name)) if !policy_kind.namespaced => {
                    Policy::unreadable(ObjectRef::cluster(policy_kind.name, name), fault())
                }
                (Some(namespace), Some(name)) => {
                    Policy::unreadable(ObjectRef::namespaced(policy_kind.name, namespace, name), fault())
                }
                _ => unreadable_policy(policy_kind, namespace, place, message),
            };
            return Object::Policy(Arc::new(policy));
        }
        if kind == SEGMENT_MAP {
            let finding = segment::Finding::not_in_force("spec", "the document cannot be parsed");
            return unreadable_map(name, place, finding);
        }
        let namespaced = known_kind(kind).is_some_and(|known| known.namespaced);
        let own = namespace.or(default_namespace).unwrap_or("default");
        let reference = ObjectRef {
            kind: kind.into(),
            namespace: namespaced.then(|| own.into()),
            name: name.map_or_else(|| placeholder(place), ToOwned::to_owned).into(),
        };
        let fields: &[&str] = match kind {
            "Pod" => &["podIP", "ip"],
            "Service" => &["clusterIP"],
            "Node" => &["address"],
            _ => &[],
        };
        let given = fields.iter().flat_map(|field| values_of(text, field));
        let mut addresses: Vec<IpAddr> = given.filter_map(|text| text.parse().ok()).collect();
        addresses.sort();
        addresses.dedup();
        let service = values_of(text, EndpointSlice::SERVICE_LABEL).next();
        Object::Broken(Box::new(Broken {
            reference: Arc::new(reference),
            addresses,
            service: service.filter(|_| kind == "EndpointSlice").map(Into::into),
        }))
    });
    objects.collect()
}

/// The scalars that follow `key:` in a line, in YAML's block and flow styles and in JSON's.
fn values_in<'a>(line: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(key).filter_map(move |(at, _)| {
        let before = line.get(..at)?.chars().next_back();
        let rest = line.get(at + key.len()..)?.trim_start_matches(['"', '\'']).trim_start();
        let rest = rest.strip_prefix(':')?.split(" #").next()?;
        let value = rest.split([',', '}', ']']).next()?.trim().trim_matches(['"', '\'']);
        let is_key = before.is_none_or(|c| matches!(c, ' ' | '\t' | '{' | ',' | '"' | '\''));
        let is_scalar = !value.is_empty() && !value.contains(['{', '[', '&', '*', ' ']);
        (is_key && is_scalar).then_some(value)
    })
}

fn values_of<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().flat_map(move |line| values_in(line, key))
}

/// A field of the document's own `metadata`, in YAML's block style.
fn metadata_value<'a>(text: &'a str, key: &'a str) -> Option<&'a str> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = text.lines().skip_while(|line| !line.starts_with("metadata:")).skip(1).peekable();
    let depth = indent(lines.peek()?);
    let block = lines.take_while(|line| line.trim().is_empty() || indent(line) > 0);
    block.filter(|line| indent(line) == depth && depth > 0).find_map(|line| values_in(line, key).next())
}
