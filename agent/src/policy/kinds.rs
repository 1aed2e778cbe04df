//! The kinds of policy that are judged: what they are called, and how each is read.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::Value;

use crate::model::object::ObjectRef;
use crate::model::typed::{TypeFault, deciding, typed};

use super::admin;
use super::calico;
use super::cilium;
use super::fault::{Fault, Field};
use super::istio;
use super::network_policy;
use super::spec::{Action, Contents, Part, Place, Policy, Scope};

/// A kind of policy.
#[derive(Debug)]
pub struct PolicyKind {
    /// As manifests have it.
    pub kind: &'static str,
    /// As references show it: with its group where another kind is called so too.
    pub name: &'static str,
    /// The versions that are read.
    pub api_versions: &'static [&'static str],
    pub namespaced: bool,
    read: fn(&Value, &mut Vec<String>) -> Result<Policy, TypeFault>,
    /// What an object of it may be of which nothing could be read.
    unreadable: fn(Scope, &Field) -> Contents,
}

impl PolicyKind {
    /// networking.k8s.io NetworkPolicy.
    pub const NETWORK_POLICY: Self = Self {
        kind: network_policy::KIND,
        name: network_policy::KIND,
        api_versions: &["networking.k8s.io/v1"],
        namespaced: true,
        read: read_network_policy,
        unreadable: |scope, field| {
            Contents::Parts(vec![Part::unknown(Place::NetworkPolicy, scope, field, &[Action::Allow])])
        },
    };

    /// All of them.
    pub const ALL: &[Self] = &[
        Self::NETWORK_POLICY,
        Self {
            kind: "ClusterNetworkPolicy",
            name: "ClusterNetworkPolicy",
            api_versions: &["policy.networking.k8s.io/v1alpha2"],
            namespaced: false,
            read: admin::read_cluster,
            unreadable: |_, field| {
                // It may be in either tier.
                let parts = [Place::Admin { priority: 0 }, Place::Baseline { priority: 0 }];
                Contents::Parts(parts.map(|place| any_rules(place, field)).into())
            },
        },
        Self {
            kind: "AdminNetworkPolicy",
            name: "AdminNetworkPolicy",
            api_versions: &["policy.networking.k8s.io/v1alpha1"],
            namespaced: false,
            read: admin::read_admin,
            unreadable: |_, field| Contents::Parts(vec![any_rules(Place::Admin { priority: 0 }, field)]),
        },
        Self {
            kind: "BaselineAdminNetworkPolicy",
            name: "BaselineAdminNetworkPolicy",
            api_versions: &["policy.networking.k8s.io/v1alpha1"],
            namespaced: false,
            read: admin::read_baseline,
            unreadable: |_, field| Contents::Parts(vec![any_rules(Place::Baseline { priority: 0 }, field)]),
        },
        Self {
            name: calico::NETWORK_POLICY,
            ..of_calico("NetworkPolicy", true, calico::read_network, calico::unreadable)
        },
        of_calico("GlobalNetworkPolicy", false, calico::read_global, |_, field| {
            calico::unreadable(Scope::Cluster, field)
        }),
        of_calico("Tier", false, calico::read_tier, calico::unreadable_tier),
        of_calico("NetworkSet", true, calico::read_set, calico::unreadable_set),
        of_calico("GlobalNetworkSet", false, calico::read_global_set, calico::unreadable_set),
        of_calico("StagedNetworkPolicy", true, calico::read_staged_network, unreadable_staged),
        of_calico("StagedGlobalNetworkPolicy", false, calico::read_staged_global, unreadable_staged),
        of_calico("StagedKubernetesNetworkPolicy", true, calico::read_staged_kubernetes, unreadable_staged),
        Self {
            kind: istio::AUTHORIZATION,
            name: istio::AUTHORIZATION,
            api_versions: &["security.istio.io/v1", "security.istio.io/v1beta1"],
            namespaced: true,
            read: istio::read_authorization,
            unreadable: istio::unreadable_authorization,
        },
        Self {
            kind: istio::PEER_AUTHENTICATION,
            name: istio::PEER_AUTHENTICATION,
            api_versions: &["security.istio.io/v1", "security.istio.io/v1beta1"],
            namespaced: true,
            read: istio::read_peer_authentication,
            unreadable: istio::unreadable_peer_authentication,
        },
        Self {
            kind: cilium::NAMESPACED,
            name: cilium::NAMESPACED,
            api_versions: &["cilium.io/v2"],
            namespaced: true,
            read: cilium::read_namespaced,
            unreadable: cilium::unreadable_policy,
        },
        Self {
            kind: cilium::CLUSTERWIDE,
            name: cilium::CLUSTERWIDE,
            api_versions: &["cilium.io/v2"],
            namespaced: false,
            read: cilium::read_clusterwide,
            unreadable: |_, field| cilium::unreadable_policy(Scope::Cluster, field),
        },
        Self {
            kind: cilium::CIDR_GROUP,
            name: cilium::CIDR_GROUP,
            api_versions: &["cilium.io/v2", "cilium.io/v2alpha1"],
            namespaced: false,
            read: cilium::read_group,
            unreadable: |_, field| cilium::unreadable_group(field),
        },
    ];

