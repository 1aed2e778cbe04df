use std::net::IpAddr;

use dryfence_common::packet::TCP;

use super::*;
use crate::capture::Interface;
use crate::capture::sockets::Sockets;

const POD: &str = "192.0.2.10";
const OTHER: &str = "192.0.2.20";
const CLIENT: u16 = 40_000;
const SERVER: u16 = 8080;

fn mk_key(protocol: u8, local_port: u16, remote_port: u16) -> OrphanKey {
    let address = |text: &str| from_ip(text.parse::<IpAddr>().unwrap());
    OrphanKey {
        local: address(POD),
        remote: address(OTHER),
        interface: 7,
        local_port,
        remote_port,
        protocol,
        padding: [0; 7],
    }
}

/// The same connection at the other end's interface.
fn mirrored(key: &OrphanKey) -> OrphanKey {
    OrphanKey {
        local: key.remote,
        remote: key.local,
        interface: 8,
        local_port: key.remote_port,
        remote_port: key.local_port,
        ..*key
    }
}

fn mk_value(evidence: u16) -> OrphanValue {
    OrphanValue {
        packets_from_pod: 2,
        packets_to_pod: 1,
        bytes_from_pod: 200,
        bytes_to_pod: 100,
        first_seen: 10,
        last_seen: 20,
        evidence,
        ..OrphanValue::default()
    }
}

#[test]
fn sockets_tell_who_opened_a_tcp_connection_or_nobody_does() {
    let listener = ASKED | LISTENER | OPEN;
    let open = ASKED | OPEN;
    let out = Some((Direction::Egress, OrientedBy::Listener));
    let to = Some((Direction::Ingress, OrientedBy::Listener));
    let rows = [
        ("the pod listens", SERVER, CLIENT, listener, None, to),
        ("the pod listens, on a client's port", CLIENT, CLIENT, listener, None, to),
        ("the other pod listens", CLIENT, SERVER, open, Some(listener), out),
        ("the other pod listens, and nobody could be asked here", CLIENT, SERVER, 0, Some(listener), out),
        ("both listen on the connection's ports", SERVER, SERVER, listener, Some(listener), None),
        ("open on a client's port, to a server's outside", CLIENT, SERVER, open, None, out),
        ("the listener is closed, the other end is outside", SERVER, CLIENT, open, None, None),
        ("the listener is closed, the other end is a pod", SERVER, CLIENT, open, Some(open), to),
        ("clients' ports at both ends", CLIENT, CLIENT + 1, open, Some(open), None),
        ("servers' ports at both ends", SERVER, SERVER + 1, open, Some(open), None),
        ("nobody could be asked", CLIENT, SERVER, 0, None, None),
        ("no socket here", CLIENT, SERVER, ASKED, None, None),
    ];
    for (name, local_port, remote_port, here, there, expected) in rows {
        assert_eq!(orient(&mk_key(TCP, local_port, remote_port), here, there), expected, "{name}");
    }
}

#[test]
fn sockets_tell_who_asks_by_datagrams() {
    const DNS: u16 = 53;
    let out = |by| Some((Direction::Egress, by));
    let to = |by| Some((Direction::Ingress, by));
    let rows = [
        ("connected", CLIENT, DNS, ASKED | OPEN, None, out(OrientedBy::Listener)),
        ("bound to a server's port", DNS, CLIENT, ASKED | LISTENER, None, to(OrientedBy::Listener)),
        ("bound to a client's port", CLIENT, DNS, ASKED | LISTENER, None, None),
        (
            "the other pod serves",
            CLIENT,
            DNS,
            ASKED | LISTENER,
            Some(ASKED | LISTENER),
            out(OrientedBy::Listener),
        ),
        ("the other pod asks", DNS, CLIENT, 0, Some(ASKED | OPEN), to(OrientedBy::Listener)),
        ("both are connected", DNS, CLIENT, ASKED | OPEN, Some(ASKED | OPEN), None),
        (
            "no socket, sent by the pod",
            DNS,
            CLIENT,
            ASKED | FIRST_FROM_POD,
            None,
            out(OrientedBy::FirstPacket),
        ),
        ("no socket, sent to the pod", CLIENT, DNS, ASKED, None, to(OrientedBy::FirstPacket)),
        ("nobody could be asked", CLIENT, DNS, FIRST_FROM_POD, None, None),
    ];
    for (name, local_port, remote_port, here, there, expected) in rows {
        assert_eq!(orient(&mk_key(UDP, local_port, remote_port), here, there), expected, "{name}");
    }
}

