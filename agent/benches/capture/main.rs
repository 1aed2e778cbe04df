//! What a packet costs, by `BPF_PROG_TEST_RUN`: `cargo xtask bench capture`. Absolute numbers vary by the hour, so
//! each row is measured in turn with an empty program, which is the floor, and with the least program that does
//! the same to a map: a row's ratio to that one is what counts.
#![expect(clippy::unwrap_used, reason = "a measurement may panic")]
#![expect(clippy::print_stdout, reason = "figures are its result")]

#[expect(dead_code, reason = "shared with the tests of the parser; each uses its part")]
#[path = "../../../common/testing/frames.rs"]
mod frames;
mod least;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use aya::programs::{TestRun as _, TestRunOptions};
use dryfence::capture::programs::{FROM_POD, Programs, TO_POD, names};
use dryfence::capture::{Accounting, Settings};
use dryfence::model::folding::Folding;
use dryfence_common::edge::EdgeKey;
use dryfence_common::packet::{TCP, UDP};
use frames::{ACK, SYN, Tcp, ethernet, frame};
use ipnet::IpNet;
use least::Least;

const REPEAT: u32 = 500_000;
const ROUNDS: usize = 15;
/// Packets that each make an edge: each is a run of its own, so the median counts, not the mean.
const NEW_EDGES: u32 = 30_000;
const ROOM: u32 = 4 * NEW_EDGES;
const RING_BYTES: u32 = 1 << 23;

const OUR_KEY: i32 = size_of::<EdgeKey>() as i32;

const POD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

fn main() {
    let settings = Settings { edge_map_size: ROOM, budget_opened: ROOM, ..Settings::default() };
    let mut programs =
        Programs::load(&Settings { accounting: Accounting::Sampled, ..settings.clone() }).unwrap();
    let mut off = Programs::load(&Settings { accounting: Accounting::Off, ..settings }).unwrap();
    let range = (net("198.51.100.0/24"), Folding { length: 24, outside: true });
    programs.bounds().fold(&[range].into_iter().collect()).unwrap();
    let (empty, known) = (least::empty(), least::known(least::KEY));
    println!("{:34} {:>6} {:>8}   ratio", "ns net of an empty program", "ours", "least");
    for row in rows() {
        let programs = if row.program == names(Accounting::Off)[0] { &mut off } else { &mut programs };
        for (program, frame) in [(FROM_POD, &row.opening), (TO_POD, &row.answer)] {
            ours(programs, program, frame, 1);
        }
        known.learn(&row.frame);
        let mut best = [Duration::MAX; 3];
        for _ in 0..ROUNDS {
            let round = [
                ours(programs, row.program, &row.frame, REPEAT),
                known.run(&row.frame, REPEAT),
                empty.run(&row.frame, REPEAT),
            ];
            best = [0, 1, 2].map(|at: usize| best[at].min(round[at]));
        }
        print(row.name, best);
    }
    print("first packet of a new edge", new_edges(&mut programs, &empty));
    // What the least program costs whose key is as wide as ours: both addresses in the form of IPv6.
    let wide = least::known(OUR_KEY);
    let frame = tcp(ends("192.0.2.10", "192.0.2.20"), ACK);
    known.learn(&frame);
    wide.learn(&frame);
    let mut best = [Duration::MAX; 3];
    for _ in 0..ROUNDS {
        let round = [&wide, &known, &empty].map(|program| program.run(&frame, REPEAT));
        best = [0, 1, 2].map(|at: usize| best[at].min(round[at]));
    }
    print("the least, with a key as wide as ours", best);
}

/// What is measured.
struct Row {
    name: &'static str,
    program: &'static str,
    /// What makes the edge, and the answer, so that it is one on which both sides were heard.
    opening: Vec<u8>,
    answer: Vec<u8>,
    frame: Vec<u8>,
}

