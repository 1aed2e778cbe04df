//! The programs, run by `BPF_PROG_TEST_RUN` on packets built byte by byte: each row says what the map holds after,
//! and every run must answer "go on with the next" and leave the packet as it was.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

#[path = "bpf_programs/bounds.rs"]
mod bounds;
#[path = "../../common/testing/frames.rs"]
mod frames;

use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

use aya::programs::{TestRun as _, TestRunOptions};
use dryfence::capture::Settings;
use dryfence::capture::programs::{FROM_POD, Programs, TO_POD};
use dryfence_common::address::from_ip;
use dryfence_common::counter::Counter;
use dryfence_common::edge::{BY_FIRST_PACKET, BY_HANDSHAKE, EdgeKey, EdgeValue, LOCAL_INITIATED};
use dryfence_common::orphan::{FIRST_FROM_POD, OrphanInterface, UNTOLD};
use dryfence_common::packet::{ICMP, ICMPV6, SCTP, TCP, UDP};
use dryfence_common::settings::Settings as KernelSettings;
use frames::{ACK, FIN, FRAGMENT, RST, SYN, Tcp, authentication, ethernet, extension, fragment, frame};

/// The pod behind the interface, and somebody else, on both families.
const ENDS: [[&str; 2]; 2] = [["192.0.2.10", "198.51.100.20"], ["2001:db8::10", "2001:db8:1::20"]];
/// What TC programs answer to go on with the next (TC_ACT_UNSPEC), as the kernel reports it.
const NEXT: u32 = u32::MAX;
/// `BPF_PROG_TEST_RUN` lets packets come in at the loopback interface.
const LOOPBACK: u32 = 1;

/// `None`, and said, where the privilege is missing; that fails in CI.
fn load() -> Option<Kernel> {
    load_with(KernelSettings::DEFAULT)
}

fn load_with(settings: KernelSettings) -> Option<Kernel> {
    load_as(&Settings::default(), settings)
}

fn load_as(settings: &Settings, kernel: KernelSettings) -> Option<Kernel> {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI is set");
        eprintln!("SKIPPED: this test needs root to load eBPF programs");
        return None;
    }
    match Programs::load_with(settings, kernel) {
        Ok(programs) => Some(Kernel { programs }),
        Err(error) => panic!("{error}: {error:?}"),
    }
}

struct Kernel {
    programs: Programs,
}

