//! Sets of addresses: blocks with exceptions and ranges, and the table in which all of a map's are looked up
//! at once.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use crate::model::endpoint::PRIVATE;

/// Consecutive addresses of one family, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Interval {
    v6: bool,
    first: u128,
    last: u128,
}

fn number(address: IpAddr) -> (bool, u128) {
    match address.to_canonical() {
        IpAddr::V4(address) => (false, u128::from(address.to_bits())),
        IpAddr::V6(address) => (true, address.to_bits()),
    }
}

fn address(v6: bool, number: u128) -> IpAddr {
    if v6 {
        return IpAddr::V6(Ipv6Addr::from_bits(number));
    }
    IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)))
}

impl Interval {
    fn of(net: &IpNet) -> Self {
        let ((first_v6, first), (last_v6, last)) = (number(net.network()), number(net.broadcast()));
        if first_v6 == last_v6 {
            return Self { v6: first_v6, first, last };
        }
        // A block that ends where the IPv4-mapped addresses do begins before them.
        let raw = |address| match address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        };
        Self { v6: true, first: raw(net.network()), last: raw(net.broadcast()) }
    }

    /// The fewest blocks that make it up.
    fn blocks(&self) -> Vec<IpNet> {
        match (address(self.v6, self.first), address(self.v6, self.last)) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                Ipv4Subnets::new(first, last, 0).map(IpNet::from).collect()
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                Ipv6Subnets::new(first, last, 0).map(IpNet::from).collect()
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let (v6, number) = number(address);
        v6 == self.v6 && (self.first..=self.last).contains(&number)
    }

    pub(crate) const fn overlaps(&self, other: &Self) -> bool {
        self.v6 == other.v6 && self.first <= other.last && other.first <= self.last
    }

    /// What is left of `self` without `other`: nothing, one part or two.
    fn without(self, other: &Self) -> impl Iterator<Item = Self> {
        let apart = !self.overlaps(other);
        let before = (!apart && self.first < other.first).then(|| Self { last: other.first - 1, ..self });
        let after = (!apart && self.last > other.last).then(|| Self { first: other.last + 1, ..self });
        apart.then_some(self).into_iter().chain(before).chain(after)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (address(self.v6, self.first), address(self.v6, self.last));
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

/// Disjoint intervals in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct AddressSet(Vec<Interval>);

impl AddressSet {
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|interval| interval.contains(address))
    }

    pub(crate) fn intervals(&self) -> &[Interval] {
        &self.0
    }

    /// The first interval that both sets hold in part.
    pub(crate) fn common(&self, other: &Self) -> Option<Interval> {
        self.0.iter().find_map(|one| {
            let other = other.0.iter().find(|other| one.overlaps(other))?;
            Some(Interval { v6: one.v6, first: one.first.max(other.first), last: one.last.min(other.last) })
        })
    }

    /// The blocks that make up the set.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = IpNet> {
        self.0.iter().flat_map(Interval::blocks)
    }

    fn remove(&mut self, block: &Interval) {
        self.0 = self.0.iter().flat_map(|interval| interval.without(block)).collect();
    }

    /// The set without the blocks that are never an address outside the cluster's own networks: private,
    /// shared, link-local and loopback ones (RFC 1918, 6598, 3927, 4193, 4291).
    pub(crate) fn without_private(&self) -> Self {
        let mut public = self.clone();
        for block in PRIVATE {
            if let Ok(net) = block.parse::<IpNet>() {
                public.remove(&Interval::of(&net));
            }
        }
        public
    }
}

/// Why a text is no block of addresses.
fn parse_net(text: &str) -> Result<IpNet, String> {
    if let Ok(net) = text.parse::<IpNet>() {
        return Ok(net);
    }
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => Err(format!("\"{text}\" lacks its prefix length; one address is {text}/32")),
        Ok(IpAddr::V6(_)) => Err(format!("\"{text}\" lacks its prefix length; one address is {text}/128")),
        Err(_) => Err(format!("\"{text}\" is not a block of addresses, as 192.0.2.0/24 is")),
    }
}

/// The addresses of an `ipBlock`. The errors name the field below it: `cidr`, `except[0]`.
pub(crate) fn parse_block(cidr: &str, except: &[String]) -> Result<AddressSet, Vec<(String, String)>> {
    let mut wrong = Vec::new();
    let block = parse_net(cidr).map_err(|message| wrong.push(("cidr".to_owned(), message))).ok();
    let mut set = AddressSet(block.iter().map(Interval::of).collect());
    for (index, text) in except.iter().enumerate() {
        let field = format!("except[{index}]");
        match (parse_net(text), block) {
            (Err(message), _) => wrong.push((field, message)),
            (Ok(_), None) => {}
            (Ok(inner), Some(outer)) if outer.contains(&inner) && outer.prefix_len() < inner.prefix_len() => {
                set.remove(&Interval::of(&inner));
            }
            (Ok(_), Some(_)) => {
                wrong.push((field, format!("{text} is not strictly inside {cidr}, as it has to be")));
            }
        }
    }
    if wrong.is_empty() && set.0.is_empty() {
        wrong.push(("except".to_owned(), format!("nothing is left of {cidr}")));
    }
    if wrong.is_empty() { Ok(set) } else { Err(wrong) }
}

