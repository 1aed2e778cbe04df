//! Connections that are older than the programs, between real network namespaces: which end opened them is found out
//! by the pods' own sockets, each is counted once, and what nothing tells stays unknown.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

#[expect(dead_code, reason = "shared with the tests of the parser; each uses its part")]
#[path = "../../common/testing/frames.rs"]
mod frames;
#[expect(dead_code, reason = "shared with other tests; each uses its part")]
#[path = "bpf_veth/netns.rs"]
mod netns;
#[path = "bpf_veth/open.rs"]
mod open;
#[expect(dead_code, reason = "shared with other tests; each uses its part")]
#[path = "bpf_veth/traffic.rs"]
mod traffic;
#[path = "bpf_veth/watch.rs"]
mod watch;

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use dryfence::capture::Settings;
use dryfence::model::edge::{Counters, Direction, OrientedBy, Protocol, Scope};
use dryfence::model::folding::Folding;
use frames::{ACK, Tcp, frame};
use ipnet::IpNet;
use netns::{GATEWAY4, Pod, in_own_namespace, station_of};
use open::Open;
use traffic::send_frame;
use watch::Watch;

fn connections((counters, _): (Counters, OrientedBy)) -> (u64, u64, u64) {
    (counters.attempts, counters.accepted, counters.refused)
}

/// Payload of TCP in both directions, if every packet has a header of 32 bytes (timestamps) behind the IP header.
fn payload(counters: &Counters, address: IpAddr) -> (u64, u64) {
    let headers = if address.is_ipv4() { 20 + 32 } else { 40 + 32 };
    (
        counters.bytes_to_responder - headers * counters.packets_to_responder,
        counters.bytes_to_initiator - headers * counters.packets_to_initiator,
    )
}

#[test]
fn an_open_connection_between_pods_is_one_accepted_edge_at_each_end_and_its_packets_are_exact() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        for (address, port) in [(server.v4, 8080), (server.v6, 8081)] {
            let mut open =
                Open::new(Some(&client), Some(&server), SocketAddr::new(address, port), None).await;
            let mut watch = Watch::start().await;
            let ends = [(Direction::Egress, client.index), (Direction::Ingress, server.index)];
            for round in 1..=3 {
                for _ in 0..20 {
                    open.exchange();
                }
                watch
                    .until(|seen| {
                        seen.edges.len() == 2
                            && seen.edges.values().all(|(counters, _)| {
                                payload(counters, address) == (round * 20 * 100, round * 20 * 200)
                            })
                    })
                    .await;
                for (direction, index) in ends {
                    let edge = watch.edge(direction, index, port, Protocol::Tcp);
                    assert_eq!(
                        (connections(edge), edge.1),
                        ((1, 1, 0), OrientedBy::Listener),
                        "round {round}"
                    );
                }
            }
            assert!(watch.seen.unoriented.is_empty(), "{:?}", watch.seen.unoriented);
            assert_eq!(watch.capture.status().orphans, 0, "their packets are the edges' now");
            assert_eq!(watch.capture.losses(), []);
            watch.capture.stop().await;
        }
    });
}

#[test]
fn an_open_connection_with_somebody_who_is_no_pod_is_oriented_by_the_pods_own_sockets() {
    in_own_namespace(|host| async move {
        let pod = Pod::new(&host, 10).await;
        let mut out = Open::new(Some(&pod), None, SocketAddr::new(GATEWAY4.into(), 9000), None).await;
        let mut to = Open::new(None, Some(&pod), SocketAddr::new(pod.v4, 8080), None).await;
        // On a client's port: only the listener tells.
        let mut high = Open::new(None, Some(&pod), SocketAddr::new(pod.v6, 50051), None).await;
        let mut watch = Watch::start().await;
        for open in [&mut out, &mut to, &mut high] {
            open.exchange();
        }
        watch.until(|seen| seen.edges.len() == 3).await;
        for (direction, port) in
            [(Direction::Egress, 9000), (Direction::Ingress, 8080), (Direction::Ingress, 50051)]
        {
            let edge = watch.edge(direction, pod.index, port, Protocol::Tcp);
            assert_eq!((connections(edge), edge.1), ((1, 1, 0), OrientedBy::Listener), "{port}");
        }
        assert_eq!(watch.capture.losses(), []);
    });
}

