//! What a judge has to be told besides the edge: where the API server listens, and which pod is in which VLAN.

use std::net::{IpAddr, SocketAddr};

use rustc_hash::FxHashMap;

use crate::model::edge::Edge;

/// VLANs remembered; an entry takes some 40 bytes, so the table stays below 10 MB.
const VLANS: usize = 131_072;

/// What is known around the edges.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Where the API server listens: the addresses and ports behind Service default/kubernetes.
    pub api_server: Vec<SocketAddr>,
    /// Which VLAN each pod's interface is in.
    pub vlans: Vlans,
}

impl Surroundings {
    /// Whether the API server listens on the address; on that port, where one is asked for.
    pub(crate) fn is_api_server(&self, address: IpAddr, port: Option<u16>) -> bool {
        let address = address.to_canonical();
        self.api_server.iter().any(|listens| {
            listens.ip().to_canonical() == address && port.is_none_or(|port| listens.port() == port)
        })
    }
}

/// Which VLAN tag was seen at whose interface.
///
/// An edge carries the tag of the interface at which it was seen, so it tells the VLAN of its subject only. A
/// frame that was routed comes to the peer with another tag. The peer's VLAN is known once an edge was seen
/// at the peer's own interface.
#[derive(Debug, Clone, Default)]
pub struct Vlans {
    /// `None`: several tags were seen for the address, so none of them is its VLAN for sure.
    by_address: FxHashMap<IpAddr, Option<u16>>,
}

impl Vlans {
    /// Remembers the VLAN of the edge's subject.
    pub fn observe(&mut self, edge: &Edge) {
        let Some(address) = edge.subject().address else { return };
        self.set(address, edge.vlan);
    }

    /// Remembers that `address` was seen in `vlan`. Beyond 131,072 addresses nothing new is remembered: those
    /// ends stay unknown.
    pub fn set(&mut self, address: IpAddr, vlan: u16) {
        let address = address.to_canonical();
        if let Some(known) = self.by_address.get_mut(&address) {
            if *known != Some(vlan) {
                *known = None;
            }
        } else if self.by_address.len() < VLANS {
            self.by_address.insert(address, Some(vlan));
        }
    }

    /// Forgets an address: it has a new owner.
    pub fn forget(&mut self, address: IpAddr) {
        self.by_address.remove(&address.to_canonical());
    }

    /// The VLAN of the pod with this address, if one and only one was seen.
    pub fn get(&self, address: IpAddr) -> Option<u16> {
        self.by_address.get(&address.to_canonical()).copied().flatten()
    }
}
