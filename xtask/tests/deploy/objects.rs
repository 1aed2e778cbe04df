//! Every manifest against the types of Kubernetes' own API description.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use xtask::{helm, manifests, tools};

pub(crate) fn documents(text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    all.into_iter().filter(|value| !value.is_null()).collect()
}

/// The manifests of a folder below `deploy/kustomize`, by what its kustomization names.
pub(crate) fn folder(name: &str) -> Vec<Value> {
    let folder = tools::root().join("deploy/kustomize").join(name);
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let kustomization: Value = serde_saphyr::from_str(&read(&folder.join("kustomization.yaml"))).unwrap();
    let names: Vec<PathBuf> = serde_json::from_value(kustomization["resources"].clone()).unwrap();
    names.iter().flat_map(|name| documents(&read(&folder.join(name)))).collect()
}

/// Reads it as its type and writes it again: a field that the type does not have is not there any more, and one of
/// another type cannot be read.
fn as_type<T: DeserializeOwned + Serialize>(object: &Value) -> Result<(), String> {
    let read: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let written = serde_json::to_value(read).unwrap();
    let mut lost = Vec::new();
    compare(object, &written, String::new(), &mut lost);
    if lost.is_empty() { Ok(()) } else { Err(lost.join("; ")) }
}

fn compare(given: &Value, written: &Value, path: String, lost: &mut Vec<String>) {
    match (given, written) {
        (Value::Object(given), Value::Object(written)) => {
            for (key, value) in given {
                let path = format!("{path}.{key}");
                match written.get(key) {
                    Some(other) => compare(value, other, path, lost),
                    None => lost.push(format!("{path} is no field of its type")),
                }
            }
        }
        (Value::Array(given), Value::Array(written)) if given.len() == written.len() => {
            for (at, (given, written)) in given.iter().zip(written).enumerate() {
                compare(given, written, format!("{path}[{at}]"), lost);
            }
        }
        (given, written) if given == written => {}
        // The API's numbers are read as floating-point ones.
        (Value::Number(given), Value::Number(written)) if given.as_f64() == written.as_f64() => {}
        _ => lost.push(format!("{path}: {given} is read as {written}")),
    }
}

/// Of the Prometheus operator's API (monitoring.coreos.com/v1): the fields that are used.
mod operator {
    use std::collections::BTreeMap;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

