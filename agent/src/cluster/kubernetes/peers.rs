//! The pods of other nodes, where an agent watches only its own node's: each is asked for when an edge needs it.
//!
//! | | |
//! |---|---|
//! | asked | `GET /api/v1/pods?fieldSelector=status.podIP=…`, answered from the API server's cache |
//! | how often | at most [`PER_SECOND`] a second, [`BURST`] at once |
//! | an answer holds | [`HOLDS`]; then the pod is forgotten, and asked for again if it still talks |
//! | that nobody has an address holds | [`NOBODY_HOLDS`] |

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use kube::api::{Api, ListParams, VersionMatch};
use rustc_hash::FxHashMap;
use tokio::sync::mpsc;
use tracing::warn;

use super::batch::Change;
use super::error::describe;
use super::kinds::{Kind, WATCHED};
use super::raw::Raw;
use crate::cluster::Object;
use crate::cluster::manifests::decode_api;
use crate::model::object::ObjectRef;
use crate::model::time::Timestamp;

/// Questions a second, over time. The API server looks at every pod of the cluster for each.
const PER_SECOND: u32 = 2;

/// Questions that may come at once after a quiet time.
const BURST: u32 = 40;

/// For how long a pod that was asked for is taken to be as it was: labels, and whose address it is.
pub(super) const HOLDS: Duration = Duration::from_secs(300);

/// For how long an address that nobody had is taken to be outside.
const NOBODY_HOLDS: Duration = Duration::from_secs(60);

/// So many addresses wait for their question; further ones are asked for when they are met again.
const MOST_WAITING: usize = 1000;

/// Asks for pods by their address.
pub(super) struct Peers {
    client: Client,
    /// Whose pods are watched.
    node: Arc<str>,
    changes: mpsc::Sender<Change>,
    waiting: VecDeque<IpAddr>,
    /// When each address was asked for, while the answer holds.
    asked: FxHashMap<IpAddr, Instant>,
    /// When each pod was told.
    told: FxHashMap<ObjectRef, Instant>,
    /// Questions that may be asked now, in thousandths.
    budget: u64,
    last_error: Option<String>,
}

/// Starts asking; send it the addresses that nobody is known to have.
pub(super) fn start(
    client: Client,
    node: Arc<str>,
    changes: mpsc::Sender<Change>,
) -> mpsc::Sender<Vec<IpAddr>> {
    let (questions, asked) = mpsc::channel(4);
    let peers = Peers {
        client,
        node,
        changes,
        waiting: VecDeque::new(),
        asked: FxHashMap::default(),
        told: FxHashMap::default(),
        budget: u64::from(BURST) * 1000,
        last_error: None,
    };
    tokio::spawn(peers.run(asked));
    questions
}

fn pods() -> Option<Kind> {
    WATCHED.into_iter().find(|kind| kind.name == "Pod")
}

impl Peers {
    async fn run(mut self, mut questions: mpsc::Receiver<Vec<IpAddr>>) {
        let Some(kind) = pods() else { return };
        let api: Api<Raw> = Api::all_with(self.client.clone(), &kind.resource());
        let step = Duration::from_millis(100);
        let mut tick = tokio::time::interval(step);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                addresses = questions.recv() => match addresses {
                    Some(addresses) => self.wait_for(addresses),
                    None => return,
                },
                _ = tick.tick() => {
                    let earned = u64::from(PER_SECOND) * step.as_millis() as u64;
                    self.budget = (self.budget + earned).min(u64::from(BURST) * 1000);
                    if self.forget().await.is_err() {
                        return;
                    }
                }
            }
            while self.budget >= 1000
                && let Some(address) = self.waiting.pop_front()
            {
                self.budget -= 1000;
                if self.ask(&api, kind, address).await.is_err() {
                    return;
                }
            }
        }
    }

    fn wait_for(&mut self, addresses: Vec<IpAddr>) {
        for address in addresses {
            let is_new = !self.asked.contains_key(&address) && !self.waiting.contains(&address);
            if is_new && self.waiting.len() < MOST_WAITING {
                self.waiting.push_back(address);
            }
        }
    }

    /// Lets go of what no longer holds.
    async fn forget(&mut self) -> Result<(), mpsc::error::SendError<Change>> {
        self.asked.retain(|_, at| at.elapsed() < NOBODY_HOLDS);
        let over = self.told.extract_if(|_, at| at.elapsed() >= HOLDS).map(|(reference, _)| reference);
        for reference in over.collect::<Vec<_>>() {
            self.changes.send(Change::Forget(reference)).await?;
        }
        Ok(())
    }

    async fn ask(
        &mut self,
        api: &Api<Raw>,
        kind: Kind,
        address: IpAddr,
    ) -> Result<(), mpsc::error::SendError<Change>> {
        let params = ListParams {
            field_selector: Some(format!("status.podIP={address}")),
            resource_version: Some("0".to_owned()),
            version_match: Some(VersionMatch::NotOlderThan),
            ..ListParams::default()
        };
        let list = match api.list(&params).await {
            Ok(list) => list,
            Err(error) => {
                let error = describe(&error);
                if self.last_error.as_ref() != Some(&error) {
                    warn!(%error, "a pod of another node cannot be asked for; it is unknown");
                }
                self.last_error = Some(error);
                return Ok(());
            }
        };
        self.last_error = None;
        let now = Instant::now();
        self.asked.insert(address, now);
        let mut found = false;
        for raw in list.items {
            let (Some(object), findings) = decode_api(&kind.api_version(), kind.name, raw.value) else {
                continue;
            };
            // Those of the own node are watched; in the node's network it is the node that has the address.
            let is_peer = match &object {
                Object::Pod(pod) => pod.node.as_ref() != Some(&self.node) && !pod.finished,
                _ => true,
            };
            if is_peer {
                found = true;
                self.told.insert(object.reference(), now);
                self.changes.send(Change::Apply { object, findings }).await?;
            }
        }
        if !found {
            let until = Timestamp::now().plus(NOBODY_HOLDS);
            self.changes.send(Change::Nobody { address, until }).await?;
        }
        Ok(())
    }
}
