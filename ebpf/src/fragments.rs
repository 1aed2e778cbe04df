//! Later fragments count for the edge of the first.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{LruHashMap, PerCpuArray};
use dryfence_common::address::is_mapped;
use dryfence_common::fragment::{FragmentKey, FragmentValue, REASSEMBLY};
use dryfence_common::packet::Packet;

/// First fragments seen lately. It may forget, and says so: a later fragment without its first is counted as such.
#[map]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentValue> = LruHashMap::with_max_entries(4096, 0);

/// What is worked on: not on the stack, which is small.
#[repr(C)]
struct Work {
    key: FragmentKey,
    value: FragmentValue,
}

#[map]
static FRAGMENT_WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

/// Remembers which edge a first fragment was counted on. That there is no room cannot be: the map forgets.
#[inline(always)]
pub(crate) fn remember(skb: &__sk_buff, packet: &Packet, initiated: bool, at: u64) {
    let Some(work) = work_on(skb, packet) else { return };
    work.value = FragmentValue {
        at,
        port: if initiated { packet.destination_port } else { packet.source_port },
        protocol: packet.protocol,
        initiated: u8::from(initiated),
        padding: 0,
    };
    let Work { key, value } = &*work;
    let _refused = FRAGMENTS.insert(key, value, 0);
}

/// The edge of the first fragment, if that was seen and not long ago.
#[inline(always)]
pub(crate) fn recall(skb: &__sk_buff, packet: &Packet, at: u64) -> Option<FragmentValue> {
    let Work { key, .. } = work_on(skb, packet)?;
    let key = &*key;
    // SAFETY: a value is written whole before it can be found, and replaced, not changed.
    let value = unsafe { *FRAGMENTS.get(key)? };
    (at < value.at + REASSEMBLY).then_some(value)
}

#[inline(always)]
fn work_on(skb: &__sk_buff, packet: &Packet) -> Option<&'static mut Work> {
    let work = FRAGMENT_WORK.get_ptr_mut(0)?;
    // SAFETY: this CPU's while the program runs, and nothing of ours interrupts us here.
    let work = unsafe { &mut *work };
    work.key = FragmentKey {
        source: packet.source,
        destination: packet.destination,
        identification: packet.fragment.identification(),
        interface: skb.ifindex,
        protocol: if is_mapped(&packet.source) { packet.protocol } else { 0 },
        padding: [0; 7],
    };
    Some(work)
}
