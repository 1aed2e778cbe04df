//! What the index costs in a large cluster: `cargo xtask bench index`.
//!
//! Targets: below 1 KB a pod with everything else that the cluster holds, below 20 µs for a pod's event from its JSON
//! on, and the process below 200 MB.
#![expect(clippy::unwrap_used, reason = "a measurement may panic")]
#![expect(clippy::print_stdout, reason = "figures are its result")]

mod allocator;
mod cluster;

use std::hint::black_box;
use std::time::Duration;

use dryfence::cluster::Object;
use dryfence::cluster::index::Index;
use dryfence::cluster::trim;
use dryfence::model::object::ObjectRef;
use dryfence::model::time::Timestamp;

use nix::time::ClockId;

use self::allocator::Counting;
use self::cluster::{Cluster, NAMESPACES, NODES, PODS, POLICIES, SERVICES};

#[global_allocator]
static MEMORY: Counting = Counting::new();

/// Pods whose events are timed.
const EVENTS: usize = 20_000;

fn main() {
    let cluster = Cluster::new();
    let mut meter = Meter::new();
    let mut index = Index::default();
    println!("{:34} {:>9} {:>9} {:>8} {:>9}", "entered", "bytes", "resident", "blocks", "time each");
    let mut fill = |name: &str, count: usize, object: &dyn Fn(usize) -> Object| {
        let time = enter(&mut index, count, object);
        meter.row(name, count, time);
    };
    fill("namespaces", NAMESPACES, &|at| namespace(&cluster.namespace(at, 0)));
    fill("nodes", NODES, &|at| read("v1", "Node", &cluster.node(at)));
    fill("policies", POLICIES, &|at| read("networking.k8s.io/v1", "NetworkPolicy", &cluster.policy(at)));
    fill("services", SERVICES, &|at| read("v1", "Service", &cluster.service(at)));
    fill("endpointslices", SERVICES, &|at| read("discovery.k8s.io/v1", "EndpointSlice", &cluster.slice(at)));
    fill("pods", PODS, &|at| pod(&cluster.pod(at, 0, true)));
    meter.whole();

    events(&mut index, &cluster);
    black_box(&index);
}

/// As an object is read while the API server is followed.
fn read(api_version: &str, kind: &str, json: &str) -> Object {
    let (object, findings) = trim::object(api_version, kind, json).unwrap();
    assert!(findings.is_empty(), "{findings:?}");
    object.unwrap()
}

fn pod(json: &str) -> Object {
    read("v1", "Pod", json)
}

fn namespace(json: &str) -> Object {
    read("v1", "Namespace", json)
}

/// Enters objects from their JSON; the time is that of reading and entering, not of writing the JSON.
fn enter(index: &mut Index, count: usize, object: &dyn Fn(usize) -> Object) -> Duration {
    let start = cpu();
    for at in 0..count {
        index.apply(object(at), Timestamp::from_nanos(1));
    }
    cpu() - start
}

/// Times events of pods that are there, in an order that jumps through the cluster.
fn events(index: &mut Index, cluster: &Cluster) {
    let chosen: Vec<usize> = (0..EVENTS).map(|at| at * 7_919 % PODS).collect();
    let texts = |revision, ready| chosen.iter().map(move |at| cluster.pod(*at, revision, ready));
    println!("\n{:34} {:>9} {:>9} {:>9}", "a pod's event", "reading", "entering", "together");
    let row = |name: &str, now: u64, index: &mut Index, texts: Vec<String>| {
        let start = cpu();
        let objects: Vec<Object> = texts.iter().map(|text| pod(text)).collect();
        let reading = (cpu() - start) / EVENTS as u32;
        let start = cpu();
        for object in objects {
            index.apply(object, Timestamp::from_nanos(now));
        }
        print_event(name, reading, (cpu() - start) / EVENTS as u32);
    };
    row("status changes, nothing of ours", 10, index, texts(0, false).collect());
    row("a label changes", 20, index, texts(1, true).collect());
    let references: Vec<_> = chosen
        .iter()
        .map(|at| {
            let (namespace, name) = cluster.pod_place(*at);
            ObjectRef::namespaced("Pod", &namespace, &name)
        })
        .collect();
    let start = cpu();
    for reference in &references {
        index.delete(reference, Timestamp::from_nanos(100));
    }
    print_event("deleted", Duration::ZERO, (cpu() - start) / EVENTS as u32);
    row("created", 200, index, texts(0, true).collect());
    let relabelled: Vec<Object> = (0..1_000).map(|at| namespace(&cluster.namespace(at, 1))).collect();
    let start = cpu();
    for object in relabelled {
        index.apply(object, Timestamp::from_nanos(300));
    }
    println!(
        "a namespace relabelled, of {:.0} pods: {:?}",
        PODS as f64 / NAMESPACES as f64,
        (cpu() - start) / 1_000
    );
}

fn print_event(name: &str, reading: Duration, entering: Duration) {
    println!("{name:34} {reading:>9.1?} {entering:>9.1?} {:>9.1?}", reading + entering);
}

/// What memory grew by.
struct Meter {
    bytes: usize,
    blocks: usize,
    resident: usize,
    start: (usize, usize, usize),
}

impl Meter {
    fn new() -> Self {
        let (bytes, blocks, resident) = (MEMORY.bytes(), MEMORY.blocks(), resident());
        MEMORY.take_most();
        Self { bytes, blocks, resident, start: (bytes, blocks, resident) }
    }

    fn row(&mut self, name: &str, count: usize, time: Duration) {
        let (bytes, blocks, resident) = (MEMORY.bytes(), MEMORY.blocks(), resident());
        println!(
            "{:34} {:>9} {:>9} {:>8} {:>9.1?}",
            format!("{count} {name}"),
            megabytes(bytes.saturating_sub(self.bytes)),
            megabytes(resident.saturating_sub(self.resident)),
            blocks.saturating_sub(self.blocks),
            time / count as u32,
        );
        (self.bytes, self.blocks, self.resident) = (bytes, blocks, resident);
    }

    fn whole(&self) {
        let (bytes, blocks, was) = self.start;
        let (bytes, blocks) = (MEMORY.bytes() - bytes, MEMORY.blocks() - blocks);
        let grown = resident().saturating_sub(was);
        println!(
            "together: {} in {blocks} blocks, {} bytes a pod; resident {}, {} bytes a pod; the whole process {}",
            megabytes(bytes),
            bytes / PODS,
            megabytes(grown),
            grown / PODS,
            megabytes(resident()),
        );
    }
}

/// What this thread has computed for: others on the machine do not count.
fn cpu() -> Duration {
    Duration::from(ClockId::CLOCK_THREAD_CPUTIME_ID.now().unwrap())
}

fn megabytes(bytes: usize) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}
