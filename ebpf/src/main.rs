//! TC programs that record edges on the host side of pods' interfaces. They read packets and never change,
//! delay or drop one: every program answers "go on with the next".
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![feature(asm_experimental_arch)]
#![expect(
    internal_features,
    reason = "the bpf target has no AtomicU64; its atomic add is reachable only as a compiler intrinsic"
)]

mod bounds;
mod edges;
mod ends;
mod fragments;
mod maps;
mod orphans;
mod plain;
mod record;
mod skb;

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use dryfence_common::packet::Link;

use crate::record::{Side, accounting, record};

/// Packets from the pod: ingress of the host side of its veth. Each is counted.
#[classifier]
#[expect(unreachable_pub, reason = "the loader finds programs by symbol")]
pub fn from_pod(ctx: TcContext) -> i32 {
    record::<{ accounting::EXACT }>(&ctx, Side::FromPod, Link::Ethernet);
    TC_ACT_UNSPEC
}

/// Packets to the pod: egress of the host side of its veth. Each is counted.
#[classifier]
#[expect(unreachable_pub, reason = "the loader finds programs by symbol")]
pub fn to_pod(ctx: TcContext) -> i32 {
    record::<{ accounting::EXACT }>(&ctx, Side::ToPod, Link::Ethernet);
    TC_ACT_UNSPEC
}

/// Packets from the pod; of TCP data packets a sample.
#[classifier]
#[expect(unreachable_pub, reason = "the loader finds programs by symbol")]
pub fn from_pod_sampled(ctx: TcContext) -> i32 {
    record::<{ accounting::SAMPLED }>(&ctx, Side::FromPod, Link::Ethernet);
    TC_ACT_UNSPEC
}

/// Packets to the pod; of TCP data packets a sample.
#[classifier]
#[expect(unreachable_pub, reason = "the loader finds programs by symbol")]
pub fn to_pod_sampled(ctx: TcContext) -> i32 {
    record::<{ accounting::SAMPLED }>(&ctx, Side::ToPod, Link::Ethernet);
    TC_ACT_UNSPEC
}

/// Packets from the pod, without TCP data packets.
#[classifier]
#[expect(unreachable_pub, reason = "the loader finds programs by symbol")]
pub fn from_pod_off(ctx: TcContext) -> i32 {
    record::<{ accounting::OFF }>(&ctx, Side::FromPod, Link::Ethernet);
    TC_ACT_UNSPEC
}

/// Packets to the pod, without TCP data packets.
#[classifier]
#[expect(unreachable_pub, reason = "the loader finds programs by symbol")]
pub fn to_pod_off(ctx: TcContext) -> i32 {
    record::<{ accounting::OFF }>(&ctx, Side::ToPod, Link::Ethernet);
    TC_ACT_UNSPEC
}

/// As `from_pod`, on a device without link layer: netkit in L3 mode.
#[classifier]
#[expect(unreachable_pub, reason = "the loader finds programs by symbol")]
pub fn from_pod_ip(ctx: TcContext) -> i32 {
    record::<{ accounting::EXACT }>(&ctx, Side::FromPod, Link::Ip);
    TC_ACT_UNSPEC
}

/// As `to_pod`, on a device without link layer.
#[classifier]
#[expect(unreachable_pub, reason = "the loader finds programs by symbol")]
pub fn to_pod_ip(ctx: TcContext) -> i32 {
    record::<{ accounting::EXACT }>(&ctx, Side::ToPod, Link::Ip);
    TC_ACT_UNSPEC
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable in a program that the verifier accepts: it has no back edge here.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
