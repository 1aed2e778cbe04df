//! What would allow a denied direction: in words, and as the least policy that does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use serde::Serialize;

use super::end::End;
use crate::model::cause::Cause;
use crate::model::edge::{Direction, Protocol};
use crate::model::labels::NAMESPACE_NAME_LABEL;

/// The longest name that the API server takes.
const LONGEST_NAME: usize = 253;

/// What would allow one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fix {
    pub summary: String,
    /// The policy's name in `yaml`.
    pub name: Option<String>,
    /// A policy to paste; `None` where no policy can say it, and then `caution` tells why.
    pub yaml: Option<String>,
    /// What to think of before it is applied.
    pub caution: Option<String>,
}

/// The connection that a fix is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) direction: Direction,
    pub(crate) initiator: &'a End,
    pub(crate) responder: &'a End,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) cause: Cause,
}

impl Asked<'_> {
    fn subject(&self) -> &End {
        if self.direction == Direction::Egress { self.initiator } else { self.responder }
    }

    fn peer(&self) -> &End {
        if self.direction == Direction::Egress { self.responder } else { self.initiator }
    }

    pub(crate) fn fix(&self) -> Fix {
        let peers = self.peers();
        let caution = match &peers {
            Err(problem) => Some(problem.clone()),
            Ok(_) => self.caution(),
        };
        let (name, yaml) = peers.map(|peers| (self.name(), self.yaml(&peers))).ok().unzip();
        Fix { summary: self.summary(), name, yaml, caution }
    }

    fn summary(&self) -> String {
        let (from, to) = match self.direction {
            Direction::Egress => (labels_in_words(self.subject()), peer_in_words(self.peer())),
            Direction::Ingress => (peer_in_words(self.peer()), labels_in_words(self.subject())),
        };
        let direction = self.direction.as_str().to_lowercase();
        format!("allow {direction} from {from} to {to}, {}", port_in_words(self.port, self.protocol))
    }

    /// The peers of the rule, one YAML list item each, or why no policy can name them.
    fn peers(&self) -> Result<Vec<String>, String> {
        if !self.protocol.has_ports() {
            return Err(format!("NetworkPolicy has no rule for {}; the CNI's own policy may", self.protocol));
        }
        if self.subject().selector.is_empty() {
            // An empty podSelector would select the whole namespace.
            return Err(format!(
                "{} has no labels of its own to select it by: label its pods first",
                self.subject()
            ));
        }
        let peer = self.peer();
        match peer.kind.as_str() {
            "Pod" if peer.selector.is_empty() => {
                Err(format!("{peer} has no labels of its own to select it by: label its pods first"))
            }
            "Pod" => {
                let namespace = peer.namespace.clone().unwrap_or_default();
                let namespace = BTreeMap::from([(NAMESPACE_NAME_LABEL.to_owned(), namespace)]);
                Ok(vec![format!(
                    "namespaceSelector:\n{}podSelector:\n{}",
                    match_labels(&namespace, 2),
                    match_labels(&peer.selector, 2)
                )])
            }
            "Service" => Err(format!(
                "policies see the pods behind {peer} and their port, not the Service: allow those"
            )),
            "External" | "Node" if !peer.addresses.is_empty() => Ok(peer
                .addresses
                .iter()
                .map(|address| format!("ipBlock:\n  cidr: {}\n", cidr(*address)))
                .collect()),
            _ => Err(format!("it is not known who {peer} is, so no rule can name it")),
        }
    }

    fn caution(&self) -> Option<String> {
        let caution = match (self.cause, self.peer().kind.as_str()) {
            (Cause::CloudMetadata, _) => {
                "the metadata address hands out the node's credentials: allow it only if the workload needs them"
            }
            (Cause::NodeLocalDns, _) => {
                "NodeLocal DNSCache answers on an address of the node: a rule for the DNS pods does not allow it, a rule for this address does"
            }
            (_, "External") => "an external address can change: prefer the range its owner publishes",
            (_, "Node") => "node addresses change when nodes are replaced: prefer the nodes' range",
            _ => return None,
        };
        Some(caution.to_owned())
    }

    fn yaml(&self, peers: &[String]) -> String {
        let (section, list) = match self.direction {
            Direction::Egress => ("egress", "to"),
            Direction::Ingress => ("ingress", "from"),
        };
        let mut yaml = String::new();
        if let Some(caution) = self.caution() {
            yaml.push_str(&format!("# {caution}\n"));
        }
        yaml.push_str("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n");
        yaml.push_str(&name_line(&self.name()));
        if let Some(namespace) = &self.subject().namespace {
            yaml.push_str(&format!("  namespace: {}\n", scalar(namespace)));
        }
        yaml.push_str("spec:\n  podSelector:\n");
        yaml.push_str(&match_labels(&self.subject().selector, 4));
        yaml.push_str(&format!("  policyTypes: [{}]\n  {section}:\n    - {list}:\n", self.direction));
        for peer in peers {
            for (at, line) in peer.lines().enumerate() {
                yaml.push_str(if at == 0 { "        - " } else { "          " });
                yaml.push_str(line);
                yaml.push('\n');
            }
        }
        // A String takes every write.
        _ = write!(
            yaml,
            "      ports:\n        - protocol: {}\n          port: {}\n",
            self.protocol, self.port
        );
        yaml
    }

    /// `allow-api-to-qdrant-6333`, as the API server takes it.
    fn name(&self) -> String {
        let word = if self.direction == Direction::Egress { "to" } else { "from" };
        let peer = self.peer();
        let subject = self.subject();
        let peer = match (peer.kind.as_str(), &peer.name, &peer.namespace) {
            ("External", ..) if self.cause == Cause::CloudMetadata => "cloud-metadata".to_owned(),
            ("External", ..) => "outside".to_owned(),
            ("Node", ..) => "nodes".to_owned(),
            (_, Some(name), Some(namespace)) if peer.namespace != subject.namespace => {
                format!("{namespace}-{name}")
            }
            (_, Some(name), _) => name.clone(),
            (_, None, _) => "unknown".to_owned(),
        };
        let subject = subject.name.as_deref().unwrap_or("pods");
        let protocol = if self.protocol == Protocol::Tcp {
            String::new()
        } else {
            format!("-{}", self.protocol.as_str().to_lowercase())
        };
        let end = format!("-{}{protocol}", self.port);
        let mut name = format!("allow-{subject}-{word}-{peer}");
        name.retain(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.');
        name.truncate(LONGEST_NAME.saturating_sub(end.len()));
        name + &end
    }
}

