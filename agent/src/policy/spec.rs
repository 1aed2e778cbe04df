//! A policy as it was read: conditions, peers and ports parsed once, each with its faults. Every family of policies
//! becomes this form.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::edge::{Direction, Protocol};
use crate::model::labels::Labels;
use crate::model::object::ObjectRef;

use super::calico::StagedEdit;
use super::condition::Condition;
use super::fault::{Content, Fault, Field, Lack};
use super::given::Given;
use super::kinds;
use super::mesh::MeshMatch;

/// The field of a policy that was not read at all. No path looks like it.
const NOT_SYNCED: &str = "(not read)";

/// An object that decides about connections, read once from the API's type, with what could not be read of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub(crate) reference: Arc<ObjectRef>,
    pub(crate) faults: Vec<Fault>,
    /// What is worth a remark and leaves nothing unknown.
    pub(crate) notes: Vec<Fault>,
    pub(crate) force: Force,
    pub(crate) contents: Contents,
}

/// Whether a policy decides anything at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Force {
    InForce,
    /// It is there, but its engine does not apply it, and why.
    NotInForce(Arc<str>),
}

/// What an object holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Rules, each part with a subject of its own.
    Parts(Vec<Part>),
    /// Addresses that rules of other objects name.
    Set(AddressSet),
    /// Where policies of other objects stand.
    Tier(TierSettings),
    /// What it would change, were it in force.
    Staged(Option<StagedEdit>),
}

/// A subject, and the rules for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) place: Place,
    pub(crate) scope: Scope,
    /// Which pods in its scope it selects.
    pub(crate) subject: Condition,
    pub(crate) egress: Section,
    pub(crate) ingress: Section,
}

/// Where the subjects are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// In the policy's namespace; unknown means that it could be any.
    Namespace(Content<Arc<str>>),
    /// In the whole cluster, wherever the subject's condition holds.
    Cluster,
}

/// Among which policies a part stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// networking.k8s.io: the dialect says where it sits.
    NetworkPolicy,
    /// policy.networking.k8s.io's tiers: lower numbers first, the order of equal ones is open.
    Admin {
        priority: i32,
    },
    Baseline {
        priority: i32,
    },
    /// cilium.io's rule set.
    Cilium,
    /// A tier of projectcalico.org, and the order in it. The field names the tier.
    Calico {
        tier: Arc<str>,
        order: Order,
        field: Field,
    },
    Mesh(MeshStage),
}

/// security.istio.io's steps, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum MeshStage {
    /// Workload before namespace before mesh (`rank`); of each the oldest, which may leave it to the next.
    PeerAuthentication {
        rank: u8,
        created: i64,
    },
    Custom,
    Deny,
    Allow,
}

/// A number in Calico's order; absent is last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Order(i64);

impl Order {
    pub(crate) const LAST: Self = Self(i64::MAX);

    pub(crate) const fn number(self) -> i64 {
        self.0
    }

    pub(crate) fn new(order: f64) -> Self {
        // The order of floating point numbers is that of their bits, mirrored below zero. -0 is 0.
        let bits = (order + 0.0).to_bits().cast_signed();
        Self(if bits < 0 { bits ^ i64::MAX } else { bits })
    }
}

/// A set of addresses that rules refer to by name or by labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddressSet {
    pub(crate) family: SetFamily,
    pub(crate) namespace: Option<Arc<str>>,
    pub(crate) name: Arc<str>,
    pub(crate) labels: Labels,
    pub(crate) nets: Vec<IpNet>,
    pub(crate) names: Vec<NamePattern>,
    /// Something of it could not be read: it may hold more.
    pub(crate) broken: Option<Field>,
}

impl AddressSet {
    /// A set of which nothing could be read: it may have any name and labels, and hold anything.
    pub(crate) fn unreadable(family: SetFamily, field: &Field) -> Self {
        Self {
            family,
            namespace: None,
            name: "".into(),
            labels: Labels::default(),
            nets: Vec::new(),
            names: Vec::new(),
            broken: Some(Field::clone(field)),
        }
    }
}

/// Who may refer to an address set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum SetFamily {
    /// CiliumCIDRGroup.
    Cilium,
    /// NetworkSet and GlobalNetworkSet.
    Calico,
}

