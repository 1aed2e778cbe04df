#[path = "../../testing/frames.rs"]
mod frames;

use std::net::IpAddr;

use frames::{
    ACK, FIN, FRAGMENT, RST, SYN, Tcp, authentication, ethernet, ethernet_to, extension, fragment, frame,
    icmp, ipv4, ipv6, sctp, tagged, udp,
};
use proptest::prelude::*;

use super::*;
use crate::address::from_ip;

const A4: &str = "192.0.2.10";
const B4: &str = "198.51.100.20";
const A6: &str = "2001:db8::10";
const B6: &str = "2001:db8:1::20";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn v4(text: &str) -> std::net::Ipv4Addr {
    text.parse().unwrap()
}

fn v6(text: &str) -> std::net::Ipv6Addr {
    text.parse().unwrap()
}

fn mk_tcp(flags: u8, sequence: u32, acknowledged: u32) -> Vec<u8> {
    Tcp { source: 40000, destination: 80, sequence, acknowledged, flags }.with(10)
}

fn read(frame: &[u8]) -> Result<Packet, Counter> {
    parse(frame, Link::Ethernet)
}

/// What every frame with [`mk_tcp`] in it must say of addresses and ports.
#[track_caller]
fn assert_ends(packet: &Packet, source: &str, destination: &str) {
    assert_eq!(packet.source, from_ip(ip(source)));
    assert_eq!(packet.destination, from_ip(ip(destination)));
    assert_eq!((packet.source_port, packet.destination_port), (40000, 80));
}

#[test]
fn tcp_flags_say_which_step_of_a_connection_it_is() {
    let rows = [
        ("SYN opens", SYN, 1000, 0, Step::Open, 1000),
        ("SYN with ECN bits opens", SYN | 0xc0, 1000, 0, Step::Open, 1000),
        ("SYN-ACK accepts the SYN before", SYN | ACK, 5, 1001, Step::Accept, 1000),
        ("RST+ACK with sequence 0 refuses", RST | ACK, 0, 1001, Step::Refuse, 1000),
        ("other RST+ACK aborts", RST | ACK, 77, 1001, Step::Abort, 1000),
        ("RST alone resets", RST, 1001, 0, Step::Reset, 1000),
        ("the handshake's last ACK follows the SYN", ACK, 1001, 6, Step::Continue, 1000),
        ("FIN ends", FIN | ACK, 2001, 6, Step::Close, 2000),
        ("SYN+FIN opens nothing", SYN | FIN, 1001, 0, Step::Close, 1000),
        ("sequence numbers wrap", ACK, 0, 6, Step::Continue, u32::MAX),
    ];
    for (name, flags, sequence, acknowledged, step, number) in rows {
        for (source, destination) in [(A4, B4), (A6, B6)] {
            let segment = mk_tcp(flags, sequence, acknowledged);
            let packet = read(&frame(ip(source), ip(destination), TCP, &segment)).unwrap();
            assert_eq!((packet.step, packet.number), (step, number), "{name}");
            assert_ends(&packet, source, destination);
            let network = if source == A4 { 20 } else { 40 };
            assert_eq!((packet.length, packet.headers), (network + 30, network + 20), "{name}");
        }
    }
}

#[test]
fn ipv4_options_move_the_ports() {
    for words in 0..=10 {
        let options = vec![1; words * 4];
        let packet = ipv4(v4(A4), v4(B4), TCP, &options, 0, &mk_tcp(SYN, 7, 0));
        let packet = read(&ethernet(0x0800, &packet)).unwrap();
        assert_ends(&packet, A4, B4);
        assert_eq!(packet.headers as usize, 20 + words * 4 + 20);
    }
}

#[test]
fn padding_of_the_link_layer_does_not_count() {
    let mut padded = frame(ip(A4), ip(B4), UDP, &udp(1000, 2000, 1));
    padded.resize(60, 0);
    assert_eq!(read(&padded).unwrap().length, 29);
}

#[test]
fn a_length_of_zero_stands_for_all_there_is() {
    let mut packet = frame(ip(A4), ip(B4), TCP, &mk_tcp(ACK, 1, 1));
    packet[16..18].copy_from_slice(&[0, 0]);
    assert_eq!(read(&packet).unwrap().length, 50);
    let mut packet = frame(ip(A6), ip(B6), TCP, &mk_tcp(ACK, 1, 1));
    packet[18..20].copy_from_slice(&[0, 0]);
    assert_eq!(read(&packet).unwrap().length, 70);
}

