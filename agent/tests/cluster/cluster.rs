//! The cluster that tests run against: an API server in this process, or the one that `DRYFENCE_TEST_KUBECONFIG` names.
//!
//! Tests write what kubelets and controllers would: status of nodes and pods, EndpointSlices. Everything is in
//! namespaces of their own and on nodes of their own names, with addresses of a range for benchmarks (RFC 2544), so
//! that nothing of a real cluster is touched.

use std::fmt::Debug;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dryfence::cluster::kubernetes::ClusterArgs;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::api_server::{ADMIN, ApiServer};

/// How long a condition may take to come true: generous, because machines are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Counts the clusters of this process, so that their names and addresses differ.
static MADE: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Cluster {
    server: Option<ApiServer>,
    pub(crate) admin: Client,
    /// Begins every name.
    pub(crate) prefix: String,
    /// The second and third byte of every address.
    net: (u8, u8),
    /// Cluster-wide objects to delete at the end: resource and name.
    made: std::sync::Mutex<Vec<(ApiResource, String)>>,
    folder: tempfile::TempDir,
}

/// What a pod is made of.
#[derive(Debug, Clone, Default)]
pub(crate) struct PodSpec<'a> {
    pub(crate) name: &'a str,
    pub(crate) labels: &'a [(&'a str, &'a str)],
    pub(crate) addresses: &'a [&'a str],
    pub(crate) node: &'a str,
    pub(crate) host_network: bool,
    /// Kind and name of the controller.
    pub(crate) owner: Option<(&'a str, &'a str)>,
}

pub(crate) fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

/// Runs a test against a cluster, and cleans up after it, also where it panics.
pub(crate) fn in_cluster<F: Future<Output = ()>>(test: impl FnOnce(std::rc::Rc<Cluster>) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let cluster = std::rc::Rc::new(Cluster::new().await);
        let done = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(test(std::rc::Rc::clone(
            &cluster,
        ))))
        .await;
        cluster.clean_up().await;
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
}

