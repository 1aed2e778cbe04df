//! `dryfence agent`: the daemon.

mod everywhere;
mod log;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use ipnet::IpNet;
use tokio::signal::unix::{SignalKind, signal};

use crate::app;
use crate::audit::auditor;
use crate::capture::{self, Capture, Removed};
use crate::cli::scenario::DefaultDenyArgs;
use crate::cluster::kubernetes::ClusterArgs;
use crate::finding::words::count;
use crate::model::dialect::Dialect;
use crate::model::scenario::Scenario;
use crate::serve::address::ServeAt;
use crate::serve::tls;

/// Watch this node's pods, and judge what they open without ever dropping a packet
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// Remove what an agent that was killed left on interfaces, say what it was, and exit
    #[arg(long)]
    pub cleanup: bool,
    /// After the cleanup, stay until told to stop: a DaemonSet then counts the node as ready, and so as clean
    #[arg(long, requires = "cleanup", hide = true)]
    pub stay: bool,
    /// Instead of the cleanup here, wait until every pod of this DaemonSet in POD_NAMESPACE is ready
    #[arg(long, requires = "cleanup", conflicts_with = "stay", value_name = "DAEMONSET", hide = true)]
    pub wait_for: Option<String>,
    /// YAML file of settings, by the names of these flags without the dashes. A flag or variable goes before it
    #[arg(long, env = "DRYFENCE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub source: SourceArgs,
    #[command(flatten)]
    pub judging: JudgingArgs,
    #[command(flatten)]
    pub serving: ServingArgs,
    #[command(flatten)]
    pub capture: capture::Settings,
}

/// What the cluster holds, and which node this is.
#[derive(Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub struct SourceArgs {
    /// Folder or file of manifests that describe the cluster, instead of the API server; repeatable, read again when
    /// they change
    #[arg(
        long,
        env = "DRYFENCE_MANIFESTS",
        value_name = "DIR",
        value_delimiter = ',',
        conflicts_with_all = ["kubeconfig", "context", "impersonate"]
    )]
    pub manifests: Vec<PathBuf>,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Namespace of manifests that name none
    #[arg(short, long, env = "DRYFENCE_NAMESPACE", value_name = "NS")]
    pub namespace: Option<String>,
    /// The cluster's name, written into what is recorded: recordings of clusters with different names do not merge
    #[arg(
        long,
        env = "DRYFENCE_CLUSTER_NAME",
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    pub cluster_name: String,
    /// This node's name, as pods name it in spec.nodeName
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Which pods are watched: all of the cluster's, or this node's (others are asked for when they are met, which asks
    /// less of the API server in a large cluster and knows less: see deploy/README.md)
    #[arg(long, env = "DRYFENCE_SCOPE", value_enum, default_value_t, value_name = "SCOPE")]
    #[arg(requires_if("node", "node_name"))]
    pub scope: Scope,
    /// A range of pod or Service addresses besides the nodes' podCIDRs; repeatable
    #[arg(long, env = "DRYFENCE_CLUSTER_CIDRS", value_name = "CIDR", value_delimiter = ',')]
    pub cluster_cidr: Vec<IpNet>,
    /// Give every address outside the cluster an edge of its own; by default those of one /24 (IPv6: /64) share it,
    /// as far as no policy or segment map tells them apart
    #[arg(long, env = "DRYFENCE_EXACT_EXTERNAL")]
    pub exact_external: bool,
}

/// Which pods are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Scope {
    #[default]
    Cluster,
    Node,
}

/// By what edges are judged, and for how long they are kept.
#[derive(Debug, Args)]
#[command(next_help_heading = "Judging")]
pub struct JudgingArgs {
    /// How the CNI reads what the policy API leaves open: NAME[,switch=true|false…]
    #[arg(long, env = "DRYFENCE_DIALECT", default_value = "standard")]
    pub dialect: Dialect,
    #[command(flatten)]
    pub default_deny: DefaultDenyArgs,
    /// The most edges that are kept; further ones are counted as lost
    #[arg(long, env = "DRYFENCE_MOST_EDGES", default_value_t = 200_000, value_name = "N")]
    pub most_edges: usize,
    /// Forget edges not seen for this many hours
    #[arg(long, env = "DRYFENCE_KEEP_HOURS", default_value_t = 168, value_name = "HOURS")]
    pub keep_hours: u64,
}

/// Where the agent answers.
#[derive(Debug, Args)]
#[command(next_help_heading = "Serving")]
pub struct ServingArgs {
    /// Where metrics and health are served
    #[arg(long, env = "DRYFENCE_LISTEN", default_value = "[::]:9477", value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Where the JSON API is served: a unix socket's path, or a loopback address and port; at any other address by TLS,
    /// to whom the API server's RBAC lets get flows of dryfence.io
    #[arg(long, env = "DRYFENCE_API", default_value = "unix:/run/dryfence/agent.sock", value_name = "ADDR")]
    pub api: ServeAt,
    /// Certificate chain for TLS, in PEM, read again when it changes [default: one that the agent signs itself]
    #[arg(long, env = "DRYFENCE_TLS_CERTIFICATE", value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// Private key of --tls-certificate, in PEM
    #[arg(long, env = "DRYFENCE_TLS_KEY", value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// What is logged, as `info` or `dryfence::capture=debug,info`
    #[arg(long, env = "RUST_LOG", default_value = log::DEFAULT, value_name = "FILTER", value_parser = log::filter)]
    pub log: String,
    /// Log as JSON lines instead of text
    #[arg(long, env = "DRYFENCE_LOG_JSON")]
    pub log_json: bool,
}

impl ServingArgs {
    /// The certificate that is given, if one is.
    pub fn tls_files(&self) -> Option<tls::Files> {
        let (certificate, key) = (self.tls_certificate.clone()?, self.tls_key.clone()?);
        Some(tls::Files { certificate, key })
    }
}

impl JudgingArgs {
    /// What the auditor is told.
    pub fn settings(&self, node: Option<&str>) -> auditor::Settings {
        auditor::Settings {
            node: node.map(Arc::from),
            dialect: self.dialect,
            scenarios: vec![Scenario::Enforced, self.default_deny.scenario()],
            most_edges: self.most_edges,
        }
    }

    /// How long an edge is kept after it was last seen.
    pub const fn keep(&self) -> Duration {
        Duration::from_secs(self.keep_hours * 3600)
    }
}

/// Runs the agent until it is told to stop.
///
/// # Errors
/// One sentence of what kept it from starting, or ended it.
pub fn run(args: AgentArgs) -> anyhow::Result<ExitCode> {
    if let Some(daemon_set) = &args.wait_for {
        return everywhere::wait_for(daemon_set, &args.source.cluster);
    }
    if args.cleanup {
        return clean_up(args.stay);
    }
    log::start(&args.serving, args.config.as_deref())?;
    // Two workers: one may judge a large ledger again while the other reads, answers and serves.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    runtime.block_on(app::run(args))?;
    Ok(ExitCode::SUCCESS)
}

/// Once more finds nothing: there is nothing else that outlives an agent.
fn clean_up(stay: bool) -> anyhow::Result<ExitCode> {
    let mut out = anstream::stdout();
    let removed = Capture::clean_up()?;
    for Removed { interface, program } in &removed {
        writeln!(out, "removed filter {program} of interface {interface}")?;
    }
    writeln!(out, "{} removed", count(removed.len() as u64, "filter"))?;
    if stay {
        wait_for_signal()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits for SIGTERM or SIGINT.
fn wait_for_signal() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}
