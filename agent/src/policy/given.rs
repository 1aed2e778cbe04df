//! What a rule asks of a connection beside its ends and ports: mutual TLS, principals, requests.

use std::sync::Arc;

use crate::model::facts::{ConnectionFacts, Request};
use crate::model::verdict::Fact;

use super::fault::Field;
use super::mesh::MeshMatch;
use super::spec::NamePattern;
use super::tri::Tri;

/// A condition on the facts of a connection. `All` of nothing holds always.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Given {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    /// It is encrypted, and both ends are known. The field asks for it.
    MutualTls(Field),
    Request(RequestMatch, Field),
    Mesh(MeshMatch),
    Unknown(Field),
}

/// What is asked of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum RequestMatch {
    Method(TextMatch),
    Path(TextMatch),
    /// The path without what is behind `?` or `#`.
    PlainPath(TextMatch),
    Host(TextMatch),
    /// The host, whatever the case; the text is in lower case.
    HostInAnyCase(TextMatch),
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
    /// A path in which `{*}` is one segment, and `{**}` any text, `/` too.
    Template(Arc<str>),
    /// All of it has this form.
    Regex(Pattern),
    /// A domain name, or many.
    Name(NamePattern),
}

/// A regular expression.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    text: Arc<str>,
    compiled: regex::Regex,
}

impl Pattern {
    /// Bytes that one may take, compiled: the engines' own are of some kilobytes.
    const LIMIT: usize = 1 << 20;

    /// One that has to match the whole of a text.
    ///
    /// # Errors
    /// If it is none, or too large: in words.
    pub(crate) fn whole(text: &str) -> Result<Self, String> {
        let refuse = |error: regex::Error| match error {
            regex::Error::CompiledTooBig(limit) => {
                format!("the regular expression takes more than {limit} bytes, compiled")
            }
            // The others show the expression on lines of its own.
            error => {
                let error = error.to_string();
                let last = error.lines().last().unwrap_or_default().trim();
                format!("\"{text}\" is not a regular expression: {}", last.trim_start_matches("error: "))
            }
        };
        // Alone first: what closes a group that it does not open would end ours.
        regex::RegexBuilder::new(text).size_limit(Self::LIMIT).build().map_err(refuse)?;
        let mut builder = regex::RegexBuilder::new(&format!(r"\A(?:{text})\z"));
        let compiled = builder.size_limit(Self::LIMIT).dfa_size_limit(Self::LIMIT).build().map_err(refuse)?;
        Ok(Self { text: text.into(), compiled })
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        self.compiled.is_match(text)
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl Eq for Pattern {}
impl std::hash::Hash for Pattern {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl TextMatch {
    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Present => !text.is_empty(),
            Self::Exact(wanted) => **wanted == *text,
            Self::Prefix(wanted) => text.starts_with(&**wanted),
            Self::Suffix(wanted) => text.ends_with(&**wanted),
            Self::Template(template) => template_matches(template, text),
            Self::Regex(wanted) => wanted.matches(text),
            Self::Name(wanted) => wanted.matches(&text.to_ascii_lowercase()),
        }
    }
}

impl Given {
    /// It holds always.
    pub(crate) const fn nothing() -> Self {
        Self::All(Vec::new())
    }

    /// Whether it holds for what is known of a connection. What a mesh asks is not known here.
    pub(crate) fn holds(&self, facts: &ConnectionFacts) -> Tri {
        self.holds_with(facts, &|wanted| Tri::field(&wanted.field))
    }

    /// The same, where `mesh` answers for what a mesh asks.
    pub(crate) fn holds_with(&self, facts: &ConnectionFacts, mesh: &dyn Fn(&MeshMatch) -> Tri) -> Tri {
        let missing = |field: &Field, fact| Tri::field(&Field::lacking(Arc::clone(field.path()), fact));
        match self {
            Self::All(all) => Tri::all(all, |given| given.holds_with(facts, mesh)),
            Self::Any(any) => Tri::any(any, |given| given.holds_with(facts, mesh)),
            Self::Not(inner) => !inner.holds_with(facts, mesh),
            Self::MutualTls(field) => match facts.mutual_tls {
                Some(mutual) => mutual.into(),
                None => missing(field, Fact::MutualTls),
            },
            Self::Request(wanted, field) => match &facts.request {
                Some(request) => wanted.matches(request).into(),
                None => missing(field, Fact::Request),
            },
            Self::Mesh(wanted) => mesh(wanted),
            Self::Unknown(field) => Tri::field(field),
        }
    }
}

impl RequestMatch {
    pub(super) fn matches(&self, request: &Request) -> bool {
        match (self, request) {
            (Self::Method(wanted), Request::Http { method, .. }) => wanted.matches(method),
            (Self::Path(wanted), Request::Http { path, .. }) => wanted.matches(path),
            (Self::PlainPath(wanted), Request::Http { path, .. }) => {
                wanted.matches(path.split(['?', '#']).next().unwrap_or_default())
            }
            (Self::Host(wanted), Request::Http { host, .. }) => wanted.matches(host),
            (Self::HostInAnyCase(wanted), Request::Http { host, .. }) => wanted.matches(&host.to_lowercase()),
            (Self::Header(name, wanted), Request::Http { headers, .. }) => {
                headers.iter().any(|(known, value)| known == name && wanted.matches(value))
            }
            (Self::DnsName(wanted), Request::Dns { name }) => wanted.matches(name),
            (Self::IsHttp, Request::Http { .. }) | (Self::IsDns, Request::Dns { .. }) => true,
            _ => false,
        }
    }
}

/// Whether a path has the form of a template.
fn template_matches(template: &str, path: &str) -> bool {
    fn rest(mut wanted: &[&str], mut found: &[&str]) -> bool {
        loop {
            match (wanted.split_first(), found.split_first()) {
                (None, None) => return true,
                // What is before it ends in `/`, so there is a segment, though maybe an empty one.
                (Some((&"{**}", after)), _) => {
                    return (1..=found.len()).any(|at| rest(after, found.get(at..).unwrap_or_default()));
                }
                (Some((first, after)), Some((segment, behind)))
                    if first == segment || *first == "{*}" && !segment.is_empty() =>
                {
                    (wanted, found) = (after, behind);
                }
                _ => return false,
            }
        }
    }
    let segments = |text| str::split(text, '/').collect::<Vec<_>>();
    rest(&segments(template), &segments(path))
}