impl Kernel {
    fn run(&mut self, program: &'static str, frame: &[u8], context: Option<&[u8]>) {
        let mut out = vec![0; frame.len()];
        let result = self
            .programs
            .program(program)
            .unwrap()
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: context,
                ..TestRunOptions::new()
            })
            .unwrap();
        assert_eq!(result.return_value, NEXT);
        assert_eq!(out, frame, "the packet is unharmed");
    }

    /// The same packet again and again, on one CPU.
    fn repeat(&mut self, program: &'static str, frame: &[u8], times: u32) {
        let options = TestRunOptions { data_in: Some(frame), repeat: times, ..TestRunOptions::new() };
        let result = self.programs.program(program).unwrap().test_run(options).unwrap();
        assert_eq!(result.return_value, NEXT);
    }

    fn sent_by_pod(&mut self, frame: &[u8]) {
        self.run(FROM_POD, frame, None);
    }

    fn sent_to_pod(&mut self, frame: &[u8]) {
        self.run(TO_POD, frame, None);
    }

    fn edges(&self) -> usize {
        self.programs.edges().read().unwrap().len()
    }

    #[track_caller]
    fn edge(&self, key: &EdgeKey) -> EdgeValue {
        self.programs.edges().get(key).unwrap().expect("an edge")
    }

    fn counted(&self) -> Vec<(Counter, u64)> {
        self.programs.counters().all()
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The edge that the pod opened (`true`) or that was opened to it.
fn mk_key([pod, other]: [&str; 2], local_initiated: bool, protocol: u8, port: u16) -> EdgeKey {
    let (initiator, responder) = if local_initiated { (pod, other) } else { (other, pod) };
    EdgeKey {
        initiator: from_ip(ip(initiator)),
        responder: from_ip(ip(responder)),
        interface: LOOPBACK,
        port,
        protocol,
        flags: if local_initiated { LOCAL_INITIATED } else { 0 },
    }
}

/// A TCP connection of one client, by its frames.
struct Connection {
    client: IpAddr,
    server: IpAddr,
    client_port: u16,
    server_port: u16,
    initial: u32,
}

impl Connection {
    fn new([client, server]: [&str; 2], client_port: u16, initial: u32) -> Self {
        Self { client: ip(client), server: ip(server), client_port, server_port: 80, initial }
    }

    fn to_server(&self, flags: u8, sequence: u32, acknowledged: u32, payload: usize) -> Vec<u8> {
        let (source, destination) = (self.client_port, self.server_port);
        let tcp = Tcp { source, destination, sequence, acknowledged, flags };
        frame(self.client, self.server, TCP, &tcp.with(payload))
    }

    fn to_client(&self, flags: u8, sequence: u32, acknowledged: u32, payload: usize) -> Vec<u8> {
        let (source, destination) = (self.server_port, self.client_port);
        let tcp = Tcp { source, destination, sequence, acknowledged, flags };
        frame(self.server, self.client, TCP, &tcp.with(payload))
    }

    fn syn(&self) -> Vec<u8> {
        self.to_server(SYN, self.initial, 0, 0)
    }

    fn syn_ack(&self) -> Vec<u8> {
        self.to_client(SYN | ACK, 500, self.initial + 1, 0)
    }

    fn handshake_ack(&self) -> Vec<u8> {
        self.to_server(ACK, self.initial + 1, 501, 0)
    }

    fn refusal(&self) -> Vec<u8> {
        self.to_client(RST | ACK, 0, self.initial + 1, 0)
    }
}

/// (attempts, accepted, refused)
fn connections(value: &EdgeValue) -> (u64, u64, u64) {
    (value.attempts, value.accepted, value.refused)
}

/// (to the responder, to the initiator)
fn packets(value: &EdgeValue) -> (u64, u64) {
    (value.packets_to_responder, value.packets_to_initiator)
}

#[test]
fn a_connection_that_the_pod_opens_is_counted_from_syn_to_fin() {
    let Some(mut kernel) = load() else { return };
    for ends in ENDS {
        let one = Connection::new(ends, 40000, 1000);
        let key = mk_key(ends, true, TCP, 80);
        kernel.sent_by_pod(&one.syn());
        let edge = kernel.edge(&key);
        assert_eq!((connections(&edge), packets(&edge)), ((1, 0, 0), (1, 0)));
        assert_eq!(edge.oriented_by, BY_HANDSHAKE);
        assert!(edge.first_seen > 0 && edge.first_seen == edge.last_to_responder);
        kernel.sent_to_pod(&one.syn_ack());
        kernel.sent_by_pod(&one.handshake_ack());
        kernel.sent_by_pod(&one.to_server(ACK, 1001, 501, 100));
        kernel.sent_to_pod(&one.to_client(ACK, 501, 1101, 1000));
        kernel.sent_by_pod(&one.to_server(FIN | ACK, 1101, 1501, 0));
        let edge = kernel.edge(&key);
        assert_eq!((connections(&edge), packets(&edge)), ((1, 1, 0), (4, 2)));
        let headers = if ends == ENDS[0] { 40 } else { 60 };
        assert_eq!(
            (edge.bytes_to_responder, edge.bytes_to_initiator),
            (4 * headers + 100, 2 * headers + 1000)
        );
    }
    assert_eq!((kernel.edges(), kernel.counted()), (2, vec![]));
}

#[test]
fn a_connection_that_is_opened_to_the_pod_is_the_other_direction() {
    let Some(mut kernel) = load() else { return };
    for [pod, other] in ENDS {
        let one = Connection::new([other, pod], 40000, 1000);
        kernel.sent_to_pod(&one.syn());
        kernel.sent_by_pod(&one.syn_ack());
        let edge = kernel.edge(&mk_key([pod, other], false, TCP, 80));
        assert_eq!((connections(&edge), packets(&edge)), ((1, 1, 0), (1, 1)));
    }
    assert_eq!(kernel.edges(), 2);
}

#[test]
fn retransmits_are_packets_and_no_connections() {
    let Some(mut kernel) = load() else { return };
    let [ends, _] = ENDS;
    let one = Connection::new(ends, 40000, 1000);
    for _ in 0..3 {
        kernel.sent_by_pod(&one.syn());
    }
    for _ in 0..2 {
        kernel.sent_to_pod(&one.syn_ack());
    }
    kernel.sent_by_pod(&one.handshake_ack());
    // The same port again, later: another connection.
    let two = Connection::new(ends, 40000, 9000);
    kernel.sent_by_pod(&two.syn());
    kernel.sent_by_pod(&two.syn());
    kernel.sent_to_pod(&two.syn_ack());
    // The same number from another port, as SYN cookies and clones do it: another connection too.
    kernel.sent_by_pod(&Connection::new(ends, 40001, 9000).syn());
    let edge = kernel.edge(&mk_key(ends, true, TCP, 80));
    assert_eq!((connections(&edge), packets(&edge)), ((3, 2, 0), (7, 3)));
    assert_eq!(kernel.edges(), 1);
}

#[test]
fn refusals_are_told_from_resets() {
    let Some(mut kernel) = load() else { return };
    let [ends, _] = ENDS;
    let key = mk_key(ends, true, TCP, 80);
    let refused = Connection::new(ends, 40000, 1000);
    kernel.sent_by_pod(&refused.syn());
    kernel.sent_to_pod(&refused.refusal());
    kernel.sent_to_pod(&refused.refusal());
    assert_eq!(connections(&kernel.edge(&key)), (1, 0, 1));
    let reset = Connection::new(ends, 40001, 2000);
    kernel.sent_by_pod(&reset.syn());
    kernel.sent_to_pod(&reset.syn_ack());
    kernel.sent_to_pod(&reset.to_client(RST | ACK, 501, 2001, 0));
    assert_eq!(connections(&kernel.edge(&key)), (2, 1, 1), "accepted, then reset");
    let odd = Connection::new(ends, 40002, 3000);
    kernel.sent_by_pod(&odd.syn());
    kernel.sent_to_pod(&odd.to_client(RST | ACK, 77, 3001, 0));
    assert_eq!(connections(&kernel.edge(&key)), (3, 1, 2), "a stack that refuses with a sequence number");
}

#[test]
fn an_answer_alone_makes_the_edge_since_its_sender_is_the_responder() {
    let Some(mut kernel) = load() else { return };
    let [ends, [pod, other]] = ENDS;
    kernel.sent_to_pod(&Connection::new(ends, 40000, 1000).syn_ack());
    let edge = kernel.edge(&mk_key(ends, true, TCP, 80));
    assert_eq!((connections(&edge), packets(&edge)), ((0, 1, 0), (0, 1)));
    kernel.sent_by_pod(&Connection::new([other, pod], 40000, 1000).refusal());
    let edge = kernel.edge(&mk_key([pod, other], false, TCP, 80));
    assert_eq!((connections(&edge), packets(&edge)), ((0, 0, 1), (0, 1)));
}

#[test]
fn where_answers_pass_by_the_interface_the_handshakes_ack_proves_them() {
    let Some(mut kernel) = load() else { return };
    let [ends, _] = ENDS;
    let key = mk_key(ends, true, TCP, 80);
    let one = Connection::new(ends, 40000, 1000);
    kernel.sent_by_pod(&one.syn());
    kernel.sent_by_pod(&one.handshake_ack());
    // Its first data begins with the same number.
    kernel.sent_by_pod(&one.to_server(ACK, 1001, 501, 100));
    kernel.sent_by_pod(&one.to_server(FIN | ACK, 1101, 501, 0));
    assert_eq!(connections(&kernel.edge(&key)), (1, 1, 0));
    // A second is not answered; packets of the first prove nothing for it.
    kernel.sent_by_pod(&Connection::new(ends, 40001, 5000).syn());
    kernel.sent_by_pod(&one.to_server(ACK, 1101, 600, 0));
    assert_eq!(connections(&kernel.edge(&key)), (2, 1, 0));
}

#[test]
fn a_connection_older_than_the_programs_is_an_orphan() {
    let Some(mut kernel) = load() else { return };
    let [ends, _] = ENDS;
    let one = Connection::new(ends, 40000, 1000);
    kernel.sent_by_pod(&one.to_server(ACK, 5000, 600, 10));
    kernel.sent_to_pod(&one.to_client(FIN | ACK, 600, 5010, 10));
    // It ends one that nobody knows.
    kernel.sent_to_pod(&Connection::new(ends, 40001, 1000).to_client(FIN | ACK, 600, 5010, 10));
    assert_eq!((kernel.edges(), kernel.counted()), (0, vec![(Counter::Orphan, 1)]));
    let orphans = kernel.programs.orphans().read().unwrap();
    let [(key, value)] = orphans[..] else { panic!("{orphans:?}") };
    assert_eq!((key.local, key.local_port), (from_ip(ip(ends[0])), 40000));
    assert_eq!((key.remote, key.remote_port), (from_ip(ip(ends[1])), 80));
    assert_eq!((key.interface, key.protocol), (LOOPBACK, TCP));
    assert_eq!((value.packets_from_pod, value.packets_to_pod), (1, 1));
    assert_eq!((value.bytes_from_pod, value.bytes_to_pod), (50, 50));
    assert_eq!(value.evidence, FIRST_FROM_POD, "whose sockets to ask was not told");
}

#[test]
fn a_reset_of_no_connection_we_know_is_counted_and_kept_nowhere() {
    let Some(mut kernel) = load() else { return };
    let [ends, _] = ENDS;
    let one = Connection::new(ends, 40000, 1000);
    kernel.sent_to_pod(&one.to_client(RST, 600, 0, 0));
    kernel.sent_to_pod(&one.to_client(RST | ACK, 600, 1001, 0));
    assert_eq!((kernel.edges(), kernel.counted()), (0, vec![(Counter::Orphan, 2)]));
    assert!(kernel.programs.orphans().read().unwrap().is_empty());
}

#[test]
fn orphans_have_a_budget_and_a_table_and_what_is_refused_is_counted() {
    let Some(mut kernel) = load() else { return };
    let [ends, _] = ENDS;
    let client = |port| Connection::new(ends, port, 1000).to_server(ACK, 5000, 600, 10);
    for port in 0..=UNTOLD.allowance as u16 {
        kernel.sent_by_pod(&client(port));
    }
    assert_eq!(kernel.counted(), [(Counter::OrphanBudgetSpent, 1)]);
    // A known one goes on to be counted.
    kernel.sent_by_pod(&client(0));
    assert_eq!(kernel.counted(), [(Counter::OrphanBudgetSpent, 1)]);
    let told = OrphanInterface { allowance: u64::MAX, ..UNTOLD };
    kernel.programs.orphans().tell(LOOPBACK, &told).unwrap();
    for port in 0..=16_384 {
        kernel.sent_by_pod(&client(port));
    }
    assert_eq!(kernel.programs.orphans().read().unwrap().len(), 16_384);
    assert_eq!(kernel.counted(), [(Counter::OrphanTableFull, 1), (Counter::OrphanBudgetSpent, 1)]);
    assert_eq!(kernel.edges(), 0);
}

#[test]
fn a_datagram_from_a_servers_port_to_a_clients_is_no_request_while_the_interface_is_young() {
    let short = KernelSettings {
        datagram_timeout: 1_000_000_000,
        datagram_stream_timeout: 5_000_000_000,
        ..KernelSettings::DEFAULT
    };
    let Some(mut kernel) = load_with(short) else { return };
    let [ends, _] = ENDS;
    let [pod, other] = ends.map(ip);
    // The programs' clock, as a packet tells it.
    kernel.sent_by_pod(&Connection::new(ends, 40000, 1000).to_server(SYN, 1000, 0, 0));
    let since = kernel.edge(&mk_key(ends, true, TCP, 80)).first_seen;
    let young = OrphanInterface { since, ..UNTOLD };
    kernel.programs.orphans().tell(LOOPBACK, &young).unwrap();
    for (from, to) in [(53, 40000), (40000, 53), (40001, 40002), (500, 4500)] {
        kernel.sent_to_pod(&frame(other, pod, UDP, &frames::udp(from, to, 30)));
    }
    assert_eq!(kernel.programs.orphans().read().unwrap().len(), 1, "the first");
    assert_eq!(kernel.edges(), 4, "the others, and the one before");
    let ask = frame(pod, other, UDP, &frames::udp(40000, 53, 30));
    kernel.sent_by_pod(&ask);
    let [(_, orphan)] = kernel.programs.orphans().read().unwrap()[..] else { panic!() };
    assert_eq!((orphan.packets_to_pod, orphan.packets_from_pod), (1, 1), "either may have asked");
    // The agent says nothing: whoever speaks next to a server's port asks.
    sleep(Duration::from_millis(1100));
    kernel.sent_by_pod(&ask);
    kernel.sent_to_pod(&frame(other, pod, UDP, &frames::udp(53, 40000, 30)));
    let edge = kernel.edge(&mk_key(ends, true, UDP, 53));
    assert_eq!((connections(&edge), packets(&edge)), ((1, 1, 0), (1, 1)));
    sleep(Duration::from_millis(5500));
    kernel.sent_to_pod(&frame(other, pod, UDP, &frames::udp(53, 40000, 30)));
    assert_eq!(kernel.edge(&mk_key(ends, false, UDP, 40000)).attempts, 1, "the interface is old now");
    assert_eq!(kernel.counted(), []);
}

#[test]
fn a_responder_on_the_higher_port_is_found_too() {
    let Some(mut kernel) = load() else { return };
    let [ends, _] = ENDS;
    let one = Connection { server_port: 50000, ..Connection::new(ends, 1023, 1000) };
    kernel.sent_by_pod(&one.syn());
    kernel.sent_to_pod(&one.syn_ack());
    kernel.sent_by_pod(&one.handshake_ack());
    kernel.sent_to_pod(&one.to_client(ACK, 501, 1001, 10));
    let edge = kernel.edge(&mk_key(ends, true, TCP, 50000));
    assert_eq!((connections(&edge), packets(&edge)), ((1, 1, 0), (2, 2)));
    assert_eq!((kernel.edges(), kernel.counted()), (1, vec![]));
}

#[test]
fn the_sender_of_the_first_datagram_initiates() {
    let Some(mut kernel) = load() else { return };
    for ends in ENDS {
        let [pod, other] = ends.map(ip);
        for _ in 0..3 {
            kernel.sent_by_pod(&frame(pod, other, UDP, &frames::udp(40000, 53, 30)));
            kernel.sent_to_pod(&frame(other, pod, UDP, &frames::udp(53, 40000, 60)));
        }
        // Another client port is the same edge, and no new attempt while the edge is active.
        kernel.sent_by_pod(&frame(pod, other, UDP, &frames::udp(40001, 53, 30)));
        let edge = kernel.edge(&mk_key(ends, true, UDP, 53));
        assert_eq!((connections(&edge), packets(&edge)), ((1, 1, 0), (4, 3)));
        assert_eq!(edge.oriented_by, BY_FIRST_PACKET);
        // From a low port to a high one.
        kernel.sent_to_pod(&frame(other, pod, UDP, &frames::udp(123, 5000, 10)));
        kernel.sent_by_pod(&frame(pod, other, UDP, &frames::udp(5000, 123, 10)));
        let edge = kernel.edge(&mk_key(ends, false, UDP, 5000));
        assert_eq!((connections(&edge), packets(&edge)), ((1, 1, 0), (1, 1)));
    }
    assert_eq!((kernel.edges(), kernel.counted()), (4, vec![]));
}

#[test]
fn equal_ports_make_an_edge_of_each_direction() {
    let Some(mut kernel) = load() else { return };
    let [ends, _] = ENDS;
    let [pod, other] = ends.map(ip);
    for _ in 0..2 {
        kernel.sent_by_pod(&frame(pod, other, UDP, &frames::udp(7946, 7946, 30)));
        kernel.sent_to_pod(&frame(other, pod, UDP, &frames::udp(7946, 7946, 30)));
    }
    for local_initiated in [true, false] {
        let edge = kernel.edge(&mk_key(ends, local_initiated, UDP, 7946));
        assert_eq!((edge.attempts, packets(&edge)), (1, (2, 0)), "initiated here: {local_initiated}");
        assert_eq!(edge.accepted, 1, "the other side was heard");
    }
}

/// Silences for which a moment is long enough, or none is: so nothing depends on how fast this machine is.
const SHORT: u64 = 1;
const LONG: u64 = 3_600_000_000_000;

fn after_a_moment() {
    // Longer than the coarse clock's tick.
    sleep(Duration::from_millis(50));
}

#[test]
fn after_silence_a_datagram_is_an_attempt_and_no_answer() {
    let timeouts = KernelSettings { datagram_timeout: SHORT, ..KernelSettings::DEFAULT };
    let Some(mut kernel) = load_with(timeouts) else { return };
    let [ends, _] = ENDS;
    let [pod, other] = ends.map(ip);
    let ask = frame(pod, other, UDP, &frames::udp(40000, 53, 30));
    kernel.sent_by_pod(&ask);
    after_a_moment();
    kernel.sent_by_pod(&ask);
    after_a_moment();
    kernel.sent_to_pod(&frame(other, pod, UDP, &frames::udp(53, 40000, 60)));
    assert_eq!(
        connections(&kernel.edge(&mk_key(ends, true, UDP, 53))),
        (2, 0, 0),
        "asked twice, not answered"
    );
    let reverse = kernel.edge(&mk_key(ends, false, UDP, 40000));
    assert_eq!(connections(&reverse), (1, 0, 0), "nobody asked lately: whoever speaks initiates");
}

#[test]
fn once_both_sides_spoke_another_silence_counts() {
    for (datagram_stream_timeout, attempts) in [(SHORT, 2), (LONG, 1)] {
        let timeouts =
            KernelSettings { datagram_timeout: LONG, datagram_stream_timeout, ..KernelSettings::DEFAULT };
        let Some(mut kernel) = load_with(timeouts) else { return };
        let [ends, _] = ENDS;
        let [pod, other] = ends.map(ip);
        let ask = frame(pod, other, UDP, &frames::udp(40000, 53, 30));
        kernel.sent_by_pod(&ask);
        kernel.sent_to_pod(&frame(other, pod, UDP, &frames::udp(53, 40000, 60)));
        after_a_moment();
        kernel.sent_by_pod(&ask);
        assert_eq!(connections(&kernel.edge(&mk_key(ends, true, UDP, 53))), (attempts, 1, 0));
    }
}

#[test]
fn icmp_echo_is_an_edge_by_its_type_and_code() {
    let Some(mut kernel) = load() else { return };
    for (ends, protocol, request, reply) in [(ENDS[0], ICMP, 8, 0), (ENDS[1], ICMPV6, 128, 129)] {
        let [pod, other] = ends.map(ip);
        for _ in 0..2 {
            kernel.sent_to_pod(&frame(other, pod, protocol, &frames::icmp(request, 0, &[0; 10])));
            kernel.sent_by_pod(&frame(pod, other, protocol, &frames::icmp(reply, 0, &[0; 10])));
        }
        let edge = kernel.edge(&mk_key(ends, false, protocol, u16::from(request) * 256));
        assert_eq!((connections(&edge), packets(&edge)), ((1, 1, 0), (2, 2)));
        assert_eq!(edge.oriented_by, BY_HANDSHAKE);
        // An answer to nobody.
        kernel.sent_to_pod(&frame(other, pod, protocol, &frames::icmp(reply, 0, &[0; 10])));
    }
    assert_eq!((kernel.edges(), kernel.counted()), (2, vec![(Counter::OrphanReply, 2)]));
}

#[test]
fn an_icmp_unreachable_refuses_what_it_quotes() {
    let Some(mut kernel) = load() else { return };
    let [ends, ends6] = ENDS;
    let router = ip("203.0.113.1");
    let one = Connection::new(ends, 40000, 1000);
    let unreachable = frames::icmp(3, 1, &one.syn()[14..]);
    kernel.sent_by_pod(&one.syn());
    kernel.sent_to_pod(&frame(router, ip(ends[0]), ICMP, &unreachable));
    kernel.sent_to_pod(&frame(router, ip(ends[0]), ICMP, &unreachable));
    let key = mk_key(ends, true, TCP, 80);
    assert_eq!(connections(&kernel.edge(&key)), (1, 0, 1));
    // A route that goes while a connection is open refuses nothing.
    let data = one.to_server(ACK, 1500, 501, 10);
    kernel.sent_to_pod(&frame(router, ip(ends[0]), ICMP, &frames::icmp(3, 1, &data[14..])));
    assert_eq!(connections(&kernel.edge(&key)), (1, 0, 1));
    // A closed UDP port of the pod answers for itself.
    let [pod, other] = ends6.map(ip);
    let datagram = frame(other, pod, UDP, &frames::udp(40000, 5000, 10));
    kernel.sent_to_pod(&datagram);
    kernel.sent_by_pod(&frame(pod, other, ICMPV6, &frames::icmp(1, 4, &datagram[14..])));
    let edge = kernel.edge(&mk_key(ends6, false, UDP, 5000));
    assert_eq!((connections(&edge), packets(&edge)), ((1, 0, 1), (1, 0)));
    assert_eq!((kernel.edges(), kernel.counted()), (2, vec![]));
    // One about a connection that nobody here opened.
    let of_unknown =
        frames::icmp(3, 1, &Connection { server_port: 81, ..Connection::new(ends, 40009, 1) }.syn()[14..]);
    kernel.sent_to_pod(&frame(router, ip(ends[0]), ICMP, &of_unknown));
    assert_eq!(kernel.counted(), [(Counter::ErrorOfNoEdge, 1)]);
}

#[test]
fn an_icmp_error_counts_on_the_edge_it_quotes_whoever_sent_the_packet() {
    let Some(mut kernel) = load() else { return };
    for (ends, router, protocol, too_big, exceeded) in
        [(ENDS[0], "203.0.113.1", ICMP, (3, 4), (11, 0)), (ENDS[1], "2001:db8:2::1", ICMPV6, (2, 0), (3, 0))]
    {
        let ([pod, other], router) = (ends.map(ip), ip(router));
        let one = Connection::new(ends, 40000, 1000);
        kernel.sent_by_pod(&one.syn());
        kernel.sent_to_pod(&one.syn_ack());
        let before = kernel.edge(&mk_key(ends, true, TCP, 80));
        assert_eq!(before.errors, [0; 3]);
        // What the initiator sent is too big, and so is what the responder sends, on its way from here.
        let (asked, answered) = (one.to_server(ACK, 1001, 501, 1400), one.to_client(ACK, 501, 1001, 1400));
        let error = |(kind, code): (u8, u8), quoted: &[u8]| frames::icmp(kind, code, &quoted[14..]);
        kernel.sent_to_pod(&frame(router, pod, protocol, &error(too_big, &asked)));
        kernel.sent_by_pod(&frame(pod, other, protocol, &error(too_big, &answered)));
        kernel.sent_to_pod(&frame(router, pod, protocol, &error(exceeded, &one.syn())));
        let edge = kernel.edge(&mk_key(ends, true, TCP, 80));
        assert_eq!(edge.errors, [2, 1, 0]);
        let judged = EdgeValue { errors: [0; 3], ..edge };
        assert_eq!(judged, before, "errors are no packets of the edge, and refuse nothing");
    }
    assert_eq!((kernel.edges(), kernel.counted()), (2, vec![]));
}

#[test]
fn sctp_init_opens_and_abort_refuses() {
    let Some(mut kernel) = load() else { return };
    let [ends, _] = ENDS;
    let [pod, other] = ends.map(ip);
    let to_server = |port, verification, chunk, tag| {
        frame(pod, other, SCTP, &frames::sctp(port, 3868, verification, chunk, tag))
    };
    let to_client = |port, verification, chunk| {
        frame(other, pod, SCTP, &frames::sctp(3868, port, verification, chunk, 9))
    };
    kernel.sent_by_pod(&to_server(40000, 0, 1, 77));
    kernel.sent_by_pod(&to_server(40000, 0, 1, 77));
    kernel.sent_to_pod(&to_client(40000, 77, 2));
    kernel.sent_by_pod(&to_server(40000, 9, 10, 0));
    kernel.sent_to_pod(&to_client(40000, 77, 6));
    kernel.sent_by_pod(&to_server(40001, 0, 1, 88));
    kernel.sent_to_pod(&to_client(40001, 88, 6));
    let edge = kernel.edge(&mk_key(ends, true, SCTP, 3868));
    assert_eq!((connections(&edge), packets(&edge)), ((2, 1, 1), (4, 3)));
    assert_eq!((kernel.edges(), kernel.counted()), (1, vec![]));
}

#[test]
fn extension_headers_and_fragments_of_ipv6_are_followed() {
    let Some(mut kernel) = load() else { return };
    let [_, ends] = ENDS;
    let [IpAddr::V6(pod), IpAddr::V6(other)] = ends.map(ip) else { panic!() };
    let syn =
        |port| Tcp { source: 40000, destination: port, sequence: 1, acknowledged: 0, flags: SYN }.with(0);
    let send = |next, payload: &[u8]| ethernet(0x86dd, &frames::ipv6(pod, other, next, payload));
    kernel.sent_by_pod(&send(0, &extension(TCP, 1, &syn(81))));
    kernel.sent_by_pod(&send(43, &extension(TCP, 3, &syn(82))));
    kernel.sent_by_pod(&send(51, &authentication(60, 6, &extension(TCP, 2, &syn(83)))));
    kernel.sent_by_pod(&send(FRAGMENT, &fragment(TCP, 0, &syn(84))));
    let mut chain = syn(85);
    for _ in 0..8 {
        chain = extension(if chain.len() == 20 { TCP } else { 60 }, 32, &chain);
    }
    kernel.sent_by_pod(&send(60, &chain));
    for port in 81..=85 {
        assert_eq!(kernel.edge(&mk_key(ends, true, TCP, port)).attempts, 1, "{port}");
    }
    kernel.sent_by_pod(&send(FRAGMENT, &fragment(TCP, 1, &syn(86))));
    assert_eq!(packets(&kernel.edge(&mk_key(ends, true, TCP, 84))), (2, 0), "the rest of that datagram");
    let mut other = fragment(TCP, 1, &syn(86));
    other[7] += 1;
    kernel.sent_by_pod(&send(FRAGMENT, &other));
    kernel.sent_by_pod(&send(60, &extension(60, 1, &chain)));
    assert_eq!(kernel.edges(), 5);
    assert_eq!(kernel.counted(), [(Counter::ChainTooLong, 1), (Counter::LaterFragment, 1)]);
}

#[test]
fn options_and_fragments_of_ipv4_are_followed() {
    let Some(mut kernel) = load() else { return };
    let [ends, _] = ENDS;
    let [IpAddr::V4(pod), IpAddr::V4(other)] = ends.map(ip) else { panic!() };
    let syn = Tcp { source: 40000, destination: 80, sequence: 1, acknowledged: 0, flags: SYN }.with(0);
    let send =
        |options: &[u8], fragment| ethernet(0x0800, &frames::ipv4(pod, other, TCP, options, fragment, &syn));
    for words in 0..=10 {
        kernel.sent_by_pod(&send(&vec![1; 4 * words], 0));
    }
    kernel.sent_by_pod(&send(&[], 0x2000));
    kernel.sent_by_pod(&send(&[], 0x2001));
    kernel.sent_by_pod(&send(&[], 1));
    let edge = kernel.edge(&mk_key(ends, true, TCP, 80));
    assert_eq!((connections(&edge), packets(&edge)), ((1, 0, 0), (14, 0)));
    assert_eq!((kernel.edges(), kernel.counted()), (1, vec![]));
}

#[test]
fn later_fragments_count_for_the_edge_of_the_first_whoever_sent_them() {
    let Some(mut kernel) = load() else { return };
    for ends in ENDS {
        let [pod, other] = ends.map(ip);
        let piece = |from: IpAddr, to: IpAddr, offset: u16, payload: &[u8]| match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                ethernet(0x0800, &frames::ipv4(from, to, UDP, &[], 0x2000 | offset, payload))
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                ethernet(0x86dd, &frames::ipv6(from, to, FRAGMENT, &fragment(UDP, offset, payload)))
            }
            _ => panic!("two families"),
        };
        // Before its first, nobody knows whose it is.
        kernel.sent_by_pod(&piece(pod, other, 2, &[0; 8]));
        assert_eq!(kernel.counted(), [(Counter::LaterFragment, if ends == ENDS[0] { 1 } else { 3 })]);
        kernel.sent_by_pod(&piece(pod, other, 0, &frames::udp(40000, 53, 0)));
        kernel.sent_by_pod(&piece(pod, other, 1, &[0; 8]));
        kernel.sent_by_pod(&piece(pod, other, 2, &[0; 8]));
        kernel.sent_to_pod(&piece(other, pod, 0, &frames::udp(53, 40000, 0)));
        kernel.sent_to_pod(&piece(other, pod, 1, &[0; 16]));
        let edge = kernel.edge(&mk_key(ends, true, UDP, 53));
        assert_eq!((connections(&edge), packets(&edge)), ((1, 1, 0), (3, 2)));
        let headers = if ends == ENDS[0] { 20 } else { 48 };
        assert_eq!((edge.bytes_to_responder, edge.bytes_to_initiator), (3 * (headers + 8), 2 * headers + 24));
        // The other way round, it is another datagram.
        let unknown = if ends == ENDS[0] { 2 } else { 4 };
        kernel.sent_to_pod(&frame_with_identification(&piece(other, pod, 1, &[0; 8])));
        assert_eq!(kernel.counted(), [(Counter::LaterFragment, unknown)]);
    }
    assert_eq!(kernel.edges(), 2);
}

