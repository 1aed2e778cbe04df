use serde_json::{Value, json};

use super::*;

fn policy(name: &str, labels: Value) -> Value {
    json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": name },
        "spec": { "podSelector": { "matchLabels": labels } } })
}

fn read(spec: Value) -> Candidate {
    let object = json!({ "apiVersion": "dryfence.io/v1alpha1", "kind": "PolicyCandidate",
        "metadata": { "name": "a", "namespace": "shop" }, "spec": spec });
    Candidate::read(&object, false, &mut Vec::new()).unwrap()
}

fn read_cluster(spec: Value) -> Candidate {
    let object = json!({ "apiVersion": "dryfence.io/v1alpha1", "kind": "ClusterPolicyCandidate",
        "metadata": { "name": "a" }, "spec": spec });
    Candidate::read(&object, true, &mut Vec::new()).unwrap()
}

fn target(kind: &str) -> Value {
    json!({ "apiVersion": "networking.k8s.io/v1", "kind": kind, "name": "web" })
}

#[test]
fn an_embedded_policy_is_of_the_candidates_namespace() {
    for namespace in [None, Some("shop")] {
        let mut object = policy("web", json!({}));
        if let Some(namespace) = namespace {
            object["metadata"]["namespace"] = namespace.into();
        }
        let candidate = read(json!({ "object": object }));
        assert_eq!(candidate.faults(), []);
        assert_eq!(&**candidate.change_set(), "staged");
        let Some(Edit::Apply(policy)) = candidate.edit() else { panic!("{candidate:?}") };
        assert_eq!(**policy.reference(), ObjectRef::namespaced("NetworkPolicy", "shop", "web"));
    }
}

#[test]
fn what_makes_no_sense_is_named_by_field_and_not_in_force() {
    let other = {
        let mut object = policy("web", json!({}));
        object["metadata"]["namespace"] = "bank".into();
        object
    };
    let mut typo = policy("web", json!({}));
    typo["spec"]["ingres"] = json!([]);
    let mut broken = policy("web", json!({}));
    broken["spec"]["podSelector"] = json!(7);
    let mut nameless = policy("web", json!({}));
    nameless["metadata"] = json!({});
    let admin = json!({ "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": { "name": "a" } });
    let cases = [
        (read(json!({ "object": other })), "spec.object.metadata.namespace: is \"bank\""),
        (
            read(json!({ "action": "Replace", "object": policy("web", json!({})) })),
            "spec.action: \"Replace\"",
        ),
        (read(json!({})), "spec.object: is missing"),
        (read(json!({ "action": "Delete" })), "spec.target: is missing"),
        (
            read(json!({ "action": "Delete", "target": target("NetworkPolicy"), "object": {} })),
            "spec.object: is given",
        ),
        (
            read(json!({ "target": target("NetworkPolicy"), "object": policy("web", json!({})) })),
            "spec.target: is given",
        ),
        (
            read(json!({ "action": "Delete", "target": target("Pod") })),
            "spec.target.kind: networking.k8s.io/v1 Pod",
        ),
        (read(json!({ "object": { "apiVersion": "v1", "kind": "Pod" } })), "spec.object.kind: v1 Pod"),
        (read(json!({ "object": admin })), "spec.object.kind: ClusterNetworkPolicy is cluster-wide"),
        (
            read_cluster(json!({ "object": policy("web", json!({})) })),
            "spec.object.kind: NetworkPolicy is namespaced",
        ),
        (read(json!({ "object": typo })), "spec.object.spec.ingres: is not a field"),
        (read(json!({ "object": broken })), "spec.object.spec.podSelector: "),
        (read(json!({ "object": nameless })), "spec.object.metadata.name: is missing"),
        (
            read(json!({ "changeSet": "enforced", "object": policy("web", json!({})) })),
            "spec.changeSet: \"enforced\"",
        ),
        (
            read(json!({ "changeSet": "Wave 3", "object": policy("web", json!({})) })),
            "spec.changeSet: \"Wave 3\"",
        ),
        (read(json!({ "colour": "red", "object": policy("web", json!({})) })), "spec.colour: is not a field"),
    ];
    for (candidate, start) in cases {
        let faults: Vec<String> = candidate.faults().iter().map(ToString::to_string).collect();
        assert!(faults.iter().any(|fault| fault.starts_with(start)), "{start}: {faults:?}");
        assert_eq!(candidate.edit(), None, "{start}");
    }
}

#[test]
fn a_field_of_another_type_is_an_error_with_its_path() {
    let object = json!({ "metadata": { "name": "a" }, "spec": { "changeSet": 7 } });
    let error = Candidate::read(&object, false, &mut Vec::new()).unwrap_err();
    assert_eq!(error.field, "spec.changeSet");
}

#[test]
fn edits_replace_add_and_delete_by_name() {
    let held: Vec<Arc<Policy>> = ["old", "web"]
        .map(|name| match read(json!({ "object": policy(name, json!({ "app": name })) })).edit() {
            Some(Edit::Apply(policy)) => Arc::clone(policy),
            other => panic!("{other:?}"),
        })
        .into();
    let candidates = [
        json!({ "object": policy("web", json!({ "app": "new" })) }),
        json!({ "object": policy("more", json!({})) }),
        json!({ "action": "Delete", "target": { "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "name": "old" } }),
        // Not in force: it changes nothing.
        json!({ "action": "Delete", "changeSet": "Wave 3", "target": target("NetworkPolicy") }),
    ]
    .map(|spec| Arc::new(read(spec)));
    let edited = edited(&held, &candidates);
    let names: Vec<&str> = edited.iter().map(|policy| &*policy.reference().name).collect();
    assert_eq!(names, ["more", "web"]);
    let Some(Edit::Apply(web)) = candidates[0].edit() else { panic!("it is in force") };
    assert!(edited.contains(web) && !held.contains(web));

    let mut map = BTreeMap::from([(ObjectRef::cluster("A", "a"), 1)]);
    let mut edit = |name: &str, value| lay(&mut map, ObjectRef::cluster("A", name), value);
    assert_eq!(edit("a", Some(1)), Laid::Keeps);
    assert_eq!(edit("a", Some(2)), Laid::Replaces);
    assert_eq!(edit("b", Some(2)), Laid::Adds);
    assert_eq!(edit("b", None), Laid::Deletes);
    assert_eq!(edit("b", None), Laid::Misses);
}