fn read(orphans: &mut Orphans, values: &[(OrphanKey, OrphanValue)], number: u64) -> OrphanReading {
    read_last(orphans, values, number, false)
}

fn read_last(
    orphans: &mut Orphans,
    values: &[(OrphanKey, OrphanValue)],
    number: u64,
    is_last: bool,
) -> OrphanReading {
    orphans.since_last(values, &|_| (None, false), &mk_moment(number, &|_| is_last))
}

fn mk_moment(number: u64, is_last: &dyn Fn(u32) -> bool) -> Moment<'_> {
    Moment {
        from: Timestamp::from_nanos(number * 1000),
        ended: Timestamp::from_nanos(number * 1000 + 1000),
        clock: Clock { offset: 0, now: 0 },
        fully_visible: &|_| true,
        is_estimated: &|_| false,
        is_last,
    }
}

#[test]
fn a_connection_is_counted_once_however_many_packets_it_has() {
    let mut orphans = Orphans::default();
    let key = mk_key(TCP, SERVER, CLIENT);
    let first = mk_value(ASKED | OPEN | LISTENER);
    let reading = read(&mut orphans, &[(key, first)], 1);
    let [seen] = reading.observations[..] else { panic!("{reading:?}") };
    assert_eq!((seen.key.direction, seen.key.port), (Direction::Ingress, SERVER));
    assert_eq!((seen.delta.attempts, seen.delta.accepted), (1, 1));
    assert_eq!((seen.delta.packets_to_responder, seen.delta.packets_to_initiator), (1, 2));
    let more = OrphanValue { packets_from_pod: 7, bytes_from_pod: 900, ..first };
    let reading = read(&mut orphans, &[(key, more)], 2);
    let [seen] = reading.observations[..] else { panic!("{reading:?}") };
    assert_eq!((seen.delta.attempts, seen.delta.accepted), (0, 0));
    assert_eq!((seen.delta.packets_to_initiator, seen.delta.bytes_to_initiator), (5, 700));
    assert!(read(&mut orphans, &[(key, more)], 3).observations.is_empty(), "nothing came");
}

#[test]
fn a_connection_whose_edge_fell_silent_is_not_counted_again() {
    let key = mk_key(TCP, SERVER, CLIENT);
    let edge = edge_key(&key, Direction::Ingress, None);
    let range = "192.0.2.0/28".parse().unwrap();
    let folded = edge_key(&key, Direction::Ingress, Some(range));
    assert_eq!(folded.folded_bits(), 4);
    for edge in [edge, folded] {
        let mut orphans = Orphans::default();
        orphans.fell_silent(vec![(edge, OrientedBy::Handshake)]);
        assert_eq!(orphans.of_silent_edge(&mk_key(TCP, SERVER + 1, CLIENT), Some(range)), None);
        let known = orphans.of_silent_edge(&key, Some(range));
        assert_eq!(known, Some((Direction::Ingress, OrientedBy::Handshake)));
        let moment = Moment {
            from: Timestamp::EPOCH,
            ended: Timestamp::from_nanos(1000),
            clock: Clock { offset: 0, now: 0 },
            fully_visible: &|_| true,
            is_estimated: &|_| false,
            is_last: &|_| false,
        };
        // A keep-alive, and nobody could be asked.
        let value = OrphanValue { packets_from_pod: 0, ..mk_value(0) };
        let reading = orphans.since_last(&[(key, value)], &|_| (Some(range), true), &moment);
        let [seen] = reading.observations[..] else { panic!("{reading:?}") };
        assert_eq!((seen.key.direction, seen.key.port), (Direction::Ingress, SERVER));
        assert_eq!((seen.delta.attempts, seen.delta.packets_to_responder), (0, 1));
    }
    // Edges of both directions: nobody knows.
    let mut orphans = Orphans::default();
    let both = Direction::BOTH.map(|direction| (edge_key(&key, direction, None), OrientedBy::Handshake));
    orphans.fell_silent(both.to_vec());
    assert_eq!(orphans.of_silent_edge(&key, None), None);
}