/// The same fragment of another datagram.
fn frame_with_identification(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let low_byte = if frame[12..14] == [0x08, 0x00] { 14 + 5 } else { 14 + 40 + 7 };
    frame[low_byte] += 1;
    frame
}

#[test]
fn vlan_tags_in_the_bytes_are_followed_and_told() {
    let Some(mut kernel) = load() else { return };
    let [ends, _] = ENDS;
    let [IpAddr::V4(pod), IpAddr::V4(other)] = ends.map(ip) else { panic!() };
    let syn = Tcp { source: 40000, destination: 80, sequence: 1, acknowledged: 0, flags: SYN }.with(0);
    let packet = frames::ipv4(pod, other, TCP, &[], 0, &syn);
    let inner = frames::tagged(42, 0x0800, &packet);
    kernel.sent_by_pod(&ethernet(0x88a8, &frames::tagged(7, 0x8100, &inner)));
    assert_eq!(kernel.edge(&mk_key(ends, true, TCP, 80)).vlan, 7);
}

#[test]
fn packets_that_end_anywhere_are_counted_and_pass() {
    let Some(mut kernel) = load() else { return };
    let mut truncated = 0;
    for ends in ENDS {
        let whole = Connection::new(ends, 40000, 1000).syn();
        // Newer kernels refuse to run on less than an IP header; the parser's own tests go down to nothing.
        let network = if ends == ENDS[0] { 20 } else { 40 };
        for length in 14 + network..whole.len() {
            kernel.sent_by_pod(&whole[..length]);
            truncated += 1;
        }
    }
    assert_eq!((kernel.edges(), kernel.counted()), (0, vec![(Counter::Truncated, truncated)]));
}

