//! The demo's network: a node, its pods, and what is outside, each a network namespace.
//!
//! A pod is wired as Calico wires it: a veth whose host side lies in the node's namespace, a route of one address
//! to it there, and in the pod a default route through a gateway that is no address of anybody. Neighbours are set
//! by hand, so neither ARP, proxy ARP nor neighbour discovery has to work. The node reaches the outside through an
//! uplink that carries its default route.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use anyhow::{Context, Result};
use futures::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::cluster::{Cluster, Pod};
use super::namespace::Namespace;

/// The hosts outside the cluster.
pub const OUTSIDE_HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));
pub const OUTSIDE_HOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10));
/// Where clouds serve instance credentials.
pub const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
/// An address to which packets vanish.
pub const SILENT: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 99));

/// The outside's address on the uplink, by family.
const UPSTREAM: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(172, 18, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x172, 0x18, 0, 0, 0, 0, 1))];
/// The pods' gateways, as Calico has them: addresses of nobody.
const GATEWAY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee)),
];

/// Settings that every namespace needs before it has interfaces. There is nobody to collide with, so an address
/// is used at once; and nobody advertises routes.
const QUIET: [(&str, &str); 6] = [
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
];
/// A node forwards, and does not mind by which interface a source is reached.
const FORWARDING: [(&str, &str); 3] =
    [("ipv4/ip_forward", "1"), ("ipv4/conf/all/rp_filter", "0"), ("ipv4/conf/default/rp_filter", "0")];
const FORWARDING_V6: [(&str, &str); 2] =
    [("ipv6/conf/all/forwarding", "1"), ("ipv6/conf/default/forwarding", "1")];

type Mac = [u8; 6];

/// Everything that was made, held: dropped, it is gone.
#[derive(Debug)]
pub struct Network {
    pub node: Namespace,
    pub outside: Namespace,
    /// In the order of the cluster's pods.
    pub pods: Vec<Namespace>,
    ipv6: bool,
}

impl Network {
    /// Makes all namespaces and wires them.
    ///
    /// # Errors
    /// Where the kernel refuses a namespace, a veth, a route or a setting.
    pub fn create(cluster: &Cluster) -> Result<Self> {
        let ipv6 = kernel_has_ipv6();
        let node = Namespace::create("node")?;
        let outside = Namespace::create("outside")?;
        let names = cluster.pods.iter().map(|pod| format!("{}.{}", pod.namespace, pod.workload));
        let pods = names.map(|name| Namespace::create(&name)).collect::<Result<_>>()?;
        let network = Self { node, outside, pods, ipv6 };
        for namespace in network.namespaces() {
            if ipv6 {
                namespace.set_sysctls(&QUIET)?;
            }
            raise_loopback(namespace)?;
        }
        network.node.set_sysctls(&FORWARDING)?;
        if ipv6 {
            network.node.set_sysctls(&FORWARDING_V6)?;
        }
        network.wire_outside(cluster)?;
        for (at, (pod, namespace)) in cluster.pods.iter().zip(&network.pods).enumerate() {
            network
                .wire_pod(u8::try_from(at).context("the demo has too many pods")?, pod, namespace)
                .with_context(|| format!("cannot wire pod {}/{}", pod.namespace, pod.name))?;
        }
        Ok(network)
    }

    /// Whether the network also speaks IPv6.
    pub fn ipv6(&self) -> bool {
        self.ipv6
    }

    /// Gives every namespace a name under `/run/netns`.
    ///
    /// # Errors
    /// Where one cannot be mounted there.
    pub fn keep(&self) -> Result<Vec<PathBuf>> {
        self.namespaces().map(Namespace::keep).collect()
    }

    fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        [&self.node, &self.outside].into_iter().chain(&self.pods)
    }

    fn wanted(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        addresses.iter().copied().filter(|address| self.ipv6 || address.is_ipv4()).collect()
    }

    /// The uplink, with the node's addresses on one end and the outside on the other.
    fn wire_outside(&self, cluster: &Cluster) -> Result<()> {
        let (near, far) = ([2, 0xdf, 0, 0xff, 0, 1], [2, 0xdf, 0, 0xff, 0, 2]);
        let node_addresses = self.wanted(&cluster.node_addresses);
        let upstream = self.wanted(&UPSTREAM);
        netlink(&self.node, async |handle| {
            let uplink = add_veth(&handle, ("eth0", near), ("node0", far), &self.outside).await?;
            for address in &node_addresses {
                add_address(&handle, uplink, *address, if address.is_ipv4() { 16 } else { 64 }).await?;
            }
            set_up(&handle, "eth0").await?;
            for gateway in &upstream {
                add_neighbour(&handle, uplink, *gateway, far).await?;
                add_route(&handle, uplink, unspecified(*gateway), 0, Some((*gateway, None))).await?;
            }
            Ok(())
        })
        .context("cannot wire the node's uplink")?;
        let hosts = self.wanted(&[OUTSIDE_HOST, OUTSIDE_HOST_V6, METADATA, SILENT]);
        netlink(&self.outside, async |handle| {
            let downlink = index_of(&handle, "node0").await?;
            let loopback = index_of(&handle, "lo").await?;
            for address in &upstream {
                add_address(&handle, downlink, *address, if address.is_ipv4() { 16 } else { 64 }).await?;
            }
            set_up(&handle, "node0").await?;
            for host in hosts.into_iter().filter(|host| *host != SILENT) {
                add_address(&handle, loopback, host, host_prefix(host)).await?;
            }
            add_blackhole(&handle, SILENT).await?;
            for address in &node_addresses {
                add_neighbour(&handle, downlink, *address, near).await?;
                let source = if address.is_ipv4() { OUTSIDE_HOST } else { OUTSIDE_HOST_V6 };
                add_route(&handle, downlink, unspecified(*address), 0, Some((*address, Some(source))))
                    .await?;
            }
            Ok(())
        })
        .context("cannot wire the outside")
    }

    fn wire_pod(&self, number: u8, pod: &Pod, namespace: &Namespace) -> Result<()> {
        let (host, inside) = ([2, 0xdf, 0, number, 0, 1], [2, 0xdf, 0, number, 0, 2]);
        let addresses = self.wanted(&pod.addresses);
        let gateways = self.wanted(&GATEWAY);
        let name = format!("veth{number}");
        netlink(&self.node, async |handle| {
            add_veth(&handle, (&name, host), ("eth0", inside), namespace).await?;
            Ok(())
        })?;
        netlink(namespace, async |handle| {
            let link = index_of(&handle, "eth0").await?;
            for address in &addresses {
                add_address(&handle, link, *address, host_prefix(*address)).await?;
            }
            set_up(&handle, "eth0").await?;
            for gateway in &gateways {
                add_neighbour(&handle, link, *gateway, host).await?;
                if gateway.is_ipv4() {
                    add_route(&handle, link, *gateway, 32, None).await?;
                }
                add_route(&handle, link, unspecified(*gateway), 0, Some((*gateway, None))).await?;
            }
            Ok(())
        })?;
        netlink(&self.node, async |handle| {
            let link = index_of(&handle, &name).await?;
            set_up(&handle, &name).await?;
            for address in &addresses {
                add_neighbour(&handle, link, *address, inside).await?;
                add_route(&handle, link, *address, host_prefix(*address), None).await?;
            }
            Ok(())
        })
    }
}

/// Whether this kernel speaks IPv6 at all.
pub fn kernel_has_ipv6() -> bool {
    std::path::Path::new("/proc/net/if_inet6").exists()
}

/// Lets a namespace speak with itself.
///
/// # Errors
/// Where the kernel refuses.
pub fn raise_loopback(namespace: &Namespace) -> Result<()> {
    netlink(namespace, async |handle| set_up(&handle, "lo").await)
}

