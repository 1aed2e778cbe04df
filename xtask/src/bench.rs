//! `cargo xtask bench`: figures, measured by running what is shipped.

mod node;
mod preview;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};

use crate::{build, say, tools};

/// Measures what the project promises, and prints the figures
#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What a packet costs in the TC programs, against an empty program in the same run; needs root
    Capture,
    /// What following the node's NAT costs for each new connection; needs root
    Conntrack,
    /// `dryfence explain --queries`: queries a second and memory over a generated folder
    Explain(Explain),
    /// What the index of a large cluster costs: bytes a pod, time an event; 150,000 pods, some minutes
    Index,
    /// What compiling policies and following pods costs, and how that grows with the cluster
    Judge,
    /// What the agent costs a node: CPU, memory, and what traffic loses to being watched; needs root
    Node,
    /// `dryfence preview`: a million recorded edges against 500 policies
    Preview,
}

#[derive(Debug, Args)]
struct Explain {
    #[arg(long, default_value_t = 1_000)]
    pods: usize,
    #[arg(long, default_value_t = 200)]
    policies: usize,
    #[arg(long, default_value_t = 100_000)]
    queries: usize,
}

impl Bench {
    pub fn run(&self) -> Result<()> {
        match &self.what {
            What::Capture => bench("capture"),
            What::Conntrack => bench("conntrack"),
            What::Index => bench("index"),
            What::Judge => bench("judge"),
            What::Explain(explain) => explain.run(),
            What::Node => node::run(),
            What::Preview => preview::run(),
        }
    }
}

/// One of the agent's own measurements.
fn bench(name: &str) -> Result<()> {
    tools::ensure_for_build()?;
    let mut cargo = tools::cargo()?;
    cargo.args(["bench", "--package", "dryfence", "--bench", name]);
    tools::as_root(&mut cargo, "measuring loads eBPF programs or makes network namespaces");
    tools::run(&mut cargo, "the measurement failed")
}

/// Pods of one namespace.
const PODS_A_NAMESPACE: usize = 50;