#[test]
fn a_gso_packet_counts_as_the_packets_it_will_be() {
    let Some(mut kernel) = load() else { return };
    let [ends, _] = ENDS;
    let one = Connection::new(ends, 40000, 1000);
    kernel.sent_by_pod(&one.syn());
    // `struct __sk_buff` up to and with gso_segs and gso_size (include/uapi/linux/bpf.h).
    let mut context = vec![0_u8; 192];
    context[164..168].copy_from_slice(&4_u32.to_ne_bytes());
    kernel.run(FROM_POD, &one.to_server(ACK, 1001, 501, 2000), Some(&context));
    let edge = kernel.edge(&mk_key(ends, true, TCP, 80));
    assert_eq!(edge.packets_to_responder, 1 + 4);
    assert_eq!(edge.bytes_to_responder, 40 + 2000 + 4 * 40);
}

#[test]
fn what_nobody_judges_is_counted_apart() {
    let Some(mut kernel) = load() else { return };
    let [pod, other] = ENDS[0].map(ip);
    kernel.sent_by_pod(&ethernet(0x0806, &[0; 28]));
    kernel.sent_by_pod(&frame(pod, ip("239.1.2.3"), UDP, &frames::udp(1, 2, 3)));
    kernel.sent_by_pod(&frame(pod, other, UDP, &frames::udp(68, 67, 200)));
    kernel.sent_by_pod(&frame(pod, other, 47, &[0; 30]));
    let expected =
        [(Counter::NotIp, 1), (Counter::Group, 1), (Counter::Dhcp, 1), (Counter::OtherProtocol, 1)];
    assert_eq!((kernel.edges(), kernel.counted()), (0, expected.to_vec()));
}
