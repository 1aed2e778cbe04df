//! Which interfaces are pods', and which addresses are routed to them, as rtnetlink says it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use futures::TryStreamExt as _;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoNetkit, LinkAttribute, LinkInfo, LinkMessage, NetkitPolicy,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};

/// An interface as a link message describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Its `ARPHRD_*` number.
    pub(super) device_type: u16,
    /// This namespace's id of the namespace in which its other end is; `None` where it has none or is here.
    pub(super) netns_id: Option<i32>,
}

/// What an interface is, as far as it can lead to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Veth,
    /// The primary device of a netkit pair, from which both ends are governed.
    Netkit {
        /// What the other end sends is dropped while no program says otherwise.
        peer_is_blackhole: bool,
    },
    Other,
}

impl Link {
    /// `None` for messages that are about something else: a bridge tells of its ports by link messages of its
    /// own family, and "deleted" there only means that the port left the bridge.
    pub(super) fn from_message(message: &LinkMessage) -> Option<Self> {
        if message.header.interface_family != AddressFamily::Unspec {
            return None;
        }
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            kind: Kind::Other,
            device_type: message.header.link_layer_type.into(),
            netns_id: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::LinkInfo(infos) => link.kind = Kind::of(infos),
                // Only there when the peer is in another namespace (rtnl_fill_link_netnsid).
                LinkAttribute::LinkNetNsId(id) => link.netns_id = Some(*id),
                _ => {}
            }
        }
        Some(link)
    }

    /// Whether its packets begin with an Ethernet header; else they begin with IP's.
    pub(super) const fn has_link_layer(&self) -> bool {
        self.device_type != libc::ARPHRD_NONE
    }

    /// The namespace to which it leads, if it is the host side of a device whose other end is elsewhere.
    pub(super) const fn leads_to(&self) -> Option<i32> {
        if matches!(self.kind, Kind::Other) { None } else { self.netns_id }
    }
}

impl Kind {
    fn of(infos: &[LinkInfo]) -> Self {
        let mut kind = Self::Other;
        let (mut is_primary, mut peer_is_blackhole) = (false, false);
        for info in infos {
            match info {
                LinkInfo::Kind(InfoKind::Veth) => kind = Self::Veth,
                LinkInfo::Kind(InfoKind::Netkit) => kind = Self::Netkit { peer_is_blackhole: false },
                LinkInfo::Data(InfoData::Netkit(data)) => {
                    is_primary = data.contains(&InfoNetkit::Primary(true));
                    peer_is_blackhole = data.contains(&InfoNetkit::PeerPolicy(NetkitPolicy::Drop));
                }
                _ => {}
            }
        }
        match kind {
            Self::Netkit { .. } if is_primary => Self::Netkit { peer_is_blackhole },
            Self::Netkit { .. } => Self::Other,
            kind => kind,
        }
    }
}

/// A route that says something about an interface: it leads to one address, or everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Route {
    /// A multipath route has several.
    pub(super) interfaces: Vec<u32>,
    pub(super) to: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// A /32 or /128.
    Host(IpAddr),
    /// The default route of a family, in a table, with a priority.
    Default { ipv6: bool, table: u32, priority: u32 },
}

impl Route {
    /// `None` for routes that say nothing about pods: subnets, multicast, the host's own addresses.
    pub(super) fn from_message(message: &RouteMessage) -> Option<Self> {
        if message.header.kind != RouteType::Unicast {
            return None;
        }
        let mut interfaces = Vec::new();
        let mut destination = None;
        let (mut table, mut priority) = (u32::from(message.header.table), 0);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => interfaces.push(*index),
                RouteAttribute::MultiPath(hops) => {
                    interfaces.extend(hops.iter().map(|hop| hop.interface_index));
                }
                RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                    destination = Some(IpAddr::V4(*address));
                }
                RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                    destination = Some(IpAddr::V6(*address));
                }
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Priority(number) => priority = *number,
                _ => {}
            }
        }
        let ipv6 = message.header.address_family == AddressFamily::Inet6;
        // The kernel's own IPv6 routes lead to the interface's own addresses, its IPv4 ones to a peer's.
        if ipv6 && message.header.protocol == RouteProtocol::Kernel {
            return None;
        }
        let to = match (message.header.destination_prefix_length, destination) {
            (0, _) => Target::Default { ipv6, table, priority },
            (32, Some(address)) if !ipv6 => Target::Host(address),
            (128, Some(address)) if ipv6 => Target::Host(address),
            _ => return None,
        };
        Some(Self { interfaces, to })
    }
}

/// What the routing tables say about interfaces.
#[derive(Debug, Default)]
pub(super) struct Routes {
    hosts: HashMap<u32, BTreeSet<IpAddr>>,
    defaults: HashSet<(u32, Target)>,
}

