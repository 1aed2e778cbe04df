//! Packets that match no edge: kept with both ports in a small table, with what the pod's own sockets say of them.

use aya_ebpf::bindings::{__sk_buff, BPF_F_NO_PREALLOC, BPF_NOEXIST, bpf_sock_tuple};
use aya_ebpf::helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray};
use dryfence_common::address::{Address, is_mapped};
use dryfence_common::counter::Counter;
use dryfence_common::orphan::{
    ASKED, EPHEMERAL_FROM, FIRST_FROM_POD, LISTENER, NO_NAMESPACE, OPEN, OrphanInterface, OrphanKey,
    OrphanValue, UNTOLD,
};
use dryfence_common::packet::{TCP, UDP};

use crate::edges::Arrival;
use crate::ends::Ends;
use crate::maps::{add, count, setting};

/// Every orphan. The agent sets the size, and deletes.
#[map]
static ORPHANS: HashMap<OrphanKey, OrphanValue> = HashMap::with_max_entries(16_384, 0);

/// What the agent tells of interfaces, by index. Only the agent writes.
#[map]
static ORPHAN_INTERFACES: HashMap<u32, OrphanInterface> =
    HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// How many orphans each interface ever made. Only the programs write, but for what the agent deletes.
#[map]
static ORPHANS_MADE: HashMap<u32, u64> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

/// Negative error numbers of `bpf_map_update_elem`.
const EEXIST: i32 = -17;
const E2BIG: i32 = -7;

/// `TCP_LISTEN` of `include/net/tcp_states.h`.
const TCP_LISTEN: u32 = 10;

/// Whether a first datagram must not make an edge: it looks like the answer to one that passed before the programs
/// were there (from a server's port to a client's, while the interface is young), or it answers such a one, of which
/// the agent has not said yet which it is.
#[inline(always)]
pub(crate) fn may_be_older(ends: &Ends, at: u64) -> bool {
    let packet = ends.packet();
    let (down, up) = (packet.source_port < EPHEMERAL_FROM, packet.destination_port < EPHEMERAL_FROM);
    if down == up {
        return false;
    }
    let since = told(ends.interface()).since;
    if since == 0 || at >= since + setting!(datagram_stream_timeout) {
        return false;
    }
    down || orphan_since(ends).is_some_and(|since| at < since + setting!(datagram_timeout))
}

/// When the orphan was made.
#[inline(always)]
fn orphan_since(ends: &Ends) -> Option<u64> {
    let work = ORPHAN_WORK.get_ptr_mut(0)?;
    // SAFETY: the work area is this CPU's, and nothing of ours interrupts us here; the map's value is valid while
    // the program runs.
    unsafe {
        (*work).key = ends.orphan();
        let Work { key, .. } = &*work;
        ORPHANS.get_ptr(key).map(|orphan| (&raw const (*orphan).first_seen).read_volatile())
    }
}

/// What is worked on. Not on the stack: 512 bytes are all that a program has there, its functions together.
#[repr(C)]
struct Work {
    key: OrphanKey,
    /// The packet as the only one of its orphan.
    one: OrphanValue,
    /// `struct bpf_sock_tuple`, in words: 3 of them for IPv4, 9 for IPv6.
    tuple: [u32; 9],
    /// Whether the packet may make its orphan: 0 for what ends a connection.
    may_make: u32,
}

#[map]
static ORPHAN_WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

/// Counts a packet on its orphan, and makes that if it may; else the packet is counted as lost.
#[inline(always)]
pub(crate) fn record(skb: *mut __sk_buff, ends: &Ends, arrival: &Arrival, may_make: bool) {
    let Some(work) = ORPHAN_WORK.get_ptr_mut(0) else { return };
    let from_pod = ends.is_from_pod();
    let (from, to) = if from_pod { (1, 0) } else { (0, 1) };
    // SAFETY: this CPU's, and nothing of ours interrupts us here.
    unsafe {
        (*work).key = ends.orphan();
        (*work).may_make = u32::from(may_make);
        (*work).one = OrphanValue {
            packets_from_pod: from * arrival.packets,
            packets_to_pod: to * arrival.packets,
            bytes_from_pod: from * arrival.bytes,
            bytes_to_pod: to * arrival.bytes,
            first_seen: arrival.at,
            last_seen: arrival.at,
            vlan: ends.packet().vlan,
            evidence: if from_pod { FIRST_FROM_POD } else { 0 },
            padding: 0,
        };
    }
    record_work(skb);
}

/// A function of its own, verified apart from the many ways that lead to it.
#[inline(never)]
fn record_work(skb: *mut __sk_buff) {
    let Some(work) = ORPHAN_WORK.get_ptr_mut(0) else { return };
    // SAFETY: as in `record`.
    let work = unsafe { &mut *work };
    if again(work) {
        return;
    }
    let packets = work.one.packets_from_pod + work.one.packets_to_pod;
    if work.may_make == 0 {
        count(Counter::Orphan, packets);
        return;
    }
    let interface = told(work.key.interface);
    if made(work.key.interface) >= interface.allowance {
        count(Counter::OrphanBudgetSpent, packets);
        return;
    }
    work.one.evidence |= ask(skb, work, interface.namespace);
    let Work { key, one, .. } = &*work;
    match ORPHANS.insert(key, one, u64::from(BPF_NOEXIST)) {
        Ok(()) => one_more(key.interface),
        // Another CPU was faster.
        Err(EEXIST) if again(work) => {}
        Err(E2BIG) => count(Counter::OrphanTableFull, packets),
        Err(_) => count(Counter::Orphan, packets),
    }
}

