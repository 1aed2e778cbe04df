use super::*;
use proptest::prelude::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn blocks_are_read_with_their_exceptions() {
    let except = ["192.0.2.64/26".to_owned(), "192.0.2.0/32".to_owned()];
    let set = parse_block("192.0.2.0/24", &except).unwrap();
    for (address, inside) in [
        ("192.0.2.0", false),
        ("192.0.2.1", true),
        ("192.0.2.63", true),
        ("192.0.2.64", false),
        ("192.0.2.127", false),
        ("192.0.2.128", true),
        ("192.0.2.255", true),
        ("192.0.3.0", false),
        ("::ffff:192.0.2.1", true),
        ("2001:db8::1", false),
    ] {
        assert_eq!(set.contains(ip(address)), inside, "{address}");
    }
}

#[test]
fn blocks_that_the_api_server_would_refuse_name_the_field() {
    for (cidr, except, field, message) in [
        ("192.0.2.0", &[][..], "cidr", "\"192.0.2.0\" lacks its prefix length; one address is 192.0.2.0/32"),
        ("2001:db8::", &[], "cidr", "\"2001:db8::\" lacks its prefix length; one address is 2001:db8::/128"),
        ("192.0.2.0/33", &[], "cidr", "\"192.0.2.0/33\" is not a block of addresses"),
        ("", &[], "cidr", "\"\" is not a block of addresses"),
        ("192.0.2.0/24", &["x"], "except[0]", "\"x\" is not a block of addresses"),
        ("192.0.2.0/24", &["192.0.2.0/24"], "except[0]", "192.0.2.0/24 is not strictly inside 192.0.2.0/24"),
        ("192.0.2.0/24", &["198.51.100.0/25"], "except[0]", "198.51.100.0/25 is not strictly inside"),
        ("192.0.2.0/24", &["2001:db8::/32"], "except[0]", "2001:db8::/32 is not strictly inside"),
        ("192.0.2.0/31", &["192.0.2.0/32", "192.0.2.1/32"], "except", "nothing is left of 192.0.2.0/31"),
    ] {
        let except: Vec<String> = except.iter().map(|&text| text.to_owned()).collect();
        let wrong = parse_block(cidr, &except).unwrap_err();
        let [(at, said)] = &wrong[..] else { panic!("{wrong:?}") };
        assert_eq!(at, field, "{cidr} {except:?}");
        assert!(said.starts_with(message), "{said}");
    }
}

#[test]
fn ranges_hold_both_ends_and_may_name_the_last_octet_only() {
    for text in ["192.168.1.0-192.168.1.50", "192.168.1.0 - 192.168.1.50", "192.168.1.0-50"] {
        let set = parse_range(text).unwrap();
        for (address, inside) in
            [("192.168.0.255", false), ("192.168.1.0", true), ("192.168.1.50", true), ("192.168.1.51", false)]
        {
            assert_eq!(set.contains(ip(address)), inside, "{address} in {text}");
        }
    }
    assert!(parse_range("2001:db8::1-2001:db8::ff").unwrap().contains(ip("2001:db8::80")));
}

#[test]
fn ranges_that_make_no_sense_say_why() {
    for (text, message) in [
        ("192.0.2.1", "\"192.0.2.1\" is not first-last"),
        ("192.0.2.1-", "\"192.0.2.1-\" is not first-last"),
        ("192.0.2.1-256", "\"192.0.2.1-256\" is not first-last"),
        ("192.0.2.9-192.0.2.1", "\"192.0.2.9-192.0.2.1\" ends before it begins"),
        ("192.0.2.9-1", "\"192.0.2.9-1\" ends before it begins"),
        ("192.0.2.9-2001:db8::1", "\"192.0.2.9-2001:db8::1\" begins in one address family"),
        ("2001:db8::1-50", "\"2001:db8::1-50\" is not first-last"),
    ] {
        let said = parse_range(text).unwrap_err();
        assert!(said.starts_with(message), "{said}");
    }
}

/// Few distinct bits, so that random ranges nest, touch and repeat; one in five is IPv6.
fn any_address() -> impl Strategy<Value = IpAddr> {
    let v4 = prop::bits::u32::masked(0xC000_0207).prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
    let v6 = prop::bits::u32::masked(0x0000_0207)
        .prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(u128::from(bits) | 0x2001_0db8 << 96)));
    prop_oneof![4 => v4, 1 => v6]
}

proptest! {
    #[test]
    fn the_table_holds_an_address_exactly_where_the_naive_comparison_says_so(
        ranges in prop::collection::vec((0usize..4, any_address(), any_address()), 0..16),
        asked in prop::collection::vec(any_address(), 1..16),
    ) {
        let read: Vec<(usize, AddressSet, IpAddr, IpAddr)> = ranges
            .into_iter()
            .filter_map(|(owner, a, b)| {
                let (first, last) = (a.min(b), a.max(b));
                parse_range(&format!("{first}-{last}")).ok().map(|set| (owner, set, first, last))
            })
            .collect();
        let table = AddressTable::new(read.iter().map(|(owner, set, ..)| (*owner, set)));
        let ends = read.iter().flat_map(|(_, _, first, last)| [*first, *last]);
        for address in asked.into_iter().chain(ends) {
            // Two addresses of one family compare as numbers do.
            let naive = |first: &IpAddr, last: &IpAddr| {
                first.is_ipv4() == address.is_ipv4() && *first <= address && address <= *last
            };
            let mut expected: Vec<usize> =
                read.iter().filter(|(_, _, first, last)| naive(first, last)).map(|(owner, ..)| *owner).collect();
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(table.owners(address), &expected[..], "{}", address);
        }
    }

    #[test]
    fn a_block_is_its_cidr_less_its_exceptions(
        bits in prop::bits::u32::masked(0xC000_0207), length in 0u8..=32,
        inner in prop::collection::vec((prop::bits::u32::masked(0xC000_0207), 0u8..=32), 0..4),
        asked in prop::collection::vec(any_address(), 1..16),
    ) {
        let net = |bits: u32, length: u8| IpNet::new(IpAddr::V4(Ipv4Addr::from_bits(bits)), length).unwrap().trunc();
        let outer = net(bits, length);
        let inner: Vec<IpNet> = inner
            .into_iter()
            .map(|(bits, length)| net(bits, length))
            .filter(|inner| outer.contains(inner) && *inner != outer)
            .collect();
        let except: Vec<String> = inner.iter().map(ToString::to_string).collect();
        let Ok(set) = parse_block(&outer.to_string(), &except) else {
            // Nothing is left: no address is in the block and in none of its exceptions.
            return Ok(());
        };
        for address in asked {
            let naive = outer.contains(&address) && !inner.iter().any(|inner| inner.contains(&address));
            prop_assert_eq!(set.contains(address), naive, "{} in {} less {:?}", address, outer, except);
        }
    }
}
