//! From a packet to the edge it belongs to.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::TcContext;
use dryfence_common::counter::Counter;
use dryfence_common::edge::{EdgeKey, LOCAL_INITIATED, attempt};
use dryfence_common::orphan::OrphanKey;
use dryfence_common::packet::{Link, Packet, Step, parse};

use crate::edges::{self, Arrival};
use crate::maps::{count, now, setting};
use crate::skb::Skb;
use crate::{fragments, orphans};

/// Which way a packet crosses the host side of a pod's interface.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    FromPod,
    ToPod,
}

/// Records one packet. Whatever happens, the packet goes on.
#[inline(always)]
pub(crate) fn record(ctx: &TcContext, side: Side, link: Link) {
    match parse(&Skb::new(ctx), link) {
        Ok(packet) => account(ctx, side, &packet),
        Err(counter) => {
            count(counter, 1);
            if setting!(diagnostics) != 0 {
                aya_log_ebpf::debug!(
                    ctx,
                    "a packet of {} bytes is counted as {}",
                    ctx.len(),
                    counter.index()
                );
            }
        }
    }
}

#[inline(always)]
fn account(ctx: &TcContext, side: Side, packet: &Packet) {
    // SAFETY: the context is valid while the program runs.
    let skb = unsafe { &*ctx.skb.skb };
    let sent = |initiated| key(skb, side, packet, initiated);
    let arrival = arrival(skb, packet);
    let from_pod = side == Side::FromPod;
    // Whether the sender initiated the edge that the packet was counted on, or else responds.
    let mut counted = None;
    match packet.step {
        Step::Open => {
            edges::open(&sent(true), &arrival, attempt(packet.source_port, packet.number));
            counted = Some(true);
        }
        Step::Accept => {
            edges::accept(&sent(false), &arrival, attempt(packet.destination_port, packet.number));
            counted = Some(false);
        }
        Step::Refuse => {
            edges::refuse(&sent(false), &arrival, attempt(packet.destination_port, packet.number));
        }
        Step::Abort | Step::Reset | Step::Continue => {
            counted = go_on(packet, &arrival, sent);
            if counted.is_none() {
                // A reset opens nothing, and what it ends is over.
                if packet.step == Step::Continue {
                    orphans::record(ctx.skb.skb, orphan_key(skb, side, packet), &arrival, from_pod);
                } else {
                    count(Counter::Orphan, arrival.packets);
                }
            }
        }
        Step::Datagram => {
            let orphan = orphan_key(skb, side, packet);
            counted = datagram(packet, &arrival, sent, orphan);
            if counted.is_none() {
                orphans::record(ctx.skb.skb, orphan, &arrival, from_pod);
            }
        }
        Step::Request => {
            edges::request(&sent(true), &arrival);
            counted = Some(true);
        }
        Step::Reply => {
            if edges::reply(&sent(false), &arrival) {
                counted = Some(false);
            } else {
                count(Counter::OrphanReply, 1);
            }
        }
        Step::Fragment => later_fragment(skb, side, packet, &arrival),
        Step::Unreachable => {
            // The quoted packet went the other way.
            let quoted = |initiated| {
                let key = sent(initiated);
                EdgeKey { flags: key.flags ^ LOCAL_INITIATED, ..key }
            };
            let known = edges::unreachable(&quoted(true), attempt(packet.source_port, packet.number))
                || edges::is_known(&quoted(false));
            if !known {
                count(Counter::OrphanReply, 1);
            }
        }
    }
    if packet.fragment.is_first()
        && let Some(initiated) = counted
    {
        fragments::remember(skb, packet, initiated, arrival.at);
    }
}

/// Counts on the edge of the first fragment, whose ports it had.
#[inline(always)]
fn later_fragment(skb: &__sk_buff, side: Side, packet: &Packet, arrival: &Arrival) {
    if let Some(first) = fragments::recall(skb, packet, arrival.at) {
        let initiated = first.initiated != 0;
        let like_the_first = Packet {
            source_port: first.port,
            destination_port: first.port,
            protocol: first.protocol,
            ..*packet
        };
        if edges::piece(&key(skb, side, &like_the_first, initiated), arrival, initiated) {
            return;
        }
    }
    count(Counter::LaterFragment, 1);
}

/// A packet of a connection that is open: the lower port is more likely the responder's. Whether its sender is the
/// initiator, if it matches an edge.
#[inline(always)]
fn go_on(packet: &Packet, arrival: &Arrival, sent: impl Fn(bool) -> EdgeKey) -> Option<bool> {
    let lower_responds = packet.destination_port <= packet.source_port;
    for initiated in [lower_responds, !lower_responds] {
        let key = sent(initiated);
        let found = if initiated {
            edges::from_initiator(&key, arrival, packet)
        } else {
            edges::from_responder(&key, arrival, packet)
        };
        if found {
            return Some(initiated);
        }
    }
    None
}

/// A datagram is an answer only while the edge the other way is active; else its sender initiates. Equal ports
/// on both sides (gossip) never tell an answer from a request: each side's datagrams are its own edge's. Whether
/// its sender is the initiator; `None` where it may belong to what passed before we were here.
#[inline(always)]
fn datagram(
    packet: &Packet,
    arrival: &Arrival,
    sent: impl Fn(bool) -> EdgeKey,
    orphan: OrphanKey,
) -> Option<bool> {
    let Packet { source_port, destination_port, .. } = *packet;
    if source_port == destination_port {
        edges::answered_by_gossip(&sent(false), arrival);
    } else {
        if destination_port < source_port && edges::still_requesting(&sent(true), arrival) {
            return Some(true);
        }
        if edges::reply(&sent(false), arrival) {
            return Some(false);
        }
    }
    if orphans::may_be_older(orphan, source_port, destination_port, arrival.at)
        && !edges::is_known(&sent(true))
    {
        return None;
    }
    edges::request(&sent(true), arrival);
    Some(true)
}

/// The connection of a packet, by which end is the pod's.
#[inline(always)]
fn orphan_key(skb: &__sk_buff, side: Side, packet: &Packet) -> OrphanKey {
    let source = (packet.source, packet.source_port);
    let destination = (packet.destination, packet.destination_port);
    let ((local, local_port), (remote, remote_port)) =
        if side == Side::FromPod { (source, destination) } else { (destination, source) };
    let (interface, protocol) = (skb.ifindex, packet.protocol);
    OrphanKey { local, remote, interface, local_port, remote_port, protocol, padding: [0; 7] }
}

/// The edge of a packet whose sender initiated it, or else responds.
#[inline(always)]
fn key(skb: &__sk_buff, side: Side, packet: &Packet, initiated: bool) -> EdgeKey {
    let (initiator, responder, port) = if initiated {
        (packet.source, packet.destination, packet.destination_port)
    } else {
        (packet.destination, packet.source, packet.source_port)
    };
    EdgeKey {
        initiator,
        responder,
        interface: skb.ifindex,
        port,
        protocol: packet.protocol,
        flags: if initiated == (side == Side::FromPod) { LOCAL_INITIATED } else { 0 },
    }
}

#[inline(always)]
fn arrival(skb: &__sk_buff, packet: &Packet) -> Arrival {
    let packets = if skb.gso_segs > 1 { skb.gso_segs } else { 1 };
    Arrival {
        at: now(),
        packets: u64::from(packets),
        bytes: u64::from(packet.length) + u64::from(packets - 1) * u64::from(packet.headers),
        vlan: if skb.vlan_present != 0 { skb.vlan_tci as u16 & 0xfff } else { packet.vlan },
    }
}