#[test]
fn vlan_tags_in_the_bytes_are_followed() {
    let packet = ipv4(v4(A4), v4(B4), TCP, &[], 0, &mk_tcp(SYN, 7, 0));
    let one = tagged(0x2065, 0x0800, &packet);
    let two = tagged(200, 0x8100, &one);
    let three = tagged(300, 0x88a8, &two);
    let four = tagged(400, 0x88a8, &three);
    // The upper four bits are priority, not VLAN.
    for (ethertype, payload, vlan) in [(0x8100, &one, 0x65), (0x88a8, &two, 200), (0x9100, &three, 300)] {
        let packet = read(&ethernet(ethertype, payload)).unwrap();
        assert_ends(&packet, A4, B4);
        assert_eq!(packet.vlan, vlan);
    }
    assert_eq!(read(&ethernet(0x88a8, &four)), Err(Counter::ChainTooLong));
    assert_eq!(read(&ethernet(0x8100, &[0, 1])), Err(Counter::Truncated));
}

#[test]
fn ipv6_extension_headers_are_followed() {
    let tcp = mk_tcp(SYN, 7, 0);
    let rows = [
        ("hop-by-hop", 0, extension(TCP, 1, &tcp)),
        ("routing of 24 bytes", 43, extension(TCP, 3, &tcp)),
        ("destination options", 60, extension(TCP, 2, &tcp)),
        ("authentication of 24 bytes", 51, authentication(TCP, 6, &tcp)),
        ("first fragment", FRAGMENT, fragment(TCP, 0, &tcp)),
        (
            "all that RFC 8200 lists, in its order",
            0,
            extension(
                60,
                1,
                &extension(
                    43,
                    1,
                    &extension(
                        FRAGMENT,
                        2,
                        &fragment(51, 0, &authentication(60, 4, &extension(TCP, 1, &tcp))),
                    ),
                ),
            ),
        ),
    ];
    for (name, next, payload) in rows {
        let packet = read(&ethernet(0x86dd, &ipv6(v6(A6), v6(B6), next, &payload)));
        let packet = packet.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_ends(&packet, A6, B6);
        assert_eq!(packet.headers as usize, 40 + payload.len() - tcp.len() + 20, "{name}");
    }
}

#[test]
fn absurd_chains_of_extension_headers_end() {
    let mut payload = mk_tcp(SYN, 7, 0);
    let mut next = TCP;
    for length in 1..=20 {
        payload = extension(next, 1, &payload);
        next = 60;
        let result = read(&ethernet(0x86dd, &ipv6(v6(A6), v6(B6), 60, &payload)));
        if length <= 8 {
            assert_ends(&result.unwrap(), A6, B6);
        } else {
            assert_eq!(result, Err(Counter::ChainTooLong), "{length}");
        }
    }
    // The longest header there is, and nothing behind it.
    let long = extension(TCP, 255, &[]);
    assert_eq!(read(&ethernet(0x86dd, &ipv6(v6(A6), v6(B6), 0, &long))), Err(Counter::Truncated));
}

/// A later fragment of the datagram with this identification, and nothing of ports.
#[track_caller]
fn assert_later(read: &Result<Packet, Counter>, identification: u32) {
    let packet = read.unwrap();
    assert_eq!((packet.step, packet.fragment), (Step::Fragment, Fragment::later(identification)));
    assert_eq!((packet.source_port, packet.destination_port, packet.protocol), (0, 0, TCP));
}

#[test]
fn bytes_of_a_later_fragment_are_never_ports() {
    let looks_like_tcp = mk_tcp(SYN, 7, 0);
    for offset in [1, 0x1fff] {
        // With and without "more fragments".
        for flags in [0, 0x2000] {
            let packet = ipv4(v4(A4), v4(B4), TCP, &[], offset | flags, &looks_like_tcp);
            assert_later(&read(&ethernet(0x0800, &packet)), 1);
        }
        let packet = ipv6(v6(A6), v6(B6), FRAGMENT, &fragment(TCP, offset, &looks_like_tcp));
        assert_later(&read(&ethernet(0x86dd, &packet)), 9);
    }
    // The first fragment and "do not fragment" have ports.
    for (flags, fragment) in [(0x2000, Fragment::first(1)), (0x4000, Fragment::WHOLE)] {
        let packet = ipv4(v4(A4), v4(B4), TCP, &[], flags, &looks_like_tcp);
        let packet = read(&ethernet(0x0800, &packet)).unwrap();
        assert_ends(&packet, A4, B4);
        assert_eq!(packet.fragment, fragment);
    }
    let mut first = ipv6(v6(A6), v6(B6), FRAGMENT, &fragment(TCP, 0, &looks_like_tcp));
    assert_eq!(read(&ethernet(0x86dd, &first)).unwrap().fragment, Fragment::first(9));
    // "Atomic": the first, and no more.
    first[43] = 0;
    assert_eq!(read(&ethernet(0x86dd, &first)).unwrap().fragment, Fragment::WHOLE);
}

