//! The batch form of `dryfence explain` at size: answers in order, in bounded memory, from the real binary.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const NAMESPACES: usize = 20;
const PODS: usize = 1_000;
const POLICIES: usize = 200;
const QUERIES: usize = 100_000;

fn mk_manifests(folder: &Path) {
    let mut text = String::new();
    for space in 0..NAMESPACES {
        writeln!(
            text,
            "---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: ns{space}, labels: {{team: t{}}}}}}}",
            space % 5
        )
        .unwrap();
    }
    for pod in 0..PODS {
        let (space, app) = (pod % NAMESPACES, pod / NAMESPACES % 10);
        write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: app{app}-{pod}\n  namespace: ns{space}\n  labels: {{app: app{app}, pod-template-hash: h{app}}}\n  \
             ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: app{app}-h{app}, uid: u, controller: true}}]\n\
             spec:\n  containers: [{{name: c, ports: [{{name: http, containerPort: 80}}]}}]\nstatus:\n  podIPs: [{{ip: 10.0.{}.{}}}]\n",
            pod / 250,
            pod % 250 + 1,
        )
        .unwrap();
    }
    fs::write(folder.join("pods.yaml"), text).unwrap();
    let mut text = String::new();
    for policy in 0..POLICIES {
        let (space, app) = (policy % NAMESPACES, policy / NAMESPACES);
        write!(
            text,
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p{policy}, namespace: ns{space}}}\nspec:\n  \
             podSelector: {{matchLabels: {{app: app{app}}}}}\n  policyTypes: [Ingress, Egress]\n  ingress:\n  \
             - from: [{{namespaceSelector: {{matchLabels: {{team: t{}}}}}}}, {{podSelector: {{matchExpressions: [{{key: app, operator: In, values: [app{}, app1]}}]}}}}]\n    ports: [{{port: http}}]\n  \
             egress:\n  - to: [{{ipBlock: {{cidr: 10.0.{}.0/24, except: [10.0.{}.128/25]}}}}]\n  - ports: [{{port: 80, endPort: 90}}]\n",
            policy % 5,
            (app + 1) % 10,
            policy % 4,
            policy % 4,
        )
        .unwrap();
    }
    fs::write(folder.join("policies.yaml"), text).unwrap();
}

fn mk_queries() -> String {
    let mut text = String::new();
    let end = |number: usize| {
        let pod = number % PODS;
        let (space, app) = (pod % NAMESPACES, pod / NAMESPACES % 10);
        match number % 10 {
            0 => format!(r#"{{"workload":"ns{space}/Deployment/app{app}"}}"#),
            1 => format!(r#"{{"ip":"10.0.{}.{}"}}"#, pod / 250, pod % 250 + 1),
            2 => format!(r#"{{"ip":"198.51.100.{}"}}"#, number % 256),
            _ => format!(r#"{{"pod":"ns{space}/app{app}-{pod}"}}"#),
        }
    };
    for query in 0..QUERIES {
        let (from, to) = (end(query * 7), end(query * 13 + query / 10));
        let port = 75 + query % 20;
        writeln!(text, r#"{{"id":{query},"from":{from},"to":{to},"port":{port},"protocol":"TCP"}}"#).unwrap();
    }
    text
}

/// The most memory that the process held, in KiB, while it lives.
fn peak_rss(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[test]
fn a_hundred_thousand_queries_stream_in_order_and_in_bounded_memory() {
    let folder = tempfile::tempdir().unwrap();
    mk_manifests(folder.path());
    let queries = tempfile::NamedTempFile::new().unwrap();
    fs::write(queries.path(), mk_queries()).unwrap();
    let answers = tempfile::NamedTempFile::new().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_dryfence"))
        .arg("explain")
        .arg("--manifests")
        .arg(folder.path())
        .arg("--queries")
        .arg(queries.path())
        .args(["-o", "jsonl"])
        .stdout(answers.reopen().unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut peak = 0;
    let status = loop {
        peak = peak.max(peak_rss(child.id()).unwrap_or_default());
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let wrong = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert!(status.success(), "{wrong}");
    assert_eq!(wrong, "", "nothing is wrong in these manifests");
    let mut verdicts = [0, 0, 0];
    let text = fs::read_to_string(answers.path()).unwrap();
    for (number, line) in text.lines().enumerate() {
        let answer: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(answer["id"], number);
        let verdict = ["Allow", "Deny", "Unknown"].iter().position(|verdict| answer["verdict"] == *verdict);
        verdicts[verdict.unwrap()] += 1;
    }
    assert_eq!(verdicts.iter().sum::<usize>(), QUERIES);
    assert!(verdicts[0] > 1_000 && verdicts[1] > 1_000, "both verdicts occur: {verdicts:?}");
    assert!(peak < 200 * 1024, "{peak} KiB");
}
