//! `cargo xtask bench preview`: a million recorded edges against a candidate of 500 policies.
//!
//! Targets: under 10 s on one core (the preview runs on one thread), under 500 MB.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Edges that a policy can tell apart.
const DISTINCT: usize = 200_000;
/// Files in which each of them was recorded.
const FILES: usize = 5;
const NAMESPACES: usize = 50;
/// Workloads of a namespace, and pods of a workload.
const WORKLOADS: usize = 40;
const REPLICAS: usize = 5;
/// Policies of a namespace: the first isolates it, the others allow.
const POLICIES: usize = 10;

const SECONDS: f64 = 10.0;
const MEGABYTES: f64 = 500.0;

/// Makes the recording, previews it with the release build, and prints what it took.
///
/// # Errors
/// If something cannot be built, written or run, or a target is missed.
pub fn run() -> Result<()> {
    let folder = tempfile::tempdir().context("a folder for the recording")?;
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--package", "dryfence", "--bin", "dryfence"])
        .status()
        .context("cargo cannot be run")?;
    ensure!(built.success(), "the release build failed");
    let edges = edges();
    for file in 0..FILES {
        record(&folder.path().join(format!("{file}.jsonl")), file, &edges)?;
    }
    manifests(&folder.path().join("base"), 0)?;
    manifests(&folder.path().join("candidate"), 1)?;

    let out = File::create(folder.path().join("preview.json"))?;
    let start = Instant::now();
    let mut command = Command::new(binary());
    command.arg("preview").arg("-f").arg(folder.path().join("candidate"));
    command.arg("--manifests").arg(folder.path().join("base")).args(["--fail-on", "none", "-o", "json"]);
    for file in 0..FILES {
        command.arg("--flows").arg(folder.path().join(format!("{file}.jsonl")));
    }
    let mut child = command.stdout(Stdio::from(out)).spawn().context("dryfence preview cannot be run")?;
    let mut megabytes = 0.0;
    let done = loop {
        megabytes = peak(child.id()).unwrap_or(megabytes);
        if let Some(done) = child.try_wait().context("dryfence preview cannot be waited for")? {
            break done;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let seconds = start.elapsed().as_secs_f64();
    ensure!(done.success(), "dryfence preview failed: {done}");
    report(folder.path(), seconds, megabytes)
}

/// The most memory that a process held so far, in megabytes; `None` once it is gone.
fn peak(process: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes / 1024.0)
}

/// Beside this program's own target folder, which cargo may have been told to put elsewhere.
fn binary() -> std::path::PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Path::new(&target).join("release").join("dryfence")
}

fn report(folder: &Path, seconds: f64, megabytes: f64) -> Result<()> {
    let preview: Value = serde_json::from_reader(File::open(folder.join("preview.json"))?)
        .context("the preview is no JSON")?;
    let count = |what: &str| preview.pointer(&format!("/counts/{what}")).cloned().unwrap_or_default();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} recorded edges, {} distinct", DISTINCT * FILES, count("edges"))?;
    for what in ["newly_denied", "newly_allowed", "still_denied", "unknown", "unchanged"] {
        writeln!(out, "  {what:<14} {}", count(what))?;
    }
    writeln!(out, "time   {seconds:6.2} s   (target {SECONDS} s)")?;
    writeln!(out, "memory {megabytes:6.0} MB  (target {MEGABYTES} MB)")?;
    ensure!(count("edges") == DISTINCT, "{} distinct edges were read, not {DISTINCT}", count("edges"));
    ensure!(count("newly_denied/findings") != 0 && count("newly_allowed/findings") != 0, "nothing changed");
    ensure!(seconds < SECONDS && megabytes < MEGABYTES, "a target was missed");
    Ok(())
}

/// A number of the sequence: the same in every run.
struct Random(u64);

