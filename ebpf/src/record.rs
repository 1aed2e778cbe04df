//! From a packet to the edge it belongs to.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::TcContext;
use dryfence_common::counter::Counter;
use dryfence_common::edge::attempt;
use dryfence_common::packet::{Fragment, Link, Packet, Step, TCP, parse};

use crate::edges::{self, Arrival, By};
use crate::ends::Ends;
use crate::maps::{count, now, sample, setting};
use crate::skb::Skb;
use crate::{fragments, orphans};

/// Which way a packet crosses the host side of a pod's interface.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    FromPod,
    ToPod,
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::FromPod => Self::ToPod,
            Self::ToPod => Self::FromPod,
        }
    }
}

/// What becomes of TCP data packets. Everything that opens, answers or ends a connection counts in each.
pub(crate) mod accounting {
    /// Each is counted.
    pub(crate) const EXACT: u8 = 0;
    /// One in many is, and stands for them.
    pub(crate) const SAMPLED: u8 = 1;
    /// None is.
    pub(crate) const OFF: u8 = 2;
}

/// Records one packet. Whatever happens, the packet goes on.
#[inline(always)]
pub(crate) fn record<const ACCOUNTING: u8>(ctx: &TcContext, side: Side, link: Link) {
    match parse(&Skb::new(ctx), link) {
        Ok(packet) => {
            let mut stands_for = 1;
            if ACCOUNTING != accounting::EXACT && is_data(&packet) {
                if ACCOUNTING == accounting::OFF {
                    return;
                }
                // What is in fragments is counted whole: the later ones have nothing but the first to go by.
                if packet.fragment == Fragment::WHOLE {
                    let Some(sampled) = sample() else { return };
                    stands_for = sampled;
                }
            }
            account(ctx, side, packet, stands_for);
        }
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

/// Whether it is a TCP packet that neither opens, answers nor ends a connection, or a later piece of one.
#[inline(always)]
fn is_data(packet: &Packet) -> bool {
    packet.protocol == TCP && matches!(packet.step, Step::Continue | Step::Fragment)
}

#[inline(always)]
fn account(ctx: &TcContext, side: Side, packet: Packet, stands_for: u32) {
    // SAFETY: the context is valid while the program runs.
    let skb = unsafe { &*ctx.skb.skb };
    // A quoted packet went the other way.
    let side = if packet.step == Step::Unreachable { side.other() } else { side };
    let Some(ends) = Ends::set_down(packet, skb.ifindex, side) else { return };
    let arrival = &arrival(skb, ends.packet(), stands_for);
    if let Some(initiated) = count_on_edge(ctx, ends, arrival)
        && ends.packet().fragment.is_first()
    {
        fragments::remember(skb, ends.packet(), initiated, arrival.at);
    }
}

/// Whether the sender initiated the edge that the packet was counted on, or else responds; `None` where it was counted
/// on none.
#[inline(always)]
fn count_on_edge(ctx: &TcContext, ends: &mut Ends, arrival: &Arrival) -> Option<bool> {
    let packet = ends.packet();
    let of_sender = attempt(packet.source_port, packet.number);
    let of_receiver = attempt(packet.destination_port, packet.number);
    let (by, attempt) = match packet.step {
        Step::Open => (By::Opening, of_sender),
        Step::Accept => (By::Acceptance, of_receiver),
        Step::Refuse => (By::Refusal, of_receiver),
        Step::Continue | Step::Close | Step::Reset | Step::Abort => {
            let counted = edges::go_on(ends, arrival);
            if counted.is_none() {
                let step = ends.packet().step;
                if matches!(step, Step::Continue | Step::Close) {
                    // What ends a connection is no reason to keep it.
                    orphans::record(ctx.skb.skb, ends, arrival, step == Step::Continue);
                } else {
                    // A reset may as well say that there is no connection.
                    count(Counter::Orphan, arrival.packets);
                }
            }
            return counted;
        }
        Step::Reply | Step::Unreachable => {
            let is_reply = packet.step == Step::Reply;
            let is_known = if is_reply { edges::reply(ends, arrival) } else { edges::unreachable(ends) };
            if !is_known {
                count(Counter::OrphanReply, 1);
            }
            return is_known.then_some(false);
        }
        Step::Fragment => {
            later_fragment(ctx, ends, arrival);
            return None;
        }
        Step::Datagram => {
            let counted = edges::datagram(ends, arrival);
            if counted.is_some() {
                return counted;
            }
            if orphans::may_be_older(ends, arrival.at) {
                orphans::record(ctx.skb.skb, ends, arrival, true);
                return None;
            }
            (By::Request, arrival.at)
        }
        Step::Request => (By::Request, arrival.at),
    };
    edges::step(ends, by, attempt, arrival);
    Some(by.initiates())
}

/// Counts on the edge of the first fragment, whose ports it had.
#[inline(always)]
fn later_fragment(ctx: &TcContext, ends: &mut Ends, arrival: &Arrival) {
    // SAFETY: the context is valid while the program runs.
    let skb = unsafe { &*ctx.skb.skb };
    if let Some(first) = fragments::recall(skb, ends.packet(), arrival.at) {
        ends.like_the_first(first.port, first.protocol);
        if edges::piece(ends, first.initiated != 0, arrival) {
            return;
        }
    }
    count(Counter::LaterFragment, 1);
}

#[inline(always)]
fn arrival(skb: &__sk_buff, packet: &Packet, stands_for: u32) -> Arrival {
    let packets = if skb.gso_segs > 1 { skb.gso_segs } else { 1 };
    let bytes = u64::from(packet.length) + u64::from(packets - 1) * u64::from(packet.headers);
    Arrival {
        at: now(),
        packets: u64::from(packets) * u64::from(stands_for),
        bytes: bytes * u64::from(stands_for),
        vlan: if skb.vlan_present != 0 { skb.vlan_tci as u16 & 0xfff } else { packet.vlan },
    }
}
