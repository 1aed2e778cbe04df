//! What bounds the number of edges, and which packets count: budgets, ranges that share an edge, accounting.

use std::net::IpAddr;

use dryfence::capture::programs::{FROM_POD, TO_POD, names};
use dryfence::capture::{Accounting, Settings};
use dryfence::model::folding::{Folding, Foldings};
use dryfence_common::counter::Counter;
use dryfence_common::edge::{EdgeKey, FOLDED_SHIFT, Kind, LOCAL_INITIATED, OVERFLOW};
use dryfence_common::packet::{TCP, UDP};
use dryfence_common::settings::Settings as KernelSettings;

use crate::frames::{self, ACK, FIN, SYN, Tcp, frame};
use crate::{Connection, ENDS, LOOPBACK, connections, ip, load_as, mk_key, packets};

fn mk_settings(budget: u32) -> Settings {
    Settings { budget_opened: budget, budget_cluster: budget, budget_outside: budget, ..Settings::default() }
}

fn overflow(kind: Kind, protocol: u8) -> EdgeKey {
    let flags = OVERFLOW | if kind == Kind::Opened { LOCAL_INITIATED } else { 0 };
    EdgeKey {
        initiator: [0; 16],
        responder: [0; 16],
        interface: LOOPBACK,
        port: kind as u16,
        protocol,
        flags,
    }
}

/// The edge with a range in place of the other end.
fn folded(network: &str, bits: u8, local_initiated: bool, port: u16) -> EdgeKey {
    let [pod, _] = ENDS[0];
    let key = mk_key([pod, network], local_initiated, TCP, port);
    EdgeKey { flags: key.flags | bits << FOLDED_SHIFT, ..key }
}

/// Everything is outside but 10.0.0.0/8; 203.0.113.0/24 is kept apart by 30 bits.
const RANGES: [(&str, u8, bool); 4] =
    [("0.0.0.0/0", 24, true), ("::/0", 64, true), ("10.0.0.0/8", 32, false), ("203.0.113.0/24", 30, true)];

fn fold(kernel: &mut crate::Kernel) {
    let ranges = RANGES.map(|(net, length, outside)| (net.parse().unwrap(), Folding { length, outside }));
    kernel.programs.bounds().fold(&ranges.into_iter().collect()).unwrap();
}

#[test]
fn beyond_its_budget_a_pod_has_one_edge_that_still_counts() {
    let Some(mut kernel) = load_as(&mk_settings(3), KernelSettings::DEFAULT) else { return };
    let [ends, _] = ENDS;
    let to = |port: u16| Connection { server_port: port, ..Connection::new(ends, 40000, 1000) };
    // As a scanner does it: one client port, one sequence number.
    for port in 1..=10 {
        kernel.sent_by_pod(&to(port).syn());
        kernel.sent_by_pod(&to(port).syn());
    }
    assert_eq!(kernel.edges(), 3 + 1);
    for port in 1..=3 {
        assert_eq!(connections(&kernel.edge(&mk_key(ends, true, TCP, port))), (1, 0, 0), "{port}");
    }
    let rest = overflow(Kind::Opened, TCP);
    let edge = kernel.edge(&rest);
    assert_eq!((connections(&edge), packets(&edge)), ((7, 0, 0), (14, 0)));
    assert_eq!(kernel.counted(), [(Counter::OverBudgetOpened, 7)]);
    // What follows on such a connection is counted there too.
    let last = to(10);
    kernel.sent_to_pod(&last.syn_ack());
    kernel.sent_to_pod(&last.syn_ack());
    kernel.sent_by_pod(&last.handshake_ack());
    kernel.sent_to_pod(&last.to_client(ACK, 501, 1001, 100));
    kernel.sent_by_pod(&last.to_server(FIN | ACK, 1001, 601, 0));
    let edge = kernel.edge(&rest);
    assert_eq!((connections(&edge), packets(&edge)), ((7, 1, 0), (16, 3)));
    let refused = to(9);
    kernel.sent_by_pod(&refused.syn());
    kernel.sent_to_pod(&refused.refusal());
    assert_eq!(connections(&kernel.edge(&rest)), (8, 1, 1), "another target was tried since: an attempt");
    // A known edge stays exact, and so does what others open to the pod.
    kernel.sent_to_pod(&to(2).syn_ack());
    assert_eq!(connections(&kernel.edge(&mk_key(ends, true, TCP, 2))), (1, 1, 0));
    let [pod, other] = ends;
    kernel.sent_to_pod(&Connection::new([other, pod], 50000, 7).syn());
    assert_eq!(connections(&kernel.edge(&mk_key(ends, false, TCP, 80))), (1, 0, 0));
    assert_eq!(kernel.counted(), [(Counter::OverBudgetOpened, 8)]);
}

