//! Peers: pods by labels, nodes, networks, domain names. One of a kind that we do not know fails closed.

use super::types::{EgressPeer, NamespacedPod};
use super::{Limits, Reader};
use crate::policy::condition::Condition;
use crate::policy::fault::{Content, Field};
use crate::policy::network_policy::read_selector;
use crate::policy::spec::{Action, IpBlock, NamePattern, NodeMatch, Peer, Peers, Reach, parse_cidr};

/// The most entries of `networks` and `domainNames`.
const ENTRIES: usize = 25;

impl Reader {
    /// A rule's peers, and whether one of them has none of the fields that we know.
    pub(super) fn peers(
        &mut self,
        peers: Option<Vec<EgressPeer>>,
        limits: &Limits,
        (path, action): (&str, Option<Action>),
        named_port: bool,
    ) -> (Peers, bool) {
        let peers = peers.unwrap_or_default();
        if peers.is_empty() || peers.len() > limits.peers {
            let message = format!("has {} entries: 1 to {}", peers.len(), limits.peers);
            return (Peers::Unknown(self.faults.add(path, message)), false);
        }
        let without_ports = |peer: &EgressPeer| {
            peer.nodes.is_some() || peer.networks.is_some() || peer.domain_names.is_some()
        };
        if named_port && peers.iter().any(without_ports) {
            let message = "must not have nodes, networks or domainNames together with a named port";
            return (Peers::Unknown(self.faults.add(path, message)), false);
        }
        let mut read = Vec::new();
        let mut closed = false;
        for (at, peer) in peers.iter().enumerate() {
            let path = format!("{path}[{at}]");
            let unknown = self.unknown.take(&path);
            match self.peer(peer, action, &path) {
                None => {
                    let message = "has none of the fields that are known: the rule fails closed";
                    if unknown.is_none() {
                        self.faults.add(path, message);
                    }
                    closed = true;
                }
                Some(_) if unknown.is_some() => read.extend(unknown.map(Peer::Unknown)),
                Some(peer) => read.push(peer),
            }
        }
        if closed {
            // A rule that accepts matches nothing then.
            read = vec![Peer::nobody()];
        }
        (Peers::Of(read), closed)
    }

    fn peer(&mut self, peer: &EgressPeer, action: Option<Action>, path: &str) -> Option<Peer> {
        let EgressPeer { namespaces, pods, nodes, networks, domain_names } = peer;
        let given = [
            namespaces.is_some(),
            pods.is_some(),
            nodes.is_some(),
            networks.is_some(),
            domain_names.is_some(),
        ];
        if given.iter().filter(|given| **given).count() > 1 {
            return Some(Peer::Unknown(self.faults.add(path, "must have exactly one field")));
        }
        if let Some(namespaces) = namespaces {
            let path = format!("{path}.namespaces");
            let namespaces = Condition::namespace_labels(read_selector(namespaces, &path, &mut self.faults));
            return Some(Peer::Pods { namespaces, pods: Condition::everything() });
        }
        if let Some(pods) = pods {
            let (namespaces, pods) = self.namespaced_pod(pods, &format!("{path}.pods"));
            return Some(Peer::Pods { namespaces, pods });
        }
        if let Some(nodes) = nodes {
            let path = format!("{path}.nodes");
            return Some(match read_selector(nodes, &path, &mut self.faults) {
                Ok(labels) => Peer::Nodes(NodeMatch::Labelled(labels, Field::from(path.as_str()))),
                Err(field) => Peer::Unknown(field),
            });
        }
        if let Some(networks) = networks {
            return Some(self.list(networks, &format!("{path}.networks"), |reader, text, path| {
                let cidr = parse_cidr(text).map_err(|message| reader.faults.add(path, message));
                Peer::Block(IpBlock { cidr, except: Vec::new(), broken_except: None }, Reach::Everyone)
            }));
        }
        let names = domain_names.as_ref()?;
        let path = format!("{path}.domainNames");
        Some(match action {
            Some(Action::Allow) => {
                self.list(names, &path, |reader, text, path| match reader.domain_name(text, path) {
                    Ok(pattern) => Peer::Named(pattern, Field::from(path)),
                    Err(field) => Peer::Unknown(field),
                })
            }
            _ => Peer::Unknown(self.faults.add(path, "is for rules that accept only")),
        })
    }

    fn list(
        &mut self,
        entries: &[String],
        path: &str,
        mut read: impl FnMut(&mut Self, &str, &str) -> Peer,
    ) -> Peer {
        if entries.is_empty() || entries.len() > ENTRIES {
            let message = format!("has {} entries: 1 to {ENTRIES}", entries.len());
            return Peer::Unknown(self.faults.add(path, message));
        }
        let each = entries.iter().enumerate();
        Peer::Any(each.map(|(at, text)| read(self, text, &format!("{path}[{at}]"))).collect())
    }

    /// `*.x.io` is any name below `x.io`, never itself. A final dot means nothing.
    fn domain_name(&mut self, text: &str, path: &str) -> Content<NamePattern> {
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let (below, name) = match name.strip_prefix("*.") {
            Some(parent) => (true, parent),
            None => (false, &*name),
        };
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let is_label = |label: &str| {
            let ends = [label.bytes().next(), label.bytes().next_back()];
            label.bytes().all(inner) && ends.iter().all(|end| end.is_some_and(|b| b.is_ascii_alphanumeric()))
        };
        if !name.contains('.') || !name.split('.').all(is_label) {
            let message = format!("\"{text}\" is not a domain name such as example.com or *.example.com");
            return Err(self.faults.add(path, message));
        }
        Ok(if below { NamePattern::Below(name.into()) } else { NamePattern::Exact(name.into()) })
    }

    pub(super) fn namespaced_pod(&mut self, given: &NamespacedPod, path: &str) -> (Condition, Condition) {
        let namespaces = match &given.namespace_selector {
            None => Condition::everything(),
            Some(selector) => {
                let path = format!("{path}.namespaceSelector");
                Condition::namespace_labels(read_selector(selector, &path, &mut self.faults))
            }
        };
        let path = format!("{path}.podSelector");
        let pods = match &given.pod_selector {
            None => Condition::Unknown(self.faults.add(path, "is required")),
            Some(selector) => Condition::pod_labels(read_selector(selector, &path, &mut self.faults)),
        };
        (namespaces, pods)
    }
}
