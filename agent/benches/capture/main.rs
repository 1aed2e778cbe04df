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
use dryfence::capture::Settings;
use dryfence::capture::programs::{FROM_POD, Programs};
use dryfence_common::packet::{TCP, UDP};
use frames::{ACK, SYN, Tcp, ethernet, frame};
use least::Least;

const REPEAT: u32 = 500_000;
const ROUNDS: usize = 15;
/// Packets that each make an edge: each is a run of its own, so the median counts, not the mean.
const NEW_EDGES: u32 = 30_000;
const ROOM: u32 = 4 * NEW_EDGES;
const RING_BYTES: u32 = 1 << 23;

const POD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 20);

fn main() {
    let settings = Settings { edge_map_size: ROOM, ..Settings::default() };
    let mut programs = Programs::load(&settings).unwrap();
    let (empty, known) = (least::empty(), least::known());
    println!("ns net of an empty program     ours    least   ratio");
    for (name, opening, frame) in rows() {
        ours(&mut programs, &opening, 1);
        known.learn(&frame);
        let mut best = [Duration::MAX; 3];
        for _ in 0..ROUNDS {
            let round =
                [ours(&mut programs, &frame, REPEAT), known.run(&frame, REPEAT), empty.run(&frame, REPEAT)];
            best = [0, 1, 2].map(|at: usize| best[at].min(round[at]));
        }
        print(name, best);
    }
    print("first packet of a new edge", new_edges(&mut programs, &empty));
}

/// Name, the packet that makes the edge, and the packet that is measured.
fn rows() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let (syn, data) = (tcp(40000, SYN, 1, false), tcp(40000, ACK, 2, false));
    let (syn6, data6) = (tcp(40000, SYN, 1, true), tcp(40000, ACK, 2, true));
    let udp = frame(POD.into(), OTHER.into(), UDP, &frames::udp(40000, 53, 64));
    let unparsable = data[..14 + 20 + 8].to_vec();
    vec![
        ("TCP data, exact", syn.clone(), data.clone()),
        ("TCP data, exact, IPv6", syn6.clone(), data6),
        ("TCP data, exact, VLAN tag", syn.clone(), tagged(&data)),
        ("TCP SYN, known edge", syn.clone(), syn.clone()),
        ("TCP SYN, known edge, IPv6", syn6.clone(), syn6),
        ("UDP, known edge", udp.clone(), udp),
        ("not parsable", syn.clone(), unparsable),
        ("not IP", syn, ethernet(0x0806, &[0; 28])),
    ]
}

fn print(name: &str, [ours, least, empty]: [Duration; 3]) {
    let net = |time: Duration| time.saturating_sub(empty).as_nanos();
    let ratio = net(ours) as f64 / net(least) as f64;
    println!("{name:28} {:>6} {:>8}   {ratio:.2}", net(ours), net(least));
}

/// Each packet opens a connection to another port: the middle of all, one by one and in turn.
fn new_edges(programs: &mut Programs, empty: &Least) -> [Duration; 3] {
    let new = least::new(ROOM, RING_BYTES);
    let mut times = [const { Vec::new() }; 3];
    for number in 0..NEW_EDGES {
        let [_, _, high, low] = number.to_be_bytes();
        let to = Ipv4Addr::new(198, 51, 100 + (high >> 6), low);
        let segment = Tcp {
            source: 40000,
            destination: 1000 + u16::from(high),
            sequence: number,
            acknowledged: 0,
            flags: SYN,
        };
        let frame = frame(POD.into(), to.into(), TCP, &segment.with(0));
        let turn = [ours(programs, &frame, 1), new.run(&frame, 1), empty.run(&frame, 1)];
        for (times, time) in times.iter_mut().zip(turn) {
            times.push(time);
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    })
}

fn ours(programs: &mut Programs, frame: &[u8], repeat: u32) -> Duration {
    let program = programs.program(FROM_POD).unwrap();
    let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
    program.test_run(options).unwrap().duration
}

fn tcp(source: u16, flags: u8, sequence: u32, v6: bool) -> Vec<u8> {
    let ends = if v6 { ["2001:db8::10", "2001:db8::20"] } else { ["192.0.2.10", "192.0.2.20"] };
    let [pod, other]: [IpAddr; 2] = ends.map(|text| text.parse().unwrap());
    let segment = Tcp { source, destination: 80, sequence, acknowledged: 1, flags };
    frame(pod, other, TCP, &segment.with(64))
}

/// The same frame with an 802.1Q tag in its bytes.
fn tagged(frame: &[u8]) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    tagged.extend([0x81, 0, 0, 42]);
    tagged.extend(&frame[12..]);
    tagged
}
