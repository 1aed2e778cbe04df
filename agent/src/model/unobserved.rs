//! Why what a pod does is not seen.

/// Why what a pod of this node opens, and what is opened to it, is not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unobserved {
    /// Nothing on the node leads to it alone: ipvlan, macvlan, SR-IOV, host-device.
    NoInterface,
    /// It may be behind one of the interfaces of which nothing was seen yet: its node routes to a bridge.
    Unconfirmed,
    /// The user excludes the name of its interface.
    Excluded,
    /// Its interface looks like the node's own: the default route leaves through it, or it is in a subnet.
    NodesOwn,
    /// The programs cannot be attached to its interface.
    AttachFailed,
    /// It has no network of its own: its node's connections are not told apart from its own.
    HostNetwork,
}

impl Unobserved {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::NoInterface,
        Self::Unconfirmed,
        Self::Excluded,
        Self::NodesOwn,
        Self::AttachFailed,
        Self::HostNetwork,
    ];

    /// As metrics have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoInterface => "no-interface",
            Self::Unconfirmed => "unconfirmed",
            Self::Excluded => "excluded",
            Self::NodesOwn => "nodes-own",
            Self::AttachFailed => "attach-failed",
            Self::HostNetwork => "host-network",
        }
    }
}
