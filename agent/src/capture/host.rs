//! The addresses of the host's network namespace: what is sent to them, the host takes itself.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::watch;

use super::error::Error;

/// Interfaces on which kube-proxy in IPVS mode and kube-router bind every Service's address: the host
/// translates what is sent there instead of taking it. Sources: kubernetes, `pkg/proxy/ipvs/proxier.go`
/// (`defaultDummyDevice`); kube-router, `pkg/controllers/proxy/network_services_controller.go`
/// (`KubeDummyIf`).
const SERVICE_INTERFACES: [&str; 2] = ["kube-ipvs0", "kube-dummy-if"];

/// How often the addresses are listed again although nothing was missed.
const RELIST: Duration = Duration::from_secs(30);

/// The addresses of a namespace, bridges, tunnels and dummies among their bearers. IPv6 link-local ones are left out:
/// every pod's interface brings one, and nothing is known by them.
pub type Addresses = BTreeSet<IpAddr>;

/// Follows the addresses of the network namespace that it is called in, until nobody holds the receiver any more.
/// Must be called within a tokio runtime; the first list is in the receiver.
///
/// # Errors
/// Where netlink cannot be used or the first list fails.
pub async fn follow() -> Result<watch::Receiver<Addresses>, Error> {
    // Changes first, then the list: nothing happens unseen in between.
    let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (follower, _, mut messages) = rtnetlink::new_multicast_connection(&groups).map_err(Error::Netlink)?;
    let (asker, handle, _) = rtnetlink::new_connection().map_err(Error::Netlink)?;
    let connections = [tokio::spawn(follower), tokio::spawn(asker)];
    let mut held = list(&handle).await.map_err(|error| Error::List(Box::new(error)))?;
    let (sender, receiver) = watch::channel(addresses(&held));
    tokio::spawn(async move {
        let mut relist = tokio::time::interval(RELIST);
        relist.tick().await;
        loop {
            tokio::select! {
                () = sender.closed() => break,
                Some((message, _)) = messages.next() => match message.payload {
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message)) => {
                        held.extend(Held::of(&message));
                    }
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(message)) => {
                        held.retain(|held| Some((held.interface, held.address)) != bearer(&message));
                    }
                    NetlinkPayload::Overrun(_) => relist.reset_immediately(),
                    _ => continue,
                },
                _ = relist.tick() => match list(&handle).await {
                    Ok(listed) => held = listed,
                    Err(error) => tracing::warn!(%error, "the host's addresses cannot be listed; trying again"),
                },
            }
            sender.send_if_modified(|known| {
                let now = addresses(&held);
                let changed = *known != now;
                *known = now;
                changed
            });
        }
        connections.iter().for_each(tokio::task::JoinHandle::abort);
    });
    Ok(receiver)
}

/// An address on an interface. Several interfaces may bear one address: the host side of every pod's veth has the
/// gateway's with some CNIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Held {
    interface: u32,
    address: IpAddr,
}

impl Held {
    fn of(message: &AddressMessage) -> Option<Self> {
        let (interface, address) = bearer(message)?;
        let name = nix::net::if_::if_indextoname(interface).ok();
        let is_for_services = name
            .is_some_and(|name| SERVICE_INTERFACES.iter().any(|known| name.as_bytes() == known.as_bytes()));
        (!is_for_services).then_some(Self { interface, address })
    }
}

/// The interface and its own address: on a point-to-point link `IFA_ADDRESS` is the other end's.
fn bearer(message: &AddressMessage) -> Option<(u32, IpAddr)> {
    let (mut own, mut any) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => own = Some(*address),
            AddressAttribute::Address(address) => any = Some(*address),
            _ => {}
        }
    }
    let address = own.or(any)?;
    let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    (!is_link_local).then_some((message.header.index, address))
}

fn addresses(held: &HashSet<Held>) -> Addresses {
    held.iter().map(|held| held.address).collect()
}

async fn list(handle: &Handle) -> Result<HashSet<Held>, rtnetlink::Error> {
    let messages: Vec<_> = handle.address().get().execute().try_collect().await?;
    Ok(messages.iter().filter_map(Held::of).collect())
}
