//! The link layer: Ethernet with VLAN tags left in the bytes, or none.

use super::{Bytes, be16};
use crate::counter::Counter;

pub(super) const IPV4: u16 = 0x0800;
pub(super) const IPV6: u16 = 0x86dd;
/// Customer and service tags (IEEE 802.1Q, 802.1ad), and the older number for the latter.
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// Tags that may follow each other: the kernel takes the outermost out of the bytes, QinQ leaves one, and an
/// untouched frame has two.
const MOST_TAGS: usize = 3;
const _: () = assert!(14 + 4 * MOST_TAGS <= 0x1f, "the mask of the payload's offset");

/// What the link layer says.
pub(super) struct Frame {
    /// Where the network header begins.
    pub(super) payload: usize,
    pub(super) ethertype: u16,
    pub(super) vlan: u16,
    /// The destination is a group address: multicast or broadcast.
    pub(super) to_group: bool,
}

#[inline(always)]
pub(super) fn ethernet<B: Bytes + ?Sized>(bytes: &B) -> Result<Frame, Counter> {
    let header: [u8; 14] = bytes.read(0).ok_or(Counter::Truncated)?;
    let mut frame =
        Frame { payload: 14, ethertype: be16(header[12], header[13]), vlan: 0, to_group: header[0] & 1 != 0 };
    if frame.ethertype == IPV4 || frame.ethertype == IPV6 {
        return Ok(frame);
    }
    for depth in 0..MOST_TAGS {
        if !TAGS.contains(&frame.ethertype) {
            break;
        }
        let tag: [u8; 4] = bytes.read_rare(frame.payload).ok_or(Counter::Truncated)?;
        if depth == 0 {
            frame.vlan = be16(tag[0], tag[1]) & 0xfff;
        }
        frame.ethertype = be16(tag[2], tag[3]);
        frame.payload += 4;
    }
    if TAGS.contains(&frame.ethertype) {
        return Err(Counter::ChainTooLong);
    }
    let all = frame.payload as u64 | u64::from(frame.ethertype) << 16 | u64::from(frame.vlan) << 32;
    let all = bytes.forget(all).ok_or(Counter::Truncated)?;
    // The mask tells the verifier again how far the payload can be.
    Ok(Frame {
        payload: (all & 0x1f) as usize,
        ethertype: (all >> 16) as u16,
        vlan: (all >> 32) as u16,
        ..frame
    })
}

#[inline(always)]
pub(super) fn bare<B: Bytes + ?Sized>(bytes: &B) -> Result<Frame, Counter> {
    let [first] = bytes.read(0).ok_or(Counter::Truncated)?;
    let ethertype = match first >> 4 {
        4 => IPV4,
        6 => IPV6,
        _ => return Err(Counter::NotIp),
    };
    Ok(Frame { payload: 0, ethertype, vlan: 0, to_group: false })
}
