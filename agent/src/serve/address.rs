//! Where an agent's API is: a unix socket or a loopback address, which do not leave the machine; or an address that
//! does, where TLS and a review of who asks come before any answer.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

/// The address of an agent's API.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// A loopback address and port.
    Loopback(SocketAddr),
}

/// An address that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("api address \"{0}\": the path of the unix socket is missing")]
    NoPath(String),
    #[error(
        "api address \"{0}\" is neither unix:/path, /path, nor a loopback address with a port (127.0.0.1:9478, [::1]:9478)"
    )]
    Form(String),
    #[error(
        "api address \"{text}\": {ip} is not a loopback address; the API shows the cluster's map without asking who reads it, so it stays on this machine"
    )]
    NotLoopback { text: String, ip: IpAddr },
    #[error("api address \"{0}\": https is not spoken here, a loopback address needs none")]
    Https(String),
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `unix:/path`, `/path`, `127.0.0.1:9478`, `[::1]:9478`, `localhost:9478`, also with `http://`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let path = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:"));
        if let Some(path) = path.or_else(|| text.starts_with('/').then_some(text)) {
            if path.is_empty() || path.ends_with('/') {
                return Err(AddressError::NoPath(text.to_owned()));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        if text.starts_with("https://") {
            return Err(AddressError::Https(text.to_owned()));
        }
        let bare = text.strip_prefix("http://").unwrap_or(text);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        let address = match bare.strip_prefix("localhost:") {
            // Not looked up: what the name means is not the agent's to trust.
            Some(port) => port.parse().ok().map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            None => bare.parse().ok(),
        };
        let address = address.ok_or_else(|| AddressError::Form(text.to_owned()))?;
        if !address.ip().to_canonical().is_loopback() {
            return Err(AddressError::NotLoopback { text: text.to_owned(), ip: address.ip() });
        }
        Ok(Self::Loopback(address))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Loopback(address) => write!(f, "http://{address}"),
        }
    }
}

/// Where an agent serves its API.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServeAt {
    /// To whoever is on this machine, and may open the socket.
    Local(Address),
    /// By TLS, to whom the API server says that they may.
    Reviewed(SocketAddr),
}

impl FromStr for ServeAt {
    type Err = AddressError;

    /// Reads what [`Address`] reads, and other addresses with a port.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.parse() {
            Ok(address) => Ok(Self::Local(address)),
            Err(AddressError::NotLoopback { .. } | AddressError::Https(_)) => {
                let bare =
                    text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
                let address = bare.strip_suffix('/').unwrap_or(bare).parse();
                address.map(Self::Reviewed).ok().ok_or_else(|| AddressError::Form(text.to_owned()))
            }
            Err(error) => Err(error),
        }
    }
}

impl fmt::Display for ServeAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(address) => write!(f, "{address}"),
            Self::Reviewed(address) => write!(f, "https://{address}"),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        for (text, shown) in [
            ("unix:/run/dryfence/agent.sock", "unix:/run/dryfence/agent.sock"),
            ("unix:///run/a.sock", "unix:/run/a.sock"),
            ("/run/a.sock", "unix:/run/a.sock"),
            ("127.0.0.1:9478", "http://127.0.0.1:9478"),
            ("127.3.2.1:9478", "http://127.3.2.1:9478"),
            ("http://127.0.0.1:9478/", "http://127.0.0.1:9478"),
            ("http://localhost:9478", "http://127.0.0.1:9478"),
            ("[::1]:9478", "http://[::1]:9478"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), shown, "{text}");
            assert_eq!(address.to_string().parse(), Ok(address), "{text}");
        }
    }

    #[test]
    fn what_leaves_the_machine_is_served_by_tls_only() {
        let local = |text: &str| ServeAt::Local(text.parse().unwrap());
        let reviewed = |text: &str| ServeAt::Reviewed(text.parse().unwrap());
        for (text, at) in [
            ("unix:/run/a.sock", local("/run/a.sock")),
            ("127.0.0.1:9478", local("127.0.0.1:9478")),
            ("[::]:9478", reviewed("[::]:9478")),
            ("192.0.2.7:9478", reviewed("192.0.2.7:9478")),
            ("https://127.0.0.1:9478", reviewed("127.0.0.1:9478")),
        ] {
            assert_eq!(text.parse(), Ok(at), "{text}");
        }
        assert_eq!("agent:1".parse::<ServeAt>(), Err(AddressError::Form("agent:1".to_owned())));
    }

    #[test]
    fn what_leaves_the_machine_or_cannot_be_read_is_refused() {
        let form = |text: &str| AddressError::Form(text.to_owned());
        let remote = |text: &str, ip: &str| AddressError::NotLoopback {
            text: text.to_owned(),
            ip: ip.parse().unwrap(),
        };
        for (text, error) in [
            ("0.0.0.0:9478", remote("0.0.0.0:9478", "0.0.0.0")),
            ("[::]:9478", remote("[::]:9478", "::")),
            ("192.0.2.7:9478", remote("192.0.2.7:9478", "192.0.2.7")),
            ("[::ffff:192.0.2.7]:9478", remote("[::ffff:192.0.2.7]:9478", "::ffff:192.0.2.7")),
            ("http://[2001:db8::1]:9478", remote("http://[2001:db8::1]:9478", "2001:db8::1")),
            ("https://127.0.0.1:9478", AddressError::Https("https://127.0.0.1:9478".to_owned())),
            ("unix:", AddressError::NoPath("unix:".to_owned())),
            ("/run/dryfence/", AddressError::NoPath("/run/dryfence/".to_owned())),
            ("127.0.0.1", form("127.0.0.1")),
            ("agent.example:9478", form("agent.example:9478")),
            ("localhost:99999", form("localhost:99999")),
            ("", form("")),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
    }
}
