//! A foreign program behind ours, as an eBPF data plane has it: `bpf_redirect_peer` takes what a pod sends straight
//! into another pod's interface. Built of plain instructions and loaded by bpf(2), so that it shares nothing with what
//! it tests.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// Commands and types of `include/uapi/linux/bpf.h`.
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const SCHED_CLS: u32 = 3;
const TCX_INGRESS: u32 = 46;
/// The helper's number (Linux 5.10).
const REDIRECT_PEER: i32 = 155;

/// TCX is from Linux 6.6.
pub(crate) fn is_possible() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(6))
}

/// Takes IPv4, and TCP over IPv6, from the interface `from` to the peer of `to`: neighbours are still found through
/// the host. It comes behind what is or will be attached at the head. Gone when the link is dropped.
pub(crate) fn to_peer(from: u32, to: u32) -> OwnedFd {
    let instructions = [
        // r6 = the packet
        instruction(0xbf, 6, 1, 0, 0),
        // r0 = its protocol, in network byte order: `struct __sk_buff`, offset 16
        instruction(0x61, 0, 6, 16, 0),
        // IPv4: redirect
        instruction(0x15, 0, 0, 4, i32::from(0x0800_u16.to_be())),
        // not IPv6: go on
        instruction(0x55, 0, 0, 7, i32::from(0x86dd_u16.to_be())),
        // r0 = the byte at offset 14 + 6: the next header
        instruction(0x30, 0, 0, 0, 20),
        // TCP: redirect, else go on
        instruction(0x15, 0, 0, 1, 6),
        instruction(0x05, 0, 0, 4, 0),
        // redirect: r1 = `to`, r2 = no flags
        instruction(0xb4, 1, 0, 0, to as i32),
        instruction(0xb4, 2, 0, 0, 0),
        instruction(0x85, 0, 0, 0, REDIRECT_PEER),
        instruction(0x95, 0, 0, 0, 0),
        // go on: TC_ACT_UNSPEC
        instruction(0xb4, 0, 0, 0, -1),
        instruction(0x95, 0, 0, 0, 0),
    ];
    let license = c"GPL";
    let mut load = [0_u64; 18];
    load[0] = u64::from(SCHED_CLS) | (instructions.len() as u64) << 32;
    load[1] = instructions.as_ptr() as u64;
    load[2] = license.as_ptr() as u64;
    let program = bpf(PROG_LOAD, &mut load);
    let mut link = [0_u64; 4];
    link[0] = program.as_raw_fd() as u64 | u64::from(from) << 32;
    link[1] = u64::from(TCX_INGRESS);
    bpf(LINK_CREATE, &mut link)
}

/// `struct bpf_insn`.
const fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    code as u64
        | ((destination | source << 4) as u64) << 8
        | (offset as u16 as u64) << 16
        | (immediate as u32 as u64) << 32
}

fn bpf<const WORDS: usize>(command: libc::c_long, attr: &mut [u64; WORDS]) -> OwnedFd {
    // SAFETY: `attr` is a zero-padded `union bpf_attr`, and its pointers outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}
