//! An API server in the test's own process: lists in pages, watches with bookmarks and streamed lists, versions that
//! expire, selectors, writes, discovery, RBAC, tokens, reviews, the pod proxy. What it does follows the API concepts
//! page of the Kubernetes documentation; faults are switched on by the test.
//!
//! It has a runtime of its own, so that killing it breaks every connection at once, as a killed process does.

#[path = "api_server/access.rs"]
mod access;
#[path = "api_server/proxy.rs"]
mod proxy;
#[path = "api_server/resources.rs"]
mod resources;
#[path = "api_server/route.rs"]
mod route;
#[path = "api_server/select.rs"]
mod select;
#[path = "api_server/store.rs"]
mod store;
#[path = "api_server/watch.rs"]
mod watch;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::watch::{Receiver, Sender, channel};

use self::store::Store;

/// The administrator's token.
pub(crate) const ADMIN: &str = "admin";

/// What goes wrong, as the test says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// Streamed lists are refused, as before Kubernetes 1.27.
    pub(crate) no_streaming: bool,
    /// An expired version is told by the status of the answer instead of an event.
    pub(crate) gone_as_status: bool,
    /// How many of the next requests for a list or a watch get this status.
    pub(crate) refuse: Option<(u16, usize)>,
    /// How long each list takes.
    pub(crate) slowness: std::time::Duration,
    /// How many streamed lists break off after their first object.
    pub(crate) broken_lists: usize,
}

pub(crate) struct Shared {
    store: Mutex<Store>,
    faults: Mutex<Faults>,
    /// The newest version.
    version: Sender<u64>,
    /// How many requests of each sort were answered: `list pods`, `watch pods`, `get jobs`.
    requests: Mutex<std::collections::BTreeMap<String, usize>>,
}

/// The server. Clones would share it; it ends when it is dropped.
pub(crate) struct ApiServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl ApiServer {
    pub(crate) fn start() -> Self {
        let (version, _) = channel(1);
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::new()),
            faults: Mutex::default(),
            version,
            requests: Mutex::default(),
        });
        let mut server = Self { shared, address: (Ipv4Addr::LOCALHOST, 0).into(), runtime: None };
        server.revive();
        server
    }

    /// Serves again, at the same address and with the same objects.
    pub(crate) fn revive(&mut self) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind(self.address).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.address = listener.local_addr().unwrap();
        let router = Router::new().fallback(route::answer).with_state(Arc::clone(&self.shared));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
        self.runtime = Some(runtime);
    }

    /// Breaks every connection, and refuses new ones.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        // The listener goes with its task, which may take a moment.
        while std::net::TcpStream::connect(self.address).is_ok() {
            std::thread::yield_now();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A kubeconfig of somebody with this token.
    pub(crate) fn kubeconfig(&self, token: &str) -> String {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url()}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        config.to_string()
    }

    pub(crate) fn fail(&self, faults: Faults) {
        *self.shared.faults.lock().unwrap() = faults;
    }

    /// Forgets every version up to now: who watches from one of them has to list again.
    pub(crate) fn compact(&self) {
        self.shared.store().compact();
    }

    /// A token of a ServiceAccount for an audience, whether or not the account is there.
    pub(crate) fn token(&self, namespace: &str, name: &str, audience: &str) -> String {
        let request = json!({"spec": {"audiences": [audience]}});
        let made = self.shared.store().tokens.request(namespace, name, &request);
        made["status"]["token"].as_str().unwrap().to_owned()
    }

    /// The token is none any more.
    pub(crate) fn expire(&self, token: &str) {
        self.shared.store().tokens.expire(token);
    }

    /// How many requests of this sort came so far.
    pub(crate) fn requests(&self, sort: &str) -> usize {
        self.shared.requests.lock().unwrap().get(sort).copied().unwrap_or_default()
    }

    /// Puts an object in as it is, whatever a real server would say to it.
    pub(crate) fn put_raw(&self, resource: &str, object: Value) {
        self.shared.store().put_raw(resource, object);
        self.shared.publish();
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap()
    }

    /// Tells watches that there is a new version.
    fn publish(&self) {
        let version = self.store().version();
        self.version.send_replace(version);
    }

    fn versions(&self) -> Receiver<u64> {
        self.version.subscribe()
    }

    fn count(&self, verb: &str, resource: &str) {
        *self.requests.lock().unwrap().entry(format!("{verb} {resource}")).or_default() += 1;
    }
}
