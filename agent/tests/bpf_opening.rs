//! Who opened a connection, and what became of it, rule by rule, between real network namespaces: also where half of
//! the packets pass the programs by.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

#[expect(dead_code, reason = "shared with other tests; each uses its part")]
#[path = "bpf_veth/netns.rs"]
mod netns;
#[path = "bpf_veth/redirect.rs"]
mod redirect;
#[expect(dead_code, reason = "shared with other tests; each uses its part")]
#[path = "bpf_veth/traffic.rs"]
mod traffic;
#[expect(dead_code, reason = "shared with other tests; each uses its part")]
#[path = "bpf_veth/watch.rs"]
mod watch;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use dryfence::model::edge::{Counters, Direction, IfIndex, OrientedBy, Protocol};
use dryfence::model::outcome::Outcome;
use netns::{Pod, in_own_namespace};
use traffic::{ask_tcp, serve_tcp};
use watch::Watch;

fn connections(counters: &Counters) -> (u64, u64, u64) {
    (counters.attempts, counters.accepted, counters.refused)
}

/// The addresses of two pods, of each family.
fn families(client: &Pod, server: &Pod) -> [(IpAddr, IpAddr); 2] {
    [(client.v4, server.v4), (client.v6, server.v6)]
}

/// Whether the host passes packets on, or drops them without a word.
fn forward(yes: bool) {
    for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{path}"), if yes { "1" } else { "0" }).unwrap();
    }
}

#[test]
fn where_two_syns_meet_each_sender_has_opened_and_the_answers_say_to_whom() {
    in_own_namespace(|host| async move {
        let one = Pod::new(&host, 10).await;
        let two = Pod::new(&host, 20).await;
        let mut watch = Watch::start().await;
        for (one_ip, two_ip) in families(&one, &two) {
            let (one_end, two_end) = (SocketAddr::new(one_ip, 1000), SocketAddr::new(two_ip, 2000));
            // The first SYN crosses the sender's interface and is lost behind it.
            forward(false);
            let waiting = one.namespace.run(move || traffic::begin_to_connect(one_end, two_end)).await;
            forward(true);
            // The second finds a socket that is opening itself: it answers with a SYN-ACK.
            let stream = two.namespace.run(move || traffic::connect_from(two_end, one_end)).await;
            drop((waiting, stream));
        }
        watch.until(|seen| seen.edges.len() == 6).await;
        for direction in Direction::BOTH {
            let index = if direction == Direction::Egress { two.index } else { one.index };
            for address in [one.v4, one.v6] {
                let (counters, last) = watch.edge_to(direction, index, address, 1000);
                assert_eq!(connections(&counters), (1, 1, 0), "{direction} {address}");
                assert_eq!(last.oriented_by, OrientedBy::Handshake);
            }
        }
        for address in [two.v4, two.v6] {
            let (counters, _) = watch.edge_to(Direction::Egress, one.index, address, 2000);
            assert_eq!(connections(&counters), (1, 0, 0), "its own SYN was never answered: {address}");
        }
    });
}

#[test]
fn refused_and_unanswered_are_told_apart_and_retransmits_open_nothing() {
    in_own_namespace(|host| async move {
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        let mut watch = Watch::start().await;
        for (_, target) in families(&client, &server) {
            client
                .namespace
                .run(move || {
                    let refused = ask_tcp(SocketAddr::new(target, 81)).unwrap_err();
                    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
                })
                .await;
            forward(false);
            client
                .namespace
                .run(move || {
                    // Long enough for one retransmit of the SYN, after a second.
                    let patience = Duration::from_millis(1500);
                    TcpStream::connect_timeout(&SocketAddr::new(target, 82), patience).unwrap_err();
                })
                .await;
            forward(true);
        }
        watch.until(|seen| seen.edges.len() == 6).await;
        for (_, target) in families(&client, &server) {
            let (refused, last) = watch.edge_to(Direction::Egress, client.index, target, 81);
            assert_eq!(connections(&refused), (1, 0, 1));
            assert!(last.fully_visible);
            let (unanswered, _) = watch.edge_to(Direction::Egress, client.index, target, 82);
            assert_eq!(connections(&unanswered), (1, 0, 0));
            assert!(unanswered.packets_to_responder >= 2, "{unanswered:?}");
            let outcome = Outcome::of(Protocol::Tcp, &unanswered, true);
            assert_eq!((outcome.connections, outcome.unanswered), (0, 1));
        }
        assert_eq!(watch.capture.losses(), []);
    });
}

