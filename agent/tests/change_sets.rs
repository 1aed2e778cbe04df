//! Candidates in manifests: each change set is judged beside what is in force, by every command.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write as _;
use std::process::{Command, Output};

use dryfence::audit::judges::Judges;
use dryfence::cluster::Object;
use dryfence::cluster::index::Index;
use dryfence::cluster::manifests::{self, Severity};
use dryfence::model::dialect::Dialect;
use dryfence::model::scenario::{DefaultDeny, Scenario};
use dryfence::model::time::Timestamp;

/// A shop whose web may open connections to its database by policy, and three candidates.
const CLUSTER: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
- {apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {containers: [{name: a}]}, status: {podIP: 192.0.2.10}}
- {apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: db}}, spec: {containers: [{name: a}]}, status: {podIP: 192.0.2.20}}
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: db, namespace: shop}
  spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}
- apiVersion: dryfence.io/v1alpha1
  kind: PolicyCandidate
  metadata: {name: close-db, namespace: shop}
  spec:
    changeSet: wave-3
    object:
      apiVersion: networking.k8s.io/v1
      kind: NetworkPolicy
      metadata: {name: db}
      spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}
- apiVersion: dryfence.io/v1alpha1
  kind: PolicyCandidate
  metadata: {name: open-db, namespace: shop}
  spec: {changeSet: wave-4, action: Delete, target: {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, name: db}}
- apiVersion: dryfence.io/v1alpha1
  kind: PolicyCandidate
  metadata: {name: nonsense, namespace: shop}
  spec:
    changeSet: wave-5
    object: {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: db, namespace: bank}, spec: {podSelector: {}}}
";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cluster.yaml"), text).unwrap();
        Self(folder)
    }

    fn load(&self) -> manifests::Loaded {
        manifests::load(&[self.0.path().to_owned()], None)
    }

    /// Why web may open connections to db, by a scenario.
    fn explain(&self, scenario: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dryfence"));
        command.args(["explain", "--from", "shop/web", "--to", "shop/db", "--port", "5432", "-o", "json"]);
        command.args(["--scenario", scenario, "--manifests"]).arg(self.0.path());
        command.output().unwrap()
    }
}

fn names(objects: Vec<Object>) -> Vec<&'static str> {
    let mut index = Index::default();
    index.reset(objects, Timestamp::EPOCH);
    let given = [Scenario::Enforced, Scenario::DefaultDeny(DefaultDeny::default())];
    let judges = Judges::new(&given, Dialect::STANDARD, &index, Timestamp::EPOCH);
    judges.scenarios().iter().map(Scenario::name).collect()
}

#[test]
fn each_change_set_is_a_scenario_and_nonsense_is_a_finding() {
    let loaded = Folder::new(CLUSTER).load();
    let errors: Vec<String> = loaded
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(ToString::to_string)
        .collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    for part in ["PolicyCandidate shop/nonsense", "spec.object.metadata.namespace", "not in force"] {
        let part = part.replace(' ', "");
        assert!(errors[0].replace([' ', '/'], "").contains(&part.replace('/', "")), "{part}: {errors:?}");
    }
    assert_eq!(names(loaded.objects), ["enforced", "default-deny", "wave-3", "wave-4"]);
}

#[test]
fn explain_answers_by_a_change_set() {
    let folder = Folder::new(CLUSTER);
    for (scenario, verdict) in [("enforced", "Allow"), ("wave-3", "Deny"), ("wave-4", "Allow")] {
        let output = folder.explain(scenario);
        let text = String::from_utf8(output.stdout).unwrap();
        let answer: serde_json::Value = serde_json::from_str(&text)
            .unwrap_or_else(|_| panic!("{scenario}: {text} {}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(answer["verdict"], verdict, "{scenario}: {answer}");
    }
    let unknown = folder.explain("wave-5");
    assert_eq!(unknown.status.code(), Some(2));
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert!(said.contains("wave-5: is none of enforced, default-deny, wave-3, wave-4"), "{said}");
}

#[test]
fn change_sets_beyond_the_bound_are_told_and_not_judged_by() {
    let mut text = CLUSTER.to_owned();
    for number in 10..20 {
        write!(
            text,
            "---\n{{apiVersion: dryfence.io/v1alpha1, kind: PolicyCandidate, metadata: {{name: c{number}, namespace: shop}}, spec: {{changeSet: more-{number}, action: Delete, target: {{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, name: db}}}}}}\n"
        )
        .unwrap();
    }
    let mut index = Index::default();
    index.reset(Folder::new(&text).load().objects, Timestamp::EPOCH);
    let mut judges = Judges::new(&[Scenario::Enforced], Dialect::STANDARD, &index, Timestamp::EPOCH);
    assert_eq!(judges.scenarios().len(), 1 + 8);
    let warning = judges.warning().unwrap();
    assert!(warning.ends_with("not judged: more-18, more-19, wave-3, wave-4"), "{warning}");

    // They come and go with their candidates.
    index.reset(Folder::new(CLUSTER).load().objects, Timestamp::EPOCH);
    assert!(judges.refresh(&index));
    let names: Vec<_> = judges.scenarios().iter().map(Scenario::name).collect();
    assert_eq!(names, ["enforced", "wave-3", "wave-4"]);
    assert_eq!(judges.warning(), None);
}
