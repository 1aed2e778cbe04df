//! What a rule asks for, attribute by attribute, before it is known who holds it against connections.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Reader;
use super::types::{Operation, Source, WhenSpec};
use crate::policy::fault::Field;
use crate::policy::given::{RequestMatch, TextMatch};
use crate::policy::mesh::MeshWhat;
use crate::policy::spec::parse_cidr;

/// One attribute: any of these, and none of those. No value of either kind asks nothing.
#[derive(Debug, Clone)]
pub(super) struct Attribute {
    pub(super) any: Vec<Test>,
    pub(super) none: Vec<Test>,
    pub(super) sight: Sight,
    /// It is about where the connection comes from.
    pub(super) of_source: bool,
    pub(super) field: Field,
    pub(super) not_field: Field,
}

/// Who can see an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// Everyone.
    Connection,
    /// A sidecar, in any connection.
    Sidecar,
    /// A sidecar, in HTTP.
    Http,
}

/// One value.
#[derive(Debug, Clone)]
pub(super) enum Test {
    Mesh(MeshWhat),
    Block(IpNet),
    /// The address that the connection was opened from at first, before proxies.
    Remote(IpNet),
    Unsupported,
    Broken(Field),
}

type Parse = fn(&Reader, &str) -> Result<Test, String>;

/// How an attribute's values are read, and who sees it.
struct Kind {
    parse: Parse,
    sight: Sight,
    of_source: bool,
}

const fn of_source(sight: Sight, parse: Parse) -> Kind {
    Kind { parse, sight, of_source: true }
}

const fn of_rest(sight: Sight, parse: Parse) -> Kind {
    Kind { parse, sight, of_source: false }
}

impl Reader {
    fn attribute(
        &mut self,
        kind: &Kind,
        (any, none): (&[String], &[String]),
        (field, not_field): (String, String),
    ) -> Option<Attribute> {
        if any.is_empty() && none.is_empty() {
            return None;
        }
        let any = self.tests(kind, any, &field);
        let none = self.tests(kind, none, &not_field);
        let Kind { sight, of_source, .. } = *kind;
        let (field, not_field) = (Field::from(&*field), Field::from(&*not_field));
        Some(Attribute { any, none, sight, of_source, field, not_field })
    }

    fn tests(&mut self, kind: &Kind, values: &[String], path: &str) -> Vec<Test> {
        let mut tests = Vec::new();
        for (at, value) in values.iter().enumerate() {
            let test = if value.is_empty() {
                Err("must not be empty".to_owned())
            } else {
                (kind.parse)(self, value)
            };
            tests.push(
                test.unwrap_or_else(|message| {
                    Test::Broken(self.faults.add(format!("{path}[{at}]"), message))
                }),
            );
        }
        tests
    }

    pub(super) fn source(&mut self, source: &Source, path: &str) -> Vec<Attribute> {
        let text = |name: &str| (format!("{path}.{name}"), format!("{path}.not{}", capital(name)));
        let pairs: [(&str, Kind, &[String], &[String]); 6] = [
            (
                "principals",
                of_source(Sight::Connection, principal),
                &source.principals,
                &source.not_principals,
            ),
            (
                "requestPrincipals",
                of_source(Sight::Http, unsupported),
                &source.request_principals,
                &source.not_request_principals,
            ),
            (
                "namespaces",
                of_source(Sight::Connection, namespace),
                &source.namespaces,
                &source.not_namespaces,
            ),
            (
                "serviceAccounts",
                of_source(Sight::Connection, service_account),
                &source.service_accounts,
                &source.not_service_accounts,
            ),
            ("ipBlocks", of_source(Sight::Connection, block), &source.ip_blocks, &source.not_ip_blocks),
            (
                "remoteIpBlocks",
                of_source(Sight::Sidecar, remote),
                &source.remote_ip_blocks,
                &source.not_remote_ip_blocks,
            ),
        ];
        let pairs = pairs.into_iter();
        pairs.filter_map(|(name, kind, any, none)| self.attribute(&kind, (any, none), text(name))).collect()
    }

