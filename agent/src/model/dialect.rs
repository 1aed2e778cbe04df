//! Dialects: how a CNI, or a mesh, reads the parts of a policy API that the standard leaves open.

use std::fmt;
use std::str::FromStr;

/// Defines the switches once: as fields, by name, and in order.
macro_rules! switches {
    ($($(#[$doc:meta])* $switch:ident),+ $(,)?) => {
        /// Named switches, each a question that the standard leaves open. `None`: the dialect does not say, and a
        /// verdict that depends on it is `Unknown`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct Dialect {
            name: &'static str,
            /// A second dialect laid over the first: that of a mesh.
            over: Option<&'static str>,
            $($(#[$doc])* pub $switch: Option<bool>,)+
        }

        /// The names of all switches.
        pub const SWITCHES: &[&str] = &[$(stringify!($switch)),+];

        impl Dialect {
            const fn open(name: &'static str) -> Self {
                Self { name, over: None, $($switch: None),+ }
            }

            fn switches(&self) -> Vec<(&'static str, Option<bool>)> {
                vec![$((stringify!($switch), self.$switch)),+]
            }

            fn place(&mut self, switch: &str) -> Option<&mut Option<bool>> {
                match switch {
                    $(stringify!($switch) => Some(&mut self.$switch),)+
                    _ => None,
                }
            }
        }
    };
}

switches! {
    /// Whether an `ipBlock` of NetworkPolicy matches the addresses of pods.
    ip_block_matches_pods,
    /// Whether an `ipBlock`, or Cilium's CIDR, matches the addresses of nodes and what stands for them. Where it does
    /// not say, as `ip_block_matches_pods`.
    ip_block_matches_nodes,
    /// Whether connections from a pod to its own node are judged as egress; if not, they are allowed.
    pod_to_own_node_judged,
    /// Whether connections from a pod's own node are judged as ingress; if not, they are allowed.
    own_node_to_pod_judged,
    /// Whether a rule with ports leaves ICMP of an isolated pod denied.
    icmp_needs_rule,
    /// Whether anything enforces NetworkPolicy at all.
    network_policy_enforced,
    /// Whether NetworkPolicy sits in Calico's tier `default`, at order 1000. Where it does not say: if there are
    /// policies of Calico.
    network_policy_in_calico_tier,
    /// Whether NetworkPolicy and Cilium's policies are one rule set. Where it does not say: if there are policies of
    /// Cilium.
    network_policy_with_cilium,
    /// Whether egress to a Service is judged by the Service's address, before it is translated to a backend's.
    judged_before_dnat,
    /// Whether Istio enforces in ambient mode (ztunnel, waypoints) instead of sidecars.
    istio_ambient,
    /// Whether Istio gives a sidecar to pods of which no label says so, nor their namespace's.
    istio_injects_unlabelled,
}

/// What a dialect says about one switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saying {
    pub dialect: &'static str,
    pub switch: &'static str,
    pub value: bool,
    /// Where that is written.
    pub source: &'static str,
}

const fn says(dialect: &'static str, switch: &'static str, value: bool, source: &'static str) -> Saying {
    Saying { dialect, switch, value, source }
}

/// Every dialect. What has no source is not in [`TABLE`], and stays unknown.
pub const NAMES: [&str; 7] =
    ["standard", "calico", "cilium", "aws-vpc-cni", "none", "istio-sidecar", "istio-ambient"];

/// What each dialect says, and where that is written.
pub const TABLE: &[Saying] = &[
    says(
        "standard",
        "ip_block_matches_pods",
        true,
        "Kubernetes docs, NetworkPolicy: ipBlock matches by address; the conformance tests' engines match pods too",
    ),
    says("standard", "pod_to_own_node_judged", false, OWN_NODE),
    says("standard", "own_node_to_pod_judged", false, OWN_NODE),
    says(
        "calico",
        "ip_block_matches_pods",
        true,
        "Calico docs, NetworkPolicy: nets matches any address, whoever has it",
    ),
    says(
        "calico",
        "pod_to_own_node_judged",
        true,
        "Calico docs, FelixConfiguration defaultEndpointToHostAction: applies after the egress policy of the workload",
    ),
    says(
        "calico",
        "own_node_to_pod_judged",
        false,
        "Calico docs, host endpoints: connections from a host to its own workloads are always allowed",
    ),
    says(
        "calico",
        "icmp_needs_rule",
        true,
        "Calico docs, NetworkPolicy: what no rule of a selecting policy matches is dropped, of any protocol",
    ),
    says(
        "calico",
        "network_policy_in_calico_tier",
        true,
        "Calico docs, Tier: NetworkPolicy is in tier default",
    ),
    says(
        "cilium",
        "ip_block_matches_pods",
        false,
        "Cilium docs, Layer 3 policies, CIDR based: does not apply to endpoints that Cilium manages",
    ),
    says(
        "cilium",
        "ip_block_matches_nodes",
        false,
        "Cilium docs, policy-cidr-match-mode: nodes are not selected by CIDR unless it says nodes",
    ),
    says(
        "cilium",
        "pod_to_own_node_judged",
        true,
        "Cilium docs, entities: egress to the local host needs the entity host",
    ),
    says(
        "cilium",
        "own_node_to_pod_judged",
        false,
        "Cilium docs, allow-localhost: the local host may always reach its endpoints, where Kubernetes is used",
    ),
    says(
        "cilium",
        "icmp_needs_rule",
        true,
        "Cilium docs, limits of NetworkPolicy and icmps: ICMP of an isolated endpoint is dropped",
    ),
    says(
        "cilium",
        "network_policy_with_cilium",
        true,
        "Cilium docs, Kubernetes: NetworkPolicy is one rule set with it",
    ),
    says(
        "aws-vpc-cni",
        "judged_before_dnat",
        true,
        "aws-network-policy-agent: its programs are on the pod's veth, before kube-proxy translates",
    ),
    says(
        "aws-vpc-cni",
        "ip_block_matches_pods",
        true,
        "amazon-network-policy-controller-k8s: pods and blocks alike become addresses in one table",
    ),
    says(
        "none",
        "network_policy_enforced",
        false,
        "Kubernetes docs, NetworkPolicy: without a controller that implements it, it has no effect",
    ),
    says(
        "none",
        "ip_block_matches_pods",
        true,
        "as standard: what would be, were there something that enforces",
    ),
    says("none", "pod_to_own_node_judged", false, OWN_NODE),
    says("none", "own_node_to_pod_judged", false, OWN_NODE),
    says("istio-sidecar", "istio_ambient", false, "Istio docs, sidecar or ambient"),
    says("istio-ambient", "istio_ambient", true, "Istio docs, sidecar or ambient"),
    says("istio-sidecar", "istio_injects_unlabelled", false, INJECTION),
    says("istio-ambient", "istio_injects_unlabelled", false, INJECTION),
];

const INJECTION: &str =
    "Istio docs, installing the sidecar: without a label, only where enableNamespacesByDefault says so";

const OWN_NODE: &str =
    "Kubernetes docs, NetworkPolicy: traffic to and from the node where a pod is running is always allowed";

impl Dialect {
    /// What the API's documentation says, read as its conformance tests do.
    pub const STANDARD: Self = Self {
        ip_block_matches_pods: Some(true),
        pod_to_own_node_judged: Some(false),
        own_node_to_pod_judged: Some(false),
        ..Self::open("standard")
    };

    /// A dialect by its name, as [`TABLE`] says.
    pub fn named(name: &str) -> Option<Self> {
        let name = NAMES.into_iter().find(|known| *known == name)?;
        // A mesh says nothing about the network layers: they are read as the standard has them.
        let mut dialect =
            if name.starts_with("istio-") { Self { name, ..Self::STANDARD } } else { Self::open(name) };
        dialect.overlay(name);
        Some(dialect)
    }

    fn overlay(&mut self, name: &str) {
        for saying in TABLE.iter().filter(|saying| saying.dialect == name) {
            if let Some(place) = self.place(saying.switch) {
                *place = Some(saying.value);
            }
        }
    }

    /// The name it was asked for by, without its changed switches.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether an address block of NetworkPolicy matches nodes.
    pub const fn ip_block_matches_nodes(&self) -> Option<bool> {
        match self.ip_block_matches_nodes {
            None => self.ip_block_matches_pods,
            known => known,
        }
    }

    /// As it was asked for, without changed switches.
    fn unchanged(&self) -> Self {
        let mut usual = Self::named(self.name).unwrap_or(Self::STANDARD);
        if let Some(over) = self.over {
            usual.overlay(over);
        }
        usual
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

    /// Reads `NAME[,MESH][,switch=true|false…]`: `cilium,istio-ambient,ip_block_matches_pods=true`.
    fn from_str(text: &str) -> Result<Self, DialectError> {
        let mut items = text.split(',').peekable();
        let name = items.next().unwrap_or_default();
        let known = || DialectError::Name { name: name.to_owned(), known: NAMES.join(", ") };
        let mut dialect = Self::named(name).ok_or_else(known)?;
        let mesh = items.peek().and_then(|item| NAMES.into_iter().find(|known| known == item));
        if let Some(mesh) = mesh.filter(|mesh| mesh.starts_with("istio-")) {
            items.next();
            dialect.over = Some(mesh);
            dialect.overlay(mesh);
        }
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
            let unknown = || DialectError::Switch { switch: switch.to_owned(), known: SWITCHES.join(", ") };
            *dialect.place(switch).ok_or_else(unknown)? = Some(value);
        }
        Ok(dialect)
    }
}

impl fmt::Display for Dialect {
    /// The name and the switches that differ from it, in the form that is read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(over) = self.over {
            write!(f, ",{over}")?;
        }
        for ((switch, value), (_, usual)) in self.switches().into_iter().zip(self.unchanged().switches()) {
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
        for text in [
            "standard",
            "standard,ip_block_matches_pods=false",
            "standard,icmp_needs_rule=true",
            "cilium,istio-ambient",
            "cilium,istio-ambient,ip_block_matches_pods=true",
            "istio-sidecar",
        ] {
            assert_eq!(text.parse::<Dialect>().unwrap().to_string(), text);
        }
        assert_eq!("standard,ip_block_matches_pods=true".parse(), Ok(Dialect::STANDARD));
    }

    #[test]
    fn every_saying_is_about_a_dialect_and_a_switch_that_exist() {
        for saying in TABLE {
            assert!(NAMES.contains(&saying.dialect), "{saying:?}");
            assert!(SWITCHES.contains(&saying.switch), "{saying:?}");
            assert!(!saying.source.is_empty(), "{saying:?}");
        }
        assert_eq!(Dialect::named("standard"), Some(Dialect::STANDARD));
        assert_eq!(Dialect::named("cilium").unwrap().ip_block_matches_nodes(), Some(false));
    }

    #[test]
    fn unknown_names_switches_and_values_are_errors() {
        for (text, message) in [
            ("calicoo", "dialect \"calicoo\" is none of standard, calico,"),
            ("", "dialect \"\" is none of standard"),
            ("standard,no_such=true", "dialect switch \"no_such\" is none of ip_block_matches_pods,"),
            (
                "standard,ip_block_matches_pods=yes",
                "dialect switch \"ip_block_matches_pods\" must be true or false",
            ),
            ("standard,ip_block_matches_pods", "\"ip_block_matches_pods\" is not switch=value"),
            ("standard,calico", "\"calico\" is not switch=value"),
        ] {
            let error = text.parse::<Dialect>().unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
