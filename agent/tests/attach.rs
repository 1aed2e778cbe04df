//! The life cycle of attachments, on real interfaces of network namespaces that the test makes: whatever comes, goes
//! or is changed by others, every pod's interface is watched once, nothing stays behind, and traffic passes.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

#[path = "attach/filters.rs"]
mod filters;
#[expect(dead_code, reason = "shared with other tests of capture; each uses its part")]
#[path = "bpf_veth/netns.rs"]
mod netns;
#[expect(dead_code, reason = "as above")]
#[path = "bpf_veth/traffic.rs"]
mod traffic;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use dryfence::capture::{Attach, Capture, Error, Event, Holder, Interface, Settings};
use dryfence::model::edge::{Direction, IfIndex, Protocol};
use dryfence::model::unobserved::Unobserved;
use filters::{Side, add_clsact, add_foreign_filter, delete_clsact, has_clsact, ours, total};
use netns::{Pod, block_on, connect, in_own_namespace};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::sync::mpsc::Receiver;
use traffic::{Conversation, ask_udp, serve_udp};

const PORT: u16 = 5353;

/// Readings only when the test asks, when an edge is new, or when an interface goes.
fn manual() -> Settings {
    Settings { read_interval: Duration::from_secs(3600), ..Settings::default() }
}

fn clsact() -> Settings {
    Settings { attach: Attach::Clsact, ..manual() }
}

/// Adding the qdisc is the one thing that costs packets, by the kernel's doing: done before they are counted.
async fn with_qdiscs() {
    let (capture, _events) = start(clsact()).await;
    capture.stop().await;
}

async fn start(settings: Settings) -> (Capture, Receiver<Event>) {
    Capture::start(settings).await.unwrap_or_else(|error| panic!("{error}: {error:?}"))
}

/// The life of one interface, as capture told it.
#[derive(Debug, Default, Clone)]
struct Life {
    packets: BTreeMap<IpAddr, u64>,
    is_over: bool,
}

/// What capture told, life by life: an index can have several, one after the other.
#[derive(Default)]
struct Lives {
    of: BTreeMap<IfIndex, Vec<Life>>,
    interfaces: BTreeMap<IfIndex, Interface>,
    unwatched: BTreeMap<IfIndex, Unobserved>,
}

impl Lives {
    fn take(&mut self, events: &mut Receiver<Event>) {
        while let Ok(event) = events.try_recv() {
            match event {
                Event::Interface(interface) => self.begin_or_go_on(interface),
                Event::Unwatched { index, reason, .. } => drop(self.unwatched.insert(index, reason)),
                Event::InterfaceGone { index, .. } => self.end(index),
                Event::Read { observations, .. } => {
                    for seen in observations.iter().filter(|seen| seen.key.protocol == Protocol::Udp) {
                        let lives = self.of.get_mut(&seen.key.interface).expect("told before what it saw");
                        let life = lives.last_mut().unwrap();
                        assert!(!life.is_over, "seen after its end: {seen:?}");
                        if seen.key.direction == Direction::Egress && seen.key.port == PORT {
                            *life.packets.entry(seen.key.initiator).or_default() +=
                                seen.delta.packets_to_responder;
                        }
                    }
                }
            }
        }
    }

    fn begin_or_go_on(&mut self, interface: Interface) {
        let index = interface.index;
        self.unwatched.remove(&index);
        let lives = self.of.entry(index).or_default();
        match self.interfaces.insert(index, interface.clone()) {
            Some(known) => assert_eq!(known.since, interface.since, "its end comes before its next life"),
            None => lives.push(Life::default()),
        }
    }

    fn end(&mut self, index: IfIndex) {
        self.unwatched.remove(&index);
        if self.interfaces.remove(&index).is_some() {
            self.of.get_mut(&index).and_then(|lives| lives.last_mut()).unwrap().is_over = true;
        }
    }

    /// Whether the interface is watched, and both its pod's routes are known.
    fn knows(&self, pod: &Pod) -> bool {
        let interface = self.interfaces.get(&IfIndex(pod.index));
        interface.is_some_and(|interface| interface.routed == [pod.v4, pod.v6])
    }

    /// The same, in the interface's `number`th life.
    fn knows_in_life(&self, pod: &Pod, number: u32) -> bool {
        self.knows(pod) && self.of[&IfIndex(pod.index)].len() == number as usize
    }
}

