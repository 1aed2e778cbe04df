//! Ports: v1alpha2's `protocols` and v1alpha1's `ports`.

use super::types::{AdminEgressRule, AdminIngressRule, AdminPort, Destination, EgressPeer, ProtocolMatch};
use super::{RawRule, Reader};
use crate::model::edge::Protocol;
use crate::policy::fault::{Content, Field};
use crate::policy::network_policy::ports::read_name;
use crate::policy::spec::{PortMatch, PortSpec, Ports};

/// The most entries of either list.
const CLUSTER_ENTRIES: usize = 25;
const ADMIN_ENTRIES: usize = 100;

impl Reader {
    /// v1alpha2's list: absent is any, empty is refused. Says whether a name is among its entries.
    pub(super) fn protocols(&mut self, given: Option<&[ProtocolMatch]>, path: &str) -> (Ports, bool) {
        let Some(given) = given else { return (Ports::Any, false) };
        if given.is_empty() || given.len() > CLUSTER_ENTRIES {
            let message = format!("has {} entries: 1 to {CLUSTER_ENTRIES}", given.len());
            return (Ports::Unknown(self.faults.add(path, message)), false);
        }
        let named = given.iter().any(|entry| entry.destination_named_port.is_some());
        let each = given.iter().enumerate();
        let ports = each.flat_map(|(at, entry)| self.protocol(entry, &format!("{path}[{at}]"))).collect();
        (Ports::Of(ports), named)
    }

    fn protocol(&mut self, entry: &ProtocolMatch, path: &str) -> Vec<PortMatch> {
        if let Some(field) = self.unknown.take(path) {
            return vec![unknown_port(&field)];
        }
        let ProtocolMatch { tcp, udp, sctp, destination_named_port } = entry;
        match (tcp, udp, sctp, destination_named_port) {
            (Some(tcp), None, None, None) => {
                vec![self.destination(tcp, Protocol::Tcp, &format!("{path}.tcp"))]
            }
            (None, Some(udp), None, None) => {
                vec![self.destination(udp, Protocol::Udp, &format!("{path}.udp"))]
            }
            (None, None, Some(sctp), None) => {
                vec![self.destination(sctp, Protocol::Sctp, &format!("{path}.sctp"))]
            }
            (None, None, None, Some(name)) => self.named(name, &format!("{path}.destinationNamedPort")),
            _ => {
                let message = "must have one of tcp, udp, sctp and destinationNamedPort";
                vec![unknown_port(&self.faults.add(path, message))]
            }
        }
    }

    fn destination(&mut self, given: &Destination, protocol: Protocol, path: &str) -> PortMatch {
        let path = format!("{path}.destinationPort");
        let Some(port) = &given.destination_port else {
            return PortMatch { protocol: Ok(protocol), port: Ok(PortSpec::Any) };
        };
        let port = match (port.number, &port.range) {
            (Some(number), None) => self.number(Some(number), &format!("{path}.number")).map(single),
            (None, Some(range)) => self.range(range.start, range.end, &format!("{path}.range")),
            _ => Err(self.faults.add(path, "must have one of number and range")),
        };
        PortMatch { protocol: Ok(protocol), port }
    }

    /// v1alpha1's list: absent and empty are any. Says whether a name is among its entries.
    fn ports(&mut self, given: Option<&[AdminPort]>, path: &str) -> (Ports, bool) {
        let given = given.unwrap_or_default();
        if given.is_empty() {
            return (Ports::Any, false);
        }
        if given.len() > ADMIN_ENTRIES {
            let message = format!("has {} entries: at most {ADMIN_ENTRIES}", given.len());
            return (Ports::Unknown(self.faults.add(path, message)), false);
        }
        let named = given.iter().any(|entry| entry.named_port.is_some());
        let each = given.iter().enumerate();
        let ports = each.flat_map(|(at, entry)| self.port(entry, &format!("{path}[{at}]"))).collect();
        (Ports::Of(ports), named)
    }