#[test]
fn datagrams_beyond_the_budget_are_told_by_their_target_and_answers_open_nothing() {
    let Some(mut kernel) = load_as(&mk_settings(1), KernelSettings::DEFAULT) else { return };
    let [ends, _] = ENDS;
    let [pod, other] = ends.map(ip);
    for port in 1..=5 {
        for _ in 0..2 {
            kernel.sent_by_pod(&frame(pod, other, UDP, &frames::udp(40000, port, 30)));
        }
    }
    kernel.sent_to_pod(&frame(other, pod, UDP, &frames::udp(5, 40000, 60)));
    let edge = kernel.edge(&overflow(Kind::Opened, UDP));
    assert_eq!((connections(&edge), packets(&edge)), ((4, 1, 0), (8, 1)));
    assert_eq!((kernel.edges(), kernel.counted()), (2, vec![(Counter::OverBudgetOpened, 4)]));
}

#[test]
fn outside_addresses_share_an_edge_and_the_clusters_have_their_own() {
    let Some(mut kernel) = load_as(&Settings::default(), KernelSettings::DEFAULT) else { return };
    fold(&mut kernel);
    let [pod, _] = ENDS[0];
    // Four visitors of one network, who all begin with the same port and number, and one of another.
    for visitor in ["198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.255", "198.51.101.1"] {
        let one = Connection::new([visitor, pod], 40000, 1000);
        kernel.sent_to_pod(&one.syn());
        kernel.sent_by_pod(&one.syn_ack());
        kernel.sent_to_pod(&one.handshake_ack());
        kernel.sent_to_pod(&one.to_server(ACK, 1001, 501, 100));
        kernel.sent_by_pod(&one.to_client(FIN | ACK, 501, 1101, 0));
    }
    let edge = kernel.edge(&folded("198.51.100.0", 8, false, 80));
    assert_eq!((connections(&edge), packets(&edge)), ((4, 4, 0), (12, 8)));
    assert_eq!(edge.kind, Kind::Outside as u8);
    let edge = kernel.edge(&folded("198.51.101.0", 8, false, 80));
    assert_eq!((connections(&edge), packets(&edge)), ((1, 1, 0), (3, 2)));
    // As finely as a policy needs it.
    for server in ["203.0.113.4", "203.0.113.7", "203.0.113.8"] {
        kernel.sent_by_pod(&Connection::new([pod, server], 40000, 1000).syn());
    }
    assert_eq!(kernel.edge(&folded("203.0.113.4", 2, true, 80)).attempts, 2);
    assert_eq!(kernel.edge(&folded("203.0.113.8", 2, true, 80)).attempts, 1);
    for peer in ["10.0.0.1", "10.0.0.2"] {
        kernel.sent_to_pod(&Connection::new([peer, pod], 40000, 1000).syn());
        let edge = kernel.edge(&mk_key([pod, peer], false, TCP, 80));
        assert_eq!((connections(&edge), edge.kind), ((1, 0, 0), Kind::Cluster as u8));
    }
    assert_eq!((kernel.edges(), kernel.counted()), (6, vec![]));
}