/// A tier of projectcalico.org.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TierSettings {
    pub(crate) name: Arc<str>,
    pub(crate) order: Order,
    /// What happens at its end to pods that a policy of the tier selects.
    pub(crate) end: Content<Action>,
}

impl Policy {
    /// Which object it was read from.
    pub const fn reference(&self) -> &Arc<ObjectRef> {
        &self.reference
    }

    /// What of it could not be read; empty where the API server would accept it as it is.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// What of it does not do what it seems to, or nothing at all. Verdicts do not become unknown for it.
    pub fn notes(&self) -> &[Fault] {
        &self.notes
    }

    /// Whether it decides anything at present.
    pub const fn force(&self) -> &Force {
        &self.force
    }

    /// A policy of one part, in force.
    pub(crate) fn of_part(reference: ObjectRef, faults: Vec<Fault>, mut part: Part) -> Self {
        part.shrink_to_fit();
        Self {
            reference: Arc::new(reference),
            faults,
            notes: Vec::new(),
            force: Force::InForce,
            contents: Contents::Parts(vec![part]),
        }
    }

    /// A policy of which nothing could be read: it may select any pod of its namespace (of every namespace,
    /// where `reference` has none), in both directions, with any rules.
    pub fn unreadable(reference: ObjectRef, fault: Fault) -> Self {
        let field = Field::from(if fault.field.is_empty() { "spec" } else { fault.field.as_str() });
        let contents = kinds::unreadable(&reference, &field);
        let reference = Arc::new(reference);
        Self { reference, faults: vec![fault], notes: Vec::new(), force: Force::InForce, contents }
    }

    /// What stands for all policies of a kind that were not read yet: it may select any pod and say anything.
    pub fn not_synced(kind: &str) -> Self {
        let reference = ObjectRef::cluster(kind, "(not read)");
        let message = "the policies of this kind were not read".to_owned();
        let field = Field::new(NOT_SYNCED, Lack::Sync);
        let contents = kinds::unreadable(&reference, &field);
        let faults = vec![Fault { field: NOT_SYNCED.to_owned(), message }];
        let reference = Arc::new(reference);
        Self { reference, faults, notes: Vec::new(), force: Force::InForce, contents }
    }

    /// Whether it stands for policies that were not read.
    pub fn is_not_synced(&self) -> bool {
        self.faults.first().is_some_and(|fault| fault.field == NOT_SYNCED)
    }

    /// The parts that are in force.
    pub(crate) fn parts(&self) -> &[Part] {
        match (&self.force, &self.contents) {
            (Force::InForce, Contents::Parts(parts)) => parts,
            _ => &[],
        }
    }
}

impl Part {
    /// A part of which nothing could be read; its rules may do any of these.
    pub(crate) fn unknown(place: Place, scope: Scope, field: &Field, actions: &[Action]) -> Self {
        Self {
            place,
            scope,
            subject: Condition::Unknown(Field::clone(field)),
            egress: Section::unknown(field, actions),
            ingress: Section::unknown(field, actions),
        }
    }

    /// Lists that grew have room for four where most have one, and a cluster may have ten thousand policies.
    fn shrink_to_fit(&mut self) {
        for section in [&mut self.egress, &mut self.ingress] {
            section.rules.shrink_to_fit();
            for rule in &mut section.rules {
                if let Peers::Of(peers) = &mut rule.peers {
                    peers.shrink_to_fit();
                }
                if let Ports::Of(ports) = &mut rule.ports {
                    ports.shrink_to_fit();
                }
            }
        }
    }

    /// Nobody knows whether the part is there at all: each rule may count or not, and the sections too.
    pub(crate) fn doubt(&mut self, field: &Field) {
        for direction in Direction::BOTH {
            let section = self.section_mut(direction);
            if section.applies != Ok(false) {
                section.applies = Err(Field::clone(field));
            }
        }
    }

    pub(crate) const fn section(&self, direction: Direction) -> &Section {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }

    pub(crate) const fn section_mut(&mut self, direction: Direction) -> &mut Section {
        match direction {
            Direction::Egress => &mut self.egress,
            Direction::Ingress => &mut self.ingress,
        }
    }
}

