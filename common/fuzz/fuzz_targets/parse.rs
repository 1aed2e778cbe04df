//! The packet parser on any bytes: it never panics, never asks for bytes beyond what the kernel's verifier allows, and
//! never says what cannot be.
#![no_main]

use dryfence_common::packet::{Bytes, Link, Packet, Step, is_plain_data, parse, plain};
use libfuzzer_sys::fuzz_target;

/// A source that fails when it is asked for bytes that the verifier would not let the programs ask for.
struct Watched<'a>(&'a [u8]);

impl Bytes for Watched<'_> {
    fn length(&self) -> usize {
        self.0.len()
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        assert!(offset + N <= 0xffff, "packet offsets end at 65,535: {offset}");
        self.0.read(offset)
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        assert!(offset + 4 * N <= 0xffff, "packet offsets end at 65,535: {offset}");
        self.0.words(offset)
    }

    fn head<const N: usize>(&self) -> Option<&[u8; N]> {
        self.0.head()
    }
}

fuzz_target!(|bytes: &[u8]| {
    for link in [Link::Ethernet, Link::Ip] {
        if let Ok(packet) = parse(&Watched(bytes), link) {
            check(&packet, bytes.len());
        }
        if let Some(plain) = plain(bytes, link) {
            assert_eq!(parse(bytes, link), Ok(plain.packet()), "the short way says something else");
        }
        if is_plain_data(bytes, link) {
            assert_eq!(plain(bytes, link).map(|plain| plain.step), Some(Step::Continue));
        }
    }
});

fn check(packet: &Packet, available: usize) {
    assert!(packet.length as usize <= available, "{packet:?} of {available} bytes");
    assert!(packet.vlan <= 0xfff, "{packet:?}");
    // A TCP header may claim options that the packet does not have.
    assert!(packet.headers as usize <= available + 40, "{packet:?} of {available} bytes");
    if packet.step == Step::Fragment {
        assert!(packet.fragment.is_later(), "{packet:?}");
        assert_eq!((packet.source_port, packet.destination_port), (0, 0), "{packet:?}");
    } else {
        assert!(!packet.fragment.is_later(), "{packet:?}");
    }
}
