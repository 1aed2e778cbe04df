//! Peers: endpoints, entities, addresses, nodes, Services, names. A rule may have one kind of them.

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::types::{CidrSet, NameRule, SelectedServices, ServiceRule};
use super::{Reader, nobody};
use crate::policy::condition::Condition;
use crate::policy::fault::{Content, Field};
use crate::policy::network_policy::read_selector;
use crate::policy::spec::{
    IpBlock, NamePattern, NodeMatch, Peer, Peers, Reach, ServiceMatch, ServiceName, SetFamily, SetMatch,
    SetName, parse_cidr,
};

/// The lists of a rule that say who the peer is; an empty one selects nobody.
pub(super) struct Lists {
    pub(super) names: &'static Names,
    pub(super) endpoints: Option<Vec<LabelSelector>>,
    pub(super) cidr: Option<Vec<String>>,
    pub(super) cidr_set: Option<Vec<CidrSet>>,
    pub(super) entities: Option<Vec<String>>,
    pub(super) groups: Option<Vec<Value>>,
    pub(super) nodes: Option<Vec<LabelSelector>>,
    pub(super) services: Option<Vec<ServiceRule>>,
    pub(super) fqdns: Option<Vec<NameRule>>,
}

/// What the lists are called in a direction.
#[derive(Debug)]
pub(super) struct Names {
    endpoints: &'static str,
    cidr: &'static str,
    cidr_set: &'static str,
    entities: &'static str,
    groups: &'static str,
    nodes: &'static str,
}

pub(super) const FROM: Names = Names {
    endpoints: "fromEndpoints",
    cidr: "fromCIDR",
    cidr_set: "fromCIDRSet",
    entities: "fromEntities",
    groups: "fromGroups",
    nodes: "fromNodes",
};
pub(super) const TO: Names = Names {
    endpoints: "toEndpoints",
    cidr: "toCIDR",
    cidr_set: "toCIDRSet",
    entities: "toEntities",
    groups: "toGroups",
    nodes: "toNodes",
};
const SERVICES: &str = "toServices";
const FQDNS: &str = "toFQDNs";

impl Lists {
    /// Each list's name and length, where it is given.
    fn lengths(&self) -> [(&'static str, Option<usize>); 8] {
        let names = self.names;
        [
            (names.endpoints, self.endpoints.as_ref().map(Vec::len)),
            (names.cidr, self.cidr.as_ref().map(Vec::len)),
            (names.cidr_set, self.cidr_set.as_ref().map(Vec::len)),
            (names.entities, self.entities.as_ref().map(Vec::len)),
            (names.groups, self.groups.as_ref().map(Vec::len)),
            (names.nodes, self.nodes.as_ref().map(Vec::len)),
            (SERVICES, self.services.as_ref().map(Vec::len)),
            (FQDNS, self.fqdns.as_ref().map(Vec::len)),
        ]
    }

    pub(super) fn is_absent(&self) -> bool {
        self.lengths().iter().all(|(_, length)| length.is_none())
    }
}

impl Reader {
    /// Whom a rule is about.
    pub(super) fn peers(&mut self, lists: Lists, path: &str) -> Peers {
        let lengths = lists.lengths();
        let given: Vec<&str> = lengths
            .iter()
            .filter(|(_, length)| length.is_some_and(|n| n > 0))
            .map(|(name, _)| *name)
            .collect();
        if lists.is_absent() {
            return Peers::Any;
        }
        if let [first, second, ..] = given[..] {
            self.refuse(path, format!("must not combine {first} and {second}"));
        }
        if lengths.iter().any(|(_, length)| *length == Some(0)) {
            return nobody();
        }
        let Lists { names, endpoints, cidr, cidr_set, entities, groups, nodes, services, fqdns } = lists;
        let mut peers = Vec::new();
        peers.extend(self.each(endpoints, path, names.endpoints, |reader, selector, path| {
            reader.endpoints(&selector, path)
        }));
        peers.extend(self.each(cidr, path, names.cidr, |reader, text, path| {
            let cidr = read_address(&text).map_err(|message| reader.faults.add(path, message));
            Peer::Block(IpBlock { cidr, except: Vec::new(), broken_except: None }, Reach::NotPods)
        }));
        peers.extend(
            self.each(cidr_set, path, names.cidr_set, |reader, set, path| reader.cidr_set(&set, path)),
        );
        peers.extend(self.each(entities, path, names.entities, |reader, name, path| {
            entity(&name, path).unwrap_or_else(|| {
                let message = format!("\"{name}\" is no entity of Cilium");
                Peer::Unknown(reader.faults.add(path, message))
            })
        }));
        peers.extend(self.each(groups, path, names.groups, |reader, _, path| {
            reader.note(path, "asks a cloud provider for addresses: it is not judged");
            Peer::Unknown(Field::unsupported(path))
        }));
        peers.extend(
            self.each(nodes, path, names.nodes, |reader, selector, path| reader.nodes(&selector, path)),
        );
        peers.extend(self.each(services, path, SERVICES, |reader, rule, path| reader.services(&rule, path)));
        peers.extend(self.each(fqdns, path, FQDNS, |reader, rule, path| {
            reader.needs_dns.get_or_insert_with(|| path.to_owned());
            match reader.name_rule(&rule, path) {
                Ok(pattern) => Peer::Named(pattern, Field::from(path)),
                Err(field) => Peer::Unknown(field),
            }
        }));
        Peers::Of(peers)
    }