/// What a policy says about one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    /// Whether it says anything about the direction.
    pub(crate) applies: Content<bool>,
    /// Whether, saying something, it denies the selected pods what nothing allows.
    pub(crate) isolates: Content<bool>,
    pub(crate) rules: Vec<Rule>,
}

impl Section {
    /// It says nothing about the direction.
    pub(crate) const fn absent() -> Self {
        Self { applies: Ok(false), isolates: Ok(false), rules: Vec::new() }
    }

    /// A section that isolates, if it is there at all.
    pub(crate) const fn isolating(applies: Content<bool>, rules: Vec<Rule>) -> Self {
        Self { applies, isolates: Ok(true), rules }
    }

    pub(crate) fn unknown(field: &Field, actions: &[Action]) -> Self {
        let rule = |action| Rule { action, ..Rule::unknown(field) };
        Self::isolating(Err(Field::clone(field)), actions.iter().copied().map(rule).collect())
    }
}

/// What a matching rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Allow,
    Deny,
    /// Leaves the whole tier.
    Pass,
    /// Nothing: the next rule is asked.
    Log,
}

impl Action {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::Deny => "Deny",
            Self::Pass => "Pass",
            Self::Log => "Log",
        }
    }
}

/// One rule: it matches where its peers and its ports do, and what else it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) action: Action,
    pub(crate) peers: Peers,
    pub(crate) ports: Ports,
    /// Ports that it does not match, whatever `ports` says.
    pub(crate) not_ports: Vec<PortMatch>,
    pub(crate) given: Given,
    /// It looks into the connections that it matches.
    pub(crate) l7: Option<L7>,
    /// Its index in the API's list; where absent, its place in the section.
    pub(crate) index: Option<u32>,
    /// What it is called, where its index does not say enough.
    pub(crate) name: Option<Arc<str>>,
}

/// Which requests a rule lets pass; others are answered with a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct L7 {
    pub(crate) field: Arc<str>,
    pub(crate) lets: Given,
}

impl Rule {
    /// A rule for everything.
    pub(crate) const fn any(action: Action) -> Self {
        Self {
            action,
            peers: Peers::Any,
            ports: Ports::Any,
            not_ports: Vec::new(),
            given: Given::nothing(),
            l7: None,
            index: None,
            name: None,
        }
    }

    /// A rule that may match anything.
    pub(crate) fn unknown(field: &Field) -> Self {
        let (peers, ports) = (Peers::Unknown(Field::clone(field)), Ports::Unknown(Field::clone(field)));
        Self { peers, ports, ..Self::any(Action::Allow) }
    }
}

/// A rule's `from` or `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peers {
    Any,
    Of(Vec<Peer>),
    Unknown(Field),
}

/// One entry of `from` or `to`: what the other end must be. `All` of nothing is anyone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    /// A pod, not of its node's network, whose identity fulfils both conditions.
    Pods {
        namespaces: Condition,
        pods: Condition,
    },
    Nodes(NodeMatch),
    /// An address outside the cluster.
    Outside,
    Block(IpBlock, Reach),
    /// The addresses of the sets that this means, by name or by labels.
    Sets(SetMatch),
    /// Where the API server listens.
    ApiServer(Field),
    /// What Services select, or their addresses where they select nothing.
    Services(ServiceMatch),
    /// What the subject calls so.
    Named(NamePattern, Field),
    /// What the mesh knows of the initiator.
    Mesh(MeshMatch),
    Unknown(Field),
}

impl Peer {
    pub(crate) const fn nobody() -> Self {
        Self::Any(Vec::new())
    }
}

/// Which nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeMatch {
    Every,
    /// The one that the subject runs on.
    Own,
    Other,
    /// By labels; the field asks for them.
    Labelled(crate::model::selector::Selector, Field),
}

/// Whose addresses a block means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reach {
    /// As the dialect reads `ipBlock`.
    Dialect,
    Everyone,
    /// Never a pod's, and a node's as the dialect says.
    NotPods,
}

/// Which address sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetMatch {
    pub(crate) family: SetFamily,
    pub(crate) which: SetName,
    pub(crate) reach: Reach,
    /// Taken out of them.
    pub(crate) except: Vec<IpNet>,
    pub(crate) field: Field,
}

