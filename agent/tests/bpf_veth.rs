//! The programs on real veths between real network namespaces that the test makes: what capture reports equals
//! what was sent.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]
#![expect(clippy::print_stdout, reason = "what a test proves on a kernel is read by `cargo xtask kernels`")]

#[path = "bpf_veth/bounds.rs"]
mod bounds;
#[path = "bpf_veth/devices.rs"]
mod devices;
#[expect(dead_code, reason = "shared with the tests of the parser; each uses its part")]
#[path = "../../common/testing/frames.rs"]
mod frames;
#[path = "bpf_veth/netns.rs"]
mod netns;
#[expect(dead_code, reason = "shared with other tests of capture; each uses its part")]
#[path = "bpf_veth/traffic.rs"]
mod traffic;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use dryfence::capture::{Attach, Capture, Event, Means, Settings};
use dryfence::model::edge::{Counters, Direction, EdgeKey, IfIndex, Observation, OrientedBy, Protocol};
use futures::TryStreamExt as _;
use netns::{Pod, in_own_namespace, route_into_the_void, station_of};
use rtnetlink::Handle;
use tokio::sync::mpsc::Receiver;
use traffic::{
    PATIENCE, ask_tcp, ask_udp, dropped, hammer, ping, repeated_syns, send_frame, serve_tcp, serve_udp,
    without_ipv6,
};

/// What capture told, summed up by edge.
#[derive(Default)]
struct Seen {
    edges: BTreeMap<EdgeKey, (Counters, Observation)>,
    interfaces: BTreeMap<IfIndex, (String, Vec<IpAddr>)>,
    gone: Vec<IfIndex>,
}

impl Seen {
    fn take(&mut self, events: &mut Receiver<Event>) {
        while let Ok(event) = events.try_recv() {
            match event {
                Event::Interface(interface) => {
                    self.interfaces.insert(interface.index, (interface.name, interface.routed));
                }
                Event::InterfaceGone { index, .. } => self.gone.push(index),
                Event::Unwatched { .. } => panic!("not among these: {event:?}"),
                Event::Read { observations, .. } => observations.into_iter().for_each(|o| self.add(o)),
            }
        }
    }

    fn add(&mut self, observation: Observation) {
        assert!(self.interfaces.contains_key(&observation.key.interface), "told before any observation");
        assert!(observation.read_from <= observation.read_at);
        assert!(observation.last_seen <= observation.read_at);
        let sum = self.edges.entry(observation.key).or_insert((Counters::default(), observation));
        *sum = (sum.0.plus(observation.delta), observation);
    }

    /// The one edge that matches.
    #[track_caller]
    fn edge(&self, direction: Direction, local: IpAddr, port: u16, protocol: Protocol) -> Counters {
        let matching: Vec<_> = self
            .edges
            .iter()
            .filter(|(key, _)| {
                (key.direction, key.local(), key.port, key.protocol) == (direction, local, port, protocol)
            })
            .collect();
        assert_eq!(matching.len(), 1, "{direction} {local} {port} {protocol}: {:#?}", self.edges);
        matching[0].1.0
    }
}

async fn start(settings: Settings) -> (Capture, Receiver<Event>) {
    match Capture::start(settings).await {
        Ok(started) => started,
        Err(error) => panic!("{error}: {:?}", error),
    }
}

fn manual() -> Settings {
    // Readings only when the test asks, or at a hint.
    Settings { read_interval: Duration::from_secs(3600), ..Settings::default() }
}

