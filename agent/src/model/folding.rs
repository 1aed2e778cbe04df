//! Which addresses share an edge.

use std::net::IpAddr;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

/// How the addresses of a range are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Folding {
    /// The length of the prefix that stands for each address, in the bits of its family.
    pub length: u8,
    /// Whether the range is outside the cluster.
    pub outside: bool,
}

/// How addresses are kept apart: by the longest range that holds one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foldings(FxHashMap<IpNet, Folding>);

impl Foldings {
    /// The range that stands for an address, if one does, and whether the address is outside the cluster.
    pub fn place(&self, address: IpAddr) -> (Option<IpNet>, bool) {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let net = |length| IpNet::new(address, length).ok().map(|net| net.trunc());
        let longest = (0..=bits).rev().find_map(|length| self.0.get(&net(length)?));
        let Some(Folding { length, outside }) = longest.copied() else { return (None, false) };
        // As the programs do: a prefix of all bits, or of none of 128, stands for nothing.
        let folds = length < bits && (length > 0 || address.is_ipv4());
        (if folds { net(length) } else { None }, outside)
    }

    pub fn get(&self, net: &IpNet) -> Option<&Folding> {
        self.0.get(net)
    }

    /// Each range once, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&IpNet, &Folding)> {
        self.0.iter()
    }

    pub fn insert(&mut self, net: IpNet, folding: Folding) {
        self.0.insert(net, folding);
    }

    pub fn remove(&mut self, net: &IpNet) {
        self.0.remove(net);
    }
}

impl FromIterator<(IpNet, Folding)> for Foldings {
    fn from_iter<T: IntoIterator<Item = (IpNet, Folding)>>(ranges: T) -> Self {
        Self(ranges.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_placed_as_the_programs_do_it() {
        let folding = |length, outside| Folding { length, outside };
        let foldings: Foldings = [
            ("0.0.0.0/0", folding(24, true)),
            ("10.0.0.0/8", folding(32, false)),
            ("203.0.113.0/24", folding(32, true)),
            ("198.51.100.0/25", folding(26, true)),
            ("::/0", folding(48, true)),
            ("fd00::/8", folding(128, false)),
        ]
        .into_iter()
        .map(|(net, to)| (net.parse().unwrap(), to))
        .collect();
        let rows = [
            ("192.0.2.77", Some("192.0.2.0/24"), true),
            ("10.1.2.3", None, false),
            ("203.0.113.9", None, true),
            ("198.51.100.70", Some("198.51.100.64/26"), true),
            ("2001:db8:1:2::3", Some("2001:db8:1::/48"), true),
            ("fd00::1", None, false),
        ];
        for (address, net, outside) in rows {
            let net = net.map(|net| net.parse().unwrap());
            assert_eq!(foldings.place(address.parse().unwrap()), (net, outside), "{address}");
        }
        assert_eq!(Foldings::default().place("192.0.2.77".parse().unwrap()), (None, false));
    }
}
