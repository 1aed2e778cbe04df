//! Ports of rules and exceptions.

use std::fmt;

use crate::model::edge::Protocol;

use super::api::PortSpec;
use super::finding::Findings;

/// Ports of one protocol, both ends included; for ICMP, every type and code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ports {
    protocol: Protocol,
    first: u16,
    last: u16,
}

/// The ports of a rule or exception; none stands for all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PortList(Vec<Ports>);

impl PortList {
    pub(crate) fn has(&self, port: u16, protocol: Protocol) -> bool {
        let has = |ports: &Ports| ports.protocol == protocol && (ports.first..=ports.last).contains(&port);
        self.0.is_empty() || self.0.iter().any(has)
    }

    /// Reads a list; what is wrong with it is found below `field`.
    pub(crate) fn read(specs: &[PortSpec], field: &str, findings: &mut Findings) -> Self {
        let read = |(index, spec)| Ports::read(spec, &format!("{field}[{index}]"), findings);
        Self(specs.iter().enumerate().filter_map(read).collect())
    }
}

impl Ports {
    fn read(spec: &PortSpec, field: &str, findings: &mut Findings) -> Option<Self> {
        let protocol = spec.protocol.as_deref().unwrap_or("TCP");
        // As the API does: its spelling only.
        let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp, Protocol::Icmpv6];
        let Some(protocol) = known.into_iter().find(|known| known.as_str() == protocol) else {
            let wrong = format_args!("\"{protocol}\" is none of TCP, UDP, SCTP, ICMP, ICMPv6");
            findings.wrong(format!("{field}.protocol"), wrong);
            return None;
        };
        let all = Self { protocol, first: 0, last: u16::MAX };
        let Some(given) = spec.port else {
            if spec.end_port.is_some() {
                findings.wrong(format!("{field}.endPort"), "is given without port");
                return None;
            }
            return Some(all);
        };
        if !protocol.has_ports() {
            findings.wrong(format!("{field}.port"), format_args!("{protocol} has no ports"));
            return None;
        }
        let first = read_number(given, &format!("{field}.port"), findings)?;
        let last = match spec.end_port {
            Some(end) => read_number(end, &format!("{field}.endPort"), findings)?,
            None => first,
        };
        if last < first {
            findings.wrong(format!("{field}.endPort"), format_args!("{last} is below port {first}"));
            return None;
        }
        Some(Self { protocol, first, last })
    }
}

fn read_number(given: i64, field: &str, findings: &mut Findings) -> Option<u16> {
    let port = u16::try_from(given).ok().filter(|port| *port > 0);
    if port.is_none() {
        findings.wrong(field, format_args!("{given} is no port: 1 to 65535"));
    }
    port
}

impl fmt::Display for PortList {
    /// `80/TCP, 8000-8999/TCP, UDP`; `every port` where none is named.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("every port");
        }
        for (at, Ports { protocol, first, last }) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            if *first == 0 {
                write!(f, "{comma}{protocol}")?;
            } else if first == last {
                write!(f, "{comma}{first}/{protocol}")?;
            } else {
                write!(f, "{comma}{first}-{last}/{protocol}")?;
            }
        }
        Ok(())
    }
}