    pub(super) fn operation(&mut self, operation: &Operation, path: &str) -> Vec<Attribute> {
        let text = |name: &str| (format!("{path}.{name}"), format!("{path}.not{}", capital(name)));
        let pairs: [(&str, Kind, &[String], &[String]); 4] = [
            ("ports", of_rest(Sight::Connection, port), &operation.ports, &operation.not_ports),
            ("hosts", of_rest(Sight::Http, host), &operation.hosts, &operation.not_hosts),
            ("methods", of_rest(Sight::Http, method), &operation.methods, &operation.not_methods),
            ("paths", of_rest(Sight::Http, url_path), &operation.paths, &operation.not_paths),
        ];
        let pairs = pairs.into_iter();
        pairs.filter_map(|(name, kind, any, none)| self.attribute(&kind, (any, none), text(name))).collect()
    }

    /// One `when`. A key that Istio does not know is refused.
    pub(super) fn condition(&mut self, when: &WhenSpec, path: &str) -> Result<Attribute, Field> {
        let fields = (format!("{path}.values"), format!("{path}.notValues"));
        let key = when.key.as_str();
        let kind = match key {
            "source.ip" => of_source(Sight::Connection, block),
            "remote.ip" => of_source(Sight::Sidecar, remote),
            "source.namespace" => of_source(Sight::Connection, namespace),
            "source.principal" => of_source(Sight::Connection, principal),
            "source.serviceAccount" => of_source(Sight::Connection, service_account),
            "destination.ip" => of_rest(Sight::Connection, destination),
            "destination.port" => of_rest(Sight::Connection, port),
            "connection.sni" => of_rest(Sight::Sidecar, server_name),
            "request.auth.principal" | "request.auth.audiences" | "request.auth.presenter" => {
                of_rest(Sight::Http, unsupported)
            }
            _ if key.starts_with("request.auth.claims[") && key.ends_with(']') => {
                of_rest(Sight::Http, unsupported)
            }
            _ if key.starts_with("experimental.envoy.filters.") => of_rest(Sight::Sidecar, unsupported),
            _ if header_of(key).is_some() => of_rest(Sight::Http, |_, value| Ok(header("", value))),
            _ => {
                let message = format!("\"{key}\" is no attribute that conditions know");
                self.faults.add(format!("{path}.key"), message);
                return Err(Field::unsupported(format!("{path}.key")));
            }
        };
        if when.values.is_empty() && when.not_values.is_empty() {
            return Err(self.faults.add(path, "must have values or notValues"));
        }
        let attribute = self.attribute(&kind, (&when.values, &when.not_values), fields);
        let mut attribute = attribute.ok_or_else(|| Field::from(path))?;
        if let Some(name) = header_of(key) {
            let named = |values: &[String]| values.iter().map(|value| header(name, value)).collect();
            (attribute.any, attribute.none) = (named(&when.values), named(&when.not_values));
        }
        Ok(attribute)
    }
}

/// `principals` after `not`.
fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// `*`, `*x`, `x*` or the whole text.
fn text(value: &str) -> TextMatch {
    match (value, value.strip_prefix('*'), value.strip_suffix('*')) {
        ("*", ..) => TextMatch::Present,
        (_, Some(suffix), _) => TextMatch::Suffix(suffix.into()),
        (_, None, Some(prefix)) => TextMatch::Prefix(prefix.into()),
        (_, None, None) => TextMatch::Exact(value.into()),
    }
}

fn principal(_: &Reader, value: &str) -> Result<Test, String> {
    // The scheme is part of a certificate's name, but not of a policy's.
    Ok(Test::Mesh(MeshWhat::Principal(text(value.strip_prefix("spiffe://").unwrap_or(value)))))
}

