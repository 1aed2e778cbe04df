//! The chart: what Helm has against it, its values and their schema, and what the agent's pods may do.

use std::collections::BTreeSet;

use clap::CommandFactory as _;
use dryfence::cli::Cli;
use dryfence::cluster::kubernetes::WATCHED;
use dryfence::serve::access::PERMISSION;
use serde_json::{Value, json};
use xtask::{helm, tools};

use super::objects::{documents, folder};

fn pod() -> Value {
    let objects = folder("base");
    let agents = objects.iter().find(|object| object["kind"] == "DaemonSet").unwrap();
    agents["spec"]["template"].clone()
}

#[test]
fn helm_has_nothing_against_the_charts() {
    for chart in ["dryfence", "dryfence-crds"] {
        let rendered = helm::render(chart, &json!({})).unwrap();
        assert_eq!(rendered.complaints(), Vec::<String>::new(), "{chart}");
    }
}

#[test]
fn values_that_make_no_sense_are_refused_by_name() {
    let cases = [
        (json!({ "metrics": { "port": 0 } }), "/metrics/port"),
        (json!({ "metrics": { "prot": 9477 } }), "prot"),
        (json!({ "tolerations": {} }), "/tolerations"),
        (json!({ "image": { "digest": "sha256:abc" } }), "/image/digest"),
        (json!({ "image": { "repository": "" } }), "/image/repository"),
        (json!({ "extraCapabilities": ["CAP_SYS_RESOURCE"] }), "/extraCapabilities/0"),
        (json!({ "seccompProfile": { "type": "Localhost" } }), "localhostProfile"),
        (json!({ "settings": { "listen": "[::]:1" } }), "'listen'"),
        (json!({ "settings": { "Log": "info" } }), "'Log'"),
        (json!({ "settings": { "log": {} } }), "/settings/log"),
        (json!({ "reader": { "subjects": [{ "kind": "Team", "name": "sre" }] } }), "/reader/subjects/0/kind"),
        (
            json!({ "monitoring": { "podMonitor": { "interval": "often" } } }),
            "/monitoring/podMonitor/interval",
        ),
        (json!({ "priority": "high" }), "priority"),
    ];
    for (values, named) in cases {
        let error = format!("{:#}", helm::render("dryfence", &values).map(|_| ()).unwrap_err());
        assert!(error.contains(named), "{values}: {error}");
    }
}

/// Every value of the defaults, as a path; those that are open maps and lists are leaves.
fn leaves(value: &Value, schema: &Value, path: &str, all: &mut Vec<String>) {
    match (value.as_object(), schema["properties"].as_object()) {
        (Some(map), Some(properties)) if schema["additionalProperties"] == json!(false) => {
            for (key, value) in map {
                let path = format!("{path}.{key}");
                assert!(properties.contains_key(key), "the schema does not have {path}");
                leaves(value, &properties[key], &path, all);
            }
        }
        _ => all.push(path.to_owned()),
    }
}

#[test]
fn every_value_is_in_the_schema_and_documented() {
    let chart = tools::root().join("deploy/charts/dryfence");
    let schema: Value =
        serde_json::from_str(&std::fs::read_to_string(chart.join("values.schema.json")).unwrap()).unwrap();
    let defaults = helm::render("dryfence", &json!({})).unwrap().defaults;
    let mut all = Vec::new();
    leaves(&defaults, &schema, "", &mut all);
    assert!(all.len() > 30, "{all:#?}");
    // A value is documented by a comment above it, or above what it is in.
    let text = std::fs::read_to_string(chart.join("values.yaml")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let undocumented = lines.iter().enumerate().filter(|(at, line)| {
        let is_top = line.ends_with(':') || line.contains(": ");
        let is_key = is_top && line.starts_with(|first: char| first.is_ascii_lowercase());
        let has_comment = *at > 0 && lines[at - 1].starts_with('#');
        let next_has = lines.get(at + 1).is_some_and(|next| next.trim_start().starts_with('#'));
        let speaks_for_itself =
            ["affinity: {}", "nodeSelector:", "podAnnotations: {}", "podLabels: {}", "serviceAccount:"];
        is_key && !has_comment && !next_has && !speaks_for_itself.contains(line)
    });
    assert_eq!(undocumented.collect::<Vec<_>>(), []);
}

/// The flags of `dryfence agent` and the variables that stand for them.
fn flags() -> (BTreeSet<String>, BTreeSet<String>) {
    let cli = Cli::command();
    let agent = cli.find_subcommand("agent").unwrap();
    let names = agent.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect();
    let variables =
        agent.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_str()?.to_owned())).collect();
    (names, variables)
}

#[test]
fn what_the_manifests_tell_the_agent_it_understands() {
    let (names, variables) = flags();
    let defaults = helm::render("dryfence", &json!({})).unwrap().defaults;
    for setting in defaults["settings"].as_object().unwrap().keys() {
        assert!(names.contains(setting), "{setting} is no flag of the agent");
    }
    let pod = pod();
    let container = &pod["spec"]["containers"][0];
    for variable in container["env"].as_array().unwrap() {
        let name = variable["name"].as_str().unwrap();
        // Where the cluster's own names come from; no flag stands for it.
        assert!(variables.contains(name) || name == "POD_NAMESPACE", "{name} is no variable of the agent");
    }
    let hooks = documents(helm::render("dryfence", &json!({})).unwrap().template("cleanup.yaml"));
    let containers = [&["initContainers", "containers"][..], &["containers"]].concat();
    for object in
        hooks.iter().filter(|object| ["DaemonSet", "Job"].contains(&object["kind"].as_str().unwrap()))
    {
        for container in
            containers.iter().filter_map(|key| object["spec"]["template"]["spec"][key].as_array()).flatten()
        {
            let arguments: Vec<&str> =
                container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
            let line = ["dryfence"].iter().chain(&arguments);
            let parsed = Cli::command().try_get_matches_from(line);
            assert!(parsed.is_ok(), "{arguments:?}: {}", parsed.unwrap_err());
        }
    }
}

