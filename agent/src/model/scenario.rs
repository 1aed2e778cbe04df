//! Scenarios: named sets of policies to judge by.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::edge::Direction;

/// What `default-deny` assumes will be allowed besides the policies that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Assumption {
    /// Port 53, UDP and TCP, to the cluster's DNS.
    Dns,
    /// From metrics scrapers (Prometheus and the like) to any port.
    Metrics,
    /// From ingress controllers to any port.
    Ingress,
}

impl Assumption {
    pub const ALL: [Self; 3] = [Self::Dns, Self::Metrics, Self::Ingress];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Metrics => "metrics",
            Self::Ingress => "ingress",
        }
    }
}

impl fmt::Display for Assumption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An assumption that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is none of dns, metrics, ingress")]
pub struct UnknownAssumption(pub String);

impl FromStr for Assumption {
    type Err = UnknownAssumption;

    fn from_str(name: &str) -> Result<Self, UnknownAssumption> {
        let known = Self::ALL.into_iter().find(|assumption| assumption.as_str() == name);
        known.ok_or_else(|| UnknownAssumption(name.to_owned()))
    }
}

/// The scenario in which every namespace in scope also gets a deny-all policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DefaultDeny {
    /// Which directions are denied; both by default.
    pub directions: Vec<Direction>,
    /// What is assumed allowed besides; `dns` by default.
    pub assume: Vec<Assumption>,
    /// Namespaces that get no deny-all; `kube-system` by default.
    pub exempt_namespaces: Vec<Arc<str>>,
}

impl Default for DefaultDeny {
    fn default() -> Self {
        Self {
            directions: Direction::BOTH.to_vec(),
            assume: vec![Assumption::Dns],
            exempt_namespaces: vec!["kube-system".into()],
        }
    }
}

/// A named set of policies to judge by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scenario {
    /// The policies that the source holds now.
    Enforced,
    /// Those, and a deny-all in every namespace in scope.
    DefaultDeny(DefaultDeny),
    /// The policies in force, edited by the candidates of one change set.
    ChangeSet(ChangeSet),
}

/// The name of a change set. Names are few and are kept for the life of the process, so that labels can be compared
/// and copied as those of the other scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChangeSet(&'static str);

/// So many different names are kept. Further ones are not judged by.
const MOST_NAMES: usize = 1024;

/// Names of scenarios that are no change sets.
const OTHERS: [&str; 2] = ["enforced", "default-deny"];

/// Whether a change set may be called so: a DNS label (RFC 1123), and no other scenario's name.
pub fn is_change_set_name(name: &str) -> bool {
    let is_inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = (1..=63).contains(&name.len())
        && name.bytes().all(is_inside)
        && !name.starts_with('-')
        && !name.ends_with('-');
    is_label && !OTHERS.contains(&name)
}

impl ChangeSet {
    /// The change set of that name; `None` where it may not be called so, or there were too many names already.
    pub fn named(name: &str) -> Option<Self> {
        static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
        // An insertion is whole or did not happen.
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(name) {
            return Some(Self(known));
        }
        if !is_change_set_name(name) || names.len() >= MOST_NAMES {
            return None;
        }
        let kept: &'static str = Box::leak(name.to_owned().into_boxed_str());
        names.insert(kept);
        Some(Self(kept))
    }

    pub const fn name(self) -> &'static str {
        self.0
    }
}

impl Scenario {
    /// The name in reports, labels and filters.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::DefaultDeny(_) => "default-deny",
            Self::ChangeSet(set) => set.name(),
        }
    }
}

impl fmt::Display for Scenario {
    /// The name, and for `default-deny` everything that was assumed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let Self::DefaultDeny(settings) = self else { return Ok(()) };
        let join =
            |items: Vec<String>| if items.is_empty() { "nothing".to_owned() } else { items.join(", ") };
        write!(
            f,
            " (denied: {}; assumed allowed: {}; exempt namespaces: {})",
            join(settings.directions.iter().map(|d| d.as_str().to_lowercase()).collect()),
            join(settings.assume.iter().map(ToString::to_string).collect()),
            join(settings.exempt_namespaces.iter().map(ToString::to_string).collect()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_deny_says_what_it_assumes() {
        assert_eq!(
            Scenario::DefaultDeny(DefaultDeny::default()).to_string(),
            "default-deny (denied: egress, ingress; assumed allowed: dns; exempt namespaces: kube-system)"
        );
        assert_eq!("web".parse::<Assumption>(), Err(UnknownAssumption("web".to_owned())));
    }
}