#[test]
fn one_ends_listener_orients_the_other_end() {
    let mut orphans = Orphans::default();
    let (here, there) = (mk_key(TCP, CLIENT, SERVER), mirrored(&mk_key(TCP, CLIENT, SERVER)));
    let values = [(here, mk_value(ASKED | OPEN)), (there, mk_value(ASKED | OPEN | LISTENER))];
    let reading = read(&mut orphans, &values, 1);
    let directions: Vec<_> =
        reading.observations.iter().map(|seen| (seen.key.interface, seen.key.direction)).collect();
    assert_eq!(directions, [(IfIndex(7), Direction::Egress), (IfIndex(8), Direction::Ingress)]);
    assert!(reading.unoriented.is_empty());
}

#[test]
fn what_sockets_do_not_tell_waits_one_reading_for_the_other_end_and_is_handed_on_whole() {
    let mut orphans = Orphans::default();
    let key = mk_key(TCP, CLIENT, CLIENT + 1);
    let value = mk_value(ASKED | OPEN);
    let reading = read(&mut orphans, &[(key, value)], 1);
    assert!(reading.observations.is_empty() && reading.unoriented.is_empty(), "{reading:?}");
    let reading = read(&mut orphans, &[(key, value)], 2);
    let [seen] = reading.unoriented[..] else { panic!("{reading:?}") };
    assert_eq!((seen.connections, seen.packets_from_pod, seen.packets_to_pod), (1, 2, 1));
    assert_eq!(seen.read_from, Timestamp::from_nanos(1000), "the packets may be as old as the first reading");
    // Somebody who knows the cluster answers.
    orphans.settle(&seen.key, Direction::Ingress);
    let more = OrphanValue { packets_to_pod: 4, ..value };
    let reading = read(&mut orphans, &[(key, more)], 3);
    let [seen] = reading.observations[..] else { panic!("{reading:?}") };
    assert_eq!((seen.key.port, seen.oriented_by), (CLIENT, OrientedBy::Service));
    assert_eq!((seen.delta.attempts, seen.delta.packets_to_responder), (0, 3));
}

#[test]
fn nothing_waits_where_no_reading_will_follow() {
    let mut orphans = Orphans::default();
    let values = [(mk_key(TCP, CLIENT, CLIENT + 1), mk_value(ASKED | OPEN))];
    assert_eq!(read_last(&mut orphans, &values, 1, true).unoriented.len(), 1);
}

#[test]
fn who_knocks_without_a_connection_is_never_told_as_one() {
    let mut orphans = Orphans::default();
    let key = mk_key(TCP, SERVER, CLIENT);
    let knock = OrphanValue { packets_from_pod: 0, ..mk_value(ASKED | LISTENER) };
    for number in 1..4 {
        let reading = read(&mut orphans, &[(key, knock)], number);
        assert!(reading.observations.is_empty() && reading.unoriented.is_empty(), "{reading:?}");
        assert_eq!(reading.strays, 0, "more may come");
    }
    assert_eq!(
        read_last(&mut orphans, &[(key, knock)], 4, true).strays,
        1,
        "and lost when its interface goes"
    );
    // Once the pod speaks too, a proxy in it has the socket under other ports.
    let reading = read(&mut orphans, &[(key, OrphanValue { packets_from_pod: 1, ..knock })], 4);
    assert_eq!(reading.observations.len(), 1);
}

fn mk_interface(index: u32, netns_id: i32, routed: &[&str]) -> Interface {
    Interface {
        index: IfIndex(index),
        name: format!("veth{index}"),
        since: Timestamp::EPOCH,
        netns_id,
        device_type: 1,
        routed: routed.iter().map(|address| address.parse().unwrap()).collect(),
    }
}

/// A namespace in which these connections are accepted, if their port is below clients'.
fn mk_sockets(connections: &[(&str, &str)]) -> Sockets {
    Sockets::of_connections(connections.iter().map(|(local, remote)| Ends {
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        protocol: TCP,
    }))
}