/// Wires a pod without an address of its own to a node that routes `address` to it: for whoever writes frames
/// instead of having the pod speak.
///
/// # Errors
/// Where the kernel refuses a veth or the route.
pub fn wire(node: &Namespace, pod: &Namespace, name: &str, address: IpAddr) -> Result<()> {
    netlink(node, async |handle| {
        let macs = [[2, 0xdf, 0, 0, 0, 1], [2, 0xdf, 0, 0, 0, 2]];
        let link = add_veth(&handle, (name, macs[0]), ("eth0", macs[1]), pod).await?;
        netlink(pod, async |handle| set_up(&handle, "eth0").await)?;
        set_up(&handle, name).await?;
        add_route(&handle, link, address, host_prefix(address), None).await
    })
}

/// Runs `work` with a netlink connection of the namespace.
fn netlink<T: Send>(namespace: &Namespace, work: impl AsyncFnOnce(Handle) -> Result<T> + Send) -> Result<T> {
    namespace.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().context("cannot open netlink")?;
            let connection = tokio::spawn(connection);
            let done = work(handle).await;
            connection.abort();
            done
        })
    })?
}

async fn index_of(handle: &Handle, name: &str) -> Result<u32> {
    let mut links = handle.link().get().match_name(name).execute();
    let link = links.try_next().await.with_context(|| format!("cannot find interface {name}"))?;
    Ok(link.with_context(|| format!("there is no interface {name}"))?.header.index)
}

async fn set_up(handle: &Handle, name: &str) -> Result<()> {
    let index = index_of(handle, name).await?;
    let message = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(message).execute().await.with_context(|| format!("cannot set interface {name} up"))
}

/// Adds a veth pair here, its peer in another namespace; returns the index of the end here.
async fn add_veth(handle: &Handle, near: (&str, Mac), far: (&str, Mac), other: &Namespace) -> Result<u32> {
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(far.0)
        .address(far.1.to_vec())
        .setns_by_fd(other.fd())
        .build();
    let pair = LinkMessageBuilder::<LinkVeth>::new(near.0, far.0)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .address(near.1.to_vec())
        .build();
    handle.link().add(pair).execute().await.with_context(|| format!("cannot add veth {}", near.0))?;
    index_of(handle, near.0).await
}

async fn add_address(handle: &Handle, link: u32, address: IpAddr, prefix: u8) -> Result<()> {
    let mut request = handle.address().add(link, address, prefix);
    if address.is_ipv6() {
        // Usable at once, without asking whether somebody else has it.
        request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    request.execute().await.with_context(|| format!("cannot add address {address}/{prefix}"))
}

async fn add_neighbour(handle: &Handle, link: u32, address: IpAddr, mac: Mac) -> Result<()> {
    let request =
        handle.neighbours().add(link, address).link_layer_address(&mac).state(NeighbourState::Permanent);
    request.execute().await.with_context(|| format!("cannot add neighbour {address}"))
}

/// A route through `gateway`, with the source that the kernel shall choose, if it shall.
async fn add_route(
    handle: &Handle,
    link: u32,
    destination: IpAddr,
    prefix: u8,
    gateway: Option<(IpAddr, Option<IpAddr>)>,
) -> Result<()> {
    let what = || format!("cannot add a route to {destination}/{prefix}");
    let mut route = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(destination, prefix)
        .with_context(what)?
        .output_interface(link);
    match gateway {
        Some((gateway, source)) => {
            route = route.gateway(gateway).with_context(what)?;
            if let Some(source) = source {
                route = route.pref_source(source).with_context(what)?;
            }
        }
        None if destination.is_ipv4() => route = route.scope(RouteScope::Link),
        None => {}
    }
    handle.route().add(route.build()).execute().await.with_context(what)
}

async fn add_blackhole(handle: &Handle, destination: IpAddr) -> Result<()> {
    let what = || format!("cannot drop what goes to {destination}");
    let route = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(destination, host_prefix(destination))
        .with_context(what)?
        .kind(rtnetlink::packet_route::route::RouteType::BlackHole);
    handle.route().add(route.build()).execute().await.with_context(what)
}

const fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

const fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}
