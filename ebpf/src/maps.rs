//! Maps, counters, settings and the clock.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_jiffies64, bpf_ktime_get_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::LpmTrie;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, RingBuf};
use dryfence_common::address::{Address, BLOCK_WORDS};
use dryfence_common::counter::Counter;
use dryfence_common::edge::{Account, EdgeKey, EdgeValue, Range};
use dryfence_common::settings::Settings;

/// Every edge. Not LRU, which forgets in silence; the agent sets the size.
#[map]
pub(crate) static EDGES: HashMap<EdgeKey, EdgeValue> = HashMap::with_max_entries(65_536, 0);

/// How addresses are keyed, by their longest prefix. Empty until the agent knows the cluster's ranges: what is
/// not in it is the cluster's, and keyed as it is.
#[map]
pub(crate) static RANGES: LpmTrie<Address, Range> = LpmTrie::with_max_entries(65_536, 0);

/// The blocks of addresses, a bit each, that hold addresses which [`RANGES`] folds or calls outside: where the bit is 0,
/// nobody needs to look there.
#[map]
pub(crate) static BLOCKS: Array<u64> = Array::with_max_entries(BLOCK_WORDS, 0);

/// How many edges were ever made. Only the programs write it; only the agent writes [`ALLOWED`], so that neither
/// loses what the other adds.
#[map]
pub(crate) static MADE: HashMap<Account, u64> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// How many edges may have been made: the budget and the edges that left. Without an entry, the budget alone.
#[map]
pub(crate) static ALLOWED: HashMap<Account, u64> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Where a new edge's value is written before it is inserted.
#[map]
pub(crate) static FIRST: PerCpuArray<EdgeValue> = PerCpuArray::with_max_entries(1, 0);

/// How many TCP data packets this CPU passes over before it counts one.
#[map]
pub(crate) static STRIDE: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

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

/// Whether to count this TCP data packet, when one in [`Settings::sample_rate`] is: `None` passes it over,
/// otherwise how many packets it stands for. The stride is random with that mean, so that traffic with a rhythm
/// is not met always at the same beat.
#[inline(always)]
pub(crate) fn sample() -> Option<u32> {
    let left = STRIDE.get_ptr_mut(0)?;
    // SAFETY: the slot is this CPU's and valid while the program runs; nothing of ours interrupts us here.
    let left = unsafe { &mut *left };
    if *left > 1 {
        *left -= 1;
        return None;
    }
    let rate = setting!(sample_rate);
    // SAFETY: a helper without arguments.
    *left = 1 + unsafe { bpf_get_prandom_u32() } % (2 * rate - 1);
    Some(rate)
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
