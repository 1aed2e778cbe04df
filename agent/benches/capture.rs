//! What a packet costs, by `BPF_PROG_TEST_RUN` with many repeats: `cargo xtask bench capture`. Absolute numbers
//! vary by the hour; the empty program of the same run is the floor.
#![expect(clippy::unwrap_used, reason = "a measurement may panic")]
#![expect(clippy::print_stdout, reason = "figures are its result")]

#[expect(dead_code, reason = "shared with the tests of the parser; each uses its part")]
#[path = "../../common/testing/frames.rs"]
mod frames;

use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

use aya::programs::{TestRun as _, TestRunOptions};
use dryfence::capture::programs::{FROM_POD, Programs, TO_POD, names};
use dryfence::capture::{Accounting, Folding, Settings};
use dryfence_common::packet::{TCP, UDP};
use frames::{ACK, SYN, Tcp, frame};

const REPEAT: u32 = 1_000_000;
const ROUNDS: usize = 5;

/// A program that only answers "go on with the next": `r0 = -1; exit`.
fn load_empty() -> OwnedFd {
    load_instructions(&[0xffff_ffff_0000_00b7, 0x95])
}

/// The least that counts a packet exactly: one lookup in a shared hash with our key, and two atomic adds.
fn load_least() -> OwnedFd {
    let map = make_map();
    let store_zero = |offset: i16| 0x7a | 10 << 8 | u64::from(offset as u16) << 16;
    let add_one = |offset: u64| 0xdb | 0x10 << 8 | offset << 16;
    let mut instructions: Vec<u64> = (-5..0).map(|word| store_zero(8 * word)).collect();
    instructions.extend([
        0x02bf | 10 << 12,
        0x07 | 2 << 8 | u64::from(-40_i32 as u32) << 32,
        // r1 = map, of which the descriptor is in the instruction.
        0x18 | 0x11 << 8 | (map.as_raw_fd() as u64) << 32,
        0,
        0x85 | 1 << 32,
        0x15 | 3 << 16,
        0xb7 | 1 << 8 | 1 << 32,
        add_one(0),
        add_one(8),
        0xffff_ffff_0000_00b7,
        0x95,
    ]);
    load_instructions(&instructions)
}

/// A hash of one edge-sized element under the key of zeros.
fn make_map() -> OwnedFd {
    let mut create: [u32; 5] = [1, 40, 104, 65_536, 0];
    // SAFETY: BPF_MAP_CREATE with a live attribute.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, 0, create.as_mut_ptr(), size_of_val(&create)) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else owns.
    let map = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) };
    let (key, value) = ([0_u8; 40], [0_u8; 104]);
    let mut update = [map.as_raw_fd() as u64, key.as_ptr() as u64, value.as_ptr() as u64, 0];
    // SAFETY: BPF_MAP_UPDATE_ELEM with pointers to a key and a value of the map's sizes.
    let result = unsafe { libc::syscall(libc::SYS_bpf, 2, update.as_mut_ptr(), size_of_val(&update)) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    map
}

fn load_instructions(instructions: &[u64]) -> OwnedFd {
    #[repr(C)]
    struct LoadAttr {
        program_type: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        rest: [u64; 14],
    }
    let mut attr = LoadAttr {
        program_type: 3,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        rest: [0; 14],
    };
    // SAFETY: BPF_PROG_LOAD with pointers to live data.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, 5, &raw mut attr, size_of::<LoadAttr>()) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) }
}

