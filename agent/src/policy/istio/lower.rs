//! Rules as one enforcer holds them against connections.
//!
//! In a connection that is no HTTP, and at a ztunnel always, a rule that allows and asks for anything of HTTP never
//! matches. Of a rule that denies, what is of HTTP is left out, so it denies more; at a ztunnel, a part that has
//! nothing else never matches (Istio docs, AuthorizationPolicy on plain TCP; pilot security/authz/model and ambient).

use std::sync::Arc;

use ipnet::IpNet;

use super::attribute::{Attribute, Sight, Test};
use crate::model::edge::Protocol;
use crate::policy::fault::Field;
use crate::policy::given::Given;
use crate::policy::mesh::{Enforcer, MeshMatch, MeshWhat};
use crate::policy::spec::{Action, IpBlock, Peer, Peers, PortMatch, PortSpec, Ports, Reach, Rule};

/// A rule as it was read. A list that is absent asks for nothing.
#[derive(Debug, Clone)]
pub(super) struct RawRule {
    pub(super) from: Option<Vec<Result<Vec<Attribute>, Field>>>,
    pub(super) to: Option<Vec<Result<Vec<Attribute>, Field>>>,
    pub(super) when: Vec<Result<Attribute, Field>>,
    /// Something else about it could not be read.
    pub(super) broken: Option<Field>,
    pub(super) index: u32,
}

/// What both peers and other conditions are made of.
trait Tree: Sized {
    fn all(parts: Vec<Self>) -> Self;
    fn any(parts: Vec<Self>) -> Self;
    fn not(part: Self) -> Self;
    fn mesh(wanted: MeshMatch) -> Self;
    fn block(net: IpNet, field: &Field) -> Self;
    fn unknown(field: Field) -> Self;
}

impl Tree for Peer {
    fn all(parts: Vec<Self>) -> Self {
        Self::All(parts)
    }

    fn any(parts: Vec<Self>) -> Self {
        Self::Any(parts)
    }

    fn not(part: Self) -> Self {
        Self::Not(Box::new(part))
    }

    fn mesh(wanted: MeshMatch) -> Self {
        Self::Mesh(wanted)
    }

    fn block(net: IpNet, _: &Field) -> Self {
        Self::Block(IpBlock { cidr: Ok(net), except: Vec::new(), broken_except: None }, Reach::Everyone)
    }

    fn unknown(field: Field) -> Self {
        Self::Unknown(field)
    }
}

impl Tree for Given {
    fn all(parts: Vec<Self>) -> Self {
        Self::All(parts)
    }

    fn any(parts: Vec<Self>) -> Self {
        Self::Any(parts)
    }

    fn not(part: Self) -> Self {
        Self::Not(Box::new(part))
    }

    fn mesh(wanted: MeshMatch) -> Self {
        Self::Mesh(wanted)
    }

    /// Blocks are among the peers.
    fn block(_: IpNet, field: &Field) -> Self {
        Self::Unknown(Field::clone(field))
    }

    fn unknown(field: Field) -> Self {
        Self::Unknown(field)
    }
}

/// Who holds rules against connections, and what they do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holder {
    pub(super) by: Enforcer,
    pub(super) action: Action,
}

impl Holder {
    const fn sees(self, attribute: &Attribute) -> bool {
        match self.by {
            Enforcer::Sidecar => true,
            Enforcer::Ztunnel => matches!(attribute.sight, Sight::Connection),
        }
    }

    fn is_http(self, field: &Field) -> MeshMatch {
        MeshMatch { by: self.by, what: MeshWhat::IsHttp, field: Field::clone(field) }
    }

    fn test<T: Tree>(self, test: &Test, field: &Field) -> T {
        let mesh = |what| T::mesh(MeshMatch { by: self.by, what, field: Field::clone(field) });
        match test {
            Test::Mesh(what) => mesh(what.clone()),
            Test::Block(net) => T::block(*net, field),
            Test::Remote(net) => {
                // Where a proxy may speak for another, nobody knows for whom.
                let direct = T::all(vec![T::not(mesh(MeshWhat::Forwarded)), T::block(*net, field)]);
                T::any(vec![direct, mesh(MeshWhat::Forwarded)])
            }
            Test::Unsupported => T::unknown(Field::unsupported(Arc::clone(field.path()))),
            Test::Broken(field) => T::unknown(Field::clone(field)),
        }
    }

