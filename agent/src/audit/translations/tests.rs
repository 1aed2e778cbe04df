use super::*;
use crate::model::edge::{IfIndex, OrientedBy, Scope};
use crate::model::folding::Folding;

const NODE: &str = "192.0.2.1";
const BACKEND: &str = "192.0.2.20";
const ONE: &str = "198.51.100.7";
const OTHER: &str = "203.0.113.9";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_nanos(second * 1_000_000_000)
}

fn mk_told(client: &str, protocol: Protocol) -> Translation {
    Translation {
        protocol,
        client: ip(client),
        asked: SocketAddr::new(ip("203.0.113.200"), 30080),
        backend: SocketAddr::new(ip(BACKEND), 8080),
        seen_as: ip(NODE),
    }
}

fn mk_seen(protocol: Protocol, delta: Counters) -> Observation {
    Observation {
        key: EdgeKey {
            interface: IfIndex(11),
            direction: Direction::Ingress,
            initiator: ip(NODE),
            responder: ip(BACKEND),
            scope: Scope::Address,
            port: 8080,
            protocol,
        },
        delta,
        first_seen: at(2),
        last_seen: at(9),
        read_from: at(8),
        read_at: at(10),
        oriented_by: OrientedBy::Handshake,
        fully_visible: true,
        vlan: 0,
        estimated: false,
    }
}

fn mk_delta(attempts: u64, accepted: u64, refused: u64, packets: u64) -> Counters {
    Counters { attempts, accepted, refused, packets_to_responder: packets, ..Counters::default() }
}

fn mk_translations() -> Translations {
    let mut translations = Translations::default();
    translations.follow(true);
    translations
}