impl Explain {
    fn run(&self) -> Result<()> {
        let binary = build::agent(true)?;
        let folder = tempfile::tempdir().context("no temporary folder could be made")?;
        let manifests = folder.path().join("manifests");
        fs::create_dir(&manifests)?;
        fs::write(manifests.join("cluster.yaml"), self.cluster())?;
        fs::write(manifests.join("policies.yaml"), self.network_policies())?;
        let queries = folder.path().join("queries.jsonl");
        fs::write(&queries, self.query_lines())?;
        say!("{} queries over {} pods and {} policies", self.queries, self.pods, self.policies);
        // The same folder with one query: what reading the manifests alone costs.
        let one = folder.path().join("one.jsonl");
        fs::write(&one, Self::query_line(0, 0, 1))?;
        let mut start = Measured::default();
        let mut all = Measured::default();
        for _ in 0..3 {
            start = start.best(measure(&binary, &manifests, &one)?);
            all = all.best(measure(&binary, &manifests, &queries)?);
        }
        if all.lines != self.queries {
            bail!("{} answers came for {} queries", all.lines, self.queries);
        }
        let answering = all.wall.saturating_sub(start.wall);
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "reading the folder and one query: {:.2} s, {} MiB",
            start.wall.as_secs_f64(),
            start.rss_mib
        )?;
        writeln!(
            out,
            "all queries: {:.2} s, {} MiB; answering alone {:.2} µs a query",
            all.wall.as_secs_f64(),
            all.rss_mib,
            answering.as_secs_f64() * 1e6 / self.queries as f64
        )?;
        Ok(())
    }

    fn cluster(&self) -> String {
        let mut yaml = String::new();
        for at in 0..self.pods {
            let (namespace, name) = (at / PODS_A_NAMESPACE, at % PODS_A_NAMESPACE);
            if name == 0 {
                let _infallible = write!(
                    yaml,
                    "apiVersion: v1\nkind: Namespace\nmetadata: {{name: ns-{namespace}, labels: {{team: t-{}}}}}\n---\n",
                    namespace % 7
                );
            }
            let _infallible = write!(
                yaml,
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: pod-{name}, namespace: ns-{namespace}, labels: {{app: app-{}, tier: tier-{}}}}}\n\
                 spec:\n  nodeName: node-1\n  containers: [{{name: main, image: example.invalid/main, ports: [{{name: http, containerPort: 8080}}]}}]\n\
                 status: {{phase: Running, podIP: 10.{}.{}.{}}}\n---\n",
                name % 10,
                name % 3,
                at / 65_536,
                at / 256 % 256,
                at % 256
            );
        }
        yaml
    }

    fn network_policies(&self) -> String {
        let namespaces = self.pods.div_ceil(PODS_A_NAMESPACE).max(1);
        let mut yaml = String::new();
        for at in 0..self.policies {
            let namespace = at % namespaces;
            let _infallible = write!(
                yaml,
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: policy-{at}, namespace: ns-{namespace}}}\n\
                 spec:\n  podSelector: {{matchLabels: {{app: app-{}}}}}\n  policyTypes: [Ingress, Egress]\n\
                 \x20 ingress:\n  - from: [{{podSelector: {{matchLabels: {{tier: tier-{}}}}}}}, {{namespaceSelector: {{matchLabels: {{team: t-{}}}}}}}]\n    ports: [{{port: http}}, {{port: 9000, endPort: 9100}}]\n\
                 \x20 egress:\n  - to: [{{namespaceSelector: {{}}, podSelector: {{matchExpressions: [{{key: app, operator: In, values: [app-1, app-{}]}}]}}}}]\n  - to: [{{ipBlock: {{cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}}}]\n    ports: [{{port: 443}}]\n---\n",
                at % 10,
                at % 3,
                at % 7,
                at % 10,
            );
        }
        yaml
    }

    fn query_lines(&self) -> String {
        let mut lines = String::new();
        for at in 0..self.queries {
            // Strides that share no factor with the number of pods, so that pairs do not repeat soon.
            lines.push_str(&Self::query_line(
                at,
                at.wrapping_mul(7) % self.pods,
                at.wrapping_mul(13) % self.pods,
            ));
        }
        lines
    }

    fn query_line(at: usize, from: usize, to: usize) -> String {
        let pod = |at: usize| format!("ns-{}/pod-{}", at / PODS_A_NAMESPACE, at % PODS_A_NAMESPACE);
        let to = if at % 10 == 9 {
            r#"{"ip":"192.0.2.7"}"#.to_owned()
        } else {
            format!(r#"{{"pod":"{}"}}"#, pod(to))
        };
        let port = [8080, 443, 9050, 5432][at % 4];
        format!(
            r#"{{"id":"q{at}","from":{{"pod":"{}"}},"to":{to},"port":{port},"protocol":"TCP"}}"#,
            pod(from)
        ) + "\n"
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    wall: Duration,
    rss_mib: u64,
    lines: usize,
}

impl Measured {
    /// The shorter of two runs of the same; the larger memory.
    fn best(self, other: Self) -> Self {
        if self.lines == 0 {
            return other;
        }
        Self { wall: self.wall.min(other.wall), rss_mib: self.rss_mib.max(other.rss_mib), lines: other.lines }
    }
}

fn measure(binary: &Path, manifests: &Path, queries: &Path) -> Result<Measured> {
    let start = Instant::now();
    let mut child = Command::new(binary)
        .args(["explain", "-o", "jsonl", "--manifests"])
        .arg(manifests)
        .arg("--queries")
        .arg(queries)
        .stdout(Stdio::piped())
        .spawn()
        .context("dryfence could not be started")?;
    let pid = child.id();
    let out = child.stdout.take().context("the child has no output")?;
    let lines = std::io::BufRead::lines(std::io::BufReader::new(out)).count();
    // VmHWM is gone once the process is reaped; rusage has the same figure then.
    let usage = wait(pid)?;
    Ok(Measured { wall: start.elapsed(), rss_mib: usage, lines })
}

/// Reaps the child and returns its largest resident memory in MiB.
fn wait(pid: u32) -> Result<u64> {
    let mut status = 0;
    // SAFETY: all-zero bytes are a valid rusage, which holds plain numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live variables of the types that wait4(2) fills.
    let reaped = unsafe { libc::wait4(i32::try_from(pid)?, &raw mut status, 0, &raw mut usage) };
    if reaped < 0 {
        return Err(std::io::Error::last_os_error()).context("the child could not be waited for");
    }
    if !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) != 0 {
        bail!("dryfence explain failed (wait status {status})");
    }
    Ok(u64::try_from(usage.ru_maxrss)? / 1024)
}