fn socket(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

/// All kinds of traffic between two pods, on both families, and what both sides' edges must say.
async fn every_kind_of_traffic_is_counted(host: &Handle, settings: Settings, means: Means) -> [Pod; 2] {
    let client = Pod::new(host, 10).await;
    let server = Pod::new(host, 20).await;
    let (capture, mut events) = start(settings).await;
    assert_eq!(capture.status().means, means);
    assert_eq!(capture.status().watched, 2, "{:?}", capture.status());
    let void = Ipv4Addr::new(192, 0, 2, 99);
    route_into_the_void(host, &server, void).await;

    for target in [server.v4, server.v6] {
        server
            .namespace
            .run(move || {
                serve_tcp(socket(target, 8080));
                serve_udp(socket(target, 5353));
            })
            .await;
        client
            .namespace
            .run(move || {
                for _ in 0..3 {
                    ask_tcp(socket(target, 8080)).unwrap();
                }
                for _ in 0..2 {
                    let refused = ask_tcp(socket(target, 81)).unwrap_err();
                    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
                }
                ask_udp(socket(target, 5353), 4);
                ping(target, 5);
            })
            .await;
    }
    let syns = client
        .namespace
        .run(move || {
            let before = repeated_syns();
            // Long enough for one retransmit of the SYN, after a second.
            let patience = Duration::from_millis(1500);
            TcpStream::connect_timeout(&SocketAddr::new(void.into(), 80), patience).unwrap_err();
            1 + repeated_syns() - before
        })
        .await;
    capture.read().await;

    let mut seen = Seen::default();
    seen.take(&mut events);
    for (client_ip, server_ip) in [(client.v4, server.v4), (client.v6, server.v6)] {
        let header = if client_ip.is_ipv4() { 20 } else { 40 };
        for (direction, local) in [(Direction::Egress, client_ip), (Direction::Ingress, server_ip)] {
            let accepted = seen.edge(direction, local, 8080, Protocol::Tcp);
            assert_eq!((accepted.attempts, accepted.accepted, accepted.refused), (3, 3, 0));
            assert!(accepted.packets_to_responder >= 3 * 4 && accepted.packets_to_initiator >= 3 * 3);
            assert!(accepted.bytes_to_responder >= 3 * 100 && accepted.bytes_to_initiator >= 3 * 200);
            let refused = seen.edge(direction, local, 81, Protocol::Tcp);
            assert_eq!((refused.attempts, refused.accepted, refused.refused), (2, 0, 2));
            assert!(refused.packets_to_responder >= 2 && refused.packets_to_initiator >= 2);
            let udp = seen.edge(direction, local, 5353, Protocol::Udp);
            let expected = Counters {
                attempts: 1,
                accepted: 1,
                refused: 0,
                packets_to_responder: 4,
                packets_to_initiator: 4,
                bytes_to_responder: 4 * (header + 8 + 100),
                bytes_to_initiator: 4 * (header + 8 + 100),
                ..Counters::default()
            };
            assert_eq!(udp, expected);
            let (port, protocol) =
                if client_ip.is_ipv4() { (8 * 256, Protocol::Icmp) } else { (128 * 256, Protocol::Icmpv6) };
            let icmp = seen.edge(direction, local, port, protocol);
            let expected = Counters {
                attempts: 1,
                accepted: 1,
                refused: 0,
                packets_to_responder: 5,
                packets_to_initiator: 5,
                bytes_to_responder: 5 * (header + 8),
                bytes_to_initiator: 5 * (header + 8),
                ..Counters::default()
            };
            assert_eq!(icmp, expected);
        }
    }
    let unanswered = seen.edge(Direction::Egress, client.v4, 80, Protocol::Tcp);
    assert_eq!((unanswered.attempts, unanswered.accepted, unanswered.refused), (1, 0, 0));
    assert_eq!((unanswered.packets_to_responder, unanswered.packets_to_initiator), (syns, 0));
    assert!(seen.edges.values().all(|(_, last)| last.fully_visible), "{:#?}", seen.edges);
    assert_eq!(seen.edges.len(), 2 * 2 * 4 + 2, "no edge that nobody made: {:#?}", seen.edges);
    assert_eq!(capture.losses(), []);
    assert_eq!(
        seen.interfaces.get(&IfIndex(client.index)),
        Some(&(client.name.clone(), vec![client.v4, client.v6]))
    );

    capture.stop().await;
    let target = socket(server.v4, 8080);
    client.namespace.run(move || ask_tcp(target).unwrap()).await;
    seen.take(&mut events);
    assert_eq!(seen.edge(Direction::Egress, client.v4, 8080, Protocol::Tcp).attempts, 3, "detached");
    match means {
        Means::Tcx => println!("proved: TCX"),
        Means::Clsact => println!("proved: clsact"),
    }
    [client, server]
}

#[test]
fn every_kind_of_traffic_is_counted_by_the_best_means_of_the_kernel() {
    in_own_namespace(|host| async move {
        let means = if has_tcx() { Means::Tcx } else { Means::Clsact };
        every_kind_of_traffic_is_counted(&host, manual(), means).await;
    });
}

#[test]
fn every_kind_of_traffic_is_counted_by_clsact_and_its_filters_go() {
    in_own_namespace(|host| async move {
        let settings = Settings { attach: Attach::Clsact, ..manual() };
        let pods = every_kind_of_traffic_is_counted(&host, settings, Means::Clsact).await;
        for pod in &pods {
            let index = i32::try_from(pod.index).unwrap();
            for request in
                [host.traffic_filter(index).get().ingress(), host.traffic_filter(index).get().egress()]
            {
                let left: Vec<_> = request.execute().try_collect().await.unwrap();
                assert!(left.is_empty(), "{left:?}");
            }
        }
    });
}

fn has_tcx() -> bool {
    is_at_least(6, 6)
}

/// Whether the kernel is of this release or a later one.
fn is_at_least(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

#[test]
fn two_cpus_on_one_edge_lose_nothing() {
    let each = number_from("DRYFENCE_TEST_PACKETS", 400_000) / 2;
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        let (capture, mut events) = start(manual()).await;
        let target = socket(server.v4, 9999);
        let sink = server.namespace.run(move || UdpSocket::bind(target).unwrap()).await;
        let dropped = client
            .namespace
            .run(move || {
                // Until the neighbours on the way are found, packets wait, and the last ones of many give way.
                ping(target.ip(), 1);
                // Whatever else the interface dropped, or drops meanwhile, is not the hammer's.
                without_ipv6();
                let before = dropped("vpeer10");
                hammer(target, 2, each);
                dropped("vpeer10") - before
            })
            .await;
        capture.read().await;
        let mut seen = Seen::default();
        seen.take(&mut events);
        let edge = seen.edge(Direction::Egress, client.v4, 9999, Protocol::Udp);
        assert_eq!(edge.packets_to_responder, 2 * each - dropped, "{dropped} never reached the host side");
        assert_eq!(edge.bytes_to_responder, (2 * each - dropped) * 48);
        assert_eq!(edge.attempts, 1);
        assert_eq!(capture.losses(), []);
        drop(sink);
    });
}

