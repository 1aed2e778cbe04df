//! From a packet to the edge it belongs to.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::TcContext;
use dryfence_common::counter::Counter;
use dryfence_common::edge::attempt;
use dryfence_common::packet::{self, Fragment, Link, Packet, Plain, Step, TCP, Then, is_plain_data};

use crate::edges::{self, Arrival, By};
use crate::ends::Ends;
use crate::maps::{count, sample, setting};
use crate::plain::Short;
use crate::skb::Skb;
use crate::{fragments, orphans, plain};

/// Which way a packet crosses the host side of a pod's interface.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    FromPod,
    ToPod,
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
    let bytes = Skb::new(ctx);
    let mut stands_for = 1;
    if ACCOUNTING != accounting::EXACT && is_plain_data(&bytes, link) {
        if ACCOUNTING == accounting::OFF {
            return;
        }
        let Some(sampled) = sample() else { return };
        stands_for = sampled;
    }
    // SAFETY: the context is valid while the program runs.
    let skb = unsafe { &*ctx.skb.skb };
    let short = packet::plain_then(&bytes, link, &Account { skb, side, stands_for });
    if let Some(is_done) = short {
        if is_done {
            return;
        }
    } else {
        let mut done = read::<ACCOUNTING>(ctx.skb.skb, side as u32, link as u32);
        if done == IS_QUOTE {
            done = read_quote(ctx.skb.skb, side as u32);
        }
        if done != IS_SET_DOWN {
            return;
        }
    }
    account(ctx.skb.skb);
}

/// What [`read`] answers: nothing is left to do.
const IS_DONE: u32 = 0;
/// The ends are set down: [`account`] goes on.
const IS_SET_DOWN: u32 = 1;
/// What [`read`] answers of an ICMP error: [`read_quote`] goes on.
const IS_QUOTE: u32 = 2;

/// Counts a packet the short way, or sets its ends down.
struct Account<'a> {
    skb: &'a __sk_buff,
    side: Side,
    stands_for: u32,
}

impl Then for Account<'_> {
    /// Whether nothing is left to do.
    type Made = bool;

    #[inline(always)]
    fn then(&self, packet: Plain) -> bool {
        let short = plain::count(self.skb, &packet, self.side, self.stands_for);
        short == Short::Counted
            || Ends::set_down(self.skb, packet.packet(), self.side, self.stands_for, short == Short::Missed)
                .is_none()
    }
}

/// Reads a packet in all its forms and sets its ends down.
///
/// A function of its own, as those after it: what the verifier learns on the many ways through the parser ends with it.
#[inline(never)]
fn read<const ACCOUNTING: u8>(skb: *mut __sk_buff, side: u32, link: u32) -> u32 {
    let ctx = &TcContext::new(skb);
    let link = if link == Link::Ethernet as u32 { Link::Ethernet } else { Link::Ip };
    let packet = match packet::read(&Skb::new(ctx), link) {
        Ok(packet) => packet,
        Err(counter) => {
            refuse(ctx, counter);
            return IS_DONE;
        }
    };
    let mut stands_for = 1;
    if ACCOUNTING != accounting::EXACT && is_data(&packet) {
        if ACCOUNTING == accounting::OFF {
            return IS_DONE;
        }
        // What is in fragments is counted whole: the later ones have nothing but the first to go by.
        if packet.fragment == Fragment::WHOLE {
            let Some(sampled) = sample() else { return IS_DONE };
            stands_for = sampled;
        }
    }
    let is_error = packet.is_error();
    let answer = set_down(skb, packet, side == Side::FromPod as u32, stands_for);
    if is_error { IS_QUOTE } else { answer }
}

/// Reads the packet that an ICMP error quotes, as [`read`] does: it went the other way.
#[inline(never)]
fn read_quote(skb: *mut __sk_buff, side: u32) -> u32 {
    let ctx = &TcContext::new(skb);
    let Some(error) = Ends::at_hand() else { return IS_DONE };
    match packet::quoted(&Skb::new(ctx), error.packet()) {
        Ok(packet) => set_down(skb, packet, side != Side::FromPod as u32, 1),
        Err(counter) => {
            refuse(ctx, counter);
            IS_DONE
        }
    }
}

#[inline(always)]
fn set_down(skb: *mut __sk_buff, packet: Packet, is_from_pod: bool, stands_for: u32) -> u32 {
    let side = if is_from_pod { Side::FromPod } else { Side::ToPod };
    // SAFETY: the context is valid while the program runs.
    let skb = unsafe { &*skb };
    match Ends::set_down(skb, packet, side, stands_for, false) {
        Some(()) => IS_SET_DOWN,
        None => IS_DONE,
    }
}

/// Counts a packet that makes no edge.
#[inline(always)]
fn refuse(ctx: &TcContext, counter: Counter) {
    count(counter, 1);
    if setting!(diagnostics) != 0 {
        aya_log_ebpf::debug!(ctx, "a packet of {} bytes is counted as {}", ctx.len(), counter.index());
    }
}

/// Whether it is a TCP packet that neither opens, answers nor ends a connection, or a later piece of one.
#[inline(always)]
fn is_data(packet: &Packet) -> bool {
    packet.protocol == TCP && matches!(packet.step, Step::Continue | Step::Fragment)
}

/// Counts the packet whose ends were set down.
#[inline(never)]
fn account(skb: *mut __sk_buff) -> u32 {
    let ctx = &TcContext::new(skb);
    // SAFETY: the context is valid while the program runs.
    let skb = unsafe { &*skb };
    let Some(ends) = Ends::at_hand() else { return 0 };
    ends.place();
    let Packet { length, headers, .. } = *ends.packet();
    let arrival = &Arrival::new(skb, length, headers, ends.stands_for());
    if let Some(initiated) = count_on_edge(ctx, ends, arrival)
        && ends.packet().fragment.is_first()
    {
        fragments::remember(skb, ends.packet(), initiated, arrival.at);
    }
    0
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
        Step::Reply => {
            if !edges::reply(ends, arrival) {
                count(Counter::OrphanReply, 1);
            }
            return None;
        }
        Step::Unreachable | Step::Error => {
            if !edges::error(ends) {
                count(Counter::ErrorOfNoEdge, 1);
            }
            return None;
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