async fn until(lives: &mut Lives, events: &mut Receiver<Event>, condition: impl Fn(&Lives) -> bool) {
    for _ in 0..3000 {
        lives.take(events);
        if condition(lives) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited half a minute in vain: {:#?} {:?}", lives.interfaces, lives.unwatched);
}

/// Hundreds of pods with the same few indices, names and addresses, ten at a time.
async fn pods_come_and_go(host: Handle, settings: Settings) {
    const ROUNDS: u32 = 10;
    let server = Pod::new(&host, 250).await;
    let target = SocketAddr::new(server.v4, PORT);
    server.namespace.run(move || serve_udp(target)).await;
    // Edges that stayed would soon fill it.
    let (capture, mut events) = start(Settings { edge_map_size: 128, ..settings }).await;
    let mut lives = Lives::default();
    for round in 1..=ROUNDS {
        let mut pods = Vec::new();
        for number in 10..20_u8 {
            pods.push(Pod::with_index(&host, number, 1000 + u32::from(number)).await);
        }
        until(&mut lives, &mut events, |lives| pods.iter().all(|pod| lives.knows_in_life(pod, round))).await;
        for (pod, number) in pods.iter().zip(1..) {
            pod.namespace.run(move || ask_udp(target, round + number)).await;
        }
        for pod in pods {
            pod.end(&host).await;
        }
    }
    until(&mut lives, &mut events, |lives| lives.interfaces.len() == 1).await;
    for number in 10..20_u8 {
        let address = IpAddr::from(Ipv4Addr::new(192, 0, 2, number));
        let seen: Vec<_> = lives.of[&IfIndex(1000 + u32::from(number))].iter().collect();
        let expected = (1..=ROUNDS).map(|round| u64::from(round + u32::from(number) - 9));
        assert_eq!(
            seen.iter().map(|life| life.packets[&address]).collect::<Vec<_>>(),
            expected.collect::<Vec<_>>()
        );
        assert!(seen.iter().all(|life| life.is_over && life.packets.len() == 1), "{seen:?}");
    }
    assert_eq!(capture.losses(), [], "no edge stayed in the map");
    let status = capture.status();
    assert_eq!((status.watched, status.failed.len(), status.reattached), (1, 0, 0), "{status:?}");
    capture.stop().await;
    assert_eq!(total(&host, server.index).await, 0);
}

#[test]
fn pods_come_and_go_with_links() {
    in_own_namespace(|host| pods_come_and_go(host, manual()));
}

#[test]
fn pods_come_and_go_with_filters() {
    in_own_namespace(|host| pods_come_and_go(host, clsact()));
}

/// Interfaces that are gone as soon as they are there, while others are listed and attached to.
async fn interfaces_vanish(host: Handle, settings: Settings) {
    let (capture, mut events) = start(settings).await;
    let churn = std::thread::spawn(|| {
        block_on(async {
            let host = connect();
            for _ in 0..40 {
                for pod in [Pod::new(&host, 30).await, Pod::new(&host, 31).await] {
                    pod.end(&host).await;
                }
            }
        });
    });
    let mut lives = Lives::default();
    while !churn.is_finished() {
        lives.take(&mut events);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    churn.join().unwrap();
    let pod = Pod::new(&host, 10).await;
    until(&mut lives, &mut events, |lives| lives.knows(&pod) && lives.interfaces.len() == 1).await;
    let status = capture.status();
    assert_eq!((status.watched, status.failed.len()), (1, 0), "vanishing is no failure: {status:?}");
}

#[test]
fn interfaces_vanish_before_links() {
    in_own_namespace(|host| interfaces_vanish(host, manual()));
}

#[test]
fn interfaces_vanish_before_filters() {
    in_own_namespace(|host| interfaces_vanish(host, clsact()));
}

#[test]
fn a_second_agent_in_a_network_namespace_is_refused_and_told_by_whom() {
    in_own_namespace(|_host| async move {
        let (capture, events) = start(manual()).await;
        for _ in 0..2 {
            let error = Capture::start(manual()).await.unwrap_err();
            let me = Holder::Process(std::process::id().try_into().unwrap());
            assert!(matches!(error, Error::AnotherAgent { holder } if holder == me), "{error:?}");
            assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
            assert!(matches!(Capture::clean_up(), Err(Error::AnotherAgent { .. })));
        }
        let elsewhere = netns::Namespace::new();
        elsewhere
            .run(|| {
                block_on(async {
                    let (capture, _events) = start(manual()).await;
                    capture.stop().await;
                });
            })
            .await;
        drop(events);
        capture.stop().await;
        let (next, _events) = start(manual()).await;
        next.stop().await;
    });
}

#[test]
fn the_nodes_own_interfaces_and_excluded_ones_are_left_alone() {
    in_own_namespace(|host| async move {
        let settings = Settings { exclude: vec!["vpod11".parse().unwrap()], ..manual() };
        let (capture, mut events) = start(settings).await;
        let mut lives = Lives::default();
        // As ptp does it: the gateway's address alone, and a route to the pod.
        let routed = Pod::new(&host, 10).await;
        let excluded = Pod::new(&host, 11).await;
        let bridged = bare_veth(&host, "veth0").await;
        host.link().add(LinkBridge::new("br0").build()).execute().await.unwrap();
        let bridge = nix::net::if_::if_nametoindex("br0").unwrap();
        host.address().add(bridge, Ipv4Addr::new(10, 1, 0, 1).into(), 16).execute().await.unwrap();
        let port = LinkUnspec::new_with_index(bridged).controller(bridge).up().build();
        host.link().set(port).execute().await.unwrap();
        // As a node looks that is a container.
        let in_subnet = bare_veth(&host, "eth1").await;
        let its_own = IpAddr::from(Ipv4Addr::new(10, 2, 0, 7));
        host.address().add(in_subnet, its_own, 16).execute().await.unwrap();
        let way_out = bare_veth(&host, "eth0").await;
        up(&host, way_out).await;
        let default = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(way_out).build();
        host.route().add(default.clone()).execute().await.unwrap();
        let left = [
            (IfIndex(excluded.index), Unobserved::Excluded),
            (IfIndex(in_subnet), Unobserved::NodesOwn),
            (IfIndex(way_out), Unobserved::NodesOwn),
        ];
        until(&mut lives, &mut events, |lives| {
            lives.unwatched == BTreeMap::from(left)
                && lives.knows(&routed)
                && lives.interfaces.keys().copied().eq([routed.index, bridged].map(IfIndex))
        })
        .await;
        assert_eq!(capture.status().watched, 2);
        let known = &lives.interfaces[&IfIndex(routed.index)];
        assert_eq!(known.device_type, libc::ARPHRD_ETHER);

        // What makes them the node's may come late, and go.
        host.route().del(default).execute().await.unwrap();
        let address = address_of(&host, in_subnet).await;
        host.address().del(address).execute().await.unwrap();
        until(&mut lives, &mut events, |lives| lives.unwatched.len() == 1 && lives.interfaces.len() == 4)
            .await;
        host.address().add(in_subnet, its_own, 16).execute().await.unwrap();
        until(&mut lives, &mut events, |lives| lives.unwatched.len() == 2 && lives.interfaces.len() == 3)
            .await;
        capture.stop().await;
    });
}

/// The host side of a veth whose other end is in a namespace that nobody configured.
async fn bare_veth(host: &Handle, name: &str) -> u32 {
    let peer = format!("{name}p");
    host.link().add(LinkVeth::new(name, &peer).build()).execute().await.unwrap();
    let namespace = netns::Namespace::new();
    let peer = nix::net::if_::if_nametoindex(peer.as_str()).unwrap();
    let moved = LinkUnspec::new_with_index(peer).setns_by_fd(namespace.as_raw_fd()).build();
    host.link().set(moved).execute().await.unwrap();
    // The namespace lives as long as the test: without it, the veth would go.
    std::mem::forget(namespace);
    nix::net::if_::if_nametoindex(name).unwrap()
}

async fn up(host: &Handle, index: u32) {
    host.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await.unwrap();
}

async fn address_of(host: &Handle, index: u32) -> netlink_packet_route::address::AddressMessage {
    use futures::TryStreamExt as _;
    let addresses = host.address().get().set_link_index_filter(index).execute();
    let addresses: Vec<_> = addresses.try_collect().await.unwrap();
    addresses.into_iter().find(|a| a.header.prefix_len == 16).unwrap()
}

#[test]
fn filters_that_others_remove_are_put_back_and_others_filters_stay() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        let target = SocketAddr::new(server.v4, PORT);
        server.namespace.run(move || serve_udp(target)).await;
        let (capture, mut events) = start(clsact()).await;
        let mut lives = Lives::default();
        for round in 1..=3 {
            delete_clsact(&host, client.index).await;
            until(&mut lives, &mut events, |_| capture.status().reattached == round).await;
            for side in [Side::Ingress, Side::Egress] {
                assert_eq!(ours(&host, client.index, side).await, 1);
            }
            client.namespace.run(move || ask_udp(target, 5)).await;
            capture.read().await;
            lives.take(&mut events);
            let life = lives.of[&IfIndex(client.index)].last().unwrap();
            assert_eq!(life.packets[&client.v4], 5 * round, "one attachment sees each packet once");
        }
        assert!(capture.status().gap > Duration::ZERO);
        add_foreign_filter(&host, client.index).await;
        let conversation = Conversation::begin(&client.namespace, target).await;
        conversation.goes_on().await;
        capture.stop().await;
        conversation.goes_on().await;
        assert_eq!(total(&host, client.index).await, 1, "the other's");
        assert_eq!(total(&host, server.index).await, 0);
        conversation.end().await;
    });
}