/// The addresses of an `ipRange`: `first-last`, both included; for IPv4, `last` may be the last octet only.
pub(crate) fn parse_range(text: &str) -> Result<AddressSet, String> {
    let form = || format!("\"{text}\" is not first-last, as 192.0.2.0-192.0.2.50 is");
    let (first, last) = text.split_once('-').ok_or_else(form)?;
    let (first, last) = (first.trim(), last.trim());
    let first: IpAddr = first.parse().map_err(|_error| form())?;
    let last: IpAddr = match (first, last.parse::<u8>()) {
        (IpAddr::V4(start), Ok(octet)) => {
            let [a, b, c, _] = start.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, octet))
        }
        _ => last.parse().map_err(|_error| form())?,
    };
    let ((first_v6, low), (last_v6, high)) = (number(first), number(last));
    if first_v6 != last_v6 {
        return Err(format!("\"{text}\" begins in one address family and ends in the other"));
    }
    if low > high {
        return Err(format!("\"{text}\" ends before it begins"));
    }
    Ok(AddressSet(vec![Interval { v6: first_v6, first: low, last: high }]))
}

/// All address sets of a map: an address is looked up once, whatever the number of sets.
#[derive(Debug, Clone, Default)]
pub(crate) struct AddressTable {
    v4: Pieces,
    v6: Pieces,
}

/// Where pieces begin, in order, and the owners of the addresses from there to the next beginning.
#[derive(Debug, Clone, Default)]
struct Pieces {
    starts: Vec<u128>,
    owners: Vec<Vec<usize>>,
}

impl AddressTable {
    /// From sets and their owners, which are numbers of the caller's; one owner may have several sets.
    pub(crate) fn new<'a>(sets: impl IntoIterator<Item = (usize, &'a AddressSet)>) -> Self {
        let all: Vec<(usize, Interval)> = sets
            .into_iter()
            .flat_map(|(owner, set)| set.intervals().iter().map(move |interval| (owner, *interval)))
            .collect();
        let family = |v6: bool| {
            Pieces::new(
                all.iter().filter(|(_, interval)| interval.v6 == v6).map(|(o, i)| (*o, i.first, i.last)),
            )
        };
        Self { v4: family(false), v6: family(true) }
    }

    /// The owners of the sets that hold the address, lowest first. IPv4 in IPv6 counts as IPv4.
    pub(crate) fn owners(&self, address: IpAddr) -> &[usize] {
        let (v6, number) = number(address);
        let pieces = if v6 { &self.v6 } else { &self.v4 };
        let after = pieces.starts.partition_point(|start| *start <= number);
        let piece = after.checked_sub(1).and_then(|at| pieces.owners.get(at));
        piece.map_or(&[], Vec::as_slice)
    }

    /// The owners of the sets that hold an address of the range, lowest first, and whether they hold all of it.
    pub(crate) fn owners_in(&self, range: &IpNet) -> Vec<(usize, bool)> {
        let interval = Interval::of(range);
        let pieces = if interval.v6 { &self.v6 } else { &self.v4 };
        let from = pieces.starts.partition_point(|start| *start <= interval.first);
        let to = pieces.starts.partition_point(|start| *start <= interval.last);
        // The piece that the range begins in, or nobody's addresses before the first.
        let none = Vec::new();
        let first = from.checked_sub(1).and_then(|at| pieces.owners.get(at)).unwrap_or(&none);
        let inside = pieces.owners.get(from..to).unwrap_or_default();
        let parts: Vec<&Vec<usize>> = std::iter::once(first).chain(inside).collect();
        let mut owners: Vec<usize> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        owners.sort_unstable();
        owners.dedup();
        owners.into_iter().map(|at| (at, parts.iter().all(|part| part.contains(&at)))).collect()
    }
}

impl Pieces {
    fn new(intervals: impl Iterator<Item = (usize, u128, u128)>) -> Self {
        // Owners join where an interval begins and leave right after its end; the last address has no after.
        let mut changes: Vec<(u128, bool, usize)> = Vec::new();
        for (owner, first, last) in intervals {
            changes.push((first, true, owner));
            if let Some(after) = last.checked_add(1) {
                changes.push((after, false, owner));
            }
        }
        changes.sort_unstable();
        let mut pieces = Self::default();
        // One entry an interval: an owner's own intervals may overlap.
        let mut open: Vec<usize> = Vec::new();
        for at in changes.chunk_by(|a, b| a.0 == b.0) {
            let Some((start, ..)) = at.first() else { continue };
            for (_, joins, owner) in at {
                if *joins {
                    open.push(*owner);
                } else if let Some(left) = open.iter().position(|open| open == owner) {
                    open.swap_remove(left);
                }
            }
            let mut owners = open.clone();
            owners.sort_unstable();
            owners.dedup();
            pieces.starts.push(*start);
            pieces.owners.push(owners);
        }
        pieces
    }
}

#[cfg(test)]
mod tests;
