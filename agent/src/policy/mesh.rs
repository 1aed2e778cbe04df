//! The mesh: which pods are in it, and what it can tell of a connection. Istio's labels and defaults are those of
//! its docs (sidecar injection, ambient workloads) and of its injection templates.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::dialect::Dialect;
use crate::model::edge::Protocol;
use crate::model::facts::Request;
use crate::model::identity::Identity;
use crate::model::labels::Labels;
use crate::model::verdict::{Fact, UnknownReason};

use super::condition::{Bearer, Condition};
use super::evaluate::{Evaluation, PeerKind};
use super::fault::Field;
use super::given::{Given, RequestMatch, TextMatch};
use super::tri::Tri;

/// Where ztunnels meet: the inner port is inside.
const TUNNEL_PORT: u16 = 15_008;
/// Ports of the sidecar's own that it does not capture: health, telemetry.
const UNCAPTURED: [u16; 3] = [15_020, 15_021, 15_090];

/// The injector writes it on every pod that it gives a sidecar.
const TLS_MODE: &str = "security.istio.io/tlsMode";
const INJECT: &str = "sidecar.istio.io/inject";
const INJECTION: &str = "istio-injection";
const REVISION: &str = "istio.io/rev";
const DATAPLANE: &str = "istio.io/dataplane-mode";
/// On the pods of a Gateway, and who made them.
const GATEWAY: &str = "gateway.networking.k8s.io/gateway-name";
const GATEWAY_CLASS: &str = "gateway.istio.io/managed";

/// Who holds the mesh's policies against connections to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Enforcer {
    /// Envoy in the pod, or a gateway.
    Sidecar,
    /// The node's ztunnel, in ambient mode.
    Ztunnel,
}

impl Enforcer {
    pub(crate) const BOTH: [Self; 2] = [Self::Sidecar, Self::Ztunnel];
}

/// Being in the mesh, under one of its enforcers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Member {
    pub(crate) by: Enforcer,
    /// Gateways are meant too.
    pub(crate) gateways: bool,
    /// Asks for it.
    pub(crate) field: Field,
    /// What the dialect says: whether there is an ambient mode, and whether pods without any label get a sidecar.
    pub(crate) ambient: Option<bool>,
    pub(crate) unlabelled: Option<bool>,
}

impl Member {
    pub(crate) const fn new(by: Enforcer, gateways: bool, field: Field) -> Self {
        Self { by, gateways, field, ambient: None, unlabelled: None }
    }

    pub(crate) fn holds(&self, bearer: Bearer<'_>) -> Tri {
        let sidecar = sidecar(bearer.namespace_labels, bearer.labels, self.unlabelled);
        let missing = || Tri::field(&Field::lacking(Arc::clone(self.field.path()), Fact::MeshMember));
        match (self.by, gateway(bearer.labels)) {
            (Enforcer::Sidecar, Some(Gateway::Edge)) => self.gateways.into(),
            // Policies that name it reach a waypoint, others do not.
            (_, Some(_)) => Tri::No,
            (Enforcer::Sidecar, None) => sidecar.map_or_else(missing, Tri::from),
            (Enforcer::Ztunnel, None) => {
                let ambient = self.ambient != Some(false) && captured(bearer.namespace_labels, bearer.labels);
                match sidecar {
                    _ if !ambient => Tri::No,
                    // A pod with a sidecar stays with it.
                    Some(sidecar) => (!sidecar).into(),
                    None => Tri::Yes,
                }
            }
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.by {
            Enforcer::Sidecar => "in the mesh by sidecar",
            Enforcer::Ztunnel => "in the mesh by ztunnel",
        })
    }
}

