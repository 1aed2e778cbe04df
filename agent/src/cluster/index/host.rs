//! The host that we run on: every address in its network namespace is its node's.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::Index;
use super::addresses::{Claim, Claimant, Owner, Rank};
use crate::model::endpoint::{Endpoint, Party};
use crate::model::time::Timestamp;
use crate::model::verdict::UnknownReason;

/// Where NodeLocal DNSCache listens on every node by default (kubernetes/cluster/addons/dns/nodelocaldns).
const NODE_LOCAL_DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10));

/// Whether every node has this address for itself, as far as nothing else is known of it.
pub(super) fn is_node_local(address: IpAddr) -> bool {
    address == NODE_LOCAL_DNS
}

impl Index {
    /// The addresses of the host's network namespace are now exactly these. They win over every object's: a
    /// ClusterIP that the host has is taken by the host before any translation (NodeLocal DNSCache).
    pub fn set_host_addresses(&mut self, addresses: &BTreeSet<IpAddr>, at: Timestamp) {
        for gone in self.host.difference(addresses) {
            self.addresses.release(*gone, &Claimant::Host, at);
        }
        for new in addresses.difference(&self.host) {
            let claim = Claim { claimant: Claimant::Host, rank: Rank::Host, since: None, owner: Owner::Host };
            self.addresses.claim(*new, claim, at);
        }
        if self.host != *addresses {
            self.host.clone_from(addresses);
            self.topology_generation += 1;
        }
    }

    /// Whether a party is the node that we run on.
    pub fn is_own_node(&self, party: &Party) -> bool {
        let Endpoint::Node(name) = &party.endpoint else { return false };
        party.address.is_some_and(|address| self.host.contains(&address))
            || self.own_node.as_ref().is_some_and(|own| own == name)
    }

    /// The name of the node we run on, if it is known.
    pub fn own_node(&self) -> Option<&Arc<str>> {
        self.own_node.as_ref()
    }

    /// An address of our own host: its node, by the name that we were told, that a Node object with this address
    /// has, or that is the only one.
    pub(super) fn host_party(&self, address: IpAddr) -> Party {
        let named = self.addresses.claims(address).iter().find_map(|claim| match &claim.owner {
            Owner::Node(name) => Some(name),
            _ => None,
        });
        let mut names = self.nodes.keys().chain(self.by_node.keys());
        let first = names.next();
        let only = first.filter(|first| names.all(|name| name == *first));
        match self.own_node.as_ref().or(named).or(only) {
            Some(node) => Party { address: Some(address), endpoint: Endpoint::Node(Arc::clone(node)) },
            None => Party::unknown(Some(address), UnknownReason::AddressUnjoined),
        }
    }
}
