//! Protocols, ports and ICMP.

use serde_json::Value;

use super::Reader;
use super::entity::End;
use super::types::{self, Icmp};
use crate::model::edge::Protocol;
use crate::model::verdict::Fact;
use crate::policy::fault::{Content, Field};
use crate::policy::spec::{PortMatch, PortSpec, Ports};

/// Protocols by name and number; those without a [`Protocol`] are never judged.
const PROTOCOLS: [(&str, u8); 6] =
    [("TCP", 6), ("UDP", 17), ("ICMP", 1), ("ICMPv6", 58), ("SCTP", 132), ("UDPLite", 136)];

/// Whether a rule's protocol is TCP.
pub(super) fn is_tcp(protocol: &Value) -> bool {
    read_protocol(protocol) == Ok(6)
}

/// A protocol's number, from its name or number.
fn read_protocol(value: &Value) -> Result<u8, String> {
    let number = match value {
        Value::Number(number) => number.as_u64().and_then(|number| u8::try_from(number).ok()),
        Value::String(text) => {
            let named = PROTOCOLS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
            named.map(|(_, number)| *number).or_else(|| text.parse().ok())
        }
        _ => None,
    };
    number.filter(|number| *number != 0).ok_or_else(|| {
        let names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
        format!("{value} is none of {} and no number from 1 to 255", names.join(", "))
    })
}

impl Reader {
    /// Which protocols and ports a rule is for, and which it is not for.
    pub(super) fn ports(
        &mut self,
        raw: &types::Rule,
        destination: &End<'_>,
        path: &str,
    ) -> (Ports, Vec<PortMatch>) {
        let mut not = Vec::new();
        if let Some(value) = &raw.not_protocol {
            match self.protocol(value, &format!("{path}.notProtocol")) {
                Ok(number) => not.extend(Protocol::from_number(number).map(all_of)),
                Err(field) => not.push(unknown(&field)),
            }
        }
        let protocol = match &raw.protocol {
            None => Ok(None),
            Some(value) => self.protocol(value, &format!("{path}.protocol")).map(Some),
        };
        let ports = destination.entity.ports.as_deref().unwrap_or_default();
        let not_ports = destination.entity.not_ports.as_deref().unwrap_or_default();
        let number = match protocol {
            Ok(number) => number,
            Err(field) => return (Ports::Unknown(field), not),
        };
        let without_ports = ports.is_empty() && not_ports.is_empty();
        if !without_ports && !number.is_some_and(has_ports) {
            let message = "must be TCP, UDP or SCTP where there are ports or notPorts";
            return (Ports::Unknown(self.faults.add(format!("{path}.protocol"), message)), not);
        }
        for (icmp, name) in [(&raw.icmp, "icmp"), (&raw.not_icmp, "notICMP")] {
            if icmp.is_some() && !matches!(number, Some(1 | 58)) {
                let message = "needs the protocol ICMP or ICMPv6";
                return (Ports::Unknown(self.faults.add(format!("{path}.{name}"), message)), not);
            }
        }
        let Some(number) = number else { return (Ports::Any, not) };
        // Of another protocol, no connection is kept.
        let Some(protocol) = Protocol::from_number(number) else { return (Ports::Of(Vec::new()), not) };
        let of = |port| PortMatch { protocol: Ok(protocol), port };
        let path_of = |list: &str, at: usize| format!("{}.{list}[{at}]", destination.path);
        let mut wanted: Vec<PortMatch> = Vec::new();
        for (at, port) in ports.iter().enumerate() {
            wanted.push(of(self.port(port, &path_of("ports", at))));
        }
        for (at, port) in not_ports.iter().enumerate() {
            not.push(of(self.port(port, &path_of("notPorts", at))));
        }
        if let Some(icmp) = &raw.icmp {
            wanted.push(of(self.icmp(icmp, &format!("{path}.icmp"))));
        }
        if let Some(icmp) = raw.not_icmp.as_ref().filter(|icmp| icmp.kind.is_some() || icmp.code.is_some()) {
            not.push(of(self.icmp(icmp, &format!("{path}.notICMP"))));
        }
        if wanted.is_empty() {
            wanted.push(all_of(protocol));
        }
        (Ports::Of(wanted), not)
    }