#[test]
fn datagrams_and_errors_find_the_shared_edge_of_either_family() {
    let Some(mut kernel) = load_as(&Settings::default(), KernelSettings::DEFAULT) else { return };
    fold(&mut kernel);
    for [pod, other] in ENDS {
        let (network, bits) = if pod == ENDS[0][0] { ("198.51.100.0", 8) } else { ("2001:db8:1::", 64) };
        let key = mk_key([pod, network], true, UDP, 53);
        let key = EdgeKey { flags: key.flags | bits << FOLDED_SHIFT, ..key };
        let [pod, other] = [pod, other].map(ip);
        for _ in 0..3 {
            kernel.sent_by_pod(&frame(pod, other, UDP, &frames::udp(40000, 53, 30)));
            kernel.sent_to_pod(&frame(other, pod, UDP, &frames::udp(53, 40000, 60)));
        }
        let edge = kernel.edge(&key);
        assert_eq!((connections(&edge), packets(&edge)), ((1, 1, 0), (3, 3)));
    }
    let [pod, _] = ENDS[0];
    let one = Connection::new([pod, "198.51.100.9"], 40000, 1000);
    kernel.sent_by_pod(&one.syn());
    let unreachable = frames::icmp(3, 1, &one.syn()[14..]);
    kernel.sent_to_pod(&frame(ip("203.0.113.1"), ip(pod), dryfence_common::packet::ICMP, &unreachable));
    assert_eq!(connections(&kernel.edge(&folded("198.51.100.0", 8, true, 80))), (1, 0, 1));
    assert_eq!((kernel.edges(), kernel.counted()), (3, vec![]));
}

#[test]
fn what_is_no_longer_outside_is_kept_apart_again() {
    let Some(mut kernel) = load_as(&Settings::default(), KernelSettings::DEFAULT) else { return };
    fold(&mut kernel);
    let [pod, _] = ENDS[0];
    kernel.sent_by_pod(&Connection::new([pod, "198.51.100.9"], 40000, 1000).syn());
    kernel.programs.bounds().fold(&Foldings::default()).unwrap();
    kernel.sent_by_pod(&Connection::new([pod, "198.51.100.9"], 40001, 2000).syn());
    assert_eq!(kernel.edge(&folded("198.51.100.0", 8, true, 80)).attempts, 1);
    assert_eq!(kernel.edge(&mk_key([pod, "198.51.100.9"], true, TCP, 80)).attempts, 1);
}

#[test]
fn a_crawl_from_outside_spends_only_that_budget() {
    // Each in a network of its own: folding helps against none of them.
    const CRAWLERS: u32 = 100_000;
    const BUDGET: u32 = 100;
    let Some(mut kernel) = load_as(&mk_settings(BUDGET), KernelSettings::DEFAULT) else { return };
    fold(&mut kernel);
    let [pod, _] = ENDS[0];
    let mut syn = Connection::new(["8.8.0.0", pod], 40000, 1000).syn();
    for n in 0..CRAWLERS {
        // The source of the IPv4 header behind Ethernet's; nobody looks at checksums.
        syn[26..30].copy_from_slice(&(0x0808_0000 + n * 256).to_be_bytes());
        kernel.sent_to_pod(&syn);
    }
    assert_eq!(kernel.edges(), BUDGET as usize + 1);
    let over = u64::from(CRAWLERS - BUDGET);
    let rest = kernel.edge(&overflow(Kind::Outside, TCP));
    assert_eq!((rest.attempts, packets(&rest)), (over, (over, 0)));
    for n in 0..50 {
        let peer = format!("10.0.0.{n}");
        kernel.sent_to_pod(&Connection::new([&peer, pod], 40000, 1000).syn());
        kernel.sent_by_pod(&Connection::new([pod, &peer], 40000, 1000).syn());
    }
    assert_eq!((kernel.edges(), kernel.counted()), (201, vec![(Counter::OverBudgetOutside, over)]));
}