/// Adds the packet to its orphan, if that is there.
#[inline(always)]
fn again(work: &Work) -> bool {
    let Work { key, one, .. } = work;
    let Some(orphan) = ORPHANS.get_ptr_mut(key) else { return false };
    // SAFETY: the map's value is valid while the program runs. The time is a plain store: the last of two CPUs
    // wins, both are right.
    unsafe {
        add(&raw mut (*orphan).packets_from_pod, one.packets_from_pod);
        add(&raw mut (*orphan).packets_to_pod, one.packets_to_pod);
        add(&raw mut (*orphan).bytes_from_pod, one.bytes_from_pod);
        add(&raw mut (*orphan).bytes_to_pod, one.bytes_to_pod);
        (&raw mut (*orphan).last_seen).write_volatile(one.last_seen);
    }
    true
}

#[inline(always)]
fn told(interface: u32) -> OrphanInterface {
    // SAFETY: only the agent writes, whole values; what is read in between is at worst a mix of two of its
    // allowances, both of which it gave.
    unsafe { ORPHAN_INTERFACES.get(interface) }.copied().unwrap_or(UNTOLD)
}

#[inline(always)]
fn made(interface: u32) -> u64 {
    match ORPHANS_MADE.get_ptr(interface) {
        // SAFETY: the map's value is valid while the program runs; aligned 64-bit loads do not tear.
        Some(made) => unsafe { made.read_volatile() },
        None => 0,
    }
}

#[inline(always)]
fn one_more(interface: u32) {
    // Fails if it is there already, which is as well; if the map is full, the interface has no budget of its
    // own, and the table's size bounds it.
    let _is_new = ORPHANS_MADE.insert(interface, 0, u64::from(BPF_NOEXIST));
    if let Some(made) = ORPHANS_MADE.get_ptr_mut(interface) {
        // SAFETY: the map's value is valid while the program runs.
        unsafe { add(made, 1) };
    }
}

/// What sockets in the pod's namespace say, seen as for a packet to the pod.
#[inline(always)]
fn ask(skb: *mut __sk_buff, work: &mut Work, namespace: i32) -> u16 {
    if namespace == NO_NAMESPACE {
        return 0;
    }
    // The helpers take a negative number for the programs' own namespace.
    let namespace = i64::from(namespace) as u64;
    let size = tuple(work);
    if work.key.protocol == TCP {
        let state = tcp_state(skb, &mut work.tuple, size, namespace);
        if state == TCP_LISTEN {
            return ASKED | LISTENER;
        }
        let open = if state != 0 { OPEN } else { 0 };
        // Nobody is connected to port 0: only a listener can answer to that.
        let ports = if size == IPV4_TUPLE { &mut work.tuple[2] } else { &mut work.tuple[8] };
        *ports &= u32::from_ne_bytes([0, 0, 0xff, 0xff]);
        let listens = tcp_state(skb, &mut work.tuple, size, namespace) == TCP_LISTEN;
        return ASKED | open | if listens { LISTENER } else { 0 };
    }
    if work.key.protocol == UDP {
        return match udp_peer(skb, &mut work.tuple, size, namespace) {
            None => ASKED,
            Some(0) => ASKED | LISTENER,
            Some(_) => ASKED | OPEN,
        };
    }
    // No helper looks SCTP sockets up.
    0
}

/// Sizes of the two halves of `struct bpf_sock_tuple`.
const IPV4_TUPLE: u32 = 12;
const IPV6_TUPLE: u32 = 36;

/// Writes the tuple of a packet to the pod; returns its size.
#[inline(always)]
fn tuple(work: &mut Work) -> u32 {
    let key = &work.key;
    let (remote, local) = (words(&key.remote), words(&key.local));
    let [a, b] = key.remote_port.to_be_bytes();
    let [c, d] = key.local_port.to_be_bytes();
    let ports = u32::from_ne_bytes([a, b, c, d]);
    if is_mapped(&key.local) {
        work.tuple[0] = remote[3];
        work.tuple[1] = local[3];
        work.tuple[2] = ports;
        IPV4_TUPLE
    } else {
        work.tuple =
            [remote[0], remote[1], remote[2], remote[3], local[0], local[1], local[2], local[3], ports];
        IPV6_TUPLE
    }
}

/// The state of the TCP socket that a packet with this tuple would find; 0 where there is none.
#[inline(always)]
fn tcp_state(skb: *mut __sk_buff, tuple: &mut [u32; 9], size: u32, namespace: u64) -> u32 {
    // SAFETY: the tuple has `size` bytes; the socket is valid until it is released, once.
    unsafe {
        let socket =
            bpf_skc_lookup_tcp(skb.cast(), tuple.as_mut_ptr().cast::<bpf_sock_tuple>(), size, namespace, 0);
        if socket.is_null() {
            return 0;
        }
        let state = (&raw const (*socket).state).read_volatile();
        bpf_sk_release(socket.cast());
        state
    }
}

/// The port that the UDP socket is connected to which a packet with this tuple would find, 0 if to none; `None`
/// where there is no socket.
#[inline(always)]
fn udp_peer(skb: *mut __sk_buff, tuple: &mut [u32; 9], size: u32, namespace: u64) -> Option<u16> {
    // SAFETY: as in `tcp_state`.
    unsafe {
        let socket =
            bpf_sk_lookup_udp(skb.cast(), tuple.as_mut_ptr().cast::<bpf_sock_tuple>(), size, namespace, 0);
        if socket.is_null() {
            return None;
        }
        let port = (&raw const (*socket).dst_port).read_volatile();
        bpf_sk_release(socket.cast());
        Some(port)
    }
}

/// An address in words, in memory order.
#[inline(always)]
fn words(address: &Address) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *address;
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
    ]
}
