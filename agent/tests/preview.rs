//! `dryfence preview` as a process: its exit codes, and what it says when it is not 0.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in what its tests share too")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use dryfence::history::file::{Header, write};
use dryfence::model::cause::Cause;
use dryfence::model::edge::{Counters, Direction, Edge, OrientedBy, Protocol};
use dryfence::model::endpoint::{Party, Pod};
use dryfence::model::identity::{IdentityParts, Interner};
use dryfence::model::object::WorkloadRef;
use dryfence::model::role::Roles;
use dryfence::model::time::Timestamp;

/// 2026-03-02T10:00:00Z.
const START: Timestamp = Timestamp::from_nanos(1_772_445_600_000_000_000);

fn mk_pod(interner: &mut Interner, name: &str, last: u8) -> Party {
    let identity = interner.intern(IdentityParts {
        namespace: "shop".into(),
        namespace_labels: [("kubernetes.io/metadata.name", "shop")].into_iter().collect(),
        labels: [("app", name)].into_iter().collect(),
        service_account: "default".into(),
        named_ports: Vec::new(),
        roles: Roles::NONE,
    });
    let address = [192, 0, 2, last].into();
    let pod = Pod {
        namespace: "shop".into(),
        name: name.into(),
        uid: "".into(),
        selector: identity.labels.clone(),
        identity,
        workload: WorkloadRef::new("Pod", "shop", name),
        owners: [].into(),
        node: None,
        host_network: false,
        addresses: [address].into(),
        from_template: false,
    };
    Party::pod(Arc::new(pod), Some(address))
}

/// web asked api, as a file of recorded edges.
fn record(path: &Path, cluster: &str) {
    let mut interner = Interner::default();
    let edge = Edge {
        initiator: mk_pod(&mut interner, "web", 1),
        responder: mk_pod(&mut interner, "api", 2),
        port: 8080,
        protocol: Protocol::Tcp,
        direction: Direction::Egress,
        cause: Cause::SameNamespace,
        counters: Counters { attempts: 5, accepted: 5, ..Counters::default() },
        first_seen: START,
        last_seen: START,
        oriented_by: OrientedBy::Handshake,
        fully_visible: true,
        vlan: 0,
        estimated: false,
    };
    let end = START.plus(std::time::Duration::from_secs(60));
    let header = Header { cluster: cluster.to_owned(), start: START, end, ..Header::default() };
    write(path, &header, [&edge]).unwrap();
}

const DENY: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, \
     metadata: {name: deny, namespace: shop}, spec: {podSelector: {}}}\n";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        record(&folder.0.path().join("flows.jsonl.gz"), "prod");
        record(&folder.0.path().join("dev.jsonl"), "dev");
        folder.file("deny.yaml", DENY);
        folder.file("other.yaml", &DENY.replace("namespace: shop", "namespace: other"));
        folder.file(
            "broken.yaml",
            &format!("{}---\nkind: [\n", DENY.replace("podSelector: {}", "podSelectr: {}")),
        );
        folder
    }

    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn preview(&self, line: &str, stdin: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_dryfence"))
            .arg("preview")
            .args(line.split_whitespace())
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Whoever does not read its input closes it early.
        drop(child.stdin.take().unwrap().write_all(stdin.as_bytes()));
        child.wait_with_output().unwrap()
    }
}

#[test]
fn exit_codes_are_those_of_kubectl_diff_and_one_for_cannot_tell() {
    let folder = Folder::new();
    let flows = "--flows flows.jsonl.gz";
    for (line, stdin, code, stdout, stderr) in [
        ("-f other.yaml", "", 0, "0 newly denied", ""),
        ("-f deny.yaml", "", 1, "1 newly denied", ""),
        ("-f -", DENY, 1, "1 newly denied", ""),
        ("-f deny.yaml --fail-on newly-allowed", "", 0, "1 newly denied", ""),
        ("-f deny.yaml --fail-on none -o name", "", 0, "shop/Pod/api\n", ""),
        ("-f deny.yaml --manifests deny.yaml --base enforced", "", 0, "1 still denied", ""),
        ("-f deny.yaml --manifests deny.yaml --base enforced --delete", "", 1, "1 newly allowed", ""),
        ("--default-deny shop", "", 1, "1 newly denied", ""),
        ("-f deny.yaml --flows dev.jsonl", "", 2, "", "dev.jsonl: line 1: is of cluster \"dev\""),
        ("-f broken.yaml", "", 2, "", "spec.podSelectr"),
        ("-f broken.yaml", "", 2, "", "cannot be parsed"),
        ("-f broken.yaml", "", 2, "", "nothing was judged"),
        ("-f none.yaml", "", 2, "", "none.yaml: there is no such file"),
        ("-f deny.yaml --agent unix:/no/such.sock", "", 2, "", "/no/such.sock: cannot connect"),
        ("-f deny.yaml --fail-on always", "", 2, "", "invalid value 'always'"),
    ] {
        let base = if line.contains("--base") { "" } else { "--base empty" };
        let done = folder.preview(&format!("{flows} {base} {line}"), stdin);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&done.stdout), text(&done.stderr));
        assert_eq!(done.status.code(), Some(code), "{line}: {out}{err}");
        assert!(out.contains(stdout), "{line}: {out}");
        assert!(err.contains(stderr), "{line}: {err}");
        assert_eq!(out.is_empty(), code == 2, "{line}: nothing is judged in half: {out}");
    }
}

#[test]
fn nothing_recorded_cannot_be_told() {
    let folder = Folder::new();
    let header = Header { cluster: "prod".to_owned(), start: START, end: START, ..Header::default() };
    write(&folder.0.path().join("none.jsonl"), &header, []).unwrap();
    let done = folder.preview("--flows none.jsonl --base empty -f deny.yaml", "");
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stdout).contains("nothing was recorded"), "{done:?}");
}

#[test]
fn a_truncated_recording_is_refused() {
    let folder = Folder::new();
    let path = folder.0.path().join("flows.jsonl.gz");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
    let done = folder.preview("--flows flows.jsonl.gz --base empty -f deny.yaml", "");
    assert_eq!(done.status.code(), Some(2));
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(said.starts_with("error: flows.jsonl.gz: line ") && said.contains("truncated"), "{said}");
}
