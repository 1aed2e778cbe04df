//! All address blocks of a set of policies, so that an address is looked up once: its longest matching
//! prefix determines every block that holds it.

use std::net::IpAddr;

use ipnet::IpNet;

/// A prefix of the table. Numbers follow the order of the tree (parents before children), so those inside a
/// prefix follow it without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PrefixId(u32);

/// What is known of an address: which blocks hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct AddressClass(u32);

impl AddressClass {
    /// The peer is a range of addresses of which some block holds only a part.
    pub(crate) const DIVIDED: Self = Self(u32::MAX - 3);
    /// Blocks do not matter for this peer.
    pub(crate) const IGNORED: Self = Self(u32::MAX - 2);
    /// There is no address.
    pub(crate) const MISSING: Self = Self(u32::MAX - 1);
    /// No block holds the address.
    const OUTSIDE: Self = Self(u32::MAX);
}

/// Classes of addresses: those inside some blocks and outside of others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClassSet {
    /// Sorted, disjoint, the ends not included.
    ranges: Vec<(u32, u32)>,
}

impl ClassSet {
    /// Whether addresses of the class are in it.
    pub(crate) fn holds(&self, class: AddressClass) -> bool {
        let after = self.ranges.partition_point(|(first, _)| *first <= class.0);
        after.checked_sub(1).and_then(|at| self.ranges.get(at)).is_some_and(|(_, end)| class.0 < *end)
    }
}

/// Disjoint ranges of addresses, each with its longest prefix.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prefixes {
    nets: Vec<IpNet>,
    /// By prefix: one more than the last prefix inside it.
    ends: Vec<u32>,
    v4: Ranges,
    v6: Ranges,
}

/// Where ranges begin, sorted, and what holds the addresses from there to the next beginning.
#[derive(Debug, Clone, Default)]
struct Ranges {
    starts: Vec<u128>,
    classes: Vec<AddressClass>,
}

