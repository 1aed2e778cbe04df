//! A large cluster as its API server would tell it: JSON of every object, from fixed seeds.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

pub(crate) const PODS: usize = 150_000;
pub(crate) const NAMESPACES: usize = 10_000;
pub(crate) const NODES: usize = 1_000;
pub(crate) const SERVICES: usize = 20_000;
pub(crate) const POLICIES: usize = 10_000;
/// The most endpoints that the controller puts into one slice (kube-controller-manager,
/// `--max-endpoints-per-slice`).
const ENDPOINTS_A_SLICE: usize = 100;
const TEAMS: [&str; 7] = ["payments", "search", "platform", "checkout", "identity", "data", "mobile"];

/// splitmix64: the same numbers on every machine.
#[derive(Debug, Clone, Copy)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn word(&mut self, letters: usize) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..letters).map(|_| char::from(LETTERS[self.below(LETTERS.len())])).collect()
    }

    fn uid(&mut self) -> String {
        let (a, b) = (self.next(), self.next());
        format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            a >> 32,
            a & 0xffff,
            b >> 52,
            (a >> 16) & 0xfff,
            b & 0xffff_ffff_ffff
        )
    }
}

/// What makes pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    Deployment,
    StatefulSet,
    /// Jobs of a CronJob, each of one pod.
    Jobs,
}

#[derive(Debug)]
struct Workload {
    namespace: usize,
    name: String,
    made: Made,
    hash: String,
    team: &'static str,
    pods: std::ops::Range<usize>,
}

/// One pod, of which only what differs between its workload's pods is kept.
#[derive(Debug, Clone)]
pub(crate) struct PodPlan {
    workload: usize,
    name: String,
    uid: String,
    node: usize,
    /// Added to the version label.
    revision: usize,
}

/// The plan of the whole cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    workloads: Vec<Workload>,
    pods: Vec<PodPlan>,
}

fn namespace_name(number: usize) -> String {
    format!("{}-{number}", TEAMS[number % TEAMS.len()])
}

fn address(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a40_0000 + number as u32))
}

impl Cluster {
    /// Workloads of 1 to 29 pods, some namespaces with many and some with few of them.
    pub(crate) fn new() -> Self {
        let mut random = Random(7);
        let (mut workloads, mut pods) = (Vec::new(), Vec::new());
        while pods.len() < PODS {
            let number = workloads.len();
            let size = (1 + random.below(29)).min(PODS - pods.len());
            let made = match random.below(10) {
                0..7 => Made::Deployment,
                7..9 => Made::StatefulSet,
                _ => Made::Jobs,
            };
            // Every namespace has one first; the others crowd in the first ones.
            let crowded = random.below(NAMESPACES) * random.below(NAMESPACES) / NAMESPACES;
            let workload = Workload {
                namespace: if number < NAMESPACES { number } else { crowded },
                name: format!(
                    "{}-{}",
                    ["web", "api", "worker", "cache", "ledger"][number % 5],
                    random.word(5)
                ),
                made,
                hash: random.word(10),
                team: TEAMS[random.below(TEAMS.len())],
                pods: pods.len()..pods.len() + size,
            };
            for at in 0..size {
                let name = match made {
                    Made::Deployment => format!("{}-{}-{}", workload.name, workload.hash, random.word(5)),
                    Made::StatefulSet => format!("{}-{at}", workload.name),
                    Made::Jobs => format!("{}-{}-{}", workload.name, 29_000_000 + at, random.word(5)),
                };
                let node = random.below(NODES);
                pods.push(PodPlan { workload: number, name, uid: random.uid(), node, revision: 0 });
            }
            workloads.push(workload);
        }
        Self { workloads, pods }
    }

