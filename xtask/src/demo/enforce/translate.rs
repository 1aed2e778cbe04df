//! NetworkPolicies → nftables rules for what the node forwards between its pods and the outside.
//!
//! As simple as it can be: two chains, one a direction. In each, a rule for every policy, peer and port returns what
//! is allowed, and the last ones drop what comes from (or goes to) an isolated pod. What belongs to a connection
//! that was let through before passes first. What the node itself sends is not forwarded and so never filtered, as
//! Kubernetes wants it for probes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::manifest::{Direction, IpBlock, Manifests, Peer, Policy, Port};

/// The name of our table in the node's namespace.
pub const TABLE: &str = "dryfence-demo";
/// The chain that counts what was sent on, after all filters.
pub const SENT: &str = "sent";

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// As nftables calls its header.
    const fn header(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

/// A packet whose passing is counted.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    pub from: IpAddr,
    pub to: IpAddr,
    pub port: u16,
    pub protocol: &'static str,
}

/// One direction of all policies: its chain, and which address of a packet is the subject's and which the peer's.
struct Side {
    direction: Direction,
    chain: &'static str,
    subject: &'static str,
    peer: &'static str,
}

const SIDES: [Side; 2] = [
    Side { direction: Direction::Egress, chain: "egress", subject: "saddr", peer: "daddr" },
    Side { direction: Direction::Ingress, chain: "ingress", subject: "daddr", peer: "saddr" },
];

/// The commands that replace our table by one that enforces these policies.
///
/// # Errors
/// Where a policy has something that is not translated.
pub fn ruleset(manifests: &Manifests, counted: &[Counted]) -> Result<Vec<Value>> {
    let mut commands = empty_table();
    commands.push(chain(SENT, Some("postrouting")));
    commands.extend(counted.iter().map(count));
    commands.push(chain("forward", Some("forward")));
    commands.push(rule("forward", "replies", &[answers(), json!({"accept": null})]));
    for side in &SIDES {
        commands.push(chain(side.chain, None));
        commands.push(rule("forward", side.chain, &[json!({"jump": {"target": side.chain}})]));
        commands.extend(side.rules(manifests)?);
    }
    Ok(commands)
}

/// The commands that take everything back.
pub fn removal() -> Vec<Value> {
    let table = json!({"table": {"family": "inet", "name": TABLE}});
    // Removing what is not there is an error, adding what is there is none.
    vec![json!({"add": table}), json!({"delete": table})]
}

/// What a kernel must be capable of, without any effect: filters by the state of connections.
pub fn trial() -> Vec<Value> {
    let mut commands = empty_table();
    commands.push(chain("forward", Some("forward")));
    commands.push(rule("forward", "trial", &[answers(), json!({"accept": null})]));
    commands.extend(removal());
    commands
}

fn empty_table() -> Vec<Value> {
    let mut commands = removal();
    commands.push(json!({"add": {"table": {"family": "inet", "name": TABLE}}}));
    commands
}

impl Side {
    fn rules(&self, manifests: &Manifests) -> Result<Vec<Value>> {
        let isolating = manifests.policies.iter().filter(|policy| policy.spec.isolates(self.direction));
        let mut rules = Vec::new();
        let mut isolated = BTreeSet::new();
        for policy in isolating {
            let subjects = manifests.subjects(policy);
            let name = format!("{}/{}", policy.metadata.namespace, policy.metadata.name);
            let allowed = self.allowed(manifests, policy, &subjects, &name);
            rules.extend(allowed.with_context(|| format!("networkpolicy {name}"))?);
            isolated.extend(subjects);
        }
        let isolated: Vec<_> = isolated.into_iter().collect();
        for family in FAMILIES {
            if let Some(subject) = among(&isolated, family, self.subject) {
                rules.push(rule(self.chain, "isolated", &[subject, json!({"drop": null})]));
            }
        }
        Ok(rules)
    }

    /// A rule for every peer and port that a policy allows, of each family.
    fn allowed(
        &self,
        manifests: &Manifests,
        policy: &Policy,
        subjects: &[IpAddr],
        name: &str,
    ) -> Result<Vec<Value>> {
        let spec = &policy.spec;
        let rules: Vec<(&[Peer], &[Port])> = match self.direction {
            Direction::Egress => spec.egress.iter().map(|rule| (&rule.to[..], &rule.ports[..])).collect(),
            Direction::Ingress => spec.ingress.iter().map(|rule| (&rule.from[..], &rule.ports[..])).collect(),
        };
        let mut found = Vec::new();
        for (peers, ports) in rules {
            for family in FAMILIES {
                let Some(subject) = among(subjects, family, self.subject) else { continue };
                for peer in self.peers(manifests, &policy.metadata.namespace, peers, family)? {
                    for port in ports_of(ports)? {
                        let expression = [vec![subject.clone()], peer.clone(), port].concat();
                        let expression = [expression, vec![json!({"return": null})]].concat();
                        found.push(rule(self.chain, name, &expression));
                    }
                }
            }
        }
        Ok(found)
    }