#[test]
fn what_nobody_judges_is_named() {
    let to4 = |destination, protocol, payload: &[u8]| frame(ip(A4), ip(destination), protocol, payload);
    let to6 = |destination, protocol, payload: &[u8]| frame(ip(A6), ip(destination), protocol, payload);
    let udp_any = udp(40000, 5000, 4);
    let broadcast_frame =
        ethernet_to([0xff; 6], 0x0800, &ipv4(v4(A4), v4("192.0.2.255"), UDP, &[], 0, &udp_any));
    let rows = [
        ("ARP", ethernet_to([0xff; 6], 0x0806, &[0; 28]), Counter::NotIp),
        ("multicast", to4("239.1.2.3", UDP, &udp_any), Counter::Group),
        ("IPv6 multicast", to6("ff02::fb", UDP, &udp_any), Counter::Group),
        ("limited broadcast", to4("255.255.255.255", UDP, &udp_any), Counter::Group),
        ("a subnet's broadcast", broadcast_frame, Counter::Group),
        ("DHCP renewal", to4(B4, UDP, &udp(68, 67, 240)), Counter::Dhcp),
        ("DHCP relay", to4(B4, UDP, &udp(67, 67, 240)), Counter::Dhcp),
        ("DHCPv6", to6(B6, UDP, &udp(546, 547, 40)), Counter::Dhcp),
        ("neighbour solicitation", to6(B6, ICMPV6, &icmp(135, 0, &[0; 16])), Counter::NeighbourDiscovery),
        ("router advertisement", to6(B6, ICMPV6, &icmp(134, 0, &[0; 16])), Counter::NeighbourDiscovery),
        ("listener report", to6(B6, ICMPV6, &icmp(143, 0, &[0; 16])), Counter::ListenerDiscovery),
        ("timestamp", to4(B4, ICMP, &icmp(13, 0, &[0; 12])), Counter::OtherIcmp),
        ("GRE", to4(B4, 47, &[0; 30]), Counter::OtherProtocol),
        ("no next header", to6(B6, 59, &[]), Counter::OtherProtocol),
    ];
    for (name, frame, counter) in rows {
        assert_eq!(read(&frame), Err(counter), "{name}");
    }
    assert_eq!(read(&to4(B4, UDP, &udp(40000, 67, 4))).unwrap().destination_port, 67);
}

#[test]
fn headers_that_contradict_themselves_are_malformed() {
    let good = frame(ip(A4), ip(B4), TCP, &mk_tcp(SYN, 7, 0));
    let with = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        bad
    };
    for (name, bad) in [
        ("version 6 under the ethertype of IPv4", with(14, 0x65)),
        ("a header of 16 bytes", with(14, 0x44)),
        ("shorter than its own header", with(17, 19)),
        ("a TCP header of 16 bytes", with(14 + 20 + 12, 0x40)),
    ] {
        assert_eq!(read(&bad), Err(Counter::Malformed), "{name}");
    }
    let mut bad = frame(ip(A6), ip(B6), TCP, &mk_tcp(SYN, 7, 0));
    bad[14] = 0x45;
    assert_eq!(read(&bad), Err(Counter::Malformed));
}

#[test]
fn a_packet_that_ends_anywhere_is_truncated() {
    let tcp = mk_tcp(SYN, 7, 0);
    let quoted = ipv4(v4(B4), v4(A4), TCP, &[], 0, &tcp);
    let frames = [
        (frame(ip(A4), ip(B4), TCP, &tcp), 10),
        (frame(ip(A6), ip(B6), TCP, &tcp), 10),
        (ethernet(0x86dd, &ipv6(v6(A6), v6(B6), 0, &extension(TCP, 2, &tcp))), 10),
        (frame(ip(A4), ip(B4), UDP, &udp(1, 2, 5)), 5),
        (frame(ip(A4), ip(B4), SCTP, &sctp(1, 2, 0, 1, 9)), 12),
        (frame(ip(A4), ip(B4), ICMP, &icmp(8, 0, &[0; 5])), 5),
        (frame(ip(A4), ip(B4), ICMP, &icmp(3, 3, &quoted)), 22),
    ];
    for (whole, payload) in frames {
        for length in 0..whole.len() - payload {
            assert_eq!(read(&whole[..length]), Err(Counter::Truncated), "{length} of {}", whole.len());
        }
        for length in whole.len() - payload..=whole.len() {
            assert!(read(&whole[..length]).is_ok(), "{length} of {}", whole.len());
        }
    }
}

