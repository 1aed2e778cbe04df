//! Follows one kind: its list as a whole, then what changes, through everything that an API server does.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::Api;
use kube::runtime::utils::Backoff as _;
use kube::runtime::watcher::{self, Event, watcher};
use rustc_hash::FxHashMap;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::batch::Change;
use super::error::describe;
use super::kinds::Kind;
use super::raw::Raw;
use super::state::Watches;
use crate::cluster::Object;
use crate::cluster::manifests::{Finding, decode_api};
use crate::model::object::ObjectRef;

/// A streamed list that says nothing for so long is asked for in pages instead: the server may have taken the
/// request for a watch, and left out what it did not understand.
const SILENCE: Duration = Duration::from_secs(30);

/// How the list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listing {
    /// As the beginning of the watch (Kubernetes 1.32 and newer, by default).
    Streamed,
    /// In pages, from the server's cache.
    Paged,
}

/// Why a watch ended.
enum Ended {
    /// Begin again, with a new list.
    Anew,
    /// The same, in pages and at once: the server does not stream lists.
    InPages,
    /// The server does not have the kind any more.
    Gone,
    /// Nobody listens.
    Unheard,
}

/// One kind's watch.
pub(super) struct Follower {
    pub(super) kind: Kind,
    pub(super) api: Api<Raw>,
    /// Only objects with these fields.
    pub(super) fields: Option<String>,
    pub(super) watches: Watches,
    pub(super) changes: mpsc::Sender<Change>,
    pub(super) known: Known,
}

/// The objects that there are, as far as counting them needs: a hash of the name, and whether it could be read.
#[derive(Debug, Default)]
pub(super) struct Known {
    hasher: RandomState,
    readable: FxHashMap<u64, bool>,
}

impl Known {
    fn apply(&mut self, reference: &ObjectRef, readable: bool) {
        self.readable.insert(self.hasher.hash_one(reference), readable);
    }

    fn delete(&mut self, reference: &ObjectRef) {
        self.readable.remove(&self.hasher.hash_one(reference));
    }

    fn unreadable(&self) -> u64 {
        self.readable.values().filter(|readable| !**readable).count() as u64
    }
}

impl Follower {
    /// Follows until nobody listens, or the server has the kind no more.
    pub(super) async fn run(mut self) {
        let mut listing = Listing::Streamed;
        let mut backoff = watcher::DefaultBackoff::default();
        loop {
            match self.watch(listing, &mut backoff).await {
                Ended::Anew => {}
                Ended::InPages => listing = Listing::Paged,
                Ended::Gone => {
                    info!(kind = self.kind.name, "the API server does not have this kind any more");
                    let none =
                        Change::Reset { kind: self.kind.name, objects: Vec::new(), findings: Vec::new() };
                    // Whoever stopped listening needs no more of it.
                    drop(self.changes.send(none).await);
                    self.watches.remove(&self.kind);
                    return;
                }
                Ended::Unheard => return,
            }
        }
    }

    fn config(&self, listing: Listing) -> watcher::Config {
        // From the server's cache: thousands of agents that start at once must not all read etcd.
        let config = watcher::Config::default().any_semantic();
        watcher::Config {
            field_selector: self.fields.clone(),
            initial_list_strategy: match listing {
                Listing::Streamed => watcher::InitialListStrategy::StreamingList,
                Listing::Paged => watcher::InitialListStrategy::ListWatch,
            },
            ..config
        }
    }

    async fn watch(&mut self, listing: Listing, backoff: &mut watcher::DefaultBackoff) -> Ended {
        let mut events = std::pin::pin!(watcher(self.api.clone(), self.config(listing)));
        // What was listed so far, while a list is under way.
        let mut list: Option<List> = None;
        loop {
            let is_streaming = listing == Listing::Streamed && list.is_some();
            let next = events.next();
            let event = match is_streaming {
                true => match tokio::time::timeout(SILENCE, next).await {
                    Ok(event) => event,
                    Err(_silent) => return Ended::InPages,
                },
                false => next.await,
            };
            let error = match event {
                // A watcher does not end by itself.
                None => return Ended::Anew,
                Some(Ok(Event::Init)) if list.is_some() => {
                    list = Some(List::default());
                    "the list broke off".to_owned()
                }
                Some(Ok(event)) => {
                    self.watches.answered(self.kind.name);
                    if matches!(event, Event::InitDone | Event::Apply(_) | Event::Delete(_)) {
                        backoff.reset();
                    }
                    if self.event(event, &mut list).await.is_err() {
                        return Ended::Unheard;
                    }
                    continue;
                }
                Some(Err(error)) => match code(&error) {
                    Some(400 | 422) if listing == Listing::Streamed && is_start(&error) => {
                        return Ended::InPages;
                    }
                    Some(404) if self.kind.optional => return Ended::Gone,
                    found => {
                        let expired = found == Some(410);
                        self.failed(describe_watch(&error));
                        wait(backoff).await;
                        // The watcher would ask for the same version again.
                        if expired && is_start(&error) {
                            return Ended::Anew;
                        }
                        continue;
                    }
                },
            };
            self.failed(error);
            wait(backoff).await;
        }
    }

