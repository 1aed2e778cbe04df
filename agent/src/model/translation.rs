//! Connections that the node's NAT sends elsewhere.

use std::net::{IpAddr, SocketAddr};

use super::edge::Protocol;

/// A connection whose destination the node translated (DNAT), as connection tracking knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Translation {
    pub protocol: Protocol,
    /// Who opened it.
    pub client: IpAddr,
    /// What the client asked for: a Service's address and port.
    pub asked: SocketAddr,
    /// Where the node sent it.
    pub backend: SocketAddr,
    /// From whom it comes as the backend sees it: the client, or an address of the node where its source was
    /// translated too (SNAT).
    pub seen_as: IpAddr,
}

impl Translation {
    /// Whether the backend sees another initiator than the one who opened the connection.
    pub fn hides_client(&self) -> bool {
        self.client != self.seen_as
    }
}

/// What connection tracking told since it was last asked.
#[derive(Debug, Default)]
pub struct Told {
    /// Connections opened since.
    pub opened: Vec<Translation>,
    /// Connections that there are, when those had to be listed.
    pub standing: Vec<Translation>,
    /// The kernel had more to tell than was taken in time: some of `opened` are missing.
    pub missed: bool,
}