#[test]
fn sctp_chunks_say_which_step_it_is() {
    for (chunk, step, number) in [
        (1, Step::Open, 99),
        (2, Step::Accept, 55),
        (6, Step::Abort, 55),
        (0, Step::Continue, 0),
        (10, Step::Continue, 0),
    ] {
        let packet = read(&frame(ip(A4), ip(B4), SCTP, &sctp(40000, 80, 55, chunk, 99))).unwrap();
        assert_eq!((packet.step, packet.number), (step, number), "chunk {chunk}");
        assert_ends(&packet, A4, B4);
    }
}

#[test]
fn icmp_echo_is_known_by_the_type_and_code_of_its_request() {
    for (kind, step) in [(8, Step::Request), (0, Step::Reply)] {
        let packet = read(&frame(ip(A4), ip(B4), ICMP, &icmp(kind, 0, &[]))).unwrap();
        assert_eq!((packet.step, packet.source_port, packet.destination_port), (step, 8 * 256, 8 * 256));
    }
    for (kind, step) in [(128, Step::Request), (129, Step::Reply)] {
        let packet = read(&frame(ip(A6), ip(B6), ICMPV6, &icmp(kind, 0, &[]))).unwrap();
        assert_eq!((packet.step, packet.source_port), (step, 128 * 256));
    }
}

#[test]
fn an_unreachable_speaks_of_the_packet_it_quotes() {
    let router = "203.0.113.1";
    let quoted = ipv4(
        v4(B4),
        v4(A4),
        TCP,
        &[],
        0,
        &Tcp { source: 40000, destination: 80, sequence: 1234, acknowledged: 0, flags: SYN }.with(0),
    );
    let packet = read(&frame(ip(router), ip(B4), ICMP, &icmp(3, 1, &quoted))).unwrap();
    assert_eq!((packet.step, packet.protocol, packet.number), (Step::Unreachable, TCP, 1234));
    assert_ends(&packet, B4, A4);

    let quoted = ipv6(v6(B6), v6(A6), UDP, &udp(40000, 80, 0));
    let packet = read(&frame(ip("2001:db8::1"), ip(B6), ICMPV6, &icmp(1, 4, &quoted))).unwrap();
    assert_eq!((packet.step, packet.protocol), (Step::Unreachable, UDP));
    assert_ends(&packet, B6, A6);

    let init = ipv4(v4(B4), v4(A4), SCTP, &[], 0, &sctp(40000, 80, 0, 1, 77));
    let packet = read(&frame(ip(router), ip(B4), ICMP, &icmp(3, 2, &init))).unwrap();
    assert_eq!((packet.step, packet.protocol, packet.number), (Step::Unreachable, SCTP, 77));

    // What somebody else sent says nothing about whoever receives the error.
    let others = ipv4(v4(A4), v4(router), TCP, &[], 0, &mk_tcp(SYN, 7, 0));
    assert_eq!(read(&frame(ip(router), ip(B4), ICMP, &icmp(3, 1, &others))), Err(Counter::ErrorOfNoEdge));
}

#[test]
fn other_errors_speak_of_the_packet_they_quote_and_refuse_nothing() {
    let data = mk_tcp(ACK, 1235, 1);
    let quoted = ipv4(v4(B4), v4(A4), TCP, &[1; 8], 0, &data[..8]);
    for (kind, code) in [(3, 4), (4, 0), (5, 1), (11, 0), (11, 1), (12, 2)] {
        let packet = read(&frame(ip("203.0.113.1"), ip(B4), ICMP, &icmp(kind, code, &quoted))).unwrap();
        assert_eq!((packet.step, packet.protocol), (Step::Error, TCP), "{kind}, {code}");
        assert_eq!(packet.error, u16::from(kind) * 256 + u16::from(code));
        assert_ends(&packet, B4, A4);
    }
    let quoted = ipv6(v6(B6), v6(A6), FRAGMENT, &fragment(TCP, 0, &data));
    for (kind, quoted) in [(2, &ipv6(v6(B6), v6(A6), 60, &extension(TCP, 2, &data))), (3, &quoted)] {
        let error = frame(ip("2001:db8::1"), ip(B6), ICMPV6, &icmp(kind, 0, quoted));
        let packet = read(&error).unwrap();
        assert_eq!((packet.step, packet.error), (Step::Error, u16::from(kind) * 256));
    }
}

