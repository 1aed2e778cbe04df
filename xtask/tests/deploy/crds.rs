//! The CRDs: what the API server demands of a schema, and what the schema and its rules let in and refuse.

use cel::{Context, Program};
use dryfence::cluster::crds;
use serde_json::{Value, json};
use xtask::{helm, tools};

use super::objects::{documents, folder};

fn definitions() -> Vec<Value> {
    let is_definition = |object: &Value| object["kind"] == "CustomResourceDefinition";
    folder("crds").into_iter().filter(is_definition).collect()
}

fn schema(kind: &str) -> Value {
    let of = |object: &Value| object["spec"]["names"]["kind"] == kind;
    let definition = definitions().into_iter().find(of).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

#[test]
fn what_lies_here_is_what_the_agent_reads() {
    let folder = tools::root().join("deploy/charts/dryfence-crds/files");
    let files = crds::files().unwrap();
    for file in &files {
        let found = std::fs::read_to_string(folder.join(&file.name)).unwrap_or_default();
        assert_eq!(found, file.text, "run `cargo xtask manifests`: {}", file.name);
    }
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), files.len());
}

#[test]
fn the_chart_keeps_them_unless_told_otherwise() {
    let kept = helm::render("dryfence-crds", &json!({})).unwrap();
    let mut kept = documents(kept.template("crds.yaml"));
    assert_eq!(kept.len(), 10);
    for object in &mut kept {
        let annotations = object["metadata"].as_object_mut().unwrap().remove("annotations").unwrap();
        assert_eq!(annotations, json!({ "helm.sh/resource-policy": "keep" }));
    }
    assert_eq!(kept, folder("crds"));
}

/// The rules of structural schemas (Kubernetes docs, "Specifying a structural schema") at one place and below.
fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&Value, &str)) {
    visit(schema, path);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), visit);
    }
    if schema["items"].is_object() {
        walk(&schema["items"], &format!("{path}[]"), visit);
    }
    if schema["additionalProperties"].is_object() {
        walk(&schema["additionalProperties"], &format!("{path}{{}}"), visit);
    }
}

#[test]
fn every_schema_is_structural_described_and_bounded() {
    for definition in definitions() {
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
        let schema = schema(kind);
        walk(&schema, kind, &mut |at, path| {
            let of_type = at["type"].as_str();
            assert!(of_type.is_some(), "{path}: a structural schema has a type everywhere: {at}");
            for never in [
                "$ref",
                "$defs",
                "anyOf",
                "oneOf",
                "allOf",
                "not",
                "nullable",
                "default",
                "title",
                "uniqueItems",
            ] {
                assert!(at.get(never).is_none(), "{path}: {never}");
            }
            if of_type == Some("array") {
                // Else the API server takes a rule below to cost more than it may.
                assert!(at["maxItems"].is_u64(), "{path} has no maxItems");
                assert!(at["items"].is_object(), "{path}");
            }
            let format = at.get("format").map(|format| format.as_str().unwrap());
            assert!(
                format.is_none_or(|format| ["int64", "date-time"].contains(&format)),
                "{path}: {format:?}"
            );
            let is_property = path.contains('.') && !path.ends_with(']') && !path.ends_with('}');
            let needs_none = path == format!("{kind}.metadata");
            let is_described = at["description"].as_str().is_some_and(|text| text.ends_with(['.', ')']));
            assert!(
                !is_property || needs_none || is_described,
                "{path} is not described, or not in a sentence: {at}"
            );
        });
        let version = &definition["spec"]["versions"][0];
        let has_status = kind != "EdgeException";
        assert_eq!(version["subresources"]["status"].is_object(), has_status, "{kind}");
        for column in version["additionalPrinterColumns"].as_array().unwrap() {
            let path = column["jsonPath"].as_str().unwrap();
            // The simple ones lead to a field that is there.
            let steps = path.trim_start_matches('.').split('.').map(|step| step.split('[').next().unwrap());
            let mut at = &schema;
            for step in steps {
                let is_open =
                    at["x-kubernetes-preserve-unknown-fields"] == true || at == &json!({ "type": "object" });
                if is_open || path.contains('?') {
                    break;
                }
                at = &at["properties"][step];
                assert!(at.is_object(), "{kind}: {path}");
            }
        }
    }
}