#[test]
fn where_answers_pass_the_programs_by_acceptance_shows_by_what_follows_and_silence_says_nothing() {
    in_own_namespace(|host| async move {
        if !redirect::is_possible() {
            eprintln!("SKIPPED: this kernel has no TCX");
            return;
        }
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        // As an eBPF data plane does it: what a pod sends goes straight into the other pod's interface, and
        // never crosses the host side of that.
        let _links =
            [redirect::to_peer(client.index, server.index), redirect::to_peer(server.index, client.index)];
        let mut watch = Watch::start().await;
        for (_, target) in families(&client, &server) {
            server.namespace.run(move || serve_tcp(SocketAddr::new(target, 8080))).await;
            client
                .namespace
                .run(move || {
                    for _ in 0..3 {
                        ask_tcp(SocketAddr::new(target, 8080)).unwrap();
                    }
                    let refused = ask_tcp(SocketAddr::new(target, 81)).unwrap_err();
                    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
                })
                .await;
        }
        watch.until(|seen| seen.edges.len() == 8).await;
        watch.read().await;
        for (_, target) in families(&client, &server) {
            let (accepted, last) = watch.edge_to(Direction::Egress, client.index, target, 8080);
            assert_eq!(connections(&accepted), (3, 3, 0), "{target}");
            assert_eq!((accepted.packets_to_initiator, last.fully_visible), (0, false));
            let (accepted, last) = watch.edge_to(Direction::Ingress, server.index, target, 8080);
            assert_eq!(connections(&accepted), (3, 3, 0), "{target}");
            assert_eq!((accepted.packets_to_responder, last.fully_visible), (0, false));
            // The refusal shows at the server's side alone.
            let (refused, _) = watch.edge_to(Direction::Ingress, server.index, target, 81);
            assert_eq!(connections(&refused), (1, 0, 1), "{target}");
            let (unknown, last) = watch.edge_to(Direction::Egress, client.index, target, 81);
            assert_eq!(connections(&unknown), (1, 0, 0), "{target}");
            let outcome = Outcome::of(Protocol::Tcp, &unknown, last.fully_visible);
            assert_eq!((outcome.connections, outcome.unanswered), (1, 0), "it may have been accepted");
        }
        assert!(watch.seen.edges.values().all(|(_, last)| !last.fully_visible), "{:#?}", watch.seen.edges);
        assert_eq!(watch.capture.losses(), []);
    });
}

#[test]
fn one_packet_the_other_way_makes_an_interface_fully_visible() {
    in_own_namespace(|host| async move {
        if !redirect::is_possible() {
            eprintln!("SKIPPED: this kernel has no TCX");
            return;
        }
        let client = Pod::new(&host, 10).await;
        let server = Pod::new(&host, 20).await;
        let _link = redirect::to_peer(client.index, server.index);
        let mut watch = Watch::start().await;
        let target = server.v4;
        client.namespace.run(move || ask_tcp(SocketAddr::new(target, 81)).unwrap_err()).await;
        watch.until(|seen| seen.edges.len() == 2).await;
        let (refused, last) = watch.edge_to(Direction::Egress, client.index, target, 81);
        assert_eq!((connections(&refused), last.fully_visible), ((1, 0, 1), true));
        let (_, last) = watch.edge_to(Direction::Ingress, server.index, target, 81);
        assert!(!last.fully_visible, "nothing was seen to come to the server");
    });
}

