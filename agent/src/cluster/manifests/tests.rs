//! Tests of reading manifest files, each named by what is in them.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod segments;

use super::{Loaded, load, watch};
use crate::cluster::index::Index;
use crate::cluster::object::Object;
use crate::model::edge::Protocol::Tcp;
use crate::model::endpoint::Endpoint;
use crate::model::object::ObjectRef;
use crate::model::time::Timestamp;

/// Loads one file of that name and content.
fn read(name: &str, text: &str) -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), text).unwrap();
    let mut loaded = load(&[folder.path().to_owned()], None);
    for finding in &mut loaded.findings {
        let file = finding.file.file_name().map(Path::new).unwrap_or(&finding.file);
        finding.file = file.into();
    }
    loaded
}

fn yaml(text: &str) -> Loaded {
    read("a.yaml", text)
}

/// Object references, and findings as they are printed.
fn shown(loaded: &Loaded) -> (Vec<String>, Vec<String>) {
    let object = |object: &Object| match object {
        Object::Broken(_) => format!("broken {}", object.reference()),
        Object::Policy(policy) if policy.reference().namespace.is_none() => {
            format!("anywhere {}", object.reference())
        }
        _ => object.reference().to_string(),
    };
    let findings = loaded.findings.iter().map(|finding| format!("{}: {finding}", finding.severity));
    (loaded.objects.iter().map(object).collect(), findings.collect())
}

const POD: &str =
    "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x}, status: {podIP: 192.0.2.1}}";

#[test]
fn several_documents_lists_and_json_are_read_and_empty_documents_are_none() {
    let pod = |name: &str| POD.replace("name: a,", &format!("name: {name},"));
    for (case, file, text, objects) in [
        ("one", "a.yaml", pod("a"), vec!["Pod/x/a"]),
        (
            "several, with comments and empty ones",
            "a.yml",
            format!("# head\n---\n{}\n---\n# nothing\n---\n---\n--- # note\n{}\n...\n", pod("a"), pod("b")),
            vec!["Pod/x/a", "Pod/x/b"],
        ),
        ("on the line of the mark", "a.yaml", format!("--- {}\n---\nnull\n", pod("a")), vec!["Pod/x/a"]),
        ("Windows lines and a BOM", "a.yaml", format!("\u{feff}---\r\n{}\r\n---\r\n{}\r\n", pod("a"), pod("b")), vec!["Pod/x/a", "Pod/x/b"]),
        (
            "List",
            "a.yaml",
            format!("apiVersion: v1\nkind: List\nitems:\n- {}\n- {}\n", pod("a"), pod("b")),
            vec!["Pod/x/a", "Pod/x/b"],
        ),
        (
            "a typed list, whose items do not say what they are",
            "a.yaml",
            "{apiVersion: v1, kind: PodList, items: [{metadata: {name: a, namespace: x}, status: {podIP: 192.0.2.1}}]}".to_owned(),
            vec!["Pod/x/a"],
        ),
        (
            "JSON values one after the other",
            "a.json",
            r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}
               {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}"#.to_owned(),
            vec!["Namespace/x", "Node/n"],
        ),
        ("anchors", "a.yaml", "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: &n x\n  labels: {team: *n}\n".to_owned(), vec!["Namespace/x"]),
        ("nothing", "a.yaml", "\n# only a comment\n".to_owned(), vec![]),
        ("a file that is no manifest", "a.txt", pod("a"), vec![]),
        ("a hidden file", ".a.yaml", pod("a"), vec![]),
    ] {
        let loaded = read(file, &text);
        assert_eq!(shown(&loaded), (objects.iter().map(ToString::to_string).collect(), vec![]), "{case}");
    }
}

