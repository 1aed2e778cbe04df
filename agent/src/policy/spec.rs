//! A policy as it was read: selectors, blocks and ports parsed once, each with its faults.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::edge::{Direction, Protocol};
use crate::model::object::ObjectRef;
use crate::model::selector::Selector;

use super::fault::{Content, Fault, Field};

/// The field of a policy that was not read at all. No path looks like it.
pub(crate) const NOT_SYNCED: &str = "(not read)";

/// A policy, read once from the API's type, with what could not be read of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub(crate) reference: Arc<ObjectRef>,
    pub(crate) faults: Vec<Fault>,
    /// The namespace it lives in; unknown means that it could be in any.
    pub(crate) namespace: Content<Arc<str>>,
    /// Which pods of its namespace it selects.
    pub(crate) subject: Content<Selector>,
    pub(crate) egress: Section,
    pub(crate) ingress: Section,
}

impl Policy {
    /// Which object it was read from.
    pub const fn reference(&self) -> &Arc<ObjectRef> {
        &self.reference
    }

    /// What of it could not be read; empty where the API server would accept it as it is.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// A policy of which nothing could be read: it may select any pod of its namespace (of every namespace,
    /// where `reference` has none), in both directions, with any rules.
    pub fn unreadable(reference: ObjectRef, fault: Fault) -> Self {
        let field = Field::from(fault.field.as_str());
        let namespace = reference.namespace.clone().ok_or_else(|| Field::clone(&field));
        Self {
            reference: Arc::new(reference),
            faults: vec![fault],
            namespace,
            subject: Err(Field::clone(&field)),
            egress: Section::unknown(&field),
            ingress: Section::unknown(&field),
        }
    }

    /// What stands for all policies of a kind that were not read yet: it may select any pod and say anything.
    pub fn not_synced(kind: &str) -> Self {
        let reference = ObjectRef::cluster(kind, "(not read)");
        let message = "the policies of this kind were not read".to_owned();
        Self::unreadable(reference, Fault { field: NOT_SYNCED.to_owned(), message })
    }

    /// Whether it stands for policies that were not read.
    pub fn is_not_synced(&self) -> bool {
        self.faults.first().is_some_and(|fault| fault.field == NOT_SYNCED)
    }

    pub(crate) const fn section(&self, direction: Direction) -> &Section {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }

    pub(crate) const fn section_mut(&mut self, direction: Direction) -> &mut Section {
        match direction {
            Direction::Egress => &mut self.egress,
            Direction::Ingress => &mut self.ingress,
        }
    }
}

/// What a policy says about one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    /// Whether it says anything about the direction; for a NetworkPolicy that isolates the selected pods.
    pub(crate) applies: Content<bool>,
    pub(crate) rules: Vec<Rule>,
}

impl Section {
    pub(crate) fn unknown(field: &Field) -> Self {
        Self { applies: Err(Field::clone(field)), rules: vec![Rule::unknown(field)] }
    }
}

/// What a matching rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(not(test), expect(dead_code, reason = "NetworkPolicy only allows; ordered tiers deny and pass"))]
pub(crate) enum Action {
    Allow,
    Deny,
    /// Leaves the whole tier.
    Pass,
}

/// One rule: it matches where its peers and its ports do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) action: Action,
    pub(crate) peers: Peers,
    pub(crate) ports: Ports,
    /// A field beside peers and ports that is not understood: it may ask for more.
    pub(crate) also: Option<Field>,
}

impl Rule {
    /// A rule that may match anything.
    pub(crate) fn unknown(field: &Field) -> Self {
        Self {
            action: Action::Allow,
            peers: Peers::Unknown(Field::clone(field)),
            ports: Ports::Unknown(Field::clone(field)),
            also: None,
        }
    }
}

/// A rule's `from` or `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peers {
    Any,
    Of(Vec<Peer>),
    Unknown(Field),
}

/// One entry of `from` or `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    Pods { namespaces: Content<Namespaces>, pods: Content<Selector> },
    Block(IpBlock),
    Unknown(Field),
}

/// Which namespaces a peer's pods are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Namespaces {
    /// The policy's own.
    Own,
    Labelled(Selector),
}

/// An address block without its exceptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IpBlock {
    pub(crate) cidr: Content<IpNet>,
    pub(crate) except: Vec<IpNet>,
    /// An exception that could not be read.
    pub(crate) broken_except: Option<Field>,
}

/// Parses a CIDR as the API server does: bits behind the prefix are dropped. Leading zeros and IPv4 in IPv6
/// are refused, because API servers and engines read them differently.
pub(crate) fn parse_cidr(text: &str) -> Result<IpNet, String> {
    let refuse = || format!("\"{text}\" is not a CIDR such as 192.0.2.0/24 or 2001:db8::/32");
    let Some((address, length)) = text.split_once('/') else {
        return Err(format!("\"{text}\" has no prefix length such as /24"));
    };
    // Not ipnet's own parser, which reads 192.0.02.0/+8.
    let address: IpAddr = address.parse().ok().ok_or_else(refuse)?;
    let length: u8 = length.parse().ok().filter(|n: &u8| n.to_string() == length).ok_or_else(refuse)?;
    match address {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            Err(format!("\"{text}\" is an IPv4 block in IPv6 notation: write it as IPv4"))
        }
        _ => IpNet::new(address, length).map(|net| net.trunc()).ok().ok_or_else(refuse),
    }
}

/// A rule's `ports`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ports {
    /// Every port of every protocol, and what has no ports.
    Any,
    Of(Vec<PortMatch>),
    Unknown(Field),
}

/// One entry of `ports`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortMatch {
    pub(crate) protocol: Content<Protocol>,
    pub(crate) port: Content<PortSpec>,
}

/// Which ports of a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PortSpec {
    Any,
    Range {
        first: u16,
        last: u16,
    },
    /// From this port on, up to an end that could not be read.
    From {
        first: u16,
        end: Field,
    },
    /// As the responder's pod names its container ports.
    Named(Arc<str>),
}
