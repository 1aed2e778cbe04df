//! Which kinds are watched.

use kube::core::ApiResource;

/// A kind that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    pub name: &'static str,
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
    Kind { name, group, version: "v1", plural, optional: false, decides: false }
}

const fn custom(
    name: &'static str,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
) -> Kind {
    Kind { name, group, version, plural, optional: true, decides: false }
}

impl Kind {
    /// The same, as a kind of policy.
    const fn deciding(self) -> Self {
        Self { decides: true, ..self }
    }
}

/// Every kind that is watched, in the order in which it is asked for: what others rest on comes first. The owners
/// of pods are not among them: see [`owners`](super::owners).
pub const WATCHED: [Kind; 10] = [
    built_in("Namespace", "", "namespaces"),
    built_in("Node", "", "nodes"),
    built_in("Service", "", "services"),
    built_in("EndpointSlice", "discovery.k8s.io", "endpointslices"),
    built_in("NetworkPolicy", "networking.k8s.io", "networkpolicies").deciding(),
    built_in("Pod", "", "pods"),
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
            kind: self.name.to_owned(),
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
            let (object, _) = decode_api(&kind.api_version(), kind.name, object);
            let object = object.unwrap_or_else(|| panic!("{} is not read", kind.name));
            assert_eq!(&*object.reference().kind, kind.name);
        }
    }
}