#[test]
fn every_kind_is_read() {
    let loaded = yaml(
        "apiVersion: v1\nkind: List\nitems:\n\
         - {apiVersion: v1, kind: Namespace, metadata: {name: x}}\n\
         - {apiVersion: v1, kind: Node, metadata: {name: n}}\n\
         - {apiVersion: v1, kind: Service, metadata: {name: s, namespace: x}, spec: {ports: [{port: 80}]}}\n\
         - {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, metadata: {name: e, namespace: x}, endpoints: []}\n\
         - {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, spec: {podSelector: {}}}\n\
         - {apiVersion: apps/v1, kind: Deployment, metadata: {name: w, namespace: x}, spec: {selector: {}, template: {}}}\n\
         - {apiVersion: apps/v1, kind: StatefulSet, metadata: {name: w, namespace: x}, spec: {selector: {}, template: {}}}\n\
         - {apiVersion: apps/v1, kind: DaemonSet, metadata: {name: w, namespace: x}, spec: {selector: {}, template: {}}}\n\
         - {apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: w, namespace: x}, spec: {selector: {}}}\n\
         - {apiVersion: v1, kind: ReplicationController, metadata: {name: w, namespace: x}}\n\
         - {apiVersion: batch/v1, kind: Job, metadata: {name: w, namespace: x}, spec: {template: {}}}\n\
         - {apiVersion: dryfence.io/v1alpha1, kind: SegmentMap, metadata: {name: m}, spec: {segments: [{name: s, members: [{entity: world}]}]}}\n\
         - {apiVersion: dryfence.io/v1alpha1, kind: EdgeException, metadata: {name: e, namespace: x}, spec: {scenario: enforced, to: [{entity: world}], reason: known}}\n\
         - {apiVersion: batch/v1, kind: CronJob, metadata: {name: w, namespace: x}, spec: {schedule: '@daily', jobTemplate: {}}}\n",
    );
    let (objects, findings) = shown(&loaded);
    assert_eq!(findings, Vec::<String>::new());
    assert_eq!(objects.len(), 14);
    assert!(objects.iter().all(|object| !object.starts_with("broken")), "{objects:?}");
}

#[test]
fn bad_input_is_named_by_file_document_object_and_field() {
    let policy = |spec: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: x}}\nspec: {spec}\n"
        )
    };
    for (case, text, object, finding) in [
        (
            "a value of the wrong type",
            "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x}, spec: {hostNetwork: yes}}".to_owned(),
            "broken Pod/x/a",
            "error: a.yaml:1 (document 1): Pod x/a: spec.hostNetwork: invalid type: string \"yes\", expected a boolean",
        ),
        (
            "an address that is none",
            POD.replace("192.0.2.1", "192.0.2"),
            "broken Pod/x/a",
            "error: a.yaml:1 (document 1): Pod x/a: status.podIP: \"192.0.2\" is not an IP address",
        ),
        (
            "a label that the API server refuses",
            POD.replace("namespace: x", "namespace: x, labels: {app: a b}"),
            "broken Pod/x/a",
            "error: a.yaml:1 (document 1): Pod x/a: metadata.labels.app: \"a b\" is not a label value",
        ),
        (
            "a pod without an address",
            POD.replace("podIP: 192.0.2.1", ""),
            "Pod/x/a",
            "warning: a.yaml:1 (document 1): Pod x/a: status.podIPs: has no address",
        ),
        (
            "an object without a namespace",
            POD.replace(", namespace: x", ""),
            "Pod/default/a",
            "warning: a.yaml:1 (document 1): Pod default/a: metadata.namespace: is missing: \"default\" is taken",
        ),
        (
            "an object without a name",
            POD.replace("name: a, ", ""),
            "broken Pod/x/document 1 of a.yaml",
            "error: a.yaml:1 (document 1): metadata.name: is missing",
        ),
        (
            "a kind of another version",
            POD.replace("apiVersion: v1", "apiVersion: v2"),
            "broken Pod/x/a",
            "error: a.yaml:1 (document 1): Pod x/a: apiVersion: \"v2\" is not v1",
        ),
        (
            "an unknown field that decides nothing",
            POD.replace("status:", "spec: {colour: red}, status:"),
            "Pod/x/a",
            "warning: a.yaml:1 (document 1): Pod x/a: spec.colour: is not a field of Pod: ignored",
        ),
        (
            "an unknown field of a policy",
            policy("{podSelector: {}, ingress: [{form: []}]}"),
            "NetworkPolicy/x/p",
            "error: a.yaml:1 (document 1): NetworkPolicy x/p: spec.ingress[0].form: is not a field of NetworkPolicy",
        ),
        (
            "a CIDR that is none",
            policy("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]}"),
            "NetworkPolicy/x/p",
            "error: a.yaml:1 (document 1): NetworkPolicy x/p: spec.ingress[0].from[0].ipBlock.cidr: \"10.0.0.0/33\" is not",
        ),
        (
            "a policy whose spec is misspelt",
            policy("{}").replace("spec:", "sepc:"),
            "NetworkPolicy/x/p",
            "error: a.yaml:1 (document 1): NetworkPolicy x/p: sepc: is not a field of NetworkPolicy, and spec is missing",
        ),
        (
            "a policy with a list where a map belongs",
            policy("{podSelector: []}"),
            "NetworkPolicy/x/p",
            "error: a.yaml:1 (document 1): NetworkPolicy x/p: spec.podSelector: invalid",
        ),
        (
            "a port that is none",
            "{apiVersion: v1, kind: Service, metadata: {name: s, namespace: x}, spec: {ports: [{port: 70000}]}}".to_owned(),
            "broken Service/x/s",
            "error: a.yaml:1 (document 1): Service x/s: spec.ports[0].port: 70000 is not a port: 1 to 65535",
        ),
        (
            "a selector that the API server refuses",
            "{apiVersion: apps/v1, kind: Deployment, metadata: {name: w, namespace: x}, spec: {template: {}, selector: {matchExpressions: [{key: a, operator: Is}]}}}".to_owned(),
            "broken Deployment/x/w",
            "error: a.yaml:1 (document 1): Deployment x/w: spec.selector: matchExpressions[0].operator: \"Is\" is none of",
        ),
        (
            "an item of a list",
            format!("apiVersion: v1\nkind: List\nitems:\n- {}\n", POD.replace("192.0.2.1", "x")),
            "broken Pod/x/a",
            "error: a.yaml:1 (document 1): Pod x/a: items[0].status.podIP: \"x\" is not an IP address",
        ),
    ] {
        let (objects, findings) = shown(&yaml(&text));
        assert_eq!(objects, [object], "{case}");
        assert_eq!(findings.len(), 1, "{case}: {findings:?}");
        assert!(findings[0].starts_with(finding), "{case}: {}", findings[0]);
    }
}