    fn port(&mut self, entry: &AdminPort, path: &str) -> Vec<PortMatch> {
        if let Some(field) = self.unknown.take(path) {
            return vec![unknown_port(&field)];
        }
        match (&entry.port_number, &entry.named_port, &entry.port_range) {
            (Some(given), None, None) => {
                let path = format!("{path}.portNumber");
                let protocol = self.protocol_name(given.protocol.as_deref(), &path);
                vec![PortMatch {
                    protocol,
                    port: self.number(given.port, &format!("{path}.port")).map(single),
                }]
            }
            (None, Some(name), None) => self.named(name, &format!("{path}.namedPort")),
            (None, None, Some(given)) => {
                let path = format!("{path}.portRange");
                let protocol = self.protocol_name(given.protocol.as_deref(), &path);
                vec![PortMatch { protocol, port: self.range(given.start, given.end, &path) }]
            }
            _ => {
                let message = "must have one of portNumber, namedPort and portRange";
                vec![unknown_port(&self.faults.add(path, message))]
            }
        }
    }

    fn protocol_name(&mut self, name: Option<&str>, path: &str) -> Content<Protocol> {
        match name {
            None | Some("TCP") => Ok(Protocol::Tcp),
            Some("UDP") => Ok(Protocol::Udp),
            Some("SCTP") => Ok(Protocol::Sctp),
            Some(other) => {
                let message = format!("\"{other}\" is none of TCP, UDP, SCTP");
                Err(self.faults.add(format!("{path}.protocol"), message))
            }
        }
    }

    /// A container port of that name, of whatever protocol it is.
    fn named(&mut self, name: &str, path: &str) -> Vec<PortMatch> {
        let name = read_name(name, path, &mut self.faults);
        let each = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let port = |protocol| PortMatch { protocol: Ok(protocol), port: name.clone().map(PortSpec::Named) };
        each.map(port).into()
    }

    fn number(&mut self, number: Option<i64>, path: &str) -> Content<u16> {
        let port = number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port != 0);
        port.ok_or_else(|| {
            let message = match number {
                Some(number) => format!("{number} is not a port: 1 to 65535"),
                None => "is required".to_owned(),
            };
            self.faults.add(path, message)
        })
    }

    fn range(&mut self, start: Option<i64>, end: Option<i64>, path: &str) -> Content<PortSpec> {
        let first = self.number(start, &format!("{path}.start"))?;
        let last = self.number(end, &format!("{path}.end"))?;
        if first < last {
            return Ok(PortSpec::Range { first, last });
        }
        Err(self.faults.add(path, format!("must begin below its end: {first} to {last}")))
    }

    /// The rules of v1alpha1's kinds: egress, ingress.
    pub(super) fn admin_rules(
        &mut self,
        ingress: Option<Vec<AdminIngressRule>>,
        egress: Option<Vec<AdminEgressRule>>,
    ) -> [Vec<RawRule>; 2] {
        let mut rules = [Vec::new(), Vec::new()];
        let [egress_rules, ingress_rules] = &mut rules;
        for (at, rule) in egress.into_iter().flatten().enumerate() {
            let (ports, named_port) = self.ports(rule.ports.as_deref(), &format!("spec.egress[{at}].ports"));
            let AdminEgressRule { name, action, to, .. } = rule;
            egress_rules.push(RawRule { name, action, peers: to, ports, named_port });
        }
        for (at, rule) in ingress.into_iter().flatten().enumerate() {
            let (ports, named_port) = self.ports(rule.ports.as_deref(), &format!("spec.ingress[{at}].ports"));
            let AdminIngressRule { name, action, from, .. } = rule;
            let peers = from.map(|peers| peers.into_iter().map(EgressPeer::from).collect());
            ingress_rules.push(RawRule { name, action, peers, ports, named_port });
        }
        rules
    }
}

const fn single(port: u16) -> PortSpec {
    PortSpec::Range { first: port, last: port }
}

fn unknown_port(field: &Field) -> PortMatch {
    PortMatch { protocol: Err(Field::clone(field)), port: Err(Field::clone(field)) }
}