#[test]
fn the_agent_is_not_privileged() {
    let pod = pod();
    let spec = &pod["spec"];
    assert_eq!(spec["hostNetwork"], true);
    for absent in ["hostPID", "hostIPC"] {
        assert_eq!(spec[absent], Value::Null);
    }
    let is_host_path = |volume: &Value| !volume["hostPath"].is_null();
    assert!(!spec["volumes"].as_array().unwrap().iter().any(is_host_path));
    assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(spec["priorityClassName"], "system-node-critical");
    assert_eq!(spec["tolerations"], json!([{ "operator": "Exists" }]));
    let containers = spec["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 1);
    let context = &containers[0]["securityContext"];
    assert_eq!(context["privileged"], false);
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["capabilities"], json!({ "drop": ["ALL"], "add": ["BPF", "NET_ADMIN", "PERFMON"] }));
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(containers[0][probe]["httpGet"]["port"], "metrics", "{probe}");
    }
    assert!(containers[0]["resources"]["requests"]["memory"].is_string());
}

#[test]
fn the_log_level_alone_restarts_no_agent() {
    let annotation = |settings: Value| {
        let rendered = helm::render("dryfence", &json!({ "settings": settings })).unwrap();
        let agents = &documents(rendered.template("daemonset.yaml"))[0];
        agents["spec"]["template"]["metadata"]["annotations"]["dryfence.io/settings"].clone()
    };
    let before = annotation(json!({}));
    assert!(before.is_string());
    assert_eq!(annotation(json!({ "log": "debug" })), before);
    assert_ne!(annotation(json!({ "most-edges": 1000 })), before);
}

#[test]
fn roles_change_nothing_and_read_no_secrets() {
    let objects = folder("base");
    let role = objects.iter().find(|object| object["kind"] == "ClusterRole").unwrap();
    for rule in role["rules"].as_array().unwrap() {
        let strings = |key: &str| -> Vec<String> { serde_json::from_value(rule[key].clone()).unwrap() };
        let (verbs, resources) = (strings("verbs"), strings("resources"));
        let is_review =
            resources.iter().all(|name| ["tokenreviews", "subjectaccessreviews"].contains(&name.as_str()));
        let reads = |verb: &String| ["get", "list", "watch"].contains(&verb.as_str());
        assert!(verbs.iter().all(reads) || (is_review && verbs == ["create"]), "{rule}");
        let is_forbidden =
            |name: &String| ["*", "secrets", "configmaps"].contains(&name.as_str()) || name.contains('/');
        assert!(!resources.iter().any(is_forbidden), "{rule}");
        assert!(!strings("apiGroups").contains(&"*".to_owned()));
    }
}

#[test]
fn the_role_reads_what_is_watched_and_nothing_else() {
    let objects = folder("base");
    let of = |kind: &str, name: &str| {
        let found =
            objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.unwrap()["rules"].as_array().unwrap().clone()
    };
    let mut granted = BTreeSet::new();
    for rule in of("ClusterRole", "dryfence") {
        let strings = |key: &str| -> Vec<String> { serde_json::from_value(rule[key].clone()).unwrap() };
        if strings("verbs") != ["get", "list", "watch"] {
            continue;
        }
        for group in strings("apiGroups") {
            granted.extend(strings("resources").into_iter().map(|resource| format!("{group}/{resource}")));
        }
    }
    let watched = WATCHED.iter().map(|kind| format!("{}/{}", kind.group, kind.plural));
    assert_eq!(granted, watched.collect());
    // The agent lets a token read whose owner has this permission.
    let (verb, group, resource) = PERMISSION;
    let reader = of("ClusterRole", "dryfence-reader");
    assert_eq!(reader[0], json!({ "apiGroups": [group], "resources": [resource], "verbs": [verb] }));
}

#[test]
fn uninstalling_runs_the_cleanup_and_takes_it_away() {
    let rendered = helm::render("dryfence", &json!({})).unwrap();
    let hooks = documents(rendered.template("cleanup.yaml"));
    let weight = |object: &Value| {
        let annotations = &object["metadata"]["annotations"];
        assert_eq!(annotations["helm.sh/hook"], "post-delete", "{object}");
        assert_eq!(annotations["helm.sh/hook-delete-policy"], "before-hook-creation,hook-succeeded");
        annotations["helm.sh/hook-weight"].as_str().unwrap().parse::<i32>().unwrap()
    };
    let of = |kind: &str| hooks.iter().find(|object| object["kind"] == kind).map(weight).unwrap();
    // Helm waits for the Job alone, and deletes hooks that succeeded after the last of them has.
    assert!(of("ServiceAccount") < of("RoleBinding") && of("RoleBinding") < of("DaemonSet"));
    assert!(of("DaemonSet") < of("Job"));
    let without = helm::render("dryfence", &json!({ "cleanup": { "enabled": false } })).unwrap();
    assert_eq!(without.template("cleanup.yaml").trim(), "");
    assert!(!folder("cleanup").iter().any(|object| object.to_string().contains("helm.sh/")));
}