#[test]
fn a_document_that_cannot_be_parsed_takes_no_other_with_it() {
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: p\n  namespace: x\nspec: {podSelector: {}\n";
    let no_namespace = policy.replace("  namespace: x\n", "");
    let of_calico = policy.replace("networking.k8s.io/v1", "projectcalico.org/v3");
    let pod = "kind: Pod\nmetadata:\n  name: b\n  namespace: x\nstatus:\n  podIP: 192.0.2.2\nspec: [\n";
    for (case, broken, expected) in [
        ("a policy", policy, "NetworkPolicy/x/p"),
        ("another policy called so", &of_calico, "NetworkPolicy.projectcalico.org/x/p"),
        ("a policy without a namespace", &no_namespace, "anywhere NetworkPolicy/document 2 of a.yaml"),
        (
            "a policy in flow style",
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: y}, spec: [}\n",
            "NetworkPolicy/y/document 2 of a.yaml",
        ),
        ("a pod", pod, "broken Pod/x/b"),
    ] {
        let text = format!("{POD}\n---\n{broken}---\n{}\n", POD.replace("name: a", "name: c"));
        let loaded = yaml(&text);
        let (objects, findings) = shown(&loaded);
        assert_eq!(objects, ["Pod/x/a", expected, "Pod/x/c"], "{case}");
        assert!(findings[0].contains("(document 2): cannot be parsed: "), "{case}: {findings:?}");
        let line = loaded.findings[0].line;
        assert!((3..=3 + broken.lines().count()).contains(&line), "{case}: line {line} is in the document");
    }
    let json = r#"{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"namespace": "x",, }"#;
    let (objects, _) = shown(&read("a.json", json));
    assert_eq!(objects, ["NetworkPolicy/x/document 1 of a.json"]);
}