#[test]
fn an_open_connection_with_a_range_counts_on_one_edge_with_it_from_the_first_packet() {
    in_own_namespace(|host| async move {
        let pod = Pod::new(&host, 10).await;
        let mut to = Open::new(None, Some(&pod), SocketAddr::new(pod.v4, 8080), None).await;
        let mut watch = Watch::start_with(Settings { budget_outside: 1, ..Settings::default() }).await;
        let range: IpNet = "192.0.2.0/28".parse().unwrap();
        let folding = Folding { length: range.prefix_len(), outside: true };
        watch.capture.fold([(range, folding)].into_iter().collect()).await;
        for round in 1..=3 {
            to.exchange();
            watch
                .until(|seen| {
                    let sum = seen.edges.values().next().map(|(sum, _)| payload(sum, pod.v4));
                    sum == Some((round * 100, round * 200))
                })
                .await;
        }
        let (key, (sum, last)) = watch.seen.edges.first_key_value().unwrap();
        assert_eq!((key.initiator, key.scope), (range.network(), Scope::Range(28)));
        assert_eq!((sum.attempts, sum.accepted, last.oriented_by), (1, 1, OrientedBy::Listener));
        assert_eq!(watch.seen.edges.len(), 1, "{:#?}", watch.seen.edges);
        // Its edge spent the budget: it is charged as one that the programs make.
        let other = SocketAddr::new(pod.v4, 8081);
        let _second = Open::new(None, Some(&pod), other, None).await;
        watch.read().await;
        let losses = watch.capture.losses();
        let [loss] = &losses[..] else { panic!("{losses:?}") };
        assert_eq!((&*loss.stage, &*loss.reason, loss.edges), ("budget", "outside", 1));
    });
}

#[test]
fn a_connection_that_goes_on_after_its_edge_left_the_kernel_is_not_counted_again() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        client.namespace.run(traffic::without_ipv6).await;
        server.namespace.run(traffic::without_ipv6).await;
        let settings = Settings { edge_idle: Duration::from_millis(50), ..Settings::default() };
        let mut watch = Watch::start_with(settings).await;
        let address = SocketAddr::new(server.v4, 8080);
        let mut open = Open::new(Some(&client), Some(&server), address, None).await;
        for round in 1..=4 {
            open.exchange();
            watch
                .until(|seen| {
                    seen.edges.len() == 2
                        && seen.edges.values().all(|(sum, _)| {
                            sum.bytes_to_responder >= round * 100 && sum.bytes_to_initiator >= round * 200
                        })
                })
                .await;
            let left = watch.capture.status().left;
            for _ in 0..1000 {
                watch.read().await;
                if watch.capture.status().left >= left + 2 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        watch.read().await;
        for (direction, index) in [(Direction::Egress, client.index), (Direction::Ingress, server.index)] {
            let edge = watch.edge(direction, index, 8080, Protocol::Tcp);
            assert_eq!((connections(edge), edge.1), ((1, 1, 0), OrientedBy::Handshake));
        }
        assert!(watch.seen.unoriented.is_empty(), "{:#?}", watch.seen.unoriented);
        assert_eq!(watch.capture.losses(), []);
    });
}

#[test]
fn a_closed_listener_leaves_what_the_other_end_tells() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        let mut between =
            Open::new(Some(&client), Some(&server), SocketAddr::new(server.v4, 8080), None).await;
        let mut outside = Open::new(None, Some(&server), SocketAddr::new(server.v6, 8081), None).await;
        for open in [&mut between, &mut outside] {
            open.listener = None;
        }
        let mut watch = Watch::start().await;
        for open in [&mut between, &mut outside] {
            open.exchange();
        }
        watch.until(|seen| seen.edges.len() == 2 && seen.unoriented.len() == 1).await;
        for (direction, index) in [(Direction::Egress, client.index), (Direction::Ingress, server.index)] {
            let edge = watch.edge(direction, index, 8080, Protocol::Tcp);
            assert_eq!((connections(edge), edge.1), ((1, 1, 0), OrientedBy::Listener));
        }
        let [unknown] = watch.seen.unoriented.values().copied().collect::<Vec<_>>()[..] else { panic!() };
        assert_eq!(unknown.key.local, SocketAddr::new(server.v6, 8081));
        assert_eq!(unknown.connections, 1);
        // Somebody who knows the Services answers: from then on its packets are an edge's.
        watch.capture.settle(vec![(unknown.key, Direction::Ingress)]);
        outside.exchange();
        watch.until(|seen| seen.edges.len() == 3).await;
        let edge = watch.edge(Direction::Ingress, server.index, 8081, Protocol::Tcp);
        assert_eq!(
            (connections(edge), edge.1),
            ((0, 0, 0), OrientedBy::Service),
            "it was told as one before"
        );
        assert_eq!(watch.capture.losses(), []);
    });
}

#[test]
fn ports_that_could_both_be_clients_tell_nothing_without_a_listener() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        let from = SocketAddr::new(client.v4, 40000);
        let mut open =
            Open::new(Some(&client), Some(&server), SocketAddr::new(server.v4, 50000), Some(from)).await;
        open.listener = None;
        let mut watch = Watch::start().await;
        for round in 1..=2 {
            open.exchange();
            watch
                .until(|seen| {
                    seen.unoriented.len() == 2
                        && seen.unoriented.values().all(|seen| {
                            seen.bytes_from_pod.max(seen.bytes_to_pod)
                                >= round * 200 + 52 * seen.packets_from_pod.min(seen.packets_to_pod)
                        })
                })
                .await;
        }
        for seen in watch.seen.unoriented.values() {
            assert_eq!(seen.connections, 1, "told once: {seen:?}");
        }
        assert!(watch.seen.edges.is_empty(), "{:#?}", watch.seen.edges);
        assert_eq!(watch.capture.losses(), []);
    });
}