    fn attribute<T: Tree>(self, attribute: &Attribute) -> T {
        let Attribute { any, none, sight, field, not_field, .. } = attribute;
        let tests = |tests: &[Test], field| T::any(tests.iter().map(|t| self.test(t, field)).collect());
        let mut parts = Vec::new();
        if !any.is_empty() {
            parts.push(tests(any, field));
        }
        if !none.is_empty() {
            parts.push(T::not(tests(none, not_field)));
        }
        let whole = T::all(parts);
        let field = if any.is_empty() { not_field } else { field };
        match (sight, self.action) {
            (Sight::Http, Action::Deny) => T::any(vec![T::not(T::mesh(self.is_http(field))), whole]),
            _ => whole,
        }
    }

    /// A source or an operation; none where it never matches.
    fn entry<T: Tree>(self, entry: &Result<Vec<Attribute>, Field>) -> Option<T> {
        let attributes = match entry {
            Ok(attributes) => attributes,
            Err(field) => return Some(T::unknown(Field::clone(field))),
        };
        let seen: Vec<T> =
            attributes.iter().filter(|a| self.sees(a)).map(|attribute| self.attribute(attribute)).collect();
        (!seen.is_empty()).then(|| T::all(seen))
    }

    /// The rule; none where it never matches.
    pub(super) fn rule(self, raw: &RawRule) -> Option<Rule> {
        let RawRule { from, to, when, broken, index } = raw;
        let entries = from.iter().chain(to).flatten().flatten().flatten();
        let all = || entries.clone().chain(when.iter().flatten());
        let unseen = all().any(|attribute| !self.sees(attribute));
        if unseen && self.action == Action::Allow || when.iter().flatten().any(|a| !self.sees(a)) {
            return None;
        }
        let mut given: Vec<Given> = broken.iter().cloned().map(Given::Unknown).collect();
        let http = all().find(|attribute| attribute.sight == Sight::Http);
        if let Some(attribute) = http.filter(|_| self.action == Action::Allow) {
            let field = if attribute.any.is_empty() { &attribute.not_field } else { &attribute.field };
            given.push(Given::Mesh(self.is_http(field)));
        }
        let mut of_source: Vec<Peer> = Vec::new();
        for condition in when {
            match condition {
                Ok(attribute) if attribute.of_source => of_source.push(self.attribute(attribute)),
                Ok(attribute) => given.push(self.attribute(attribute)),
                Err(field) => given.push(Given::Unknown(Field::clone(field))),
            }
        }
        let peers = match from {
            None if of_source.is_empty() => Peers::Any,
            None => Peers::Of(vec![Peer::All(of_source)]),
            Some(sources) => {
                let source = |source| self.entry::<Peer>(source).unwrap_or_else(Peer::nobody);
                let with = |source: Peer| match of_source.is_empty() {
                    true => source,
                    false => Peer::All([vec![source], of_source.clone()].concat()),
                };
                Peers::Of(sources.iter().map(source).map(with).collect())
            }
        };
        let ports = self.plain_ports(to.as_deref());
        if let (Some(operations), Ports::Any) = (to, &ports) {
            given.push(Given::Any(operations.iter().filter_map(|o| self.entry(o)).collect()));
        }
        let given = Given::All(given);
        Some(Rule { peers, ports, given, index: Some(*index), ..Rule::any(self.action) })
    }

    /// The ports, where a sidecar's rule asks of the operation for nothing else: such ports are the wire's own.
    fn plain_ports(self, to: Option<&[Result<Vec<Attribute>, Field>]>) -> Ports {
        let mut ports = Vec::new();
        let plain = to.is_some_and(|operations| {
            operations.iter().all(|operation| {
                let Ok([attribute]) = operation.as_deref() else { return false };
                ports.extend(attribute.any.iter().filter_map(|test| match test {
                    Test::Mesh(MeshWhat::Port(port)) => Some(*port),
                    _ => None,
                }));
                attribute.none.is_empty()
                    && attribute.any.iter().all(|test| matches!(test, Test::Mesh(MeshWhat::Port(_))))
            })
        });
        if !plain || self.by == Enforcer::Ztunnel {
            return Ports::Any;
        }
        let one = |port| PortMatch {
            protocol: Ok(Protocol::Tcp),
            port: Ok(PortSpec::Range { first: port, last: port }),
        };
        Ports::Of(ports.into_iter().map(one).collect())
    }
}