    fn protocol(&mut self, value: &Value, path: &str) -> Content<u8> {
        read_protocol(value).map_err(|message| self.faults.add(path, message))
    }

    /// A number, a range such as 8000:9000, or a name.
    fn port(&mut self, value: &Value, path: &str) -> Content<PortSpec> {
        read_port(value).map_err(|message| self.faults.add(path, message))
    }

    /// Type and code, where connections of ICMP have their port.
    fn icmp(&mut self, icmp: &Icmp, path: &str) -> Content<PortSpec> {
        let kind = match icmp.kind {
            Some(number) => u8::try_from(number).ok().filter(|kind| *kind != u8::MAX).ok_or(("type", number)),
            None if icmp.code.is_none() => return Ok(PortSpec::Any),
            None => return Err(self.faults.add(format!("{path}.code"), "needs a type")),
        };
        let code = icmp.code.map(|number| u8::try_from(number).ok().ok_or(("code", number))).transpose();
        match (kind, code) {
            (Ok(kind), Ok(None)) => {
                let first = u16::from(kind) << 8;
                Ok(PortSpec::Range { first, last: first | 0xff })
            }
            (Ok(kind), Ok(Some(code))) => {
                let only = u16::from(kind) << 8 | u16::from(code);
                Ok(PortSpec::Range { first: only, last: only })
            }
            (Err((name, number)), _) | (_, Err((name, number))) => {
                let most = if name == "type" { 254 } else { 255 };
                let message = format!("{number} is not in 0 to {most}");
                Err(self.faults.add(format!("{path}.{name}"), message))
            }
        }
    }

    /// The initiator's port: connections are kept without it.
    pub(super) fn initiator_ports(&mut self, source: &End<'_>) -> Option<Field> {
        let (ports, not_ports) = (&source.entity.ports, &source.entity.not_ports);
        let (list, ports) = match (ports, not_ports) {
            (Some(ports), _) if !ports.is_empty() => ("ports", ports),
            (_, Some(ports)) if !ports.is_empty() => ("notPorts", ports),
            _ => return None,
        };
        let path = format!("{}.{list}", source.path);
        for (at, port) in ports.iter().enumerate() {
            if let Err(field) = self.port(port, &format!("{path}[{at}]")) {
                return Some(field);
            }
        }
        Some(Field::lacking(path, Fact::InitiatorPort))
    }
}

const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 132)
}

const fn all_of(protocol: Protocol) -> PortMatch {
    PortMatch { protocol: Ok(protocol), port: Ok(PortSpec::Any) }
}

fn unknown(field: &Field) -> PortMatch {
    PortMatch { protocol: Err(Field::clone(field)), port: Err(Field::clone(field)) }
}

fn read_port(value: &Value) -> Result<PortSpec, String> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
    let refuse = || format!("{value} is not a port such as 80, \"8000:9000\" or a name");
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return Err(refuse()),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if let Some((first, last)) = text.split_once(':') {
        let (Some(first), Some(last)) = (number(first), number(last)) else { return Err(refuse()) };
        if first > last {
            return Err(format!("must not begin above its end: {first} to {last}"));
        }
        return Ok(PortSpec::Range { first, last });
    }
    if digits(&text) || value.is_number() {
        let port = number(&text).ok_or_else(|| format!("{text} is not a port: 1 to 65535"))?;
        return Ok(PortSpec::Range { first: port, last: port });
    }
    let part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if text.is_empty() || text.len() > 128 || !text.bytes().all(part) {
        return Err(refuse());
    }
    Ok(PortSpec::Named(text.into()))
}
