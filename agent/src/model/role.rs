//! Roles: what a pod is for, where policies commonly break it.

use std::fmt;

/// A set of well-known roles of a pod. A pod may have several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Roles(u8);

impl Roles {
    pub const NONE: Self = Self(0);
    /// Answers the cluster's DNS queries.
    pub const CLUSTER_DNS: Self = Self(1);
    /// Scrapes metrics (Prometheus, its agents and peers).
    pub const METRICS_SCRAPER: Self = Self(2);
    /// Brings requests from outside into the cluster.
    pub const INGRESS_CONTROLLER: Self = Self(4);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every role of `other` is in this set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::CLUSTER_DNS, "cluster-dns"),
            (Self::METRICS_SCRAPER, "metrics-scraper"),
            (Self::INGRESS_CONTROLLER, "ingress-controller"),
        ];
        let held: Vec<_> = names.iter().filter(|(role, _)| self.has(*role)).map(|(_, name)| *name).collect();
        f.write_str(&held.join(","))
    }
}