#[test]
fn an_answer_belongs_to_the_edge_it_answers_and_equal_ports_are_two_edges() {
    in_own_namespace(|host| async move {
        let one = Pod::new(&host, 10).await;
        let two = Pod::new(&host, 20).await;
        let mut watch = Watch::start().await;
        for (one_ip, two_ip) in families(&one, &two) {
            // A server on a lower and on a higher port than its client, and two that gossip.
            for (client_port, server_port) in [(40000, 53), (1053, 5000), (7946, 7946)] {
                let (from, to) = (SocketAddr::new(one_ip, client_port), SocketAddr::new(two_ip, server_port));
                let bind = |address: SocketAddr| {
                    move || {
                        let socket = UdpSocket::bind(address).unwrap();
                        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                        socket
                    }
                };
                let asker = one.namespace.run(bind(from)).await;
                let server = two.namespace.run(bind(to)).await;
                let mut buffer = [0; 100];
                for _ in 0..3 {
                    asker.send_to(&[1; 10], to).unwrap();
                    server.recv(&mut buffer).unwrap();
                    server.send_to(&[2; 20], from).unwrap();
                    asker.recv(&mut buffer).unwrap();
                }
            }
        }
        watch.read().await;
        for (one_ip, two_ip) in families(&one, &two) {
            for (direction, index) in [(Direction::Egress, one.index), (Direction::Ingress, two.index)] {
                for port in [53, 5000] {
                    let (counters, last) = watch.edge_to(direction, index, two_ip, port);
                    assert_eq!(connections(&counters), (1, 1, 0), "{direction} {port}");
                    assert_eq!((counters.packets_to_responder, counters.packets_to_initiator), (3, 3));
                    assert_eq!(last.oriented_by, OrientedBy::FirstPacket);
                }
                for (direction, responder) in [(direction, two_ip), (direction.other(), one_ip)] {
                    let (counters, _) = watch.edge_to(direction, index, responder, 7946);
                    assert_eq!(connections(&counters), (1, 1, 0), "{direction} to {responder}");
                    assert_eq!((counters.packets_to_responder, counters.packets_to_initiator), (3, 0));
                }
            }
        }
        assert_eq!(watch.seen.edges.len(), 2 * 2 * 4, "{:#?}", watch.seen.edges);
        assert_eq!(watch.capture.losses(), []);
        assert!(
            watch.seen.edges.keys().all(|key| [one.index, two.index].map(IfIndex).contains(&key.interface))
        );
    });
}

#[test]
fn a_datagram_in_fragments_counts_whole_for_its_edge() {
    /// Three fragments at the interfaces' MTU of 9000.
    const PAYLOAD: usize = 20_000;
    in_own_namespace(|host| async move {
        let one = Pod::new(&host, 10).await;
        let two = Pod::new(&host, 20).await;
        let mut watch = Watch::start().await;
        for (one_ip, two_ip) in families(&one, &two) {
            let to = SocketAddr::new(two_ip, 5000);
            let inbox = two.namespace.run(move || UdpSocket::bind(to).unwrap()).await;
            inbox.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let asker = one.namespace.run(move || UdpSocket::bind((one_ip, 40000)).unwrap()).await;
            asker.send_to(&[1; PAYLOAD], to).unwrap();
            assert_eq!(inbox.recv(&mut [0; PAYLOAD]).unwrap(), PAYLOAD, "it arrives whole");
        }
        watch.read().await;
        for (_, two_ip) in families(&one, &two) {
            let headers = if two_ip.is_ipv4() { 20 } else { 40 + 8 };
            for (direction, index) in [(Direction::Egress, one.index), (Direction::Ingress, two.index)] {
                let (counters, _) = watch.edge_to(direction, index, two_ip, 5000);
                assert_eq!(connections(&counters), (1, 0, 0), "{direction} {two_ip}");
                assert_eq!(counters.packets_to_responder, 3);
                assert_eq!(counters.bytes_to_responder, 3 * headers + 8 + PAYLOAD as u64);
            }
        }
        assert_eq!(watch.seen.edges.len(), 4, "{:#?}", watch.seen.edges);
        assert_eq!(watch.capture.losses(), []);
    });
}

#[test]
fn a_datagram_to_a_closed_port_is_refused_by_the_error_that_quotes_it() {
    in_own_namespace(|host| async move {
        let one = Pod::new(&host, 10).await;
        let two = Pod::new(&host, 20).await;
        let mut watch = Watch::start().await;
        for (_, two_ip) in families(&one, &two) {
            let refused = one
                .namespace
                .run(move || {
                    let any: IpAddr =
                        if two_ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { "::".parse().unwrap() };
                    let socket = UdpSocket::bind((any, 0)).unwrap();
                    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                    socket.connect((two_ip, 9)).unwrap();
                    socket.send(&[1]).unwrap();
                    socket.recv(&mut [0; 10]).unwrap_err().kind()
                })
                .await;
            assert_eq!(refused, ErrorKind::ConnectionRefused);
        }
        watch.read().await;
        for (_, two_ip) in families(&one, &two) {
            for (direction, index) in [(Direction::Egress, one.index), (Direction::Ingress, two.index)] {
                let (counters, _) = watch.edge_to(direction, index, two_ip, 9);
                assert_eq!(connections(&counters), (1, 0, 1), "{direction} {two_ip}");
            }
        }
        assert_eq!(watch.seen.edges.len(), 4, "the errors are no edges: {:#?}", watch.seen.edges);
        assert_eq!(watch.capture.losses(), []);
    });
}
