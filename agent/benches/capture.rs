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
use dryfence::capture::Settings;
use dryfence::capture::programs::{FROM_POD, Programs};
use dryfence_common::packet::{TCP, UDP};
use frames::{ACK, SYN, Tcp, frame};

const REPEAT: u32 = 1_000_000;
const ROUNDS: usize = 5;

/// A program that only answers "go on with the next": `r0 = -1; exit`.
fn load_empty() -> OwnedFd {
    #[repr(C)]
    struct LoadAttr {
        program_type: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        rest: [u64; 14],
    }
    let instructions: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];
    let mut attr = LoadAttr {
        program_type: 3,
        instruction_count: 2,
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

fn run_empty(program: &OwnedFd, frame: &[u8]) -> Duration {
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

fn run(programs: &mut Programs, frame: &[u8], repeat: u32) -> Duration {
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

fn main() {
    let mut programs = Programs::load(&Settings::default()).unwrap();
    let empty = load_empty();
    let [pod, other]: [IpAddr; 2] = ["192.0.2.10", "192.0.2.20"].map(|text| text.parse().unwrap());
    let (syn, data) = (tcp(40000, SYN, 1, false), tcp(40000, ACK, 2, false));
    let data6 = tcp(40000, ACK, 2, true);
    let udp = frame(pod, other, UDP, &frames::udp(40000, 53, 64));
    let not_ip = frames::ethernet(0x0806, &[0; 28]);
    for opening in [&syn, &tcp(40000, SYN, 1, true), &udp] {
        run(&mut programs, opening, 1);
    }
    let rows = [
        ("TCP data, known edge, exact", &data),
        ("TCP data, known edge, exact, IPv6", &data6),
        ("TCP SYN, known edge", &syn),
        ("UDP, known edge", &udp),
        ("not IP", &not_ip),
    ];
    let floor = (0..ROUNDS).map(|_| run_empty(&empty, &data)).min().unwrap();
    println!("{:40} {:>8?}", "empty program", floor);
    for (name, frame) in rows {
        // Interleaved with the empty program: the machine's speed changes by the minute.
        let pairs = (0..ROUNDS).map(|_| (run(&mut programs, frame, REPEAT), run_empty(&empty, frame)));
        let net = pairs.map(|(ours, empty)| ours.saturating_sub(empty)).min().unwrap();
        println!("{name:40} {net:>8?} net");
    }
}