    /// What each entry of a list means. One with a field that is not known may mean anyone.
    fn each<T>(
        &mut self,
        list: Option<Vec<T>>,
        path: &str,
        name: &str,
        mut read: impl FnMut(&mut Self, T, &str) -> Peer,
    ) -> Vec<Peer> {
        let one = |(at, entry)| {
            let path = format!("{path}.{name}[{at}]");
            let unknown = self.unknown.take(&path);
            let peer = read(self, entry, &path);
            unknown.map_or(peer, Peer::Unknown)
        };
        list.into_iter().flatten().enumerate().map(one).collect()
    }

    /// Addresses never mean pods that Cilium manages.
    fn cidr_set(&mut self, set: &CidrSet, path: &str) -> Peer {
        let CidrSet { cidr, cidr_group_ref, cidr_group_selector, except } = set;
        let mut nets = Vec::new();
        let mut broken = None;
        for (at, text) in except.iter().flatten().enumerate() {
            match parse_cidr(text) {
                Ok(net) => nets.push(net),
                Err(message) => broken = Some(self.faults.add(format!("{path}.except[{at}]"), message)),
            }
        }
        let which = match (cidr, cidr_group_ref, cidr_group_selector) {
            (Some(text), None, None) => {
                let cidr =
                    parse_cidr(text).map_err(|message| self.faults.add(format!("{path}.cidr"), message));
                let outside = |cidr: &IpNet| nets.iter().find(|net| !cidr.contains(&net.addr())).copied();
                if let Some((cidr, except)) = cidr.as_ref().ok().and_then(|cidr| Some((cidr, outside(cidr)?)))
                {
                    self.refuse(format!("{path}.except"), format!("{except} is not inside {cidr}"));
                }
                return Peer::Block(IpBlock { cidr, except: nets, broken_except: broken }, Reach::NotPods);
            }
            (None, Some(name), None) => SetName::Named(name.as_str().into()),
            (None, None, Some(selector)) => {
                let path = format!("{path}.cidrGroupSelector");
                let sets = Condition::pod_labels(read_selector(selector, &path, &mut self.faults));
                SetName::Labelled { sets, namespaces: None }
            }
            _ => {
                let message = "must have one of cidr, cidrGroupRef and cidrGroupSelector";
                return Peer::Unknown(self.faults.add(path, message));
            }
        };
        let (family, field) = (SetFamily::Cilium, Field::from(path));
        let sets = Peer::Sets(SetMatch { family, which, reach: Reach::NotPods, except: nets, field });
        match broken {
            Some(field) => Peer::All(vec![sets, Peer::Unknown(field)]),
            None => sets,
        }
    }

    /// Nodes by their labels, where Cilium is told to keep those.
    fn nodes(&mut self, selector: &LabelSelector, path: &str) -> Peer {
        self.note(path, "needs Cilium's enable-node-selector-labels: without it, Cilium refuses the policy");
        match self.node_selector(selector, path) {
            Ok(labels) => Peer::Nodes(NodeMatch::Labelled(labels, Field::from(path))),
            Err(field) => Peer::Unknown(field),
        }
    }

