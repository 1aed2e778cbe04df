//! Objects as the API server sends them, without what nobody here reads.
//!
//! A pod is some 5 KB of JSON, of which a tenth says who it is; `managedFields` alone is a third. What is left out is
//! skipped in the text and never becomes a value, so that a list of all pods takes a tenth of the memory while it is
//! read. What is kept is decoded as the manifests are, with the same errors.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::manifests::{Finding, decode_api};
use super::object::Object;

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

/// What is left out has a name that no other kind uses in that place, so that the kind need not be known.
const OBJECT: Part = Part::But(&[
    ("metadata", Part::But(&[("managedFields", NOTHING)])),
    (
        "spec",
        Part::But(&[
            ("containers", CONTAINERS),
            ("initContainers", CONTAINERS),
            ("ephemeralContainers", NOTHING),
            ("volumes", NOTHING),
            ("affinity", NOTHING),
            ("tolerations", NOTHING),
            ("topologySpreadConstraints", NOTHING),
            ("imagePullSecrets", NOTHING),
        ]),
    ),
    (
        "status",
        Part::But(&[
            ("containerStatuses", NOTHING),
            ("initContainerStatuses", NOTHING),
            ("ephemeralContainerStatuses", NOTHING),
            ("images", NOTHING),
            ("volumesAttached", NOTHING),
            ("volumesInUse", NOTHING),
        ]),
    ),
]);

/// Reads an object, without what nobody here reads of it.
///
/// # Errors
/// Where the text is no value.
pub fn value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    OBJECT.deserialize(deserializer)
}

/// Reads an object from its JSON as it is read while the API server is followed.
///
/// # Errors
/// Where the text is no JSON. What is wrong with an object is among the findings.
pub fn object(
    api_version: &str,
    kind: &str,
    json: &str,
) -> Result<(Option<Object>, Vec<Finding>), serde_json::Error> {
    let value = value(&mut serde_json::Deserializer::from_str(json))?;
    Ok(decode_api(api_version, kind, value))
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
    use serde_json::json;

    fn trimmed(object: &Value) -> Value {
        value(&mut serde_json::Deserializer::from_str(&object.to_string())).unwrap()
    }

    #[test]
    fn a_pod_is_read_as_if_it_were_whole() {
        let whole = json!({
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
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "containerStatuses": [{"name": "c"}]},
        });
        let small = trimmed(&whole);
        assert_eq!(decode_api("v1", "Pod", small.clone()), decode_api("v1", "Pod", whole));
        assert_eq!(small.pointer("/metadata/resourceVersion"), Some(&json!("7")));
        for gone in [
            "/metadata/managedFields",
            "/spec/volumes",
            "/spec/containers/0/env",
            "/status/containerStatuses",
        ] {
            assert_eq!(small.pointer(gone), None, "{gone}");
        }
    }

    #[test]
    fn what_is_wrong_stays_wrong_and_what_others_have_stays() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "ports": [{"containerPort": "x"}]}, 7]}});
        assert_eq!(trimmed(&pod), pod);
        let node = json!({"metadata": {"name": "n"}, "status": {"addresses": [{"address": "192.0.2.1"}], "images": [1, 2]}});
        assert_eq!(trimmed(&node).pointer("/status/images"), None);
        assert_eq!(trimmed(&node).pointer("/status/addresses"), node.pointer("/status/addresses"));
        let policy = json!({"metadata": {"name": "p", "managedFields": []}, "spec": {"w": 1.5, "x": null, "y": [true, -3]}, "status": {"conditions": []}});
        let kept = json!({"metadata": {"name": "p"}, "spec": {"w": 1.5, "x": null, "y": [true, -3]}, "status": {"conditions": []}});
        assert_eq!(trimmed(&policy), kept);
    }
}
