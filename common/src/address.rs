//! Addresses as the kernel side keys them: 16 bytes, IPv4 as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address in network byte order; IPv4 is mapped into IPv6.
pub type Address = [u8; 16];

/// The first 12 bytes of a mapped IPv4 address.
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// Maps an IPv4 address.
#[inline(always)]
pub const fn mapped(octets: [u8; 4]) -> Address {
    let [a, b, c, d] = octets;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// An address in words, in memory order.
pub type Words = [u32; 4];

/// Maps an IPv4 address, a word in memory order.
#[inline(always)]
pub const fn mapped_words(address: u32) -> Words {
    [0, 0, u32::from_be(0xffff), address]
}

/// An address of its words.
#[inline(always)]
pub fn from_words(words: Words) -> Address {
    let mut address = [0; 16];
    for (to, from) in address.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *to = from.to_ne_bytes();
    }
    address
}

/// Whether an address is a mapped IPv4 address.
#[inline(always)]
pub fn is_mapped(address: &Address) -> bool {
    address[..12] == MAPPED
}

/// The number of a block of addresses: those of one family whose first 16 bits are the same.
#[inline(always)]
pub fn block(address: &Address) -> u32 {
    match address {
        [head @ .., a, b, _, _] if head == &MAPPED => u32::from(u16::from_be_bytes([*a, *b])),
        [a, b, ..] => 0x1_0000 | u32::from(u16::from_be_bytes([*a, *b])),
    }
}

/// The same of an address in two words, in memory order.
#[inline(always)]
pub const fn block_of_words([high, low]: [u64; 2], is_ipv4: bool) -> u32 {
    if is_ipv4 {
        let (low, shift) = (u64::from_be(low), 16);
        (low >> shift) as u16 as u32
    } else {
        0x1_0000 | (u64::from_be(high) >> 48) as u32
    }
}

/// How many 64-bit words have a bit for every block.
pub const BLOCK_WORDS: u32 = 0x2_0000 / 64;

/// From the standard library's type.
pub const fn from_ip(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => mapped(address.octets()),
        IpAddr::V6(address) => address.octets(),
    }
}

/// To the standard library's type: a mapped address is IPv4 again.
pub fn to_ip(address: Address) -> IpAddr {
    match address {
        [head @ .., a, b, c, d] if head == MAPPED => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        other => IpAddr::V6(Ipv6Addr::from(other)),
    }
}

/// The first `length` bits of an address, the rest 0. `length` is from 1 to 128.
#[inline(always)]
pub const fn prefix(address: Address, length: u8) -> Address {
    // Two words: 128-bit shifts are function calls in BPF.
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    let mut high = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let mut low = u64::from_be_bytes([i, j, k, l, m, n, o, p]);
    if length <= 64 {
        low = 0;
        high &= u64::MAX << ((64 - length as u64) & 63);
    } else {
        low &= u64::MAX << ((128 - length as u64) & 63);
    }
    let [a, b, c, d, e, f, g, h] = high.to_be_bytes();
    let [i, j, k, l, m, n, o, p] = low.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_come_back_as_they_went() {
        for text in ["192.0.2.7", "0.0.0.0", "2001:db8::7", "::", "::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(to_ip(from_ip(address)), address);
        }
    }

    #[test]
    fn a_prefix_keeps_its_bits_and_clears_the_rest() {
        for (address, length, expected) in [
            ("203.0.113.77", 128, "203.0.113.77"),
            ("203.0.113.77", 120, "203.0.113.0"),
            ("203.0.113.77", 97, "128.0.0.0"),
            ("2001:db8:1:2:3:4:5:6", 64, "2001:db8:1:2::"),
            ("2001:db8:1:2:8003:4:5:6", 65, "2001:db8:1:2:8000::"),
            ("2001:db8:1:2:3:4:5:6", 48, "2001:db8:1::"),
            ("ffff:db8::", 1, "8000::"),
        ] {
            let [address, expected] = [address, expected].map(|text| from_ip(text.parse().unwrap()));
            assert_eq!(prefix(address, length), expected, "{length}");
        }
    }
}
