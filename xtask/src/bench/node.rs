//! `cargo xtask bench node`: what the agent costs a node, on packets that cross real veths.
//!
//! Targets: resident memory and the kernel's maps together under 60 MB with 50,000 edges and 5,000 pods; under 5 % of
//! a core at 10,000 new connections a second on 1,000 edges, under 20 % at 10,000 new edges a second.

mod iperf;
mod load;
mod throughput;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use self::load::{Load, PODS_HERE, Pair, address};
use crate::demo::agent::Agent;
use crate::demo::privilege;
use crate::{build, say};

/// Pods of the cluster; the first [`PODS_HERE`] of them on this node.
const PODS: usize = 5_000;
const NAMESPACES: usize = 50;
const POLICIES_A_NAMESPACE: usize = 4;
const NODE: &str = "bench-node";

const MILLION: usize = 1_000_000;
const EDGES: usize = 50_000;
const KNOWN: usize = 1_000;
/// Connections or edges a second, and for how long.
const RATE: usize = 10_000;
const SECONDS: usize = 10;
/// The agent reads once a second; this is for slow machines.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// For the last measurement, which makes more edges than there is room for by default.
const MUCH_ROOM: [&str; 4] = ["--edge-map-size", "262144", "--budget-opened", "65536"];

/// Measures, and prints what it found.
///
/// # Errors
/// Where this is not root, something cannot be built or made, or the agent lost a packet.
pub(super) fn run() -> Result<()> {
    if !privilege::is_root() {
        bail!("the measurement makes network namespaces and loads eBPF programs: run it as root");
    }
    let binary = build::agent(true)?;
    let folder = tempfile::tempdir().context("no temporary folder could be made")?;
    fs::write(folder.path().join("cluster.json"), cluster())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        agent(&binary, folder.path()).await?;
        throughput::measure(&binary).await
    })
}

async fn agent(binary: &Path, manifests: &Path) -> Result<()> {
    say!("{PODS} pods, {PODS_HERE} of them here");
    let mut meter = Meter::start(binary, manifests, &[]).await?;
    meter.rest("at rest")?;
    meter.open("10,000 connections/s, 1,000 edges", 0..KNOWN, RATE * SECONDS)?;
    meter.rest("before what comes next, at rest")?;
    meter.open_at("1,000,000 connections, one edge", 0..1, MILLION, None)?;
    meter.rest("after that, at rest")?;
    meter.open("50,000 edges made", KNOWN..EDGES, EDGES - KNOWN)?;
    meter.rest("50,000 edges, at rest")?;
    meter.agent.stop().await?;
    let mut meter = Meter::start(binary, manifests, &MUCH_ROOM).await?;
    meter.open("10,000 new edges/s", 0..RATE * SECONDS, RATE * SECONDS)?;
    meter.agent.stop().await
}

/// The agent, the load, and what the agent must have counted so far.
struct Meter {
    agent: Agent,
    load: Load,
    opened: usize,
    known: usize,
    _folder: tempfile::TempDir,
}

/// What a process used up to now.
#[derive(Debug, Clone, Copy)]
struct Usage {
    at: Instant,
    cpu: Duration,
}

impl Meter {
    async fn start(binary: &Path, manifests: &Path, more: &[&str]) -> Result<Self> {
        let load = Load::new()?;
        let folder = tempfile::tempdir().context("no temporary folder could be made")?;
        let mut agent = Agent::start_with(binary, load.node(), manifests, NODE, folder.path(), more)?;
        agent.ready(load.node()).await?;
        Ok(Self { agent, load, opened: 0, known: 0, _folder: folder })
    }

    /// Opens `count` connections on these pairs in turn, at [`RATE`], and prints what that cost the agent.
    fn open(&mut self, name: &str, pairs: std::ops::Range<usize>, count: usize) -> Result<()> {
        self.open_at(name, pairs, count, Some(RATE))
    }

    /// The same at so many a second; as fast as it goes without a rate.
    fn open_at(
        &mut self,
        name: &str,
        pairs: std::ops::Range<usize>,
        count: usize,
        rate: Option<usize>,
    ) -> Result<()> {
        let all = pairs.len();
        let before = self.usage()?;
        let begin = Instant::now();
        for number in 0..count {
            if let Some(rate) = rate
                && number % (rate / 100) == 0
            {
                let due = begin + Duration::from_secs_f64(number as f64 / rate as f64);
                sleep(due.saturating_duration_since(Instant::now()));
            }
            // No two alike, or the second would be a retransmit.
            self.load.connect(pair(pairs.start + number % all), (self.opened + number) as u32)?;
        }
        let took = begin.elapsed();
        self.opened += count;
        self.known = self.known.max(pairs.end);
        self.settle()?;
        let after = self.usage()?;
        let rate = count as f64 / took.as_secs_f64();
        self.row(name, before, after, Some(rate))
    }