    pub(crate) fn namespace(&self, number: usize, revision: usize) -> String {
        let name = namespace_name(number);
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "uid": format!("ns-{number}"), "resourceVersion": "1",
                "labels": {"kubernetes.io/metadata.name": name, "team": TEAMS[number % TEAMS.len()],
                           "stage": format!("stage-{}", (number + revision) % 3)}},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
        })
        .to_string()
    }

    pub(crate) fn node(&self, number: usize) -> String {
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": format!("node-{number}"), "uid": format!("node-{number}"),
                "labels": {"kubernetes.io/hostname": format!("node-{number}"), "kubernetes.io/os": "linux"}},
            "spec": {"podCIDR": format!("10.{}.{}.0/24", 128 + number / 256, number % 256)},
            "status": {"addresses": [
                {"type": "InternalIP", "address": Ipv4Addr::from(0xc0a8_0000 + 1 + number as u32).to_string()},
                {"type": "Hostname", "address": format!("node-{number}")}]},
        })
        .to_string()
    }

    /// The workload behind a Service: each has one first, the rest are second ones.
    fn behind(&self, service: usize) -> &Workload {
        &self.workloads[service % self.workloads.len()]
    }

    pub(crate) fn service(&self, number: usize) -> String {
        let workload = self.behind(number);
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": format!("{}-{number}", workload.name), "uid": format!("service-{number}"),
                "namespace": namespace_name(workload.namespace), "labels": {"app": workload.name}},
            "spec": {"type": "ClusterIP", "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
                "clusterIP": Ipv4Addr::from(0xac10_0000 + number as u32).to_string(),
                "clusterIPs": [Ipv4Addr::from(0xac10_0000 + number as u32).to_string()],
                "selector": {"app.kubernetes.io/name": workload.name},
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},
                          {"name": "metrics", "port": 9090, "targetPort": 9090, "protocol": "TCP"}]},
            "status": {"loadBalancer": {}},
        })
        .to_string()
    }

    pub(crate) fn slice(&self, number: usize) -> String {
        let workload = self.behind(number);
        let namespace = namespace_name(workload.namespace);
        let endpoints: Vec<Value> = workload
            .pods
            .clone()
            .take(ENDPOINTS_A_SLICE)
            .map(|at| {
                let pod = &self.pods[at];
                json!({
                    "addresses": [address(at)], "nodeName": format!("node-{}", pod.node), "zone": "zone-a",
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                    "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod.name, "uid": pod.uid},
                })
            })
            .collect();
        let service = format!("{}-{number}", workload.name);
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("{service}-7kx2p"), "namespace": namespace,
                "labels": {"kubernetes.io/service-name": service,
                           "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"},
                      {"name": "metrics", "port": 9090, "protocol": "TCP"}],
            "endpoints": endpoints,
        })
        .to_string()
    }

    pub(crate) fn policy(&self, number: usize) -> String {
        let workload = &self.workloads[number % self.workloads.len()];
        let other = &self.workloads[(number * 31 + 7) % self.workloads.len()];
        let net = number % 200;
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": format!("allow-{}", workload.name), "namespace": namespace_name(workload.namespace)},
            "spec": {
                "podSelector": {"matchLabels": {"app.kubernetes.io/name": workload.name}},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [
                    {"from": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": other.name}}},
                              {"namespaceSelector": {"matchLabels": {"team": other.team}}}],
                     "ports": [{"port": "http", "protocol": "TCP"}]}],
                "egress": [
                    {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                             "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
                     "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
                    {"to": [{"ipBlock": {"cidr": format!("10.{net}.0.0/16"), "except": [format!("10.{net}.0.0/24")]}}]}],
            },
        })
        .to_string()
    }

    /// The pod as it is; `revision` is another value of one of its labels, `ready` a change of its status alone.
    pub(crate) fn pod(&self, number: usize, revision: usize, ready: bool) -> String {
        let plan = &self.pods[number];
        let workload = &self.workloads[plan.workload];
        let namespace = namespace_name(workload.namespace);
        let (owner, own_labels) = owner(workload, plan);
        let mut labels = json!({
            "app.kubernetes.io/name": workload.name, "app.kubernetes.io/instance": workload.name,
            "app.kubernetes.io/version": format!("1.{}.{}", plan.workload % 40, plan.revision + revision),
            "team": workload.team,
        });
        for (key, value) in own_labels {
            labels[key] = value.into();
        }
        let address = address(number);
        let ready = if ready { "True" } else { "False" };
        let label_fields: serde_json::Map<String, Value> = labels
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| (format!("f:{key}"), json!({})))
            .collect();
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": plan.name, "generateName": format!("{}-", workload.name), "namespace": namespace,
                "uid": plan.uid, "resourceVersion": "184467440", "creationTimestamp": "2026-11-02T08:15:30Z",
                "labels": labels,
                "annotations": {"prometheus.io/scrape": "true", "checksum/config": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
                "ownerReferences": [owner],
                "managedFields": [
                    {"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
                     "time": "2026-11-02T08:15:30Z", "fieldsType": "FieldsV1", "fieldsV1": {
                        "f:metadata": {"f:labels": label_fields, "f:ownerReferences": {".": {}}},
                        "f:spec": {"f:containers": {"k:{\"name\":\"main\"}": {".": {}, "f:env": {".": {}}, "f:image": {}, "f:imagePullPolicy": {},
                            "f:name": {}, "f:ports": {".": {}}, "f:resources": {".": {}, "f:limits": {}, "f:requests": {}}, "f:volumeMounts": {".": {}}}},
                            "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:serviceAccountName": {}, "f:volumes": {".": {}}}}},
                    {"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "subresource": "status",
                     "time": "2026-11-02T08:15:40Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:status": {"f:conditions": {
                        "k:{\"type\":\"ContainersReady\"}": {".": {}, "f:lastTransitionTime": {}, "f:status": {}, "f:type": {}},
                        "k:{\"type\":\"Initialized\"}": {".": {}, "f:lastTransitionTime": {}, "f:status": {}, "f:type": {}},
                        "k:{\"type\":\"Ready\"}": {".": {}, "f:lastTransitionTime": {}, "f:status": {}, "f:type": {}}},
                        "f:containerStatuses": {}, "f:hostIP": {}, "f:phase": {}, "f:podIP": {}, "f:podIPs": {".": {}}, "f:startTime": {}}}},
                ],
            },
            "spec": {
                "nodeName": format!("node-{}", plan.node), "serviceAccountName": workload.name, "serviceAccount": workload.name,
                "restartPolicy": if workload.made == Made::Jobs { "Never" } else { "Always" },
                "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler", "priority": 0,
                "terminationGracePeriodSeconds": 30, "enableServiceLinks": true, "securityContext": {"runAsNonRoot": true},
                "containers": [{
                    "name": "main", "image": format!("registry.example.com/{}/{}:1.4.2", workload.team, workload.name),
                    "imagePullPolicy": "IfNotPresent",
                    "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "db", "key": "url"}}},
                            {"name": "POD_IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}],
                    "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}, {"name": "metrics", "containerPort": 9090, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "256Mi"}},
                    "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"}, "periodSeconds": 10, "timeoutSeconds": 1},
                    "readinessProbe": {"httpGet": {"path": "/ready", "port": "http", "scheme": "HTTP"}, "periodSeconds": 10, "timeoutSeconds": 1},
                    "volumeMounts": [{"name": "config", "mountPath": "/etc/app"}, {"name": "kube-api-access-x7k2p", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}],
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
                "tolerations": [{"effect": "NoExecute", "key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 300},
                                {"effect": "NoExecute", "key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 300}],
                "volumes": [{"name": "config", "configMap": {"name": "app", "defaultMode": 420}},
                    {"name": "kube-api-access-x7k2p", "projected": {"defaultMode": 420, "sources": [
                        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}]}}],
            },
            "status": {
                "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "qosClass": "Burstable",
                "hostIP": "192.168.0.1", "hostIPs": [{"ip": "192.168.0.1"}], "startTime": "2026-11-02T08:15:31Z",
                "conditions": [
                    {"type": "Initialized", "status": "True", "lastTransitionTime": "2026-11-02T08:15:31Z", "lastProbeTime": null},
                    {"type": "Ready", "status": ready, "lastTransitionTime": "2026-11-02T08:15:40Z", "lastProbeTime": null},
                    {"type": "ContainersReady", "status": ready, "lastTransitionTime": "2026-11-02T08:15:40Z", "lastProbeTime": null},
                    {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-02T08:15:30Z", "lastProbeTime": null}],
                "containerStatuses": [{"name": "main", "ready": true, "started": true, "restartCount": 0,
                    "image": format!("registry.example.com/{}/{}:1.4.2", workload.team, workload.name),
                    "imageID": "registry.example.com/app@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "containerID": "containerd://2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
                    "state": {"running": {"startedAt": "2026-11-02T08:15:35Z"}}, "lastState": {}}],
            },
        })
        .to_string()
    }

    pub(crate) fn pod_place(&self, number: usize) -> (String, String) {
        let plan = &self.pods[number];
        (namespace_name(self.workloads[plan.workload].namespace), plan.name.clone())
    }
}

/// The pod's controller, and the labels that it adds.
fn owner(workload: &Workload, plan: &PodPlan) -> (Value, Vec<(&'static str, String)>) {
    let reference = |kind: &str, version: &str, name: &str| {
        json!({"apiVersion": version, "kind": kind, "name": name, "uid": format!("uid-of-{name}"),
               "controller": true, "blockOwnerDeletion": true})
    };
    let ordinal = || plan.name.rsplit('-').next().unwrap_or_default().to_owned();
    match workload.made {
        Made::Deployment => {
            let set = format!("{}-{}", workload.name, workload.hash);
            (reference("ReplicaSet", "apps/v1", &set), vec![("pod-template-hash", workload.hash.clone())])
        }
        Made::StatefulSet => {
            let labels = vec![
                ("controller-revision-hash", format!("{}-{}", workload.name, workload.hash)),
                ("statefulset.kubernetes.io/pod-name", plan.name.clone()),
                ("apps.kubernetes.io/pod-index", ordinal()),
            ];
            (reference("StatefulSet", "apps/v1", &workload.name), labels)
        }
        Made::Jobs => {
            let job = plan.name.rsplit_once('-').map_or_else(|| plan.name.clone(), |(job, _)| job.to_owned());
            let labels = vec![
                ("batch.kubernetes.io/controller-uid", plan.uid.clone()),
                ("batch.kubernetes.io/job-name", job.clone()),
                ("controller-uid", plan.uid.clone()),
                ("job-name", job.clone()),
            ];
            (reference("Job", "batch/v1", &job), labels)
        }
    }
}
