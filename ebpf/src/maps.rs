//! Maps, counters, settings and the clock.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray, RingBuf};
use dryfence_common::counter::Counter;
use dryfence_common::edge::{EdgeKey, EdgeValue};
use dryfence_common::settings::Settings;

/// Every edge. Not LRU, which forgets in silence; the agent sets the size.
#[map]
pub(crate) static EDGES: HashMap<EdgeKey, EdgeValue> = HashMap::with_max_entries(65_536, 0);

/// Hints that an edge is new.
#[map]
pub(crate) static NEW_EDGES: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// What was lost, came late, or is nobody's to judge: see [`Counter`].
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// Written by the agent before loading; the verifier then sees constants.
#[unsafe(no_mangle)]
pub(crate) static SETTINGS: Settings = Settings::DEFAULT;

/// Reads one setting.
macro_rules! setting {
    ($field:ident) => {{
        // SAFETY: the pointer is to a live static; volatile because the agent replaces its content at load.
        unsafe { (&raw const $crate::maps::SETTINGS.$field).read_volatile() }
    }};
}
pub(crate) use setting;

/// Adds to a counter of this CPU.
#[inline(always)]
pub(crate) fn count(counter: Counter, amount: u64) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter.index()) {
        // SAFETY: the slot is this CPU's and valid while the program runs. A program that interrupts this one on
        // the same CPU (egress within ingress) uses the same atomic add.
        unsafe { add(slot, amount) };
    }
}

/// Adds to a number that other CPUs add to as well.
///
/// # Safety
///
/// `number` points into a map value that is valid while the program runs.
#[inline(always)]
pub(crate) unsafe fn add(number: *mut u64, amount: u64) {
    use core::intrinsics::{AtomicOrdering, atomic_xadd};
    // SAFETY: the caller's promise. The result is dropped, so that the compiler emits the plain atomic add that
    // kernels before 5.12 know, not the fetching one.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(number, amount) };
}

/// Nanoseconds since about the boot, as old as the last tick. The counter is a load; the clock costs more than
/// looking an edge up.
#[inline(always)]
pub(crate) fn now() -> u64 {
    let tick = setting!(tick_nanos);
    if tick != 0 {
        // SAFETY: a helper without arguments, of Linux 5.5.
        unsafe { bpf_jiffies64() }.wrapping_mul(tick)
    } else {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() }
    }
}
