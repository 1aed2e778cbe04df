//! What bounds the number of edges: budgets of each interface, and ranges of addresses that share an edge.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;

use aya::maps::MapData;
use dryfence_common::address::{BLOCK_WORDS, block, from_ip};
use dryfence_common::edge::{Account, Kind, Range};
use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::settings::Settings;
use super::syscall::{self, Prefix, Present};
use crate::model::folding::{Folding, Foldings};

/// The kernel's maps that bound the number of edges.
pub struct Bounds {
    made: MapData,
    allowed: MapData,
    ranges: MapData,
    blocks: MapData,
    budgets: [u32; 3],
    /// Edges that left, less those that the agent made, by whose they are.
    freed: FxHashMap<Account, i64>,
    /// What is in the kernel's map of ranges.
    written: Foldings,
    /// What is in the kernel's map of blocks.
    noted: Vec<u64>,
}

impl Bounds {
    /// From the maps `MADE`, `ALLOWED`, `RANGES` and `BLOCKS`.
    pub(super) fn new([made, allowed, ranges, blocks]: [MapData; 4], settings: &Settings) -> Self {
        Self {
            made,
            allowed,
            ranges,
            blocks,
            budgets: [settings.budget_opened, settings.budget_cluster, settings.budget_outside],
            freed: FxHashMap::default(),
            written: Foldings::default(),
            noted: vec![0; BLOCK_WORDS as usize],
        }
    }

    /// How many edges an account may have; 0 for a kind that does not exist.
    pub(super) fn budget(&self, account: &Account) -> u64 {
        self.budgets.get(account.kind as usize).copied().map_or(0, u64::from)
    }

    /// Notes that edges left: as many new ones have room.
    pub(super) fn free(&mut self, account: Account, edges: u64) -> io::Result<()> {
        *self.freed.entry(account).or_default() += i64::try_from(edges).unwrap_or(i64::MAX);
        self.allow(account)
    }

    /// Notes that the agent made an edge. The programs alone write what they made.
    pub(super) fn charge(&mut self, account: Account) -> io::Result<()> {
        *self.freed.entry(account).or_default() -= 1;
        self.allow(account)
    }

    fn allow(&self, account: Account) -> io::Result<()> {
        syscall::update(self.allowed.fd().as_fd(), &account, &self.allowed(&account), Present::Replace)
    }

    fn allowed(&self, account: &Account) -> u64 {
        self.budget(account).saturating_add_signed(self.freed.get(account).copied().unwrap_or(0))
    }

    /// Whether another edge may be made.
    pub(super) fn has_room(&self, account: &Account) -> io::Result<bool> {
        let made = syscall::lookup::<_, u64>(self.made.fd().as_fd(), account)?.unwrap_or(0);
        Ok(made < self.allowed(account))
    }

    /// How the programs key an address: the range that stands for it, if one does, and whether it is outside the
    /// cluster.
    pub(super) fn place(&self, address: IpAddr) -> (Option<IpNet>, bool) {
        self.written.place(address)
    }

    /// Forgets an interface that is gone, so that the next of its number begins with nothing spent.
    pub(super) fn forget(&mut self, interface: u32) -> io::Result<()> {
        for kind in Kind::ALL {
            let account = Account { interface, kind: kind as u32 };
            self.freed.remove(&account);
            syscall::delete(self.allowed.fd().as_fd(), &account)?;
            syscall::delete(self.made.fd().as_fd(), &account)?;
        }
        Ok(())
    }

    /// Has addresses keyed so from now on, and none other folded. Edges that are there stay as they are keyed.
    ///
    /// # Errors
    ///
    /// The kernel refuses a range. Those that are written stay.
    pub fn fold(&mut self, ranges: &Foldings) -> io::Result<()> {
        let result = self.write(ranges);
        if result.is_err() {
            // Rather an edge for each address than a pod's address folded, whose own range may be what is missing.
            let folded: Vec<IpNet> =
                self.written.iter().filter(|(_, folding)| folding.outside).map(|(net, _)| *net).collect();
            folded.iter().try_for_each(|net| self.remove(net))?;
        }
        self.note_blocks()?;
        result
    }

    /// Tells the programs where to look for ranges at all. After those: till then, addresses are keyed as they are.
    fn note_blocks(&mut self) -> io::Result<()> {
        for (word, (noted, wanted)) in (0_u32..).zip(self.noted.iter_mut().zip(blocks(&self.written))) {
            if *noted != wanted {
                syscall::update(self.blocks.fd().as_fd(), &word, &wanted, Present::Replace)?;
                *noted = wanted;
            }
        }
        Ok(())
    }