#[test]
fn knocking_on_ports_makes_no_connections() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        let target = SocketAddr::new(server.v4, 8080);
        let _listener = server.namespace.run(move || TcpListener::bind(target).unwrap()).await;
        let mut watch = Watch::start().await;
        let station = station_of(&host, client.index).await;
        let (from, to) = (client.v4, server.v4);
        let knocks = [80, 8080].map(|destination| {
            let tcp = Tcp { source: 40000, destination, sequence: 5, acknowledged: 9, flags: ACK }.with(0);
            let mut knock = frame(from, to, 6, &tcp);
            knock[..6].copy_from_slice(&station);
            traffic::with_checksums(knock)
        });
        client
            .namespace
            .run(move || knocks.iter().for_each(|knock| send_frame("vpeer10", knock, None)))
            .await;
        // The server's stack answers each with a reset, which crosses both interfaces.
        for _ in 0..500 {
            watch.read().await;
            let resets = watch.capture.losses();
            if resets.iter().any(|loss| loss.reason == "opening-not-seen" && loss.packets == 4) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        watch.read().await;
        assert!(watch.seen.edges.is_empty(), "{:#?}", watch.seen.edges);
        assert!(watch.seen.unoriented.is_empty(), "{:#?}", watch.seen.unoriented);
        let losses = watch.capture.losses();
        assert_eq!(losses.len(), 1, "{losses:?}");
        assert_eq!((&*losses[0].reason, losses[0].packets), ("opening-not-seen", 4));
    });
}

#[test]
fn a_request_from_a_servers_port_to_a_clients_is_known_by_the_asking_socket() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        let mut watch = Watch::start().await;
        for (from, to) in [(client.v4, server.v4), (client.v6, server.v6)] {
            let inbox = server.namespace.run(move || UdpSocket::bind((to, 40001)).unwrap()).await;
            let asker = client.namespace.run(move || UdpSocket::bind((from, 1053)).unwrap()).await;
            asker.connect((to, 40001)).unwrap();
            let mut buffer = [0; 100];
            for socket in [&inbox, &asker] {
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            }
            for _ in 0..2 {
                asker.send(&[1; 10]).unwrap();
                let (_, from) = inbox.recv_from(&mut buffer).unwrap();
                inbox.send_to(&[2; 20], from).unwrap();
                asker.recv(&mut buffer).unwrap();
            }
        }
        watch.read().await;
        for (direction, index) in [(Direction::Egress, client.index), (Direction::Ingress, server.index)] {
            for address in [server.v4, server.v6] {
                let (counters, last) = watch.edge_to(direction, index, address, 40001);
                assert_eq!(
                    (connections((counters, last.oriented_by)), last.oriented_by),
                    ((1, 1, 0), OrientedBy::Listener)
                );
                assert_eq!((counters.packets_to_responder, counters.packets_to_initiator), (2, 2));
            }
        }
        assert_eq!(watch.seen.edges.len(), 4, "the answers are no requests: {:#?}", watch.seen.edges);
        assert_eq!(watch.capture.losses(), []);
    });
}

#[test]
fn an_answer_to_a_datagram_that_passed_before_is_no_request() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        for address in [server.v4, server.v6] {
            let target = SocketAddr::new(address, 5353);
            let source = SocketAddr::new(if address.is_ipv4() { client.v4 } else { client.v6 }, 0);
            let inbox = server.namespace.run(move || UdpSocket::bind(target).unwrap()).await;
            let asker = client
                .namespace
                .run(move || {
                    let socket = UdpSocket::bind(source).unwrap();
                    socket.connect(target).unwrap();
                    socket.send(&[1; 10]).unwrap();
                    socket
                })
                .await;
            let mut buffer = [0; 100];
            for socket in [&inbox, &asker] {
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            }
            let (_, from) = inbox.recv_from(&mut buffer).unwrap();
            let mut watch = Watch::start().await;
            // The answer comes late; the programs have not seen what it answers.
            inbox.send_to(&[2; 20], from).unwrap();
            asker.recv(&mut buffer).unwrap();
            watch.until(|seen| seen.edges.len() == 2).await;
            asker.send(&[1; 10]).unwrap();
            inbox.recv(&mut buffer).unwrap();
            inbox.send_to(&[2; 20], from).unwrap();
            asker.recv(&mut buffer).unwrap();
            watch.until(|seen| seen.edges.values().all(|(counters, _)| counters.packets() == 3)).await;
            for (direction, index) in [(Direction::Egress, client.index), (Direction::Ingress, server.index)]
            {
                let edge = watch.edge(direction, index, 5353, Protocol::Udp);
                assert_eq!((connections(edge), edge.1), ((1, 1, 0), OrientedBy::Listener));
                assert_eq!((edge.0.packets_to_responder, edge.0.packets_to_initiator), (1, 2));
            }
            assert_eq!(watch.seen.edges.len(), 2, "{:#?}", watch.seen.edges);
            assert_eq!(watch.capture.losses(), []);
            watch.capture.stop().await;
        }
    });
}