#[test]
fn a_sample_stands_for_all_data_and_everything_else_is_exact() {
    const RATE: u32 = 4;
    const SENT: u32 = 40_000;
    let settings = Settings { accounting: Accounting::Sampled, sample_rate: RATE, ..Settings::default() };
    let Some(mut kernel) = load_as(&settings, KernelSettings::DEFAULT) else { return };
    let [from_pod, to_pod] = names(Accounting::Sampled);
    let [ends, _] = ENDS;
    let one = Connection::new(ends, 40000, 1000);
    kernel.run(from_pod, &one.syn(), None);
    kernel.run(to_pod, &one.syn_ack(), None);
    let data = one.to_server(ACK, 1001, 501, 100);
    kernel.repeat(from_pod, &data, SENT);
    kernel.run(from_pod, &one.to_server(FIN | ACK, 1101, 501, 0), None);
    let edge = kernel.edge(&mk_key(ends, true, TCP, 80));
    assert_eq!((connections(&edge), edge.packets_to_initiator), ((1, 1, 0), 1));
    let sampled = edge.packets_to_responder - 2;
    assert_eq!(sampled % u64::from(RATE), 0, "each stands for {RATE}");
    assert_eq!(edge.bytes_to_responder, sampled * 140 + 2 * 40);
    // 10,000 samples of stride 1 to 7 (a variance of 4): a standard deviation of 200 strides of 40,000 packets, or
    // half a hundredth. Twelve of them never happen.
    assert!(sampled.abs_diff(u64::from(SENT)) < u64::from(SENT) * 6 / 100, "{sampled}");
    let [pod, other] = ends.map(ip);
    for _ in 0..100 {
        kernel.run(from_pod, &frame(pod, other, UDP, &frames::udp(40000, 53, 30)), None);
    }
    assert_eq!(packets(&kernel.edge(&mk_key(ends, true, UDP, 53))), (100, 0));
    assert_eq!(kernel.counted(), []);
}

#[test]
fn without_accounting_connections_are_exact_and_data_is_passed_over() {
    let settings = Settings { accounting: Accounting::Off, ..Settings::default() };
    let Some(mut kernel) = load_as(&settings, KernelSettings::DEFAULT) else { return };
    let [from_pod, to_pod] = names(Accounting::Off);
    let [ends, _] = ENDS;
    for n in 0..3 {
        let one = Connection::new(ends, 40000 + n, 1000);
        kernel.run(from_pod, &one.syn(), None);
        kernel.run(to_pod, &one.syn_ack(), None);
        kernel.run(from_pod, &one.handshake_ack(), None);
        kernel.run(from_pod, &one.to_server(ACK, 1001, 501, 100), None);
        kernel.run(from_pod, &one.to_server(FIN | ACK, 1101, 501, 0), None);
    }
    let edge = kernel.edge(&mk_key(ends, true, TCP, 80));
    assert_eq!((connections(&edge), packets(&edge)), ((3, 3, 0), (6, 3)));
    // Of a connection that is older than the programs nothing is said.
    let old = Connection { server_port: 81, ..Connection::new(ends, 40000, 1000) };
    kernel.run(from_pod, &old.to_server(ACK, 5000, 600, 10), None);
    assert_eq!((kernel.edges(), kernel.counted()), (1, vec![]));
    assert_eq!(kernel.programs.orphans().read().unwrap(), []);
}

#[test]
fn a_sample_of_an_older_connection_stands_for_all_of_it() {
    const RATE: u32 = 4;
    let settings = Settings { accounting: Accounting::Sampled, sample_rate: RATE, ..Settings::default() };
    let Some(mut kernel) = load_as(&settings, KernelSettings::DEFAULT) else { return };
    let [from_pod, to_pod] = names(Accounting::Sampled);
    let [ends, _] = ENDS;
    let one = Connection::new(ends, 40000, 1000);
    kernel.repeat(from_pod, &one.to_server(ACK, 5000, 600, 100), 100);
    // It ends: that is never passed over, and opens nothing where nothing was.
    kernel.run(to_pod, &one.to_client(FIN | ACK, 600, 5100, 0), None);
    kernel.run(to_pod, &Connection::new(ends, 40001, 1000).to_client(FIN | ACK, 600, 5100, 0), None);
    let orphans = kernel.programs.orphans().read().unwrap();
    let [(_, orphan)] = orphans[..] else { panic!("{orphans:?}") };
    assert_eq!((orphan.packets_from_pod % u64::from(RATE), orphan.packets_to_pod), (0, 1));
    assert_eq!(orphan.bytes_from_pod, orphan.packets_from_pod * 140);
    // At least one of seven is counted, at most each.
    assert!((100 / 7 * 4..=400).contains(&orphan.packets_from_pod), "{orphan:?}");
    assert_eq!((kernel.edges(), kernel.counted()), (0, vec![(Counter::Orphan, 1)]));
}

