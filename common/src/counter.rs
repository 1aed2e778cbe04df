//! What the kernel side counts beside edges: losses, lateness, and packets that nobody judges.

/// One slot of the per-CPU counter array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// The packet ends inside a header that we must read.
    Truncated,
    /// A header contradicts itself: version, header length, total length.
    Malformed,
    /// More IPv6 extension headers or VLAN tags than we follow.
    ChainTooLong,
    /// A later fragment whose first we did not see, or no longer know: it has no ports, so no edge can be named.
    LaterFragment,
    /// The edge map had no room for a new edge: packets.
    EdgeMapFull,
    /// The same, packets that would have opened a connection: at most so many edges were lost.
    EdgeMapFullOpening,
    /// The kernel refused the insert for another reason: packets.
    EdgeInsertFailed,
    /// The same, packets that would have opened a connection.
    EdgeInsertFailedOpening,
    /// The budget for what a pod opens was spent: attempts that went to its overflow edge.
    OverBudgetOpened,
    /// The same for what the cluster opens to a pod.
    OverBudgetCluster,
    /// The same for what is opened to a pod from outside.
    OverBudgetOutside,
    /// A packet of a connection whose opening we did not see, and that ends one or says that there is none: a reset,
    /// or a FIN of a connection of which no packet was seen before.
    Orphan,
    /// The orphan table had no room: packets of a connection whose opening we did not see.
    OrphanTableFull,
    /// The same: its interface has too many of them.
    OrphanBudgetSpent,
    /// A reply whose request we did not see.
    OrphanReply,
    /// The ring buffer was full: the edge is in the map and will be read later. Late, not lost.
    Late,
    /// Not IP: ARP, LLDP …
    NotIp,
    /// To or from a group: multicast, broadcast.
    Group,
    /// ICMPv6 neighbour discovery (RFC 4861).
    NeighbourDiscovery,
    /// ICMPv6 multicast listener discovery (RFC 2710, RFC 3810).
    ListenerDiscovery,
    /// DHCP and DHCPv6.
    Dhcp,
    /// An IP protocol that is none of TCP, UDP, SCTP, ICMP, ICMPv6.
    OtherProtocol,
    /// ICMP that is neither an echo nor an error: policies do not speak of it.
    OtherIcmp,
    /// An ICMP error that quotes no packet of an edge that is known here.
    ErrorOfNoEdge,
}

/// Whether a counter says that something was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Packets were not accounted to an edge.
    LostPackets,
    /// Packets that would have made an edge: an upper bound for lost edges. Where the packets were lost too, the
    /// counter before it has them.
    LostEdges,
    /// Nothing was lost: the agent learns of it later.
    Late,
    /// Nothing was lost: nobody judges such packets.
    NotJudged,
}

impl Counter {
    /// How many counters there are: the size of the array.
    pub const COUNT: u32 = Self::ErrorOfNoEdge as u32 + 1;

    /// Every counter, in the order of the array.
    pub const ALL: [Self; Self::COUNT as usize] = [
        Self::Truncated,
        Self::Malformed,
        Self::ChainTooLong,
        Self::LaterFragment,
        Self::EdgeMapFull,
        Self::EdgeMapFullOpening,
        Self::EdgeInsertFailed,
        Self::EdgeInsertFailedOpening,
        Self::OverBudgetOpened,
        Self::OverBudgetCluster,
        Self::OverBudgetOutside,
        Self::Orphan,
        Self::OrphanTableFull,
        Self::OrphanBudgetSpent,
        Self::OrphanReply,
        Self::Late,
        Self::NotIp,
        Self::Group,
        Self::NeighbourDiscovery,
        Self::ListenerDiscovery,
        Self::Dhcp,
        Self::OtherProtocol,
        Self::OtherIcmp,
        Self::ErrorOfNoEdge,
    ];

    /// The slot in the array.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// Where it happened, as the label `stage` says it.
    pub const fn stage(self) -> &'static str {
        match self {
            Self::Truncated | Self::Malformed | Self::ChainTooLong | Self::LaterFragment => "parse",
            Self::EdgeMapFull
            | Self::EdgeMapFullOpening
            | Self::EdgeInsertFailed
            | Self::EdgeInsertFailedOpening => "edge-map",
            Self::OverBudgetOpened | Self::OverBudgetCluster | Self::OverBudgetOutside => "budget",
            Self::Orphan | Self::OrphanTableFull | Self::OrphanBudgetSpent | Self::OrphanReply => "orphan",
            Self::Late => "ring",
            Self::NotIp
            | Self::Group
            | Self::NeighbourDiscovery
            | Self::ListenerDiscovery
            | Self::Dhcp
            | Self::OtherProtocol
            | Self::OtherIcmp
            | Self::ErrorOfNoEdge => "not-judged",
        }
    }

    /// Why, as the label `reason` says it.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::ChainTooLong => "chain-too-long",
            Self::LaterFragment => "later-fragment",
            Self::EdgeMapFull | Self::EdgeMapFullOpening | Self::OrphanTableFull | Self::Late => "full",
            Self::OrphanBudgetSpent => "budget-spent",
            Self::EdgeInsertFailed | Self::EdgeInsertFailedOpening => "insert-failed",
            Self::OverBudgetOpened => "opened",
            Self::OverBudgetCluster => "cluster",
            Self::OverBudgetOutside => "outside",
            Self::Orphan => "opening-not-seen",
            Self::OrphanReply => "request-not-seen",
            Self::NotIp => "not-ip",
            Self::Group => "multicast-or-broadcast",
            Self::NeighbourDiscovery => "neighbour-discovery",
            Self::ListenerDiscovery => "listener-discovery",
            Self::Dhcp => "dhcp",
            Self::OtherProtocol => "other-protocol",
            Self::OtherIcmp => "other-icmp",
            Self::ErrorOfNoEdge => "error-of-no-edge",
        }
    }

    /// What it says about completeness.
    pub const fn meaning(self) -> Meaning {
        match self {
            Self::Truncated
            | Self::Malformed
            | Self::ChainTooLong
            | Self::LaterFragment
            | Self::EdgeMapFull
            | Self::EdgeInsertFailed
            | Self::Orphan
            | Self::OrphanTableFull
            | Self::OrphanBudgetSpent
            | Self::OrphanReply => Meaning::LostPackets,
            Self::EdgeMapFullOpening
            | Self::EdgeInsertFailedOpening
            | Self::OverBudgetOpened
            | Self::OverBudgetCluster
            | Self::OverBudgetOutside => Meaning::LostEdges,
            Self::Late => Meaning::Late,
            Self::NotIp
            | Self::Group
            | Self::NeighbourDiscovery
            | Self::ListenerDiscovery
            | Self::Dhcp
            | Self::OtherProtocol
            | Self::OtherIcmp
            | Self::ErrorOfNoEdge => Meaning::NotJudged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_the_order_of_the_array() {
        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(counter.index() as usize, index, "{counter:?}");
        }
    }

    #[test]
    fn a_lost_edges_counter_follows_the_packets_counter_of_its_reason_if_packets_were_lost() {
        for pair in Counter::ALL.windows(2) {
            if let [before, counter] = pair
                && counter.meaning() == Meaning::LostEdges
                && counter.stage() != "budget"
            {
                assert_eq!((before.stage(), before.reason()), (counter.stage(), counter.reason()));
                assert_eq!(before.meaning(), Meaning::LostPackets);
            }
        }
    }
}