#[test]
fn a_device_without_link_layer_begins_with_ip() {
    for (packet, source, destination) in [
        (ipv4(v4(A4), v4(B4), TCP, &[], 0, &mk_tcp(SYN, 7, 0)), A4, B4),
        (ipv6(v6(A6), v6(B6), TCP, &mk_tcp(SYN, 7, 0)), A6, B6),
    ] {
        assert_ends(&parse(&packet[..], Link::Ip).unwrap(), source, destination);
    }
    assert_eq!(parse(&[0x10, 0][..], Link::Ip), Err(Counter::NotIp));
    assert_eq!(parse(&[][..], Link::Ip), Err(Counter::Truncated));
}

/// A source that fails the test when it is asked for bytes that are not there: a slice would only say `None`.
struct Watched<'a>(&'a [u8]);

impl Bytes for Watched<'_> {
    fn length(&self) -> usize {
        self.0.len()
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // The kernel's verifier knows packet offsets up to 65,535.
        assert!(offset + N <= 0xffff, "{offset}");
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

/// Frames that look right for a while, so that chance gets past the first header.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => Just(0_u8), 1 => any::<u8>()];
    let next = prop_oneof![
        Just(0_u8),
        Just(6),
        Just(17),
        Just(43),
        Just(44),
        Just(51),
        Just(58),
        Just(60),
        Just(132),
        any::<u8>()
    ];
    (any::<bool>(), next.clone(), proptest::collection::vec(prop_oneof![byte, next], 0..300)).prop_map(
        |(is_v4, protocol, payload)| {
            if is_v4 {
                frame(ip(A4), ip(B4), protocol, &payload)
            } else {
                frame(ip(A6), ip(B6), protocol, &payload)
            }
        },
    )
}

/// What the short way says of a packet is what is so.
#[track_caller]
fn assert_short_way_agrees(bytes: &[u8], link: Link) {
    let short = plain(bytes, link).map(|plain| plain.packet());
    if let Some(packet) = short {
        assert_eq!(parse(bytes, link), Ok(packet));
    }
    if is_plain_data(bytes, link) {
        let packet = short.unwrap();
        assert_eq!((packet.protocol, packet.step), (TCP, Step::Continue));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for link in [Link::Ethernet, Link::Ip] {
            if let Ok(packet) = parse(&Watched(&bytes), link) {
                prop_assert!(packet.length as usize <= bytes.len());
            }
            assert_short_way_agrees(&bytes, link);
        }
    }

    #[test]
    fn plausible_bytes_are_read_without_panic(bytes in plausible(), cut in 0_usize..400) {
        let bytes = &bytes[..cut.min(bytes.len())];
        if let Ok(packet) = parse(&Watched(bytes), Link::Ethernet) {
            prop_assert!(packet.length as usize <= bytes.len());
            prop_assert!(packet.headers as usize <= bytes.len() + 40);
        }
        assert_short_way_agrees(bytes, Link::Ethernet);
    }

    #[test]
    fn the_short_way_agrees_where_a_byte_of_a_usual_packet_is_another(
        is_v4 in any::<bool>(),
        is_tcp in any::<bool>(),
        flags in any::<u8>(),
        payload in 0_usize..30,
        link in prop_oneof![Just(Link::Ethernet), Just(Link::Ip)],
        (at, byte) in (0_usize..80, any::<u8>()),
    ) {
        let segment = Tcp { source: 40000, destination: 80, sequence: 7, acknowledged: 8, flags };
        let (protocol, segment) =
            if is_tcp { (TCP, segment.with(payload)) } else { (UDP, udp(40000, 53, payload + 12)) };
        let [from, to] = if is_v4 { [A4, B4] } else { [A6, B6] };
        let mut bytes = frame(ip(from), ip(to), protocol, &segment);
        if link == Link::Ip {
            bytes.drain(..14);
        }
        prop_assert_eq!(plain(&bytes[..], link).is_some(), !is_tcp || flags & (FIN | RST) == 0);
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        assert_short_way_agrees(&bytes, link);
    }
}
