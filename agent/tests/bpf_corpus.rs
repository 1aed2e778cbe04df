//! Every packet of the corpus through the programs in the kernel, both ways: what is counted, and on which edge, is
//! what the corpus says of the packet.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../common/testing/corpus.rs"]
mod corpus;

use aya::programs::{TestRun as _, TestRunOptions};
use corpus::Case;
use dryfence::capture::Settings;
use dryfence::capture::programs::{FROM_POD, Programs, TO_POD};
use dryfence_common::counter::Counter;
use dryfence_common::edge::{EdgeKey, LOCAL_INITIATED};
use dryfence_common::orphan::OrphanKey;
use dryfence_common::packet::{Link, Packet, Step};

/// What TC programs answer to go on with the next (TC_ACT_UNSPEC), as the kernel reports it.
const NEXT: u32 = u32::MAX;
/// `BPF_PROG_TEST_RUN` lets packets come in at the loopback interface.
const LOOPBACK: u32 = 1;

/// What a packet leaves behind.
#[derive(Debug, PartialEq, Eq, Default)]
struct Effect {
    edges: Vec<(EdgeKey, Counted)>,
    orphans: Vec<(OrphanKey, [u64; 4])>,
    counters: Vec<(Counter, u64)>,
}

#[derive(Debug, PartialEq, Eq, Default)]
struct Counted {
    connections: [u64; 3],
    packets: [u64; 2],
    bytes: [u64; 2],
    vlan: u16,
}

/// What a packet must leave behind in empty maps.
fn expected(case: &Case, from_pod: bool) -> Effect {
    let counted = |counter| Effect { counters: vec![(counter, 1)], ..Effect::default() };
    let packet = match &case.expected {
        Ok(packet) => packet,
        Err(reason) => {
            let counter = Counter::ALL.into_iter().find(|counter| counter.reason() == reason);
            return counted(counter.unwrap());
        }
    };
    let edge = |initiated, connections| Effect {
        edges: vec![edge(packet, from_pod, initiated, connections)],
        ..Effect::default()
    };
    match packet.step {
        Step::Open | Step::Datagram | Step::Request => edge(true, [1, 0, 0]),
        Step::Accept => edge(false, [0, 1, 0]),
        Step::Refuse => edge(false, [0, 0, 1]),
        Step::Continue => Effect { orphans: vec![orphan(packet, from_pod)], ..Effect::default() },
        Step::Abort | Step::Reset | Step::Close => counted(Counter::Orphan),
        Step::Reply => counted(Counter::OrphanReply),
        Step::Unreachable | Step::Error => counted(Counter::ErrorOfNoEdge),
        Step::Fragment => counted(Counter::LaterFragment),
    }
}

/// The edge that a packet makes whose sender initiated it, or else responds.
fn edge(packet: &Packet, from_pod: bool, initiated: bool, connections: [u64; 3]) -> (EdgeKey, Counted) {
    let Packet { source, destination, source_port, destination_port, protocol, .. } = *packet;
    let (initiator, responder, port) =
        if initiated { (source, destination, destination_port) } else { (destination, source, source_port) };
    let flags = if initiated == from_pod { LOCAL_INITIATED } else { 0 };
    let key = EdgeKey { initiator, responder, interface: LOOPBACK, port, protocol, flags };
    let one_way = |amount: u64| if initiated { [amount, 0] } else { [0, amount] };
    let (packets, bytes) = (one_way(1), one_way(packet.length.into()));
    (key, Counted { connections, packets, bytes, vlan: packet.vlan })
}

fn orphan(packet: &Packet, from_pod: bool) -> (OrphanKey, [u64; 4]) {
    let source = (packet.source, packet.source_port);
    let destination = (packet.destination, packet.destination_port);
    let ((local, local_port), (remote, remote_port)) =
        if from_pod { (source, destination) } else { (destination, source) };
    let (interface, protocol) = (LOOPBACK, packet.protocol);
    let key = OrphanKey { local, remote, interface, local_port, remote_port, protocol, padding: [0; 7] };
    let length = packet.length.into();
    (key, if from_pod { [1, 0, length, 0] } else { [0, 1, 0, length] })
}

/// Runs a packet, and takes what it leaves behind out of the maps again.
fn effect(programs: &mut Programs, program: &'static str, bytes: &[u8]) -> Effect {
    let before = programs.counters().all();
    let mut out = vec![0; bytes.len()];
    let options = TestRunOptions { data_in: Some(bytes), data_out: Some(&mut out), ..TestRunOptions::new() };
    let result = programs.program(program).unwrap().test_run(options).unwrap();
    assert_eq!(result.return_value, NEXT);
    assert_eq!(out, bytes, "the packet is unharmed");
    let mut effect = Effect::default();
    for (counter, number) in programs.counters().all() {
        let known = before.iter().find(|(known, _)| *known == counter).map_or(0, |(_, number)| *number);
        if number > known {
            effect.counters.push((counter, number - known));
        }
    }
    for (key, value) in programs.edges().read().unwrap() {
        let counted = Counted {
            connections: [value.attempts, value.accepted, value.refused],
            packets: [value.packets_to_responder, value.packets_to_initiator],
            bytes: [value.bytes_to_responder, value.bytes_to_initiator],
            vlan: value.vlan,
        };
        effect.edges.push((key, counted));
        programs.edges().delete(&key).unwrap();
    }
    for (key, value) in programs.orphans().read().unwrap() {
        let counted =
            [value.packets_from_pod, value.packets_to_pod, value.bytes_from_pod, value.bytes_to_pod];
        effect.orphans.push((key, counted));
        programs.orphans().delete(&key).unwrap();
    }
    effect
}

/// Whether `BPF_PROG_TEST_RUN` takes it: an Ethernet frame with an IP header in it, if it says that there is one.
/// (The parser's own tests go down to nothing.)
fn can_run(case: &Case) -> bool {
    let network = match case.bytes.get(12..14) {
        Some([0x08, 0x00]) => 20,
        Some([0x86, 0xdd]) => 40,
        _ => 1,
    };
    case.link == Link::Ethernet && case.bytes.len() >= 14 + network
}

#[test]
fn every_packet_of_the_corpus_leaves_behind_what_it_says() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI is set");
        eprintln!("SKIPPED: this test needs root to load eBPF programs");
        return;
    }
    let mut programs = match Programs::load(&Settings::default()) {
        Ok(programs) => programs,
        Err(error) => panic!("{error}: {error:?}"),
    };
    let cases: Vec<_> = corpus::cases().into_iter().filter(can_run).collect();
    assert!(cases.len() >= 80, "{}", cases.len());
    for case in &cases {
        for (program, from_pod) in [(FROM_POD, true), (TO_POD, false)] {
            let effect = effect(&mut programs, program, &case.bytes);
            assert_eq!(effect, expected(case, from_pod), "{}, {program}", case.name);
        }
    }
}
