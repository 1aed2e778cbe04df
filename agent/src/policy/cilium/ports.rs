//! Ports: `toPorts`, and `icmps`.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::types::{IcmpField, IcmpRule, PortEntry, PortRule};
use super::{Position, Reader};
use crate::model::edge::Protocol;
use crate::policy::fault::{Content, Field};
use crate::policy::network_policy::ports::read_name;
use crate::policy::spec::{Action, L7, PortMatch, PortSpec, Ports};

/// The most entries of `ports` and of `fields`.
const ENTRIES: usize = 40;

/// The names of ICMP types, and of ICMPv6's (cilium, pkg/policy/api/icmp.go).
const ICMP: [(&str, u8); 14] = [
    ("EchoReply", 0),
    ("DestinationUnreachable", 3),
    ("Redirect", 5),
    ("Echo", 8),
    ("EchoRequest", 8),
    ("RouterAdvertisement", 9),
    ("RouterSelection", 10),
    ("TimeExceeded", 11),
    ("ParameterProblem", 12),
    ("Timestamp", 13),
    ("TimestampReply", 14),
    ("Photuris", 40),
    ("ExtendedEchoRequest", 42),
    ("ExtendedEchoReply", 43),
];
const ICMP_V6: [(&str, u8); 21] = [
    ("DestinationUnreachable", 1),
    ("PacketTooBig", 2),
    ("TimeExceeded", 3),
    ("ParameterProblem", 4),
    ("EchoRequest", 128),
    ("EchoReply", 129),
    ("MulticastListenerQuery", 130),
    ("MulticastListenerReport", 131),
    ("MulticastListenerDone", 132),
    ("RouterSolicitation", 133),
    ("RouterAdvertisement", 134),
    ("NeighborSolicitation", 135),
    ("NeighborAdvertisement", 136),
    ("RedirectMessage", 137),
    ("RouterRenumbering", 138),
    ("ICMPNodeInformationQuery", 139),
    ("ICMPNodeInformationResponse", 140),
    ("InverseNeighborDiscoverySolicitation", 141),
    ("InverseNeighborDiscoveryAdvertisement", 142),
    ("ExtendedEchoRequest", 160),
    ("ExtendedEchoReply", 161),
];

impl Reader {
    /// What a rule says about ports: one for each entry of `toPorts`, and one for `icmps`.
    pub(super) fn entries(
        &mut self,
        to_ports: &[PortRule],
        icmps: &[IcmpRule],
        position: &Position<'_>,
    ) -> Vec<(Ports, Option<L7>)> {
        let mut entries = Vec::new();
        for (at, rule) in to_ports.iter().enumerate() {
            let path = format!("{}.toPorts[{at}]", position.path);
            let ports = self.port_rule(rule, &path);
            let l7 = self.l7(rule, &path, position.ingress);
            if l7.is_some() && position.action == Action::Deny {
                self.faults.add(format!("{path}.rules"), "is not for rules that deny");
            }
            let ports = self.unknown.take(&path).map_or(ports, Ports::Unknown);
            entries.push((ports, l7));
        }
        if !icmps.is_empty() {
            let mut ports = Vec::new();
            for (at, rule) in icmps.iter().enumerate() {
                let path = format!("{}.icmps[{at}]", position.path);
                let fields = rule.fields.as_deref().unwrap_or_default();
                if fields.len() > ENTRIES {
                    self.faults.add(path.as_str(), format!("has {} fields: at most {ENTRIES}", fields.len()));
                }
                for (at, field) in fields.iter().enumerate() {
                    let path = format!("{path}.fields[{at}]");
                    let read = self.icmp(field, &path);
                    ports.push(self.unknown.take(&path).map_or(read, |field| unknown_port(&field)));
                }
            }
            entries.push((Ports::Of(ports), None));
        }
        entries
    }

    fn port_rule(&mut self, rule: &PortRule, path: &str) -> Ports {
        let path = format!("{path}.ports");
        let entries = rule.ports.as_deref().unwrap_or_default();
        if entries.is_empty() {
            // Versions differ: nothing, or every port.
            return Ports::Unknown(Field::unsupported(path));
        }
        if entries.len() > ENTRIES {
            let message = format!("has {} entries: at most {ENTRIES}", entries.len());
            return Ports::Unknown(self.faults.add(path, message));
        }
        let mut ports = Vec::new();
        for (at, entry) in entries.iter().enumerate() {
            let path = format!("{path}[{at}]");
            let read = self.port(entry, &path);
            match self.unknown.take(&path) {
                Some(field) => ports.push(unknown_port(&field)),
                None => ports.extend(read),
            }
        }
        Ports::Of(ports)
    }

