//! An agent's API on a unix socket with the recorded shop behind it, for tests of commands that ask agents.

use std::sync::Arc;
use std::thread::JoinHandle;

use futures::future::BoxFuture;
use tokio::sync::oneshot;

use crate::history::fixture::{mk_header, mk_shop_edges};
use crate::model::dialect::Dialect;
use crate::model::record::{EdgeList, EdgeRecord, ScenarioRecord, WindowRecord};
use crate::model::scenario::{DefaultDeny, Scenario};
use crate::policy::Judge;
use crate::serve::address::Address;
use crate::serve::api::{self, AgentStatus, Edges, Query, Recorded, Unavailable};
use crate::serve::listen::Bound;
use crate::serve::ready::Gates;

/// An agent that recorded the shop and knows no policy.
struct Agent;

impl Edges for Agent {
    fn edges(&self, _: &Query) -> BoxFuture<'_, Result<Arc<EdgeList>, Unavailable>> {
        Box::pin(async { Ok(Arc::new(mk_judged_shop())) })
    }

    fn recorded(&self) -> BoxFuture<'_, Result<Recorded, Unavailable>> {
        Box::pin(async { Ok(Recorded { header: mk_header(), edges: mk_shop_edges() }) })
    }

    fn status(&self) -> BoxFuture<'_, Result<AgentStatus, Unavailable>> {
        Box::pin(async { Err(Unavailable) })
    }
}

/// The shop as an agent judges it.
pub(super) fn mk_judged_shop() -> EdgeList {
    let scenarios = [Scenario::Enforced, Scenario::DefaultDeny(DefaultDeny::default())];
    let mut judges = scenarios.clone().map(|scenario| Judge::new(&[], Dialect::default(), &scenario));
    let record = |edge| {
        let edge: crate::model::edge::Edge = edge;
        let judged: Vec<_> =
            judges.iter_mut().map(|judge| (judge.scenario_name(), judge.judge(&edge.connection()))).collect();
        EdgeRecord::new(&edge, judged.iter().map(|(name, judgement)| (*name, judgement)))
    };
    let edges = mk_shop_edges().into_iter().map(record).collect();
    let header = mk_header();
    EdgeList {
        segment_maps: Vec::new(),
        exception_findings: Vec::new(),
        window: WindowRecord {
            start: header.start,
            end: header.end,
            losses: header.losses,
            unobserved: header.unobserved,
        },
        dialect: header.dialect,
        scenarios: scenarios
            .map(|scenario| ScenarioRecord {
                name: scenario.name().to_owned(),
                description: scenario.to_string(),
            })
            .into(),
        warnings: header.warnings,
        edges,
    }
}

/// The API, served by a thread of its own, because commands start runtimes of theirs.
pub(super) struct Served {
    pub(super) address: Address,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Served {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = Address::Unix(folder.path().join("agent.sock"));
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let served = address.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let bound = Bound::api(&served).await.unwrap();
                ready.send(()).unwrap();
                let router = api::router(Arc::new(Agent), Gates::default());
                bound.serve(router, async { stopped.await.unwrap_or_default() }).await.unwrap();
            });
        });
        is_ready.recv().unwrap();
        Self { address, stop, thread, _folder: folder }
    }

    pub(super) fn end(self) {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap();
    }
}
