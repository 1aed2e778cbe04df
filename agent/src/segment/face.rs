//! Faces: the ends of an edge as segments see them. A Service has a face for each backend.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::edge::{Edge, Protocol};
use crate::model::endpoint::{Endpoint, Party, Pod};
use crate::model::verdict::UnknownReason;

use super::surroundings::Surroundings;

/// Which end of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    Initiator,
    Responder,
}

impl End {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initiator => "initiator",
            Self::Responder => "responder",
        }
    }
}

/// What is behind one end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind<'a> {
    Pod(&'a Arc<Pod>),
    /// A node, or a hostNetwork pod on it; `None` where its name is not known.
    Node(Option<&'a str>),
    External,
    /// The API server's Service, of which no backend is known.
    ApiServer,
}

/// One end of an edge, or one backend of the Service that it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Face<'a> {
    pub(crate) end: End,
    pub(crate) kind: Kind<'a>,
    /// The address on the wire, or all that the pod has; none where none is known.
    pub(crate) addresses: &'a [IpAddr],
    /// The range that stands for the address, where outside addresses were counted together.
    pub(crate) range: Option<IpNet>,
    /// The responder's port behind the Service, whichever end this is.
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    /// Reached as Service default/kubernetes, or on an address and port behind it.
    pub(crate) api_server: bool,
    /// Whether this is the node that the other end runs on; `None` where we cannot know.
    pub(crate) own_node: Option<bool>,
    /// The VLAN of the pod's interface; `None` where it was not seen, and for what is no pod.
    pub(crate) vlan: Option<u16>,
}

/// A face, or why there is none.
pub(crate) type Seen<'a> = Result<Face<'a>, UnknownReason>;

impl<'a> Face<'a> {
    /// The faces of one end: one, or one for each backend of a Service.
    pub(crate) fn all(end: End, edge: &'a Edge, around: &Surroundings) -> Vec<Seen<'a>> {
        let party = match end {
            End::Initiator => &edge.initiator,
            End::Responder => &edge.responder,
        };
        let Endpoint::Service(service) = &party.endpoint else {
            return vec![Self::of(end, edge, party, edge.port, around)];
        };
        let api_server = &*service.namespace == "default" && &*service.name == "kubernetes";
        if service.backends.is_empty() {
            let none = Self { kind: Kind::ApiServer, api_server, ..Self::bare(end, edge, party) };
            return vec![if api_server { Ok(none) } else { Err(UnknownReason::NoBackends) }];
        }
        let backends = service.backends.iter();
        let face = |backend: &'a crate::model::endpoint::Backend| {
            let face = Self::of(end, edge, &backend.party, backend.port, around)?;
            Ok(Self { api_server: api_server || face.api_server, ..face })
        };
        backends.map(face).collect()
    }

    fn bare(end: End, edge: &Edge, party: &'a Party) -> Self {
        Self {
            end,
            kind: Kind::External,
            addresses: party.address.as_slice(),
            range: party.as_range(),
            port: edge.port,
            protocol: edge.protocol,
            api_server: false,
            own_node: Some(false),
            vlan: None,
        }
    }

    fn of(end: End, edge: &'a Edge, party: &'a Party, port: u16, around: &Surroundings) -> Seen<'a> {
        // What a node or an outside address opens has a port we do not know: the address alone counts.
        let listens = (end == End::Responder).then_some(port);
        let api_server = party.address.is_some_and(|address| around.is_api_server(address, listens));
        let bare = Self { port, api_server, ..Self::bare(end, edge, party) };
        match &party.endpoint {
            Endpoint::Pod(pod) if pod.host_network => {
                Ok(Self { kind: Kind::Node(pod.node.as_deref()), ..bare })
            }
            Endpoint::Pod(pod) => {
                let addresses = if bare.addresses.is_empty() { &pod.addresses } else { bare.addresses };
                let vlan = if std::ptr::eq(party, edge.subject()) {
                    Some(edge.vlan)
                } else {
                    addresses.iter().find_map(|address| around.vlans.get(*address))
                };
                // A pod is never the API server by address alone: a test cluster may run it in one, but then
                // the Service says so.
                Ok(Self { kind: Kind::Pod(pod), addresses, vlan, api_server: false, ..bare })
            }
            Endpoint::Node(name) => Ok(Self { kind: Kind::Node(Some(name)), ..bare }),
            Endpoint::External | Endpoint::Range(_) => Ok(bare),
            Endpoint::Unknown(reason) => Err(reason.clone()),
            // A backend is never again a Service; if one is, nothing is known behind it.
            Endpoint::Service(_) => Err(UnknownReason::NoBackends),
        }
    }

    /// This face with what it is to `other`: whether it is the node that `other` runs on.
    pub(crate) fn towards(self, other: &Face<'_>) -> Self {
        let Kind::Node(own) = self.kind else { return self };
        let others = match other.kind {
            Kind::Pod(pod) => pod.node.as_deref(),
            Kind::Node(name) => name,
            Kind::External | Kind::ApiServer => return Self { own_node: Some(false), ..self },
        };
        let own_node = own.zip(others).map(|(own, others)| own == others);
        Self { own_node, ..self }
    }

    pub(crate) const fn pod(&self) -> Option<&'a Arc<Pod>> {
        match self.kind {
            Kind::Pod(pod) => Some(pod),
            Kind::Node(_) | Kind::External | Kind::ApiServer => None,
        }
    }

    /// Whether both are the same pod.
    pub(crate) fn is_same_pod(&self, other: &Face<'_>) -> bool {
        self.pod().zip(other.pod()).is_some_and(|(one, other)| {
            one.namespace == other.namespace && one.name == other.name && one.uid == other.uid
        })
    }
}