/// Numbers as the API server has them: whole ones are `int`.
fn rule_holds(rule: &str, name: &str, value: &Value) -> bool {
    let program = Program::compile(rule).unwrap_or_else(|error| panic!("{rule}: {error}"));
    let mut context = Context::default();
    context.add_variable(name, as_cel(value)).unwrap();
    match program.execute(&context).unwrap_or_else(|error| panic!("{rule} on {value}: {error}")) {
        cel::Value::Bool(holds) => holds,
        other => panic!("{rule}: {other:?}"),
    }
}

fn as_cel(value: &Value) -> cel::Value {
    match value {
        Value::Number(number) if number.is_i64() => cel::Value::Int(number.as_i64().unwrap()),
        Value::Array(items) => cel::Value::List(std::sync::Arc::new(items.iter().map(as_cel).collect())),
        Value::Object(fields) => {
            let fields: std::collections::HashMap<String, cel::Value> =
                fields.iter().map(|(key, value)| (key.clone(), as_cel(value))).collect();
            fields.into()
        }
        other => cel::to_value(other).unwrap(),
    }
}

/// What a schema and its rules have against a value: the path, and what is wrong.
fn complaints(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let mut complain = |what: String| found.push(format!("{path}: {what}"));
    let is_right = match schema["type"].as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "boolean" => value.is_boolean(),
        other => panic!("{path}: {other}"),
    };
    if !is_right {
        return complain(format!("is no {}", schema["type"]));
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        complain(format!("{value} is none of {}", schema["enum"]));
    }
    if let (Some(text), Some(pattern)) = (value.as_str(), schema["pattern"].as_str()) {
        let matches = json!({ "text": text, "pattern": pattern });
        if !rule_holds("self.text.matches(self.pattern)", "self", &matches) {
            complain(format!("{value} does not match {pattern}"));
        }
    }
    let length = value.as_str().map(str::len).or_else(|| value.as_array().map(Vec::len));
    for (least, most) in [("minLength", "maxLength"), ("minItems", "maxItems")] {
        let bound = |name: &str| schema[name].as_u64().map(|bound| bound as usize);
        if length.is_some_and(|length| bound(least).is_some_and(|least| length < least)) {
            complain(format!("is shorter than {}", schema[least]));
        }
        if length.is_some_and(|length| bound(most).is_some_and(|most| length > most)) {
            complain(format!("is longer than {}", schema[most]));
        }
    }
    if let Some(number) = value.as_f64() {
        let is_below = schema["minimum"].as_f64().is_some_and(|least| number < least);
        let is_above = schema["maximum"].as_f64().is_some_and(|most| number > most);
        if is_below || is_above {
            complain(format!("{number} is out of range"));
        }
    }
    if schema["x-kubernetes-list-type"] == "map" {
        let key = schema["x-kubernetes-list-map-keys"][0].as_str().unwrap();
        let mut keys: Vec<_> = value.as_array().unwrap().iter().map(|item| item[key].to_string()).collect();
        keys.sort();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            complain(format!("two items with one {key}"));
        }
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            complain(format!("{name} is missing"));
        }
    }
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        if !rule_holds(rule["rule"].as_str().unwrap(), "self", value) {
            complain(rule["message"].as_str().unwrap().to_owned());
        }
    }
    let is_open = schema["x-kubernetes-preserve-unknown-fields"] == true || path == "metadata";
    for (name, inside) in value.as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Null) if is_open => {}
            (Value::Null, Value::Null) => found.push(format!("{path}: is pruned")),
            (Value::Null, schema) | (schema, _) => complaints(schema, inside, &path, found),
        }
    }
    for (at, item) in value.as_array().into_iter().flatten().enumerate() {
        complaints(&schema["items"], item, &format!("{path}[{at}]"), found);
    }
}

