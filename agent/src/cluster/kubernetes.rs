//! Objects from a Kubernetes API server: a watch for each kind, decoded by the same rules as manifest files.
//!
//! ```text
//! follow (one a kind) ─► batch: owners, findings ─► the audit task: counters are read, then the index changes
//!      └───────────────── state: what is synced, stale, refused ──┘
//! ```
//!
//! Nothing stops at a failure. A kind that cannot be read is a gap of the index: what depends on it is `Unknown`, and
//! readiness, metrics and every report name it.

mod batch;
mod connect;
mod discover;
mod error;
mod follow;
mod kinds;
mod owners;
mod peers;
mod raw;
mod read;
mod state;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::Api;
use tokio::sync::mpsc;

use self::batch::Gatherer;
use self::follow::Follower;
use self::owners::Owners;

pub use self::batch::{Batch, Change};
pub use self::connect::{ClusterArgs, client};
pub use self::error::{ConnectError, describe};
pub use self::kinds::{Kind, WATCHED};
pub use self::read::{Held, read};
pub use self::state::{WatchReading, Watches};

/// What is followed, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The node whose pods' owners are asked for where their names do not tell.
    pub node: Option<Arc<str>>,
    /// How often to ask which custom resources there are.
    pub rediscover: Duration,
    /// Only the pods of this node are watched, and others are asked for when they are met.
    pub only: Option<Arc<str>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { node: None, rediscover: Duration::from_secs(120), only: None }
    }
}

/// What is followed.
#[derive(Debug)]
pub struct Followed {
    pub batches: mpsc::Receiver<Batch>,
    /// Takes addresses that nobody is known to have, where only one node's pods are watched.
    pub questions: Option<mpsc::Sender<Vec<IpAddr>>>,
}

/// Follows all kinds, until the receiver is dropped. `watches` is what the client was made with.
pub fn follow(client: &Client, watches: &Watches, settings: Settings) -> Followed {
    let (sender, changes) = mpsc::channel(4096);
    let (batches, receiver) = mpsc::channel(1);
    WATCHED.into_iter().for_each(|kind| watches.add(kind));
    let start = {
        let (client, watches, changes) = (client.clone(), watches.clone(), sender.downgrade());
        let only = settings.only.clone();
        move |kind: Kind| {
            let Some(changes) = changes.upgrade() else { return tokio::spawn(async {}) };
            let follower = Follower {
                kind,
                api: Api::all_with(client.clone(), &kind.resource()),
                fields: only
                    .as_ref()
                    .filter(|_| kind.name == "Pod")
                    .map(|node| format!("spec.nodeName={node}")),
                watches: watches.clone(),
                changes,
                known: Default::default(),
            };
            tokio::spawn(follower.run())
        }
    };
    for kind in WATCHED.into_iter().filter(|kind| !kind.optional) {
        start(kind);
    }
    tokio::spawn(discover::run(client.clone(), settings.rediscover, watches.clone(), start));
    let peers = settings.only.clone().map(|node| peers::start(client.clone(), node, sender.clone()));
    let questions = owners::ask(client.clone(), sender);
    let gatherer = Gatherer {
        changes,
        watches: watches.clone(),
        owners: Owners::new(settings.node, Some(questions)),
        batches,
        findings: Default::default(),
        only: settings.only,
        peers: Default::default(),
    };
    tokio::spawn(gatherer.run());
    Followed { batches: receiver, questions: peers }
}
