//! Objects as the API server sends them, without what nobody here reads.
//!
//! A pod is some 5 KB of JSON, of which a tenth says who it is; `managedFields` alone is a third. What is left out is
//! skipped in the text and never becomes a value, so that a list of all pods takes a tenth of the memory while it is
//! read. What is kept is decoded as the manifests are, with the same errors.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// What is known of a place in an object.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// Everything below is kept.
    Whole,
    /// Nothing is.
    Nothing,
    /// All fields are kept but these, of which some parts may be.
    But(&'static [(&'static str, Part)]),
    /// Only these are.
    Only(&'static [(&'static str, Part)]),
}

const NOTHING: Part = Part::Nothing;

/// Of a container only its ports, and whether it runs beside the others for good.
const CONTAINERS: Part =
    Part::Only(&[("name", Part::Whole), ("ports", Part::Whole), ("restartPolicy", Part::Whole)]);

const POD_SPEC: Part = Part::But(&[
    ("containers", CONTAINERS),
    ("initContainers", CONTAINERS),
    ("ephemeralContainers", NOTHING),
    ("volumes", NOTHING),
    ("affinity", NOTHING),
    ("tolerations", NOTHING),
    ("topologySpreadConstraints", NOTHING),
    ("securityContext", NOTHING),
    ("imagePullSecrets", NOTHING),
]);

const METADATA: Part = Part::But(&[("managedFields", NOTHING)]);

/// A pod has nothing in its annotations that anybody here reads.
const POD: Part = Part::But(&[
    ("metadata", Part::But(&[("managedFields", NOTHING), ("annotations", NOTHING)])),
    ("spec", POD_SPEC),
    ("status", Part::Only(&[("phase", Part::Whole), ("podIP", Part::Whole), ("podIPs", Part::Whole)])),
]);

const NODE: Part =
    Part::But(&[("metadata", METADATA), ("status", Part::Only(&[("addresses", Part::Whole)]))]);

const OTHERS: Part = Part::But(&[("metadata", METADATA)]);

/// Reads an object of a kind, without what nobody here reads of it.
///
/// # Errors
/// Where the text is no value.
pub fn value<'de, D: Deserializer<'de>>(kind: &str, deserializer: D) -> Result<Value, D::Error> {
    let part = match kind {
        "Pod" => POD,
        "Node" => NODE,
        _ => OTHERS,
    };
    part.deserialize(deserializer)
}

impl Part {
    fn field(self, name: &str) -> Self {
        let of =
            |fields: &[(&str, Self)]| fields.iter().find(|(known, _)| *known == name).map(|(_, part)| *part);
        match self {
            Self::Whole => Self::Whole,
            Self::Nothing => Self::Nothing,
            Self::But(fields) => of(fields).unwrap_or(Self::Whole),
            Self::Only(fields) => of(fields).unwrap_or(Self::Nothing),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Part {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut given: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = given.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.field(&name) {
                Self::Nothing => {
                    let _skipped: IgnoredAny = given.next_value()?;
                }
                part => {
                    fields.insert(name.into_owned(), given.next_value_seed(part)?);
                }
            }
        }
        Ok(Value::Object(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut given: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = given.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::object::Pod;
    use serde_json::json;

    fn trimmed(kind: &str, object: &Value) -> Value {
        value(kind, &mut serde_json::Deserializer::from_str(&object.to_string())).unwrap()
    }

    #[test]
    fn a_pod_is_read_as_if_it_were_whole() {
        let whole = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "web-0", "namespace": "shop", "uid": "u", "resourceVersion": "7",
                "labels": {"app": "web"}, "annotations": {"a": "b"}, "managedFields": [{"manager": "kubelet"}],
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "s", "controller": true}],
                "creationTimestamp": "2026-01-02T03:04:05Z",
            },
            "spec": {
                "nodeName": "n1", "serviceAccountName": "shop", "hostNetwork": false, "volumes": [{"name": "v"}],
                "containers": [{"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}],
                                "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 9090}]}],
                "initContainers": [{"name": "s", "restartPolicy": "Always", "ports": [{"name": "proxy", "containerPort": 15001}]}],
            },
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "Ready", "status": "True"}]},
        });
        let small = trimmed("Pod", &whole);
        let read = |value: &Value| {
            Pod::try_from(&serde_json::from_value::<k8s_openapi::api::core::v1::Pod>(value.clone()).unwrap())
        };
        assert_eq!(read(&small), read(&whole));
        assert_eq!(small.pointer("/metadata/resourceVersion"), Some(&json!("7")));
        for gone in [
            "/metadata/managedFields",
            "/metadata/annotations",
            "/spec/volumes",
            "/spec/containers/0/env",
            "/status/conditions",
        ] {
            assert_eq!(small.pointer(gone), None, "{gone}");
        }
    }

    #[test]
    fn what_is_wrong_stays_wrong_and_other_kinds_lose_only_their_managed_fields() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "ports": [{"containerPort": "x"}]}, 7]}});
        assert_eq!(trimmed("Pod", &pod), pod);
        let node = json!({"metadata": {"name": "n", "annotations": {"a": "b"}}, "status": {"addresses": [{"address": "192.0.2.1"}], "images": [1, 2]}});
        assert_eq!(trimmed("Node", &node).pointer("/status/images"), None);
        assert_eq!(trimmed("Node", &node).pointer("/metadata/annotations/a"), Some(&json!("b")));
        let policy = json!({"metadata": {"name": "p", "managedFields": []}, "spec": {"volumes": 1.5, "x": null, "y": [true, -3]}, "status": {"conditions": []}});
        let kept = json!({"metadata": {"name": "p"}, "spec": {"volumes": 1.5, "x": null, "y": [true, -3]}, "status": {"conditions": []}});
        assert_eq!(trimmed("NetworkPolicy", &policy), kept);
    }
}