impl Ranges {
    /// The last one added counts where several begin at one address.
    fn begin(&mut self, start: u128, class: AddressClass) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.classes.pop();
        }
        if self.classes.last() != Some(&class) {
            self.starts.push(start);
            self.classes.push(class);
        }
    }

    fn find(&self, address: u128) -> AddressClass {
        let after = self.starts.partition_point(|start| *start <= address);
        let at = after.checked_sub(1);
        at.and_then(|at| self.classes.get(at).copied()).unwrap_or(AddressClass::OUTSIDE)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Prefixes {
    pub(crate) fn new(nets: impl IntoIterator<Item = IpNet>) -> Self {
        let mut nets: Vec<IpNet> = nets.into_iter().map(|net| net.trunc()).collect();
        // Parents come right before what is inside them.
        nets.sort_by_key(|net| (net.addr().is_ipv6(), number(net.network()), net.prefix_len()));
        nets.dedup();
        let mut prefixes = Self { ends: vec![0; nets.len()], ..Self::default() };
        // The prefixes that hold the current place, outermost first.
        let mut open: Vec<u32> = Vec::new();
        for (at, net) in nets.iter().enumerate() {
            let id = u32::try_from(at).unwrap_or(u32::MAX);
            prefixes.close(&nets, &mut open, id, Some(net));
            prefixes.ranges(net).begin(number(net.network()), AddressClass(id));
            open.push(id);
        }
        let count = u32::try_from(nets.len()).unwrap_or(u32::MAX);
        prefixes.close(&nets, &mut open, count, None);
        prefixes.nets = nets;
        prefixes
    }

    /// Ends the open prefixes that do not hold `next`, which has the number `next_id`.
    fn close(&mut self, nets: &[IpNet], open: &mut Vec<u32>, next_id: u32, next: Option<&IpNet>) {
        while let Some(&inner) = open.last() {
            let Some(net) = nets.get(inner as usize) else { return };
            if next.is_some_and(|next| net.contains(next)) {
                return;
            }
            open.pop();
            if let Some(end) = self.ends.get_mut(inner as usize) {
                *end = next_id;
            }
            let class = open.last().map_or(AddressClass::OUTSIDE, |outer| AddressClass(*outer));
            let last = number(net.broadcast());
            let family_end = if net.addr().is_ipv6() { u128::MAX } else { u128::from(u32::MAX) };
            if last != family_end {
                self.ranges(net).begin(last + 1, class);
            }
        }
    }

    const fn ranges(&mut self, net: &IpNet) -> &mut Ranges {
        match net {
            IpNet::V4(_) => &mut self.v4,
            IpNet::V6(_) => &mut self.v6,
        }
    }

    /// The number of a block that the table was made from.
    pub(crate) fn id(&self, net: &IpNet) -> Option<PrefixId> {
        let key = |net: &IpNet| (net.addr().is_ipv6(), number(net.network()), net.prefix_len());
        let at = self.nets.binary_search_by_key(&key(&net.trunc()), key).ok()?;
        u32::try_from(at).ok().map(PrefixId)
    }

    /// The block with this number, without the bits behind its prefix.
    pub(crate) fn net(&self, id: PrefixId) -> Option<&IpNet> {
        self.nets.get(id.0 as usize)
    }

    /// All blocks.
    pub(crate) fn nets(&self) -> &[IpNet] {
        &self.nets
    }

    /// Whether there is no block at all.
    pub(crate) const fn is_empty(&self) -> bool {
        self.nets.is_empty()
    }

    /// Which blocks hold the address. IPv4 in IPv6 counts as IPv4.
    pub(crate) fn class(&self, address: IpAddr) -> AddressClass {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.find(u128::from(address.to_bits())),
            IpAddr::V6(address) => self.v6.find(address.to_bits()),
        }
    }

    /// The same for all addresses of a range; `None` where they differ.
    pub(crate) fn class_of(&self, range: &IpNet) -> Option<AddressClass> {
        let (first, last) = (self.class(range.network()), self.class(range.broadcast()));
        // Blocks are prefixes as the range is: one that ends within the range lies in it whole.
        let divides = |net: &IpNet| net.prefix_len() > range.prefix_len() && range.contains(net);
        (first == last && !self.nets.iter().any(divides)).then_some(first)
    }

    /// What is inside one of the blocks `inside` and in none of `outside`; all of them are in the table.
    pub(crate) fn classes(&self, inside: &[IpNet], outside: &[IpNet]) -> ClassSet {
        let mut ranges = self.merged(inside);
        for (from, to) in self.merged(outside) {
            let cut = |(first, end): (u32, u32)| [(first, end.min(from)), (first.max(to), end)];
            let rest = ranges.into_iter().flat_map(|range| match range {
                (first, end) if end <= from || to <= first => [range, (0, 0)],
                range => cut(range),
            });
            ranges = rest.filter(|(first, end)| first < end).collect();
        }
        ClassSet { ranges }
    }

    /// The prefixes inside these blocks, as sorted ranges of their numbers.
    fn merged(&self, nets: &[IpNet]) -> Vec<(u32, u32)> {
        let range = |net: &IpNet| {
            let id = self.id(net)?;
            Some((id.0, self.ends.get(id.0 as usize).copied()?))
        };
        let mut ranges: Vec<(u32, u32)> = nets.iter().filter_map(range).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (first, end) in ranges {
            match merged.last_mut() {
                Some(last) if first <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((first, end)),
            }
        }
        merged
    }

    /// Whether a block holds the addresses of a class.
    pub(crate) fn holds(&self, block: PrefixId, class: AddressClass) -> bool {
        let end = self.ends.get(block.0 as usize).copied().unwrap_or_default();
        (block.0..end).contains(&class.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Few distinct bits, so that random blocks nest, touch and repeat.
    fn any_net() -> impl Strategy<Value = IpNet> {
        let v4 = (0u32..=32, prop::bits::u32::masked(0xC000_0203)).prop_map(|(length, bits)| {
            IpNet::new(IpAddr::V4(bits.into()), u8::try_from(length).unwrap()).unwrap()
        });
        let v6 = (0u32..=128, prop::bits::u64::masked(0xC000_0203), any::<bool>()).prop_map(
            |(length, bits, high)| {
                let bits = if high { u128::from(bits) << 96 } else { u128::from(bits) };
                IpNet::new(IpAddr::V6(bits.into()), u8::try_from(length).unwrap()).unwrap()
            },
        );
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn a_block_holds_an_address_exactly_where_the_naive_comparison_says_so(
            nets in prop::collection::vec(any_net(), 0..24), extra in any_net(),
        ) {
            let prefixes = Prefixes::new(nets.iter().copied());
            // The edges of every block are where mistakes hide.
            let neighbours = |net: &IpNet| {
                let step = |address: IpAddr, up: bool| match address {
                    IpAddr::V4(a) if up => IpAddr::V4(a.to_bits().wrapping_add(1).into()),
                    IpAddr::V4(a) => IpAddr::V4(a.to_bits().wrapping_sub(1).into()),
                    IpAddr::V6(a) if up => IpAddr::V6(a.to_bits().wrapping_add(1).into()),
                    IpAddr::V6(a) => IpAddr::V6(a.to_bits().wrapping_sub(1).into()),
                };
                let (first, last) = (net.network(), net.broadcast());
                [first, last, net.addr(), step(first, false), step(last, true)]
            };
            for address in nets.iter().chain([&extra]).flat_map(neighbours) {
                let class = prefixes.class(address);
                for net in &nets {
                    let id = prefixes.id(net).unwrap();
                    let canonical = address.to_canonical();
                    prop_assert_eq!(prefixes.holds(id, class), net.contains(&canonical), "{} in {}", address, net);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_set_holds_what_is_in_one_of_its_blocks_and_in_no_exception(
            inside in prop::collection::vec(any_net(), 0..12), outside in prop::collection::vec(any_net(), 0..6),
        ) {
            let prefixes = Prefixes::new(inside.iter().chain(&outside).copied());
            let set = prefixes.classes(&inside, &outside);
            for address in inside.iter().chain(&outside).flat_map(|net| [net.network(), net.broadcast(), net.addr()]) {
                let held = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address.to_canonical()));
                prop_assert_eq!(set.holds(prefixes.class(address)), held(&inside) && !held(&outside), "{}", address);
            }
            prop_assert!(!set.holds(AddressClass::MISSING) && !set.holds(AddressClass::OUTSIDE));
        }
    }

    #[test]
    fn no_block_holds_what_is_missing_or_ignored() {
        let prefixes = Prefixes::new(["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]);
        let all = prefixes.id(&"0.0.0.0/0".parse().unwrap()).unwrap();
        assert!(prefixes.holds(all, prefixes.class("192.0.2.1".parse().unwrap())));
        assert!(prefixes.holds(all, prefixes.class("::ffff:192.0.2.1".parse().unwrap())));
        assert!(!prefixes.holds(all, prefixes.class("2001:db8::1".parse().unwrap())));
        for class in [AddressClass::MISSING, AddressClass::IGNORED, AddressClass::OUTSIDE] {
            assert!(!prefixes.holds(all, class));
        }
    }
}