    /// Reads an object of this kind. Fields that it does not have, of metadata and status, are left in `unknown`;
    /// the others are faults inside.
    ///
    /// # Errors
    /// If a field is of another type than the API's: the API server refuses the whole object.
    pub fn read(&self, value: &Value, unknown: &mut Vec<String>) -> Result<Policy, Fault> {
        let read = (self.read)(value, unknown);
        read.map_err(|TypeFault { field, message }| Fault { field, message })
    }
}

/// A kind of Calico's. Its other group is what its API server keeps them in; there, names have their tier's prefix.
const fn of_calico(
    kind: &'static str,
    namespaced: bool,
    read: fn(&Value, &mut Vec<String>) -> Result<Policy, TypeFault>,
    unreadable: fn(Scope, &Field) -> Contents,
) -> PolicyKind {
    let api_versions = &["projectcalico.org/v3", "crd.projectcalico.org/v1"];
    PolicyKind { kind, name: kind, api_versions, namespaced, read, unreadable }
}

/// What would be changed is not known; nothing is in force.
fn unreadable_staged(_: Scope, _: &Field) -> Contents {
    Contents::Staged(None)
}

/// What an object of a kind may be of which nothing could be read.
pub(super) fn unreadable(reference: &ObjectRef, field: &Field) -> Contents {
    let kind = PolicyKind::ALL.iter().find(|kind| *kind.name == *reference.kind);
    let scope = Scope::Namespace(reference.namespace.clone().ok_or_else(|| Field::clone(field)));
    match kind {
        Some(kind) => (kind.unreadable)(scope, field),
        None => Contents::Parts(vec![Part::unknown(Place::NetworkPolicy, scope, field, &[Action::Allow])]),
    }
}

/// A cluster-wide part with any rules for any pod.
fn any_rules(place: Place, field: &Field) -> Part {
    Part::unknown(place, Scope::Cluster, field, &[Action::Allow, Action::Deny, Action::Pass])
}

fn read_network_policy(value: &Value, unknown: &mut Vec<String>) -> Result<Policy, TypeFault> {
    let typed = typed::<NetworkPolicy>(value, unknown)?;
    let unknown = without_spec(typed.spec.is_none(), network_policy::KIND, deciding(unknown))?;
    // Unknown fields are faults: the API server refuses them under strict field validation, and dropping one
    // (`form` for `from`) would turn a rule for some into a rule for all.
    let fault = |field| Fault { field, message: "is not a field of NetworkPolicy".to_owned() };
    Ok(Policy::from_network_policy_with(&typed, unknown.into_iter().map(fault).collect()))
}

/// A field beside `spec` that is none: with no `spec`, it is likely the `spec`, misspelt.
pub(super) fn without_spec(
    missing: bool,
    kind: &str,
    unknown: Vec<String>,
) -> Result<Vec<String>, TypeFault> {
    match unknown.iter().find(|field| missing && !field.contains(['.', '['])) {
        Some(field) => Err(TypeFault {
            field: field.clone(),
            message: format!("is not a field of {kind}, and spec is missing"),
        }),
        None => Ok(unknown),
    }
}