fn namespace(_: &Reader, value: &str) -> Result<Test, String> {
    Ok(Test::Mesh(MeshWhat::Namespace(text(value))))
}

/// `namespace/name`, or a name in the policy's own namespace.
fn service_account(reader: &Reader, value: &str) -> Result<Test, String> {
    if value.contains('*') || value.matches('/').count() > 1 {
        return Err(format!("\"{value}\" is not namespace/name or name"));
    }
    let (namespace, name) = match (value.split_once('/'), &reader.namespace) {
        (Some((namespace, name)), _) => (namespace.into(), name),
        (None, Ok(own)) => (Arc::clone(own), value),
        (None, Err(field)) => return Ok(Test::Broken(Field::clone(field))),
    };
    Ok(Test::Mesh(MeshWhat::ServiceAccount { namespace, name: name.into() }))
}

fn net(value: &str) -> Result<IpNet, String> {
    match value.parse::<IpAddr>() {
        Ok(address) => Ok(address.into()),
        Err(_) if value.contains('/') => parse_cidr(value),
        Err(_) => Err(format!("\"{value}\" is neither an address nor a CIDR")),
    }
}

fn block(_: &Reader, value: &str) -> Result<Test, String> {
    net(value).map(Test::Block)
}

fn remote(_: &Reader, value: &str) -> Result<Test, String> {
    net(value).map(Test::Remote)
}

fn destination(_: &Reader, value: &str) -> Result<Test, String> {
    Ok(Test::Mesh(MeshWhat::Destination(net(value)?)))
}

fn port(_: &Reader, value: &str) -> Result<Test, String> {
    let number = value.parse::<u16>().ok().filter(|number| *number > 0);
    let number = number.ok_or_else(|| format!("\"{value}\" is not a port: 1 to 65535"))?;
    Ok(Test::Mesh(MeshWhat::Port(number)))
}

fn server_name(_: &Reader, value: &str) -> Result<Test, String> {
    Ok(Test::Mesh(MeshWhat::ServerName(text(value))))
}

fn unsupported(_: &Reader, _: &str) -> Result<Test, String> {
    Ok(Test::Unsupported)
}

fn host(_: &Reader, value: &str) -> Result<Test, String> {
    Ok(Test::Mesh(MeshWhat::Request(RequestMatch::HostInAnyCase(text(&value.to_lowercase())))))
}

fn method(_: &Reader, value: &str) -> Result<Test, String> {
    Ok(Test::Mesh(MeshWhat::Request(RequestMatch::Method(text(value)))))
}

/// A path, or a template with `{*}` and, at its end, `{**}`.
fn url_path(_: &Reader, value: &str) -> Result<Test, String> {
    let is_template = value.contains("{*}") || value.contains("{**}");
    let path = match is_template {
        false => text(value),
        true => {
            let bare = value.replace("{**}", "").replace("{*}", "");
            let whole = |segment: &str| !segment.contains('{') || matches!(segment, "{*}" | "{**}");
            let last = value.find("{**}").is_none_or(|at| !value.split_at(at + 4).1.contains("{*"));
            if bare.contains(['*', '{', '}']) || !value.split('/').all(whole) || !last {
                return Err(format!(
                    "\"{value}\" is no path template: {{*}} and {{**}} are whole segments, {{**}} is the last"
                ));
            }
            TextMatch::Template(value.into())
        }
    };
    Ok(Test::Mesh(MeshWhat::Request(RequestMatch::PlainPath(path))))
}

/// `X-Name` of `request.headers[X-Name]`.
fn header_of(key: &str) -> Option<&str> {
    key.strip_prefix("request.headers[")?.strip_suffix(']').filter(|name| !name.is_empty())
}

fn header(name: &str, value: &str) -> Test {
    Test::Mesh(MeshWhat::Request(RequestMatch::Header(name.to_lowercase().into(), text(value))))
}
