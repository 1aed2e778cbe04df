//! Which kinds are watched.

use kube::core::ApiResource;

/// A kind that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// As references show it: with its group where another kind is called so too.
    pub name: &'static str,
    /// As the API has it.
    pub kind: &'static str,
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    /// As it stands in the API's paths.
    pub plural: &'static str,
    /// Only where the server has it: a custom resource, whose definition may come and go.
    pub optional: bool,
    /// Its objects decide about connections: while they are not read, any verdict may be another one.
    pub decides: bool,
}

const fn built_in(name: &'static str, group: &'static str, plural: &'static str) -> Kind {
    Kind { name, kind: name, group, version: "v1", plural, optional: false, decides: false }
}

const fn custom(
    name: &'static str,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
) -> Kind {
    Kind { name, kind: name, group, version, plural, optional: true, decides: false }
}

/// A kind of Calico's, in the group in which its policies are kept; the other is a view of them.
const fn calico(name: &'static str, plural: &'static str) -> Kind {
    custom(name, "crd.projectcalico.org", "v1", plural).deciding()
}

const fn istio(name: &'static str, plural: &'static str) -> Kind {
    custom(name, "security.istio.io", "v1", plural).deciding()
}

const fn cilium(name: &'static str, plural: &'static str) -> Kind {
    custom(name, "cilium.io", "v2", plural).deciding()
}

const fn admin(name: &'static str, version: &'static str, plural: &'static str) -> Kind {
    custom(name, "policy.networking.k8s.io", version, plural).deciding()
}

impl Kind {
    /// The same, as a kind of policy.
    const fn deciding(self) -> Self {
        Self { decides: true, ..self }
    }
}

/// Every kind that is watched, in the order in which it is asked for: what others rest on comes first. The owners
/// of pods are not among them: see `owners`.
pub const WATCHED: [Kind; 26] = [
    built_in("Namespace", "", "namespaces"),
    built_in("Node", "", "nodes"),
    built_in("Service", "", "services"),
    built_in("EndpointSlice", "discovery.k8s.io", "endpointslices"),
    built_in("NetworkPolicy", "networking.k8s.io", "networkpolicies").deciding(),
    built_in("Pod", "", "pods"),
    admin("ClusterNetworkPolicy", "v1alpha2", "clusternetworkpolicies"),
    admin("AdminNetworkPolicy", "v1alpha1", "adminnetworkpolicies"),
    admin("BaselineAdminNetworkPolicy", "v1alpha1", "baselineadminnetworkpolicies"),
    cilium("CiliumNetworkPolicy", "ciliumnetworkpolicies"),
    cilium("CiliumClusterwideNetworkPolicy", "ciliumclusterwidenetworkpolicies"),
    cilium("CiliumCIDRGroup", "ciliumcidrgroups"),
    calico("Tier", "tiers"),
    Kind { kind: "NetworkPolicy", ..calico("NetworkPolicy.projectcalico.org", "networkpolicies") },
    calico("GlobalNetworkPolicy", "globalnetworkpolicies"),
    calico("NetworkSet", "networksets"),
    calico("GlobalNetworkSet", "globalnetworksets"),
    calico("StagedNetworkPolicy", "stagednetworkpolicies"),
    calico("StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies"),
    calico("StagedKubernetesNetworkPolicy", "stagedkubernetesnetworkpolicies"),
    istio("AuthorizationPolicy", "authorizationpolicies"),
    istio("PeerAuthentication", "peerauthentications"),
    custom("SegmentMap", "dryfence.io", "v1alpha1", "segmentmaps"),
    custom("EdgeException", "dryfence.io", "v1alpha1", "edgeexceptions"),
    custom("PolicyCandidate", "dryfence.io", "v1alpha1", "policycandidates"),
    custom("ClusterPolicyCandidate", "dryfence.io", "v1alpha1", "clusterpolicycandidates"),
];

impl Kind {
    /// `v1`, `networking.k8s.io/v1`
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    pub(super) fn resource(&self) -> ApiResource {
        ApiResource {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            api_version: self.api_version(),
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::manifests::decode_api;

    #[test]
    fn every_kind_that_is_watched_is_one_that_is_read() {
        for kind in WATCHED {
            let object = serde_json::json!({"metadata": {"name": "a", "namespace": "b"}});
            let (object, _) = decode_api(&kind.api_version(), kind.kind, object);
            let object = object.unwrap_or_else(|| panic!("{} is not read", kind.name));
            assert_eq!(&*object.reference().kind, kind.name);
        }
    }
}