    /// Waits until the agent has judged all that was opened, to the last one.
    fn settle(&mut self) -> Result<()> {
        let until = Instant::now() + READ_WITHIN;
        loop {
            let metrics = self.agent.metrics(self.load.node())?;
            let judged = sum(
                &metrics,
                "dryfence_judged_connections_total",
                &["scenario=\"enforced\"", "direction=\"Egress\""],
            );
            let edges = sum(&metrics, "dryfence_edges{", &["scenario=\"enforced\""]);
            if (judged as usize, edges as usize) == (self.opened, self.known) {
                return Ok(());
            }
            if Instant::now() > until {
                let lost: Vec<_> = metrics.lines().filter(|line| line.starts_with("dryfence_lost")).collect();
                bail!(
                    "{} connections on {} edges were opened, {judged} on {edges} were judged; {lost:#?}",
                    self.opened,
                    self.known
                );
            }
            sleep(Duration::from_millis(100));
        }
    }

    fn rest(&self, name: &str) -> Result<()> {
        let before = self.usage()?;
        sleep(Duration::from_secs(SECONDS as u64));
        self.row(name, before, self.usage()?, None)
    }

    fn row(&self, name: &str, before: Usage, after: Usage, rate: Option<f64>) -> Result<()> {
        let pid = self.agent.id()?;
        let (resident, maps) = (resident(pid)?, map_bytes(pid)?);
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let core = (after.cpu - before.cpu).as_secs_f64() / (after.at - before.at).as_secs_f64() * 100.0;
        let rate = rate.map_or_else(String::new, |rate| format!(", {rate:.0}/s reached"));
        writeln!(
            std::io::stdout().lock(),
            "{name:36} {core:5.1} % of a core, {:5.1} MB resident + {:5.1} MB of maps = {:5.1} MB{rate}",
            megabytes(resident),
            megabytes(maps),
            megabytes(resident + maps),
        )?;
        Ok(())
    }

    fn usage(&self) -> Result<Usage> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.agent.id()?))?;
        let (_, fields) = stat.rsplit_once(") ").context("/proc has no stat as expected")?;
        let ticks: u64 = fields
            .split(' ')
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().context("/proc has no stat as expected"))
            .sum::<Result<_>>()?;
        // USER_HZ, which is 100 wherever Linux runs today.
        Ok(Usage { at: Instant::now(), cpu: Duration::from_millis(ticks * 10) })
    }
}

/// The sum of a metric's series that have all these labels.
fn sum(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    let ours = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
    ours.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("/proc has no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// What the kernel charges for the maps that the process holds, each once.
fn map_bytes(pid: u32) -> Result<u64> {
    let mut maps = std::collections::BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed meanwhile.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name))?;
            value.trim().parse::<u64>().ok()
        };
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    Ok(maps.into_values().sum())
}

/// The ends of the n-th edge: the initiators take turns, and each goes through all other pods, port by port.
fn pair(number: usize) -> Pair {
    let others = PODS - PODS_HERE;
    let (from, number) = (number % PODS_HERE, number / PODS_HERE);
    Pair { from, to: address(PODS_HERE + number % others), port: 8000 + (number / others) as u16 }
}

fn cluster() -> String {
    let mut items = Vec::new();
    for number in 0..NAMESPACES {
        let name = format!("team-{number}");
        items.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
        for policy in 0..POLICIES_A_NAMESPACE {
            items.push(json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": format!("policy-{policy}"), "namespace": name},
                "spec": {
                    "podSelector": {"matchLabels": {"app": format!("app-{policy}")}},
                    "policyTypes": ["Ingress", "Egress"],
                    "egress": [{"to": [{"namespaceSelector": {}}], "ports": [{"port": 8000, "endPort": 8001}]}],
                    "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "app-1"}}}]}],
                },
            }));
        }
    }
    for number in 0..PODS {
        let app = format!("app-{}", number / NAMESPACES % 20);
        items.push(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("{app}-{number}"), "namespace": format!("team-{}", number % NAMESPACES),
                         "uid": number.to_string(), "labels": {"app": app, "version": "v1", "team": "platform"}},
            "spec": {"nodeName": if number < PODS_HERE { NODE.to_owned() } else { format!("node-{}", number % 100) },
                     "containers": [{"name": "main", "image": "example.invalid/main", "ports": [{"containerPort": 8000}]}]},
            "status": {"phase": "Running", "podIP": address(number), "podIPs": [{"ip": address(number)}]},
        }));
    }
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}