impl Random {
    /// Below `limit` (splitmix64).
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

const PODS: usize = NAMESPACES * WORKLOADS * REPLICAS;
const OUTSIDE: usize = 2_000;
const PORTS: [u16; 4] = [8080, 5432, 6379, 9090];

/// Initiator's and responder's party, port, and whether it was seen at the initiator.
type Pick = (usize, usize, u16, bool);

/// Distinct edges: a workload asks the same few workloads, from and to any of their pods.
fn edges() -> Vec<Pick> {
    let mut random = Random(1);
    let mut known = std::collections::HashSet::with_capacity(DISTINCT);
    let mut edges = Vec::with_capacity(DISTINCT);
    while edges.len() < DISTINCT {
        let from = random.below(PODS);
        let workload = from / REPLICAS;
        let asked = (workload * 7919 + random.below(12) * 104_729) % (NAMESPACES * WORKLOADS);
        let to = match random.below(10) {
            0 => PODS + random.below(OUTSIDE),
            _ => asked * REPLICAS + random.below(REPLICAS),
        };
        let edge = (from, to, PORTS[asked % PORTS.len()], to >= PODS || random.below(2) == 0);
        if from != to && known.insert(edge) {
            edges.push(edge);
        }
    }
    edges
}

fn namespace(workload: usize) -> String {
    format!("ns-{}", workload / WORKLOADS)
}

fn record(path: &Path, file: usize, edges: &[Pick]) -> Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    let mut line = |value: Value| writeln!(out, "{value}");
    line(json!({
        "format": "dryfence-edges", "version": 1, "cluster": "bench", "node": "node-a", "dialect": "standard",
        "start": format!("2026-03-0{}T00:00:00Z", file + 1), "end": format!("2026-03-0{}T00:00:00Z", file + 2),
    }))?;
    for workload in 0..NAMESPACES * WORKLOADS {
        let (namespace, name) = (namespace(workload), format!("app-{workload}"));
        line(json!({"identity": {
            "id": workload, "namespace": namespace, "service_account": "default",
            "namespace_labels": {"kubernetes.io/metadata.name": namespace, "team": format!("team-{}", workload % 7)},
            "labels": {"app": name, "tier": format!("tier-{}", workload % 5), "pod-template-hash": "5d8f"},
            "named_ports": [{"name": "http", "protocol": "TCP", "port": PORTS[workload % PORTS.len()]}],
        }}))?;
        for pod in workload * REPLICAS..(workload + 1) * REPLICAS {
            line(json!({"pod": {
                "id": pod, "identity": workload, "name": format!("{name}-5d8f-{pod}"),
                "uid": format!("00000000-0000-0000-0000-{pod:012}"), "workload": format!("Deployment/{name}"),
                "owners": [format!("ReplicaSet/{name}-5d8f"), format!("Deployment/{name}")],
                "selector": {"app": name}, "node": format!("node-{}", pod % 100), "addresses": [address(pod)],
            }}))?;
            line(json!({"party": {"id": pod, "address": address(pod), "pod": pod}}))?;
        }
    }
    for outside in 0..OUTSIDE {
        let address = format!("198.51.{}.{}", 100 + outside / 250, outside % 250);
        line(json!({"party": {"id": PODS + outside, "address": address, "external": true}}))?;
    }
    for (number, (from, to, port, egress)) in edges.iter().enumerate() {
        let first = 1_772_323_200_000_000_000_u64 + (file * 86_400 + number % 86_000) as u64 * 1_000_000_000;
        let same = from / REPLICAS / WORKLOADS == to / REPLICAS / WORKLOADS;
        let cause = match (*to >= PODS, same) {
            (true, _) => "external",
            (false, true) => "same-namespace",
            (false, false) => "cross-namespace",
        };
        line(json!({"edge": {
            "from": from, "to": to, "port": port, "protocol": "TCP",
            "direction": if *egress { "Egress" } else { "Ingress" }, "cause": cause,
            "counters": [10 + number % 90, 10 + number % 90, 0, 120, 130, 9_000, 80_000], "first": first,
            "last": first + 60_000_000_000,
        }}))?;
    }
    line(json!({"end": {"edges": edges.len()}}))?;
    out.flush().context("the recording cannot be written")
}

fn address(pod: usize) -> String {
    format!("10.{}.{}.{}", pod / 65_536, pod / 256 % 256, pod % 256)
}

/// 500 policies; those of the candidate (`shift` 1) allow other tiers and ports here and there.
fn manifests(folder: &Path, shift: usize) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut out = BufWriter::new(File::create(folder.join("policies.json"))?);
    for number in 0..NAMESPACES * POLICIES {
        let (namespace, of) = (number / POLICIES, number % POLICIES);
        let tier = |of: usize| json!({"matchLabels": {"tier": format!("tier-{}", of % 5)}});
        let spec = if of == 0 {
            json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
        } else {
            let moved = if number % 9 == 0 { shift } else { 0 };
            let ports = json!([{"port": PORTS[(of + moved) % PORTS.len()]}, {"port": "http"}]);
            json!({
                "podSelector": tier(of),
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": [{"namespaceSelector": {}, "podSelector": tier(of + moved)},
                    {"namespaceSelector": {"matchLabels": {"team": format!("team-{}", of % 7)}}}], "ports": ports}],
                "egress": [{"to": [{"namespaceSelector": {}}], "ports": ports},
                    {"to": [{"ipBlock": {"cidr": format!("198.51.{}.0/24", 100 + (of + moved) % 8)}}]}],
            })
        };
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": spec,
            "metadata": {"name": format!("policy-{of}"), "namespace": format!("ns-{namespace}")},
        });
        writeln!(out, "{policy}")?;
    }
    out.flush().context("the policies cannot be written")
}