/// The condition as a dialect has it.
pub(crate) fn in_dialect(condition: &Condition, dialect: &Dialect) -> Condition {
    let each =
        |list: &[Condition]| list.iter().map(|condition| in_dialect(condition, dialect)).collect::<Vec<_>>();
    match condition {
        Condition::InMesh(member) => Condition::InMesh(Member {
            ambient: dialect.istio_ambient,
            unlabelled: dialect.istio_injects_unlabelled,
            ..member.clone()
        }),
        Condition::All(all) => Condition::All(each(all)),
        Condition::Any(any) => Condition::Any(each(any)),
        other => other.clone(),
    }
}

/// Whether it asks for the subject's own address.
pub(crate) fn sees_own_address(given: &Given) -> bool {
    match given {
        Given::All(parts) | Given::Any(parts) => parts.iter().any(sees_own_address),
        Given::Not(inner) => sees_own_address(inner),
        Given::Mesh(wanted) => matches!(wanted.what, MeshWhat::Destination(_)),
        _ => false,
    }
}

/// Istio's proxies that stand for themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gateway {
    /// At the mesh's edge: plain text comes to it by design.
    Edge,
    Waypoint,
}

fn gateway(labels: &Labels) -> Option<Gateway> {
    if labels.get(GATEWAY_CLASS) == Some("istio.io-mesh-controller") {
        return Some(Gateway::Waypoint);
    }
    let named = labels.get("istio").is_some_and(|name| {
        name.ends_with("gateway") || labels.get(INJECT).is_some_and(is_true) && name != "pilot"
    });
    let edge = named || labels.get(GATEWAY).is_some() || labels.get(GATEWAY_CLASS).is_some();
    (edge && labels.get(TLS_MODE).is_none()).then_some(Gateway::Edge)
}

fn is_true(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "true" | "y" | "yes" | "on")
}

/// Whether a pod has a sidecar, or would be given one; none where labels do not say.
fn sidecar(namespace: &Labels, pod: &Labels, unlabelled: Option<bool>) -> Option<bool> {
    if pod.get(TLS_MODE).is_some() {
        return Some(true);
    }
    let wanted = pod.get(INJECT).map(is_true);
    match (wanted, namespace.get(INJECTION)) {
        (Some(false), _) | (_, Some("disabled")) => Some(false),
        (Some(true), _) | (_, Some("enabled")) => Some(true),
        _ if pod.get(REVISION).is_some() || namespace.get(REVISION).is_some() => Some(true),
        _ => unlabelled,
    }
}

/// Whether a pod is in ambient mode, if it has no sidecar. Without a label it is not.
fn captured(namespace: &Labels, pod: &Labels) -> bool {
    match pod.get(DATAPLANE) {
        Some(mode) => mode == "ambient",
        None => namespace.get(DATAPLANE) == Some("ambient"),
    }
}

/// Whether a pod could open connections by mutual TLS of the mesh.
fn may_be_mutual(identity: &Identity, dialect: &Dialect) -> bool {
    let (namespace, labels) = (&identity.namespace_labels, &identity.labels);
    gateway(labels).is_some()
        || sidecar(namespace, labels, dialect.istio_injects_unlabelled) != Some(false)
        || dialect.istio_ambient != Some(false) && captured(namespace, labels)
}

/// What the mesh's policies ask of a connection, at one of its enforcers. The field asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct MeshMatch {
    pub(crate) by: Enforcer,
    pub(crate) what: MeshWhat,
    pub(crate) field: Field,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum MeshWhat {
    /// It is encrypted, and both ends are known.
    MutualTls,
    /// The initiator's principal; without mutual TLS there is none, nor a namespace or a service account.
    Principal(TextMatch),
    Namespace(TextMatch),
    ServiceAccount {
        namespace: Arc<str>,
        name: Arc<str>,
    },
    Port(u16),
    /// The address that it goes to.
    Destination(IpNet),
    /// The name that the initiator's TLS asks for.
    ServerName(TextMatch),
    IsHttp,
    Request(RequestMatch),
    /// Whoever opened it may speak for another, whom a header names.
    Forwarded,
}

