//! What the demo needs of its own manifests: which pods there are, where they are, on which ports they listen.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// A pod of the manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    /// Its top owner's name.
    pub workload: String,
    pub addresses: Vec<IpAddr>,
    /// Container ports: `(protocol, port)`.
    pub ports: Vec<(String, u16)>,
}

impl Pod {
    /// Its address of one family.
    pub fn address(&self, ipv6: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv6() == ipv6)
    }
}

/// The demo's cluster, as far as the network and the processes need it.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// In the order of their names, so that every run is the same.
    pub pods: Vec<Pod>,
    /// DNS name and ClusterIP of every Service.
    pub records: Vec<(String, Ipv4Addr)>,
    /// The node's name and addresses.
    pub node: String,
    pub node_addresses: Vec<IpAddr>,
}

impl Cluster {
    /// Where the manifests are in the source tree.
    pub fn manifests() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/manifests")
    }

    /// A change to the manifests' policies, to be previewed on what the demo recorded.
    pub fn candidate() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/candidate.yaml")
    }

    /// Reads the manifests of a folder.
    ///
    /// # Errors
    /// Where a file cannot be read, or a pod lacks what the demo needs.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut files = fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>())
            .with_context(|| format!("cannot read folder {}", folder.display()))?;
        files.sort();
        let mut objects = Vec::new();
        for file in files {
            let text =
                fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let documents: Vec<Manifest> =
                serde_saphyr::from_multiple(&text).with_context(|| format!("{}", file.display()))?;
            objects.extend(documents);
        }
        Self::from_objects(&objects)
    }

    fn from_objects(objects: &[Manifest]) -> Result<Self> {
        let replica_sets: BTreeMap<(&str, &str), &str> = objects
            .iter()
            .filter(|object| object.kind == "ReplicaSet")
            .filter_map(|object| {
                Some((object.key(), object.metadata.owner_references.first()?.name.as_str()))
            })
            .collect();
        let mut cluster = Self::default();
        for object in objects {
            match object.kind.as_str() {
                "Pod" => cluster.pods.push(object.pod(&replica_sets)?),
                "Service" => {
                    let name =
                        format!("{}.{}.svc.cluster.local", object.metadata.name, object.metadata.namespace);
                    cluster.records.extend(object.spec.cluster_ip.map(|address| (name, address)));
                }
                "Node" => {
                    cluster.node.clone_from(&object.metadata.name);
                    cluster.node_addresses = object
                        .status
                        .addresses
                        .iter()
                        .filter_map(|entry| entry.address.parse().ok())
                        .collect();
                }
                _ => {}
            }
        }
        cluster.pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        if cluster.node_addresses.is_empty() {
            bail!("the demo's manifests have no node with an address");
        }
        Ok(cluster)
    }

    /// The only pod of a workload.
    pub fn pod(&self, namespace: &str, workload: &str) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.namespace == namespace && pod.workload == workload)
    }

    /// The node's address of one family.
    pub fn node_address(&self, ipv6: bool) -> Option<IpAddr> {
        self.node_addresses.iter().copied().find(|address| address.is_ipv6() == ipv6)
    }
}

/// The fields of any manifest that the demo looks at.
#[derive(Debug, Deserialize)]
struct Manifest {
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    namespace: String,
    name: String,
    #[serde(default)]
    owner_references: Vec<Owner>,
}

#[derive(Debug, Deserialize)]
struct Owner {
    kind: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
struct Spec {
    #[serde(default)]
    containers: Vec<Container>,
    #[serde(default, rename = "clusterIP")]
    cluster_ip: Option<Ipv4Addr>,
}

#[derive(Debug, Deserialize)]
struct Container {
    #[serde(default)]
    ports: Vec<ContainerPort>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    container_port: u16,
    protocol: String,
}

#[derive(Debug, Default, Deserialize)]
struct Status {
    #[serde(default, rename = "podIPs")]
    pod_ips: Vec<PodIp>,
    #[serde(default)]
    addresses: Vec<NodeAddress>,
}

#[derive(Debug, Deserialize)]
struct PodIp {
    ip: IpAddr,
}

#[derive(Debug, Deserialize)]
struct NodeAddress {
    address: String,
}

impl Manifest {
    fn key(&self) -> (&str, &str) {
        (&self.metadata.namespace, &self.metadata.name)
    }

    fn pod(&self, replica_sets: &BTreeMap<(&str, &str), &str>) -> Result<Pod> {
        let Metadata { namespace, name, owner_references } = &self.metadata;
        let owner =
            owner_references.first().with_context(|| format!("pod {namespace}/{name} has no owner"))?;
        let workload = match owner.kind.as_str() {
            "ReplicaSet" => *replica_sets
                .get(&(namespace.as_str(), owner.name.as_str()))
                .with_context(|| format!("pod {namespace}/{name}: no ReplicaSet {}", owner.name))?,
            _ => &owner.name,
        };
        let ports = self.spec.containers.iter().flat_map(|container| &container.ports);
        Ok(Pod {
            namespace: namespace.clone(),
            name: name.clone(),
            workload: workload.to_owned(),
            addresses: self.status.pod_ips.iter().map(|entry| entry.ip).collect(),
            ports: ports.map(|port| (port.protocol.clone(), port.container_port)).collect(),
        })
    }
}