    use super::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub(super) struct Object<S> {
        api_version: String,
        kind: String,
        metadata: ObjectMeta,
        spec: S,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub(super) struct PodMonitorSpec {
        selector: LabelSelector,
        pod_metrics_endpoints: Vec<Endpoint>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Endpoint {
        port: String,
        path: String,
        interval: String,
        honor_labels: bool,
        relabelings: Vec<Relabeling>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Relabeling {
        source_labels: Vec<String>,
        target_label: String,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Groups {
        pub(super) groups: Vec<Group>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Group {
        name: String,
        rules: Vec<Rule>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Rule {
        #[serde(skip_serializing_if = "Option::is_none")]
        record: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        alert: Option<String>,
        expr: String,
        #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
        pending: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        labels: Option<BTreeMap<String, String>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        annotations: Option<BTreeMap<String, String>>,
    }
}

fn check(object: &Value) -> Result<(), String> {
    let kind = object["kind"].as_str().unwrap_or_default();
    match (object["apiVersion"].as_str().unwrap_or_default(), kind) {
        ("v1", "Namespace") => as_type::<Namespace>(object),
        ("v1", "ServiceAccount") => as_type::<ServiceAccount>(object),
        ("v1", "Service") => as_type::<Service>(object),
        ("v1", "ConfigMap") => as_type::<ConfigMap>(object),
        ("apps/v1", "DaemonSet") => as_type::<DaemonSet>(object),
        ("batch/v1", "Job") => as_type::<Job>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => as_type::<ClusterRole>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => as_type::<ClusterRoleBinding>(object),
        ("rbac.authorization.k8s.io/v1", "Role") => as_type::<Role>(object),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => as_type::<RoleBinding>(object),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition") => {
            as_type::<CustomResourceDefinition>(object)
        }
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy") => {
            as_type::<ValidatingAdmissionPolicy>(object)
        }
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding") => {
            as_type::<ValidatingAdmissionPolicyBinding>(object)
        }
        ("monitoring.coreos.com/v1", "PodMonitor") => {
            as_type::<operator::Object<operator::PodMonitorSpec>>(object)
        }
        ("monitoring.coreos.com/v1", "PrometheusRule") => {
            as_type::<operator::Object<operator::Groups>>(object)
        }
        (version, kind) => Err(format!("{version} {kind} is not known to this test")),
    }
    .map_err(|error| format!("{kind} {}: {error}", object["metadata"]["name"]))
}

fn assert_valid(objects: &[Value]) {
    assert!(!objects.is_empty());
    let errors: Vec<String> = objects.iter().filter_map(|object| check(object).err()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    // No two objects of one kind, namespace and name.
    let mut seen = BTreeSet::new();
    for object in objects {
        let meta = &object["metadata"];
        let key =
            format!("{} {} {} {}", object["apiVersion"], object["kind"], meta["namespace"], meta["name"]);
        assert!(seen.insert(key.clone()), "{key} is there twice");
    }
}

#[test]
fn the_check_finds_what_is_wrong() {
    let error = |object: Value| check(&object).unwrap_err();
    let mut account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "a" } });
    assert_eq!(check(&account), Ok(()));
    account["metadata"]["lables"] = json!({});
    assert!(error(account).ends_with(".metadata.lables is no field of its type"));
    let pods = json!({ "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "a" },
        "spec": { "selector": {}, "template": { "spec": { "containers": [{ "name": "a", "hostnetwork": true }] } } } });
    assert!(error(pods).contains(".spec.template.spec.containers[0].hostnetwork"));
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": { "ports": "80" } });
    assert!(error(service).contains("invalid type"));
    assert!(error(json!({ "apiVersion": "v2", "kind": "Pod" })).contains("not known"));
}

#[test]
fn every_manifest_is_what_kubernetes_has_types_for() {
    for name in ["base", "monitoring", "cleanup", "crds"] {
        assert_valid(&folder(name));
    }
}

#[test]
fn the_chart_is_valid_with_everything_changed() {
    let values = json!({
        "image": { "repository": "registry.example/dryfence", "digest": format!("sha256:{}", "0".repeat(64)) },
        "imagePullSecrets": ["registry"],
        "settings": { "log": "debug", "most-edges": 300_000, "default-deny-exempt": ["kube-system", "istio-system"] },
        "extraEnv": [{ "name": "TZ", "value": "UTC" }],
        "extraCapabilities": ["SYS_RESOURCE"],
        "seccompProfile": { "type": "Localhost", "localhostProfile": "profiles/dryfence.json" },
        "priorityClassName": "",
        "nodeSelector": { "pool": "apps" },
        "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [] } } },
        "tolerations": [],
        "updateStrategy": { "type": "OnDelete" },
        "podAnnotations": { "a": "b" },
        "podLabels": { "c": "d" },
        "serviceAccount": { "annotations": { "e": "f" } },
        "reader": { "subjects": [{ "kind": "Group", "name": "sre", "apiGroup": "rbac.authorization.k8s.io" }] },
        "monitoring": {
            "podMonitor": { "enabled": true, "labels": { "release": "prometheus" } },
            "prometheusRule": { "enabled": true, "labels": { "release": "prometheus" } },
            "dashboard": { "enabled": true },
        },
    });
    let rendered = helm::render("dryfence", &values).unwrap();
    let yaml = |(path, text): (&String, &String)| path.ends_with(".yaml").then(|| documents(text));
    assert_valid(&rendered.manifests.iter().filter_map(yaml).flatten().collect::<Vec<_>>());
    let agent = &documents(rendered.template("daemonset.yaml"))[0]["spec"]["template"];
    let container = &agent["spec"]["containers"][0];
    let digest = format!("registry.example/dryfence@sha256:{}", "0".repeat(64));
    assert_eq!(container["image"], digest.as_str());
    assert_eq!(
        container["securityContext"]["capabilities"]["add"],
        json!(["BPF", "NET_ADMIN", "PERFMON", "SYS_RESOURCE"])
    );
    assert_eq!(agent["spec"]["priorityClassName"], Value::Null);
    assert_eq!(agent["metadata"]["annotations"]["a"], "b");
    let readers = documents(rendered.template("reader.yaml"));
    let bound = |object: &&Value| object["kind"] == "RoleBinding";
    assert_eq!(readers.iter().find(bound).unwrap()["subjects"][0]["name"], "sre");
}

#[test]
fn what_is_made_is_up_to_date() {
    let stale = manifests::stale(&manifests::expected().unwrap());
    let paths: Vec<_> = stale.iter().map(|(path, _)| path).collect();
    assert!(paths.is_empty(), "run `cargo xtask manifests`: {paths:#?}");
}
