//! How many edges an interface may have of each kind, so that one pod cannot take the room of all others.

use core::ptr;

use aya_ebpf::bindings::BPF_NOEXIST;
use dryfence_common::counter::Counter;
use dryfence_common::edge::{Account, Kind};

use crate::maps::{ALLOWED, MADE, add, count, setting};

/// What an account has spent, and whether that leaves room for another edge.
pub(crate) struct Room {
    account: Account,
    /// Null where it has spent nothing yet.
    made: *mut u64,
    pub(crate) is_left: bool,
}

impl Room {
    /// Several CPUs that ask at once may each get the last place.
    #[inline(always)]
    pub(crate) fn of(account: Account) -> Self {
        let made = MADE.get_ptr_mut(account).unwrap_or(ptr::null_mut());
        // SAFETY: the maps' values are valid while the program runs; aligned 64-bit loads do not tear.
        let (spent, allowed) = unsafe {
            // Less than the budget where the agent made edges.
            (if made.is_null() { 0 } else { made.read_volatile() }, ALLOWED.get(account).copied())
        };
        let is_left = spent < allowed.unwrap_or_else(|| budget(account.kind));
        Self { account, made, is_left }
    }

    /// Notes that an edge was made. Where there is no room for the note, the edge is free: the edge map bounds it.
    #[inline(always)]
    pub(crate) fn charge(self) {
        let mut made = self.made;
        if made.is_null() {
            if MADE.insert(self.account, 1, u64::from(BPF_NOEXIST)).is_ok() {
                return;
            }
            // Another CPU was faster.
            made = MADE.get_ptr_mut(self.account).unwrap_or(ptr::null_mut());
        }
        if !made.is_null() {
            // SAFETY: as in `of`.
            unsafe { add(made, 1) };
        }
    }
}

#[inline(always)]
fn budget(kind: u32) -> u64 {
    u64::from(match kind {
        0 => setting!(budget_opened),
        1 => setting!(budget_cluster),
        _ => setting!(budget_outside),
    })
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
