//! From a packet to the edge it belongs to.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::TcContext;
use dryfence_common::counter::Counter;
use dryfence_common::edge::{EdgeKey, LOCAL_INITIATED, attempt};
use dryfence_common::packet::{Link, Packet, Step, parse};

use crate::edges::{self, Arrival};
use crate::maps::{count, now, setting};
use crate::skb::Skb;

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
    match packet.step {
        Step::Open => edges::open(&sent(true), &arrival, attempt(packet.source_port, packet.number)),
        Step::Accept => {
            edges::accept(&sent(false), &arrival, attempt(packet.destination_port, packet.number));
        }
        Step::Refuse => {
            edges::refuse(&sent(false), &arrival, attempt(packet.destination_port, packet.number));
        }
        Step::Abort | Step::Continue => go_on(packet, &arrival, sent),
        Step::Datagram => datagram(packet, &arrival, sent),
        Step::Request => edges::request(&sent(true), &arrival),
        Step::Reply => {
            if !edges::reply(&sent(false), &arrival) {
                count(Counter::OrphanReply, 1);
            }
        }
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
}

/// A packet of a connection that is open: the lower port is more likely the responder's.
#[inline(always)]
fn go_on(packet: &Packet, arrival: &Arrival, sent: impl Fn(bool) -> EdgeKey) {
    let lower_responds = packet.destination_port <= packet.source_port;
    for initiated in [lower_responds, !lower_responds] {
        let key = sent(initiated);
        let found = if initiated {
            edges::from_initiator(&key, arrival, packet)
        } else {
            edges::from_responder(&key, arrival, packet)
        };
        if found {
            return;
        }
    }
    count(Counter::Orphan, arrival.packets);
}

/// A datagram is an answer only while the edge the other way is active; else its sender initiates. Equal ports
/// on both sides (gossip) never tell an answer from a request: each side's datagrams are its own edge's.
#[inline(always)]
fn datagram(packet: &Packet, arrival: &Arrival, sent: impl Fn(bool) -> EdgeKey) {
    let Packet { source_port, destination_port, .. } = *packet;
    if source_port == destination_port {
        edges::answered_by_gossip(&sent(false), arrival);
    } else if destination_port < source_port {
        if edges::still_requesting(&sent(true), arrival) || edges::reply(&sent(false), arrival) {
            return;
        }
    } else if edges::reply(&sent(false), arrival) {
        return;
    }
    edges::request(&sent(true), arrival);
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