impl Cluster {
    async fn new() -> Self {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let random = u32::try_from(time % 65_536).unwrap()
            ^ std::process::id().wrapping_mul(251)
            ^ number.wrapping_mul(7919);
        let [_, _, a, b] = random.to_be_bytes();
        let (server, config) = match std::env::var_os("DRYFENCE_TEST_KUBECONFIG") {
            None => {
                let server = ApiServer::start();
                let mut config = Config::new(server.url().parse().unwrap());
                config.auth_info.token = Some(ADMIN.into());
                (Some(server), config)
            }
            Some(path) => {
                let args = ClusterArgs { kubeconfig: Some(path.into()), ..ClusterArgs::default() };
                (None, args.kubeconfig().await.unwrap())
            }
        };
        Self {
            server,
            admin: Client::try_from(config).unwrap(),
            prefix: format!("dryfence-test-{a:02x}{b:02x}{number}"),
            net: (18 + (a & 1), b),
            made: std::sync::Mutex::default(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// The server in this process; `None`, said once, against a real cluster.
    pub(crate) const fn server(&self) -> Option<&ApiServer> {
        self.server.as_ref()
    }

    /// An address of this cluster's own range.
    pub(crate) fn ip(&self, last: u8) -> String {
        format!("198.{}.{}.{last}", self.net.0, self.net.1)
    }

    /// The same for IPv6 (RFC 5180).
    pub(crate) fn ip6(&self, last: u8) -> String {
        format!("2001:2:0:{:x}{:02x}::{last:x}", self.net.0, self.net.1)
    }

    /// A kubeconfig file of somebody with this token.
    pub(crate) fn kubeconfig(&self, token: &str) -> PathBuf {
        let path = self.folder.path().join(format!("kubeconfig-{token}"));
        let text = match &self.server {
            Some(server) => server.kubeconfig(token),
            None => {
                let real =
                    std::fs::read_to_string(std::env::var_os("DRYFENCE_TEST_KUBECONFIG").unwrap()).unwrap();
                let mut config: Value = serde_saphyr::from_str(&real).unwrap();
                for user in config["users"].as_array_mut().unwrap() {
                    user["user"] = json!({"token": token});
                }
                config.to_string()
            }
        };
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The client settings of the administrator, for an agent.
    pub(crate) async fn admin_config(&self) -> Config {
        let path = match &self.server {
            Some(_) => self.kubeconfig(ADMIN),
            None => std::env::var_os("DRYFENCE_TEST_KUBECONFIG").unwrap().into(),
        };
        ClusterArgs { kubeconfig: Some(path), ..ClusterArgs::default() }.kubeconfig().await.unwrap()
    }

    pub(crate) async fn create(
        &self,
        resource: &ApiResource,
        namespace: &str,
        object: Value,
    ) -> DynamicObject {
        let object: DynamicObject = serde_json::from_value(typed(resource, object)).unwrap();
        let api = self.api(resource, namespace);
        if namespace.is_empty() {
            let name = object.metadata.name.clone().unwrap();
            self.made.lock().unwrap().push((resource.clone(), name));
        }
        // A ServiceAccount that was just made may not be seen yet.
        patiently(async || api.create(&PostParams::default(), &object).await).await
    }

    pub(crate) fn api(&self, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
        match namespace {
            "" => Api::all_with(self.admin.clone(), resource),
            namespace => Api::namespaced_with(self.admin.clone(), namespace, resource),
        }
    }

    pub(crate) async fn patch(&self, resource: &ApiResource, namespace: &str, name: &str, patch: Value) {
        let api = self.api(resource, namespace);
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub(crate) async fn patch_status(
        &self,
        resource: &ApiResource,
        namespace: &str,
        name: &str,
        status: Value,
    ) {
        let api = self.api(resource, namespace);
        let patch = json!({"status": status});
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Deletes an object; a pod with the time to end that is given.
    pub(crate) async fn delete(&self, resource: &ApiResource, namespace: &str, name: &str, grace: u32) {
        let how = DeleteParams::default().grace_period(grace);
        self.api(resource, namespace).delete(name, &how).await.unwrap();
    }

    /// Makes a namespace with the ServiceAccount that pods need; returns its full name.
    pub(crate) async fn namespace(&self, name: &str, labels: &[(&str, &str)]) -> String {
        let name = format!("{}-{name}", self.prefix);
        let labels: serde_json::Map<String, Value> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        self.create(
            &resource("", "v1", "Namespace", "namespaces"),
            "",
            json!({"metadata": {"name": name, "labels": labels}}),
        )
        .await;
        let accounts = self.api(&resource("", "v1", "ServiceAccount", "serviceaccounts"), &name);
        let account: DynamicObject = serde_json::from_value(typed(
            &resource("", "v1", "ServiceAccount", "serviceaccounts"),
            json!({"metadata": {"name": "default", "namespace": name}}),
        ))
        .unwrap();
        // A controller may have been quicker.
        drop(accounts.create(&PostParams::default(), &account).await);
        name
    }

    /// A node that no kubelet serves; returns its full name.
    pub(crate) async fn node(&self, name: &str, address: &str, pod_cidr: Option<String>) -> String {
        let name = format!("{}-{name}", self.prefix);
        let nodes = resource("", "v1", "Node", "nodes");
        let cidrs = pod_cidr.map_or_else(|| json!({}), |cidr| json!({"podCIDR": cidr, "podCIDRs": [cidr]}));
        self.create(&nodes, "", json!({"metadata": {"name": name}, "spec": cidrs})).await;
        let status = json!({"addresses": [{"type": "InternalIP", "address": address}]});
        self.patch_status(&nodes, "", &name, status).await;
        name
    }

    /// A running pod.
    pub(crate) async fn pod(&self, namespace: &str, spec: &PodSpec<'_>) -> DynamicObject {
        let labels: serde_json::Map<String, Value> =
            spec.labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        let mut pod = json!({
            "metadata": {"name": spec.name, "labels": labels},
            "spec": {
                "automountServiceAccountToken": false, "hostNetwork": spec.host_network,
                "terminationGracePeriodSeconds": 30,
                "containers": [{"name": "main", "image": "registry.example/none"}],
            },
        });
        if !spec.node.is_empty() {
            pod["spec"]["nodeName"] = spec.node.into();
        }
        if let Some((kind, name)) = spec.owner {
            let version = if kind == "Job" { "batch/v1" } else { "apps/v1" };
            pod["metadata"]["ownerReferences"] = json!([{"apiVersion": version, "kind": kind, "name": name, "uid": "11111111-1111-1111-1111-111111111111", "controller": true}]);
        }
        let made = self.create(&pods(), namespace, pod).await;
        self.run(namespace, spec.name, spec.addresses).await;
        made
    }

    /// Gives a pod its addresses, as a kubelet does once it runs.
    pub(crate) async fn run(&self, namespace: &str, name: &str, addresses: &[&str]) {
        let Some(first) = addresses.first() else { return };
        let all: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        self.patch_status(
            &pods(),
            namespace,
            name,
            json!({"phase": "Running", "podIP": first, "podIPs": all}),
        )
        .await;
    }

    /// A NetworkPolicy.
    pub(crate) async fn policy(&self, namespace: &str, name: &str, spec: Value) {
        self.create(&policies(), namespace, json!({"metadata": {"name": name}, "spec": spec})).await;
    }

    /// Deletes everything that was made cluster-wide; namespaces take what is in them along.
    async fn clean_up(&self) {
        let made: Vec<(ApiResource, String)> = self.made.lock().unwrap().drain(..).collect();
        for (resource, name) in made.into_iter().rev() {
            if resource.kind == "Namespace" && self.server.is_none() {
                // Where no controller does, nobody else empties it.
                for inner in [pods(), policies(), resource_of_slices(), services()] {
                    let how = DeleteParams::default().grace_period(0);
                    drop(self.api(&inner, &name).delete_collection(&how, &Default::default()).await);
                }
            }
            drop(self.api(&resource, "").delete(&name, &DeleteParams::default()).await);
        }
    }
}

pub(crate) fn pods() -> ApiResource {
    resource("", "v1", "Pod", "pods")
}

pub(crate) fn policies() -> ApiResource {
    resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
}

pub(crate) fn services() -> ApiResource {
    resource("", "v1", "Service", "services")
}

pub(crate) fn resource_of_slices() -> ApiResource {
    resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
}

fn typed(resource: &ApiResource, mut object: Value) -> Value {
    object["apiVersion"] = resource.api_version.clone().into();
    object["kind"] = resource.kind.clone().into();
    object
}

/// Tries until it is done, or the time is over.
async fn patiently<T, E: Debug>(mut attempt: impl AsyncFnMut() -> Result<T, E>) -> T {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) if tokio::time::Instant::now() > end => panic!("{error:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
