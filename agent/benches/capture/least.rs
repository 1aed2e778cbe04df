//! The least programs that could do a part of the work, written by hand, instruction by instruction: what the
//! kernel's own maps cost here and now. Ours are measured against them.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

/// Commands of bpf(2), `include/uapi/linux/bpf.h`.
const MAP_CREATE: i64 = 0;
const MAP_UPDATE: i64 = 2;
const PROG_LOAD: i64 = 5;
const PROG_TEST_RUN: i64 = 10;

const MAP_TYPE_HASH: u32 = 1;
const MAP_TYPE_RINGBUF: u32 = 27;
const PROG_TYPE_SCHED_CLS: u32 = 3;

/// Helpers by number.
const MAP_LOOKUP_ELEM: i32 = 1;
const MAP_UPDATE_ELEM: i32 = 2;
const SKB_LOAD_BYTES: i32 = 26;
const JIFFIES: i32 = 118;
const RINGBUF_OUTPUT: i32 = 130;

/// Where `struct __sk_buff` has the first byte of the packet, and the one after the last.
const DATA: i16 = 76;
const DATA_END: i16 = 80;

/// A key that tells a TCP connection's ends apart on IPv4, rounded up: the smallest that is of use.
pub(crate) const KEY: i32 = 16;
/// The widest key that [`known`] takes.
const MOST_KEY: usize = 64;
const VALUE: i32 = 24;
/// Where the addresses of an IPv4 header behind an Ethernet header begin; the ports follow.
const ENDS_AT: usize = 14 + 12;
const ENDS: usize = 12;
/// What our ring events hold.
const EVENT: i32 = 48;

const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R5: u8 = 5;
const R6: u8 = 6;
const R10: u8 = 10;

/// One instruction: code, destination and source register, offset, immediate.
const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> u64 {
    code as u64
        | (to as u64) << 8
        | (from as u64) << 12
        | (offset as u16 as u64) << 16
        | (immediate as u32 as u64) << 32
}

const fn set(to: u8, immediate: i32) -> u64 {
    instruction(0xb7, to, 0, 0, immediate)
}

const fn copy(to: u8, from: u8) -> u64 {
    instruction(0xbf, to, from, 0, 0)
}

const fn plus(to: u8, immediate: i32) -> u64 {
    instruction(0x07, to, 0, 0, immediate)
}

/// Stores a 64-bit zero on the stack.
const fn clear(offset: i16) -> u64 {
    instruction(0x7a, R10, 0, offset, 0)
}

const fn call(helper: i32) -> u64 {
    instruction(0x85, 0, 0, 0, helper)
}

/// Jumps over `count` instructions if the register is 0.
const fn skip_if_zero(register: u8, count: i16) -> u64 {
    instruction(0x15, register, 0, count, 0)
}

const fn load_u32(to: u8, from: u8, offset: i16) -> u64 {
    instruction(0x61, to, from, offset, 0)
}

const fn load_u64(to: u8, from: u8, offset: i16) -> u64 {
    instruction(0x79, to, from, offset, 0)
}

const fn store_u64(to: u8, offset: i16, from: u8) -> u64 {
    instruction(0x7b, to, from, offset, 0)
}

/// Jumps over `count` instructions if `left` is more than `right`.
const fn skip_if_more(left: u8, right: u8, count: i16) -> u64 {
    instruction(0x2d, left, right, count, 0)
}

const fn atomic_add(to: u8, offset: i16, from: u8) -> u64 {
    instruction(0xdb, to, from, offset, 0)
}

/// Loads a map's address: an instruction of two words.
fn map(to: u8, fd: &OwnedFd) -> [u64; 2] {
    [instruction(0x18, to, 1, 0, fd.as_raw_fd()), 0]
}

/// The answer "go on with the next".
const PASS: [u64; 2] = [set(R0, -1), instruction(0x95, 0, 0, 0, 0)];

/// A program and the maps that it uses.
pub(crate) struct Least {
    program: OwnedFd,
    maps: Vec<OwnedFd>,
}

/// Does nothing: what running any program costs.
pub(crate) fn empty() -> Least {
    Least { program: load(&PASS), maps: Vec::new() }
}