/// `initiator opener attempts/accepted/refused packets`, sorted.
fn show(parts: &[Part]) -> Vec<String> {
    let mut lines: Vec<String> = parts
        .iter()
        .map(|Part { seen: Observation { key, delta, .. }, opener }| {
            let Counters { attempts, accepted, refused, packets_to_responder, .. } = delta;
            format!("{} {opener:?} {attempts}/{accepted}/{refused} {packets_to_responder}", key.initiator)
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn an_edge_that_hides_clients_is_taken_apart_by_who_opened_what() {
    let mut translations = mk_translations();
    for client in [ONE, ONE, OTHER] {
        translations.opened(&mk_told(client, Protocol::Tcp), at(9));
    }
    // Four attempts, three of them told: the fourth is the node's own.
    let parts = translations.split(&mk_seen(Protocol::Tcp, mk_delta(4, 1, 1, 40)), at(10));
    assert_eq!(
        show(&parts),
        ["192.0.2.1 Confirmed 1/0/0 7", "198.51.100.7 Confirmed 2/1/1 26", "203.0.113.9 Confirmed 1/0/0 7"]
    );
    assert!(
        parts.iter().filter(|part| part.seen.key.initiator != ip(NODE)).all(|p| p.seen.first_seen == at(8))
    );
    translations.end_reading(at(10));
    // The answers of the other two come with the next reading, to those who waited.
    let parts = translations.split(&mk_seen(Protocol::Tcp, mk_delta(0, 2, 0, 4)), at(11));
    assert_eq!(show(&parts), ["192.0.2.1 Confirmed 0/1/0 2", "203.0.113.9 Confirmed 0/1/0 2"]);
    // Then only data: in proportion to all that each opened.
    translations.end_reading(at(11));
    let parts = translations.split(&mk_seen(Protocol::Tcp, mk_delta(0, 0, 0, 8)), at(12));
    assert_eq!(
        show(&parts),
        ["192.0.2.1 Confirmed 0/0/0 2", "198.51.100.7 Confirmed 0/0/0 4", "203.0.113.9 Confirmed 0/0/0 2"]
    );
    assert!(translations.losses().iter().all(|loss| loss.edges == 0));
}

#[test]
fn a_connection_told_before_its_packet_is_counted_waits_for_the_reading_but_not_for_ever() {
    let mut translations = mk_translations();
    translations.opened(&mk_told(ONE, Protocol::Tcp), at(9));
    translations.end_reading(at(10));
    let parts = translations.split(&mk_seen(Protocol::Tcp, mk_delta(1, 1, 0, 3)), at(11));
    assert_eq!(show(&parts), ["198.51.100.7 Confirmed 1/1/0 3"]);
    // One whose packet never came does not lend its client to the node's own probe.
    translations.opened(&mk_told(ONE, Protocol::Tcp), at(12));
    translations.end_reading(at(30));
    let parts = translations.split(&mk_seen(Protocol::Tcp, mk_delta(1, 1, 0, 3)), at(31));
    assert_eq!(show(&parts), ["192.0.2.1 Confirmed 1/1/0 3"]);
}

#[test]
fn of_datagrams_each_flow_told_is_an_attempt() {
    let mut translations = mk_translations();
    for client in [ONE, OTHER, OTHER, OTHER] {
        translations.opened(&mk_told(client, Protocol::Udp), at(9));
    }
    let parts = translations.split(&mk_seen(Protocol::Udp, mk_delta(1, 1, 0, 8)), at(10));
    assert_eq!(show(&parts), ["198.51.100.7 Confirmed 1/0/0 2", "203.0.113.9 Confirmed 3/1/0 6"]);
    translations.end_reading(at(10));
    let parts = translations.split(&mk_seen(Protocol::Udp, mk_delta(0, 0, 0, 4)), at(11));
    assert_eq!(show(&parts), ["198.51.100.7 Confirmed 0/0/0 1", "203.0.113.9 Confirmed 0/0/0 3"]);
}

#[test]
fn what_nobody_told_is_confirmed_only_while_nothing_was_missed() {
    let seen = mk_seen(Protocol::Tcp, mk_delta(1, 1, 0, 3));
    assert_eq!(
        show(&Translations::default().split(&seen, at(10))),
        ["192.0.2.1 Seen 1/1/0 3"],
        "not followed"
    );
    let mut translations = mk_translations();
    assert_eq!(show(&translations.split(&seen, at(10))), ["192.0.2.1 Confirmed 1/1/0 3"]);
    translations.missed();
    assert_eq!(show(&translations.split(&seen, at(10))), ["192.0.2.1 Seen 1/1/0 3"]);
    translations.opened(&mk_told(ONE, Protocol::Tcp), at(10));
    let two = mk_seen(Protocol::Tcp, mk_delta(2, 2, 0, 6));
    assert_eq!(
        show(&translations.split(&two, at(10))),
        ["192.0.2.1 Hidden 1/1/0 3", "198.51.100.7 Confirmed 1/1/0 3"]
    );
    let [overrun, full] = translations.losses();
    assert_eq!((overrun.edges, overrun.packets, full.edges), (1, 3, 0));
    translations.end_reading(at(10));
    assert_eq!(show(&translations.split(&seen, at(11))), ["192.0.2.1 Confirmed 1/1/0 3"], "told again");
}

#[test]
fn connections_from_before_are_known_by_the_list() {
    let mut translations = mk_translations();
    translations.standing(&mk_told(ONE, Protocol::Tcp), at(1));
    let parts = translations.split(&mk_seen(Protocol::Tcp, mk_delta(0, 0, 0, 9)), at(10));
    assert_eq!(show(&parts), ["198.51.100.7 Confirmed 0/0/0 9"]);
}

#[test]
fn a_crowd_behind_one_address_is_hidden_beyond_the_bound_and_counted() {
    let mut translations = mk_translations();
    let crowd = MOST_CLIENTS as u32 + 100;
    for number in 0..crowd {
        let client = std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string();
        translations.opened(&mk_told(&client, Protocol::Tcp), at(9));
    }
    let whole = mk_delta(u64::from(crowd), u64::from(crowd), 0, 3 * u64::from(crowd));
    let parts = translations.split(&mk_seen(Protocol::Tcp, whole), at(10));
    assert_eq!(parts.len(), MOST_CLIENTS + 1);
    let sum = parts.iter().fold(Counters::default(), |sum, part| sum.plus(part.seen.delta));
    assert_eq!(sum, whole);
    let hidden: Vec<_> = parts.iter().filter(|part| part.opener == Opener::Hidden).collect();
    assert_eq!(hidden.len(), 1);
    assert_eq!((hidden[0].seen.delta.attempts, hidden[0].seen.key.initiator), (100, ip(NODE)));
    assert_eq!(translations.losses()[1].edges, 1);
    // An hour later there is room again.
    translations.opened(&mk_told(ONE, Protocol::Tcp), at(3700));
    let parts = translations.split(&mk_seen(Protocol::Tcp, mk_delta(1, 0, 0, 1)), at(3700));
    assert_eq!(show(&parts), ["198.51.100.7 Confirmed 1/0/0 1"]);
}

#[test]
fn connections_beyond_the_room_count_as_missed() {
    let mut translations = mk_translations();
    for _ in 0..=MOST_UNREAD {
        translations.opened(&mk_told(ONE, Protocol::Tcp), at(9));
    }
    let whole = mk_delta(MOST_UNREAD as u64 + 1, 0, 0, 0);
    let parts = translations.split(&mk_seen(Protocol::Tcp, whole), at(10));
    assert_eq!(
        show(&parts),
        [format!("{NODE} Hidden 1/0/0 0"), format!("{ONE} Confirmed {MOST_UNREAD}/0/0 0")]
    );
}

#[test]
fn backends_are_those_since_the_last_reading() {
    let mut translations = mk_translations();
    let told = mk_told(ONE, Protocol::Tcp);
    translations.opened(&told, at(9));
    let key = EdgeKey {
        initiator: ip(ONE),
        responder: told.asked.ip(),
        port: told.asked.port(),
        direction: Direction::Egress,
        ..mk_seen(Protocol::Tcp, Counters::default()).key
    };
    assert_eq!(translations.backends(&key), [told.backend]);
    assert_eq!(translations.backends(&EdgeKey { port: 1, ..key }), []);
    translations.end_reading(at(10));
    assert_eq!(translations.backends(&key), []);
}

#[test]
fn clients_outside_that_source_nat_hides_are_folded_as_those_whose_address_packets_bear() {
    let mut translations = mk_translations();
    let folding = |length, outside| Folding { length, outside };
    let foldings = [
        ("0.0.0.0/0", folding(24, true)),
        ("198.51.100.0/24", folding(30, true)),
        ("192.0.2.0/24", folding(32, false)),
    ];
    translations.fold(foldings.into_iter().map(|(net, to)| (net.parse().unwrap(), to)).collect());
    // A crowd, of which not each can have an edge: but all of them have few networks.
    let crowd: Vec<String> =
        (0..2 * MOST_CLIENTS).map(|number| format!("203.0.{}.{}", number % 7, number / 7 % 256)).collect();
    let crowd = crowd.iter().map(String::as_str).chain(["198.51.100.7", "198.51.100.6", "192.0.2.77"]);
    let mut clients = 0;
    for client in crowd {
        translations.opened(&mk_told(client, Protocol::Tcp), at(9));
        clients += 1;
    }
    let parts = translations.split(&mk_seen(Protocol::Tcp, mk_delta(clients, clients, 0, clients)), at(10));
    let mut found: Vec<_> = parts
        .iter()
        .map(|Part { seen, opener }| {
            assert_eq!(*opener, Opener::Confirmed);
            let Scope::Range(length) = seen.key.scope else { return seen.key.initiator.to_string() };
            format!("{}/{length}", seen.key.initiator)
        })
        .collect();
    found.sort();
    let mut expected: Vec<String> = (0..7).map(|net| format!("203.0.{net}.0/24")).collect();
    expected.extend(["198.51.100.4/30".to_owned(), "192.0.2.77".to_owned()]);
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(parts.iter().map(|part| part.seen.delta.attempts).sum::<u64>(), clients);
    let [missed, full] = translations.losses();
    assert_eq!((missed.edges, full.edges), (0, 0), "nobody is hidden for want of room");
}