    fn services(&mut self, rule: &ServiceRule, path: &str) -> Peer {
        let (namespace, which) = match (&rule.k8s_service, &rule.k8s_service_selector) {
            (Some(named), None) => {
                let path = format!("{path}.k8sService.serviceName");
                let Some(name) = named.service_name.as_deref().filter(|name| !name.is_empty()) else {
                    return Peer::Unknown(self.faults.add(path, "is required"));
                };
                (&named.namespace, ServiceName::Named(name.into()))
            }
            (None, Some(SelectedServices { selector: Some(selector), namespace })) => {
                let path = format!("{path}.k8sServiceSelector.selector");
                match self.node_selector(selector, &path) {
                    Ok(selector) => (namespace, ServiceName::Labelled(selector)),
                    Err(field) => return Peer::Unknown(field),
                }
            }
            (None, Some(_)) => {
                return Peer::Unknown(
                    self.faults.add(format!("{path}.k8sServiceSelector.selector"), "is required"),
                );
            }
            _ => {
                let message = "must have one of k8sService and k8sServiceSelector";
                return Peer::Unknown(self.faults.add(path, message));
            }
        };
        let namespace = namespace.as_deref().filter(|namespace| !namespace.is_empty()).map(Into::into);
        Peer::Services(ServiceMatch { namespace, which, reach: Reach::NotPods, field: Field::from(path) })
    }

    /// A name, or a pattern in which `*` is within a label; `**.` before it is any depth below.
    pub(super) fn name_rule(&mut self, rule: &NameRule, path: &str) -> Content<NamePattern> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let plain = |text: &str| text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let has_empty = |text: &str| text.split('.').any(str::is_empty);
        let (field, text, read) = match (&rule.match_name, &rule.match_pattern) {
            (Some(name), None) => {
                let name = plain(name);
                let valid = name.bytes().all(inner) && !has_empty(&name);
                ("matchName", &rule.match_name, valid.then(|| NamePattern::Exact(name.as_str().into())))
            }
            (None, Some(pattern)) => {
                let pattern = plain(pattern);
                let (deep, rest) = match pattern.strip_prefix("**.") {
                    Some(rest) => (true, rest),
                    None => (false, &*pattern),
                };
                let valid = rest.bytes().all(|b| inner(b) || b == b'*') && !has_empty(rest);
                let read = valid.then(|| match deep {
                    true if rest.contains('*') => Err(()),
                    true => Ok(NamePattern::Below(rest.into())),
                    false => Ok(NamePattern::Wildcard(rest.into())),
                });
                if read == Some(Err(())) {
                    return Err(Field::unsupported(format!("{path}.matchPattern")));
                }
                ("matchPattern", &rule.match_pattern, read.and_then(Result::ok))
            }
            _ => return Err(self.faults.add(path, "must have one of matchName and matchPattern")),
        };
        let text = text.as_deref().unwrap_or_default();
        read.ok_or_else(|| {
            let message = format!("\"{text}\" is not a domain name such as example.com or *.example.com");
            self.faults.add(format!("{path}.{field}"), message)
        })
    }
}

/// `toCIDR` takes single addresses too.
fn read_address(text: &str) -> Result<IpNet, String> {
    match text.parse::<std::net::IpAddr>() {
        Ok(address) => Ok(address.into()),
        Err(_) => parse_cidr(text),
    }
}

/// Any pod that Cilium manages.
const fn pods() -> Peer {
    Peer::Pods { namespaces: Condition::everything(), pods: Condition::everything() }
}

/// What is in the cluster, and neither a pod nor a node: addresses that no object has.
fn neither() -> Peer {
    let not = |peer| Peer::Not(Box::new(peer));
    Peer::All(vec![not(pods()), not(Peer::Nodes(NodeMatch::Every)), not(Peer::Outside)])
}

/// What an entity is; none where Cilium has none of that name (Cilium docs, entities based).
pub(super) fn entity(name: &str, path: &str) -> Option<Peer> {
    let world = |all: IpNet| {
        let cidr = Ok(all);
        let block = IpBlock { cidr, except: Vec::new(), broken_except: None };
        Peer::All(vec![Peer::Outside, Peer::Block(block, Reach::NotPods)])
    };
    Some(match name {
        "all" => Peer::All(Vec::new()),
        "none" => Peer::nobody(),
        "world" => Peer::Outside,
        "world-ipv4" => world(ipnet::Ipv4Net::default().into()),
        "world-ipv6" => world(ipnet::Ipv6Net::default().into()),
        // The API server too, where it is outside.
        "cluster" => Peer::Any(vec![Peer::Not(Box::new(Peer::Outside)), Peer::ApiServer(Field::from(path))]),
        "host" => Peer::Nodes(NodeMatch::Own),
        "remote-node" => Peer::Nodes(NodeMatch::Other),
        "kube-apiserver" => Peer::ApiServer(Field::from(path)),
        "health" | "ingress" | "init" | "unmanaged" => neither(),
        _ => return None,
    })
}