    fn failed(&self, error: String) {
        if self.watches.failed(&self.kind, error.clone()) {
            warn!(kind = self.kind.name, %error, "a watch failed and is tried again");
        }
    }

    async fn event(&mut self, event: Event<Raw>, list: &mut Option<List>) -> Result<(), Unheard> {
        match event {
            Event::Init => *list = Some(List::default()),
            Event::InitApply(raw) => {
                let (object, findings) = self.decode(raw);
                let list = list.get_or_insert_default();
                list.objects.extend(object);
                list.findings.extend(findings);
            }
            Event::InitDone => {
                let List { objects, findings } = list.take().unwrap_or_default();
                self.known.readable.clear();
                for object in &objects {
                    self.known.apply(&object.reference(), is_readable(object));
                }
                self.send(Change::Reset { kind: self.kind.name, objects, findings }).await?;
                self.watches.synced(&self.kind);
            }
            Event::Apply(raw) => {
                let (object, findings) = self.decode(raw);
                if let Some(object) = object {
                    self.known.apply(&object.reference(), is_readable(&object));
                    self.send(Change::Apply { object, findings }).await?;
                }
            }
            Event::Delete(raw) => {
                let reference = self.reference(&raw);
                self.known.delete(&reference);
                self.send(Change::Delete(reference)).await?;
            }
        }
        Ok(())
    }

    fn decode(&self, raw: Raw) -> (Option<Object>, Vec<Finding>) {
        decode_api(&self.kind.api_version(), self.kind.kind, raw.value)
    }

    fn reference(&self, raw: &Raw) -> ObjectRef {
        let metadata = kube::Resource::meta(raw);
        ObjectRef {
            kind: self.kind.name.into(),
            namespace: metadata.namespace.as_deref().map(Into::into),
            name: metadata.name.as_deref().unwrap_or_default().into(),
        }
    }

    async fn send(&self, change: Change) -> Result<(), Unheard> {
        self.watches.count(self.kind.name, self.known.readable.len() as u64, self.known.unreadable());
        self.changes.send(change).await.map_err(|_closed| Unheard)
    }
}

/// Nobody listens any more.
struct Unheard;

#[derive(Debug, Default)]
struct List {
    objects: Vec<Object>,
    findings: Vec<Finding>,
}

fn is_readable(object: &Object) -> bool {
    match object {
        Object::Broken(_) => false,
        Object::Policy(policy) => policy.faults().is_empty(),
        _ => true,
    }
}

/// The status that a request or an event was refused with.
fn code(error: &watcher::Error) -> Option<u16> {
    use watcher::Error;
    match error {
        Error::InitialListFailed(kube::Error::Api(status))
        | Error::WatchStartFailed(kube::Error::Api(status))
        | Error::WatchFailed(kube::Error::Api(status)) => Some(status.code),
        Error::WatchError(status) => Some(status.code),
        _ => None,
    }
}

const fn is_start(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(_))
}

fn describe_watch(error: &watcher::Error) -> String {
    use watcher::Error;
    match error {
        Error::InitialListFailed(error) | Error::WatchStartFailed(error) | Error::WatchFailed(error) => {
            describe(error)
        }
        Error::WatchError(status) => describe(&kube::Error::Api(status.clone())),
        Error::NoResourceVersion => "the answer has no metadata.resourceVersion".to_owned(),
    }
}

async fn wait(backoff: &mut watcher::DefaultBackoff) {
    // It goes on without end.
    let pause = backoff.next().unwrap_or(SILENCE);
    tokio::time::sleep(pause).await;
}
