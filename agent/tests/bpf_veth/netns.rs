//! Network namespaces that a test makes: a "host" in its own thread, and pods behind veths, routed as ptp and
//! Calico do it.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::thread;
use std::time::Duration;

use futures::TryStreamExt as _;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::RouteScope;
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

/// The addresses of the host side of every veth.
pub(crate) const GATEWAY4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// How long a test may take, on an emulated machine of a busy host too.
const PATIENCE: Duration = Duration::from_secs(240);

/// Runs `test` as the host: in a thread with a network namespace of its own, which goes with it. Where the
/// privilege is missing, that fails in CI and is said elsewhere.
pub(crate) fn in_own_namespace<F: Future<Output = ()>>(test: impl FnOnce(Handle) -> F + Send) {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI is set");
        eprintln!("SKIPPED: this test needs root to make network namespaces");
        return;
    }
    thread::scope(|scope| {
        let host = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            without_duplicate_address_detection();
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
            block_on(async {
                let handle = connect();
                tokio::time::timeout(PATIENCE, test(handle)).await.expect("the test ends by itself");
            });
        });
        if let Err(panic) = host.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs `future` in this thread, whatever namespace it is in.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub(crate) fn connect() -> Handle {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    handle
}

/// Addresses work at once.
fn without_duplicate_address_detection() {
    for which in ["all", "default"] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/accept_dad"), "0").unwrap();
    }
}

/// A network namespace; gone when nobody holds it.
pub(crate) struct Namespace(OwnedFd);

impl Namespace {
    pub(crate) fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            without_duplicate_address_detection();
            OwnedFd::from(File::open("/proc/thread-self/ns/net").unwrap())
        };
        Self(thread::scope(|scope| scope.spawn(make).join()).unwrap())
    }

    /// Runs something that blocks in the namespace, in a thread of its own, while the host goes on.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = self.0.try_clone().unwrap();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let thread = thread::spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
            drop(sender.send(work()));
        });
        match receiver.await {
            Ok(result) => result,
            Err(_) => std::panic::resume_unwind(thread.join().unwrap_err()),
        }
    }
}

impl AsRawFd for Namespace {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A pod: a namespace behind a veth.
pub(crate) struct Pod {
    pub(crate) namespace: Namespace,
    pub(crate) v4: IpAddr,
    pub(crate) v6: IpAddr,
    /// The host side of its veth.
    pub(crate) index: u32,
    pub(crate) name: String,
}

impl Pod {
    /// A pod with the addresses 192.0.2.`number` and 2001:db8::`number`, routed and up.
    pub(crate) async fn new(host: &Handle, number: u8) -> Self {
        Self::with_index(host, number, 0).await
    }

    /// The same with an index for the host side of its veth; the kernel chooses one for 0.
    pub(crate) async fn with_index(host: &Handle, number: u8, index: u32) -> Self {
        let (name, peer) = (format!("vpod{number}"), format!("vpeer{number}"));
        let mut veth = LinkVeth::new(&name, &peer).mtu(MTU).build();
        veth.header.index = index;
        Self::behind(host, number, veth, peer).await
    }

    /// The same behind a device of another kind, whose ends are called vpod`number` and vpeer`number`.
    pub(crate) async fn behind(host: &Handle, number: u8, device: LinkMessage, peer: String) -> Self {
        let namespace = Namespace::new();
        let name = format!("vpod{number}");
        host.link().add(device).execute().await.unwrap();
        let peer_index = index_of(host, &peer).await;
        let moved = LinkUnspec::new_with_index(peer_index).setns_by_fd(namespace.0.as_raw_fd()).build();
        host.link().set(moved).execute().await.unwrap();
        let index = index_of(host, &name).await;
        let v4 = Ipv4Addr::new(192, 0, 2, number);
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number));
        let inside = move || {
            block_on(async {
                let handle = connect();
                up(&handle, index_of(&handle, "lo").await).await;
                let index = index_of(&handle, &peer).await;
                set_addresses(&handle, index, v4, v6).await;
                route(&handle, index, GATEWAY4, GATEWAY6).await;
                default_routes(&handle).await;
            });
        };
        let pod = Self { namespace, v4: v4.into(), v6: v6.into(), index, name };
        pod.namespace.run(inside).await;
        set_addresses(host, index, GATEWAY4, GATEWAY6).await;
        route(host, index, v4, v6).await;
        pod
    }

    /// Takes its interface away, as when a pod ends.
    pub(crate) async fn end(self, host: &Handle) {
        host.link().del(self.index).execute().await.unwrap();
    }
}

/// Routes an address to a pod that does not have it and does not forward: what is sent there vanishes.
pub(crate) async fn route_into_the_void(host: &Handle, pod: &Pod, address: Ipv4Addr) {
    let IpAddr::V4(via) = pod.v4 else { unreachable!() };
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(address, 32)
        .gateway(via)
        .output_interface(pod.index)
        .onlink()
        .build();
    host.route().add(route).execute().await.unwrap();
}

/// The Ethernet address of an interface.
pub(crate) async fn station_of(host: &Handle, index: u32) -> [u8; 6] {
    let links: Vec<_> = host.link().get().match_index(index).execute().try_collect().await.unwrap();
    let address = links[0].attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => bytes.first_chunk().copied(),
        _ => None,
    });
    address.unwrap()
}

pub(crate) async fn index_of(handle: &Handle, name: &str) -> u32 {
    let links: Vec<_> =
        handle.link().get().match_name(name.to_owned()).execute().try_collect().await.unwrap();
    links[0].header.index
}

/// So that packets longer than a page pass.
const MTU: u32 = 9000;

async fn up(handle: &Handle, index: u32) {
    handle.link().set(LinkUnspec::new_with_index(index).mtu(MTU).up().build()).execute().await.unwrap();
}

async fn set_addresses(handle: &Handle, index: u32, v4: Ipv4Addr, v6: Ipv6Addr) {
    handle.address().add(index, v4.into(), 32).execute().await.unwrap();
    handle.address().add(index, v6.into(), 128).execute().await.unwrap();
    up(handle, index).await;
}

async fn route(handle: &Handle, index: u32, v4: Ipv4Addr, v6: Ipv6Addr) {
    let to4 = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(v4, 32)
        .output_interface(index)
        // On the link: what is behind it can then be a gateway.
        .scope(RouteScope::Link)
        .build();
    handle.route().add(to4).execute().await.unwrap();
    let to6 =
        RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(v6, 128).output_interface(index).build();
    handle.route().add(to6).execute().await.unwrap();
}

async fn default_routes(handle: &Handle) {
    let to4 = RouteMessageBuilder::<Ipv4Addr>::new().gateway(GATEWAY4).build();
    handle.route().add(to4).execute().await.unwrap();
    let to6 = RouteMessageBuilder::<Ipv6Addr>::new().gateway(GATEWAY6).build();
    handle.route().add(to6).execute().await.unwrap();
}
