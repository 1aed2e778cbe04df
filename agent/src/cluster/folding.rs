//! Which addresses outside the cluster are counted together, so that an internet-facing pod does not get an edge
//! for each visitor.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::model::endpoint::PRIVATE;
use crate::model::folding::{Folding, Foldings};

/// Length of the prefix that stands for an outside IPv4 address: what is announced to the internet is no smaller.
const V4: u8 = 24;
/// The same for IPv6: one network, of one subscriber at most (RFC 6177).
const V6: u8 = 64;

/// How addresses are kept apart: by the longest range that holds one.
///
/// `inside` are the cluster's own ranges and addresses. `blocks` are those that policies and segment maps name: a
/// /24 (IPv6: /64) that holds a smaller one is kept apart by as many bits as the smallest in it has. Private
/// addresses are inside whatever is known of the cluster: pods nearly always live there, and a pod's address that is
/// not known yet must not be folded.
pub fn foldings(
    inside: impl IntoIterator<Item = IpNet>,
    blocks: impl IntoIterator<Item = IpNet>,
) -> Foldings {
    let mut keyed = BTreeMap::new();
    for (any, length) in [("0.0.0.0/0", V4), ("::/0", V6)] {
        keyed.extend(any.parse().ok().map(|net: IpNet| (net, Folding { length, outside: true })));
    }
    for block in blocks {
        let whole = if block.addr().is_ipv4() { V4 } else { V6 };
        if block.prefix_len() > whole
            && let Ok(net) = IpNet::new(block.addr(), whole)
        {
            let longest = keyed.entry(net.trunc()).or_insert(Folding { length: whole, outside: true });
            longest.length = longest.length.max(block.prefix_len());
        }
    }
    let private = PRIVATE.iter().filter_map(|net| net.parse().ok());
    for net in private.chain(inside) {
        keyed.insert(net.trunc(), Folding { length: net.max_prefix_len(), outside: false });
    }
    // What was named inside the cluster would win there, as the longer one.
    let wide = |net: &IpNet| net.prefix_len() <= if net.addr().is_ipv4() { V4 } else { V6 };
    let own = keyed.iter().filter(|(net, keyed)| !keyed.outside && wide(net)).map(|(net, _)| *net);
    let own = IpNet::aggregate(&own.collect());
    keyed.retain(|net, keyed| !keyed.outside || !own.iter().any(|own| own.contains(net)));
    keyed.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// The prefix that stands for an address, and whether it is outside.
    fn keyed(foldings: &Foldings, address: &str) -> (String, bool) {
        let address: IpAddr = address.parse().unwrap();
        let (range, outside) = foldings.place(address);
        (range.unwrap_or(address.into()).to_string(), outside)
    }

    #[test]
    fn outside_addresses_are_folded_and_what_may_be_the_clusters_never_is() {
        let foldings = foldings(nets(&["198.51.100.0/24", "2001:db8:a::/48", "203.0.113.9/32"]), []);
        for (address, network, outside) in [
            ("8.8.8.8", "8.8.8.0/24", true),
            ("2001:4860:1:2:3::1", "2001:4860:1:2::/64", true),
            ("203.0.113.10", "203.0.113.0/24", true),
            ("203.0.113.9", "203.0.113.9/32", false),
            ("198.51.100.7", "198.51.100.7/32", false),
            ("2001:db8:a:1::9", "2001:db8:a:1::9/128", false),
            ("10.1.2.3", "10.1.2.3/32", false),
            ("100.64.1.1", "100.64.1.1/32", false),
            ("169.254.169.254", "169.254.169.254/32", false),
            ("fd00::1", "fd00::1/128", false),
        ] {
            assert_eq!(keyed(&foldings, address), (network.to_owned(), outside), "{address}");
        }
    }

    #[test]
    fn addresses_are_kept_apart_as_finely_as_a_block_among_them_needs() {
        let blocks = nets(&[
            "0.0.0.0/0",
            "192.0.2.0/25",
            "192.0.2.8/29",
            "203.0.0.0/16",
            "10.0.0.1/32",
            "2001:db8::/96",
            "2001:db8:1::/48",
        ]);
        let foldings = foldings([], blocks);
        for (address, network) in [
            ("192.0.2.9", "192.0.2.8/29"),
            ("192.0.2.201", "192.0.2.200/29"),
            ("203.0.113.7", "203.0.113.0/24"),
            ("10.0.0.9", "10.0.0.9/32"),
            ("2001:db8::1:0:9", "2001:db8::1:0:0/96"),
            ("2001:db8:1::9", "2001:db8:1::/64"),
        ] {
            assert_eq!(keyed(&foldings, address).0, network, "{address}");
        }
    }
}
