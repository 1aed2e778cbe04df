//! security.istio.io: AuthorizationPolicy and PeerAuthentication, v1 and v1beta1, read and checked as their
//! definitions and Istio's validation say (istio/api security/v1beta1; istio/istio pkg/config/validation).
//!
//! They hold at the responder: by its sidecar, or by its node's ztunnel, which sees no HTTP. Each object has a part
//! for either, since labels say under which a pod is.
//!
//! Every field is read. Not judged, where it could matter: `requestPrincipals`, `request.auth.*`,
//! `experimental.envoy.filters.*`, and what the provider of `CUSTOM` says. In part: `remoteIpBlocks` and `remote.ip`
//! (not where a proxy forwards for another), `mode: DISABLE` (as `PERMISSIVE`), `targetRefs` (at waypoints and
//! gateways nothing is judged), annotations of pods (labels alone say who is in the mesh).

mod attribute;
mod authorization;
mod lower;
mod peer_authentication;
mod types;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::types::WorkloadSelector;
use super::condition::Condition;
use super::fault::{Content, Fault, Faults, Field, UnknownFields};
use super::kinds::without_spec;
use super::mesh::{Enforcer, Member};
use super::network_policy::read_selector;
use super::resource::Resource;
use super::spec::{Action, Contents, Force, MeshStage, Part, Place, Policy, Scope, Section};
use crate::model::object::ObjectRef;
use crate::model::typed::{TypeFault, deciding, typed};

pub(super) use authorization::read as read_authorization;
pub(super) use peer_authentication::read as read_peer_authentication;

pub(super) const AUTHORIZATION: &str = "AuthorizationPolicy";
pub(super) const PEER_AUTHENTICATION: &str = "PeerAuthentication";

/// Whose policies hold for the whole mesh, unless the installation says otherwise.
const ROOT_NAMESPACE: &str = "istio-system";

/// What is found while one object is read.
struct Reader {
    kind: &'static str,
    metadata: ObjectMeta,
    namespace: Content<Arc<str>>,
    faults: Faults,
    notes: Vec<Fault>,
    unknown: UnknownFields,
}

impl Reader {
    /// Opens an object. One without a spec has an empty one, as Istio reads it.
    fn open<S: DeserializeOwned + Default>(
        value: &Value,
        unknown: &mut Vec<String>,
        kind: &'static str,
    ) -> Result<(S, Self), TypeFault> {
        let object = typed::<Resource<S>>(value, unknown)?;
        let paths = without_spec(object.spec.is_none(), kind, deciding(unknown))?;
        let mut faults = Faults::default();
        let unknown = UnknownFields::new(paths);
        unknown.report(kind, &mut faults);
        let metadata = object.metadata;
        if metadata.name.as_deref().unwrap_or_default().is_empty() {
            faults.add("metadata.name", "is required");
        }
        let namespace = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty());
        let namespace =
            namespace.map(Arc::from).ok_or_else(|| faults.add("metadata.namespace", "is required"));
        let reader = Self { kind, metadata, namespace, faults, notes: Vec::new(), unknown };
        Ok((object.spec.unwrap_or_default(), reader))
    }

    fn note(&mut self, field: &str, message: &str) {
        self.notes.push(Fault { field: field.to_owned(), message: message.to_owned() });
    }

    fn is_root(&self) -> bool {
        self.namespace.as_deref() == Ok(ROOT_NAMESPACE)
    }

    /// Whose pods may be subjects.
    fn scope(&self) -> Scope {
        scope_of(self.namespace.clone())
    }

    /// The pods that a selector means.
    fn selector(&mut self, selector: Option<&WorkloadSelector>) -> Condition {
        const PATH: &str = "spec.selector";
        if let Some(field) = self.unknown.take(PATH) {
            return Condition::Unknown(field);
        }
        let match_labels = selector.and_then(|selector| selector.match_labels.clone());
        let labels = LabelSelector { match_labels, ..LabelSelector::default() };
        Condition::pod_labels(read_selector(&labels, PATH, &mut self.faults))
    }

    /// The object, with what is left of unknown fields.
    fn policy(mut self, mut parts: Vec<Part>, force: Force) -> Policy {
        let doubt = self.unknown.take("spec").or_else(|| self.unknown.take(""));
        if let Some(field) = &doubt {
            parts.iter_mut().for_each(|part| part.doubt(field));
        }
        let name = self.metadata.name.as_deref().unwrap_or_default();
        let namespace = self.namespace.ok();
        Policy {
            reference: Arc::new(ObjectRef { kind: self.kind.into(), namespace, name: name.into() }),
            contents: Contents::Parts(parts),
            faults: self.faults.into_found(),
            notes: self.notes,
            force,
        }
    }
}

fn scope_of(namespace: Content<Arc<str>>) -> Scope {
    match namespace {
        Ok(root) if &*root == ROOT_NAMESPACE => Scope::Cluster,
        namespace => Scope::Namespace(namespace),
    }
}

/// A part for the pods of one enforcer.
fn part(
    (stage, by): (MeshStage, Enforcer),
    scope: Scope,
    selected: Condition,
    ingress: Section,
    field: &Field,
) -> Part {
    let gateways = !matches!(stage, MeshStage::PeerAuthentication { .. });
    let member = Condition::InMesh(Member::new(by, gateways, Field::clone(field)));
    let subject = Condition::All(vec![member, selected]);
    Part { place: Place::Mesh(stage), scope, subject, egress: Section::absent(), ingress }
}

/// What an AuthorizationPolicy may be of which nothing could be read.
pub(super) fn unreadable_authorization(scope: Scope, field: &Field) -> Contents {
    let stages = [(MeshStage::Deny, Action::Deny), (MeshStage::Allow, Action::Allow)];
    unreadable(scope, field, &stages)
}

/// The same of a PeerAuthentication.
pub(super) fn unreadable_peer_authentication(scope: Scope, field: &Field) -> Contents {
    unreadable(scope, field, &[(MeshStage::PeerAuthentication { rank: 0, created: 0 }, Action::Deny)])
}

fn unreadable(scope: Scope, field: &Field, stages: &[(MeshStage, Action)]) -> Contents {
    let scope = match scope {
        Scope::Namespace(namespace) => scope_of(namespace),
        Scope::Cluster => Scope::Cluster,
    };
    let mut parts = Vec::new();
    for (stage, action) in stages {
        let actions: &[Action] = match stage {
            // It may as well accept plain text where others do not.
            MeshStage::PeerAuthentication { .. } => &[Action::Deny, Action::Pass],
            _ => &[*action],
        };
        for by in Enforcer::BOTH {
            let mut ingress = Section::unknown(field, actions);
            for rule in ingress.rules.iter_mut().filter(|rule| rule.action == Action::Deny) {
                if let MeshStage::PeerAuthentication { .. } = stage {
                    // Whatever it says, mutual TLS is let in.
                    rule.given = peer_authentication::plain_text(by, field);
                }
            }
            let selected = Condition::Unknown(Field::clone(field));
            parts.push(part((*stage, by), scope.clone(), selected, ingress, field));
        }
    }
    Contents::Parts(parts)
}