/// The least that counts a flow: reads both ends of an IPv4 packet, finds them in a shared hash, adds to two
/// numbers, and notes the time in ticks. It believes that every packet is of IPv4, without options, TCP or UDP. The
/// key's width is in bytes, from [`KEY`] on, in words of 8: what is wider than the ends is 0.
pub(crate) fn known(key: i32) -> Least {
    let hash = create(MAP_TYPE_HASH, key as u32, VALUE as u32, 1_000);
    let start = -key as i16;
    let mut look_up = vec![store_u64(R10, start, R4), store_u64(R10, start + 8, R5)];
    look_up.extend((start + 16..0).step_by(8).map(clear));
    look_up.extend([call(JIFFIES), copy(R6, R0), copy(R2, R10), plus(R2, -key)]);
    look_up.extend(map(R1, &hash));
    look_up.extend([
        call(MAP_LOOKUP_ELEM),
        skip_if_zero(R0, 4),
        set(R1, 1),
        atomic_add(R0, 0, R1),
        atomic_add(R0, 8, R1),
        store_u64(R0, 16, R6),
    ]);
    let mut code = vec![
        load_u32(R2, R1, DATA),
        load_u32(R3, R1, DATA_END),
        copy(R4, R2),
        plus(R4, (ENDS_AT + ENDS) as i32),
        skip_if_more(R4, R3, look_up.len() as i16 + 2),
        load_u64(R4, R2, ENDS_AT as i16),
        load_u32(R5, R2, ENDS_AT as i16 + 8),
    ];
    code.extend(look_up);
    code.extend(PASS);
    Least { program: load(&code), maps: vec![hash] }
}

/// Makes an element of a shared hash, keyed as in [`known`] (and 4 bytes more), and tells of it in a ring.
pub(crate) fn new(room: u32, ring_bytes: u32) -> Least {
    let (hash, ring) = (hash(room), create(MAP_TYPE_RINGBUF, 0, 0, ring_bytes));
    let mut code = vec![copy(R6, R1)];
    code.extend((1..=(EVENT + KEY + VALUE) / 8).map(|word| clear((-8 * word) as i16)));
    // The key's bytes, from the packet.
    code.extend([
        copy(R1, R6),
        set(R2, ENDS_AT as i32),
        copy(R3, R10),
        plus(R3, -KEY),
        set(R4, KEY),
        call(SKB_LOAD_BYTES),
    ]);
    code.extend(map(R1, &hash));
    code.extend([
        copy(R2, R10),
        plus(R2, -KEY),
        copy(R3, R10),
        plus(R3, -KEY - VALUE),
        // BPF_NOEXIST.
        set(R4, 1),
        call(MAP_UPDATE_ELEM),
    ]);
    code.extend(map(R1, &ring));
    code.extend([
        copy(R2, R10),
        plus(R2, -KEY - VALUE - EVENT),
        set(R3, EVENT),
        set(R4, 0),
        call(RINGBUF_OUTPUT),
    ]);
    code.extend(PASS);
    Least { program: load(&code), maps: vec![hash, ring] }
}

impl Least {
    /// Makes [`known`] know the ends of a frame.
    pub(crate) fn learn(&self, frame: &[u8]) {
        let (mut key, value) = ([0; MOST_KEY], [0_u64; VALUE as usize / 8]);
        for (to, from) in key.iter_mut().zip(frame.iter().skip(ENDS_AT).take(ENDS)) {
            *to = *from;
        }
        let hash = self.maps[0].as_raw_fd() as u64;
        bpf(MAP_UPDATE, &mut [hash, key.as_ptr() as u64, value.as_ptr() as u64, 0]);
    }

    /// Runs it on a frame; the mean time of a run.
    pub(crate) fn run(&self, frame: &[u8], repeat: u32) -> Duration {
        #[repr(C)]
        struct Attributes {
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
        let mut attributes = Attributes {
            program: self.program.as_raw_fd() as u32,
            result: 0,
            size_in: frame.len() as u32,
            size_out: 0,
            data_in: frame.as_ptr() as u64,
            data_out: 0,
            repeat,
            duration: 0,
            rest: [0; 4],
        };
        bpf(PROG_TEST_RUN, &mut attributes);
        Duration::from_nanos(u64::from(attributes.duration))
    }
}

fn hash(room: u32) -> OwnedFd {
    create(MAP_TYPE_HASH, KEY as u32, VALUE as u32, room)
}

fn create(kind: u32, key: u32, value: u32, entries: u32) -> OwnedFd {
    let mut attributes = [kind, key, value, entries, 0, 0, 0, 0, 0, 0, 0, 0];
    owned(bpf(MAP_CREATE, &mut attributes))
}

fn load(code: &[u64]) -> OwnedFd {
    #[repr(C)]
    struct Attributes {
        program_type: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        rest: [u64; 14],
    }
    let mut attributes = Attributes {
        program_type: PROG_TYPE_SCHED_CLS,
        instruction_count: code.len() as u32,
        instructions: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        rest: [0; 14],
    };
    owned(bpf(PROG_LOAD, &mut attributes))
}

fn bpf<T>(command: i64, attributes: &mut T) -> i32 {
    // SAFETY: bpf(2) with attributes of its own layout, whose pointers are to live data.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes as *mut T, size_of::<T>()) };
    assert!(result >= 0, "bpf command {command}: {}", io::Error::last_os_error());
    i32::try_from(result).unwrap()
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: a new descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