fn rows() -> Vec<Row> {
    let ([sampled, _], [passed_over, _]) = (names(Accounting::Sampled), names(Accounting::Off));
    let (known, known6) = (ends("192.0.2.10", "192.0.2.20"), ends("2001:db8::10", "2001:db8::20"));
    let shared = ends("192.0.2.10", "198.51.100.7");
    let data = |ends| tcp(ends, ACK);
    let of_tcp = |name, program, ends: [IpAddr; 2], frame| {
        let [pod, other] = ends;
        let back = Tcp { source: 80, destination: 40000, sequence: 7, acknowledged: 2, flags: SYN | ACK };
        let answer = frames::frame(other, pod, TCP, &back.with(0));
        Row { name, program, opening: tcp(ends, SYN), answer, frame }
    };
    let [pod, other] = known;
    let asked = frame(pod, other, UDP, &frames::udp(40000, 53, 64));
    let answer = frame(other, pod, UDP, &frames::udp(53, 40000, 64));
    vec![
        of_tcp("TCP data, exact", FROM_POD, known, data(known)),
        of_tcp("TCP data, exact, IPv6", FROM_POD, known6, data(known6)),
        of_tcp("TCP data, exact, VLAN tag", FROM_POD, known, tagged(&data(known))),
        of_tcp("TCP data, exact, edge of a range", FROM_POD, shared, data(shared)),
        of_tcp("TCP data, sampled", sampled, known, data(known)),
        of_tcp("TCP data, sampled, IPv6", sampled, known6, data(known6)),
        of_tcp("TCP data, off", passed_over, known, data(known)),
        of_tcp("TCP SYN, known edge", FROM_POD, known, tcp(known, SYN)),
        of_tcp("TCP SYN, known edge, IPv6", FROM_POD, known6, tcp(known6, SYN)),
        Row { name: "UDP, known edge", program: FROM_POD, opening: asked.clone(), answer, frame: asked },
        of_tcp("not parsable", FROM_POD, known, data(known)[..14 + 20 + 8].to_vec()),
        of_tcp("not IP", FROM_POD, known, ethernet(0x0806, &[0; 28])),
    ]
}

fn ends(pod: &str, other: &str) -> [IpAddr; 2] {
    [pod, other].map(|text| text.parse().unwrap())
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn print(name: &str, [ours, least, empty]: [Duration; 3]) {
    let net = |time: Duration| time.saturating_sub(empty).as_nanos();
    let ratio = net(ours) as f64 / net(least) as f64;
    println!("{name:34} {:>6} {:>8}   {ratio:.2}", net(ours), net(least));
}

/// Each packet opens a connection to another address: the middle of all, one by one and in turn.
fn new_edges(programs: &mut Programs, empty: &Least) -> [Duration; 3] {
    let new = least::new(ROOM, RING_BYTES);
    let mut times = [const { Vec::new() }; 3];
    for number in 0..NEW_EDGES {
        let [_, _, high, low] = number.to_be_bytes();
        // Each an address of its own: where a range stands for them, most would find its edge.
        let to = Ipv4Addr::new(10, 1, high, low);
        let segment = Tcp { source: 40000, destination: 1000, sequence: number, acknowledged: 0, flags: SYN };
        let frame = frame(POD.into(), to.into(), TCP, &segment.with(0));
        let turn = [ours(programs, FROM_POD, &frame, 1), new.run(&frame, 1), empty.run(&frame, 1)];
        for (times, time) in times.iter_mut().zip(turn) {
            times.push(time);
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    })
}

fn ours(programs: &mut Programs, program: &'static str, frame: &[u8], repeat: u32) -> Duration {
    let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
    programs.program(program).unwrap().test_run(options).unwrap().duration
}

fn tcp([pod, other]: [IpAddr; 2], flags: u8) -> Vec<u8> {
    let sequence = if flags == SYN { 1 } else { 2 };
    let segment = Tcp { source: 40000, destination: 80, sequence, acknowledged: 1, flags };
    frame(pod, other, TCP, &segment.with(64))
}

/// The same frame with an 802.1Q tag in its bytes.
fn tagged(frame: &[u8]) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    tagged.extend([0x81, 0, 0, 42]);
    tagged.extend(&frame[12..]);
    tagged
}