/// What the API server would say of an object: by its schema, then by the admission policy.
fn refused(object: &Value) -> Vec<String> {
    let kind = object["kind"].as_str().unwrap();
    let mut found = Vec::new();
    complaints(&schema(kind), object, "", &mut found);
    if !found.is_empty() {
        return found;
    }
    let plural = format!("{}s.dryfence.io", kind.to_lowercase());
    let is_policy = |other: &Value| {
        other["kind"] == "ValidatingAdmissionPolicy" && other["metadata"]["name"] == plural.as_str()
    };
    for policy in folder("crds").into_iter().filter(is_policy) {
        for validation in policy["spec"]["validations"].as_array().unwrap() {
            if !rule_holds(validation["expression"].as_str().unwrap(), "object", object) {
                found.push(validation["message"].as_str().unwrap().to_owned());
            }
        }
    }
    found
}

fn object(kind: &str, spec: Value) -> Value {
    json!({ "apiVersion": "dryfence.io/v1alpha1", "kind": kind, "metadata": { "name": "a", "namespace": "shop" }, "spec": spec })
}

fn policy(namespace: Option<&str>) -> Value {
    let mut policy = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": "web" }, "spec": { "podSelector": {} } });
    if let Some(namespace) = namespace {
        policy["metadata"]["namespace"] = namespace.into();
    }
    policy
}

#[test]
fn good_objects_are_let_in() {
    let target = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "name": "old" });
    let good = [
        object("PolicyCandidate", json!({ "object": policy(None) })),
        object(
            "PolicyCandidate",
            json!({ "changeSet": "wave-3", "action": "Apply", "object": policy(Some("shop")) }),
        ),
        object("PolicyCandidate", json!({ "action": "Delete", "target": target })),
        object("SegmentMap", json!({ "segmentsFrom": { "namespaceLabel": "tenant" } })),
        object(
            "EdgeException",
            json!({ "scenario": "default-deny", "from": [{ "entity": "world" }], "reason": "known",
            "expiresAt": "2027-01-01T00:00:00Z" }),
        ),
        object(
            "EdgeException",
            json!({ "segmentMap": "tiers", "to": [{ "workload": { "kind": "Deployment", "name": "web" } }],
            "ports": [{ "port": 80, "endPort": 90 }, { "protocol": "ICMP" }], "reason": "known" }),
        ),
    ];
    for object in good {
        assert_eq!(refused(&object), [""; 0], "{object}");
    }
}

#[test]
fn the_presets_are_let_in() {
    let mut maps = 0;
    for entry in std::fs::read_dir(tools::root().join("deploy/segments")).unwrap() {
        for object in documents(&std::fs::read_to_string(entry.unwrap().path()).unwrap()) {
            if object["apiVersion"] == "dryfence.io/v1alpha1" {
                assert_eq!(refused(&object), [""; 0], "{object}");
                maps += 1;
            }
        }
    }
    assert!(maps >= 5);
}