/// How sets are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SetName {
    Named(Arc<str>),
    /// Those whose labels fulfil the condition as a pod's would, in the namespaces that the second one says; a set
    /// without a namespace is in none.
    Labelled {
        sets: Condition,
        namespaces: Option<Condition>,
    },
}

/// Which Services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceMatch {
    /// Absent: in any.
    pub(crate) namespace: Option<Arc<str>>,
    pub(crate) which: ServiceName,
    /// Whose addresses are meant, where a Service lists them.
    pub(crate) reach: Reach,
    pub(crate) field: Field,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServiceName {
    Named(Arc<str>),
    Labelled(crate::model::selector::Selector),
}

/// A domain name, or many.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum NamePattern {
    Exact(Arc<str>),
    /// `*.x.io`: any depth below, never `x.io` itself.
    Below(Arc<str>),
    /// Each `*` stands for any characters but a dot; alone, for everything.
    Wildcard(Arc<str>),
}

impl NamePattern {
    /// Whether it means this name, which is in lower case without a final dot.
    pub(crate) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(wanted) => **wanted == *name,
            Self::Below(parent) => {
                name.strip_suffix(&**parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            Self::Wildcard(pattern) => &**pattern == "*" || wildcard(pattern, name),
        }
    }
}

/// Whether `name` has the form of `pattern`, in which `*` is any run of characters without a dot.
fn wildcard(pattern: &str, name: &str) -> bool {
    let (mut patterns, mut labels) = (pattern.split('.'), name.split('.'));
    loop {
        match (patterns.next(), labels.next()) {
            (None, None) => return true,
            (Some(pattern), Some(label)) if wildcard_label(pattern, label) => {}
            _ => return false,
        }
    }
}

/// The same for what is between two dots.
fn wildcard_label(pattern: &str, label: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == label };
    let Some(mut label) = label.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').map_or((None, rest), |(middle, last)| (Some(middle), last));
    for part in middle.into_iter().flat_map(|middle| middle.split('*')) {
        let Some((_, after)) = label.split_once(part) else { return false };
        label = after;
    }
    label.ends_with(last)
}

impl std::fmt::Display for NamePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(name) | Self::Wildcard(name) => f.write_str(name),
            Self::Below(parent) => write!(f, "*.{parent}"),
        }
    }
}

/// An address block without its exceptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IpBlock {
    pub(crate) cidr: Content<IpNet>,
    pub(crate) except: Vec<IpNet>,
    /// An exception that could not be read.
    pub(crate) broken_except: Option<Field>,
}

/// Parses a CIDR as the API server does: bits behind the prefix are dropped. Leading zeros and IPv4 in IPv6
/// are refused, because API servers and engines read them differently.
pub(crate) fn parse_cidr(text: &str) -> Result<IpNet, String> {
    let refuse = || format!("\"{text}\" is not a CIDR such as 192.0.2.0/24 or 2001:db8::/32");
    let Some((address, length)) = text.split_once('/') else {
        return Err(format!("\"{text}\" has no prefix length such as /24"));
    };
    // Not ipnet's own parser, which reads 192.0.02.0/+8.
    let address: IpAddr = address.parse().ok().ok_or_else(refuse)?;
    let length: u8 = length.parse().ok().filter(|n: &u8| n.to_string() == length).ok_or_else(refuse)?;
    match address {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            Err(format!("\"{text}\" is an IPv4 block in IPv6 notation: write it as IPv4"))
        }
        _ => IpNet::new(address, length).map(|net| net.trunc()).ok().ok_or_else(refuse),
    }
}

/// A rule's `ports`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ports {
    /// Every port of every protocol, and what has no ports.
    Any,
    Of(Vec<PortMatch>),
    Unknown(Field),
}

/// One entry of `ports`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortMatch {
    pub(crate) protocol: Content<Protocol>,
    pub(crate) port: Content<PortSpec>,
}

/// Which ports of a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PortSpec {
    Any,
    Range {
        first: u16,
        last: u16,
    },
    /// From this port on, up to an end that could not be read.
    From {
        first: u16,
        end: Field,
    },
    /// As the responder's pod names its container ports.
    Named(Arc<str>),
}
