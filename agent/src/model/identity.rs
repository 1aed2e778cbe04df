//! Identities: what a policy can see of a pod, interned, so that verdicts are cached by number.

use std::hash::{BuildHasher as _, Hash, Hasher};
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashSet};

use super::edge::Protocol;
use super::labels::Labels;
use super::role::Roles;

/// The number of an interned identity. Never reused within one [`Interner`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityId(u32);

impl IdentityId {
    /// As an index into tables that are kept by identity.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A container port that has a name: `ports[].name`, `containerPort`, `protocol`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamedPort {
    pub name: Arc<str>,
    pub protocol: Protocol,
    pub port: u16,
}

/// Everything of a pod that a policy can tell apart, without its addresses.
///
/// The namespace's labels are part of it: a relabelled namespace gives its pods new identities, so nothing
/// that is cached by identity ever goes stale. So are the named container ports, because a rule's named
/// port resolves on the responder's pod, and its roles, which `default-deny` may assume allowed.
#[derive(Debug, Clone)]
pub struct Identity {
    pub id: IdentityId,
    pub namespace: Arc<str>,
    pub namespace_labels: Labels,
    pub labels: Labels,
    pub service_account: Arc<str>,
    pub named_ports: Arc<[NamedPort]>,
    pub roles: Roles,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}
impl Eq for Identity {}
impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// What an identity is made of, before it has a number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdentityParts {
    pub namespace: Arc<str>,
    pub namespace_labels: Labels,
    pub labels: Labels,
    pub service_account: Arc<str>,
    /// Sorted by the interner: their order in the pod does not matter.
    pub named_ports: Vec<NamedPort>,
    pub roles: Roles,
}

/// What equal identities have in common, without copies.
type Parts<'a> = (&'a str, &'a Labels, &'a Labels, &'a str, &'a [NamedPort], Roles);

impl IdentityParts {
    fn view(&self) -> Parts<'_> {
        let Self { namespace, namespace_labels, labels, service_account, named_ports, roles } = self;
        (namespace, namespace_labels, labels, service_account, named_ports, *roles)
    }
}

impl Identity {
    fn view(&self) -> Parts<'_> {
        let Self { namespace, namespace_labels, labels, service_account, named_ports, roles, .. } = self;
        (namespace, namespace_labels, labels, service_account, named_ports, *roles)
    }
}

fn hash(parts: Parts<'_>) -> u64 {
    FxBuildHasher.hash_one(parts)
}

/// Gives equal parts the same identity.
#[derive(Debug, Default)]
pub struct Interner {
    known: HashTable<Arc<Identity>>,
    /// Pods of most workloads have the same ones, under identities that differ.
    named_ports: FxHashSet<Arc<[NamedPort]>>,
    next: u32,
}

impl Interner {
    /// The identity of these parts: a known one, or a new one with the next number.
    pub fn intern(&mut self, mut parts: IdentityParts) -> Arc<Identity> {
        parts.named_ports.sort();
        parts.named_ports.dedup();
        let hashed = hash(parts.view());
        if let Some(known) = self.known.find(hashed, |known| known.view() == parts.view()) {
            return Arc::clone(known);
        }
        let named_ports = match self.named_ports.get(&*parts.named_ports) {
            Some(known) => Arc::clone(known),
            None => Arc::from(parts.named_ports),
        };
        self.named_ports.insert(Arc::clone(&named_ports));
        let identity = Arc::new(Identity {
            id: IdentityId(self.next),
            namespace: parts.namespace,
            namespace_labels: parts.namespace_labels,
            labels: parts.labels,
            service_account: parts.service_account,
            named_ports,
            roles: parts.roles,
        });
        self.next += 1;
        self.known.insert_unique(hashed, Arc::clone(&identity), |known| hash(known.view()));
        identity
    }

    /// Forgets identities that nobody else holds, and returns how many were forgotten.
    pub fn forget_unused(&mut self) -> usize {
        let before = self.known.len();
        self.known.retain(|identity| Arc::strong_count(identity) > 1);
        self.named_ports.retain(|ports| Arc::strong_count(ports) > 1);
        before - self.known.len()
    }

    /// How many identities are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}
