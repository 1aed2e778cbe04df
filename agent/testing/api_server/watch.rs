//! Watches: what changes after a version, one JSON line each.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use super::Shared;
use super::resources::Resource;
use super::select::Selectors;
use super::store::{Entry, Refusal, key, refuse};

/// How often a quiet watch is told the newest version. Real servers: about a minute.
const BOOKMARKS: Duration = Duration::from_millis(250);

struct Watch {
    shared: Arc<Shared>,
    versions: Receiver<u64>,
    resource: Resource,
    selectors: Selectors,
    /// The last version that was told of.
    version: u64,
    bookmarks: bool,
    lines: VecDeque<Value>,
    /// The stream breaks off once the lines are told.
    breaks: bool,
    end: Instant,
}

pub(super) fn watch(
    shared: &Arc<Shared>,
    resource: &Resource,
    selectors: Selectors,
    query: &HashMap<String, String>,
) -> Result<Response, Refusal> {
    let is = |name: &str| query.get(name).is_some_and(|value| value == "true");
    let text = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let streams = is("sendInitialEvents");
    if streams && shared.faults().no_streaming {
        return Err(refuse(422, "Invalid", "sendInitialEvents: Forbidden: not supported"));
    }
    let seconds = text("timeoutSeconds").parse().unwrap_or(300);
    let mut watch = Watch {
        shared: Arc::clone(shared),
        versions: shared.versions(),
        resource: resource.clone(),
        selectors,
        version: text("resourceVersion").parse().unwrap_or_default(),
        bookmarks: is("allowWatchBookmarks"),
        lines: VecDeque::new(),
        breaks: false,
        end: Instant::now() + Duration::from_secs(seconds),
    };
    watch.begin(streams)?;
    let lines =
        stream::unfold(watch, async |mut watch| Some((Ok::<_, std::io::Error>(watch.line().await?), watch)));
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines))
        .into_response())
}

impl Watch {
    fn begin(&mut self, streams: bool) -> Result<(), Refusal> {
        let shared = Arc::clone(&self.shared);
        let store = shared.store();
        if streams || self.version == 0 {
            let all = store.all(&key(&self.resource)).filter(|object| self.selectors.select(object));
            self.lines = all.map(|object| json!({"type": "ADDED", "object": object})).collect();
            self.version = store.version();
        } else if self.version < store.oldest {
            let gone = refuse(410, "Expired", format!("too old resource version: {}", self.version));
            if shared.faults().gone_as_status {
                return Err(gone);
            }
            self.lines.push_back(json!({"type": "ERROR", "object": gone.status()}));
            self.breaks = true;
        }
        if streams {
            let mut faults = shared.faults();
            if faults.broken_lists > 0 {
                faults.broken_lists -= 1;
                self.lines.truncate(1);
                self.breaks = true;
                return Ok(());
            }
            self.lines.push_back(self.bookmark(true));
        }
        Ok(())
    }

    fn bookmark(&self, ends_initial_events: bool) -> Value {
        let mut metadata = json!({"resourceVersion": self.version.to_string()});
        if ends_initial_events {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let (kind, version) = (&self.resource.kind, self.resource.api_version());
        json!({"type": "BOOKMARK", "object": {"kind": kind, "apiVersion": version, "metadata": metadata}})
    }

    /// The next line; `None` at the end of the watch.
    async fn line(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(format!("{line}\n").into());
            }
            if self.breaks || Instant::now() >= self.end || !self.is_served() {
                return None;
            }
            self.versions.borrow_and_update();
            self.take_news();
            if !self.lines.is_empty() {
                continue;
            }
            let waited = tokio::time::timeout(BOOKMARKS, self.versions.changed()).await;
            match waited {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                Err(_quiet) if self.bookmarks => self.lines.push_back(self.bookmark(false)),
                Err(_quiet) => {}
            }
        }
    }

    /// Whether the server still has the resource: with its definition, its watches go.
    fn is_served(&self) -> bool {
        self.shared.store().resources.contains(&self.resource)
    }

    fn take_news(&mut self) {
        let shared = Arc::clone(&self.shared);
        let store = shared.store();
        if self.version < store.oldest {
            let gone = refuse(410, "Expired", "the watch is too slow");
            self.lines.push_back(json!({"type": "ERROR", "object": gone.status()}));
            self.breaks = true;
            return;
        }
        let key = key(&self.resource);
        let from = store.log.partition_point(|entry| entry.version <= self.version);
        let news = store.log[from..].iter().filter(|entry| entry.resource == key);
        self.lines.extend(news.filter_map(|entry| event(entry, &self.selectors)));
        self.version = store.version();
    }
}

/// What a change is to somebody who sees only what is selected.
fn event(entry: &Entry, selectors: &Selectors) -> Option<Value> {
    let seen = |object: &Option<Value>| object.as_ref().is_some_and(|object| selectors.select(object));
    let (kind, object) = match (seen(&entry.before), seen(&entry.after)) {
        (false, true) => ("ADDED", entry.after.clone()),
        (true, true) => ("MODIFIED", entry.after.clone()),
        (true, false) => ("DELETED", entry.before.clone()),
        (false, false) => return None,
    };
    let mut object = object?;
    object["metadata"]["resourceVersion"] = entry.version.to_string().into();
    Some(json!({"type": kind, "object": object}))
}