#[test]
fn the_addresses_of_a_broken_object_are_unknown() {
    let loaded = yaml(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x}, spec: {containers: 5}, status: {podIPs: [{ip: 192.0.2.1}]}}\n\
         ---\n\
         kind: Pod\nmetadata:\n  name: b\n  namespace: x\nstatus:\n  podIPs:\n  - ip: 192.0.2.2\nspec: [\n",
    );
    let mut index = Index::default();
    index.reset(loaded.objects, Timestamp::from_nanos(1));
    for (name, address) in [("a", "192.0.2.1"), ("b", "192.0.2.2")] {
        let address: IpAddr = address.parse().unwrap();
        let party = index.party_at(address, 80, Tcp, None, Timestamp::from_nanos(2));
        assert!(
            matches!(&party.endpoint, Endpoint::Unknown(why) if why.code() == "object-invalid"),
            "{party:?}"
        );
        assert!(index.broken(&ObjectRef::namespaced("Pod", "x", name)).is_some());
    }
}

#[test]
fn what_is_given_twice_alike_counts_once_and_otherwise_not_at_all() {
    let policy = |port: u16| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: x}}, spec: {{podSelector: {{}}, ingress: [{{ports: [{{port: {port}}}]}}]}}}}\n---\n"
        )
    };
    let other = POD.replace("192.0.2.1", "192.0.2.2");
    for (case, text, object, finding) in [
        (
            "alike",
            format!("{POD}\n---\n{POD}\n"),
            "Pod/x/a",
            "warning: a.yaml:3 (document 2): Pod x/a: is given twice, alike: first at",
        ),
        (
            "pods",
            format!("{POD}\n---\n{other}\n"),
            "broken Pod/x/a",
            "error: a.yaml:3 (document 2): Pod x/a: is given twice, differently",
        ),
        (
            "policies",
            policy(80) + &policy(81),
            "NetworkPolicy/x/p",
            "error: a.yaml:3 (document 2): NetworkPolicy x/p: is given twice, differently",
        ),
    ] {
        let loaded = yaml(&text);
        let (objects, findings) = shown(&loaded);
        assert_eq!(objects, [object], "{case}");
        assert_eq!(findings.len(), 1, "{case}");
        assert!(findings[0].starts_with(finding), "{case}: {findings:?}");
        match &loaded.objects[0] {
            Object::Policy(policy) => assert_eq!(policy.faults().len(), 1, "it may say anything"),
            Object::Broken(broken) => assert_eq!(broken.addresses.len(), 2, "both addresses are in doubt"),
            _ => {}
        }
    }
}

#[test]
fn unknown_kinds_are_counted_and_policies_among_them_are_warned_of() {
    let loaded = yaml(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: b}}\n---\n\
         {apiVersion: extensions/v1beta1, kind: NetworkPolicy, metadata: {name: c}}\n---\n\
         {apiVersion: cilium.io/v2, kind: CiliumEnvoyConfig, metadata: {name: d}}\n---\n\
         replicas: 3\n---\n- a list\n",
    );
    let skipped: Vec<String> = loaded.skipped.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    assert_eq!(skipped, ["(no kind) 2", "CiliumEnvoyConfig 1", "ConfigMap 2", "NetworkPolicy.extensions 1"]);
    let (objects, findings) = shown(&loaded);
    assert_eq!(objects, Vec::<String>::new());
    assert_eq!(findings.len(), 4, "{findings:?}");
    assert!(findings[0].contains("NetworkPolicy.extensions \"c\" is a policy that is not judged yet"));
    assert!(findings[2].contains("has no kind: it is not a Kubernetes object"), "{findings:?}");
}

