//! The `ports` of a rule.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::NetworkPolicyPort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::model::edge::Protocol;
use crate::policy::fault::{Content, Faults};
use crate::policy::spec::{PortMatch, PortSpec, Ports};

/// Reads the ports of the rule at `path`; none means any.
pub(super) fn read(ports: &[NetworkPolicyPort], path: &str, faults: &mut Faults) -> Ports {
    if ports.is_empty() {
        return Ports::Any;
    }
    let each = ports.iter().enumerate();
    Ports::Of(each.map(|(index, port)| read_port(port, &format!("{path}.ports[{index}]"), faults)).collect())
}

fn read_port(port: &NetworkPolicyPort, path: &str, faults: &mut Faults) -> PortMatch {
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => {
            Err(faults.add(format!("{path}.protocol"), format!("\"{other}\" is none of TCP, UDP, SCTP")))
        }
    };
    PortMatch { protocol, port: read_spec(port, path, faults) }
}

fn read_spec(port: &NetworkPolicyPort, path: &str, faults: &mut Faults) -> Content<PortSpec> {
    let end_path = || format!("{path}.endPort");
    match (&port.port, port.end_port) {
        (None, None) => Ok(PortSpec::Any),
        (None, Some(_)) => Err(faults.add(end_path(), "needs a port")),
        (Some(IntOrString::String(name)), end) => {
            let name = read_name(name, &format!("{path}.port"), faults)?;
            match end {
                None => Ok(PortSpec::Named(name)),
                Some(_) => Err(faults.add(end_path(), "needs a port number, not a port name")),
            }
        }
        (Some(IntOrString::Int(first)), end) => {
            let first = read_number(*first).map_err(|message| faults.add(format!("{path}.port"), message))?;
            Ok(match end.map(|end| read_end(end, first)) {
                None => PortSpec::Range { first, last: first },
                Some(Ok(last)) => PortSpec::Range { first, last },
                Some(Err(message)) => PortSpec::From { first, end: faults.add(end_path(), message) },
            })
        }
    }
}

fn read_number(number: i32) -> Result<u16, String> {
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    port.ok_or_else(|| format!("{number} is not a port: 1 to 65535"))
}

fn read_end(end: i32, first: u16) -> Result<u16, String> {
    let last = read_number(end)?;
    if last < first {
        return Err(format!("{last} must not be below port {first}"));
    }
    Ok(last)
}

/// An IANA service name (RFC 6335, apimachinery `IsValidPortName`).
pub(in crate::policy) fn read_name(name: &str, path: &str, faults: &mut Faults) -> Content<Arc<str>> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let valid = (1..=15).contains(&name.len())
        && name.bytes().all(inner)
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    if valid {
        return Ok(name.into());
    }
    let message = format!(
        "\"{name}\" is not a port name: 1 to 15 of a-z 0-9 -, at least one letter, no - at an end or twice in a row"
    );
    Err(faults.add(path, message))
}