impl Fix {
    /// The same policy under another name.
    pub(crate) fn rename(&mut self, to: String) {
        if let (Some(name), Some(yaml)) = (&mut self.name, &mut self.yaml) {
            *yaml = yaml.replacen(&name_line(name), &name_line(&to), 1);
            *name = to;
        }
    }
}

fn name_line(name: &str) -> String {
    format!("  name: {}\n", scalar(name))
}

/// `port 53/UDP`, or `ICMP 8/0` (type and code).
pub(crate) fn port_in_words(port: u16, protocol: Protocol) -> String {
    if protocol.has_ports() {
        format!("port {port}/{protocol}")
    } else {
        format!("{protocol} {}/{}", port >> 8, port & 0xff)
    }
}

fn labels_in_words(end: &End) -> String {
    if end.selector.is_empty() {
        return end.to_string();
    }
    end.selector.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn peer_in_words(end: &End) -> String {
    match (end.kind.as_str(), &end.namespace) {
        ("Pod", Some(namespace)) => format!("namespace {namespace}, {}", labels_in_words(end)),
        ("External" | "Node", _) if !end.addresses.is_empty() => {
            let mut cidrs: Vec<_> = end.addresses.iter().take(3).map(|address| cidr(*address)).collect();
            if let Some(more) = end.addresses.len().checked_sub(3).filter(|more| *more > 0) {
                cidrs.push(format!("{more} more"));
            }
            cidrs.join(", ")
        }
        _ => end.to_string(),
    }
}

fn cidr(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

fn match_labels(labels: &BTreeMap<String, String>, indent: usize) -> String {
    let mut yaml = format!("{:indent$}matchLabels:\n", "");
    for (key, value) in labels {
        yaml.push_str(&format!("{:indent$}  {}: {}\n", "", scalar(key), scalar(value)));
    }
    yaml
}

/// A YAML string: plain where no reader could take it for something else.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    // A JSON string is a YAML string.
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}