/// The initiator, as far as it is known.
struct Initiator<'a> {
    /// `cluster.local/ns/shop/sa/web`, where it has shown itself.
    shown: Option<&'a str>,
    namespace: Option<&'a str>,
    account: Option<&'a str>,
}

impl<'a> Initiator<'a> {
    fn of_principal(principal: &'a str) -> Self {
        let shown = principal.strip_prefix("spiffe://").unwrap_or(principal);
        let parts = shown.split_once("/ns/").and_then(|(_, rest)| rest.split_once("/sa/"));
        let (namespace, account) = parts.unwrap_or(("", ""));
        Self { shown: Some(shown), namespace: Some(namespace), account: Some(account) }
    }
}

impl Evaluation<'_> {
    /// Whether the mesh has anything to do with the connection: it knows TCP alone.
    pub(super) fn in_mesh(&self) -> bool {
        let labels = (&self.subject.namespace_labels, &self.subject.labels);
        let uncaptured =
            UNCAPTURED.contains(&self.port) && sidecar(labels.0, labels.1, Some(false)) == Some(true);
        self.protocol == Protocol::Tcp && !uncaptured
    }

    /// Whether it is mutual TLS of the mesh, if that is known.
    pub(super) fn mutual_tls(&self, by: Enforcer) -> Option<bool> {
        let shown = self.given.principal.is_some().then_some(true);
        let tunnel = self.is_tunnel(by).then_some(true);
        let plain = match self.peer {
            PeerKind::Pod(identity) if !may_be_mutual(identity, self.dialect) => Some(false),
            _ => None,
        };
        self.assumed_mutual.or(self.given.mutual_tls).or(shown).or(tunnel).or(plain)
    }

    fn is_tunnel(&self, by: Enforcer) -> bool {
        by == Enforcer::Ztunnel && self.port == TUNNEL_PORT && self.protocol == Protocol::Tcp
    }

    /// Whether what the mesh asks of the connection holds.
    pub(crate) fn mesh(&self, wanted: &MeshMatch) -> Tri {
        let MeshMatch { by, what, field } = wanted;
        let missing = |fact| Tri::field(&Field::lacking(Arc::clone(field.path()), fact));
        let text = |known: &Option<Arc<str>>, wanted: &TextMatch, fact| match known {
            Some(text) => wanted.matches(text).into(),
            None => missing(fact),
        };
        match what {
            MeshWhat::MutualTls => match self.mutual_tls(*by) {
                Some(mutual) => mutual.into(),
                None => missing(Fact::MutualTls),
            },
            MeshWhat::Principal(_) | MeshWhat::Namespace(_) | MeshWhat::ServiceAccount { .. } => {
                let mutual = self.mutual_tls(*by);
                if mutual == Some(false) {
                    return Tri::No;
                }
                let shown = self.initiator(what, &missing);
                match mutual {
                    None => shown.and(|| missing(Fact::MutualTls)),
                    Some(_) => shown,
                }
            }
            MeshWhat::Port(port) => match self.given.inner_port {
                Some(inner) => (inner == *port).into(),
                None if self.is_tunnel(*by) => missing(Fact::InnerPort),
                None => (self.port == *port).into(),
            },
            MeshWhat::Destination(net) => match self.own_address {
                Some(address) => net.contains(&address).into(),
                None => Tri::reason(&UnknownReason::AddressMissing),
            },
            MeshWhat::ServerName(wanted) => text(&self.given.server_name, wanted, Fact::ServerName),
            MeshWhat::IsHttp => match self.given.request.as_deref() {
                Some(request) => matches!(request, Request::Http { .. }).into(),
                None => missing(Fact::Request),
            },
            MeshWhat::Request(wanted) => match self.given.request.as_deref() {
                Some(request) => wanted.matches(request).into(),
                None => missing(Fact::Request),
            },
            MeshWhat::Forwarded => match self.given.request.as_deref() {
                Some(Request::Http { headers, .. })
                    if headers.iter().any(|(name, _)| &**name == "x-forwarded-for") =>
                {
                    Tri::field(&Field::unsupported(Arc::clone(field.path())))
                }
                Some(_) => Tri::No,
                None => missing(Fact::Request),
            },
        }
    }

    /// Whether the initiator is the one that is meant, if it has shown itself.
    fn initiator(&self, what: &MeshWhat, missing: &impl Fn(Fact) -> Tri) -> Tri {
        let initiator = match (&self.given.principal, self.peer) {
            (Some(principal), _) => Initiator::of_principal(principal),
            (None, PeerKind::Pod(identity)) => Initiator {
                shown: None,
                namespace: Some(&identity.namespace),
                account: Some(&identity.service_account),
            },
            (None, PeerKind::Unknown(why)) => return Tri::reason(why),
            (None, _) => Initiator { shown: None, namespace: None, account: None },
        };
        let lacking = || missing(Fact::Principal);
        match (what, initiator) {
            (MeshWhat::Principal(wanted), Initiator { shown: Some(shown), .. }) => {
                wanted.matches(shown).into()
            }
            (MeshWhat::Principal(TextMatch::Present), _) => Tri::Yes,
            (
                MeshWhat::Principal(wanted),
                Initiator { namespace: Some(namespace), account: Some(account), .. },
            ) => match of_any_domain(wanted, &format!("ns/{namespace}/sa/{account}")) {
                Some(matches) => matches.into(),
                None => lacking(),
            },
            (MeshWhat::Namespace(wanted), Initiator { namespace: Some(namespace), .. }) => {
                wanted.matches(namespace).into()
            }
            (
                MeshWhat::ServiceAccount { namespace, name },
                Initiator { namespace: Some(known), account: Some(account), .. },
            ) => (&**namespace == known && &**name == account).into(),
            _ => lacking(),
        }
    }
}

