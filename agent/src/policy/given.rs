//! What a rule asks of a connection beside its ends and ports: mutual TLS, principals, requests.

use std::sync::Arc;

use crate::model::facts::{ConnectionFacts, Request};
use crate::model::verdict::Fact;

use super::fault::Field;
use super::tri::Tri;

/// A condition on the facts of a connection. `All` of nothing holds always.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Given {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    /// It is encrypted, and both ends are known. The field asks for it.
    MutualTls(Field),
    /// The initiator's principal. Without mutual TLS there is none.
    Principal(TextMatch, Field),
    Request(RequestMatch, Field),
    Unknown(Field),
}

/// What is asked of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum RequestMatch {
    Method(TextMatch),
    Path(TextMatch),
    Host(TextMatch),
    /// By its name in lower case.
    Header(Arc<str>, TextMatch),
    DnsName(TextMatch),
    /// It is HTTP at all.
    IsHttp,
    IsDns,
}

/// What is asked of a text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum TextMatch {
    /// It is there at all, and not empty.
    Present,
    Exact(Arc<str>),
    Prefix(Arc<str>),
    Suffix(Arc<str>),
}

impl TextMatch {
    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Present => !text.is_empty(),
            Self::Exact(wanted) => **wanted == *text,
            Self::Prefix(wanted) => text.starts_with(&**wanted),
            Self::Suffix(wanted) => text.ends_with(&**wanted),
        }
    }
}

impl Given {
    /// It holds always.
    pub(crate) const fn nothing() -> Self {
        Self::All(Vec::new())
    }

    /// Whether it holds for what is known of a connection.
    pub(crate) fn holds(&self, facts: &ConnectionFacts) -> Tri {
        let missing = |field: &Field, fact| Tri::field(&Field::lacking(Arc::clone(field.path()), fact));
        match self {
            Self::All(all) => Tri::all(all, |given| given.holds(facts)),
            Self::Any(any) => Tri::any(any, |given| given.holds(facts)),
            Self::Not(inner) => !inner.holds(facts),
            Self::MutualTls(field) => match facts.mutual_tls {
                Some(mutual) => mutual.into(),
                None => missing(field, Fact::MutualTls),
            },
            Self::Principal(wanted, field) => match (facts.mutual_tls, &facts.principal) {
                (Some(false), _) => Tri::No,
                (_, Some(principal)) => wanted.matches(principal).into(),
                (_, None) => missing(field, Fact::Principal),
            },
            Self::Request(wanted, field) => match &facts.request {
                Some(request) => wanted.matches(request).into(),
                None => missing(field, Fact::Request),
            },
            Self::Unknown(field) => Tri::field(field),
        }
    }
}

impl RequestMatch {
    fn matches(&self, request: &Request) -> bool {
        match (self, request) {
            (Self::Method(wanted), Request::Http { method, .. }) => wanted.matches(method),
            (Self::Path(wanted), Request::Http { path, .. }) => wanted.matches(path),
            (Self::Host(wanted), Request::Http { host, .. }) => wanted.matches(host),
            (Self::Header(name, wanted), Request::Http { headers, .. }) => {
                headers.iter().any(|(known, value)| known == name && wanted.matches(value))
            }
            (Self::DnsName(wanted), Request::Dns { name }) => wanted.matches(name),
            (Self::IsHttp, Request::Http { .. }) | (Self::IsDns, Request::Dns { .. }) => true,
            _ => false,
        }
    }
}