    fn write(&mut self, wanted: &Foldings) -> io::Result<()> {
        let mut new: Vec<(IpNet, Folding)> = wanted
            .iter()
            .filter(|(net, to)| self.written.get(net) != Some(to))
            .map(|(n, f)| (*n, *f))
            .collect();
        // The cluster's own first, the outside last: what is not written yet is not folded.
        new.sort_by_key(|(net, folding)| (folding.outside, std::cmp::Reverse(net.prefix_len())));
        for (net, folding) in new {
            syscall::update(
                self.ranges.fd().as_fd(),
                &prefix(&net),
                &range(&net, folding),
                Present::Replace,
            )?;
            self.written.insert(net, folding);
        }
        let written = self.written.iter().map(|(net, _)| *net);
        let gone: Vec<IpNet> = written.filter(|net| wanted.get(net).is_none()).collect();
        gone.iter().try_for_each(|net| self.remove(net))
    }

    fn remove(&mut self, net: &IpNet) -> io::Result<()> {
        syscall::delete(self.ranges.fd().as_fd(), &prefix(net))?;
        self.written.remove(net);
        Ok(())
    }
}

/// A bit for each block of addresses in which a range says more of some than that they are the cluster's.
fn blocks(ranges: &Foldings) -> Vec<u64> {
    let mut nets: Vec<_> = ranges.iter().collect();
    nets.sort_unstable_by_key(|(net, _)| net.prefix_len());
    let mut words = vec![0; BLOCK_WORDS as usize];
    for (net, folding) in nets {
        let says_more = folding.outside || folding.length < net.max_prefix_len();
        let first = block(&from_ip(net.network()));
        let is_whole = net.prefix_len() <= BLOCK_BITS;
        let count = if is_whole { 1 << (BLOCK_BITS - net.prefix_len()) } else { 1 };
        for block in first..first + count {
            let Some(word) = words.get_mut(block as usize / 64) else { continue };
            let bit = 1_u64 << (block % 64);
            if says_more {
                *word |= bit;
            } else if is_whole {
                *word &= !bit;
            }
        }
    }
    words
}

/// Addresses of a block have so many bits in common.
const BLOCK_BITS: u8 = 16;

/// The bits of an IPv4 address begin at this one once it is mapped.
const MAPPED: u8 = 96;

fn prefix(net: &IpNet) -> Prefix {
    let before = if net.addr().is_ipv4() { MAPPED } else { 0 };
    Prefix { length: u32::from(before + net.prefix_len()), address: from_ip(net.network()) }
}

fn range(net: &IpNet, Folding { length, outside }: Folding) -> Range {
    let before = if net.addr().is_ipv4() { MAPPED } else { 0 };
    Range { length: (before + length).min(128), outside: u8::from(outside), padding: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_with_an_address_that_folds_or_is_outside_are_noted() {
        let folding = |length, outside| Folding { length, outside };
        let ranges: Foldings = [
            ("0.0.0.0/0", folding(24, true)),
            ("10.0.0.0/8", folding(32, false)),
            ("10.1.2.0/24", folding(32, true)),
            ("172.16.0.0/12", folding(32, false)),
            ("192.0.2.0/24", folding(32, false)),
            ("::/0", folding(64, true)),
            ("fd00::/8", folding(128, false)),
            ("2001:db8::/32", folding(128, false)),
        ]
        .into_iter()
        .map(|(net, to)| (net.parse().unwrap(), to))
        .collect();
        let is_noted = |words: &[u64], address: &str| {
            let block = block(&from_ip(address.parse().unwrap()));
            words[block as usize / 64] >> (block % 64) & 1 != 0
        };
        let words = blocks(&ranges);
        for (address, expected) in [
            ("8.8.8.8", true),
            ("255.255.0.1", true),
            ("10.0.0.1", false),
            ("10.1.9.9", true),
            ("10.255.0.1", false),
            ("172.31.0.1", false),
            ("172.32.0.1", true),
            ("192.0.2.1", true),
            ("fd00::1", false),
            ("fdff::1", false),
            ("fe00::1", true),
            ("::1", true),
            ("2001:db8::1", true),
            ("ffff::1", true),
        ] {
            assert_eq!(is_noted(&words, address), expected, "{address}");
        }
        let inside = ranges.iter().filter(|(_, folding)| !folding.outside).map(|(net, to)| (*net, *to));
        assert!(blocks(&inside.collect()).iter().all(|word| *word == 0));
    }
}