#[test]
fn an_interface_without_a_qdisc_is_left_as_it_is_where_none_may_be_added() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        let target = SocketAddr::new(server.v4, PORT);
        server.namespace.run(move || serve_udp(target)).await;
        let conversation = Conversation::begin(&client.namespace, target).await;
        conversation.goes_on().await;
        let settings = Settings { attach: Attach::ClsactPresent, ..manual() };
        let (capture, mut events) = start(settings).await;
        let mut lives = Lives::default();
        let failed = [client.index, server.index].map(|index| (IfIndex(index), Unobserved::AttachFailed));
        until(&mut lives, &mut events, |lives| lives.unwatched == BTreeMap::from(failed)).await;
        assert!(capture.status().failed[&client.name].contains("no clsact qdisc"), "{:?}", capture.status());
        assert!(!has_clsact(&host, client.index).await);
        conversation.goes_on().await;
        conversation.end().await;
        // As soon as somebody adds one, it is used.
        add_clsact(&host, client.index).await;
        until(&mut lives, &mut events, |lives| lives.knows(&client)).await;
        assert_eq!(capture.status().watched, 1);
        capture.stop().await;
    });
}

#[test]
fn traffic_passes_unharmed_while_capture_starts_stops_and_is_refused() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        let target = SocketAddr::new(server.v4, PORT);
        server.namespace.run(move || serve_udp(target)).await;
        with_qdiscs().await;
        let conversation = Conversation::begin(&client.namespace, target).await;
        for settings in [manual(), clsact()] {
            for _ in 0..3 {
                let (capture, _events) = start(settings.clone()).await;
                conversation.goes_on().await;
                capture.stop().await;
                conversation.goes_on().await;
                // Without a word.
                drop(start(settings.clone()).await);
                conversation.goes_on().await;
                while Capture::clean_up().is_err() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            let refused = Settings { edge_map_size: u32::MAX, ..settings };
            let error = Capture::start(refused).await.unwrap_err();
            assert!(matches!(error, Error::EdgeMapRefused { entries: u32::MAX, .. }), "{error:?}");
            assert!(error.to_string().contains("--edge-map-size"), "{error}");
            conversation.goes_on().await;
        }
        conversation.end().await;
    });
}

#[test]
fn more_news_than_fit_are_counted_and_made_up_for() {
    in_own_namespace(|host| async move {
        let (capture, mut events) = start(manual()).await;
        let mut lives = Lives::default();
        let old = Pod::new(&host, 10).await;
        until(&mut lives, &mut events, |lives| lives.knows(&old)).await;
        // Capture lives in this thread, which waits: it takes no news meanwhile.
        let (old_index, name) = (old.index, old.name.clone());
        let new = std::thread::spawn(move || {
            traffic::change_often(&name, 30_000);
            block_on(async {
                let host = connect();
                old.end(&host).await;
                Pod::new(&host, 11).await
            })
        });
        let new = new.join().unwrap();
        until(&mut lives, &mut events, |lives| {
            lives.knows(&new) && !lives.interfaces.contains_key(&IfIndex(old_index))
        })
        .await;
        let status = capture.status();
        assert!(status.overruns > 0, "{status:?}");
        assert_eq!(status.watched, 1);
    });
}