#[test]
fn interfaces_come_and_go() {
    in_own_namespace(|host| async move {
        let server = Pod::new(&host, 20).await;
        let (capture, mut events) = start(manual()).await;
        let mut seen = Seen::default();
        for round in 0..3_u8 {
            let client = Pod::new(&host, 30 + round).await;
            let (index, v4, v6) = (IfIndex(client.index), client.v4, client.v6);
            until(&mut seen, &mut events, |seen| {
                seen.interfaces.get(&index).is_some_and(|(_, routed)| *routed == [v4, v6])
            })
            .await;
            let target = socket(server.v4, 7);
            client.namespace.run(move || ask_tcp(target).unwrap_err()).await;
            client.end(&host).await;
            until(&mut seen, &mut events, |seen| seen.gone.contains(&index)).await;
            assert_eq!(seen.edge(Direction::Egress, v4, 7, Protocol::Tcp).refused, 1);
        }
        assert_eq!(capture.status().watched, 1);
        assert_eq!(capture.losses(), []);
        capture.stop().await;
    });
}

/// How much a test sends: little, or what somebody who measures by hand asks for.
fn number_from(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

async fn until(seen: &mut Seen, events: &mut Receiver<Event>, condition: impl Fn(&Seen) -> bool) {
    let waiting = Instant::now();
    while waiting.elapsed() < PATIENCE {
        seen.take(events);
        if condition(seen) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited {PATIENCE:?} in vain: {:#?} {:?}", seen.interfaces, seen.gone);
}

#[test]
fn a_new_edge_is_told_at_once_although_the_timer_is_far() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        let (_capture, mut events) = start(manual()).await;
        let target = socket(server.v4, 7);
        client.namespace.run(move || ask_tcp(target).unwrap_err()).await;
        let mut seen = Seen::default();
        until(&mut seen, &mut events, |seen| seen.edges.len() == 2).await;
    });
}