    /// The expressions for each peer that exists in this family; one without any for "whoever it is".
    fn peers(
        &self,
        manifests: &Manifests,
        namespace: &str,
        peers: &[Peer],
        family: Family,
    ) -> Result<Vec<Vec<Value>>> {
        if peers.is_empty() {
            return Ok(vec![Vec::new()]);
        }
        let mut found = Vec::new();
        for peer in peers {
            match peer {
                Peer { ip_block: Some(block), pod_selector: None, namespace_selector: None } => {
                    found.extend(within(block, family, self.peer)?);
                }
                Peer { ip_block: None, pod_selector: None, namespace_selector: None } => {
                    bail!("a peer without any field")
                }
                Peer { ip_block: None, .. } => {
                    let pods = manifests.peers(namespace, peer);
                    found.extend(among(&pods, family, self.peer).map(|one| vec![one]));
                }
                Peer { ip_block: Some(_), .. } => bail!("an ipBlock beside a selector"),
            }
        }
        Ok(found)
    }
}

/// Whether an address of the packet is one of these; nothing if none of them is of the family.
fn among(addresses: &[IpAddr], family: Family, field: &str) -> Option<Value> {
    let of_family: Vec<_> = addresses.iter().filter(|address| Family::of(**address) == family).collect();
    let set = json!({"set": of_family});
    (!of_family.is_empty()).then(|| compare("==", &header(family, field), &set))
}

/// Whether an address of the packet is in the block, and in none of its exceptions.
fn within(block: &IpBlock, family: Family, field: &str) -> Result<Option<Vec<Value>>> {
    let (cidr, length) = prefix(&block.cidr)?;
    if Family::of(cidr) != family {
        return Ok(None);
    }
    let of = |(address, length): (IpAddr, u8)| json!({"prefix": {"addr": address, "len": length}});
    let field = header(family, field);
    let mut expression = vec![compare("==", &field, &of((cidr, length)))];
    for except in &block.except {
        expression.push(compare("!=", &field, &of(prefix(except)?)));
    }
    Ok(Some(expression))
}

fn prefix(cidr: &str) -> Result<(IpAddr, u8)> {
    let (address, length) = cidr.split_once('/').with_context(|| format!("{cidr} is no CIDR"))?;
    let what = || format!("{cidr} is no CIDR");
    Ok((address.parse().with_context(what)?, length.parse().with_context(what)?))
}

/// The expressions for each port; one without any for "whatever it is".
fn ports_of(ports: &[Port]) -> Result<Vec<Vec<Value>>> {
    if ports.is_empty() {
        return Ok(vec![Vec::new()]);
    }
    ports
        .iter()
        .map(|port| {
            let protocol = match port.protocol.as_deref() {
                None | Some("TCP") => "tcp",
                Some("UDP") => "udp",
                Some(other) => bail!("protocol {other} is not translated"),
            };
            Ok(vec![match (port.port, port.end_port) {
                (Some(first), Some(last)) => {
                    compare("==", &destination_port(protocol), &json!({"range": [first, last]}))
                }
                (Some(port), None) => compare("==", &destination_port(protocol), &json!(port)),
                (None, None) => compare("==", &json!({"meta": {"key": "l4proto"}}), &json!(protocol)),
                (None, Some(_)) => bail!("an endPort without a port"),
            }])
        })
        .collect()
}

fn count(counted: &Counted) -> Value {
    let Counted { from, to, port, protocol } = *counted;
    let family = Family::of(from);
    let protocol = protocol.to_lowercase();
    rule(
        SENT,
        "counted",
        &[
            compare("==", &header(family, "saddr"), &json!(from)),
            compare("==", &header(family, "daddr"), &json!(to)),
            compare("==", &destination_port(&protocol), &json!(port)),
            json!({"counter": null}),
        ],
    )
}

/// What belongs to a connection that was let through: its further packets, and ICMP errors about it.
fn answers() -> Value {
    compare("in", &json!({"ct": {"key": "state"}}), &json!(["established", "related"]))
}

fn header(family: Family, field: &str) -> Value {
    json!({"payload": {"protocol": family.header(), "field": field}})
}

fn destination_port(protocol: &str) -> Value {
    json!({"payload": {"protocol": protocol, "field": "dport"}})
}

fn compare(operator: &str, left: &Value, right: &Value) -> Value {
    json!({"match": {"op": operator, "left": left, "right": right}})
}

fn chain(name: &str, hook: Option<&str>) -> Value {
    let mut chain = json!({"family": "inet", "table": TABLE, "name": name});
    if let Some(hook) = hook {
        chain["type"] = json!("filter");
        chain["hook"] = json!(hook);
        chain["prio"] = json!(0);
        chain["policy"] = json!("accept");
    }
    json!({"add": {"chain": chain}})
}

fn rule(chain: &str, comment: &str, expression: &[Value]) -> Value {
    let rule =
        json!({"family": "inet", "table": TABLE, "chain": chain, "comment": comment, "expr": expression});
    json!({"add": {"rule": rule}})
}

#[cfg(test)]
mod tests;
