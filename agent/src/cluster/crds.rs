//! Our kinds as CustomResourceDefinitions, made from the types that read them, and what the API server checks besides.
//!
//! A schema is structural: it has a type everywhere, no `nullable`, no defaults (absent means what the agent takes it
//! for), and validation rules in CEL whose estimated cost the API server accepts because every list is bounded.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::policy::api::{CLUSTER_POLICY_CANDIDATE, CandidateSpec, CandidateStatus, POLICY_CANDIDATE};
use crate::segment::api::{EDGE_EXCEPTION, EdgeExceptionSpec, SEGMENT_MAP, SegmentMapSpec, SegmentMapStatus};

const GROUP: &str = "dryfence.io";
const VERSION: &str = "v1alpha1";

/// One kind, as far as its types do not say it.
struct Kind {
    name: &'static str,
    plural: &'static str,
    short: Option<&'static str>,
    namespaced: bool,
    about: &'static str,
    spec: Value,
    status: Option<Value>,
    /// Name, type, JSON path, and priority: 0 is always shown.
    columns: Vec<(&'static str, &'static str, &'static str, i32)>,
}

/// A file of the CRD chart: its name, and its documents in YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub name: String,
    pub text: String,
}

/// Everything that is installed for our kinds, a file each.
///
/// # Errors
/// Where a schema holds what a CustomResourceDefinition cannot: a fault of ours, which a test finds.
pub fn files() -> Result<Vec<File>, serde_json::Error> {
    let mut files = Vec::new();
    for kind in kinds() {
        let definition: CustomResourceDefinition = serde_json::from_value(kind.definition())?;
        files.push(file(&format!("{}.yaml", kind.plural), &[&definition])?);
    }
    for (resource, validations) in admissions() {
        let name = format!("{resource}.{GROUP}");
        let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": { "name": name },
            "spec": {
                // What cannot be checked is let in: the agents check it again.
                "failurePolicy": "Ignore",
                "matchConstraints": { "resourceRules": [{
                    "apiGroups": [GROUP],
                    "apiVersions": [VERSION],
                    "operations": ["CREATE", "UPDATE"],
                    "resources": [resource],
                }] },
                "validations": validations,
            },
        }))?;
        let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": { "name": name },
            "spec": { "policyName": name, "validationActions": ["Deny"] },
        }))?;
        files.push(file(
            &format!("admission-{resource}.yaml"),
            &[&serde_json::to_value(policy)?, &serde_json::to_value(binding)?],
        )?);
    }
    Ok(files)
}

fn file<T: Serialize>(name: &str, documents: &[&T]) -> Result<File, serde_json::Error> {
    let mut text = "# Made from the agent's types by `cargo xtask manifests`.\n".to_owned();
    for (at, document) in documents.iter().enumerate() {
        if at > 0 {
            text += "---\n";
        }
        let mut document: Document = serde_json::from_value(serde_json::to_value(document)?)?;
        whole(&mut document.spec);
        let yaml = serde_saphyr::to_string(&document);
        text += &yaml.map_err(|error| serde::ser::Error::custom(error.to_string()))?;
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(File { name: name.to_owned(), text })
}

/// A document with what it is first, as people write it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    api_version: String,
    kind: String,
    metadata: Value,
    spec: Value,
}

/// Writes 65535 for 65535.0: bounds are numbers in a CustomResourceDefinition, and people write them whole.
fn whole(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(whole),
        Value::Array(items) => items.iter_mut().for_each(whole),
        Value::Number(number) => {
            let number = number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 1e15);
            if let Some(number) = number {
                // Whole and far below 2^53: nothing is cut off.
                *value = (number as i64).into();
            }
        }
        _ => {}
    }
}

fn kinds() -> [Kind; 4] {
    let change_set = ("Change set", "string", ".spec.changeSet", 0);
    let candidate = |object| {
        vec![
            change_set,
            ("Action", "string", ".spec.action", 0),
            ("Kind", "string", ".spec.object.kind", 0),
            ("Policy", "string", ".spec.object.metadata.name", 0),
            ("Deletes", "string", ".spec.target.name", 0),
            ("Newly denied", "integer", ".status.newlyDenied", 0),
            ("Newly allowed", "integer", ".status.newlyAllowed", 0),
            ("Unknown", "integer", ".status.unknown", 1),
            ("Last seen", "date", ".status.lastSeen", 1),
            ("Age", "date", object, 0),
        ]
    };
    const AGE: &str = ".metadata.creationTimestamp";
    [
        Kind {
            name: POLICY_CANDIDATE,
            plural: "policycandidates",
            short: Some("pcand"),
            namespaced: true,
            about: "A PolicyCandidate proposes a namespaced policy, or that one be deleted. It is judged, never enforced.",
            spec: schema::<CandidateSpec>(),
            status: Some(schema::<CandidateStatus>()),
            columns: candidate(AGE),
        },
        Kind {
            name: CLUSTER_POLICY_CANDIDATE,
            plural: "clusterpolicycandidates",
            short: Some("cpcand"),
            namespaced: false,
            about: "A ClusterPolicyCandidate proposes a cluster-wide policy, or that one be deleted. It is judged, never enforced.",
            spec: schema::<CandidateSpec>(),
            status: Some(schema::<CandidateStatus>()),
            columns: candidate(AGE),
        },
        Kind {
            name: SEGMENT_MAP,
            plural: "segmentmaps",
            short: Some("segmap"),
            namespaced: false,
            about: "A SegmentMap declares groups of endpoints, and which may open connections to which. What crosses them is reported, also where policies allow it.",
            spec: schema::<SegmentMapSpec>(),
            status: Some(schema::<SegmentMapStatus>()),
            columns: vec![
                ("Severity", "string", ".spec.severity", 0),
                ("Unassigned", "string", ".spec.unassigned", 0),
                ("In force", "string", ".status.conditions[?(@.type==\"InForce\")].status", 0),
                ("Age", "date", AGE, 0),
            ],
        },
        Kind {
            name: EDGE_EXCEPTION,
            plural: "edgeexceptions",
            short: None,
            namespaced: true,
            about: "An EdgeException mutes a known denial or violation, with a reason. It is still counted, and a finding once it has expired.",
            spec: schema::<EdgeExceptionSpec>(),
            status: None,
            columns: vec![
                ("Scenario", "string", ".spec.scenario", 0),
                ("Segment map", "string", ".spec.segmentMap", 0),
                ("Reason", "string", ".spec.reason", 0),
                ("Owner", "string", ".spec.owner", 1),
                ("Ticket", "string", ".spec.ticket", 1),
                ("Expires", "date", ".spec.expiresAt", 0),
                ("Age", "date", AGE, 0),
            ],
        },
    ]
}