#[test]
fn traffic_passes_unharmed_when_the_map_is_full_and_the_loss_is_counted() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        let (capture, mut events) = start(Settings { edge_map_size: 16, ..manual() }).await;
        let address = server.v4;
        server.namespace.run(move || (1000..1100).for_each(|port| serve_tcp(socket(address, port)))).await;
        client
            .namespace
            .run(move || (1000..1100).for_each(|port| ask_tcp(socket(address, port)).unwrap()))
            .await;
        capture.read().await;
        let mut seen = Seen::default();
        seen.take(&mut events);
        // What else is seen are connections without an opening that anybody kept.
        let opened = seen.edges.values().filter(|(_, last)| last.oriented_by == OrientedBy::Handshake);
        assert_eq!(opened.count(), 16);
        let losses = capture.losses();
        let full = losses.iter().find(|loss| (&*loss.stage, &*loss.reason) == ("edge-map", "full")).unwrap();
        // Each connection would have made two edges; its SYN and its SYN-ACK each try both sides.
        assert!(full.edges >= 200 - 16 && full.packets >= full.edges, "{losses:?}");
    });
}

#[test]
fn headers_outside_the_linear_part_are_read_and_the_packet_passes_whole() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        let (capture, mut events) = start(manual()).await;
        let (from, to) = (client.v4, server.v4);
        let inbox = server.namespace.run(move || UdpSocket::bind(socket(to, 5000)).unwrap()).await;
        let station = station_of(&host, client.index).await;
        let frame = udp_frame(station, from, to, 5000);
        client.namespace.run(move || send_frame("vpeer10", &frame, Some(14))).await;
        capture.read().await;
        let mut seen = Seen::default();
        seen.take(&mut events);
        for (direction, local) in [(Direction::Egress, from), (Direction::Ingress, to)] {
            let edge = seen.edge(direction, local, 5000, Protocol::Udp);
            assert_eq!((edge.packets_to_responder, edge.bytes_to_responder), (1, 20 + 8 + 5000));
        }
        let mut buffer = [0; 9000];
        inbox.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(inbox.recv(&mut buffer).unwrap(), 5000);
        assert_eq!(capture.losses(), []);
    });
}

#[test]
fn a_vlan_tag_that_the_kernel_took_out_of_the_bytes_is_told() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let (capture, mut events) = start(manual()).await;
        let (from, to) = (client.v4, IpAddr::from(Ipv4Addr::new(198, 51, 100, 7)));
        let untagged = udp_frame(station_of(&host, client.index).await, from, to, 10);
        for (port_byte, vlans) in [(1_u8, vec![42_u16]), (2, vec![7, 42])] {
            let mut frame = untagged[..12].to_vec();
            for vlan in &vlans {
                frame.extend(0x8100_u16.to_be_bytes());
                frame.extend(vlan.to_be_bytes());
            }
            frame.extend(&untagged[12..]);
            // The low byte of the destination port tells the two apart.
            let port = frame.len() - 10 - 8 + 3;
            frame[port] = port_byte;
            client.namespace.run(move || send_frame("vpeer10", &frame, None)).await;
        }
        capture.read().await;
        let mut seen = Seen::default();
        seen.take(&mut events);
        let vlans: Vec<_> = seen.edges.iter().map(|(key, (_, last))| (key.port & 0xff, last.vlan)).collect();
        assert_eq!(vlans, [(1, 42), (2, 7)], "one tag, and the outer of two");
    });
}

/// A UDP packet to port 5000, with checksums that a real stack accepts.
fn udp_frame(station: [u8; 6], from: IpAddr, to: IpAddr, payload: usize) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else { unreachable!() };
    let mut packet = frames::ipv4(from, to, 17, &[], 0, &frames::udp(40000, 5000, payload));
    let sum = traffic::checksum(&packet[..20]).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    frames::ethernet_to(station, 0x0800, &packet)
}