/// A fragment of an IPv4 datagram that goes on, at an offset of so many times 8 bytes.
fn piece([from, to]: [&str; 2], protocol: u8, offset: u16, payload: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (ip(from), ip(to)) else { panic!("not IPv4") };
    frames::ethernet(0x0800, &frames::ipv4(from, to, protocol, &[], 0x2000 | offset, payload))
}

#[test]
fn later_fragments_count_for_the_range_and_for_the_overflow_edge_of_the_first() {
    let Some(mut kernel) = load_as(&mk_settings(1), KernelSettings::DEFAULT) else { return };
    fold(&mut kernel);
    let [pod, _] = ENDS[0];
    for (n, server) in ["198.51.100.9", "198.51.101.9"].into_iter().enumerate() {
        kernel.sent_by_pod(&piece([pod, server], UDP, 0, &frames::udp(40000, 53, 0)));
        kernel.sent_by_pod(&piece([pod, server], UDP, 1, &[0; 8]));
        kernel.sent_to_pod(&piece([server, pod], UDP, 0, &frames::udp(53, 40000, 0)));
        kernel.sent_to_pod(&piece([server, pod], UDP, 1, &[0; 8]));
        let key = if n == 0 {
            EdgeKey { protocol: UDP, ..folded("198.51.100.0", 8, true, 53) }
        } else {
            overflow(Kind::Opened, UDP)
        };
        let edge = kernel.edge(&key);
        assert_eq!((connections(&edge), packets(&edge)), ((1, 1, 0), (2, 2)), "{server}");
    }
    assert_eq!((kernel.edges(), kernel.counted()), (2, vec![(Counter::OverBudgetOpened, 1)]));
}

#[test]
fn fragments_are_never_sampled_and_without_accounting_they_are_no_loss() {
    let [ends, _] = ENDS;
    let one = Connection::new(ends, 40000, 1000);
    let first = one.to_server(ACK, 1001, 501, 4)[14 + 20..].to_vec();
    for (accounting, expected) in [(Accounting::Sampled, 51), (Accounting::Off, 1)] {
        let settings = Settings { accounting, ..Settings::default() };
        let Some(mut kernel) = load_as(&settings, KernelSettings::DEFAULT) else { return };
        let [from_pod, _] = names(accounting);
        kernel.run(from_pod, &one.syn(), None);
        for _ in 0..25 {
            kernel.run(from_pod, &piece(ends, TCP, 0, &first), None);
            kernel.run(from_pod, &piece(ends, TCP, 3, &[0; 8]), None);
        }
        let edge = kernel.edge(&mk_key(ends, true, TCP, 80));
        assert_eq!(packets(&edge), (expected, 0), "{accounting:?}");
        assert_eq!((kernel.edges(), kernel.counted()), (1, vec![]), "{accounting:?}");
    }
}

#[test]
fn a_million_connections_are_one_edge_and_every_one_is_counted() {
    // The whole million takes a minute by one call each: by hand.
    let wanted = std::env::var("DRYFENCE_TEST_CONNECTIONS").ok().and_then(|text| text.parse().ok());
    let number: u32 = wanted.unwrap_or(20_000);
    let Some(mut kernel) = load_as(&Settings::default(), KernelSettings::DEFAULT) else { return };
    let [ends, _] = ENDS;
    let [client, server] = ends.map(ip);
    for n in 0..number {
        let source = 1024 + u16::try_from(n % 60_000).unwrap();
        let syn = Tcp { source, destination: 80, sequence: n, acknowledged: 0, flags: SYN };
        let syn_ack =
            Tcp { source: 80, destination: source, sequence: 9, acknowledged: n + 1, flags: SYN | ACK };
        kernel.run(FROM_POD, &frame(client, server, TCP, &syn.with(0)), None);
        kernel.run(TO_POD, &frame(server, client, TCP, &syn_ack.with(0)), None);
    }
    let number = u64::from(number);
    let edge = kernel.edge(&mk_key(ends, true, TCP, 80));
    assert_eq!((connections(&edge), packets(&edge)), ((number, number, 0), (number, number)));
    assert_eq!((kernel.edges(), kernel.counted()), (1, vec![]));
}