#[test]
fn connections_that_sockets_show_are_told_once_and_wait_for_who_knows_the_cluster() {
    let mut orphans = Orphans::new(true);
    let sockets = FxHashMap::from_iter([(
        3,
        mk_sockets(&[("192.0.2.10:8080", "192.0.2.20:40000"), ("192.0.2.10:40001", "192.0.2.20:40002")]),
    )]);
    assert_eq!(orphans.adopt(&sockets, &[&mk_interface(7, 3, &["192.0.2.10"])]), 0);
    let told = |orphans: &mut Orphans, number| {
        let mut reading = OrphanReading::default();
        orphans.tell_adopted(&|_| (None, false), &mk_moment(number, &|_| false), &mut reading);
        reading
    };
    let reading = told(&mut orphans, 1);
    let ([seen], [unknown]) = (&reading.observations[..], &reading.unoriented[..]) else {
        panic!("{reading:?}")
    };
    assert_eq!((seen.key.direction, seen.key.port), (Direction::Ingress, SERVER));
    assert_eq!((seen.delta.attempts, seen.delta.accepted, seen.delta.packets()), (1, 1, 0));
    assert_eq!((unknown.connections, unknown.key.local.port()), (1, 40001));
    let reading = told(&mut orphans, 2);
    assert!(reading.observations.is_empty() && reading.unoriented.is_empty(), "{reading:?}");
    // Its packets are no further connection.
    let key = mk_key(TCP, SERVER, CLIENT);
    let reading = read(&mut orphans, &[(key, mk_value(ASKED | OPEN | LISTENER))], 3);
    let [seen] = reading.observations[..] else { panic!("{reading:?}") };
    assert_eq!((seen.delta.attempts, seen.delta.packets()), (0, 3));
    assert!(orphans.questions().is_empty());
}

#[test]
fn a_connection_belongs_to_the_interface_that_its_address_is_routed_to() {
    let rows: [(&str, &[Interface], _); 5] = [
        ("the only one", &[mk_interface(7, 3, &[])], 0),
        ("its own", &[mk_interface(7, 3, &["192.0.2.10"]), mk_interface(8, 3, &[])], 0),
        ("only the other family is routed", &[mk_interface(7, 3, &["2001:db8::10"])], 0),
        ("another address is routed", &[mk_interface(7, 3, &["192.0.2.11"])], 1),
        ("two, and none is told apart", &[mk_interface(7, 3, &[]), mk_interface(8, 3, &[])], 1),
    ];
    for (name, interfaces, left) in rows {
        let mut orphans = Orphans::new(true);
        let sockets = FxHashMap::from_iter([(3, mk_sockets(&[("192.0.2.10:8080", "192.0.2.20:40000")]))]);
        let interfaces: Vec<_> = interfaces.iter().collect();
        assert_eq!(orphans.adopt(&sockets, &interfaces), left, "{name}");
    }
}

#[test]
fn sockets_that_the_programs_do_not_find_are_asked_for_before_anything_is_told() {
    let mut orphans = Orphans::new(true);
    let key = mk_key(TCP, CLIENT, CLIENT + 1);
    orphans.interfaces.insert(7, OrphanInterface { since: 0, allowance: 9, namespace: 3, padding: 0 });
    let value = mk_value(ASKED);
    for number in 1..3 {
        let reading = read(&mut orphans, &[(key, value)], number);
        assert!(reading.observations.is_empty() && reading.unoriented.is_empty(), "{reading:?}");
        let expected: &[_] = if number == 1 { &[(3, key)] } else { &[] };
        assert_eq!(orphans.questions(), expected, "asked once");
    }
    orphans.answered(&[(key, ASKED | OPEN | LISTENER)]);
    let reading = read(&mut orphans, &[(key, value)], 3);
    let [seen] = reading.observations[..] else { panic!("{reading:?}") };
    assert_eq!((seen.key.port, seen.oriented_by), (CLIENT, OrientedBy::Listener));
    assert_eq!(seen.read_from, Timestamp::from_nanos(1000), "the packets may be as old as the first reading");
    // Where nobody can be asked, nothing waits for an answer.
    let other = OrphanKey { interface: 9, ..key };
    let reading = read(&mut orphans, &[(other, value)], 4);
    assert!(reading.unoriented.is_empty(), "{reading:?}");
    assert_eq!(orphans.questions(), []);
    assert_eq!(read(&mut orphans, &[(other, value)], 5).unoriented.len(), 1);
}