    /// One entry, for each of the protocols that it means.
    fn port(&mut self, entry: &PortEntry, path: &str) -> Vec<PortMatch> {
        let protocols = self.protocols(entry.protocol.as_deref(), path);
        let port = self.port_spec(entry, path);
        let one = |protocol| PortMatch { protocol, port: port.clone() };
        match protocols {
            Ok(protocols) => protocols.iter().map(|protocol| one(Ok(*protocol))).collect(),
            Err(field) => vec![one(Err(field))],
        }
    }

    /// Absent and `ANY` are all that have ports.
    fn protocols(&mut self, name: Option<&str>, path: &str) -> Content<&'static [Protocol]> {
        let path = format!("{path}.protocol");
        Ok(match name {
            None | Some("ANY" | "") => &[Protocol::Tcp, Protocol::Udp, Protocol::Sctp],
            Some("TCP") => &[Protocol::Tcp],
            Some("UDP") => &[Protocol::Udp],
            Some("SCTP") => &[Protocol::Sctp],
            // What its port would mean is not documented.
            Some("ICMP" | "ICMPv6" | "VRRP" | "IGMP") => return Err(Field::unsupported(path)),
            Some(other) => {
                let message = format!("\"{other}\" is none of TCP, UDP, SCTP, ANY");
                return Err(self.faults.add(path, message));
            }
        })
    }

    /// `0` is every port; `endPort` is inclusive, and 0 is none.
    fn port_spec(&mut self, entry: &PortEntry, path: &str) -> Content<PortSpec> {
        let end = entry.end_port.filter(|end| *end != 0);
        let end_path = || format!("{path}.endPort");
        let path = format!("{path}.port");
        let Some(text) = entry.port.as_deref().filter(|text| !text.is_empty()) else {
            return Err(self.faults.add(path, "is required"));
        };
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            let name = read_name(&text.to_ascii_lowercase(), &path, &mut self.faults)?;
            return match end {
                None => Ok(PortSpec::Named(name)),
                Some(_) => Err(self.faults.add(end_path(), "needs a port number, not a port name")),
            };
        }
        let Ok(first) = text.parse::<u16>() else {
            return Err(self.faults.add(path, format!("{text} is not a port: 0 to 65535")));
        };
        match end {
            None if first == 0 => Ok(PortSpec::Any),
            None => Ok(PortSpec::Range { first, last: first }),
            Some(end) => match u16::try_from(end).ok().filter(|last| *last >= first) {
                Some(last) => Ok(PortSpec::Range { first, last }),
                None => {
                    let message = format!("{end} is not a port from {first} to 65535");
                    Ok(PortSpec::From { first, end: self.faults.add(end_path(), message) })
                }
            },
        }
    }

    /// A type of ICMP, of any code.
    fn icmp(&mut self, field: &IcmpField, path: &str) -> PortMatch {
        let (protocol, names): (_, &[(&str, u8)]) = match field.family.as_deref() {
            None | Some("IPv4" | "") => (Ok(Protocol::Icmp), &ICMP),
            Some("IPv6") => (Ok(Protocol::Icmpv6), &ICMP_V6),
            Some(other) => {
                let message = format!("\"{other}\" is none of IPv4, IPv6");
                (Err(self.faults.add(format!("{path}.family"), message)), &ICMP)
            }
        };
        let path = format!("{path}.type");
        let number = match &field.kind {
            Some(IntOrString::Int(number)) => u8::try_from(*number).ok(),
            Some(IntOrString::String(text)) => {
                let known = names.iter().find(|(name, _)| name == text).map(|(_, number)| *number);
                known.or_else(|| text.parse().ok())
            }
            None => None,
        };
        let range = |number: u8| {
            let first = u16::from(number) << 8;
            PortSpec::Range { first, last: first | 0xff }
        };
        let shown = match &field.kind {
            Some(IntOrString::Int(number)) => {
                format!("{number} is not a type of ICMP: 0 to 255, or its name")
            }
            Some(IntOrString::String(text)) => {
                format!("\"{text}\" is not a type of ICMP: 0 to 255, or its name")
            }
            None => "is required".to_owned(),
        };
        let port = number.map(range).ok_or_else(|| self.faults.add(path, shown));
        PortMatch { protocol, port }
    }
}

fn unknown_port(field: &Field) -> PortMatch {
    PortMatch { protocol: Err(Field::clone(field)), port: Err(Field::clone(field)) }
}