/// Whether a principal is meant of which the trust domain is not known. Policies call the mesh's own
/// `cluster.local`, whatever it is.
fn of_any_domain(wanted: &TextMatch, rest: &str) -> Option<bool> {
    if wanted.matches(&format!("cluster.local/{rest}")) {
        return Some(true);
    }
    let may_match = match wanted {
        TextMatch::Exact(text) | TextMatch::Suffix(text) => text.ends_with(&format!("/{rest}")),
        TextMatch::Prefix(text) => text
            .split_once('/')
            .is_none_or(|(domain, after)| domain != "cluster.local" && rest.starts_with(after)),
        _ => false,
    };
    (!may_match).then_some(false)
}

impl fmt::Display for MeshMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            MeshWhat::MutualTls => f.write_str("mutual TLS"),
            MeshWhat::Principal(wanted) => write!(f, "principal {wanted}"),
            MeshWhat::Namespace(wanted) => write!(f, "mesh namespace {wanted}"),
            MeshWhat::ServiceAccount { namespace, name } => write!(f, "service account {namespace}/{name}"),
            MeshWhat::Port(port) => write!(f, "port {port}"),
            MeshWhat::Destination(net) => write!(f, "destination {net}"),
            MeshWhat::ServerName(wanted) => write!(f, "server name {wanted}"),
            MeshWhat::IsHttp => f.write_str("HTTP"),
            MeshWhat::Request(_) => f.write_str("requests"),
            MeshWhat::Forwarded => f.write_str("forwarded for another"),
        }
    }
}

impl fmt::Display for TextMatch {
    /// As policies write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present => f.write_str("*"),
            Self::Exact(text) | Self::Template(text) => f.write_str(text),
            Self::Prefix(text) => write!(f, "{text}*"),
            Self::Suffix(text) => write!(f, "*{text}"),
            Self::Regex(pattern) => f.write_str(pattern.text()),
            Self::Name(pattern) => write!(f, "{pattern}"),
        }
    }
}