fn run_raw(program: &OwnedFd, frame: &[u8]) -> Duration {
    #[repr(C)]
    struct RunAttr {
        program: u32,
        result: u32,
        size_in: u32,
        size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        rest: [u64; 4],
    }
    let mut attr = RunAttr {
        program: program.as_raw_fd() as u32,
        result: 0,
        size_in: frame.len() as u32,
        size_out: 0,
        data_in: frame.as_ptr() as u64,
        data_out: 0,
        repeat: REPEAT,
        duration: 0,
        rest: [0; 4],
    };
    // SAFETY: BPF_PROG_TEST_RUN with pointers to live data.
    let result = unsafe { libc::syscall(libc::SYS_bpf, 10, &raw mut attr, size_of::<RunAttr>()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    Duration::from_nanos(u64::from(attr.duration))
}

fn run(programs: &mut Programs, name: &'static str, frame: &[u8], repeat: u32) -> Duration {
    let program = programs.program(name).unwrap();
    let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
    program.test_run(options).unwrap().duration
}

fn tcp(source: u16, flags: u8, sequence: u32, v6: bool) -> Vec<u8> {
    let ends = if v6 { ["2001:db8::10", "2001:db8::20"] } else { ["192.0.2.10", "192.0.2.20"] };
    let [pod, other]: [IpAddr; 2] = ends.map(|text| text.parse().unwrap());
    let segment = Tcp { source, destination: 80, sequence, acknowledged: 1, flags };
    frame(pod, other, TCP, &segment.with(64))
}

fn main() {
    let load = |accounting| Programs::load(&Settings { accounting, ..Settings::default() }).unwrap();
    let mut programs = load(Accounting::Sampled);
    let mut off = load(Accounting::Off);
    let (empty, least) = (load_empty(), load_least());
    let [pod, other]: [IpAddr; 2] = ["192.0.2.10", "192.0.2.20"].map(|text| text.parse().unwrap());
    let (syn, data) = (tcp(40000, SYN, 1, false), tcp(40000, ACK, 2, false));
    let data6 = tcp(40000, ACK, 2, true);
    let udp = frame(pod, other, UDP, &frames::udp(40000, 53, 64));
    // An outside address that shares an edge.
    let visitor: IpAddr = "198.51.100.7".parse().unwrap();
    let outside = |flags| {
        let segment = Tcp { source: 40000, destination: 80, sequence: 1, acknowledged: 1, flags };
        frame(pod, visitor, TCP, &segment.with(64))
    };
    let range = ("198.51.100.0/24".parse().unwrap(), Folding { length: 24, outside: true });
    programs.bounds().fold(&[range]).unwrap();
    let not_ip = frames::ethernet(0x0806, &[0; 28]);
    for opening in [&syn, &tcp(40000, SYN, 1, true), &udp, &outside(SYN)] {
        run(&mut programs, FROM_POD, opening, 1);
    }
    // The other end was heard, as on any interface that shows both ways.
    for [client, server] in [["192.0.2.10", "192.0.2.20"], ["2001:db8::10", "2001:db8::20"]] {
        let [client, server]: [IpAddr; 2] = [client, server].map(|text| text.parse().unwrap());
        let segment = Tcp { source: 80, destination: 40000, sequence: 1, acknowledged: 2, flags: SYN | ACK };
        run(&mut programs, TO_POD, &frame(server, client, TCP, &segment.with(0)), 1);
    }
    let [sampled, _] = names(Accounting::Sampled);
    let [passed_over, _] = names(Accounting::Off);
    let shared = outside(ACK);
    let rows = [
        ("TCP data, known edge, exact", FROM_POD, &data),
        ("TCP data, known edge, exact, IPv6", FROM_POD, &data6),
        ("TCP data, edge shared by a range, exact", FROM_POD, &shared),
        ("TCP data, sampled", sampled, &data),
        ("TCP data, sampled, IPv6", sampled, &data6),
        ("TCP data, off", passed_over, &data),
        ("TCP SYN, known edge", FROM_POD, &syn),
        ("UDP, known edge", FROM_POD, &udp),
        ("not IP", FROM_POD, &not_ip),
    ];
    let floor = (0..ROUNDS).map(|_| run_raw(&empty, &data)).min().unwrap();
    println!("{:40} {floor:>8?}", "empty program");
    for (name, program, frame) in rows {
        let programs = if program == passed_over { &mut off } else { &mut programs };
        let (mut net, mut least_net) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            // Interleaved: the machine's speed changes by the minute.
            let ours = run(programs, program, frame, REPEAT);
            let empty = run_raw(&empty, frame);
            net = net.min(ours.saturating_sub(empty));
            least_net = least_net.min(run_raw(&least, frame).saturating_sub(empty));
        }
        let ratio = net.as_nanos() as f64 / least_net.as_nanos().max(1) as f64;
        println!("{name:40} {net:>8?} net, {ratio:.2} of the least ({least_net:?})");
    }
}