impl Kind {
    fn definition(&self) -> Value {
        let mut properties = json!({
            "apiVersion": { "description": "dryfence.io/v1alpha1.", "type": "string" },
            "kind": { "description": format!("{}.", self.name), "type": "string" },
            "metadata": { "type": "object" },
            "spec": self.spec,
        });
        let mut subresources = json!({});
        if let Some(status) = &self.status {
            properties["status"] = status.clone();
            subresources = json!({ "subresources": { "status": {} } });
        }
        let columns: Vec<Value> = self.columns.iter().map(column).collect();
        let mut version = json!({
            "name": VERSION,
            "served": true,
            "storage": true,
            "additionalPrinterColumns": columns,
            "schema": { "openAPIV3Schema": {
                "description": self.about,
                "type": "object",
                "required": ["spec"],
                "properties": properties,
            } },
        });
        merge(&mut version, subresources);
        let mut names = json!({
            "kind": self.name,
            "listKind": format!("{}List", self.name),
            "plural": self.plural,
            "singular": self.name.to_lowercase(),
            "categories": ["dryfence"],
        });
        if let Some(short) = self.short {
            merge(&mut names, json!({ "shortNames": [short] }));
        }
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": { "name": format!("{}.{GROUP}", self.plural) },
            "spec": {
                "group": GROUP,
                "names": names,
                "scope": if self.namespaced { "Namespaced" } else { "Cluster" },
                "versions": [version],
            },
        })
    }
}

fn column((name, kind, path, priority): &(&str, &str, &str, i32)) -> Value {
    let mut column = json!({ "name": name, "type": kind, "jsonPath": path });
    if *priority > 0 {
        merge(&mut column, json!({ "priority": priority }));
    }
    column
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

/// What the API server checks of a resource with more than its schema can see: a rule of a schema knows nothing of the
/// object's namespace, and one that compares every two segments costs more than an estimate may.
fn admissions() -> [(&'static str, Value); 3] {
    let rule = |expression: &str, message: &str| json!({ "expression": expression, "message": message });
    let given = "!has(object.spec.object) || !has(object.spec.object.metadata) || !has(object.spec.object.metadata.namespace)";
    [
        (
            "policycandidates",
            json!([rule(
                &format!("{given} || object.spec.object.metadata.namespace == object.metadata.namespace"),
                "spec.object.metadata.namespace: must be absent, or the candidate's own",
            )]),
        ),
        (
            "clusterpolicycandidates",
            json!([rule(
                given,
                "spec.object.metadata.namespace: must be absent: only cluster-wide policies are proposed here",
            )]),
        ),
        (
            "segmentmaps",
            json!([
                rule(
                    "(has(object.spec.overlap) && object.spec.overlap != 'Reject') || !has(object.spec.segments) || \
                     object.spec.segments.all(one, object.spec.segments.all(other, one.name == other.name || \
                     !has(one.members) || !has(other.members) || \
                     !one.members.exists(member, other.members.exists(same, member == same))))",
                    "spec.segments: two segments have the same member, and overlap is Reject",
                ),
                rule(
                    "has(object.spec.segmentsFrom) || !has(object.spec.rules) || \
                     object.spec.rules.all(rule, (rule.from + rule.to).all(name, \
                     has(object.spec.segments) && object.spec.segments.exists(segment, segment.name == name)))",
                    "spec.rules: name segments that are not declared",
                ),
            ]),
        ),
    ]
}

/// The schema of a type, as a CustomResourceDefinition wants it.
fn schema<T: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::openapi3();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    structural(&mut schema);
    schema
}

/// Takes out what a structural schema may not have, or what would mean something else there: titles, nulls, defaults,
/// references.
fn structural(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    for absent in ["$schema", "title", "default", "nullable", "components", "$defs"] {
        fields.remove(absent);
    }
    if let Some(format) = fields.get("format").and_then(Value::as_str)
        && !["int64", "int32", "date-time"].contains(&format)
    {
        fields.remove("format");
    }
    if let Some(Value::String(text)) = fields.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(structural);
    }
    for inside in ["items", "additionalProperties"] {
        fields.entry(inside).and_modify(structural);
    }
    fields.retain(|key, value| key != "required" || value.as_array().is_some_and(|names| !names.is_empty()));
    let only: Option<Map<String, Value>> = match fields.get("anyOf") {
        // An optional struct: `anyOf` the struct, or null.
        Some(Value::Array(choices)) => choices.iter().find_map(|choice| choice.as_object().cloned()),
        _ => None,
    };
    if let Some(only) = only {
        fields.remove("anyOf");
        let mut only = Value::Object(only);
        structural(&mut only);
        if let Value::Object(only) = only {
            for (key, value) in only {
                fields.entry(key).or_insert(value);
            }
        }
    }
}
