//! How many edges an interface may have of each kind, so that one pod cannot take the room of all others.

use aya_ebpf::bindings::BPF_NOEXIST;
use dryfence_common::counter::Counter;
use dryfence_common::edge::{Account, Kind};

use crate::maps::{ALLOWED, MADE, add, count, setting};

/// Whether another edge may be made. Several CPUs that ask at once may each get a yes.
#[inline(always)]
pub(crate) fn has_room(account: &Account) -> bool {
    // SAFETY: the maps' values are valid while the program runs; aligned 64-bit loads do not tear.
    let (made, allowed) = unsafe {
        let made = match MADE.get_ptr(account) {
            Some(made) => made.read_volatile(),
            None => 0,
        };
        // Less than the budget where the agent made edges.
        (made, ALLOWED.get(account).copied())
    };
    made < allowed.unwrap_or_else(|| budget(account.kind))
}

#[inline(always)]
fn budget(kind: u32) -> u64 {
    u64::from(match kind {
        0 => setting!(budget_opened),
        1 => setting!(budget_cluster),
        _ => setting!(budget_outside),
    })
}

/// Notes that an edge was made. Where there is no room for the note, the edge is free: the edge map bounds it.
#[inline(always)]
pub(crate) fn charge(account: &Account) {
    if MADE.get_ptr(account).is_none() && MADE.insert(account, 1, u64::from(BPF_NOEXIST)).is_ok() {
        return;
    }
    if let Some(made) = MADE.get_ptr_mut(account) {
        // SAFETY: as in `has_room`.
        unsafe { add(made, 1) };
    }
}

/// Counts an attempt that went to the overflow edge.
#[inline(always)]
pub(crate) fn count_over(kind: Kind) {
    count(
        match kind {
            Kind::Opened => Counter::OverBudgetOpened,
            Kind::Cluster => Counter::OverBudgetCluster,
            Kind::Outside => Counter::OverBudgetOutside,
        },
        1,
    );
}