impl Routes {
    /// The interfaces of which something changed.
    pub(super) fn add(&mut self, route: &Route) -> Vec<u32> {
        let mut changed = Vec::new();
        for index in &route.interfaces {
            let new = match route.to {
                Target::Host(address) => self.hosts.entry(*index).or_default().insert(address),
                Target::Default { .. } => self.defaults.insert((*index, route.to)),
            };
            if new {
                changed.push(*index);
            }
        }
        changed
    }

    /// The interfaces of which something changed.
    pub(super) fn remove(&mut self, route: &Route) -> Vec<u32> {
        let mut changed = Vec::new();
        for index in &route.interfaces {
            let gone = match route.to {
                Target::Host(address) => {
                    self.hosts.get_mut(index).is_some_and(|hosts| hosts.remove(&address))
                }
                Target::Default { .. } => self.defaults.remove(&(*index, route.to)),
            };
            if gone {
                changed.push(*index);
            }
        }
        changed
    }

    /// The kernel drops the routes of an interface without a word when the interface goes.
    pub(super) fn forget(&mut self, interface: u32) {
        self.hosts.remove(&interface);
        self.defaults.retain(|(index, _)| *index != interface);
    }

    /// Addresses of which a host route points at the interface.
    pub(super) fn routed(&self, interface: u32) -> Vec<IpAddr> {
        self.hosts.get(&interface).map(|hosts| hosts.iter().copied().collect()).unwrap_or_default()
    }

    /// Whether a default route leaves through the interface: then it is the node's way out, not a pod's way in.
    pub(super) fn carries_default(&self, interface: u32) -> bool {
        self.defaults.iter().any(|(index, _)| *index == interface)
    }
}

/// An address by which an interface is in a subnet: the node's own, for a pod's interface has at most the
/// gateway's address alone (/32 or /128), or one that only holds on the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) interface: u32,
    address: IpAddr,
}

impl Address {
    /// `None` for any other address.
    pub(super) fn from_message(message: &AddressMessage) -> Option<Self> {
        let ipv6 = message.header.family == AddressFamily::Inet6;
        let whole = if ipv6 { 128 } else { 32 };
        if message.header.scope != AddressScope::Universe || message.header.prefix_len >= whole {
            return None;
        }
        let (mut local, mut address, mut is_permanent) = (None, None, false);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => address = Some(*ip),
                AddressAttribute::Flags(flags) => is_permanent = flags.contains(AddressFlags::Permanent),
                _ => {}
            }
        }
        // Others may come from what the pod itself advertises.
        if ipv6 && !is_permanent {
            return None;
        }
        Some(Self { interface: message.header.index, address: local.or(address)? })
    }
}

/// Which interfaces are in a subnet.
#[derive(Debug, Default)]
pub(super) struct Addresses(HashMap<u32, BTreeSet<IpAddr>>);

impl Addresses {
    /// The interface, if it is news.
    pub(super) fn add(&mut self, address: &Address) -> Option<u32> {
        let new = self.0.entry(address.interface).or_default().insert(address.address);
        new.then_some(address.interface)
    }

    /// The interface, if it is news.
    pub(super) fn remove(&mut self, address: &Address) -> Option<u32> {
        let known = self.0.get_mut(&address.interface)?.remove(&address.address);
        known.then_some(address.interface)
    }

    pub(super) fn forget(&mut self, interface: u32) {
        self.0.remove(&interface);
    }

    fn is_in_subnet(&self, interface: u32) -> bool {
        self.0.get(&interface).is_some_and(|addresses| !addresses.is_empty())
    }
}

/// Whether an interface is the node's own: the default route leaves through it, or it is in a subnet and no host
/// route leads through it. That is how a node looks that is itself a container.
pub(super) fn is_nodes_own(interface: u32, routes: &Routes, addresses: &Addresses) -> bool {
    routes.carries_default(interface)
        || (addresses.is_in_subnet(interface) && routes.routed(interface).is_empty())
}

/// Every address of the namespace that says something about interfaces.
pub(super) async fn list_addresses(handle: &Handle) -> Result<Addresses, rtnetlink::Error> {
    let messages: Vec<_> = handle.address().get().execute().try_collect().await?;
    let mut addresses = Addresses::default();
    for address in messages.iter().filter_map(Address::from_message) {
        addresses.add(&address);
    }
    Ok(addresses)
}

/// Every interface of the namespace.
pub(super) async fn list_links(handle: &Handle) -> Result<Vec<Link>, rtnetlink::Error> {
    let messages: Vec<_> = handle.link().get().execute().try_collect().await?;
    Ok(messages.iter().filter_map(Link::from_message).collect())
}

/// Every route of the namespace, of all tables.
pub(super) async fn list_routes(handle: &Handle) -> Result<Routes, rtnetlink::Error> {
    let mut routes = Routes::default();
    let requests = [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ];
    for request in requests {
        let messages: Vec<_> = handle.route().get(request).execute().try_collect().await?;
        for route in messages.iter().filter_map(Route::from_message) {
            routes.add(&route);
        }
    }
    Ok(routes)
}
