//! Dialects: how a CNI reads the parts of a policy API that the standard leaves open.

use std::fmt;
use std::str::FromStr;

/// Named switches, each a question that the standard leaves open. `None`: the dialect does not say, and a
/// verdict that depends on it is `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    name: &'static str,
    /// Whether an `ipBlock` matches the addresses of pods (and of nodes that stand for hostNetwork pods).
    pub ip_block_matches_pods: Option<bool>,
    /// Whether connections from a pod to its own node are judged as egress; if not, they are allowed.
    pub pod_to_own_node_judged: Option<bool>,
    /// Whether connections from a pod's own node are judged as ingress; if not, they are allowed.
    pub own_node_to_pod_judged: Option<bool>,
    /// Whether a rule with ports leaves ICMP of an isolated pod denied.
    pub icmp_needs_rule: Option<bool>,
}

impl Dialect {
    /// What the API's documentation says, read as its conformance tests do.
    pub const STANDARD: Self = Self {
        name: "standard",
        // Kubernetes docs, "NetworkPolicy resource": ipBlock is meant for cluster-external addresses but
        // matches by address; the conformance tests' reference engines match pods too.
        ip_block_matches_pods: Some(true),
        // Kubernetes docs: "traffic to and from the node where a Pod is running is always allowed".
        pod_to_own_node_judged: Some(false),
        own_node_to_pod_judged: Some(false),
        // The API speaks of TCP, UDP and SCTP only.
        icmp_needs_rule: None,
    };

    const NAMED: [Self; 1] = [Self::STANDARD];

    /// The name it was asked for by, without its changed switches.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    fn switches(&self) -> [(&'static str, Option<bool>); 4] {
        [
            ("ip_block_matches_pods", self.ip_block_matches_pods),
            ("pod_to_own_node_judged", self.pod_to_own_node_judged),
            ("own_node_to_pod_judged", self.own_node_to_pod_judged),
            ("icmp_needs_rule", self.icmp_needs_rule),
        ]
    }

    fn set(&mut self, switch: &str, value: bool) -> Result<(), DialectError> {
        let place = match switch {
            "ip_block_matches_pods" => &mut self.ip_block_matches_pods,
            "pod_to_own_node_judged" => &mut self.pod_to_own_node_judged,
            "own_node_to_pod_judged" => &mut self.own_node_to_pod_judged,
            "icmp_needs_rule" => &mut self.icmp_needs_rule,
            _ => {
                let known = self.switches().map(|(name, _)| name).join(", ");
                return Err(DialectError::Switch { switch: switch.to_owned(), known });
            }
        };
        *place = Some(value);
        Ok(())
    }
}

impl Default for Dialect {
    fn default() -> Self {
        Self::STANDARD
    }
}

/// A dialect that cannot be used as it was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialectError {
    #[error("dialect \"{name}\" is none of {known}")]
    Name { name: String, known: String },
    #[error("dialect switch \"{switch}\" is none of {known}")]
    Switch { switch: String, known: String },
    #[error("dialect switch \"{switch}\" must be true or false, not \"{value}\"")]
    Value { switch: String, value: String },
    #[error("\"{item}\" is not switch=value")]
    Form { item: String },
}

impl FromStr for Dialect {
    type Err = DialectError;

    /// Reads `NAME[,switch=true|false…]`.
    fn from_str(text: &str) -> Result<Self, DialectError> {
        let mut items = text.split(',');
        let name = items.next().unwrap_or_default();
        let known = || Self::NAMED.map(|dialect| dialect.name).join(", ");
        let mut dialect = Self::NAMED
            .into_iter()
            .find(|dialect| dialect.name == name)
            .ok_or_else(|| DialectError::Name { name: name.to_owned(), known: known() })?;
        for item in items {
            let (switch, value) =
                item.split_once('=').ok_or_else(|| DialectError::Form { item: item.to_owned() })?;
            let value = match value {
                "true" => true,
                "false" => false,
                _ => {
                    return Err(DialectError::Value { switch: switch.to_owned(), value: value.to_owned() });
                }
            };
            dialect.set(switch, value)?;
        }
        Ok(dialect)
    }
}

impl fmt::Display for Dialect {
    /// The name and the switches that differ from it, in the form that is read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        let base = Self::NAMED.into_iter().find(|dialect| dialect.name == self.name).unwrap_or_default();
        for ((switch, value), (_, usual)) in self.switches().into_iter().zip(base.switches()) {
            if let Some(value) = value.filter(|_| value != usual) {
                write!(f, ",{switch}={value}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_it_is_written() {
        for text in ["standard", "standard,ip_block_matches_pods=false", "standard,icmp_needs_rule=true"] {
            assert_eq!(text.parse::<Dialect>().unwrap().to_string(), text);
        }
        assert_eq!("standard,ip_block_matches_pods=true".parse(), Ok(Dialect::STANDARD));
    }

    #[test]
    fn unknown_names_switches_and_values_are_errors() {
        for (text, message) in [
            ("calicoo", "dialect \"calicoo\" is none of standard"),
            ("", "dialect \"\" is none of standard"),
            ("standard,no_such=true", "dialect switch \"no_such\" is none of ip_block_matches_pods,"),
            (
                "standard,ip_block_matches_pods=yes",
                "dialect switch \"ip_block_matches_pods\" must be true or false",
            ),
            ("standard,ip_block_matches_pods", "\"ip_block_matches_pods\" is not switch=value"),
        ] {
            let error = text.parse::<Dialect>().unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
