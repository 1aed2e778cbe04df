//! What the user decides about suggestions.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::dialect::Dialect;
use crate::model::edge::Direction;

/// Where the connections to the cluster's DNS are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dns {
    /// One policy `allow-dns` for all pods of a namespace, where the namespace gets a default-deny for egress
    /// (without it, that policy would isolate pods that nothing else isolates: there, as `PerWorkload`).
    #[default]
    PerNamespace,
    /// A rule in the policy of every workload that was seen to ask.
    PerWorkload,
}

/// What to suggest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The namespaces that get policies; `None` is all of them.
    pub namespaces: Option<BTreeSet<Arc<str>>>,
    /// The namespaces that get none, whatever `namespaces` says; `kube-system` by default.
    pub exempt_namespaces: BTreeSet<Arc<str>>,
    /// Both by default.
    pub directions: BTreeSet<Direction>,
    pub dns: Dns,
    /// Whether to end with a default-deny in every namespace in scope where something was observed and nothing
    /// accepted would break. On by default.
    pub default_deny: bool,
    /// Namespaces that get a default-deny because the user asks for it: though nothing was observed there,
    /// though something would break, and though they are exempt.
    pub deny_also: BTreeSet<Arc<str>>,
    /// Whether TCP and SCTP edges count as accepted where only one direction of their packets could be seen and
    /// nothing refused them. On by default: leaving them out would break what may well work.
    pub unconfirmed: bool,
    /// What becomes of accepted connections whose other end could not be joined with the cluster. No rule can allow
    /// them. Off by default: the direction of the workload that would cut them off is left open. On: they are only
    /// warned of.
    pub cut_off_unknown: bool,
    /// The prefix lengths (IPv4, IPv6) by which the recorder keyed outside addresses, where it did: an address
    /// whose host bits are zero then stands for its whole prefix. `None`: every address is one host.
    pub folded: Option<(u8, u8)>,
    pub dialect: Dialect,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            namespaces: None,
            exempt_namespaces: BTreeSet::from(["kube-system".into()]),
            directions: BTreeSet::from(Direction::BOTH),
            dns: Dns::default(),
            default_deny: true,
            deny_also: BTreeSet::new(),
            unconfirmed: true,
            cut_off_unknown: false,
            folded: None,
            dialect: Dialect::STANDARD,
        }
    }
}

impl Options {
    /// Whether a namespace gets policies.
    pub fn in_scope(&self, namespace: &str) -> bool {
        let named = self.namespaces.as_ref().is_none_or(|names| names.contains(namespace));
        self.deny_also.contains(namespace) || (named && !self.exempt_namespaces.contains(namespace))
    }

    /// The block that a recorded outside address stands for.
    pub(super) fn external_block(&self, address: IpAddr) -> IpNet {
        let host = IpNet::from(address);
        let Some((v4, v6)) = self.folded else { return host };
        let length = if address.is_ipv4() { v4 } else { v6 };
        match IpNet::new(address, length) {
            Ok(block) if block.network() == address => block,
            _ => host,
        }
    }
}