#[test]
fn nonsense_is_refused_and_named() {
    let target = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "name": "old" });
    let segments = |first: Value, second: Value| json!([{ "name": "a", "members": [first] }, { "name": "b", "members": [second] }]);
    let block = json!({ "ipBlock": { "cidr": "10.0.0.0/8" } });
    let vlan = json!({ "vlan": 7 });
    let exception = |more: Value| {
        let mut spec = json!({ "scenario": "enforced", "from": [{ "entity": "world" }], "reason": "known" });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object("EdgeException", spec)
    };
    let cases = [
        (object("PolicyCandidate", json!({ "object": policy(Some("other")) })), "metadata.namespace"),
        (object("ClusterPolicyCandidate", json!({ "object": policy(Some("shop")) })), "metadata.namespace"),
        (object("PolicyCandidate", json!({ "action": "Replace", "object": policy(None) })), "spec.action"),
        (object("PolicyCandidate", json!({})), "object: is given with action Apply"),
        (object("PolicyCandidate", json!({ "action": "Delete" })), "target: is given with action Delete"),
        (
            object(
                "PolicyCandidate",
                json!({ "action": "Delete", "target": target, "object": policy(None) }),
            ),
            "object: is given",
        ),
        (object("PolicyCandidate", json!({ "target": target, "object": policy(None) })), "target: is given"),
        (
            object("PolicyCandidate", json!({ "changeSet": "enforced", "object": policy(None) })),
            "changeSet: enforced",
        ),
        (
            object("PolicyCandidate", json!({ "changeSet": "Wave 3", "object": policy(None) })),
            "spec.changeSet",
        ),
        (
            object(
                "PolicyCandidate",
                json!({ "object": { "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a" } } }),
            ),
            "object.apiVersion",
        ),
        (
            object(
                "PolicyCandidate",
                json!({ "action": "Delete", "target": { "kind": "NetworkPolicy", "name": "a" } }),
            ),
            "apiVersion",
        ),
        (object("PolicyCandidate", json!({ "colour": "red", "object": policy(None) })), "spec.colour"),
        (object("SegmentMap", json!({})), "segments: at least one"),
        (
            object("SegmentMap", json!({ "segments": [{ "name": "a" }, { "name": "a" }] })),
            "two items with one name",
        ),
        (
            object("SegmentMap", json!({ "segments": segments(block.clone(), block.clone()) })),
            "the same member",
        ),
        (
            object(
                "SegmentMap",
                json!({ "segments": segments(vlan.clone(), vlan.clone()), "overlap": "Reject" }),
            ),
            "the same member",
        ),
        (object("SegmentMap", json!({ "segments": segments(json!({}), block.clone()) })), "exactly one of"),
        (
            object(
                "SegmentMap",
                json!({ "segments": segments(json!({ "vlan": 7, "fqdn": "a" }), block.clone()) }),
            ),
            "exactly one of",
        ),
        (
            object("SegmentMap", json!({ "segments": segments(json!({ "vlan": 4095 }), block.clone()) })),
            "out of range",
        ),
        (
            object("SegmentMap", json!({ "segments": segments(json!({ "entity": "moon" }), block.clone()) })),
            "entity",
        ),
        (
            object(
                "SegmentMap",
                json!({ "segments": segments(json!({ "ipBlock": { "cidr": "ten" } }), block.clone()) }),
            ),
            "cidr",
        ),
        (
            object(
                "SegmentMap",
                json!({ "segments": segments(json!({ "workload": { "kind": "Pod", "name": "a" } }), block.clone()) }),
            ),
            "workload",
        ),
        (
            object(
                "SegmentMap",
                json!({ "segments": segments(vlan.clone(), block.clone()), "overlap": "Maybe" }),
            ),
            "spec.overlap",
        ),
        (
            object(
                "SegmentMap",
                json!({ "segments": segments(vlan, block), "rules": [{ "from": ["a"], "to": ["c"] }] }),
            ),
            "not declared",
        ),
        (exception(json!({ "segmentMap": "tiers" })), "exactly one of scenario"),
        (exception(json!({ "reason": "" })), "spec.reason"),
        (exception(json!({ "ports": [{ "endPort": 9 }] })), "endPort: is given without port"),
        (exception(json!({ "ports": [{ "port": 9, "endPort": 8 }] })), "endPort: is below port"),
        (exception(json!({ "ports": [{ "port": 0 }] })), "out of range"),
        (exception(json!({ "ports": [{ "port": 8, "protocol": "ICMP" }] })), "ICMP has no ports"),
        (object("EdgeException", json!({ "scenario": "enforced", "reason": "known" })), "from or to"),
    ];
    for (object, named) in cases {
        let found = refused(&object);
        assert!(found.iter().any(|complaint| complaint.contains(named)), "{named}: {found:?}\n{object}");
    }
    let both =
        json!([{ "name": "a", "members": [{ "vlan": 7 }] }, { "name": "b", "members": [{ "vlan": 7 }] }]);
    let first = object("SegmentMap", json!({ "segments": both, "overlap": "FirstMatch" }));
    assert_eq!(refused(&first), [""; 0]);
}
