//! The only wiring: starts each part of the agent, one named readiness gate each, and stops them in order.

mod audit_task;
mod memory;
mod nat;
mod readings;
mod source;

use std::sync::Arc;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use axum::{Router, middleware};
use rustc_hash::FxHashSet;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tracing::info;

use self::audit_task::{Asker, AuditTask, Inputs, MetricsRecorder};
use self::nat::Nat;
use self::source::Connection;
use crate::audit::auditor::Auditor;
use crate::capture::{Capture, Lock, host};
use crate::cli::agent::{AgentArgs, SourceArgs};
use crate::cluster::index::Index;
use crate::cluster::kubernetes::Watches;
use crate::model::folding::Foldings;
use crate::model::time::Timestamp;
use crate::serve::access::{self, Reviewer};
use crate::serve::address::ServeAt;
use crate::serve::listen::Bound;
use crate::serve::metrics::{Caps, Metrics, Readings};
use crate::serve::ready::Gates;
use crate::serve::{api, health, tls};

/// Runs the agent until SIGTERM or SIGINT, or until a part ends that it cannot do without.
///
/// # Errors
/// One sentence of what kept a part from starting, or ended it.
pub async fn run(args: AgentArgs) -> Result<()> {
    // Before anything that a second agent on the node would disturb, or fail at with a less telling message.
    let lock = Lock::take()?;
    // Told to stop while it starts, the agent stops as soon as it has started: what is attached is then detached.
    let signals = Signals::catch()?;
    let gates = Gates::default();
    let (capture_gate, cluster_gate) = (gates.gate("capture"), gates.gate("cluster"));
    let published = Arc::new(ArcSwap::from_pointee(Readings::default()));
    let metrics = start_metrics(&published);
    let (asker, questions) = mpsc::channel(16);
    let (stop, stopped) = watch::channel(false);
    // It only reads files: what it says is wrong with them, the agent cannot start with.
    let connection = source::connect(&args.source).await?;
    // First of all, so that health is answered while the rest starts.
    let api = api::router(Arc::new(Asker(asker)), gates.clone());
    let health = health::router(Arc::clone(&metrics), gates.clone());
    let mut servers = start_serving(&args, connection.as_ref(), [health, api], &stopped).await?;

    let mut index = start_index(&args.source);
    let source = source::follow(&args.source, connection, &gates)?;
    let gaps = source.watches.as_ref().map(Watches::gaps);
    index.set_gaps(gaps.unwrap_or_default());
    if source.questions.is_some() {
        index.ask_for_peers();
    }
    let notes = Vec::from_iter(args.capture.accounting_note());
    let nat = Nat::follow(!args.capture.no_conntrack);
    let host = host::follow().await?;
    let (capture, seen) = Capture::start_with(lock, args.capture).await?;
    let (capture, since) = (Arc::new(capture), Timestamp::now());
    capture_gate.open();
    let audit = AuditTask {
        auditor: Auditor::new(args.judging.settings(args.source.node_name.as_deref()), index),
        capture: Arc::clone(&capture),
        nat,
        recorder: MetricsRecorder { metrics, known: FxHashSet::default() },
        published,
        figures: Default::default(),
        watches: source.watches,
        peers: source.questions,
        keep: args.judging.keep(),
        since,
        cluster: args.source.cluster_name,
        cluster_gate,
        notes,
        exact_external: args.source.exact_external,
        foldings: Foldings::default(),
        folded: None,
        warnings: Vec::new(),
        policies: Vec::new(),
        made_of: Default::default(),
    };
    let mut audit = tokio::spawn(audit.run(Inputs { news: source.news, seen, host, questions }));
    info!("watching");

    let ended = wait(signals, &mut servers, &mut audit).await;
    info!("stopping: the counters are read a last time");
    capture.stop().await;
    if !audit.is_finished() {
        audit.await.context("the audit task failed")?;
    }
    // Asked last: what was read last is still served to who is asking.
    stop.send_replace(true);
    while let Some(served) = servers.join_next().await {
        served.context("a server task failed")??;
    }
    ended
}

fn start_metrics(published: &Arc<ArcSwap<Readings>>) -> Arc<Metrics> {
    let published = Arc::clone(published);
    Arc::new(Metrics::new(Caps::default(), move || Readings::clone(&published.load())))
}

fn start_index(source: &SourceArgs) -> Index {
    let mut index = Index::default();
    index.set_ranges(source.cluster_cidr.clone());
    index.set_own_node(source.node_name.as_deref().map(Arc::from));
    index
}

async fn start_serving(
    args: &AgentArgs,
    connection: Option<&Connection>,
    [health, api]: [Router; 2],
    stopped: &watch::Receiver<bool>,
) -> Result<JoinSet<Result<()>>> {
    let serving = &args.serving;
    let mut servers = JoinSet::new();
    let api = match &serving.api {
        ServeAt::Local(address) => (Bound::api(address).await?, api),
        ServeAt::Reviewed(address) => {
            let client = connection.map(|connection| connection.client.clone());
            let client = client.with_context(|| {
                format!(
                    "--api {}: who may read there is asked of the API server, and the source is --manifests: serve on a unix socket or a loopback address",
                    serving.api
                )
            })?;
            let reviewer: Arc<dyn Reviewer> = Arc::new(access::ApiServer::new(client));
            let acceptor = tls::acceptor(serving.tls_files(), names(&args.source))?;
            let checked = api.layer(middleware::from_fn_with_state(reviewer, access::check));
            (Bound::tls(*address, acceptor).await?, checked)
        }
    };
    let routes = [(Bound::tcp(serving.listen).await?, health), api];
    for (bound, router) in routes {
        let mut stopped = stopped.clone();
        let stop = async move {
            // An error means that the sender is gone: time to stop as well.
            drop(stopped.wait_for(|stop| *stop).await);
        };
        servers.spawn(async move { Ok(bound.serve(router, stop).await?) });
    }
    info!(metrics = %serving.listen, api = %serving.api, "serving");
    Ok(servers)
}

/// The names that the agent's own certificate is for.
fn names(source: &SourceArgs) -> Vec<String> {
    source.node_name.iter().cloned().chain(["dryfence".to_owned(), "localhost".to_owned()]).collect()
}

/// What tells the agent to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be waited for")?;
        let interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be waited for")?;
        Ok(Self { terminate, interrupt })
    }
}

/// Waits for a signal to stop, or for a part to end that should not.
async fn wait(
    mut signals: Signals,
    servers: &mut JoinSet<Result<()>>,
    audit: &mut JoinHandle<()>,
) -> Result<()> {
    tokio::select! {
        _ = signals.terminate.recv() => Ok(()),
        _ = signals.interrupt.recv() => Ok(()),
        ended = audit => {
            ended.context("the audit task failed")?;
            anyhow::bail!("capture ended by itself; its last log lines say why")
        }
        Some(served) = servers.join_next() => {
            served.context("a server task failed")??;
            anyhow::bail!("a listener ended by itself")
        }
    }
}