#[test]
fn policies_of_calico_are_told_from_others_and_must_be_in_a_tier_that_exists() {
    let policy = |version: &str, kind: &str, name: &str, tier: &str| {
        format!(
            "{{apiVersion: {version}, kind: {kind}, metadata: {{name: {name}, namespace: x}}, spec: {{tier: {tier}, \
             types: [Ingress]}}}}\n---\n"
        )
    };
    let loaded = yaml(&format!(
        "{}{}{}{}{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: a, namespace: x}}}}",
        policy("projectcalico.org/v3", "NetworkPolicy", "a", "default"),
        policy("crd.projectcalico.org/v1", "NetworkPolicy", "none.b", "none"),
        policy("projectcalico.org/v3", "NetworkPolicy", "some.c", "some"),
        "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: some}, spec: {order: 1}}\n---\n",
    ));
    let (objects, findings) = shown(&loaded);
    let calico = "NetworkPolicy.projectcalico.org/x";
    assert_eq!(
        objects,
        [
            &format!("{calico}/a"),
            &format!("{calico}/none.b"),
            &format!("{calico}/some.c"),
            "anywhere Tier/some",
            "NetworkPolicy/x/a"
        ]
    );
    let expected = "error: a.yaml:3 (document 2): NetworkPolicy.projectcalico.org x/none.b: spec.tier: there is no Tier \"none\"";
    assert_eq!(findings, [expected]);
}

#[test]
fn staged_policies_are_listed_as_not_in_force() {
    let loaded = yaml(
        "{apiVersion: projectcalico.org/v3, kind: StagedKubernetesNetworkPolicy, metadata: {name: a, namespace: x}, \
         spec: {podSelector: {}, policyTypes: [Ingress], stagedAction: Set}}",
    );
    let (objects, findings) = shown(&loaded);
    assert_eq!(objects, ["StagedKubernetesNetworkPolicy/x/a"]);
    let expected = "is not in force: staged: it would replace NetworkPolicy/x/a";
    assert!(findings.len() == 1 && findings[0].ends_with(expected), "{findings:?}");
}

#[test]
fn a_default_namespace_is_set_without_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), POD.replace(", namespace: x", "")).unwrap();
    let loaded = load(&[folder.path().to_owned()], Some("y"));
    assert_eq!(shown(&loaded), (vec!["Pod/y/a".to_owned()], vec![]));
}

#[test]
fn a_path_that_is_not_there_is_an_error_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("sub/a.yaml"), POD).unwrap();
    let loaded = load(&[folder.path().join("none.yaml"), folder.path().to_owned()], None);
    assert_eq!(shown(&loaded).0, ["Pod/x/a"]);
    assert!(loaded.findings[0].to_string().contains("none.yaml: cannot be read: "), "{:?}", loaded.findings);
}

fn wait(receiver: &mut tokio::sync::mpsc::Receiver<Loaded>) -> Option<Loaded> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), receiver.recv()).await.ok()? })
}

#[test]
fn a_changed_a_new_and_a_removed_file_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, POD).unwrap();
    let mut changes = watch(vec![folder.path().to_owned()], None).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    fs::write(&file, POD.replace("name: a", "name: b")).unwrap();
    assert_eq!(shown(&wait(&mut changes).unwrap()).0, ["Pod/x/b"]);
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("sub/c.yaml"), POD.replace("name: a", "name: c")).unwrap();
    assert_eq!(shown(&wait(&mut changes).unwrap()).0, ["Pod/x/b", "Pod/x/c"]);
    fs::remove_file(&file).unwrap();
    assert_eq!(shown(&wait(&mut changes).unwrap()).0, ["Pod/x/c"]);
}

/// A kubelet updates a ConfigMap mount by making a new folder and renaming a link to it.
#[test]
fn a_config_map_mount_is_read_once_and_its_update_is_noticed() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let mount: PathBuf = folder.path().join("mount");
    fs::create_dir(&mount).unwrap();
    let version = |number: &str, name: &str| {
        let version = mount.join(format!("..{number}"));
        fs::create_dir(&version).unwrap();
        fs::write(version.join("a.yaml"), POD.replace("name: a", &format!("name: {name}"))).unwrap();
        symlink(format!("..{number}"), mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    };
    version("1", "a");
    symlink("..data/a.yaml", mount.join("a.yaml")).unwrap();
    assert_eq!(
        shown(&load(std::slice::from_ref(&mount), None)).0,
        ["Pod/x/a"],
        "once, not also behind the links"
    );
    let mut changes = watch(vec![mount.clone()], None).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    version("2", "b");
    assert_eq!(shown(&wait(&mut changes).unwrap()).0, ["Pod/x/b"]);
}
